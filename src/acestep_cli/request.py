"""What to make: the one value that flows from flags and specs to the engine.

Every key of a song is one field here. Its `Key` carries the help text and the kind of value, and
the kind carries the range: flags, `--help`, completion and messages derive from them. Kinds read
both text, as flags and YAML scalars give it, and finished Python values; what they cannot read
they refuse with a sentence. They never clamp.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from acestep_cli import audio, checkpoints, solvers

LANGUAGES: Mapping[str, str] = {
    "ar": "Arabic", "az": "Azerbaijani", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "ht": "Haitian Creole",
    "hu": "Hungarian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "la": "Latin", "lt": "Lithuanian", "ms": "Malay", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian",
    "pa": "Punjabi", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sa": "Sanskrit",
    "sk": "Slovak", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu",
    "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese",
    "yue": "Cantonese", "zh": "Chinese", "unknown": "unknown",
}  # fmt: skip

LONGEST_SECONDS = 600
MOST_CODES = 5 * LONGEST_SECONDS
TIME_SIGNATURES = ("2/4", "3/4", "4/4", "6/8")


def quoted(value: object) -> str:
    """`value` for a message: on one line, at most 40 characters."""
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 40 else text[:39] + "…")


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where a known word is near, else nothing."""
    near = difflib.get_close_matches(word.casefold(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def is_folder_name(model: str) -> bool:
    """Whether `model` names a folder on disk rather than a checkpoint of the table."""
    return model.startswith(("~", ".")) or "/" in model or "\\" in model


class Kind(Protocol):
    """A kind of value: how it is read, and how `--help` writes its range."""

    @property
    def metavar(self) -> str: ...

    @property
    def words(self) -> tuple[str, ...]:
        """What completion offers."""
        ...

    def read(self, value: Any) -> Any:
        """The value in its canonical form. `ValueError`, with a sentence, if it is not of this kind."""
        ...


@dataclass(frozen=True)
class Text:
    metavar: str = "TEXT"
    words: tuple[str, ...] = ()

    def read(self, value: Any) -> str:
        if isinstance(value, list | tuple):
            raise ValueError("a list is not text; put it in quotes, or after `|` on lines of its own")
        if not isinstance(value, str):
            raise ValueError(f"{quoted(value)} is not text")
        if not value.strip():
            raise ValueError("is empty; leave the key out instead")
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # how Python carries bytes it cannot decode
            raise ValueError(f"{quoted(value)} is not UTF-8 text")
        return value


@dataclass(frozen=True)
class Switch:
    metavar: str = "true|false"
    words: tuple[str, ...] = ("true", "false")

    def read(self, value: Any) -> bool:
        meaning = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        answer = meaning.get(str(value).casefold())
        if answer is None:
            raise ValueError(f"{quoted(value)} is neither true nor false")
        return answer


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int | None = None
    words: tuple[str, ...] = ()

    @property
    def metavar(self) -> str:
        return f"{self.low}-{self.high}" if self.high is not None else f"{self.low}-"

    @property
    def range(self) -> str:
        return f"from {self.low} to {self.high}" if self.high is not None else f"of at least {self.low}"

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
class Number:
    """A number from `low` to `high`, both included."""

    low: float
    high: float
    words: tuple[str, ...] = ()

    @property
    def metavar(self) -> str:
        return f"{self.low:g}-{self.high:g}"

    def read(self, value: Any) -> float:
        text = str(value).strip()
        plain = re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text)
        number = float(text) if plain and not isinstance(value, bool) else None
        if number is None or not self.low <= number <= self.high:
            raise ValueError(f"{quoted(value)} is not a number from {self.low:g} to {self.high:g}")
        return number


@dataclass(frozen=True)
class Choice:
    words: tuple[str, ...]

    @property
    def metavar(self) -> str:
        return "|".join(self.words)

    def read(self, value: Any) -> str:
        word = str(value).strip().casefold()
        if word not in self.words:
            near = suggestion(word, self.words)
            raise ValueError(f"{quoted(value)} is not one of {', '.join(self.words)}{near}")
        return word


@dataclass(frozen=True)
class Language:
    metavar: str = "CODE|NAME"
    words: tuple[str, ...] = tuple(LANGUAGES)

    def read(self, value: Any) -> str:
        word = str(value).strip().casefold()
        codes = {name.casefold(): code for code, name in LANGUAGES.items()}
        code = word if word in LANGUAGES else codes.get(word)
        if code is None:
            near = suggestion(word, [*LANGUAGES, *codes])
            raise ValueError(
                f"{quoted(value)} is not a language code such as en, ja or no, nor an English name of one{near}"
            )
        return code


@dataclass(frozen=True)
class MusicalKey:
    """`A minor`, `F# major`; `Am`, `Bb maj` and the signs ♯ ♭ are read as meant."""

    metavar: str = '"A minor"'
    words: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class TimeSignature:
    metavar: str = "|".join(TIME_SIGNATURES)
    words: tuple[str, ...] = TIME_SIGNATURES

    def read(self, value: Any) -> str:
        text = str(value).replace(" ", "")
        for signature in TIME_SIGNATURES:
            if text in (signature, signature.partition("/")[0]):
                return signature
        raise ValueError(f"{quoted(value)} is not one of {', '.join(TIME_SIGNATURES)}")


@dataclass(frozen=True)
class Duration:
    """Seconds, from `90`, `90s` or `1:30`."""

    low: float
    high: float
    metavar: str = "90|90s|1:30"
    words: tuple[str, ...] = ()

    def read(self, value: Any) -> float:
        text = str(value).strip()
        found = re.fullmatch(r"(?:(\d{1,3}):(?=[0-5]\d))?(\d{1,6}(?:\.\d+)?)\s*s?", text)
        if not found or isinstance(value, bool) or (found[1] and text.endswith("s")):
            raise ValueError(f"{quoted(value)} is not a length such as 90, 90s or 1:30")
        seconds = 60 * int(found[1] or 0) + float(found[2])
        if not self.low <= seconds <= self.high:
            raise ValueError(f"{quoted(value)} is not between {self.low:g} and {self.high:g} seconds")
        return seconds


@dataclass(frozen=True)
class Codes:
    """Audio codes, from numbers or the published `<|audio_code_N|>` string."""

    metavar: str = "N,N,…"
    words: tuple[str, ...] = ()

    def read(self, value: Any) -> tuple[int, ...]:
        if isinstance(value, str) and "<|" in value:
            if re.sub(r"<\|audio_code_\d+\|>|\s", "", value):
                raise ValueError(f"{quoted(value)} holds more than <|audio_code_N|> marks")
            items: Iterable[Any] = re.findall(r"\d+", value)
        else:
            items = items_of(value)
        codes = tuple(Whole(0).read(item) for item in items)
        if len(codes) > MOST_CODES:
            raise ValueError(f"are {len(codes)}; a song of 600 s, the longest there is, takes {MOST_CODES}")
        return codes


@dataclass(frozen=True)
class Timesteps:
    """A noise schedule: from 1 (noise) falling towards 0 (music)."""

    metavar: str = "1,0.9,…"
    words: tuple[str, ...] = ()

    def read(self, value: Any) -> tuple[float, ...]:
        times = tuple(Number(0, 1).read(item) for item in items_of(value))
        for earlier, later in pairwise(times):
            if later >= earlier:
                raise ValueError(
                    f"rises from {earlier:g} to {later:g}; timesteps fall from 1 (noise) towards 0 (music)"
                )
        if times[0] == 0:
            raise ValueError("leaves no step to take; timesteps fall from 1 (noise) towards 0 (music)")
        return times


@dataclass(frozen=True)
class Interval:
    """The part of the schedule, as two noise levels, in which guidance acts."""

    metavar: str = "0.1,0.9"
    words: tuple[str, ...] = ()

    def read(self, value: Any) -> tuple[float, float]:
        bounds = [Number(0, 1).read(item) for item in items_of(value)]
        if len(bounds) != 2 or bounds[0] > bounds[1]:
            raise ValueError(f"{quoted(value)} is not two numbers, low then high, such as 0.1,0.9")
        return bounds[0], bounds[1]


@dataclass(frozen=True)
class Model:
    metavar: str = "NAME|FOLDER"
    words: tuple[str, ...] = checkpoints.MODEL_CHOICES

    def read(self, value: Any) -> str:
        name = Text().read(value)
        if not is_folder_name(name) and name not in self.words:
            near = suggestion(name, self.words)
            raise ValueError(
                f"{quoted(value)} is not one of {', '.join(self.words)}, nor a folder (one is written with a /){near}"
            )
        return name


@dataclass(frozen=True)
class Loudness:
    metavar: str = "none|peak:-1"
    words: tuple[str, ...] = ("none", "peak:-1")

    def read(self, value: Any) -> str:
        text = str(value).strip().casefold()
        audio.peak_target(text)
        return text


@dataclass(frozen=True)
class Bitrate:
    metavar: str = f"{audio.BITRATES[0]}k…{audio.BITRATES[-1]}k"
    words: tuple[str, ...] = tuple(f"{rate}k" for rate in audio.BITRATES)

    def read(self, value: Any) -> int:
        text = str(value).strip().casefold().removesuffix("k")
        if text not in {str(rate) for rate in audio.BITRATES}:
            raise ValueError(f"{quoted(value)} is not one of {', '.join(self.words)}")
        return int(text)


def items_of(value: Any) -> list[Any]:
    """The items of a list, or of text with commas between them. At least one."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        items = [items]
    if not items:
        raise ValueError("is an empty list; leave the key out instead")
    return list(items)


@dataclass(frozen=True)
class Key:
    """A key of the song spec: its kind of value, its help text, the panel of `--help` it stands in."""

    kind: Kind
    help: str
    panel: str
    short: str | None = None
    #: False for a key that has no flag.
    flag: bool = True


SONG, SOUND, OUTPUT = "Song", "Sound", "Output"


class Request(BaseModel):
    """What to make. `None` is "not asked": `modes.complete` decides it, once.

    Paths, the terminal and the machine are not in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Annotated[
        str | None,
        Key(Text("MODE"), "What kind of render this is.", SONG, flag=False),
    ] = None
    caption: Annotated[
        str | None,
        Key(Text(), "What it sounds like: style, instruments, mood, voice.", SONG, short="-c"),
    ] = None
    lyrics: Annotated[
        str | None,
        Key(
            Text(), "Words to sing, with [Verse], [Chorus] and such above the sections; - reads them from stdin.", SONG
        ),
    ] = None
    instrumental: Annotated[
        bool | None,
        Key(Switch(), "No singing.", SONG),
    ] = None
    language: Annotated[
        str | None,
        Key(Language(), "Language of the lyrics: its code or English name.", SONG),
    ] = None
    bpm: Annotated[
        int | None,
        Key(Whole(30, 300), "Tempo in beats per minute.", SONG),
    ] = None
    key: Annotated[
        str | None,
        Key(MusicalKey(), "Key, such as A minor or F# major.", SONG),
    ] = None
    time_signature: Annotated[
        str | None,
        Key(TimeSignature(), "Time signature; 2, 3, 4 and 6 do as well.", SONG),
    ] = None
    duration: Annotated[
        float | None,
        Key(
            Duration(3, LONGEST_SECONDS),
            "Length, 3 to 600 seconds. Unset: estimated from the lyrics, else 60 s.",
            SONG,
            short="-d",
        ),
    ] = None
    codes: Annotated[
        tuple[int, ...] | None,
        Key(Codes(), "Audio codes to follow, 5 per second.", SONG, flag=False),
    ] = None
    model: Annotated[
        str | None,
        Key(Model(), "Checkpoint by name, or its folder. Unset: the first installed that fits.", SOUND, short="-m"),
    ] = None
    steps: Annotated[
        int | None,
        Key(Whole(1, 200), "Diffusion steps. Unset: the checkpoint's own number.", SOUND),
    ] = None
    guidance: Annotated[
        float | None,
        Key(Number(1, 30), "How strongly the caption and lyrics pull; 1 is off. base and sft models only.", SOUND),
    ] = None
    guidance_method: Annotated[
        str | None,
        Key(Choice(tuple(solvers.GUIDANCE_METHODS)), "How guidance is applied.", SOUND),
    ] = None
    shift: Annotated[
        float | None,
        Key(Number(0.1, 10), "Above 1: more of the steps go to the song's outline, fewer to detail.", SOUND),
    ] = None
    solver: Annotated[
        str | None,
        Key(Choice(tuple(solvers.SOLVERS)), "How a step is taken.", SOUND),
    ] = None
    timesteps: Annotated[
        tuple[float, ...] | None,
        Key(Timesteps(), "The noise level of each step, instead of --steps and --shift.", SOUND),
    ] = None
    cfg_interval: Annotated[
        tuple[float, float] | None,
        Key(Interval(), "Noise levels between which guidance acts.", SOUND),
    ] = None
    seed: Annotated[
        int | None,
        Key(Whole(0, 2**32 - 1), "The same seed, request and machine give the same samples. Unset: drawn.", SOUND),
    ] = None
    takes: Annotated[
        int | None,
        Key(Whole(1), "How many takes, each with the next seed.", SOUND, short="-n"),
    ] = None
    title: Annotated[
        str | None,
        Key(Text(), "Title, written into the file; it also names the file.", OUTPUT),
    ] = None
    format: Annotated[
        str | None,
        Key(Choice(tuple(audio.FORMATS)), "File format. Unset: the suffix of --output, else flac.", OUTPUT),
    ] = None
    bit_depth: Annotated[
        str | None,
        Key(
            Choice(audio.BIT_DEPTHS), "Bits per sample of wav and flac, 24 unless set; 32f (float) is for wav.", OUTPUT
        ),
    ] = None
    bitrate: Annotated[
        int | None,
        Key(Bitrate(), "Constant bitrate of mp3, 192k unless set.", OUTPUT),
    ] = None
    loudness: Annotated[
        str | None,
        Key(Loudness(), "none, or peak:-1 to bring the highest peak to -1 dBFS (what happens unless set).", OUTPUT),
    ] = None

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        return None if value is None else KEYS[info.field_name].kind.read(value)

    @model_validator(mode="after")
    def _agree(self) -> Request:
        if self.instrumental and self.lyrics is not None:
            raise ValueError("instrumental and lyrics exclude each other")
        return self


KEYS: Mapping[str, Key] = {
    name: next(part for part in field.metadata if isinstance(part, Key)) for name, field in Request.model_fields.items()
}
