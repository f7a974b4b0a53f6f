"""`acestep doctor`: what it says of invented machines, and what its selftest finds in broken checkpoints."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.machine import hardware
from acestep_cli.machine.fallbacks import LADDER
from acestep_cli.machine.hardware import GIB, Device, Hardware
from acestep_cli.machine.tiers import TIERS, Tier
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.render import selftest
from support import tiny
from support.command import loaded
from support.places import RESULT_SCHEMA

CPU = Device("cpu", "cpu", "a processor", 16 * GIB, 14 * GIB, ("float32",), "no bfloat16 here")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def examined(monkeypatch: pytest.MonkeyPatch, *devices: Device, arguments: tuple[str, ...] = ()) -> dict:
    built = next((device.backend for device in devices if device.backend != "cpu"), None)
    monkeypatch.setattr(hardware, "detect", lambda: Hardware(devices, built))
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["doctor"]


def test_a_card_is_chosen_with_reasons_and_its_tier_named(monkeypatch: pytest.MonkeyPatch) -> None:
    card = hardware.cuda_device(0, "a card", (7, 5), 8 * GIB, 7 * GIB)
    found = examined(monkeypatch, card, CPU)
    assert [device["name"] for device in found["devices"]] == ["cuda:0", "cpu"]
    assert (found["chosen"]["device"], found["chosen"]["dtype"]) == ("cuda:0", "float16")
    assert "7.5" in found["chosen"]["reasons"]["dtype"]
    assert found["tier"] == {"memory_gb": 8, "minutes": 10, "takes": 4, "songwriter": "0.6B"}


def test_a_machine_with_nothing_free_is_described_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, replace(CPU, free_bytes=GIB // 4))
    assert found["chosen"]["device"] is None
    assert "do not fit into cpu" in found["chosen"]["problem"]
    assert "Nothing can be rendered" in run().stdout


def test_a_models_folder_that_is_none_is_no_reason_to_fail(tmp_path: Path) -> None:
    result = run("--models-dir", str(tmp_path / "nowhere"))
    assert result.exit_code == 0, result.stderr
    assert "pocket            installed" in result.stdout


def test_what_fits_depends_on_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (
        {entry["name"]: entry for entry in examined(monkeypatch, replace(CPU, free_bytes=size * GIB))["checkpoints"]}
        for size in (3, 64)
    )
    assert small["pocket"]["status"] == large["pocket"]["status"] == "installed"
    assert small["pocket"]["longest_seconds"] == large["xl-base"]["longest_seconds"] == 600
    assert small["xl-base"]["longest_seconds"] is None
    capped = examined(monkeypatch, replace(CPU, free_bytes=64 * GIB), arguments=("--max-vram", "3G"))
    assert next(entry for entry in capped["checkpoints"] if entry["name"] == "xl-base")["longest_seconds"] is None


def test_people_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, hardware.cuda_device(0, "a card", (8, 6), 6 * GIB, 5 * GIB), CPU)
    said = run().stdout
    for expected in (
        "a card",
        "Renders use cuda:0",
        "at least 10 minutes, 2 takes",
        *found["ladder"],
        found["logbook"],
    ):
        assert expected in said
    lines = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "int8" in lines["xl-turbo"]
    assert "does not fit" not in lines["turbo"]


def pretended(device: str, *arguments: str) -> dict[str, Any]:
    """The findings of `--pretend`, with the checkpoints by name."""
    result = run("--pretend", device, "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    found: dict[str, Any] = content["doctor"]
    return found | {"by_name": {entry["name"]: entry for entry in found["checkpoints"]}}


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: f"{tier.memory_gb}G")
def test_pretended_cards_can_do_what_the_guide_promises(tier: Tier) -> None:
    found = pretended(f"cuda:{tier.memory_gb}G")
    turbo = found["by_name"]["turbo"]
    assert found["tier"]["memory_gb"] == tier.memory_gb
    assert turbo["longest_seconds"] >= 60 * tier.minutes
    # On 6 GB the weights just fit without int8, and takes of the longest song are made one by one.
    assert turbo["takes_at_once"] >= (tier.takes if tier.memory_gb > 6 else 1)
    sizes = [None, *checkpoint_table.SONGWRITERS]
    assert sizes.index(turbo["songwriter"]) >= sizes.index(tier.songwriter)


def test_a_pretended_device_says_by_which_fallbacks() -> None:
    small, large = (pretended(device)["by_name"]["xl-turbo"] for device in ("cuda:4G", "cuda:80G"))
    assert small["fallbacks"] == [LADDER[at].sentence for at in (2, 3, 4, 5)]
    assert large["fallbacks"] == []
    assert small["peak_bytes"] < 4 * GIB < large["peak_bytes"]
    assert large["songwriter"] == "4B"


@pytest.mark.parametrize(
    ("device", "name", "usable", "dtype"),
    [
        ("cuda:8G", "cuda:0", 8.0, "bfloat16"),
        ("ROCm:16GB", "cuda:0", 16.0, "bfloat16"),
        ("xpu:16GiB", "xpu:0", 16.0, "bfloat16"),
        ("mps:24G", "mps", 16.0, "float32"),
        ("cpu:32G", "cpu", 32.0, "float32"),
    ],
)
def test_any_backend_and_size(device: str, name: str, usable: float, dtype: str) -> None:
    found = pretended(device)
    [only] = found["devices"]
    assert (only["name"], only["dtypes"][0], found["chosen"]["dtype"]) == (name, dtype, dtype)
    assert only["total_bytes"] == pytest.approx(usable * GIB, abs=1)


def test_a_pretended_device_is_read_by_people_too() -> None:
    said = run("--pretend", "cuda:4G").stdout
    assert "What fits on a pretended cuda of 4G, all of it free, in bfloat16" in said
    assert "turbo, turbo-shift1, turbo-shift3, turbo-continuous, sft, base:\n    songs up to 10:00" in said
    assert f"- {LADDER[4].sentence}" in said
    assert "does not fit" in run("--pretend", "cuda:1G").stdout
    assert run("--pretend", "cuda:100M").exit_code == 0  # where not even the built-in model does
    capped = run("--pretend", "cuda:24G", "--max-vram", "3G").stdout
    assert LADDER[4].sentence in capped
    assert LADDER[4].sentence not in run("--pretend", "cuda:24G").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tpu:8G"], "--pretend tpu:8G: is not BACKEND:SIZE, with one of cuda, rocm, xpu, mps, cpu."),
        (["cuda"], "--pretend cuda: is not BACKEND:SIZE"),
        (["cuda:much"], "--pretend cuda:much: 'much' is not a size such as 8G"),
        (["cuda:0G"], "--pretend cuda:0G: no device has no memory."),
        (["cuda:8G", "--device", "cpu"], "--pretend excludes --device"),
        (["cuda:8G", "--selftest", "pocket"], "--pretend excludes --selftest"),
    ],
)
def test_what_cannot_be_pretended(arguments: list[str], sentence: str) -> None:
    result = run("--pretend", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in " ".join(result.stderr.split())


def test_it_loads_no_torch() -> None:
    assert loaded("doctor", "--pretend", "cuda:8G") == (0, [])
    assert loaded("doctor") == (0, [])
    assert loaded("doctor", "--selftest", "turbo", "--models-dir", "/nowhere") == (3, [])


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_an_encoder_that_does_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/nowhere/interpreter\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "does not answer" in str(examined(monkeypatch, CPU)["encoders"]["m4a"])
    program.write_text("#!/bin/sh\necho ffmpeg version 9.9 and so on\n")
    assert examined(monkeypatch, CPU)["encoders"]["m4a"] == "ffmpeg version 9.9"


def test_a_device_that_is_not_here_is_refused() -> None:
    result = run("--device", "cuda:5")
    assert result.exit_code == 2
    assert "no such device" in result.stderr


def test_selftest_of_the_built_in_checkpoint() -> None:
    result = run("--selftest", "pocket", "--json")
    assert result.exit_code == 0, result.stderr
    checks = json.loads(result.stdout)["selftest"]["checks"]
    names = ["names", "tokens", "silence", "weights", "networks", "render"]
    assert [check["name"] for check in checks] == names
    assert all(check["ok"] for check in checks)


@pytest.fixture
def models(tmp_path: Path, two_b: tiny.Oracle) -> Path:
    return Path(shutil.copytree(two_b.root, tmp_path / "models"))


def broken(models: Path, change: object, file: str = "acestep-v15-turbo/model.safetensors") -> Result:
    weights = load_file(models / file)
    assert callable(change)
    change(weights)
    save_file(weights, models / file)
    return run("--selftest", "turbo", "--models-dir", str(models))


@pytest.mark.parametrize("file", ["acestep-v15-turbo/model.safetensors", "Qwen3-Embedding-0.6B/model.safetensors"])
def test_a_number_that_is_none_is_found(models: Path, file: str) -> None:
    names: list[str] = []

    def spoil(weights: dict[str, torch.Tensor]) -> None:
        names.append(sorted(weights)[len(weights) // 2])
        weights[names[0]].view(-1)[0] = float("nan")

    result = broken(models, spoil, file)
    assert result.exit_code == 3
    assert f"{names[0]} in {models / file} holds numbers that are not finite" in result.stderr
    assert "FAILED  weights" in result.stdout


def test_a_missing_tensor_is_named(models: Path) -> None:
    result = broken(models, lambda weights: weights.pop("decoder.proj_in.1.bias"))
    assert result.exit_code == 3
    assert "lacks 1 tensor (decoder.proj_in.1.bias)" in result.stderr


def test_silence_that_is_none_is_found(models: Path) -> None:
    torch.save(torch.full((1, tiny.LATENT_CHANNELS, 50), float("inf")), models / "acestep-v15-turbo/silence_latent.pt")
    result = run("--selftest", "turbo", "--models-dir", str(models))
    assert result.exit_code == 3
    assert "silence_latent.pt holds numbers that are not finite" in result.stderr


def test_a_published_size_with_another_number_of_tensors(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = selftest.Sizes.of(checkpoints.find_checkpoint("turbo", two_b.root)).dit
    monkeypatch.setattr(selftest, "PUBLISHED_2B", sizes)
    result = run("--selftest", "turbo", "--models-dir", str(two_b.root))
    assert result.exit_code == 3
    assert "published checkpoints of its size hold 677" in result.stderr


def test_a_render_that_is_no_music_is_code_6(models: Path) -> None:
    file = "vae/diffusion_pytorch_model.safetensors"
    result = broken(models, lambda weights: weights["decoder.conv2.weight_g"].mul_(1e-6), file)
    assert result.exit_code == 6
    assert "too quiet to be music" in result.stderr


def test_selftest_wants_one_name() -> None:
    assert run("--selftest", "auto").exit_code == 2
    assert run("--selftest", "").exit_code == 2
    assert run("--selftest", "nosuch").exit_code == 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda tensors: tensors.pop("norm.weight"), "lacks 1 tensor (norm.weight)"),
        (lambda tensors: tensors.update({"norm.weight": torch.ones(3)}), "another shape"),
        (lambda tensors: tensors.update({"model.norm.weight": tensors["norm.weight"].clone()}), "in two spellings"),
    ],
    ids=["lacks", "shape", "both"],
)
def test_a_broken_songwriter_is_found(
    two_b: tiny.Oracle, tmp_path: Path, spoil: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    models = tmp_path / "models"
    shutil.copytree(two_b.root, models)
    tiny.build_songwriter(models / "acestep-5Hz-lm-0.6B")
    file = models / "acestep-5Hz-lm-0.6B" / "model.safetensors"
    tensors = load_file(file)
    spoil(tensors)
    save_file(tensors, file)
    result = run("--selftest", "turbo", "--models-dir", str(models), "--dtype", "fp32")
    assert result.exit_code == 3, result.output
    assert said in " ".join(result.output.split())
