"""The words of an idea that its caption keeps: style, mood and instruments, and the theme where no lyrics carry it.

Only ideas in English are read. In another language nothing is looked for: its particles are not known here, and an
English caption has none of its words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from acestep_cli.song import music_words
from acestep_cli.song.lint import captions

#: The longest opening of a caption: a third of what the published models are made for.
OPENING_CHARACTERS = captions.CAPTION_CHARACTERS // 3
#: A word, a name of several words, or a punctuation mark other than quotes.
WORD = re.compile(
    rf"(?:{'|'.join(map(re.escape, music_words.WHOLE))})(?![^\W_])|[^\W_]+(?:[&'’-][^\W_]+)*|[^\s\w'\"’“”]",
    re.IGNORECASE,
)
#: Tempo, key, time signature and length: they have keys of their own.
FACTS = re.compile(
    rf"{captions.BPM.pattern}|\bin (?:the key of )?[A-G](?:[#♯♭b]|[ -](?:sharp|flat))?[ -](?:major|minor|maj|min)\b|"
    r"(?<![\d/])\d+/\d+(?![\d/])|\b\d+[- ]?(?:seconds?|sec|minutes?|min)\b",
    re.IGNORECASE,
)
PARTICLES = frozenset(music_words.PARTICLES.split())
ENGLISH = PARTICLES - frozenset(music_words.SHARED.split())
FOREIGN = frozenset(music_words.FOREIGN.split()) - PARTICLES
ASKING = (captions.VAGUE | frozenset(music_words.ASKING.split())) - PARTICLES
#: A theme follows these.
THEME_BEGINS = frozenset(["about", "called", "named", "titled"])
#: Where one thing that is asked for ends and the next begins.
BETWEEN = THEME_BEGINS | frozenset(
    ["and", "as", "but", "feat", "featuring", "for", "or", "plus", "that", "where", "which", "while", "who", "with"]
)
#: What is to be left out, which a caption says; and what is denied, which it had better not name.
NEGATIONS, DENIALS = frozenset(["no", "without"]), frozenset(["not", "never", "isn't", "don't", "doesn't"])


@dataclass(frozen=True)
class KeptWords:
    """Phrases of an idea, as they stand in it, and the words in them that a caption is to have."""

    phrases: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def opening(self) -> str:
        """The phrases as the beginning of a caption."""
        return ", ".join(self.phrases)

    def missing(self, caption: str) -> list[str]:
        """Return the words that are not in a caption, neither in another form nor as a word that says the same."""
        return [word for word in self.words if not says(caption, word)]

    def opens(self, caption: str | None) -> bool:
        """Tell whether a caption begins with the phrases."""
        return (caption or "").startswith(f"{self.opening},")


def kept_words(idea: str, *, themes: bool) -> KeptWords | None:
    """Return what a caption is to keep of an idea; None where that is nothing. `themes`: what it is about, too."""
    text = without_facts(idea)
    if not is_english(text):
        return None
    phrases: dict[str, list[str]] = {}
    room = OPENING_CHARACTERS
    for words, is_theme in phrases_of(text):
        sought = list(sought_words(words, is_theme=is_theme, themes=themes))
        phrase = " ".join(words)
        if sought and phrase not in phrases and len(phrase) + 2 <= room:
            phrases[phrase] = sought
            room -= len(phrase) + 2
    found = dict.fromkeys(word for sought in phrases.values() for word in sought)
    return KeptWords(tuple(phrases), tuple(found)) if found else None


def without_facts(idea: str) -> str:
    """Return an idea without what keys of their own say: tempo, key, length, and that nobody sings."""
    return FACTS.sub(" , ", captions.VOICELESS.sub(" , ", idea))


def is_english(text: str) -> bool:
    """Return True if a text is English by its particles.

    One without any is a row of words, which stand in a caption as they are: it is taken for English if its letters are.
    A library that guesses languages would have to guess by five words.
    """
    if any(letter.isalpha() and not unicodedata.name(letter, "").startswith("LATIN") for letter in text):
        return False
    words = [word.casefold() for word in WORD.findall(text)]
    english = sum(word in ENGLISH for word in words)
    foreign = sum(word in FOREIGN for word in words)
    return english > foreign if english or foreign else text.isascii()


def phrases_of(text: str) -> Iterator[tuple[list[str], bool]]:
    """Yield the words of each phrase of an idea, and whether it is what the song is about.

    A phrase ends at a punctuation mark, between the things that are asked for, and at words that only ask. One that the
    song is not to be is left out.
    """
    phrase: list[str] = []
    is_theme = False
    for token in [*WORD.findall(text), "."]:
        word = token.casefold()
        if token[0].isalnum() and word not in BETWEEN | ASKING | NEGATIONS | DENIALS:
            phrase.append(token)
            continue
        is_denied = bool(phrase) and phrase[0].casefold() in DENIALS
        if (stripped := strip_particles(phrase)) and not is_denied:
            yield stripped, is_theme
        phrase = [token] if word in NEGATIONS | DENIALS else []
        if word not in ASKING:
            is_theme = word in THEME_BEGINS


def strip_particles(words: Sequence[str]) -> list[str]:
    """Return the words of a phrase without the particles around it; a negation and a number before others stay."""
    telling = [place for place, word in enumerate(words) if has_meaning(word)]
    if not telling:
        return []
    first = telling[0] - (telling[0] > 0 and words[telling[0] - 1].isdecimal())
    first = 0 if words[0].casefold() in NEGATIONS else first
    return list(words[first : telling[-1] + 1])


def has_meaning(word: str) -> bool:
    """Return True for a word with a meaning of its own; a number or a letter alone has none."""
    if word.casefold() in PARTICLES or not stems(word):
        return False
    return is_musical(word) or not (word.isdecimal() or len(word) == 1)


def sought_words(words: Sequence[str], *, is_theme: bool, themes: bool) -> Iterator[str]:
    """Yield the words of a phrase that a caption is to have."""
    negation = f"{words[0]} " if words[0].casefold() in NEGATIONS else ""
    for word in words:
        if has_meaning(word) and (themes or (is_musical(word) and not is_theme)):
            yield negation + word


def says(caption: str, word: str) -> bool:
    """Tell whether a caption has a word of an idea, in any form, or one that says the same."""
    negation, _, negated = word.partition(" ")
    if negation.casefold() in NEGATIONS and negated:
        stem = re.escape(stems(negated)[-1])
        return re.search(rf"\b(?:no|without)\s(?:\w+\s)?{stem}", caption, re.IGNORECASE) is not None
    there = set(stems(caption))
    joined = "".join(letter for letter in caption.casefold() if letter.isalnum())
    for parts in (stems(word), *alike().get(" ".join(stems(word)), ())):
        # Styles are written in one word, in two and with a hyphen: lofi, lo fi, lo-fi.
        if there.issuperset(parts) or (len(parts) > 1 and "".join(parts) in joined):
            return True
    return False


def is_musical(word: str) -> bool:
    """Return True for a word for a style, a mood or an instrument, or one that is put together with it."""
    whole = " ".join(stems(word))
    return whole in musical() or any(part in musical() for part in whole.split())


@cache
def musical() -> frozenset[str]:
    """Return the stems of all words for styles, moods and instruments."""
    names = f"{music_words.STYLES} {music_words.MOODS} {music_words.INSTRUMENTS}"
    return frozenset(" ".join(stems(word)) for word in (*names.split(), *music_words.WHOLE))


@cache
def alike() -> dict[str, list[list[str]]]:
    """Return the words that say the same as a word, each word by its stems."""
    found: dict[str, list[list[str]]] = {}
    for line in music_words.ALIKE.strip().splitlines():
        group = [stems(word) for word in line.split()]
        for word in group:
            found.setdefault(" ".join(word), []).extend(group)
    return found


def stems(text: str) -> list[str]:
    """Return the words of a text without their endings; particles are left out."""
    found = re.findall(r"[^\W_]+", re.sub(r"['’]s\b", "", text.casefold()))
    return [stemmer().stemWord(word) for word in found if word not in PARTICLES]


@cache
def stemmer() -> Any:
    import snowballstemmer  # 30 ms, for which a spec without an idea does not wait

    return snowballstemmer.stemmer("english")
