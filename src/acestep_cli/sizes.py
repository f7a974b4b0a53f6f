"""Sizes of a checkpoint's networks, read and checked; nothing else in the engine knows a number.

Keys and defaults: `dit.md` 1.2 of the specification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from acestep_cli.errors import CheckpointError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RESIDUAL_DILATIONS = (1, 3, 9)
RESIDUAL_KERNEL = 7

C = TypeVar("C", bound="DataclassInstance")
LayerType = Literal["sliding_attention", "full_attention"]


class AttentionSize(NamedTuple):
    """What shapes one attention."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    bias: bool


@dataclass(frozen=True)
class DiTConfig:
    """`config.json` of a DiT folder under its published keys; encoder sizes default to the decoder's."""

    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt
    layer_types: tuple[LayerType, ...]
    in_channels: PositiveInt
    audio_acoustic_hidden_dim: PositiveInt
    text_hidden_dim: PositiveInt
    timbre_hidden_dim: PositiveInt
    fsq_dim: PositiveInt
    fsq_input_levels: tuple[Annotated[int, Field(ge=2)], ...]
    num_lyric_encoder_hidden_layers: PositiveInt
    num_timbre_encoder_hidden_layers: PositiveInt
    num_attention_pooler_hidden_layers: PositiveInt
    encoder_hidden_size: PositiveInt
    encoder_intermediate_size: PositiveInt
    encoder_num_attention_heads: PositiveInt
    encoder_num_key_value_heads: PositiveInt
    pool_window_size: PositiveInt = 5
    patch_size: PositiveInt = 2
    timbre_fix_frame: PositiveInt = 750
    sliding_window: PositiveInt = 128
    use_sliding_window: bool = True
    rope_theta: PositiveFloat = 1e6
    rms_norm_eps: PositiveFloat = 1e-6
    attention_bias: bool = False
    hidden_act: Literal["silu"] = "silu"
    fsq_input_num_quantizers: Literal[1] = 1

    @model_validator(mode="after")
    def _fit_together(self) -> DiTConfig:
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.layer_types)} of {self.num_hidden_layers} layers")
        if self.in_channels != 3 * self.audio_acoustic_hidden_dim:
            raise ValueError("in_channels is not three times audio_acoustic_hidden_dim: source, mask and noise")
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> DiTConfig:
        """Read the published keys; keys this engine has no use for are passed over.

        Raises `CheckpointError` for keys that are missing, are no sizes, or ask for a variant that no published
        checkpoint has and this engine does not run.
        """
        found = {key: value for key, value in values.items() if value is not None}
        for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
            if key in found:
                found.setdefault(f"encoder_{key}", found[key])
        rope = found.get("rope_parameters")  # where newer writers put it
        if isinstance(rope, Mapping) and "rope_theta" in rope:
            found.setdefault("rope_theta", rope["rope_theta"])
        if isinstance(layers := found.get("num_hidden_layers"), int):
            found.setdefault("layer_types", [layer_type(i) for i in range(layers)])
        return checked(cls, found, where)

    @property
    def is_xl(self) -> bool:
        """XL checkpoints keep a narrower encoder, and alone read the timbre from a prepended token."""
        return self.encoder_hidden_size != self.hidden_size

    @property
    def latent_channels(self) -> int:
        return self.audio_acoustic_hidden_dim

    @property
    def decoder_attention(self) -> AttentionSize:
        return self._attention(self.hidden_size, self.num_attention_heads, self.num_key_value_heads)

    @property
    def encoder_attention(self) -> AttentionSize:
        return self._attention(
            self.encoder_hidden_size, self.encoder_num_attention_heads, self.encoder_num_key_value_heads
        )

    def _attention(self, width: int, heads: int, kv_heads: int) -> AttentionSize:
        return AttentionSize(width, heads, kv_heads, self.head_dim, self.rms_norm_eps, self.attention_bias)

    def is_banded(self, layer: int) -> bool:
        """Whether layer `layer` of the DiT attends within the band only."""
        return self.use_sliding_window and self.layer_types[layer] == "sliding_attention"

    def is_banded_encoder(self, layer: int) -> bool:
        """The encoders alternate by the same rule and have no list of their own."""
        return self.use_sliding_window and layer_type(layer) == "sliding_attention"


@dataclass(frozen=True)
class VAEConfig:
    """The checkpoint's `vae/config.json`, less what does not shape the network."""

    encoder_hidden_size: PositiveInt = 128
    downsampling_ratios: tuple[PositiveInt, ...] = (2, 4, 4, 6, 10)
    channel_multiples: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)
    decoder_channels: PositiveInt = 128
    decoder_input_channels: PositiveInt = 64
    audio_channels: PositiveInt = 2
    sampling_rate: PositiveInt = 48_000

    @model_validator(mode="after")
    def _fit_together(self) -> VAEConfig:
        if len(self.downsampling_ratios) != len(self.channel_multiples):
            raise ValueError("downsampling_ratios and channel_multiples are of different lengths")
        if any(ratio % 2 for ratio in self.downsampling_ratios):
            raise ValueError("an odd downsampling ratio loses a sample at each end, and tiles would not join")
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "vae/config.json") -> VAEConfig:
        """Read the published keys; `CheckpointError` names those that do not fit."""
        return checked(cls, values, where)

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.downsampling_ratios)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Width multipliers at each resolution, waveform side first."""
        return (1, *self.channel_multiples)


def layer_type(layer: int) -> LayerType:
    """The published alternation: even layers slide, odd ones see everything."""
    return "sliding_attention" if layer % 2 == 0 else "full_attention"


def checked(kind: type[C], values: Mapping[str, Any], where: str) -> C:
    """`values` as a config of `kind`; `CheckpointError` names every key that does not fit."""
    names = {field.name for field in fields(kind)}
    try:
        return kind(**{key: value for key, value in values.items() if key in names})
    except ValidationError as error:
        problems = [": ".join([*map(str, found["loc"]), found["msg"]]) for found in error.errors()]
        raise CheckpointError(
            f"{where} does not describe a model this engine can run. {'; '.join(problems)}.",
            "Download that folder again, or choose another checkpoint.",
        ) from error


def encoder_reach(config: VAEConfig) -> int:
    """Latent frames on either side that one latent of the encoder depends on, rounded up."""
    reach, step = 3.0, 1  # in samples: the first convolution looks 3 samples either way
    for stride in config.downsampling_ratios:
        reach += sum(dilation * (RESIDUAL_KERNEL // 2) for dilation in RESIDUAL_DILATIONS) * step
        reach += (1.5 * stride) * step
        step *= stride
    return math.ceil((reach + step) / step)


def decoder_reach(config: VAEConfig) -> int:
    """Latent frames on either side that one sample of the decoder depends on, rounded up."""
    reach, step = 3.0, 1  # backwards from the last convolution
    for stride in config.downsampling_ratios:
        reach += sum(dilation * (RESIDUAL_KERNEL // 2) for dilation in RESIDUAL_DILATIONS) * step
        step *= stride
        reach += step
    return math.ceil((reach + 3 * step) / step)
