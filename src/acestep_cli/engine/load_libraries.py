"""Load torch before anything else does: with all the threads that it asks for, which sleep while they wait, without a
search for garbage, and also where the current folder was deleted.
"""

import gc
import importlib
import os

from acestep_cli import disk
from acestep_cli.machine import hardware

#: What makes OpenMP start fewer threads than it is asked for. It reads them once, when torch loads it.
FEWER_THREADS = ("OMP_DYNAMIC", "OMP_MAX_ACTIVE_LEVELS", "OMP_THREAD_LIMIT")


def _let_threads_sleep() -> None:
    """Tell OpenMP that a thread with nothing to do sleeps, unless the user has chosen.

    By default it spins until the others are done, and beside other programs the thread that is waited for has no core.
    `benchmarks/busy_machine.py` measures both ways. OpenMP reads the variable once, when torch loads it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _let_all_threads_run() -> None:
    """Keep OpenMP from starting fewer threads than it is asked for: oneDNN then leaves parts of what it computes as the
    memory was, and samples are not finite, or wrong. The limit that is removed has a part in the number that is asked
    for, here and in the processes that this one starts.
    """
    if "OMP_THREAD_LIMIT" in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(hardware.threads()[0])
    for name in FEWER_THREADS:
        os.environ.pop(name, None)


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
_let_all_threads_run()
_load_libraries_elsewhere()
_load_torch()
