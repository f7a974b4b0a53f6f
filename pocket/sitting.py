"""One sitting of a training: processes that average their gradients, rates that fall, and what is kept of it all.

One process per core, each with its own songs: at this size two threads in one process gain a third, two processes nine
tenths. A file keeps weights, their moving average over the steps, and how many there were; a later sitting goes on from
it with new optimizers, and so warms up again.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

MUON_RATE, ADAM_RATE = 4e-3, 1.5e-3
WARM_UP = 100  # steps
LONGEST_MEMORY = 0.998  # of the average, for each step
KEPT_EVERY = 120  # seconds
SHOWN_EVERY = 50  # steps

#: The loss of a new batch for the n-th step, and figures to show.
Losses = Callable[[int], tuple[Tensor, dict[str, float]]]


def begin(train: Callable[[int, argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Read the command line and start the processes."""
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of the learning rates, for a second sitting")
    parser.add_argument("--port", type=int, default=29511)
    asked = parser.parse_args()
    mp.spawn(train, (asked,), nprocs=asked.processes)


def join(rank: int, asked: argparse.Namespace) -> np.random.Generator:
    """Meet the other processes; random numbers that no other process and no other sitting has seen."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{asked.port}", rank=rank, world_size=asked.processes)
    torch.set_num_threads(1)
    torch.manual_seed(rank + 1000 * int(time.time()))
    return np.random.default_rng(torch.initial_seed())


def rate(step: int, spent: float, warm_up: int = WARM_UP) -> float:
    """The share of the highest learning rate, so many steps into a sitting of which a share is spent: up in `warm_up`
    steps, then down as a cosine.
    """
    return min(1, (step + 1) / warm_up) * max(0.02, 0.5 * (1 + math.cos(math.pi * spent)))


class Optimizers:
    """Muon for the matrices inside the transformers (it needs about half of AdamW's steps), AdamW for the rest.

    Muon's arithmetic would be a quarter of a step's time: each process does it for its share of the matrices.
    """

    def __init__(self, model: nn.Module) -> None:
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "layers." in name and p.requires_grad]
        inner = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in inner and p.requires_grad]
        self.weights = [*matrices, *others]
        self.shares = [matrices[rank :: dist.get_world_size()] for rank in range(dist.get_world_size())]
        self.muon = torch.optim.Muon(self.shares[dist.get_rank()], lr=MUON_RATE, momentum=0.95, weight_decay=0.02,
                                     adjust_lr_fn="match_rms_adamw")  # fmt: skip
        self.adam = torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def step(self, scale: float) -> None:
        """Move every weight, at a share of the highest rates."""
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimizer, peak in ((self.muon, MUON_RATE), (self.adam, ADAM_RATE)):
            optimizer.param_groups[0]["lr"] = peak * scale
            optimizer.step()
        for rank, share in enumerate(self.shares):
            flat = torch.cat([weight.detach().flatten() for weight in share])
            dist.broadcast(flat, rank)
            if rank != dist.get_rank():
                for weight, moved in zip(share, flat.split([w.numel() for w in share]), strict=True):
                    weight.data.copy_(moved.view_as(weight))
        for weight in self.weights:
            weight.grad = None


def average_gradients(weights: list[Tensor], note: float) -> float:
    """Average all gradients over the processes in one message; `note` of the first process reaches every other."""
    first = dist.get_rank() == 0
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    flat = torch.cat([*(g.flatten() for g in gradients), torch.tensor([note if first else 0.0])])
    dist.all_reduce(flat)
    for weight, mean in zip(weights, (flat[:-1] / dist.get_world_size()).split([w.numel() for w in weights]),
                            strict=True):  # fmt: skip
        weight.grad = mean.view_as(weight)
    return float(flat[-1])


def sit(
    model: nn.Module, file: Path, asked: argparse.Namespace, losses: Losses, compiled: Iterable[nn.Module] = ()
) -> None:
    """Train until the minutes are over, from `file` where it exists and into it.

    `compiled` layers run in three quarters of the time, after two minutes of compiling.
    """
    average, step = copy.deepcopy(model), 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        step = state["step"]
    for weight in model.parameters():
        dist.broadcast(weight.data, 0)
    optimizers, averages = Optimizers(model), list(average.parameters())
    for layer in compiled:
        layer.compile(dynamic=True)

    def keep() -> None:
        partial = file.with_suffix(".partial")
        torch.save({"model": model.state_dict(), "average": average.state_dict(), "step": step}, partial)
        partial.replace(file)

    shown: list[dict[str, float]] = []
    spent, taken = 0.0, 0
    began = kept = last = time.monotonic()
    while spent < 1:
        loss, figures = losses(step)
        loss.backward()
        spent = average_gradients(optimizers.weights, (time.monotonic() - began) / (60 * asked.minutes))
        optimizers.step(asked.scale * rate(taken, spent))
        step, taken = step + 1, taken + 1
        if dist.get_rank() > 0:
            continue
        with torch.no_grad():
            memory = min(LONGEST_MEMORY, (1 + step) / (10 + step))
            torch._foreach_lerp_(averages, list(model.parameters()), 1 - memory)
        shown.append(figures)
        now = time.monotonic()
        if len(shown) == SHOWN_EVERY:
            means = (f"{name} {np.nanmean([one[name] for one in shown]):.3f}" for name in figures)
            print(f"{step} {spent:.0%} {(now - last) / SHOWN_EVERY:.2f} s/step ", *means, sep="  ", flush=True)
            shown, last = [], now
        if now - kept > KEPT_EVERY:
            keep()
            kept = now
    if dist.get_rank() == 0:
        keep()
    dist.destroy_process_group()
