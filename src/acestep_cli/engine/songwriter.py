"""The Songwriter: the 5 Hz language model that decides metadata, writes lyrics, and samples audio codes.

Text is sampled under a grammar over the text vocabulary alone, so that it can always be parsed. Codes are sampled with
guidance, from the logits of the codes alone: exactly five a second, so there is no end token. The two prompts of
guidance are two rows of a batch. Takes of one song share the prefill of its prompt. One after another, each is the same
as alone; several in one batch are so but for the rounding of their logits.

Source: docs/specification.md, 9 Songwriter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import llguidance
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_cli.engine.denoise import stage_generator
from acestep_cli.engine.kv_cache import KVCache
from acestep_cli.engine.language_model import Qwen3Decoder
from acestep_cli.engine.sampling import guide_logits, sample_token
from acestep_cli.errors import CheckpointError, UsageError
from acestep_cli.models import tokenizer_file
from acestep_cli.models.sizes import qwen_of
from acestep_cli.progress import Progress, ProgressCallback, Say
from acestep_cli.song import complete, prompts, songwriter_prompts, take_parts, validate
from acestep_cli.song.complete import Completed
from acestep_cli.song.musical_values import CODES_PER_SECOND
from acestep_cli.song.songwriter_prompts import CODE, Sampling, WritingTask

#: Tokens of a prompt and its answer together.
CONTEXT = 8192
#: An upper bound for the tokens of an answer besides caption and lyrics: a token for each letter.
METADATA_TOKENS = 512


class Vocabulary(NamedTuple):
    """The text part of a tokenizer, the id of the first audio code, and the number of codes.

    The codes are a range of ids, so that no library has to handle 64,000 added tokens.
    """

    json: str
    first_code: int
    codes: int


class SongwriterModel(nn.Module):
    """A Songwriter's tokenizer and its Qwen3 model, whose head is its embedding table."""

    def __init__(self, folder: Path, codes: int) -> None:
        """Read the tokenizer and build the model without weights. `codes` is the number of codes that the diffusion
        model's quantizer has.

        Raises `CheckpointError` for files that are no tokenizer with audio codes or no Qwen3 config.
        """
        super().__init__()
        self.vocabulary = read_vocabulary(folder / "tokenizer.json")
        self.codes = codes
        self.tokenizer = tokenizer_file.build_tokenizer(self.vocabulary.json, folder / "tokenizer.json")
        marks = [
            self.tokenizer.token_to_id(mark) for mark in (songwriter_prompts.TURN_END, songwriter_prompts.THOUGHT_END)
        ]
        if None in marks or self.vocabulary.codes < codes:
            lack = "<think> or </think>" if None in marks else f"{codes} audio codes; it has {self.vocabulary.codes}"
            raise tokenizer_error(folder / "tokenizer.json", f"it lacks {lack}")
        tokenizer_file.require_ids(self.tokenizer, self.vocabulary.first_code, folder / "tokenizer.json")
        self.turn_end = marks[0]
        self.model = build_qwen3(folder / "config.json", self.vocabulary.first_code + self.vocabulary.codes)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, which may have `<|audio_code_N|>` in it."""
        pieces = CODE.split(text)
        ids: list[int] = []
        for words, code in zip(pieces[::2], [*pieces[1::2], None], strict=True):
            ids += self.tokenizer.encode(words, add_special_tokens=False).ids
            if code is not None:
                ids.append(self.vocabulary.first_code + int(code))
        return ids

    def answer(
        self, task: WritingTask, sampling: Sampling, generator: torch.Generator, progress: Progress
    ) -> dict[str, Any]:
        """Answer a task with keys of a request and their values; lyrics None are an instrumental.

        A caption that lacks words of the idea is written once more, before the lyrics. Raises `UsageError` where the
        prompt leaves no room to answer.
        """
        prompt = self.encode(task.prompt + songwriter_prompts.THOUGHT_BEGIN + "\n")
        given = [songwriter_prompts.dump_thought(task.decided), task.kept.opening if task.kept is not None else ""]
        max_new_tokens = (
            METADATA_TOKENS
            + sum(len(self.encode(text)) for text in given)
            + songwriter_prompts.CAPTION_TOKENS
            + (songwriter_prompts.LYRIC_TOKENS if task.lyrics else 0)
        )
        cache, states = self.prefill([prompt], max_new_tokens, "answer")
        decoder = GrammarDecoder(
            self, cache, sampling, generator, lambda done: progress(min(done, max_new_tokens), max_new_tokens)
        )
        answer = decoder.think(states, task)
        if (again := task.second_try(answer)) is not None:
            cache.truncate(len(prompt))
            answer = decoder.think(states, again)
        if task.lyrics:
            states = cache.step([self.encode("\n" + songwriter_prompts.THOUGHT_END)])
            words = songwriter_prompts.strip_headings(
                decoder.generate(states, task.lyric_grammar(), songwriter_prompts.LYRIC_TOKENS)
            )
            answer["lyrics"] = None if words == prompts.INSTRUMENTAL else words
        progress(max_new_tokens, max_new_tokens)
        return answer

    def sample_codes(
        self,
        prompt: str,
        thought: str,
        count: int,
        sampling: Sampling,
        generators: Sequence[torch.Generator],
        together: int,
        progress: Progress,
    ) -> Iterator[tuple[int, ...]]:
        """Yield `count` audio codes for each generator, sampled after the same prompt and thought, for so many of them
        `together` in one batch.

        Raises `UsageError` where prompt and codes are more than the model holds.
        """
        inputs = [self.encode(prompt + songwriter_prompts.format_thought(thought))]
        if sampling.cfg_scale > 1:
            inputs.append(self.encode(songwriter_prompts.unguided_prompt(sampling.negative_prompt)))
        copies = min(together, len(generators))
        cache, prompt_states = self.prefill(inputs, count, f"{count} codes", copies=copies)
        total = count * len(generators)
        rows = slice(self.vocabulary.first_code, self.vocabulary.first_code + self.codes)
        for first in range(0, len(generators), copies):
            takes = generators[first : first + copies]
            tokens = cache.first_rows(len(takes) * len(inputs))
            states, codes = prompt_states.repeat(len(takes), 1), [list[int]() for _ in takes]
            while True:
                progress(first * count + sum(map(len, codes)), total)
                logits = torch.split(self.logits(states, rows), len(inputs))
                for own, generator, each in zip(codes, takes, logits, strict=True):
                    own.append(sample_token(guide_logits(each, sampling.cfg_scale), own, sampling, generator))
                if len(codes[0]) == count:
                    break
                states = tokens.step([[rows.start + own[-1]] for own in codes for _ in inputs])
            yield from map(tuple, codes)
        progress(total, total)

    def write_takes(
        self, request: Completed, lengths: tuple[int, int], together: int, report: ProgressCallback, say: Say
    ) -> Iterator[Completed]:
        """Yield each take of `request` as a request of its own in which nothing is open, codes included; where no codes
        are open, yield one request for all takes.

        The text is written once, from `songwriter_seed`, and `say` receives it in words. The codes follow from each
        take's seed, for so many of them `together` in one batch. `lengths` are the shortest and the longest song in
        seconds, where the length is open; prompt and codes keep to the context too. Raises `UsageError` where the song
        turns out shorter than its fades.
        """
        sampling = Sampling.of(request)
        expands = request.idea is not None
        make_task = songwriter_prompts.idea_task if expands else songwriter_prompts.metadata_task
        task = make_task(request, request.open, lengths)
        task = replace(task, seconds=(lengths[0], max(lengths[0], min(lengths[1], self.longest_song(task)))))
        written: dict[str, Any] = {}
        if set(request.open) - {"codes"}:
            generator = stage_generator(request.text_seed, "text")
            written = self.answer(task, sampling, generator, lambda done, of: report("write", done, of))
        whole = complete.fill_open(request, written)
        decided = {key: getattr(whole, key) for key in request.open if key != "codes"}
        for sentence in (*songwriter_prompts.remarks(request, decided), songwriter_prompts.decision_summary(decided)):
            say(sentence)
        if problem := validate.fade_problem(whole, whole.duration):
            raise UsageError(f"{problem} The Songwriter decided on that length.", "Ask for a --duration of your own.")
        if "codes" not in request.open:
            yield whole
            return
        has_new_caption = "caption" in written and not expands
        songs = take_parts.single_takes(whole)
        codes = self.sample_codes(
            prompt=songwriter_prompts.song_prompt(whole.caption, whole.lyrics) if expands else task.prompt,
            thought=song_thought(whole, has_caption=has_new_caption),
            count=int(CODES_PER_SECOND * whole.duration),
            sampling=sampling,
            generators=[stage_generator(song.seed, "codes") for song in songs],
            together=together,
            progress=lambda done, of: report("codes", done, of),
        )
        for song, own in zip(songs, codes, strict=True):
            yield song.model_copy(update={"codes": own})

    def longest_song(self, task: WritingTask) -> int:
        """Return the most seconds whose codes the context surely holds beside the prompt and the answer of a task."""
        lyrics = songwriter_prompts.LYRIC_TOKENS if task.lyrics else 0
        answer = METADATA_TOKENS + songwriter_prompts.CAPTION_TOKENS + lyrics
        return (CONTEXT - len(self.encode(task.prompt)) - answer) // CODES_PER_SECOND

    def prefill(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, what: str, copies: int = 1
    ) -> tuple[KVCache, Tensor]:
        """Read P prompts into a cache with room for `max_new_tokens` more, and for so many copies of them; return it
        and the states [P, width] of their last tokens.

        Raises `UsageError`, which names the new tokens as `what`, where that exceeds the model's context.
        """
        longest = max(map(len, prompts))
        if longest + max_new_tokens > CONTEXT:
            raise UsageError(
                f"The Songwriter's prompt is {longest:,} tokens long; with its {what} that is more than the "
                f"{CONTEXT:,} it holds.",
                "Shorten the caption or the lyrics, or ask for a shorter song.",
            )
        cache = KVCache.empty(self.model, len(prompts) * copies, longest + max_new_tokens)
        return cache, cache.prefill(prompts)

    def logits(self, states: Tensor, rows: slice = slice(None)) -> Tensor:
        """Return logits [..., V] of a range of tokens, or of all, for states [..., width]; float32 on the CPU."""
        return F.linear(states, self.model.embed_tokens.weight[rows]).float().cpu()

    @cached_property
    def _grammar_tokenizer(self) -> llguidance.LLTokenizer:
        """The text vocabulary for the grammar library."""
        return llguidance.LLTokenizer(self.vocabulary.json, n_vocab=self.vocabulary.first_code, eos_token=self.turn_end)


class GrammarDecoder:
    """Samples text under one grammar after another, into one KV cache."""

    def __init__(
        self,
        songwriter: SongwriterModel,
        cache: KVCache,
        sampling: Sampling,
        generator: torch.Generator,
        progress: Callable[[int], None],
    ) -> None:
        self.songwriter, self.cache, self.sampling, self.generator = songwriter, cache, sampling, generator
        self.progress = progress
        self.written = 0

    def think(self, states: Tensor, task: WritingTask) -> dict[str, Any]:
        """Sample the thought of a task after `states` [1, width]. Return keys of a request with their values."""
        grammar = task.thought_grammar()
        text = self.generate(states, grammar, songwriter_prompts.CAPTION_TOKENS, songwriter_prompts.AFTER_CAPTION)
        return songwriter_prompts.parse_thought(text)

    def generate(self, states: Tensor, grammar: str, max_new_tokens: int, closing: str = "") -> str:
        """Sample text under `grammar` after `states` [1, width], and add it to the cache.

        A text that is unfinished after `max_new_tokens` sampled tokens is cut back to the last place where it may end,
        or where `closing` may follow. Tokens that the grammar forces are not sampled.
        """
        tokenizer = self.songwriter._grammar_tokenizer
        matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        tokens: list[int] = []
        sampled = 0
        while not matcher.is_stopped():
            if forced := matcher.compute_ff_tokens():
                tokens += self._accept(matcher, forced)
                states = self.cache.step([forced])
                continue
            if sampled >= max_new_tokens and not (closing and closing in tokenizer.decode_str(tokens)):
                cut, follow = self._truncate(matcher, tokenizer.tokenize_str(closing))
                del tokens[len(tokens) - cut :]
                self.cache.truncate(self.cache.length - cut)
                if not follow:
                    break
                tokens += self._accept(matcher, follow)
                states = self.cache.step([follow])
                continue
            token = self._sample(matcher, states, tokens)
            sampled += 1
            if token == self.songwriter.turn_end:
                break
            tokens.append(token)
            states = self.cache.step([[token]])
        if matcher.is_error():
            raise RuntimeError(matcher.get_error())
        return tokenizer.decode_str(tokens)

    def _sample(self, matcher: llguidance.LLMatcher, states: Tensor, tokens: Sequence[int]) -> int:
        """Sample a token that the grammar allows after `states` [1, width]; those in `tokens` are penalised."""
        allowed = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        logits = self.songwriter.logits(states, slice(0, self.songwriter.vocabulary.first_code))[0]
        logits[torch.from_numpy(allowed[: len(logits)]) == 0] = -torch.inf
        token = sample_token(logits, tokens, self.sampling, self.generator)
        self._accept(matcher, [token])
        self.written += 1
        self.progress(self.written)
        return token

    def _accept(self, matcher: llguidance.LLMatcher, tokens: list[int]) -> list[int]:
        if not matcher.consume_tokens(tokens):
            raise RuntimeError(matcher.get_error())
        return tokens

    def _truncate(self, matcher: llguidance.LLMatcher, closing: list[int]) -> tuple[int, list[int]]:
        """Roll the grammar back to where the text may end, or `closing` may follow; return the number of tokens that
        are cut, and `closing`.
        """
        back = 0
        while not (matcher.validate_tokens(closing) == len(closing) if closing else matcher.is_accepting()):
            if not matcher.rollback(1):
                raise RuntimeError(matcher.get_error())
            back += 1
        return back, closing


def song_thought(song: Completed, *, has_caption: bool) -> str:
    """Return the thought that says the metadata of a song, and its caption if the Songwriter wrote that."""
    known = {"language": "unknown", **songwriter_prompts.known_metadata(song)}
    names = [*songwriter_prompts.METADATA, *(["caption"] if has_caption else [])]
    return songwriter_prompts.dump_thought({name: known[name] for name in names})


def read_vocabulary(file: Path) -> Vocabulary:
    """Split a tokenizer file into text and codes. Raises `CheckpointError` where its codes are no range of ids."""
    content = tokenizer_file.read_tokenizer(file)
    try:
        marks = {int(found[1]): int(token["id"]) for token in content["added_tokens"]
                 if (found := CODE.fullmatch(token["content"]))}  # fmt: skip
        words = [token for token in content["added_tokens"] if not CODE.fullmatch(token["content"])]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise tokenizer_error(file, f"{type(error).__name__}: {error}") from error
    first = marks.get(0, 0)
    if (
        not marks
        or not 0 < first < tokenizer_file.MOST_TOKENS
        or marks != {code: first + code for code in range(len(marks))}
    ):
        raise tokenizer_error(file, "its audio codes are not there, or not in a row")
    content["added_tokens"] = words
    return Vocabulary(json.dumps(content, ensure_ascii=False), first, len(marks))


def tokenizer_error(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{file} is not the tokenizer of a Songwriter ({why}).", "Download that folder again.")


def build_qwen3(file: Path, tokens: int) -> Qwen3Decoder:
    """Build the model that a config describes, without weights. Raises `CheckpointError` for one that this engine
    cannot run.
    """
    config = qwen_of(file.parent)
    try:
        if config.vocab_size < tokens:
            raise ValueError(f"it has {config.vocab_size:,} tokens of {tokens:,}")
        with torch.device("meta"):  # the weights come from the store
            return Qwen3Decoder(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} does not describe a Songwriter ({error}).", "Download that folder again."
        ) from error
