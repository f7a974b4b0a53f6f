"""Assertions about audio files: levels, faults, tempo and sameness, each with what was asked and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.audio import measure
from acestep_cli.errors import SourceError

if TYPE_CHECKING:
    from acestep_cli.audio.analysis import Analyser
    from acestep_cli.audio.measure import Extent, Measures
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


@dataclass
class MeasuredFile:
    """A file and its measurements."""

    path: Path
    measures: Measures

    @cached_property
    def sound(self) -> Audio:
        """Its samples, read where a check needs all of them at once."""
        return measure.read_for_measuring(self.path)


Check = Callable[[MeasuredFile], Finding]


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
        "silent": check_level,
        "dead-channel": check_channels,
        "clipped": check_clipping,
        "dc": lambda file: check_range("DC offset", file.measures.dc, Range(high=MOST_DC), "of full scale"),
    }


def check_level(file: MeasuredFile) -> Finding:
    measures = file.measures
    found = "silence" if measures.is_silent else f"{measures.peak_dbfs:g} dBFS"
    return Finding("level", "sound", found, not measures.is_silent)


def check_channels(file: MeasuredFile) -> Finding:
    dead = file.measures.dead_channels
    return Finding("dead channel", "none", " and ".join(dead) or "none", not dead)


def check_clipping(file: MeasuredFile) -> Finding:
    clipped = file.measures.clipped
    return Finding("clipping", "none", count_crests(clipped), not clipped)


def count_crests(count: int) -> str:
    return "none" if not count else "1 crest" if count == 1 else f"{count} crests"


def check_range(name: str, value: float | None, wanted: Range, unit: str) -> Finding:
    """Check that `value` lies in the range `wanted`. It fails for None: silence has no level."""
    asked = f"{wanted} {unit}"
    return not_measurable(name, asked) if value is None else Finding(name, asked, f"{value:g} {unit}", value in wanted)


def not_measurable(name: str, asked: str) -> Finding:
    return Finding(name, asked, "nothing that could be measured", False)


def check_tempo(file: MeasuredFile, wanted: Range, analyser: Analyser) -> Finding:
    measured, asked = analyser.tempo(file.sound), f"{wanted} bpm"
    if measured is None:
        return not_measurable("tempo", asked)
    return Finding("tempo", asked, f"{measured:g} bpm", any(measured * octave in wanted for octave in OCTAVES))


def check_sameness(file: MeasuredFile, reference: Path, extent: Extent, within: float | None) -> Finding:
    """Check that a file holds the samples of `reference`, which has this `extent`, to `within` dBFS."""
    asked = f"that of {reference}" + ("" if within is None else f" within {within:g} dBFS")
    apart = measure.file_difference(file.path, reference)
    if apart is None:
        found = f"{file.measures.seconds:g} s at {file.measures.sample_rate} Hz"
        other = f"{extent.seconds:g} s at {extent.sample_rate} Hz"
        return Finding("sound", asked, f"{found}, where the other has {other}", False)
    if apart == -math.inf:
        return Finding("sound", asked, "identical", True)
    return Finding("sound", asked, f"up to {apart:g} dBFS apart", within is not None and apart <= within)


def check_file(path: Path, checks: Iterable[Check], warn: Callable[[str], None] = lambda _: None) -> CheckedFile:
    """Measure a file and run the checks on it."""
    try:
        measured = MeasuredFile(path, measure.measure_file(path, warn))
        return CheckedFile(path, measured.measures, [check(measured) for check in checks])
    except SourceError as problem:
        return CheckedFile(path, problem=problem)
