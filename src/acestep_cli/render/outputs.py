"""The output files of jobs: their paths, and all that keeps them from being written, before weights load."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from acestep_cli.audio import encode, lrc
from acestep_cli.errors import AceStepError, OutputError, UsageError, combine_errors
from acestep_cli.models import latents_file
from acestep_cli.render import existing, matrix, paths, result, sidecar
from acestep_cli.render.job import Job
from acestep_cli.render.paths import Destination
from acestep_cli.render.result import PLANNED, OutputFile
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import modes, spec, spec_layers, take_parts


def problems_beside(jobs: list[Job], place: Destination, settings: RenderSettings, *, songs: int) -> list[AceStepError]:
    """Return the problems of the outputs of a run that is refused already. Only `jobs` of its `songs` were planned."""
    if place.stdout:
        return stdout_problems(jobs, settings, songs=songs)
    problems = output_problems(jobs, settings, writes=False)
    return problems if len(jobs) == songs else [*problems, *folder_problem(place.folder, place.made)]


def assign_outputs(jobs: list[Job], settings: RenderSettings) -> list[Job]:
    """Return the jobs with their output files. Raises one error for all files that may not be written."""
    if problems := output_problems(jobs, settings, writes=not settings.dry_run):
        raise combine_errors(problems)
    return jobs


def output_problems(jobs: list[Job], settings: RenderSettings, *, writes: bool) -> list[AceStepError]:
    """Decide on the output files of the jobs, and return the problems of all of them.

    Where there is none and the run `writes`, their folders are made.
    """
    if jobs and jobs[0].song.place.stdout:
        for one in jobs:
            one.outputs = take_outputs(one, 1, [None] * len(take_parts.part_kinds(one.request)), settings)
        return stdout_problems(jobs, settings, songs=len(jobs))
    problems: list[AceStepError] = [*latents_problems(jobs, settings)]
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
            names.setdefault((one.song.place.folder, one.song.place.made), set()).update(planned)
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
    place = job.song.place
    stem = place.stem or paths.default_stem(job.request, job.song.spec_file, job.request.region)
    stem += matrix.name_suffix(job.song.swept)
    format, parts = job.request.format, paths.name_suffixes(place, job.request)
    bare = paths.part_paths(place, stem, format, parts)
    numbers = range(1, job.request.takes + 1)
    found: dict[int, list[OutputFile]] = {}
    is_seed_asked = "seed" in job.song.resolved.origins and not job.varies_at_will
    if place.numbered and is_seed_asked and not settings.again:
        found = find_takes(job, bare, settings)
    missing = [number for number in numbers if number not in found]
    free = iter(paths.take_paths(place, stem, len(missing), format, taken, parts) if missing else ())
    for number in missing:
        found[number] = take_outputs(job, number, next(free), settings)
        if place.numbered:
            for output, path in zip(found[number], bare, strict=True):
                output.unnumbered = path
    return [output for number in numbers for output in found[number]]


def find_takes(job: Job, bare: Sequence[Path], settings: RenderSettings) -> dict[int, list[OutputFile]]:
    """Return the takes of a job that are in its folder already, under any number, with recipe and seed as asked.

    `bare` are the paths of the parts without a number. The takes are marked as skipped, except those that a run which
    was stopped left unmade, or with `--force` to be replaced.
    """
    by_seed: dict[int, list[Sequence[Path]]] = {}
    for files in [bare, *([paths.numbered_path(path, n) for path in bare] for n in paths.file_numbers(bare[0]))]:
        if (record := sidecar.read_sidecar(spec_layers.sidecar_path(files[0]))) is not None:
            by_seed.setdefault(record.seed, []).append(files)
    found = {}
    for number in range(1, job.request.takes + 1):
        for files in by_seed.get(take_parts.take_request(job.request, number).seed, ()):
            outputs = take_outputs(job, number, files, settings)
            if all(existing.check_existing(job, output) is None for output in outputs):
                found[number] = take_outputs(job, number, files, settings) if settings.force else outputs
                for output in found[number]:
                    output.outdated = settings.force
                break
    return found


def take_outputs(job: Job, number: int, files: Sequence[Path | None], settings: RenderSettings) -> list[OutputFile]:
    """Return the planned files of the take `number` of a job, one for each part; None as a path stands for stdout."""
    values = spec.value_origins(job.song.resolved, job.decided) if settings.explain else None
    origins = None if values is None else {one.name: one.origin for one in values}
    planned = []
    for part, path in zip(take_parts.output_parts(job.request), files, strict=True):
        take = take_parts.take_request(part.request, number)
        keeps_latents = settings.keep_latents and part.kind not in modes.BESIDE
        planned.append(
            OutputFile(
                path=path,
                sidecar=spec_layers.sidecar_path(path) if path is not None and not settings.no_sidecar else None,
                take=number,
                completed=take,
                plan=result.as_json(job.plan),
                installed=job.is_installed,
                kind=part.kind,
                track=part.track if part.kind == "stem" else None,
                lrc=lrc.lrc_path(path) if path is not None and take.lrc else None,
                origins=origins,
                latents=latents_file.latents_path(path) if path is not None and keeps_latents else None,
            )
        )
    return planned


def latents_problems(jobs: list[Job], settings: RenderSettings) -> list[UsageError]:
    """Return an error for each song whose latents are to be kept and would not match it."""
    found = []
    for one in jobs if settings.keep_latents else ():
        name = f"{one.name}: " if one.song.spec_file or one.track else ""
        if one.request.fade_in or one.request.fade_out:
            found.append(
                UsageError(
                    f"{name}--keep-latents: the latents of a faded song would not match it.",
                    "Leave the fades out here; what is made of the file later may have them.",
                )
            )
        if one.request.context is not None:
            found.append(
                UsageError(f"{name}--keep-latents: with context, only the latents of a part are made; leave one out.")
            )
    return found


def stdout_problems(jobs: list[Job], settings: RenderSettings, *, songs: int) -> list[AceStepError]:
    """Return an error for all that `--output -` cannot carry. Only `jobs` of the `songs` of a run were planned."""
    problems: list[AceStepError] = [*latents_problems(jobs, settings)]
    if songs > 1 or any(one.request.takes > 1 or len(take_parts.output_parts(one.request)) > 1 for one in jobs):
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
