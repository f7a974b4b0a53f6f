"""Differences between an existing take and the one asked for, as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from acestep_cli.errors import AceStepError
from acestep_cli.models import latents_file
from acestep_cli.render import sidecar
from acestep_cli.render.job import Job
from acestep_cli.render.result import OutputFile
from acestep_cli.song import spec, spec_layers
from acestep_cli.song.request import KEYS


def differences(job: Job, output: OutputFile) -> list[str]:
    """Return a sentence for each difference of the file of `output`; none where it is up to date."""
    assert output.path is not None
    beside = spec_layers.sidecar_path(output.path)
    record = sidecar.read_sidecar(beside)
    if record is None or not output.path.is_file():
        return ["it is not there yet"]
    if output.retagged:
        return list(key_differences(job, output, beside, sidecar.LABELS)) or ["its cover picture has changed"]
    if not output.outdated:
        return []
    found = []
    if output.lrc is not None and not output.lrc.is_file() and not record.instrumental:
        found.append("its timed lyrics are missing")
    if output.latents is not None and not latents_file.latents_belong(output.latents, output.path):
        found.append("its latents are not there")
    if record.checkpoint.name != job.checkpoint.name:
        found.append(f"model: {record.checkpoint.name} -> {job.checkpoint.name}")
    elif record.checkpoint.weights != job.weights_hash:
        found.append(f"the weights of {job.checkpoint.name} have changed")
    found += key_differences(
        job, output, beside, [name for name, key in KEYS.items() if key.shapes or name in ("seed", "loras")]
    )
    return found or ["a recording or adapter that it works with, or the Songwriter, has changed"]


def key_differences(job: Job, output: OutputFile, beside: Path, names: list[str] | tuple[str, ...]) -> Iterator[str]:
    """Yield a sentence for each key that differs from the sidecar `beside`, but those left to the Songwriter."""
    try:
        before = spec.load(beside).model_dump()
    except AceStepError as error:  # such as a cover that is gone
        yield f"{beside.name} cannot be compared: {error.message}"
        return
    now = output.completed.model_dump()
    for name in names:
        old, new = before[name], now[name]
        if old != new and name not in job.request.open:
            yield f"{name}: {describe_change(old, new)}"


def describe_change(old: Any, new: Any) -> str:
    """Return a change of a value as text; for texts of several lines, the first line that differs."""
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        lines = zip_longest(old.splitlines(), new.splitlines())
        for number, (was, now) in enumerate(lines, start=1):
            if was != now:
                return f"line {number}: {value_text(was)} -> {value_text(now)}"
        return "the line ends"
    return f"{value_text(old)} -> {value_text(new)}"


def value_text(value: Any) -> str:
    return "nothing" if value is None else spec.inline_value(value) or "an empty line"
