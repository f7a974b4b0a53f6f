"""Sentences of a render to its reporter: the plan, remarks on songs, the takes, and how to go on from them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from acestep_cli.errors import shell_word
from acestep_cli.machine import plan_text
from acestep_cli.models import checkpoint_table
from acestep_cli.models.checkpoint_table import BUILT_IN
from acestep_cli.models.sizes import Sizes
from acestep_cli.render import arguments
from acestep_cli.render.job import Job, group_by_weights
from acestep_cli.render.reporter import Reporter, ResultStream
from acestep_cli.render.result import SKIPPED, WRITTEN, OutputFile
from acestep_cli.song import modes, ranking, spec, spec_keys, values

#: The most remarks on a song that a render shows; `spec check` shows all.
MOST_REMARKS = 3


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

    if not job.is_pending or job.song.is_replayed:
        return []
    found, name = job.song.resolved, job.track or ("" if job.song.spec_file is None else str(job.song.spec_file))
    song_remarks = remarks.song_remarks(found.request, job.request.duration, is_guess="duration" in job.request.open)
    of_song = [
        remarks.placed(remark, name, found.origins, found.lines)
        for remark in song_remarks
        if remark.key not in found.from_source  # which were shown when that was rendered
    ]
    all_remarks = [*found.remarks, *of_song]
    sentences = all_remarks[:MOST_REMARKS]
    if len(all_remarks) > MOST_REMARKS:
        more = len(all_remarks) - MOST_REMARKS
        listing = (
            "" if job.song.spec_file is None else f"; acestep spec check {shell_word(job.song.spec_file)} lists them"
        )
        sentences.append(f"{name or 'The words'}: {more} more remark{'s' * (more > 1)}{listing}")
    return sentences


def preview_files(planned: list[OutputFile], reporter: Reporter, results: ResultStream) -> None:
    """Report for each file what a render would do, and print the paths that there would be at its end.

    On one screen, where the path follows, what is alike is said once.
    """
    said = ""
    for output in planned:
        if output.path is not None:
            is_there = output.status == SKIPPED and not output.retagged
            what = "is there already" if is_there else "would get other tags" if output.retagged else "would be written"
            if not reporter.shares_screen:
                reporter.say(f"{output.path}: {what}")
            elif what != said:
                reporter.say(f"{what.capitalize()}:")
                said = what
            results.path(output.path)


def next_step(made: Sequence[OutputFile]) -> str | None:
    """Return how to go on from the files of a run: hear the only one, or compare several."""
    written = [output for output in made if output.status == WRITTEN and output.path is not None]
    if not written:
        return None
    first = written[0].path
    assert first is not None
    if len(written) > 1 and all(output.path is not None and output.path.parent == first.parent for output in written):
        files = [output.path for output in written if output.path is not None]
        return f"Compare them: acestep show {pattern_of(files)}; acestep listen {shell_word(first.parent)} --open"
    other = written[0].completed.variation_seed
    again = f"--seed {written[0].seed}" + ("" if other is None else f" --variation-seed {other}")
    return f"{playing_hint(first)}. The same again: {again}"


def pattern_of(files: Sequence[Path]) -> str:
    """Return a shell's pattern for the files of one folder: of numbered takes of one song, or else of a format."""
    folder, stem, suffix = files[0].parent, files[0].stem.rstrip("0123456789"), files[0].suffix
    begins = stem if all(file.name.startswith(stem) for file in files) else ""
    before = "" if folder == Path() else f"{shell_word(folder)}/"
    return f"{before}{shell_word(begins) if begins else ''}*{suffix}"


def playing_hint(file: Path) -> str:
    """Return the command of this system that opens an audio file; where it has none, the program's own picture."""
    opener = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    if sys.platform not in ("darwin", "win32") and shutil.which(opener) is None:
        return f"See it: acestep show {shell_word(file)}; any player plays it"
    return f"Hear it: {opener} {shell_word(file)}"


def announce_plan(planned: list[Job], reporter: Reporter, *, dry_run: bool) -> None:
    """Report checkpoints, devices and reasons, and what is special about songs; for a dry run, memory by stage too."""
    for warning in dict.fromkeys(warning for job in planned for warning in job.warnings):
        reporter.warn(warning)
    sketched = next(filter(is_stand_in, planned), None)
    is_told = sketched is not None and advise_models(sketched, reporter)
    for [job, *_] in group_by_weights(planned):
        what = "A sketch: " if is_stand_in(job) and not is_told else ""
        announce_machine(job, reporter, dry_run=dry_run, what=what)
    by_text = [job for job in planned if job.song.resolved.origins.get("caption") == arguments.CAPTION]
    for caption in dict.fromkeys(job.request.caption or "" for job in by_text):
        reporter.say(f"There is no file {values.quoted(caption)}, so that is the caption (-c)")
    for job in planned:
        announce_song(job, reporter, several=len(planned) > 1)
    if any(job.is_pending for job in planned):
        say = reporter.say if dry_run else reporter.detail
        say(expected_time(planned, later=reporter.remaining.unplanned))


def is_stand_in(job: Job) -> bool:
    """Tell whether the built-in model plays a job because no other is installed."""
    return (job.song.resolved.request.model or "auto") == "auto" and job.checkpoint.name == BUILT_IN


def advise_models(job: Job, reporter: Reporter) -> bool:
    """Advise to fetch a real model for a job; return False where that was said today."""
    task = modes.mode_of(job.request).task
    best, *_ = checkpoint_table.auto_order(task)
    size = sum(part.size_gb for part in checkpoint_table.model_parts(best))
    is_first = best == checkpoint_table.AUTO_ORDER[0]
    lacking = "No model is installed" if is_first else f"No model trained for {task} is installed"
    return reporter.advise(
        "built-in", f"{lacking}, so {BUILT_IN} plays: a sketch. A real one ({size:.1f} GB): acestep models pull {best}"
    )


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
    time = plan_text.time_line(
        sum(known) * (1 + later / takes) if len(known) == len(seconds) else None,
        sum(startup) if len(startup) == len(starts) else None,
        takes + later,
    )
    guessed = [job.request.duration for job in pending if "duration" in job.request.open]
    return time + plan_text.length_note(guessed) if len(known) == len(seconds) else time


def takes_of(job: Job) -> int:
    """Return the number of takes of a job that are to be made."""
    return sum(request.takes for request, _ in job.pending())


def announce_machine(job: Job, reporter: Reporter, *, dry_run: bool, what: str) -> None:
    """Report checkpoint, device and reasons of a job, with `what` it makes in front; for a dry run, memory by stage."""
    checkpoint, made = job.checkpoint, job.plan
    device, dtype = (f"{getattr(made, name)} ({made.reasons[name]})" for name in ("device", "dtype"))
    reporter.say(f"{what}{checkpoint.name} on {device}, {dtype}")
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
    if job.is_pending and (length := shortened(job)) is not None:
        reporter.say(f"{job.name if several else 'The song'} will be {length}")
    if job.is_pending and (taken := taken_over(job)) is not None:
        reporter.say(f"{taken}{where}")
    if job.is_pending and (passes := fewer_together(job)) is not None:
        reporter.say(f"{passes}{where}")
    if job.request.scored:
        names = " and ".join(name.replace("_", " ") for name in job.request.scored)
        lacking = ranking.inapplicable_scores(job.song.resolved.request, job.checkpoint, job.songwriter)
        reporter.say(
            f"Takes{where} are ranked by {names}{'; ' if lacking else ''}{ranking.inapplicable_sentence(lacking)}"
        )
    if job.songwriter is not None and job.request.open:
        keys = ", ".join(key.replace("_", " ") for key in job.request.open)
        where = f" in {job.name}" if job.song.spec_file is not None or job.song.swept.values else ""
        reporter.say(f"The Songwriter {job.songwriter.name} decides what is open{where}: {keys}")


def taken_over(job: Job) -> str | None:
    """Return a sentence on what a song has from the spec of its source; None where it has nothing.

    The description of a source is left out where an edit replaces it.
    """
    request, keys = job.song.resolved.request, job.song.resolved.from_source
    replaced = {f"from_{key}" for key in ("caption", "lyrics") if getattr(request, key) is not None}
    if request.instrumental:
        replaced.add("from_lyrics")
    shown = [
        f"{key} {getattr(request, key)}" if key in modes.METER else key.removeprefix("from_")
        for key in keys
        if key not in replaced
    ]
    return f"Taken over from the source: {', '.join(shown).replace('_', ' ')}" if shown else None


def fewer_together(job: Job) -> str | None:
    """Return a sentence where fewer takes share a forward pass than were asked for; not for a take's own sidecar."""
    asked, number = job.request.together, job.plan.together
    if asked is None or number >= asked or job.song.is_replayed:
        return None
    return f"--together {asked}: {number} at a time, {job.plan.reasons['together']}"


def print_origins(planned: list[Job], reporter: Reporter) -> None:
    """Report every effective value and its origin, a line each."""
    for job in planned:
        if len(planned) > 1:
            reporter.say(f"{job.name}:")
        rows = [
            (one.name, spec.inline_value(one.value), one.origin)
            for one in spec.value_origins(job.song.resolved, job.decided)
        ]
        rows += [
            (name, str(getattr(job.plan, name)), f"machine, {job.plan.reasons[name]}")
            for name in ("device", "dtype", "together")
            if name in job.plan.reasons
        ]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for name, value, origin in rows:
            reporter.say(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")


def new_takes_hint(planned: list[Job]) -> str | None:
    """Return the flag that makes new takes where all files of a run are kept; None where there is something to make."""
    if any(output.status != SKIPPED or output.retagged for job in planned for output in job.outputs):
        return None
    if not all(job.song.place.offers_again for job in planned):
        return None
    key = "seed" if any(job.request.variation is None for job in planned) else "variation_seed"
    flag = spec_keys.flag_of(key)
    is_given = any(job.song.resolved.origins.get(key) == flag for job in planned)
    if all(job.song.place.numbered for job in planned):
        if is_given:
            return f"That is there already. New takes: another {flag}."
        return "That is there already, for the spec has a seed. New takes: --again."
    if is_given:
        return f"That is there already. New takes beside it: --again instead of {flag}."
    return "That is there already. New takes beside it: --again; in its place: --force."


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
