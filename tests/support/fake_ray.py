"""A stand-in for Ray whose nodes are this process, so that albums on a cluster are tested without one.

What is sent and what comes back is pickled, as Ray does it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(f"ray::task()\n{type(cause).__name__}: {cause}")
        self.cause = cause


class NodeDiedError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class TaskUnschedulableError(RayError):
    pass


@dataclass
class Node:
    """A node: what it has, what befalls it, and what was sent to it."""

    id: str
    resources: dict[str, float] = field(default_factory=lambda: {"CPU": 2.0})
    #: What it answers by the name of what was asked, instead of doing it; an exception is raised.
    answers: dict[str, Any] = field(default_factory=dict)
    #: How many things it tells before it is lost.
    tells: float = float("inf")
    #: How many of its workers are lost, each as soon as it has told something.
    crashes: int = 0
    is_busy: bool = False
    is_alive: bool = True
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    cancelled: int = 0

    def described(self) -> dict[str, Any]:
        there = {"NodeID": self.id, "NodeManagerAddress": "10.0.0.1", "Alive": self.is_alive}
        return {**there, "Resources": self.resources}


@dataclass(eq=False)
class Ref:
    """What `get` turns into a value."""

    node: Node
    read: Callable[[], Any]


class Stream:
    """What a generator tells at a node."""

    def __init__(self, node: Node, told: Iterator[Any]) -> None:
        self.node, self._told, self._count = node, told, 0

    def __next__(self) -> Ref:
        self._count += 1
        self.node.tells -= 1
        if self.node.tells < 0:
            self.node.is_alive = False
        if not self.node.is_alive:
            return Ref(self.node, raising(NodeDiedError("it is dead")))
        if self._count == 2 and self.node.crashes:
            self.node.crashes -= 1
            return Ref(self.node, raising(WorkerCrashedError("it is gone")))
        told = pickled(next(self._told))
        return Ref(self.node, raising(told) if isinstance(told, BaseException) else lambda: told)

    def completed(self) -> Stream:
        return self


def raising(error: BaseException) -> Callable[[], Any]:
    def read() -> Any:
        raise error

    return read


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


class Ray:
    """All of Ray that this program touches. `interrupts` tells after how many things somebody presses Ctrl-C."""

    def __init__(self, address: str | None, *nodes: Node) -> None:
        self.address, self.all, self.interrupts = address, list(nodes), float("inf")
        self.is_up, self.refuses = False, False

    def init(self, address: str, **options: Any) -> None:
        assert address == self.address
        if self.refuses:
            raise RuntimeError("There is\nno such node.")
        self.is_up = True

    def shutdown(self) -> None:
        self.is_up = False

    def nodes(self) -> list[dict[str, Any]]:
        return [node.described() for node in self.all]

    def remote(self, *, scheduling_strategy: str, max_retries: int, **options: Any) -> Any:
        assert max_retries == 0
        node = next(node for node in self.all if node.id == scheduling_strategy)

        def task(work: Callable[..., Any]) -> Any:
            def send(*arguments: Any) -> Any:
                node.sent.append((work.__name__, options))
                if (instead := node.answers.get(work.__name__)) is not None:
                    return Ref(node, raising(instead) if isinstance(instead, Exception) else lambda: instead)
                found = work(*pickled(arguments))
                return Stream(node, found) if "num_returns" in options else Ref(node, lambda: pickled(found))

            sender = ModuleType("task")
            sender.remote = send  # type: ignore[attr-defined]
            return sender

        return task

    def wait(self, waiting: list[Any], *, num_returns: int = 1, timeout: float) -> tuple[list[Any], list[Any]]:
        ready = next((one for one in waiting if not one.node.is_busy), None)
        return [one for one in waiting if one is ready], [one for one in waiting if one is not ready]

    def get(self, ref: Ref) -> Any:
        self.interrupts -= 1
        if self.interrupts < 0:
            raise KeyboardInterrupt
        return ref.read()

    def cancel(self, one: Any, *, force: bool = False) -> None:
        one.node.cancelled += 1

    def canonicalize_bootstrap_address(self, address: str) -> str | None:
        assert address == "auto"
        if self.address is None:
            raise ConnectionError("Could not find any running Ray instance.")
        return self.address

    def modules(self) -> dict[str, ModuleType]:
        """What stands in for Ray's modules, by their names."""
        ray, services, strategies = (ModuleType(name) for name in ("ray", "services", "scheduling_strategies"))
        ray.__spec__ = ModuleSpec("ray", None)
        for name in ("init", "shutdown", "nodes", "remote", "wait", "get", "cancel"):
            setattr(ray, name, getattr(self, name))
        exceptions, private, util = ModuleType("exceptions"), ModuleType("_private"), ModuleType("util")
        for error in (RayError, RayTaskError, NodeDiedError, WorkerCrashedError, TaskUnschedulableError):
            setattr(exceptions, error.__name__, error)
        services.canonicalize_bootstrap_address = self.canonicalize_bootstrap_address  # type: ignore[attr-defined]
        strategies.NodeAffinitySchedulingStrategy = lambda id, soft: id  # type: ignore[attr-defined]
        ray.exceptions, private.services = exceptions, services  # type: ignore[attr-defined]
        inner = {"_private": private, "_private.services": services, "util": util,
                 "util.scheduling_strategies": strategies, "exceptions": exceptions}  # fmt: skip
        return {"ray": ray, **{f"ray.{name}": module for name, module in inner.items()}}
