"""A finished take on the disk: its audio, its provenance and its sections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from acestep_cli.audio import lrc, measure
from acestep_cli.audio.measure import Measures
from acestep_cli.audio.sound import Audio
from acestep_cli.errors import UsageError
from acestep_cli.render import provenance
from acestep_cli.render.provenance import Provenance
from acestep_cli.render.sidecar import SidecarRecord
from acestep_cli.song import document, sections, spec
from acestep_cli.song.request import NEUTRAL, Request
from acestep_cli.song.sections import Section

#: Keys that are shown elsewhere, or do not describe the music.
HIDDEN_KEYS = ("lyrics", "codes", "takes", "mode", "songwriter")
#: Values that do nothing.
IDLE = {**NEUTRAL, "guidance": 1.0, "language": "unknown"}


@dataclass(frozen=True)
class TakeFile:
    """An audio file with all that is known of it; `made` is None for one that this program did not render."""

    path: Path
    sound: Audio
    made: Provenance | None

    @classmethod
    def read(cls, path: Path, warn: Callable[[str], None]) -> TakeFile:
        """Read a file and its provenance. Raises `SourceError` where it cannot be read."""
        return cls(path, measure.read_for_measuring(path, warn), provenance.find_provenance(path))

    @cached_property
    def measures(self) -> Measures:
        return measure.measure(self.sound)

    @cached_property
    def request(self) -> Request:
        """The request of the take; an empty one where its spec is no longer valid."""
        if self.made is None:
            return Request()
        try:
            return spec.resolve(*self.made.layers).request
        except UsageError:  # somebody edited it
            return Request()

    @cached_property
    def sections(self) -> list[Section]:
        return sections.song_sections(self.request.lyrics, self.sound.seconds, lrc.read_beside(self.path))

    @property
    def title(self) -> str:
        return self.request.title or self.path.name

    def facts(self) -> list[tuple[str, str]]:
        """Return measurements and keys of the spec as names with values, for people."""
        found = self.measures
        levels = ["silent"] if found.is_silent else [f"{found.peak_dbfs:.1f} dBFS", f"{found.true_peak_db:.1f} dBTP"]
        if found.lufs is not None:
            levels.append(f"{found.lufs:.1f} LUFS")
        rows = [("length", f"{found.seconds:.2f} s"), ("level", ", ".join(levels))]
        if self.made is None:
            return rows
        known = self.request.model_dump(exclude=set(HIDDEN_KEYS), exclude_none=True)
        asked = spec.group_values({name: value for name, value in known.items() if IDLE.get(name) != value})
        for name, value in asked.items():
            written = value if isinstance(value, str) else document.dump_yaml({name: value}).partition(":")[2].strip()
            rows.append((name.replace("_", " "), written))
        rows += [(name.replace("_", " "), f"{value:g}") for name, value in self.scores.items()]
        rows.append(("recipe", self.made.origin.recipe))
        return rows

    @property
    def scores(self) -> dict[str, float]:
        """Scores and checks of the render, without the levels, which are measured again."""
        if self.made is None or not isinstance(self.made.origin, SidecarRecord):
            return {}
        found = {**self.made.origin.scores, **self.made.origin.checks}
        return {
            name: value
            for name, value in found.items()
            if name not in ("peak_dbfs", "true_peak_db", "lufs", "lufs_written")
        }
