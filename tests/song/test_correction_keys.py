"""Keys of the corrections: decided once, recorded, and neutral where they were never asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acestep_cli.errors import UsageError
from acestep_cli.models import checkpoints
from acestep_cli.models.checkpoint_table import CHECKPOINTS
from acestep_cli.song import complete, spec, spec_layers
from acestep_cli.song.key import CORRECTIONS
from acestep_cli.song.recipe import recipe_hash
from acestep_cli.song.request import KEYS, NEUTRAL, Request
from support import tiny

PUBLISHED_TURBO = {name for name, row in CHECKPOINTS.items() if row.turbo and name != "pocket"}


def completed(models: tiny.Oracle, model: str = "turbo", **keys: Any) -> complete.Completed:
    found = checkpoints.find_checkpoint(model, models.root)
    return complete.complete(Request(caption="x", duration=10, seed=1, model=model, **keys), found)


def test_auto_is_double_for_published_turbo_checkpoints_alone() -> None:
    assert {name for name, row in CHECKPOINTS.items() if row.dcw == "double"} == PUBLISHED_TURBO
    assert {row.dcw for name, row in CHECKPOINTS.items() if name not in PUBLISHED_TURBO} == {"off"}


@pytest.mark.parametrize("asked", [None, "auto"])
def test_the_resolved_correction_is_recorded(two_b: tiny.Oracle, asked: str | None) -> None:
    done = completed(two_b, dcw=asked)
    assert (done.dcw, done.dcw_scale, done.dcw_high_scale) == ("double", 0.05, 0.02)
    again = spec.dump_spec(done)
    assert "dcw: double" in again


@pytest.mark.parametrize("mode", ["low", "high", "pix"])
def test_a_correction_of_one_scale_has_one(two_b: tiny.Oracle, mode: str) -> None:
    done = completed(two_b, dcw=mode)
    assert (done.dcw_scale, done.dcw_high_scale) == (0.05, None)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"dcw": "off", "dcw_scale": 0.1}, "dcw_scale"),
        ({"dcw": "off", "dcw_high_scale": 0.1}, "dcw_high_scale"),
        ({"dcw": "low", "dcw_high_scale": 0.1}, "dcw_high_scale"),
        ({"dcw": "pix", "dcw_high_scale": 0.1}, "dcw_high_scale"),
    ],
)
def test_a_scale_without_a_correction_is_refused(two_b: tiny.Oracle, keys: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=f"^{named}: has nothing to act on"):
        completed(two_b, **keys)


@pytest.mark.parametrize(
    "keys",
    [{"dcw_scale": "loud"}, {"dcw_scale": -0.1}, {"dcw_scale": float("nan")}, {"dcw": "triple"}, {"latent_rescale": 0},
     {"velocity_ema": 1}, {"velocity_clamp": -1}, {"latent_shift": float("inf")}],
    ids=str,
)  # fmt: skip
def test_values_that_are_none_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(keys))):
        Request(caption="x", **keys)


def test_neutral_values_are_no_part_of_the_recipe(two_b: tiny.Oracle) -> None:
    """So that takes from before these keys existed keep their recipe."""
    done = completed(two_b, dcw="off")
    corrections = {key: value for key, value in NEUTRAL.items() if KEYS[key].panel == CORRECTIONS}
    assert {key: getattr(done, key) for key in corrections} == corrections
    older = done.model_copy(update=dict.fromkeys(NEUTRAL))
    assert recipe_hash(done, "w", {}) == recipe_hash(older, "w", {})
    for key, value in (("dcw", "low"), ("velocity_clamp", 2), ("velocity_ema", 0.1), ("latent_shift", 0.1),
                       ("latent_rescale", 0.9)):  # fmt: skip
        other = completed(two_b, **{"dcw": "off", key: value})
        assert recipe_hash(other, "w", {}) != recipe_hash(done, "w", {}), key


def test_off_stays_text_in_yaml(two_b: tiny.Oracle, tmp_path: Path) -> None:
    file = tmp_path / "song.yaml"
    file.write_text("caption: x\ndcw: off\n", encoding="utf-8")
    assert spec.load(file).dcw == "off"
    file.write_text(spec.dump_spec(completed(two_b, dcw="off")), encoding="utf-8")
    assert spec.load(file).dcw == "off"


def test_a_sidecar_without_the_key_means_off(tmp_path: Path) -> None:
    """It is of a take from before the key existed, and replays."""
    take, plain = tmp_path / "take.flac.yaml", tmp_path / "song.yaml"
    take.write_text("caption: x\nmodel: turbo\nrender:\n  seed: 1\n", encoding="utf-8")
    plain.write_text("caption: x\nmodel: turbo\n", encoding="utf-8")
    assert (spec.load(take).dcw, spec.load(plain).dcw) == ("off", None)


@pytest.mark.parametrize(
    ("flags", "meant"),
    [
        ({"model": "base"}, (None, None, None)),
        ({"dcw": "low"}, ("low", None, None)),
        ({"dcw": "off"}, ("off", None, None)),
        ({"dcw_scale": "0.1"}, ("double", 0.1, 0.02)),
    ],
    ids=str,
)
def test_flags_over_a_take_drop_the_scales_of_another_correction(
    tmp_path: Path, flags: dict[str, str], meant: tuple[Any, ...]
) -> None:
    take = tmp_path / "take.flac.yaml"
    below = "caption: x\nmodel: turbo\ndcw: double\ndcw_scale: 0.05\ndcw_high_scale: 0.02\nrender:\n  seed: 1\n"
    take.write_text(below, encoding="utf-8")
    found = spec.resolve(*spec_layers.read_layers(take), spec_layers.from_flags(flags)).request
    assert (found.dcw, found.dcw_scale, found.dcw_high_scale) == meant
