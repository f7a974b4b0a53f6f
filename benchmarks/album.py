"""Albums: the CPU time of rendering one that is current over that of `--help`, and the memory of a long one."""

from __future__ import annotations

import contextlib
import os
import select
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from help import HELP, cpu_seconds
from memory_peak import status_mb
from side_by_side import parser, publish

PROGRAM = [sys.executable, "-m", "acestep_cli"]
CURRENT_TRACKS, EARLY, LATE = 12, 10, 100
#: A reading depends on which buffers are in use just then: the least of those in so many tracks counts.
AROUND = 5
BETWEEN_READINGS = 0.02
SECONDS = 10
TIME_AIM, MEMORY_AIM = 4, 1.03
NOTES = """\
CPU time of whole processes, medians of {runs} runs taken in turn, with one thread: `album render` of {current} tracks,
all of which are as the album asks, and `--help`. Memory: the resident set of one `album render` of {late} tracks of
{seconds} s with `pocket`, the least of the readings while
the {around} tracks up to the one named are made.
"""
TORCH_LOADED = """
import sys
from acestep_cli.cli.app import main
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def album(folder: Path, tracks: int) -> list[str]:
    """The arguments that render an album of so many songs in `folder`."""
    lines = [f"defaults: {{model: pocket, duration: {SECONDS}}}", "tracks:"]
    lines += [f'  - {{id: track-{number}, caption: "song {number}, gentle folk"}}' for number in range(tracks)]
    file = folder / f"album-{tracks}.yaml"
    file.write_text("\n".join(lines) + "\n")
    return ["album", "render", str(file), "--output", str(folder), "--quiet"]


def held_mb(arguments: list[str]) -> list[float]:
    """What a render holds in memory while each of its tracks is made: the least of many readings."""
    least = [float("inf")]
    with subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        while True:
            if select.select([run.stdout], [], [], BETWEEN_READINGS)[0]:
                if not run.stdout.readline():
                    return least[:-1]
                least.append(float("inf"))
            with contextlib.suppress(SystemExit):  # it has ended meanwhile
                least[-1] = min(least[-1], status_mb("VmRSS", run.pid))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=11)
    arguments = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        os.environ["ACESTEP_CACHE_DIR"] = f"{name}/cache"
        current = album(Path(name), CURRENT_TRACKS)
        subprocess.run([*PROGRAM, *current], check=True, stdout=subprocess.DEVNULL)
        loaded = subprocess.run(
            [sys.executable, "-c", TORCH_LOADED, *current], capture_output=True, text=True, check=True
        )
        has_torch = loaded.stderr.splitlines()[-1]
        pairs = [(cpu_seconds([*PROGRAM, *current]), cpu_seconds(HELP)) for _ in range(arguments.runs)]
        ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        held = held_mb([*album(Path(name), LATE), "--no-cache"])  # which has some of these tracks by now
    early, late = (min(held[number - AROUND : number]) for number in (EARLY, LATE))
    table = [
        ["what", "of", "to", "ratio", "aim"],
        [f"CPU time, {CURRENT_TRACKS} current tracks to `--help`", f"{1000 * ours:.0f} ms", f"{1000 * theirs:.0f} ms",
         f"{ours / theirs:.2f} x", f"at most {TIME_AIM} x"],
        ["torch is loaded by that render", has_torch, "", "", "False"],
        [f"resident set, after track {LATE} to after track {EARLY}", f"{late:.0f} MB", f"{early:.0f} MB",
         f"{late / early:.3f} x", f"at most {MEMORY_AIM} x"],
    ]  # fmt: skip
    notes = NOTES.format(runs=arguments.runs, current=CURRENT_TRACKS, late=LATE, seconds=SECONDS, around=AROUND)
    publish(__file__, "Albums", table, notes, arguments.dry)


if __name__ == "__main__":
    main()
