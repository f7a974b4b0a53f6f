"""Every exception this program raises on purpose.

Each one says what happened, where, why, and the command that mends it. The exit
code belongs to the class, so `cli` needs one handler and no table of its own.
"""

from __future__ import annotations

from pathlib import Path


class AceStepError(Exception):
    """A failure with a sentence for the user.

    Parameters
    ----------
    message: what happened, where and why, as one or a few sentences.
    hint: what to type or change to mend it; shown on its own line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class UsageError(AceStepError):
    """Flags or a song spec ask for something that cannot be."""

    exit_code = 2


class CheckpointError(AceStepError):
    """A checkpoint or adapter is missing, incomplete or of the wrong kind."""

    exit_code = 3


class MemoryLimitError(AceStepError):
    """The request does not fit in memory, after every fall-back."""

    exit_code = 4


class CheckError(AceStepError):
    """Rendered audio failed its checks: not finite, or silent."""

    exit_code = 6


class SeveralFailedError(AceStepError):
    """Some of several items failed; the others are done."""

    exit_code = 7


class OutputError(AceStepError):
    """An output cannot be written: exists, no space, no permission, no encoder."""

    exit_code = 9


class ExistsError(OutputError):
    """An output has the name of a file that is there already; `more` files are in the same case."""

    def __init__(self, path: Path, more: int = 0) -> None:
        others = f" (and {more} more)" if more else ""
        hint = None if path.is_dir() else "--force replaces it; another --output keeps it."
        super().__init__(f"{path} exists already{others}.", hint)
