"""Kinds of musical values: tracks, language, key, time signature, times, audio codes, noise schedules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from acestep_cli.song import languages, musical_keys
from acestep_cli.song.languages import LANGUAGES
from acestep_cli.song.values import Kind, Number, Whole, quoted, refuse_duplicates, split_items, suggestion

#: The tracks that the model was trained on.
TRACKS = (
    *("woodwinds", "brass", "fx", "synth", "strings", "percussion"),
    *("keyboard", "guitar", "bass", "drums", "backing_vocals", "vocals"),
)
EVERY_TRACK = "all"
#: The share of the steps in which a repaint keeps the surroundings of its region fixed; None: 1 - `repaint_strength`.
REPAINT_MODES: Mapping[str, float | None] = {"conservative": 1.0, "balanced": None, "aggressive": 0.0}
LONGEST_SECONDS = 600
#: The latest time in a recording, in seconds, of which only a part may be in view.
LATEST_TIME = 7200
CODES_PER_SECOND = 5
MOST_CODES = CODES_PER_SECOND * LONGEST_SECONDS
#: Pulses in a bar of each time signature; bpm counts them. 6/8 is counted in two, as it is conducted.
PULSES: Mapping[str, int] = {"2/4": 2, "3/4": 3, "4/4": 4, "6/8": 2}
TIME_SIGNATURES = tuple(PULSES)


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
    """A musical key: `A minor`, `F# major`. Other spellings, also of other languages, are in `musical_keys`."""

    metavar = '"A minor"'
    #: Without the blank, which a shell would want quoted.
    words = tuple(f"{note}{sign}{mode}" for note in "ABCDEFG" for sign in ("", "#", "b") for mode in ("minor", "major"))

    @property
    def examples(self) -> tuple[Any, ...]:
        return ("A minor", "F# major", "Bb minor")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": musical_keys.pattern()}

    def read(self, value: Any) -> str:
        text = str(value)
        try:
            key = musical_keys.read_key(text)
        except ValueError as error:
            raise ValueError(f"{quoted(value)} {error}") from error
        if key is None:
            # YAML takes ` #` for a comment, so `key: A #m` arrives here as `A`.
            bare = re.fullmatch(r"[A-Ga-g][#b♯♭]?", text.strip())
            more = " and `major` or `minor`, in quotes if there is a space before `#`" if bare else ""
            raise ValueError(f"{quoted(value)} is not a key such as A minor or F# major: a note A to G, # or b{more}")
        return key

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


#: Seconds, or with `m` or `min` minutes; or minutes and seconds.
LENGTH_PATTERN = r"(\d{1,6}(?:\.\d+)?)\s*(s|m|min)?|(\d{1,3}):([0-5]\d(?:\.\d+)?)"


@dataclass(frozen=True)
class Duration(Kind):
    """Seconds, from `90`, `90s`, `1:30` or `1.5 min`."""

    low: float
    high: float
    metavar: str = "90|90s|1:30"

    @property
    def examples(self) -> tuple[Any, ...]:
        return (90, "90s", "1:30")

    def schema(self) -> dict[str, Any]:
        seconds = {"type": "number", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [seconds, {"type": "string", "pattern": rf"^\s*({LENGTH_PATTERN})\s*$"}]}

    def read(self, value: Any) -> float:
        text = str(value).strip()
        found = re.fullmatch(LENGTH_PATTERN, text)
        if not found or isinstance(value, bool):
            raise ValueError(f"{quoted(value)} is not a length such as 90, 90s or 1:30")
        if found[1]:
            seconds = float(found[1]) * (60 if found[2] in ("m", "min") else 1)
        else:
            seconds = 60 * int(found[3]) + float(found[4])
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
        return {"anyOf": [seconds, {"type": "string", "pattern": rf"^\s*-?({LENGTH_PATTERN})\s*$"}]}

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
            raise ValueError("leaves no step to make; timesteps fall from 1 (noise) towards 0 (music)")
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
