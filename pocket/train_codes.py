"""Train the audio tokenizer and detokenizer: latents <-> five codes a second.

    python pocket/train_codes.py --minutes 10

They stand alone: a code is read from five frames and becomes five frames, whatever lies around them. The DiT and the
Songwriter are trained on finished codes. Saves `pocket/work/codes.pt` at the end, prints how much of the latents the
codes keep and how many of them are in use, and starts again from the file where there is one.

Shapes: G groups of five frames, C latent channels.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import sitting
import torch
from encode import FOLDER, Heard
from torch.nn import functional as F
from train_dit import CONFIG
from train_vae import WORK

from acestep_cli.engine.dit import AceStep
from acestep_cli.models.configs import DiTConfig

CHECKPOINT = WORK / "codes.pt"
PARTS = ("tokenizer", "detokenizer")
WINDOW = CONFIG["pool_window_size"]
GROUPS, RATE = 1024, 2e-3


def groups() -> torch.Tensor:
    """Every group of five frames in the corpus as a code would stand for it, [G, 5, C] float16."""
    found = []
    for path in sorted(FOLDER.glob("*.pt")):
        for song in torch.load(path, weights_only=True).values():
            heard = Heard(*song)
            found += [
                latents[: len(latents) // WINDOW * WINDOW].unflatten(0, (-1, WINDOW))
                for latents in (heard.mix, *heard.stems.values())
            ]
    return torch.cat(found)


def finished() -> AceStep:
    """A DiT whose tokenizer and detokenizer are the trained ones; the rest of it is random."""
    whole = AceStep(DiTConfig.from_dict(CONFIG)).eval()
    for name, weights in torch.load(CHECKPOINT, weights_only=True).items():
        whole.get_parameter(name).data.copy_(weights)
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    whole = AceStep(DiTConfig.from_dict(CONFIG))
    model = torch.nn.ModuleDict({part: getattr(whole, part) for part in PARTS})
    if CHECKPOINT.exists():
        model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    else:
        for name, parameter in model.named_parameters():
            if "special_token" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.0)
    data = groups()
    print(f"{len(data)} groups", flush=True)
    began, step, shown, used = time.monotonic(), 0, [], set()
    while (spent := (time.monotonic() - began) / (60 * asked.minutes)) < 1:
        batch = data[torch.randint(len(data), (GROUPS,))].float()
        with torch.autocast("cpu", torch.bfloat16):
            quantised, codes = model["tokenizer"](batch.flatten(0, 1)[None])
            back = model["detokenizer"](quantised).float().view_as(batch)
        loss = F.mse_loss(back, batch)
        optimizer.param_groups[0]["lr"] = RATE * sitting.rate(step, spent, release=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        shown.append(loss.item() / batch.var().item())
        used |= set(codes.flatten().tolist())
        if len(shown) == 200:
            print(f"{step} {spent:.0%}  explained {1 - np.mean(shown):.1%}  codes in use {len(used)}", flush=True)
            shown, used = [], set()
    torch.save(model.state_dict(), CHECKPOINT)


if __name__ == "__main__":
    main()
