"""The path from completed requests to finished takes, which every mode goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

from acestep_cli.song import take_parts

import acestep_cli.engine.load_libraries  # noqa: F401  # isort: skip - loads torch where the current folder is gone
import torch
from torch import Tensor

from acestep_cli.audio.sound import Audio
from acestep_cli.cache import Cache
from acestep_cli.engine import conditioning, diffusion, stages
from acestep_cli.engine.alignment import LyricAlignment
from acestep_cli.engine.conditioning import SourceLayout
from acestep_cli.engine.diffusion import DiffusedTake
from acestep_cli.engine.dit import AceStep, Condition
from acestep_cli.engine.oom_retry import OutOfMemoryRetry
from acestep_cli.engine.song_parts import RenderPart, SongSource, TakeInputs
from acestep_cli.engine.stage_cache import StageCache
from acestep_cli.engine.stage_clock import StageClock
from acestep_cli.engine.time_limit import TimeLimit
from acestep_cli.engine.weights import WeightStore, load_silence
from acestep_cli.machine.plan import Plan
from acestep_cli.models.adapters import AppliedAdapter
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.models.latents_file import Latents
from acestep_cli.models.sizes import Sizes
from acestep_cli.progress import ProgressCallback, Say, StageShare
from acestep_cli.song import modes
from acestep_cli.song.complete import Completed
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
        self.stage_cache = StageCache(cache, checkpoint, songwriter)
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
        on_lengths: Callable[[Sequence[float]], None] = lambda seconds: None,
    ) -> Generator[Take]:
        """Make the takes of completed requests, and yield each as soon as it is decoded.

        The text encoder is loaded once for all requests, and so is the diffusion transformer. The takes of one song
        share their source, and without a reference their condition. `together` has, for each request, the most takes
        that share a forward pass; unset, the plan says it for all. A take that shares none is the same in any run, bit
        for bit; with others it is the same within rounding: a matrix product rounds otherwise at another batch size.

        When memory runs out, the stage is done again with the next fallback, which `warn` receives in words. `say`
        receives what the Songwriter decided, before anything is rendered, and how the adapters of a song are applied;
        `on_lengths` the seconds of each take, and of each stem, in the order in which they are made.
        Raises `CheckpointError` for weights that do not fit their config, `MemoryLimitError` when no fallback is left,
        `TimeLimitError` for a request that takes more than `timeout` seconds besides the loading of weights. What the
        Songwriter and the text encoder do for several requests counts for none of them.
        """
        limit = TimeLimit(timeout, lambda: weights.loading_seconds)
        report = limit.following(report)
        with closing(WeightStore(self.checkpoint, self.plan, report, self.songwriter, self.dit)) as weights:
            renderer = Renderer(
                weights=weights,
                stage_cache=self.stage_cache,
                sizes=self.sizes,
                silence=self.silence,  # read first: an error in it is better known before anything loads
                retry=OutOfMemoryRetry(weights, self.sizes, warn),
                say=say,
                limit=limit,
                on_lengths=on_lengths,
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
            return retry("write", song, stages.ask_songwriter, weights, task, sampling, seed)

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
                latents = retry("listen", song, stages.encode, weights, torch.from_numpy(recording.samples))
                yield retry("condition", song, stages.tokenize, weights, latents, self.silence)


@dataclass
class Renderer:
    """Renders requests with borrowed weights: every stage is timed, and done again when memory runs out in it."""

    weights: WeightStore
    stage_cache: StageCache
    sizes: Sizes
    silence: Tensor  # [1, F, C]
    retry: OutOfMemoryRetry
    say: Say
    limit: TimeLimit
    on_lengths: Callable[[Sequence[float]], None]
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
            write = partial(stages.run_songwriter, self.weights, self.stage_cache, requests, together, self.say)
            written = self.retry("write", requests[0], write)
        songs = [SongRender.of(takes, scores, most) for (takes, scores), most in zip(written, together, strict=True)]
        parts = [part for song in songs for part in song.parts]
        report = self.weights.report
        lengths = [take.duration for part in parts for take in part.takes]
        self.on_lengths(lengths)
        self.diffusion_progress = StageShare(report, "diffuse", [part.steps for part in parts for _ in part.takes])
        self.decoding_progress = StageShare(report, "decode", list(map(math.ceil, lengths)))
        with self.clock("text"):
            self.retry("text", requests[0], stages.encode_prompts, self.weights, parts)
        for song in songs:
            if len(requests) > 1:
                self.limit.begin_song(song.units)
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
                "listen", request, stages.source_latents, self.weights, self.stage_cache, request, layout, self.silence
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
                own = self.retry("condition", take, stages.prepare_inputs, self.weights, take, source, self.silence)
            self._announce_adapters()
        else:
            own = before.diffusion
        shares = before is not None and not source.references
        conditions = before.conditions if before and shares else self._encode_conditions(part, source, take)
        return TakeInputs(part, take, own, conditions)

    def _announce_adapters(self) -> None:
        if self.weights.applied != self.announced:
            self.announced = self.weights.applied
            for adapter in self.announced:
                self.say(adapter.sentence)

    def _encode_conditions(self, part: RenderPart, source: SongSource, take: Completed) -> list[Condition]:
        """Encode words and timbre; each take draws windows of its own from the references."""
        with self.clock("listen"):
            windows = conditioning.reference_windows(source.references, self.sizes, take.seed)
            timbre = self.retry("listen", take, stages.encode_references, self.weights, self.stage_cache, windows)
        with self.clock("condition"):
            return self.retry("condition", take, stages.encode_conditions, self.weights, part, timbre, self.silence)

    def _diffuse(self, group: Sequence[TakeInputs]) -> list[DiffusedTake]:
        """Diffuse takes together. Each has an equal share of the seconds, but for those that were in the cache."""
        made: dict[int, DiffusedTake] = {}  # outside of the stage: what is made before memory runs out stays
        progress = self.diffusion_progress.next_group(len(group))
        with self.clock("diffuse"):
            self.retry(
                "diffuse", group[0].take, diffusion.diffuse, self.weights, self.stage_cache, group, made, progress
            )
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
                aligned = self.retry("align", take, stages.align_take, self.weights, inputs, latents, self.sizes.vae)
        with self.clock("decode"):
            waveform = self.retry(
                "decode",
                take,
                stages.decode,
                self.weights,
                stages.shift_latents(latents, take),
                self.decoding_progress.next(),
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
            fell_back=self.retry.pop_fell_back(),
        )


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

    @property
    def units(self) -> dict[str, int]:
        """Its units in the stages whose progress is that of all songs: steps, and seconds of sound."""
        takes = [(part, take) for part in self.parts for take in part.takes]
        return {
            "diffuse": sum(part.steps for part, _ in takes),
            "decode": sum(math.ceil(take.duration) for _, take in takes),
        }

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
