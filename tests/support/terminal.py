"""A process at a terminal."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.command import LIMIT


class Terminal:
    """A process whose stdin, stdout and stderr are one terminal, where `options` do not name others."""

    def __init__(self, command: Sequence[str | Path], **options: Any) -> None:
        import pty

        self._ours, theirs = pty.openpty()
        #: What was shown, as far as it was not expected yet.
        self.shown = b""
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.run = subprocess.Popen(command, start_new_session=True, **{**streams, **options})
        os.close(theirs)

    def _read(self, end: float) -> bool:
        """Read some more; return False once the other side is closed."""
        ready, _, _ = select.select([self._ours], [], [], max(end - time.monotonic(), 0))
        assert ready, f"nothing more is shown: {self.shown!r}"
        try:
            more = os.read(self._ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            return False
        self.shown += more
        return bool(more)

    def expect(self, text: str, timeout: float = LIMIT) -> str:
        """Wait until `text` is shown; return what was shown before it."""
        end = time.monotonic() + timeout
        while text.encode() not in self.shown:
            assert self._read(end), f"it ended: {self.shown!r}"
        before, _, self.shown = self.shown.partition(text.encode())
        return before.decode()

    def read_rest(self, timeout: float = LIMIT) -> str:
        """Wait until the process ends; return what was shown up to there."""
        end = time.monotonic() + timeout
        while self._read(end):
            pass
        return self.shown.decode()

    def type(self, keys: str) -> None:
        """Send what is typed; a line ends with a line feed."""
        os.write(self._ours, keys.encode())

    def close(self) -> None:
        """End the process, where it still runs."""
        self.run.kill()
        self.run.communicate(timeout=LIMIT)
        os.close(self._ours)


@contextmanager
def at_terminal(command: Sequence[str | Path], **options: Any) -> Iterator[Terminal]:
    """Yield a process at a terminal; kill it where it still runs in the end."""
    terminal = Terminal(command, **options)
    try:
        yield terminal
    finally:
        terminal.close()
