"""Int8 arithmetic of the diffusion transformer beside bfloat16's: the time of a step, and what it does to the music.

The time is that of random weights at the published 2B sizes. What becomes of the latents and of the sound is measured
on whole takes of the built-in checkpoint, whose weights were trained.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from dit_step import CONDITION_TOKENS, step_inputs
from published import TWO_B, fill
from safetensors.torch import load_file
from side_by_side import medians, parser, publish
from take_distance import NAMES, SONGS, apart
from torch import Tensor

from acestep_cli.engine.dit import Condition, DiT
from acestep_cli.engine.int8 import Int8Linear, replace_linears
from acestep_cli.models import latents_file
from acestep_cli.models.configs import DiTConfig

CASES = ((24, 60), (2, 60), (2, 240), (2, 600))  # layers, seconds of music
AIM = 1.5
NOTES = """\
Random bfloat16 weights of the published sizes, rounded to int8 for the other; batch 1, a condition of {condition}
tokens; medians of {rounds} runs each, taken in turns in one process. The difference is that of the velocities, relative
to bfloat16's. Of `pocket`: takes of 12 s with the same seed, least and most of {songs} songs. The difference is that of
the latents after eight steps, and the log-spectral distance below 12 kHz that of the files, as `acestep show a.flac
b.flac` prints it; beside it, that of two seeds.
"""


def build(layers: int) -> tuple[DiT, DiT]:
    """Return a transformer in bfloat16, and one with its weights in int8 that multiplies in int8."""
    config = DiTConfig.from_dict({**TWO_B, "num_hidden_layers": layers})
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        plain, quantized = DiT(config), DiT(config)
    torch.set_default_dtype(torch.float32)
    fill(plain)
    replace_linears(quantized.layers, arithmetic=True)
    for name, weight in plain.state_dict().items():
        owner_name, _, leaf = name.rpartition(".")
        owner = quantized.get_submodule(owner_name)
        if isinstance(owner, Int8Linear) and leaf == "weight":
            owner.quantize(weight, torch.device("cpu"), torch.bfloat16)
        else:
            setattr(owner, leaf, torch.nn.Parameter(weight, requires_grad=False))
    for module, other in zip(plain.modules(), quantized.modules(), strict=True):
        for name, buffer in module.named_buffers(recurse=False):
            other.register_buffer(name, buffer, persistent=False)
    return plain, quantized


def compare(layers: int, seconds: float, rounds: int) -> tuple[float, float, float]:
    """Return the median seconds of a step in bfloat16 and in int8, and how far apart their velocities are."""
    plain, quantized = build(layers)
    x, t, context, states = step_inputs(seconds)
    condition = plain.project_condition(Condition(states, None))

    def step(model: DiT) -> Tensor:
        return model(x, t, context, condition)

    reference, velocity = step(plain).float(), step(quantized).float()  # and both are warm
    difference = (velocity - reference).norm() / reference.norm()
    return *medians(rounds, lambda: step(plain), lambda: step(quantized)), difference.item()


def render(folder: Path, name: str, dtype: str, seed: int) -> Path:
    """Render a song with `pocket` and return its file, beside which its latents are kept."""
    file = folder / f"{name}-{dtype}-{seed}.flac"
    flags = ["-m", "pocket", "-d", "12", "--seed", str(seed), "--dtype", dtype, "--keep-latents", "-o", str(file)]
    command = [sys.executable, "-m", "acestep_cli", "generate", "-q", str(SONGS / f"{name}.yaml"), *flags]
    subprocess.run(command, check=True, capture_output=True)
    return file


def latents_of(file: Path) -> Tensor:
    [tensor] = load_file(latents_file.latents_path(file)).values()
    return tensor.float()


def pocket_row() -> list[str]:
    """Return the row of `pocket`: the differences of latents and of sound over all songs."""
    latents, sounds, seeds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            plain, quantized = (render(Path(folder), name, dtype, 1) for dtype in ("bf16", "int8"))
            reference = latents_of(plain)
            latents.append(float((latents_of(quantized) - reference).norm() / reference.norm()))
            sounds.append(apart(plain, quantized))
            seeds.append(apart(plain, render(Path(folder), name, "bf16", 2)))
    decibels = [f"{min(values):.1f} to {max(values):.1f} dB" for values in (sounds, seeds)]
    differences = f"{min(latents):.1e} to {max(latents):.1e}"
    return ["pocket, whole takes", "12 s", "", "", "", "", differences, f"{decibels[0]} (seeds: {decibels[1]})"]


@torch.inference_mode()
def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--case", type=int, choices=range(len(CASES)), help="one row of the table only")
    options.add_argument("--scale", type=float, default=1, help="of the songs' lengths, for a quick try")
    arguments = options.parse_args()
    torch.manual_seed(0)
    table = [["what", "music", "bfloat16", "int8", "speed", "aim", "relative difference", "distance of the sound"]]
    for layers, seconds in CASES if arguments.case is None else [CASES[arguments.case]]:
        plain, quantized, difference = compare(layers, seconds * arguments.scale, arguments.rounds)
        what = "2B, whole model" if layers == TWO_B["num_hidden_layers"] else f"2B, {layers} layers"
        times = [
            f"{seconds * arguments.scale:g} s",
            f"{plain:.2f} s",
            f"{quantized:.2f} s",
            f"{plain / quantized:.2f} x",
        ]
        table.append([what, *times, f"{AIM:g} x", f"{difference:.1e}", ""])
        print(*table[-1], sep=" | ", file=sys.stderr)  # the whole table takes minutes
    if arguments.case is None:
        table.append(pocket_row())
    notes = NOTES.format(rounds=arguments.rounds, condition=CONDITION_TOKENS, songs=len(NAMES))
    partial = arguments.case is not None or arguments.scale != 1
    publish(__file__, "Int8 arithmetic", table, notes, arguments.dry or partial)


if __name__ == "__main__":
    main()
