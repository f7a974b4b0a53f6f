"""`acestep models`: fetch checkpoints and Songwriters, see which are there, verify them, clear what is left over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from acestep_cli import disk
from acestep_cli.cli import console, help_format, options
from acestep_cli.errors import CheckpointError, OutputError, UsageError, reason_of
from acestep_cli.models import checkpoint_table, checkpoints, local, model_store
from acestep_cli.models.hub import Hub
from acestep_cli.models.local import ModelState
from acestep_cli.models.manifest import expected_manifest, verify_files
from acestep_cli.render import fetch
from acestep_cli.song import values

NAMES = (*checkpoint_table.CHECKPOINTS, *checkpoint_table.SONGWRITERS)
_name = options.complete_from(NAMES)
#: The hubs that publish the models, the first unless another is asked for.
HUBS = ("huggingface", "modelscope")

app = help_format.App(no_args_is_help=True, help="Fetch checkpoints, and see which are there.")


Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME",
        help=f"{', '.join(NAMES[:2])} … {NAMES[-1]}; `acestep models list`.",
        autocompletion=_name,
    ),
]
PullNames = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="As `acestep models list`.", autocompletion=_name)
]
SongwriterNames = Annotated[
    list[str] | None,
    typer.Option(
        "--songwriter",
        metavar="|".join(checkpoint_table.SONGWRITERS),
        help="A Songwriter as well; repeatable.",
        autocompletion=options.complete_from(checkpoint_table.SONGWRITERS),
    ),
]
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="COMMIT|TAG", help="Revision to fetch. Unset: the newest.")
]
HubName = Annotated[
    str,
    typer.Option(
        "--hub",
        metavar="|".join(HUBS),
        help="Where to fetch from.",
        autocompletion=options.complete_from(HUBS),
    ),
]
Force = Annotated[
    bool, typer.Option("--force", metavar="", help="Check the files there again, and replace those that differ.")
]
Yes = Annotated[bool, typer.Option("--yes", metavar="", help="Delete what is listed.")]


def open_hub(name: str) -> Hub:
    """Return the hub called `name`. Raises `UsageError` for an unknown one, and `NetworkError` without its library."""
    if name not in HUBS:
        raise UsageError(f"--hub: {values.quoted(name)} is not one of {', '.join(HUBS)}.")
    if name == HUBS[0]:
        from acestep_cli.models.hugging_face import HuggingFace

        return HuggingFace()
    from acestep_cli.models.model_scope import ModelScope

    return ModelScope()


def check_names(names: list[str], among: tuple[str, ...] = NAMES) -> list[str]:
    """Return the names, each once. Raises `UsageError` for an unknown name."""
    for name in names:
        if name not in among:
            raise UsageError(
                f"There is no model named {name!r}{values.suggestion(name, among) or '.'}",
                f"Names: {', '.join(among)}.",
            )
    return list(dict.fromkeys(names))


@app.command(
    help="Fetch models from the Hugging Face hub into its cache or --models-dir, verified; a cut download goes on "
    "where it stopped.\n\nacestep models pull turbo\n\nacestep models pull base --songwriter 1.7B"
)
def pull(
    ctx: typer.Context,
    names: PullNames = None,
    songwriter: SongwriterNames = None,
    revision: Revision = None,
    hub: HubName = HUBS[0],
    force: Force = False,
    models_dir: options.ModelsDir = None,
    json_wanted: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    terminal, run_report = console.begin(ctx, quiet=quiet, wants_json=json_wanted)
    wanted = [*check_names(names or []), *check_names(songwriter or [], tuple(checkpoint_table.SONGWRITERS))]
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        raise UsageError("There is no model to pull.", f"acestep models pull turbo; names: {', '.join(NAMES)}.")
    source = open_hub(hub)
    parts = list(dict.fromkeys(part for name in wanted for part in checkpoint_table.model_parts(name)))
    with terminal.results() as stdout:
        if checkpoint_table.BUILT_IN in wanted:
            terminal.say(f"{checkpoint_table.BUILT_IN} comes with the program.")
        pulled = fetch.pull_parts(parts, models_dir, terminal, revision, again=force, hub=source) if parts else []
        states = [local.model_state(name, models_dir) for name in wanted]
        run_report.more["models"] = [state.report() for state in states]
        for state in states:
            if state.problem is not None:
                raise state.problem
        for folder in dict.fromkeys([*(one.folder for one in pulled), *(state.folder for state in states)]):
            stdout.path(folder or "")
    playable = next((name for name in wanted if name in checkpoint_table.CHECKPOINTS), None)
    if playable is not None:
        terminal.hint(f'Next: acestep generate -c "warm lo-fi hip hop, dusty drums" --instrumental -d 30 -m {playable}')


@app.command(
    name="list",
    help="List every model: installed, partial (a pull was cut) or absent; its size, the longest song that fits into "
    "the memory free now, and where it is.\n\n"
    "acestep models list --json",
)
def list_models(
    ctx: typer.Context,
    models_dir: options.ModelsDir = None,
    json_wanted: options.Json = False,
    debug: options.Debug = False,
) -> None:
    from acestep_cli.machine import hardware, plan, plan_text

    terminal, run_report = console.begin(ctx, quiet=False, wants_json=json_wanted)
    if models_dir is not None and not disk.is_folder(models_dir):
        terminal.warn(f"The models folder {models_dir} does not exist.")
    states = [local.model_state(name, models_dir) for name in NAMES]
    machine, asked = hardware.detect(), plan.MachineRequest()
    entries = [
        plan_text.model_capacity(state, machine, asked, models_dir)
        if state.name in checkpoint_table.CHECKPOINTS
        else state.report()
        for state in states
    ]
    run_report.more["models"] = entries
    width = max(map(len, NAMES))
    with terminal.results() as stdout:
        for state, entry in zip(states, entries, strict=True):
            fits = plan_text.capacity_text(entry) if "longest_seconds" in entry else ""
            words = f"{state.name:<{width}}  {state.status:<9}  {size(state):>10}  {fits}  {where(state)}"
            stdout.path(words.rstrip())


def size(state: ModelState) -> str:
    if state.status == "absent":
        return f"~{sum(part.size_gb for part in checkpoint_table.model_parts(state.name)):.3g} GB"
    return disk.format_size(state.size)


def where(state: ModelState) -> str:
    if state.status == "partial" and state.problem is not None:
        return f"{state.folder} ({state.problem.message})"
    return str(state.folder or "")


@app.command(help="Print the folder of a model: the DiT's of a checkpoint.\n\nacestep models path turbo")
def path(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `acestep models list`.", autocompletion=_name)],
    models_dir: options.ModelsDir = None,
    json_wanted: options.Json = False,
    debug: options.Debug = False,
) -> None:
    terminal, run_report = console.begin(ctx, quiet=False, wants_json=json_wanted)
    [name] = check_names([name])
    folder = local.find_model(name, models_dir)
    run_report.more["models"] = [local.model_state(name, models_dir).report()]
    with terminal.results() as stdout:
        stdout.path(folder)


@app.command(
    help="Read all files of models again and compare them with what was published.\n\nacestep models verify turbo"
)
def verify(
    ctx: typer.Context,
    names: Names,
    models_dir: options.ModelsDir = None,
    json_wanted: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    terminal, run_report = console.begin(ctx, quiet=quiet, wants_json=json_wanted)
    wanted = check_names(names)
    folders = {name: local.find_model(name, models_dir) for name in wanted}
    for name, folder in folders.items():
        if checkpoints.is_diffusers(folder):
            raise CheckpointError(
                f"{folder} is in diffusers' layout, and nothing here tells what its files should be.",
                f"`acestep models pull {name}` fetches the published layout, which can be verified.",
            )
    run_report.more["models"] = [local.model_state(name, models_dir).report() for name in wanted]
    parts = list(dict.fromkeys(part for name in wanted for part in checkpoint_table.model_parts(name)))
    there = {part: checkpoints.part_folder(part, models_dir) for part in parts}
    manifests = {folder: expected_manifest(part, folder) for part, folder in there.items() if folder is not None}
    with terminal.results() as stdout:
        with terminal.transfers(sum(file.size for manifest in manifests.values() for file in manifest.files)) as report:
            wrong = [line for folder, manifest in manifests.items() for line in verify_files(manifest, folder, report)]
        if wrong:
            raise CheckpointError(
                "\n".join(wrong), f"`acestep models pull {' '.join(wanted)} --force` fetches them again."
            )
        count = sum(len(manifest.files) for manifest in manifests.values())
        terminal.say(f"{count} files are as they were published." if count else "It comes with the program.")
        for folder in folders.values():
            stdout.path(folder)


@app.command(
    help="List what no model uses: old commits in the cache, remains of cut downloads, files set aside. Deletes them "
    "with --yes.\n\nacestep models prune\n\nacestep models prune --yes"
)
def prune(
    ctx: typer.Context,
    yes: Yes = False,
    models_dir: options.ModelsDir = None,
    json_wanted: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    terminal, run_report = console.begin(ctx, quiet=quiet, wants_json=json_wanted)
    store = model_store.find_store(models_dir)
    found = sizes(store)
    try:
        if yes and found:
            with model_store.lock_store(model_store.all_parts(), store, terminal.say):
                found = sizes(store)
                store.clear()
    except OSError as error:
        reason = reason_of(error)
        raise OutputError(f"{error.filename or store.root} cannot be deleted: {reason}.") from error
    run_report.more["leftovers"] = [{"path": str(path), "bytes": size, "deleted": yes} for path, size in found.items()]
    with terminal.results() as stdout:
        for path in found:
            stdout.path(path)
    total = disk.format_size(sum(found.values()))
    if not found:
        terminal.say("Nothing is left over.")
    elif yes:
        terminal.say(f"{total} deleted.")
    else:
        terminal.say(f"{total} could be freed. Nothing was deleted; `acestep models prune --yes` does.")


def sizes(store: model_store.ModelStore) -> dict[Path, int]:
    return {path: model_store.freed_bytes(path) for path in store.leftovers()}
