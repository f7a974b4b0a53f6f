"""What every rendering command does: from specs and flags to files, whatever the mode."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from acestep_cli import (
    audio,
    checkpoints,
    completing,
    disk,
    formats,
    hardware,
    latents,
    levels,
    logbook,
    lrc,
    memory,
    modes,
    planning,
    recordings,
    scores,
    shelf,
    spec,
    tags,
)
from acestep_cli.cli import (
    auto,
    delivery,
    events,
    failures,
    forecast,
    jobs,
    options,
    outputs,
    recollection,
    results,
    sidecar,
    smoke,
)
from acestep_cli.cli.console import Console, Stdout
from acestep_cli.cli.jobs import FAILED, PLANNED, SKIPPED, WRITTEN, Job
from acestep_cli.cli.options import Run
from acestep_cli.cli.results import Ledger, Output
from acestep_cli.errors import (
    AceStepError,
    CheckError,
    EncoderError,
    ExistsError,
    OutputError,
    SeveralFailedError,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from acestep_cli.checkpoints import Part
    from acestep_cli.completing import Completed
    from acestep_cli.latents import Latents
    from acestep_cli.pipeline import Take
    from acestep_cli.planning import Plan

#: Renders jobs of one checkpoint and plan, as `make` does.
Make = Callable[[list[Job], Run, Console, Stdout], bool]
#: Decibels by which the loudness may miss what was asked before it is worth a word.
LOUDNESS_TOLERANCE = 0.2


def render(ctx: typer.Context, mode: str | None, specs: list[str], song: dict[str, Any], run: Run) -> None:
    """Make what the specs and flags ask for."""
    if run.auto:
        auto.roll(mode, specs, song, run)
        return
    terminal = Console(
        run.quiet,
        verbose=run.verbose,
        progress=run.progress,
        paths=not run.json and run.output != outputs.STDOUT,
    )
    with events.to(run.events) as terminal.events:
        plan_and_make(ctx, mode, specs, song, run, terminal)


def plan_and_make(
    ctx: typer.Context, mode: str | None, specs: list[str], song: dict[str, Any], run: Run, terminal: Console
) -> None:
    """Plan, announce and make."""
    ledger = Ledger.kept(ctx, terminal.warnings)
    with spec.reading_stdin(typing=not run.no_input):
        planned = jobs.plan(mode, specs, song, run)
    if lacking := jobs.lacking(planned):
        planned = fetched(planned, lacking, run, terminal)
        ledger.more["models"] = [shelf.state(name, run.models_dir).report() for name in lacking]
    ledger.outputs = [output for job in planned for output in job.outputs]
    announce(planned, terminal, dry_run=run.dry_run)
    if run.explain and not run.json:
        explain(planned, terminal)
    with terminal.results() as stdout:
        if run.dry_run:
            foretell(ledger.outputs, terminal, stdout)
            return
        perform(planned, run, terminal, stdout)
    if run.rank:
        ledger.outputs = [output for job in planned for output in ranked(job.outputs)]
    finish_report(ledger.outputs, terminal)


def foretell(planned: list[Output], terminal: Console, stdout: Stdout) -> None:
    """Say of each file what a render would do."""
    for output in planned:
        if output.path is not None:
            is_there = output.status == SKIPPED and not output.retagged
            what = "is there already" if is_there else "would get other tags" if output.retagged else "would be written"
            terminal.say(f"{output.path}: {what}")
            if not is_there:
                stdout.path(output.path)


def perform(planned: list[Job], run: Run, terminal: Console, stdout: Stdout, by: Make | None = None) -> None:
    """Make what is planned, here unless `by` somebody else. What fails is noted in its output."""
    made = [output for job in planned for output in job.outputs]
    terminal.events.refuse_files(file for output in made for file in output.files)
    keep_skipped(planned, terminal, stdout)
    if run.cache:
        cache = options.opened_cache(terminal.warn)
        for job in planned:
            job.cache = cache
    try:
        for job in planned:
            recall(job, run, terminal, stdout)
        for alike in by_weights(planned):
            if not (by or make)(alike, run, terminal, stdout):
                break
    except BaseException as error:
        fail([output for output in made if output.status == PLANNED], failures.described(error))
        raise
    finally:
        terminal.events.takes(made)


def recall(job: Job, run: Run, terminal: Console, stdout: Stdout) -> None:
    """Finish the takes of a song that are in its cache."""
    if job.cache is None:
        return
    for output in job.outputs:
        if output.status == PLANNED and (take := recollection.recall(job.cache, job, output)) is not None:
            terminal.say(f"{output.path or 'stdout'}: made before, and finished anew")
            keep(take, output, job, run, terminal, stdout)


def finish_report(made: list[Output], terminal: Console, unbegun: Sequence[AceStepError] = ()) -> None:
    """Say what came of several takes, and raise what stands for their failures and for what could not be begun."""
    if len(made) > 1:
        summarise(made, terminal)
    conclude(made, unbegun)


def fetched(planned: list[Job], lacking: Mapping[str, Sequence[Part]], run: Run, terminal: Console) -> list[Job]:
    """The jobs once what they lack is here. A dry run only says what that is."""
    delivery.announce(lacking, terminal, dry_run=run.dry_run)
    if run.dry_run:
        return planned
    with terminal.results():
        delivery.pull(list(dict.fromkeys(chain(*lacking.values()))), run.models_dir, terminal)
    return jobs.renewed(planned, run)


def by_weights(planned: list[Job]) -> list[list[Job]]:
    """The jobs that share a checkpoint and a plan, together: their weights are loaded once."""
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


def announce(planned: list[Job], terminal: Console, *, dry_run: bool) -> None:
    """Say which checkpoint plays, on what, and why; of a dry run, also what will be in memory when."""
    for warning in [warning for job in planned for warning in job.warnings]:
        terminal.warn(warning)
    for job in planned:
        asked = job.resolved.request.model or "auto"
        if asked == "auto" and job.checkpoint.name == checkpoints.BUILT_IN:
            order = checkpoints.auto_order(modes.mode_of(job.request).task)
            terminal.say(
                f"None of {', '.join(order)} is installed, so the built-in sketch model plays; "
                f"acestep models pull {order[0]} fetches a real one."
            )
            break
    for [job, *_] in by_weights(planned):
        checkpoint, plan = job.checkpoint, job.plan
        terminal.say(
            f"{checkpoint.name} on {plan.device} ({plan.reasons['device']}), {plan.dtype} ({plan.reasons['dtype']})"
        )
        terminal.detail(f"{checkpoint.name} is {checkpoint.dit}")
        if job.songwriter is not None:
            terminal.detail(f"the Songwriter {job.songwriter.name} is {job.songwriter.folder}")
        for line in forecast.lines(plan, job.device):
            say = terminal.say if dry_run else terminal.detail
            say(line)

    for job in planned:
        if job.request.kept is not None:
            terminal.say(f"{job.request.source} is not encoded: {job.request.kept.path.name} beside it is used")
        where = f" in {job.name}" if len(planned) > 1 else ""
        if job.request.scored:
            names = " and ".join(name.replace("_", " ") for name in job.request.scored)
            lacking = scores.inapplicable(job.resolved.request, job.checkpoint, job.songwriter)
            terminal.say(f"Takes{where} are ranked by {names}{'; ' if lacking else ''}{scores.sentence(lacking)}")
        if job.songwriter is not None and job.request.open:
            keys = ", ".join(key.replace("_", " ") for key in job.request.open)
            where = f" in {job.name}" if job.spec_file is not None else ""
            terminal.say(f"The Songwriter {job.songwriter.name} decides what is open{where}: {keys}")


def explain(planned: list[Job], terminal: Console) -> None:
    """Say every effective value and where it came from, a line each."""
    for job in planned:
        if len(planned) > 1:
            terminal.say(f"{job.name}:")
        rows = [(one.name, spec.in_line(one.value), one.origin) for one in spec.explain(job.resolved, job.decided)]
        rows += [(name, getattr(job.plan, name), f"machine, {job.plan.reasons[name]}") for name in ("device", "dtype")]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for name, value, origin in rows:
            terminal.say(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")


def keep_skipped(planned: list[Job], terminal: Console, stdout: Stdout) -> None:
    """Touch what is there already, so that make is content with it; write tags anew where those alone have changed."""
    for job, output in [(one, output) for one in planned for output in one.outputs]:
        if output.retagged:
            try:
                retag(output, job)
            except OutputError as error:
                fail([output], failures.described(error))
                continue
            terminal.say(f"{output.path}: has new tags")
            stdout.path(output.path or "")
        elif output.status == SKIPPED and output.path is not None:
            try:
                for file in filter(None, (outputs.sidecar(output.path), output.lrc, output.latents, output.path)):
                    os.utime(file)
            except OSError as error:
                terminal.warn(f"{file} cannot be touched: {(error.strerror or str(error)).lower()}.")
            say = terminal.detail if job.place.on_the_way else terminal.say
            say(f"{output.path}: kept, for it has the same recipe")


def retag(output: Output, job: Job) -> None:
    """Replace the tags of a file, and what its sidecar and latents say of them; no sample changes."""
    assert output.path is not None
    beside, kept, cover = outputs.sidecar(output.path), latents.beside(output.path), job.resolved.cover
    record = sidecar.read(beside)
    assert record is not None
    header = latents.read_header(kept) if latents.belong(kept, output.path) else None
    files = [output.path, beside, *([kept] if header is not None else ())]
    with disk.whole(*files, replace=files) as [part, beside_part, *latents_part]:
        shutil.copyfile(output.path, part)
        request = sidecar.relabelled(beside, output.completed)
        said = request.model_dump(include=set(tags.KEYS))
        text = sidecar.for_tags(request, record)
        timed = lrc.read(output.lrc.read_text(encoding="utf-8")) if output.lrc is not None else ()
        labels = tags.Tags(**said, recipe=record.recipe, spec=text, cover=cover, lines=timed)
        tags.write(part, output.format, labels)
        disk.write_text(beside_part, sidecar.rewritten(beside, request, part.stat().st_size, job.labels(output)))
        if header is not None:
            now = header.model_copy(update={"audio": recordings.fingerprint(part)})
            latents.rewrite(kept, now, latents_part[0])
    output.status = WRITTEN


def make(alike: list[Job], run: Run, terminal: Console, stdout: Stdout) -> bool:
    """Render jobs of one checkpoint and plan with one load of its weights; False if the run had better end."""
    if not any(job.pending() for job in alike):
        return True
    with terminal.progress(partial(hardware.used_bytes, alike[0].plan.device)) as report:
        from acestep_cli.pipeline import Pipeline  # loads torch: no refusal above waits for that

        pipeline = Pipeline(alike[0].checkpoint, alike[0].plan, alike[0].songwriter, cache=alike[0].cache)
        begin = partial(pipeline.run, report=report, say=terminal.warn, tell=terminal.say)
        return all(making(alike, begin, run, terminal, stdout))


def making(
    alike: list[Job], begin: Callable[[list[Completed]], Generator[Take]], run: Run, terminal: Console, stdout: Stdout
) -> Iterator[bool]:
    """Keep the takes of jobs as they come; `begin` has requests rendered. True before each take, for whoever has
    several such renders at once; at last False where the run had better end.

    A take that fails its checks does not stop the others. Any other failure ends its song, and a disk that takes no
    more ends the run.
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
                    keep(take, output, job, run, terminal, stdout)
                    terminal.events.takes([output])
                    learn(take, job, before, terminal)
                    before = take.plan
            return
        except OutputError as error:
            rest = [output for _, _, takes in waiting for output in takes if output.status == PLANNED]
            fail(rest, failures.described(error))
            yield False
            return
        except Exception as error:
            if not isinstance(error, AceStepError):
                if len(waiting) == 1:
                    raise
                if run.debug:
                    traceback.print_exception(error, file=sys.stderr)
            broken = next(job for job, _, takes in waiting if is_waiting(takes))
            fail([o for o in broken.outputs if o.status == PLANNED], failures.described(error))
            waiting = [entry for entry in waiting if entry[0] is not broken and is_waiting(entry[2])]
        finally:
            made.close()


def learn(take: Take, job: Job, before: Plan, terminal: Console) -> None:
    """Write into the logbook what the next plan for such a song should know; `before` is the plan when the take began:
    what an earlier song had to leave says nothing of this one.
    """
    descended = take.plan.arrangement != before.arrangement
    clean = not descended and not take.plan.vae_on_cpu  # else the seconds are of more than one thing
    speed = planning.measured(take.request, take.plan, memory.Sizes.of(job.checkpoint), take.timings) if clean else None
    if speed is None and not descended:
        return
    try:
        logbook.note(
            job.device,
            jobs.task(take.request, job.checkpoint),
            take.plan,
            descended=take.request.duration if descended else None,
            speed=speed,
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        terminal.warn(f"{logbook.file()} cannot be written: {reason}; what this render taught is forgotten.")


def is_waiting(files: Sequence[Output]) -> bool:
    """Whether any of the files is yet to be made."""
    return any(output.status == PLANNED for output in files)


def keep(take: Take, output: Output, job: Job, run: Run, terminal: Console, stdout: Stdout) -> None:
    """Write a take and its sidecar, and note in `output` what came of it. Raises what the next take would meet too.

    A stem that is there already was made for what is written beside it.
    """
    if output.status != PLANNED:
        return
    for warning in take.warnings:
        terminal.warn(warning)
    output.seconds, output.timings = round(take.audio.seconds, 6), take.timings
    output.plan, output.scores = results.plain(take.plan), take.scores
    output.sample_rate = take.request.sample_rate or take.audio.sample_rate
    try:
        if take.problem is not None:
            raise CheckError(take.problem)
        if output.path is None:
            send(take, output, job, run, stdout)
        else:
            write(take, output, job, run)
    except (CheckError, ExistsError, EncoderError) as error:
        if isinstance(error, EncoderError):
            keep_master(take, output, job, error, terminal)
        if isinstance(error, ExistsError) and overtaken(output, job):
            terminal.say(f"{output.path}: another run made it meanwhile")
            return
        fail([output], failures.described(error))
        return
    if job.cache is not None:
        recollection.remember(job.cache, job, output, take)
    output.status, output.completed = WRITTEN, take.request
    asked, reached = levels.loudness(take.request.loudness), output.checks.get("lufs_written")
    if reached is not None and reached < asked.decibels - LOUDNESS_TOLERANCE:
        terminal.warn(f"{take.request.loudness} would push peaks over -1 dB; the loudness is {reached:.1f} LUFS.")
    name = output.path.name if output.path else "stdout"
    terminal.say(f"{name}: {take.audio.seconds:.2f} s of audio, seed {take.request.seed}")
    for remark in take.remarks:
        terminal.say(f"{name}: {remark}")
    terminal.detail("  ".join(f"{stage} {seconds:.2f} s" for stage, seconds in take.timings.items()))
    if job.request.lrc and not take.lines:
        terminal.warn(f"{name}: nobody sings in it, so there are no lyrics to time.")
    if output.path is not None and not job.place.on_the_way:
        stdout.path(output.path)


def finish(take: Take, job: Job) -> formats.Finish:
    """What the request says of the file, beside what it says of the song."""
    request = take.request
    recipe = completing.recipe(request, job.weights, job.decided.contents)
    adapting = sidecar.adapting(job.decided)
    origin = sidecar.Origin(**sidecar.made_with(take, recipe, job.checkpoint.name, job.weights, adapting))
    return formats.Finish(
        formats.encoding(request.format, request.bit_depth, request.bitrate, request.sample_rate),
        request.loudness,
        request.fade_in or 0.0,
        request.fade_out or 0.0,
        tags.Tags(
            **request.model_dump(include=set(tags.KEYS)),
            recipe=recipe,
            spec=sidecar.for_tags(request, origin),
            cover=job.resolved.cover,
            lines=take.lines,
        ),
    )


def encode(file: Path, take: Take, output: Output, job: Job, run: Run) -> levels.Level:
    """Make the file of a take, and note what was measured on the way."""
    level = formats.write(file, take.audio, finish(take, job))
    output.checks = {**sidecar.checks(level), **take.checks}
    if run.smoke:
        smoke.inspect(file)
    return level


def write(take: Take, output: Output, job: Job, run: Run) -> None:
    """Publish the take and its sidecar together. Where the number is taken meanwhile, the next one is used."""
    assert output.path is not None
    if not take.lines:
        output.lrc = None
    files = output.files
    forced = (run.force and not job.place.numbered) or output.outdated
    try:
        with disk.whole(*files, replace=files if forced else ()) as temporary:
            parts = dict(zip(files, temporary, strict=True))
            sound = parts[output.path]
            level = encode(sound, take, output, job, run)
            if output.sidecar is not None:
                recipe = completing.recipe(take.request, job.weights, job.decided.contents)
                size, model, labels = sound.stat().st_size, job.checkpoint.name, job.labels(output)
                said = {**songwriting(job, output), **sidecar.adapting(job.decided)}
                text = sidecar.text(take, recipe, model, job.weights, output.checks, size, labels, said)
                disk.write_text(parts[output.sidecar], text)
            if output.lrc is not None:
                disk.write_text(parts[output.lrc], lrc.dump(take.lines))
            if output.latents is not None and take.latents is not None:
                header = keepsake(take.audio, take.latents, level, sound, job)
                latents.write(parts[output.latents], take.latents, header)
            make_room(output, forced=forced)
    except ExistsError:
        if not job.place.numbered:
            raise
        free = outputs.next_free(output.path, [other.path for other in job.outputs if other.path])
        output.path, output.sidecar = free, outputs.sidecar(free) if output.sidecar else None
        output.lrc = lrc.beside(free) if output.lrc else None
        output.latents = latents.beside(free) if output.latents else None
        write(take, output, job, run)


def keepsake(made: audio.Audio, kept: Latents, level: levels.Level, file: Path, job: Job) -> latents.Header:
    """What is written with the latents of a take whose audio is in `file`."""
    return latents.Header(
        audio=recordings.fingerprint(file),
        vae=job.checkpoint.vae_hash(),
        gain=kept.gain * level.gain,
        samples=made.samples.shape[1],
        sample_rate=made.sample_rate,
        hop=kept.hop,
    )


def songwriting(job: Job, output: Output) -> dict[str, Any]:
    """What the sidecar of a take says of the Songwriter; nothing where it had no say."""
    if job.songwriter is None or not job.request.open:
        return {}
    return sidecar.songwriting(job.request, job.recipe(output), job.songwriter)


def make_room(output: Output, *, forced: bool) -> None:
    """Remove a sidecar or latents that would lie about the new audio, and what lies beside audio that is gone.

    What another run has written since the plan was made stays.
    """
    assert output.path is not None
    record = sidecar.read(outputs.sidecar(output.path)) if forced else None
    if record is not None and record.lrc and output.lrc is None:
        lrc.beside(output.path).unlink(missing_ok=True)
    for file, is_ours in (
        (outputs.sidecar(output.path), sidecar.read),
        (latents.beside(output.path), latents.read_header),
    ):
        if forced and file not in output.files and is_ours(file) is not None:
            file.unlink()
    for file, time_ns in output.stale.items():
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mtime_ns == time_ns:
                file.unlink()


def send(take: Take, output: Output, job: Job, run: Run, stdout: Stdout) -> None:
    """Encode the take and send it to stdout; containers are written back and forth, so by way of a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"take.{take.request.format}"
        try:
            encode(file, take, output, job, run)
        except OSError as error:
            raise disk.refusal(Path(folder), error) from error
        stdout.file(file)


def keep_master(take: Take, output: Output, job: Job, error: EncoderError, terminal: Console) -> None:
    """What an encoder would not take is kept as a lossless file beside, under the next free number."""
    if output.path is None or take.request.format == formats.DEFAULT_FORMAT:
        return
    master = outputs.next_free(output.path.with_name(f"{output.path.stem}-1.{formats.DEFAULT_FORMAT}"))
    lossless = formats.encoding(formats.DEFAULT_FORMAT, sample_rate=take.request.sample_rate)
    with disk.whole(master) as [part]:
        formats.write(part, take.audio, replace(finish(take, job), encoding=lossless))
    convert = shlex.join([formats.FFMPEG, "-i", str(master), str(output.path)])
    error.hint = f"The take is kept as {master}. To convert it: {convert}"
    terminal.say(f"{master}: the lossless master of {output.path.name}")


def overtaken(output: Output, job: Job) -> bool:
    """Whether the file that appeared during the render is the same take, made by another run.

    A sidecar appears a moment before its audio, which is waited for.
    """
    assert output.path is not None
    record = sidecar.read(outputs.sidecar(output.path))
    if record is None or not jobs.is_same(job, output, record):
        return False
    for _ in range(20):
        if disk.exists(output.path):
            jobs.skip(output, record)
            return True
        time.sleep(0.05)
    return False


def fail(failed: Sequence[Output], error: dict[str, Any]) -> None:
    for output in failed:
        output.status, output.error = FAILED, error


def conclude(made: list[Output], unbegun: Sequence[AceStepError] = ()) -> None:
    """Raise what stands for all failures of the run, if there are any."""
    failed = {str(output.path): as_error(output.error) for output in made if output.error is not None}
    errors = [*failed.values(), *unbegun]
    if not errors:
        return
    asked = len(made) + len(unbegun)
    if asked == 1:
        raise errors[0]
    report = "\n".join([*(f"{path}: {error}" for path, error in failed.items()), *map(str, unbegun)])
    error: AceStepError
    if len(errors) == asked and len({one.exit_code for one in errors}) == 1:
        error = AceStepError(f"None of {asked} takes could be made.\n{report}")
        error.exit_code, error.name = errors[0].exit_code, errors[0].name
    else:
        error = SeveralFailedError(f"{asked - len(errors)} of {asked} takes are there; the others are not.\n{report}")
    raise error


def ranked(takes: Sequence[Output]) -> list[Output]:
    """The takes of a song, the best first; those without a score, or that failed, come last."""
    means = scores.overall([output.scores if output.error is None else {} for output in takes])
    found = [(score, output) for score, output in zip(means, takes, strict=True) if score is not None]
    best = [output for _, output in sorted(found, key=lambda one: -one[0])]
    for place, output in enumerate(best, start=1):
        output.rank = place
    return best + [output for output in takes if output.rank is None]


def summarise(made: list[Output], terminal: Console) -> None:
    """Say what became of each take, a line each: its status, seed, length, peak as decoded, and file."""
    scored = list(dict.fromkeys(name for output in made for name in scores.ALL if name in output.scores))
    rows = [("", *(name.replace("_", " ") for name in scored), "seed", "seconds", "peak dBFS", "file")]
    for output in made:
        seconds = "" if output.seconds is None else f"{output.seconds:.2f}"
        peak = "" if "peak_dbfs" not in output.checks else f"{output.checks['peak_dbfs'] + 0:.1f}"
        own = [f"{output.scores[name]:.4f}" if name in output.scores else "" for name in scored]
        rows.append((output.status, *own, str(output.seed), seconds, peak, str(output.path)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for status, *numbers, file in rows:
        aligned = "  ".join(number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True))
        terminal.say(f"{status.ljust(widths[0])}  {aligned}  {file}")


def as_error(described: Mapping[str, Any]) -> AceStepError:
    """The error that `failures.described` said."""
    error = AceStepError(described["message"], described.get("hint"))
    error.exit_code, error.name = described["exit_code"], described["name"]
    return error
