"""Songs with a Songwriter from the command line: decided, recorded, replayed, written, described."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from typer.testing import CliRunner, Result

from acestep_cli.cli import songwriting
from acestep_cli.cli.app import app
from acestep_cli.engine import codec
from acestep_cli.engine.songwriter import SongwriterModel
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import UsageError
from acestep_cli.models import checkpoint_files, checkpoints
from acestep_cli.pipeline import Pipeline
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import complete, spec, spec_layers
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import tiny
from support.command import LIMIT, read_to, started
from support.rendering import FLOAT32

METADATA = ["bpm", "key", "time_signature"]
OPEN = [*METADATA, "duration", "codes"]
Acestep = Callable[..., Result]


@pytest.fixture(scope="session")
def models_dir(two_b: tiny.Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a Songwriter in it."""
    root = tmp_path_factory.mktemp("with-songwriter")
    for folder in two_b.root.iterdir():
        (root / folder.name).symlink_to(folder)
    tiny.build_songwriter(root / "acestep-5Hz-lm-0.6B")
    return root


@pytest.fixture
def acestep(models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acestep:
    """`acestep …` in an empty folder, with short texts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(models_dir))
    monkeypatch.setattr("acestep_cli.song.songwriter_prompts.CAPTION_TOKENS", 20)
    monkeypatch.setattr("acestep_cli.song.songwriter_prompts.LYRIC_TOKENS", 30)
    return lambda *words: CliRunner().invoke(app, [*words])


def made(acestep: Acestep, *words: str) -> list[Path]:
    result = acestep("generate", *words, "--dtype", "fp32")
    assert result.exit_code == 0, result.stderr
    return [Path(line) for line in result.stdout.splitlines()]


def sidecar(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.with_name(path.name + ".yaml").read_text(encoding="utf-8"))
    return found


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path)[0]


# What a render leaves open.


def render(models_dir: Path, longest: int | None = None, **asked: Any) -> list[Take]:
    found = checkpoints.find_checkpoint("turbo", models_dir)
    helper = checkpoint_files.Songwriter("0.6B", models_dir / "acestep-5Hz-lm-0.6B")
    request = complete.complete(Request(**{"caption": "a song", "seed": 7, "duration": 10, **asked}), found, helper)
    plan = FLOAT32.model_copy(update={"longest_seconds": longest})
    return list(Pipeline(found, plan, helper).run([request], lambda *_: None))


def test_what_is_open_is_decided_and_what_is_asked_stays(models_dir: Path) -> None:
    (take,) = render(models_dir, bpm=71, lyrics="la la", language="no")
    assert (take.request.bpm, take.request.duration, take.request.language) == (71, 10, "no")
    assert (take.request.caption, take.request.lyrics) == ("a song", "la la")
    assert take.request.key
    assert take.request.time_signature
    assert take.request.songwriter == "none"
    assert take.request.open == ()
    assert len(take.request.codes or ()) == 50


def test_the_codes_lead_the_render_and_replay_without_a_songwriter(models_dir: Path) -> None:
    (take,) = render(models_dir)
    alone = checkpoints.find_checkpoint("turbo", models_dir)
    again = complete.complete(Request(**take.request.model_dump()), alone)
    (replay,) = Pipeline(alone, FLOAT32).run([again], lambda *_: None)
    assert np.array_equal(take.audio.samples, replay.audio.samples)
    (without,) = Pipeline(alone, FLOAT32).run([again.model_copy(update={"codes": None})], lambda *_: None)
    assert not np.allclose(take.audio.samples, without.audio.samples)


def test_takes_share_the_text_and_have_codes_of_their_own(models_dir: Path) -> None:
    first, second = render(models_dir, takes=2)
    assert [first.number, second.number] == [1, 2]
    assert first.request.bpm == second.request.bpm
    assert first.request.codes != second.request.codes
    (alone,) = render(models_dir, seed=8, songwriter_seed=7)
    assert alone.request == second.request
    assert np.array_equal(alone.audio.samples, second.audio.samples)
    (other,) = render(models_dir, seed=8)
    assert other.request != second.request


def test_a_decided_duration_decides_the_codes(models_dir: Path) -> None:
    (take,) = render(models_dir, longest=20, duration=None, seed=3)
    assert 10 <= take.request.duration <= 20  # not the estimate, which is 60 s
    assert len(take.request.codes or ()) == int(5 * take.request.duration)
    assert take.audio.seconds == pytest.approx(take.request.duration, abs=0.04)


def test_a_length_that_the_codes_have_no_room_for_is_not_offered(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep_cli.engine.songwriter.CONTEXT", 1400)
    (take,) = render(models_dir, duration=None, seed=3)
    assert 10 <= take.request.duration <= (1400 - 1024) / 5


def test_fades_that_outlast_what_was_decided_are_refused(models_dir: Path) -> None:
    with pytest.raises(UsageError, match=r"fade_out: 30 s of fading are longer than the song, 1\d s.*Songwriter"):
        render(models_dir, longest=15, duration=None, fade_out=30)


def test_the_songwriter_leaves_before_the_words_are_read(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    residents: dict[str, frozenset[str]] = {}
    stores: list[WeightStore] = []
    make = WeightStore.__init__
    monkeypatch.setattr(WeightStore, "__init__", lambda self, *args: stores.append(self) or make(self, *args))
    found = checkpoints.find_checkpoint("turbo", models_dir)
    helper = checkpoint_files.Songwriter("0.6B", models_dir / "acestep-5Hz-lm-0.6B")
    request = complete.complete(Request(caption="x", duration=10), found, helper)
    told: list[str] = []

    def report(stage: str, done: int, total: int) -> None:
        residents[stage] = stores[0].resident

    takes = Pipeline(found, FLOAT32, helper).run([request], report, say=lambda line: told.append(f"{line} {residents}"))
    next(takes)
    assert residents["codes"] == {"songwriter"}
    assert residents["text"] == {"text"}
    assert "songwriter" not in residents["diffuse"]
    assert "bpm" in told[0]
    assert "diffuse" not in told[0]


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ({"caption": "x"}, OPEN),
        ({"caption": "x", "lyrics": "la"}, ["language", *OPEN]),
        ({"caption": "x", "lyrics": "[Verse]"}, OPEN),
        ({"lyrics": "la", "language": "en"}, ["caption", *OPEN]),
        ({"caption": "x", "bpm": 90, "key": "Am", "time_signature": 4, "duration": 20}, ["codes"]),
        ({"caption": "x", "codes": [1] * 50}, []),
        ({"idea": "x"}, ["caption", "lyrics", "genre", "language", *OPEN]),
        ({"idea": "x", "instrumental": True, "caption": "y"}, ["genre", *OPEN]),
        ({"mode": "cover", "caption": "x"}, []),
        ({"mode": "cover", "caption": "x", "songwriter": "auto"}, []),
        ({"mode": "cover", "caption": "x", "songwriter": "0.6B"}, METADATA),
        (
            {"mode": "repaint", "lyrics": "la", "bpm": 90, "songwriter": "0.6B"},
            ["caption", "language", "key", "time_signature"],
        ),
        ({"mode": "lego", "track": ["bass"], "songwriter": "0.6B"}, ["caption", *METADATA]),
        ({"mode": "complete", "track": ["bass"], "songwriter": "none"}, []),
        ({"mode": "extract", "track": ["bass"], "songwriter": "0.6B"}, []),
    ],
    ids=str,
)
def test_what_is_left_to_a_songwriter(asked: dict[str, Any], left: list[str]) -> None:
    assert list(complete.open_keys(Request(**asked))) == left


# The command line.


def test_an_idea_becomes_a_song_and_its_sidecar_a_replay(acestep: Acestep) -> None:
    result = acestep("generate", "--idea", "a lost umbrella", "-d", "10", "--seed", "5", "--dtype", "fp32")
    assert result.exit_code == 0, result.stderr
    assert "The Songwriter 0.6B decides what is open: caption, lyrics, genre, language, bpm, key" in result.stderr
    assert "The Songwriter decided: caption '" in result.stderr
    [path] = map(Path, result.stdout.splitlines())
    assert path.name == "a-lost-umbrella-1.flac"
    written = sidecar(path)
    assert written["songwriter"] == "none"
    assert {"caption", "bpm", "key", "time_signature", "codes"} <= set(written)
    assert not {"idea", "songwriter_seed", "songwriter_options"} & set(written)
    who = written["render"]["songwriter"]
    assert (who["name"], who["seed"], who["idea"]) == ("0.6B", 5, "a lost umbrella")
    assert "lyrics" in who["decided"]
    [replay] = made(acestep, f"{path}.yaml", "-o", "replay.flac", "--models-dir", os.environ["ACESTEP_MODELS_DIR"])
    assert np.array_equal(samples(path), samples(replay))
    assert "songwriter" not in sidecar(replay)["render"]


def test_a_rerun_is_skipped_and_another_songwriter_is_another_recipe(
    acestep: Acestep, models_dir: Path, tmp_path: Path
) -> None:
    words = ["-c", "x", "-d", "10", "-o", "a.flac", "--temperature", "0.7"]
    made(acestep, *words)
    assert "kept, for it has the same recipe" in acestep("generate", *words, "--dtype", "fp32").stderr
    made(acestep, "a.flac.yaml", "-o", "b.flac")
    assert "same recipe" in acestep("generate", "a.flac.yaml", "-o", "b.flac", "--dtype", "fp32").stderr
    for others in (["--temperature", "0.8"], ["--no-think"], ["--songwriter-seed", "3"]):
        changed = [word for word in words if word not in ("--temperature", "0.7")] + others
        assert acestep("generate", *changed, "--dtype", "fp32").exit_code == 9, others
    tiny.build_songwriter(tmp_path / "mine", seed=1)
    assert acestep("generate", *words, "--songwriter", "./mine", "--dtype", "fp32").exit_code == 9


def test_no_think_is_a_plain_render(acestep: Acestep) -> None:
    [path] = made(acestep, "-c", "x", "-d", "10", "--no-think", "-o", "a.flac")
    assert not {"codes", "bpm"} & set(sidecar(path))
    assert sidecar(path)["songwriter"] == "none"
    [same] = made(acestep, "-c", "x", "-d", "10", "--songwriter", "none", "--seed", str(sidecar(path)["seed"]))
    assert np.array_equal(samples(path), samples(same))


def test_another_song_in_a_sidecar_is_composed_anew(acestep: Acestep) -> None:
    [path] = made(acestep, "-c", "x", "-d", "10", "--seed", "1", "-o", "a.flac")
    codes = sidecar(path)["codes"]
    [longer] = made(acestep, "a.flac.yaml", "-d", "12", "-o", "b.flac")
    assert len(sidecar(longer)["codes"]) == 60
    [reseeded] = made(acestep, "a.flac.yaml", "--seed", "2", "-o", "c.flac")
    assert sidecar(reseeded)["codes"] == codes


def test_a_dry_run_says_what_is_left_open(acestep: Acestep) -> None:
    result = acestep("generate", "-c", "x", "--dry-run", "--json")
    assert result.exit_code == 0
    assert "decides what is open: bpm, key, time signature, duration, codes" in result.stderr
    [output] = json.loads(result.stdout)["outputs"]
    assert output["request"]["songwriter"] == "0.6B"
    assert output["plan"]["longest_seconds"] == 600
    assert "bpm" not in output["request"]
    assert "open" not in output["request"]
    assert "That is for the estimated length. The Songwriter decides on the length, up to 600 s" in result.stderr
    asked = acestep("generate", "-c", "x", "-d", "20", "--dry-run", "--json")
    assert "longest_seconds" not in json.loads(asked.stdout)["outputs"][0]["plan"]
    assert "decides on the length" not in asked.stderr


def test_a_decided_length_is_recorded_replayed_and_no_part_of_the_recipe(
    acestep: Acestep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acestep_cli.machine.plan.ROUND_LENGTHS", (14, 12))
    monkeypatch.setattr("acestep_cli.song.duration.DEFAULT_SECONDS", 10.0)
    words = ["-c", "x", "--seed", "3", "-o", "a.flac"]
    [path] = made(acestep, *words)
    written = sidecar(path)
    assert 10 < written["duration"] <= 14
    assert "duration" in written["render"]["songwriter"]["decided"]
    assert len(samples(path)) == pytest.approx(written["duration"] * 48_000, abs=1920)
    [replay] = made(acestep, f"{path}.yaml", "-o", "replay.flac")
    assert np.array_equal(samples(path), samples(replay))
    assert "kept, for it has the same recipe" in acestep("generate", *words, "--dtype", "fp32").stderr
    again = acestep("generate", "-c", "x", "--dtype", "fp32", "--dry-run").stderr
    assert "That is for a song of 10 s; the Songwriter decides the length." in again


def test_a_resolved_spec_leaves_open_what_a_render_does(acestep: Acestep) -> None:
    Path("a.yaml").write_text("idea: x\nsongwriter_options:\n  top_k: 5\n")
    shown = acestep("spec", "show", "a.yaml", "--resolved", "--origin").stdout
    assert "songwriter: 0.6B  # auto: the largest installed that fits" in shown
    assert "songwriter_options:\n  top_k: 5  # a.yaml:3\n" in shown
    assert "until the Songwriter decides" in shown
    assert "language" not in shown


def test_a_smaller_songwriter_is_taken_where_memory_is_short(
    acestep: Acestep, tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the request reads is read once for all of them."""
    reads, read_inputs = [], complete.read_inputs
    monkeypatch.setattr(complete, "read_inputs", lambda *asked: reads.append(asked) or read_inputs(*asked))
    models = tmp_path / "models"
    models.mkdir()
    for folder in models_dir.iterdir():
        (models / folder.name).symlink_to(folder)
    tiny.build_songwriter(models / "acestep-5Hz-lm-4B", num_hidden_layers=1)
    large = models / "acestep-5Hz-lm-4B" / "config.json"
    config = json.loads(large.read_text())
    huge = {"num_hidden_layers": 256, "hidden_size": 8192, "intermediate_size": 65_536, "layer_types": None}
    large.write_text(json.dumps({**config, **huge}))
    result = acestep("generate", "-c", "x", "--dry-run", "--models-dir", str(models))
    assert result.exit_code == 0, result.stderr
    assert "turbo with the Songwriter 4B is passed over" in result.stderr
    assert "The Songwriter 0.6B decides" in result.stderr
    assert len(reads) == 1


def test_write_turns_an_idea_into_a_spec(acestep: Acestep) -> None:
    flags = ["--language", "English", "--bpm", "90", "--seed", "3"]
    result = acestep("write", "a soft love song", *flags, "-o", "love.yaml")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "love.yaml\n"
    song = spec.load(Path("love.yaml"))
    assert (song.language, song.bpm, song.idea, song.songwriter) == ("en", 90, None, None)
    assert song.caption
    assert song.lyrics
    assert song.key
    assert 10 <= (song.duration or 0) <= 600
    assert acestep("write", "a soft love song", *flags).stdout == Path("love.yaml").read_text(encoding="utf-8")
    again = acestep("write", "another", "-o", "love.yaml")
    assert again.exit_code == 9
    assert "love.yaml exists already" in again.stderr
    assert acestep("write", "another", "-o", "love.yaml", "--force").exit_code == 0
    assert acestep("spec", "check", "love.yaml").exit_code == 0
    drawn = acestep("write", "an instrumental", "--instrumental").stderr
    assert "writes the same again" in drawn


def test_write_rewrites_words_and_keeps_the_rest(acestep: Acestep) -> None:
    Path("draft.yaml").write_text("caption: x\nlyrics: la la\nbpm: 71\ntitle: Low Water\nsteps: 4\nseed: 9\n")
    result = acestep("write", "--from", "draft.yaml", "-o", "better.yaml")
    assert result.exit_code == 0, result.stderr
    song = spec.load(Path("better.yaml"))
    assert (song.bpm, song.title, song.steps, song.seed) == (71, "Low Water", 4, 9)
    assert song.caption not in (None, "x")
    assert song.lyrics not in (None, "la la")
    [path] = made(acestep, "draft.yaml", "-d", "10", "-o", "a.flac")
    assert acestep("write", "--from", f"{path}.yaml", "-o", "b.yaml").exit_code == 0
    assert spec.load(Path("b.yaml")).codes is None
    assert spec.load(Path("b.yaml")).songwriter is None


def test_describe_turns_a_recording_into_a_spec(acestep: Acestep) -> None:
    [path] = made(acestep, "-c", "x", "-d", "10", "--seed", "1", "-o", "a.flac", "--no-think")
    result = acestep("describe", str(path), "-o", "described.yaml", "--seed", "4")
    assert result.exit_code == 0, result.stderr
    song = spec.load(Path("described.yaml"))
    assert song.duration == 10
    assert song.caption
    assert song.bpm
    assert song.instrumental or song.lyrics
    assert acestep("describe", str(path), "--seed", "4").stdout == Path("described.yaml").read_text(encoding="utf-8")


def test_the_codes_of_a_recording_are_a_spec(acestep: Acestep, two_b: tiny.Oracle) -> None:
    time_line = np.arange(10 * 48_000 + 3 * 1920) / 48_000
    soundfile.write("a.wav", np.stack([np.sin(440 * time_line), np.sin(660 * time_line)], axis=1) * 0.3, 48_000)
    result = acestep("describe", "a.wav", "--codes", "--dtype", "fp32", "--models-dir", str(two_b.root))
    assert result.exit_code == 0, result.stderr
    Path("codes.yaml").write_text(result.stdout)
    codes = spec.load(Path("codes.yaml")).codes or ()
    assert len(codes) == 51  # three frames more than ten seconds, filled up with silence
    assert all(0 <= code < 64_000 for code in codes)
    import torch

    sound = torch.from_numpy(soundfile.read("a.wav", dtype="float32")[0].T)
    with torch.no_grad():
        latents = two_b.vae.encode(sound[None]).latent_dist.mean.transpose(1, 2)
        latents = torch.cat((latents, two_b.silence.transpose(1, 2)[:, : -latents.shape[1] % 5]), dim=1)
        _, expected = (
            two_b.tokenizer.tokenize(latents) if hasattr(two_b.tokenizer, "tokenize") else two_b.tokenizer(latents)
        )
    assert tuple(expected.flatten().tolist()) == codes


def test_write_takes_no_checkpoint(acestep: Acestep, models_dir: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "acestep-5Hz-lm-0.6B").symlink_to(models_dir / "acestep-5Hz-lm-0.6B")
    for idea in (["a soft love song"], ["--from", "draft.yaml"]):
        Path("draft.yaml").write_text("caption: x\nlyrics: la la\n")
        result = acestep("write", *idea, "--models-dir", str(alone), "--seed", "1", "-o", "love.yaml", "--force", "-v")
        assert result.exit_code == 0, result.stderr
        assert spec.load(Path("love.yaml")).caption
        assert "turbo" not in result.stderr


def test_write_needs_the_memory_of_the_songwriter_alone(models_dir: Path) -> None:
    helper = checkpoint_files.Songwriter("0.6B", models_dir / "acestep-5Hz-lm-0.6B")
    run = RenderSettings(models_dir=models_dir, pull=True, max_vram=2 << 30)
    layers = [spec_layers.from_flags({"idea": "x", "model": "base", "songwriter": "0.6B", "duration": "600"})]
    resolved = spec.resolve(*layers)
    job = songwriting.plan_writing(
        resolved, layers, run, frozenset({"songwriter"})
    )  # base would be 4.8 GB, and is not here
    assert job.songwriter == helper
    assert [stage.name for stage in job.plan.stages] == ["write"]


def refuse_memory(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_memory_that_runs_out_while_it_writes_is_said(acestep: Acestep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SongwriterModel, "answer", refuse_memory)
    result = acestep("write", "x", "-o", "a.yaml")
    assert result.exit_code == 4, result.stderr
    assert "ran out of memory on cpu" in result.stderr
    assert "(write)" in result.stderr
    assert not Path("a.yaml").exists()


def test_describing_a_recording_takes_the_memory_fallbacks(acestep: Acestep, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = made(acestep, "-c", "x", "-d", "10", "--seed", "1", "-o", "a.flac", "--no-think")
    plain = acestep("describe", str(path), "--codes").stdout
    tiles: list[int] = []
    encode = codec.encode_waveform

    def fail(vae: Any, waveform: Any, tile: int, *rest: Any) -> Any:
        tiles.append(tile)
        return refuse_memory() if len(tiles) < 3 else encode(vae, waveform, tile, *rest)

    monkeypatch.setattr(codec, "encode_waveform", fail)
    result = acestep("describe", str(path), "--codes")
    assert result.exit_code == 0, result.stderr
    assert "Memory ran out on cpu; from here on sound is decoded in smaller tiles." in result.stderr
    assert tiles == [tiles[0], tiles[0] // 2, tiles[0] // 4]
    one, other = (np.array(yaml.safe_load(text)["codes"]) for text in (plain, result.stdout))
    assert len(one) == len(other)
    assert (one == other).mean() > 0.9  # a code at the edge of its cell may be another after another rounding


# What is refused.


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["write", ""], 2, "The idea is empty."),
        (["write"], 2, "neither an idea nor a spec"),
        (["write", "x", "--from", "y.yaml"], 2, "an idea and a spec"),
        (["write", "x", "--songwriter", "none"], 2, "needs a Songwriter, and songwriter is none"),
        (["write", "x", "--songwriter", "4B"], 3, "acestep models pull 4B"),
        (["write", "x", "-m", "turbo", "--songwriter", "pocket"], 3, "do not use the same codes"),
        (["write", "x", "-o", "a.txt"], 2, "a spec is a .yaml file"),
        (["write", "x", "--temperature", "-1"], 2, "--temperature: -1 is not a number from 0 to 2"),
        (["write", "x" * 9000], 2, "more than the 8,192 it holds"),
        (["write", "--from", "nowhere.yaml"], 2, "nowhere.yaml: cannot be read"),
        (["describe", "nowhere.wav"], 5, "cannot be read"),
        (["describe", "words.txt"], 5, "is not audio"),
        (["describe", "tenth.wav"], 5, "at least 1 s"),
        (["describe", "silence.wav"], 5, "is silent"),
        (["describe", "long.wav"], 5, "10 minutes are the most"),
        (["describe", "two.wav", "-o", "words.yaml"], 9, "exists already"),
        (["generate", "--idea", "x", "--lyrics", "la"], 2, "--idea: excludes lyrics"),
        (["generate", "--idea", "x", "--set", "codes=1,2"], 2, "--idea: excludes codes"),
        (["generate", "--idea", "x", "--songwriter", "none"], 2, "--idea: needs a Songwriter"),
        (["generate", "--idea", "x", "--songwriter", "pocket"], 3, "do not use the same codes"),
        (["generate", "-c", "x", "--songwriter", "0.6B", "-m", "pocket"], 3, "do not use the same codes"),
        (["generate", "-c", "x", "--songwriter", "./words"], 3, "neither a Songwriter's name nor a folder"),
        (["generate", "-c", "x", "--songwriter", "3B"], 2, "is not one of auto, none, pocket, 0.6B"),
        (["generate", "-c", "x", "--songwriter", "0.6B", "--no-think"], 2, "--no-think contradicts --songwriter 0.6B"),
        (["generate", "-c", "x", "--no-think", "--top-k", "5"], 2, "--top-k: has nothing to act on"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_refusals(acestep: Acestep, words: list[str], code: int, sentence: str) -> None:
    Path("words.txt").write_text("These are words.\n")
    Path("words.yaml").write_text("bpm: 90\n")
    tone = np.sin(np.arange(48_000 * 2) / 20)[:, None] * 0.3
    for name, sound in (("tenth", tone[:4800]), ("two", tone), ("silence", np.zeros((480_000, 1)))):
        soundfile.write(f"{name}.wav", sound, 48_000)
    if "long.wav" in words:
        soundfile.write("long.wav", np.ones((1200 * 4000, 1)) * 0.1, 4000)
    result = acestep(*words)
    assert result.exit_code == code, result.stderr
    assert sentence in result.stderr
    assert result.stdout == ""


def test_a_truncated_songwriter_is_named(acestep: Acestep, models_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(models_dir / "acestep-5Hz-lm-0.6B", tmp_path / "mine")
    weights = tmp_path / "mine" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    result = acestep("generate", "-c", "x", "--songwriter", "./mine")
    assert result.exit_code == 3
    assert "is cut short" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_ctrl_c_while_it_writes_leaves_nothing(models_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "acestep_cli", "write", "x", "-o", "a.yaml", "--models-dir", str(models_dir)]
    with started(command, cwd=tmp_path) as run:
        read_to(run.stderr, "Writing")
        time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        assert "Interrupted." in run.communicate(timeout=LIMIT)[1]
    assert run.returncode == 130
    assert not list(tmp_path.iterdir())
