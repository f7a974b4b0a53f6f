"""Adapters on a decoder: merged into its weights where their dtype keeps what is added, else applied beside them.

Rounding to bfloat16 would take most of a small change away, so what a merge loses is measured for each matrix. Int8
weights, and those that come from main memory, stay as they are. What an adapter adds is linear in its strength, and
several of them add up: for DoRA too, whose change is the whole way from the base to the weights it was trained to.

Sources: Hu et al., 2021 (LoRA); Liu et al., 2024 (DoRA); Yeh et al., 2024 (LoKr); the ruling on scale.

Shapes: out and in of a matrix, r the rank; a Kronecker product of [a, b] and [c, d] has out = a c and in = b d.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from acestep_cli.engine.int8 import Int8Linear
from acestep_cli.models.adapters import AdapterPiece, AppliedAdapter
from acestep_cli.song.loras import ActiveAdapter

#: The share of its norm that a change may lose in being merged.
MAX_MERGE_LOSS = 0.02


@dataclass(frozen=True)
class LowRankDelta:
    """A change up [out, r] times down [r, in]."""

    up: Tensor
    down: Tensor

    def matrix(self) -> Tensor:
        return self.up @ self.down

    def add_to(self, output: Tensor, x: Tensor) -> None:
        """Add what it makes of x [..., in] to output [..., out]; in one pass, which rounds once."""
        inner = F.linear(x, self.down)
        output.view(-1, output.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]), self.up.mT)

    def scaled(self, rows: float | Tensor) -> LowRankDelta:
        return LowRankDelta(rows * self.up, self.down)


@dataclass(frozen=True)
class KroneckerDelta:
    """A change that is the Kronecker product of left [a, b] and right [c, d], each row of it times `rows` [out, 1]."""

    left: Tensor
    right: Tensor
    rows: Tensor

    def matrix(self) -> Tensor:
        return torch.kron(self.left, self.right) * self.rows

    def add_to(self, output: Tensor, x: Tensor) -> None:
        """Add what it makes of x [..., in] to output [..., out]."""
        parts = x.view(*x.shape[:-1], self.left.shape[1], self.right.shape[1])  # [..., b, d]
        output.add_((self.left @ F.linear(parts, self.right)).flatten(-2).mul_(self.rows[:, 0]))

    def scaled(self, rows: float | Tensor) -> KroneckerDelta:
        return KroneckerDelta(self.left, self.right, rows * self.rows)


Delta = LowRankDelta | KroneckerDelta


@dataclass(frozen=True)
class SideBranch:
    """What is added to the output of a linear layer: `gain` [out] of the layer's own product, and further changes."""

    deltas: tuple[Delta, ...]
    gain: Tensor | None

    def __call__(self, layer: nn.Linear | Int8Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """The hook of a forward pass."""
        [x] = inputs
        if self.gain is not None:
            output = output + (output if layer.bias is None else output - layer.bias) * self.gain
        for change in self.deltas:
            change.add_to(output, x)
        return output


@dataclass
class AdapterStack:
    """The adapters that a decoder wears, which of its matrices they were merged into, and what hangs beside others."""

    adapters: tuple[ActiveAdapter, ...] = ()
    merged: set[str] = field(default_factory=set)
    hooks: dict[str, RemovableHandle] = field(default_factory=dict)

    @property
    def applied(self) -> tuple[AppliedAdapter, ...]:
        """What became of each of the stack."""
        return tuple(
            AppliedAdapter(
                worn.adapter.path.name,
                worn.strength,
                len(worn.adapter.pieces.keys() & (self.merged | self.hooks.keys())),
                len(worn.adapter.pieces.keys() & self.merged),
            )
            for worn in self.adapters
        )

    @torch.inference_mode()
    def apply(self, decoder: nn.Module, device: torch.device, dtype: torch.dtype, *, merging: bool) -> None:
        """Apply the stack, which computes on `device` in `dtype`; without `merging`, only beside the weights."""
        with ExitStack() as opened:
            files = [opened.enter_context(safe_open(worn.adapter.file, framework="pt")) for worn in self.adapters]
            for target in dict.fromkeys(
                target
                for worn in self.adapters
                for target, piece in worn.adapter.pieces.items()
                if piece.shape is not None
            ):
                layer = find_linear(decoder, target)
                if layer is None:
                    continue
                deltas = [
                    weight_delta(piece, worn.strength, layer, read_tensors(file, piece, device))
                    for file, worn in zip(files, self.adapters, strict=True)
                    if (piece := worn.adapter.pieces.get(target)) is not None and piece.shape is not None
                ]
                changes = tuple(change for change, _ in deltas)
                gains = [gain for _, gain in deltas if gain is not None]
                gain = torch.stack(gains).sum(0) if gains else None
                if merging and isinstance(layer, nn.Linear) and merge_into_weights(layer, changes, gain):
                    self.merged.add(target)
                else:
                    branch = SideBranch(concatenate_low_rank(changes, dtype), None if gain is None else gain.to(dtype))
                    self.hooks[target] = layer.register_forward_hook(branch)

    def remove(self) -> None:
        """Let go of what hangs beside weights; those in `merged` are to be read again."""
        for hook in self.hooks.values():
            hook.remove()


def find_linear(decoder: nn.Module, target: str) -> nn.Linear | Int8Linear | None:
    """The linear layer of that name; None where there is none, as the warning about a partial fit has said."""
    try:
        found = decoder.get_submodule(target)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Linear | Int8Linear) else None


def read_tensors(file: Any, piece: AdapterPiece, device: torch.device) -> dict[str, Tensor]:
    """The tensors of a piece by their roles, in float32."""
    return {
        role: file.get_tensor(name).to(device, torch.float32) for role, name in piece.tensors.items() if role != "alpha"
    }


def weight_delta(
    piece: AdapterPiece, strength: float, layer: nn.Linear | Int8Linear, tensors: Mapping[str, Tensor]
) -> tuple[Delta, Tensor | None]:
    """What an adapter adds to a layer at a strength: a change, and what it adds to the gain [out] of the layer's own
    product.
    """
    if "down" in tensors:
        change: Delta = LowRankDelta(piece.scale * tensors["up"], tensors["down"])
    else:
        left, right = (
            tensors[name] if name in tensors else tensors[f"{name}_a"] @ tensors[f"{name}_b"] for name in ("w1", "w2")
        )
        change = KroneckerDelta(piece.scale * left, right, left.new_ones(len(left) * len(right), 1))
    if "magnitude" not in tensors:
        return change.scaled(strength), None
    magnitude = tensors["magnitude"].view(-1, 1)
    weight = layer.dequantize() if isinstance(layer, Int8Linear) else layer.weight
    trained = weight.to(magnitude.device, torch.float32) + change.matrix()
    grown = magnitude / torch.linalg.vector_norm(trained, dim=1, keepdim=True)  # [out, 1]
    return change.scaled(strength * grown), strength * (grown - 1)[:, 0]


def merge_into_weights(layer: nn.Linear, deltas: Sequence[Delta], gain: Tensor | None) -> bool:
    """Add changes to the weights of a layer, unless their dtype would lose more of them than it may; whether it did."""
    weight = layer.weight
    wide = weight.float()
    added = deltas[0].matrix()
    for change in deltas[1:]:
        added += change.matrix()
    if gain is not None:
        added += gain[:, None] * wide
    merged = (wide + added).to(weight.dtype)
    lost = torch.linalg.vector_norm(merged.float() - wide - added)
    if lost > MAX_MERGE_LOSS * torch.linalg.vector_norm(added):
        return False
    layer.weight = nn.Parameter(merged, requires_grad=False)
    return True


def concatenate_low_rank(deltas: Sequence[Delta], dtype: torch.dtype) -> tuple[Delta, ...]:
    """The changes in `dtype`, those of low rank as one: two products a step, whatever their number."""
    low = [change for change in deltas if isinstance(change, LowRankDelta)]
    crossed = [change for change in deltas if isinstance(change, KroneckerDelta)]
    narrowed: list[Delta] = [KroneckerDelta(c.left.to(dtype), c.right.to(dtype), c.rows.to(dtype)) for c in crossed]
    if low:
        up, down = torch.cat([c.up for c in low], dim=1), torch.cat([c.down for c in low])
        narrowed.append(LowRankDelta(up.to(dtype), down.to(dtype)))
    return tuple(narrowed)
