"""`acestep describe`: a song spec written from a recording, by way of its audio codes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from acestep_cli.audio import decode
from acestep_cli.cli import help_format, options, songwriting
from acestep_cli.cli.console import Console
from acestep_cli.errors import SourceError, shell_word
from acestep_cli.models import checkpoint_table
from acestep_cli.render import argument_kinds
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import complete, songwriter_prompts, spec, spec_layers
from acestep_cli.song.songwriter_prompts import Sampling
from acestep_cli.song.values import quoted

app = help_format.App()

Recording = Annotated[str, typer.Argument(metavar="AUDIO", help="The recording, up to 10 minutes long.")]
Codes = Annotated[
    bool, typer.Option("--codes", metavar="", help="The audio codes themselves, as a spec has them; no Songwriter.")
]


@app.command(
    help="Turn a recording into a song spec: tempo, key, time signature, caption, lyrics.\n\n"
    "acestep describe take.flac -o described.yaml\n\nacestep describe take.flac --codes"
)
@options.flags(("model", *songwriting.SAMPLING), songwriting.FLAGS)
def describe(
    recording: Recording,
    codes: Codes = False,
    output: songwriting.Output = None,
    seed: songwriting.Seed = None,
    *,
    song: dict[str, Any],
    run: RenderSettings,
) -> None:
    refuse_idea(recording)
    songwriting.check_output(output, force=run.force)
    terminal = Console(run.quiet, verbose=run.verbose, progress=run.progress, paths=False)
    sound = decode.read_audio(Path(recording), warn=terminal.warn)
    # It is planned as a render of the same length, which needs more.
    planned = {
        "caption": "a recording",
        "duration": str(max(sound.seconds, checkpoint_table.CheckpointRow.shortest_seconds)),
    }
    layers = [spec_layers.from_flags({**song, **planned, **({"songwriter": "none"} if codes else {})})]
    resolved = spec.resolve(*layers)
    if codes:
        job = songwriting.plan_writing(resolved, layers, run)
    else:
        job = songwriting.with_songwriter(resolved, layers, run, "acestep describe", terminal)
    with terminal.results(), songwriting.songwriter_progress(job, terminal) as report:
        from acestep_cli.pipeline import Pipeline  # loads torch: no refusal above waits for that

        pipeline = Pipeline(job.checkpoint, job.plan, job.songwriter)
        [audio_codes] = pipeline.codes(job.request, [sound], report, terminal.warn)
        if codes:
            found: dict[str, Any] = {"codes": audio_codes}
        else:
            sampling = Sampling.of(resolved.request, temperature=songwriting.LISTENING)
            text_seed = songwriting.seed_of(seed, job, terminal)
            task = songwriter_prompts.understanding_task(audio_codes, int(sound.seconds))
            found = complete.mark_instrumental(
                pipeline.write(job.request, task, sampling, text_seed, report, terminal.warn)
            )
    songwriting.write_answer(found, output)


def refuse_idea(text: str) -> None:
    """Raise `SourceError` where words stand in the place of a recording."""
    if argument_kinds.is_caption(text):
        raise SourceError(
            f"{quoted(text)} is no file, and describe works on a recording.",
            f"acestep write {shell_word(text)} turns an idea into a spec.",
        )
