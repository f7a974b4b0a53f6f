"""The memory model: its counts against the modules themselves, and what makes it grow."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from transformers import Qwen3Config, Qwen3Model

from acestep_cli import checkpoints, memory
from acestep_cli.engine.dit import AceStep
from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.memory import Arrangement, Model, Sizes, Work
from acestep_cli.sizes import DiTConfig, QwenConfig, VAEConfig

FULL = Arrangement(on_cpu=False, dtype="bfloat16", tile_frames=256)
SONG = Work(frames=1500, text_tokens=100, lyric_tokens=500)
TURBO = Sizes.published("turbo")


def parameters(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("config", "published"),
    [(DiTConfig.from_dict(tiny.TWO_B), None), (DiTConfig.from_dict(tiny.XL), None),
     (memory.PUBLISHED_2B, 2_393_872_518), (memory.PUBLISHED_XL, 4_987_310_726)],
    ids=["tiny 2B", "tiny XL", "2B", "XL"],
)  # fmt: skip
def test_parameters_of_the_diffusion_transformer(config: DiTConfig, published: int | None) -> None:
    """Published counts: `dit.md` 1.1 of the specification."""
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


@pytest.mark.parametrize("config", [QwenConfig(32, 64, 2, 4, 2, 300, 16), memory.PUBLISHED_TEXT], ids=["tiny", "0.6B"])
def test_parameters_of_the_text_encoder(config: QwenConfig) -> None:
    with torch.device("meta"):
        model = Qwen3Model(Qwen3Config(**vars(config)))
    assert config.parameters == parameters(model)


def test_every_published_row_has_sizes() -> None:
    for name, row in checkpoints.CHECKPOINTS.items():
        assert Sizes.published(name).dit.is_xl == row.is_xl


def peak(work: Work = SONG, arrangement: Arrangement = FULL, sizes: Sizes = TURBO) -> int:
    return Model(sizes, work, arrangement).peak.total


@pytest.mark.parametrize("change", [{"tile_frames": 32}, {"one_network": True}, {"int8": True}, {"streamed": True}])
def test_each_way_to_need_less_does(change: dict) -> None:
    before, after = Model(TURBO, SONG, FULL), Model(TURBO, SONG, replace(FULL, **change))
    assert any(a.total < b.total for a, b in zip(after.stages, before.stages, strict=True))
    assert all(a.total <= b.total + after._unpacked_bytes for a, b in zip(after.stages, before.stages, strict=True))


def test_the_autoencoder_leaves_the_card() -> None:
    stages = Model(TURBO, SONG, replace(FULL, vae_on_cpu=True)).stages
    assert not any("vae" in stage.resident for stage in stages)


def test_memory_grows_with_the_song_but_the_tiles_do_not() -> None:
    longer = replace(SONG, frames=15_000)
    assert peak(longer) > peak()
    assert Model(TURBO, longer, FULL).tile_bytes == Model(TURBO, SONG, FULL).tile_bytes


def test_a_songwriter_is_a_stage_of_its_own() -> None:
    helped = Model(Sizes.published("turbo", "4B"), SONG, FULL)
    assert [stage.name for stage in helped.stages] == ["write", "text", "condition", "diffuse", "decode"]
    assert helped.stages[0].resident["songwriter"] == pytest.approx(8e9, rel=0.1)


def test_words_are_counted_up_to_the_limits_of_the_prompts() -> None:
    short, long = (Work.of(60, words, words, VAEConfig()) for words in ("la", "la" * 5000))
    assert (long.text_tokens, long.lyric_tokens) == (256, 2048)
    assert short.lyric_tokens < long.lyric_tokens
