"""Audio files that ffmpeg decodes."""

from __future__ import annotations

import contextlib
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.audio import encode, media_info
from acestep_cli.audio.decoded import (
    MISSING_LOSSY_SECONDS,
    MISSING_LOSSY_SHARE,
    Decoded,
    cut_short_error,
    too_many_channels,
)
from acestep_cli.audio.regular_file import regular_file
from acestep_cli.errors import SourceError, reason_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: In the log of ffmpeg: the length that a header gives, and lines that are no errors.
DURATION = re.compile(rb"^\[info\]   Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
QUIET = re.compile(rb"\[(warning|info)\]")


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
