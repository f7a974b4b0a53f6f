"""oneDNN, whose kernels torch runs on processors."""

from __future__ import annotations

import torch

DTYPES = (torch.float32, torch.bfloat16)


def has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True on processors where torch was built with oneDNN, for the dtypes that its kernels take."""
    built = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return built and device.type == "cpu" and dtype in DTYPES
