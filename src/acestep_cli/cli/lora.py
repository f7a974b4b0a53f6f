"""`acestep lora`: the properties of an adapter and the checkpoints it fits; one seed with and without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from acestep_cli.audio import decode, distance
from acestep_cli.cli import console, help_format, options
from acestep_cli.cli.console import Console
from acestep_cli.disk import format_size
from acestep_cli.errors import AceStepError, CheckError, UsageError, combine_errors
from acestep_cli.machine import hardware, history
from acestep_cli.models import adapter_file, checkpoint_table, checkpoints
from acestep_cli.models.adapters import Adapter
from acestep_cli.models.sizes import Sizes
from acestep_cli.render import announce, arguments, outputs, plan
from acestep_cli.render.job import Job, SongInput
from acestep_cli.render.paths import Destination, parse_destination
from acestep_cli.render.plan import PlanContext
from acestep_cli.render.result import RunReport
from acestep_cli.render.session import RenderSession
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import (
    file_values,
    seeds,
    spec,
    spec_layers,
    spec_text,
    take_parts,
    values,
)

app = help_format.App(no_args_is_help=True, help="Say what an adapter is and what it fits; hear what it does.")

T = TypeVar("T")
#: Of a song, all but what a comparison decides itself.
SONG_KEYS = tuple(name for name in options.keys_of_mode("generate") if name not in ("loras", "lora_mode", "takes"))
#: What a render does besides, a comparison goes without: it makes one take of each, as they are, and ends.
OTHERWISE = ("pull", "explain", "smoke", "auto", "rank", "again")
RUN = [field.name for field in fields(RenderSettings) if field.name not in OTHERWISE]
SCALES = "0,0.5,1"

Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATH", help="An adapter: the folder that PEFT wrote, or a .safetensors file."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="NAME|FOLDER",
        help="Refuse an adapter that does not fit this checkpoint.",
        autocompletion=options.complete_from(checkpoint_table.CHECKPOINTS),
    ),
]
Scales = Annotated[
    str,
    typer.Option("--scales", metavar="0,0.5,1", help="Scales to compare; the song without it is always made."),
]
Spec = Annotated[
    str | None,
    typer.Option(
        "--spec",
        metavar="SPEC",
        help="The song to make (.yaml, .md, a sidecar, or - for stdin); flags override its keys.",
        autocompletion=options.complete_specs,
    ),
]


@app.command(
    help="Say of adapters what they hold, and which checkpoints they fit.\n\n"
    "acestep lora inspect my-sound/\n\nacestep lora inspect jazz.safetensors --model xl-turbo --json"
)
def inspect(
    ctx: typer.Context,
    paths: Paths,
    model: Model = None,
    models_dir: options.ModelsDir = None,
    json_wanted: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    terminal, run_report = console.begin(ctx, quiet=quiet, wants_json=json_wanted)
    wanted = None if model is None else checkpoints.find_checkpoint(model, models_dir)
    entries = run_report.more["adapters"] = []
    with terminal.results() as stdout:
        for path in paths:
            adapter = adapter_file.read_adapter(Path(path))
            adapter.require_finite()
            for warning in adapter.warnings:
                terminal.warn(warning)
            if wanted is not None:
                for warning in adapter.require_fit(Sizes.of(wanted).dit, wanted.name):
                    terminal.warn(warning)
            fits = fitting(adapter, models_dir)
            entries.append(report(adapter, fits))
            for line in lines(adapter, fits):
                stdout.path(line)


def fitting(adapter: Adapter, models_dir: Path | None) -> dict[str, float]:
    """Return the share of an adapter's tensors that fits each checkpoint: 0 where one has another size."""
    found = {}
    for name in checkpoint_table.CHECKPOINTS:
        fit = adapter.fit(Sizes.known(name, models_dir).dit)
        found[name] = 0.0 if fit.misshapen else round(fit.share, 4)
    return found


def report(adapter: Adapter, fits: dict[str, float]) -> dict[str, Any]:
    """Return the entry of an adapter in `--json`."""
    return {
        "path": str(adapter.path),
        "file": str(adapter.file),
        "format": adapter.format,
        "kind": adapter.kind,
        "ranks": list(adapter.ranks),
        "alphas": list(adapter.alphas),
        "factors": list(adapter.factors),
        "targets": adapter.targets,
        "matrices": len(adapter.pieces),
        "parameters": adapter.parameters,
        "base": adapter.base,
        "trigger_word": adapter.trigger_word,
        "strange": list(adapter.unknown_tensors),
        "hash": adapter.fingerprint,
        "fits": fits,
    }


def lines(adapter: Adapter, fits: dict[str, float]) -> Iterator[str]:
    """Yield the lines that are printed for an adapter."""
    size = format_size(adapter.file.stat().st_size)
    yield f"{adapter.path}: {adapter.kind}, named as by {adapter.format}, {adapter.parameters:,} weights, {size}"
    factors = listed(adapter.factors)
    yield f"  rank {listed(adapter.ranks)}, alpha {listed(adapter.alphas)}: its product is multiplied by {factors}"
    yield f"  adapts {len(adapter.pieces)} matrices: {', '.join(f'{n} {name}' for name, n in adapter.targets.items())}"
    if adapter.unknown_tensors:
        unknown = adapter.unknown_tensors
        yield f"  holds {len(unknown)} tensors that are not part of it, such as {unknown[0]}"
    yield f"  made for {adapter.base or 'a model it does not name'}"
    if adapter.trigger_word is not None:
        yield f"  trigger word: {adapter.trigger_word}"
    for share in sorted({share for share in fits.values() if share}, reverse=True):
        names = ", ".join(name for name, own in fits.items() if own == share)
        yield f"  fits {names}: {'all' if share == 1 else f'{share:.0%}'} of its tensors"
    if not any(fits.values()):
        yield "  fits no checkpoint of the table"


def listed(numbers: tuple[float, ...] | list[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers) or "none"


@dataclass
class Variant:
    """One side of a comparison: an adapter at a scale, or none, and the job that renders it."""

    adapter: str | None
    scale: float
    job: Job

    @property
    def file(self) -> Path:
        path = self.job.outputs[0].path
        assert path is not None
        return path


@app.command(
    help="Make a song of one seed without an adapter and with it at each scale, and measure how far apart the takes "
    f"are: the {distance.MEASURE}.\n\n"
    'acestep lora compare my-sound/ -c "dub techno, warm chords" -d 30 --scales 0,0.5,1 --seed 7 -o ab/'
)
@options.flags(SONG_KEYS, RUN)
def compare(
    ctx: typer.Context,
    paths: Paths,
    scales: Scales = SCALES,
    spec_file: Spec = None,
    *,
    song: dict[str, Any],
    run: RenderSettings,
) -> None:
    with console.begin_render(ctx, run) as (terminal, run_report):
        compare_scales(paths, scales, spec_file, song, run, run_report, terminal)


def compare_scales(
    paths: list[str],
    scales: str,
    spec_file: str | None,
    song: dict[str, Any],
    run: RenderSettings,
    run_report: RunReport,
    terminal: Console,
) -> None:
    """Render the song without and with each adapter, and report the distances.

    Raises `CheckError` where an adapter changes nothing.
    """
    from acestep_cli.render import perform

    with spec_text.reading_stdin(typing=not run.no_input):
        [plain, *others] = variants(paths, scales, spec_file, song, run, terminal.warn)
    planned = [variant.job for variant in (plain, *others)]
    run_report.outputs = [output for job in planned for output in job.outputs]
    announce.announce_plan(planned, terminal, dry_run=run.dry_run)
    with terminal.results() as stdout:
        if run.dry_run:
            announce.preview_files(run_report.outputs, terminal, stdout)
            return
        perform.make_planned(planned, RenderSession(run, terminal, stdout))
    perform.finish_report(run_report.outputs, terminal)
    without = decode.read_audio(plain.file)
    apart = {id(variant): distance.spectral_distance(without, decode.read_audio(variant.file)) for variant in others}
    run_report.more["comparison"] = {
        "measure": distance.MEASURE,
        "without": str(plain.file),
        "with": [
            {"adapter": one.adapter, "scale": one.scale, "path": str(one.file), "distance_db": round(apart[id(one)], 3)}
            for one in others
        ],
    }
    for one in others:
        terminal.say(f"{one.adapter} at {scale_text(one.scale)}: {apart[id(one)]:.2f} dB from {plain.file.name}")
    if others:
        terminal.say(f"({distance.MEASURE})")
    if idle := [one for one in others if apart[id(one)] == 0]:
        raise CheckError(
            f"{idle[0].adapter} at {scale_text(idle[0].scale)} changes nothing: every sample is as without it.",
            "It was not trained, or its weights are all zero.",
        )


def scales_of(text: str) -> list[float]:
    """Return the scales of `--scales`, each once, without 0, which is always rendered."""
    try:
        found = [file_values.Loras.scale(item) for item in values.split_items(text)]
    except ValueError as error:
        raise UsageError(f"--scales: {error}.", "--scales 0,0.5,1") from error
    if not any(found):
        raise UsageError("--scales: 0 alone compares nothing.", "--scales 0,0.5,1")
    return [scale for scale in dict.fromkeys(found) if scale]


def scale_text(scale: float) -> str:
    """Return a scale as short as it can be read back."""
    return short if float(short := f"{scale:g}") == scale else repr(scale)


def adapter_problems(paths: list[str]) -> list[UsageError]:
    """Return an error for an empty path, and one for each adapter that is named more than once."""
    found = [UsageError("PATH: the name of an adapter is empty.")] if "" in paths else []
    files: dict[str, list[str]] = {}
    for path in filter(None, paths):
        file: Path | str = path
        with suppress(AceStepError):  # told where it is planned
            file = adapter_file.read_adapter(Path(path)).file
        files.setdefault(os.path.realpath(file), []).append(path)
    return found + [
        UsageError(f"PATH: {' and '.join(names)} are one adapter.", "--scales compares it at several scales.")
        for names in files.values()
        if len(names) > 1
    ]


def song_layers(
    spec_file: str | None, song: dict[str, Any], run: RenderSettings, warn: Callable[[str], None]
) -> list[spec_layers.Layer]:
    """Return the layers of the song that is compared, without adapters: one seed, one take.

    Says which adapters of a spec are left out; refuses those of flags.
    """
    flags = spec_layers.from_flags(song, tuple(run.overrides or ()))
    for key, reason in {"loras": "PATH names the adapters", "takes": "it makes one take of each"}.items():
        if key in flags.values:
            raise UsageError(f"{flags.values[key].where}: has no meaning for a comparison: {reason}.")
    layers = [*arguments.argument_layers(spec_file, given=False), flags]
    asked = spec.resolve(*layers).request
    if asked.loras:
        own = ", ".join(lora.path for lora in asked.loras)
        warn(f"{spec_file} names adapters of its own, which are left out of the comparison: {own}.")
    seed = seeds.draw_seed() if asked.seed is None else asked.seed
    return [
        *layers,
        spec_layers.implied_layer({"seed": str(seed)}, "one seed for all"),
        spec_layers.implied_layer({"takes": "1"}, "one take of each"),
    ]


def folder_of(output: str | None) -> Destination:
    """Return where the files go. Raises `UsageError` for a place of one file."""
    place = parse_destination(output)
    if place.stdout or place.stem is not None:
        raise UsageError(
            f"--output {output} is one file, and a comparison makes several.", "Name a folder: --output ab/"
        )
    return place


def variants(
    paths: list[str],
    scales_asked: str,
    spec_file: str | None,
    song: dict[str, Any],
    run: RenderSettings,
    warn: Callable[[str], None],
) -> list[Variant]:
    """Return the song without an adapter, and with each adapter at each scale, all with one seed.

    Raises one error for all problems.
    """
    problems: list[AceStepError] = [*adapter_problems(paths)]

    def attempt(make: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return make(*arguments)
        except AceStepError as error:
            problems.append(error)
            return None

    place = attempt(folder_of, run.output) or parse_destination(None)
    scales = attempt(scales_of, scales_asked) or [1.0]
    layers = attempt(song_layers, spec_file, song, run, warn)
    found: list[Variant | None] = []
    if layers is not None:
        context = PlanContext(run, hardware.detect(), history.read_history())
        found.append(attempt(plan_variant, None, 0.0, layers, replace(place, stem="without"), context))
        for path, stem in stems_of(paths).items():
            for scale in scales:
                named = replace(place, stem=f"{stem}@{scale_text(scale)}")
                found.append(attempt(plan_variant, path, scale, layers, named, context))
    if problems:
        raise combine_errors(problems)
    planned = [one for one in found if one is not None]
    outputs.assign_outputs([one.job for one in planned], run)
    return planned


def plan_variant(
    adapter: str | None, scale: float, layers: list[spec_layers.Layer], place: Destination, context: PlanContext
) -> Variant:
    """Return one side of a comparison."""
    loras = None if adapter is None else [f"{adapter}@{scale_text(scale)}"]
    made = plan.plan_job(SongInput.of([*layers, spec_layers.implied_layer({"loras": loras}, "PATH")], place), context)
    if len(take_parts.output_parts(made.request)) > 1:
        raise UsageError(f"{made.request.mode} makes several files of a take, and only takes of one file are compared.")
    return Variant(adapter, scale, made)


def stems_of(paths: list[str]) -> dict[str, str]:
    """Return the name of each adapter in those of its files, two of which differ."""
    named: dict[str, str] = {}
    for path in filter(None, dict.fromkeys(paths)):
        stem = Path(path).resolve().stem
        named[path] = next(name for n in count(1) if (name := stem if n == 1 else f"{stem}-{n}") not in named.values())
    return named
