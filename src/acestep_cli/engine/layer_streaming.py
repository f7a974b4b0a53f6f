"""Layers whose weights stay in main memory: each is copied to the device while the one before it computes.

On NVIDIA's and AMD's cards the copies run beside the arithmetic, from page-locked memory, on a stream of their own. No
more than two layers are ever on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BUFFERS = 2


class LayerStream(nn.ModuleList):
    """A list of layers of one shape. While it is iterated over, each is on the device until the next one is taken."""

    def __init__(self, layers: nn.ModuleList, device: torch.device) -> None:
        super().__init__(layers)
        self.device = device
        self.copy_stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.host_weights: list[dict[str, Tensor]] = []
        for layer in layers:  # one by one: the copy that is not page-locked goes before the next is made
            weights = {name: weight.data for name, weight in layer.named_parameters()}
            if self.copy_stream:
                weights = {name: weight.pin_memory() for name, weight in weights.items()}
            set_parameters(layer, weights)
            self.host_weights.append(weights)

    def __iter__(self) -> Iterator[nn.Module]:
        """Yield the layers. Two buffers on the device take turns: each layer goes where the layer before last was."""
        buffers = [DeviceBuffer.like(self.host_weights[0], self.device) for _ in self.host_weights[:BUFFERS]]
        if self.copy_stream:
            self.copy_stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            self._fetch(0, buffers[0])
            for number, layer in enumerate(self._modules.values()):
                buffer = buffers[number % len(buffers)]
                if number + 1 < len(self):
                    self._fetch(number + 1, buffers[(number + 1) % len(buffers)])
                if self.copy_stream:
                    torch.cuda.current_stream(self.device).wait_event(buffer.arrived)
                set_parameters(layer, buffer.weights)
                try:
                    yield layer
                finally:
                    set_parameters(layer, self.host_weights[number])
                    if self.copy_stream:
                        buffer.released = torch.cuda.current_stream(self.device).record_event()
        finally:
            # Who stops early leaves a copy under way, into memory that the next tensor would be given.
            if self.copy_stream:
                torch.cuda.current_stream(self.device).wait_stream(self.copy_stream)

    def _fetch(self, number: int, buffer: DeviceBuffer) -> None:
        """Start to copy the weights of a layer into `buffer`, after the last use of the layer there."""
        with torch.cuda.stream(self.copy_stream) if self.copy_stream else nullcontext():
            if buffer.released is not None:
                self.copy_stream.wait_event(buffer.released)
            for name, weight in self.host_weights[number].items():
                buffer.weights[name].copy_(weight, non_blocking=True)
            buffer.arrived = self.copy_stream.record_event() if self.copy_stream else None


@dataclass
class DeviceBuffer:
    """Memory on the device for one layer, and events recorded after the copies into it and after its last use."""

    weights: dict[str, Tensor]
    arrived: Any = None
    released: Any = None

    @classmethod
    def like(cls, weights: dict[str, Tensor], device: torch.device) -> DeviceBuffer:
        return cls({name: torch.empty_like(weight, device=device) for name, weight in weights.items()})


def set_parameters(layer: nn.Module, weights: dict[str, Tensor]) -> None:
    """Make `weights` the parameters of `layer`."""
    for name, weight in weights.items():
        owner, _, leaf = name.rpartition(".")
        setattr(layer.get_submodule(owner), leaf, nn.Parameter(weight, requires_grad=False))


def stream_layers(model: nn.Module, device: torch.device) -> None:
    """Stream every list of layers in `model` to `device` layer by layer; move all else there for good."""
    lists = [(owner, name) for owner in list(model.modules()) for name, child in owner.named_children()
             if isinstance(child, nn.ModuleList)]  # fmt: skip
    streams = [(owner, name, LayerStream(getattr(owner, name), device)) for owner, name in lists]
    for owner, name, _ in streams:
        setattr(owner, name, nn.ModuleList())
    model.to(device)
    for owner, name, stream in streams:
        setattr(owner, name, stream)
