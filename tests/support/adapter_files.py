"""Adapters of random weights, written by hand in each of the published namings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from acestep_cli.models.configs import DiTConfig

DIFFUSERS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "o_proj": "to_out.0"}
Pairs = Mapping[str, tuple[Tensor, Tensor]]


def attention_targets(config: Mapping[str, Any]) -> list[str]:
    """What trainers adapt unless told otherwise: q, k, v and o of both attentions."""
    return [
        f"layers.{layer}.{attention}.{name}"
        for layer in range(config["num_hidden_layers"])
        for attention in ("self_attn", "cross_attn")
        for name in DIFFUSERS
    ]


def pairs(
    config: Mapping[str, Any], rank: int = 4, seed: int = 0, size: float = 0.2, targets: Iterable[str] = ()
) -> Pairs:
    """By target down [r, in] and up [out, r], whose product changes the weights by about `size` of theirs."""
    shapes = DiTConfig.from_dict(config).decoder_matrices
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for target in targets or attention_targets(config):
        wide, narrow = shapes[target]
        down = torch.randn(rank, narrow, generator=generator) * narrow**-0.5
        made[target] = down, torch.randn(wide, rank, generator=generator) * size * rank**-0.5
    return made


def save(file: Path, tensors: Mapping[str, Tensor], **notes: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file, metadata=notes or None)
    return file


def peft(folder: Path, weights: Pairs, alpha: Any = 8, notes: Mapping[str, str] | None = None, **config: Any) -> Path:
    tensors = {}
    for target, (down, up) in weights.items():
        tensors |= {f"base_model.model.{target}.lora_{name}.weight": t for name, t in (("A", down), ("B", up))}
    save(folder / "adapter_model.safetensors", tensors, **(notes or {}))
    rank = next(iter(weights.values()))[0].shape[0]
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "base_model_name_or_path": "turbo", **config}
    (folder / "adapter_config.json").write_text(json.dumps(said))
    return folder


def comfyui(file: Path, weights: Pairs, alpha: float = 8) -> Path:
    tensors = {}
    for target, (down, up) in weights.items():
        tensors |= {f"diffusion_model.{target}.lora_A.weight": down, f"diffusion_model.{target}.lora_B.weight": up}
        tensors[f"diffusion_model.{target}.alpha"] = torch.tensor(float(alpha))
    return save(file, tensors)


def comfyui_down_up(file: Path, weights: Pairs, alpha: float = 8) -> Path:
    tensors = {}
    for target, (down, up) in weights.items():
        name = f"diffusion_model.decoder.{target}"
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=torch.bfloat16)
    return save(file, tensors)


def diffusers(file: Path, weights: Pairs, alpha: float = 8) -> Path:
    tensors = {}
    for target, (down, up) in weights.items():
        owner, _, name = target.rpartition(".")
        theirs = f"transformer.{owner}.{DIFFUSERS[name]}"
        tensors |= {f"{theirs}.lora_A.weight": down, f"{theirs}.lora_B.weight": up}
    said = {"transformer.lora_alpha": alpha, "transformer.r": 4}
    return save(file, tensors, lora_adapter_metadata=json.dumps(said))


def kohya(file: Path, weights: Pairs, alpha: float = 8) -> Path:
    tensors = {}
    for target, (down, up) in weights.items():
        name = f"lora_unet_{target.replace('.', '_')}"
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors[f"{name}.alpha"] = torch.tensor(float(alpha), dtype=torch.float16)
    return save(file, tensors)


WRITERS = {
    "PEFT": peft,
    "ComfyUI": comfyui,
    "ComfyUI, down and up": comfyui_down_up,
    "diffusers": diffusers,
    "kohya": kohya,
}
