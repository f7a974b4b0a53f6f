"""What a process costs."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

PROGRAM = ["-m", "acestep_cli"]
#: As where the program is installed: with its modules compiled. The first run of each, which compiles, is not counted.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Cost(NamedTuple):
    """Seconds by the clock, and of the processor, user and system, of a process."""

    seconds: float
    cpu: float


def cost(*arguments: str, environment: Mapping[str, str] = {}) -> Cost:
    """Measure a Python process. Raises `CalledProcessError` where it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env={**ENVIRONMENT, **environment})
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
