"""Files made to do harm, or in a spelling of their own: each is read, or refused with exit code 3."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from acestep_cli.engine import weights as store
from acestep_cli.errors import AdapterError, CheckpointError
from acestep_cli.models import adapters, checkpoints, weight_files
from acestep_cli.models.configs import DiTConfig
from support import adapter_files, tiny

CONFIG = DiTConfig.from_dict(tiny.TWO_B)
QUERY = "layers.1.self_attn.q_proj"
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(10**400)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)


def header(file: Path, text: str, data: bytes = b"") -> Path:
    file.write_bytes(struct.pack("<Q", len(text)) + text.encode() + data)
    return file


@pytest.mark.parametrize("start", ["", "model."])
def test_both_spellings_of_a_qwen3_file(tmp_path: Path, start: str) -> None:
    tiny.build_text_encoder(tmp_path / "text")
    file = tmp_path / "text" / "model.safetensors"
    tensors = load_file(file)
    save_file({start + name: weight.clone() for name, weight in tensors.items()}, file)
    [shard] = checkpoints.qwen3_shards(tmp_path / "text")
    assert shard.shapes().keys() == tensors.keys()


def test_pieces_of_convolutions_with_magnitudes_are_left_out(tmp_path: Path) -> None:
    weights = adapter_files.pairs(tiny.TWO_B, targets=[QUERY])
    down, up = weights[QUERY]
    file = adapter_files.save(
        tmp_path / "x.safetensors",
        {
            f"diffusion_model.{QUERY}.lora_A.weight": down,
            f"diffusion_model.{QUERY}.lora_B.weight": up,
            "lycoris_proj_in_1.lokr_w1": torch.ones(4, 4),
            "lycoris_proj_in_1.lokr_w2_a": torch.ones(16, 2),
            "lycoris_proj_in_1.lokr_w2_b": torch.ones(2, 12),
            "lycoris_proj_in_1.dora_scale": torch.ones(64, 1, 1),
        },
    )
    adapter = adapters.read_adapter(file)
    assert adapter.fit(CONFIG).matched == (QUERY,)
    [warning] = adapter.require_fit(CONFIG, "turbo")
    assert "proj_in_1" in warning


def test_a_config_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder = adapter_files.peft(tmp_path / "x", adapter_files.pairs(tiny.TWO_B, targets=[QUERY]), alpha=12)
    config = folder / "adapter_config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    assert adapters.read_adapter(folder).alphas == (12.0,)


@pytest.mark.parametrize(
    ("tensor", "kind"), [("hada_w1_a", "LoHa"), ("oft_blocks", "OFT"), ("lokr_t2", "LoKr with a Tucker core")]
)
def test_a_kind_that_is_not_supported_is_named(tmp_path: Path, tensor: str, kind: str) -> None:
    tensors = {f"lycoris_layers_0_mlp_up_proj.{name}": torch.ones(1) for name in (tensor, "alpha")}
    with pytest.raises(AdapterError, match=f"{kind} is not supported"):
        adapters.read_adapter(adapter_files.save(tmp_path / "x.safetensors", tensors))


@pytest.mark.parametrize(
    ("pattern", "alpha"),
    [("(.*.*)*x$", 8), ("(a|a)*b" * 20, 8), ("q_proj", 4), (r"layers\.\d+\.self_attn\.q_proj", 4), ("proj", 8)],
)
def test_patterns_of_alpha_mean_what_peft_means(tmp_path: Path, pattern: str, alpha: float) -> None:
    pairs = adapter_files.pairs(tiny.TWO_B, targets=[QUERY])
    folder = adapter_files.peft(tmp_path / "x", pairs, alpha=8, alpha_pattern={pattern: 4})
    assert adapters.read_adapter(folder).alphas == (alpha,)


@pytest.mark.parametrize("pattern", ["(", "(?=x)", r"(a)\1"])
def test_a_pattern_that_cannot_be_matched_is_refused(tmp_path: Path, pattern: str) -> None:
    pairs = adapter_files.pairs(tiny.TWO_B, targets=[QUERY])
    folder = adapter_files.peft(tmp_path / "x", pairs, alpha_pattern={pattern: 4})
    with pytest.raises(AdapterError, match="alpha_pattern"):
        adapters.read_adapter(folder)


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}',
        '{"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}',
        '{"dtype": "F32", "shape": [1e999], "data_offsets": [0, 4]}',
        f'{{"dtype": "F32", "shape": [{10**400}], "data_offsets": [0, 4]}}',
        "[" * 100_000,
    ],
)
def test_a_crafted_header_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(CheckpointError):
        weight_files.read_contents(header(tmp_path / "x.safetensors", f'{{"x": {entry}}}', b"\0" * 4))


def test_a_deep_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": ' + "[" * 100_000)
    with pytest.raises(CheckpointError):
        weight_files.read_json(tmp_path / "config.json")


@pytest.mark.parametrize("silence", [torch.zeros(1, 8, 0), torch.zeros(1, 8, 4, dtype=torch.complex64), [1]])
def test_silence_of_no_frames_or_no_real_numbers_is_refused(tmp_path: Path, silence: Any) -> None:
    torch.save(silence, tmp_path / "silence_latent.pt")
    with pytest.raises(CheckpointError, match=r"silence_latent\.pt should hold"):
        store.load_silence(tmp_path / "silence_latent.pt", 8)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(content=st.dictionaries(st.sampled_from(["x", "__metadata__"]), JSON, max_size=3))
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    file = header(tmp_path_factory.getbasetemp() / "fuzz.safetensors", json.dumps(content))
    try:
        weight_files.read_contents(file)
    except CheckpointError as error:
        found = error.message
    else:
        found = str(file)
    assert str(file) in found


@pytest.mark.parametrize("levels", ["text", ["8", 8], [10**400], [-1], {"a": 1}])
def test_levels_that_are_none_are_refused(tmp_path: Path, levels: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"fsq_input_levels": levels}))
    with pytest.raises(CheckpointError, match="fsq_input_levels"):
        _ = checkpoints.Songwriter("x", tmp_path).levels


@pytest.mark.parametrize("layers", [1_000_000, 10**400, float("inf")])
def test_a_million_layers_are_refused(layers: Any) -> None:
    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        DiTConfig.from_dict({**tiny.TWO_B, "num_hidden_layers": layers})
