"""Parse the text of a song spec, YAML or Markdown with YAML front matter, strictly, with the line of every key.

Scalars stay text as written. The `Kind` of each key converts them later.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from types import MappingProxyType
from typing import Any

import yaml

from acestep_cli.song import yaml_errors

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Characters that YAML 1.1 readers take for line ends, unless they are escaped.
STRANGE_BREAKS = "\r\x85\u2028\u2029\ufeff"
#: Line ends as the parser counts them.
YAML_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
#: The most levels of nesting. A sidecar needs a few; the parser's time grows with their square.
DEEPEST = 50
NULLS = ("", "~", "null", "Null", "NULL")
#: YAML between two lines of dashes, blank lines before it, and text after it.
FRONT_MATTER = re.compile(
    r"\A(?:[ \t]*\n)*---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)(.*)\Z", re.MULTILINE | re.DOTALL
)
OPENING = re.compile(r"\s*^---[ \t]*$", re.MULTILINE)
#: A code block around a whole document, as chat programs write it.
FENCED = re.compile(r"\A\s*^(`{3,}|~{3,})[ \t]*[\w.+-]*[ \t]*\n(.*)^\1[ \t]*\s*\Z", re.MULTILINE | re.DOTALL)
#: A character beyond U+FFFF as JSON escapes it: the two halves of its UTF-16 form.
PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
#: A byte of a file name that is not UTF-8, as JSON and this program escape it. The C parser refuses it.
UNDECODED = re.compile(r"\\u[dD][cC][89a-fA-F][0-9a-fA-F]")
#: Byte order marks and their encodings. UTF-32 comes first: its mark begins like that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: Programs wrap long lines at 80 columns or a little earlier; a line of lyrics is shorter than this.
WRAPPED_COLUMNS = 64
#: A comment that rather looks like the rest of a value: `jam #1`, `lofi #chill`. Comments that are meant have a blank
#: after the sign, or two before it.
COMMENTED = re.compile(r" #[^\s#][^\n]*")

LIST_WIDTH = 100

Raw = str | list[str] | None
#: What a parser makes of `!!` before the type of a value.
YAML_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Entry:
    """One key of a document and its value. `problem` is the reason why the value could not be read.

    `text_line` is the line of the document that holds the first line of a literal block (`|`), else None.
    `is_folded` is true where YAML joins several lines of the value into one, so that line breaks are lost.
    `commented` is what follows the value and looks like a part of it, but is a comment to YAML.
    """

    line: int
    name: str
    raw: Raw = None
    problem: str | None = None
    text_line: int | None = None
    is_folded: bool = False
    commented: str = ""
    #: The entries of a map; None where the value is not a map.
    entries: tuple[Entry, ...] | None = None
    #: The items of a list that holds more than text, else None. Each item has the name of its list.
    items: tuple[Entry, ...] | None = None


@dataclass(frozen=True)
class Document:
    """The entries of a spec in order. Each problem begins with `:LINE: ` or `: `, so a file name fits in front."""

    entries: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = field(default=())


def decoded(data: bytes) -> str:
    """Decode a text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark. Line ends become `\\n`.

    Raises `ValueError` with the reason where the bytes are not such text.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if encoding is None and (name := unmarked_utf16(data)):
        encoding = name
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        name = (encoding or "utf-8").upper().removesuffix("-SIG")
        advice = "save it as UTF-8" if encoding is None else "it is cut short or damaged; save it again"
        raise ValueError(f"is not {name} text (byte {error.start}); {advice}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def unmarked_utf16(data: bytes) -> str | None:
    """Return the UTF-16 encoding of data without a mark, recognised by zeros in every other byte, else None."""
    start = data[:64]
    if len(start) >= 4 and len(data) % 2 == 0:
        if not any(start[1::2]) and all(start[::2]):
            return "utf-16-le"
        if not any(start[::2]) and all(start[1::2]):
            return "utf-16-be"
    return None


def unfenced(text: str) -> str:
    """Return `text` without a code fence around all of it. Line numbers stay the same."""
    found = FENCED.match(text)
    return "\n" * text.count("\n", 0, found.start(2)) + found[2] if found else text


def parse_document(text: str, *, markdown: bool) -> Document:
    """Parse a YAML map, or a Markdown song, whose front matter has the keys and whose body is `lyrics`."""
    text = unfenced(text)
    front, body, front_line, body_line = split_front_matter(text) if markdown else (text, "", 1, 0)
    if markdown and not front and OPENING.match(body):
        return Document(problems=(": has no line of --- that closes its front matter",))
    entries: list[Entry] = []
    problems: list[str] = []
    if front.strip() or not markdown:
        entries, problem = yaml_document(front, front_line - 1)
        problems += problem
    if body.strip():
        entries.append(Entry(body_line, "lyrics", body.strip("\n") + "\n", text_line=body_line))
    if markdown and not entries and not problems:
        problems.append(": is not a song: it has neither front matter between --- lines nor lyrics")
    return Document(tuple(entries), tuple(problems))


def yaml_document(text: str, lines_before: int, loader: Any = LOADER) -> tuple[list[Entry], list[str]]:
    """Parse a YAML map that begins after `lines_before` lines of the file. Return its entries and its problems."""
    entries: list[Entry] = []
    try:
        for entry in yaml_entries(text, lines_before, loader):
            entries.append(entry)  # noqa: PERF402  those before a problem are kept
    except yaml.MarkedYAMLError as error:
        problem, mark = str(error.problem), error.problem_mark or error.context_mark
        if "expected ':'" in problem or "end of stream" in problem:
            mark = error.context_mark or mark  # where the line without a key stands, or the quote that is never closed
        if loader is LOADER and yaml_errors.ESCAPES.search(problem):
            if (joined := with_joined_pairs(text)) != text:
                return yaml_document(joined, lines_before)
            if UNDECODED.search(text):
                return yaml_document(text, lines_before, yaml.SafeLoader)
        if mark is None:
            return entries, [f": {yaml_errors.sentence(problem, '')}"]
        lines = YAML_BREAK.split(text)
        line = lines[mark.line] if mark.line < len(lines) else ""
        number = mark.line + 1 + lines_before
        whole = [entry for entry in entries if entry.line < number]  # one of this line is half of what was meant
        return whole, [f":{number}: {yaml_errors.sentence(problem, line)}"]
    except yaml.reader.ReaderError as error:
        if (found := yaml.reader.Reader.NON_PRINTABLE.search(text)) is None:
            return entries, [f": holds a character that is not text: {error.reason}"]
        line_number = text.count("\n", 0, found.start()) + 1 + lines_before
        return entries, [f":{line_number}: holds a character that is not text, U+{ord(found[0]):04X}; remove it"]
    except yaml.YAMLError as error:
        return entries, [f": {' '.join(str(error).split())}"]
    return entries, []


def as_comment(text: str) -> str:
    """Return `text` on one line, with characters that YAML does not allow in comments replaced."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def load_yaml(data: str | bytes) -> Any:
    """Return the values of a YAML document that this program wrote. Raises `ValueError` or `yaml.YAMLError`."""
    text = decoded(data) if isinstance(data, bytes) else data
    try:
        return yaml.load(text, Loader=LOADER)
    except yaml.MarkedYAMLError:
        if LOADER is yaml.SafeLoader or not UNDECODED.search(text):
            raise
        return yaml.load(text, Loader=yaml.SafeLoader)


def with_joined_pairs(text: str) -> str:
    """Return `text` with each JSON surrogate pair replaced by the one escape that YAML knows."""

    def joined(found: re.Match[str]) -> str:
        high, low = int(found[2], 16), int(found[3], 16)
        return f"{found[1]}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"

    return PAIR.sub(joined, text)


def refuse_duplicates(
    entries: Iterable[Entry], file: object, problems: list[str], names: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Entry]:
    """Yield the entries of a map in `file`. Skip those whose name is there already, and add them to `problems`.

    `names` maps synonyms to names.
    """
    lines: dict[str, int] = {}
    for entry in entries:
        name = names.get(entry.name, entry.name)
        if name in lines:
            problems.append(f"{file}:{entry.line}: {entry.name}: is here again, after line {lines[name]}")
        else:
            lines[name] = entry.line
            yield entry


def is_markdown(text: str) -> bool:
    """Return True where `text` has front matter, so that it is Markdown and not YAML."""
    return FRONT_MATTER.match(unfenced(text)) is not None


def split_front_matter(text: str) -> tuple[str, str, int, int]:
    """Return front matter, body, and the number of the first line of each."""
    found = FRONT_MATTER.match(text)
    front, body = (found[1], found[2]) if found else ("", text)
    front_line = text.count("\n", 0, found.start(1)) + 1 if found else 1
    before = text[: len(text) - len(body)].count("\n")
    blank = len(body) - len(body.lstrip("\n"))
    return front, body, front_line, before + blank + 1


def yaml_entries(text: str, lines_before: int, loader: Any) -> Iterator[Entry]:
    """Yield each entry of the one map in `text`.

    Works on parser events, so that no document, however nested, can exhaust the stack.
    """
    events: Iterator[Any] = yaml.parse(text, Loader=loader)
    *_, first = islice(events, 3)  # after the beginnings of the stream and of the document
    if not isinstance(first, yaml.MappingStartEvent):
        raise yaml.YAMLError("is not a song spec: it has no `key: value` lines, with a space behind the colon")
    yield from map_entries(events, lines_before, text)
    next(events)  # the end of the document
    if not isinstance(event := next(events), yaml.StreamEndEvent):
        raise yaml.MarkedYAMLError(problem="a second document begins", problem_mark=event.start_mark)


def map_entries(events: Iterator[Any], lines_before: int, text: str) -> Iterator[Entry]:
    """Yield the remaining entries of the map that `events` are in, up to its end."""
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = node_of(event, events)
        value = node_of(next(events), events)
        line = event.start_mark.line + 1 + lines_before
        name = key[0].value if isinstance(key[0], yaml.ScalarEvent) else "[…]"
        yield read_entry(line, name, value, lines_before, text)


def read_entry(line: int, name: str, value: list[Any], lines_before: int, text: str) -> Entry:
    """Return the entry of a key, or of an item of a list, from the events of its value; `text` is the document."""
    try:
        raw = plain_value(value)
        text_line = line + 1 if isinstance(value[0], yaml.ScalarEvent) and value[0].style == "|" else None
        folded, commented = loses_breaks(value[0], text), comment_behind(value[0], text)
        return Entry(line, name, raw, text_line=text_line, is_folded=folded, commented=commented)
    except ValueError as error:
        is_map, is_list = (isinstance(value[0], kind) for kind in (yaml.MappingStartEvent, yaml.SequenceStartEvent))
        entries = tuple(map_entries(iter(value[1:]), lines_before, text)) if is_map else None
        items = tuple(list_items(iter(value[1:]), name, lines_before, text)) if is_list else None
        return Entry(line, name, problem=str(error), entries=entries, items=items)


def loses_breaks(event: Any, text: str) -> bool:
    """Return True where YAML turns a line break that a person wrote in the scalar of `event` into a space.

    Breaks that a program wrote do no harm: it writes the breaks of a value as a blank line or as `\\n`, which YAML
    keeps, and wraps long lines at a space, which YAML restores.
    """
    if not isinstance(event, yaml.ScalarEvent) or event.style == "|":
        return False
    first: Any = event.start_mark
    last: Any = event.end_mark
    if first.line == last.line:
        return False
    rows = YAML_BREAK.split(text)[first.line : last.line + 1]
    if event.style == ">":
        rows = rows[1 : len(rows) if last.column else -1]
        indent = min((len(row) - len(row.lstrip(" ")) for row in rows if row.strip()), default=0)
        kept = [row[indent : indent + 1] in (" ", "\t") for row in rows]  # lines indented further keep their breaks
    else:
        rows[-1] = rows[-1][: last.column]
        quote = event.style if event.style in ("'", '"') else ""
        if rows[-1].strip() == quote:
            rows[-1] = ""
        if rows[0][first.column :].strip() == quote:
            rows[0] = ""
        kept = [False] * len(rows)
    return any(
        row.strip() and after.strip() and not (is_kept or next_is_kept or is_harmless(row, after, event.style))
        for (row, is_kept), (after, next_is_kept) in pairwise(zip(rows, kept, strict=True))
    )


def comment_behind(event: Any, text: str) -> str:
    """Return the comment behind a scalar without quotes where it looks like the rest of its text, else nothing."""
    if not isinstance(event, yaml.ScalarEvent) or event.style:
        return ""
    end: Any = event.end_mark
    found = COMMENTED.match(text, end.index)
    return found[0].rstrip() if found else ""


def is_harmless(row: str, after: str, style: str | None) -> bool:
    """Return True where a program broke the line between `row` and `after`.

    It does so at an escaped break; between escaped characters, where it wraps text in double quotes; or where a line is
    long.
    """
    if style == '"':
        if re.search(r"(?<!\\)(?:\\\\)*\\n\s*\\?$", row) or re.match(r"\s*\\?\s*\\n", after):
            return True
        if re.search(r"(?<!\\)(?:\\\\)*\\$", row) and after.lstrip().startswith("\\"):
            return True
    word = after.strip().split(" ", 1)[0]
    return len(row.rstrip()) + 1 + len(word) > WRAPPED_COLUMNS


def list_items(events: Iterator[Any], name: str, lines_before: int, text: str) -> Iterator[Entry]:
    """Yield the remaining items of the list that `events` are in, up to its end."""
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        yield read_entry(event.start_mark.line + 1 + lines_before, name, node_of(event, events), lines_before, text)


def node_of(first: Any, events: Iterator[Any]) -> list[Any]:
    """Take all events of the node that `first` begins from `events`."""
    node = [first]
    depth = int(isinstance(first, yaml.CollectionStartEvent))
    while depth:
        node.append(event := next(events))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem="too many levels of nesting", problem_mark=event.start_mark)
    return node


def plain_value(node: list[Any]) -> Raw:
    """Return the text of a scalar as written, a list of such texts, or None for a null.

    Raises `ValueError` for anything else.
    """
    if isinstance(node[0], yaml.SequenceStartEvent):
        texts = [scalar_text(event) for event in node[1:-1]]
        if None in texts:
            raise ValueError("has an item without a value")
        return texts  # type: ignore[return-value]
    return scalar_text(node[0])


def scalar_text(event: Any) -> str | None:
    if isinstance(event, yaml.AliasEvent):
        raise ValueError(yaml_errors.sign(f"*{event.anchor}"))
    if not isinstance(event, yaml.ScalarEvent):
        raise ValueError("is neither text, a number nor a list of them")
    if event.tag is not None:
        tag = event.tag.replace(YAML_TAG, "!!", 1) if event.tag.startswith(YAML_TAG) else f"!{event.tag.lstrip('!')}"
        raise ValueError(yaml_errors.sign(f"{tag} {event.value}"))
    if event.anchor is not None:
        raise ValueError(yaml_errors.sign(f"&{event.anchor} {event.value}"))
    is_null = event.implicit[0] and event.value in NULLS
    return None if is_null else event.value


class _Dumper(yaml.SafeDumper):
    """A dumper that writes multi-line text as a literal block, lists on one line, and keys in their own order."""


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


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Return `content` as YAML that reads back as itself. Lists are wrapped; texts are not, to keep lines of lyrics."""
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
