"""Code that `write` and `describe` share: a Songwriter at work without a render, and a spec for an answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from acestep_cli import disk
from acestep_cli.cli.console import Console, print_result
from acestep_cli.errors import ExistsError, MemoryLimitError, UsageError
from acestep_cli.machine import hardware, history
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.sizes import NETWORKS
from acestep_cli.models.songwriters import needed_songwriters
from acestep_cli.progress import ProgressCallback
from acestep_cli.render import plan
from acestep_cli.render.job import Job, SongInput
from acestep_cli.render.paths import Destination
from acestep_cli.render.plan import PlanContext
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import complete, seeds, spec, spec_layers
from acestep_cli.song.key import OUTPUT, SONGWRITER
from acestep_cli.song.request import Request

#: The fields of `RenderSettings` that make sense without a render.
FLAGS = ("force", "models_dir", "device", "max_vram", "dtype", "progress", "quiet", "verbose", "no_input", "debug")
#: The temperature for the description of a recording: low, to find the likeliest and not to invent.
LISTENING = 0.3
#: Keys that say how the Songwriter draws text.
SAMPLING = ("songwriter", "temperature", "top_p", "top_k", "repetition_penalty")

Output = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="SPEC.yaml", help="The spec to write. Unset: stdout.",
                 rich_help_panel=OUTPUT),
]  # fmt: skip


Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar=f"0-{seeds.SEEDS - 1}", min=0, max=seeds.SEEDS - 1, show_default=False,
                 help="The same seed writes the same again. Unset: the spec's, else drawn.",
                 rich_help_panel=SONGWRITER),
]  # fmt: skip


def plan_writing(
    resolved: spec.Resolved, layers: list[spec_layers.Layer], run: RenderSettings, networks: frozenset[str] = NETWORKS
) -> Job:
    """Return a job that is never rendered, and uses these networks alone.

    Refuses what a render would refuse. Without the diffusion transformer, the checkpoint may be absent.
    """
    if "dit" not in networks:
        run = replace(run, pull=True)  # it is foreseen, not found; nothing of it is fetched
    context = PlanContext(run, hardware.detect(), history.read_history(), networks)
    return plan.plan_job(SongInput(layers, resolved, Destination(Path())), context)


def with_songwriter(
    resolved: spec.Resolved,
    layers: list[spec_layers.Layer],
    run: RenderSettings,
    command: str,
    terminal: Console,
    networks: frozenset[str] = NETWORKS,
) -> Job:
    """Return the job of `plan_writing` with a Songwriter. Raises `UsageError` or `MemoryLimitError` without one."""
    asked = resolved.request
    if asked.songwriter == "none":
        raise UsageError(f"{command} needs a Songwriter, and songwriter is none.")
    if built_in_writes(asked, run.models_dir):
        if checkpoint_table.BUILT_IN not in (asked.model, asked.songwriter):
            name, part = next(iter(checkpoint_table.SONGWRITERS.items()))
            terminal.say(
                f"No Songwriter is installed, so that of {checkpoint_table.BUILT_IN} writes: a sketch. A real one "
                f"({part.size_gb:.1f} GB): acestep models pull {name}"
            )
        layers = [*layers, spec_layers.from_flags(dict.fromkeys(("model", "songwriter"), checkpoint_table.BUILT_IN))]
        resolved = spec.resolve(*layers)
    job = plan_writing(resolved, layers, run, networks)
    if job.songwriter is None:
        needed_songwriters(asked.songwriter, job.checkpoint, run.models_dir, command)
        raise MemoryLimitError("\n".join(job.warnings), "A smaller --songwriter needs less.")
    for warning in job.warnings:
        terminal.warn(warning)
    terminal.say(f"The Songwriter {job.songwriter.name} on {job.plan.device}, {job.plan.dtype}")
    return job


def built_in_writes(asked: Request, models_dir: Path | None) -> bool:
    """Return True if the built-in Songwriter is meant: it or its checkpoint is named, or nothing is installed."""
    names = {asked.model, asked.songwriter} - {None, "auto"}
    if names:
        return names == {checkpoint_table.BUILT_IN}
    alone = checkpoints.installed_names(models_dir) == (checkpoint_table.BUILT_IN,)
    return alone and not any(
        checkpoints.part_folder(part, models_dir) for part in checkpoint_table.SONGWRITERS.values()
    )


def songwriter_progress(job: Job, terminal: Console) -> AbstractContextManager[ProgressCallback]:
    """Return the progress display for a Songwriter."""
    return terminal.progress(partial(hardware.used_bytes, job.plan.device))


def check_output(output: str | None, *, force: bool) -> None:
    """Raise `UsageError` or `ExistsError`, before any work, where the answer could not be written."""
    if output is None:
        return
    path = Path(output)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"--output {output}: a spec is a .yaml file.")
    if disk.is_taken(path) and not (force and path.is_file()):
        raise ExistsError(path)


def seed_of(given: int | None, job: Job, terminal: Console) -> int:
    """Return the seed of a text: the flag's, else the one that the job was completed with. A drawn one is printed."""
    if given is not None:
        return given
    if job.request.songwriter_seed is None and job.decided.origins.get("seed") == complete.DRAWN:
        terminal.say(f"--seed {job.request.text_seed} writes the same again")
    return job.request.text_seed


def write_answer(song: Mapping[str, Any], output: str | None) -> None:
    """Print the keys of a song as a spec, or write them to a file and print its name."""
    text = spec.dump_spec(Request(**song))
    if output is None:
        print_result(text)
        return
    path = Path(output)
    with disk.write_whole(path, replace=[path] if disk.is_taken(path) else []) as [part]:
        disk.write_text(part, text)
    print_result(f"{path}\n")
