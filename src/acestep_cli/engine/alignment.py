"""When the words are sung: the path through the DiT's cross-attention that leads from the first to the last of them.

Some heads of a trained DiT follow the lyrics through the song. Their attention is sharpened, and dynamic time warping
(Sakoe & Chiba, 1978) finds the way through it. Rules and constants: `dit.md` 8.1 of the specification.

Shapes: H heads, L tokens of the lyrics, S tokens of the song.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from acestep_cli import prompts
from acestep_cli.lrc import Line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: How many times the median of a row, and of a column, is taken from it: what all tokens look at tells nothing.
MEDIANS = 2.0
#: Steps of a path: to the next token and the next time, to the next token, to the next time.
DIAGONAL, UP, LEFT = 0, 1, 2
Heads = NDArray[np.float32]  # [H, L, S]
Matrix = NDArray[np.float32]  # [L, S]


@dataclass(frozen=True)
class Sheet:
    """The words of a song as the lyric encoder gets them: which of its tokens they are, and the lines they make.

    `lines` are the number of the first token of each, counted from the first word, and its text.
    """

    tokens: slice
    lines: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, ids: Sequence[int], language: str | None) -> Sheet:
        """The sheet of a lyric prompt that was read as `ids`, cut off or not."""
        first = len(tokenizer.encode(prompts.lyric_heading(language), add_special_tokens=False).ids)
        last = ids.index(tokenizer.token_to_id(prompts.END_OF_TEXT), first)
        words = ids[first:last]
        breaks = [number + 1 for number, token in enumerate(words) if "\n" in tokenizer.decode([token])]
        bounds = pairwise(dict.fromkeys([0, *breaks, len(words)]))
        lines = [(start, tokenizer.decode(words[start:end]).strip()) for start, end in bounds]
        return cls(slice(first, last), tuple((start, text) for start, text in lines if text))


def lines(sheet: Sheet, attention: Heads, seconds: float) -> tuple[Line, ...]:
    """When each line of a sheet begins in a song of so many seconds, by the attention [H, L, S] to its words."""
    rows, times = path(-sharpened(attention))
    starts = times[np.searchsorted(rows, np.arange(attention.shape[1]))]
    return tuple(Line(float(starts[first]) * seconds / attention.shape[2], text) for first, text in sheet.lines)


def sharpened(attention: Heads) -> Matrix:
    """Attention [H, L, S] as one matrix [L, S], high where a token and a time look at each other alone."""
    weights = torch.from_numpy(attention)
    found = (weights.softmax(dim=2) * weights.softmax(dim=1)).numpy()
    for axis in (2, 1):
        found = np.maximum(found - MEDIANS * np.median(found, axis=axis, keepdims=True), 0)
    found = found**2
    scored: Matrix = ((found - found.mean()) / (found.std() + 1e-9)).mean(axis=0)
    return scored


def path(costs: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the cheapest way through `costs` [L, S] from corner to corner.

    The diagonal is taken where it is strictly the cheapest, else the way up, else the way left. Cells of one
    antidiagonal do not depend on each other, so each is one operation.
    """
    height, width = costs.shape
    costs = np.ascontiguousarray(costs)
    came = np.full((height, width), LEFT, np.int8)
    before, last = (np.full(height + 1, np.inf, np.float32) for _ in range(2))  # one above the first row
    before[0] = 0
    for diagonal in range(height + width - 1):
        top, bottom = max(0, diagonal - width + 1), min(height, diagonal + 1)
        rows = np.arange(top, bottom)
        across, up, left = before[top:bottom], last[top:bottom], last[top + 1 : bottom + 1]
        steps = np.where((across < up) & (across < left), DIAGONAL, np.where((up < across) & (up < left), UP, LEFT))
        came[rows, diagonal - rows] = steps
        now = np.full(height + 1, np.inf, np.float32)
        now[top + 1 : bottom + 1] = costs[rows, diagonal - rows] + np.choose(steps, (across, up, left))
        before, last = last, now
    back = np.array(list(_back(came)), np.intp)[::-1]
    return back[:, 0], back[:, 1]


def _back(came: NDArray[np.int8]) -> Iterator[tuple[int, int]]:
    """The cells of a path from its end."""
    row, column = came.shape[0] - 1, came.shape[1] - 1
    while row >= 0 and column >= 0:
        yield row, column
        step = came[row, column]
        row, column = row - (step != LEFT), column - (step != UP)
