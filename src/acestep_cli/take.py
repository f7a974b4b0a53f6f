"""A finished take as a plain value: its audio, the request that renders it again, and its measurements."""

from __future__ import annotations

from dataclasses import dataclass, field

from acestep_cli.audio.lrc import TimedLine
from acestep_cli.audio.sound import Audio
from acestep_cli.audio.splice import SplicedParts
from acestep_cli.machine.plan import Plan
from acestep_cli.models.adapters import AppliedAdapter
from acestep_cli.models.latents_file import Latents
from acestep_cli.song.complete import Completed
from acestep_cli.song.ranking import Scores


@dataclass(frozen=True)
class Take:
    """One output of a finished take: the song, a stem, or the mix or residual written beside stems."""

    number: int
    #: As decoded, before any loudness is set.
    audio: Audio
    #: Enough to render the take again.
    request: Completed
    plan: Plan
    #: Seconds by stage. Stages that all takes share, and loading, are counted in the first take.
    timings: dict[str, float]
    warnings: tuple[str, ...]
    kind: str = "take"
    track: str | None = None
    #: The reason not to keep the take, if there is one.
    problem: str | None = None
    #: None for an output that is a sum of others.
    latents: Latents | None = None
    #: The lyrics in time, and the scores, where they were asked for.
    lines: tuple[TimedLine, ...] = ()
    scores: Scores = field(default_factory=dict)
    #: The adapters, with the number of matrices each was applied to.
    applied: tuple[AppliedAdapter, ...] = ()
    #: Of a take that was spliced onto its source.
    splice: SplicedParts | None = None
    #: Of a residual: the root mean square of the source that it is left of.
    residual_of: float | None = None
    #: True where memory ran out while it was made, so that its plan is not the one that it began with.
    fell_back: bool = False
    #: Of an edit: the distance of its latents from those of its source, relative to their size.
    edit_change: float | None = None
