"""How the networks are kept: int8, layer by layer, in float16, on the processor; and the ladder down to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from acestep_cli.engine import denoise, diffusion, int8, layer_streaming, stages
from acestep_cli.engine.dit import Condition, LyricEncoder
from acestep_cli.engine.encoder_layer import EncoderLayer
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import MemoryLimitError, UsageError
from acestep_cli.machine import plan as planning
from acestep_cli.machine.fallbacks import LADDER
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoints
from acestep_cli.models.configs import DiTConfig
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import tiny

FLOAT32 = Plan(device="cpu", dtype="float32", tile_frames=128, reasons={"tile_frames": "because"})
#: A plan for a card, on the one device that is here: every fallback may be taken.
AS_ON_A_CARD = FLOAT32.model_copy(update={"backend": "cuda"})


def render(oracle: tiny.Oracle, plan: Plan = FLOAT32, said: list[str] | None = None, **asked: Any) -> list[Take]:
    found = checkpoints.find_checkpoint("turbo", oracle.root)
    request = complete.complete(Request(**{"caption": "a song", "duration": 10, "seed": 7, **asked}), found)
    say = said.append if said is not None else lambda sentence: None
    return list(Pipeline(found, plan).run([request], lambda stage, done, total: None, say))


def relative(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.mark.parametrize("change", [{"streamed": True}, {"vae_on_cpu": True}, {"one_network": True}])
def test_where_weights_wait_changes_no_sample(two_b: tiny.Oracle, change: dict[str, bool]) -> None:
    [plain], [moved] = render(two_b), render(two_b, FLOAT32.model_copy(update=change))
    assert np.array_equal(plain.audio.samples, moved.audio.samples)


def test_smaller_tiles_change_nothing_to_be_heard(two_b: tiny.Oracle) -> None:
    [plain], [tiled] = render(two_b), render(two_b, FLOAT32.model_copy(update={"tile_frames": 32}))
    assert relative(tiled.audio.samples, plain.audio.samples) < 1e-5


@pytest.mark.parametrize("streamed", [False, True])
def test_int8_weights_change_the_sound_a_little(two_b: tiny.Oracle, streamed: bool) -> None:
    plan = FLOAT32.model_copy(update={"int8": True, "streamed": streamed})
    [plain], [rounded] = render(two_b), render(two_b, plan)
    assert 0 < relative(rounded.audio.samples, plain.audio.samples) < 0.1


def test_int8_is_one_byte_a_weight(two_b: tiny.Oracle) -> None:
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    store = WeightStore(found, FLOAT32.model_copy(update={"int8": True}), lambda stage, done, total: None)
    with store.dit() as model:
        layers = model.decoder.layers
        matrices = [weight for weight in layers.parameters() if weight.dim() == 2]
        assert matrices
        assert all(weight.dtype is torch.int8 for weight in matrices)
        assert not any(isinstance(module, torch.nn.Linear) for module in layers.modules())
        assert isinstance(model.decoder.condition_embedder, torch.nn.Linear)
    store.close()


INT8 = FLOAT32.model_copy(update={"int8": True, "int8_arithmetic": True})


def test_int8_arithmetic_changes_the_sound_a_little(two_b: tiny.Oracle) -> None:
    [plain], [rounded], [products] = (
        render(two_b),
        render(two_b, INT8.model_copy(update={"int8_arithmetic": False})),
        render(two_b, INT8),
    )
    assert not np.array_equal(products.audio.samples, rounded.audio.samples)
    assert 0 < relative(products.audio.samples, plain.audio.samples) < 0.15


def test_int8_arithmetic_takes_rows_by_themselves() -> None:
    """The scale of a row is its own, and sums of integers are exact in any order: other rows change no bit."""
    layer = int8.Int8Linear(torch.nn.Linear(64, 32, bias=False, device="meta"), arithmetic=True)
    layer.quantize(torch.randn(32, 64), torch.device("cpu"), torch.float32)
    x = torch.randn(3, 700, 64) * torch.tensor([1.0, 1000.0, 1e-3])[:, None, None]
    whole = layer(x)
    assert all(torch.equal(layer(x[i, j]), whole[i, j]) for i in range(3) for j in (0, 350, 699))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(8,), (2, 5, 8), (1, 1030, 24)], ids=str)
@torch.inference_mode()
def test_a_product_of_integers_is_that_of_the_rounded_matrices(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(3)
    x, weight = torch.randn(shape, generator=draw).to(dtype), torch.randn(7, shape[-1], generator=draw)
    if len(shape) > 1:
        x[0, 0] = 0  # has no scale
    linear = torch.nn.Linear(shape[-1], 7, bias=False, device="meta")
    layer = int8.Int8Linear(linear, arithmetic=True)
    layer.quantize(weight, torch.device("cpu"), dtype)
    scale = x.float().abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    rounded = (x.float() / scale).round().double() * scale
    expected = rounded @ layer.dequantize().double().T
    found = layer(x)
    assert (found.dtype, found.shape) == (dtype, (*shape[:-1], 7))
    assert torch.allclose(found.double(), expected, rtol=1e-5 if dtype is torch.float32 else 0.01, atol=1e-4)
    assert float((found.double() - x.double() @ weight.double().T).norm() / expected.norm()) < 0.03


def test_a_torch_that_multiplies_no_integers_is_told(monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> None:
    def missing(*matrices: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("_int_mm is gone")

    monkeypatch.setattr(torch, "_int_mm", missing)
    int8.integer_product_fault.cache_clear()
    try:
        with pytest.raises(UsageError, match=r"--dtype int8: torch .* \(_int_mm is gone\)"):
            render(two_b, INT8)
    finally:
        int8.integer_product_fault.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_an_int8_layer_stays_close(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 64, bias=bias, dtype=dtype).requires_grad_(False)
    linear.weight[3] = 0  # a row of nothing has no scale to divide by
    rounded = int8.Int8Linear(linear)
    rounded.quantize(linear.weight, torch.device("cpu"), dtype)
    x = torch.randn(5, 256, dtype=dtype) * 50
    assert rounded(x).dtype is dtype
    assert relative(rounded(x).float().numpy(), linear(x).float().numpy()) < 0.02


def test_no_more_than_two_layers_are_ever_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that is not the layers' home: `meta` takes copies of shapes alone."""
    layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(5))
    stream = layer_streaming.LayerStream(layers, torch.device("meta"))
    places: list[layer_streaming.DeviceBuffer] = []
    make = layer_streaming.DeviceBuffer.like
    monkeypatch.setattr(layer_streaming.DeviceBuffer, "like", lambda *args: places.append(make(*args)) or places[-1])
    for turn, layer in enumerate(stream):
        there = [number for number, one in enumerate(layers) if one.weight.device.type == "meta"]
        assert there == [turn]
        assert layer is layers[turn]
    assert len(places) == 2
    assert all(weight.device.type == "cpu" for weight in layers.parameters())


@torch.inference_mode()
def test_a_streamed_decoder_finds_every_weight_on_its_device(two_b: tiny.Oracle) -> None:
    """All the decoder does, on `meta`: a weight that stayed at home would meet states that are not there."""
    store = WeightStore(checkpoints.find_checkpoint("turbo", two_b.root), FLOAT32, lambda stage, done, total: None)
    with store.dit() as model:
        layer_streaming.stream_layers(model, torch.device("meta"))
        config = model.config
        heard = Condition(torch.empty(1, 30, config.encoder_hidden_size, device="meta"), None)
        remembered = model.decoder.project_condition(heard)
        x = torch.empty(1, 200, config.latent_channels, device="meta")
        context = torch.empty(1, 200, 2 * config.latent_channels, device="meta")
        assert model.decoder(x, torch.empty(1, device="meta"), context, remembered).shape == x.shape
    store.close()


def test_layers_go_home_when_one_of_them_fails() -> None:
    layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))
    turns = iter(layer_streaming.LayerStream(layers, torch.device("meta")))
    next(turns)
    turns.close()  # type: ignore[attr-defined]
    assert all(weight.device.type == "cpu" for weight in layers.parameters())


@pytest.fixture
def loud_lyrics() -> LyricEncoder:
    """A lyric encoder whose last layer adds values far beyond float16, as the published one's does."""
    torch.manual_seed(0)
    encoder = LyricEncoder(DiTConfig.from_dict(tiny.TWO_B)).eval().requires_grad_(False)
    last = encoder.layers[-1]
    assert isinstance(last, EncoderLayer)
    for projection, gain in ((last.mlp.gate_proj, 10), (last.mlp.up_proj, 10), (last.mlp.down_proj, 1e5)):
        projection.weight.mul_(gain)
    return encoder


@torch.inference_mode()
def test_what_overflows_float16_runs_in_float32(loud_lyrics: LyricEncoder) -> None:
    """Source: `docs/specification.md` 5.8."""
    embeddings = torch.randn(1, 20, tiny.TEXT_WIDTH)
    exact = loud_lyrics(embeddings)
    half = loud_lyrics.half()
    assert not half.layers[-1].mlp(torch.randn(1, 20, 64).half()).isfinite().all()
    narrow = half(embeddings.half())
    assert narrow.dtype is torch.float16
    assert narrow.isfinite().all()
    assert relative(narrow.float().numpy(), exact.numpy()) < 0.02


def test_a_song_in_float16(two_b: tiny.Oracle) -> None:
    [exact], [half] = render(two_b), render(two_b, FLOAT32.model_copy(update={"dtype": "float16"}))
    assert relative(half.audio.samples, exact.audio.samples) < 0.1


@contextmanager
def failing(stage: str, times: int) -> Iterator[list[Plan]]:
    """The plans under which a stage began; its first `times` beginnings run out of memory."""
    seen: list[Plan] = []
    module = diffusion if stage == "diffuse" else stages
    work = getattr(module, stage)

    def fail(weights: WeightStore, *arguments: Any) -> Any:
        seen.append(weights.plan)
        before = [dict(one) for one in arguments if isinstance(one, dict)]
        result = work(weights, *arguments)  # what it has allocated by then must not stay
        if len(seen) <= times:
            for one, found in zip((one for one in arguments if isinstance(one, dict)), before, strict=True):
                one.clear()  # takes that were made before memory ran out stay, and this one was not
                one.update(found)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, stage, fail)
        yield seen


def fallbacks_for(stage: str) -> list[str]:
    """What is said on the way down from the top, for a stage."""
    said, now = [], AS_ON_A_CARD.arrangement
    for fallback in LADDER:
        while fallback.apply and stage in fallback.helps and (lower := fallback.apply(now, "cuda")):
            said.append(fallback.sentence)
            now = lower
    return said


@pytest.mark.parametrize("stage", ["diffuse", "decode"])
def test_every_fallback_is_taken_and_said_and_the_take_goes_on(two_b: tiny.Oracle, stage: str) -> None:
    fallbacks = fallbacks_for(stage)
    assert len(fallbacks) >= 3
    [plain, after] = render(two_b, takes=2)
    for count in range(1, len(fallbacks) + 1):
        said: list[str] = []
        with failing(stage, count) as seen:
            made = render(two_b, AS_ON_A_CARD, said, takes=2)
        assert said == [f"Memory ran out on cpu; from here on {fallback}." for fallback in fallbacks[:count]]
        assert [take.number for take in made] == [1, 2]
        assert seen[-1] == made[0].plan == made[1].plan
        assert len({plan.arrangement for plan in seen}) == count + 1
        for take, expected in zip(made, (plain, after), strict=True):
            assert relative(take.audio.samples, expected.audio.samples) < (0.1 if take.plan.int8 else 1e-5)


@pytest.mark.parametrize("stage", ["encode_prompts", "encode_conditions", "diffuse", "decode"])
def test_after_the_last_fallback_comes_an_error_with_a_way_out(two_b: tiny.Oracle, stage: str) -> None:
    with failing(stage, 99), pytest.raises(MemoryLimitError, match="ran out of memory on cpu over 10 s") as caught:
        render(two_b, AS_ON_A_CARD)
    assert caught.value.exit_code == 4
    assert "--device cpu uses main memory" in str(caught.value)


def test_weights_that_do_not_fit_step_down_too(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading itself runs out of memory, until the layers are streamed."""
    make = WeightStore._build_dit

    def fail(self: WeightStore) -> Any:
        if not self.plan.streamed:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(self)

    monkeypatch.setattr(WeightStore, "_build_dit", fail)
    [take] = render(two_b, AS_ON_A_CARD)
    assert take.plan.arrangement == replace(AS_ON_A_CARD.arrangement, int8=True, streamed=True)


def test_what_failed_is_gone_before_the_next_try(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback would keep alive what the failing stage held."""
    alive: list[int] = []
    run, number = denoise.denoise, iter(range(9))

    class Block:
        count = 0

        def __init__(self) -> None:
            Block.count += 1

        def __del__(self) -> None:
            Block.count -= 1

    def fail(*arguments: Any, **options: Any) -> Any:
        alive.append(Block.count)
        block = Block()
        if next(number) < 2:
            raise MemoryError
        del block
        return run(*arguments, **options)

    monkeypatch.setattr(denoise, "denoise", fail)
    render(two_b, AS_ON_A_CARD)
    assert alive == [0, 0, 0]


def test_a_take_is_the_same_whether_it_began_in_int8_or_came_to_it(two_b: tiny.Oracle) -> None:
    [begun] = render(two_b, AS_ON_A_CARD.model_copy(update={"int8": True, "one_network": True}))
    before = next(number for number, fallback in enumerate(fallbacks_for("diffuse")) if "int8" in fallback)
    with failing("diffuse", before + 1):
        [came] = render(two_b, AS_ON_A_CARD)
    assert came.plan.int8
    assert np.array_equal(begun.audio.samples, came.audio.samples)


def test_a_fallback_of_the_first_song_holds_for_the_next(two_b: tiny.Oracle) -> None:
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    songs = [complete.complete(Request(caption=words, duration=10, seed=1), found) for words in ("one", "two")]
    with failing("decode", 2):
        made = list(Pipeline(found, AS_ON_A_CARD).run(songs, lambda stage, done, total: None))
    assert [take.plan.tile_frames for take in made] == [32, 32]
    assert planning.step_down(made[-1].plan, "decode", songs[1], Pipeline(found, FLOAT32).sizes) is not None
