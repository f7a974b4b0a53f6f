"""The bar of a running command: where it is, how long it takes yet, and below it a line of stages."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from acestep_cli.disk import format_size
from acestep_cli.render.remaining import Remaining

if TYPE_CHECKING:
    from rich.console import Console as Terminal

#: What a stage is called while it runs.
STAGES = {
    "libraries": "Loading libraries",
    "load": "Loading weights",
    "write": "Writing the song",
    "codes": "Sketching the sound",
    "judge": "Judging the takes",
    "encode": "Listening",
    "text": "Reading the text",
    "listen": "Listening to the recording",
    "diffuse": "Making music",
    "decode": "Decoding sound",
    "scan": "Going through the songs",
    "analyser": "Loading librosa (compiled once, a minute or two)",
    "analyse": "Estimating tempo and key",
    "compare": "Comparing the takes",
    "check": "Checking the files",
    "export": "Writing the tracks",
    "condition": "Preparing the songs",
    "train": "Training",
}
#: Stages whose speed is shown, in steps.
WITH_RATE = ("train",)
#: Reports whose median speed is shown.
SMOOTHED_REPORTS = 20
#: The widest line, in columns. A terminal that is made narrower, down to this, breaks no line: nothing is left behind.
WIDEST = 58
REFRESHES_PER_SECOND = 8


class CommandBar:
    """The bar of a command on a terminal: a line for all of it, and a line with its stages.

    `memory` returns the bytes in use. `remaining` knows the takes of a render; without takes, the bar is of the stage.
    """

    def __init__(self, memory: Callable[[], int], remaining: Remaining) -> None:
        self._memory, self._remaining = memory, remaining
        #: Seconds of each stage so far.
        self._stages: dict[str, float] = {}
        self._stage: str | None = None
        self._done, self._total = 0, 0
        self._note: str | None = None
        self._last = time.monotonic()
        self._reports: deque[tuple[float, int]] = deque(maxlen=SMOOTHED_REPORTS)

    def report(self, stage: str, done: int, total: int) -> None:
        """Follow the progress of a stage."""
        now = time.monotonic()
        if stage != self._stage:
            self._reports.clear()
            self._note = None
        self._stages[stage] = self._stages.get(stage, 0.0) + now - self._last
        self._stage, self._done, self._total, self._last = stage, done, total, now
        self._reports.append((now, done))

    def note(self, text: str) -> None:
        """Show a text beside the current stage."""
        self._note = text

    @property
    def seconds_per_step(self) -> float | None:
        """The speed of the current stage: the median of its last reports, which a save between them leaves alone."""
        reports = list(self._reports)
        steps = [(later[0] - one[0]) / (later[1] - one[1]) for one, later in pairwise(reports) if later[1] > one[1]]
        return statistics.median(steps) if steps else None

    @property
    def headlines(self) -> tuple[str, ...]:
        """Return `take 2 of 4 · Making music 5/8`, and the same without the steps, which take room."""
        if self._stage is None:
            return ("Starting",)
        step = self._remaining.step if self._remaining.current is not None else None
        done, total = step or (self._done, self._total)
        what = STAGES.get(self._stage, self._stage)
        counted = what + (f" {done}/{total}" if total > 1 else "")
        return tuple(
            " · ".join(part for part in (self._remaining.place, stage, self._note) if part) for stage in (counted, what)
        )

    @property
    def left(self) -> str:
        """Return `0:28 left`; empty while that is not known."""
        if self._remaining.current is not None:
            seconds = self._remaining.seconds_left
            more = "over " if self._remaining.is_least else ""
        else:
            each, more = self.seconds_per_step, ""
            seconds = None if each is None else each * (self._total - self._done) - (time.monotonic() - self._last)
        if seconds is None:
            return ""
        return f"{more}{clock_time(max(seconds, 0.0))} left"

    @property
    def share(self) -> float:
        """The share that is done, from 0 to 1."""
        if self._remaining.current is not None:
            return self._remaining.share
        return self._done / self._total if self._total else 0.0

    @property
    def stage_lines(self) -> tuple[str, ...]:
        """Return the memory in use, and the last stages with their seconds or the speed of a training; and the same
        with the last of these alone.
        """
        # A copy: the thread of the bar reads what the render writes.
        parts = [f"{STAGES.get(stage, stage)} {clock_time(spent)}" for stage, spent in list(self._stages.items())]
        each = self.seconds_per_step
        if self._stage in WITH_RATE and each is not None:
            parts.append(f"{1 / each:.1f} steps/s" if each < 1 else f"{each:.1f} s a step")
        memory = [format_size(used)] if (used := self._memory()) else []
        return tuple(" · ".join([*memory, *parts[-shown:]]) for shown in (2, 1))

    def __rich_console__(self, console: Terminal, _options: Any) -> Iterator[Any]:
        from rich.cells import cell_len
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        width = min(WIDEST, console.width - 1)
        left = self.left
        room = width - cell_len(left) - 2
        headline = longest_that_fits(self.headlines, room)
        free = room - cell_len(headline) - 2
        line = Text(headline, no_wrap=True)
        if free >= 4:
            line.append("  ")
            for segment in console.render(ProgressBar(1.0, self.share, width=free), console.options):
                line.append(segment.text.rstrip("\n"), segment.style)
        line.append(f"  {left}", "cyan")
        yield line
        yield Text(f"  {longest_that_fits(self.stage_lines, width - 2)}", "dim", no_wrap=True)

    @contextmanager
    def shown(self, terminal: Terminal) -> Iterator[None]:
        """Show the bar on a terminal during the body, and remove it at its end."""
        from rich.live import Live

        with Live(self, console=terminal, refresh_per_second=REFRESHES_PER_SECOND, transient=True):
            yield


def longest_that_fits(texts: Sequence[str], room: int) -> str:
    """Return the first of some texts that fits into `room` columns; where none does, the last one, cut."""
    from rich.cells import cell_len, set_cell_size

    found = next((text for text in texts if cell_len(text) <= room), None)
    return set_cell_size(texts[-1], max(room - 1, 0)) + "…" if found is None else found


def clock_time(seconds: float) -> str:
    """Return seconds as a clock shows them: `0:28`, `1:02:03`."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
