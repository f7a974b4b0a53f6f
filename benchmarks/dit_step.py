"""One step of the diffusion transformer at the published 2B sizes, random bfloat16 weights: ours and diffusers'.

Both hold the very same tensors. The keys and values of the condition do not depend on the step: we make them
once per song, outside the timed call, while diffusers' transformer projects the condition anew in each step.
"""

from __future__ import annotations

import sys

import torch
from diffusers import AceStepTransformer1DModel
from published import FRAMES_PER_SECOND, TWO_B, diffusers_name, fill
from side_by_side import medians, parser, publish
from torch import Tensor

from acestep_cli.engine.dit import Condition, DiT
from acestep_cli.models.configs import DiTConfig

CONDITION_TOKENS = 300
CASES = (  # layers, seconds of music, the speed-up we aim for
    (24, 60, 1.1),
    (2, 240, 1.3),
    (2, 600, 1.3),
)
NOTES = """\
Random bfloat16 weights of the published sizes, the same tensors in both; batch 1, a condition of {condition} tokens.
Medians of {rounds} runs each, taken in turns in one process. The difference is bfloat16's rounding: in float32 the two
agree to 1e-5 (`tests/engine/test_parity.py`).
"""


def build(layers: int) -> tuple[DiT, AceStepTransformer1DModel]:
    """Our transformer and diffusers', sharing their weights."""
    config = DiTConfig.from_dict({**TWO_B, "num_hidden_layers": layers})
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        ours = DiT(config)
        theirs = AceStepTransformer1DModel(
            num_hidden_layers=layers, layer_types=list(config.layer_types), is_turbo=True
        )
    torch.set_default_dtype(torch.float32)
    fill(ours)
    theirs.load_state_dict({diffusers_name(name): t for name, t in ours.state_dict().items()}, assign=True)
    return ours, theirs.eval()


def step_inputs(seconds: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random latents and time of a step, its context, and the states of its condition."""
    frames, channels = int(seconds * FRAMES_PER_SECOND), TWO_B["audio_acoustic_hidden_dim"]
    x, context = (torch.randn(1, frames, width).bfloat16() for width in (channels, 2 * channels))
    return x, torch.tensor([0.5]), context, torch.randn(1, CONDITION_TOKENS, TWO_B["hidden_size"]).bfloat16()


def compare(layers: int, seconds: float, rounds: int) -> tuple[float, float, float]:
    """Median seconds of a step of ours and of theirs, and how far apart their velocities are."""
    ours, theirs = build(layers)
    x, t, context, states = step_inputs(seconds)
    memory = ours.project_condition(Condition(states, None))

    def our_step() -> Tensor:
        return ours(x, t, context, memory)

    def their_step() -> Tensor:
        return theirs(
            hidden_states=x,
            timestep=t.bfloat16(),
            timestep_r=t.bfloat16(),
            encoder_hidden_states=states,
            context_latents=context,
            return_dict=False,
        )[0]

    velocity, reference = our_step().float(), their_step().float()  # and both are warm
    difference = (velocity - reference).norm() / reference.norm()
    return *medians(rounds, our_step, their_step), difference.item()


@torch.inference_mode()
def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--case", type=int, choices=range(len(CASES)), help="one row of the table only")
    options.add_argument("--scale", type=float, default=1, help="of the songs' lengths, for a quick try")
    arguments = options.parse_args()
    torch.manual_seed(0)
    table = [["what", "music", "ours", "diffusers", "speed", "aim", "relative difference"]]
    for layers, seconds, aim in CASES if arguments.case is None else [CASES[arguments.case]]:
        ours, theirs, difference = compare(layers, seconds * arguments.scale, arguments.rounds)
        what = "whole model" if layers == TWO_B["num_hidden_layers"] else "two layers, one sliding, one full"
        times = [f"{seconds * arguments.scale:g} s", f"{ours:.2f} s", f"{theirs:.2f} s", f"{theirs / ours:.2f} x"]
        table.append([what, *times, f"at least {aim} x", f"{difference:.1e}"])
        print(*table[-1], sep=" | ", file=sys.stderr)  # the whole table takes minutes
    notes = NOTES.format(rounds=arguments.rounds, condition=CONDITION_TOKENS)
    partial = arguments.case is not None or arguments.scale != 1
    publish(__file__, "One step of the 2B diffusion transformer", table, notes, arguments.dry or partial)


if __name__ == "__main__":
    main()
