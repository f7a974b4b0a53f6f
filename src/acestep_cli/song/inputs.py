"""The recordings and adapters that a request names, read before anything is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.audio import decode
from acestep_cli.audio.decode import Recording
from acestep_cli.errors import AdapterError, LongSourceError, SourceError
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.song import modes, regions
from acestep_cli.song.duration import SongLength, song_length
from acestep_cli.song.regions import Region
from acestep_cli.song.request import Request

if TYPE_CHECKING:
    from acestep_cli.models.adapters import Adapter

#: The longest reference that is read, in seconds.
LONGEST_REFERENCE = 3600.0


@dataclass(frozen=True)
class Inputs:
    """The recordings and adapters of a request, as read, by path, and the length of its song."""

    recordings: Mapping[str, Recording]
    #: The region of the source that is rendered anew; None without a source.
    region: Region | None
    length: SongLength
    adapters: Mapping[str, Adapter]
    adapter_warnings: Sequence[str]


def read_inputs(request: Request, checkpoint: Checkpoint | None) -> Inputs:
    """Read the recordings and adapters of a request; without a checkpoint, the fit of adapters is not checked.

    Raises `SourceError` or `AdapterError`, whose message begins with the key, where one cannot be used.
    """
    recordings = survey_recordings(request)
    adapters, warnings = survey_adapters(request, checkpoint)
    source = recordings.get(request.source or "")
    region = None if source is None else Region.of(request, source.seconds)
    return Inputs(recordings, region, song_length(request, region), adapters, warnings)


def survey_recordings(request: Request) -> dict[str, Recording]:
    """Survey the source and the references of a request. Return the recordings by path.

    Raises `SourceError`, whose message begins with the key, where one cannot be used.
    """
    sources = () if request.source is None else (request.source,)
    recordings = {}
    for key, files, longest in (
        ("source", sources, decode.LONGEST_READ if request.context is None else LONGEST_REFERENCE),
        ("reference", request.reference or (), LONGEST_REFERENCE),
    ):
        for file in files:
            try:
                recordings[file] = decode.survey_file(Path(file), longest)
            except SourceError as error:
                hint = error.hint
                if isinstance(error, LongSourceError) and key == "source" and may_view_a_part(request):
                    hint = f"{regions.VIEW_A_PART} works on up to {LONGEST_REFERENCE / 60:g} minutes."
                raise SourceError(f"{key}: {error.message}", hint) from error
    return recordings


def may_view_a_part(request: Request) -> bool:
    """Tell whether `context` could be asked for, and is not."""
    return request.context is None and "context" in modes.mode_of(request).keys


def survey_adapters(request: Request, checkpoint: Checkpoint | None) -> tuple[dict[str, Adapter], list[str]]:
    """Read the adapters of a request. Return them by path, and warnings about them.

    Raises `AdapterError`, whose message begins with the key, where one is broken or does not fit `checkpoint`; the fit
    is not checked where `checkpoint` is None.
    """
    if request.loras is None:
        return {}, []
    from acestep_cli.models import adapter_file
    from acestep_cli.models.sizes import Sizes

    found: dict[str, Adapter] = {}
    warnings: list[str] = []
    for lora in request.loras:
        try:
            adapter = found[lora.path] = adapter_file.read_adapter(Path(lora.path))
            warnings += adapter.warnings
            if checkpoint is not None:
                warnings += adapter.require_fit(Sizes.of(checkpoint).dit, checkpoint.name)
            adapter.require_finite()
        except AdapterError as error:
            raise AdapterError(f"loras: {error.message}", error.hint) from error
        word = adapter.trigger_word
        if word is not None and request.caption is not None and word.casefold() not in request.caption.casefold():
            warnings.append(f"{lora.path} was trained with the trigger word {word!r}, which the caption does not have.")
    return found, warnings
