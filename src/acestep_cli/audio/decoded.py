"""A file opened for decoding, by libsndfile or by ffmpeg, and the errors that both find."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.errors import SourceError, shell_word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The same for MP3 and Ogg, whose encoders may or may not count their padding.
MISSING_LOSSY_SECONDS, MISSING_LOSSY_SHARE = 0.5, 0.02


@dataclass(frozen=True)
class Decoded:
    """A file opened for decoding, with its samples as stereo `blocks` [2, n].

    `promised` is its length in samples where the header knows it, a little wrong in `lossy` formats.
    """

    rate: int
    promised: int | None
    blocks: Generator[NDArray[np.float32]]
    lossy: bool = False
    warnings: tuple[str, ...] = ()
    #: Seconds that the whole file has, where the header tells that alone: its sound may be shorter.
    file_seconds: float | None = None


def too_many_channels(path: Path, channels: int) -> SourceError:
    return SourceError(
        f"{path} has {channels} channels, and only mono and stereo are read.",
        f"Mix them: ffmpeg -i {shell_word(path)} -ac 2 stereo.flac",
    )


def cut_short_error(path: Path, seconds: float, promised: float) -> SourceError:
    return SourceError(
        f"{path} is cut short: {seconds:.2f} of {promised:.2f} s can be read.",
        f"Fetch it again; or keep what is there: ffmpeg -i {shell_word(path)} whole.flac",
    )
