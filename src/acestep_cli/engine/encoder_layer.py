"""The transformer layer that the encoders of a DiT folder and the text encoder are made of.

Shapes: B batch, S tokens, E width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_cli.engine.attention import MLP, Attention
from acestep_cli.models.configs import AttentionSize


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer with the tensor names of Qwen3 (arXiv 2505.09388)."""

    def __init__(self, size: AttentionSize, inner: int, banded: bool = False) -> None:
        """`inner` is the width of the MLP; a `banded` layer attends within the band that `forward` is given."""
        super().__init__()
        self.banded = banded
        self.input_layernorm = nn.RMSNorm(size.width, eps=size.eps)
        self.self_attn = Attention(size)
        self.post_attention_layernorm = nn.RMSNorm(size.width, eps=size.eps)
        self.mlp = MLP(size.width, inner)

    def forward(self, x: Tensor, rope: Tensor, band: Tensor | None, bias: Tensor | None) -> Tensor:
        """Return x [B, S, E] after the layer; `bias` is the mask of a layer without a band."""
        band = band if self.banded else None
        if self.input_layernorm.weight.dtype is torch.float16:
            # The last lyric layer adds values near 5e5 to the stream, beyond float16: there it is kept in float32.
            x = x + self.self_attn.self_attention(norm_in_float32(self.input_layernorm, x), rope, band, bias)
            return x + self.mlp.forward_float32(norm_in_float32(self.post_attention_layernorm, x))
        x = x + self.self_attn.self_attention(self.input_layernorm(x), rope, band, bias)
        return x + self.mlp(self.post_attention_layernorm(x))


def run_layers(
    layers: Iterable[nn.Module], norm: nn.RMSNorm, x: Tensor, rope: Tensor, band: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Run layers and the last norm on x [B, S, E]; in float16 the stream between them is kept in float32."""
    half = norm.weight.dtype is torch.float16
    x = x.float() if half else x
    for layer in layers:
        x = layer(x, rope, band, bias)
    return norm_in_float32(norm, x) if half else norm(x)


def norm_in_float32(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """Apply `norm` to a float32 stream [B, S, E] in float32, and return it in the norm's own dtype."""
    weight = norm.weight
    return F.rms_norm(x.float(), norm.normalized_shape, weight.float(), norm.eps).to(weight.dtype)
