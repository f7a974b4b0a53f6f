"""The time limit of a song, looked at whenever a step, a tile or a token is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from acestep_cli.errors import TimeLimitError
from acestep_cli.progress import ProgressCallback


class TimeLimit:
    """Measures the time that is spent on a song, and raises `TimeLimitError` once it is over.

    Parameters
    ----------
    seconds: the most for each song; None for no limit.
    loading_seconds: returns the seconds spent so far on loading weights, which count for no song.
    """

    def __init__(self, seconds: float | None, loading_seconds: Callable[[], float]) -> None:
        self.seconds, self._loading_seconds = seconds, loading_seconds
        self._began: float | None = None
        #: Of stages that are reported over all songs: the units of the song at hand, and those done before it.
        self._own: Mapping[str, int] = {}
        self._before: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def begin_song(self, units: Mapping[str, int] = MappingProxyType({})) -> None:
        """Start to measure anew. `units` has the song's own in each stage that is reported over several songs."""
        self._began = self._now()
        self._own, self._before = units, {stage: self._done.get(stage, 0) for stage in units}

    def following(self, report: ProgressCallback) -> ProgressCallback:
        """Return `report`, extended to raise `TimeLimitError` where the time of the song is over."""

        def reported(stage: str, done: int, total: int) -> None:
            report(stage, done, total)
            # What is being loaded is not in `loading_seconds` yet.
            if stage != "load" and self.seconds is not None and self._began is not None:
                spent = self._now() - self._began
                if spent > self.seconds:
                    raise TimeLimitError(
                        self.seconds, stage, done - self._before.get(stage, 0), self._own.get(stage, total)
                    )
            self._done[stage] = done

        return reported

    def _now(self) -> float:
        return time.monotonic() - self._loading_seconds()
