"""Published folders on this machine, in a models folder or the Hugging Face cache, and their lock files.

A lock file says which commit a folder is and what each file of it must be. It is written when the folder is whole.
Nothing here asks the network; `hub` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acestep_cli import disk
from acestep_cli.errors import CheckpointError
from acestep_cli.models import checkpoint_table, checkpoints, weight_files
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter, UnpulledSongwriter
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.progress import ProgressCallback, Say

if TYPE_CHECKING:
    from huggingface_hub import DeleteCacheStrategy

LOCK = "acestep.lock.json"
LOCK_SCHEMA = "acestep-lock/1"
#: In a models folder: unfinished downloads, and the locks between pulls.
WORK_FOLDER = ".acestep"
UNFINISHED = ".acestep.incomplete"
SET_ASIDE_SUFFIX = ".aside"
HASH_BYTES = 1 << 20
#: Another tool's unfinished download is left alone until it has not grown for so long.
GROWING_SECONDS = 3600


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it. `sha256` is None where git itself keeps it: then `blob_id` is its git hash."""

    name: str
    size: int
    sha256: str | None
    blob_id: str | None

    @property
    def hash(self) -> str:
        return self.sha256 or self.blob_id or ""

    def matches(self, path: Path, report: Callable[[int], None] = lambda done: None) -> bool:
        """Return True where `path` has this size and hash; `report` gets the number of bytes read so far."""
        if path.stat().st_size != self.size:
            return False
        if self.sha256:
            digest = hashlib.sha256()
        else:
            digest = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        done = 0
        with path.open("rb") as stream:
            while block := stream.read(HASH_BYTES):
                digest.update(block)
                done += len(block)
                report(done)
        return digest.hexdigest() == self.hash


@dataclass(frozen=True)
class LockFile:
    """The origin of a folder: repository, revision, commit, and files."""

    repo: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]

    def write(self, folder: Path) -> None:
        files = {
            file.name: {"size": file.size, **({"sha256": file.sha256} if file.sha256 else {"blob_id": file.blob_id})}
            for file in sorted(self.files, key=lambda file: file.name)
        }
        content = {"schema": LOCK_SCHEMA, "repo": self.repo, "revision": self.revision, "commit": self.commit}
        disk.replace_text(folder / LOCK, json.dumps({**content, "files": files}, indent=2) + "\n")


def read_lock(folder: Path) -> LockFile | None:
    """Read the lock file of a folder; None where there is none. Raises `CheckpointError` where it is malformed."""
    file = folder / LOCK
    if not disk.is_file(file):
        return None
    content = weight_files.read_json(file)
    try:
        files = tuple(
            RemoteFile(name, int(entry["size"]), entry.get("sha256"), entry.get("blob_id"))
            for name, entry in content["files"].items()
        )
        if content["schema"] != LOCK_SCHEMA or not all(file.hash for file in files):
            raise ValueError(content["schema"])
        if unsafe := [file.name for file in files if not is_plain(file.name)]:
            raise ValueError(f"it names {unsafe[0]!r}")
        return LockFile(content["repo"], content["revision"], content["commit"], files)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} is not a lock file of this program ({error}).", "Remove it.") from error


def is_plain(name: str) -> bool:
    """Return True for a name that is a plain file name on every system: no path, no drive, nothing invisible."""
    return name.isprintable() and name not in ("", ".", "..") and not set(name) & set("/\\:")


def set_aside(path: Path) -> Path:
    """Rename a file that is in the way, because nothing is deleted unasked. Return the new path."""
    number, aside = 1, path.with_name(path.name + SET_ASIDE_SUFFIX)
    while aside.exists():
        number, aside = number + 1, path.with_name(f"{path.name}{SET_ASIDE_SUFFIX}-{number}")
    return path.rename(aside)


def _publish(content: Path, path: Path) -> None:
    """Rename verified content to `path` and flush it to disk, before a lock file vouches for it."""
    disk.flush(content)
    content.rename(path)
    disk.flush(path.parent)


@dataclass(frozen=True)
class ModelsFolder:
    """A folder in the published layout: each part under its own name."""

    root: Path

    def folder(self, part: ModelPart, commit: str) -> Path:
        return self.root / part.folder

    def unfinished(self, part: ModelPart, file: RemoteFile) -> Path:
        return self.root / WORK_FOLDER / f"{file.hash}{UNFINISHED}"

    def lock_file(self, part: ModelPart) -> Path:
        """Return the file that a pull locks, so that another one waits."""
        return self.root / WORK_FOLDER / "pull.lock"

    def stored(self, part: ModelPart, file: RemoteFile) -> Path | None:
        """Return the path where the content of a file may be already under another name, if any."""
        return None

    def place(self, part: ModelPart, commit: str, file: RemoteFile, content: Path) -> None:
        """Rename verified content to its name. A file that has the name already is set aside."""
        target = self.folder(part, commit) / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            set_aside(target)
        _publish(content, target)

    def is_published(self, part: ModelPart, commit: str) -> bool:
        return True

    def publish(self, part: ModelPart, commit: str) -> None:
        """Do nothing, because the folder is found by its name."""

    def begun_folder(self, part: ModelPart) -> Path | None:
        """Return the folder of a pull that has begun; None where there is none."""
        folder = self.root / part.folder
        return folder if disk.is_folder(folder) else None

    def leftovers(self) -> list[Path]:
        """Return unfinished downloads and files that were set aside."""
        if not disk.is_folder(self.root):
            return []
        beside = (path for part in all_parts() for path in (self.root / part.folder).glob(f"*{SET_ASIDE_SUFFIX}*"))
        aside = (path for path in beside if re.search(rf"{re.escape(SET_ASIDE_SUFFIX)}(-\d+)?$", path.name))
        return sorted([*(self.root / WORK_FOLDER).glob(f"*{UNFINISHED}"), *aside])

    def clear(self) -> None:
        for path in self.leftovers():
            path.unlink()


@dataclass(frozen=True)
class HubCache:
    """The Hugging Face cache, in its own layout: content under its hash, linked from a folder for each commit."""

    #: True where its library makes the links, which asks its hub for each.
    by_library: bool = True

    @property
    def root(self) -> Path:
        return Path(checkpoints.hub_constants().HF_HUB_CACHE)

    def folder(self, part: ModelPart, commit: str) -> Path:
        return checkpoints.cache_folder(part.repo) / "snapshots" / commit / part.inside

    def unfinished(self, part: ModelPart, file: RemoteFile) -> Path:
        return checkpoints.cache_folder(part.repo) / "blobs" / f"{file.hash}{UNFINISHED}"

    def lock_file(self, part: ModelPart) -> Path:
        return self.root / ".locks" / checkpoints.cache_folder(part.repo).name / "acestep.lock"

    def stored(self, part: ModelPart, file: RemoteFile) -> Path | None:
        return checkpoints.cache_folder(part.repo) / "blobs" / file.hash

    def place(self, part: ModelPart, commit: str, file: RemoteFile, content: Path) -> None:
        """Store verified content under its hash, and link it into the folder of its commit."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.file_download import are_symlinks_supported

        blob = checkpoints.cache_folder(part.repo) / "blobs" / file.hash
        link = self.folder(part, commit) / file.name
        if link.is_symlink():
            link.unlink()  # the library makes it anew
        elif link.exists():
            set_aside(link)
        if not are_symlinks_supported(self.root):  # the library would copy, and so keep everything twice
            link.parent.mkdir(parents=True, exist_ok=True)
            _publish(content, link)
            return
        if content != blob:
            if os.path.lexists(blob):
                set_aside(blob)
            _publish(content, blob)
        if not self.by_library:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
            return
        made = Path(hf_hub_download(part.repo, f"{part.inside}{file.name}", revision=commit))
        if made.resolve() != blob.resolve() and not file.matches(made):
            set_aside(made)
            raise CheckpointError(f"The hub gave another {file.name} than it had named; it is set aside.", "Try again.")

    def is_published(self, part: ModelPart, commit: str) -> bool:
        ref = self._ref(part)
        return ref.is_file() and ref.read_text(encoding="utf-8").strip() == commit

    def publish(self, part: ModelPart, commit: str) -> None:
        """Write the reference by which the part is found at this commit. The `main` of other tools is not changed."""
        disk.replace_text(self._ref(part), commit)

    def _ref(self, part: ModelPart) -> Path:
        return checkpoints.cache_folder(part.repo) / "refs" / f"{checkpoints.OWN_REF}{part.folder}"

    def begun_folder(self, part: ModelPart) -> Path | None:
        try:
            found = sorted(checkpoints.cache_folder(part.repo).glob(f"snapshots/*/{part.inside}*.*"))
        except PermissionError:  # of a cache that is another user's
            return None
        return found[0].parent if found else None

    def leftovers(self) -> list[Path]:
        """Return commits without a reference and the content only they use, unfinished downloads, loose content."""
        old, loose = self._old_commits(), self._loose()
        if old is None:
            return loose
        inside = [path for path in loose if not any(repo in path.parents for repo in old.repos)]
        return sorted({*old.repos, *old.snapshots, *old.blobs, *inside})

    def clear(self) -> None:
        if (old := self._old_commits()) is not None:
            old.execute()
        for path in self._loose():
            path.unlink()

    def _old_commits(self) -> DeleteCacheStrategy | None:
        from huggingface_hub import scan_cache_dir

        if not self.root.is_dir():
            return None
        repos, scanned = {part.repo for part in all_parts()}, scan_cache_dir(self.root)
        old = [
            revision.commit_hash
            for repo in scanned.repos
            if repo.repo_id in repos and repo.repo_type == "model"
            for revision in repo.revisions
            if not revision.refs
        ]
        return scanned.delete_revisions(*old) if old else None

    def _loose(self) -> list[Path]:
        loose = []
        for repo in {part.repo for part in all_parts()}:
            storage = checkpoints.cache_folder(repo)
            linked = {path.readlink().name for path in storage.glob("snapshots/**/*") if path.is_symlink()}
            loose += [path for path in storage.glob("blobs/*") if path.name not in linked and not _is_growing(path)]
        return sorted(loose)


def _is_growing(path: Path) -> bool:
    """Return True where another tool may be downloading into `path`. Pulls of this program hold a lock instead."""
    foreign = path.name.endswith(".incomplete") and not path.name.endswith(UNFINISHED)
    return foreign and time.time() - path.lstat().st_mtime < GROWING_SECONDS


ModelStore = ModelsFolder | HubCache


def model_store(models_dir: Path | None, *, by_library: bool = True) -> ModelStore:
    """Return the models folder, or the Hugging Face cache, with links `by_library` or of our own."""
    checkpoints.require_readable(models_dir)
    return HubCache(by_library) if models_dir is None else ModelsFolder(models_dir)


def all_parts() -> list[ModelPart]:
    """Return every published folder once."""
    names = (*checkpoint_table.CHECKPOINTS, *checkpoint_table.SONGWRITERS)
    return list(dict.fromkeys(part for name in names for part in checkpoint_table.model_parts(name)))


@dataclass(frozen=True)
class ModelState:
    """The state of a model (`installed`, `partial` or `absent`), its folder, the bytes in it, and its problem."""

    name: str
    status: str
    folder: Path | None
    size: int
    lock: LockFile | None = None
    problem: CheckpointError | None = None

    def report(self) -> dict[str, Any]:
        """Return the entry of this model in `models` of `--json`."""
        kind = "songwriter" if self.name in checkpoint_table.SONGWRITERS else "checkpoint"
        entry: dict[str, Any] = {"name": self.name, "kind": kind, "status": self.status}
        entry |= {"path": str(self.folder) if self.folder else None, "bytes": self.size}
        if self.lock is not None:
            entry |= {"repo": self.lock.repo, "revision": self.lock.revision, "commit": self.lock.commit}
        if self.problem is not None and self.status == "partial":
            entry["problem"] = self.problem.message
        return entry


def model_state(name: str, models_dir: Path | None) -> ModelState:
    """Return the state of a checkpoint or Songwriter, as far as its headers show."""
    try:
        folder = find_model(name, models_dir)
        return ModelState(name, "installed", folder, folder_size(folder), read_lock(folder))
    except CheckpointError as error:
        trace = model_store(models_dir).begun_folder(checkpoint_table.model_parts(name)[0])
        if trace is None and name in checkpoint_table.CHECKPOINTS:
            trace = checkpoints.dit_folder(name, models_dir)
        status, size = ("absent", 0) if trace is None else ("partial", folder_size(trace))
        return ModelState(name, status, trace, size, problem=error)


def find_model(name: str, models_dir: Path | None) -> Path:
    """Return the folder of a checkpoint or Songwriter. Raises `CheckpointError` where it is missing or incomplete."""
    if name == checkpoint_table.BUILT_IN:  # wherever others are looked for
        return checkpoints.find_checkpoint(name).dit
    if name not in checkpoint_table.SONGWRITERS:
        return checkpoints.find_checkpoint(name, models_dir).dit
    part = checkpoint_table.SONGWRITERS[name]
    folder = checkpoints.part_folder(part, models_dir)
    if folder is None:
        raise CheckpointError(
            f"The Songwriter {name} is not installed: {models_dir or 'the Hugging Face cache'} has no {part.folder}/.",
            f"`acestep models pull {name}` fetches it.",
        )
    checkpoints.check_part(part, folder)
    return folder


def unpulled_songwriter(asked: str | None, checkpoint: Checkpoint, models_dir: Path | None) -> Songwriter | None:
    """Return the Songwriter `asked` for as one to be downloaded, where it is of the table, fits and is not here."""
    if asked not in checkpoint_table.SONGWRITERS:
        return None
    try:
        find_model(asked, models_dir)
    except CheckpointError:
        part = checkpoint_table.SONGWRITERS[asked]
        folder = checkpoints.cache_folder(part.repo) / part.inside if models_dir is None else models_dir / part.folder
        planned = UnpulledSongwriter(asked, folder)
        return planned if planned.fits(checkpoint) else None
    return None


def songwriters(asked: str | None, checkpoint: Checkpoint, models_dir: Path | None) -> list[Songwriter | None]:
    """Return the Songwriters to try with a checkpoint, the best first.

    A name or folder gives that one alone, `none` gives [None], and `auto` gives all installed ones with the
    checkpoint's codebook, the largest first, then None. `auto` never gives the built-in one, because the built-in
    checkpoint follows a prompt better without its codes; `needed_songwriters` does.

    Raises `CheckpointError` where a named one is missing, broken, or of another codebook.
    """
    if asked == "none":
        return [None]
    if asked in (None, "auto"):
        found: list[Songwriter | None] = []
        for name in reversed(checkpoint_table.SONGWRITERS):
            with contextlib.suppress(CheckpointError):
                if (one := Songwriter(name, find_model(name, models_dir))).fits(checkpoint):
                    found.append(one)
        return [*found, None]
    assert asked is not None
    if asked == checkpoint_table.BUILT_IN:
        named = checkpoints.built_in_songwriter()
    elif asked in checkpoint_table.SONGWRITERS:
        named = Songwriter(asked, find_model(asked, models_dir))
    else:
        folder = Path(asked)
        if not disk.is_folder(folder):
            raise CheckpointError(
                f"{asked} is neither a Songwriter's name nor a folder.",
                f"Names: {', '.join(checkpoint_table.SONGWRITER_CHOICES)}; a folder holds config.json, tokenizer.json "
                "and model.safetensors.",
            )
        checkpoints.check_part(next(iter(checkpoint_table.SONGWRITERS.values())), folder)
        named = Songwriter(asked, folder)
    if not named.fits(checkpoint):
        raise CheckpointError(
            f"The Songwriter {asked} and the checkpoint {checkpoint.name} do not use the same codes: their levels "
            f"are {format_levels(named.levels)} and {format_levels(checkpoint.levels)}.",
            "Leave --songwriter out, or choose a --model it was trained with.",
        )
    return [named]


def format_levels(levels: Sequence[int]) -> str:
    return "x".join(map(str, levels)) or "none"


def needed_songwriters(
    asked: str | None, checkpoint: Checkpoint, models_dir: Path | None, need: str
) -> list[Songwriter]:
    """Return `songwriters` without None. Raises `CheckpointError`, which names `need`, where there are none."""
    found = [one for one in songwriters(asked, checkpoint, models_dir) if one is not None]
    own = checkpoints.built_in_songwriter()
    if not found and asked in (None, "auto") and own.fits(checkpoint):
        return [own]
    if not found:
        where = models_dir or "the Hugging Face cache"
        raise CheckpointError(
            f"{need} needs a Songwriter, and {where} has none that goes with {checkpoint.name}.",
            f"`acestep models pull {next(iter(checkpoint_table.SONGWRITERS))}` fetches the smallest, for the published "
            "checkpoints.",
        )
    return found


def folder_size(folder: Path) -> int:
    """Return the bytes of the files in a folder, and in diffusers' layout also in the folders within.

    What may not be looked at counts nothing.
    """
    size = 0
    with contextlib.suppress(PermissionError):
        for path in folder.rglob("*") if checkpoints.is_diffusers(folder) else folder.iterdir():
            size += path.stat().st_size if path.is_file() else 0
    return size


def expected_files(part: ModelPart, folder: Path) -> LockFile:
    """Return the expected files of a part, from its lock file, else from the hashes that are their names in the cache.

    Raises `CheckpointError` where there is neither.
    """
    lock = read_lock(folder)
    if lock is not None:
        return lock
    blobs = [(path.name, path.readlink().name) for path in folder.iterdir() if path.is_symlink()]
    files = tuple(
        RemoteFile(
            name, (folder / name).stat().st_size, blob if len(blob) == 64 else None, blob if len(blob) == 40 else None
        )
        for name, blob in blobs
        if (folder / name).is_file() and len(blob) in (40, 64)
    )
    if not files:
        raise CheckpointError(
            f"There is no {LOCK} in {folder}, so nothing tells what its files should be.",
            "`acestep models pull` compares them with the hub's and writes it.",
        )
    return LockFile(part.repo, "", folder.name if not part.inside else folder.parent.name, files)


def verify_files(lock: LockFile, folder: Path, report: ProgressCallback) -> list[str]:
    """Hash the files of a folder. Return a sentence for each file that differs from the lock file."""
    wrong = []
    for file in lock.files:
        path = folder / file.name
        label = f"{folder.name}/{file.name}"
        try:
            if not path.is_file():
                wrong.append(f"{path} is missing.")
            elif not file.matches(path, lambda done, file=file, label=label: report(label, done, file.size)):  # type: ignore[misc]
                wrong.append(f"{path} is not the published file: its {'SHA-256' if file.sha256 else 'hash'} differs.")
        except OSError as error:
            raise weight_files.unreadable_error(path, error) from error
    return wrong


def freed_bytes(path: Path) -> int:
    """Return the bytes that deleting `path` would free. Links are not followed."""
    within = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(one.lstat().st_size for one in within if one.is_symlink() or one.is_file())


@contextmanager
def lock_store(parts: Sequence[ModelPart], store: ModelStore, say: Say) -> Iterator[None]:
    """Hold the locks of the parts in the body; other pulls of the same repositories wait."""
    from huggingface_hub.utils import WeakFileLock

    with ExitStack() as held:
        for guard in sorted({store.lock_file(part) for part in parts}):
            guard.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(WeakFileLock(guard, timeout=0.1))
            except TimeoutError:
                say(f"Another pull is at work in {store.root}; waiting for it.")
                held.enter_context(WeakFileLock(guard))
        yield


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of `folder`, which need not exist yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free
