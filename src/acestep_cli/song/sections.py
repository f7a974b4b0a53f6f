"""The times at which the sections of a song begin, from timed lyrics (LRC) where there are some, else estimated."""

from __future__ import annotations

from dataclasses import dataclass

from acestep_cli.audio import lrc
from acestep_cli.song import duration


@dataclass(frozen=True)
class Section:
    """A section by the name in its tag, and the second at which it begins; `sure` where that comes from an LRC."""

    name: str
    seconds: float
    sure: bool = False


@dataclass(frozen=True)
class LyricSection:
    """A section of the lyrics: the name in its tag (None before the first tag), and its lines."""

    name: str | None
    lines: list[str]


def lyric_sections(lyrics: str) -> list[LyricSection]:
    """Split `lyrics` into sections at each line that is a tag."""
    found = [LyricSection(None, [])]
    for line in filter(str.strip, lyrics.splitlines()):
        if duration.is_section_tag(line):
            found.append(LyricSection(line.strip().strip("[]").strip(), []))
        else:
            found[-1].lines.append(line.strip())
    return found if found[0].lines else found[1:]


def song_sections(lyrics: str | None, seconds: float, timed: str | None = None) -> list[Section]:
    """Return the sections of a song of `seconds`; `timed` is the text of an LRC file."""
    parts = lyric_sections(lyrics or "")
    sections = timed_sections(parts, timed) if timed else None
    if sections is None or any(section.seconds >= seconds for section in sections):  # it is of another song
        return estimate_sections(parts, seconds)
    return sections


def timed_sections(parts: list[LyricSection], timed: str) -> list[Section] | None:
    """Place each section at the time of its first line; sections without lines are left out.

    Returns None where the LRC has another number of lines.
    """
    sung = [line for line in lrc.parse_lrc(timed) if line.text and not duration.is_section_tag(line.text)]
    if not sung or len(sung) != sum(len(part.lines) for part in parts):
        return None
    sections, at = [], 0
    for part in parts:
        if part.lines and part.name is not None:
            sections.append(Section(part.name, sung[at].seconds, sure=True))
        at += len(part.lines)
    return sections


def estimate_sections(parts: list[LyricSection], seconds: float) -> list[Section]:
    """Place the sections so that each is as long as its lines take in bars; the first begins with the song."""
    bars = [duration.BARS_PER_LINE * len(part.lines) or duration.BARS_PER_BARE_SECTION for part in parts]
    sections, at = [], 0.0
    for part, length in zip(parts, bars, strict=True):
        if part.name is not None:
            sections.append(Section(part.name, round(at, 2)))
        at += seconds * length / sum(bars)
    return sections
