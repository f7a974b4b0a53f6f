"""Files of tensors: what is written is what an array holds, whatever its strides, and damage is told."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import numpy as from_numpy
from safetensors import safe_open
from safetensors import torch as from_torch

from acestep_cli import cache, disk
from acestep_cli.engine import tensor_file as torch_files
from acestep_cli.errors import CheckpointError, OutputError
from acestep_cli.models import tensor_file

WHOLE = np.arange(240, dtype=np.float32).reshape(2, 120)
ARRAYS: dict[str, np.ndarray] = {
    "slice of each row": WHOLE[:, :100],
    "transpose": WHOLE.T,
    "negative stride": WHOLE[:, ::-1],
    "every third": WHOLE[:, ::3],
    "column order": np.asfortranarray(WHOLE),
    "broadcast": np.broadcast_to(WHOLE[:1], (3, 120)),
    "offset": WHOLE[1:, 7:],
    "big-endian": WHOLE.astype(">f4"),
    "number": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "truth": (WHOLE > 7)[:, ::2],
    "halves": WHOLE.astype(np.float16).T,
    "counts": np.arange(9, dtype=np.int64)[::-2],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_whatever_its_strides(name: str) -> None:
    array = ARRAYS[name]
    back = from_numpy.load(tensor_file.dumps({"x": tensor_file.block(array), "other": tensor_file.block(WHOLE[:1])}))
    assert back["x"].shape == array.shape
    assert np.array_equal(back["x"], array)
    assert np.array_equal(back["other"], WHOLE[:1])


TENSOR = torch.arange(240, dtype=torch.float32).reshape(2, 120)


@pytest.mark.parametrize(
    "tensor",
    [
        TENSOR[:, :100],
        TENSOR.T,
        TENSOR.flip(1)[:, ::3],
        TENSOR[:1].expand(3, 120),
        TENSOR[1:, 7:],
        TENSOR.bfloat16().T,
        torch.tensor(2.5, dtype=torch.float64),
        torch.zeros(0, 3),
        (TENSOR > 7)[:, ::2],
        torch.arange(9, dtype=torch.uint8)[::2],
        torch.complex(TENSOR, TENSOR).conj().imag,
    ],
    ids=["slice", "transpose", "flipped", "expanded", "offset", "bfloat16", "number", "empty", "truth", "bytes", "neg"],
)
def test_a_tensor_comes_back_whatever_its_strides(tensor: torch.Tensor) -> None:
    back = from_torch.load(torch_files.dumps({"x": tensor, "alias": tensor}))  # that share their memory
    assert back["x"].dtype == tensor.dtype
    assert torch.equal(back["x"], tensor)
    assert torch.equal(back["alias"], tensor)


def test_the_same_content_is_the_same_bytes_in_whatever_order_it_comes(tmp_path: Path) -> None:
    blocks = {name: tensor_file.block(array) for name, array in ARRAYS.items()}
    notes = {f"note {number}": "é \x7f \u202e" for number in range(20)}
    tensor_file.write(tmp_path / "a", blocks, notes)
    tensor_file.write(tmp_path / "b", dict(reversed(blocks.items())), dict(reversed(notes.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with safe_open(tmp_path / "a", framework="np") as opened:
        assert {name: opened.metadata()[name] for name in notes} == notes


@pytest.mark.parametrize("unknown", [np.zeros(2, np.complex64), np.array(["text"])], ids=["complex", "text"])
def test_what_no_file_can_hold_is_refused(unknown: np.ndarray) -> None:
    with pytest.raises(TypeError, match="cannot be written"):
        tensor_file.block(unknown)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    noise = np.random.default_rng(0).standard_normal((64, 200)).astype(np.float32)
    tensor_file.write(
        path, {"noise": tensor_file.block(noise), "b": tensor_file.block(WHOLE)}, {"gain": "0.5", "a": "b"}
    )
    return path


def zeros(data: bytes) -> bytes:
    return data[:20_000] + bytes(4096) + data[24_096:]


def one_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def exchanged(data: bytes) -> bytes:
    """Two blocks of data that have changed places."""
    return data[:10_000] + data[20_000:24_000] + data[14_000:20_000] + data[10_000:14_000] + data[24_000:]


def another_note(data: bytes) -> bytes:
    return data.replace(b'"gain":"0.5"', b'"gain":"0.9"', 1)


def another_shape(data: bytes) -> bytes:
    return data.replace(b"[64,200]", b"[200,64]", 1)


@pytest.mark.parametrize("damage", [zeros, one_bit, exchanged, another_note, another_shape])
def test_damage_is_told(file: Path, damage: Callable[[bytes], bytes]) -> None:
    assert tensor_file.is_undamaged(file) is True
    before = file.read_bytes()
    file.write_bytes(damage(before))
    assert (file.stat().st_size, file.read_bytes() == before) == (len(before), False)
    assert tensor_file.is_undamaged(file) is False
    assert not tensor_file.has_tensors(file, {"noise"})


def test_a_file_without_a_checksum_says_nothing_of_damage(file: Path, tmp_path: Path) -> None:
    from_numpy.save_file({"noise": WHOLE}, tmp_path / "old")
    assert tensor_file.is_undamaged(tmp_path / "old") is None
    assert not tensor_file.has_tensors(tmp_path / "old", {"noise"})
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        tensor_file.is_undamaged(file)


def test_an_empty_file_of_tensors_has_a_checksum_too(tmp_path: Path) -> None:
    tensor_file.write(tmp_path / "none", {}, {"a": "b"})
    assert tensor_file.is_undamaged(tmp_path / "none") is True


# Power cuts


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is flushed to the disk and what gets its name, in the order in which it happens."""
    done: list[str] = []
    sync, replace, link = os.fsync, Path.replace, os.link

    def name(path: Any) -> str:
        return "part" if str(path).endswith(".part") else Path(path).name

    def fsync(descriptor: int) -> None:
        done.append(f"flush {name(Path(f'/proc/self/fd/{descriptor}').readlink())}")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append(f"name {name(to)}"), replace(self, to))[1])
    monkeypatch.setattr(os, "link", lambda part, to: (done.append(f"name {name(to)}"), link(part, to))[1])
    return done


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")


@needs_proc
@pytest.mark.parametrize("there", [False, True], ids=["new", "in its place"])
def test_files_are_on_the_disk_before_they_are_named(tmp_path: Path, steps: list[str], there: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    files = [folder / "a", folder / "b"]
    if there:
        files[0].write_text("old")
    with disk.write_whole(*files, replace=files if there else ()) as parts:
        for part in parts:
            part.write_text("new")
    assert steps == ["flush part", "flush part", "name b", "name a", "flush folder"]


@needs_proc
def test_small_files_too_and_the_cache_not(tmp_path: Path, steps: list[str]) -> None:
    (tmp_path / "folder").mkdir()
    with disk.replaced(tmp_path / "folder" / "a") as part:
        part.write_text("new")
    assert steps == ["flush part", "name a", "flush folder"]
    steps.clear()
    cache.Cache(tmp_path / "cache", 1000, pytest.fail).write("takes", "key", b"data")
    assert not [step for step in steps if step.startswith("flush")]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_does_not_take_it_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    file = tmp_path / "a"
    file.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="cannot be written"), disk.write_whole(file, replace=[file]) as [part]:
        part.write_text("new")
    with pytest.raises(OSError, match=r"."), disk.replaced(file) as part:
        part.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_read_only_disk_is_the_reason_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing raises there too, even for a file that is not there."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", fail)
    with (
        pytest.raises(OutputError, match="a cannot be written: read-only file system"),
        disk.write_whole(tmp_path / "a"),
    ):
        fail()


def test_a_disk_that_can_flush_nothing_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    with disk.write_whole(tmp_path / "a") as [part]:
        part.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


def test_entries_of_the_cache_from_before_are_not_read(tmp_path: Path) -> None:
    import hashlib

    kept = cache.Cache(tmp_path, 1000, pytest.fail)
    (tmp_path / "takes").mkdir()
    (tmp_path / "takes" / "key").write_bytes(hashlib.sha256(b"garbage").digest() + b"garbage")  # as it was named once
    assert kept.read("takes", "key", bytes) is None
    kept.write("takes", "key", b"right")
    assert kept.read("takes", "key", bytes) == b"right"
    assert len(list(kept.entries())) == 2  # both are counted, and the older one is pruned first
