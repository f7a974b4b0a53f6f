"""Linear layers with int8 weights, which take half of the memory of bfloat16.

torchao has such layers, but where it is installed transformers imports it: more than a second at every start.

Each row of the matrix is scaled to fit -127 … 127 and rounded (symmetric, per output channel). Products are made in
the dtype of the input, which holds these integers exactly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIGHEST = 127
#: Inputs are divided by this power of two, so that sums of large integers stay within float16.
INPUT_DIVISOR = 128


class Int8Linear(nn.Module):
    """A linear layer [out, in] whose weights are set by `quantize`."""

    def __init__(self, like: nn.Linear) -> None:
        super().__init__()
        shape = like.weight.shape
        self.out_features, self.in_features = shape
        self.weight = nn.Parameter(torch.empty(shape, dtype=torch.int8, device="meta"), requires_grad=False)
        self.scale = nn.Parameter(torch.empty(shape[0], device="meta"), requires_grad=False)
        self.bias = like.bias

    def quantize(self, weight: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        """Round `weight` [out, in] and move it to `device`; outputs are computed in `dtype`."""
        wide = weight.float()
        scale = wide.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / HIGHEST
        rounded = (wide / scale[:, None]).round_().to(torch.int8)
        self.weight = nn.Parameter(rounded.to(device), requires_grad=False)
        self.scale = nn.Parameter((scale * INPUT_DIVISOR).to(device, dtype), requires_grad=False)

    def dequantize(self) -> Tensor:
        """Return the weights [out, in] that the integers stand for, in float32."""
        return self.weight.float() * (self.scale.float() / INPUT_DIVISOR)[:, None]

    def forward(self, x: Tensor) -> Tensor:
        out = F.linear(x / INPUT_DIVISOR, self.weight.to(x.dtype)) * self.scale
        return out if self.bias is None else out + self.bias


def replace_linears(blocks: nn.Module) -> None:
    """Replace every linear layer within `blocks` by an `Int8Linear` without weights."""
    for owner in list(blocks.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, nn.Linear):
                setattr(owner, name, Int8Linear(child))
