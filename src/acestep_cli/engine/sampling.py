"""Sampling of a token from its logits: penalty, top-k, top-p, temperature, one draw, in this order.

Source: docs/specification.md, 9.7 Drawing a token, the order of the published program. Everything is float32
on the CPU, so that a seed means the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acestep_cli.song.songwriter_prompts import Sampling

#: The likeliest tokens among which top-p looks first: a sort of all 64,000 logits takes 4 ms, of these a tenth of it.
TOP_P_CANDIDATES = 1024


def guide_logits(logits: Tensor, scale: float) -> Tensor:
    """Apply classifier-free guidance to conditional and unconditional logits [2, V]; return [V]. Conditional logits
    alone, [1, V], are returned as they are.
    """
    if logits.shape[0] == 1:
        return logits[0]
    conditional, unconditional = logits
    return unconditional + scale * (conditional - unconditional)


def sample_token(logits: Tensor, seen: Sequence[int], sampling: Sampling, generator: torch.Generator) -> int:
    """Sample a token from logits [V], float32 on the CPU; tokens in `seen` are penalised. At temperature 0 return the
    likeliest.
    """
    if sampling.repetition_penalty != 1 and seen:
        rows = torch.tensor(sorted(set(seen)))
        found = logits[rows]
        penalised = torch.where(found < 0, found * sampling.repetition_penalty, found / sampling.repetition_penalty)
        logits = logits.index_copy(0, rows, penalised)
    if sampling.temperature == 0:
        return int(logits.argmax())
    if sampling.top_k:
        kept, tokens = logits.topk(min(sampling.top_k, len(logits)))
    else:
        kept, tokens = top_p_tokens(logits, sampling.top_p)
    if sampling.top_k and sampling.top_p < 1:
        kept = kept[: top_p_count(kept.softmax(0), sampling.top_p)]
    return draw_token((kept / sampling.temperature).softmax(0), tokens[: len(kept)], len(logits), generator)


def draw_token(probabilities: Tensor, tokens: Tensor, vocabulary: int, generator: torch.Generator) -> int:
    """Draw one of `tokens` [K] with their probabilities [K], by the exponential race: the first to arrive.

    The waiting time is drawn for each token of the vocabulary, not for each rank. So a rounding of the logits, as in a
    batch of several takes, draws another token only where two arrive within that rounding.
    """
    times = -torch.rand(vocabulary, generator=generator, dtype=torch.float64)[tokens].log()
    return int(tokens[(probabilities / times).argmax()])


def top_p_tokens(logits: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """Return the falling logits of the likeliest tokens whose probabilities reach `mass`, and the tokens; all for 1."""
    if mass >= 1:
        return logits, torch.arange(len(logits))
    top, tokens = logits.topk(min(TOP_P_CANDIDATES, len(logits)))
    probabilities = (top - logits.logsumexp(0)).exp()
    if probabilities.sum() < mass:
        top, tokens = logits.sort(descending=True)
        probabilities = top.softmax(0)
    size = top_p_count(probabilities, mass)
    return top[:size], tokens[:size]


def top_p_count(falling: Tensor, mass: float) -> int:
    """Return the number of the first of `falling` probabilities whose sum reaches `mass`."""
    before = falling.cumsum(0) - falling
    return max(int((before < mass).sum()), 1)
