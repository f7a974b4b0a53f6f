"""`--events`: what a render does, as it does it, a JSON object a line; with heartbeats, so that silence means trouble.

Each line keeps to `schemas/event.schema.json`.
"""

from __future__ import annotations

import errno
import json
import os
import select
import stat
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from acestep_cli import disk
from acestep_cli.errors import ExistsError, OutputError, UsageError, reason_of
from acestep_cli.progress import ProgressCallback, Say
from acestep_cli.render import result
from acestep_cli.render.result import OutputFile

SCHEMA = "acestep-event/1"
#: First bytes of a file of events, and of no other file.
OURS = json.dumps({"schema": SCHEMA})[:-1].encode()
#: Seconds without an event before a heartbeat.
HEARTBEAT = 5.0
#: Steps whose median is the usual time of a step.
LAST_STEPS = 9
DESCRIPTOR = "fd:"
#: Fields of an output that its event repeats.
OF_A_TAKE = ("path", "sidecar", "seed", "take", "kind", "track", "status", "seconds", "error")


class Events:
    """Writes events to a descriptor; without one, nowhere.

    The run goes on when the reader closes its pipe, and when the disk is full: then `warn` gets a sentence, and `lost`
    is the error for the end.
    """

    def __init__(self, descriptor: int | None = None, place: str | None = None, warn: Say = lambda line: None) -> None:
        self._descriptor, self._place, self._warn = descriptor, place, warn
        self.lost: OutputError | None = None
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._stage: dict[str, Any] = {}
        self._step_began = self._last
        #: Seconds of the last steps of the current stage.
        self._step_seconds: deque[float] = deque(maxlen=LAST_STEPS)
        self._emitted: set[int] = set()

    def emit(self, event: str, **content: Any) -> None:
        with self._lock:
            if self._descriptor is None:
                return
            line = json.dumps({"schema": SCHEMA, "time": round(time.time(), 3), "event": event, **content}) + "\n"
            self._last = time.monotonic()
            try:
                write_line(self._descriptor, line.encode())
                return
            except BrokenPipeError:
                self._descriptor = None
                return
            except OSError as error:
                self._descriptor = None
                self.lost = lost = refusal(str(self._place), error, ends=True)
        self._warn(f"{lost.message} The run goes on without them.")

    def takes(self, outputs: Iterable[OutputFile]) -> None:
        """Emit an event for each file, once."""
        for output in outputs:
            if id(output) not in self._emitted:
                self._emitted.add(id(output))
                entry = output.report()
                self.emit("take", **{name: entry[name] for name in OF_A_TAKE if name in entry})

    def skip_files(self, outputs: Iterable[OutputFile]) -> None:
        """Emit no events for these files, which are removed again."""
        self._emitted.update(map(id, outputs))

    def refuse_files(self, files: Iterable[Path]) -> None:
        """Raise `UsageError` where the events go into one of the `files` that the run writes."""
        if self._place is not None and os.path.realpath(self._place) in map(os.path.realpath, files):
            raise UsageError(f"--events {self._place}: is a file that this run writes.", "Name another one.")

    def following(self, report: ProgressCallback) -> ProgressCallback:
        """Return `report`, extended to emit each step as an event."""

        def reported(stage: str, done: int, total: int) -> None:
            step = {"stage": stage, "done": done, "total": total}
            if step != self._stage:
                self._time_step(step)
                self.emit("progress", **step)
            report(stage, done, total)

        return reported

    def _time_step(self, step: dict[str, Any]) -> None:
        """Take the time of the step that ends with `step`; another stage begins anew."""
        now, before = time.monotonic(), self._stage
        if before.get("stage") != step["stage"] or step["done"] < before["done"]:
            self._step_seconds.clear()
        elif step["done"] > before["done"]:
            self._step_seconds.append((now - self._step_began) / (step["done"] - before["done"]))
        self._stage, self._step_began = step, now

    def step_time(self) -> dict[str, float]:
        """Return the seconds since the last step, and the median of the last steps where the stage has had some."""
        if not self._stage:
            return {}
        found = {"step_seconds": round(time.monotonic() - self._step_began, 3)}
        if steps := list(self._step_seconds):
            found["usual_step_seconds"] = round(statistics.median(steps), 3)
        return found

    @contextmanager
    def heartbeats(self) -> Iterator[None]:
        """Emit a heartbeat with the current stage during the body, whenever there was no event for a while."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(max(self._last + HEARTBEAT - time.monotonic(), 0.05)):
                if time.monotonic() - self._last >= HEARTBEAT:
                    self.emit("heartbeat", **self._stage, **self.step_time())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def write_line(descriptor: int, line: bytes) -> None:
    """Write one line as a whole. Raises `OSError` where it cannot be written; no part of it stays in a file."""
    rest = memoryview(line)
    try:
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # a pipe that its reader made so, and has not emptied yet
                select.select([], [descriptor], [])
    except OSError:
        with suppress(OSError):  # no part of a line is worth an error of its own
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and (written := len(line) - len(rest)):
                os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR) - written)
        raise


def refusal(place: str, error: OSError, *, ends: bool = False) -> OutputError:
    """Return the error for events that cannot be written to `place`, or with `ends`, not any more."""
    reason = reason_of(error)
    hint = disk.HINTS.get(error.errno or 0, "").replace("--output", "--events")
    if error.errno == errno.ENOSPC:
        hint = "Free some space, or name a file on another disk with --events."
    end = "; the events end early" if ends else ""
    return OutputError(f"{place} cannot be written: {reason}{end}.", hint or None)


@contextmanager
def open_events(place: str | None, warn: Say) -> Iterator[Events]:
    """Yield a writer of events to FILE, which is emptied, or fd:N. The last event tells how the body ended.

    `warn` gets a sentence where they cannot be written any more. Raises `OutputError` for that in the end, unless the
    body failed.
    """
    if place is None:
        yield Events()
        return
    descriptor = open_target(place)
    try:
        events = Events(descriptor, place, warn)
        with events.heartbeats():
            events.emit("start")
            try:
                yield events
            except BaseException as error:
                events.emit("end", **end_event(error))
                raise
            events.emit("end", exit_code=0)
        if events.lost is not None:
            raise events.lost
    finally:
        os.close(descriptor)


def end_event(error: BaseException) -> dict[str, Any]:
    found = result.describe_error(error)
    return {"exit_code": found["exit_code"], "error": found}


def open_target(place: str) -> int:
    """Open the target of `--events`, or duplicate its descriptor.

    Raises `ExistsError` for a file that holds anything but events, and `UsageError` for a bad descriptor.
    """
    if not place.startswith(DESCRIPTOR):
        try:
            return open_file(place)
        except OSError as error:
            raise refusal(place, error) from error
    number = place.removeprefix(DESCRIPTOR)
    if number == "1":
        raise UsageError("--events fd:1: stdout carries results alone.", "Take fd:3, and 3>events.ndjson behind it.")
    try:
        return os.dup(int(number))
    except (ValueError, OverflowError):
        raise UsageError(f"--events {place}: is not a descriptor such as fd:3.") from None
    except OSError as error:
        raise UsageError(f"--events {place}: is not open.", f"Open it: acestep … {number}>events.ndjson") from error


def open_file(place: str) -> int:
    """Open a file, device or pipe for writing. The events of an earlier run are removed from a file."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_size:
            with Path(place).open("rb") as file:
                if file.read(len(OURS)) != OURS:
                    raise ExistsError(
                        Path(place), why=" and does not hold events", hint="Name another file for --events."
                    )
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
