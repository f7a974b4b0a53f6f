"""Measure how much of an idea is in the caption that the built-in Songwriter writes.

    python pocket/ideas.py --seeds 4

`ideas.yaml` has the ideas, and of each its words. Prints a table with the share of words of each kind that the captions
have: as the Songwriter draws them, and as `acestep write` returns them.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml

from acestep_cli.machine import hardware
from acestep_cli.machine import plan as planning
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.sizes import Sizes
from acestep_cli.models.songwriters import needed_songwriters
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete, songwriter_prompts
from acestep_cli.song.request import Request

KINDS = ("style", "mood", "instruments", "nouns")
SECONDS = (3, 60)  # a song written from an idea is this long


@dataclass(frozen=True)
class Idea:
    """An idea and, by kind, its words: regular expressions that match where a word begins."""

    idea: str
    style: tuple[str, ...] = ()
    mood: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    language: str = "en"

    def kept(self, caption: str) -> Iterator[tuple[str, str, bool]]:
        """Yield kind and spelling of each word, and whether the caption has it."""
        for kind in KINDS:
            for word in getattr(self, kind):
                # The letters of Japanese and Chinese follow each other without a space.
                begin = r"\b" if word.isascii() else ""
                yield kind, word, re.search(rf"{begin}(?:{word})", caption, re.IGNORECASE) is not None


def ideas() -> list[Idea]:
    """Read `ideas.yaml`."""
    rows = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return [Idea(**{key: tuple(value) if isinstance(value, list) else value for key, value in row.items()})
            for row in rows]  # fmt: skip


def write(idea: str, seed: int, *, as_drawn: bool = False) -> dict[str, object]:
    """Return what `acestep write` makes of an idea, but for the lyrics; with `as_drawn` what is drawn first."""
    checkpoint = checkpoints.find_checkpoint(checkpoint_table.BUILT_IN)
    [helper] = needed_songwriters(checkpoint_table.BUILT_IN, checkpoint, None, "This measurement")
    request = Request(idea=idea, model=checkpoint_table.BUILT_IN, songwriter=checkpoint_table.BUILT_IN, seed=seed)
    completed = complete.complete(request, checkpoint, helper)
    plan = planning.plan_render(hardware.detect(), completed, planning.MachineRequest(), Sizes.of(checkpoint, helper))
    task = songwriter_prompts.idea_task(request, (), SECONDS)
    task = replace(task, kept=None) if as_drawn else task
    sampling = songwriter_prompts.Sampling.of(request)
    return Pipeline(checkpoint, plan, helper).write(completed, task, sampling, seed, quiet, quiet)


def quiet(*_: object) -> None:
    """Hears reports and remarks, and keeps them to itself."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="draws of each idea")
    parser.add_argument("--captions", action="store_true", help="print every caption, too")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for idea in ideas():
        for seed in range(asked.seeds):
            drawn, whole = (str(write(idea.idea, seed, as_drawn=as_drawn)["caption"]) for as_drawn in (True, False))
            if asked.captions:
                print(f"{idea.idea}\n    {drawn}\n    {whole}", flush=True)
            for (kind, _, before), (_, _, after) in zip(idea.kept(drawn), idea.kept(whole), strict=True):
                kept[kind if idea.language == "en" else "all words of ideas in other languages"].append((before, after))
    print("| words | as drawn | as written | n |\n|---|---|---|---|")
    for kind, pairs in kept.items():
        before, after = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
        print(f"| {kind} | {before:.2f} | {after:.2f} | {len(pairs)} |")


if __name__ == "__main__":
    main()
