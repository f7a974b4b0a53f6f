"""Words to numbers: the prompt strings of the model, and the Qwen3 encoder that reads them.

Exact strings, limits and masks: `dit.md` 3 of the specification.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3Model, Qwen3RotaryEmbedding

from acestep_cli import checkpoints
from acestep_cli.errors import CheckpointError

END_OF_TEXT = "<|endoftext|>"
TEXT_TOKENS = 256
LYRIC_TOKENS = 2048
NOT_GIVEN = "N/A"
INSTRUMENTAL = "[Instrumental]"


def metas(bpm: int | None, time_signature: str | None, key: str | None, seconds: float) -> str:
    """The four lines of metadata; `seconds` is the length that will really be rendered."""
    beats = time_signature.split("/")[0] if time_signature else NOT_GIVEN
    return (
        f"- bpm: {bpm or NOT_GIVEN}\n- timesignature: {beats}\n"
        f"- keyscale: {key or NOT_GIVEN}\n- duration: {int(seconds)} seconds\n"
    )


def text_prompt(instruction: str, caption: str, metas: str) -> str:
    """What the text encoder reads."""
    return f"# Instruction\n{instruction}\n\n# Caption\n{caption}\n\n# Metas\n{metas}{END_OF_TEXT}\n"


def lyric_prompt(lyrics: str | None, language: str | None) -> str:
    """What the lyric encoder reads; no lyrics means an instrumental."""
    return f"# Languages\n{language or 'unknown'}\n\n# Lyric\n{lyrics or INSTRUMENTAL}{END_OF_TEXT}"


class TextEncoder(nn.Module):
    """The checkpoint's tokenizer and its Qwen3 model."""

    def __init__(self, folder: Path) -> None:
        """Raises `CheckpointError` for files that are no tokenizer or no Qwen3 config, and when the tokenizer does
        not close its prompts as the model was taught.
        """
        super().__init__()
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(
                f"{folder / 'tokenizer.json'} is not a tokenizer ({error}).", "Download that file again."
            ) from error
        self.tokenizer.no_truncation()  # a file may carry limits of its own
        self.tokenizer.no_padding()
        end = self.tokenizer.token_to_id(END_OF_TEXT)
        if end is None or self.tokenizer.encode("x").ids[-1] != end:
            raise CheckpointError(
                f"{folder / 'tokenizer.json'} does not end a prompt with {END_OF_TEXT}; songs would sound wrong "
                "and nothing else would tell.",
                "Download that folder again.",
            )
        try:
            config = Qwen3Config(**checkpoints.read_json(folder / "config.json"))
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

    def tokens(self, prompt: str, limit: int, warn: Callable[[str], None]) -> Tensor:
        """Token ids [1, L], at most `limit`, the closing token kept; `warn` hears of what was cut."""
        ids = self.tokenizer.encode(prompt).ids
        if len(ids) > limit:
            lost = self.tokenizer.decode(ids[limit - 1 : -1])
            warn(f"The prompt is {len(ids)} tokens long and the model reads {limit}; this was cut off: {shorten(lost)}")
            ids = [*ids[: limit - 1], ids[-1]]
        return torch.tensor([ids], device=self.device)

    def states(self, prompt: str, warn: Callable[[str], None]) -> Tensor:
        """Last hidden states [1, L, width] of a text prompt; causal, so no mask."""
        return self.model(self.tokens(prompt, TEXT_TOKENS, warn)).last_hidden_state

    def embeddings(self, prompt: str, warn: Callable[[str], None]) -> Tensor:
        """Rows of the embedding table [1, L, width] for a lyric prompt; its own encoder gives context."""
        return self.model.embed_tokens(self.tokens(prompt, LYRIC_TOKENS, warn))


def shorten(text: str, limit: int = 60) -> str:
    """One line of at most `limit` characters, quoted."""
    line = " ".join(text.split())
    return repr(line if len(line) <= limit else line[: limit - 1] + "…")
