"""`acestep train-lora`: trains an adapter on a folder of songs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from acestep_cli import disk
from acestep_cli.audio import decode
from acestep_cli.cli import auto_label, exit_codes, help_format, options, previews, songwriting, train_progress
from acestep_cli.cli.console import Console
from acestep_cli.cli.train_progress import StageTimes, TrainingRate
from acestep_cli.disk import format_size
from acestep_cli.errors import CheckpointError, ExistsError, OutputError, UsageError, shell_word
from acestep_cli.machine import hardware, history, plan_text
from acestep_cli.machine.memory import RUNTIME_BYTES
from acestep_cli.machine.plan import MachineRequest
from acestep_cli.models import checkpoints
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.models.sizes import Sizes
from acestep_cli.render import events
from acestep_cli.render.job import Job
from acestep_cli.render.result import RunReport
from acestep_cli.render.settings import RenderSettings
from acestep_cli.solvers import SHORTEST_FRAMES
from acestep_cli.song import spec_keys, spec_text
from acestep_cli.song.key import OUTPUT
from acestep_cli.training import config as training_config
from acestep_cli.training import dataset, metadata, run_folder
from acestep_cli.training.config import TrainingConfig
from acestep_cli.training.dataset import Dataset, Inspection
from acestep_cli.training.distributed import Distributed
from acestep_cli.training.example_files import missing_latents
from acestep_cli.training.plan import PastRuns, TrainingPlan, longest_example, plan_training
from acestep_cli.training.run_folder import RunRecord

app = help_format.App()

SONGS = "Songs"
#: The checkpoint on which an adapter is trained best: the base model, whose style is not set yet.
BEST_BASE = "base"
EXPORTS = ("comfyui", "diffusers")
#: Minutes from save to save, and steps from preview to preview.
SAVE_EVERY, PREVIEW_EVERY = 10, 500
#: In the table of songs: the longest name, and the least of a caption, in characters.
LONGEST_NAME, LEAST_CAPTION = 28, 16
#: What diffusers reads.
PLAIN = "lora"
#: Networks in the words of a forecast that a render does not have.
NETWORKS = {**plan_text.NETWORKS, "adapter": "adapter and optimiser"}

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", readable=False, help="The songs: 8 to 20 of one style.", show_default=False)
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FOLDER/", readable=False,
                 help="For the adapter, and what --resume needs.", rich_help_panel=OUTPUT),
]  # fmt: skip
Name = Annotated[
    str | None,
    typer.Option("--name", metavar="WORD", help="The trigger word, put before every caption.",
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
    typer.Option("--save-every", metavar="MINUTES", min=0.0, help=f"Time between saves; {SAVE_EVERY} unless set.",
                 rich_help_panel=OUTPUT, show_default=False),
]  # fmt: skip
Preview = Annotated[
    Path | None,
    typer.Option("--preview", metavar="SPEC", readable=False,
                 help="Render this spec during training, always with one seed.",
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
class TrainingFlags:
    """The flags of the command besides those of songs, training config and machine; None is a flag not given."""

    output: Output = None
    name: Name = None
    scan_only: ScanOnly = False
    skip_bad: SkipBad = False
    resume: Resume = False
    export: Export = None
    save_every: SaveEvery = None
    preview: Preview = None
    preview_every: PreviewEvery = None


@dataclass(frozen=True)
class PreparedRun:
    """A training run with everything decided. `is_new` is False for one that is resumed."""

    songs: Dataset
    found: Inspection
    record: RunRecord
    checkpoint: Checkpoint
    plan: TrainingPlan
    output: Path
    exports: tuple[tuple[str, Path], ...]
    preview: Job | None
    is_new: bool
    #: Seconds of the songs whose latents are yet to be made.
    seconds_to_encode: float


@app.command(
    help="Teach a model your own sound: find songs and their metadata, prepare them, train an adapter.\n\n"
    'acestep train-lora my-songs/ -o my-sound/ --name "harbour"\n\n'
    "acestep train-lora my-songs/ --scan-only\n\n"
    "acestep train-lora my-songs/ -o my-sound/ --resume\n\n"
    f"The metadata of song.flac is read from song.json, {LISTS} of its folder and those "
    f"around it, and {TEXTS}; the later wins. What cannot be read is left out and listed."
)
@options.flags(("model", "songwriter"), (*songwriting.FLAGS, "json", "events"))
@options.keyed(training_config.KEYS, "settings")
@options.grouped(TrainingFlags, "flags")
def train_lora(
    ctx: typer.Context,
    folder: Folder,
    flags: TrainingFlags,
    *,
    settings: dict[str, Any],
    song: dict[str, Any],
    run: RenderSettings,
) -> None:
    distributed = Distributed.from_environment()
    run = replace(run, device=distributed.device(run.device), quiet=run.quiet or not distributed.is_main)
    is_main = distributed.is_main
    terminal = Console(run.quiet, verbose=run.verbose, progress=run.progress, paths=is_main and not run.json)
    run_report = exit_codes.keep_report(ctx, terminal.warnings) if is_main else RunReport()  # one process prints
    with events.open_events(run.events if is_main else None, terminal.warn) as terminal.events:
        if flags.scan_only:
            refuse_idle(flags, settings)
            run_report.more["dataset"] = write_dataset(folder, flags.name, song, run, terminal)
        else:
            prepared = prepare_run(
                folder, flags, settings, asked=song, run=run, distributed=distributed, terminal=terminal
            )
            announce(prepared, terminal)
            run_report.more["training"] = train(prepared, flags, distributed, terminal)


def prepare_run(
    folder: Path,
    flags: TrainingFlags,
    settings: dict[str, Any],
    *,
    asked: dict[str, Any],
    run: RenderSettings,
    distributed: Distributed,
    terminal: Console,
) -> PreparedRun:
    """Read the songs of a folder, label them, and decide a new or resumed run. Raises all that can be refused.

    `asked` are the flags for the model and the Songwriter.
    """
    output = require_output(folder, flags)
    before = run_folder.require_resumable(output) if flags.resume else None
    config = training_config.config_from_flags(settings, None if before is None else before.config)
    training_config.require_libraries(config)
    distributed.passes_of(config.accumulation)
    exports = parse_exports(flags.export or [], output, config)
    require_usable_folder(output, before, exports, terminal)
    checkpoint = base_checkpoint(asked["model"], before, run)
    preview = None if flags.preview is None else previews.plan_preview(flags.preview, checkpoint.name, config.seed, run)
    songs = with_trigger(load_labelled(folder, output if flags.resume else None), flags.name)
    found = inspect_songs(songs, checkpoint, config, terminal)
    dataset.refuse_unusable(found, folder, skip=flags.skip_bad, warn=terminal.warn)
    eight_bits = before is None and settings["optimiser"] is None and training_config.has_eight_bits()
    plan = plan_run(config, songs, found, checkpoint, run, previews=preview is not None, eight_bits=eight_bits)
    config = config.model_copy(update={"optimiser": plan.optimiser})
    if before is None:
        with terminal.results():
            songs = auto_label.label_songs(songs, found, config.seed, asked, run, terminal)
    found = found.with_labels(songs)
    for remark in found.remarks:
        terminal.warn(remark)
    dataset.refuse_unusable(found, folder, skip=flags.skip_bad, warn=terminal.warn)
    return PreparedRun(
        songs=songs,
        found=found,
        record=make_record(before, config, songs, found, checkpoint, plan),
        checkpoint=checkpoint,
        plan=plan,
        output=output,
        exports=exports,
        preview=preview,
        is_new=before is None,
        seconds_to_encode=seconds_to_encode(found, checkpoint, config, plan),
    )


def require_output(folder: Path, flags: TrainingFlags) -> Path:
    """Return the folder to train into. Raises `UsageError` where it is missing, or a flag lacks another one."""
    if flags.output is None:
        raise UsageError(
            "There is no folder to train into.",
            f"acestep train-lora {folder} -o my-sound/; --scan-only trains nothing.",
        )
    if flags.preview is None and flags.preview_every is not None:
        raise UsageError("--preview-every says how often --preview renders, which is not given.", "Add --preview SPEC.")
    return flags.output


def require_usable_folder(
    output: Path, before: RunRecord | None, exports: tuple[tuple[str, Path], ...], terminal: Console
) -> None:
    """Refuse a folder that is not empty; for a resumed run, one that has ended or is damaged."""
    files = [path for _, path in exports]
    if before is None:
        run_folder.require_empty(output, files)
    else:
        run_folder.require_work(output, before, files)
        if remark := run_folder.require_undamaged(output):
            terminal.warn(remark)


def inspect_songs(songs: Dataset, checkpoint: Checkpoint, config: TrainingConfig, terminal: Console) -> Inspection:
    """Return the songs that are long enough and can be read, and the problems of the others."""
    sizes = Sizes.of(checkpoint)
    shortest = max(checkpoint.row.shortest_seconds, SHORTEST_FRAMES * sizes.vae.hop / sizes.vae.sampling_rate)
    for line in map(str, songs.left_out):
        terminal.warn(line)
    with terminal.progress() as report:
        return dataset.inspect_songs(songs, shortest, config.crop, partial(report, "scan"))


def train(prepared: PreparedRun, flags: TrainingFlags, distributed: Distributed, terminal: Console) -> dict[str, Any]:
    """Train or resume a prepared run, print its files, and return its report for `--json`."""
    plan, output, record = prepared.plan, prepared.output, prepared.record
    files = [path for _, path in prepared.exports]
    distributed.barrier()  # no process reads the folder any more once the main one writes to it
    with run_folder.lock_folder(output) if distributed.is_main else nullcontext():
        if prepared.is_new and distributed.is_main:  # another run may have started meanwhile
            run_folder.require_empty(output, files)
        with terminal.results() as stdout, terminal.progress(partial(hardware.used_bytes, plan.device)) as report:
            report("libraries", 0, 1)
            from acestep_cli.training import loop  # loads torch: no refusal above waits for that

            preview = None
            if prepared.preview is not None:
                preview = partial(previews.render_preview, prepared.preview, plan, output, terminal)
            job = loop.TrainingJob(
                dataset=prepared.songs,
                songs=prepared.found.usable,
                record=record,
                checkpoint=prepared.checkpoint,
                plan=plan,
                folder=output,
                exports=prepared.exports,
                save_every=60 * (SAVE_EVERY if flags.save_every is None else flags.save_every),
                preview=preview,
                preview_every=flags.preview_every or PREVIEW_EVERY,
                distributed=distributed,
            )
            rate, times, began = TrainingRate(record.config.steps, terminal), StageTimes(report), time.monotonic()
            adapter_folder = loop.train(job, times, terminal.say, terminal.warn, rate)
            if distributed.is_main:
                train_progress.record_speed(plan, prepared.checkpoint.name, prepared.seconds_to_encode, times, rate)
            stdout.path(f"{adapter_folder}/")
            for path in files:
                stdout.path(path)
        caption = f"{prepared.songs.trigger}, …" if prepared.songs.trigger else "…"
        terminal.hint(f"Next: acestep generate -c {shell_word(caption)} --lora {shell_word(adapter_folder)}")
    return {
        "path": str(adapter_folder),
        "base": record.base,
        "songs": len(prepared.found.usable),
        "left_out": [one.report() for one in prepared.songs.left_out],
        "steps": record.config.steps,
        "loss": rate.loss,
        "exports": [{"format": format, "path": str(path)} for format, path in prepared.exports],
        "seconds": round(time.monotonic() - began, 3),
    }


def load_labelled(folder: Path, output: Path | None) -> Dataset:
    """Return the songs of a folder with their labels; a run that is resumed has them in `output`."""
    found = dataset.load_dataset(folder)
    kept = output / dataset.DATASET_FILE if output is not None else None
    if kept is not None and kept.is_file():
        found = found.with_labels_of(dataset.parse_dataset(spec_text.read_text(str(kept)), folder))
    return found


def with_trigger(songs: Dataset, name: str | None) -> Dataset:
    """Return the songs with the trigger word of `--name`, if any."""
    if name is None:
        return songs
    try:
        return replace(songs, trigger=dataset.SETTINGS["trigger"].read(name))
    except ValueError as error:
        raise UsageError(f"--name: {error}.") from error


def refuse_idle(flags: TrainingFlags, settings: dict[str, Any]) -> None:
    """Raise `UsageError` for flags that have no use where nothing is trained."""
    idle = ("output", "skip_bad", "resume", "export", "save_every", "preview", "preview_every")
    values = {name: getattr(flags, name) for name in idle} | settings
    given = [
        spec_keys.flag_of(name)
        for name, value in values.items()
        if value is not None and value is not False and value != []
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
    with terminal.progress() as report:
        found = dataset.inspect_songs(songs, decode.SHORTEST_READ, decode.LONGEST_READ, partial(report, "scan"))
    with terminal.results() as stdout:
        songs = auto_label.label_songs(songs, found, training_config.DEFAULT_SEED, asked, run, terminal)
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
        for line in table(songs, terminal.width):
            terminal.say(line)
        stdout.path(path)
    return {"path": str(path), "songs": len(songs.songs), "left_out": [one.report() for one in songs.left_out]}


def table(songs: Dataset, width: int) -> Iterator[str]:
    """Yield the lines of a table of songs: the known keys of each, the keys that were left out, if any were, and last
    the caption, as much of it as a line of `width` columns holds.
    """
    keys = [key for key in metadata.KEYS if key not in ("caption", "lyrics", "instrumental")]
    heads = {"time_signature": "meter"}
    columns = {"song": [shortened(song.name, LONGEST_NAME) for song in songs.songs]}
    columns |= {heads.get(key, key): [str(getattr(song.request, key) or "-") for song in songs.songs] for key in keys}
    columns["words"] = [str(len(song.request.lyrics.split())) if song.request.lyrics else "-" for song in songs.songs]
    if songs.left_out:
        columns["left out"] = [
            ", ".join(dict.fromkeys(one.key or "a part" for one in songs.left_out if one.song == song.name)) or "-"
            for song in songs.songs
        ]
    widths = {name: max(map(len, (name, *cells))) for name, cells in columns.items()}
    room = max(width - sum(widths.values()) - 2 * len(widths), LEAST_CAPTION)
    captions = ["caption", *(shortened(song.request.caption or "-", room) for song in songs.songs)]
    for row, caption in zip(
        zip(*([name, *cells] for name, cells in columns.items()), strict=True), captions, strict=True
    ):
        yield "  ".join([*(cell.ljust(wide) for cell, wide in zip(row, widths.values(), strict=True)), caption])


def shortened(text: str, most: int) -> str:
    """Return `text` on one line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def parse_exports(asked: list[str], output: Path, config: TrainingConfig) -> tuple[tuple[str, Path], ...]:
    """Return the formats and files of `--export`. Raises `UsageError` for what no other program reads."""
    for name in asked:
        if name not in EXPORTS:
            raise UsageError(f"--export {name}: is not one of {', '.join(EXPORTS)}.")
        if name == "diffusers" and config.type != PLAIN:
            raise UsageError(f"--export diffusers: diffusers does not read a {config.type}.", "--export comfyui does.")
    return tuple((name, output / f"{output.absolute().name}-{name}.safetensors") for name in dict.fromkeys(asked))


def base_checkpoint(model: str | None, before: RunRecord | None, run: RenderSettings) -> Checkpoint:
    """Return the checkpoint to train on: that of the resumed run, else `--model`, else base where it is installed."""
    if before is not None and model not in (None, "auto", before.base):
        raise UsageError(f"--resume: the run was begun on {before.base}, not {model}.", "Leave --model out to go on.")
    wanted = before.base if before is not None else model or "auto"
    if wanted == "auto" and checkpoints.dit_folder(BEST_BASE, run.models_dir):
        wanted = BEST_BASE
    found = checkpoints.find_checkpoint(wanted, run.models_dir)
    if before is not None and found.weights_hash != before.base_weights:
        raise CheckpointError(
            f"The weights of {found.name} differ from those that the run began with.",
            "Train into another --output.",
        )
    return found


def plan_run(
    config: TrainingConfig,
    songs: Dataset,
    found: Inspection,
    checkpoint: Checkpoint,
    run: RenderSettings,
    *,
    previews: bool,
    eight_bits: bool,
) -> TrainingPlan:
    """Return the plan of training on these songs on this machine. Raises the errors of `plan_training`."""
    longest = min(max(usable.facts.seconds for usable in found.usable), config.crop)
    words = [songs.prompts(usable.song, longest) for usable in found.usable]
    sizes, past = Sizes.of(checkpoint), history.read_history()
    asked = MachineRequest(run.device, run.dtype, run.max_vram)
    return plan_training(
        hardware.detect(),
        config,
        asked,
        sizes,
        longest_example(sizes, longest, words),
        lambda device, dtype: PastRuns(
            *(
                history.recall_renders(past, device, f"{checkpoint.name} {task}", dtype, longest, run.max_vram)
                for task in (train_progress.TRAINING, "generate")
            )
        ),
        previews=previews,
        eight_bits=eight_bits,
    )


def seconds_to_encode(found: Inspection, checkpoint: Checkpoint, config: TrainingConfig, plan: TrainingPlan) -> float:
    """Return the seconds of the songs whose latents are yet to be made."""
    reference = Sizes.of(checkpoint).dit.timbre_fix_frame if config.timbre == "own" else 0
    return sum(usable.facts.seconds for usable, _ in missing_latents(found.usable, checkpoint, plan, reference))


def make_record(
    before: RunRecord | None,
    config: TrainingConfig,
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
            base_weights=checkpoint.weights_hash,
            config=config,
            trigger=songs.trigger,
            trigger_position=songs.trigger_position,
            dataset=dataset.dataset_fingerprint(prints),
            songs=prints,
            dtype=plan.arrangement.weight_storage,
        )
    if other := dataset.describe_changes(prints, before.songs):
        raise UsageError(
            f"--resume: the songs are not those that the run began with: {other}.", "Train into another --output."
        )
    if plan.arrangement.weight_storage != before.dtype:
        raise UsageError(
            f"--resume: the run began with {before.dtype} weights, and here they would be "
            f"{plan.arrangement.weight_storage}.",
            "Go on on the same device, or with its --dtype and --max-vram.",
        )
    return before


def announce(prepared: PreparedRun, terminal: Console) -> None:
    """Print the songs and settings of the run, the memory it takes, and its estimated time."""
    plan, record, songs = prepared.plan, prepared.record, len(prepared.found.usable)
    config = record.config
    begun = f", going on after step {record.step}" if record.step else ""
    terminal.say(
        f"Training a {config.type} of rank {config.rank} on {record.base} with {songs} song{'s' * (songs > 1)}: "
        f"{config.steps} steps{begun}"
    )
    terminal.say(
        f"{plan.device} ({plan.reasons['device']}), {plan.dtype} ({plan.reasons['dtype']}); about "
        f"{format_size(plan.peak_bytes)} of "
        f"{format_size((plan.budget_bytes or 0) + RUNTIME_BYTES[plan.backend])}"
    )
    for stage in plan.stages:
        resident = ", ".join(f"{NETWORKS[name]} {format_size(size)}" for name, size in stage.resident.items())
        terminal.detail(f"  {stage.name}: {resident}; work {format_size(stage.working)}")
    if plan.checkpointed:
        terminal.say(f"Activations are computed again in the backward pass: {plan.reasons['checkpointed']}")
    if plan.int8:
        terminal.say(f"{plan_text.SETTINGS['int8']}: {plan.reasons['int8']}")
    if plan.optimiser == "adamw8bit":
        terminal.say(f"The optimiser keeps its state in eight bits, with {training_config.EIGHT_BITS}")
    share_left = 1 - record.step / config.steps
    terminal.say(train_progress.time_sentence(plan, prepared.seconds_to_encode, share_left))
