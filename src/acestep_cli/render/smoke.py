"""`--smoke`: the shortest render, and checks of its result; for CI."""

from __future__ import annotations

import math

from acestep_cli.audio import checks
from acestep_cli.errors import CheckError
from acestep_cli.models.checkpoint_table import CheckpointRow
from acestep_cli.song import modes, spec, spec_layers

FLAG = "--smoke"
STEPS = 2


def smoke_layer(layers: list[spec_layers.Layer], cut_to: float | None = None) -> spec_layers.Layer:
    """Return the layer of `--smoke` between specs and flags: one take of few steps and the shortest duration.

    The source may have been `cut_to` so many seconds; a region beyond its end is then moved to its middle.
    """
    asked = spec.resolve(*layers).request
    short: dict[str, str | None] = {"steps": str(STEPS), "takes": "1"}
    if not modes.mode_of(asked).has_source:
        short |= {
            "duration": str(math.ceil(CheckpointRow.shortest_seconds)),
            "codes": None,
            "fade_in": None,
            "fade_out": None,
        }
    elif cut_to is not None and max(asked.start or 0.0, asked.end or 0.0) > cut_to:
        short |= {"start": f"{cut_to / 3:.2f}", "end": f"{2 * cut_to / 3:.2f}"}
    return spec_layers.implied_layer(short, FLAG)


def refuse_faults(file: checks.MeasuredFile) -> None:
    """Raise `CheckError` where a finished file is silent, dead on one side, clipped, or has a DC offset."""
    found = [check(file) for check in checks.fault_checks().values()]
    if failed := [finding.sentence for finding in found if not finding.passed]:
        raise CheckError(f"{FLAG}: {'; '.join(failed)}; no file was written.")
