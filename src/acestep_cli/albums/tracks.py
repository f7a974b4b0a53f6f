"""The tracks of an album: each a song or the result of another track, followed by edits, step by step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from acestep_cli.errors import UsageError
from acestep_cli.song import complete, duration, modes, spec, spec_layers, validate
from acestep_cli.song.request import FINISH, Request
from acestep_cli.song.spec import Resolved
from acestep_cli.song.spec_layers import Layer, WrittenValue

#: Keys that a chain of edits sets itself.
SET_BY_CHAIN = ("source", "mode", "mix", "takes")
#: Keys of a song that a variation of it does not take over: it is a track of its own.
OWN_OF_VARIATION = ("title", "track_number", "takes")
#: Keys of a single mode: those of the song do not hold for an edit of it.
CLAIMED = frozenset(key for mode in modes.MODES.values() for key in mode.keys)
#: Keys of an intermediate step, whose sound is kept as rendered.
AS_RENDERED = {"format": "wav", "bit_depth": "32f", "loudness": "none"}


@dataclass(frozen=True)
class Edit:
    """A change to a finished sound: `layer` has its keys of a song, `mode` is the mode that does it.

    `before` and `after` are the seconds that an extension adds.
    """

    mode: str
    layer: Layer
    where: str
    before: float | None = None
    after: float | None = None

    def region(self, source_seconds: float) -> Layer:
        """Return the region of an extension of a source of so many seconds; an empty layer for another edit."""
        values = {}
        if self.before is not None:
            values["start"] = WrittenValue(-self.before, self.where, self.where)
        if self.after is not None:
            values["end"] = WrittenValue(source_seconds + self.after, self.where, self.where)
        return Layer(Path(), values)

    def lacking(self, request: Request) -> list[str]:
        """Return the keys that its mode needs and `request` lacks, but for source and region, which the chain sets."""
        needs = validate.missing_keys(request)
        by_chain = ("source", *(("start",) if (self.before, self.after) != (None, None) else ()))
        return [f"{self.where}: {need}" for need in needs if not need.startswith(by_chain)]


@dataclass(frozen=True)
class Track:
    """One track: the layers of its song, or the id of the track it begins from, and the edits that follow.

    `resolved` is the request of its last step, after which its file is named.
    """

    id: str
    where: str
    layers: tuple[Layer, ...]
    edits: tuple[Edit, ...] = ()
    #: The id of the track whose finished sound is the beginning of this one.
    base: str | None = None
    spec_file: Path | None = None
    #: The id of the track whose song it varies, with the same seed: `layers` has that song.
    varies: str | None = None
    album_seed: int = 0
    #: Flags, which hold for every track.
    over: Layer | None = None
    resolved: Resolved | None = None
    #: The files that were read for it, but for the album.
    files: tuple[Path, ...] = ()

    @property
    def request(self) -> Request:
        assert self.resolved is not None
        return self.resolved.request

    @property
    def asks_for_variation(self) -> bool:
        """True where its own keys have a variation."""
        return any(layer.values["variation"].raw is not None for layer in self.layers if "variation" in layer.values)

    def takes_default(self, key: str) -> bool:
        """Tell whether a default of the album decides `key` in any step, while `layers` has its own keys alone."""
        of_edits = key not in {*CLAIMED, *SET_BY_CHAIN, "seed"}
        has_own = any(key in layer.values for layer in self.layers)
        return not has_own and (self.base is None or of_edits)

    def variation_of(self, other: Track) -> Track:
        """Return this track as a variation of `other`: the song of that one under the keys of this one."""
        song = [without_keys(layer, OWN_OF_VARIATION) for layer in other.layers]
        return replace(self, layers=(*song, *self.layers), base=None, varies=other.id)

    @property
    def steps(self) -> range:
        """The numbers of its steps: 0 makes the song, the others are its edits."""
        return range(0 if self.base is None else 1, len(self.edits) + 1)

    def step(self, number: int, source: Path | None = None, region: Layer | None = None) -> list[Layer]:
        """Return the layers of a step; an edit works on `source`.

        The sound of a step that another one edits is kept as it is rendered, and without tags.
        """
        layers = self._seeds(number)
        own = [*self.layers, *([self.over] if self.over else ())]
        if number > 0:
            edit = self.edits[number - 1]
            dropped = {*CLAIMED, *SET_BY_CHAIN, "seed", *(spec.SUITED if "model" in edit.layer.values else ())}
            kept = [without_keys(layer, dropped) for layer in own]
            by_chain = {"mode": edit.mode, **({"mix": "true"} if edit.mode == "lego" else {})}
            if source is not None:
                by_chain["source"] = str(source)
            layers += [
                spec_layers.implied_layer({"loudness": complete.DEFAULT_LOUDNESS}, duration.DEFAULT),
                *kept,
                edit.layer,
            ]
            layers += [spec_layers.implied_layer(by_chain, edit.where), region or Layer(Path())]
        else:
            layers += own
        if number < self.steps[-1]:
            layers = [
                *(without_keys(layer, FINISH) for layer in layers),
                spec_layers.implied_layer(AS_RENDERED, "an intermediate step"),
            ]
        return layers

    def _seeds(self, number: int) -> list[Layer]:
        """Return the seeds of a step, which follow from the seed of the album and the id of the track.

        A variation shares the seed of the track that it varies; its own is that of the variation.
        """
        own = self.id if number == 0 else f"{self.id}/{number}"
        seeds = {"seed": own}
        if self.varies is not None and number == 0:
            seeds = {"seed": self.varies, "variation_seed": own}
        return [
            spec_layers.implied_layer(
                {key: str(track_seed(self.album_seed, name))}, f"the album's seed, {self.album_seed}, and {name}"
            )
            for key, name in seeds.items()
        ]

    def checked(self) -> tuple[Track, list[str]]:
        """Return the track with the request of its last step and all files that were read, and its problems."""
        problems: list[str] = []
        files: list[Path] = []
        resolved = None
        for number in self.steps:
            try:
                resolved = spec.resolve(*self.step(number))
            except UsageError as error:
                problems += error.message.splitlines()
                continue
            files += resolved.files
            if number > 0:
                problems += self.edits[number - 1].lacking(resolved.request)
            if number < self.steps[-1] and not makes_one_file(resolved.request):
                problems.append(f"{self.where}: {self.id} makes several files, and an edit works on one")
        return replace(self, resolved=resolved, files=tuple(dict.fromkeys(files))), problems


def track_seed(album_seed: int, name: str) -> int:
    """Return the seed of a track, which does not depend on the other tracks."""
    digest = hashlib.sha256(f"{album_seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def without_keys(layer: Layer, names: Iterable[str]) -> Layer:
    return replace(layer, values={name: value for name, value in layer.values.items() if name not in names})


def makes_one_file(request: Request) -> bool:
    """Return True if a request makes one file, or one that holds the sound of all others."""
    mode = modes.mode_of(request)
    return request.takes in (None, 1) and (mode.makes == "take" or mode.beside(request) == "mix")
