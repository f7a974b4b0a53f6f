"""The LRC format: lyrics with the time of each line, for players."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from acestep_cli.errors import CheckError

#: Minutes, seconds and a fraction, of a line in square brackets, of a word in any.
TIME = r"(\d{1,4}):(\d{1,2}(?:[.:]\d{1,3})?)"
STAMP = re.compile(rf"\s*\[{TIME}\]")
WORD_STAMP = re.compile(rf"[\[<]{TIME}[\]>][ \t]?")
#: A tag of the whole file, such as `[ar:Artist]`.
TAG = re.compile(r"^\[(?:ar|al|ti|au|by|la|length|offset|re|ve|tool|#)\s*:.*\]\s*$", re.IGNORECASE)

#: The longest file that is read: hours of words.
MOST_BYTES = 1_000_000


class TimedLine(NamedTuple):
    """A line of lyrics, and the second of the song at which it begins."""

    seconds: float
    text: str


def lrc_path(file: Path) -> Path:
    """Return the path at which players look for the lyrics of an audio file."""
    return file.with_suffix(".lrc")


def read_beside(file: Path) -> str | None:
    """Return the text of the LRC beside an audio file, with what is no UTF-8 replaced; None where there is none."""
    path = lrc_path(file)
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:  # a pipe or a device would never end
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def untimed(name: str) -> CheckError:
    """Return the error for a take whose lyrics could not be timed."""
    return CheckError(
        f"{name}: its lyrics were not found in it by the attention that times them, so no .lrc was written; the song "
        "is there.",
        "Another --seed may sing them more clearly; or leave lrc out.",
    )


def parse_lrc(text: str) -> tuple[TimedLine, ...]:
    """Return the lines of LRC in the order of the song, without the times of words.

    A line with several times is repeated; one without any follows the line before it, at the same time.
    """
    found: list[TimedLine] = []
    seconds = [0.0]
    for line in text.splitlines():
        if TAG.match(line):
            continue
        times, end = [], 0
        while stamped := STAMP.match(line, end):
            times.append(60 * int(stamped[1]) + float(stamped[2].replace(":", ".")))
            end = stamped.end()
        seconds = times or seconds[-1:]
        found += [TimedLine(time, WORD_STAMP.sub("", line[end:]).strip()) for time in seconds]
    return tuple(sorted(found, key=lambda line: line.seconds))


def dump_lrc(lines: Iterable[TimedLine]) -> str:
    """Return lines as LRC: `[mm:ss.xx]text`."""
    return "".join(f"[{format_stamp(line.seconds)}]{line.text}\n" for line in lines)


def format_stamp(seconds: float) -> str:
    """Return a time as `mm:ss.xx`. It is rounded first, so that no seconds read 60."""
    minutes, hundredths = divmod(round(100 * seconds), 6000)
    return f"{minutes:02}:{hundredths / 100:05.2f}"
