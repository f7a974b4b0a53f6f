"""Lines for people on a terminal, broken between words. Elsewhere lines stay whole: scripts search them."""

from __future__ import annotations

import os
import re
from typing import Any

from acestep_cli.cli.startup_line import redraws

#: A label, and a command behind it to be typed or pasted, which stays in one piece.
COMMAND_LINE = re.compile(r"(?P<label>.*?[:;]) (?P<command>(?:acestep|open|xdg-open|start|pip) .*)")
#: A word with the blanks before it; a number and its unit are one.
WORD = re.compile(r"\s*(?:\S*\d (?:GB|MB|kB|s|min|dBFS|LUFS|Hz|bpm)\b\S*|\S+)")
#: Narrower than this, nothing reads well anyway.
NARROWEST = 20


def wrap_for(stream: Any, text: str) -> str:
    """Return text with its lines broken between words where `stream` is a terminal that is narrower than they are."""
    if not redraws(stream):
        return text
    width = terminal_width(stream)
    return "\n".join(wrap_line(line, width) for line in text.split("\n"))


def terminal_width(stream: Any) -> int:
    """Return the columns of a terminal; `COLUMNS` in the environment comes first."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return max(int(asked), NARROWEST)
    try:
        return max(os.get_terminal_size(stream.fileno()).columns, NARROWEST)
    except (OSError, ValueError):
        return 80


def wrap_line(line: str, width: int) -> str:
    """Return one line as lines of at most `width` columns; a word that is longer has a line of its own.

    A command at its end goes onto a line of its own and stays whole: a break in it would be pasted too.
    """
    from rich.cells import cell_len  # wide signs take two columns

    if cell_len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    if (parts := COMMAND_LINE.fullmatch(line)) and cell_len(parts["command"]) + len(indent) + 2 <= width:
        return f"{wrap_line(parts['label'], width)}\n{indent}  {parts['command']}"
    lines, current = [], ""
    for word in WORD.findall(line):
        if current and cell_len(current + word) > width:
            lines.append(current)
            current = indent + word.lstrip()
        else:
            current += word
    return "\n".join([*lines, current])
