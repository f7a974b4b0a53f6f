"""Plans of one render on this machine, with the reason of each choice: the device, its dtype, and the networks that are
in its memory at each stage.

Memory decides. A plan begins with the fastest arrangement and applies the fallbacks of one fixed ladder until the
memory model fits. Where memory runs out all the same, the render applies the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

from pydantic import BaseModel, ConfigDict, computed_field

from acestep_cli.disk import format_gigabytes, format_size
from acestep_cli.errors import MemoryLimitError
from acestep_cli.machine import device_choice, fallbacks
from acestep_cli.machine.fallbacks import LADDER
from acestep_cli.machine.hardware import OWN_MEMORY, Backend, Device, DType, Hardware
from acestep_cli.machine.memory import MARGIN, RUNTIME_BYTES, Arrangement, MemoryModel, StageMemory, Workload
from acestep_cli.models.sizes import Sizes
from acestep_cli.solvers import SOLVERS
from acestep_cli.song import modes
from acestep_cli.song.complete import Completed
from acestep_cli.song.request import MOST_TOGETHER

#: Lengths that are tried for the longest song that fits, in seconds.
ROUND_LENGTHS = (600, 480, 360, 240, 180, 120, 60, 30, 10)


@dataclass(frozen=True)
class MachineRequest:
    """The user's choices for the machine; `None` leaves a choice to the plan. `max_vram` is in bytes."""

    device: str | None = None
    dtype: str | None = None
    max_vram: int | None = None


@dataclass(frozen=True)
class Speed:
    """Speed of a device: arithmetic operations of the diffusion, and seconds of sound decoded, per second."""

    operations_per_second: float
    decoded_per_second: float


@dataclass(frozen=True)
class Overhead:
    """Seconds of a run beside diffusion and decoding.

    `startup` is once, for loading libraries and weights and reading the text. The others are for each second of music:
    `finishing_per_second` for encoding, measuring and writing a take, `writing_per_second` for the Songwriter, None
    where it had nothing to do.
    """

    startup: float
    finishing_per_second: float
    writing_per_second: float | None = None


@dataclass(frozen=True)
class PastRenders:
    """Results of earlier renders like this one: the arrangement that fitted, speeds and overheads by
    `Arrangement.speed_key`, and the most takes that could share a forward pass where more could not.
    """

    arrangement: Arrangement | None = None
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    overheads: Mapping[str, Overhead] = field(default_factory=dict)
    most_together: int | None = None


class Plan(BaseModel):
    """The plan of one render on this machine, with `reasons` by field.

    Memory is in bytes. `seconds` is of all takes, without what a run needs to start. `expected` are the seconds of one
    take by stage, and of the start under "startup". Both are None where no earlier render was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    dtype: DType
    tile_frames: int
    one_network: bool = False
    int8: bool = False
    int8_arithmetic: bool = False
    streamed: bool = False
    vae_on_cpu: bool = False
    #: The most takes of the song that share a forward pass.
    together: int = 1
    #: The real backend: torch calls AMD's cards `cuda` too.
    backend: Backend = "cpu"
    max_vram: int | None = None
    budget_bytes: int | None = None
    stages: tuple[StageMemory, ...] = ()
    seconds: float | None = None
    expected: dict[str, float] | None = None
    #: The longest song, in seconds, that the Songwriter may decide on; None where the length is decided already.
    longest_seconds: int | None = None
    #: Threads that compute on the processor; None leaves it to torch.
    threads: int | None = None
    reasons: dict[str, str]

    @property
    def arrangement(self) -> Arrangement:
        names = [field.name for field in fields(Arrangement) if field.name != "on_cpu"]
        return Arrangement(on_cpu=self.backend == "cpu", **{name: getattr(self, name) for name in names})

    @computed_field  # type: ignore[prop-decorator]
    @property
    def peak_bytes(self) -> int:
        """Device memory of the largest stage, its runtime included."""
        return RUNTIME_BYTES[self.backend] + max((stage.total for stage in self.stages), default=0)

    def shares_weights_with(self, other: Plan) -> bool:
        """Tell whether renders of both plans can use one pipeline, whatever number of takes shares a pass in each."""
        mine, theirs = (replace(plan.arrangement, together=1) for plan in (self, other))
        return (self.device, mine, self.max_vram) == (other.device, theirs, other.max_vram)


def plan_render(
    machine: Hardware,
    request: Completed,
    asked: MachineRequest,
    sizes: Sizes,
    recall: Callable[[Device, DType], PastRenders] = lambda device, dtype: PastRenders(),
) -> Plan:
    """Return the plan of a completed request. This is a pure function.

    Without a device asked for, the first that the render fits into is taken. Raises `UsageError` where the machine
    lacks what was asked for, and `MemoryLimitError` where the render fits nowhere.
    """
    found, why = device_choice.candidate_devices(machine, asked.device)
    host_free_bytes = next((device.free_bytes for device in machine.devices if device.backend == "cpu"), None)
    failure: MemoryLimitError | None = None
    for device in device_choice.devices_with_dtype(found, asked.dtype):
        dtype, dtype_reason = device_choice.choose_dtype(device, asked.dtype)
        try:
            plan = _fit_arrangement(
                device,
                dtype,
                request=request,
                asked=asked,
                sizes=sizes,
                host_free_bytes=host_free_bytes,
                past_renders=recall(device, dtype),
            )
        except MemoryLimitError as error:
            failure = failure or error
            why = f"it does not fit into {device.name}"
            continue
        reasons = {"device": why, "dtype": dtype_reason, **plan.reasons}
        if machine.threads is not None:
            reasons["threads"] = machine.threads_reason
        return plan.model_copy(update={"threads": machine.threads, "reasons": reasons})
    assert failure is not None
    raise failure


def step_down(now: Plan, stage: str, request: Completed, sizes: Sizes) -> tuple[Plan, str] | None:
    """Return the plan with the next fallback that helps `stage`, and its sentence; None where no fallback is left."""
    found = fallbacks.next_fallback(now.arrangement, now.backend, stage)
    if found is None:
        return None
    lower, fallback = found
    work = _workload(request, sizes)
    reasons = now.reasons | _changes(now.arrangement, lower, "memory ran out without")
    update = {
        **lower.settings(),
        "stages": MemoryModel(sizes, work, lower).stages,
        "seconds": None,
        "expected": None,
        "reasons": reasons,
    }
    return now.model_copy(update=update), fallback.sentence


def exhausted_error(now: Plan, stage: str, request: Completed) -> MemoryLimitError:
    """Return the error for a stage that ran out of memory after the last fallback."""
    elsewhere = "--device cpu uses main memory; " if now.backend in OWN_MEMORY else ""
    tried = ", after every way to need less" if any(stage in fallback.helps for fallback in LADDER) else ""
    return MemoryLimitError(
        f"{request.model} ran out of memory on {now.device} over {request.duration:g} s of music ({stage}){tried}.",
        f"{elsewhere}--duration asks for a shorter song, --model for a smaller one.",
    )


def least_bytes(request: Completed, asked: MachineRequest, sizes: Sizes, device: Device) -> int:
    """Return the least `--max-vram`, in bytes, with which the request can be planned on `device`."""
    dtype, _ = device_choice.choose_dtype(device, asked.dtype)
    fastest = fallbacks.fastest_arrangement(device, dtype, int8_arithmetic=device_choice.asks_int8(asked.dtype))
    lowest = fallbacks.smallest_arrangement(fastest, device.backend)
    return _free_bytes_needed(MemoryModel(sizes, _workload(request, sizes), lowest).peak.total, device)


def _workload(request: Completed, sizes: Sizes) -> Workload:
    mode = modes.mode_of(request)
    prepared = mode.prepare(request, request.region)
    work = Workload.of(request.duration, request.caption, request.lyrics, sizes.vae)
    if prepared.edit is not None:
        before = modes.source_description(request)
        other = Workload.of(request.duration, before.caption, before.lyrics, sizes.vae)
        work = replace(
            work,
            text_tokens=max(work.text_tokens, other.text_tokens),
            lyric_tokens=max(work.lyric_tokens, other.lyric_tokens),
            edit_draws=prepared.edit.average,
        )
    return replace(
        work,
        conditions=1 + (prepared.second_phase is not None) + (prepared.edit is not None),
        source=request.source is not None,
        waveform_frames=0 if request.region is None else sizes.vae.latent_frames(request.region.song_seconds),
        encodes_source=request.encodes_source,
        references=len(request.reference or ()),
        reference_seconds=request.reference_seconds,
    )


def fallbacks_of(plan: Plan, device: Device) -> list[str]:
    """Return the sentence of each memory fallback that `plan` takes on `device` and not every plan does."""
    top = fallbacks.fastest_arrangement(device, plan.dtype, int8_arithmetic=plan.int8_arithmetic)
    now = plan.arrangement
    found = []
    for fallback in LADDER:
        lower = None if fallback.apply is None else fallback.apply(top, device.backend)
        changed = (
            [] if lower is None else [name for name in top.settings() if getattr(lower, name) != getattr(top, name)]
        )
        if any(getattr(now, name) != getattr(top, name) for name in changed):
            found.append(fallback.sentence)
    return found


def _fit_arrangement(
    device: Device,
    dtype: DType,
    *,
    request: Completed,
    asked: MachineRequest,
    sizes: Sizes,
    host_free_bytes: int | None,
    past_renders: PastRenders,
) -> Plan:
    """Return the plan with the fewest fallbacks that fits into the memory of `device`.

    Raises `MemoryLimitError` where none does, and where what waits in main memory does not fit there.
    """
    top = fallbacks.fastest_arrangement(device, dtype, int8_arithmetic=device_choice.asks_int8(asked.dtype))
    known = past_renders.arrangement
    arrangement = top if known is None or not fallbacks.is_reachable(top, known, device.backend) else known
    budget = free_budget(device, asked.max_vram)
    model = _first_fitting(MemoryModel(sizes, _workload(request, sizes), arrangement), device, budget)
    if model is None:
        raise _memory_error(device, asked, request, sizes)
    _require_host_memory(model, request, device, host_free_bytes)
    model, shared = _share_passes(model, request, device, budget, past_renders)
    remembered = _changes(top, arrangement, "memory ran out in an earlier render without")
    alone = replace(model.arrangement, together=1)
    fitting = _changes(arrangement, alone, f"{format_size(budget)} are free for it, too little without")
    expected = _expected_stages(request, model, past_renders)
    return Plan(
        device=device.name,
        backend=device.backend,
        max_vram=asked.max_vram,
        budget_bytes=budget,
        stages=model.stages,
        longest_seconds=_longest_open(request, model, budget),
        seconds=_total_seconds(request, expected),
        expected=expected,
        reasons={**standing_reasons(device), **_int8_reasons(device, asked), **remembered, **fitting, **shared},
        **model.arrangement.settings(),
    )


def _int8_reasons(device: Device, asked: MachineRequest) -> dict[str, str]:
    """Return the reason for int8 arithmetic, and so for int8 weights, where it was asked for."""
    if not device_choice.asks_int8(asked.dtype):
        return {}
    return {
        "int8": "their products are int8",
        "int8_arithmetic": f"asked for, and the processor has {device.int8_flag}",
    }


def _first_fitting(model: MemoryModel, device: Device, budget: int) -> MemoryModel | None:
    """Return `model` with the fewest fallbacks by which its peak fits into `budget`; None where none are left."""
    while model.peak.total > budget:
        found = fallbacks.next_fallback(model.arrangement, device.backend, model.peak.name)
        if found is None:
            return None
        model = replace(model, arrangement=found[0])
    return model


def _require_host_memory(model: MemoryModel, request: Completed, device: Device, host_free_bytes: int | None) -> None:
    """Raise `MemoryLimitError` where what waits in main memory does not fit there.

    `host_free_bytes` is None where it cannot be told.
    """
    if host_free_bytes is None or model.host_bytes <= host_free_bytes * (1 - MARGIN):
        return
    waiting, free = format_gigabytes(model.host_bytes, up=True), format_gigabytes(host_free_bytes)
    raise MemoryLimitError(
        f"{request.duration:g} s of {request.model} do not fit into {device.name} ({device.title}) alone, and what "
        f"would be kept in main memory takes {waiting} of {free} free.",
        "Close other programs, or ask for a shorter song or a smaller model.",
    )


def _share_passes(
    model: MemoryModel, request: Completed, device: Device, budget: int, past_renders: PastRenders
) -> tuple[MemoryModel, dict[str, str]]:
    """Return `model` with as many takes in a forward pass as are wanted and fit into `budget`, and the reason for it.

    No other fallback is taken for it: it is slower alone, and makes a take no other.
    """
    if request.takes == 1 and request.together is None:
        return model, {}
    wanted, why = _wanted_together(request, device)
    if past_renders.most_together is not None and past_renders.most_together < wanted:
        wanted, why = past_renders.most_together, "memory ran out over more in an earlier render"
    for number in range(wanted, 1, -1):
        found = replace(model, arrangement=replace(model.arrangement, together=number))
        if found.peak.total <= budget:
            fits = why if number == wanted else f"more do not fit into {format_size(budget)}"
            return found, {"together": fits}
    return model, {"together": why if wanted == 1 else f"more do not fit into {format_size(budget)}"}


def _longest_open(request: Completed, model: MemoryModel, budget: int) -> int | None:
    """Return the longest song that a Songwriter may decide on, in seconds; None where it does not decide the length.

    It is a round length, so that the same seed makes the same song while a little more or less memory is free. A number
    of takes together that the plan chose does not shorten it: it is lowered where memory runs out.
    """
    if "duration" not in request.open:
        return None
    arrangement = model.arrangement if request.together else replace(model.arrangement, together=1)
    for seconds in ROUND_LENGTHS:
        work = _workload(request.model_copy(update={"duration": float(seconds)}), model.sizes)
        if seconds > request.duration and MemoryModel(model.sizes, work, arrangement).peak.total <= budget:
            return seconds
    return math.ceil(request.duration)


def _wanted_together(request: Completed, device: Device) -> tuple[int, str]:
    """Return how many takes are to share a forward pass where memory allows it, and the reason."""
    if modes.mode_of(request).describes_source:
        return 1, "edits are made one by one"
    if request.together is not None:
        few = "there are no more takes"
        return (request.takes, few) if request.takes < request.together else (request.together, "asked for")
    if device.backend == "cpu":
        return 1, "a processor is no faster with several"
    return min(request.takes, MOST_TOGETHER), "a card is busier with several"


def free_budget(device: Device, max_vram: int | None) -> int:
    """Return the bytes that a plan may fill on a device, within `max_vram`."""
    cap = device.free_bytes if max_vram is None else min(device.free_bytes, max_vram)
    return int(cap * (1 - MARGIN)) - RUNTIME_BYTES[device.backend]


def standing_reasons(device: Device) -> dict[str, str]:
    """Return the reasons that hold for every plan on `device`."""
    tiles = "larger tiles are no faster on a processor" if device.backend == "cpu" else "a card is busy with that much"
    return {"tile_frames": tiles}


def _changes(before: Arrangement, after: Arrangement, why: str) -> dict[str, str]:
    """Return the reason `why` for each setting in which `after` differs."""
    return {name: why for name, value in vars(after).items() if value != getattr(before, name)}


def _memory_error(device: Device, asked: MachineRequest, request: Completed, sizes: Sizes) -> MemoryLimitError:
    """Return the error for a request that does not fit into `device`, with the flag that would help."""
    least = least_bytes(request, asked, sizes, device)
    capped = asked.max_vram is not None and asked.max_vram <= device.free_bytes
    if capped and least <= device.free_bytes:
        return MemoryLimitError(
            f"--max-vram {format_size(asked.max_vram or 0)}: {request.duration:g} s of {request.model} take "
            f"{format_gigabytes(least, up=True)} on {device.name} at the least.",
            f"--max-vram {math.ceil(least / 1e8) / 10:g}G would do.",
        )
    other = "--model pocket sketches it" if request.model != "pocket" else "a machine with more memory does it"
    shorter = _longest_seconds(device, asked, request, sizes)
    hint = f"--duration {shorter} would fit; {other}." if shorter else f"{other[0].upper()}{other[1:]}."
    if device.backend in OWN_MEMORY:
        elsewhere = "--device cpu uses main memory; " if asked.device is not None else ""  # else it has been tried
        hint = f"Close what else uses the card; {elsewhere}{hint[0].lower()}{hint[1:]}"
    return MemoryLimitError(
        f"{request.duration:g} s of {request.model} do not fit into {device.name} ({device.title}): they take "
        f"{format_gigabytes(least, up=True)} at the least, and {format_gigabytes(device.free_bytes)} of "
        f"{format_gigabytes(device.total_bytes)} are free.",
        hint,
    )


def _longest_seconds(device: Device, asked: MachineRequest, request: Completed, sizes: Sizes) -> int | None:
    """Return the longest round length below the duration asked for that would fit; None where none would."""
    cap = min(device.free_bytes, asked.max_vram or device.free_bytes)
    for seconds in ROUND_LENGTHS:
        shorter = request.model_copy(update={"duration": float(seconds)})
        if seconds < request.duration and least_bytes(shorter, asked, sizes, device) <= cap:
            return seconds
    return None


def _free_bytes_needed(peak: int, device: Device) -> int:
    """Return the free bytes that a plan needs whose largest stage takes `peak` bytes."""
    return math.ceil((peak + RUNTIME_BYTES[device.backend]) / (1 - MARGIN))


def _expected_stages(request: Completed, model: MemoryModel, past_renders: PastRenders) -> dict[str, float] | None:
    """Return the expected seconds of a take by stage; None where no such render was measured."""
    key, alone = model.arrangement.speed_key, model.arrangement.weight_storage
    speed = past_renders.speeds.get(key) or past_renders.speeds.get(alone)
    if speed is None:
        return None
    stages = {
        "diffuse": diffusion_operations(request, model) / speed.operations_per_second,
        "decode": request.duration / speed.decoded_per_second,
    }
    overhead = past_renders.overheads.get(key) or past_renders.overheads.get(alone)
    if overhead is not None:
        stages |= {"startup": overhead.startup, "finish": request.duration * overhead.finishing_per_second}
        if request.open and overhead.writing_per_second is not None:
            stages["write"] = request.duration * overhead.writing_per_second
    return {stage: round(seconds, 3) for stage, seconds in stages.items()}


def _total_seconds(request: Completed, expected: Mapping[str, float] | None) -> float | None:
    """Return the expected seconds of all takes, without the start of the run; None where a stage is not known, as that
    of a Songwriter that no such render had.
    """
    if expected is None or (request.open and "startup" in expected and "write" not in expected):
        return None
    return round(request.takes * sum(seconds for stage, seconds in expected.items() if stage != "startup"), 1)


def measured_speed(request: Completed, plan: Plan, sizes: Sizes, timings: Mapping[str, float]) -> Speed | None:
    """Return the speed by the seconds of a take's stages; None where they were not measured."""
    diffusion, decoding = timings.get("diffuse", 0.0), timings.get("decode", 0.0)
    if diffusion <= 0 or decoding <= 0:
        return None
    model = MemoryModel(sizes, _workload(request, sizes), plan.arrangement)
    return Speed(diffusion_operations(request, model) / diffusion, request.duration / decoding)


def diffusion_operations(request: Completed, model: MemoryModel) -> float:
    """Return the arithmetic operations of the diffusion of one take."""
    edit = modes.mode_of(request).prepare(request, request.region).edit
    steps = request.step_count
    evaluations = steps * SOLVERS[request.solver].evaluations if edit is None else edit.evaluations(steps)
    return float(evaluations * (2 if request.guidance > 1 else 1) * model.step_operations)
