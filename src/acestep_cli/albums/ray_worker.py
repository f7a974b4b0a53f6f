"""The part of a cluster render that runs on its nodes: it inspects the node and renders songs.

The sender of a task finishes the takes and writes them, so that nodes need no folder in common.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acestep_cli import __version__, disk
from acestep_cli.albums import gpu_lock
from acestep_cli.cache import open_cache
from acestep_cli.errors import CheckpointError
from acestep_cli.machine import hardware
from acestep_cli.machine.hardware import Hardware
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.adapters import Adapter
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.models.songwriters import find_songwriters
from acestep_cli.render import result, sidecar
from acestep_cli.render.job import Job
from acestep_cli.render.reporter import Messages
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song.complete import Completed
from acestep_cli.song.file_values import is_folder_name

if TYPE_CHECKING:
    from acestep_cli.take import Take

#: The files that songs name, by their path on the sender's machine: the name and content of each file, the one that is
#: named first. An adapter may have several.
Files = dict[str, list[tuple[str, bytes]]]
#: Seconds between two reports of one stage.
PAUSE = 0.2


@dataclass(frozen=True)
class WeightsRef:
    """The names of a checkpoint and its Songwriter, with the hashes of their weights."""

    checkpoint: str
    hash: str
    songwriter: str | None
    songwriter_hash: str | None
    #: The models folder of the sender; a node without such a folder looks in its own.
    models_dir: Path | None

    @classmethod
    def of(cls, job: Job, models_dir: Path | None) -> WeightsRef:
        """Return the names and hashes of the weights that a job uses."""
        asked, songwriter = job.song.resolved.request.model, job.songwriter
        name = str(Path(asked).absolute()) if asked is not None and is_folder_name(asked) else job.checkpoint.name
        songwriter_name = songwriter.name if songwriter is not None else None
        if songwriter_name is not None and songwriter_name not in checkpoint_table.SONGWRITER_CHOICES:
            songwriter_name = str(Path(songwriter_name).absolute())
        return cls(
            checkpoint=name,
            hash=job.weights_hash,
            songwriter=songwriter_name,
            songwriter_hash=songwriter.weights_hash if songwriter is not None else None,
            models_dir=models_dir.absolute() if models_dir is not None else None,
        )

    def find(self) -> tuple[Checkpoint, Songwriter | None]:
        """Return both on this machine. Raises `CheckpointError` where they are missing or differ."""
        own = os.environ.get("ACESTEP_MODELS_DIR")
        folder = Path(own) if own else None
        if self.models_dir is not None and disk.is_folder(self.models_dir):
            folder = self.models_dir
        checkpoint = checkpoints.find_checkpoint(self.checkpoint, folder)
        songwriter = find_songwriters(self.songwriter or "none", checkpoint, folder)[0]
        for name, found, wanted in (
            (self.checkpoint, checkpoint.weights_hash, self.hash),
            (self.songwriter, songwriter.weights_hash if songwriter is not None else None, self.songwriter_hash),
        ):
            if found != wanted:
                raise CheckpointError(
                    f"The weights of {name} differ between that node and this machine.",
                    f"acestep models pull {name}, on both.",
                )
        return checkpoint, songwriter


@dataclass(frozen=True)
class NodeInfo:
    """The versions of the libraries that shape the samples on a node, and its devices."""

    versions: dict[str, str]
    machine: Hardware


def inspect_node(with_card: bool) -> NodeInfo:
    """Return the versions and hardware of this machine; without a card, the processor is its only device."""
    found = hardware.detect()
    if not with_card:
        found = replace(found, devices=tuple(device for device in found.devices if device.backend == "cpu"))
    return NodeInfo(versions(), found)


def versions() -> dict[str, str]:
    """Return the versions of this program and of the libraries in a sidecar, without their build suffix."""
    named = {"acestep-cli": __version__, **sidecar.versions()}
    return {name: version.partition("+")[0] for name, version in named.items()}


def missing_weights(weights: WeightsRef) -> dict[str, Any] | None:
    """Return the reason why these weights cannot be used here, as `--json` prints it; None where they can."""
    try:
        weights.find()
    except CheckpointError as error:
        return result.describe_error(error)
    return None


@dataclass(frozen=True)
class RenderTask:
    """Songs for a node to render by `plan`, with the files that they name, and for each song the most takes that share
    a forward pass.
    """

    weights: WeightsRef
    plan: Plan
    songs: tuple[Completed, ...]
    together: tuple[int, ...]
    files: Files
    uses_cache: bool
    debug: bool
    #: The most seconds for a song.
    timeout: float | None = None


def files_of(job: Job) -> Files:
    """Return the files that a job needs on a node. Raises `OSError` where one was deleted since it was read."""
    paths = {name: [recording.path] for name, recording in job.decided.recordings.items()}
    paths |= {name: adapter.files for name, adapter in job.decided.adapters.items()}
    if (stored := job.request.source_latents) is not None:
        paths[str(stored.path)] = [stored.path]
    return {name: [(file.name, file.read_bytes()) for file in files] for name, files in paths.items()}


# Messages besides takes


@dataclass(frozen=True)
class ProgressMessage:
    """A report of progress from a pipeline, and the memory in use."""

    stage: str
    done: int
    total: int
    used_bytes: int


@dataclass(frozen=True)
class TextMessage:
    """A line or a warning for the user."""

    text: str
    is_warning: bool


@dataclass(frozen=True)
class FailureMessage:
    """The failure that ended a task, as `--json` prints it."""

    error: dict[str, Any]


class Stopped(Exception):  # noqa: N818 - nothing has gone wrong
    """The sender does not wait for the takes any more."""


class WorkerConsole(Messages):
    """Sends lines, warnings and progress to the sender of a task; raises `Stopped` once nobody listens."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self.send, self.stopped = send, threading.Event()
        #: The sender's names of files, by their paths here.
        self.names: Mapping[str, str] = {}
        self._stage, self._reported = "", 0.0

    def say(self, line: str) -> None:
        self.send(TextMessage(self.with_original_names(line), is_warning=False))

    def warn(self, text: str) -> None:
        self.send(TextMessage(self.with_original_names(text), is_warning=True))

    def report(self, plan: Plan, stage: str, done: int, total: int) -> None:
        if self.stopped.is_set():
            raise Stopped
        now = time.monotonic()
        if stage != self._stage or done == total or now - self._reported > PAUSE:
            self._stage, self._reported = stage, now
            self.send(ProgressMessage(stage, done, total, hardware.used_bytes(plan.device)))

    def with_original_names(self, text: str) -> str:
        """Return a sentence with the sender's names of files."""
        for local_name, original in self.names.items():
            text = text.replace(local_name, original)
        return text


def run_task(task: RenderTask) -> Iterator[Take | ProgressMessage | TextMessage | FailureMessage]:
    """Yield the takes of a task, each when it is made, and its messages; a failure ends it.

    The takes are made in a thread of their own, because reports come from deep within the pipeline.
    """
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    console = WorkerConsole(messages.put)

    def work() -> None:
        try:
            for take in render_task(task, console):
                messages.put(take)
        except Stopped:
            pass
        except BaseException as error:
            if task.debug:
                console.say(traceback.format_exc())
            failure = result.describe_error(error)
            messages.put(FailureMessage(failure | {"message": console.with_original_names(failure["message"])}))
        finally:
            messages.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (message := messages.get()) is not None:  # Ray sends to what it iterates over, so no `yield from`
            yield message
    finally:
        console.stopped.set()
        thread.join()


def render_task(task: RenderTask, console: WorkerConsole) -> Iterator[Take]:
    """Yield the takes of a task, made on one card, which is locked meanwhile."""
    from acestep_cli.pipeline import Pipeline

    with (
        tempfile.TemporaryDirectory(prefix="acestep-") as folder,
        gpu_lock.lock_card(RenderSettings(device=task.plan.device), console),
    ):
        local_names = unpack_files(task.files, Path(folder))
        console.names = original_names = {path: name for name, path in local_names.items()}
        checkpoint, songwriter = task.weights.find()
        cache = open_cache(console.warn) if task.uses_cache else None
        pipeline = Pipeline(checkpoint, task.plan, songwriter, cache=cache)
        songs = [rename_files(song, local_names) for song in task.songs]

        def report(stage: str, done: int, total: int) -> None:
            console.report(task.plan, stage, done, total)

        for take in pipeline.run(
            songs, report, console.warn, console.say, timeout=task.timeout, together=task.together
        ):
            yield replace(
                take,
                request=rename_files(take.request, original_names).model_copy(update={"adapters": ()}),  # sender's
                warnings=tuple(map(console.with_original_names, take.warnings)),
            )


def unpack_files(files: Files, folder: Path) -> dict[str, str]:
    """Write the files of a task below `folder`; return the new path of the first file of each name."""
    places = {}
    for number, (name, contents) in enumerate(files.items()):
        own = folder / str(number)
        own.mkdir()
        for file, content in contents:
            (own / file).write_bytes(content)
        places[name] = str(own / contents[0][0])
    return places


def move_adapter(adapter: Adapter, names: Mapping[str, str]) -> Adapter:
    """Return an adapter whose file lies where `names` says."""
    path = Path(names.get(str(adapter.path), adapter.path))
    return replace(adapter, path=path, file=path)


def rename_files(song: Completed, names: Mapping[str, str]) -> Completed:
    """Return a song with the paths of its files replaced by `names`."""

    def name(path: str) -> str:
        return names.get(path, path)

    stored = song.source_latents and replace(song.source_latents, path=Path(name(str(song.source_latents.path))))
    return song.model_copy(
        update={
            "source": song.source and name(song.source),
            "reference": song.reference and tuple(map(name, song.reference)),
            "loras": song.loras and tuple(replace(lora, path=name(lora.path)) for lora in song.loras),
            "adapters": tuple(replace(one, adapter=move_adapter(one.adapter, names)) for one in song.adapters),
            "source_latents": stored,
        }
    )
