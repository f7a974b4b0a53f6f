"""The work that a command has left: which take is being made, and how long the rest takes.

The first estimate is of the renders that this machine remembers (`Plan.expected`); the run itself corrects it.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from acestep_cli.progress import ProgressCallback

if TYPE_CHECKING:
    from acestep_cli.machine.plan import Overhead

#: Stages that are counted take by take.
OF_A_TAKE = ("diffuse", "decode")
#: Stages in which the Songwriter works, before the first take.
WRITING = ("write", "codes", "judge")
#: The remembered speed counts like this share of a take that the run has made itself.
REMEMBERED_SHARE = 0.25


@dataclass(frozen=True)
class TakeWork:
    """One take, or one stem of it: its place among its fellows, and its work.

    `units` are steps, and seconds of music, by stage. `expected` are seconds by stage, or None where no such render is
    remembered.
    """

    song: str
    #: "track" for those of an album, else "song".
    noun: str
    take: int
    takes: int
    stem: str | None
    units: dict[str, float]
    expected: dict[str, float] | None
    #: First and last of the takes that share forward passes with it; None where it shares none.
    together: tuple[int, int] | None = None

    def lasting(self, seconds: float) -> TakeWork:
        """Return the work of a take of so many seconds of music: as much more as it is longer."""
        factor = seconds / self.units["decode"]
        expected = self.expected and {
            stage: spent if stage == "startup" else spent * factor for stage, spent in self.expected.items()
        }
        return replace(self, units={**self.units, "decode": seconds}, expected=expected)

    @property
    def key(self) -> tuple[str, int, str | None]:
        return self.song, self.take, self.stem

    def weight(self, stage: str) -> float:
        """Return the expected seconds of a stage; else a number that is as many times them for every take of a song."""
        return self.expected[stage] if self.expected is not None else self.units[stage] * self.units["decode"]


@dataclass
class StageTime:
    """Seconds that a stage took in this run, and the weight of the work that it did in them."""

    spent: float = 0.0
    done: float = 0.0

    def factor(self, remembered: float | None) -> float | None:
        """Return seconds per weight. `remembered` is the weight of a take where that is in seconds already."""
        trust = 0.0 if remembered is None else REMEMBERED_SHARE * remembered
        return (self.spent + trust) / (self.done + trust) if self.done + trust > 0 else None


@dataclass
class Remaining:
    """The remaining work of a command. `begin` and `report` follow a render; the properties are shown."""

    clock: Callable[[], float] = time.monotonic
    takes: list[TakeWork] = field(default_factory=list)
    #: Takes in later steps of an album, which cannot be planned yet.
    unplanned: int = 0
    #: Tracks of an album that are made in this run; None elsewhere.
    tracks: list[str] | None = None
    _group: list[TakeWork] = field(default_factory=list)
    _finished: list[TakeWork] = field(default_factory=list)
    _stages: dict[str, StageTime] = field(default_factory=dict)
    _between: StageTime = field(default_factory=StageTime)
    _began: float = 0.0
    _group_began: float = 0.0
    _last: float = 0.0
    _stage: str = ""
    _done: dict[str, tuple[int, int]] = field(default_factory=dict)
    _index: int = 0
    _is_rendering: bool = False
    _writing: float = 0.0
    _start: float | None = None
    _shown_share: float = 0.0

    def add(self, works: Iterable[TakeWork]) -> None:
        """Add takes that are going to be made; those that are known already are not added again."""
        known = {work.key for work in self.takes}
        self.takes += [work for work in works if work.key not in known]

    def begin(self, group: Sequence[TakeWork]) -> None:
        """Begin with the takes of one load of weights; those that are not known yet are added."""
        now = self.clock()
        self._began = self._began or now
        self.add(group)
        self._finished += self._group
        self._group, self._group_began, self._last = list(group), now, now
        self._stage, self._done, self._index, self._is_rendering = "", {}, 0, False
        self._writing, self._start = 0.0, None

    def resize(self, seconds: Sequence[float]) -> None:
        """Give the takes of the group their lengths, as the Songwriter decided them."""
        self._group = [work.lasting(length) for work, length in zip(self._group, seconds, strict=True)]
        sized = {work.key: work for work in self._group}
        self.takes = [sized.get(work.key, work) for work in self.takes]

    def report(self, stage: str, done: int, total: int) -> None:
        """Follow a report of progress of the group, whose stages count all its takes together."""
        now = self.clock()
        spent, self._last = now - self._last, now
        before, _ = self._done.get(stage, (0, total))
        had_begun = self._is_rendering  # else the time until now is that of the start
        if stage in OF_A_TAKE and self._group and total:
            place = self._place(stage, done, total)
            edges = self._edges(stage)
            is_start = stage != self._stage or done <= before
            index = bisect_right(edges, place) if is_start else bisect_left(edges, place)
            self._stage, self._index = stage, min(index, len(self._group) - 1)
            self._index = self._at_work.start
            if done > before:
                measured = self._stages.setdefault(stage, StageTime())
                measured.spent += spent
                measured.done += self._weight_until(stage, done, total) - self._weight_until(stage, before, total)
                spent = 0.0
            if stage == "diffuse" and not self._is_rendering:
                self._is_rendering, self._start = True, now - self._group_began - self._writing
        if stage in WRITING and self._stage in WRITING:  # not what came before the first report: libraries, weights
            self._writing += spent
        elif had_begun:
            self._between.spent += spent
            self._between.done = sum(work.units["decode"] for work in (*self._finished, *self._group[: self._index]))
        self._stage, self._done[stage] = stage, (done, total)

    def following(self, report: ProgressCallback) -> ProgressCallback:
        """Return `report`, extended to follow each report here first."""

        def reported(stage: str, done: int, total: int) -> None:
            self.report(stage, done, total)
            report(stage, done, total)

        return reported

    def overhead(self) -> Overhead | None:
        """Return what the group took beside diffusion and decoding, at its end; None where it made no take."""
        from acestep_cli.machine.plan import Overhead

        if self._start is None or not self._group:
            return None
        after = self._between.spent + self.clock() - self._last
        seconds = sum(work.units["decode"] for work in self._group)
        return Overhead(
            startup=self._start,
            finishing_per_second=after / (seconds + sum(work.units["decode"] for work in self._finished)),
            writing_per_second=self._writing / seconds if self._writing else None,
        )

    def _edges(self, stage: str) -> list[float]:
        """Return the units at which each take of the group ends."""
        return list(accumulate(work.units[stage] for work in self._group))

    def _place(self, stage: str, done: int, total: int) -> float:
        """Return how far a stage is in the units of the group, whose sum a render may count otherwise."""
        return round(done * self._edges(stage)[-1] / total, 6)

    def _weight_until(self, stage: str, done: int, total: int) -> float:
        place, weight = self._place(stage, done, total), 0.0
        for work in self._group:
            share = min(place / work.units[stage], 1.0)
            weight, place = weight + share * work.weight(stage), max(place - work.units[stage], 0.0)
        return weight

    @property
    def _at_work(self) -> range:
        """The places in the group of the takes that the stage works on: all that share its forward passes."""
        work = self._group[self._index]
        if self._stage != "diffuse" or work.together is None:
            return range(self._index, self._index + 1)
        first, last = work.together
        start = max(self._index - (work.take - first), 0)
        return range(start, min(start + last - first + 1, len(self._group)))

    @property
    def current(self) -> TakeWork | None:
        """The take that is being made."""
        return self._group[self._index] if self._group else None

    @property
    def step(self) -> tuple[int, int] | None:
        """Done and total units of the current stage; those of the current take where the stage counts all takes."""
        if self._stage not in self._done:
            return None
        done, total = self._done[self._stage]
        if self._stage not in OF_A_TAKE or not self._group or not total:
            return done, total
        edges, at_work = [0.0, *self._edges(self._stage)], self._at_work
        scale = total / edges[-1] / len(at_work)  # a step is one of all takes that share it
        place = self._place(self._stage, done, total) - edges[at_work.start]
        return round(place * scale), round((edges[at_work.stop] - edges[at_work.start]) * scale)

    @property
    def place(self) -> str:
        """The take that is being made, or those that share its forward passes, and how many there are: `take 2 of 4`,
        `takes 1 to 4 of 8`, `track 3 of 12`; empty for a lone one.
        """
        work = self.current
        if work is None:
            return ""
        parts = []
        songs = self.tracks or list(dict.fromkeys(one.song for one in self.takes))
        if len(songs) > 1 and work.song in songs:
            parts.append(f"{work.noun} {songs.index(work.song) + 1} of {len(songs)}")
        if len(at_work := self._at_work) > 1:
            parts.append(f"takes {work.take} to {self._group[at_work.stop - 1].take} of {work.takes}")
        elif work.takes > 1:
            parts.append(f"take {work.take} of {work.takes}")
        if work.stem is not None:
            parts.append(work.stem.replace("_", " "))
        return ", ".join(parts)

    @property
    def seconds_left(self) -> float | None:
        """The seconds that the rest of the command takes; None before that can be told."""
        since = self.clock() - self._last
        if not self._group or not (self._is_rendering or self._knows_start):
            return None
        begun = {work.key for work in (*self._finished, *self._group)}
        left = 0.0 if self._is_rendering else max(self._start_seconds - (self._last - self._group_began), 0.0)
        todo = [*self._group, *(work for work in self.takes if work.key not in begun)]
        for stage in OF_A_TAKE:
            factor = self._factor(stage)
            if factor is None and stage == "diffuse":
                return None
            done = self._weight_until(stage, *self._done[stage]) if self._done.get(stage, (0, 0))[1] else 0.0
            left += (factor or 0.0) * (sum(work.weight(stage) for work in todo) - done)
        left += self._finishing_per_second * sum(work.units["decode"] for work in todo[self._index :])
        if todo and self.unplanned:
            left *= 1 + self.unplanned / len(todo)
        return max(left - since, 0.0)

    @property
    def is_least(self) -> bool:
        """True while the time left is of the diffusion alone: nothing has been decoded yet."""
        return self._factor("decode") is None

    def _factor(self, stage: str) -> float | None:
        known = [work.weight(stage) for work in self._group if work.expected is not None]
        remembered = sum(known) / len(known) if len(known) == len(self._group) and known else None
        return self._stages.get(stage, StageTime()).factor(remembered)

    @property
    def _knows_start(self) -> bool:
        return all(work.expected is not None and "startup" in work.expected for work in self._group)

    @property
    def _start_seconds(self) -> float:
        writing = sum((work.expected or {}).get("write", 0.0) for work in self._group)
        return max((work.expected or {}).get("startup", 0.0) for work in self._group) + writing

    @property
    def _finishing_per_second(self) -> float:
        """The seconds beside diffusion and decoding for each second of music: encoding, measuring, writing."""
        if self._between.done:
            return self._between.spent / self._between.done
        known = [work for work in self._group if work.expected is not None and "finish" in work.expected]
        return max(((work.expected or {})["finish"] / work.units["decode"] for work in known), default=0.0)

    @property
    def share(self) -> float:
        """The share of the command that is done, from 0 to 1; it never shrinks."""
        left = self.seconds_left
        if left is not None:
            elapsed = self.clock() - self._began
            self._shown_share = max(self._shown_share, elapsed / (elapsed + left) if elapsed + left > 0 else 0.0)
        return self._shown_share
