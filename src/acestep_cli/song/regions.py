"""The region of a source that is rendered anew, and the length of the song that results.

Times are in seconds, on one of two clocks. On the source's clock, 0 is where the source begins; `start` and `end` are
on it, and may lie outside of the source. On the song's clock, 0 is where the extended song begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from acestep_cli.audio import decode
from acestep_cli.errors import shell_word
from acestep_cli.song.musical_values import LONGEST_SECONDS
from acestep_cli.song.request import Request

#: The shortest region, in seconds: two and a half latent frames.
SHORTEST = 0.1

#: Words for the level of the difference between a new part and the old, in dBFS: music lies around -20.
CHANGES = ((-30.0, "differs clearly"), (-50.0, "differs a little"))

#: The way on for songs that are longer than one that is rendered whole.
SHOWN_CONTEXT = 30
VIEW_A_PART = (
    f"--context {SHOWN_CONTEXT}, which keeps {SHOWN_CONTEXT} s around the new part in view and copies the rest,"
)

Spans = tuple[tuple[float, float], ...]
"""The parts of a song that are rendered, as (start, end) on the song's clock."""


@dataclass(frozen=True)
class Region:
    """The region of a source of `source_seconds` that is rendered anew, on the source's clock."""

    start: float
    end: float
    source_seconds: float
    #: The seconds in view on each side of it. None is the whole song.
    context: float | None = None

    @classmethod
    def of(cls, request: Request, source_seconds: float) -> Region:
        """Return the region that `start` and `end` of a request ask for, in a source of `source_seconds`.

        Where only one of them is given and it lies outside of the source, the other is the near end of the source, so
        that only the extension is rendered.
        """
        start, end = request.start, request.end
        if start is None:
            start = source_seconds if end is not None and end > source_seconds else 0.0
        if end is None:
            end = 0.0 if start < 0 else source_seconds
        return cls(start, end, source_seconds, request.context)

    @property
    def seconds_before(self) -> float:
        """The seconds that the song is extended in front of its source."""
        return max(0.0, -self.start)

    @property
    def song_seconds(self) -> float:
        """The length of the song, extensions included, in seconds."""
        return self.seconds_before + self.source_seconds + max(0.0, self.end - self.source_seconds)

    @property
    def view(self) -> tuple[float, float]:
        """The part of the song that is in view, as (start, end) on the song's clock."""
        if self.context is None:
            return 0.0, self.song_seconds
        start, end = self.repainted[0][0], self.repainted[-1][1]
        return max(0.0, start - self.context), min(self.song_seconds, end + self.context)

    @property
    def view_seconds(self) -> float:
        """The length of the part that is in view, in seconds."""
        start, end = self.view
        return end - start

    @property
    def only_extends(self) -> bool:
        """True where nothing of the source itself is rendered anew."""
        return all(end <= 0 or start >= self.source_seconds for start, end in self._parts)

    @property
    def _parts(self) -> Spans:
        """The parts to render, on the source's clock."""
        if self.start < 0 and self.end > self.source_seconds:
            return (self.start, 0.0), (self.source_seconds, self.end)
        return ((self.start, self.end),)

    @property
    def whole(self) -> Spans:
        """The region as one part."""
        return self._on_song_clock((self.start, self.end))

    @property
    def repainted(self) -> Spans:
        """The parts to render: the region, or both extensions where it spans the source."""
        return self._on_song_clock(*self._parts)

    def _on_song_clock(self, *parts: tuple[float, float]) -> Spans:
        return tuple((start + self.seconds_before, end + self.seconds_before) for start, end in parts)


def remark(checks: Mapping[str, float], region: Region | None) -> str:
    """Return a sentence about the measured differences to the source, inside and outside of the region; of one that
    only extends the source, about the seconds that were added.
    """
    change, outside = checks["inside_change_db"], checks["outside_difference"]
    rest = "the rest is as it was" if outside == 0 else f"the rest differs by {outside:g} of full scale at the most"
    if region is not None and region.only_extends:
        return f"{region.song_seconds - region.source_seconds:g} s were added; {rest}"
    how = next((word for least, word in CHANGES if change >= least), "hardly differs")
    return f"the new part {how} from the old ({change:.1f} dBFS); {rest}"


def one_end_at_a_time(request: Request, region: Region) -> str:
    """Return the two commands that extend both ends of a song, each with a part of it in view."""
    added = {"before": region.seconds_before, "after": region.end - region.source_seconds}
    source, between = shell_word(request.source or "SONG"), "longer.flac"
    commands = [
        f"acestep extend {file} --{side} {seconds:g} --context {region.context:g}"
        for file, (side, seconds) in zip((source, between), added.items(), strict=True)
    ]
    return f"extend first one end and then the other: {commands[0]} -o {between}, then {commands[1]}"


def region_problems(request: Request, region: Region) -> list[str]:
    """Return the problems of region and length, each beginning with its key."""
    start, end, source = region.start, region.end, region.source_seconds
    here = f"the source is {source:g} s long"
    found = []
    if start > source or (start == source and end <= source):
        found.append(f"start: {start:g} s lies past the end; {here}.")
    elif start >= end:
        found.append(f"start: {start:g} s is not before the end, {end:g} s; {here}.")
    elif end - start < SHORTEST:
        found.append(f"end: from {start:g} to {end:g} s there is too little to make; take {SHORTEST:g} s or more.")
    length = region.view_seconds
    if region.context is not None and len(region.repainted) > 1:
        found.append(f"context: keeps one end of the song in view; {one_end_at_a_time(request, region)}.")
    elif length > LONGEST_SECONDS and region.context is not None:
        found.append(f"context: {length:g} s would be in view, and {LONGEST_SECONDS} s are the most; {here}.")
    elif length > LONGEST_SECONDS:
        fits = len(region.repainted) == 1 and replace(region, context=SHOWN_CONTEXT).view_seconds <= LONGEST_SECONDS
        part = f"; {VIEW_A_PART} makes longer ones" if fits else ""
        found.append(f"end: the song would be {length:g} s long, and {LONGEST_SECONDS} s are the most; {here}{part}.")
    if request.duration is not None and abs(request.duration - length) > 0.5 / decode.READ_RATE:
        found.append(f"duration: is decided by the source, {length:g} s; leave it out.")
    return found
