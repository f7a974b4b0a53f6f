"""Who plays what on a cluster: shares of the jobs of one checkpoint, dealt out to its nodes until all is there.

They are dealt out here rather than by Ray: of a share whose node is lost, only what is not written yet is played again.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from acestep_cli.albums import processes, ray_worker
from acestep_cli.albums.ray_worker import FailureMessage, Files, ProgressMessage, TextMessage
from acestep_cli.errors import AceStepError, NetworkError, SourceError, reason_of
from acestep_cli.progress import ProgressCallback
from acestep_cli.render import perform, result, write
from acestep_cli.render.job import Job
from acestep_cli.render.reporter import Reporter
from acestep_cli.render.result import PLANNED
from acestep_cli.song.complete import Completed

if TYPE_CHECKING:
    from acestep_cli.albums.ray_node import Node
    from acestep_cli.take import Take

Begin = Callable[[Sequence[Completed]], "Generator[Take]"]
#: Sends songs and their files to a node; Ray's own generator of what is told there comes back.
Send = Callable[["Node", Sequence[Completed], Files], Any]
#: Has takes kept as they come, as `render.making` does.
Keep = Callable[[list[Job], Begin], Iterator[bool]]
#: Seconds between two looks at whether somebody wants to stop.
LOOK = 0.5
#: Songs that a node loads its weights for, at most: where shares are small, nobody waits long for the last.
LARGEST_SHARE = 4
#: Workers that a song may cost: one that takes its worker down time and again is given up.
MOST_LOSSES = 3


class RunningTask:
    """A share of the jobs that a node is rendering."""

    def __init__(self, jobs: list[Job], node: Node, send: Send, keep: Keep) -> None:
        self.jobs, self.node, self._send = jobs, node, send
        self._files = pack_files(jobs)
        self._came: deque[Take | FailureMessage] = deque()
        #: What is told at the node.
        self.stream: Any = None
        self._kept = keep(jobs, self._begin)

    def _begin(self, songs: Sequence[Completed]) -> Generator[Take]:
        self.stream = self._send(self.node, songs, self._files)
        return self._takes()

    def _takes(self) -> Generator[Take]:
        while True:
            came = self._came.popleft()
            if isinstance(came, FailureMessage):
                raise perform.as_error(came.error)
            yield came

    def go_on(self, came: Take | FailureMessage | None = None) -> bool | None:
        """Start the share, or keep `came`, the take or failure that came from the node.

        Returns True where more is to come, None after the last, False where the whole run should end.
        """
        if came is not None:
            self._came.append(came)
        return next(self._kept, None)


class TotalProgress:
    """The progress of several tasks as one."""

    def __init__(self) -> None:
        self._told: dict[tuple[RunningTask, str], ProgressMessage] = {}

    def add(self, shift: RunningTask, progress: ProgressMessage, report: ProgressCallback) -> None:
        self._told[shift, progress.stage] = progress
        alike = [one for one in self._told.values() if one.stage == progress.stage]
        report(progress.stage, sum(one.done for one in alike), sum(one.total for one in alike))

    def forget(self, shift: RunningTask) -> None:
        self._told = {key: progress for key, progress in self._told.items() if key[0] is not shift}

    def used_bytes(self) -> int:
        """Return the most memory that a worker has reported."""
        return max((progress.used_bytes for progress in self._told.values()), default=0)


class Scheduler:
    """Jobs of one checkpoint and plan, and the places that render them: each node as often as it has room."""

    def __init__(self, alike: list[Job], places: Sequence[Node], send: Send, keep: Keep, terminal: Reporter) -> None:
        self._waiting = deque(split_jobs(alike, len(places)))
        self._free = deque(places)
        self._send, self._keep, self._terminal = send, keep, terminal
        self._at_work: list[RunningTask] = []
        self._losses: Counter[int] = Counter()
        self._tally = TotalProgress()

    def run(self) -> bool:
        """Render all jobs; return False if the run should end. Where no node is left, the remaining jobs fail."""
        import ray

        with self._terminal.progress(self._tally.used_bytes, several=True) as report:
            try:
                while self._begin():
                    streams = [shift.stream for shift in self._at_work]
                    ready, _ = ray.wait(streams, timeout=LOOK)
                    for shift in [shift for shift in self._at_work if shift.stream in ready]:
                        if not self._receive(shift, report):
                            return False
            finally:
                self._stop()
        if self._waiting:
            gone = NetworkError("No node of the Ray cluster is left.", "Run the command again to go on.")
            mark_unmade([job for share in self._waiting for job in share], gone)
        return True

    def _begin(self) -> bool:
        """Give shares to free nodes; return True if any node is at work."""
        while self._waiting and self._free:
            shift = RunningTask(self._waiting.popleft(), self._free.popleft(), self._send, self._keep)
            if shift.go_on():
                self._at_work.append(shift)
            else:
                self._free.append(shift.node)
        return bool(self._at_work)

    def _receive(self, shift: RunningTask, report: ProgressCallback) -> bool:
        """Handle the next message of a task; return False if the run should end."""
        import ray

        try:
            told = ray.get(next(shift.stream))
        except ray.exceptions.RayTaskError as error:
            told = FailureMessage(result.describe_error(error.cause))
        except (ray.exceptions.RayError, StopIteration) as error:
            gone = (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError)
            self._requeue(shift, with_node=isinstance(error, gone))
            return True
        if isinstance(told, ProgressMessage):
            self._tally.add(shift, told, report)
            return True
        if isinstance(told, TextMessage):
            (self._terminal.warn if told.is_warning else self._terminal.say)(told.text)
            return True
        goes_on = shift.go_on(told)
        if not goes_on:
            self._at_work.remove(shift)
            self._free.append(shift.node)
        if goes_on is False:
            why = next(output.error for job in shift.jobs for output in job.outputs if output.error is not None)
            others = [*(other.jobs for other in self._at_work), *self._waiting]
            mark_unmade([job for share in others for job in share], perform.as_error(why))
        return goes_on is not False

    def _requeue(self, shift: RunningTask, *, with_node: bool) -> None:
        """Queue the unfinished jobs of a lost worker again; `with_node` means that its whole node is lost."""
        self._at_work.remove(shift)
        self._tally.forget(shift)
        if with_node:
            self._free = deque(node for node in self._free if node is not shift.node)
        else:
            self._free.append(shift.node)
        left = [job for job in shift.jobs if job.pending()]
        if not left:
            return
        what = f"The node {shift.node.name}" if with_node else f"A worker of the node {shift.node.name}"
        self._terminal.warn(f"{what} was lost; played again elsewhere: {', '.join(job.name for job in left)}.")
        if not with_node:
            self._losses[id(left[0])] += 1  # the one that was being played
            if self._losses[id(left[0])] == MOST_LOSSES:
                first, *left = left
                gone = f"{first.name} took {MOST_LOSSES} workers down and is given up."
                mark_unmade([first], AceStepError(gone, "Ray's logs on the nodes may say why; often memory ran out."))
        if left:
            self._waiting.append(left)

    def _stop(self) -> None:
        """Cancel the tasks that are still running, and wait a moment for them."""
        import ray

        ended = [shift.stream.completed() for shift in self._at_work]
        for shift in self._at_work:
            ray.cancel(shift.stream)
        if ended:
            ray.wait(ended, num_returns=len(ended), timeout=processes.GRACE)


def split_jobs(alike: Iterable[Job], places: int) -> list[list[Job]]:
    """Return the jobs with pending outputs, in shares."""
    jobs = [job for job in alike if job.pending()]
    size = min(LARGEST_SHARE, math.ceil(len(jobs) / places))
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def pack_files(jobs: Iterable[Job]) -> Files:
    """Return the files that jobs name; mark a job whose files cannot be read any more as failed."""
    files: Files = {}
    for job in jobs:
        try:
            files |= ray_worker.files_of(job)
        except OSError as error:
            reason = reason_of(error)
            again = "Run the command again."
            mark_unmade([job], SourceError(f"{error.filename} cannot be read any more: {reason}.", again))
    return files


def mark_unmade(jobs: Iterable[Job], error: AceStepError) -> None:
    """Mark all planned outputs of jobs as failed with `error`."""
    waiting = [output for job in jobs for output in job.outputs if output.status == PLANNED]
    write.mark_failed(waiting, result.describe_error(error))
