"""Song specs: layers of keys, later ones over earlier ones, and the request that results.

A layer is one file or the flags. Its values are text as written, until the `Kind` of each key reads them. All problems
of all layers are reported together, each with its place.

The YAML library is imported only where text is read or written, because shell completion needs the keys alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from acestep_cli import disk
from acestep_cli.audio import tags
from acestep_cli.errors import AdapterError, SourceError, UsageError, reason_of
from acestep_cli.song import request as song
from acestep_cli.song.complete import Completion
from acestep_cli.song.file_values import File, is_folder_name
from acestep_cli.song.modes import MODES
from acestep_cli.song.request import Key, Request
from acestep_cli.song.values import Choice, quoted, suggestion

if TYPE_CHECKING:
    from acestep_cli.song.document import Entry

LYRICS_FILE = Key(File(), "Text file with the lyrics; - reads them from stdin.", song.SONG)
EXTENDS = Key(File(), "Another spec, whose keys hold where this one has none.", song.SONG, flag=False)

#: Every key a spec may have: the fields of `Request`, and those that are resolved before it is built.
KEYS: Mapping[str, Key] = {**song.KEYS, "lyrics_file": LYRICS_FILE, "extends": EXTENDS}

#: The map in a sidecar about its render; ignored where the sidecar is read as a spec.
RENDER = "render"

# Keys that a layer may override in those below it without naming them; see `overridden_keys`.
SINGING = ("lyrics", "lyrics_file", "instrumental")
ENCODING = ("bit_depth", "bitrate")
STACKING = ("lora_mode",)
SCHEDULE = ("steps", "shift")
GUIDING = ("guidance_method", "cfg_interval")
#: Keys of a wavelet correction, which suit its kind.
DCW_SCALES = ("dcw_scale", "dcw_high_scale")
#: Keys that decide the length of a song with a source.
EXTENT = ("source", "start", "end")
#: Keys whose values depend on the checkpoint.
SUITED = (*SCHEDULE, "timesteps", "guidance", *GUIDING, "dcw", *DCW_SCALES)
#: Keys that the Songwriter composes codes from, and the keys it decides anew where one of those changes.
COMPOSED_FROM = ("idea", "caption", "lyrics", "language", "bpm", "key", "time_signature", "duration")
COMPOSED = ("codes", "songwriter")

#: Other names of keys.
SYNONYMS = {"tracks": "track"}

#: Names of the keys in other programs.
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
MARKDOWN = (".md", ".markdown")
SUFFIXES = (".yaml", ".yml", *MARKDOWN)
#: The longest chain of specs that extend each other.
DEEPEST = 20
#: The longest spec that is read: ten times the longest sidecar.
MOST_BYTES = 1_000_000


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


@dataclass(frozen=True)
class Resolved:
    """A request, the origin of each of its values, and the files that were read for it.

    `lines` has the file and the first line number of each text.
    """

    request: Request
    origins: Mapping[str, str]
    files: tuple[Path, ...] = ()
    lines: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    #: The picture that `cover` names, read before the render, so that a missing file is found early.
    cover: tags.Cover | None = None


def flag_of(name: str) -> str:
    """Return the flag of a key, whether it is a key of a song or another name."""
    singular = KEYS[name].singular if name in KEYS else None
    return "--" + (singular or name).replace("_", "-")


def from_flags(values: Mapping[str, Any], settings: tuple[str, ...] = ()) -> Layer:
    """Return the layer of the flags by key, where None is a flag not given, and of the `key=value` of each `--set`."""
    from acestep_cli.song import document

    given = {name: WrittenValue(raw, flag_of(name), flag_of(name)) for name, raw in values.items() if raw is not None}
    problems = []
    for setting in settings:
        name, equals, raw = setting.partition("=")
        name = SYNONYMS.get(name := key_named(name.strip().replace("-", "_")), name)
        where = f"--set {name}"
        if not equals:
            problems.append(f"--set {quoted(setting)}: is not key=value")
        elif name == "extends":
            problems.append(f"{where}: only a spec can extend another; give both as layers of a file")
        elif name not in KEYS:
            problems.append(f"{where}: is not a key of a song spec{nearest_key(name)}")
        elif name in given:
            problems.append(f"{where}: is given twice, here and by {given[name].where}")
        else:
            given[name] = WrittenValue(None if raw.strip() in document.NULLS[1:] else raw.strip(), where, where)
    if "lyrics" in given and given["lyrics"].raw == STDIN:
        given["lyrics_file"] = given.pop("lyrics")
    return Layer(Path(), given, tuple(problems))


def implied_layer(values: Mapping[str, str | list[str] | None], by: str) -> Layer:
    """Return a layer of values that `by` implies and nobody wrote; None unsets a key."""
    return Layer(Path(), {name: WrittenValue(raw, by, by) for name, raw in values.items()})


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
        text = read_text(STDIN if from_stdin else str(path))
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
            problems.append(f"{where}: is not a key of a song spec{nearest_key(key)}")
        elif key == RENDER:
            is_sidecar = True
        elif entry.items is not None and key in KEYS and KEYS[key].kind.of_maps:
            try:
                values[key] = WrittenValue(plain_items(entry.items), where, origin)
            except ValueError as error:
                problems.append(f"{where}: {error}")
        elif entry.problem is not None:
            problems.append(f"{where}: {entry.problem}")
        elif key == "lyrics" and entry.is_folded:
            problems.append(f"{where}: YAML makes one line of these; write `lyrics: |` and the lines below it")
        else:
            lines_at = (name, entry.text_line) if entry.text_line is not None else None
            values[key] = WrittenValue(entry.raw, where, origin, lines_at)
    if is_sidecar and "dcw" not in values:  # it was written before the key existed, of a take without
        values["dcw"] = WrittenValue(song.NEUTRAL["dcw"], f"{name}: dcw", f"{name}, which is older than the key")
    return Layer(folder, values, tuple(problems), is_sidecar, file)


def under_its_key(entry: Entry) -> Entry:
    """Return `entry` under the name of its key where that is spelled like a heading: `BPM`, `Time Signature`."""
    inner = None if entry.entries is None or entry.name == RENDER else tuple(map(under_its_key, entry.entries))
    return replace(entry, name=key_named(entry.name), entries=inner)


def key_named(name: str) -> str:
    """Return the key that `name` is, ignoring capitals, blanks and dashes; `name` itself where it is not a key."""
    plain = re.sub(r"[\s-]+", "_", name.strip().casefold())
    return plain if plain in (*KEYS, *SYNONYMS, *song.GROUPS) else name


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


def nearest_key(name: str) -> str:
    """Return `; did you mean 'bpm'?` for a name that is not a key."""
    return f"; did you mean {OTHER_NAMES[name]!r}?" if name in OTHER_NAMES else suggestion(name, KEYS)


@dataclass
class Stdin:
    """Stdin, which can be read once. `typing` allows it to be a terminal."""

    typing: bool = True
    is_read: bool = False

    def read(self, limit: int) -> bytes:
        """Read up to `limit` bytes. Raises `ValueError` where it was read before, or is a terminal without `typing`."""
        if self.is_read:
            raise ValueError("stdin can be read once: for one spec, or for the lyrics")
        if sys.stdin is None:
            raise ValueError("stdin is closed")
        if not self.typing and sys.stdin.isatty():
            raise ValueError("stdin is a terminal, and --no-input refuses to wait for typing; pipe the text in")
        self.is_read = True
        return sys.stdin.buffer.read(limit)


_stdin: ContextVar[Stdin] = ContextVar("stdin")


@contextmanager
def reading_stdin(*, typing: bool) -> Iterator[None]:
    """Allow stdin to be read once in the body."""
    token = _stdin.set(Stdin(typing))
    try:
        yield
    finally:
        _stdin.reset(token)


def read_text(file: str) -> str:
    """Read the text of a file or of stdin, with `\\n` as line end. Raises `ValueError` with the reason on failure."""
    from acestep_cli.song import document

    stdin = _stdin.get(Stdin())
    try:
        if file == STDIN:  # as bytes: the encoding of sys.stdin follows the locale
            data = stdin.read(MOST_BYTES + 1)
        else:
            data = b""
            if Path(file).is_fifo():
                for block in disk.pipe_blocks(Path(file)):
                    data += block
                    if len(data) > MOST_BYTES:
                        break
            else:
                with Path(file).open("rb") as stream:
                    if not stdin.typing and stream.isatty():
                        raise ValueError("is a terminal, and --no-input refuses to wait for typing")
                    data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"is longer than {MOST_BYTES:,} bytes, which no song is")
        return document.decoded(data)
    except OSError as error:
        if gone := disk.read_error(Path(file), error):
            raise gone from error
        raise ValueError(f"cannot be read: {reason_of(error)}{disk.suggest_path(Path(file), error)}") from error


def resolve(*layers: Layer) -> Resolved:
    """Build the request from `layers`, later ones over earlier ones.

    Raises `UsageError` with every problem of every layer.
    """
    problems = [problem for layer in layers for problem in layer.problems]
    files = [layer.file for layer in layers if layer.file is not None]
    values = merge_layers(layers)
    files += resolve_lyrics_file(values, problems)
    picture = resolve_cover(values, problems)
    if picture is not None:
        files += parsed_files("cover", values)
    files += [file for name in ("source", "reference") if name in values for file in parsed_files(name, values)]
    resolve_mode(values, problems)
    if "lyrics" in values and "instrumental" in values and is_on(values["instrumental"].raw):
        lyrics = values.pop("lyrics")
        problems.append(f"{values['instrumental'].where}: excludes lyrics ({lyrics.where})")
    try:
        request = Request(**{name: value.raw for name, value in values.items()})
    except ValidationError as error:
        problems += [problem_sentence(detail, values) for detail in error.errors()]
    if problems:
        raise UsageError("\n".join(problems))
    origins = {name: value.origin for name, value in values.items()}
    lines = {name: value.lines for name, value in values.items() if value.lines is not None}
    return Resolved(request, origins, files=tuple(files), lines=lines, cover=picture)


def merge_layers(layers: Iterable[Layer]) -> dict[str, WrittenValue]:
    """Return the values of all layers, later ones over earlier ones, with absolute paths; null unsets a value."""
    values: dict[str, WrittenValue] = {}
    is_sidecar = False
    for layer in layers:
        upper = {
            name: replace(value, raw=resolve_path(name, value.raw, layer.folder))
            for name, value in layer.values.items()
            if name != "extends"
        }
        meaningless = overridden_keys(values, upper, is_sidecar=is_sidecar)
        values = {name: value for name, value in values.items() if name not in meaningless} | upper
        is_sidecar |= layer.is_sidecar
    return {name: value for name, value in values.items() if value.raw is not None}


def resolve_lyrics_file(values: dict[str, WrittenValue], problems: list[str]) -> list[Path]:
    """Replace `lyrics_file` in `values` by the lyrics in it. Return the files that were read."""
    file = values.pop("lyrics_file", None)
    if file is None:
        return []
    if "lyrics" in values:
        problems.append(f"{file.where}: excludes lyrics ({values['lyrics'].where})")
        return []
    try:
        name = LYRICS_FILE.kind.read(file.raw)
        values["lyrics"] = WrittenValue(read_lyrics(name), file.where, f"{file.origin}, {name}", (name, 1))
    except ValueError as error:
        problems.append(f"{file.where}: {error}")
        return []
    return [Path(name)]


def resolve_cover(values: dict[str, WrittenValue], problems: list[str]) -> tags.Cover | None:
    """Read the picture that `cover` names. Where that fails, remove the key from `values`."""
    if "cover" not in values:
        return None
    try:
        return tags.read_picture(Path(KEYS["cover"].kind.read(values["cover"].raw)))
    except ValueError as error:
        problems.append(f"{values['cover'].where}: {error}")
        del values["cover"]
    return None


def resolve_mode(values: dict[str, WrittenValue], problems: list[str]) -> None:
    """Replace the mode in `values` by its canonical name. Where there is no such mode, remove it."""
    mode = values.pop("mode", None)
    if mode is None:
        return
    try:
        values["mode"] = replace(mode, raw=Choice(tuple(MODES)).read(mode.raw))
    except ValueError as error:
        problems.append(f"{mode.where}: {error}")


def overridden_keys(
    lower: Mapping[str, WrittenValue], upper: Mapping[str, WrittenValue], *, is_sidecar: bool
) -> set[str]:
    """Return the keys of the lower layer that the upper one makes meaningless without naming them."""
    others = {name for name in upper if name not in lower or parsed_value(name, lower) != parsed_value(name, upper)}
    sings = [name for name in SINGING if name in upper and upper[name].raw is not None]
    answers = any(name != "instrumental" or is_on(upper[name].raw) for name in sings)
    rules = (
        (answers, SINGING),  # one answer to one question
        ("format" in lower and "format" in others, ENCODING),
        ("loras" in lower and "loras" in others, STACKING),
        ("timesteps" in upper and upper["timesteps"].raw is not None, SCHEDULE),
        (any(name in upper and upper[name].raw is not None for name in SCHEDULE), ("timesteps",)),
        ("guidance" in upper and is_off(upper["guidance"].raw), GUIDING),
        (is_sidecar and "model" in others, SUITED),  # in a spec written by hand they were meant
        (is_sidecar and "dcw" in others, DCW_SCALES),
        (is_sidecar and bool(others.intersection(EXTENT)), ("duration",)),
        (is_sidecar and "codes" in lower and not others.isdisjoint(COMPOSED_FROM), COMPOSED),
    )
    return {name for applies, names in rules if applies for name in names}


def parsed_value(name: str, values: Mapping[str, WrittenValue]) -> Any:
    """Return the value of a key as its kind reads it, or as written where the kind refuses it."""
    try:
        return KEYS[name].kind.read(values[name].raw)
    except ValueError:
        return values[name].raw


def parsed_files(name: str, values: Mapping[str, WrittenValue]) -> tuple[Path, ...]:
    """Return the files that a key names; none where its kind refuses the value."""
    try:
        files = KEYS[name].kind.read(values[name].raw)
    except ValueError:
        return ()
    return tuple(map(Path, (files,) if isinstance(files, str) else files))


def is_on(instrumental: Any) -> bool:
    try:
        return bool(KEYS["instrumental"].kind.read(instrumental))
    except ValueError:
        return False  # and refused in its turn


def is_off(guidance: Any) -> bool:
    try:
        return bool(KEYS["guidance"].kind.read(guidance) <= 1)
    except ValueError:
        return False  # and refused in its turn


def load(path: Path) -> Request:
    """Return the request of the spec at `path`."""
    return resolve(*read_layers(path)).request


def resolve_path(name: str, raw: Any, folder: Path) -> Any:
    """Return `raw` with relative paths made absolute from `folder`, also within a list or an adapter's map."""
    if isinstance(raw, list | tuple):
        return [resolve_path(name, item, folder) for item in raw] if KEYS[name].kind.is_path else raw
    if isinstance(raw, Mapping):  # an adapter
        return {part: resolve_path(name, value, folder) if part == "path" else value for part, value in raw.items()}
    if not isinstance(raw, str) or not raw:  # its kind refuses it
        return raw
    is_path = KEYS[name].kind.is_path or (
        raw != STDIN if name == "lyrics_file" else name in ("model", "songwriter") and is_folder_name(raw)
    )
    return str((folder / expand_home(raw)).absolute()) if is_path else raw


def expand_home(file: str) -> Path:
    """Return the path with a leading `~` replaced by the user's home."""
    path = Path(file)  # "." has no parts
    return Path.home().joinpath(*path.parts[1:]) if path.parts[:1] == ("~",) else path


def read_lyrics(file: str) -> str:
    try:
        text = read_text(file)
    except ValueError as error:
        raise ValueError(f"{file} {error}") from error
    if not text.strip():
        raise ValueError(f"{file} is empty")
    return text


@contextmanager
def placing_problems(*layers: Layer) -> Iterator[None]:
    """Put the place of the key in front of each problem raised in the body, or else the name of the spec.

    For problems that are found with recordings and a checkpoint; each begins with its key.
    """
    where = {name: value.where for layer in layers for name, value in layer.values.items()}
    file = next((f"{layer.file}: " for layer in reversed(layers) if layer.file is not None), "")
    try:
        yield
    except (AdapterError, SourceError, UsageError) as error:
        lines = [line.partition(": ") for line in error.message.splitlines()]
        placed = [f"{where.get(key, f'{file}{key}')}{colon}{rest}" for key, colon, rest in lines]
        raise type(error)("\n".join(placed), error.hint) from error


def problem_sentence(detail: Mapping[str, Any], values: Mapping[str, WrittenValue]) -> str:
    """Return the message for one of pydantic's errors: place, key and reason."""
    reason = detail["ctx"]["error"]
    if not detail["loc"]:
        return str(reason)
    return f"{values[detail['loc'][0]].where}: {reason}"


@dataclass(frozen=True)
class ValueOrigin:
    """One effective value and its origin: a flag, `song.yaml:3`, the checkpoint, the machine or a default."""

    name: str
    value: Any
    origin: str


def value_origins(resolved: Resolved, decided: Completion) -> list[ValueOrigin]:
    """Return every effective value of a completed request with its origin, in the order of the keys."""
    values = decided.request.model_dump(exclude_none=True)
    return [
        ValueOrigin(name, values[name], resolved.origins.get(name) or decided.origins[name])
        for name in song.KEYS
        if name in values
    ]


def dump_spec(request: Request, render: Mapping[str, Any] | None = None) -> str:
    """Return `request` as a spec that loads as the same request; `render` goes into a map of its own."""
    from acestep_cli.song import document

    content = group_values(request.model_dump(include=set(song.KEYS), exclude_none=True))
    if render is not None:
        content[RENDER] = dict(render)
    return document.dump_yaml(content)


def inline_value(value: Any) -> str:
    """Return a value on one short line, as a spec has it."""
    from acestep_cli.song import document

    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):  # adapters
        value = [f"{Path(lora['path']).name}@{lora['scale']:g}" for lora in value]
    text = value if isinstance(value, str) else document.dump_yaml({"value": value}).partition(": ")[2]
    return quoted(text)[1:-1]


def group_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by key as a spec has them, with the keys of a group in a map."""
    content: dict[str, Any] = {}
    for name, value in values.items():
        group = song.KEYS[name].group if name in song.KEYS else None
        if group is None:
            content[name] = value
        else:
            content.setdefault(group, {})[name] = value
    return content
