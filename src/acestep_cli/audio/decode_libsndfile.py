"""Audio files that libsndfile decodes, also several recordings in a row."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from acestep_cli import disk
from acestep_cli.audio import containers
from acestep_cli.audio.containers import Pieces, Stream
from acestep_cli.audio.decoded import Decoded, too_many_channels
from acestep_cli.audio.regular_file import regular_file, unreadable_error
from acestep_cli.errors import SourceError, shell_word

if TYPE_CHECKING:
    import numpy as np
    import soundfile
    from numpy.typing import NDArray

#: Length that libsndfile reports where it does not know it.
UNKNOWN_FRAMES = 2**63 - 1
LOSSY = ("MP3", "OGG")
#: The most that is decoded at once, since a broken header may name any rate.
BLOCK_FRAMES = 1 << 20


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
        with open_stream(file, stream) as sound:
            rate, channels, frames, lossy = sound.samplerate, sound.channels, sound.frames, sound.format in LOSSY
    except soundfile.LibsndfileError as error:
        if number == 1:
            return None
        raise SourceError(
            f"{path} holds {len(streams)} recordings in a row, and number {number} is broken: {sndfile_message(error)}."
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
        with open_stream(file, stream) as sound:
            try:
                # Its own blocks() gives old samples again where a file ends early.
                while len(block := read_second(sound)):
                    read += len(block)
                    yield block.T.repeat(2 // block.shape[1], axis=0)
            except soundfile.LibsndfileError as error:
                if stream.promised is not None and read - begun >= stream.promised:
                    continue  # what follows its last sample is no sound
                of = "" if promised is None else f" of {promised / rate:.2f}"
                raise SourceError(
                    f"{path} is broken or cut short: {read / rate:.2f}{of} s can be read ({sndfile_message(error)})."
                ) from error


@contextlib.contextmanager
def open_stream(file: Path, stream: Stream) -> Iterator[soundfile.SoundFile]:
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


def read_second(sound: soundfile.SoundFile) -> NDArray[np.float32]:
    """Read the next second [n, channels]. Signals wait, as Python would handle them inside libsndfile's callbacks."""
    with silencing_stderr(), disk.holding_signals():
        samples: NDArray[np.float32] = sound.read(min(sound.samplerate, BLOCK_FRAMES), dtype="float32", always_2d=True)
    return samples


def sndfile_message(error: soundfile.LibsndfileError) -> str:
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
