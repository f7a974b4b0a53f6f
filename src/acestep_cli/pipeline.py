"""The path from completed requests to finished takes, which every mode goes."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

from acestep_cli.song import take_parts

import acestep_cli.engine.load_libraries  # noqa: F401  # isort: skip - loads torch where the current folder is gone
import torch
from torch import Tensor

from acestep_cli import solvers
from acestep_cli.audio.sound import Audio
from acestep_cli.cache import Cache
from acestep_cli.engine import alignment, codec, conditioning, denoise
from acestep_cli.engine.alignment import LyricAlignment, LyricTokens
from acestep_cli.engine.conditioning import SourceLayout
from acestep_cli.engine.dit import AceStep, Condition
from acestep_cli.engine.oom_retry import OutOfMemoryRetry
from acestep_cli.engine.stage_cache import StageCache
from acestep_cli.engine.time_limit import TimeLimit
from acestep_cli.engine.weights import WeightStore, load_silence
from acestep_cli.machine.plan import Plan
from acestep_cli.models.adapters import AppliedAdapter
from acestep_cli.models.checkpoints import Checkpoint, Songwriter
from acestep_cli.models.configs import VAEConfig
from acestep_cli.models.latents_file import Latents
from acestep_cli.models.sizes import Sizes
from acestep_cli.progress import Progress, ProgressCallback, Say, StageShare
from acestep_cli.song import duration, modes, prompts, ranking
from acestep_cli.song.complete import Completed
from acestep_cli.song.modes import Prepared
from acestep_cli.song.ranking import Scores
from acestep_cli.song.songwriter_prompts import Sampling, WritingTask
from acestep_cli.song.take_parts import OutputPart
from acestep_cli.take import Take


class Pipeline:
    """One checkpoint under one plan, for any number of requests."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: Plan,
        songwriter: Songwriter | None = None,
        dit: AceStep | None = None,
        cache: Cache | None = None,
    ) -> None:
        """Read the configs. Weights are loaded when a stage borrows them, unless `dit` is given; a stage that finds its
        result in `cache` borrows none.
        """
        self.checkpoint = checkpoint
        self.dit = dit
        self.songwriter = songwriter
        self.plan = plan
        self.stages = StageCache(cache, checkpoint, songwriter)
        self.sizes = Sizes.of(checkpoint, songwriter)

    @cached_property
    def silence(self) -> Tensor:
        """The silence latent of the checkpoint, [1, F, C]."""
        return load_silence(self.checkpoint.silence_file, self.sizes.dit.latent_channels)

    @torch.inference_mode()
    def run(
        self,
        requests: Sequence[Completed],
        report: ProgressCallback,
        warn: Say = lambda sentence: None,
        say: Say = lambda sentence: None,
        timeout: float | None = None,
    ) -> Generator[Take]:
        """Make the takes of completed requests, one after another, and yield each as soon as it is decoded.

        The text encoder is loaded once for all requests, and so is the diffusion transformer. Takes never share a
        forward pass: a matrix product may round differently at another batch size, and take k of a run is promised
        to equal take k alone. The takes of one song share their source, and without a reference their condition.

        When memory runs out, the stage is done again with the next fallback, which `warn` receives in words. `say`
        receives what the Songwriter decided, before anything is rendered, and how the adapters of a song are applied.
        Raises `CheckpointError` for weights that do not fit their config, `MemoryLimitError` when no fallback is left,
        `TimeLimitError` for a request that takes more than `timeout` seconds besides the loading of weights. What the
        Songwriter and the text encoder do for several requests counts for none of them.
        """
        limit = TimeLimit(timeout, lambda: weights.loading_seconds)
        report = limit.following(report)
        with closing(WeightStore(self.checkpoint, self.plan, report, self.songwriter, self.dit)) as weights:
            renderer = Renderer(
                weights=weights,
                stages=self.stages,
                sizes=self.sizes,
                silence=self.silence,  # read first: an error in it is better known before anything loads
                retry=OutOfMemoryRetry(weights, self.sizes, warn),
                say=say,
                limit=limit,
            )
            yield from renderer.render(requests)

    @torch.inference_mode()
    def write(
        self, song: Completed, task: WritingTask, sampling: Sampling, seed: int, report: ProgressCallback, warn: Say
    ) -> dict[str, Any]:
        """Return the Songwriter's answer to a task about `song`, as keys of a request with their values; lyrics None
        are an instrumental. `warn` and errors as in `run`.
        """
        with closing(WeightStore(self.checkpoint, self.plan, report, self.songwriter)) as weights:
            retry = OutOfMemoryRetry(weights, self.sizes, warn)
            return retry("write", song, ask_songwriter, weights, task, sampling, seed)

    @torch.inference_mode()
    def codes(
        self, song: Completed, recordings: Iterable[Audio], report: ProgressCallback, warn: Say
    ) -> Generator[tuple[int, ...]]:
        """Yield the audio codes of each of `recordings`, which have the rate and the channels of the autoencoder; the
        longest is as long as `song`. `warn` and errors as in `run`.
        """
        with closing(WeightStore(self.checkpoint, self.plan, report)) as weights:
            retry = OutOfMemoryRetry(weights, self.sizes, warn)
            for recording in recordings:
                latents = retry("listen", song, encode, weights, torch.from_numpy(recording.samples))
                yield retry("condition", song, tokenize, weights, latents, self.silence)


@dataclass
class Renderer:
    """Renders requests with borrowed weights: every stage is timed, and done again when memory runs out in it."""

    weights: WeightStore
    stages: StageCache
    sizes: Sizes
    silence: Tensor  # [1, F, C]
    retry: OutOfMemoryRetry
    say: Say
    limit: TimeLimit
    clock: StageClock = field(init=False)
    #: Shares of the takes still to be made in the progress of all.
    diffusion_progress: StageShare = field(init=False)
    decoding_progress: StageShare = field(init=False)
    #: The adapters that `say` received last.
    announced: tuple[AppliedAdapter, ...] = ()

    def __post_init__(self) -> None:
        self.clock = StageClock(self.weights)

    def render(self, requests: Sequence[Completed]) -> Iterator[Take]:
        """Yield the takes of all requests: the Songwriter and the text encoder work for all of them first."""
        if len(requests) == 1:
            self.limit.begin_song()
        with self.clock("write"):
            completed = self.retry("write", requests[0], run_songwriter, self.weights, self.stages, requests, self.say)
        songs = [SongRender.of(request, first, scores) for first, request, scores in completed]
        parts = [part for song in songs for part in song.parts]
        report = self.weights.report
        self.diffusion_progress = StageShare(report, "diffuse", [part.steps for part in parts for _ in part.takes])
        self.decoding_progress = StageShare(
            report, "decode", [math.ceil(take.duration) for part in parts for take in part.takes]
        )
        with self.clock("text"):
            self.retry("text", requests[0], encode_prompts, self.weights, parts)
        for song in songs:
            if len(requests) > 1 and song.first == 1:
                self.limit.begin_song()
            yield from self._render_song(song)

    def _render_song(self, song: SongRender) -> Iterator[Take]:
        self.weights.trim_memory()
        self.weights.adapters = song.request.adapters
        source = self._load_source(song)
        for part in song.parts:
            for decoded in self._render_part(song, part, source):
                yield from song.finish(part, decoded)

    def _load_source(self, song: SongRender) -> SongSource:
        """Read the recordings that a song is made from, and encode its source."""
        request = song.request
        with self.clock("listen"):
            layout = SourceLayout.of(request, song.parts[0].prepared, self.sizes.vae)
            references = [conditioning.load_waveform(file, layout.rate) for file in request.reference or ()]
            latents = self.retry(
                "listen", request, source_latents, self.weights, self.stages, request, layout, self.silence
            )
        return SongSource(layout, latents, references)

    def _render_part(self, song: SongRender, part: RenderPart, source: SongSource) -> Iterator[DecodedTake]:
        """Yield the takes of a part. They share their inputs, and without references their conditions."""
        with self.clock("condition"):
            diffusion = self.retry("condition", song.request, prepare_inputs, self.weights, part, source, self.silence)
        self._announce_adapters()
        conditions: list[Condition] = []
        for number, take in enumerate(part.takes, start=1):
            if number == 1 or source.references:
                conditions = self._encode_conditions(part, source, take)
            yield self._render_take(number, TakeInputs(part, take, diffusion, conditions), source.layout)

    def _announce_adapters(self) -> None:
        if self.weights.applied != self.announced:
            self.announced = self.weights.applied
            for adapter in self.announced:
                self.say(adapter.sentence)

    def _encode_conditions(self, part: RenderPart, source: SongSource, take: Completed) -> list[Condition]:
        """Encode words and timbre; each take draws windows of its own from the references."""
        with self.clock("listen"):
            windows = conditioning.reference_windows(source.references, self.sizes, take.seed)
            timbre = self.retry("listen", take, encode_references, self.weights, self.stages, windows)
        with self.clock("condition"):
            return self.retry("condition", take, encode_conditions, self.weights, part, timbre, self.silence)

    def _render_take(self, number: int, inputs: TakeInputs, layout: SourceLayout) -> DecodedTake:
        """Diffuse, align and decode one take, and splice it onto its source."""
        part, take = inputs.part, inputs.take
        with self.clock("diffuse"):
            latents, is_new = self.retry(
                "diffuse", take, diffuse, self.weights, self.stages, inputs, self.diffusion_progress.next()
            )
        if not is_new:
            self.clock.discard("diffuse")
        aligned = LyricAlignment()
        if part.lyrics is not None:
            with self.clock("align"):
                aligned = self.retry("align", take, align_take, self.weights, inputs, latents, self.sizes.vae)
        with self.clock("decode"):
            waveform = self.retry(
                "decode", take, decode, self.weights, shift_latents(latents, take), self.decoding_progress.next()
            )
            splice = part.prepared.splice
            waveform = conditioning.splice_waveform(layout, waveform[:, : layout.samples], splice)
            finished = conditioning.finished_latents(layout, latents.float().cpu(), splice, self.silence)
        return DecodedTake(
            number=number,
            layout=layout,
            waveform=waveform,
            latents=finished,
            plan=self.weights.plan,
            timings=self.clock.lap(),
            warnings=(*part.warnings, *self.weights.warnings),
            alignment=aligned,
            applied=self.weights.applied,
        )


class SongSource(NamedTuple):
    """The recordings that a song is made from."""

    layout: SourceLayout
    latents: Tensor | None  # [1, T, C], of the source
    references: list[Tensor]  # each [A, N]


@dataclass
class ConditionInputs:
    """The output of one mode, and its prompts once they are encoded."""

    prepared: Prepared
    text_states: Tensor = field(init=False)  # [1, Lt, width]
    lyric_states: Tensor = field(init=False)  # [1, Ll, width]


@dataclass
class RenderPart:
    """The part of a song that is rendered at once: all of it, or one stem.

    The diffusion goes through its phases in their order.
    """

    output: OutputPart
    phases: list[ConditionInputs]
    warnings: list[str] = field(default_factory=list)
    #: Its lyrics, once they are encoded, where they are to be aligned with the song.
    lyrics: LyricTokens | None = None

    @classmethod
    def of(cls, output: OutputPart) -> RenderPart:
        prepared = modes.mode_of(output.request).prepare(output.request, output.request.region)
        second = [] if prepared.second_phase is None else [ConditionInputs(prepared.second_phase[1])]
        return cls(output, [ConditionInputs(prepared), *second])

    @property
    def prepared(self) -> Prepared:
        return self.phases[0].prepared

    @property
    def takes(self) -> list[Completed]:
        request = self.output.request
        return [take_parts.take_request(request, number) for number in range(1, request.takes + 1)]

    @property
    def schedule(self) -> tuple[float, ...]:
        """The times of the diffusion, from noise, or from the share of the source that is kept, to 0."""
        request, source_share = self.output.request, self.prepared.source_share
        if request.timesteps is not None:
            times = solvers.explicit_schedule(request.timesteps)
        else:
            assert request.steps is not None
            assert request.shift is not None
            times = solvers.timestep_schedule(request.steps, request.shift)
        return solvers.shorten_schedule(times, source_share) if source_share else times

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
    #: The output that is written beside its stems, if any: their mix, or the rest of the source.
    beside: OutputPart | None
    #: The number of its first take: takes with codes of their own are songs of their own here.
    first: int = 1
    #: The Songwriter's scores of its codes.
    code_scores: Scores = field(default_factory=dict)
    #: The sum of the stems of each take, by its number.
    stem_sums: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Completed, first: int, code_scores: Scores) -> SongRender:
        outputs = take_parts.output_parts(request)
        beside = next((output for output in outputs if output.kind in modes.BESIDE), None)
        return cls(
            request=request,
            parts=[RenderPart.of(output) for output in outputs if output is not beside],
            beside=beside,
            first=first,
            code_scores=code_scores,
        )

    def finish(self, part: RenderPart, decoded: DecodedTake) -> Iterator[Take]:
        """Yield the take of `part`, and after the last stem the output that is written beside them."""
        layout, splice = decoded.layout, part.prepared.splice
        yield replace(
            make_take(part.output, decoded, self),
            splice=conditioning.spliced_parts(layout, splice),
            problem=conditioning.unchanged_problem(layout, decoded.waveform, splice),
        )
        if self.beside is None:
            return
        before = self.stem_sums.pop(decoded.number, torch.zeros(1))
        self.stem_sums[decoded.number] = before + decoded.waveform
        if part is self.parts[-1]:
            stems = self.stem_sums.pop(decoded.number)
            waveform = conditioning.mix_stems(layout, stems, self.beside.kind)
            made = make_take(self.beside, decoded._replace(waveform=waveform, latents=None, timings={}), self)
            is_residual = modes.BESIDE[self.beside.kind] < 0
            yield replace(made, residual_of=conditioning.source_rms(layout) if is_residual else None)


def make_take(output: OutputPart, decoded: DecodedTake, song: SongRender) -> Take:
    """Return an output of a song as the value that a file is written from."""
    scores = {**decoded.alignment.scores, **song.code_scores}
    return Take(
        number=song.first + decoded.number - 1,
        audio=Audio(decoded.waveform.numpy(), decoded.layout.rate),
        request=take_parts.take_request(output.request, decoded.number),
        plan=decoded.plan,
        timings=decoded.timings,
        warnings=decoded.warnings,
        kind=output.kind,
        track=output.track,
        latents=decoded.latents,
        lines=decoded.alignment.lines,
        scores={name: round(value, 4) for name, value in scores.items()},
        applied=decoded.applied,
    )


class DiffusionInputs(NamedTuple):
    """The tensors that the diffusion of a part starts from: a context [1, T, in_channels - C] for each phase, the
    source it holds on to, and clean latents [1, T, C] to begin with.
    """

    contexts: list[Tensor]
    hold: denoise.SourceHold | None
    start: Tensor | None


class TakeInputs(NamedTuple):
    """One take of a part, with the inputs of its diffusion and a condition for each phase."""

    part: RenderPart
    take: Completed
    diffusion: DiffusionInputs
    conditions: list[Condition]


# Components are borrowed in functions of their own: a name bound in a generator would keep a component alive after the
# store has let it go.


def run_songwriter(
    weights: WeightStore, stages: StageCache, requests: Sequence[Completed], say: Say
) -> list[tuple[int, Completed, Scores]]:
    """Return the requests with nothing open, each with the number of its first take and the scores of its codes.

    A request for which the Songwriter draws codes has them for each take, so it becomes a request for each.
    """
    found: list[tuple[int, Completed, Scores]] = []
    for request in requests:
        write = partial(write_takes, weights, request, say)
        songs = stages.written_takes(request, weights.plan, write) if request.open else [request]
        scores = score_codes(weights, songs) if ranking.JUDGEMENT in request.scored else [{}] * len(songs)
        found += zip(range(1, len(songs) + 1), songs, scores, strict=True)
    return found


def write_takes(weights: WeightStore, request: Completed, say: Say) -> list[Completed]:
    """Return the takes of a request as the Songwriter completes them."""
    with weights.songwriter() as songwriter:
        return list(songwriter.write_takes(request, weights.checkpoint.row.shortest_seconds, weights.report, say))


def score_codes(weights: WeightStore, songs: Sequence[Completed]) -> list[Scores]:
    """Return the Songwriter's scores of songs with codes."""
    from acestep_cli.engine import code_likelihood  # imports transformers, as the Songwriter does

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
            request, warn = part.output.request, part.warnings.append
            prompt, lyrics = prompts.prompts_of(request, phase.prepared.instruction, request.duration)
            phase.text_states = encoder.hidden_states(prompt, warn)
            phase.lyric_states = encoder.embeddings(lyrics, warn)
            is_aligned = request.lrc or ranking.LYRIC_ALIGNMENT in request.scored
            if is_aligned and duration.is_sung(request.lyrics):
                ids = encoder.token_ids(lyrics, prompts.LYRIC_TOKENS)
                part.lyrics = LyricTokens.of(encoder.tokenizer, ids, request.language)
        weights.report("text", len(phases), len(phases))


def encode_references(weights: WeightStore, stages: StageCache, waveforms: Sequence[Tensor]) -> Tensor | None:
    """Encode R waveforms [A, N] of one length to latents [R, N // hop, C], float32 on the CPU; None without any."""

    def encoded() -> Tensor:
        with weights.vae() as vae:
            tile, report = weights.plan.tile_frames, partial(weights.report, "listen")
            return torch.stack([codec.encode_waveform(vae, waveform, tile, report) for waveform in waveforms])

    return stages.encoded_latents(waveforms, weights.plan, encoded) if waveforms else None


def source_latents(
    weights: WeightStore, stages: StageCache, request: Completed, layout: SourceLayout, silence: Tensor
) -> Tensor | None:
    """Return the latents [1, T, C] of the source, float32 on the CPU: those stored beside it, or else those that the
    autoencoder makes of it; None without a source.
    """
    if request.source_latents is not None:
        return conditioning.place_stored_latents(request.source_latents, layout, silence)
    return encode_references(weights, stages, layout.waveforms)


def prepare_inputs(weights: WeightStore, part: RenderPart, source: SongSource, silence: Tensor) -> DiffusionInputs:
    """Make the inputs that all takes of a part share."""
    prepared = part.prepared
    with weights.dit() as model:
        sources = conditioning.SourceLatents(
            layout=source.layout,
            model=model,
            silence_latent=silence.to(weights.device, weights.dtype),
            source=source.latents,
        )
        contexts = [conditioning.context_latents(phase.prepared, sources) for phase in part.phases]
        hold = conditioning.source_hold(sources, prepared.splice, turbo=weights.checkpoint.row.turbo)
        start = sources.original() if prepared.source_share else None
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


def prepare_guidance(request: Completed, model: AceStep) -> denoise.Guided | None:
    """Return how the velocity is guided; None where guidance is off."""
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


def diffuse(weights: WeightStore, stages: StageCache, inputs: TakeInputs, progress: Progress) -> tuple[Tensor, bool]:
    """Return the latents [T, C] of a take, and whether they were made now rather than found in the cache."""
    part, take = inputs.part, inputs.take
    switch, hold = part.prepared.second_phase, inputs.diffusion.hold
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
    ]
    tensors = [
        *inputs.diffusion.contexts,
        *(tensor for condition in inputs.conditions for tensor in condition),
        *((hold.clean, hold.inside, hold.blend) if hold is not None else ()),
        inputs.diffusion.start,
    ]
    make = partial(denoise_take, weights, inputs, progress)
    latents, is_new = stages.take_latents(weights.adapters, settings, tensors, weights.plan, make)
    if not is_new:
        progress(part.steps, part.steps)
    return latents.to(weights.device), is_new


def denoise_take(weights: WeightStore, inputs: TakeInputs, progress: Progress) -> Tensor:
    """Carry the noise of a take to its latents [T, C].

    The condition is projected here, each time: the projections are the decoder's, and may have become int8 meanwhile.
    """
    part, take, (contexts, hold, start) = inputs.part, inputs.take, inputs.diffusion
    switch = part.prepared.second_phase
    with weights.dit() as model:
        cross_kvs = [model.decoder.project_condition(condition) for condition in inputs.conditions]
        latents = denoise.denoise(
            model.decoder,
            take_noise(take, contexts[0].shape[1], model.config.latent_channels),
            contexts[0],
            cross_kvs[0],
            part.schedule,
            solver=take.solver,
            guided=prepare_guidance(take, model),
            seeds=[take.seed],
            progress=progress,
            switch=denoise.ConditionSwitch(switch[0], contexts[1], cross_kvs[1]) if switch else None,
            hold=hold,
            start=start,
            corrections=corrections_of(take),
        )
        return conditioning.crossfade_latents(latents, hold)[0]


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


def encode(weights: WeightStore, waveform: Tensor) -> Tensor:
    """Encode a waveform [A, N] to latents [T, C], float32 on the CPU."""
    with weights.vae() as vae:
        report = partial(weights.report, "encode")
        return codec.encode_waveform(vae, waveform, weights.plan.tile_frames, report)


def tokenize(weights: WeightStore, latents: Tensor, silence: Tensor) -> tuple[int, ...]:
    """Return the audio codes of latents [T, C], filled up with silence to a whole code."""
    with weights.dit() as model:
        rest = codec.repeat_silence(silence, -len(latents) % model.config.pool_window_size)
        _, codes = model.tokenizer(torch.cat((latents[None], rest), dim=1).to(weights.device, weights.dtype))
        return tuple(codes[0].tolist())


def ask_songwriter(weights: WeightStore, task: WritingTask, sampling: Sampling, seed: int) -> dict[str, Any]:
    """Return the Songwriter's answer to a task."""
    with weights.songwriter() as songwriter:
        generator = denoise.stage_generator(seed, "text")
        return songwriter.answer(task, sampling, generator, partial(weights.report, "write"))


def decode(weights: WeightStore, latents: Tensor, progress: Progress) -> Tensor:
    """Decode latents [T, C] to a waveform [A, T * hop], float32 on the CPU."""
    with weights.vae() as vae:
        return codec.decode_latents(vae, latents, weights.plan.tile_frames, progress)


def shift_latents(latents: Tensor, take: Completed) -> Tensor:
    """Return the latents [T, C] that a take is decoded from. Those that are kept and cached are the ones before."""
    shift, rescale = take.latent_shift or 0.0, take.latent_rescale or 1.0
    return latents if (shift, rescale) == (0.0, 1.0) else latents * rescale + shift


class StageClock:
    """Seconds spent in each stage since the last lap; loading counts as a stage of its own, whatever it interrupts."""

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
        """Drop the seconds of a stage whose result came from the cache: they say nothing of this machine's speed."""
        del self.seconds[stage]

    def lap(self) -> dict[str, float]:
        """Return the seconds so far, rounded to milliseconds, and start to count anew."""
        seconds, self.seconds = self.seconds, {}
        return {stage: round(spent, 3) for stage, spent in seconds.items()}
