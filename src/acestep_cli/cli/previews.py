"""Renders between training steps: one spec, one seed, the adapter as trained so far."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli import disk
from acestep_cli.audio import encode
from acestep_cli.cli import songwriting
from acestep_cli.cli.console import Console
from acestep_cli.errors import AceStepError, UsageError
from acestep_cli.render import write
from acestep_cli.render.job import Job
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import spec, spec_layers
from acestep_cli.training.run_folder import PREVIEWS

if TYPE_CHECKING:
    from acestep_cli.engine.dit import AceStep
    from acestep_cli.machine.plan import Plan


def plan_preview(file: Path, model: str, seed: int, run: RenderSettings) -> Job:
    """Return the job that renders a spec on the checkpoint in training; `seed` is for a spec without one.

    Raises the errors of a render, and `UsageError` for a spec with adapters.
    """
    default = spec_layers.implied_layer({"seed": str(seed)}, "--seed")
    flags = spec_layers.from_flags({"model": model, "songwriter": "none", "takes": "1"})
    layers = [default, *spec_layers.read_layers(file), flags]
    resolved = spec.resolve(*layers)
    if resolved.request.loras:
        raise UsageError(f"--preview {file}: names adapters, and only the one in training is applied.")
    return songwriting.plan_writing(resolved, layers, run)


def render_preview(job: Job, plan: Plan, folder: Path, terminal: Console, model: AceStep, step: int) -> None:
    """Render the job with `model`, which is in memory, into `folder`. A failure is a warning and stops no training."""
    from acestep_cli.pipeline import Pipeline

    path = folder / PREVIEWS / f"step-{step}.{job.request.format}"
    pipeline = Pipeline(job.checkpoint, plan, dit=model)
    try:
        path.parent.mkdir(exist_ok=True)
        for take in pipeline.run([job.request], lambda stage, done, total: None, terminal.warn):
            with disk.write_whole(path, replace=[path] if disk.is_taken(path) else []) as [part]:
                encode.write_audio(part, take.audio, write.finish_of(take, job))
        terminal.say(f"{path}: as it sounds after step {step}")
    except (AceStepError, OSError) as error:
        terminal.warn(f"The preview after step {step} failed: {error}")
