"""The text encoder: a tokenizer and a Qwen3 model that turn prompts into hidden states.

Limits and masks: docs/specification.md, 4.4 Tokens and limits and 4.5 Text encoder.
"""

from __future__ import annotations

from pathlib import Path

import acestep_cli.engine.load_libraries  # noqa: F401  # isort: skip - loads torch where the current folder is gone
import torch
from torch import Tensor, nn

from acestep_cli.engine.attention import causal_bias, rotary_table
from acestep_cli.engine.encoder_layer import EncoderLayer, run_layers
from acestep_cli.errors import CheckpointError
from acestep_cli.models import tokenizer_file
from acestep_cli.models.configs import QwenConfig
from acestep_cli.models.sizes import qwen_of
from acestep_cli.progress import Say
from acestep_cli.song import prompts
from acestep_cli.song.prompts import END_OF_TEXT, LYRIC_TOKENS, TEXT_TOKENS


class Qwen3Encoder(nn.Module):
    """The layers of a Qwen3 model (arXiv 2505.09388) under their published names, without its head.

    transformers has the same model, and importing it takes twice as long as importing torch; it is the oracle of the
    tests. `language_model.Qwen3Decoder` is the same network for the Songwriter, which samples from a KV cache.
    """

    def __init__(self, config: QwenConfig) -> None:
        super().__init__()
        self.config = config
        # Not drawn at random: on the meta device torch would import its compiler for that, which takes a second.
        table = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table)
        self.layers = nn.ModuleList(
            EncoderLayer(config.attention, config.intermediate_size) for _ in range(config.num_hidden_layers)
        )
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the last hidden states [B, L, width] of token ids [B, L] without padding, each token seeing those
        before it.
        """
        x, size = self.embed_tokens(ids), self.config.attention
        rope = rotary_table(ids.shape[1], size.head_dim, self.config.theta, x.device, x.dtype)
        bias = causal_bias(ids.shape[1], size.heads // size.kv_heads, x.dtype, x.device)
        return run_layers(self.layers, self.norm, x, rope, None, bias)


class TextEncoder(nn.Module):
    """The checkpoint's tokenizer and its Qwen3 model."""

    def __init__(self, folder: Path, tokenizer: Path | None = None) -> None:
        """Read the tokenizer, that in `folder` unless given, and build the model without weights.

        Raises `CheckpointError` for files that are no tokenizer or no Qwen3 config, and for a tokenizer that does not
        append the token with which the model's training prompts end.
        """
        super().__init__()
        tokenizer = tokenizer or folder / "tokenizer.json"
        self.tokenizer = tokenizer_file.load_tokenizer(tokenizer)
        end = self.tokenizer.token_to_id(END_OF_TEXT)
        if end is None or self.tokenizer.encode("x").ids[-1] != end:
            raise CheckpointError(
                f"{tokenizer} does not end a prompt with {END_OF_TEXT}; songs would sound wrong and nothing else "
                "would tell.",
                "Download that folder again.",
            )
        config = qwen_of(folder)
        try:
            tokenizer_file.require_ids(self.tokenizer, config.vocab_size, tokenizer)
            with torch.device("meta"):  # the weights come from the store
                self.model = Qwen3Encoder(config)
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder / 'config.json'} does not describe a Qwen3 model ({error}).", "Download that folder again."
            ) from error

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    def token_ids(self, prompt: str, limit: int, warn: Say = lambda sentence: None) -> list[int]:
        """Return the token ids of a prompt, at most `limit`, the closing one kept; `warn` receives what was cut."""
        ids: list[int] = self.tokenizer.encode(prompt).ids
        if len(ids) > limit:
            warn(prompts.truncation_notice(self.tokenizer, ids, limit))
            ids = [*ids[: limit - 1], ids[-1]]
        return ids

    def tokens(self, prompt: str, limit: int, warn: Say) -> Tensor:
        """Return the token ids of a prompt as a tensor [1, L]; see `token_ids`."""
        return torch.tensor([self.token_ids(prompt, limit, warn)], device=self.device)

    def hidden_states(self, prompt: str, warn: Say) -> Tensor:
        """Return the last hidden states [1, L, width] of a text prompt; the model is causal, so there is no mask."""
        states: Tensor = self.model(self.tokens(prompt, TEXT_TOKENS, warn))
        return states

    def embeddings(self, prompt: str, warn: Say) -> Tensor:
        """Return the token embeddings [1, L, width] of a lyric prompt; the lyric encoder of the DiT adds context."""
        embedded: Tensor = self.model.embed_tokens(self.tokens(prompt, LYRIC_TOKENS, warn))
        return embedded
