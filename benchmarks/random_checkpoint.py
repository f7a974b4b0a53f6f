"""Whole models folders in the published layout, of any size, with random weights that keep activations near one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from published import VAE, fill
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import Qwen3Config, Qwen3Model

from acestep_cli.engine.dit import AceStep
from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.models.configs import DiTConfig, VAEConfig
from acestep_cli.song.prompts import END_OF_TEXT

SILENCE_FRAMES = 1500
TEXT = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_669,
}


def write(
    root: Path,
    dit: dict[str, Any],
    vae: dict[str, Any] = VAE,
    text: dict[str, Any] = TEXT,
    *,
    folder: str = "acestep-v15-turbo",
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Write a DiT folder, `vae/` and the text encoder below `root`, each with its config."""
    with torch.device("meta"):
        model, autoencoder = AceStep(DiTConfig.from_dict(dit)), OobleckVAE(VAEConfig.from_dict(vae))
        encoder = Qwen3Model(Qwen3Config(**text))
    save(root / folder, "model.safetensors", model, dit, dtype)
    torch.save(torch.randn(1, dit["audio_acoustic_hidden_dim"], SILENCE_FRAMES), root / folder / "silence_latent.pt")
    save(root / "vae", "diffusion_pytorch_model.safetensors", autoencoder, vae, dtype)
    words = root / "Qwen3-Embedding-0.6B"
    save(words, "model.safetensors", encoder, {**text, "model_type": "qwen3"}, dtype)
    tokenizer().save(str(words / "tokenizer.json"))
    return root


def save(folder: Path, name: str, module: nn.Module, config: dict[str, Any], dtype: torch.dtype) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {name: weight.to(dtype) for name, weight in fill(module).state_dict().items()}
    save_file(weights, folder / name, metadata={"format": "pt"})


def tokenizer() -> Tokenizer:
    """One token for each byte, and the closing one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(
        models.BPE(vocab={letter: place for place, letter in enumerate([*alphabet, END_OF_TEXT])}, merges=[])
    )
    made.add_special_tokens([END_OF_TEXT])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    end = (END_OF_TEXT, len(alphabet))
    made.post_processor = processors.TemplateProcessing(single=f"$A {END_OF_TEXT}", special_tokens=[end])
    return made
