"""From a completed request to finished takes; the one road every mode goes down."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from acestep_cli import modes, prompts, solvers
from acestep_cli.audio import Audio
from acestep_cli.checkpoints import Checkpoint
from acestep_cli.engine import codec, denoise, store
from acestep_cli.engine.dit import AceStep
from acestep_cli.engine.store import Report, Store
from acestep_cli.errors import MemoryLimitError
from acestep_cli.hardware import Plan
from acestep_cli.modes import Completed
from acestep_cli.sizes import DiTConfig, VAEConfig

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
    def run(self, requests: Sequence[Completed], report: Report) -> Generator[Take]:
        """Make the takes of completed requests, one after another, each as soon as it is decoded.

        The text encoder is loaded once for all requests, and so is the diffusion transformer. Takes never share a
        forward pass: a matrix product may round differently at another batch size, and take k of a run is promised
        to equal take k alone. What the takes of one song share is the condition.
        Raises `CheckpointError` for weights that do not fit their config, `MemoryLimitError` when memory runs out.
        """
        try:
            yield from self._takes(requests, report)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            longest = max(request.duration for request in requests)
            raise MemoryLimitError(
                f"{self.checkpoint.name} ran out of memory on {self.plan.device} over {longest:g} s of music.",
                "Ask for a shorter song, or a smaller model.",
            ) from error

    def _takes(self, requests: Sequence[Completed], report: Report) -> Iterator[Take]:
        weights = Store(self.checkpoint, self.plan, report)
        clock = Clock()
        songs = [Song(request, modes.MODES[request.mode].prepare(request)) for request in requests]
        steps = Share(report, "diffuse", [song.steps for song in songs for _ in song.takes])
        seconds = Share(report, "decode", [math.ceil(take.duration) for song in songs for take in song.takes])

        # 1. Words to numbers; the text encoder leaves memory here.
        with clock("text"):
            read_words(weights, songs)

        with weights.dit() as model:
            for song in songs:
                # 2. How long: whole latent frames, and never fewer than the model was trained on.
                rate, hop = self.vae_config.sampling_rate, self.vae_config.hop
                frames = max(solvers.duration_frames(song.request.duration, rate, hop), SHORTEST_FRAMES)
                samples = min(int(song.request.duration * rate), frames * hop)

                # 3. What the diffusion listens to and starts from, once for all takes of the song.
                with clock("condition"):
                    timbre = self.silent(self.config.timbre_fix_frame, weights)
                    condition = model.encoder(song.text_states, song.lyric_states, timbre)
                    memory = model.decoder.remember(condition)
                    guided = self._guided(song.request, model)
                    source = song.prepared.source(Sources(self, weights, model, frames))
                    context = torch.cat((source, torch.full_like(source, song.prepared.mask)), dim=-1)

                for number, take in enumerate(song.takes, start=1):
                    # 4. Noise to latents.
                    with clock("diffuse"):
                        latents = denoise.denoise(
                            model.decoder,
                            denoise.starting_noise(take.seed, frames, self.config.latent_channels),
                            context,
                            memory,
                            song.schedule,
                            solver=take.solver,
                            guided=guided,
                            seed=take.seed,
                            progress=steps.next(),
                        )
                    # 5. Latents to waveform.
                    with clock("decode"):
                        waveform = decode(weights, latents[0], self.plan.tile_frames, seconds.next())
                    yield Take(
                        number,
                        Audio(waveform[:, :samples].numpy(), rate),
                        take,
                        clock.lap(),
                        (*song.warnings, *weights.warnings),
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


@dataclass
class Song:
    """One request on its way through the stages."""

    request: Completed
    prepared: modes.Prepared
    warnings: list[str] = field(default_factory=list)
    #: [1, Lt, width] and [1, Ll, width], once the words are read.
    text_states: Tensor = field(init=False)
    lyric_states: Tensor = field(init=False)

    @property
    def takes(self) -> list[Completed]:
        return [modes.take(self.request, number) for number in range(1, self.request.takes + 1)]

    @property
    def schedule(self) -> tuple[float, ...]:
        """The times of the diffusion, from noise to 0."""
        if self.request.timesteps is not None:
            return solvers.explicit_schedule(self.request.timesteps)
        assert self.request.steps is not None
        assert self.request.shift is not None
        return solvers.schedule(self.request.steps, self.request.shift)

    @property
    def steps(self) -> int:
        return len(self.schedule) - 1


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


def read_words(weights: Store, songs: Sequence[Song]) -> None:
    """Give each song the states of its text prompt and the embeddings of its lyric prompt."""
    with weights.text() as encoder:
        for number, song in enumerate(songs):
            weights.report("text", number, len(songs))
            request, warn = song.request, song.warnings.append
            prompt, lyrics = prompts.of(request, song.prepared.instruction, request.duration)
            song.text_states = encoder.states(prompt, warn)
            song.lyric_states = encoder.embeddings(lyrics, warn)
        weights.report("text", len(songs), len(songs))


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


class Share:
    """Progress of each take as its share of a stage over all takes, in the stage's own units."""

    def __init__(self, report: Report, stage: str, units: Sequence[int]) -> None:
        self.report, self.stage, self.units = report, stage, units
        self.number = 0

    def next(self) -> codec.Progress:
        """The progress of the next take."""
        before, own, total = sum(self.units[: self.number]), self.units[self.number], sum(self.units)
        self.number += 1
        return lambda done, of: self.report(self.stage, before + own * done // of, total)
