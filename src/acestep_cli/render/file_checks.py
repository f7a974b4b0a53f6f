"""Measurements of the file of a take, as it is decoded again, and sentences about them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.audio import encode, loudness, measure, splice
from acestep_cli.audio.loudness import Level
from acestep_cli.audio.measure import Measures
from acestep_cli.render import sidecar
from acestep_cli.render.result import OutputFile
from acestep_cli.song import regions

if TYPE_CHECKING:
    from acestep_cli.song.complete import Completed
    from acestep_cli.take import Take

#: Decibels by which the loudness may fall short before there is a warning.
LOUDNESS_TOLERANCE = 0.2


def measure_take(file: Path, take: Take) -> tuple[Measures, dict[str, float]]:
    """Decode the file of a take a block at a time, and return its measurements and the checks for its sidecar."""
    decoding = measure.open_for_measuring(file)
    meter = measure.Meter(decoding.rate)
    against = None if take.splice is None else splice.SpliceMeter(take.audio, take.splice, decoding.rate)
    for block in decoding:
        meter.add(block)
        if against is not None:
            against.add(block)
    found = meter.measures()
    checks = sidecar.level_fields(found, take.request.loudness)
    if against is not None:
        checks |= against.checks()
    if take.residual_of is not None:
        checks["residual_db"] = round(splice.decibels(meter.rms) - splice.decibels(take.residual_of), 2)
    if take.edit_change is not None:
        checks["edit_change"] = round(take.edit_change, 4)
    return found, checks


def over_full_scale(level: Level, output: OutputFile) -> str:
    """Return the warning for a peak that the format of a file cannot hold."""
    name = output.path.name if output.path else "stdout"
    peak = 20 * math.log10(level.peak)
    how = "what is over full scale is cut off" if level.clips else f"all of it is turned down by {peak:.1f} dB"
    return (
        f"{name}: peaks at {peak:+.1f} dBFS, which {output.format} cannot hold, so {how}; a .wav with --bit-depth "
        f"{encode.FLOATING} holds it, and --loudness peak:-1 turns it down."
    )


def too_quiet(request: Completed, checks: Mapping[str, float]) -> str | None:
    """Return the warning for a file that is quieter than was asked for; None where it is as loud."""
    asked, reached = loudness.parse_loudness(request.loudness), checks.get("lufs_written")
    if reached is None or reached >= asked.decibels - LOUDNESS_TOLERANCE:
        return None
    return f"{request.loudness} would push peaks over -1 dB; the loudness is {reached:.1f} LUFS."


def remarks(take: Take, checks: Mapping[str, float]) -> Iterator[str]:
    """Yield a sentence on what the file of a take has of its source."""
    causes = level_causes(take.request)
    because = f" ({' and '.join(causes)})" if causes else ""
    if take.splice is not None:
        yield regions.remark(checks, take.request.region) + (because if checks["outside_difference"] else "")
    if take.edit_change is not None:
        yield f"the edit changed the latents by {take.edit_change:.0%} of their size"
    if take.residual_of is not None:
        yield (
            f"what the stems leave of the source is {checks['residual_db']:+.1f} dB of it{because}; stems are "
            "generated, not cut out, so they never add up exactly"
        )


def level_causes(request: Completed) -> list[str]:
    """Return in words what was asked for that changes the level of a file, or of its ends."""
    found = []
    if loudness.parse_loudness(request.loudness).kind != "none":
        found.append(f"{request.loudness} sets the level of all of it")
    if request.fade_in or request.fade_out:
        found.append("it is faded")
    return found
