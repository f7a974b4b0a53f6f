"""Flags that commands share. Those of the song derive from the keys of the spec, which load with them."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from acestep_cli.cli import exit_codes
from acestep_cli.errors import UsageError
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song.key import OUTPUT, SONGWRITER, Key

# These two repeat what `hardware` says, for which a TAB should not wait; a test compares them.
DTYPES = ("bf16", "fp16", "fp32", "int8")
DEVICES = ("cuda", "rocm", "xpu", "mps", "cpu")
MACHINE = "Machine"
SPEC_SUFFIXES = (".yaml", ".yml", ".md", ".markdown")
#: Before the name of a key, in the name of the switch that stands for one of its values.
SWITCH = "switch_"
PROGRESS = ("auto", "plain", "none")


def _remember(key: str) -> Callable[[typer.Context, bool], bool]:
    """Return a callback that keeps a switch for the handler of failures."""

    def remember(ctx: typer.Context, wanted: bool) -> bool:
        ctx.obj[key] = wanted
        return wanted

    return remember


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    """Return a callback that refuses any word but these."""

    def check(value: str) -> str:
        if value not in words:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(words)}.")
        return value

    return check


def finite(value: float | None) -> float | None:
    """Refuse nan and infinities, which pass every check of a range."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value:g} is not a number to compare with.")
    return value


def size(text: str) -> int:
    """Read a size such as 8G or 7.5GiB, in bytes."""
    from acestep_cli import disk

    try:
        return disk.parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def seconds(text: str) -> float:
    """Read a time such as 90, 90s, 10m, 2h or 1:30, in seconds."""
    from acestep_cli.song.musical_values import Duration

    hours = re.fullmatch(r"(\d{1,5}(?:\.\d+)?)h", text.strip())
    try:
        found = 3600 * float(hours[1]) if hours else Duration(0, math.inf).read(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time such as 90s, 10m, 2h or 1:30.") from None
    if found < 1:
        raise typer.BadParameter(f"{text!r} is less than a second.")
    return found


def complete_from(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function that completes a word from `words`."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def complete_songs(incomplete: str) -> list[str]:
    """Return the bundled songs whose names begin with `incomplete`."""
    from acestep_cli.song import examples

    return complete_from(examples.example_files())(incomplete)


def complete_specs(incomplete: str) -> list[str]:
    """Return the specs that begin with `incomplete`; none where a folder does too, which the shell completes."""
    folder, beginning = os.path.split(incomplete)
    try:
        there = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    meant = [entry for entry in there if entry.name.startswith(beginning) and not entry.name.startswith(".")]
    if any(entry.is_dir() for entry in meant):
        return []
    return [os.path.join(folder, entry.name) for entry in meant if entry.name.endswith(SPEC_SUFFIXES)]  # noqa: PTH118


def _setting(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the keys that begin with `incomplete` and that the mode of a command takes, each with its `=`."""
    from acestep_cli.song import modes, spec_keys

    mode = ctx.info_name if ctx.info_name in modes.MODES else None
    others = frozenset() if mode is None else modes.keys_of_other_modes(mode)
    return [f"{name}=" for name in spec_keys.KEYS if name.startswith(incomplete) and name not in others]


def switch(*names: str, help: str, panel: str, **rest: Any) -> Any:
    return typer.Option(*names, metavar="", help=help, rich_help_panel=panel, **rest)


ModelsDir = Annotated[
    Path | None,
    typer.Option(
        "--models-dir",
        envvar="ACESTEP_MODELS_DIR",
        metavar="FOLDER",
        readable=False,
        help="Folder of checkpoints in the published layout. Unset: the Hugging Face cache.",
        rich_help_panel=MACHINE,
    ),
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="|".join(DEVICES),
        help="The device, or one card of several: cuda:1. Unset: the best that the song fits into.",
        rich_help_panel=MACHINE,
        autocompletion=complete_from(DEVICES),
    ),
]
DTypeName = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="|".join(DTYPES),
        help="Number format; int8 is faster on some processors, and changes the sound a little. Unset: the best here.",
        rich_help_panel=MACHINE,
        autocompletion=complete_from(DTYPES),
    ),
]
MaxVRAM = Annotated[
    int | None,
    typer.Option(
        "--max-vram",
        parser=size,
        metavar="8G",
        help="Most memory of the device to use. Unset: what is free.",
        rich_help_panel=MACHINE,
    ),
]
SetKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of a spec; repeatable.",
        rich_help_panel=OUTPUT,
        autocompletion=_setting,
    ),
]
Json = Annotated[
    bool,
    switch(
        "--json",
        help="Print one JSON object instead of paths.",
        panel=OUTPUT,
        callback=_remember(exit_codes.JSON),
    ),
]
Quiet = Annotated[bool, switch("-q", "--quiet", help="Only errors on stderr.", panel=MACHINE)]
Debug = Annotated[
    bool,
    switch("--debug", help="Show the traceback of a failure.", panel=MACHINE, callback=_remember(exit_codes.DEBUG)),
]
NoInput = Annotated[bool, switch("--no-input", help="Refuse to wait for typing on a terminal.", panel=MACHINE)]


#: The flag of each field of `RenderSettings`.
SETTINGS: dict[str, Any] = {
    "output": Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE|FOLDER/|-",
            help="Where to write; - is stdout. Unset, or FOLDER/ without a spec: a new numbered file. Else a file of "
            "the same recipe is kept, one of another is refused: see --again, --force.",
            rich_help_panel=OUTPUT,
        ),
    ],
    "overrides": SetKeys,
    "matrix": Annotated[
        list[str] | None,
        typer.Option(
            "--matrix",
            metavar="KEY=A,B",
            help="A song for each of these values, of the same seed and named after them; repeatable: for each "
            "combination.",
            rich_help_panel=OUTPUT,
            autocompletion=_setting,
        ),
    ],
    "force": Annotated[bool, switch("--force", help="Replace existing files.", panel=OUTPUT)],
    "again": Annotated[
        bool,
        switch(
            "--again",
            help="New takes beside those that are there, with the next free numbers and new seeds.",
            panel=OUTPUT,
        ),
    ],
    "no_sidecar": Annotated[
        bool, switch("--no-sidecar", help="Do not write FILE.yaml, the spec of each take.", panel=OUTPUT)
    ],
    "keep_latents": Annotated[
        bool,
        switch(
            "--keep-latents",
            help="Keep FILE.latents.safetensors, so that later work on FILE need not encode it.",
            panel=OUTPUT,
        ),
    ],
    "cache": Annotated[
        bool,
        switch(
            "--cache",
            help="Keep the result of each stage, and use it again where its input is the same.",
            panel=MACHINE,
        ),
    ],
    "rank": Annotated[
        bool, switch("--rank", help="Score the takes, and report the best first; none is deleted.", panel=OUTPUT)
    ],
    "dry_run": Annotated[bool, switch("--dry-run", help="Say what would be written, and write nothing.", panel=OUTPUT)],
    "smoke": Annotated[
        bool,
        switch("--smoke", help="One short and quick take, checked for faults; for CI.", panel=OUTPUT),
    ],
    "auto": Annotated[
        bool,
        switch(
            "--auto",
            help="Make the next takes while you listen to the last, until you stop it; the page acestep listen makes "
            "is kept up to date.",
            panel=OUTPUT,
        ),
    ],
    "explain": Annotated[
        bool, switch("--explain", help="Say every effective value and where it came from.", panel=OUTPUT)
    ],
    "json": Json,
    "events": Annotated[
        str | None,
        typer.Option(
            "--events",
            metavar="FILE|fd:N",
            help="Also write events as they happen: one JSON object a line, with heartbeats.",
            rich_help_panel=OUTPUT,
        ),
    ],
    "no_think": Annotated[bool, switch("--no-think", help="No Songwriter: --songwriter none.", panel=SONGWRITER)],
    "models_dir": ModelsDir,
    "pull": Annotated[
        bool,
        switch("--pull", help="Fetch what is missing of the checkpoint first, as acestep models pull.", panel=MACHINE),
    ],
    "device": DeviceName,
    "dtype": DTypeName,
    "max_vram": MaxVRAM,
    "timeout": Annotated[
        float | None,
        typer.Option(
            "--timeout",
            parser=seconds,
            metavar="90s|10m",
            help="Give up a song after this long, without the loading of weights; the others go on.",
            rich_help_panel=MACHINE,
        ),
    ],
    "progress": Annotated[
        str,
        typer.Option(
            "--progress",
            metavar="|".join(PROGRESS),
            help="auto: bars on a terminal, else a line per stage (plain).",
            rich_help_panel=MACHINE,
            show_default=False,
            callback=_one_of(PROGRESS),
            autocompletion=complete_from(PROGRESS),
        ),
    ],
    "quiet": Quiet,
    "verbose": Annotated[
        bool, switch("-v", "--verbose", help="Also say why the machine is used as it is, and timings.", panel=MACHINE)
    ],
    "no_input": NoInput,
    "debug": Debug,
}

Command = Callable[..., None]


def render_flags(command: Command, mode: str | None, without: Collection[str] = ()) -> Command:
    """Give `command` the flags of a render: the spec keys that `mode` takes, but for those in `without`, as typed, in
    the dict `song`, and settings in `run`.
    """
    keys = [name for name in keys_of_mode(mode) if name not in without]
    return flags(keys, [field.name for field in fields(RenderSettings)])(command)


def keys_of_mode(mode: str | None) -> list[str]:
    """Return the keys of a spec that have a flag and that `mode` takes; those of all modes where it is None."""
    from acestep_cli.song import modes, spec_keys

    left_out = modes.keys_of_other_modes(mode) if mode is not None else frozenset()
    resolved = [*spec_keys.TEXT_FILES.items(), *spec_keys.EXTENSION.items()]
    left_out |= {name for key, name in resolved if key in left_out}
    return [name for name, key in spec_keys.KEYS.items() if key.flag and name not in left_out]


def flags(keys: Sequence[str], machine: Sequence[str]) -> Callable[[Command], Command]:
    """Return a decorator like `render_flags` for some keys of the spec and some fields of `RenderSettings`."""

    from acestep_cli.song import spec_keys

    switches = {name: key.switch for name in keys if (key := spec_keys.KEYS[name]).switch is not None}
    asked = [_flag(name, spec_keys.KEYS[name]) for name in keys]
    asked += [_switch(name, flag, spec_keys.KEYS[name]) for name, (flag, _) in switches.items()]
    others = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=SETTINGS[field.name]
        )
        for field in fields(RenderSettings)
        if field.name in machine and (field.name != "no_think" or "songwriter" in keys)
    ]

    def decorator(command: Command) -> Command:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values()
               if p.name not in ("song", "run")]  # fmt: skip

        @functools.wraps(command)
        def with_flags(**given: Any) -> None:
            song_given = {flag.name: given.pop(flag.name) for flag in asked}
            song_given = {name: None if value == [] else value for name, value in song_given.items()}  # not given
            for name, (flag, meaning) in switches.items():
                if song_given.pop(SWITCH + name):
                    if song_given[name] is not None:
                        raise UsageError(f"{flag}: excludes {spec_keys.flag_of(name)}; leave one of them out.")
                    song_given[name] = meaning
            run = RenderSettings(**{flag.name: given.pop(flag.name) for flag in others})
            if run.no_think:
                if song_given["songwriter"] not in (None, "none"):
                    raise UsageError(f"--no-think contradicts --songwriter {song_given['songwriter']}; leave one out.")
                song_given["songwriter"] = "none"
            command(**given, song=song_given, run=run)

        with_flags.__signature__ = inspect.Signature([*own, *asked, *others])  # type: ignore[attr-defined]
        return with_flags

    return decorator


def keyed(keys: Mapping[str, Key], name: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command a flag for each of `keys`, passed as typed in the dict `name`."""
    asked = [_flag(key_name, key) for key_name, key in keys.items()]

    def decorator(command: Command) -> Command:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != name]

        @functools.wraps(command)
        def with_keys(**given: Any) -> None:
            command(**{name: {flag.name: given.pop(flag.name) for flag in asked}}, **given)

        with_keys.__signature__ = inspect.Signature([*own, *asked])  # type: ignore[attr-defined]
        return with_keys

    return decorator


def grouped(options: type, name: str) -> Callable[[Command], Command]:
    """Return a decorator that gives a command a flag for each field of a dataclass.

    The command receives them as one value of that class, as its parameter `name`, in whose place the flags stand.
    """
    hints = get_type_hints(options, include_extras=True)
    asked = [
        inspect.Parameter(
            field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=field.default, annotation=hints[field.name]
        )
        for field in fields(options)
    ]

    def decorator(command: Command) -> Command:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            parameters += asked if parameter.name == name else [parameter]

        @functools.wraps(command)
        def with_fields(**given: Any) -> None:
            command(**{name: options(**{flag.name: given.pop(flag.name) for flag in asked})}, **given)

        with_fields.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return with_fields

    return decorator


def _switch(name: str, flag: str, key: Key) -> inspect.Parameter:
    """Return the parameter of a switch that stands for one value of a key."""

    from acestep_cli.song import spec_keys

    assert key.switch is not None
    option = switch(flag, help=f"The same as {spec_keys.flag_of(name)} {key.switch[1]}.", panel=key.panel)
    return inspect.Parameter(
        SWITCH + name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )


def _flag(name: str, key: Key) -> inspect.Parameter:
    """Return the parameter of a key's flag."""
    from acestep_cli.song import spec_keys
    from acestep_cli.song.values import Switch

    names = [spec_keys.flag_of(name)] if key.short is None else [key.short, spec_keys.flag_of(name)]
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
            autocompletion=complete_from(words) if words else None,
        )
        kind = list[str] | None if key.kind.several else str | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])
