"""Finding checkpoints and refusing broken ones, each with its sentence; no torch is needed for these."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from acestep_cli.engine import weights as store
from acestep_cli.engine.text_encoder import TextEncoder
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import CheckpointError
from acestep_cli.machine import plan as planning
from acestep_cli.models import checkpoints
from support import tiny

DIT = "acestep-v15-turbo"
WEIGHTS = f"{DIT}/model.safetensors"


@pytest.fixture
def models(two_b: tiny.Oracle, tmp_path: Path) -> Path:
    """A models folder of one's own to break."""
    return Path(shutil.copytree(two_b.root, tmp_path / "models"))


def refusal(models: Path, model: str = "turbo") -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.find_checkpoint(model, models)
    assert caught.value.exit_code == 3
    assert caught.value.hint
    return caught.value


def load(models: Path, model: str = "turbo") -> WeightStore:
    found = checkpoints.find_checkpoint(model, models)
    plan = planning.Plan(device="cpu", dtype="float32", tile_frames=64, reasons={})
    weights = WeightStore(found, plan, lambda stage, done, total: None)
    with weights.dit(), weights.vae(), weights.text_encoder():
        assert weights.resident == {"dit", "vae", "text"}
    weights.close()
    assert not weights.resident
    return weights


def test_by_name_by_folder_and_auto(models: Path) -> None:
    by_name = checkpoints.find_checkpoint("turbo", models)
    assert by_name == checkpoints.find_checkpoint(str(models / DIT)) == checkpoints.find_checkpoint("auto", models)
    assert by_name.row.turbo
    assert by_name.code_count == 64_000


def test_a_folder_of_any_name_tells_its_kind_by_its_config(models: Path) -> None:
    (models / DIT).rename(models / "mine")
    assert checkpoints.find_checkpoint(str(models / "mine")).row.steps == 8
    config = json.loads((models / "mine/config.json").read_text())
    (models / "mine/config.json").write_text(json.dumps({**config, "is_turbo": False, "model_version": "base"}))
    row = checkpoints.find_checkpoint(str(models / "mine")).row
    assert (row.steps, row.guidance, "extract" in row.tasks) == (50, 7.0, True)


def test_auto_falls_back_to_the_built_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_assemble_checkpoint", lambda name, row, dit, models_dir: name)
    assert checkpoints.find_checkpoint("auto", tmp_path) == "pocket"


def test_not_installed_names_the_folder_and_the_way_out(models: Path) -> None:
    error = refusal(models, "xl-base")
    assert "acestep-v15-xl-base/" in error.message
    assert "pocket" in (error.hint or "")


def test_no_such_models_folder(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere").message


@pytest.mark.parametrize(
    "file",
    [WEIGHTS, f"{DIT}/config.json", f"{DIT}/silence_latent.pt", "vae/config.json",
     "vae/diffusion_pytorch_model.safetensors", "Qwen3-Embedding-0.6B/model.safetensors",
     "Qwen3-Embedding-0.6B/tokenizer.json"],
)  # fmt: skip
def test_a_missing_file_is_named(models: Path, file: str) -> None:
    (models / file).unlink()
    message = refusal(models).message
    assert str(models / file) in message or str((models / file).parent) in message
    assert "incomplete" in message


@pytest.mark.parametrize("folder", ["vae", "Qwen3-Embedding-0.6B"])
def test_a_missing_component_is_named(models: Path, folder: str) -> None:
    shutil.rmtree(models / folder)
    assert folder in refusal(models).message


def test_a_truncated_file(models: Path) -> None:
    data = (models / WEIGHTS).read_bytes()
    (models / WEIGHTS).write_bytes(data[:-100])
    error = refusal(models)
    assert f"{len(data):,}" in error.message
    assert "cut short" in error.message


@pytest.mark.parametrize("size", [0, 5, 100])
def test_a_file_cut_within_its_header(models: Path, size: int) -> None:
    (models / WEIGHTS).write_bytes((models / WEIGHTS).read_bytes()[:size])
    assert "not a safetensors file" in refusal(models).message


def test_a_web_page_instead_of_weights(models: Path) -> None:
    (models / WEIGHTS).write_text("<!DOCTYPE html><html><body>404</body></html>")
    assert "web page" in refusal(models).message


def test_a_web_page_instead_of_a_config(models: Path) -> None:
    (models / DIT / "config.json").write_text("<html></html>")
    assert "web page" in refusal(models).message


def test_a_broken_header(models: Path) -> None:
    (models / WEIGHTS).write_bytes(struct.pack("<Q", 8) + b"nonsense" + bytes(64))
    assert "broken safetensors header" in refusal(models).message


def test_a_missing_shard_is_named(tmp_path: Path, two_b: tiny.Oracle) -> None:
    models = Path(shutil.copytree(two_b.root, tmp_path / "models"))
    shutil.rmtree(models / DIT)
    tiny.build_dit(models / DIT, tiny.TWO_B, shards=3)
    load(models)
    shard = models / DIT / "model-00002-of-00003.safetensors"
    shard.unlink()
    assert str(shard) in refusal(models).message


@pytest.mark.parametrize("config", [tiny.TWO_B, tiny.XL], ids=["2b", "xl"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_published_layout_loads(
    tmp_path: Path, two_b: tiny.Oracle, config: dict, shards: int, dtype: torch.dtype
) -> None:
    models = Path(shutil.copytree(two_b.root, tmp_path / "models", ignore=shutil.ignore_patterns(DIT)))
    tiny.build_dit(models / DIT, config, shards=shards, dtype=dtype)
    assert load(models).warnings == []


def test_missing_tensors_are_named(models: Path) -> None:
    tensors = load_file(models / WEIGHTS)
    del tensors["decoder.layers.1.mlp.up_proj.weight"]
    save_file(tensors, models / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor \(decoder.layers.1.mlp.up_proj.weight\)"):
        load(models)


def test_misshapen_tensors_are_named(models: Path) -> None:
    tensors = load_file(models / WEIGHTS)
    tensors["null_condition_emb"] = torch.zeros(1, 1, 7)
    save_file(tensors, models / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"null_condition_emb is \[1, 1, 7\], not \[1, 1, 64\]"):
        load(models)


def test_unknown_tensors_are_one_warning(models: Path) -> None:
    tensors = load_file(models / WEIGHTS)
    save_file({**tensors, "decoder.extra.weight": torch.zeros(1), "more": torch.zeros(1)}, models / WEIGHTS)
    (warning,) = load(models).warnings
    assert "2 tensors (" in warning
    assert "decoder.extra.weight" in warning


def test_code_in_a_pickle_is_never_run(models: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple:
            return Path.touch, (marker,)

    file = models / DIT / "silence_latent.pt"
    for write in (lambda: torch.save(Payload(), file), lambda: file.write_bytes(pickle.dumps(Payload()))):
        write()
        with pytest.raises(CheckpointError, match="was not run"):
            store.load_silence(file, tiny.LATENT_CHANNELS)
    assert not marker.exists()


def test_silence_of_the_wrong_shape(models: Path) -> None:
    file = models / DIT / "silence_latent.pt"
    torch.save(torch.zeros(1, 5, 10), file)
    with pytest.raises(CheckpointError, match=r"\[1, 5, 10\]"):
        store.load_silence(file, tiny.LATENT_CHANNELS)


def test_a_tokenizer_that_does_not_close_its_prompts(models: Path) -> None:
    file = models / "Qwen3-Embedding-0.6B/tokenizer.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "post_processor": None}))
    with pytest.raises(CheckpointError, match="does not end a prompt"):
        load(models)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_act": "gelu"}, "hidden_act: Input should be 'silu'"),
        ({"fsq_input_num_quantizers": 2}, "fsq_input_num_quantizers: Input should be 1"),
        ({"hidden_size": None}, "hidden_size: Field required"),
        ({"head_dim": "wide"}, "head_dim: .*integer"),
        ({"sliding_window": 0}, "sliding_window: .*greater than or equal to 1"),
        ({"layer_types": ["full_attention"]}, "names 1 of 4 layers"),
        ({"fsq_input_levels": [8, 1]}, "fsq_input_levels: 1: .*greater than"),
        ({"in_channels": 7}, "three times"),
    ],
)
def test_configs_this_engine_cannot_run(models: Path, change: dict, sentence: str) -> None:
    (models / DIT / "config.json").write_text(json.dumps({**tiny.TWO_B, **change}))
    with pytest.raises(CheckpointError, match=sentence):
        load(models)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"downsampling_ratios": [2, 4]}, "different lengths"),
        ({"downsampling_ratios": [2, 4, 4, 5, 12]}, "odd downsampling ratio"),
        ({"decoder_channels": "128k"}, "decoder_channels: .*integer"),
        ({"sampling_rate": None}, "sampling_rate: .*integer"),
    ],
)
def test_autoencoder_configs_that_cannot_be(models: Path, change: dict, sentence: str) -> None:
    (models / "vae/config.json").write_text(json.dumps({**tiny.VAE, **change}))
    with pytest.raises(CheckpointError, match=sentence):
        load(models)


@pytest.mark.parametrize(
    ("file", "key"),
    [("vae/config.json", "decoder_input_channels"), ("Qwen3-Embedding-0.6B/config.json", "hidden_size")],
)
def test_folders_of_different_models_are_told_apart(models: Path, file: str, key: str) -> None:
    content = json.loads((models / file).read_text())
    (models / file).write_text(json.dumps({**content, key: 7}))
    message = refusal(models).message
    assert "does not belong to" in message
    assert f"its {key} is 7" in message


@pytest.mark.parametrize(
    "header",
    ["[]", '{"a": 1}', '{"a": {"shape": [1]}}', '{"a": {"shape": [1], "data_offsets": [0]}}',
     '{"a": {"shape": "x", "data_offsets": [0, 4]}}'],
)  # fmt: skip
def test_odd_headers(models: Path, header: str) -> None:
    (models / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))
    assert "broken safetensors header" in refusal(models).message


@pytest.mark.parametrize("shards", [None, [], {}, {"a": 1}, "x"])
def test_an_index_without_shards(models: Path, shards: object) -> None:
    (models / DIT / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert "names no shards" in refusal(models).message


@pytest.mark.parametrize("content", ["", "<html></html>", "{}"])
def test_a_broken_tokenizer(models: Path, content: str) -> None:
    (models / "Qwen3-Embedding-0.6B/tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not (a tokenizer|JSON)"):
        load(models)


def test_limits_within_a_tokenizer_file_are_not_obeyed(models: Path) -> None:
    folder = models / "Qwen3-Embedding-0.6B"
    plain = TextEncoder(folder).tokenizer
    limited = Tokenizer.from_file(str(folder / "tokenizer.json"))
    limited.enable_truncation(4)
    limited.enable_padding(length=64)
    limited.save(str(folder / "tokenizer.json"))
    text = "a prompt of more than four tokens"
    assert TextEncoder(folder).tokenizer.encode(text).ids == plain.encode(text).ids


def test_an_odd_text_config(models: Path) -> None:
    file = models / "Qwen3-Embedding-0.6B/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_attention_heads": "two"}))
    with pytest.raises(CheckpointError, match=r"does not describe a (Qwen3 )?model"):
        load(models)


@pytest.mark.parametrize("content", [b"", b"<html></html>"])
def test_a_silence_that_is_no_tensor(models: Path, content: bytes) -> None:
    file = models / DIT / "silence_latent.pt"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="was not run") as caught:
        store.load_silence(file, tiny.LATENT_CHANNELS)
    assert "weights_only" not in str(caught.value)


def test_an_unreadable_file_is_named(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, reading = models / WEIGHTS, Path.open

    def refuse(self: Path, *args: object) -> object:
        if self == file:
            raise PermissionError(13, "Permission denied")
        return reading(self, *args)

    monkeypatch.setattr(Path, "open", refuse)
    assert f"{file} cannot be read: permission denied" in refusal(models).message


def test_weight_norm_is_folded_in_float32_whatever_is_on_disk(models: Path) -> None:
    file = models / "vae/diffusion_pytorch_model.safetensors"
    rounded = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(rounded, file)
    found = checkpoints.find_checkpoint("turbo", models)
    plan = planning.Plan(device="cpu", dtype="float32", tile_frames=64, reasons={})
    with WeightStore(found, plan, lambda stage, done, total: None).vae() as vae:
        weight = vae.decoder.conv1.weight
    gain, direction = (rounded[f"decoder.conv1.weight_{part}"].float() for part in "gv")
    torch.testing.assert_close(weight.data, gain * direction / direction.norm(dim=(1, 2), keepdim=True))


def test_the_hash_follows_the_weights(models: Path) -> None:
    before = checkpoints.find_checkpoint("turbo", models).weights_hash
    assert before == checkpoints.find_checkpoint("turbo", models).weights_hash
    tensors = load_file(models / WEIGHTS)
    save_file({name: tensor + 1e-3 for name, tensor in tensors.items()}, models / WEIGHTS)
    after = checkpoints.find_checkpoint("turbo", models).weights_hash
    torch.save(torch.zeros(1, tiny.LATENT_CHANNELS, 400), models / DIT / "silence_latent.pt")
    assert len({before, after, checkpoints.find_checkpoint("turbo", models).weights_hash}) == 3
