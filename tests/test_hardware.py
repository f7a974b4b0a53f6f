"""Device and dtype: what is chosen, why, and what is refused."""

from __future__ import annotations

import pytest

from acestep_cli import hardware
from acestep_cli.errors import UsageError
from acestep_cli.hardware import Asked, Device, Hardware
from acestep_cli.request import Request

CPU = Device("cpu", "a processor", 16, ("float32",), "the processor has no bfloat16 arithmetic")
FAST_CPU = Device("cpu", "a processor", 16, ("bfloat16", "float32"), "the processor has avx512_bf16")
CARD = Device("cuda:1", "a card", 12, ("bfloat16", "float32"), "compute capability 8.6 has bfloat16")
SONG = Request(caption="x")


def test_first_device_and_its_best_dtype() -> None:
    plan = hardware.plan(Hardware((CARD, CPU)), SONG, Asked())
    assert (plan.device, plan.dtype) == ("cuda:1", "bfloat16")
    assert "8.6" in plan.reasons["dtype"]
    assert hardware.plan(Hardware((FAST_CPU,)), SONG, Asked()).dtype == "bfloat16"
    assert hardware.plan(Hardware((CPU,)), SONG, Asked()).dtype == "float32"


def test_asked_for_is_obeyed() -> None:
    plan = hardware.plan(Hardware((CARD, FAST_CPU)), SONG, Asked(device="cpu", dtype="fp32"))
    assert (plan.device, plan.dtype) == ("cpu", "float32")
    assert hardware.plan(Hardware((CARD, CPU)), SONG, Asked(device="cuda")).device == "cuda:1"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (Asked(device="cuda"), "no such device; it has cpu"),
        (Asked(device="cuda:7"), "no such device; it has cpu"),
        (Asked(device="tpu"), "no such device"),
        (Asked(dtype="bf16"), "no bfloat16 arithmetic"),
        (Asked(dtype="fp16"), "float16 overflows"),
        (Asked(dtype="int3"), "is not one of bf16"),
    ],
)
def test_what_is_not_there_is_refused(asked: Asked, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        hardware.plan(Hardware((CPU,)), SONG, asked)


def test_detection_always_finds_a_processor() -> None:
    devices = hardware.detect().devices
    assert devices[-1].name == "cpu"
    assert "float32" in devices[-1].dtypes


def test_an_explicit_second_card_is_not_the_first() -> None:
    other = Device("cuda:0", "another card", 8, ("float32",), "compute capability 7.5 has no bfloat16")
    assert hardware.plan(Hardware((CARD, other, CPU)), SONG, Asked(device="cuda:0")).device == "cuda:0"
