"""Arguments of a rendering command that are no spec: a caption, a recording, an album, or a name of nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.audio import encode
from acestep_cli.errors import AceStepError, OutputError, UsageError, shell_word
from acestep_cli.render import paths, provenance
from acestep_cli.song import document, spec
from acestep_cli.song.values import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The mode that takes text in the place of a spec.
GENERATE = "generate"
#: The origin of a caption that stands in the place of a spec.
CAPTION = "TEXT"
SEPARATORS = tuple({"/", os.sep, os.altsep or os.sep})
#: Sections that an album has, and a song has not.
ALBUM_SECTIONS = ("album", "matrix")


def is_caption(name: str) -> bool:
    """Tell whether an argument is text to make music from: no file, with a space in it, without a path or a suffix."""
    if not any(character.isspace() for character in name.strip()) or any(sign in name for sign in SEPARATORS):
        return False
    return not has_suffix_of(name, spec.SUFFIXES) and not is_audio_name(name) and not is_there(name)


def caption_layers(mode: str | None, specs: Sequence[str], flags: spec.Layer) -> list[spec.Layer]:
    """Return the caption that stands in the place of a spec as a layer; nothing where there is none.

    Raises `UsageError` where the caption is given by a flag as well, or other arguments beside it.
    """
    texts = [name for name in specs if is_caption(name)] if mode == GENERATE else []
    if not texts:
        return []
    shown = quoted(texts[0])
    if "caption" in flags.values:
        raise UsageError(
            f"{shown} is no file, so it is the caption, and {flags.values['caption'].where} gives another; leave one "
            "of them out."
        )
    if len(specs) > 1:
        raise UsageError(
            f"{shown} is no file, and as a caption it stands alone, not beside {len(specs) - 1} more.",
            "Quote all of a caption as one argument; -c gives one to specs.",
        )
    return [spec.implied_layer({"caption": texts[0]}, CAPTION)]


def unquoted_caption(mode: str | None, specs: Sequence[str]) -> UsageError | None:
    """Return the error for several words none of which is a file: a caption that lacks its quotes, most likely."""
    suffixes = (*spec.SUFFIXES, *(f".{format}" for format in encode.FORMATS))
    if (
        mode != GENERATE
        or len(specs) < 2
        or any(
            name in ("", spec.STDIN)
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
    if name == spec.STDIN:
        return
    if is_audio_name(name):
        raise UsageError(f"{name} is a recording, and {mode or 'render'} takes specs.", recording_hint(name))
    if mode == GENERATE and not has_suffix_of(name, spec.SUFFIXES) and not is_there(name):
        raise UsageError(
            f"{name}: there is no such file.", f"acestep generate -c {shell_word(name)} makes music from these words."
        )
    if is_album(Path(name)):
        quoted_name = shell_word(name)
        raise UsageError(f"{name} is an album, not a song.", f"acestep album render {quoted_name} renders its tracks.")


def recording_hint(name: str) -> str:
    """Return the commands that take the recording `name`: by its recipe, where it has one, or by its sound."""
    file, shown = Path(name), shell_word(name)
    beside = paths.sidecar_path(file)
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
        found = document.parse_document(spec.read_text(str(file)), markdown=False)
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
    from acestep_cli import disk

    try:
        return disk.is_taken(Path(name))
    except OutputError:
        return False
