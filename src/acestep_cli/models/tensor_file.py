"""Files of tensors as any other file: who may read them, why one cannot be written, and whether one is whole.

safetensors writes for its own user alone, and what the system said is no `OSError` there.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acestep_cli.errors import CheckpointError
from acestep_cli.models import weight_files


@contextmanager
def written(path: Path) -> Iterator[None]:
    """The body writes the file `path` with safetensors. `OSError` where the disk does not take it."""
    from safetensors import SafetensorError

    path.touch()
    mode = path.stat().st_mode
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error
    path.chmod(mode)


def holds(path: Path, names: set[str]) -> bool:
    """Whether the file is whole and has tensors of these names."""
    try:
        return names <= weight_files.read_header(path).keys()
    except CheckpointError:
        return False
