"""Spectral distance between two recordings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from acestep_cli.audio.sound import Audio

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Window and hop of the spectrum in samples: 43 ms and half of it at 48 kHz.
WINDOW, HOP = 2048, 1024
#: Levels are compared down to this one, in decibels under the mean power.
FLOOR = -80.0
WINDOWS_AT_ONCE = 512
MEASURE = "log-spectral distance in dB, both brought to one power"


def spectral_distance(one: Audio, other: Audio) -> float:
    """Return the log-spectral distance of two recordings of one length, in decibels.

    It is the root mean square, over time, frequency and both channels, of the difference of their levels, each
    relative to the mean power of its recording.
    """
    import numpy as np

    if np.array_equal(one.samples, other.samples):
        return 0.0
    squares, count = 0.0, 0
    for ours, theirs in zip(spectral_levels(one), spectral_levels(other), strict=True):
        squares += float(np.square(ours - theirs, dtype=np.float64).sum())
        count += ours.size
    return float(np.sqrt(squares / count)) if count else 0.0


def spectral_levels(audio: Audio) -> Iterator[NDArray[np.float32]]:
    """Yield spectral levels [2, windows, frequencies] in decibels over the mean power, some windows at a time."""
    import numpy as np

    sums, counts = zip(
        *((float(power.sum(dtype=np.float64)), power.size) for power in power_spectrum(audio)), strict=True
    )
    mean = max(sum(sums) / sum(counts), float(np.finfo(np.float32).tiny))
    for power in power_spectrum(audio):
        yield 10 * np.log10(np.maximum(power / mean, 10 ** (FLOOR / 10)))


def power_spectrum(audio: Audio) -> Iterator[NDArray[np.float32]]:
    """Yield the power spectrum [2, windows, frequencies], some windows at a time."""
    import numpy as np

    shape = np.hanning(WINDOW).astype(np.float32)
    padded = np.pad(audio.samples, ((0, 0), (0, max(WINDOW - audio.samples.shape[1], 0))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=1)[:, ::HOP]
    for first in range(0, windows.shape[1], WINDOWS_AT_ONCE):
        spectrum = np.fft.rfft(windows[:, first : first + WINDOWS_AT_ONCE] * shape)
        yield np.square(np.abs(spectrum)).astype(np.float32)
