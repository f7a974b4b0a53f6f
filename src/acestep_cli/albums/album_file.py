"""Album files: their sections, and the keys that they set for all songs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acestep_cli.errors import shell_word
from acestep_cli.render import argument_kinds
from acestep_cli.song import document, spec_layers, spec_text
from acestep_cli.song.document import Entry
from acestep_cli.song.request import KEYS
from acestep_cli.song.spec_layers import Layer
from acestep_cli.song.values import suggestion

#: The sections of an album file.
SECTIONS = ("album", "seed", "output", "defaults", "tracks", "matrix", "extends")
#: The keys of its `album:` section, and the song keys that they set.
OF_ALBUM = {"title": "album", "artist": "artist", "year": "year", "cover": "cover"}


@dataclass(frozen=True)
class AlbumFile:
    """One album file: its sections, and the layers with its keys for all songs."""

    path: Path
    sections: Mapping[str, Entry]
    layers: tuple[Layer, ...] = ()
    problems: tuple[str, ...] = ()

    def where(self, entry: Entry) -> str:
        return f"{self.path}:{entry.line}: {entry.name}"


def read_album_files(file: Path) -> list[AlbumFile]:
    """Read an album file and those that it extends, the most basic first."""
    album_files = [read_album_file(file)]
    seen = [file]
    while (extends := album_files[0].sections.get("extends")) and extends.raw is not None:
        try:
            base = spec_layers.extended_file(extends.raw, album_files[0].path.parent, seen)
        except ValueError as error:
            problem = f"{album_files[0].where(extends)}: {error}"
            return [AlbumFile(file, {}, problems=(problem,)), *album_files]
        seen.append(base)
        album_files.insert(0, read_album_file(base, wanted_by=f"{album_files[0].where(extends)}: "))
    return album_files


def read_album_file(file: Path, wanted_by: str = "") -> AlbumFile:
    try:
        text = spec_text.read_text(str(file))
    except ValueError as error:
        return AlbumFile(file, {}, problems=(f"{wanted_by}{file}: {error}",))
    if file.suffix.lower() not in (".yaml", ".yml"):
        return AlbumFile(file, {}, problems=(f"{wanted_by}{file}: an album is a .yaml file",))
    content = document.parse_document(text, markdown=False)
    problems = [f"{file}{problem}" for problem in content.problems]
    if {entry.name for entry in content.entries} & (set(KEYS) - set(SECTIONS)) and not argument_kinds.is_album(file):
        problem = f"{file}: is a song, not an album; acestep render {shell_word(file)} renders it"
        return AlbumFile(file, {}, problems=(f"{wanted_by}{problem}",))
    sections: dict[str, Entry] = {}
    layers = []
    for entry in document.refuse_duplicates(content.entries, file, problems):
        where = f"{file}:{entry.line}: {entry.name}"
        if entry.name not in SECTIONS:
            problems.append(f"{where}: is not a key of an album{suggestion(entry.name, SECTIONS)}")
        elif entry.name in ("album", "defaults"):
            entries = list(entries_below(entry, file, problems))
            if entry.name == "album":
                entries = list(album_entries(entries, where, problems))
            layers.append(song_layer(entries, file, problems))
        sections[entry.name] = entry
    return AlbumFile(file, sections, tuple(layers), tuple(problems))


def entries_below(entry: Entry, file: Path, problems: list[str]) -> Iterator[Entry]:
    """Yield the entries of a map, each once; note a problem where the entry is no map."""
    if entry.entries is None:
        problems.append(f"{file}:{entry.line}: {entry.name}: is a map, with keys below it")
        return
    yield from document.refuse_duplicates(entry.entries, file, problems)


def album_entries(entries: Iterable[Entry], where: str, problems: list[str]) -> Iterator[Entry]:
    """Yield the entries below `album:`, renamed to keys of a song."""
    for entry in entries:
        if entry.name in OF_ALBUM:
            yield replace(entry, name=OF_ALBUM[entry.name])
        else:
            problems.append(f"{where}: has no {entry.name!r}{suggestion(entry.name, OF_ALBUM)}")


def song_layer(entries: Iterable[Entry], file: Path, problems: list[str]) -> Layer:
    """Return a layer of the song keys in an album."""
    kept = []
    for entry in entries:
        if entry.name == "extends":
            problems.append(f"{file}:{entry.line}: extends: stands in a song or at the top of an album")
        else:
            kept.append(entry)
    return spec_layers.layer_of_entries(kept, str(file), file.parent, file)


def entry_value(entry: Entry, read: Callable[[str], Any], default: Any) -> Any:
    """Return the one value of an entry, read by `read`; `default` where the entry has none.

    Raises `ValueError`, which says what is wrong.
    """
    if entry.problem is not None:
        raise ValueError(entry.problem)
    if isinstance(entry.raw, list):
        raise ValueError("is a list, and takes one value")
    return default if entry.raw is None else read(entry.raw)
