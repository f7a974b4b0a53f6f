"""What training takes: counted, and brought down step by step where memory is short."""

from __future__ import annotations

from dataclasses import replace

import pytest

from acestep_cli.cli import train_progress
from acestep_cli.cli.console import Console
from acestep_cli.errors import MemoryLimitError, UsageError
from acestep_cli.machine import hardware, history, plan_text
from acestep_cli.machine.hardware import GIB, Device, Hardware
from acestep_cli.machine.plan import MachineRequest, Overhead, PastRenders, Speed
from acestep_cli.models.sizes import Sizes
from acestep_cli.training import config
from acestep_cli.training import plan as workload
from acestep_cli.training.config import TrainingConfig
from acestep_cli.training.plan import LongestExample, PastRuns, TrainingPlan

SIZES = Sizes.published("base")
SONG = LongestExample(6000, 256, 800)  # four minutes


def card(memory_gb: float, **more: object) -> Hardware:
    dtypes = more.pop("dtypes", ("bfloat16", "float16", "float32"))
    device = Device("cuda:0", "cuda", "a card", int(memory_gb * GIB), int(memory_gb * GIB), dtypes, "it has it")  # type: ignore[arg-type]
    return Hardware((device,), "cuda")


def planned(machine: Hardware, settings: TrainingConfig | None = None, **asked: str) -> TrainingPlan:
    return workload.plan_training(
        machine, settings or TrainingConfig(), MachineRequest(**asked), SIZES, SONG, lambda *_: PastRuns()
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
    settings = (TrainingConfig(), MachineRequest(), SIZES, SONG, lambda *_: PastRuns())
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
    with pytest.raises(UsageError, match="--dtype int8: is for renders"):
        planned(Hardware((replace(old.devices[0], int8_flag="avx512_vnni"),)), dtype="int8")


def test_renders_tell_how_long_it_takes_at_least() -> None:
    def recall(*_: object) -> PastRuns:
        return PastRuns(renders=PastRenders(speeds={"bfloat16": Speed(1e14, 100.0)}))

    one = workload.plan_training(card(80), TrainingConfig(steps=100), MachineRequest(), SIZES, SONG, recall)
    other = workload.plan_training(card(80), TrainingConfig(steps=200), MachineRequest(), SIZES, SONG, recall)
    assert one.seconds is not None
    assert other.seconds == pytest.approx(2 * one.seconds)
    again = workload.plan_training(card(16), TrainingConfig(steps=100), MachineRequest(), SIZES, SONG, recall)
    assert again.seconds == pytest.approx(1.5 * one.seconds)


def test_the_time_counts_start_songs_and_steps_by_the_nearest_runs() -> None:
    renders = PastRenders(None, {"bfloat16": Speed(1e14, 100.0)}, {"bfloat16": Overhead(5.0, 0.1)})
    trainings = PastRenders(None, {"bfloat16": Speed(0.5e14, 50.0)})

    def sentence(past: PastRuns, seconds: float, share: float) -> tuple[float, str]:
        settings = (TrainingConfig(steps=100), MachineRequest(), SIZES, SONG)
        plan = workload.plan_training(card(80), *settings, lambda *_: past)
        return plan.seconds or 0.0, train_progress.time_sentence(plan, seconds, share)

    steps, first = sentence(PastRuns(renders=renders), 600.0, 1.0)
    whole = plan_text.format_seconds(5 + 6 + steps)
    assert first == f"Time: {whole} at the least, 6.0 s of it to listen to the songs, by the speed of renders."
    slower, second = sentence(PastRuns(trainings, renders), 600.0, 0.5)
    assert slower == pytest.approx(2 * steps)
    whole = plan_text.format_seconds(5 + 12 + slower / 2)
    assert second == f"Time: about {whole}, 12 s of it to listen to the songs, by the trainings before on this machine."
    assert "listen" not in sentence(PastRuns(trainings, renders), 0.0, 1.0)[1]
    assert "known after the first steps" in sentence(PastRuns(), 600.0, 1.0)[1]


def test_a_run_records_the_speed_of_its_steps_and_of_what_it_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Hardware((hardware.cpu_device(),), "cpu")
    monkeypatch.setattr(hardware, "detect", lambda: machine)
    settings = (TrainingConfig(steps=8), MachineRequest(), SIZES, SONG)
    plan = workload.plan_training(machine, *settings, lambda *_: PastRuns())
    times = train_progress.StageTimes(lambda *_: None, {"encode": (10.0, 14.0)})
    rate = train_progress.TrainingRate(8, Console(quiet=True))

    def recorded(seconds_encoded: float) -> Speed | None:
        train_progress.record_speed(plan, "turbo", seconds_encoded, times, rate)
        known = history.recall_renders(history.read_history(), machine.devices[0], "turbo train", plan.dtype, 60.0)
        return known.speeds.get(plan.arrangement.weight_storage)

    assert recorded(200.0) is None  # no step was timed
    rate._step_seconds.extend([2.0, 2.0, 9.0])
    assert recorded(0.0) is None  # nothing was encoded, and nothing is known
    assert recorded(200.0) == Speed(plan.operations / 8 / 2.0, 50.0)


def test_alpha_follows_the_rank_unless_it_is_given() -> None:
    assert config.config_from_flags({"rank": "16", "alpha": None}).alpha == 32
    assert config.config_from_flags({"rank": "16", "alpha": "16"}).alpha == 16
    assert (config.config_from_flags({}).rank, config.config_from_flags({}).alpha) == (64, 128)
