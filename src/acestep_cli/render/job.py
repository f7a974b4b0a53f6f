"""One song of a run: its completed request, its files and its recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from acestep_cli.cache import Cache
from acestep_cli.machine.hardware import Device
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoint_table
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter, Unpulled, UnpulledSongwriter
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.render import matrix, sidecar
from acestep_cli.render.paths import Destination
from acestep_cli.render.remaining import TakeWork
from acestep_cli.render.result import PLANNED, OutputFile
from acestep_cli.song import complete, modes, recipe, spec, spec_layers, take_parts
from acestep_cli.song.complete import Completed
from acestep_cli.song.request import FINISH, NEUTRAL

AGAIN = "--again"
WITHOUT_DCW = {"dcw": NEUTRAL["dcw"], "dcw_scale": None, "dcw_high_scale": None}


@dataclass(frozen=True)
class SongInput:
    """One song of a run as it is asked for: the layers of specs and flags, the request that they make, and where its
    takes go.
    """

    layers: Sequence[spec_layers.Layer]
    resolved: spec.Resolved
    place: Destination
    #: None for a song from flags alone, from a recording or from stdin.
    spec_file: Path | None = None
    #: Its values of `--matrix`.
    swept: spec_layers.Layer = field(default_factory=lambda: spec_layers.Layer(Path()))

    @classmethod
    def of(cls, layers: Sequence[spec_layers.Layer], place: Destination, spec_file: Path | None = None) -> SongInput:
        """Return the song of `layers`. Raises `UsageError` with all their problems."""
        return cls(layers, spec.resolve(*layers), place, spec_file)

    @property
    def draws_seed(self) -> bool:
        """True where nobody asked for a seed, or `--again` for a new one."""
        return self.resolved.origins.get("seed") in (None, AGAIN)

    @property
    def is_replayed(self) -> bool:
        """True where a sidecar is among its layers: that of a take rendered earlier."""
        return any(layer.is_sidecar for layer in self.layers)


@dataclass
class Job:
    """One song of a run: its completed request, its plan and its output files."""

    song: SongInput
    decided: complete.Completion
    checkpoint: Checkpoint
    plan: Plan
    device: Device
    #: The hash of the checkpoint's weights.
    weights_hash: str
    #: Decides what the request leaves open, and scores its takes; None where neither is wanted.
    songwriter: Songwriter | None = None
    outputs: list[OutputFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: The id of its track in an album.
    track: str | None = None
    #: Stores its takes before they are finished.
    cache: Cache | None = None

    @property
    def name(self) -> str:
        """The name of its spec in messages, and its values of `--matrix`."""
        if not self.song.swept.values:
            return self.track or str(self.song.spec_file or "stdin")
        swept = matrix.described(self.song.swept)
        return swept if self.song.spec_file is None else f"{self.song.spec_file} ({swept})"

    @property
    def request(self) -> Completed:
        return self.decided.request

    @property
    def is_installed(self) -> bool:
        """False where its checkpoint or Songwriter is yet to be downloaded."""
        return not isinstance(self.checkpoint, Unpulled) and not isinstance(self.songwriter, UnpulledSongwriter)

    def recipe_hash(self, output: OutputFile, weights: str | None = None) -> str:
        """Return the fingerprint of all that shapes a file but its seed, with the job's weights or with `weights`."""
        weights = self.weights_hash if weights is None else weights
        return recipe.recipe_hash(output.completed, weights + self._songwriter_hash, self.decided.contents)

    def take_recipe_hash(self, request: Completed) -> str:
        """Return the fingerprint of all that shapes a take of `request`, in which nothing is open, but its seed."""
        return recipe.recipe_hash(request, self.weights_hash, self.decided.contents)

    def samples_hash(self, output: OutputFile) -> str:
        """Return the fingerprint of all that shapes the samples of a file before they are finished, but its seed."""
        bare = output.completed.model_copy(update=dict.fromkeys(FINISH))
        return recipe.recipe_hash(bare, self.weights_hash + self._songwriter_hash, self.decided.contents)

    @property
    def _songwriter_hash(self) -> str:
        """The Songwriter's part of a fingerprint: empty where it only scores takes."""
        return f" {self.songwriter.weights_hash}" if self.songwriter is not None and self.request.open else ""

    def is_recipe_of(self, output: OutputFile, record: sidecar.SidecarRecord) -> bool:
        """Tell whether `record` has the recipe of a file.

        A take from before `dcw` existed was made without, and is not outdated by what the checkpoint chooses now.
        """
        weights = self.weights_hash_beside(record)
        if record.dcw is None and "dcw" not in self.song.resolved.origins:
            output = replace(output, completed=output.completed.model_copy(update=WITHOUT_DCW))
        if self.varies_at_will:
            output = replace(
                output, completed=output.completed.model_copy(update={"variation_seed": record.variation_seed})
            )
        return record.is_of(self.recipe_hash(output, weights))

    @property
    def varies_at_will(self) -> bool:
        """True for a variation whose other seed was not asked for."""
        return self.request.variation is not None and "variation_seed" not in self.song.resolved.origins

    def tags_hash(self, output: OutputFile) -> str:
        """Return the fingerprint of the tags of a file that shape no sample."""
        return sidecar.tags_hash(output.completed, self.song.resolved.cover)

    def weights_hash_beside(self, record: sidecar.SidecarRecord) -> str:
        """Return the weights to compare with `record`: its own, where those of the job are not downloaded yet."""
        awaited = isinstance(self.checkpoint, Unpulled) and record.checkpoint.name == self.checkpoint.name
        return record.checkpoint.weights if awaited else self.weights_hash

    @property
    def is_pending(self) -> bool:
        """True where a file is to be made."""
        return any(output.status == PLANNED for output in self.outputs)

    def pending(self) -> list[tuple[Completed, list[OutputFile]]]:
        """Return the requests of the takes to be made, each with its files in the order in which they are made.

        Takes in a row are one request. Those of several files are rendered whole, because mix and residual are computed
        from all of their stems: one request has as many as share a forward pass.
        """
        runs: list[list[list[OutputFile]]] = []
        for _, files in groupby(self.outputs, key=lambda output: output.take):
            take = list(files)
            if all(output.status != PLANNED for output in take):
                continue
            is_next = runs and runs[-1][-1][0].take == take[0].take - 1
            if is_next and (len(take) == 1 or len(runs[-1]) < self.plan.together):
                runs[-1].append(take)
            else:
                runs.append([take])
        return [
            (take_parts.take_request(self.request, run[0][0].take, len(run)), in_order_of_parts(run)) for run in runs
        ]


def in_order_of_parts(takes: Sequence[Sequence[OutputFile]]) -> list[OutputFile]:
    """Return the files of takes as they are made: part by part, and what is beside them after the last stem of each."""
    stems = sum(output.kind not in modes.BESIDE for output in takes[0])
    parts = [[take[part] for take in takes] for part in range(stems - 1)]
    last = [output for take in takes for output in take[stems - 1 :]]
    return [output for part in parts for output in part] + last


def pending_work(jobs: Iterable[Job]) -> list[TakeWork]:
    """Return the takes of jobs that are to be made, in their order."""
    found = []
    for job in jobs:
        for request, files in job.pending():
            parts = [part for part in take_parts.output_parts(request) if part.kind not in modes.BESIDE]
            first, last = files[0].take, files[-1].take
            found += [
                TakeWork(
                    song=job.name,
                    noun="track" if job.track else "song",
                    take=take,
                    takes=job.request.takes,
                    stem=part.track if len(parts) > 1 else None,
                    units={"diffuse": float(request.step_count), "decode": request.duration},
                    expected=job.plan.expected,
                    together=shared_pass(take, first, last, job.plan.together),
                )
                for part in parts
                for take in range(first, last + 1)
            ]
    return found


def shared_pass(take: int, first: int, last: int, together: int) -> tuple[int, int] | None:
    """Return the first and the last of the takes that share forward passes with `take`, of those from `first` to `last`
    so many `together`; None where it shares none.
    """
    begin = take - (take - first) % together
    end = min(begin + together - 1, last)
    return (begin, end) if end > begin else None


def group_by_weights(planned: list[Job]) -> list[list[Job]]:
    """Return groups of jobs that share a checkpoint and a plan: their weights are loaded once."""
    alike: list[list[Job]] = []
    for job in planned:
        same = next((jobs for jobs in alike if shares_weights(jobs[0], job)), None)
        if same is None:
            alike.append([job])
        else:
            same.append(job)
    return alike


def shares_weights(one: Job, other: Job) -> bool:
    alike = (one.checkpoint, one.songwriter) == (other.checkpoint, other.songwriter)
    return alike and one.plan.shares_weights_with(other.plan)


def missing_parts(jobs: list[Job]) -> dict[str, tuple[ModelPart, ...]]:
    """Return by checkpoint or Songwriter the parts to be downloaded for the takes to be made."""
    waiting = [one for one in jobs if one.is_pending]
    found = {one.checkpoint.name: one.checkpoint.lacking for one in waiting if isinstance(one.checkpoint, Unpulled)}
    for one in waiting:
        if isinstance(one.songwriter, UnpulledSongwriter):
            found[one.songwriter.name] = (checkpoint_table.SONGWRITERS[one.songwriter.name],)
    return found
