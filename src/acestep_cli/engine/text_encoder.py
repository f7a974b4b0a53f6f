"""The text encoder: a tokenizer and a Qwen3 model that turn prompts into hidden states.

Limits and masks: docs/specification.md, 4.4 Tokens and limits and 4.5 Text encoder.
"""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model, Qwen3RotaryEmbedding

from acestep_cli.errors import CheckpointError
from acestep_cli.models import tokenizer_file, weight_files
from acestep_cli.models.configs import QwenConfig
from acestep_cli.progress import Say
from acestep_cli.song import prompts
from acestep_cli.song.prompts import END_OF_TEXT, LYRIC_TOKENS, TEXT_TOKENS


class TextEncoder(nn.Module):
    """The checkpoint's tokenizer and its Qwen3 model."""

    def __init__(self, folder: Path, tokenizer: Path | None = None) -> None:
        """Read the tokenizer, that in `folder` unless given, and build the model without weights.

        Raises `CheckpointError` for files that are no tokenizer or no Qwen3 config, and for a tokenizer that does not
        append the token with which the model's training prompts end.
        """
        super().__init__()
        tokenizer = tokenizer or folder / "tokenizer.json"
        tokenizer_file.read_tokenizer(tokenizer)
        try:
            self.tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{tokenizer} is not a tokenizer ({error}).", "Download that file again.") from error
        self.tokenizer.no_truncation()  # a file may carry limits of its own
        self.tokenizer.no_padding()
        end = self.tokenizer.token_to_id(END_OF_TEXT)
        if end is None or self.tokenizer.encode("x").ids[-1] != end:
            raise CheckpointError(
                f"{tokenizer} does not end a prompt with {END_OF_TEXT}; songs would sound wrong and nothing else "
                "would tell.",
                "Download that folder again.",
            )
        try:
            content = weight_files.read_json(folder / "config.json")
            QwenConfig.from_dict(content, str(folder / "config.json"))  # checks bounds before anything is allocated
            tokenizer_file.require_ids(self.tokenizer, content["vocab_size"], tokenizer)
            config = Qwen3Config(**content)
            with torch.device("meta"):  # the weights come from the store
                self.model = Qwen3Model(config)
        except (StrictDataclassError, ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{folder / 'config.json'} does not describe a Qwen3 model ({error}).", "Download that folder again."
            ) from error
        self.model.rotary_emb = Qwen3RotaryEmbedding(config)  # its frequencies are no weights: computed, not stored

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
        return self.model(self.tokens(prompt, TEXT_TOKENS, warn)).last_hidden_state

    def embeddings(self, prompt: str, warn: Say) -> Tensor:
        """Return the token embeddings [1, L, width] of a lyric prompt; the lyric encoder of the DiT adds context."""
        return self.model.embed_tokens(self.tokens(prompt, LYRIC_TOKENS, warn))
