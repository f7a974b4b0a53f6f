"""Retry a stage with the next memory fallback when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import ran_out_of_memory
from acestep_cli.machine.plan import exhausted_error, step_down
from acestep_cli.models.sizes import Sizes
from acestep_cli.progress import Say
from acestep_cli.song.complete import Completed

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class OutOfMemoryRetry:
    """Runs a stage, and runs it again with the next memory fallback each time that memory runs out in it."""

    weights: WeightStore
    sizes: Sizes
    warn: Say
    _fell_back: bool = field(default=False, init=False)
    #: The most takes that may share a forward pass, since memory ran out over more; None before.
    _most_together: int | None = field(default=None, init=False)

    def share_passes(self, together: int) -> None:
        """Plan so many takes for a forward pass from here on, or as many as there was memory for."""
        number = min(together, self._most_together or together)
        self.weights.plan = self.weights.plan.model_copy(update={"together": number})

    def pop_fell_back(self) -> bool:
        """Return True if memory ran out since the last call, and forget it."""
        found, self._fell_back = self._fell_back, False
        return found

    def __call__(self, stage: str, request: Completed, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result of `work`. Raises `MemoryLimitError` when no fallback that helps `stage` is left."""
        while True:
            try:
                return work(*args, **kwargs)
            except Exception as error:
                if not ran_out_of_memory(error):
                    raise
                extra = sum(active.adapter.parameters for active in self.weights.adapters)
                sizes = replace(self.sizes, adapter_parameters=extra)
                lower = step_down(self.weights.plan, stage, request, sizes)
                if lower is None:
                    raise exhausted_error(self.weights.plan, stage, request) from None
            # Only out here is the error gone, and with its traceback what the stage held.
            plan, fallback = lower
            self._fell_back = True
            if plan.together < self.weights.plan.together:
                self._most_together = plan.together
            self.weights.replan(plan)
            self.warn(f"Memory ran out on {plan.device}; from here on {fallback}.")
