"""What the machine is found to have, from invented systems where this one has no such device."""

# ruff: noqa: N802 - the driver names its functions itself

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from acestep_cli.machine import hardware
from acestep_cli.machine.hardware import GIB


def test_detection_always_finds_a_processor() -> None:
    device = hardware.detect().devices[-1]
    assert (device.name, device.backend) == ("cpu", "cpu")
    assert "float32" in device.dtypes
    assert 0 < device.free_bytes <= device.total_bytes


@pytest.mark.parametrize(
    ("capability", "dtypes"),
    [((7, 5), ("float16", "float32")), *(((major, 0), ("bfloat16", "float16", "float32")) for major in (8, 12))],
)  # fmt: skip
def test_a_card_s_formats_follow_its_capability(capability: tuple[int, int], dtypes: tuple[str, ...]) -> None:
    device = hardware.cuda_device(1, "a card", capability, 8 * GIB, 5 * GIB)
    assert (device.name, device.dtypes, device.free_bytes) == ("cuda:1", dtypes, 5 * GIB)
    assert ".".join(map(str, capability)) in device.dtype_reason


def test_what_nobody_tells_is_taken_to_be_free() -> None:
    assert hardware.cuda_device(0, "a card", (8, 6), 8 * GIB, None).free_bytes == 8 * GIB


def test_the_card_with_most_free_memory_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = tuple(hardware.cuda_device(i, "a card", (8, 6), 8 * GIB, free * GIB) for i, free in enumerate((2, 7, 5)))
    monkeypatch.setattr(hardware, "torch_backend", lambda: "cuda")
    monkeypatch.setattr(hardware, "cuda_devices", lambda: cards)
    assert [device.name for device in hardware.detect().devices] == ["cuda:1", "cuda:2", "cuda:0", "cpu"]


def test_a_driver_without_a_torch_for_it_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "torch_backend", lambda: None)
    monkeypatch.setattr(hardware, "cuda_devices", lambda: pytest.fail("asked"))
    assert [device.name for device in hardware.detect().devices] == ["cpu"]


def amd_system(root: Path, *cards: tuple[int, int, int]) -> Path:
    """A Linux that lists a processor and then AMD cards: architecture as the kernel numbers it, GiB in all and used."""
    nodes = root / "kfd/kfd/topology/nodes"
    (nodes / "0").mkdir(parents=True)
    (nodes / "0/properties").write_text("simd_count 0\ndrm_render_minor 0\n")
    for number, (version, total, used) in enumerate(cards, start=1):
        (nodes / str(number)).mkdir()
        minor = 127 + number
        (nodes / str(number) / "properties").write_text(
            f"simd_count 192\ngfx_target_version {version}\ndrm_render_minor {minor}\n"
        )
        device = root / f"drm/renderD{minor}/device"
        device.mkdir(parents=True)
        (device / "mem_info_vram_total").write_text(f"{total * GIB}\n")
        (device / "mem_info_vram_used").write_text(f"{used * GIB}\n")
    return root


@pytest.mark.parametrize(
    ("version", "architecture", "best"),
    [(110000, "gfx1100", "bfloat16"), (90010, "gfx90a", "bfloat16"),
     (100302, "gfx1032", "float32"), (90006, "gfx906", "float32")],
)  # fmt: skip
def test_amd_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, architecture: str, best: str) -> None:
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    (device,) = hardware.rocm_devices(amd_system(tmp_path, (version, 16, 3)))
    assert (device.name, device.backend, device.capability, device.dtypes[0]) == ("cuda:0", "rocm", architecture, best)
    assert (device.total_bytes, device.free_bytes) == (16 * GIB, 13 * GIB)
    assert architecture in device.dtype_reason


@pytest.mark.parametrize(
    ("runtime", "driver", "sizes"),
    [("1", None, [24]), ("1,0", None, [24, 16]), ("-1", None, []), ("", None, []), ("0,7,1", None, [16]),
     ("0", "1", [24]), (None, "1,0", [24, 16]), ("GPU-3f2a", None, [16, 24])],
)  # fmt: skip
def test_hidden_amd_cards_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str | None, driver: str | None, sizes: list[int]
) -> None:
    for name, value in (("HIP_VISIBLE_DEVICES", runtime), ("ROCR_VISIBLE_DEVICES", driver)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    devices = hardware.rocm_devices(amd_system(tmp_path, (110000, 16, 0), (110000, 24, 0)))
    assert [device.total_bytes // GIB for device in devices] == sizes
    assert [device.name for device in devices] == [f"cuda:{number}" for number in range(len(sizes))]


class CudaDriver:
    """The driver of a machine with two cards, of which the second is cut up; and what tells their free memory."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 0

    def cuDeviceTotalMem_v2(self, total: Any, handle: Any) -> int:
        total._obj.value = (24, 8)[handle.value] * GIB
        return 0

    def cuDeviceGetName(self, title: Any, size: int, handle: Any) -> int:
        title.value = b"a card"
        return 0

    def cuDeviceGetUuid_v2(self, uuid: Any, handle: Any) -> int:
        uuid._obj[:] = [handle.value] * 16
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = {75: (8, 7), 76: (9, 5)}[attribute][handle.value]
        return 0

    def nvmlDeviceGetHandleByUUID(self, name: bytes, handle: Any) -> int:
        handle._obj.value = {b"GPU-00000000": 1, b"MIG-01010101": 2}.get(name[:12], 0)
        return 0 if handle._obj.value else 6

    def nvmlDeviceGetMemoryInfo(self, handle: Any, figures: Any) -> int:
        figures._obj[:] = [24 * GIB, (20, 3)[handle.value - 1] * GIB, 0]
        return 0


def test_nvidia_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: CudaDriver())
    found = hardware.cuda_devices()
    assert [(one.name, one.title, one.capability) for one in found] == [
        ("cuda:0", "a card", "8.9"),
        ("cuda:1", "a card", "7.5"),
    ]
    assert [(one.total_bytes // GIB, one.free_bytes // GIB) for one in found] == [(24, 20), (8, 3)]
    assert found[1].dtypes[0] == "float16"


def test_no_amd_driver_is_no_card(tmp_path: Path) -> None:
    assert hardware.rocm_devices(tmp_path) == ()


@pytest.mark.skipif(os.name == "nt", reason="asks for libraries by their Linux names")
def test_no_library_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(hardware.ctypes, "CDLL", missing)
    assert hardware.cuda_devices() == hardware.xpu_devices() == ()
    assert hardware.nvml_free_bytes(bytes(16)) is None


def test_a_mac_lends_its_gpu_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(hardware, "main_memory", lambda: (24 * GIB, 20 * GIB))
    (device,) = hardware.mps_devices()
    assert (device.name, device.total_bytes, device.free_bytes) == ("mps", 16 * GIB, 16 * GIB)


@pytest.mark.parametrize(
    ("limit", "used", "cache"),
    [("memory.max", "memory.current", "inactive_file"),
     ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file")],
)  # fmt: skip
def test_a_container_s_limit_counts(tmp_path: Path, limit: str, used: str, cache: str) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text(f"{4 * GIB}\n")
    (tmp_path / used).write_text(f"{2 * GIB}\n")
    (tmp_path / used).with_name("memory.stat").write_text(f"anon 5\n{cache} {GIB}\n")
    groups = tmp_path / "cgroup"
    groups.write_text("3:cpu:/elsewhere\n2:memory:/job\n" if "/" in limit else "0::/job\n")
    assert list(hardware._container_limits(tmp_path, groups)) == [(4 * GIB, GIB)]  # of the group around the job's


def test_no_limit_is_none(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    (tmp_path / "memory.stat").write_text("anon 5\n")
    groups = tmp_path / "cgroup"
    groups.write_text("0::/\n")
    assert list(hardware._container_limits(tmp_path, groups)) == []
