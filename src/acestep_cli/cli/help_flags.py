"""Flags, keys and groups of flags as topics of `acestep help`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import typer
from typer.core import TyperOption

from acestep_cli.cli import help_format

#: The command with the flags of all modes.
RENDER = "render"


def flag_page(topic: str) -> str | None:
    """Return what `--help-all` says of a flag, a key of a spec or a group of flags; None where there is none.

    Flags of renders come first, and those of other commands last.
    """
    from acestep_cli.cli.app import COMMANDS
    from acestep_cli.song import spec_keys

    word = topic.lstrip("-").strip().lower().replace(" ", "-").replace("_", "-")
    key = word.replace("-", "_")
    names = (topic, f"--{word}", f"-{word}", f"--{word.removesuffix('s')}")
    of_renders = dict(options_of(RENDER))
    for name in names:
        if name in of_renders:
            return laid_out(*of_renders[name])
    group = dict.fromkeys(one for _, one in of_renders.values() if (one.rich_help_panel or "").lower() == word)
    if group:
        return laid_out(f"acestep {RENDER} {help_format.HELP_ALL}", *group)
    if key in spec_keys.KEYS:
        return key_line(key)
    if key in spec_keys.OTHER_NAMES:
        return flag_page(spec_keys.OTHER_NAMES[key])
    others = dict(chain(*(options_of(name) for name in COMMANDS if name != RENDER)))
    return next((laid_out(*others[name]) for name in names if name in others), None)


def options_of(name: str) -> Iterator[tuple[str, tuple[str, TyperOption]]]:
    """Yield each name of a flag of a command, or of those in a group, with where it is explained and the option."""
    for path, command in below(name):
        for param in command.params:
            if isinstance(param, TyperOption) and "--help" not in param.opts and not param.hidden:
                yield from ((opt, (f"acestep {path} {help_format.HELP_ALL}", param)) for opt in param.opts)


def below(name: str) -> Iterator[tuple[str, Any]]:
    """Yield a command, or those of a group, each with the words that call it."""
    from acestep_cli.cli.app import loaded

    command: Any = typer.main.get_command(loaded(name))
    if not hasattr(command, "commands"):
        yield name, command
        return
    yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())


def laid_out(where: str, *options: TyperOption) -> str:
    """Return options as a command's help lays them out, with the spec key of a single one."""
    console = help_format.open_console()
    rows = [(help_format.flag_name(option), help_format.explained(option)) for option in options]
    with console.capture() as captured:
        help_format.print_rows(console, "", rows)
    text = captured.get().strip("\n")
    return f"{text}\n\n{key_of(options)}All flags: {where}"


def key_of(options: tuple[TyperOption, ...]) -> str:
    """Return a line with the key of a spec that a single option stands for; empty where it stands for none."""
    from acestep_cli.song import spec_keys

    name = options[0].name if len(options) == 1 else None
    return f"As a key of a spec: {name}\n" if name in spec_keys.KEYS else ""


def key_line(name: str) -> str:
    """Return a key that has no flag, with its help."""
    from acestep_cli.song import spec_keys

    return f"{name}: {spec_keys.KEYS[name].help}\n\nA key of specs without a flag: --set {name}=…"
