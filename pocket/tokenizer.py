"""The tokenizer of the pocket text encoder: byte-level BPE, so that no language is out of vocabulary.

Whole numbers up to 600 are single tokens: a tempo or a length is then one embedding that the model can learn
outright, instead of digits whose meaning it would have to compute.
"""

from __future__ import annotations

from pathlib import Path

import corpus
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from acestep_cli import prompts

VOCABULARY = 2304
SONGS = 3000
LARGEST_NUMBER = 600  # seconds; tempi end at 300
FILE = Path(__file__).parent / "work/tokenizer.json"
INSTRUCTIONS = {
    "text2music": "Fill the audio semantic mask based on the given conditions:",
    "repaint": "Repaint the mask area based on the given conditions:",
    "cover": "Generate audio semantic tokens based on the given conditions:",
}


def prompts_of(piece: corpus.Song, task: str) -> tuple[str, str]:
    """The text prompt and the lyric prompt of a song."""
    metas = prompts.metas(piece.bpm, piece.time_signature, piece.key, piece.duration)
    return prompts.text_prompt(INSTRUCTIONS[task], piece.caption, metas), prompts.lyric_prompt(
        piece.lyrics, piece.language
    )


def train() -> Tokenizer:
    """Learn the merges from the corpus's own prompts, its lyrics in ten languages, and the numbers."""
    rng = np.random.default_rng(0)

    def texts():
        for seed in range(SONGS):
            yield from prompts_of(corpus.describe(corpus.song(seed), rng), "text2music")
        for _ in range(60):  # often enough that every number is merged before rare words are
            yield "".join(f" {n}" for n in range(1, LARGEST_NUMBER + 1))
            yield from INSTRUCTIONS.values()
            for style in corpus.STYLES.values():
                yield ", ".join(
                    (*style.names, *style.moods, *style.drum_words, *style.bass, *style.chords, *style.leads)
                )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=[prompts.END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        ),
    )  # fmt: skip
    end = tokenizer.token_to_id(prompts.END_OF_TEXT)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {prompts.END_OF_TEXT}", special_tokens=[(prompts.END_OF_TEXT, end)]
    )
    return tokenizer


def trained() -> Tokenizer:
    """The tokenizer in `pocket/work`, trained once: weights belong to the ids they were trained with."""
    if not FILE.exists():
        FILE.parent.mkdir(exist_ok=True)
        train().save(str(FILE))
    return Tokenizer.from_file(str(FILE))


def number_ids(tokenizer: Tokenizer) -> dict[int, int]:
    """The token of each whole number, as it stands after a space."""
    return {number: tokenizer.encode(f" {number}").ids[0] for number in range(1, LARGEST_NUMBER + 1)}


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and what `AutoTokenizer` wants beside it."""
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=prompts.END_OF_TEXT, pad_token=prompts.END_OF_TEXT
    ).save_pretrained(folder)
