"""Layers whose weights stay in main memory: each comes to the device for its turn, while the one before it works.

On a card the copies run beside the arithmetic, from page-locked memory, on a stream of their own; at most two layers
are there at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Guest(NamedTuple):
    """A layer's weights on the device; `arrived` is recorded behind their copies, where these run on their own."""

    weights: dict[str, Tensor]
    arrived: Any


class LayerStream(nn.Module):
    """A list of layers, to be iterated over; each is on the device until the next one is asked for."""

    def __init__(self, layers: nn.ModuleList, device: torch.device) -> None:
        super().__init__()
        self.layers = layers
        self.device = device
        self.copies: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.home = [
            {
                name: weight.data.pin_memory() if self.copies else weight.data
                for name, weight in layer.named_parameters()
            }
            for layer in layers
        ]
        for layer, weights in zip(layers, self.home, strict=True):
            settle(layer, weights)

    def _at_home(self, layer: nn.Module) -> dict[str, Tensor]:
        """The weights of a layer in main memory, page-locked where a card will copy them."""
        weights = {name: weight.data for name, weight in layer.named_parameters()}
        return {name: weight.pin_memory() for name, weight in weights.items()} if self.copies else weights

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[nn.Module]:
        coming = self._invite(0)
        for number, layer in enumerate(self.layers):
            weights, arrived = coming
            if arrived is not None:
                torch.cuda.current_stream(self.device).wait_event(arrived)
            settle(layer, weights)
            if number + 1 < len(self.layers):
                coming = self._invite(number + 1)
            try:
                yield layer
            finally:
                if arrived is not None:  # their memory is not to be given away before the layer is done with it
                    for weight in weights.values():
                        weight.record_stream(torch.cuda.current_stream(self.device))
                settle(layer, self.home[number])
                del weights

    def _invite(self, number: int) -> Guest:
        """Start copying a layer's weights to the device."""
        with torch.cuda.stream(self.copies) if self.copies else nullcontext():
            weights = {name: weight.to(self.device, non_blocking=True) for name, weight in self.home[number].items()}
            return Guest(weights, self.copies.record_event() if self.copies else None)


def settle(layer: nn.Module, weights: dict[str, Tensor]) -> None:
    """Make `weights` the parameters of `layer`."""
    for name, weight in weights.items():
        owner, _, leaf = name.rpartition(".")
        setattr(layer.get_submodule(owner), leaf, nn.Parameter(weight, requires_grad=False))


def stream_layers(model: nn.Module, device: torch.device) -> None:
    """Let every list of layers in `model` come to `device` layer by layer; all else moves there for good."""
    lists = [(owner, name) for owner in list(model.modules()) for name, child in owner.named_children()
             if isinstance(child, nn.ModuleList)]  # fmt: skip
    streams = [(owner, name, LayerStream(getattr(owner, name), device)) for owner, name in lists]
    for owner, name, _ in streams:
        setattr(owner, name, nn.ModuleList())
    model.to(device)
    for owner, name, stream in streams:
        setattr(owner, name, stream)
