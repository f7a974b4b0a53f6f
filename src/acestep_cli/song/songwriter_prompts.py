"""The prompts of the Songwriter, the YAML of its thoughts, and the grammars of its replies.
Exact strings, fields and ranges: docs/specification.md, 9 Songwriter. The grammars are Lark, as
`llguidance` takes it; the engine samples under them, so that whatever the weights, a reply reads as a song.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from acestep_cli.models import checkpoint_table
from acestep_cli.song.languages import LANGUAGES
from acestep_cli.song.modes import FOLLOW_CODES
from acestep_cli.song.musical_values import TIME_SIGNATURES
from acestep_cli.song.prompts import INSTRUMENTAL
from acestep_cli.song.request import KEYS, Request
from acestep_cli.song.values import quoted

if TYPE_CHECKING:
    from acestep_cli.song.idea_words import KeptWords

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
#: The most tokens of a caption and of lyrics.
CAPTION_TOKENS, LYRIC_TOKENS = 512, 2048
#: The text that follows a caption that is cut off at its limit.
AFTER_CAPTION = "\nduration: "
KEY_SIGNATURES = tuple(f"{note}{sign} {mode}" for note, sign, mode
                       in product("ABCDEFG", ("", "#", "b", "♯", "♭"), ("major", "minor")))  # fmt: skip


def chat_prompt(instruction: str, content: str) -> str:
    """Return a chat prompt that ends where the Songwriter's turn begins."""
    return (
        f"<|im_start|>system\n# Instruction\n{instruction}\n\n{TURN_END}\n"
        f"<|im_start|>user\n{content}{TURN_END}\n<|im_start|>assistant\n"
    )


def song_prompt(caption: str | None, lyrics: str | None) -> str:
    """Return the prompt for the metadata and the codes of a song."""
    return chat_prompt(FOLLOW_CODES, f"# Caption\n{caption or ''}\n\n# Lyric\n{lyrics or INSTRUMENTAL}\n")


def idea_prompt(idea: str, *, instrumental: bool) -> str:
    """Return the prompt for a song from an idea."""
    return chat_prompt(EXPAND, f"{idea.strip() or NO_INPUT}\n\ninstrumental: {str(instrumental).lower()}")


def rewrite_prompt(caption: str | None, lyrics: str | None) -> str:
    """Return the prompt for a rewritten caption and lyrics."""
    return chat_prompt(FORMAT, f"# Caption\n{caption or NO_INPUT}\n\n# Lyric\n{lyrics or INSTRUMENTAL}")


def understanding_prompt(codes: Sequence[int]) -> str:
    """Return the prompt for a description of the song with these codes."""
    return chat_prompt(UNDERSTAND, "".join(f"<|audio_code_{code}|>" for code in codes) or NO_INPUT)


def unguided_prompt(negative: str | None) -> str:
    """Return the unconditional prompt of classifier-free guidance, with the negative prompt and an empty thought."""
    return chat_prompt(FOLLOW_CODES, negative or NO_INPUT) + format_thought("")


def format_thought(text: str) -> str:
    """Return a finished thought, in the form that codes follow."""
    return f"{THOUGHT_BEGIN}\n{text.removesuffix(chr(10))}\n{THOUGHT_END}\n\n"


def scored_field(name: str, value: Any) -> str:
    """Return a thought of one field, in the form that is scored against the codes of a song."""
    return f"{THOUGHT_BEGIN}\n{dump_thought({name: value})}{THOUGHT_END}\n"


def scored_lyrics(lyrics: str) -> str:
    """Return lyrics, in the form that is scored against the codes of a song."""
    return f"{THOUGHT_BEGIN}\n{THOUGHT_END}\n{LYRIC_HEADING}{lyrics}\n"


def known_metadata(request: Request, wanted: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of a thought that `request` sets, as the model spells them, without the keys that are `wanted`
    of the model: the duration may be an estimate.

    Numbers are whole, a time signature is its upper number, and the caption is one line.
    """
    found = {field: getattr(request, key) if key not in wanted else None for field, key in FIELDS.items()}
    if found["duration"] is not None:
        found["duration"] = int(found["duration"])
    if found["timesignature"] is not None:
        found["timesignature"] = int(found["timesignature"].partition("/")[0])
    if found["caption"] is not None:
        found["caption"] = " ".join(found["caption"].split())
    return {field: value for field, value in found.items() if value is not None}


def dump_thought(fields: Mapping[str, Any]) -> str:
    """Return fields as the YAML of a thought: sorted, wrapped at 80 columns, digits as numbers."""
    plain = {name: int(value) if str(value).isdecimal() else value for name, value in fields.items()}
    import yaml  # a TAB, which writes no thought, does without

    return yaml.dump(plain, allow_unicode=True, sort_keys=True) if plain else ""


def parse_thought(text: str) -> dict[str, Any]:
    """Parse a thought. Return keys of a request with their canonical values."""
    import yaml

    fields = yaml.load(text, Loader=yaml.BaseLoader)
    return {FIELDS[name]: KEYS[FIELDS[name]].kind.read(" ".join(value.split())) for name, value in fields.items()}


@dataclass(frozen=True)
class Sampling:
    """Options of token sampling; the defaults are those of the published program."""

    temperature: float = 0.85
    top_p: float = 0.9
    top_k: int = 0
    repetition_penalty: float = 1.0
    cfg_scale: float = 2.0
    negative_prompt: str | None = None

    @classmethod
    def of(cls, request: Request, **defaults: Any) -> Sampling:
        """Return the options of the request, with `defaults` where it has none."""
        asked = {name: getattr(request, name) for name in cls.__dataclass_fields__}
        return cls(**defaults | {name: value for name, value in asked.items() if value is not None})


@dataclass(frozen=True)
class WritingTask:
    """A text for the Songwriter to write.

    Args:
        prompt: The prompt.
        fields: The fields of the thought.
        decided: The values of the fields that are known already.
        seconds: The shortest and the longest duration to choose from.
        lyrics: True where lyrics follow the thought.
        kept: The words of an idea that the caption is to have.
        opening: What the caption begins with, before the Songwriter goes on.
    """

    prompt: str
    fields: tuple[str, ...]
    decided: Mapping[str, Any]
    seconds: tuple[int, int]
    lyrics: bool = False
    kept: KeptWords | None = None
    opening: str | None = None

    def second_try(self, answer: Mapping[str, Any]) -> WritingTask | None:
        """Return the task to write the caption again where that of an answer lacks words of the idea; None where it
        has them.

        The caption then begins with them, so that there is no third try, and what stands before it in a thought stays.
        """
        if self.kept is None or not self.kept.missing(answer["caption"]):
            return None
        return replace(self, decided={**self.decided, "bpm": answer["bpm"]}, opening=self.kept.opening, kept=None)

    def thought_grammar(self) -> str:
        """Return the Lark grammar of the YAML between <think> and </think>, without its last newline."""
        rules = [self._field(name) for name in sorted(self.fields)]
        return f"start: {' '.join(rules).removesuffix(NEWLINE)}\n{_terminals(self.seconds)}"

    def _field(self, name: str) -> str:
        if name in self.decided:
            return _literal(dump_thought({name: self.decided[name]}).removesuffix("\n")) + NEWLINE
        if name == "caption" and self.opening is not None:
            begun = dump_thought({name: f"{self.opening},"}).removesuffix("\n")
            return rf'{_literal(begun)} (" " | "\n  ") REST ("\n  " MORE)*{NEWLINE}'
        rule = f"{_literal(f'{name}: ')} {name if name == 'caption' else name.upper()}{NEWLINE}"
        return f"({rule})?" if name == "genres" else rule

    def lyric_grammar(self) -> str:
        """Return the Lark grammar of the text from the end mark of a thought to the end of the turn."""
        language = self.decided.get("language")
        code = _literal(language) if language else " | ".join(_literal(code) for code in LANGUAGES)
        return (
            f'start: /\\n\\n?/ ("# Languages\\n" language "\\n\\n")? "# Lyric\\n" LYRICS\n'
            f"language: {code}\nLYRICS: /[^\\s{UNPRINTABLE}](\\n|[^{UNPRINTABLE}])*/\n"
        )


NEWLINE = r' "\n"'
#: Excluded: control characters, the line ends of YAML 1.1, byte order marks, and code points that are no characters.
UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffd-\uffff"
#: A letter of a plain YAML scalar. `: ` and ` #` would end it, and a backtick is never part of a caption.
_LETTER = rf"[^\s:#`{UNPRINTABLE}]"
_FIRST_LETTER = rf"[^\s:#`\-?,\[\]{{}}&*!|>'\"%@{UNPRINTABLE}]"
_WORDS = rf"(:*{_LETTER})*( {_LETTER}(:*{_LETTER})*)*"


def _terminals(seconds: tuple[int, int]) -> str:
    """Return the Lark terminals of the values of undecided fields."""
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
        rf"REST: /\p{{L}}{_WORDS}/",
        rf"QUOTED: /'([^\s'`{UNPRINTABLE}]|'')([^'`{UNPRINTABLE}]|''|\n  )*'/",
        rf"GENRES: /{_FIRST_LETTER}( ?{_LETTER}){{0,60}}/",
        "",
    ])  # fmt: skip


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def metadata_task(request: Request, wanted: Sequence[str], seconds: tuple[int, int]) -> WritingTask:
    """Return the task to write metadata for a song with a caption or lyrics; `wanted` are the open keys."""
    decided = known_metadata(request, wanted)
    if request.lyrics is None:
        decided["language"] = "unknown"
    fields = [*METADATA, "caption"] if "caption" in wanted else METADATA
    return WritingTask(song_prompt(song_caption(request), request.lyrics), tuple(fields), decided, seconds)


def song_caption(request: Request) -> str | None:
    """Return the caption that the Songwriter is told: that of the request, else the names of the tracks that it asks
    for; None without either.
    """
    if request.caption is not None or request.track is None:
        return request.caption
    return ", ".join(name.replace("_", " ") for name in request.track)


def idea_task(request: Request, wanted: Sequence[str], seconds: tuple[int, int]) -> WritingTask:
    """Return the task to write a song from the idea of a request; `wanted` are the open keys."""
    content = idea_prompt(request.idea or "", instrumental=bool(request.instrumental))
    return WritingTask(
        prompt=content,
        fields=tuple(FIELDS),
        decided=known_metadata(request, wanted),
        seconds=seconds,
        lyrics="lyrics" in wanted,
        kept=kept_words(request),
    )


def kept_words(request: Request) -> KeptWords | None:
    """Return the words of an idea that its caption is to have: style, mood and instruments; None where it has none.

    What the song is about belongs to the lyrics. A caption has it where nobody sings, and where the built-in Songwriter
    writes, whose lyrics are words in a row.
    """
    if request.idea is None or request.caption is not None:
        return None
    from acestep_cli.song import idea_words  # a TAB, which reads no idea, does without
    from acestep_cli.song.lint import captions

    sings_nothing = bool(request.instrumental) or captions.VOICELESS.search(request.idea) is not None
    return idea_words.kept_words(request.idea, themes=sings_nothing or request.songwriter == checkpoint_table.BUILT_IN)


def opening_of(request: Request, caption: str | None) -> str | None:
    """Return the words of the idea that a caption begins with, as one does that is written again; None for another."""
    kept = kept_words(request)
    return kept.opening if kept is not None and kept.opens(caption) else None


def unkept_sentence(request: Request) -> str | None:
    """Return a sentence on an idea of which no word is looked for in the caption; None for another, or for none."""
    if request.idea is None or request.caption is not None or kept_words(request) is not None:
        return None
    from acestep_cli.song import idea_words

    if idea_words.is_english(idea_words.without_facts(request.idea)):
        return "The idea names no style, mood or instrument, so the caption is the Songwriter's own"
    if request.songwriter == checkpoint_table.BUILT_IN:
        return (
            "Nothing of the idea is kept: this Songwriter reads English alone. Say the idea in English, or write the "
            "caption yourself; lyrics may be in any language"
        )
    return "The idea is not in English, so nobody checked that the caption keeps it: read it, or write your own"


def rewrite_task(request: Request, seconds: tuple[int, int]) -> WritingTask:
    """Return the task to rewrite the caption and lyrics of a request; its metadata stays."""
    decided = {name: value for name, value in known_metadata(request).items() if name != "caption"}
    content = rewrite_prompt(request.caption, request.lyrics)
    return WritingTask(content, tuple(FIELDS), decided, seconds, lyrics=request.lyrics is not None)


def understanding_task(codes: Sequence[int], seconds: int) -> WritingTask:
    """Return the task to describe a song of `seconds` from its codes."""
    return WritingTask(
        understanding_prompt(codes), tuple(FIELDS), {"duration": seconds}, (seconds, seconds), lyrics=True
    )


def strip_headings(text: str) -> str:
    """Return lyrics without the headings above them."""
    return text.partition(LYRIC_HEADING)[2].strip()


def remarks(request: Request, song: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on what a Songwriter made of a request, whose decided keys are in `song`."""
    if opening := opening_of(request, song.get("caption")):
        yield f"The caption begins with what it keeps of the idea: {opening}"
    elif (unkept := unkept_sentence(request)) is not None:
        yield unkept
    if request.songwriter == checkpoint_table.BUILT_IN and "lyrics" in song and song["lyrics"] is not None:
        yield "This Songwriter is a sketch of one: the lyrics are words in a row, for you to write over"


def decision_summary(found: Mapping[str, Any]) -> str:
    """Return a one-line summary of the decided values."""
    parts = [f"{key.replace('_', ' ')} {quoted(value, 60) if isinstance(value, str) else f'{value:g}'}"
             for key, value in found.items() if value is not None]  # fmt: skip
    return f"The Songwriter decided: {', '.join(parts) or 'nothing but the codes'}"
