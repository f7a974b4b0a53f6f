"""Takes that go through the sampling loop together, against each of them alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.engine import denoise, dit
from acestep_cli.engine.denoise import (
    ConditionSwitch,
    Corrections,
    DiffusionCondition,
    Guided,
    SamplerSettings,
    SourceHold,
)
from acestep_cli.engine.dit import AceStep, Condition
from acestep_cli.models.configs import DiTConfig
from support import tiny

FRAMES, WORDS = 61, 23
SEEDS = (7, 8, 21)
SCHEDULE = solvers.timestep_schedule(steps=4, shift=3.0)
EVERYTHING = Corrections(dcw="double", dcw_scale=0.05, dcw_high_scale=0.02, velocity_clamp=0.8, velocity_ema=0.1)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=["two_b", "xl"])
def model(request: pytest.FixtureRequest) -> AceStep:
    oracle: tiny.Oracle = request.getfixturevalue(request.param)
    made = AceStep(DiTConfig.from_dict(oracle.config)).eval()
    made.load_state_dict(load_file(next(oracle.root.glob("acestep-*/model.safetensors"))), strict=True)
    return made


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def condition(model: AceStep, seed: int, words: int = WORDS) -> Condition:
    return Condition(randn(seed, 1, words, model.config.encoder_hidden_size), None)


def carried(
    model: AceStep, seeds: tuple[int, ...], contexts: list[Tensor], conditions: list[Condition], **options: Any
) -> Tensor:
    """Carry the takes of `seeds` through one loop."""
    settings = {name: options.pop(name) for name in ("solver", "guided", "corrections") if name in options}
    noise = torch.cat([denoise.starting_noise(seed, FRAMES, model.config.latent_channels) for seed in seeds])
    return denoise.denoise(
        model.decoder,
        noise,
        DiffusionCondition(torch.cat(contexts), model.decoder.project_condition(dit.stack_conditions(conditions))),
        SamplerSettings(SCHEDULE, **settings),
        seeds=seeds,
        progress=lambda done, total: None,
        **options,
    )


def assert_rows(together: Tensor, alone: list[Tensor]) -> None:
    """Compare each row with the take that was made alone."""
    assert len(together) == len(alone)
    for row, one in zip(together, alone, strict=True):
        assert (row - one[0]).norm() <= 1e-5 * one.norm()


def options_of(model: AceStep, name: str) -> dict[str, Any]:
    channels, unconditional = model.config.latent_channels, model.decoder.project_condition(model.null_condition())
    inside = torch.zeros(1, FRAMES, 1)
    inside[:, 20:40] = 1
    other = model.decoder.project_condition(condition(model, 30, words=9))
    return {
        "nothing": {},
        "corrections": {"corrections": EVERYTHING},
        "hold": {"hold": SourceHold(0.5, randn(31, 1, FRAMES, channels), inside, inside, last_step=True)},
        "start": {"start": randn(32, 1, FRAMES, channels)},
        "switch": {"switch": ConditionSwitch(0.5, DiffusionCondition(randn(33, 1, FRAMES, 2 * channels), other))},
        **{method: {"guided": Guided(unconditional, 5.0, method, (0.2, 0.9))} for method in solvers.GUIDANCE_METHODS},
    }[name]


@pytest.mark.parametrize("solver", solvers.SOLVERS)
@pytest.mark.parametrize("name", ["nothing", "corrections", "hold", "start", "switch", *solvers.GUIDANCE_METHODS])
def test_three_takes_together_are_those_alone(model: AceStep, solver: str, name: str) -> None:
    context, words = randn(1, 1, FRAMES, 2 * model.config.latent_channels), condition(model, 2)
    options = {**options_of(model, name), "solver": solver}
    together = carried(model, SEEDS, [context], [words] * 3, **options)
    assert_rows(together, [carried(model, (seed,), [context], [words], **options) for seed in SEEDS])
    assert not torch.allclose(together[0], together[1], rtol=1e-2)


def test_takes_with_contexts_and_conditions_of_their_own(model: AceStep) -> None:
    """Conditions of other lengths are filled up, and what fills them is masked."""
    contexts = [randn(seed, 1, FRAMES, 2 * model.config.latent_channels) for seed in SEEDS]
    conditions = [condition(model, seed, words) for seed, words in zip(SEEDS, (5, WORDS, 9), strict=True)]
    together = carried(model, SEEDS, contexts, conditions)
    alone = [carried(model, (seed,), [contexts[row]], [conditions[row]]) for row, seed in enumerate(SEEDS)]
    assert_rows(together, alone)


def test_a_condition_that_all_takes_share_is_projected_once(model: AceStep) -> None:
    words = condition(model, 2)
    assert dit.stack_conditions([words, words, words]) is words
    stacked = dit.stack_conditions([words, condition(model, 3, words=4)])
    assert stacked.states.shape[:2] == (2, WORDS)
    assert stacked.keep is not None
    assert stacked.keep.sum(dim=1).tolist() == [WORDS, 4]
