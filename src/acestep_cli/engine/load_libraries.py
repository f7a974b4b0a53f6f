"""Load torch and Transformers before anything else does, also where the current folder was deleted."""

import os
from pathlib import Path


def _load_libraries_elsewhere() -> None:
    """Load torch and Transformers from another folder where the current one was deleted: they ask for its name as they
    are loaded, and MKL aborts the process if it has none.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        here = os.open(".", os.O_RDONLY)
        os.chdir("/")
    else:
        return
    try:
        import torch
        import transformers.modeling_utils  # noqa: F401

        torch.ones(2, 2) @ torch.ones(2, 2)  # MKL looks for its libraries at the first product
    finally:
        os.fchdir(here)
        os.close(here)


_load_libraries_elsewhere()
