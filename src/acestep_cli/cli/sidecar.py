"""The spec that is written beside each take, and what it says of one that is there already."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from acestep_cli import __version__, audio, document, modes, spec
from acestep_cli.hardware import Plan

if TYPE_CHECKING:
    from acestep_cli.pipeline import Take

LIBRARIES = ("mutagen", "numpy", "soundfile", "soxr", "torch", "transformers")


@dataclass(frozen=True)
class Record:
    """What a sidecar says of its take. Whoever edits it changes a spec, not what was rendered."""

    recipe: str
    seed: int
    render: dict[str, Any]


def text(take: Take, checkpoint: str, weights: str, plan: Plan, measured: dict[str, Any]) -> str:
    """The completed request of `take`, and under `render` what it was made with and how it went.

    `checkpoint` is a name and `weights` their hash; `measured` are the checks. There is no date in it: the same
    render differs in timings alone.
    """
    return spec.dump(
        take.request,
        {
            "acestep": __version__,
            "recipe": modes.recipe(take.request, weights),
            "seed": take.request.seed,
            "checkpoint": {"name": checkpoint, "weights": weights},
            "device": plan.device,
            "dtype": plan.dtype,
            "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES},
            "seconds": round(take.audio.seconds, 6),
            "sample_rate": take.request.sample_rate or take.audio.sample_rate,
            "checks": measured,
            "timings": take.timings,
            "warnings": list(take.warnings),
        },
    )


def checks(level: audio.Level) -> dict[str, float]:
    """What was measured before the level was set, and the loudness it was brought to, if one was asked for."""
    found = {"peak_dbfs": 20 * math.log10(level.peak), "lufs": level.lufs, "lufs_written": level.reached}
    return {name: round(value, 2) for name, value in found.items() if value is not None}


def read(path: Path) -> Record | None:
    """The record in the sidecar `path`; None where there is none, or none that this program wrote."""
    try:
        if path.stat().st_size > spec.MOST_BYTES:
            return None
        content = yaml.load(path.read_bytes(), Loader=document.LOADER)
        render = content[spec.RENDER]
        recipe, seed = render["recipe"], render["seed"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, LookupError, TypeError, ValueError):
        return None
    return Record(recipe, seed, render) if isinstance(recipe, str) and isinstance(seed, int) else None
