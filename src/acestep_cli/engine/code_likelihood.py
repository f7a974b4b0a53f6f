"""The Songwriter as a judge: how well it would have guessed, from its codes, what a song was asked to be.

It reads the codes of a take as those of a recording it is to describe, and is told the answer word for word. What it
expected of a word, with the codes and without any, is what it thinks of the take. Rules and constants: `dit.md` 8.3 of
the specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor

from acestep_cli.engine.kv_cache import PASS_TOKENS, KVCache
from acestep_cli.engine.songwriter import SongwriterModel
from acestep_cli.song import ranking, songwriter_prompts
from acestep_cli.song.complete import Completed

TEXTS = ("caption", "lyrics")
METADATA = ("bpm", "duration", "genres", "keyscale", "language", "timesignature")
WEIGHTS = {"caption": 0.5, "lyrics": 0.3, "metadata": 0.2}
#: A token of the metadata counts the more, the higher it is among so many of the likeliest.
LIKELIEST = 10
#: The difference of mean logarithms that makes a caption or lyrics, once through a sigmoid, 73 %.
SOFTNESS = 0.1
#: Tokens whose logits, 217,000 each, are in memory at once.
LOGIT_TOKENS = 16


class TokenLikelihoods(NamedTuple):
    """What was expected of each token of a text, with the codes and without: its log probability [2, S], and its place
    among the likeliest, counted from 1, with the codes [S].
    """

    log_probabilities: Tensor
    ranks: Tensor

    @property
    def recall(self) -> float:
        """The mean of what each token counts."""
        return float((1 - (self.ranks - 1) / LIKELIEST).clamp(min=0).mean())

    @property
    def information(self) -> float:
        """How much likelier the codes make the text, from 0 to 1; 0.5 is not at all."""
        heard, unheard = self.log_probabilities.mean(dim=1)
        return float(torch.sigmoid((heard - unheard) / SOFTNESS))


def score_codes(songwriter: SongwriterModel, song: Completed) -> dict[str, float]:
    """The scores of a song by its codes: `judgement`, and what it is the weighted mean of."""
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
    """What is expected of the tokens of an answer after what is on the tape, which is left as it was; `states` [2,
    width] are those of its last tokens.
    """
    prompt_length, inputs = cache.length, answer[:-1]  # the last token is expected by what comes before it
    pieces = [inputs[first : first + PASS_TOKENS] for first in range(0, len(inputs), PASS_TOKENS)]
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
