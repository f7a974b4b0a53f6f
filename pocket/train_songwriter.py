"""Train the Songwriter: ideas into songs, songs into audio codes, audio codes back into songs.

    python pocket/train_songwriter.py --minutes 60

The lessons are the program's own prompts (`acestep_cli.writing`) with the answers that the corpus knows; only answers
count. Needs the latents of `encode.py` and the codes of `train_codes.py`. Saves `pocket/work/songwriter.pt` every two
minutes and resumes from it.

Shapes: B lessons, L tokens.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import corpus
import numpy as np
import tokenizer
import torch
import train_codes
from encode import cover_of
from tokenizers import AddedToken, Tokenizer
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from train_dit import CONFIG as DIT
from train_dit import Songs, number_curve
from train_vae import WORK
from transformers import Qwen3Config, Qwen3Model

from acestep_cli import prompts, writing
from acestep_cli.engine.dit import AceStep
from acestep_cli.kinds import CODES_PER_SECOND
from acestep_cli.request import Request
from acestep_cli.sizes import DiTConfig

CHECKPOINT = WORK / "songwriter.pt"
CODES = math.prod(DIT["fsq_input_levels"])
MARKS = ("<|im_start|>", writing.TURN_END, writing.THOUGHT_BEGIN, writing.THOUGHT_END)
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 192, "intermediate_size": 448,
    "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64, "hidden_act": "silu",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "attention_bias": False,
    "tie_word_embeddings": True, "use_sliding_window": False, "dtype": "bfloat16",
    "fsq_input_levels": DIT["fsq_input_levels"],
}  # fmt: skip
# What a lesson is: an idea into a song, a song in other words, a song into its plan and codes, codes into a song.
TASKS = {"expand": 0.25, "format": 0.05, "compose": 0.25, "understand": 0.45}
UNGUIDED = 0.1  # of compositions have no wish
CROPPED = 0.6  # of recordings that are to be understood are a part of a song, whose lyrics are then not asked for
TOKENS = 6000  # in a batch
POOLED = 8  # batches drawn at once
MUON_RATE, ADAM_RATE = 4e-3, 2e-3
REST_WEIGHT = 0.2  # of lyrics and codes in the loss, against what a song is thought to be
IGNORED = -100
EMBEDDING = 0.02  # RMS of embeddings at the start


@cache
def alphabet() -> Tokenizer:
    """The words of the text encoder and the marks of a dialogue; codes come after them as a range of ids."""
    tokens = tokenizer.trained()
    tokens.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    return tokens


def first_code() -> int:
    return alphabet().get_vocab_size()


def file_content() -> str:
    """`tokenizer.json` with every code as a token of its own, as the published ones have it."""
    content = json.loads(alphabet().to_str())
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"] += [
        {"id": first_code() + code, "content": f"<|audio_code_{code}|>", **plain} for code in range(CODES)
    ]
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def encode(text: str) -> list[int]:
    """The ids of a text with codes in it."""
    pieces = writing.CODE.split(text)
    ids = alphabet().encode(pieces[0], add_special_tokens=False).ids
    for code, words in zip(pieces[1::2], pieces[2::2], strict=True):
        ids += [first_code() + int(code), *alphabet().encode(words, add_special_tokens=False).ids]
    return ids


class Recording(NamedTuple):
    """A song, and its codes as they are read when reading begins at each frame of a group: the first is its own."""

    piece: corpus.Song
    codes: list[list[int]]


def code_reader() -> AceStep:
    """Tokenizer and detokenizer of `train_codes.py`."""
    whole = AceStep(DiTConfig.from_dict(DIT)).eval()
    for name, weights in torch.load(train_codes.CHECKPOINT, weights_only=True).items():
        whole.get_parameter(name).data.copy_(weights)
    return whole


@torch.inference_mode()
def recordings(songs: Songs, reader: AceStep) -> list[Recording]:
    """The mixes of the corpus and the covers, whole groups of five frames only."""
    found = []
    for piece, heard in zip(songs.pieces, songs.heard, strict=True):
        versions = [(piece, heard.mix)] + ([(cover_of(piece), heard.cover)] if heard.cover is not None else [])
        for song, latents in versions:
            codes = []
            for late in range(train_codes.WINDOW):
                frames = (len(latents) - late) // train_codes.WINDOW * train_codes.WINDOW
                codes.append(reader.tokenizer(latents[None, late : late + frames].float())[1][0].tolist())
            found.append(Recording(song, codes))
    return found


@torch.no_grad()
def acquaint(model: Qwen3Model, reader: AceStep) -> None:
    """Start with embeddings that are near each other where what they mean is: codes by their latents, numbers by size.

    A song has fifty codes and there are 2,560 of them; with random starts each had to be learned from its own few.
    """
    table = model.embed_tokens.weight
    spelt = reader.latents_from_codes(torch.arange(CODES)[None])[0].view(CODES, -1)
    spread = torch.randn(spelt.shape[1], CONFIG["hidden_size"], generator=torch.Generator().manual_seed(0))
    meant = (spelt - spelt.mean(0)) @ spread
    table[first_code() : first_code() + CODES] = EMBEDDING * meant / meant.square().mean().sqrt()
    numbers = tokenizer.number_ids(alphabet())
    table[list(numbers.values())] = EMBEDDING * number_curve(list(numbers), CONFIG["hidden_size"])


def request_of(piece: corpus.Song, **other: object) -> Request:
    """A song as the program knows it."""
    return Request(**{
        "caption": piece.caption, "lyrics": piece.lyrics if piece.voiced else None, "instrumental": not piece.voiced,
        "language": piece.language if piece.voiced else None, "bpm": piece.bpm, "key": piece.key,
        "time_signature": piece.time_signature, "duration": piece.duration, **other,
    })  # fmt: skip


def thought(request: Request, fields: tuple[str, ...]) -> str:
    known = {"language": "unknown", **writing.metadata(request)}
    return writing.dump({name: known[name] for name in fields if name in known})


def answer(piece: corpus.Song, request: Request) -> str:
    """A whole song as the Songwriter writes it after a prompt."""
    lyrics = piece.lyrics if piece.voiced else prompts.INSTRUMENTAL
    return f"{writing.thought(thought(request, (*writing.METADATA, 'caption')))}# Lyric\n{lyrics}{writing.TURN_END}"


@dataclass(frozen=True)
class Taught:
    """The ids of a prompt and its answer, and how many of them are asked."""

    ids: list[int]
    asked: int

    def __len__(self) -> int:
        return len(self.ids)


def lesson(recording: Recording, rng: np.random.Generator) -> tuple[str, str]:
    """A prompt and its answer."""
    piece, codes = corpus.describe(recording.piece, rng), recording.codes[0]
    request = request_of(piece)
    sounds = "".join(f"<|audio_code_{code}|>" for code in codes)
    match rng.choice(list(TASKS), p=list(TASKS.values())):
        case "expand":
            prompt = writing.idea_prompt(corpus.idea(piece, rng), instrumental=not piece.voiced)
            return prompt, answer(piece, request)
        case "format":
            other = corpus.describe(piece, rng).caption
            return writing.rewrite_prompt(other, request.lyrics), answer(piece, request)
        case "compose":
            if rng.random() < UNGUIDED:
                return writing.unguided_prompt(None), sounds
            prompt = writing.song_prompt(request.caption, request.lyrics)
            return prompt, writing.thought(thought(request, writing.METADATA)) + sounds
    if rng.random() < CROPPED and len(codes) > 8 * CODES_PER_SECOND:
        codes = recording.codes[rng.integers(len(recording.codes))]
        length = int(rng.integers(6 * CODES_PER_SECOND, len(codes)))
        start = int(rng.integers(len(codes) - length))
        request = request_of(piece, duration=length // CODES_PER_SECOND)
        part = writing.thought(thought(request, (*writing.METADATA, "caption")))
        return writing.hearing_prompt(codes[start : start + length]), part
    return writing.hearing_prompt(codes), answer(piece, request)


def batches(heard: list[Recording], rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end: ids [B, L], closed with zeros, and what is to follow each [B, L], `IGNORED` in prompts.

    Lessons of about one length share a batch, so that little of it is padding.
    """
    while True:
        lessons = []
        while sum(map(len, lessons)) < POOLED * TOKENS:
            prompt, reply = (encode(text) for text in lesson(heard[rng.integers(len(heard))], rng))
            lessons.append(Taught(prompt + reply, len(prompt)))
        lessons.sort(key=len)
        cut: list[list[Taught]] = [[]]
        for one in lessons:
            if sum(map(len, cut[-1])) + len(one) > TOKENS:
                cut.append([])
            cut[-1].append(one)
        for place in rng.permutation(len(cut)):
            ids = [torch.tensor(one.ids) for one in cut[place]]
            wanted = [torch.tensor([*one.ids[1:], IGNORED]) for one in cut[place]]
            for row, one in zip(wanted, cut[place], strict=True):
                row[: one.asked - 1] = IGNORED
            yield pad_sequence(ids, batch_first=True), pad_sequence(wanted, batch_first=True, padding_value=IGNORED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(int(time.time()))
    rng = np.random.default_rng(int(time.time()))
    model = Qwen3Model(Qwen3Config(vocab_size=first_code() + CODES, **CONFIG))
    inner = [p for name, p in model.named_parameters() if p.dim() == 2 and "layers." in name]
    others = [p for p in model.parameters() if all(p is not i for i in inner)]
    optimisers = [
        torch.optim.Muon(inner, lr=MUON_RATE, momentum=0.95, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    average, step = copy.deepcopy(model), 0
    if CHECKPOINT.exists():
        state = torch.load(CHECKPOINT, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimiser, saved_state in zip(optimisers, state["optimizers"], strict=True):
            optimiser.load_state_dict(saved_state)
        step = state["step"]
    songs = Songs()
    songs.refresh()
    reader = code_reader()
    heard = recordings(songs, reader)
    if not step:
        acquaint(model, reader)
        average.load_state_dict(model.state_dict())
    print(f"{len(heard)} recordings", flush=True)

    def save() -> None:
        partial = CHECKPOINT.with_suffix(".partial")
        torch.save({"model": model.state_dict(), "average": average.state_dict(), "step": step,
                    "optimizers": [o.state_dict() for o in optimisers]}, partial)  # fmt: skip
        partial.replace(CHECKPOINT)

    began = saved = last = time.monotonic()
    shown: list[tuple[float, float, float]] = []
    drawn, end = batches(heard, rng), alphabet().token_to_id(writing.THOUGHT_END)
    while (spent := (time.monotonic() - began) / (60 * asked.minutes)) < 1:
        ids, wanted = next(drawn)
        with torch.autocast("cpu", torch.bfloat16):
            states = model(input_ids=ids, use_cache=False).last_hidden_state
            told = wanted != IGNORED
            logits = F.linear(states[told], model.embed_tokens.weight).float()
        each = F.cross_entropy(logits, wanted[told], reduction="none")
        # What comes after the thought is long, and much of it was drawn at random.
        thought_through = (wanted == end).cumsum(1) - (wanted == end).int() > 0
        weights = torch.where(thought_through[told] | (wanted[told] >= first_code()), REST_WEIGHT, 1.0)
        ((each * weights).sum() / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale = min(1, (step + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * spent)))
        for optimiser, peak in zip(optimisers, (MUON_RATE, ADAM_RATE), strict=True):
            optimiser.param_groups[0]["lr"] = peak * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            pairs = list(average.parameters()), list(model.parameters())
            torch._foreach_lerp_(*pairs, 1 - min(0.998, (1 + step) / (10 + step)))
        sounds, facts = wanted[told] >= first_code(), weights == 1
        shown.append((each[facts].mean().item(), each[~facts & ~sounds].mean().item(), each[sounds].mean().item()))
        now = time.monotonic()
        if len(shown) == 50:
            thinking, lyrics, sound = np.nanmean(shown, 0)
            print(f"{step} {spent:.0%} {(now - last) / 50:.2f} s/step  thought {thinking:.3f}  lyrics {lyrics:.3f}  "
                  f"codes {sound:.3f}", flush=True)  # fmt: skip
            shown, last = [], now
        if now - saved > 120:
            save()
            saved = now
    save()


if __name__ == "__main__":
    main()
