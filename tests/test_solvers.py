"""Schedules, solvers and guidance against closed forms."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from acestep_cli import solvers

# `docs/specification.md` 7.2
TURBO_TABLES = {
    1: (1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125),
    2: (1, 0.9333333333333333, 0.8571428571428571, 0.7692307692307693, 0.6666666666666666, 0.5454545454545454, 0.4,
        0.2222222222222222),
    3: (1, 0.9545454545454546, 0.9, 0.8333333333333334, 0.75, 0.6428571428571429, 0.5, 0.3),
}  # fmt: skip


@pytest.mark.parametrize("shift", TURBO_TABLES)
def test_schedule_is_the_published_table(shift: int) -> None:
    assert solvers.timestep_schedule(8, shift) == pytest.approx((*TURBO_TABLES[shift], 0), abs=1e-15)


@pytest.mark.parametrize("steps", [1, 8, 50, 200])
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_schedule_falls_from_noise_to_music(steps: int, shift: float) -> None:
    times = solvers.timestep_schedule(steps, shift)
    assert (times[0], times[-1], len(times)) == (1, 0, steps + 1)
    assert all(later < earlier for earlier, later in pairwise(times))


def test_explicit_schedule_needs_no_final_zero() -> None:
    assert solvers.explicit_schedule((1, 0.5)) == solvers.explicit_schedule((1, 0.5, 0)) == (1, 0.5, 0)


def integrate(name: str, velocity: solvers.Velocity, x: torch.Tensor, times: tuple[float, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    step = solvers.SOLVERS[name].start(lambda like: torch.randn(like.shape, generator=generator).to(like.dtype))
    for t, t_next in pairwise(times):
        x = step(x, t, t_next, velocity)
    return x


@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_a_perfect_model_leads_to_its_clean_latents(name: str) -> None:
    clean, noise = torch.randn(2, 1, 6, 4, dtype=torch.float64)

    def velocity(x: torch.Tensor, t: float, corrector: bool = False) -> torch.Tensor:
        return (x - clean) / t

    reached = integrate(name, velocity, noise, solvers.timestep_schedule(8, 1.0))
    torch.testing.assert_close(reached, clean, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("dpm3m", 3)])
def test_order_of_convergence(name: str, order: int) -> None:
    """On dx/dt = -x from t = 1 the error shrinks by 2^order when the steps are halved.

    The last step's special cases are left out by stopping at t = 0.2.
    """

    def velocity(x: torch.Tensor, t: float, corrector: bool = False) -> torch.Tensor:
        return -x

    def error(steps: int) -> float:
        times = tuple(1 - 0.8 * i / steps for i in range(steps + 1))
        exact = torch.tensor(0.8, dtype=torch.float64).exp()
        return abs(integrate(name, velocity, torch.ones(1, 1, 1, dtype=torch.float64), times) - exact).item()

    # The multistep method starts with an Euler step, which limits it to second order as a whole.
    expected = min(order, 2)
    assert error(64) / error(128) == pytest.approx(2**expected, rel=0.1)


def test_multistep_coefficients_are_exact_for_quadratics() -> None:
    """After its two starting steps, the third-order method integrates a velocity quadratic in t exactly."""
    step = solvers.dpm3m(torch.zeros_like)
    times = [1 - 0.1 * i for i in range(6)]
    x = torch.zeros(1, 1, 1, dtype=torch.float64)
    gained = []
    for t, t_next in pairwise(times):
        before = x
        x = step(x, t, t_next, lambda x, t, corrector=False: torch.full_like(x, 3 * t * t))
        gained.append((x - before).item() - (t_next**3 - t**3))
    assert max(map(abs, gained[2:])) < 1e-14 < abs(gained[0])


def test_heun_looks_twice_except_at_the_end() -> None:
    calls = []

    def velocity(x: torch.Tensor, t: float, corrector: bool = False) -> torch.Tensor:
        calls.append((t, corrector))
        return x

    integrate("heun", velocity, torch.ones(1, 1, 1), (1.0, 0.5, 0.0))
    assert calls == [(1.0, False), (0.5, True), (0.5, False)]


def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, 2, 9, 4, generator=generator))  # type: ignore[return-value]


def test_cfg_is_the_textbook_formula() -> None:
    cond, uncond, x = pair()
    torch.testing.assert_close(solvers.cfg()(cond, uncond, 7.0, x, 0.5, False), uncond + 7 * (cond - uncond))


@pytest.mark.parametrize("method", solvers.GUIDANCE_METHODS)
def test_guidance_leaves_agreement_alone(method: str) -> None:
    """Where both passes say the same, there is nothing to be guided towards."""
    cond, _, x = pair()
    guided = solvers.GUIDANCE_METHODS[method].start()(cond, cond.clone(), 7.0, x, 0.5, False)
    # ADG never sees an angle under acos(1 - 1e-6), so it turns equal estimates by a few thousandths of a radian.
    torch.testing.assert_close(guided, cond, atol=2e-4 if method == "adg" else 2e-6, rtol=1e-5)


def test_apg_adds_only_what_is_orthogonal_and_limited() -> None:
    cond, uncond, x = pair()
    added = solvers.apg()(cond, uncond, 3.0, x, 0.5, False) - cond
    along = (added * cond).sum(dim=1) / cond.norm(dim=1)
    assert along.abs().max() < 1e-5
    assert added.norm(dim=1).max() <= 2 * solvers.APG_NORM_LIMIT + 1e-5


def test_apg_remembers_and_a_corrector_does_not_disturb_it() -> None:
    cond, uncond, x = pair()
    disturbed, quiet = solvers.apg(), solvers.apg()
    first = quiet(cond, uncond, 3.0, x, 0.9, False)
    disturbed(cond, uncond, 3.0, x, 0.9, False)
    torch.testing.assert_close(
        disturbed(cond, uncond, 3.0, x, 0.8, True), solvers.cfg()(cond, uncond, 3.0, x, 0.8, True)
    )
    second = quiet(cond, uncond, 3.0, x, 0.8, False)
    torch.testing.assert_close(disturbed(cond, uncond, 3.0, x, 0.8, False), second)
    assert not torch.allclose(first, second)


def test_adg_turns_by_at_most_its_angle() -> None:
    cond, uncond, x = pair()
    t = 0.5
    guided = x - solvers.adg()(cond, uncond, 30.0, x, t, False) * t
    clean = x - cond * t
    cosine = torch.nn.functional.cosine_similarity(guided, clean, dim=-1)
    angle_before = torch.nn.functional.cosine_similarity(clean, x - uncond * t, dim=-1).acos()
    assert (cosine.acos() <= angle_before + solvers.ADG_MAX_ANGLE + 1e-3).all()
    assert not torch.allclose(guided, clean)


def test_noising_is_the_path_the_solvers_walk() -> None:
    clean, noise = torch.randn(2, 3, 5, 4)
    t = torch.tensor([0.0, 0.25, 1.0])
    noised = solvers.add_noise(clean, noise, t)
    torch.testing.assert_close(noised[0], clean[0])
    torch.testing.assert_close(noised[1], 0.25 * noise[1] + 0.75 * clean[1])
    torch.testing.assert_close(noised[2], noise[2])


@pytest.mark.parametrize(
    ("seconds", "frames"), [(60, 1500), (0.04, 1), (0.0399, 0), (10.05, 251), (10.28, 257), (600, 15000)]
)
def test_length_counts_whole_hops(seconds: float, frames: int) -> None:
    assert solvers.duration_frames(seconds, 48_000, 1920) == frames
