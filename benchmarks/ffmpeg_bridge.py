"""Two bridges to ffmpeg, for m4a and video: pydub and our own. What each keeps of the samples, and what each holds."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from memory_peak import resident_rise
from side_by_side import parser, publish

from acestep_cli.audio import decode, encode, sound

RATE = 48_000
#: The most that `check` takes, and the most that is rendered, in seconds.
READ_SECONDS, WRITTEN_SECONDS = 3600, 600
#: Soft enough that its last bits are below those of 16 (-96 dBFS), and loud enough to be over full scale.
SOFT, LOUD = 2.0**-15, 1.5
NOTES = """\
Reading: an AAC file in an MP4 of {read:g} s, stereo, 48 kHz, by `recordings.Decoding` a second at a time, and by
`AudioSegment.from_file`. Writing: {written:g} s of float samples as m4a, 192 kbit/s, by `formats.encode_by_program` and
by `AudioSegment.export`. Memory is the highest resident set of the Python process, less what it held before; for
writing, the samples themselves ({samples:.0f} MB) are held before. ffmpeg's own memory is not counted.
What is kept is measured on float PCM in Matroska: how far the samples that come out are from those that went in, for
noise that peaks at {soft:.1f} dBFS, and for a sine that peaks at +{loud:.1f} dBFS. AAC is compared with ffmpeg's own
float samples, which is what ours are.

pydub 0.25.1 keeps whole numbers, of 16 bits for AAC: it clips what is over full scale and rounds the rest, and holds
the whole file several times. It needs ffprobe besides, and from Python 3.13 on `audioop-lts`, since `audioop` is gone.
"""


def measured(work: Any) -> dict[str, float]:
    start = time.perf_counter()
    with resident_rise() as rise:
        work()
    return {"mb": rise.mb, "seconds": time.perf_counter() - start}


def read_ours(file: Path) -> Any:
    return lambda: sum(block.shape[1] for block in decode.Decoding(file, READ_SECONDS + 60))


def read_pydub(file: Path) -> Any:
    from pydub import AudioSegment

    return lambda: len(AudioSegment.from_file(file))


def write_ours(samples: np.ndarray, file: Path) -> Any:
    encoding = encode.resolve_encoding("m4a", bitrate=192)
    return lambda: encode.encode_by_ffmpeg(file, sound.Audio(samples, RATE), encoding, 1.0)


def write_pydub(samples: np.ndarray, file: Path) -> Any:
    from pydub import AudioSegment

    def work() -> None:
        whole = (samples.T * 32767).clip(-32768, 32767).astype("<i2").tobytes()
        AudioSegment(whole, sample_width=2, frame_rate=RATE, channels=2).export(
            file, format="ipod", codec="aac", bitrate="192k"
        )

    return work


def kept(way: str, folder: Path, samples: np.ndarray) -> float:
    """The largest difference between samples [2, n] and what comes back of them out of a float file, in dBFS."""
    raw = samples.T.astype("<f4").tobytes()
    file = folder / f"{way}.mkv"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "f32le", "-ar", str(RATE), "-ac", "2", "-i", "-", "-c:a"]
    subprocess.run([*command, "pcm_f32le", file], input=raw, check=True)
    return decibels(decoded(way, file) - samples)


def decoded(way: str, file: Path) -> np.ndarray:
    """All samples [2, n] of a file."""
    if way == "ours":
        return np.concatenate(list(decode.Decoding(file, READ_SECONDS + 60, quietest=0.0)), axis=1)
    from pydub import AudioSegment

    segment = AudioSegment.from_file(file)
    whole = np.array(segment.get_array_of_samples(), np.float64) / 2.0 ** (8 * segment.sample_width - 1)
    return whole.reshape(-1, 2).T


def decibels(difference: np.ndarray) -> float:
    worst = float(np.abs(difference).max())
    return 20 * np.log10(worst) if worst else -np.inf


def child(way: str, task: str, file: Path, seconds: float) -> dict[str, float]:
    if task == "read":
        return measured({"ours": read_ours, "pydub": read_pydub}[way](file))
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (2, round(seconds * RATE))).astype(np.float32)
    return measured({"ours": write_ours, "pydub": write_pydub}[way](samples, file.with_name(f"{way}.m4a")))


def apart(*words: str) -> dict[str, float]:
    """The figures of a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--child", *words], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=READ_SECONDS, help="length of the file that is read")
    options.add_argument("--child", nargs=4)
    arguments = options.parse_args()
    if arguments.child:
        way, task, file, seconds = arguments.child
        print(json.dumps(child(way, task, Path(file), float(seconds))))
        return
    written = min(WRITTEN_SECONDS, arguments.seconds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "long.mp4"
        source = f"anoisesrc=d={arguments.seconds}:a=0.3:r={RATE},aformat=channel_layouts=stereo"
        subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-c:a", "aac", file], check=True)
        rng = np.random.default_rng(0)
        soft = rng.uniform(-SOFT, SOFT, (2, 2 * RATE)).astype(np.float32)
        wave = LOUD * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
        loud = np.stack([wave, wave]).astype(np.float32)
        ways = ("pydub", "ours")
        figures = {
            way: [
                *(apart(way, "read", str(file), str(arguments.seconds)),),
                *(apart(way, "write", str(file), str(written)),),
            ]
            for way in ways
        }
        errors = {way: [kept(way, folder, samples) for samples in (soft, loud)] for way in ways}
        short = folder / "short.mp4"
        subprocess.run(["ffmpeg", "-v", "error", "-i", file, "-t", "5", "-c", "copy", short], check=True)
        true = decoded("ours", short)
        for way in ways:
            errors[way].append(decibels(decoded(way, short) - true))
    rows = [
        ("reading: memory", lambda way: f"{figures[way][0]['mb']:.0f} MB"),
        ("reading: time", lambda way: f"{figures[way][0]['seconds']:.1f} s"),
        ("writing: memory", lambda way: f"{figures[way][1]['mb']:.0f} MB"),
        ("writing: time", lambda way: f"{figures[way][1]['seconds']:.1f} s"),
        ("soft samples are off by", lambda way: level(errors[way][0])),
        ("loud samples are off by", lambda way: level(errors[way][1])),
        ("decoded AAC is off by", lambda way: level(errors[way][2])),
    ]
    table = [["what", *ways], *([what, *(figure(way) for way in ways)] for what, figure in rows)]
    notes = NOTES.format(
        read=arguments.seconds,
        written=written,
        samples=2 * written * RATE * 4 / 2**20,
        soft=20 * np.log10(SOFT),
        loud=20 * np.log10(LOUD),
    )
    publish(__file__, "Bridges to ffmpeg", table, notes, arguments.dry)


def level(decibels: float) -> str:
    return "nothing" if decibels == -np.inf else f"{decibels:.1f} dBFS"


if __name__ == "__main__":
    main()
