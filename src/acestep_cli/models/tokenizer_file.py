"""Tokenizer files, checked before the library runs them.

A tokenizer is a small program: a normalizer may replace each letter by many, a template may add any number of tokens,
and the expression that splits a text may take years on it, since the library's engine backtracks. Published ones are
byte pairs behind a Unicode normal form and a well-known expression, and none but such ones are run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from acestep_cli.errors import CheckpointError
from acestep_cli.models import weight_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Tokens of a vocabulary at most; published ones have 217,204.
MOST_TOKENS = 4_194_304
#: Parts of a template, and tokens that one of its marks stands for.
MOST_PARTS = 64
#: Bytes of a tokenizer file.
MOST_BYTES = 128 << 20
#: The expressions that split a text in published tokenizers: those of Qwen2 and Qwen3, of Qwen3.5, of Llama 3 and of
#: GPT-2. Each takes time in proportion to a text. Whether another one does cannot be told by looking at it.
SPLITS = frozenset({
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
})  # fmt: skip


def _require_known_split(expression: str) -> str:
    if expression not in SPLITS:
        raise ValueError("is none of the expressions of published tokenizers, and might take years on a text")
    return expression


class Normalizer(BaseModel):
    """A normalizer that gives back about as many letters as it is given."""

    type: Literal["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Sequence"]
    normalizers: Annotated[tuple[Normalizer, ...], Field(max_length=16)] = ()


class SplitPattern(BaseModel):
    """The place where a text is split: an expression, or letters as they stand."""

    Regex: Annotated[str, AfterValidator(_require_known_split)] | None = None
    String: Annotated[str, Field(min_length=1, max_length=256)] | None = None


class PreTokenizer(BaseModel):
    """A step that splits a text before byte pairs are looked up, in time proportional to the text."""

    type: Literal["ByteLevel", "Digits", "Punctuation", "Sequence", "Split", "Whitespace", "WhitespaceSplit"]
    pattern: SplitPattern | None = None
    pretokenizers: Annotated[tuple[PreTokenizer, ...], Field(max_length=16)] = ()


class TokenDecoder(BaseModel):
    """A step that makes text of tokens."""

    type: Literal["ByteFallback", "ByteLevel", "Fuse", "Sequence"]
    decoders: Annotated[tuple[TokenDecoder, ...], Field(max_length=16)] = ()


class TokenModel(BaseModel):
    """The table of byte pairs."""

    type: Literal["BPE"] = "BPE"
    dropout: Annotated[float, Field(ge=0, le=0)] | None = None
    continuing_subword_prefix: Annotated[str, Field(max_length=16)] | None = None
    end_of_word_suffix: Annotated[str, Field(max_length=16)] | None = None
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
    """A `tokenizer.json`, as far as it decides how much comes of a text, and when."""

    model: TokenModel
    normalizer: Normalizer | None = None
    pre_tokenizer: PreTokenizer | None = None
    decoder: TokenDecoder | None = None
    post_processor: PostProcessor | None = None


def read_tokenizer(file: Path) -> dict[str, Any]:
    """Read a tokenizer file, without running it. `CheckpointError` names the keys that this program does not run."""
    content = weight_files.read_json(file, MOST_BYTES)
    try:
        TokenizerFile.model_validate(content)
    except ValidationError as error:
        problems = [": ".join([".".join(map(str, one["loc"])), one["msg"]]) for one in error.errors()[:3]]
        raise CheckpointError(
            f"{file} is not a tokenizer that this program runs. {'; '.join(problems)}.", "Download that file again."
        ) from error
    return content


def load_tokenizer(file: Path) -> Tokenizer:
    """Load a tokenizer without the limits that its file may carry. Raises `CheckpointError` as `read_tokenizer`."""
    read_tokenizer(file)
    return build_tokenizer(file.read_text(encoding="utf-8-sig"), file)


def build_tokenizer(content: str, file: Path) -> Tokenizer:
    """Build a tokenizer from the checked content of `file`. Raises `CheckpointError` where the library refuses it."""
    from tokenizers import Tokenizer

    try:
        tokenizer: Tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{file} is not a tokenizer ({error}).", "Download that file again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def require_ids(tokenizer: Tokenizer, tokens: int, file: Path) -> None:
    """Raise `CheckpointError` where a tokenizer has a token that is none of the first `tokens` of its model."""
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= tokens:
        raise CheckpointError(
            f"{file}: its tokens go up to {largest:,}, and the model knows those below {tokens:,}.",
            "Tokenizer and model are of different models; download that folder again.",
        )
