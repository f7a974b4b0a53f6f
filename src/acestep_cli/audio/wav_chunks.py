"""Markers and the grid of a song in a WAV file: the chunks `cue `, `LIST adtl` and `acid`.

libsndfile reads them and its Python binding cannot write them. Layouts: "Multimedia Programming Interface and Data
Specifications 1.0" (IBM and Microsoft, 1991) for the first two; `acid` as ACID, Reaper and libsndfile read it.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

#: The format that has room for these chunks.
FORMAT = "wav"
#: Bits of the first word of an `acid` chunk.
ONE_SHOT, HAS_ROOT_NOTE = 0x01, 0x02
#: The note C of the octave around middle C, in MIDI.
MIDDLE_C = 60
#: The most bytes of a RIFF file, whose sizes are 32-bit words.
MOST_BYTES = 2**32 - 1


class Marker(NamedTuple):
    """A named place in a song."""

    seconds: float
    name: str


class Grid(NamedTuple):
    """The grid of a song: tempo in quarter notes per minute, time signature, and pitch class of the root note."""

    bpm: float
    beats: int = 4
    unit: int = 4
    root: int | None = None


def marker_chunks(markers: Sequence[Marker], sample_rate: int) -> bytes:
    """Return a `cue ` chunk with a point for each marker, and a `LIST adtl` chunk with their names."""
    points, labels = b"", b"adtl"
    for number, marker in enumerate(markers, start=1):
        sample = round(marker.seconds * sample_rate)
        points += struct.pack("<II4sIII", number, sample, b"data", 0, 0, sample)
        labels += riff_chunk(b"labl", struct.pack("<I", number) + marker.name.encode() + b"\0")
    return riff_chunk(b"cue ", struct.pack("<I", len(markers)) + points) + riff_chunk(b"LIST", labels)


def grid_chunk(grid: Grid, seconds: float) -> bytes:
    """Return an `acid` chunk: a song of `seconds` that is played once, not looped and not stretched."""
    flags, root = ONE_SHOT, MIDDLE_C
    if grid.root is not None:
        flags, root = flags | HAS_ROOT_NOTE, MIDDLE_C + grid.root
    beats = round(seconds * grid.bpm / 60)
    return riff_chunk(
        b"acid", struct.pack("<IHHfIHHf", flags, root, 0x8000, 0.0, beats, grid.unit, grid.beats, grid.bpm)
    )


def riff_chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk, padded to an even length."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def append_chunks(path: Path, chunks: bytes) -> None:
    """Append chunks to a WAV file, and correct its size. Raises `ValueError` for another file, or one too long."""
    with path.open("r+b") as file:
        head = file.read(12)
        end = file.seek(0, io.SEEK_END)
        padding = b"\0" * (end % 2)
        size = end + len(padding) + len(chunks) - 8
        if head[:4] != b"RIFF" or head[8:] != b"WAVE" or size > MOST_BYTES:
            raise ValueError(f"{path} is no WAV file with room for markers")
        file.write(padding + chunks)
        file.seek(4)
        file.write(struct.pack("<I", size))
