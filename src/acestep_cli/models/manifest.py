"""Manifests: which commit a published folder is, and what each file of it must be.

A manifest is written as the folder's lock file when the folder is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from acestep_cli import disk
from acestep_cli.errors import CheckpointError
from acestep_cli.models import weight_files
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.progress import ProgressCallback

LOCK = "acestep.lock.json"
LOCK_SCHEMA = "acestep-lock/1"
HASH_BYTES = 1 << 20


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
class Manifest:
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


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder; None where there is none. Raises `CheckpointError` where it is malformed."""
    file = folder / LOCK
    if not disk.is_file(file):
        return None
    from pydantic import ValidationError  # not for the completion of a word

    from acestep_cli.models.manifest_schema import ManifestContent

    try:
        content = ManifestContent.model_validate(weight_files.read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        raise _manifest_error(file, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    files = tuple(RemoteFile(name, **entry.model_dump()) for name, entry in content.files.items())
    if unsafe := [file.name for file in files if not is_plain(file.name)]:
        raise _manifest_error(file, f"it names {unsafe[0]!r}")
    if unknown := [file.name for file in files if not file.hash]:
        raise _manifest_error(file, f"{unknown[0]} has no hash")
    return Manifest(content.repo, content.revision, content.commit, files)


def _manifest_error(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{file} is not a lock file of this program ({why}).", "Remove it.")


def is_plain(name: str) -> bool:
    """Return True for a name that is a plain file name on every system: no path, no drive, nothing invisible."""
    return name.isprintable() and name not in ("", ".", "..") and not set(name) & set("/\\:")


def expected_manifest(part: ModelPart, folder: Path) -> Manifest:
    """Return the manifest of a part, from its lock file, else from the hashes that are their names in the cache.

    Raises `CheckpointError` where there is neither.
    """
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest
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
    return Manifest(part.repo, "", folder.name if not part.inside else folder.parent.name, files)


def verify_files(manifest: Manifest, folder: Path, report: ProgressCallback) -> list[str]:
    """Hash the files of a folder. Return a sentence for each file that differs from the manifest."""
    wrong = []
    for file in manifest.files:
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
