"""Sizes of a diffusion checkpoint, read from its `config.json`; nothing else in the engine knows a number.

Keys and defaults: `dit.md` 1.2 of the specification.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from acestep_cli.errors import CheckpointError


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

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    layer_types: tuple[str, ...]
    in_channels: int
    audio_acoustic_hidden_dim: int
    text_hidden_dim: int
    timbre_hidden_dim: int
    fsq_dim: int
    fsq_input_levels: tuple[int, ...]
    num_lyric_encoder_hidden_layers: int
    num_timbre_encoder_hidden_layers: int
    num_attention_pooler_hidden_layers: int
    encoder_hidden_size: int
    encoder_intermediate_size: int
    encoder_num_attention_heads: int
    encoder_num_key_value_heads: int
    pool_window_size: int = 5
    patch_size: int = 2
    timbre_fix_frame: int = 750
    sliding_window: int = 128
    use_sliding_window: bool = True
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> DiTConfig:
        """Read the published keys.

        Raises `CheckpointError` for a missing key and for the variants no published checkpoint has and
        this engine does not run (an activation other than SiLU, a residual quantizer of several stages).
        """
        found = dict(values)
        for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"):
            if found.get(f"encoder_{key}") is None and key in found:
                found[f"encoder_{key}"] = found[key]
        if "rope_theta" not in found:  # newer writers nest it
            found["rope_theta"] = (found.get("rope_parameters") or {}).get("rope_theta", cls.rope_theta)
        if found.get("layer_types") is None and "num_hidden_layers" in found:
            found["layer_types"] = [layer_type(i) for i in range(found["num_hidden_layers"])]
        names = [f.name for f in fields(cls)]
        required = [f.name for f in fields(cls) if f.name not in cls.__dict__]
        if missing := [name for name in required if found.get(name) is None]:
            raise CheckpointError(
                f"{where} lacks {', '.join(missing)}, so it does not describe an ACE-Step 1.5 transformer."
            )
        if found.get("hidden_act", "silu") != "silu" or found.get("fsq_input_num_quantizers", 1) != 1:
            raise CheckpointError(
                f"{where} asks for hidden_act={found.get('hidden_act')!r} and "
                f"fsq_input_num_quantizers={found.get('fsq_input_num_quantizers')!r}; only silu and 1 are known."
            )
        kept: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k in names if (v := found.get(k)) is not None
        }
        return cls(**kept)

    @property
    def is_xl(self) -> bool:
        """XL checkpoints keep a narrower encoder, and alone read the timbre from a prepended token."""
        return self.encoder_hidden_size != self.hidden_size

    @property
    def latent_channels(self) -> int:
        return self.audio_acoustic_hidden_dim

    @property
    def code_count(self) -> int:
        """How many audio codes the quantizer's levels make."""
        return math.prod(self.fsq_input_levels)

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


def layer_type(layer: int) -> str:
    """The published alternation: even layers slide, odd ones see everything."""
    return "sliding_attention" if layer % 2 == 0 else "full_attention"
