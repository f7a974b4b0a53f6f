"""CPU time of one TAB over that of `acestep --help`; medians of one run, taken in turn.

python benchmarks/completion.py [RUNS]
"""

from __future__ import annotations

import statistics
import sys

from processes import PROGRAM, cost

#: What is on the line when TAB is pressed, behind the last blank.
LINES = (
    "acestep ge",
    "acestep generate --model t",
    "acestep generate --language ",
    "acestep generate --sol",
    "acestep render so",
    "acestep models pull tu",
    "acestep examples show ni",
    "acestep spec check so",
)
AT_MOST = 1.0


def tab(line: str) -> dict[str, str]:
    """What a bash with completion installed sets for the program."""
    words = line.count(" ")
    return {"_ACESTEP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(words)}


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    rounds = [
        (cost(*PROGRAM, "--help").cpu, *(cost(*PROGRAM, environment=tab(line)).cpu for line in LINES))
        for _ in range(runs + 1)
    ][1:]  # the first fills caches
    help_seconds, *tabs = (statistics.median(times) for times in zip(*rounds, strict=True))
    print("| what | CPU ms | ratio |\n|---|---|---|")
    print(f"| `acestep --help` | {1000 * help_seconds:.0f} | 1 |")
    for line, seconds in zip(LINES, tabs, strict=True):
        print(f"| `{line}`TAB | {1000 * seconds:.0f} | {seconds / help_seconds:.2f} |")
    print(f"| the dearest, at most {AT_MOST} | | {max(tabs) / help_seconds:.2f} |")
    sys.exit(max(tabs) / help_seconds > AT_MOST)


if __name__ == "__main__":
    main()
