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

from acestep_cli.audio.decode import Recording
from acestep_cli.audio.regular_file import file_hash, unreadable_error
from acestep_cli.errors import CheckpointError, SourceError
from acestep_cli.models import tensor_file, weight_files

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIX = ".latents.safetensors"
TENSOR, DTYPE = "latents", "F32"
#: The key of the metadata under which a header stands, within so many bytes of the beginning of a file.
METADATA, METADATA_WITHIN = "acestep", 4096


@dataclass(frozen=True)
class Latents:
    """The latents of a sound: `frames` [T, C], float32, of `hop` samples each.

    The sound is `gain` times the decoded latents, except for peaks over full scale that a splice lowered.
    """

    frames: NDArray[np.float32]
    hop: int
    gain: float = 1.0


class LatentsHeader(BaseModel):
    """The metadata of a latents file.

    Args:
        audio: Fingerprint of the audio file that the latents belong to.
        vae: Fingerprint of the VAE that they belong to.
        gain: Factor from the decoded latents to the samples of the audio file.
        samples: Number of samples of the audio file, per channel.
        hop: Samples per latent frame.
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
    """Stored latents that belong to a source.

    Args:
        fingerprint: Hash of the latents and their header, without `audio`, which new tags in the source would change.
        is_checked: False where an earlier version wrote them, without a checksum.
    """

    path: Path
    header: LatentsHeader
    fingerprint: str
    is_checked: bool = True


def latents_path(file: Path) -> Path:
    """Return the path of the latents file beside an audio file."""
    return file.with_name(file.name + SUFFIX)


def write_latents(path: Path, latents: Latents, header: LatentsHeader) -> None:
    """Write the frames that `header` describes to the new file `path`. Raises `OSError` where that fails."""
    frames = tensor_file.block(latents.frames[: header.frames])
    tensor_file.write(path, {TENSOR: frames}, {METADATA: header.model_dump_json()})


def read_header(path: Path) -> LatentsHeader | None:
    """Read the metadata of a latents file; None for a file that this program did not write, or a damaged one."""
    try:
        found = inspect_latents(path)
    except SourceError:
        return None
    return None if isinstance(found, str) else found


def is_ours(path: Path) -> bool:
    """Tell whether this program wrote a latents file, also where that is damaged or cut short since.

    A file whose beginning is lost counts as another program's.
    """
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return f'"{METADATA}":'.encode() in file.read(METADATA_WITHIN)
    except OSError:
        return False


def inspect_latents(path: Path) -> LatentsHeader | str:
    """Return the metadata of a latents file, or why it is none. Raises `SourceError` where it is one and damaged.

    What has the name of a latents file, and is no whole file of tensors, counts as damaged: another program's are.
    """
    try:
        tensors, notes = weight_files.read_contents(path)
    except CheckpointError as error:
        raise _damaged_error(path, error.message.replace(f"{path}", "it", 1)) from error
    if METADATA not in notes:
        return "this is not what --keep-latents writes"
    try:
        header = LatentsHeader.model_validate_json(notes[METADATA])
    except ValidationError as error:
        wrong = [".".join(map(str, one["loc"])) or "all" for one in error.errors()]
        if wrong == ["format"]:
            return "this is of another version of this program"
        raise _damaged_error(path, f"its header has no usable {', '.join(wrong)}") from error
    if (found := tensors.get(TENSOR)) is None:
        raise _damaged_error(path, f"it holds no tensor {TENSOR}")
    if found.dtype != DTYPE or len(found.shape) != 2 or found.shape[0] != header.frames or not found.shape[1]:
        promised = f"[{header.frames}, channels] in {DTYPE}"
        raise _damaged_error(path, f"{TENSOR} is {list(found.shape)} in {found.dtype}, and its header says {promised}")
    return header


def latents_belong(path: Path, file: Path) -> bool:
    """Return True where the latents at `path` belong to the audio `file` with its present content."""
    header = read_header(path) if path.is_file() else None
    if header is None or header.audio != file_hash(file):
        return False
    return tensor_file.is_undamaged(path) is not False


def find_latents(recording: Recording, vae: str, before: float) -> StoredLatents | str:
    """Return the latents beside a recording that is extended by `before` seconds in front, or why they are unusable.

    `vae` is the fingerprint of the VAE, or empty where that is not known yet. Raises `SourceError` where their header
    is damaged, or where they would be used and are not what their checksum says.
    """
    path = latents_path(recording.path)
    header = inspect_latents(path)
    if isinstance(header, str):
        return header
    if header.audio != recording.fingerprint:
        return f"these are of another {recording.path.name} than is there now"
    if vae and header.vae != vae:
        return "these are of another autoencoder"
    # An encoder may fill its last block up with silence, as AAC's does.
    if not 0 <= round(recording.seconds * header.sample_rate) - header.samples < header.hop:
        return f"these are of {header.samples / header.sample_rate:g} s, and {recording.seconds:g} s can be read"
    if round(before * header.sample_rate) % header.hop:
        return f"they cannot be moved by {before:g} s, which is not a multiple of {header.hop / header.sample_rate:g} s"
    if (is_undamaged := tensor_file.is_undamaged(path)) is False:
        raise _damaged_error(path)
    return StoredLatents(path, header, latents_hash(path, header), is_checked=is_undamaged is True)


def latents_hash(path: Path, header: LatentsHeader) -> str:
    """Hash the latents at `path` and their header, without `audio`. Raises `SourceError` where they cannot be read."""
    digest = hashlib.sha256(header.model_dump_json(exclude={"audio"}).encode())
    try:
        start = weight_files.read_contents(path)[0][TENSOR].start
        with path.open("rb") as file:
            file.seek(start)
            return hashlib.file_digest(file, lambda: digest).hexdigest()[:16]
    except OSError as error:
        raise unreadable_error(path, error) from error


def rewrite_latents(path: Path, header: LatentsHeader, to: Path) -> None:
    """Copy the latents at `path` to the new file `to`, with a new header."""
    write_latents(to, Latents(read_latents(path), header.hop), header)


def read_latents(path: Path) -> NDArray[np.float32]:
    """Read the frames [T, C] of a latents file. Raises `SourceError` where it is missing or damaged."""
    from safetensors import SafetensorError

    try:
        with tensor_file.open_tensors(path, "np") as file:
            frames: NDArray[np.float32] = file.get_tensor(TENSOR)
        is_undamaged = tensor_file.is_undamaged(path)
    except (CheckpointError, OSError, SafetensorError) as error:
        raise SourceError(f"{path} cannot be read any more: {error}.", "Run the command again.") from error
    if is_undamaged is False:
        raise _damaged_error(path)
    return frames


def _damaged_error(path: Path, why: str = "") -> SourceError:
    reason = f": {why.rstrip('.')}" if why else ", as its checksum tells"
    return SourceError(f"{path} is damaged{reason}.", "Delete it; the source is encoded instead.")
