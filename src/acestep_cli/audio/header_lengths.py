"""Lengths in the headers of less common containers, which libsndfile ignores: it reads as much as is there.

What else it reads is not here: PAF, PVF and IRCAM have no length in their headers, and nobody can tell half of one from
a whole; XI may say 0 of any; HTK, and VOC of 8 bits, are refused by libsndfile where the length is wrong. `containers`
parses those that hold chunks.

Layouts are those of libsndfile's own readers. Sizes and places are in bytes, lengths in samples per channel.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

SAMPLE_COUNT = re.compile(rb"^sample_count -i (\d{1,12})\s", re.MULTILINE)
#: A dump by MIDI is a header and packets, of so many bytes; a packet has so many of samples, in words of 7 bits.
SDS_HEADER, SDS_PACKET, SDS_PACKET_SAMPLES = 21, 127, 120


class HeaderLength(NamedTuple):
    """The length that a header promises, and the header with the length that is there, where libsndfile needs that."""

    promised: int
    corrected: bytes = b""


def read_length(data: mmap.mmap) -> HeaderLength | None:
    """Return the length in the header of a file; None where there is none, or the container is not one of these."""
    head = data[:16]
    reader = next((reader for magic, reader in READERS.items() if head.startswith(magic)), None)
    found = None if reader is None else reader(data)
    if isinstance(found, int):
        return HeaderLength(found) if found else None
    return found


def number(data: mmap.mmap, place: int, size: int = 4, *, little: bool = True) -> int:
    """Return an unsigned number in the file; bytes beyond its end are 0."""
    return int.from_bytes(data[place : place + size].ljust(size, b"\0"), "little" if little else "big")


def avr(data: mmap.mmap) -> int:
    return number(data, 26, little=False)


def mpc(data: mmap.mmap) -> int:
    """Return the end of an Akai MPC 2000's sound."""
    return number(data, 30)


def wve(data: mmap.mmap) -> int:
    """Return the bytes of a Psion's sound, each of which is a sample."""
    return number(data, 18, little=False)


def nist(data: mmap.mmap) -> int:
    found = SAMPLE_COUNT.search(data[: number_in(data[8:16])])
    return 0 if found is None else int(found[1])


def number_in(text: bytes) -> int:
    return int(digits) if (digits := text.strip()).isdigit() else 0


def mat4(data: mmap.mmap) -> int:
    """Return the columns of the second matrix of a MATLAB 4 file; the first one holds the sample rate."""
    little = data[:4] == bytes(4)
    second = 20 + number(data, 16, little=little) + 8  # header, name and the one double of the first
    return number(data, second + 8, little=little)


def mat5(data: mmap.mmap) -> int:
    """Return the columns of the second matrix of a MATLAB 5 file; the first one holds the sample rate."""
    little = data[126:128] == b"IM"
    second = 136 + number(data, 132, little=little)
    return number(data, second + 36, little=little)


def voc(data: mmap.mmap) -> int:
    """Return the length of a Creative Voice file's extended block; 0 for a block without channels and bits."""
    block = number(data, 20, 2)
    if data[block : block + 1] != b"\x09":
        return 0
    width = data[block + 8] // 8 * data[block + 9] if len(data) > block + 9 else 0
    return (number(data, block + 1, 3) - 12) // width if width else 0


def sds(data: mmap.mmap) -> HeaderLength | None:
    """Return the length of a MIDI sample dump. libsndfile would play silence for the packets that are not there."""
    head = data[:SDS_HEADER]
    if len(head) < SDS_HEADER:
        return None
    promised = sum(head[10 + place] << 7 * place for place in range(3))
    words = -(-head[6] // 7)
    packets = (len(data) - SDS_HEADER) // SDS_PACKET
    there = min(promised, packets * (SDS_PACKET_SAMPLES // words)) if words else promised
    length = bytes(there >> 7 * place & 0x7F for place in range(3))
    return HeaderLength(promised, head[:10] + length + head[13:])


READERS: Mapping[bytes, Callable[[mmap.mmap], int | HeaderLength | None]] = {
    b"2BIT": avr,
    b"\x01\x04": mpc,
    b"ALawSoundFile**": wve,
    b"NIST_1A": nist,
    b"\0\0\0\0\1\0\0\0\1\0\0\0": mat4,
    b"\0\0\3\xe8\0\0\0\1\0\0\0\1": mat4,
    b"MATLAB 5.0 MAT-f": mat5,
    b"Creative Voice F": voc,
    b"\xf0\x7e": sds,
}
"""By the bytes that a file begins with."""
