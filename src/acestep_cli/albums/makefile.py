"""Files for make about a build: escaped paths, depfiles and stamps."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from acestep_cli import disk
from acestep_cli.errors import ExistsError, UsageError

#: A depfile as it is written here: one rule, and an empty one for each file.
OURS = re.compile(rb"[^\n]+: \\\n(?:  [^\n]+ \\\n)*  [^\n]+\n(?:\n[^\n]+:\n)*")


def escape_path(path: str) -> str:
    """Return a path as a target or prerequisite in Make syntax.

    Backslashes count only before a space, a # or another sign with a meaning; `$` is doubled. Raises `UsageError` for a
    line break, which make has no way to write.
    """
    if "\n" in path or "\r" in path:
        raise UsageError(f"{path!r} holds a line break, which no makefile can name.")
    return re.sub(r"(\\*)([ \t#:])", lambda found: found[1] * 2 + "\\" + found[2], path).replace("$", "$$")


def depfile_text(targets: Sequence[str], files: Iterable[str]) -> str:
    """Return a rule by which `targets` depend on `files`, and an empty rule for each file.

    The empty rules let make go on where a file is gone.
    """
    needed = [escape_path(file) for file in files]  # what has a % in its name would be a pattern as a target
    rule = " \\\n  ".join([f"{' '.join(map(escape_path, targets))}:", *needed])
    return f"{rule}\n" + "".join(f"\n{file}:\n" for file in needed if "%" not in file)


def variables(values: Mapping[str, Iterable[str]]) -> str:
    """Return Make variables that hold paths."""
    return "".join(f"{name} := {' '.join(map(escape_path, paths))}\n" for name, paths in values.items())


def write_file(path: Path, text: str) -> None:
    """Write `text` to a file that appears whole. Raises `OutputError` where it cannot be written."""
    with disk.write_whole(path, replace=[path]) as [part]:
        part.write_bytes(os.fsencode(text))  # names that are not UTF-8 as they are


def touch_stamp(path: Path) -> None:
    """Set the time of the stamp, which make compares. Raises `OutputError` where it cannot be written."""
    try:
        path.touch()
    except OSError as error:
        raise disk.write_error(path, error) from error


def check_paths(depfile: Path | None, stamp: Path | None) -> None:
    """Refuse, before any work, a folder that is missing and a file that is no depfile.

    Raises `OutputError` or `ExistsError`.
    """
    for path in (depfile, stamp):
        if path is not None:
            disk.require_folder(path.parent)
    if depfile is not None and disk.is_taken(depfile) and not (depfile.is_file() and is_ours(depfile)):
        raise ExistsError(depfile, why=" and is not a depfile", hint="Name another file for --depfile.")


def is_ours(path: Path) -> bool:
    """Return True if a file is a depfile that was written here, or empty.

    Raises `OutputError` where it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise disk.write_error(path, error) from error
    return not content or OURS.fullmatch(content) is not None


def refuse_files(depfile: Path | None, files: Iterable[Path]) -> None:
    """Raise `UsageError` where the depfile would be one of the `files` that it is about."""
    if depfile is not None and os.path.realpath(depfile) in map(os.path.realpath, files):
        raise UsageError(f"--depfile {depfile}: is a file of this album.", "Name another one.")
