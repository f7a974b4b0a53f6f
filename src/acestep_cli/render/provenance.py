"""Provenance of an audio file: from its sidecar, or where that is gone, from its tags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from acestep_cli.audio import tags
from acestep_cli.audio.regular_file import regular_file
from acestep_cli.render import sidecar
from acestep_cli.render.sidecar import RenderOrigin
from acestep_cli.song import spec_layers


@dataclass(frozen=True)
class Provenance:
    """The spec of a file, the recorded origin, and the name of the place of both."""

    where: str
    layers: list[spec_layers.Layer]
    origin: RenderOrigin


def find_provenance(file: Path) -> Provenance | None:
    """Return the provenance of `file`; None where neither a sidecar nor tags have it."""
    beside = spec_layers.sidecar_path(file)
    record = sidecar.read_sidecar(beside)
    return tags_provenance(file) if record is None else Provenance(str(beside), spec_layers.read_layers(beside), record)


def tags_provenance(file: Path) -> Provenance | None:
    """Return the provenance in the tags of `file`. Paths in them are relative to its folder."""
    text = tags.read_spec(regular_file(file) if file.is_fifo() else file)
    origin = None if text is None else sidecar.parse_record(text, RenderOrigin)
    if text is None or origin is None:
        return None
    where = f"the tags of {file}"
    return Provenance(where, [spec_layers.parse_layer(text, where, file.parent)], origin)
