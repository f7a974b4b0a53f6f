"""The length of a song before it is rendered."""

from __future__ import annotations

from typing import NamedTuple

from acestep_cli.song.musical_values import CODES_PER_SECOND, PULSES
from acestep_cli.song.regions import Region
from acestep_cli.song.request import Request

#: The origin of values that no checkpoint, machine or user decides.
DEFAULT = "default"
DEFAULT_SECONDS = 60.0
# The estimate: a sung line fills two bars, a section without lines four, and beginning and end take four more.
# At 100 bpm, two verses and two choruses of four lines make 1:26.
BARS_PER_LINE = 2
BARS_PER_BARE_SECTION = 4
BARS_AROUND = 4
ESTIMATE_BPM = 100
ESTIMATE_RANGE = (30.0, 300.0)


class SongLength(NamedTuple):
    """The length of a song in seconds, and its origin."""

    seconds: float
    origin: str


def song_length(request: Request, region: Region | None) -> SongLength:
    """Return the length of the song; `region` is that of its source, where it has one, of which it may have a part in
    view.
    """
    if region is not None:
        return SongLength(region.view_seconds, "the source")
    if request.duration is not None:
        return SongLength(request.duration, "asked for")
    if request.codes is not None:
        return SongLength(len(request.codes) / CODES_PER_SECOND, "the codes")
    if not is_sung(request.lyrics):
        return SongLength(DEFAULT_SECONDS, DEFAULT)
    return SongLength(estimated_duration(request), "estimated from the lyrics")


def is_sung(lyrics: str | None) -> bool:
    """Return True where there is a line that is not a section tag."""
    return any(line.strip() and not is_section_tag(line) for line in (lyrics or "").splitlines())


def may_be_sung(request: Request) -> bool:
    """Return True where there are words to sing, or an idea from which the Songwriter may write some."""
    return not request.instrumental and (request.idea is not None or is_sung(request.lyrics))


def is_section_tag(line: str) -> bool:
    return line.strip().startswith("[") and line.strip().endswith("]")


def estimated_duration(request: Request) -> float:
    """Estimate the seconds that the lyrics take to sing at the request's tempo; 60 where nothing is sung."""
    if not is_sung(request.lyrics):
        return DEFAULT_SECONDS
    tags = [is_section_tag(line) for line in (request.lyrics or "").splitlines() if line.strip()]
    bare = sum(tag and following for tag, following in zip(tags, [*tags[1:], True], strict=True))
    bars = tags.count(False) * BARS_PER_LINE + bare * BARS_PER_BARE_SECTION + BARS_AROUND
    estimate = bars * PULSES[request.time_signature or "4/4"] * 60 / (request.bpm or ESTIMATE_BPM)
    low, high = ESTIMATE_RANGE
    return float(round(min(max(estimate, low), high)))
