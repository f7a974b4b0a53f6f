"""Headers of frames of MPEG audio, and the tags in front of them. Sizes and places are in bytes."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

BITRATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""In kbit/s, of MPEG 1 or not, by layer (ISO 11172-3, 2.4.2.3; ISO 13818-3, 2.4.2.3)."""


@dataclass(frozen=True)
class Frame:
    """Header of an MPEG frame: its bytes, its samples, and its `kind`, which all frames of a stream share.

    `note` is the offset at which a Xing header would be.
    """

    size: int
    samples: int
    kind: tuple[int, int, int, bool]
    note: int


def mpeg_frame(data: mmap.mmap, place: int) -> Frame | None:
    """Return the frame at `place`; None where there is none, or one of free bitrate, which does not tell its size."""
    head = data[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or index in (0, 15) or rate_index == 3:
        return None
    first = version == 3
    mono = head[3] >> 6 == 3
    rate = (44_100, 48_000, 32_000)[rate_index] >> (0 if first else 1 if version == 2 else 2)
    bitrate = 1000 * BITRATES[first, layer][index - 1]
    samples = 384 if layer == 1 else 576 if layer == 3 and not first else 1152
    size = (12 * bitrate // rate + padding) * 4 if layer == 1 else samples // 8 * bitrate // rate + padding
    note = 4 + ((17 if mono else 32) if first else (9 if mono else 17))
    return Frame(size, samples, (version, layer, rate, mono), note)


def after_tag(data: mmap.mmap, start: int) -> int:
    """Return the place after the ID3v2 tags at `start`."""
    while data[start : start + 3] == b"ID3" and len(header := data[start : start + 10]) == 10:
        size = sum((byte & 0x7F) << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))
        start += 10 + size + (10 if header[5] & 0x10 else 0)
    return start
