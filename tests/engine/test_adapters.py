"""Adapters: every naming, stacks, merging and what hangs beside, with PEFT as the oracle."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoKrConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from acestep_cli.engine import diffusion
from acestep_cli.engine.dit import AceStep, Condition, DiT
from acestep_cli.engine.int8 import Int8Linear, replace_linears
from acestep_cli.engine.layer_streaming import stream_layers
from acestep_cli.engine.lora import AdapterStack
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import AdapterError
from acestep_cli.machine import memory
from acestep_cli.models import adapter_file, checkpoints, peft_settings, weight_files
from acestep_cli.models.configs import DiTConfig
from acestep_cli.models.sizes import Sizes
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete, loras
from acestep_cli.song.file_values import Lora
from acestep_cli.song.loras import ActiveAdapter
from acestep_cli.song.request import Request
from acestep_cli.training import adapter as training_adapter
from acestep_cli.training import run_folder
from acestep_cli.training.config import TrainingConfig
from support import adapter_files, tiny
from support.rendering import FLOAT32, quiet, samples

CONFIG = DiTConfig.from_dict(tiny.TWO_B)
QUERY = "layers.1.self_attn.q_proj"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def decoder(two_b: tiny.Oracle) -> DiT:
    """The decoder of the tiny checkpoint."""
    with (
        closing(WeightStore(checkpoints.find_checkpoint("turbo", two_b.root), FLOAT32, quiet)) as store,
        store.dit() as model,
    ):
        return model.decoder


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return adapter_files.peft(tmp_path / "my-sound", adapter_files.pairs(tiny.TWO_B))


def with_adapters(
    decoder: DiT, *paths: Path | tuple[Path, float], merging: bool = True, dtype: torch.dtype = torch.float32
) -> DiT:
    """A copy of the decoder that wears adapters."""
    adapted = copy.deepcopy(decoder).to(dtype)
    loras = [path if isinstance(path, tuple) else (path, 1.0) for path in paths]
    stack = AdapterStack(tuple(ActiveAdapter(adapter_file.read_adapter(path), scale) for path, scale in loras))
    stack.apply(adapted, CPU, dtype, merging=merging)
    return adapted


def changes(decoder: nn.Module, adapted: nn.Module) -> dict[str, Tensor]:
    """What was added to each matrix."""
    before, after = decoder.state_dict(), adapted.state_dict()
    touched = [name for name in before if not torch.equal(before[name], after[name])]
    return {name: after[name].float() - before[name].float() for name in touched}


def velocity(decoder: nn.Module) -> Tensor:
    """The velocity of a fixed moment, in the decoder's dtype."""
    generator = torch.Generator().manual_seed(3)
    dtype = next(decoder.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    with torch.inference_mode():
        heard = Condition(draw(1, 9, CONFIG.encoder_hidden_size), None)
        x, context = draw(1, 40, CONFIG.latent_channels), draw(1, 40, 2 * CONFIG.latent_channels)
        return decoder(x, torch.tensor([0.7]), context, decoder.project_condition(heard)).float()


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("naming", adapter_files.WRITERS)
def test_every_naming_says_the_same(decoder: DiT, tmp_path: Path, naming: str) -> None:
    weights = adapter_files.pairs(tiny.TWO_B)
    path = adapter_files.WRITERS[naming](tmp_path / ("folder" if naming == "PEFT" else "file.safetensors"), weights)
    adapter = adapter_file.read_adapter(path)
    assert adapter.format == naming.partition(",")[0]
    assert (adapter.kind, adapter.ranks, adapter.alphas, adapter.warnings) == ("LoRA", (4,), (8,), ())
    assert adapter.fit(CONFIG).whole
    found = changes(decoder, with_adapters(decoder, path))
    assert found.keys() == {f"{target}.weight" for target in weights}
    for target, (down, up) in weights.items():
        torch.testing.assert_close(found[f"{target}.weight"], 2 * up @ down, rtol=0, atol=1e-6)


def lokr_tensors(prefix: str, *, whole: bool, dora: Tensor | None = None) -> dict[str, Tensor]:
    """A LoKr of the matrix `prefix` [64, 64]: [4, 8] and [16, 8], the second one of rank 2 unless `whole`."""
    draw = torch.Generator().manual_seed(5)
    found = {f"{prefix}.lokr_w1": torch.randn(4, 8, generator=draw) * 0.1}
    if whole:
        found[f"{prefix}.lokr_w2"] = torch.randn(16, 8, generator=draw) * 0.1
    else:
        found[f"{prefix}.lokr_w2_a"] = torch.randn(16, 2, generator=draw) * 0.1
        found[f"{prefix}.lokr_w2_b"] = torch.randn(2, 8, generator=draw)
    found[f"{prefix}.alpha"] = torch.tensor(3.0)
    return found if dora is None else {**found, f"{prefix}.dora_scale": dora}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("merging", [True, False])
def test_lycoris_lokr(decoder: DiT, tmp_path: Path, whole: bool, merging: bool) -> None:
    """Alpha acts where a factor is low-rank; between two whole factors there is no rank to divide it by."""
    name = "lycoris_layers_1_self_attn_q_proj"
    tensors = lokr_tensors(name, whole=whole)
    path = adapter_files.save(tmp_path / "lokr_weights.safetensors", tensors)
    right = tensors[f"{name}.lokr_w2"] if whole else tensors[f"{name}.lokr_w2_a"] @ tensors[f"{name}.lokr_w2_b"]
    by_hand = copy.deepcopy(decoder)
    added = (1 if whole else 3 / 2) * torch.kron(tensors[f"{name}.lokr_w1"], right)
    by_hand.get_submodule(QUERY).weight += added
    assert adapter_file.read_adapter(tmp_path).kind == "LoKr"
    assert relative(velocity(with_adapters(decoder, path, merging=merging)), velocity(by_hand)) < 1e-5


def test_lycoris_dora(decoder: DiT, tmp_path: Path) -> None:
    name, weight = "lycoris_layers_1_self_attn_q_proj", decoder.get_submodule(QUERY).weight
    magnitudes = weight.norm(dim=1, keepdim=True) * 1.3
    path = adapter_files.save(tmp_path / "x.safetensors", lokr_tensors(name, whole=True, dora=magnitudes))
    found = changes(decoder, with_adapters(decoder, path))[f"{QUERY}.weight"] + weight
    torch.testing.assert_close(found.norm(dim=1, keepdim=True), magnitudes)
    merged, beside = with_adapters(decoder, (path, 0.4)), with_adapters(decoder, (path, 0.4), merging=False)
    assert relative(velocity(beside), velocity(merged)) < 1e-5


def test_pieces_of_convolutions_with_magnitudes_change_nothing(decoder: DiT, tmp_path: Path) -> None:
    """LyCORIS trains `proj_in` with `weight_decompose` too; the rest acts as if that were not there."""
    name = "lycoris_layers_1_self_attn_q_proj"
    rest = lokr_tensors(name, whole=False)
    convolution = {
        "lycoris_proj_in_1.lokr_w1": torch.ones(4, 4),
        "lycoris_proj_in_1.lokr_w2_a": torch.ones(16, 2),
        "lycoris_proj_in_1.lokr_w2_b": torch.ones(2, 12),
        "lycoris_proj_in_1.dora_scale": torch.ones(64, 1, 1),
    }
    alone = adapter_files.save(tmp_path / "alone.safetensors", rest)
    both = adapter_files.save(tmp_path / "both.safetensors", {**rest, **convolution})
    found = changes(decoder, with_adapters(decoder, both))
    assert found.keys() == {f"{QUERY}.weight"}
    for merging in (True, False):
        assert torch.equal(
            velocity(with_adapters(decoder, both, merging=merging)),
            velocity(with_adapters(decoder, alone, merging=merging)),
        )


def by_peft(decoder: DiT, config: Any, folder: Path) -> DiT:
    """A copy of the decoder that PEFT has given an adapter of random weights, which it has saved in `folder`."""
    copied = copy.deepcopy(decoder).requires_grad_(False)
    copied.config = None  # PEFT would look into it for the names of Hugging Face's models
    model = get_peft_model(copied, config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_magnitude" in name:
                weight.mul_(1.2)
            elif "lora_" in name or "lokr_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.15)
    model.eval().save_pretrained(folder)
    copied.config = decoder.config
    return copied


PEFT_CONFIGS = {
    "lora": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
    "mlp": LoraConfig(r=2, lora_alpha=1, target_modules=["gate_proj", "up_proj", "down_proj", "condition_embedder"]),
    "rslora": LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj"]),
    "patterns": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2},
                           alpha_pattern={"v_proj": 3, "layers.0.self_attn.q_proj": 5}),
    "dora": LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "o_proj"]),
    "lokr": LoKrConfig(r=4, alpha=8, target_modules=["q_proj", "k_proj"]),
    "whole lokr": LoKrConfig(r=64, alpha=8, target_modules=["q_proj", "k_proj"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", PEFT_CONFIGS)
@pytest.mark.parametrize("merging", [True, False])
def test_peft_agrees(decoder: DiT, tmp_path: Path, kind: str, merging: bool) -> None:
    expected = velocity(by_peft(decoder, PEFT_CONFIGS[kind], tmp_path))
    assert relative(expected, velocity(decoder)) > 1e-2
    adapter = adapter_file.read_adapter(tmp_path)
    assert adapter.format == "PEFT"
    assert adapter.fit(CONFIG).whole
    assert relative(velocity(with_adapters(decoder, tmp_path, merging=merging)), expected) < 1e-5


@pytest.mark.parametrize(
    ("kind", "export"),
    [("lora", None), ("lora", "comfyui"), ("lora", "diffusers"), ("dora", None), ("dora", "comfyui"), ("lokr", None),
     ("lokr", "comfyui")],
)  # fmt: skip
def test_what_is_trained_here_acts_as_it_was_trained(
    decoder: DiT, tmp_path: Path, kind: str, export: str | None
) -> None:
    config = TrainingConfig(type=kind, rank=4, alpha=6, targets="all")
    trained = copy.deepcopy(decoder)
    made = training_adapter.TrainableAdapter(trained, config, "turbo")
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in made.parameters:
            weight.add_(torch.randn(weight.shape, generator=draws), alpha=0.1)
    tensors = made.tensors() if export is None else training_adapter.EXPORTS[export](made.tensors(), config)
    record = run_folder.RunRecord(
        base="turbo",
        base_weights="0",
        config=config,
        trigger="harbour",
        dataset="0",
        songs={},
        trigger_position="prepend",
        dtype="float32",
    )
    path = adapter_files.save(tmp_path / run_folder.ADAPTER, tensors, **record.header())
    if export is None:
        (tmp_path / run_folder.CONFIG).write_text(made.json())
    adapter = adapter_file.read_adapter(tmp_path if export is None else path)
    assert (adapter.base, adapter.trigger_word) == ("turbo", "harbour")
    assert adapter.fit(CONFIG).whole
    expected = velocity(trained.eval())
    assert relative(expected, velocity(decoder)) > 1e-2
    assert relative(velocity(with_adapters(decoder, path)), expected) < 1e-5


def test_a_stack_of_two_is_the_sum_of_both(decoder: DiT, tmp_path: Path, lora: Path) -> None:
    """Of different kinds, ranks and targets, at scales of their own."""
    other = tmp_path / "dora"
    by_peft(decoder, PEFT_CONFIGS["dora"], other)
    one, two = (
        changes(decoder, with_adapters(decoder, (lora, 0.6))),
        changes(decoder, with_adapters(decoder, (other, -1.4))),
    )
    both = changes(decoder, with_adapters(decoder, (lora, 0.6), (other, -1.4)))
    assert both.keys() == one.keys() | two.keys()
    for name, change in both.items():
        torch.testing.assert_close(change, one.get(name, 0) + two.get(name, 0), rtol=0, atol=2e-6)
    merged, beside = (velocity(with_adapters(decoder, (lora, 0.6), (other, -1.4), merging=m)) for m in (True, False))
    assert relative(beside, merged) < 1e-5


@pytest.mark.parametrize("size", [0.2, 0.003], ids=["large", "small"])
def test_bfloat16_keeps_what_is_added(decoder: DiT, tmp_path: Path, size: float) -> None:
    """What rounding would take too much of is applied beside; in either way the weights lose under 2 % of it."""
    weights = adapter_files.pairs(tiny.TWO_B, size=size, targets=[QUERY])
    path = adapter_files.peft(tmp_path, weights)
    narrow = copy.deepcopy(decoder).bfloat16()
    adapted = with_adapters(decoder, path, dtype=torch.bfloat16)
    down, up = weights[QUERY]
    found = changes(narrow, adapted)
    if size > 0.1:
        assert relative(found[f"{QUERY}.weight"], 2 * up @ down) < 0.02
    else:
        assert not found
        x = torch.randn(1, 5, 64).bfloat16()
        plain, more = narrow.get_submodule(QUERY), adapted.get_submodule(QUERY)
        [hook] = more._forward_hooks.values()
        [change] = hook.deltas  # type: ignore[attr-defined]
        alone = torch.zeros(1, 5, 64).bfloat16()
        change.add_to(alone, x)
        assert relative(alone.float(), x.float() @ (2 * up @ down).T) < 0.02
        both = x.double() @ (plain.weight.double() + 2 * (up @ down).double()).T
        assert relative(more(x).double(), both) <= relative(plain(x).double(), both)


def test_an_outfit_says_what_became_of_its_adapters(decoder: DiT, tmp_path: Path) -> None:
    other = "layers.0.cross_attn.k_proj"
    strong = adapter_files.pairs(tiny.TWO_B, targets=[QUERY])
    weak = adapter_files.pairs(tiny.TWO_B, size=0.003, targets=[other])
    paths = [
        adapter_files.peft(tmp_path / name, weights)
        for name, weights in (("strong", strong), ("both", {**strong, **weak}), ("weak", weak))
    ]
    stack = AdapterStack(tuple(ActiveAdapter(adapter_file.read_adapter(path), 0.6) for path in paths))
    stack.apply(copy.deepcopy(decoder).bfloat16(), CPU, torch.bfloat16, merging=True)
    assert [one.sentence for one in stack.applied] == [
        "strong at 0.6: 1 matrix, merged into the weights",
        "both at 0.6: 2 matrices, 1 merged into the weights, 1 beside them",
        "weak at 0.6: 1 matrix, beside the weights",
    ]


def test_int8_weights_stay_and_the_adapter_acts_beside(decoder: DiT, tmp_path: Path, lora: Path) -> None:
    dora = tmp_path / "dora"
    by_peft(decoder, PEFT_CONFIGS["dora"], dora)
    packed = copy.deepcopy(decoder)
    replace_linears(packed.layers)
    for name, layer in packed.named_modules():
        if isinstance(layer, Int8Linear):
            layer.quantize(decoder.get_submodule(name).weight, CPU, torch.float32)
    for path in (lora, dora):
        adapted = with_adapters(packed, path)
        assert not changes(packed, adapted)
        expected = velocity(with_adapters(decoder, path))
        assert relative(velocity(adapted), expected) < relative(velocity(decoder), expected) / 4


def test_streamed_layers_find_their_adapters(decoder: DiT, lora: Path) -> None:
    expected = velocity(with_adapters(decoder, lora))
    streamed = copy.deepcopy(decoder)
    stream_layers(streamed, CPU)
    plain = velocity(streamed)
    stack = AdapterStack((ActiveAdapter(adapter_file.read_adapter(lora), 1.0),))
    stack.apply(streamed, CPU, torch.float32, merging=False)
    assert relative(velocity(streamed), expected) < 1e-5
    stack.remove()
    assert torch.equal(velocity(streamed), plain)


def state(model: AceStep) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("changed", [{}, {"int8": True}, {"streamed": True}, {"dtype": "bfloat16"}], ids=str)
def test_taken_off_the_base_is_back_bit_for_bit_without_loading_it_anew(
    two_b: tiny.Oracle, lora: Path, tmp_path: Path, changed: Mapping[str, Any]
) -> None:
    other = adapter_files.comfyui(tmp_path / "other.safetensors", adapter_files.pairs(tiny.TWO_B, seed=1))
    plan = FLOAT32.model_copy(update=changed)
    with closing(WeightStore(checkpoints.find_checkpoint("turbo", two_b.root), plan, quiet)) as store:
        with store.dit() as model:
            before, plain = state(model), model.decoder
            untouched = None if plan.int8 or plan.dtype != "float32" else velocity(plain)
        for stack in ((lora, other), (other,), ()):
            store.adapters = tuple(ActiveAdapter(adapter_file.read_adapter(path), 0.5) for path in stack)
            with store.dit() as again:
                assert again is model
                assert any(m._forward_hooks for m in again.modules()) is bool(stack and (plan.int8 or plan.streamed))
        after = state(model)
        assert all(torch.equal(before[name], after[name]) for name in before)
        if untouched is not None:
            assert torch.equal(velocity(plain), untouched)


def song(two_b: tiny.Oracle, **asked: Any) -> complete.Completed:
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    return complete.complete(Request(caption="a song", duration=10, seed=7, **asked), found)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One entry for each time that the diffusion transformer is loaded."""
    made: list[str] = []
    make = WeightStore._build_dit

    def count(self: WeightStore) -> AceStep:
        made.append("dit")
        return make(self)

    monkeypatch.setattr(WeightStore, "_build_dit", count)
    return made  # type: ignore[return-value]


def test_songs_of_one_run_swap_adapters_without_loading_the_base_again(
    two_b: tiny.Oracle, lora: Path, loads: list[str]
) -> None:
    alone = samples(two_b)
    loads.clear()
    songs = [song(two_b), song(two_b, loras=[str(lora)]), song(two_b, loras=[f"{lora}@-1"]), song(two_b)]
    first, adapted, against, last = (
        take.audio.samples
        for take in Pipeline(checkpoints.find_checkpoint("turbo", two_b.root), FLOAT32).run(songs, quiet)
    )
    assert loads == ["dit"]
    assert np.array_equal(first, alone)
    assert np.array_equal(last, alone)
    assert not np.allclose(adapted, alone, rtol=1e-2)
    assert not np.allclose(adapted, against, rtol=1e-2)
    assert np.array_equal(adapted, samples(two_b, loras=[str(lora)]))


@pytest.mark.parametrize("changed", [{}, {"int8": True, "one_network": True}, {"streamed": True}], ids=str)
def test_scale_0_is_no_adapter(two_b: tiny.Oracle, lora: Path, changed: Mapping[str, Any]) -> None:
    plan = FLOAT32.model_copy(update=changed)
    assert np.array_equal(samples(two_b, plan=plan, loras=[f"{lora}@0"]), samples(two_b, plan=plan))


def test_however_the_weights_are_kept_the_adapter_acts(two_b: tiny.Oracle, lora: Path) -> None:
    plain, adapted = samples(two_b), samples(two_b, loras=[str(lora)])
    streamed = samples(two_b, plan=FLOAT32.model_copy(update={"streamed": True}), loras=[str(lora)])
    np.testing.assert_allclose(streamed, adapted, atol=1e-4 * np.abs(adapted).max())
    packed = samples(two_b, plan=FLOAT32.model_copy(update={"int8": True}), loras=[str(lora)])
    assert np.linalg.norm(packed - adapted) < np.linalg.norm(packed - plain) / 2


def test_a_memory_fallback_keeps_the_adapter(two_b: tiny.Oracle, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bool] = []
    diffuse = diffusion.diffuse

    def fail_once(weights: WeightStore, *arguments: Any) -> Any:
        tries.append(weights.plan.int8)
        if weights.plan.int8:
            return diffuse(weights, *arguments)
        diffuse(weights, *(dict(one) if isinstance(one, dict) else one for one in arguments))  # keeps no take
        raise MemoryError

    monkeypatch.setattr(diffusion, "diffuse", fail_once)
    come = samples(two_b, loras=[str(lora)])
    monkeypatch.undo()
    assert tries[-1]
    begun = FLOAT32.model_copy(update={"int8": True, "one_network": True})
    assert np.array_equal(come, samples(two_b, plan=begun, loras=[str(lora)]))


def test_blended_scales_are_shares_of_one(lora: Path) -> None:
    stack = [Lora("a", 0.9), Lora("b", -0.3)]
    assert loras.lora_strengths(stack, "sum") == [0.9, -0.3]
    assert loras.lora_strengths(stack, "blend") == pytest.approx([0.75, -0.25])
    assert loras.lora_strengths([Lora("a", 0), Lora("b", 0)], "blend") == [0, 0]


def test_memory_counts_adapters(two_b: tiny.Oracle, lora: Path) -> None:
    found, adapter = checkpoints.find_checkpoint("turbo", two_b.root), adapter_file.read_adapter(lora)
    plain, more = Sizes.of(found), Sizes.of(found, None, [adapter])
    work = memory.Workload(frames=500, text_tokens=50, lyric_tokens=50)
    arrangement = memory.Arrangement(on_cpu=True, dtype="bfloat16", tile_frames=64)
    for before, after in zip(
        memory.MemoryModel(plain, work, arrangement).stages,
        memory.MemoryModel(more, work, arrangement).stages,
        strict=True,
    ):
        extra = 2 * adapter.parameters if "dit" in after.resident else 0
        assert sum(after.resident.values()) - sum(before.resident.values()) == extra
    with torch.device("meta"):
        linear = {n: tuple(m.weight.shape) for n, m in DiT(CONFIG).named_modules() if isinstance(m, nn.Linear)}
    assert CONFIG.decoder_matrices == linear


def refusal(path: Path) -> str:
    with pytest.raises(AdapterError) as caught:
        adapter_file.read_adapter(path).require_finite()
    assert caught.value.exit_code == 3
    return caught.value.message


def test_its_fingerprint_is_of_every_byte_and_of_no_name(tmp_path: Path) -> None:
    """Alphas are few of many bytes: blocks here and there would miss them."""
    weights = adapter_files.pairs(tiny.TWO_B, rank=64)
    names = ("one", "other", "stronger")
    files = [adapter_files.comfyui(tmp_path / f"{name}.safetensors", weights, alpha=8) for name in names]
    contents = bytearray(files[-1].read_bytes())
    alpha = next(one for name, one in weight_files.read_contents(files[-1])[0].items() if "alpha" in name)
    contents[alpha.start : alpha.end] = np.float32(9).tobytes()
    files[-1].write_bytes(contents)
    one, other, stronger = (adapter_file.read_adapter(file).fingerprint for file in files)
    assert one == other != stronger
    folder = adapter_files.peft(tmp_path / "folder", weights)
    before = adapter_file.read_adapter(folder).fingerprint
    config = folder / peft_settings.PEFT_CONFIG
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    assert adapter_file.read_adapter(folder).fingerprint != before


def write_in_order(file: Path, tensors: Mapping[str, torch.Tensor], notes: dict[str, str]) -> None:
    """Write tensors in the order of the mapping. The library's writer, and ours, have an order of their own."""
    entries: dict[str, Any] = {"__metadata__": notes}
    data = b""
    for name, tensor in tensors.items():
        block = tensor.contiguous().numpy().tobytes()
        entries[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(block)],
        }
        data += block
    header = json.dumps(entries).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)


def test_it_is_the_same_however_a_writer_orders_and_describes_it(tmp_path: Path) -> None:
    weights = adapter_files.pairs(tiny.TWO_B)
    file = adapter_files.comfyui(tmp_path / "one.safetensors", weights, alpha=8)
    tensors = load_file(file)
    write_in_order(tmp_path / "other.safetensors", dict(sorted(tensors.items(), reverse=True)), {"trigger": "harbour"})
    stored = [list(adapter_file.read_adapter(tmp_path / f"{name}.safetensors").stored) for name in ("one", "other")]
    assert stored[0] == stored[1][::-1]
    tensors[min(tensors)].view(-1)[0] += 1
    save_file(tensors, tmp_path / "third.safetensors")
    found = [
        adapter_file.read_adapter(tmp_path / f"{name}.safetensors").fingerprint for name in ("one", "other", "third")
    ]
    assert found[0] == found[1] != found[2]
    folder = adapter_files.peft(tmp_path / "folder", weights)
    before = adapter_file.read_adapter(folder).fingerprint
    config = folder / peft_settings.PEFT_CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "elsewhere"}))
    assert adapter_file.read_adapter(folder).fingerprint == before


def test_alpha_comes_from_the_tensor_then_the_config_then_the_rank(tmp_path: Path) -> None:
    weights = adapter_files.pairs(tiny.TWO_B, targets=[QUERY])
    both = adapter_files.peft(tmp_path / "both", weights, alpha=2)
    tensors = {f"base_model.model.{QUERY}.lora_{n}.weight": t for n, t in zip("AB", weights[QUERY], strict=True)}
    assert adapter_file.read_adapter(both).pieces[QUERY].scale == 0.5
    save_file({**tensors, f"base_model.model.{QUERY}.alpha": torch.tensor(6.0)}, both / "adapter_model.safetensors")
    assert adapter_file.read_adapter(both).pieces[QUERY].scale == 1.5
    bare = adapter_file.read_adapter(adapter_files.save(tmp_path / "bare.safetensors", tensors))
    assert bare.pieces[QUERY].scale == 1
    assert "has no alpha, neither as tensors nor in adapter_config.json: it is taken to be the rank" in bare.warnings[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    weights = adapter_files.pairs(tiny.TWO_B, targets=[QUERY])
    weights[QUERY][1][3, 1] = value
    path = adapter_files.peft(tmp_path, {name: (d.to(dtype), u.to(dtype)) for name, (d, u) in weights.items()})
    assert f"{QUERY}.lora_B.weight holds 1 weights that are not finite numbers" in refusal(path)


def test_files_that_are_no_adapters(tmp_path: Path, lora: Path) -> None:
    assert "nowhere does not exist" in refusal(tmp_path / "nowhere")
    empty = adapter_files.save(tmp_path / "empty.safetensors", {})
    assert "holds no tensors" in refusal(empty)
    weights = lora / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    assert "is cut short" in refusal(lora)
    weights.write_bytes(whole.replace(b'"shape":[4,64]', b'"shape":[9,64]', 1))
    assert "has a header that contradicts itself" in refusal(lora)
    weights.write_bytes(b"<html>")
    assert "it is a web page" in refusal(lora)
    weights.unlink()
    assert "holds no adapter" in refusal(lora)
    (lora / "adapter_model.bin").touch()
    assert "adapter_model.bin is a pickle" in refusal(lora)
    assert "is not an adapter, which is a folder or a .safetensors file" in refusal(lora / "adapter_model.bin")
    other = adapter_files.save(tmp_path / "vae.safetensors", {"decoder.conv1.weight": torch.ones(2, 2)})
    assert "is not an adapter of a kind that can be read (LoRA, DoRA, LoKr): it holds decoder.conv1.w" in refusal(other)


def test_adapters_that_do_not_hold_together(tmp_path: Path) -> None:
    name = f"base_model.model.{QUERY}"
    down, up = torch.ones(4, 64), torch.ones(64, 4)

    def broken(said: Any = 8, **tensors: Tensor) -> str:
        adapter_files.peft(tmp_path, {QUERY: (down, up)}, said)
        named = {f"{name}.{role.replace('__', '.')}": tensor for role, tensor in tensors.items()}
        adapter_files.save(tmp_path / "adapter_model.safetensors", named)
        return refusal(tmp_path)

    pair = {"lora_A__weight": down, "lora_B__weight": up}
    assert f"{QUERY} lacks lora_B (lora_up)" in broken(lora_A__weight=down)
    assert f"{QUERY} lacks lokr_w2" in broken(lokr_w1=down)
    assert "has rank 0" in broken(lora_A__weight=torch.ones(0, 64), lora_B__weight=torch.ones(64, 0))
    assert "[64, 3] and [4, 64], do not go together" in broken(lora_A__weight=down, lora_B__weight=torch.ones(64, 3))
    assert "alpha is 'eight' in adapter_config.json, which is not a number" in broken("eight", **pair)
    assert "alpha is nan, which is not a number" in broken(**pair, alpha=torch.tensor(float("nan")))
    assert "alpha is [2] in F32, and no number" in broken(**pair, alpha=torch.ones(2))
    assert "only those of rows, [64, 1], can be applied" in broken(**pair, dora_scale=torch.ones(1, 64))
    adapter_files.peft(tmp_path, {QUERY: (down, up)}, peft_type="LOKR", r=0)
    assert "has 0 where a rank should be" in refusal(tmp_path)


def test_an_adapter_of_another_size_names_the_matrix(tmp_path: Path) -> None:
    path = adapter_files.peft(tmp_path / "xl", adapter_files.pairs(tiny.XL))
    why = r"another model than turbo: it adapts 32 .* in other sizes \(.*k_proj is \[32, 80\] there, and \[32, 64"
    with pytest.raises(AdapterError, match=why):
        adapter_file.read_adapter(path).require_fit(CONFIG, "turbo")


def test_a_part_that_fits_is_a_warning_and_none_an_error(tmp_path: Path) -> None:
    weights = dict(adapter_files.pairs(tiny.TWO_B, targets=[QUERY]))
    strange = dict.fromkeys(("embed", "layers.9.self_attn.q_proj", "proj"), weights[QUERY])
    path = adapter_files.peft(tmp_path, {**weights, **strange})
    [warning] = adapter_file.read_adapter(path).require_fit(CONFIG, "turbo")
    assert warning == (
        f"{path}: 25 % of its tensors fit turbo, the rest is left out: embed, layers.9.self_attn.q_proj, proj."
    )
    with pytest.raises(AdapterError, match=r"fits no matrix of turbo: its tensors are for embed, layers\.9"):
        adapter_file.read_adapter(adapter_files.peft(tmp_path, strange)).require_fit(CONFIG, "turbo")
