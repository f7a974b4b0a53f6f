"""Flags that commands share. Those of the song derive from the keys of the spec."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from acestep_cli import hardware, spec
from acestep_cli import request as song
from acestep_cli.cli import failures
from acestep_cli.kinds import Switch
from acestep_cli.request import Key

MACHINE = "Machine"


def song_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` a flag for each key of the spec; it receives them, as typed, in the dict `song`."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    flags = [_flag(name, key) for name, key in spec.KEYS.items() if key.flag]

    @functools.wraps(command)
    def with_flags(**given: Any) -> None:
        command(song={flag.name: given.pop(flag.name) for flag in flags}, **given)

    first = [parameter for parameter in own if parameter.kind is not parameter.KEYWORD_ONLY]
    last = [parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "song"]
    with_flags.__signature__ = inspect.Signature([*first, *flags, *last])  # type: ignore[attr-defined]
    return with_flags


def _flag(name: str, key: Key) -> inspect.Parameter:
    names = [spec.flag(name)] if key.short is None else [key.short, spec.flag(name)]
    # Square brackets are Rich's markup, and section tags are written with them.
    help_text = key.help.replace("[", r"\[")
    if isinstance(key.kind, Switch):
        option = typer.Option(*names, metavar="", help=help_text, rich_help_panel=key.panel)
        kind: Any = bool | None
    else:
        words = key.kind.words
        option = typer.Option(
            *names,
            help=help_text,
            rich_help_panel=key.panel,
            metavar=key.kind.metavar,
            autocompletion=(lambda incomplete: [word for word in words if word.startswith(incomplete)])
            if words
            else None,
        )
        kind = str | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _remember_debug(ctx: typer.Context, wanted: bool) -> bool:
    ctx.obj[failures.DEBUG] = wanted
    return wanted


ModelsDir = Annotated[
    Path | None,
    typer.Option(
        "--models-dir",
        envvar="ACESTEP_MODELS_DIR",
        metavar="FOLDER",
        help="Folder of checkpoints in the published layout. Unset: the Hugging Face cache.",
        rich_help_panel=MACHINE,
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="cpu|cuda|mps", help="Unset: the best there is.", rich_help_panel=MACHINE),
]
DType = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="|".join(short for short, full in hardware.DTYPES.items() if short != full),
        help="Number format of the weights. Unset: the best the device has.",
        rich_help_panel=MACHINE,
    ),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", metavar="", help="Only errors on stderr.", rich_help_panel=MACHINE)
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        metavar="",
        callback=_remember_debug,
        help="Show the traceback of a failure.",
        rich_help_panel=MACHINE,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE|FOLDER/",
        help="Where to write. Unset: here, named after the spec, title or caption, with the next free number.",
        rich_help_panel=song.OUTPUT,
    ),
]
Force = Annotated[
    bool, typer.Option("--force", metavar="", help="Replace existing files.", rich_help_panel=song.OUTPUT)
]
NoSidecar = Annotated[
    bool,
    typer.Option(
        "--no-sidecar", metavar="", help="Do not write FILE.yaml, the spec of each take.", rich_help_panel=song.OUTPUT
    ),
]
