"""Alignment of lyrics with a song: a path through the DiT's cross-attention from the first token of them to the last.

Some heads of a trained DiT follow the lyrics through the song. Their attention is sharpened, and dynamic time warping
(Sakoe & Chiba, 1978) finds the path through it. Rules and constants:
docs/specification.md, 10.1 Alignment heads, 10.2 Time stamps and 10.3 Lyric alignment score.

Shapes: H heads, L tokens of the lyrics, S tokens of the song.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.audio.lrc import TimedLine
from acestep_cli.engine.denoise import stage_generator
from acestep_cli.engine.dit import CrossKV, DiT
from acestep_cli.song import prompts, ranking
from acestep_cli.song.complete import Completed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Multiples of the median of each row, and of each column, that are subtracted: attention shared by all says nothing.
MEDIANS_SUBTRACTED = 2.0
#: Energy, between 0 and 1, that a sung token reaches somewhere, and the least that counts for its place in time.
AUDIBLE_ENERGY, COUNTED_ENERGY = 0.1, 0.01
#: Tokens of the song by which a token may come before its predecessor.
BACKWARD_TOLERANCE = 9
#: Steps of a path: to the next token and the next time, to the next token, to the next time.
DIAGONAL, UP, LEFT = 0, 1, 2
Heads = NDArray[np.float32]  # [H, L, S]
Matrix = NDArray[np.float32]  # [L, S]


@dataclass(frozen=True)
class LyricTokens:
    """The lyrics of a song among the tokens of the lyric encoder, and their lines."""

    tokens: slice
    #: The number of the first token of each line, counted from the first of the lyrics, and its text.
    lines: tuple[tuple[int, str], ...]
    #: For each token, whether it is outside of square brackets.
    sung: tuple[bool, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, ids: Sequence[int], language: str | None) -> LyricTokens:
        """Find the lyrics in the token ids of a lyric prompt, truncated or not."""
        first = len(tokenizer.encode(prompts.lyric_heading(language), add_special_tokens=False).ids)
        last = ids.index(tokenizer.token_to_id(prompts.END_OF_TEXT), first)
        words = ids[first:last]
        texts = [tokenizer.decode([token]) for token in words]
        breaks = [number for number, text in enumerate(texts, start=1) if "\n" in text]
        bounds = pairwise(dict.fromkeys([0, *breaks, len(words)]))
        lines = [(start, tokenizer.decode(words[start:end]).strip()) for start, end in bounds]
        return cls(
            slice(first, last), tuple((start, text) for start, text in lines if text), tuple(_outside_brackets(texts))
        )


def _outside_brackets(texts: Iterable[str]) -> Iterator[bool]:
    """Yield for each text, one after another, whether no part of it is within square brackets."""
    inside = False
    for text in texts:
        yield not inside and "[" not in text
        if "[" in text or "]" in text:
            inside = text.rfind("[") > text.rfind("]")


class LyricAlignment(NamedTuple):
    """The lines of a take in time and the scores of its lyrics, each where that was asked for."""

    lines: tuple[TimedLine, ...] = ()
    scores: Mapping[str, float] = MappingProxyType({})


class AttentionProbe(NamedTuple):
    """The attention of some heads (layer, head) to the lyrics of a song, under the inputs of its diffusion."""

    dit: DiT
    heads: Sequence[tuple[int, int]]
    lyrics: LyricTokens
    context: Tensor  # [1, T, in_channels - C]
    cross_kv: CrossKV

    def attention_at(self, latents: Tensor, noise: Tensor, time: float) -> Heads:
        """Return the attention [H, L, S] to the lyrics at `time` of the flow between `noise` and `latents` [T, C]."""
        t = torch.tensor([time], device=self.context.device)
        x = solvers.add_noise(latents[None], noise[None], t).to(self.context)
        found: Heads = self.dit.attention_to_words(
            x, t, self.context, self.cross_kv, self.heads, self.lyrics.tokens
        ).numpy()
        return found


def align_lyrics(probe: AttentionProbe, take: Completed, latents: Tensor, steps: int, seconds: float) -> LyricAlignment:
    """Align the lyrics of a take of so many `seconds`, by the attention at its latents [T, C] with the noise of the
    last of its `steps`; for a score also at noise alone, where the context is all that can place the lyrics.
    """
    noise = torch.randn(latents.shape, generator=stage_generator(take.seed, "align")).to(latents)
    attention = probe.attention_at(latents, noise, 1 / steps)
    name, scores = ranking.LYRIC_ALIGNMENT, {}
    if name in take.scored:
        in_noise = alignment_score(probe.lyrics, probe.attention_at(latents, noise, 1.0))
        scores = {name: alignment_score(probe.lyrics, attention), f"{name}_in_noise": in_noise}
    return LyricAlignment(line_times(probe.lyrics, attention, seconds) if take.lrc else (), scores)


def line_times(lyrics: LyricTokens, attention: Heads, seconds: float) -> tuple[TimedLine, ...]:
    """Return the start of each line in a song of so many seconds, by the attention [H, L, S] to the lyrics.

    Returns no line where the lyrics are not found: where no token stands out at any time, or all lines would start at
    the same.
    """
    matrix = exclusive_attention(attention)
    if not np.isfinite(matrix).all() or not np.ptp(matrix) > 0:
        return ()
    rows, times = cheapest_path(-matrix)
    starts = times[np.searchsorted(rows, np.arange(attention.shape[1]))]
    if len({int(starts[first]) for first, _ in lyrics.lines}) < min(len(lyrics.lines), 2):
        return ()
    return tuple(TimedLine(float(starts[first]) * seconds / attention.shape[2], text) for first, text in lyrics.lines)


def alignment_score(lyrics: LyricTokens, attention: Heads) -> float:
    """Return how surely the lyrics are sung in their order, from 0 to 1, by the attention [H, L, S] to them."""
    energy = attention.mean(axis=0)
    energy = (energy - energy.min()) / (np.ptp(energy) or 1)
    sung = energy[np.array(lyrics.sung)]
    coverage = (sung.max(axis=1) > AUDIBLE_ENERGY).mean()
    weights = np.where(sung > COUNTED_ENERGY, sung, 0)
    weights = weights[weights.any(axis=1)]
    centres = weights @ np.arange(energy.shape[1]) / weights.sum(axis=1)
    forward = (np.diff(centres) >= -BACKWARD_TOLERANCE).mean() if len(centres) > 1 else 1.0
    confidence = energy[cheapest_path(-(energy**2))].mean()
    return round(float(np.clip(coverage**2 * forward**2 * confidence, 0, 1)), 4)


def exclusive_attention(attention: Heads) -> Matrix:
    """Reduce attention [H, L, S] to a matrix [L, S], high where a token and a time attend to each other alone."""
    weights = torch.from_numpy(attention)
    found = (weights.softmax(dim=2) * weights.softmax(dim=1)).numpy()
    for axis in (2, 1):
        found = np.maximum(found - MEDIANS_SUBTRACTED * np.median(found, axis=axis, keepdims=True), 0)
    found = found**2
    scored: Matrix = ((found - found.mean()) / (found.std() + 1e-9)).mean(axis=0)
    return scored


def cheapest_path(costs: Matrix) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the cheapest path through `costs` [L, S] from corner to corner.

    The diagonal is taken where it is strictly the cheapest, else the step up, else the step left. Cells of one
    antidiagonal do not depend on each other, so each is one operation.
    """
    height, width = costs.shape
    costs = np.ascontiguousarray(costs)
    steps_taken = np.full((height, width), LEFT, np.int8)
    before, last = (np.full(height + 1, np.inf, np.float32) for _ in range(2))  # one above the first row
    before[0] = 0
    for diagonal in range(height + width - 1):
        top, bottom = max(0, diagonal - width + 1), min(height, diagonal + 1)
        rows = np.arange(top, bottom)
        across, up, left = before[top:bottom], last[top:bottom], last[top + 1 : bottom + 1]
        steps = np.where((across < up) & (across < left), DIAGONAL, np.where((up < across) & (up < left), UP, LEFT))
        steps_taken[rows, diagonal - rows] = steps
        now = np.full(height + 1, np.inf, np.float32)
        now[top + 1 : bottom + 1] = costs[rows, diagonal - rows] + np.choose(steps, (across, up, left))
        before, last = last, now
    back = np.array(list(_backtrack(steps_taken)), np.intp)[::-1]
    return back[:, 0], back[:, 1]


def _backtrack(steps_taken: NDArray[np.int8]) -> Iterator[tuple[int, int]]:
    """Yield the cells of a path from its end."""
    row, column = steps_taken.shape[0] - 1, steps_taken.shape[1] - 1
    while row >= 0 and column >= 0:
        yield row, column
        step = steps_taken[row, column]
        row, column = row - (step != LEFT), column - (step != UP)
