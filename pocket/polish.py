"""Train the decoder alone, on latents that stay as they are.

    python pocket/polish.py --minutes 30

A decoder can learn what its latents say without a word of it reaching the DiT, which then need not be trained again.
Two things it has to learn:

* what the corpus sounds like now. The latents of the shipped DiT are those of a dry recording (`band.play(..., dry)`);
  brightness, place and room of each track are the same in every song (`mixing.py`), so that the decoder can add them
  to what it recognises. It is trained to make the mix of the latents of the dry recording and of those of the mix;
* what the DiT leaves undone. Its last step lands near the mean of what is possible, and a decoder that has only seen
  true latents turns that into a buzz at multiples of the 25 Hz frame rate. So dry songs are noised to one of the last
  times of the eight-step schedule too, and denoised by the DiT in one step.

Encoder and latents are those of `pocket/work/vae.pt`. Keeps `pocket/work/decoder.pt`, and with `--release` puts the
decoder into `vae.pt`; `pocket/work/polish/` keeps the latents, which are made once, a few songs at a time.

Shapes: B crops, T latent frames, C latent channels, N samples.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import band
import corpus
import encode
import numpy as np
import sitting
import tokenizer
import torch
import train_dit
import train_vae
from torch import Tensor

from acestep_cli.engine import codec
from acestep_cli.engine.vae import OobleckVAE

STEADY = train_vae.WORK / "decoder.pt"
FOLDER = train_vae.WORK / "polish"
SHARD = 8  # songs
LONGEST = 20  # seconds of a song
ROUGH_TIMES = (0.3, 0.5, 0.6428571428571429)  # where the one denoising step starts from: the last of the schedule
# How often each kind of latents is heard; those that are not the DiT's with noise of up to `HISS`.
KINDS = {"rough": 0.5, "dry": 0.2, "mix": 0.3}
HISS = 0.1
SILENT = 1 / 30  # of the crops are silence, with the clock in it and without
GROWN_EVERY = 60  # steps after which another shard is made, until there are enough


class Pair(NamedTuple):
    """A song as it has to sound, [2, N] int16, and its latents [T, C] by the kinds of `KINDS`."""

    audio: Tensor
    latents: dict[str, Tensor]


class Pairs:
    """The songs of this training, as many as have been made so far."""

    def __init__(self, vae: OobleckVAE, wanted: int) -> None:
        self.vae, self.wanted = vae, wanted
        self.tokens = tokenizer.trained()
        self.model = train_dit.fresh(self.tokens)
        self.model.load_state_dict(train_dit.finished())
        self.rng = np.random.default_rng(0)
        self.found: list[Pair] = []
        FOLDER.mkdir(exist_ok=True)
        for number in range(-(-wanted // SHARD)):
            if self.file(number).exists():
                self.take(number)

    def file(self, number: int) -> Path:
        return FOLDER / f"{number:04d}.pt"

    def grow(self) -> None:
        """Make one more shard, unless there are enough."""
        for number in range(-(-self.wanted // SHARD)):
            if not self.file(number).exists():
                made = {seed: self.latents(seed) for seed in range(number * SHARD, (number + 1) * SHARD)
                        if corpus.song(seed).duration <= LONGEST}  # fmt: skip
                sitting.save(made, self.file(number))
                self.take(number)
                return

    def take(self, number: int) -> None:
        for seed, latents in torch.load(self.file(number), weights_only=True).items():
            audio = torch.from_numpy((band.render(corpus.song(seed)) * 32767).astype(np.int16))
            self.found.append(Pair(audio, latents))

    def latents(self, seed: int) -> dict[str, Tensor]:
        piece = corpus.song(seed)

        def encoded(audio: np.ndarray) -> Tensor:
            return codec.encode_waveform(self.vae, torch.from_numpy(audio), encode.TILE_FRAMES, lambda *_: None).float()

        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            dry, mix = encoded(band.render(piece, dry=True)), encoded(band.render(piece))
            t = float(self.rng.choice(ROUGH_TIMES))
            rough = train_dit.denoised(self.model, piece, dry, t, torch.randn_like(dry), self.tokens, self.rng)
        return {"rough": rough.half().clone(), "dry": dry.half().clone(), "mix": mix.half().clone()}

    def crop(self, frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Latents [C, T] of some kind, and the audio [2, N] that they have to become."""
        hop = train_vae.CONFIG.hop
        if rng.random() < SILENT:
            quiet = self.model.quiet if rng.random() < 0.5 else self.model.silence
            start = int(rng.integers(quiet.shape[1] - frames))
            return quiet[0, start : start + frames].T, torch.zeros(2, frames * hop)
        audio, latents = self.found[rng.integers(len(self.found))]
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        start = int(rng.integers(len(latents[kind]) - frames))
        crop = latents[kind][start : start + frames].float()
        if kind != "rough":
            crop = crop + HISS * rng.random() * torch.randn_like(crop)
        return crop.T, audio[:, start * hop : (start + frames) * hop].float() / 32767


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sitting.add_options(parser)
    parser.add_argument("--songs", type=int, default=400)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--frames", type=int, default=24, help="latent frames in a crop")
    parser.add_argument("--rate", type=float, default=8e-4, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(int(time.time()))
    rng = np.random.default_rng(int(time.time()))

    vae = encode.trained_vae()
    pairs = Pairs(vae, asked.songs)
    if not pairs.found:
        pairs.grow()
    training = sitting.Training(vae.decoder, STEADY, asked.minutes, asked.release, train_vae.WARM_UP)
    trained = list(vae.decoder.parameters())
    optimizers = train_vae.optimizers_for(trained, asked.rate)
    decode = torch.compile(vae.decoder)
    while (spent := training.spent) < 1:
        if training.taken % GROWN_EVERY == GROWN_EVERY - 1:
            pairs.grow()
        crops = (pairs.crop(asked.frames, rng) for _ in range(asked.batch))
        latents, audio = (torch.stack(part) for part in zip(*crops, strict=True))
        with torch.autocast("cpu", torch.bfloat16):
            guess = decode(latents).float()
        loss, figures = train_vae.reconstruction(guess, audio)
        train_vae.update(loss, trained, optimizers, training.rate(spent))
        training.stepped({**figures, "songs": len(pairs.found)})
    training.keep()
    if asked.release:
        vae.decoder.load_state_dict(training.average.state_dict())
        sitting.save({"vae": vae.state_dict()}, train_vae.CHECKPOINT)


if __name__ == "__main__":
    main()
