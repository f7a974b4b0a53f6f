"""One node of a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass

from acestep_cli.machine.hardware import Hardware


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: for how many of our renders it has room, and what each of them finds there."""

    id: str
    name: str
    room: int
    machine: Hardware
