"""The autoencoder's receptive field, on which exact tiling rests, and weight norm folded away at load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm as parametrized_weight_norm

from acestep_cli.engine import vae as vae_module
from acestep_cli.engine.vae import EncoderBlock, OobleckVAE, fold_weight_norm
from acestep_cli.models.configs import VAEConfig, decoder_reach, encoder_reach
from support import tiny
from support.diffusers_run import relative

NARROW = {
    "encoder_hidden_size": 8,
    "decoder_channels": 4,
    "decoder_input_channels": 4,
    "audio_channels": 2,
}
CONFIGS = {
    "published strides": {**NARROW, "downsampling_ratios": [2, 4, 4, 6, 10], "channel_multiples": [1, 2, 4, 4, 4]},
    "coarse strides first": {**NARROW, "downsampling_ratios": [12, 10, 4, 4], "channel_multiples": [1, 2, 2, 4]},
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def vae(request: pytest.FixtureRequest) -> OobleckVAE:
    """Random weights in float64, so that even the faintest influence is not rounded to none."""
    vae = OobleckVAE(VAEConfig.from_dict(CONFIGS[request.param])).double().eval().requires_grad_(False)
    tiny.scramble(vae, torch.Generator().manual_seed(0))
    return vae


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def influence(network: Callable[[Tensor], Tensor], x: Tensor, start: int, stop: int) -> tuple[int, int]:
    """First and last output place that moves when the input between start and stop does."""
    disturbed = x.clone()
    disturbed[..., start:stop] += 1
    moved = (network(disturbed) != network(x)).any(1)[0].nonzero()
    return int(moved.min()), int(moved.max())


def test_the_decoder_hears_no_further_than_its_reach(vae: OobleckVAE) -> None:
    reach, hop, middle = decoder_reach(vae.config), vae.config.hop, 20
    latents = randn(1, vae.config.decoder_input_channels, 2 * middle + 1)
    first, last = influence(vae.decode, latents, middle, middle + 1)
    assert (middle - reach) * hop <= first < (middle - reach + 2) * hop  # bounded, and not loosely
    assert (middle + reach - 1) * hop <= last < (middle + reach + 1) * hop


def test_the_encoder_hears_no_further_than_its_reach(vae: OobleckVAE) -> None:
    reach, hop, middle = encoder_reach(vae.config), vae.config.hop, 20
    waveform = randn(1, vae.config.audio_channels, (2 * middle + 1) * hop)
    first, last = influence(vae.encode, waveform, middle * hop, (middle + 1) * hop)
    assert middle - reach <= first < middle - reach + 2
    assert middle + reach - 1 <= last <= middle + reach


@pytest.mark.parametrize("frames", [1, 2, 17])
def test_a_frame_of_latents_is_one_hop_of_samples(vae: OobleckVAE, frames: int) -> None:
    config = vae.config
    waveform = randn(1, config.audio_channels, frames * config.hop + config.hop // 2)  # half a frame is dropped
    latents = vae.encode(waveform)
    assert latents.shape == (1, config.decoder_input_channels, frames)
    assert vae.decode(latents).shape == (1, config.audio_channels, frames * config.hop)


def test_sampling_and_training_paths_agree(vae: OobleckVAE) -> None:
    """Where no gradient is wanted, activations are overwritten in place: never the caller's own."""
    latents = randn(1, vae.config.decoder_input_channels, 6)
    untouched = latents.clone()
    with torch.no_grad():
        waveform = vae.decode(latents)
        encoded = vae.encode(waveform.double())
    assert torch.equal(latents, untouched)
    assert torch.equal(vae.decode(latents), waveform)
    assert torch.equal(vae.encode(waveform.double()), encoded)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_channels_last_chunks_give_what_one_piece_gives(
    config: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients nothing is laid out anew or cut up; without, chunks of 64 samples are, at every rate."""
    network = OobleckVAE(VAEConfig.from_dict(config)).eval()
    tiny.scramble(network, torch.Generator().manual_seed(0))
    network.to(dtype)
    latents = randn(2, network.config.decoder_input_channels, 23).to(dtype)
    waveform = randn(2, network.config.audio_channels, 7 * network.config.hop + 777).to(dtype)
    decoded, encoded = network.decode(latents).detach(), network.encode(waveform).detach()
    pieces = []
    residual_units = EncoderBlock.residual_units
    monkeypatch.setattr(
        EncoderBlock, "residual_units", lambda block, x: pieces.append(x.stride(1)) or residual_units(block, x)
    )
    monkeypatch.setattr(vae_module, "CHUNK_SAMPLES", 64)
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2  # 8 bits of a bfloat16 through up to 30 layers
    with torch.inference_mode():
        network.arrange_weights()
        assert relative(network.decode(latents), decoded) < tolerance
        assert relative(network.encode(waveform).float(), encoded.float()) < tolerance
    assert len(pieces) > 100
    assert set(pieces) == {1}


def convolutions() -> dict[str, nn.Module]:
    """Both kinds: they keep their output channels in different dimensions, weight norm the first of each."""
    return {"plain": nn.Conv1d(3, 5, 7), "transposed": nn.ConvTranspose1d(3, 5, 4, stride=2)}


def classic_weight_norm(module: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(module)


@pytest.mark.parametrize("kind", list(convolutions()))
@pytest.mark.parametrize("normed", [classic_weight_norm, parametrized_weight_norm])
def test_folding_gives_the_weight_that_the_norm_would_compute(
    normed: Callable[[nn.Module], nn.Module], kind: str
) -> None:
    oracle, folded = (nn.ModuleDict({"conv": convolutions()[kind]}) for _ in range(2))
    normed(oracle["conv"])
    for seed, parameter in enumerate(oracle.parameters()):
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
    folded.load_state_dict(dict(fold_weight_norm(oracle.state_dict())))
    x = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(folded["conv"](x), oracle["conv"](x))


def test_folding_is_float32_and_leaves_the_rest_alone() -> None:
    gain, direction, bias = torch.randn(4, 1, 1).bfloat16(), torch.randn(4, 3, 7).bfloat16(), torch.randn(4)
    stray = torch.randn(4, 1, 1)
    tensors = {"a.weight_g": gain, "a.weight_v": direction, "a.bias": bias, "b.weight_g": stray}
    folded = dict(fold_weight_norm(tensors))
    assert set(folded) == {"a.weight", "a.bias", "b.weight_g"}  # a gain alone stays, for strict loading to name
    assert folded["a.weight"].dtype == torch.float32
    assert folded["a.bias"] is bias
    norms = folded["a.weight"].float().flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, gain.float().flatten().abs(), rtol=1e-2, atol=0)
    assert set(tensors) == {"a.weight_g", "a.weight_v", "a.bias", "b.weight_g"}
