"""The Oobleck autoencoder, between 48 kHz stereo waveforms and latents at 25 frames per second.

Source: Evans et al., "Stable Audio Open", arXiv 2407.14358 (the Oobleck design); tensor names and sizes as in
docs/specification.md, 2.4 Autoencoder config and 3 Autoencoder. Weight norm is folded into plain convolutions at load.

At 48 kHz passes over memory cost as much as arithmetic. On processors, where no gradient is wanted, activations
therefore lie channels last, in which oneDNN's convolutions of few channels are faster, and the blocks at high rates go
through in chunks that stay in the cache (`benchmarks/vae_decode.py`).

Shapes: B batch, A audio channels, N samples, C latent channels, T latent frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acestep_cli.engine.onednn import has_kernels
from acestep_cli.models.configs import RESIDUAL_DILATIONS, RESIDUAL_KERNEL, RESIDUAL_REACH, VAEConfig

#: Samples, at the rate of a block's residual units, that go through it at once: 4 MB of 128 channels in bfloat16. In
#: much shorter chunks their edges, which are computed twice, would cost more than the cache saves.
CHUNK_SAMPLES = 16_384


def arrange(x: Tensor) -> Tensor:
    """Return x [B, C, N] with its channels side by side in memory where convolutions are faster so, else contiguous."""
    if has_kernels(x.device, x.dtype) and not torch.is_grad_enabled():
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    return x.contiguous()


def is_channels_last(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.shape[1] > 1 and x.stride(1) == 1


def in_chunks(layers: Callable[[Tensor], Tensor], x: Tensor, chunk: int, reach: int, stride: int = 1) -> Tensor:
    """Apply layers to x [B, C, N] in chunks, so that the result [B, D, N * stride] is that of one piece.

    Each chunk is widened on both sides by the `reach` of the layers, in places of x.
    """
    length = x.shape[-1]
    if length <= chunk or x.device.type != "cpu" or torch.is_grad_enabled():
        return layers(x)
    whole = x
    for start in range(0, length, chunk):
        end, left = min(start + chunk, length), max(start - reach, 0)
        piece = layers(x[..., left : min(end + reach, length)])
        if start == 0:
            batch, channels, _ = piece.shape
            whole = (
                piece.new_empty(batch, length * stride, channels).transpose(1, 2)
                if is_channels_last(piece)
                else piece.new_empty(batch, channels, length * stride)
            )
        whole[..., start * stride : end * stride] = piece[..., (start - left) * stride : (end - left) * stride]
    return whole


class Conv1d(nn.Conv1d):
    """A convolution over time. Channels-last memory is read as an image of one row: `conv1d` is slower with it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve with another weight of the same shape, such as one of another dtype."""
        if not is_channels_last(x):
            return F.conv1d(x, weight, self.bias, self.stride, self.padding, self.dilation)
        (stride,), padding, (dilation,) = self.stride, int(self.padding[0]), self.dilation
        image, kernel = x.unsqueeze(2), weight.unsqueeze(2)
        return F.conv2d(image, kernel, self.bias, (1, stride), (0, padding), (1, dilation)).squeeze(2)


class ConvTranspose1d(nn.ConvTranspose1d):
    """A transposed convolution over time, with channels-last memory as `Conv1d`."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not is_channels_last(x):
            return super().forward(x, output_size)
        (stride,), padding = self.stride, int(self.padding[0])
        image, weight = x.unsqueeze(2), self.weight.unsqueeze(2)
        return F.conv_transpose2d(image, weight, self.bias, (1, stride), (0, padding)).squeeze(2)


class Snake(nn.Module):
    """x + sin²(αx)/β with α and β stored as logarithms (arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        # sin²/β as the square of sin/√β: one temporary and one fused multiply-add.
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
        self.conv1 = Conv1d(channels, channels, RESIDUAL_KERNEL, dilation=dilation, padding=padding)
        self.snake2 = Snake(channels)
        self.conv2 = Conv1d(channels, channels, 1)

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
        self.conv1 = Conv1d(width_in, width_out, 2 * stride, stride=stride, padding=math.ceil(stride / 2))

    def forward(self, x: Tensor) -> Tensor:
        x = in_chunks(self.residual_units, x, CHUNK_SAMPLES, RESIDUAL_REACH)
        return self.conv1(self.snake1(x))

    def residual_units(self, x: Tensor) -> Tensor:
        return self.res_unit3(self.res_unit2(self.res_unit1(x)))


class DecoderBlock(nn.Module):
    """A strided transposed convolution up, then three residual units."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.snake1 = Snake(width_in)
        self.conv_t1 = ConvTranspose1d(width_in, width_out, 2 * stride, stride=stride, padding=math.ceil(stride / 2))
        self.res_unit1, self.res_unit2, self.res_unit3 = (
            ResidualUnit(width_out, dilation) for dilation in RESIDUAL_DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        reach = math.ceil(RESIDUAL_REACH / self.stride) + 1  # the transposed convolution reads a neighbour on each side
        return in_chunks(self.layers, x, max(CHUNK_SAMPLES // self.stride, 1), reach, self.stride)

    def layers(self, x: Tensor) -> Tensor:
        x = self.conv_t1(self.snake1(x))
        return self.res_unit3(self.res_unit2(self.res_unit1(x)))


class Encoder(nn.Module):
    """Waveform [B, A, N] -> mean and scale of the latents [B, 2C, N // hop]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.encoder_hidden_size * m for m in config.stage_widths]
        self.conv1 = Conv1d(config.audio_channels, widths[0], 7, padding=3)
        self.block = nn.ModuleList(
            EncoderBlock(narrow, wide, stride)
            for (narrow, wide), stride in zip(pairwise(widths), config.downsampling_ratios, strict=True)
        )
        self.snake1 = Snake(widths[-1])
        self.conv2 = Conv1d(widths[-1], config.encoder_hidden_size, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(arrange(x))
        for block in self.block:
            x = block(x)
        return self.conv2(self.snake1(x))


class Decoder(nn.Module):
    """Latents [B, C, T] -> waveform [B, A, T * hop]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.decoder_channels * m for m in reversed(config.stage_widths)]
        self.conv1 = Conv1d(config.decoder_input_channels, widths[0], 7, padding=3)
        self.block = nn.ModuleList(
            DecoderBlock(wide, narrow, stride)
            for (wide, narrow), stride in zip(pairwise(widths), reversed(config.downsampling_ratios), strict=True)
        )
        self.snake1 = Snake(widths[-1])
        self.conv2 = Conv1d(widths[-1], config.audio_channels, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(arrange(x))
        for block in self.block:
            x = block(x)
        return in_chunks(self.waveform, x, CHUNK_SAMPLES, int(self.conv2.padding[0]))

    def waveform(self, x: Tensor) -> Tensor:
        # The waveform itself never passes through a 16-bit float: that would be noise at -54 dB.
        return self.conv2.convolve(self.snake1(x).float(), self.conv2.weight.float())


class OobleckVAE(nn.Module):
    """The autoencoder under its published tensor names."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @torch.no_grad()
    def arrange_weights(self) -> None:
        """Lay out the weights of all convolutions as the activations, once instead of in each call."""
        for module in self.modules():
            if isinstance(module, Conv1d | ConvTranspose1d):
                module.weight.data = arrange(module.weight.data)

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
