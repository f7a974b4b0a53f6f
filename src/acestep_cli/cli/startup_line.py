"""The first sign of life on a terminal: a line that stands while a command is imported, until there is more to show."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

LINE = "Starting …"
#: Commands that answer at once, and arguments with which there is nothing to wait for, or to be seen.
AT_ONCE = ("help", "spec", "examples", "cache", "models")
WITHOUT = {"-h", "--help", "--help-all", "-q", "--quiet", "--progress", "--no-input", "-"}

_shown: list[str] = []


def redraws(stream: Any) -> bool:
    """Return True for a terminal on which a line can be drawn again."""
    return stream is not None and bool(stream.isatty()) and os.environ.get("TERM") not in ("dumb", "unknown")


def show(command: str, arguments: Sequence[str]) -> None:
    """Show the line, where somebody waits for `command` at a terminal and is not about to type into it."""
    quiet = any(part in WITHOUT for word in arguments for part in word.split("=", 1))
    if arguments and not quiet and command not in AT_ONCE and redraws(sys.stderr):
        print(LINE, end="\r", file=sys.stderr, flush=True)
        _shown.append(LINE)


@contextmanager
def removed_at_end() -> Iterator[None]:
    """Run the body, and remove the line at its end."""
    try:
        yield
    finally:
        remove()


def remove() -> None:
    """Remove the line, if it stands."""
    if _shown:
        _shown.clear()
        print("\x1b[2K", end="\r", file=sys.stderr, flush=True)
