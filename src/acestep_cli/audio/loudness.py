"""Loudness and peaks of audio, and the gain that sets them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from acestep_cli.audio.sound import Audio, one_second_blocks
from acestep_cli.errors import CheckError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The range of levels of each kind, in decibels.
LEVELS = {"peak": (-60.0, 0.0), "lufs": (-60.0, -5.0)}
TRUE_PEAK_LIMIT = 10 ** (-1 / 20)  # what EBU R 128 and the streaming services allow
#: Seconds of the blocks whose loudness is gated, and from the beginning of one to that of the next: BS.1770-4.
LOUDNESS_BLOCK, LOUDNESS_HOP, HOPS_IN_BLOCK = 0.4, 0.1, 4
#: In Hz. Below twice the 1682 Hz of the first filter of the standard, it would amplify without end.
LOWEST_RATE = 4000
#: The K filter: a high shelf, and a high pass whose double pole rings longest; after K_RINGING seconds by e^-59.
SHELF_HZ, SHELF_DB, HIGH_PASS_HZ, K_RINGING = 1500, 4, 38, 0.25
#: For true peaks (ITU-R BS.1770-4, annex 2): samples on each side that the filter reaches, and the margin of a block.
OVERSAMPLING, INTERPOLATION_REACH, TRUE_PEAK_MARGIN = 4, 10, 64
#: Below this peak (-120 dBFS) there is nothing to hear.
SILENCE = 1e-6
#: Treatment of peaks over full scale where no level is asked for: write them, which takes floating point; turn
#: everything down until they fit; or clip them, while the rest keeps its level.
KEEP, TURN_DOWN, CLIP = "keep", "turn down", "clip"


@dataclass(frozen=True)
class Loudness:
    """A requested level. `kind` is none, peak (`decibels` in dBFS) or lufs (integrated, in LUFS)."""

    kind: str
    decibels: float = 0.0


def parse_loudness(text: str) -> Loudness:
    """Parse `none`, `peak:DB` or `lufs:LUFS`. Raises `ValueError` for other text."""
    if text == "none":
        return Loudness("none")
    kind, _, level = text.partition(":")
    try:
        decibels = float(level)
    except ValueError:
        decibels = math.nan
    low, high = LEVELS.get(kind, (0.0, -1.0))
    if not low <= decibels <= high:
        raise ValueError(
            f"{text[:40]!r} is neither none, nor peak:DB, such as peak:-1, from -60 to 0 dBFS, nor lufs:LUFS, such as "
            "lufs:-14, from -60 to -5"
        )
    return Loudness(kind, decibels)


@dataclass(frozen=True)
class Level:
    """Sample peak and loudness of audio, and the factor `gain` that sets its level.

    `lufs` is measured only where a loudness is asked for. `reached` is then the loudness that `gain` gives: less than
    asked where true peaks would exceed their limit. With `clips`, samples over full scale are clipped.
    """

    peak: float
    gain: float
    lufs: float | None = None
    reached: float | None = None
    clips: bool = False


def find_level(audio: Audio, asked: str, overs: str = TURN_DOWN) -> Level:
    """Return the level that brings `audio` to the loudness asked for (ITU-R BS.1770-4).

    Where that is `none`, `overs` decides on peaks over full scale. Raises `CheckError` if the audio is silent or not
    finite.
    """
    highest = sample_peak(audio)
    wanted = parse_loudness(asked)
    if wanted.kind == "none":
        gain = 1 / highest if overs == TURN_DOWN and highest > 1 else 1.0
        return Level(highest, gain, clips=overs == CLIP and highest > 1)
    if wanted.kind == "peak":
        return Level(highest, float(10 ** (wanted.decibels / 20)) / highest)
    measured = integrated_loudness(audio)
    if not math.isfinite(measured):  # everything is under its gate of -70 LUFS
        raise CheckError("The rendered audio is too quiet to measure its loudness, so no file was written.")
    gain = min(10 ** ((wanted.decibels - measured) / 20), TRUE_PEAK_LIMIT / true_peak(audio))
    return Level(highest, gain, measured, measured + 20 * math.log10(gain))


def at_level(block: NDArray[np.float32], level: Level) -> NDArray[np.float32]:
    """Return the samples of a block [2, n] at `level`."""
    scaled = block * level.gain
    return scaled.clip(-1, 1) if level.clips else scaled


@lru_cache(maxsize=8)
def k_weighting(sample_rate: int, count: int) -> NDArray[np.complex128]:
    """Return the response of the K filter of BS.1770-4 at the frequencies of an FFT of `count` samples.

    The high shelf and the high pass are those of pyloudnorm, whose import, with SciPy's filters, takes a seventh of the
    processor time of a ten-second `pocket` song. Formulas: the Audio EQ Cookbook.
    """
    import numpy as np

    delay = np.exp(-2j * np.pi * np.arange(count // 2 + 1) / count)

    def biquad(numerator: Sequence[float], denominator: Sequence[float]) -> NDArray[np.complex128]:
        above, below = (taps[0] + taps[1] * delay + taps[2] * delay**2 for taps in (numerator, denominator))
        response: NDArray[np.complex128] = above / below
        return response

    turn = 2 * math.pi * SHELF_HZ / sample_rate
    amplitude, cosine = 10 ** (SHELF_DB / 40), math.cos(turn)
    more, less, slope = amplitude + 1, amplitude - 1, math.sqrt(2 * amplitude) * math.sin(turn)
    shelf = amplitude * biquad(
        (more + less * cosine + slope, -2 * (less + more * cosine), more + less * cosine - slope),
        (more - less * cosine + slope, 2 * (less - more * cosine), more - less * cosine - slope),
    )
    turn = 2 * math.pi * HIGH_PASS_HZ / sample_rate
    cosine, width = math.cos(turn), math.sin(turn)
    return shelf * biquad(((1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2), (1 + width, -2 * cosine, 1 - width))


class LoudnessMeter:
    """Measures the integrated loudness of a recording block by block (ITU-R BS.1770-4).

    Each block is weighted together with the samples before it for as long as the filter rings.
    """

    def __init__(self, sample_rate: int) -> None:
        import numpy as np

        self.sample_rate, self.frames = sample_rate, 0
        self._hop = round(sample_rate * LOUDNESS_HOP)
        self._before: NDArray[np.float64] = np.zeros((2, round(sample_rate * K_RINGING)))
        #: Weighted samples after the last whole hop, and the energy of each hop before.
        self._rest = np.zeros((2, 0))
        self._energies: list[NDArray[np.float64]] = []

    def add(self, block: NDArray[np.float32]) -> None:
        """Weight the next samples [2, n] by K, and sum up the energy of each hop."""
        import numpy as np

        self.frames += block.shape[1]
        if self.sample_rate < LOWEST_RATE:
            return
        ringing = self._before.shape[1]
        samples = np.concatenate((self._before, block.astype(np.float64)), axis=1)  # [2, ringing + n]
        self._before = samples[:, samples.shape[1] - ringing :]
        count = samples.shape[1]
        spectrum = np.fft.rfft(samples) * k_weighting(self.sample_rate, count)
        weighted = np.fft.irfft(spectrum, count)[:, ringing:]  # an FFT rings from its end into its beginning
        rest = np.concatenate((self._rest, weighted), axis=1)
        whole = rest.shape[1] // self._hop * self._hop
        self._energies.append(np.square(rest[:, :whole]).reshape(2, -1, self._hop).sum(axis=2).sum(axis=0))
        self._rest = rest[:, whole:]

    @property
    def is_defined(self) -> bool:
        """True where the recording is long enough, and its rate high enough, to have a loudness."""
        return self.sample_rate >= LOWEST_RATE and self.frames >= LOUDNESS_BLOCK * self.sample_rate

    def lufs(self) -> float:
        """Return the loudness in LUFS, minus infinity for audio under its gate. Raises `ValueError` where none is
        defined.
        """
        import numpy as np

        seconds = self.frames / self.sample_rate
        if not self.is_defined:
            raise ValueError(f"{seconds:g} s at {self.sample_rate} Hz have no loudness")
        # pyloudnorm counts a last block of which more than half a step is missing nothing.
        count = int(np.round((seconds - LOUDNESS_BLOCK) / LOUDNESS_HOP)) + HOPS_IN_BLOCK
        sums = np.concatenate((*self._energies, [np.square(self._rest).sum()]))[:count]
        overlapping = np.convolve(sums, np.ones(HOPS_IN_BLOCK), "valid") / (HOPS_IN_BLOCK * self._hop)
        with np.errstate(divide="ignore"):
            gated = overlapping[-0.691 + 10 * np.log10(overlapping) >= -70]
            if len(gated):
                gated = gated[10 * np.log10(gated) > 10 * np.log10(gated.mean()) - 10]
            return -0.691 + 10 * math.log10(gated.mean()) if len(gated) else -math.inf


def integrated_loudness(audio: Audio) -> float:
    """Return the integrated loudness in LUFS, as `LoudnessMeter.lufs`."""
    meter = LoudnessMeter(audio.sample_rate)
    for block in one_second_blocks(audio):
        meter.add(block)
    return meter.lufs()


@cache
def interpolation_filter() -> NDArray[np.float32]:
    """Return the weights [n, OVERSAMPLING] of the n samples around one, that give it and those between it and the next.

    They are those of `scipy.signal.resample_poly`: a sinc in a Kaiser window. For its import see `k_weighting`.
    """
    import numpy as np

    reach = INTERPOLATION_REACH * OVERSAMPLING
    taps = np.sinc(np.arange(-reach, reach + 1) / OVERSAMPLING) * np.kaiser(2 * reach + 1, 5.0)
    taps *= OVERSAMPLING / taps.sum()
    by_sample = np.pad(taps, (0, OVERSAMPLING - 1)).reshape(-1, OVERSAMPLING)
    return np.ascontiguousarray(by_sample[::-1], np.float32)


class TruePeakMeter:
    """Measures the true peak block by block: the highest absolute value after fourfold oversampling.

    The filter rings where a block is cut, so a margin on both sides of each block is oversampled with it.
    """

    def __init__(self) -> None:
        import numpy as np

        #: Samples that were measured already, for the margin, and those that wait for a margin behind them.
        self._measured, self._waiting = np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32)
        self._highest = 0.0

    def add(self, block: NDArray[np.float32]) -> None:
        """Measure the next samples [2, n], but for a margin at their end."""
        import numpy as np

        self._waiting = np.concatenate((self._waiting, block), axis=1)
        if (ready := self._waiting.shape[1] - TRUE_PEAK_MARGIN) > 0:
            self._measure(ready)

    def peak(self) -> float:
        """Return the true peak, at the end of the recording."""
        self._measure(self._waiting.shape[1])
        return self._highest

    def _measure(self, count: int) -> None:
        """Measure `count` of the waiting samples."""
        import numpy as np

        before = self._measured.shape[1]
        around = np.concatenate((self._measured, self._waiting), axis=1)
        if count:
            padded = np.pad(around, ((0, 0), (INTERPOLATION_REACH, INTERPOLATION_REACH)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * INTERPOLATION_REACH + 1, axis=1)
            # A matrix product, 9 times as fast as a convolution for each of the four phases.
            between = windows[:, before : before + count] @ interpolation_filter()
            self._highest = max(self._highest, float(np.abs(between).max()))
        done = before + count
        self._measured, self._waiting = around[:, max(done - TRUE_PEAK_MARGIN, 0) : done], around[:, done:]


def true_peak(audio: Audio) -> float:
    """Return the true peak of audio, as `TruePeakMeter.peak`."""
    meter = TruePeakMeter()
    for block in one_second_blocks(audio):
        meter.add(block)
    return meter.peak()


def sample_peak(audio: Audio) -> float:
    """Return the highest absolute sample. Raises `CheckError` if one is not finite, or none is above silence."""
    import numpy as np

    peaks = [float(np.abs(block).max()) for block in one_second_blocks(audio)]
    highest = max(peaks, default=0.0)
    if not all(map(math.isfinite, peaks)):
        raise CheckError("The rendered audio holds samples that are not finite numbers, so no file was written.")
    if highest < SILENCE:
        raise CheckError("The rendered audio is silent, so no file was written.")
    return highest
