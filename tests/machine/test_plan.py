"""Plans for invented machines: what fits where, by which fallbacks, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.errors import MemoryLimitError, UsageError
from acestep_cli.machine import hardware, memory, tiers
from acestep_cli.machine import plan as planning
from acestep_cli.machine.fallbacks import LADDER
from acestep_cli.machine.hardware import GIB, Device, Hardware
from acestep_cli.machine.memory import Arrangement, MemoryModel
from acestep_cli.machine.plan import MachineRequest, Overhead, PastRenders, Plan, Speed
from acestep_cli.machine.tiers import TIERS, Tier
from acestep_cli.models.sizes import PUBLISHED_SONGWRITERS, Sizes
from acestep_cli.song import complete
from support import tiny

CPU = Device("cpu", "cpu", "a processor", 16 * GIB, 14 * GIB, ("float32",), "the processor has no bfloat16 arithmetic")
FAST_CPU = replace(CPU, dtypes=("bfloat16", "float32"), dtype_reason="the processor has avx512_bf16")
#: What a desktop and its browser keep of a card.
DESKTOP = 0.3


def card(gigabytes: float, number: int = 0, free: float | None = None, capability: tuple[int, int] = (8, 6)) -> Device:
    free = gigabytes - DESKTOP if free is None else free
    return hardware.cuda_device(number, "a card", capability, int(gigabytes * GIB), int(free * GIB))


def song(seconds: float = 120, model: str = "turbo", takes: int = 1, **more: Any) -> complete.Completed:
    values = {
        "caption": "a song " * 20,
        "lyrics": "la la la\n" * 200,
        "duration": seconds,
        "model": model,
        "takes": takes,
    }
    fixed = {"mode": "generate", "solver": "euler", "guidance": 1.0, "seed": 1, "loudness": "none", "format": "wav"}
    return complete.Completed(**{**fixed, **values, "steps": 8, "shift": 3.0, **more})


def plan(*devices: Device, request: complete.Completed | None = None, sizes: Sizes | None = None, **asked: Any) -> Plan:
    request = request or song()
    built = next((device.backend for device in devices if device.backend in hardware.OWN_MEMORY), None)
    machine = Hardware(devices, built)
    return planning.plan_render(machine, request, MachineRequest(**asked), sizes or Sizes.published(request.model))


def test_the_first_device_and_its_best_dtype() -> None:
    made = plan(card(12), CPU)
    assert (made.device, made.dtype) == ("cuda:0", "bfloat16")
    assert "8.6" in made.reasons["dtype"]
    assert plan(FAST_CPU).dtype == "bfloat16"
    assert plan(CPU).dtype == "float32"
    assert plan(card(12, capability=(7, 5)), CPU).dtype == "float16"


def test_asked_for_is_obeyed() -> None:
    made = plan(card(12), FAST_CPU, device="cpu", dtype="fp32")
    assert (made.device, made.dtype) == ("cpu", "float32")
    assert plan(card(12, 1), CPU, device="cuda").device == "cuda:1"
    assert plan(card(24, 1), card(12, 0), CPU, device="cuda:0").device == "cuda:0"


def test_amd_answers_to_its_own_name() -> None:
    made = plan(hardware.rocm_device(0, "a card", "gfx1100", 16 * GIB, 15 * GIB), CPU, device="rocm")
    assert (made.device, made.backend, made.dtype) == ("cuda:0", "rocm", "bfloat16")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"device": "cuda"}, "no such device; it has cpu"),
        ({"device": "cuda:7"}, "no such device; it has cpu"),
        ({"device": "tpu"}, "no such device"),
        ({"dtype": "bf16"}, "no device here computes in it: cpu has float32"),
        ({"dtype": "fp16"}, "no device here computes in it"),
        ({"dtype": "int3"}, "is not one of bf16"),
    ],
)
def test_what_is_not_there_is_refused(asked: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        plan(CPU, **asked)


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: f"{tier.memory_gb} GB")
@pytest.mark.parametrize("capability", [(7, 5), (8, 6)])
def test_a_tier_keeps_its_promise(tier: Tier, capability: tuple[int, int]) -> None:
    """A card that reports half a gigabyte less than it is sold with, under a desktop."""
    device = card(tier.memory_gb - 0.5, capability=capability)
    assert tiers.tier_of(device) == tier
    sizes = Sizes.published("turbo", tier.songwriter)
    made = plan(device, request=song(60 * tier.minutes, takes=tier.takes), sizes=sizes)
    assert made.device == "cuda:0"
    assert made.peak_bytes <= device.free_bytes
    if tier.memory_gb >= 20:  # no offload
        assert not any(getattr(made, name) for name in ("streamed", "int8", "vae_on_cpu", "one_network"))
    if tier.memory_gb >= 12:
        assert not made.streamed


def test_tiers_are_floors_and_no_caps() -> None:
    """The 20 GB tier promises eight minutes; nothing keeps it from ten."""
    assert plan(card(19.5), request=song(600, takes=20)).device == "cuda:0"
    assert tiers.tier_of(card(3)) is None


@pytest.mark.parametrize("model", ["xl-turbo", "xl-base"])
def test_xl_where_it_fits(model: str) -> None:
    assert not plan(card(24), request=song(600, model)).int8
    assert plan(card(10), request=song(300, model)).int8
    assert plan(card(5), request=song(300, model)).streamed


def test_fallbacks_are_taken_in_their_order() -> None:
    settings = ("one_network", "int8", "streamed")
    counts = []
    for gigabytes in (24, 16, 12, 9, 8, 7, 6, 5, 4, 3):
        made = plan(card(gigabytes), request=song(300, "xl-turbo"))
        taken = [getattr(made, name) for name in settings]
        assert taken == sorted(taken, reverse=True)
        counts.append(sum(taken))
        assert all(name in made.reasons for name in settings if getattr(made, name))
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == 3


def test_a_roomy_card_is_passed_over_for_none_that_is_full() -> None:
    full = card(24, 0, free=0.2)
    made = plan(full, card(8, 1), CPU)
    assert made.device == "cuda:1"
    assert "does not fit into cuda:0" in made.reasons["device"]


def test_a_number_format_chooses_among_the_devices() -> None:
    old = card(16, 0, capability=(7, 5))
    assert plan(old, card(8, 1), CPU, dtype="bf16").device == "cuda:1"
    assert plan(card(8, 0), card(8, 1), CPU, dtype="FP32", device="CPU").dtype == "float32"
    with pytest.raises(MemoryLimitError, match="do not fit into cuda:0"):
        plan(card(2, 0, free=0.3), CPU, dtype="fp16")


def test_what_waits_in_main_memory_has_to_fit_there() -> None:
    assert plan(card(5), CPU, request=song(300, "xl-turbo")).streamed
    with pytest.raises(MemoryLimitError, match="would be kept in main memory"):
        plan(card(5), replace(CPU, free_bytes=3 * GIB), request=song(300, "xl-turbo"))


def test_a_history_that_leads_nowhere_is_not_followed() -> None:
    odd = [Arrangement(True, "float32", 1), Arrangement(True, "float32", 128, streamed=True)]
    machine, sizes = Hardware((CPU,)), Sizes.published("turbo")
    for arrangement in odd:
        made = planning.plan_render(
            machine, song(), MachineRequest(), sizes, lambda *_, known=arrangement: PastRenders(known)
        )
        assert made == planning.plan_render(machine, song(), MachineRequest(), sizes)


def test_tiers_are_for_cards_with_memory_of_their_own() -> None:
    assert tiers.tier_of(CPU) is None
    assert tiers.tier_of(Device("mps", "mps", "Apple GPU", 16 * GIB, 16 * GIB, ("float32",), "why")) is None
    assert tiers.tier_of(hardware.rocm_device(0, "a card", "gfx1032", 8 * GIB, 8 * GIB)) is None
    assert tiers.tier_of(hardware.rocm_device(0, "a card", "gfx1100", 8 * GIB, 8 * GIB)) == TIERS[2]


def test_nothing_free_is_said() -> None:
    with pytest.raises(MemoryLimitError, match=r"0 GB of 8\.6 GB are free") as caught:
        plan(card(8, free=0))
    assert "--device cpu" not in str(caught.value)  # of the plan that tried it
    assert caught.value.exit_code == 4
    with pytest.raises(MemoryLimitError, match="--device cpu uses main memory"):
        plan(card(8, free=0), CPU, device="cuda")


def test_what_would_fit_is_named() -> None:
    with pytest.raises(MemoryLimitError, match=r"--duration \d+ would fit; --model pocket") as caught:
        plan(replace(CPU, free_bytes=int(6.4 * GIB)), request=song(600))
    seconds = int(str(caught.value).split("--duration ")[1].split()[0])
    assert plan(replace(CPU, free_bytes=int(6.4 * GIB)), request=song(seconds))


def test_the_least_max_vram_is_named_and_would_do() -> None:
    with pytest.raises(MemoryLimitError, match=r"--max-vram 100 MB.*\n--max-vram [\d.]+G would do") as caught:
        plan(card(12), max_vram=100_000_000)
    least = float(str(caught.value).splitlines()[1].split()[1].removesuffix("G"))
    assert plan(card(12), max_vram=int(least * 1e9)).peak_bytes <= least * 1e9
    with pytest.raises(MemoryLimitError):
        plan(card(12), max_vram=int((least - 0.2) * 1e9))


def test_a_cap_is_kept() -> None:
    for gigabytes in (4, 6, 8, 12, 20):
        made = plan(card(24), request=song(300), max_vram=gigabytes * 10**9)
        assert made.peak_bytes <= gigabytes * 10**9


def test_a_processor_is_no_small_card() -> None:
    """Its limits come from main memory: there is nothing to stream from, and no other place for the autoencoder."""
    made = plan(replace(CPU, free_bytes=6 * GIB), request=song(60))
    assert made.int8
    assert not made.streamed
    assert not made.vae_on_cpu


def test_a_mac_streams_nothing_from_the_memory_it_shares() -> None:
    mac = Device("mps", "mps", "Apple GPU", 8 * GIB, 7 * GIB, ("float32",), "why")
    made = plan(mac, CPU, request=song(60))
    assert made.device == "mps"
    assert not made.streamed


@pytest.mark.parametrize("backend", ["cuda", "cpu"])
@pytest.mark.parametrize("stage", ["diffuse", "decode"])
def test_stepping_down_reaches_the_foot_and_never_turns_back(backend: str, stage: str) -> None:
    device = card(24) if backend == "cuda" else CPU
    sizes, request = Sizes.published("turbo"), song()
    plans = [plan(device, request=request)]
    while lower := planning.step_down(plans[-1], stage, request, sizes):
        assert lower[1] in [fallback.sentence for fallback in LADDER]
        plans.append(lower[0])

    def demand(one: Plan) -> int:
        return next(found.total for found in one.stages if found.name == stage)

    assert len(plans) > 2
    for higher, lower in pairwise(plans):
        assert demand(lower) < demand(higher)
    assert plans[-1].one_network
    assert plans[-1].streamed == (backend == "cuda" and stage == "diffuse")
    error = planning.exhausted_error(plans[-1], stage, request)
    assert ("--device cpu" in str(error)) == (backend == "cuda")


def test_a_songwriter_may_decide_on_what_fits_the_arrangement_of_the_plan() -> None:
    sizes = replace(Sizes.published("turbo"), songwriter=PUBLISHED_SONGWRITERS["0.6B"])
    assert plan(card(24), request=song(60), sizes=sizes).longest_seconds is None
    guessed = song(60, open=("duration", "codes"))
    assert plan(card(24), request=guessed, sizes=sizes).longest_seconds == 600
    for cap in range(32, 80):  # in units of 100 MB
        try:
            made = plan(card(24), request=guessed, sizes=sizes, max_vram=cap * 10**8)
        except MemoryLimitError:
            continue
        longest = made.longest_seconds or 0
        model = MemoryModel(sizes, planning._workload(song(longest), sizes), made.arrangement)
        assert model.peak.total <= (made.budget_bytes or 0)
        if longest < 480:
            break
    assert 60 <= longest < 480
    # However many takes share a pass by the plan's own choice: a take alone is what it is among others.
    several = plan(card(24), request=song(60, takes=8, open=("duration", "codes")), sizes=sizes, max_vram=cap * 10**8)
    assert several.longest_seconds == longest


VNNI_CPU = replace(FAST_CPU, int8_flag="avx512_vnni")


def test_int8_arithmetic_is_planned_where_it_is_asked_for_and_known() -> None:
    made = plan(VNNI_CPU, dtype="INT8")
    assert (made.dtype, made.int8, made.int8_arithmetic) == ("bfloat16", True, True)
    assert "avx512_vnni" in made.reasons["int8_arithmetic"]
    assert made.peak_bytes < plan(VNNI_CPU).peak_bytes
    assert plan(card(12), VNNI_CPU, dtype="int8").device == "cpu"
    assert not plan(VNNI_CPU).int8
    for devices in ((FAST_CPU,), (card(12), FAST_CPU), (card(12),)):
        with pytest.raises(UsageError, match="--dtype int8: is arithmetic of processors with amx_int8 or avx512_vnni"):
            plan(*devices, dtype="int8")


@pytest.mark.parametrize("dtype", [None, "int8"])
def test_what_one_arithmetic_needed_says_nothing_of_the_other(dtype: str | None) -> None:
    """A fallback that was recorded with the other arithmetic is not where this plan begins."""
    other = Arrangement(on_cpu=True, dtype="bfloat16", tile_frames=64, int8=True, int8_arithmetic=dtype is None)
    made = planning.plan_render(
        Hardware((VNNI_CPU,), None),
        song(100),
        MachineRequest(dtype=dtype),
        Sizes.published("turbo"),
        lambda device, dtype: PastRenders(other),
    )
    assert (made.tile_frames, made.int8_arithmetic, made.int8) == (256, dtype == "int8", dtype == "int8")


def test_what_was_learnt_before_is_where_a_plan_begins() -> None:
    arrangement = Arrangement(on_cpu=False, dtype="bfloat16", tile_frames=64, one_network=True)
    speeds = {"bfloat16": Speed(operations_per_second=1e12, decoded_per_second=10)}
    machine, request, sizes = Hardware((card(24),), "cuda"), song(100, takes=3), Sizes.published("turbo")
    made = planning.plan_render(
        machine, request, MachineRequest(), sizes, lambda device, dtype: PastRenders(arrangement, speeds)
    )
    assert (made.tile_frames, made.one_network, made.int8) == (64, True, False)
    assert "memory ran out in an earlier render" in made.reasons["one_network"]
    model = memory.MemoryModel(sizes, memory.Workload.of(100, request.caption, request.lyrics, sizes.vae), arrangement)
    assert made.seconds == pytest.approx(3 * (8 * model.step_operations / 1e12 + 10), abs=0.1)


def test_the_time_of_a_songwriter_that_was_not_measured_is_not_told() -> None:
    speeds = {"float32": Speed(1e12, 100.0), "bfloat16": Speed(1e12, 100.0)}
    sizes = replace(Sizes.published("turbo"), songwriter=PUBLISHED_SONGWRITERS["0.6B"])

    def seconds(writing: float | None, **more: Any) -> float | None:
        known = PastRenders(speeds=speeds, overheads=dict.fromkeys(speeds, Overhead(2.0, 0.1, writing)))
        machine = Hardware((CPU,), None)
        made = planning.plan_render(machine, song(60, **more), MachineRequest(), sizes, lambda device, dtype: known)
        assert made.expected is not None
        return made.seconds

    alone, open_keys = seconds(None), {"open": ("bpm", "codes")}
    assert alone is not None
    assert seconds(None, **open_keys) is None
    assert seconds(0.5, **open_keys) == pytest.approx(alone + 30, abs=0.1)


def test_speed_is_what_the_stages_took() -> None:
    request, sizes = song(100), Sizes.published("turbo")
    made = plan(card(24), request=request)
    speed = planning.measured_speed(request, made, sizes, {"diffuse": 4.0, "decode": 5.0})
    assert speed is not None
    assert speed.decoded_per_second == 20
    guided = song(100, "sft", guidance=7.0, guidance_method="apg", cfg_interval=(0.0, 1.0))
    twice = planning.measured_speed(guided, made, sizes, {"diffuse": 4.0, "decode": 5.0})
    assert twice is not None
    assert twice.operations_per_second == pytest.approx(2 * speed.operations_per_second)
    assert planning.measured_speed(request, made, sizes, {"diffuse": 4.0}) is None


def test_auto_passes_over_what_does_not_fit(
    tmp_path: Path, two_b: tiny.Oracle, base: tiny.Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of those installed that fits: here `turbo` claims the sizes of the published one."""
    models = Path(shutil.copytree(two_b.root, tmp_path / "models"))
    shutil.copytree(base.root / "acestep-v15-base", models / "acestep-v15-base")
    of = Sizes.of
    huge = Sizes.published("turbo")
    monkeypatch.setattr(Sizes, "of", lambda found, *_: huge if found.name == "turbo" else of(found))
    monkeypatch.setattr(hardware, "detect", lambda: Hardware((replace(CPU, free_bytes=2 * GIB),)))
    arguments = ["generate", "-c", "x", "-d", "60", "--models-dir", str(models), "--dry-run", "-o", f"{tmp_path}/"]
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert told.exit_code == 0, told.stderr
    report = json.loads(told.stdout)
    assert report["outputs"][0]["request"]["model"] == "base"
    assert "turbo is passed over: 60 s of turbo do not fit into cpu" in report["warnings"][0]
    named = CliRunner().invoke(app, [*arguments, "-m", "turbo"])
    assert named.exit_code == 4
    assert "--model pocket sketches it" in named.stderr
