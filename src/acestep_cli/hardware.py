"""What this machine can do, and what it will do for one request, with the reason for each choice.

Nothing here imports torch: `--device cuda` on a machine without one is refused at once.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from acestep_cli.errors import UsageError
from acestep_cli.request import Request

DType = Literal["bfloat16", "float32"]
# float16 is not among them: it overflows in the lyric encoder (dit.md 7.2) and waits for its float32 islands.
DTYPES: dict[str, DType] = {
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp32": "float32",
    "float32": "float32",
}
BF16_CPU_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")  # x86, x86, Arm
CUDA_BF16_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Device:
    """One device: `name` as torch spells it, its dtypes, best first, and why that one is best."""

    name: str
    title: str
    memory_gb: float
    dtypes: tuple[DType, ...]
    dtype_reason: str


@dataclass(frozen=True)
class Hardware:
    """The devices of this machine, the preferred one first, and what the installed torch was built for."""

    devices: tuple[Device, ...]
    torch_backend: str | None = None


@dataclass(frozen=True)
class Asked:
    """What the user asked of the machine; `None` leaves the choice to the plan."""

    device: str | None = None
    dtype: str | None = None


class Plan(BaseModel):
    """What this machine will do for one request, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    dtype: DType
    tile_frames: int
    reasons: dict[str, str]


def detect() -> Hardware:
    """Look at this machine."""
    return Hardware((*cuda_devices(), *mps_devices(), cpu_device()), torch_backend())


def cpu_device() -> Device:
    """The processor, and whether it multiplies bfloat16 in hardware."""
    flag = next((f for f in BF16_CPU_FLAGS if f in cpu_flags()), None)
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    if flag:
        return Device("cpu", cpu_title(), memory_gb, ("bfloat16", "float32"), f"the processor has {flag}")
    reason = "the processor has no bfloat16 arithmetic"
    return Device("cpu", cpu_title(), memory_gb, ("float32",), reason)


def cpu_flags() -> frozenset[str]:
    """Instruction sets as Linux lists them; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return frozenset()
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info.read_text(), re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def cpu_title() -> str:
    return platform.processor() or platform.machine()


def torch_backend() -> str | None:
    """`cuda`, `rocm` or None, read from the installed torch's version file without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text()
    built_for = dict(re.findall(r"^(cuda|hip)\b[^=]*=\s*['\"](.+)['\"]", text, re.MULTILINE))
    return "rocm" if "hip" in built_for else "cuda" if "cuda" in built_for else None


def cuda_devices() -> tuple[Device, ...]:
    """NVIDIA cards that the driver reports and the installed torch can use, most memory first.

    Source: CUDA driver API (cuDeviceGetCount, cuDeviceGetAttribute 75 and 76, cuDeviceTotalMem).
    """
    if torch_backend() != "cuda":
        return ()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return ()  # no driver, so no card
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    found = []
    for index in range(count.value):
        handle, memory, title = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(handle), index)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
        driver.cuDeviceGetName(title, len(title), handle)
        capability = []
        for attribute in (75, 76):  # compute capability, major and minor
            value = ctypes.c_int()
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
            capability.append(value.value)
        version = ".".join(map(str, capability))
        if tuple(capability) >= CUDA_BF16_CAPABILITY:
            dtypes: tuple[DType, ...] = ("bfloat16", "float32")
            reason = f"compute capability {version} has bfloat16"
        else:
            dtypes, reason = ("float32",), f"compute capability {version} has no bfloat16"
        found.append(Device(f"cuda:{index}", title.value.decode(), memory.value / 2**30, dtypes, reason))
    return tuple(sorted(found, key=lambda device: -device.memory_gb))


def mps_devices() -> tuple[Device, ...]:
    """The GPU of an Apple-silicon Mac."""
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return ()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (Device("mps", "Apple GPU", memory_gb, ("float32",), "float32 is what ACE-Step is known to run in there"),)


def plan(hardware: Hardware, request: Request, asked: Asked) -> Plan:
    """Decide device and dtype; pure. `UsageError` when what was asked for is not there."""
    reasons = {}
    if asked.device is None:
        device = hardware.devices[0]
        reasons["device"] = "the first of " + ", ".join(d.name for d in hardware.devices) + f" ({device.title})"
    else:
        matches = [d for d in hardware.devices if asked.device in (d.name, d.name.split(":")[0])]
        if not matches:
            here = ", ".join(d.name for d in hardware.devices)
            why = "" if hardware.torch_backend else " (the installed torch is a CPU build)"
            raise UsageError(
                f"--device {asked.device}: this machine has no such device; it has {here}{why}.",
                f"Leave --device out, or use --device {hardware.devices[0].name}.",
            )
        device, reasons["device"] = matches[0], "asked for"
    if asked.dtype is None:
        dtype, reasons["dtype"] = device.dtypes[0], device.dtype_reason
    else:
        named = DTYPES.get(asked.dtype)
        if named is None:
            raise UsageError(
                f"--dtype {asked.dtype}: is not one of {', '.join(DTYPES)}; float16 overflows in the lyric encoder."
            )
        if named not in device.dtypes:
            raise UsageError(
                f"--dtype {asked.dtype}: {device.name} cannot use it here ({device.dtype_reason}).",
                f"It has {', '.join(device.dtypes)}; leave --dtype out for {device.dtypes[0]}.",
            )
        dtype, reasons["dtype"] = named, "asked for"
    tile_frames = 256 if device.name.startswith("cuda") else 128
    reasons["tile_frames"] = "smaller tiles decode their margins more often than memory is worth"
    return Plan(device=device.name, dtype=dtype, tile_frames=tile_frames, reasons=reasons)
