"""The network of a language model, Qwen3 (arXiv 2505.09388), under its published names and without its head.

Shapes: R rows, S tokens, K key/value heads, D head size, L tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from acestep_cli.engine.attention import MLP, Attention, KeysValues, apply_rotary, full_attention
from acestep_cli.models.configs import QwenConfig

#: Takes the number of a layer, and its keys and values [R, K, S, D] of new tokens; returns those [R, K, L, D] of all so
#: far.
Append = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


class RMSNorm(nn.RMSNorm):
    """torch's, but rounded to the weights' dtype before they are multiplied, as transformers does."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        assert self.eps is not None
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class DecoderLayer(nn.Module):
    """A pre-norm transformer layer that attends to the tokens so far."""

    def __init__(self, config: QwenConfig, number: int) -> None:
        super().__init__()
        self.number = number
        self.self_attn = Attention(config.attention)
        self.self_attn.q_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.self_attn.k_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self, x: Tensor, rope: Tensor, bias: Tensor | None, append: Callable[..., tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Return x [R, S, width] after the layer."""
        normed = self.input_layernorm(x)
        keys, values = self.self_attn.project_kv(normed)
        queries = apply_rotary(self.self_attn.queries(normed), rope)
        so_far = KeysValues(*append(self.number, apply_rotary(keys, rope), values))
        x = x + self.self_attn.o_proj(full_attention(queries, so_far, bias))
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen3Decoder(nn.Module):
    """A Qwen3 model that reads a few tokens at a time; `KVCache` keeps what it has read.

    It gives the same bits as transformers' model, which is the oracle of the tests, and whose import takes as long as
    that of torch and half of it again. `text_encoder.Qwen3Encoder`, whose states are not drawn from, rounds less.
    """

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        self.config = config
        # Not drawn at random: on the meta device torch would import its compiler for that, which takes a second.
        table = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table)
        self.layers = nn.ModuleList(DecoderLayer(config, number) for number in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, ids: Tensor, places: Tensor, bias: Tensor | None, append: Append) -> Tensor:
        """Return the last hidden states [R, S, width] of token ids [R, S] at `places` [R, S] in their prompts; `bias`
        is the additive mask over the tokens so far.
        """
        x = self.embed_tokens(ids)
        rope = self._rotary_table(places, x.dtype)
        for layer in self.layers:
            x = layer(x, rope, bias, append)
        states: Tensor = self.norm(x)
        return states

    def _rotary_table(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        """Return cosines and sines of RoPE (arXiv 2104.09864), [2, R, 1, S, D], computed in float32."""
        size = self.config.head_dim
        powers = torch.arange(0, size, 2, device=places.device, dtype=torch.float32) / size
        angles = places[..., None].float() * (1.0 / self.config.theta**powers)
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return torch.stack((angles.cos(), angles.sin())).to(dtype)
