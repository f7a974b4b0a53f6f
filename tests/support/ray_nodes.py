"""Nodes of a Ray cluster on this machine, each with one processor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from support.command import LIMIT, read_to

START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
STORE = f"--object-store-memory={100_000_000}"
STARTED = "Ray runtime started."


@dataclass(frozen=True)
class Node:
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, *options: str) -> Node:
        """A node, once it is part of its cluster."""
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(  # `stop` ends it, with all its processes
            [*START, STORE, *options], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        read_to(process.stdout, STARTED)
        return cls(process)

    def kill(self) -> None:
        """As a power cut does it: what speaks for the node is gone, and its workers go after it."""
        [raylet] = [one for one in psutil.Process(self.process.pid).children() if one.name() == "raylet"]
        raylet.kill()

    def stop(self) -> None:
        """End all its processes, each by its id."""
        there = psutil.Process(self.process.pid)
        family = [*there.children(recursive=True), there]
        self.process.terminate()
        _, left = psutil.wait_procs(family, timeout=20)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.communicate(timeout=LIMIT)


@contextmanager
def cluster(number: int) -> Iterator[tuple[str, list[Node]]]:
    """The address of a cluster of so many nodes, and the nodes, the head first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    nodes = [Node.start("--head", f"--port={port}", "--include-dashboard=false")]
    try:
        nodes += [Node.start(f"--address=127.0.0.1:{port}") for _ in range(number - 1)]
        yield f"127.0.0.1:{port}", nodes
    finally:
        for node in reversed(nodes):
            node.stop()
