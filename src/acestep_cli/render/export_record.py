"""The record of an export: which files it wrote into its folder, so that the next one removes those and no others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from acestep_cli import disk
from acestep_cli.progress import Say

SCHEMA = "acestep-export/1"
NAME = ".acestep-export.json"
#: The largest record that is read.
MOST_BYTES = 1 << 20


class ExportRecord(BaseModel):
    """Content of a record: the files of an export by name, each with the hash of its content."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(default=SCHEMA, alias="schema", pattern=f"^{SCHEMA}$")
    files: dict[str, str]


def record_file(folder: Path) -> Path:
    return folder / NAME


def record_text(written: Sequence[tuple[str, Path]]) -> str:
    """Return the record of files, each with its name and the path that has its content now."""
    files = {name: disk.file_hash(path) for name, path in written}
    return ExportRecord(files=files).model_dump_json(by_alias=True, indent=2) + "\n"


def read_record(folder: Path) -> dict[str, str]:
    """Return the files of the last export into a folder, with their hashes; none where it has no record."""
    try:
        if record_file(folder).stat().st_size > MOST_BYTES:
            return {}
        found = ExportRecord.model_validate_json(record_file(folder).read_bytes()).files
    except (OSError, ValidationError):
        return {}
    return {name: content for name, content in found.items() if name == Path(name).name}  # none of another folder


def remove_outdated(folder: Path, before: dict[str, str], kept: Collection[Path], warn: Say) -> list[Path]:
    """Remove the files of an earlier export, whose record is `before`, and return them. Those in `kept` stay, and so do
    those with another content than it wrote, of which `warn` hears, as it does where one cannot be removed.
    """
    removed = []
    resolved = {path.resolve() for path in kept}
    for file in (folder / name for name in before):
        if not file.is_file() or file.is_symlink() or file.resolve() in resolved:
            continue
        try:
            if disk.file_hash(file) != before[file.name]:
                warn(f"{file} is of the earlier export and has changed since; it stays.")
                continue
            file.unlink()
        except OSError as error:
            warn(f"{file} is of the earlier export and stays. {disk.write_error(file, error).message}")
            continue
        removed.append(file)
    return removed
