"""Tensors in safetensors files, with the reasons of the system where one cannot be written."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def write(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Write tensors, from whatever device. `OSError` where the disk does not take them."""
    path.touch()
    mode = path.stat().st_mode  # the library's own would let nobody else read it
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, header)
    except SafetensorError as error:  # it is no OSError, whatever the system said
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error
    path.chmod(mode)


def holds(path: Path, names: set[str]) -> bool:
    """Whether the file is whole and has tensors of these names."""
    try:
        with safe_open(path, framework="pt") as opened:
            return names <= set(opened.keys())
    except (OSError, SafetensorError):
        return False
