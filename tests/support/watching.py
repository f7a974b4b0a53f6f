"""What the denoising of a render is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from support import tiny


@dataclass
class Given:
    """What `denoise.denoise` was given, in the order of its calls, and what it made."""

    noise: list[Tensor] = field(default_factory=list)
    context: list[Tensor] = field(default_factory=list)
    schedule: list[tuple[float, ...]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)


@torch.inference_mode()
def coded(oracle: tiny.Oracle, latents: Tensor) -> Tensor:
    """The same by way of codes, by diffusers."""
    quantised, _ = oracle.tokenizer(latents.unflatten(1, (-1, oracle.config["pool_window_size"])))
    return oracle.detokenizer(quantised)
