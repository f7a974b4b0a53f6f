"""The stage `diffuse`: the latents of takes, by the sampling loop, by flow edit or from the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import NamedTuple

import torch
from torch import Tensor

from acestep_cli.engine import conditioning, denoise, flow_edit
from acestep_cli.engine.denoise import DiffusionCondition, SamplerSettings
from acestep_cli.engine.dit import AceStep, stack_conditions
from acestep_cli.engine.song_parts import RenderPart, TakeInputs
from acestep_cli.engine.stage_cache import StageCache
from acestep_cli.engine.weights import WeightStore
from acestep_cli.progress import Progress
from acestep_cli.song.complete import Completed


class DiffusedTake(NamedTuple):
    """The latents [T, C] of a take, and its share of the seconds that its group took, which is 0 until the group is
    done; None where they were in the cache.
    """

    latents: Tensor
    seconds: float | None


def diffuse(
    weights: WeightStore,
    cache: StageCache,
    group: Sequence[TakeInputs],
    made: dict[int, DiffusedTake],
    progress: Callable[[int, int], Progress],
) -> None:
    """Add to `made` the takes of a group that it lacks, by their place: from the cache, or else diffused, as many
    together as the plan says by then. `progress(done, count)` returns the callback of the next `count` takes.
    """
    keys = [latents_key(weights, cache, inputs) for inputs in group]
    for place, key in enumerate(keys):
        if place not in made and (cached := cache.read_latents(key)) is not None:
            made[place] = DiffusedTake(cached.to(weights.device), None)
    if made:
        progress(0, len(made))(1, 1)
    while left := [place for place in range(len(group)) if place not in made]:
        places = left[: weights.plan.together]
        inputs = [group[place] for place in places]
        make = denoise_takes if inputs[0].part.prepared.edit is None else edit_takes
        latents = make(weights, inputs, progress(len(made), len(places)))
        for place, own in zip(places, latents, strict=True):
            cache.write_latents(keys[place], own)
            made[place] = DiffusedTake(own, 0.0)


def latents_key(weights: WeightStore, cache: StageCache, inputs: TakeInputs) -> str | None:
    """Return the key of a take's latents in the cache."""
    part, take = inputs.part, inputs.take
    switch, hold, window = part.prepared.second_phase, inputs.diffusion.hold, part.prepared.edit
    guided = (take.guidance, take.guidance_method, take.cfg_interval)
    corrections = corrections_of(take)
    settings = [
        part.schedule,
        take.solver,
        take.seed,
        guided,
        switch and switch[0],
        hold and (hold.share, hold.last_step),
        *([asdict(corrections)] if corrections != denoise.Corrections() else []),
        *([take.variation, take.variation_seed] if take.variation is not None else []),
        *([asdict(window)] if window is not None else []),
    ]
    tensors = [
        *inputs.diffusion.contexts,
        *(tensor for condition in inputs.conditions for tensor in condition),
        *((hold.clean, hold.inside, hold.blend) if hold is not None else ()),
        inputs.diffusion.start,
    ]
    return cache.latents_key(weights.adapters, settings, tensors, weights.plan)


def denoise_takes(weights: WeightStore, group: Sequence[TakeInputs], progress: Progress) -> list[Tensor]:
    """Carry the noise of takes to their latents, each [T, C], in forward passes that all of them share.

    The condition is projected here, each time: the projections are the decoder's, and may have become int8 meanwhile.
    """
    part, take, (contexts, hold, start) = group[0].part, group[0].take, group[0].diffusion
    switch, phases = part.prepared.second_phase, range(len(part.phases))
    frames = contexts[0].shape[1]
    with weights.dit() as model:
        conditions = [
            DiffusionCondition(
                context=stack_contexts([one.diffusion.contexts[phase] for one in group]),
                cross_kv=model.decoder.project_condition(stack_conditions([one.conditions[phase] for one in group])),
            )
            for phase in phases
        ]
        latents = denoise.denoise(
            model.decoder,
            torch.cat([take_noise(one.take, frames, model.config.latent_channels) for one in group]),
            conditions[0],
            sampler_settings(part, take, model),
            seeds=[one.take.seed for one in group],
            progress=progress,
            switch=denoise.ConditionSwitch(switch[0], conditions[1]) if switch else None,
            hold=hold,
            start=start,
        )
        return list(conditioning.crossfade_latents(latents, hold))


def stack_contexts(contexts: Sequence[Tensor]) -> Tensor:
    """Return contexts [1, T, width] as one with a row for each; one that all takes share stays as it is."""
    return contexts[0] if all(context is contexts[0] for context in contexts) else torch.cat(list(contexts))


def edit_takes(weights: WeightStore, group: Sequence[TakeInputs], progress: Progress) -> list[Tensor]:
    """Carry the latents of the source of each take to those of the take, [T, C], one take after another."""
    count = len(group)

    def share(place: int) -> Progress:
        return lambda done, of: progress(place * of + done, count * of)

    with weights.dit() as model:
        return [edit_take(model, inputs, share(place)) for place, inputs in enumerate(group)]


def edit_take(model: AceStep, inputs: TakeInputs, progress: Progress) -> Tensor:
    """Carry the latents of the source of a take to those of the take, [T, C]."""
    part, take, (contexts, _, source) = inputs.part, inputs.take, inputs.diffusion
    assert part.prepared.edit is not None
    assert source is not None
    given, wanted = (
        DiffusionCondition(contexts[0], model.decoder.project_condition(condition)) for condition in inputs.conditions
    )
    return flow_edit.edit(
        model.decoder,
        source,
        given,
        wanted,
        sampler_settings(part, take, model),
        window=part.prepared.edit,
        seed=take.seed,
        progress=progress,
    )[0]


def sampler_settings(part: RenderPart, take: Completed, model: AceStep) -> SamplerSettings:
    """Return the settings of the diffusion of a take."""
    return SamplerSettings(part.schedule, take.solver, prepare_guidance(take, model), corrections_of(take))


def prepare_guidance(request: Completed, model: AceStep) -> denoise.Guided | None:
    """Return the guidance of the velocity; None where it is off."""
    if request.guidance_method is None or request.cfg_interval is None:
        return None
    unconditional = model.decoder.project_condition(model.null_condition())
    return denoise.Guided(unconditional, request.guidance, request.guidance_method, request.cfg_interval)


def corrections_of(take: Completed) -> denoise.Corrections:
    """Return the corrections of a take's diffusion."""
    names = [field.name for field in fields(denoise.Corrections)]
    return denoise.Corrections(**{name: value for name in names if (value := getattr(take, name)) is not None})


def take_noise(take: Completed, frames: int, channels: int) -> Tensor:
    """Return the noise [1, T, C] that a take starts from."""
    if take.variation is None or take.variation_seed is None:
        return denoise.starting_noise(take.seed, frames, channels)
    return denoise.varied_noise(take.seed, take.variation_seed, take.variation, frames, channels)
