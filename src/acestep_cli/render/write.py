"""Writing of takes: the audio file with its tags, sidecar, timed lyrics and latents, all of them or none."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acestep_cli import disk
from acestep_cli.audio import encode, loudness, lrc, tags
from acestep_cli.audio.checks import MeasuredFile
from acestep_cli.audio.regular_file import file_hash
from acestep_cli.audio.sound import Audio
from acestep_cli.audio.wav_chunks import Marker
from acestep_cli.errors import CheckError, EncoderError, ExistsError, shell_word
from acestep_cli.models import latents_file
from acestep_cli.render import existing, file_checks, paths, result, sidecar, smoke, take_cache
from acestep_cli.render.job import Job
from acestep_cli.render.reporter import Reporter, ResultStream
from acestep_cli.render.result import FAILED, PLANNED, WRITTEN, OutputFile
from acestep_cli.render.session import RenderSession
from acestep_cli.song import duration, sections, spec_layers

if TYPE_CHECKING:
    from acestep_cli.models.latents_file import Latents
    from acestep_cli.take import Take


def write_take(take: Take, output: OutputFile, job: Job, session: RenderSession) -> None:
    """Write a take and its sidecar, and record the result in `output`. Raises errors that the next take would meet too.

    A part of a take that exists already is left alone.
    """
    if output.status != PLANNED:
        return
    reporter, results = session.reporter, session.results
    for warning in take.warnings:
        reporter.warn(warning)
    output.seconds, output.timings = round(take.audio.seconds, 6), take.timings
    output.plan, output.scores = result.as_json(take.plan), take.scores
    output.sample_rate = take.request.sample_rate or take.audio.sample_rate
    try:
        if take.problem is not None:
            raise CheckError(take.problem)
        if output.path is None:
            send_to_stdout(take, output, job, session)
        else:
            publish_take(take, output, job, session)
    except (CheckError, ExistsError, EncoderError) as error:
        if isinstance(error, EncoderError):
            keep_lossless(take, output, job, error, reporter)
        if isinstance(error, ExistsError) and made_meanwhile(output, job):
            reporter.say(f"{output.path}: another run made it meanwhile")
            print_path(output, job, results)
            return
        mark_failed([output], result.describe_error(error))
        return
    if job.cache is not None:
        take_cache.store_take(job.cache, job, output, take)
    output.status, output.completed = WRITTEN, take.request
    report_take(take, output, job, reporter)
    print_path(output, job, results)


def print_path(output: OutputFile, job: Job, results: ResultStream) -> None:
    """Print the path of a file that was asked for and is there now, written or kept."""
    if output.path is not None and not job.song.place.is_intermediate:
        results.path(output.path)


def report_take(take: Take, output: OutputFile, job: Job, reporter: Reporter) -> None:
    """Report a written take: its loudness, length, seed, remarks, timings and lyrics."""
    if warning := file_checks.too_quiet(take.request, output.checks):
        reporter.warn(warning)
    name = output.path.name if output.path else "stdout"
    made = f"{take.audio.seconds:.2f} s of audio, seed {take.request.seed}"
    # On one screen the path follows, and where there are several files, a table of all.
    if not reporter.shares_screen or output.path is None:
        reporter.say(f"{name}: {made}")
    elif len(job.outputs) == 1:
        reporter.say(made)
    for remark in file_checks.remarks(take, output.checks):
        reporter.say(f"{name}: {remark}")
    if take.request.markers and not section_markers(take.request.lyrics, take.audio.seconds, take.lines):
        reporter.warn(f"{name}: it has no sections such as [Verse], so there are no markers.")
    reporter.detail("  ".join(f"{stage} {seconds:.2f} s" for stage, seconds in take.timings.items()))
    if job.request.lrc and not take.lines:
        if is_untimed(take):
            output.error = result.describe_error(lrc.untimed(name))
            reporter.warn(output.error["message"])
        else:
            reporter.warn(f"{name}: nobody sings in it, so there are no lyrics to time.")


def is_untimed(take: Take) -> bool:
    """Tell whether the lyrics of a take were to be timed, and were not found in it."""
    return bool(take.request.lrc) and not take.lines and duration.is_sung(take.request.lyrics)


def finish_of(take: Take, job: Job) -> encode.Finish:
    """Return the finish of a take: the settings of its file and its tags."""
    request = take.request
    recipe = job.take_recipe_hash(request)
    adapting = sidecar.adapter_fields(job.decided)
    origin = sidecar.RenderOrigin(
        **sidecar.origin_fields(take, recipe, job.checkpoint.name, job.weights_hash, adapting)
    )
    return encode.Finish(
        encode.resolve_encoding(request.format, request.bit_depth, request.bitrate, request.sample_rate),
        request.loudness,
        request.fade_in or 0.0,
        request.fade_out or 0.0,
        tags.Tags(
            **request.model_dump(include=set(tags.KEYS)),
            recipe=recipe,
            spec=sidecar.tag_spec(request, origin),
            cover=job.song.resolved.cover,
            lines=take.lines,
        ),
        keeps_level=take.splice is not None and bool(take.splice.untouched),  # that of its source
        markers=section_markers(request.lyrics, take.audio.seconds, take.lines) if request.markers else (),
    )


def section_markers(lyrics: str | None, seconds: float, lines: Sequence[lrc.TimedLine]) -> tuple[Marker, ...]:
    """Return the sections of a song of `seconds` as markers; timed `lines` place them, else they are estimated."""
    found = sections.song_sections(lyrics, seconds, lrc.dump_lrc(lines) if lines else None)
    return tuple(Marker(section.seconds, section.name) for section in found)


def encode_take(file: Path, take: Take, output: OutputFile, job: Job, session: RenderSession) -> loudness.Level:
    """Encode a take into `file`, measure that, and record the checks in `output`."""
    finished = finish_of(take, job)
    level = encode.write_audio(file, take.audio, finished)
    if level.peak > 1 and loudness.parse_loudness(finished.loudness).kind == "none" and finished.overs != loudness.KEEP:
        session.reporter.warn(file_checks.over_full_scale(level, output))
    measures, output.checks = file_checks.measure_take(file, take)
    if session.settings.smoke:
        smoke.refuse_faults(MeasuredFile(file, measures))
    return level


def publish_take(take: Take, output: OutputFile, job: Job, session: RenderSession) -> None:
    """Write all files of a take together. Where its number was taken meanwhile, the next one is used."""
    assert output.path is not None
    if not take.lines:
        output.lrc = None
    files = output.files
    forced = (session.settings.force and output.unnumbered is None) or output.outdated
    try:
        with disk.write_whole(*files, replace=files if forced else ()) as temporary:
            parts = dict(zip(files, temporary, strict=True))
            sound = parts[output.path]
            level = encode_take(sound, take, output, job, session)
            if output.sidecar is not None:
                fields = {**songwriter_fields(job, output, take.request.caption), **sidecar.adapter_fields(job.decided)}
                if is_untimed(take):
                    fields["untimed"] = True
                if job.song.swept.values:
                    fields["swept"] = list(job.song.swept.values)
                if job.song.resolved.from_source:
                    fields["from_source"] = list(job.song.resolved.from_source)
                text = sidecar.sidecar_text(
                    take,
                    job.take_recipe_hash(take.request),
                    checkpoint=job.checkpoint.name,
                    weights_hash=job.weights_hash,
                    measured=output.checks,
                    size=sound.stat().st_size,
                    asked=job.tags_hash(output),
                    written=fields,
                )
                disk.write_text(parts[output.sidecar], text)
            if output.lrc is not None:
                disk.write_text(parts[output.lrc], lrc.dump_lrc(take.lines))
            if output.latents is not None and take.latents is not None:
                header = latents_header(take.audio, take.latents, level, sound, job)
                latents_file.write_latents(parts[output.latents], take.latents, header)
            remove_stale(output, forced=forced)
    except ExistsError:
        if output.unnumbered is None:
            raise
        free = paths.next_free_path(output.unnumbered, [other.path for other in job.outputs if other.path])
        output.path, output.sidecar = free, spec_layers.sidecar_path(free) if output.sidecar else None
        output.lrc = lrc.lrc_path(free) if output.lrc else None
        output.latents = latents_file.latents_path(free) if output.latents else None
        publish_take(take, output, job, session)


def latents_header(
    made: Audio, kept: Latents, level: loudness.Level, file: Path, job: Job
) -> latents_file.LatentsHeader:
    """Return the header of the latents of a take whose audio is in `file`."""
    return latents_file.LatentsHeader(
        audio=file_hash(file),
        vae=job.checkpoint.vae_hash,
        gain=kept.gain * level.gain,
        samples=made.samples.shape[1],
        sample_rate=made.sample_rate,
        hop=kept.hop,
    )


def songwriter_fields(job: Job, output: OutputFile, caption: str | None) -> dict[str, Any]:
    """Return the Songwriter's fields of the sidecar of a take with `caption`; empty where it decided nothing."""
    if job.songwriter is None or not job.request.open:
        return {}
    return sidecar.songwriter_fields(job.request, job.recipe_hash(output), job.songwriter, caption)


def remove_stale(output: OutputFile, *, forced: bool) -> None:
    """Remove files that do not fit the new audio: an old sidecar, lyrics or latents, and remains of lost audio.

    Files that another run has written since the plan was made stay.
    """
    assert output.path is not None
    beside, kept = spec_layers.sidecar_path(output.path), latents_file.latents_path(output.path)
    record = sidecar.read_sidecar(beside) if forced else None
    if record is not None and record.lrc and output.lrc is None:
        lrc.lrc_path(output.path).unlink(missing_ok=True)
    if record is not None and beside not in output.files:
        beside.unlink()
    if forced and kept not in output.files and latents_file.is_ours(kept):
        kept.unlink()
    for file, time_ns in output.stale.items():
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mtime_ns == time_ns:
                file.unlink()


def send_to_stdout(take: Take, output: OutputFile, job: Job, session: RenderSession) -> None:
    """Encode the take and send it to stdout, by way of a file, since encoders seek in it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"take.{take.request.format}"
        try:
            encode_take(file, take, output, job, session)
        except OSError as error:
            raise disk.write_error(Path(folder), error) from error
        session.results.file(file)


def keep_lossless(take: Take, output: OutputFile, job: Job, error: EncoderError, reporter: Reporter) -> None:
    """Write a take whose encoder failed as a lossless file beside, under the next free number."""
    if output.path is None or take.request.format == encode.DEFAULT_FORMAT:
        return
    master = paths.next_free_path(output.path.with_suffix(f".{encode.DEFAULT_FORMAT}"))
    lossless = encode.resolve_encoding(encode.DEFAULT_FORMAT, sample_rate=take.request.sample_rate)
    with disk.write_whole(master) as [part]:
        encode.write_audio(part, take.audio, replace(finish_of(take, job), encoding=lossless))
    convert = f"{encode.FFMPEG} -i {shell_word(master)} {shell_word(output.path)}"
    error.hint = f"The take is kept as {master}. To convert it: {convert}"
    reporter.say(f"{master}: the lossless master of {output.path.name}")


def made_meanwhile(output: OutputFile, job: Job) -> bool:
    """Tell whether the file that appeared during the render is the same take, made by another run.

    Waits up to a second for the audio, which appears after its sidecar.
    """
    assert output.path is not None
    record = sidecar.read_sidecar(spec_layers.sidecar_path(output.path))
    if record is None or not existing.is_same_take(job, output, record):
        return False
    for _ in range(20):
        if disk.is_taken(output.path):
            existing.mark_skipped(output, record)
            return True
        time.sleep(0.05)
    return False


def retag(output: OutputFile, job: Job) -> None:
    """Replace the tags of a file, in its sidecar and latents too. No sample changes."""
    assert output.path is not None
    beside, kept, cover = (
        spec_layers.sidecar_path(output.path),
        latents_file.latents_path(output.path),
        job.song.resolved.cover,
    )
    record = sidecar.read_sidecar(beside)
    assert record is not None
    header = latents_file.read_header(kept) if latents_file.latents_belong(kept, output.path) else None
    files = [output.path, beside, *([kept] if header is not None else ())]
    with disk.write_whole(*files, replace=files) as [part, beside_part, *latents_part]:
        shutil.copyfile(output.path, part)
        request = sidecar.retagged_request(beside, output.completed)
        values = request.model_dump(include=set(tags.KEYS))
        text = sidecar.tag_spec(request, record)
        timed = lrc.parse_lrc(lrc.read_beside(output.path) or "") if output.lrc is not None else ()
        labels = tags.Tags(**values, recipe=record.recipe, spec=text, cover=cover, lines=timed)
        tags.write_tags(part, output.format, labels)
        disk.write_text(beside_part, sidecar.retagged_text(beside, request, part.stat().st_size, job.tags_hash(output)))
        if header is not None:
            now = header.model_copy(update={"audio": file_hash(part)})
            latents_file.rewrite_latents(kept, now, latents_part[0])
    output.status = WRITTEN


def mark_failed(failed: Sequence[OutputFile], error: dict[str, Any]) -> None:
    """Record `error` in outputs that failed."""
    for output in failed:
        output.status, output.error = FAILED, error
