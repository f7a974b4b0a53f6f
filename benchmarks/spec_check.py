"""Processor time of `acestep spec check` over 100 specs, against that of `acestep --help`.

    python benchmarks/spec_check.py [RUNS]

Interleaved runs, ratio of medians; the aim is at most 3. The specs are the bundled songs under other names.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

from processes import PROGRAM, cost

from acestep_cli.song import examples

RUNS, SPECS = 9, 100


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    with tempfile.TemporaryDirectory() as folder:
        alone = [
            file for file in examples.example_files().values() if "extends:" not in file.read_text(encoding="utf-8")
        ]
        specs = [
            shutil.copy(file, Path(folder, f"{number}{file.suffix}"))
            for number, file in enumerate(islice(cycle(alone), SPECS))
        ]
        check = ["spec", "check", *map(str, specs)]
        pairs = [(cost(*PROGRAM, "--help").cpu, cost(*PROGRAM, *check).cpu) for _ in range(runs + 1)]
    counted = pairs[1:]  # the first fills caches
    help_time, check_time = (statistics.median(times) for times in zip(*counted, strict=True))
    print("| | CPU seconds | ratio |\n|---|---|---|")
    print(f"| `acestep --help` | {help_time:.3f} | |")
    print(f"| `acestep spec check` of {SPECS} specs | {check_time:.3f} | {check_time / help_time:.2f} |")


if __name__ == "__main__":
    main()
