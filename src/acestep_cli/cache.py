"""What renders have made, kept by what it is made from, so that the same is not made twice.

An entry is a file of its own that appears whole, with a hash before its content: whatever kills a run leaves no half of
one, several runs may share the folder, and what a disk has spoilt is noticed. (A library with an index beside its files
would count neither what a killed run left behind nor what was spoilt.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

from acestep_cli import disk
from acestep_cli.errors import UsageError, reason_of
from acestep_cli.progress import Say

#: Where the entries lie, if not in the user's cache folder, and how much they may take.
FOLDER_VARIABLE, LIMIT_VARIABLE = "ACESTEP_CACHE_DIR", "ACESTEP_CACHE_LIMIT"
DEFAULT_LIMIT = 8_000_000_000
#: What is made at each stage: the words and codes of a Songwriter, the latents of recordings, those of takes, and takes
#: as decoded.
STAGES = ("songwriting", "sources", "latents", "takes")
DIGEST_BYTES = 32
#: Part of the name of each entry: another one once entries of the names before may be wrong. Until 2, arrays that
#: were slices were kept as the memory behind them.
FORMAT = 2


@dataclass(frozen=True)
class Entry:
    """A file of the cache: its stage, its size, and when it was last of use."""

    path: Path
    stage: str
    bytes: int
    used_ns: int
    is_unfinished: bool


def folder() -> Path:
    return Path(os.environ.get(FOLDER_VARIABLE) or platformdirs.user_cache_path("acestep") / "stages")


def open_cache(warn: Say) -> Cache:
    """Return this user's cache, with the limit that the environment sets. Raises `UsageError` where that is no size."""
    limit = os.environ.get(LIMIT_VARIABLE)
    try:
        return Cache(folder(), disk.parse_size(limit) if limit else DEFAULT_LIMIT, warn)
    except ValueError as error:
        raise UsageError(f"{LIMIT_VARIABLE}: {error}") from error


@dataclass
class Cache:
    """The entries below `folder`, up to `limit` bytes of them. `warn` hears of problems; no render stops for one."""

    folder: Path
    limit: int
    warn: Say
    _is_usable: bool = field(default=True, init=False)

    def read(self, stage: str, key: str) -> bytes | None:
        """The content of an entry; None where there is none, or it is spoilt, which is said."""
        path = self._path(stage, key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(memoryview(data)[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
            self.warn(f"{path} is spoilt; it is made again.")
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return data[DIGEST_BYTES:]

    def write(self, stage: str, key: str, data: bytes) -> None:
        """Keep `data`, and forget what was not of use for longest where that would be too much."""
        if not self._is_usable or len(data) > self.limit:
            return
        path = self._path(stage, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():  # and so the same
                return
            with disk.replaced(path, flushed=False) as part, part.open("xb") as file:  # its hash tells a half one
                file.write(hashlib.sha256(data).digest())
                file.write(data)
            self.prune(self.limit)
        except OSError as error:
            self._is_usable = False
            reason = reason_of(error)
            self.warn(f"The cache {self.folder} cannot be written: {reason}; what is made is not kept in it.")

    def entries(self) -> Iterator[Entry]:
        """Every file that is there; one that another run removes meanwhile is passed over."""
        for stage in STAGES:
            with contextlib.suppress(FileNotFoundError), os.scandir(self.folder / stage) as found:
                for file in found:
                    with contextlib.suppress(FileNotFoundError):
                        stat = file.stat()
                        is_unfinished = file.name.startswith(".")
                        yield Entry(Path(file.path), stage, stat.st_size, stat.st_mtime_ns, is_unfinished)

    def prune(self, most: int) -> list[Entry]:
        """Remove what a killed run has left, and what was not of use for longest, down to `most` bytes; what went."""
        gone: list[Entry] = []
        kept: list[Entry] = []
        long_ago = time.time_ns() - disk.ABANDONED_SECONDS * 1_000_000_000
        for entry in self.entries():
            (gone if entry.is_unfinished and entry.used_ns < long_ago else kept).append(entry)
        total = sum(entry.bytes for entry in kept)
        for entry in sorted((one for one in kept if not one.is_unfinished), key=lambda one: one.used_ns):
            if total <= most:
                break
            gone.append(entry)
            total -= entry.bytes
        for entry in gone:
            entry.path.unlink(missing_ok=True)
        return gone

    def _path(self, stage: str, key: str) -> Path:
        return self.folder / stage / f"{key}-{FORMAT}"
