"""The KV cache of a language model: a prompt is read once, and each token after it costs one pass over the weights.

Keys and values of all layers are kept in memory that is allocated once for the whole task; each pass attends to the
part filled so far, and nothing is copied, neither to grow nor for the heads that share a key.

Shapes: R rows, S tokens, H query heads, K key/value heads, D head size, L tokens in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acestep_cli.engine.attention import mask_to_bias
from acestep_cli.engine.language_model import Qwen3Decoder
from acestep_cli.machine.memory import SONGWRITER_PASS_TOKENS


class KVCache:
    """Keys and values of rows of tokens that are aligned at their end: shorter prompts begin later.

    `truncate` drops the tokens after a place, and `first_rows` some rows, so that takes of one prompt read it once.
    """

    def __init__(self, model: Qwen3Decoder, buffer: Tensor) -> None:
        """`buffer` is [2, layers, R, K, capacity, D], zeros: masked values are still multiplied, by 0."""
        self.model = model
        self.length = 0
        self.starts = [0] * buffer.shape[2]
        self._buffer = buffer

    @classmethod
    def empty(cls, model: Qwen3Decoder, rows: int, capacity: int) -> KVCache:
        """Return a cache with room for `capacity` tokens."""
        config, weight = model.config, model.embed_tokens.weight
        shape = (2, config.num_hidden_layers, rows, config.num_key_value_heads, capacity, config.head_dim)
        return cls(model, torch.zeros(shape, dtype=weight.dtype, device=weight.device))

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read a prompt into each row, and return the states [P, width] of their last tokens. Where there are more
        rows than P prompts, they are read once, and repeated until all rows have one.
        """
        longest = max(map(len, prompts))
        copies = self._buffer.shape[2] // len(prompts)
        self.starts = [longest - len(prompt) for prompt in prompts] * copies
        states = []
        for row, prompt in enumerate(prompts):
            alone = KVCache(self.model, self._buffer[:, :, row : row + 1, :, self.starts[row] :])
            for first in range(0, len(prompt), SONGWRITER_PASS_TOKENS):
                state = alone.step([prompt[first : first + SONGWRITER_PASS_TOKENS]])
            states.append(state)
        for first in range(len(prompts), len(self.starts), len(prompts)):
            copied = self._buffer[:, :, first : first + len(prompts), :, :longest]
            copied.copy_(self._buffer[:, :, : len(prompts), :, :longest])
        self.length = longest
        return torch.cat(states)

    def step(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read the next tokens of each row, the same number in each, and return the states [R, width] of the last."""
        return self.states(tokens)[:, -1]

    def states(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read the next tokens of each row, the same number in each, and return the states [R, S, width] of all."""
        device = self._buffer.device
        ids = torch.tensor(tokens, device=device)
        after = self.length + ids.shape[1]
        places = torch.arange(self.length, after, device=device)
        starts = torch.tensor(self.starts, device=device)
        states: Tensor = self.model(ids, places - starts[:, None], self._mask(places, starts), self._append)
        self.length = after
        return states

    def first_rows(self, count: int) -> KVCache:
        """Return a cache of the first rows, in the same memory."""
        found = KVCache(self.model, self._buffer[:, :, :count])
        found.length, found.starts = self.length, self.starts[:count]
        return found

    def truncate(self, length: int) -> None:
        """Drop all tokens after the first `length`."""
        self.length = length

    def _append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values [R, K, S, D] of a layer, and return all of it so far."""
        after = self.length + keys.shape[2]
        self._buffer[0, layer, :, :, self.length : after] = keys
        self._buffer[1, layer, :, :, self.length : after] = values
        return self._buffer[0, layer, :, :, :after], self._buffer[1, layer, :, :, :after]

    def _mask(self, places: Tensor, starts: Tensor) -> Tensor | None:
        """Return the additive mask [R, 1, G * S or 1, L] of tokens at `places` [S]; None where nothing is masked."""
        config = self.model.config
        if len(places) == 1 and not any(self.starts):
            return None
        past = torch.arange(int(places[-1]) + 1, device=places.device)
        allowed = (past <= places[:, None]) & (past >= starts[:, None, None])  # [R, S, L]
        group = config.num_attention_heads // config.num_key_value_heads
        if len(places) > 1:
            allowed = allowed.repeat(1, group, 1)
        return mask_to_bias(allowed[:, None], self._buffer.dtype)
