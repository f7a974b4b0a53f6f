"""Flow edit against a float64 transcription of its formulas, and its properties.

The transcription is numpy from the formulas of `docs/specification.md` 8.9, 7.4 and 7.7; of our code it uses nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.engine import denoise, flow_edit
from acestep_cli.engine.denoise import Corrections, DiffusionCondition, Guided, SamplerSettings
from acestep_cli.engine.dit import Condition
from acestep_cli.song.modes import EditWindow
from engine.test_parity import ours, randn
from support import tiny

Array = NDArray[np.float64]
Velocity = Callable[[Array, float], Array]

STEPS, FRAMES, SEED = 7, 19, 11
SCHEDULE = solvers.timestep_schedule(STEPS, 3.0)
WINDOWS = [
    EditWindow(),
    EditWindow(average=3),
    EditWindow(0.3, 1.0),
    EditWindow(0.0, 0.5, 2),
    EditWindow(0.2, 0.6, 3),
    EditWindow(0.0, 0.0),
    EditWindow(0.4, 0.4),
    EditWindow(1.0, 1.0),
]
SETTINGS = [
    Corrections(),
    Corrections(velocity_clamp=0.5),
    Corrections(velocity_ema=0.3),
    Corrections(velocity_clamp=0.8, velocity_ema=0.1),
]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


class Side:
    """One description in the transcription: its velocity, with momentum and smoothing."""

    def __init__(self, cond: Velocity, uncond: Velocity, guided: Guided | None, corrections: Corrections) -> None:
        self.cond, self.uncond, self.guided, self.corrections = cond, uncond, guided, corrections
        self.momentum: Array | None = None
        self.smoothed: Array | None = None
        self.new: tuple[list[Array], list[Array]] = ([], [])

    def draw(self, x: Array, t: float) -> Array:
        v = self.cond(x, t)
        if self.guided is not None and self.guided.interval[0] <= t <= self.guided.interval[1]:
            v = self.guide(v, self.uncond(x, t))
        if limit := self.corrections.velocity_clamp:
            v = v * min(1.0, limit * float(np.linalg.norm(x)) / float(np.linalg.norm(v)))
        if self.smoothed is not None:
            share = self.corrections.velocity_ema
            v = (1 - share) * v + share * self.smoothed
        self.new[1].append(v)
        return v

    def guide(self, cond: Array, uncond: Array) -> Array:
        assert self.guided is not None
        scale = self.guided.scale
        if self.guided.method == "cfg":
            return uncond + scale * (cond - uncond)
        difference = cond - uncond - (0.75 * self.momentum if self.momentum is not None else 0)
        self.new[0].append(difference)
        limited = difference * np.minimum(1, 2.5 / np.linalg.norm(difference, axis=1, keepdims=True))
        direction = cond / np.linalg.norm(cond, axis=1, keepdims=True)
        orthogonal = limited - (limited * direction).sum(axis=1, keepdims=True) * direction
        return cond + (scale - 1) * orthogonal

    def advance(self) -> None:
        momenta, velocities = self.new
        if momenta:
            self.momentum = np.mean(momenta, axis=0)
        self.smoothed, self.new = np.mean(velocities, axis=0), ([], [])


def transcribed(
    source: Array, target: Side, given: Side, window: EditWindow, schedule: tuple[float, ...] = SCHEDULE
) -> Array:
    """Carry source latents [1, T, C] to edited ones by the formulas, in float64."""
    generator = torch.Generator("cpu").manual_seed(SEED)

    def noise() -> Array:
        return torch.randn(1, *source.shape[1:], generator=generator).double().numpy()

    n = len(schedule) - 1
    i_min, i_max = int(n * window.start), int(n * window.end)
    z, w = source, None
    for i, (t, t_next) in enumerate(pairwise(schedule)):
        if i < i_min:
            continue
        if i < i_max:
            total = np.zeros_like(source)
            for _ in range(window.average):
                a = (1 - t) * source + t * noise()
                b = z + a - source
                total += (target.draw(b, t) - given.draw(a, t)) / window.average
            target.advance()
            given.advance()
            z = z + (t_next - t) * total
        else:
            if w is None:
                w = z + ((1 - t) * source + t * noise()) - source
            w = w + (t_next - t) * target.draw(w, t)
            target.advance()
    return z if w is None else w


def toy_velocity(words: float) -> Velocity:
    """A velocity that depends on latents, time and description."""
    return lambda x, t: 2 * np.tanh(np.roll(x, 1, axis=1) * (1 + t) + words) - (0.4 + 0.1 * words) * x


class ToyDiT:
    """A model with that velocity; the description stands in for its keys and values."""

    def __call__(self, x: Tensor, t: Tensor, _context: Tensor, words: Any) -> Tensor:
        assert len(x) == 1  # several rows at once would round differently from a lone one
        return torch.from_numpy(toy_velocity(words)(x.double().numpy(), float(t[0]))).float()


TARGET, GIVEN, NULL = 0.8, -0.5, 0.1
SOURCE = np.random.default_rng(1).standard_normal((1, FRAMES, 3))


def toy_condition(words: float) -> DiffusionCondition:
    return DiffusionCondition(torch.zeros(1, FRAMES, 1), words)  # type: ignore[arg-type]


def edited(
    source: Array = SOURCE, target: float = TARGET, given: float = GIVEN, seed: int = SEED, **asked: Any
) -> Tensor:
    window = asked.pop("window", EditWindow())
    return flow_edit.edit(
        ToyDiT(), torch.from_numpy(source).float(), toy_condition(given), toy_condition(target),  # type: ignore[arg-type]
        SamplerSettings(SCHEDULE, **asked), window=window, seed=seed, progress=lambda done, total: None,
    )  # fmt: skip


def apart(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def guidance(method: str, interval: tuple[float, float] = (0.0, 1.0)) -> Guided:
    return Guided(NULL, 4.0, method, interval)  # type: ignore[arg-type]


@pytest.mark.parametrize("guided", [None, guidance("cfg"), guidance("apg"), guidance("apg", (0.2, 0.9))], ids=str)
@pytest.mark.parametrize("corrections", SETTINGS, ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_an_edit_is_that_of_the_formulas(window: EditWindow, corrections: Corrections, guided: Guided | None) -> None:
    found = edited(window=window, corrections=corrections, guided=guided)
    target, given = (Side(toy_velocity(words), toy_velocity(NULL), guided, corrections) for words in (TARGET, GIVEN))
    expected = transcribed(SOURCE, target, given, window)
    assert apart(found, expected) < 1e-4
    if window.start < 1:
        assert apart(found, SOURCE) > 1e-2  # it does something


@pytest.mark.parametrize(("name", "guided"), [("two_b", False), ("xl", False), ("base", True)])
@pytest.mark.parametrize("window", [EditWindow(0.2, 0.7, 2), EditWindow()], ids=str)
def test_an_edit_is_that_of_the_formulas_over_real_networks(
    request: pytest.FixtureRequest, name: str, guided: bool, window: EditWindow
) -> None:
    """The transcription asks diffusers' networks, in float64."""
    oracle: tiny.Oracle = request.getfixturevalue(name)
    model, theirs = ours(oracle), copy.deepcopy(oracle.decoder).double()
    channels, width = model.config.latent_channels, model.config.encoder_hidden_size
    source, context = randn(1, 1, 40, channels), randn(2, 1, 40, 2 * channels)
    words = [randn(3, 1, 23, width), randn(4, 1, 31, width), model.null_condition().states]

    def theirs_under(states: Tensor) -> Velocity:
        def velocity(x: Array, t: float) -> Array:
            times = torch.tensor([t], dtype=torch.float64)
            out = theirs(
                hidden_states=torch.from_numpy(x), timestep=times, timestep_r=times,
                encoder_hidden_states=states.double(), context_latents=context.double(),
            )  # fmt: skip
            return out.sample.numpy()

        return velocity

    target_kv, given_kv, null_kv = (model.decoder.project_condition(Condition(states, None)) for states in words)
    guide = Guided(null_kv, 7.0, "apg") if guided else None
    found = flow_edit.edit(
        model.decoder, source, DiffusionCondition(context, given_kv), DiffusionCondition(context, target_kv),
        SamplerSettings(SCHEDULE, guided=guide), window=window, seed=SEED, progress=lambda done, total: None,
    )  # fmt: skip
    sides = [Side(theirs_under(states), theirs_under(words[2]), guide, Corrections()) for states in words[:2]]
    expected = transcribed(source.double().numpy(), sides[0], sides[1], window)
    assert apart(found, expected) < 1e-4
    assert apart(found, source) > 0.05


@pytest.mark.parametrize("guided", [None, guidance("apg")], ids=["unguided", "guided"])
@pytest.mark.parametrize("average", [1, 4])
def test_the_same_description_on_both_sides_gives_the_source_back(average: int, guided: Guided | None) -> None:
    found = edited(target=GIVEN, window=EditWindow(average=average), guided=guided)
    assert apart(found, SOURCE) < 1e-4


def test_a_window_of_nothing_is_the_source() -> None:
    assert torch.equal(edited(window=EditWindow(1.0, 1.0)), torch.from_numpy(SOURCE).float())


def test_without_a_window_it_is_text_to_music_of_the_same_seed() -> None:
    made = denoise.denoise(
        ToyDiT(), denoise.starting_noise(SEED, FRAMES, 3), toy_condition(TARGET),  # type: ignore[arg-type]
        SamplerSettings(SCHEDULE), seeds=[SEED], progress=lambda done, total: None,
    )  # fmt: skip
    assert apart(edited(window=EditWindow(0.0, 0.0)), made) < 1e-5


def test_draws_follow_the_seed_alone() -> None:
    window = EditWindow(average=3)
    torch.manual_seed(1)
    first = edited(window=window)
    torch.manual_seed(2)
    assert torch.equal(edited(window=window), first)
    assert apart(edited(window=window, seed=SEED + 1), first) > 1e-3
    assert apart(edited(), first) > 1e-3


def test_more_draws_are_steadier() -> None:
    def spread(average: int) -> float:
        takes = torch.stack([edited(seed=seed, window=EditWindow(average=average)) for seed in range(12)])
        return float(takes.std(dim=0).mean())

    assert spread(8) < 0.6 * spread(1)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_the_model_is_asked_as_often_as_is_planned(window: EditWindow, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, call = [], ToyDiT.__call__
    monkeypatch.setattr(ToyDiT, "__call__", lambda *args: asked.append(args[2]) or call(*args))
    steps: list[tuple[int, int]] = []
    flow_edit.edit(
        ToyDiT(), torch.from_numpy(SOURCE).float(), toy_condition(GIVEN), toy_condition(TARGET),  # type: ignore[arg-type]
        SamplerSettings(SCHEDULE), window=window, seed=1,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert len(asked) == window.evaluations(STEPS)
    assert steps == [(done, STEPS) for done in range(window.steps(STEPS)[0], STEPS + 1)]
