"""The report of a run for `--json`: one object, whose schema is `schemas/result.schema.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acestep_cli.errors import (
    INTERRUPTED,
    MEMORY_HINT,
    TERMINATED,
    UNEXPECTED,
    AceStepError,
    DeviceLostError,
    MemoryLimitError,
    Terminated,
    lost_device,
    memory_shortage,
    ran_out_of_memory,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from acestep_cli.song.complete import Completed

SCHEMA = "acestep/1"
SEVERAL_FAILED = 7
#: Status of an output.
PLANNED, WRITTEN, SKIPPED, FAILED = "planned", "written", "skipped", "failed"


@dataclass
class OutputFile:
    """One file of a take, from its plan to the written file or the failure.

    `kind` is take, stem, mix or residual, and a stem has a `track`; `completed` is its request.
    """

    path: Path | None
    sidecar: Path | None
    take: int
    completed: Completed
    plan: dict[str, Any]
    #: Its checkpoint and Songwriter are on this machine.
    installed: bool = True
    kind: str = "take"
    track: str | None = None
    #: The file of its timed lyrics, where they were asked for.
    lrc: Path | None = None
    status: str = PLANNED
    seconds: float | None = None
    sample_rate: int | None = None
    checks: dict[str, Any] = field(default_factory=dict)
    #: Scores of `--rank`, and the rank among the takes of its song that they give, from 1.
    scores: dict[str, float] = field(default_factory=dict)
    rank: int | None = None
    timings: dict[str, float] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    origins: dict[str, str] | None = None
    latents: Path | None = None
    #: Files left beside lost audio, to be removed, with their times of change in nanoseconds.
    stale: dict[Path, int] = field(default_factory=dict)
    #: Its path without a number, where a number that is taken meanwhile is replaced by the next one.
    unnumbered: Path | None = None
    #: An earlier render exists and is to be replaced.
    outdated: bool = False
    #: The file exists with other tags.
    retagged: bool = False

    @property
    def seed(self) -> int:
        return self.completed.seed

    @property
    def format(self) -> str:
        return self.completed.format

    @property
    def files(self) -> list[Path]:
        """The files of this take: the audio, and those beside it."""
        return [file for file in (self.path, self.sidecar, self.lrc, self.latents) if file is not None]

    def report(self) -> dict[str, Any]:
        """Return the entry of this take in `outputs`."""
        entry = {
            "path": str(self.path) if self.path else None,
            "sidecar": str(self.sidecar) if self.sidecar else None,
            "lrc": str(self.lrc) if self.lrc else None,
            "latents": str(self.latents) if self.latents else None,
            "format": self.format,
            "seconds": self.seconds,
            "sample_rate": self.sample_rate,
            "seed": self.seed,
            "take": self.take,
            "track": self.track,
            "kind": self.kind,
            "status": self.status,
            "checks": self.checks,
            "scores": self.scores,
            "rank": self.rank,
            "request": as_json(self.completed),
            "plan": self.plan,
            "installed": self.installed,
            "timings": self.timings,
        }
        if self.origins is not None:
            entry["origins"] = self.origins
        if self.error is not None:
            entry["error"] = self.error
        return entry


def as_json(model: BaseModel) -> dict[str, Any]:
    """Return a pydantic model as JSON values."""
    found: dict[str, Any] = model.model_dump(mode="json", exclude_none=True)
    return found


@dataclass
class RunReport:
    """Outputs and warnings of a run so far."""

    outputs: list[OutputFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Further fields, of commands that make no audio.
    more: dict[str, Any] = field(default_factory=dict)


def error_object(exit_code: int, name: str, message: str, hint: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"exit_code": exit_code, "name": name, "message": message}
    return found if hint is None else {**found, "hint": hint}


def report_text(run_report: RunReport, error: dict[str, Any] | None) -> str:
    """Return the report as one line of JSON."""
    status = "ok" if error is None else "partial" if error["exit_code"] == SEVERAL_FAILED else "error"
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "status": status,
        "outputs": [output.report() for output in run_report.outputs],
        "warnings": run_report.warnings,
        **run_report.more,
    }
    if (peak := peak_memory_bytes()) is not None:
        content["peak_memory_bytes"] = peak
    if error is not None:
        content["error"] = error
    # ASCII: file names that are not UTF-8 are written as escapes.
    return json.dumps(content, ensure_ascii=True, allow_nan=False)


def peak_memory_bytes() -> int | None:
    """Return the peak of main memory of this process in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return an exception as the `error` object of `--json`."""
    match error:
        case AceStepError() if (shortage := memory_shortage(error)) is not None:
            return describe_error(shortage)
        case AceStepError():
            return error_object(error.exit_code, error.name, error.message, error.hint)
        case Terminated():
            return error_object(TERMINATED, "terminated", "Terminated.", None)
        case KeyboardInterrupt():
            return error_object(INTERRUPTED, "interrupted", "Interrupted.", None)
        case _ if ran_out_of_memory(error):
            return describe_error(MemoryLimitError(f"Memory ran out: {type(error).__name__}: {error}", MEMORY_HINT))
        case _ if lost_device(error):
            return describe_error(DeviceLostError(error))
        case _:
            message = f"Something unexpected failed: {type(error).__name__}: {error}\n--debug shows where."
            return error_object(UNEXPECTED, "unexpected", message, None)


def as_error(described: Mapping[str, Any]) -> AceStepError:
    """Return the error that `describe_error` described."""
    error = AceStepError(described["message"], described.get("hint"))
    error.exit_code, error.name = described["exit_code"], described["name"]
    return error
