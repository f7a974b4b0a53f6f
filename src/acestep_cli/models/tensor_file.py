"""Files of tensors: the one place that writes them, and the checksums that tell a damaged one.

The layout is that of safetensors (https://github.com/huggingface/safetensors: 8 bytes of header length, JSON, data),
whose own writers will not do: that of numpy writes the raw memory of an array whatever its strides, both write the
metadata in an order that differs from run to run, and neither can put a checksum of the data into it. Files are read
with the library, by way of `open_tensors`.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from acestep_cli.errors import CheckpointError
from acestep_cli.models import weight_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The entry of the metadata that holds the checksum.
CHECKSUM = "sha256"
#: The bytes of one element, by safetensors' name of its type.
WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
#: safetensors' names of numpy's types.
NAMES = {
    "float64": "F64", "int64": "I64", "float32": "F32", "int32": "I32", "float16": "F16", "int16": "I16", "int8": "I8",
    "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
#: The data begin at a multiple of so many bytes.
ALIGNMENT = 8
READ_BYTES = 1 << 20
#: The type and shape of a tensor, and from which byte of the data to before which it goes.
Span = tuple[str, list[int], int, int]


@dataclass(frozen=True)
class Block:
    """A tensor ready to be written: its type by safetensors' name, its shape, and its elements in C order, one behind
    the other, the least significant byte of each first.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def block(array: NDArray[Any]) -> Block:
    """Return the elements of an array of whatever strides and byte order. `TypeError` for a type no file can have."""
    import numpy as np

    if array.dtype.name not in NAMES:
        raise TypeError(f"Arrays of {array.dtype} cannot be written.")
    plain = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return Block(NAMES[array.dtype.name], array.shape, plain.reshape(-1).view(np.uint8).data)


def dump(
    stream: BinaryIO, blocks: Mapping[str, Block], notes: Mapping[str, str] | None = None, *, checksum: bool = True
) -> None:
    """Write tensors and metadata: the same bytes for the same content, in whatever order it comes.

    With `checksum`, the metadata tell the checksum of all the rest.
    """
    names = sorted(blocks, key=lambda name: (-WIDTHS[blocks[name].dtype], name))  # so each of them is aligned
    spans: dict[str, Span] = {}
    start = 0
    for name in names:
        end = start + len(blocks[name].data)
        spans[name] = (blocks[name].dtype, list(blocks[name].shape), start, end)
        start = end
    metadata = dict(sorted((notes or {}).items()))
    if checksum:
        digest = _digest(metadata, spans)
        for name in names:
            digest.update(blocks[name].data)
        metadata[CHECKSUM] = digest.hexdigest()
    entries = {name: {"dtype": span[0], "shape": span[1], "data_offsets": span[2:]} for name, span in spans.items()}
    content = {"__metadata__": metadata, **entries} if metadata else entries
    header = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    stream.write(struct.pack("<Q", len(header)) + header)
    for name in names:
        stream.write(blocks[name].data)


def dumps(blocks: Mapping[str, Block], notes: Mapping[str, str] | None = None) -> bytes:
    """Return a file of tensors for the cache, whose entries have checksums of their own."""
    stream = io.BytesIO()
    dump(stream, blocks, notes, checksum=False)
    return stream.getvalue()


def write(
    path: Path, blocks: Mapping[str, Block], notes: Mapping[str, str] | None = None, *, checksum: bool = True
) -> None:
    """Write a file of tensors. `OSError` where the disk does not take it."""
    with path.open("wb") as stream:
        dump(stream, blocks, notes, checksum=checksum)


@contextmanager
def open_tensors(path: Path, framework: str = "pt") -> Iterator[Any]:
    """Open a file of tensors with `safetensors.safe_open`, whose errors are raised.

    The library refuses names that are not UTF-8, so such a file is opened by its descriptor.
    """
    from safetensors import safe_open

    with ExitStack() as opened:
        name = str(path)
        if not is_utf8(name):
            name = f"/dev/fd/{opened.enter_context(path.open('rb')).fileno()}"
        yield opened.enter_context(safe_open(name, framework=framework))


def is_utf8(name: str) -> bool:
    """Tell whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_undamaged(path: Path) -> bool | None:
    """Tell whether a file is what its checksum says; None where it carries none. `CheckpointError` where it is no
    whole file of tensors.
    """
    tensors, notes = weight_files.read_contents(path)
    if (expected := notes.pop(CHECKSUM, None)) is None:
        return None
    base = min((tensor.start for tensor in tensors.values()), default=path.stat().st_size)
    spans = {name: (one.dtype, list(one.shape), one.start - base, one.end - base) for name, one in tensors.items()}
    digest = _digest(notes, spans)
    try:
        with path.open("rb") as stream:
            stream.seek(base)
            while data := stream.read(READ_BYTES):
                digest.update(data)
    except OSError as error:
        raise weight_files.unreadable_error(path, error) from error
    return bool(digest.hexdigest() == expected)


def _digest(notes: Mapping[str, Any], spans: Mapping[str, Span]) -> hashlib._Hash:
    """Begin a checksum with all that a header says; the data follow."""
    return hashlib.sha256(json.dumps([notes, spans], sort_keys=True).encode())


def has_tensors(path: Path, names: set[str]) -> bool:
    """Tell whether a file that was written with a checksum is whole and has tensors of these names."""
    try:
        return names <= weight_files.read_header(path).keys() and is_undamaged(path) is True
    except CheckpointError:
        return False
