"""The songs that come with the program, as examples and as templates."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from acestep_cli.errors import UsageError
from acestep_cli.song.values import suggestion

PACKAGE = Path(str(resources.files("acestep_cli")))
# In a wheel the songs lie in the package; in a checkout, beside `src/`.
FOLDERS = (PACKAGE / "songs", PACKAGE.parent.parent / "songs")
SUFFIXES = (".yaml", ".md")


def example_files() -> dict[str, Path]:
    """Return the files of the example specs by name."""
    folder = next(folder for folder in FOLDERS if folder.is_dir())
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES}


def find_example(name: str) -> Path:
    """Return the file of the example `name`. Raises `UsageError` with the known names where there is none."""
    songs = example_files()
    if name not in songs:
        near = suggestion(name, songs) or "."
        raise UsageError(f"There is no song named {name!r}{near}", f"Songs: {', '.join(songs)}.")
    return songs[name]
