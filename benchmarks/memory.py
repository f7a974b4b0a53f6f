"""How memory grows with a song, and what loading costs, at the published 2B widths.

Each figure is taken in a process of its own. A step's memory is what it adds to the weights: it should grow no faster
than the song. Loading is measured in anonymous memory, which the system cannot drop and read again: pages of mapped
files do not count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from memory_peak import anonymous_rise, resident_rise
from published import FRAMES_PER_SECOND, TWO_B, fill
from safetensors.torch import save_file
from side_by_side import parser, publish

from acestep_cli.engine.dit import AceStep, Condition, DiT
from acestep_cli.engine.weights import WeightStore
from acestep_cli.machine.plan import Plan
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.models.checkpoint_table import CHECKPOINTS
from acestep_cli.models.configs import DiTConfig

CONDITION_TOKENS = 300
STEP_LAYERS = 2  # one sliding, one full: all later layers reuse their memory
SHORT, LONG, GROWTH_AIM = 60, 600, "at most 10.5 x"
LOADS = (  # dtype on disk, shards, compute dtype
    ("bfloat16", 1, "bfloat16"),
    ("float32", 4, "bfloat16"),
    ("bfloat16", 1, "float32"),
)
LOAD_AIM = "at most 1.15 x"
NOTES = """\
Published widths; the step runs {step_layers} layers in bfloat16 (one sliding, one full), since each layer gives back
what it used before the next one starts, and the checkpoint that is loaded has {load_layers} of its 24 decoder layers,
{gigabytes:.1f} GB in bfloat16. Where the file already has the compute dtype, its pages are the weights.
"""


def config(layers: int) -> DiTConfig:
    return DiTConfig.from_dict({**TWO_B, "num_hidden_layers": layers})


def step_mb(seconds: float) -> float:
    """What one step adds to the resident weights."""
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        dit = DiT(config(STEP_LAYERS))
    fill(dit)
    frames, channels = int(seconds * FRAMES_PER_SECOND), dit.config.latent_channels
    x, context = torch.randn(1, frames, channels), torch.randn(1, frames, 2 * channels)
    memory = dit.project_condition(Condition(torch.randn(1, CONDITION_TOKENS, dit.config.encoder_hidden_size), None))
    with resident_rise() as rise:
        dit(x, torch.tensor([0.5]), context, memory)
    return rise.mb


def write_checkpoint(folder: Path, layers: int, dtype: torch.dtype, shards: int) -> int:
    """A DiT folder in the published layout, a shard at a time; returns the number of its parameters."""
    with torch.device("meta"):
        sizes = {name: tensor.shape for name, tensor in AceStep(config(layers)).state_dict().items()}
    names = sorted(sizes)
    files = [f"model-{shard + 1:05}-of-{shards:05}.safetensors" for shard in range(shards)]
    if shards == 1:
        files = ["model.safetensors"]
    weight_map = {name: files[place * shards // len(names)] for place, name in enumerate(names)}
    for file in files:
        held = {name: torch.full(sizes[name], 0.01, dtype=dtype) for name in names if weight_map[name] == file}
        save_file(held, folder / file, metadata={"format": "pt"})
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps({**TWO_B, "num_hidden_layers": layers}))
    return sum(size.numel() for size in sizes.values())


def load_mb(folder: Path, dtype: str) -> float:
    """The most anonymous memory that loading that folder takes, the loaded weights included."""
    plan = Plan(device="cpu", dtype=dtype, tile_frames=1, reasons={})
    checkpoint = Checkpoint("turbo", CHECKPOINTS["turbo"], dit=folder, vae=folder, text=folder)
    with anonymous_rise() as rise, WeightStore(checkpoint, plan, lambda _stage, _done, _total: None).dit():
        pass
    return rise.mb


def measured(*arguments: str) -> float:
    """This script in a fresh process, asked for one number."""
    command = [sys.executable, __file__, *arguments]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


@torch.inference_mode()
def main() -> None:
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=4, help="of the checkpoint that is loaded (default: 4)")
    options.add_argument("--step", type=float, metavar="SECONDS", help="print what a step adds, in MB, and no more")
    options.add_argument("--load", nargs=2, metavar=("FOLDER", "DTYPE"), help="print what loading takes, likewise")
    arguments = options.parse_args()
    if arguments.step:
        print(step_mb(arguments.step))
        return
    if arguments.load:
        print(load_mb(Path(arguments.load[0]), arguments.load[1]))
        return

    short, long = (measured("--step", str(seconds)) for seconds in (SHORT, LONG))
    growth = f"{long / short:.2f} x"
    table = [
        ["what", "measured", "against", "ratio", "aim"],
        [f"a step of {LONG} s over one of {SHORT} s", f"{long:.0f} MB", f"{short:.0f} MB", growth, GROWTH_AIM],
    ]
    for stored, shards, computed in LOADS:
        with tempfile.TemporaryDirectory() as name:
            parameters = write_checkpoint(Path(name), arguments.layers, getattr(torch, stored), shards)
            peak = measured("--load", name, computed)
        weights = parameters * getattr(torch, computed).itemsize / 2**20
        what = f"loading {stored} in {shards} file{'s' * (shards > 1)} as {computed} over the weights"
        print(what, f"{peak / weights:.2f} x", sep=" | ", file=sys.stderr)
        table.append([what, f"{peak:.0f} MB", f"{weights:.0f} MB", f"{peak / weights:.2f} x", LOAD_AIM])
    notes = NOTES.format(step_layers=STEP_LAYERS, load_layers=arguments.layers, gigabytes=2 * parameters / 1e9)
    publish(__file__, "Memory of a step and of loading", table, notes, arguments.dry)


if __name__ == "__main__":
    main()
