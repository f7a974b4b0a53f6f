"""The seconds that each stage of a render takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from acestep_cli.engine.weights import WeightStore


class StageClock:
    """Seconds spent in each stage since the last lap; loading counts as a stage of its own, whatever it interrupts."""

    def __init__(self, weights: WeightStore) -> None:
        self.weights = weights
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start, loaded = time.perf_counter(), self.weights.loading_seconds
        yield
        self.weights.synchronize()
        loading = self.weights.loading_seconds - loaded
        for name, spent in ((stage, time.perf_counter() - start - loading), ("load", loading)):
            self.add(name, spent)

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds that `pop` returned, or a share of them."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def pop(self, stage: str) -> float:
        """Return the seconds of a stage, and count them no more."""
        return self.seconds.pop(stage)

    def lap(self) -> dict[str, float]:
        """Return the seconds so far, rounded to milliseconds, and start to count anew."""
        seconds, self.seconds = self.seconds, {}
        return {stage: round(spent, 3) for stage, spent in seconds.items()}
