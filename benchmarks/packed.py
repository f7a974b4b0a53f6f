"""Packed matrices against plain ones, at the sizes of the 0.6B Songwriter: seconds of the processor, one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch
from random_checkpoint import TEXT
from side_by_side import parser, publish
from torch import Tensor, nn

from acestep_cli.engine.packed_linear import PackedLinear

WIDTH, INNER = TEXT["hidden_size"], TEXT["intermediate_size"]
QUERIES = TEXT["num_attention_heads"] * TEXT["head_dim"]
SIZES = {"queries": (QUERIES, WIDTH), "gate": (INNER, WIDTH), "down": (WIDTH, INNER)}
ROWS = (2, 512)
NOTES = """\
Time of a packed layer as a share of the plain layer's: {layers} layers of each size after one another, so that none is
in a cache; medians of {rounds} runs, taken in turns. It is the time that the processor spent, on one thread, so that
other work on the machine counts for little. Differences are the largest between the two outputs, which are about one.
"""


def seconds(layers: Sequence[nn.Module], x: Tensor) -> float:
    """What the processor spends on multiplying x with each of `layers`."""
    start = time.thread_time()
    for layer in layers:
        layer(x)
    return time.thread_time() - start


def compared(plain: Sequence[nn.Module], packed: Sequence[nn.Module], x: Tensor, rounds: int) -> tuple[float, float]:
    """The median time of packed layers as a share of that of plain ones, and how far their outputs are apart."""
    seconds(plain, x), seconds(packed, x)
    spent = [(seconds(packed, x), seconds(plain, x)) for _ in range(rounds)]
    ours, theirs = (statistics.median(side) for side in zip(*spent, strict=True))
    return ours / theirs, float((packed[0](x) - plain[0](x)).abs().max())


@torch.inference_mode()
def main() -> None:
    arguments = parser(__doc__, rounds=7).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = TEXT["num_hidden_layers"]
    table = [["matrix", "dtype", "rows", "packed / plain", "difference"]]
    for dtype in (torch.bfloat16, torch.float32):
        for name, (out, width) in SIZES.items():
            plain = [nn.Linear(width, out, bias=False, dtype=dtype).requires_grad_(False) for _ in range(layers)]
            packed = [PackedLinear(layer) for layer in plain]
            for rows in ROWS:
                x = torch.randn(rows, width, dtype=dtype)
                ratio, apart = compared(plain, packed, x, arguments.rounds)
                table.append([name, str(dtype).removeprefix("torch."), str(rows), f"{ratio:.2f}", f"{apart:.0e}"])
    publish(__file__, "Packed matrices", table, NOTES.format(layers=layers, rounds=arguments.rounds), arguments.dry)


if __name__ == "__main__":
    main()
