"""Download published folders from a hub, and verify them, whichever hub it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from acestep_cli import disk
from acestep_cli.errors import AceStepError, CheckpointError, NetworkError, OutputError
from acestep_cli.models import checkpoints, model_store
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.models.hub import Hub, PublishedPart, TooLongError
from acestep_cli.models.manifest import Manifest, RemoteFile, read_manifest
from acestep_cli.models.model_store import ModelStore
from acestep_cli.progress import ProgressCallback

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class PullReporter(Protocol):
    """The output of a pull: lines of text, and the bytes of each file."""

    def say(self, line: str) -> None: ...

    def transfers(self, total: int) -> AbstractContextManager[ProgressCallback]: ...


@dataclass(frozen=True)
class PulledPart:
    """A part of which every file is there. `fetched` is the number of bytes downloaded for it."""

    part: ModelPart
    folder: Path
    manifest: Manifest
    fetched: int


def pull(
    parts: Sequence[ModelPart],
    store: ModelStore,
    revision: str | None,
    reporter: PullReporter,
    *,
    hub: Hub,
    again: bool = False,
) -> list[PulledPart]:
    """Download and verify parts from `hub` into `store`, each with its manifest.

    Complete files are not downloaded again, and hashed again only with `again`. Raises `NetworkError`,
    `CheckpointError` where content has the wrong hash, and `OutputError` where it cannot be written or does not fit on
    the disk.
    """
    with hub.session(store, reporter.say):
        try:
            with hub.translating_errors(store.root):
                hub.require_client()
                wanted = hub.published(parts, revision)
        except NetworkError as error:
            if revision is None and not again and (kept := _installed(parts, store)):
                reporter.say(f"{error.message} What is installed stays as it is.")
                return kept
            raise
        fetched: dict[ModelPart, int] = {}
        if again or not all(_is_settled(one, store) and not _missing(one, store, reporter) for one in wanted):
            with model_store.lock_store(parts, store, reporter.say):
                missing = {one.part: _missing(one, store, reporter, again=again) for one in wanted}
                _require_room(missing, store)
                fetched = _download_parts(wanted, missing, store, reporter, hub)
    return [
        PulledPart(one.part, store.folder(one.part, one.manifest.commit), one.manifest, fetched.get(one.part, 0))
        for one in wanted
    ]


def _installed(parts: Sequence[ModelPart], store: ModelStore) -> list[PulledPart]:
    """Return the parts on disk if all files of their manifests are there, else an empty list."""
    kept = []
    for part in parts:
        folder = checkpoints.part_folder(part, None if isinstance(store, model_store.HubCache) else store.root)
        manifest = read_manifest(folder) if folder else None
        if folder is None or manifest is None:
            return []
        if any(not (folder / f.name).is_file() or (folder / f.name).stat().st_size != f.size for f in manifest.files):
            return []
        kept.append(PulledPart(part, folder, manifest, 0))
    return kept


def _missing(one: PublishedPart, store: ModelStore, reporter: PullReporter, *, again: bool = False) -> list[RemoteFile]:
    """Return the files that are missing or have another hash than on the hub.

    Files that match the manifest are not hashed, unless `again` is True.
    """
    folder = store.folder(one.part, one.manifest.commit)
    try:
        known = None if again else read_manifest(folder)
    except CheckpointError:
        known = None
    known_hashes = {file.name: file.hash for file in known.files} if known else {}
    there = [
        file
        for file in one.manifest.files
        if (path := folder / file.name).is_file() and path.stat().st_size == file.size
    ]
    unread = [file for file in there if known_hashes.get(file.name) != file.hash]
    if unread:
        size = disk.format_size(sum(file.size for file in unread))
        reporter.say(f"{one.part.folder}: comparing {size} on disk with the hashes on the hub")
    wrong = [file for file in unread if not file.matches(folder / file.name)]
    return [file for file in one.manifest.files if file not in there or file in wrong]


def _is_settled(one: PublishedPart, store: ModelStore) -> bool:
    """Return True where the manifest and the reference of a part are up to date."""
    folder = store.folder(one.part, one.manifest.commit)
    try:
        known = read_manifest(folder)
    except CheckpointError:
        return False
    same = known is not None and known.commit == one.manifest.commit and set(known.files) == set(one.manifest.files)
    return same and store.is_published(one.part, one.manifest.commit)


def _require_room(missing: dict[ModelPart, list[RemoteFile]], store: ModelStore) -> None:
    """Raise `OutputError` where the disk has no room for the remaining downloads."""
    needed = 0
    for part, files in missing.items():
        for file in files:
            unfinished = store.unfinished(part, file)
            is_begun = unfinished.is_file() and not unfinished.is_symlink()
            needed += max(0, file.size - (unfinished.stat().st_size if is_begun else 0))
    free = model_store.free_bytes(store.root)
    if needed > free:
        raise OutputError(
            f"{disk.format_size(needed)} are still to be fetched, and the disk of {store.root} has "
            f"{disk.format_size(free)} free.",
            "Make room (`acestep models prune` lists what is left over), or name another disk with --models-dir or "
            "HF_HOME.",
        )


def _download_parts(
    wanted: list[PublishedPart],
    missing: dict[ModelPart, list[RemoteFile]],
    store: ModelStore,
    reporter: PullReporter,
    hub: Hub,
) -> dict[ModelPart, int]:
    """Download the missing files, part by part, small files first. A part gets its manifest once all are there.

    Returns the downloaded bytes of each part.
    """
    fetched = dict.fromkeys(missing, 0)
    with reporter.transfers(sum(file.size for files in missing.values() for file in files)) as report:
        for one in wanted:
            for file in missing[one.part]:
                content = _find_stored(one, file, store)
                if content is None:
                    content = _download_file(one, file, store, report, hub)
                    fetched[one.part] += file.size
                report(f"{one.part.folder}/{file.name}", file.size, file.size)
                store.place(one.part, one.manifest.commit, file, content)
            if not _is_settled(one, store):
                one.manifest.write(store.folder(one.part, one.manifest.commit))
                store.publish(one.part, one.manifest.commit)
    return fetched


def _find_stored(one: PublishedPart, file: RemoteFile, store: ModelStore) -> Path | None:
    """Return verified content that is on disk already, from another commit or an interrupted pull, else None."""
    path = store.stored(one.part, file)
    return path if path is not None and path.is_file() and file.matches(path) else None


def _download_file(one: PublishedPart, file: RemoteFile, store: ModelStore, report: ProgressCallback, hub: Hub) -> Path:
    """Download a file, resuming an unfinished one, and verify it. Where it is wrong, start over once.

    Raises `NetworkError` where more bytes come than the file has, twice, and `CheckpointError` where the hash differs
    twice.
    """
    path = store.unfinished(one.part, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    label = f"{one.part.folder}/{file.name}"
    for _ in range(2):
        try:
            hub.fetch(one, file, path, lambda done: report(label, min(done, file.size), file.size))
        except TooLongError:
            problem: AceStepError = _too_long(one, file, hub)
            continue
        if file.matches(path):
            return path
        path.unlink()
        report(label, 0, file.size)
        problem = _wrong_hash(one, file)
    raise problem


def _too_long(one: PublishedPart, file: RemoteFile, hub: Hub) -> NetworkError:
    return NetworkError(
        f"What {one.part.repo} sends for {one.part.inside}{file.name} is longer than the {file.size:,} bytes that "
        "it names, twice. The rest was not fetched.",
        hub.sign_in,
    )


def _wrong_hash(one: PublishedPart, file: RemoteFile) -> CheckpointError:
    return CheckpointError(
        f"What {one.part.repo} sends for {one.part.inside}{file.name} has another hash than it names, twice. "
        "It was not kept.",
        "Try again later, or without a mirror or proxy in between.",
    )
