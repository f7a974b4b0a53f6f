"""The settings of a render besides the song: where the files go, what it runs on, and how much it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RenderSettings:
    """Settings of a rendering command besides the song. `cli.options` makes a flag of each field."""

    #: FILE, FOLDER/ or - for stdout; None writes into the current folder.
    output: str | None = None
    #: `key=value` for any key of the spec.
    overrides: list[str] | None = None
    #: `key=value,value`: a song for each combination.
    matrix: list[str] | None = None
    #: Replace existing files.
    force: bool = False
    #: Make new takes beside existing ones.
    again: bool = False
    no_sidecar: bool = False
    keep_latents: bool = False
    #: Use the stage cache.
    cache: bool = False
    #: Score the takes and report the best first.
    rank: bool = False
    dry_run: bool = False
    #: One short take, checked for faults.
    smoke: bool = False
    #: Make takes until interrupted.
    auto: bool = False
    #: Print every effective value and its origin.
    explain: bool = False
    json: bool = False
    #: FILE or fd:N that receives events.
    events: str | None = None
    no_think: bool = False
    models_dir: Path | None = None
    #: Fetch what is missing of the checkpoint first.
    pull: bool = False
    #: A device by name; None takes the best that the song fits into.
    device: str | None = None
    dtype: str | None = None
    #: The most bytes of device memory to use; None takes what is free.
    max_vram: int | None = None
    #: The most seconds for a song.
    timeout: float | None = None
    #: auto, plain or none.
    progress: str = "auto"
    quiet: bool = False
    verbose: bool = False
    no_input: bool = False
    debug: bool = False
