"""What the Songwriter reads and writes, word for word: its prompts, the YAML of its thoughts, the grammar of both.

Exact strings, fields and ranges: `songwriter-and-lora.md` 1.2 to 1.4 of the specification. The grammars are Lark, as
`llguidance` takes it; the engine samples under them, so that whatever the weights, a reply reads as a song.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml

from acestep_cli.song.languages import LANGUAGES
from acestep_cli.song.modes import FOLLOW_CODES
from acestep_cli.song.prompts import INSTRUMENTAL
from acestep_cli.song.request import KEYS, Request
from acestep_cli.song.values import TIME_SIGNATURES, quoted

EXPAND = "Expand the user's input into a more detailed and specific musical description:"
FORMAT = "Format the user's input into a more detailed and specific musical description:"
UNDERSTAND = "Understand the given musical conditions and describe the audio semantics accordingly:"
NO_INPUT = "NO USER INPUT"
LYRIC_HEADING = "# Lyric\n"
TURN_END = "<|im_end|>"
THOUGHT_BEGIN, THOUGHT_END = "<think>", "</think>"
CODE = re.compile(r"<\|audio_code_(\d+)\|>")

#: The fields of a thought, in their order there, and the keys of a spec they stand for.
FIELDS: Mapping[str, str] = {
    "bpm": "bpm",
    "caption": "caption",
    "duration": "duration",
    "genres": "genre",
    "keyscale": "key",
    "language": "language",
    "timesignature": "time_signature",
}
METADATA = ("bpm", "duration", "keyscale", "language", "timesignature")
#: Tokens that a caption, and lyrics, may take.
CAPTION_TOKENS, LYRIC_TOKENS = 512, 2048
#: What follows a caption that is cut off at its limit.
AFTER_CAPTION = "\nduration: "
KEY_SIGNATURES = tuple(f"{note}{sign} {mode}" for note, sign, mode
                       in product("ABCDEFG", ("", "#", "b", "♯", "♭"), ("major", "minor")))  # fmt: skip


def chat_prompt(instruction: str, content: str) -> str:
    """The frame of every prompt, with the turn of the Songwriter left open."""
    return (
        f"<|im_start|>system\n# Instruction\n{instruction}\n\n{TURN_END}\n"
        f"<|im_start|>user\n{content}{TURN_END}\n<|im_start|>assistant\n"
    )


def song_prompt(caption: str | None, lyrics: str | None) -> str:
    """Asks for the metadata of a song, and for its codes."""
    return chat_prompt(FOLLOW_CODES, f"# Caption\n{caption or ''}\n\n# Lyric\n{lyrics or INSTRUMENTAL}\n")


def idea_prompt(idea: str, *, instrumental: bool) -> str:
    """Asks for a song from an idea."""
    return chat_prompt(EXPAND, f"{idea.strip() or NO_INPUT}\n\ninstrumental: {str(instrumental).lower()}")


def rewrite_prompt(caption: str | None, lyrics: str | None) -> str:
    """Asks for a caption and lyrics in the place of others."""
    return chat_prompt(FORMAT, f"# Caption\n{caption or NO_INPUT}\n\n# Lyric\n{lyrics or INSTRUMENTAL}")


def understanding_prompt(codes: Sequence[int]) -> str:
    """Asks what the song is that sounds like `codes`."""
    return chat_prompt(UNDERSTAND, "".join(f"<|audio_code_{code}|>" for code in codes) or NO_INPUT)


def unguided_prompt(negative: str | None) -> str:
    """What guidance leads away from: no wish at all, or the one that is unwanted, and no thought."""
    return chat_prompt(FOLLOW_CODES, negative or NO_INPUT) + format_thought("")


def format_thought(text: str) -> str:
    """A finished thought as codes follow it."""
    return f"{THOUGHT_BEGIN}\n{text.removesuffix(chr(10))}\n{THOUGHT_END}\n\n"


def scored_field(name: str, value: Any) -> str:
    """A thought of one field, as a Songwriter that hears a song would have it."""
    return f"{THOUGHT_BEGIN}\n{dump_thought({name: value})}{THOUGHT_END}\n"


def scored_lyrics(lyrics: str) -> str:
    """Lyrics, as a Songwriter that hears a song would have them."""
    return f"{THOUGHT_BEGIN}\n{THOUGHT_END}\n{LYRIC_HEADING}{lyrics}\n"


def known_metadata(request: Request) -> dict[str, Any]:
    """The fields of a thought that `request` answers, as the model spells them: whole numbers, the upper number of a
    time signature, one line of caption.
    """
    found = {field: getattr(request, key) for field, key in FIELDS.items()}
    if found["duration"] is not None:
        found["duration"] = int(found["duration"])
    if found["timesignature"] is not None:
        found["timesignature"] = int(found["timesignature"].partition("/")[0])
    if found["caption"] is not None:
        found["caption"] = " ".join(found["caption"].split())
    return {field: value for field, value in found.items() if value is not None}


def dump_thought(fields: Mapping[str, Any]) -> str:
    """Fields as the YAML of a thought: sorted, wrapped at 80, digits as numbers."""
    plain = {name: int(value) if str(value).isdecimal() else value for name, value in fields.items()}
    return yaml.dump(plain, allow_unicode=True, sort_keys=True) if plain else ""


def parse_thought(text: str) -> dict[str, Any]:
    """A thought as keys of a request with their canonical values."""
    fields = yaml.load(text, Loader=yaml.BaseLoader)
    return {FIELDS[name]: KEYS[FIELDS[name]].kind.read(" ".join(value.split())) for name, value in fields.items()}


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn; the defaults are those of the published program."""

    temperature: float = 0.85
    top_p: float = 0.9
    top_k: int = 0
    repetition_penalty: float = 1.0
    cfg_scale: float = 2.0
    negative_prompt: str | None = None

    @classmethod
    def of(cls, request: Request, **defaults: Any) -> Sampling:
        """What the request asks for, else `defaults`."""
        asked = {name: getattr(request, name) for name in cls.__dataclass_fields__}
        return cls(**defaults | {name: value for name, value in asked.items() if value is not None})


@dataclass(frozen=True)
class WritingTask:
    """One thing to write: the prompt, the fields of the thought, those of them that are decided, and whether lyrics
    follow it. `seconds` are the lengths to choose from.
    """

    prompt: str
    fields: tuple[str, ...]
    decided: Mapping[str, Any]
    seconds: tuple[int, int]
    lyrics: bool = False

    def thought_grammar(self) -> str:
        """Lark for the YAML between the marks of a thought, its last newline excluded."""
        rules = [self._field(name) for name in sorted(self.fields)]
        return f"start: {' '.join(rules).removesuffix(NEWLINE)}\n{_terminals(self.seconds)}"

    def _field(self, name: str) -> str:
        if name in self.decided:
            return _literal(dump_thought({name: self.decided[name]}).removesuffix("\n")) + NEWLINE
        rule = f"{_literal(f'{name}: ')} {name if name == 'caption' else name.upper()}{NEWLINE}"
        return f"({rule})?" if name == "genres" else rule

    def lyric_grammar(self) -> str:
        """Lark for what follows the mark that ends a thought, up to the end of the turn."""
        language = self.decided.get("language")
        code = _literal(language) if language else " | ".join(_literal(code) for code in LANGUAGES)
        return (
            f'start: /\\n\\n?/ ("# Languages\\n" language "\\n\\n")? "# Lyric\\n" LYRICS\n'
            f"language: {code}\nLYRICS: /[^\\s{UNPRINTABLE}](\\n|[^{UNPRINTABLE}])*/\n"
        )


NEWLINE = r' "\n"'
#: No text: control characters, breaks that YAML 1.1 takes for line ends, byte order marks, and what is no character.
UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffd-\uffff"
#: A letter of a plain YAML scalar. `: ` and ` #` would end it, and a backtick is never part of a caption.
_LETTER = rf"[^\s:#`{UNPRINTABLE}]"
_FIRST_LETTER = rf"[^\s:#`\-?,\[\]{{}}&*!|>'\"%@{UNPRINTABLE}]"
_WORDS = rf"(:*{_LETTER})*( {_LETTER}(:*{_LETTER})*)*"


def _terminals(seconds: tuple[int, int]) -> str:
    """What a value may be where nobody has decided it."""
    low, high = seconds
    tempo = KEYS["bpm"].kind
    languages = [dump_thought({"language": code}).removeprefix("language: ").strip() for code in LANGUAGES]
    choices = {
        "BPM": range(tempo.low, tempo.high + 1),  # type: ignore[attr-defined]
        "DURATION": range(low, high + 1),
        "KEYSCALE": KEY_SIGNATURES,
        "LANGUAGE": languages,
        "TIMESIGNATURE": [signature[0] for signature in TIME_SIGNATURES],
    }
    lines = [f"{name}: /{'|'.join(map(str, values))}/" for name, values in choices.items()]
    return "\n".join([
        *lines,
        r'caption: PLAIN ("\n  " MORE)* | QUOTED',
        rf"PLAIN: /{_FIRST_LETTER}{_WORDS}/",
        rf"MORE: /{_LETTER}{_WORDS}/",
        rf"QUOTED: /'([^\s'`{UNPRINTABLE}]|'')([^'`{UNPRINTABLE}]|''|\n  )*'/",
        rf"GENRES: /{_FIRST_LETTER}( ?{_LETTER}){{0,60}}/",
        "",
    ])  # fmt: skip


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def metadata_task(request: Request, wanted: Sequence[str], seconds: tuple[int, int]) -> WritingTask:
    """The metadata of a song that has a caption or lyrics; `wanted` are keys that are open."""
    decided = known_metadata(request)
    if request.lyrics is None:
        decided["language"] = "unknown"
    fields = [*METADATA, "caption"] if "caption" in wanted else METADATA
    return WritingTask(song_prompt(request.caption, request.lyrics), tuple(fields), decided, seconds)


def idea_task(request: Request, wanted: Sequence[str], seconds: tuple[int, int]) -> WritingTask:
    """A song from the idea of a request; `wanted` are keys that are open."""
    content = idea_prompt(request.idea or "", instrumental=bool(request.instrumental))
    return WritingTask(content, tuple(FIELDS), known_metadata(request), seconds, lyrics="lyrics" in wanted)


def rewrite_task(request: Request, seconds: tuple[int, int]) -> WritingTask:
    """Another caption and other lyrics for a request; its metadata stays."""
    decided = {name: value for name, value in known_metadata(request).items() if name != "caption"}
    content = rewrite_prompt(request.caption, request.lyrics)
    return WritingTask(content, tuple(FIELDS), decided, seconds, lyrics=request.lyrics is not None)


def understanding_task(codes: Sequence[int], seconds: int) -> WritingTask:
    """What a song of so many seconds is, by its codes."""
    return WritingTask(
        understanding_prompt(codes), tuple(FIELDS), {"duration": seconds}, (seconds, seconds), lyrics=True
    )


def strip_headings(text: str) -> str:
    """Lyrics without the headings above them."""
    return text.partition(LYRIC_HEADING)[2].strip()


def decision_summary(found: Mapping[str, Any]) -> str:
    """What was decided, on one line."""
    parts = [f"{key.replace('_', ' ')} {quoted(value, 60) if isinstance(value, str) else f'{value:g}'}"
             for key, value in found.items() if value is not None]  # fmt: skip
    return f"The Songwriter decided: {', '.join(parts) or 'nothing but the codes'}"
