"""Jobs from specs and flags: every song of a run with its paths, decided and checked before weights load."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acestep_cli.audio import encode, lrc
from acestep_cli.errors import AceStepError, MemoryLimitError, OutputError, UsageError, combine_errors, shell_word
from acestep_cli.machine import hardware, history
from acestep_cli.machine.hardware import Device
from acestep_cli.machine.plan import MachineRequest, Plan, plan_render
from acestep_cli.models import checkpoints, latents_file, local
from acestep_cli.models.checkpoints import Checkpoint, ModelPart, Songwriter, Unpulled, UnpulledSongwriter
from acestep_cli.models.sizes import NETWORKS, Sizes
from acestep_cli.render import arguments, existing, paths, result, sidecar, smoke
from acestep_cli.render.job import Job
from acestep_cli.render.paths import Destination
from acestep_cli.render.result import PLANNED, OutputFile
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import complete, modes, ranking, seeds, spec
from acestep_cli.song.complete import Completed
from acestep_cli.song.request import Request

#: The most remarks on a song that a render shows; `spec check` shows all.
MOST_REMARKS = 3


def plan_jobs(mode: str | None, specs: list[str], song: dict[str, Any], settings: RenderSettings) -> list[Job]:
    """Return the jobs of a command. Raises one error for the problems of all of them.

    `mode` is that of the command; None accepts specs of any mode.
    """
    unquoted = arguments.unquoted_caption(mode, specs)
    by_flags_alone, specs = not specs, [] if unquoted else specs
    place, errors = find_destination(specs, settings)
    if unquoted:
        errors.append(unquoted)
    if "" in specs:
        errors.append(UsageError("The name of a spec is empty."))
    for twice, times in Counter(os.path.realpath(name) for name in specs if name not in ("", spec.STDIN)).items():
        if times > 1:
            first = next(name for name in specs if os.path.realpath(name) == twice)
            errors.append(UsageError(f"{first} is given {times} times; --takes {times} makes {times} takes of it."))
    flags = spec.from_flags(song, tuple(settings.overrides or ()))
    errors += again_problems(flags, settings)
    by_output: list[spec.Layer] = []
    try:
        by_output = implied_format(place, flags, settings)
    except UsageError as error:
        errors.append(error)
    is_place_sound = not errors
    try:
        if caption := arguments.caption_layers(mode, specs, flags):
            by_output, specs, by_flags_alone = [*caption, *by_output], [], True
    except UsageError as error:
        errors.append(error)
        specs = [name for name in specs if not arguments.is_caption(name)]
    jobs: list[Job] = []
    # A spec that is given twice is refused above, and stdin where it is read again.
    once = [name for at, name in enumerate(specs) if name and (name == spec.STDIN or name not in specs[:at])]
    names: list[str | None] = [*once] or [None] * by_flags_alone
    context = PlanContext(settings, hardware.detect(), history.read_history())
    for name in names:
        try:
            jobs.append(plan_job(*read_song(mode, name, [*by_output, flags], place, settings), context))
        except AceStepError as error:
            errors.append(name_spec(error, name) if len(names) > 1 else error)
    if errors:
        if is_place_sound:
            errors += problems_beside(jobs, place, settings, songs=len(names))
        raise combine_errors(errors)
    return assign_outputs(jobs, settings)


def find_destination(specs: list[str], settings: RenderSettings) -> tuple[Destination, list[AceStepError]]:
    """Return the destination of `--output`, and its problems; where it is refused, the one without `--output`."""
    try:
        place = paths.parse_destination(settings.output)
    except UsageError as error:
        return paths.parse_destination(None), [error]
    if len(specs) > 1 and place.stem is not None:
        problem = UsageError(
            f"--output {settings.output} is one file, and there are {len(specs)} specs.",
            f"Name a folder: --output {Path(settings.output or '').parent / 'out'}/",
        )
        return place, [problem, *folder_problem(place.folder, place.made)]
    return place, []


def problems_beside(jobs: list[Job], place: Destination, settings: RenderSettings, *, songs: int) -> list[AceStepError]:
    """Return the problems of the outputs of a run that is refused already. Only `jobs` of its `songs` were planned."""
    if place.stdout:
        return stdout_problems(jobs, settings, songs=songs)
    problems = output_problems(jobs, settings, writes=False)
    return problems if len(jobs) == songs else [*problems, *folder_problem(place.folder, place.made)]


def shortened(job: Job) -> str | None:
    """Return the length of a song, as text with the reason, where whole latent frames make it shorter than asked.

    None where it is not shorter, or the Songwriter is yet to decide on the duration.
    """
    request, mode = job.request, modes.mode_of(job.request)
    if "duration" in request.open or (mode.has_source and not mode.prepare(request, request.region).whole_frames):
        return None
    vae = Sizes.of(job.checkpoint).vae
    samples = vae.samples(request.duration)
    if request.duration * vae.sampling_rate - samples < 1:
        return None
    seconds, frame = samples / vae.sampling_rate, 1000 * vae.seconds_per_frame
    return f"{seconds:.6g} s long instead of {request.duration:.6g} s: music is made in whole frames of {frame:g} ms"


def remarks_on(job: Job) -> list[str]:
    """Return a few remarks on lyrics and caption, where takes are to be made.

    There are none for a sidecar: they were shown when it was rendered.
    """
    from acestep_cli.song.lint import remarks  # long tables, which no TAB should wait for

    if not job.is_pending or any(layer.is_sidecar for layer in job.layers):
        return []
    found, name = job.resolved, job.track or ("" if job.spec_file is None else str(job.spec_file))
    song_remarks = remarks.song_remarks(found.request, job.request.duration, is_guess="duration" in job.request.open)
    sentences = [remarks.placed(remark, name, found.origins, found.lines) for remark in song_remarks[:MOST_REMARKS]]
    if len(song_remarks) > MOST_REMARKS:
        more = len(song_remarks) - MOST_REMARKS
        listing = "" if job.spec_file is None else f"; acestep spec check {shell_word(job.spec_file)} lists them"
        sentences.append(f"{name or 'The words'}: {more} more remark{'s' * (more > 1)}{listing}")
    return sentences


def missing_parts(jobs: list[Job]) -> dict[str, tuple[ModelPart, ...]]:
    """Return by checkpoint or Songwriter the parts to be downloaded for the takes to be made."""
    waiting = [one for one in jobs if one.is_pending]
    found = {one.checkpoint.name: one.checkpoint.lacking for one in waiting if isinstance(one.checkpoint, Unpulled)}
    for one in waiting:
        if isinstance(one.songwriter, UnpulledSongwriter):
            found[one.songwriter.name] = (checkpoints.SONGWRITERS[one.songwriter.name],)
    return found


def replan_jobs(jobs: list[Job], settings: RenderSettings) -> list[Job]:
    """Return the jobs after a download. Those with takes to be made are planned again, now by the real weights."""
    context = PlanContext(replace(settings, pull=False), hardware.detect(), history.read_history())
    again = [
        replace(plan_job(one.spec_file, one.layers, one.resolved, one.place, context), track=one.track)
        if one.is_pending
        else one
        for one in jobs
    ]
    return assign_outputs(again, settings)


def assign_outputs(jobs: list[Job], settings: RenderSettings) -> list[Job]:
    """Return the jobs with their output files. Raises one error for all files that may not be written."""
    if problems := output_problems(jobs, settings, writes=not settings.dry_run):
        raise combine_errors(problems)
    return jobs


def output_problems(jobs: list[Job], settings: RenderSettings, *, writes: bool) -> list[AceStepError]:
    """Decide on the output files of the jobs, and return the problems of all of them.

    Where there is none and the run `writes`, their folders are made.
    """
    if jobs and jobs[0].place.stdout:
        for one in jobs:
            one.outputs = [
                planned_output(one, None, piece, 1, settings) for piece in complete.output_parts(one.request)
            ]
        return stdout_problems(jobs, settings, songs=len(jobs))
    problems: list[AceStepError] = [*faded_problems(jobs, settings)]
    for one in jobs:
        taken = {output.path for other in jobs for output in other.outputs if output.path}
        try:
            one.outputs = named_outputs(one, taken, settings)
        except OutputError as error:  # a name that no file can have, or a folder that cannot be listed
            one.outputs = []
            problems.append(error)
    try:
        problems += existing.check_files(jobs, force=settings.force)
    except OutputError as error:
        problems.append(error)
    problems += encoder_problems(jobs)
    problems += folder_problems(jobs, dry_run=True)
    return folder_problems(jobs, dry_run=False) if writes and not problems else problems


def folder_problems(jobs: list[Job], *, dry_run: bool) -> list[AceStepError]:
    """Return the problem of each folder in which takes are to be made; it is made where it may be."""
    names: dict[tuple[Path, bool], set[str]] = {}
    for one in jobs:
        planned = {output.path.name for output in one.outputs if output.status == PLANNED and output.path}
        if planned:
            names.setdefault((one.place.folder, one.place.made), set()).update(planned)
    return [
        problem
        for (folder, made), planned in names.items()
        for problem in folder_problem(folder, made, planned, dry_run=dry_run)
    ]


def folder_problem(
    folder: Path, made: bool, names: Collection[str] = (), *, dry_run: bool = True
) -> list[AceStepError]:
    """Return the problem of a folder as a list, which is empty without one."""
    try:
        paths.prepare_folder(folder, made, names, dry_run=dry_run)
    except OutputError as error:
        return [error]
    return []


def named_outputs(job: Job, taken: Collection[Path], settings: RenderSettings) -> list[OutputFile]:
    """Return the output files of a job with their paths.

    Of numbered takes whose seeds were all asked for, those that are there already are found again, by recipe and seed.
    """
    stem = job.place.stem or paths.default_stem(job.request, job.spec_file)
    format, parts = job.request.format, paths.name_suffixes(job.place, job.request)
    bare = paths.part_paths(job.place, stem, format, parts)
    numbers = range(1, job.request.takes + 1)
    found: dict[int, list[OutputFile]] = {}
    if job.place.numbered and "seed" in job.resolved.origins and not job.varies_at_will and not settings.again:
        found = existing.find_takes(
            job, bare, lambda number, files: take_outputs(job, number, files, settings), force=settings.force
        )
    missing = [number for number in numbers if number not in found]
    free = iter(paths.take_paths(job.place, stem, len(missing), format, taken, parts) if missing else ())
    for number in missing:
        found[number] = take_outputs(job, number, next(free), settings)
        if job.place.numbered:
            for output, path in zip(found[number], bare, strict=True):
                output.unnumbered = path
    return [output for number in numbers for output in found[number]]


def take_outputs(job: Job, number: int, files: Sequence[Path], settings: RenderSettings) -> list[OutputFile]:
    """Return the planned files of the take `number` of a job, one for each part, at these paths."""
    return [
        planned_output(job, path, piece, number, settings)
        for piece, path in zip(complete.output_parts(job.request), files, strict=True)
    ]


def again_problems(flags: spec.Layer, settings: RenderSettings) -> list[UsageError]:
    """Return an error for each flag that contradicts `--again`."""
    if not settings.again:
        return []
    reasons = []
    drawn = ["variation_seed", *(() if "variation" in flags.values else ("seed",))]
    reasons += [(flags.values[key].where, "it draws new seeds") for key in drawn if key in flags.values]
    if settings.force:
        reasons.append(("--force", "it replaces nothing"))
    if settings.output == paths.STDOUT:
        reasons.append(("--output -", "it makes files beside others"))
    return [UsageError(f"--again contradicts {flag}, because {why}; leave one of them out.") for flag, why in reasons]


def again_layer(request: Request) -> spec.Layer:
    """Return the new seed of `--again`, as a layer above all others: of a variation of a given seed, the other one."""
    if request.variation is not None and request.seed is not None:
        new = {"variation_seed": str(seeds.draw_variation(request.seed, request.takes or 1))}
    else:
        new = {"seed": str(seeds.draw_seed())}
    return spec.implied_layer(new, "--again")


def implied_format(place: Destination, flags: spec.Layer, settings: RenderSettings) -> list[spec.Layer]:
    """Return the format that `--output` implies, as a layer between specs and flags; nothing where it implies none."""
    format = "wav" if place.stdout else place.format
    if format is None:
        return []
    asked = flags.values.get("format")
    if asked is not None and not place.stdout and str(asked.raw).strip().casefold() != format:
        raise UsageError(f"{asked.where} {asked.raw} contradicts --output {settings.output}; leave one of them out.")
    return [spec.implied_layer({"format": format}, "--output")]


def name_spec(error: AceStepError, name: str | None) -> AceStepError:
    """Return `error` with the name of the spec before each line that lacks it."""
    shown = "stdin" if name == spec.STDIN else name or ""
    lines = [line if f"{shown}:" in line else f"{shown}: {line}" for line in error.message.splitlines()]
    error.message = "\n".join(lines)
    return error


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

    def models(self, request: Request) -> Iterator[tuple[Checkpoint, str, Songwriter | None]]:
        """Yield the checkpoints and Songwriters that may make a song, the best first, with the hash of the weights.

        Raises `CheckpointError` where one asked for is missing, or was not trained for the mode.
        """
        task = modes.mode_of(request).task
        for name in self.candidates(request.model or "auto", task):
            if name in checkpoints.CHECKPOINTS:  # before it is missed, and pulled in vain
                complete.require_task(request, name, checkpoints.CHECKPOINTS[name])
            if name not in self.found:
                foresees = self.settings.pull or self.settings.dry_run
                find = checkpoints.find_or_plan if foresees else checkpoints.find_checkpoint
                checkpoint = find(name, self.settings.models_dir, task)
                self.found[name] = checkpoint, checkpoint.weights_hash()
            checkpoint, weights = self.found[name]
            for songwriter in candidate_songwriters(request, checkpoint, self.settings):
                yield checkpoint, weights, songwriter

    def candidates(self, model: str, task: str) -> tuple[str, ...]:
        """Return the checkpoints that `model` may stand for; for `auto` with none installed, the first to download."""
        if model != "auto":
            return (model,)
        order = checkpoints.auto_order(task)
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
            lambda device, dtype: history.recall_experience(
                self.history, device, history_task(request, checkpoint), dtype, request.duration, self.settings.max_vram
            ),
        )
        renders = sum(kind not in modes.BESIDE for kind, _ in complete.part_kinds(request))  # each stem is one
        if made.seconds is not None:
            made = made.model_copy(update={"seconds": made.seconds * renders})
        return made, next(device for device in self.machine.devices if device.name == made.device)


def history_task(request: Completed, checkpoint: Checkpoint) -> str:
    """Return the key of renders like this one in the history."""
    return f"{checkpoint.name} {request.mode}"


def read_song(
    mode: str | None, name: str | None, flags: list[spec.Layer], place: Destination, settings: RenderSettings
) -> tuple[Path | None, list[spec.Layer], spec.Resolved, Destination]:
    """Read one spec or source under the flags, or the flags alone: return the file of the spec, its layers, the request
    and the destination of its takes. Raises `UsageError` for a spec of another mode than the command's.
    """
    given = is_recording(mode, name)
    if name is not None and not given:
        arguments.refuse_other(mode, name)
    below = [*command_layers(mode), *argument_layers(name, given)]
    layers = [*below, *([smoke.smoke_layer([*below, *flags])] if settings.smoke else ()), *flags]
    resolved = spec.resolve(*layers)
    if settings.again:
        layers.append(again_layer(resolved.request))
        resolved = spec.resolve(*layers)
    wanted = resolved.request.mode or "generate"
    if mode is not None and wanted != mode:
        raise UsageError(
            f"{name or '--set'}: is a spec of the mode {wanted}, not {mode}.",
            f"acestep {wanted} {name}" if name else None,
        )
    place = paths.destination_of_song(
        place,
        of_spec=name is not None and not given,
        from_source=resolved.request.source is not None,
        again=settings.again,
    )
    return Path(name) if name not in (None, spec.STDIN) and not given else None, layers, resolved, place


def plan_job(
    spec_file: Path | None, layers: list[spec.Layer], resolved: spec.Resolved, place: Destination, context: PlanContext
) -> Job:
    """Return a job with the checkpoint and Songwriter asked for, else with the first installed ones that fit.

    Raises `MemoryLimitError` where none fits into memory.
    """
    warnings: list[str] = []
    failure: MemoryLimitError | None = None
    for checkpoint, weights, songwriter in context.models(resolved.request):
        with spec.placing_problems(*layers):
            decided = complete.complete_request(resolved.request, checkpoint, songwriter)
        if context.settings.rank:
            scored = ranking.require_scores(resolved.request, checkpoint, songwriter)
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
            spec_file=spec_file,
            layers=layers,
            resolved=resolved,
            decided=decided,
            checkpoint=checkpoint,
            plan=planned,
            device=device,
            weights=weights,
            place=place,
            songwriter=helper,
        )
        job.warnings = [*warnings, *decided.warnings, *other_weights(job)]
        return job
    assert failure is not None
    raise failure


def other_weights(job: Job) -> list[str]:
    """Return a warning where the spec is a sidecar that was rendered with other weights of the checkpoint."""
    if job.spec_file is None or not any(layer.is_sidecar for layer in job.layers):
        return []
    record, name = sidecar.read_sidecar(job.spec_file), job.checkpoint.name
    if record is None or record.checkpoint.name != name or record.checkpoint.weights == job.weights_beside(record):
        return []
    return [f"{job.spec_file}: was rendered with other weights of {name} than are installed; it will sound different."]


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
    if settings.dry_run and (unpulled := local.unpulled_songwriter(request.songwriter, checkpoint, models_dir)):
        return [unpulled]
    if request.idea is not None and request.songwriter != "none":
        return [*local.needed_songwriters(request.songwriter, checkpoint, models_dir, "An idea")]
    return local.songwriters(request.songwriter, checkpoint, models_dir)


def is_recording(mode: str | None, name: str | None) -> bool:
    """Tell whether an argument of the command of `mode` is a recording, not a spec."""
    if mode is None or name is None or not modes.MODES[mode].has_source:
        return False
    return name != spec.STDIN and Path(name).suffix.lower() not in spec.SUFFIXES


def command_layers(mode: str | None) -> list[spec.Layer]:
    """Return the mode of the command as the lowest layer."""
    return [] if mode is None else [spec.implied_layer({"mode": mode}, f"acestep {mode}")]


def argument_layers(name: str | None, given: bool) -> list[spec.Layer]:
    """Return the layers of an argument: those of a spec, or the source where it is a recording."""
    if name is None:
        return []
    return [spec.implied_layer({"source": name}, "SOURCE")] if given else spec.read_layers(Path(name))


def planned_output(
    job: Job, path: Path | None, piece: complete.OutputPart, number: int, settings: RenderSettings
) -> OutputFile:
    """Return the planned file of one part of the take `number` of a job."""
    take = complete.take_request(piece.request, number)
    origins = (
        {one.name: one.origin for one in spec.value_origins(job.resolved, job.decided)} if settings.explain else None
    )
    beside = paths.sidecar_path(path) if path is not None and not settings.no_sidecar else None
    keeps = path is not None and settings.keep_latents and piece.kind not in modes.BESIDE
    return OutputFile(
        path=path,
        sidecar=beside,
        format=take.format,
        take=number,
        seed=take.seed,
        completed=take,
        plan=result.as_json(job.plan),
        installed=job.is_installed,
        kind=piece.kind,
        track=piece.track if piece.kind == "stem" else None,
        lrc=lrc.lrc_path(path) if path is not None and take.lrc else None,
        origins=origins,
        latents=latents_file.latents_path(path) if path is not None and keeps else None,
    )


def faded_problems(jobs: list[Job], settings: RenderSettings) -> list[UsageError]:
    """Return an error for each song with fades where latents are to be kept, which lack them."""
    faded = [one for one in jobs if settings.keep_latents and (one.request.fade_in or one.request.fade_out)]
    return [
        UsageError(
            f"{f'{one.name}: ' if one.spec_file or one.track else ''}--keep-latents: the latents of a faded song would "
            "not match it.",
            "Leave the fades out here; what is made of the file later may have them.",
        )
        for one in faded
    ]


def stdout_problems(jobs: list[Job], settings: RenderSettings, *, songs: int) -> list[AceStepError]:
    """Return an error for all that `--output -` cannot carry. Only `jobs` of the `songs` of a run were planned."""
    problems: list[AceStepError] = [*faded_problems(jobs, settings)]
    if songs > 1 or any(one.request.takes > 1 or len(complete.output_parts(one.request)) > 1 for one in jobs):
        problems.append(
            UsageError("--output - carries one take; several need files.", "Name a folder: --output takes/")
        )
    if settings.keep_latents:
        reason = "--output - leaves no file beside which --keep-latents could keep them."
        problems.append(UsageError(reason, "Name a file."))
    if any(one.request.lrc for one in jobs):
        reason = "--output - carries the song alone, and lrc asks for a file beside it; name a file."
        problems.append(UsageError(reason))
    if settings.json:
        problems.append(UsageError("--output - and --json both want stdout; name a file for one of them."))
    if sys.stdout is None:
        problems.append(OutputError("--output -: stdout is closed.", "Name a file with --output."))
    elif sys.stdout.isatty() and not settings.dry_run:
        reason = "--output - would write sound to the terminal."
        problems.append(UsageError(reason, "Redirect it: acestep … -o - > song.wav"))
    return [*problems, *encoder_problems(jobs)]


def encoder_problems(jobs: list[Job]) -> list[OutputError]:
    """Return an error for each format of takes to be made whose encoder is not installed."""
    found = []
    formats = (one.request.format for one in jobs if any(output.status == PLANNED for output in one.outputs))
    for format in dict.fromkeys(formats):
        try:
            encode.require_encoder(format)
        except OutputError as error:
            found.append(error)
    return found
