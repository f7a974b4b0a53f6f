"""The region of a source that is rendered anew, and the length of the song that results.

Times are in seconds, on one of two clocks. On the source's clock, 0 is where the source begins; `start` and `end` are
on it, and may lie outside of the source. On the song's clock, 0 is where the extended song begins.
"""

from __future__ import annotations

from collections.abc import Mapping

from acestep_cli.audio import decode
from acestep_cli.song.musical_values import LONGEST_SECONDS
from acestep_cli.song.request import Request

#: The shortest region, in seconds: two and a half latent frames.
SHORTEST = 0.1

Regions = tuple[tuple[float, float], ...]
"""The parts of a song that are rendered, as (start, end) on the song's clock."""


def region_extent(request: Request, source: float) -> tuple[float, float]:
    """Return start and end of the region on the clock of a source of `source` seconds.

    Where only one of them is given and it lies outside of the source, the other is the near end of the source, so
    that only the extension is rendered.
    """
    start, end = request.start, request.end
    if start is None:
        start = source if end is not None and end > source else 0.0
    if end is None:
        end = 0.0 if start < 0 else source
    return start, end


def seconds_before(request: Request, source: float) -> float:
    """Return the seconds that the song is extended in front of its source."""
    return max(0.0, -region_extent(request, source)[0])


def extended_seconds(request: Request, source: float) -> float:
    """Return the length of the song, extensions included, in seconds; the source has `source` seconds."""
    return seconds_before(request, source) + source + max(0.0, region_extent(request, source)[1] - source)


def on_song_clock(request: Request, source: float, *parts: tuple[float, float]) -> Regions:
    """Convert parts from the source's clock to the song's."""
    shift = seconds_before(request, source)
    return tuple((start + shift, end + shift) for start, end in parts)


def whole_region(request: Request, source: float) -> Regions:
    """Return the whole region as one part, on the song's clock."""
    return on_song_clock(request, source, region_extent(request, source))


def repaint_regions(request: Request, source: float) -> Regions:
    """Return the parts to render, on the song's clock: the region, or both extensions where it spans the source."""
    start, end = region_extent(request, source)
    both = start < 0 and end > source
    return on_song_clock(request, source, *(((start, 0.0), (source, end)) if both else ((start, end),)))


def remark(checks: Mapping[str, float]) -> str:
    """Return a sentence about the measured differences to the source, outside and inside of the region."""
    return (
        "outside of the region and its crossfade the largest difference to the source is "
        f"{checks['outside_difference']:g}; inside it changed by {checks['inside_change_db']:.1f} dBFS"
    )


def region_problems(request: Request, source: float) -> list[str]:
    """Return the problems of region and length with a source of `source` seconds, each beginning with its key."""
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
