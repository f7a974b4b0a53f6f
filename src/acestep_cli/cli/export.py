"""`acestep export`: takes handed over to another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acestep_cli.cli import console, help_format, options
from acestep_cli.errors import UsageError
from acestep_cli.render import export as exports
from acestep_cli.render.take_file import TakeFile
from acestep_cli.song.values import quoted

app = help_format.App()

Takes = Annotated[
    list[Path], typer.Argument(metavar="TAKE", readable=False, help="The takes: a mix, its stems, or both.")
]
Daw = Annotated[bool, typer.Option("--daw", metavar="", help=f"For a DAW: {exports.TARGETS['daw'].summary}.")]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="FOLDER", readable=False, help="The folder to write into.")
]
BitDepth = Annotated[
    str, typer.Option("--bit-depth", metavar="|".join(exports.BIT_DEPTHS), help="Bits per sample; 32f is float.")
]
Force = Annotated[bool, typer.Option("--force", metavar="", help="Replace the files of an earlier export.")]


@app.command(
    help="Hand takes over to another program, such as a DAW.\n\n"
    "acestep export song-vocals.wav song-drums.wav song-mix.wav --daw -o for-reaper/"
)
def export(
    ctx: typer.Context,
    takes: Takes,
    output: Output,
    daw: Daw = False,
    bit_depth: BitDepth = exports.BIT_DEPTHS[0],
    force: Force = False,
    json_wanted: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    terminal, run_report = console.begin(ctx, quiet=quiet, wants_json=json_wanted)
    if not daw:
        targets = ", ".join(f"--{name}" for name in exports.TARGETS)
        raise UsageError("There is nothing to export for.", f"Say what for: {targets}.")
    if bit_depth not in exports.BIT_DEPTHS:
        raise UsageError(f"--bit-depth: {quoted(bit_depth)} is not one of {', '.join(exports.BIT_DEPTHS)}.")
    with terminal.results() as stdout, terminal.progress(in_lines=False) as report:
        report("export", 0, 0)
        found = [TakeFile.read(take, terminal.warn) for take in takes]
        files = exports.TARGETS["daw"].write(found, output, bit_depth, terminal.warn, terminal.say, force=force)
        run_report.more["exported"] = [str(file) for file in files]
        for file in files:
            stdout.path(file)
