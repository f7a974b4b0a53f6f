"""What lies beside a recording and tells of it, in every convention that is about: texts, specs, lyrics with time
stamps, tables and lists.

Conventions: `songwriter-and-lora.md` 5.1 and 5.2 of the specification, and the tables of Hugging Face's audiofolder
(https://huggingface.co/docs/datasets/audio_dataset). Each is one row of `READERS`; what is read are keys of a song spec
with values as their kinds read them. A value that cannot be read is left out and told of, and no other for its sake.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acestep_cli.audio import lrc
from acestep_cli.errors import UsageError
from acestep_cli.song import document, spec
from acestep_cli.song.prompts import INSTRUMENTAL

#: The keys of a song that a recording is described by.
KEYS = ("caption", "lyrics", "instrumental", "language", "bpm", "key", "time_signature")
#: What others call them.
KEY_NAMES: Mapping[str, str] = {
    **{name: name for name in KEYS},
    **{name: key for name, key in spec.OTHER_NAMES.items() if key in KEYS},
    "signature": "time_signature",
    "time signature": "time_signature",
    "is_instrumental": "instrumental",
}
#: What the columns of tables are called besides.
COLUMN_NAMES: Mapping[str, str] = {**KEY_NAMES, "text": "caption", "description": "caption", "transcription": "lyrics"}
#: What texts tell besides, of which nothing is learnt; a caption, where there is no other, is the genre.
IGNORED_NAMES = ("genre", "title", "artist", "album", "year", "duration", "custom_tag", "trigger", "filename", "repeat")
#: The columns of a table that name the recording, the best first.
FILE_COLUMNS = ("file_name", "filename", "audio_path", "file", "audio", "path")
#: Words for nothing known.
EMPTY_VALUES = ("", "n/a", "nan", "unknown", "none", "null")
ANY_NAME = "|".join(sorted((re.escape(name) for name in (*KEY_NAMES, *IGNORED_NAMES)), key=len, reverse=True))
#: A line of `key: value`, as some write all they know into one text.
LABELLED_LINE = re.compile(rf"^\s*({ANY_NAME})\s*:[ \t]*(.*)$", re.IGNORECASE)
#: `<KEY>value</KEY>`, as others do; the next one ends one that is not closed.
MARKED_VALUE = re.compile(rf"<({ANY_NAME})>(.*?)(?:</\1>|(?=<(?:{ANY_NAME})>)|\Z)", re.IGNORECASE | re.DOTALL)
#: What YAML has behind the colon where the lines of a text follow.
BLOCK = re.compile(r"[|>][+-]?\d?[+-]?")
TEMPO = re.compile(r"(?:~|≈|ca?\.?\s|circa\s)?\s*(\d{1,6}(?:[.,]\d+)?)\s*(?:bpm|beats per minute)?", re.IGNORECASE)
SCALE_NAMES = {"moll": "minor", "dur": "major"}
SCALE = re.compile(r"[\s_-]*\b(moll|dur|minor|major)\Z", re.IGNORECASE)
CAMELOT = re.compile(r"(1[0-2]|[1-9])([AB])", re.IGNORECASE)
NOTE = re.compile(r"[A-Ga-g][#b♯♭]?")
#: The wheel by number: its minor keys (A) and its major ones (B).
CAMELOT_WHEEL = {
    "A": ["Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "Db"],
    "B": ["B", "F#", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E"],
}

Metadata = dict[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """What stands beside songs and cannot be read: its place, and the reason.

    `song` is the name of the recording in the data set, None where it is not of one; `key` the key that stays open.
    """

    where: str
    reason: str
    key: str | None = None
    song: str | None = None

    def __str__(self) -> str:
        of_song = "" if self.song is None else f"{self.song}: "
        return f"{of_song}{self.where}: {self.reason}; {self.key or 'this'} is left out."

    def report(self) -> dict[str, str | None]:
        """The entry of `--json`."""
        return {"song": self.song, "key": self.key, "where": self.where, "reason": self.reason}


@dataclass
class Tables:
    """What the lists and tables of one folder tell, by recording, and of all songs; and what could not be read."""

    folder: Path
    songs: dict[str, Metadata] = field(default_factory=dict)
    shared: Metadata = field(default_factory=dict)
    #: Of one song, by recording, and of none.
    left_out: dict[str, list[LeftOut]] = field(default_factory=dict)
    unread: list[LeftOut] = field(default_factory=list)

    def add(self, written: object, values: Mapping[str, Any], where: str) -> None:
        """Take what a row tells of the recording that it names, over what is told of it so far."""
        name = recording_of(self.folder, str(written))
        self.songs[name] = merge(
            self.songs.get(name, {}), translate_keys(values, where, self.left_out.setdefault(name, []), COLUMN_NAMES)
        )

    def metadata_of(self, recording: Path) -> tuple[Metadata, list[LeftOut]]:
        """What is told of a recording, named with its suffix or without."""
        name = recording.relative_to(self.folder).as_posix()
        for one in (name, name.removesuffix(recording.suffix)):
            if one in self.songs:
                return self.songs[one], self.left_out[one]
        return {}, []


def recording_of(folder: Path, written: str) -> str:
    """The path within `folder` that a table means: as written where that is there, else the last part of it.

    Tables come along from other places, with paths of those.
    """
    name = written.strip().replace("\\", "/")
    try:
        inside = os.path.relpath(folder / name, folder).replace(os.sep, "/")
        if (folder / name).is_file() and not inside.startswith("../"):
            return inside
    except (OSError, ValueError):  # too long for a file's name, or on another drive
        pass
    return name.rpartition("/")[2]


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> Metadata:
    """What two tell of one recording: the upper one where both do. Lyrics and instrumental answer one question."""
    answer = ("lyrics", "instrumental")
    settled = any(key in upper for key in answer)
    return {key: value for key, value in lower.items() if not (settled and key in answer)} | dict(upper)


def read_metadata(recording: Path, tables: Iterable[Tables], left_out: list[LeftOut]) -> Metadata:
    """All that is told of a recording; who comes later in `READERS` knows better, and so does the later one of
    `tables`, which come after the song's own `.json`. What cannot be read is added to `left`.
    """
    found: Metadata = {}
    for suffix, read in READERS.items():
        for file in (recording.with_name(recording.stem + suffix), recording.with_name(recording.name + suffix)):
            if file.is_file():
                try:
                    found = merge(found, read(file, left_out))
                except ValueError as error:
                    left_out.append(LeftOut(str(file), str(error), UNREADABLE_KEY.get(suffix)))
        if suffix == ".json":
            for table in tables:
                values, unread = table.metadata_of(recording)
                found = merge(found, values)
                left_out += unread
    return found


def read_text(file: Path) -> str:
    """`ValueError` with the reason for what is no text."""
    return spec.read_text(str(file))


def translate_keys(
    values: Mapping[str, Any], where: object, left_out: list[LeftOut], names: Mapping[str, str] = KEY_NAMES
) -> Metadata:
    """What others wrote under their `names` as ours, without what says nothing.

    What its kind cannot read is added to `left`, with the place `where` it stands.
    """
    written: dict[str, tuple[str, Any]] = {}
    for name, value in values.items():
        word = str(name).strip().casefold()
        key = names.get(word)
        if key is None or is_empty(key, value) or (key in written and word != key):  # its own name knows better
            continue
        written[key] = (str(name).strip(), normalize(key, value))
    found: Metadata = {}
    for key, (name, value) in written.items():
        if key == "lyrics" and str(value).strip().casefold() in (INSTRUMENTAL.casefold(), "[inst]"):
            found["instrumental"] = True
            continue
        try:
            found[key] = spec.KEYS[key].kind.read(value)
        except ValueError as error:
            left_out.append(LeftOut(f"{where}: {name}", str(error), key))
    if "lyrics" in found:
        found.pop("instrumental", None)  # there are words after all
        found["lyrics"] = f"{found['lyrics'].strip()}\n"
    return found


def is_empty(key: str, value: Any) -> bool:
    """Whether a value stands for none: some write a tempo of 0 for one that is not known."""
    return (
        value is None or value == [] or str(value).strip().casefold() in EMPTY_VALUES or (key == "bpm" and value == 0)
    )


def normalize(key: str, value: Any) -> Any:
    """A value as its kind reads it, where it can be understood; else as it is, which its kind refuses."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):  # tags, or lines
        value = {"caption": ", ", "lyrics": "\n"}[key].join(value) if key in ("caption", "lyrics") else value
    if isinstance(value, float) and value.is_integer() and key == "time_signature":
        value = int(value)
    word = value.strip() if isinstance(value, str) else value
    match key:
        case "bpm":
            return round_bpm(word)
        case "key":
            return respell_key(str(word))
        case "time_signature":
            return re.sub(r"\s*time\Z", "", str(word), flags=re.IGNORECASE).removesuffix(".0")
        case "instrumental":
            return {"1": True, "0": False, "1.0": True, "0.0": False}.get(str(word), word)
    return word


def round_bpm(bpm: Any) -> Any:
    """A tempo of analysers, which have decimals, or with its unit, as a whole number."""
    found = TEMPO.fullmatch(str(bpm).strip())
    return bpm if found is None or isinstance(bpm, bool) else round(float(found[1].replace(",", ".")))


def respell_key(key: str) -> str:
    """A key in Camelot's numbers, or a bare note for its major, in words."""
    key = SCALE.sub(lambda found: f" {SCALE_NAMES.get(found[1].casefold(), found[1])}", key.replace("_", " "))
    if found := CAMELOT.fullmatch(key):
        return f"{CAMELOT_WHEEL[found[2].upper()][int(found[1]) - 1]} {'minor' if found[2].upper() == 'A' else 'major'}"
    return f"{key} major" if NOTE.fullmatch(key) else key


def read_lyrics(file: Path, left: list[LeftOut]) -> Metadata:
    whole = read_text(file)
    return translate_keys(parse_marks(whole, "lyrics") or {"lyrics": whole}, file, left)


def read_caption(file: Path, left: list[LeftOut]) -> Metadata:
    whole = read_text(file)
    told = parse_marks(whole, "caption") or {"caption": whole}
    return translate_keys({name: " ".join(part.split()) if KEY_NAMES.get(name) == "caption" else part
                  for name, part in told.items()}, file, left)  # fmt: skip


def read_song_text(file: Path, left: list[LeftOut]) -> Metadata:
    """Lyrics; or all that is known: in `<KEY>` marks, as JSON, or in `key: value` lines, of which lyrics go on until
    the next key.
    """
    whole = read_text(file)
    told = parse_marks(whole, "lyrics") or parse_json_object(whole) or parse_labelled_lines(whole) or {"lyrics": whole}
    return translate_keys(told, file, left)


def with_genre_as_caption(told: dict[str, Any]) -> dict[str, Any]:
    """The same, with its genre for a caption unless it has one."""
    has_caption = any(KEY_NAMES.get(name) == "caption" and not is_empty("caption", told[name]) for name in told)
    return told if has_caption or "genre" not in told else {**told, "caption": told["genre"]}


def parse_marks(text: str, rest: str) -> dict[str, Any]:
    """What a text tells in `<KEY>` marks at its beginning; what stands outside of them is the `rest`."""
    if not MARKED_VALUE.match(text.lstrip()):
        return {}
    told = {found[1].casefold(): found[2].strip() for found in MARKED_VALUE.finditer(text)}
    outside = MARKED_VALUE.sub("", text).strip()
    if outside and not any(KEY_NAMES.get(name) == rest for name in told):
        told[rest] = outside
    return with_genre_as_caption(told)


def parse_json_object(text: str) -> dict[str, Any]:
    """What a text tells that is an object of JSON."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def parse_labelled_lines(text: str) -> dict[str, Any]:
    """What a text tells in `key: value` lines, or as YAML where it has the lines of a text after `|`."""
    lines = text.splitlines()
    is_markdown = document.is_markdown(text)
    first = next((line for line in lines if line.strip()), "")
    if not LABELLED_LINE.match(first) and not is_markdown:
        return {}
    if is_markdown or any((match := LABELLED_LINE.match(line)) and BLOCK.fullmatch(match[2].strip()) for line in lines):
        content = document.parse_document(text, markdown=is_markdown)
        if not content.problems and not any(entry.problem for entry in content.entries):
            return with_genre_as_caption({entry.name.casefold(): entry.raw for entry in content.entries})
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    goes_on, key = rest, ""
    for line in lines:
        if match := LABELLED_LINE.match(line):
            key = KEY_NAMES.get(match[1].casefold(), "")
            value = found[match[1].casefold()] = [] if BLOCK.fullmatch(match[2].strip()) else [match[2]]
            goes_on = value if key in ("caption", "lyrics") else rest  # all else is said in one line
        elif goes_on is not rest and key == "caption" and line.lstrip().startswith("["):  # as `[Verse]`
            goes_on = rest
            rest.append(line)
        else:
            goes_on.append(line)
    told: dict[str, Any] = {name: textwrap.dedent("\n".join(part)).strip() for name, part in found.items()}
    if (unnamed := "\n".join(rest).strip()) and not any(KEY_NAMES.get(name) == "lyrics" for name in told):
        told["lyrics"] = unnamed
    return with_genre_as_caption(told)


def read_timed_lyrics(file: Path, left: list[LeftOut]) -> Metadata:
    """Lyrics without their time stamps."""
    return translate_keys({"lyrics": "\n".join(line.text for line in lrc.parse_lrc(read_text(file)))}, file, left)


def read_spec(file: Path, left: list[LeftOut]) -> Metadata:
    """A spec, or the sidecar of a render: what it says of a song, whatever else it asks for."""
    layers = [
        replace(layer, values={name: value for name, value in layer.values.items() if name in (*KEYS, "lyrics_file")})
        for layer in spec.read_layers(file)
    ]
    for layer in layers:
        left += [LeftOut(str(file), without_path(file, problem)) for problem in layer.problems]
    layers = [replace(layer, problems=()) for layer in layers]
    while True:
        try:
            request = spec.resolve(*layers).request
        except UsageError as error:
            wrong = {
                value.where: (name, line)
                for line in error.message.splitlines()
                for layer in layers
                for name, value in layer.values.items()
                if line.startswith(f"{value.where}:")
            }
            if not wrong:
                raise ValueError(without_path(file, error.message)) from error
            left += [LeftOut(str(file), without_path(file, line), "lyrics" if name == "lyrics_file" else name)
                     for name, line in wrong.values()]  # fmt: skip
            layers = [
                replace(layer, values={name: value for name, value in layer.values.items() if value.where not in wrong})
                for layer in layers
            ]
        else:
            return {key: value for key in KEYS if (value := getattr(request, key)) is not None}


def without_path(file: Path, problem: str) -> str:
    """A problem without the name of the file that it begins with."""
    return problem.removeprefix(str(file)).removeprefix(": ")


def read_song_json(file: Path, left: list[LeftOut]) -> Metadata:
    """One song's JSON; a list is seen to with those of its folder."""
    content = load_json_file(file)
    if isinstance(content, list) or (isinstance(content, dict) and isinstance(content.get("samples"), list)):
        return {}
    if not isinstance(content, dict):
        raise ValueError("is neither a map of keys nor a list of songs")
    return translate_keys(content, file, left)


def load_json_file(file: Path) -> Any:
    return load_json(read_text(file))


def load_json(text: str) -> Any:
    """`ValueError` with the reason for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error


Reader = Callable[[Path, list[LeftOut]], Metadata]

#: By the end of the name behind that of the recording, with or without its own suffix; the last one wins.
READERS: Mapping[str, Reader] = {
    ".json": read_song_json,
    ".lrc": read_timed_lyrics,
    ".txt": read_song_text,
    "_lyrics.txt": read_lyrics,
    ".lyrics.txt": read_lyrics,
    "_prompt.txt": read_caption,
    ".prompt.txt": read_caption,
    "_caption.txt": read_caption,
    ".caption.txt": read_caption,
    ".md": read_spec,
    ".yml": read_spec,
    ".yaml": read_spec,
}
#: The key that stays open where a whole file cannot be read.
UNREADABLE_KEY: Mapping[str, str] = {
    suffix: "lyrics" if reader in (read_timed_lyrics, read_song_text, read_lyrics) else "caption"
    for suffix, reader in READERS.items()
    if reader in (read_timed_lyrics, read_song_text, read_lyrics, read_caption)
}
#: Lists and tables by suffix; the last one wins.
TABLE_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")


def read_tables(folder: Path) -> Tables:
    """What the lists and tables in `folder` tell. Tables overrule lists."""
    found = Tables(folder)
    there = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file())
    for suffix in TABLE_SUFFIXES:
        for file in (file for file in there if file.suffix.lower() == suffix):
            try:
                if suffix == ".json":
                    read_json_list(file, found)
                elif suffix == ".jsonl":
                    read_json_lines(file, found)
                else:
                    read_csv(file, found)
            except (ValueError, csv.Error) as error:
                found.unread.append(LeftOut(str(file), str(error)))
    found.unread += [LeftOut(str(file), "is a Parquet table, which is not read here; metadata.csv would be")
                     for file in there if file.name.lower() == "metadata.parquet"]  # fmt: skip
    return found


def read_json_list(file: Path, into: Tables) -> None:
    """What a list tells of songs, and of all of them; nothing where it is one song's own."""
    content = load_json_file(file)
    samples = content.get("samples") if isinstance(content, dict) else content
    if not isinstance(samples, list):
        return
    about = content.get("metadata") if isinstance(content, dict) else None
    if isinstance(about, dict):
        pairs = (("trigger", about.get("custom_tag")), ("trigger_position", about.get("tag_position")))
        into.shared |= {name: (value, file) for name, value in pairs if value}
    for number, sample in enumerate(samples, start=1):
        if isinstance(sample, dict) and (name := file_name_in(sample)):
            into.add(name, with_raw_lyrics(sample), f"{file}, item {number}")


def with_raw_lyrics(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """A sample whose lyrics, where it has none, are those as they were before another trainer set them."""
    raw = sample.get("raw_lyrics")
    return {**sample, "lyrics": raw} if raw and not sample.get("lyrics") else sample


def read_json_lines(file: Path, into: Tables) -> None:
    """What a file tells that has an object of JSON in each line, as Hugging Face's `metadata.jsonl`."""
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = load_json(line)
        except ValueError as error:
            into.unread.append(LeftOut(f"{file}:{number}", str(error)))
            continue
        if isinstance(row, dict) and (name := file_name_in(row)):
            into.add(name, with_raw_lyrics(row), f"{file}:{number}")


def file_name_in(row: Mapping[str, Any]) -> str:
    """The recording that a row names; empty where it names none."""
    return next((name for column in FILE_COLUMNS if isinstance(name := row.get(column), str) and name.strip()), "")


def read_csv(file: Path, into: Tables) -> None:
    """The rows of a table with a column that names recordings; its delimiter is found out."""
    content = read_text(file)
    first = content.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=max(",;\t", key=first.count))
    for row in reader:
        told = {str(name).strip().casefold(): value for name, value in row.items() if name is not None}
        if told.get("camelot") and not told.get("key"):
            told["key"] = told["camelot"]
        if name := file_name_in(told):
            into.add(name, told, f"{file}:{reader.line_num}")
