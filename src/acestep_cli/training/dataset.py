"""Data sets of songs to train on: found in a folder, described in a `dataset.yaml` that the user edits, and checked for
recordings that would spoil the training.

docs/specification.md, 12.4 Examples and 12.7 Descriptions beside recordings
tell what other trainers read and where they went wrong.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from acestep_cli import disk
from acestep_cli.audio import decode, encode, measure
from acestep_cli.audio.regular_file import unreadable_error
from acestep_cli.errors import AceStepError, SourceError, UsageError, combine_errors
from acestep_cli.progress import Progress, Say
from acestep_cli.song import document, modes, prompts, spec, spec_keys, spec_layers, spec_text
from acestep_cli.song.lint import linted_song, pace
from acestep_cli.song.request import Request
from acestep_cli.song.values import Choice, Kind, Tag, quoted, suggestion
from acestep_cli.training import metadata
from acestep_cli.training.metadata import LeftOut

DATASET_FILE = "dataset.yaml"
SUFFIXES = tuple(f".{suffix}" for suffix in encode.FORMATS)
#: The place of the trigger word: before the caption, after it, or instead of it.
POSITIONS = ("prepend", "append", "replace")
SETTINGS: Mapping[str, Kind] = {"trigger": Tag(), "trigger_position": Choice(POSITIONS)}
#: The most songs that a remark names.
NAMED_SONGS = 3
#: With fewer songs an adapter learns the songs rather than their style.
FEWEST_SONGS = 8
NOTE = """\
# The songs of an adapter. Mend what is wrong, then: acestep train-lora {folder} -o my-sound/
# Keys of a song: caption, lyrics, instrumental, language, bpm, key, time_signature; delete a song and it is left out.
"""


@dataclass(frozen=True)
class DatasetSong:
    """One recording and its description. `name` is its path within the data set, with / on every system."""

    name: str
    path: Path
    request: Request

    def with_labels(self, labels: Mapping[str, Any]) -> DatasetSong:
        """Return the song with labels for the keys that are open."""
        known = self.request.model_dump(exclude_none=True)
        exclusive = ("lyrics", "instrumental")
        if any(key in known for key in exclusive):
            labels = {key: value for key, value in labels.items() if key not in exclusive}
        return replace(self, request=Request(**{**labels, **known}))


@dataclass(frozen=True)
class Dataset:
    """Songs, and the trigger word of their style."""

    folder: Path
    songs: tuple[DatasetSong, ...]
    trigger: str | None = None
    trigger_position: str = POSITIONS[0]
    #: An error for each song that cannot be trained on.
    problems: tuple[AceStepError, ...] = ()
    #: Recordings in the folder that its `dataset.yaml` does not name.
    strays: tuple[str, ...] = ()
    #: Metadata beside the songs that could not be read.
    left_out: tuple[LeftOut, ...] = ()

    def with_labels_of(self, other: Dataset) -> Dataset:
        """Return the data set with the labels of the same songs in `other`, and its trigger word, where this one has
        none.
        """
        labels = {song.name: song.request.model_dump(exclude_none=True) for song in other.songs}
        songs = tuple(song.with_labels(labels.get(song.name, {})) for song in self.songs)
        head = {} if self.trigger is not None else {name: getattr(other, name) for name in SETTINGS}
        return replace(self, songs=songs, **head)

    def caption(self, song: DatasetSong) -> str:
        """Return the caption of a song with the trigger word in its place."""
        own = song.request.caption
        if self.trigger is None or own is None or self.trigger_position == "replace":
            return self.trigger or own or ""
        return f"{self.trigger}, {own}" if self.trigger_position == "prepend" else f"{own}, {self.trigger}"

    def prompts(self, song: DatasetSong, seconds: float) -> tuple[str, str]:
        """Return the text prompt and the lyric prompt of `seconds` of a song, the same as those of a render of it."""
        request = song.request.model_copy(update={"caption": self.caption(song)})
        return prompts.prompts_of(request, modes.FILL_MASK, seconds)

    def dump(self) -> str:
        """Return the text of its `dataset.yaml`."""
        head = {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}
        unread_lyrics = {entry.song for entry in self.left_out if entry.key == "lyrics"}
        songs = {song.name: song_keys(song.request) for song in self.songs}
        for song in self.songs:
            if song.name in unread_lyrics and song.request.instrumental is None:
                songs[song.name].pop("instrumental", None)  # there are lyrics, which could not be read
        note = NOTE.format(folder=document.as_comment(str(self.folder)))
        if self.left_out:
            note += "# Left out, for it cannot be read; what is open of a song is written below its name:\n"
            note += "".join(f"#   {document.as_comment(str(entry))}\n" for entry in self.left_out)
        return note + document.dump_yaml({**head, "songs": songs})


def song_keys(request: Request) -> dict[str, Any]:
    """Return the keys of a song that have a value; without lyrics it is an instrumental."""
    found = {key: value for key in metadata.KEYS if (value := getattr(request, key)) is not None}
    return found if "lyrics" in found else {**found, "instrumental": True}


def audio_files(folder: Path) -> dict[str, Path]:
    """Return the audio files in `folder` and the folders in it, by name.

    Raises `SourceError` where there are none, and for a folder that cannot be read. Hidden ones are left out.
    """
    try:
        if not folder.is_dir():
            if gone := disk.read_error(folder, FileNotFoundError()):
                raise gone
            if disk.is_taken(folder):
                raise SourceError(f"{folder} is not a folder; the songs to train on are in one.")
            raise SourceError(
                f"{folder} is not there{disk.suggest_path(folder) or '.'}", "The songs to train on are in a folder."
            )
        files = sorted(path for path in visible_files(folder) if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise unreadable_error(Path(error.filename or folder), error) from error
    found = {path.relative_to(folder).as_posix(): path for path in files}
    if not found:
        raise SourceError(
            f"{folder} holds no audio ({', '.join(encode.FORMATS)}).", "Put 8 to 20 songs of one style into it."
        )
    return found


def visible_files(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder and the folders in it, but not what is hidden. `OSError` where one cannot be read."""

    def refuse(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = (name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in names if not name.startswith("."))


def load_dataset(folder: Path) -> Dataset:
    """Read the `dataset.yaml` of a folder, or scan the folder where there is none."""
    return (
        parse_dataset(spec_text.read_text(str(folder / DATASET_FILE)), folder)
        if (folder / DATASET_FILE).is_file()
        else scan_folder(folder)
    )


def scan_folder(folder: Path) -> Dataset:
    """Find the recordings in a folder, with the metadata beside them; unreadable metadata are in `left_out`."""
    files = audio_files(folder)
    folders = {parent for path in files.values() for parent in path.parents if parent.is_relative_to(folder)}
    tables = {place: metadata.read_tables(place) for place in sorted(folders)}  # the outer ones first
    songs = []
    left_out = []
    for name, path in files.items():
        unread: list[LeftOut] = []
        above = [table for place, table in tables.items() if path.is_relative_to(place)]
        values = metadata.read_metadata(path, above, unread)
        request = request_of({key: (value, f"{name}: {key}") for key, value in values.items()})
        songs.append(DatasetSong(name, path, request))
        left_out += [replace(entry, song=name) for entry in unread]
    reported = {(entry.where, entry.reason) for entry in left_out}  # a song's own list is read twice
    for table in tables.values():
        left_out += [entry for entry in table.unread if (entry.where, entry.reason) not in reported]
        left_out += table.unmatched()
    head = {}
    for name, (value, file) in {key: value for table in tables.values() for key, value in table.shared.items()}.items():
        try:
            head[name] = SETTINGS[name].read(value)
        except ValueError as error:
            left_out.append(LeftOut(f"{file}: {'custom_tag' if name == 'trigger' else 'tag_position'}", str(error)))
    return Dataset(folder, tuple(songs), left_out=tuple(dict.fromkeys(left_out)), **head)


def rescan_folder(folder: Path) -> Dataset:
    """Scan a folder, and fill keys that are open from its `dataset.yaml`, if that names any songs."""
    scanned = scan_folder(folder)
    try:
        filled = scanned.with_labels_of(load_dataset(folder))
    except SourceError:
        return scanned
    given = {(song.name, key) for song in filled.songs for key in metadata.KEYS
             if getattr(song.request, key) is not None}  # fmt: skip
    return replace(filled, left_out=tuple(entry for entry in filled.left_out if (entry.song, entry.key) not in given))


def parse_dataset(text: str, folder: Path) -> Dataset:
    """Read the text of a `dataset.yaml` whose songs are in `folder`.

    Raises `UsageError` with every problem and its line, and `SourceError` where it names no songs; a song that is not
    there is one of the data set's `problems`.
    """
    where = folder / DATASET_FILE
    content = document.parse_document(text, markdown=False)
    wrong = [f"{where}{problem}" for problem in content.problems]
    head: dict[str, Any] = {}
    songs: dict[str, DatasetSong] = {}
    left_out: list[LeftOut] = []
    for entry in document.refuse_duplicates(content.entries, where, wrong):
        place = f"{where}:{entry.line}: {entry.name}"
        if entry.name in SETTINGS:
            try:
                head |= _read_setting(entry)
            except ValueError as error:
                wrong.append(f"{place}: {error}")
        elif entry.name != "songs":
            wrong.append(f"{place}: is not a key of a data set{suggestion(entry.name, (*SETTINGS, 'songs'))}")
        elif entry.entries is None:
            wrong.append(f"{place}: is a map, with the names of recordings below it")
        else:
            songs |= _read_songs(entry.entries, where, wrong)
            left_out += [
                replace(one, song=song.name) for song in entry.entries for one in lost_parts(song.entries, where)
            ]
    left_out += lost_parts(content.entries, where)
    if wrong:
        raise UsageError("\n".join(wrong))
    if not songs:
        raise SourceError(f"{where} names no songs.", f"acestep train-lora {folder} --scan-only --force finds them.")
    files = audio_files(folder)
    missing = [name for name in songs if name not in files]
    problems = [SourceError(f"{songs.pop(name).path} is not there, and {DATASET_FILE} names it.") for name in missing]
    strays = tuple(name for name in files if name not in songs)
    return Dataset(
        folder, tuple(songs.values()), problems=tuple(problems), strays=strays, left_out=tuple(left_out), **head
    )


def _read_setting(entry: document.Entry) -> dict[str, Any]:
    """Read the trigger word or its position; nothing where it has no value. Raises `ValueError` with the reason."""
    if entry.problem is not None:
        raise ValueError(entry.problem)
    return {} if entry.raw is None else {entry.name: SETTINGS[entry.name].read(entry.raw)}


def lost_parts(entries: Iterable[document.Entry] | None, where: Path) -> Iterator[LeftOut]:
    """Yield the parts of texts that are comments to YAML and may not be meant as such."""
    kinds = {**SETTINGS, **{name: spec_keys.KEYS[name].kind for name in metadata.KEYS}}
    for entry in entries or ():
        if entry.name in kinds and (remark := spec_layers.comment_remark(entry, kinds[entry.name])):
            yield LeftOut(f"{where}:{entry.line}: {entry.name}", remark)


def _read_songs(entries: Sequence[document.Entry], where: Path, wrong: list[str]) -> dict[str, DatasetSong]:
    """Read the songs below `songs`, by name; problems are added to `wrong`."""
    songs = {}
    for entry in document.refuse_duplicates(entries, where, wrong):
        try:
            songs[entry.name] = DatasetSong(entry.name, where.parent / entry.name, _song_request(entry, where))
        except UsageError as error:
            wrong.append(error.message)
    return songs


def _song_request(entry: document.Entry, where: Path) -> Request:
    """Read the request of one song's entry. Raises `UsageError` with every problem."""
    values: dict[str, tuple[Any, str]] = {}
    wrong: list[str] = []
    if entry.entries is None and (entry.raw is not None or entry.problem is not None):
        raise UsageError(f"{where}:{entry.line}: {entry.name}: is a map, with {', '.join(metadata.KEYS)} below it")
    for key in document.refuse_duplicates(entry.entries or (), where, wrong):
        place = f"{where}:{key.line}: {key.name}"
        if key.name not in metadata.KEYS:
            wrong.append(f"{place}: is not a key of a song to learn from{suggestion(key.name, metadata.KEYS)}")
        elif key.problem is not None:
            wrong.append(f"{place}: {key.problem}")
        else:
            values[key.name] = (key.raw, place)
    if wrong:
        raise UsageError("\n".join(wrong))
    return request_of(values)


def request_of(values: Mapping[str, tuple[Any, str]]) -> Request:
    """Return the request of values as written, each with its place for messages. Raises `UsageError` with every
    problem.
    """
    layer = spec_layers.Layer(
        Path(), {key: spec_layers.WrittenValue(raw, place, place) for key, (raw, place) in values.items()}
    )
    return spec.resolve(layer).request


@dataclass(frozen=True)
class RecordingFacts:
    """The measurements of a recording."""

    seconds: float
    rate: int
    #: A hash of the samples, which other tags do not change.
    fingerprint: str
    #: The number of clipped crests.
    clipped: int
    warnings: tuple[str, ...] = ()


def read_recording(path: Path) -> RecordingFacts:
    """Measure a recording, a second at a time. Raises `SourceError` for one that cannot be used."""
    crests = measure.ClipCounter()
    survey = decode.survey_file(path, each_block=crests.add)
    return RecordingFacts(
        seconds=survey.seconds,
        rate=survey.rate,
        fingerprint=survey.sound,
        clipped=crests.count,
        warnings=survey.warnings,
    )


@dataclass(frozen=True)
class UsableSong:
    """A song that can be trained on, and the measurements of its recording."""

    song: DatasetSong
    facts: RecordingFacts


@dataclass(frozen=True)
class Inspection:
    """The result of inspecting a data set: songs to train on, errors of the others, and remarks."""

    usable: tuple[UsableSong, ...] = ()
    problems: tuple[AceStepError, ...] = ()
    remarks: tuple[str, ...] = field(default=())

    def with_labels(self, dataset: Dataset) -> Inspection:
        """Return the inspection with the labelled songs of `dataset`; a song without a caption and a trigger word
        becomes a problem.
        """
        songs = {song.name: song for song in dataset.songs}
        labelled = [replace(usable, song=songs[usable.song.name]) for usable in self.usable]
        nameless = [
            UsageError(f"{usable.song.path} has no caption, and there is no trigger word (--name), so it has no text.")
            for usable in labelled
            if not dataset.caption(usable.song)
        ]
        without_caption = [
            SongRemark(usable.song.name, "has no caption: it is trained with the trigger word alone")
            for usable in labelled
            if usable.song.request.caption is None and dataset.trigger is not None
        ]
        return Inspection(
            usable=tuple(usable for usable in labelled if dataset.caption(usable.song)),
            problems=(*self.problems, *nameless),
            remarks=(*self.remarks, *joined_remarks(without_caption)),
        )


def inspect_songs(dataset: Dataset, shortest: float, longest: float, progress: Progress) -> Inspection:
    """Measure every song. One under `shortest` seconds, or the same recording as another, is a problem; one over
    `longest` seconds a remark.
    """
    usable: dict[str, UsableSong] = {}
    problems: list[AceStepError] = list(dataset.problems)
    remarks = [
        SongRemark(name, f"is in {dataset.folder} and not in its {DATASET_FILE}; it is left out")
        for name in dataset.strays
    ]
    for number, song in enumerate(dataset.songs):
        progress(number, len(dataset.songs))
        try:
            facts = read_recording(song.path)
            if facts.seconds < shortest:
                raise SourceError(f"{song.path} is {facts.seconds:.1f} s long, and at least {shortest:g} s are needed.")
            if (twin := usable.get(facts.fingerprint)) is not None:
                raise SourceError(f"{song.path} is the same recording as {twin.song.path}.")
        except AceStepError as error:
            problems.append(error)
            continue
        usable[facts.fingerprint] = UsableSong(song, facts)
        remarks += song_remarks(song, facts, longest)
    progress(len(dataset.songs), len(dataset.songs))
    songs = tuple(usable.values())
    return Inspection(songs, tuple(problems), (*joined_remarks(remarks), *dataset_remarks(songs)))


class SongRemark(NamedTuple):
    """A remark on a song, as a sentence about it without its name and full stop; `detail` is of that song alone."""

    song: str
    text: str
    detail: str | None = None

    @property
    def alone(self) -> str:
        return f"{self.song} {self.text}{f' ({self.detail})' if self.detail else ''}."


def joined_remarks(remarks: Iterable[SongRemark]) -> list[str]:
    """Return remarks as sentences: one for all songs of which the same is said, with the first of their names."""
    alike: dict[str, list[SongRemark]] = {}
    for remark in remarks:
        alike.setdefault(remark.text, []).append(remark)
    found = []
    for text, of_songs in alike.items():
        if len(of_songs) == 1:
            found.append(of_songs[0].alone)
            continue
        named = [f"{one.song}: {one.detail}" if one.detail else one.song for one in of_songs[:NAMED_SONGS]]
        more = ", …" if len(of_songs) > NAMED_SONGS else ""
        found.append(f"Each of {len(of_songs)} songs {text} ({', '.join(named)}{more}).")
    return found


def song_remarks(song: DatasetSong, facts: RecordingFacts, longest: float) -> Iterable[SongRemark]:
    """Yield remarks on one song."""
    for warning in facts.warnings:  # which name the file first
        yield SongRemark(song.name, warning.removeprefix(str(song.path)).strip(" :").rstrip("."))
    if facts.clipped:
        yield SongRemark(
            song.name, "is clipped, which is learnt too", f"{facts.clipped} crest{'s' * (facts.clipped > 1)}"
        )
    if facts.seconds > longest:
        words = " with all of its lyrics" if song.request.lyrics else ""
        part = decode.format_time(longest)
        yield SongRemark(
            song.name, f"is trained in parts of {part}{words}", f"{decode.format_time(facts.seconds)} long"
        )
    for remark in pace.hurried(linted_song.LintedSong(song.request, facts.seconds)):
        yield SongRemark(song.name, "has lyrics that are longer than can be sung", remark.text)


def dataset_remarks(songs: tuple[UsableSong, ...]) -> Iterable[str]:
    """Yield remarks on all songs together."""
    if 0 < len(songs) < FEWEST_SONGS:
        yield f"From {FEWEST_SONGS} songs on, an adapter learns their style; from {len(songs)}, rather the songs."
    rates = Counter(usable.facts.rate for usable in songs)
    if len(rates) > 1:
        counts = ", ".join(f"{count} at {rate} Hz" for rate, count in rates.most_common())
        yield f"The recordings have several sample rates ({counts}); a low one sounds dull, which is learnt too."


def refuse_unusable(found: Inspection, folder: Path, *, skip: bool, warn: Say) -> None:
    """Raise an error with all songs that cannot be trained on; with `skip` warn of them instead. Raises `SourceError`
    where no song is left.
    """
    if found.problems and not skip:
        error = combine_errors(list(found.problems))
        error.hint = "--skip-bad trains on the others." if found.usable else error.hint
        raise error
    for problem in found.problems:
        warn(f"{problem.message} It is left out.")
    if not found.usable:
        raise SourceError(f"No song in {folder} can be trained on.")


def fingerprints(dataset: Dataset, songs: Iterable[UsableSong]) -> dict[str, str]:
    """Return for each song, by name, a hash of its sound and prompts: all of it that the training depends on."""
    found = {}
    for usable in songs:
        content = "\0".join((usable.facts.fingerprint, *dataset.prompts(usable.song, usable.facts.seconds)))
        found[usable.song.name] = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]
    return found


def dataset_fingerprint(prints: Mapping[str, str]) -> str:
    """Return one hash for the whole data set, whatever the names of its songs."""
    return hashlib.sha256(" ".join(sorted(prints.values())).encode()).hexdigest()[:16]


def describe_changes(now: Mapping[str, str], before: Mapping[str, str]) -> str | None:
    """Describe the songs of a data set that differ from `before`; None where none does."""
    gone, new = sorted(before.keys() - now.keys()), sorted(now.keys() - before.keys())
    changed = sorted(name for name in now.keys() & before.keys() if now[name] != before[name])
    parts = [f"{', '.join(map(quoted, names))} {change}"
             for names, change in ((gone, "left out"), (new, "added"), (changed, "changed")) if names]  # fmt: skip
    return "; ".join(parts) or None
