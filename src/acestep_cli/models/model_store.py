"""The stores of downloads: a models folder, and the Hugging Face cache.

Nothing here asks the network; `hub` does.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli import disk
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.models.manifest import RemoteFile
from acestep_cli.progress import Say

if TYPE_CHECKING:
    from huggingface_hub import DeleteCacheStrategy

#: In a models folder: unfinished downloads, and the locks between pulls.
WORK_FOLDER = ".acestep"
UNFINISHED = ".acestep.incomplete"
SET_ASIDE_SUFFIX = ".aside"
#: Another tool's unfinished download is left alone until it has not grown for so long.
GROWING_SECONDS = 3600


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
    """The Hugging Face cache, in its own layout: content under its hash, linked from a folder for each commit.

    Its library would ask the hub once more for each link, and fetch whatever that then names, however long.
    """

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
        from huggingface_hub.file_download import are_symlinks_supported

        blob = checkpoints.cache_folder(part.repo) / "blobs" / file.hash
        link = self.folder(part, commit) / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            set_aside(link)
        if not are_symlinks_supported(self.root):
            _publish(content, link)
            return
        if content != blob:
            if os.path.lexists(blob):
                set_aside(blob)
            _publish(content, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))

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


def find_store(models_dir: Path | None) -> ModelStore:
    """Return the models folder, or the Hugging Face cache."""
    checkpoints.require_readable(models_dir)
    return HubCache() if models_dir is None else ModelsFolder(models_dir)


def all_parts() -> list[ModelPart]:
    """Return every published folder once."""
    names = (*checkpoint_table.CHECKPOINTS, *checkpoint_table.SONGWRITERS)
    return list(dict.fromkeys(part for name in names for part in checkpoint_table.model_parts(name)))


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
