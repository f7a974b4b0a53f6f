"""Complete a request, exactly once: fill in every value that was not asked for, and refuse contradictions.

The values come from the checkpoint, the mode and the recordings. Keys that a Songwriter decides stay open until the
song is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from acestep_cli import solvers
from acestep_cli.audio import encode
from acestep_cli.audio.decode import Recording
from acestep_cli.errors import UsageError
from acestep_cli.models import latents_file
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.models.latents_file import StoredLatents
from acestep_cli.song import duration, loras, modes, validate
from acestep_cli.song.duration import SongLength
from acestep_cli.song.file_values import LORA_MODES
from acestep_cli.song.inputs import Inputs, read_inputs
from acestep_cli.song.key import CORRECTIONS
from acestep_cli.song.loras import ActiveAdapter
from acestep_cli.song.regions import Region
from acestep_cli.song.request import KEYS, NEUTRAL, Request
from acestep_cli.song.seeds import draw_seed, draw_variation, text_seed

if TYPE_CHECKING:
    from acestep_cli.models.adapters import Adapter

#: The origin of a seed that nobody asked for.
DRAWN = "drawn"
DEFAULT_LOUDNESS = "peak:-1"


class Completed(Request):
    """A request in which every value is decided, except the keys in `open`, which the Songwriter decides.

    Once nothing is open, it is enough to render the same takes again.
    """

    mode: str
    model: str
    duration: float
    solver: str
    guidance: float
    seed: int
    takes: int
    loudness: str
    format: str
    #: Keys that the Songwriter decides when the song is made. If `duration` is one of them, its value is an estimate.
    open: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    #: The seed of the text that the Songwriter writes, which all takes share.
    text_seed: Annotated[int, Field(exclude=True)] = 0
    #: The region of the source that is rendered anew, whole unless asked for; None without a source.
    region: Annotated[Region | None, Field(exclude=True)] = None
    #: The adapters whose strength is not 0, as read, in order.
    adapters: Annotated[tuple[ActiveAdapter, ...], Field(exclude=True)] = ()
    #: Stored latents of the source. With them, the source is not encoded.
    source_latents: Annotated[StoredLatents | None, Field(exclude=True)] = None
    #: Names of the scores that its takes get, from `ranking.ALL`.
    scored: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    #: Total length of its references, in seconds.
    reference_seconds: Annotated[float, Field(exclude=True)] = 0.0

    @property
    def schedule(self) -> tuple[float, ...]:
        """The times of the diffusion from noise, 1 or the first that was asked for, to music, 0."""
        if self.timesteps is not None:
            return solvers.explicit_schedule(self.timesteps)
        assert self.steps is not None
        assert self.shift is not None
        return solvers.timestep_schedule(self.steps, self.shift)

    @property
    def step_count(self) -> int:
        """The number of diffusion steps from noise to music."""
        return len(self.schedule) - 1

    @property
    def encodes_source(self) -> bool:
        """True where the VAE has to encode the source."""
        return self.source is not None and self.source_latents is None


@dataclass(frozen=True)
class Completion:
    """A completed request, with the origin of each decided value, its recordings and adapters by path, and warnings."""

    request: Completed
    origins: Mapping[str, str]
    recordings: Mapping[str, Recording]
    adapters: Mapping[str, Adapter]
    warnings: tuple[str, ...] = ()

    @property
    def contents(self) -> dict[str, str]:
        """Fingerprints of the content of each recording and adapter, by path."""
        sounds = {name: recording.sound for name, recording in self.recordings.items()}
        return {**sounds, **{name: adapter.fingerprint for name, adapter in self.adapters.items()}}


def complete(request: Request, checkpoint: Checkpoint, songwriter: Songwriter | None = None) -> Completed:
    """Return `request` with every open value decided. A sidecar records the result."""
    return complete_request(request, checkpoint, songwriter).request


def complete_request(request: Request, checkpoint: Checkpoint, songwriter: Songwriter | None = None) -> Completion:
    """Complete `request`, and record the origin of each decided value. Keys for a Songwriter stay open.

    Raises errors as `examine` does.
    """
    return decide(request, checkpoint, examine(request, checkpoint), songwriter)


def examine(request: Request, checkpoint: Checkpoint) -> Inputs:
    """Read the recordings and adapters of a request, and refuse what contradicts them, itself or the checkpoint.

    Raises `SourceError` where a recording cannot be used, `CheckpointError` where the checkpoint was not trained for
    the mode, `AdapterError` where an adapter does not fit it, and `UsageError` with all contradictions between
    request, recordings and checkpoint.
    """
    validate.require_task(request, checkpoint.name, checkpoint.row)
    validate.require_heads(request, checkpoint)
    inputs = read_inputs(request, checkpoint)
    if problems := validate.contradictions(request, inputs, checkpoint.name, checkpoint.row, checkpoint.code_count):
        raise UsageError("\n".join(problems))
    return inputs


def decide(
    request: Request, checkpoint: Checkpoint, inputs: Inputs, songwriter: Songwriter | None = None
) -> Completion:
    """Decide every value of an examined request but those that `songwriter` decides."""
    open_by_songwriter = open_keys(request) if songwriter is not None else ()
    choices = Choices(request.model_dump())
    choose_models(choices, request, checkpoint, songwriter if open_by_songwriter else None)
    choose_mode_defaults(choices, request, inputs.length, open_by_songwriter)
    choose_sampling(choices, request, checkpoint)
    if not request.instrumental and choices.values["lyrics"] is not None and "language" not in open_by_songwriter:
        choices.set_default("language", "unknown", duration.DEFAULT)
    choose_encoding(choices, request)
    source_latents, latents_warnings = find_latents(request, checkpoint, inputs)
    completed = Completed(
        **choices.values,
        open=open_by_songwriter,
        text_seed=text_seed(choices.values["seed"], request.songwriter_seed),
        region=inputs.region,
        adapters=loras.active_adapters(request.loras or (), choices.values["lora_mode"], inputs.adapters),
        source_latents=source_latents,
        reference_seconds=sum(inputs.recordings[file].seconds for file in request.reference or ()),
    )
    recording_warnings = [warning for recording in inputs.recordings.values() for warning in recording.warnings]
    warnings = (*recording_warnings, *inputs.adapter_warnings, *latents_warnings)
    return Completion(completed, choices.origins, inputs.recordings, inputs.adapters, warnings)


@dataclass
class Choices:
    """The values of a request while it is completed, with the origin of each that was not asked for."""

    values: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)

    def set_default(self, key: str, value: Any, origin: str) -> None:
        """Set `key` to `value`, unless it has one."""
        if self.values[key] is None and value is not None:
            self.replace(key, value, origin)

    def replace(self, key: str, value: Any, origin: str) -> None:
        self.values[key], self.origins[key] = value, origin


def choose_models(choices: Choices, request: Request, checkpoint: Checkpoint, writer: Songwriter | None) -> None:
    """Name the checkpoint, and the Songwriter if one is needed."""
    if request.model in (None, "auto"):
        choices.replace("model", checkpoint.name, "auto: the first installed that fits")
    if writer is None and not modes.mode_of(request).follows_codes:
        choices.values |= dict.fromkeys(modes.SONGWRITER_KEYS)  # they change nothing, so they are not in the recipe
    elif request.songwriter in (None, "auto"):
        helper = writer.name if writer is not None else "none"
        choices.replace("songwriter", helper, "auto: the largest installed that fits, if it is needed")


def choose_mode_defaults(
    choices: Choices, request: Request, length: SongLength, open_by_songwriter: tuple[str, ...]
) -> None:
    """Set the mode, the length of the song, and the defaults of the mode."""
    mode = modes.mode_of(request)
    choices.set_default("mode", "generate", duration.DEFAULT)
    is_estimate = "duration" in open_by_songwriter
    origin = f"{length.origin}, until the Songwriter decides" if is_estimate else length.origin
    choices.set_default("duration", length.seconds, origin)
    for key, value in mode.defaults(request).items():
        choices.set_default(key, value, f"mode {request.mode}")
    if mode.keeps_level:
        choices.set_default("loudness", "none", f"mode {request.mode}")


def choose_sampling(choices: Choices, request: Request, checkpoint: Checkpoint) -> None:
    """Set solver, guidance, seed, takes, schedule and the mode of adapters."""
    row, by_checkpoint = checkpoint.row, f"checkpoint {checkpoint.name}"
    choices.set_default("solver", "euler", duration.DEFAULT)
    choices.set_default("guidance", row.guidance, by_checkpoint)
    choose_corrections(choices, checkpoint, edits=modes.mode_of(request).describes_source)
    choices.set_default("seed", draw_seed(), DRAWN)
    choices.set_default("takes", 1, duration.DEFAULT)
    if request.variation is not None:
        choices.set_default("variation_seed", draw_variation(choices.values["seed"], choices.values["takes"]), DRAWN)
    if request.timesteps is None:
        choices.set_default("steps", row.steps, by_checkpoint)
        choices.set_default("shift", row.shift, by_checkpoint)
    if request.loras is not None:
        choices.set_default("lora_mode", LORA_MODES[0], duration.DEFAULT)
    if choices.values["guidance"] > 1:
        choices.set_default("guidance_method", "apg", duration.DEFAULT)
        choices.set_default("cfg_interval", (0.0, 1.0), duration.DEFAULT)


def choose_corrections(choices: Choices, checkpoint: Checkpoint, *, edits: bool) -> None:
    """Set the corrections of velocity, steps and latents: none, but those that the checkpoint is published with. An
    edit has none of its steps.
    """
    if choices.values["dcw"] in (None, solvers.AUTO_CORRECTION):
        of_mode = (solvers.NO_CORRECTION, f"auto: mode {choices.values['mode']}")
        choices.replace("dcw", *(of_mode if edits else (checkpoint.row.dcw, f"auto: checkpoint {checkpoint.name}")))
    if choices.values["dcw"] != solvers.NO_CORRECTION:
        choices.set_default("dcw_scale", solvers.DCW_SCALE, duration.DEFAULT)
    if choices.values["dcw"] == "double":
        choices.set_default("dcw_high_scale", solvers.DCW_HIGH_SCALE, duration.DEFAULT)
    for key, value in NEUTRAL.items():
        if KEYS[key].panel == CORRECTIONS:
            choices.set_default(key, value, duration.DEFAULT)


def choose_encoding(choices: Choices, request: Request) -> None:
    """Set loudness, format and the options of its encoder."""
    choices.set_default("loudness", DEFAULT_LOUDNESS, duration.DEFAULT)
    choices.set_default("format", encode.DEFAULT_FORMAT, duration.DEFAULT)
    encoding = encode.resolve_encoding(
        choices.values["format"], request.bit_depth, request.bitrate, request.sample_rate
    )
    choices.set_default("bit_depth", encoding.bit_depth, duration.DEFAULT)
    if not request.markers:  # the same as unset, and so the same recipe
        choices.values["markers"] = None
    choices.set_default("bitrate", encoding.bitrate, duration.DEFAULT)


def find_latents(
    request: Request, checkpoint: Checkpoint, inputs: Inputs
) -> tuple[StoredLatents | None, tuple[str, ...]]:
    """Return the stored latents beside the source, or None, and a warning where a latents file cannot be used."""
    source, region = inputs.recordings.get(request.source or ""), inputs.region
    if region is None or source is None or not (path := latents_file.latents_path(source.path)).is_file():
        return None, ()
    found = latents_file.find_latents(source, checkpoint.vae_hash, region.seconds_before)
    if isinstance(found, str):
        return None, (f"{path}: {found}; the source is encoded anew.",)
    unchecked = f"{path} has no checksum, as an earlier version wrote it: whether it is damaged cannot be told."
    return found, (() if found.is_checked else (unchecked,))


def open_keys(request: Request) -> tuple[str, ...]:
    """Return the keys that a request leaves to the Songwriter.

    There are none where codes are given, or where the Songwriter may not be asked. Where the mode does not follow
    codes, they are caption and metadata: the source decides the length and stays as it is.
    """
    if request.codes is not None or not modes.may_ask_songwriter(request):
        return ()
    written = ("caption", "lyrics", "genre") if request.idea is not None else ("caption",)
    composed = ("duration", "codes") if modes.mode_of(request).follows_codes else ()
    keys = (*written, "language", "bpm", "key", "time_signature", *composed)
    silent = () if duration.may_be_sung(request) else ("lyrics", "language")
    return tuple(key for key in keys if getattr(request, key) is None and key not in silent)


def fill_open(request: Completed, written: Mapping[str, Any]) -> Completed:
    """Return `request` with the values that the Songwriter has `written` and without its options; no key is open."""
    found = {key: written[key] for key in request.open if key in written}
    if "lyrics" in request.open:
        found = mark_instrumental(found)
        found["lrc"] = request.lrc if found["lyrics"] is not None else None
    its_own = dict.fromkeys(modes.SONGWRITER_KEYS)
    # Where the mode takes no codes, only a named Songwriter is asked, so that `none` need not be said.
    writer = "none" if modes.mode_of(request).follows_codes else None
    return request.model_copy(update={**found, **its_own, "songwriter": writer, "open": ()})


def mark_instrumental(song: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a song; without lyrics, it is instrumental and has no language."""
    if song.get("lyrics") is not None:
        return dict(song)
    return {**song, "lyrics": None, "language": None, "instrumental": True}
