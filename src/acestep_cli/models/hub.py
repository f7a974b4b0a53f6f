"""A hub: a place on the network that publishes models, and what a pull asks of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, NamedTuple, Protocol

from acestep_cli.errors import AceStepError, CheckpointError, OutputError, reason_of
from acestep_cli.models import checkpoint_table
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.models.manifest import Manifest, RemoteFile, is_plain
from acestep_cli.models.model_store import ModelStore
from acestep_cli.progress import Say

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
GO_ON = "The same command goes on from where this one stopped."


@dataclass(frozen=True)
class PublishedPart:
    """A part as it stands at one commit of the hub."""

    part: ModelPart
    manifest: Manifest


class PublishedFile(NamedTuple):
    """A file in the list of a repository; one of its hashes is None."""

    path: str
    size: int
    sha256: str | None
    blob_id: str | None


class TooLongError(Exception):
    """Raised where more bytes come for a file than the hub named."""


class Hub(Protocol):
    """A hub, by its own library. Its errors are those of this program within a `session`, of which there is one."""

    #: A hint where what it sends is not what a hub would.
    sign_in: str

    def session(self, store: ModelStore, say: Say) -> AbstractContextManager[None]:
        """Return a context in which the hub can be asked; `say` hears of broken connections."""

    def translating_errors(self, place: Path) -> AbstractContextManager[None]:
        """Return a context that turns exceptions of the library and the system into errors of this program."""

    def require_client(self) -> None:
        """Raise `NetworkError` where the environment has something that the client cannot use."""

    def published(self, parts: Sequence[ModelPart], revision: str | None) -> list[PublishedPart]:
        """Return parts with their files at `revision`, or at the newest."""

    def fetch(self, one: PublishedPart, file: RemoteFile, path: Path, report: Callable[[int], None]) -> None:
        """Write a file to `path`, going on from what an earlier download has left. `report` gets the bytes so far.

        Raises `TooLongError` where it is longer than the hub named.
        """


def part_manifest(
    part: ModelPart,
    listed: Iterable[PublishedFile],
    commit: str,
    revision: str,
    error: Callable[[str], AceStepError],
) -> Manifest:
    """Return the manifest of a part as published: its files are those of `listed` that a pull fetches.

    `error` makes the error of a list that no hub would send. Raises `CheckpointError` where a file that the part needs
    is missing.
    """
    files = []
    for entry in listed:
        name = entry.path.removeprefix(part.inside)
        inside = entry.path.startswith(part.inside) and "/" not in name
        if inside and any(fnmatch(name, pattern) for pattern in checkpoint_table.FETCHED):
            if not is_plain(name):
                raise error(f"{part.repo} has a file {entry.path!r:.200}, which is not allowed as a file name here")
            file = RemoteFile(name, entry.size, entry.sha256, entry.blob_id)
            is_size = type(file.size) is int and file.size >= 0
            if not is_size or not isinstance(file.hash, str) or not HASH.fullmatch(file.hash):  # which names a file
                raise error(f"size or hash of {entry.path!r:.200} is missing")
            files.append(file)
    names = {file.name for file in files}
    lacking = [name for name in part.needs if name not in names]
    if lacking or not any(name.endswith(".safetensors") for name in names):
        raise CheckpointError(
            f"{part.repo} has no {part.inside}{lacking[0] if lacking else '*.safetensors'} at its revision {revision}.",
            "Leave --revision out, or name one that has it.",
        )
    return Manifest(part.repo, revision, commit, tuple(sorted(files, key=lambda file: file.size)))


@contextmanager
def handling_warnings(library: str, handle: Callable[[str], None]) -> Iterator[None]:
    """Give the text of each warning of a library to `handle`, and to nobody else."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            handle(record.getMessage())

    logger = logging.getLogger(library)
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Handler(logging.WARNING)], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, without a full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def unwritable_error(error: OSError, place: Path) -> OutputError:
    """Return the error for a file below `place` that a download cannot write."""
    return OutputError(
        f"{error.filename or place} cannot be written: {reason_of(error)}.",
        "Name a folder on another disk, or one you may write to, with --models-dir or HF_HOME. What was fetched is "
        "kept.",
    )
