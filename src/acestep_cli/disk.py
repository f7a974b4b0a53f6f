"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acestep_cli.errors import OutputError

HINTS = {
    errno.ENOSPC: "Free some space, or write to another disk with --output.",
    errno.EACCES: "Choose a folder you may write to with --output.",
    errno.EPERM: "Choose a folder you may write to with --output.",
    errno.EROFS: "Choose a folder you may write to with --output.",
}


def refusal(path: Path, error: OSError) -> OutputError:
    """Why `path` could not be written, as the system put it."""
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"{path} cannot be written: {reason}.", HINTS.get(error.errno or 0))


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` when the body is done.

    If the body fails in any way, Ctrl-C included, nothing is left. An `OSError` becomes an `OutputError`.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise refusal(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with plain newlines on every system."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
