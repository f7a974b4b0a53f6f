"""Checkpoints of the published sizes whose files are holes, and renders of them on a card that holds no data.

The files have their whole length and take no room on the disk. What is read of them has a shape and a number format
alone, so a render counts its bytes in seconds, whatever its size.
"""

from __future__ import annotations

import json
import struct
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from acestep_cli.engine import songwriter, weights
from acestep_cli.engine.dit import AceStep, DecoderLayer, DiT
from acestep_cli.engine.encoder_layer import EncoderLayer
from acestep_cli.engine.kv_cache import KVCache
from acestep_cli.engine.oom_retry import OutOfMemoryRetry
from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.models.configs import QwenConfig, VAEConfig
from acestep_cli.models.sizes import PUBLISHED_2B, PUBLISHED_SONGWRITERS, PUBLISHED_TEXT, PUBLISHED_XL
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import songwriter_prompts
from acestep_cli.song.complete import Completed
from acestep_cli.song.prompts import END_OF_TEXT
from acestep_cli.song.request import Request
from support import paper_card
from support.paper_card import PaperCard

DIT = {"turbo": PUBLISHED_2B, "base": PUBLISHED_2B, "xl-turbo": PUBLISHED_XL, "xl-base": PUBLISHED_XL}
SILENCE_FRAMES = 1500
#: Steps at either end of a long chain of tokens, of which those between them take less memory than the last; tiles of
#: one shape; and layers of one pass, among them one with a band and one without.
STEPS_TAKEN, TILES_TAKEN, LAYERS_TAKEN = 2, 2, 4


def write_checkpoint(root: Path, name: str = "turbo") -> Checkpoint:
    """Write a checkpoint of the published size, one of `DIT`."""
    dit, vae = DIT[name], VAEConfig()
    with torch.device("meta"):
        model, autoencoder = AceStep(dit), OobleckVAE(vae)
    row = checkpoint_table.CHECKPOINTS[name]
    folder, version = root / row.folder, name.removeprefix("xl-")
    config = {**asdict(dit), "model_type": "acestep", "is_turbo": row.turbo, "model_version": version}
    write_hole(folder / "model.safetensors", model.state_dict())
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(torch.zeros(1, dit.latent_channels, SILENCE_FRAMES), folder / "silence_latent.pt")
    write_hole(root / "vae" / "diffusion_pytorch_model.safetensors", autoencoder.state_dict())
    (root / "vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderOobleck", **asdict(vae)}))
    write_qwen3(root / "Qwen3-Embedding-0.6B", PUBLISHED_TEXT)
    write_tokenizer(root / "Qwen3-Embedding-0.6B" / "tokenizer.json", closing=True)
    return checkpoints.find_checkpoint(name, root)


def write_songwriter(root: Path, name: str) -> Songwriter:
    """Write a Songwriter of the published size."""
    folder, config = root / f"acestep-5Hz-lm-{name}", PUBLISHED_SONGWRITERS[name]
    write_qwen3(folder, config, tie_word_embeddings=True)
    write_tokenizer(folder / "tokenizer.json", closing=False, tokens=config.vocab_size)
    return Songwriter(name, folder)


def write_qwen3(folder: Path, size: QwenConfig, **more: Any) -> None:
    content = {name: value for name, value in asdict(size).items() if value != ()} | {"model_type": "qwen3", **more}
    with torch.device("meta"):
        model = Qwen3Model(Qwen3Config(**content))
    write_hole(folder / "model.safetensors", model.state_dict())
    (folder / "config.json").write_text(json.dumps(content))


def write_hole(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file of bfloat16 tensors of these shapes, whose data is a hole."""
    header, end = dict[str, Any](), 0
    for name, tensor in tensors.items():
        size = 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        opened.truncate(8 + len(text) + end)


def write_tokenizer(file: Path, *, closing: bool, tokens: int | None = None) -> None:
    """Write a byte-level tokenizer that knows the words of the prompts: one that closes them, or one with codes."""
    marks = [END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    song = Request(caption="la la la", lyrics="la la la", language="en", bpm=90, key="A minor", duration=60)
    thought = songwriter_prompts.dump_thought(songwriter_prompts.known_metadata(song))
    texts = [songwriter_prompts.metadata_task(song, (), (10, 600)).prompt, songwriter_prompts.unguided_prompt(None)]
    made.train_from_iterator([*texts, thought] * 2, trainer)
    if closing:
        end = (END_OF_TEXT, made.token_to_id(END_OF_TEXT))
        made.post_processor = processors.TemplateProcessing(single=f"$A {END_OF_TEXT}", special_tokens=[end])
    content = json.loads(made.to_str())
    if tokens is not None:
        mark = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        first, codes = made.get_vocab_size(), 64_000
        content["added_tokens"] += [
            {"id": first + code, "content": f"<|audio_code_{code}|>", **mark} for code in range(codes)
        ]
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


class HollowFile:
    """A safetensors file whose tensors have no data."""

    def __init__(self, file: Path) -> None:
        self.opened = safe_open(file, framework="pt")

    def __enter__(self) -> HollowFile:
        self.opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.opened.__exit__(*error)

    def keys(self) -> Any:
        return self.opened.keys()

    def get_tensor(self, name: str) -> Tensor:
        return paper_card.current_machine().hollow(self.opened.get_slice(name).get_shape(), torch.bfloat16)


@dataclass
class Counted:
    """The peak of device memory in each stage of a render, in bytes, that of page-locked memory, the plan, and the
    latent frames of each forward pass through the diffusion transformer.
    """

    stages: dict[str, int] = field(default_factory=dict)
    pinned: int = 0
    passes: list[int] = field(default_factory=list)
    plan: Plan | None = None

    @property
    def peak(self) -> int:
        return max(self.stages.values())


@contextmanager
def counting(card: PaperCard, counted: Counted) -> Iterator[None]:
    """Record the peak of each stage, and every forward pass."""
    run, evict, forward = OutOfMemoryRetry.__call__, weights.WeightStore._evict, DiT.forward

    def recorded(self: Any, stage: str, *args: Any, **kwargs: Any) -> Any:
        card.reset_peak()
        try:
            return run(self, stage, *args, **kwargs)
        finally:
            counted.stages[stage] = max(counted.stages.get(stage, 0), card.peak_bytes)
            counted.pinned = max(counted.pinned, card.pinned_bytes)

    def passed(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        counted.passes.append(x.shape[1])
        return forward(self, x, *args, **kwargs)

    def evicted(self: Any, names: Any) -> None:
        evict(self, names)
        card.reset_peak()  # what left was counted in the stage that used it

    with (
        mock.patch.object(OutOfMemoryRetry, "__call__", recorded),
        mock.patch.object(weights.WeightStore, "_evict", evicted),
        mock.patch.object(DiT, "forward", passed),
    ):
        yield


def first_layers(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the forward pass of a layer that only the first layers of a stack do: all take the same memory."""
    last, taken = None, 0

    def passed(self: Any, x: Tensor, *args: Any) -> Tensor:
        nonlocal last, taken
        taken = taken + 1 if last is not None and last() is x else 1
        result = x if taken > LAYERS_TAKEN else forward(self, x, *args)
        last = weakref.ref(result)
        return result

    return passed


@contextmanager
def skipping_repeats() -> Iterator[None]:
    """Take the first and last steps of a chain of tokens alone, and the first tiles of one shape and layers of one
    pass.
    """
    step, encode, decode = KVCache.step, OobleckVAE.encode, OobleckVAE.decode
    tiles = Counter[int]()

    def encoded(self: Any, waveform: Tensor) -> Tensor:
        samples = waveform.shape[2]
        tiles[samples] += 1
        if tiles[samples] > TILES_TAKEN:
            return torch.zeros(waveform.shape[0], self.config.decoder_input_channels, samples // self.config.hop)
        return encode(self, waveform)

    def decoded(self: Any, latents: Tensor) -> Tensor:
        frames = latents.shape[2]
        tiles[frames] += 1
        if tiles[frames] > TILES_TAKEN:
            return torch.zeros(latents.shape[0], self.config.audio_channels, frames * self.config.hop)
        return decode(self, latents)

    def taken(self: Any, tokens: Any) -> Tensor:
        done, capacity = getattr(self, "steps", 0), self._buffer.shape[4]
        self.steps = done + 1
        if done < STEPS_TAKEN or self.length >= capacity - STEPS_TAKEN - 1 or len(tokens[0]) > 1:
            self.last = step(self, tokens)
        else:
            self.length += 1
        return self.last

    with (
        mock.patch.object(DecoderLayer, "forward", first_layers(DecoderLayer.forward)),
        mock.patch.object(EncoderLayer, "forward", first_layers(EncoderLayer.forward)),
        mock.patch.object(KVCache, "step", taken),
        mock.patch.object(OobleckVAE, "encode", encoded),
        mock.patch.object(OobleckVAE, "decode", decoded),
        mock.patch.object(songwriter, "sample_token", return_value=0),
    ):
        yield


def count_render(
    checkpoint: Checkpoint, request: Completed, plan: Plan, card: PaperCard, helper: Songwriter | None = None
) -> Counted:
    """Render `request` on `card`, which holds no data, and count."""
    counted = Counted()
    assert not card.data
    with (
        paper_card.installed(card),
        mock.patch.object(weights, "open_tensors", HollowFile),
        counting(card, counted),
        skipping_repeats(),
    ):
        for take in Pipeline(checkpoint, plan, helper).run([request], lambda *_: None):
            counted.plan = take.plan
    return counted
