"""Errors of the YAML parser in plain words: what is wrong in the line, and what to write instead."""

from __future__ import annotations

import re

from acestep_cli.song.values import quoted

#: Characters that mean something to YAML at the beginning of a value, with what YAML takes them for.
SIGNS = {
    "@": "which YAML keeps for itself",
    "`": "which YAML keeps for itself",
    "%": "which YAML keeps for itself",
    "*": "which YAML takes for the name of an anchor",
    "&": "which YAML takes for an anchor",
    "!": "which YAML takes for the type of a value",
}
IN_QUOTES = 'put the whole text in quotes: "…"'
LYRICS_BELOW = "lyrics stand below `lyrics: |`, each line indented by two spaces"
LINES_BELOW = "leave the rest of the line empty and write the text on the lines below it, indented by two spaces"
HALF = re.compile(r"\\u[dD][89a-fA-F]")
ESCAPES = re.compile(r"escape|hexdecimal|hexadecimal")
FENCE = re.compile(r"\s*(?:`{3,}|~{3,})")
#: A key and its value; a dash may stand in front, as in a list.
ENTRY = re.compile(r"(?P<indent>\s*)(?:-\s+)*(?P<key>[^\s:'\"#\[{][^:]*?)\s*:(?P<value>\s.*|)$")


def sentence(problem: str, line: str) -> str:
    """Return a sentence about the parser's `problem` in `line`, with the remedy."""
    entry = ENTRY.match(line)
    value = entry["value"].strip() if entry else line.strip().removeprefix("- ")
    if FENCE.match(line):
        mark = line.strip()[:3]
        return (
            f"{mark} marks a code block, as chat programs write it; remove the lines of {mark} and what is around them"
        )
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "is indented with a tab; write spaces instead"
    if ESCAPES.search(problem):
        if HALF.search(line):
            return (
                "has half of a character, \\ud83c and the like, whose other half is missing; write the character itself"
            )
        return "has a backslash, which means something else in double quotes; use 'single quotes', or / in a path"
    for reason, text in _PROBLEMS:
        if reason.search(problem):
            if "{value}" in text and not value:
                continue
            return text.format(value=quoted(value), line=quoted(line))
    if value[:1] in SIGNS:
        return sign(value)
    if value[:1] in "'\"" and value[:1]:
        return f"{quoted(value)} has a quotation mark inside that ends the text; {OTHER_QUOTES}"
    if value[:1] in ("[", "{"):
        return f"{quoted(value)} begins with {value[0]}, which YAML takes for the beginning of a list; {IN_QUOTES}"
    if ": " in value or value.endswith(":"):
        return f"{quoted(value)} has a colon in it; {IN_QUOTES}"
    if entry and entry["indent"]:
        return f"{quoted(line)} is indented differently from the lines above it; keys begin at the left"
    return f"{quoted(line)} cannot be read as `key: value`; {LYRICS_BELOW}, and text with signs in it needs quotes"


OTHER_QUOTES = "put it in the other kind of quotes, or after `|` on a line of its own"
_PROBLEMS = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (
            r"^a second document begins",
            "{line} begins a second document; a file has one song",
        ),
        (r"too many levels", "has too many levels of nesting"),
        (
            r"expected comment or (?:a )?line break",
            "{value} stands behind its sign for text on several lines; " + LINES_BELOW,
        ),
        (r"end of stream", "the text ends inside quotes or brackets that were opened before and are never closed"),
        (
            r"expected ',' or",
            "a comma or a closing bracket is missing here or above; text that begins with [ or {{ needs quotes",
        ),
        (r"expected ':'", "{line} has no `key:` in front; " + LYRICS_BELOW),
        (r"document start", "{line} is indented differently from the lines above it; keys begin at the left"),
        (r"block sequence entries", "{value} begins with a dash, which YAML takes for a list; " + IN_QUOTES),
    )
)


def sign(value: str) -> str:
    """Return a sentence about a text that begins with one of `SIGNS`."""
    return f"{quoted(value)} begins with {value[0]}, {SIGNS[value[0]]}; {IN_QUOTES}"
