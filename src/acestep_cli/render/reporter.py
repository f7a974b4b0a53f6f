"""Protocols through which `render` and `albums` report lines, warnings, progress and finished files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from acestep_cli.progress import ProgressCallback
from acestep_cli.render.events import Events
from acestep_cli.render.remaining import Remaining


class ResultStream(Protocol):
    """The stream that results go to: stdout, for a command."""

    def path(self, path: Path | str) -> None:
        """Print a path on a line of its own."""

    def file(self, path: Path) -> None:
        """Send the bytes of a file. Raises `OutputError` where they are not all read."""


class Messages(Protocol):
    """Receives lines and warnings."""

    def say(self, line: str) -> None:
        """Show a line, unless only errors are wanted."""

    def warn(self, text: str) -> None:
        """Show a warning, once however often it is given."""


class Reporter(Messages, Protocol):
    """Receives what a run has to say. `cli.console.Console` shows it on a terminal."""

    #: Every warning so far, each once.
    warnings: list[str]
    #: Where progress and takes are also written as JSON lines.
    events: Events
    #: What is left to make, and how long it takes.
    remaining: Remaining

    def detail(self, line: str) -> None:
        """Show a line where more than usual is wanted."""

    #: True where lines and the paths of results are read on one terminal.
    shares_screen: bool

    def advise(self, subject: str, sentence: str) -> bool:
        """Show a sentence of advice, on a terminal once a day; return True if it was shown."""

    def hint(self, line: str) -> None:
        """Show the next step to somebody at a terminal, and to nobody else."""

    def note(self, text: str) -> None:
        """Show a text beside the progress of the stage at work."""

    def results(self) -> AbstractContextManager[ResultStream]:
        """Yield the stream of results, and keep whatever else prints away from it."""

    def progress(self, memory: Callable[[], int], *, several: bool = False) -> AbstractContextManager[ProgressCallback]:
        """Yield a callback for the progress of stages; `memory` returns the bytes in use, `several` is for renders at
        once.
        """

    def transfers(self, total: int) -> AbstractContextManager[ProgressCallback]:
        """Yield a callback for bytes per file, of `total` bytes in all files."""
