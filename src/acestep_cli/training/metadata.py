"""Metadata beside a recording, in every convention in use: texts, specs, lyrics with time stamps, tables and lists.

Conventions: docs/specification.md, 12.7 Descriptions beside recordings, and the tables of Hugging Face's audiofolder
(https://huggingface.co/docs/datasets/audio_dataset). Each is one row of `READERS`; what is read are keys of a song spec
with values as their kinds read them. A value that cannot be read is left out and reported, and the others are kept.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from acestep_cli.audio import lrc
from acestep_cli.errors import UsageError
from acestep_cli.song import document, spec, spec_keys, spec_layers, spec_text
from acestep_cli.song.prompts import INSTRUMENTAL

#: The keys of a song that a recording is described by.
KEYS = ("caption", "lyrics", "instrumental", "language", "bpm", "key", "time_signature")
#: Their names elsewhere.
KEY_NAMES: Mapping[str, str] = {
    **{name: name for name in KEYS},
    **{name: key for name, key in spec_keys.OTHER_NAMES.items() if key in KEYS},
    "signature": "time_signature",
    "time signature": "time_signature",
    "is_instrumental": "instrumental",
}
#: The same for the columns of tables.
COLUMN_NAMES: Mapping[str, str] = {**KEY_NAMES, "text": "caption", "description": "caption", "transcription": "lyrics"}
#: Names in texts that are recognised and ignored; but the genre is the caption where there is no other.
IGNORED_NAMES = ("genre", "title", "artist", "album", "year", "duration", "custom_tag", "trigger", "filename", "repeat")
#: The columns of a table that name the recording, the best first.
FILE_COLUMNS = ("file_name", "filename", "audio_path", "file", "audio", "path")
#: Values that mean "unknown".
EMPTY_VALUES = ("", "n/a", "nan", "unknown", "none", "null")
ANY_NAME = "|".join(sorted((re.escape(name) for name in (*KEY_NAMES, *IGNORED_NAMES)), key=len, reverse=True))
#: A line of `key: value` in a text of several.
LABELLED_LINE = re.compile(rf"^\s*({ANY_NAME})\s*:[ \t]*(.*)$", re.IGNORECASE)
#: `<KEY>value</KEY>`; a mark that is not closed ends at the next one.
MARKED_VALUE = re.compile(rf"<({ANY_NAME})>(.*?)(?:</\1>|(?=<(?:{ANY_NAME})>)|\Z)", re.IGNORECASE | re.DOTALL)
#: The indicator of a block scalar behind a colon in YAML.
BLOCK = re.compile(r"[|>][+-]?\d?[+-]?")
TEMPO = re.compile(r"(?:~|≈|ca?\.?\s|circa\s)?\s*(\d{1,6}(?:[.,]\d+)?)\s*(?:bpm|beats per minute)?", re.IGNORECASE)
CAMELOT = re.compile(r"(1[0-2]|[1-9])([AB])", re.IGNORECASE)
NOTE = re.compile(r"[A-Ga-g][#b♯♭]?")
#: Camelot's wheel by number: its minor keys (A) and its major ones (B).
CAMELOT_WHEEL = {
    "A": ["Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "Db"],
    "B": ["B", "F#", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E"],
}

Metadata = dict[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """A value or file that could not be read, its place, and the reason."""

    where: str
    reason: str
    #: The key that stays open.
    key: str | None = None
    #: The name of the recording in the data set, None where it is not of one.
    song: str | None = None

    def __str__(self) -> str:
        of_song = "" if self.song is None else f"{self.song}: "
        place = self.where if self.reason.startswith(":") else f"{self.where}: "  # the reason begins with a line number
        return f"{of_song}{place}{self.reason}; {self.key or 'this'} is left out."

    def report(self) -> dict[str, str | None]:
        """Return the entry of `--json`."""
        return {"song": self.song, "key": self.key, "where": self.where, "reason": self.reason}


@dataclass
class Tables:
    """The metadata in the lists and tables of one folder: by recording, and for all songs."""

    folder: Path
    songs: dict[str, Metadata] = field(default_factory=dict)
    shared: Metadata = field(default_factory=dict)
    #: What could not be read, by recording, and of no recording.
    left_out: dict[str, list[LeftOut]] = field(default_factory=dict)
    unread: list[LeftOut] = field(default_factory=list)
    #: The places of the rows by the recordings that they name, and those of the names that were asked for.
    rows: dict[str, list[str]] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)

    def add(self, written: object, values: Mapping[str, Any], where: str) -> None:
        """Add the values of a row to the recording that it names as `written`; they overrule earlier ones."""
        name = recording_of(self.folder, str(written))
        new = translate_keys(values, where, self.left_out.setdefault(name, []), COLUMN_NAMES)
        self.songs[name] = merge(self.songs.get(name, {}), new)
        self.rows.setdefault(name, []).append(where)

    def metadata_of(self, recording: Path) -> tuple[Metadata, list[LeftOut]]:
        """Return the metadata of a recording, listed with its suffix or without, and what could not be read of them."""
        path = recording.relative_to(self.folder).as_posix()
        for name in (path, path.removesuffix(recording.suffix)):
            if name in self.songs:
                self.found.add(name)
                return self.songs[name], self.left_out[name]
        return {}, []

    def unmatched(self) -> list[LeftOut]:
        """Return an entry for the rows that name no recording that was asked for; none where there is no such row."""
        rest = [(name, place) for name, places in self.rows.items() if name not in self.found for place in places]
        if not rest:
            return []
        name, place = rest[0]
        return [LeftOut(place, f"{name!r:.100} names no recording that is here{nor_others(len(rest) - 1)}")]


def nor_others(rows: int) -> str:
    """Return the words for so many other rows of which the same is true."""
    return f", nor do {rows} other rows" if rows > 1 else ", nor does another row" if rows else ""


def nameless_rows(places: Sequence[str]) -> list[LeftOut]:
    """Return an entry for the rows at `places`, which have no name of a recording; none where there is no such row."""
    if not places:
        return []
    return [LeftOut(places[0], f"has no {FILE_COLUMNS[0]}, the name of a recording{nor_others(len(places) - 1)}")]


def recording_of(folder: Path, written: str) -> str:
    """Return the path within `folder` that a table means: as written where that file is there, else its file name.

    Tables copied from elsewhere have paths of that place.
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
    """Merge two sets of metadata; `upper` overrules `lower`. Lyrics and instrumental exclude each other."""
    exclusive = ("lyrics", "instrumental")
    is_set = any(key in upper for key in exclusive)
    return {key: value for key, value in lower.items() if not (is_set and key in exclusive)} | dict(upper)


def read_metadata(recording: Path, tables: Iterable[Tables], left_out: list[LeftOut]) -> Metadata:
    """Read all metadata of a recording. A later entry of `READERS` overrules an earlier one, and so does a later table;
    the tables overrule the song's own `.json`. What cannot be read is added to `left_out`.
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
    """Read a text file. Raises `ValueError` with the reason where it is none."""
    return spec_text.read_text(str(file))


def translate_keys(
    values: Mapping[str, Any], where: object, left_out: list[LeftOut], names: Mapping[str, str] = KEY_NAMES
) -> Metadata:
    """Translate keys from `names` to ours, read their values, and drop those that mean "unknown".

    A value that its kind cannot read is added to `left_out`, with the place `where` it was written.
    """
    written: dict[str, tuple[str, Any]] = {}
    for name, value in values.items():
        word = str(name).strip().casefold()
        key = names.get(word)
        if (
            key is None or is_empty(key, value) or (key in written and word != key)
        ):  # our own name for it overrules others
            continue
        written[key] = (str(name).strip(), normalize(key, value))
    found: Metadata = {}
    for key, (name, value) in written.items():
        if key == "lyrics" and str(value).strip().casefold() in (INSTRUMENTAL.casefold(), "[inst]"):
            found["instrumental"] = True
            continue
        try:
            found[key] = spec_keys.KEYS[key].kind.read(value)
        except ValueError as error:
            left_out.append(LeftOut(f"{where}: {name}", str(error), key))
    if "lyrics" in found:
        found.pop("instrumental", None)  # there are lyrics after all
        found["lyrics"] = f"{found['lyrics'].strip()}\n"
    return found


def is_empty(key: str, value: Any) -> bool:
    """Tell whether a value means "unknown", such as a tempo of 0."""
    return (
        value is None or value == [] or str(value).strip().casefold() in EMPTY_VALUES or (key == "bpm" and value == 0)
    )


def normalize(key: str, value: Any) -> Any:
    """Return a value in the form that its kind reads, or unchanged where that is not possible."""
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
    """Return a tempo with decimals or a unit as a whole number; anything else unchanged."""
    found = TEMPO.fullmatch(str(bpm).strip())
    return bpm if found is None or isinstance(bpm, bool) else round(float(found[1].replace(",", ".")))


def respell_key(key: str) -> str:
    """Return the name of a key in Camelot's notation, or of a bare note, which is major; anything else unchanged."""
    if found := CAMELOT.fullmatch(key):
        return f"{CAMELOT_WHEEL[found[2].upper()][int(found[1]) - 1]} {'minor' if found[2].upper() == 'A' else 'major'}"
    return f"{key} major" if NOTE.fullmatch(key) else key


def read_lyrics(file: Path, left_out: list[LeftOut]) -> Metadata:
    whole = read_text(file)
    return translate_keys(parse_marks(whole, "lyrics") or {"lyrics": whole}, file, left_out)


def read_caption(file: Path, left_out: list[LeftOut]) -> Metadata:
    whole = read_text(file)
    values = parse_marks(whole, "caption") or {"caption": whole}
    return translate_keys({name: " ".join(part.split()) if KEY_NAMES.get(name) == "caption" else part
                  for name, part in values.items()}, file, left_out)  # fmt: skip


def read_song_text(file: Path, left_out: list[LeftOut]) -> Metadata:
    """Read lyrics; or several keys, in `<KEY>` marks, as JSON, or in `key: value` lines, where lyrics end at the next
    key.
    """
    whole = read_text(file)
    values = (
        parse_marks(whole, "lyrics") or parse_json_object(whole) or parse_labelled_lines(whole) or {"lyrics": whole}
    )
    return translate_keys(values, file, left_out)


def with_genre_as_caption(values: dict[str, Any]) -> dict[str, Any]:
    """Return metadata with the genre as the caption, unless it has one."""
    has_caption = any(KEY_NAMES.get(name) == "caption" and not is_empty("caption", values[name]) for name in values)
    return values if has_caption or "genre" not in values else {**values, "caption": values["genre"]}


def parse_marks(text: str, rest: str) -> dict[str, Any]:
    """Parse a text that begins with `<KEY>` marks; text outside of them is the value of the key `rest`."""
    if not MARKED_VALUE.match(text.lstrip()):
        return {}
    values = {found[1].casefold(): found[2].strip() for found in MARKED_VALUE.finditer(text)}
    outside = MARKED_VALUE.sub("", text).strip()
    if outside and not any(KEY_NAMES.get(name) == rest for name in values):
        values[rest] = outside
    return with_genre_as_caption(values)


def parse_json_object(text: str) -> dict[str, Any]:
    """Parse a text that is a JSON object; empty for any other."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def parse_labelled_lines(text: str) -> dict[str, Any]:
    """Parse a text of `key: value` lines, as YAML where one of them begins a block scalar; empty for any other."""
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
    current, key = rest, ""
    for line in lines:
        if match := LABELLED_LINE.match(line):
            key = KEY_NAMES.get(match[1].casefold(), "")
            value = found[match[1].casefold()] = [] if BLOCK.fullmatch(match[2].strip()) else [match[2]]
            current = value if key in ("caption", "lyrics") else rest  # all others have one line
        elif current is not rest and key == "caption" and line.lstrip().startswith("["):  # as `[Verse]`
            current = rest
            rest.append(line)
        else:
            current.append(line)
    values: dict[str, Any] = {name: textwrap.dedent("\n".join(part)).strip() for name, part in found.items()}
    if (unnamed := "\n".join(rest).strip()) and not any(KEY_NAMES.get(name) == "lyrics" for name in values):
        values["lyrics"] = unnamed
    return with_genre_as_caption(values)


def read_timed_lyrics(file: Path, left_out: list[LeftOut]) -> Metadata:
    """Read lyrics without their time stamps."""
    return translate_keys({"lyrics": "\n".join(line.text for line in lrc.parse_lrc(read_text(file)))}, file, left_out)


def read_spec(file: Path, left_out: list[LeftOut]) -> Metadata:
    """Read the keys of a song from a spec or the sidecar of a render, whatever else it asks for."""
    layers = [
        replace(layer, values={name: value for name, value in layer.values.items() if name in (*KEYS, "lyrics_file")})
        for layer in spec_layers.read_layers(file)
    ]
    for layer in layers:
        remarks = [value.remark for value in layer.values.values() if value.remark is not None]
        left_out += [LeftOut(str(file), without_path(file, problem)) for problem in (*layer.problems, *remarks)]
    layers = [replace(layer, problems=()) for layer in layers]
    while True:
        try:
            request = spec.resolve(*layers).request
        except UsageError as error:
            wrong = _refused_values(layers, error)
            if not wrong:
                raise ValueError(without_path(file, error.message)) from error
            left_out += [LeftOut(str(file), without_path(file, line), "lyrics" if name == "lyrics_file" else name)
                     for name, line in wrong.values()]  # fmt: skip
            layers = [
                replace(layer, values={name: value for name, value in layer.values.items() if value.where not in wrong})
                for layer in layers
            ]
        else:
            return {key: value for key in KEYS if (value := getattr(request, key)) is not None}


def _refused_values(layers: Iterable[spec_layers.Layer], error: UsageError) -> dict[str, tuple[str, str]]:
    """Return the values that an error is about, by their place: the key, and the line of the message."""
    values = [(name, value.where) for layer in layers for name, value in layer.values.items()]
    return {
        where: (name, line)
        for line in error.message.splitlines()
        for name, where in values
        if line.startswith(f"{where}:")
    }


def without_path(file: Path, problem: str) -> str:
    """Return a problem without the file name that it begins with."""
    return problem.removeprefix(str(file)).removeprefix(": ")


def read_song_json(file: Path, left_out: list[LeftOut]) -> Metadata:
    """Read the JSON of one song; nothing for a list, which `read_tables` reads."""
    content = load_json_file(file)
    if isinstance(content, list) or (isinstance(content, dict) and isinstance(content.get("samples"), list)):
        return {}
    if not isinstance(content, dict):
        raise ValueError("is neither a map of keys nor a list of songs")
    return translate_keys(content, file, left_out)


def load_json_file(file: Path) -> Any:
    return load_json(read_text(file))


def load_json(text: str) -> Any:
    """Parse JSON. Raises `ValueError` with the reason where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error


Reader = Callable[[Path, list[LeftOut]], Metadata]

#: Readers by the ending of a file's name, which follows that of the recording, with or without its suffix. The last
#: one wins.
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
#: The key that stays open where a file of this ending cannot be read at all.
UNREADABLE_KEY: Mapping[str, str] = {
    suffix: "lyrics" if reader in (read_timed_lyrics, read_song_text, read_lyrics) else "caption"
    for suffix, reader in READERS.items()
    if reader in (read_timed_lyrics, read_song_text, read_lyrics, read_caption)
}
#: Suffixes of lists and tables; the last one wins.
TABLE_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")


def read_tables(folder: Path) -> Tables:
    """Read the lists and tables in `folder`. Tables overrule lists."""
    found = Tables(folder)
    files = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file())
    for suffix in TABLE_SUFFIXES:
        for file in (file for file in files if file.suffix.lower() == suffix):
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
                     for file in files if file.name.lower() == "metadata.parquet"]  # fmt: skip
    return found


def read_json_list(file: Path, into: Tables) -> None:
    """Read a JSON list of songs, and the settings for all of them; nothing from the JSON of one song."""
    content = load_json_file(file)
    samples = content.get("samples") if isinstance(content, dict) else content
    if not isinstance(samples, list):
        return
    about = content.get("metadata") if isinstance(content, dict) else None
    if isinstance(about, dict):
        pairs = (("trigger", about.get("custom_tag")), ("trigger_position", about.get("tag_position")))
        into.shared |= {name: (value, file) for name, value in pairs if value}
    nameless = []
    for number, sample in enumerate(samples, start=1):
        where = f"{file}, item {number}"
        if isinstance(sample, dict) and (name := file_name_in(sample)):
            into.add(name, with_raw_lyrics(sample), where)
        else:
            nameless.append(where)
    into.unread += nameless_rows(nameless)


def with_raw_lyrics(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a sample with its `raw_lyrics`, the field of another trainer, as lyrics, where it has no others."""
    raw = sample.get("raw_lyrics")
    return {**sample, "lyrics": raw} if raw and not sample.get("lyrics") else sample


def read_json_lines(file: Path, into: Tables) -> None:
    """Read a file with a JSON object in each line, as Hugging Face's `metadata.jsonl`."""
    nameless = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            row = load_json(line)
        except ValueError as error:
            into.unread.append(LeftOut(where, str(error)))
            continue
        if not isinstance(row, dict):
            into.unread.append(LeftOut(where, "is not a JSON object, {…}"))
        elif name := file_name_in(row):
            into.add(name, with_raw_lyrics(row), where)
        else:
            nameless.append(where)
    into.unread += nameless_rows(nameless)


def file_name_in(row: Mapping[str, Any]) -> str:
    """Return the recording that a row names; empty where it names none."""
    return next((name for column in FILE_COLUMNS if isinstance(name := row.get(column), str) and name.strip()), "")


def read_csv(file: Path, into: Tables) -> None:
    """Read a table with a column that names recordings; its delimiter is the commonest of the first line."""
    content = read_text(file)
    first = content.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=max(",;\t", key=first.count))
    nameless = []
    for row in reader:
        where = f"{file}:{reader.line_num}"
        if any(map(str.strip, row.pop(None, ()) or ())):
            into.unread.append(LeftOut(where, "has more cells than the header; text with a delimiter needs quotes"))
            continue
        values = {str(name).strip().casefold(): value for name, value in row.items() if name is not None}
        if values.get("camelot") and not values.get("key"):
            values["key"] = values["camelot"]
        if name := file_name_in(values):
            into.add(name, values, where)
        elif any(value and value.strip() for value in values.values()):
            nameless.append(where)
    into.unread += nameless_rows(nameless)
