"""The mix: what brightness and which place in a room each stem of a song gets.

Everything here is a fixed filter for each track, the same in every song: a shelf that lifts its highs, and a room
whose two sides differ. Filters keep what `sounds.py` is tuned to (a held tone still comes back every twenty latent
frames), and since a track always has the same ones, its place can be known from its sound alone.

Shapes: N samples; a stem is stereo [2, N] float32 at 48 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.signal import butter, oaconvolve, sosfilt
from sounds import SAMPLE_RATE

ROOM_LOW, ROOM_HIGH = 250, 9000  # Hz between which a room answers: the lowest stay in the middle


@dataclass(frozen=True)
class Strip:
    """What the mixing desk does to a track: a high shelf, and how loud the room is against the dry sound."""

    shelf_hz: float
    shelf_db: float
    room_db: float
    tail: float  # seconds in which the room falls by 60 dB


STRIPS = {
    "drums": Strip(4000, 6, -10, 0.35),
    "bass": Strip(1000, 3, -30, 0.2),
    "keyboard": Strip(1500, 6, -5, 0.6),
    "guitar": Strip(1500, 6, -5, 0.5),
    "strings": Strip(2000, 6, -4, 0.8),
    "brass": Strip(2500, 4, -6, 0.6),
    "woodwinds": Strip(2500, 6, -7, 0.7),
    "synth": Strip(2000, 5, -4, 0.7),
    "percussion": Strip(2500, 5, -6, 0.8),
    "vocals": Strip(2500, 6, -9, 0.6),
    "backing_vocals": Strip(2500, 6, -2, 0.8),
}


def mixed(stems: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stems as a mixing desk leaves them, of the same lengths."""
    return {track: _through(STRIPS[track], track, stem) for track, stem in stems.items()}


def _through(strip: Strip, track: str, stem: np.ndarray) -> np.ndarray:
    high = sosfilt(butter(1, strip.shelf_hz, "high", fs=SAMPLE_RATE, output="sos"), stem, axis=1)
    bright = stem + (10 ** (strip.shelf_db / 20) - 1) * high
    room = oaconvolve(np.repeat(bright.mean(0, keepdims=True), 2, 0), _room(track), axes=1)[:, : stem.shape[1]]
    return (bright + room).astype(np.float32)


@cache
def _room(track: str) -> np.ndarray:
    """The answer of a track's room to a click, [2, N]: noise that falls, of its own kind left and right."""
    strip = STRIPS[track]
    rng = np.random.default_rng([*track.encode(), 3])
    t = np.arange(int(strip.tail * SAMPLE_RATE)) / SAMPLE_RATE
    noise = rng.standard_normal((2, len(t))) * 10 ** (-3 * t / strip.tail) * (t > 0.005)
    noise = sosfilt(butter(2, (ROOM_LOW, ROOM_HIGH), "band", fs=SAMPLE_RATE, output="sos"), noise, axis=1)
    # Loudness is told in the band in which the room answers, of which a click has this share.
    share = (ROOM_HIGH - ROOM_LOW) / (SAMPLE_RATE / 2)
    return noise * 10 ** (strip.room_db / 20) * np.sqrt(share / np.square(noise).sum(1, keepdims=True))
