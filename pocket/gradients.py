"""Compare the gradients of a training with those of plain float32: eager in bfloat16, and compiled in bfloat16.

    python pocket/gradients.py

A loss does not tell a wrong gradient: the first steps lower it all the same. Prints, for the DiT and for the decoder of
the autoencoder, the cosine between each parameter's gradient and that in float32: the median and the lowest twentieth
over parameters and batches. Needs what `encode.py` and `reopen.py` write.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import band
import corpus
import encode
import numpy as np
import sitting
import tokenizer
import torch
import train_dit
import train_vae
from sounds import FRAME
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

WAYS = {"float32": (False, False), "bfloat16": (True, False), "bfloat16, compiled": (True, True)}
FRAMES = 12  # latent frames of a crop that the decoder makes


def gradients(model: nn.Module, loss: Callable[[int], Tensor], batches: int) -> list[dict[str, Tensor]]:
    """The gradients of the parameters that a loss reaches, for each batch."""
    found = []
    for number in range(batches):
        model.zero_grad(set_to_none=True)
        loss(number).backward()
        found.append({name: p.grad.flatten() for name, p in model.named_parameters() if p.grad is not None})
    return found


def dit(in_bfloat16: bool, compiled: bool, asked: argparse.Namespace) -> list[dict[str, Tensor]]:
    tokens = tokenizer.trained()
    model = train_dit.fresh(tokens)
    model.load_state_dict(sitting.finished(train_dit.CHECKPOINT))
    for name, weight in model.dit.named_parameters():
        weight.requires_grad_(not name.startswith(("tokenizer", "detokenizer")))
    songs = train_dit.Songs()
    songs.refresh()
    if compiled:
        for layer in model.dit.decoder.layers:
            layer.compile(dynamic=True)

    def loss(number: int) -> Tensor:
        torch.manual_seed(number)
        rng = np.random.default_rng(number)
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16), sdpa_kernel(SDPBackend.MATH):
            chosen = songs.batch(asked.frames, rng)
            flow, beat, score = train_dit.losses(model, songs, chosen, tokens, rng, None)
        return flow + train_dit.BEAT_WEIGHT * beat + train_dit.SCORE_WEIGHT * score

    return gradients(model, loss, asked.batches)


def decoder(in_bfloat16: bool, compiled: bool, asked: argparse.Namespace) -> list[dict[str, Tensor]]:
    vae = encode.trained_vae()
    decode = torch.compile(vae.decoder) if compiled else vae.decoder

    def loss(number: int) -> Tensor:
        audio = torch.from_numpy(band.render(corpus.song(number)))[:, : FRAMES * FRAME][None]
        with torch.no_grad():
            latents = vae.encode(audio)
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            guess = decode(latents)
        return train_vae.reconstruction(guess.float(), audio)[0]

    return gradients(vae.decoder, loss, asked.batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--frames", type=int, default=1200, help="latent frames in a batch of the DiT")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    print("| cosine with float32: median · lowest twentieth |", " | ".join(list(WAYS)[1:]), "|")
    print("|---|" + "---|" * (len(WAYS) - 1))
    for network in (dit, decoder):
        exact, *others = (network(*way, asked) for way in WAYS.values())
        cells = []
        for other in others:
            cosines = [
                torch.cosine_similarity(own[name], wanted[name], dim=0).item()
                for own, wanted in zip(other, exact, strict=True)
                for name in wanted
                if wanted[name].any()
            ]
            cells.append(f"{np.median(cosines):.3f} · {np.quantile(cosines, 0.05):.3f}")
        print(f"| {network.__name__} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
