"""A DiT step while other programs take cores: threads that spin while they wait, as OpenMP's do, and ours that sleep.

Each side is a process of its own, since OpenMP reads its policy once. A busy program is a Python loop.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from side_by_side import parser, publish

BUSY = "while True: pass"
STEP = """
import statistics, sys, time
import torch
from acestep_cli.engine.dit import Condition, DiT
from acestep_cli.models.configs import DiTConfig
from published import TWO_B, fill
layers, frames, steps = map(int, sys.argv[1:])
config = DiTConfig.from_dict({**TWO_B, "num_hidden_layers": layers})
torch.set_default_dtype(torch.bfloat16)
with torch.device("meta"):
    dit = DiT(config)
fill(dit)
channels = config.latent_channels
x, context = torch.randn(1, frames, channels), torch.randn(1, frames, 2 * channels)
t = torch.tensor([0.5])
with torch.inference_mode():
    kv = dit.project_condition(Condition(torch.randn(1, 300, config.encoder_hidden_size), None))
    dit(x, t, context, kv)
    for _ in range(steps):
        start = time.perf_counter()
        dit(x, t, context, kv)
        print(time.perf_counter() - start)
"""
POLICIES = ("active", "passive")
NOTES = """\
Medians of {rounds} processes each, taken in turns, of the median of {steps} steps: {layers} layers of the published 2B
sizes, random bfloat16 weights, {seconds} seconds of music, a condition of 300 tokens. `OMP_WAIT_POLICY` is `active` in
the second column and `passive`, as the program sets it, in the third. Beside them ran as many endless loops as the
first column says.
"""


def step_seconds(policy: str, layers: int, frames: int, steps: int) -> float:
    """Median seconds of a step in a process whose threads wait as `policy` says."""
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(layers), str(frames), str(steps)],
        env={**os.environ, "OMP_WAIT_POLICY": policy, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return statistics.median(map(float, done.stdout.split()))


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--layers", type=int, default=4, help="of the transformer (default: %(default)s)")
    options.add_argument("--seconds", type=int, default=30, help="of music (default: %(default)s)")
    options.add_argument("--steps", type=int, default=5, help="in each process (default: %(default)s)")
    options.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="busy programs (default: 0 1 2)")
    arguments = options.parse_args()

    table = [["busy programs", "active (spins)", "passive (sleeps)", "active / passive"]]
    for busy in arguments.busy:
        spent: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        with ExitStack() as programs:
            for _ in range(busy):
                program = programs.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
                programs.callback(program.kill)
            for _ in range(arguments.rounds):
                for policy, seconds in spent.items():
                    seconds.append(step_seconds(policy, arguments.layers, 25 * arguments.seconds, arguments.steps))
        active, passive = (statistics.median(spent[policy]) for policy in POLICIES)
        table.append([str(busy), f"{active:.2f} s", f"{passive:.2f} s", f"{active / passive:.2f}"])
    notes = NOTES.format(**vars(arguments))
    publish(__file__, "A step on a busy machine", table, notes, arguments.dry)


if __name__ == "__main__":
    main()
