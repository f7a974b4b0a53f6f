"""`acestep write`: a song spec written from an idea, or a spec with another caption and other lyrics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from acestep_cli.cli import help_format, options, songwriting
from acestep_cli.cli.console import Console
from acestep_cli.errors import UsageError
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import complete, songwriter_prompts, spec, spec_layers, spec_text
from acestep_cli.song.key import SONGWRITER_OPTIONS
from acestep_cli.song.musical_values import LONGEST_SECONDS
from acestep_cli.song.request import GROUPS
from acestep_cli.song.songwriter_prompts import Sampling

app = help_format.App()

Idea = Annotated[
    str | None, typer.Argument(metavar="IDEA", help="What the song is about, in your words.", show_default=False)
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="SPEC", help="Rewrite the caption and lyrics of this spec; its metadata stays."),
]
#: A text takes no checkpoint.
NETWORKS = frozenset({"songwriter"})
KEYS = ("instrumental", "language", "bpm", "key", "time_signature", "duration", "model", *songwriting.SAMPLING)


@app.command(
    help="Turn an idea into a song spec, or rewrite one.\n\n"
    'acestep write "a soft love song for a quiet evening" --language English -o love.yaml\n\n'
    "acestep write --from draft.yaml -o better.yaml"
)
@options.flags(KEYS, songwriting.FLAGS)
def write(
    idea: Idea = None,
    from_spec: From = None,
    output: songwriting.Output = None,
    seed: songwriting.Seed = None,
    *,
    song: dict[str, Any],
    run: RenderSettings,
) -> None:
    if (idea is None) == (from_spec is None):
        wrong = "There is neither an idea nor a spec" if idea is None else "There are an idea and a spec"
        raise UsageError(f"{wrong}.", 'acestep write "a soft love song", or acestep write --from song.yaml')
    if idea is not None and not idea.strip():
        raise UsageError("The idea is empty.", 'acestep write "a soft love song"')
    songwriting.check_output(output, force=run.force)
    terminal = Console(run.quiet, verbose=run.verbose, progress=run.progress, paths=False)
    with spec_text.reading_stdin(typing=not run.no_input):
        layers = spec_layers.read_layers(Path(from_spec)) if from_spec is not None else []
        layers.append(spec_layers.from_flags({**song, "idea": idea}, ("codes=null",)))  # another text, another sound
        kept = spec.resolve(*layers).request
        songwriter_layer = spec_layers.from_flags(
            {"songwriter": song["songwriter"] or "auto"}
        )  # a render without one can be rewritten
        resolved = spec.resolve(*layers, songwriter_layer)
    job = songwriting.with_songwriter(resolved, [*layers, songwriter_layer], run, "acestep write", terminal, NETWORKS)
    asked = job.song.resolved.request
    seconds = (math.ceil(job.checkpoint.row.shortest_seconds), LONGEST_SECONDS)
    if asked.idea is not None:
        task = songwriter_prompts.idea_task(asked, job.request.open, seconds)
    else:
        task = songwriter_prompts.rewrite_task(asked, seconds)
    text_seed = songwriting.seed_of(seed, job, terminal)
    with terminal.results(), songwriting.songwriter_progress(job, terminal) as report:
        from acestep_cli.pipeline import Pipeline  # loads torch: no refusal above waits for that

        pipeline = Pipeline(job.checkpoint, job.plan, job.songwriter)
        found = pipeline.write(job.request, task, Sampling.of(asked), text_seed, report, terminal.warn)
    for sentence in songwriter_prompts.remarks(asked, found):
        terminal.say(sentence)
    used = {"idea", "songwriter_seed", *GROUPS[SONGWRITER_OPTIONS]}
    if any(layer.is_sidecar for layer in layers):
        used.add("songwriter")  # none was needed any more
    songwriting.write_answer(
        {**kept.model_dump(exclude=used, exclude_none=True), **complete.mark_instrumental(found)}, output
    )
