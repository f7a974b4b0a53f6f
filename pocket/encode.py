"""Play the corpus dry and encode it to latents, once, before anything that works on latents is trained.

    python pocket/encode.py --first 0 --count 1000
    python pocket/encode.py --first 0 --count 750 --wet

Writes `pocket/work/silence.pt` and `pocket/work/latents/NNNN.pt`, each the `Heard` of songs NNNN * 25 and on, by their
seeds. Files that exist are left alone, and training picks up new ones while it runs. Room and place are left out, since
the decoder adds them (`mixing.py`): latents of the mix would have them twice. With `--wet` they are left in, in
`pocket/work/latents-wet/`: a recording that somebody gives the program has its room, one of the checkpoint's own too.

Shapes: C latent channels, T latent frames; latents are [T, C] float16.
"""

from __future__ import annotations

import argparse
import math
from functools import cache
from typing import NamedTuple

import band
import corpus
import numpy as np
import torch
from sounds import FRAME, PERIOD
from torch import Tensor
from train_vae import CHECKPOINT, CONFIG, WORK

from acestep_cli.engine import codec
from acestep_cli.engine.vae import OobleckVAE

SHARD = 25
TILE_FRAMES = 100
SILENCE_SECONDS = 600  # as long as the longest song, so that it is never repeated
CLOCK = 0.25  # amplitude; music has a standard deviation of 1, and silence with the clock decodes at -39 dBFS
SLOW_HANDS = (512, 2048)  # latent frames: where in a song it is, as far as sections go
# Of every four songs, where they are no longer than this, one has its stems encoded too, and one a cover.
EVERY, PARTED, COVERED = 4, 0, 1
MORE_SECONDS = 16
FOLDER, WET_FOLDER = WORK / "latents", WORK / "latents-wet"


class Heard(NamedTuple):
    """A song's latents: its mix, and, for some songs, each stem and the mix without one, or `cover` of it."""

    mix: Tensor
    stems: dict[str, Tensor]
    without: dict[str, Tensor]
    cover: Tensor | None = None


def trained_vae() -> OobleckVAE:
    vae = OobleckVAE(CONFIG).eval()
    vae.load_state_dict(torch.load(CHECKPOINT, weights_only=True)["vae"])
    return vae


def clock(frames: int) -> Tensor:
    """The time of day [C, F]: cosines in even frames, sines in odd ones, so that each token of the DiT reads it whole.

    Twelve channels are hands that turn with the bars of the twelve tempi, on top of that four times in each, and once
    in four, as progressions do; two tell which frame of `sounds.PERIOD` it is, once and three times round; two turn
    slowly.
    """
    token = torch.arange(frames) // 2 * 2
    turns = lambda cycles: 2 * math.pi * token / torch.tensor(cycles)[:, None]  # noqa: E731
    bars, phase, slow = turns(corpus.CYCLES), turns([PERIOD / FRAME, PERIOD / FRAME / 3]), turns(SLOW_HANDS)
    even = torch.arange(frames) % 2 == 0
    shown = lambda angles: torch.where(even, angles.cos(), angles.sin())  # noqa: E731
    return torch.cat([shown(bars / 4) + shown(bars) + shown(4 * bars), shown(phase), shown(slow)])


@cache
def cover_of(piece: corpus.Song) -> corpus.Song:
    """The song that `Heard.cover` is."""
    return corpus.restyled(piece, np.random.default_rng([piece.seed, 5]))


def silence(vae: OobleckVAE) -> Tensor:
    """The latents of silence [1, C, F]: the encoder's edge at the first frames, its steady state, and a faint clock.

    The DiT has no absolute positions: many wide layers of attention can count from the start of a song, six narrow
    ones do not get past the second beat. The silence it is given instead of a source is where the published layout
    has room to tell it the time. All 600 s are stored, because a shorter tensor would be tiled and begin again.
    """
    with torch.inference_mode():
        short = vae.encode(torch.zeros(1, 2, 100 * CONFIG.hop))
    steady = short[:, :, 50:51].expand(-1, -1, SILENCE_SECONDS * 25 - 50)
    return torch.cat([short[:, :, :50], steady], dim=2) + CLOCK * clock(SILENCE_SECONDS * 25)


def heard(vae: OobleckVAE, seed: int, stems: bool = True, dry: bool = True) -> Heard:
    """Play and encode one song, and what goes with it."""
    piece = corpus.song(seed)
    played = band.play(piece, dry=dry)

    def latents(audio: np.ndarray) -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return codec.encode_waveform(vae, torch.from_numpy(audio), TILE_FRAMES, lambda *_: None).half()

    mix = sum(played.values())
    more = piece.duration <= MORE_SECONDS
    if more and seed % EVERY == COVERED:
        return Heard(latents(mix), {}, {}, latents(band.render(cover_of(piece), dry=dry)))
    parted = stems and more and seed % EVERY == PARTED and len(played) > 1
    apart = {track: latents(stem) for track, stem in played.items()} if parted else {}
    # One stem taken from the rest is enough of a lesson for each song; others can be added up.
    missing = [sorted(apart)[seed // EVERY % len(apart)]] if parted else []
    return Heard(latents(mix), apart, {track: latents(mix - played[track]) for track in missing})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--longest", type=float, default=math.inf, help="seconds; files are made without longer songs")
    parser.add_argument("--no-stems", action="store_true", help="mixes and covers alone, for the Songwriter")
    parser.add_argument("--wet", action="store_true", help="with room and place, as sources")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    home = WET_FOLDER if asked.wet else FOLDER
    home.mkdir(parents=True, exist_ok=True)
    vae = trained_vae()
    torch.save(silence(vae).half().clone(), WORK / "silence.pt")
    vae.encoder.compile(dynamic=True)
    for shard in range(asked.first // SHARD, (asked.first + asked.count) // SHARD):
        path = home / f"{shard:04d}.pt"
        if path.exists():
            continue
        seeds = range(shard * SHARD, (shard + 1) * SHARD)
        songs = {seed: heard(vae, seed, not asked.no_stems, not asked.wet) for seed in seeds
                 if corpus.song(seed).duration <= asked.longest}  # fmt: skip
        torch.save({seed: tuple(song) for seed, song in songs.items()}, path)
        print(path.name, sum(len(song.mix) for song in songs.values()) // 25, "s of songs", flush=True)


if __name__ == "__main__":
    main()
