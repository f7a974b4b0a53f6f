"""The card made of paper refuses what a real one refuses, and counts what a real one holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from support import paper_card
from support.paper_card import GIB, PaperCard, RaceError

CUDA = torch.device("cuda:0")


def test_it_computes_as_the_processor_does() -> None:
    x, layer = torch.randn(3, 4), nn.Linear(4, 2)
    expected = layer(x)
    with paper_card.installed(PaperCard()), torch.inference_mode():
        made = layer.to(CUDA)(x.to(CUDA))
        assert made.device == CUDA
        assert made.is_cuda
        assert torch.equal(made.cpu(), expected)
        view = made[0, 1:]
        view.zero_()
        assert made.tolist()[0][1] == 0
        made[:, 0] = torch.ones(3, device=CUDA)
        assert made[torch.tensor([2, 0]), 0].tolist() == [1, 1]
        assert bool((~(made[:, 0] > 0)).any()) is False
    assert not torch.cuda.is_available()


def test_operands_of_two_devices_are_refused() -> None:
    with paper_card.installed(PaperCard(), PaperCard("cuda:1")):
        here, there, host = torch.ones(3, device=CUDA), torch.ones(3, device="cuda:1"), torch.ones(3)
        for other in (there, host):
            with pytest.raises(RuntimeError, match="same device"):
                here + other
            with pytest.raises(RuntimeError, match="same device"):
                other @ here
        assert (here * torch.tensor(2.0)).tolist() == [2, 2, 2]  # one number from the processor is no operand
        with pytest.raises(RuntimeError, match="same device"):
            host * torch.tensor(2.0, device=CUDA)
        assert here[torch.tensor([1])].tolist() == [1]
        with pytest.raises(RuntimeError, match="ordinal"):
            torch.ones(3, device="cuda:7")


def test_bytes_are_counted_and_memory_ends() -> None:
    card = PaperCard(total_bytes=GIB, runtime_bytes=GIB // 2)
    with paper_card.installed(card):
        one = torch.zeros(2**20, device=CUDA)
        view = one[::2]
        assert card.live_bytes == 2**22
        del one
        assert card.live_bytes == 2**22  # the view keeps it
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(2**27, device=CUDA)
        other = view + 1
        assert (card.live_bytes, card.peak_bytes) == (2**22 + 2**21,) * 2
        del view, other
        assert card.live_bytes == 0
        torch.cuda.set_per_process_memory_fraction(0.001, CUDA)
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(2**20, device=CUDA)


def test_what_a_backend_lacks_is_refused() -> None:
    with paper_card.installed(PaperCard("mps:0", backend="mps")):
        with pytest.raises(TypeError, match="float64"):
            torch.ones(2).double().to("mps:0")
        with pytest.raises(TypeError, match="float64"):
            torch.ones(2, device="mps:0").double()
        with pytest.raises(RuntimeError, match="accelerator"):
            torch.ones(2).pin_memory()
        assert not hasattr(torch.mps, "mem_get_info")
        assert not hasattr(torch.mps, "Stream")
    with paper_card.installed(PaperCard("xpu:0", backend="xpu")):
        with pytest.raises(TypeError, match="float64"):
            torch.ones(2, device="xpu:0") @ torch.ones(2, dtype=torch.float64, device="xpu:0")
        with pytest.raises(RuntimeError, match="mem_get_info"):
            torch.xpu.mem_get_info()
    with paper_card.installed(PaperCard(refused=(torch.bfloat16,))), pytest.raises(TypeError, match="bfloat16"):
        torch.ones(2, device=CUDA).bfloat16()


def test_a_copy_is_read_only_after_its_event() -> None:
    with paper_card.installed(PaperCard()) as machine:
        host, copies = torch.arange(4.0).pin_memory(), torch.cuda.Stream(CUDA)
        target = torch.empty(4, device=CUDA)
        copies.wait_stream(torch.cuda.current_stream(CUDA))
        with torch.cuda.stream(copies):
            target.copy_(host, non_blocking=True)
            arrived = copies.record_event()
        with pytest.raises(RaceError, match="does not wait"):
            target + 1
        machine.races.clear()
        torch.cuda.current_stream(CUDA).wait_event(arrived)
        assert (target + 1).tolist() == [1, 2, 3, 4]


def test_what_is_copied_from_the_card_is_read_only_after_a_wait() -> None:
    with paper_card.installed(PaperCard()) as machine:
        host = torch.zeros(4).pin_memory()
        host.copy_(torch.ones(4, device=CUDA), non_blocking=True)
        with pytest.raises(RaceError, match="does not wait"):
            host.sum()
        machine.races.clear()
        torch.cuda.synchronize()
        assert float(host.sum()) == 4


def test_memory_is_not_freed_under_a_copy() -> None:
    with paper_card.installed(PaperCard()) as machine:
        host, copies = torch.arange(4.0).pin_memory(), torch.cuda.Stream(CUDA)
        target = torch.empty(4, device=CUDA)
        with torch.cuda.stream(copies):
            target.copy_(host, non_blocking=True)
        del target
        with pytest.raises(RaceError, match="freed"):
            torch.zeros(4, device=CUDA)
        machine.races.clear()


def test_without_data_only_shapes_are_held() -> None:
    card = PaperCard(total_bytes=24 * GIB, data=False)
    with paper_card.installed(card), torch.inference_mode():
        x = torch.zeros(2**17, 2**14, dtype=torch.bfloat16, device=CUDA)  # 4 GiB
        y = nn.functional.silu(x)
        assert card.live_bytes == 8 * GIB
        assert y[:2, :2].cpu().tolist() == [[0, 0], [0, 0]]
        assert float(y[0, 0]) == 0
        with pytest.raises(torch.OutOfMemoryError):
            torch.cat([x, y, x, y])
