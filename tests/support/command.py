"""The program in processes of its own, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
from typer.testing import Result

from support.places import BAND, RESULT_SCHEMA

#: `acestep …` with these arguments.
Run = Callable[..., Result]
#: Seconds until a process counts as hung, on a busy machine too.
LIMIT = 120
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
    return subprocess.run(command, timeout=timeout, **{"capture_output": True, "check": False, **options})


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
