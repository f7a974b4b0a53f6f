"""Write what was trained as a checkpoint in the published layout, in bfloat16.

    python pocket/export.py

Reads `vae.pt`, `dit.pt`, `songwriter.pt` and `silence.pt` in `pocket/work/`; writes `src/acestep_cli/models/pocket/`,
or the folder given with `--to`, and prints the size of every file. DiT and Songwriter are their releases where they
have had one, or else their moving averages over training steps.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import sitting
import tokenizer
import torch
import train_dit
import train_songwriter
import train_vae
from safetensors.torch import save_file
from torch import Tensor

HOME = Path(__file__).parent.parent / "src/acestep_cli/models/pocket"
MOST_BYTES, MOST_BYTES_OF_A_FILE = 32e6, 15e6


def write(folder: Path, config: dict, tensors: dict[str, Tensor], name: str = "model") -> None:
    """Config and weights of one component; weights over the limit of a file are cut into shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {k: v.to(torch.bfloat16).contiguous() for k, v in sorted(tensors.items())}
    total = sum(v.nbytes for v in tensors.values())
    count = int(total // (0.9 * MOST_BYTES_OF_A_FILE)) + 1
    shards: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key, tensor in tensors.items():
        if filled > total / count:
            shards.append({})
            filled = 0
        shards[-1][key] = tensor
        filled += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / f"{name}.safetensors", {"format": "pt"})
        return
    where = {}
    for number, shard in enumerate(shards, start=1):
        file = f"{name}-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        where |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def unfolded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each convolution's weight as the published pair: v the weight itself, g its norm per first dimension."""
    out = {}
    for key, tensor in tensors.items():
        if key.endswith(".weight"):
            out[f"{key}_v"] = tensor
            # The norm of what is stored, so that rounding v does not rescale it.
            out[f"{key}_g"] = tensor.bfloat16().float().flatten(1).norm(dim=1).view(-1, 1, 1)
        else:
            out[key] = tensor
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HOME)
    home = parser.parse_args().to

    vae = torch.load(train_vae.CHECKPOINT, weights_only=True)["vae"]
    config = {"_class_name": "AutoencoderOobleck", **asdict(train_vae.CONFIG)}
    write(home / "vae", config, unfolded(vae), "diffusion_pytorch_model")

    average = train_dit.finished()
    parts = {part: {k.removeprefix(f"{part}."): v for k, v in average.items() if k.startswith(f"{part}.")}
             for part in ("dit", "text")}  # fmt: skip
    write(home / "acestep-v15-pocket", train_dit.CONFIG, parts["dit"])
    silence = torch.load(train_vae.WORK / "silence.pt", weights_only=True)
    torch.save(silence, home / "acestep-v15-pocket/silence_latent.pt")

    tokens = tokenizer.trained()
    end = tokens.token_to_id(tokenizer.prompts.END_OF_TEXT)
    config = {**train_dit.TEXT_CONFIG, "vocab_size": tokens.get_vocab_size(), "eos_token_id": end, "pad_token_id": end}
    write(home / "Qwen3-Embedding-pocket", config, parts["text"])
    tokenizer.save(tokens, home / "Qwen3-Embedding-pocket")

    if train_songwriter.CHECKPOINT.exists():  # the others do without it
        student = sitting.finished(train_songwriter.CHECKPOINT)
        songwriter = {k.removeprefix("model."): v for k, v in student.items() if k.startswith("model.")}
        size = train_songwriter.first_code() + train_songwriter.CODES
        write(home / "acestep-5Hz-lm-pocket", {**train_songwriter.CONFIG, "vocab_size": size}, songwriter)
        file = home / "acestep-5Hz-lm-pocket/tokenizer.json"
        file.write_text(train_songwriter.file_content(), encoding="utf-8")

    sizes = {path: path.stat().st_size for path in sorted(home.rglob("*")) if path.is_file()}
    for path, size in sizes.items():
        print(f"{size:>10,}  {path.relative_to(home)}")
    print(f"{sum(sizes.values()):>10,}  in all")
    if sum(sizes.values()) > MOST_BYTES or max(sizes.values()) > MOST_BYTES_OF_A_FILE:
        raise SystemExit(f"over the limit of {MOST_BYTES:.0f} bytes in all or {MOST_BYTES_OF_A_FILE:.0f} in a file")


if __name__ == "__main__":
    main()
