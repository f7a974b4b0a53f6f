"""The engine's networks against diffusers' classes holding the same weights, in float32.

diffusers is called as an independent oracle. One thing it does otherwise than the published XL model
(`docs/specification.md` 5.6): it never prepends the timbre encoder's special token. The XL tests of the condition
encoder therefore check the ruling "on XL `special_token` is prepended and token 0 is the output", by
prepending the token inside the oracle; everything else is compared with the oracle untouched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.engine import text_encoder
from acestep_cli.engine.denoise import DiffusionCondition, Guided, SamplerSettings, denoise
from acestep_cli.engine.dit import AceStep, Condition
from acestep_cli.engine.vae import OobleckVAE, fold_weight_norm
from acestep_cli.models.configs import DiTConfig, VAEConfig
from acestep_cli.song import modes, prompts
from support import tiny
from support.diffusers_run import PROMPT, Sampled, relative, sample

TOLERANCE = 1e-5


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=["two_b", "xl"])
def oracle(request: pytest.FixtureRequest) -> tiny.Oracle:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def model(oracle: tiny.Oracle) -> AceStep:
    return ours(oracle)


def ours(oracle: tiny.Oracle) -> AceStep:
    """Our modules, strictly loaded from the checkpoint file of the oracle."""
    model = AceStep(DiTConfig.from_dict(oracle.config)).eval()
    model.load_state_dict(load_file(next(oracle.root.glob("acestep-*/model.safetensors"))), strict=True)
    return model


# In frames; two to a token, and the band reaches 8 tokens: a single frame, shorter than the band, exactly the
# band, the last length that it covers and the first that it does not, multiples of it, odd everywhere.
@pytest.mark.parametrize("frames", [1, 7, 16, 18, 19, 32, 33, 48, 61, 128])
def test_dit(oracle: tiny.Oracle, model: AceStep, frames: int) -> None:
    channels = model.config.latent_channels
    x, context = randn(1, 2, frames, channels), randn(2, 2, frames, 2 * channels)
    states, t = randn(3, 2, 23, model.config.encoder_hidden_size), torch.tensor([0.3, 0.9])
    theirs = oracle.decoder(
        hidden_states=x, timestep=t, timestep_r=t, encoder_hidden_states=states, context_latents=context
    ).sample
    memory = model.decoder.project_condition(Condition(states, None))
    assert relative(model.decoder(x, t, context, memory), theirs) < TOLERANCE


@contextmanager
def ruled(oracle: tiny.Oracle) -> Iterator[None]:
    """The oracle with the special token prepended, where the checkpoint is XL."""
    timbre = oracle.encoder.timbre_encoder

    def prepend(_module: object, _inputs: object, embedded: Tensor) -> Tensor:
        return torch.cat((timbre.special_token.expand(embedded.shape[0], -1, -1), embedded), dim=1)

    if "encoder_hidden_size" not in oracle.config:
        yield
        return
    hook = timbre.embed_tokens.register_forward_hook(prepend)
    yield
    hook.remove()


def conditions(model: AceStep, batch: int, references: int) -> tuple[Tensor, Tensor, Tensor]:
    """Text of 7 tokens, lyrics longer than the band of 8, references of 30 frames."""
    width, timbre = model.config.text_hidden_dim, model.config.timbre_hidden_dim
    return randn(1, batch, 7, width), randn(2, batch, 40, width), randn(3, references, 30, timbre)


def test_condition_encoder(oracle: tiny.Oracle, model: AceStep) -> None:
    text, lyrics, timbre = conditions(model, batch=2, references=2)
    with ruled(oracle):
        theirs, mask = oracle.encoder(text, torch.ones(2, 7), lyrics, torch.ones(2, 40), timbre, torch.arange(2))
    packed = model.encoder(text, lyrics, timbre)
    assert mask.bool().all()
    assert packed.keep is None
    assert relative(packed.states, theirs) < TOLERANCE


def test_condition_encoder_over_a_padded_batch(oracle: tiny.Oracle, model: AceStep) -> None:
    """Several lengths, and several references to an item: the same tokens are kept, in the same order."""
    text, lyrics, timbre = conditions(model, batch=3, references=4)
    text_keep = torch.arange(7) < torch.tensor([[7], [4], [6]])
    lyric_keep = torch.arange(40) < torch.tensor([[13], [40], [1]])
    owners = torch.tensor([0, 1, 1, 2])
    with ruled(oracle):
        theirs, mask = oracle.encoder(text, text_keep.float(), lyrics, lyric_keep.float(), timbre, owners)
    packed = model.encoder(text, lyrics, timbre, text_keep, lyric_keep, owners.tolist())
    for item in range(3):
        kept = packed.states[item][packed.keep[item]]
        assert relative(kept, theirs[item][mask[item].bool()]) < TOLERANCE


def test_the_timbre_ruling_is_visible(xl: tiny.Oracle) -> None:
    """Without the ruling the timbre token is another one, and no other token is."""
    text, lyrics, timbre = conditions(ours(xl), batch=1, references=1)
    inputs = (text, torch.ones(1, 7), lyrics, torch.ones(1, 40), timbre, torch.arange(1))
    untouched, _ = xl.encoder(*inputs)
    with ruled(xl):
        prepended, _ = xl.encoder(*inputs)
    changed = (untouched != prepended).any(-1)[0].nonzero().flatten()
    assert changed.tolist() == [40]  # lyrics come first
    assert relative(untouched[:, 40], prepended[:, 40]) > 0.1


def test_tokenizer_codes_and_detokenizer(oracle: tiny.Oracle, model: AceStep) -> None:
    latents = 3 * randn(1, 2, 200, model.config.latent_channels)  # loud enough to reach the outermost levels
    theirs, their_codes = oracle.tokenizer(latents.unflatten(1, (-1, model.config.pool_window_size)))
    quantised, codes = model.tokenizer(latents)
    assert torch.equal(codes, their_codes.view_as(codes))
    assert codes.unique().numel() > 40
    assert relative(quantised, theirs) < TOLERANCE
    assert relative(model.tokenizer.quantizer.from_codes(codes), theirs) < TOLERANCE
    expected = oracle.detokenizer(theirs)
    assert relative(model.detokenizer(quantised), expected) < TOLERANCE
    assert relative(model.latents_from_codes(codes), expected) < TOLERANCE


@torch.inference_mode()
def test_windows_of_codes_see_nothing_of_each_other(model: AceStep, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does not matter how many go through the networks at once."""
    latents = torch.randn(1, 8 * model.config.pool_window_size, model.config.latent_channels)
    quantised, codes = model.tokenizer(latents)
    sound = model.detokenizer(quantised)
    monkeypatch.setattr("acestep_cli.engine.dit.WINDOWS_AT_ONCE", 3)
    again, same_codes = model.tokenizer(latents)
    assert torch.equal(codes, same_codes)
    torch.testing.assert_close(again, quantised)
    torch.testing.assert_close(model.detokenizer(quantised), sound)


def test_quantizer_reaches_every_level(oracle: tiny.Oracle, model: AceStep) -> None:
    """Codes equal over the whole range, the soft-clamped ends included."""
    vectors = 40 * randn(4, 1, 4000, model.config.fsq_dim)
    theirs, their_codes = oracle.tokenizer.quantizer(vectors)
    values, codes = model.tokenizer.quantizer.quantize(vectors)
    assert torch.equal(codes, their_codes.view_as(codes))
    for dimension, levels in enumerate(model.config.fsq_input_levels):
        assert values[..., dimension].unique().numel() == levels
    assert relative(model.tokenizer.quantizer.project_out(values), theirs) < TOLERANCE


@pytest.fixture(scope="module")
def vae(two_b: tiny.Oracle) -> OobleckVAE:
    vae = OobleckVAE(VAEConfig.from_dict(tiny.VAE)).eval()
    published = load_file(two_b.root / "vae" / "diffusion_pytorch_model.safetensors")
    vae.load_state_dict(dict(fold_weight_norm(published)), strict=True)
    return vae


@pytest.mark.parametrize("samples", [1920, 1920 * 5, 1920 * 7 + 1013])
def test_vae_encode(two_b: tiny.Oracle, vae: OobleckVAE, samples: int) -> None:
    """The mean, as the rulings want it."""
    waveform = 0.3 * randn(1, 2, 2, samples)
    assert relative(vae.encode(waveform), two_b.vae.encode(waveform).latent_dist.mode()) < TOLERANCE


@pytest.mark.parametrize("frames", [1, 2, 31])
def test_vae_decode(two_b: tiny.Oracle, vae: OobleckVAE, frames: int) -> None:
    latents = randn(1, 2, tiny.LATENT_CHANNELS, frames)
    assert relative(vae.decode(latents), two_b.vae.decode(latents).sample) < TOLERANCE


def follow(oracle: tiny.Oracle, noise: Tensor, sampled: Sampled, **options: Any) -> Tensor:
    """Our loop over our networks, from the noise, condition and context of that run."""
    model, first = ours(oracle), sampled.calls[0]
    memory = model.decoder.project_condition(Condition(first["encoder_hidden_states"][:1], None))
    guided = None
    if "scale" in options:
        guided = Guided(model.decoder.project_condition(model.null_condition()), options.pop("scale"), "apg")
    return denoise(
        model.decoder,
        noise,
        DiffusionCondition(first["context_latents"][:1], memory),
        SamplerSettings(options.pop("schedule"), guided=guided),
        seeds=[0],
        progress=lambda _done, _total: None,
        **options,
    )


NOISE = randn(5, 1, 63, tiny.LATENT_CHANNELS)


def test_eight_turbo_steps(oracle: tiny.Oracle) -> None:
    sampled = sample(oracle, NOISE, num_inference_steps=8, shift=3.0)
    schedule = solvers.timestep_schedule(steps=8, shift=3.0)
    assert [float(call["timestep"][0]) for call in sampled.calls] == pytest.approx(schedule[:-1])
    latents = follow(oracle, NOISE, sampled, schedule=schedule)
    assert relative(latents, sampled.latents) < 1e-4


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_ten_guided_steps(base: tiny.Oracle, shift: float) -> None:
    sampled = sample(base, NOISE, num_inference_steps=10, shift=shift, guidance_scale=7.0)
    assert all(len(call["hidden_states"]) == 2 for call in sampled.calls)  # the guided and the null half
    schedule = solvers.timestep_schedule(steps=10, shift=shift)
    latents = follow(base, NOISE, sampled, schedule=schedule, scale=7.0)
    assert relative(latents, sampled.latents) < 1e-4
    unguided = follow(base, NOISE, sampled, schedule=schedule)
    assert relative(unguided, sampled.latents) > 0.1


def test_prompts(two_b: tiny.Oracle) -> None:
    """The same song makes the same tokens, hidden states and packed condition."""
    listened = sample(two_b, NOISE, num_inference_steps=1).listened
    encoder = text_encoder.TextEncoder(two_b.root / "Qwen3-Embedding-0.6B")
    encoder.model.load_state_dict(load_file(two_b.root / "Qwen3-Embedding-0.6B" / "model.safetensors"), assign=True)
    metas = prompts.metadata_lines(PROMPT["bpm"], PROMPT["timesignature"], PROMPT["keyscale"], PROMPT["audio_duration"])
    states = encoder.hidden_states(prompts.text_prompt(modes.FILL_MASK, PROMPT["prompt"], metas), pytest.fail)
    lyrics = encoder.embeddings(prompts.lyric_prompt(PROMPT["lyrics"], PROMPT["vocal_language"]), pytest.fail)
    assert relative(states, listened["text_hidden_states"]) < TOLERANCE
    assert relative(lyrics, listened["lyric_hidden_states"]) < TOLERANCE
