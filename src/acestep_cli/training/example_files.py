"""Files of encoded songs: each named by the hash of what it follows from, so that it is found again.

Nothing here loads torch: a plan asks which songs are yet to be encoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from acestep_cli import cache
from acestep_cli.machine.plan import Plan
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.models.tensor_file import has_tensors
from acestep_cli.training.dataset import UsableSong


def examples_folder() -> Path:
    """Return the folder of encoded songs. It lies in the cache's folder, but is never pruned with the cache."""
    return cache.folder() / "lessons"


def cache_file(inputs: str) -> Path:
    """Return the file for the tensors that follow from `inputs`."""
    return examples_folder() / f"{hashlib.sha256(inputs.encode(errors='surrogatepass')).hexdigest()[:32]}.safetensors"


def latents_files(
    songs: Sequence[UsableSong], checkpoint: Checkpoint, plan: Plan, reference_frames: int
) -> list[tuple[UsableSong, Path]]:
    """Return each song with the file of its latents; with `reference_frames` it also has those of parts of the
    recording as its reference, so many frames each.
    """
    dtype = "float32" if plan.vae_on_cpu else plan.dtype
    kind = f"{checkpoint.vae_hash} torch.{dtype} {reference_frames}"
    return [(usable, cache_file(f"{usable.facts.fingerprint} {kind}")) for usable in songs]


def missing_latents(
    songs: Sequence[UsableSong], checkpoint: Checkpoint, plan: Plan, reference_frames: int
) -> list[tuple[UsableSong, Path]]:
    """Return the songs of `latents_files` that are yet to be encoded, with their files."""
    wanted = {"latents", "timbre"} if reference_frames else {"latents"}
    files = latents_files(songs, checkpoint, plan, reference_frames)
    return [(usable, file) for usable, file in files if not has_tensors(file, wanted)]
