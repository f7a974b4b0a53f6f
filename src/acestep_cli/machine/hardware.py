"""The devices of this machine, with their memory and number formats, best first.

Nothing here imports torch, so that `--device cuda` on a machine without a card is refused at once. Cards are found
through the libraries of their drivers, or the files of the system.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

#: Backends with memory of their own. Others share the processor's, and moving weights there would free none.
OWN_MEMORY = ("cuda", "rocm", "xpu")
DType = Literal["bfloat16", "float16", "float32"]
Backend = Literal["cuda", "rocm", "xpu", "mps", "cpu"]
DTYPES: dict[str, DType] = {
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
    "fp32": "float32",
    "float32": "float32",
}
BYTES: dict[DType, int] = {"bfloat16": 2, "float16": 2, "float32": 4}
BF16_CPU_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")  # x86, x86, Arm
#: The name by which `--dtype` asks for int8 arithmetic, and the instructions that make it faster than bfloat16.
INT8 = "int8"
INT8_CPU_FLAGS = ("amx_int8", "avx512_vnni")
CUDA_BF16_CAPABILITY = (8, 0)
#: AMD's matrix units know bfloat16 from these architectures on: CDNA 2 (gfx90a), RDNA 3 (gfx11).
ROCM_BF16 = re.compile(r"gfx(90a|94\d|95\d|1[12]\d\d)")
#: A Mac lends its GPU about two thirds of the memory that both share.
MPS_SHARE = 2 / 3
GIB = 2**30
XPU_INTEGRATED = 1
MOST_THREADS = 1024

C = TypeVar("C")


@dataclass(frozen=True)
class Device:
    """A device: its `name` in torch, its memory, its dtypes, best first, and the reason for the best one.

    `free_bytes` is the memory that no other program uses now.
    """

    name: str
    backend: Backend
    title: str
    total_bytes: int
    free_bytes: int
    dtypes: tuple[DType, ...]
    dtype_reason: str
    #: Compute capability or architecture, where there is such a thing.
    capability: str | None = None
    #: The instructions for products of int8 matrices, where they are faster than those of `dtypes`.
    int8_flag: str | None = None


@dataclass(frozen=True)
class Hardware:
    """The devices of this machine, the preferred one first, and the backend of the installed torch."""

    devices: tuple[Device, ...]
    torch_backend: Backend | None = None
    #: Threads to compute with on the processor, and the reason for that number; None leaves it to torch.
    threads: int | None = None
    threads_reason: str = ""


def detect() -> Hardware:
    """Detect the devices of this machine. Of several cards, the one with most free memory comes first."""
    backend = torch_backend()
    list_cards = {"cuda": cuda_devices, "rocm": rocm_devices, "xpu": xpu_devices}.get(backend or "")
    cards = sorted(list_cards() if list_cards else (), key=lambda card: -card.free_bytes)
    return Hardware((*cards, *mps_devices(), cpu_device()), backend, *threads())


def threads() -> tuple[int, str]:
    """Return the number of threads to compute with on the processor, and the reason for it.

    It is decided here because samples depend on it: oneDNN's convolutions in the autoencoder add in another order with
    another number of threads, and in float32 so does torch's attention of a single query, which the Songwriter has.
    The encoders of text and conditions and the diffusion give the same bits (`benchmarks/threads.py`). In float32,
    MKL's products of 6, 7 and 10 rows do not, and every prompt is longer.
    """
    limit = _threads_in("OMP_THREAD_LIMIT") or MOST_THREADS
    if (asked := _threads_in("OMP_NUM_THREADS")) is not None:
        count, reason = asked, "OMP_NUM_THREADS says so"
    else:
        count, reason = max(1, min(_usable_cores(), MOST_THREADS)), "one for each core that this process may use"
    return (limit, "OMP_THREAD_LIMIT allows no more") if count > limit else (count, reason)


def _threads_in(variable: str) -> int | None:
    """Return the number of threads that a variable of the environment names; None where it names none."""
    value = os.environ.get(variable, "").split(",")[0].strip()
    return int(value) if value.isdecimal() and 1 <= int(value) <= MOST_THREADS else None


def _usable_cores() -> int:
    """Return the number of cores that this process may use."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def torch_backend() -> Backend | None:
    """Return the backend of the installed torch, read from its version file without an import; None for a CPU build."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    built_for = dict(re.findall(r"^(cuda|hip|xpu)\b[^=]*=\s*['\"](.+)['\"]", text, re.MULTILINE))
    return "rocm" if "hip" in built_for else "cuda" if "cuda" in built_for else "xpu" if "xpu" in built_for else None


def main_memory() -> tuple[int, int]:
    """Return total and free bytes of main memory, within the limit of a container."""
    import psutil

    state = psutil.virtual_memory()
    total, free = int(state.total), int(state.available)
    for limit, used in _container_limits():
        total, free = min(total, limit), min(free, max(limit - used, 0))
    return total, free


def used_bytes(name: str) -> int:
    """Return the bytes that this process holds: on the device `name`, once torch is loaded, else in main memory."""
    torch: Any = sys.modules.get("torch")
    kind = name.split(":")[0]
    if torch is not None and kind in ("cuda", "xpu"):
        return int(getattr(torch, kind).memory_reserved(name))
    if torch is not None and kind == "mps":
        return int(torch.mps.driver_allocated_memory())
    import psutil

    return int(psutil.Process().memory_info().rss)


def _container_limits(
    root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")
) -> Iterator[tuple[int, int]]:
    """Yield limit and used bytes of the control group of this process and of each group around it (cgroup v2 or v1).

    File pages that the system may drop do not count as used.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            top, files = root, ("memory.max", "memory.current", "inactive_file")
        elif controllers == "memory":
            top = root / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = top / name.lstrip("/")
        for group in [own, *own.parents]:
            if group == top or top in group.parents:
                yield from _limit(group, *files)


def _limit(group: Path, limit: str, used: str, cache: str) -> Iterator[tuple[int, int]]:
    """Yield limit and used bytes of one control group; nothing where it has no limit."""
    try:
        most = (group / limit).read_text(encoding="utf-8").strip()
        now = int((group / used).read_text(encoding="utf-8"))
        counted = (group / "memory.stat").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return
    droppable = re.search(rf"^{cache} (\d+)$", counted, re.MULTILINE)
    if most.isdigit():
        yield int(most), now - (int(droppable[1]) if droppable else 0)


def cpu_device() -> Device:
    """Return the processor, with bfloat16 first where its hardware multiplies it."""
    flags = cpu_flags()
    flag = next((f for f in BF16_CPU_FLAGS if f in flags), None)
    int8_flag = next((f for f in INT8_CPU_FLAGS if f in flags), None)
    dtypes: tuple[DType, ...] = ("bfloat16", "float32") if flag else ("float32",)
    reason = f"the processor has {flag}" if flag else "the processor has no bfloat16 arithmetic"
    return Device("cpu", "cpu", cpu_title(), *main_memory(), dtypes, reason, int8_flag=int8_flag)


def cpu_flags() -> frozenset[str]:
    """Return the names of instruction sets from Linux; empty elsewhere."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", _cpu_info(), re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def cpu_title() -> str:
    named = re.search(r"^model name\s*:\s*(.*)$", _cpu_info(), re.MULTILINE)
    return (named[1].strip() if named else "") or platform.processor() or platform.machine()


def _cpu_info() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""


def mps_devices() -> tuple[Device, ...]:
    """Return the GPU of an Apple-silicon Mac, if this is one."""
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return ()
    total, free = main_memory()
    usable = int(total * MPS_SHARE)
    reason = "float32 is what ACE-Step is known to run in there"
    return (Device("mps", "mps", "Apple GPU", usable, min(usable, free), ("float32",), reason),)


def cuda_devices() -> tuple[Device, ...]:
    """Return the NVIDIA cards that the driver reports.

    Source: CUDA driver API (cuDeviceGetCount, cuDeviceGetAttribute 75 and 76, cuDeviceTotalMem, cuDeviceGetUuid).
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return ()  # no driver, so no card
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    found = []
    for index in range(count.value):
        handle, total, title = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
        uuid = (ctypes.c_ubyte * 16)()
        if driver.cuDeviceGet(ctypes.byref(handle), index) != 0:
            continue
        if driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle) != 0:
            continue
        driver.cuDeviceGetName(title, len(title), handle)
        driver.cuDeviceGetUuid_v2(ctypes.byref(uuid), handle)  # of a slice of a card, the slice's own
        capability = []
        for attribute in (75, 76):  # compute capability, major and minor
            value = ctypes.c_int()
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
            capability.append(value.value)
        free = nvml_free_bytes(bytes(uuid))
        found.append(cuda_device(index, title.value.decode(), capability, total.value, free))
    return tuple(found)


def cuda_device(index: int, title: str, capability: Sequence[int], total: int, free: int | None) -> Device:
    """Return an NVIDIA card with the dtypes of its compute capability. Where `free` is None, all memory is."""
    version = ".".join(map(str, capability))
    if tuple(capability) >= CUDA_BF16_CAPABILITY:
        dtypes: tuple[DType, ...] = ("bfloat16", "float16", "float32")
        reason = f"compute capability {version} has bfloat16"
    else:
        dtypes = ("float16", "float32")
        reason = f"compute capability {version} has no bfloat16; what overflows float16 runs in float32"
    free = total if free is None else min(free, total)
    return Device(f"cuda:{index}", "cuda", title, total, free, dtypes, reason, version)


def nvml_free_bytes(uuid: bytes) -> int | None:
    """Return the free bytes of a card; None where NVML cannot tell. A CUDA context would itself take half a gigabyte.

    Source: NVML API (nvmlDeviceGetHandleByUUID, nvmlDeviceGetMemoryInfo).
    """
    try:
        library = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
    except OSError:
        return None
    if library.nvmlInit_v2() != 0:
        return None
    groups = (uuid[0:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:16])
    name = "-".join(group.hex() for group in groups).encode()
    try:
        for kind in (b"MIG-", b"GPU-"):  # a slice of a card before the card
            handle, figures = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used
            if library.nvmlDeviceGetHandleByUUID(kind + name, ctypes.byref(handle)) != 0:
                continue
            if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(figures)) == 0:
                return figures[1]
        return None
    finally:
        library.nvmlShutdown()


def rocm_devices(root: Path = Path("/sys/class")) -> tuple[Device, ...]:
    """Return the AMD cards that Linux lists, in the order of ROCm.

    Source: the kernel's amdkfd topology (simd_count, gfx_target_version, drm_render_minor) and amdgpu's
    mem_info_vram_total and mem_info_vram_used.
    """
    nodes = sorted((root / "kfd/kfd/topology/nodes").glob("*"), key=lambda node: int(node.name))
    cards: list[tuple[str, str, int, int]] = []
    for node in nodes:
        try:
            facts = dict(line.split() for line in (node / "properties").read_text(encoding="utf-8").splitlines())
            if int(facts["simd_count"]) == 0:  # a processor
                continue
            card = root / f"drm/renderD{facts['drm_render_minor']}/device"
            total = int((card / "mem_info_vram_total").read_text(encoding="utf-8"))
            used = int((card / "mem_info_vram_used").read_text(encoding="utf-8"))
        except (OSError, KeyError, ValueError):
            continue
        version = int(facts.get("gfx_target_version", 0))
        architecture = f"gfx{version // 10_000}{version // 100 % 100:x}{version % 100:x}"
        named = card / "product_name"
        title = named.read_text(encoding="utf-8").strip() if named.is_file() else f"AMD {architecture}"
        cards.append((title, architecture, total, total - used))
    for variable in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):  # the driver's choice, then the runtime's of it
        cards = visible_cards(cards, os.environ.get(variable))
    return tuple(rocm_device(index, *card) for index, card in enumerate(cards))


def visible_cards(cards: list[C], listed: str | None) -> list[C]:
    """Return the cards that `listed`, such as `0,2`, selects, up to its first invalid number.

    All cards where `listed` is None, or names cards by anything but a number.
    """
    if listed is None or re.search("[^0-9, -]", listed):
        return cards
    places = [int(place) if place.strip().isdigit() else -1 for place in listed.split(",")]
    good = itertools.takewhile(lambda place: 0 <= place < len(cards), places)
    return [cards[place] for place in good]


def rocm_device(index: int, title: str, architecture: str, total: int, free: int) -> Device:
    """Return an AMD card with the dtypes of its architecture. torch calls it `cuda` too."""
    if ROCM_BF16.fullmatch(architecture):
        dtypes: tuple[DType, ...] = ("bfloat16", "float32")
        reason = f"{architecture} has bfloat16"
    else:
        dtypes, reason = ("float32",), f"{architecture} has no bfloat16 arithmetic"
    return Device(f"cuda:{index}", "rocm", title, total, free, dtypes, reason, architecture)


class _XpuProperties(ctypes.Structure):
    """ze_device_properties_t of the Level Zero API."""

    _fields_ = (
        ("stype", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("type", ctypes.c_int),
        ("vendor", ctypes.c_uint32),
        ("device", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        *((f"number_{place}", ctypes.c_uint32) for place in range(2)),
        ("largest_allocation", ctypes.c_uint64),
        *((f"count_{place}", ctypes.c_uint32) for place in range(7)),
        ("timer", ctypes.c_uint64),
        ("timestamp_bits", ctypes.c_uint32 * 2),
        ("uuid", ctypes.c_ubyte * 16),
        ("name", ctypes.c_char * 256),
    )


class _XpuMemory(ctypes.Structure):
    """ze_device_memory_properties_t of the Level Zero API."""

    _fields_ = (
        ("stype", ctypes.c_int),
        ("next", ctypes.c_void_p),
        *((f"number_{place}", ctypes.c_uint32) for place in range(3)),
        ("total", ctypes.c_uint64),
        ("name", ctypes.c_char * 256),
    )


def xpu_devices() -> tuple[Device, ...]:
    """Return the Intel cards with memory of their own that Level Zero reports. All of it is taken to be free.

    Source: oneAPI Level Zero (zeInit, zeDriverGet, zeDeviceGet, zeDeviceGetProperties, zeDeviceGetMemoryProperties).
    """
    try:
        loader: Any = ctypes.CDLL("ze_loader.dll" if os.name == "nt" else "libze_loader.so.1")
    except OSError:
        return ()
    if loader.zeInit(1) != 0:  # 1: graphics cards alone
        return ()
    found: list[Device] = []
    for driver in _handles(loader.zeDriverGet):
        for handle in _handles(loader.zeDeviceGet, driver):
            properties, count = _XpuProperties(stype=3), ctypes.c_uint32(8)
            memories = (_XpuMemory * count.value)(*(_XpuMemory(stype=7) for _ in range(count.value)))
            if loader.zeDeviceGetProperties(handle, ctypes.byref(properties)) != 0 or properties.type != 1:
                continue
            if properties.flags & XPU_INTEGRATED:
                continue
            if loader.zeDeviceGetMemoryProperties(handle, ctypes.byref(count), memories) != 0:
                continue
            total = sum(memory.total for memory in memories[: count.value])
            title = properties.name.decode(errors="replace")
            reason = "Intel's cards have bfloat16"
            found.append(Device(f"xpu:{len(found)}", "xpu", title, total, total, ("bfloat16", "float32"), reason))
    return tuple(found)


def _handles(ask: Any, *owner: ctypes.c_void_p) -> list[ctypes.c_void_p]:
    """Return the handles that a Level Zero call lists: a first call counts them, a second one fills them in."""
    count = ctypes.c_uint32()
    if ask(*owner, ctypes.byref(count), None) != 0:
        return []
    handles = (ctypes.c_void_p * count.value)()
    if ask(*owner, ctypes.byref(count), handles) != 0:
        return []
    return [ctypes.c_void_p(handle) for handle in handles]
