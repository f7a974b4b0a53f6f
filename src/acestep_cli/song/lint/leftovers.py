"""Remarks on what chat programs, editors and chord sheets leave behind in lyrics, and on unseen characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from acestep_cli.song.lint import linted_song, section_names
from acestep_cli.song.lint.linted_song import (
    CONTROL,
    JOINERS,
    LITERAL_BREAK,
    SUBTITLE,
    UNSEEN,
    Line,
    LintedSong,
    Remark,
)
from acestep_cli.song.values import quoted

CHATTER = re.compile(
    r"^(?:sure|certainly|of course|absolutely|great)\b[,!.].{0,60}(?:\bhere(?:['’]s| is| are)|\blyrics)\b"
    r"|^here(?:['’]s| is| are)\b.{0,80}(?:\blyrics\b|:$)"
    r"|^let me know if you(?:['’]d| would| want)\b|^would you like me to\b|\bhope (?:this|that) helps\b"
    r"|^(?:i )?hope you (?:enjoy|like) (?:it|this|the|these) (?:song|lyrics)\b|^as an ai\b"
    r"|^(?:lyrics|title|song title|artist|genre|style|tempo|bpm|time signature|capo|tuning)\s*[:：]"
    r"|^key\s*[:：]\s*[A-H]\s?[#b♯♭]?\s?(?:m|min|maj|minor|major)?\W*$",
    re.I,
)
#: Emphasis in pairs (a censored f**k has none), rules, headings, fences, HTML, brackets behind backslashes.
MARKUP = re.compile(
    r"(?<![\w*])(\*{1,3}|__)(?=\S)[^*_]+(?<=\S)\1(?![\w*])|^(?:-{3,}|\*{3,}|_{3,}|={3,}|`{3}.*)$|^#{1,6}\s"
    r"|</?(?:br|p|b|i|em|strong)\s*/?>|\\[\[\]]"
)
#: A note, its quality, its extensions, its bass.
CHORD = re.compile(
    r"[A-H][#b♯♭]?(?:maj|min|dim|aug|sus|add|m|M|°|ø|\+)?\d{0,2}(?:(?:sus|add|maj|b|#)\d{1,2})*(?:/[A-G][#b]?)?"
)


def chat_remarks(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        if CHATTER.search(line.text):
            yield Remark(
                "lyrics", line.number, f"{quoted(line.text)} is not a line of the song and may be sung; remove it"
            )


def markup(song: LintedSong) -> Iterator[Remark]:
    found = [line for line in song.lines if MARKUP.search(line.text) and not section_names.tag_for_line(line.text)]
    if found:
        yield linted_song.at_first(
            found, f"{quoted(found[0].text)} has Markdown or HTML marks in it; write plain words"
        )


def chords(song: LintedSong) -> Iterator[Remark]:
    found = [line for line in song.lines if has_chords(line)]
    if found:
        yield linted_song.at_first(found, f"the chords in {quoted(found[0].text)} may be sung as letters; remove them")


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
        yield linted_song.at_first(found, f"the time in {quoted(found[0].text)} places nothing; remove it")


def front_matter(song: LintedSong) -> Iterator[Remark]:
    first, rest = (song.lines[0], song.lines[1:]) if song.lines else (None, ())
    if first is not None and first.text in ("+++", "---") and any(line.text == first.text for line in rest):
        yield Remark(
            "lyrics",
            first.number,
            f"{first.text} begins the keys of a file, which are sung as words here; a spec has them as `key: value` "
            "between two lines of ---",
        )


def literal_breaks(song: LintedSong) -> Iterator[Remark]:
    found = [Line(number, text) for number, text in song.written if LITERAL_BREAK.search(text)]
    if found:
        yield linted_song.at_first(
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
            yield linted_song.at_first([line for line, _ in lines], f"{what} (U+{ord(lines[0][1]):04X}); remove it")


def decomposed(song: LintedSong) -> Iterator[Remark]:
    found = [Line(number, text) for number, text in song.written if unicodedata.normalize("NFC", text) != text]
    if found:
        pair = next(filter(None, map(composing, found[0].text, found[0].text[1:])), None)
        example = f", {pair}" if pair else ""
        yield linted_song.at_first(
            found,
            f"letters and their accents are apart here{example}, which a model may not read; write them as one (NFC)",
        )


def composing(letter: str, accent: str) -> str | None:
    """Return the character that a letter and an accent form, with their code points; None where they form none."""
    composed = unicodedata.normalize("NFC", letter + accent)
    return f"{composed} as U+{ord(letter):04X} U+{ord(accent):04X}" if len(composed) == 1 else None
