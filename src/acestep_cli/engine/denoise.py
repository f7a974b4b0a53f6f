"""From noise to latents: the guided velocity and the one loop over the schedule.

Rules: `dit.md` 5 of the specification and the rulings. State and schedule are float32; only the model's input
takes the weights' dtype.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.engine.dit import CrossKV, DiT
from acestep_cli.progress import Progress
from acestep_cli.solvers import GUIDANCE_METHODS, SOLVERS


@dataclass(frozen=True)
class Guided:
    """Guidance away from the null condition: how strongly, how, and at which times t."""

    unconditional: CrossKV
    scale: float
    method: str
    interval: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class ConditionSwitch:
    """Another context and condition, which the diffusion goes over to after a share of its steps."""

    share: float
    context: Tensor
    cross_kv: CrossKV


@dataclass(frozen=True)
class SourceHold:
    """Clean latents [1, T, C] that are held on to where `inside` [1, T, 1] is 0, for a share of the steps.

    `blend` is how much of each frame is new in the end. `last_step`: whether they are put back after the step to time
    0 too. After that `blend` would mix them with themselves.
    """

    share: float
    clean: Tensor
    inside: Tensor
    blend: Tensor
    last_step: bool


def stage_generator(seed: int, stage: str) -> torch.Generator:
    """A CPU generator of its own for one stage of one take, so that no stage shifts another's draws."""
    digest = hashlib.sha256(f"{seed}:{stage}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def starting_noise(seed: int, frames: int, channels: int) -> Tensor:
    """The noise of one take [1, T, C], float32, drawn on the CPU so that every device starts alike."""
    return torch.randn(1, frames, channels, generator=torch.Generator("cpu").manual_seed(seed))


def denoise(
    dit: DiT,
    noise: Tensor,
    context: Tensor,
    cross_kv: CrossKV,
    schedule: Sequence[float],
    *,
    solver: str,
    guided: Guided | None,
    seed: int,
    progress: Progress,
    switch: ConditionSwitch | None = None,
    hold: SourceHold | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Carry noise [1, T, C] along `schedule` (times falling to 0) to latents [1, T, C], float32.

    `context` [1, T, in_channels - C] holds source latents and mask, `memory` the projected condition. With `start`,
    clean latents, it begins at the first time of the schedule on the way from them to the noise.
    """
    device, dtype = context.device, context.dtype
    guide = GUIDANCE_METHODS[guided.method].start() if guided else None

    def predict(x: Tensor, t: float, memory: CrossKV) -> Tensor:
        times = torch.full((x.shape[0],), t, device=device)
        return dit(x.to(dtype), times, context, memory).float()

    def velocity(x: Tensor, t: float, corrector: bool = False) -> Tensor:
        conditional = predict(x, t, cross_kv)
        if guided is None or guide is None or not guided.interval[0] <= t <= guided.interval[1]:
            return conditional
        return guide(conditional, predict(x, t, guided.unconditional), guided.scale, x, t, corrector)

    generator = stage_generator(seed, solver)
    step = SOLVERS[solver].start(lambda like: torch.randn(like.shape, generator=generator).to(like.device))
    noise, steps = noise.to(device), len(schedule) - 1
    x = noise if start is None else solvers.add_noise(start.to(noise), noise, noise.new_tensor(schedule[:1]))
    progress(0, steps)
    for done, (t, t_next) in enumerate(pairwise(schedule)):
        if switch is not None and done == int(steps * switch.share):
            context, cross_kv = switch.context, switch.cross_kv
        x = step(x, t, t_next, velocity)
        if hold is not None and done < round(steps * hold.share) and (t_next > 0 or hold.last_step):
            around = solvers.add_noise(hold.clean.to(x), noise, noise.new_tensor([t_next]))
            x = torch.where(hold.inside.to(x) > 0, x, around)
        progress(done + 1, steps)
    return x
