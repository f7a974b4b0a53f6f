"""Audio files of any format, decoded to samples.

libsndfile reads most formats, and ffmpeg, if installed, the others. A pipe is read to its end first.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.audio import loudness
from acestep_cli.audio.decode_ffmpeg import decode_by_ffmpeg
from acestep_cli.audio.decode_libsndfile import decode_by_libsndfile
from acestep_cli.audio.decoded import MISSING_LOSSY_SECONDS, MISSING_LOSSY_SHARE, cut_short_error
from acestep_cli.audio.regular_file import file_hash
from acestep_cli.audio.sound import Audio, join_blocks, resample_blocks
from acestep_cli.errors import LongSourceError, SourceError, shell_word

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Sample rate of everything that is read, in Hz.
READ_RATE = 48_000
#: Shortest and longest recording, in seconds.
SHORTEST_READ, LONGEST_READ = 1.0, 600.0
#: How much less than its header promises a file may hold, in seconds: writers of headers are off by a few bytes.
MISSING_SECONDS = 0.01


@dataclass(frozen=True)
class Recording:
    """An audio file that was read to its end without a problem.

    `samples` is its length at `READ_RATE`, `rate` its own rate. `fingerprint` is a hash of its bytes, and `sound` one
    of its samples, which other tags do not change.
    """

    path: Path
    samples: int
    rate: int
    fingerprint: str
    sound: str
    warnings: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.samples / READ_RATE


def survey_file(
    path: Path, longest: float = LONGEST_READ, each_block: Callable[[NDArray[np.float32]], None] | None = None
) -> Recording:
    """Read the file `path` to its end, and pass each block [2, n] of it to `each_block`.

    Raises `SourceError`, with the reason, where it is unsuitable as a source.
    """
    decoding = Decoding(path, longest)
    digest = hashlib.sha256(str(decoding.rate).encode())
    for block in decoding:
        digest.update(block.tobytes())
        if each_block is not None:
            each_block(block)
    warnings = tuple(decoding.warnings)
    return Recording(path, decoding.samples, decoding.rate, file_hash(path), digest.hexdigest()[:16], warnings)


def read_audio(
    path: Path,
    longest: float = LONGEST_READ,
    warn: Callable[[str], None] = lambda _: None,
    *,
    keeps_overs: bool = False,
) -> Audio:
    """Return the audio file `path` as stereo at 48 kHz: mono is doubled, other rates are resampled.

    Samples over full scale are clipped unless `keeps_overs`. Raises `SourceError`, with the reason, where
    `survey_file` would, and gives the same warnings.
    """
    import numpy as np

    decoding = Decoding(path, longest)
    blocks = list(resample_blocks(decoding, decoding.rate, READ_RATE))
    for warning in decoding.warnings:
        warn(warning)
    audio = join_blocks(blocks, decoding.samples, READ_RATE)
    if not keeps_overs:
        np.clip(audio.samples, -1, 1, out=audio.samples)  # as a file of whole numbers would have it
    return audio


class Decoding:
    """Iterator over a file as stereo blocks [2, n] of one second, at its own `rate`.

    Raises `SourceError`: on opening, for a file that is not audio, too short or too long by its header, or has more
    than two channels; while reading, for one that is cut short, never reaches the peak `quietest`, or holds samples
    that are not finite. `warnings` has all of them at the end.
    """

    def __init__(
        self, path: Path, longest: float, *, shortest: float = SHORTEST_READ, quietest: float = loudness.SILENCE
    ) -> None:
        self.path, self.longest, self.shortest, self.quietest = path, longest, shortest, quietest
        self.frames, self.peak = 0, 0.0
        self.warnings: list[str] = []
        opened = decode_by_libsndfile(path) or decode_by_ffmpeg(path)
        self.rate, self._promised, self._blocks = opened.rate, opened.promised, opened.blocks
        self._lossy, self._file_seconds = opened.lossy, opened.file_seconds
        self.warnings += opened.warnings
        if self._promised is not None:
            try:
                self._measure(self._promised)
            except SourceError:
                self._blocks.close()
                raise

    @property
    def samples(self) -> int:
        """Number of samples so far, at `READ_RATE`."""
        return round(self.frames * READ_RATE / self.rate)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        import numpy as np

        with contextlib.closing(self._blocks):
            for block in self._blocks:
                self.frames += block.shape[1]
                self.peak = max(self.peak, float(np.abs(block).max(initial=0)))
                if not np.isfinite(block).all():
                    second = self.frames // self.rate
                    raise SourceError(f"{self.path} holds samples that are not finite numbers, near second {second}.")
                self._measure(self.frames, so_far=True)
                yield block
        promised = (self._promised or 0) / self.rate
        missing = promised - self.frames / self.rate
        tolerated = max(MISSING_LOSSY_SECONDS, MISSING_LOSSY_SHARE * promised) if self._lossy else MISSING_SECONDS
        if missing > tolerated:
            raise cut_short_error(self.path, self.frames / self.rate, promised)
        if self._promised is not None and not self._lossy and self.frames > self._promised:
            self.warnings.append(
                f"{self.path} is {self.frames / self.rate:.2f} s long, where its header says {promised:.2f} s."
            )
        self._measure(self.frames)
        if self.peak < self.quietest:
            raise SourceError(f"{self.path} is silent.")
        seconds, whole = self.frames / self.rate, self._file_seconds or 0.0
        if whole - seconds > max(MISSING_LOSSY_SECONDS, MISSING_LOSSY_SHARE * whole):
            self.warnings.append(
                f"{self.path} has {seconds:.2f} s of sound and says it is {whole:.2f} s long; it may be cut."
            )

    def _measure(self, frames: int, *, so_far: bool = False) -> None:
        seconds = frames / self.rate
        if seconds > self.longest:
            most = f"{self.longest / 60:g} minutes"
            length = f"is longer than {most}" if so_far else f"is {format_time(seconds)} long, and {most} are the most"
            cut = f"ffmpeg -i {shell_word(self.path)} -t {self.longest:g} shorter.flac"
            raise LongSourceError(f"{self.path} {length}.", f"Cut it: {cut}")
        if seconds < self.shortest and not so_far:
            raise SourceError(f"{self.path} is {seconds:.2f} s long, and at least {self.shortest:g} s are needed.")


def format_time(seconds: float) -> str:
    """Return a length as `1:05`, or `2:00:00` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
