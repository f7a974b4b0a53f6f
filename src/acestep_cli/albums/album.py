"""Album specs: their tracks, and the names of the tracks' files.

An album is read as strictly as a song: every problem of it and of its songs is found at once, each with its place.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from acestep_cli.albums import template, tracks
from acestep_cli.albums.tracks import Edit, Track
from acestep_cli.audio import encode
from acestep_cli.errors import UsageError, shell_word
from acestep_cli.render import argument_kinds
from acestep_cli.song import document, modes, spec_keys, spec_layers, spec_text
from acestep_cli.song.document import Entry
from acestep_cli.song.musical_values import LONGEST_SECONDS, Duration
from acestep_cli.song.request import KEYS
from acestep_cli.song.spec_layers import Layer, WrittenValue
from acestep_cli.song.values import quoted, suggestion

#: The sections of an album file.
SECTIONS = ("album", "seed", "output", "defaults", "tracks", "matrix", "extends")
#: The keys of its `album:` section, and the song keys that they set.
OF_ALBUM = {"title": "album", "artist": "artist", "year": "year", "cover": "cover"}
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
DEFAULT_OUTPUT = "{album}/{n:02} {title}.{ext}"
MOST_TRACKS = 1000


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


@dataclass(frozen=True)
class AlbumFile:
    """One album file: its sections, and the layers with its keys for all songs."""

    path: Path
    sections: Mapping[str, Entry]
    layers: tuple[Layer, ...] = ()
    problems: tuple[str, ...] = ()

    def where(self, entry: Entry) -> str:
        return f"{self.path}:{entry.line}: {entry.name}"


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
        problems += duplicate_problems(album) + circle_problems(album)
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


def entry_value(entry: Entry, read: Callable[[str], Any], default: Any) -> Any:
    """Return the one value of an entry, read by `read`; `default` where the entry has none.

    Raises `ValueError`, which says what is wrong.
    """
    if entry.problem is not None:
        raise ValueError(entry.problem)
    if isinstance(entry.raw, list):
        raise ValueError("is a list, and takes one value")
    return default if entry.raw is None else read(entry.raw)


def file_template(raw: str) -> str:
    """Return a template for the files of tracks. Raises `ValueError` where it is none."""
    if problem := template.template_problem(raw):
        raise ValueError(problem)
    return raw


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
            elif one.name in tracks.SET_BY_CHAIN or one.name in modes.keys_of_other_modes(mode):
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


# Problems of tracks


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


def circle_problems(album: Album) -> list[str]:
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
