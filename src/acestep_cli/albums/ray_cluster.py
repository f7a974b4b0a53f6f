"""A Ray cluster that makes albums: its address, its nodes, and what each of them lacks."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from acestep_cli import __version__
from acestep_cli.albums import ray_scheduler, ray_worker
from acestep_cli.albums.ray_node import Node
from acestep_cli.albums.ray_worker import Files, NodeInfo, RenderTask, WeightsRef
from acestep_cli.errors import AceStepError, NetworkError, UsageError, combine_errors, name_lines, reason_of
from acestep_cli.machine import hardware
from acestep_cli.machine.hardware import Hardware
from acestep_cli.render import perform, result
from acestep_cli.render.job import Job
from acestep_cli.render.reporter import Reporter
from acestep_cli.render.session import RenderSession
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song.complete import Completed

#: The values of `--on`.
KINDS = ("ray",)
INSTALL = "pip install 'acestep-cli[ray]'"
ADDRESS_VARIABLE = "RAY_ADDRESS"
START = "ray start --head starts one; on other machines, ray start --address=HOST:6379 adds them to it."
#: Seconds to wait for an answer of the cluster, and seconds that Ray has to find this machine's part of it.
ANSWERS, JOINS = 3.0, 10
JOINS_VARIABLE = "RAY_gcs_server_request_timeout_seconds"
#: Seconds after which a node that does not answer counts as busy.
PATIENCE = 30.0


def check_backend(on: str, run: RenderSettings, processes: int) -> None:
    """Raise `UsageError` for an unknown cluster, for flags about this machine alone, and where Ray is not installed."""
    if on not in KINDS:
        raise UsageError(f"--on {on}: is an unknown backend; {' and '.join(KINDS)} is known.")
    if processes > 1:
        raise UsageError(
            f"--jobs {processes}: is for this machine; with --on ray each node makes as many as it has room for."
        )
    if run.pull:
        raise UsageError(
            "--pull: fetches for this machine alone, and with --on ray each node needs the checkpoint.",
            "Run acestep models pull on each of them.",
        )
    if run.device is not None and ":" in run.device:
        raise UsageError(f"--device {run.device}: with --on ray, Ray says which card it is.", "Name its kind alone.")
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--on ray: Ray is not installed.", INSTALL)


@contextmanager
def open_cluster(run: RenderSettings, terminal: Reporter) -> Iterator[Cluster]:
    """Yield the cluster that this machine belongs to, with the nodes that can take part in `run`.

    Raises `NetworkError` where there is no cluster, and the problems of all nodes where none can take part.
    """
    os.environ.setdefault(JOINS_VARIABLE, str(JOINS))
    with join_cluster(find_address()):
        yield Cluster(run, terminal)


def find_address() -> str:
    """Return the address of the cluster, once it answers. Raises `NetworkError` where none does.

    Ray itself would wait for minutes for one that does not.
    """
    asked = os.environ.get(ADDRESS_VARIABLE, "")
    if "://" in asked:
        raise UsageError(
            f"{ADDRESS_VARIABLE} is {asked}, and albums are made from a machine of the cluster, not by Ray's client.",
            "ray start --address=HOST:6379 --num-cpus=0 adds this machine to it, without rendering here.",
        )
    from ray._private import services  # what Ray makes of `auto`; nothing public tells

    try:
        address = services.canonicalize_bootstrap_address("auto")
    except (OSError, ValueError):  # the first is also how Ray says that there is none
        address = None
    if address is None:
        named = f" by {ADDRESS_VARIABLE}, which is {asked}" if asked else " on this machine"
        raise NetworkError(f"--on ray: no Ray cluster is found{named}.", START)
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWERS).close()
    except OSError as error:
        reason = reason_of(error)
        raise NetworkError(f"--on ray: the Ray cluster at {address} does not answer: {reason}.", START) from error
    return str(address)


@contextmanager
def join_cluster(address: str) -> Iterator[None]:
    """Be part of a cluster during the body.

    Ray would handle SIGTERM itself and print its own messages; neither is allowed.
    """
    import ray

    terminate = signal.getsignal(signal.SIGTERM)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        try:
            try:
                ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level="CRITICAL")
            except (Exception, SystemExit) as error:  # the second where it gives up all of this process
                raise NetworkError(
                    f"--on ray: the Ray cluster at {address} does not take this machine: {last_line(error)}.",
                    f"ray start --address={address} adds it; with --num-cpus=0 it renders nothing.",
                ) from error
            finally:
                signal.signal(signal.SIGTERM, terminate)
            yield
        finally:
            ray.shutdown()


def last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().removesuffix(".")


def node_capacity(there: Mapping[str, Any], kind: str) -> int:
    """Return the number of renders a node can make at once: one for each card, or one on all its processors.

    `there` describes the node as Ray does.
    """
    counted = int(there["Resources"].get(kind, 0))
    return counted if kind == "GPU" else min(counted, 1)


class Cluster:
    """The nodes of a cluster that can take part in a run."""

    def __init__(self, run: RenderSettings, terminal: Reporter) -> None:
        """Find the nodes. Raises `AceStepError` where none can take part."""
        import ray

        self._terminal = terminal
        self._nodes: list[Node] = []
        #: The ids of all inspected nodes, also of those that are left out.
        self._known: set[str] = set()
        #: The problem of a node with some weights; None where it has none.
        self._verdicts: dict[tuple[str, WeightsRef], AceStepError | None] = {}
        has_cards = any(node_capacity(there, "GPU") for there in ray.nodes() if there["Alive"])
        self._kind = "GPU" if (has_cards if run.device is None else run.device.lower() != "cpu") else "CPU"
        problems = self._inspect_new_nodes()
        if not self._nodes:
            what = "card" if self._kind == "GPU" else "processor"
            raise combine_errors(
                problems or [NetworkError(f"--on ray: no node of the cluster has a {what} for it.", START)]
            )
        self._leave_out(problems)
        names = ", ".join(node.name for node in self._nodes)
        terminal.say(f"On Ray: {names}; up to {sum(node.room for node in self._nodes)} tracks at a time")

    def machine(self) -> Hardware:
        """Return the hardware that plans are for: the node with least memory. The others have as much, or more."""
        least = min((node.machine for node in self._nodes), key=lambda machine: machine.devices[0].free_bytes)
        threads, why = hardware.threads()  # as here: Ray lets each of its workers believe that it has one core
        return replace(least, threads=threads, threads_reason=why)

    def make(self, jobs: list[Job], session: RenderSession) -> bool:
        """Render jobs of one checkpoint and plan, as `perform.render_jobs` does, on the nodes that have the weights."""
        if not any(job.is_pending for job in jobs):
            return True
        run = session.settings
        weights = WeightsRef.of(jobs[0], run.models_dir)
        try:
            able = self._able(jobs[0], weights)
        except AceStepError as error:
            ray_scheduler.mark_unmade(jobs, error)
            return True
        plan, uses_cache = jobs[0].plan, jobs[0].cache is not None

        def send(to: Node, songs: Sequence[Completed], together: Sequence[int], files: Files) -> Any:
            task = RenderTask(
                weights=weights,
                plan=plan,
                songs=tuple(songs),
                together=tuple(together),
                files=files,
                uses_cache=uses_cache,
                debug=run.debug,
                timeout=run.timeout,
            )
            return self._send(to.id, ray_worker.run_task, task, num_returns="streaming")

        def keep(share: list[Job], begin: ray_scheduler.Begin) -> Iterator[bool]:
            return perform.render_takes(share, begin, session)

        places = [node for turn in range(max(node.room for node in able)) for node in able if turn < node.room]
        return ray_scheduler.Scheduler(jobs, places, send, keep, session.reporter).run()

    def _inspect_new_nodes(self) -> list[AceStepError]:
        """Inspect the nodes that are new, and return the problems of those that cannot take part."""
        import ray

        fresh = {one["NodeID"]: one for one in ray.nodes() if one["Alive"] and one["NodeID"] not in self._known}
        self._known |= fresh.keys()
        names = {
            id: f"{one['NodeManagerAddress']} ({id[:8]})" for id, one in fresh.items() if node_capacity(one, self._kind)
        }
        problems = []
        for id, found in self._ask(names, ray_worker.inspect_node, self._kind == "GPU").items():
            problem = found if isinstance(found, AceStepError) else unsuitable(found, names[id], self._kind)
            if problem is None:
                self._nodes.append(Node(id, names[id], node_capacity(fresh[id], self._kind), found.machine))
            else:
                problems.append(problem)
        return problems

    def _able(self, job: Job, weights: WeightsRef) -> list[Node]:
        """Return the nodes that can make a job. Raises `AceStepError` with the problems of all where none can."""
        problems = self._inspect_new_nodes()
        fresh = {node.id: node for node in self._nodes if (node.id, weights) not in self._verdicts}
        names = {id: node.name for id, node in fresh.items()}
        for id, found in self._ask(names, ray_worker.missing_weights, weights).items():
            problem = name_lines(result.as_error(found), names[id]) if isinstance(found, dict) else found
            devices = fresh[id].machine.devices
            backend, dtype = job.plan.backend, job.plan.dtype
            if problem is None and not any(one.backend == backend and dtype in one.dtypes for one in devices):
                problem = UsageError(f"{names[id]} has no {backend} that computes in {dtype}, as the plan does.")
            self._verdicts[id, weights] = problem
            problems += [problem] if problem is not None else []
        able = [node for node in self._nodes if self._verdicts[node.id, weights] is None]
        if not able:
            why = [self._verdicts[node.id, weights] for node in self._nodes]
            raise combine_errors([problem for problem in why if problem is not None])
        self._leave_out(problems)
        return able

    def _leave_out(self, problems: Sequence[AceStepError]) -> None:
        for problem in problems:
            self._terminal.warn(f"Left out: {' '.join(str(problem).splitlines())}")

    def _ask(self, names: Mapping[str, str], work: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Return the answer of `work` at each node, or an `AceStepError` for a node that does not answer.

        Waits for the first free node; those that are busy for long after that are left out.
        """
        import ray

        sent = {self._send(id, work, *arguments): id for id in names}
        answers: dict[str, Any] = {}
        waiting, is_said = list(sent), False
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=PATIENCE)
            if not ready and answers:
                break
            if not ready and not is_said:
                self._terminal.say("All nodes of the Ray cluster are busy; waiting for one.")
                is_said = True
            for answer in ready:
                id = sent[answer]
                try:
                    answers[id] = ray.get(answer)
                except ray.exceptions.RayError as error:
                    answers[id] = no_answer(error, names[id])
        for answer in waiting:
            ray.cancel(answer, force=True)
            answers[sent[answer]] = NetworkError(f"{names[sent[answer]]} is busy with something else.")
        return answers

    def _send(self, id: str, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Start a remote call at a node, on a card of its own where there are cards."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        one = {"num_gpus": 1, "num_cpus": 0} if self._kind == "GPU" else {"num_cpus": 1}
        there = NodeAffinitySchedulingStrategy(id, soft=False)
        task = ray.remote(max_retries=0, scheduling_strategy=there, **one, **options)
        return task(work).remote(*arguments)


def unsuitable(found: NodeInfo, name: str, kind: str) -> AceStepError | None:
    """Return the reason why a node cannot take part; None where it can."""
    here = ray_worker.versions()
    if others := {library: version for library, version in found.versions.items() if version != here.get(library)}:
        theirs, ours = (", ".join(f"{one} {of.get(one)}" for one in others) for of in (others, here))
        return UsageError(
            f"{name} has {theirs}, and this machine {ours}: takes might differ.", "Install the same there."
        )
    if kind == "GPU" and found.machine.devices[0].backend == "cpu":
        return UsageError(f"{name}: Ray counts a card there that torch does not find.", "--device cpu needs none.")
    return None


def no_answer(error: Exception, name: str) -> AceStepError:
    """Return the error for a node that gave no answer."""
    if "acestep_cli" in str(error):  # what was asked could not be imported there
        return UsageError(
            f"{name} has no acestep-cli {__version__}.", f"pip install acestep-cli=={__version__}, there."
        )
    return NetworkError(f"{name} does not answer: {last_line(error)}.")
