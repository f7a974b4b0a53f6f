"""Kinds of values: each reads its values, and describes their range.

A kind reads text, as flags and YAML scalars give it, and Python values, and returns one canonical form. It refuses any
other value with a sentence; it never clamps.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from acestep_cli.audio import encode
from acestep_cli.audio import loudness as levels
from acestep_cli.models import checkpoints
from acestep_cli.song import languages
from acestep_cli.song.languages import LANGUAGES

#: The tracks that the model was trained on.
TRACKS = (
    *("woodwinds", "brass", "fx", "synth", "strings", "percussion"),
    *("keyboard", "guitar", "bass", "drums", "backing_vocals", "vocals"),
)
EVERY_TRACK = "all"
#: The share of the steps in which a repaint keeps the surroundings of its region fixed; None: 1 - `repaint_strength`.
REPAINT_MODES: Mapping[str, float | None] = {"conservative": 1.0, "balanced": None, "aggressive": 0.0}

#: Meanings of the scales of several adapters: each by itself, or as shares of their sum.
LORA_MODES = ("sum", "blend")

LONGEST_SECONDS = 600
CODES_PER_SECOND = 5
MOST_CODES = CODES_PER_SECOND * LONGEST_SECONDS
#: Pulses in a bar of each time signature; bpm counts them. 6/8 is counted in two, as it is conducted.
PULSES: Mapping[str, int] = {"2/4": 2, "3/4": 3, "4/4": 4, "6/8": 2}
TIME_SIGNATURES = tuple(PULSES)


def quoted(value: object, limit: int = 40) -> str:
    """Return `value` in quotes for a message, on one line and cut to `limit` characters."""
    text = " ".join(str(value).split())
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` where a known word is near, else an empty string."""
    near = difflib.get_close_matches(word.casefold(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def is_folder_name(model: str) -> bool:
    """Return True where `model` names a folder on disk rather than a checkpoint of the table."""
    return model.startswith(("~", ".")) or "/" in model or "\\" in model


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


class File(Kind):
    """The path of a file. It may contain names that are not UTF-8, because it is opened and not written down."""

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
        return name


class Picture(File):
    """The path of a picture. It is written into sidecars, so it has to be text."""

    metavar = "JPG|PNG"
    is_path = True

    @property
    def examples(self) -> tuple[Any, ...]:
        return ("cover.jpg",)

    def read(self, value: Any) -> str:
        return Text().read(value)


class Sound(File):
    """The path of an audio file. It is written into sidecars, so it has to be text."""

    metavar = "AUDIO"
    is_path = True

    @property
    def examples(self) -> tuple[Any, ...]:
        return ("take.flac",)

    def read(self, value: Any) -> str:
        return Text().read(super().read(value))


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
            path, scale = self.split(Text().read(value))
            return Lora(File().read(path), self.scale(scale or "1"))
        if strange := [name for name in value if name not in ("path", "scale")]:
            raise ValueError(f"{quoted(strange[0])} is no part of an adapter, which has a path and a scale")
        if value.get("path") is None:
            raise ValueError("an adapter has a path, and this one has none")
        scale = value.get("scale")
        return Lora(Text().read(File().read(value["path"])), self.scale("1" if scale is None else scale))

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


class Tracks(Kind):
    """Names of tracks; `all` is every one."""

    metavar = "TRACK"
    several = True
    words = (*TRACKS, EVERY_TRACK)

    @property
    def examples(self) -> tuple[Any, ...]:
        return ("bass", ["vocals", "drums"], EVERY_TRACK)

    def schema(self) -> dict[str, Any]:
        some = {"type": "array", "items": {"enum": list(TRACKS)}, "minItems": 1, "uniqueItems": True}
        return {"anyOf": [{"enum": list(self.words)}, some, {"type": "string"}]}

    def read(self, value: Any) -> tuple[str, ...]:
        items = [name for item in split_items(value) for name in str(item).split(",")]
        names = [name.strip().casefold().replace(" ", "_").replace("-", "_") for name in items]
        if names == [EVERY_TRACK]:
            return TRACKS
        for name in names:
            if name not in TRACKS:
                near = suggestion(name, TRACKS)
                raise ValueError(f"{quoted(name)} is not one of {', '.join(TRACKS)}{near}")
        refuse_duplicates(names)
        return tuple(names)


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
class Whole(Kind):
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int | None = None

    @property
    def metavar(self) -> str:
        return f"{self.low}-{self.high}" if self.high is not None else f"{self.low}-"

    @property
    def range(self) -> str:
        return f"from {self.low} to {self.high}" if self.high is not None else f"of at least {self.low}"

    @property
    def examples(self) -> tuple[Any, ...]:
        return (self.low,)

    def schema(self) -> dict[str, Any]:
        top = {} if self.high is None else {"maximum": self.high}
        return {"type": "integer", "minimum": self.low, **top}

    def read(self, value: Any) -> int:
        text = str(value).strip()
        # Ten digits hold every bound here; int() of a million digits would take its time.
        if isinstance(value, bool) or not re.fullmatch(r"[+-]?0*\d{1,10}", text):
            raise ValueError(f"{quoted(value)} is not a whole number {self.range}")
        number = int(text)
        if number < self.low or (self.high is not None and number > self.high):
            raise ValueError(f"{number} is not a whole number {self.range}")
        return number


@dataclass(frozen=True)
class Number(Kind):
    """A number from `low` to `high`, both included."""

    low: float
    high: float

    @property
    def metavar(self) -> str:
        return f"{self.low:g}-{self.high:g}"

    @property
    def examples(self) -> tuple[Any, ...]:
        return (self.low,)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def read(self, value: Any) -> float:
        text = str(value).strip()
        plain = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text)
        number = float(text) if plain and not isinstance(value, bool) else None
        if number is None or not self.low <= number <= self.high:
            raise ValueError(f"{quoted(value)} is not a number from {self.low:g} to {self.high:g}")
        return number


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

    def read(self, value: Any) -> float:
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


class Language(Kind):
    """A language by its code (also with a region), its English name, its own name, or another of its codes."""

    metavar = "CODE|NAME"
    words = (*LANGUAGES, *(name for name in LANGUAGES.values() if name not in LANGUAGES and " " not in name))

    def schema(self) -> dict[str, Any]:
        names = dict.fromkeys(name for row in languages.ROWS.values() for name in (row.name, row.own, *row.others))
        codes = "|".join(name for name in languages.known() if re.fullmatch("[a-z]{2,3}", name))
        offered = [*LANGUAGES, *(name for name in names if name not in LANGUAGES)]
        return {"anyOf": [{"enum": offered}, {"type": "string", "pattern": rf"^({codes})([-_.@][A-Za-z0-9]+)*$"}]}

    def read(self, value: Any) -> str:
        code = languages.find(str(value))
        if code is None:
            near = suggestion(str(value).strip(), languages.known())
            raise ValueError(
                f"{quoted(value)} is not a language code such as en, ja or no, nor the name of a language that the "
                f"models know; `acestep spec languages` lists them{near}"
            )
        return code


class MusicalKey(Kind):
    """A musical key: `A minor`, `F# major`. `Am`, `Bb maj` and the signs ♯ ♭ are read, too."""

    metavar = '"A minor"'
    #: Without the blank, which a shell would want quoted.
    words = tuple(f"{note}{sign}{mode}" for note in "ABCDEFG" for sign in ("", "#", "b") for mode in ("minor", "major"))

    @property
    def examples(self) -> tuple[Any, ...]:
        return ("A minor", "F# major", "Bb minor")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\s*[A-Ga-g][#b♯♭]?(?:m|\s*(?:[Mm]inor|min|[Mm]ajor|maj))\s*$"}

    def read(self, value: Any) -> str:
        text = str(value).strip().replace("♯", "#").replace("♭", "b")
        found = re.fullmatch(r"([A-Ga-g])([#b]?)(?:(m)|\s*(minor|min|major|maj))", text, re.IGNORECASE)
        if not found or found[3] == "M":
            # YAML takes ` #` for a comment, so `key: A #m` arrives here as `A`.
            bare = re.fullmatch(r"[A-Ga-g][#b]?", text)
            more = " and `major` or `minor`, in quotes if there is a space before `#`" if bare else ""
            raise ValueError(f"{quoted(value)} is not a key such as A minor or F# major: a note A to G, # or b{more}")
        mode = "minor" if found[3] or found[4].casefold().startswith("min") else "major"
        return f"{found[1].upper()}{found[2].casefold()} {mode}"

    @staticmethod
    def pitch(key: str) -> tuple[int, str]:
        """Return the semitones above C and the mode of a key, which are equal for Db and C#."""
        note, _, mode = key.partition(" ")
        return ("C D EF G A B".index(note[0]) + note.count("#") - note.count("b")) % 12, mode


class TimeSignature(Kind):
    metavar = "|".join(TIME_SIGNATURES)
    words = TIME_SIGNATURES

    def schema(self) -> dict[str, Any]:
        return {"enum": [*TIME_SIGNATURES, *(int(name[0]) for name in TIME_SIGNATURES)]}

    def read(self, value: Any) -> str:
        text = str(value).replace(" ", "")
        for signature in TIME_SIGNATURES:
            if text in (signature, signature.partition("/")[0]):
                return signature
        raise ValueError(f"{quoted(value)} is not one of {', '.join(TIME_SIGNATURES)}")


@dataclass(frozen=True)
class Duration(Kind):
    """Seconds, from `90`, `90s` or `1:30`."""

    low: float
    high: float
    metavar: str = "90|90s|1:30"

    @property
    def examples(self) -> tuple[Any, ...]:
        return (90, "90s", "1:30")

    def schema(self) -> dict[str, Any]:
        seconds = {"type": "number", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [seconds, {"type": "string", "pattern": r"^\s*(\d+(\.\d+)?\s*s?|\d+:[0-5]\d(\.\d+)?)\s*$"}]}

    def read(self, value: Any) -> float:
        text = str(value).strip()
        found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*s?|(\d{1,3}):([0-5]\d(?:\.\d+)?)", text)
        if not found or isinstance(value, bool):
            raise ValueError(f"{quoted(value)} is not a length such as 90, 90s or 1:30")
        seconds = float(found[1]) if found[1] else 60 * int(found[2]) + float(found[3])
        if not self.low <= seconds <= self.high:
            raise ValueError(f"{quoted(value)} is not between {self.low:g} and {self.high:g} seconds")
        return seconds


@dataclass(frozen=True)
class Time(Duration):
    """A time in a recording, in seconds; negative before its beginning."""

    metavar: str = "SECONDS|1:30"

    @property
    def examples(self) -> tuple[Any, ...]:
        return (10, "1:30")

    def schema(self) -> dict[str, Any]:
        seconds = {"type": "number", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [seconds, {"type": "string", "pattern": r"^\s*-?(\d+(\.\d+)?\s*s?|\d+:[0-5]\d(\.\d+)?)\s*$"}]}

    def read(self, value: Any) -> float:
        text = str(value).strip()
        size = Duration(0, math.inf).read(value if isinstance(value, bool) else text.removeprefix("-"))
        seconds = -size if text.startswith("-") else size
        if not self.low <= seconds <= self.high:
            raise ValueError(f"{quoted(value)} is not between {self.low:g} and {self.high:g} seconds")
        return seconds


class Codes(Kind):
    """Audio codes, from numbers or the published `<|audio_code_N|>` string."""

    metavar = "N,N,…"

    @property
    def examples(self) -> tuple[Any, ...]:
        return ([1, 2, 3],)

    def schema(self) -> dict[str, Any]:
        codes = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": MOST_CODES}
        return {"anyOf": [codes, {"type": "string"}, {"type": "integer", "minimum": 0}]}

    def read(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, str) and "<|" in value:
            if re.sub(r"<\|audio_code_\d+\|>|\s", "", value):
                raise ValueError(f"{quoted(value)} holds more than <|audio_code_N|> marks")
            items: Iterable[Any] = re.findall(r"\d+", value)
        else:
            items = split_items(value)
        codes = tuple(Whole(0).read(item) for item in items)
        if len(codes) > MOST_CODES:
            raise ValueError(f"are {len(codes)}; a song of 600 s, the longest there is, takes {MOST_CODES}")
        return codes


class Timesteps(Kind):
    """A noise schedule: from 1 (noise) falling towards 0 (music)."""

    metavar = "1,0.9,…"

    @property
    def examples(self) -> tuple[Any, ...]:
        return ([1, 0.8, 0.5],)

    def schema(self) -> dict[str, Any]:
        level = {"type": "number", "minimum": 0, "maximum": 1}
        return {"anyOf": [{"type": "array", "items": level, "minItems": 1}, {"type": "string"}, level]}

    def read(self, value: Any) -> tuple[float, ...]:
        times = tuple(Number(0, 1).read(item) for item in split_items(value))
        for earlier, later in pairwise(times):
            if later >= earlier:
                raise ValueError(
                    f"rises from {earlier:g} to {later:g}; timesteps fall from 1 (noise) towards 0 (music)"
                )
        if times[0] == 0:
            raise ValueError("leaves no step to take; timesteps fall from 1 (noise) towards 0 (music)")
        return times


class Interval(Kind):
    """The part of the schedule, as two noise levels, in which guidance acts."""

    metavar = "0.1,0.9"

    @property
    def examples(self) -> tuple[Any, ...]:
        return ([0.1, 0.9],)

    def schema(self) -> dict[str, Any]:
        level = {"type": "number", "minimum": 0, "maximum": 1}
        return {"anyOf": [{"type": "array", "items": level, "minItems": 2, "maxItems": 2}, {"type": "string"}]}

    def read(self, value: Any) -> tuple[float, float]:
        bounds = [Number(0, 1).read(item) for item in split_items(value)]
        if len(bounds) != 2 or bounds[0] > bounds[1]:
            raise ValueError(f"{quoted(value)} is not two numbers, low then high, such as 0.1,0.9")
        return bounds[0], bounds[1]


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
        name = Text().read(value)
        if not is_folder_name(name) and name not in self.names:
            near = suggestion(name, self.names)
            raise ValueError(
                f"{quoted(value)} is not one of {', '.join(self.names)}, nor a folder (one is written with a /){near}"
            )
        return name


class Model(Named):
    def __init__(self) -> None:
        super().__init__(checkpoints.MODEL_CHOICES)


class Songwriter(Named):
    def __init__(self) -> None:
        super().__init__(checkpoints.SONGWRITER_CHOICES)


class Loudness(Kind):
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
