"""From an exception to a sentence on stderr, an object for `--json`, and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from acestep_cli import disk
from acestep_cli.cli import wrapping
from acestep_cli.errors import INTERRUPTED, TERMINATED, UNEXPECTED, reason_of, terminate
from acestep_cli.render import result
from acestep_cli.render.result import describe_error

UNWRITABLE = 9

#: Control and format characters that are text: lines, tabs, and what joins letters in Persian, Hindi and emoji.
KEPT_SIGNS = "\n\t\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"

#: The meaning of each exit code, for scripts.
EXIT_CODES = {
    0: "all asked for exists and passed its checks",
    UNEXPECTED: "something unexpected failed; `--debug` shows where",
    2: "a flag or a spec is wrong, or contradicts another",
    3: "the checkpoint is missing, incomplete or of the wrong kind",
    4: "it does not fit in memory",
    5: "a source, reference or song to learn from cannot be read, or is too short, too long, silent or broken",
    6: "audio failed its checks (a render is silent, not finite or unchanged by a repaint or an edit; what "
    "`acestep check` asserts does not hold; a replay drifted; lyrics to be timed are not found in a song, which is "
    "kept), or training broke down",
    7: "some of several takes failed; the rest are done. Where all failed for one cause: the code of that cause",
    8: "the network, the hub or a cluster failed; what was fetched or made is kept, and the same command goes on from "
    "there",
    UNWRITABLE: "an output cannot be written: another recipe is there, no space, no permission, no working encoder",
    10: "the time limit of a song ran out (`--timeout`), where nothing was finished",
    INTERRUPTED: "interrupted (Ctrl-C); finished takes are kept",
    TERMINATED: "terminated; finished takes are kept",
}

# Keys of the context that all commands share, for `--debug`, `--json` and the report of the command.
DEBUG = "acestep.debug"
JSON = "acestep.json"
REPORT = "acestep.report"


@contextmanager
def as_exit_codes(ctx: typer.Context) -> Iterator[None]:
    """Run the body; end the program with the exit code of its exception.

    With `--json` the one object is printed here, whatever happened.
    """
    ctx.ensure_object(dict)
    in_main_thread = threading.current_thread() is threading.main_thread()  # signals are its affair alone
    replaced = signal.signal(signal.SIGTERM, terminate) if in_main_thread else None
    wants_json = "--json" in ctx.args  # before the command has read its flags, and for one that cannot be read
    try:
        yield
    except (typer.Exit, typer.Abort, SystemExit):  # the last is how Rich ends where nobody reads its help
        raise
    except typer.TyperException as error:
        suggest(error)
        for said in ("message", "option_name"):  # they quote what was typed
            if isinstance(getattr(error, said, None), str):
                setattr(error, said, printable(getattr(error, said)))
        if wants_json:
            print_object(ctx, {"exit_code": error.exit_code, "name": "usage", "message": error.format_message()})
        raise
    except BrokenPipeError as error:  # help that is read no further; other pipes are seen to where they are written
        discard_stdout()
        raise typer.Exit from error
    except BaseException as error:
        found = describe_error(without_folder(error))
        if isinstance(error, KeyboardInterrupt):
            found["message"] = found["message"].removesuffix(".") + kept_sentence(ctx.obj.get(REPORT))
        sentences = printable("\n".join(line for line in (found["message"], found.get("hint")) if line))
        print(wrapping.wrap_for(sys.stderr, sentences), file=sys.stderr)
        if ctx.obj.get(DEBUG):
            print(printable("".join(traceback.format_exception(error))), file=sys.stderr)
        if ctx.obj.get(JSON) or wants_json:
            print_object(ctx, found)
        raise typer.Exit(found["exit_code"]) from error
    else:
        if ctx.obj.get(JSON) and REPORT in ctx.obj and not print_object(ctx, None):
            raise typer.Exit(UNWRITABLE)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, replaced)


def kept_sentence(run_report: result.RunReport | None) -> str:
    """Return what an interrupted run leaves behind, to follow the word for how it ended."""
    outputs = [] if run_report is None else run_report.outputs
    kept = sum(output.status in (result.WRITTEN, result.SKIPPED) for output in outputs)
    if not kept:
        return "."
    what = "take" if all(output.kind == "take" for output in outputs) else "file"
    return f": {kept} of {len(outputs)} {what}s {'is' if kept == 1 else 'are'} kept."


def printable(text: str) -> str:
    """Return text as a terminal may show it: what it would obey or hide as escapes, and bytes that are no UTF-8 as
    replacement characters. Lines and tabs stay.
    """
    return "".join(map(printable_sign, text))


def printable_sign(sign: str) -> str:
    """Return one character of `printable`: control, direction and format characters as their escape."""
    kind = unicodedata.category(sign)
    if kind == "Cs":  # how Python carries bytes it cannot decode
        return "\N{REPLACEMENT CHARACTER}"
    if kind not in ("Cc", "Cf", "Zl", "Zp") or sign in KEPT_SIGNS:
        return sign
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def without_folder(error: BaseException) -> BaseException:
    """Return an error about the deleted current folder where that caused `error`; else `error`."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, FileNotFoundError) and is_relative(cause.filename)):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return error
    return disk.folder_error() or error


def is_relative(path: str | bytes | int | None) -> bool:
    """Return true for a path below the current folder, or for none: `os.getcwd` names none when it fails."""
    return path is None or (not isinstance(path, int) and not Path(os.fsdecode(path)).is_absolute())


def flush_stdout() -> int:
    """Flush stdout; return 0, or the exit code of an output that could not be written.

    A reader that closed the pipe is no error.
    """
    if sys.stdout is None:  # closed by whoever started us
        return 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
    except OSError as problem:
        print(f"stdout cannot be written: {reason_of(problem)}.", file=sys.stderr)
        discard_stdout()
        return UNWRITABLE
    return 0


def keep_report(ctx: typer.Context, warnings: list[str]) -> result.RunReport:
    """Return a report that `--json` prints when the command ends, however it ends."""
    ctx.obj[REPORT] = run_report = result.RunReport(warnings=warnings)
    return run_report


def suggest(error: Any) -> None:
    """Replace the suggestions of an unknown flag's error by flags that a musician may have meant."""
    unknown = getattr(error, "option_name", None)
    if not isinstance(unknown, str):
        return
    from acestep_cli.cli import other_words
    from acestep_cli.song import modes, spec_keys

    mode = (error.ctx.info_name if error.ctx is not None else None) or ""
    for key in modes.keys_of_other_modes(mode) if mode in modes.MODES else ():
        if unknown in (spec_keys.flag_of(key), spec_keys.KEYS[key].short, *(spec_keys.KEYS[key].switch or ())):
            error.message, error.possibilities = f"{unknown} {modes.misplaced_key(key, mode)}", None
            return
    if not unknown.startswith("--"):
        return
    params = () if error.ctx is None else error.ctx.command.params
    known = {opt for param in params for opt in (*param.opts, *param.secondary_opts)}
    named = spec_keys.canonical_key(unknown.removeprefix("--"))
    if named in spec_keys.KEYS:  # of another command, or of specs alone
        settable = "--set" in known and not spec_keys.KEYS[named].flag and named != "extends"
        error.possibilities = [f"--set {named}=…"] if settable else []
    elif sentence := other_words.flag_sentence(unknown):
        error.message, error.possibilities = f"No such option: {unknown}; {sentence}", None
    else:
        error.possibilities = other_words.flags_like(unknown, known)


def print_object(ctx: typer.Context, error: dict[str, Any] | None) -> bool:
    """Print the object of `--json`; return False where stdout could not be written, and say so on stderr.

    A reader that closed the pipe is no error.
    """
    run_report = ctx.obj.get(REPORT) or result.RunReport()
    if sys.stdout is None:  # closed by whoever started us
        return True
    try:
        print(result.report_text(run_report, error), flush=True)
        return True
    except BrokenPipeError:
        is_read = True
    except OSError as problem:
        is_read = False
        print(f"stdout cannot be written: {reason_of(problem)}.", file=sys.stderr)
    discard_stdout()
    return is_read


def discard_stdout() -> None:
    """Point stdout, which nobody reads any more, at the null device: Python flushes it once more as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
