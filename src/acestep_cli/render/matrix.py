"""`--matrix`: one song with several values of some keys, each combination of them a song of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from acestep_cli.errors import UsageError
from acestep_cli.song import document, spec_keys, spec_layers
from acestep_cli.song.values import quoted

FLAG = "--matrix"
#: Keys that are the same for all songs of a command: its mode, and the suffix of its files.
FIXED = ("mode", "format", "extends")
MOST_SONGS = 1000
#: The most characters of a value in the name of a file.
MOST_SIGNS = 24


def read_matrix(settings: Sequence[str], flags: spec_layers.Layer) -> tuple[list[spec_layers.Layer], list[UsageError]]:
    """Return a layer for each combination of the values in `settings`, each `key=value,value`, and the problems.

    There is one layer, without values, where there are no settings.
    """
    axes: dict[str, list[Any]] = {}
    problems: list[UsageError] = []
    for setting in settings:
        try:
            name, values = read_axis(setting, flags)
            if name in axes:
                raise UsageError(f"{FLAG} {name}: is given twice; write all its values behind one {FLAG}.")
            axes[name] = values
        except UsageError as error:
            problems.append(error)
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    if len(combinations) > MOST_SONGS:
        problems.append(UsageError(f"{FLAG}: makes {len(combinations)} songs, more than {MOST_SONGS}."))
    return [swept_layer(values) for values in combinations[:MOST_SONGS]], problems


def read_axis(setting: str, flags: spec_layers.Layer) -> tuple[str, list[Any]]:
    """Return the key and the values of `key=value,value`. Raises `UsageError`."""
    written, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"{FLAG} {quoted(setting)}: is not key=value,value, such as steps=8,12.")
    name = spec_keys.canonical_key(written)
    where = f"{FLAG} {name}"
    if name in FIXED:
        raise UsageError(f"{where}: is the same for all songs of a command.")
    if name not in spec_keys.KEYS:
        raise UsageError(f"{where}: is not a key of a song spec{spec_keys.nearest_key(name)}")
    if name in flags.values:
        raise UsageError(f"{where}: is given twice, here and by {flags.values[name].where}.")
    try:
        values = list(split_values(text))
    except ValueError as error:
        raise UsageError(f"{where}: {error}; several values are written as steps=8,12.") from None
    if len(values) != len({str(value) for value in values}):
        raise UsageError(f"{where}: has a value twice.")
    return name, values


def split_values(text: str) -> Iterator[Any]:
    """Yield the values in `text`, as in the list of a spec: text, lists of text in brackets, None for null.

    Raises `ValueError`, which says what is wrong.
    """
    import yaml

    try:
        found = yaml.compose(f"[{text}]", yaml.SafeLoader)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, yaml.SequenceNode):
        raise ValueError(f"{quoted(text)} is no list of values; put quotes around one with commas or signs")
    if not found.value:
        raise ValueError("has no values")
    for item in found.value:
        if isinstance(item, yaml.ScalarNode):
            is_null = item.style is None and item.value in document.NULLS
            if is_null and not item.value:
                raise ValueError(f"{quoted(text)} has an empty value")
            yield None if is_null else item.value
        elif isinstance(item, yaml.SequenceNode) and all(isinstance(one, yaml.ScalarNode) for one in item.value):
            yield [one.value for one in item.value]
        else:
            raise ValueError(f"{quoted(text)} holds a map; put quotes around a value with a colon")


def swept_layer(values: Mapping[str, Any]) -> spec_layers.Layer:
    """Return the layer of one combination."""
    return spec_layers.Layer(
        Path(), {name: spec_layers.WrittenValue(raw, f"{FLAG} {name}", FLAG) for name, raw in values.items()}
    )


def described(swept: spec_layers.Layer) -> str:
    """Return a combination for people: `steps 8, shift 2`."""
    return ", ".join(f"{name.replace('_', ' ')} {shown(value.raw)}" for name, value in swept.values.items())


def name_suffix(swept: spec_layers.Layer) -> str:
    """Return a combination as a part of a file's name: `-steps-8-shift-2`; empty for none."""
    return "".join(f"-{name.replace('_', '-')}-{slug(shown(value.raw))}" for name, value in swept.values.items())


def slug(text: str) -> str:
    """Return a value as the name of a file has it."""
    return re.sub(r"[^\w.]+", "-", text)[:MOST_SIGNS].strip("-.")


def shown(raw: Any) -> str:
    """Return a value as text."""
    if raw is None:
        return "none"
    return " ".join(raw) if isinstance(raw, list) else str(raw)
