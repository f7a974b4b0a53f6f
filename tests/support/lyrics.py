"""A song with words, and the heads that follow them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEADS = {"3": [1], "1": [0, 3]}
SONG = "[Verse]\nCity light slides\nover the glass\n\n[Chorus]\nWE RIDE ALONE\n"


def plain_path(costs: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Dynamic time warping, a cell at a time: `docs/specification.md` 10.2."""
    height, width = costs.shape
    total = np.full((height + 1, width + 1), np.inf, np.float32)
    total[0, 0] = 0
    came = np.zeros((height + 1, width + 1), int)
    for i in range(1, height + 1):
        for j in range(1, width + 1):
            diagonal, up, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            came[i, j] = 0 if diagonal < min(up, left) else 1 if up < min(diagonal, left) else 2
            total[i, j] = costs[i - 1, j - 1] + (diagonal, up, left)[came[i, j]]
    i, j, found = height, width, []
    while i and j:
        found.append((i - 1, j - 1))
        i, j = ((i - 1, j - 1), (i - 1, j), (i, j - 1))[came[i, j]]
    return found[::-1]
