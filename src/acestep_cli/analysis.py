"""Tempo and key of a recording by librosa, where no Songwriter says them.

It is an extra, `acestep-cli[train]`: with all that it brings it takes longer to load than torch. Its beat tracker finds
78 % of the tempi of perfect recordings, octaves allowed, so what it finds stands in `dataset.yaml` to be looked at.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from acestep_cli.audio import Audio, resampled
from acestep_cli.request import KEYS

LIBRARY = "librosa"
INSTALL = "pip install 'acestep-cli[train]'"
#: What is listened to for a tempo and a key needs no more.
RATE = 22_050
#: How well each note of the scale fits a key, from its tonic on. Source: Krumhansl & Kessler, 1982.
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def is_installed() -> bool:
    return importlib.util.find_spec(LIBRARY) is not None


def tempo_and_key(sound: Audio) -> dict[str, Any]:
    """`bpm` and `key` of a recording, as far as they can be told."""
    import numpy as np
    from librosa.beat import beat_track
    from librosa.feature import chroma_cqt

    mono = resampled(sound, RATE).samples.mean(axis=0)
    tempo, _ = beat_track(y=mono, sr=RATE)
    beats = round(float(np.atleast_1d(tempo)[0]))
    chroma = chroma_cqt(y=mono, sr=RATE).mean(axis=1)
    fits = {
        f"{note} {mode}": float(np.corrcoef(chroma, np.roll(profile, place))[0, 1])
        for mode, profile in PROFILES.items()
        for place, note in enumerate(NOTES)
    }
    key = max(fits, key=lambda name: fits[name])
    range_ = KEYS["bpm"].kind
    found: dict[str, Any] = {"key": KEYS["key"].kind.read(key)} if np.isfinite(fits[key]) else {}
    return found | ({"bpm": beats} if range_.low <= beats <= range_.high else {})  # type: ignore[attr-defined]
