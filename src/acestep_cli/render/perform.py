"""Rendering commands: from specs and flags to files, for every mode."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from acestep_cli.cache import open_cache
from acestep_cli.errors import AceStepError, OutputError, SeveralFailedError, lost_device, reason_of
from acestep_cli.machine import hardware, history
from acestep_cli.machine.plan import measured_speed
from acestep_cli.models import local
from acestep_cli.models.sizes import Sizes
from acestep_cli.render import announce, fetch, plan, result, take_cache, write
from acestep_cli.render.job import Job, group_by_weights, missing_parts, pending_work
from acestep_cli.render.reporter import Reporter
from acestep_cli.render.result import FAILED, PLANNED, SKIPPED, OutputFile, RunReport
from acestep_cli.render.session import RenderSession
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import ranking, spec_layers, spec_text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from acestep_cli.models.checkpoint_table import ModelPart
    from acestep_cli.song.complete import Completed
    from acestep_cli.take import Take

#: Renders jobs of one checkpoint and plan, as `render_jobs` does.
Make = Callable[[list[Job], RenderSession], bool]


def plan_and_make(
    mode: str | None,
    specs: list[str],
    song: dict[str, Any],
    settings: RenderSettings,
    reporter: Reporter,
    run_report: RunReport,
) -> None:
    """Plan, announce and render the takes that specs and flags ask for, and record them in `run_report`."""
    with spec_text.reading_stdin(typing=not settings.no_input):
        planned = plan.plan_jobs(mode, specs, song, settings)
    if lacking := missing_parts(planned):
        planned = fetch_missing(planned, lacking, settings, reporter)
        run_report.more["models"] = [local.model_state(name, settings.models_dir).report() for name in lacking]
    run_report.outputs = [output for job in planned for output in job.outputs]
    announce.announce_plan(planned, reporter, dry_run=settings.dry_run)
    for remark in dict.fromkeys(chain(*map(announce.remarks_on, planned))):
        reporter.warn(remark)
    if settings.explain and not settings.json:
        announce.print_origins(planned, reporter)
    with reporter.results() as results:
        if settings.dry_run:
            announce.preview_files(run_report.outputs, reporter, results)
            return
        make_planned(planned, RenderSession(settings, reporter, results))
    if settings.rank:
        run_report.outputs = [output for job in planned for output in rank_takes(job.outputs)]
    finish_report(run_report.outputs, reporter)
    if step := announce.next_step(run_report.outputs):
        reporter.hint(step)


def make_planned(planned: list[Job], session: RenderSession, by: Make | None = None) -> None:
    """Make the planned files, with `render_jobs` or `by`. A failure is recorded in its output."""
    reporter = session.reporter
    made = [output for job in planned for output in job.outputs]
    reporter.events.refuse_files(file for output in made for file in output.files)
    keep_skipped(planned, session)
    if session.settings.cache:
        cache = open_cache(reporter.warn)
        for job in planned:
            job.cache = cache
    try:
        for job in planned:
            finish_from_cache(job, session)
        reporter.remaining.add(pending_work(planned))
        for alike in group_by_weights(planned):
            if not (by or render_jobs)(alike, session):
                break
    except BaseException as error:
        write.mark_failed([output for output in made if output.status == PLANNED], result.describe_error(error))
        raise
    finally:
        reporter.events.takes(made)


def finish_from_cache(job: Job, session: RenderSession) -> None:
    """Write the takes of a song that are in its cache."""
    if job.cache is None:
        return
    for output in job.outputs:
        if output.status == PLANNED and (take := take_cache.load_take(job.cache, job, output)) is not None:
            session.reporter.say(f"{output.path or 'stdout'}: made before; encoded again")
            write.write_take(take, output, job, session)


def finish_report(made: list[OutputFile], reporter: Reporter, unbegun: Sequence[AceStepError] = ()) -> None:
    """Report on several takes, and raise an error for failed ones and for those that could not begin."""
    if len(made) > 1:
        announce.summarise(made, reporter)
    raise_failures(made, unbegun)


def fetch_missing(
    planned: list[Job], lacking: Mapping[str, Sequence[ModelPart]], settings: RenderSettings, reporter: Reporter
) -> list[Job]:
    """Download what the jobs lack, and return them planned again. A dry run only announces it."""
    fetch.announce_pull(lacking, reporter, pull=settings.pull, dry_run=settings.dry_run)
    if settings.dry_run:
        return planned
    with reporter.results():
        fetch.pull_parts(list(dict.fromkeys(chain(*lacking.values()))), settings.models_dir, reporter)
    return plan.replan_jobs(planned, settings)


def keep_skipped(planned: list[Job], session: RenderSession) -> None:
    """Touch the files of skipped takes, for `make`; rewrite tags where only those have changed."""
    reporter, results = session.reporter, session.results
    for job, output in [(one, output) for one in planned for output in one.outputs]:
        if output.retagged:
            try:
                write.retag(output, job)
            except OutputError as error:
                write.mark_failed([output], result.describe_error(error))
                continue
            reporter.say(f"{output.path}: has new tags")
            write.print_path(output, job, results)
        elif output.status == SKIPPED and output.path is not None:
            try:
                for file in filter(
                    None, (spec_layers.sidecar_path(output.path), output.lrc, output.latents, output.path)
                ):
                    os.utime(file)
            except OSError as error:
                reporter.warn(f"{file} cannot be touched: {reason_of(error)}.")
            say = reporter.detail if job.song.place.is_intermediate else reporter.say
            same = f"the same recipe and seed, {output.seed}" if job.song.place.numbered else "the same recipe"
            say(f"{output.path}: kept, for it has {same}")
            write.print_path(output, job, results)
    if (hint := announce.new_takes_hint(planned)) is not None:
        reporter.say(hint)


def render_jobs(alike: list[Job], session: RenderSession) -> bool:
    """Render jobs of one checkpoint and plan with one load of its weights. Return False if the run should end."""
    if not any(job.is_pending for job in alike):
        return True
    reporter, remaining = session.reporter, session.reporter.remaining
    remaining.begin(pending_work(alike))
    with reporter.progress(partial(hardware.used_bytes, alike[0].plan.device)) as shown:
        report = remaining.following(shown)
        from acestep_cli.pipeline import Pipeline  # loads torch: no refusal above waits for that

        pipeline = Pipeline(alike[0].checkpoint, alike[0].plan, alike[0].songwriter, cache=alike[0].cache)
        runs = 0

        def begin(requests: Sequence[Completed], together: Sequence[int]) -> Generator[Take]:
            nonlocal runs
            runs += 1
            if runs > 1:  # after a failure: without the song that failed
                remaining.begin(pending_work(alike))
            return pipeline.run(
                requests,
                report=report,
                warn=reporter.warn,
                say=reporter.say,
                timeout=session.settings.timeout,
                together=together,
                on_lengths=remaining.resize,
            )

        goes_on = all(render_takes(alike, begin, session))
        if goes_on and runs == 1:
            record_overhead(alike[0], reporter)
        return goes_on


def render_takes(
    alike: list[Job],
    begin: Callable[[Sequence[Completed], Sequence[int]], Generator[Take]],
    session: RenderSession,
) -> Iterator[bool]:
    """Write the takes of jobs as `begin` renders them: requests, and for each the takes that share a forward pass.

    Yields True before each take, so that a caller may alternate between several renders, and False at the end where
    the run should end. A take that fails its checks does not stop the others. Any other failure ends its song, and a
    full disk or a card that stops working ends the run.
    """
    reporter = session.reporter
    waiting = [(job, request, takes) for job in alike for request, takes in job.pending()]
    while waiting:
        made = begin([request for _, request, _ in waiting], [job.plan.together for job, _, _ in waiting])
        try:
            for job, _, takes in waiting:
                for output in takes:
                    yield True
                    take = next(made)
                    write.write_take(take, output, job, session)
                    reporter.events.takes([output])
                    record_speed(take, job, reporter)
            return
        except OutputError as error:
            write.mark_failed(planned_outputs(waiting), result.describe_error(error))
            yield False
            return
        except Exception as error:
            is_lost = lost_device(error)
            if not isinstance(error, AceStepError):
                if len(waiting) == 1 and not is_lost:
                    raise
                if session.settings.debug:
                    reporter.say("".join(traceback.format_exception(error)).rstrip())
            if is_lost:
                write.mark_failed(planned_outputs(waiting), result.describe_error(error))
                yield False
                return
            broken = next(job for job, _, takes in waiting if is_waiting(takes))
            write.mark_failed([o for o in broken.outputs if o.status == PLANNED], result.describe_error(error))
            waiting = [entry for entry in waiting if entry[0] is not broken and is_waiting(entry[2])]
        finally:
            made.close()


def planned_outputs(waiting: Sequence[tuple[Job, Completed, Sequence[OutputFile]]]) -> list[OutputFile]:
    """Return the outputs that are yet to be made."""
    return [output for _, _, takes in waiting for output in takes if output.status == PLANNED]


def record_speed(take: Take, job: Job, reporter: Reporter) -> None:
    """Record fallbacks and speed of a take in the history, for the next plan of such a song."""
    fell_back = take.fell_back  # not by its plan: fallbacks of an earlier song say nothing of this one
    clean = not fell_back and not take.plan.vae_on_cpu  # else the seconds are of more than one thing
    speed = measured_speed(take.request, take.plan, Sizes.of(job.checkpoint), take.timings) if clean else None
    if speed is None and not fell_back:
        return
    try:
        history.record_render(
            job.device,
            history.task_of(take.request, job.checkpoint),
            take.plan,
            fallback_seconds=take.request.duration if fell_back else None,
            speed=speed,
            most_together=take.plan.together if take.plan.together < job.plan.together else None,
        )
    except OSError as error:
        reason = reason_of(error)
        reporter.warn(f"{history.history_file()} cannot be written: {reason}; this render's time and memory are lost.")


def record_overhead(job: Job, reporter: Reporter) -> None:
    """Record what the run of a job and those like it took beside diffusion and decoding."""
    overhead = reporter.remaining.overhead()
    if overhead is not None:
        with suppress(OSError):  # of which `record_speed` has warned
            history.record_overhead(job.device, history.task_of(job.request, job.checkpoint), job.plan, overhead)


def is_waiting(files: Sequence[OutputFile]) -> bool:
    """Tell whether any of the files is yet to be made."""
    return any(output.status == PLANNED for output in files)


def raise_failures(made: list[OutputFile], unbegun: Sequence[AceStepError] = ()) -> None:
    """Raise one error for all failures of the run, if there are any."""
    failed = {str(output.path): result.as_error(output.error) for output in made if output.error is not None}
    errors = [*failed.values(), *unbegun]
    if not errors:
        return
    asked = len(made) + len(unbegun)
    if asked == 1:
        raise errors[0]
    lost = len(unbegun) + sum(output.status == FAILED for output in made)
    report = "\n".join([*(f"{path}: {error}" for path, error in failed.items()), *map(str, unbegun)])
    error: AceStepError
    if len(errors) == asked and len({one.exit_code for one in errors}) == 1:
        lacking = f"None of {asked} takes could be made." if lost else f"All {asked} takes lack their timed lyrics."
        error = AceStepError(f"{lacking}\n{report}")
        error.exit_code, error.name = errors[0].exit_code, errors[0].name
    else:
        what = "the others are not" if lost == len(errors) else "not all of them as asked"
        error = SeveralFailedError(f"{asked - lost} of {asked} takes are there; {what}.\n{report}")
    raise error


def rank_takes(takes: Sequence[OutputFile]) -> list[OutputFile]:
    """Return the takes of a song, the best first. Failed takes and those without a score come last."""
    means = ranking.mean_scores([output.scores if output.error is None else {} for output in takes])
    found = [(score, output) for score, output in zip(means, takes, strict=True) if score is not None]
    best = [output for _, output in sorted(found, key=lambda one: -one[0])]
    for place, output in enumerate(best, start=1):
        output.rank = place
    return best + [output for output in takes if output.rank is None]
