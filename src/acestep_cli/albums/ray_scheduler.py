"""A scheduler for a cluster: it hands the jobs of one checkpoint out to the nodes in shares, until all are done.

It replaces Ray's own scheduling: when a node is lost, only the takes of its share that are not written yet are rendered
again.
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
from acestep_cli.render import result, write
from acestep_cli.render.job import Job
from acestep_cli.render.reporter import Reporter
from acestep_cli.render.result import PLANNED
from acestep_cli.song.complete import Completed

if TYPE_CHECKING:
    from acestep_cli.albums.ray_node import Node
    from acestep_cli.take import Take

Begin = Callable[[Sequence[Completed], Sequence[int]], "Generator[Take]"]
#: Sends songs and their files to a node, and returns Ray's generator of its messages.
Send = Callable[["Node", Sequence[Completed], Sequence[int], Files], Any]
#: Keeps takes as they come, as `perform.render_takes` does.
Keep = Callable[[list[Job], Begin], Iterator[bool]]
#: Seconds between two checks for Ctrl-C.
POLL_SECONDS = 0.5
#: Songs in a share at most: with small shares, all nodes end at about the same time.
LARGEST_SHARE = 4
#: Lost workers after which the song that they were rendering is given up.
MOST_LOSSES = 3


class RunningTask:
    """A share of the jobs that a node is rendering."""

    def __init__(self, jobs: list[Job], node: Node, send: Send, keep: Keep) -> None:
        self.jobs, self.node, self._send = jobs, node, send
        self._files = pack_files(jobs)
        self._arrived: deque[Take | FailureMessage] = deque()
        #: The messages of the node, as Ray yields them.
        self.stream: Any = None
        self._kept = keep(jobs, self._begin)

    def _begin(self, songs: Sequence[Completed], together: Sequence[int]) -> Generator[Take]:
        self.stream = self._send(self.node, songs, together, self._files)
        return self._takes()

    def _takes(self) -> Generator[Take]:
        while True:
            came = self._arrived.popleft()
            if isinstance(came, FailureMessage):
                raise result.as_error(came.error)
            yield came

    def advance(self, came: Take | FailureMessage | None = None) -> bool | None:
        """Start the share, or keep `came`, the take or failure that came from the node.

        Returns True where more is to come, None after the last, False where the whole run should end.
        """
        if came is not None:
            self._arrived.append(came)
        return next(self._kept, None)


class TotalProgress:
    """The progress of several tasks as one."""

    def __init__(self) -> None:
        self._reports: dict[tuple[RunningTask, str], ProgressMessage] = {}

    def add(self, task: RunningTask, progress: ProgressMessage, report: ProgressCallback) -> None:
        self._reports[task, progress.stage] = progress
        same_stage = [one for one in self._reports.values() if one.stage == progress.stage]
        report(progress.stage, sum(one.done for one in same_stage), sum(one.total for one in same_stage))

    def forget(self, task: RunningTask) -> None:
        self._reports = {key: progress for key, progress in self._reports.items() if key[0] is not task}

    def used_bytes(self) -> int:
        """Return the most memory that a worker has reported."""
        return max((progress.used_bytes for progress in self._reports.values()), default=0)


class Scheduler:
    """Jobs of one checkpoint and plan, and the places that render them: each node as often as it has room."""

    def __init__(self, jobs: list[Job], places: Sequence[Node], send: Send, keep: Keep, terminal: Reporter) -> None:
        self._waiting = deque(split_jobs(jobs, len(places)))
        self._free = deque(places)
        self._send, self._keep, self._terminal = send, keep, terminal
        self._running: list[RunningTask] = []
        self._losses: Counter[int] = Counter()
        self._progress = TotalProgress()

    def run(self) -> bool:
        """Render all jobs; return False if the run should end. Where no node is left, the remaining jobs fail."""
        import ray

        with self._terminal.progress(self._progress.used_bytes, several=True) as report:
            try:
                while self._begin():
                    streams = [task.stream for task in self._running]
                    ready, _ = ray.wait(streams, timeout=POLL_SECONDS)
                    for task in [task for task in self._running if task.stream in ready]:
                        if not self._receive(task, report):
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
            task = RunningTask(self._waiting.popleft(), self._free.popleft(), self._send, self._keep)
            if task.advance():
                self._running.append(task)
            else:
                self._free.append(task.node)
        return bool(self._running)

    def _receive(self, task: RunningTask, report: ProgressCallback) -> bool:
        """Handle the next message of a task; return False if the run should end."""
        import ray

        try:
            message = ray.get(next(task.stream))
        except ray.exceptions.RayTaskError as error:
            message = FailureMessage(result.describe_error(error.cause))
        except (ray.exceptions.RayError, StopIteration) as error:
            gone = (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError)
            self._requeue(task, with_node=isinstance(error, gone))
            return True
        if isinstance(message, ProgressMessage):
            self._progress.add(task, message, report)
            return True
        if isinstance(message, TextMessage):
            (self._terminal.warn if message.is_warning else self._terminal.say)(message.text)
            return True
        goes_on = task.advance(message)
        if not goes_on:
            self._running.remove(task)
            self._free.append(task.node)
        if goes_on is False:
            why = next(output.error for job in task.jobs for output in job.outputs if output.error is not None)
            others = [*(other.jobs for other in self._running), *self._waiting]
            mark_unmade([job for share in others for job in share], result.as_error(why))
        return goes_on is not False

    def _requeue(self, task: RunningTask, *, with_node: bool) -> None:
        """Queue the unfinished jobs of a lost worker again; `with_node` means that its whole node is lost."""
        self._running.remove(task)
        self._progress.forget(task)
        if with_node:
            self._free = deque(node for node in self._free if node is not task.node)
        else:
            self._free.append(task.node)
        left = [job for job in task.jobs if job.is_pending]
        if not left:
            return
        what = f"The node {task.node.name}" if with_node else f"A worker of the node {task.node.name}"
        self._terminal.warn(f"{what} was lost; rendered again elsewhere: {', '.join(job.name for job in left)}.")
        if not with_node:
            self._losses[id(left[0])] += 1  # the one that was being played
            if self._losses[id(left[0])] == MOST_LOSSES:
                first, *left = left
                gone = f"{first.name} crashed {MOST_LOSSES} workers and is given up."
                mark_unmade([first], AceStepError(gone, "Ray's logs on the nodes may say why; often memory ran out."))
        if left:
            self._waiting.append(left)

    def _stop(self) -> None:
        """Cancel the tasks that are still running, and wait a moment for them."""
        import ray

        ended = [task.stream.completed() for task in self._running]
        for task in self._running:
            ray.cancel(task.stream)
        if ended:
            ray.wait(ended, num_returns=len(ended), timeout=processes.GRACE)


def split_jobs(jobs: Iterable[Job], places: int) -> list[list[Job]]:
    """Return the jobs with pending outputs, in shares."""
    pending = [job for job in jobs if job.is_pending]
    size = min(LARGEST_SHARE, math.ceil(len(pending) / places))
    return [pending[start : start + size] for start in range(0, len(pending), size)]


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
