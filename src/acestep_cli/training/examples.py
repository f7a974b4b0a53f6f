"""Training examples: songs as latents and conditions, made once by the networks and templates of a render.

Latents and encoded prompts are kept in files named by the hash of their inputs, so a run that was stopped goes on where
it was, and a run with other settings finds them. One song's latents are in memory at a time.

Shapes: C latent channels, T latent frames, E encoder width, L tokens of a condition, B songs of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import acestep_cli.engine.load_libraries  # noqa: F401  # isort: skip - loads torch where the current folder is gone
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from acestep_cli import disk, solvers
from acestep_cli.engine import codec, conditioning, tensor_file
from acestep_cli.engine.denoise import stage_generator
from acestep_cli.engine.dit import Condition
from acestep_cli.engine.weights import WeightStore
from acestep_cli.models import weight_files
from acestep_cli.models.sizes import Sizes
from acestep_cli.models.tensor_file import has_tensors, open_tensors
from acestep_cli.progress import Say
from acestep_cli.training.config import CONDITION_DROPOUT, TrainingConfig
from acestep_cli.training.dataset import Dataset, UsableSong
from acestep_cli.training.example_files import cache_file, latents_files, missing_latents

#: Batches whose songs are sorted by length together, after all songs were shuffled.
POOL = 8
#: The schedule that the turbo models were distilled for.
TURBO_STEPS, TURBO_SHIFT = 8, 3.0

#: The tensors in a file of encoded prompts.
TEXT_TENSORS = {"text", "lyrics"}


class Batch(NamedTuple):
    """The inputs of one pass, and the velocity to be predicted."""

    noisy: Tensor  # [B, T, C]
    times: Tensor  # [B]
    velocity: Tensor  # [B, T, C]
    context: Tensor  # [1, T, in_channels - C]
    condition: Condition
    keep: Tensor | None  # [B, T], true at real frames; None where all are


@dataclass(frozen=True)
class Example:
    """One encoded song: the file of its latents, their number, and its condition on the CPU."""

    name: str
    file: Path
    frames: int
    condition: Tensor  # [L, E]

    def latents(self, start: int, frames: int) -> Tensor:
        """Read `frames` of its latents, [T, C], float32; the rest stays in the file."""
        with open_tensors(self.file) as opened:
            return opened.get_slice("latents")[start : start + frames]


@dataclass(frozen=True)
class TrainingSet:
    """All songs, and their order. Every draw follows from the seed and the number of a pass, so that a resumed run
    draws the same.
    """

    examples: tuple[Example, ...]
    silence: Tensor  # [1, F, C]
    unconditional: Tensor  # [1, E]
    config: TrainingConfig
    #: Frames of the longest crop of a song.
    longest_crop: int

    @cached_property
    def _batches_per_epoch(self) -> int:
        """The number of batches in one epoch."""
        return -(-len(self.examples) // self.config.batch)

    def examples_of(self, number: int) -> list[Example]:
        """Return the examples of pass `number`. Each epoch has all of them, in an order of its own."""
        epoch, place = divmod(number, self._batches_per_epoch)
        generator = stage_generator(self.config.seed, f"round {epoch}")
        order = torch.randperm(len(self.examples), generator=generator).tolist()
        size, pool = self.config.batch, POOL * self.config.batch
        pools = [sorted(order[i : i + pool], key=lambda index: self._crop_frames(self.examples[index]))
                 for i in range(0, len(order), pool)]  # fmt: skip
        by_length = [index for pool in pools for index in pool]
        batches = [by_length[i : i + size] for i in range(0, len(by_length), size)]
        turn = torch.randperm(len(batches), generator=generator)
        return [self.examples[index] for index in batches[int(turn[place])]]

    def _crop_frames(self, example: Example) -> int:
        return min(example.frames, self.longest_crop)

    def batch(self, number: int, device: torch.device, dtype: torch.dtype) -> Batch:
        """Return the batch of pass `number`. Draws are made on the CPU, so that every device gets the same."""
        generator = stage_generator(self.config.seed, f"pass {number}")
        clean, conditions = [], []
        for example in self.examples_of(number):
            frames = self._crop_frames(example)
            start = int(torch.randint(example.frames - frames + 1, (1,), generator=generator))
            clean.append(example.latents(start, frames))
            is_dropped = torch.rand(1, generator=generator) < CONDITION_DROPOUT
            conditions.append(self.unconditional if is_dropped else example.condition)
        x = pad_sequence(clean, batch_first=True)
        times = self._times(len(clean), generator)
        noise = torch.randn(x.shape, generator=generator)
        keep = padding_mask(clean)
        silence = codec.repeat_silence(self.silence, x.shape[1])
        states = pad_sequence(conditions, batch_first=True).to(device, dtype)
        token_keep = padding_mask(conditions)
        return Batch(
            noisy=solvers.add_noise(x, noise, times).to(device, dtype),
            times=times.to(device),
            velocity=solvers.velocity(x, noise).to(device),
            context=torch.cat((silence, torch.ones_like(silence)), dim=-1).to(device, dtype),
            condition=Condition(states, None if token_keep is None else token_keep.to(device)),
            keep=None if keep is None else keep.to(device),
        )

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        if self.config.times == "turbo":
            steps = torch.tensor(solvers.timestep_schedule(TURBO_STEPS, TURBO_SHIFT)[:-1])
            return steps[torch.randint(len(steps), (count,), generator=generator)]
        return solvers.training_times(torch.randn(count, 2, generator=generator))


def padding_mask(sequences: Sequence[Tensor]) -> Tensor | None:
    """Return a mask [B, N], true at the real elements of a padded batch of sequences [N, …]; None where all are."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    longest = int(lengths.max())
    return None if bool((lengths == longest).all()) else torch.arange(longest) < lengths[:, None]


@torch.no_grad()
def prepare_examples(
    weights: WeightStore,
    sizes: Sizes,
    silence: Tensor,
    dataset: Dataset,
    songs: Sequence[UsableSong],
    config: TrainingConfig,
    warn: Say,
) -> TrainingSet:
    """Encode the songs of a data set, with the networks that `weights` lends one after another."""
    longest = sizes.vae.latent_frames(config.crop)
    recordings = encode_recordings(weights, sizes, songs, own_timbre=config.timbre == "own")
    # The prompts of a render of the crop's length.
    prompts = [dataset.prompts(usable.song, min(usable.facts.seconds, config.crop)) for usable in songs]
    texts = encode_texts(weights, prompts, warn)
    examples = []
    with weights.dit() as model:
        silent_timbre = codec.repeat_silence(silence, model.config.timbre_fix_frame)
        for number, (usable, recording, text) in enumerate(zip(songs, recordings, texts, strict=True)):
            weights.report("condition", number, len(songs))
            with open_tensors(recording) as latents, open_tensors(text) as states:
                frames = latents.get_slice("latents").get_shape()[0]
                timbre = latents.get_tensor("timbre")[None] if config.timbre == "own" else silent_timbre
                inputs = [states.get_tensor("text"), states.get_tensor("lyrics"), timbre]
            condition = model.encoder(*(tensor.to(weights.device, weights.dtype) for tensor in inputs)).states[0]
            examples.append(Example(usable.song.name, recording, frames, condition.cpu()))
        weights.report("condition", len(songs), len(songs))
        unconditional = model.null_condition_emb[0].cpu()
    return TrainingSet(tuple(examples), silence, unconditional, config, longest)


def encode_recordings(
    weights: WeightStore, sizes: Sizes, songs: Sequence[UsableSong], *, own_timbre: bool
) -> list[Path]:
    """Return a file of latents [T, C] for each recording, and make those that are missing; with `own_timbre` it also
    has the latents [F, C] of parts of the recording as its reference.
    """
    settings = (songs, weights.checkpoint, weights.plan, sizes.dit.timbre_fix_frame if own_timbre else 0)
    missing = missing_latents(*settings)
    for done, (usable, file) in enumerate(missing):
        with weights.vae() as vae:
            weights.report("encode", done, len(missing))
            waveform = conditioning.load_waveform(str(usable.song.path), sizes.vae.sampling_rate)
            tile = weights.plan.tile_frames
            tensors = {"latents": codec.encode_waveform(vae, waveform, tile, lambda done, of: None)}
            if own_timbre:
                samples = sizes.dit.timbre_fix_frame * sizes.vae.hop
                windows = conditioning.window_per_third(waveform, samples, 0, usable.facts.fingerprint)
                tensors["timbre"] = codec.encode_waveform(vae, windows, tile, lambda done, of: None)
            save_example(file, tensors)
            del waveform
            weights.trim_memory()
    if missing:
        weights.report("encode", len(missing), len(missing))
    return [file for _, file in latents_files(*settings)]


def encode_texts(weights: WeightStore, texts: Sequence[tuple[str, str]], warn: Say) -> list[Path]:
    """Return a file of text states [1, Lt, width] and lyric embeddings [1, Ll, width] for each pair of prompts, and
    make those that are missing.
    """
    checkpoint = weights.checkpoint
    model = checkpoint.text
    network = weight_files.weights_hash(
        [model / "config.json", *weight_files.weight_files(model), checkpoint.tokenizer]
    )
    files = [cache_file(f"{network} {weights.dtype} {text} {lyrics}") for text, lyrics in texts]
    missing = [(pair, file) for pair, file in zip(texts, files, strict=True) if not has_tensors(file, TEXT_TENSORS)]
    for done, ((text, lyrics), file) in enumerate(missing):
        with weights.text_encoder() as encoder:
            weights.report("text", done, len(missing))
            save_example(file, {"text": encoder.hidden_states(text, warn), "lyrics": encoder.embeddings(lyrics, warn)})
    if missing:
        weights.report("text", len(missing), len(missing))
    return files


def save_example(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors whole or not at all. `OutputError` where there is no room."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk.write_error(file.parent, error) from error
    with disk.write_whole(file, replace=[file]) as [part]:
        tensor_file.save_tensors(part, tensors)
