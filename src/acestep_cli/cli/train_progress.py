"""The speed of a training run: the time that it will take, the time left, and what the next run learns from it."""

from __future__ import annotations

import statistics
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

from acestep_cli.cli.console import Console
from acestep_cli.machine import hardware, history, plan_text
from acestep_cli.machine.plan import Speed
from acestep_cli.progress import ProgressCallback
from acestep_cli.training.plan import RENDERS, TrainingPlan

#: What a training is called in the history of this machine, in the place of a mode.
TRAINING = "train"
#: Steps whose median time predicts the next ones; a save or a preview between two steps hardly changes a median.
MEDIAN_STEPS = 20
#: Steps after the first, which is slower, before the time left is printed.
ENOUGH_STEPS = 3


@dataclass
class StageTimes:
    """Passes progress on to `report`, and keeps the times of the first and the last report of each stage."""

    report: ProgressCallback
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take a report."""
        now = time.monotonic()
        self.spans[stage] = (self.spans.get(stage, (now, now))[0], now)
        self.report(stage, done, total)

    def seconds(self, stage: str) -> float:
        """Return the seconds between the first and the last report of a stage."""
        first, last = self.spans.get(stage, (0.0, 0.0))
        return last - first


class TrainingRate:
    """Shows the loss after each step of a run of `steps`, and once the time left. `loss` is the last one."""

    def __init__(self, steps: int, terminal: Console) -> None:
        self.steps, self.terminal = steps, terminal
        self.loss: float | None = None
        self._last: float | None = None
        self._step_seconds: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self._is_announced = False

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last steps; None before the second."""
        return statistics.median(self._step_seconds) if self._step_seconds else None

    def __call__(self, step: int, loss: float | None) -> None:
        """Report a step that was just taken; `loss` is the running mean, or None at first."""
        now = time.monotonic()
        if self._last is not None:
            self._step_seconds.append(now - self._last)
        self._last, self.loss = now, loss
        left = None if self.seconds_per_step is None else self.seconds_per_step * (self.steps - step)
        self.terminal.note("no loss yet" if loss is None else f"loss {loss:.4f}")
        eta = None if left is None else round(left, 1)
        self.terminal.events.emit("step", step=step, of=self.steps, loss=loss, eta_seconds=eta)
        if left and len(self._step_seconds) >= ENOUGH_STEPS and not self._is_announced:
            self._is_announced = True
            self.terminal.say(f"Time: about {plan_text.format_seconds(left)} more, by the first steps.")


def time_sentence(plan: TrainingPlan, seconds_to_encode: float, share_left: float) -> str:
    """Return a sentence on the time of a run: to start, to encode so many seconds of songs, and for the steps left,
    which are a share of all.
    """
    if plan.seconds is None or plan.encoded_per_second is None or plan.expected is None:
        return "Time: known after the first steps, because no render has been timed on this machine yet."
    encoding = seconds_to_encode / plan.encoded_per_second
    whole = plan_text.format_seconds(plan.expected["startup"] + encoding + plan.seconds * share_left)
    time = f"{whole} at the least" if plan.reasons["seconds"] == RENDERS else f"about {whole}"
    listening = f", {plan_text.format_seconds(encoding)} of it to listen to the songs" if seconds_to_encode else ""
    return f"Time: {time}{listening}, {plan.reasons['seconds']}."


def record_speed(
    plan: TrainingPlan, checkpoint: str, seconds_encoded: float, times: StageTimes, rate: TrainingRate
) -> None:
    """Record the speed of a run on `checkpoint`, for the time of the next one; nothing where it had but one step."""
    encoding = times.seconds("encode")
    encoded = seconds_encoded / encoding if seconds_encoded and encoding > 0 else plan.encoded_per_second
    device = next((one for one in hardware.detect().devices if one.name == plan.device), None)
    if device is None or rate.seconds_per_step is None or not encoded:
        return
    speed = Speed(plan.operations / rate.steps / rate.seconds_per_step, encoded)
    with suppress(OSError):  # a state folder that cannot be written: the next run knows as much as this one
        history.record_render(device, f"{checkpoint} {TRAINING}", plan, fallback_seconds=None, speed=speed)
