"""Encoding and decoding in tiles that equal the whole, and silence.

A tile is widened on both sides by the network's receptive field, so each frame that is kept equals that of one piece;
the rest is dropped. Source: docs/specification.md, 2.8 Silence latent and 3.4 Tiles.

Shapes: A audio channels, N samples, C latent channels, T latent frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.models.configs import decoder_reach, encoder_reach
from acestep_cli.progress import Progress


def decode_latents(vae: OobleckVAE, latents: Tensor, tile_frames: int, progress: Progress) -> Tensor:
    """Decode latents [T, C] to a waveform [A, T * hop], float32 on the CPU.

    Beyond that waveform, memory depends on `tile_frames` and not on T.
    """
    hop, reach, frames = vae.config.hop, decoder_reach(vae.config), latents.shape[0]
    weight = vae.decoder.conv1.weight
    waveform = torch.empty(vae.config.audio_channels, frames * hop)
    for start in range(0, frames, tile_frames):
        progress(start, frames)
        end = min(start + tile_frames, frames)
        left, right = max(start - reach, 0), min(end + reach, frames)
        tile = latents[left:right].T[None].to(weight.device, weight.dtype)
        waveform[:, start * hop : end * hop] = vae.decode(tile)[0, :, (start - left) * hop : (end - left) * hop]
    progress(frames, frames)
    return waveform


def encode_waveform(vae: OobleckVAE, waveform: Tensor, tile_frames: int, progress: Progress) -> Tensor:
    """Encode a waveform [A, N] to mean latents [N // hop, C], float32 on the CPU."""
    hop, reach, frames = vae.config.hop, encoder_reach(vae.config), waveform.shape[1] // vae.config.hop
    weight = vae.encoder.conv1.weight
    latents = torch.empty(frames, vae.config.decoder_input_channels)
    for start in range(0, frames, tile_frames):
        progress(start, frames)
        end = min(start + tile_frames, frames)
        left, right = max(start - reach, 0), min(end + reach, frames)
        # The last tile keeps the samples after the last whole hop: the encoder reads them too.
        stop = right * hop if right < frames else waveform.shape[1]
        tile = waveform[None, :, left * hop : stop].to(weight.device, weight.dtype)
        latents[start:end] = vae.encode(tile)[0].T[start - left : end - left]
    progress(frames, frames)
    return latents


def repeat_silence(silence: Tensor, frames: int) -> Tensor:
    """Return the first `frames` of the silence latent [1, F, C], repeated where more are needed."""
    repeats = -(-frames // silence.shape[1])
    return silence.repeat(1, repeats, 1)[:, :frames]
