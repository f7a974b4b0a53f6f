"""Remarks on the lyrics, the caption and the language of a song that may not sound as intended.

A remark refuses nothing, because the text may be meant as it is. Each check rather misses a mistake than reports one
that is none. CHECKS lists the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from acestep_cli.song.lint import captions, leftovers, pace, scripts, section_tags
from acestep_cli.song.lint.linted_song import LintedSong, Remark
from acestep_cli.song.request import KEYS, Request

CHECKS: tuple[Callable[[LintedSong], Iterator[Remark]], ...] = (
    pace.hurried,
    pace.sparse,
    pace.long_lines,
    section_tags.misspelt_tags,
    section_tags.open_brackets,
    section_tags.tags_among_words,
    section_tags.unmarked_sections,
    section_tags.untagged,
    section_tags.wordless_sections,
    section_tags.repeats,
    section_tags.instrumental_tag,
    scripts.foreign_script,
    scripts.unnamed_language,
    scripts.idle_language,
    captions.check_length,
    captions.check_controls,
    captions.check_bpm,
    captions.check_key,
    captions.check_meter,
    captions.check_voice,
    captions.check_lyrics,
    leftovers.chat_remarks,
    leftovers.markup,
    leftovers.chords,
    leftovers.timestamps,
    leftovers.front_matter,
    leftovers.literal_breaks,
    leftovers.unseen,
    leftovers.decomposed,
)


#: The checks that compare the words with the length of the song.
TIMED = (pace.hurried, pace.sparse)


def song_remarks(request: Request, seconds: float, *, is_guess: bool = False) -> list[Remark]:
    """Return all remarks on `request`, in the order of its keys and lines.

    `seconds` is the length of the song; where that `is_guess`, it is not checked.
    """
    song = LintedSong(request, seconds)
    found = [remark for check in CHECKS if not (is_guess and check in TIMED) for remark in check(song)]
    order = list(KEYS)
    return sorted(found, key=lambda remark: (order.index(remark.key), remark.line or 0))


def placed(remark: Remark, file: str, origins: Mapping[str, str], lines: Mapping[str, tuple[str, int]]) -> str:
    """Return the text of a remark with its place in front: file and line where they are known, else file or flag."""
    place = origins.get(remark.key, file)
    if remark.line is not None and remark.key in lines:
        name, first = lines[remark.key]
        place = f"{name}:{first + remark.line - 1}"
    elif place.startswith("--"):
        line = f", line {remark.line}" if remark.line is not None else ""
        return f"{place}{line}: {remark.text}"
    return f"{place}: {remark.key}: {remark.text}" if place else f"{remark.key}: {remark.text}"
