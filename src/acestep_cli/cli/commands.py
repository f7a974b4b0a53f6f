"""The rendering commands: one for each mode, and `render` for a spec of any. What they do is loaded when one is run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from acestep_cli.cli import options
from acestep_cli.cli.options import Run
from acestep_cli.errors import UsageError
from acestep_cli.song import modes

RENDER = "Render specs, each by its own mode."
RENDER_EXAMPLES = ("acestep render songs/*.yaml -o out/", "acestep render out/night-drive.flac.yaml --seed 8 -o more/")

SPECS = "Song specs (.yaml, .md, a sidecar, or - for stdin); flags override their keys."

Specs = Annotated[
    list[str] | None,
    typer.Argument(metavar="SPEC", help=SPECS, show_default=False, autocompletion=options.offering_specs),
]
#: A shell completes any file where it is offered nothing.
Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE|SPEC", help=f"Recordings to work on, or specs that name one. {SPECS}", show_default=False
    ),
]


def command(mode: str | None) -> typer.Typer:
    """The command of `mode`, or `render`, which takes specs of every mode."""
    app = typer.Typer(add_completion=False)
    summary, examples = (
        (RENDER, RENDER_EXAMPLES) if mode is None else (modes.MODES[mode].summary, modes.MODES[mode].examples)
    )

    def render_specs(
        ctx: typer.Context,
        specs: Specs = None,
        *,
        song: dict[str, Any],
        run: Run,
    ) -> None:
        from acestep_cli.render import perform

        if mode is None and not specs:
            raise UsageError("There is no spec to render.", "acestep render song.yaml, or acestep generate -c …")
        perform.render(ctx, mode, specs or [], song, run)

    if mode is not None and modes.MODES[mode].has_source:
        render_specs.__annotations__["specs"] = Sources
    app.command(help="\n\n".join((summary, *examples)))(options.render_flags(render_specs, mode))
    return app
