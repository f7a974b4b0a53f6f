"""A key of a song: the one row from which its flag, help, completion, schema and messages derive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acestep_cli.song.values import Kind

# The panels of `--help`.
SONG, SONGWRITER, SOURCE, SOUND, OUTPUT, TAGS = "Song", "Songwriter", "Source", "Sound", "Output", "Tags"
CORRECTIONS = "Corrections"
#: The map of a spec that holds the settings of the Songwriter's sampling.
SONGWRITER_OPTIONS = "songwriter_options"


@dataclass(frozen=True)
class Key:
    """A key of the song spec: its kind of value, its help text, the panel of `--help` it stands in."""

    kind: Kind
    help: str
    panel: str
    short: str | None = None
    #: False for a key that has no flag.
    flag: bool = True
    #: The name of its flag where that differs from the key's: a list, whose flag is given once for each item.
    singular: str | None = None
    #: True for a key that is part of the recipe hash. False where it shapes neither the samples nor their encoding, and
    #: for the seed, which is compared by itself.
    shapes: bool = True
    #: Values for the schema, as a spec writes them.
    examples: tuple[Any, ...] = ()
    #: A flag that sets one certain value, and that value.
    switch: tuple[str, str] | None = None
    #: The map of a spec that holds it, if any. Its flag has its own name.
    group: str | None = None
    #: The value that changes nothing. It is left out of the recipe hash, so that takes from before the key existed keep
    #: theirs.
    neutral: Any = None
