"""Train the decoder once more, on latents as the DiT leaves them.

    python pocket/polish.py --minutes 10

A small DiT's last step lands near the mean of what is possible, and the decoder, which has only seen true latents,
turns that into a buzz at multiples of the 25 Hz frame rate. So songs are noised to one of the last times of the
eight-step schedule, denoised by the DiT in one step, and the decoder learns to make the true audio of the result.
Encoder and latents stay as they are, and part of every batch is clean, for the tasks that start from a recording.

Shapes: B crops, T latent frames, C latent channels.
"""

from __future__ import annotations

import argparse
import time

import band
import numpy as np
import sitting
import tokenizer
import torch
import train_dit
import train_vae
from encode import trained_vae
from torch import Tensor
from torch.nn import functional as F

ROUGH_TIMES = (0.3, 0.5, 0.6428571428571429)  # where the one denoising step starts from: the last of the schedule
CLEAN = 0.35  # share of crops on true latents, with noise of up to a tenth


def rough_latents(
    model: train_dit.Pocket, songs: train_dit.Songs, index: int, tokens, rng: np.random.Generator
) -> Tensor:
    """One song [T, C] as the DiT sees it through noise."""
    clean, t = songs.heard[index].mix.float(), float(rng.choice(ROUGH_TIMES))
    return train_dit.denoised(model, songs.pieces[index], clean, t, torch.randn_like(clean), tokens, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--songs", type=int, default=300)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--frames", type=int, default=24, help="latent frames in a crop")
    parser.add_argument("--rate", type=float, default=6e-4, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(int(time.time()))

    tokens = tokenizer.trained()
    model = train_dit.fresh(tokens)
    model.load_state_dict(torch.load(train_dit.CHECKPOINT, weights_only=True)["average"])
    songs = train_dit.Songs()
    songs.refresh()
    pool = []  # (audio [2, N] int16, true latents [T, C], rough latents [T, C])
    for index in range(asked.songs):
        audio = band.render(songs.pieces[index])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            rough = rough_latents(model, songs, index, tokens, rng)
        pool.append((torch.from_numpy((audio * 32767).astype(np.int16)), songs.heard[index].mix.float(), rough.clone()))
    print(
        f"{len(pool)} songs, rough latents off by {np.mean([F.mse_loss(c, r).item() for _, c, r in pool]):.3f}",
        flush=True,
    )

    vae, hop = trained_vae(), train_vae.CONFIG.hop
    trained = list(vae.decoder.parameters())
    optimizers = train_vae.optimizers_for(trained, asked.rate)
    decode = torch.compile(vae.decoder)

    def crop() -> tuple[Tensor, Tensor]:
        audio, clean, rough = pool[rng.integers(len(pool))]
        start = int(rng.integers(len(clean) - asked.frames))
        frames = slice(start, start + asked.frames)
        if rng.random() < CLEAN:
            latents = clean[frames] + 0.1 * rng.random() * torch.randn_like(clean[frames])
        else:
            latents = rough[frames]
        return latents.T, audio[:, frames.start * hop : frames.stop * hop].float() / 32767

    began = saved = last = time.monotonic()
    step, shown = 0, []
    while (spent := (time.monotonic() - began) / (60 * asked.minutes)) < 1:
        latents, audio = (torch.stack(part) for part in zip(*(crop() for _ in range(asked.batch)), strict=True))
        with torch.autocast("cpu", torch.bfloat16):
            guess = decode(latents).float()
        spectral, wave = train_vae.spectral_loss(guess, audio), F.l1_loss(guess, audio)
        loss = spectral + train_vae.WAVE_WEIGHT * wave
        train_vae.update(loss, trained, optimizers, sitting.rate(step, spent, train_vae.WARM_UP))
        step += 1
        shown.append((spectral.item(), wave.item()))
        now = time.monotonic()
        if len(shown) == 50:
            s, w = np.mean(shown, 0)
            print(f"{step} {spent:.0%} {(now - last) / 50:.3f} s/step  spectral {s:.3f}  wave {w:.4f}", flush=True)
            shown, last = [], now
        if now - saved > 120:
            torch.save({"vae": vae.state_dict()}, train_vae.CHECKPOINT)
            saved = now
    torch.save({"vae": vae.state_dict()}, train_vae.CHECKPOINT)


if __name__ == "__main__":
    main()
