"""Linear layers with int8 weights, which take half of the memory of bfloat16, and products in int8.

torchao has such layers, but where it is installed transformers imports it: more than a second at every start.

Each row of the matrix is scaled to fit -127 … 127 and rounded (symmetric, per output channel). Products are made in
the dtype of the input, which holds these integers exactly; or, on request, each row of the input is rounded as well
and they are made of integers, which is faster on processors with instructions for it (`benchmarks/int8_step.py`).
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_cli.errors import UsageError
from acestep_cli.machine.memory import INT8_PRODUCT_ROWS

HIGHEST = 127
SMALLEST = torch.finfo(torch.float32).tiny
#: Inputs are divided by this power of two, so that sums of large integers stay within float16.
INPUT_DIVISOR = 128


@functools.cache
def integer_product_fault() -> str | None:
    """Return the reason why torch's private product of int8 matrices cannot be used; None if it can."""
    one, other = torch.arange(-8, 8, dtype=torch.int8).view(2, 8), torch.arange(24, dtype=torch.int8).view(3, 8)
    try:
        product = torch._int_mm(one, other.t())
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:  # dropped, or called otherwise
        return str(error).splitlines()[0]
    right = torch.equal(product, one.int() @ other.int().t())
    return None if right else "its sums are wrong"


def require_integer_products() -> None:
    """Raise `UsageError` where the installed torch cannot multiply int8 matrices."""
    if (fault := integer_product_fault()) is not None:
        raise UsageError(
            f"--dtype int8: torch {torch.__version__} does not multiply int8 matrices here ({fault}).",
            "Leave --dtype out.",
        )


def multiply_integers(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Return x [..., in] times int8 `weight` [out, in], whose rows are to be multiplied by `scale` [out], in x's dtype.

    Each row of x is rounded to -127 … 127 times a scale of its own, so that it does not depend on other rows.
    """
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty(rows.shape[0], weight.shape[0], dtype=x.dtype)
    for part, whole in zip(torch.split(out, INT8_PRODUCT_ROWS), torch.split(rows, INT8_PRODUCT_ROWS), strict=True):
        row_scale = whole.abs().amax(dim=1, keepdim=True).float().clamp_min_(SMALLEST) / HIGHEST
        integers = (whole.float() / row_scale).round_().to(torch.int8)
        part.copy_((torch._int_mm(integers, weight.t()) * row_scale).mul_(scale))
    return out.view(*x.shape[:-1], weight.shape[0])


class Int8Linear(nn.Module):
    """A linear layer [out, in] whose weights are set by `quantize`."""

    def __init__(self, like: nn.Linear, *, arithmetic: bool = False) -> None:
        """Take the shape of `like`; with `arithmetic`, products are made of integers."""
        super().__init__()
        shape = like.weight.shape
        self.out_features, self.in_features = shape
        self.weight = nn.Parameter(torch.empty(shape, dtype=torch.int8, device="meta"), requires_grad=False)
        self.scale = nn.Parameter(torch.empty(shape[0], device="meta"), requires_grad=False)
        self.bias = like.bias
        self.arithmetic = arithmetic

    def quantize(self, weight: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        """Round `weight` [out, in] and move it to `device`; outputs are computed in `dtype`."""
        wide = weight.float()
        scale = wide.abs().amax(dim=1).clamp_min(SMALLEST) / HIGHEST
        rounded = (wide / scale[:, None]).round_().to(torch.int8)
        self.weight = nn.Parameter(rounded.to(device), requires_grad=False)
        kept = torch.float32 if self.arithmetic else dtype
        self.scale = nn.Parameter((scale * INPUT_DIVISOR).to(device, kept), requires_grad=False)

    def dequantize(self) -> Tensor:
        """Return the weights [out, in] that the integers stand for, in float32."""
        return self.weight.float() * (self.scale.float() / INPUT_DIVISOR)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        if self.arithmetic:
            out = multiply_integers(x, self.weight, self.scale / INPUT_DIVISOR)
        else:
            out = F.linear(x / INPUT_DIVISOR, self.weight.to(x.dtype)) * self.scale
        return out if self.bias is None else out + self.bias


def replace_linears(blocks: nn.Module, *, arithmetic: bool = False) -> None:
    """Replace every linear layer within `blocks` by an `Int8Linear` without weights, multiplied in int8 if that is
    the `arithmetic`.
    """
    for owner in list(blocks.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.Linear):
                setattr(owner, name, Int8Linear(child, arithmetic=arithmetic))
