"""Facts about a media file that ffprobe, which comes with ffmpeg, reads from its header; pydub asks it."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

PROBE = "ffprobe"
#: Containers whose header holds the length. ffprobe estimates that of the others from their size.
TIMED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "asf")


class MediaInfo(NamedTuple):
    """The number of audio streams, and the length in seconds: of the first of them, and of the whole file.

    A length is None where the header does not tell it.
    """

    sounds: int
    sound_seconds: float | None
    file_seconds: float | None


def probe_media(file: Path) -> MediaInfo | None:
    """Return what the header of a file says; None where ffprobe is missing or cannot read it."""
    if shutil.which(PROBE) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's, of modules that pydub imports
        from pydub.utils import mediainfo_json
    try:
        found = mediainfo_json(f"file:{file}")  # else a name that begins with a dash is an option
        return read_info(found)
    except (AttributeError, LookupError, OSError, TypeError, ValueError):  # of what ffprobe prints for a broken file
        return None


def read_info(found: Mapping[str, Any]) -> MediaInfo | None:
    """Return the facts in ffprobe's JSON; None where there is no stream in it."""
    streams = found.get("streams")
    if not streams:
        return None
    sounds = [stream for stream in streams if stream.get("codec_type") == "audio"]
    is_timed = found["format"].get("format_name") in TIMED
    lengths = [float(part["duration"]) if is_timed and "duration" in part else None
               for part in (sounds[0] if sounds else {}, found["format"])]  # fmt: skip
    return MediaInfo(len(sounds), *lengths)
