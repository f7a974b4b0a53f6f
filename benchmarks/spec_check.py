"""Processor time of `acestep spec check` over 100 specs, against that of `acestep --help`.

    python benchmarks/spec_check.py

Interleaved runs, ratio of medians; the aim is at most 3. The specs are the bundled songs under other names.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

from acestep_cli.song import examples

RUNS, SPECS = 9, 100


def seconds(*arguments: str) -> float:
    """Processor time, user and system, of one run of the program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "acestep_cli", *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        alone = [
            file for file in examples.example_files().values() if "extends:" not in file.read_text(encoding="utf-8")
        ]
        specs = [
            shutil.copy(file, Path(folder, f"{number}{file.suffix}"))
            for number, file in enumerate(islice(cycle(alone), SPECS))
        ]
        pairs = [(seconds("--help"), seconds("spec", "check", *map(str, specs))) for _ in range(RUNS)]
    help_time, check_time = (statistics.median(times) for times in zip(*pairs, strict=True))
    print("| | CPU seconds | ratio |\n|---|---|---|")
    print(f"| `acestep --help` | {help_time:.3f} | |")
    print(f"| `acestep spec check` of {SPECS} specs | {check_time:.3f} | {check_time / help_time:.2f} |")


if __name__ == "__main__":
    main()
