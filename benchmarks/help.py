"""CPU time of `acestep --help` over that of importing what it is made of; medians of one run, taken in turn.

python benchmarks/help.py [RUNS]
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

HELP = [sys.executable, "-m", "acestep_cli", "--help"]
IMPORTS = [sys.executable, "-c", "import typer, pydantic, typer.rich_utils"]
AT_MOST = 1.6


def cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    pairs = [(cpu_seconds(HELP), cpu_seconds(IMPORTS)) for _ in range(runs + 1)][1:]  # the first fills caches
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    print("| what | CPU ms |\n|---|---|")
    print(f"| `acestep --help` | {1000 * ours:.0f} |")
    print(f"| `import typer, pydantic, typer.rich_utils` | {1000 * theirs:.0f} |")
    print(f"| ratio, at most {AT_MOST} | {ours / theirs:.2f} |")
    sys.exit(ours / theirs > AT_MOST)


if __name__ == "__main__":
    main()
