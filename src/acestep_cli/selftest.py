"""The first proof of a checkpoint on a machine: its files, its tensors, its tokens, and a render of a known seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from acestep_cli import audio, memory, modes
from acestep_cli.checkpoints import Checkpoint
from acestep_cli.engine.store import Report, Store
from acestep_cli.engine.text import TextEncoder
from acestep_cli.errors import AceStepError, CheckError, CheckpointError
from acestep_cli.modes import Completed
from acestep_cli.pipeline import Pipeline
from acestep_cli.planning import Plan
from acestep_cli.request import Request

#: Source: `dit.md` 1.2 and 2 of the specification.
PUBLISHED_TENSORS = {False: 677, True: 829}
PUBLISHED_END = 151_643
#: A render quieter than this is no music, whatever it is.
QUIETEST_DBFS = -50.0
SONG = Request(
    caption="acoustic folk song with fingerpicked guitar, warm female voice",
    lyrics="[Verse]\nMorning comes over the hill\nAnd the river is still",
    language="en",
    bpm=100,
    key="C major",
    time_signature="4/4",
    duration=10,
    seed=7,
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `problem` is None where it is as it should be."""

    name: str
    finding: str
    problem: AceStepError | None = None


def song(checkpoint: Checkpoint) -> Completed:
    """What is rendered: the same for everybody."""
    return modes.complete(SONG.model_copy(update={"model": checkpoint.name}), checkpoint)


def checks(checkpoint: Checkpoint, plan: Plan, report: Report) -> Iterator[Check]:
    """Look at a checkpoint that was found and planned for, the cheapest first; the first problem ends it."""
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("names", lambda: tensor_count(checkpoint)),
        ("tokens", lambda: closing_token(checkpoint)),
        ("silence", lambda: silence(checkpoint, plan)),
        ("weights", lambda: finite_weights(checkpoint, plan, report)),
        ("render", lambda: level_of_render(checkpoint, plan, report)),
    )
    for name, look in steps:
        try:
            yield Check(name, look())
        except AceStepError as error:
            yield Check(name, error.message, error)
            return


def tensor_count(checkpoint: Checkpoint) -> str:
    """How many tensors the DiT folder has: a published one has a number of them that is known."""
    count = sum(len(shard.shapes()) for shard in checkpoint.dit_shards)
    sizes = memory.Sizes.of(checkpoint).dit
    if sizes in (memory.PUBLISHED_2B, memory.PUBLISHED_XL):
        expected = PUBLISHED_TENSORS[sizes.is_xl]
        if count != expected:
            raise CheckpointError(
                f"{checkpoint.dit} holds {count} tensors; published checkpoints of its size hold {expected}.",
                "`acestep models verify` says whether the files are the published ones.",
            )
    return f"{count} tensors in {checkpoint.dit.name}/"


def closing_token(checkpoint: Checkpoint) -> str:
    """Which token ends a prompt; `TextEncoder` itself refuses a tokenizer that does not close its prompts."""
    end = TextEncoder(checkpoint.text, checkpoint.tokenizer).tokenizer.encode("x").ids[-1]
    if memory.Sizes.of(checkpoint).text == memory.PUBLISHED_TEXT and end != PUBLISHED_END:
        raise CheckpointError(
            f"{checkpoint.tokenizer} ends prompts with token {end}; the published one is {PUBLISHED_END}."
        )
    return f"prompts end with token {end}"


def silence(checkpoint: Checkpoint, plan: Plan) -> str:
    """The silence latent, which most of what is not given is filled with."""
    latent = Pipeline(checkpoint, plan).silence
    if not latent.isfinite().all():
        raise CheckpointError(f"{checkpoint.silence_file} holds numbers that are not finite.")
    return f"{latent.shape[1]} frames of {latent.shape[2]} channels"


def finite_weights(checkpoint: Checkpoint, plan: Plan, report: Report) -> str:
    """Every tensor of every network, by its name and shape as it is loaded, then by its numbers."""
    weights = Store(checkpoint, plan, report)
    count = 0
    try:
        for lend, folder in (
            (weights.text, checkpoint.text),
            (weights.dit, checkpoint.dit),
            (weights.vae, checkpoint.vae),
        ):
            with lend() as network:
                for name, weight in network.named_parameters():
                    count += 1
                    require_finite(name, weight, folder)
    finally:
        weights.close()
    unknown = f"; {' '.join(weights.warnings)}" if weights.warnings else ""
    return f"{count} tensors, all of them finite{unknown}"


def require_finite(name: str, weight: torch.Tensor, folder: Path) -> None:
    if weight.is_floating_point() and not weight.isfinite().all():
        raise CheckpointError(
            f"{name} in {folder} holds numbers that are not finite.",
            "Download that folder again; `acestep models verify` says which file is not the published one.",
        )


def level_of_render(checkpoint: Checkpoint, plan: Plan, report: Report) -> str:
    """Ten seconds from a fixed seed: finite, not silent, and as loud as music."""
    [take] = Pipeline(checkpoint, plan).run([song(checkpoint)], report)
    peak = audio.peak(take.audio)
    rms = math.sqrt(float((take.audio.samples.astype("float64") ** 2).mean()))
    decibels = 20 * math.log10(rms) if rms else -math.inf
    if decibels < QUIETEST_DBFS:
        raise CheckError(f"The render is too quiet to be music: {decibels:.1f} dBFS RMS.")
    spent = sum(take.timings.values())
    return f"{take.audio.seconds:g} s, peak {20 * math.log10(peak):.1f} dBFS, {decibels:.1f} dBFS RMS, in {spent:.1f} s"
