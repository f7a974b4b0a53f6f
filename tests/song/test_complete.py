"""Completing a request: defaults, contradictions, lengths, seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from acestep_cli.errors import UsageError
from acestep_cli.models import checkpoint_table
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.song import complete, modes, take_parts
from acestep_cli.song.request import Request


def checkpoint(name: str) -> Checkpoint:
    found = Checkpoint(name, checkpoint_table.CHECKPOINTS[name], Path("dit"), Path("vae"), Path("text"))
    found.__dict__["config"] = {"fsq_input_levels": [8, 8, 8, 5, 5, 5]}  # what its config.json would say
    return found


TURBO, BASE = checkpoint("turbo"), checkpoint("base")


def test_turbo_defaults() -> None:
    done = complete.complete(Request(caption="x", seed=1), TURBO)
    assert (done.steps, done.shift, done.guidance, done.guidance_method) == (8, 3.0, 1.0, None)
    assert (done.model, done.mode, done.solver, done.takes, done.duration) == ("turbo", "generate", "euler", 1, 60)


def test_base_defaults() -> None:
    done = complete.complete(Request(caption="x", seed=1), BASE)
    assert (done.steps, done.shift, done.guidance, done.guidance_method) == (50, 1.0, 7.0, "apg")
    assert done.cfg_interval == (0, 1)


def test_completing_twice_changes_nothing() -> None:
    for where in (TURBO, BASE):
        done = complete.complete(Request(caption="x", lyrics="la"), where)
        assert complete.complete(Request(**done.model_dump()), where) == done


def test_an_unset_seed_is_drawn_once_and_within_range() -> None:
    seeds = {complete.complete(Request(caption="x"), TURBO).seed for _ in range(8)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_take_seeds_count_up_and_wrap() -> None:
    done = complete.complete(Request(caption="x", seed=2**32 - 1, takes=3), TURBO)
    assert [take_parts.take_request(done, k).seed for k in (1, 2, 3)] == [2**32 - 1, 0, 1]
    assert take_parts.take_request(done, 2).takes == 1


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"guidance": 7}, "guidance is distilled into it"),
        ({"guidance_method": "cfg"}, "guidance is distilled into it"),
        ({"cfg_interval": "0.1,0.9"}, "guidance is distilled into it"),
        ({"steps": 21}, "at most 20 steps"),
        ({"timesteps": [1, 0.5], "steps": 2}, "the timesteps are given one by one"),
        ({"timesteps": [1, 0.5], "shift": 2}, "the timesteps are given one by one"),
        ({"duration": 5}, "at least 10 s"),
        ({"codes": [64000]}, "knows codes 0 to 63999"),
        ({"codes": [1] * 49, "duration": 10}, "takes 50"),
        ({"codes": [1] * 51, "duration": 10}, "takes 50"),
        ({"codes": [1] * 10}, "at least 10 s"),
    ],
)
def test_what_turbo_cannot_do_is_refused(asked: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        complete.complete(Request(caption="x", **asked), TURBO)


def test_guidance_that_is_off_has_no_method() -> None:
    with pytest.raises(UsageError, match="nothing to act on"):
        complete.complete(Request(caption="x", guidance=1, guidance_method="cfg"), BASE)


def test_all_contradictions_are_told_together() -> None:
    with pytest.raises(UsageError) as refusal:
        complete.complete(Request(guidance=7, steps=50), TURBO)
    assert all(word in str(refusal.value) for word in ("caption", "guidance", "steps"))


def test_codes_decide_the_length() -> None:
    assert complete.complete(Request(codes=[5] * 60), TURBO).duration == 12


def test_lyrics_decide_the_length() -> None:
    lyrics = "[Verse]\n" + "a line\n" * 4 + "[Chorus]\n" + "a line\n" * 4
    short = complete.complete(Request(lyrics=lyrics), TURBO).duration
    twice = complete.complete(Request(lyrics=lyrics * 2), TURBO).duration
    fast = complete.complete(Request(lyrics=lyrics * 2, bpm=200), TURBO).duration
    assert short == 48  # (8 lines x 2 + 4) bars of 4 beats at 100 bpm
    assert short < twice
    assert fast < twice
    assert complete.complete(Request(lyrics="[Intro]\n[Outro]"), TURBO).duration == 60
    assert complete.complete(Request(lyrics="[Intro]\n" + lyrics), TURBO).duration > short


def test_published_instructions() -> None:
    assert modes.generate(Request(caption="x"), None).instruction == (
        "Fill the audio semantic mask based on the given conditions:"
    )
    assert modes.generate(Request(codes=[1]), None).instruction == (
        "Generate audio semantic tokens based on the given conditions:"
    )
