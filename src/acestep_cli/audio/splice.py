"""Measurements of a song that was spliced onto its source: the change inside, the rest outside, and the seams.

The song may be a file of another sample rate and of any encoder: the source is brought to its rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from acestep_cli.audio.sound import Audio, BlockQueue, one_second_blocks, resample_blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Seconds around a seam: where a click would be, and the surroundings whose level it is compared with.
CLICK_REACH, CLICK_SURROUNDINGS = 0.001, 0.05
#: The level of digital silence, in decibels.
SILENCE_DB = -200.0

Spans = tuple[tuple[int, int], ...]
"""Parts of a song as (start, end), in samples."""


@dataclass(frozen=True)
class SplicedParts:
    """The parts of a song that was spliced onto its source.

    In the spans `untouched` the song equals its source. `replaced` holds for each part that was made anew its start in
    samples and the source [2, n] that was there. `crossfades` are the spans at the seams, in the order of time.
    """

    untouched: Spans
    crossfades: Spans
    replaced: tuple[tuple[int, NDArray[np.float32]], ...] = field(compare=False)

    @property
    def changed(self) -> Spans:
        return tuple((start, start + source.shape[1]) for start, source in self.replaced)


class SpliceMeter:
    """Measures a song, or its file, block by block against the source that it was spliced onto."""

    def __init__(self, song: Audio, parts: SplicedParts, sample_rate: int) -> None:
        """Take the song as it was spliced, and the rate of the blocks to measure."""
        self._share = sample_rate / song.sample_rate
        self._source = BlockQueue(resample_blocks(source_blocks(song, parts), song.sample_rate, sample_rate))
        # The filter of another rate smears what is beyond a seam over it.
        margin = 0 if sample_rate == song.sample_rate else math.ceil(CLICK_REACH * sample_rate)
        self._untouched = [(start + margin * (start > 0), end - margin) for start, end in self._scaled(parts.untouched)]
        self._changed = self._scaled(parts.changed)
        self._seams = [Seam(start, end, sample_rate) for start, end in self._scaled(parts.crossfades)]
        self._frames, self._outside, self._squares, self._count = 0, 0.0, 0.0, 0

    def add(self, block: NDArray[np.float32]) -> None:
        """Measure the next samples [2, n]. Those beyond the end of the source count for the seams alone."""
        import numpy as np

        source = self._source.take(block.shape[1])
        apart = np.abs(block[:, : source.shape[1]] - source)
        for piece in cut(apart, self._frames, self._untouched):
            self._outside = max(self._outside, float(piece.max(initial=0)))
        for piece in cut(apart, self._frames, self._changed):
            self._squares += float(np.square(piece, dtype=np.float64).sum())
            self._count += piece.size
        for seam in self._seams:
            seam.add(block, self._frames)
        self._frames += block.shape[1]

    def checks(self) -> dict[str, float]:
        """Return the measurements, at the end of the song.

        They are the largest difference outside of the regions and their crossfades, and in decibels the change inside
        and the step at each seam.
        """
        inside = math.sqrt(self._squares / self._count) if self._count else 0.0
        return {
            "outside_difference": round(self._outside, 6),
            "inside_change_db": round(decibels(inside), 2),
            **{f"seam_{number}_db": round(seam.step_db(), 2) for number, seam in enumerate(self._seams, start=1)},
        }

    def _scaled(self, spans: Spans) -> list[tuple[int, int]]:
        return [(math.ceil(start * self._share), int(end * self._share)) for start, end in spans]


class Seam:
    """The step at one crossfade: the largest difference between neighbouring samples within a millisecond of it,
    relative to the root mean square of the 50 milliseconds around.
    """

    def __init__(self, start: int, end: int, sample_rate: int) -> None:
        reach, around = round(CLICK_REACH * sample_rate), round(CLICK_SURROUNDINGS * sample_rate)
        self._near = (max(start - reach, 0), end + reach)
        self._around = (max(start - around, 0), end + around)
        self._pieces: dict[tuple[int, int], list[Any]] = {self._near: [], self._around: []}

    def add(self, block: NDArray[np.float32], place: int) -> None:
        """Keep those of the samples [2, n] at `place` that are near the seam."""
        for span, kept in self._pieces.items():
            kept += (piece.copy() for piece in cut(block, place, [span]))

    def step_db(self) -> float:
        import numpy as np

        nothing = np.zeros((2, 0), np.float32)
        near, around = (np.concatenate((nothing, *pieces), axis=1) for pieces in self._pieces.values())
        step = float(np.abs(np.diff(near, axis=1)).max(initial=0))
        return decibels(step) - decibels(math.sqrt(np.square(around, dtype=np.float64).sum() / max(around.size, 1)))


def source_blocks(song: Audio, parts: SplicedParts) -> Iterator[NDArray[np.float32]]:
    """Yield the source [2, n] of a spliced song, a second at a time, with the song itself in the crossfades."""
    place = 0
    for block in one_second_blocks(song):
        source = block.copy()
        for start, replaced in parts.replaced:
            first, last = max(start, place), min(start + replaced.shape[1], place + block.shape[1])
            if first < last:
                source[:, first - place : last - place] = replaced[:, first - start : last - start]
        yield source
        place += block.shape[1]


def cut(block: NDArray[Any], place: int, spans: Iterable[tuple[int, int]]) -> Iterator[NDArray[Any]]:
    """Yield the parts of a block [2, n] at `place` that lie in each of `spans`."""
    for start, end in spans:
        if (first := max(start - place, 0)) < (last := min(end - place, block.shape[1])):
            yield block[:, first:last]


def decibels(value: float) -> float:
    return max(20 * math.log10(max(value, 1e-30)), SILENCE_DB)
