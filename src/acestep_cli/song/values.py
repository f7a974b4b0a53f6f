"""Kinds of values: each reads its values, and describes their range.

A kind reads text, as flags and YAML scalars give it, and Python values, and returns one canonical form. It refuses any
other value with a sentence; it never clamps. Here are the general kinds; those of music are in `musical_values`, those
of files and checkpoints in `file_values`.
"""

from __future__ import annotations

import difflib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def quoted(value: object, limit: int = 40) -> str:
    """Return `value` in quotes for a message, on one line and cut to `limit` characters."""
    text = " ".join(str(value).split())
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` where a known word is near, else an empty string."""
    near = difflib.get_close_matches(word.casefold(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


class Kind(ABC):
    #: True where its flag may be given several times, for a list of values.
    several = False
    #: True where an item of its list may be a map of texts.
    of_maps = False
    #: True for paths, which in a spec are relative to its folder.
    is_path = False

    @property
    @abstractmethod
    def metavar(self) -> str:
        """The range, as `--help` writes it."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words that completion offers."""
        return ()

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values as a spec writes them."""
        return self.words[:3]

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (draft 7) of its values in a spec."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Return the value in its canonical form. Raises `ValueError` with a sentence where it is not of this kind."""


@dataclass(frozen=True)
class Text(Kind):
    metavar: str = "TEXT"

    def schema(self) -> dict[str, Any]:
        return {"type": ["string", "number"], "pattern": r"\S"}

    def read(self, value: Any) -> str:
        text = require_text(value)
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # how Python carries bytes it cannot decode
            raise ValueError(f"{quoted(value)} is not UTF-8 text")
        return text


@dataclass(frozen=True)
class Tag(Text):
    """Text for the tags of a file: at most `most` characters, and on one line unless `lines`."""

    most: int = 500
    lines: bool = False

    def schema(self) -> dict[str, Any]:
        return {**super().schema(), "maxLength": self.most}

    def read(self, value: Any) -> str:
        text = super().read(value).strip()
        if len(text) > self.most:
            raise ValueError(f"has {len(text):,} characters; the tags of a file take {self.most:,}")
        if any(unicodedata.category(letter) == "Cc" and not (self.lines and letter in "\n\t") for letter in text):
            held = "a control character" if self.lines else "a line break or another control character"
            raise ValueError(f"{quoted(value)} holds {held}")
        return text


class Switch(Kind):
    metavar = "true|false"
    words = ("true", "false")

    @property
    def examples(self) -> tuple[Any, ...]:
        return (True,)

    def schema(self) -> dict[str, Any]:
        return {"enum": [True, False, "yes", "no", "on", "off"]}

    def read(self, value: Any) -> bool:
        meaning = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        answer = meaning.get(str(value).casefold())
        if answer is None:
            raise ValueError(f"{quoted(value)} is neither true nor false")
        return answer


@dataclass(frozen=True)
class Number(Kind):
    """A number from `low` to `high`, both included."""

    low: float
    high: float | None = None
    type: ClassVar[type] = float
    noun: ClassVar[str] = "number"

    @property
    def metavar(self) -> str:
        between = ".." if self.low < 0 else "-"
        return f"{self.low:.10g}-" if self.high is None else f"{self.low:.10g}{between}{self.high:.10g}"

    @property
    def examples(self) -> tuple[Any, ...]:
        return (self.low,)

    def schema(self) -> dict[str, Any]:
        return _bounded(self.type, self.low, self.high).json_schema()

    def read(self, value: Any) -> Any:
        from pydantic import ValidationError  # a TAB, which reads no value, does without

        try:
            return _bounded(self.type, self.low, self.high).validate_python(str(value))  # as text: True is not 1
        except ValidationError as error:
            shown = quoted(value) if "parsing" in error.errors()[0]["type"] else quoted(value)[1:-1]
            bounds = f"of at least {self.low:g}" if self.high is None else f"from {self.low:g} to {self.high:.10g}"
            raise ValueError(f"{shown} is not a {self.noun} {bounds}") from error


class Whole(Number):
    """A whole number from `low` to `high`, both included."""

    type = int
    noun = "whole number"


@cache
def _bounded(kind: type, low: float, high: float | None) -> TypeAdapter[Any]:
    from pydantic import Field, TypeAdapter

    bounded: Any = Annotated[kind, Field(ge=low, le=high)]
    return TypeAdapter(bounded)


class Share(Number):
    """A part of a whole, from 0 to 1; `40%` is 0.4."""

    metavar = "0-1|40%"

    def __init__(self) -> None:
        super().__init__(0, 1)

    @property
    def examples(self) -> tuple[Any, ...]:
        return (0.4, "40%")

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [super().schema(), {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}]}

    def read(self, value: Any) -> Any:
        text = str(value).strip()
        if not text.endswith("%"):
            return super().read(value)
        try:
            return Number(0, 100).read(text[:-1].strip()) / 100
        except ValueError as error:
            raise ValueError(f"{quoted(value)} is not from 0% to 100%") from error


@dataclass(frozen=True)
class Choice(Kind):
    names: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return self.names

    @property
    def metavar(self) -> str:
        return "|".join(self.names)

    def schema(self) -> dict[str, Any]:
        return {"enum": [*self.names, *(int(name) for name in self.names if name.isdigit())]}

    def read(self, value: Any) -> str:
        word = str(value).strip().casefold()
        if word not in self.names:
            near = suggestion(word, self.names)
            raise ValueError(f"{quoted(value)} is not one of {', '.join(self.names)}{near}")
        return word


def require_text(value: Any) -> str:
    """Return `value`. Raises `ValueError` where it is not text, or empty."""
    if isinstance(value, list | tuple):
        raise ValueError("a list is not text; put it in quotes, or after `|` on lines of its own")
    if not isinstance(value, str):
        raise ValueError(f"{quoted(value)} is not text")
    if not value.strip():
        raise ValueError("is empty; leave the key out instead")
    return value


def refuse_duplicates(items: Iterable[str]) -> None:
    seen: set[str] = set()
    for item in items:
        if item in seen:
            raise ValueError(f"{quoted(item)} is given twice")
        seen.add(item)


def split_items(value: Any) -> list[Any]:
    """Return the items of a list, or of text with commas between them. Raises `ValueError` where there are none."""
    if isinstance(value, str):
        inner = value.strip()
        value = (inner[1:-1] if inner.startswith("[") and inner.endswith("]") else inner).split(",")
    items = value
    if not isinstance(items, list | tuple):
        items = [items]
    if not items:
        raise ValueError("is an empty list; leave the key out instead")
    return list(items)
