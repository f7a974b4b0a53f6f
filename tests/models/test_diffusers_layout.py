"""Checkpoints in diffusers' layout, as diffusers itself writes them: found, checked, and played to the same samples."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import CheckpointError
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.request import Request
from support import band, tiny
from support.rendering import FLOAT32

SHAPES = {"2b": tiny.TWO_B, "xl": tiny.XL, "base": tiny.BASE}
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
CONDITION = "condition_encoder/diffusion_pytorch_model.safetensors"


def built(root: Path, config: dict[str, Any], shard_size: str | None = None) -> tuple[Path, Path]:
    """The DiT folder of one checkpoint in the published layout, and the folder of the same in diffusers'."""
    oracle = tiny.build(root / "models", {**config, "timbre_fix_frame": 750}, "mine")  # diffusers knows no other
    tiny.pipeline(oracle).save_pretrained(root / "theirs")
    if shard_size is not None:
        (root / "theirs" / TRANSFORMER).unlink()
        oracle.decoder.save_pretrained(root / "theirs" / "transformer", max_shard_size=shard_size)
    return root / "models" / "mine", root / "theirs"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return built(tmp_path_factory.mktemp("layouts"), tiny.TWO_B)


@pytest.fixture
def theirs(published: tuple[Path, Path], tmp_path: Path) -> Path:
    """A folder in diffusers' layout of one's own to break."""
    return Path(shutil.copytree(published[1], tmp_path / "theirs"))


def samples(folder: Path, **asked: Any) -> np.ndarray:
    found = checkpoints.find_checkpoint(str(folder))
    asked = {"caption": "a song", "lyrics": "la", "model": str(folder), "seed": 7, "duration": 10, **asked}
    request = complete.complete(Request(**asked), found)
    (take,) = Pipeline(found, FLOAT32).run([request], lambda stage, done, total: None)
    assert take.warnings == ()
    return take.audio.samples


@pytest.mark.parametrize("shape", SHAPES)
def test_a_render_equals_that_from_the_published_layout(tmp_path: Path, shape: str) -> None:
    ours, theirs = built(tmp_path, SHAPES[shape])
    codes = [7, 900, 63_999] * 17
    guided = {"guidance": 3} if shape == "base" else {}
    for asked in ({}, {"codes": codes, "duration": None}):
        assert np.array_equal(samples(ours, **guided | asked), samples(theirs, **guided | asked))


def test_shards_hold_the_same_weights(tmp_path: Path) -> None:
    ours, theirs = built(tmp_path, tiny.XL, shard_size="400KB")
    assert len(list((theirs / "transformer").glob("*.safetensors"))) > 2
    with load(ours).dit() as one, load(theirs).dit() as other:
        weights = other.state_dict()
        assert all(torch.equal(weight, weights[name]) for name, weight in one.state_dict().items())
    # A file's weights are used where they lie, and where they lie decides how a product is rounded.
    np.testing.assert_allclose(samples(ours), samples(theirs), atol=1e-4)


def test_weights_are_poured_into_the_plan_s_dtype(theirs: Path) -> None:
    file = theirs / TRANSFORMER
    save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    with load(theirs).dit() as model:
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def load(folder: Path) -> WeightStore:
    """A store that has lent every component once."""
    weights = WeightStore(checkpoints.find_checkpoint(str(folder)), FLOAT32, lambda stage, done, total: None)
    with weights.dit(), weights.vae(), weights.text_encoder():
        pass
    return weights


def test_the_kind_is_told_by_the_config_or_the_name(theirs: Path) -> None:
    assert checkpoints.find_checkpoint(str(theirs)).row.steps == 8
    file = theirs / "transformer/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "is_turbo": False, "model_version": "base"}))
    row = checkpoints.find_checkpoint(str(theirs)).row
    assert (row.steps, row.guidance, "extract" in row.tasks) == (50, 7.0, True)
    named = theirs.rename(theirs.with_name("acestep-v15-xl-turbo-diffusers"))
    assert checkpoints.find_checkpoint(str(named)).row is checkpoint_table.CHECKPOINTS["xl-turbo"]


@pytest.mark.parametrize("folder", ["acestep-v15-sft", "acestep-v15-sft-diffusers"])
def test_in_a_models_folder(theirs: Path, tmp_path: Path, folder: str) -> None:
    (tmp_path / "m").mkdir()
    theirs.rename(tmp_path / "m" / folder)
    found = checkpoints.find_checkpoint("sft", tmp_path / "m")
    assert found.dit == tmp_path / "m" / folder
    assert (
        checkpoints.find_checkpoint("auto", tmp_path / "m") == found == checkpoints.find_or_plan("sft", tmp_path / "m")
    )
    assert found.code_count == 64_000


def test_the_published_layout_comes_first(published: tuple[Path, Path], tmp_path: Path) -> None:
    models = Path(shutil.copytree(published[0].parent, tmp_path / "m"))
    (models / "mine").rename(models / "acestep-v15-sft")
    shutil.copytree(published[1], models / "acestep-v15-sft-diffusers")
    assert checkpoints.find_checkpoint("sft", models).dit == models / "acestep-v15-sft"


def test_in_the_cache(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    storage = tmp_path / "hub" / "models--ACE-Step--acestep-v15-xl-turbo-diffusers"
    shutil.copytree(theirs, storage / "snapshots" / "abc")
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text("abc")
    assert (
        checkpoints.find_checkpoint("xl-turbo").dit
        == checkpoints.find_checkpoint("auto").dit
        == storage / "snapshots" / "abc"
    )


# What is wrong with a folder is said before torch is loaded.


def refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.find_checkpoint(str(folder))
    assert caught.value.exit_code == 3
    assert caught.value.hint
    return caught.value


PARTS = ("transformer", "condition_encoder", "audio_tokenizer", "audio_token_detokenizer", "vae", "text_encoder")


@pytest.mark.parametrize("part", [*PARTS, "tokenizer"])
def test_a_missing_folder_is_named(theirs: Path, part: str) -> None:
    shutil.rmtree(theirs / part)
    message = refusal(theirs).message
    assert str(theirs / part) in message
    assert "incomplete" in message


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_without_weights_is_named(theirs: Path, part: str) -> None:
    [file] = (theirs / part).glob("*.safetensors")
    file.unlink()
    assert f"{theirs / part} holds no model.safetensors" in refusal(theirs).message


@pytest.mark.parametrize("part", PARTS)
def test_a_cut_file_is_named(theirs: Path, part: str) -> None:
    [file] = (theirs / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    assert f"{file} is cut short" in refusal(theirs).message


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    _, theirs = built(tmp_path, tiny.TWO_B, shard_size="400KB")
    shard = max((theirs / "transformer").glob("*.safetensors"))
    shard.unlink()
    assert str(shard) in refusal(theirs).message


def test_another_pipeline_is_told_by_its_name(theirs: Path) -> None:
    file = theirs / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": "StableAudioPipeline"}))
    shutil.rmtree(theirs / "transformer")
    message = refusal(theirs).message
    assert f"{file} describes a folder of StableAudioPipeline" in message
    assert "AceStepPipeline" in message


@pytest.mark.parametrize("part", PARTS[:-1])
def test_a_part_of_another_class_is_named(theirs: Path, part: str) -> None:
    file = theirs / part / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": "UNet2DModel"}))
    assert f"{file} describes a folder of UNet2DModel" in refusal(theirs).message


@pytest.mark.parametrize("name", ["model_index.json", *(f"{part}/config.json" for part in PARTS)])
def test_a_web_page_instead_of_a_config(theirs: Path, name: str) -> None:
    (theirs / name).write_text("<html></html>")
    assert f"{theirs / name} is not JSON" in refusal(theirs).message


def test_parts_of_different_models_are_told_apart(theirs: Path) -> None:
    file = theirs / "vae/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "decoder_input_channels": 7}))
    assert "its decoder_input_channels is 7" in refusal(theirs).message


def test_silence_is_no_part_of_the_weights_but_must_be_there(theirs: Path) -> None:
    tensors = load_file(theirs / CONDITION)
    del tensors["silence_latent"]
    save_file(tensors, theirs / CONDITION)
    assert "lacks the tensor silence_latent" in refusal(theirs).message
    save_file({**tensors, "silence_latent": torch.zeros(1, 10, 5)}, theirs / CONDITION)
    with pytest.raises(CheckpointError, match=r"\[1, 8, frames\] of real numbers, not \[1, 5, 10\]"):
        _ = Pipeline(checkpoints.find_checkpoint(str(theirs)), FLOAT32).silence


def test_missing_and_unknown_tensors_are_named_as_published(theirs: Path) -> None:
    tensors = load_file(theirs / TRANSFORMER)
    save_file({**tensors, "layers.0.self_attn.to_k.extra": torch.zeros(1)}, theirs / TRANSFORMER)
    (warning,) = load(theirs).warnings
    assert "1 tensor (decoder.layers.0.self_attn.k_proj.extra)" in warning
    del tensors["layers.1.cross_attn.to_out.0.weight"]
    save_file(tensors, theirs / TRANSFORMER)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor \(decoder.layers.1.cross_attn.o_proj.weight\)"):
        load(theirs)


def test_the_hash_follows_every_file(theirs: Path) -> None:
    hashes = {checkpoints.find_checkpoint(str(theirs)).weights_hash}
    for part in PARTS:
        [file] = (theirs / part).glob("*.safetensors")
        save_file({name: tensor + 1e-3 for name, tensor in load_file(file).items()}, file)
        hashes.add(checkpoints.find_checkpoint(str(theirs)).weights_hash)
    tokenizer = theirs / "tokenizer/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    hashes.add(checkpoints.find_checkpoint(str(theirs)).weights_hash)
    assert len(hashes) == len(PARTS) + 2


# From the command line


@pytest.fixture
def models(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with nothing but sft in it, in diffusers' layout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", band.module())
    (tmp_path / "m").mkdir()
    return theirs.rename(tmp_path / "m" / "acestep-v15-sft-diffusers")


def acestep(*words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--models-dir", "m"], catch_exceptions=False)


def test_a_song_is_made_with_it_and_its_recipe_kept(models: Path) -> None:
    song = ("generate", "-c", "a song", "-d", "10", "-o", "a.wav")
    run = acestep(*song, "--pull")
    assert run.exit_code == 0, run.stderr
    assert "sft on " in run.stderr
    assert "kept, for it has the same recipe" in acestep(*song).stderr
    (models / "transformer/config.json").unlink()
    run = acestep(*song)
    assert run.exit_code == 3
    assert "m/acestep-v15-sft-diffusers/transformer/config.json is missing" in run.stderr


def test_the_doctor_proves_it(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    run = CliRunner().invoke(app, ["doctor", "--selftest", "sft", "--models-dir", str(models.parent)])
    assert run.exit_code == 0, run.stderr
    assert "prompts end with token" in run.stderr + run.stdout


def test_the_models_commands_know_it(models: Path) -> None:
    whole = sum(path.stat().st_size for path in models.rglob("*") if path.is_file())
    listed = {model["name"]: model for model in json.loads(acestep("models", "list", "--json").stdout)["models"]}
    assert (listed["sft"]["status"], listed["sft"]["bytes"]) == ("installed", whole)
    assert acestep("models", "path", "sft").stdout == "m/acestep-v15-sft-diffusers\n"
    run = acestep("models", "verify", "sft")
    assert run.exit_code == 3
    assert "is in diffusers' layout" in run.stderr
    shutil.rmtree(models / "vae")
    assert acestep("models", "list").stdout.splitlines()[4].split()[:2] == ["sft", "partial"]
