"""Takes side by side: how each sounds in figures, how far it is from the first, and what their specs differ in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acestep_cli.audio import distance, measure
from acestep_cli.audio.analysis import Analyser
from acestep_cli.audio.measure import Measures
from acestep_cli.audio.sound import Audio
from acestep_cli.render.take_file import TakeFile
from acestep_cli.song.request import Request

#: Keys that differ between any two takes, or that are no part of the music.
IGNORED_KEYS = ("seed", "takes", "mode", "songwriter")
#: Words for a distance in decibels, by its least value, as measured on pocket (benchmarks/results/take_distance.md): an
#: MP3 of a take and a variation of 5 % are hardly apart, one of 15 % a little, one of 40 % clearly, another seed much.
DEGREES = ((14.0, "wholly"), (9.0, "much"), (5.5, "clearly"), (3.0, "a little"), (0.01, "hardly"))
SAME = "not at all"


@dataclass(frozen=True)
class ComparedTake:
    """A take beside others. `request` is None where nobody knows how it was made.

    `brightness` is in Hz, `distance` from the first in decibels. They and `bpm` and `key` are None where there is
    nothing to measure, and for the first `distance` is.
    """

    path: Path
    request: Request | None
    measures: Measures
    brightness: float | None
    bpm: float | None
    key: str | None
    distance: float | None

    @property
    def degree(self) -> str:
        """The distance in a word; empty where there is none."""
        if self.distance is None:
            return ""
        return next((word for least, word in DEGREES if self.distance >= least), SAME)

    def report(self) -> dict[str, Any]:
        """Return the take for `--json`."""
        return {
            "path": str(self.path),
            "seed": None if self.request is None else self.request.seed,
            "measures": self.measures.report(),
            "brightness_hz": self.brightness,
            "bpm": self.bpm,
            "key": self.key,
            "distance_db": self.distance,
        }


def compare_takes(
    files: Sequence[Path],
    warn: Callable[[str], None],
    report: Callable[[int, int], None],
    analyser: Analyser | None = None,
) -> list[ComparedTake]:
    """Read takes one by one and compare each with the first; only the sound of two is in memory at once.

    Without an analyser they have neither tempo nor key. `report` takes the number of those that are done, and of all.
    Raises `SourceError` where one cannot be read.
    """
    compared: list[ComparedTake] = []
    first: Audio | None = None
    for number, file in enumerate(files):
        report(number, len(files))
        take = TakeFile.read(file, warn)
        compared.append(compare_take(take, first, analyser))
        first = first or take.sound
    report(len(files), len(files))
    return compared


def compare_take(take: TakeFile, first: Audio | None, analyser: Analyser | None) -> ComparedTake:
    """Return a take with its figures, compared with the sound of the first one, if that is another."""
    return ComparedTake(
        path=take.path,
        request=None if take.made is None else take.request,
        measures=take.measures,
        brightness=measure.brightness(take.sound),
        bpm=None if analyser is None else analyser.tempo(take.sound),
        key=None if analyser is None else analyser.key(take.sound),
        distance=None if first is None else distance.take_distance(first, take.sound),
    )


def differing_keys(takes: Sequence[ComparedTake]) -> dict[str, list[Any]]:
    """Return the keys in which the specs of takes differ, each with the value of every take; None where it has none."""
    specs = [
        {} if take.request is None else take.request.model_dump(mode="json", exclude=set(IGNORED_KEYS))
        for take in takes
    ]
    known = [found for take, found in zip(takes, specs, strict=True) if take.request is not None]
    keys = dict.fromkeys(key for found in known for key in found)
    return {
        key: [found.get(key) for found in specs]
        for key in keys
        if any(found.get(key) != known[0].get(key) for found in known)
    }
