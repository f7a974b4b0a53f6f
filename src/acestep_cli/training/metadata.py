"""What lies beside a recording and tells of it, in every convention that is about: texts, specs, lyrics with time
stamps, tables and lists.

Conventions: `songwriter-and-lora.md` 5.1 and 5.2 of the specification. Each is one row of `READERS`; what is read are
keys of a song spec with values as they were written, which their kinds then read.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from acestep_cli.audio import lrc
from acestep_cli.errors import UsageError
from acestep_cli.song import spec
from acestep_cli.song.prompts import INSTRUMENTAL

#: The keys of a song that a recording is described by.
KEYS = ("caption", "lyrics", "instrumental", "language", "bpm", "key", "time_signature")
#: What others call them.
WORDS: Mapping[str, str] = {
    **{name: name for name in KEYS},
    **{name: key for name, key in spec.OTHER_NAMES.items() if key in KEYS},
    "signature": "time_signature",
    "time signature": "time_signature",
    "is_instrumental": "instrumental",
}
#: Words for nothing known.
NOTHING = ("", "n/a", "unknown", "none", "null")
#: A line of `key: value`, as some write all they know into one text.
LABELLED = re.compile(rf"^\s*({'|'.join(sorted(WORDS, key=len, reverse=True))}|genre)\s*:[ \t]*(.*)$", re.IGNORECASE)
CAMELOT = re.compile(r"(1[0-2]|[1-9])([AB])", re.IGNORECASE)
NOTE = re.compile(r"[A-Ga-g][#b♯♭]?")
#: The wheel by number: its minor keys (A) and its major ones (B).
WHEEL = {
    "A": ["Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "Db"],
    "B": ["B", "F#", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E"],
}

Told = dict[str, Any]


def of(recording: Path, tables: Mapping[str, Told]) -> Told:
    """All that is told of a recording; who comes later in `READERS` knows better.

    `tables` are what `told_by_tables` found in its folder, by file name. `UsageError` for a companion that cannot be
    read.
    """
    found: Told = {}
    for suffix, read in READERS.items():
        for file in (recording.with_suffix(suffix), recording.with_name(recording.name + suffix)):
            if file.is_file():
                told = read(file)
                found |= told
                if {"lyrics", "instrumental"} & set(told):  # one answer to one question
                    found = {key: value for key, value in found.items()
                             if key not in ("lyrics", "instrumental") or key in told}  # fmt: skip
        if suffix == ".json":
            found |= tables.get(recording.name, tables.get(recording.stem, {}))
    return found


def text(file: Path) -> str:
    """`UsageError` with the reason for what is no text."""
    try:
        return spec.text_of(str(file))
    except ValueError as error:
        raise UsageError(f"{file} {error}") from error


def known(told: Mapping[str, Any]) -> Told:
    """What others wrote under their names as ours, without what says nothing."""
    found: Told = {}
    for name, value in told.items():
        key = WORDS.get(str(name).strip().casefold())
        if key is None or value is None or str(value).strip().casefold() in NOTHING:
            continue
        found[key] = value.strip() if isinstance(value, str) else value
    if "key" in found:
        found["key"] = respelt(str(found["key"]).strip())
    if "bpm" in found:
        found["bpm"] = whole(found["bpm"])
    if str(found.get("lyrics", "")).strip().casefold() in (INSTRUMENTAL.casefold(), "[inst]"):
        del found["lyrics"]
        found["instrumental"] = True
    if "lyrics" in found:
        found.pop("instrumental", None)  # there are words after all
        found["lyrics"] = f"{str(found['lyrics']).strip()}\n"
    return found


def whole(bpm: Any) -> Any:
    """A tempo of analysers, which have decimals, as a whole number."""
    try:
        return round(float(bpm))
    except (OverflowError, TypeError, ValueError):
        return bpm  # which its kind refuses


def respelt(key: str) -> str:
    """A key in Camelot's numbers, or a bare note for its major, in words."""
    if found := CAMELOT.fullmatch(key):
        return f"{WHEEL[found[2].upper()][int(found[1]) - 1]} {'minor' if found[2].upper() == 'A' else 'major'}"
    return f"{key} major" if NOTE.fullmatch(key) else key


def lyrics(file: Path) -> Told:
    return known({"lyrics": text(file)})


def caption(file: Path) -> Told:
    return known({"caption": " ".join(text(file).split())})


def words(file: Path) -> Told:
    """Lyrics; or `key: value` lines, of which lyrics go on until the next key."""
    whole = text(file)
    first = next((line for line in whole.splitlines() if line.strip()), "")
    if not LABELLED.match(first):
        return known({"lyrics": whole})
    found: dict[str, list[str]] = {}
    name = ""
    for line in whole.splitlines():
        if match := LABELLED.match(line):
            name = match[1].casefold()
            found[name] = [match[2]]
        else:
            found[name].append(line)
    told = {name: "\n".join(lines).strip() for name, lines in found.items()}
    return known({"caption": told.pop("genre", None)} | told)


def timed(file: Path) -> Told:
    """Lyrics without their time stamps."""
    return known({"lyrics": "\n".join(line.text for line in lrc.read(text(file)))})


def ours(file: Path) -> Told:
    """A spec, or the sidecar of a render."""
    request = spec.load(file)
    return {key: value for key in KEYS if (value := getattr(request, key)) is not None}


def listed(file: Path) -> Told:
    """One song's JSON."""
    content = parsed(file)
    return known(content) if isinstance(content, dict) else {}


def parsed(file: Path) -> Any:
    try:
        return json.loads(text(file))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON: {error}.") from error


#: By the suffix behind the name of the recording, with or without its own suffix; the last one wins.
READERS: Mapping[str, Callable[[Path], Told]] = {
    ".json": listed,
    ".lrc": timed,
    ".txt": words,
    ".lyrics.txt": lyrics,
    ".caption.txt": caption,
    ".md": ours,
    ".yml": ours,
    ".yaml": ours,
}


def told_by_tables(folder: Path) -> tuple[dict[str, Told], Told, list[UsageError]]:
    """What the lists (.json) and tables (.csv) in `folder` tell, by file name, and of all its songs; and why some of
    them could not be read. Tables overrule lists.
    """
    songs: dict[str, Told] = {}
    of_all: Told = {}
    unread: list[UsageError] = []
    for file in (*sorted(folder.glob("*.json")), *sorted(folder.glob("*.csv"))):
        try:
            if file.suffix == ".json":
                told, about = told_by_list(parsed(file))
                songs |= told
                of_all |= about
            else:
                for name, row in rows(file):
                    songs[name] = songs.get(name, {}) | row
        except UsageError as error:
            unread.append(error)
    return songs, of_all, unread


def told_by_list(content: Any) -> tuple[dict[str, Told], Told]:
    """What a list tells of songs, by file name, and of all of them; nothing where it is one song's own."""
    samples = content.get("samples") if isinstance(content, dict) else content
    if not isinstance(samples, list):
        return {}, {}
    about = content.get("metadata") if isinstance(content, dict) else None
    of_all: Told = {}
    if isinstance(about, dict):
        pairs = (("trigger", about.get("custom_tag")), ("trigger_position", about.get("tag_position")))
        of_all = {name: value for name, value in pairs if value}
    songs: dict[str, Told] = {}
    for sample in samples:
        if isinstance(sample, dict):
            name = Path(str(sample.get("filename") or sample.get("audio_path") or "")).name
            raw = sample.get("raw_lyrics")
            songs[name] = known(sample | ({"lyrics": raw} if raw and not sample.get("lyrics") else {}))
    return songs, of_all


def rows(file: Path) -> Iterator[tuple[str, Told]]:
    """The rows of a table with a column `File`; its delimiter is found out."""
    lines = text(file).splitlines()
    if not lines:
        return
    delimiter = max(",;\t", key=lines[0].count)
    for row in csv.DictReader(lines, delimiter=delimiter):
        told = {str(name).strip().casefold(): value for name, value in row.items()}
        if told.get("camelot") and not told.get("key"):
            told["key"] = told["camelot"]
        if name := str(told.get("file") or "").strip():
            yield Path(name.replace("\\", "/")).name, known(told)
