"""CPU time of `acestep --help` over that of importing what it is made of; medians of one run, taken in turn.

python benchmarks/help.py [RUNS]
"""

from __future__ import annotations

import statistics
import sys

from processes import PROGRAM, cost

HELP = [*PROGRAM, "--help"]
IMPORTS = ["-c", "import typer, pydantic, typer.rich_utils"]
AT_MOST = 1.6


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    pairs = [(cost(*HELP).cpu, cost(*IMPORTS).cpu) for _ in range(runs + 1)][1:]  # the first fills caches
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    print("| what | CPU ms |\n|---|---|")
    print(f"| `acestep --help` | {1000 * ours:.0f} |")
    print(f"| `import typer, pydantic, typer.rich_utils` | {1000 * theirs:.0f} |")
    print(f"| ratio, at most {AT_MOST} | {ours / theirs:.2f} |")
    sys.exit(ours / theirs > AT_MOST)


if __name__ == "__main__":
    main()
