"""A plot of the loss of a training run.

Pillow draws it: it is installed for other pictures anyway, and matplotlib is ten times its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

SIZE, MARGINS = (960, 540), (70, 30, 30, 50)  # left, top, right, bottom
PAPER, INK, GRID, RAW, SMOOTH = "white", "#333333", "#dddddd", "#b9cfe4", "#1f5f99"
GRID_LINES = 5
#: The weight of the previous value in the running mean.
SMOOTHING = 0.98


def running_mean(losses: Sequence[float]) -> list[float]:
    """Return an exponential running mean of losses, corrected for its start as in Adam; NaN losses are skipped."""
    means: list[float] = []
    mean, weight = 0.0, 0.0
    for loss in losses:
        if math.isfinite(loss):
            mean, weight = SMOOTHING * mean + (1 - SMOOTHING) * loss, SMOOTHING * weight + 1 - SMOOTHING
        means.append(mean / weight if weight else math.nan)
    return means


def draw_losses(losses: Sequence[float], path: Path) -> None:
    """Write the losses of all steps, and their running mean, as the PNG `path`."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = MARGINS[0], MARGINS[1], SIZE[0] - MARGINS[2], SIZE[1] - MARGINS[3]
    finite = [loss for loss in losses if math.isfinite(loss)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    span = (high - low) or 1.0

    def place(step: int, loss: float) -> tuple[float, float]:
        return left + (right - left) * step / max(len(losses) - 1, 1), bottom - (bottom - top) * (loss - low) / span

    for line in range(GRID_LINES + 1):
        level = low + span * line / GRID_LINES
        _, y = place(0, level)
        draw.line([(left, y), (right, y)], fill=GRID)
        draw.text((left - 8, y), f"{level:.3g}", fill=INK, anchor="rm")
        step = round(len(losses) * line / GRID_LINES)
        draw.text((left + (right - left) * line / GRID_LINES, bottom + 8), str(step), fill=INK, anchor="ma")
    for values, colour, width in ((losses, RAW, 1), (running_mean(losses), SMOOTH, 3)):
        points = [place(step, value) for step, value in enumerate(values) if math.isfinite(value)]
        if len(points) > 1:
            draw.line(points, fill=colour, width=width)
    draw.text(((left + right) / 2, SIZE[1] - 8), "step", fill=INK, anchor="md")
    draw.text((left, top - 8), "loss", fill=INK, anchor="lb")
    picture.save(path, format="PNG")
