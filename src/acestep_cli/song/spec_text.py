"""The text of specs and lyrics, from a file or from stdin, which can be read once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from acestep_cli import disk
from acestep_cli.errors import ran_out_of_memory, reason_of

STDIN = "-"
#: The longest spec that is read: ten times the longest sidecar.
MOST_BYTES = 1_000_000


@dataclass
class Stdin:
    """Stdin, which can be read once. `typing` allows it to be a terminal."""

    typing: bool = True
    is_read: bool = False

    def read(self, limit: int) -> bytes:
        """Read up to `limit` bytes. Raises `ValueError` where it was read before, or is a terminal without `typing`."""
        if self.is_read:
            raise ValueError("stdin can be read once: for one spec, or for the lyrics")
        if sys.stdin is None:
            raise ValueError("stdin is closed")
        if not self.typing and sys.stdin.isatty():
            raise ValueError("stdin is a terminal, and --no-input refuses to wait for typing; pipe the text in")
        self.is_read = True
        return sys.stdin.buffer.read(limit)


_stdin: ContextVar[Stdin] = ContextVar("stdin")


@contextmanager
def reading_stdin(*, typing: bool) -> Iterator[None]:
    """Allow stdin to be read once in the body."""
    token = _stdin.set(Stdin(typing))
    try:
        yield
    finally:
        _stdin.reset(token)


def read_text(file: str) -> str:
    """Read the text of a file or of stdin, with `\\n` as line end. Raises `ValueError` with the reason on failure."""
    from acestep_cli.song import document

    stdin = _stdin.get(Stdin())
    try:
        if file == STDIN:  # as bytes: the encoding of sys.stdin follows the locale
            data = stdin.read(MOST_BYTES + 1)
        else:
            if not stdin.typing and disk.is_terminal(Path(file)):
                raise ValueError("is a terminal, and --no-input refuses to wait for typing")
            data = disk.read_beginning(Path(file), MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"is longer than {MOST_BYTES:,} bytes, which no song is")
        return document.decoded(data)
    except OSError as error:
        if gone := disk.read_error(Path(file), error):
            raise gone from error
        if ran_out_of_memory(error):
            raise
        raise ValueError(f"cannot be read: {reason_of(error)}{disk.suggest_path(Path(file), error)}") from error
