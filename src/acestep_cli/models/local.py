"""The models that are installed, and the state of those that are not wholly."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acestep_cli.errors import CheckpointError
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.manifest import Manifest, read_manifest
from acestep_cli.models.model_store import find_store


@dataclass(frozen=True)
class ModelState:
    """The state of a model (`installed`, `partial` or `absent`), its folder, the bytes of it and of what it needs, and
    its problem.
    """

    name: str
    status: str
    folder: Path | None
    size: int
    manifest: Manifest | None = None
    problem: CheckpointError | None = None

    def report(self) -> dict[str, Any]:
        """Return the entry of this model in `models` of `--json`."""
        kind = "songwriter" if self.name in checkpoint_table.SONGWRITERS else "checkpoint"
        entry: dict[str, Any] = {"name": self.name, "kind": kind, "status": self.status}
        entry |= {"path": str(self.folder) if self.folder else None, "bytes": self.size}
        if self.manifest is not None:
            entry |= {"repo": self.manifest.repo, "revision": self.manifest.revision, "commit": self.manifest.commit}
        if self.problem is not None and self.status == "partial":
            entry["problem"] = self.problem.message
        return entry


def model_state(name: str, models_dir: Path | None) -> ModelState:
    """Return the state of a checkpoint or Songwriter, as far as its headers show."""
    try:
        folder = find_model(name, models_dir)
        return ModelState(name, "installed", folder, installed_size(name, folder, models_dir), read_manifest(folder))
    except CheckpointError as error:
        trace = find_store(models_dir).begun_folder(checkpoint_table.model_parts(name)[0])
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


def installed_size(name: str, folder: Path, models_dir: Path | None) -> int:
    """Return the bytes of a model in `folder` and of all that it needs: the autoencoder and the text encoder, which
    checkpoints share, and the built-in one's Songwriter.
    """
    if name in checkpoint_table.SONGWRITERS:
        return folder_size(folder)
    if name == checkpoint_table.BUILT_IN:  # wherever others are looked for
        found = checkpoints.find_checkpoint(name)
        folders = {found.dit, found.vae, found.text, checkpoints.built_in_songwriter().folder}
    else:
        found = checkpoints.find_checkpoint(name, models_dir)
        folders = {found.dit, found.vae, found.text}
    return sum(folder_size(one) for one in folders if not any(other in one.parents for other in folders))


def folder_size(folder: Path) -> int:
    """Return the bytes of the files in a folder, and in diffusers' layout also in the folders within.

    What may not be looked at counts nothing.
    """
    size = 0
    with contextlib.suppress(PermissionError):
        for path in folder.rglob("*") if checkpoints.is_diffusers(folder) else folder.iterdir():
            size += path.stat().st_size if path.is_file() else 0
    return size
