"""One node of a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass

from acestep_cli.machine.hardware import Hardware


@dataclass(frozen=True)
class Node:
    """A machine of the cluster; `room` is the number of renders it makes at once, `machine` the hardware of each."""

    id: str
    name: str
    room: int
    machine: Hardware
