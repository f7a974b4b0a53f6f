"""The program in processes of its own, and what it prints."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import jsonschema
from typer.testing import Result

from support.places import BAND, RESULT_SCHEMA

T = TypeVar("T")
#: `acestep …` with these arguments.
Run = Callable[..., Result]
#: Seconds until a process counts as hung, on a busy machine too.
LIMIT = 120
#: The same of one that trains, builds or makes an album with the built-in model.
LONG_LIMIT = 600
PIPES = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
LOADED_AFTER = """
import sys
from acestep_cli.cli.app import main
try:
    main()
finally:
    print("loaded:", *(name for name in WATCHED if name in sys.modules), file=sys.stderr)
"""
HOT = ("torch", "transformers", "diffusers", "peft")


def finish(
    command: Sequence[str | Path], *, timeout: float = LIMIT, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a process to its end; return it with what it printed. Raises `TimeoutExpired` where it hangs."""
    pipes = {name: where for name, where in PIPES.items() if name != "stdin" or "input" not in options}
    return subprocess.run(command, timeout=timeout, **{**pipes, "check": False, **options})


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Yield a process that runs, with pipes of text; kill it where it still does in the end."""
    process = subprocess.Popen(command, **{**PIPES, "text": True, **options})
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LIMIT)


def in_time(function: Callable[[], T], timeout: float = LIMIT) -> T:
    """Return what a function returns that waits for something. Raises `TimeoutError` where that does not come."""
    found: Future[T] = Future()

    def call() -> None:
        try:
            found.set_result(function())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return found.result(timeout)


class Hung(BaseException):
    """What took too long. No `Exception`: the program would take a `TimeoutError` for one of the network."""


@contextmanager
def limited(seconds: float = LIMIT) -> Iterator[None]:
    """Raise `Hung` in the body where it takes longer, also where it computes and lets no other thread run.

    In the main thread, on systems with alarms; elsewhere there is no limit.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def expire(_signal: int, _frame: object) -> None:
        raise Hung(f"not done after {seconds:g} s")

    replaced = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, replaced)


def read_to(stream: IO[str], text: str, *, timeout: float = LIMIT) -> str:
    """Read what a process prints, up to the line that holds `text`; return it. Fails where it ends before."""
    end, read = time.monotonic() + timeout, ""
    while line := in_time(stream.readline, end - time.monotonic()):
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} was not printed: {read}")


def until(condition: Callable[[], Any], timeout: float = LIMIT) -> None:
    """Wait until a condition holds. Fails where it does not in time."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def loaded(*arguments: str, watched: tuple[str, ...] = HOT) -> tuple[int, list[str]]:
    """The exit code of `acestep …`, and which of the watched modules it had imported by its end."""
    program = f"WATCHED = {watched!r}\n{LOADED_AFTER}"
    run = finish([sys.executable, "-c", program, *arguments], text=True)
    return run.returncode, run.stderr.splitlines()[-1].split()[1:]


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    """The program with the band, in a process of its own."""
    return finish([sys.executable, BAND, *arguments], **options)


def said(result: Result) -> dict[str, Any]:
    """The one object on stdout, which keeps to its schema."""
    [line] = result.stdout.splitlines()
    content: dict[str, Any] = json.loads(line)
    jsonschema.validate(content, RESULT_SCHEMA)
    return content


def flat(result: Result) -> str:
    """Return stderr in one line."""
    return " ".join(result.stderr.split())
