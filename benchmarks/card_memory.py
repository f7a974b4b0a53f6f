"""The bytes that the song promised for each size of card takes, counted on a card made of paper, beside the prediction.

Networks of the published sizes without data: every tensor of a render is counted, from the Songwriter to the last tile,
on the lines of the program that a CUDA card runs. A card is invented to report half a gigabyte less than its name.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from side_by_side import parser, publish

from acestep_cli.errors import MemoryLimitError
from acestep_cli.machine import hardware, memory
from acestep_cli.machine import plan as planning
from acestep_cli.machine.hardware import GIB, Device, Hardware
from acestep_cli.machine.memory import RUNTIME_BYTES
from acestep_cli.machine.plan import MachineRequest, Plan
from acestep_cli.machine.tiers import TIERS, Tier
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.models.sizes import Sizes
from acestep_cli.song import complete
from acestep_cli.song.request import Request

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support import hollow
from support.paper_card import PaperCard

#: Enough words for the longest prompt, and every value that a Songwriter would write a text for.
WORDS = {
    "caption": "la " * 150,
    "lyrics": "[Verse]\n" + "la " * 2048,
    "language": "en",
    "bpm": 90,
    "key": "A minor",
    "time_signature": "4/4",
}
CAPABILITY = (8, 6)
COUNTED = """\
`counted` is the most that all tensors hold at once, rounded up as CUDA's allocator does, with a channels-last copy of
input and output as the workspace of each convolution. `predicted` is what the plan expects"""
NOTES = """\
Turbo checkpoints, bfloat16, prompts of full length, two takes where more are promised: they are made one by one.
{counted}, and `room` the reported
memory less {share} and the {runtime} MiB of the runtime. What cuBLAS and cuDNN take besides, and what a fragmented
allocator wastes, is not counted: for that are the {share}.
"""


class Row(NamedTuple):
    """One song on one card: its plan, the bytes counted and predicted, and the room for them."""

    plan: Plan
    counted: hollow.Counted
    predicted: int
    room: int


def count(asked: Request, total_bytes: int, checkpoint: Checkpoint, songwriter: Songwriter | None) -> Row | None:
    """Return the counts of a song on a card of `total_bytes`; None where it does not fit."""
    request = complete.complete(asked, checkpoint, songwriter)
    card = hardware.cuda_device(0, "card", CAPABILITY, total_bytes, None)
    host = Device("cpu", "cpu", "processor", 64 * GIB, 64 * GIB, ("float32",), "no bfloat16")
    sizes = Sizes.of(checkpoint, songwriter)
    try:
        plan = planning.plan_render(Hardware((card, host), "cuda"), request, MachineRequest("cuda:0"), sizes)
    except MemoryLimitError:
        return None
    paper = PaperCard(total_bytes=total_bytes, runtime_bytes=RUNTIME_BYTES["cuda"], data=False)
    counted = hollow.count_render(checkpoint, request, plan, paper, songwriter)
    assert plan.budget_bytes is not None
    return Row(plan, counted, plan.peak_bytes - RUNTIME_BYTES["cuda"], plan.budget_bytes)


def promised(tier: Tier, model: str, together: int) -> Request:
    """Return the song that `tier` promises, so many takes of it `together`."""
    takes = {"takes": max(min(tier.takes, 2), together), "together": together}
    return Request(**WORDS, duration=60.0 * tier.minutes, seed=1, steps=1, **takes, model=model)


def rows(root: Path, models: list[str], cards: list[int], together: int = 1) -> Iterator[tuple[Tier, str, Row | None]]:
    """Yield the counts of the tiers of these cards with each model."""
    written = {tier.songwriter: hollow.write_songwriter(root / "songwriters", tier.songwriter)
               for tier in {one.songwriter: one for one in TIERS}.values() if tier.songwriter}  # fmt: skip
    for model in models:
        checkpoint = hollow.write_checkpoint(root / model, model)
        for tier in [tier for tier in TIERS if tier.memory_gb in cards]:
            asked = promised(tier, model, together)
            yield tier, model, count(asked, tier.least_bytes, checkpoint, written.get(tier.songwriter))


def cells(tier: Tier, model: str, row: Row | None) -> list[str]:
    start = [f"{tier.memory_gb} GB", model, tier.songwriter or "none", f"{tier.minutes} min"]
    if row is None:
        return [*start, "does not fit", "", "", "", ""]
    steps = [name.replace("_", " ") for name in ("one_network", "vae_on_cpu") if getattr(row.plan, name)]
    how = ", ".join([row.plan.arrangement.weight_storage, f"tiles of {row.plan.tile_frames}", *steps])
    sizes = [f"{size / 2**20:,.0f} MiB" for size in (row.counted.peak, row.predicted, row.room)]
    return [*start, how, *sizes, f"{row.predicted / row.counted.peak:.2f}"]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=["turbo", "xl-turbo"], help="default: %(default)s")
    options.add_argument("--cards", nargs="+", type=int, default=[tier.memory_gb for tier in TIERS], metavar="GB")
    options.add_argument("--together", type=int, default=1, help="takes in a forward pass; above 1 it is a dry run")
    arguments = options.parse_args()
    table = [["card", "model", "Songwriter", "song", "weights", "counted", "predicted", "room", "predicted / counted"]]
    with tempfile.TemporaryDirectory() as name:
        for tier, model, row in rows(Path(name), arguments.models, arguments.cards, arguments.together):
            table.append(cells(tier, model, row))
            print(*table[-1], sep=" | ", file=sys.stderr, flush=True)
    notes = NOTES.format(counted=COUNTED, share=f"{memory.MARGIN:.0%}", runtime=RUNTIME_BYTES["cuda"] // 2**20)
    publish(
        __file__,
        "Memory of the promised songs, counted",
        table,
        notes,
        arguments.dry or arguments.together > 1,
        counted=True,
    )


if __name__ == "__main__":
    main()
