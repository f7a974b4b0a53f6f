"""The devices of a machine that a render may take, and the number format on each."""

from __future__ import annotations

from collections.abc import Sequence

from acestep_cli.errors import UsageError
from acestep_cli.machine.hardware import DTYPES, INT8, INT8_CPU_FLAGS, Device, DType, Hardware


def candidate_devices(machine: Hardware, asked: str | None) -> tuple[Sequence[Device], str]:
    """Return the devices to choose from, the preferred one first, and the reason for it.

    Raises `UsageError` where the one asked for is not there.
    """
    if asked is None:
        others = ", ".join(device.name for device in machine.devices)
        return machine.devices, f"the first of {others}" if len(machine.devices) > 1 else "the only device here"
    wanted = asked.lower()
    kinds = {device.backend for device in machine.devices}
    named = [device for device in machine.devices if wanted in device_names(device)]
    if named:
        return named[:1], "asked for"
    here = ", ".join(device.name for device in machine.devices)
    built = machine.torch_backend
    if built is None and wanted.split(":")[0] in ("cuda", "rocm", "xpu"):
        why = " (the installed torch is a CPU build)"
    elif built and wanted.split(":")[0] in ("cuda", "rocm", "xpu") and built not in kinds:
        why = f" (the installed torch is for {built}, and no such card answers)"
    else:
        why = ""
    raise UsageError(
        f"--device {asked}: this machine has no such device; it has {here}{why}.",
        f"Leave --device out, or use --device {machine.devices[0].name}.",
    )


def device_names(device: Device) -> tuple[str, ...]:
    """Return the names by which `--device` may call a device: torch calls AMD's cards `cuda` too."""
    kind, _, number = device.name.partition(":")
    return (device.name, kind, device.backend, f"{device.backend}:{number}")


def devices_with_dtype(devices: Sequence[Device], asked: str | None) -> list[Device]:
    """Return the devices that have the dtype asked for. Raises `UsageError` where none has."""
    if asked is None:
        return list(devices)
    if asked.lower() == INT8:
        return _devices_with_int8(devices)
    named = DTYPES.get(asked.lower())
    if named is None:
        raise UsageError(f"--dtype {asked}: is not one of {', '.join((*DTYPES, INT8))}.")
    able = [device for device in devices if named in device.dtypes]
    if not able:
        have = "; ".join(f"{device.name} has {', '.join(device.dtypes)}" for device in devices)
        raise UsageError(
            f"--dtype {asked}: no device here computes in it: {have}.",
            f"Leave --dtype out for {devices[0].dtypes[0]} ({devices[0].dtype_reason}).",
        )
    return able


def _devices_with_int8(devices: Sequence[Device]) -> list[Device]:
    """Return the devices that multiply int8 faster than other numbers. Raises `UsageError` where none does."""
    able = [device for device in devices if device.int8_flag is not None]
    if not able:
        here = " and ".join(device.name for device in devices)
        raise UsageError(
            f"--dtype int8: is arithmetic of processors with {' or '.join(INT8_CPU_FLAGS)}, which {here} here "
            f"{'lack' if len(devices) > 1 else 'lacks'}.",
            f"Leave --dtype out for {devices[0].dtypes[0]} ({devices[0].dtype_reason}).",
        )
    return able


def asks_int8(asked: str | None) -> bool:
    return asked is not None and asked.lower() == INT8


def choose_dtype(device: Device, asked: str | None) -> tuple[DType, str]:
    """Return the dtype of all that is not int8, and the reason for it."""
    if asked is None or asks_int8(asked):
        return device.dtypes[0], device.dtype_reason
    return DTYPES[asked.lower()], "asked for"
