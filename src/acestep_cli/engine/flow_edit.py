"""Flow edit (arXiv 2412.08629): latents of a recording, carried from the description that fits it to another.

Rules: docs/specification.md, 8.9 Edit. State and schedule are float32; only the model's input takes the weights' dtype.

Shapes: T latent frames, C latent channels, D draws of noise in one step.
"""

from __future__ import annotations

from itertools import islice, pairwise

import torch
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.engine.denoise import DiffusionCondition, GuidedVelocity, SamplerSettings
from acestep_cli.engine.dit import CrossKV, DiT
from acestep_cli.progress import Progress
from acestep_cli.solvers import GUIDANCE_METHODS
from acestep_cli.song.modes import EditWindow


class DescribedVelocity(GuidedVelocity):
    """The velocity under one description.

    The rows of a call, x [D, T, C], are draws of one step. All of them begin from the state after the step before, and
    their mean becomes the next.
    """

    def __init__(self, dit: DiT, condition: DiffusionCondition, settings: SamplerSettings) -> None:
        """Begin without momentum."""
        super().__init__(dit, condition, settings)
        start = GUIDANCE_METHODS[self.guided.method].start_averaging if self.guided is not None else None
        assert self.guided is None or start is not None, "a method that edits cannot use is refused before"
        self.guide = start() if start is not None else None

    def _predict(self, x: Tensor, t: float, cross_kv: CrossKV) -> Tensor:
        """Return the model's own velocities, row by row: several at once would round differently."""
        return torch.cat([super(DescribedVelocity, self)._predict(row[None], t, cross_kv) for row in x.unbind()])

    def _keep(self, v: Tensor) -> None:
        """Keep the mean of the draws."""
        self.of_step = v.mean(dim=0, keepdim=True)


def edit(
    dit: DiT,
    source: Tensor,
    given: DiffusionCondition,
    wanted: DiffusionCondition,
    settings: SamplerSettings,
    *,
    window: EditWindow,
    seed: int,
    progress: Progress,
) -> Tensor:
    """Carry the latents of a source [1, T, C] along the schedule of `settings`, from its own description, the condition
    `given`, to the one that is `wanted`. Return latents [1, T, C], float32.

    In the steps of the window the latents follow the difference of both velocities, at noised copies of the source;
    after it, noise is added once and the target is followed alone. Each step is one of euler, and is not corrected.
    """
    schedule = settings.schedule
    target, own = DescribedVelocity(dit, wanted, settings), DescribedVelocity(dit, given, settings)
    generator, steps = torch.Generator("cpu").manual_seed(seed), len(schedule) - 1
    first, last = window.steps(steps)
    source = source.to(wanted.context.device).float()

    def noised_source(t: float) -> Tensor:
        noise = torch.randn(source.shape, generator=generator).to(source.device)
        return solvers.add_noise(source, noise, noise.new_tensor([t]))

    x = source
    for done, (t, t_next) in islice(enumerate(pairwise(schedule)), first, None):
        progress(done, steps)
        if done < last:
            noised = torch.cat([noised_source(t) for _ in range(window.average)])
            velocity = (target(x + noised - source, t) - own(noised, t)).mean(dim=0, keepdim=True)
        else:
            if done == max(first, last):
                x = x + noised_source(t) - source
            velocity = target(x, t)
        x = x + velocity * (t_next - t)
    progress(steps, steps)
    return x
