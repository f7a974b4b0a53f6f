"""How the benchmarks measure and report: interleaved runs in one process, ratios of medians, one Markdown table each.

Machines differ, and so does one machine from minute to minute; what holds is the ratio of two things timed by turns.
"""

from __future__ import annotations

import argparse
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def parser(about: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """The options that benchmarks share; `rounds` is the default of those that take time."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help="timed runs of each side (default: %(default)s)")
    parser.add_argument("--dry", action="store_true", help="print the table without writing it into results/")
    return parser


def medians(rounds: int, *runs: Callable[[], Any]) -> list[float]:
    """Median seconds of each run over `rounds` rounds in which each has its turn; the caller warms up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, spent in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            spent.append(time.perf_counter() - start)
    return [statistics.median(spent) for spent in seconds]


def cpu_model() -> str:
    """The processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def publish(
    script: str, title: str, table: Sequence[Sequence[str]], notes: str, dry: bool, *, counted: bool = False
) -> None:
    """Print a table, its first row the header, with the machine it holds for; keep it in `results/` unless `dry`.

    What is `counted` holds for every machine.
    """
    header, *rows = table
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    software = f"torch {torch.__version__}, Python {platform.python_version()}"
    machine = f"Measured on: {cpu_model()}, {torch.get_num_threads()} threads, {software}."
    if counted:
        machine = f"Counted with {software}; no card was measured."
    text = "\n".join([f"# {title}", "", *lines, "", notes.strip(), "", machine, ""])
    print(text)
    if not dry:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / Path(script).name).with_suffix(".md").write_text(text, encoding="utf-8")
