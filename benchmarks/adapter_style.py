"""What an adapter does to renders: trained on eight songs of one odd style, how far they move towards it.

`acestep train-lora` learns the songs with the built-in checkpoint, `acestep generate` renders captions without the
adapter and with it at several scales. The style is told by the mean mel spectrum of a whole recording.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray
from side_by_side import parser, publish

PROGRAM = [sys.executable, "-m", "acestep_cli"]
NAME = "glasswork"
SONGS, SONG_SECONDS, SAMPLE_RATE = 8, 10, 48_000
STEPS = 300
TRAINING = ["--rank", "32", "--alpha", "64", "--targets", "all", "--learning-rate", "1e-3", "--batch", "2",
            "--accumulation", "1", "--songwriter", "none"]  # fmt: skip
SCALES = (0.0, 0.5, 1.0)
CAPTIONS = ("a gentle folk song", "rock, loud, live drums", "deep house with synth stabs", "slow piano ballad")
FIRST_SEED = 40
BANDS, FLOOR_DB = 64, 60
#: Two octaves of A minor's pentatonic from A5, in semitones, and the partials of struck glass.
SCALE = (0, 3, 5, 7, 10, 12, 15, 17, 19, 22)
PARTIALS = (1.0, 2.76, 5.4)
NOTES = """\
The songs: {songs} of {seconds} s, single strokes on glasses above 880 Hz, nothing below and no drums, captioned
"glasses". `acestep train-lora` on `pocket` with
`{training} --steps {steps}`;
then {captions} captions in other styles, each after the trigger word, one seed each. The distance is that of the mean
mel spectra in dB ({bands} bands without their mean, floored {floor} dB below the loudest) to the mean of the eight
songs; beside it, the share of the way from the renders without the adapter. At scale 0 all samples {equal} those
without it.
"""


def song(number: int) -> NDArray[np.float32]:
    """One song of the style [2, N]."""
    draws = np.random.default_rng(number)
    audio = np.zeros((2, SONG_SECONDS * SAMPLE_RATE), np.float32)
    beat = 60 / draws.integers(70, 120) / 2
    for start in np.arange(0, SONG_SECONDS - 1, beat):
        if draws.random() < 0.3:
            continue
        pitch = 880 * 2 ** (draws.choice(SCALE) / 12)
        time = np.arange(int(1.0 * SAMPLE_RATE)) / SAMPLE_RATE
        stroke = sum(
            np.sin(2 * np.pi * pitch * partial * time) * np.exp(-time * (4 + 3 * k)) / (k + 1)
            for k, partial in enumerate(PARTIALS)
        )
        left = draws.uniform(0.2, 0.8)
        first = int(start * SAMPLE_RATE)
        audio[:, first : first + len(time)] += np.outer((left, 1 - left), stroke)
    return 0.7 * audio / np.abs(audio).max()


def spectrum(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean mel spectrum of a recording [2, N] in dB, without its level."""
    power = librosa.feature.melspectrogram(y=audio.mean(0), sr=SAMPLE_RATE, n_fft=2048, n_mels=BANDS).mean(1)
    levels = librosa.power_to_db(power, ref=np.max, top_db=FLOOR_DB)
    return np.asarray(levels - levels.mean(), np.float64)


def acestep(*words: str) -> None:
    subprocess.run([*PROGRAM, *words, "--quiet"], check=True)


def train(folder: Path, steps: int) -> Path:
    """The adapter of eight songs."""
    songs = folder / "songs"
    songs.mkdir()
    for number in range(SONGS):
        soundfile.write(songs / f"{number}.wav", song(number).T, SAMPLE_RATE)
        (songs / f"{number}.caption.txt").write_text("glasses")
    adapter = folder / "adapter"
    acestep("train-lora", str(songs), "-o", str(adapter), "--name", NAME, "-m", "pocket", "--steps", str(steps),
            *TRAINING)  # fmt: skip
    return adapter


def renders(folder: Path, adapter: Path | None, scale: float) -> list[NDArray[np.float32]]:
    """The captions as the checkpoint plays them, with the adapter at a scale."""
    found = []
    for number, caption in enumerate(CAPTIONS):
        file = folder / f"{number}-{'none' if adapter is None else scale}.wav"
        acestep("generate", "-c", f"{NAME}, {caption}", "-d", str(SONG_SECONDS), "--seed", str(FIRST_SEED + number),
                "-m", "pocket", "--songwriter", "none", "-o", str(file),
                *([] if adapter is None else ["--lora", f"{adapter}@{scale}"]))  # fmt: skip
        found.append(soundfile.read(file, dtype="float32")[0].T)
    return found


def distances(folder: Path, steps: int = STEPS) -> tuple[Mapping[float | None, float], bool]:
    """How far from the style the renders are, by scale and (None) without the adapter; whether scale 0 equals that."""
    style = np.mean([spectrum(song(number)) for number in range(SONGS)], axis=0)
    adapter = train(folder, steps)
    plain = renders(folder, None, 0.0)
    by_scale = {scale: renders(folder, adapter, scale) for scale in SCALES}

    def away(played: list[NDArray[np.float32]]) -> float:
        return float(np.mean([np.sqrt(np.mean((spectrum(one) - style) ** 2)) for one in played]))

    equal = all(np.array_equal(one, other) for one, other in zip(plain, by_scale[0.0], strict=True))
    return {None: away(plain), **{scale: away(played) for scale, played in by_scale.items()}}, equal


def main() -> None:
    asked = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, equal = distances(Path(folder))
    table = [["scale of the adapter", "distance to the style", "of the way"]]
    for scale, away in found.items():
        named = "none" if scale is None else f"{scale:.0%}"
        table.append([named, f"{away:.1f} dB", f"{1 - away / found[None]:.0%}"])
    notes = NOTES.format(
        songs=SONGS, seconds=SONG_SECONDS, training=" ".join(TRAINING), steps=STEPS, captions=len(CAPTIONS),
        bands=BANDS, floor=FLOOR_DB, equal="equal" if equal else "DIFFER FROM",
    )  # fmt: skip
    publish(__file__, "What an adapter does", table, notes, asked.dry)


if __name__ == "__main__":
    main()
