"""Render the corpus and encode it to latents, once, before the DiT is trained.

    python pocket/encode.py --first 0 --count 1000

Writes `pocket/work/silence.pt` and `pocket/work/latents/NNNN.pt`, each a list of fifty [T, C] float16 tensors of songs
NNNN * 50 and on (T = 0 where a song was skipped). Files that exist are left alone, and training picks up new ones
while it runs.
"""

from __future__ import annotations

import argparse
import math

import corpus
import torch
from train_vae import CHECKPOINT, CONFIG, WORK

from acestep_cli.engine import codec
from acestep_cli.engine.vae import OobleckVAE

SHARD = 50
TILE_FRAMES = 48  # with its reach on both sides a tile stays in a 32 MB cache
SILENCE_SECONDS = 600  # as long as the longest song, so that it is never repeated
CLOCK = 0.25  # amplitude; music has a standard deviation of 1.35, and silence with the clock decodes at -39 dBFS
FOLDER = WORK / "latents"


def trained_vae() -> OobleckVAE:
    vae = OobleckVAE(CONFIG).eval()
    vae.load_state_dict(torch.load(CHECKPOINT, weights_only=True)["vae"])
    return vae


def clock(frames: int) -> torch.Tensor:
    """A hand for each cycle of the corpus [C, F]: its cosines in even frames, its sines in odd ones.

    Two frames are one token of the DiT, so each token reads the whole time of day. A hand turns once in a cycle and,
    on top of that, four times: what beats need is then there to be read, not to be computed from the bar.
    """
    token = torch.arange(frames) // 2 * 2
    angles = 2 * math.pi * token / torch.tensor(corpus.CYCLES)[:, None]
    even = torch.arange(frames) % 2 == 0
    return torch.where(even, angles.cos() + (4 * angles).cos(), angles.sin() + (4 * angles).sin())


def silence(vae: OobleckVAE) -> torch.Tensor:
    """The latents of silence [1, C, F]: the encoder's edge at the first frames, its steady state, and a faint clock.

    The DiT has no absolute positions: many wide layers of attention can count from the start of a song, six narrow
    ones do not get past the second beat. The silence it is given instead of a source is where the published layout
    has room to tell it the time. All 600 s are stored, because a shorter tensor would be tiled and begin again.
    """
    with torch.inference_mode():
        short = vae.encode(torch.zeros(1, 2, 100 * CONFIG.hop))
    steady = short[:, :, 50:51].expand(-1, -1, SILENCE_SECONDS * 25 - 50)
    return torch.cat([short[:, :, :50], steady], dim=2) + CLOCK * clock(SILENCE_SECONDS * 25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument(
        "--longest", type=int, default=48, help="skip longer songs, in seconds: more songs in less time"
    )
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    FOLDER.mkdir(parents=True, exist_ok=True)
    vae = trained_vae()
    torch.save(silence(vae).clone(), WORK / "silence.pt")
    vae.encoder.compile(dynamic=True)
    for shard in range(asked.first // SHARD, (asked.first + asked.count) // SHARD):
        path = FOLDER / f"{shard:04d}.pt"
        if path.exists():
            continue
        latents = []
        for seed in range(shard * SHARD, (shard + 1) * SHARD):
            song = corpus.song(seed)
            if song.duration > asked.longest:
                latents.append(torch.empty(0, CONFIG.decoder_input_channels))
                continue
            audio = torch.from_numpy(corpus.render(song))
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                latents.append(codec.encode(vae, audio, TILE_FRAMES, lambda *_: None).half())
        torch.save(latents, path)
        print(path.name, sum(map(len, latents)) // 25, "s", flush=True)


if __name__ == "__main__":
    main()
