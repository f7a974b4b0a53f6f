"""Audio files of any format, decoded to samples.

libsndfile reads most formats, and ffmpeg, if installed, the others. A pipe is read to its end first.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import shutil
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from acestep_cli import disk
from acestep_cli.audio import containers, encode, loudness, media_info
from acestep_cli.audio.containers import Pieces, Stream
from acestep_cli.audio.sound import Audio, join_blocks, resample_blocks
from acestep_cli.errors import AceStepError, LongSourceError, SourceError, reason_of, shell_word

if TYPE_CHECKING:
    import numpy as np
    import soundfile
    from numpy.typing import NDArray

#: Sample rate of everything that is read, in Hz.
READ_RATE = 48_000
#: Shortest and longest recording, in seconds.
SHORTEST_READ, LONGEST_READ = 1.0, 600.0
#: Length that libsndfile reports where it does not know it.
UNKNOWN_FRAMES = 2**63 - 1
#: How much less than its header promises a file may hold, in seconds: writers of headers are off by a few bytes.
MISSING_SECONDS = 0.01
#: The same for MP3 and Ogg, whose encoders may or may not count their padding.
MISSING_LOSSY_SECONDS, MISSING_LOSSY_SHARE = 0.5, 0.02
LOSSY = ("MP3", "OGG")
#: In the log of ffmpeg: the length that a header gives, and lines that are no errors.
DURATION = re.compile(rb"^\[info\]   Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
QUIET = re.compile(rb"\[(warning|info)\]")
#: The most that is decoded at once, since a broken header may name any rate.
BLOCK_FRAMES = 1 << 20
#: The most that is read from a pipe, which may have no end.
PIPE_BYTES = 1 << 32


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


def file_hash(path: Path) -> str:
    """Return a hash of the bytes of a recording. Raises `SourceError` where it cannot be read."""
    try:
        return disk.file_hash(regular_file(path))
    except OSError as error:
        raise unreadable_error(path, error) from error


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


def decode_by_libsndfile(path: Path) -> Decoded | None:
    """Open a file with libsndfile; None where libsndfile does not know its format.

    Raises `SourceError` for more than two channels, and for several streams of different rates.
    """
    file = regular_file(path)
    try:
        streams = containers.streams(file) or [Stream(())]
    except OSError as error:
        raise unreadable_error(path, error) from error
    headers: list[StreamHeader] = []
    for number in range(1, len(streams) + 1):
        header = read_stream_header(path, file, streams, number)
        if header is None:
            return None
        headers.append(header)
    rate = common_rate(path, headers)
    lengths = [header.samples for header in headers if header.samples is not None]
    promised = sum(lengths) if len(lengths) == len(headers) and any(lengths) else None
    return Decoded(
        rate=rate,
        promised=promised,
        blocks=read_streams(path, file, streams, rate, promised),
        lossy=any(header.lossy for header in headers),
        warnings=tuple(dict.fromkeys(f"{path} {stream.warning}." for stream in streams if stream.warning is not None)),
    )


class StreamHeader(NamedTuple):
    """The sample rate of a stream, its number of samples where that is known, and whether its format is lossy."""

    rate: int
    samples: int | None
    lossy: bool


def read_stream_header(path: Path, file: Path, streams: Sequence[Stream], number: int) -> StreamHeader | None:
    """Read the header of stream `number` of `file`, counted from 1; None where libsndfile does not know the first.

    Raises `SourceError` for an empty or broken stream, and for more than two channels.
    """
    import soundfile

    stream = streams[number - 1]
    if not stream.share:
        raise SourceError(f"{path} is cut short: it ends before its first sample.", "Fetch it again.")
    try:
        with opened(file, stream) as sound:
            rate, channels, frames, lossy = sound.samplerate, sound.channels, sound.frames, sound.format in LOSSY
    except soundfile.LibsndfileError as error:
        if number == 1:
            return None
        raise SourceError(
            f"{path} holds {len(streams)} recordings in a row, and number {number} is broken: {reason(error)}."
        ) from error
    if channels > 2:
        raise too_many_channels(path, channels)
    known = stream.promised if stream.samples is None else stream.samples
    if known is not None:
        return StreamHeader(rate, known, lossy)
    return StreamHeader(rate, round(frames / stream.share) if 0 <= frames < UNKNOWN_FRAMES else None, lossy)


def common_rate(path: Path, headers: Sequence[StreamHeader]) -> int:
    """Return the sample rate of all streams. Raises `SourceError` where they differ."""
    rates = sorted({header.rate for header in headers})
    if len(rates) > 1:
        raise SourceError(
            f"{path} holds {len(headers)} recordings in a row, at {' and '.join(f'{rate} Hz' for rate in rates)}.",
            f"Bring them to one rate: ffmpeg -i {shell_word(path)} -ar {rates[-1]} joined.flac",
        )
    return rates[0]


def read_streams(
    path: Path, file: Path, streams: Sequence[Stream], rate: int, promised: int | None
) -> Generator[NDArray[np.float32]]:
    """Yield stereo blocks [2, n] of all streams of `file`. Raises `SourceError` where one breaks off."""
    import soundfile

    read = 0
    for stream in streams:
        begun = read
        with opened(file, stream) as sound:
            try:
                # Its own blocks() gives old samples again where a file ends early.
                while len(block := second(sound)):
                    read += len(block)
                    yield block.T.repeat(2 // block.shape[1], axis=0)
            except soundfile.LibsndfileError as error:
                if stream.promised is not None and read - begun >= stream.promised:
                    continue  # what follows its last sample is no sound
                of = "" if promised is None else f" of {promised / rate:.2f}"
                raise SourceError(
                    f"{path} is broken or cut short: {read / rate:.2f}{of} s can be read ({reason(error)})."
                ) from error


@contextlib.contextmanager
def opened(file: Path, stream: Stream) -> Iterator[soundfile.SoundFile]:
    """Open a stream of a file with libsndfile. It can only be read from beginning to end."""
    import soundfile

    with contextlib.ExitStack() as closing:
        source: bytes | Pieces = os.fsencode(file)  # a name that is not UTF-8, too
        if stream.pieces and (stream.pieces != (range(file.stat().st_size),) or stream.samples is not None):
            source = closing.enter_context(Pieces(file, stream.pieces, stretched=stream.samples is not None))
        with silencing_stderr(), disk.holding_signals():
            sound = soundfile.SoundFile(source)
        closing.callback(sound.close)
        # Else it would seek after each block, which fails at the end of a FLAC of unknown length.
        sound.seekable = lambda: False
        yield sound


def second(sound: soundfile.SoundFile) -> NDArray[np.float32]:
    """Read the next second [n, channels]. Signals wait, as Python would handle them inside libsndfile's callbacks."""
    with silencing_stderr(), disk.holding_signals():
        samples: NDArray[np.float32] = sound.read(min(sound.samplerate, BLOCK_FRAMES), dtype="float32", always_2d=True)
    return samples


def reason(error: soundfile.LibsndfileError) -> str:
    message: str = error.error_string
    return message.removeprefix("Error : ").rstrip(".")


@contextlib.contextmanager
def silencing_stderr() -> Iterator[None]:
    """Discard what C libraries print on stderr: for a broken MP3, several lines before the one that counts."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def too_many_channels(path: Path, channels: int) -> SourceError:
    return SourceError(
        f"{path} has {channels} channels, and only mono and stereo are read.",
        f"Mix them: ffmpeg -i {shell_word(path)} -ac 2 stereo.flac",
    )


def decode_by_ffmpeg(path: Path) -> Decoded:
    """Open a file with ffmpeg.

    Raises `SourceError` where ffmpeg is missing, and for a file without sound or with more than two channels.
    """
    if shutil.which(encode.FFMPEG) is None:
        raise SourceError(
            f"{path} is not audio that can be read here.",
            f"Give it as wav, flac, mp3, ogg or opus; with {encode.FFMPEG} installed, m4a, videos and more are read "
            "too.",
        )
    stream = ffmpeg_output(path, regular_file(path))
    rate, channels = struct.unpack(">2I", next(stream))
    info = media_info.probe_media(regular_file(path))
    if channels > 2:
        stream.close()
        raise too_many_channels(path, channels)

    def blocks() -> Generator[NDArray[np.float32]]:
        import numpy as np

        with contextlib.closing(stream):
            yield np.empty((2, 0), np.float32)  # once begun, closing it ends ffmpeg
            for data in stream:
                samples = np.frombuffer(data, ">f4").reshape(-1, channels)
                yield samples.T.astype(np.float32).repeat(2 // channels, axis=0)

    begun = blocks()
    next(begun)
    if info is None:
        return Decoded(rate, None, begun)
    several = f"{path} has {info.sounds} audio streams, of which the first is read."
    return Decoded(
        rate=rate,
        promised=None if info.sound_seconds is None else round(info.sound_seconds * rate),
        blocks=begun,
        lossy=True,
        warnings=(several,) if info.sounds > 1 else (),
        file_seconds=info.file_seconds if info.sound_seconds is None else None,
    )


def ffmpeg_output(path: Path, file: Path) -> Generator[bytes]:
    """Yield the first audio stream of `file`, decoded by ffmpeg: first its header, then its samples by the second.

    The header is rate and channels as two big-endian 32-bit integers, the samples are interleaved big-endian float32.
    ffmpeg writes Sun's AU container, which gives both in a header that needs no length. Raises `SourceError`, about
    `path`, where ffmpeg fails before the end of the file.
    """
    command = [
        *(encode.FFMPEG, "-v", "level+info", "-hide_banner", "-nostats", "-nostdin", "-xerror"),
        *("-i", f"file:{file}", "-map", "0:a:0", "-vn"),
        *("-map_metadata", "-1", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"),
    ]
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        except OSError as error:
            raise SourceError(f"{encode.FFMPEG} cannot be started: {reason_of(error)}.") from error
        assert process.stdout is not None
        try:
            header, seconds = process.stdout.read(24), None
            if len(header) == 24:
                _, size, _, _, rate, channels = struct.unpack(">6I", header)
                yield header[16:]
                process.stdout.read(size - len(header))  # a note
                frame, seconds = 4 * channels, 0.0
                while data := process.stdout.read(frame * rate):
                    seconds += len(data) // frame / rate
                    yield data[: len(data) // frame * frame]
            process.wait()
        finally:  # the caller may stop early
            process.kill()
            process.wait()
            process.stdout.close()
        log.seek(0)
        require_decoded(path, log.read(), seconds, failed=process.returncode != 0)


def require_decoded(path: Path, log: bytes, seconds: float | None, *, failed: bool) -> None:
    """Raise `SourceError` where ffmpeg, by its `log`, decoded `path` in part or not at all, even where it has not
    `failed`. It gave so many `seconds`, or no header where that is None.
    """
    if b"matches no streams" in log:
        raise SourceError(f"{path} holds no sound.")
    # It is content with these.
    if b"ended prematurely" in log:
        raise SourceError(f"{path} is cut short: it ends after {seconds or 0.0:.2f} s.", "Fetch it again.")
    if b"duplicated MOOV" in log:
        raise SourceError(
            f"{path} holds several recordings in a row, of which the first alone can be read.",
            "Join them instead: ffmpeg -i one.m4a -i two.m4a -filter_complex concat=v=0:a=1 joined.flac",
        )
    if seconds is not None and not failed and (promised := logged_seconds(log)) is not None:
        tolerated = max(MISSING_LOSSY_SECONDS, MISSING_LOSSY_SHARE * promised)
        if promised - seconds > tolerated:
            raise cut_short_error(path, seconds, promised)
    if failed or seconds is None:
        fault = "is not audio that can be read" if seconds is None else "is broken or cut short"
        errors = b"\n".join(line.replace(b"[error] ", b"") for line in log.split(b"\n") if not QUIET.search(line))
        raise SourceError(f"{path} {fault}: {encode.last_line(errors).rstrip('.')}.")


def logged_seconds(log: bytes) -> float | None:
    """Return the length of a file by its header, as ffmpeg logs it; None where it is a guess.

    With a video it may be that of the pictures. A cover is a video too, of one picture.
    """
    found = DURATION.search(log)
    videos = [line for line in log.split(b"\n") if b": Video: " in line and b"(attached pic)" not in line]
    if found is None or videos or b"Estimating duration" in log:
        return None
    hours, minutes, seconds = map(float, found.groups())
    return 3600 * hours + 60 * minutes + seconds


def cut_short_error(path: Path, seconds: float, promised: float) -> SourceError:
    return SourceError(
        f"{path} is cut short: {seconds:.2f} of {promised:.2f} s can be read.",
        f"Fetch it again; or keep what is there: ffmpeg -i {shell_word(path)} whole.flac",
    )


#: Temporary files with the content of pipes read in this process, by path, device and inode.
spooled: dict[tuple[Path, int, int], Path] = {}


def regular_file(path: Path) -> Path:
    """Return a regular file with the bytes of `path`: itself, or a temporary copy of a pipe, which can be read once.

    Raises `SourceError` for a folder, a device or an empty file, and for a pipe that nobody writes to.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise SourceError(f"{path} is a folder, not an audio file.")
        if stat.S_ISFIFO(found.st_mode):
            key = (path, found.st_dev, found.st_ino)
            if key not in spooled:
                spooled[key] = spool(path)
            return spooled[key]
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{path} is a device, not an audio file.")
        with path.open("rb") as file:
            if not file.read(1):
                raise SourceError(f"{path} is empty.")
    except OSError as error:
        raise unreadable_error(path, error) from error
    return path


def spool(path: Path) -> Path:
    """Copy a pipe to a temporary file, which is removed when the process ends.

    Raises `SourceError` for an empty or endless pipe, and `OSError` where the disk is full or nobody writes.
    """
    with tempfile.NamedTemporaryFile(delete=False) as copy:
        atexit.register(Path(copy.name).unlink, missing_ok=True)
        for data in disk.pipe_blocks(path):
            copy.write(data)
            if copy.tell() > PIPE_BYTES:
                raise SourceError(f"{path} has no end: over {PIPE_BYTES >> 30} GiB came out of it.")
        if not copy.tell():
            raise SourceError(f"{path} is empty.")
    return Path(copy.name)


def unreadable_error(path: Path, error: OSError) -> AceStepError:
    """Return why a file cannot be read: for a path below a current folder that was deleted, that."""
    if gone := disk.read_error(path, error):
        return gone
    return SourceError(f"{path} cannot be read: {reason_of(error)}{disk.suggest_path(path, error) or '.'}")


def format_time(seconds: float) -> str:
    """Return a length as `1:05`, or `2:00:00` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
