"""What the machine is found to have, from invented systems where this one has no such device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from acestep_cli import hardware
from acestep_cli.hardware import GIB


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


def test_hidden_amd_cards_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    (device,) = hardware.rocm_devices(amd_system(tmp_path, (110000, 16, 0), (110000, 24, 0)))
    assert (device.name, device.total_bytes) == ("cuda:0", 24 * GIB)


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
    monkeypatch.setattr(hardware, "memory", lambda: (24 * GIB, 20 * GIB))
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
    assert list(hardware._container_limits(tmp_path)) == [(4 * GIB, GIB)]


def test_no_limit_is_none(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    (tmp_path / "memory.stat").write_text("anon 5\n")
    assert list(hardware._container_limits(tmp_path)) == []
