"""The speed of a training run: the time of its steps, and so the time left."""

from __future__ import annotations

import statistics
import time
from collections import deque

from acestep_cli.cli.console import Console
from acestep_cli.machine import plan_text

#: Steps whose median time predicts the next ones; a save or a preview between two steps hardly changes a median.
MEDIAN_STEPS = 20
#: Steps after the first, which is slower, before the time left is printed.
ENOUGH_STEPS = 3


class TrainingRate:
    """Shows the loss after each step of a run of `steps`, and once the time left. `loss` is the last one."""

    def __init__(self, steps: int, terminal: Console) -> None:
        self.steps, self.terminal = steps, terminal
        self.loss: float | None = None
        self._last: float | None = None
        self._step_seconds: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self._is_announced = False

    def __call__(self, step: int, loss: float | None) -> None:
        """Report a step that was just taken; `loss` is the running mean, or None at first."""
        now = time.monotonic()
        if self._last is not None:
            self._step_seconds.append(now - self._last)
        self._last, self.loss = now, loss
        left = statistics.median(self._step_seconds) * (self.steps - step) if self._step_seconds else None
        self.terminal.note("no loss yet" if loss is None else f"loss {loss:.4f}")
        eta = None if left is None else round(left, 1)
        self.terminal.events.emit("step", step=step, of=self.steps, loss=loss, eta_seconds=eta)
        if left and len(self._step_seconds) >= ENOUGH_STEPS and not self._is_announced:
            self._is_announced = True
            self.terminal.say(f"Time: about {plan_text.format_seconds(left)} more, by the first steps.")
