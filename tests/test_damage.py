"""Damaged sound files: refused with a sentence or read, and never anything else."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acestep_cli.audio import decode
from acestep_cli.errors import SourceError

SAMPLES = 60_000
KINDS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "aiff": ("AIFF", "PCM_24"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["cut", "flip", "header"])
def test_damage_is_refused_or_read(kind: str, damage: str, tmp_path: Path) -> None:
    dice, file = random.Random(f"{kind} {damage}"), tmp_path / f"song.{kind}"
    format, subtype = KINDS[kind]
    sound = np.random.default_rng(0).normal(0, 0.1, (SAMPLES, 2)).astype("float32")
    soundfile.write(file, sound, 48_000, format=format, subtype=subtype)
    whole = file.read_bytes()
    assert decode.read_audio(file).samples.any()
    for _ in range(12):
        data = bytearray(whole)
        if damage == "cut":
            del data[dice.randrange(len(data)) :]
        else:
            end = 200 if damage == "header" else len(data)
            for _ in range(dice.randint(1, 8)):
                data[dice.randrange(end)] ^= 1 << dice.randrange(8)
        file.write_bytes(data)
        with contextlib.suppress(SourceError):  # any other exception is the test's failure
            assert np.isfinite(decode.read_audio(file).samples).all()
