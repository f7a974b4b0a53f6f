"""Schedules, solvers and guidance methods of the flow, one row each.

The flow is x_t = t * noise + (1 - t) * x0 with t = 1 at noise; the model predicts v = noise - x0. Rules and
constants: docs/specification.md, 7 Sampling. Only methods of tensors are called, so this module imports no torch
and its tables cost nothing to `--help`.

Shapes: x and v are [B, T, C]; everything here runs in float32, whatever the weights' dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

AUTO_CORRECTION, NO_CORRECTION = "auto", "off"
DCW_SCALE, DCW_HIGH_SCALE = 0.05, 0.02
SHORTEST_FRAMES = 128  # the model was never trained on less than about five seconds
APG_MOMENTUM = -0.75
APG_NORM_LIMIT = 2.5
ADG_MAX_ANGLE = 3.14 / 6
ADG_EXTRA_WEIGHT = 1e-3
ADG_SMALL_SINE = 1e-3
#: Mean and standard deviation of the logit of a time, in training.
#: Source: docs/specification.md, 12.2 Times of training.
TRAINING_MEAN, TRAINING_SPREAD = -0.4, 1.0


def timestep_schedule(steps: int, shift: float) -> tuple[float, ...]:
    """Return `steps` + 1 times from 1 to 0: evenly spaced, then moved toward noise by t' = s t / (1 + (s - 1) t)."""
    even = [1 - i / steps for i in range(steps)]
    return (*(shift * t / (1 + (shift - 1) * t) for t in even), 0.0)


def explicit_schedule(timesteps: Sequence[float]) -> tuple[float, ...]:
    """Return the user's own times, with the final 0 added where it was left out."""
    return (*(t for t in timesteps if t > 0), 0.0)


def shorten_schedule(schedule: Sequence[float], kept: float) -> tuple[float, ...]:
    """Return the end of a schedule, from its time nearest to 1 - `kept`, the share of the source that is kept."""
    times = schedule[:-1]
    nearest = min(range(len(times)), key=lambda place: abs(times[place] - (1 - kept)))
    return tuple(schedule[nearest:])


class Velocity(Protocol):
    """The guided model. A second evaluation within a step is a `corrector` call, and leaves guidance momentum alone."""

    def __call__(self, x: Tensor, t: float, corrector: bool = False) -> Tensor: ...


Step = Callable[["Tensor", float, float, Velocity], "Tensor"]
"""(x, t, t_next, velocity) -> x at t_next."""
Draw = Callable[["Tensor"], "Tensor"]
"""Returns new seeded noise in the shape of its argument."""


def euler(_draw: Draw) -> Step:
    def step(x: Tensor, t: float, t_next: float, velocity: Velocity) -> Tensor:
        return x + velocity(x, t) * (t_next - t)

    return step


def heun(_draw: Draw) -> Step:
    def step(x: Tensor, t: float, t_next: float, velocity: Velocity) -> Tensor:
        v = velocity(x, t)
        if t_next > 0:  # the model was never trained at t = 0
            v = (v + velocity(x + v * (t_next - t), t_next, corrector=True)) / 2
        return x + v * (t_next - t)

    return step


def sde(draw: Draw) -> Step:
    def step(x: Tensor, t: float, t_next: float, velocity: Velocity) -> Tensor:
        clean = x - velocity(x, t) * t
        return clean if t_next == 0 else draw(x) * t_next + clean * (1 - t_next)

    return step


def dpm3m(_draw: Draw) -> Step:
    """Third-order Adams-Bashforth on the last three velocities, with the coefficients of evenly spaced steps."""
    coefficients = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12))
    history: list[Tensor] = []

    def step(x: Tensor, t: float, t_next: float, velocity: Velocity) -> Tensor:
        history.insert(0, velocity(x, t))
        del history[3:]
        for weight, v in zip(coefficients[len(history) - 1], history, strict=True):
            x = x + v * (weight * (t_next - t))
        return x

    return step


@dataclass(frozen=True)
class Solver:
    """One row: a function that starts a run of the solver, and its summary for users."""

    start: Callable[[Draw], Step]
    summary: str
    #: Model calls per step.
    evaluations: int = 1
    #: Flow edit, whose steps are of the first order, may name it.
    edits: bool = False


SOLVERS: dict[str, Solver] = {
    "euler": Solver(euler, "first order, one model call per step", edits=True),
    "heun": Solver(heun, "second order, two model calls per step but the last", evaluations=2),
    "sde": Solver(sde, "re-noises after each step with seeded noise"),
    "dpm3m": Solver(dpm3m, "third-order multistep, one model call per step"),
}


#: Types of devices that have no float64, or have cards without: Apple's GPUs, and Intel's Arc.
WITHOUT_FLOAT64 = ("mps", "xpu")

Guide = Callable[["Tensor", "Tensor", float, "Tensor", float, bool], "Tensor"]
"""(conditional v, unconditional v, scale, x, t, corrector) -> guided v."""


def cfg() -> Guide:
    """Classifier-free guidance (arXiv 2207.12598)."""

    def guide(cond: Tensor, uncond: Tensor, scale: float, _x: Tensor, _t: float, _corrector: bool) -> Tensor:
        return uncond + (cond - uncond) * scale

    return guide


def apg(*, averaging: bool = False) -> Guide:
    """Adaptive projected guidance (arXiv 2410.02416): momentum, a norm limit, the orthogonal part only.

    Norms and projection run over time, per channel; the projection in float64. A corrector call falls back
    to plain guidance, as published. With `averaging`, the rows of a call are draws of one velocity, and the momentum
    is that of their mean.
    """
    running: list[Tensor] = []
    plain = cfg()

    def guide(cond: Tensor, uncond: Tensor, scale: float, x: Tensor, t: float, corrector: bool) -> Tensor:
        if corrector:
            return plain(cond, uncond, scale, x, t, corrector)
        difference = cond - uncond
        if running:
            difference = difference + running.pop() * APG_MOMENTUM
        running.append(difference.mean(dim=0, keepdim=True) if averaging else difference)
        difference = difference * (APG_NORM_LIMIT / difference.norm(dim=1, keepdim=True)).clamp(max=1)
        exact = "cpu" if cond.device.type in WITHOUT_FLOAT64 else cond.device
        wide, direction = difference.to(exact).double(), cond.to(exact).double()
        direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-12)
        orthogonal = wide - (wide * direction).sum(dim=1, keepdim=True) * direction
        return cond + orthogonal.to(cond) * (scale - 1)

    return guide


def adg() -> Guide:
    """Angle-based guidance: the clean estimate is turned away from the unconditional one, frame by frame."""

    def guide(cond: Tensor, uncond: Tensor, scale: float, x: Tensor, t: float, _corrector: bool) -> Tensor:
        weight = max(scale - 1, 0) + ADG_EXTRA_WEIGHT
        clean, clean_uncond = x - cond * t, x - uncond * t
        norms = clean.norm(dim=-1, keepdim=True) * clean_uncond.norm(dim=-1, keepdim=True)
        cosine = (clean * clean_uncond).sum(dim=-1, keepdim=True) / norms.clamp(min=1e-8)
        angle = cosine.clamp(-(1 - 1e-6), 1 - 1e-6).acos()
        turned = (angle * weight).clamp(-ADG_MAX_ANGLE, ADG_MAX_ANGLE)
        difference = clean - clean_uncond
        along = (difference * clean_uncond).sum(dim=-1, keepdim=True)
        square = (clean_uncond * clean_uncond).sum(dim=-1, keepdim=True)
        across = difference - clean_uncond * (along / (square + 1e-8))
        sine = angle.sin()
        stretch = (turned.sin() / sine).where(sine > ADG_SMALL_SINE, sine.new_tensor(weight))
        return (x - (clean * turned.cos() + across * stretch)) / t

    return guide


@dataclass(frozen=True)
class Guidance:
    """One row: a function that starts a run of the method, and its summary for users."""

    start: Callable[[], Guide]
    summary: str
    #: Starts a run in which the rows of a call are draws of one velocity; None where flow edit cannot use the method.
    start_averaging: Callable[[], Guide] | None = None


GUIDANCE_METHODS: dict[str, Guidance] = {
    "apg": Guidance(apg, "adaptive projected guidance", partial(apg, averaging=True)),
    "cfg": Guidance(cfg, "classifier-free guidance", cfg),
    "adg": Guidance(adg, "angle-based guidance"),
}


WaveletGains = Callable[[float, float, float], tuple[float, float]]
"""(t, scale, high scale) -> gains of the low and the high band."""


@dataclass(frozen=True)
class WaveletCorrection:
    """One row: the gains of the two bands, or None for a correction without a transform, and its summary for users."""

    gains: WaveletGains | None
    summary: str


#: Differential correction in the wavelet domain (arXiv 2604.16044).
WAVELET_CORRECTIONS: dict[str, WaveletCorrection] = {
    "low": WaveletCorrection(lambda t, scale, _: (t * scale, 0.0), "the outline, most while there is noise"),
    "high": WaveletCorrection(lambda t, scale, _: (0.0, (1 - t) * scale), "the detail, most towards the end"),
    "double": WaveletCorrection(lambda t, scale, high: (t * scale, (1 - t) * high), "both, each at its own scale"),
    "pix": WaveletCorrection(None, "every frame alike, at all times"),
}


def correct_step(x: Tensor, clean: Tensor, t: float, mode: str, scale: float, high_scale: float) -> Tensor:
    """Return the latents x [B, T, C] after a step, moved away from the `clean` estimate at its beginning, time t.

    The difference is weighed by band of a Haar transform along T; it is linear, so the bands of both need not be made.
    Source: docs/specification.md, 7.7 Corrections.
    """
    gains, difference = WAVELET_CORRECTIONS[mode].gains, x - clean
    if gains is None:
        return x + difference * scale
    low_gain, high_gain = gains(t, scale, high_scale)
    frames = difference.shape[1]
    even = difference[:, 0::2]
    odd = even.new_zeros(even.shape)  # an odd length is padded with one frame of zeros
    odd[:, : frames // 2] = difference[:, 1::2]
    low, high = (even + odd) * (low_gain / 2), (even - odd) * (high_gain / 2)
    corrected = x.clone()
    corrected[:, 0::2] += low + high
    corrected[:, 1::2] += (low - high)[:, : frames // 2]
    return corrected


def clamp_velocity(velocity: Tensor, x: Tensor, limit: float) -> Tensor:
    """Return `velocity` [B, T, C], no longer than `limit` times the length of the latents x it belongs to."""
    length, own = (tensor.flatten(1).norm(dim=1)[:, None, None] for tensor in (x, velocity))
    return velocity * (length * limit / own.clamp(min=1e-12)).clamp(max=1)


def add_noise(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return x_t of clean latents [B, T, C] and noise at times t [B], for sampling and training alike."""
    times = t.view(-1, 1, 1)
    return noise * times + clean * (1 - times)


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity that the model is to predict, at any time, from noise and clean latents [B, T, C]."""
    return noise - clean


def training_times(normals: Tensor) -> Tensor:
    """Return the times [B] of a training pass from standard normal draws [B, 2]: the later of two logit-normal ones."""
    return (normals * TRAINING_SPREAD + TRAINING_MEAN).sigmoid().amax(dim=1)


def duration_samples(seconds: float, sample_rate: int) -> int:
    """Return the whole samples in `seconds`. A product may lack its last bit: 10.28 s are 493,440 samples at 48 kHz."""
    return int(round(seconds * sample_rate, 3))


def duration_frames(seconds: float, sample_rate: int, hop: int) -> int:
    """Return the latent frames of a song: whole hops only, as the published model counts them."""
    return duration_samples(seconds, sample_rate) // hop
