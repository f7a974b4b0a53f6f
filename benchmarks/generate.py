"""What a song costs in processor time, from the command line to the file, with the built-in checkpoint.

Processor time is user and system time of the whole process. Most of a short render is Python importing torch and
transformers, which no program around them can avoid: that alone is measured beside it and taken off.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import parser, publish

SPEC = Path(__file__).parents[1] / "songs" / "night-drive.yaml"
IMPORTS = "import torch; from transformers.models.qwen3.modeling_qwen3 import Qwen3Model"
AIM = 0.35
NOTES = """\
Processor time, user and system, medians of {rounds} processes each, taken in turns, of `acestep generate {spec}` with
the length below and of importing torch and transformers' Qwen3 alone. The last column is what the imports leave, per
second of audio.
"""


def cpu_seconds(*arguments: str) -> float:
    """Processor time of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--seconds", type=float, nargs="+", default=[10, 60], help="of music (default: 10 60)")
    options.add_argument("flags", nargs="*", metavar="-- FLAGS", help="further flags of acestep generate")
    arguments = options.parse_args()

    spent: dict[float, list[float]] = {seconds: [] for seconds in arguments.seconds}
    imports: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        song = ["-m", "acestep_cli", "generate", str(SPEC), "-o", f"{folder}/song.flac", "--force", "--quiet"]
        for _ in range(arguments.rounds):
            imports.append(cpu_seconds("-c", IMPORTS))
            for seconds, spent_on_it in spent.items():
                spent_on_it.append(cpu_seconds(*song, "--duration", f"{seconds:g}", *arguments.flags))

    base = statistics.median(imports)
    table = [["length", "generate", "imports alone", "above the imports, per second of audio", "aim"]]
    for seconds, spent_on_it in spent.items():
        whole = statistics.median(spent_on_it)
        each = f"{(whole - base) / seconds:.3f} s"
        table.append([f"{seconds:g} s", f"{whole:.2f} s", f"{base:.2f} s", each, f"at most {AIM} s"])
    notes = NOTES.format(rounds=arguments.rounds, spec=f"songs/{SPEC.name}")
    publish(__file__, "Processor time of a render with the built-in checkpoint", table, notes, arguments.dry)


if __name__ == "__main__":
    main()
