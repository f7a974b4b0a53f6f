"""A stage done again with less memory, where the machine has less than was planned with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from acestep_cli.engine.weights import Store
from acestep_cli.machine import plan as planning
from acestep_cli.models.sizes import Sizes
from acestep_cli.progress import Say
from acestep_cli.song.complete import Completed

R = TypeVar("R")
#: How drivers and allocators put it that memory has run out.
OUT_OF_MEMORY = (
    "defaultcpuallocator",
    "out of memory",
    "cannot allocate memory",
    "alloc_failed",  # cuBLAS, cuDNN
    "out_of_device_memory",  # Level Zero
)


@dataclass
class Descent:
    """Does a stage again, a rung of the ladder lower, as often as memory runs out in it."""

    weights: Store
    sizes: Sizes
    say: Say

    def __call__(self, stage: str, request: Completed, work: Callable[..., R], *arguments: Any) -> R:
        while True:
            try:
                return work(*arguments)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                extra = sum(worn.adapter.parameters for worn in self.weights.stack)
                sizes = replace(self.sizes, adapter_parameters=extra)
                lower = planning.step_down(self.weights.plan, stage, request, sizes)
                if lower is None:
                    raise planning.exhausted(self.weights.plan, stage, request) from None
            # Only out here is the error gone, and with its traceback what the stage held.
            plan, rung = lower
            self.weights.rearrange(plan)
            self.say(f"Memory ran out on {plan.device}; from here on {rung}.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; not all that is part of torch says so by the kind of its error."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)
