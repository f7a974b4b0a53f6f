"""What an adapter is trained on: songs as latents and conditions, made once by the networks and templates of a render.

Latents and words are kept in files under the hash of what they are made of, so a run that was stopped goes on where it
was, and another course finds them ready. One song's sound is in memory at a time.

Shapes: C latent channels, T latent frames, E encoder width, L tokens of a condition, B songs of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from acestep_cli import cache, disk, solvers
from acestep_cli.engine import codec, conditioning, tensor_file
from acestep_cli.engine.denoise import stage_generator
from acestep_cli.engine.dit import Condition
from acestep_cli.engine.weights import WeightStore
from acestep_cli.models import weight_files
from acestep_cli.models.sizes import Sizes
from acestep_cli.models.tensor_file import has_tensors
from acestep_cli.progress import Say
from acestep_cli.training.config import CONDITION_DROPOUT, TrainingConfig
from acestep_cli.training.dataset import Dataset, UsableSong

#: So many batches' worth of songs are shuffled before they are put beside others of their length.
POOL = 8
#: The schedule that the turbo models were distilled for.
TURBO_STEPS, TURBO_SHIFT = 8, 3.0

#: The tensors in a file of words.
TEXT_TENSORS = {"text", "lyrics"}


def examples_folder() -> Path:
    """Where what was made of songs is kept for the next run: beside what renders keep, and never pruned with it."""
    return cache.folder() / "lessons"


class Batch(NamedTuple):
    """One pass: noisy latents [B, T, C] at times [B], the velocities they are to be given, and what is listened to.

    `keep` [B, T] is true at real frames; None where all are.
    """

    noisy: Tensor
    times: Tensor
    velocity: Tensor
    context: Tensor
    condition: Condition
    keep: Tensor | None


@dataclass(frozen=True)
class Example:
    """One song, ready: where its latents are, how many frames they have, and its condition [L, E] on the CPU."""

    name: str
    file: Path
    frames: int
    condition: Tensor

    def latents(self, start: int, frames: int) -> Tensor:
        """`frames` of its latents, [T, C], float32; the rest stays in the file."""
        with safe_open(self.file, framework="pt") as opened:
            return opened.get_slice("latents")[start : start + frames]


@dataclass(frozen=True)
class TrainingSet:
    """All songs, and in which order they are gone through. Everything in it follows from the course's seed and the
    number of a pass, so that a run that goes on draws what it would have drawn.
    """

    examples: tuple[Example, ...]
    silence: Tensor  # [1, F, C]
    unconditional: Tensor  # [1, E]
    config: TrainingConfig
    #: The most frames that a pass has of one song.
    longest_crop: int

    @cached_property
    def _batches_per_epoch(self) -> int:
        """How many make a round through all songs."""
        return -(-len(self.examples) // self.config.batch)

    def examples_of(self, number: int) -> list[Example]:
        """Those of pass `number`: each round goes through all of them, in an order of its own."""
        round_, place = divmod(number, self._batches_per_epoch)
        generator = stage_generator(self.config.seed, f"round {round_}")
        order = torch.randperm(len(self.examples), generator=generator).tolist()
        size, pool = self.config.batch, POOL * self.config.batch
        pools = [sorted(order[i : i + pool], key=lambda page: self._crop_frames(self.examples[page]))
                 for i in range(0, len(order), pool)]  # fmt: skip
        alike = [page for pool in pools for page in pool]
        batches = [alike[i : i + size] for i in range(0, len(alike), size)]
        turn = torch.randperm(len(batches), generator=generator)
        return [self.examples[page] for page in batches[int(turn[place])]]

    def _crop_frames(self, example: Example) -> int:
        return min(example.frames, self.longest_crop)

    def batch(self, number: int, device: torch.device, dtype: torch.dtype) -> Batch:
        """Pass `number`. Draws are made on the CPU, so that every device is taught alike."""
        generator = stage_generator(self.config.seed, f"pass {number}")
        clean, conditions = [], []
        for page in self.examples_of(number):
            frames = self._crop_frames(page)
            start = int(torch.randint(page.frames - frames + 1, (1,), generator=generator))
            clean.append(page.latents(start, frames))
            unheard = torch.rand(1, generator=generator) < CONDITION_DROPOUT
            conditions.append(self.unconditional if unheard else page.condition)
        x = pad_sequence(clean, batch_first=True)
        times = self._times(len(clean), generator)
        noise = torch.randn(x.shape, generator=generator)
        keep = padding_mask(clean)
        silence = codec.repeat_silence(self.silence, x.shape[1])
        states = pad_sequence(conditions, batch_first=True).to(device, dtype)
        heard = padding_mask(conditions)
        return Batch(
            solvers.add_noise(x, noise, times).to(device, dtype),
            times.to(device),
            solvers.velocity(x, noise).to(device),
            torch.cat((silence, torch.ones_like(silence)), dim=-1).to(device, dtype),
            Condition(states, None if heard is None else heard.to(device)),
            None if keep is None else keep.to(device),
        )

    def _times(self, count: int, generator: torch.Generator) -> Tensor:
        if self.config.times == "turbo":
            steps = torch.tensor(solvers.timestep_schedule(TURBO_STEPS, TURBO_SHIFT)[:-1])
            return steps[torch.randint(len(steps), (count,), generator=generator)]
        return solvers.training_times(torch.randn(count, 2, generator=generator))


def padding_mask(sequences: Sequence[Tensor]) -> Tensor | None:
    """True where a padded batch of sequences [N, …] has real elements, [B, N]; None where all are real."""
    lengths = torch.tensor([len(one) for one in sequences])
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
    """Make the songs of a data set ready, with the networks that `weights` lends one after another."""
    longest = sizes.vae.latent_frames(config.crop)
    voices = encode_recordings(weights, sizes, songs, own_timbre=config.timbre == "own")
    # A render of the same length says the same: whole seconds of what it is given.
    texts = [dataset.prompts(one.song, min(one.facts.seconds, config.crop)) for one in songs]
    words = encode_texts(weights, texts, warn)
    examples = []
    with weights.dit() as model:
        quiet = codec.repeat_silence(silence, model.config.timbre_fix_frame)
        for number, (lesson, voice, spoken) in enumerate(zip(songs, voices, words, strict=True)):
            weights.report("condition", number, len(songs))
            with safe_open(voice, framework="pt") as heard, safe_open(spoken, framework="pt") as said:
                frames = heard.get_slice("latents").get_shape()[0]
                timbre = heard.get_tensor("timbre")[None] if config.timbre == "own" else quiet
                states = [said.get_tensor(name).to(weights.device, weights.dtype) for name in ("text", "lyrics")]
            condition = model.encoder(*states, timbre.to(weights.device, weights.dtype)).states[0]
            examples.append(Example(lesson.song.name, voice, frames, condition.cpu()))
        weights.report("condition", len(songs), len(songs))
        unconditional = model.null_condition_emb[0].cpu()
    return TrainingSet(tuple(examples), silence, unconditional, config, longest)


def encode_recordings(
    weights: WeightStore, sizes: Sizes, songs: Sequence[UsableSong], *, own_timbre: bool
) -> list[Path]:
    """The files of latents [T, C] of each recording; with `own_timbre`, of [frames, C] of it as a reference too."""
    kind = f"{weights.checkpoint.vae_hash()} {weights.vae_dtype} {sizes.dit.timbre_fix_frame if own_timbre else 0}"
    files = [cache_file(f"{one.facts.fingerprint} {kind}") for one in songs]
    wanted = {"latents", "timbre"} if own_timbre else {"latents"}
    missing = [(one, file) for one, file in zip(songs, files, strict=True) if not has_tensors(file, wanted)]
    for done, (lesson, file) in enumerate(missing):
        with weights.vae() as vae:
            weights.report("encode", done, len(missing))
            waveform = conditioning.load_waveform(str(lesson.song.path), sizes.vae.sampling_rate)
            tile = weights.plan.tile_frames
            tensors = {"latents": codec.encode_waveform(vae, waveform, tile, lambda done, of: None)}
            if own_timbre:
                samples = sizes.dit.timbre_fix_frame * sizes.vae.hop
                heard = conditioning.window_per_third(waveform, samples, 0, lesson.facts.fingerprint)
                tensors["timbre"] = codec.encode_waveform(vae, heard, tile, lambda done, of: None)
            save_example(file, tensors)
            del waveform
            weights.trim_memory()
    if missing:
        weights.report("encode", len(missing), len(missing))
    return files


def encode_texts(weights: WeightStore, texts: Sequence[tuple[str, str]], warn: Say) -> list[Path]:
    """The files of text states [1, L, width] and lyric embeddings [1, L, width] of each pair of prompts."""
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


def cache_file(what: str) -> Path:
    """The file for what is made of `what`."""
    return examples_folder() / f"{hashlib.sha256(what.encode(errors='surrogatepass')).hexdigest()[:32]}.safetensors"


def save_example(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors whole or not at all. `OutputError` where there is no room."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk.write_error(file.parent, error) from error
    with disk.write_whole(file, replace=[file]) as [part]:
        tensor_file.save_tensors(part, tensors)
