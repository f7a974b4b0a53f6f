"""The description of the source of an edit, a repaint or an extension, by the spec that a render left in its sidecar or
tags.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from acestep_cli.audio import tags
from acestep_cli.song import modes, prompts, spec_keys, spec_layers
from acestep_cli.song.request import KEYS
from acestep_cli.song.spec_layers import Layer, WrittenValue

#: Keys of a take that an edit of it shares, unless it has its own.
SHARED = ("language", "bpm", "key", "time_signature")
#: Keys that say what to make. A repaint without any of them makes a part of the song that its source says it is.
SUBJECT = ("caption", "lyrics", "instrumental", "idea", "songwriter")


def fill_in(values: dict[str, WrittenValue]) -> list[Path]:
    """Fill in what the `values` of an edit leave open about its source, and those of a repaint that say nothing of the
    song; they are canonical where they name a mode.

    Returns the files that were read.
    """
    if "mode" not in values or "source" not in values:
        return []
    mode = modes.MODES[values["mode"].raw]
    if not mode.describes_source and not (mode.remakes_part and values.keys().isdisjoint(SUBJECT)):
        return []
    try:
        own = own_layer(Path(KEYS["source"].kind.read(values["source"].raw)))
    except ValueError:  # which is told where the request is built
        return []
    if own is None:
        return []
    if mode.describes_source:
        known = {"from_caption": own.values.get("caption"), "from_lyrics": words_sung(own)}
    else:
        known = {name: own.values.get(name) for name in ("caption", "lyrics", "instrumental")}
    known |= {name: own.values.get(name) for name in SHARED}
    for name, value in known.items():
        if value is not None and value.raw is not None:
            values.setdefault(name, value)
    return [] if own.file is None else [own.file]


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
