"""The Oobleck autoencoder, between 48 kHz stereo waveforms and latents at 25 frames per second.

Source: Evans et al., "Stable Audio Open", arXiv 2407.14358 (the Oobleck design); tensor names and sizes as in
docs/specification.md, 2.4 Autoencoder config and 3 Autoencoder. Weight norm is folded into plain convolutions at load.

Shapes: B batch, A audio channels, N samples, C latent channels, T latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_cli.models.configs import RESIDUAL_DILATIONS, RESIDUAL_KERNEL, VAEConfig


class Snake(nn.Module):
    """x + sin²(αx)/β with α and β stored as logarithms (arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        # sin²/β as the square of sin/√β: one temporary and one fused multiply-add, which matters
        # because at 48 kHz these passes over memory cost as much as the convolutions.
        frequency, amplitude = self.alpha.exp(), (self.beta.exp() + 1e-9).rsqrt()
        wave = x * frequency
        wave = wave.sin() * amplitude if torch.is_grad_enabled() else wave.sin_().mul_(amplitude)
        return torch.addcmul(x, wave, wave)


class ResidualUnit(nn.Module):
    """Snake, dilated convolution, snake, 1x1 convolution, plus the input."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        padding = (RESIDUAL_KERNEL - 1) * dilation // 2
        self.snake1 = Snake(channels)
        self.conv1 = nn.Conv1d(channels, channels, RESIDUAL_KERNEL, dilation=dilation, padding=padding)
        self.snake2 = Snake(channels)
        self.conv2 = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.snake2(self.conv1(self.snake1(x))))
        return x + y if torch.is_grad_enabled() else y.add_(x)


class EncoderBlock(nn.Module):
    """Three residual units, then a strided convolution down."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.res_unit1, self.res_unit2, self.res_unit3 = (
            ResidualUnit(width_in, dilation) for dilation in RESIDUAL_DILATIONS
        )
        self.snake1 = Snake(width_in)
        self.conv1 = nn.Conv1d(width_in, width_out, 2 * stride, stride=stride, padding=math.ceil(stride / 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.res_unit3(self.res_unit2(self.res_unit1(x)))
        return self.conv1(self.snake1(x))


class DecoderBlock(nn.Module):
    """A strided transposed convolution up, then three residual units."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.snake1 = Snake(width_in)
        self.conv_t1 = nn.ConvTranspose1d(width_in, width_out, 2 * stride, stride=stride, padding=math.ceil(stride / 2))
        self.res_unit1, self.res_unit2, self.res_unit3 = (
            ResidualUnit(width_out, dilation) for dilation in RESIDUAL_DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_t1(self.snake1(x))
        return self.res_unit3(self.res_unit2(self.res_unit1(x)))


class Encoder(nn.Module):
    """Waveform [B, A, N] -> mean and scale of the latents [B, 2C, N // hop]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.encoder_hidden_size * m for m in config.stage_widths]
        self.conv1 = nn.Conv1d(config.audio_channels, widths[0], 7, padding=3)
        self.block = nn.ModuleList(
            EncoderBlock(narrow, wide, stride)
            for (narrow, wide), stride in zip(pairwise(widths), config.downsampling_ratios, strict=True)
        )
        self.snake1 = Snake(widths[-1])
        self.conv2 = nn.Conv1d(widths[-1], config.encoder_hidden_size, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.block:
            x = block(x)
        return self.conv2(self.snake1(x))


class Decoder(nn.Module):
    """Latents [B, C, T] -> waveform [B, A, T * hop]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.decoder_channels * m for m in reversed(config.stage_widths)]
        self.conv1 = nn.Conv1d(config.decoder_input_channels, widths[0], 7, padding=3)
        self.block = nn.ModuleList(
            DecoderBlock(wide, narrow, stride)
            for (wide, narrow), stride in zip(pairwise(widths), reversed(config.downsampling_ratios), strict=True)
        )
        self.snake1 = Snake(widths[-1])
        self.conv2 = nn.Conv1d(widths[-1], config.audio_channels, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for block in self.block:
            x = block(x)
        # The waveform itself never passes through a 16-bit float: that would be noise at -54 dB.
        return F.conv1d(self.snake1(x).float(), self.conv2.weight.float(), padding=self.conv2.padding)


class OobleckVAE(nn.Module):
    """The autoencoder under its published tensor names."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, waveform: Tensor) -> Tensor:
        """Encode a waveform [B, A, N] to mean latents [B, C, N // hop]; N is at least one hop."""
        return self.encoder(waveform).chunk(2, dim=1)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, C, T] to a waveform [B, A, T * hop], float32."""
        return self.decoder(latents)


WEIGHT_NORM_PAIRS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


def weight_sources(names: Iterable[str]) -> dict[str, tuple[str, str | None]]:
    """Map each plain weight to the names it is made of: (direction, gain), or (itself, None) without weight norm."""
    known = set(names)
    sources: dict[str, tuple[str, str | None]] = {name: (name, None) for name in sorted(known)}
    for gain_suffix, direction_suffix in WEIGHT_NORM_PAIRS:
        for gain in [name for name in sources if name.endswith(gain_suffix)]:
            stem = gain.removesuffix(gain_suffix)
            direction = stem + direction_suffix
            if direction in known:
                del sources[gain], sources[direction]
                sources[stem + ".weight"] = (direction, gain)
    return sources


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of each weight, with weight-norm pairs g, v folded into the plain weight g * v / ‖v‖.

    Reads both spellings: `weight_g`/`weight_v` and `parametrizations.weight.original0/1`. The norm
    runs over all but the first dimension, and the result stays float32: rounded to the dtype on disk again, it
    would be off by 2e-3. Weights are yielded one at a time, so that memory never holds two copies.
    """
    for name, (direction, gain) in weight_sources(tensors).items():
        weight = tensors[direction]
        if gain is not None:
            wide = weight.float()
            norm = wide.flatten(1).norm(dim=1).view(-1, *[1] * (wide.dim() - 1))
            norm = norm.clamp_min(torch.finfo(torch.float32).tiny)  # a row that was never trained is 0, not 0 / 0
            weight = tensors[gain].float() * wide / norm
        yield name, weight
