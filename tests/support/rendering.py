"""Renders of tiny checkpoints in float32 on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np

from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoints
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import tiny

FLOAT32 = Plan(device="cpu", dtype="float32", tile_frames=64, reasons={})


def quiet(stage: str, done: int, total: int) -> None:
    """A report nobody reads."""


def render(oracle: tiny.Oracle, model: str = "turbo", plan: Plan = FLOAT32, **asked: Any) -> list[Take]:
    found = checkpoints.find_checkpoint(model, oracle.root)
    request = complete.complete(Request(**{"caption": "a song", "duration": 10, "seed": 7, **asked}), found)
    return list(Pipeline(found, plan).run([request], quiet))


def samples(*args: Any, **asked: Any) -> np.ndarray:
    (take,) = render(*args, **asked)
    return take.audio.samples
