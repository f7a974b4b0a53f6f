"""Train the Songwriter: ideas into songs, songs into audio codes, audio codes back into songs.

    python pocket/train_songwriter.py --minutes 60

The lessons are the program's own prompts (`acestep_cli.song.songwriter_prompts`) with the answers that the corpus
knows; only answers count. Ideas are of songs without end. Codes are those of the songs that `encode.py` has encoded, by
`train_codes.py`, and of others put together from them (`Mosaic`). While codes are heard, and before each is written,
the Songwriter is asked what is being played (`Notes`). Saves `pocket/work/songwriter.pt` every two minutes and goes on
from it (`sitting.py`).

Shapes: B lessons, L tokens, K codes.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import corpus
import numpy as np
import sitting
import tokenizer
import torch
import train_codes
from encode import FOLDER, WET_FOLDER, Heard, cover_of
from sounds import FRAME, PERIOD
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from train_dit import CONFIG as DIT
from train_dit import HARMONICS, SCORE_ROWS, VOICES, beat_angles, number_curve, score_of
from train_vae import WORK
from transformers import Qwen3Config, Qwen3Model

from acestep_cli.engine.dit import AceStep
from acestep_cli.song import prompts, songwriter_prompts
from acestep_cli.song.musical_values import CODES_PER_SECOND
from acestep_cli.song.request import Request

CHECKPOINT = WORK / "songwriter.pt"
CODES = math.prod(DIT["fsq_input_levels"])
MARKS = ("<|im_start|>", songwriter_prompts.TURN_END, songwriter_prompts.THOUGHT_BEGIN, songwriter_prompts.THOUGHT_END)
# Bars are 5 to 20 codes long: with a rotary base of 200 a third of the angles lie there, as in the DiT.
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 192, "intermediate_size": 448,
    "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64, "hidden_act": "silu",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 200.0, "attention_bias": False,
    "tie_word_embeddings": True, "use_sliding_window": False, "dtype": "bfloat16",
    "fsq_input_levels": DIT["fsq_input_levels"],
}  # fmt: skip
SHORTEST_PART = 6 * CODES_PER_SECOND
MOSAICS = 0.6  # of what is to be understood was never recorded
CORRUPTED = 0.15  # of the codes that are heard, at most
# What a lesson is: an idea into a song, a song in other words, a song into its plan and codes, codes into a song.
TASKS = {"expand": 0.2, "format": 0.04, "compose": 0.14, "understand": 0.62}
UNGUIDED = 0.1  # of compositions have no wish
CROPPED = 0.6  # of recordings that are to be understood are a part of a song, whose lyrics are then not asked for
TOKENS = 6000  # in a process's batch
POOLED = 8  # batches drawn at once
REST_WEIGHT = 0.2  # of lyrics and codes in the loss, against what a song is thought to be
IGNORED = -100
EMBEDDING = 0.02  # RMS of embeddings at the start
WINDOW = train_codes.WINDOW
# A song has fifty codes or more and only one tempo and one key. Asked for them in answers alone, the Songwriter had
# found the key in half of all recordings after 658 steps. So every code is a question: which tempo and key it has been
# so far, which beat it is on and what is being played.
ASKED_LAYER, FACTS_WEIGHT, BEAT_WEIGHT, SCORE_WEIGHT = 2, 0.2, 0.5, 2.0
TEMPI = 21  # twelfths of an octave from the shortest pulse
SHORTEST_PULSE = 8.0  # latent frames
KEYS = 24
# Rows of the score: bass, chords, melody, and drums from the last on.
CHORDS, MELODY, DRUMS = VOICES["chords"], VOICES["lead"], VOICES["low"]


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
    pieces = songwriter_prompts.CODE.split(text)
    ids = alphabet().encode(pieces[0], add_special_tokens=False).ids
    for code, words in zip(pieces[1::2], pieces[2::2], strict=True):
        ids += [first_code() + int(code), *alphabet().encode(words, add_special_tokens=False).ids]
    return ids


class Recording(NamedTuple):
    """A song, and its codes as they are read when reading begins at each frame of a group: the first is its own."""

    piece: corpus.Song
    codes: list[list[int]]


class Recordings:
    """A process's share of the mixes and covers of the corpus, dry and in rooms, as codes, growing while `encode.py`
    writes on.
    """

    def __init__(self, reader: AceStep, rank: int, processes: int) -> None:
        self.reader, self.rank, self.processes = reader, rank, processes
        self.shards: set[str] = set()
        self.heard: list[Recording] = []
        self.mosaic = Mosaic()

    def refresh(self) -> None:
        for path in sorted(FOLDER.glob("*.pt")):
            if path.name in self.shards or int(path.stem) % self.processes != self.rank:
                continue
            self.shards.add(path.name)
            files = [file for file in (path, WET_FOLDER / path.name) if file.exists()]
            for seed, song in (one for file in files for one in torch.load(file, weights_only=True).items()):
                piece, heard = corpus.song(seed), Heard(*song)
                versions = [(piece, heard.mix)] + ([(cover_of(piece), heard.cover)] if heard.cover is not None else [])
                for version, latents in versions:
                    self.heard.append(Recording(version, self.read(latents)))
                    self.mosaic.add(self.heard[-1])

    @torch.inference_mode()
    def read(self, latents: Tensor) -> list[list[int]]:
        """Codes from each of the first five frames on; whole groups only."""
        codes = []
        for late in range(WINDOW):
            frames = (len(latents) - late) // WINDOW * WINDOW
            codes.append(self.reader.tokenizer(latents[None, late : late + frames].float())[1][0].tolist())
        return codes


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
    known = {"language": "unknown", **songwriter_prompts.known_metadata(request)}
    return songwriter_prompts.dump_thought({name: known[name] for name in fields if name in known})


def answer(piece: corpus.Song, request: Request) -> str:
    """A whole song as the Songwriter writes it after a prompt."""
    lyrics = piece.lyrics if piece.voiced else prompts.INSTRUMENTAL
    facts = songwriter_prompts.format_thought(thought(request, (*songwriter_prompts.METADATA, "caption")))
    return f"{facts}# Lyric\n{lyrics}{songwriter_prompts.TURN_END}"


def played(piece: corpus.Song) -> corpus.Song:
    """A song with the tempo it is played at, which is all that can be heard, and one spelling of its key."""
    return replace(piece, bpm=round(60 / piece.pulse), key=f"{corpus.NOTE_NAMES[piece.tonic][0]} {piece.mode}")


class Notes(NamedTuple):
    """What is being played at each of K codes."""

    tempo: Tensor  # class [K]
    key: Tensor  # class [K]
    beat: Tensor  # [K, 2 * HARMONICS]
    score: Tensor  # [K, SCORE_ROWS]


def notes(piece: corpus.Song, first: int, count: int) -> Notes:
    """Of `count` codes from a latent frame of a song on."""
    frames = first + count * WINDOW
    patch = DIT["patch_size"]
    tracks = list(score_of(piece, int(piece.duration * corpus.FRAMES_PER_SECOND)).values())
    score = torch.stack(tracks).amax(0).repeat_interleave(patch, 0)[first:frames].unflatten(0, (count, WINDOW)).amax(1)
    pulse = piece.pulse * corpus.FRAMES_PER_SECOND
    tempo = min(max(round(12 * math.log2(pulse / SHORTEST_PULSE)), 0), TEMPI - 1)
    key = piece.tonic + 12 * (piece.mode == "minor")
    beat = beat_angles(piece, -(-frames // patch))[(first + WINDOW * torch.arange(count)) // patch]
    return Notes(torch.full((count,), tempo), torch.full((count,), key), beat, score.float())


class Mosaic:
    """The codes of songs that nobody has encoded: each is one that was read where that was being played, or what comes
    nearest to it. Tempo, key, beat and score are true of them; voice and instruments not always.

    From two thousand encoded songs the Songwriter learned which of them it heard, and with that their tempi, but no
    other song's. These are without end.
    """

    def __init__(self) -> None:
        self.places: dict[tuple[int, bytes], list[int]] = defaultdict(list)  # by how strict the key is, and the key
        self.codes: list[int] = []
        self.scores: list[np.ndarray] = []

    @staticmethod
    def keys(piece: corpus.Song, late: int, scores: np.ndarray) -> Iterator[tuple[bytes, ...]]:
        """For each code of a song, what has to agree, the strictest first: instruments, place in the period of tones
        and all notes; without melody; without instruments and period; harmony alone; chords alone.
        """
        band = f"{piece.style} {piece.voiced} {piece.chords} {piece.bass}"
        for place, score in enumerate(scores):
            phase = (late + WINDOW * place) % (PERIOD // FRAME)
            harmony, chords, drums = score[:MELODY].tobytes(), score[CHORDS:MELODY].tobytes(), score[DRUMS:].tobytes()
            same = f"{band} {phase}".encode()
            yield (same + piece.lead.encode() + score.tobytes(), same + harmony + drums,
                   piece.style.encode() + harmony + drums, harmony, chords)  # fmt: skip

    def add(self, recording: Recording) -> None:
        for late, codes in enumerate(recording.codes):
            scores = notes(recording.piece, late, len(codes)).score.byte().numpy()
            for code, score, keys in zip(codes, scores, self.keys(recording.piece, late, scores), strict=True):
                for key in enumerate(keys):
                    self.places[key].append(len(self.codes))
                self.codes.append(code)
                self.scores.append(score)

    def read(self, piece: corpus.Song, late: int, rng: np.random.Generator) -> tuple[list[int], Notes] | None:
        """Codes of a song from one of its first frames on, and what is played in them; None if any is not at hand."""
        known = notes(piece, late, int(piece.duration * corpus.FRAMES_PER_SECOND - late) // WINDOW)
        chosen = []
        for keys in self.keys(piece, late, known.score.byte().numpy()):
            found = next((self.places[key] for key in enumerate(keys) if key in self.places), None)
            if found is None:
                return None
            chosen.append(found[rng.integers(len(found))])
        sounding = torch.from_numpy(np.stack([self.scores[place] for place in chosen])).float()
        return [self.codes[place] for place in chosen], known._replace(score=sounding)


class Lesson(NamedTuple):
    """A prompt, its answer, and what is played in the codes that one of the two has."""

    prompt: str
    reply: str
    notes: Notes | None = None


@dataclass(frozen=True)
class Taught:
    """The ids of a lesson, how many of them are asked, and its notes; codes are heard or else written."""

    ids: list[int]
    asked: int
    notes: Notes | None
    hears: bool

    def __len__(self) -> int:
        return len(self.ids)


def corrupted(codes: list[int], rng: np.random.Generator) -> list[int]:
    """Codes with some of them replaced by others, so that no recording is known by a few of its own."""
    wrong = rng.random(len(codes)) < rng.uniform(0, CORRUPTED)
    changed: list[int] = np.where(wrong, rng.integers(0, CODES, len(codes)), codes).tolist()
    return changed


def lesson(recordings: Recordings, rng: np.random.Generator) -> Lesson:
    task = rng.choice(list(TASKS), p=list(TASKS.values()))
    if task in ("expand", "format"):
        piece = corpus.describe(corpus.song(int(rng.integers(corpus.HELD_OUT))), rng)
        request = request_of(piece)
        if task == "expand":
            prompt = songwriter_prompts.idea_prompt(corpus.idea(piece, rng), instrumental=not piece.voiced)
            return Lesson(prompt, answer(piece, request))
        other = corpus.describe(piece, rng).caption
        return Lesson(songwriter_prompts.rewrite_prompt(other, request.lyrics), answer(piece, request))
    late = int(rng.integers(WINDOW))
    if task == "understand" and rng.random() < MOSAICS:
        piece = corpus.song(int(rng.integers(corpus.HELD_OUT)))
        if read := recordings.mosaic.read(piece, late, rng):
            codes, known = read
            begun = thought(request_of(played(piece)), ("bpm",))  # what follows in an answer may be untrue
            return Lesson(
                songwriter_prompts.understanding_prompt(corrupted(codes, rng)),
                f"{songwriter_prompts.THOUGHT_BEGIN}\n{begun}",
                known,
            )
    recording = recordings.heard[rng.integers(len(recordings.heard))]
    piece, codes = corpus.describe(recording.piece, rng), recording.codes[0]
    known = notes(recording.piece, 0, len(codes))
    if task == "compose":
        sounds = "".join(f"<|audio_code_{code}|>" for code in codes)
        if rng.random() < UNGUIDED:
            return Lesson(songwriter_prompts.unguided_prompt(None), sounds, known)
        prompt = songwriter_prompts.song_prompt(piece.caption, request_of(piece).lyrics)
        return Lesson(
            prompt,
            songwriter_prompts.format_thought(thought(request_of(piece), songwriter_prompts.METADATA)) + sounds,
            known,
        )
    piece = played(piece)
    if rng.random() > CROPPED:
        return Lesson(
            songwriter_prompts.understanding_prompt(corrupted(codes, rng)), answer(piece, request_of(piece)), known
        )
    codes = recording.codes[late]
    length = int(rng.integers(min(SHORTEST_PART, len(codes)), len(codes) + 1))
    start = int(rng.integers(len(codes) - length + 1))
    request = request_of(piece, duration=length // CODES_PER_SECOND)
    told = songwriter_prompts.format_thought(thought(request, (*songwriter_prompts.METADATA, "caption")))
    known = notes(recording.piece, late + WINDOW * start, length)
    return Lesson(songwriter_prompts.understanding_prompt(corrupted(codes[start : start + length], rng)), told, known)


@dataclass(frozen=True)
class Batch:
    """Ids [B, L], closed with zeros; what is to follow each [B, L], `IGNORED` in prompts; which of them hear a code and
    which write one next [B, L], and the notes of both in that order.
    """

    ids: Tensor
    wanted: Tensor
    hears: Tensor
    writes: Tensor
    notes: tuple[Notes, Notes]


def batch(lessons: list[Taught]) -> Batch:
    rows = [torch.tensor(one.ids) for one in lessons]
    follow = [torch.tensor([*one.ids[1:], IGNORED]) for one in lessons]
    for row, one in zip(follow, lessons, strict=True):
        row[: one.asked - 1] = IGNORED
    ids = pad_sequence(rows, batch_first=True)
    wanted = pad_sequence(follow, batch_first=True, padding_value=IGNORED)
    hearing = torch.tensor([one.hears for one in lessons])[:, None]
    known = []
    for hears in (True, False):
        own = [one.notes for one in lessons if one.notes is not None and one.hears == hears]
        none = Notes(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long),
                     torch.zeros(0, 2 * len(HARMONICS)), torch.zeros(0, SCORE_ROWS))  # fmt: skip
        known.append(Notes(*(torch.cat(parts) for parts in zip(none, *own, strict=True))))
    return Batch(ids, wanted, hearing & (ids >= first_code()), wanted >= first_code(), (known[0], known[1]))


def batches(recordings: Recordings, rng: np.random.Generator) -> Iterator[Batch]:
    """Without end. Lessons of about one length share a batch, so that little of it is padding."""
    while True:
        lessons = []
        while sum(map(len, lessons)) < POOLED * TOKENS:
            drawn = lesson(recordings, rng)
            prompt, reply = encode(drawn.prompt), encode(drawn.reply)
            hears = max(prompt) >= first_code()
            lessons.append(Taught(prompt + reply, len(prompt), drawn.notes, hears))
        lessons.sort(key=len)
        cut: list[list[Taught]] = [[]]
        for one in lessons:
            if sum(map(len, cut[-1])) + len(one) > TOKENS:
                cut.append([])
            cut[-1].append(one)
        for place in rng.permutation(len(cut)):
            yield batch(cut[place])


class Student(nn.Module):
    """The Songwriter, and what it is asked while it learns: of beat and score its middle, of tempo and key its end, by
    what the middle knows of all codes so far. The questions are never exported.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = Qwen3Model(Qwen3Config(vocab_size=first_code() + CODES, **CONFIG))
        self.facts = nn.Linear(CONFIG["hidden_size"], TEMPI + KEYS)
        self.heard = nn.Linear(CONFIG["hidden_size"], 2 * len(HARMONICS) + SCORE_ROWS)
        self.written = nn.Linear(CONFIG["hidden_size"], 2 * len(HARMONICS) + SCORE_ROWS)
        self.middle: Tensor | None = None
        self.model.layers[ASKED_LAYER].register_forward_hook(self.remember_middle)

    def remember_middle(self, _layer: nn.Module, _inputs: object, output: Tensor) -> None:
        self.middle = output

    def losses(self, lessons: Batch) -> tuple[Tensor, dict[str, float]]:
        """Of all that the lessons ask, and each part of it."""
        states = self.model(input_ids=lessons.ids, use_cache=False).last_hidden_state
        told = lessons.wanted != IGNORED
        logits = F.linear(states[told], self.model.embed_tokens.weight).float()
        each = F.cross_entropy(logits, lessons.wanted[told], reduction="none")
        # What comes after the thought is long, and much of it was drawn at random.
        end = alphabet().token_to_id(songwriter_prompts.THOUGHT_END)
        ended = (lessons.wanted == end).cumsum(1) - (lessons.wanted == end).int() > 0
        weights = torch.where(ended[told] | (lessons.wanted[told] >= first_code()), REST_WEIGHT, 1.0)
        loss = (each * weights).sum() / weights.sum()
        thinking, sounds = weights == 1, lessons.wanted[told] >= first_code()
        middle = F.rms_norm(self.middle.float(), (CONFIG["hidden_size"],))
        figures = {
            "thought": each[thinking].mean().item(), "lyrics": each[~thinking & ~sounds].mean().item(),
            "codes": each[sounds].mean().item(),
        }  # fmt: skip
        parts = [2 * len(HARMONICS), SCORE_ROWS]
        known = lessons.notes[0]
        tempo, key = self.facts(states[lessons.hears]).float().split([TEMPI, KEYS], -1)
        beat, score = self.heard(middle[lessons.hears]).float().split(parts, -1)
        planned = self.written(middle[lessons.writes]).float().split(parts, -1)
        hears, writes = lessons.hears.any(), lessons.writes.any()  # else a mean over nothing
        asked = {
            "tempo": (hears, FACTS_WEIGHT, F.cross_entropy(tempo, known.tempo)),
            "key": (hears, FACTS_WEIGHT, F.cross_entropy(key, known.key)),
            "beat": (hears, BEAT_WEIGHT, F.mse_loss(beat, known.beat)),
            "score": (hears, SCORE_WEIGHT, F.mse_loss(score, known.score)),
            "next beat": (writes, BEAT_WEIGHT, F.mse_loss(planned[0], lessons.notes[1].beat)),
            "next score": (writes, SCORE_WEIGHT, F.mse_loss(planned[1], lessons.notes[1].score)),
        }
        for name, (there, weight, term) in asked.items():
            figures[name] = term.item()
            if there:
                loss = loss + weight * term
        return loss, figures


def train(rank: int, asked: argparse.Namespace) -> None:
    """One process of the training."""
    rng = sitting.join(rank, asked)
    recordings, student = Recordings(train_codes.finished(), rank, asked.processes), Student()
    acquaint(student.model, recordings.reader)
    drawn = batches(recordings, rng)

    def lost(step: int) -> tuple[Tensor, dict[str, float]]:
        if step % 100 == 0 or not recordings.heard:
            recordings.refresh()
            if not recordings.heard:
                raise SystemExit(f"{FOLDER} holds no songs for process {rank}; encode.py writes some.")
        with torch.autocast("cpu", torch.bfloat16):
            loss, figures = student.losses(next(drawn))
        return loss, {**figures, "recordings": len(recordings.heard)}

    sitting.sit(student, CHECKPOINT, asked, lost)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sitting.begin(train, parser)


if __name__ == "__main__":
    main()
