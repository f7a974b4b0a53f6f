"""`acestep album`: albums as builds, in which only stale tracks are rendered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from acestep_cli.albums import gpu_lock, makefile, processes, ray_cluster
from acestep_cli.albums.album import read_album
from acestep_cli.albums.build import CURRENT, STALE, STATES, Build, track_paths
from acestep_cli.audio import encode
from acestep_cli.cli import exit_codes, help_format, options
from acestep_cli.cli.console import Console, Stdout, print_result, render_console
from acestep_cli.errors import AceStepError, UsageError
from acestep_cli.render import events, perform, result
from acestep_cli.render.result import RunReport
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import spec_keys, spec_layers, spec_text
from acestep_cli.song.key import OUTPUT

app = help_format.App(no_args_is_help=True, help="Render albums: what is stale, and nothing else.")
FORMATS = ("paths", "make", "json")
#: Settings of a render that an album lacks or replaces: each of its files is compared by its sidecar, and its tracks
#: have an order already.
REPLACED = ("output", "auto", "explain", "no_sidecar", "cache", "dry_run", "rank", "again", "matrix")

AlbumFile = Annotated[
    Path,
    typer.Argument(
        metavar="ALBUM", readable=False, help="An album spec (.yaml).", autocompletion=options.complete_specs
    ),
]
Folder = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="FOLDER", readable=False, help="Where the album goes. Unset: here.",
                 rich_help_panel=OUTPUT, show_default=False),
]  # fmt: skip
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="ID", help="This track, with those it begins from; repeatable.",
                 rich_help_panel=OUTPUT),
]  # fmt: skip
Explain = Annotated[bool, options.switch("--explain", help="Say why each track is stale.", panel=OUTPUT)]
DryRun = Annotated[bool, options.switch("--dry-run", help="As album plan does: write nothing.", panel=OUTPUT)]
Depfile = Annotated[
    Path | None,
    typer.Option("--depfile", metavar="FILE", readable=False, help="Write for make what the tracks are made from.",
                 rich_help_panel=OUTPUT),
]  # fmt: skip
Stamp = Annotated[
    Path | None,
    typer.Option("--stamp", metavar="FILE", readable=False, help="Touch this when all is there; --depfile is about it.",
                 rich_help_panel=OUTPUT),
]  # fmt: skip
Jobs = Annotated[
    int,
    typer.Option("-j", "--jobs", min=1, metavar="N", help="Up to so many processes, each on a card of its own.",
                 rich_help_panel=options.MACHINE, show_default=False),
]  # fmt: skip
On = Annotated[
    str | None,
    typer.Option("--on", metavar="|".join(ray_cluster.KINDS), help="Have the nodes of a cluster make the tracks.",
                 rich_help_panel=options.MACHINE, autocompletion=options.complete_from(ray_cluster.KINDS)),
]  # fmt: skip
NoCache = Annotated[
    bool,
    options.switch("--no-cache", help="Neither keep nor use the results of stages.", panel=options.MACHINE),
]
OutputFormat = Annotated[
    str,
    typer.Option("--format", metavar="|".join(FORMATS), help="make: variables TRACKS and OUTPUTS.",
                 autocompletion=options.complete_from(FORMATS), show_default=False),
]  # fmt: skip

flags = options.flags(
    [name for name, key in spec_keys.KEYS.items() if key.flag],
    [field.name for field in fields(RenderSettings) if field.name not in REPLACED],
)


@app.command(
    help="Say which tracks are stale and why, what rendering them takes, and where they go; touches nothing.\n\n"
    "acestep album plan harbour.yaml -o out"
)
@flags
def plan(
    ctx: typer.Context,
    file: AlbumFile,
    output: Folder = Path(),
    only: Only = None,
    *,
    song: dict[str, Any],
    run: RenderSettings,
) -> None:
    build(ctx, AlbumTask(file, output, only, song, replace(run, dry_run=True, explain=True)))


@app.command(
    name="render",
    help="Render the tracks that are stale, keep the others; what fails does not stop the rest.\n\n"
    "acestep album render harbour.yaml -o out\n\nacestep album render harbour.yaml -o out --only slack-water --explain",
)
@flags
def render_album(
    ctx: typer.Context,
    file: AlbumFile,
    output: Folder = Path(),
    only: Only = None,
    explain: Explain = False,
    dry_run: DryRun = False,
    depfile: Depfile = None,
    stamp: Stamp = None,
    no_cache: NoCache = False,
    jobs: Jobs = 1,
    on: On = None,
    *,
    song: dict[str, Any],
    run: RenderSettings,
) -> None:
    run = replace(run, dry_run=dry_run, explain=explain, cache=not no_cache)
    asked = AlbumTask(file, output, only, song, run, jobs=jobs, on=on, depfile=depfile, stamp=stamp)
    album_build = build(ctx, asked)
    if dry_run:
        return
    if depfile is not None:
        targets = [stamp] if stamp is not None else album_build.audio_paths()
        text = makefile.depfile_text([str(target) for target in targets], [str(file) for file in album_build.files()])
        makefile.write_file(depfile, text)
    if stamp is not None:
        makefile.touch_stamp(stamp)


@app.command(
    name="outputs",
    help="Print the files of an album, made or not, for other programs.\n\n"
    "acestep album outputs harbour.yaml -o out --format make > album.mk",
)
def list_outputs(
    ctx: typer.Context,
    file: AlbumFile,
    output: Folder = Path(),
    only: Only = None,
    format: OutputFormat = FORMATS[0],
    debug: options.Debug = False,
) -> None:
    if format not in FORMATS:
        raise UsageError(f"--format: {format!r} is not one of {', '.join(FORMATS)}.")
    album = read_album(file)
    there = [(track, track_paths(album, track, output)) for track in album.chosen(only or [])]
    files = [str(path) for _, paths in there for path in paths]
    if format == "make":
        print_result(makefile.variables({"TRACKS": [track.id for track, _ in there], "OUTPUTS": files}))
    elif format == "json":
        entries = [
            {
                "id": track.id,
                "outputs": [str(path) for path in paths],
                "inputs": [str(file) for file in dict.fromkeys((*album.files, *track.files))],
            }
            for track, paths in there
        ]
        print_result(json.dumps({"tracks": entries}) + "\n")
    else:
        print_result("".join(f"{file}\n" for file in files))


@dataclass(frozen=True)
class AlbumTask:
    """An album, and what a command is to do with it."""

    file: Path
    output: Path
    #: The ids of the tracks to make; None for all.
    only: Sequence[str] | None
    #: Flags over the keys of each track.
    song: dict[str, Any]
    run: RenderSettings
    #: Processes at the most, each on a card of its own.
    jobs: int = 1
    #: The cluster to make it on.
    on: str | None = None
    depfile: Path | None = None
    stamp: Path | None = None

    def open(self) -> Build:
        """Read the album, and return the build of its tracks."""
        album = read_album(self.file, spec_layers.from_flags(self.song, tuple(self.run.overrides or ())))
        return Build(album, album.chosen(self.only or []), self.output, self.run)


def build(ctx: typer.Context, asked: AlbumTask) -> Build:
    """Plan an album and, unless it is a dry run, make it. Raises one error for all failures."""
    run = asked.run
    if asked.output.suffix.removeprefix(".").lower() in encode.FORMATS:
        raise UsageError(f"--output {asked.output}: an album goes into a folder.")
    terminal = render_console(run)
    run_report = exit_codes.keep_report(ctx, terminal.warnings)
    if asked.on is not None:
        ray_cluster.check_backend(asked.on, run, asked.jobs)
    makefile.check_paths(asked.depfile, asked.stamp)
    with spec_text.reading_stdin(typing=not run.no_input):
        album_build = asked.open()
    for remark in album_build.album.remarks:
        terminal.warn(remark)
    stamps = [asked.stamp] if asked.stamp is not None else []
    makefile.refuse_files(asked.depfile, [*album_build.paths(), *stamps])
    if run.dry_run:
        preview(asked, album_build, run_report, terminal)
        return album_build
    with events.open_events(run.events, terminal.warn) as terminal.events:
        terminal.events.refuse_files(album_build.paths())
        problems = make(asked, album_build, run_report, terminal)
        perform.finish_report(run_report.outputs, terminal, problems)
    return album_build


def preview(asked: AlbumTask, album_build: Build, run_report: RunReport, terminal: Console) -> None:
    """Plan an album, on the cluster that is asked for, and say what a render would do."""
    cluster = ray_cluster.open_cluster(asked.run, terminal) if asked.on is not None else nullcontext()
    with terminal.results() as stdout, cluster as album_build.cluster:
        album_build.run_steps(terminal, stdout)
        preview_tracks(album_build, run_report, terminal, stdout)
        album_build.announce_plans(terminal)


def make(asked: AlbumTask, album_build: Build, run_report: RunReport, terminal: Console) -> list[AceStepError]:
    """Make an album on a cluster, in several processes or here; return the problems of tracks that could not begin."""
    if asked.on is not None:
        return make_on_cluster(album_build, run_report, terminal)
    devices = [card.name for card in gpu_lock.usable_cards(asked.run)] if asked.jobs > 1 else []
    shares = processes.share_tracks(album_build.tracks, min(asked.jobs, len(devices)))
    if len(shares) > 1:
        runs = [replace(asked.run, device=device, progress="none", events=None) for device in devices]
        return make_in_processes(
            [replace(asked, run=run, only=ids) for run, ids in zip(runs, shares, strict=False)], run_report
        )
    if asked.jobs > 1:
        terminal.say("There is no second card or track, so one process makes the album.")
    return make_here(album_build, run_report, terminal)


def make_here(album_build: Build, run_report: RunReport, terminal: Console) -> list[AceStepError]:
    """Make an album in this process, and return the problems of tracks that could not be begun."""
    with (
        terminal.results() as stdout,
        album_build.lock(terminal),
        gpu_lock.lock_card(album_build.run, terminal) as album_build.run,
    ):
        return run_build(album_build, run_report, terminal, stdout)


def make_on_cluster(album_build: Build, run_report: RunReport, terminal: Console) -> list[AceStepError]:
    """Make an album on a cluster, and return the problems of tracks that could not be begun."""
    with (
        terminal.results() as stdout,
        ray_cluster.open_cluster(album_build.run, terminal) as album_build.cluster,
        album_build.lock(terminal),
    ):
        return run_build(album_build, run_report, terminal, stdout)


def run_build(album_build: Build, run_report: RunReport, terminal: Console, stdout: Stdout) -> list[AceStepError]:
    """Make an album, note its files in the report even after a failure, and return the problems of tracks."""
    try:
        album_build.run_steps(terminal, stdout)
    finally:
        run_report.outputs = album_build.outputs()
    return album_build.problems()


def make_in_processes(shares: Iterable[AlbumTask], run_report: RunReport) -> list[AceStepError]:
    """Make an album in a process for each of its `shares`, and return the problems of tracks."""
    outcomes = processes.run_workers(make_share, [(share,) for share in shares])
    run_report.outputs = [output for outcome in outcomes for output in outcome.outputs]
    run_report.warnings += [
        warning for outcome in outcomes for warning in outcome.warnings if warning not in run_report.warnings
    ]
    return [result.as_error(problem) for outcome in outcomes for problem in outcome.problems]


def make_share(share: AlbumTask) -> processes.WorkerOutcome:
    """Make the share of one process."""
    terminal, run_report = render_console(share.run), RunReport()
    problems = make_here(share.open(), run_report, terminal)
    return processes.WorkerOutcome(
        outputs=run_report.outputs,
        problems=[result.describe_error(problem) for problem in problems],
        warnings=terminal.warnings,
    )


def preview_tracks(album_build: Build, run_report: RunReport, terminal: Console, stdout: Stdout) -> None:
    """Print for each track what a render would do and why; first for those that it would make."""
    run_report.outputs, run_report.more["tracks"] = album_build.outputs(), album_build.report()
    states = sorted(run_report.more["tracks"], key=lambda state: STATES.index(state["status"]))
    stale = sum(state["status"] == STALE for state in states)
    terminal.say(f"{stale} of {len(states)} tracks would be made")
    for state in states:
        reasons = f": {'; '.join(state['why'])}" if state["why"] else ""
        terminal.say(f"{state['id']}: {state['status']}{reasons}")
        if state["status"] != CURRENT:
            stdout.path(state["path"])
