"""Containers of audio files: where each stream begins and ends, and how much of it its header promises.

libsndfile reads only the first stream of a file, as much of it as is there, and does not mention the rest. It guesses
the length of an MP3 without a Xing header from its first frame. So the bytes are parsed here first: a file that holds
several streams in a row (`cat a.mp3 b.mp3`) is read stream by stream, and a file that was cut short is told apart from
one that was written to a pipe, whose header could not know its length.

Sizes and places are in bytes.
"""

from __future__ import annotations

import io
import mmap
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from acestep_cli.audio import header_lengths
from acestep_cli.audio.chunk_layouts import W64_RIFF, Layout, aiff, au, caf, w64, wav
from acestep_cli.audio.mpeg_frames import Frame, after_tag, mpeg_frame

#: How many times longer an MP3 without a header about its length is made to look: the smallest frame (8 kbit/s) is a
#: fortieth of the largest (320 kbit/s), by which libsndfile may guess.
STRETCH = 64
#: Where in a stream of FLAC the 64 bits are whose last 36 are its length in samples (RFC 9639, 8.2).
FLAC_LENGTH, FLAC_LENGTH_BITS = 18, 36
#: How far beyond other bytes the next frame of an MP3 is searched for.
JUNK_BYTES = 1 << 20
#: What the first bytes of a stream look like, which are not found in samples by chance; an MP3 is known by its tag or
#: its Xing header, and its frames are looked at too. Without groups, a search of long files is faster.
BEGINNING = re.compile(
    rb"fLaC\0\0\0\x22|fLaC\x80\0\0\x22|OggS\0\x02|caff\0\x01\0\0desc"
    rb"|RIFF....WAVE|RIFX....WAVE|RF64....WAVE|BW64....WAVE|FORM....AIFF|FORM....AIFC|ID3[\x02-\x04]|Xing|Info",
    re.DOTALL,
)
#: The offsets at which a frame of MPEG audio may have a Xing header.
XING_PLACES = (13, 21, 36)
NONZERO = re.compile(rb"[^\0]")


@dataclass(frozen=True)
class Stream:
    """A stream of audio that can be decoded alone.

    `pieces` in a row make up its file: literal bytes, or ranges of the file that it was found in. `share` is the part
    of the promised samples that is there: 1 for all, or where libsndfile finds that out itself. `samples` is its
    length where it was counted because libsndfile would guess it. `promised` is the length by a header that was hidden
    from libsndfile. `warning` is the rest of a sentence about the file.
    """

    pieces: tuple[bytes | range, ...]
    share: float = 1.0
    samples: int | None = None
    promised: int | None = None
    warning: str | None = None


class Pieces(io.RawIOBase):
    """A read-only file made of pieces of another. If `stretched`, it reports a length `STRETCH` times its own."""

    def __init__(self, path: Path, pieces: Sequence[bytes | range], *, stretched: bool = False) -> None:
        self._file = path.open("rb")
        self._pieces = pieces
        self._length = sum(map(len, pieces))
        self._place = 0
        self._stretch = STRETCH if stretched else 1
        self._asked_length = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = (0, self._place, self._length)[whence] + offset
        self._asked_length = whence == io.SEEK_END
        return self.tell()

    def tell(self) -> int:
        return self._place * (self._stretch if self._asked_length else 1)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with the next bytes, across pieces, and return their number."""
        view = memoryview(buffer).cast("B")
        filled, start = 0, 0
        for piece in self._pieces:
            within = self._place - start
            if filled < len(view) and 0 <= within < len(piece):
                data = self._of(piece, within, len(view) - filled)
                view[filled : filled + len(data)] = data
                filled += len(data)
                self._place += len(data)
            start += len(piece)
        return filled

    def _of(self, piece: bytes | range, within: int, wanted: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[within : within + wanted]
        self._file.seek(piece.start + within)
        return self._file.read(min(wanted, len(piece) - within))

    def close(self) -> None:
        self._file.close()
        super().close()


def streams(path: Path) -> list[Stream] | None:
    """The streams in a file, in their order; None where its container is not one that is known here.

    Raises `OSError` where the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # it is empty
            return None
        with closing(data):
            if (lone := with_header_length(data)) is not None:
                return [lone]
            start, found = 0, list[Stream]()
            while (start := after_zeros(data, after_tag(data, start))) < len(data):
                if (reader := reader_of(data, start)) is None:
                    break
                more, start = reader(data, start)
                found += more
            return found or None


def with_header_length(data: mmap.mmap) -> Stream | None:
    """Return the stream of a file of one of the containers of `header_lengths`; None for any other."""
    length = header_lengths.read_length(data)
    if length is None:
        return None
    if not length.corrected:
        return Stream((range(len(data)),), promised=length.promised)
    return Stream((length.corrected, range(len(length.corrected), len(data))), promised=length.promised)


Reader = Callable[[mmap.mmap, int], tuple[Iterable[Stream], int]]
"""The streams from a place on that are of one kind, and where they end."""


def reader_of(data: mmap.mmap, start: int) -> Reader | None:
    head = data[start : start + 16]
    for magic, reader in READERS.items():
        if head.startswith(magic):
            return reader
    return all_of(mpeg) if mpeg_frame(data, start) is not None else None


def all_of(read: Callable[[mmap.mmap, int], Iterator[Stream]]) -> Reader:
    """Return a reader of streams of one kind, which end where one of another kind begins, or the file."""

    def until_others(data: mmap.mmap, start: int) -> tuple[Iterable[Stream], int]:
        found = list(read(data, start))
        last = found[-1].pieces[-1] if found else b""
        return found, next_stream(data, max(last.stop, start + 1)) if isinstance(last, range) else len(data)

    return until_others


def next_stream(data: mmap.mmap, start: int, end: int | None = None) -> int:
    """Return the first place from `start` on where a stream of any kind begins for certain; else `end`, or the file's.

    Other bytes look like a frame of an MP3 now and then. It is searched for by its tag, or by its Xing header.
    """
    end = len(data) if end is None else end
    for found in BEGINNING.finditer(data, start, end):
        if (mark := found[0][:3]) not in (b"ID3", b"Xin", b"Inf"):
            return found.start()
        for before in (0,) if mark == b"ID3" else XING_PLACES:
            place = found.start() - before
            if place >= start and begins_mpeg(data, place):
                return place
    return end


def begins_mpeg(data: mmap.mmap, place: int) -> bool:
    """Tell whether frames of MPEG audio begin at `place`, after a tag or without one: three of them in a row."""
    kind, place = None, after_zeros(data, after_tag(data, place))
    for _ in range(3):
        frame = mpeg_frame(data, place)
        if frame is None or kind not in (None, frame.kind):
            return False
        kind, place = frame.kind, place + frame.size
    return True


def after_zeros(data: mmap.mmap, start: int) -> int:
    """Return the place after the zeros at `start`, with which some programs fill up a tag."""
    found = NONZERO.search(data, start)
    return start if found is None else found.start()


# WAV, W64, AIFF, CAF and AU


def chunked(layout: Callable[[mmap.mmap, int], Layout | None], again: bytes) -> Reader:
    """Return a reader of the streams that `layout` parses.

    After a stream of unknown length, the bytes `again` mark the beginning of another one.
    """

    def read(data: mmap.mmap, start: int) -> tuple[Iterable[Stream], int]:
        found = layout(data, start)
        if found is None or found.samples > len(data):  # libsndfile has the word for it
            return [Stream((range(start, len(data)),))], len(data)
        there = len(data) - found.samples
        if found.promised is not None and found.promised <= there:
            end = min((end for end in found.ends if follows(data, end)), default=len(data))
            return [Stream((range(start, end),))], end
        end = len(data) if found.promised is not None else another(data, found.samples, again)
        head = bytearray(data[start : found.samples])
        for size in found.sizes:
            size.write(head, start, end - found.samples)
        share = 1.0 if found.promised is None or not found.in_proportion else there / found.promised
        return [Stream((bytes(head), range(found.samples, end)), share)], end

    return read


def follows(data: mmap.mmap, place: int) -> bool:
    """Tell whether another stream begins at `place`. One frame of an MP3 does not count: other bytes look like one."""
    if place >= len(data):  # far behind, by what some headers say
        return False
    head = data[place : place + 16]
    return any(head.startswith(magic) for magic in READERS) or begins_mpeg(data, place)


def another(data: mmap.mmap, start: int, again: bytes) -> int:
    """Return the place of the next stream of the same kind, marked by `again`; else the end of the file."""
    place = data.find(again, start) if again else -1
    place -= 8 if again.startswith(b"WAVE") else 0  # behind the name and the length of the outer chunk
    return place if place > start and follows(data, place) else len(data)


# FLAC


def flac(data: mmap.mmap, start: int) -> Iterator[Stream]:
    """Yield each stream of FLAC.

    No header says where its frames end. The next stream begins with the marker of the format and the header of the
    block that must follow.
    """
    while True:
        place, last = start + 4, False
        while not last and len(head := data[place : place + 4]) == 4:  # what blocks hold may look like a stream
            last = bool(head[0] & 0x80)
            place += 4 + int.from_bytes(head[1:], "big")
        end = next_stream(data, place)
        yield unbounded(data, start, end)
        if data[end : end + 4] != b"fLaC":
            return
        start = end


def unbounded(data: mmap.mmap, start: int, end: int) -> Stream:
    """Return a stream of FLAC whose header does not name its length any more.

    libsndfile stops at the length in the header, and those of joined or edited files are too small.
    """
    head = bytearray(data[start : start + FLAC_LENGTH + 8])
    length = int.from_bytes(head[FLAC_LENGTH:], "big") if len(head) == FLAC_LENGTH + 8 else 0
    promised = length % (1 << FLAC_LENGTH_BITS)
    if not promised:
        return Stream((range(start, end),))
    head[FLAC_LENGTH:] = (length - promised).to_bytes(8, "big")
    return Stream((bytes(head), range(start + len(head), end)), promised=promised)


# Ogg


def ogg(data: mmap.mmap, start: int) -> Iterator[Stream]:
    """Yield each link of an Ogg chain (RFC 3533).

    A link begins at a first page of a stream that follows another kind of page. One without a last page was cut short,
    or never finished by its writer.
    """
    place, begun, end, first, last = start, start, start, True, False
    while (place := data.find(b"OggS", place)) >= 0:
        header = data[place : place + 27]
        table = data[place + 27 : place + 27 + (header[26] if len(header) == 27 else 0)]
        size = 27 + len(table) + sum(table)
        if len(header) < 27 or header[4] != 0:
            place += 4
            continue
        begins = bool(header[5] & 2)
        if begins and not first:
            yield link(range(begun, place), finished=last)
            begun, last = place, False
        first = begins
        last = (last or bool(header[5] & 4)) and place + size <= len(data)
        place = end = min(place + size, len(data))
    yield link(range(begun, end if end > begun else len(data)), finished=last)


def link(where: range, *, finished: bool) -> Stream:
    unfinished = "has no last page, so that its length is not known; it may be cut short, and is read to its end"
    return Stream((where,), warning=None if finished else unfinished)


# MPEG audio


def mpeg(data: mmap.mmap, start: int) -> Iterator[Stream]:
    """Yield each stream of MPEG audio. One begins with a header about its length, or where rate or channels change.

    A Xing header is kept for the frames that it counts, since it tells the padding to leave out. Frames beyond them
    are another stream.
    """
    begun, end, kind, frames, promised, rest = start, start, None, 0, None, False  # of the stream at hand
    samples = 0

    def made() -> Iterator[Stream]:
        # Some encoders do not count their last frame, which is padding.
        if frames > (1 if rest else 0):
            yield Stream((range(begun, end),), samples=frames * samples if promised is None else None)

    place = start
    while (found := next_frame(data, place, kind)) is not None:
        place, frame = found
        if place + frame.size > len(data):
            break
        head = data[place : place + 192]
        xing = head[frame.note : frame.note + 4] in (b"Xing", b"Info") and frame.kind[1] == 3
        vbri = head[36:40] == b"VBRI" and frame.kind[1] == 3
        full = frames == promised
        if xing or vbri or full or frame.kind != kind:
            yield from made()
            begun, frames, promised, rest = place, 0, None, full and not (xing or vbri)
        kind, samples = frame.kind, frame.samples
        place += frame.size
        end = place
        if vbri:  # libsndfile would play it
            begun = place
        elif xing and head[frame.note + 7] & 1:
            promised = int.from_bytes(head[frame.note + 8 : frame.note + 12], "big") or None
        elif not xing:
            frames += 1
    yield from made()


def next_frame(data: mmap.mmap, place: int, kind: tuple[int, int, int, bool] | None) -> tuple[int, Frame] | None:
    """Return the next frame and its place, at `place` or after tags and damage; None where there is none.

    After other bytes, a frame counts only if another one follows it.
    """
    place = after_tag(data, place)
    frame = mpeg_frame(data, place)
    if frame is not None and (kind is None or frame.kind == kind):
        return place, frame
    limit = next_stream(data, place, min(len(data), place + JUNK_BYTES))
    while 0 <= place < limit:
        frame = mpeg_frame(data, place)
        if frame is not None:
            following = mpeg_frame(data, place + frame.size)
            if following is not None and following.kind == frame.kind:
                return place, frame
        place = data.find(b"\xff", place + 1)
    return None


READERS: Mapping[bytes, Reader] = {
    b"RIFF": chunked(wav, b"WAVEfmt "),
    b"RIFX": chunked(wav, b"WAVEfmt "),
    b"RF64": chunked(wav, b"WAVEds64"),
    b"BW64": chunked(wav, b"WAVEds64"),
    b"riff" + W64_RIFF: chunked(w64, b"riff" + W64_RIFF),
    b"FORM": chunked(aiff, b""),
    b"caff": chunked(caf, b"caff\0\1\0\0desc"),
    b".snd": chunked(au, b""),
    b"fLaC": all_of(flac),
    b"OggS": all_of(ogg),
}
"""By the bytes that a file begins with."""
