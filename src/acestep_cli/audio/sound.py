"""Stereo sound in memory: at other rates, faded, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Audio:
    """Stereo sound: float32 samples of shape [2, N], full scale at 1."""

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def seconds(self) -> float:
        return float(self.samples.shape[1] / self.sample_rate)


def resample(audio: Audio, rate: int) -> Audio:
    """Return `audio` at another sample rate, with its length kept to a sample."""
    if rate == audio.sample_rate:
        return audio
    samples = audio.samples.shape[1]
    return join_blocks(
        resample_blocks(one_second_blocks(audio), audio.sample_rate, rate),
        round(samples * rate / audio.sample_rate),
        rate,
    )


def resample_blocks(blocks: Iterable[NDArray[np.float32]], rate: int, wanted: int) -> Iterator[NDArray[np.float32]]:
    """Yield stereo blocks [2, n] at another sample rate; soxr streams through them."""
    if rate == wanted:
        yield from blocks
        return
    import numpy as np
    import soxr

    stream = soxr.ResampleStream(rate, wanted, 2, dtype="float32", quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block.T)).T
    yield stream.resample_chunk(np.zeros((0, 2), np.float32), last=True).T  # the rest in the filter


def join_blocks(blocks: Iterable[NDArray[np.float32]], samples: int, rate: int) -> Audio:
    """Return the blocks in a row, cut or padded with silence to `samples`."""
    import numpy as np

    joined = np.zeros((2, samples), np.float32)
    place = 0
    for block in blocks:
        kept = block[:, : samples - place]
        joined[:, place : place + kept.shape[1]] = kept
        place += kept.shape[1]
    return Audio(joined, rate)


def apply_fades(audio: Audio, fade_in: float, fade_out: float) -> Audio:
    """Return `audio` with its beginning and end faded over so many seconds. The argument is not changed.

    The gain is a quarter sine: the power follows a raised cosine, which is smooth at both ends.
    """
    if not fade_in and not fade_out:
        return audio
    import numpy as np

    samples = audio.samples.copy()
    for seconds, ordered in ((fade_in, samples), (fade_out, samples[:, ::-1])):
        length = round(seconds * audio.sample_rate)
        for start in range(0, min(length, samples.shape[1]), audio.sample_rate):
            part = ordered[:, start : min(start + audio.sample_rate, length)]
            part *= np.sin(np.pi / 2 * np.arange(start, start + part.shape[1]) / length).astype(np.float32)
    return Audio(samples, audio.sample_rate)


def one_second_blocks(audio: Audio) -> Iterator[NDArray[np.float32]]:
    """Yield the samples [2, n], one second at a time."""
    for start in range(0, audio.samples.shape[1], audio.sample_rate):
        yield audio.samples[:, start : start + audio.sample_rate]


class BlockQueue:
    """Samples [2, n] that come in blocks of one length and are taken in blocks of another."""

    def __init__(self, blocks: Iterator[NDArray[np.float32]]) -> None:
        import numpy as np

        self._blocks, self._waiting = blocks, np.zeros((2, 0), np.float32)

    def take(self, count: int) -> NDArray[np.float32]:
        """Return the next samples [2, count], or fewer at the end."""
        import numpy as np

        pieces = [self._waiting]
        while sum(piece.shape[1] for piece in pieces) < count and (block := next(self._blocks, None)) is not None:
            pieces.append(block)
        joined = np.concatenate(pieces, axis=1)
        self._waiting = joined[:, count:]
        return joined[:, :count]
