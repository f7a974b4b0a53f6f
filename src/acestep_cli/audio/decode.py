"""Audio files to work on or listen to, read from any format.

What libsndfile cannot read, ffmpeg does, if it is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.audio import encode, loudness
from acestep_cli.audio.sound import Audio, at_rate, joined
from acestep_cli.errors import SourceError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: At which rate everything is read.
READ_RATE = 48_000
#: Of what is to be worked on or listened to, in seconds.
SHORTEST_READ, LONGEST_READ = 1.0, 600.0
#: What libsndfile says of a length that it does not know.
UNKNOWN_FRAMES = 2**63 - 1
#: How much less than its header promises a file may hold: encoders count the samples they pad with, or do not.
MISSING_SECONDS, MISSING_SHARE = 0.5, 0.02


@dataclass(frozen=True)
class Recording:
    """An audio file that was read to its end and found sound: its length in samples at `READ_RATE`, its own rate, a
    fingerprint of its bytes, and one of what is heard, which other tags do not change.
    """

    path: Path
    samples: int
    rate: int
    fingerprint: str
    sound: str

    @property
    def seconds(self) -> float:
        return self.samples / READ_RATE


def survey(
    path: Path, longest: float = LONGEST_READ, hear: Callable[[NDArray[np.float32]], None] | None = None
) -> Recording:
    """Read the file `path` to its end; `hear` is given each block [2, n] of it. `SourceError` with the reason where it
    cannot be worked on.
    """
    decoding = Decoding(path, longest)
    digest = hashlib.sha256(str(decoding.rate).encode())
    for block in decoding:
        digest.update(block.tobytes())
        if hear is not None:
            hear(block)
    return Recording(path, decoding.samples, decoding.rate, fingerprint(path), digest.hexdigest()[:16])


def fingerprint(path: Path) -> str:
    """A hash of the bytes of a file. `SourceError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise unreadable(path, error) from error


def read(path: Path, longest: float = LONGEST_READ) -> Audio:
    """The audio file `path` as stereo at 48 kHz: mono is doubled, other rates are resampled, overs are clipped.

    Raises `SourceError`, with the reason, for what `survey` would refuse.
    """
    import numpy as np

    decoding = Decoding(path, longest)
    blocks = list(at_rate(decoding, decoding.rate, READ_RATE))
    audio = joined(blocks, decoding.samples, READ_RATE)
    np.clip(audio.samples, -1, 1, out=audio.samples)  # as a file of whole numbers would have it
    return audio


class Decoding:
    """The samples of a file as stereo blocks [2, n] of a second, at its own `rate`; counted while they pass.

    Raises `SourceError`: on opening for what is no audio, too short or too long by its header, or has more than two
    channels; at the end for what is not above `quietest`, cut short, or holds samples that are not finite.
    """

    def __init__(
        self, path: Path, longest: float, *, shortest: float = SHORTEST_READ, quietest: float = loudness.SILENCE
    ) -> None:
        self.path, self.longest, self.shortest, self.quietest = path, longest, shortest, quietest
        self.frames, self.peak = 0, 0.0
        try:
            if path.is_dir():
                raise SourceError(f"{path} is a folder, not an audio file.")
            with path.open("rb") as file:
                if not file.read(1):
                    raise SourceError(f"{path} is empty.")
        except OSError as error:
            raise unreadable(path, error) from error
        opened = decoded_by_libsndfile(path) or decoded_by_program(path)
        self.rate, self._promised, self._blocks = opened
        if self._promised is not None:
            self._measure(self._promised)

    @property
    def samples(self) -> int:
        """At `READ_RATE`, so far."""
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
        promised = self._promised or 0
        missing = (promised - self.frames) / self.rate
        if missing > max(MISSING_SECONDS, MISSING_SHARE * promised / self.rate):
            raise SourceError(
                f"{self.path} is cut short: its header promises {promised / self.rate:.1f} s, and "
                f"{self.frames / self.rate:.1f} s can be read.",
                f"Fetch it again; or keep what is there: ffmpeg -i {shlex.quote(str(self.path))} whole.flac",
            )
        self._measure(self.frames)
        if self.peak < self.quietest:
            raise SourceError(f"{self.path} is silent.")

    def _measure(self, frames: int, *, so_far: bool = False) -> None:
        seconds = frames / self.rate
        if seconds > self.longest:
            most = f"{self.longest / 60:g} minutes"
            length = f"is longer than {most}" if so_far else f"is {clock(seconds)} long, and {most} are the most"
            cut = f"ffmpeg -i {shlex.quote(str(self.path))} -t {self.longest:g} shorter.flac"
            raise SourceError(f"{self.path} {length}.", f"Cut it: {cut}")
        if seconds < self.shortest and not so_far:
            raise SourceError(f"{self.path} is {seconds:.2f} s long, and at least {self.shortest:g} s are needed.")


Decoded = tuple[int, int | None, "Generator[NDArray[np.float32]]"]
"""The rate of a file, its length in samples where its header tells, and its samples as stereo blocks."""


def decoded_by_libsndfile(path: Path) -> Decoded | None:
    """None for a file that libsndfile does not know. `SourceError` for more than two channels."""
    import soundfile

    try:
        with hushed():
            file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        return None
    if file.channels > 2:
        channels = file.channels
        file.close()
        raise crowded(path, channels)

    def second() -> NDArray[np.float32]:
        with hushed():
            samples: NDArray[np.float32] = file.read(file.samplerate, dtype="float32", always_2d=True)
        return samples

    def blocks() -> Generator[NDArray[np.float32]]:
        with file:
            try:
                # Its own blocks() gives old samples again where a file ends early.
                while len(block := second()):
                    yield block.T.repeat(2 // block.shape[1], axis=0)
            except soundfile.LibsndfileError as error:
                reason = error.error_string.removeprefix("Error : ").rstrip(".")
                raise SourceError(f"{path} is broken: {reason}.") from error

    known = 0 < file.frames < UNKNOWN_FRAMES
    return file.samplerate, file.frames if known else None, blocks()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Turn what a library in C says on stderr to nowhere: of a broken MP3, several lines before the one that counts."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def crowded(path: Path, channels: int) -> SourceError:
    return SourceError(
        f"{path} has {channels} channels; how they become two is yours to say.",
        f"Mix them: ffmpeg -i {shlex.quote(str(path))} -ac 2 stereo.flac",
    )


def decoded_by_program(path: Path) -> Decoded:
    """By ffmpeg. `SourceError` where there is none, and for a file without sound or with more than two channels."""
    if shutil.which(encode.FFMPEG) is None:
        raise SourceError(
            f"{path} is not audio that can be read here.",
            f"Give it as wav, flac, mp3, ogg or opus; with {encode.FFMPEG} installed, m4a, videos and more are read "
            "too.",
        )
    stream = poured_out(path)
    rate, channels = struct.unpack(">2I", next(stream))
    if channels > 2:
        stream.close()
        raise crowded(path, channels)

    def blocks() -> Generator[NDArray[np.float32]]:
        import numpy as np

        with contextlib.closing(stream):
            for data in stream:
                samples = np.frombuffer(data, ">f4").reshape(-1, channels)
                yield samples.T.astype(np.float32).repeat(2 // channels, axis=0)

    return rate, None, blocks()


def poured_out(path: Path) -> Generator[bytes]:
    """What ffmpeg makes of the first sound in a file: rate and channels, as two numbers of four bytes, and then the
    samples, a second at a time. `SourceError` where it does not come to the end of the file.

    It is asked for Sun's container, which tells both at once and no length.
    """
    command = [
        *(encode.FFMPEG, "-v", "error", "-nostdin", "-xerror", "-i", f"file:{path}", "-map", "0:a:0", "-vn"),
        *("-map_metadata", "-1", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"),
    ]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        except OSError as error:
            raise SourceError(
                f"{encode.FFMPEG} cannot be started: {(error.strerror or str(error)).lower()}."
            ) from error
        assert process.stdout is not None
        try:
            header = process.stdout.read(24)
            begun = len(header) == 24
            if begun:
                _, size, _, _, rate, channels = struct.unpack(">6I", header)
                yield header[16:]
                process.stdout.read(size - len(header))  # a note
                frame = 4 * channels
                while data := process.stdout.read(frame * rate):
                    yield data[: len(data) // frame * frame]
            process.wait()
        finally:  # whoever listens may have heard enough
            process.kill()
            process.wait()
            process.stdout.close()
        said.seek(0)
        reason = said.read()
    if b"matches no streams" in reason:
        raise SourceError(f"{path} holds no sound.")
    if process.returncode or not begun:
        fault = "is broken or cut short" if begun else "is not audio that can be read"
        raise SourceError(f"{path} {fault}: {encode.last_line(reason).rstrip('.')}.")


def unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.")


def clock(seconds: float) -> str:
    """`1:05`, or `2:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
