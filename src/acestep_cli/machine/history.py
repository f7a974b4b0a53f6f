"""What renders on this machine taught: how far down the ladder memory drove them, and how fast they were.

One small file in the user's state folder, which may be deleted at any time.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from acestep_cli import disk
from acestep_cli.machine.hardware import Device, DType
from acestep_cli.machine.memory import Arrangement
from acestep_cli.machine.plan import Experience, Plan, Speed

SCHEMA = "acestep-logbook/1"
NAME = "logbook.json"
#: A descent counts as long as not much more memory is free than it was then.
MORE_FREE = 1.1
#: How much the newest render counts in a speed: others at work may have slowed it.
NEWEST = 0.5


class MemoryFallbackEntry(BaseModel):
    """An arrangement in which a render of some length went through after memory had run out in a higher one."""

    model_config = ConfigDict(extra="forbid")

    free_bytes: Annotated[int, Field(ge=0)]
    tile_frames: PositiveInt
    one_network: bool
    int8: bool
    streamed: bool
    vae_on_cpu: bool


class MeasuredSpeed(BaseModel):
    """Speeds as in `planning.Speed`."""

    model_config = ConfigDict(extra="forbid")

    operations_per_second: PositiveFloat
    decoded_per_second: PositiveFloat


class TaskHistory(BaseModel):
    """What is known of one checkpoint, mode and number format on one device: descents by whole seconds of music."""

    model_config = ConfigDict(extra="forbid")

    descents: dict[int, MemoryFallbackEntry] = {}
    rates: dict[str, MeasuredSpeed] = {}


class RenderHistory(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid")

    version: str = Field(default=SCHEMA, alias="schema", pattern=f"^{SCHEMA}$")
    devices: dict[str, dict[str, TaskHistory]] = {}


def history_file() -> Path:
    return platformdirs.user_state_path("acestep") / NAME


def read_history() -> RenderHistory:
    """What there is; an empty book where there is none, or none that this version can read."""
    try:
        return RenderHistory.model_validate_json(history_file().read_bytes())
    except (OSError, ValidationError):
        return RenderHistory()


def recall_experience(
    book: RenderHistory, device: Device, task: str, dtype: DType, seconds: float, max_vram: int | None = None
) -> Experience:
    """What is known that bears on `seconds` of music in the memory that is free, or `max_vram` of it."""
    known = book.devices.get(device_key(device), {}).get(task_key(task, dtype))
    if known is None:
        return Experience()
    held = [
        descent
        for length, descent in sorted(known.descents.items())
        if length <= seconds and available_bytes(device, max_vram) <= MORE_FREE * descent.free_bytes
    ]
    settings = held[-1].model_dump(exclude={"free_bytes"}) if held else None
    arrangement = Arrangement(on_cpu=device.backend == "cpu", dtype=dtype, **settings) if settings else None
    return Experience(arrangement, {weights: Speed(**rate.model_dump()) for weights, rate in known.rates.items()})


def record_render(device: Device, task: str, plan: Plan, *, descended: float | None, speed: Speed | None) -> None:
    """Write down how a render went: the length in seconds at which it had to step down, if it did, and its speed.

    Raises `OSError` where the state folder cannot be written.
    """
    book = read_history()
    known = book.devices.setdefault(device_key(device), {}).setdefault(task_key(task, plan.dtype), TaskHistory())
    if descended is not None:
        settings = {name: value for name, value in plan.arrangement.settings().items() if name != "dtype"}
        known.descents[int(descended)] = MemoryFallbackEntry(
            free_bytes=available_bytes(device, plan.max_vram), **settings
        )
    if speed is not None:
        before = known.rates.get(plan.arrangement.weights)
        known.rates[plan.arrangement.weights] = MeasuredSpeed(**{
            name: value if before is None else NEWEST * value + (1 - NEWEST) * getattr(before, name)
            for name, value in asdict(speed).items()
        })  # fmt: skip
    write_history(book)


def write_history(book: RenderHistory) -> None:
    """Put the file in place at once, so that no other run reads half of it."""
    content: dict[str, Any] = book.model_dump(by_alias=True)
    disk.replace_text(history_file(), json.dumps(content, indent=2) + "\n")


def available_bytes(device: Device, max_vram: int | None) -> int:
    """The memory that a render may take."""
    return device.free_bytes if max_vram is None else min(device.free_bytes, max_vram)


def device_key(device: Device) -> str:
    return f"{device.title}, {device.total_bytes >> 20} MiB"


def task_key(task: str, dtype: DType) -> str:
    return f"{task} {dtype}"
