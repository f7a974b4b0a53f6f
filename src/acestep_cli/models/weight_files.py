"""Files of weights and the JSON beside them, as they lie on disk: whole or not, what their headers say, and a hash.

The tensors themselves are read by `engine.weights`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acestep_cli import disk
from acestep_cli.errors import CheckpointError, reason_of

WEIGHTS_SUFFIX = ".safetensors"
#: No offset or size in a header reaches this: they are 64-bit integers.
LARGEST = 2**63
#: Bounds of what is parsed, so that a crafted file is refused within a second.
MOST_HEADER_BYTES, MOST_TENSORS, MOST_NAME_LETTERS, MOST_DIMENSIONS = 8 << 20, 16_384, 1024, 8
MOST_JSON_BYTES = 16 << 20
#: The bits of one element, by safetensors' name of its type.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
FINGERPRINT_BLOCKS = 256
FINGERPRINT_BLOCK_BYTES = 4096


def weights_hash(files: Iterable[Path]) -> str:
    """Hash the files of a model: evenly spaced blocks of weight files, other files whole.

    Raises `CheckpointError` for a file that cannot be read.
    """
    import hashlib

    digest = hashlib.sha256()
    for file in files:
        try:
            for data in _hashed_parts(file):
                digest.update(data)
        except OSError as error:
            raise unreadable_error(file, error) from error
    return digest.hexdigest()[:16]


def _hashed_parts(file: Path) -> Iterator[bytes]:
    """Yield what the hash of a model takes from one of its files."""
    if file.suffix != WEIGHTS_SUFFIX:
        yield file.read_bytes()
        return
    size = file.stat().st_size
    yield f"{file.name}:{size}".encode()
    with file.open("rb") as stream:
        for block in range(FINGERPRINT_BLOCKS):
            stream.seek(size * block // FINGERPRINT_BLOCKS)
            yield stream.read(FINGERPRINT_BLOCK_BYTES)


def require_file(file: Path) -> None:
    """Raise `CheckpointError` unless `file` exists."""
    if not disk.is_file(file):
        raise CheckpointError(
            f"{file} is missing, so the checkpoint is incomplete.",
            "`acestep models pull` fetches what is missing of a published one; or copy the file.",
        )


def unreadable_error(file: Path, error: OSError) -> CheckpointError:
    """Return the error for an existing file that cannot be read, with the system's reason."""
    return CheckpointError(f"{file} cannot be read: {reason_of(error)}.", "Mend its permissions.")


def read_json(file: Path, most_bytes: int = MOST_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object. Raises `CheckpointError` where the file is missing, holds something else or is larger than
    any such file should be.
    """
    require_file(file)
    try:
        if (size := file.stat().st_size) > most_bytes:
            raise CheckpointError(
                f"{file} has {size:,} bytes, and no more than {most_bytes:,} are read.", "Download that file again."
            )
        content = json.loads(file.read_bytes())  # in UTF-8, UTF-16 or UTF-32, whichever it is
    except OSError as error:
        raise unreadable_error(file, error) from error
    except RecursionError as error:
        raise CheckpointError(f"{file} nests too deeply to be read.", "Download that file again.") from error
    except ValueError as error:  # not Unicode, or not JSON
        raise CheckpointError(
            f"{file} is not JSON ({error}); a failed download often leaves a web page in its place.",
            "Download that file again.",
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} should hold a JSON object, not a {type(content).__name__}.")
    return content


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a component in `folder`: the shards of its index, else the single file."""
    for stem in ("model", "diffusion_pytorch_model"):
        index = folder / f"{stem}.safetensors.index.json"
        if disk.is_file(index):
            shards = read_json(index).get("weight_map")
            found = list(shards.values()) if isinstance(shards, dict) else []
            if not found or not all(isinstance(name, str) for name in found):
                raise CheckpointError(f"{index} names no shards.", "Download that folder again.")
            names = set(found)
            for name in names:  # which may come from anybody, and lead to no other folder
                if not _is_shard_name(name):
                    raise CheckpointError(
                        f"{index}: weight_map names {name!r:.80}, which is not a weight file in that folder.",
                        "Download that folder again, from a source you trust.",
                    )
            for name in sorted(names):
                require_file(folder / name)
            return [folder / name for name in sorted(names)]
        if disk.is_file(folder / f"{stem}.safetensors"):
            return [folder / f"{stem}.safetensors"]
    raise CheckpointError(
        f"{folder} holds no model.safetensors or diffusion_pytorch_model.safetensors, so the checkpoint is incomplete.",
        "`acestep models pull` fetches what is missing of a published one.",
    )


def _is_shard_name(name: str) -> bool:
    """Tell whether a name is that of a file of weights, without any folder, on every system."""
    return name.endswith(WEIGHTS_SUFFIX) and name.isprintable() and not any(mark in name for mark in "/\\:")


@dataclass(frozen=True)
class StoredTensor:
    """The entry of a tensor in a safetensors header. Its data are bytes `start` to before `end` of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a safetensors file by name. Raises `CheckpointError` as `read_contents`."""
    tensors, _ = read_contents(file)
    return {name: tensor.shape for name, tensor in tensors.items()}


def read_contents(file: Path) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """Read the header of a safetensors file. Return its tensors by name, and its metadata.

    Raises `CheckpointError` where it is not such a file, or where file length or tensor sizes differ from the header.

    Layout: https://github.com/huggingface/safetensors (8 bytes of header length, JSON, data).
    """
    text, size = _header_text(file)
    data = 8 + len(text)
    try:
        entries = json.loads(text)
        notes = dict(entries.pop("__metadata__", {}))
        if len(entries) > MOST_TENSORS:
            raise ValueError(f"{len(entries):,} tensors, and no more than {MOST_TENSORS:,} are read")
        tensors = {name: _stored(name, entry, data) for name, entry in entries.items()}
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} has a broken safetensors header ({error}).", "Download it again.") from error
    end = max((tensor.end for tensor in tensors.values()), default=data)
    if size != end:
        how = "is cut short" if size < end else "goes on behind its last tensor"
        raise CheckpointError(
            f"{file} {how}: its header promises {end:,} bytes, the file has {size:,}.", "Finish or repeat the download."
        )
    _require_consistent(file, tensors, data)
    return tensors, notes


def _header_text(file: Path) -> tuple[bytes, int]:
    """Return the JSON in front of a safetensors file, and the size of the file. Raises `CheckpointError`."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if length == 0 or 8 + length > size:
                kind = "a web page" if start.lstrip()[:1] == b"<" else "cut short or something else"
                raise CheckpointError(f"{file} is not a safetensors file: it is {kind}.", "Download that file again.")
            if length > MOST_HEADER_BYTES:
                raise CheckpointError(
                    f"{file} has a header of {length:,} bytes, and no more than {MOST_HEADER_BYTES:,} are read.",
                    "Download it again, from a source you trust.",
                )
            return stream.read(length), size
    except OSError as error:
        raise unreadable_error(file, error) from error


def _require_consistent(file: Path, tensors: dict[str, StoredTensor], data: int) -> None:
    """Raise `CheckpointError` unless each tensor has the bytes of its shape, one behind the other from byte `data`."""
    end = data
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if BITS[tensor.dtype] * math.prod(tensor.shape) != 8 * (tensor.end - tensor.start):
            lie = f"{name} is {list(tensor.shape)} in {tensor.dtype}, in {tensor.end - tensor.start:,} bytes"
        elif tensor.start != end:
            lie = f"{name} begins at byte {tensor.start:,}, and the tensor before it ends at {end:,}"
        else:
            end = tensor.end
            continue
        raise CheckpointError(
            f"{file} has a header that contradicts itself: {lie}.",
            "Download it again, from a source you trust.",
        )


def _stored(name: str, entry: dict[str, Any], data: int) -> StoredTensor:
    """Convert an entry of a header, whose offsets count from byte `data` of the file. `ValueError` names the tensor."""
    if len(name) > MOST_NAME_LETTERS:
        raise ValueError(f"a tensor's name has {len(name):,} letters: {name:.40}")
    try:
        start, end = entry["data_offsets"]
        shape, dtype = tuple(entry["shape"]), entry["dtype"]
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: {type(error).__name__}: {error}") from error
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"{name} has {len(shape):,} dimensions")
    if any(type(number) is not int or not 0 <= number < LARGEST for number in (start, end, *shape)) or end < start:
        raise ValueError(f"{name} has shape {list(shape)!r:.60} at {start!r:.30} to {end!r:.30}")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"{name} has dtype {dtype!r:.30}, which is none of safetensors")
    return StoredTensor(dtype, shape, data + start, data + end)
