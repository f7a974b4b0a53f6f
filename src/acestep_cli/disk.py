"""Atomic writing: files that appear whole or not at all. And sizes in bytes, as text."""

from __future__ import annotations

import difflib
import errno
import hashlib
import math
import os
import re
import select
import signal
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from acestep_cli.errors import ExistsError, OutputError, reason_of, shell_word

HINTS = {
    errno.ENOSPC: "Free some space, or write to another disk.",
    errno.EACCES: "Choose a folder that you may write to.",
    errno.EPERM: "Choose a folder that you may write to.",
    errno.EROFS: "Choose a folder that you may write to.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EINVAL: "This disk refuses a character of that name; choose a plainer one.",
    errno.EILSEQ: "This disk refuses a character of that name; choose a plainer one.",
}

#: The name of an unfinished file. One that has not been written to for an hour was left by a killed run.
PART = re.compile(r"\.[0-9a-f]{32}\.part")
ABANDONED_SECONDS = 3600

#: How like a name must be to one that is missing to be suggested for it.
LEAST_LIKENESS = 0.6

#: Seconds to wait for the first byte from a pipe.
PIPE_SECONDS = 0.5
PIPE_BLOCK_BYTES = 1 << 20


def write_error(path: Path, error: OSError) -> OutputError:
    """Return the error for a `path` that could not be written, with the system's reason and a hint."""
    reason = reason_of(error)
    return OutputError(f"{path} cannot be written: {reason}.", HINTS.get(error.errno or 0))


def is_current_folder_deleted() -> bool:
    """Tell whether the current folder was deleted."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def folder_error() -> OutputError | None:
    """Return the error that the current folder was deleted; None where it is there."""
    if is_current_folder_deleted():
        return OutputError("The current folder was deleted.", "cd to a folder that is there, and run this again.")
    return None


@contextmanager
def in_existing_folder() -> Iterator[None]:
    """Run the body, which opens no relative path, in `/` where the current folder was deleted.

    For libraries that ask for its name and fail, or end the process, where it has none.
    """
    if not is_current_folder_deleted():
        yield
        return
    here = os.open(".", os.O_RDONLY)
    os.chdir("/")
    try:
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def read_error(path: Path, error: OSError) -> OutputError | None:
    """Return the error that the current folder was deleted, where that is why `path` was not found; else None."""
    return folder_error() if isinstance(error, FileNotFoundError) and not path.is_absolute() else None


def nearest_path(path: Path) -> Path | None:
    """Return the path whose name is most like that of `path`, which is missing; None where none is near.

    Where a folder on the way to it is missing too, that is the name that is compared.
    """
    missing = path
    while not os.path.lexists(missing.parent) and missing.parent != missing:
        missing = missing.parent
    try:
        with os.scandir(missing.parent) as entries:
            names = {entry.name.casefold(): entry.name for entry in entries if not entry.name.startswith(".")}
    except OSError:
        return None
    asked = missing.name.casefold()
    best = max(sorted(names), key=lambda name: name_likeness(asked, name), default="")
    if name_likeness(asked, best) < LEAST_LIKENESS:
        return None
    found = missing.with_name(names[best])
    whole = found / path.relative_to(missing)
    return whole if os.path.lexists(whole) else found


def name_likeness(asked: str, name: str) -> float:
    """Return how like a file's name is to the one asked for, from 0 to 1, a shared suffix left aside."""
    if name.startswith(f"{asked}."):  # its suffix was left out
        return 1.0
    one, other = Path(asked), Path(name)
    if one.suffix == other.suffix:
        asked, name = one.stem, other.stem
    return difflib.SequenceMatcher(None, asked, name).ratio()


def suggest_path(path: Path, error: OSError | None = None) -> str:
    """Return `; did you mean x?` where `path` is missing and a name beside it is near, else an empty string.

    `error` is what reading it raised.
    """
    if error is not None and not isinstance(error, FileNotFoundError):
        return ""
    near = nearest_path(path)
    if near is None:
        return ""
    here = Path.cwd()
    return f"; did you mean {shell_word(near.relative_to(here) if near.is_relative_to(here) else near)}?"


def is_taken(path: Path) -> bool:
    """Tell whether `path` exists, if only as a broken link. Raises `OutputError` for a name that no file can have."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise write_error(path, error) from error
    return True


def is_folder(path: Path) -> bool:
    """Return True where `path` is a folder; False also for a name that no file can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Return True where `path` is a file, and where it may not be looked at: what reads it then has the reason."""
    try:
        return path.is_file()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


def require_folder(folder: Path, or_else: str = "") -> None:
    """Raise `OutputError` where `folder` does not exist. `or_else` is added to its hint."""
    if not folder.is_dir():
        make = f"Make it first: mkdir -p {shell_word(folder)}"
        raise OutputError(f"The folder {folder} does not exist.", f"{make}{or_else}")


@contextmanager
def holding_signals() -> Iterator[Callable[[], None]]:
    """Hold back Ctrl-C and SIGTERM during the body. Yield a function that delivers them; the end of the body does too.

    For work that an exception from a signal handler would leave half done, and for callers that would swallow it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()  # Python allows signal handlers there alone
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
    """Yield a temporary path for `path` and for each file `beside` it; rename all of them when the body is done.

    If anything fails, Ctrl-C included, no file appears and nothing is left behind. Raises `OutputError` for an
    `OSError`, and `ExistsError` for a file that exists already, unless it is among those to `replace`.
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
            with suppress(OSError):  # a second error would hide the first: a read-only disk raises even for no file
                part.unlink(missing_ok=True)


@contextmanager
def replaced(path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """Yield a temporary path, and rename it to `path` when the body is done.

    If anything fails, `path` stays as it was and nothing is left behind. With `flushed`, the file survives a power
    cut. Raises `OSError` where it cannot be written.
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
        with suppress(OSError):  # a second error would hide the first
            part.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Force a file, or the names in a folder, onto the disk (fsync). Raises `OSError` where that fails.

    A file renamed before its content is on the disk can be empty under its new name after a power cut.
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
    """Yield the bytes of a pipe to its end, in blocks.

    The pipe is opened without waiting for a writer. Once a writer has begun, there is no limit on its time. Raises
    `TimeoutError`, an `OSError`, where none has begun after `PIPE_SECONDS`.
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


def is_terminal(path: Path) -> bool:
    """Tell whether `path` is a terminal. Raises `OSError` where it cannot be opened."""
    if not path.is_char_device():
        return False
    with path.open("rb") as file:
        return file.isatty()


def file_hash(path: Path) -> str:
    """Return a hash of the bytes of a file. Raises `OSError` where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_beginning(path: Path, size: int) -> bytes:
    """Return up to `size` bytes of a file, or of a pipe, which is read once. Raises `OSError` as `pipe_blocks` does."""
    if not path.is_fifo():
        with path.open("rb") as file:
            return file.read(size)
    data = b""
    for block in pipe_blocks(path):
        data += block
        if len(data) >= size:
            break
    return data[:size]


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files of killed runs from `folder`. A file that cannot be removed stays."""
    with suppress(OSError):
        for part in [file for file in folder.iterdir() if PART.fullmatch(file.name)]:
            if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink(missing_ok=True)


def _publish(parts: dict[Path, Path], replace: Collection[Path]) -> None:
    """Rename each part to its file, the first one last: where that file is seen, the others are there too."""
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
    """Rename `part` to `path`. Raises `FileExistsError` where Unix would silently replace."""
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
        raise ValueError(f"{text!r} is not a size such as 8G or 7.5GiB.") from error
