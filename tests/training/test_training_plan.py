"""What training takes: counted, and brought down step by step where memory is short."""

from __future__ import annotations

from dataclasses import replace

import pytest

from acestep_cli.errors import MemoryLimitError, UsageError
from acestep_cli.machine import hardware
from acestep_cli.machine.hardware import GIB, Device, Hardware
from acestep_cli.machine.plan import MachineRequest, PastRenders, Speed
from acestep_cli.models.sizes import Sizes
from acestep_cli.training import config
from acestep_cli.training import plan as workload
from acestep_cli.training.config import TrainingConfig
from acestep_cli.training.plan import LongestExample, TrainingPlan

SIZES = Sizes.published("base")
SONG = LongestExample(6000, 256, 800)  # four minutes


def card(memory_gb: float, **more: object) -> Hardware:
    dtypes = more.pop("dtypes", ("bfloat16", "float16", "float32"))
    device = Device("cuda:0", "cuda", "a card", int(memory_gb * GIB), int(memory_gb * GIB), dtypes, "it has it")  # type: ignore[arg-type]
    return Hardware((device,), "cuda")


def planned(machine: Hardware, settings: TrainingConfig | None = None, **asked: str) -> TrainingPlan:
    return workload.plan_training(
        machine, settings or TrainingConfig(), MachineRequest(**asked), SIZES, SONG, lambda *_: PastRenders()
    )


def test_the_adapter_of_the_2b_is_as_large_as_published() -> None:
    """Source: `docs/specification.md` 11.4: rank times 688,128."""
    plan = planned(card(80))
    need = workload.TrainingMemory(SIZES, TrainingConfig(), SONG, plan.arrangement, checkpointed=False)
    assert need.adapter_parameters == 64 * 688_128
    assert need.adapter_bytes == 16 * 64 * 688_128
    eight = replace(need, config=TrainingConfig(optimiser="adamw8bit"))
    assert eight.adapter_bytes == 10 * 64 * 688_128


def test_memory_is_won_by_time_and_then_by_eight_bits() -> None:
    roomy, mid, small = planned(card(80)), planned(card(16)), planned(card(7))
    assert (roomy.checkpointed, roomy.int8) == (False, False)
    assert (mid.checkpointed, mid.int8) == (True, False)
    assert (small.checkpointed, small.int8) == (True, True)
    assert roomy.peak_bytes > mid.peak_bytes > small.peak_bytes
    assert "too little without" in mid.reasons["checkpointed"]
    assert "int8" not in mid.reasons


def test_an_open_optimiser_keeps_its_state_in_eight_bits_on_cards_alone() -> None:
    """Source: the text of the issue, AdamW in eight bits where its library is installed."""
    machine = card(80)
    settings = (TrainingConfig(), MachineRequest(), SIZES, SONG, lambda *_: PastRenders())
    eight = workload.plan_training(machine, *settings, eight_bits=True)
    assert (eight.optimiser, planned(machine).optimiser) == ("adamw8bit", "adamw")
    assert planned(machine).peak_bytes - eight.peak_bytes == 6 * 64 * 688_128
    ours = replace(hardware.cpu_device(), free_bytes=80 * GIB)
    small = Hardware((replace(machine.devices[0], free_bytes=4 * GIB), ours), "cuda")
    assert workload.plan_training(small, *settings, eight_bits=True).optimiser == "adamw"


def test_only_a_lora_learns_beside_eight_bits() -> None:
    with pytest.raises(MemoryLimitError):
        planned(card(7), TrainingConfig(type="dora"))


def test_a_card_that_is_too_small_is_told_what_would_fit() -> None:
    with pytest.raises(MemoryLimitError, match=r"^Training takes .* on cuda:0 \(a card\) at the least") as error:
        planned(card(6), TrainingConfig(batch=8))
    assert error.value.exit_code == 4
    assert "--batch 1 would fit" in str(error.value) or "--crop" in str(error.value)


def test_float16_loses_gradients() -> None:
    old = card(40, dtypes=("float16", "float32"))
    plan = planned(old)
    assert (plan.dtype, plan.reasons["dtype"]) == ("float32", "gradients underflow in float16")
    with pytest.raises(UsageError, match="--dtype fp16: gradients underflow in it"):
        planned(old, dtype="fp16")


def test_renders_tell_how_long_it_takes_at_least() -> None:
    def recall(*_: object) -> PastRenders:
        return PastRenders(speeds={"bfloat16": Speed(1e14, 100.0)})

    one = workload.plan_training(card(80), TrainingConfig(steps=100), MachineRequest(), SIZES, SONG, recall)
    other = workload.plan_training(card(80), TrainingConfig(steps=200), MachineRequest(), SIZES, SONG, recall)
    assert one.seconds is not None
    assert other.seconds == pytest.approx(2 * one.seconds)
    again = workload.plan_training(card(16), TrainingConfig(steps=100), MachineRequest(), SIZES, SONG, recall)
    assert again.seconds == pytest.approx(1.5 * one.seconds)


def test_alpha_follows_the_rank_unless_it_is_given() -> None:
    assert config.config_from_flags({"rank": "16", "alpha": None}).alpha == 32
    assert config.config_from_flags({"rank": "16", "alpha": "16"}).alpha == 16
    assert (config.config_from_flags({}).rank, config.config_from_flags({}).alpha) == (64, 128)
