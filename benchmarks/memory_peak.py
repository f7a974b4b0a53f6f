"""The peak of this process's resident memory, counted from a moment of one's choosing. Linux only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

SAMPLE_SECONDS = 0.005


def status_mb(field: str, process: int | str = "self") -> float:
    """A line of `/proc/PROCESS/status`: VmRSS, VmHWM (its peak), RssAnon."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"This kernel does not report {field}; the benchmark needs Linux.")
    return int(found[1]) / 1024


@dataclass
class Rise:
    """How far memory rose above where it stood; `mb` is set when the block ends."""

    mb: float = 0.0


@contextmanager
def resident_rise() -> Iterator[Rise]:
    """Exact: the kernel keeps the peak, which is reset first."""
    rise = Rise()
    Path("/proc/self/clear_refs").write_text("5")
    before = status_mb("VmRSS")
    yield rise
    rise.mb = status_mb("VmHWM") - before


@contextmanager
def anonymous_rise() -> Iterator[Rise]:
    """Memory that no file backs; the kernel keeps no peak of it, so it is sampled every few milliseconds."""
    rise, done, before = Rise(), Event(), status_mb("RssAnon")

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            rise.mb = max(rise.mb, status_mb("RssAnon") - before)

    watcher = Thread(target=watch)
    watcher.start()
    yield rise
    done.set()
    watcher.join()
    rise.mb = max(rise.mb, status_mb("RssAnon") - before)
