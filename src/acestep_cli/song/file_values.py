"""Kinds of values that name files and checkpoints, or shape the file that is written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acestep_cli.audio import encode
from acestep_cli.audio import loudness as levels
from acestep_cli.models import checkpoint_table
from acestep_cli.song.values import Kind, quoted, refuse_duplicates, require_text, split_items, suggestion

#: Meanings of the scales of several adapters: each by itself, or as shares of their sum.
LORA_MODES = ("sum", "blend")


def is_folder_name(model: str) -> bool:
    """Return True where `model` names a folder on disk rather than a checkpoint of the table."""
    return model.startswith(("~", ".")) or "/" in model or "\\" in model


class File(Kind):
    """The path of a file. Names in it may be no UTF-8: each byte that is none is a surrogate, as in `os.fsdecode`."""

    metavar = "FILE"

    @property
    def examples(self) -> tuple[Any, ...]:
        return ("words.txt",)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}

    def read(self, value: Any) -> str:
        name = require_text(value)
        if "\0" in name:
            raise ValueError("holds the character NUL, which no file name can")
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            raise ValueError(f"{quoted(value)} has half of a character, which no file name can") from None
        return name


class Picture(File):
    """The path of a picture."""

    metavar = "JPG|PNG"
    is_path = True

    @property
    def examples(self) -> tuple[Any, ...]:
        return ("cover.jpg",)


class Sound(File):
    """The path of an audio file."""

    metavar = "AUDIO"
    is_path = True

    @property
    def examples(self) -> tuple[Any, ...]:
        return ("take.flac",)


class Sounds(Kind):
    """The paths of one or several audio files."""

    metavar = "AUDIO"
    several = True
    is_path = True

    @property
    def examples(self) -> tuple[Any, ...]:
        return ("jazz.mp3", ["jazz.mp3", "swing.wav"])

    def schema(self) -> dict[str, Any]:
        one = Sound().schema()
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}

    def read(self, value: Any) -> tuple[str, ...]:
        files = tuple(Sound().read(item) for item in split_items([value] if isinstance(value, str) else value))
        refuse_duplicates(files)
        return files


@dataclass(frozen=True)
class Lora:
    """The path of an adapter and the scale of its effect: 1 is as it was trained."""

    path: str
    scale: float = 1.0


class Loras(Kind):
    """Adapters, each a path with its scale behind the last `@`, or a map of the two."""

    metavar = "PATH[@SCALE]"
    several = True
    of_maps = True
    is_path = True
    #: The text behind the `@`.
    pattern = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*%?"

    @property
    def examples(self) -> tuple[Any, ...]:
        return ([{"path": "my-sound/", "scale": 0.6}], "my-sound@60%", ["my-sound", "jazz.safetensors@0.4"])

    def schema(self) -> dict[str, Any]:
        text = {"type": "string", "minLength": 1}
        scale = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": rf"^\s*{self.pattern}\s*$"}]}
        both = {"path": text, "scale": scale}
        one = {"anyOf": [text, {"type": "object", "properties": both, "required": ["path"],
                                "additionalProperties": False}]}  # fmt: skip
        return {"anyOf": [text, {"type": "array", "items": one, "minItems": 1}]}

    def read(self, value: Any) -> tuple[Lora, ...]:
        loras = tuple(self._one(item) for item in split_items([value] if isinstance(value, str) else value))
        refuse_duplicates(lora.path for lora in loras)
        return loras

    def _one(self, value: Any) -> Lora:
        if isinstance(value, Lora):
            return value
        if not isinstance(value, Mapping):
            path, scale = self.split(require_text(value))
            return Lora(File().read(path), self.scale(scale or "1"))
        if strange := [name for name in value if name not in ("path", "scale")]:
            raise ValueError(f"{quoted(strange[0])} is not a key of an adapter, which has a path and a scale")
        if value.get("path") is None:
            raise ValueError("an adapter has a path, and this one has none")
        scale = value.get("scale")
        return Lora(File().read(value["path"]), self.scale("1" if scale is None else scale))

    @classmethod
    def split(cls, text: str) -> tuple[str, str | None]:
        """Split `PATH@SCALE` into path and scale; None where no number stands behind the last `@`."""
        path, _, scale = text.rpartition("@")
        return (path, scale) if re.fullmatch(cls.pattern, scale.strip()) and "@" in text else (text, None)

    @classmethod
    def scale(cls, value: Any) -> float:
        """Return the scale as a number, from `0.6` or `60%`."""
        text = str(value).strip()
        number = float(text.rstrip("% ")) if re.fullmatch(cls.pattern, text) else math.nan
        if not math.isfinite(number) or isinstance(value, bool):
            raise ValueError(f"{quoted(value)} is not a scale such as 0.6, 60% or -1")
        return number / 100 if text.endswith("%") else number


@dataclass(frozen=True)
class Named(Kind):
    """A name from a table, or a folder."""

    names: tuple[str, ...]
    metavar = "NAME|FOLDER"

    @property
    def words(self) -> tuple[str, ...]:
        return self.names

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(self.names)}, {"type": "string", "pattern": r"[/\\]|^[.~]"}]}

    def read(self, value: Any) -> str:
        name = File().read(value)
        if not is_folder_name(name) and name not in self.names:
            near = suggestion(name, self.names)
            raise ValueError(
                f"{quoted(value)} is not one of {', '.join(self.names)}, nor a folder (one is written with a /){near}"
            )
        return name


class ModelName(Named):
    def __init__(self) -> None:
        super().__init__(checkpoint_table.MODEL_CHOICES)


class SongwriterName(Named):
    def __init__(self) -> None:
        super().__init__(checkpoint_table.SONGWRITER_CHOICES)


class LoudnessTarget(Kind):
    metavar = "none|peak:-1|lufs:-14"
    words = ("none", "peak:-1", "lufs:-14")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\s*(none|peak:(-\d+(\.\d+)?|0)|lufs:-\d+(\.\d+)?)\s*$"}

    def read(self, value: Any) -> str:
        text = str(value).strip().casefold()
        loudness = levels.parse_loudness(text)
        return loudness.kind if loudness.kind == "none" else f"{loudness.kind}:{loudness.decibels:g}"


class Bitrate(Kind):
    metavar = f"{encode.BITRATES[0]}k…{encode.BITRATES[-1]}k"
    words = tuple(f"{rate}k" for rate in encode.BITRATES)

    def schema(self) -> dict[str, Any]:
        return {"enum": [*self.words, *encode.BITRATES]}

    def read(self, value: Any) -> int:
        text = str(value).strip().casefold().removesuffix("k")
        if text not in {str(rate) for rate in encode.BITRATES}:
            raise ValueError(f"{quoted(value)} is not one of {', '.join(self.words)}")
        return int(text)


class SampleRate(Kind):
    metavar = "|".join(map(str, encode.SAMPLE_RATES))
    words = tuple(map(str, encode.SAMPLE_RATES))

    @property
    def examples(self) -> tuple[Any, ...]:
        return encode.SAMPLE_RATES

    def schema(self) -> dict[str, Any]:
        return {"enum": list(encode.SAMPLE_RATES)}

    def read(self, value: Any) -> int:
        text = str(value).strip()
        if text not in self.words:
            raise ValueError(f"{quoted(value)} is not one of {', '.join(self.words)} (Hz)")
        return int(text)
