"""The speed of a training run: the time of its steps, and so the time left."""

from __future__ import annotations

import statistics
import time
from collections import deque

from acestep_cli.cli.console import Console
from acestep_cli.machine import plan_text

#: Steps that tell how long the next ones take: those between which was a save or a preview are outvoted.
LOOKED_AT = 20
#: So many after the first, which is longer than the others, tell enough to say it.
TELLING = 3


class TrainingRate:
    """Shows the loss after each step of a run of `steps`, and once the time left. `loss` is the last one."""

    def __init__(self, steps: int, terminal: Console) -> None:
        self.steps, self.terminal = steps, terminal
        self.loss: float | None = None
        self._last: float | None = None
        self._took: deque[float] = deque(maxlen=LOOKED_AT)
        self._has_told = False

    def __call__(self, step: int, loss: float | None) -> None:
        """Report a step that was just taken; `loss` is the running mean, or None at first."""
        now = time.monotonic()
        if self._last is not None:
            self._took.append(now - self._last)
        self._last, self.loss = now, loss
        left = statistics.median(self._took) * (self.steps - step) if self._took else None
        self.terminal.note("no loss yet" if loss is None else f"loss {loss:.4f}")
        eta = None if left is None else round(left, 1)
        self.terminal.events.emit("step", step=step, of=self.steps, loss=loss, eta_seconds=eta)
        if left and len(self._took) >= TELLING and not self._has_told:
            self._has_told = True
            self.terminal.say(f"Time: about {plan_text.format_seconds(left)} more, by the first steps.")
