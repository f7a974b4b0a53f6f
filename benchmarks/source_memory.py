"""The bytes that a longer song and an edit take on a card, counted on a card made of paper, beside the prediction.

With `--context` only a part of the song is in view: the forward pass is as long as that part. An edit asks the model
for two velocities, with two conditions, of each draw of noise. Networks of the published sizes without data, as in
`card_memory.py`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from card_memory import COUNTED, WORDS, Row, count
from side_by_side import parser, publish

from acestep_cli.machine.tiers import reported_bytes
from acestep_cli.song.request import Request

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support import hollow

RATE = 48_000
#: Two: in the second, what the first left is there.
STEPS = 2
ADDED, CONTEXT = 10, 30
BEFORE = {"from_caption": "lo " * 150, "from_lyrics": "[Verse]\n" + "lo " * 2048}
NOTES = """\
`a pass` is the latent frames of a forward pass through the diffusion transformer, 25 for a second, and `passes` how
many a step takes. `diffusion` is the most that the diffusion holds beside the weights. Prompts of full length.
{counted}. The waveform of
the whole song is in main memory, which is not counted here.
"""


class Song(NamedTuple):
    """A song made from a recording of so many minutes, on a card of so many gigabytes."""

    name: str
    minutes: float
    model: str
    card_gb: int
    keys: dict[str, Any]


def extension(minutes: float, context: int | None = None) -> dict[str, Any]:
    """Return the keys of ten more seconds at the end."""
    return {"mode": "repaint", "start": 60 * minutes, "end": 60 * minutes + ADDED, "context": context}


def edit(**keys: Any) -> dict[str, Any]:
    return {"mode": "edit", **BEFORE, **keys}


WHOLE = (600 - ADDED) / 60
SONGS = (
    Song(f"{ADDED} s more", WHOLE, "turbo", 8, extension(WHOLE)),
    Song(f"{ADDED} s more, `--context {CONTEXT}`", WHOLE, "turbo", 8, extension(WHOLE, CONTEXT)),
    Song(f"{ADDED} s more, `--context {CONTEXT}`", 30, "turbo", 8, extension(30, CONTEXT)),
    Song(f"{ADDED} s more", WHOLE, "turbo", 4, extension(WHOLE)),
    Song(f"{ADDED} s more, `--context {CONTEXT}`", WHOLE, "turbo", 4, extension(WHOLE, CONTEXT)),
    Song("edit", 10, "turbo", 8, edit()),
    Song("edit, guided", 10, "base", 8, edit()),
    Song("edit, guided, `--edit-average 4`", 10, "base", 8, edit(edit_average=4)),
    Song("edit", 10, "turbo", 4, edit()),
    Song("edit, guided, `--edit-average 4`", 10, "base", 4, edit(edit_average=4)),
    Song("edit", 10, "xl-turbo", 16, edit()),
)


def square_wave(folder: Path, minutes: float) -> str:
    """Write a recording that takes no room on the disk."""
    file = folder / f"{minutes:g}.flac"
    if not file.exists():
        with soundfile.SoundFile(file, "w", RATE, 2, "PCM_16") as opened:
            for block in range(round(minutes * 6)):
                opened.write(np.full((10 * RATE, 2), 3000 * (-1) ** block, dtype=np.int16))
    return str(file)


def rows(root: Path, songs: Sequence[Song] = SONGS) -> Iterator[tuple[Song, Row]]:
    """Yield the counts of songs."""
    for song in songs:
        checkpoint = hollow.write_checkpoint(root / song.model, song.model)
        source = square_wave(root, song.minutes)
        asked = Request(**WORDS, **song.keys, source=source, seed=1, steps=STEPS, model=song.model)
        row = count(asked, reported_bytes(song.card_gb), checkpoint, None)
        assert row is not None, f"{song.name} does not fit into {song.card_gb} GB"
        yield song, row


def diffusion_bytes(row: Row) -> int:
    """Return the most that the diffusion held beside the weights."""
    [stage] = [stage for stage in row.plan.stages if stage.name == "diffuse"]
    return row.counted.stages["diffuse"] - sum(stage.resident.values())


def cells(song: Song, row: Row) -> list[str]:
    passes = row.counted.passes
    sizes = [f"{size / 2**20:,.0f} MiB" for size in (diffusion_bytes(row), row.counted.peak, row.predicted)]
    minutes, seconds = divmod(round(60 * song.minutes), 60)
    return [
        song.name, f"{minutes}:{seconds:02} min", song.model, f"{song.card_gb} GB", row.plan.arrangement.weight_storage,
        f"{max(passes):,}", f"{len(passes) // STEPS}", *sizes, f"{row.predicted / row.counted.peak:.2f}",
    ]  # fmt: skip


def main() -> None:
    arguments = parser(__doc__).parse_args()
    table = [["what", "source", "model", "card", "weights", "a pass", "passes", "diffusion", "counted", "predicted",
              "predicted / counted"]]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        for song, row in rows(Path(name)):
            table.append(cells(song, row))
            print(*table[-1], sep=" | ", file=sys.stderr, flush=True)
    notes = NOTES.format(counted=COUNTED)
    publish(__file__, "Memory of longer songs and of edits, counted", table, notes, arguments.dry, counted=True)


if __name__ == "__main__":
    main()
