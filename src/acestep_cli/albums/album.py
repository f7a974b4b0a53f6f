"""Album specs: their tracks, and the names of the tracks' files.

An album is read as strictly as a song: every problem of it and of its songs is found at once, each with its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acestep_cli.albums import template, tracks
from acestep_cli.albums.album_file import AlbumFile, entry_value, read_album_files
from acestep_cli.albums.track_items import read_tracks
from acestep_cli.albums.tracks import Track
from acestep_cli.audio import encode
from acestep_cli.errors import UsageError
from acestep_cli.song import spec_keys, spec_layers
from acestep_cli.song.request import KEYS
from acestep_cli.song.spec_layers import Layer
from acestep_cli.song.values import suggestion

DEFAULT_OUTPUT = "{album}/{n:02} {title}.{ext}"


@dataclass(frozen=True)
class Album:
    """An album file with its tracks; `files` are the album files that were read."""

    file: Path
    output: str
    tracks: tuple[Track, ...]
    files: tuple[Path, ...]
    #: Sentences on keys of the file that act on nothing, each with its place.
    remarks: tuple[str, ...] = ()

    def path(self, track: Track) -> Path:
        """Return the file of a track, relative to the folder of the album."""
        request = track.request
        return template.template_path(
            self.output,
            {
                "album": request.album or self.file.stem,
                "artist": request.artist or "",
                "year": request.year or "",
                "n": request.track_number,
                "title": request.title or track.id,
                "id": track.id,
                "ext": request.format or encode.DEFAULT_FORMAT,
            },
        )

    def chosen(self, ids: Iterable[str]) -> list[Track]:
        """Return the tracks with these ids and those they begin from; all tracks where there are no ids.

        Raises `UsageError` for an unknown id.
        """
        wanted = [*ids]
        by_id = {track.id: track for track in self.tracks}
        for id in wanted:
            if id not in by_id:
                raise UsageError(
                    f"{self.file}: has no track {id!r}{suggestion(id, by_id)}.", f"Ids: {', '.join(by_id)}."
                )
        for id in wanted:  # which grows meanwhile
            if (base := by_id[id].base) is not None and base not in wanted:
                wanted.append(base)
        return [track for track in self.tracks if not wanted or track.id in wanted]


def read_album(file: Path, over: Layer | None = None) -> Album:
    """Read the album in `file`; the flags `over` hold for every track.

    Raises `UsageError`, which names every problem.
    """
    album_files = read_album_files(file)
    problems = [problem for album_file in album_files for problem in album_file.problems]
    found = {name: (album_file, entry) for album_file in album_files for name, entry in album_file.sections.items()}
    settings: dict[str, Any] = {"seed": 0, "output": DEFAULT_OUTPUT}
    for name, reader in (("seed", KEYS["seed"].kind.read), ("output", file_template)):
        if name in found:
            album_file, entry = found[name]
            try:
                settings[name] = entry_value(entry, reader, settings[name])
            except ValueError as error:
                problems.append(f"{album_file.where(entry)}: {error}")
    drafts = []
    if "tracks" in found:
        drafts = list(read_tracks(*found["tracks"], found.get("matrix"), problems))
    elif not problems:
        problems.append(f"{file}: has no tracks; name songs below `tracks:`")
    shared = [layer for album_file in album_files for layer in album_file.layers]
    whole = []
    by_id = {draft.id: draft for draft in drafts}
    drafts = [as_variation(draft, by_id, problems) for draft in drafts]
    for number, draft in enumerate(drafts, start=1):
        place = spec_layers.implied_layer({"track_number": str(number)}, f"its place in {file.name}")
        layers = (place, *shared, *draft.layers)
        track, wrong = replace(draft, layers=layers, album_seed=settings["seed"], over=over).checked()
        problems += wrong
        whole.append(track)
    album = Album(file, settings["output"], tuple(whole), tuple(album_file.path for album_file in album_files))
    if not problems:
        problems += duplicate_problems(album) + cycle_problems(album)
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    return replace(album, remarks=tuple(idle_defaults(album_files[-1], drafts)))


def idle_defaults(album_file: AlbumFile, drafts: Sequence[Track]) -> Iterator[str]:
    """Yield a remark on each default of an album file that every track has a value of its own for."""
    defaults = album_file.sections.get("defaults")
    for entry in defaults.entries or () if defaults is not None else ():
        key = spec_keys.canonical_key(entry.name)
        if drafts and not any(draft.takes_default(key) for draft in drafts):
            yield f"{album_file.where(entry)}: acts on nothing, for each track has its own or takes none."


def as_variation(draft: Track, others: Mapping[str, Track], problems: list[str]) -> Track:
    """Return a track that begins from another as a variation of its song, where it asks for one; else as it is, with a
    problem noted where it has no edits either.
    """
    if draft.base is None or (draft.edits and not draft.asks_for_variation):
        return draft
    where, base = draft.where, others.get(draft.base or "")
    if base is None:
        problems.append(unknown_base(draft, others))
    elif not draft.asks_for_variation:
        problems.append(f"{where}: begins from {base.id} but has neither a variation nor edits; write `edits:`")
    elif base.base is not None:
        problems.append(f"{where}: varies {base.id}, which itself begins from {base.base}; vary a song of its own")
    elif base.edits:
        problems.append(
            f"{where}: varies {base.id}, which is edited after it is generated; make its song a track of its own, and "
            "vary that"
        )
    else:
        return draft.variation_of(base)
    return replace(draft, base=None)


def unknown_base(track: Track, others: Iterable[str]) -> str:
    """Return the problem of a track that begins from none of the others."""
    return f"{track.where}: begins from {track.base!r}, which is not a track{suggestion(track.base or '', others)}"


def file_template(raw: str) -> str:
    """Return a template for the files of tracks. Raises `ValueError` where it is none."""
    if problem := template.template_problem(raw):
        raise ValueError(problem)
    return raw


def duplicate_problems(album: Album) -> list[str]:
    """Return a problem for each two tracks with one id, or with one file on a disk that ignores case."""
    problems = []
    ids: dict[str, Track] = {}
    paths: dict[str, Track] = {}
    for track in album.tracks:
        if (other := ids.setdefault(track.id.casefold(), track)) is not track:
            renamed = ""
            if track.spec_file is not None and other.spec_file is not None and track.spec_file != other.spec_file:
                renamed = f"; it is made of {track.spec_file} and of {other.spec_file}: rename one of them"
            problems.append(f"{track.where}: the id {track.id} is used by another track, too ({other.where}){renamed}")
        path = album.path(track)
        if (other := paths.setdefault(str(path).casefold(), track)) is not track:
            problems.append(
                f"{track.where}: {track.id} and {other.id} would both be written to {path}; "
                "give them titles, or put {id} into `output:`"
            )
    return problems


def cycle_problems(album: Album) -> list[str]:
    """Return a problem for each track whose `from` names no track, one of several files, or in the end itself."""
    problems = []
    by_id = {track.id: track for track in album.tracks}
    for track in album.tracks:
        if track.base is None:
            continue
        if track.base not in by_id:
            problems.append(unknown_base(track, by_id))
        elif not tracks.makes_one_file(by_id[track.base].request):
            problems.append(f"{track.where}: begins from {track.base}, which makes several files")
        ring = [track.id]
        while (base := by_id[ring[-1]].base) in by_id and base not in ring:
            ring.append(str(base))
        if base == track.id:
            problems.append(f"{track.where}: goes round in a circle: {' -> '.join([*ring, track.id])}")
    return problems
