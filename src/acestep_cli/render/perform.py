"""Rendering commands: from specs and flags to files, for every mode."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from acestep_cli.audio import loudness
from acestep_cli.cache import open_cache
from acestep_cli.errors import AceStepError, OutputError, SeveralFailedError, lost_device, reason_of, shell_word
from acestep_cli.machine import hardware, history, plan_text
from acestep_cli.machine.plan import measured_speed
from acestep_cli.models import checkpoints, local
from acestep_cli.models.sizes import Sizes
from acestep_cli.render import arguments, fetch, paths, plan, result, take_cache, write
from acestep_cli.render.job import Job, pending_work
from acestep_cli.render.reporter import Reporter, ResultStream
from acestep_cli.render.result import FAILED, PLANNED, SKIPPED, WRITTEN, OutputFile, RunReport
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import modes, ranking, spec
from acestep_cli.song.values import quoted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from acestep_cli.machine.plan import Plan
    from acestep_cli.models.checkpoints import ModelPart
    from acestep_cli.song.complete import Completed
    from acestep_cli.take import Take

#: Renders jobs of one checkpoint and plan, as `render_jobs` does.
Make = Callable[[list[Job], RenderSettings, Reporter, ResultStream], bool]


def plan_and_make(
    mode: str | None,
    specs: list[str],
    song: dict[str, Any],
    settings: RenderSettings,
    reporter: Reporter,
    run_report: RunReport,
) -> None:
    """Plan, announce and render the takes that specs and flags ask for, and record them in `run_report`."""
    with spec.reading_stdin(typing=not settings.no_input):
        planned = plan.plan_jobs(mode, specs, song, settings)
    if lacking := plan.missing_parts(planned):
        planned = fetch_missing(planned, lacking, settings, reporter)
        run_report.more["models"] = [local.model_state(name, settings.models_dir).report() for name in lacking]
    run_report.outputs = [output for job in planned for output in job.outputs]
    announce_plan(planned, reporter, dry_run=settings.dry_run)
    for remark in chain(*map(plan.remarks_on, planned)):
        reporter.warn(remark)
    if settings.explain and not settings.json:
        print_origins(planned, reporter)
    with reporter.results() as results:
        if settings.dry_run:
            preview_files(run_report.outputs, reporter, results)
            return
        make_planned(planned, settings, reporter, results)
    if settings.rank:
        run_report.outputs = [output for job in planned for output in rank_takes(job.outputs)]
    finish_report(run_report.outputs, reporter)
    if step := next_step(run_report.outputs):
        reporter.lead(step)


def preview_files(planned: list[OutputFile], reporter: Reporter, results: ResultStream) -> None:
    """Report for each file what a render would do, and print the paths that there would be at its end."""
    for output in planned:
        if output.path is not None:
            is_there = output.status == SKIPPED and not output.retagged
            what = "is there already" if is_there else "would get other tags" if output.retagged else "would be written"
            reporter.say(f"{output.path}: {what}")
            results.path(output.path)


def make_planned(
    planned: list[Job], settings: RenderSettings, reporter: Reporter, results: ResultStream, by: Make | None = None
) -> None:
    """Make the planned files, with `render_jobs` or `by`. A failure is recorded in its output."""
    made = [output for job in planned for output in job.outputs]
    reporter.events.refuse_files(file for output in made for file in output.files)
    keep_skipped(planned, reporter, results)
    if settings.cache:
        cache = open_cache(reporter.warn)
        for job in planned:
            job.cache = cache
    try:
        for job in planned:
            finish_from_cache(job, settings, reporter, results)
        reporter.remaining.add(pending_work(planned))
        for alike in group_by_weights(planned):
            if not (by or render_jobs)(alike, settings, reporter, results):
                break
    except BaseException as error:
        write.mark_failed([output for output in made if output.status == PLANNED], result.describe_error(error))
        raise
    finally:
        reporter.events.takes(made)


def finish_from_cache(job: Job, settings: RenderSettings, reporter: Reporter, results: ResultStream) -> None:
    """Write the takes of a song that are in its cache."""
    if job.cache is None:
        return
    for output in job.outputs:
        if output.status == PLANNED and (take := take_cache.load_take(job.cache, job, output)) is not None:
            reporter.say(f"{output.path or 'stdout'}: made before; encoded again")
            write.write_take(take, output, job, settings, reporter, results)


def finish_report(made: list[OutputFile], reporter: Reporter, unbegun: Sequence[AceStepError] = ()) -> None:
    """Report on several takes, and raise an error for failed ones and for those that could not begin."""
    if len(made) > 1:
        summarise(made, reporter)
    raise_failures(made, unbegun)


def next_step(made: Sequence[OutputFile]) -> str | None:
    """Return how to go on from the files of a run: hear the only one, or compare several."""
    written = [output for output in made if output.status == WRITTEN and output.path is not None]
    if not written:
        return None
    first = written[0].path
    assert first is not None
    if len(written) > 1 and all(output.path is not None and output.path.parent == first.parent for output in written):
        return f"Compare them: acestep listen {shell_word(first.parent)} --open"
    other = written[0].completed.variation_seed
    again = f"--seed {written[0].seed}" + ("" if other is None else f" --variation-seed {other}")
    return f"{way_to_hear(first)}. The same again: {again}"


def way_to_hear(file: Path) -> str:
    """Return the command of this system that opens an audio file; where it has none, the program's own picture."""
    opener = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    if sys.platform not in ("darwin", "win32") and shutil.which(opener) is None:
        return f"See it: acestep show {shell_word(file)}; any player plays it"
    return f"Hear it: {opener} {shell_word(file)}"


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


def group_by_weights(planned: list[Job]) -> list[list[Job]]:
    """Return groups of jobs that share a checkpoint and a plan: their weights are loaded once."""
    alike: list[list[Job]] = []
    for job in planned:
        same = next((jobs for jobs in alike if shares_weights(jobs[0], job)), None)
        if same is None:
            alike.append([job])
        else:
            same.append(job)
    return alike


def shares_weights(one: Job, other: Job) -> bool:
    alike = (one.checkpoint, one.songwriter) == (other.checkpoint, other.songwriter)
    return alike and one.plan.shares_weights_with(other.plan)


def announce_plan(planned: list[Job], reporter: Reporter, *, dry_run: bool) -> None:
    """Report checkpoints, devices and reasons, and what is special about songs; for a dry run, memory by stage too."""
    for warning in [warning for job in planned for warning in job.warnings]:
        reporter.warn(warning)
    for job in planned:
        asked = job.resolved.request.model or "auto"
        if asked == "auto" and job.checkpoint.name == checkpoints.BUILT_IN:
            order = checkpoints.auto_order(modes.mode_of(job.request).task)
            reporter.advise(
                "built-in",
                f"None of {', '.join(order)} is installed, so the built-in sketch model plays; "
                f"acestep models pull {order[0]} fetches a real one.",
                "A sketch:",
            )
            break
    for [job, *_] in group_by_weights(planned):
        announce_machine(job, reporter, dry_run=dry_run)
    for job in planned:
        announce_song(job, reporter, several=len(planned) > 1)
    if any(job.is_pending for job in planned):
        say = reporter.say if dry_run else reporter.detail
        say(expected_time(planned, later=reporter.remaining.unplanned))


def expected_time(planned: list[Job], *, later: int = 0) -> str:
    """Return a sentence on the time that the pending takes of jobs need, with as many again as there are `later`."""
    groups = [[job for job in alike if job.is_pending] for alike in group_by_weights(planned)]
    pending = [job for alike in groups for job in alike]
    takes = sum(map(takes_of, pending))
    seconds = [
        None if job.plan.seconds is None else job.plan.seconds * takes_of(job) / job.request.takes for job in pending
    ]
    starts = [[(job.plan.expected or {}).get("startup") for job in alike] for alike in groups if alike]
    known = [one for one in seconds if one is not None]
    startup = [max(one for one in start if one is not None) for start in starts if None not in start]
    return plan_text.time_line(
        sum(known) * (1 + later / takes) if len(known) == len(seconds) else None,
        sum(startup) if len(startup) == len(starts) else None,
        takes + later,
    )


def takes_of(job: Job) -> int:
    """Return the number of takes of a job that are to be made."""
    return sum(request.takes for request, _ in job.pending())


def announce_machine(job: Job, reporter: Reporter, *, dry_run: bool) -> None:
    """Report checkpoint, device and reasons of a job; for a dry run, memory by stage too."""
    checkpoint, made = job.checkpoint, job.plan
    reporter.say(
        f"{checkpoint.name} on {made.device} ({made.reasons['device']}), {made.dtype} ({made.reasons['dtype']})"
    )
    reporter.detail(f"{checkpoint.name} is {checkpoint.dit}")
    if job.songwriter is not None:
        reporter.detail(f"the Songwriter {job.songwriter.name} is {job.songwriter.folder}")
    for line in plan_text.plan_lines(made, job.device):
        say = reporter.say if dry_run else reporter.detail
        say(line)


def announce_song(job: Job, reporter: Reporter, *, several: bool) -> None:
    """Report what is special about a song, named where there are `several`."""
    if job.request.source_latents is not None:
        reporter.say(f"{job.request.source} is not encoded: {job.request.source_latents.path.name} beside it is used")
    where = f" in {job.name}" if several else ""
    if job.resolved.origins.get("caption") == arguments.CAPTION:
        reporter.say(f"There is no file {quoted(job.request.caption or '')}, so that is the caption (-c)")
    if job.is_pending and (length := plan.shortened(job)) is not None:
        reporter.say(f"{job.name if several else 'The song'} will be {length}")
    if job.request.scored:
        names = " and ".join(name.replace("_", " ") for name in job.request.scored)
        lacking = ranking.inapplicable_scores(job.resolved.request, job.checkpoint, job.songwriter)
        reporter.say(
            f"Takes{where} are ranked by {names}{'; ' if lacking else ''}{ranking.inapplicable_sentence(lacking)}"
        )
    if job.songwriter is not None and job.request.open:
        keys = ", ".join(key.replace("_", " ") for key in job.request.open)
        where = f" in {job.name}" if job.spec_file is not None else ""
        reporter.say(f"The Songwriter {job.songwriter.name} decides what is open{where}: {keys}")


def print_origins(planned: list[Job], reporter: Reporter) -> None:
    """Report every effective value and its origin, a line each."""
    for job in planned:
        if len(planned) > 1:
            reporter.say(f"{job.name}:")
        rows = [
            (one.name, spec.inline_value(one.value), one.origin)
            for one in spec.value_origins(job.resolved, job.decided)
        ]
        rows += [(name, getattr(job.plan, name), f"machine, {job.plan.reasons[name]}") for name in ("device", "dtype")]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for name, value, origin in rows:
            reporter.say(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")


def keep_skipped(planned: list[Job], reporter: Reporter, results: ResultStream) -> None:
    """Touch the files of skipped takes, for `make`; rewrite tags where only those have changed."""
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
                for file in filter(None, (paths.sidecar_path(output.path), output.lrc, output.latents, output.path)):
                    os.utime(file)
            except OSError as error:
                reporter.warn(f"{file} cannot be touched: {reason_of(error)}.")
            say = reporter.detail if job.place.on_the_way else reporter.say
            same = f"the same recipe and seed, {output.seed}" if job.place.numbered else "the same recipe"
            say(f"{output.path}: kept, for it has {same}")
            write.print_path(output, job, results)
    if (ways := ways_on(planned)) is not None:
        reporter.say(ways)


def ways_on(planned: list[Job]) -> str | None:
    """Return how to get new takes where all files of a run are kept; None where there is something to make."""
    if any(output.status != SKIPPED or output.retagged for job in planned for output in job.outputs):
        return None
    if not all(job.place.offers_again for job in planned):
        return None
    key = "seed" if any(job.request.variation is None for job in planned) else "variation_seed"
    flag = spec.flag_of(key)
    is_given = any(job.resolved.origins.get(key) == flag for job in planned)
    if all(job.place.numbered for job in planned):
        if is_given:
            return f"All of it is there; another {flag} makes new takes."
        return "All of it is there, for the spec has a seed; --again makes new takes."
    if is_given:
        return f"All of it is there; --again instead of {flag} makes new takes beside it."
    return "All of it is there; --again makes new takes beside it, --force in its place."


def render_jobs(alike: list[Job], settings: RenderSettings, reporter: Reporter, results: ResultStream) -> bool:
    """Render jobs of one checkpoint and plan with one load of its weights. Return False if the run should end."""
    if not any(job.is_pending for job in alike):
        return True
    remaining = reporter.remaining
    remaining.begin(pending_work(alike))
    with reporter.progress(partial(hardware.used_bytes, alike[0].plan.device)) as shown:
        report = remaining.following(shown)
        from acestep_cli.pipeline import Pipeline  # loads torch: no refusal above waits for that

        loudness.import_ahead()
        pipeline = Pipeline(alike[0].checkpoint, alike[0].plan, alike[0].songwriter, cache=alike[0].cache)
        runs = 0

        def begin(requests: list[Completed]) -> Generator[Take]:
            nonlocal runs
            runs += 1
            if runs > 1:  # after a failure: without the song that failed
                remaining.begin(pending_work(alike))
            return pipeline.run(requests, report=report, warn=reporter.warn, say=reporter.say)

        goes_on = all(render_takes(alike, begin, settings, reporter, results))
        if goes_on and runs == 1:
            record_overhead(alike[0], reporter)
        return goes_on


def render_takes(
    alike: list[Job],
    begin: Callable[[list[Completed]], Generator[Take]],
    settings: RenderSettings,
    reporter: Reporter,
    results: ResultStream,
) -> Iterator[bool]:
    """Write the takes of jobs as `begin` renders them.

    Yields True before each take, so that a caller may alternate between several renders, and False at the end where
    the run should end. A take that fails its checks does not stop the others. Any other failure ends its song, and a
    full disk or a card that stops working ends the run.
    """
    waiting = [(job, request, takes) for job in alike for request, takes in job.pending()]
    while waiting:
        made = begin([request for _, request, _ in waiting])
        before = alike[0].plan
        try:
            for job, _, takes in waiting:
                for output in takes:
                    yield True
                    take = next(made)
                    write.write_take(take, output, job, settings, reporter, results)
                    reporter.events.takes([output])
                    record_speed(take, job, before, reporter)
                    before = take.plan
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
                if settings.debug:
                    traceback.print_exception(error, file=sys.stderr)
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


def record_speed(take: Take, job: Job, before: Plan, reporter: Reporter) -> None:
    """Record fallbacks and speed of a take in the history, for the next plan of such a song.

    `before` is the plan when the take began: fallbacks of an earlier song say nothing of this one.
    """
    fell_back = take.plan.arrangement != before.arrangement
    clean = not fell_back and not take.plan.vae_on_cpu  # else the seconds are of more than one thing
    speed = measured_speed(take.request, take.plan, Sizes.of(job.checkpoint), take.timings) if clean else None
    if speed is None and not fell_back:
        return
    try:
        history.record_render(
            job.device,
            plan.history_task(take.request, job.checkpoint),
            take.plan,
            fallback_seconds=take.request.duration if fell_back else None,
            speed=speed,
        )
    except OSError as error:
        reason = reason_of(error)
        reporter.warn(f"{history.history_file()} cannot be written: {reason}; this render's time and memory are lost.")


def record_overhead(job: Job, reporter: Reporter) -> None:
    """Record what the run of a job and those like it took beside diffusion and decoding."""
    overhead = reporter.remaining.overhead()
    if overhead is not None:
        with suppress(OSError):  # of which `record_speed` has warned
            history.record_overhead(job.device, plan.history_task(job.request, job.checkpoint), job.plan, overhead)


def is_waiting(files: Sequence[OutputFile]) -> bool:
    """Tell whether any of the files is yet to be made."""
    return any(output.status == PLANNED for output in files)


def raise_failures(made: list[OutputFile], unbegun: Sequence[AceStepError] = ()) -> None:
    """Raise one error for all failures of the run, if there are any."""
    failed = {str(output.path): as_error(output.error) for output in made if output.error is not None}
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


def summarise(made: list[OutputFile], reporter: Reporter) -> None:
    """Report each take in a line: its status, scores, seed, length, peak and file."""
    scored = list(dict.fromkeys(name for output in made for name in ranking.ALL if name in output.scores))
    rows = [("", *(name.replace("_", " ") for name in scored), "seed", "seconds", "peak dBFS", "file")]
    for output in made:
        seconds = "" if output.seconds is None else f"{output.seconds:.2f}"
        peak = "" if "peak_dbfs" not in output.checks else f"{output.checks['peak_dbfs'] + 0:.1f}"
        own = [f"{output.scores[name]:.4f}" if name in output.scores else "" for name in scored]
        rows.append((output.status, *own, str(output.seed), seconds, peak, str(output.path)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for status, *numbers, file in rows:
        aligned = "  ".join(number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True))
        reporter.say(f"{status.ljust(widths[0])}  {aligned}  {file}")


def as_error(described: Mapping[str, Any]) -> AceStepError:
    """Return the error that `result.describe_error` described."""
    error = AceStepError(described["message"], described.get("hint"))
    error.exit_code, error.name = described["exit_code"], described["name"]
    return error
