"""The folder that an adapter is trained into: what lies in it, what its last save says, and that one run has it alone.

adapter_config.json, adapter_model.safetensors   the adapter, as peft and `--lora` read it
training.safetensors                             all that a stopped run needs to go on
dataset.yaml                                     the songs as they were trained on
loss.png, losses.csv                             how it went
previews/                                        renders between steps
NAME-comfyui.safetensors, …                      exports
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from acestep_cli import disk
from acestep_cli.errors import CheckpointError, ExistsError, OutputError, UsageError
from acestep_cli.models import adapters, tensor_file, weight_files
from acestep_cli.training.config import TrainingConfig
from acestep_cli.training.dataset import DATASET_FILE as SONGS

ADAPTER, CONFIG = adapters.PEFT_WEIGHTS, adapters.PEFT_CONFIG
STATE, CURVE, LOSSES, PREVIEWS = "training.safetensors", "loss.png", "losses.csv", "previews"
LOCK = ".training.lock"
#: The entry of a header in which a record stands.
ENTRY = "acestep"


class RunRecord(BaseModel):
    """What the header of every file of weights says: how they came about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    #: Hash of the weights of the base.
    base_weights: str
    course: TrainingConfig
    trigger: str | None
    trigger_position: str
    dataset: str
    #: Of each song, its sound and words.
    songs: dict[str, str]
    #: The number format of the frozen weights.
    dtype: str
    #: Steps that are done, and how many of them came to no number.
    step: int = 0
    broken: int = 0

    @property
    def is_finished(self) -> bool:
        return self.step >= self.course.steps

    def is_same_run(self, other: RunRecord) -> bool:
        """Whether both are of one run, at whatever step."""
        return self.model_copy(update={"step": other.step, "broken": other.broken}) == other

    def header(self) -> dict[str, str]:
        """The entries of a safetensors header: all in one, and again by itself what other programs look for."""
        header = {"format": "pt", "base": self.base, "dataset": self.dataset, ENTRY: self.model_dump_json()}
        return header if self.trigger is None else {**header, "trigger": self.trigger}


def read_record(folder: Path) -> RunRecord | None:
    """What the last save in a folder says; None where there is none. `CheckpointError` for one that cannot be read."""
    file = folder / STATE
    if not file.is_file():
        return None
    if (found := read_header_record(file)) is None:
        raise CheckpointError(
            f"{file} is not the save of a training run, or a broken one.", "Train into another --output."
        )
    return found


def read_header_record(file: Path) -> RunRecord | None:
    """What the header of a file of weights says of the run it is of; None where it is of none."""
    try:
        _, notes = weight_files.read_contents(file)
        return RunRecord.model_validate_json(notes[ENTRY])
    except (CheckpointError, KeyError, ValidationError):
        return None


def require_empty(folder: Path, exports: list[Path]) -> None:
    """`ExistsError` where a run that begins would write over something."""
    if (found := read_record(folder) if folder.is_dir() else None) is not None:
        done = f"step {found.step} of {found.course.steps}"
        raise UsageError(
            f"{folder} holds a training run already, at {done}.",
            "Train into another --output."
            if found.is_finished
            else "--resume goes on with it; or train into another --output.",
        )
    files = [folder / name for name in (ADAPTER, CONFIG, CURVE, LOSSES, SONGS)]
    refuse_existing([*([folder] if not folder.is_dir() else []), *files, *exports], "train into another --output.")


def refuse_existing(files: list[Path], otherwise: str) -> None:
    """`ExistsError` where one of the files is there; `otherwise` is what to do then."""
    if taken := [path for path in files if disk.is_taken(path)]:
        error = ExistsError(taken[0], more=len(taken) - 1)
        error.hint = f"Nothing that is there is replaced; {otherwise}"
        raise error


def require_resumable(folder: Path) -> RunRecord:
    """The record of a run that can go on. `UsageError` where there is none."""
    found = read_record(folder)
    if found is None:
        raise UsageError(
            f"--resume: {folder} holds no training run ({STATE} is not there).", "Leave --resume out to begin one."
        )
    return found


def require_undamaged(folder: Path) -> str | None:
    """Raise `CheckpointError` where the save in a folder is not what was written there; a remark where it carries no
    checksum that could tell.
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
    """`UsageError` where nothing is left to do of a run that goes on; `ExistsError` as `require_own`."""
    require_own(before, exports)
    if before.is_finished and all(map(disk.is_taken, exports)):
        raise UsageError(
            f"--resume: the run in {folder} is finished: all {before.course.steps} steps are done.",
            "Train into another --output for more; --export writes what is not there yet.",
        )


def require_own(run: RunRecord, exports: list[Path]) -> None:
    """`ExistsError` where the place of an export is taken by something else than an earlier one of the same run."""
    foreign = [path for path in exports if (found := read_header_record(path)) is None or not found.is_same_run(run)]
    refuse_existing(foreign, "move it away, or leave --export out.")


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Make the folder if need be, and have it to oneself for the body. `OutputError` where another run has it."""
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
