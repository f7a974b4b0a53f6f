"""History of the renders on this machine: the memory fallbacks that they needed, and their speed.

One small file in the user's state folder, which may be deleted at any time.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from acestep_cli import disk
from acestep_cli.machine.hardware import Device, DType
from acestep_cli.machine.memory import Arrangement
from acestep_cli.machine.plan import Overhead, PastRenders, Plan, Speed
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.song.complete import Completed

SCHEMA = "acestep-logbook/1"
NAME = "logbook.json"
#: A recorded fallback counts while no more memory than this factor is free.
MORE_FREE = 1.1
#: Weight of the newest render in a speed: other programs may have slowed it.
NEWEST = 0.5


class MemoryFallbackEntry(BaseModel):
    """An arrangement in which a render succeeded after memory had run out in a faster one."""

    model_config = ConfigDict(extra="forbid")

    free_bytes: Annotated[int, Field(ge=0)]
    tile_frames: PositiveInt
    one_network: bool
    int8: bool
    int8_arithmetic: bool = False
    streamed: bool
    vae_on_cpu: bool
    #: The most takes that could share a forward pass; None where that was not what memory ran out over.
    together: PositiveInt | None = None


class MeasuredSpeed(BaseModel):
    """The fields of `plan.Speed` as they are stored."""

    model_config = ConfigDict(extra="forbid")

    operations_per_second: PositiveFloat
    decoded_per_second: PositiveFloat


class MeasuredOverhead(BaseModel):
    """The fields of `plan.Overhead` as they are stored."""

    model_config = ConfigDict(extra="forbid")

    startup: NonNegativeFloat
    finishing_per_second: NonNegativeFloat
    writing_per_second: NonNegativeFloat | None = None


class TaskHistory(BaseModel):
    """History of one checkpoint, mode and dtype on one device.

    `descents` are fallbacks by whole seconds of music, `rates` and `overheads` are by `Arrangement.speed_key`.
    """

    model_config = ConfigDict(extra="forbid")

    descents: dict[int, MemoryFallbackEntry] = {}
    rates: dict[str, MeasuredSpeed] = {}
    overheads: dict[str, MeasuredOverhead] = {}


class RenderHistory(BaseModel):
    """Content of the history file."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(default=SCHEMA, alias="schema", pattern=f"^{SCHEMA}$")
    devices: dict[str, dict[str, TaskHistory]] = {}


def history_file() -> Path:
    return platformdirs.user_state_path("acestep") / NAME


def read_history() -> RenderHistory:
    """Return the stored history; an empty one where there is none that this version can read."""
    try:
        return RenderHistory.model_validate_json(history_file().read_bytes())
    except (OSError, ValidationError):
        return RenderHistory()


def task_of(request: Completed, checkpoint: Checkpoint) -> str:
    """Return the key of renders like this one in the history."""
    return f"{checkpoint.name} {request.mode}"


def recall_renders(
    history: RenderHistory, device: Device, task: str, dtype: DType, seconds: float, max_vram: int | None = None
) -> PastRenders:
    """Return the renders with `seconds` of music in the free memory of `device`, or in `max_vram` bytes of it."""
    known = history.devices.get(device_key(device), {}).get(task_key(task, dtype))
    if known is None:
        return PastRenders()
    fallbacks = [
        entry
        for length, entry in sorted(known.descents.items())
        if length <= seconds and available_bytes(device, max_vram) <= MORE_FREE * entry.free_bytes
    ]
    settings = fallbacks[-1].model_dump(exclude={"free_bytes", "together"}) if fallbacks else None
    arrangement = Arrangement(on_cpu=device.backend == "cpu", dtype=dtype, **settings) if settings else None
    return PastRenders(
        arrangement=arrangement,
        speeds={key: Speed(**rate.model_dump()) for key, rate in known.rates.items()},
        overheads={key: Overhead(**one.model_dump()) for key, one in known.overheads.items()},
        most_together=fallbacks[-1].together if fallbacks else None,
    )


def record_render(
    device: Device,
    task: str,
    plan: Plan,
    *,
    fallback_seconds: float | None,
    speed: Speed | None,
    most_together: int | None = None,
) -> None:
    """Record a render: the seconds of music at which it needed a fallback, if it did, and its speed; with the most
    takes that could share a forward pass, where memory ran out over more.

    Raises `OSError` where the state folder cannot be written.
    """
    history = read_history()
    known = history.devices.setdefault(device_key(device), {}).setdefault(task_key(task, plan.dtype), TaskHistory())
    if fallback_seconds is not None:
        settings = {name: value for name, value in plan.arrangement.settings().items() if name != "dtype"}
        settings |= {"free_bytes": available_bytes(device, plan.max_vram), "together": most_together}
        known.descents[int(fallback_seconds)] = MemoryFallbackEntry(**settings)
    if speed is not None:
        before = known.rates.get(plan.arrangement.speed_key)
        known.rates[plan.arrangement.speed_key] = MeasuredSpeed(**{
            name: value if before is None else NEWEST * value + (1 - NEWEST) * getattr(before, name)
            for name, value in asdict(speed).items()
        })  # fmt: skip
    write_history(history)


def record_overhead(device: Device, task: str, plan: Plan, overhead: Overhead) -> None:
    """Record what a run took beside diffusion and decoding; only where the speed of such a render is known too.

    Raises `OSError` where the state folder cannot be written.
    """
    history = read_history()
    known = history.devices.get(device_key(device), {}).get(task_key(task, plan.dtype))
    weights = plan.arrangement.speed_key
    if known is None or weights not in known.rates:
        return
    before = known.overheads.get(weights)
    values = {name: value for name, value in asdict(overhead).items() if value is not None}
    if before is not None:
        earlier = before.model_dump(exclude_none=True)
        values = earlier | {
            name: value if name not in earlier else NEWEST * value + (1 - NEWEST) * earlier[name]
            for name, value in values.items()
        }
    known.overheads[weights] = MeasuredOverhead(**values)
    write_history(history)


def write_history(history: RenderHistory) -> None:
    """Replace the history file. Raises `OSError` where it cannot be written."""
    content: dict[str, Any] = history.model_dump(by_alias=True)
    disk.replace_text(history_file(), json.dumps(content, indent=2) + "\n")


def available_bytes(device: Device, max_vram: int | None) -> int:
    """Return the bytes of memory that a render may take."""
    return device.free_bytes if max_vram is None else min(device.free_bytes, max_vram)


def device_key(device: Device) -> str:
    return f"{device.title}, {device.total_bytes >> 20} MiB"


def task_key(task: str, dtype: DType) -> str:
    return f"{task} {dtype}"
