"""Compare ways to take a step of the DiT's training: the loss against minutes of the processor, from the same start.

    python pocket/compare.py --steps 200

Every way begins at `pocket/work/dit.pt` and sees the same songs, tasks, times and noise; one process, one thread,
nothing is kept. Prints a row for every `--shown` steps: the mean of the flow-matching loss since the last, by way.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace

import numpy as np
import sitting
import tokenizer
import torch
import torch.distributed as dist
import train_dit
from torch.nn.attention import SDPBackend, sdpa_kernel

#: What takes the matrices: `sitting.Optimizers`.
WAYS = {"AdamW": "none", "Muon in the layers": "layers", "Muon for all matrices": "all"}


def run(way: str, asked: argparse.Namespace) -> list[tuple[float, float]]:
    """(Processor minutes so far, mean loss since the last) of one way."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokens = tokenizer.trained()
    model = train_dit.fresh(tokens)
    model.load_state_dict(torch.load(train_dit.CHECKPOINT, weights_only=True)["model"])
    for name, weight in model.dit.named_parameters():
        weight.requires_grad_(not name.startswith(("tokenizer", "detokenizer")))
    songs = train_dit.Songs()
    songs.refresh()
    optimizers, shown, found = sitting.Optimizers(model, WAYS[way]), [], []
    began = time.process_time()
    for step in range(asked.steps):
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            chosen = songs.batch(asked.frames, rng)
            flow, beat, score = train_dit.losses(model, songs, chosen, tokens, rng, None)
        (flow + train_dit.BEAT_WEIGHT * beat + train_dit.SCORE_WEIGHT * score).backward()
        optimizers.step(asked.scale * sitting.rate(step, 0.0))
        shown.append(flow.item())
        if len(shown) == asked.shown:
            found.append(((time.process_time() - began) / 60, float(np.mean(shown))))
            print(way, step + 1, *(f"{value:.4f}" for value in found[-1]), flush=True)
            shown = []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--shown", type=int, default=50, help="steps in a row of the table")
    parser.add_argument("--scale", type=float, default=0.2, help="of the highest rates")
    parser.add_argument("--frames", type=int, default=1200, help="latent frames in a batch")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--port", type=int, default=29513)
    asked = parser.parse_args()
    sitting.join(0, SimpleNamespace(port=asked.port, processes=1))
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    found = {way: run(way, asked) for way in asked.ways}
    dist.destroy_process_group()
    print("| steps |", " | ".join(found), "|")
    print("|---|" + "---|" * len(found))
    for row, cells in enumerate(zip(*found.values(), strict=True), start=1):
        print(f"| {row * asked.shown} |", " | ".join(f"{loss:.3f} ({minutes:.1f} min)" for minutes, loss in cells), "|")


if __name__ == "__main__":
    main()
