"""A finished take, as a plain value: its audio, the request that makes it again, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from acestep_cli.audio.lrc import TimedLine
from acestep_cli.audio.sound import Audio
from acestep_cli.machine.plan import Plan
from acestep_cli.models.adapters import AppliedAdapter
from acestep_cli.models.latents_file import Latents
from acestep_cli.song.complete import Completed
from acestep_cli.song.ranking import Scores


@dataclass(frozen=True)
class Take:
    """One file of a finished take: the song, or a stem of its `track`, or what is written beside stems.

    `audio` is as decoded, before any loudness is set. `request` is complete: it alone makes the take again. `plan`
    is how the machine made it. `timings` are seconds by stage; those that all takes share, and what was spent on
    loading, are on the first one's. `checks` were measured, `remarks` say what they mean, and with a `problem` it is
    not fit to be kept. What is written beside stems was decoded from no `latents`.
    """

    number: int
    audio: Audio
    request: Completed
    plan: Plan
    timings: dict[str, float]
    warnings: tuple[str, ...]
    kind: str = "take"
    track: str | None = None
    checks: dict[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    problem: str | None = None
    latents: Latents | None = None
    #: The lyrics in time, and the scores, where they were asked for.
    lines: tuple[TimedLine, ...] = ()
    scores: Scores = field(default_factory=dict)
    #: What became of its adapters.
    applied: tuple[AppliedAdapter, ...] = ()
    #: Of what was spliced onto its source: from where to where, in samples, it is the source.
    untouched: tuple[tuple[int, int], ...] = ()
