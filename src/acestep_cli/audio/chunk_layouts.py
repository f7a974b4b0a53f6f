"""Layouts of audio files that are made of chunks (WAV, RF64, W64, AIFF, CAF), and of AU.

Where the samples lie, how many bytes of them the header promises, and where another file may begin. Sizes and places
are in bytes.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

#: A header that promises more than is there, and at least this size, was written to a pipe: sox says 0x7F000000 and
#: 0x7FFFF000, ffmpeg and arecord more. No recording that is short enough to be read is as large.
ENDLESS_BYTES = 0x7F000000
#: The forms of an IFF file that are sound of the Amiga.
SVX = (b"8SVX", b"16SV")
#: The codecs of CAF whose samples all have the same number of bytes.
CAF_SAMPLES = (b"lpcm", b"alaw", b"ulaw")
#: The rest of the identifier of the outer chunk of a W64 file, which begins with `riff`.
W64_RIFF = bytes.fromhex("2e91cf11a5d628db04c10000")


@dataclass(frozen=True)
class Size:
    """A number in a header that depends on the bytes of samples: `(samples + added) // unit`."""

    place: int
    format: str
    added: int = 0
    unit: int = 1

    def write(self, head: bytearray, start: int, samples: int) -> None:
        """Write it for so many bytes of `samples` into the header `head`, which begins at `start` in its file."""
        most = 2 ** (8 * struct.calcsize(self.format)) - 1
        struct.pack_into(self.format, head, self.place - start, min((samples + self.added) // self.unit, most))


@dataclass(frozen=True)
class Layout:
    """Layout of a stream: the place of its samples, the bytes of them that its header promises, and possible ends.

    There are several `ends`, since writers differ. Where `promised` is None the header does not know its length, and
    the true length is to be written to `sizes`. Where its samples are not `in_proportion` to its bytes, their number is
    elsewhere in it.
    """

    samples: int
    promised: int | None
    ends: tuple[int, ...] = ()
    sizes: tuple[Size, ...] = ()
    in_proportion: bool = True


def chunks(data: mmap.mmap, start: int, header: str, *, padded: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield identifier, place of the content and size of each chunk from `start` on."""
    length = struct.calcsize(header)
    while len(head := data[start : start + length]) == length:
        name, size = struct.unpack(header, head)
        yield name, start + length, size
        start += length + size + -size % padded


def are_chunks(data: mmap.mmap, start: int, header: str) -> bool:
    """Tell whether chunks fill the file from `start` on, rather than samples."""
    for name, place, size in chunks(data, start, header, padded=2):
        start = place + size
        if not is_name(name) or start > len(data):
            return False
    return len(data) - start <= 1


def is_name(name: bytes) -> bool:
    return name.isascii() and name.decode("ascii").isprintable()


def wav(data: mmap.mmap, start: int) -> Layout | None:
    order = ">" if data[start : start + 4] == b"RIFX" else "<"
    [outer] = struct.unpack(f"{order}I", data[start + 4 : start + 8].ljust(4, b"\0"))
    long: int | None = None
    sizes: tuple[Size, ...]
    align = 1
    for name, place, size in chunks(data, start + 12, f"{order}4sI", padded=2):
        if name == b"ds64":
            long = place
        elif name == b"fmt ":
            align = max(1, int.from_bytes(data[place + 12 : place + 14], "little"))
        elif name == b"data":
            there = len(data) - place
            if long is None:
                sizes = (Size(start + 4, f"{order}I", place - start - 8), Size(place - 4, f"{order}I"))
            else:
                outer, size, _ = struct.unpack("<QQQ", data[long : long + 24])
                outer_size = Size(long, "<Q", place - start - 8)
                sizes = (outer_size, Size(long + 8, "<Q"), Size(long + 16, "<Q", unit=align))
            # An empty one that was closed properly may have other chunks behind its samples.
            closed = size == 0 and abs(start + 8 + outer - len(data)) <= 1 and are_chunks(data, place, f"{order}4sI")
            unknown = there > 0 and ((size == 0 and not closed) or (size > there and size >= ENDLESS_BYTES))
            ends = (start + 8 + outer + outer % 2, place + size, place + size + size % 2, start + 8 + outer)
            return Layout(place, None if unknown else size, tuple(end for end in ends if end >= place + size), sizes)
    return None


def w64(data: mmap.mmap, start: int) -> Layout | None:
    place = start + 40
    while len(head := data[place : place + 24]) == 24:
        name, size = head[:4], int.from_bytes(head[16:], "little")
        if name == b"data":
            samples, there = place + 24, len(data) - place - 24
            unknown = there > 0 and (size <= 24 or (size - 24 > there and size >= ENDLESS_BYTES))
            sizes = (Size(start + 16, "<Q", samples - start), Size(place + 16, "<Q", 24))
            end = place + size
            return Layout(samples, None if unknown else size - 24, (end, end + -size % 8), sizes)
        if size < 24:
            return None
        place += size + -size % 8
    return None


def aiff(data: mmap.mmap, start: int) -> Layout | None:
    """Return the layout of an AIFF, or of the older 8SVX and 16SV of the Amiga."""
    outer = int.from_bytes(data[start + 4 : start + 8], "big")
    # The samples of an AIFF come after an offset and the size of a block.
    wanted, before = (b"BODY", 0) if data[start + 8 : start + 12] in SVX else (b"SSND", 8)
    for name, place, size in chunks(data, start + 12, ">4sI", padded=2):
        if name == wanted:
            samples, there = place + before, len(data) - place - before
            closed = size <= before and abs(start + 8 + outer - len(data)) <= 1 and are_chunks(data, samples, ">4sI")
            endless = size - before > there and size >= ENDLESS_BYTES
            promised = None if there > 0 and (endless or (size <= before and not closed)) else max(size - before, 0)
            sizes = (Size(start + 4, ">I", samples - start - 8), Size(place - 4, ">I", before))
            ends = (start + 8 + outer + outer % 2, place + size, place + size + size % 2, start + 8 + outer)
            return Layout(samples, promised, tuple(end for end in ends if end >= place + size), sizes)
    return None


def caf(data: mmap.mmap, start: int) -> Layout | None:
    place, size, ends, in_proportion = 0, 0, list[int](), True
    for name, content, length in chunks(data, start + 8, ">4sQ", padded=1):
        if not is_name(name):
            break
        if name == b"desc" and not place:
            in_proportion = data[content + 8 : content + 12] in CAF_SAMPLES
        if name == b"data" and not place:
            place, size = content, length
        if place:  # where the file may end; libsndfile pads what is odd, and the format does not
            end = content + length
            ends += [end, end + end % 2]
    if not place:
        return None
    there = len(data) - place
    unknown = there > 4 and (size <= 4 or (size > there and size >= ENDLESS_BYTES))
    samples = place + 4  # after the count of edits
    promised = None if unknown else max(size - 4, 0)
    return Layout(samples, promised, tuple(ends), (Size(place - 8, ">Q", 4),), in_proportion)


def au(data: mmap.mmap, start: int) -> Layout | None:
    header, size = struct.unpack(">II", data[start + 4 : start + 12].ljust(8, b"\0"))
    samples = start + header
    there = len(data) - samples
    unknown = there > 0 and (size == 0 or (size > there and size >= ENDLESS_BYTES))
    return Layout(samples, None if unknown else size, (samples + size,), (Size(start + 8, ">I"),))
