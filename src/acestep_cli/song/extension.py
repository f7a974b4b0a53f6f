"""The seconds that are added to a source, as its region: what `before` and `after` of a spec decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from acestep_cli.audio import decode
from acestep_cli.errors import SourceError
from acestep_cli.song import modes
from acestep_cli.song.inputs import LONGEST_REFERENCE
from acestep_cli.song.spec_keys import EXTENSION, KEYS
from acestep_cli.song.spec_layers import WrittenValue


def resolve(values: dict[str, WrittenValue], problems: list[str]) -> None:
    """Replace `before` and `after` in `values` by the start and the end of a region; `mode` is canonical there."""
    for key, added in EXTENSION.items():
        value = values.pop(added, None)
        if value is None:
            continue
        mode = values["mode"].raw if "mode" in values else None  # then the command has one
        if mode is not None and key not in modes.MODES[mode].keys:
            problems.append(f"{value.where}: {modes.misplaced_key(key, mode)}")
        elif key in values:
            problems.append(f"{value.where}: excludes {key} ({values[key].where})")
        else:
            try:
                seconds = float(KEYS[added].kind.read(value.raw))
            except ValueError as error:
                problems.append(f"{value.where}: {error}")
                continue
            time = -seconds if key == "start" else source_seconds(values) + seconds
            values[key] = replace(value, raw=f"{time:.6f}")


def source_seconds(values: Mapping[str, WrittenValue]) -> float:
    """Return the length of the source; 0 where there is none, or none that can be read, which is told later."""
    try:
        source = Path(KEYS["source"].kind.read(values["source"].raw))
        return decode.survey_file(source, LONGEST_REFERENCE).seconds
    except (KeyError, ValueError, SourceError):
        return 0.0
