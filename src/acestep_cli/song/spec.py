"""Song specs: layers of keys, later ones over earlier ones, and the request that results; a request as a spec.

All problems of all layers are reported together, each with its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from acestep_cli.audio import tags
from acestep_cli.errors import AdapterError, SourceError, UsageError
from acestep_cli.song import extension, source_description, spec_keys, spec_layers, spec_text
from acestep_cli.song import request as song
from acestep_cli.song.complete import Completion
from acestep_cli.song.file_values import is_folder_name
from acestep_cli.song.modes import MODES
from acestep_cli.song.request import Request
from acestep_cli.song.spec_keys import EXTENSION, KEYS, RENDER, TEXT_FILES
from acestep_cli.song.spec_layers import Layer, WrittenValue
from acestep_cli.song.spec_text import STDIN
from acestep_cli.song.values import Choice, quoted

# Keys that a layer may override in those below it without naming them; see `overridden_keys`.
SINGING = ("lyrics", "lyrics_file", "instrumental")
SUNG_BEFORE = ("from_lyrics", "from_lyrics_file")
ENCODING = ("bit_depth", "bitrate")
STACKING = ("lora_mode",)
SCHEDULE = ("steps", "shift")
GUIDING = ("guidance_method", "cfg_interval")
#: Keys of a wavelet correction, which suit its kind.
DCW_SCALES = ("dcw_scale", "dcw_high_scale")
#: Keys that decide the length of a song with a source.
EXTENT = ("source", "start", "end", "before", "after")
#: Keys that describe the source of an edit.
DESCRIPTION = ("from_caption", *SUNG_BEFORE)
#: Keys whose values depend on the checkpoint.
SUITED = (*SCHEDULE, "timesteps", "guidance", *GUIDING, "dcw", *DCW_SCALES)
#: Keys that the Songwriter composes codes from, and the keys it decides anew where one of those changes.
COMPOSED_FROM = ("idea", "caption", "lyrics", "language", "bpm", "key", "time_signature", "duration")
COMPOSED = ("codes", "songwriter")


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
    #: Sentences on values whose text may not be all that was meant, each with its place.
    remarks: tuple[str, ...] = ()
    #: The keys that were taken over from the spec of the source.
    from_source: tuple[str, ...] = ()


def resolve(*layers: Layer) -> Resolved:
    """Build the request from `layers`, later ones over earlier ones.

    Raises `UsageError` with every problem of every layer.
    """
    problems = [problem for layer in layers for problem in layer.problems]
    files = [layer.file for layer in layers if layer.file is not None]
    merged = merge_layers(layers)
    values = {name: value for name, value in merged.items() if value.raw is not None}
    files += resolve_text_files(values, problems)
    picture = resolve_cover(values, problems)
    if picture is not None:
        files += parsed_files("cover", values)
    files += [file for name in ("source", "reference") if name in values for file in parsed_files(name, values)]
    resolve_mode(values, problems)
    taken = source_description.take_over(values, merged.keys() - values.keys(), layers)
    files += taken.files
    extension.resolve(values, problems)
    if "lyrics" in values and "instrumental" in values and spec_keys.is_on(values["instrumental"].raw):
        lyrics = values.pop("lyrics")
        problems.append(f"{values['instrumental'].where}: excludes lyrics ({lyrics.where})")
    try:
        request = Request(**{name: value.raw for name, value in values.items()})
    except ValidationError as error:
        problems += [problem_sentence(detail, values) for detail in error.errors()]
    if problems:
        raise UsageError("\n".join((*problems, *written_remarks(layers, problems))))
    origins = {name: value.origin for name, value in values.items()}
    lines = {name: value.lines for name, value in values.items() if value.lines is not None}
    return Resolved(request, origins, tuple(files), lines, picture, written_remarks(layers), taken.keys)


def written_remarks(layers: Iterable[Layer], problems: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the remarks on how values are written, except where a later layer replaces the value.

    With `problems`, only on the values that these are about, as what is lost may be the cause.
    """
    last = {name: value for layer in layers for name, value in layer.values.items()}
    about = None if problems is None else tuple(problems)
    return tuple(
        value.remark
        for value in last.values()
        if value.remark is not None
        and (about is None or any(problem.startswith(f"{value.where}: ") for problem in about))
    )


def merge_layers(layers: Iterable[Layer]) -> dict[str, WrittenValue]:
    """Return the values of all layers, later ones over earlier ones, with absolute paths; None is an unset value."""
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
    return values


def resolve_text_files(values: dict[str, WrittenValue], problems: list[str]) -> list[Path]:
    """Replace the keys in `values` that name a file of text by that text. Return the files that were read."""
    found = []
    for key, file_key in TEXT_FILES.items():
        file = values.pop(file_key, None)
        if file is None:
            continue
        if key in values:
            problems.append(f"{file.where}: excludes {key} ({values[key].where})")
            continue
        try:
            name = KEYS[file_key].kind.read(file.raw)
            values[key] = WrittenValue(read_lyrics(name), file.where, f"{file.origin}, {name}", (name, 1))
        except ValueError as error:
            problems.append(f"{file.where}: {error}")
        else:
            found.append(Path(name))
    return found


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
    answers = any(name != "instrumental" or spec_keys.is_on(upper[name].raw) for name in sings)
    rules = (
        (answers, SINGING),  # one answer to one question
        (any(name in upper for name in SUNG_BEFORE), SUNG_BEFORE),
        *((any(name in upper for name in pair), pair) for pair in EXTENSION.items()),
        ("format" in lower and "format" in others, ENCODING),
        ("loras" in lower and "loras" in others, STACKING),
        ("timesteps" in upper and upper["timesteps"].raw is not None, SCHEDULE),
        (any(name in upper and upper[name].raw is not None for name in SCHEDULE), ("timesteps",)),
        ("guidance" in upper and is_off(upper["guidance"].raw), GUIDING),
        (is_sidecar and "model" in others, SUITED),  # in a spec written by hand they were meant
        (is_sidecar and "dcw" in others, DCW_SCALES),
        (is_sidecar and bool(others.intersection(EXTENT)), ("duration",)),
        (is_sidecar and "source" in others, DESCRIPTION),
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


def is_off(guidance: Any) -> bool:
    try:
        return bool(KEYS["guidance"].kind.read(guidance) <= 1)
    except ValueError:
        return False  # and refused in its turn


def load(path: Path) -> Request:
    """Return the request of the spec at `path`."""
    return resolve(*spec_layers.read_layers(path)).request


def resolve_path(name: str, raw: Any, folder: Path) -> Any:
    """Return `raw` with relative paths made absolute from `folder`, also within a list or an adapter's map."""
    if isinstance(raw, list | tuple):
        return [resolve_path(name, item, folder) for item in raw] if KEYS[name].kind.is_path else raw
    if isinstance(raw, Mapping):  # an adapter
        return {part: resolve_path(name, value, folder) if part == "path" else value for part, value in raw.items()}
    if not isinstance(raw, str) or not raw:  # its kind refuses it
        return raw
    is_path = KEYS[name].kind.is_path or (
        raw != STDIN if name in TEXT_FILES.values() else name in ("model", "songwriter") and is_folder_name(raw)
    )
    return str((folder / spec_layers.expand_home(raw)).absolute()) if is_path else raw


def read_lyrics(file: str) -> str:
    try:
        text = spec_text.read_text(file)
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
        raise type(error)("\n".join((*placed, *written_remarks(layers, placed))), error.hint) from error


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
