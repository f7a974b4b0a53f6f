"""The likelihood of a song's description given its audio codes, by the Songwriter: a score of the codes.

The Songwriter gets the codes of a take as those of a recording that it is to describe, and the description that was
asked for as its answer. The likelihoods of the answer's tokens, with the codes and without any, are the score.

Rules and constants: docs/specification.md, 10.4 Code likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor

from acestep_cli.engine.kv_cache import KVCache
from acestep_cli.engine.songwriter import SongwriterModel
from acestep_cli.machine.memory import SONGWRITER_PASS_TOKENS
from acestep_cli.song import ranking, songwriter_prompts
from acestep_cli.song.complete import Completed

TEXTS = ("caption", "lyrics")
METADATA = ("bpm", "duration", "genres", "keyscale", "language", "timesignature")
WEIGHTS = {"caption": 0.5, "lyrics": 0.3, "metadata": 0.2}
#: A token of the metadata counts the more, the higher it ranks among this many of the likeliest.
LIKELIEST = 10
#: The difference of mean log probabilities that a sigmoid maps to 73 %.
SOFTNESS = 0.1
#: Tokens whose logits, 217,000 each, are in memory at once.
LOGIT_TOKENS = 16


class TokenLikelihoods(NamedTuple):
    """The likelihood of each token of a text, with the codes and without."""

    log_probabilities: Tensor  # [2, S]
    ranks: Tensor  # [S], with the codes; the likeliest token is 1

    @property
    def recall(self) -> float:
        """The mean over the tokens of 1 for the likeliest, falling to 0 at rank LIKELIEST + 1."""
        return float((1 - (self.ranks - 1) / LIKELIEST).clamp(min=0).mean())

    @property
    def information(self) -> float:
        """The gain in likelihood by the codes, from 0 to 1; 0.5 is none."""
        with_codes, without_codes = self.log_probabilities.mean(dim=1)
        return float(torch.sigmoid((with_codes - without_codes) / SOFTNESS))


def score_codes(songwriter: SongwriterModel, song: Completed) -> dict[str, float]:
    """Return the scores of a song by its codes: `judgement`, and the parts of which it is the weighted mean."""
    assert song.codes is not None
    asked = songwriter_prompts.known_metadata(song)
    texts = {name: songwriter_prompts.scored_field(name, value) for name, value in asked.items()}
    if song.lyrics is not None:
        texts["lyrics"] = songwriter_prompts.scored_lyrics(song.lyrics)
    answers = {name: songwriter.encode(text)[: songwriter_prompts.LYRIC_TOKENS] for name, text in texts.items()}
    prompts = [songwriter.encode(songwriter_prompts.understanding_prompt(codes)) for codes in (song.codes, ())]
    cache, states = songwriter.prefill(prompts, max(map(len, answers.values()), default=0), "answer")
    likelihoods = {name: token_likelihoods(songwriter, cache, states, answer) for name, answer in answers.items()}
    scores: dict[str, float] = {name: likelihoods[name].information for name in TEXTS if name in likelihoods}
    if recalls := [likelihoods[name].recall for name in METADATA if name in likelihoods]:
        scores["metadata"] = mean(recalls)
    whole = sum(WEIGHTS[name] * part for name, part in scores.items()) / sum(WEIGHTS[name] for name in scores)
    return {ranking.JUDGEMENT: whole, **{f"{ranking.JUDGEMENT}_{name}": part for name, part in scores.items()}}


def token_likelihoods(
    songwriter: SongwriterModel, cache: KVCache, states: Tensor, answer: Sequence[int]
) -> TokenLikelihoods:
    """Return the likelihoods of the tokens of an answer after the prompts in `cache`, which is left as it was; `states`
    [2, width] are those of the last tokens of the prompts.
    """
    prompt_length, inputs = cache.length, answer[:-1]  # nothing follows the last token
    pieces = [inputs[first : first + SONGWRITER_PASS_TOKENS] for first in range(0, len(inputs), SONGWRITER_PASS_TOKENS)]
    answer_states = torch.cat([states[:, None], *(cache.states([piece] * len(states)) for piece in pieces)], dim=1)
    cache.truncate(prompt_length)
    probabilities, ranks = [], []
    for first in range(0, len(answer), LOGIT_TOKENS):
        span = slice(first, first + LOGIT_TOKENS)
        logits = songwriter.logits(answer_states[:, span])
        own = logits[:, torch.arange(logits.shape[1]), answer[span]]
        probabilities.append(own - logits.logsumexp(2))
        ranks.append(1 + (logits[0] > own[0, :, None]).sum(dim=1))
    return TokenLikelihoods(torch.cat(probabilities, dim=1), torch.cat(ranks))
