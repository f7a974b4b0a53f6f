"""From a completed request to finished takes; the one road every mode goes down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from acestep_cli import modes, solvers
from acestep_cli.audio import Audio
from acestep_cli.checkpoints import Checkpoint
from acestep_cli.engine import codec, denoise, store, text
from acestep_cli.engine.config import DiTConfig
from acestep_cli.engine.dit import AceStep
from acestep_cli.engine.store import Report, Store
from acestep_cli.engine.vae import VAEConfig
from acestep_cli.errors import MemoryLimitError
from acestep_cli.hardware import Plan
from acestep_cli.modes import Completed

SHORTEST_FRAMES = 128  # the model was never shown less than about five seconds


@dataclass(frozen=True)
class Take:
    """One finished take.

    `audio` is as decoded, before any loudness is set. `request` is complete: it alone makes the take again.
    `timings` are seconds by stage, loading included; the stages that all takes share are on the first one's.
    """

    number: int
    audio: Audio
    request: Completed
    timings: dict[str, float]
    warnings: tuple[str, ...]


class Pipeline:
    """One checkpoint under one plan; several requests may pass through it."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan) -> None:
        """Reads the configs and the silence; weights come when a stage borrows them."""
        self.checkpoint = checkpoint
        self.plan = plan
        self.config = DiTConfig.from_dict(checkpoint.config, str(checkpoint.dit / "config.json"))
        self.vae_config = VAEConfig.from_dict(checkpoint.vae_config, str(checkpoint.vae / "config.json"))
        self.silence = store.silence(checkpoint.dit / "silence_latent.pt", self.config.latent_channels)

    @torch.inference_mode()
    def run(self, request: Completed, report: Report) -> Iterator[Take]:
        """Make the takes of a completed request, one after another, each as soon as it is decoded.

        Takes never share a forward pass: a matrix product may round differently at another batch size, and
        take k of a run is promised to equal take k alone. What they share is the condition.
        Raises `CheckpointError` for weights that do not fit their config, `MemoryLimitError` when memory runs out.
        """
        try:
            yield from self._takes(request, report)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryLimitError(
                f"{self.checkpoint.name} ran out of memory on {self.plan.device} over {request.duration:g} s of music.",
                "Ask for a shorter song, or a smaller model.",
            ) from error

    def _takes(self, request: Completed, report: Report) -> Iterator[Take]:
        weights = Store(self.checkpoint, self.plan, report)
        clock, warnings = Clock(), weights.warnings

        # 1. How long: whole latent frames, and never fewer than the model was trained on.
        rate, hop = self.vae_config.sampling_rate, self.vae_config.hop
        frames = max(solvers.duration_frames(request.duration, rate, hop), SHORTEST_FRAMES)
        samples = min(int(request.duration * rate), frames * hop)
        prepared = modes.MODES[request.mode].prepare(request)

        # 2. Words to numbers; the text encoder leaves memory here.
        with clock("text"):
            text_states, lyric_states = read_words(weights, request, prepared.instruction)

        with weights.dit() as model:
            # 3. What the diffusion listens to and starts from, once for all takes.
            with clock("condition"):
                timbre = self.silent(self.config.timbre_fix_frame, weights)
                condition = model.encoder(text_states, lyric_states, timbre)
                memory = model.decoder.remember(condition)
                guided = self._guided(request, model)
                source = prepared.source(Sources(self, weights, model, frames))
                context = torch.cat((source, torch.full_like(source, prepared.mask)), dim=-1)
                schedule = schedule_of(request)

            for number in range(1, request.takes + 1):
                # 4. Noise to latents.
                take = modes.take(request, number)
                with clock("diffuse"):
                    latents = denoise.denoise(
                        model.decoder,
                        denoise.starting_noise(take.seed, frames, self.config.latent_channels),
                        context,
                        memory,
                        schedule,
                        solver=take.solver,
                        guided=guided,
                        seed=take.seed,
                        progress=part(report, "diffuse", number, request.takes),
                    )
                # 5. Latents to waveform.
                with clock("decode"):
                    progress = part(report, "decode", number, request.takes)
                    waveform = decode(weights, latents[0], self.plan.tile_frames, progress)
                yield Take(
                    number,
                    Audio(waveform[:, :samples].numpy(), rate),
                    take,
                    clock.lap(),
                    tuple(warnings),
                )

    def silent(self, frames: int, weights: Store) -> Tensor:
        """Silence [1, frames, C] on the plan's device in its dtype."""
        return codec.silence_of_length(self.silence, frames).to(weights.device, weights.dtype)

    def _guided(self, request: Completed, model: AceStep) -> denoise.Guided | None:
        """How the velocity is guided; None where guidance is off."""
        if request.guidance_method is None or request.cfg_interval is None:
            return None
        unconditional = model.decoder.remember(model.null_condition())
        return denoise.Guided(unconditional, request.guidance, request.guidance_method, request.cfg_interval)


@dataclass(frozen=True)
class Sources:
    """What a mode draws its source latents from; see `modes.Studio`."""

    pipeline: Pipeline
    weights: Store
    model: AceStep
    frames: int

    def silence(self) -> Tensor:
        return self.pipeline.silent(self.frames, self.weights)

    def follow(self, codes: tuple[int, ...]) -> Tensor:
        latents = self.model.latents_from_codes(torch.tensor([codes], device=self.weights.device))[:, : self.frames]
        rest = self.frames - latents.shape[1]
        return torch.cat((latents, self.pipeline.silent(rest, self.weights)), dim=1) if rest else latents


# Borrowing happens in functions of their own: a name bound in the generator would keep a component alive, whatever
# the store thinks.


def read_words(weights: Store, request: Completed, instruction: str) -> tuple[Tensor, Tensor]:
    """States of the text prompt [1, Lt, width] and embeddings of the lyric prompt [1, Ll, width]."""
    with weights.text() as encoder:
        weights.report("text", 0, 1)
        metas = text.metas(request.bpm, request.time_signature, request.key, request.duration)
        prompt = text.text_prompt(instruction, request.caption or "", metas)
        states = encoder.states(prompt, weights.warnings.append)
        lyrics = encoder.embeddings(text.lyric_prompt(request.lyrics, request.language), weights.warnings.append)
        weights.report("text", 1, 1)
        return states, lyrics


def decode(weights: Store, latents: Tensor, tile_frames: int, progress: codec.Progress) -> Tensor:
    """Latents [T, C] -> waveform [A, T * hop], float32 on the CPU."""
    with weights.vae() as vae:
        return codec.decode(vae, latents, tile_frames, progress)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch's allocator for the CPU says so in a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


class Clock:
    """Seconds spent in each stage since the last lap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def lap(self) -> dict[str, float]:
        """The seconds so far, rounded to milliseconds; counting starts anew."""
        seconds, self.seconds = self.seconds, {}
        return {stage: round(spent, 3) for stage, spent in seconds.items()}


def schedule_of(request: Completed) -> tuple[float, ...]:
    """The times of a completed request, from noise to 0."""
    if request.timesteps is not None:
        return solvers.explicit_schedule(request.timesteps)
    assert request.steps is not None
    assert request.shift is not None
    return solvers.schedule(request.steps, request.shift)


def part(report: Report, stage: str, number: int, takes: int) -> codec.Progress:
    """Progress of one take as its part of the stage over all takes."""
    return lambda done, total: report(stage, (number - 1) * total + done, takes * total)
