"""The memory model: its counts against the modules themselves, and what makes it grow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import Qwen3Config, Qwen3Model

from acestep_cli.engine.dit import AceStep
from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.machine import hardware, memory, plan
from acestep_cli.machine.memory import Arrangement, MemoryModel, Workload
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.configs import DiTConfig, QwenConfig, VAEConfig
from acestep_cli.models.sizes import PUBLISHED_2B, PUBLISHED_TEXT, PUBLISHED_XL, Sizes
from acestep_cli.song import complete
from acestep_cli.song.request import Request
from support import tiny

FULL = Arrangement(on_cpu=False, dtype="bfloat16", tile_frames=256)
SONG = Workload(frames=1500, text_tokens=100, lyric_tokens=500)
TURBO = Sizes.published("turbo")


def parameters(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("config", "published"),
    [(DiTConfig.from_dict(tiny.TWO_B), None), (DiTConfig.from_dict(tiny.XL), None),
     (PUBLISHED_2B, 2_393_872_518), (PUBLISHED_XL, 4_987_310_726)],
    ids=["tiny 2B", "tiny XL", "2B", "XL"],
)  # fmt: skip
def test_parameters_of_the_diffusion_transformer(config: DiTConfig, published: int | None) -> None:
    """Published counts: `docs/specification.md` 2.3."""
    with torch.device("meta"):
        model = AceStep(config)
    assert config.parameters == parameters(model)
    assert config.block_parameters == parameters(model.decoder.layers[0])
    assert config.encoder_block_parameters == parameters(model.encoder.lyric_encoder.layers[0])
    linear = [m for m in model.decoder.layers[0].modules() if isinstance(m, torch.nn.Linear)]
    assert config.block_matrix_parameters == sum(m.weight.numel() for m in linear)
    assert published in (None, config.parameters)


@pytest.mark.parametrize("config", [VAEConfig.from_dict(tiny.VAE), VAEConfig()], ids=["tiny", "published"])
def test_parameters_of_the_autoencoder(config: VAEConfig) -> None:
    with torch.device("meta"):
        assert config.parameters == parameters(OobleckVAE(config))


@pytest.mark.parametrize("config", [QwenConfig(32, 64, 2, 4, 2, 300, 16), PUBLISHED_TEXT], ids=["tiny", "0.6B"])
def test_parameters_of_the_text_encoder(config: QwenConfig) -> None:
    with torch.device("meta"):
        model = Qwen3Model(Qwen3Config(**{name: value for name, value in vars(config).items() if value}))
    assert config.parameters == parameters(model)


def test_every_published_row_has_sizes() -> None:
    for name, row in checkpoint_table.CHECKPOINTS.items():
        assert Sizes.published(name).dit.is_xl == row.is_xl


def peak(work: Workload = SONG, arrangement: Arrangement = FULL, sizes: Sizes = TURBO) -> int:
    return MemoryModel(sizes, work, arrangement).peak.total


@pytest.mark.parametrize("change", [{"tile_frames": 32}, {"one_network": True}, {"int8": True}, {"streamed": True}])
def test_each_way_to_need_less_does(change: dict) -> None:
    before, after = MemoryModel(TURBO, SONG, FULL), MemoryModel(TURBO, SONG, replace(FULL, **change))
    assert any(a.total < b.total for a, b in zip(after.stages, before.stages, strict=True))
    assert all(a.total <= b.total + after._unpacked_bytes for a, b in zip(after.stages, before.stages, strict=True))


def test_the_autoencoder_leaves_the_card() -> None:
    stages = MemoryModel(TURBO, SONG, replace(FULL, vae_on_cpu=True)).stages
    assert not any("vae" in stage.resident for stage in stages)


def test_memory_grows_with_the_song_but_the_tiles_do_not() -> None:
    longer = replace(SONG, frames=15_000)
    assert peak(longer) > peak()
    assert MemoryModel(TURBO, longer, FULL).tile_bytes == MemoryModel(TURBO, SONG, FULL).tile_bytes


def test_a_songwriter_is_a_stage_of_its_own() -> None:
    helped = MemoryModel(Sizes.published("turbo", "4B"), SONG, FULL)
    assert [stage.name for stage in helped.stages] == ["write", "text", "condition", "diffuse", "decode"]
    assert helped.stages[0].resident["songwriter"] == pytest.approx(8e9, rel=0.1)


def test_words_are_counted_up_to_the_limits_of_the_prompts() -> None:
    short, long = (Workload.of(60, words, words, VAEConfig()) for words in ("la", "la" * 5000))
    assert (long.text_tokens, long.lyric_tokens) == (256, 2048)
    assert short.lyric_tokens < long.lyric_tokens


def stages(**heard: Any) -> dict[str, memory.StageMemory]:
    """The stages of a song on a processor for which something is heard."""
    on_cpu = replace(FULL, on_cpu=True)
    return {stage.name: stage for stage in MemoryModel(TURBO, replace(SONG, **heard), on_cpu).stages}


def test_listening_is_a_stage_where_something_is_encoded() -> None:
    assert "listen" not in stages()
    assert "listen" not in stages(source=True)  # whose latents were kept
    for heard in ({"source": True, "encodes_source": True}, {"references": 2, "reference_seconds": 400.0}):
        found = stages(**heard)
        assert list(found)[:3] == ["text", "listen", "condition"]
        assert found["listen"].resident["vae"] == found["decode"].resident["vae"]


def test_listening_takes_as_much_for_a_longer_source_and_less_with_smaller_tiles() -> None:
    heard = replace(SONG, source=True, encodes_source=True)
    whole, longer = MemoryModel(TURBO, heard, FULL), MemoryModel(TURBO, replace(heard, frames=15_000), FULL)
    assert whole.encoding_bytes == longer.encoding_bytes
    assert MemoryModel(TURBO, heard, replace(FULL, tile_frames=32)).encoding_bytes < whole.encoding_bytes / 4
    away = MemoryModel(TURBO, heard, replace(FULL, vae_on_cpu=True))
    [listening] = [stage for stage in away.stages if stage.name == "listen"]
    assert "vae" not in listening.resident
    assert listening.working == 0
    there = MemoryModel(TURBO, heard, replace(FULL, on_cpu=True, dtype="float32"))
    assert away.host_bytes >= whole.host_bytes + TURBO.vae.parameters * memory.FLOAT32 + there.encoding_bytes


def test_recordings_stay_in_main_memory() -> None:
    minute = 60 * 48_000 * 2 * memory.FLOAT32
    one, other = (stages(references=1, reference_seconds=seconds) for seconds in (60.0, 120.0))
    assert {name: other[name].total - one[name].total for name in one} == {
        name: 0 if name == "text" else minute for name in one
    }
    card = [
        MemoryModel(TURBO, replace(SONG, references=1, reference_seconds=seconds), FULL).host_bytes
        for seconds in (60.0, 120.0)
    ]
    assert card[1] - card[0] == minute


def test_each_reference_is_a_voice() -> None:
    one, many = (MemoryModel(TURBO, replace(SONG, references=count), FULL) for count in (1, 8))
    assert many.condition_tokens == one.condition_tokens + 7
    assert many.condition_bytes > 2 * one.condition_bytes


def test_a_completed_request_is_planned_with_what_it_hears(tmp_path: Path, two_b: tiny.Oracle) -> None:
    for name, seconds in (("s", 12), ("r", 30)):
        soundfile.write(tmp_path / f"{name}.wav", np.full((seconds * 48_000, 2), 0.1), 48_000)
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    source, reference = str(tmp_path / "s.wav"), str(tmp_path / "r.wav")
    request = complete.complete(Request(mode="cover", caption="a", source=source, reference=reference), found)
    made = plan.plan_render(hardware.detect(), request, plan.MachineRequest(device="cpu"), Sizes.of(found))
    assert "listen" in [stage.name for stage in made.stages]
    assert request.reference_seconds == 30
    without = request.model_copy(update={"reference": None, "reference_seconds": 0.0})
    less = plan.plan_render(hardware.detect(), without, plan.MachineRequest(device="cpu"), Sizes.of(found))
    assert less.stages[-1].total < made.stages[-1].total


def test_an_edit_needs_more_while_it_is_diffused_and_hardly_more_after() -> None:
    """Both descriptions are projected for the diffusion alone, and only there are its draws; counted in
    `benchmarks/source_memory.py`.
    """
    plain = replace(SONG, frames=15_000, lyric_tokens=2048, source=True, encodes_source=True)
    edited, averaged = (replace(plain, conditions=2, edit_draws=draws) for draws in (1, 4))
    models = [MemoryModel(TURBO, work, FULL) for work in (plain, edited, averaged)]
    by_stage = [{stage.name: stage.total for stage in model.stages} for model in models]
    cover, edit, average = by_stage
    assert edit["diffuse"] - cover["diffuse"] > models[0].cross_kv_bytes
    assert average["diffuse"] > edit["diffuse"]
    assert average["decode"] == edit["decode"]
    assert 0 < edit["decode"] - cover["decode"] < 0.1 * models[0].cross_kv_bytes


def test_a_source_that_was_encoded_leaves_the_autoencoder_on_the_card() -> None:
    heard = replace(SONG, source=True, encodes_source=True)
    for arrangement, there in ((FULL, True), (replace(FULL, one_network=True), False)):
        found = {stage.name: stage.resident for stage in MemoryModel(TURBO, heard, arrangement).stages}
        assert [("vae" in found[name]) for name in ("condition", "diffuse")] == [there, there]
