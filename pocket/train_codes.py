"""Train the audio tokenizer and detokenizer: latents <-> five codes a second.

    python pocket/train_codes.py --minutes 15
    python pocket/train_codes.py --minutes 0 --held-out 24

They stand alone: a code is read from five frames and becomes five frames, whatever lies around them. The DiT and the
Songwriter are trained on finished codes. A self-organising map (Kohonen, 1982) first gives every code its five frames,
such that codes one level apart sound alike; in the first part of a training the networks learn the map, the detokenizer
its entries and the tokenizer where in it a recording lies, and from there on both together. Recordings are read with
their rooms and without (`encode.py --wet`), and become what they are without. Saves `pocket/work/codes.pt` at the end,
prints how much of the latents' variance the codes hold and how many of them are in use, and goes on from the file, both
together, where there is one. `--held-out` measures them on so many songs that were never trained on.

Shapes: G groups of five frames, C latent channels, K codes, D digits of a code.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import band
import corpus
import numpy as np
import sitting
import torch
from encode import FOLDER, TILE_FRAMES, WET_FOLDER, Heard, trained_vae
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from train_dit import CONFIG
from train_vae import WORK

from acestep_cli.engine import codec
from acestep_cli.engine.dit import AceStep
from acestep_cli.models.configs import DiTConfig

CHECKPOINT = WORK / "codes.pt"
PARTS = ("tokenizer", "detokenizer")
WINDOW = CONFIG["pool_window_size"]
LEVELS = CONFIG["fsq_input_levels"]
GROUPS = 512  # in a batch
MUON_RATE, ADAM_RATE = 4e-3, 2e-3
LEARNING_THE_MAP = 0.4  # of the first training
PLACE_WEIGHT = 0.3  # of the tokenizer's place in the map, once both are trained together
# Of the map: how far entries draw their neighbours along at first and at last, in levels, over so many rounds, of which
# all but the last few hear a part of the groups.
WIDEST, NARROWEST, ROUNDS, WHOLE_ROUNDS, PART = 2.0, 0.22, 30, 8, 40_000


def grouped(latents: Tensor) -> Tensor:
    """The whole groups of a recording [T, C] as codes stand for them, [G, 5, C]."""
    return latents[: len(latents) // WINDOW * WINDOW].unflatten(0, (-1, WINDOW))


def groups() -> tuple[Tensor, Tensor]:
    """What is read and what it is to become [G, 5, C] float16: all mixes and covers, dry and as they are in rooms."""
    read, wanted = [], []
    for folder in (FOLDER, WET_FOLDER):
        for path in sorted(folder.glob("*.pt")):
            dry = torch.load(FOLDER / path.name, weights_only=True)
            for seed, song in torch.load(path, weights_only=True).items():
                heard, own = Heard(*song), Heard(*dry[seed])
                for latents, target in ((heard.mix, own.mix), (heard.cover, own.cover)):
                    if latents is not None:
                        read.append(grouped(latents))
                        wanted.append(grouped(target))
    return torch.cat(read), torch.cat(wanted)


def digits(codes: Tensor) -> Tensor:
    """Of codes [G] on [-1, 1], as the quantiser has them: [G, D]."""
    levels = torch.tensor(LEVELS)
    return 2 * (codes[:, None] // (levels.cumprod(0) // levels) % levels) / (levels - 1) - 1


def nearest(entries: Tensor, found: Tensor) -> Tensor:
    """The codes [G] whose entries [K, 5 * C] are nearest to groups [G, 5 * C]."""
    lengths = entries.square().sum(1)
    return torch.cat([torch.addmm(lengths, part, entries.T, alpha=-2).argmin(1) for part in found.split(4096)])


def shared(table: Tensor, width: float) -> Tensor:
    """Each row of a table [K, n] and its neighbours' along every digit, by a bell curve so many levels wide."""
    spread = table.view(*reversed(LEVELS), -1)  # the first digit of a code counts least
    for axis, levels in enumerate(reversed(LEVELS)):
        apart = torch.arange(levels)[:, None] - torch.arange(levels)
        bell = torch.exp(-apart.square() / (2 * width**2))
        spread = torch.tensordot(bell, spread, dims=([1], [axis])).movedim(0, axis)
    return spread.reshape(table.shape)


def mapped(found: Tensor) -> Tensor:
    """A map of groups [G, 5 * C]: the entry of every code [K, 5 * C]. It begins as a plane of their main directions."""
    sample = found[torch.randperm(len(found))[:20_000]]
    middle = sample.mean(0)
    _, sizes, directions = torch.pca_lowrank(sample - middle, len(LEVELS), niter=3)
    codes = math.prod(LEVELS)
    entries = middle + 1.5 * digits(torch.arange(codes)) * sizes / len(sample) ** 0.5 @ directions.T
    for k in range(ROUNDS):
        width = WIDEST * (NARROWEST / WIDEST) ** (k / (ROUNDS - 1))
        heard = found if k >= ROUNDS - WHOLE_ROUNDS else found[torch.randperm(len(found))[:PART]]
        chosen = nearest(entries, heard)
        sums = torch.zeros_like(entries).index_add_(0, chosen, heard)
        counts = torch.zeros(codes, 1).index_add_(0, chosen, torch.ones(len(heard), 1))
        entries = shared(sums, width) / shared(counts, width).clamp_min(1e-9)
    return entries


def finished(file: Path = CHECKPOINT) -> AceStep:
    """A DiT whose tokenizer and detokenizer are the trained ones; the rest of it is random."""
    whole = AceStep(DiTConfig.from_dict(CONFIG)).eval()
    for name, weights in torch.load(file, weights_only=True).items():
        whole.get_parameter(name).data.copy_(weights)
    return whole


def held_of(songs: int, file: Path) -> tuple[float, float]:
    """The share of the variance of held-out songs' dry latents that codes hold, read from them and from the mix."""
    reader, vae = finished(file), trained_vae()
    lost: list[list[float]] = [[], []]
    for piece in (corpus.song(corpus.HELD_OUT + number) for number in range(songs)):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            dry, wet = (
                grouped(codec.encode_waveform(vae, torch.from_numpy(band.render(piece, dry=dry)), TILE_FRAMES, quiet))
                for dry in (True, False)
            )
        for errors, read in zip(lost, (dry, wet), strict=True):
            with torch.inference_mode():
                _, codes = reader.tokenizer(read.flatten(0, 1)[None].float())
                back = reader.latents_from_codes(codes)[0].view_as(dry)
            errors.append(F.mse_loss(back, dry.float()).item() / dry.float().var().item())
    return 1 - float(np.mean(lost[0])), 1 - float(np.mean(lost[1]))


def quiet(*_: object) -> None:
    """Hears of progress, and keeps it to itself."""


def started(model: torch.nn.ModuleDict) -> None:
    """Weights from which many levels are told apart."""
    for name, parameter in model.named_parameters():
        if "special_token" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        model["tokenizer"].quantizer.project_out.weight.mul_(4)


def read_in(model: torch.nn.ModuleDict, found: Tensor) -> tuple[Tensor, Tensor]:
    """The digits on [-1, 1] (straight-through) [G, D] and the codes [G] of groups [G, 5, C]."""
    tokenizer = model["tokenizer"]
    return tokenizer.quantizer.quantize(tokenizer.attention_pooler(tokenizer.audio_acoustic_proj(found)))


def optimizers(model: torch.nn.ModuleDict) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices, AdamW for the rest and the quantiser, and their highest rates."""
    muon = [p for name, p in model.named_parameters() if p.dim() == 2 and "quantizer" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "quantizer" in name]
    return [
        (torch.optim.Muon(muon, MUON_RATE, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"), MUON_RATE),
        (torch.optim.AdamW(others, ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0), ADAM_RATE),
    ]


def train(minutes: float) -> None:
    """Learn the map first, where nothing was trained yet, and then reading and writing together."""
    whole = AceStep(DiTConfig.from_dict(CONFIG))
    model = torch.nn.ModuleDict({part: getattr(whole, part) for part in PARTS})
    apart = 0.0 if CHECKPOINT.exists() else LEARNING_THE_MAP
    if CHECKPOINT.exists():
        model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    else:
        started(model)
    read, wanted = groups()
    flat = wanted.flatten(1).float()
    entries = mapped(flat)
    codes = nearest(entries, flat)
    of_map = 1 - F.mse_loss(entries[codes], flat).item() / flat.var().item()
    print(f"{len(read)} groups, of which the map holds {of_map:.1%}", flush=True)
    taken = optimizers(model)
    began, step, shown, used = time.monotonic(), 0, [], set()
    while (spent := (time.monotonic() - began) / (60 * minutes)) < 1:
        chosen = torch.randint(len(read), (GROUPS,))
        target, place = wanted[chosen].float(), digits(codes[chosen])
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            values, told = read_in(model, read[chosen].float())
            written = place if spent < apart else values
            back = model["detokenizer"](model["tokenizer"].quantizer.expand_digits(written)[None]).float()
        held = F.mse_loss(back.view_as(target), target)
        misplaced = F.mse_loss(values, place)
        (held + (1 if spent < apart else PLACE_WEIGHT) * misplaced).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in taken:
            optimizer.param_groups[0]["lr"] = peak * sitting.rate(step, spent, release=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        shown.append(held.item() / target.var().item())
        used |= set(told.tolist())
        if len(shown) == 200:
            print(f"{step} {spent:.0%}  explained {1 - np.mean(shown):.1%}  misplaced by {misplaced.item():.3f}  "
                  f"codes in use {len(used)}", flush=True)  # fmt: skip
            shown, used = [], set()
    torch.save(model.state_dict(), CHECKPOINT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--held-out", type=int, default=0, help="songs to measure the codes on")
    parser.add_argument("--codes", type=Path, default=CHECKPOINT, help="others to measure")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    if asked.minutes:
        train(asked.minutes)
    if asked.held_out:
        from_dry, from_mix = held_of(asked.held_out, asked.codes)
        print(f"of held-out songs codes hold {from_dry:.1%} from dry recordings, {from_mix:.1%} from mixes")


if __name__ == "__main__":
    main()
