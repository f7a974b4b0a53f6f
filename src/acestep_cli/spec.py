"""Song specs: YAML to `Request` and back.

The key decides how a value is read, not YAML: every scalar arrives at the key's kind as the text that was
written, so `language: no` is Norwegian and `time_signature: 6/8` is no date. Values come in layers, a spec and
the flags over it; they are merged and checked once, so that all problems are reported together, each with its
file and line or its flag.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from acestep_cli import request as song
from acestep_cli.errors import UsageError
from acestep_cli.kinds import Choice, File, is_folder_name, suggestion
from acestep_cli.modes import MODES
from acestep_cli.request import Key, Request

LYRICS_FILE = Key(File(), "Text file with the lyrics; - reads them from stdin.", song.SONG)

#: Every key a spec may have: those of `Request`, and those that are answered before there is one.
KEYS: Mapping[str, Key] = {**song.KEYS, "lyrics_file": LYRICS_FILE}

#: What a sidecar records of its render; set aside when it is read as a spec.
RENDER = "render"

# What a flag may set aside in the spec below it, without naming it; `set_aside` says when.
SINGING = ("lyrics", "lyrics_file", "instrumental")
ENCODING = ("bit_depth", "bitrate")
SCHEDULE = ("steps", "shift")
GUIDING = ("guidance_method", "cfg_interval")
#: What suits one checkpoint and not another.
SUITED = (*SCHEDULE, "timesteps", "guidance", *GUIDING)

#: What other programs call our keys.
OTHER_NAMES = {
    "prompt": "caption",
    "style": "caption",
    "tags": "caption",
    "lyric": "lyrics",
    "vocal_language": "language",
    "tempo": "bpm",
    "keyscale": "key",
    "timesignature": "time_signature",
    "length": "duration",
    "audio_duration": "duration",
    "audio_codes": "codes",
    "inference_steps": "steps",
    "infer_step": "steps",
    "guidance_scale": "guidance",
    "sampler": "solver",
    "batch_size": "takes",
    "audio_format": "format",
}

STDIN = "-"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: YAML 1.1 readers take these for line ends, unless they are escaped.
STRANGE_BREAKS = "\r\x85\u2028\u2029\ufeff"
#: A sidecar needs a few levels; the parser's time grows with the square of them.
DEEPEST = 50
NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Value:
    """What was written for a key, and where: `song.yaml:3: bpm` or `--bpm`."""

    raw: Any
    where: str


@dataclass(frozen=True)
class Layer:
    """The values of one spec, or of the flags, with what is wrong in it already."""

    #: What relative paths in it are relative to.
    folder: Path
    values: Mapping[str, Value] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    #: Whether a render wrote it, so that much of it was nobody's wish.
    is_sidecar: bool = False


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def from_flags(values: Mapping[str, Any]) -> Layer:
    """The layer of the flags given, by key; None is a flag not given."""
    given = {name: Value(raw, flag(name)) for name, raw in values.items() if raw is not None}
    if "lyrics" in given and given["lyrics"].raw == STDIN:
        given["lyrics_file"] = given.pop("lyrics")
    return Layer(Path(), given)


def read(path: Path) -> Layer:
    """The layer of the spec at `path`. A file that is no spec is a layer with a problem."""
    values: dict[str, Value] = {}
    lines: dict[str, int] = {}
    problems = []
    try:
        for line, name, node in entries(path.read_text(encoding="utf-8-sig")):
            where = f"{path}:{line}: {name}"
            if name in lines:
                problems.append(f"{where}: is here again, after line {lines[name]}")
            elif name not in KEYS and name != RENDER:
                near = f"; did you mean {OTHER_NAMES[name]!r}?" if name in OTHER_NAMES else suggestion(name, KEYS)
                problems.append(f"{where}: is not a key of a song spec{near}")
            elif name != RENDER:
                try:
                    values[name] = Value(plain(node), where)
                except ValueError as error:
                    problems.append(f"{where}: {error}")
            lines.setdefault(name, line)
    except OSError as error:
        problems.append(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: is not UTF-8 text (byte {error.start})")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line_at = f":{mark.line + 1}" if mark else ""
        advice = "text with `: ` or ` #` in it, or with [ or * in front, needs quotes or `|`"
        problems.append(f"{path}{line_at}: {error.problem} ({advice})")
    except yaml.YAMLError as error:
        problems.append(f"{path}: {' '.join(str(error).split())}")
    given = {name: value for name, value in values.items() if value.raw is not None}
    return Layer(path.parent, given, tuple(problems), is_sidecar=RENDER in lines)


def entries(text: str) -> Iterator[tuple[int, str, list[Any]]]:
    """Line, key and value of each entry of the one map in `text`; a value is the events that spell it.

    Events come one after another, so that no document, however nested, can exhaust the stack.
    """
    events: Iterator[Any] = yaml.parse(text, Loader=LOADER)
    *_, first = islice(events, 3)  # after the beginnings of the stream and of the document
    if not isinstance(first, yaml.MappingStartEvent):
        raise yaml.YAMLError("is not a song spec: it has no `key: value` lines")
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = node_of(event, events)
        value = node_of(next(events), events)
        yield event.start_mark.line + 1, key[0].value if isinstance(key[0], yaml.ScalarEvent) else "[…]", value
    next(events)  # the end of the document
    if not isinstance(event := next(events), yaml.StreamEndEvent):
        raise yaml.MarkedYAMLError(problem="a second document begins", problem_mark=event.start_mark)


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


def plain(node: list[Any]) -> str | list[str] | None:
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


def resolve(*layers: Layer) -> Request:
    """The request that `layers` ask for, later ones over earlier ones.

    `UsageError` names every problem of every layer.
    """
    problems = [problem for layer in layers for problem in layer.problems]
    values: dict[str, Value] = {}
    is_sidecar = False
    for layer in layers:
        upper = {
            name: Value(anchored(name, value.raw, layer.folder), value.where) for name, value in layer.values.items()
        }
        meaningless = set_aside(values, upper, is_sidecar=is_sidecar)
        values = {name: value for name, value in values.items() if name not in meaningless} | upper
        is_sidecar |= layer.is_sidecar
    if "lyrics_file" in values:
        file = values.pop("lyrics_file")
        if "lyrics" in values:
            problems.append(f"{file.where}: excludes lyrics ({values['lyrics'].where})")
        else:
            try:
                values["lyrics"] = Value(lyrics_of(LYRICS_FILE.kind.read(file.raw)), file.where)
            except ValueError as error:
                problems.append(f"{file.where}: {error}")
    if "mode" in values:
        mode = values.pop("mode")
        try:
            values["mode"] = Value(Choice(tuple(MODES)).read(mode.raw), mode.where)
        except ValueError as error:
            problems.append(f"{mode.where}: {error}")
    try:
        request = Request(**{name: value.raw for name, value in values.items()})
    except ValidationError as error:
        problems += [sentence(detail, values) for detail in error.errors()]
    if problems:
        raise UsageError("\n".join(problems))
    return request


def set_aside(lower: Mapping[str, Value], upper: Mapping[str, Value], *, is_sidecar: bool) -> set[str]:
    """The keys of the lower layer that the upper one makes meaningless without naming them."""
    others = {name for name in upper if name not in lower or lower[name].raw != upper[name].raw}
    rules = (
        (any(name in upper for name in SINGING), SINGING),  # one answer to one question
        ("format" in lower and "format" in others, ENCODING),
        ("timesteps" in upper, SCHEDULE),
        (any(name in upper for name in SCHEDULE), ("timesteps",)),
        ("guidance" in upper and is_off(upper["guidance"].raw), GUIDING),
        (is_sidecar and "model" in others, SUITED),  # in a spec written by hand they were meant
    )
    return {name for applies, names in rules if applies for name in names}


def is_off(guidance: Any) -> bool:
    try:
        return bool(KEYS["guidance"].kind.read(guidance) <= 1)
    except ValueError:
        return False  # and refused in its turn


def load(path: Path) -> Request:
    """The request that the spec at `path` asks for."""
    return resolve(read(path))


def anchored(name: str, raw: Any, folder: Path) -> Any:
    """`raw`, or where it is a relative path, that path from `folder`."""
    if not isinstance(raw, str) or not raw:  # its kind refuses it
        return raw
    is_path = raw != STDIN if name == "lyrics_file" else name == "model" and is_folder_name(raw)
    if not is_path:
        return raw
    path = Path(raw)  # "." has no parts
    return str(Path.home().joinpath(*path.parts[1:]) if path.parts[:1] == ("~",) else (folder / path).absolute())


def lyrics_of(file: str) -> str:
    try:
        if file == STDIN:  # whose text layer follows the locale, not the spec
            text = sys.stdin.buffer.read().decode("utf-8-sig").replace("\r\n", "\n")
        else:
            text = Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text (byte {error.start})") from error
    if not text.strip():
        raise ValueError(f"{file} is empty")
    return text


@contextmanager
def placed(*layers: Layer) -> Iterator[None]:
    """Problems found later, when the request meets a checkpoint, get the place of the key they begin with."""
    where = {name: value.where for layer in layers for name, value in layer.values.items()}
    try:
        yield
    except UsageError as error:
        lines = [line.partition(": ") for line in error.message.splitlines()]
        placed = [f"{where.get(key, key)}{colon}{rest}" for key, colon, rest in lines]
        raise UsageError("\n".join(placed), error.hint) from error


def sentence(detail: Mapping[str, Any], values: Mapping[str, Value]) -> str:
    """One of pydantic's findings as we say it: where, which key, what is wrong."""
    reason = detail["ctx"]["error"]
    if not detail["loc"]:
        return str(reason)
    return f"{values[detail['loc'][0]].where}: {reason}"


class _Dumper(yaml.SafeDumper):
    """Song lines below each other, lists on one line, keys in their own order."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if any(mark in text for mark in STRANGE_BREAKS) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _items(dumper: yaml.SafeDumper, items: Iterable[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)


def _number(dumper: yaml.SafeDumper, number: float) -> yaml.Node:
    return dumper.represent_int(int(number)) if number.is_integer() else dumper.represent_float(number)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, _items)
_Dumper.add_representer(list, _items)
_Dumper.add_representer(float, _number)


def dump(request: Request, render: Mapping[str, Any] | None = None) -> str:
    """`request` as a spec that loads as the same request; `render` is recorded in a block of its own."""
    document: dict[str, Any] = request.model_dump(exclude_none=True)
    if render is not None:
        document[RENDER] = dict(render)
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
