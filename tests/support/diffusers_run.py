"""Diffusers' own pipeline with the weights of a tiny checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from support import tiny

PROMPT = {
    "prompt": "warm lo-fi hip hop, dusty drums",
    "lyrics": "[Verse]\nrain on the window, né",
    "vocal_language": "fr",
    "bpm": 84,
    "keyscale": "A minor",
    "timesignature": "3",
    "audio_duration": 2.5,
}


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours - theirs).norm() / theirs.norm()).item()


class Sampled(NamedTuple):
    """One run of diffusers' own pipeline: the arguments its networks were given, and its final latents."""

    listened: dict[str, Tensor]  # by the condition encoder
    calls: list[dict[str, Tensor]]  # by the transformer, one per step
    latents: Tensor


def sample(oracle: tiny.Oracle, noise: Tensor, **options: Any) -> Sampled:
    """Diffusers' pipeline from text to latents: its prompts, its schedule, its guidance, its loop."""
    pipeline = tiny.pipeline(oracle)
    listened: list[dict[str, Tensor]] = []
    calls: list[dict[str, Tensor]] = []

    def keep(seen: list[dict[str, Tensor]]) -> Callable[[object, object, dict[str, Tensor]], None]:
        return lambda _module, _arguments, keywords: seen.append(keywords)

    hooks = [
        oracle.encoder.register_forward_pre_hook(keep(listened), with_kwargs=True),
        oracle.decoder.register_forward_pre_hook(keep(calls), with_kwargs=True),
    ]
    asked = {**PROMPT, **options}
    (latents,) = pipeline(**asked, latents=noise, output_type="latent", return_dict=False)
    for hook in hooks:
        hook.remove()
    return Sampled(listened[0], calls, latents)
