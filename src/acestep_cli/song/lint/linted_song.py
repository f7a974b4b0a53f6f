"""A song as the checks read it: its lines, sections, script, language and pace; and the remarks that they make."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

from acestep_cli.song.lint import section_names, syllables
from acestep_cli.song.musical_values import PULSES
from acestep_cli.song.request import Request


@dataclass(frozen=True)
class Remark:
    """A sentence about `key` of the spec; `line` counts from 1 within the text of that key."""

    key: str
    line: int | None
    text: str


def at_first(lines: list[Line], text: str) -> Remark:
    """Return one remark for all `lines`, placed at the first of them."""
    more = f" ({len(lines) - 1} more such line{'s' * (len(lines) > 2)})" if len(lines) > 1 else ""
    return Remark("lyrics", lines[0].number, text + more)


@dataclass(frozen=True)
class Line:
    """A line of the lyrics that is not blank."""

    number: int
    text: str

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The texts in its brackets, the last of which may not be closed."""
        return tuple(re.findall(r"\[([^\[\]]*)", self.text)) if self.text[0] == "[" else ()

    @cached_property
    def words(self) -> str:
        """The words to sing, without tags."""
        if SUBTITLE.match(self.text):
            return ""
        words = re.sub(r"\[[^\[\]]*\]?", " ", self.text).strip()
        return words if re.search(r"\w", words) else ""

    @cached_property
    def section(self) -> str | None:
        """The section that its first tag opens."""
        return section_names.section_of(self.tags[0]) if self.tags else None


#: Text beyond this is not checked, because no model reads that far.
READ_CHARACTERS = 20_000
#: A line break as two characters, which shells and quoted YAML leave as they are.
LITERAL_BREAK = re.compile(r"\\r\\n|\\n|\\r")
#: Invisible characters. Joiners are right between the letters of some scripts, but not in a tag; the others nowhere.
JOINERS = "\u200c\u200d"
UNSEEN = re.compile("[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: Lines of subtitles that are not sung: times and headers.
SUBTITLE = re.compile(
    r"(?:\d{1,2}:)?\d{1,2}:\d{2}[.,]\d{1,3}\s*-+>|WEBVTT\b|\[(?:ar|ti|al|au|by|re|ve|offset|length|la)\s*:[^\]]*\]$"
)


@dataclass(frozen=True)
class LintedSong:
    """A request and the values that the checks derive from it."""

    request: Request
    seconds: float

    @cached_property
    def caption(self) -> str:
        return (self.request.caption or "")[:READ_CHARACTERS]

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The lines without invisible characters, split also where a line break is written as two characters."""
        parts = ((number, part) for number, text in self.written for part in LITERAL_BREAK.split(text))
        seen = ((number, seen_of(part).strip()) for number, part in parts)
        return tuple(Line(number, text) for number, text in seen if text)

    @cached_property
    def written(self) -> tuple[tuple[int, str], ...]:
        """The lines as they are written, each with its number."""
        return tuple(enumerate((self.request.lyrics or "")[:READ_CHARACTERS].split("\n"), start=1))

    @cached_property
    def sung(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.words)

    @cached_property
    def scripts(self) -> Counter[str]:
        """The number of sung letters by script."""
        found: Counter[str] = Counter()
        for sign, times in Counter("".join(line.words for line in self.sung)).items():
            found[syllables.script(sign)] += times
        for name in ("", "DIGIT", "COMBINING"):
            del found[name]
        return found

    @cached_property
    def language(self) -> str:
        """The language for counting syllables: as given, else by the script, else English."""
        given = self.request.language
        return given if given not in (None, "unknown") else language_by_script(self) or "en"

    @cached_property
    def most_syllables(self) -> float:
        """The most syllables or morae that can be sung in the time."""
        fastest = FASTEST_RAPPED if self.is_rapped else FASTEST_SUNG
        return self.paced(fastest) * self.singing_seconds

    @cached_property
    def sung_syllables(self) -> int:
        return syllables.count_syllables(
            "\n".join(line.words for line in self.sung), self.language, bound=self.most_syllables
        )

    @property
    def unit(self) -> str:
        return "morae" if self.language == "ja" else "syllables"

    def paced(self, rate: float) -> float:
        """Convert a rate in syllables to the unit of the language."""
        return rate * MORAE_PER_SYLLABLE if self.language == "ja" else rate

    @cached_property
    def is_rapped(self) -> bool:
        return bool(RAPPED.search(" ".join([self.caption, *(tag for line in self.lines for tag in line.tags)])))

    @cached_property
    def played_seconds(self) -> float:
        """The seconds without singing: two bars for beginning and end, and two for each section without words."""
        played = [line for line, after in zip_longest(self.lines, self.lines[1:])
                  if line.section in PLAYED and not line.words and (after is None or after.tags)]  # fmt: skip
        pulses = PULSES[self.request.time_signature or "4/4"]
        return (2 + 2 * len(played)) * pulses * 60 / (self.request.bpm or USUAL_BPM)

    @property
    def singing_seconds(self) -> float:
        return self.seconds - min(self.played_seconds, self.seconds * MOST_PLAYED)


def seen_of(text: str) -> str:
    """Return a line without invisible characters, with each letter and its accent as one character (NFC)."""
    text = UNSEEN.sub("", CONTROL.sub("", text))
    if text.lstrip()[:1] == "[":
        text = re.sub(r"\[[^\]]*", lambda tag: re.sub(f"[{JOINERS}]", "", tag[0]), text)
    return unicodedata.normalize("NFC", text)


# Syllables a second, averaged over the part of a song that is sung, breaths included. Rules of thumb: ballads lie at 1
# to 2, pop at 2 to 4; rap at 4 to 5, and the wordiest hits hold 6 over a song while their fastest bars reach 9.
# The first number of each pair is what a suggested length goes by, the second the bound of a remark.
EASY_SUNG, FASTEST_SUNG = 3, 5
EASY_RAPPED, FASTEST_RAPPED = 5, 7.5
#: Morae are lighter than syllables: Japanese is spoken at 7.8 a second, English at 6.2 (Pellegrino et al. 2011).
MORAE_PER_SYLLABLE = 1.3
RAPPED = re.compile(
    r"\b(?:rap|rapped|rapper|rapping|raps|hip[- ]?hop|trap|drill|grime|spoken|narrat\w+)\b|рэп|说唱|ラップ|랩", re.I
)
USUAL_BPM = 100
#: The largest share of a song that instrumental sections are assumed to take.
MOST_PLAYED = 1 / 3
PLAYED = ("Intro", "Interlude", "Instrumental", "Solo", "Drop", "Build", "Break", "Breakdown", "Outro")
#: The fewest letters from which a language is recognised.
FEW_LETTERS = 12
#: Languages of each script with their special letters. The first of which a letter is sung is it; "" matches any.
TELLING = {
    "ARABIC": (("ur", "ٹڈڑےں"), ("fa", "پچژگ"), ("ar", "")),
    "BENGALI": (("bn", ""),),
    "CJK": (("zh", ""),),
    "CYRILLIC": (("uk", "іїєґ"), ("sr", "ђјљњћџ"), ("ru", "ыэ"), ("bg", "ъ"), ("ru", "")),
    "DEVANAGARI": (("hi", ""),),
    "GREEK": (("el", ""),),
    "GURMUKHI": (("pa", ""),),
    "HANGUL": (("ko", ""),),
    "HEBREW": (("he", ""),),
    "TAMIL": (("ta", ""),),
    "TELUGU": (("te", ""),),
    "THAI": (("th", ""),),
}


def language_by_script(song: LintedSong) -> str | None:
    """Return the language by a script other than Latin, if a third of the letters are in it, else None."""
    letters = song.scripts.total()
    if letters < FEW_LETTERS:
        return None
    if song.scripts["HIRAGANA"] + song.scripts["KATAKANA"] > letters / 5:
        return "ja"
    others = [(times, script) for script, times in song.scripts.items() if script != "LATIN"]
    times, script = max(others, default=(0, ""))
    if times < letters / 3:
        return None
    words = {sign for line in song.sung for sign in line.words.casefold()}
    for code, signs in TELLING.get(script, ()):
        if not signs or words & set(signs):
            return code
    return None
