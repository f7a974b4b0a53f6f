"""Train the autoencoder: 48 kHz stereo <-> 16 latents at 25 Hz.

    python pocket/train_vae.py --minutes 25

Saves `pocket/work/autoencoder.pt` every two minutes and goes on from it (`sitting.py`). With `--release` each latent is
given zero mean and unit deviation at the end, and `pocket/work/vae.pt` is written: all that works on latents has to be
trained on the new ones. `polish.py` trains the decoder alone, and the latents stay.

Shapes: B crops, N samples, C latent channels, T latent frames.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import cache
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
STEADY = WORK / "autoencoder.pt"  # the training, before any release
# 48k -> 8k -> 2k -> 250 -> 25 Hz. Widths grow as the rate falls, so that each rate costs about the same in the
# decoder (0.8 GMAC per second of audio in all); the encoder's width of 32 is forced by the 16 latents.
CONFIG = VAEConfig(
    encoder_hidden_size=32, downsampling_ratios=(6, 4, 8, 10), channel_multiples=(2, 4, 8, 8),
    decoder_channels=16, decoder_input_channels=16,
)  # fmt: skip
# The longest window tells 6 Hz apart: shorter ones alone let tones wobble at the frame rate, and the key is misheard.
WINDOWS = (8192, 2048, 512, 128)
FLOOR = 3e-3  # spectral magnitudes below this (hiss) are not worth matching
# How much each view of the stereo image counts. The side is 10 to 20 dB quieter than the mid.
VIEWS = {"left": 0.5, "right": 0.5, "mid": 1.0, "side": 1.5}
# Mel bands by window: as many in each octave above 1 kHz, so that the highs, which are little of the music's power,
# count as the ear hears them.
MELS = {2048: 80, 512: 32}
MEL_LOW, MEL_HIGH, MEL_FLOOR = 40, 14_000, 1e-7  # Hz, Hz, power (-70 dB)
MEL_WEIGHT = 1.0
# What nobody can foresee of noise, a distance of logarithms settles at its median, which is quieter than it is: so the
# mel bands are compared as means over a whole crop too.
CROP_WEIGHT = 2.0
# The wave itself is compared below 1 kHz or so alone. Of what is above, the latents do not tell the phase, and the best
# guess at a wave of unknown phase is silence: with all of the wave in the loss, highs came out 5 to 9 dB too quiet.
WAVE_SAMPLES = 24  # averaged into one
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
    """What `VIEWS` names of [B, 2, N], as [4, B, N]: the stereo image is judged as well as each channel."""
    left, right = audio[:, 0], audio[:, 1]
    return torch.stack([left, right, (left + right) / 2, (left - right) / 2])


@cache
def mel_bands(size: int) -> Tensor:
    """Triangles [bands, size / 2 + 1] over the bins of a window, evenly spaced in mel, each with a sum of 1."""
    count = MELS[size]
    mels = torch.linspace(*(2595 * math.log10(1 + hertz / 700) for hertz in (MEL_LOW, MEL_HIGH)), count + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    # No narrower than a bin: the lowest triangles would fall between two of them.
    apart = edges.diff().clamp_min(48_000 / size)
    bins = torch.fft.rfftfreq(size, 1 / 48_000)
    centre = edges[1:-1, None]
    rise, fall = (bins - centre) / apart[:-1, None] + 1, (centre - bins) / apart[1:, None] + 1
    bands = torch.minimum(rise, fall).clamp_min(0)
    return bands / bands.sum(1, keepdim=True)


def spectral_losses(guess: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of [B, 2, N], each a mean over the views by their weights: over windows, spectral convergence plus log-magnitude
    distance (Yamamoto et al., 2020); and the distances of log-mel amplitudes in nepers (8.7 dB), of each moment and of
    the whole crop.
    """
    weights = guess.new_tensor(list(VIEWS.values()))
    weights = weights / weights.sum()
    spectral = mel = crop = guess.new_zeros(())
    for size in WINDOWS:
        window = torch.hann_window(size)

        def power(x: Tensor, size: int = size, window: Tensor = window) -> Tensor:
            found = torch.stft(views(x).flatten(0, 1), size, size // 4, window=window, return_complex=True)
            return (found.real.square() + found.imag.square()).unflatten(0, (len(VIEWS), -1)) / size

        of_guess, of_truth = power(guess), power(truth)
        a, b = (of_guess + 1e-8).sqrt(), (of_truth + 1e-8).sqrt()
        each = (1, 2, 3)
        convergence = (a - b).square().mean(each).sqrt() / (b.square().mean(each).sqrt() + 1e-3)
        logs = ((a + FLOOR).log() - (b + FLOOR).log()).abs().mean(each)
        spectral = spectral + weights @ (convergence + logs)
        if size in MELS:
            a, b = (mel_bands(size) @ x + MEL_FLOOR for x in (of_guess, of_truth))
            mel = mel + weights @ (a.log() - b.log()).abs().mean(each) / 2
            crop = crop + weights @ (a.mean(-1).log() - b.mean(-1).log()).abs().mean((1, 2)) / 2
    return spectral / len(WINDOWS), mel / len(MELS), crop / len(MELS)


def reconstruction(guess: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
    """How far audio [B, 2, N] is from what it should be, and figures to show."""
    spectral, mel, crop = spectral_losses(guess, truth)
    wave, db = F.l1_loss(*(F.avg_pool1d(x, WAVE_SAMPLES, WAVE_SAMPLES // 2) for x in (guess, truth))), 20 / math.log(10)
    figures = {"spectral": spectral.item(), "mel_db": db * mel.item(), "crop_db": db * crop.item(), "wave": wave.item()}
    return spectral + MEL_WEIGHT * mel + CROP_WEIGHT * crop + WAVE_WEIGHT * wave, figures


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
    sitting.add_options(parser)
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
    training = sitting.Training(vae, STEADY, asked.minutes, asked.release, WARM_UP)
    pool = song_pool(POOL)
    trained = list(vae.parameters())
    optimizers = optimizers_for(trained, asked.rate)
    # Compiled, the snakes melt into single loops: 0.12 s of training per second of audio instead of 0.2 to 0.3.
    encode, decode = torch.compile(vae.encoder), torch.compile(vae.decoder)
    while (spent := training.spent) < 1:
        audio = crops(pool, asked.batch, asked.frames * CONFIG.hop, rng)
        with torch.autocast("cpu", torch.bfloat16):
            mean, scale = encode(audio).float().chunk(2, dim=1)
            std = F.softplus(scale) + 1e-4
            divergence = 0.5 * (mean.square() + std.square() - 2 * std.log() - 1).mean()
            guess = decode(mean + std * torch.randn_like(std)).float()
        loss, figures = reconstruction(guess, audio)
        update(loss + KL_WEIGHT * divergence, trained, optimizers, training.rate(spent))
        training.stepped({**figures, "kl": divergence.item()})
    training.keep()
    if asked.release:
        normalise(training.average, pool, rng)
        sitting.save({"vae": training.average.state_dict()}, CHECKPOINT)


if __name__ == "__main__":
    main()
