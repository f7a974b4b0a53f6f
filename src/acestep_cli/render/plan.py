"""Jobs from specs and flags: every song of a run with its paths, decided and checked before weights load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from acestep_cli.errors import AceStepError, MemoryLimitError, combine_errors, name_lines
from acestep_cli.machine import hardware, history
from acestep_cli.machine.hardware import Device
from acestep_cli.machine.plan import MachineRequest, Plan, plan_render
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.models.sizes import NETWORKS, Sizes
from acestep_cli.models.songwriters import find_songwriters, needed_songwriters, unpulled_songwriter
from acestep_cli.render import arguments, outputs, sidecar
from acestep_cli.render.job import Job, SongInput
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import complete, modes, ranking, spec, spec_text, take_parts, validate
from acestep_cli.song.request import Request


def plan_jobs(mode: str | None, specs: list[str], song: dict[str, Any], settings: RenderSettings) -> list[Job]:
    """Return the jobs of a command. Raises one error for the problems of all of them.

    `mode` is that of the command; None accepts specs of any mode.
    """
    asked = arguments.read_arguments(mode, specs, song, settings)
    jobs: list[Job] = []
    errors = list(asked.errors)
    context = PlanContext(settings, hardware.detect(), history.read_history())
    for name, swept in asked.songs:
        try:
            jobs.append(plan_job(arguments.read_song(name, swept, asked, settings), context))
        except AceStepError as error:
            shown = "stdin" if name == spec_text.STDIN else name or ""
            errors.append(name_lines(error, shown) if len(asked.names) > 1 else error)
    if errors:
        if asked.is_place_sound:
            errors += outputs.problems_beside(jobs, asked.place, settings, songs=len(asked.songs))
        raise combine_errors(errors)
    return outputs.assign_outputs(share_seeds(jobs), settings)


def replan_jobs(jobs: list[Job], settings: RenderSettings) -> list[Job]:
    """Return the jobs after a download. Those with takes to be made are planned again, now by the real weights."""
    context = PlanContext(replace(settings, pull=False), hardware.detect(), history.read_history())
    again = [replace(plan_job(one.song, context), track=one.track) if one.is_pending else one for one in jobs]
    return outputs.assign_outputs(share_seeds(again), settings)


def share_seeds(jobs: list[Job]) -> list[Job]:
    """Give the same drawn seeds to all combinations of `--matrix`, so that they differ in nothing else."""
    swept = [job for job in jobs if job.song.swept.values]
    for job in swept:
        request, first = job.request, swept[0].request
        if job.song.draws_seed:
            request = take_parts.with_take_seed(request, 1, first.seed)
        if job.varies_at_will and first.variation_seed is not None:
            request = take_parts.with_take_variation(request, 1, first.variation_seed)
        job.decided = replace(job.decided, request=request)
    return jobs


class PlanContext:
    """Context in which the songs of a run are planned: settings, machine, render history and networks in use."""

    def __init__(
        self,
        settings: RenderSettings,
        machine: hardware.Hardware,
        history: history.RenderHistory,
        networks: frozenset[str] = NETWORKS,
    ) -> None:
        self.settings, self.machine, self.history, self.networks = settings, machine, history, networks
        self.found: dict[str, tuple[Checkpoint, str]] = {}

    def models(self, request: Request) -> Iterator[tuple[Checkpoint, str, list[Songwriter | None]]]:
        """Yield the checkpoints that may make a song, the best first, each with the hash of its weights and with the
        Songwriters that go with it.

        Raises `CheckpointError` where one asked for is missing, or was not trained for the mode.
        """
        task = modes.mode_of(request).task
        for name in self.candidates(request.model or "auto", task):
            if name in checkpoint_table.CHECKPOINTS:  # before it is missed, and pulled in vain
                validate.require_task(request, name, checkpoint_table.CHECKPOINTS[name])
            if name not in self.found:
                foresees = self.settings.pull or self.settings.dry_run
                find = checkpoints.find_or_plan if foresees else checkpoints.find_checkpoint
                checkpoint = find(name, self.settings.models_dir, task)
                self.found[name] = checkpoint, checkpoint.weights_hash
            checkpoint, weights_hash = self.found[name]
            yield checkpoint, weights_hash, candidate_songwriters(request, checkpoint, self.settings)

    def candidates(self, model: str, task: str) -> tuple[str, ...]:
        """Return the checkpoints that `model` may stand for; for `auto` with none installed, the first to download."""
        if model != "auto":
            return (model,)
        order = checkpoint_table.auto_order(task)
        if self.settings.pull and not any(checkpoints.dit_folder(name, self.settings.models_dir) for name in order):
            return order[:1]
        return checkpoints.installed_names(self.settings.models_dir, task)

    def plan(
        self, decided: complete.Completion, checkpoint: Checkpoint, songwriter: Songwriter | None = None
    ) -> tuple[Plan, Device]:
        """Return the plan of a completed request, and its device."""
        request = decided.request
        asked = MachineRequest(self.settings.device, self.settings.dtype, self.settings.max_vram)
        made = plan_render(
            self.machine,
            request,
            asked,
            replace(Sizes.of(checkpoint, songwriter, decided.adapters.values()), used=self.networks),
            lambda device, dtype: history.recall_renders(
                self.history,
                device,
                history.task_of(request, checkpoint),
                dtype,
                request.duration,
                self.settings.max_vram,
            ),
        )
        renders = sum(kind not in modes.BESIDE for kind, _ in take_parts.part_kinds(request))  # each stem is one
        if made.seconds is not None:
            made = made.model_copy(update={"seconds": made.seconds * renders})
        return made, next(device for device in self.machine.devices if device.name == made.device)


def plan_job(song: SongInput, context: PlanContext) -> Job:
    """Return the job of a song: with the checkpoint and Songwriter asked for, or the first installed ones that fit.

    Raises `MemoryLimitError` where none fits into memory.
    """
    warnings: list[str] = []
    failure: MemoryLimitError | None = None
    asked = song.resolved.request
    for checkpoint, weights_hash, songwriters in context.models(asked):
        with spec.placing_problems(*song.layers):
            inputs = complete.examine(asked, checkpoint)
        for songwriter in songwriters:
            decided = complete.decide(asked, checkpoint, inputs, songwriter)
            if context.settings.rank:
                scored = ranking.require_scores(asked, checkpoint, songwriter)
                decided = replace(decided, request=decided.request.model_copy(update={"scored": scored}))
            request = decided.request
            helper = songwriter if request.open or ranking.JUDGEMENT in request.scored else None
            try:
                planned, device = context.plan(decided, checkpoint, helper)
            except MemoryLimitError as error:
                failure = failure or error
                passed_over = f"{checkpoint.name} with the Songwriter {helper.name}" if helper else checkpoint.name
                warnings.append(f"{passed_over} is passed over: {error.message}")
                continue
            job = Job(
                song=song,
                decided=decided,
                checkpoint=checkpoint,
                plan=planned,
                device=device,
                weights_hash=weights_hash,
                songwriter=helper,
            )
            job.warnings = [*warnings, *decided.warnings, *other_weights(job)]
            return job
    assert failure is not None
    raise failure


def other_weights(job: Job) -> list[str]:
    """Return a warning where the spec is a sidecar that was rendered with other weights of the checkpoint."""
    if job.song.spec_file is None or not job.song.is_replayed:
        return []
    record, name = sidecar.read_sidecar(job.song.spec_file), job.checkpoint.name
    if record is None or record.checkpoint.name != name or record.checkpoint.weights == job.weights_hash_beside(record):
        return []
    return [
        f"{job.song.spec_file}: was rendered with other weights of {name} than are installed; it will sound different."
    ]


def candidate_songwriters(
    request: Request, checkpoint: Checkpoint, settings: RenderSettings
) -> list[Songwriter | None]:
    """Return the Songwriters that may decide what `request` leaves open, the best first; None stands for none.

    A dry run also takes one that is named and not installed. Raises `CheckpointError` where one is needed and none
    is installed.
    """
    if not modes.may_ask_songwriter(request):
        return [None]
    models_dir = settings.models_dir
    if settings.dry_run and (unpulled := unpulled_songwriter(request.songwriter, checkpoint, models_dir)):
        return [unpulled]
    if request.idea is not None and request.songwriter != "none":
        return [*needed_songwriters(request.songwriter, checkpoint, models_dir, "An idea")]
    return find_songwriters(request.songwriter, checkpoint, models_dir)
