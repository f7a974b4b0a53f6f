"""The networks of a DiT folder: diffusion transformer, condition encoder, audio tokenizer and detokenizer.

Every module has its published tensor name, so a checkpoint loads strictly and without renaming.
Sources: docs/specification.md, 5 Diffusion transformer and 6 Audio codes; FSQ after Mentzer et al., 2023.

Shapes: B batch, T latent frames, C latent channels, S = ceil(T / patch) tokens, H decoder width,
E encoder width, L tokens of the packed condition, N audio codes (one per `pool_window_size` frames).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from acestep_cli.engine.attention import MLP, Attention, KeysValues, band_bias, key_bias, rotary_table
from acestep_cli.engine.encoder_layer import EncoderLayer, run_layers
from acestep_cli.models.configs import TIME_FREQUENCIES, WINDOWS_AT_ONCE, DiTConfig

TIME_MAX_PERIOD = 10_000
TIME_SCALE = 1000


class Condition(NamedTuple):
    """The condition of the DiT: encoded lyrics, timbre and text, packed in one sequence."""

    states: Tensor  # [B, L, E]
    keep: Tensor | None  # [B, L], true at real tokens; None when nothing is padding


def stack_conditions(conditions: Sequence[Condition]) -> Condition:
    """Return the conditions [1, L, E] of several takes as one with a row for each; shorter ones are filled up, masked.

    One that all of them share stays as it is: its single row goes with any number of takes.
    """
    first = conditions[0]
    if all(condition is first for condition in conditions):
        return first
    return pad_conditions([condition.states[0] for condition in conditions])


def pad_conditions(rows: Sequence[Tensor]) -> Condition:
    """Return conditions [L, E] of any lengths as one, in which padding is masked."""
    states = pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=states.device)
    whole = bool((lengths == states.shape[1]).all())
    return Condition(states, None if whole else torch.arange(states.shape[1], device=states.device) < lengths[:, None])


class CrossKV(NamedTuple):
    """Cross-attention keys and values of a condition for every layer; made once per take, used at every step."""

    layers: list[KeysValues]
    bias: Tensor | None  # [B, 1, 1, L]


class LayerInputs(NamedTuple):
    """The inputs of every layer besides the tokens."""

    modulation: Tensor  # [B, 6, H]
    rope: Tensor
    band: Tensor | None
    bias: Tensor | None  # [B, 1, 1, S]


class TimeEmbedding(nn.Module):
    """Diffusion time t [B] -> embedding [B, H] and six modulation vectors [B, 6, H]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(TIME_FREQUENCIES, width)
        self.linear_2 = nn.Linear(width, width)
        self.time_proj = nn.Linear(width, 6 * width)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        half = TIME_FREQUENCIES // 2
        steps = torch.arange(half, device=t.device, dtype=torch.float32) / half
        angles = TIME_SCALE * t.float()[:, None] * torch.exp(-math.log(TIME_MAX_PERIOD) * steps)
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1).to(self.linear_1.weight.dtype)
        embedding = self.linear_2(F.silu(self.linear_1(waves)))
        return embedding, self.time_proj(F.silu(embedding)).unflatten(1, (6, -1))


class DecoderLayer(nn.Module):
    """Modulated self-attention, plain cross-attention, modulated MLP."""

    def __init__(self, config: DiTConfig, banded: bool) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.banded = banded
        self.self_attn_norm = nn.RMSNorm(width, eps=eps)
        self.self_attn = Attention(config.decoder_attention)
        self.cross_attn_norm = nn.RMSNorm(width, eps=eps)
        self.cross_attn = Attention(config.decoder_attention)
        self.mlp_norm = nn.RMSNorm(width, eps=eps)
        self.mlp = MLP(width, config.intermediate_size)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 6, width))

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        rope: Tensor,
        band: Tensor | None,
        bias: Tensor | None,
        kv: KeysValues,
        kv_bias: Tensor | None,
        before_cross_attention: Callable[[Attention, Tensor], None] | None = None,
    ) -> Tensor:
        """Return x [B, S, H] after the layer. `before_cross_attention` is called with the cross-attention module and
        its input.
        """
        table = (self.scale_shift_table + time).unsqueeze(2).unbind(1)  # six of [B, 1, H]
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = table
        y = torch.addcmul(shift, self.self_attn_norm(x), 1 + scale)
        x = torch.addcmul(x, self.self_attn.self_attention(y, rope, band if self.banded else None, bias), gate)
        y = self.cross_attn_norm(x)
        if before_cross_attention is not None:
            before_cross_attention(self.cross_attn, y)
        x = x + self.cross_attn.cross_attention(y, kv, kv_bias)
        y = torch.addcmul(mlp_shift, self.mlp_norm(x), 1 + mlp_scale)
        return torch.addcmul(x, self.mlp(y), mlp_gate)


class DiT(nn.Module):
    """Velocity of the flow at time t, given context latents and a condition."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.config = config
        # Published inside a Sequential, at index 1.
        self.proj_in = nn.ModuleDict({"1": nn.Conv1d(config.in_channels, width, patch, stride=patch)})
        self.time_embed = TimeEmbedding(width)
        self.time_embed_r = TimeEmbedding(width)
        self.condition_embedder = nn.Linear(config.encoder_hidden_size, width)
        self.layers = nn.ModuleList(DecoderLayer(config, config.is_banded(i)) for i in range(config.num_hidden_layers))
        self.norm_out = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.scale_shift_table = nn.Parameter(torch.zeros(1, 2, width))
        self.proj_out = nn.ModuleDict({"1": nn.ConvTranspose1d(width, config.latent_channels, patch, stride=patch)})

    def project_condition(self, condition: Condition) -> CrossKV:
        """Project a condition to every layer's cross-attention keys and values."""
        states = self.condition_embedder(condition.states)
        # Layer by layer: one that is streamed is on the device only for its turn.
        layers = [cast(DecoderLayer, layer).cross_attn.project_kv(states) for layer in self.layers]
        return CrossKV(layers, key_bias(condition.keep, states.dtype))

    def forward(self, x: Tensor, t: Tensor, context: Tensor, cross_kv: CrossKV, keep: Tensor | None = None) -> Tensor:
        """Return the velocity [B, T, C] of noisy latents x [B, T, C] at times t [B].

        `context` [B or 1, T, in_channels - C] holds source latents and mask. `keep` [B, T] is true at real
        frames when songs of several lengths share a batch, as in training.
        """
        tokens, embedding, inputs = self._embed(x, t, context, keep)
        for layer, keys_values in zip(self.layers, cross_kv.layers, strict=True):
            tokens = layer(tokens, *inputs, keys_values, cross_kv.bias)

        shift, scale = (self.scale_shift_table + embedding[:, None]).chunk(2, dim=1)
        tokens = torch.addcmul(shift, self.norm_out(tokens), 1 + scale)
        return self.proj_out["1"](tokens.transpose(1, 2)).transpose(1, 2)[:, : x.shape[1]]

    def attention_to_words(
        self, x: Tensor, t: Tensor, context: Tensor, cross_kv: CrossKV, heads: Sequence[tuple[int, int]], words: slice
    ) -> Tensor:
        """Return the cross-attention of the tokens of one song to `words`, a slice of the condition, for heads (layer,
        head) in their order: [heads, words, S], float32 on the CPU. Other arguments as in `forward`.

        Layers above the highest of them are not run.
        """
        tokens, _, inputs = self._embed(x, t, context, None)
        found: dict[tuple[int, int], Tensor] = {}
        for number, (layer, keys_values) in enumerate(zip(self.layers, cross_kv.layers, strict=True)):
            own = [head for at, head in heads if at == number]

            def keep_weights(attention: Attention, states: Tensor, own: Sequence[int] = own, number: int = number,
                             keys_values: KeysValues = keys_values) -> None:  # fmt: skip
                for head in own:
                    weights = attention.weights(states, keys_values, cross_kv.bias, head)
                    found[number, head] = weights[0, :, words].T.cpu()

            tokens = layer(tokens, *inputs, keys_values, cross_kv.bias, keep_weights)
            if len(found) == len(heads):
                break
        return torch.stack([found[head] for head in heads])

    def _embed(self, x: Tensor, t: Tensor, context: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor, LayerInputs]:
        """Return the first layer's tokens [B, S, H], the embedding [B, H] of the time, and every layer's inputs."""
        config = self.config
        padding = -x.shape[1] % config.patch_size
        stacked = torch.cat((context.expand(x.shape[0], -1, -1), x), dim=-1)
        if keep is not None:  # the last patch of an odd length is filled up with zeros, as it is in a song alone
            stacked = stacked.masked_fill(~keep[..., None], 0)
        tokens = self.proj_in["1"](F.pad(stacked, (0, 0, 0, padding)).transpose(1, 2)).transpose(1, 2)
        token_keep = None if keep is None else F.pad(keep, (0, padding))[:, :: config.patch_size]

        embedding, modulation = self.time_embed(t)
        embedding_r, modulation_r = self.time_embed_r(torch.zeros_like(t))  # t - r, and sampling uses r = t
        embedding, modulation = embedding + embedding_r, modulation + modulation_r

        length, size = tokens.shape[1], config.decoder_attention
        rope = rotary_table(length, size.head_dim, config.rope_theta, tokens.device, tokens.dtype)
        band = band_bias(length, config.sliding_window, size.heads // size.kv_heads, token_keep, tokens)
        return tokens, embedding, LayerInputs(modulation, rope, band, key_bias(token_keep, tokens.dtype))


class EncoderStack(nn.Module):
    """The layers and the last norm: the part common to lyric encoder, timbre encoder, pooler and detokenizer."""

    def __init__(self, config: DiTConfig, layers: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            EncoderLayer(config.encoder_attention, config.encoder_intermediate_size, config.is_banded_encoder(i))
            for i in range(layers)
        )
        self.norm = nn.RMSNorm(config.encoder_hidden_size, eps=config.rms_norm_eps)

    def contextualise(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Run the layers on x [B, S, E]; `keep` [B, S] is true at real tokens."""
        size = self.config.encoder_attention
        rope = rotary_table(x.shape[1], size.head_dim, self.config.rope_theta, x.device, x.dtype)
        band = band_bias(x.shape[1], self.config.sliding_window, size.heads // size.kv_heads, keep, x)
        bias = key_bias(keep, x.dtype)
        return run_layers(self.layers, self.norm, x, rope, band, bias)


class LyricEncoder(EncoderStack):
    """Token embeddings of the lyrics [B, L, text width] -> [B, L, E]."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config, config.num_lyric_encoder_hidden_layers)
        self.embed_tokens = nn.Linear(config.text_hidden_dim, config.encoder_hidden_size)

    def forward(self, embeddings: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.contextualise(self.embed_tokens(embeddings), keep)


class TimbreEncoder(EncoderStack):
    """Latents of reference audio [R, frames, C] -> one token each, [R, E]."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config, config.num_timbre_encoder_hidden_layers)
        self.embed_tokens = nn.Linear(config.timbre_hidden_dim, config.encoder_hidden_size)
        self.special_token = nn.Parameter(torch.zeros(1, 1, config.encoder_hidden_size))

    def forward(self, latents: Tensor) -> Tensor:
        x = self.embed_tokens(latents)
        if self.config.is_xl:  # 2B reads the first frame instead; its special token is dead weight
            x = torch.cat((self.special_token.expand(x.shape[0], -1, -1), x), dim=1)
        return self.contextualise(x)[:, 0]


class ConditionEncoder(nn.Module):
    """The encoders of lyrics, timbre and text, whose outputs are packed into one sequence."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.text_projector = nn.Linear(config.text_hidden_dim, config.encoder_hidden_size, bias=False)
        self.lyric_encoder = LyricEncoder(config)
        self.timbre_encoder = TimbreEncoder(config)

    def forward(
        self,
        text: Tensor,
        lyrics: Tensor,
        timbre: Tensor,
        text_keep: Tensor | None = None,
        lyric_keep: Tensor | None = None,
        timbre_owner: Sequence[int] | None = None,
    ) -> Condition:
        """Encode B items.

        text [B, Lt, text width] are hidden states of the text encoder, lyrics [B, Ll, text width] its
        embeddings, timbre [R, frames, C] latents of references; reference r belongs to item
        `timbre_owner[r]` (item r when unset). The `*_keep` [B, L] are true at real tokens.
        """
        owners = range(timbre.shape[0]) if timbre_owner is None else timbre_owner
        encoded_text, encoded_lyrics = self.text_projector(text), self.lyric_encoder(lyrics, lyric_keep)
        tokens = self.timbre_encoder(timbre)
        packed = []
        for item in range(text.shape[0]):
            own_timbre = tokens[[r for r, owner in enumerate(owners) if owner == item]]
            own_lyrics = encoded_lyrics[item] if lyric_keep is None else encoded_lyrics[item][lyric_keep[item]]
            own_text = encoded_text[item] if text_keep is None else encoded_text[item][text_keep[item]]
            packed.append(torch.cat((own_lyrics, own_timbre, own_text)))
        return pad_conditions(packed)


class Quantizer(nn.Module):
    """Finite scalar quantisation: each of a few dimensions is rounded to one of its levels.

    Always float32: near a boundary a rounding of bfloat16 would name another code.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.levels = config.fsq_input_levels
        self.project_in = nn.Linear(config.fsq_dim, len(self.levels))
        self.project_out = nn.Linear(len(self.levels), config.fsq_dim)

    def _levels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the highest digit of each dimension, and the place value of that digit in a code."""
        levels = torch.tensor(self.levels, device=like.device)
        return levels - 1, torch.cumprod(levels, 0) // levels

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise x [..., fsq_dim] to digits on [-1, 1] [..., dimensions] (straight-through) and codes [...]."""
        z = F.linear(x.float(), self.project_in.weight.float(), self.project_in.bias.float())
        top, place = self._levels(z)
        softness = 1 + 1 / top
        bounded = (softness * torch.tanh(z / softness)).clamp(-1, 1)
        digits = torch.floor(top * (bounded + 1) / 2 + 0.5)
        values = bounded + (2 * digits / top - 1 - bounded).detach()
        return values, (digits.long() * place).sum(-1)

    def expand_digits(self, values: Tensor) -> Tensor:
        """Project digits on [-1, 1] [..., dimensions] to [..., fsq_dim] in the weights' dtype."""
        weight, bias = self.project_out.weight, self.project_out.bias
        return F.linear(values.float(), weight.float(), bias.float()).to(weight.dtype)

    def from_codes(self, codes: Tensor) -> Tensor:
        """Return the quantised vectors [..., fsq_dim] of codes [...]."""
        top, place = self._levels(codes)
        digits = codes[..., None] // place % (top + 1)
        return self.expand_digits(2 * digits / top - 1)


class AttentionPooler(EncoderStack):
    """Groups of frames [groups, window, E] -> one vector each, [groups, E]."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config, config.num_attention_pooler_hidden_layers)
        self.embed_tokens = nn.Linear(config.encoder_hidden_size, config.encoder_hidden_size)
        self.special_token = nn.Parameter(torch.zeros(1, 1, config.encoder_hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed_tokens(x)
        return self.contextualise(torch.cat((self.special_token.expand(x.shape[0], -1, -1), x), dim=1))[:, 0]


def in_chunks(network: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """Apply a network to independent windows [N, frames, width], a few at once, so that memory does not grow with the
    song.
    """
    return torch.cat([network(chunk) for chunk in torch.split(windows, WINDOWS_AT_ONCE)])


class AudioTokenizer(nn.Module):
    """Latents [B, T, C], T a multiple of the pooling window -> codes [B, N] at five per second."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.window = config.pool_window_size
        self.audio_acoustic_proj = nn.Linear(config.audio_acoustic_hidden_dim, config.encoder_hidden_size)
        self.attention_pooler = AttentionPooler(config)
        self.quantizer = Quantizer(config)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return quantised vectors [B, N, fsq_dim], differentiable, and codes [B, N]."""
        groups = self.audio_acoustic_proj(latents).unflatten(1, (-1, self.window))
        pooled = in_chunks(self.attention_pooler, groups.flatten(0, 1)).view(*groups.shape[:2], -1)
        values, codes = self.quantizer.quantize(pooled)
        return self.quantizer.expand_digits(values), codes


class AudioDetokenizer(EncoderStack):
    """Quantised vectors [B, N, fsq_dim] -> latents [B, N * window, C]."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config, config.num_attention_pooler_hidden_layers)
        width = config.encoder_hidden_size
        self.embed_tokens = nn.Linear(config.fsq_dim, width)
        self.special_tokens = nn.Parameter(torch.zeros(1, config.pool_window_size, width))
        self.proj_out = nn.Linear(width, config.audio_acoustic_hidden_dim)

    def forward(self, quantised: Tensor) -> Tensor:
        batch, codes = quantised.shape[:2]
        groups = self.embed_tokens(quantised).flatten(0, 1)[:, None] + self.special_tokens
        return self.proj_out(in_chunks(self.contextualise, groups)).view(batch, codes * groups.shape[1], -1)


class AceStep(nn.Module):
    """One DiT folder: `decoder.*`, `encoder.*`, `tokenizer.*`, `detokenizer.*`, `null_condition_emb`."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = DiT(config)
        self.encoder = ConditionEncoder(config)
        self.null_condition_emb = nn.Parameter(torch.zeros(1, 1, config.encoder_hidden_size))
        self.tokenizer = AudioTokenizer(config)
        self.detokenizer = AudioDetokenizer(config)

    def latents_from_codes(self, codes: Tensor) -> Tensor:
        """Decode codes [B, N] to latents [B, N * window, C]."""
        return self.detokenizer(self.tokenizer.quantizer.from_codes(codes))

    def null_condition(self) -> Condition:
        """Return the condition of an unconditional pass.

        Published code repeats the null token to the length of the condition; attention over equal tokens
        gives their value whatever their number, so one is enough.
        """
        return Condition(self.null_condition_emb, None)
