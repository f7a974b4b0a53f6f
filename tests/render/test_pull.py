"""`--pull` of the rendering commands: what is missing comes first, and nothing comes that is not wanted."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import soundfile
from huggingface_hub import constants
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.models import checkpoint_table, checkpoints, model_store
from support import band, tiny
from support.command import Run
from support.hub_server import FETCHED, TURBO, WEIGHTS, Hub, dit, main_repo, weights
from support.places import RESULT_SCHEMA

SONG = ("-c", "a song", "-d", "10", "--seed", "7")


def configs(two_b: tiny.Oracle, folder: str) -> dict[str, bytes]:
    """Configs that memory can be planned by; the DiT's for `folder`."""
    text = "Qwen3-Embedding-0.6B/config.json"
    return {
        f"{folder}config.json": json.dumps(tiny.TWO_B).encode(),
        "vae/config.json": json.dumps(tiny.VAE).encode(),
        text: (two_b.root / text).read_bytes(),
    }


@pytest.fixture
def playable(hub: Hub, two_b: tiny.Oracle) -> Callable[..., None]:
    """Publishes a new state of the main repository that the band can play."""

    def publish(seed: int = 1, **files: bytes) -> None:
        hub.publish(checkpoint_table.MAIN_REPO, {**main_repo(seed), **configs(two_b, f"{TURBO}/"), **files})

    publish()
    for name in ("base", "sft"):
        files = {**dit("", 5), "config.json": json.dumps(tiny.TWO_B).encode()}
        hub.publish(f"ACE-Step/acestep-v15-{name}", files)
    return publish


@pytest.fixture
def acestep(playable: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`acestep …` with the band for a pipeline, an empty cache and a hub at hand."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", band.module())
    return lambda *words: CliRunner().invoke(app, list(words), catch_exceptions=False)


def sent(hub: Hub) -> set[str]:
    """The files of which the hub sent content."""
    return {one.path.partition("/resolve/")[2].partition("/")[2] for one in hub.sends()}


def refused(run: Result, code: int, *said: str) -> None:
    assert run.exit_code == code, run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    for words in said:
        assert words in run.stderr


@pytest.mark.parametrize("where", [(), ("--models-dir", "m")], ids=["cache", "folder"])
def test_what_is_missing_is_fetched_and_the_song_made(acestep: Run, hub: Hub, where: tuple[str, ...]) -> None:
    run = acestep("generate", *SONG, "-m", "turbo", "-o", "a.wav", "--pull", *where)
    assert run.exit_code == 0, run.stderr
    assert run.stdout == "a.wav\n"
    assert sent(hub) == FETCHED
    assert f"turbo: fetching, about 6.34 GB: {TURBO} (4.8 GB), vae (340 MB)" in run.stderr
    assert "100 %" in run.stderr
    assert soundfile.info("a.wav").duration == 10
    checkpoints.find_checkpoint("turbo", Path("m") if where else None)


def test_only_what_is_missing(acestep: Run, hub: Hub, playable: Callable[..., None]) -> None:
    acestep("models", "pull", "turbo", "--models-dir", "m")
    shutil.rmtree("m/vae")
    Path("m", WEIGHTS).write_bytes(main_repo()[WEIGHTS][:100])
    playable(**{"Qwen3-Embedding-0.6B/model.safetensors": weights(33, 300)})
    hub.asked.clear()
    run = acestep("generate", *SONG, "-o", "a.wav", "--pull", "--models-dir", "m")
    assert run.exit_code == 0, run.stderr
    assert sent(hub) == {WEIGHTS, "vae/config.json", "vae/diffusion_pytorch_model.safetensors"}


def test_what_is_whole_is_not_even_asked_for(acestep: Run, hub: Hub, playable: Callable[..., None]) -> None:
    acestep("models", "pull", "turbo")
    hub.asked.clear()
    playable(seed=9)
    for model in ("turbo", "auto", "pocket"):
        assert acestep("generate", *SONG, "-m", model, "-o", f"{model}.wav", "--pull").exit_code == 0
    assert not hub.asked


def test_auto_completes_what_is_there_rather_than_fetch_another(acestep: Run, hub: Hub) -> None:
    acestep("models", "pull", "sft", "--models-dir", "m")
    Path("m/acestep-v15-sft/silence_latent.pt").unlink()
    hub.asked.clear()
    run = acestep("generate", *SONG, "-o", "a.wav", "--pull", "--models-dir", "m")
    assert run.exit_code == 0, run.stderr
    assert sent(hub) == {"silence_latent.pt"}
    assert "sft on " in run.stderr


def test_without_it_nothing_is_fetched(acestep: Run, hub: Hub) -> None:
    run = acestep("generate", *SONG, "-o", "a.wav")
    assert run.exit_code == 0
    advice = "No model is installed, so pocket plays: a sketch. A real one (6.3 GB): acestep models pull turbo"
    assert advice in run.stderr.splitlines()
    refused(acestep("generate", *SONG, "-m", "turbo"), 3, "`acestep models pull turbo` fetches it")
    assert not hub.asked


def test_several_specs_pull_together_and_share(acestep: Run, hub: Hub) -> None:
    for name in ("turbo", "base"):
        Path(f"{name}.yaml").write_text(f"caption: a\nduration: 10\nmodel: {name}\n")
    run = acestep("render", "turbo.yaml", "base.yaml", "-o", "out/", "--pull", "--json")
    assert run.exit_code == 0, run.stderr
    paths = [one.path for one in hub.sends()]
    assert len(paths) == len(set(paths)) == len(FETCHED) + 3
    content = json.loads(run.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    commit = hub.refs[checkpoint_table.MAIN_REPO]["main"]
    found = [(model["name"], model["status"]) for model in content["models"]]
    assert found == [("turbo", "installed"), ("base", "installed")]
    assert content["models"][0]["commit"] == commit


def test_an_album_is_made_of_what_was_pulled(acestep: Run, hub: Hub) -> None:
    Path("album.yaml").write_text(
        "defaults: {duration: 10, model: turbo}\ntracks: [{id: a, caption: a}, {id: b, caption: b}]\n"
    )
    words = ("album.yaml", "-o", "out", "--pull")
    plan = acestep("album", "plan", *words)
    assert plan.exit_code == 0, plan.stderr
    assert "turbo: would be fetched, about 6.34 GB" in plan.stderr
    assert not hub.sends()
    run = acestep("album", "render", *words)
    assert run.exit_code == 0, run.stderr
    assert sent(hub) == FETCHED
    assert "weights: ''" not in Path("out/album/01 a.flac.yaml").read_text()
    hub.asked.clear()
    assert "01 a.flac: kept, for it has the same recipe" in acestep("album", "render", *words).stderr
    assert not hub.asked


def test_an_album_without_a_network_is_refused_before_it_is_begun(
    acestep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    Path("album.yaml").write_text("tracks: [{id: a, caption: a, duration: 10, model: turbo}]\n")
    refused(acestep("album", "render", "album.yaml", "--pull"), 8, "HF_HUB_OFFLINE")


def test_a_dry_run_says_what_would_come_and_how_much(acestep: Run, hub: Hub) -> None:
    run = acestep("generate", *SONG, "-o", "a.wav", "--pull", "--dry-run")
    assert (run.exit_code, run.stdout) == (0, "a.wav\n")
    sizes = f"{TURBO} (4.8 GB), vae (340 MB), Qwen3-Embedding-0.6B (1.2 GB)"
    assert f"turbo: would be fetched, about 6.34 GB: {sizes}" in run.stderr
    assert "turbo on " in run.stderr
    content = json.loads(acestep("generate", *SONG, "-o", "a.wav", "--pull", "--dry-run", "--json").stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    assert [(model["name"], model["status"]) for model in content["models"]] == [("turbo", "absent")]
    assert not hub.asked
    assert not Path("hf").exists()
    assert not Path("a.wav").exists()


def test_a_dry_run_plans_what_is_not_installed(acestep: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    words = (*SONG, "-m", "xl-turbo", "--songwriter", "1.7B", "-o", "a.wav", "--dry-run")
    run = acestep("generate", *words)
    assert (run.exit_code, run.stdout) == (0, "a.wav\n"), run.stderr
    assert "xl-turbo: is not installed; acestep models pull xl-turbo fetches about" in run.stderr
    assert "1.7B: is not installed; acestep models pull 1.7B fetches about" in run.stderr
    assert "Memory of cpu" in run.stderr
    assert "Time: " in run.stderr
    content = json.loads(acestep("generate", *words, "--json").stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    [entry] = content["outputs"]
    assert entry["installed"] is False
    # The weights of the published sizes alone, in the widest format of a processor or a narrower one.
    assert entry["plan"]["peak_bytes"] > 4e9
    assert [(model["name"], model["status"]) for model in content["models"]] == [
        ("xl-turbo", "absent"),
        ("1.7B", "absent"),
    ]
    refused(acestep("generate", *words[:-1]), 3, "acestep models pull xl-turbo")
    plain = json.loads(acestep("generate", *SONG, "-m", "pocket", "--dry-run", "--json").stdout)
    assert plain["outputs"][0]["installed"] is True
    assert not hub.asked


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["render", "dry"])
def test_offline_is_obeyed(acestep: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(acestep("generate", *SONG, "-o", "a.wav", "--pull", *more), 8, "HF_HUB_OFFLINE is set")
    assert not hub.asked


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--bpm", "20"], 2, "bpm"),
        (["--guidance", "5"], 2, "turbo checkpoint"),
        (["--device", "tpu"], 2, "no such device"),
        (["-d", "4"], 2, "too short for turbo"),
        (["-m", "nowhere/at/all"], 3, "neither a checkpoint's name nor a folder"),
        (["--max-vram", "100M", "-d", "600"], 4, "--max-vram"),
        (["-o", "no/a.wav"], 9, "The folder no does not exist"),
        (["-o", "there.wav"], 9, "exists already"),
        (["-o", "x" * 300 + ".wav"], 9, "file name too long"),
        (["missing.yaml"], 2, "missing.yaml"),
        (["--cover", "there.wav"], 2, "cover"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals_come_before_the_first_byte(acestep: Run, hub: Hub, words: list[str], code: int, said: str) -> None:
    Path("there.wav").write_text("theirs")
    refused(acestep("generate", *SONG, "-m", "turbo", "--pull", *words), code, said)
    assert not hub.asked


def test_a_missing_encoder_too(acestep: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    refused(acestep("generate", *SONG, "-o", "a.m4a", "--pull"), 9, "ffmpeg")
    assert not hub.asked


def test_a_song_that_is_there_needs_no_weights(acestep: Run, hub: Hub) -> None:
    song = ("generate", *SONG, "-m", "turbo", "-o", "a.wav", "--pull")
    acestep(*song)
    shutil.rmtree("hf")
    hub.asked.clear()
    run = acestep(*song)
    assert run.exit_code == 0, run.stderr
    assert "kept, for it has the same recipe" in run.stderr
    assert not hub.asked
    refused(acestep(*song, "--bpm", "90"), 9, "with another recipe")  # which no weights can mend
    assert not hub.asked


def test_what_only_the_weights_tell_is_told_after_them(acestep: Run, playable: Callable[..., None]) -> None:
    """One of two takes is gone, and the hub has other weights than those the other take was made with."""
    song = ("generate", *SONG, "-m", "turbo", "-n", "2", "-o", "a.wav", "--pull")
    assert acestep(*song).exit_code == 0
    for name in ("a-2.wav", "a-2.wav.yaml"):
        Path(name).unlink()
    shutil.rmtree("hf")
    playable(seed=9)
    refused(acestep(*song), 9, "a-1.wav exists already with another recipe")
    run = acestep("generate", "a-1.wav.yaml", "-o", "b.wav")
    assert run.exit_code == 0, run.stderr
    assert "other weights of turbo than are installed" in run.stderr


@pytest.mark.parametrize(
    ("goes_wrong", "code", "said"),
    [
        (lambda hub, patch: hub.refusals.update({"/api/": [401] * 9}), 8, "HF_TOKEN"),
        (lambda hub, patch: hub.refusals.update({"/resolve/": [404] * 9}), 8, "HF_ENDPOINT"),
        (lambda hub, patch: hub.wrong.update({WEIGHTS: [weights(666)] * 2}), 3, "has another hash than it names"),
        (lambda hub, patch: patch.setattr(model_store, "free_bytes", lambda folder: 5_000), 9, "--models-dir"),
    ],
    ids=["token", "gone", "wrong", "full"],
)
def test_a_pull_that_fails_ends_the_run(
    acestep: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch, goes_wrong: Callable[..., None], code: int, said: str
) -> None:
    goes_wrong(hub, monkeypatch)
    refused(acestep("generate", *SONG, "-o", "a.wav", "--pull"), code, said)
    assert not Path("a.wav").exists()


def test_a_spec_from_stdin_outlives_the_pull(playable: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stdin can be read once, and a spec on disk may change while gigabytes come."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", band.module())
    words = ["generate", "-", "--lyrics-file", "words.txt", "-o", "a.wav", "--pull"]
    Path("words.txt").write_text("la")
    run = CliRunner().invoke(app, words, input="caption: a\nduration: 10\n", catch_exceptions=False)
    assert run.exit_code == 0, run.stderr
    assert "lyrics: la" in Path("a.wav.yaml").read_text()


def test_the_true_pipeline_plays_what_was_pulled(hub: Hub, two_b: tiny.Oracle) -> None:
    files = {path.relative_to(two_b.root).as_posix(): path.read_bytes() for path in two_b.root.glob("*/*")}
    hub.publish(checkpoint_table.MAIN_REPO, files)
    words = ["generate", *SONG, "--device", "cpu", "--dtype", "fp32", "--no-sidecar"]
    here = CliRunner().invoke(app, [*words, "-o", "b.wav", "--models-dir", str(two_b.root)], catch_exceptions=False)
    assert here.exit_code == 0, here.stderr
    run = CliRunner().invoke(app, [*words, "-o", "a.wav", "--pull"], catch_exceptions=False)
    assert run.exit_code == 0, run.stderr
    assert np.array_equal(soundfile.read("a.wav")[0], soundfile.read("b.wav")[0])


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("moved", [None, "/elsewhere"])
def test_an_answer_without_end_is_not_read_into_memory(
    acestep: Run, hub: Hub, encoding: str, moved: str | None
) -> None:
    hub.endless, hub.moved = encoding, moved
    refused(acestep("models", "pull", "turbo"), 8, "does not answer as a hub does: its answer is longer than")
    assert encoding or hub.endless_sent < 100_000_000


def test_what_a_server_says_is_shown_escaped(acestep: Run, hub: Hub) -> None:
    hub.publish(checkpoint_table.MAIN_REPO, {f"{TURBO}/a\x1b[31m.safetensors": b"x"})
    run = acestep("models", "pull", "turbo")
    refused(run, 8, "\\x1b[31m")
    assert "\x1b" not in run.stderr
