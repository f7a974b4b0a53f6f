"""Names of musical keys as they are written in several languages, and the one name of each that the models know.

Letters and `minor`, `moll` or `mineur`; `do re mi`; signs as # and ♭ or as words; `Fis` and `Es`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

#: The notes of countries that sing do re mi.
SYLLABLES = {
    **dict(zip(("do", "re", "mi", "fa", "sol", "la", "si"), "CDEFGAB", strict=True)),
    **dict(zip(("dó", "ré", "fá", "lá"), "CDFA", strict=True)),
}
#: The notes of Germany and its neighbours. H is B; B is B flat there, and B elsewhere.
WITH_ENDING = {
    **{f"{note}is": f"{note.upper()}#" for note in "cdefga"},
    **{f"{note}es": f"{note.upper()}b" for note in "cdfg"},
    "es": "Eb",
    "as": "Ab",
}
SHARPS = ("#", "♯", "sharp", "dièse", "diese", "diesis", "sostenido", "sustenido")
FLATS = ("b", "♭", "flat", "bémol", "bemol", "bemolle")
MINOR = ("minor", "min", "moll", "mineur", "minore", "menor")
MAJOR = ("major", "maj", "dur", "majeur", "maggiore", "mayor", "maior")
#: The names of modes where B may be B flat, and H is B.
GERMAN_MODES = ("moll", "dur")
GAP = r"[\s_-]*"


def any_of(words: Iterable[str], *, cased: bool = False) -> str:
    """Return a pattern for any of `words`; if `cased`, their first letters may be capitals."""
    longest_first = sorted(words, key=len, reverse=True)
    if not cased:
        return "|".join(map(re.escape, longest_first))
    return "|".join(
        f"[{word[0].upper()}{word[0]}]{word[1:]}" if word[0].isalpha() else re.escape(word) for word in longest_first
    )


NAME = re.compile(
    rf"(?P<note>[a-h]|{any_of((*SYLLABLES, *WITH_ENDING))})"
    rf"(?:{GAP}(?:(?P<sharp>{any_of(SHARPS)})|(?P<flat>{any_of(FLATS)})))?"
    rf"{GAP}(?:(?P<minor>m|{any_of(MINOR)})|(?P<major>{any_of(MAJOR)}))"
)


def read_key(text: str) -> str | None:
    """Return the name of a key as the models know it, such as `F# minor`; None where `text` names none.

    Raises `ValueError` for a name that means two keys.
    """
    word = unicodedata.normalize("NFC", text).strip()
    found = NAME.fullmatch(word.casefold())
    if found is None or word.endswith("M"):  # which is major to some and a slip to others
        return None
    note, mode = found["note"], "minor" if found["minor"] else "major"
    sign = "#" if found["sharp"] else "b" if found["flat"] else ""
    is_german = (found["minor"] or found["major"]) in GERMAN_MODES
    if sign and (note == "h" or note in WITH_ENDING):
        return None
    if note == "h":
        return f"B {mode}" if is_german else None
    if note == "b" and is_german and not sign:
        raise ValueError(f"is B flat to some and B to others; write Bb {mode} or B {mode}")
    return f"{WITH_ENDING.get(note) or SYLLABLES.get(note, note.upper())}{sign} {mode}"


def pattern() -> str:
    """Return a pattern of JSON Schema, which knows no flags, for the names with small letters or one capital."""
    german = any_of(GERMAN_MODES, cased=True)
    plain = f"[A-Ga-g]|{any_of(SYLLABLES, cased=True)}"
    signed = f"(?:{plain})(?:{GAP}(?:{any_of((*SHARPS, *FLATS), cased=True)}))?"
    modes = f"{GAP}(?:m|{any_of((*MINOR, *MAJOR), cased=True)})"
    return (
        rf"^\s*(?![Bb]{GAP}(?:{german}))"
        rf"(?:{signed}{modes}|(?:{any_of(WITH_ENDING, cased=True)}){modes}|[Hh]{GAP}(?:{german}))\s*$"
    )
