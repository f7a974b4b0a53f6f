"""The songs that come with the program: examples to play, and templates to start from."""

from __future__ import annotations

from pathlib import Path

#: In an installed package they lie beside this file, in a checkout at its root.
FOLDERS = (Path(__file__).parent / "songs", Path(__file__).parent.parent.parent / "songs")
SUFFIXES = (".yaml", ".md")


def files() -> dict[str, Path]:
    """The specs by name."""
    folder = next(folder for folder in FOLDERS if folder.is_dir())
    return {file.stem: file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES}
