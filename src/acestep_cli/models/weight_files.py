"""Files of weights and the JSON beside them, as they lie on disk: whole or not, what their headers say, and a hash.

The tensors themselves are read by `engine.store`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acestep_cli.errors import CheckpointError, reason_of

WEIGHTS_SUFFIX = ".safetensors"
#: No offset or size in a header reaches this: they are 64-bit integers.
LARGEST = 2**63
FINGERPRINT_BLOCKS = 256
FINGERPRINT_BLOCK_BYTES = 4096


def weights_hash(files: Iterable[Path]) -> str:
    """Hash the files of a model: evenly spaced blocks of weight files, other files whole."""
    import hashlib

    digest = hashlib.sha256()
    for file in files:
        if file.suffix != WEIGHTS_SUFFIX:
            digest.update(file.read_bytes())
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            for block in range(FINGERPRINT_BLOCKS):
                stream.seek(size * block // FINGERPRINT_BLOCKS)
                digest.update(stream.read(FINGERPRINT_BLOCK_BYTES))
    return digest.hexdigest()[:16]


def require_file(file: Path) -> None:
    """Raise `CheckpointError` unless `file` exists."""
    if not file.is_file():
        raise CheckpointError(
            f"{file} is missing, so the checkpoint is incomplete.",
            "`acestep models pull` fetches what is missing of a published one; or copy the file.",
        )


def unreadable_error(file: Path, error: OSError) -> CheckpointError:
    """Return the error for an existing file that cannot be read, with the system's reason."""
    return CheckpointError(f"{file} cannot be read: {reason_of(error)}.", "Mend its permissions.")


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `CheckpointError` where the file is missing or holds something else."""
    require_file(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise unreadable_error(file, error) from error
    except RecursionError as error:
        raise CheckpointError(f"{file} nests too deeply to be read.", "Download that file again.") from error
    except ValueError as error:  # not UTF-8, or not JSON
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
        if index.is_file():
            shards = read_json(index).get("weight_map")
            found = list(shards.values()) if isinstance(shards, dict) else []
            if not found or not all(isinstance(name, str) for name in found):
                raise CheckpointError(f"{index} names no shards.", "Download that folder again.")
            names = set(found)
            for name in names:  # which may come from anybody, and lead to no other folder
                if not _is_shard_name(name):
                    raise CheckpointError(
                        f"{index}: weight_map names {name!r:.80}, which is no file of weights in that folder.",
                        "Download that folder again, from a source you trust.",
                    )
            for name in sorted(names):
                require_file(folder / name)
            return [folder / name for name in sorted(names)]
        if (folder / f"{stem}.safetensors").is_file():
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
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if length == 0 or 8 + length > size:
                kind = "a web page" if start.lstrip()[:1] == b"<" else "cut short or something else"
                raise CheckpointError(f"{file} is not a safetensors file: it is {kind}.", "Download that file again.")
            text = stream.read(length)
    except OSError as error:
        raise unreadable_error(file, error) from error
    data = 8 + length
    try:
        entries = json.loads(text)
        notes = dict(entries.pop("__metadata__", {}))
        tensors = {name: _stored(entry, data) for name, entry in entries.items()}
    except (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} has a broken safetensors header ({error}).", "Download it again.") from error
    end = max((tensor.end for tensor in tensors.values()), default=data)
    if size != end:
        raise CheckpointError(
            f"{file} is cut short: its header promises {end:,} bytes, the file has {size:,}.",
            "Finish or repeat the download.",
        )
    for name, tensor in tensors.items():
        bits = re.search(r"\d+", tensor.dtype)  # F32, BF16, F8_E4M3
        if bits and int(bits[0]) * math.prod(tensor.shape) != 8 * (tensor.end - tensor.start):
            raise CheckpointError(
                f"{file} has a header that lies: {name} is {list(tensor.shape)} in {tensor.dtype}, in "
                f"{tensor.end - tensor.start:,} bytes.",
                "Download it again, from a source you trust.",
            )
    return tensors, notes


def _stored(entry: dict[str, Any], data: int) -> StoredTensor:
    """Convert an entry of a header, whose offsets count from byte `data` of the file."""
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if any(type(number) is not int or not 0 <= number < LARGEST for number in (start, end, *shape)) or end < start:
        raise ValueError(f"a tensor of shape {list(shape)!r:.60} at {start!r:.30} to {end!r:.30}")
    return StoredTensor(str(entry["dtype"]), shape, data + start, data + end)
