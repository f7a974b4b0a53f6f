"""File names made from a template such as `{album}/{n:02} {title}.{ext}`, with signs that every disk takes."""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from acestep_cli.song.values import quoted, suggestion

#: The fields of a template.
NAMES = ("album", "artist", "year", "n", "title", "id", "ext")
#: Signs that one system or another takes in no file name.
FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')
#: Names that Windows keeps for devices.
DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
#: Bytes of a name, with room for numbers and the suffix of a sidecar.
LONGEST_NAME = 200


def split_template(template: str) -> list[str]:
    """Split a template into the names of folders and of a file."""
    return template.replace("\\", "/").split("/")


def template_problem(template: str) -> str | None:
    """Return the problem of a template; None where it has none."""
    try:
        fields = [piece for part in split_template(template) for piece in string.Formatter().parse(part)]
    except ValueError as error:
        return f"{quoted(template)} is not a template: {str(error).lower()}"
    for _, name, width, conversion in fields:
        if name is not None and name not in NAMES:
            return f"{quoted(template)} names {{{name}}}{suggestion(name, NAMES)}; there are {', '.join(NAMES)}"
        if conversion or (width and not (name == "n" and re.fullmatch(r"0?\d", width))):
            return f"{quoted(template)} has a format for {{{name}}} that is not a width, such as {{n:02}}"
    if any(part.strip() in ("", ".", "..") for part in split_template(template)) or re.match(r"[A-Za-z]:", template):
        return f"{quoted(template)} leads out of the folder of the album, or has a part without a name"
    if not template.endswith(".{ext}"):
        return f"{quoted(template)} does not end in .{{ext}}, which is the format of a track"
    return None


def template_path(template: str, values: Mapping[str, object]) -> Path:
    """Return the relative path for a template and `values`; a slash in a value makes no folder."""
    return Path(*(template_name(part, values) for part in split_template(template)))


def template_name(part: str, values: Mapping[str, object]) -> str:
    """Return the name of one folder or file of a template."""
    pieces = [
        text + ("" if field is None else format(values[field], width or ""))
        for text, field, width, _ in string.Formatter().parse(part)
    ]
    made = unicodedata.normalize("NFC", FORBIDDEN.sub("-", "".join(pieces))).strip().rstrip(". ")
    if DEVICES.fullmatch(made) or not made.strip("."):
        made = f"_{made}"
    stem, dot, suffix = made.rpartition(".") if "{ext}" in part else (made, "", "")
    while len(os.fsencode(f"{stem}{dot}{suffix}")) > LONGEST_NAME:
        stem = stem[:-1]
    return f"{stem.rstrip()}{dot}{suffix}"
