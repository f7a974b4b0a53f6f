"""From an exception to a sentence on stderr and an exit code."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from acestep_cli.errors import AceStepError

UNEXPECTED = 1
INTERRUPTED = 130
TERMINATED = 143

#: Where a command's `--debug` is remembered, in the context all commands share.
DEBUG = "acestep.debug"


class Terminated(KeyboardInterrupt):
    """SIGTERM, which unwinds as Ctrl-C does: temporary files go, finished takes stay."""


def _terminate(_signal: int, _frame: Any) -> None:
    raise Terminated


@contextmanager
def as_exit_codes(ctx: typer.Context) -> Iterator[None]:
    """Run the body; end the program with the exit code that its exception stands for."""
    ctx.ensure_object(dict)
    in_main_thread = threading.current_thread() is threading.main_thread()  # signals are its affair alone
    replaced = signal.signal(signal.SIGTERM, _terminate) if in_main_thread else None
    try:
        yield
    except (typer.Exit, typer.Abort, typer.TyperException):
        raise
    except BaseException as error:
        code = report(error)
        if ctx.obj.get(DEBUG):
            traceback.print_exception(error, file=sys.stderr)
        raise typer.Exit(code) from error
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, replaced)


def report(error: BaseException) -> int:
    """Say on stderr what happened, and return the exit code that goes with it."""
    match error:
        case AceStepError():
            text, code = str(error), error.exit_code
        case Terminated():
            text, code = "Terminated.", TERMINATED
        case KeyboardInterrupt():
            text, code = "Interrupted.", INTERRUPTED
        case _:
            text = f"Something unexpected failed: {type(error).__name__}: {error}\n--debug shows where."
            code = UNEXPECTED
    print(text, file=sys.stderr)
    return code
