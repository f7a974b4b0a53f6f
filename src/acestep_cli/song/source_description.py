"""The description of a take that is the source of another render: the spec in its sidecar or tags."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from acestep_cli.audio import tags
from acestep_cli.song import modes, prompts, spec_keys, spec_layers
from acestep_cli.song.request import KEYS
from acestep_cli.song.spec_layers import Layer, WrittenValue

#: Keys that answer who sings what. Where one of them is given, the take's own answer is not taken over.
SINGING = ("lyrics", "instrumental")


class Taken(NamedTuple):
    """The keys that were taken over from the spec of a source, and the file that held it, if it is one."""

    keys: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def take_over(values: dict[str, WrittenValue], unset: Collection[str], layers: Sequence[Layer]) -> Taken:
    """Fill in what `values` leave open and the take that is their source says of itself: the keys that its mode shares
    with the source, and for an edit the description of it.

    `values` are canonical where they name a mode; `layers` made them. Keys in `unset` are left open on purpose.
    """
    if "mode" not in values or "source" not in values or replays_source(values, layers):
        return Taken()
    mode = modes.MODES[values["mode"].raw]
    if not mode.shares:
        return Taken()
    try:
        own = own_layer(Path(KEYS["source"].kind.read(values["source"].raw)))
    except ValueError:  # which is told where the request is built
        return Taken()
    if own is None:
        return Taken()
    known: dict[str, WrittenValue | None] = {}
    if mode.describes_source:
        known = {"from_caption": own.values.get("caption"), "from_lyrics": words_sung(own)}
    known |= {name: own.values.get(name) for name in shared_keys(mode, values, unset)}
    taken = {
        name: value
        for name, value in known.items()
        if value is not None and value.raw is not None and name not in values and name not in unset
    }
    values |= taken
    return Taken(tuple(taken), (own.file,) if taken and own.file is not None else ())


def shared_keys(mode: modes.Mode, values: dict[str, WrittenValue], unset: Collection[str]) -> tuple[str, ...]:
    """Return the keys that a render of `values` shares with the take that is its source.

    The caption is left to a Songwriter that is named.
    """
    left: set[str] = set()
    if not {*SINGING}.isdisjoint({*values, *unset}):
        left |= {*SINGING}
    if "lyrics" in unset or ("instrumental" in values and spec_keys.is_on(values["instrumental"].raw)):
        left.add("language")
    if "songwriter" in values and str(values["songwriter"].raw).strip().casefold() not in ("none", "auto"):
        left.add("caption")
    return tuple(key for key in mode.shares if key not in left)


def replays_source(values: dict[str, WrittenValue], layers: Sequence[Layer]) -> bool:
    """Tell whether the source is that of a sidecar among `layers`, which says already what its take had of it."""
    origin = values["source"].origin
    return any(layer.is_sidecar and "source" in layer.values and layer.values["source"].origin == origin
               for layer in layers)  # fmt: skip


def own_layer(file: Path) -> Layer | None:
    """Return the spec of an audio file that a render left in its sidecar, or else in its tags; None without one."""
    beside = spec_layers.sidecar_path(file)
    try:
        is_described, is_there = beside.is_file(), file.is_file()
    except PermissionError:  # of their folder, which is told where the source is read
        return None
    layers = [spec_layers.read_layer(beside)] if is_described else []
    if is_there and (text := tags.read_spec(file)) is not None:
        layers.append(spec_layers.parse_layer(text, f"the tags of {file}", file.parent))
    return next((layer for layer in layers if layer.is_sidecar and not layer.problems), None)


def words_sung(take: Layer) -> WrittenValue | None:
    """Return the lyrics of a take, and those of an instrumental where it was made without any.

    None where its spec does not say what is sung, as that of a repaint.
    """
    lyrics, silent, mode = (take.values.get(name) for name in ("lyrics", "instrumental", "mode"))
    if lyrics is not None and lyrics.raw is not None:
        return lyrics
    if silent is not None and spec_keys.is_on(silent.raw):
        return replace(silent, raw=prompts.INSTRUMENTAL)
    if mode is not None and mode.raw in modes.MODES and modes.MODES[mode.raw].follows_codes:
        return replace(mode, raw=prompts.INSTRUMENTAL)
    return None
