"""Put new codes into weights that were trained with others, so that their training goes on instead of anew.

    python pocket/recode.py --before OLD/codes.pt

`pocket/work/codes.pt` was trained since; `dit.pt` and `songwriter.pt` there go on from their releases, where they have
had some, and those, which know the old codes, are set aside as `.before`. The DiT is given the new tokenizer and
detokenizer. The Songwriter's embedding of a code is what the old ones of like meaning were: a ridge regression from the
latents that a code stands for to the embeddings that were trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sitting
import torch
import train_codes
import train_dit
import train_songwriter
from torch import Tensor

RIDGE = 1e-2  # of the latents' variance
EMBEDDINGS = "model.embed_tokens.weight"


def meanings(codes: Path) -> Tensor:
    """What each code stands for: latents [K, 5 * C], and a one."""
    every = torch.arange(train_songwriter.CODES)[None]
    with torch.inference_mode():
        spelt = train_codes.finished(codes).latents_from_codes(every)[0].view(train_songwriter.CODES, -1)
    return torch.cat([spelt, torch.ones(len(spelt), 1)], dim=1)


def carried(before: Tensor, after: Tensor, embeddings: Tensor) -> Tensor:
    """Embeddings [K, E] of codes that meant `before` as those of codes that mean `after` [K, 5 * C + 1]."""
    ridge = RIDGE * before.square().mean() * len(before) * torch.eye(before.shape[1])
    return after @ torch.linalg.solve(before.T @ before + ridge, before.T @ embeddings)


def state(file: Path) -> dict[str, object]:
    """A training to go on with: from its release, if it has had one."""
    release = sitting.released(file)
    found = torch.load(release if release.exists() else file, weights_only=True)
    return {**found, "model": found["average"]}


def set_aside(file: Path) -> None:
    """The release of a training, so that nothing takes it for the weights to be used."""
    release = sitting.released(file)
    if release.exists():
        release.replace(release.with_suffix(".before"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the codes that both were trained with")
    before, new = parser.parse_args().before, train_codes.CHECKPOINT
    dit = state(train_dit.CHECKPOINT)
    for name, weights in torch.load(new, weights_only=True).items():
        dit["average"][f"dit.{name}"] = weights
    sitting.save(dit, train_dit.CHECKPOINT)
    songwriter = state(train_songwriter.CHECKPOINT)
    table, first = songwriter["average"][EMBEDDINGS], train_songwriter.first_code()
    of_codes = slice(first, first + train_songwriter.CODES)
    old, meant = meanings(before), meanings(new)
    lost = carried(old, old, table[of_codes]) - table[of_codes]
    print(f"of the embeddings of codes, their meaning explains {1 - lost.var() / table[of_codes].var():.0%}")
    table[of_codes] = carried(old, meant, table[of_codes])
    sitting.save(songwriter, train_songwriter.CHECKPOINT)
    for file in (train_dit.CHECKPOINT, train_dit.DISTILLED, train_songwriter.CHECKPOINT):
        set_aside(file)


if __name__ == "__main__":
    main()
