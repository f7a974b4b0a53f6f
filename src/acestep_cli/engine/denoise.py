"""The sampling loop, from noise to latents, and the guided velocity. Takes of one song may go through it together.

Rules: docs/specification.md, 7 Sampling and 8 Modes. State and schedule are float32; only the model's input
takes the weights' dtype.
"""

from __future__ import annotations

import hashlib
import math
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
    """Guidance away from the null condition: its scale, its method, and the interval of times t where it acts."""

    unconditional: CrossKV
    scale: float
    method: str
    interval: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class DiffusionCondition:
    """The tensors that the decoder reads beside the latents; with one row, all takes share them."""

    context: Tensor  # [B or 1, T, in_channels - C], source latents and mask
    cross_kv: CrossKV  # the projected condition


@dataclass(frozen=True)
class ConditionSwitch:
    """Another condition, used after a share of the steps."""

    share: float
    condition: DiffusionCondition


@dataclass(frozen=True)
class SourceHold:
    """Clean latents of the source that are put back outside of the regions after each step, for a share of the steps.

    With `last_step` they are put back after the step to time 0 too, and `blend` then mixes them with themselves.
    """

    share: float
    clean: Tensor  # [1, T, C]
    inside: Tensor  # [1, T, 1], 1 in the regions
    blend: Tensor  # [1, T, 1], the weight of the new latents in the end
    last_step: bool


@dataclass(frozen=True)
class Corrections:
    """Corrections of the velocity and of each step; the defaults change nothing.

    Source: docs/specification.md, 7.7 Corrections.
    """

    dcw: str = solvers.NO_CORRECTION
    dcw_scale: float = 0.0
    dcw_high_scale: float = 0.0
    velocity_clamp: float = 0.0
    velocity_ema: float = 0.0


@dataclass(frozen=True)
class SamplerSettings:
    """The settings of a diffusion: its times, falling from at most 1 to 0, and how each step is made."""

    schedule: Sequence[float]
    solver: str = "euler"
    guided: Guided | None = None
    corrections: Corrections = Corrections()


def stage_generator(seed: int, stage: str) -> torch.Generator:
    """Return the CPU generator of one stage of one take, so that no stage shifts another's draws."""
    digest = hashlib.sha256(f"{seed}:{stage}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def starting_noise(seed: int, frames: int, channels: int) -> Tensor:
    """Return the noise of one take [1, T, C], float32, drawn on the CPU so that it is the same for every device."""
    return torch.randn(1, frames, channels, generator=torch.Generator("cpu").manual_seed(seed))


def varied_noise(seed: int, other: int, share: float, frames: int, channels: int) -> Tensor:
    """Return noise on the arc from that of `seed` to that of `other` [1, T, C]; its variance stays 1. At 0 and 1 it is
    exactly theirs.

    Source: docs/specification.md, 7.6 Noise and seeds.
    """
    if share in (0.0, 1.0):
        return starting_noise(other if share else seed, frames, channels)
    angle = share * math.pi / 2
    return starting_noise(seed, frames, channels) * math.cos(angle) + starting_noise(
        other, frames, channels
    ) * math.sin(angle)


class GuidedVelocity:
    """The velocity under one condition: guided, clamped, and smoothed from step to step.

    Source: docs/specification.md, 7.4 Guidance and 7.7 Corrections.
    """

    def __init__(self, dit: DiT, condition: DiffusionCondition, settings: SamplerSettings) -> None:
        """Begin without momentum."""
        self.dit, self.condition = dit, condition
        self.guided, self.corrections = settings.guided, settings.corrections
        self.guide = GUIDANCE_METHODS[self.guided.method].start() if self.guided is not None else None
        #: That of the step at hand, or of the one before until it is known, [B, T, C].
        self.of_step: Tensor | None = None

    def __call__(self, x: Tensor, t: float, corrector: bool = False) -> Tensor:
        """Return the velocity of latents x at time t; a corrector's second look within a step smooths nothing."""
        v = self._guided(x, t, corrector)
        if self.corrections.velocity_clamp:
            v = solvers.clamp_velocity(v, x, self.corrections.velocity_clamp)
        if corrector:
            return v
        if self.corrections.velocity_ema and self.of_step is not None:
            v = v * (1 - self.corrections.velocity_ema) + self.of_step * self.corrections.velocity_ema
        self._keep(v)
        return v

    def _guided(self, x: Tensor, t: float, corrector: bool) -> Tensor:
        conditional = self._predict(x, t, self.condition.cross_kv)
        if self.guided is None or self.guide is None or not self.guided.interval[0] <= t <= self.guided.interval[1]:
            return conditional
        unconditional = self._predict(x, t, self.guided.unconditional)
        return self.guide(conditional, unconditional, self.guided.scale, x, t, corrector)

    def _predict(self, x: Tensor, t: float, cross_kv: CrossKV) -> Tensor:
        """Return the model's own velocity."""
        context = self.condition.context
        times = torch.full((x.shape[0],), t, device=context.device)
        return self.dit(x.to(context.dtype), times, context, cross_kv).float()

    def _keep(self, v: Tensor) -> None:
        """Keep the velocity of the step, from which the next is smoothed."""
        self.of_step = v


def denoise(
    dit: DiT,
    noise: Tensor,
    condition: DiffusionCondition,
    settings: SamplerSettings,
    *,
    seeds: Sequence[int],
    progress: Progress,
    switch: ConditionSwitch | None = None,
    hold: SourceHold | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Carry the noise of takes [B, T, C] along the schedule of `settings` to latents [B, T, C], float32.

    `seeds` has that of each take, for the noise that a solver draws on the way.
    With `start`, clean latents [1, T, C], it begins from their mix with the noise at the first time of the schedule.
    In each step the velocity is clamped and smoothed, the solver acts, its result is corrected, and the source is put
    back, in this order.
    """
    schedule, corrections = settings.schedule, settings.corrections
    velocity = GuidedVelocity(dit, condition, settings)
    generators = [stage_generator(seed, settings.solver) for seed in seeds]

    def draw(like: Tensor) -> Tensor:
        rows = [torch.randn(1, *like.shape[1:], generator=generator) for generator in generators]
        return torch.cat(rows).to(like.device)

    step = SOLVERS[settings.solver].start(draw)
    noise, steps = noise.to(condition.context.device), len(schedule) - 1
    x = noise if start is None else solvers.add_noise(start.to(noise), noise, noise.new_tensor(schedule[:1]))
    progress(0, steps)
    for done, (t, t_next) in enumerate(pairwise(schedule)):
        if switch is not None and done == int(steps * switch.share):
            velocity.condition = switch.condition
        before, x = x, step(x, t, t_next, velocity)
        if corrections.dcw != solvers.NO_CORRECTION:
            assert velocity.of_step is not None
            clean = before - velocity.of_step * t
            scales = corrections.dcw_scale, corrections.dcw_high_scale
            x = solvers.correct_step(x, clean, t, corrections.dcw, *scales)
        if hold is not None and done < round(steps * hold.share) and (t_next > 0 or hold.last_step):
            around = solvers.add_noise(hold.clean.to(x), noise, noise.new_tensor([t_next]))
            x = torch.where(hold.inside.to(x) > 0, x, around)
        progress(done + 1, steps)
    return x
