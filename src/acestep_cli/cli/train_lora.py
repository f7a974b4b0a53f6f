"""`acestep train-lora`: a folder of songs becomes an adapter, which gives a model their sound."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acestep_cli import disk
from acestep_cli.audio import decode
from acestep_cli.cli import auto_label, exit_codes, options, previews, songwriting
from acestep_cli.cli.console import Console
from acestep_cli.cli.train_progress import TrainingRate
from acestep_cli.disk import format_size
from acestep_cli.errors import CheckpointError, ExistsError, OutputError, UsageError
from acestep_cli.machine import hardware, history, plan_text
from acestep_cli.machine import plan as planning
from acestep_cli.models import checkpoints
from acestep_cli.models.checkpoints import Checkpoint
from acestep_cli.models.sizes import Sizes
from acestep_cli.render import events
from acestep_cli.render.result import RunReport
from acestep_cli.render.settings import RenderSettings
from acestep_cli.solvers import SHORTEST_FRAMES
from acestep_cli.song import spec
from acestep_cli.song.request import OUTPUT
from acestep_cli.training import config as courses
from acestep_cli.training import dataset, metadata, run_folder
from acestep_cli.training import plan as workload
from acestep_cli.training.config import TrainingConfig
from acestep_cli.training.dataset import Dataset, Inspection
from acestep_cli.training.distributed import Distributed
from acestep_cli.training.plan import TrainingPlan
from acestep_cli.training.run_folder import RunRecord

if TYPE_CHECKING:
    from acestep_cli.training.loop import TrainingJob

app = typer.Typer(add_completion=False)

SONGS = "Songs"
#: Where an adapter is learnt best: the base model, whose style is not set yet.
BEST_BASE = "base"
EXPORTS = ("comfyui", "diffusers")
#: Minutes from save to save, and steps from preview to preview.
SAVE_EVERY, PREVIEW_EVERY = 10, 500
#: What diffusers reads.
PLAIN = "lora"
#: Networks in the words of a forecast that a render does not have.
NETWORKS = {**plan_text.NETWORKS, "adapter": "adapter and optimiser"}

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", readable=False, help="The songs: 8 to 20 of one style.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FOLDER/", readable=False, help="The adapter, and all that going on needs.",
                 rich_help_panel=OUTPUT),
]  # fmt: skip
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="WORD", help="The word that calls up the sound, put before every caption.",
                 rich_help_panel=SONGS),
]  # fmt: skip
ScanOnly = Annotated[
    bool,
    options.switch("--scan-only", help=f"Write FOLDER/{dataset.DATASET_FILE}, to be reviewed and edited, and end.",
                   panel=SONGS),
]  # fmt: skip
SkipBad = Annotated[bool, options.switch("--skip-bad", help="Leave out songs that cannot be trained on.", panel=SONGS)]
Resume = Annotated[
    bool, options.switch("--resume", help="Go on exactly where the run in --output stopped.", panel=OUTPUT)
]
Export = Annotated[
    list[str] | None,
    typer.Option("--export", metavar="|".join(EXPORTS), help="A single file for another program as well; repeatable.",
                 rich_help_panel=OUTPUT, autocompletion=options.complete_from(EXPORTS)),
]  # fmt: skip
SaveEvery = Annotated[
    float | None,
    typer.Option("--save-every", metavar="MINUTES", min=0.0, help=f"Save all this often; {SAVE_EVERY} unless set.",
                 rich_help_panel=OUTPUT, show_default=False),
]  # fmt: skip
Preview = Annotated[
    Path | None,
    typer.Option("--preview", metavar="SPEC", readable=False,
                 help="Render this spec between steps, always with one seed.",
                 rich_help_panel=OUTPUT, autocompletion=options.complete_specs),
]  # fmt: skip
PreviewEvery = Annotated[
    int | None,
    typer.Option("--preview-every", metavar="STEPS", min=1, help=f"How often; every {PREVIEW_EVERY} steps unless set.",
                 rich_help_panel=OUTPUT, show_default=False),
]  # fmt: skip

#: Which files tell of songs, in the order in which the later ones win; for `--help`.
LISTS = ", ".join(f"*{suffix}" for suffix in metadata.TABLE_SUFFIXES)
TEXTS = ", ".join(f"song{suffix}" for suffix in metadata.READERS if suffix != ".json")


@dataclass(frozen=True)
class TrainingTask:
    """The flags of a training run besides those of songs, config and machine; None is a flag not given."""

    output: Path | None
    name: str | None
    skip_bad: bool
    resume: bool
    export: list[str] | None
    save_every: float | None
    preview: Path | None
    preview_every: int | None
    team: Distributed
    terminal: Console


@app.command(
    help="Teach a model your own sound: find songs and what is said of them, prepare them, train an adapter.\n\n"
    'acestep train-lora my-songs/ -o my-sound/ --name "harbour"\n\n'
    "acestep train-lora my-songs/ --scan-only\n\n"
    "acestep train-lora my-songs/ -o my-sound/ --resume\n\n"
    f"What is said of song.flac is read, the later over the earlier, from song.json, {LISTS} of its folder and those "
    f"around it, and {TEXTS}. What cannot be read is left out and listed."
)
@options.flags(("model", "songwriter"), (*songwriting.FLAGS, "json", "events"))
@options.keyed(courses.KEYS, "settings")
def train_lora(
    ctx: typer.Context,
    folder: Folder,
    output: Output = None,
    name: Name = None,
    scan_only: ScanOnly = False,
    skip_bad: SkipBad = False,
    resume: Resume = False,
    export: Export = None,
    save_every: SaveEvery = None,
    preview: Preview = None,
    preview_every: PreviewEvery = None,
    *,
    settings: dict[str, Any],
    song: dict[str, Any],
    run: RenderSettings,
) -> None:
    team = Distributed.from_environment()
    run = replace(run, device=team.device(run.device), quiet=run.quiet or not team.is_main)
    terminal = Console(run.quiet, verbose=run.verbose, progress=run.progress, paths=team.is_main and not run.json)
    ledger = exit_codes.keep_ledger(ctx, terminal.warnings) if team.is_main else RunReport()  # one of them speaks
    task = TrainingTask(output, name, skip_bad, resume, export, save_every, preview, preview_every, team, terminal)
    with events.open_events(run.events if team.is_main else None, terminal.warn) as terminal.events:
        if scan_only:
            refuse_idle(task, settings)
            ledger.more["dataset"] = write_dataset(folder, name, song, run, terminal)
        else:
            ledger.more["training"] = run_training(folder, task, settings, song, run)


def run_training(
    folder: Path, task: TrainingTask, settings: dict[str, Any], asked: dict[str, Any], run: RenderSettings
) -> dict[str, Any]:
    """Train an adapter on the songs of a folder, or resume it; return its report for `--json`."""
    terminal, output = task.terminal, task.output
    if output is None:
        raise UsageError(
            "There is no folder to train into.",
            f"acestep train-lora {folder} -o my-sound/; --scan-only trains nothing.",
        )
    if task.preview is None and task.preview_every is not None:
        raise UsageError("--preview-every says how often --preview renders, which is not given.", "Add --preview SPEC.")
    before = run_folder.require_resumable(output) if task.resume else None
    course = courses.config_from_flags(settings, None if before is None else before.course)
    courses.require_libraries(course)
    task.team.passes_of(course.accumulation)
    exports = parse_exports(task.export or [], output, course)
    files = [path for _, path in exports]
    if before is None:
        run_folder.require_empty(output, files)
    else:
        run_folder.require_work(output, before, files)
        if remark := run_folder.require_undamaged(output):
            terminal.warn(remark)
    checkpoint = base_checkpoint(asked["model"], before, run)
    rendering = None if task.preview is None else previews.plan_preview(task.preview, checkpoint.name, course.seed, run)
    songs = with_trigger(load_labelled(folder, output if task.resume else None), task.name)
    sizes = Sizes.of(checkpoint)
    shortest = max(checkpoint.row.shortest_seconds, SHORTEST_FRAMES * sizes.vae.hop / sizes.vae.sampling_rate)
    for line in map(str, songs.left_out):
        terminal.warn(line)
    with terminal.progress(lambda: 0) as report:
        found = dataset.inspect_songs(songs, shortest, course.crop, partial(report, "scan"))
    dataset.refuse_unusable(found, folder, skip=task.skip_bad, warn=terminal.warn)
    eight_bits = before is None and settings["optimiser"] is None and courses.has_eight_bits()
    plan = plan_run(course, songs, found, checkpoint, run, previews=task.preview is not None, eight_bits=eight_bits)
    course = course.model_copy(update={"optimiser": plan.optimiser})
    if before is None:
        with terminal.results():
            songs = auto_label.label_songs(songs, found, course.seed, asked, run, terminal)
    found = found.with_labels(songs)
    for remark in found.remarks:
        terminal.warn(remark)
    dataset.refuse_unusable(found, folder, skip=task.skip_bad, warn=terminal.warn)
    record = make_record(before, course, songs, found, checkpoint, plan)
    announce(plan, record, len(found.usable), terminal)
    task.team.barrier()  # none looks into the folder any more once the first of them writes there
    with run_folder.lock_folder(output) if task.team.is_main else nullcontext():
        if before is None and task.team.is_main:  # another run may have been here meanwhile
            run_folder.require_empty(output, files)
        with terminal.results() as stdout, terminal.progress(partial(hardware.used_bytes, plan.device)) as report:
            from acestep_cli.training import loop  # loads torch: no refusal above waits for that

            show = None if rendering is None else partial(previews.render_preview, rendering, plan, output, terminal)
            job: TrainingJob = loop.TrainingJob(
                songs,
                found.usable,
                record,
                checkpoint,
                plan,
                output,
                exports,
                60 * (SAVE_EVERY if task.save_every is None else task.save_every),
                show,
                task.preview_every or PREVIEW_EVERY,
                task.team,
            )
            pace, began = TrainingRate(course.steps, terminal), time.monotonic()
            made = loop.train(job, report, terminal.say, terminal.warn, pace)
            stdout.path(f"{made}/")
            for path in files:
                stdout.path(path)
    return {
        "path": str(made),
        "base": record.base,
        "songs": len(found.usable),
        "left_out": [one.report() for one in songs.left_out],
        "steps": course.steps,
        "loss": pace.loss,
        "exports": [{"format": format, "path": str(path)} for format, path in exports],
        "seconds": round(time.monotonic() - began, 3),
    }


def load_labelled(folder: Path, output: Path | None) -> Dataset:
    """Return the songs of a folder with their labels; a run that is resumed has them in `output`."""
    found = dataset.load_dataset(folder)
    kept = output / dataset.DATASET_FILE if output is not None else None
    if kept is not None and kept.is_file():
        found = found.with_labels_of(dataset.parse_dataset(spec.read_text(str(kept)), folder))
    return found


def with_trigger(songs: Dataset, name: str | None) -> Dataset:
    """Return the songs with the trigger word of `--name`, if any."""
    if name is None:
        return songs
    try:
        return replace(songs, trigger=dataset.SETTINGS["trigger"].read(name))
    except ValueError as error:
        raise UsageError(f"--name: {error}.") from error


def refuse_idle(task: TrainingTask, settings: dict[str, Any]) -> None:
    """Raise `UsageError` for flags that have no use where nothing is trained."""
    idle = ("output", "skip_bad", "resume", "export", "save_every", "preview", "preview_every")
    flags = {name: getattr(task, name) for name in idle} | settings
    given = [
        spec.flag_of(name) for name, value in flags.items() if value is not None and value is not False and value != []
    ]
    if given:
        raise UsageError(
            f"--scan-only trains nothing, so it has no use for {', '.join(given)}.", "Leave --scan-only out to train."
        )


def write_dataset(
    folder: Path, name: str | None, asked: dict[str, Any], run: RenderSettings, terminal: Console
) -> dict[str, Any]:
    """Write the `dataset.yaml` of a folder, warn about its problems, and return its report for `--json`."""
    path = folder / dataset.DATASET_FILE
    dataset.audio_files(folder)  # which says whether there are any, before whether a file can be written beside them
    if disk.is_taken(path) and not run.force:
        raise ExistsError(path, hint="--force scans again; what lies beside the songs then wins over what is in it.")
    songs = with_trigger(dataset.rescan_folder(folder) if disk.is_taken(path) else dataset.scan_folder(folder), name)
    with terminal.progress(lambda: 0) as report:
        found = dataset.inspect_songs(songs, decode.SHORTEST_READ, decode.LONGEST_READ, partial(report, "scan"))
    with terminal.results() as stdout:
        songs = auto_label.label_songs(songs, found, courses.DEFAULT_SEED, asked, run, terminal)
        found = found.with_labels(songs)
        for line in (*map(str, songs.left_out), *found.remarks, *(problem.message for problem in found.problems)):
            terminal.warn(line)
        try:
            with disk.write_whole(path, replace=[path] if disk.is_taken(path) else []) as [part]:
                disk.write_text(part, songs.dump())
        except ExistsError:
            raise
        except OutputError as error:  # whose hint is a flag that a scan has not
            raise OutputError(
                error.message, f"It is written beside the songs; copy {folder} to where you may write."
            ) from error
        for line in table(songs):
            terminal.say(line)
        stdout.path(path)
    return {"path": str(path), "songs": len(songs.songs), "left_out": [one.report() for one in songs.left_out]}


def table(songs: Dataset) -> Iterator[str]:
    """Yield the lines of a table of songs: the known keys of each, and the keys that were left out."""
    keys = [key for key in metadata.KEYS if key not in ("caption", "lyrics", "instrumental")]
    rows = [("song", *keys, "words", "caption", "left out")]
    for song in songs.songs:
        said = [str(getattr(song.request, key) or "-") for key in keys]
        words = f"{len(song.request.lyrics.split())}" if song.request.lyrics else "-"
        gone = ", ".join(dict.fromkeys(one.key or "a file" for one in songs.left_out if one.song == song.name))
        rows.append((song.name, *said, words, shortened(song.request.caption or "-"), gone or "-"))
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def shortened(text: str, most: int = 40) -> str:
    """Return `text` on one line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def parse_exports(asked: list[str], output: Path, course: TrainingConfig) -> tuple[tuple[str, Path], ...]:
    """Return the formats and files of `--export`. Raises `UsageError` for what no other program reads."""
    for name in asked:
        if name not in EXPORTS:
            raise UsageError(f"--export {name}: is not one of {', '.join(EXPORTS)}.")
        if name == "diffusers" and course.type != PLAIN:
            raise UsageError(f"--export diffusers: diffusers does not read a {course.type}.", "--export comfyui does.")
    return tuple((name, output / f"{output.absolute().name}-{name}.safetensors") for name in dict.fromkeys(asked))


def base_checkpoint(model: str | None, before: RunRecord | None, run: RenderSettings) -> Checkpoint:
    """Return the checkpoint to train on: that of the resumed run, else `--model`, else base where it is installed."""
    if before is not None and model not in (None, "auto", before.base):
        raise UsageError(f"--resume: the run was begun on {before.base}, not {model}.", "Leave --model out to go on.")
    wanted = before.base if before is not None else model or "auto"
    if wanted == "auto" and checkpoints.dit_folder(BEST_BASE, run.models_dir):
        wanted = BEST_BASE
    found = checkpoints.find_checkpoint(wanted, run.models_dir)
    if before is not None and found.weights_hash() != before.base_weights:
        raise CheckpointError(
            f"The weights of {found.name} are others than those that the run was begun on.",
            "Train into another --output.",
        )
    return found


def plan_run(
    course: TrainingConfig,
    songs: Dataset,
    found: Inspection,
    checkpoint: Checkpoint,
    run: RenderSettings,
    *,
    previews: bool,
    eight_bits: bool,
) -> TrainingPlan:
    """Return the plan of training on these songs on this machine. Raises the errors of `plan_training`."""
    longest = min(max(lesson.facts.seconds for lesson in found.usable), course.crop)
    words = [songs.prompts(lesson.song, longest) for lesson in found.usable]
    sizes, book = Sizes.of(checkpoint), history.read_history()
    asked = planning.MachineRequest(run.device, run.dtype, run.max_vram)
    return workload.plan_training(
        hardware.detect(),
        course,
        asked,
        sizes,
        workload.longest_example(sizes, longest, words),
        lambda device, dtype: history.recall_experience(
            book, device, f"{checkpoint.name} generate", dtype, longest, run.max_vram
        ),
        previews=previews,
        eight_bits=eight_bits,
    )


def make_record(
    before: RunRecord | None,
    course: TrainingConfig,
    songs: Dataset,
    found: Inspection,
    checkpoint: Checkpoint,
    plan: TrainingPlan,
) -> RunRecord:
    """Return the record that is saved with the run. Raises `UsageError` where a resumed run began differently."""
    prints = dataset.fingerprints(songs, found.usable)
    if before is None:
        return RunRecord(
            base=checkpoint.name,
            base_weights=checkpoint.weights_hash(),
            course=course,
            trigger=songs.trigger,
            trigger_position=songs.trigger_position,
            dataset=dataset.dataset_fingerprint(prints),
            songs=prints,
            dtype=plan.arrangement.weights,
        )
    if other := dataset.describe_changes(prints, before.songs):
        raise UsageError(
            f"--resume: the songs are not those that the run began with: {other}.", "Train into another --output."
        )
    if plan.arrangement.weights != before.dtype:
        raise UsageError(
            f"--resume: the run began with {before.dtype} weights, and here they would be {plan.arrangement.weights}.",
            "Go on on the same device, or with its --dtype and --max-vram.",
        )
    return before


def announce(plan: TrainingPlan, record: RunRecord, songs: int, terminal: Console) -> None:
    """Print the songs and settings of the run, the memory it takes, and its estimated time."""
    course = record.course
    begun = f", going on after step {record.step}" if record.step else ""
    terminal.say(
        f"Training a {course.type} of rank {course.rank} on {record.base} with {songs} song{'s' * (songs > 1)}: "
        f"{course.steps} steps{begun}"
    )
    terminal.say(
        f"{plan.device} ({plan.reasons['device']}), {plan.dtype} ({plan.reasons['dtype']}); about "
        f"{format_size(plan.peak_bytes)} of "
        f"{format_size((plan.budget_bytes or 0) + planning.RUNTIME_BYTES[plan.backend])}"
    )
    for stage in plan.stages:
        resident = ", ".join(f"{NETWORKS[name]} {format_size(size)}" for name, size in stage.resident.items())
        terminal.detail(f"  {stage.name}: {resident}; work {format_size(stage.working)}")
    if plan.checkpointed:
        terminal.say(f"Layers are computed again on the way back: {plan.reasons['checkpointed']}")
    if plan.int8:
        terminal.say(f"{plan_text.SETTINGS['int8']}: {plan.reasons['int8']}")
    if plan.optimiser == "adamw8bit":
        terminal.say(f"The optimiser keeps its state in eight bits, with {courses.EIGHT_BITS}")
    if plan.seconds is None:
        terminal.say("Time: the first steps will tell; no render has shown yet how fast this machine is.")
    else:
        left = plan.seconds * (1 - record.step / course.steps)
        terminal.say(
            f"Time: {plan_text.format_seconds(left)} for the steps at the least, by the speed of renders; "
            "the first will tell."
        )
