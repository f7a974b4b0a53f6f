"""The spec that is written beside each take."""

from __future__ import annotations

import math
import platform
from importlib import metadata
from typing import TYPE_CHECKING

from acestep_cli import __version__, spec
from acestep_cli.hardware import Plan

if TYPE_CHECKING:
    from acestep_cli.pipeline import Take

LIBRARIES = ("numpy", "soundfile", "torch", "transformers")


def text(take: Take, checkpoint: str, weights: str, plan: Plan, peak: float) -> str:
    """The completed request of `take`, and under `render` what it was made with and how it went.

    `checkpoint` is a name and `weights` their hash; `peak` is that of the samples as decoded. There is no date in it:
    the same render differs in timings alone.
    """
    return spec.dump(
        take.request,
        {
            "acestep": __version__,
            "checkpoint": {"name": checkpoint, "weights": weights},
            "device": plan.device,
            "dtype": plan.dtype,
            "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES},
            "seconds": round(take.audio.seconds, 6),
            "checks": {"peak_dbfs": round(20 * math.log10(peak), 2)},
            "timings": take.timings,
            "warnings": list(take.warnings),
        },
    )
