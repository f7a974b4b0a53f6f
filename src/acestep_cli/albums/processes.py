"""Several processes that make one album, each on a card of its own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from acestep_cli.albums.tracks import Track
from acestep_cli.errors import UNEXPECTED, terminate
from acestep_cli.render import result
from acestep_cli.render.result import OutputFile

#: Seconds that a process has to finish or remove the file it is writing.
GRACE = 10.0


@dataclass
class WorkerOutcome:
    """The result of one process; `problems` are as `--json` prints them."""

    outputs: list[OutputFile] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


Work = Callable[..., WorkerOutcome]


def share_tracks(tracks: Sequence[Track], most: int) -> list[list[str]]:
    """Return the ids of tracks in up to `most` shares of similar size.

    A track that begins from another is in the share of that one.
    """
    root = {track.id: track.id for track in tracks}
    bases = {track.id: track.base for track in tracks}
    for id in root:
        while (base := bases[root[id]]) is not None:
            root[id] = base
    groups: dict[str, list[str]] = {}
    for id, first in root.items():
        groups.setdefault(first, []).append(id)
    shares: list[list[str]] = [[] for _ in range(min(most, len(groups)))]
    for group in sorted(groups.values(), key=len, reverse=True) if shares else ():
        min(shares, key=len).extend(group)
    return shares


def run_workers(work: Work, tasks: Iterable[tuple[Any, ...]]) -> list[WorkerOutcome]:
    """Run `work` with the arguments of each task, in a process each, and wait for all.

    Ctrl-C and SIGTERM end the processes too.
    """
    start = multiprocessing.get_context("spawn")
    workers = []
    try:
        for arguments in tasks:
            ours, theirs = start.Pipe(duplex=False)
            worker = start.Process(target=_work, args=(theirs, work, arguments))
            worker.start()
            theirs.close()
            workers.append((worker, ours))
        return [_outcome_of(worker, ours) for worker, ours in workers]
    except BaseException:
        for worker, _ in workers:
            worker.terminate()
        for worker, _ in workers:
            worker.join(GRACE)
        raise


def _work(pipe: Connection, work: Work, arguments: tuple[Any, ...]) -> None:
    """Run one task in a worker process, and send the outcome through `pipe`."""
    signal.signal(signal.SIGTERM, terminate)
    try:
        outcome = work(*arguments)
    except BaseException as error:
        outcome = WorkerOutcome(problems=[result.describe_error(error)])
    pipe.send(outcome)


def _outcome_of(worker: Any, pipe: Connection) -> WorkerOutcome:
    """Return the outcome of a process; a problem where it died without one."""
    try:
        outcome: WorkerOutcome = pipe.recv()
    except EOFError:
        worker.join()
        message = f"A process of the album ended with code {worker.exitcode}; run the command again to go on."
        outcome = WorkerOutcome(problems=[result.error_object(UNEXPECTED, "unexpected", message, None)])
    worker.join()
    return outcome
