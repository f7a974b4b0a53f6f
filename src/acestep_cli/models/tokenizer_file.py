"""Tokenizer files, checked before the library runs them.

A tokenizer is a small program: a normalizer may replace each letter by many, a template may add any number of tokens.
Published ones are byte pairs behind a Unicode normal form, and none but such ones are run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from acestep_cli.errors import CheckpointError
from acestep_cli.models import weight_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Tokens of a vocabulary at most; published ones have 217,204.
MOST_TOKENS = 4_194_304
#: Parts of a template, and tokens that one of its marks stands for.
MOST_PARTS = 64


class Normalizer(BaseModel):
    """A normalizer that gives back about as many letters as it is given."""

    type: Literal["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Sequence"]
    normalizers: Annotated[tuple[Normalizer, ...], Field(max_length=16)] = ()


class TokenModel(BaseModel):
    """The table of byte pairs."""

    type: Literal["BPE"] = "BPE"
    dropout: Annotated[float, Field(ge=0, le=0)] | None = None
    vocab: dict[str, Annotated[int, Field(ge=0, lt=MOST_TOKENS)]]


class TemplateToken(BaseModel):
    """A mark of a template, and the tokens that it stands for."""

    ids: Annotated[tuple[Annotated[int, Field(ge=0, lt=MOST_TOKENS)], ...], Field(max_length=MOST_PARTS)] = ()


class PostProcessor(BaseModel):
    """The step of a tokenizer that puts marks around the tokens of a text."""

    type: Literal["ByteLevel", "TemplateProcessing", "Sequence"]
    single: Annotated[tuple[Any, ...], Field(max_length=MOST_PARTS)] = ()
    pair: Annotated[tuple[Any, ...], Field(max_length=MOST_PARTS)] = ()
    special_tokens: dict[str, TemplateToken] = {}
    processors: Annotated[tuple[PostProcessor, ...], Field(max_length=16)] = ()


class TokenizerFile(BaseModel):
    """A `tokenizer.json`, as far as it decides how much comes of a text."""

    model: TokenModel
    normalizer: Normalizer | None = None
    post_processor: PostProcessor | None = None


def read_tokenizer(file: Path) -> dict[str, Any]:
    """Read a tokenizer file, without running it. `CheckpointError` names the keys that this program does not run."""
    content = weight_files.read_json(file)
    try:
        TokenizerFile.model_validate(content)
    except ValidationError as error:
        problems = [": ".join([".".join(map(str, one["loc"])), one["msg"]]) for one in error.errors()[:3]]
        raise CheckpointError(
            f"{file} is not a tokenizer that this program runs. {'; '.join(problems)}.", "Download that file again."
        ) from error
    return content


def require_ids(tokenizer: Tokenizer, tokens: int, file: Path) -> None:
    """Raise `CheckpointError` where a tokenizer has a token that is none of the first `tokens` of its model."""
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= tokens:
        raise CheckpointError(
            f"{file}: its tokens go up to {largest:,}, and the model knows those below {tokens:,}.",
            "Tokenizer and model are of different models; download that folder again.",
        )
