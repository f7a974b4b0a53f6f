"""A stand-in for ffmpeg: it takes the program's arguments, writes the samples as they come into an MP4, and reads them
out of one again, into Sun's container.

The words in FAKE_FFMPEG tell it how to misbehave; its arguments go to the file that FAKE_FFMPEG_LOG names. No AAC is
made: the container is true enough for tags, and its sound is float PCM. A stand-in for ffprobe prints FAKE_FFPROBE.
"""

from __future__ import annotations

import os
import signal
import stat
import struct
import sys
import time
from array import array
from pathlib import Path


def install(folder: Path) -> None:
    """Put it into `folder` as `ffmpeg`, for PATH, and a stand-in for ffprobe."""
    for name, script in (
        ("ffmpeg", f'exec "{sys.executable}" "{__file__}" "$@"'),
        ("ffprobe", 'printf "  Stream #0:%s: some codec\\n" 0 1 2 >&2; printf %s "${FAKE_FFPROBE:-no JSON}"'),
    ):
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


def atom(name: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(b"".join(parts)), name) + b"".join(parts)


def mp4(rate: int, samples: bytes) -> bytes:
    """One track of sound, its index in front, as `+faststart` writes it."""
    first = atom(b"ftyp", b"M4A ", bytes(4), b"M4A mp42isom")

    def index(place: int) -> bytes:
        media_header = atom(b"mdhd", bytes(12), struct.pack(">IIHH", rate, len(samples) // 8, 0, 0))
        handler = atom(b"hdlr", bytes(8), b"soun", bytes(13))
        places = atom(b"stco", bytes(4), struct.pack(">II", 1, place))
        media = atom(b"mdia", media_header, handler, atom(b"minf", atom(b"stbl", places)))
        return atom(b"moov", atom(b"mvhd", bytes(100)), atom(b"trak", media))

    place = len(first) + len(index(0)) + 8
    return first + index(place) + atom(b"mdat", samples)


def samples_of(file: bytes) -> bytes:
    """The sound, from where the index says it is to the end."""
    at = file.index(b"stco") + 12
    return file[struct.unpack_from(">I", file, at)[0] :]


def decode(file: Path, words: str) -> None:
    content = file.read_bytes()
    if b"stco" not in content:
        sys.exit(f"{file}: Invalid data found when processing input")
    if "no sound" in words:
        sys.exit("Stream map '0:a:0' matches no streams.\nTo ignore this, add a trailing '?' to the map.")
    rate = struct.unpack_from(">I", content, content.index(b"mdhd") + 16)[0]
    channels = 6 if "surround" in words else 2
    sys.stdout.buffer.write(struct.pack(">4sIIIII8x", b".snd", 32, 2**32 - 1, 6, rate, channels))
    samples = array("f", samples_of(content))
    samples.byteswap()
    sys.stdout.buffer.write(samples.tobytes() * (1000 if "endless" in words else 1))
    sys.stdout.buffer.flush()
    if "promises" in words:
        log_length(words)
    if "hangs" in words:
        time.sleep(60)
    if "cut" in words:
        print("[matroska,webm @ 0x55] [error] File ended prematurely", file=sys.stderr)
    if "joined" in words:
        print("[mov,mp4,m4a,3gp,3g2,mj2 @ 0x55] [warning] Found duplicated MOOV Atom. Skipped it", file=sys.stderr)
    if "partial" in words:
        sys.exit(f"{file}: corrupt input packet in stream 0")


def log_length(words: str) -> None:
    """Log the length that the header gives, and the streams, as ffmpeg does."""
    promised = words.split()[words.split().index("promises") + 1]
    log = [f"[info]   Duration: 00:00:{promised.rjust(5, '0')}, start: 0.000000", "[info]   Stream #0:0: Audio: aac"]
    if "guessed" in words:
        log.insert(0, "[in#0/asf @ 0x55] [warning] Estimating duration from bitrate, this may be inaccurate")
    if "video" in words:
        log.append("[info]   Stream #0:1: Video: h264 (High), yuv420p, 640x480")
    if "cover" in words:
        log.append("[info]   Stream #0:1: Video: mjpeg (Baseline), yuvj444p, 500x500 (attached pic)")
    print(*log, "[out#0/au @ 0x55] [info] video:0KiB audio:750KiB", sep="\n", file=sys.stderr)


def main() -> None:
    words, arguments = os.environ.get("FAKE_FFMPEG", ""), sys.argv[1:]
    if log := os.environ.get("FAKE_FFMPEG_LOG"):
        Path(log).write_text("\n".join(arguments))
    if "too old" in words:
        sys.exit("ffmpeg version 0.1\nUnknown encoder 'aac'\n")
    if arguments[-1] == "pipe:1":
        decode(Path(arguments[arguments.index("-i") + 1].removeprefix("file:")), words)
        return
    if "dies" in words:
        sys.stdin.buffer.read(1000)
        os.kill(os.getpid(), signal.SIGKILL)
    samples = sys.stdin.buffer.read()
    if "hangs" in words:
        time.sleep(60)
    if "full" in words:
        sys.exit("av_interleaved_write_frame(): No space left on device\n" * 10_000)
    if "nothing" not in words:
        rate = int(arguments[arguments.index("-ar") + 1])
        made = b"nonsense" if "nonsense" in words else mp4(rate, samples)
        Path(arguments[-1].removeprefix("file:")).write_bytes(made)


if __name__ == "__main__":
    main()
