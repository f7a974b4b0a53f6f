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

from acestep_cli import adapters, disk
from acestep_cli.dataset import FILE as SONGS
from acestep_cli.errors import CheckpointError, ExistsError, OutputError, UsageError
from acestep_cli.recipe import Recipe

ADAPTER, CONFIG = adapters.PEFT_WEIGHTS, adapters.PEFT_CONFIG
STATE, CURVE, LOSSES, PREVIEWS = "training.safetensors", "loss.png", "losses.csv", "previews"
LOCK = ".training.lock"
#: The entry of a header in which a record stands.
ENTRY = "acestep"


class Record(BaseModel):
    """What the header of every file of weights says: how they came about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    #: Hash of the weights of the base.
    base_weights: str
    recipe: Recipe
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
        return self.step >= self.recipe.steps

    def header(self) -> dict[str, str]:
        """The entries of a safetensors header: all in one, and again by itself what other programs look for."""
        told = {"format": "pt", "base": self.base, "dataset": self.dataset, ENTRY: self.model_dump_json()}
        return told if self.trigger is None else {**told, "trigger": self.trigger}


def record(folder: Path) -> Record | None:
    """What the last save in a folder says; None where there is none. `CheckpointError` for one that cannot be read."""
    from safetensors import SafetensorError, safe_open

    file = folder / STATE
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="numpy") as opened:
            return Record.model_validate_json((opened.metadata() or {})[ENTRY])
    except (OSError, SafetensorError, KeyError, ValidationError) as error:
        raise CheckpointError(
            f"{file} is not the save of a training run, or a broken one ({type(error).__name__}).",
            "Train into another --output.",
        ) from error


def beginning(folder: Path, exports: list[Path]) -> None:
    """`ExistsError` where a run that begins would write over something."""
    if (found := record(folder) if folder.is_dir() else None) is not None:
        done = f"step {found.step} of {found.recipe.steps}"
        raise UsageError(
            f"{folder} holds a training run already, at {done}.",
            "Train into another --output."
            if found.is_finished
            else "--resume goes on with it; or train into another --output.",
        )
    taken = [path for path in (*(folder / name for name in (ADAPTER, CONFIG, CURVE, LOSSES, SONGS)), *exports)
             if disk.exists(path)]  # fmt: skip
    if disk.exists(folder) and not folder.is_dir():
        taken.insert(0, folder)
    if taken:
        error = ExistsError(taken[0], more=len(taken) - 1)
        error.hint = "Nothing that is there is replaced; train into another --output."
        raise error


def going_on(folder: Path) -> Record:
    """The record of a run that can go on. `UsageError` where there is none."""
    found = record(folder)
    if found is None:
        raise UsageError(
            f"--resume: {folder} holds no training run ({STATE} is not there).", "Leave --resume out to begin one."
        )
    if found.is_finished:
        raise UsageError(
            f"--resume: the run in {folder} is finished: all {found.recipe.steps} steps are done.",
            "Train into another --output for more.",
        )
    return found


@contextmanager
def alone(folder: Path) -> Iterator[None]:
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
        raise disk.refusal(folder, error) from error
    try:
        yield
    finally:
        lock.release()
