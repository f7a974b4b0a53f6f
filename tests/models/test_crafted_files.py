"""Files made to do harm, or in a spelling of their own: each is read, or refused with exit code 3."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from acestep_cli.audio import decode
from acestep_cli.cli.app import app
from acestep_cli.engine import songwriter
from acestep_cli.engine import weights as store
from acestep_cli.engine.text_encoder import TextEncoder
from acestep_cli.errors import AdapterError, CheckpointError
from acestep_cli.models import adapter_file, checkpoint_files, checkpoints, weight_files, weight_shards
from acestep_cli.models.configs import DiTConfig, QwenConfig, VAEConfig
from support import adapter_files, tiny
from support.command import limited

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
    [shard] = weight_shards.qwen3_shards(tmp_path / "text")
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
    adapter = adapter_file.read_adapter(file)
    assert adapter.fit(CONFIG).matched == (QUERY,)
    [warning] = adapter.require_fit(CONFIG, "turbo")
    assert "proj_in_1" in warning


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_config_in_any_encoding_of_unicode(tmp_path: Path, encoding: str) -> None:
    """PowerShell writes UTF-16, and some editors a byte order mark."""
    folder = adapter_files.peft(tmp_path / "x", adapter_files.pairs(tiny.TWO_B, targets=[QUERY]), alpha=12)
    config = folder / "adapter_config.json"
    config.write_bytes(config.read_text(encoding="utf-8").encode(encoding))
    assert adapter_file.read_adapter(folder).alphas == (12.0,)


def test_a_config_in_no_encoding_of_unicode_is_refused(tmp_path: Path) -> None:
    folder = adapter_files.peft(tmp_path / "x", adapter_files.pairs(tiny.TWO_B, targets=[QUERY]))
    (folder / "adapter_config.json").write_bytes('{"trigger": "Mühle"}'.encode("latin-1"))
    with pytest.raises(AdapterError, match=r"adapter_config\.json is not JSON"):
        adapter_file.read_adapter(folder)


@pytest.mark.parametrize(
    "other",
    [
        f"transformer.{QUERY}.lora_down.weight",
        f"{QUERY}.lora_A.weight",
        f"base_model.model.{QUERY}.lora_A.default.weight",
        f"lycoris_{QUERY.replace('.', '_')}.lora_down.weight",
    ],
)
def test_an_adapter_with_a_tensor_in_two_spellings_is_refused(tmp_path: Path, other: str) -> None:
    [(down, up)] = adapter_files.pairs(tiny.TWO_B, targets=[QUERY]).values()
    first = f"base_model.model.{QUERY}.lora_A.weight"
    tensors = {first: down, f"base_model.model.{QUERY}.lora_B.weight": up, other: 2 * down}
    file = adapter_files.save(tmp_path / "twice.safetensors", tensors)
    with pytest.raises(AdapterError, match="holds one tensor twice") as refusal:
        adapter_file.read_adapter(file)
    assert {name for name in (first, other) if name in refusal.value.message} == {first, other}


@pytest.mark.parametrize(
    ("tensor", "kind"), [("hada_w1_a", "LoHa"), ("oft_blocks", "OFT"), ("lokr_t2", "LoKr with a Tucker core")]
)
def test_a_kind_that_is_not_supported_is_named(tmp_path: Path, tensor: str, kind: str) -> None:
    tensors = {f"lycoris_layers_0_mlp_up_proj.{name}": torch.ones(1) for name in (tensor, "alpha")}
    with pytest.raises(AdapterError, match=f"{kind} is not supported"):
        adapter_file.read_adapter(adapter_files.save(tmp_path / "x.safetensors", tensors))


@pytest.mark.parametrize(
    ("pattern", "alpha"),
    [("(.*.*)*x$", 8), ("(a|a)*b" * 20, 8), ("q_proj", 4), (r"layers\.\d+\.self_attn\.q_proj", 4), ("proj", 8)],
)
def test_patterns_of_alpha_mean_what_peft_means(tmp_path: Path, pattern: str, alpha: float) -> None:
    pairs = adapter_files.pairs(tiny.TWO_B, targets=[QUERY])
    folder = adapter_files.peft(tmp_path / "x", pairs, alpha=8, alpha_pattern={pattern: 4})
    with limited(60):
        assert adapter_file.read_adapter(folder).alphas == (alpha,)


@pytest.mark.parametrize("pattern", ["(", "(?=x)", r"(a)\1"])
def test_a_pattern_that_cannot_be_matched_is_refused(tmp_path: Path, pattern: str) -> None:
    pairs = adapter_files.pairs(tiny.TWO_B, targets=[QUERY])
    folder = adapter_files.peft(tmp_path / "x", pairs, alpha_pattern={pattern: 4})
    with pytest.raises(AdapterError, match="alpha_pattern"):
        adapter_file.read_adapter(folder)


@pytest.mark.parametrize("pattern", ["(?=x)", "(?!.*self_attn).*q_proj", "(?<=x)q_proj"])
def test_look_around_is_called_so(tmp_path: Path, pattern: str) -> None:
    folder = adapter_files.peft(
        tmp_path / "x", adapter_files.pairs(tiny.TWO_B, targets=[QUERY]), alpha_pattern={pattern: 4}
    )
    with pytest.raises(AdapterError, match="looks around"):
        adapter_file.read_adapter(folder)


@pytest.mark.parametrize(
    "patterns",
    [
        {f"name{number}": 4 for number in range(2000)},
        {f".*x{number}": 4 for number in range(100)},
        {"x" * 1000: 4},
        {r"(\w{1000}){1000}": 4},
    ],
    ids=["many names", "many expressions", "long", "counted"],
)
def test_patterns_are_bounded(tmp_path: Path, patterns: dict[str, int]) -> None:
    folder = adapter_files.peft(
        tmp_path / "x", adapter_files.pairs(tiny.TWO_B, targets=[QUERY]), alpha_pattern=patterns
    )
    with limited(60), pytest.raises(AdapterError, match="alpha_pattern"):
        adapter_file.read_adapter(folder)


@pytest.mark.parametrize("pattern", ["(.*.*)*x$", "(a+)+b", "(?!x)"])
@pytest.mark.parametrize("command", [["lora", "inspect"], ["generate", "-c", "a", "-d", "10", "--dry-run", "--lora"]])
def test_commands_end_on_a_crafted_pattern(
    two_b: tiny.Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], pattern: str
) -> None:
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    monkeypatch.chdir(tmp_path)
    pairs = adapter_files.pairs(tiny.TWO_B, targets=[QUERY])
    folder = adapter_files.peft(tmp_path / "x", pairs, alpha_pattern={pattern: 4})
    with limited(60):
        result = CliRunner().invoke(app, [*command, str(folder)])
    assert result.exit_code == (3 if "?" in pattern else 0), result.output


@pytest.mark.parametrize(("kind", "said"), [("LOHA", "LoHa"), ("loha", "LoHa"), ("OFT", "OFT"), ("VERA", "VERA")])
def test_a_kind_that_is_not_supported_is_known_by_its_config(tmp_path: Path, kind: str, said: str) -> None:
    folder = adapter_files.peft(tmp_path / "x", adapter_files.pairs(tiny.TWO_B, targets=[QUERY]), peft_type=kind)
    with pytest.raises(AdapterError, match=f"{said}'? is not supported"):
        adapter_file.read_adapter(folder)


@pytest.mark.parametrize("settings", [{"peft_type": "LOKR", "r": 10**400}, {"peft_type": "LOKR", "r": "8"},
                                      {"lora_alpha": 10**400}, {"alpha": "8"}])  # fmt: skip
def test_settings_of_a_lokr_that_are_no_numbers(tmp_path: Path, settings: dict[str, Any]) -> None:
    file = adapter_files.save(
        tmp_path / "x.safetensors",
        {f"lycoris_layers_0_mlp_up_proj.{name}": torch.ones(2, 2) for name in ("lokr_w1", "lokr_w2_a", "lokr_w2_b")},
        lokr_config=json.dumps(settings),
    )
    with pytest.raises(AdapterError, match=r"rank|alpha"):
        adapter_file.read_adapter(file)


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


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ("[1.0]", "[0, 4]"),
        ("[true]", "[0, 4]"),
        ("[1]", "[0.0, 4]"),
        ("[1]", "[false, 4]"),
        (f"[{2**63}, 0]", "[0, 0]"),
    ],
)
def test_a_number_of_a_header_that_is_no_whole_one_of_63_bits_is_refused(
    tmp_path: Path, shape: str, offsets: str
) -> None:
    entry = f'{{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}'
    data = b"" if offsets == "[0, 0]" else b"\0" * 4
    with pytest.raises(CheckpointError, match="x has shape"):
        weight_files.read_contents(header(tmp_path / "x.safetensors", f'{{"x": {entry}}}', data))


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
        _ = checkpoint_files.Songwriter("x", tmp_path).levels


@pytest.mark.parametrize("layers", [1_000_000, 10**400, float("inf")])
def test_a_million_layers_are_refused(layers: Any) -> None:
    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        DiTConfig.from_dict({**tiny.TWO_B, "num_hidden_layers": layers})


SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 300,
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "gelu"),
        ("hidden_act", None),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4}),
        ("rope_scaling", {"type": "linear"}),
        ("rope_parameters", {"rope_type": "llama3"}),
        ("rope_theta", float("inf")),
        ("rope_theta", -1),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", float("nan")),
        ("vocab_size", 10**12),
        ("hidden_size", 10**9),
        ("head_dim", 15),
        ("num_attention_heads", 3),
        ("num_key_value_heads", 2.5),
        ("pad_token_id", 300),
        ("pad_token_id", -7),
        ("num_hidden_layers", 1_000_000),
    ],
)
def test_a_qwen3_config_out_of_bounds_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    sizes = {**SIZES, "num_key_value_heads": 2, key: value}
    if value is None:  # as if it were not there
        QwenConfig.from_dict(sizes)
        return
    for make in (TextEncoder, lambda folder: songwriter.build_qwen3(folder / "config.json", 10)):
        folder = tmp_path / getattr(make, "__name__", "x").strip("<>")
        tiny.build_text_encoder(folder)
        (folder / "config.json").write_text(json.dumps(sizes))
        with pytest.raises(CheckpointError, match=key) as caught:
            make(folder)
        assert str(folder / "config.json") in caught.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("downsampling_ratios", [2] * 40),
        ("downsampling_ratios", [1024] * 5),
        ("downsampling_ratios", []),
        ("channel_multiples", [10**400] * 5),
        ("sampling_rate", 10**12),
        ("decoder_channels", float("inf")),
    ],
)
def test_an_autoencoder_config_out_of_bounds_is_refused(key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=key):
        VAEConfig.from_dict({**tiny.VAE, key: value})


def grow(content: dict[str, Any]) -> None:
    letters = [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 60
    content["normalizer"] = {"type": "Sequence", "normalizers": letters}


def repeat(content: dict[str, Any]) -> None:
    mark = {"SpecialToken": {"id": "X", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing", "single": [mark] * 5000, "pair": [],
        "special_tokens": {"X": {"id": "X", "ids": [1] * 5000, "tokens": ["x"] * 5000}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (grow, "normalizer"),
        (lambda content: content.update(normalizer={"type": "Prepend", "prepend": "x" * 1000}), "normalizer"),
        (repeat, "post_processor"),
        (lambda content: content.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}), "model"),
        (lambda content: content["model"].update(dropout=0.5), "dropout"),
        (lambda content: content["model"]["vocab"].update(zz=10**12), "vocab"),
        (lambda content: content["model"]["vocab"].update(zz=3000), "the model knows"),
    ],
)
def test_a_tokenizer_is_checked_before_it_is_run(tmp_path: Path, change: Any, key: str) -> None:
    tiny.build_text_encoder(tmp_path / "text")
    file = tmp_path / "text" / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=key) as caught:
        TextEncoder(tmp_path / "text")
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/model.safetensors", r"..\model.safetensors", "C:model.safetensors", "..",
             "x.bin", "a\n.safetensors", "", 5, ["a"], None]
)  # fmt: skip
def test_an_index_leads_out_of_no_folder(tmp_path: Path, name: Any) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(CheckpointError, match=r"weight_map|names no shards"):
        weight_files.weight_files(folder)


def test_a_file_of_both_spellings_is_refused(tmp_path: Path) -> None:
    tiny.build_text_encoder(tmp_path / "text")
    file = tmp_path / "text" / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "model.norm.weight": tensors["norm.weight"] + 1}, file)
    [shard] = weight_shards.qwen3_shards(tmp_path / "text")
    with pytest.raises(CheckpointError, match=r"norm\.weight twice, in two spellings"):
        shard.shapes()


@pytest.mark.parametrize("value", [{"1e999": [1]}, {"2": [float("inf")]}, {"2": [10**400]}, {"2": 6}, [[2, 6]], "x"])
def test_alignment_heads_that_are_none(two_b: tiny.Oracle, tmp_path: Path, value: Any) -> None:
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**tiny.TWO_B, "lyric_alignment_layers_config": value}))
    with pytest.raises(CheckpointError) as caught:
        _ = checkpoint_files.Checkpoint("x", found.row, tmp_path, found.vae, found.text).alignment_heads
    assert "lyric_alignment_layers_config" in str(caught.value)


@pytest.fixture
def models(two_b: tiny.Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny checkpoint, where the command finds it."""
    folder = tmp_path / "models"
    shutil.copytree(two_b.root, folder)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def rendered(name: str = "a.wav") -> Any:
    flags = [
        "--instrumental",
        "--songwriter",
        "none",
        "--seed",
        "1",
        "--steps",
        "1",
        "--force",
        "-m",
        "turbo",
        "--dtype",
        "fp32",
    ]
    return CliRunner().invoke(app, ["generate", "-c", "a", "-d", "10", *flags, "-o", name])


def test_a_text_encoder_in_the_other_spelling_sounds_the_same(models: Path) -> None:
    first = rendered("a.wav")
    assert first.exit_code == 0, first.output
    file = models / "Qwen3-Embedding-0.6B" / "model.safetensors"
    tensors = load_file(file)
    save_file({f"model.{name}": weight.clone() for name, weight in tensors.items()}, file)
    again = rendered("b.wav")
    assert again.exit_code == 0, again.output
    assert Path("a.wav").read_bytes()[44:] == Path("b.wav").read_bytes()[44:] or np.array_equal(
        decode.read_audio(Path("a.wav")).samples, decode.read_audio(Path("b.wav")).samples
    )


def test_weights_of_integers_are_refused(models: Path) -> None:
    file = models / "Qwen3-Embedding-0.6B" / "model.safetensors"
    tensors = load_file(file)
    tensors["norm.weight"] = torch.ones(tensors["norm.weight"].shape, dtype=torch.int64)
    save_file(tensors, file)
    result = rendered()
    assert result.exit_code == 3, result.output
    assert "norm.weight is in I64" in " ".join(result.stderr.split())


KEYS = {
    "acestep-v15-turbo": sorted(tiny.TWO_B),
    "vae": sorted(tiny.VAE),
    "Qwen3-Embedding-0.6B": [*SIZES, "hidden_act", "rope_scaling", "rope_parameters", "rope_theta", "rms_norm_eps",
                            "pad_token_id", "attention_bias", "layer_types", "use_sliding_window", "sliding_window"],
}  # fmt: skip


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_any_config_is_read_or_refused_by_the_command(models: Path, data: st.DataObject) -> None:
    """Nothing but a whole answer or exit code 3 comes of a config with some odd values."""
    folder = data.draw(st.sampled_from(sorted(KEYS)))
    file = models / folder / "config.json"
    whole = file.read_text()
    changes = data.draw(st.dictionaries(st.sampled_from(KEYS[folder]), JSON, min_size=1, max_size=3))
    file.write_text(json.dumps({**json.loads(whole), **changes}))
    try:
        result = rendered("fuzz.wav")
    finally:
        file.write_text(whole)
        Path("fuzz.wav").unlink(missing_ok=True)
    assert result.exit_code in (0, 3), (changes, result.output, result.exception)
