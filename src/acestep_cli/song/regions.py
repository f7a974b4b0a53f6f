"""Which part of a recording is worked on, and how long the song becomes.

Two clocks: the source's own, on which `start` and `end` are given and may lie outside of it, and that of the song,
which begins where the source was extended to. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from acestep_cli.audio import decode
from acestep_cli.song.request import Request
from acestep_cli.song.values import LONGEST_SECONDS

#: Two latent frames and a half: less is no music.
SHORTEST = 0.1

Regions = tuple[tuple[float, float], ...]
"""The parts of a song that are to be made, on its own clock."""


def region_extent(request: Request, source: float) -> tuple[float, float]:
    """From where to where a source of so many seconds is worked on, on its own clock.

    With one end alone outside of the source, the other one is where the source begins or ends: only the extension is
    made.
    """
    start, end = request.start, request.end
    if start is None:
        start = source if end is not None and end > source else 0.0
    if end is None:
        end = 0.0 if start < 0 else source
    return start, end


def seconds_before(request: Request, source: float) -> float:
    """How far a song is extended to the front of its source."""
    return max(0.0, -region_extent(request, source)[0])


def extended_seconds(request: Request, source: float) -> float:
    """How long a song becomes whose source has so many seconds."""
    return seconds_before(request, source) + source + max(0.0, region_extent(request, source)[1] - source)


def on_song_clock(request: Request, source: float, *parts: tuple[float, float]) -> Regions:
    """Parts on the clock of the source, on that of the song."""
    shift = seconds_before(request, source)
    return tuple((start + shift, end + shift) for start, end in parts)


def whole_region(request: Request, source: float) -> Regions:
    """All that was asked for, in one."""
    return on_song_clock(request, source, region_extent(request, source))


def repaint_regions(request: Request, source: float) -> Regions:
    """What is made anew: what was asked for, or where that reaches past both ends, the extensions alone."""
    start, end = region_extent(request, source)
    both = start < 0 and end > source
    return on_song_clock(request, source, *(((start, 0.0), (source, end)) if both else ((start, end),)))


def remark(checks: Mapping[str, float]) -> str:
    """What was measured of a splice onto the source, in words."""
    return (
        "outside of the region and its crossfade the largest difference to the source is "
        f"{checks['outside_difference']:g}; inside it changed by {checks['inside_change_db']:.1f} dBFS"
    )


def region_problems(request: Request, source: float) -> list[str]:
    """What cannot be about the region and the length, with a source of so many seconds."""
    start, end = region_extent(request, source)
    here = f"the source is {source:g} s long"
    found = []
    if start > source or (start == source and end <= source):
        found.append(f"start: {start:g} s lies past the end; {here}.")
    elif start >= end:
        found.append(f"start: {start:g} s is not before the end, {end:g} s; {here}.")
    elif end - start < SHORTEST:
        found.append(f"end: from {start:g} to {end:g} s there is too little to make; take {SHORTEST:g} s or more.")
    length = extended_seconds(request, source)
    if length > LONGEST_SECONDS:
        found.append(f"end: the song would be {length:g} s long, and {LONGEST_SECONDS} s are the most; {here}.")
    if request.duration is not None and abs(request.duration - length) > 0.5 / decode.READ_RATE:
        found.append(f"duration: is decided by the source, {length:g} s; leave it out.")
    return found
