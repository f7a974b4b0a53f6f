"""Configs of a checkpoint's networks, read and checked. No other module of the engine has a size of its own.

Keys and defaults: docs/specification.md, 2.2 DiT config, 2.4 Autoencoder config and 2.5 Qwen3 configs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from acestep_cli.errors import CheckpointError
from acestep_cli.solvers import SHORTEST_FRAMES, duration_frames, duration_samples

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TIME_FREQUENCIES = 256
#: Of one latent frame; a published one has 1,920.
MOST_SAMPLES_PER_FRAME = 65_536
#: More layers than any model has that could be read here; a crafted config would else keep the program busy.
MOST_LAYERS = 256
#: Of those that an audio code each stands for: about as many tokens as a condition has.
WINDOWS_AT_ONCE = 256
RESIDUAL_DILATIONS = (1, 3, 9)
RESIDUAL_KERNEL = 7
#: Places on either side that the output of three residual units depends on.
RESIDUAL_REACH = sum(dilation * (RESIDUAL_KERNEL // 2) for dilation in RESIDUAL_DILATIONS)

C = TypeVar("C", bound="DataclassInstance")
LayerCount = Annotated[int, Field(strict=True, ge=1, le=MOST_LAYERS)]
#: Bounds far above any published model, and low enough that what is computed of them stays a number of 64 bits.
Width = Annotated[int, Field(strict=True, ge=1, le=65_536)]
HeadCount = Annotated[int, Field(strict=True, ge=1, le=1024)]
#: Even, since rotary embeddings turn pairs.
HeadDim = Annotated[int, Field(strict=True, ge=2, le=4096, multiple_of=2)]
FrameCount = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
VocabularySize = Annotated[int, Field(strict=True, ge=1, le=4_194_304)]
Ratio = Annotated[int, Field(strict=True, ge=1, le=1024)]
RopeTheta = Annotated[float, Field(strict=True, ge=1, le=1e12)]
NormEps = Annotated[float, Field(strict=True, ge=1e-12, le=1)]
LayerType = Literal["sliding_attention", "full_attention"]


class AttentionSize(NamedTuple):
    """The sizes of one attention layer."""

    width: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    bias: bool

    @property
    def matrix_parameters(self) -> int:
        """Weights of the four projections."""
        return 2 * self.width * self.head_dim * (self.heads + self.kv_heads)

    @property
    def parameters(self) -> int:
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) + self.width
        return self.matrix_parameters + 2 * self.head_dim + (biases if self.bias else 0)


@dataclass(frozen=True)
class DiTConfig:
    """`config.json` of a DiT folder under its published keys; encoder sizes default to the decoder's."""

    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: LayerCount
    num_attention_heads: HeadCount
    num_key_value_heads: HeadCount
    head_dim: HeadDim
    layer_types: tuple[LayerType, ...]
    in_channels: Width
    audio_acoustic_hidden_dim: Width
    text_hidden_dim: Width
    timbre_hidden_dim: Width
    fsq_dim: Width
    fsq_input_levels: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=2, le=65_536)], ...], Field(min_length=1, max_length=32)
    ]
    num_lyric_encoder_hidden_layers: LayerCount
    num_timbre_encoder_hidden_layers: LayerCount
    num_attention_pooler_hidden_layers: LayerCount
    encoder_hidden_size: Width
    encoder_intermediate_size: Width
    encoder_num_attention_heads: HeadCount
    encoder_num_key_value_heads: HeadCount
    pool_window_size: Ratio = 5
    patch_size: Ratio = 2
    timbre_fix_frame: FrameCount = 750
    sliding_window: FrameCount = 128
    use_sliding_window: bool = True
    rope_theta: RopeTheta = 1e6
    rms_norm_eps: NormEps = 1e-6
    attention_bias: bool = False
    hidden_act: Literal["silu"] = "silu"
    fsq_input_num_quantizers: Literal[1] = 1

    @model_validator(mode="after")
    def _fit_together(self) -> DiTConfig:
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.layer_types)} of {self.num_hidden_layers} layers")
        if self.in_channels != 3 * self.audio_acoustic_hidden_dim:
            raise ValueError("in_channels is not three times audio_acoustic_hidden_dim: source, mask and noise")
        _require_groups(self.num_attention_heads, self.num_key_value_heads)
        _require_groups(self.encoder_num_attention_heads, self.encoder_num_key_value_heads)
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
        layers = found.get("num_hidden_layers")
        if isinstance(layers, int) and layers <= MOST_LAYERS:  # more are refused, and not listed first
            found.setdefault("layer_types", [layer_type(i) for i in range(layers)])
        return validate_config(cls, found, where)

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

    @property
    def block_matrix_parameters(self) -> int:
        """Weights of the linear layers in one decoder layer: what is kept in int8 where memory is short."""
        return 2 * self.decoder_attention.matrix_parameters + 3 * self.hidden_size * self.intermediate_size

    @property
    def decoder_matrices(self) -> dict[str, tuple[int, int]]:
        """The linear layers of the decoder, by their names in it: [out, in]."""
        width, inner, size = self.hidden_size, self.intermediate_size, self.decoder_attention
        queries, keys = size.heads * size.head_dim, size.kv_heads * size.head_dim
        attention = {
            "q_proj": (queries, width),
            "k_proj": (keys, width),
            "v_proj": (keys, width),
            "o_proj": (width, queries),
        }
        mlp = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
        time = {"linear_1": (width, TIME_FREQUENCIES), "linear_2": (width, width), "time_proj": (6 * width, width)}
        owners = {"time_embed": time, "time_embed_r": time}
        for layer in range(self.num_hidden_layers):
            for name, matrices in (("self_attn", attention), ("cross_attn", attention), ("mlp", mlp)):
                owners[f"layers.{layer}.{name}"] = matrices
        found = {f"{owner}.{name}": shape for owner, matrices in owners.items() for name, shape in matrices.items()}
        return {**found, "condition_embedder": (width, self.encoder_hidden_size)}

    @property
    def block_parameters(self) -> int:
        """Parameters of one decoder layer."""
        small = 2 * (self.decoder_attention.parameters - self.decoder_attention.matrix_parameters)
        return self.block_matrix_parameters + small + 9 * self.hidden_size

    @property
    def encoder_block_parameters(self) -> int:
        """Parameters of one layer of the encoders."""
        width = self.encoder_hidden_size
        return self.encoder_attention.parameters + 3 * width * self.encoder_intermediate_size + 2 * width

    @property
    def encoder_blocks(self) -> int:
        """Layers of lyric encoder, timbre encoder, audio tokenizer and detokenizer together."""
        lyric, timbre = self.num_lyric_encoder_hidden_layers, self.num_timbre_encoder_hidden_layers
        return lyric + timbre + 2 * self.num_attention_pooler_hidden_layers

    @property
    def parameters(self) -> int:
        """The number of parameters of one DiT folder."""
        blocks = self.num_hidden_layers * self.block_parameters + self.encoder_blocks * self.encoder_block_parameters
        return blocks + self.parameters_outside_blocks

    @property
    def parameters_outside_blocks(self) -> int:
        """Parameters of projections, embeddings, norms and tokens, which are outside of the transformer layers."""
        wide, width, channels = self.hidden_size, self.encoder_hidden_size, self.audio_acoustic_hidden_dim
        time = (TIME_FREQUENCIES + 1) * wide + (wide + 1) * wide + (wide + 1) * 6 * wide
        patches = self.in_channels * wide * self.patch_size + wide + wide * channels * self.patch_size + channels
        decoder = patches + 2 * time + (width + 1) * wide + 3 * wide
        lyrics = (self.text_hidden_dim + 1) * width + width
        timbre = (self.timbre_hidden_dim + 1) * width + 2 * width
        digits = len(self.fsq_input_levels)
        quantizer = (self.fsq_dim + 1) * digits + (digits + 1) * self.fsq_dim
        tokenizer = (channels + 1) * width + (width + 1) * width + 2 * width + quantizer
        detokenizer = (self.fsq_dim + 1) * width + (self.pool_window_size + 1) * width + (width + 1) * channels
        return decoder + self.text_hidden_dim * width + lyrics + timbre + width + tokenizer + detokenizer

    def is_banded(self, layer: int) -> bool:
        """Return True where layer `layer` of the DiT attends within the band only."""
        return self.use_sliding_window and self.layer_types[layer] == "sliding_attention"

    def is_banded_encoder(self, layer: int) -> bool:
        """Return True where layer `layer` of an encoder attends within the band only, by the rule of `layer_type`."""
        return self.use_sliding_window and layer_type(layer) == "sliding_attention"


@dataclass(frozen=True)
class VAEConfig:
    """The checkpoint's `vae/config.json`, less what does not shape the network."""

    encoder_hidden_size: Width = 128
    downsampling_ratios: Annotated[tuple[Ratio, ...], Field(min_length=1, max_length=16)] = (2, 4, 4, 6, 10)
    channel_multiples: Annotated[tuple[Ratio, ...], Field(min_length=1, max_length=16)] = (1, 2, 4, 8, 16)
    decoder_channels: Width = 128
    decoder_input_channels: Width = 64
    audio_channels: Ratio = 2
    sampling_rate: FrameCount = 48_000

    @model_validator(mode="after")
    def _fit_together(self) -> VAEConfig:
        if len(self.downsampling_ratios) != len(self.channel_multiples):
            raise ValueError("downsampling_ratios and channel_multiples are of different lengths")
        if any(ratio % 2 for ratio in self.downsampling_ratios):
            raise ValueError("an odd downsampling ratio loses a sample at each end, and tiles would not join")
        if self.hop > MOST_SAMPLES_PER_FRAME:
            raise ValueError(f"downsampling_ratios: a frame of {self.hop:,} samples is more than this engine runs")
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "vae/config.json") -> VAEConfig:
        """Read the published keys; `CheckpointError` names those that do not fit."""
        return validate_config(cls, values, where)

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.downsampling_ratios)

    @property
    def seconds_per_frame(self) -> float:
        return self.hop / self.sampling_rate

    def latent_frames(self, seconds: float) -> int:
        """Frames that are rendered for `seconds` of music: whole hops, and never fewer than the model was shown."""
        return max(duration_frames(seconds, self.sampling_rate, self.hop), SHORTEST_FRAMES)

    def samples(self, seconds: float) -> int:
        """Return the samples of `seconds` of rendered music: whole frames only, the last part of a frame is missing."""
        return min(duration_samples(seconds, self.sampling_rate), self.latent_frames(seconds) * self.hop)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Width multipliers at each resolution, waveform side first."""
        return (1, *self.channel_multiples)

    @property
    def parameters(self) -> int:
        """Parameters of encoder and decoder, weight norm folded."""
        narrow, wide = (
            [width * m for m in self.stage_widths] for width in (self.encoder_hidden_size, self.decoder_channels)
        )
        audio, latent = self.audio_channels, self.decoder_input_channels
        encoder = (7 * audio + 1) * narrow[0] + 2 * narrow[-1] + (3 * narrow[-1] + 1) * self.encoder_hidden_size
        decoder = (7 * latent + 1) * wide[-1] + 2 * wide[0] + 7 * wide[0] * audio
        for place, stride in enumerate(self.downsampling_ratios):
            (low, high), (low_d, high_d) = narrow[place : place + 2], wide[place : place + 2]
            encoder += _residual_parameters(low) + 2 * low + 2 * stride * low * high + high
            decoder += _residual_parameters(low_d) + 2 * high_d + 2 * stride * high_d * low_d + low_d
        return encoder + decoder


def _residual_parameters(channels: int) -> int:
    """Parameters of the three residual units of one resolution."""
    one = 2 * 2 * channels + (RESIDUAL_KERNEL + 1) * channels**2 + 2 * channels
    return len(RESIDUAL_DILATIONS) * one


@dataclass(frozen=True)
class RopeSettings:
    """The rotary embedding of a Qwen3 config under either of its keys: no scaled one is run."""

    rope_type: Literal["default"] = "default"
    type: Literal["default"] = "default"
    rope_theta: RopeTheta | None = None


@dataclass(frozen=True)
class QwenConfig:
    """`config.json` of a Qwen3 model, less what does not shape its weights. Input and output embeddings are one."""

    hidden_size: Width
    intermediate_size: Width
    num_hidden_layers: LayerCount
    num_attention_heads: HeadCount
    num_key_value_heads: HeadCount
    vocab_size: VocabularySize
    head_dim: HeadDim = 128
    hidden_act: Literal["silu"] = field(default="silu", compare=False)
    attention_bias: bool = field(default=False, compare=False)
    rope_theta: RopeTheta = field(default=1e6, compare=False)
    rope_scaling: RopeSettings | None = field(default=None, compare=False)
    rope_parameters: RopeSettings | None = field(default=None, compare=False)
    rms_norm_eps: NormEps = field(default=1e-6, compare=False)
    use_sliding_window: Literal[False] = field(default=False, compare=False)
    layer_types: Annotated[tuple[Literal["full_attention"], ...], Field(max_length=MOST_LAYERS)] = field(
        default=(), compare=False
    )
    pad_token_id: int | None = field(default=None, compare=False)

    @model_validator(mode="after")
    def _fit_together(self) -> QwenConfig:
        _require_groups(self.num_attention_heads, self.num_key_value_heads)
        if self.pad_token_id is not None and not -1 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id is not one of the {self.vocab_size:,} tokens")
        if self.layer_types and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.layer_types)} of {self.num_hidden_layers} layers")
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> QwenConfig:
        """Read the published keys; `CheckpointError` names those that do not fit."""
        return validate_config(cls, {key: value for key, value in values.items() if value is not None}, where)

    @property
    def attention(self) -> AttentionSize:
        return AttentionSize(
            width=self.hidden_size,
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            eps=self.rms_norm_eps,
            bias=self.attention_bias,
        )

    @property
    def theta(self) -> float:
        """The base of the rotary embedding, from wherever the file has it."""
        settings = [found.rope_theta for found in (self.rope_parameters, self.rope_scaling) if found is not None]
        return next((theta for theta in settings if theta is not None), self.rope_theta)

    @property
    def parameters(self) -> int:
        width = self.hidden_size
        block = self.attention.parameters + 3 * width * self.intermediate_size + 2 * width
        return self.vocab_size * width + self.num_hidden_layers * block + width


def _require_groups(heads: int, kv_heads: int) -> None:
    if heads % kv_heads:
        raise ValueError(f"num_attention_heads: {heads} heads cannot share {kv_heads} of num_key_value_heads evenly")


def layer_type(layer: int) -> LayerType:
    """Return the type of a layer in the published alternation: even layers have a band, odd ones full attention."""
    return "sliding_attention" if layer % 2 == 0 else "full_attention"


def validate_config(kind: type[C], values: Mapping[str, Any], where: str) -> C:
    """Build a config of `kind` from `values`. Raises `CheckpointError` with every key that does not fit."""
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
    """Return the latent frames on either side that one latent of the encoder depends on, rounded up."""
    reach, step = 3.0, 1  # in samples: the first convolution looks 3 samples either way
    for stride in config.downsampling_ratios:
        reach += RESIDUAL_REACH * step
        reach += (1.5 * stride) * step
        step *= stride
    return math.ceil((reach + step) / step)


def decoder_reach(config: VAEConfig) -> int:
    """Return the latent frames on either side that one sample of the decoder depends on, rounded up."""
    reach, step = 3.0, 1  # backwards from the last convolution
    for stride in config.downsampling_ratios:
        reach += RESIDUAL_REACH * step
        step *= stride
        reach += step
    return math.ceil((reach + 3 * step) / step)
