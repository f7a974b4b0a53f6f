"""From a completed request to finished takes; the one road every mode goes down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from acestep_cli import memory, modes, planning, prompts, solvers
from acestep_cli.audio import Audio
from acestep_cli.checkpoints import Checkpoint
from acestep_cli.engine import codec, denoise, store
from acestep_cli.engine.dit import AceStep, Memory
from acestep_cli.engine.store import Report, Store
from acestep_cli.modes import Completed
from acestep_cli.planning import Plan

R = TypeVar("R")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Take:
    """One finished take.

    `audio` is as decoded, before any loudness is set. `request` is complete: it alone makes the take again. `plan`
    is how the machine made it. `timings` are seconds by stage; those that all takes share, and what was spent on
    loading, are on the first one's.
    """

    number: int
    audio: Audio
    request: Completed
    plan: Plan
    timings: dict[str, float]
    warnings: tuple[str, ...]


class Pipeline:
    """One checkpoint under one plan; several requests may pass through it."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan) -> None:
        """Reads the configs and the silence; weights come when a stage borrows them."""
        self.checkpoint = checkpoint
        self.plan = plan
        self.sizes = memory.Sizes.of(checkpoint)
        self.silence = store.silence(checkpoint.silence_file, self.sizes.dit.latent_channels)

    @torch.inference_mode()
    def run(self, requests: Sequence[Completed], report: Report, say: Say = lambda sentence: None) -> Generator[Take]:
        """Make the takes of completed requests, one after another, each as soon as it is decoded.

        The text encoder is loaded once for all requests, and so is the diffusion transformer. Takes never share a
        forward pass: a matrix product may round differently at another batch size, and take k of a run is promised
        to equal take k alone. What the takes of one song share is the condition.

        Where memory runs out, `say` hears which rung of the ladder is taken, and the stage is done again. Raises
        `CheckpointError` for weights that do not fit their config, `MemoryLimitError` at the foot of the ladder.
        """
        with closing(Store(self.checkpoint, self.plan, report)) as weights:
            yield from self._takes(requests, weights, report, say)

    def _takes(self, requests: Sequence[Completed], weights: Store, report: Report, say: Say) -> Iterator[Take]:
        within_memory = Descent(weights, self.sizes, say)
        clock = Clock(weights)
        vae = self.sizes.vae
        songs = [Song(request, modes.MODES[request.mode].prepare(request)) for request in requests]
        steps = Share(report, "diffuse", [song.steps for song in songs for _ in song.takes])
        seconds = Share(report, "decode", [math.ceil(take.duration) for song in songs for take in song.takes])

        # 1. Words to numbers.
        with clock("text"):
            within_memory("text", requests[0], read_words, weights, songs)

        for song in songs:
            weights.tidy()
            # 2. How long: whole latent frames, and never fewer than the model was trained on.
            frames = vae.latent_frames(song.request.duration)
            samples = min(int(song.request.duration * vae.sampling_rate), frames * vae.hop)

            # 3. What the diffusion listens to and starts from, once for all takes of the song.
            with clock("condition"):
                heard = within_memory("condition", song.request, listen, weights, song, self.silence, frames)

            for number, take in enumerate(song.takes, start=1):
                # 4. Noise to latents.
                with clock("diffuse"):
                    latents = within_memory("diffuse", take, diffuse, weights, song, heard, take, steps.next())
                # 5. Latents to waveform.
                with clock("decode"):
                    waveform = within_memory("decode", take, decode, weights, latents, seconds.next())
                yield Take(
                    number,
                    Audio(waveform[:, :samples].numpy(), vae.sampling_rate),
                    take,
                    weights.plan,
                    clock.lap(),
                    (*song.warnings, *weights.warnings),
                )


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


class Heard(NamedTuple):
    """What the diffusion of a song listens to and starts from."""

    memory: Memory
    guided: denoise.Guided | None
    context: Tensor  # [1, T, in_channels - C]


@dataclass(frozen=True)
class Sources:
    """What a mode draws its source latents from; see `modes.Studio`."""

    model: AceStep
    weights: Store
    recorded: Tensor  # the silence latent of the checkpoint, [1, F, C]
    frames: int

    def silence(self) -> Tensor:
        return self.silent(self.frames)

    def silent(self, frames: int) -> Tensor:
        """Silence [1, frames, C] on the plan's device in its dtype."""
        return codec.silence_of_length(self.recorded, frames).to(self.weights.device, self.weights.dtype)

    def follow(self, codes: tuple[int, ...]) -> Tensor:
        latents = self.model.latents_from_codes(torch.tensor([codes], device=self.weights.device))[:, : self.frames]
        rest = self.frames - latents.shape[1]
        return torch.cat((latents, self.silent(rest)), dim=1) if rest else latents


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


def listen(weights: Store, song: Song, silence: Tensor, frames: int) -> Heard:
    """Encode the condition of a song, and make the latents that its mode starts from."""
    with weights.dit() as model:
        sources = Sources(model, weights, silence, frames)
        timbre = sources.silent(model.config.timbre_fix_frame)
        memory = model.decoder.remember(model.encoder(song.text_states, song.lyric_states, timbre))
        source = song.prepared.source(sources)
        context = torch.cat((source, torch.full_like(source, song.prepared.mask)), dim=-1)
        return Heard(memory, guidance(song.request, model), context)


def guidance(request: Completed, model: AceStep) -> denoise.Guided | None:
    """How the velocity is guided; None where guidance is off."""
    if request.guidance_method is None or request.cfg_interval is None:
        return None
    unconditional = model.decoder.remember(model.null_condition())
    return denoise.Guided(unconditional, request.guidance, request.guidance_method, request.cfg_interval)


def diffuse(weights: Store, song: Song, heard: Heard, take: Completed, progress: codec.Progress) -> Tensor:
    """From the noise of a take to its latents [T, C]."""
    with weights.dit() as model:
        channels = model.config.latent_channels
        return denoise.denoise(
            model.decoder,
            denoise.starting_noise(take.seed, heard.context.shape[1], channels),
            heard.context,
            heard.memory,
            song.schedule,
            solver=take.solver,
            guided=heard.guided,
            seed=take.seed,
            progress=progress,
        )[0]


def decode(weights: Store, latents: Tensor, progress: codec.Progress) -> Tensor:
    """Latents [T, C] -> waveform [A, T * hop], float32 on the CPU."""
    with weights.vae() as vae:
        return codec.decode(vae, latents, weights.plan.tile_frames, progress)


@dataclass
class Descent:
    """Does a stage again, a rung of the ladder lower, as often as memory runs out in it."""

    weights: Store
    sizes: memory.Sizes
    say: Say

    def __call__(self, stage: str, request: Completed, work: Callable[..., R], *arguments: Any) -> R:
        while True:
            try:
                return work(*arguments)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                lower = planning.step_down(self.weights.plan, stage, request, self.sizes)
                if lower is None:
                    raise planning.exhausted(self.weights.plan, stage, request) from None
            # Only out here is the error gone, and with its traceback what the stage held.
            plan, rung = lower
            self.weights.rearrange(plan)
            self.say(f"Memory ran out on {plan.device}; from here on {rung}.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch's allocators for processors and Apple's GPUs say so in a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in ("DefaultCPUAllocator", "MPS backend out of memory"))


class Clock:
    """Seconds spent in each stage since the last lap; loading is a stage of its own, whichever others it interrupts."""

    def __init__(self, weights: Store) -> None:
        self.weights = weights
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start, loaded = time.perf_counter(), self.weights.loading_seconds
        yield
        loading = self.weights.loading_seconds - loaded
        for name, spent in ((stage, time.perf_counter() - start - loading), ("load", loading)):
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

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
