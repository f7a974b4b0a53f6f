"""Load torch before anything else does: with threads that sleep while they wait, without a search for garbage, and
also where the current folder was deleted.
"""

import gc
import importlib
import os

from acestep_cli import disk


def _let_threads_sleep() -> None:
    """Tell OpenMP that a thread with nothing to do sleeps, unless the user has chosen.

    By default it spins until the others are done, and beside other programs the thread that is waited for has no core.
    `benchmarks/busy_machine.py` measures both ways. OpenMP reads the variable once, when torch loads it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _load_libraries_elsewhere() -> None:
    """Load torch from another folder where the current one was deleted: it asks for its name as it is loaded, and MKL
    aborts the process if it has none. So does transformers, which PEFT imports and which is loaded here with it.
    """
    if not disk.is_current_folder_deleted():
        return
    with disk.in_existing_folder():
        import torch
        import transformers.modeling_utils  # noqa: F401

        torch.ones(2, 2) @ torch.ones(2, 2)  # MKL looks for its libraries at the first product


def _load_torch() -> None:
    """Load torch while no garbage is collected: what an import makes stays."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module("torch")
    finally:
        if was_enabled:
            gc.enable()


_let_threads_sleep()
_load_libraries_elsewhere()
_load_torch()
