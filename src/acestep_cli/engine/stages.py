"""The stages of a render except diffusion, one function each; each borrows its network from a `WeightStore`.

None of them is a generator: a name bound in one would keep a network alive after the store has unloaded it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from acestep_cli.engine import alignment, codec, conditioning, denoise
from acestep_cli.engine.alignment import LyricAlignment, LyricTokens
from acestep_cli.engine.conditioning import SourceLayout
from acestep_cli.engine.dit import Condition
from acestep_cli.engine.song_parts import DiffusionInputs, RenderPart, SongSource, TakeInputs, prepared_phases
from acestep_cli.engine.stage_cache import StageCache
from acestep_cli.engine.weights import WeightStore
from acestep_cli.models.configs import VAEConfig
from acestep_cli.progress import Progress, Say
from acestep_cli.song import duration, prompts, ranking
from acestep_cli.song.complete import Completed
from acestep_cli.song.musical_values import LONGEST_SECONDS
from acestep_cli.song.ranking import Scores
from acestep_cli.song.songwriter_prompts import Sampling, WritingTask


def ask_songwriter(weights: WeightStore, task: WritingTask, sampling: Sampling, seed: int) -> dict[str, Any]:
    """Return the Songwriter's answer to a task."""
    with weights.songwriter() as songwriter:
        generator = denoise.stage_generator(seed, "text")
        return songwriter.answer(task, sampling, generator, partial(weights.report, "write"))


def run_songwriter(
    weights: WeightStore, cache: StageCache, requests: Sequence[Completed], together: Sequence[int], say: Say
) -> list[tuple[Sequence[Completed], list[Scores]]]:
    """Return the requests with nothing open, each with the scores of its codes.

    A request for which the Songwriter draws codes has them for each take, so it becomes a request for each.
    """
    found: list[tuple[Sequence[Completed], list[Scores]]] = []
    for request, most in zip(requests, together, strict=True):
        plan = weights.plan.model_copy(update={"together": min(most, weights.plan.together)})
        write = partial(write_takes, weights, request, plan.together, say)
        songs = cache.written_takes(request, plan, write) if request.open else [request]
        scores = score_codes(weights, songs) if ranking.JUDGEMENT in request.scored else [{}] * len(songs)
        found.append((songs, scores))
    return found


def write_takes(weights: WeightStore, request: Completed, together: int, say: Say) -> list[Completed]:
    """Return the takes of a request as the Songwriter fills them in, with the codes of so many `together`."""
    shortest = math.ceil(weights.checkpoint.row.shortest_seconds)
    with weights.songwriter() as songwriter:
        lengths = (shortest, weights.plan.longest_seconds or LONGEST_SECONDS)
        return list(songwriter.write_takes(request, lengths, together, weights.report, say))


def score_codes(weights: WeightStore, songs: Sequence[Completed]) -> list[Scores]:
    """Return the Songwriter's scores of songs with codes."""
    from acestep_cli.engine import code_likelihood  # imports llguidance, as the Songwriter does

    found = []
    with weights.songwriter() as songwriter:
        for done, song in enumerate(songs, start=1):
            found.append(code_likelihood.score_codes(songwriter, song))
            weights.report("judge", done, len(songs))
    return found


def encode_prompts(weights: WeightStore, parts: Sequence[RenderPart]) -> None:
    """Give each phase the states of its text prompt and the embeddings of its lyric prompt."""
    phases = [(part, phase) for part in parts for phase in part.phases]
    for part in parts:
        part.warnings.clear()  # of a try that ran out of memory
    with weights.text_encoder() as encoder:
        for number, (part, phase) in enumerate(phases):
            weights.report("text", number, len(phases))
            request, warn = phase.request, part.warnings.append
            prompt, lyrics = prompts.prompts_of(request, phase.prepared.instruction, request.duration)
            phase.text_states = encoder.hidden_states(prompt, warn)
            phase.lyric_states = encoder.embeddings(lyrics, warn)
            is_aligned = request.lrc or ranking.LYRIC_ALIGNMENT in request.scored
            if is_aligned and phase is part.phases[-1] and duration.is_sung(request.lyrics):
                ids = encoder.token_ids(lyrics, prompts.LYRIC_TOKENS)
                part.lyrics = LyricTokens.of(encoder.tokenizer, ids, request.language)
        weights.report("text", len(phases), len(phases))


def encode(weights: WeightStore, waveform: Tensor) -> Tensor:
    """Encode a waveform [A, N] to latents [T, C], float32 on the CPU."""
    with weights.vae() as vae:
        report = partial(weights.report, "encode")
        return codec.encode_waveform(vae, waveform, weights.plan.tile_frames, report)


def encode_references(weights: WeightStore, cache: StageCache, waveforms: Sequence[Tensor]) -> Tensor | None:
    """Encode R waveforms [A, N] of one length to latents [R, N // hop, C], float32 on the CPU; None without any."""

    def encoded() -> Tensor:
        with weights.vae() as vae:
            tile, report = weights.plan.tile_frames, partial(weights.report, "listen")
            return torch.stack([codec.encode_waveform(vae, waveform, tile, report) for waveform in waveforms])

    return cache.encoded_latents(waveforms, weights.plan, encoded) if waveforms else None


def source_latents(
    weights: WeightStore, cache: StageCache, request: Completed, layout: SourceLayout, silence: Tensor
) -> Tensor | None:
    """Return the latents [1, T, C] of the source, float32 on the CPU: those stored beside it, or else those that the
    autoencoder makes of it; None without a source.
    """
    if request.source_latents is not None:
        return conditioning.place_stored_latents(request.source_latents, layout, silence)
    return encode_references(weights, cache, layout.waveforms)


def tokenize(weights: WeightStore, latents: Tensor, silence: Tensor) -> tuple[int, ...]:
    """Return the audio codes of latents [T, C], filled up with silence to a whole code."""
    with weights.dit() as model:
        rest = codec.repeat_silence(silence, -len(latents) % model.config.pool_window_size)
        _, codes = model.tokenizer(torch.cat((latents[None], rest), dim=1).to(weights.device, weights.dtype))
        return tuple(codes[0].tolist())


def prepare_inputs(weights: WeightStore, take: Completed, source: SongSource, silence: Tensor) -> DiffusionInputs:
    """Make the inputs of the diffusion of a take, which others may share."""
    phases = [prepared for prepared, _ in prepared_phases(take)]
    prepared = phases[0]
    with weights.dit() as model:
        sources = conditioning.SourceLatents(
            layout=source.layout,
            model=model,
            silence_latent=silence.to(weights.device, weights.dtype),
            source=source.latents,
        )
        contexts = [conditioning.context_latents(phase, sources) for phase in phases]
        hold = conditioning.source_hold(sources, prepared.splice, turbo=weights.checkpoint.row.turbo)
        start = sources.original() if prepared.source_share or prepared.edit else None
        return DiffusionInputs(contexts, hold, start)


def encode_conditions(
    weights: WeightStore, part: RenderPart, timbre: Tensor | None, silence: Tensor
) -> list[Condition]:
    """Encode the condition of each phase, with the latents of references [R, F, C], or of silence."""
    with weights.dit() as model:
        if timbre is None:
            timbre = codec.repeat_silence(silence, model.config.timbre_fix_frame)
        timbre = timbre.to(weights.device, weights.dtype)
        owners = [0] * len(timbre)
        return [
            model.encoder(phase.text_states, phase.lyric_states, timbre, timbre_owner=owners) for phase in part.phases
        ]


def align_take(weights: WeightStore, inputs: TakeInputs, latents: Tensor, vae: VAEConfig) -> LyricAlignment:
    """Find when the lyrics of a take with `latents` [T, C] are sung, and score it, under the condition of its last
    phase.
    """
    part = inputs.part
    assert part.lyrics is not None
    with weights.dit() as model:
        probe = alignment.AttentionProbe(
            dit=model.decoder,
            heads=weights.checkpoint.alignment_heads,
            lyrics=part.lyrics,
            context=inputs.diffusion.contexts[-1],
            cross_kv=model.decoder.project_condition(inputs.conditions[-1]),
        )
        seconds = len(latents) * vae.seconds_per_frame
        return alignment.align_lyrics(probe, inputs.take, latents, steps=part.steps, seconds=seconds)


def shift_latents(latents: Tensor, take: Completed) -> Tensor:
    """Return latents [T, C] rescaled and shifted as a take asks, to be decoded; those that are kept are not."""
    shift, rescale = take.latent_shift or 0.0, take.latent_rescale or 1.0
    return latents if (shift, rescale) == (0.0, 1.0) else latents * rescale + shift


def decode(weights: WeightStore, latents: Tensor, progress: Progress) -> Tensor:
    """Decode latents [T, C] to a waveform [A, T * hop], float32 on the CPU."""
    with weights.vae() as vae:
        return codec.decode_latents(vae, latents, weights.plan.tile_frames, progress)
