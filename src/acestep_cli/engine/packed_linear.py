"""Linear layers whose matrix is laid out for the processor once, where oneDNN would do it again for every product.

For the one or two rows of a language model's next token that takes half of the time (`benchmarks/packed.py`).
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

#: The number of input rows that the layout is chosen for; it works with any number.
LAYOUT_ROWS = 2


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether matrices can be packed: on x86 processors, where torch has been built with oneDNN."""
    built = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64") or not built:
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(nn.Module):
    """A linear layer whose matrix is packed, and no longer a parameter."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.matrix = torch.ops.mkldnn._reorder_linear_weight(linear.weight, LAYOUT_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.matrix, self.bias, "none", [], "")
        return product


def pack_linears(module: nn.Module) -> None:
    """Pack every linear layer in `module`; one by one, so that no more than one matrix is in memory twice."""
    for owner in list(module.modules()):
        for name, child in owner.named_children():
            if isinstance(child, nn.Linear):
                setattr(owner, name, PackedLinear(child))
