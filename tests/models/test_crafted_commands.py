"""Crafted checkpoints through the command: exit code 3 within a second, naming the file and the key."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.models import tokenizer_file, weight_files
from support import tiny
from support.command import flat, program

LEVELS = [4, 4, 4]
CODES = 64
TEXT = "Qwen3-Embedding-0.6B"
DIT = "acestep-v15-turbo"
WRITER = "acestep-5Hz-lm-tiny"
THEIRS = "theirs"
NO_NUMBERS = [10**400, 1e999, -1, 2.5, "8", [8], True]
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(10**400)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a Songwriter of few codes, and the same checkpoint in diffusers' layout."""
    root = tmp_path_factory.mktemp("crafted") / "models"
    config = {**tiny.TWO_B, "fsq_input_levels": LEVELS, "timbre_fix_frame": 750}  # diffusers knows no other
    oracle = tiny.build(root, config)
    tiny.build_songwriter(root / WRITER, codes=CODES)
    edit(root / WRITER / "config.json", {"fsq_input_levels": LEVELS})
    tiny.pipeline(oracle).save_pretrained(root / THEIRS)
    return root


@pytest.fixture
def models(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of one's own to break, in the current folder, where the command finds it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", "models")
    return Path(shutil.copytree(whole, tmp_path / "models"))


def edit(file: Path, values: dict[str, Any]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    for key, value in values.items():
        inner = content
        *outer, last = key.split(".")
        for name in outer:
            inner = inner[name]
        inner[last] = value
    file.write_text(json.dumps(content), encoding="utf-8")


def asked(songwriter: str, model: str, name: str) -> list[str]:
    flags = ["--songwriter", songwriter, "-m", model, "--seed", "1", "--steps", "1", "--dtype", "fp32", "-o", name]
    words = ["--lyrics", "la la"] if songwriter == "none" else ["--instrumental"]
    return ["generate", "-c", "a", "-d", "10", *words, *flags]


def rendered(part: str, name: str = "a.wav") -> Result:
    """Render with what uses the part: the Songwriter, diffusers' layout or the published one."""
    songwriter = f"models/{WRITER}" if part.startswith(WRITER) else "none"
    model = f"models/{THEIRS}" if part.startswith(THEIRS) else "turbo"
    return CliRunner().invoke(app, asked(songwriter, model, name))


@pytest.mark.parametrize("part", [DIT, WRITER, THEIRS])
def test_the_sound_files_render(models: Path, part: str) -> None:
    result = rendered(part)
    assert result.exit_code == 0, result.output


def refused(part: str) -> str:
    """Return the refusal of a render within a second of work, when torch is imported already."""
    start = time.process_time()
    result = rendered(part)
    taken = time.process_time() - start
    assert result.exit_code == 3, (result.output, result.exception)
    assert taken < 1, f"{taken:.2f} s"
    assert not Path("a.wav").exists()
    return flat(result)


CONFIGS = {
    f"{DIT}/config.json": ["hidden_size", "num_hidden_layers", "head_dim", "patch_size", "pool_window_size"],
    "vae/config.json": ["decoder_channels", "sampling_rate", "audio_channels"],
    f"{TEXT}/config.json": ["hidden_size", "num_hidden_layers", "vocab_size", "head_dim"],
    f"{WRITER}/config.json": ["hidden_size", "num_hidden_layers", "vocab_size", "num_key_value_heads"],
    f"{THEIRS}/transformer/config.json": ["num_hidden_layers", "hidden_size", "in_channels"],
    f"{THEIRS}/condition_encoder/config.json": ["num_lyric_encoder_hidden_layers", "text_hidden_dim"],
    f"{THEIRS}/audio_tokenizer/config.json": ["fsq_dim", "num_attention_pooler_hidden_layers"],
    f"{THEIRS}/vae/config.json": ["encoder_hidden_size", "decoder_input_channels"],
    f"{THEIRS}/text_encoder/config.json": ["intermediate_size", "num_attention_heads"],
}


@pytest.mark.parametrize(("file", "key"), [(file, key) for file, keys in CONFIGS.items() for key in keys])
def test_no_size_is_taken_that_is_none(models: Path, file: str, key: str) -> None:
    path = models / file
    content = path.read_bytes()
    for value in NO_NUMBERS:
        edit(path, {key: value})
        said = refused(file)
        assert key in said, (value, said)
        assert Path(file).parent.name in said or file.startswith(THEIRS), (value, said)
        path.write_bytes(content)


OTHERS: list[tuple[str, dict[str, Any], str]] = [
    (f"{DIT}/config.json", {"layer_types": ["evil"] * 4}, "layer_types"),
    (f"{DIT}/config.json", {"fsq_input_levels": "888"}, "fsq_input_levels"),
    (f"{DIT}/config.json", {"fsq_input_levels": [2] * 100_000}, "fsq_input_levels"),
    (f"{TEXT}/config.json", {"layer_types": ["full_attention"] * 100_000}, "layer_types"),
    (f"{TEXT}/config.json", {"layer_types": ["evil", "full_attention"]}, "layer_types"),
    (f"{TEXT}/config.json", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "rope_parameters"),
    (f"{WRITER}/config.json", {"fsq_input_levels": [10**400]}, "fsq_input_levels"),
    (f"{WRITER}/config.json", {"hidden_act": "gelu"}, "hidden_act"),
    (f"{WRITER}/config.json", {"layer_types": 5}, "layer_types"),
    (f"{THEIRS}/audio_tokenizer/config.json", {"fsq_input_levels": {"a": 1}}, "fsq_input_levels"),
    (f"{THEIRS}/model_index.json", {"_class_name": "Evil"}, "Evil"),
    (f"{TEXT}/tokenizer.json", {"pre_tokenizer": {**SPLIT, "pattern": {"Regex": "(a+)+$"}}}, "pre_tokenizer"),
    (f"{TEXT}/tokenizer.json", {"pre_tokenizer": {**SPLIT, "pattern": {"Regex": r"(\w|\w\w)*!"}}}, "pre_tokenizer"),
    (f"{TEXT}/tokenizer.json", {"pre_tokenizer": {"type": "Metaspace", "replacement": "x"}}, "pre_tokenizer"),
    (f"{TEXT}/tokenizer.json", {"decoder": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
     "decoder"),
    (f"{TEXT}/tokenizer.json", {"model.continuing_subword_prefix": "x" * 10_000}, "continuing_subword_prefix"),
    (f"{WRITER}/tokenizer.json", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {**SPLIT, "pattern": {"Regex": "(x+x+)+y"}}]}}, "pre_tokenizer"),
    (f"{WRITER}/tokenizer.json", {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "a"}},
     "normalizer"),
    (f"{THEIRS}/tokenizer/tokenizer.json", {"pre_tokenizer": {**SPLIT, "pattern": {"Regex": "(a+)+$"}}},
     "pre_tokenizer"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "values", "key"), OTHERS, ids=[f"{file}-{key}" for file, _, key in OTHERS])
def test_no_other_value_is_taken_that_cannot_be_run(models: Path, file: str, values: dict[str, Any], key: str) -> None:
    edit(models / file, values)
    assert key in refused(file)


def test_a_split_is_not_run_by_a_check_either(models: Path) -> None:
    """`spec check` loads the tokenizer where a prompt may be too long."""
    edit(models / TEXT / "tokenizer.json", {"pre_tokenizer": {**SPLIT, "pattern": {"Regex": "(a+)+$"}}})
    Path("song.yaml").write_text(f"caption: {'long ' * 80}\nlyrics: la\nmodel: turbo\nduration: 10\n")
    result = CliRunner().invoke(app, ["spec", "check", "song.yaml"])
    assert result.exit_code == 3, result.output
    assert "pre_tokenizer" in flat(result)


@pytest.mark.parametrize("split", sorted(tokenizer_file.SPLITS))
def test_published_splits_take_time_in_proportion(tmp_path: Path, split: str) -> None:
    tiny.build_text_encoder(tmp_path / "text")
    file = tmp_path / "text" / "tokenizer.json"
    edit(file, {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {**SPLIT, "pattern": {"Regex": split}}, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                                                 "use_regex": False}]}})  # fmt: skip
    tokenizer = tokenizer_file.load_tokenizer(file)
    start = time.process_time()
    for text in ("a" * 20_000, " " * 20_000 + "x", "\n " * 10_000, "!?" * 10_000 + "\r", "'" * 20_000, "1" * 20_000):
        assert tokenizer.encode(text).ids
    assert time.process_time() - start < 5


#: Configs that none of it reads, or reads a few keys of: nothing in them may stop a render.
UNUSED: list[tuple[str, dict[str, Any]]] = [
    (f"{WRITER}/generation_config.json", {"max_length": 10**400, "temperature": "x"}),
    (f"{TEXT}/generation_config.json", {"do_sample": [1]}),
    (f"{TEXT}/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
    (f"{THEIRS}/scheduler/scheduler_config.json", {"_class_name": "Evil", "shift": 1e999}),
]


@pytest.mark.parametrize("part", [WRITER, THEIRS])
def test_configs_of_other_programs_do_nothing(models: Path, part: str) -> None:
    for file, values in UNUSED:
        (models / file).write_text(json.dumps(values))
    assert rendered(part).exit_code == 0


EXTRA = {
    "num_labels": 10**9, "id2label": "x", "attn_implementation": "evil", "_attn_implementation": "evil",
    "dtype": "evil", "torch_dtype": 5, "quantization_config": {"quant_method": "evil"}, "pruned_heads": "x",
    "return_dict": [], "auto_map": {"AutoModel": "evil.Evil"}, "max_position_embeddings": 10**400,
}  # fmt: skip


@pytest.mark.parametrize("part", [TEXT, WRITER])
def test_keys_that_describe_no_network_reach_no_library(models: Path, part: str) -> None:
    edit(models / part / "config.json", EXTRA)
    result = rendered(part)
    assert result.exit_code == 0, result.output


def write_header(file: Path, content: Any, data: bytes = b"") -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(shape: Any = (1,), start: Any = 0, end: Any = 4, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


HEADERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "many tensors": (lambda file: write_header(file, {f"t{n}": entry([0], 0, 0) for n in range(17_000)}), "17,000"),
    "large": (lambda file: write_header(file, b" " * (weight_files.MOST_HEADER_BYTES + 1)), "header of"),
    "vast": (lambda file: sparse(file, 50 << 30), "header of"),
    "long name": (lambda file: write_header(file, {"x" * 10_000: entry()}, bytes(4)), "letters"),
    "dimensions": (lambda file: write_header(file, {"norm.weight": entry([2**62] * 100_000)}, bytes(4)), "norm.weight"),
    "digits": (lambda file: write_header(file, {"norm.weight": entry(dtype="F" + "9" * 5000)}, bytes(4)), "dtype"),
    "dtype": (lambda file: write_header(file, {"norm.weight": entry(dtype=["F32"])}, bytes(4)), "dtype"),
    "overlap": (lambda file: write_header(file, {"a": entry(), "norm.weight": entry()}, bytes(4)), "norm.weight"),
    "hole": (
        lambda file: write_header(file, {"a": entry(), "norm.weight": entry([1], 8, 12)}, bytes(12)),
        "norm.weight",
    ),
    "front": (lambda file: write_header(file, {"norm.weight": entry([1], 4, 8)}, bytes(8)), "norm.weight"),
    "bool": (lambda file: write_header(file, {"norm.weight": entry([9], dtype="BOOL")}, bytes(4)), "norm.weight"),
    "no shape": (lambda file: write_header(file, {"norm.weight": {"dtype": "F32"}}), "norm.weight"),
    "a list": (lambda file: write_header(file, {"norm.weight": []}), "norm.weight"),
}


def sparse(file: Path, size: int) -> None:
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", size - 8))
        stream.truncate(size)


@pytest.mark.parametrize(
    ("part", "header"), [*((TEXT, header) for header in HEADERS), (DIT, "vast"), (WRITER, "overlap")]
)
def test_no_header_is_taken_that_lies_or_is_endless(models: Path, part: str, header: str) -> None:
    file = models / part / "model.safetensors"
    make, key = HEADERS[header]
    make(file)
    said = refused(part)
    assert key in said, said
    assert "model.safetensors" in said, said


def test_many_tensors_of_a_true_file_are_too_many(models: Path) -> None:
    """The library itself wrote this one."""
    file = models / TEXT / "model.safetensors"
    save_file({**load_file(file), **{f"x{n}": torch.zeros(0) for n in range(17_000)}}, file)
    assert "tensors" in refused(TEXT)


@pytest.mark.parametrize(
    "silence",
    [torch.zeros(1, 1, 1).expand(1, tiny.LATENT_CHANNELS, 10**12),
     torch.full((1, tiny.LATENT_CHANNELS, 4), float("nan")),
     torch.zeros(1, tiny.LATENT_CHANNELS, 4).to_sparse(),
     torch.zeros(1, tiny.LATENT_CHANNELS, 4, device="meta")],
    ids=["endless", "nan", "sparse", "meta"],
)  # fmt: skip
def test_no_silence_is_taken_that_is_none(models: Path, silence: torch.Tensor) -> None:
    torch.save(silence, models / DIT / "silence_latent.pt")
    assert "silence_latent.pt" in refused(DIT)


def test_a_config_without_end_is_not_read(models: Path) -> None:
    file = models / DIT / "config.json"
    with file.open("r+b") as stream:
        stream.truncate(20 << 30)
    assert "config.json" in refused(DIT)


@pytest.mark.parametrize(
    ("file", "values"),
    [(f"{DIT}/config.json", {"num_hidden_layers": 10**9}), (f"{TEXT}/config.json", {"vocab_size": 10**300}),
     ("vae/config.json", {"downsampling_ratios": [1024] * 10})],
)  # fmt: skip
def test_a_plan_refuses_in_a_second_more_than_a_sound_one_takes(
    models: Path, file: str, values: dict[str, Any]
) -> None:
    command = [*asked("none", "turbo", "a.wav"), "--dry-run"]

    def taken(code: int) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = program(*command)
        assert result.returncode == code, result.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    sound = taken(0)
    edit(models / file, values)
    assert taken(3) < sound + 1


FUZZED = {
    f"{WRITER}/config.json": ["hidden_size", "num_hidden_layers", "vocab_size", "head_dim", "fsq_input_levels",
                              "layer_types", "rope_scaling", "rope_parameters", "use_sliding_window", "sliding_window",
                              "max_window_layers", "pad_token_id", "eos_token_id", "attention_bias"],
    f"{WRITER}/tokenizer.json": ["normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "added_tokens",
                                 "truncation", "padding"],
    f"{TEXT}/tokenizer.json": ["normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "added_tokens",
                               "truncation", "padding"],
    f"{THEIRS}/model_index.json": ["_class_name", "transformer", "vae", "tokenizer"],
    f"{THEIRS}/transformer/config.json": sorted(tiny.TWO_B),
    f"{THEIRS}/condition_encoder/config.json": ["hidden_size", "num_timbre_encoder_hidden_layers", "text_hidden_dim",
                                                "num_attention_heads", "timbre_hidden_dim"],
    f"{THEIRS}/audio_tokenizer/config.json": ["fsq_dim", "fsq_input_levels", "pool_window_size", "hidden_size"],
    f"{THEIRS}/vae/config.json": sorted(tiny.VAE),
    f"{THEIRS}/text_encoder/config.json": ["hidden_size", "layer_types", "rope_parameters", "vocab_size"],
}  # fmt: skip


@settings(
    max_examples=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_any_file_of_a_checkpoint_is_read_or_refused(models: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FUZZED)))
    file = models / name
    sound = file.read_bytes()
    changes = data.draw(st.dictionaries(st.sampled_from(FUZZED[name]), JSON, min_size=1, max_size=2))
    edit(file, changes)
    try:
        result = rendered(name, "fuzz.wav")
    finally:
        file.write_bytes(sound)
        Path("fuzz.wav").unlink(missing_ok=True)
        Path("fuzz.wav.yaml").unlink(missing_ok=True)
    assert result.exit_code in (0, 3), (changes, result.output, result.exception)
