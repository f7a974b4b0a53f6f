"""Flow edit (arXiv 2412.08629): latents of a recording, carried from the description that fits it to another.

Rules: docs/specification.md, 8.9 Edit. State and schedule are float32; only the model's input takes the weights' dtype.

Shapes: T latent frames, C latent channels, D draws of noise in one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise

import torch
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.engine.denoise import Corrections, Guided
from acestep_cli.engine.dit import CrossKV, DiT
from acestep_cli.progress import Progress
from acestep_cli.solvers import GUIDANCE_METHODS
from acestep_cli.song.modes import EditWindow


class DescribedVelocity:
    """The velocity under one description: guided, clamped and smoothed, with a state of its own.

    The rows of a call are draws of one step. All of them begin from the state after the step before, and their mean
    becomes the next.
    """

    def __init__(
        self, dit: DiT, context: Tensor, cross_kv: CrossKV, guided: Guided | None, corrections: Corrections
    ) -> None:
        """Begin without momentum. `context` [1, T, in_channels - C] holds silence and mask, `cross_kv` the projected
        description.
        """
        self.dit, self.context, self.cross_kv = dit, context, cross_kv
        self.guided, self.corrections = guided, corrections
        start = GUIDANCE_METHODS[guided.method].start_averaging if guided is not None else None
        assert guided is None or start is not None, "a method that edits cannot use is refused before"
        self.guide = start() if start is not None else None
        self.previous: Tensor | None = None  # [1, T, C]

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Return the velocities of latents x [D, T, C] at time t."""
        v = self._predict(x, t, self.cross_kv)
        if self.guided is not None and self.guide is not None:
            earliest, latest = self.guided.interval
            if earliest <= t <= latest:
                unconditional = self._predict(x, t, self.guided.unconditional)
                v = self.guide(v, unconditional, self.guided.scale, x, t, False)
        if self.corrections.velocity_clamp:
            v = solvers.clamp_velocity(v, x, self.corrections.velocity_clamp)
        if self.corrections.velocity_ema and self.previous is not None:
            v = v * (1 - self.corrections.velocity_ema) + self.previous * self.corrections.velocity_ema
        self.previous = v.mean(dim=0, keepdim=True)
        return v

    def _predict(self, x: Tensor, t: float, cross_kv: CrossKV) -> Tensor:
        """Return the model's own velocities, row by row: several at once would round differently."""
        times = torch.full((1,), t, device=self.context.device)
        rows = x.to(self.context.dtype).unbind()
        return torch.cat([self.dit(row[None], times, self.context, cross_kv).float() for row in rows])


def edit(
    dit: DiT,
    source: Tensor,
    context: Tensor,
    source_kv: CrossKV,
    target_kv: CrossKV,
    schedule: Sequence[float],
    *,
    window: EditWindow,
    guided: Guided | None,
    seed: int,
    progress: Progress,
    corrections: Corrections,
) -> Tensor:
    """Carry the latents of a source [1, T, C] along `schedule` from its own description, the projected `source_kv`, to
    that of `target_kv`. Return latents [1, T, C], float32.

    In the steps of the window the latents follow the difference of both velocities, at noised copies of the source;
    after it, noise is added once and the target is followed alone.
    """
    wanted = DescribedVelocity(dit, context, target_kv, guided, corrections)
    given = DescribedVelocity(dit, context, source_kv, guided, corrections)
    generator, steps = torch.Generator("cpu").manual_seed(seed), len(schedule) - 1
    first, last = window.steps(steps)
    source = source.to(context.device).float()

    def noised_source(t: float) -> Tensor:
        noise = torch.randn(source.shape, generator=generator).to(source.device)
        return solvers.add_noise(source, noise, noise.new_tensor([t]))

    x = source
    for done, (t, t_next) in islice(enumerate(pairwise(schedule)), first, None):
        progress(done, steps)
        if done < last:
            noised = torch.cat([noised_source(t) for _ in range(window.average)])
            velocity = (wanted(x + noised - source, t) - given(noised, t)).mean(dim=0, keepdim=True)
        else:
            if done == max(first, last):
                x = x + noised_source(t) - source
            velocity = wanted(x, t)
        x = x + velocity * (t_next - t)
    progress(steps, steps)
    return x
