"""Data-parallel training: processes that train one adapter together, each on its own GPU, as `accelerate launch` starts
them.

They share the passes of a step and add up their gradients, so that a step equals that of one process. The main process
alone prints, saves and locks the folder; all stop together.
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
        """Read the launcher's environment variables; without them the process is alone. Raises `UsageError` for values
        that no launcher sets.
        """
        numbers = {}
        for name, least in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1)):
            text = os.environ.get(name, str(least))
            if not text.isdecimal() or int(text) < least:
                raise UsageError(f"{name} in the environment is {text!r}, where a launcher puts a number.",
                                 f"unset {name}; or launch with: {LAUNCH}")  # fmt: skip
            numbers[name] = int(text)
        return cls(rank=numbers["RANK"], local_rank=numbers["LOCAL_RANK"], world_size=numbers["WORLD_SIZE"])

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def device(self, asked: str | None) -> str | None:
        """Return the device of this process: a GPU each. Raises `UsageError` where one GPU is named for all."""
        if self.world_size == 1 or asked in ("cpu", "mps"):
            return asked
        if asked is not None and ":" in asked:
            raise UsageError(f"--device {asked}: is one card, and {self.world_size} processes train.", "Leave it out.")
        return f"{asked or 'cuda'}:{self.local_rank}"

    def passes_of(self, passes: int) -> range:
        """Return the passes of a step that are this process's. Raises `UsageError` where a process would have none."""
        if passes < self.world_size:
            raise UsageError(
                f"--accumulation {passes}: {self.world_size} processes share the passes of a step, so there are "
                "too few.",
                f"--accumulation {self.world_size} gives each of them one.",
            )
        return range(self.rank, passes, self.world_size)

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        if self.world_size > 1:
            self._state.wait_for_everyone()

    def all_reduce_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes."""
        if self.world_size > 1:
            from accelerate.utils import reduce

            for parameter in parameters:
                parameter.grad = reduce(parameter.grad, "sum")

    def all_reduce(self, *numbers: float) -> list[float]:
        """Return the sum of each number over all processes."""
        if self.world_size == 1:
            return list(numbers)
        import torch
        from accelerate.utils import reduce

        summed: Tensor = reduce(torch.tensor(numbers, device=self._state.device), "sum")
        return summed.tolist()

    @property
    def _state(self) -> Any:
        """The state of accelerate, which joins the process group when it is first read."""
        from accelerate import PartialState

        return PartialState()
