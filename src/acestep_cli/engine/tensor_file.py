"""Tensors of torch in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from acestep_cli.models.tensor_file import written


def write(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Write tensors, from whatever device. `OSError` where the disk does not take them."""
    with written(path):
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, header)
