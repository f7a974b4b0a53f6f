"""The parts in which a song is rendered, and the tensors of each: what goes from one stage to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from acestep_cli import solvers
from acestep_cli.engine import conditioning, denoise
from acestep_cli.engine.alignment import LyricTokens
from acestep_cli.engine.conditioning import SourceLayout
from acestep_cli.engine.dit import Condition
from acestep_cli.song import modes, take_parts
from acestep_cli.song.complete import Completed
from acestep_cli.song.modes import Prepared
from acestep_cli.song.take_parts import OutputPart


class SongSource(NamedTuple):
    """The recordings that a song is made from."""

    layout: SourceLayout
    latents: Tensor | None  # [1, T, C], of the source
    references: list[Tensor]  # each [A, N]


@dataclass
class ConditionInputs:
    """One phase of a diffusion: what its mode prepared, the request whose words it follows, and its encoded prompts."""

    prepared: Prepared
    request: Completed
    text_states: Tensor = field(init=False)  # [1, Lt, width]
    lyric_states: Tensor = field(init=False)  # [1, Ll, width]


def prepared_phases(request: Completed) -> list[tuple[Prepared, Completed]]:
    """Return the phases of a request's diffusion: what the mode prepared, and the request whose words it follows."""
    first = modes.mode_of(request).prepare(request, request.region)
    if first.edit is not None:
        return [(first, modes.source_description(request)), (first, request)]
    second = [] if first.second_phase is None else [(first.second_phase[1], request)]
    return [(first, request), *second]


@dataclass
class RenderPart:
    """The part of a song that is rendered at once: all of it, or one stem.

    The diffusion goes through its phases in their order. An edit has the description of its source before its own.
    """

    output: OutputPart
    phases: list[ConditionInputs]
    takes: list[Completed]
    #: True where the Songwriter wrote codes for each take: then each has a context of its own.
    has_own_codes: bool
    warnings: list[str] = field(default_factory=list)
    #: Its lyrics, once they are encoded, where they are to be aligned with the song.
    lyrics: LyricTokens | None = None

    @classmethod
    def of(cls, outputs: Sequence[OutputPart]) -> RenderPart:
        """Return the part of one output, or of the same output of takes that are requests of their own."""
        return cls(
            output=outputs[0],
            phases=[ConditionInputs(*phase) for phase in prepared_phases(outputs[0].request)],
            takes=[take for output in outputs for take in take_parts.single_takes(output.request)],
            has_own_codes=len(outputs) > 1,
        )

    @property
    def prepared(self) -> Prepared:
        return self.phases[0].prepared

    @property
    def schedule(self) -> tuple[float, ...]:
        """The times of the diffusion, from noise, or from the share of the source that is kept, to 0."""
        times, source_share = self.output.request.schedule, self.prepared.source_share
        return solvers.shorten_schedule(times, source_share) if source_share else times

    @property
    def steps(self) -> int:
        return len(self.schedule) - 1


class DiffusionInputs(NamedTuple):
    """The tensors that the diffusion of a part starts from: a context [1, T, in_channels - C] for each phase, the
    source it holds on to, and clean latents [1, T, C] to begin with, or to edit.
    """

    contexts: list[Tensor]
    hold: denoise.SourceHold | None
    start: Tensor | None


class TakeInputs(NamedTuple):
    """One take of a part, with the inputs of its diffusion and a condition for each phase."""

    part: RenderPart
    take: Completed
    diffusion: DiffusionInputs
    conditions: list[Condition]

    def edit_change(self, latents: Tensor) -> float | None:
        """Return how far latents [T, C] were edited away from the source; None where it is no edit."""
        source = self.diffusion.start
        is_edit = self.part.prepared.edit is not None
        return conditioning.relative_distance(source[0], latents) if is_edit and source is not None else None
