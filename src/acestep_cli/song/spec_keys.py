"""The keys of a spec: those of a song, those that are resolved before it, and the names that other programs have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from acestep_cli.song import request as song
from acestep_cli.song.file_values import File
from acestep_cli.song.key import SONG, SOURCE, Key
from acestep_cli.song.musical_values import LONGEST_SECONDS, Duration
from acestep_cli.song.values import suggestion

LYRICS_FILE = Key(File(), "Text file with the lyrics; - reads them from stdin.", SONG)
FROM_LYRICS_FILE = Key(File(), "Text file with the words that are sung in the source; - is stdin.", SOURCE)
BEFORE = Key(Duration(1, LONGEST_SECONDS), "Seconds to add in front of the source.", SOURCE)
AFTER = Key(Duration(1, LONGEST_SECONDS), "Seconds to add behind it.", SOURCE)
EXTENDS = Key(File(), "Another spec, whose keys hold where this one has none.", SONG, flag=False)
#: Every key a spec may have: the fields of `Request`, and those that are resolved before it is built.
KEYS: Mapping[str, Key] = {
    **song.KEYS,
    "lyrics_file": LYRICS_FILE,
    "from_lyrics_file": FROM_LYRICS_FILE,
    "before": BEFORE,
    "after": AFTER,
    "extends": EXTENDS,
}
#: The keys that name a file of text, by the key whose text it holds.
TEXT_FILES = {"lyrics": "lyrics_file", "from_lyrics": "from_lyrics_file"}
#: The keys that add seconds to a source, by the key that they decide.
EXTENSION = {"start": "before", "end": "after"}
#: The map in a sidecar about its render; ignored where the sidecar is read as a spec.
RENDER = "render"
#: Other names of keys.
SYNONYMS = {"tracks": "track"}
#: Names of the keys in other programs.
OTHER_NAMES = {
    "prompt": "caption",
    "style": "caption",
    "tags": "caption",
    "lyric": "lyrics",
    "vocal_language": "language",
    "tempo": "bpm",
    "keyscale": "key",
    "timesignature": "time_signature",
    "length": "duration",
    "audio_duration": "duration",
    "audio_codes": "codes",
    "inference_steps": "steps",
    "infer_step": "steps",
    "guidance_scale": "guidance",
    "sampler": "solver",
    "batch_size": "takes",
    "audio_format": "format",
}


def flag_of(name: str) -> str:
    """Return the flag of a key, whether it is a key of a song or another name."""
    singular = KEYS[name].singular if name in KEYS else None
    return "--" + (singular or name).replace("_", "-")


def key_named(name: str) -> str:
    """Return the key that `name` is, ignoring capitals, blanks and dashes; `name` itself where it is not a key."""
    plain = re.sub(r"[\s-]+", "_", name.strip().casefold())
    return plain if plain in (*KEYS, *SYNONYMS, *song.GROUPS) else name


def canonical_key(written: str) -> str:
    """Return the key that somebody means: with underscores, by its own name; as `written` where it is none."""
    name = key_named(written.strip().replace("-", "_"))
    return SYNONYMS.get(name, name)


def nearest_key(name: str) -> str:
    """Return `; did you mean 'bpm'?` for a name that is not a key."""
    return f"; did you mean {OTHER_NAMES[name]!r}?" if name in OTHER_NAMES else suggestion(name, KEYS)


def is_on(instrumental: Any) -> bool:
    """Tell whether the value of `instrumental`, as written, means that nobody sings."""
    try:
        return bool(KEYS["instrumental"].kind.read(instrumental))
    except ValueError:
        return False  # and refused in its turn
