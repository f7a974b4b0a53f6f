"""The folder that an adapter is trained into: its files, the record of its last save, and its lock.

adapter_config.json, adapter_model.safetensors   the adapter, as peft and `--lora` read it
training.safetensors                             all that a resumed run needs
dataset.yaml                                     the songs as they were trained on
loss.png, losses.csv                             the loss of each step
previews/                                        renders between steps
NAME-comfyui.safetensors, …                      exports
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from acestep_cli import disk
from acestep_cli.errors import CheckpointError, ExistsError, OutputError, UsageError
from acestep_cli.models import peft_settings, tensor_file, weight_files
from acestep_cli.training.config import TrainingConfig
from acestep_cli.training.dataset import DATASET_FILE

ADAPTER, CONFIG = peft_settings.PEFT_WEIGHTS, peft_settings.PEFT_CONFIG
STATE, CURVE, LOSSES, PREVIEWS = "training.safetensors", "loss.png", "losses.csv", "previews"
LOCK = ".training.lock"
#: The entry of a header that holds the record.
ENTRY = "acestep"


class RunRecord(BaseModel):
    """The origin of weights, kept in the header of every file of them. Its fields are named as in the files, but for
    an alias.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, serialize_by_alias=True)

    base: str
    #: Hash of the weights of the base.
    base_weights: str
    config: Annotated[TrainingConfig, Field(alias="course")]
    trigger: str | None
    trigger_position: str
    dataset: str
    #: Of each song, a hash of its sound and prompts.
    songs: dict[str, str]
    #: The number format of the frozen weights.
    dtype: str
    #: Steps that are done, and how many of their losses were NaN.
    step: int = 0
    broken: int = 0

    @property
    def is_finished(self) -> bool:
        return self.step >= self.config.steps

    def is_same_run(self, other: RunRecord) -> bool:
        """Tell whether both records are of one run, at whatever step."""
        return self.model_copy(update={"step": other.step, "broken": other.broken}) == other

    def header(self) -> dict[str, str]:
        """Return the entries of a safetensors header: the whole record, and separately what other programs read."""
        record = json.dumps(self.model_dump(mode="json"))  # ASCII: names of songs may be no UTF-8
        header = {
            "format": "pt",
            "base": self.base.encode(errors="replace").decode(),
            "dataset": self.dataset,
            ENTRY: record,
        }
        return header if self.trigger is None else {**header, "trigger": self.trigger}


def read_record(folder: Path) -> RunRecord | None:
    """Return the record of the last save in a folder, None without one. Raises `CheckpointError` for a broken save."""
    file = folder / STATE
    if not disk.is_file(file):
        return None
    try:
        file.open("rb").close()
    except OSError as error:
        raise weight_files.unreadable_error(file, error) from error
    if (found := read_header_record(file)) is None:
        raise CheckpointError(
            f"{file} is not the save of a training run, or a broken one.", "Train into another --output."
        )
    return found


def read_header_record(file: Path) -> RunRecord | None:
    """Return the record in the header of a file of weights, or None where there is none to be read."""
    try:
        _, notes = weight_files.read_contents(file)
        return RunRecord.model_validate(json.loads(notes[ENTRY]))
    except (CheckpointError, KeyError, ValueError):
        return None


def require_empty(folder: Path, exports: list[Path]) -> None:
    """Raise `UsageError` where a folder holds a run, and `ExistsError` where a new run would overwrite a file."""
    if (found := read_record(folder) if disk.is_folder(folder) else None) is not None:
        done = f"step {found.step} of {found.config.steps}"
        raise UsageError(
            f"{folder} holds a training run already, at {done}.",
            "Train into another --output."
            if found.is_finished
            else "--resume goes on with it; or train into another --output.",
        )
    files = [folder / name for name in (ADAPTER, CONFIG, CURVE, LOSSES, DATASET_FILE)]
    refuse_existing(
        [*([folder] if not disk.is_folder(folder) else []), *files, *exports], "train into another --output."
    )


def refuse_existing(files: list[Path], otherwise: str) -> None:
    """Raise `ExistsError` where one of the files is there; `otherwise` says what to do then."""
    if taken := [path for path in files if disk.is_taken(path)]:
        error = ExistsError(taken[0], more=len(taken) - 1)
        error.hint = f"Nothing that is there is replaced; {otherwise}"
        raise error


def require_resumable(folder: Path) -> RunRecord:
    """Return the record of a run that can be resumed. Raises `UsageError` where there is none."""
    found = read_record(folder)
    if found is None:
        raise UsageError(
            f"--resume: {folder} holds no training run ({STATE} is not there).", "Leave --resume out to begin one."
        )
    return found


def require_undamaged(folder: Path) -> str | None:
    """Raise `CheckpointError` where the save in a folder does not match its checksum; return a remark where it has
    none.
    """
    file = folder / STATE
    is_undamaged = tensor_file.is_undamaged(file)
    if is_undamaged is None:
        return f"{file} has no checksum, as an earlier version wrote it: whether it is damaged cannot be told."
    if not is_undamaged:
        raise CheckpointError(
            f"{file} is damaged, as its checksum tells, so the run cannot go on.",
            "Put a copy of it in its place, or train into another --output.",
        )
    return None


def require_work(folder: Path, before: RunRecord, exports: list[Path]) -> None:
    """Raise `UsageError` where a resumed run has nothing left to do; `ExistsError` as in `require_own`."""
    require_own(before, exports)
    if before.is_finished and all(map(disk.is_taken, exports)):
        raise UsageError(
            f"--resume: the run in {folder} is finished: all {before.config.steps} steps are done.",
            "Train into another --output for more; --export writes what is not there yet.",
        )


def require_own(run: RunRecord, exports: list[Path]) -> None:
    """Raise `ExistsError` where an export would overwrite anything but an earlier export of the same run."""
    foreign = [path for path in exports if (found := read_header_record(path)) is None or not found.is_same_run(run)]
    refuse_existing(foreign, "move it away, or leave --export out.")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Make the folder if need be, and lock it for the body. Raises `OutputError` where another run has locked it."""
    import filelock

    lock = filelock.FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise OutputError(
            f"Another run is training into {folder}.", "Wait for it, or train into another --output."
        ) from None
    except OSError as error:
        raise disk.write_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()
