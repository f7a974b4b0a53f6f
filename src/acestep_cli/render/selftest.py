"""The first proof of a checkpoint on a machine: its files, its tensors, its tokens, and a render of a known seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from acestep_cli.audio import loudness
from acestep_cli.errors import AceStepError, CheckError, CheckpointError
from acestep_cli.machine.plan import Plan
from acestep_cli.models import weight_files
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.models.sizes import PUBLISHED_2B, PUBLISHED_TEXT, PUBLISHED_XL, Sizes
from acestep_cli.models.tensor_file import open_tensors
from acestep_cli.progress import ProgressCallback, Say
from acestep_cli.song.complete import Completed

#: Source: docs/specification.md, 2.3 Published sizes and 4.4 Tokens and limits.
PUBLISHED_TENSORS = {False: 677, True: 829}
PUBLISHED_END = 151_643
#: A render quieter than this is no music, whatever it is.
QUIETEST_DBFS = -50.0


@dataclass(frozen=True)
class SelftestCheck:
    """Result of one check; `problem` is None where it passed."""

    name: str
    finding: str
    problem: AceStepError | None = None


def run_checks(
    checkpoint: Checkpoint,
    song: Completed,
    plan: Plan,
    report: ProgressCallback,
    say: Say,
    songwriters: Sequence[Songwriter] = (),
) -> Iterator[SelftestCheck]:
    """Run the checks of a checkpoint, the cheapest first, and yield their results. The first problem ends it.

    The last check renders `song`; `say` gets a sentence for each memory fallback.
    """
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        ("names", lambda: check_tensor_count(checkpoint)),
        ("tokens", lambda: check_closing_token(checkpoint)),
        ("silence", lambda: check_silence(checkpoint, plan)),
        ("weights", lambda: check_finite(checkpoint)),
        ("networks", lambda: check_networks(checkpoint, plan, report, songwriters)),
        ("render", lambda: check_render(checkpoint, song, plan, report, say)),
    )
    for name, check in steps:
        try:
            yield SelftestCheck(name, check())
        except AceStepError as error:
            yield SelftestCheck(name, error.message, error)
            return


def check_tensor_count(checkpoint: Checkpoint) -> str:
    """Count the tensors of the DiT folder: for a published size, their number is known."""
    count = sum(len(shard.shapes()) for shard in checkpoint.dit_shards)
    sizes = Sizes.of(checkpoint).dit
    if sizes in (PUBLISHED_2B, PUBLISHED_XL):
        expected = PUBLISHED_TENSORS[sizes.is_xl]
        if count != expected:
            raise CheckpointError(
                f"{checkpoint.dit} holds {count} tensors; published checkpoints of its size hold {expected}.",
                "`acestep models verify` says whether the files are the published ones.",
            )
    return f"{count} tensors in {checkpoint.dit.name}/"


def check_closing_token(checkpoint: Checkpoint) -> str:
    """Check the token that ends a prompt. `TextEncoder` itself refuses a tokenizer without one."""
    from acestep_cli.engine.text_encoder import TextEncoder

    end = TextEncoder(checkpoint.text, checkpoint.tokenizer).tokenizer.encode("x").ids[-1]
    if Sizes.of(checkpoint).text == PUBLISHED_TEXT and end != PUBLISHED_END:
        raise CheckpointError(
            f"{checkpoint.tokenizer} ends prompts with token {end}; the published one is {PUBLISHED_END}."
        )
    return f"prompts end with token {end}"


def check_silence(checkpoint: Checkpoint, plan: Plan) -> str:
    """Check that the silence latent, which fills missing inputs, is finite."""

    from acestep_cli.pipeline import Pipeline

    latent = Pipeline(checkpoint, plan).silence
    if not latent.isfinite().all():
        raise CheckpointError(f"{checkpoint.silence_file} holds numbers that are not finite.")
    return f"{latent.shape[1]} frames of {latent.shape[2]} channels"


def check_finite(checkpoint: Checkpoint) -> str:
    """Check that every number of every tensor in the files is finite."""
    count = 0
    for file in checkpoint.files:
        if file.suffix != weight_files.WEIGHTS_SUFFIX:
            continue
        with open_tensors(file) as shard:
            for name in shard.keys():  # noqa: SIM118 - not a dict
                count += 1
                weight = shard.get_tensor(name)
                if weight.is_floating_point() and not weight.isfinite().all():
                    raise CheckpointError(
                        f"{name} in {file} holds numbers that are not finite.",
                        "Download that file again; `acestep models verify` says whether it is the published one.",
                    )
    return f"{count} tensors, all of them finite"


def check_networks(
    checkpoint: Checkpoint, plan: Plan, report: ProgressCallback, songwriters: Sequence[Songwriter] = ()
) -> str:
    """Load every network: `WeightStore` refuses names and shapes that do not fit."""
    from acestep_cli.engine.weights import WeightStore

    weights = WeightStore(checkpoint, plan, report)
    try:
        for lend in (weights.text_encoder, weights.dit, weights.vae):
            with lend():
                pass
    finally:
        weights.close()
    warnings = list(weights.warnings)
    for songwriter in songwriters:
        lender = WeightStore(checkpoint, plan, report, songwriter)
        try:
            with lender.songwriter():
                pass
        finally:
            lender.close()
        warnings += lender.warnings
    return " ".join(warnings) or "every tensor has its place"


def check_render(checkpoint: Checkpoint, song: Completed, plan: Plan, report: ProgressCallback, say: Say) -> str:
    """Render a song with a fixed seed, and check that it is finite and as loud as music."""

    from acestep_cli.pipeline import Pipeline

    [take] = Pipeline(checkpoint, plan).run([song], report, say)
    peak = loudness.sample_peak(take.audio)
    rms = math.sqrt(float((take.audio.samples.astype("float64") ** 2).mean()))
    decibels = 20 * math.log10(rms) if rms else -math.inf
    if decibels < QUIETEST_DBFS:
        raise CheckError(f"The render is too quiet to be music: {decibels:.1f} dBFS RMS.")
    spent = sum(take.timings.values())
    return f"{take.audio.seconds:g} s, peak {20 * math.log10(peak):.1f} dBFS, {decibels:.1f} dBFS RMS, in {spent:.1f} s"
