"""Lyrics with the time of each line, as players read them: the LRC format."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

#: Minutes, seconds, words.
TIMED = re.compile(r"\[(\d+):(\d+(?:\.\d+)?)\](.*)")


class Line(NamedTuple):
    """A line of lyrics, and the second of the song at which it begins."""

    seconds: float
    text: str


def beside(file: Path) -> Path:
    """Where players look for the lyrics of an audio file."""
    return file.with_suffix(".lrc")


def read(text: str) -> tuple[Line, ...]:
    """The lines of LRC; what has no time is none."""
    return tuple(Line(60 * int(minutes) + float(rest), words.strip()) for minutes, rest, words in TIMED.findall(text))


def dump(lines: Iterable[Line]) -> str:
    """Lines as LRC: `[mm:ss.xx]text`."""
    return "".join(f"[{stamp(line.seconds)}]{line.text}\n" for line in lines)


def stamp(seconds: float) -> str:
    """Minutes, seconds and hundredths: rounded first, so that no second is the sixtieth."""
    minutes, hundredths = divmod(round(100 * seconds), 6000)
    return f"{minutes:02}:{hundredths / 100:05.2f}"
