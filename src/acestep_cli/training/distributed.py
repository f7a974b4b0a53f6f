"""The processes that train one adapter together, each on a card of its own, as `accelerate launch` starts them.

The passes of a step are dealt out among them and their gradients added up, so that a step is what one process alone
would make of it. One of them speaks, saves and has the folder; all stop together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from acestep_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

LAUNCH = "accelerate launch --num_processes 2 -m acestep_cli train-lora …"


@dataclass(frozen=True)
class Distributed:
    """This process among all: its number, its number on its machine, and how many there are."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> Distributed:
        """As the launcher says it in the environment; a process nobody launched is alone. `UsageError` for what no
        launcher says.
        """
        least = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}
        found = []
        for name in least:
            text = os.environ.get(name, str(least[name]))
            if not text.isdecimal() or int(text) < least[name]:
                raise UsageError(f"{name} in the environment is {text!r}, where a launcher puts a number.",
                                 f"unset {name}; or launch with: {LAUNCH}")  # fmt: skip
            found.append(int(text))
        return cls(*found)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def device(self, asked: str | None) -> str | None:
        """The device to ask for: a card each, unless one is named. `UsageError` for one card for all."""
        if self.world_size == 1 or asked in ("cpu", "mps"):
            return asked
        if asked is not None and ":" in asked:
            raise UsageError(f"--device {asked}: is one card, and {self.world_size} processes train.", "Leave it out.")
        return f"{asked or 'cuda'}:{self.local_rank}"

    def passes_of(self, passes: int) -> range:
        """Which of the passes of a step are its own. `UsageError` where some process would have none."""
        if passes < self.world_size:
            raise UsageError(
                f"--accumulation {passes}: {self.world_size} processes share the passes of a step, so there are "
                "too few.",
                f"--accumulation {self.world_size} gives each of them one.",
            )
        return range(self.rank, passes, self.world_size)

    def barrier(self) -> None:
        """Wait for all others."""
        if self.world_size > 1:
            self._state.wait_for_everyone()

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all gradients."""
        if self.world_size > 1:
            from accelerate.utils import reduce

            for parameter in parameters:
                parameter.grad = reduce(parameter.grad, "sum")

    def all_reduce(self, *numbers: float) -> list[float]:
        """The sum of each number over all processes."""
        if self.world_size == 1:
            return list(numbers)
        import torch
        from accelerate.utils import reduce

        summed: Tensor = reduce(torch.tensor(numbers, device=self._state.device), "sum")
        return summed.tolist()

    @property
    def _state(self) -> Any:
        """accelerate's own, which joins the others when it is first asked for."""
        from accelerate import PartialState

        return PartialState()
