"""Measurements of a finished recording: levels, faults, tempo, key, and the difference to another one.

Silence, loudness and true peaks are defined in `loudness`, which renders use too.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from acestep_cli import disk
from acestep_cli.audio import decode, distance, loudness
from acestep_cli.audio.sound import Audio, BlockQueue, join_blocks, one_second_blocks
from acestep_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")
#: The longest recording in seconds: a longer one and its copies would not fit into a small machine.
LONGEST = 3600.0
#: The shortest that integrated loudness is defined for, ITU-R BS.1770-4.
LOUDNESS_BLOCK = 0.4
#: A stretch of silence stays under this level: -60 dBFS.
HUSH = 1e-3
#: So many samples in a row at full scale, that of 16 bits, are a clipped crest and not one that just fits.
CLIPPED_RUN, FULL_SCALE = 3, 1 - 2**-15
CHANNELS = ("left", "right")
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
#: Weight of each note in a key, from its tonic on (Krumhansl and Kessler, 1982).
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
ANALYSER = "librosa"
#: Samples in a window of the analyser; shorter audio has neither tempo nor key.
WINDOW = 8192
#: Beats without which there is no tempo to measure.
FEWEST_BEATS = 4
INSTALL = "pip install 'acestep-cli[analysis]'"


@dataclass(frozen=True)
class Measures:
    """Measurements of a recording: levels in decibels, None where there is nothing to measure; lengths in seconds.

    `silence` is the longest stretch of it, `clipped` counts the clipped crests of both channels, and `dc` is the
    larger of their means.
    """

    seconds: float
    sample_rate: int
    peak_dbfs: float | None
    true_peak_db: float | None
    lufs: float | None
    silence: float
    clipped: int
    dc: float
    dead_channels: tuple[str, ...]

    @property
    def is_silent(self) -> bool:
        return self.peak_dbfs is None

    def report(self) -> dict[str, Any]:
        """Return the measurements for `--json`."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def read_for_measuring(path: Path, warn: Callable[[str], None] = lambda _: None) -> Audio:
    """Return the file `path` at its own rate, mono doubled.

    Raises `SourceError` where it cannot be read or is longer than an hour.
    """
    decoding = open_for_measuring(path)
    blocks = list(decoding)
    for warning in decoding.warnings:
        warn(warning)
    return join_blocks(blocks, decoding.frames, decoding.rate)


def open_for_measuring(path: Path) -> decode.Decoding:
    """Open the file `path`, to be decoded at its own rate. Errors as `read_for_measuring`."""
    return decode.Decoding(path, LONGEST, shortest=0.0, quietest=0.0)


def measure_file(path: Path, warn: Callable[[str], None] = lambda _: None) -> Measures:
    """Return the measurements of the file `path`, a second of which is in memory at a time.

    Errors as `read_for_measuring`.
    """
    decoding = open_for_measuring(path)
    meter = Meter(decoding.rate)
    for block in decoding:
        meter.add(block)
    for warning in decoding.warnings:
        warn(warning)
    return meter.measures()


def measure(sound: Audio) -> Measures:
    """Return all measurements but tempo and key, which take an analyser."""
    meter = Meter(sound.sample_rate)
    for block in one_second_blocks(sound):
        meter.add(block)
    return meter.measures()


class Meter:
    """Measures a recording block by block: all but tempo and key, which take an analyser."""

    def __init__(self, sample_rate: int) -> None:
        import numpy as np

        self.sample_rate, self.frames = sample_rate, 0
        self._peaks, self._sums, self._squares = np.zeros(2), np.zeros(2), 0.0  # the first two of each channel
        self._hush, self._crests = LongestRun(), ClipCounter()
        self._loudness, self._true_peak = loudness.LoudnessMeter(sample_rate), loudness.TruePeakMeter()

    def add(self, block: NDArray[np.float32]) -> None:
        """Measure the next samples [2, n]."""
        import numpy as np

        levels = np.abs(block)
        self.frames += block.shape[1]
        self._peaks = np.maximum(self._peaks, levels.max(axis=1, initial=0))
        self._sums += block.sum(axis=1, dtype=np.float64)
        self._squares += float(np.square(block, dtype=np.float64).sum())
        self._hush.add(levels.max(axis=0) < HUSH)
        self._crests.add(block)
        self._loudness.add(block)
        self._true_peak.add(block)

    @property
    def rms(self) -> float:
        """The root mean square of both channels so far."""
        return math.sqrt(self._squares / max(2 * self.frames, 1))

    def measures(self) -> Measures:
        """Return the measurements, at the end of the recording."""
        highest = float(self._peaks.max())
        silent = highest < loudness.SILENCE
        lufs = self._loudness.lufs() if not silent and self._loudness.is_defined else -math.inf
        return Measures(
            seconds=round(self.frames / self.sample_rate, 6),
            sample_rate=self.sample_rate,
            peak_dbfs=None if silent else decibels(highest),
            # Fourfold oversampling may miss half a decibel: hundredths would promise what it does not know.
            true_peak_db=None if silent else round(decibels(self._true_peak.peak()), 1) + 0.0,
            lufs=round(lufs, 2) if math.isfinite(lufs) else None,
            silence=round(self._hush.longest / self.sample_rate, 3),
            clipped=self._crests.count,
            dc=round(float(abs(self._sums).max()) / max(self.frames, 1), 6),
            dead_channels=tuple(
                name for name, peak in zip(CHANNELS, self._peaks, strict=True) if peak < loudness.SILENCE and not silent
            ),
        )


class LongestRun:
    """Finds the longest run of true flags, block by block."""

    def __init__(self) -> None:
        self.longest = 0
        #: Length of the run at the end.
        self._last = 0

    def add(self, flags: NDArray[np.bool_]) -> None:
        """Take the next flags [n]."""
        import numpy as np

        if flags.all():
            self._last += len(flags)
            self.longest = max(self.longest, self._last)
            return
        first, last = int(np.argmin(flags)), int(np.argmin(flags[::-1]))
        inside = int(run_lengths(flags).max(initial=0))
        self.longest = max(self.longest, self._last + first, inside)
        self._last = last


class ClipCounter:
    """Counts the clipped crests of both channels of a recording, block by block."""

    def __init__(self) -> None:
        self.count = 0
        #: Samples at full scale at the end of each channel, at most `CLIPPED_RUN`.
        self._last = [0, 0]

    def add(self, block: NDArray[np.float32]) -> None:
        """Count the crests in the next samples [2, n]."""
        import numpy as np

        for channel, samples in enumerate(block):
            last = self._last[channel]
            full = np.concatenate([np.ones(last, np.bool_), np.abs(samples) >= FULL_SCALE])
            self.count += int((run_lengths(full) >= CLIPPED_RUN).sum()) - (last >= CLIPPED_RUN)
            self._last[channel] = int(full[-CLIPPED_RUN:][::-1].cumprod().sum())


def run_lengths(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the lengths of the runs of true `flags` [N]."""
    import numpy as np

    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return edges[1::2] - edges[::2]


def decibels(amplitude: float) -> float:
    return round(20 * math.log10(amplitude), 2) + 0.0  # never -0.0


@dataclass(frozen=True)
class Extent:
    """The length of a recording in samples, and its rate."""

    frames: int
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def read_through(path: Path, warn: Callable[[str], None] = lambda _: None) -> Extent:
    """Read the file `path` to its end, a second at a time, and return its extent. Errors as `read_for_measuring`."""
    decoding = open_for_measuring(path)
    for _ in decoding:
        pass
    for warning in decoding.warnings:
        warn(warning)
    return Extent(decoding.frames, decoding.rate)


def file_difference(one: Path, other: Path) -> float | None:
    """Return the largest difference between the samples of two files in dBFS, a second of which is in memory at a time.

    Minus infinity where all are equal; None where rates or lengths differ. Errors as `read_for_measuring`.
    """
    import numpy as np

    ours, theirs = open_for_measuring(one), open_for_measuring(other)
    if ours.rate != theirs.rate:
        return None
    queue, highest = BlockQueue(iter(theirs)), 0.0
    for block in ours:
        beside = queue.take(block.shape[1])
        if beside.shape != block.shape:
            return None
        highest = max(highest, float(np.abs(block - beside).max(initial=0)))
    if queue.take(1).size:
        return None
    return decibels(highest) if highest else -math.inf


def has_analyser() -> bool:
    """Tell whether the library that estimates tempo and key is installed."""
    import importlib.util

    return importlib.util.find_spec(ANALYSER) is not None


def require_analyser() -> None:
    """Raise `UsageError` where the library that estimates tempo and key is not installed."""
    if not has_analyser():
        raise UsageError(f"Tempo and key are estimated by {ANALYSER}, which is not installed.", INSTALL)


@contextmanager
def compiling_alone() -> Iterator[None]:
    """Run the body while no other process of this user imports the analyser or calls a function of it first, and in a
    folder that is there, whose name the compiler asks for.

    The analyser's functions are compiled once, as it is imported and at their first call, and kept on the disk. Two
    processes that compile them at once leave parts of both there, and from then on every call ends the process
    (segmentation fault in numba).
    """
    import filelock

    user = getattr(os, "getuid", str)()  # on Windows the folder is the user's own
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"acestep-analyser-{user}.lock")
    with suppress(OSError, NotImplementedError):  # no place for a lock: the risk is small, and at the first call only
        lock.acquire()
    try:
        with disk.in_existing_folder():
            yield
    finally:
        lock.release()


def alone_at_first(estimate: Callable[P, T]) -> Callable[P, T]:
    """Return a function whose first call in a process, which may compile it, is made by `compiling_alone`."""
    compiled: list[str] = []

    @wraps(estimate)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with nullcontext() if compiled else compiling_alone():
            found = estimate(*args, **kwargs)
        compiled.append(estimate.__name__)
        return found

    return run


def brightness(sound: Audio) -> float | None:
    """Return the spectral centroid in Hz: the mean frequency, each weighted by its amplitude. None in silence."""
    import numpy as np

    amplitudes = np.zeros(distance.WINDOW // 2 + 1)
    for power in distance.power_spectrum(sound):
        amplitudes += np.sqrt(power).sum(axis=(0, 1), dtype=np.float64)
    if not amplitudes.sum() > 0:
        return None
    frequencies = np.fft.rfftfreq(distance.WINDOW, 1 / sound.sample_rate)
    return round(float((frequencies * amplitudes).sum() / amplitudes.sum()), 1)


@alone_at_first
def estimate_tempo(sound: Audio) -> float | None:
    """Return the tempo in beats per minute, which may be half or double the true one; None without a beat.

    It is that of `librosa.beat.beat_track`, without the module that finds the beats: its import takes 1.3 s of 3.0 s,
    and at its first use 7 s of 25 s, for functions that are compiled and not needed here.
    """
    import numpy as np
    from librosa.feature.rhythm import tempo
    from librosa.onset import onset_strength

    mono = mono_for_analysis(sound)
    if mono is None:
        return None
    onsets = onset_strength(y=mono, sr=sound.sample_rate, aggregate=np.median)
    return round(float(tempo(onset_envelope=onsets, sr=sound.sample_rate)[0]), 1) if onsets.any() else None


@alone_at_first
def measure_tempo(sound: Audio, near: float | None = None) -> float | None:
    """Return the tempo in beats per minute from the times of all beats, to about 0.1 %; None without a steady beat.

    `estimate_tempo` knows only tempi whose beat is a whole number of the analyser's frames. Where half or double of it
    is closer to `near`, it is that.
    """
    import numpy as np
    from librosa.beat import beat_track
    from scipy.stats import theilslopes

    mono = mono_for_analysis(sound)
    if mono is None:
        return None
    start = 120.0 if near is None else float(near)
    _, beats = beat_track(y=mono, sr=sound.sample_rate, units="time", trim=False, start_bpm=start)
    if len(beats) < FEWEST_BEATS:
        return None
    gaps = np.diff(beats)
    numbers = np.concatenate([[0], np.cumsum(np.round(gaps / np.median(gaps)))])
    bpm = 60 / float(theilslopes(beats, numbers)[0])  # a median of slopes: beats at the ends are often misplaced
    if near is not None:
        bpm = min((bpm, 2 * bpm, bpm / 2), key=lambda tempo: abs(tempo / near - 1))
    return round(bpm, 2)


@alone_at_first
def estimate_key(sound: Audio) -> str | None:
    """Return the key whose profile correlates best with the energy of each note; None where no note stands out."""
    import warnings

    import numpy as np
    from librosa.feature import chroma_stft

    mono = mono_for_analysis(sound)
    if mono is None:
        return None
    with warnings.catch_warnings(action="ignore"):  # of sound without pitches, it warns of how it is tuned
        energies = chroma_stft(y=mono, sr=sound.sample_rate, n_fft=WINDOW).mean(axis=1)
    if not energies.std() > 0:
        return None
    fits = {
        f"{note} {scale}": float(np.corrcoef(energies, np.roll(profile, number))[0, 1])
        for scale, profile in PROFILES.items()
        for number, note in enumerate(NOTES)
    }
    return max(fits, key=lambda name: fits[name])


def mono_for_analysis(sound: Audio) -> NDArray[np.float32] | None:
    """Return the mean of both channels without its offset; None where it is silent or too short to analyse."""
    import numpy as np

    mono = sound.samples.mean(axis=0, dtype=np.float32)
    if len(mono) < WINDOW:
        return None
    mono -= mono.mean()
    return mono if np.abs(mono).max() >= loudness.SILENCE else None
