"""The cost of a song from the command line to the file, with the built-in checkpoint: beside `import torch` alone.

Processor time is user and system time of the whole process; seconds are those of the clock. No program around torch can
avoid its import, so that is measured in turns with the render.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from processes import PROGRAM, Cost, cost
from side_by_side import parser, publish

SPEC = Path(__file__).parents[1] / "songs" / "night-drive.yaml"
IMPORTS = "import torch"
SONGWRITERS = ("none", "pocket")
AIM = 1.7
NOTES = """\
Medians of {rounds} processes each, taken in turns, of `acestep generate {spec}` with length and Songwriter as below,
and of `{imports}` alone ({base_seconds:.2f} s, {base_cpu:.2f} s of the processor). The aim is for ten seconds of music
without a Songwriter.
"""


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--seconds", type=float, nargs="+", default=[10, 60], help="of music (default: 10 60)")
    options.add_argument("flags", nargs="*", metavar="-- FLAGS", help="further flags of acestep generate")
    arguments = options.parse_args()

    cases = [(seconds, writer) for seconds in arguments.seconds for writer in SONGWRITERS]
    spent: dict[tuple[float, str], list[Cost]] = {case: [] for case in cases}
    imports: list[Cost] = []
    with tempfile.TemporaryDirectory() as folder:
        song = [*PROGRAM, "generate", str(SPEC), "-m", "pocket", "-o", f"{folder}/song.flac", "--force", "-q"]
        cost(*song, "--duration", "3")  # compiles what is not compiled yet
        for _ in range(arguments.rounds):
            imports.append(cost("-c", IMPORTS))
            for (seconds, writer), costs in spent.items():
                costs.append(cost(*song, "--duration", f"{seconds:g}", "--songwriter", writer, *arguments.flags))

    base = median(imports)
    table = [["length", "Songwriter", "seconds", "over the import", "processor", "over the import", "aim"]]
    for (seconds, writer), costs in spent.items():
        whole = median(costs)
        aim = f"{AIM} x" if (seconds, writer) == (10, "none") else ""
        table.append([f"{seconds:g} s", writer, f"{whole.seconds:.2f} s", f"{whole.seconds / base.seconds:.2f} x",
                      f"{whole.cpu:.2f} s", f"{whole.cpu / base.cpu:.2f} x", aim])  # fmt: skip
    notes = NOTES.format(
        rounds=arguments.rounds,
        spec=f"songs/{SPEC.name}",
        imports=IMPORTS,
        base_seconds=base.seconds,
        base_cpu=base.cpu,
    )
    publish(__file__, "A render with the built-in checkpoint, beside the import of torch", table, notes, arguments.dry)


if __name__ == "__main__":
    main()
