"""The text encoder against transformers' Qwen3."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3Config, Qwen3Model

from acestep_cli.engine.text_encoder import Qwen3Encoder
from acestep_cli.errors import CheckpointError
from acestep_cli.models.configs import QwenConfig
from support import tiny
from support.command import HOT, loaded

SIZES = {
    "vocab_size": 90, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


def both(**settings: object) -> tuple[Qwen3Model, Qwen3Encoder]:
    """Return transformers' model with random weights, and ours with the same."""
    torch.manual_seed(3)
    values = {**SIZES, **settings}
    theirs = Qwen3Model(Qwen3Config(**values)).eval()
    for parameter in theirs.parameters():  # norms too, whose weights are ones at first
        torch.nn.init.normal_(parameter, std=0.3)
    ours = Qwen3Encoder(QwenConfig.from_dict(values))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours.eval()


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_theta": 1e6},
        {"rope_theta": 10_000.0, "rms_norm_eps": 1e-5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}},
        {"rope_scaling": {"type": "default"}, "rope_theta": 2e5},
        {"attention_bias": True},
        {"num_attention_heads": 4, "num_key_value_heads": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("length", [1, 2, 77])
@torch.no_grad()
def test_states_are_those_of_transformers(settings: dict[str, object], length: int) -> None:
    theirs, ours = both(**{"rope_theta": 1e6, **settings})
    ids = torch.randint(SIZES["vocab_size"], (2, length), generator=torch.Generator().manual_seed(length))
    expected = theirs(input_ids=ids).last_hidden_state
    assert (ours(ids) - expected).norm() / expected.norm() < 1e-6


@torch.no_grad()
def test_float16_survives_values_beyond_its_range() -> None:
    """The stream between the layers is float32, as in the encoders of a DiT folder."""
    _, ours = both(rope_theta=1e6)
    ids = torch.arange(20)[None]
    ours.embed_tokens.weight *= 3e3
    expected = ours(ids)
    assert (ours.half()(ids).float() - expected).norm() / expected.norm() < 0.02


def test_a_saved_model_has_the_tensors_of_ours(tmp_path: Path) -> None:
    tiny.build_text_encoder(tmp_path / "text")
    tensors = load_file(tmp_path / "text" / "model.safetensors")
    values = Qwen3Config.from_pretrained(tmp_path / "text").to_dict()
    with torch.device("meta"):
        ours = Qwen3Encoder(QwenConfig.from_dict(values))
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("settings", [{"use_sliding_window": True}, {"layer_types": ["sliding_attention"] * 3}])
def test_layers_with_a_sliding_window_are_refused(settings: dict[str, object]) -> None:
    [key] = settings
    with pytest.raises(CheckpointError, match=key):
        QwenConfig.from_dict({**SIZES, **settings})


@pytest.mark.parametrize(("model", "songwriter"), [("turbo", "none"), ("pocket", "pocket")])
def test_a_song_needs_neither_transformers_nor_scipy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle, model: str, songwriter: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-c", "x", "-d", "10", "--models-dir", str(two_b.root), "-m", model, "--songwriter", songwriter]
    code, found = loaded("generate", *words, watched=(*HOT, "torch._dynamo", "scipy"))
    assert (code, found) == (0, ["torch"])
