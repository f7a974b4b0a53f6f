"""The lines of the lyrics as the checks read them, and remarks on words, sections and language."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from itertools import zip_longest

from acestep_cli.song.languages import LANGUAGES
from acestep_cli.song.lint import syllables
from acestep_cli.song.musical_values import LONGEST_SECONDS, PULSES
from acestep_cli.song.request import Request
from acestep_cli.song.values import quoted


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
        return section_of(self.tags[0]) if self.tags else None


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


# Words against time

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
#: Syllables a second over the whole song; with fewer, it is mostly instrumental.
SPARSEST = 0.1
#: A line fills two bars: sixteen eighths, and four more for an upbeat and for counting wrong; rap goes in sixteenths.
LONGEST_SUNG, LONGEST_RAPPED = 20, 32


def hurried(song: LintedSong) -> Iterator[Remark]:
    if song.sung_syllables <= song.most_syllables:
        return
    rate, fastest = (number / song.singing_seconds for number in (song.sung_syllables, song.most_syllables))
    ease = song.paced(EASY_RAPPED if song.is_rapped else EASY_SUNG)
    suits = 5 * math.ceil((song.sung_syllables / ease + song.played_seconds) / 5)
    advice = f"write duration: {suits // 60}:{suits % 60:02}, or fewer lines"
    if suits > LONGEST_SECONDS:
        advice = f"even {LONGEST_SECONDS} s are too short for them, so make two songs of it"
    yield Remark(
        "lyrics",
        None,
        f"{song.sung_syllables} {song.unit} in {song.seconds:g} s are {rate:.1f} a second where it is sung, and over "
        f"{fastest:g} can hardly be sung; {advice}",
    )


def sparse(song: LintedSong) -> Iterator[Remark]:
    plays = sum(line.section in PLAYED for line in song.lines)
    if song.sung and not plays and song.seconds >= 90 and song.sung_syllables < SPARSEST * song.seconds:
        yield Remark(
            "lyrics",
            None,
            f"{song.sung_syllables} {song.unit} are little for {song.seconds:g} s, and what fills the rest is left to "
            "chance; write more lines, sections to play such as [Interlude], or a shorter duration",
        )


def long_lines(song: LintedSong) -> Iterator[Remark]:
    most = round(song.paced(LONGEST_RAPPED if song.is_rapped else LONGEST_SUNG))
    counted = [
        (line, syllables.count_syllables(without_echoes(line.words), song.language, bound=most)) for line in song.sung
    ]
    long = [(line, number) for line, number in counted if number > most]
    if long:
        yield at_first(
            [line for line, _ in long],
            f"{long[0][1]} {song.unit} are more than two bars hold with ease (about {most}); break the line in two",
        )


def without_echoes(words: str) -> str:
    """Return `words` without (echoes), which another voice sings over them."""
    return re.sub(r"[(（][^()（）]*[)）]", " ", words)


# Sections

#: Sections by their English names, with their names in other languages, which are accepted as tags, too.
SECTIONS = {
    "Intro": "intro introduction introducción introdução einleitung вступление интро 前奏 イントロ 인트로 مقدمة",
    "Verse": "verse verso vers verset couplet strophe strofa strofe estrofa zwrotka sloha versszak säkeistö verš kıta "
    "куплет στροφή κουπλέ 主歌 aメロ 벌스 בית مقطع",
    "Pre-Chorus": "prechorus precoro prérefrain prerefrain prestribillo preestribillo prérefrão предприпев 预副歌 导歌 "
    "導歌 bメロ 프리코러스",
    "Chorus": "chorus refrain coro estribillo ritornello refrão refren refrén refräng refreng omkvæd kehrreim kerto "
    "refrein nakarat припев приспів ρεφρέν פזמון لازمة 副歌 サビ 후렴 후렴구 코러스",
    "Post-Chorus": "postchorus postcoro postrefrain 포스트코러스",
    "Hook": "hook хук 훅",
    "Bridge": "bridge puente ponte brücke brygga híd бридж 桥段 橋段 ブリッジ cメロ 브릿지",
    "Interlude": "interlude interludio interlúdio intermezzo zwischenspiel mellanspel проигрыш 间奏 間奏 간주",
    "Instrumental": "instrumental instrumentale strumentale инструментал 纯音乐 純音樂 インスト 연주",
    "Solo": "solo sólo соло 独奏 獨奏 ソロ 솔로",
    "Drop": "drop дроп ドロップ 드롭",
    "Build": "build buildup",
    "Break": "break",
    "Breakdown": "breakdown",
    "Outro": "outro coda schluss аутро кода 尾奏 尾声 アウトロ 아웃트로 خاتمة",
    "Fade Out": "fadeout",
    "Spoken Word": "spoken spokenword",
    "Rap": "rap рэп 说唱 ラップ 랩",
}
NAMED = {name: section for section, names in SECTIONS.items() for name in names.split()}
#: English names that are long enough to be recognised with a spelling mistake.
TARGETS = ("intro", "verse", "chorus", "refrain", "bridge", "interlude", "instrumental", "break", "breakdown", "outro",
           "prechorus", "postchorus", "build", "buildup", "fadeout")  # fmt: skip
#: Section names of other languages that are long enough for that.
LONG_NAMES = tuple(name for name in NAMED if len(name) >= 7 and name not in TARGETS)
#: Other words that are spelled like those.
NEIGHBOURS = (
    "verses versed reverse inverse universe versus nerve serve chords choral choir chores bridges bridget bride ridge "
    "fridge into intra introit breaks breaking breath bread builds building built guild instrument instruments "
    "instrumentals instrumentation interludes choruses refrains outdoor outdoors rebuild freak breakdowns outros "
    "intros"
)
WORDS = frozenset(NEIGHBOURS.split())
#: Sections that need words, sections that are instrumental without words, and those that end the one before.
WORDED = ("Verse", "Pre-Chorus", "Chorus")
PLAYED = ("Intro", "Interlude", "Instrumental", "Solo", "Drop", "Build", "Break", "Breakdown", "Outro")
ENDING = (*WORDED, "Post-Chorus", "Bridge", "Outro")
#: Sections whose names are hardly ever sung, and names that are a label even without brackets.
UNMISTAKABLE = ("Intro", "Verse", "Pre-Chorus", "Chorus", "Post-Chorus", "Bridge", "Interlude", "Instrumental", "Outro")
LABELS = ("intro", "verse", "chorus", "prechorus", "postchorus", "outro", "припев", "куплет")
#: Songs with fewer lines or seconds need no section tag.
TAGLESS_LINES, TAGLESS_SECONDS = 8, 60
#: `(x2)` and the like, at a line's end or for a line.
REPEAT = re.compile(
    r"[(（]\s*(?:[x×]\s?\d+|\d+\s?[x×]|\d+ times|repeat\w*[^()]{0,20})\s*[)）]$|^[x×]\s?\d+$|\s[x×]\d+$"
    r"|^repeat (?:the )?(?:verse|chorus|refrain|hook|bridge)\b[^a-z]*$",
    re.I,
)


#: The same in a tag.
TAG_REPEAT = re.compile(
    r"(?<![^\W\d])(?:[x×]\s?\d+|\d+\s?[x×]|\d+ times|twice|(?:repeat|wiederhol|répét|repetir)\w*)(?!\w)", re.I
)


def tag_name(tag: str) -> str:
    """Return the name in a tag without number and description: `chorus` for `Chorus 2 - anthemic`."""
    name = re.split(r"\s[-–—]+\s|[:：|,;(（/–—]", tag.casefold(), maxsplit=1)[0]
    name = re.sub(r"[#x×]?\d+\S*|\s(?:[ivx]+|[a-d])$", " ", name)
    return " ".join(re.findall(r"[^\W_]+", name))


@lru_cache(maxsize=1 << 10)
def section_of(tag: str) -> str | None:
    """Return the section of SECTIONS that `tag` names, in any of its languages, or None."""
    words = tag_name(tag).split()
    names = ["".join(words), "".join(words[:2]), *reversed(words)]
    return next((NAMED[name] for name in names if name in NAMED), None)


def misspelt_tags(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        for tag in line.tags:
            if meant := correct_tag(tag):
                yield Remark("lyrics", line.number, f"{quoted(f'[{tag}]')} is not a section; did you mean [{meant}]?")


@lru_cache(maxsize=1 << 10)
def correct_tag(tag: str) -> str | None:
    """Return `tag` with its misspelt word corrected; None where nothing looks misspelt."""
    words = tag_name(tag).split()
    for word in words:
        is_short = len(word) < (4 if len(words) == 1 else 6)
        if is_short or word in NAMED or word in WORDS:
            continue
        if near := nearest(word):
            return re.sub(re.escape(word), near.title() if tag[0].isupper() else near, tag, flags=re.IGNORECASE)
    return None


def nearest(word: str) -> str | None:
    """Return the name of a section that `word` may be a misspelling of, by its letters or by its sound, or None."""
    if near := get_close_matches(word, TARGETS, n=1, cutoff=0.8):
        return near[0]
    if heard := get_close_matches(as_heard(word), list(HEARD), n=1, cutoff=0.85):
        return HEARD[heard[0]]
    return next(iter(get_close_matches(word, LONG_NAMES, n=1, cutoff=0.86)), None)


def as_heard(word: str) -> str:
    """Return `word` spelled by its sounds, so that `Verz` is equal to `Verse` and `Korus` to `Chorus`."""
    for letters, sound in (("ch", "k"), ("c", "k"), ("ph", "f"), ("z", "s"), ("y", "i"), ("ou", "o"), ("dg", "j")):
        word = word.replace(letters, sound)
    return re.sub(r"(.)\1", r"\1", word.replace("e", "") if word[-1:] != "e" else word[:-1].replace("e", ""))


HEARD = {as_heard(name): name for name in TARGETS}


def open_brackets(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        opened, closed = line.text.count("["), line.text.count("]")
        if opened > closed:
            what, part, remedy = "is never closed", line.text.rpartition("[")[2], "close it, or leave it out"
        elif closed > opened:
            what, part, remedy = "was never opened", line.text.partition("]")[0], "open it, or leave it out"
        elif re.search(r"\[\s*\[[^\[\]]+\]\s*\]", line.text):
            what, part, remedy = "is there twice", line.text, "write one"
        elif re.fullmatch(r"\][^\[\]]+\[", line.text):
            what, part, remedy = "is turned round", line.text, "write [ in front and ] behind"
        elif re.search(r"\[[\s.-]*\]", line.text):
            yield Remark(
                "lyrics", line.number, "the brackets are empty; name a section, such as [Verse], or remove them"
            )
            continue
        else:
            continue
        whole = re.fullmatch(r"[\s\[\](){}<>]*([^\[\](){}<>]+?)[\s\[\](){}<>]*", line.text)
        meant = correct_name(whole[1] if whole else part.strip("(){}<> "))
        if not meant and whole and opened and closed:
            meant = whole[1]  # somebody's own tag
        advice = f"write [{meant}]" if meant else remedy
        yield Remark("lyrics", line.number, f"the bracket in {quoted(line.text)} {what}; {advice}")


def glued_tags(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        for tag in re.finditer(r"\[([^\[\]]+)\]", line.text):
            before, after = line.text[: tag.start()], line.text[tag.end() :]
            is_inside = re.search(r"\w", re.sub(r"\[[^\[\]]*\]?", " ", before)) or re.match(r"\w", after)
            if is_inside and section_of(tag[1]):
                yield Remark(
                    "lyrics",
                    line.number,
                    f"{tag[0]} stands among the words in {quoted(line.text)}; give it a line of its own above them",
                )
                break


def correct_name(name: str) -> str | None:
    """Return a section name in its usual form, `Verse 1` for `verse1`; None where it is not one."""
    name = re.sub(r"(?<=[^\W\d_])(?=\d)", " ", (correct_tag(name) or name).strip())
    return name[:1].upper() + name[1:] if len(name.split()) < 5 and section_of(name) else None


def unmarked_sections(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        if name := tag_for_line(line.text):
            yield Remark(
                "lyrics", line.number, f"{quoted(line.text)} may be sung as words; a section is marked as [{name}]"
            )


@lru_cache(maxsize=1 << 10)
def tag_for_line(text: str) -> str | None:
    """Return the section tag that a line such as `(Chorus)`, `Chorus:` or `## Chorus` stands for, or None."""
    if "[" in text or "]" in text:
        return None
    if named := re.match(r"([^\W\d_][\w -]{2,14}?(?: \d+)?)\s*[:：]\s*\S", text):
        return named[1] if NAMED.get(squeezed(named[1])) in UNMISTAKABLE else None
    if framed := re.match(r"[【［〔〖｛]\s*([^【】［］〔〕〖〗｛｝]{1,40}?)\s*[】］〕〗｝]", text):
        return framed[1] if section_of(framed[1]) else None
    name = text.strip("『』《》〈〉#*_:：()（）{}<>「」=~.•–— \t")
    section = NAMED.get(squeezed(re.split(r"\s[-–—]\s", name)[0]))
    if section is None or (name == text and squeezed(text) not in LABELS):
        return None
    return name if section in UNMISTAKABLE or text[-1] in ":：" or text[0] in "#*" else None


def squeezed(name: str) -> str:
    return re.sub(r"[\W\d_]", "", name.casefold())


def untagged(song: LintedSong) -> Iterator[Remark]:
    marked = any(line.tags or tag_for_line(line.text) for line in song.lines)
    if not marked and len(song.sung) >= TAGLESS_LINES and song.seconds >= TAGLESS_SECONDS:
        yield Remark(
            "lyrics",
            None,
            f"{len(song.sung)} lines have no section tag, so a model has to guess where the chorus is; "
            "write [Verse], [Chorus] and such on lines of their own",
        )


def wordless_sections(song: LintedSong) -> Iterator[Remark]:
    for place, line in enumerate(song.lines):
        is_plain = (
            line.section in WORDED
            and not TAG_REPEAT.search(line.tags[0])
            and not re.search(r"\s[-–—]|[:：|,(]", line.tags[0])
        )
        if is_plain and song.sung and not line.words and is_silent(song.lines[place + 1 :]):
            yield Remark(
                "lyrics",
                line.number,
                f"{quoted(line.text)} has no words below it, and its name alone repeats no earlier words; "
                "write the words out again, or tag it [Instrumental]",
            )


def is_silent(lines: tuple[Line, ...]) -> bool:
    """Return True where the section that `lines` follow ends before any words."""
    for line in lines:
        if line.section in ENDING:
            return True
        if line.words:
            return False
    return True


def repeats(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        if any(TAG_REPEAT.search(tag) for tag in line.tags):
            yield Remark(
                "lyrics",
                line.number,
                f"{quoted(line.text)} is sung once, because a tag repeats nothing; write the words out as often as "
                "they are to be heard",
            )
        if not line.tags and REPEAT.search(line.text):
            yield Remark(
                "lyrics",
                line.number,
                f"{quoted(line.text)} does not repeat anything and may be sung; write the words out",
            )


def instrumental_tag(song: LintedSong) -> Iterator[Remark]:
    tags = [line for line in song.lines if line.tags and NAMED.get(tag_name(line.tags[0])) == "Instrumental"]
    if not song.sung:
        if tags and song.request.instrumental is False:
            yield Remark(
                "instrumental",
                None,
                "is false, but the lyrics are [Instrumental] without words; write words, or `true`",
            )
        return
    for line in tags:
        after = next((later for later in song.lines if later.number > line.number), None)
        if line is song.lines[0]:
            yield Remark(
                "lyrics",
                line.number,
                "[Instrumental] in front says that nothing is sung, but words follow; write [Intro] for an opening "
                "without voice",
            )
        elif after and after.words and not after.tags:
            yield Remark(
                "lyrics",
                after.number,
                "words stand below [Instrumental], which says that nobody sings; give them a tag such as [Verse]",
            )


# Languages

#: The fewest letters from which a language is recognised.
FEW_LETTERS = 12
NEARLY_ABSENT = 0.05
#: The scripts of each language that is not, or not only, written in Latin letters.
WRITTEN = {
    "ar": ("ARABIC",), "az": ("LATIN", "CYRILLIC", "ARABIC"), "bg": ("CYRILLIC",), "bn": ("BENGALI",),
    "el": ("GREEK",), "fa": ("ARABIC",), "he": ("HEBREW",), "hi": ("DEVANAGARI",),
    "ja": ("HIRAGANA", "KATAKANA", "CJK"), "ko": ("HANGUL",), "ms": ("LATIN", "ARABIC"), "ne": ("DEVANAGARI",),
    "pa": ("GURMUKHI", "ARABIC"), "ru": ("CYRILLIC",), "sa": ("DEVANAGARI", "LATIN"), "sr": ("CYRILLIC", "LATIN"),
    "ta": ("TAMIL",), "te": ("TELUGU",), "th": ("THAI",), "uk": ("CYRILLIC",), "ur": ("ARABIC",),
    "yue": ("CJK",), "zh": ("CJK", "BOPOMOFO"),
}  # fmt: skip
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


def foreign_script(song: LintedSong) -> Iterator[Remark]:
    code = song.request.language
    letters = song.scripts.total()
    if code in (None, "unknown") or letters < FEW_LETTERS:
        return
    own = WRITTEN.get(code, ("LATIN",))
    if sum(song.scripts[name] for name in own) >= NEARLY_ABSENT * letters:
        if code == "ja" and song.scripts["CJK"] == letters >= 3 * FEW_LETTERS:
            yield Remark("language", None, "is ja (Japanese), but there is no kana; if the words are Chinese, write zh")
        return
    written = script_name(song.scripts.most_common(1)[0][0])
    told = language_by_script(song)
    if told:
        advice = f"write language: {told}, or the language it is"
    elif code == "ja":
        advice = "if that is romaji, write kana and kanji, which say how they are read; else name the language it is"
    else:
        advice = f"write them in {script_name(own[0])}, or name the language they are in"
    yield Remark("language", None, f"is {code} ({LANGUAGES[code]}), but the words are in {written} letters; {advice}")


def unnamed_language(song: LintedSong) -> Iterator[Remark]:
    told = language_by_script(song)
    if told and song.request.language in (None, "unknown"):
        code = f"{told} (or yue)" if told == "zh" else told
        script = script_name(WRITTEN[told][0])
        yield Remark("language", None, f"is not known, and the words are in {script} letters; write language: {code}")


def idle_language(song: LintedSong) -> Iterator[Remark]:
    if song.request.language not in (None, "unknown") and is_mute(song):
        yield Remark("language", None, "has nothing to act on, because nothing is sung; write lyrics, or leave it out")


def is_mute(song: LintedSong) -> bool:
    """Return True where nothing will be sung: no lyrics, and no idea, codes or source that may have a voice."""
    request = song.request
    may_come = request.codes is not None or request.source is not None or (request.idea and not request.instrumental)
    return not song.sung and not may_come


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


def script_name(script: str) -> str:
    return {"CJK": "Chinese", "HANGUL": "Korean", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}.get(
        script, script.capitalize()
    )


# What chat programs, editors and chord sheets leave behind

CHATTER = re.compile(
    r"^(?:sure|certainly|of course|absolutely|great)\b[,!.].{0,60}(?:\bhere(?:['’]s| is| are)|\blyrics)\b"
    r"|^here(?:['’]s| is| are)\b.{0,80}(?:\blyrics\b|:$)"
    r"|^let me know if you(?:['’]d| would| want)\b|^would you like me to\b|\bhope (?:this|that) helps\b"
    r"|^(?:i )?hope you (?:enjoy|like) (?:it|this|the|these) (?:song|lyrics)\b|^as an ai\b"
    r"|^(?:lyrics|title|song title|artist|genre|style|tempo|bpm|time signature|capo|tuning)\s*[:：]"
    r"|^key\s*[:：]\s*[A-H]\s?[#b♯♭]?\s?(?:m|min|maj|minor|major)?\W*$",
    re.I,
)
#: Emphasis in pairs (a censored f**k has none), rules, headings, fences, HTML.
MARKUP = re.compile(
    r"(?<![\w*])(\*{1,3}|__)(?=\S)[^*_]+(?<=\S)\1(?![\w*])|^(?:-{3,}|\*{3,}|_{3,}|={3,}|`{3}.*)$|^#{1,6}\s"
    r"|</?(?:br|p|b|i|em|strong)\s*/?>"
)
#: A note, its quality, its extensions, its bass.
CHORD = re.compile(
    r"[A-H][#b♯♭]?(?:maj|min|dim|aug|sus|add|m|M|°|ø|\+)?\d{0,2}(?:(?:sus|add|maj|b|#)\d{1,2})*(?:/[A-G][#b]?)?"
)


def chatter(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        if CHATTER.search(line.text):
            yield Remark(
                "lyrics", line.number, f"{quoted(line.text)} is not a line of the song and may be sung; remove it"
            )


def markup(song: LintedSong) -> Iterator[Remark]:
    found = [line for line in song.lines if MARKUP.search(line.text) and not tag_for_line(line.text)]
    if found:
        yield at_first(found, f"{quoted(found[0].text)} has Markdown or HTML marks in it; write plain words")


def chords(song: LintedSong) -> Iterator[Remark]:
    found = [line for line in song.lines if has_chords(line)]
    if found:
        yield at_first(found, f"the chords in {quoted(found[0].text)} may be sung as letters; remove them")


def has_chords(line: Line) -> bool:
    if line.tags and line.words:
        return any(CHORD.fullmatch(tag.strip()) for tag in line.tags)
    text = line.tags[0] if line.tags else line.text
    marks = re.split(r"[\s|–-]+", text.strip(" |-–"))
    is_sheet = any(len(mark) > 1 for mark in marks) or bool(re.search(r"\w\s{2,}\w|\|", text))
    return len(marks) > 1 and is_sheet and all(map(CHORD.fullmatch, marks))


def timestamps(song: LintedSong) -> Iterator[Remark]:
    found = [line for line in song.lines if re.match(r"[\[<]\d{1,2}:\d\d\b", line.text) or SUBTITLE.match(line.text)]
    if found:
        yield at_first(found, f"the time in {quoted(found[0].text)} places nothing; remove it")


def front_matter(song: LintedSong) -> Iterator[Remark]:
    first, rest = (song.lines[0], song.lines[1:]) if song.lines else (None, ())
    if first is not None and first.text in ("+++", "---") and any(line.text == first.text for line in rest):
        yield Remark(
            "lyrics",
            first.number,
            f"{first.text} begins the keys of a file, which are sung as words here; a spec has them as `key: value` "
            "between two lines of ---",
        )


# Characters


def literal_breaks(song: LintedSong) -> Iterator[Remark]:
    found = [Line(number, text) for number, text in song.written if LITERAL_BREAK.search(text)]
    if found:
        yield at_first(
            found,
            "\\n is two characters here and breaks no line; write line breaks, or in a shell --lyrics $'…' or "
            "--lyrics-file",
        )


def unseen(song: LintedSong) -> Iterator[Remark]:
    tags, words, controls = [], [], []
    for number, text in song.written:
        inside = "".join(re.findall(r"\[[^\]]*", text))
        if found := UNSEEN.search(inside) or re.search(f"[{JOINERS}]", inside):
            tags.append((Line(number, text), found[0]))
        elif found := UNSEEN.search(text):
            words.append((Line(number, text), found[0]))
        if found := CONTROL.search(text):
            controls.append((Line(number, text), found[0]))
    for lines, what in (
        (tags, "a character that nobody sees stands in a tag, which is another tag with it"),
        (words, "a character that nobody sees stands among the words, and a model may stumble over it"),
        (controls, "a control character stands here, which is not text"),
    ):
        if lines:
            yield at_first([line for line, _ in lines], f"{what} (U+{ord(lines[0][1]):04X}); remove it")


def decomposed(song: LintedSong) -> Iterator[Remark]:
    found = [Line(number, text) for number, text in song.written if unicodedata.normalize("NFC", text) != text]
    if found:
        pair = next(filter(None, map(composing, found[0].text, found[0].text[1:])), None)
        example = f", {pair}" if pair else ""
        yield at_first(
            found,
            f"letters and their accents are apart here{example}, which a model may not read; write them as one (NFC)",
        )


def composing(letter: str, accent: str) -> str | None:
    """Return the character that a letter and an accent form, with their code points; None where they form none."""
    composed = unicodedata.normalize("NFC", letter + accent)
    return f"{composed} as U+{ord(letter):04X} U+{ord(accent):04X}" if len(composed) == 1 else None
