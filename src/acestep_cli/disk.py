"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import math
import os
import re
import select
import shlex
import signal
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from acestep_cli.errors import ExistsError, OutputError, reason_of

HINTS = {
    errno.ENOSPC: "Free some space, or write to another disk with --output.",
    errno.EACCES: "Choose a folder you may write to with --output.",
    errno.EPERM: "Choose a folder you may write to with --output.",
    errno.EROFS: "Choose a folder you may write to with --output.",
    errno.ENAMETOOLONG: "Choose a shorter name with --output.",
    errno.EINVAL: "This disk refuses signs in that name; choose a plainer one with --output.",
    errno.EILSEQ: "This disk refuses signs in that name; choose a plainer one with --output.",
}

#: The name of a file that is unfinished; one that nobody has written to for an hour is what a killed run has left.
PART = re.compile(r"\.[0-9a-f]{32}\.part")
ABANDONED_SECONDS = 3600

#: How long somebody who writes to a pipe is waited for.
PIPE_SECONDS = 0.5
PIPE_BLOCK_BYTES = 1 << 20


def write_error(path: Path, error: OSError) -> OutputError:
    """Why `path` could not be written, as the system put it."""
    reason = reason_of(error)
    return OutputError(f"{path} cannot be written: {reason}.", HINTS.get(error.errno or 0))


def is_taken(path: Path) -> bool:
    """Whether `path` is taken, if only by a broken link. `OutputError` for a name that no file can have."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise write_error(path, error) from error
    return True


def require_folder(folder: Path, or_else: str = "") -> None:
    """`OutputError` where there is no `folder` to write into; `or_else` may say what else mends it."""
    if not folder.is_dir():
        make = f"Make it first: mkdir -p {shlex.quote(str(folder))}"
        raise OutputError(f"The folder {folder} does not exist.", f"{make}{or_else}")


@contextmanager
def holding_signals() -> Iterator[Callable[[], None]]:
    """Only note Ctrl-C and SIGTERM during the body; they act when it calls what is yielded, else after it.

    For work that what a signal handler raises would leave half done, or that would swallow it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()  # signals are its affair alone
    handlers = {
        number: handler
        for number in (signal.SIGINT, signal.SIGTERM)
        if in_main_thread and callable(handler := signal.getsignal(number))
    }
    held: list[int] = []

    def deliver() -> None:
        while held:
            number = signal.Signals(held.pop(0))
            handlers[number](number, None)

    try:
        for number in handlers:
            signal.signal(number, lambda number, _frame: held.append(number))
        yield deliver
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        deliver()


@contextmanager
def write_whole(path: Path, *beside: Path, replace: Collection[Path] = ()) -> Iterator[list[Path]]:
    """Yield a temporary path for `path` and for each file `beside` it; when the body is done, all of them appear.

    If anything fails, Ctrl-C included, none does and nothing is left. An `OSError` becomes an `OutputError`; a file
    that is there already an `ExistsError`, unless it is among those to `replace`.
    """
    parts = {file: path.with_name(f".{uuid.uuid4().hex}.part") for file in (path, *beside)}
    try:
        yield list(parts.values())
        for part in parts.values():
            flush(part)
        with holding_signals():
            _publish(parts, replace)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


@contextmanager
def replaced(path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """Yield a temporary path; when the body is done, what it wrote there takes the place of `path`.

    If anything fails, `path` is as it was and nothing is left. `flushed` says whether it must survive a power cut.
    `OSError` where it cannot be written.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield part
        if flushed:
            flush(part)
        part.replace(path)
        if flushed:
            flush(path.parent)
    finally:
        with suppress(OSError):  # which would hide why it could not be written
            part.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the disk take a file, or the names in a folder, before anything else is done. `OSError` where it does not.

    Renamed before its content is on the disk, a file can be empty under its new name after a power cut.
    """
    if path.is_dir() and os.name == "nt":  # no folder can be opened there, and names are written through
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks have nothing to flush
            raise
    finally:
        os.close(descriptor)


def pipe_blocks(path: Path) -> Iterator[bytes]:
    """What comes out of a pipe, to its end.

    It is opened without waiting for who writes to it, and read from when somebody does, however long that takes.
    `TimeoutError`, an `OSError`, where nobody has begun after `PIPE_SECONDS`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as pipe:  # noqa: PTH123
        limit, begun = time.monotonic() + PIPE_SECONDS, False
        while True:
            select.select([pipe], [], [], None if begun else max(0.0, limit - time.monotonic()))
            data = pipe.read(PIPE_BLOCK_BYTES)
            if data != b"":  # None where somebody has opened it, and has not written yet
                begun = True
                yield data or b""
            elif begun:
                return
            elif time.monotonic() > limit:
                raise TimeoutError(errno.ETIMEDOUT, "Nobody writes to this pipe")
            else:
                time.sleep(0.01)


def remove_unfinished(folder: Path) -> None:
    """Remove from `folder` what killed runs have left unfinished. What cannot be removed stays."""
    with suppress(OSError):
        for part in [file for file in folder.iterdir() if PART.fullmatch(file.name)]:
            if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink(missing_ok=True)


def _publish(parts: dict[Path, Path], replace: Collection[Path]) -> None:
    """Give each part its name, the first of them last: where it is seen, so are those beside it."""
    there: list[Path] = []
    try:
        for path, part in reversed(parts.items()):
            try:
                part.replace(path) if path in replace else _rename_to_new(part, path)
            except FileExistsError as error:
                raise ExistsError(path) from error
            except OSError as error:
                raise write_error(path, error) from error
            there.append(path)
    except OutputError:
        for path in there:
            path.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in parts}:
        flush(folder)


def _rename_to_new(part: Path, path: Path) -> None:
    """Rename, with `FileExistsError` where Unix would silently replace."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a disk without links, such as a memory stick
        if is_taken(path):
            raise FileExistsError from None
        part.rename(path)
    else:
        part.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with plain newlines on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


def replace_text(path: Path, text: str) -> None:
    """Write a small text file, and its folder if need be, so that nobody ever reads half of it.

    Raises `OSError` where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as part:
        write_text(part, text)


def format_size(size: float) -> str:
    """Return a size in bytes as people write it, to three digits: `7.42 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} bytes"


def format_gigabytes(size: int, *, up: bool = False) -> str:
    """Return a size in bytes as gigabytes with one decimal, rounded to the nearest or `up`: `7.5 GB`."""
    tenths = size / 1e8
    return f"{(math.ceil(tenths) if up else round(tenths)) / 10:g} GB"


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `8G` or `7.5GiB`. Raises `ValueError` for any other text."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise ValueError(f"{text!r} is no size; 8G and 7.5GiB are.") from error
