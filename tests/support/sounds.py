"""Sounds and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from acestep_cli import disk
from acestep_cli.audio import encode
from acestep_cli.audio import loudness as levels
from acestep_cli.audio.sound import Audio
from acestep_cli.audio.tags import Tags

RATE = 48_000
TITLED = Tags("Nächte Ω", bpm=105, lyrics="la", recipe="0123")


def tone(seconds: float = 2.5, peak: float = 0.5) -> Audio:
    """A chord with a little noise, different on each side."""
    t = np.arange(int(seconds * RATE)) / RATE
    left = np.sin(2 * np.pi * 220 * t) + 0.5 * np.sin(2 * np.pi * 277.2 * t)
    right = np.sin(2 * np.pi * 329.6 * t) + 0.1 * np.random.default_rng(0).standard_normal(len(t))
    both = np.stack([left, right])
    return Audio((peak * both / np.abs(both).max()).astype(np.float32), RATE)


def write(path: Path, sound: Audio, encoding: encode.Encoding, *settings: Any, **more: Any) -> levels.Level:
    """As the program writes: whole or not at all."""
    with disk.write_whole(path, replace=[path]) as [part]:
        return encode.write_audio(part, sound, encode.Finish(encoding, *settings, **more))


def recording(name: str, seconds: float = 10, rate: int = RATE, channels: int = 2, seed: int = 0) -> Path:
    """Write a recording of noise."""
    rng = np.random.default_rng(seed)
    samples = 0.2 * rng.standard_normal((round(seconds * rate), channels))
    soundfile.write(name, samples.clip(-0.9, 0.9), rate, subtype=None if name.endswith("mp3") else "PCM_16")
    return Path(name)


def song(path: Path, pitch: float = 220, seconds: float = 7, rate: int = RATE, level: float = 0.4) -> Path:
    """A recording of one tone."""
    t = np.arange(int(seconds * rate)) / rate
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.sin(2 * np.pi * pitch * t) * (1 + np.sin(2 * np.pi * t)) / 2
    opus = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, wave, rate, **opus)
    return path
