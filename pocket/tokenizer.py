"""The tokenizer of the pocket text encoder: byte-level BPE, so that no language is out of vocabulary.

Whole numbers up to 600 are single tokens: a tempo or a length is then one embedding that the model can learn
outright, instead of digits whose meaning it would have to compute.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import corpus
import numpy as np
from sounds import TIMBRES
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from acestep_cli.song import modes, prompts
from acestep_cli.song.musical_values import TRACKS

VOCABULARY = 2304
SONGS = 3000
LARGEST_NUMBER = 600  # seconds; tempi end at 300
FILE = Path(__file__).parent / "work/tokenizer.json"
INSTRUCTIONS = (
    modes.FILL_MASK, modes.FOLLOW_CODES, modes.REPAINT,
    *(instruction.format(track.upper()) for instruction in (modes.LEGO, modes.EXTRACT) for track in TRACKS),
    *(modes.COMPLETE.format(f" with {' | '.join(tracks).upper()}") for tracks in itertools.pairwise(TRACKS)),
)  # fmt: skip


def prompts_of(piece: corpus.Song, instruction: str) -> tuple[str, str]:
    """The text prompt and the lyric prompt of a song."""
    metas = prompts.metadata_lines(piece.bpm, piece.time_signature, piece.key, piece.duration)
    return prompts.text_prompt(instruction, piece.caption, metas), prompts.lyric_prompt(piece.lyrics, piece.language)


def train() -> Tokenizer:
    """Learn the merges from the corpus's own prompts, its lyrics in ten languages, and the numbers."""
    rng = np.random.default_rng(0)

    def texts():
        for seed in range(SONGS):
            yield from prompts_of(corpus.describe(corpus.song(seed), rng), modes.FILL_MASK)
        for _ in range(60):  # often enough that every number is merged before rare words are
            yield "".join(f" {n}" for n in range(1, LARGEST_NUMBER + 1))
            yield from INSTRUCTIONS
            for style in corpus.STYLES.values():
                yield ", ".join((*style.names, *style.moods, *style.drum_words, *TIMBRES))

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
    file = folder / "tokenizer.json"  # half of it is indentation
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
