"""`acestep spec`: specs without rendering them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from textwrap import indent
from typing import Annotated

import typer

from acestep_cli.cli import exit_codes, help_format, options
from acestep_cli.cli.console import Console, print_result
from acestep_cli.errors import AceStepError, CheckpointError, OutputError, UsageError
from acestep_cli.models import checkpoint_files, checkpoint_table, checkpoints
from acestep_cli.models.songwriters import find_songwriters
from acestep_cli.song import (
    complete,
    document,
    examples,
    languages,
    modes,
    prompts,
    schema,
    spec,
    spec_keys,
    spec_layers,
    validate,
)
from acestep_cli.song.inputs import read_inputs
from acestep_cli.song.request import Request

app = help_format.App(no_args_is_help=True, help="Write, check and show song specs, without rendering.")

Specs = Annotated[
    list[str],
    typer.Argument(
        metavar="SPEC",
        help="Song specs (.yaml, .md, a sidecar, or - for stdin).",
        autocompletion=options.complete_specs,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", metavar="", help="Warnings are errors too.")]
Resolve = Annotated[
    bool,
    typer.Option("--resolved", metavar="", help="Also what the checkpoint and the defaults decide, as a render would."),
]
WithOrigin = Annotated[bool, typer.Option("--origin", metavar="", help="Say behind each value where it came from.")]
Template = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        help="A song that comes with the program, to start from. Without: every key, with what it takes.",
        autocompletion=options.complete_songs,
        show_default=False,
    ),
]


@app.command(
    help="Print a spec to start from.\n\nacestep spec new > song.yaml\n\nacestep spec new ballad > ballad.yaml"
)
def new(name: Template = None) -> None:
    print_result(blank() if name is None else template(name))


def blank() -> str:
    """Return a spec with every key, all but the first commented out."""
    lines = [
        schema.EDITOR_LINE,
        f"# (acestep spec schema > {schema.FILE_NAME} puts the schema here: editors then complete and check.)",
        "# A song for acestep. `acestep spec check` tells what is wrong with it, `acestep generate` plays it.",
        "",
    ]
    for group, names in groupby(spec_keys.KEYS, key=lambda name: spec_keys.KEYS[name].group):
        if group is None:
            for name in names:
                entry = example(name)
                about = f"# {spec_keys.KEYS[name].help}  [{spec_keys.KEYS[name].kind.metavar}]"
                lines += [about, *(entry if name == "caption" else [f"# {line}" for line in entry]), ""]
        else:
            lines += [f"# Below {group}:", f"# {group}:"]
            for name in names:
                about = f"#   # {spec_keys.KEYS[name].help}  [{spec_keys.KEYS[name].kind.metavar}]"
                lines += [about, *(f"#   {line}" for line in example(name))]
            lines.append("")
    return "\n".join(lines)


def example(name: str) -> list[str]:
    """Return the lines of an example entry for a key."""
    key = spec_keys.KEYS[name]
    return document.dump_yaml({name: (key.examples or key.kind.examples or ("…",))[0]}).splitlines()


def template(name: str) -> str:
    """Return the text of a bundled song with the line for editors; a spec that it extends is folded in."""
    file = examples.find_example(name)
    layers = spec_layers.read_layers(file)
    if len(layers) > 1:
        return f"{schema.EDITOR_LINE}\n{spec.dump_spec(spec.resolve(*layers).request)}"
    text = file.read_text(encoding="utf-8").replace(f"songs/{file.name}", file.name, 1)  # it will lie elsewhere
    front, rest = ("---\n", text.removeprefix("---\n")) if file.suffix == ".md" else ("", text)
    return f"{front}{schema.EDITOR_LINE}\n{rest}"


@app.command(
    help="Check specs: what is wrong, and what might go wrong.\n\n"
    "acestep spec check songs/*.yaml\n\nacestep spec check song.yaml --strict --json"
)
def check(
    ctx: typer.Context,
    files: Specs,
    strict: Strict = False,
    models_dir: options.ModelsDir = None,
    json_wanted: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    terminal = Console(quiet)
    exit_codes.keep_report(ctx, terminal.warnings)
    find = cache(lambda model, task: located(model, models_dir, task))
    problems: list[str] = []
    kinds: set[type[AceStepError]] = set()
    for file in files:
        try:
            for warning in check_spec(file, find):
                terminal.warn(warning)
        except OutputError:  # the current folder is gone: no other spec is found either
            raise
        except AceStepError as error:
            problems.append(str(error))
            kinds.add(type(error))
    if strict and terminal.warnings:
        problems += terminal.warnings
        kinds.add(UsageError)
    if problems:
        raise (kinds.pop() if kinds == {CheckpointError} else UsageError)("\n".join(problems))
    terminal.say(f"No errors in {files[0] if len(files) == 1 else f'{len(files)} specs'}.")


def located(model: str, models_dir: Path | None, task: str) -> checkpoint_files.Checkpoint | CheckpointError:
    """Find a checkpoint; return the error where that fails."""
    try:
        return checkpoints.find_checkpoint(model, models_dir, task)
    except CheckpointError as error:
        return error


def check_spec(file: str, find: Callable[[str, str], checkpoint_files.Checkpoint | CheckpointError]) -> list[str]:
    """Return the warnings about one spec, each with its place. Raises `UsageError` with all its problems."""
    from acestep_cli.song.lint import remarks  # long tables, which no TAB should wait for

    layers = spec_layers.read_layers(Path(file))
    found = spec.resolve(*layers)
    request = found.request
    checkpoint = find(request.model or "auto", modes.mode_of(request).task)
    with spec.placing_problems(*layers):
        inputs = read_inputs(request, None if isinstance(checkpoint, CheckpointError) else checkpoint)
    warnings = [*found.remarks, *(f"{file}: {warning}" for warning in inputs.adapter_warnings)]
    if isinstance(checkpoint, CheckpointError):
        warnings.append(f"{file}: {checkpoint.message}")
        row = checkpoint_table.CHECKPOINTS.get(request.model or "")
        problems = validate.contradictions(request, inputs, request.model or "", row, None) if row else []
    else:
        validate.require_task(request, checkpoint.name, checkpoint.row)
        validate.require_heads(request, checkpoint)
        problems = validate.contradictions(request, inputs, checkpoint.name, checkpoint.row, checkpoint.code_count)
    if problems:
        with spec.placing_problems(*layers):
            raise UsageError("\n".join(problems))
    seconds = inputs.length.seconds
    remarks_on_words = remarks.song_remarks(request, seconds)
    warnings += [remarks.placed(remark, file, found.origins, found.lines) for remark in remarks_on_words]
    if not isinstance(checkpoint, CheckpointError):
        warnings += [f"{file}: {cut}" for cut in truncations(request, checkpoint, seconds)]
    return warnings


def truncations(request: Request, checkpoint: checkpoint_files.Checkpoint, seconds: float) -> Iterator[str]:
    """Yield a notice for each text that the encoder would cut for its length."""
    mode, song = modes.mode_of(request), modes.with_defaults(request)
    instruction = mode.prepare(song, None).instruction
    for read in (song, *((modes.source_description(song),) if mode.describes_source else ())):
        yield from prompts.truncation_notices(*prompts.prompts_of(read, instruction, seconds), checkpoint.tokenizer)


@app.command(
    help="Print a spec as it is read: what it extends folded in.\n\n"
    "acestep spec show song.yaml --resolved --origin\n\nacestep spec show song.md --set bpm=96 > slower.yaml"
)
def show(
    file: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            help="A song spec (.yaml, .md, a sidecar, or - for stdin).",
            autocompletion=options.complete_specs,
        ),
    ],
    resolved: Resolve = False,
    origin: WithOrigin = False,
    settings: options.SetKeys = None,
    models_dir: options.ModelsDir = None,
    debug: options.Debug = False,
) -> None:
    layers = [*spec_layers.read_layers(Path(file)), spec_layers.from_flags({}, tuple(settings or ()))]
    found = spec.resolve(*layers)
    if resolved:
        task = modes.mode_of(found.request).task
        checkpoint = checkpoints.find_checkpoint(found.request.model or "auto", models_dir, task)
        songwriter = find_songwriters(found.request.songwriter, checkpoint, models_dir)[0]
        with spec.placing_problems(*layers):
            decided = complete.complete_request(found.request, checkpoint, songwriter)
        values = spec.value_origins(found, decided)
    else:
        content = found.request.model_dump(exclude_none=True)
        values = [spec.ValueOrigin(name, value, found.origins[name]) for name, value in content.items()]
    print_result(listing(values, origin=origin))


def listing(values: Sequence[spec.ValueOrigin], *, origin: bool) -> str:
    """Return values as the YAML of a spec, those of a group under its name."""
    text = ""
    for group, members in groupby(values, key=lambda one: spec_keys.KEYS[one.name].group):
        lines = "".join(entry_yaml(one, origin=origin) for one in members)
        text += lines if group is None else f"{group}:\n{indent(lines, '  ')}"
    return text


def entry_yaml(one: spec.ValueOrigin, *, origin: bool) -> str:
    """Return one key as YAML, followed by its origin."""
    first, newline, rest = document.dump_yaml({one.name: one.value}).partition("\n")
    return f"{first}{f'  # {document.as_comment(one.origin)}' if origin else ''}{newline}{rest}"


@app.command(
    name="schema",
    help="Print the JSON Schema of a spec (draft 7), for editors.\n\nacestep spec schema > song.schema.json",
)
def print_schema() -> None:
    print_result(json.dumps(schema.song_schema(), indent=2, ensure_ascii=False) + "\n")


@app.command(
    name="languages",
    help="List the languages: code, name, own name, and what else means it.\n\nacestep spec languages",
)
def print_languages() -> None:
    print_result(languages.listing())
