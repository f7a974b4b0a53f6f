"""Callbacks for progress and messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: Receives a stage, how much of it is done, and the total, in the stage's own units.
ProgressCallback = Callable[[str, int, int], None]
#: Receives how much is done, and the total.
Progress = Callable[[int, int], None]
#: Receives a sentence.
Say = Callable[[str], None]


class StageShare:
    """Reports the progress of each take as its share of a stage over all takes, in the stage's own units."""

    def __init__(self, report: ProgressCallback, stage: str, units: Sequence[int]) -> None:
        self.report, self.stage, self.units = report, stage, units
        self.number = 0

    def next(self) -> Progress:
        """Return the progress callback of the next take."""
        return self.next_group(1)(0, 1)

    def next_group(self, count: int) -> Callable[[int, int], Progress]:
        """Return a function for the next `count` takes: the progress callback of so many of them, after so many."""
        begun = self.number
        self.number += count
        return lambda done, together: self._share(begun + done, together)

    def _share(self, first: int, count: int) -> Progress:
        before, own = sum(self.units[:first]), sum(self.units[first : first + count])
        return lambda done, of: self.report(self.stage, before + own * done // of, sum(self.units))
