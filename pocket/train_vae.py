"""Train the autoencoder: 48 kHz stereo <-> 16 latents at 25 Hz.

    python pocket/train_vae.py --minutes 25

Saves `pocket/work/vae.pt` every two minutes and resumes from it; at the end, each latent is given zero mean and
unit deviation. The learning rate falls along a cosine over the minutes given, so a faster machine simply trains
more. When the DiT stands, `polish.py` goes over the decoder once more.

Shapes: B crops, N samples, C latent channels, T latent frames.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import band
import corpus
import numpy as np
import sitting
import torch
from torch import Tensor
from torch.nn import functional as F

from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.models.configs import VAEConfig

WORK = Path(__file__).parent / "work"
CHECKPOINT = WORK / "vae.pt"
# 48k -> 8k -> 2k -> 250 -> 25 Hz. Widths grow as the rate falls, so that each rate costs about the same in the
# decoder (0.8 GMAC per second of audio in all); the encoder's width of 32 is forced by the 16 latents.
CONFIG = VAEConfig(
    encoder_hidden_size=32, downsampling_ratios=(6, 4, 8, 10), channel_multiples=(2, 4, 8, 8),
    decoder_channels=16, decoder_input_channels=16,
)  # fmt: skip
# The longest window tells 6 Hz apart: shorter ones alone let tones wobble at the frame rate, and the key is misheard.
WINDOWS = (8192, 4096, 2048, 1024, 512, 256, 128)
FLOOR = 1e-2  # spectral magnitudes below this (hiss) are not worth matching
KL_WEIGHT, WAVE_WEIGHT = 1e-3, 4.0
WARM_UP = 200  # steps
POOL = 420  # songs held in memory to crop from, about two hours


def song_pool(count: int) -> list[Tensor]:
    """The first songs of the corpus as int16 [2, N]: two hours take 1.4 GB and half a minute to render."""
    pool = []
    for seed in range(count):
        audio = band.render(corpus.song(seed))
        pool.append(torch.from_numpy((audio * 32767).astype(np.int16)))
    return pool


def crops(pool: list[Tensor], size: int, samples: int, rng: np.random.Generator) -> Tensor:
    """Random crops [B, 2, N] with random gain, channel order and polarity; one in thirty is silence."""
    batch = []
    for _ in range(size):
        audio = pool[rng.integers(len(pool))]
        start = int(rng.integers(audio.shape[1] - samples))
        crop = audio[:, start : start + samples].float() / 32767
        gain = 0.0 if rng.random() < 1 / 30 else rng.choice([-1, 1]) * 10 ** rng.uniform(-0.5, 0.05)
        batch.append((crop if rng.random() < 0.5 else crop.flip(0)) * gain)
    return torch.stack(batch)


def views(audio: Tensor) -> Tensor:
    """Left, right, mid and side of [B, 2, N], as [4B, N]: the stereo image is judged as well as each channel."""
    left, right = audio[:, 0], audio[:, 1]
    return torch.cat([left, right, (left + right) / 2, (left - right) / 2])


def spectral_loss(guess: Tensor, truth: Tensor) -> Tensor:
    """Mean over windows of spectral convergence plus log-magnitude distance (Yamamoto et al., 2020)."""
    total = guess.new_zeros(())
    for size in WINDOWS:
        window = torch.hann_window(size)
        a, b = (
            torch.stft(views(x), size, size // 4, window=window, return_complex=True) / math.sqrt(size)
            for x in (guess, truth)
        )
        a, b = (a.real.square() + a.imag.square() + 1e-8).sqrt(), b.abs()
        convergence = (a - b).square().mean().sqrt() / (b.square().mean().sqrt() + 1e-3)
        total = total + convergence + F.l1_loss((a + FLOOR).log(), (b + FLOOR).log())
    return total / len(WINDOWS)


def normalise(vae: OobleckVAE, pool: list[Tensor], rng: np.random.Generator) -> None:
    """Give every latent channel zero mean and unit deviation over the corpus, by folding both into two convolutions.

    The posterior's deviation becomes a constant 0.05: at use only the mean is taken.
    """
    with torch.no_grad():
        latents = torch.cat([vae.encode(crops(pool, 8, 2 * 48_000, rng)) for _ in range(10)])  # [B, C, T]
        mean, std = latents.mean((0, 2)), latents.std((0, 2))
        channels = CONFIG.decoder_input_channels
        last, first = vae.encoder.conv2, vae.decoder.conv1
        last.weight[:channels] /= std.view(-1, 1, 1)
        last.bias[:channels] = (last.bias[:channels] - mean) / std
        last.weight[channels:] = 0
        last.bias[channels:] = math.log(math.expm1(0.05))
        first.bias += (first.weight * mean.view(1, -1, 1)).sum((1, 2))
        first.weight *= std.view(1, -1, 1)


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan et al., 2024) for convolutions, each seen as a matrix of its output rows.

    PyTorch's own takes plain matrices only. Updates have the size of AdamW's, as in Moonlight (Liu et al., 2025).
    """

    def __init__(self, kernels: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(kernels, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for kernel in group["params"]:
                memory = self.state[kernel].setdefault("momentum", torch.zeros_like(kernel))
                memory.lerp_(kernel.grad, 1 - group["momentum"])
                x = kernel.grad.lerp(memory, group["momentum"]).flatten(1).bfloat16()
                wide = x.shape[0] <= x.shape[1]
                x = x if wide else x.T
                x = x / (x.norm() + 1e-7)
                for _ in range(5):  # the published quintic, which brings all singular values near 1
                    gram = x @ x.T
                    x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
                x = x if wide else x.T
                size = 0.2 * math.sqrt(max(x.shape))
                kernel.add_(x.float().view_as(kernel), alpha=-group["lr"] * size)


def optimizers_for(parameters: list[Tensor], rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the kernels inside, AdamW at half the rate for the snakes, the biases and the audio ends."""
    kernels = [p for p in parameters if p.dim() == 3 and p.shape[0] > 1 and p.shape[1] > 2]
    others = [p for p in parameters if all(p is not k for k in kernels)]
    return [Muon(kernels, rate), torch.optim.AdamW(others, rate / 2, betas=(0.9, 0.99), weight_decay=0)]


def update(loss: Tensor, trained: list[Tensor], optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """One step at `share` of each optimizer's highest rate."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group.setdefault("highest", group["lr"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--frames", type=int, default=12, help="latent frames in a crop")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(int(time.time()))  # a resumed sitting must not see the same crops again
    WORK.mkdir(exist_ok=True)

    vae = OobleckVAE(CONFIG)
    if CHECKPOINT.exists():
        vae.load_state_dict(torch.load(CHECKPOINT, weights_only=True)["vae"])
    pool = song_pool(POOL)
    trained = list(vae.parameters())
    optimizers = optimizers_for(trained, asked.rate)
    # Compiled, the snakes melt into single loops: 0.12 s of training per second of audio instead of 0.2 to 0.3.
    encode, decode = torch.compile(vae.encoder), torch.compile(vae.decoder)

    began = saved = last = time.monotonic()
    samples, step, shown = asked.frames * CONFIG.hop, 0, []
    while (spent := (time.monotonic() - began) / (60 * asked.minutes)) < 1:
        audio = crops(pool, asked.batch, samples, rng)
        with torch.autocast("cpu", torch.bfloat16):
            mean, scale = encode(audio).float().chunk(2, dim=1)
            std = F.softplus(scale) + 1e-4
            divergence = 0.5 * (mean.square() + std.square() - 2 * std.log() - 1).mean()
            guess = decode(mean + std * torch.randn_like(std)).float()
        spectral, wave = spectral_loss(guess, audio), F.l1_loss(guess, audio)
        loss = spectral + WAVE_WEIGHT * wave + KL_WEIGHT * divergence
        update(loss, trained, optimizers, sitting.rate(step, spent, WARM_UP))
        step += 1
        shown.append((spectral.item(), wave.item(), divergence.item()))
        now = time.monotonic()
        if len(shown) == 50:
            s, w, k = np.mean(shown, 0)
            print(
                f"{step} {spent:.0%} {(now - last) / 50:.3f} s/step  spectral {s:.3f}  wave {w:.4f}  kl {k:.3f}",
                flush=True,
            )
            shown, last = [], now
        if now - saved > 120:
            torch.save({"vae": vae.state_dict()}, CHECKPOINT)
            saved = now
    normalise(vae, pool, rng)
    torch.save({"vae": vae.state_dict()}, CHECKPOINT)


if __name__ == "__main__":
    main()
