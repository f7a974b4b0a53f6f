"""`acestep generate`: text to music."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acestep_cli import audio, checkpoints, disk, hardware, modes, spec
from acestep_cli.cli import console, options, outputs, sidecar
from acestep_cli.errors import AceStepError, CheckError, ExistsError, SeveralFailedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from acestep_cli.pipeline import Take

app = typer.Typer(add_completion=False)


@app.command()
@options.song_flags
def generate(
    spec_file: Annotated[
        Path | None,
        typer.Argument(metavar="SPEC", help="A song spec in YAML; flags override its keys.", show_default=False),
    ] = None,
    *,
    song: dict[str, Any],
    output: options.Output = None,
    force: options.Force = False,
    no_sidecar: options.NoSidecar = False,
    models_dir: options.ModelsDir = None,
    device: options.Device = None,
    dtype: options.DType = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Make a song from a caption and lyrics.

    acestep generate songs/night-drive.yaml -o night-drive.flac

    acestep generate -c "warm lo-fi hip hop, rhodes" --instrumental --bpm 84 -d 30 -n 4 -o takes/
    """
    terminal = console.Console(quiet)
    place = outputs.destination(output)
    if place.format is not None:
        if song["format"] is not None and song["format"].strip().casefold() != place.format:
            raise UsageError(f"--format {song['format']} contradicts --output {output}; leave one of them out.")
        song["format"] = place.format

    layers = [*([spec.read(spec_file)] if spec_file else []), spec.from_flags(song)]
    request = spec.resolve(*layers)
    if request.mode not in (None, "generate"):
        raise UsageError(f"{spec_file} is a spec of the mode {request.mode}.", f"acestep {request.mode} {spec_file}")
    encoding = audio.encoding(request.format or audio.DEFAULT_FORMAT, request.bit_depth, request.bitrate)
    request = request.model_copy(update=dataclasses.asdict(encoding))
    asked_model = request.model or "auto"
    checkpoint = checkpoints.locate(asked_model, models_dir)
    with spec.placed(*layers):
        request = modes.complete(request, checkpoint)
    plan = hardware.plan(hardware.detect(), request, hardware.Asked(device, dtype))
    outputs.prepare(place.folder, made=place.made)
    paths = outputs.paths(place, request, spec_file, encoding.format)
    sidecars = [] if no_sidecar else [outputs.sidecar(path) for path in paths]
    outputs.refuse_existing([*paths, *sidecars], force=force)
    weights = checkpoint.weights_hash()

    if asked_model == "auto" and checkpoint.name == checkpoints.BUILT_IN:
        terminal.say(
            f"None of {', '.join(checkpoints.AUTO_ORDER)} is installed, so the built-in sketch model plays. "
            "See README.md, The real models."
        )
    terminal.say(
        f"{checkpoint.name} on {plan.device} ({plan.reasons['device']}), {plan.dtype} ({plan.reasons['dtype']})"
    )

    with terminal.results() as print_path, terminal.progress() as report:
        from acestep_cli.pipeline import Pipeline  # loads torch: no refusal above waits for that

        def keep(take: Take, path: Path) -> None:
            for warning in take.warnings:
                terminal.warn(warning)
            path = write(take, path)
            terminal.say(f"{path.name}: {take.audio.seconds:.2f} s of audio, seed {take.request.seed}")
            print_path(path)

        def write(take: Take, path: Path) -> Path:
            beside = [] if no_sidecar else [outputs.sidecar(path)]
            try:
                with disk.whole(path, *beside, replace=force and not place.numbered) as parts:
                    peak = audio.write(parts[0], take.audio, encoding, take.request.loudness, take.request.title)
                    for part in parts[1:]:
                        disk.write_text(part, sidecar.text(take, checkpoint.name, weights, plan, peak))
            except ExistsError:
                if not place.numbered:
                    raise
                # Another run took the number meanwhile.
                return write(take, outputs.next_free(path))
            return path

        keep_each(Pipeline(checkpoint, plan).run(request, report), paths, keep)


def keep_each(takes: Iterable[Take], paths: list[Path], keep: Callable[[Take, Path], None]) -> None:
    """Keep each take as it is made. One that fails its checks does not stop the others; any other failure does."""
    kept = 0
    failed: list[tuple[Path, AceStepError]] = []
    try:
        for take, path in zip(takes, paths, strict=True):
            try:
                keep(take, path)
                kept += 1
            except CheckError as error:
                failed.append((path, error))
    except AceStepError as error:
        failed.append((paths[kept + len(failed)], error))
    if not failed:
        return
    if kept == 0:
        raise failed[0][1]
    report = "\n".join(f"{path}: {error}" for path, error in failed)
    raise SeveralFailedError(f"{kept} of {len(paths)} takes are written; the others are not.\n{report}")
