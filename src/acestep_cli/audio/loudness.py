"""How loud sound is, and how it is brought to a level."""

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
#: What becomes of peaks over full scale where no level is asked for: they are written as they are, which takes floating
#: point; everything is turned down until they fit; or they are cut off, and the rest keeps its level.
KEEP, TURN_DOWN, CLIP = "keep", "turn down", "clip"


@dataclass(frozen=True)
class Loudness:
    """What level is asked for: `kind` is none, peak (dBFS) or lufs (LUFS, integrated)."""

    kind: str
    decibels: float = 0.0


def parse_loudness(text: str) -> Loudness:
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
    keep under what was asked. With `clips`, samples over full scale are cut off there.
    """

    peak: float
    gain: float
    lufs: float | None = None
    reached: float | None = None
    clips: bool = False


def find_level(audio: Audio, asked: str, overs: str = TURN_DOWN) -> Level:
    """How to bring `audio` to the loudness asked for. What has a level of its own, and peaks over full scale, is kept
    as it is, clipped or turned down, as `overs` says.

    `CheckError` if it is silent or not finite. Loudness as in ITU-R BS.1770-4.
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
    """Samples [2, n] as they are written."""
    scaled = block * level.gain
    return scaled.clip(-1, 1) if level.clips else scaled


def integrated_loudness(audio: Audio) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4, by pyloudnorm's filters, block by block: a long song would not fit
    into memory several times over as float64); minus infinity for what lies under its gate.
    """
    import numpy as np
    import pyloudnorm
    from scipy.signal import lfilter

    if audio.seconds < LOUDNESS_BLOCK:
        raise ValueError(f"{audio.seconds:g} s are too short: loudness is defined from {LOUDNESS_BLOCK:g} s on")
    hop = round(audio.sample_rate * LOUDNESS_HOP)
    filters = list(pyloudnorm.Meter(audio.sample_rate)._filters.values())
    states = [np.zeros((2, max(len(one.a), len(one.b)) - 1)) for one in filters]
    rest, energies = np.zeros((2, 0)), []
    for block in one_second_blocks(audio):
        weighted = block.astype(np.float64)
        for one, (number, state) in zip(filters, enumerate(states), strict=True):
            weighted, states[number] = lfilter(one.b, one.a, weighted, axis=1, zi=state)
            weighted *= one.passband_gain
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


def sample_peak(audio: Audio) -> float:
    """The highest absolute sample. `CheckError` if a sample is not finite, or none is above silence."""
    import numpy as np

    peaks = [float(np.abs(block).max()) for block in one_second_blocks(audio)]
    highest = max(peaks, default=0.0)
    if not all(map(math.isfinite, peaks)):
        raise CheckError("The rendered audio holds samples that are not finite numbers, so no file was written.")
    if highest < SILENCE:
        raise CheckError("The rendered audio is silent, so no file was written.")
    return highest
