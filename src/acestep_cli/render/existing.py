"""Existing files: the takes of a run that need not be made again, and files that may not be overwritten."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli import disk
from acestep_cli.audio import lrc
from acestep_cli.errors import AceStepError, ExistsError, UsageError
from acestep_cli.models import latents_file
from acestep_cli.render import result, sidecar
from acestep_cli.render.result import PLANNED, SKIPPED, OutputFile
from acestep_cli.song import spec_layers, take_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from acestep_cli.render.job import Job


#: The way on from a file of another recipe that keeps the file.
AGAIN = "--again makes a new take beside it."


def check_files(jobs: list[Job], *, force: bool) -> list[AceStepError]:
    """Mark the takes that exist already, by their recipe, as skipped.

    Returns the errors for files that may not be written: one for each file, the first that `--force` does not mend.
    """
    refused: dict[Path, AceStepError] = {**find_collisions(jobs), **find_recordings(jobs)}
    in_the_way = mark_existing([one for one in jobs if not one.song.place.numbered], force=force)
    refused = {**find_inputs(jobs), **refused}  # the first says more
    in_the_way = [(job, [error for error in errors if error.path not in refused]) for job, errors in in_the_way]
    return [*refused.values(), *(merged for job, errors in in_the_way for merged in merge_errors(errors, job))]


def merge_errors(errors: Sequence[ExistsError], job: Job) -> list[ExistsError]:
    """Return one error for the files of a song that are there for the same reason."""
    is_seed_typed = job.song.resolved.origins.get("seed", "").startswith("--")  # which --again, drawing one, refuses
    offers_again = job.song.place.offers_again and not is_seed_typed
    by_reason: dict[tuple[str, bool], list[ExistsError]] = {}
    for error in errors:
        by_reason.setdefault((error.why, error.path.is_dir()), []).append(error)
    return [
        ExistsError(
            first.path,
            more=len(others),
            why=why,
            hint=f"{first.hint} {AGAIN}" if offers_again and not is_folder else first.hint,
        )
        for (why, is_folder), (first, *others) in by_reason.items()
    ]


def find_collisions(jobs: list[Job]) -> dict[Path, UsageError]:
    """Return the error for the first file that two songs of the run would both write, for each two such songs."""
    owner: dict[Path, Job] = {}
    found = {}
    for job in jobs:
        files = [file for output in job.outputs if output.status == PLANNED for file in output.files]
        if (path := next((file for file in files if file in owner), None)) is not None:
            found[path] = UsageError(
                f"{owner[path].name} and {job.name} would both write {path}.",
                "Rename one of the specs, or render them into two folders.",
            )
        owner |= dict.fromkeys(files, job)
    return found


def mark_existing(jobs: list[Job], *, force: bool) -> list[tuple[Job, list[ExistsError]]]:
    """Mark the takes that exist already, by their recipe, as skipped. Returns the errors for other existing files."""
    found = []
    for job in jobs:
        if not force:
            keep_seed(job)
        in_the_way = []
        for output in job.outputs:
            assert output.path is not None
            folder = next((file for file in output.files if disk.is_taken(file) and file.is_dir()), None)
            error = ExistsError(folder) if folder else None if force else check_existing(job, output)
            if error is not None:
                in_the_way.append(error)
        found.append((job, in_the_way))
    return found


def check_existing(job: Job, output: OutputFile) -> ExistsError | None:
    """Mark `output` by the file that exists in its place: skipped, outdated, or retagged.

    Returns the error for a file that may not be replaced.
    """
    assert output.path is not None
    beside = spec_layers.sidecar_path(output.path)
    there = disk.is_taken(output.path)
    record = sidecar.read_sidecar(beside)
    if record is not None and is_same_take(job, output, record):
        if there and is_other_file(output, record):
            return ExistsError(output.path, why=" and is not the file that its sidecar describes")
        is_bare = there and output.latents is not None and not latents_file.latents_belong(output.latents, output.path)
        is_timeless = there and output.lrc is not None and not disk.is_taken(output.lrc) and not record.instrumental
        if is_timeless and record.untimed and not is_bare:  # made again, it would be the same
            mark_skipped(output, record)
            output.lrc, output.error = None, result.describe_error(lrc.untimed(output.path.name))
            return None
        if job.song.place.built and (is_bare or is_timeless):
            return mark_outdated(output)
        if is_bare:
            again = f"--seed {record.seed} --force makes both again."
            return ExistsError(output.path, why=" without its latents", hint=again)
        if is_timeless:
            again = f"--seed {record.seed} --force makes both again."
            return ExistsError(output.path, why=" without its timed lyrics", hint=again)
        if there:
            mark_skipped(output, record)
            # A roll that names no tags leaves those of the takes that it finds again.
            are_asked = not job.song.place.numbered or any(key in job.song.resolved.origins for key in sidecar.LABELS)
            knows_tags = job.song.place.built or record.tags is not None
            output.retagged = are_asked and knows_tags and record.tags != job.tags_hash(output)
            return None
        for file in filter(None, (beside, output.lrc)):  # a recipe without its audio waits to be rendered again
            if disk.is_taken(file):
                output.stale[file] = file.stat().st_mtime_ns
    elif job.song.place.built and record is not None and not (there and is_other_file(output, record)):
        return mark_outdated(output)
    if there:
        return ExistsError(output.path, why=why_other(job, output, record))
    if output.latents is not None and latents_file.is_ours(output.latents):
        output.stale[output.latents] = output.latents.stat().st_mtime_ns
    taken = next((file for file in output.files if file not in output.stale and disk.is_taken(file)), None)
    return None if taken is None else ExistsError(taken)


def why_other(job: Job, output: OutputFile, record: sidecar.SidecarRecord | None) -> str:
    """Return what keeps the existing file with `record` from being the one that is asked for."""
    if record is None:
        return ", and no sidecar says how it was made"
    return f" with the seed {record.seed}" if job.is_recipe_of(output, record) else " with another recipe"


def mark_outdated(output: OutputFile) -> ExistsError | None:
    """Mark an earlier render for replacement. Returns an error for another program's file in place of its latents."""
    if output.latents is not None and disk.is_taken(output.latents) and not latents_file.is_ours(output.latents):
        return ExistsError(output.latents)
    output.outdated = True
    return None


def is_other_file(output: OutputFile, record: sidecar.SidecarRecord) -> bool:
    """Tell whether the existing file is another one than `record` was written for."""
    assert output.path is not None
    return record.bytes not in (None, output.path.stat().st_size)


def is_same_take(job: Job, output: OutputFile, record: sidecar.SidecarRecord) -> bool:
    """Tell whether `record` is of the same take as `output`. Where no seed was asked for, any seed will do."""
    any_seed = "seed" not in job.song.resolved.origins
    return job.is_recipe_of(output, record) and (any_seed or record.seed == output.seed)


def mark_skipped(output: OutputFile, record: sidecar.SidecarRecord) -> None:
    """Mark a take as skipped, with the values of its sidecar."""
    output.status = SKIPPED
    output.completed = output.completed.model_copy(
        update={"seed": record.seed, "variation_seed": record.variation_seed}
    )
    output.seconds, output.sample_rate = record.seconds, record.sample_rate
    output.scores = record.scores
    if record.instrumental:
        output.lrc = None
    output.checks, output.timings = record.checks, record.timings


def keep_seed(job: Job) -> None:
    """Take unset seeds from existing takes, so that a rerun goes on where they stopped."""
    any_seed = "seed" not in job.song.resolved.origins
    if not any_seed and not job.varies_at_will:
        return
    for output in job.outputs:
        assert output.path is not None
        beside = spec_layers.sidecar_path(output.path)
        record = sidecar.read_sidecar(beside)
        if record is not None and job.is_recipe_of(output, record):
            request, found = job.request, f"{beside}, which is there already"
            kept: dict[str, str] = {}
            if job.varies_at_will and record.variation_seed is not None:
                request = take_parts.with_take_variation(request, output.take, record.variation_seed)
                kept["variation_seed"] = found
            if any_seed:
                number = 1 if request.variation is not None else output.take  # takes of a variation share the seed
                request = take_parts.with_take_seed(request, number, record.seed)
                kept["seed"] = found
            job.decided = replace(job.decided, request=request, origins={**job.decided.origins, **kept})
            for each in job.outputs:
                take = take_parts.take_request(request, each.take)
                each.completed = each.completed.model_copy(
                    update={"seed": take.seed, "variation_seed": take.variation_seed}
                )
            return


def find_recordings(jobs: list[Job]) -> dict[Path, UsageError]:
    """Return the error for each recording that a render works on and would overwrite, even with `--force`."""
    recordings = {os.path.realpath(recording.path) for job in jobs for recording in job.decided.recordings.values()}
    return {
        path: UsageError(f"{path} is the recording that this run works on; it stays.", "Choose another --output.")
        for path in [file for job in jobs for output in job.outputs for file in output.files]
        if os.path.realpath(path) in recordings
    }


def find_inputs(jobs: list[Job]) -> dict[Path, UsageError]:
    """Return the error for each input that a render would replace, unless it writes the same recipe again."""
    sources = {os.path.realpath(file) for job in jobs for file in job.song.resolved.files}
    return {
        path: UsageError(
            f"{path} is read by this run, so it cannot be written too.",
            "Choose another --output, or --no-sidecar where it is the sidecar.",
        )
        for output in [output for job in jobs for output in job.outputs if output.status == PLANNED]
        for path in output.files
        if path not in output.stale and os.path.realpath(path) in sources
    }
