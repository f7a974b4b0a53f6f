"""Download published folders from the Hugging Face hub; only this module and `hub_client` ask the network.

`huggingface_hub` talks to the hub and moves the bytes, and with it what it takes from the environment: HF_HOME,
HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, proxies. Since its version 2 it throws away what a cut download has brought, so
an unfinished file is kept here and `http_get` told to go on behind it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from acestep_cli import disk
from acestep_cli.errors import AceStepError, CheckpointError, NetworkError, OutputError
from acestep_cli.models import checkpoint_table, checkpoints, hub_client, local
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.models.hub_client import LIBRARY, SIGN_IN
from acestep_cli.models.local import LockFile, ModelStore, RemoteFile
from acestep_cli.progress import ProgressCallback

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


HASH = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


class PullReporter(Protocol):
    """The output of a pull: lines of text, and the bytes of each file."""

    def say(self, line: str) -> None: ...

    def transfers(self, total: int) -> AbstractContextManager[ProgressCallback]: ...


@dataclass(frozen=True)
class PublishedPart:
    """A part as it stands at one commit of the hub."""

    part: ModelPart
    lock: LockFile


@dataclass(frozen=True)
class PulledPart:
    """A part of which every file is there. `fetched` is the number of bytes downloaded for it."""

    part: ModelPart
    folder: Path
    lock: LockFile
    fetched: int


def pull(
    parts: Sequence[ModelPart], store: ModelStore, revision: str | None, reporter: PullReporter, *, again: bool = False
) -> list[PulledPart]:
    """Download and verify parts into `store`, each with its lock file.

    Complete files are not downloaded again, and hashed again only with `again`. Raises `NetworkError`,
    `CheckpointError` where content has the wrong hash, and `OutputError` where it cannot be written or does not fit on
    the disk.
    """
    hub_client.require_endpoint()
    with (
        hub_client.translating_errors(store.root),
        hub_client.reporting_retries(reporter.say),
        hub_client.bounded_answers(),
    ):
        try:
            with hub_client.translating_errors(store.root):
                hub_client.require_client()
                wanted = _published(parts, revision)
        except NetworkError as error:
            if revision is None and not again and (kept := _installed(parts, store)):
                reporter.say(f"{error.message} What is installed stays as it is.")
                return kept
            raise
        fetched: dict[ModelPart, int] = {}
        if again or not all(_is_settled(one, store) and not _missing(one, store, reporter) for one in wanted):
            with local.lock_store(parts, store, reporter.say):
                missing = {one.part: _missing(one, store, reporter, again=again) for one in wanted}
                _require_room(missing, store)
                fetched = _download_parts(wanted, missing, store, reporter)
    return [
        PulledPart(one.part, store.folder(one.part, one.lock.commit), one.lock, fetched.get(one.part, 0))
        for one in wanted
    ]


def _published(parts: Sequence[ModelPart], revision: str | None) -> list[PublishedPart]:
    """Ask the hub, once for each repository, for the commit of `revision` and its files."""
    from huggingface_hub import HfApi, constants

    api, repos = HfApi(**LIBRARY), {}
    for part in parts:
        if part.repo not in repos:
            try:
                repos[part.repo] = api.model_info(
                    part.repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
                )
            except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
                raise hub_client.hub_error(str(error)) from error
            commit = repos[part.repo].sha
            if not isinstance(commit, str) or not HASH.fullmatch(commit):
                raise hub_client.hub_error(f"no commit of {part.repo} is named")
    try:
        return [PublishedPart(part, _lock(part, repos[part.repo], revision or "main")) for part in parts]
    except (AttributeError, TypeError) as error:
        raise hub_client.hub_error(f"it sends no list of files ({error})") from error


def _lock(part: ModelPart, info: Any, revision: str) -> LockFile:
    """Return the lock file of a part as published. Raises `CheckpointError` where a file that it needs is missing."""
    files = []
    for sibling in info.siblings or []:
        name = sibling.rfilename.removeprefix(part.inside)
        inside = sibling.rfilename.startswith(part.inside) and "/" not in name
        if inside and any(fnmatch(name, pattern) for pattern in checkpoint_table.FETCHED):
            if not local.is_plain(name):
                raise hub_client.hub_error(
                    f"{part.repo} has a file {sibling.rfilename!r:.200}, which is not allowed as a file name here"
                )
            sha256 = sibling.lfs.sha256 if sibling.lfs else None
            file = RemoteFile(name, sibling.size, sha256, None if sha256 else sibling.blob_id)
            is_size = type(file.size) is int and file.size >= 0
            if not is_size or not isinstance(file.hash, str) or not HASH.fullmatch(file.hash):  # which names a file
                raise hub_client.hub_error(f"size or hash of {sibling.rfilename!r:.200} is missing")
            files.append(file)
    names = {file.name for file in files}
    lacking = [name for name in part.needs if name not in names]
    if lacking or not any(name.endswith(".safetensors") for name in names):
        raise CheckpointError(
            f"{part.repo} has no {part.inside}{lacking[0] if lacking else '*.safetensors'} at its revision {revision}.",
            "Leave --revision out, or name one that has it.",
        )
    return LockFile(part.repo, revision, info.sha, tuple(sorted(files, key=lambda file: file.size)))


def _installed(parts: Sequence[ModelPart], store: ModelStore) -> list[PulledPart]:
    """Return the parts on disk if all their files are there by their lock files, else an empty list."""
    kept = []
    for part in parts:
        folder = checkpoints.part_folder(part, None if isinstance(store, local.HubCache) else store.root)
        lock = local.read_lock(folder) if folder else None
        if folder is None or lock is None:
            return []
        if any(not (folder / f.name).is_file() or (folder / f.name).stat().st_size != f.size for f in lock.files):
            return []
        kept.append(PulledPart(part, folder, lock, 0))
    return kept


def _missing(one: PublishedPart, store: ModelStore, reporter: PullReporter, *, again: bool = False) -> list[RemoteFile]:
    """Return the files that are missing or have another hash than on the hub.

    Files that match the lock file are not hashed, unless `again` is True.
    """
    folder = store.folder(one.part, one.lock.commit)
    try:
        known = None if again else local.read_lock(folder)
    except CheckpointError:
        known = None
    known_hashes = {file.name: file.hash for file in known.files} if known else {}
    there = [
        file for file in one.lock.files if (path := folder / file.name).is_file() and path.stat().st_size == file.size
    ]
    unread = [file for file in there if known_hashes.get(file.name) != file.hash]
    if unread:
        size = disk.format_size(sum(file.size for file in unread))
        reporter.say(f"{one.part.folder}: comparing {size} on disk with the hashes on the hub")
    wrong = [file for file in unread if not file.matches(folder / file.name)]
    return [file for file in one.lock.files if file not in there or file in wrong]


def _is_settled(one: PublishedPart, store: ModelStore) -> bool:
    """Return True where the lock file and the reference of a part are up to date."""
    folder = store.folder(one.part, one.lock.commit)
    try:
        known = local.read_lock(folder)
    except CheckpointError:
        return False
    same = known is not None and known.commit == one.lock.commit and set(known.files) == set(one.lock.files)
    return same and store.is_published(one.part, one.lock.commit)


def _require_room(missing: dict[ModelPart, list[RemoteFile]], store: ModelStore) -> None:
    """Raise `OutputError` where the disk has no room for the remaining downloads."""
    needed = 0
    for part, files in missing.items():
        for file in files:
            unfinished = store.unfinished(part, file)
            is_begun = unfinished.is_file() and not unfinished.is_symlink()
            needed += max(0, file.size - (unfinished.stat().st_size if is_begun else 0))
    free = local.free_bytes(store.root)
    if needed > free:
        raise OutputError(
            f"{disk.format_size(needed)} are still to be fetched, and the disk of {store.root} has "
            f"{disk.format_size(free)} free.",
            "Make room (`acestep models prune` lists what is left over), or name another disk with --models-dir or "
            "HF_HOME.",
        )


def _download_parts(
    wanted: list[PublishedPart], missing: dict[ModelPart, list[RemoteFile]], store: ModelStore, reporter: PullReporter
) -> dict[ModelPart, int]:
    """Download the missing files, part by part, small files first. A part gets its lock file once all are there.

    Returns the downloaded bytes of each part.
    """
    fetched = dict.fromkeys(missing, 0)
    with reporter.transfers(sum(file.size for files in missing.values() for file in files)) as report:
        for one in wanted:
            for file in missing[one.part]:
                content = _find_stored(one, file, store)
                if content is None:
                    content = _download_file(one, file, store, report)
                    fetched[one.part] += file.size
                report(f"{one.part.folder}/{file.name}", file.size, file.size)
                store.place(one.part, one.lock.commit, file, content)
            if not _is_settled(one, store):
                one.lock.write(store.folder(one.part, one.lock.commit))
                store.publish(one.part, one.lock.commit)
    return fetched


def _find_stored(one: PublishedPart, file: RemoteFile, store: ModelStore) -> Path | None:
    """Return verified content that is on disk already, from another commit or an interrupted pull, else None."""
    path = store.stored(one.part, file)
    return path if path is not None and path.is_file() and file.matches(path) else None


def _download_file(one: PublishedPart, file: RemoteFile, store: ModelStore, report: ProgressCallback) -> Path:
    """Download a file, resuming an unfinished one, and verify it. Where it is wrong, start over once.

    Raises `NetworkError` where more bytes come than the file has, twice, and `CheckpointError` where the hash differs
    twice.
    """
    path = store.unfinished(one.part, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    label = f"{one.part.folder}/{file.name}"
    for _ in range(2):
        try:
            _fetch_rest(one, file, path, lambda done: report(label, min(done, file.size), file.size))
        except _TooLongError:
            problem: AceStepError = _too_long(one, file)
            continue
        if file.matches(path):
            return path
        path.unlink()
        report(label, 0, file.size)
        problem = _wrong_hash(one, file)
    raise problem


def _fetch_rest(one: PublishedPart, file: RemoteFile, path: Path, report: Callable[[int], None]) -> None:
    """Append to `path` the bytes that it lacks of a file.

    Raises `_TooLongError` where more come than the file has; those of this download are then removed.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    with _unfinished(path, file.size) as stream:
        try:
            http_get(
                hf_hub_url(one.part.repo, f"{one.part.inside}{file.name}", revision=one.lock.commit),
                stream,  # type: ignore[arg-type]  # all that it calls is there
                resume_size=stream.tell(),
                # Compressed on its way, a file could not be resumed.
                headers={**build_hf_headers(**LIBRARY), "accept-encoding": "identity"},
                expected_size=file.size,
                tqdm_class=_progress_class(report),
            )
        except _TooLongError:
            stream.cut()
            raise
        except ValueError as error:  # lengths that are no numbers, or over what the library takes
            raise hub_client.hub_error(str(error)) from error


def _too_long(one: PublishedPart, file: RemoteFile) -> NetworkError:
    return NetworkError(
        f"What {one.part.repo} sends for {one.part.inside}{file.name} is longer than the {file.size:,} bytes that "
        "it names, twice. The rest was not fetched.",
        SIGN_IN,
    )


def _wrong_hash(one: PublishedPart, file: RemoteFile) -> CheckpointError:
    return CheckpointError(
        f"What {one.part.repo} sends for {one.part.inside}{file.name} has another hash than it names, twice. "
        "It was not kept.",
        "Try again later, or without a mirror or proxy in between.",
    )


class _TooLongError(Exception):
    """Raised where more bytes come for a file than the hub named."""


class _Bounded:
    """An unfinished file that never grows beyond `size` bytes."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        #: The bytes before this position are from earlier downloads.
        self.start = stream.tell()

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, place: int) -> int:
        return self.stream.seek(place)

    def truncate(self) -> int:
        """Cut the file at its position. The library does so before it starts over."""
        self.start = min(self.start, self.stream.tell())
        return self.stream.truncate()

    def write(self, data: bytes) -> int:
        if self.stream.tell() + len(data) > self.size:
            raise _TooLongError
        return self.stream.write(data)

    def cut(self) -> None:
        """Remove the bytes of this download."""
        self.seek(self.start)
        self.truncate()


@contextmanager
def _unfinished(path: Path, size: int) -> Iterator[_Bounded]:
    """Open an unfinished file at its end; one that is longer than `size` is emptied.

    A link in its place is removed, but not its target. Raises `OutputError` where it is not a regular file.
    """
    if path.is_symlink() or (path.is_file() and path.stat().st_nlink > 1):  # else it is somebody's file too
        path.unlink()
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OutputError(f"{path} is in the way of a download, and is not an ordinary file.", "Move it away.")
    with os.fdopen(descriptor, "r+b") as stream:
        if stream.seek(0, os.SEEK_END) > size:
            stream.seek(0)
            stream.truncate()
        yield _Bounded(stream, size)


def _progress_class(report: Callable[[int], None]) -> Any:
    """Return a class that `http_get` uses as a progress bar."""

    class ByteCounter:
        def __init__(self, *, initial: int = 0, **_: Any) -> None:
            self.done = initial

        def __enter__(self) -> ByteCounter:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, count: int) -> None:
            self.done += count
            report(self.done)

    return ByteCounter
