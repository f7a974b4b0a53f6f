"""Draw the spectrograms that docs/pocket.md shows: a song as the built-in checkpoint plays it, and as the recipe does.

    python pocket/picture.py

Writes `pocket/picture.png`: above, what the checkpoint makes of a held-out song's prompt, below, the true song.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import band
import corpus
import numpy as np
from evaluate import Studio
from PIL import Image
from sounds import SAMPLE_RATE

from acestep_cli.audio import plots
from acestep_cli.audio.sound import Audio

FILE = Path(__file__).parent / "picture.png"
WIDTH, HEIGHT, GAP = 1000, 240, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--song", type=int, default=2, help="number of a held-out song")
    number = parser.parse_args().song
    piece = corpus.song(corpus.HELD_OUT + number)
    [take] = Studio().render(
        caption=piece.caption, lyrics=piece.lyrics, bpm=piece.bpm, key=piece.key, seed=number,
        time_signature=piece.time_signature, duration=piece.duration,
        **({"language": piece.language} if piece.voiced else {}),
    )  # fmt: skip
    both = Image.new("RGB", (WIDTH, 2 * HEIGHT + GAP), "white")
    for place, samples in enumerate((take.audio.samples, band.render(piece).astype(np.float32))):
        drawn = plots.spectrogram(Audio(samples, SAMPLE_RATE), WIDTH, HEIGHT)
        both.paste(Image.open(io.BytesIO(drawn)).convert("RGB"), (0, place * (HEIGHT + GAP)))
    both.quantize(64).save(FILE, optimize=True)
    print(f"{FILE.name}: {piece.caption}, {piece.key}, {piece.bpm} bpm, {piece.duration} s")


if __name__ == "__main__":
    main()
