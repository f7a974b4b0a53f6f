"""Results of earlier renders, stored under a hash of their inputs, so that nothing is computed twice.

Each entry is one file that appears whole and begins with a hash of its content: a killed run leaves no half entry,
several runs may share the folder, and damage is noticed. (A library with an index beside its files would count neither
the remains of a killed run nor damaged files.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import platformdirs

from acestep_cli import disk
from acestep_cli.errors import UsageError, reason_of
from acestep_cli.progress import Say

#: Environment variables for the folder of the entries, if not the user's cache folder, and for their total size.
FOLDER_VARIABLE, LIMIT_VARIABLE = "ACESTEP_CACHE_DIR", "ACESTEP_CACHE_LIMIT"
DEFAULT_LIMIT = 8_000_000_000
#: Stages: text and codes from a Songwriter, latents of recordings, latents of takes, decoded takes, and the tempo and
#: key of recordings.
STAGES = ("songwriting", "sources", "latents", "takes", "analyses")
DIGEST_BYTES = 32
T = TypeVar("T")
#: Version of the format, part of the name of each entry. Before 2, sliced arrays were stored as the memory behind
#: them.
FORMAT = 2


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache: its stage, its size, and the time of its last use."""

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
    """A cache of at most `limit` bytes below `folder`. Problems go to `warn`; none of them stops a render."""

    folder: Path
    limit: int
    warn: Say
    _is_usable: bool = field(default=True, init=False)

    def read(self, stage: str, key: str, parse: Callable[[bytes], T]) -> T | None:
        """Return what `parse` makes of the content of an entry.

        None where there is no entry, or with a warning where it is damaged or `parse` raises an exception. Where memory
        runs out meanwhile, that is raised, and the entry stays.
        """
        path = self._path(stage, key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        try:
            if hashlib.sha256(memoryview(data)[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
                raise ValueError("its checksum is another")
            found = parse(data[DIGEST_BYTES:])
        except MemoryError:  # no fault of the entry
            raise
        except Exception:  # a parser of another library may raise anything for bytes that are not its own
            self.warn(f"{path} is damaged; it is made again.")
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return found

    def write(self, stage: str, key: str, data: bytes) -> None:
        """Store `data`, and remove the least recently used entries over the limit."""
        if not self._is_usable or len(data) > self.limit:
            return
        path = self._path(stage, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():  # the key is a hash of the inputs, so the content is the same
                return
            with disk.replaced(path, flushed=False) as part, part.open("xb") as file:  # the hash reveals a half entry
                file.write(hashlib.sha256(data).digest())
                file.write(data)
            self.prune(self.limit)
        except OSError as error:
            self._is_usable = False
            reason = reason_of(error)
            self.warn(f"The cache {self.folder} cannot be written: {reason}; what is made is not kept in it.")

    def entries(self) -> Iterator[CacheEntry]:
        """Yield every file of the cache. One that another run removes meanwhile is left out."""
        for stage in STAGES:
            with contextlib.suppress(FileNotFoundError), os.scandir(self.folder / stage) as found:
                for file in found:
                    with contextlib.suppress(FileNotFoundError):
                        stat = file.stat()
                        is_unfinished = file.name.startswith(".")
                        yield CacheEntry(Path(file.path), stage, stat.st_size, stat.st_mtime_ns, is_unfinished)

    def prune(self, most: int) -> list[CacheEntry]:
        """Remove the remains of killed runs and the least recently used entries, down to `most` bytes; return them."""
        gone: list[CacheEntry] = []
        kept: list[CacheEntry] = []
        long_ago = time.time_ns() - disk.ABANDONED_SECONDS * 1_000_000_000
        for entry in self.entries():
            (gone if entry.is_unfinished and entry.used_ns < long_ago else kept).append(entry)
        total = sum(entry.bytes for entry in kept)
        finished = (entry for entry in kept if not entry.is_unfinished)
        for entry in sorted(finished, key=lambda entry: entry.used_ns):
            if total <= most:
                break
            gone.append(entry)
            total -= entry.bytes
        for entry in gone:
            entry.path.unlink(missing_ok=True)
        return gone

    def _path(self, stage: str, key: str) -> Path:
        return self.folder / stage / f"{key}-{FORMAT}"
