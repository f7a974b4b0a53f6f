"""Lyrics with the time of each line, as players read them: the LRC format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Line(NamedTuple):
    """A line of lyrics, and the second of the song at which it begins."""

    seconds: float
    text: str


def dump(lines: Iterable[Line]) -> str:
    """Lines as LRC: `[mm:ss.xx]text`."""
    return "".join(f"[{stamp(line.seconds)}]{line.text}\n" for line in lines)


def stamp(seconds: float) -> str:
    """Minutes, seconds and hundredths: rounded first, so that no second is the sixtieth."""
    minutes, hundredths = divmod(round(100 * seconds), 6000)
    return f"{minutes:02}:{hundredths / 100:05.2f}"
