"""Formats of audio files, their settings, and the encoders.

libsndfile encodes all formats but one, which ffmpeg encodes. libsndfile writes the time into one container and a random
number into another; both are removed, because the same render must give the same file.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from acestep_cli import disk
from acestep_cli.audio.loudness import CLIP, KEEP, TURN_DOWN, Level, at_level, find_level
from acestep_cli.audio.sound import Audio, apply_fades, one_second_blocks, resample
from acestep_cli.audio.tags import Tags, write_tags
from acestep_cli.audio.wav_chunks import Marker, append_chunks, marker_chunks
from acestep_cli.errors import EncoderError, OutputError, UsageError, reason_of

BIT_DEPTHS = ("16", "24", "32f")
BITRATES = (64, 96, 128, 160, 192, 224, 256, 320)
#: The bit depth that holds peaks over full scale.
FLOATING = "32f"
DEFAULT_BIT_DEPTH = "24"
DEFAULT_BITRATE = 192
DEFAULT_FORMAT = "flac"
SAMPLE_RATES = (44_100, 48_000, 96_000)
FFMPEG = "ffmpeg"


def zero_peak_time(file: io.FileIO) -> None:
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


def fix_ogg_serial(file: io.FileIO) -> None:
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
    """Encoder settings for the format of one suffix."""

    container: str
    #: For formats that have no bit depth.
    subtype: str | None = None
    #: libsndfile's subtype for each bit depth.
    bit_depths: Mapping[str, str] = field(default_factory=dict)
    bitrates: tuple[int, ...] = ()
    sample_rates: tuple[int, ...] = SAMPLE_RATES
    #: The program that encodes it, where libsndfile does not.
    program: str | None = None
    #: Removes what differs from one write to the next.
    fix_header: Callable[[io.FileIO], None] | None = None


FORMATS: Mapping[str, Format] = {
    "wav": Format("WAV", bit_depths={"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"}, fix_header=zero_peak_time),
    "flac": Format("FLAC", bit_depths={"16": "PCM_16", "24": "PCM_24"}),
    "mp3": Format("MP3", "MPEG_LAYER_III", bitrates=BITRATES, sample_rates=(44_100, 48_000)),
    "ogg": Format("OGG", "VORBIS", fix_header=fix_ogg_serial),
    "opus": Format("OGG", "OPUS", sample_rates=(48_000,), fix_header=fix_ogg_serial),
    "m4a": Format("ipod", "aac", bitrates=BITRATES, program=FFMPEG),
}


@dataclass(frozen=True)
class Encoding:
    """A format with all its settings. `bitrate` is in kbit/s; `sample_rate` None keeps that of the samples."""

    format: str
    bit_depth: str | None
    bitrate: int | None
    sample_rate: int | None = None


def resolve_encoding(
    format: str, bit_depth: str | None = None, bitrate: int | None = None, sample_rate: int | None = None
) -> Encoding:
    """Return an encoding with defaults filled in. Raises `UsageError` where format and settings contradict."""
    row = FORMATS[format]
    if bit_depth is not None and bit_depth not in row.bit_depths:
        able = _formats_with(lambda other: bit_depth in other.bit_depths)
        raise UsageError(f"bit_depth: {format} cannot have {bit_depth}; {able} can.")
    if bitrate is not None and bitrate not in row.bitrates:
        able = _formats_with(lambda other: bitrate in other.bitrates)
        raise UsageError(f"bitrate: {format} cannot have {bitrate}k; {able} can.")
    if sample_rate is not None and sample_rate not in row.sample_rates:
        able = _formats_with(lambda other: sample_rate in other.sample_rates)
        raise UsageError(f"sample_rate: {format} cannot have {sample_rate} Hz; {able} can.")
    return Encoding(
        format,
        bit_depth or (DEFAULT_BIT_DEPTH if row.bit_depths else None),
        bitrate or (DEFAULT_BITRATE if row.bitrates else None),
        sample_rate,
    )


def _formats_with(able: Callable[[Format], bool]) -> str:
    """Return the names of the formats for which `able` is true: `wav, flac and ogg`."""
    *others, last = (name for name, row in FORMATS.items() if able(row))
    return f"{', '.join(others)} and {last}" if others else last


def require_encoder(format: str) -> None:
    """Raise `OutputError` where the program that encodes `format` is not installed."""
    program = FORMATS[format].program
    if program is not None and shutil.which(program) is None:
        raise OutputError(
            f"{program} is missing: it encodes {format}, and is not part of acestep.",
            f"Install it, or choose another format: --format {DEFAULT_FORMAT} needs no other program.",
        )


@dataclass(frozen=True)
class Finish:
    """Processing of samples on their way into a file: fades, loudness, encoding, tags and markers.

    The samples are resampled, then faded over `fade_in` and `fade_out` seconds, then brought to `loudness`, which is
    thus that of the file. With loudness `none`, a song with peaks over full scale is turned down, or with
    `keeps_level` clipped; floating point holds such peaks.
    """

    encoding: Encoding
    loudness: str = "none"
    fade_in: float = 0.0
    fade_out: float = 0.0
    tags: Tags | None = None
    keeps_level: bool = False
    #: Named places in a WAV.
    markers: tuple[Marker, ...] = ()

    @property
    def overs(self) -> str:
        """Treatment of peaks over full scale where no loudness is asked for: `KEEP`, `CLIP` or `TURN_DOWN`."""
        if self.encoding.bit_depth == FLOATING:
            return KEEP
        return CLIP if self.keeps_level else TURN_DOWN


class _Sink(io.FileIO):
    """The file that libsndfile writes to. It keeps the exception of a failed write.

    libsndfile would report a full disk as "System error", and while closing not at all. No exception can pass through
    its callbacks, so it is kept here and raised afterwards.
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


def write_audio(path: Path, audio: Audio, finish: Finish) -> Level:
    """Write `audio` to the new file `path` with the processing of `finish`, and return its measured and set level.

    Raises `CheckError` for audio that is silent or not finite, and `EncoderError`. A failure may leave part of a file,
    so `path` should come from `disk.write_whole`.
    """
    encoding = finish.encoding
    audio = resample(audio, encoding.sample_rate or audio.sample_rate)
    audio = apply_fades(audio, finish.fade_in, finish.fade_out)
    level = find_level(audio, finish.loudness, finish.overs)
    encode = encode_by_libsndfile if FORMATS[encoding.format].program is None else encode_by_ffmpeg
    encode(path, audio, encoding, level)
    if finish.tags is not None:
        write_tags(path, encoding.format, finish.tags)
    if finish.markers:
        append_chunks(path, marker_chunks(finish.markers, audio.sample_rate))
    return level


def encode_by_libsndfile(path: Path, audio: Audio, encoding: Encoding, level: Level) -> None:
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
                disk.holding_signals() as deliver_signals,
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
                for block in one_second_blocks(audio):
                    file.write(at_level(block, level).T)
                    deliver_signals()
        except (soundfile.SoundFileError, AssertionError) as error:  # it asserts that all frames were taken
            if sink.failure is None:
                raise EncoderError(f"The {encoding.format} encoder failed: {error}") from error
        if row.fix_header and sink.failure is None:
            row.fix_header(sink)
        if sink.failure is not None:
            raise sink.failure


def encode_by_ffmpeg(path: Path, audio: Audio, encoding: Encoding, level: Level) -> None:
    """Encode with ffmpeg, which reads the samples from its stdin. Raises `EncoderError` where it fails.

    It is called directly rather than through pydub: that would hold the whole song twice more, as integers, and write
    it to a temporary WAV first (`benchmarks/ffmpeg_bridge.py`).
    """
    row = FORMATS[encoding.format]
    command = [
        *(str(row.program), "-v", "error", "-nostdin", "-y"),
        *("-f", "f32le", "-ar", str(audio.sample_rate), "-ac", str(audio.samples.shape[0]), "-i", "pipe:0"),
        *("-map_metadata", "-1", "-c:a", str(row.subtype), "-b:a", f"{encoding.bitrate}k"),
        *("-fflags", "+bitexact", "-flags:a", "+bitexact"),  # no clock, no version
        *("-movflags", "+faststart", "-f", row.container, f"file:{path}"),
    ]
    with tempfile.TemporaryFile() as log:  # a pipe that nobody reads would fill up
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log)
        except OSError as error:
            raise EncoderError(f"{row.program} cannot be started: {reason_of(error)}.") from error
        assert process.stdin is not None
        try:
            took_all = _feed(audio, level, process.stdin)
            process.wait()
        except BaseException:  # Ctrl-C: it must not go on writing
            process.kill()
            process.wait()
            raise
        log.seek(0)
        reason = last_line(log.read())
    if process.returncode or not took_all or not path.is_file():
        raise EncoderError(f"The {encoding.format} encoder, {row.program}, failed ({process.returncode}): {reason}")


def last_line(log: bytes) -> str:
    """Return the last line of a program's output, which tells why it failed."""
    lines = [line.strip() for line in log.decode(errors="replace").split("\n")]
    return next((line[:300] for line in reversed(lines) if line), "it gave no reason")


def _feed(audio: Audio, level: Level, sink: IO[bytes]) -> bool:
    """Write the samples to a program, interleaved. Return False if it stops reading before their end."""
    try:
        for block in one_second_blocks(audio):
            sink.write(at_level(block, level).T.astype("<f4").tobytes())
        sink.close()
    except OSError:  # a broken pipe
        return False
    finally:
        with contextlib.suppress(OSError):  # which would hide what came before
            sink.close()
    return True
