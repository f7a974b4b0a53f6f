"""A stage done again with less memory, where the machine has less than was planned with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import ran_out_of_memory
from acestep_cli.machine import plan as planning
from acestep_cli.models.sizes import Sizes
from acestep_cli.progress import Say
from acestep_cli.song.complete import Completed

R = TypeVar("R")


@dataclass
class OutOfMemoryRetry:
    """Does a stage again, a rung of the ladder lower, as often as memory runs out in it."""

    weights: WeightStore
    sizes: Sizes
    warn: Say

    def __call__(self, stage: str, request: Completed, work: Callable[..., R], *arguments: Any) -> R:
        while True:
            try:
                return work(*arguments)
            except Exception as error:
                if not ran_out_of_memory(error):
                    raise
                extra = sum(worn.adapter.parameters for worn in self.weights.adapters)
                sizes = replace(self.sizes, adapter_parameters=extra)
                lower = planning.step_down(self.weights.plan, stage, request, sizes)
                if lower is None:
                    raise planning.exhausted_error(self.weights.plan, stage, request) from None
            # Only out here is the error gone, and with its traceback what the stage held.
            plan, rung = lower
            self.weights.replan(plan)
            self.warn(f"Memory ran out on {plan.device}; from here on {rung}.")
