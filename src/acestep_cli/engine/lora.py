"""Adapters on a decoder: merged into its weights where their dtype is precise enough, else applied as side branches.

Rounding to bfloat16 would take most of a small delta away, so the loss of a merge is measured for each matrix. Int8
weights, and those that are streamed from main memory, are never merged into. A delta is linear in the strength of its
adapter, and the deltas of several adapters add up: for DoRA too, whose delta is the difference between trained weights
and base.

Sources: Hu et al., 2021 (LoRA); Liu et al., 2024 (DoRA); Yeh et al., 2024 (LoKr);
docs/specification.md, 11.1 What an adapter adds and 11.2 Strength of an adapter.

Shapes: out and in of a matrix, r the rank; a Kronecker product of [a, b] and [c, d] has out = a c and in = b d.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from acestep_cli.engine.int8 import Int8Linear
from acestep_cli.models.adapters import AdapterPiece, AppliedAdapter
from acestep_cli.models.tensor_file import open_tensors
from acestep_cli.song.loras import ActiveAdapter

#: The share of its norm that a delta may lose in being merged.
MAX_MERGE_LOSS = 0.02


@dataclass(frozen=True)
class LowRankDelta:
    """A delta up [out, r] times down [r, in] (arXiv 2106.09685)."""

    up: Tensor
    down: Tensor

    def matrix(self) -> Tensor:
        return self.up @ self.down

    def add_to(self, output: Tensor, x: Tensor) -> None:
        """Add its product with x [..., in] to output [..., out], in one pass, which rounds once."""
        inner = F.linear(x, self.down)
        output.view(-1, output.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]), self.up.mT)

    def scaled(self, rows: float | Tensor) -> LowRankDelta:
        return LowRankDelta(rows * self.up, self.down)


@dataclass(frozen=True)
class KroneckerDelta:
    """A delta that is the Kronecker product of left [a, b] and right [c, d], each row of it times `rows` [out, 1]."""

    left: Tensor
    right: Tensor
    rows: Tensor

    def matrix(self) -> Tensor:
        return torch.kron(self.left, self.right) * self.rows

    def add_to(self, output: Tensor, x: Tensor) -> None:
        """Add its product with x [..., in] to output [..., out]."""
        parts = x.view(*x.shape[:-1], self.left.shape[1], self.right.shape[1])  # [..., b, d]
        output.add_((self.left @ F.linear(parts, self.right)).flatten(-2).mul_(self.rows[:, 0]))

    def scaled(self, rows: float | Tensor) -> KroneckerDelta:
        return KroneckerDelta(self.left, self.right, rows * self.rows)


Delta = LowRankDelta | KroneckerDelta


@dataclass(frozen=True)
class SideBranch:
    """A forward hook that adds to the output of a linear layer: `gain` [out] times its own product, and deltas."""

    deltas: tuple[Delta, ...]
    gain: Tensor | None

    def __call__(self, layer: nn.Linear | Int8Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """Return the output [..., out] of the layer with the additions."""
        [x] = inputs
        if self.gain is not None:
            output = output + (output if layer.bias is None else output - layer.bias) * self.gain
        for delta in self.deltas:
            delta.add_to(output, x)
        return output


@dataclass
class AdapterStack:
    """The adapters on a decoder, the names of the matrices they were merged into, and the hooks on the others."""

    adapters: tuple[ActiveAdapter, ...] = ()
    merged: set[str] = field(default_factory=set)
    hooks: dict[str, RemovableHandle] = field(default_factory=dict)

    @property
    def applied(self) -> tuple[AppliedAdapter, ...]:
        """The adapters, each with the number of matrices that it applies to, and that it was merged into."""
        return tuple(
            AppliedAdapter(
                active.adapter.path.name,
                active.strength,
                len(active.adapter.pieces.keys() & (self.merged | self.hooks.keys())),
                len(active.adapter.pieces.keys() & self.merged),
            )
            for active in self.adapters
        )

    @torch.inference_mode()
    def apply(self, decoder: nn.Module, device: torch.device, dtype: torch.dtype, *, merging: bool) -> None:
        """Apply the adapters to a decoder that computes on `device` in `dtype`; without `merging`, only as side
        branches.
        """
        pieces = [piece for active in self.adapters for piece in active.adapter.pieces.items()]
        targets = dict.fromkeys(target for target, piece in pieces if piece.shape is not None)
        with ExitStack() as opened:
            for active in self.adapters:
                active.adapter.require_unchanged()
            files = [opened.enter_context(open_tensors(active.adapter.file)) for active in self.adapters]
            for target in targets:
                layer = find_linear(decoder, target)
                if layer is None:
                    continue
                deltas, gain = self._deltas(target, layer, files, device)
                if merging and isinstance(layer, nn.Linear) and merge_into_weights(layer, deltas, gain):
                    self.merged.add(target)
                else:
                    branch = SideBranch(concatenate_low_rank(deltas, dtype), None if gain is None else gain.to(dtype))
                    self.hooks[target] = layer.register_forward_hook(branch)

    def _deltas(
        self, target: str, layer: nn.Linear | Int8Linear, files: Sequence[Any], device: torch.device
    ) -> tuple[tuple[Delta, ...], Tensor | None]:
        """Read the deltas of all adapters on a layer, and the sum of their gains [out]."""
        found = [
            weight_delta(piece, active.strength, layer, read_tensors(file, piece, device))
            for file, active in zip(files, self.adapters, strict=True)
            if (piece := active.adapter.pieces.get(target)) is not None and piece.shape is not None
        ]
        gains = [gain for _, gain in found if gain is not None]
        return tuple(delta for delta, _ in found), torch.stack(gains).sum(0) if gains else None

    def remove(self) -> None:
        """Remove the hooks; the weights in `merged` have to be read again."""
        for hook in self.hooks.values():
            hook.remove()


def find_linear(decoder: nn.Module, target: str) -> nn.Linear | Int8Linear | None:
    """Return the linear layer of that name; None where there is none, of which a warning was given before."""
    try:
        found = decoder.get_submodule(target)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Linear | Int8Linear) else None


def read_tensors(file: Any, piece: AdapterPiece, device: torch.device) -> dict[str, Tensor]:
    """Read the tensors of a piece by their roles, in float32."""
    return {
        role: file.get_tensor(name).to(device, torch.float32) for role, name in piece.tensors.items() if role != "alpha"
    }


def weight_delta(
    piece: AdapterPiece, strength: float, layer: nn.Linear | Int8Linear, tensors: Mapping[str, Tensor]
) -> tuple[Delta, Tensor | None]:
    """Return the delta of an adapter on a layer at a strength, and for DoRA its addition to the gain [out] of the
    layer's own product.
    """
    if "down" in tensors:
        delta: Delta = LowRankDelta(piece.scale * tensors["up"], tensors["down"])
    else:
        left, right = (
            tensors[name] if name in tensors else tensors[f"{name}_a"] @ tensors[f"{name}_b"] for name in ("w1", "w2")
        )
        delta = KroneckerDelta(piece.scale * left, right, left.new_ones(len(left) * len(right), 1))
    if "magnitude" not in tensors:
        return delta.scaled(strength), None
    magnitude = tensors["magnitude"].view(-1, 1)
    weight = layer.dequantize() if isinstance(layer, Int8Linear) else layer.weight
    trained = weight.to(magnitude.device, torch.float32) + delta.matrix()
    growth = magnitude / torch.linalg.vector_norm(trained, dim=1, keepdim=True)  # [out, 1]
    return delta.scaled(strength * growth), strength * (growth - 1)[:, 0]


def merge_into_weights(layer: nn.Linear, deltas: Sequence[Delta], gain: Tensor | None) -> bool:
    """Add deltas to the weights of a layer, and tell whether that was done: not where their dtype would lose more than
    `MAX_MERGE_LOSS` of them.
    """
    weight = layer.weight
    wide = weight.float()
    added = deltas[0].matrix()
    for delta in deltas[1:]:
        added += delta.matrix()
    if gain is not None:
        added += gain[:, None] * wide
    merged = (wide + added).to(weight.dtype)
    lost = torch.linalg.vector_norm(merged.float() - wide - added)
    if lost > MAX_MERGE_LOSS * torch.linalg.vector_norm(added):
        return False
    layer.weight = nn.Parameter(merged, requires_grad=False)
    return True


def concatenate_low_rank(deltas: Sequence[Delta], dtype: torch.dtype) -> tuple[Delta, ...]:
    """Return the deltas in `dtype`, those of low rank as one: two products a step, whatever their number."""
    low = [delta for delta in deltas if isinstance(delta, LowRankDelta)]
    kronecker = [delta for delta in deltas if isinstance(delta, KroneckerDelta)]
    narrowed: list[Delta] = [KroneckerDelta(c.left.to(dtype), c.right.to(dtype), c.rows.to(dtype)) for c in kronecker]
    if low:
        up, down = torch.cat([c.up for c in low], dim=1), torch.cat([c.down for c in low])
        narrowed.append(LowRankDelta(up.to(dtype), down.to(dtype)))
    return tuple(narrowed)
