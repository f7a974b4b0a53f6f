"""Where the sections of a song begin: by its lyrics in time where they lie beside it, else estimated."""

from __future__ import annotations

from dataclasses import dataclass

from acestep_cli.audio import lrc
from acestep_cli.song import duration


@dataclass(frozen=True)
class Section:
    """A section by the name in its tag, and the second at which it begins; `sure` where it was heard."""

    name: str
    seconds: float
    sure: bool = False


@dataclass(frozen=True)
class LyricSection:
    """A section as the lyrics have it: the name in its tag, None before the first, and its lines."""

    name: str | None
    lines: list[str]


def lyric_sections(lyrics: str) -> list[LyricSection]:
    """The sections of `lyrics`, which begin at each line that is a tag."""
    found = [LyricSection(None, [])]
    for line in filter(str.strip, lyrics.splitlines()):
        if duration.is_section_tag(line):
            found.append(LyricSection(line.strip().strip("[]").strip(), []))
        else:
            found[-1].lines.append(line.strip())
    return found if found[0].lines else found[1:]


def song_sections(lyrics: str | None, seconds: float, timed: str | None = None) -> list[Section]:
    """The sections of a song of so many seconds; `timed` are its lyrics in time, as LRC."""
    found = lyric_sections(lyrics or "")
    heard = timed_sections(found, timed) if timed else None
    return estimate_sections(found, seconds) if heard is None else heard


def timed_sections(found: list[LyricSection], timed: str) -> list[Section] | None:
    """Each section at its first line; those without lines are not heard. None where the two are of other words."""
    sung = [line for line in lrc.parse_lrc(timed) if line.text and not duration.is_section_tag(line.text)]
    if not sung or len(sung) != sum(len(part.lines) for part in found):
        return None
    sections, at = [], 0
    for part in found:
        if part.lines and part.name is not None:
            sections.append(Section(part.name, sung[at].seconds, sure=True))
        at += len(part.lines)
    return sections


def estimate_sections(found: list[LyricSection], seconds: float) -> list[Section]:
    """Each section as long as its lines take, in bars; the first begins with the song."""
    bars = [duration.BARS_PER_LINE * len(part.lines) or duration.BARS_PER_BARE_SECTION for part in found]
    sections, at = [], 0.0
    for part, length in zip(found, bars, strict=True):
        if part.name is not None:
            sections.append(Section(part.name, round(at, 2)))
        at += seconds * length / sum(bars)
    return sections
