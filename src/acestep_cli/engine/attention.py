"""Attention in time and memory linear in length: banded self-attention, cached cross-attention.

Shapes: B batch, S tokens, H query heads, K key/value heads, G = H / K query heads per key head,
D head size, W band reach in tokens (the checkpoint's `sliding_window`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_cli.models.configs import AttentionSize


class KeysValues(NamedTuple):
    """Projected keys and values, each [B or 1, K, L, D]."""

    keys: Tensor
    values: Tensor


def rotary_table(positions: int, head_dim: int, theta: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return cosines and sines of RoPE (arXiv 2104.09864), [2, positions, head_dim], computed in float32."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim)
    angles = torch.arange(positions, device=device, dtype=torch.float32)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return torch.stack((angles.cos(), angles.sin())).to(dtype)


def apply_rotary(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate x [B, heads, S, D] by the angles of `rotary_table`, pairing the two halves of D."""
    cosine, sine = rope
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def mask_to_bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an additive mask; it is finite, so that a padding query with no key at all does not become NaN."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min / 2
    )


def key_bias(keep: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return an additive mask [B, 1, 1, L] that hides padding keys; None without padding. `keep` [B, L] is true at real
    tokens.
    """
    return None if keep is None else mask_to_bias(keep[:, None, None], dtype)


def causal_bias(tokens: int, group: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the additive mask [1, 1, G * S, S] that hides later tokens, one row of it for each query of a group."""
    return mask_to_bias(torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril().repeat(group, 1), dtype)[
        None, None
    ]


def band_bias(tokens: int, reach: int, group: int, keep: Tensor | None, like: Tensor) -> Tensor | None:
    """Return the additive mask of a band |i - j| <= reach, or None where the band covers everything.

    Its shape is [blocks, B or 1, G * W, 3 W]: each block of W queries sees its own block of keys and the two beside it.
    `keep` [B, S] is true at real tokens.
    """
    if tokens <= reach + 1:
        return None
    blocks = -(-tokens // reach)
    query = torch.arange(reach, device=like.device)[:, None]
    key = torch.arange(3 * reach, device=like.device) - reach
    band = (key - query).abs() <= reach  # [W, 3W]
    place = torch.arange(blocks, device=like.device)[:, None] * reach + key  # [blocks, 3W], position of each key
    inside = (place >= 0) & (place < tokens)
    visible = inside[None] if keep is None else keep[:, place.clamp(0, tokens - 1)] & inside
    visible = visible.transpose(0, 1)  # [blocks, B or 1, 3W]
    allowed = band.repeat(group, 1) & visible[:, :, None]
    return mask_to_bias(allowed, like.dtype)


def full_attention(queries: Tensor, kv: KeysValues, bias: Tensor | None = None) -> Tensor:
    """Attend to all keys: queries [B, H, S, D] -> [B, S, H * D]. `bias` broadcasts to [B, K, G * S, L].

    The G query heads that share a key head are laid end to end along the sequence: rows of attention
    do not depend on each other, so no key or value is ever copied.
    """
    batch, heads, tokens, size = queries.shape
    keys, values = (t.expand(batch, -1, -1, -1) for t in kv)
    kv_heads = keys.shape[1]
    folded = queries.reshape(batch, kv_heads, (heads // kv_heads) * tokens, size)
    out = F.scaled_dot_product_attention(folded, keys, values, attn_mask=bias)
    return out.reshape(batch, heads, tokens, size).transpose(1, 2).reshape(batch, tokens, heads * size)


def banded_attention(queries: Tensor, kv: KeysValues, bias: Tensor) -> Tensor:
    """Attend within a band: queries [B, H, S, D] -> [B, S, H * D], `bias` from `band_bias`.

    Each block of W queries sees its own block of keys and the two beside it: 3 W keys instead of S,
    and no S x S mask is ever made.
    """
    batch, heads, tokens, size = queries.shape
    kv_heads, group = kv.keys.shape[1], heads // kv.keys.shape[1]
    blocks, reach = bias.shape[0], bias.shape[-1] // 3
    tail = blocks * reach - tokens
    folded = (
        F.pad(queries, (0, 0, 0, tail))
        .reshape(batch * kv_heads, group, blocks, reach, size)
        .permute(2, 0, 1, 3, 4)
        .reshape(blocks, batch * kv_heads, group * reach, size)
    )
    keys, values = (
        F.pad(t, (0, 0, reach, reach + tail))
        .reshape(batch * kv_heads, (blocks + 2) * reach, size)
        .unfold(1, 3 * reach, reach)  # a view: [B K, blocks, D, 3W]
        .permute(1, 0, 3, 2)
        for t in kv
    )
    if bias.shape[1] > 1:
        bias = bias.repeat_interleave(kv_heads, dim=1)
    out = F.scaled_dot_product_attention(folded, keys, values, attn_mask=bias)  # [blocks, B K, G W, D]
    out = out.view(blocks, batch, kv_heads, group, reach, size).permute(1, 0, 4, 2, 3, 5)
    return out.reshape(batch, blocks * reach, heads * size)[:, :tokens]


class Attention(nn.Module):
    """Grouped-query attention (arXiv 2305.13245) with a norm on each head's queries and keys."""

    def __init__(self, size: AttentionSize) -> None:
        super().__init__()
        width_q, width_kv = size.heads * size.head_dim, size.kv_heads * size.head_dim
        self.size = size
        self.q_proj = nn.Linear(size.width, width_q, bias=size.bias)
        self.k_proj = nn.Linear(size.width, width_kv, bias=size.bias)
        self.v_proj = nn.Linear(size.width, width_kv, bias=size.bias)
        self.o_proj = nn.Linear(width_q, size.width, bias=size.bias)
        self.q_norm = nn.RMSNorm(size.head_dim, eps=size.eps)
        self.k_norm = nn.RMSNorm(size.head_dim, eps=size.eps)

    def queries(self, x: Tensor) -> Tensor:
        """Project x [B, S, width] to queries [B, H, S, D]."""
        return self.q_norm(self.q_proj(x).unflatten(-1, (self.size.heads, -1))).transpose(1, 2)

    def project_kv(self, x: Tensor) -> KeysValues:
        """Project x [B, L, width] to keys and values [B, K, L, D]."""
        split = (self.size.kv_heads, -1)
        keys = self.k_norm(self.k_proj(x).unflatten(-1, split)).transpose(1, 2)
        return KeysValues(keys.contiguous(), self.v_proj(x).unflatten(-1, split).transpose(1, 2).contiguous())

    def self_attention(self, x: Tensor, rope: Tensor, band: Tensor | None, bias: Tensor | None) -> Tensor:
        """Apply self-attention to x [B, S, width]: in a band where `band` is given, else full under `bias`."""
        keys, values = self.project_kv(x)
        queries, kv = apply_rotary(self.queries(x), rope), KeysValues(apply_rotary(keys, rope), values)
        out = full_attention(queries, kv, bias) if band is None else banded_attention(queries, kv, band)
        return self.o_proj(out)

    def weights(self, x: Tensor, kv: KeysValues, bias: Tensor | None, head: int) -> Tensor:
        """Return the attention weights [B, S, L] of one head, from each token of x [B, S, width] to each key."""
        keys = kv.keys[:, head * self.size.kv_heads // self.size.heads].float()
        scores = self.queries(x)[:, head].float() @ keys.mT * self.size.head_dim**-0.5
        return (scores if bias is None else scores + bias[:, 0]).softmax(-1)

    def cross_attention(self, x: Tensor, kv: KeysValues, bias: Tensor | None) -> Tensor:
        """Apply cross-attention from x [B, S, width] to `project_kv` of the condition; no positions."""
        return self.o_proj(full_attention(self.queries(x), kv, bias))


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return self.down_proj(F.silu(self.gate_proj(x), inplace=True).mul_(self.up_proj(x)))

    def forward_float32(self, x: Tensor) -> Tensor:
        """Compute `forward` with products and sums in float32, for float16 inputs whose outputs exceed its range."""
        inner = F.silu(self.gate_proj(x).float()).mul_(self.up_proj(x))
        return F.linear(inner, self.down_proj.weight.float())
