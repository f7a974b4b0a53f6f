"""A repaint with a part of its song in view: the rest is the source, and memory and time follow the part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.engine.dit import DiT
from acestep_cli.errors import UsageError
from acestep_cli.machine import plan
from acestep_cli.machine.memory import MemoryModel
from acestep_cli.models import checkpoints
from acestep_cli.models.sizes import Sizes
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.complete import Completed
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import tiny
from support.command import Run
from support.rendering import FLOAT32, quiet
from support.sounds import recording

SECONDS, RATE = 20.01, 48_000  # off the 40 ms grid
HOP = 1920
REGIONS: list[dict[str, Any]] = [
    {"end": SECONDS + 4},
    {"start": -4},
    {"start": 9.03, "end": 11.5},
    {"start": 1, "end": 3},
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    recording("song.wav", SECONDS)
    return tmp_path


def completed(oracle: tiny.Oracle, **asked: Any) -> Completed:
    found = checkpoints.find_checkpoint("turbo", oracle.root)
    keys = {"mode": "repaint", "source": "song.wav", "caption": "a", "seed": 1, "steps": 2, "context": 3, **asked}
    return complete.complete(Request(**keys), found)


def repainted(oracle: tiny.Oracle, **asked: Any) -> Take:
    found = checkpoints.find_checkpoint("turbo", oracle.root)
    (take,) = Pipeline(found, FLOAT32).run([completed(oracle, **asked)], quiet)
    return take


@pytest.mark.parametrize("region", REGIONS, ids=str)
@pytest.mark.parametrize("mode", ["aggressive", "conservative"])
def test_outside_of_the_new_part_every_sample_is_the_source_s(
    two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch, region: dict[str, Any], mode: str
) -> None:
    frames: list[int] = []
    forward = DiT.forward
    monkeypatch.setattr(DiT, "forward", lambda self, x, *args: frames.append(x.shape[1]) or forward(self, x, *args))
    take = repainted(two_b, repaint_mode=mode, **region)
    source = soundfile.read("song.wav", dtype="float32")[0].T
    before = round(max(0, -region.get("start", 0)) * RATE)
    expected = np.zeros_like(take.audio.samples)
    expected[:, before : before + source.shape[1]] = source
    assert take.splice is not None
    for start, end in take.splice.untouched:
        assert np.array_equal(take.audio.samples[:, start:end], expected[:, start:end])
    untouched = sum(end - start for start, end in take.splice.untouched)
    new = sum(end - start for start, end in take.splice.changed)
    fades = sum(end - start for start, end in take.splice.crossfades)
    assert untouched + new + fades == take.audio.samples.shape[1]
    assert new == pytest.approx(take.request.region.end * RATE - take.request.region.start * RATE, abs=1)  # type: ignore[union-attr]
    assert take.problem is None
    in_view = take.request.region.view_seconds  # type: ignore[union-attr]
    assert max(frames) <= max(128, in_view * RATE / HOP + 2)
    assert take.request.duration == pytest.approx(in_view)


def test_all_of_it_in_view_is_the_repaint_without_context(two_b: tiny.Oracle) -> None:
    region = {"start": 9, "end": 11}
    whole, seen = repainted(two_b, context=None, **region), repainted(two_b, context=600, **region)
    assert np.array_equal(whole.audio.samples, seen.audio.samples)


def test_the_view_ends_with_the_song(two_b: tiny.Oracle) -> None:
    region = completed(two_b, start=1, end=3).region
    assert region is not None
    assert region.view == (0, 6)
    region = completed(two_b, end=SECONDS + 4).region
    assert region is not None
    assert region.view == (pytest.approx(SECONDS - 3), SECONDS + 4)


def test_memory_and_time_follow_what_is_in_view(two_b: tiny.Oracle) -> None:
    sizes = Sizes.of(checkpoints.find_checkpoint("turbo", two_b.root))

    def model_of(context: float | None) -> tuple[float, MemoryModel]:
        request = completed(two_b, end=SECONDS + 4, context=context)
        model = MemoryModel(sizes, plan._workload(request, sizes), FLOAT32.arrangement)
        return plan.diffusion_operations(request, model), model

    (time, memory), (whole_time, whole) = model_of(3), model_of(None)
    assert time < 0.4 * whole_time
    assert memory.step_bytes < 0.5 * whole.step_bytes
    assert memory.waveform_bytes == whole.waveform_bytes  # which is copied


def test_a_song_over_ten_minutes_grows(two_b: tiny.Oracle) -> None:
    soundfile.write("song.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 601 * 8000), 8000)
    take = repainted(two_b, end=604)
    assert take.audio.samples.shape[1] == 604 * RATE
    assert take.request.duration == pytest.approx(6)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"start": -4, "end": SECONDS + 4},
            "acestep extend song.wav --before 4 --context 3 -o longer.flac, then acestep extend longer.flac --after 4",
        ),
        ({"start": 2, "end": 610}, "context: 610 s would be in view"),
    ],
)
def test_what_is_no_view_is_refused(two_b: tiny.Oracle, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        completed(two_b, **asked)


@pytest.mark.parametrize(
    ("seconds", "words", "code", "sentence"),
    [
        (596, ["extend", "--after", "5"], 2, "the song would be 601 s long, and 600 s are the most; the source is 596 "
         "s long; --context 30, which keeps 30 s around the new part in view and copies the rest, makes longer ones."),
        (601, ["extend", "--after", "5"], 5, "10 minutes are the most. --context 30, which keeps 30 s around the new "
         "part in view and copies the rest, works on up to 60 minutes."),
        (601, ["cover"], 5, "10 minutes are the most. Cut it: ffmpeg"),
        (601, ["repaint", "--start", "9", "--end", "12", "--context", "3"], 0, ""),
        (3601, ["extend", "--after", "5", "--context", "3"], 5, "60 minutes are the most. Cut it: ffmpeg"),
    ],
)  # fmt: skip
def test_a_song_that_is_too_long_to_be_seen_whole_leads_to_context(
    acestep: Run, seconds: int, words: list[str], code: int, sentence: str
) -> None:
    soundfile.write("long.flac", np.random.default_rng(0).uniform(-0.3, 0.3, seconds * 1000), 1000)
    command, *flags = words
    result = acestep(command, "long.flac", "-c", "slow strings", *flags, "--dry-run")
    assert result.exit_code == code, result.stderr
    assert sentence in " ".join(result.stderr.split())


def test_pocket_extends_with_context_and_plays_the_sidecar_again() -> None:
    flags = ["-c", "outro", "-m", "pocket", "--set", "steps=2", "--seed", "1", "--bit-depth", "16", "--context", "4"]
    result = CliRunner().invoke(app, ["extend", "song.wav", "--after", "3", *flags, "-o", "x.wav"])
    assert result.exit_code == 0, result.stderr
    source, made = soundfile.read("song.wav")[0], soundfile.read("x.wav")[0]
    assert len(made) == pytest.approx((SECONDS + 3) * RATE, abs=1)
    assert np.array_equal(made[: len(source) - 2400], source[:-2400])
    assert CliRunner().invoke(app, ["render", "x.wav.yaml", "-o", "y.wav"]).exit_code == 0
    assert np.array_equal(soundfile.read("y.wav")[0], made)
    kept = CliRunner().invoke(app, ["extend", "song.wav", "--after", "3", *flags, "-o", "z.wav", "--keep-latents"])
    assert kept.exit_code == 2
    assert "--keep-latents: with context, only the latents of a part are made" in " ".join(kept.stderr.split())
