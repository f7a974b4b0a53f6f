"""A machine that is not here, by the kind and memory of its device, to plan for before buying or pulling."""

from __future__ import annotations

import re

from acestep_cli.disk import parse_size
from acestep_cli.errors import UsageError
from acestep_cli.machine import hardware
from acestep_cli.machine.hardware import Backend, Device, Hardware

BACKENDS: tuple[Backend, ...] = ("cuda", "rocm", "xpu", "mps", "cpu")
EXAMPLE = "For example: acestep doctor --pretend cuda:8G."
#: A card of each maker that has bfloat16, as most sold since 2021 have; --dtype fp16 asks for an older one's format.
CUDA_CAPABILITY, ROCM_ARCHITECTURE = (8, 9), "gfx1100"


def pretended_machine(text: str) -> Hardware:
    """Return a machine whose only device is `BACKEND:SIZE`, with all of its memory free. Raises `UsageError`.

    Sizes are those that devices are sold with: 8G is 8 GiB. For a Mac it is the memory of the machine.
    """
    name, _, size = text.partition(":")
    backend = next((one for one in BACKENDS if one == name.strip().lower()), None)
    if backend is None or not size:
        raise UsageError(f"--pretend {text}: is not BACKEND:SIZE, with one of {', '.join(BACKENDS)}.", EXAMPLE)
    try:
        total = parse_size(re.sub(r"(?i)(\d)\s*([kmgt])b?$", r"\1\2iB", size.strip()))
    except ValueError as error:
        raise UsageError(f"--pretend {text}: {error}", EXAMPLE) from error
    if total <= 0:
        raise UsageError(f"--pretend {text}: no device has no memory.", EXAMPLE)
    return Hardware((pretended_device(backend, total, f"a pretended {name.strip().lower()} of {size.strip()}"),))


def pretended_device(backend: Backend, total: int, title: str) -> Device:
    """Return a device of `total` bytes, as `hardware.detect` would describe one of this kind."""
    if backend == "cuda":
        return hardware.cuda_device(0, title, CUDA_CAPABILITY, total, total)
    if backend == "rocm":
        return hardware.rocm_device(0, title, ROCM_ARCHITECTURE, total, total)
    if backend == "xpu":
        return Device("xpu:0", "xpu", title, total, total, ("bfloat16", "float32"), "Intel's cards have bfloat16")
    if backend == "mps":
        usable = int(total * hardware.MPS_SHARE)
        reason = "float32 is what ACE-Step is known to run in there"
        return Device("mps", "mps", title, usable, usable, ("float32",), reason)
    reason = "bfloat16 arithmetic is not counted on in a pretended processor"
    return Device("cpu", "cpu", title, total, total, ("float32", "bfloat16"), reason)
