"""Files of torch tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from acestep_cli.models import tensor_file
from acestep_cli.models.tensor_file import Block

#: Names of torch's types in safetensors.
NAMES = {
    torch.float64: "F64", torch.int64: "I64", torch.float32: "F32", torch.int32: "I32", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def block(tensor: Tensor) -> Block:
    """Return the elements of a tensor on any device. Raises `TypeError` for a type that safetensors does not have."""
    if tensor.dtype not in NAMES:
        raise TypeError(f"Tensors of {tensor.dtype} cannot be written.")
    plain = tensor.detach().resolve_neg().cpu().contiguous()
    return Block(NAMES[tensor.dtype], tuple(tensor.shape), plain.reshape(-1).view(torch.uint8).numpy().data)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None, *, checksum: bool = True
) -> None:
    """Write tensors to a safetensors file. Raises `OSError` where the disk does not take them."""
    tensor_file.write(path, {name: block(tensor) for name, tensor in tensors.items()}, notes, checksum=checksum)


def dumps(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as the bytes of a safetensors file."""
    return tensor_file.dumps({name: block(tensor) for name, tensor in tensors.items()})
