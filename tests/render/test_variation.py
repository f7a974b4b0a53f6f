"""Variations: noise between that of two seeds, and takes that are told apart by the second."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.engine import denoise
from acestep_cli.errors import UsageError
from acestep_cli.models import checkpoints
from acestep_cli.song import complete, seeds, take_parts
from acestep_cli.song.complete import Completed
from acestep_cli.song.request import Request
from support.command import Run

POCKET = checkpoints.find_checkpoint("pocket")


def completed(**keys: Any) -> Completed:
    return complete.complete(Request(caption="x", duration=4, model="pocket", **keys), POCKET)


def test_the_ends_are_the_noises_of_the_two_seeds() -> None:
    first, other = (denoise.starting_noise(seed, 9, 3) for seed in (1, 2))
    assert torch.equal(denoise.varied_noise(1, 2, 0.0, 9, 3), first)
    assert torch.equal(denoise.varied_noise(1, 2, 1.0, 9, 3), other)


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_between_them_it_is_on_an_arc(share: float) -> None:
    first, other = (denoise.starting_noise(seed, 40_000, 1).double() for seed in (1, 2))
    found = denoise.varied_noise(1, 2, share, 40_000, 1).double()
    expected = math.cos(share * math.pi / 2) * first + math.sin(share * math.pi / 2) * other
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.std() == pytest.approx(1, abs=0.02)
    likeness = float((found * first).mean())
    assert likeness == pytest.approx(math.cos(share * math.pi / 2), abs=0.02)


@pytest.mark.parametrize("share", ["0%", "100%"])
def test_at_the_ends_it_is_the_take_and_that_of_the_other_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    """Sample for sample, in the files."""
    monkeypatch.chdir(tmp_path)

    def samples(name: str, *words: str) -> np.ndarray:
        flags = ("-m", "pocket", "--songwriter", "none", "--set", "steps=2", "-o", name)
        result = CliRunner().invoke(app, ["generate", *words, *flags], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return soundfile.read(name)[0]

    take, other = (samples(f"{seed}.wav", "-c", "a folk song", "-d", "3", "--seed", seed) for seed in ("9", "12"))
    varied = samples("v.wav", "9.wav.yaml", "--variation", share, "--variation-seed", "12")
    assert np.array_equal(varied, take if share == "0%" else other)
    assert not np.array_equal(take, other)


def test_takes_share_the_seed_and_have_seeds_of_the_variation() -> None:
    song = completed(seed=5, variation=0.2, variation_seed=2**32 - 1, takes=3)
    takes = [take_parts.take_request(song, number) for number in (1, 2, 3)]
    assert [(take.seed, take.variation_seed) for take in takes] == [(5, 2**32 - 1), (5, 0), (5, 1)]
    plain = completed(seed=5, takes=2)
    assert [take_parts.take_request(plain, number).seed for number in (1, 2)] == [5, 6]


def test_an_unset_seed_of_a_variation_is_drawn_and_never_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(seed=5, variation=0.2).variation_seed is not None
    assert completed(seed=5).variation_seed is None
    for drawn in (0, 1, seeds.SEEDS - 1):
        monkeypatch.setattr(seeds, "draw_seed", lambda drawn=drawn: drawn)
        found = seeds.draw_variation(7, 4)
        assert not seeds.is_among(7, found, 4)


@pytest.mark.parametrize(
    "keys",
    [
        {"variation_seed": 3},
        {"seed": 3, "variation": 0.1, "variation_seed": 3},
        {"seed": 3, "variation": 0.1, "variation_seed": 1, "takes": 4},
        {"seed": 0, "variation": 0.1, "variation_seed": 2**32 - 1, "takes": 2},
    ],
    ids=str,
)
def test_seeds_that_would_vary_nothing_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^variation_seed: "):
        completed(**keys)


@pytest.mark.parametrize("share", ["101%", "1.2", "-1%", "much"])
def test_a_share_beyond_the_whole_is_refused(acestep: Run, share: str) -> None:
    result = acestep("generate", "-c", "x", "--variation", share)
    assert (result.exit_code, "variation" in result.stderr) == (2, True)


FLAGS = ("-m", "pocket", "--songwriter", "none", "--json")


def outputs(acestep: Run, *words: str) -> list[dict[str, Any]]:
    result = acestep("generate", *words, *FLAGS)
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)["outputs"]
    return found


def test_neighbours_of_a_take_by_its_sidecar(acestep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [take] = outputs(acestep, "-c", "x", "-d", "4", "--seed", "9", "-o", "take.wav")
    near = outputs(acestep, take["sidecar"], "--variation", "15%", "-n", "2", "-o", "near.wav")
    assert [(one["seed"], one["request"]["variation"]) for one in near] == [(9, 0.15), (9, 0.15)]
    drawn = [one["request"]["variation_seed"] for one in near]
    assert drawn[1] == seeds.take_seed(drawn[0], 2)
    # The same command again keeps them, with the seeds that were drawn.
    again = outputs(acestep, take["sidecar"], "--variation", "15%", "-n", "2", "-o", "near.wav")
    assert [one["status"] for one in again] == ["skipped", "skipped"]
    assert [one["request"]["variation_seed"] for one in again] == drawn
    # Another share, or another seed that is asked for, is another take.
    assert (
        acestep("generate", take["sidecar"], "--variation", "30%", "-n", "2", "-o", "near.wav", *FLAGS).exit_code == 9
    )
    other = ("--variation", "15%", "--variation-seed", "4", "-n", "2", "-o", "near.wav")
    assert acestep("generate", take["sidecar"], *other, *FLAGS).exit_code == 9


def test_a_variation_replays_by_its_own_sidecar(acestep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("-c", "x", "-d", "4", "--seed", "9", "--variation", "0.4", "--variation-seed", "2", "-o", "a.wav")
    [take] = outputs(acestep, *words)
    [again] = outputs(acestep, take["sidecar"], "-o", "b.wav")
    assert again["request"]["variation_seed"] == 2
    assert [one["status"] for one in outputs(acestep, *words)] == ["skipped"]


def test_rolling_a_variation_makes_other_neighbours_of_the_same_take(
    acestep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("-c", "x", "-d", "4", "--seed", "9", "--variation", "0.4")
    [first] = outputs(acestep, *words)
    rolled = outputs(acestep, *words, "-n", "2")
    assert [one["status"] for one in rolled] == ["written", "written"]
    assert len({one["path"] for one in (first, *rolled)}) == 3
    assert {one["seed"] for one in (first, *rolled)} == {9}
    assert len({one["request"]["variation_seed"] for one in (first, *rolled)}) == 3
    # Where the other seed is given too, nothing is left to draw.
    given = ("--variation-seed", str(rolled[0]["request"]["variation_seed"]), "-n", "2")
    kept = outputs(acestep, *words, *given)
    assert [(one["status"], one["path"]) for one in kept] == [("skipped", one["path"]) for one in rolled]


def test_again_keeps_the_seed_that_is_varied(acestep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [take] = outputs(acestep, "-c", "x", "-d", "4", "--seed", "9", "-o", "take.wav")
    words = (take["sidecar"], "--variation", "15%", "-o", "near.wav")
    [near], [again] = outputs(acestep, *words), outputs(acestep, *words, "--again")
    assert (again["status"], again["seed"]) == ("written", 9)
    assert again["request"]["variation_seed"] != near["request"]["variation_seed"]
    assert outputs(acestep, *words, "--again", "--seed", "9")[0]["seed"] == 9
    refused = acestep("generate", *words, "--again", "--variation-seed", "4", *FLAGS)
    assert (refused.exit_code, "--variation-seed" in refused.stderr) == (2, True)


def test_the_way_on_from_kept_takes_is_one_that_works(
    acestep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried: another seed beside an output of that name would be refused."""
    monkeypatch.chdir(tmp_path)
    flags = ("-c", "x", "-d", "4", "-m", "pocket", "--songwriter", "none")
    seed, name, other = ("--seed", "9"), ("-o", "a.wav"), ("--variation", "0.4", "--variation-seed", "2")

    def way_on(*words: str) -> str:
        assert acestep("generate", *flags, *words).exit_code == 0
        kept = acestep("generate", *flags, *words)
        return next(line for line in kept.stderr.splitlines() if line.startswith("That is there already"))

    assert way_on(*seed, *name) == "That is there already. New takes beside it: --again instead of --seed."
    assert acestep("generate", *flags, *name, "--again").stdout == "a-2.wav\n"
    assert way_on(*seed, *other) == "That is there already. New takes: another --variation-seed."
    assert acestep("generate", *flags, *seed, *other[:3], "3").exit_code == 0
