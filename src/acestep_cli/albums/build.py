"""An album as a build: its tracks as steps, each a file with a recipe, rendered again when the recipe changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from acestep_cli import disk
from acestep_cli.albums import tracks
from acestep_cli.albums.album import Album
from acestep_cli.albums.ray_cluster import Cluster
from acestep_cli.albums.tracks import Track
from acestep_cli.audio import lrc
from acestep_cli.errors import AceStepError, CheckError, combine_errors, name_lines
from acestep_cli.machine import hardware, history
from acestep_cli.models import latents_file
from acestep_cli.render import announce, outputs, paths, perform, plan, smoke, staleness
from acestep_cli.render.job import Job, SongInput, missing_parts
from acestep_cli.render.paths import Destination
from acestep_cli.render.plan import PlanContext
from acestep_cli.render.reporter import Reporter, ResultStream
from acestep_cli.render.result import FAILED, PLANNED, OutputFile
from acestep_cli.render.session import RenderSession
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import spec_layers

#: The folder below the album for the files of intermediate steps, and for the locks of builds.
WORK_FOLDER = ".acestep"
CURRENT, TAGS, STALE = "current", "tags", "stale"
STATES = (STALE, TAGS, CURRENT)


@dataclass
class BuildStep:
    """One step of a track, and the job that makes its file, once its source is there."""

    track: Track
    number: int
    place: Destination
    #: The step whose file it works on.
    source: BuildStep | None = None
    job: Job | None = None
    #: The reason why there is no job.
    problem: AceStepError | None = None

    @property
    def depth(self) -> int:
        """The number of steps before it."""
        return 0 if self.source is None else self.source.depth + 1

    @property
    def main(self) -> OutputFile | None:
        """The file that the next step works on."""
        made = self.job.outputs if self.job is not None else []
        return next((output for output in made if output.kind in ("take", self.place.main)), None)

    @property
    def is_made(self) -> bool:
        return self.main is not None and self.main.status not in (PLANNED, FAILED)

    def plan(self, context: PlanContext) -> Job:
        """Complete the job of the step, whose source is there, and return it."""
        source = self.source.main if self.source is not None else None
        region = None
        if source is not None and source.seconds is not None:
            region = self.track.edits[self.number - 1].region(source.seconds)
        path = source.path.absolute() if source is not None and source.path is not None else None
        layers = self.track.step(self.number, path, region)
        if context.settings.smoke:
            cut_to = source.seconds if source is not None and not (region and region.values) else None
            flags = self.track.over.values if self.track.over is not None else ()
            layers.append(tracks.without_keys(smoke.smoke_layer(layers, cut_to), flags))
        self.job = plan.plan_job(SongInput.of(layers, self.place, self.track.spec_file), context)
        self.job.track = self.track.id
        return self.job

    def why(self) -> list[str]:
        """Return the differences between its files and its recipe, in words; none where they are current."""
        if self.job is None:
            return [] if self.problem is None else [self.problem.message]
        found = [sentence for output in self.job.outputs for sentence in staleness.differences(self.job, output)]
        words = f"step {self.number + 1}: " if len(self.track.steps) > 1 else ""
        return [f"{words}{sentence}" for sentence in dict.fromkeys(found)]


class Build:
    """The steps of the chosen tracks of an album, in an order in which they can be made."""

    def __init__(self, album: Album, tracks: Sequence[Track], out: Path, run: RenderSettings) -> None:
        self.album, self.tracks, self.out, self.run = album, tracks, out, run
        #: The cluster that makes the tracks, if not this machine.
        self.cluster: Cluster | None = None
        #: Of a dry run, by depth: its jobs, and how many takes come after them.
        self._planned_levels: list[tuple[int, list[Job], int]] = []
        self._by_id = {track.id: track for track in tracks}
        self._steps: dict[tuple[str, int], BuildStep] = {}
        self.last = {track.id: self._step(track, track.steps[-1]) for track in tracks}
        self.steps = sorted(self._steps.values(), key=lambda step: step.depth)

    def _step(self, track: Track, number: int) -> BuildStep:
        """Return a step, and create it and those before it where they are new."""
        if (track.id, number) not in self._steps:
            source = None
            if number > track.steps[0]:
                source = self._step(track, number - 1)
            elif track.base is not None:
                base = self._by_id[track.base]
                source = self._step(base, base.steps[-1])
            self._steps[track.id, number] = BuildStep(track, number, self._place(track, number), source)
        return self._steps[track.id, number]

    def _place(self, track: Track, number: int) -> Destination:
        if number == track.steps[-1]:
            found = track_destination(self.album, track, self.out)
        else:
            stem = f"{self.album.file.stem}.{track.id}.{number + 1}"
            folder = self.out / WORK_FOLDER
            found = Destination(folder, stem, "wav", "wav", made=True, built=True, main="mix", is_intermediate=True)
        return replace(found, built=not self.run.smoke)  # which makes room for nothing: it would be for a sketch

    def outputs(self) -> list[OutputFile]:
        """Return the files of the tracks, and those of intermediate steps that failed."""
        return [
            output
            for step in self.steps
            for output in (step.job.outputs if step.job is not None else ())
            if not step.place.is_intermediate or output.status == FAILED
        ]

    def audio_paths(self) -> list[Path]:
        """Return the paths of the tracks, made or not, by this process or by others."""
        return [path for track in self.tracks for path in track_paths(self.album, track, self.out)]

    def paths(self) -> list[Path]:
        """Return the paths of the tracks and of the files beside them, made or not."""
        audio = self.audio_paths()
        return [
            *audio,
            *map(spec_layers.sidecar_path, audio),
            *map(lrc.lrc_path, audio),
            *map(latents_file.latents_path, audio),
        ]

    def files(self) -> list[Path]:
        """Return the files that the tracks are made from, but for those that the build itself makes."""
        return list(dict.fromkeys([*self.album.files, *(file for track in self.tracks for file in track.files)]))

    @contextmanager
    def lock(self, terminal: Reporter) -> Iterator[None]:
        """Keep other builds from the same tracks during the body; wait for one that came before."""
        import filelock

        folder = self.out / WORK_FOLDER
        with ExitStack() as held:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for id in sorted(self._by_id):
                    lock = filelock.FileLock(folder / f"{self.album.file.stem}.{id}.lock")
                    try:
                        held.enter_context(lock.acquire(timeout=0))
                    except filelock.Timeout:
                        terminal.say(f"Another render of {self.album.file.name} is at work on {id}; waiting for it.")
                        held.enter_context(lock.acquire())
            except OSError as error:
                raise disk.write_error(folder, error) from error
            yield

    def run_steps(self, terminal: Reporter, stdout: ResultStream) -> None:
        """Plan and make the steps, all of one depth at once. A dry run only plans.

        A failure is noted, and the steps that need its file are left out. Raises the problems of the first steps
        together, before any is made.
        """
        for depth, level in groupby(self.steps, key=lambda step: step.depth):
            ready = [step for step in level if step.source is None or step.source.is_made]
            planned = self._fetched(self._planned(ready, alone=depth > 0), ready, terminal)
            self._count_remaining(depth, terminal)
            if self.run.explain and not self.run.dry_run:
                for track, sentence in [(step.track, sentence) for step in ready for sentence in step.why()]:
                    terminal.say(f"{track.id}: {sentence}")
            if self.run.dry_run:
                self._planned_levels.append((depth, planned, terminal.remaining.unplanned))
                continue
            self._announce(depth, planned, terminal)
            if planned:
                render = None if self.cluster is None else self.cluster.make
                perform.make_planned(planned, RenderSession(self.run, terminal, stdout), render)

    def announce_plans(self, terminal: Reporter) -> None:
        """Report what a dry run has planned: memory, time and remarks."""
        for depth, planned, unplanned in self._planned_levels:
            terminal.remaining.unplanned = unplanned
            self._announce(depth, planned, terminal)

    def _announce(self, depth: int, planned: list[Job], terminal: Reporter) -> None:
        """Report the plan of the steps of one depth, where there is something to make, and remarks on the songs."""
        if not any(job.is_pending for job in planned):
            return
        announce.announce_plan(planned, terminal, dry_run=self.run.dry_run)
        for remark in (remark for job in planned if depth == 0 for remark in announce.remarks_on(job)):
            terminal.warn(remark)

    def _count_remaining(self, depth: int, terminal: Reporter) -> None:
        """Tell which tracks are made in this run, and how many of their steps come after those of `depth`.

        A step whose source is made anew is made anew itself.
        """
        stale: set[tuple[str, int]] = set()
        for step in self.steps:
            is_pending = step.job is not None and step.job.is_pending
            if is_pending or (step.source is not None and (step.source.track.id, step.source.number) in stale):
                stale.add((step.track.id, step.number))
        tracks = terminal.remaining.tracks or []
        ids = {id for id, _ in stale}
        terminal.remaining.tracks = [track.id for track in self.tracks if track.id in ids or track.id in tracks]
        terminal.remaining.unplanned = sum(
            step.track.request.takes or 1
            for step in self.steps
            if step.depth > depth and (step.track.id, step.number) in stale
        )

    def _planned(self, steps: Sequence[BuildStep], *, alone: bool) -> list[Job]:
        """Return the jobs of steps. Raises their problems together, or with `alone` notes each at its step."""
        machine = hardware.detect() if self.cluster is None else self.cluster.machine()
        context = PlanContext(self.run, machine, history.read_history())
        errors = []
        for step in steps:
            try:
                job = step.plan(context)
                if alone:
                    outputs.assign_outputs([job], self.run)
            except AceStepError as error:
                errors.append(name_lines(error, step.track.id))
                step.job, step.problem = None, error
        planned = [step.job for step in steps if step.job is not None]
        if errors and not alone:
            raise combine_errors([*errors, *outputs.output_problems(planned, self.run, writes=False)])
        return planned if alone else outputs.assign_outputs(planned, self.run)

    def _fetched(self, planned: list[Job], steps: Sequence[BuildStep], terminal: Reporter) -> list[Job]:
        """Fetch the models that jobs lack, and return the jobs of the steps planned again with them."""
        lacking = missing_parts(planned)
        if not lacking:
            return planned
        fetched = perform.fetch_missing(planned, lacking, self.run, terminal)
        for step, job in zip([step for step in steps if step.job is not None], fetched, strict=True):
            step.job = job
        return fetched

    def problems(self) -> list[AceStepError]:
        """Return the reasons why tracks could not be begun or continued, where no output has them."""
        found = []
        for step in self.steps:
            source = step.source
            if step.problem is not None:
                found.append(step.problem)
            elif step.job is None and source is not None and source.track is not step.track:
                found.append(CheckError(f"{step.track.id}: begins from {source.track.id}, which could not be made."))
        return found

    def report(self) -> list[dict[str, Any]]:
        """Return each track with its state and the reasons for it, as `--json` prints them."""
        return [{"id": track.id, **self._state(track)} for track in self.tracks]

    def _state(self, track: Track) -> dict[str, Any]:
        chain = [self._steps[track.id, number] for number in track.steps]
        why = [sentence for step in chain for sentence in step.why()]
        path = self.out / self.album.path(track)
        if all(step.is_made for step in chain):
            status = TAGS if why else CURRENT
        else:
            status = STALE
            if not why and (source := chain[0].source) is not None:
                why = [f"{source.track.id}, which it begins from, is stale"]
        return {"path": str(path), "status": status, "why": why}


def track_destination(album: Album, track: Track, out: Path) -> Destination:
    """Return the destination of a track."""
    path = out / album.path(track)
    suffix = path.suffix.removeprefix(".")
    return Destination(path.parent, path.stem, suffix, suffix, made=True, built=True, main="mix")


def track_paths(album: Album, track: Track, out: Path) -> list[Path]:
    """Return the audio files of a track."""
    where, request = track_destination(album, track, out), track.request
    assert where.stem is not None
    takes = paths.take_paths(
        where, where.stem, request.takes or 1, where.suffix or "", (), paths.name_suffixes(where, request)
    )
    return [path for take in takes for path in take]
