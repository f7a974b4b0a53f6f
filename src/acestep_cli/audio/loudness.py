"""Loudness and peaks of audio, and the gain that sets them."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
OVERSAMPLING = 4  # ITU-R BS.1770-4, annex 2
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


def import_ahead() -> None:
    """Import what `integrated_loudness` needs in a thread of its own, while the networks work.

    A short song takes no longer to decode than SciPy to import.
    """
    import importlib
    import threading

    threading.Thread(target=importlib.import_module, args=("pyloudnorm",), name="import of pyloudnorm").start()


def integrated_loudness(audio: Audio) -> float:
    """Return the integrated loudness in LUFS (ITU-R BS.1770-4); minus infinity for audio under its gate.

    pyloudnorm's filters are run block by block, since a long song would not fit into memory several times as float64.
    """
    import numpy as np
    import pyloudnorm
    from scipy.signal import lfilter

    if audio.seconds < LOUDNESS_BLOCK:
        raise ValueError(f"{audio.seconds:g} s are too short: loudness is defined from {LOUDNESS_BLOCK:g} s on")
    hop = round(audio.sample_rate * LOUDNESS_HOP)
    filters = list(pyloudnorm.Meter(audio.sample_rate)._filters.values())
    states = [np.zeros((2, max(len(stage.a), len(stage.b)) - 1)) for stage in filters]
    rest, energies = np.zeros((2, 0)), []
    for block in one_second_blocks(audio):
        weighted = block.astype(np.float64)
        for number, stage in enumerate(filters):
            weighted, states[number] = lfilter(stage.b, stage.a, weighted, axis=1, zi=states[number])
            weighted *= stage.passband_gain
        rest = np.concatenate((rest, weighted), axis=1)
        whole = rest.shape[1] // hop * hop
        energies.append(np.square(rest[:, :whole]).reshape(2, -1, hop).sum(axis=2).sum(axis=0))
        rest = rest[:, whole:]
    # pyloudnorm counts a last block of which more than half a step is missing nothing.
    count = int(np.round((audio.seconds - LOUDNESS_BLOCK) / LOUDNESS_HOP)) + HOPS_IN_BLOCK
    sums = np.concatenate((*energies, [np.square(rest).sum()]))[:count]
    overlapping = np.convolve(sums, np.ones(HOPS_IN_BLOCK), "valid") / (HOPS_IN_BLOCK * hop)
    with np.errstate(divide="ignore"):
        gated = overlapping[-0.691 + 10 * np.log10(overlapping) >= -70]
        if len(gated):
            gated = gated[10 * np.log10(gated) > 10 * np.log10(gated.mean()) - 10]
        return -0.691 + 10 * math.log10(gated.mean()) if len(gated) else -math.inf


def true_peak(audio: Audio) -> float:
    """Return the true peak: the highest absolute value of the audio after fourfold oversampling.

    It works in blocks that overlap by a margin, since the filter rings where a block is cut.
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
