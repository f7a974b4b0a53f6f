"""How loud sound is, and how it is brought to a level."""

from __future__ import annotations

import math
from dataclasses import dataclass

from acestep_cli.audio.sound import Audio, blocks
from acestep_cli.errors import CheckError

#: The range of levels of each kind, in decibels.
LEVELS = {"peak": (-60.0, 0.0), "lufs": (-60.0, -5.0)}
TRUE_PEAK_LIMIT = 10 ** (-1 / 20)  # what EBU R 128 and the streaming services allow
OVERSAMPLING = 4  # ITU-R BS.1770-4, annex 2
#: Below this peak (-120 dBFS) there is nothing to hear.
SILENCE = 1e-6


@dataclass(frozen=True)
class Loudness:
    """What level is asked for: `kind` is none, peak (dBFS) or lufs (LUFS, integrated)."""

    kind: str
    decibels: float = 0.0


def loudness(text: str) -> Loudness:
    """Read `none`, `peak:DB` or `lufs:LUFS`. `ValueError` for other text."""
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
    """What was measured on samples before their level was set, and the factor that sets it.

    `lufs` is measured where it is asked for; `reached` is then the loudness that `gain` gives, which true peaks may
    keep under what was asked.
    """

    peak: float
    gain: float
    lufs: float | None = None
    reached: float | None = None


def level(audio: Audio, asked: str) -> Level:
    """How to bring `audio` to the loudness asked for; peaks never go over full scale.

    `CheckError` if it is silent or not finite. Loudness as in ITU-R BS.1770-4.
    """
    highest = peak(audio)
    wanted = loudness(asked)
    if wanted.kind == "none":
        return Level(highest, min(1.0, 1 / highest))
    if wanted.kind == "peak":
        return Level(highest, float(10 ** (wanted.decibels / 20)) / highest)
    measured = integrated(audio)
    if not math.isfinite(measured):  # everything is under its gate of -70 LUFS
        raise CheckError("The rendered audio is too quiet to measure its loudness, so no file was written.")
    gain = min(10 ** ((wanted.decibels - measured) / 20), TRUE_PEAK_LIMIT / true_peak(audio))
    return Level(highest, gain, measured, measured + 20 * math.log10(gain))


def integrated(audio: Audio) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4, by pyloudnorm); minus infinity for what lies under its gate."""
    import pyloudnorm

    return float(pyloudnorm.Meter(audio.sample_rate).integrated_loudness(audio.samples.T))


def true_peak(audio: Audio) -> float:
    """The highest absolute value between the samples too, from fourfold oversampling in blocks that overlap.

    Where a block is cut the filter rings, higher than the sound: what is looked at lies a margin away from there.
    """
    import numpy as np
    from scipy.signal import resample_poly

    rate, margin = audio.sample_rate, 64
    highest = 0.0
    for start in range(0, audio.samples.shape[1], rate):
        before = min(start, margin)
        block = resample_poly(audio.samples[:, start - before : start + rate + margin], OVERSAMPLING, 1, axis=1)
        inside = block[:, OVERSAMPLING * before : OVERSAMPLING * (before + rate)]
        highest = max(highest, float(np.abs(inside).max()))
    return highest


def peak(audio: Audio) -> float:
    """The highest absolute sample. `CheckError` if a sample is not finite, or none is above silence."""
    import numpy as np

    peaks = [float(np.abs(block).max()) for block in blocks(audio)]
    highest = max(peaks, default=0.0)
    if not all(map(math.isfinite, peaks)):
        raise CheckError("The rendered audio holds samples that are not finite numbers, so no file was written.")
    if highest < SILENCE:
        raise CheckError("The rendered audio is silent, so no file was written.")
    return highest
