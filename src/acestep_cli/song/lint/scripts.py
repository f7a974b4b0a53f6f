"""Remarks on the language of the lyrics and the script that they are written in."""

from __future__ import annotations

from collections.abc import Iterator

from acestep_cli.song.languages import LANGUAGES
from acestep_cli.song.lint import linted_song
from acestep_cli.song.lint.linted_song import FEW_LETTERS, LintedSong, Remark

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
    told = linted_song.language_by_script(song)
    if told:
        advice = f"write language: {told}, or the language it is"
    elif code == "ja":
        advice = "if that is romaji, write kana and kanji, which say how they are read; else name the language it is"
    else:
        advice = f"write them in {script_name(own[0])}, or name the language they are in"
    yield Remark("language", None, f"is {code} ({LANGUAGES[code]}), but the words are in {written} letters; {advice}")


def unnamed_language(song: LintedSong) -> Iterator[Remark]:
    told = linted_song.language_by_script(song)
    if told and song.request.language in (None, "unknown"):
        code = f"{told} (or yue)" if told == "zh" else told
        script = script_name(WRITTEN[told][0])
        yield Remark("language", None, f"is not known, and the words are in {script} letters; write language: {code}")


def idle_language(song: LintedSong) -> Iterator[Remark]:
    if song.request.language not in (None, "unknown") and sings_nothing(song):
        yield Remark("language", None, "has nothing to act on, because nothing is sung; write lyrics, or leave it out")


def sings_nothing(song: LintedSong) -> bool:
    """Return True where nothing will be sung: no lyrics, and no idea, codes or source that may have a voice."""
    request = song.request
    may_come = request.codes is not None or request.source is not None or (request.idea and not request.instrumental)
    return not song.sung and not may_come


def script_name(script: str) -> str:
    return {"CJK": "Chinese", "HANGUL": "Korean", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}.get(
        script, script.capitalize()
    )
