"""One sitting of a training: processes that average their gradients, the rates, and what is kept of it all.

One process per core, each with its own songs: at this size two threads in one process gain a third, two processes nine
tenths. A file keeps weights, their moving average over the steps, and how many there were; a later sitting goes on from
it with new optimizers, and so warms up again.

Rates warm up and stay. Only a sitting for a release lets them fall to nothing, and what it ends with goes into a file
of its own: the weights from before stay, so that training goes on from them at the full rate.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

MUON_RATE, ADAM_RATE = 4e-3, 1.5e-3
WARM_UP = 100  # steps
LONGEST_MEMORY = 0.998  # of the average, for each step
RELEASE_MEMORY = 0.98  # the same once rates fall: what was before they fell is to be forgotten
KEPT_EVERY = 120  # seconds
SHOWN_EVERY = 50  # steps

#: The loss of a new batch for the n-th step, and figures to show.
Losses = Callable[[int], tuple[Tensor, dict[str, float]]]


def save(content: dict[str, object], file: Path) -> None:
    """Put tensors and plain values into a file at once or not at all."""
    partial = file.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(file)


def released(file: Path) -> Path:
    """The file in which a release keeps what it made of the training in `file`."""
    return file.with_stem(f"{file.stem}-release")


def finished(file: Path) -> dict[str, Tensor]:
    """The weights of a training to be used or shipped: those of its release, or else their average so far."""
    release = released(file)
    return torch.load(release if release.exists() else file, weights_only=True)["average"]


class Training:
    """A model's weights, their moving average over the steps, and the file that keeps both, gone on from if it exists.

    Now and then a line is shown and put into a log beside the file: the minutes so far, those of the processor (fewer,
    where others are at work too), the steps, and the means of the figures.
    """

    def __init__(self, model: nn.Module, file: Path, minutes: float, release: bool, warm_up: int | None = None) -> None:
        self.model, self.file, self.minutes, self.release = model, file, minutes, release
        self.warm_up = WARM_UP if warm_up is None else warm_up
        self.average, self.step, self.earlier = copy.deepcopy(model), 0, (0.0, 0.0)
        if file.exists():
            state = torch.load(file, weights_only=True)
            model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.step = state["step"]
            self.earlier = (state.get("minutes", 0.0), state.get("processor_minutes", 0.0))
        self.taken = 0
        self.shown: list[dict[str, float]] = []
        self.began = self.kept = time.monotonic()
        self.computed = time.process_time()

    @property
    def spent(self) -> float:
        """The share of the sitting that is over."""
        return (time.monotonic() - self.began) / (60 * self.minutes)

    def rate(self, spent: float) -> float:
        """The share of the highest learning rate for the next step."""
        return rate(self.taken, spent, self.warm_up, self.release)

    def stepped(self, figures: dict[str, float]) -> None:
        """Take in the weights after a step, show its figures, and keep everything now and then."""
        self.step, self.taken = self.step + 1, self.taken + 1
        with torch.no_grad():
            memory = min(RELEASE_MEMORY if self.release else LONGEST_MEMORY, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - memory)
        self.shown.append(figures)
        if len(self.shown) == SHOWN_EVERY:
            means = {name: float(np.nanmean([one[name] for one in self.shown])) for name in figures}
            line = {**self.so_far(), "step": self.step, **means}
            print("  ".join(f"{name} {value:.4g}" for name, value in line.items()), flush=True)
            with self.file.with_suffix(".jsonl").open("a") as log:
                log.write(json.dumps({**line, "release": self.release}) + "\n")
            self.shown = []
        if time.monotonic() - self.kept > KEPT_EVERY:
            self.keep()

    def so_far(self) -> dict[str, float]:
        """Minutes of all sittings, by the clock and of this process."""
        minutes, computed = self.earlier
        return {"minutes": minutes + (time.monotonic() - self.began) / 60,
                "processor_minutes": computed + (time.process_time() - self.computed) / 60}  # fmt: skip

    def keep(self) -> None:
        """Save it all; a release beside what it began from."""
        self.kept = time.monotonic()
        content = {"model": self.model.state_dict(), "average": self.average.state_dict(), "step": self.step,
                   **self.so_far()}  # fmt: skip
        save(content, released(self.file) if self.release else self.file)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--release", action="store_true", help="let the rates fall, into a file of its own")


def begin(train: Callable[[int, argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Read the command line and start the processes."""
    add_options(parser)
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


def rate(step: int, spent: float, warm_up: int = WARM_UP, release: bool = False) -> float:
    """The share of the highest learning rate, so many steps into a sitting of which a share is spent: up in `warm_up`
    steps, then level; for a release down to nothing in a straight line.
    """
    return min(1, (step + 1) / warm_up) * (max(0.0, 1 - spent) if release else 1)


class Optimizers:
    """Muon for the matrices inside the transformers (it needs about half of AdamW's steps), AdamW for the rest.

    Muon's arithmetic would be a quarter of a step's time: each process does it for its share of the matrices.
    """

    def __init__(self, model: nn.Module, taken: str = "layers") -> None:
        """Muon `taken` for the matrices inside the layers, for all but embeddings, or for none."""
        takes = {
            "layers": lambda name: "layers." in name,
            "all": lambda name: "embed_tokens" not in name,
            "none": lambda _: False,
        }[taken]
        matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and takes(name) and p.requires_grad]
        inner = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in inner and p.requires_grad]
        self.weights = [*matrices, *others]
        self.shares = [matrices[rank :: dist.get_world_size()] for rank in range(dist.get_world_size())]
        adam = torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [(adam, ADAM_RATE)]
        if own := self.shares[dist.get_rank()]:
            muon = torch.optim.Muon(own, lr=MUON_RATE, momentum=0.95, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
            self.optimizers.append((muon, MUON_RATE))

    def step(self, scale: float) -> None:
        """Move every weight, at a share of the highest rates."""
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimizer, peak in self.optimizers:
            optimizer.param_groups[0]["lr"] = peak * scale
            optimizer.step()
        for rank, share in enumerate(self.shares if dist.get_world_size() > 1 else []):
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


def sit(model: nn.Module, file: Path, asked: argparse.Namespace, losses: Losses) -> None:
    """Train until the minutes are over, from `file` where it exists and into it.

    Nothing is compiled: with torch 2.13 compiled layers of the DiT took three quarters of the time and had wrong
    gradients (`gradients.py`).
    """
    training = Training(model, file, asked.minutes, asked.release)
    for weight in model.parameters():
        dist.broadcast(weight.data, 0)
    optimizers = Optimizers(model)
    spent, first = 0.0, dist.get_rank() == 0
    while spent < 1:
        loss, figures = losses(training.step)
        loss.backward()
        spent = average_gradients(optimizers.weights, training.spent)
        optimizers.step(asked.scale * training.rate(spent))
        if first:
            training.stepped(figures)
        else:
            training.step, training.taken = training.step + 1, training.taken + 1
    if first:
        training.keep()
    dist.destroy_process_group()
