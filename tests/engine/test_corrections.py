"""The corrections of velocity and step against a float64 transcription of their formulas."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.engine import denoise
from acestep_cli.engine.denoise import Corrections, DiffusionCondition, SamplerSettings

SCHEDULE = solvers.timestep_schedule(6, 3.0)
FRAMES = [1, 2, 17, 24]
Array = NDArray[np.float64]


class LinearDiT:
    """A model whose velocity is a fixed linear map of its input, another one at each time."""

    def __call__(self, x: Tensor, t: Tensor, _context: Tensor, _cross_kv: Any) -> Tensor:
        return velocity_of(x.double().numpy(), float(t[0]), torch.from_numpy).float()


def velocity_of(x: Any, t: float, wrap: Any = lambda array: array) -> Any:
    return wrap(3 * np.tanh(np.roll(np.asarray(x), 1, axis=1) * (1 + t)) - 0.4 * np.asarray(x))


def bands(x: Array) -> tuple[Array, Array]:
    """Return both bands of a Haar transform of x [T, C], by the matrix of its definition."""
    padded = np.concatenate([x, np.zeros((len(x) % 2, x.shape[1]))])
    half = len(padded) // 2
    low, high = np.zeros((half, len(padded))), np.zeros((half, len(padded)))
    for row in range(half):
        low[row, 2 * row : 2 * row + 2] = 1 / math.sqrt(2)
        high[row, 2 * row], high[row, 2 * row + 1] = 1 / math.sqrt(2), -1 / math.sqrt(2)
    return low @ padded, high @ padded


def joined(low: Array, high: Array, frames: int) -> Array:
    """Invert `bands`, and cut the padding off."""
    out = np.empty((2 * len(low), low.shape[1]))
    out[0::2], out[1::2] = (low + high) / math.sqrt(2), (low - high) / math.sqrt(2)
    return out[:frames]


def transcribed_correction(x: Array, y: Array, t: float, settings: Corrections) -> Array:
    if settings.dcw == "pix":
        return x + settings.dcw_scale * (x - y)
    (low, high), (low_y, high_y) = bands(x), bands(y)
    if settings.dcw in ("low", "double"):
        low = low + t * settings.dcw_scale * (low - low_y)
    if settings.dcw in ("high", "double"):
        scale = settings.dcw_scale if settings.dcw == "high" else settings.dcw_high_scale
        high = high + (1 - t) * scale * (high - high_y)
    return joined(low, high, len(x))


def transcribed(noise: Array, settings: Corrections, solver: str) -> Array:
    """Carry noise [1, T, C] to latents by the formulas, in float64. `solver` is euler or heun."""
    x, before = noise, None
    for t, t_next in pairwise(SCHEDULE):
        v = clamped(velocity_of(x, t), x, settings.velocity_clamp)
        if settings.velocity_ema and before is not None:
            v = (1 - settings.velocity_ema) * v + settings.velocity_ema * before
        before, step = v, v
        if solver == "heun" and t_next > 0:
            predicted = x + (t_next - t) * v
            step = (v + clamped(velocity_of(predicted, t_next), predicted, settings.velocity_clamp)) / 2
        y = x - t * v
        x = x + (t_next - t) * step
        if settings.dcw != "off":
            x = transcribed_correction(x[0], y[0], t, settings)[None]
    return x


def clamped(v: Array, x: Array, limit: float) -> Array:
    return v * min(1.0, limit * float(np.linalg.norm(x)) / float(np.linalg.norm(v))) if limit else v


def ours(noise: Array, settings: Corrections, solver: str, **others: Any) -> Tensor:
    return denoise.denoise(
        LinearDiT(),  # type: ignore[arg-type]
        torch.from_numpy(noise).float(), DiffusionCondition(torch.zeros(1, noise.shape[1], 1), None),  # type: ignore[arg-type]
        SamplerSettings(SCHEDULE, solver=solver, corrections=settings), seeds=[5], progress=lambda done, total: None,
        **others,
    )  # fmt: skip


def apart(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def noise_of(frames: int) -> Array:
    return np.random.default_rng(frames).standard_normal((1, frames, 3))


SETTINGS = [
    *(Corrections(dcw=mode, dcw_scale=0.3, dcw_high_scale=0.2) for mode in solvers.WAVELET_CORRECTIONS),
    Corrections(velocity_clamp=0.5),
    Corrections(velocity_ema=0.3),
    Corrections(dcw="double", dcw_scale=0.05, dcw_high_scale=0.02, velocity_clamp=0.8, velocity_ema=0.1),
]


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_corrections_are_those_of_the_formulas(settings: Corrections, solver: str, frames: int) -> None:
    noise = noise_of(frames)
    found = ours(noise, settings, solver)
    assert apart(found, transcribed(noise, settings, solver)) < 1e-4
    if frames > 2:
        assert apart(found, ours(noise, Corrections(), solver)) > 1e-3  # it does something


@pytest.mark.parametrize("solver", list(solvers.SOLVERS))
def test_neutral_corrections_change_nothing(solver: str) -> None:
    noise = noise_of(24)
    neutral = Corrections(dcw="double", velocity_clamp=100.0)
    assert torch.equal(ours(noise, neutral, solver), ours(noise, Corrections(), solver))


@pytest.mark.parametrize("mode", solvers.WAVELET_CORRECTIONS)
def test_the_last_step_of_a_one_step_solver_is_the_clean_estimate(mode: str) -> None:
    x, v, t = torch.randn(1, 9, 3), torch.randn(1, 9, 3), 0.4
    clean = x - v * t
    assert torch.allclose(solvers.correct_step(clean, clean, t, mode, 0.5, 0.5), clean)


@pytest.mark.parametrize("solver", ["sde", "dpm3m"])
def test_every_solver_is_corrected(solver: str) -> None:
    noise = noise_of(24)
    plain, corrected = (ours(noise, each, solver) for each in (Corrections(), SETTINGS[2]))
    assert apart(corrected, plain) > 1e-3


def test_a_held_source_is_put_back_after_the_correction() -> None:
    noise, clean = noise_of(8), torch.ones(1, 8, 3)
    inside = torch.zeros(1, 8, 1)
    inside[:, 4:] = 1
    hold = denoise.SourceHold(share=1.0, clean=clean, inside=inside, blend=inside, last_step=True)
    found = ours(noise, Corrections(dcw="pix", dcw_scale=0.5), "euler", hold=hold)
    assert torch.equal(found[:, :4], clean[:, :4])
    assert not torch.allclose(found[:, 4:], clean[:, 4:])
