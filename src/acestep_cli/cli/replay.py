"""`acestep replay`: renders a take again by its own recipe, and compares the two."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from acestep_cli import __version__
from acestep_cli.audio import measure
from acestep_cli.cli import console, help_format, options
from acestep_cli.cli.console import Console, Stdout
from acestep_cli.errors import CheckError, SourceError, UsageError, shell_word
from acestep_cli.machine import hardware, history
from acestep_cli.machine.hardware import Device
from acestep_cli.models import latents_file
from acestep_cli.render import announce, outputs, perform, plan, provenance, sidecar
from acestep_cli.render.job import Job, SongInput
from acestep_cli.render.paths import Destination
from acestep_cli.render.plan import PlanContext
from acestep_cli.render.provenance import Provenance
from acestep_cli.render.result import FAILED, RunReport
from acestep_cli.render.session import RenderSession
from acestep_cli.render.settings import RenderSettings
from acestep_cli.render.sidecar import RenderOrigin, SidecarRecord
from acestep_cli.song import spec, spec_layers
from acestep_cli.song.request import KEYS

app = help_format.App()

#: The difference in dBFS that nobody hears: a replay that is closer than this has not drifted.
NEAR = -60.0

#: Limit of threads for a take from a far larger machine, because more would slow each core down for too long.
MOST_THREADS_A_CORE = 16
IDENTICAL, CLOSE, DRIFTED = "identical", "close", "drifted"
SIDECAR = ".yaml"
MACHINE = ("json", "events", "models_dir", "device", "dtype", "max_vram", "progress", "quiet", "verbose", "debug")

File = Annotated[
    Path, typer.Argument(metavar="FILE", readable=False, help="An audio file that this program wrote, or its sidecar.")
]
FromTags = Annotated[bool, typer.Option("--tags", metavar="", help="Use the tags, even if there is a sidecar.")]
Within = Annotated[
    float,
    typer.Option("--within", metavar="-60", max=0.0, callback=options.finite, show_default=False,
                 help="The most that any sample may differ, in dBFS, before it has drifted. Unset: -60."),
]  # fmt: skip


@app.command(
    help="Make a take again by its own recipe, from its sidecar or its tags, and compare: identical, within so many "
    "dB, or drifted, with what is different now.\n\nacestep replay out/night-drive.flac\n\n"
    "acestep replay night-drive.mp3 --tags --json"
)
@options.flags((), MACHINE)
def replay(
    ctx: typer.Context,
    file: File,
    from_tags: FromTags = False,
    within: Within = NEAR,
    *,
    song: dict[str, Any],
    run: RenderSettings,
) -> None:
    with console.begin_render(ctx, run) as (terminal, run_report):
        replay_take(file, within, run, run_report, terminal, from_tags=from_tags)


def replay_take(
    file: Path, within: float, run: RenderSettings, run_report: RunReport, terminal: Console, *, from_tags: bool
) -> None:
    """Render the take of `file` again, and report the difference. Raises `CheckError` where it has drifted."""
    if file.suffix == SIDECAR:
        file = file.with_suffix("")
    measure.read_through(file, terminal.warn)  # a render takes longer than to find out that it cannot be read
    made = provenance_of(file, from_tags=from_tags)
    because: list[str] = []
    if isinstance(made.origin, SidecarRecord) and made.origin.bytes not in (None, size := file.stat().st_size):
        because.append("the file has changed since its sidecar was written")
        terminal.warn(f"{file} has {size:,} bytes; its sidecar was written for {made.origin.bytes:,}.")
    with tempfile.TemporaryDirectory() as folder, terminal.results() as stdout:
        job = plan_replay(made, Path(folder) / file.name, run)
        refuse_edited(job, made, file)
        terminal.events.skip_files(job.outputs)
        announce.announce_plan([job], terminal, dry_run=False)
        perform.render_jobs([job], RenderSession(replace(run, no_sidecar=True), terminal, Stdout(terminal, None)))
        perform.raise_failures([output for output in job.outputs if output.status == FAILED])
        apart = nearest(file, [output.path for output in job.outputs if output.path is not None])
        because += [*changes(made.origin, job), *other_latents(made.origin, job)]
        verdict = IDENTICAL if apart == -math.inf else CLOSE if apart is not None and apart <= within else DRIFTED
        run_report.more["replay"] = {
            "path": str(file),
            "recipe": made.where,
            "verdict": verdict,
            "difference_db": None if apart in (None, -math.inf) else apart,
            "because": because,
        }
        if verdict == DRIFTED:
            how = "it has another length now" if apart is None else f"by up to {apart:g} dBFS"
            others = (
                "another processor or driver" if made.origin.threads else "another processor, driver or thread count"
            )
            why = ", and ".join(because) or f"nothing that its recipe records; {others} may"
            raise CheckError(f"{file}: drifted, {how}, because {why}.")
        stdout.path(f"{file}: {'identical' if verdict == IDENTICAL else f'within {apart:g} dBFS'}")


def provenance_of(file: Path, *, from_tags: bool) -> Provenance:
    """Return the recipe of `file`. Raises `SourceError` where it has none."""
    found = provenance.tags_provenance(file) if from_tags else provenance.find_provenance(file)
    if found is None:
        missing = (
            "which only this program writes"
            if from_tags
            else f"nor is there a sidecar {spec_layers.sidecar_path(file)}"
        )
        raise SourceError(f"{file}: its tags do not say how it was made, {missing}.")
    return found


def plan_replay(made: Provenance, copy: Path, run: RenderSettings) -> Job:
    """Return the job that renders a take again into `copy`, whose name messages have, with settings as close to the
    original as this machine allows.
    """
    origin, machine = made.origin, hardware.detect()
    device = next((one for one in machine.devices if one.name == origin.device), None)
    if device is not None:
        run = replace(run, device=run.device or device.name, dtype=run.dtype or dtype_name(origin, device))
    if origin.threads is not None and origin.threads <= MOST_THREADS_A_CORE * hardware.threads()[0]:
        machine = replace(machine, threads=origin.threads, threads_reason="the take was made with as many")
    context = PlanContext(run, machine, history.read_history())
    one = spec_layers.implied_layer({"takes": "1"}, "replay")  # which no recipe counts, so that anybody can change it
    job = plan.plan_job(SongInput.of([*made.layers, one], Destination(copy.parent, copy.stem)), context)
    return outputs.assign_outputs([job], run)[0]


def dtype_name(origin: RenderOrigin, device: Device) -> str | None:
    """Return the `--dtype` with which `device` computes as it did for a take; None where it cannot."""
    if origin.int8_arithmetic:
        return hardware.INT8 if device.int8_flag is not None else None
    return next((name for name, dtype in hardware.DTYPES.items() if dtype == origin.dtype in device.dtypes), None)


def refuse_edited(job: Job, made: Provenance, file: Path) -> None:
    """Raise `UsageError` where the spec was edited after the take was made, and weights and latents are the same."""
    origin = made.origin
    if job.weights_hash != origin.checkpoint.weights or any(
        origin.is_of(job.recipe_hash(output)) for output in job.outputs
    ):
        return
    untouched = provenance.tags_provenance(file)
    edited: list[str] = []
    if untouched is not None:
        one, other = job.song.resolved.request, spec.resolve(*untouched.layers).request
        edited = [key for key in KEYS if KEYS[key].shapes and not KEYS[key].kind.is_path
                  and getattr(one, key) != getattr(other, key)]  # fmt: skip
    if not edited and other_latents(origin, job):
        return
    names = "it, or a recording or adapter that it names"
    what = f"{' and '.join(edited)} in it" if edited else names
    hints = [f"acestep render {shell_word(made.where)} makes what it says now."]
    if untouched is not None:
        hints.append(f"acestep replay {shell_word(file)} --tags goes by the tags.")
    raise UsageError(f"{made.where} is not how {file} was made: somebody changed {what}.", " ".join(hints))


def nearest(file: Path, made: Iterable[Path]) -> float | None:
    """Return the difference in dBFS between a file and the closest of those made: a take may be several files."""
    return min((apart for one in made if (apart := measure.file_difference(file, one)) is not None), default=None)


def other_latents(origin: RenderOrigin, job: Job) -> list[str]:
    """Return the change of the latents beside the source since a take was made; an empty list without one."""
    stored = job.request.source_latents
    if job.request.source is None or origin.source_latents == (stored.fingerprint if stored is not None else None):
        return []
    name = latents_file.latents_path(Path(job.request.source)).name
    return [f"{name} was not there then" if origin.source_latents is None else f"{name} is gone or another"]


def changes(origin: RenderOrigin, job: Job) -> list[str]:
    """Return the differences to the machine and versions of a take, such as `torch 2.13.0 -> 2.14.0`."""
    plan, weights = job.plan, job.checkpoint.name
    then = {"acestep": origin.acestep, **origin.versions, "device": origin.device, "dtype": origin.dtype,
            "threads": number(origin.threads), "int8": str(origin.int8), "int8 arithmetic": str(origin.int8_arithmetic),
            "together": number(origin.together),
            f"weights of {weights}": origin.checkpoint.weights}  # fmt: skip
    now = {"acestep": __version__, **sidecar.versions(), "device": plan.device, "dtype": plan.dtype,
           "threads": number(plan.threads), "int8": str(plan.int8), "int8 arithmetic": str(plan.int8_arithmetic),
           "together": number(plan.together),
           f"weights of {weights}": job.weights_hash}  # fmt: skip
    return [f"{name} {before} -> {now[name]}" for name, before in then.items()
            if before is not None and before != now.get(name, before)]  # fmt: skip


def number(count: int | None) -> str | None:
    """Return a number as text; None for None."""
    return None if count is None else str(count)
