"""A checkpoint or a Songwriter on this machine: its folders, files, sizes and hash, in either layout.

Layouts: docs/specification.md, 2 Checkpoints and files. Only headers are read; `engine.weights` loads the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from acestep_cli.errors import CheckpointError
from acestep_cli.models import weight_files
from acestep_cli.models.checkpoint_table import PUBLISHED_LEVELS, CheckpointRow, ModelPart
from acestep_cli.models.weight_shards import SILENCE, Shard, weight_shards

#: Where diffusers keeps the parts of the DiT: the class in each folder, and how its published names begin.
DIFFUSERS_DIT = {
    "transformer": ("AceStepTransformer1DModel", "decoder."),
    "condition_encoder": ("AceStepConditionEncoder", "encoder."),
    "audio_tokenizer": ("AceStepAudioTokenizer", "tokenizer."),
    "audio_token_detokenizer": ("AceStepAudioTokenDetokenizer", "detokenizer."),
}
#: Keys that each of diffusers' parts has for itself, and a published config twice: for the decoder and the encoders.
TWO_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
#: Bounds of a quantizer that is read, far above the published one.
MOST_LEVELS, LARGEST_LEVEL = 32, 65_536


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint found on this machine, its files checked as far as headers tell."""

    name: str
    row: CheckpointRow
    dit: Path
    vae: Path
    text: Path

    @property
    def config_file(self) -> Path:
        return self.dit / "config.json"

    @property
    def silence_file(self) -> Path:
        """The file of the silence latent: a pickled tensor [1, C, frames], or in diffusers' layout a shard."""
        return self.dit / "silence_latent.pt"

    @property
    def tokenizer(self) -> Path:
        return self.text / "tokenizer.json"

    @property
    def dit_shards(self) -> list[Shard]:
        return weight_shards(self.dit)

    @property
    def files(self) -> list[Path]:
        """All files that shape the samples. Raises `CheckpointError` where an index of shards names nothing."""
        small = {self.dit: [self.config_file, self.silence_file], self.vae: [self.vae / "config.json"],
                 self.text: [self.text / "config.json", self.tokenizer]}  # fmt: skip
        return [file for folder, needed in small.items() for file in (*needed, *weight_files.weight_files(folder))]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The sizes of the DiT under their published keys."""
        return weight_files.read_json(self.config_file)

    @cached_property
    def vae_config(self) -> dict[str, Any]:
        return weight_files.read_json(self.vae / "config.json")

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """The levels of the quantizer, which define the codebook; empty where the config does not say."""
        return _levels(self.config.get("fsq_input_levels") or (), self.config_file)

    @property
    def code_count(self) -> int | None:
        """The number of audio codes; None where the config does not say."""
        return math.prod(self.levels) if self.levels else None

    @property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        """Heads of the DiT's cross-attention that follow the lyrics, as (layer, head): those its config names, else
        those of its row. `CheckpointError` where the DiT has no such heads.
        """
        named = self.config.get("lyric_alignment_layers_config")
        if named is None:
            heads = self.row.alignment_heads
        else:
            try:
                heads = tuple((int(layer), int(head)) for layer, own in named.items() for head in own)
            except (AttributeError, OverflowError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"{self.config_file} names no heads in lyric_alignment_layers_config ({error}).",
                    "Download that file again.",
                ) from error
        sizes = [self.config.get(key) or 0 for key in ("num_hidden_layers", "num_attention_heads")]
        if any(type(size) is not int for size in sizes):
            raise CheckpointError(
                f"{self.config_file}: num_hidden_layers or num_attention_heads is not a whole number.",
                "Download that file again.",
            )
        for layer, head in heads:
            if not (0 <= layer < sizes[0] and 0 <= head < sizes[1]):
                raise CheckpointError(
                    f"{self.dit} has no alignment head {head} in layer {layer}: it has {sizes[0]} layers of {sizes[1]} "
                    "heads.",
                    f"Name those it has in {self.config_file}, as lyric_alignment_layers_config.",
                )
        return heads

    @cached_property
    def weights_hash(self) -> str:
        """The hash of all files that shape the samples.

        Reading 10 GB to name a model would take longer than some renders; training moves every tensor,
        so blocks across the file tell two checkpoints apart.
        """
        return weight_files.weights_hash(self.files)

    @cached_property
    def vae_hash(self) -> str:
        """The hash of the weights of the VAE, because latents belong to one VAE."""
        return weight_files.weights_hash(weight_files.weight_files(self.vae))


@dataclass(frozen=True)
class DiffusersCheckpoint(Checkpoint):
    """A checkpoint in diffusers' layout: the same tensors under other names. `dit` is the folder of the pipeline."""

    @property
    def config_file(self) -> Path:
        return self.dit / "transformer" / "config.json"

    @property
    def silence_file(self) -> Path:
        folder = self.dit / "condition_encoder"
        found = next(
            (file for file in weight_files.weight_files(folder) if SILENCE in weight_files.read_header(file)), None
        )
        if found is None:
            raise CheckpointError(
                f"{folder} lacks the tensor {SILENCE}, so the checkpoint is incomplete.", "Download that folder again."
            )
        return found

    @property
    def tokenizer(self) -> Path:
        return self.dit / "tokenizer" / "tokenizer.json"

    @property
    def dit_shards(self) -> list[Shard]:
        return [
            shard for folder, (_, prefix) in DIFFUSERS_DIT.items() for shard in weight_shards(self.dit / folder, prefix)
        ]

    @property
    def files(self) -> list[Path]:
        folders = [*(self.dit / name for name in DIFFUSERS_DIT), self.vae, self.text]
        return [
            *(file for folder in folders for file in (folder / "config.json", *weight_files.weight_files(folder))),
            self.tokenizer,
        ]

    @cached_property
    def config(self) -> dict[str, Any]:
        decoder, encoder, tokenizer = (
            weight_files.read_json(self.dit / folder / "config.json")
            for folder in ("transformer", "condition_encoder", "audio_tokenizer")
        )
        encoder_sizes = {f"encoder_{key}": encoder.get(key) for key in TWO_SIZES}
        return {**tokenizer, **encoder, **decoder, **encoder_sizes}


@dataclass(frozen=True)
class Unpulled(Checkpoint):
    """A checkpoint of the table whose `lacking` parts are not downloaded. Its folders are where they will be."""

    lacking: tuple[ModelPart, ...] = ()

    @cached_property
    def levels(self) -> tuple[int, ...]:
        return PUBLISHED_LEVELS

    @property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        return self.row.alignment_heads

    @cached_property
    def weights_hash(self) -> str:
        """An empty string, because there are no weights to hash."""
        return ""

    @cached_property
    def vae_hash(self) -> str:
        """An empty string, because there are no weights to hash."""
        return ""


@dataclass(frozen=True)
class Songwriter:
    """A Songwriter found on this machine, its files checked as far as headers tell."""

    name: str
    folder: Path

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """The quantizer levels of the codebook that its codes are from."""
        file = self.folder / "config.json"
        return _levels(weight_files.read_json(file).get("fsq_input_levels", PUBLISHED_LEVELS), file)

    @cached_property
    def weights_hash(self) -> str:
        """The hash of all files that shape its output."""
        small = [self.folder / name for name in ("config.json", "tokenizer.json")]
        return weight_files.weights_hash([*small, *weight_files.weight_files(self.folder)])

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Return True where its codes are of the same codebook as those of `checkpoint`."""
        return self.levels == checkpoint.levels


class UnpulledSongwriter(Songwriter):
    """A Songwriter of the table that is not downloaded. Its folder is where it will be."""

    @cached_property
    def levels(self) -> tuple[int, ...]:
        return PUBLISHED_LEVELS

    @cached_property
    def weights_hash(self) -> str:
        """An empty string, because there are no weights to hash."""
        return ""


def _levels(found: Any, file: Path) -> tuple[int, ...]:
    """Check the quantizer levels of a config. Raises `CheckpointError` unless they are a few integers from 2 on."""
    usable = isinstance(found, list | tuple) and len(found) <= MOST_LEVELS
    if not usable or any(type(level) is not int or not 2 <= level <= LARGEST_LEVEL for level in found):
        raise CheckpointError(
            f"{file}: fsq_input_levels is {found!r:.60}, which is not a list of levels.", "Download it again."
        )
    return tuple(found)
