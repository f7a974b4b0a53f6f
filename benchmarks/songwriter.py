"""The Songwriter at the published 0.6B size, random bfloat16 weights: its codes, its grammar, its memory.

The rival is `transformers.generate` on the very same weights with the same guidance and sampling, the better of its
dynamic and its static cache. It knows no exact number of codes and computes the logits of all 217,204 tokens.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch
from llguidance import LLMatcher
from published import fill
from random_checkpoint import TEXT
from side_by_side import medians, parser, publish
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from acestep_cli.engine import packed_linear
from acestep_cli.engine.songwriter import SongwriterModel
from acestep_cli.engine.weights import set_parameter
from acestep_cli.song import songwriter_prompts
from acestep_cli.song.request import Request
from acestep_cli.song.songwriter_prompts import Sampling

SIZES = TEXT | {"vocab_size": 217_204, "tie_word_embeddings": True}
TEXT_TOKENS, CODE_MARKS, CODES = TEXT["vocab_size"], 65_535, 64_000
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
SONG = songwriter_prompts.song_prompt("warm lo-fi hip hop, dusty drums, rhodes", "[Verse]\n" + "la la la la la\n" * 20)
THOUGHT = "bpm: 84\nduration: 60\nkeyscale: A minor\nlanguage: en\ntimesignature: 4\n"
CALLS = 20
NOTES = """\
Random bfloat16 weights of the published sizes, the same tensors in both. Codes: {codes} of them after a prompt of
{prompt} tokens, guidance 2, top-p 0.9, temperature 0.85; medians of {rounds} runs, taken in turns in one process. Of
transformers' two caches the better is shown ({cache}). The floor of a token is what it has to read, {read:.2f} GB of
weights, keys and values, at the {bandwidth:.0f} GB/s that summing {summed:.1f} GB of memory reaches here. The
vocabulary is one of random words of the published size; the mask is the mean over a caption and lyrics of {masks}
tokens, and start-up is the grammar's beyond that of the tokenizer. Memory is the resident set after {calls} calls and
after one.
"""


def write_tokenizer(file: Path) -> None:
    """A byte-level tokenizer of random words as large as the published one, with its marks of codes."""
    draw = random.Random(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys(letters)
    merges: list[tuple[str, str]] = []
    pool = list(letters)
    while len(words) < TEXT_TOKENS - len(MARKS):
        pair = draw.choice(pool), draw.choice(pool)
        word = "".join(pair)
        if len(word) <= 12 and word not in words:
            words[word] = None
            merges.append(pair)
            pool.append(word)
    tokenizer = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    content = json.loads(tokenizer.to_str())
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    first = len(words)
    names = [*MARKS, *(f"<|audio_code_{code}|>" for code in range(CODE_MARKS))]
    content["added_tokens"] = [
        {"id": first + number, "content": name, **plain, "special": name in MARKS[:3]}
        for number, name in enumerate(names)
    ]
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@contextmanager
def songwriter() -> Iterator[SongwriterModel]:
    """Ours, with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder) / "tokenizer.json")
        (Path(folder) / "config.json").write_text(json.dumps(SIZES))
        made = SongwriterModel(Path(folder), CODES)
        fill(made.model.to(torch.bfloat16))
        yield made.eval()


def rival(ours: SongwriterModel) -> Qwen3ForCausalLM:
    """transformers' model with our tensors."""
    config = Qwen3Config(**SIZES, dtype="bfloat16")
    with torch.device("meta"):
        theirs = Qwen3ForCausalLM(config)
    for name, tensor in ours.model.state_dict().items():
        set_parameter(theirs.model, name, tensor)
    theirs.tie_weights()
    theirs.model.rotary_emb = Qwen3RotaryEmbedding(config)  # its numbers are no weights
    return theirs.eval()


def ignore(done: int, total: int) -> None:
    """Progress nobody watches."""


def bandwidth(summed: Tensor, rounds: int) -> float:
    """Bytes a second that reading memory reaches."""
    [seconds] = medians(rounds, lambda: summed.sum())
    return summed.numel() * summed.element_size() / seconds


def grammar(ours: SongwriterModel, tokens: int) -> tuple[float, float]:
    """Seconds of start-up beyond the tokenizer's, and the mean seconds of a mask."""
    task = songwriter_prompts.idea_task(Request(idea="x"), ["lyrics"], (10, 600))
    start = time.perf_counter()
    alphabet = ours._grammar_tokenizer
    LLMatcher(alphabet, task.thought_grammar()).compute_bitmask()
    startup = time.perf_counter() - start
    draw = random.Random(0)
    spent = []
    for text in (task.thought_grammar(), task.lyric_grammar()):
        matcher = LLMatcher(alphabet, text)
        for _ in range(tokens // 2):
            if forced := matcher.compute_ff_tokens():
                matcher.consume_tokens(forced)
                continue
            start = time.perf_counter()
            mask = matcher.compute_bitmask()
            spent.append(time.perf_counter() - start)
            allowed = np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little"))
            matcher.consume_token(int(draw.choice(allowed[allowed != ours.turn_end])))
            if matcher.is_stopped():
                break
    return startup, statistics.mean(spent)


def memory_growth(call: Callable[[], None]) -> float:
    """How much more is resident after `CALLS` calls than after one."""
    resident = psutil.Process().memory_info
    call()
    before = resident().rss
    for _ in range(CALLS - 1):
        call()
    return resident().rss / before - 1


@torch.inference_mode()
def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--codes", type=int, default=40, help="codes a run (default: %(default)s)")
    options.add_argument("--masks", type=int, default=600, help="tokens of text (default: %(default)s)")
    arguments = options.parse_args()
    torch.manual_seed(0)
    how = Sampling()
    with songwriter() as ours:
        print("built", file=sys.stderr)  # every stage takes its time
        startup, mask = grammar(ours, arguments.masks)
        theirs = rival(ours)
        body = sum(weight.numel() for name, weight in ours.model.named_parameters() if "embed" not in name)
        if packed_linear.can_pack(torch.device("cpu"), torch.bfloat16):  # as the store does
            packed_linear.pack_linears(ours.model)
        prompt = ours.encode(SONG + songwriter_prompts.format_thought(THOUGHT))
        unguided = ours.encode(songwriter_prompts.unguided_prompt(None))

        def our_codes(count: int = arguments.codes) -> None:
            next(iter(ours.sample_codes(SONG, THOUGHT, count, how, [torch.Generator().manual_seed(0)], 1, ignore)))

        def their_codes(cache: str) -> None:
            theirs.generate(
                torch.tensor([prompt]),
                negative_prompt_ids=torch.tensor([unguided]),
                guidance_scale=how.cfg_scale,
                do_sample=True,
                top_p=how.top_p,
                top_k=0,
                temperature=how.temperature,
                min_new_tokens=arguments.codes,
                max_new_tokens=arguments.codes,
                cache_implementation=cache,
                pad_token_id=0,
                disable_compile=True,
            )

        runs = (our_codes, lambda: our_codes(1), lambda: their_codes("dynamic"), lambda: their_codes("static"))
        for run in runs:
            run()
            print("warm", file=sys.stderr)
        all_of_ours, first_of_ours, dynamic, static = medians(arguments.rounds, *runs)
        growth = memory_growth(lambda: our_codes(4))

        config = ours.model.config
        length = 2 * (len(prompt) + arguments.codes // 2)  # of both rows
        keys = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * length
        read = 2 * (body + CODES * config.hidden_size + keys)
        summed = torch.ones(2**28)
        speed = bandwidth(summed, 5 * arguments.rounds)
    token = (all_of_ours - first_of_ours) / (arguments.codes - 1)
    theirs_best = min(dynamic, static)
    ratio, floor = theirs_best / all_of_ours, token / (read / speed)
    table = [
        ["what", "measured", "aim"],
        ["codes a second, ours", f"{arguments.codes / all_of_ours:.1f}", ""],
        ["codes a second, `transformers.generate`", f"{arguments.codes / theirs_best:.1f}", ""],
        ["speed against it, prompt included", f"{ratio:.2f} x", "at least 1.7 x"],
        ["time of a code", f"{1000 * token:.0f} ms", ""],
        ["against bytes read / bandwidth", f"{floor:.2f} x", "at most 2 x"],
        ["grammar: mask of a token", f"{1000 * mask:.3f} ms", "at most 0.2 ms"],
        ["grammar: start-up", f"{startup:.2f} s", "at most 1 s"],
        [f"memory after {CALLS} calls against one", f"{100 * growth:+.2f} %", "at most +1 %"],
    ]
    notes = NOTES.format(
        codes=arguments.codes,
        prompt=len(prompt),
        rounds=arguments.rounds,
        cache="dynamic" if dynamic < static else "static",
        read=read / 1e9,
        bandwidth=speed / 1e9,
        summed=summed.numel() * summed.element_size() / 1e9,
        masks=arguments.masks,
        calls=CALLS,
    )
    publish(__file__, "The Songwriter at the 0.6B size", table, notes, arguments.dry)


if __name__ == "__main__":
    main()
