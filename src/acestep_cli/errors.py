"""The exceptions that this program raises on purpose.

Each one says what happened, where, why, and the command that mends it. The exit code belongs to the class, so `cli`
needs one handler and no table of its own.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

#: Exit codes that no exception of ours carries.
UNEXPECTED, INTERRUPTED, TERMINATED = 1, 130, 143

#: Where memory ran out outside the stages of a render, which name what would need less.
MEMORY_HINT = "Close other programs, or ask for a shorter song or a smaller model."

#: Matches the messages of libraries, drivers and the system that mean: out of memory.
OUT_OF_MEMORY = re.compile(
    "|".join(
        (
            "out of memory",  # CUDA, HIP, XPU, MPS
            "out_?of_?(device_|host_)?memory",  # Level Zero, Metal, HIP's error names
            "insufficient memory",  # Metal
            "not enough memory",  # torch on Windows
            "defaultcpuallocator",
            "cannot allocate memory",  # the system: ENOMEM
            "failed to map segment",  # the system's loader of libraries
            "bad_?alloc",  # C++
            "alloc(ation)?[ _]?failed",  # cuBLAS, cuDNN, MIOpen
            "rocblas_status_memory_error",
            "(unable|failed) to alloc",
            # oneDNN without memory. A shape for which it has no kernel fails earlier, at a "primitive descriptor".
            "could not create a primitive(?! descriptor)",
            "could not create a (memory object|stream)",
            "could not execute a primitive",
        )
    ),
    re.IGNORECASE,
)

#: Matches the messages of drivers after which a card does nothing more for this process.
DEVICE_LOST = re.compile(
    "|".join(
        (
            r"device[ _](is |was )?lost",  # Level Zero, and drivers in general
            r"gpu (is|was) lost|fallen off the bus",  # NVIDIA
            "unspecified launch failure|illegal memory access|uncorrectable ecc|(cuda|hip) error: unknown error",
            "busy or unavailable",  # CUDA, of a card that went away
            "kIOGPUCommandBufferCallbackError(?!OutOfMemory)",  # Metal: hang, restart, page fault
        )
    ),
    re.IGNORECASE,
)


class AceStepError(Exception):
    """A failure with a sentence for the user.

    Parameters
    ----------
    message: what happened, where and why, as one or a few sentences.
    hint: what to type or change to mend it; shown on its own line.
    """

    exit_code = 1
    #: Its name in the output of `--json`.
    name = "unexpected"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class UsageError(AceStepError):
    """Flags or a song spec ask for something impossible."""

    exit_code = 2
    name = "usage"


class CheckpointError(AceStepError):
    """A checkpoint or adapter is missing, incomplete or of the wrong kind."""

    exit_code = 3
    name = "checkpoint"


class AdapterError(CheckpointError):
    """An adapter is missing or broken, or made for another model."""


class MemoryLimitError(AceStepError):
    """The request does not fit in memory, even after every fallback."""

    exit_code = 4
    name = "memory"


class SourceError(AceStepError):
    """Source audio cannot be read, or does not suit."""

    exit_code = 5
    name = "source"


class LongSourceError(SourceError):
    """Source audio is longer than is read."""


class CheckError(AceStepError):
    """Audio failed a check (a render is not finite, silent or unchanged by a repaint or an edit; an assertion does not
    hold; a replay differs), or the loss of a training run is not finite.
    """

    exit_code = 6
    name = "check"


class SeveralFailedError(AceStepError):
    """Some of several items failed; the others are done."""

    exit_code = 7
    name = "several"


class NetworkError(AceStepError):
    """The hub or a cluster cannot be reached, or lacks what was asked for."""

    exit_code = 8
    name = "network"


class OutputError(AceStepError):
    """An output cannot be written: exists, no space, no permission, no encoder."""

    exit_code = 9
    name = "output"


class TimeLimitError(AceStepError):
    """The time limit of a song ran out."""

    exit_code = 10
    name = "time"

    def __init__(self, seconds: float, stage: str, done: int, total: int) -> None:
        """Take the limit, and how far the song was: a stage, in its own units."""
        super().__init__(
            f"The time limit of {seconds:g} s ran out in the stage {stage}, {done} of {total} done.",
            "A higher --timeout, fewer --steps or a shorter song may do.",
        )


class EncoderError(OutputError):
    """An encoder failed on sound audio."""


class ExistsError(OutputError):
    """An output file exists already, and so do `more` other ones."""

    def __init__(self, path: Path, more: int = 0, why: str = "", hint: str | None = None) -> None:
        others = f" (and {more} more)" if more else ""
        self.path, self.why = path, why
        usual = None if path.is_dir() else "--force replaces it; another --output keeps it."
        super().__init__(f"{path} exists already{others}{why}.", hint or usual)


def reason_of(error: OSError) -> str:
    """Return why the system refused, in lower case, to stand inside a sentence."""
    return (error.strerror or str(error)).lower()


def shell_word(text: object) -> str:
    """Return a word of a command as a shell reads it.

    One with control characters, or with bytes that are not UTF-8, is written for bash and zsh: `$'caf\\xe9.wav'`.
    """
    word = str(text)
    if word.isprintable():
        return shlex.quote(word)
    escaped = (
        sign if sign.isprintable() and sign not in "\\'" else "".join(f"\\x{byte:02x}" for byte in os.fsencode(sign))
        for sign in word
    )
    return f"$'{''.join(escaped)}'"


def ran_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception of a library means that memory ran out.

    False for this program's own errors: it raises `MemoryLimitError` itself.
    """
    if isinstance(error, AceStepError):
        return False
    return isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)) is not None


def memory_shortage(error: AceStepError) -> MemoryLimitError | None:
    """Return the error that memory ran out where the system gave that reason for one of this program, which names what
    could not be read or written for want of it; else None.
    """
    cause = error.__cause__
    while cause is not None and not isinstance(cause, MemoryError):
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            break
        cause = cause.__cause__
    if cause is None or isinstance(error, MemoryLimitError):
        return None
    return MemoryLimitError(f"Memory ran out: {error.message}", MEMORY_HINT)


def lost_device(error: BaseException) -> bool:
    """Tell whether an exception of a library, or one before it, means that the card is lost to this process."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, AceStepError):
        if DEVICE_LOST.search(str(found)) is not None:
            return True
        found = found.__cause__ or found.__context__
    return False


class DeviceLostError(AceStepError):
    """The card stopped working in the middle."""

    def __init__(self, error: BaseException) -> None:
        told = (str(error).splitlines() or [""])[0].rstrip(".")
        super().__init__(
            f"The graphics card stopped working: {type(error).__name__}: {told}. What was finished before is kept.",
            "acestep doctor tells whether it works again; then the same command makes the rest. --device cpu does "
            "without it.",
        )


def name_lines(error: AceStepError, name: str) -> AceStepError:
    """Return `error` with `name` before each line of its message that lacks it."""
    lines = [line if f"{name}:" in line else f"{name}: {line}" for line in error.message.splitlines()]
    error.message = "\n".join(lines)
    return error


def combine_errors(errors: Sequence[AceStepError]) -> AceStepError:
    """Return one error with the messages of all `errors`. A hint that several in a row share stands after the last.

    Its exit code is that of the first usage error among them, else that of the first error.
    """
    first = next((error for error in errors if isinstance(error, UsageError)), errors[0])
    if len(errors) == 1:
        return first
    different = list({str(error): error for error in errors}.values())
    messages = [
        error.message if after is not None and error.hint == after.hint else str(error)
        for error, after in zip_longest(different, different[1:])
    ]
    combined = AceStepError("\n".join(messages))
    combined.exit_code, combined.name = first.exit_code, first.name
    return combined


class Terminated(KeyboardInterrupt):
    """SIGTERM. It unwinds as Ctrl-C does: temporary files are removed, finished takes stay."""


def terminate(_signal: int, _frame: Any) -> None:
    """Raise `Terminated`; the handler of SIGTERM."""
    raise Terminated
