"""The songs that an adapter is trained on: found in a folder, described in one `dataset.yaml` that a person edits and
the training obeys, and looked through for what would spoil it.

`songwriter-and-lora.md` 5.1 to 5.4 of the specification tells what other trainers read and where they went wrong.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acestep_cli import disk
from acestep_cli.audio import decode, encode, measure
from acestep_cli.errors import AceStepError, SourceError, UsageError, combine_errors
from acestep_cli.progress import Progress, Say
from acestep_cli.song import document, modes, prompts, spec
from acestep_cli.song.lint import lyrics
from acestep_cli.song.request import Request
from acestep_cli.song.values import Choice, Kind, Tag, quoted, suggestion
from acestep_cli.training import metadata
from acestep_cli.training.metadata import LeftOut

DATASET_FILE = "dataset.yaml"
SUFFIXES = tuple(f".{suffix}" for suffix in encode.FORMATS)
#: Where the trigger word stands: before the caption, after it, or in its place.
POSITIONS = ("prepend", "append", "replace")
SETTINGS: Mapping[str, Kind] = {"trigger": Tag(), "trigger_position": Choice(POSITIONS)}
#: With fewer songs an adapter learns the songs rather than their style.
FEWEST_SONGS = 8
NOTE = """\
# The songs of an adapter. Mend what is wrong, then: acestep train-lora {folder} -o my-sound/
# Keys of a song: caption, lyrics, instrumental, language, bpm, key, time_signature; delete a song and it is left out.
"""


@dataclass(frozen=True)
class DatasetSong:
    """One recording and what it is. `name` is its path within the data set, with / on every system."""

    name: str
    path: Path
    request: Request

    def with_labels(self, labels: Mapping[str, Any]) -> DatasetSong:
        """With what was found out of what nobody had said."""
        known = self.request.model_dump(exclude_none=True)
        answer = ("lyrics", "instrumental")  # to one question
        if any(key in known for key in answer):
            labels = {key: value for key, value in labels.items() if key not in answer}
        return replace(self, request=Request(**{**labels, **known}))


@dataclass(frozen=True)
class Dataset:
    """Songs, and the word that calls up their sound. `problems` are songs that cannot be trained on, each with why."""

    folder: Path
    songs: tuple[DatasetSong, ...]
    trigger: str | None = None
    trigger_position: str = POSITIONS[0]
    problems: tuple[AceStepError, ...] = ()
    #: Recordings in the folder that its `dataset.yaml` does not name.
    strays: tuple[str, ...] = ()
    #: What stands beside the songs and could not be read.
    left_out: tuple[LeftOut, ...] = ()

    def with_labels_of(self, other: Dataset) -> Dataset:
        """With what `other` says of the same songs, and the trigger word and its place, where this says nothing."""
        labels = {song.name: song.request.model_dump(exclude_none=True) for song in other.songs}
        songs = tuple(song.with_labels(labels.get(song.name, {})) for song in self.songs)
        head = {} if self.trigger is not None else {name: getattr(other, name) for name in SETTINGS}
        return replace(self, songs=songs, **head)

    def caption(self, song: DatasetSong) -> str:
        """What a song is said to be, its trigger word included."""
        own = song.request.caption
        if self.trigger is None or own is None or self.trigger_position == "replace":
            return self.trigger or own or ""
        return f"{self.trigger}, {own}" if self.trigger_position == "prepend" else f"{own}, {self.trigger}"

    def prompts(self, song: DatasetSong, seconds: float) -> tuple[str, str]:
        """The text prompt and the lyric prompt of `seconds` of a song: those of a render of it."""
        request = song.request.model_copy(update={"caption": self.caption(song)})
        return prompts.prompts_of(request, modes.FILL_MASK, seconds)

    def dump(self) -> str:
        """The text of its `dataset.yaml`."""
        head = {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}
        wordless = {one.song for one in self.left_out if one.key == "lyrics"}
        songs = {song.name: song_keys(song.request) for song in self.songs}
        for song in self.songs:
            if song.name in wordless and song.request.instrumental is None:
                songs[song.name].pop("instrumental", None)  # there are words, which could not be read
        note = NOTE.format(folder=self.folder)
        if self.left_out:
            note += "# Left out, for it cannot be read; what is open of a song is written below its name:\n"
            note += "".join(f"#   {as_comment(str(one))}\n" for one in self.left_out)
        return note + document.dump_yaml({**head, "songs": songs})


def as_comment(text: str) -> str:
    """`text` as it can stand behind a `#`: on one line, of signs that YAML allows."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(text.split()))


def song_keys(request: Request) -> dict[str, Any]:
    """A song's keys with their values; one without words says so."""
    found = {key: value for key in metadata.KEYS if (value := getattr(request, key)) is not None}
    return found if "lyrics" in found else {**found, "instrumental": True}


def audio_files(folder: Path) -> dict[str, Path]:
    """The audio files in `folder` and the folders in it, by name. `SourceError` where there are none."""
    try:
        if not folder.is_dir():
            what = "not a folder" if disk.is_taken(folder) else "not there"
            raise SourceError(f"{folder} is {what}; songs are learnt from a folder.")
        next(folder.iterdir(), None)  # which says what rglob keeps to itself
        files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    except OSError as error:
        raise decode.unreadable_error(folder, error) from error
    hidden = [path for path in files if any(part.startswith(".") for part in path.relative_to(folder).parts)]
    found = {path.relative_to(folder).as_posix(): path for path in files if path not in hidden}
    if not found:
        raise SourceError(
            f"{folder} holds no audio ({', '.join(encode.FORMATS)}).", "Put 8 to 20 songs of one style into it."
        )
    return found


def load_dataset(folder: Path) -> Dataset:
    """The data set of a folder: as its `dataset.yaml` has it, else as `scan` finds it."""
    return (
        parse_dataset(spec.read_text(str(folder / DATASET_FILE)), folder)
        if (folder / DATASET_FILE).is_file()
        else scan_folder(folder)
    )


def scan_folder(folder: Path) -> Dataset:
    """The recordings in a folder, with what lies beside them, but for what cannot be read there: `left_out` has it."""
    found = audio_files(folder)
    places = {place for path in found.values() for place in path.parents if place.is_relative_to(folder)}
    tables = {place: metadata.read_tables(place) for place in sorted(places)}  # the outer ones first
    songs = []
    left_out = []
    for name, path in found.items():
        left: list[LeftOut] = []
        told = metadata.read_metadata(path, [one for place, one in tables.items() if path.is_relative_to(place)], left)
        songs.append(
            DatasetSong(name, path, request_of({key: (value, f"{name}: {key}") for key, value in told.items()}))
        )
        left_out += [replace(one, song=name) for one in left]
    told_of = {(one.where, one.reason) for one in left_out}  # a song's own list is met twice
    left_out += [one for table in tables.values() for one in table.unread if (one.where, one.reason) not in told_of]
    head = {}
    for name, (value, file) in {key: value for table in tables.values() for key, value in table.shared.items()}.items():
        try:
            head[name] = SETTINGS[name].read(value)
        except ValueError as error:
            left_out.append(LeftOut(f"{file}: {'custom_tag' if name == 'trigger' else 'tag_position'}", str(error)))
    return Dataset(folder, tuple(songs), left_out=tuple(dict.fromkeys(left_out)), **head)


def rescan_folder(folder: Path) -> Dataset:
    """As `scan` finds it; what that leaves open is as in its `dataset.yaml`, unless that names no songs."""
    found = scan_folder(folder)
    try:
        again = found.with_labels_of(load_dataset(folder))
    except SourceError:
        return found
    given = {(song.name, key) for song in again.songs for key in metadata.KEYS
             if getattr(song.request, key) is not None}  # fmt: skip
    return replace(again, left_out=tuple(one for one in again.left_out if (one.song, one.key) not in given))


def parse_dataset(text: str, folder: Path) -> Dataset:
    """Read the text of a `dataset.yaml` whose songs lie in `folder`.

    `UsageError` names every problem of it with its line; a song that is not there is a problem of its own.
    """
    where = folder / DATASET_FILE
    content = document.parse_document(text, markdown=False)
    wrong = [f"{where}{problem}" for problem in content.problems]
    head: dict[str, Any] = {}
    songs: dict[str, DatasetSong] = {}
    for entry in document.refuse_duplicates(content.entries, where, wrong):
        place = f"{where}:{entry.line}: {entry.name}"
        if entry.name in SETTINGS:
            if entry.raw is not None or entry.problem is not None:
                try:
                    if entry.problem is not None:
                        raise ValueError(entry.problem)
                    head[entry.name] = SETTINGS[entry.name].read(entry.raw)
                except ValueError as error:
                    wrong.append(f"{place}: {error}")
        elif entry.name != "songs":
            wrong.append(f"{place}: is not a key of a data set{suggestion(entry.name, (*SETTINGS, 'songs'))}")
        elif entry.entries is None:
            wrong.append(f"{place}: is a map, with the names of recordings below it")
        else:
            for one in document.refuse_duplicates(entry.entries, where, wrong):
                try:
                    songs[one.name] = DatasetSong(one.name, folder / one.name, _song_request(one, where))
                except UsageError as error:
                    wrong.append(error.message)
    if wrong:
        raise UsageError("\n".join(wrong))
    if not songs:
        raise SourceError(f"{where} names no songs.", f"acestep train-lora {folder} --scan-only --force finds them.")
    there = audio_files(folder)
    gone = [name for name in songs if name not in there]
    problems = [SourceError(f"{songs.pop(name).path} is not there, and {DATASET_FILE} names it.") for name in gone]
    strays = tuple(name for name in there if name not in songs)
    return Dataset(folder, tuple(songs.values()), problems=tuple(problems), strays=strays, **head)


def _song_request(entry: document.Entry, where: Path) -> Request:
    """The request of one song's entry."""
    values: dict[str, tuple[Any, str]] = {}
    wrong: list[str] = []
    if entry.entries is None and (entry.raw is not None or entry.problem is not None):
        raise UsageError(f"{where}:{entry.line}: {entry.name}: is a map, with {', '.join(metadata.KEYS)} below it")
    for one in document.refuse_duplicates(entry.entries or (), where, wrong):
        place = f"{where}:{one.line}: {one.name}"
        if one.name not in metadata.KEYS:
            wrong.append(f"{place}: is not a key of a song to learn from{suggestion(one.name, metadata.KEYS)}")
        elif one.problem is not None:
            wrong.append(f"{place}: {one.problem}")
        else:
            values[one.name] = (one.raw, place)
    if wrong:
        raise UsageError("\n".join(wrong))
    return request_of(values)


def request_of(values: Mapping[str, tuple[Any, str]]) -> Request:
    """The request of values as they were written, each with its place for messages. `UsageError` names them all."""
    layer = spec.Layer(Path(), {key: spec.WrittenValue(raw, place, place) for key, (raw, place) in values.items()})
    return spec.resolve(layer).request


@dataclass(frozen=True)
class RecordingFacts:
    """What one listening to a recording told: the fingerprint is of its samples, so that the same recording under other
    tags is the same; `clipped` counts the crests that are cut off.
    """

    seconds: float
    rate: int
    fingerprint: str
    clipped: int
    warnings: tuple[str, ...] = ()


def read_recording(path: Path) -> RecordingFacts:
    """Read a recording to its end, a second at a time. `SourceError` for what cannot be worked on."""
    crests = measure.ClipCounter()
    found = decode.survey_file(path, hear=crests.add)
    return RecordingFacts(found.seconds, found.rate, found.sound, crests.count, found.warnings)


@dataclass(frozen=True)
class UsableSong:
    """A song that was listened to and can be trained on."""

    song: DatasetSong
    facts: RecordingFacts


@dataclass(frozen=True)
class Inspection:
    """What looking through a data set found: songs to train on, what is wrong with the others, what is worth a word."""

    usable: tuple[UsableSong, ...] = ()
    problems: tuple[AceStepError, ...] = ()
    remarks: tuple[str, ...] = field(default=())

    def with_labels(self, dataset: Dataset) -> Inspection:
        """The same of songs that have their labels by now: without words to learn it by, none can be trained on."""
        songs = {song.name: song for song in dataset.songs}
        lessons = [replace(one, song=songs[one.song.name]) for one in self.usable]
        nameless = [
            UsageError(f"{one.song.path} has no caption, and no --name calls it up; there is nothing to learn it by.")
            for one in lessons
            if not dataset.caption(one.song)
        ]
        bare = [
            f"{one.song.name} has no caption: the trigger word is all it is learnt by."
            for one in lessons
            if one.song.request.caption is None and dataset.trigger is not None
        ]
        kept = tuple(one for one in lessons if dataset.caption(one.song))
        return Inspection(kept, (*self.problems, *nameless), (*self.remarks, *bare))


def inspect_songs(dataset: Dataset, shortest: float, longest: float, progress: Progress) -> Inspection:
    """Listen to every song. One under `shortest` seconds is none for this checkpoint; of one over `longest`, parts are
    trained.
    """
    usable: dict[str, UsableSong] = {}
    problems: list[AceStepError] = list(dataset.problems)
    remarks = [
        f"{name} is in {dataset.folder} and not in its {DATASET_FILE}; it is left out." for name in dataset.strays
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
    found = tuple(usable.values())
    return Inspection(found, tuple(problems), (*remarks, *dataset_remarks(found)))


def song_remarks(song: DatasetSong, facts: RecordingFacts, longest: float) -> Iterable[str]:
    """What is worth a word about one song."""
    yield from facts.warnings
    if facts.clipped:
        yield f"{song.name} is clipped at {facts.clipped} crest{'s' * (facts.clipped > 1)}, which is learnt too."
    if facts.seconds > longest:
        words = " with all of its lyrics" if song.request.lyrics else ""
        whole, part = decode.format_time(facts.seconds), decode.format_time(longest)
        yield f"{song.name} is {whole} long, and is trained in parts of {part}{words}."
    for remark in lyrics.hurried(lyrics.LintedSong(song.request, facts.seconds)):
        yield f"{song.name}: its lyrics are longer than can be sung: {remark.text}"


def dataset_remarks(songs: tuple[UsableSong, ...]) -> Iterable[str]:
    """What is worth a word about all songs together."""
    if 0 < len(songs) < FEWEST_SONGS:
        yield f"From {FEWEST_SONGS} songs on, an adapter learns their style; from {len(songs)}, rather the songs."
    rates = Counter(lesson.facts.rate for lesson in songs)
    if len(rates) > 1:
        said = ", ".join(f"{count} at {rate} Hz" for rate, count in rates.most_common())
        yield f"The recordings have several sample rates ({said}); a low one sounds dull, which is learnt too."


def refuse_unusable(found: Inspection, folder: Path, *, skip: bool, warn: Say) -> None:
    """Raise an error that names all songs that cannot be trained on; with `skip` warn of them instead, while others are
    left.
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
    """What shapes the training on each song, by name: its sound and its words."""
    found = {}
    for lesson in songs:
        content = "\0".join((lesson.facts.fingerprint, *dataset.prompts(lesson.song, lesson.facts.seconds)))
        found[lesson.song.name] = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]
    return found


def dataset_fingerprint(prints: Mapping[str, str]) -> str:
    """One hash for the whole data set, whatever its songs are called."""
    return hashlib.sha256(" ".join(sorted(prints.values())).encode()).hexdigest()[:16]


def describe_changes(now: Mapping[str, str], before: Mapping[str, str]) -> str | None:
    """What is no longer as it was in a data set, in words; None where nothing is."""
    gone, new = sorted(before.keys() - now.keys()), sorted(now.keys() - before.keys())
    other = sorted(name for name in now.keys() & before.keys() if now[name] != before[name])
    said = [f"{', '.join(map(quoted, names))} {what}"
            for names, what in ((gone, "left out"), (new, "added"), (other, "changed")) if names]  # fmt: skip
    return "; ".join(said) or None
