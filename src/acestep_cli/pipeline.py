"""From a completed request to finished takes; the one road every mode goes down."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.audio.sound import Audio
from acestep_cli.cache import Cache
from acestep_cli.engine import alignment, code_likelihood, codec, conditioning, denoise
from acestep_cli.engine import weights as store
from acestep_cli.engine.alignment import LyricAlignment, LyricTokens
from acestep_cli.engine.conditioning import SourceLayout
from acestep_cli.engine.dit import AceStep, Condition
from acestep_cli.engine.oom_retry import OutOfMemoryRetry
from acestep_cli.engine.stage_cache import StageCache
from acestep_cli.engine.weights import WeightStore
from acestep_cli.machine.plan import Plan
from acestep_cli.models.adapters import AppliedAdapter
from acestep_cli.models.checkpoints import Checkpoint, Songwriter
from acestep_cli.models.configs import VAEConfig
from acestep_cli.models.latents_file import Latents
from acestep_cli.models.sizes import Sizes
from acestep_cli.progress import Progress, ProgressCallback, Say, StageShare
from acestep_cli.song import complete, duration, loras, modes, prompts, ranking
from acestep_cli.song.complete import Completed, OutputPart
from acestep_cli.song.modes import Prepared
from acestep_cli.song.ranking import Scores
from acestep_cli.song.songwriter_prompts import Sampling, WritingTask
from acestep_cli.take import Take


class Pipeline:
    """One checkpoint under one plan; several requests may pass through it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: Plan,
        songwriter: Songwriter | None = None,
        dit: AceStep | None = None,
        cache: Cache | None = None,
    ) -> None:
        """Reads the configs; weights come when a stage borrows them, but for a `dit` that is there. A
        stage borrows none that finds in `cache` what it would make.
        """
        self.checkpoint = checkpoint
        self.dit = dit
        self.songwriter = songwriter
        self.plan = plan
        self.stages = StageCache(cache, checkpoint, songwriter)
        self.sizes = Sizes.of(checkpoint, songwriter)

    @cached_property
    def silence(self) -> Tensor:
        """The silence latent of the checkpoint, [1, frames, C]."""
        return store.load_silence(self.checkpoint.silence_file, self.sizes.dit.latent_channels)

    @torch.inference_mode()
    def run(
        self,
        requests: Sequence[Completed],
        report: ProgressCallback,
        warn: Say = lambda sentence: None,
        say: Say = lambda sentence: None,
    ) -> Generator[Take]:
        """Make the takes of completed requests, one after another, each as soon as it is decoded.

        The text encoder is loaded once for all requests, and so is the diffusion transformer. Takes never share a
        forward pass: a matrix product may round differently at another batch size, and take k of a run is promised
        to equal take k alone. What the takes of one song share is their source, and the condition if they take after
        no reference.

        Where memory runs out, `say` hears which rung of the ladder is taken, and the stage is done again; `tell` hears
        what the Songwriter decided, before anything is made of it, and how the adapters of a song are applied. Raises
        `CheckpointError` for weights that do not fit their config, `MemoryLimitError` at the foot of the ladder.
        """
        with closing(WeightStore(self.checkpoint, self.plan, report, self.songwriter, self.dit)) as weights:
            yield from self._takes(requests, weights, report, warn, say)

    @torch.inference_mode()
    def write(
        self, song: Completed, task: WritingTask, sampling: Sampling, seed: int, report: ProgressCallback, warn: Say
    ) -> dict[str, Any]:
        """What the Songwriter answers to a task about `song`, as keys of a request with their values; lyrics None are
        an instrumental. `say` and errors as in `run`.
        """
        with closing(WeightStore(self.checkpoint, self.plan, report, self.songwriter)) as weights:
            return OutOfMemoryRetry(weights, self.sizes, warn)(
                "write", song, ask_songwriter, weights, task, sampling, seed
            )

    @torch.inference_mode()
    def codes(
        self, song: Completed, recordings: Iterable[Audio], report: ProgressCallback, warn: Say
    ) -> Generator[tuple[int, ...]]:
        """The audio codes that sound like each of `sounds`, which have the rate and the channels of the autoencoder;
        the longest is as long as `song`. `say` and errors as in `run`.
        """
        with closing(WeightStore(self.checkpoint, self.plan, report)) as weights:
            within_memory = OutOfMemoryRetry(weights, self.sizes, warn)
            for sound in recordings:
                latents = within_memory("listen", song, encode, weights, torch.from_numpy(sound.samples))
                yield within_memory("condition", song, tokenize, weights, latents, self.silence)

    def _takes(
        self, requests: Sequence[Completed], weights: WeightStore, report: ProgressCallback, say: Say, tell: Say
    ) -> Iterator[Take]:
        within_memory = OutOfMemoryRetry(weights, self.sizes, say)
        clock = StageClock(weights)
        silence = self.silence  # what is wrong with it is better known before anything loads

        # 0. What is open becomes words, metadata and codes.
        with clock("write"):
            decided = within_memory("write", requests[0], run_songwriter, weights, self.stages, requests, tell)
        songs = [SongRender.of(request, first, judged) for first, request, judged in decided]
        parts = [part for song in songs for part in song.parts]
        steps = StageShare(report, "diffuse", [part.steps for part in parts for _ in part.takes])
        seconds = StageShare(report, "decode", [math.ceil(take.duration) for part in parts for take in part.takes])

        # 1. Words to numbers.
        with clock("text"):
            within_memory("text", requests[0], encode_prompts, weights, parts)

        applied: tuple[AppliedAdapter, ...] = ()
        for song in songs:
            weights.trim_memory()
            weights.adapters = loras.active_adapters(song.request.loras or (), song.request.lora_mode)
            # 2. How long: as its source, or whole latent frames. And what lies there already.
            with clock("listen"):
                canvas = SourceLayout.of(song.request, song.parts[0].prepared, self.sizes.vae)
                references = [conditioning.load_waveform(file, canvas.rate) for file in song.request.reference or ()]
                original = within_memory(
                    "listen", song.request, source_latents, weights, self.stages, song.request, canvas, silence
                )

            for part in song.parts:
                # 3. What the diffusion starts from, once for all takes.
                with clock("condition"):
                    ground = within_memory(
                        "condition", song.request, prepare_inputs, weights, part, canvas, original, silence
                    )
                if weights.applied != applied:
                    applied = weights.applied
                    for adapter in applied:
                        tell(adapter.sentence)

                for number, take in enumerate(part.takes, start=1):
                    # 4. What it listens to: words and timbre. Each take hears windows of its own in the references.
                    if number == 1 or references:
                        with clock("listen"):
                            windows = conditioning.reference_windows(references, self.sizes, take.seed)
                            timbre = within_memory("listen", take, encode_references, weights, self.stages, windows)
                        with clock("condition"):
                            heard = within_memory("condition", take, encode_conditions, weights, part, timbre, silence)
                    # 5. Noise to latents.
                    with clock("diffuse"):
                        latents, is_new = within_memory(
                            "diffuse", take, diffuse, weights, self.stages, part, ground, heard, take, steps.next()
                        )
                    if not is_new:
                        clock.discard("diffuse")
                    # 6. When the words are sung, and how surely.
                    aligned = LyricAlignment()
                    if part.lyrics is not None:
                        with clock("align"):
                            aligned = within_memory(
                                "align", take, align_take, weights, part, ground, heard, take, latents, self.sizes.vae
                            )
                    # 7. Latents to waveform, and that to where it belongs.
                    with clock("decode"):
                        waveform = within_memory("decode", take, decode, weights, latents, seconds.next())
                        splice = part.prepared.splice
                        waveform = conditioning.splice_waveform(canvas, waveform[:, : canvas.samples], splice)
                        settled = conditioning.finished_latents(canvas, latents.float().cpu(), splice, silence)
                    warnings = (*part.warnings, *weights.warnings)
                    made = DecodedTake(
                        *(number, canvas, waveform, settled, weights.plan, clock.lap(), warnings, aligned),
                        weights.applied,
                    )
                    yield from song.finish(part, made)


@dataclass
class ConditionInputs:
    """What one mode prepared, and the words to it."""

    prepared: Prepared
    #: [1, Lt, width] and [1, Ll, width], once the words are read.
    text_states: Tensor = field(init=False)
    lyric_states: Tensor = field(init=False)


@dataclass
class RenderPart:
    """What of a song is rendered at once, on its way through the stages: all of it, or one stem.

    The diffusion goes from the first scene to the last.
    """

    output: OutputPart
    phases: list[ConditionInputs]
    warnings: list[str] = field(default_factory=list)
    #: Its words, once they are read, where they are to be found again in the song.
    lyrics: LyricTokens | None = None

    @classmethod
    def of(cls, output: OutputPart) -> RenderPart:
        prepared = modes.mode_of(output.request).prepare(output.request)
        return cls(output, [ConditionInputs(prepared), *([ConditionInputs(prepared.then[1])] if prepared.then else [])])

    @property
    def prepared(self) -> Prepared:
        return self.phases[0].prepared

    @property
    def takes(self) -> list[Completed]:
        request = self.output.request
        return [complete.take_request(request, number) for number in range(1, request.takes + 1)]

    @property
    def schedule(self) -> tuple[float, ...]:
        """The times of the diffusion, from noise, or from what is kept of the source, to 0."""
        request, kept = self.output.request, self.prepared.kept
        if request.timesteps is not None:
            times = solvers.explicit_schedule(request.timesteps)
        else:
            assert request.steps is not None
            assert request.shift is not None
            times = solvers.timestep_schedule(request.steps, request.shift)
        return solvers.shorten_schedule(times, kept) if kept else times

    @property
    def steps(self) -> int:
        return len(self.schedule) - 1


class DecodedTake(NamedTuple):
    """One take of a part, as it leaves the stages."""

    number: int
    layout: SourceLayout
    waveform: Tensor  # [A, N]
    latents: Latents | None
    plan: Plan
    timings: dict[str, float]
    warnings: tuple[str, ...]
    alignment: LyricAlignment
    applied: tuple[AppliedAdapter, ...]


@dataclass
class SongRender:
    """One request, and the parts in which it is rendered."""

    request: Completed
    parts: list[RenderPart]
    #: What is written beside its stems, if anything.
    beside: OutputPart | None
    #: The number of its first take: takes with codes of their own come here as songs of their own.
    first: int = 1
    #: What the Songwriter thinks of its codes.
    code_scores: Scores = field(default_factory=dict)
    #: The sum of the stems of each take.
    stem_sums: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Completed, first: int, judged: Scores) -> SongRender:
        pieces = complete.output_parts(request)
        beside = next((piece for piece in pieces if piece.kind in modes.BESIDE), None)
        return cls(request, [RenderPart.of(piece) for piece in pieces if piece is not beside], beside, first, judged)

    def finish(self, part: RenderPart, decoded: DecodedTake) -> Iterator[Take]:
        """The take of `part`, and after the last of its stems what is written beside them."""
        review = conditioning.check_splice(decoded.layout, decoded.waveform, part.prepared.splice)
        take = make_take(part.output, decoded, review, self)
        yield replace(take, untouched=conditioning.untouched_spans(decoded.layout, part.prepared.splice))
        if self.beside is None:
            return
        before = self.stem_sums.pop(decoded.number, torch.zeros(1))
        self.stem_sums[decoded.number] = before + decoded.waveform
        if part is self.parts[-1]:
            whole, review = conditioning.mix_stems(decoded.layout, self.stem_sums.pop(decoded.number), self.beside.kind)
            yield make_take(self.beside, decoded._replace(waveform=whole, latents=None, timings={}), review, self)


def make_take(output: OutputPart, decoded: DecodedTake, report: conditioning.SpliceReport, song: SongRender) -> Take:
    """A piece of a song as a file is written of it."""
    audio, request = (
        Audio(decoded.waveform.numpy(), decoded.layout.rate),
        complete.take_request(output.request, decoded.number),
    )
    number = song.first + decoded.number - 1
    return Take(
        *(number, audio, request, decoded.plan, decoded.timings, decoded.warnings, output.kind, output.track, *report),
        latents=decoded.latents,
        lines=decoded.alignment.lines,
        scores={name: round(value, 4) for name, value in {**decoded.alignment.scores, **song.code_scores}.items()},
        applied=decoded.applied,
    )


class DiffusionInputs(NamedTuple):
    """What the diffusion of a part starts from: a context [1, T, in_channels - C] for each scene, what it holds on to,
    and latents to begin with.
    """

    contexts: list[Tensor]
    hold: denoise.SourceHold | None
    start: Tensor | None


# Borrowing happens in functions of their own: a name bound in the generator would keep a component alive, whatever
# the store thinks.


def run_songwriter(
    weights: WeightStore, stages: StageCache, requests: Sequence[Completed], say: Say
) -> list[tuple[int, Completed, Scores]]:
    """The requests with nothing open, each with the number of its first take, and what the Songwriter thinks of it.

    What the Songwriter leads has codes for each take, so it becomes a request for each.
    """
    found: list[tuple[int, Completed, Scores]] = []
    for request in requests:
        write = partial(complete_request, weights, request, say)
        songs = stages.completed_takes(request, weights.plan, write) if request.open else [request]
        judged = score_codes(weights, songs) if ranking.JUDGEMENT in request.scored else [{}] * len(songs)
        found += zip(range(1, len(songs) + 1), songs, judged, strict=True)
    return found


def complete_request(weights: WeightStore, request: Completed, say: Say) -> list[Completed]:
    """The takes of a request as the Songwriter makes them."""
    with weights.songwriter() as songwriter:
        return list(songwriter.complete_takes(request, weights.checkpoint.row.shortest_seconds, weights.report, say))


def score_codes(weights: WeightStore, songs: Sequence[Completed]) -> list[Scores]:
    """What the Songwriter thinks of songs with codes."""
    found = []
    with weights.songwriter() as songwriter:
        for done, song in enumerate(songs, start=1):
            found.append(code_likelihood.score_codes(songwriter, song))
            weights.report("judge", done, len(songs))
    return found


def encode_prompts(weights: WeightStore, parts: Sequence[RenderPart]) -> None:
    """Give each scene the states of its text prompt and the embeddings of its lyric prompt."""
    phases = [(part, scene) for part in parts for scene in part.phases]
    for part in parts:
        part.warnings.clear()  # of a try that ran out of memory
    with weights.text_encoder() as encoder:
        for number, (part, scene) in enumerate(phases):
            weights.report("text", number, len(phases))
            request, warn = part.output.request, part.warnings.append
            prompt, lyrics = prompts.prompts_of(request, scene.prepared.instruction, request.duration)
            scene.text_states = encoder.hidden_states(prompt, warn)
            scene.lyric_states = encoder.embeddings(lyrics, warn)
            wanted = request.lrc or ranking.LYRIC_ALIGNMENT in request.scored
            if wanted and duration.is_sung(request.lyrics):
                part.lyrics = LyricTokens.of(
                    encoder.tokenizer, encoder.token_ids(lyrics, prompts.LYRIC_TOKENS), request.language
                )
        weights.report("text", len(phases), len(phases))


def encode_references(weights: WeightStore, stages: StageCache, waveforms: Sequence[Tensor]) -> Tensor | None:
    """Waveforms [A, N], all as long, -> latents [R, N // hop, C], float32 on the CPU; None of none."""

    def encoded() -> Tensor:
        with weights.vae() as vae:
            tile, report = weights.plan.tile_frames, partial(weights.report, "listen")
            return torch.stack([codec.encode_waveform(vae, waveform, tile, report) for waveform in waveforms])

    return stages.encoded_latents(waveforms, weights.plan, encoded) if waveforms else None


def source_latents(
    weights: WeightStore, stages: StageCache, request: Completed, layout: SourceLayout, silence: Tensor
) -> Tensor | None:
    """The latents [1, T, C] of what lies on the canvas, float32 on the CPU: as they were kept, or else as the
    autoencoder hears it; None of nothing.
    """
    if request.kept is not None:
        return conditioning.place_stored_latents(request.kept, layout, silence)
    return encode_references(weights, stages, layout.waveforms)


def prepare_inputs(
    weights: WeightStore, part: RenderPart, layout: SourceLayout, original: Tensor | None, silence: Tensor
) -> DiffusionInputs:
    """Make what the diffusion of a part starts from; `original` are the latents of what lies on the canvas."""
    prepared = part.prepared
    with weights.dit() as model:
        sources = conditioning.SourceLatents(layout, model, silence.to(weights.device, weights.dtype), original)
        contexts = [conditioning.context_latents(scene.prepared, sources) for scene in part.phases]
        hold = conditioning.source_hold(sources, prepared.splice, turbo=weights.checkpoint.row.turbo)
        start = sources.original() if prepared.kept else None
        return DiffusionInputs(contexts, hold, start)


def encode_conditions(
    weights: WeightStore, part: RenderPart, timbre: Tensor | None, silence: Tensor
) -> list[Condition]:
    """Encode the condition of each scene, with the latents of references [R, frames, C], or of silence."""
    with weights.dit() as model:
        quiet = codec.repeat_silence(silence, model.config.timbre_fix_frame)
        voices = (quiet if timbre is None else timbre).to(weights.device, weights.dtype)
        return [
            model.encoder(scene.text_states, scene.lyric_states, voices, timbre_owner=[0] * len(voices))
            for scene in part.phases
        ]


def prepare_guidance(request: Completed, model: AceStep) -> denoise.Guided | None:
    """How the velocity is guided; None where guidance is off."""
    if request.guidance_method is None or request.cfg_interval is None:
        return None
    unconditional = model.decoder.project_condition(model.null_condition())
    return denoise.Guided(unconditional, request.guidance, request.guidance_method, request.cfg_interval)


def diffuse(
    weights: WeightStore,
    stages: StageCache,
    part: RenderPart,
    inputs: DiffusionInputs,
    conditions: Sequence[Condition],
    take: Completed,
    progress: Progress,
) -> tuple[Tensor, bool]:
    """From the noise of a take to its latents [T, C], and whether that was done now.

    The condition is projected here, each time: the projections are the decoder's, and may have become int8 meanwhile.
    """
    then, hold = part.prepared.then, inputs.hold

    def made() -> Tensor:
        with weights.dit() as model:
            memories = [model.decoder.project_condition(condition) for condition in conditions]
            latents = denoise.denoise(
                model.decoder,
                denoise.starting_noise(take.seed, inputs.contexts[0].shape[1], model.config.latent_channels),
                inputs.contexts[0],
                memories[0],
                part.schedule,
                solver=take.solver,
                guided=prepare_guidance(take, model),
                seed=take.seed,
                progress=progress,
                switch=denoise.ConditionSwitch(then[0], inputs.contexts[1], memories[1]) if then else None,
                hold=hold,
                start=inputs.start,
            )
            return conditioning.crossfade_latents(latents, hold)[0]

    guided = (take.guidance, take.guidance_method, take.cfg_interval)
    settings = [part.schedule, take.solver, take.seed, guided, then and then[0], hold and (hold.share, hold.last_step)]
    held = (hold.clean, hold.inside, hold.blend) if hold is not None else ()
    given = [*inputs.contexts, *(tensor for condition in conditions for tensor in condition), *held, inputs.start]
    latents, is_new = stages.take_latents(weights.adapters, settings, given, weights.plan, made)
    if not is_new:
        progress(part.steps, part.steps)
    return latents.to(weights.device), is_new


def align_take(
    weights: WeightStore,
    part: RenderPart,
    inputs: DiffusionInputs,
    conditions: Sequence[Condition],
    take: Completed,
    latents: Tensor,
    vae: VAEConfig,
) -> LyricAlignment:
    """When the words of a take are sung, and how surely, as the last of its scenes hears its latents [T, C]."""
    assert part.lyrics is not None
    with weights.dit() as model:
        cross_kv = model.decoder.project_condition(conditions[-1])
        probe = alignment.AttentionProbe(
            model.decoder, weights.checkpoint.alignment_heads, part.lyrics, inputs.contexts[-1], cross_kv
        )
        return alignment.align_lyrics(probe, take, latents, part.steps, len(latents) * vae.seconds_per_frame)


def encode(weights: WeightStore, waveform: Tensor) -> Tensor:
    """Waveform [A, N] -> latents [T, C], float32 on the CPU."""
    with weights.vae() as vae:
        report = partial(weights.report, "encode")
        return codec.encode_waveform(vae, waveform, weights.plan.tile_frames, report)


def tokenize(weights: WeightStore, latents: Tensor, silence: Tensor) -> tuple[int, ...]:
    """The audio codes of latents [T, C]; what the last one lacks is silence."""
    with weights.dit() as model:
        rest = codec.repeat_silence(silence, -len(latents) % model.config.pool_window_size)
        _, codes = model.tokenizer(torch.cat((latents[None], rest), dim=1).to(weights.device, weights.dtype))
        return tuple(codes[0].tolist())


def ask_songwriter(weights: WeightStore, task: WritingTask, sampling: Sampling, seed: int) -> dict[str, Any]:
    """What the Songwriter writes."""
    with weights.songwriter() as songwriter:
        return songwriter.answer(
            task, sampling, denoise.stage_generator(seed, "text"), partial(weights.report, "write")
        )


def decode(weights: WeightStore, latents: Tensor, progress: Progress) -> Tensor:
    """Latents [T, C] -> waveform [A, T * hop], float32 on the CPU."""
    with weights.vae() as vae:
        return codec.decode_latents(vae, latents, weights.plan.tile_frames, progress)


class StageClock:
    """Seconds spent in each stage since the last lap; loading is a stage of its own, whichever others it interrupts."""

    def __init__(self, weights: WeightStore) -> None:
        self.weights = weights
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start, loaded = time.perf_counter(), self.weights.loading_seconds
        yield
        self.weights.synchronize()
        loading = self.weights.loading_seconds - loaded
        for name, spent in ((stage, time.perf_counter() - start - loading), ("load", loading)):
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def discard(self, stage: str) -> None:
        """Leave out a stage that was not done: its seconds would tell a lie about this machine."""
        del self.seconds[stage]

    def lap(self) -> dict[str, float]:
        """The seconds so far, rounded to milliseconds; counting starts anew."""
        seconds, self.seconds = self.seconds, {}
        return {stage: round(spent, 3) for stage, spent in seconds.items()}
