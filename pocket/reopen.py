"""Take up training where the shipped checkpoint ended: the opposite of `export.py`.

    python pocket/reopen.py

Writes what `src/acestep_cli/models/pocket/` holds as the files of `pocket/work/` that training goes on from; those that
exist are left alone. Optimizers start anew, and weights come back as bfloat16 has kept them.
"""

from __future__ import annotations

import json

import export
import tokenizer
import torch
import train_codes
import train_dit
import train_songwriter
import train_vae
from safetensors.torch import load_file
from torch import Tensor, nn
from train_vae import WORK


def weights(name: str) -> dict[str, Tensor]:
    """All tensors of a component, float32, weight norm folded."""
    shards = [load_file(path) for path in sorted((export.HOME / name).glob("*.safetensors"))]
    found = {key: tensor.float() for shard in shards for key, tensor in shard.items()}
    for key in [key for key in found if key.endswith(".weight_g")]:
        scale, direction = found.pop(key), found.pop(f"{key[:-1]}v")
        found[key[:-2]] = scale * direction / direction.flatten(1).norm(dim=1).clamp_min(1e-9).view(-1, 1, 1)
    return found


def named(**parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of modules as those of the module that they are parts of."""
    return {f"{part}.{key}": tensor for part, tensors in parts.items() for key, tensor in tensors.items()}


def begun(model: nn.Module) -> dict[str, object]:
    """What `sitting.sit` goes on from."""
    return {"model": model.state_dict(), "average": model.state_dict(), "step": 0}


def require(name: str, config: dict) -> None:
    """Stop where a shipped component was made with another config than the recipe has now."""
    shipped = json.loads((export.HOME / name / "config.json").read_text())
    if other := [key for key in config if shipped.get(key) != config[key]]:
        raise SystemExit(f"{name} was trained with another {', '.join(other)}; its weights mean nothing here.")


def main() -> None:
    WORK.mkdir(exist_ok=True)
    require("acestep-v15-pocket", train_dit.CONFIG)
    require("Qwen3-Embedding-pocket", train_dit.TEXT_CONFIG)
    require("acestep-5Hz-lm-pocket", train_songwriter.CONFIG)
    if not tokenizer.FILE.exists():
        tokenizer.FILE.write_bytes((export.HOME / "Qwen3-Embedding-pocket/tokenizer.json").read_bytes())
    silence = torch.load(export.HOME / "acestep-v15-pocket/silence_latent.pt", weights_only=True).float()
    dit, text = weights("acestep-v15-pocket"), weights("Qwen3-Embedding-pocket")
    model, student = train_dit.Pocket(tokenizer.trained(), silence.transpose(1, 2)), train_songwriter.Student()
    new = [
        *model.load_state_dict(named(dit=dit, text=text), strict=False).missing_keys,
        *student.load_state_dict(named(model=weights("acestep-5Hz-lm-pocket")), strict=False).missing_keys,
    ]
    print("not in the shipped weights:", *new)
    for path, content in (
        (WORK / "silence.pt", silence.half()),
        (train_vae.CHECKPOINT, {"vae": weights("vae")}),
        (train_codes.CHECKPOINT, {key: tensor for key, tensor in dit.items() if key.startswith(train_codes.PARTS)}),
        (train_dit.CHECKPOINT, begun(model)),
        (train_songwriter.CHECKPOINT, begun(student)),
    ):
        if not path.exists():
            torch.save(content, path)
            print(path.name)


if __name__ == "__main__":
    main()
