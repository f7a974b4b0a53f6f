"""Linear layers whose matrix is laid out for the processor once, where oneDNN would do it again for every product.

For the one or two rows of a language model's next token that takes half of the time (`benchmarks/packed.py`).

torch has no public function for it. The private operators `mkldnn._reorder_linear_weight` and `_linear_pointwise`, to
which torch.compile turns linear layers, are tried once before they are used.
"""

from __future__ import annotations

import functools
import platform

import torch
from torch import Tensor, nn

from acestep_cli.engine.onednn import has_kernels

#: The number of input rows that the layout is chosen for; it works with any number.
LAYOUT_ROWS = 2


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True where matrices can be packed: on x86 processors, where torch has been built with oneDNN.

    False too where this torch no longer has the private operators for it: plain layers give the same, slower.
    """
    if not has_kernels(device, dtype) or platform.machine() not in ("x86_64", "AMD64"):
        return False
    if dtype is torch.bfloat16:
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        if supported is None or not supported():
            return False
    return operator_fault(dtype) is None


@functools.cache
def operator_fault(dtype: torch.dtype) -> str | None:
    """Return the reason why torch's private operators cannot be used, found by one small product; None if they can."""
    with torch.inference_mode():
        linear = nn.Linear(8, 8, bias=False, device="meta").to_empty(device="cpu").to(dtype)  # draws no random numbers
        linear.weight.copy_(torch.linspace(-1, 1, 64).view(8, 8))
        x = torch.linspace(-1, 1, 16, dtype=dtype).view(2, 8)
        try:
            packed = PackedLinear(linear)(x)
        except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:  # dropped, or called otherwise
            return str(error).splitlines()[0]
        expected = linear(x)
    alike = (packed.shape, packed.dtype) == (expected.shape, expected.dtype)
    if not alike or not torch.allclose(packed, expected, atol=0.02):
        return "the packed product differs from the plain one"
    return None


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
