"""The values that all takes of a run share while they are made."""

from __future__ import annotations

from dataclasses import dataclass

from acestep_cli.render.reporter import Reporter, ResultStream
from acestep_cli.render.settings import RenderSettings


@dataclass(frozen=True)
class RenderSession:
    """The settings of a run, the reporter of what happens in it, and the stream of its results."""

    settings: RenderSettings
    reporter: Reporter
    results: ResultStream
