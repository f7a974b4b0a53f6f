"""How far a run is, and what it says on its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: Is told what is being done, how much of it is done, and of how much.
ProgressCallback = Callable[[str, int, int], None]
#: The same of one thing.
Progress = Callable[[int, int], None]
#: Is told a sentence.
Say = Callable[[str], None]


class StageShare:
    """Progress of each take as its share of a stage over all takes, in the stage's own units."""

    def __init__(self, report: ProgressCallback, stage: str, units: Sequence[int]) -> None:
        self.report, self.stage, self.units = report, stage, units
        self.number = 0

    def next(self) -> Progress:
        """The progress of the next take."""
        before, own, total = sum(self.units[: self.number]), self.units[self.number], sum(self.units)
        self.number += 1
        return lambda done, of: self.report(self.stage, before + own * done // of, total)
