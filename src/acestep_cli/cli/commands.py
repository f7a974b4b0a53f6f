"""The rendering commands: one for each mode, and `render` for specs of any mode. Their work is imported on use."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from acestep_cli.cli import help_format, options
from acestep_cli.errors import UsageError
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import modes

RENDER = "Render specs, each by its own mode."
RENDER_EXAMPLES = ("acestep render songs/*.yaml -o out/", "acestep render out/night-drive.flac.yaml --seed 8 -o more/")

SPECS = "Song specs (.yaml, .md, a sidecar, or - for stdin); flags override their keys."
#: Stands for stdin as a spec, and for stdout as an output.
STDIN = "-"
#: Of the command that also takes text.
CAPTION = "Text that is no file, with a space in it, is a caption."

Specs = Annotated[
    list[str] | None,
    typer.Argument(metavar="SPEC", help=SPECS, show_default=False, autocompletion=options.complete_specs),
]
SpecsOrCaption = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SPEC|CAPTION",
        help=f"{SPECS} {CAPTION}",
        show_default=False,
        autocompletion=options.complete_specs,
    ),
]
#: A shell completes any file where it is offered nothing.
Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE|SPEC", help=f"Recordings to work on, or specs that name one. {SPECS}", show_default=False
    ),
]


def command(mode: str | None) -> typer.Typer:
    """Return the command of `mode`, or `render`, which takes specs of every mode."""
    app = help_format.App()
    summary, examples = (
        (RENDER, RENDER_EXAMPLES) if mode is None else (modes.MODES[mode].summary, modes.MODES[mode].examples)
    )

    def render_specs(
        ctx: typer.Context,
        specs: Specs = None,
        *,
        song: dict[str, Any],
        run: RenderSettings,
    ) -> None:
        if mode is None and not specs:
            raise UsageError("There is no spec to render.", "acestep render song.yaml, or acestep generate -c …")
        from acestep_cli.cli import exit_codes
        from acestep_cli.cli.console import Console

        specs = specs or []
        if run.auto:
            from acestep_cli.cli import auto

            auto.run_auto(mode, specs, song, run)
            return
        terminal = Console(run.quiet, verbose=run.verbose, progress=run.progress)
        is_typed = STDIN in (*specs, *song.values())  # on the line that the opening would be in
        with terminal.opening("" if is_typed else "Planning …"):
            from acestep_cli.render import events, perform

            terminal.shows_paths = not run.json and run.output != STDIN
            with events.open_events(run.events, terminal.warn) as terminal.events:
                run_report = exit_codes.keep_report(ctx, terminal.warnings)
                perform.plan_and_make(mode, specs, song, run, terminal, run_report)

    if mode is not None and modes.MODES[mode].has_source:
        render_specs.__annotations__["specs"] = Sources
    elif mode == "generate":
        render_specs.__annotations__["specs"] = SpecsOrCaption
    app.command(help="\n\n".join((summary, *examples)))(options.render_flags(render_specs, mode))
    return app
