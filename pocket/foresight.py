"""How much of a song the DiT knows before it hears anything: what it explains of the latents from pure noise.

    python pocket/foresight.py --count 24

One step from t = 1 gives the mean of what may come for a prompt. Its error against the true song, second by second,
says how far into a song the prompt is still obeyed; songs were never trained on. Zero is knowing nothing but silence.
"""

from __future__ import annotations

import argparse

import band
import corpus
import encode
import numpy as np
import tokenizer
import torch
import train_dit

from acestep_cli.engine import codec

SECONDS = (1, 2, 4, 8, 12, 16, 24, 32)
RATE = 25


def explained(model: train_dit.Pocket, song: corpus.Song, latents: torch.Tensor, tokens) -> np.ndarray:
    """Squared error and squared size of one song [T, C], in each second [2, T // 25]."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(song.seed))
    guess = train_dit.denoised(model, song, latents, 1.0, noise, tokens, np.random.default_rng(song.seed))
    whole = len(latents) // RATE * RATE
    pairs = ((latents - guess) ** 2, latents**2)
    return np.stack([p[:whole].reshape(-1, RATE * latents.shape[1]).sum(1).numpy() for p in pairs])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=24)
    count = parser.parse_args().count
    tokens = tokenizer.trained()
    model = train_dit.fresh(tokens).eval()
    state = torch.load(train_dit.CHECKPOINT, weights_only=True)
    model.load_state_dict(state["average"])
    vae = encode.trained_vae()
    sums = np.zeros((2, 48))
    for number in range(count):
        song = corpus.song(corpus.HELD_OUT + 1000 + number)
        audio = torch.from_numpy(band.render(song))
        with torch.autocast("cpu", torch.bfloat16):
            latents = codec.encode_waveform(vae, audio, encode.TILE_FRAMES, lambda *_: None).float()
        error = explained(model, song, latents, tokens)
        sums[:, : error.shape[1]] += error
    print(f"step {state['step']}, {count} songs")
    print("| second | " + " | ".join(str(second) for second in SECONDS) + " |")
    print("|---|" + "---|" * len(SECONDS))
    print("| explained | " + " | ".join(f"{1 - sums[0, s - 1] / sums[1, s - 1]:.0%}" for s in SECONDS) + " |")


if __name__ == "__main__":
    main()
