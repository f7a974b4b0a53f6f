"""Spectral distance between two recordings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from acestep_cli.audio import loudness
from acestep_cli.audio.sound import Audio, resample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Window and hop of the spectrum in samples: 43 ms and half of it at 48 kHz.
WINDOW, HOP = 2048, 1024
#: Levels are compared down to this one, in decibels under the mean power.
FLOOR = -80.0
WINDOWS_AT_ONCE = 512
#: Rate at which takes are compared, in Hz.
TAKE_RATE = 24_000
MEASURE = "log-spectral distance in dB, at equal power"


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


def take_distance(one: Audio, other: Audio) -> float | None:
    """Return the log-spectral distance of two takes below 12 kHz, as long as both last; None where one is silent.

    What a lossy format cuts off above counts for nothing, and takes may have any rate.
    """
    import numpy as np

    lower = [resample(sound, TAKE_RATE) for sound in (one, other)]
    length = min(sound.samples.shape[1] for sound in lower)
    one, other = (Audio(sound.samples[:, :length], TAKE_RATE) for sound in lower)
    if any(np.abs(sound.samples).max(initial=0) < loudness.SILENCE for sound in (one, other)):
        return None
    return round(spectral_distance(one, other), 2)


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
