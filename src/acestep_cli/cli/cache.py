"""`acestep cache`: the size of the results that renders keep for each other, and their deletion."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from acestep_cli.cache import STAGES, Cache, open_cache
from acestep_cli.cli import console, help_format, options
from acestep_cli.cli.console import Console
from acestep_cli.disk import format_size
from acestep_cli.errors import OutputError, reason_of
from acestep_cli.render.result import RunReport

app = help_format.App(no_args_is_help=True, help="See and clear what renders keep for each other.")

Most = Annotated[
    int,
    typer.Option("--to", parser=options.size, metavar="2G", help="Size to keep, the last used first. Unset: nothing.",
                 show_default=False),
]  # fmt: skip


def begin(ctx: typer.Context, *, wants_json: bool) -> tuple[Console, RunReport, Cache]:
    terminal, run_report = console.begin(ctx, wants_json=wants_json)
    return terminal, run_report, open_cache(terminal.warn)


@app.command(help="Say how much the cache holds of each stage, and where.\n\nacestep cache du")
def du(ctx: typer.Context, json_wanted: options.Json = False, debug: options.Debug = False) -> None:
    terminal, run_report, cache = begin(ctx, wants_json=json_wanted)
    sizes, counts = Counter[str](), Counter[str]()
    try:
        for entry in cache.entries():
            sizes[entry.stage] += entry.bytes
            counts[entry.stage] += 1
    except OSError as error:
        raise OutputError(f"{error.filename or cache.folder} cannot be read: {reason_of(error)}.") from error
    run_report.more["cache"] = {
        "path": str(cache.folder),
        "limit": cache.limit,
        "stages": {stage: {"entries": counts[stage], "bytes": sizes[stage]} for stage in STAGES},
    }
    with terminal.results() as stdout:
        for stage in STAGES:
            stdout.path(f"{stage:<11}  {counts[stage]:>6}  {format_size(sizes[stage]):>9}")
        terminal.say(f"{format_size(sizes.total())} of {format_size(cache.limit)} in {cache.folder}")


@app.command(help="Delete what has not been used for longest.\n\nacestep cache prune\n\nacestep cache prune --to 2G")
def prune(ctx: typer.Context, most: Most = 0, json_wanted: options.Json = False, debug: options.Debug = False) -> None:
    terminal, run_report, cache = begin(ctx, wants_json=json_wanted)
    try:
        gone = cache.prune(most)
    except OSError as error:
        reason = reason_of(error)
        raise OutputError(f"{error.filename or cache.folder} cannot be deleted: {reason}.") from error
    run_report.more["leftovers"] = [{"path": str(one.path), "bytes": one.bytes, "deleted": True} for one in gone]
    with terminal.results() as stdout:
        for entry in gone:
            stdout.path(entry.path)
    terminal.say(f"{format_size(sum(entry.bytes for entry in gone))} deleted.")
