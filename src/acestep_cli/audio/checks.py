"""Assertions about audio files: levels, faults, tempo and sameness, each with what was asked and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.audio import measure
from acestep_cli.errors import SourceError

if TYPE_CHECKING:
    from acestep_cli.audio.measure import Measures
    from acestep_cli.audio.sound import Audio

#: A mean further from zero than this (-40 dBFS) is a fault and not the music.
MOST_DC = 0.01
#: Faults that are checked for unless skipped.
FAULTS = ("silent", "dead-channel", "clipped", "dc")
#: Factors between tempi that an analyser confuses.
OCTAVES = (1.0, 2.0, 0.5)


@dataclass(frozen=True)
class Range:
    """A range of numbers from `low` to `high`, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"at most {self.high:g}"
        return f"at least {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Finding:
    """Outcome of one assertion about one file."""

    name: str
    asked: str
    found: str
    passed: bool

    @property
    def sentence(self) -> str:
        return f"{self.name} is {self.found}, not {self.asked}"


MeasuredAudio = tuple["Audio", "Measures"]


Check = Callable[[MeasuredAudio], Finding]


@dataclass
class CheckedFile:
    """Result for one file: its findings, or the problem that kept it from being read."""

    path: Path
    measures: Measures | None = None
    findings: Sequence[Finding] = ()
    problem: SourceError | None = None

    @property
    def failed(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.passed]


def fault_checks() -> dict[str, Check]:
    """Return a check for each fault, by the names that `--skip` takes."""
    return {
        "silent": lambda heard: Finding("level", "sound", *(("silence", False) if heard[1].is_silent
                                                            else (f"{heard[1].peak_dbfs:g} dBFS", True))),
        "dead-channel": lambda heard: Finding("dead channel", "none", " and ".join(heard[1].dead_channels) or "none",
                                              not heard[1].dead_channels),
        "clipped": lambda heard: Finding("clipping", "none", count_crests(heard[1].clipped), not heard[1].clipped),
        "dc": lambda heard: check_range("DC offset", heard[1].dc, Range(high=MOST_DC), "of full scale"),
    }  # fmt: skip


def count_crests(count: int) -> str:
    return "none" if not count else "1 crest" if count == 1 else f"{count} crests"


def check_range(name: str, value: float | None, wanted: Range, unit: str) -> Finding:
    """Check that `value` lies in the range `wanted`. It fails for None: silence has no level."""
    asked = f"{wanted} {unit}"
    return not_measurable(name, asked) if value is None else Finding(name, asked, f"{value:g} {unit}", value in wanted)


def not_measurable(name: str, asked: str) -> Finding:
    return Finding(name, asked, "nothing that could be measured", False)


def check_tempo(heard: MeasuredAudio, wanted: Range) -> Finding:
    measured, asked = measure.estimate_tempo(heard[0]), f"{wanted} bpm"
    if measured is None:
        return not_measurable("tempo", asked)
    return Finding("tempo", asked, f"{measured:g} bpm", any(measured * octave in wanted for octave in OCTAVES))


def check_sameness(heard: MeasuredAudio, reference: Audio, name: Path, within: float | None) -> Finding:
    """Check that a file holds the samples of `reference`, to `within` dBFS."""
    asked = f"that of {name}" + ("" if within is None else f" within {within:g} dBFS")
    apart = measure.sample_difference(heard[0], reference)
    if apart is None:
        found = f"{heard[0].seconds:g} s at {heard[0].sample_rate} Hz"
        other = f"{reference.seconds:g} s at {reference.sample_rate} Hz"
        return Finding("sound", asked, f"{found}, where the other has {other}", False)
    if apart == -math.inf:
        return Finding("sound", asked, "identical", True)
    return Finding("sound", asked, f"up to {apart:g} dBFS apart", within is not None and apart <= within)


def check_file(path: Path, checks: Iterable[Check], warn: Callable[[str], None] = lambda _: None) -> CheckedFile:
    """Measure a file and run the checks on it."""
    try:
        sound = measure.read_for_measuring(path, warn)
    except SourceError as problem:
        return CheckedFile(path, problem=problem)
    measures = measure.measure(sound)
    return CheckedFile(path, measures, [check((sound, measures)) for check in checks])
