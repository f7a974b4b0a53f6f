"""Kinds of arguments of a rendering command (caption, recording, album, spec), and hints for those it does not take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from acestep_cli import disk
from acestep_cli.audio import encode
from acestep_cli.errors import AceStepError, OutputError, SourceError, UsageError, shell_word
from acestep_cli.render import provenance
from acestep_cli.song import document, spec_layers, spec_text
from acestep_cli.song.values import quoted

#: The mode that takes text in the place of a spec.
GENERATE = "generate"
SEPARATORS = tuple({"/", os.sep, os.altsep or os.sep})
#: Sections that an album has, and a song has not.
ALBUM_SECTIONS = ("album", "matrix")


def is_caption(name: str) -> bool:
    """Tell whether an argument is text to make music from: no file, with a space in it, without a path or a suffix."""
    if not any(character.isspace() for character in name.strip()) or any(sign in name for sign in SEPARATORS):
        return False
    return not has_suffix_of(name, spec_layers.SUFFIXES) and not is_audio_name(name) and not is_there(name)


def unquoted_caption(mode: str | None, specs: Sequence[str]) -> UsageError | None:
    """Return the error for several words none of which is a file: a caption that lacks its quotes, most likely."""
    suffixes = (*spec_layers.SUFFIXES, *(f".{format}" for format in encode.FORMATS))
    if (
        mode != GENERATE
        or len(specs) < 2
        or any(
            name in ("", spec_text.STDIN)
            or any(character.isspace() for character in name)
            or any(sign in name for sign in SEPARATORS)
            or has_suffix_of(name, suffixes)
            or is_there(name)
            for name in specs
        )
    ):
        return None
    return UsageError(
        f"None of {', '.join(specs)} is a file; a caption is one argument, in quotes.",
        f"acestep generate {shell_word(' '.join(specs))} makes music from these words.",
    )


def refuse_other(mode: str | None, name: str) -> None:
    """Raise `UsageError` where the argument `name` is a recording, an album or nothing, and say what takes it."""
    if name == spec_text.STDIN:
        return
    if is_caption(name):
        raise UsageError(f"{quoted(name)} is no file, and {mode or 'render'} takes specs.", caption_hint(name))
    if disk.is_folder(Path(name)):
        raise UsageError(f"{name} is a folder, and {mode or 'render'} takes specs.", folder_hint(mode, Path(name)))
    if is_audio_name(name):
        raise UsageError(f"{name} is a recording, and {mode or 'render'} takes specs.", recording_hint(name))
    if mode == GENERATE and not has_suffix_of(name, spec_layers.SUFFIXES) and not is_there(name):
        raise UsageError(
            f"{name}: there is no such file{disk.suggest_path(Path(name)) or '.'}",
            f"acestep generate -c {shell_word(name)} makes music from these words.",
        )
    if is_album(Path(name)):
        quoted_name = shell_word(name)
        raise UsageError(f"{name} is an album, not a song.", f"acestep album render {quoted_name} renders its tracks.")


def refuse_text(mode: str, name: str) -> None:
    """Raise `SourceError` where text stands in the place of the recording that `mode` works on."""
    if not is_caption(name):
        return
    raise SourceError(
        f"{quoted(name)} is no file, and {mode} works on a recording.",
        f"Name it first: acestep {mode} song.flac -c {shell_word(name)}. {caption_hint(name)}",
    )


def caption_hint(text: str) -> str:
    return f"acestep generate {shell_word(text)} makes music from these words."


def folder_hint(mode: str | None, folder: Path) -> str | None:
    """Return the command that renders the specs in a folder; None where it holds none."""
    try:
        found = {file.suffix for file in folder.iterdir() if file.suffix in spec_layers.SUFFIXES}
    except OSError:
        return None
    if not found:
        return None
    patterns = " ".join(f"{shell_word(folder)}/*{suffix}" for suffix in sorted(found))
    return f"acestep {mode or 'render'} {patterns} renders all in it."


def command_hint(name: str) -> str | None:
    """Return the command that takes text or the file `name`, which stands in the place of a command."""
    if is_caption(name):
        return caption_hint(name)
    if not is_there(name):
        return None
    shown = shell_word(name)
    if is_audio_name(name):
        return f"acestep show {shown} shows it; acestep --help lists what else takes a recording."
    if is_album(Path(name)):
        return f"acestep album render {shown} renders its tracks."
    return f"acestep render {shown} renders it." if has_suffix_of(name, spec_layers.SUFFIXES) else None


def recording_hint(name: str) -> str:
    """Return the commands that take the recording `name`: by its recipe, where it has one, or by its sound."""
    file, shown = Path(name), shell_word(name)
    beside = spec_layers.sidecar_path(file)
    if beside.is_file():
        again = f"acestep replay {shown} makes the take again and compares; " if file.is_file() else ""
        return f"{again}acestep render {shell_word(beside)} -o … renders by its sidecar, and flags change that."
    try:
        if file.is_file() and provenance.tags_provenance(file) is not None:
            return f"acestep replay {shown} makes the take again by its tags, and compares."
    except (AceStepError, OSError):  # a recording that cannot be read has no recipe
        pass
    return f"acestep cover {shown} -c … plays it in another style; acestep describe {shown} makes a spec of it."


def is_album(file: Path) -> bool:
    """Tell whether a file has the sections of an album."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        return False
    try:
        found = document.parse_document(spec_text.read_text(str(file)), markdown=False)
    except ValueError:  # which the spec says where it is read
        return False
    return any(
        entry.name in (*ALBUM_SECTIONS, "tracks") and (entry.items is not None or entry.entries is not None)
        for entry in found.entries  # a song may have an album too: its title
    )


def is_audio_name(name: str) -> bool:
    """Tell whether a name has the suffix of a format."""
    return has_suffix_of(name, [f".{format}" for format in encode.FORMATS])


def has_suffix_of(name: str, suffixes: Sequence[str]) -> bool:
    return Path(name).suffix.lower() in suffixes


def is_there(name: str) -> bool:
    """Tell whether a name is that of a file; a name that no file can have is not."""
    try:
        return disk.is_taken(Path(name))
    except OutputError:
        return False
