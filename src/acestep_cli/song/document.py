"""The text of a song spec: YAML, or Markdown with YAML in front, read strictly with the line of every key.

Scalars stay text as they were written; what they mean is decided by the key they belong to.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: YAML 1.1 readers take these for line ends, unless they are escaped.
STRANGE_BREAKS = "\r\x85\u2028\u2029\ufeff"
#: A sidecar needs a few levels; the parser's time grows with the square of them.
DEEPEST = 50
NULLS = ("", "~", "null", "Null", "NULL")
#: YAML between two lines of dashes, blank lines before it, and text after it.
FRONT_MATTER = re.compile(
    r"\A(?:[ \t]*\n)*---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)(.*)\Z", re.MULTILINE | re.DOTALL
)
OPENING = re.compile(r"\s*^---[ \t]*$", re.MULTILINE)

LIST_WIDTH = 100

Raw = str | list[str] | None


@dataclass(frozen=True)
class Entry:
    """One key as it stands in a document. `problem` says why its value could not be read.

    `text_line` is the line in which the value's own first line stands, where its lines are those of the document.
    `is_folded` says that the document has the value in lines, which YAML makes one of.
    """

    line: int
    name: str
    raw: Raw = None
    problem: str | None = None
    text_line: int | None = None
    is_folded: bool = False
    #: The entries of a map; None where the value is none.
    entries: tuple[Entry, ...] | None = None
    #: The items of a list in which not all is text; None where the value is none. An item has the name of its list.
    items: tuple[Entry, ...] | None = None


@dataclass(frozen=True)
class Document:
    """The entries of a spec in their order; `problems` begin with `:LINE: ` or `: `, for a file name in front."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = field(default=())


def read(text: str, *, markdown: bool) -> Document:
    """The entries of a YAML map, or of a Markdown song: its front matter, and its body as `lyrics`."""
    front, body, front_line, body_line = split(text) if markdown else (text, "", 1, 0)
    if markdown and not front and OPENING.match(body):
        return Document(problems=(": has no line of --- that closes its front matter",))
    entries: list[Entry] = []
    problems: list[str] = []
    try:
        if front.strip() or not markdown:
            entries.extend(yaml_entries(front, front_line - 1))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + front_line}" if mark else ""
        problems.append(f"{line}: {error.problem}{advice(str(error.problem))}")
    except yaml.reader.ReaderError as error:
        line = f":{front.count(chr(10), 0, error.position) + front_line}"
        problems.append(f"{line}: holds a character that is no text: {error.reason}")
    except yaml.YAMLError as error:
        problems.append(f": {' '.join(str(error).split())}")
    if body.strip():
        entries.append(Entry(body_line, "lyrics", body.strip("\n") + "\n", text_line=body_line))
    if markdown and not entries and not problems:
        problems.append(": is not a song: it has neither front matter between --- lines nor lyrics")
    return Document(tuple(entries), tuple(problems))


def once(
    entries: Iterable[Entry], file: object, problems: list[str], names: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Entry]:
    """The entries of a map of `file`, but for those whose name is there already: each of them is a problem.

    `names` has those that are another name of one.
    """
    lines: dict[str, int] = {}
    for entry in entries:
        name = names.get(entry.name, entry.name)
        if name in lines:
            problems.append(f"{file}:{entry.line}: {entry.name}: is here again, after line {lines[name]}")
        else:
            lines[name] = entry.line
            yield entry


def advice(problem: str) -> str:
    """What most often mends a problem of the parser's."""
    if "'\\t'" in problem:
        return " (indent with spaces, not tabs)"
    slips = "mapping values", "expected ':'", "<block end>", "expected the node", "alias", "anchor"
    if any(slip in problem for slip in slips):
        return " (text with `: ` or ` #` in it, or with [ or * in front, needs quotes or `|`)"
    return ""


def is_markdown(text: str) -> bool:
    """Whether `text` has front matter, which YAML has not."""
    return FRONT_MATTER.match(text) is not None


def split(text: str) -> tuple[str, str, int, int]:
    """Front matter and body, and the lines that the first of each stands in."""
    found = FRONT_MATTER.match(text)
    front, body = (found[1], found[2]) if found else ("", text)
    front_line = text.count("\n", 0, found.start(1)) + 1 if found else 1
    before = text[: len(text) - len(body)].count("\n")
    blank = len(body) - len(body.lstrip("\n"))
    return front, body, front_line, before + blank + 1


def yaml_entries(text: str, lines_before: int) -> Iterator[Entry]:
    """Each entry of the one map in `text`.

    Events come one after another, so that no document, however nested, can exhaust the stack.
    """
    events: Iterator[Any] = yaml.parse(text, Loader=LOADER)
    *_, first = islice(events, 3)  # after the beginnings of the stream and of the document
    if not isinstance(first, yaml.MappingStartEvent):
        raise yaml.YAMLError("is not a song spec: it has no `key: value` lines")
    yield from map_entries(events, lines_before)
    next(events)  # the end of the document
    if not isinstance(event := next(events), yaml.StreamEndEvent):
        raise yaml.MarkedYAMLError(problem="a second document begins", problem_mark=event.start_mark)


def map_entries(events: Iterator[Any], lines_before: int) -> Iterator[Entry]:
    """Each entry of the map that `events` go on in, up to its end."""
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = node_of(event, events)
        value = node_of(next(events), events)
        line = event.start_mark.line + 1 + lines_before
        name = key[0].value if isinstance(key[0], yaml.ScalarEvent) else "[…]"
        yield entry(line, name, value, lines_before)


def entry(line: int, name: str, value: list[Any], lines_before: int) -> Entry:
    """The entry of a key, or an item of a list, with the events of its value."""
    try:
        style = value[0].style if isinstance(value[0], yaml.ScalarEvent) else None
        is_folded = style in (None, "", "'", ">") and value[0].end_mark.line > value[0].start_mark.line + (style == ">")
        text_line = line + 1 if style == "|" else None
        return Entry(line, name, plain(value), text_line=text_line, is_folded=is_folded)
    except ValueError as error:
        is_map, is_list = (isinstance(value[0], kind) for kind in (yaml.MappingStartEvent, yaml.SequenceStartEvent))
        entries = tuple(map_entries(iter(value[1:]), lines_before)) if is_map else None
        items = tuple(list_items(iter(value[1:]), name, lines_before)) if is_list else None
        return Entry(line, name, problem=str(error), entries=entries, items=items)


def list_items(events: Iterator[Any], name: str, lines_before: int) -> Iterator[Entry]:
    """Each item of the list that `events` go on in, up to its end."""
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        yield entry(event.start_mark.line + 1 + lines_before, name, node_of(event, events), lines_before)


def node_of(first: Any, events: Iterator[Any]) -> list[Any]:
    """All events of the node that `first` begins, taken from `events`."""
    node = [first]
    depth = int(isinstance(first, yaml.CollectionStartEvent))
    while depth:
        node.append(event := next(events))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem="too many levels of nesting", problem_mark=event.start_mark)
    return node


def plain(node: list[Any]) -> Raw:
    """The text of a scalar as written, a list of such texts, or None for a null. `ValueError` for all else."""
    if isinstance(node[0], yaml.SequenceStartEvent):
        texts = [scalar(event) for event in node[1:-1]]
        if None in texts:
            raise ValueError("has an item without a value")
        return texts  # type: ignore[return-value]
    return scalar(node[0])


def scalar(event: Any) -> str | None:
    if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
        raise ValueError("is neither text, a number nor a list of them")
    is_null = event.implicit[0] and event.value in NULLS
    return None if is_null else event.value


class _Dumper(yaml.SafeDumper):
    """Song lines below each other, lists on one line, keys in their own order."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if any(mark in text for mark in STRANGE_BREAKS) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _items(dumper: yaml.SafeDumper, items: Iterable[Any]) -> yaml.Node:
    listed = list(items)
    maps = any(isinstance(item, Mapping) for item in listed)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", listed, flow_style=not maps)


def _number(dumper: yaml.SafeDumper, number: float) -> yaml.Node:
    return dumper.represent_int(int(number)) if number.is_integer() else dumper.represent_float(number)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, _items)
_Dumper.add_representer(list, _items)
_Dumper.add_representer(float, _number)


def dump(content: Mapping[str, Any]) -> str:
    """`content` as YAML that reads back as itself. Lists are wrapped, texts never: folded lines would be no lyrics."""
    if not content:
        return "{}\n"
    return "".join(
        yaml.dump(
            {name: value},
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=LIST_WIDTH if isinstance(value, list | tuple) else sys.maxsize,
        )
        for name, value in content.items()
    )
