"""The terminal: results on stdout, all else on stderr. The only user of Rich."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: What a stage is called while it runs.
STAGES = {
    "load": "Loading weights",
    "text": "Reading the text",
    "diffuse": "Making music",
    "decode": "Decoding sound",
}

Report = Callable[[str, int, int], None]


class Console:
    """What the user is told while a command runs. `quiet` leaves only errors."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._bars: Progress | None = None
        self._warned: set[str] = set()

    def say(self, line: str) -> None:
        if self.quiet:
            return
        if self._bars is not None:
            self._bars.console.out(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Say a warning, once however often it comes: each take brings those of its whole run."""
        if text not in self._warned:
            self._warned.add(text)
            self.say(f"Warning: {text}")

    @contextmanager
    def results(self) -> Iterator[Callable[[Path], None]]:
        """Yield the one way to print a result, and turn whatever else prints to stdout over to stderr.

        Libraries print while they load, some of them from C: so the descriptor itself is turned, not only Python's
        stream. A stdout without a descriptor, as in tests, is turned in Python alone.
        """
        stdout = sys.stdout
        if stdout is None:  # closed by whoever started us
            yield lambda path: None
            return
        stdout.flush()
        try:
            descriptor = stdout.fileno()
        except (OSError, ValueError):  # a stream in memory has none
            with redirect_stdout(sys.stderr):
                yield lambda path: print(path, file=stdout, flush=True)
            return
        kept = os.dup(descriptor)
        os.dup2(sys.stderr.fileno(), descriptor)
        try:
            with redirect_stdout(sys.stderr):
                yield lambda path: self._result(kept, path)
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)

    def _result(self, stdout: int, path: Path) -> None:
        """Print a path. The file is there already, so what goes wrong here is no reason to stop."""
        if self._bars is not None and os.isatty(stdout) and os.path.samestat(os.fstat(stdout), os.fstat(2)):
            # One screen shows both: the bars must know of the line, or they wipe it with their next picture.
            self._bars.console.out(path, highlight=False)
            return
        try:
            os.write(stdout, os.fsencode(path) + os.linesep.encode())
        except BrokenPipeError:  # `| head -1` has read enough
            pass
        except OSError as error:
            self.warn(f"stdout cannot be written: {(error.strerror or str(error)).lower()}.")

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """Yield what takes reports of progress: stage, steps done, steps in all.

        A terminal shows a bar with the time left for each stage; elsewhere a stage is a line.
        """
        if self.quiet:
            yield lambda stage, done, total: None
        elif not sys.stderr.isatty():
            yield self._line_per_stage()
        else:
            with self._bar_per_stage() as report:
                yield report

    def _line_per_stage(self) -> Report:
        current = None

        def report(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:
                current = stage
                self.say(STAGES.get(stage, stage))

        return report

    @contextmanager
    def _bar_per_stage(self) -> Iterator[Report]:
        from rich.console import Console as Terminal
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Terminal(stderr=True),
        )
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(STAGES.get(stage, stage), total=total)
            bars.update(tasks[stage], completed=done, total=total)

        self._bars = bars
        try:
            with bars:
                yield report
        finally:
            self._bars = None
