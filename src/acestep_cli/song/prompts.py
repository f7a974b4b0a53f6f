"""The prompts of the text and lyric encoders, and their length limits in tokens.

Exact strings and limits: docs/specification.md, 4 Prompts and text encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.models import tokenizer_file
from acestep_cli.song.values import quoted

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from acestep_cli.song.request import Request

END_OF_TEXT = "<|endoftext|>"
TEXT_TOKENS = 256
LYRIC_TOKENS = 2048
NOT_GIVEN = "N/A"
INSTRUMENTAL = "[Instrumental]"


def metadata_lines(bpm: int | None, time_signature: str | None, key: str | None, seconds: float) -> str:
    """Return the four lines of metadata; `seconds` is the length that will be rendered."""
    beats = time_signature.split("/")[0] if time_signature else NOT_GIVEN
    return (
        f"- bpm: {bpm or NOT_GIVEN}\n- timesignature: {beats}\n"
        f"- keyscale: {key or NOT_GIVEN}\n- duration: {int(seconds)} seconds\n"
    )


def text_prompt(instruction: str, caption: str, metas: str) -> str:
    """Return the prompt of the text encoder."""
    return f"# Instruction\n{instruction}\n\n# Caption\n{caption}\n\n# Metas\n{metas}{END_OF_TEXT}\n"


def lyric_heading(language: str | None) -> str:
    """Return the heading above the lyrics."""
    return f"# Languages\n{language or 'unknown'}\n\n# Lyric\n"


def lyric_prompt(lyrics: str | None, language: str | None) -> str:
    """Return the prompt of the lyric encoder; without lyrics, it is that of an instrumental."""
    return f"{lyric_heading(language)}{lyrics or INSTRUMENTAL}{END_OF_TEXT}"


def prompts_of(request: Request, instruction: str, seconds: float) -> tuple[str, str]:
    """Return the text prompt and the lyric prompt of a request."""
    about = metadata_lines(request.bpm, request.time_signature, request.key, seconds)
    text = text_prompt(instruction, request.caption or "", about)
    return text, lyric_prompt(request.lyrics, request.language)


def truncation_notice(tokenizer: Tokenizer, ids: Sequence[int], limit: int) -> str:
    """Return the message for a prompt longer than `limit` tokens, with the text that is cut off.

    The closing token is kept.
    """
    lost = quoted(tokenizer.decode(list(ids[limit - 1 : -1])), 60)
    return f"The prompt is {len(ids)} tokens long and the model reads {limit}; this is cut off: {lost}"


def truncation_notices(text: str, lyrics: str, file: Path) -> Iterator[str]:
    """Yield a message for each prompt that is too long. Load the tokenizer only where the bytes exceed the limit."""
    for prompt, limit in ((text, TEXT_TOKENS), (lyrics, LYRIC_TOKENS)):
        if len(prompt.encode(errors="replace")) <= limit:  # no token is shorter than a byte
            continue
        tokenizer = _load_tokenizer(file)
        ids = tokenizer.encode(prompt).ids
        if len(ids) > limit:
            yield truncation_notice(tokenizer, ids, limit)


_load_tokenizer = cache(tokenizer_file.load_tokenizer)
