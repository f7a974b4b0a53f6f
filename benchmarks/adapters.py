"""What adapters cost per step, and to put on: a stack of them merged, beside the weights, beside int8 weights.

Layers of the published 2B width with random bfloat16 weights, adapters of rank 64 on q, k, v and o of both attentions.
Strong ones survive bfloat16 and are merged; weak ones do not and act beside. PEFT wraps the same layers.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from published import FRAMES_PER_SECOND, TWO_B, fill
from safetensors.torch import save_file
from side_by_side import medians, parser, publish
from torch import Tensor

from acestep_cli.engine.dit import Condition, CrossKV, DiT
from acestep_cli.engine.int8 import Int8Linear, replace_linears
from acestep_cli.engine.lora import AdapterStack
from acestep_cli.models import adapter_file
from acestep_cli.models.configs import DiTConfig
from acestep_cli.song.loras import ActiveAdapter

CONDITION_TOKENS = 300
RANK, STACK = 64, 4
#: Of the weights' norm, what an adapter adds.
STRONG, WEAK = 0.5, 0.004
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
CPU = torch.device("cpu")
NOTES = """\
Random bfloat16 weights of the published 2B width, {layers} layers, {seconds:g} s of music, batch 1; adapters of rank
{rank} on q, k, v and o of both attentions. Medians of {rounds} steps each, taken in turns in one process; the ratio is
to the same weights without adapters. `merged` counts the matrices whose change bfloat16 keeps to 2 %; the others are
beside. `put on` is reading, measuring and merging, once per song that changes adapters; here {matrices} matrices, of
192 in the whole model.
"""


def write(folder: Path, config: DiTConfig, size: float, seed: int) -> Path:
    """An adapter in PEFT's layout that changes each matrix by `size` of its norm."""
    draws = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, (wide, narrow) in config.decoder_matrices.items():
        if not name.endswith(TARGETS):
            continue
        prefix = f"base_model.model.{name}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(RANK, narrow, generator=draws) * narrow**-0.5
        tensors[f"{prefix}.lora_B.weight"] = torch.randn(wide, RANK, generator=draws) * size * RANK**-0.5
        tensors[f"{prefix}.alpha"] = torch.tensor(float(RANK))
    file = folder / f"{size}-{seed}.safetensors"
    save_file(tensors, file)
    return file


def packed(decoder: DiT) -> DiT:
    """The decoder with int8 weights."""
    made = copy.deepcopy(decoder)
    replace_linears(made.layers)
    for name, layer in made.named_modules():
        if isinstance(layer, Int8Linear):
            layer.quantize(decoder.get_submodule(name).weight, CPU, torch.bfloat16)
    return made


def adapted(decoder: DiT, files: list[Path]) -> tuple[DiT, int, float]:
    """A copy that wears the adapters at 1, how many of its matrices they are merged into, and the seconds that took."""
    made = copy.deepcopy(decoder)
    start = time.perf_counter()
    stack = AdapterStack(tuple(ActiveAdapter(adapter_file.read_adapter(file), 1.0) for file in files))
    stack.apply(made, CPU, torch.bfloat16, merging=True)
    return made, len(stack.merged), time.perf_counter() - start


def by_peft(decoder: DiT) -> DiT:
    """A copy to which PEFT has given a stack of adapters, all of them active."""
    made: Any = copy.deepcopy(decoder)
    made.config = None  # PEFT would look into it for the names of Hugging Face's models
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS), init_lora_weights=False)
    model = get_peft_model(made, config, adapter_name="0")
    for number in range(1, STACK):
        model.add_adapter(str(number), config)
    model.base_model.set_adapter([str(number) for number in range(STACK)])
    made.config = decoder.config
    return made.bfloat16().eval()


@torch.inference_mode()
def main() -> None:
    options = parser(__doc__, rounds=9)
    options.add_argument("--layers", type=int, default=2)
    options.add_argument("--seconds", type=float, default=30)
    arguments = options.parse_args()
    torch.manual_seed(0)
    config = DiTConfig.from_dict({**TWO_B, "num_hidden_layers": arguments.layers})
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        base = DiT(config)
    torch.set_default_dtype(torch.float32)
    fill(base)
    frames, channels = int(arguments.seconds * FRAMES_PER_SECOND), config.latent_channels
    x, context = (torch.randn(1, frames, width).bfloat16() for width in (channels, 2 * channels))
    heard, t = Condition(torch.randn(1, CONDITION_TOKENS, config.encoder_hidden_size).bfloat16(), None), torch.ones(1)

    def step(model: DiT, memory: CrossKV) -> Tensor:
        return model(x, t, context, memory)

    with tempfile.TemporaryDirectory() as folder:
        strong, weak = ([write(Path(folder), config, size, seed) for seed in range(STACK)] for size in (STRONG, WEAK))
        int8 = packed(base)
        sides: dict[str, tuple[DiT, int | None, float | None, DiT]] = {
            "no adapter": (base, None, None, base),
            "one, strong": (*adapted(base, strong[:1]), base),
            f"{STACK}, strong": (*adapted(base, strong), base),
            "one, weak": (*adapted(base, weak[:1]), base),
            f"{STACK}, weak": (*adapted(base, weak), base),
            "int8 weights, no adapter": (int8, None, None, int8),
            f"int8 weights, {STACK}": (*adapted(int8, strong), int8),
            f"PEFT, {STACK} at once": (by_peft(base), None, None, base),
        }
    steps = {name: partial(step, model, model.project_condition(heard)) for name, (model, *_) in sides.items()}
    for name, run in steps.items():
        print(f"warming up: {name}", file=sys.stderr)
        run()
    seconds = dict(zip(steps, medians(arguments.rounds, *steps.values()), strict=True))
    of_base = {id(model): seconds[name] for name, (model, *_, own) in sides.items() if model is own}
    matrices = sum(name.endswith(TARGETS) for name in config.decoder_matrices)
    table = [["adapters", "merged", "put on", "step", "ratio"]]
    for name, (_, merged, spent, own) in sides.items():
        counted = "" if merged is None else f"{merged} of {matrices}"
        took = "" if spent is None else f"{spent:.2f} s"
        table.append([name, counted, took, f"{seconds[name]:.3f} s", f"{seconds[name] / of_base[id(own)]:.2f} x"])
    notes = NOTES.format(**vars(arguments), rank=RANK, matrices=matrices)
    shrunk = arguments.layers != 2 or arguments.seconds != 30
    publish(__file__, "A step with adapters", table, notes, arguments.dry or shrunk)


if __name__ == "__main__":
    main()
