"""Packed matrices give what plain ones do, whatever the number of rows."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from acestep_cli.engine import packed_linear
from acestep_cli.engine.kv_cache import KVCache
from acestep_cli.engine.songwriter import SongwriterModel
from acestep_cli.engine.weights import WeightStore
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoint_files, checkpoints
from support import tiny

CPU = torch.device("cpu")
HAS_ONEDNN = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")
WHAT_TO_DO = (
    "torch {torch} has dropped or changed the private operators of engine/packed_linear.py ({fault}). The Songwriter "
    "still works on processors, with plain layers at about half the speed. Look in torch/_inductor/fx_passes/"
    "mkldnn_fusion.py for what torch.compile calls now, and use that; if nothing is left, delete packed_linear.py, its "
    "use in engine/weights.py, this file and benchmarks/packed.py."
)
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if packed_linear.can_pack(CPU, dtype)]


@pytest.mark.skipif(not DTYPES, reason="This torch packs nothing on this processor")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 70, 512])
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_a_packed_layer_is_the_layer(dtype: torch.dtype, rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(96, 64, bias=bias, dtype=dtype).requires_grad_(False)
    x = torch.randn(2, rows, 96, dtype=dtype)
    torch.testing.assert_close(
        packed_linear.PackedLinear(linear)(x), linear(x), atol=1e-5 if dtype is torch.float32 else 0.02, rtol=0
    )


@contextmanager
def songwriter_of(oracle: tiny.Oracle, tmp_path: Path) -> Iterator[SongwriterModel]:
    folder = tmp_path / "acestep-5Hz-lm-0.6B"
    tiny.build_songwriter(folder)
    found = checkpoint_files.Songwriter("0.6B", folder)
    plan = Plan(device="cpu", dtype="float32", tile_frames=64, reasons={})
    store = WeightStore(checkpoints.find_checkpoint("turbo", oracle.root), plan, lambda *_: None, found)
    with store.songwriter() as songwriter:
        yield songwriter
    store.close()


@pytest.mark.skipif(not DTYPES, reason="This torch packs nothing on this processor")
@torch.inference_mode()
def test_the_songwriter_s_matrices_are_packed_and_nowhere_twice(two_b: tiny.Oracle, tmp_path: Path) -> None:
    with songwriter_of(two_b, tmp_path) as songwriter:
        kinds = {type(module) for module in songwriter.model.modules()}
        assert packed_linear.PackedLinear in kinds
        assert torch.nn.Linear not in kinds
        assert all("proj" not in name for name, _ in songwriter.model.named_parameters())


@pytest.mark.skipif(not HAS_ONEDNN, reason="oneDNN packs on x86 processors only")
def test_torch_still_has_the_private_operators() -> None:
    before = torch.get_rng_state()
    fault = packed_linear.operator_fault.__wrapped__(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert fault is None, WHAT_TO_DO.format(torch=torch.__version__, fault=fault)
    assert packed_linear.can_pack(CPU, torch.float32), WHAT_TO_DO.format(torch=torch.__version__, fault="refused")


def dropped(*_: object) -> torch.Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


def changed(*_: object) -> torch.Tensor:
    return torch.zeros(2, 8)


@pytest.mark.skipif(not HAS_ONEDNN, reason="oneDNN packs on x86 processors only")
@pytest.mark.parametrize(("operator", "fault"), [(dropped, "no attribute"), (changed, "differs")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_without_the_private_operators_the_songwriter_keeps_plain_layers(
    operator: Callable[..., torch.Tensor],
    fault: str,
    dtype: torch.dtype,
    two_b: tiny.Oracle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packed_linear.PackedLinear, "forward", operator)
    monkeypatch.setattr(packed_linear, "operator_fault", packed_linear.operator_fault.__wrapped__)  # not the cached
    assert fault in packed_linear.operator_fault(dtype)
    assert not packed_linear.can_pack(CPU, dtype)
    with songwriter_of(two_b, tmp_path) as songwriter:
        assert packed_linear.PackedLinear not in {type(module) for module in songwriter.model.modules()}
        assert KVCache.empty(songwriter.model, rows=1, capacity=2).prefill([[1, 2]]).isfinite().all()


def test_what_cannot_be_packed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not packed_linear.can_pack(torch.device("cuda"), torch.bfloat16)
    assert not packed_linear.can_pack(CPU, torch.float16)
    monkeypatch.setattr(packed_linear.platform, "machine", lambda: "arm64")
    assert not packed_linear.can_pack(CPU, torch.float32)
