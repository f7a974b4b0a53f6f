"""Packed matrices give what plain ones do, whatever the number of rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acestep_cli.engine import packed_linear
from acestep_cli.engine.weights import WeightStore
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoints
from support import tiny

CPU = torch.device("cpu")
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


@pytest.mark.skipif(not DTYPES, reason="This torch packs nothing on this processor")
@torch.inference_mode()
def test_the_songwriter_s_matrices_are_packed_and_nowhere_twice(two_b: tiny.Oracle, tmp_path: Path) -> None:
    folder = tmp_path / "acestep-5Hz-lm-0.6B"
    tiny.build_songwriter(folder)
    found = checkpoints.Songwriter("0.6B", folder)
    plan = Plan(device="cpu", dtype="float32", tile_frames=64, reasons={})
    store = WeightStore(checkpoints.find_checkpoint("turbo", two_b.root), plan, lambda *_: None, found)
    with store.songwriter() as songwriter:
        kinds = {type(module) for module in songwriter.model.modules()}
        assert packed_linear.PackedLinear in kinds
        assert torch.nn.Linear not in kinds
        assert all("proj" not in name for name, _ in songwriter.model.named_parameters())
    store.close()


def test_what_cannot_be_packed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not packed_linear.can_pack(torch.device("cuda"), torch.bfloat16)
    assert not packed_linear.can_pack(CPU, torch.float16)
    monkeypatch.setattr(packed_linear.platform, "machine", lambda: "arm64")
    assert not packed_linear.can_pack(CPU, torch.float32)
