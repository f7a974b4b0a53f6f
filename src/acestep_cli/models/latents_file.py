"""Latents kept beside an audio file, so that whoever works on the file need not encode it again.

They are what the file was decoded from, and not what an encoder would make of it. The level of the file was set after
decoding, and a gain in sound is none in latents: so the gain is kept with them, and what is made along them is brought
to the level of the file by it.

Shapes: T latent frames, C latent channels.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from acestep_cli.audio import decode
from acestep_cli.audio.decode import Recording
from acestep_cli.errors import CheckpointError, SourceError
from acestep_cli.models import tensor_file, weight_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIX = ".latents.safetensors"
TENSOR = "latents"
#: The key of the metadata under which a header stands.
METADATA = "acestep"


@dataclass(frozen=True)
class Latents:
    """What sound was decoded from: `frames` [T, C], float32, of `hop` samples each. The sound is `gain` times what they
    decode to, but for peaks over full scale that a splice brought down.
    """

    frames: NDArray[np.float32]
    hop: int
    gain: float = 1.0


class LatentsHeader(BaseModel):
    """What a file of latents says of itself: the fingerprint of the audio file and of the autoencoder that they belong
    to, the gain from what they decode to to the samples of that file, how many samples those were, and the hop.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    format: Literal["acestep-latents/1"] = "acestep-latents/1"
    audio: str
    vae: str
    gain: PositiveFloat
    samples: PositiveInt
    sample_rate: PositiveInt
    hop: PositiveInt

    @property
    def frames(self) -> int:
        return math.ceil(self.samples / self.hop)


@dataclass(frozen=True)
class StoredLatents:
    """Latents that lie beside a source and belong to it. `fingerprint` is of them and of what their header says, save
    which bytes the source has: other tags change those, and no sound. `is_checked` is false where they carry no
    checksum, being of an earlier version.
    """

    path: Path
    header: LatentsHeader
    fingerprint: str
    is_checked: bool = True


def latents_path(file: Path) -> Path:
    """Where the latents of an audio file lie."""
    return file.with_name(file.name + SUFFIX)


def write_latents(path: Path, latents: Latents, header: LatentsHeader) -> None:
    """Write the frames of what `header` tells of to the new file `path`. `OSError` where the disk takes none."""
    frames = tensor_file.block(latents.frames[: header.frames])
    tensor_file.write(path, {TENSOR: frames}, {METADATA: header.model_dump_json()})


def read_header(path: Path) -> LatentsHeader | None:
    """What the file `path` says of itself; None for a file that was not written here, or no whole one."""
    try:
        tensors, notes = weight_files.read_contents(path)
        header, shape = LatentsHeader.model_validate_json(notes[METADATA]), tensors[TENSOR].shape
    except (CheckpointError, KeyError, ValidationError):
        return None
    return header if len(shape) == 2 and shape[0] == header.frames else None


def latents_belong(path: Path, file: Path) -> bool:
    """Whether there are latents at `path` that belong to the audio `file` as it is now."""
    header = read_header(path) if path.is_file() else None
    if header is None or header.audio != decode.file_hash(file):
        return False
    return tensor_file.is_undamaged(path) is not False


def find_latents(recording: Recording, vae: str, before: float) -> StoredLatents | str:
    """The latents beside a recording that is extended by `before` seconds to the front, or why they are of no use.

    `vae` is the fingerprint of the autoencoder, or empty where that is not known yet. Raises `SourceError` where they
    would be used, and are not what their checksum says.
    """
    path = latents_path(recording.path)
    header = read_header(path)
    if header is None:
        return "this is not what --keep-latents writes"
    if header.audio != recording.fingerprint:
        return f"these are of another {recording.path.name} than is there now"
    if vae and header.vae != vae:
        return "these are of another autoencoder"
    # An encoder may fill its last block up with silence, as AAC's does.
    if not 0 <= round(recording.seconds * header.sample_rate) - header.samples < header.hop:
        return f"these are of {header.samples / header.sample_rate:g} s, and {recording.seconds:g} s can be read"
    if round(before * header.sample_rate) % header.hop:
        return f"they cannot be moved by {before:g} s, which are no multiple of {header.hop / header.sample_rate:g} s"
    if (is_undamaged := tensor_file.is_undamaged(path)) is False:
        raise _damaged_error(path)
    return StoredLatents(path, header, latents_hash(path, header), is_checked=is_undamaged is True)


def latents_hash(path: Path, header: LatentsHeader) -> str:
    """What decides the sound that is made along the latents at `path`. `SourceError` where they cannot be read."""
    said = hashlib.sha256(header.model_dump_json(exclude={"audio"}).encode())
    try:
        start = weight_files.read_contents(path)[0][TENSOR].start
        with path.open("rb") as file:
            file.seek(start)
            return hashlib.file_digest(file, lambda: said).hexdigest()[:16]
    except OSError as error:
        raise decode.unreadable_error(path, error) from error


def rewrite_latents(path: Path, header: LatentsHeader, to: Path) -> None:
    """Write the latents at `path` once more, to the new file `to`, with what is to be said of them now."""
    write_latents(to, Latents(read_latents(path), header.hop), header)


def read_latents(path: Path) -> NDArray[np.float32]:
    """The frames [T, C] of a file of latents. `SourceError` where they are gone or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            frames: NDArray[np.float32] = file.get_tensor(TENSOR)
        is_undamaged = tensor_file.is_undamaged(path)
    except (CheckpointError, OSError, SafetensorError) as error:
        raise SourceError(f"{path} cannot be read any more: {error}.", "Run the command again.") from error
    if is_undamaged is False:
        raise _damaged_error(path)
    return frames


def _damaged_error(path: Path) -> SourceError:
    return SourceError(f"{path} is damaged, as its checksum tells.", "Delete it; the source is encoded instead.")
