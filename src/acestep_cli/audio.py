"""Audio, writing it to a file by its suffix, and reading it from any.

libsndfile encodes all formats but one, which ffmpeg does; what libsndfile cannot read, ffmpeg does too, if it is there.
Two containers of libsndfile carry the clock or a dice roll of the moment; both are taken out again, because the same
render must give the same file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import shlex
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from acestep_cli import disk
from acestep_cli import tags as labels
from acestep_cli.errors import CheckError, EncoderError, OutputError, SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BIT_DEPTHS = ("16", "24", "32f")
BITRATES = (64, 96, 128, 160, 192, 224, 256, 320)
DEFAULT_BIT_DEPTH = "24"
DEFAULT_BITRATE = 192
DEFAULT_FORMAT = "flac"
SAMPLE_RATES = (44_100, 48_000, 96_000)
FFMPEG = "ffmpeg"

#: Below this peak (-120 dBFS) there is nothing to hear.
SILENCE = 1e-6

#: At which rate everything is read.
READ_RATE = 48_000
#: Of what is to be worked on or listened to, in seconds.
SHORTEST_READ, LONGEST_READ = 1.0, 600.0
#: What libsndfile says of a length that it does not know.
UNKNOWN_FRAMES = 2**63 - 1
#: How much less than its header promises a file may hold: encoders count the samples they pad with, or do not.
MISSING_SECONDS, MISSING_SHARE = 0.5, 0.02


@dataclass(frozen=True)
class Audio:
    """Stereo sound: float32 samples of shape [2, N], full scale at 1."""

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def seconds(self) -> float:
        return float(self.samples.shape[1] / self.sample_rate)


def erase_clock(file: io.FileIO) -> None:
    """Zero the time of writing in the PEAK chunk that libsndfile adds to a float WAV."""
    file.seek(12)
    while (header := file.read(8)) and len(header) == 8:
        name, size = struct.unpack("<4sI", header)
        if name == b"PEAK":
            file.seek(4, io.SEEK_CUR)
            file.write(bytes(4))
            return
        file.seek(size + size % 2, io.SEEK_CUR)


REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_checksum(page: bytes) -> int:
    """The CRC of an Ogg page (RFC 3533): zlib's polynomial, with bits in the other order and no inversion."""
    mirrored = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def erase_serial(file: io.FileIO) -> None:
    """Number the stream of an Ogg file 1, where libsndfile draws a number at random."""
    start = 0
    while True:
        file.seek(start)
        header = file.read(27)
        if len(header) < 27:
            return
        segments = file.read(header[26])
        page = bytearray(header + segments + file.read(sum(segments)))
        struct.pack_into("<I", page, 14, 1)
        struct.pack_into("<I", page, 22, 0)
        struct.pack_into("<I", page, 22, ogg_checksum(bytes(page)))
        file.seek(start)
        file.write(page)
        start += len(page)


@dataclass(frozen=True)
class Format:
    """How the encoder is asked for the format of one suffix."""

    container: str
    #: For formats that have no bit depth.
    subtype: str | None = None
    #: libsndfile's subtype for each bit depth.
    bit_depths: Mapping[str, str] = field(default_factory=dict)
    bitrates: tuple[int, ...] = ()
    sample_rates: tuple[int, ...] = SAMPLE_RATES
    #: The program that encodes it, where libsndfile does not.
    program: str | None = None
    #: Takes out what differs from one writing to the next.
    settle: Callable[[io.FileIO], None] | None = None


FORMATS: Mapping[str, Format] = {
    "wav": Format("WAV", bit_depths={"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"}, settle=erase_clock),
    "flac": Format("FLAC", bit_depths={"16": "PCM_16", "24": "PCM_24"}),
    "mp3": Format("MP3", "MPEG_LAYER_III", bitrates=BITRATES, sample_rates=(44_100, 48_000)),
    "ogg": Format("OGG", "VORBIS", settle=erase_serial),
    "opus": Format("OGG", "OPUS", sample_rates=(48_000,), settle=erase_serial),
    "m4a": Format("ipod", "aac", bitrates=BITRATES, program=FFMPEG),
}


@dataclass(frozen=True)
class Encoding:
    """A format with its settings, complete. `bitrate` in kbit/s; without a `sample_rate` it is that of the samples."""

    format: str
    bit_depth: str | None
    bitrate: int | None
    sample_rate: int | None = None


def encoding(
    format: str, bit_depth: str | None = None, bitrate: int | None = None, sample_rate: int | None = None
) -> Encoding:
    """The encoding asked for, defaults filled in. `UsageError` where format and settings contradict."""
    row = FORMATS[format]
    if bit_depth is not None and bit_depth not in row.bit_depths:
        able = _able(lambda other: bit_depth in other.bit_depths)
        raise UsageError(f"bit_depth: {format} cannot have {bit_depth}; {able} can.")
    if bitrate is not None and bitrate not in row.bitrates:
        able = _able(lambda other: bitrate in other.bitrates)
        raise UsageError(f"bitrate: {format} cannot have {bitrate}k; {able} can.")
    if sample_rate is not None and sample_rate not in row.sample_rates:
        able = _able(lambda other: sample_rate in other.sample_rates)
        raise UsageError(f"sample_rate: {format} cannot have {sample_rate} Hz; {able} can.")
    return Encoding(
        format,
        bit_depth or (DEFAULT_BIT_DEPTH if row.bit_depths else None),
        bitrate or (DEFAULT_BITRATE if row.bitrates else None),
        sample_rate,
    )


def _able(able: Callable[[Format], bool]) -> str:
    """The formats that are able to: `wav, flac and ogg`."""
    *others, last = (name for name, row in FORMATS.items() if able(row))
    return f"{', '.join(others)} and {last}" if others else last


def require(format: str) -> None:
    """`OutputError` where the program that encodes `format` is not installed."""
    program = FORMATS[format].program
    if program is not None and shutil.which(program) is None:
        raise OutputError(
            f"{program} is missing: it encodes {format}, and is no part of acestep.",
            f"Install it, or choose another format: --format {DEFAULT_FORMAT} needs none.",
        )


@dataclass(frozen=True)
class Loudness:
    """What level is asked for: `kind` is none, peak (dBFS) or lufs (LUFS, integrated)."""

    kind: str
    decibels: float = 0.0


#: The range of levels of each kind, in decibels.
LEVELS = {"peak": (-60.0, 0.0), "lufs": (-60.0, -5.0)}
TRUE_PEAK_LIMIT = 10 ** (-1 / 20)  # what EBU R 128 and the streaming services allow
OVERSAMPLING = 4  # ITU-R BS.1770-4, annex 2


def loudness(text: str) -> Loudness:
    """Read `none`, `peak:DB` or `lufs:LUFS`. `ValueError` for other text."""
    if text == "none":
        return Loudness("none")
    kind, _, level = text.partition(":")
    try:
        decibels = float(level)
    except ValueError:
        decibels = math.nan
    low, high = LEVELS.get(kind, (0.0, -1.0))
    if not low <= decibels <= high:
        raise ValueError(
            f"{text[:40]!r} is neither none, nor peak:DB, such as peak:-1, from -60 to 0 dBFS, nor lufs:LUFS, such as "
            "lufs:-14, from -60 to -5"
        )
    return Loudness(kind, decibels)


@dataclass(frozen=True)
class Finish:
    """How samples become a file: what is done to them, how they are encoded, and what is written beside them.

    In this order: they are resampled, faded over `fade_in` and `fade_out` seconds, and then measured and brought to
    the loudness asked for, so that it is the loudness of the file.
    """

    encoding: Encoding
    loudness: str = "none"
    fade_in: float = 0.0
    fade_out: float = 0.0
    tags: labels.Tags | None = None


def resampled(audio: Audio, rate: int) -> Audio:
    """`audio` at another sample rate, as long to a sample."""
    if rate == audio.sample_rate:
        return audio
    samples = audio.samples.shape[1]
    return joined(at_rate(blocks(audio), audio.sample_rate, rate), round(samples * rate / audio.sample_rate), rate)


def at_rate(blocks: Iterable[NDArray[np.float32]], rate: int, wanted: int) -> Iterator[NDArray[np.float32]]:
    """Stereo blocks [2, n] at another sample rate: by soxr, which streams through them."""
    if rate == wanted:
        yield from blocks
        return
    import numpy as np
    import soxr

    stream = soxr.ResampleStream(rate, wanted, 2, dtype="float32", quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block.T)).T
    yield stream.resample_chunk(np.zeros((0, 2), np.float32), last=True).T  # what the filter still holds


def joined(blocks: Iterable[NDArray[np.float32]], samples: int, rate: int) -> Audio:
    """Blocks in a row, cut or filled with silence to `samples`."""
    import numpy as np

    made = np.zeros((2, samples), np.float32)
    place = 0
    for block in blocks:
        kept = block[:, : samples - place]
        made[:, place : place + kept.shape[1]] = kept
        place += kept.shape[1]
    return Audio(made, rate)


def faded(audio: Audio, fade_in: float, fade_out: float) -> Audio:
    """`audio` with its beginning and its end faded, over so many seconds.

    Quarter sines: the power follows a raised cosine, which has a corner at neither end. The audio passed in stays as
    it is.
    """
    if not fade_in and not fade_out:
        return audio
    import numpy as np

    samples = audio.samples.copy()
    for seconds, ordered in ((fade_in, samples), (fade_out, samples[:, ::-1])):
        length = round(seconds * audio.sample_rate)
        for start in range(0, min(length, samples.shape[1]), audio.sample_rate):
            part = ordered[:, start : min(start + audio.sample_rate, length)]
            part *= np.sin(np.pi / 2 * np.arange(start, start + part.shape[1]) / length).astype(np.float32)
    return Audio(samples, audio.sample_rate)


@dataclass(frozen=True)
class Level:
    """What was measured on samples before their level was set, and the factor that sets it.

    `lufs` is measured where it is asked for; `reached` is then the loudness that `gain` gives, which true peaks may
    keep under what was asked.
    """

    peak: float
    gain: float
    lufs: float | None = None
    reached: float | None = None


def level(audio: Audio, asked: str) -> Level:
    """How to bring `audio` to the loudness asked for; peaks never go over full scale.

    `CheckError` if it is silent or not finite. Loudness as in ITU-R BS.1770-4.
    """
    highest = peak(audio)
    wanted = loudness(asked)
    if wanted.kind == "none":
        return Level(highest, min(1.0, 1 / highest))
    if wanted.kind == "peak":
        return Level(highest, float(10 ** (wanted.decibels / 20)) / highest)
    measured = integrated(audio)
    if not math.isfinite(measured):  # everything is under its gate of -70 LUFS
        raise CheckError("The rendered audio is too quiet to measure its loudness, so no file was written.")
    gain = min(10 ** ((wanted.decibels - measured) / 20), TRUE_PEAK_LIMIT / true_peak(audio))
    return Level(highest, gain, measured, measured + 20 * math.log10(gain))


def integrated(audio: Audio) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770-4, by pyloudnorm); minus infinity for what lies under its gate."""
    import pyloudnorm

    return float(pyloudnorm.Meter(audio.sample_rate).integrated_loudness(audio.samples.T))


def true_peak(audio: Audio) -> float:
    """The highest absolute value between the samples too, from fourfold oversampling in blocks that overlap.

    Where a block is cut the filter rings, higher than the sound: what is looked at lies a margin away from there.
    """
    import numpy as np
    from scipy.signal import resample_poly

    rate, margin = audio.sample_rate, 64
    highest = 0.0
    for start in range(0, audio.samples.shape[1], rate):
        before = min(start, margin)
        block = resample_poly(audio.samples[:, start - before : start + rate + margin], OVERSAMPLING, 1, axis=1)
        inside = block[:, OVERSAMPLING * before : OVERSAMPLING * (before + rate)]
        highest = max(highest, float(np.abs(inside).max()))
    return highest


def peak(audio: Audio) -> float:
    """The highest absolute sample. `CheckError` if a sample is not finite, or none is above silence."""
    import numpy as np

    peaks = [float(np.abs(block).max()) for block in blocks(audio)]
    highest = max(peaks, default=0.0)
    if not all(map(math.isfinite, peaks)):
        raise CheckError("The rendered audio holds samples that are not finite numbers, so no file was written.")
    if highest < SILENCE:
        raise CheckError("The rendered audio is silent, so no file was written.")
    return highest


def blocks(audio: Audio) -> Iterator[NDArray[np.float32]]:
    """The samples, one second at a time, as [2, n]."""
    for start in range(0, audio.samples.shape[1], audio.sample_rate):
        yield audio.samples[:, start : start + audio.sample_rate]


class _Sink(io.FileIO):
    """The file libsndfile writes to, which remembers why a write failed.

    libsndfile would report a full disk as "System error", and while closing not at all. What is raised inside
    its callbacks cannot pass through it either: it is kept here and raised afterwards.
    """

    failure: BaseException | None = None

    def write(self, data: Any) -> int:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[super().write(rest) :]
        except BaseException as error:
            self.failure = self.failure or error
            return 0
        return len(data)


def write(path: Path, audio: Audio, finish: Finish) -> Level:
    """Write `audio` to the new file `path`, finished as asked, and return how its level was set.

    A peak over full scale is divided down, whatever the loudness. Audio that is silent or not finite is a
    `CheckError`. A failure may leave part of a file: `disk.whole` gives a path that does not mind.
    """
    encoding = finish.encoding
    audio = resampled(audio, encoding.sample_rate or audio.sample_rate)
    audio = faded(audio, finish.fade_in, finish.fade_out)
    set_to = level(audio, finish.loudness)
    encode = encode_by_libsndfile if FORMATS[encoding.format].program is None else encode_by_program
    encode(path, audio, encoding, set_to.gain)
    if finish.tags is not None:
        labels.write(path, encoding.format, finish.tags)
    return set_to


def encode_by_libsndfile(path: Path, audio: Audio, encoding: Encoding, gain: float) -> None:
    import soundfile

    row = FORMATS[encoding.format]
    settings: dict[str, Any] = {}
    if encoding.bitrate is not None:
        # libsndfile's scale for constant MP3: 0 is 320 kbit/s, 1 is 32.
        settings = {"compression_level": (320 - encoding.bitrate) / 288, "bitrate_mode": "CONSTANT"}
    with _Sink(path, "x+") as sink:
        try:
            # Signals wait, because Python would run their handlers inside libsndfile's callbacks.
            with (
                disk.signals_held() as deliver_signals,
                soundfile.SoundFile(
                    sink,
                    "w",
                    samplerate=audio.sample_rate,
                    channels=audio.samples.shape[0],
                    format=row.container,
                    subtype=row.bit_depths[encoding.bit_depth] if encoding.bit_depth else row.subtype,
                    **settings,
                ) as file,
            ):
                for block in blocks(audio):
                    file.write((block * gain).T)
                    deliver_signals()
        except (soundfile.SoundFileError, AssertionError) as error:  # it asserts that all frames were taken
            if sink.failure is None:
                raise EncoderError(f"The {encoding.format} encoder failed: {error}") from error
        if row.settle and sink.failure is None:
            row.settle(sink)
        if sink.failure is not None:
            raise sink.failure


def encode_by_program(path: Path, audio: Audio, encoding: Encoding, gain: float) -> None:
    """Encode by ffmpeg, which reads the samples from its stdin; `EncoderError` where it does not come to its end.

    It is called directly rather than through pydub: that would hold the whole song twice more, as integers, and write
    it to a temporary WAV first.
    """
    row = FORMATS[encoding.format]
    command = [
        *(str(row.program), "-v", "error", "-nostdin", "-y"),
        *("-f", "f32le", "-ar", str(audio.sample_rate), "-ac", str(audio.samples.shape[0]), "-i", "pipe:0"),
        *("-map_metadata", "-1", "-c:a", str(row.subtype), "-b:a", f"{encoding.bitrate}k"),
        *("-fflags", "+bitexact", "-flags:a", "+bitexact"),  # no clock, no version
        *("-movflags", "+faststart", "-f", row.container, f"file:{path}"),
    ]
    with tempfile.TemporaryFile() as said:  # a pipe that nobody reads would fill up
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said)
        except OSError as error:
            raise EncoderError(f"{row.program} cannot be started: {(error.strerror or str(error)).lower()}.") from error
        assert process.stdin is not None
        try:
            took_all = _pour(audio, gain, process.stdin)
            process.wait()
        except BaseException:  # Ctrl-C: it must not go on writing
            process.kill()
            process.wait()
            raise
        said.seek(0)
        reason = last_line(said.read())
    if process.returncode or not took_all or not path.is_file():
        raise EncoderError(f"The {encoding.format} encoder, {row.program}, failed ({process.returncode}): {reason}")


def last_line(said: bytes) -> str:
    """What a program said last, which is why it failed."""
    lines = [line.strip() for line in said.decode(errors="replace").split("\n")]
    return next((line[:300] for line in reversed(lines) if line), "it gave no reason")


def _pour(audio: Audio, gain: float, sink: IO[bytes]) -> bool:
    """Give the samples to a program, interleaved; False if it stops reading before their end."""
    try:
        for block in blocks(audio):
            sink.write((block * gain).T.astype("<f4").tobytes())
        sink.close()
    except OSError:  # a broken pipe
        return False
    finally:
        with contextlib.suppress(OSError):  # which would hide what came before
            sink.close()
    return True


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
        self, path: Path, longest: float, *, shortest: float = SHORTEST_READ, quietest: float = SILENCE
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
    if shutil.which(FFMPEG) is None:
        raise SourceError(
            f"{path} is not audio that can be read here.",
            f"Give it as wav, flac, mp3, ogg or opus; with {FFMPEG} installed, m4a, videos and more are read too.",
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
        *(FFMPEG, "-v", "error", "-nostdin", "-xerror", "-i", f"file:{path}", "-map", "0:a:0", "-vn"),
        *("-map_metadata", "-1", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"),
    ]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        except OSError as error:
            raise SourceError(f"{FFMPEG} cannot be started: {(error.strerror or str(error)).lower()}.") from error
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
        raise SourceError(f"{path} {fault}: {last_line(reason).rstrip('.')}.")


def unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.")


def clock(seconds: float) -> str:
    """`1:05`, or `2:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
