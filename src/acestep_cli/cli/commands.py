"""The rendering commands: one for each mode, and `render` for specs of any mode. Their work is imported on use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from acestep_cli.cli import help_format, options
from acestep_cli.errors import UsageError
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import modes

RENDER = "Render specs, each by its own mode."
RENDER_EXAMPLES = ("acestep render songs/*.yaml -o out/", "acestep render out/night-drive.flac.yaml --seed 8 -o more/")

SPECS = "Song specs (.yaml, .md, a sidecar, or - for stdin); flags override their keys."
#: Stands for stdin as a spec.
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


@dataclass(frozen=True)
class OwnName:
    """A command that does what a mode does, under the name that people look for, with some of its flags."""

    mode: str
    summary: str
    examples: tuple[str, ...]
    without: tuple[str, ...]
    #: The flags of which it needs one, where no spec is given, and the sentence where there is none.
    needs: tuple[str, ...]
    lack: str


OWN_NAMES = {
    "extend": OwnName(
        mode="repaint",
        summary="Make a recording longer at the front or the end; the rest stays.",
        examples=(
            'acestep extend take.flac --after 0:30 -c "slow piano outro"',
            'acestep extend take.flac --before 10 --after 20 -c "drums alone" -o longer.flac',
        ),
        without=("start", "end"),
        needs=("before", "after"),
        lack="Neither --before nor --after says how much is added: acestep extend song.flac --after 0:30 adds half a "
        "minute.",
    )
}


def command(name: str) -> typer.Typer:
    """Return the command of the mode `name`, or that of an own name, or `render`, which takes specs of every mode."""
    app, own = help_format.App(), OWN_NAMES.get(name)
    mode = own.mode if own is not None else None if name == "render" else name
    summary, examples = (
        (RENDER, RENDER_EXAMPLES) if mode is None else (modes.MODES[mode].summary, modes.MODES[mode].examples)
    )
    if own is not None:
        summary, examples = own.summary, own.examples

    def render_specs(
        ctx: typer.Context,
        specs: Specs = None,
        *,
        song: dict[str, Any],
        run: RenderSettings,
    ) -> None:
        if mode is None and not specs:
            raise UsageError("There is no spec to render.", "acestep render song.yaml, or acestep generate -c …")
        if own is not None and not names_specs(specs) and not is_asked(own.needs, song, run.overrides):
            raise UsageError(own.lack)
        from acestep_cli.cli import console
        from acestep_cli.render import perform

        specs = specs or []
        if run.auto:
            from acestep_cli.cli import auto

            auto.run_auto(mode, specs, song, run)
            return
        with console.begin_render(ctx, run) as (terminal, run_report):
            perform.plan_and_make(mode, specs, song, run, terminal, run_report)

    if mode is not None and modes.MODES[mode].has_source:
        render_specs.__annotations__["specs"] = Sources
    elif mode == "generate":
        render_specs.__annotations__["specs"] = SpecsOrCaption
    app.command(help="\n\n".join((summary, *examples)))(
        options.render_flags(render_specs, mode, () if own is None else own.without)
    )
    return app


def names_specs(arguments: list[str] | None) -> bool:
    """Tell whether there are specs among the arguments, which may have all that a flag could say."""
    return any(name == STDIN or name.lower().endswith(options.SPEC_SUFFIXES) for name in arguments or ())


def is_asked(keys: Sequence[str], song: Mapping[str, Any], settings: Sequence[str] | None) -> bool:
    """Tell whether a flag, or a `key=value` of `--set`, has one of these keys."""
    by_setting = {setting.partition("=")[0].strip() for setting in settings or ()}
    return any(song[key] is not None or key in by_setting for key in keys)
