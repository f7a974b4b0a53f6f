"""Layers of a spec: the values that one file or the flags have written, each with its place.

Values are text as written, until the `Kind` of each key reads them. The YAML library is imported only where text is
read, because shell completion needs the keys alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acestep_cli.song import request as song
from acestep_cli.song import spec_keys, spec_text
from acestep_cli.song.spec_keys import EXTENDS, KEYS, RENDER, SYNONYMS, TEXT_FILES
from acestep_cli.song.spec_text import STDIN
from acestep_cli.song.values import Kind, Text, quoted

if TYPE_CHECKING:
    from acestep_cli.song.document import Entry

MARKDOWN = (".md", ".markdown")
SUFFIXES = (".yaml", ".yml", *MARKDOWN)
#: The longest chain of specs that extend each other.
DEEPEST = 20
#: The longest text that a remark repeats, in characters.
SHORT = 60


@dataclass(frozen=True)
class WrittenValue:
    """The value that was written for a key, and its place.

    Args:
        raw: Text as written, or a list or map of it.
        where: The place in messages: `song.yaml:3: bpm` or `--bpm`.
        origin: The origin for `--explain`.
        lines: File and first line number of a text of several lines.
    """

    raw: Any
    where: str
    origin: str
    lines: tuple[str, int] | None = None
    #: A sentence about it where a part of its line is a comment to YAML and may not be meant as one.
    remark: str | None = None


@dataclass(frozen=True)
class Layer:
    """The values of one spec or of the flags, and the problems found while reading it."""

    #: The folder that its relative paths start from.
    folder: Path
    values: Mapping[str, WrittenValue] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    #: True where a render wrote it, so that many values are defaults and not the user's choice.
    is_sidecar: bool = False
    #: The file it was read from.
    file: Path | None = None


def from_flags(values: Mapping[str, Any], settings: tuple[str, ...] = ()) -> Layer:
    """Return the layer of the flags by key, where None is a flag not given, and of the `key=value` of each `--set`."""
    from acestep_cli.song import document

    given = {
        name: WrittenValue(raw, spec_keys.flag_of(name), spec_keys.flag_of(name))
        for name, raw in values.items()
        if raw is not None
    }
    problems = []
    for setting in settings:
        name, equals, raw = setting.partition("=")
        name = spec_keys.canonical_key(name)
        where = f"--set {name}"
        if not equals:
            problems.append(f"--set {quoted(setting)}: is not key=value")
        elif name == "extends":
            problems.append(f"{where}: only a spec can extend another; give both as layers of a file")
        elif name not in KEYS:
            problems.append(f"{where}: is not a key of a song spec{spec_keys.nearest_key(name)}")
        elif name in given:
            problems.append(f"{where}: is given twice, here and by {given[name].where}")
        else:
            given[name] = WrittenValue(None if raw.strip() in document.NULLS[1:] else raw.strip(), where, where)
    for key, file in TEXT_FILES.items():
        if key in given and given[key].raw == STDIN:
            given[file] = given.pop(key)
    return Layer(Path(), given, tuple(problems))


def implied_layer(values: Mapping[str, str | list[str] | None], by: str) -> Layer:
    """Return a layer of values that `by` implies and nobody wrote; None unsets a key."""
    return Layer(Path(), {name: WrittenValue(raw, by, by) for name, raw in values.items()})


def sidecar_path(file: Path) -> Path:
    """Return the path of the sidecar of an audio file."""
    return file.with_name(f"{file.name}.yaml")


def read_layers(path: Path, wanted_by: str = "") -> list[Layer]:
    """Read the spec at `path` and those it extends. The spec itself is the last layer, the end of the chain the first.

    A file that is not a spec becomes a layer with a problem, which begins with `wanted_by`.
    """
    layers = [read_layer(path, wanted_by)]
    seen = [path]
    while (extends := layers[0].values.get("extends")) and extends.raw is not None:
        try:
            base = extended_file(extends.raw, layers[0].folder, seen)
        except ValueError as error:
            layers.insert(0, Layer(Path(), problems=(f"{extends.where}: {error}",)))
            break
        seen.append(base)
        layers.insert(0, read_layer(base, wanted_by=f"{extends.where}: "))
    return layers


def extended_file(raw: Any, folder: Path, seen: Sequence[Path]) -> Path:
    """Return the file that an `extends` in `folder` names; `seen` are the files that led to it.

    Raises `ValueError` where the chain is a circle or too long.
    """
    base = folder / expand_home(EXTENDS.kind.read(raw))
    if any(same_file(base, other) for other in seen):
        ring = " -> ".join(file.name for file in [*seen, base])
        raise ValueError(f"goes round in a circle: {ring}")
    if len(seen) > DEEPEST:
        raise ValueError(f"is the end of a chain of more than {DEEPEST} specs")
    return base


def same_file(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def read_layer(path: Path, wanted_by: str = "") -> Layer:
    """Read the layer of the file `path`, or of stdin."""
    from acestep_cli.song import document

    from_stdin = str(path) == STDIN and not wanted_by
    name = "stdin" if from_stdin else str(path)
    folder = Path() if from_stdin else path.parent
    try:
        text = spec_text.read_text(STDIN if from_stdin else str(path))
    except ValueError as error:
        return Layer(folder, problems=(f"{wanted_by}{name}: {error}",))
    markdown = document.is_markdown(text) if from_stdin else path.suffix.lower() in MARKDOWN
    return parse_layer(text, name, folder, None if from_stdin else path, markdown=markdown)


def parse_layer(text: str, name: str, folder: Path, file: Path | None = None, *, markdown: bool = False) -> Layer:
    """Parse the text of a spec, which messages call `name` and whose paths are relative to `folder`."""
    from acestep_cli.song import document

    content = document.parse_document(text, markdown=markdown)
    return layer_of_entries(content.entries, name, folder, file, [f"{name}{problem}" for problem in content.problems])


def layer_of_entries(
    entries: Iterable[Entry], name: str, folder: Path, file: Path | None, before: Iterable[str] = ()
) -> Layer:
    """Return the layer of a document's entries. Messages call it `name`; `before` are problems found already."""
    from acestep_cli.song import document

    problems = [*before]
    values: dict[str, WrittenValue] = {}
    is_sidecar = False
    for entry in document.refuse_duplicates(flatten_groups(map(under_its_key, entries)), name, problems, SYNONYMS):
        origin = f"{name}:{entry.line}"
        where = f"{origin}: {entry.name}"
        key = SYNONYMS.get(entry.name, entry.name)
        if key not in (*KEYS, *song.GROUPS, RENDER):
            problems.append(f"{where}: is not a key of a song spec{spec_keys.nearest_key(key)}")
        elif key == RENDER:
            is_sidecar = True
        elif entry.items is not None and key in KEYS and KEYS[key].kind.of_maps:
            try:
                values[key] = WrittenValue(plain_items(entry.items), where, origin)
            except ValueError as error:
                problems.append(f"{where}: {error}")
        elif entry.problem is not None:
            problems.append(f"{where}: {entry.problem}")
        elif key in TEXT_FILES and entry.is_folded:
            problems.append(f"{where}: YAML makes one line of these; write `{key}: |` and the lines below it")
        else:
            lines_at = (name, entry.text_line) if entry.text_line is not None else None
            comment = comment_remark(entry, KEYS[key].kind) if key in KEYS else None
            remark = None if comment is None else f"{where}: {comment}"
            values[key] = WrittenValue(entry.raw, where, origin, lines_at, remark)
    if is_sidecar and "dcw" not in values:  # it was written before the key existed, of a take without
        values["dcw"] = WrittenValue(song.NEUTRAL["dcw"], f"{name}: dcw", f"{name}, which is older than the key")
    return Layer(folder, values, tuple(problems), is_sidecar, file)


def comment_remark(entry: Entry, kind: Kind) -> str | None:
    """Return a remark where the value is text and YAML takes a part of it for a comment."""
    if not entry.commented or not isinstance(kind, Text):
        return None
    whole = f"{entry.raw or ''}{entry.commented}".strip()
    in_quotes = "'" + whole.replace("'", "''") + "'"
    example = f": {entry.name}: {in_quotes}" if len(whole) <= SHORT else ""
    return f"{quoted(entry.commented)} is a comment to YAML; as text it needs quotes{example}"


def under_its_key(entry: Entry) -> Entry:
    """Return `entry` under the name of its key where that is spelled like a heading: `BPM`, `Time Signature`."""
    inner = None if entry.entries is None or entry.name == RENDER else tuple(map(under_its_key, entry.entries))
    return replace(entry, name=spec_keys.key_named(entry.name), entries=inner)


def flatten_groups(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries, with each map of keys replaced by the entries in it. Misplaced entries get a problem."""
    lines: dict[str, int] = {}
    for entry in entries:
        keys = song.GROUPS.get(entry.name)
        group = KEYS[entry.name].group if entry.name in KEYS else None
        if group is not None:
            yield replace(entry, problem=f"belongs under {group}")
        elif keys is None:
            yield entry
        elif entry.name in lines:
            yield replace(entry, problem=f"is here again, after line {lines[entry.name]}")
        elif entry.entries is not None:
            yield from (
                part
                if part.name in keys or part.name not in KEYS
                else replace(part, problem=f"is not a key of {entry.name}")
                for part in entry.entries
            )
        elif entry.problem is None and entry.raw is None:  # null unsets them all
            yield from (replace(entry, name=name) for name in keys)
        else:
            yield replace(entry, problem=f"is a map, with {', '.join(keys)} below it")
        lines.setdefault(entry.name, entry.line)


def plain_items(items: Iterable[Entry]) -> list[Any]:
    """Return the items of a list as text, or as dicts of text. Raises `ValueError` where an item is neither."""
    found: list[Any] = []
    for item in items:
        if item.entries is None:
            if item.problem is not None:
                raise ValueError(item.problem)
            found.append(item.raw)
            continue
        if wrong := next((part for part in item.entries if part.problem is not None), None):
            raise ValueError(f"{wrong.name} {wrong.problem}")
        if len(names := [part.name for part in item.entries]) > len(set(names)):
            raise ValueError("has an item with a key that is there twice")
        found.append({part.name: part.raw for part in item.entries})
    return found


def expand_home(file: str) -> Path:
    """Return the path with a leading `~` replaced by the user's home."""
    path = Path(file)  # "." has no parts
    return Path.home().joinpath(*path.parts[1:]) if path.parts[:1] == ("~",) else path
