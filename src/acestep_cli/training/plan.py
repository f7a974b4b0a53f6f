"""The plan of a training run: the memory of each stage, the fallbacks that need less, and how long it takes.

Weights, the adapter and its optimiser are counted exactly, activations by the numbers that the backward pass needs of
each token; `benchmarks/train_memory.py` compares the sum with what runs really take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from acestep_cli.disk import format_size
from acestep_cli.errors import MemoryLimitError, UsageError
from acestep_cli.machine import device_choice, fallbacks, hardware
from acestep_cli.machine import plan as planning
from acestep_cli.machine.hardware import Device, DType, Hardware
from acestep_cli.machine.memory import FLOAT32, MARGIN, RUNTIME_BYTES, Arrangement, MemoryModel, StageMemory, Workload
from acestep_cli.machine.plan import MachineRequest, PastRenders, Plan, Speed
from acestep_cli.models.sizes import Sizes
from acestep_cli.training.config import TrainingConfig

#: In float16 gradients of most songs are too small to be numbers.
DTYPES: tuple[DType, ...] = ("bfloat16", "float32")
#: Numbers a layer keeps for the backward pass, for each token: of the stream's width, of queries, of keys, of the MLP.
STREAMS, QUERIES, KEYS, INNER = 12, 6, 6, 4
#: Bytes that an adapted matrix keeps of each of its inputs: in float32 before and after dropout, and the mask.
ADAPTED_INPUT = 9
#: Float32 copies of each of the adapter's weights: itself and its gradient; the optimiser's two, in four bytes or one.
ADAPTER_BYTES = 2 * FLOAT32
OPTIMISER_BYTES = {"adamw": 2 * FLOAT32, "adamw8bit": 2}
#: What the speed of a training is known by. A step takes longer than renders tell: it goes back, too.
TRAININGS, RENDERS = "by the trainings before on this machine", "by the speed of renders"
#: Passes' worth of multiplications: forward, and back to the inputs; the frozen weights take no gradient.
PASSES = 2


class TrainingPlan(Plan):
    """The way that this machine trains. `checkpointed` layers are computed again in the backward pass; the optimiser is
    that of the configuration, unless it was left open. `seconds` is of all steps, `operations` are theirs.
    """

    checkpointed: bool = False
    optimiser: str = "adamw"
    operations: float = 0.0
    #: Seconds of the songs that are encoded in a second; None where `seconds` is.
    encoded_per_second: float | None = None


class PastRuns(NamedTuple):
    """Speeds of runs on a device: of trainings, which say what songs they encoded in a second in the place of what is
    decoded; and of renders, for the first training.
    """

    trainings: PastRenders = PastRenders()
    renders: PastRenders = PastRenders()

    def speed(self, arrangement: Arrangement) -> tuple[Speed | None, str]:
        """Return the speed of an arrangement, and what was timed."""
        own = self.trainings.speeds.get(arrangement.weight_storage)
        return (own, TRAININGS) if own is not None else (self.renders.speeds.get(arrangement.weight_storage), RENDERS)

    def startup(self, arrangement: Arrangement) -> float:
        """Return the seconds that a render with this arrangement takes to start; 0 where none was timed."""
        known = self.renders.overheads.get(arrangement.weight_storage)
        return 0.0 if known is None else known.startup


class LongestExample(NamedTuple):
    """The size of the largest example: latent frames and tokens of the longest song."""

    frames: int
    text_tokens: int
    lyric_tokens: int


@dataclass(frozen=True)
class TrainingMemory:
    """The memory of one way to train."""

    sizes: Sizes
    config: TrainingConfig
    longest: LongestExample
    arrangement: Arrangement
    checkpointed: bool
    #: Whether renders are made between steps.
    previews: bool = False

    @property
    def render(self) -> MemoryModel:
        """The memory of a render of the longest song, whose first stages a training run shares."""
        return MemoryModel(self.sizes, Workload(*self.longest), self.arrangement)

    @property
    def _matrices(self) -> list[tuple[int, int]]:
        """The adapted matrices of all layers, [out, in]."""
        named = self.sizes.dit.decoder_matrices.items()
        return [shape for name, shape in named if name.rpartition(".")[2] in self.config.modules]

    @property
    def adapter_parameters(self) -> int:
        """The parameters of a LoRA, and an upper bound for other kinds."""
        return sum(self.config.rank * (outputs + inputs) for outputs, inputs in self._matrices)

    @property
    def adapter_bytes(self) -> int:
        return self.adapter_parameters * (ADAPTER_BYTES + OPTIMISER_BYTES[self.config.optimiser])

    @property
    def layer_bytes(self) -> int:
        """Bytes that one layer keeps for the backward pass."""
        dit, element = self.sizes.dit, self.render.element
        queries, keys = dit.num_attention_heads * dit.head_dim, dit.num_key_value_heads * dit.head_dim
        numbers = STREAMS * dit.hidden_size + QUERIES * queries + KEYS * keys + INNER * dit.intermediate_size
        adapted = ADAPTED_INPUT * sum(inputs for _, inputs in self._matrices) // dit.num_hidden_layers
        return self.config.batch * self.render.tokens * (numbers * element + adapted)

    @property
    def step_bytes(self) -> int:
        """Bytes of the activations of a forward and a backward pass, without weights and adapter."""
        dit, layers = self.sizes.dit, self.sizes.dit.num_hidden_layers
        stream = self.config.batch * self.render.tokens * dit.hidden_size * self.render.element
        activations = layers * stream + self.layer_bytes if self.checkpointed else layers * self.layer_bytes
        return activations + self.config.batch * (self.render.cross_kv_bytes + self.render.latent_bytes)

    @property
    def encoding_bytes(self) -> int:
        """Bytes to encode the longest song: its widest tile, and on a processor its waveform as read and resampled."""
        encoding = replace(self.render, work=replace(self.render.work, encodes_source=True))
        return encoding.encoding_bytes + (2 * encoding.waveform_bytes if self.arrangement.on_cpu else 0)

    @property
    def stages(self) -> tuple[StageMemory, ...]:
        """The stages of a training run, in order."""
        render = self.render
        dit = {"dit": render.dit_bytes}
        found = [
            StageMemory("encode", {"vae": render.vae_bytes}, self.encoding_bytes),
            *(stage for stage in render.stages if stage.name in ("text", "condition")),
            StageMemory("train", {**dit, "adapter": self.adapter_bytes}, self.step_bytes),
        ]
        if self.previews:
            found += [
                StageMemory(stage.name, {**stage.resident, **dit, "adapter": self.adapter_bytes}, stage.working)
                for stage in render.stages
                if stage.name in ("text", "diffuse", "decode")
            ]
        return tuple(found)

    @property
    def peak(self) -> StageMemory:
        return max(self.stages, key=lambda stage: stage.total)

    @property
    def operations(self) -> float:
        """Multiplications of the whole run."""
        passes = self.config.steps * self.config.accumulation * self.config.batch
        return passes * (PASSES + self.checkpointed) * self.render.step_operations


def plan_training(
    machine: Hardware,
    config: TrainingConfig,
    asked: MachineRequest,
    sizes: Sizes,
    longest: LongestExample,
    past_runs: Callable[[Device, DType], PastRuns],
    *,
    previews: bool = False,
    eight_bits: bool = False,
) -> TrainingPlan:
    """Plan a training run on this machine; pure. The fastest way that fits is taken: everything in memory, else with
    gradient checkpointing, else, for a LoRA, with the frozen weights in int8 too; each with small tiles if need be.

    With `eight_bits` the optimiser is open, and keeps its state in eight bits on CUDA cards. Raises `UsageError` where
    the device or number format asked for is not there, and `MemoryLimitError` where it fits nowhere.
    """
    found, why = device_choice.candidate_devices(machine, asked.device)
    failure: MemoryLimitError | None = None
    for device in device_choice.devices_with_dtype(found, asked.dtype):
        dtype, dtype_reason = frozen_dtype(device, asked.dtype)
        if eight_bits:
            config = config.model_copy(update={"optimiser": "adamw8bit" if device.backend == "cuda" else "adamw"})
        need = TrainingMemory(
            sizes, config, longest, fallbacks.fastest_arrangement(device, dtype), checkpointed=False, previews=previews
        )
        budget = planning.free_budget(device, asked.max_vram)
        ways = list(memory_fallbacks(need))
        fitting = next((way for way in ways if way.peak.total <= budget), None)
        if fitting is None:
            failure = failure or memory_error(ways[-1], device, budget)
            why = f"it does not fit into {device.name}"
            continue
        plan = plan_of(fitting, need, device, budget, past_runs(device, dtype))
        reasons = {"device": why, "dtype": dtype_reason, **plan.reasons}
        return plan.model_copy(update={"max_vram": asked.max_vram, "reasons": reasons})
    assert failure is not None
    raise failure


def plan_of(
    fitting: TrainingMemory, need: TrainingMemory, device: Device, budget: int, past_runs: PastRuns
) -> TrainingPlan:
    """Return the plan of the way that fits into `budget` bytes of a device; `need` is the fastest way."""
    speed, source = past_runs.speed(fitting.arrangement)
    return TrainingPlan(
        device=device.name,
        backend=device.backend,
        budget_bytes=budget,
        stages=fitting.stages,
        seconds=None if speed is None else fitting.operations / speed.operations_per_second,
        expected=None if speed is None else {"startup": past_runs.startup(fitting.arrangement)},
        operations=fitting.operations,
        encoded_per_second=None if speed is None else speed.decoded_per_second,
        reasons={
            **planning.standing_reasons(device),
            **fallback_reasons(need, fitting, budget),
            **({} if speed is None else {"seconds": source}),
        },
        checkpointed=fitting.checkpointed,
        optimiser=fitting.config.optimiser,
        **fitting.arrangement.settings(),
    )


def fallback_reasons(need: TrainingMemory, fitting: TrainingMemory, budget: int) -> dict[str, str]:
    """Return the reason for each setting in which the fitting way differs from the fastest one."""
    taken = {
        "checkpointed": fitting.checkpointed,
        "int8": fitting.arrangement.int8,
        "tile_frames": fitting.arrangement.tile_frames != need.arrangement.tile_frames,
    }
    return {name: f"{format_size(budget)} are free for it, too little without" for name in taken if taken[name]}


def memory_fallbacks(need: TrainingMemory) -> Iterator[TrainingMemory]:
    """Yield the ways to train, each with less memory than the one before."""
    plain = replace(need.arrangement, one_network=not need.previews)
    ways = [(plain, False), (plain, True)]
    if need.config.type == "lora":  # the other kinds compute with the frozen weights
        ways.append((replace(plain, int8=True), True))
    for arrangement, checkpointed in ways:
        for tile in (arrangement.tile_frames, fallbacks.SMALLEST_TILE_FRAMES):  # songs are encoded in smaller pieces
            yield replace(need, arrangement=replace(arrangement, tile_frames=tile), checkpointed=checkpointed)


def frozen_dtype(device: Device, asked: str | None) -> tuple[DType, str]:
    """Return the number format of the frozen weights on a device, and the reason for it."""
    if asked is not None and asked.lower() == hardware.INT8:
        raise UsageError("--dtype int8: is for renders; an adapter is trained in bf16 or fp32.", "Leave --dtype out.")
    if asked is not None:
        named = hardware.DTYPES[asked.lower()]
        if named not in DTYPES:
            raise UsageError(
                f"--dtype {asked}: gradients underflow in it; an adapter is trained in bf16 or fp32.",
                "Leave --dtype out.",
            )
        return named, "asked for"
    best = next(dtype for dtype in device.dtypes if dtype in DTYPES)
    return best, device.dtype_reason if best == device.dtypes[0] else "gradients underflow in float16"


def memory_error(least: TrainingMemory, device: Device, budget: int) -> MemoryLimitError:
    """Return the error of a run that fits nowhere, with the flags that would help."""
    free = budget + RUNTIME_BYTES[device.backend]
    total = math.ceil((least.peak.total + RUNTIME_BYTES[device.backend]) / (1 - MARGIN))
    one_song = replace(least, config=least.config.model_copy(update={"batch": 1}))
    frames = least.longest.frames
    while frames > 1 and replace(one_song, longest=least.longest._replace(frames=frames)).peak.total > budget:
        frames //= 2
    seconds = frames * least.sizes.vae.hop // least.sizes.vae.sampling_rate
    crop = f"--crop {seconds} with --batch 1 would fit; " if seconds >= 10 and frames < least.longest.frames else ""
    batch = "--batch 1 would fit; " if least.config.batch > 1 and one_song.peak.total <= budget else crop
    return MemoryLimitError(
        f"Training takes {format_size(total)} on {device.name} ({device.title}) at the least, and "
        f"{format_size(free)} are free.",
        f"{batch}--rank 16 takes less room, --model pocket tries it out.",
    )


def longest_example(sizes: Sizes, seconds: float, prompts: list[tuple[str, str]]) -> LongestExample:
    """Return the size of the largest example among songs of at most `seconds` with these prompts."""
    works = [Workload.of(seconds, text, lyrics, sizes.vae) for text, lyrics in prompts]
    return LongestExample(
        frames=works[0].frames,
        text_tokens=max(work.text_tokens for work in works),
        lyric_tokens=max(work.lyric_tokens for work in works),
    )
