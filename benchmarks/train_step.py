"""One training step of a LoRA at the published 2B width, random bfloat16 weights: ours, and diffusers with peft.

Both hold the very same frozen tensors and start from the same adapter, made by peft in both: rank 64 on the projections
of self- and cross-attention, float32. A step is a pass forward and back, clipping and AdamW.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from diffusers import AceStepTransformer1DModel
from dit_step import CONDITION_TOKENS, build
from peft import LoraConfig, inject_adapter_in_model
from published import FRAMES_PER_SECOND, TWO_B
from side_by_side import medians, parser, publish
from torch import Tensor, nn

from acestep_cli import solvers
from acestep_cli.engine.dit import Condition
from acestep_cli.training import loop
from acestep_cli.training.adapter import TrainableAdapter
from acestep_cli.training.config import MAX_GRADIENT_NORM, TrainingConfig
from acestep_cli.training.examples import Batch

CASES = ((2, 60), (2, 180))  # layers, seconds of music
AIM = 1.1
CONFIG = TrainingConfig(dropout=0.0)  # each would leave out others, and the losses are compared
NOTES = """\
Random bfloat16 weights of the published width, {layers} layers (one sliding, one full), the same tensors in both;
batch 1, a condition of {condition} tokens, no layer computed twice. Medians of {rounds} steps each, taken in turns in
one process. The aim is {aim} x. The difference is that of the losses of the first step.
"""


def step(parameters: list[nn.Parameter], loss_of: Callable[[], Tensor]) -> Callable[[], float]:
    """A whole step; its loss."""
    optimiser = loop.build_optimizer(parameters, CONFIG)

    def run() -> float:
        loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    return run


def adapted(theirs: AceStepTransformer1DModel, like: TrainableAdapter) -> list[nn.Parameter]:
    """diffusers' transformer with an adapter that begins as ours; its parameters."""
    theirs.requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    inject_adapter_in_model(LoraConfig(r=CONFIG.rank, lora_alpha=CONFIG.alpha, target_modules=targets), theirs)
    found = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    for parameter, ours in zip(found, like.parameters, strict=True):
        parameter.data = ours.data.clone()
    return found


def compare(layers: int, seconds: float, rounds: int) -> tuple[float, float, float]:
    """Median seconds of a step of ours and of theirs, and how far apart their first losses are."""
    ours, theirs = build(layers)
    channels, frames = TWO_B["audio_acoustic_hidden_dim"], int(seconds * FRAMES_PER_SECOND)
    clean, noise = torch.randn(1, frames, channels), torch.randn(1, frames, channels)
    context, states = torch.randn(1, frames, 2 * channels).bfloat16(), torch.randn(1, CONDITION_TOKENS, 2048).bfloat16()
    t = torch.tensor([0.5])
    batch = Batch(
        solvers.add_noise(clean, noise, t).bfloat16(),
        t,
        solvers.velocity(clean, noise),
        context,
        Condition(states, None),
        None,
    )  # fmt: skip
    adapter = TrainableAdapter(ours, CONFIG, "base")
    parameters = adapted(theirs, adapter)
    ours.train()
    theirs.train()

    def their_loss() -> Tensor:
        found = theirs(
            hidden_states=batch.noisy,
            timestep=t.bfloat16(),
            timestep_r=t.bfloat16(),
            encoder_hidden_states=states,
            context_latents=context,
            return_dict=False,
        )[0]
        return (found.float() - batch.velocity).square().mean()

    our_step, their_step = step(adapter.parameters, lambda: loop.flow_loss(ours, batch)), step(parameters, their_loss)
    first, reference = our_step(), their_step()  # and both are warm
    return *medians(rounds, our_step, their_step), abs(first - reference) / reference


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--scale", type=float, default=1, help="of the songs' lengths, for a quick try")
    arguments = options.parse_args()
    torch.manual_seed(0)
    table = [["music", "ours", "diffusers + peft", "speed", "relative difference"]]
    for layers, seconds in CASES:
        length = seconds * arguments.scale
        ours, theirs, difference = compare(layers, length, arguments.rounds)
        table.append(
            [f"{length:g} s", f"{ours:.2f} s", f"{theirs:.2f} s", f"{theirs / ours:.2f} x", f"{difference:.1e}"]
        )
        print(*table[-1], sep=" | ", file=sys.stderr)
    notes = NOTES.format(rounds=arguments.rounds, condition=CONDITION_TOKENS, layers=CASES[0][0], aim=AIM)
    publish(__file__, "One training step at the 2B width", table, notes, arguments.dry or arguments.scale != 1)


if __name__ == "__main__":
    main()
