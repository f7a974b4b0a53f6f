"""Two bridges to ffmpeg, for m4a and video: pydub and our own. What each keeps of the samples, and what each holds."""

from __future__ import annotations

import json
import os
import statistics
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
from acestep_cli.audio.loudness import Level

RATE = 48_000
#: The most that `check` takes, and a song, in seconds; times are taken on a share of them.
READ_SECONDS, WRITTEN_SECONDS = 3600, 120
TIMED_SHARE = 0.1
WAYS = ("pydub", "ours")
#: Soft enough that its last bits are below those of 16 (-96 dBFS), and loud enough to be over full scale.
SOFT, LOUD = 2.0**-15, 1.5
NOTES = """\
Reading: an AAC file in an MP4 of {read:g} s, stereo, 48 kHz, by `decode.Decoding` a second at a time, and by
`AudioSegment.from_file`. Writing: {written:g} s of float samples as m4a, 192 kbit/s, by `encode.encode_by_ffmpeg` and
by `AudioSegment.export`. Memory is the highest resident set of the Python process, less what it held before; for
writing, the samples themselves ({samples:.0f} MB) are held before. ffmpeg's own memory is not counted. Times are the
medians of {rounds} runs by turns on a tenth of those lengths, each in a process of its own, at a load of {load:.0f} on
{cores} cores: the ratios tell more than the seconds.
What is kept is measured on PCM in Matroska: how far the samples that come out are from those that went in, for float
noise that peaks at {soft:.1f} dBFS, for a float sine that peaks at +{loud:.1f} dBFS, and for a sine of 24 bits. AAC is
compared with ffmpeg's own float samples, which is what ours are.
The last rows are what somebody reads who gives a video without sound, and files that were cut at 60 % of their bytes.

pydub 0.25.1 keeps whole numbers, of 16 bits for AAC: it clips what is over full scale and rounds the rest, and holds
the whole file several times. So samples do not go through it, in or out. Its `mediainfo_json` touches no sample: by it
`audio/media_info.py` asks ffprobe what a header says, before ffmpeg decodes.
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
    return lambda: encode.encode_by_ffmpeg(file, sound.Audio(samples, RATE), encoding, Level(peak=0.3, gain=1.0))


def write_pydub(samples: np.ndarray, file: Path) -> Any:
    from pydub import AudioSegment

    def work() -> None:
        whole = (samples.T * 32767).clip(-32768, 32767).astype("<i2").tobytes()
        AudioSegment(whole, sample_width=2, frame_rate=RATE, channels=2).export(
            file, format="ipod", codec="aac", bitrate="192k"
        )

    return work


def kept(way: str, folder: Path, samples: np.ndarray, codec: str) -> float:
    """The largest difference between samples [2, n] and what comes back of them out of a PCM file, in dBFS."""
    raw = samples.T.astype("<f4").tobytes()
    file = folder / f"{way}.mkv"
    command = ["ffmpeg", "-v", "error", "-y", "-f", "f32le", "-ar", str(RATE), "-ac", "2", "-i", "-", "-c:a"]
    subprocess.run([*command, codec, file], input=raw, check=True)
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


def timed(task: str, file: Path, seconds: float, rounds: int) -> dict[str, float]:
    """The median seconds of each way, which take turns."""
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            spent[way].append(apart(way, task, str(file), str(seconds))["seconds"])
    return {way: statistics.median(own) for way, own in spent.items()}


def said(way: str, file: Path) -> str:
    """The first line of what is said of a file, or what was read of it."""
    from pydub import AudioSegment

    try:
        if way == "pydub":
            return f"reads {AudioSegment.from_file(file).duration_seconds:.1f} s"
        found = decode.survey_file(file)
        return "; ".join([f"reads {found.seconds:.1f} s", *found.warnings]).replace(f"{file.parent}/", "")
    except Exception as error:
        line = str(error).partition("\n")[0].replace(f"{file.parent}/", "").replace("file:", "")
        return f"{type(error).__name__}: {line} ({len(str(error).splitlines())} lines)"


def damaged(folder: Path) -> dict[str, Path]:
    """A video without sound, and files that were cut."""
    picture = ["-f", "lavfi", "-i", "testsrc=s=64x64:r=5:d=20"]
    tone = ["-f", "lavfi", "-i", "sine=440:d=20:r=48000", "-ac", "2"]
    mute = folder / "mute.mp4"
    subprocess.run(["ffmpeg", "-v", "error", *picture, mute], check=True)
    found = {"a video without sound": mute}
    for kind in ("mkv", "flv", "m4a"):
        whole, cut = folder / f"whole.{kind}", folder / f"cut.{kind}"
        subprocess.run(["ffmpeg", "-v", "error", *([] if kind == "m4a" else picture), *tone, whole], check=True)
        cut.write_bytes(whole.read_bytes()[: round(0.6 * whole.stat().st_size)])
        found[f"a cut {kind}"] = cut
    return found


def main() -> None:
    options = parser(__doc__, rounds=3)
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
        short, file = folder / "short.mp4", folder / "long.mp4"
        source = f"anoisesrc=d={TIMED_SHARE * arguments.seconds}:a=0.3:r={RATE},aformat=channel_layouts=stereo"
        subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-c:a", "aac", short], check=True)
        again = ["-stream_loop", str(round(1 / TIMED_SHARE) - 1), "-i", short, "-c", "copy", file]
        subprocess.run(["ffmpeg", "-v", "error", *again], check=True)
        rng = np.random.default_rng(0)
        soft = rng.uniform(-SOFT, SOFT, (2, 2 * RATE)).astype(np.float32)
        wave = LOUD * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
        loud = np.stack([wave, wave]).astype(np.float32)
        steps = np.round(np.stack([wave, wave]) / LOUD * (2**23 - 1)) / 2**23
        memory = {way: (apart(way, "read", str(file), "0")["mb"], apart(way, "write", str(file), str(written))["mb"])
                  for way in WAYS}  # fmt: skip
        reading = timed("read", short, 0, arguments.rounds)
        writing = timed("write", short, TIMED_SHARE * written, arguments.rounds)
        load = os.getloadavg()[0]
        true = decoded("ours", short)
        inputs = ((soft, "pcm_f32le"), (loud, "pcm_f32le"), (steps.astype(np.float32), "pcm_s24le"))
        errors = {
            way: [*(kept(way, folder, *one) for one in inputs), decibels(decoded(way, short) - true)] for way in WAYS
        }
        sentences = {what: [said(way, damaged_file) for way in WAYS] for what, damaged_file in damaged(folder).items()}
    rows = [
        ("reading: memory", lambda way: f"{memory[way][0]:.0f} MB"),
        ("reading: time", lambda way: f"{reading[way]:.1f} s"),
        ("writing: memory", lambda way: f"{memory[way][1]:.0f} MB"),
        ("writing: time", lambda way: f"{writing[way]:.1f} s"),
        ("soft samples are off by", lambda way: level(errors[way][0])),
        ("loud samples are off by", lambda way: level(errors[way][1])),
        ("samples of 24 bits are off by", lambda way: level(errors[way][2])),
        ("decoded AAC is off by", lambda way: level(errors[way][3])),
    ]
    table = [["what", *WAYS], *([what, *(figure(way) for way in WAYS)] for what, figure in rows)]
    table += [[what, *own] for what, own in sentences.items()]
    notes = NOTES.format(
        read=arguments.seconds,
        written=written,
        rounds=arguments.rounds,
        load=load,
        cores=os.cpu_count(),
        samples=2 * written * RATE * 4 / 2**20,
        soft=20 * np.log10(SOFT),
        loud=20 * np.log10(LOUD),
    )
    publish(__file__, "Bridges to ffmpeg", table, notes, arguments.dry)


def level(decibels: float) -> str:
    return "nothing" if decibels == -np.inf else f"{decibels:.1f} dBFS"


if __name__ == "__main__":
    main()
