"""The items below `tracks:` in an album file, and the tracks that each of them stands for."""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from acestep_cli.albums.album_file import AlbumFile, entries_below, entry_value, song_layer
from acestep_cli.albums.tracks import SET_BY_CHAIN, Edit, Track
from acestep_cli.song import document, modes, spec_keys, spec_layers
from acestep_cli.song.document import Entry
from acestep_cli.song.musical_values import LONGEST_SECONDS, Duration
from acestep_cli.song.spec_layers import Layer, WrittenValue
from acestep_cli.song.values import quoted

#: The keys of a track besides those of a song.
OF_TRACK = ("id", "spec", "from", "edits", "matrix")
#: The edits of a finished sound, and the mode of each.
EDITS = {
    "repaint": "repaint",
    "extend": "repaint",
    "cover": "cover",
    "edit": "edit",
    "lego": "lego",
    "complete": "complete",
}
#: Seconds of an extension whose own value is wrong, so that no other problem follows from it.
NOTHING = 0.0
MOST_TRACKS = 1000


def read_tracks(
    album_file: AlbumFile, section: Entry, matrix: tuple[AlbumFile, Entry] | None, problems: list[str]
) -> Iterator[Track]:
    """Yield the tracks of a section, those of a matrix one by one. `matrix` is that of the album."""
    made = 0
    names = [section.raw] if isinstance(section.raw, str) else section.raw or ()
    items = section.items or [replace(section, raw=name) for name in names]
    if not items:
        problems.append(f"{album_file.where(section)}: is a list of songs, such as `- songs/*.md`")
    for item in items:
        for draft in read_item(album_file, item, problems):
            own = next((entry for entry in item.entries or () if entry.name == "matrix"), None)
            swept = (album_file, own) if own is not None else matrix
            for one in variants(draft, *swept, problems) if swept is not None else (draft,):
                made += 1
                if made > MOST_TRACKS:
                    problems.append(f"{album_file.where(section)}: makes more than {MOST_TRACKS} tracks")
                    return
                yield one


def read_item(album_file: AlbumFile, item: Entry, problems: list[str]) -> Iterator[Track]:
    """Yield the tracks of one item: a file, a pattern for files, or a map."""
    where = album_file.where(item)
    if isinstance(item.raw, str):
        for file in matching_files(album_file, item.raw, where, problems):
            if id := id_of(file.stem):
                yield Track(id, where, tuple(spec_layers.read_layers(file, f"{where}: ")), spec_file=file)
            else:
                problems.append(
                    f"{where}: no id can be made of {quoted(file.stem)}; write `{named_item(album_file, file)}`"
                )
        return
    if item.entries is None:
        problems.append(f"{where}: is neither the file of a song nor a map of its keys")
        return
    own_entries: dict[str, Entry] = {}
    keys = []
    for entry in document.refuse_duplicates(item.entries, album_file.path, problems):
        if entry.name in OF_TRACK:
            own_entries[entry.name] = entry
        else:
            keys.append(entry)
    words = {name: str(own_entries[name].raw or "") for name in ("id", "spec", "from") if name in own_entries}
    problems += [f"{album_file.where(own_entries[name])}: is not a name" for name, word in words.items()
                 if not word or own_entries[name].problem]  # fmt: skip
    layers = [song_layer(keys, album_file.path, problems)]
    named = None
    if "spec" in own_entries:
        named = next(
            iter(matching_files(album_file, words["spec"], album_file.where(own_entries["spec"]), problems)), None
        )
        if named is not None:
            layers = [*spec_layers.read_layers(named, f"{album_file.where(own_entries['spec'])}: "), *layers]
    id, base = words.get("id", id_of(named.stem) if named is not None else ""), words.get("from")
    edits = tuple(read_edits(album_file, own_entries["edits"], problems)) if "edits" in own_entries else ()
    if not is_id(id):
        lack = "has no id" if not id else f"{quoted(id)} is not an id"
        problems.append(f"{where}: {lack}; an id is letters, digits, dots, dashes and underscores")
    elif base is not None and named is not None:
        problems.append(f"{where}: begins from {base} and from {named.name}; leave one of them out")
    else:
        yield Track(id, where, tuple(layers), edits, base, named)


def is_id(word: str) -> bool:
    """Return True if `word` can be the id of a track: letters, digits, dots, dashes and underscores of any script."""
    return re.fullmatch(r"\w[\w.-]*", "".join(sign for sign in word if not is_mark(sign))) is not None


def is_mark(sign: str) -> bool:
    """Return True if `sign` is part of the letter before it, as a vowel of Hindi or a separate accent."""
    return unicodedata.category(sign).startswith("M")


def id_of(stem: str) -> str:
    """Return the id for a song file called `stem`; empty where it has neither letters nor digits.

    A name that is an id stays as it is, with accents composed (NFC) on every system; `Old Orchard` becomes
    `old-orchard`.
    """
    name = unicodedata.normalize("NFC", stem)
    if is_id(name):
        return name
    kept = "".join(sign if sign in "_.-" or sign.isalnum() or is_mark(sign) else "-" for sign in name.lower())
    found = re.sub(r"-{2,}", "-", kept).strip("-.")
    return found if is_id(found) and any(sign.isalnum() for sign in found) else ""


def named_item(album_file: AlbumFile, file: Path, id: str = "…") -> str:
    """Return the item of `tracks:` that names `file` with an id of its own, as a user types it."""
    try:
        name = file.relative_to(album_file.path.parent).as_posix()
    except ValueError:
        name = file.as_posix()
    plain = re.fullmatch(r"[\w./-]+( [\w./-]+)*", name)
    return f"- {{id: {id}, spec: {name if plain else json.dumps(name, ensure_ascii=False)}}}"


def matching_files(album_file: AlbumFile, pattern: str, where: str, problems: list[str]) -> list[Path]:
    """Return the named song, or all songs that fit a pattern, in the order of their names.

    Hidden files, such as macOS leaves beside others, fit only a pattern that begins their name with a dot too.
    """
    if not any(sign in pattern for sign in "*?["):
        return [album_file.path.parent / spec_layers.expand_home(pattern)]
    folder = Path(spec_layers.expand_home(pattern).anchor or album_file.path.parent)
    try:
        there = sorted(
            folder.glob(str(spec_layers.expand_home(pattern).relative_to(spec_layers.expand_home(pattern).anchor)))
        )
    except ValueError as error:
        problems.append(f"{where}: {quoted(pattern)} is not a pattern for files: {str(error).lower()}")
        return []
    dotted = [part for part in Path(pattern).parts if part.startswith(".")]
    found = [
        file
        for file in there
        if file.suffix.lower() in spec_layers.SUFFIXES
        and not spec_layers.same_file(file, album_file.path)
        and all(
            any(fnmatchcase(part, shown) for shown in dotted)
            for part in file.relative_to(folder).parts
            if part.startswith(".")
        )
    ]
    if not found:
        problems.append(f"{where}: no song fits {quoted(pattern)}")
    return found


def read_edits(album_file: AlbumFile, section: Entry, problems: list[str]) -> Iterator[Edit]:
    """Yield the edits of a track."""
    if not section.items:
        problems.append(f"{album_file.where(section)}: is a list, such as `- repaint: {{start: 4, end: 8}}`")
    for item in section.items or ():
        if item.entries is None or len(item.entries) != 1 or item.entries[0].name not in EDITS:
            problems.append(f"{album_file.where(item)}: each item is one of {', '.join(EDITS)}, with its keys below it")
            continue
        [entry] = item.entries
        where = album_file.where(entry)
        mode = EDITS[entry.name]
        added: dict[str, float | None] = {}
        keys = []
        for one in entries_below(entry, album_file.path, problems):
            if entry.name == "extend" and one.name in ("before", "after"):
                try:
                    added[one.name] = entry_value(one, Duration(1, LONGEST_SECONDS).read, None)
                except ValueError as error:
                    added[one.name] = NOTHING
                    problems.append(f"{album_file.where(one)}: {error}")
            elif one.name in SET_BY_CHAIN or one.name in modes.keys_of_other_modes(mode):
                problems.append(f"{album_file.where(one)}: has no meaning for an edit by {entry.name}")
            else:
                keys.append(one)
        if entry.name == "extend" and not any(seconds is not None for seconds in added.values()):
            problems.append(f"{where}: says neither how many seconds before nor after")
            added["after"] = NOTHING
        yield Edit(mode, song_layer(keys, album_file.path, problems), where, added.get("before"), added.get("after"))


def variants(draft: Track, album_file: AlbumFile, matrix: Entry, problems: list[str]) -> Iterator[Track]:
    """Yield a track for each combination of the values of a matrix, with an id made of them.

    Combinations in `exclude:` are left out, those in `include:` come last. Where the matrix is wrong, the track itself
    is yielded, so that its own problems are found too.
    """
    before = len(problems)
    axes: dict[str, list[str]] = {}
    lists: dict[str, list[dict[str, str]]] = {"exclude": [], "include": []}
    for entry in entries_below(matrix, album_file.path, problems):
        if entry.name in lists:
            lists[entry.name] = list(combinations(album_file, entry, problems))
        elif entry.name not in spec_keys.KEYS:
            problems.append(
                f"{album_file.where(entry)}: is not a key of a song spec{spec_keys.nearest_key(entry.name)}"
            )
        elif entry.raw is None or (items := [entry.raw] if isinstance(entry.raw, str) else entry.raw) == []:
            problems.append(f"{album_file.where(entry)}: is a list of values")
        else:
            axes[entry.name] = items
    strange = {name for wrong in lists["exclude"] for name in wrong} - axes.keys()
    problems += [
        f"{album_file.where(matrix)}: excludes by {name}, which is not one of its keys" for name in sorted(strange)
    ]
    if len(problems) > before:
        yield draft
        return
    crossed = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())] if axes else []
    kept = [one for one in crossed if not any(wrong.items() <= one.items() for wrong in lists["exclude"])]
    for values in [*kept, *lists["include"]]:
        words = [re.sub(r"[^\w.]+", "-", value).strip("-") for value in values.values()]
        swept = {
            name: WrittenValue(raw, album_file.where(matrix), f"{album_file.path}:{matrix.line}")
            for name, raw in values.items()
        }
        over = Layer(album_file.path.parent, swept)
        yield replace(draft, id="-".join((draft.id, *words)), layers=(*draft.layers, over))


def combinations(album_file: AlbumFile, entry: Entry, problems: list[str]) -> Iterator[dict[str, str]]:
    """Yield each combination of values in a list of maps."""
    if not entry.items:
        problems.append(f"{album_file.where(entry)}: is a list of maps, such as `- {{steps: 8, seed: 1}}`")
    for item in entry.items or ():
        values = {}
        for one in entries_below(item, album_file.path, problems):
            if one.name not in spec_keys.KEYS or not isinstance(one.raw, str):
                problems.append(
                    f"{album_file.where(one)}: is not a key of a song spec with one value"
                    f"{spec_keys.nearest_key(one.name)}"
                )
            else:
                values[one.name] = one.raw
        yield values
