"""Finding checkpoints on this machine, in a models folder or the Hugging Face cache, and checking that they are whole.

Everything here reads headers only and imports no torch.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from types import ModuleType

from acestep_cli import disk
from acestep_cli.errors import CheckpointError, UsageError, reason_of
from acestep_cli.models import weight_files
from acestep_cli.models.checkpoint_files import DIFFUSERS_DIT, Checkpoint, DiffusersCheckpoint, Songwriter, Unpulled
from acestep_cli.models.checkpoint_table import (
    BASE_TASKS,
    BUILT_IN,
    CHECKPOINTS,
    MAIN_REPO,
    MODEL_CHOICES,
    PUBLISHED_TASKS,
    PUBLISHER,
    CheckpointRow,
    ModelPart,
    auto_order,
    model_parts,
)

#: A pull writes `refs/acestep/FOLDER` into the cache when the folder is whole: it names the commit to use.
OWN_REF = "acestep/"
#: Variables with a bad value of which the hub's library cannot be imported.
HUB_VARIABLES = ("HF_ENDPOINT", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")
#: In diffusers' layout this lies where a published folder has its config, and names the class of the whole.
PIPELINE_INDEX = "model_index.json"
PIPELINE_CLASS = "AceStepPipeline"
#: A repository or folder in diffusers' layout has the published name with this behind it.
DIFFUSERS_SUFFIX = "-diffusers"
DIFFUSERS_VAE = {"vae": ("AutoencoderOobleck", "")}
BUILT_IN_ROOT = Path(str(resources.files("acestep_cli.models") / "pocket"))


def built_in_songwriter() -> Songwriter:
    return Songwriter(BUILT_IN, BUILT_IN_ROOT / "acestep-5Hz-lm-pocket")


def part_folder(part: ModelPart, models_dir: Path | None) -> Path | None:
    """Return the folder of a part; None where it is not on this machine."""
    return _folder_of(part.folder, part.repo, models_dir)


def check_part(part: ModelPart, folder: Path) -> None:
    """Raise `CheckpointError` unless all files of a part are in `folder` and, as far as headers tell, uncut."""
    for name in part.needs:
        weight_files.require_file(folder / name)
    for file in weight_files.weight_files(folder):
        weight_files.read_header(file)


def find_checkpoint(model: str = "auto", models_dir: Path | None = None, task: str = PUBLISHED_TASKS[0]) -> Checkpoint:
    """Find a checkpoint by name or folder.

    `models_dir` is a folder in the published layout; without one the Hugging Face cache is looked through.
    `auto` takes the first installed of `auto_order(task)`, else the built-in one. Raises `CheckpointError` when it is
    not installed, or a file of it is missing, cut short or something else than it should be.
    """
    if models_dir is not None and not disk.is_folder(models_dir):
        raise CheckpointError(
            f"The models folder {models_dir} does not exist.",
            "Name the folder that holds acestep-v15-turbo/, vae/ and Qwen3-Embedding-0.6B/ with --models-dir.",
        )
    require_readable(models_dir)
    if model == "auto":
        return find_checkpoint(installed_names(models_dir, task)[0], models_dir)
    if model == BUILT_IN:
        return _assemble_checkpoint(
            BUILT_IN, CHECKPOINTS[BUILT_IN], BUILT_IN_ROOT / CHECKPOINTS[BUILT_IN].folder, BUILT_IN_ROOT
        )
    row = CHECKPOINTS.get(model)
    if row is None:
        return _from_folder(Path(model), models_dir)
    dit = dit_folder(model, models_dir)
    if dit is None:
        where = f"the models folder {models_dir}" if models_dir else "the Hugging Face cache"
        raise CheckpointError(
            f"The checkpoint {model} is not installed: {where} has no {row.folder}/ (about {row.size_gb:g} GB, "
            f"published as {row.repo}).",
            f"`acestep models pull {model}` fetches it; --models-dir names another folder that holds it; --model "
            f"{BUILT_IN} sketches the song.",
        )
    return _assemble_checkpoint(model, row, dit, models_dir)


def require_readable(models_dir: Path | None) -> None:
    """Raise `CheckpointError` where the models folder cannot be listed, so that its models do not seem missing."""
    if models_dir is None or not disk.is_folder(models_dir):
        return
    try:
        next(models_dir.iterdir(), None)
    except OSError as error:
        reason = reason_of(error)
        raise CheckpointError(f"The models folder {models_dir} cannot be read: {reason}.") from error


def installed_names(models_dir: Path | None, task: str = PUBLISHED_TASKS[0]) -> tuple[str, ...]:
    """Return the installed checkpoints of `auto_order(task)`, in that order, else the built-in one."""
    return tuple(name for name in auto_order(task) if dit_folder(name, models_dir)) or (BUILT_IN,)


def find_or_plan(name: str, models_dir: Path | None = None, task: str = PUBLISHED_TASKS[0]) -> Checkpoint:
    """Find a checkpoint as `find_checkpoint` does, but return `Unpulled` for one of the table that lacks files."""
    try:
        return find_checkpoint(name, models_dir, task)
    except CheckpointError:
        wanted = model_parts(name) if name in CHECKPOINTS else ()
        lacking = tuple(part for part in wanted if not _is_whole(part, models_dir))
        if not lacking:
            raise
        dit, vae, text = (
            cache_folder(part.repo) / part.inside if models_dir is None else models_dir / part.folder for part in wanted
        )
        return Unpulled(name, CHECKPOINTS[name], dit, vae, text, lacking)


def dit_folder(name: str, models_dir: Path | None) -> Path | None:
    """Return the folder of a checkpoint of the table, in the published layout or diffusers', or None."""
    row = CHECKPOINTS[name]
    theirs = f"{row.folder}{DIFFUSERS_SUFFIX}"
    return _folder_of(row.folder, row.repo, models_dir) or _folder_of(
        theirs, f"{PUBLISHER}/{theirs}", models_dir, PIPELINE_INDEX
    )


def _is_whole(part: ModelPart, models_dir: Path | None) -> bool:
    folder = part_folder(part, models_dir)
    try:
        if folder is not None:
            check_part(part, folder)
    except CheckpointError:
        return False
    return folder is not None


def _from_folder(dit: Path, models_dir: Path | None) -> Checkpoint:
    """Find the checkpoint of a DiT folder that a user names; VAE and text encoder are beside it or in `models_dir`."""
    if not disk.is_folder(dit):
        raise CheckpointError(
            f"{dit} is neither a checkpoint's name nor a folder.",
            f"Names: {', '.join(MODEL_CHOICES)}; a folder holds config.json and model.safetensors, or diffusers' "
            f"{PIPELINE_INDEX}.",
        )
    for name, row in CHECKPOINTS.items():
        if dit.name.removesuffix(DIFFUSERS_SUFFIX) == row.folder:
            return _assemble_checkpoint(name, row, dit, models_dir or dit.parent)
    if is_diffusers(dit):
        _require_class(dit / PIPELINE_INDEX, PIPELINE_CLASS)
    config = weight_files.read_json((dit / "transformer" if is_diffusers(dit) else dit) / "config.json")
    version = str(config.get("model_version", ""))
    turbo = bool(config.get("is_turbo")) or "turbo" in version or "turbo" in dit.name
    tasks = BASE_TASKS if version == "base" else PUBLISHED_TASKS
    row = CheckpointRow(dit.name, None, turbo, shift=3.0 if turbo else 1.0, tasks=tasks)
    return _assemble_checkpoint(dit.name, row, dit, models_dir or dit.parent)


def _folder_of(folder: str, repo: str | None, models_dir: Path | None, marker: str = "config.json") -> Path | None:
    """Return the folder of a component that contains `marker`, from the models folder or the Hugging Face cache."""
    if models_dir is not None:
        return models_dir / folder if disk.is_folder(models_dir / folder) else None
    if repo is None:
        return None
    storage = cache_folder(repo)
    for ref in (OWN_REF + folder, "main"):
        try:
            commit = (storage / "refs" / ref).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        found = storage / "snapshots" / commit / (folder if repo == MAIN_REPO else "")
        if disk.is_file(found / marker):
            return found
    return None


def hub_constants() -> ModuleType:
    """Import the constants of the hub's library, which it reads from the environment; they alone import no web client.

    Raises `UsageError` where a variable has a value that the library cannot be imported with.
    """
    try:
        from huggingface_hub import constants
    except ValueError as error:
        named = " or ".join(name for name in HUB_VARIABLES if os.environ.get(name)) or "a variable HF_…"
        raise UsageError(f"{named} has a value that is none: {error}.", "Correct it, or unset it.") from error
    return constants


def cache_folder(repo: str) -> Path:
    """Return the folder of a repository in the Hugging Face cache."""
    return Path(hub_constants().HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def is_diffusers(dit: Path) -> bool:
    """Return True where a folder is in diffusers' layout rather than the published one."""
    return disk.is_file(dit / PIPELINE_INDEX) and not disk.is_file(dit / "config.json")


def _assemble_checkpoint(name: str, row: CheckpointRow, dit: Path, models_dir: Path | None) -> Checkpoint:
    """Put the folders together, and check that each file is there and not cut short."""
    checkpoint = (
        _diffusers_layout(name, row, dit) if is_diffusers(dit) else _published_layout(name, row, dit, models_dir)
    )
    for file in checkpoint.files:
        weight_files.read_header(file) if file.suffix == weight_files.WEIGHTS_SUFFIX else weight_files.require_file(
            file
        )
    weight_files.require_file(checkpoint.silence_file)
    for key, beside, other_key in (
        ("audio_acoustic_hidden_dim", checkpoint.vae, "decoder_input_channels"),
        ("text_hidden_dim", checkpoint.text, "hidden_size"),
    ):
        ours, theirs = checkpoint.config.get(key), weight_files.read_json(beside / "config.json").get(other_key)
        if ours != theirs:
            raise CheckpointError(
                f"{beside} does not belong to {dit}: its {other_key} is {theirs}, and {key} there is {ours}.",
                "Put folders that were published together side by side.",
            )
    return checkpoint


def _published_layout(name: str, row: CheckpointRow, dit: Path, models_dir: Path | None) -> Checkpoint:
    """Return a checkpoint in the published layout, with VAE and text encoder beside the DiT or in the cache."""
    parts = {}
    for what, folder in (("VAE", row.vae_folder), ("text encoder", row.text_folder)):
        found = _folder_of(folder, MAIN_REPO, models_dir)
        if found is None:
            where = models_dir if models_dir else "the Hugging Face cache"
            raise CheckpointError(
                f"The {what} of {name} is missing: {where} has no {folder}/.",
                f"`acestep models pull {name if name in CHECKPOINTS else 'turbo'}` fetches it; or put {folder}/ of "
                f"{MAIN_REPO} beside {row.folder}/.",
            )
        parts[what] = found
    return Checkpoint(name, row, dit, parts["VAE"], parts["text encoder"])


def _diffusers_layout(name: str, row: CheckpointRow, root: Path) -> Checkpoint:
    """Return a checkpoint in diffusers' layout, with all parts in one folder, named by their roles."""
    _require_class(root / PIPELINE_INDEX, PIPELINE_CLASS)
    for folder, (kind, _) in (DIFFUSERS_DIT | DIFFUSERS_VAE).items():
        _require_class(root / folder / "config.json", kind)
    return DiffusersCheckpoint(name, row, root, root / "vae", root / "text_encoder")


def _require_class(file: Path, kind: str) -> None:
    """Raise `CheckpointError` unless the JSON `file` names `kind` as diffusers' class for its folder."""
    found = weight_files.read_json(file).get("_class_name")
    if found != kind:
        raise CheckpointError(
            f"{file} describes a folder of {found or 'no class'}, and this program reads {kind} there.",
            "Name the folder of an ACE-Step 1.5 checkpoint.",
        )
