"""The path from completed requests to finished takes, which every mode goes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
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
from acestep_cli.engine import alignment, codec, conditioning, denoise, flow_edit
from acestep_cli.engine.alignment import LyricAlignment, LyricTokens
from acestep_cli.engine.conditioning import SourceLayout
from acestep_cli.engine.dit import AceStep, Condition, stack_conditions
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
        together: Sequence[int] | None = None,
    ) -> Generator[Take]:
        """Make the takes of completed requests, and yield each as soon as it is decoded.

        The text encoder is loaded once for all requests, and so is the diffusion transformer. The takes of one song
        share their source, and without a reference their condition. `together` has, for each request, the most takes
        that share a forward pass; unset, the plan says it for all. A take that shares none is the same in any run, bit
        for bit; with others it is the same within rounding: a matrix product rounds otherwise at another batch size.

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
            yield from renderer.render(requests, together or [self.plan.together] * len(requests))

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

    def render(self, requests: Sequence[Completed], together: Sequence[int]) -> Iterator[Take]:
        """Yield the takes of all requests: the Songwriter and the text encoder work for all of them first."""
        if len(requests) == 1:
            self.limit.begin_song()
        self.retry.share_passes(max(together))
        with self.clock("write"):
            write = partial(run_songwriter, self.weights, self.stages, requests, together, self.say)
            written = self.retry("write", requests[0], write)
        songs = [SongRender.of(takes, scores, most) for (takes, scores), most in zip(written, together, strict=True)]
        parts = [part for song in songs for part in song.parts]
        report = self.weights.report
        self.diffusion_progress = StageShare(report, "diffuse", [part.steps for part in parts for _ in part.takes])
        self.decoding_progress = StageShare(
            report, "decode", [math.ceil(take.duration) for part in parts for take in part.takes]
        )
        with self.clock("text"):
            self.retry("text", requests[0], encode_prompts, self.weights, parts)
        for song in songs:
            if len(requests) > 1:
                self.limit.begin_song()
            yield from self._render_song(song)

    def _render_song(self, song: SongRender) -> Iterator[Take]:
        self.weights.trim_memory()
        self.weights.adapters = song.request.adapters
        self.retry.share_passes(song.together)
        source = self._load_source(song)
        for part in song.parts:
            for decoded in self._render_part(part, source):
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

    def _render_part(self, part: RenderPart, source: SongSource) -> Iterator[DecodedTake]:
        """Yield the takes of a part, diffused in groups as large as the plan says, and decoded one by one."""
        made, last = 0, None
        while takes := part.takes[made : made + self.weights.plan.together]:
            group: list[TakeInputs] = []
            for take in takes:
                last = self._take_inputs(part, source, take, last)
                group.append(last)
            for inputs, diffused in zip(group, self._diffuse(group), strict=True):
                made += 1
                yield self._decode_take(made, inputs, diffused, source.layout)

    def _take_inputs(
        self, part: RenderPart, source: SongSource, take: Completed, before: TakeInputs | None
    ) -> TakeInputs:
        """Return the inputs of a take. Unless it has codes or references of its own, it shares those of the one
        `before`.
        """
        if before is None or part.has_own_codes:
            with self.clock("condition"):
                diffusion = self.retry("condition", take, prepare_inputs, self.weights, take, source, self.silence)
            self._announce_adapters()
        else:
            diffusion = before.diffusion
        shares = before is not None and not source.references
        conditions = before.conditions if before and shares else self._encode_conditions(part, source, take)
        return TakeInputs(part, take, diffusion, conditions)

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

    def _diffuse(self, group: Sequence[TakeInputs]) -> list[DiffusedTake]:
        """Diffuse takes together. Each has an equal share of the seconds, but for those that were in the cache."""
        made: dict[int, DiffusedTake] = {}  # outside of the stage: what is made before memory runs out stays
        progress = self.diffusion_progress.next_group(len(group))
        with self.clock("diffuse"):
            self.retry("diffuse", group[0].take, diffuse, self.weights, self.stages, group, made, progress)
        spent = self.clock.pop("diffuse")
        found = [made[place] for place in range(len(group))]
        new = sum(take.seconds is not None for take in found)
        return [take if take.seconds is None else take._replace(seconds=spent / new) for take in found]

    def _decode_take(
        self, number: int, inputs: TakeInputs, diffused: DiffusedTake, layout: SourceLayout
    ) -> DecodedTake:
        """Align and decode one take, and splice it onto its source."""
        part, take, latents = inputs.part, inputs.take, diffused.latents
        if diffused.seconds is not None:
            self.clock.add("diffuse", diffused.seconds)
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
            finished = None
            if layout.around is None:  # else they are those of a part
                finished = conditioning.finished_latents(layout, latents.float().cpu(), splice, self.silence)
        return DecodedTake(
            number=number,
            layout=layout,
            waveform=waveform,
            latents=finished,
            edit_change=inputs.edit_change(latents),
            plan=self.weights.plan,
            timings=self.clock.lap(),
            warnings=tuple(dict.fromkeys((*part.warnings, *self.weights.warnings))),
            alignment=aligned,
            applied=self.weights.applied,
            fell_back=self.retry.has_fallen_back(),
        )


class SongSource(NamedTuple):
    """The recordings that a song is made from."""

    layout: SourceLayout
    latents: Tensor | None  # [1, T, C], of the source
    references: list[Tensor]  # each [A, N]


@dataclass
class ConditionInputs:
    """The output of one mode, the request whose words it states, and its prompts once they are encoded."""

    prepared: Prepared
    request: Completed
    text_states: Tensor = field(init=False)  # [1, Lt, width]
    lyric_states: Tensor = field(init=False)  # [1, Ll, width]


def prepared_phases(request: Completed) -> list[tuple[Prepared, Completed]]:
    """Return what the mode of a request gives to the diffusion, phase by phase, with the request that has its words."""
    first = modes.mode_of(request).prepare(request, request.region)
    if first.edit is not None:
        return [(first, modes.source_description(request)), (first, request)]
    second = [] if first.second_phase is None else [(first.second_phase[1], request)]
    return [(first, request), *second]


@dataclass
class RenderPart:
    """The part of a song that is rendered at once: all of it, or one stem.

    The diffusion goes through its phases in their order. An edit has the description of its source before its own.
    """

    output: OutputPart
    phases: list[ConditionInputs]
    takes: list[Completed]
    #: True where the Songwriter wrote codes for each take: then each has a context of its own.
    has_own_codes: bool
    warnings: list[str] = field(default_factory=list)
    #: Its lyrics, once they are encoded, where they are to be aligned with the song.
    lyrics: LyricTokens | None = None

    @classmethod
    def of(cls, outputs: Sequence[OutputPart]) -> RenderPart:
        """Return the part of one output, or of the same output of takes that are requests of their own."""
        return cls(
            output=outputs[0],
            phases=[ConditionInputs(*phase) for phase in prepared_phases(outputs[0].request)],
            takes=[take for output in outputs for take in take_parts.single_takes(output.request)],
            has_own_codes=len(outputs) > 1,
        )

    @property
    def prepared(self) -> Prepared:
        return self.phases[0].prepared

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
    edit_change: float | None
    plan: Plan
    timings: dict[str, float]
    warnings: tuple[str, ...]
    alignment: LyricAlignment
    applied: tuple[AppliedAdapter, ...]
    fell_back: bool


@dataclass
class SongRender:
    """One request, and the parts in which it is rendered."""

    request: Completed
    parts: list[RenderPart]
    #: The output that is written beside its stems, if any: their mix, or the rest of the source.
    beside: OutputPart | None
    #: The Songwriter's scores of its codes: of each take, or one for all where they share the codes.
    code_scores: Sequence[Scores] = ({},)
    #: The most of its takes that share a forward pass.
    together: int = 1
    #: The sum of the stems of each take, by its number.
    stem_sums: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, songs: Sequence[Completed], code_scores: Sequence[Scores], together: int) -> SongRender:
        """Return the render of a request, which is one song for each take where each has codes of its own."""
        outputs = list(zip(*map(take_parts.output_parts, songs), strict=True))
        beside = next((same[0] for same in outputs if same[0].kind in modes.BESIDE), None)
        parts = [RenderPart.of(same) for same in outputs if same[0] is not beside]
        return cls(songs[0], parts, beside, code_scores, together)

    def finish(self, part: RenderPart, decoded: DecodedTake) -> Iterator[Take]:
        """Yield the take of `part`, and after the last stem the output that is written beside them."""
        layout, splice = decoded.layout, part.prepared.splice
        scores = self.code_scores[decoded.number - 1 if part.has_own_codes else 0]
        yield replace(
            make_take(part.output, part.takes[decoded.number - 1], decoded, scores),
            splice=conditioning.spliced_parts(layout, splice),
            problem=conditioning.unedited_problem(decoded.edit_change)
            or conditioning.unchanged_problem(layout, decoded.waveform, splice),
        )
        if self.beside is None:
            return
        before = self.stem_sums.pop(decoded.number, torch.zeros(1))
        self.stem_sums[decoded.number] = before + decoded.waveform
        if part is self.parts[-1]:
            stems = self.stem_sums.pop(decoded.number)
            waveform = conditioning.mix_stems(layout, stems, self.beside.kind)
            mix = decoded._replace(waveform=waveform, latents=None, timings={})
            made = make_take(self.beside, take_parts.take_request(self.beside.request, decoded.number), mix, scores)
            is_residual = modes.BESIDE[self.beside.kind] < 0
            yield replace(made, residual_of=conditioning.source_rms(layout) if is_residual else None)


def make_take(output: OutputPart, request: Completed, decoded: DecodedTake, code_scores: Scores) -> Take:
    """Return an output of a song as the value that a file is written from; `request` is that of the take alone."""
    scores = {**decoded.alignment.scores, **code_scores}
    return Take(
        number=decoded.number,
        audio=Audio(decoded.layout.whole_song(decoded.waveform).numpy(), decoded.layout.rate),
        request=request,
        plan=decoded.plan,
        timings=decoded.timings,
        warnings=decoded.warnings,
        fell_back=decoded.fell_back,
        kind=output.kind,
        track=output.track,
        latents=decoded.latents,
        lines=decoded.alignment.lines,
        scores={name: round(value, 4) for name, value in scores.items()},
        applied=decoded.applied,
        edit_change=decoded.edit_change,
    )


class DiffusionInputs(NamedTuple):
    """The tensors that the diffusion of a part starts from: a context [1, T, in_channels - C] for each phase, the
    source it holds on to, and clean latents [1, T, C] to begin with, or to edit.
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

    def edit_change(self, latents: Tensor) -> float | None:
        """Return how far latents [T, C] were edited away from the source; None where it is no edit."""
        source = self.diffusion.start
        is_edit = self.part.prepared.edit is not None
        return conditioning.relative_distance(source[0], latents) if is_edit and source is not None else None


class DiffusedTake(NamedTuple):
    """The latents [T, C] of a take, and the seconds that they took; None where they were in the cache."""

    latents: Tensor
    seconds: float | None


# Components are borrowed in functions of their own: a name bound in a generator would keep a component alive after the
# store has let it go.


def run_songwriter(
    weights: WeightStore, stages: StageCache, requests: Sequence[Completed], together: Sequence[int], say: Say
) -> list[tuple[Sequence[Completed], list[Scores]]]:
    """Return the requests with nothing open, each with the scores of its codes.

    A request for which the Songwriter draws codes has them for each take, so it becomes a request for each.
    """
    found: list[tuple[Sequence[Completed], list[Scores]]] = []
    for request, most in zip(requests, together, strict=True):
        plan = weights.plan.model_copy(update={"together": min(most, weights.plan.together)})
        write = partial(write_takes, weights, request, plan.together, say)
        songs = stages.written_takes(request, plan, write) if request.open else [request]
        scores = score_codes(weights, songs) if ranking.JUDGEMENT in request.scored else [{}] * len(songs)
        found.append((songs, scores))
    return found


def write_takes(weights: WeightStore, request: Completed, together: int, say: Say) -> list[Completed]:
    """Return the takes of a request as the Songwriter fills them in, with the codes of so many `together`."""
    shortest = weights.checkpoint.row.shortest_seconds
    with weights.songwriter() as songwriter:
        return list(songwriter.write_takes(request, shortest, together, weights.report, say))


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
            request, warn = phase.request, part.warnings.append
            prompt, lyrics = prompts.prompts_of(request, phase.prepared.instruction, request.duration)
            phase.text_states = encoder.hidden_states(prompt, warn)
            phase.lyric_states = encoder.embeddings(lyrics, warn)
            is_aligned = request.lrc or ranking.LYRIC_ALIGNMENT in request.scored
            if is_aligned and phase is part.phases[-1] and duration.is_sung(request.lyrics):
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


def diffuse(
    weights: WeightStore,
    stages: StageCache,
    group: Sequence[TakeInputs],
    made: dict[int, DiffusedTake],
    progress: Callable[[int, int], Progress],
) -> None:
    """Add the takes of a group that are not in `made` yet, by their place: from the cache, else as many together as
    the plan says now. `progress` returns the callback of so many takes after so many.
    """
    keys = [latents_key(weights, stages, inputs) for inputs in group]
    for place, key in enumerate(keys):
        if place not in made and (cached := stages.read_latents(key)) is not None:
            made[place] = DiffusedTake(cached.to(weights.device), None)
    if made:
        progress(0, len(made))(1, 1)
    while left := [place for place in range(len(group)) if place not in made]:
        places = left[: weights.plan.together]
        inputs = [group[place] for place in places]
        make = denoise_takes if inputs[0].part.prepared.edit is None else edit_takes
        latents = make(weights, inputs, progress(len(made), len(places)))
        for place, own in zip(places, latents, strict=True):
            stages.write_latents(keys[place], own)
            made[place] = DiffusedTake(own, 0.0)


def latents_key(weights: WeightStore, stages: StageCache, inputs: TakeInputs) -> str | None:
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
    return stages.latents_key(weights.adapters, settings, tensors, weights.plan)


def denoise_takes(weights: WeightStore, group: Sequence[TakeInputs], progress: Progress) -> list[Tensor]:
    """Carry the noise of takes to their latents, each [T, C], in forward passes that all of them share.

    The condition is projected here, each time: the projections are the decoder's, and may have become int8 meanwhile.
    """
    part, take, (contexts, hold, start) = group[0].part, group[0].take, group[0].diffusion
    switch, phases = part.prepared.second_phase, range(len(part.phases))
    frames = contexts[0].shape[1]
    with weights.dit() as model:
        contexts = [stack_contexts([one.diffusion.contexts[phase] for one in group]) for phase in phases]
        conditions = [stack_conditions([one.conditions[phase] for one in group]) for phase in phases]
        cross_kvs = [model.decoder.project_condition(condition) for condition in conditions]
        latents = denoise.denoise(
            model.decoder,
            torch.cat([take_noise(one.take, frames, model.config.latent_channels) for one in group]),
            contexts[0],
            cross_kvs[0],
            part.schedule,
            solver=take.solver,
            guided=prepare_guidance(take, model),
            seeds=[one.take.seed for one in group],
            progress=progress,
            switch=denoise.ConditionSwitch(switch[0], contexts[1], cross_kvs[1]) if switch else None,
            hold=hold,
            start=start,
            corrections=corrections_of(take),
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
    source_kv, target_kv = map(model.decoder.project_condition, inputs.conditions)
    return flow_edit.edit(
        model.decoder,
        source,
        contexts[0],
        source_kv,
        target_kv,
        part.schedule,
        window=part.prepared.edit,
        guided=prepare_guidance(take, model),
        seed=take.seed,
        progress=progress,
        corrections=corrections_of(take),
    )[0]


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
            self.add(name, spent)

    def add(self, stage: str, seconds: float) -> None:
        """Count seconds that `pop` returned, or a share of them."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def pop(self, stage: str) -> float:
        """Return the seconds of a stage, and count them no more."""
        return self.seconds.pop(stage)

    def lap(self) -> dict[str, float]:
        """Return the seconds so far, rounded to milliseconds, and start to count anew."""
        seconds, self.seconds = self.seconds, {}
        return {stage: round(spent, 3) for stage, spent in seconds.items()}
