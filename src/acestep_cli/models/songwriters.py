"""The Songwriters that are installed and go with a checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from acestep_cli import disk
from acestep_cli.errors import CheckpointError
from acestep_cli.models import checkpoint_table, checkpoints, local
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter, UnpulledSongwriter


def unpulled_songwriter(asked: str | None, checkpoint: Checkpoint, models_dir: Path | None) -> Songwriter | None:
    """Return the Songwriter `asked` for as one to be downloaded, where it is of the table, fits and is not here."""
    if asked not in checkpoint_table.SONGWRITERS:
        return None
    try:
        local.find_model(asked, models_dir)
    except CheckpointError:
        part = checkpoint_table.SONGWRITERS[asked]
        folder = checkpoints.cache_folder(part.repo) / part.inside if models_dir is None else models_dir / part.folder
        planned = UnpulledSongwriter(asked, folder)
        return planned if planned.fits(checkpoint) else None
    return None


def find_songwriters(asked: str | None, checkpoint: Checkpoint, models_dir: Path | None) -> list[Songwriter | None]:
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
                if (one := Songwriter(name, local.find_model(name, models_dir))).fits(checkpoint):
                    found.append(one)
        return [*found, None]
    assert asked is not None
    if asked == checkpoint_table.BUILT_IN:
        named = checkpoints.built_in_songwriter()
    elif asked in checkpoint_table.SONGWRITERS:
        named = Songwriter(asked, local.find_model(asked, models_dir))
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
    """Return `find_songwriters` without None. Raises `CheckpointError`, which names `need`, where there are none."""
    found = [one for one in find_songwriters(asked, checkpoint, models_dir) if one is not None]
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
