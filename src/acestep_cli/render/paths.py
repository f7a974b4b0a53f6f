"""Paths of the takes of a run, decided and checked before any weights load."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from acestep_cli import disk
from acestep_cli.audio import encode
from acestep_cli.errors import UsageError
from acestep_cli.song import complete
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
    made: bool = False
    stdout: bool = False
    built: bool = False
    #: The kind of output part whose name has no suffix, where there are several.
    main: str | None = None
    #: An intermediate file of an album, which is not printed.
    on_the_way: bool = False


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


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar of an audio file."""
    return path.with_name(path.name + ".yaml")


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
    suffix = place.suffix or format
    stems = [f"{stem}-{part}" if part else stem for part in parts]
    if takes == 1 and not place.numbered:
        return [[place.folder / f"{one}.{suffix}" for one in stems]]
    highest = max(highest_number(place.folder, one, taken) for one in stems) if place.numbered else 0
    numbers = range(highest + 1, highest + 1 + takes)
    return [[place.folder / f"{one}-{number}.{suffix}" for one in stems] for number in numbers]


def name_suffixes(place: Destination, request: Request) -> list[str]:
    """Return the suffix of each file of a take after the stem: empty for the only file, or the main one."""
    kinds = complete.part_kinds(request)
    return ["" if len(kinds) == 1 or kind == place.main else track or kind for kind, track in kinds]


def default_stem(request: Request, spec_file: Path | None) -> str:
    """Return the name of the spec; else title, caption or idea, in lower case with dashes; else that of the source."""
    if spec_file is not None:
        stem = spec_file.stem  # a sidecar is `song.flac.yaml`
        return Path(stem).stem if Path(stem).suffix.removeprefix(".") in encode.FORMATS else stem
    words = "-".join(re.findall(r"\w+", (request.title or request.caption or request.idea or "").lower()))
    return words[:SLUG_LENGTH].strip("-") or Path(request.source or "").stem or "song"


def highest_number(folder: Path, stem: str, taken: Collection[Path] = ()) -> int:
    """Return the highest N of the files `stem-N.*` in `folder` and among those `taken`; 0 without one."""
    numbered = re.compile(re.escape(stem) + r"-(\d{1,18})\..+")
    found = (numbered.fullmatch(file.name) for file in [*folder.iterdir(), *taken])
    return max((int(match[1]) for match in found if match), default=0)


def next_free_path(path: Path, taken: Collection[Path] = ()) -> Path:
    """Return the numbered `path` with the next number that is free in its folder and among those `taken`."""
    stem = path.stem.rpartition("-")[0]
    return path.with_name(f"{stem}-{1 + highest_number(path.parent, stem, taken)}{path.suffix}")


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
