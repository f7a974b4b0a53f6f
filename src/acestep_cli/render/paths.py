"""Paths of the takes of a run, decided and checked before any weights load."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acestep_cli import disk
from acestep_cli.audio import encode
from acestep_cli.errors import UsageError
from acestep_cli.song import spec_layers, take_parts
from acestep_cli.song.regions import Region
from acestep_cli.song.request import Request
from acestep_cli.song.values import quoted

SLUG_LENGTH = 48
#: So many characters of four bytes each leave a name short enough for every disk.
MOST_SIGNS = 40
STDOUT = "-"


@dataclass(frozen=True)
class Destination:
    """The parsed `--output`: a folder, and for a file its stem, its suffix as typed and the format of that.

    `numbered` asks for the next free number, `made` for the folder to be created, `stdout` for no file at all. With
    `built`, earlier renders in the folder are kept up to date.
    """

    folder: Path
    stem: str | None = None
    suffix: str | None = None
    format: str | None = None
    numbered: bool = False
    #: Where it is numbered, the first single take has no number.
    bare_first: bool = False
    #: The command has the flag `--again`.
    offers_again: bool = False
    made: bool = False
    stdout: bool = False
    built: bool = False
    #: The kind of output part whose name has no suffix, where there are several.
    main: str | None = None
    #: An intermediate file of an album, which is not printed.
    is_intermediate: bool = False


def parse_destination(output: str | None) -> Destination:
    """Parse `--output`: FILE with the suffix of a format, FOLDER/, or - for stdout. Raises `UsageError`."""
    if output is None:
        return Destination(Path(), numbered=True)
    if output == STDOUT:
        return Destination(Path(), stdout=True)
    if not output.strip():
        raise UsageError("--output: is empty.", "Leave it out to write into the current folder.")
    path = Path(output)
    if output.endswith(("/", "\\")):
        return Destination(path, made=True)
    if disk.is_taken(path) and path.is_dir():
        return Destination(path)
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in encode.FORMATS:
        raise UsageError(
            f"--output: {quoted(output)} does not end in the suffix of a format ({', '.join(encode.FORMATS)}).",
            "Add one, or a / to name a folder.",
        )
    return Destination(path.parent, path.stem, path.suffix.removeprefix("."), suffix)


def destination_of_song(place: Destination, *, of_spec: bool, from_source: bool, again: bool) -> Destination:
    """Return the destination of one song of a run, which decides what becomes of earlier takes.

    A spec with `--output` is a build. New takes with the next free numbers are made without `--output`, by `again`,
    and in a folder where no spec names the file. A name that already says where it comes from (that of a source, or
    of a build) needs no number the first time.
    """
    is_build = not place.numbered and (of_spec or place.stem is not None)
    if place.stdout:
        return place
    if is_build and not again:
        return replace(place, offers_again=True)
    return replace(place, numbered=True, bare_first=is_build or (from_source and not of_spec), offers_again=True)


def take_paths(
    place: Destination,
    stem: str,
    takes: int,
    format: str,
    taken: Collection[Path] = (),
    parts: Sequence[str] = ("",),
) -> list[list[Path]]:
    """Return for each take the paths of its parts: the stem, the name of the part, and a number.

    Several takes are numbered from 1. With `place.numbered`, numbers go on from the highest in the folder and among
    the paths `taken` by other songs of the run.
    """
    bare = part_paths(place, stem, format, parts)
    if takes == 1 and not place.numbered:
        return [bare]
    highest = max(highest_number(path, taken) for path in bare) if place.numbered else 0
    if place.bare_first and highest == 0:
        if any(is_used(path, taken) for path in bare):
            highest = 1
        elif takes == 1:
            return [bare]
    numbers = range(highest + 1, highest + 1 + takes)
    return [[numbered_path(path, number) for path in bare] for number in numbers]


def part_paths(place: Destination, stem: str, format: str, parts: Sequence[str] = ("",)) -> list[Path]:
    """Return the path of each part of a take without a number."""
    suffix = place.suffix or format
    return [place.folder / f"{stem}-{part}.{suffix}" if part else place.folder / f"{stem}.{suffix}" for part in parts]


def numbered_path(path: Path, number: int) -> Path:
    """Return a path with a number at the end of its stem."""
    return path.with_name(f"{path.stem}-{number}{path.suffix}")


def name_suffixes(place: Destination, request: Request) -> list[str]:
    """Return the suffix of each file of a take after the stem: empty for the only file, or the main one."""
    kinds = take_parts.part_kinds(request)
    return ["" if len(kinds) == 1 or kind == place.main else track or kind for kind, track in kinds]


def default_stem(request: Request, spec_file: Path | None, region: Region | None = None) -> str:
    """Return the name of the spec; else the name of the source with the mode, or the track where a take is one stem, or
    `extend` where its `region` lies outside of the source; else title, caption or idea, in lower case with dashes.
    """
    if spec_file is not None:
        stem = spec_file.stem  # a sidecar is `song.flac.yaml`
        return Path(stem).stem if Path(stem).suffix.removeprefix(".") in encode.FORMATS else stem
    if request.source is not None:
        source, kinds = Path(request.source).stem, take_parts.part_kinds(request)
        if len(kinds) > 1:  # each part adds its own name
            return source
        kind, track = kinds[0]
        made = "extend" if region is not None and region.only_extends else request.mode
        return f"{source}-{track if kind == 'stem' else made}"
    words = "-".join(re.findall(r"\w+", (request.title or request.caption or request.idea or "").lower()))
    return words[:SLUG_LENGTH].strip("-") or "song"


def file_numbers(path: Path, taken: Collection[Path] = ()) -> list[int]:
    """Return each N of the files `stem-N.*` in the folder of `path` and among those `taken`, in order."""
    numbered = re.compile(re.escape(path.stem) + r"-(\d{1,18})\..+")
    found = (numbered.fullmatch(file.name) for file in [*files_in(path.parent), *taken])
    return sorted({int(match[1]) for match in found if match})


def highest_number(path: Path, taken: Collection[Path] = ()) -> int:
    """Return the highest of `file_numbers`; 0 without one."""
    return max(file_numbers(path, taken), default=0)


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder; none where it is not there, or is none, which `prepare_folder` refuses."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise disk.write_error(folder, error) from error


def is_used(path: Path, taken: Collection[Path] = ()) -> bool:
    """Tell whether there is audio of this stem, in any format, or its sidecar."""
    same = [path.with_suffix(f".{format}") for format in encode.FORMATS]
    return any(one in taken or disk.is_taken(one) or disk.is_taken(spec_layers.sidecar_path(one)) for one in same)


def next_free_path(path: Path, taken: Collection[Path] = ()) -> Path:
    """Return `path`, which has no number, with the next number that is free in its folder and among those `taken`."""
    return numbered_path(path, 1 + max(highest_number(path, taken), int(is_used(path, taken))))


def prepare_folder(folder: Path, made: bool, names: Iterable[str] = (), *, dry_run: bool = False) -> None:
    """Check that `folder` can be written to, and accepts the characters of `names`; with `made`, create it.

    Raises `OutputError` if not. A dry run creates nothing.
    """
    try:
        if not made:
            disk.require_folder(folder, f" (or let --output {folder}/ make it)")
        if dry_run:
            there = next(path for path in (folder, *folder.absolute().parents) if disk.is_taken(path))
            if not there.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(there, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        folder.mkdir(parents=True, exist_ok=True)
        disk.remove_unfinished(folder)
        _try_names(folder, "")
    except OSError as error:
        raise disk.write_error(folder, error) from error
    for name in names:
        try:
            _try_names(folder, re.sub(r"[\w. -]", "", name, flags=re.ASCII)[:MOST_SIGNS])
        except OSError as error:
            raise disk.write_error(folder / name, error) from error


def _try_names(folder: Path, signs: str) -> None:
    """Create a hidden file with `signs` in its name, and remove it: some disks refuse characters only then."""
    file = folder / f".{uuid.uuid4().hex}{signs}.part"
    file.touch(exist_ok=False)
    file.unlink()
