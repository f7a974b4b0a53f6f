"""A regular file for a path that is to be read, which may be a pipe: that is read to its end, once."""

from __future__ import annotations

import atexit
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli import disk
from acestep_cli.errors import AceStepError, SourceError, reason_of

if TYPE_CHECKING:
    pass

#: The most that is read from a pipe, which may have no end.
PIPE_BYTES = 1 << 32
#: Temporary files with the content of pipes read in this process, by path, device and inode.
spooled: dict[tuple[Path, int, int], Path] = {}


def file_hash(path: Path) -> str:
    """Return a hash of the bytes of a recording. Raises `SourceError` where it cannot be read."""
    try:
        return disk.file_hash(regular_file(path))
    except OSError as error:
        raise unreadable_error(path, error) from error


def regular_file(path: Path) -> Path:
    """Return a regular file with the bytes of `path`: itself, or a temporary copy of a pipe, which can be read once.

    Raises `SourceError` for a folder, a device or an empty file, and for a pipe that nobody writes to.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise SourceError(f"{path} is a folder, not an audio file.")
        if stat.S_ISFIFO(found.st_mode):
            key = (path, found.st_dev, found.st_ino)
            if key not in spooled:
                spooled[key] = spool(path)
            return spooled[key]
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{path} is a device, not an audio file.")
        with path.open("rb") as file:
            if not file.read(1):
                raise SourceError(f"{path} is empty.")
    except OSError as error:
        raise unreadable_error(path, error) from error
    return path


def spool(path: Path) -> Path:
    """Copy a pipe to a temporary file, which is removed when the process ends.

    Raises `SourceError` for an empty or endless pipe, and `OSError` where the disk is full or nobody writes.
    """
    with tempfile.NamedTemporaryFile(delete=False) as copy:
        atexit.register(Path(copy.name).unlink, missing_ok=True)
        for data in disk.pipe_blocks(path):
            copy.write(data)
            if copy.tell() > PIPE_BYTES:
                raise SourceError(f"{path} has no end: over {PIPE_BYTES >> 30} GiB came out of it.")
        if not copy.tell():
            raise SourceError(f"{path} is empty.")
    return Path(copy.name)


def unreadable_error(path: Path, error: OSError) -> AceStepError:
    """Return why a file cannot be read: for a path below a current folder that was deleted, that."""
    if gone := disk.read_error(path, error):
        return gone
    return SourceError(f"{path} cannot be read: {reason_of(error)}{disk.suggest_path(path, error) or '.'}")
