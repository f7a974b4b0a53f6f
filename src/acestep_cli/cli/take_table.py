"""Takes side by side as lines of text: a table of figures, and what their specs differ in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from acestep_cli.audio import decode
from acestep_cli.render import compare
from acestep_cli.render.compare import ComparedTake
from acestep_cli.song import spec

#: Values of a key beside each other, in characters: the longest that share a line, and the least that is shown of one.
SHORT_VALUE, LEAST_VALUE = 16, 20


def comparison(takes: Sequence[ComparedTake], width: int) -> Iterator[str]:
    """Yield the lines of a table of takes, and below it what their specs differ in, in lines of `width` characters."""
    folder = os.path.commonpath([take.path.parent for take in takes]) if same_anchor(takes) else ""
    names = [os.path.relpath(take.path, folder) if folder else str(take.path) for take in takes]
    if folder:
        yield f"{folder}{os.sep}"
    yield from table(names, takes)
    specs = [take.request for take in takes if take.request is not None]
    differing = compare.differing_keys(takes)
    if len(specs) > 1 and not differing:
        seeds = len({found.seed for found in specs}) > 1
        same = "the same words and settings: only their seeds differ" if seeds else "the same words, settings and seed"
        yield f"One caption, {same}."
    for key, values in differing.items():
        known = [(name, value) for name, value, take in zip(names, values, takes, strict=True) if take.request]
        yield from difference(key.replace("_", " "), dict(known), width)


def difference(key: str, values: Mapping[str, Any], width: int) -> Iterator[str]:
    """Yield the values of a key by the name of each take: in one line where they are short, else in one each."""
    widest = max(map(len, values))
    lines = differing_lines(list(values.values()), max(width - widest - 4, LEAST_VALUE))
    in_one = f"{key}: {', '.join(f'{name} {line}' for name, line in zip(values, lines, strict=True))}"
    if len(in_one) <= width and not any(len(line) > SHORT_VALUE or re.search("[,:]", line) for line in lines):
        yield in_one
        return
    yield f"{key}:"
    for name, line in zip(values, lines, strict=True):
        yield f"  {name.ljust(widest)}  {line}"


def same_anchor(takes: Sequence[ComparedTake]) -> bool:
    """Return True if all paths are relative, or all are absolute and of one drive."""
    return len({take.path.anchor for take in takes}) == 1


def table(names: Sequence[str], takes: Sequence[ComparedTake]) -> Iterator[str]:
    """Yield a heading and a row for each take. A column that would be empty, or is of one length, is left out."""
    columns: dict[str, list[str]] = {
        "seed": ["" if take.request is None or take.request.seed is None else str(take.request.seed) for take in takes],
        "length": [decode.format_time(take.measures.seconds) for take in takes],
        "LUFS": [figure(take.measures.lufs, "{:.1f}") for take in takes],
        "bright": [figure(take.brightness, "{:.0f} Hz") for take in takes],
        "bpm": [figure(take.bpm, "{:.0f}") for take in takes],
        "key": [take.key or "" for take in takes],
        "from the first": [
            f"{take.degree} ({take.distance:.1f} dB)" if take.distance else take.degree for take in takes
        ],
    }
    if len({take.measures.seconds for take in takes}) == 1:
        del columns["length"]
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    widths = [max(map(len, (name, *cells))) for name, cells in shown.items()]
    for row in zip(*([name, *cells] for name, cells in {**shown, "take": list(names)}.items()), strict=True):
        *figures, last = row
        yield "  ".join([*(cell.rjust(width) for cell, width in zip(figures, widths, strict=True)), last])


def figure(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def differing_lines(values: Sequence[Any], room: int) -> list[str]:
    """Return values in a line each: of texts the first line in which they differ, cut to `room` characters."""
    lines = [str(value).splitlines() if isinstance(value, str) else [spec.inline_value(value)] for value in values]
    longest = max(map(len, lines))
    at = next((n for n in range(longest) if len({tuple(one[n : n + 1]) for one in lines}) > 1), 0)
    found = [one[at] if at < len(one) else "" for one in lines]
    where = f"line {at + 1}: " if longest > 1 else ""
    shown = ["unset" if value is None else where + text for value, text in zip(values, found, strict=True)]
    return [text if len(text) <= room else f"{text[: room - 1]}…" for text in shown]
