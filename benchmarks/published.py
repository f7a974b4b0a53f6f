"""The published sizes of the 2B checkpoints and of the autoencoder, filled with random weights."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

FRAMES_PER_SECOND = 25
TWO_B: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "sliding_window": 128,
    "in_channels": 192,
    "audio_acoustic_hidden_dim": 64,
    "patch_size": 2,
    "text_hidden_dim": 1024,
    "timbre_hidden_dim": 64,
    "timbre_fix_frame": 750,
    "num_lyric_encoder_hidden_layers": 8,
    "num_timbre_encoder_hidden_layers": 4,
    "num_attention_pooler_hidden_layers": 2,
    "pool_window_size": 5,
    "fsq_dim": 2048,
    "fsq_input_levels": [8, 8, 8, 5, 5, 5],
    "fsq_input_num_quantizers": 1,
    "rope_theta": 1_000_000,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "is_turbo": True,
    "model_version": "turbo",
}
VAE: dict[str, Any] = {
    "encoder_hidden_size": 128,
    "downsampling_ratios": [2, 4, 4, 6, 10],
    "channel_multiples": [1, 2, 4, 8, 16],
    "decoder_channels": 128,
    "decoder_input_channels": 64,
    "audio_channels": 2,
    "sampling_rate": 48_000,
}

# How diffusers spells the published names.
DIFFUSERS_NAMES = {
    r"\bq_proj\b": "to_q",
    r"\bk_proj\b": "to_k",
    r"\bv_proj\b": "to_v",
    r"\bo_proj\b": "to_out.0",
    r"\bq_norm\b": "norm_q",
    r"\bk_norm\b": "norm_k",
    r"\bproj_in\.1\b": "proj_in_conv",
    r"\bproj_out\.1\b": "proj_out_conv",
}


def diffusers_name(name: str) -> str:
    for published, theirs in DIFFUSERS_NAMES.items():
        name = re.sub(published, theirs, name)
    return name


@torch.no_grad()
def fill(module: nn.Module) -> nn.Module:
    """Give a module built on the meta device random weights that keep activations near one."""
    module.to_empty(device="cpu")
    for name, weight in module.named_parameters():
        if weight.dim() > 1 and not name.endswith(("alpha", "beta", "table", "token", "tokens")):
            gain = 0.3 if "res_unit" in name else 1.0  # residual units in a row would else amplify even rounding
            weight.normal_(std=gain * weight[0].numel() ** -0.5)
        else:
            weight.fill_(1.0 if "norm" in name else 0.02)
    return module.eval().requires_grad_(False)
