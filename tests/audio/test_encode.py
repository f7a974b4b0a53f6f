"""Writing audio: whole or not at all, the same bytes for the same samples, never clipped, never silent."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
import soundfile

from acestep_cli import disk
from acestep_cli.audio import encode
from acestep_cli.audio import sound as audio
from acestep_cli.audio.sound import Audio
from acestep_cli.errors import CheckError, EncoderError, ExistsError, OutputError, UsageError
from support import ffmpeg
from support.command import finish
from support.places import ROOT
from support.sounds import TITLED, tone, write

RATE = 48_000
FORMATS = {name: row for name, row in encode.FORMATS.items() if row.program is None}
ENCODINGS = [
    encode.resolve_encoding(name, depth) for name, row in FORMATS.items() for depth in (row.bit_depths or [None])
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_a_file_holds_what_was_written(tmp_path: Path, encoding: encode.Encoding) -> None:
    sound, path = tone(), tmp_path / f"a.{encoding.format}"
    write(path, sound, encoding, tags=TITLED)
    with soundfile.SoundFile(path) as file:
        assert (file.samplerate, file.channels, file.frames) == (RATE, 2, sound.samples.shape[1])
        assert file.title == "Nächte Ω"
        samples = file.read(dtype="float32").T
        if encoding.bit_depth:
            assert file.subtype == encode.FORMATS[encoding.format].bit_depths[encoding.bit_depth]
    worst = {"16": 2**-15, "24": 2**-23, "32f": 0.0}.get(encoding.bit_depth or "")
    if worst is not None:
        assert np.abs(samples - sound.samples).max() <= worst
    else:
        assert np.corrcoef(samples.ravel(), sound.samples.ravel())[0, 1] > 0.98
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    """Float WAV carries the second of writing, Ogg a number drawn from the clock: both are taken out."""
    sound = tone()

    def written() -> list[bytes]:
        paths = [tmp_path / f"{number}.{encoding.format}" for number, encoding in enumerate(ENCODINGS)]
        for path, encoding in zip(paths, ENCODINGS, strict=True):
            write(path, sound, encoding, tags=TITLED)
        return [path.read_bytes() for path in paths]

    first = written()
    time.sleep(1.1)
    assert [a == b for a, b in zip(first, written(), strict=True)] == [True] * len(ENCODINGS)


@pytest.mark.parametrize("bitrate", encode.BITRATES)
def test_a_bitrate_is_honoured(tmp_path: Path, bitrate: int) -> None:
    path = tmp_path / "a.mp3"
    write(path, tone(10), encode.resolve_encoding("mp3", bitrate=bitrate))
    assert path.stat().st_size * 8 / 10 / 1000 == pytest.approx(bitrate, rel=0.02)


@pytest.mark.parametrize(
    ("loudness", "peak", "expected"),
    [("none", 0.25, 0.25), ("none", 4.0, 1.0), ("none", 1.0, 1.0), ("peak:-1", 0.25, 0.8913), ("peak:-6", 4.0, 0.5012),
     ("peak:0", 0.001, 1.0)],
)  # fmt: skip
@pytest.mark.parametrize("depth", ["16", "32f"])
def test_the_peak_is_set_and_never_clips(
    tmp_path: Path, loudness: str, peak: float, expected: float, depth: str
) -> None:
    sound, path = tone(1, peak), tmp_path / "a.wav"
    assert write(path, sound, encode.resolve_encoding("wav", depth), loudness).peak == pytest.approx(peak)
    samples = soundfile.read(path, dtype="float32")[0].T
    if (loudness, depth) == ("none", "32f"):
        expected = peak  # floating point holds it
    assert np.abs(samples).max() == pytest.approx(expected, abs=1e-4)
    assert np.corrcoef(samples.ravel(), sound.samples.ravel())[0, 1] > 0.9999  # scaled, not wrapped or cut


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda samples: samples * 0, "is silent"),
        (lambda samples: samples * 1e-7, "is silent"),
        (lambda samples: samples[:, :0], "is silent"),
        (lambda samples: np.where(samples == samples[0, -1], np.nan, samples), "not finite"),
        (lambda samples: np.where(samples == samples[1, 5], np.inf, samples), "not finite"),
    ],
)
def test_what_cannot_be_heard_is_never_a_file(tmp_path: Path, spoil, sentence: str) -> None:
    sound = Audio(spoil(tone().samples).astype(np.float32), RATE)
    with pytest.raises(CheckError, match=sentence) as caught:
        write(tmp_path / "a.wav", sound, encode.resolve_encoding("wav"))
    assert caught.value.exit_code == 6
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("flac", "32f"), "bit_depth: flac cannot have 32f; wav can"),
        (("mp3", "16"), "bit_depth: mp3 cannot have 16; wav and flac can"),
        (("wav", None, 192), "bitrate: wav cannot have 192k; mp3 and m4a can"),
        (("opus", None, None, 44_100), "sample_rate: opus cannot have 44100 Hz; wav, flac, mp3, ogg and m4a can"),
        (("mp3", None, None, 96_000), "sample_rate: mp3 cannot have 96000 Hz; wav, flac, ogg and m4a can"),
    ],
)
def test_contradicting_encodings_are_refused(settings, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        encode.resolve_encoding(*settings)


def test_encodings_are_completed() -> None:
    assert encode.resolve_encoding("flac") == encode.Encoding("flac", "24", None)
    assert encode.resolve_encoding("mp3") == encode.Encoding("mp3", None, 192)
    assert encode.resolve_encoding("ogg") == encode.Encoding("ogg", None, None)


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/a\.wav cannot be written: no such file or directory") as caught:
        write(tmp_path / "no" / "a.wav", tone(), encode.resolve_encoding("wav"))
    assert caught.value.exit_code == 9


WRITE_UNDER_A_LIMIT = """
    import resource, sys
    from pathlib import Path
    sys.path.insert(0, "tests")
    from support.sounds import TITLED, encode, tone, write
    from acestep_cli.errors import OutputError
    path, encoding, limit = Path(sys.argv[1]), encode.resolve_encoding(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        write(path, tone(), encoding, tags=TITLED)
    except OutputError as error:
        print(error.message)
        sys.exit(error.exit_code)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit stands in for a full disk, and is Unix's")
@pytest.mark.parametrize("short_by", [1, 1500, 20_000], ids=lambda n: f"short by {n}")
@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_no_file(tmp_path: Path, format: str, short_by: int) -> None:
    """libsndfile reports nothing when the last bytes do not fit: it writes them while closing."""
    path = tmp_path / f"a.{format}"
    write(path, tone(), encode.resolve_encoding(format), tags=TITLED)
    limit = path.stat().st_size - short_by
    path.unlink()
    run = finish(
        [sys.executable, "-c", textwrap.dedent(WRITE_UNDER_A_LIMIT), str(path), format, str(limit)],
        text=True,
        cwd=ROOT,
    )
    assert (run.returncode, run.stdout) == (9, f"{path} cannot be written: file too large.\n"), run.stderr
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(b"old")

    def blocks_until_interrupted(sound: Audio):
        yield sound.samples[:, :RATE]
        if sys._getframe(1).f_code.co_name == "encode_by_libsndfile":
            raise KeyboardInterrupt
        yield sound.samples[:, RATE:]

    monkeypatch.setattr(encode, "one_second_blocks", blocks_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(path, tone(), encode.resolve_encoding("flac"))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_ctrl_c_inside_the_encoder_is_not_lost(tmp_path: Path, monkeypatch) -> None:
    """libsndfile calls back into Python to write; an exception in there would vanish."""

    def interrupted(_data: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "memoryview", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.wav", tone(), encode.resolve_encoding("wav"))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process there")
@pytest.mark.parametrize("callback", ["write", "seek", "tell"])
@pytest.mark.parametrize("closing", [False, True], ids=["encoding", "closing"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_signal_inside_the_encoder_is_not_lost(
    tmp_path: Path, monkeypatch, format: str, closing: bool, callback: str
) -> None:
    """libsndfile calls back into Python, where what a signal handler raises would vanish."""
    sent: list[str] = []
    close = soundfile.SoundFile.close

    def interrupting(sink: encode._Sink, *arguments: Any) -> Any:
        if not sent and not closing:
            sent.append(callback)
            os.kill(os.getpid(), signal.SIGINT)
        return getattr(io.FileIO, callback)(sink, *arguments)

    def interrupting_close(file: soundfile.SoundFile) -> None:
        nonlocal closing
        closing = False
        close(file)

    monkeypatch.setattr(encode._Sink, callback, interrupting)
    monkeypatch.setattr(soundfile.SoundFile, "close", interrupting_close)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        write(tmp_path / f"a.{format}", tone(), encode.resolve_encoding(format))
    except KeyboardInterrupt:
        assert sent
    else:
        assert not sent  # no format uses all callbacks at all times
    assert sent or callback != "write"
    assert bool(list(tmp_path.iterdir())) == (not sent)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("format", ["wav", "ogg"])
def test_a_failure_to_erase_what_differs_is_told(tmp_path: Path, monkeypatch, format: str) -> None:
    encoding = encode.resolve_encoding(format, "32f" if format == "wav" else None)
    settle = encode.FORMATS[format].fix_header
    assert settle is not None

    def failing_settle(sink: encode._Sink) -> None:
        def full(*_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(encode, "memoryview", full, raising=False)
        settle(sink)

    monkeypatch.setitem(encode.FORMATS, format, replace(encode.FORMATS[format], fix_header=failing_settle))
    with pytest.raises(OutputError, match="no space left"):
        write(tmp_path / f"a.{format}", tone(), encoding)
    assert not list(tmp_path.iterdir())


# Resampling and fading


def sine(rate: int, seconds: float = 3.3, hertz: float = 1000) -> Audio:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return Audio(np.stack([wave, -wave]).astype(np.float32), rate)


@pytest.mark.parametrize("rate", [44_100, 96_000])
def test_a_resampled_tone_is_the_tone_without_clicks(rate: int) -> None:
    """Blocks of a second must leave no trace at their edges, and nothing may come late."""
    made = audio.resample(sine(RATE), rate)
    assert (made.sample_rate, made.samples.shape) == (rate, (2, int(3.3 * rate)))
    edge = rate // 20
    assert np.abs(made.samples - sine(rate).samples)[:, edge:-edge].max() < 1e-5


@pytest.mark.parametrize("frames", [1, 7, 47_999, 48_000, 48_001])
def test_a_resampled_sound_is_as_long_to_a_sample(frames: int) -> None:
    sound = Audio(np.ones((2, frames), np.float32), RATE)
    assert audio.resample(sound, 44_100).samples.shape == (2, round(frames * 44_100 / RATE))
    assert audio.resample(sound, RATE) is sound


def test_what_the_new_rate_cannot_hold_is_filtered_out() -> None:
    assert np.abs(audio.resample(sine(96_000, hertz=30_000), 44_100).samples)[:, 4410:-4410].max() < 1e-5


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_has_the_rate_asked_for(tmp_path: Path, format: str) -> None:
    for rate in encode.FORMATS[format].sample_rates:
        path = tmp_path / f"a.{format}"
        write(path, tone(), encode.resolve_encoding(format, sample_rate=rate), tags=TITLED)
        found = soundfile.info(path)
        assert (found.samplerate, found.frames) == (rate, 2.5 * rate)


def test_fades_are_quarter_sines_at_the_ends_alone() -> None:
    sound = Audio(np.ones((2, 4 * RATE), np.float32), RATE)
    made = audio.apply_fades(sound, 1.5, 0.5).samples
    rise, fall = np.arange(int(1.5 * RATE)) / (1.5 * RATE), np.arange(RATE // 2) / (RATE // 2)
    assert made[0, : len(rise)] == pytest.approx(np.sin(np.pi / 2 * rise), abs=1e-6)
    assert made[1, -len(fall) :] == pytest.approx(np.sin(np.pi / 2 * fall)[::-1], abs=1e-6)
    assert (made[:, len(rise) : -len(fall)] == 1).all()
    assert (made[:, [0, -1]] == 0).all()
    assert (sound.samples == 1).all()
    assert audio.apply_fades(sound, 0, 0) is sound


def test_fades_may_meet_and_a_sound_may_end_sooner() -> None:
    sound = Audio(np.ones((2, RATE), np.float32), RATE)
    assert audio.apply_fades(sound, 0.5, 0.5).samples.max() <= 1
    assert audio.apply_fades(sound, 2, 2).samples.shape == (2, RATE)


def test_the_level_is_that_of_the_faded_sound(tmp_path: Path) -> None:
    """The loudest moment lies in the fade, so that what is left of it is less."""
    samples = tone(4, 0.25).samples
    samples[:, -100:] *= 4
    set_to = [
        write(tmp_path / "a.wav", Audio(samples, RATE), encode.resolve_encoding("wav", "32f"), loudness, fade_out=1.0)
        for loudness in ("peak:-1", "lufs:-20")
    ]
    assert set_to[0].peak == pytest.approx(0.25, abs=0.01)
    import pyloudnorm

    written, rate = soundfile.read(tmp_path / "a.wav")
    assert pyloudnorm.Meter(rate).integrated_loudness(written) == pytest.approx(-20, abs=0.02)


# The format that another program encodes


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stand-in for ffmpeg, which is the first on PATH; what it was asked is in `asked` there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    ffmpeg.install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_FFMPEG_LOG", str(folder / "asked"))
    return folder


UNIX_ONLY = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script")


@UNIX_ONLY
def test_ffmpeg_gets_the_samples_and_what_is_asked_for(tmp_path: Path, fake_ffmpeg: Path) -> None:
    sound, path = tone(2.2, 0.5), tmp_path / "a b: 100%d.m4a"
    encoding = encode.resolve_encoding("m4a", bitrate=256, sample_rate=44_100)
    assert encoding == encode.Encoding("m4a", None, 256, 44_100)
    write(path, sound, encoding, "peak:0", fade_in=1.0, tags=TITLED)
    asked = (fake_ffmpeg / "asked").read_text()
    for words in ("-f f32le -ar 44100 -ac 2 -i pipe:0", "-c:a aac -b:a 256k", "+bitexact", "-f ipod"):
        assert words in asked.replace("\n", " ")
    heard = np.frombuffer(ffmpeg.samples_of(path.read_bytes()), np.float32).reshape(-1, 2).T
    expected = audio.apply_fades(audio.resample(sound, 44_100), 1.0, 0.0).samples
    assert heard == pytest.approx(expected / np.abs(expected).max(), abs=1e-6)
    assert mutagen.File(path).tags["\xa9nam"] == ["Nächte Ω"]
    first = path.read_bytes()
    write(path, sound, encoding, "peak:0", fade_in=1.0, tags=TITLED)
    assert path.read_bytes() == first


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("rate", encode.FORMATS["m4a"].sample_rates)
def test_the_real_ffmpeg_makes_aac_that_plays(tmp_path: Path, rate: int) -> None:
    sound, path = tone(), tmp_path / "a b: 100%d.m4a"
    write(path, sound, encode.resolve_encoding("m4a", bitrate=320, sample_rate=rate), tags=TITLED)
    first = path.read_bytes()
    write(path, sound, encode.resolve_encoding("m4a", bitrate=320, sample_rate=rate), tags=TITLED)
    assert path.read_bytes() == first
    found = mutagen.File(path)
    assert (found.info.codec, found.info.sample_rate, found.tags["\xa9nam"]) == ("mp4a.40.2", rate, ["Nächte Ω"])
    decode = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-f", "f32le", "pipe:1"]
    played = np.frombuffer(finish(decode, check=True).stdout, np.float32).reshape(-1, 2).T
    expected = audio.resample(sound, rate).samples
    assert abs(played.shape[1] - expected.shape[1]) <= 1024  # a frame: old versions do not cut the last one
    both = [one[:, : min(played.shape[1], expected.shape[1])].ravel() for one in (played, expected)]
    assert np.corrcoef(both)[0, 1] > 0.99


@UNIX_ONLY
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("too old", r"The m4a encoder, ffmpeg, failed \(1\): Unknown encoder 'aac'$"),
        ("dies", r"The m4a encoder, ffmpeg, failed \(-9\): it gave no reason$"),
        ("full", r"failed \(1\): av_interleaved_write_frame\(\): No space left on device$"),
        ("nothing", r"failed \(0\): it gave no reason$"),
        ("nonsense", r"The tags of the m4a file could not be written: "),
    ],
)
@pytest.mark.usefixtures("fake_ffmpeg")
def test_a_failing_ffmpeg_leaves_no_file(tmp_path: Path, monkeypatch, words: str, sentence: str) -> None:
    monkeypatch.setenv("FAKE_FFMPEG", words)
    with pytest.raises(EncoderError, match=sentence) as caught:
        write(tmp_path / "a.m4a", tone(20), encode.resolve_encoding("m4a"), tags=TITLED)
    assert caught.value.exit_code == 9
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@UNIX_ONLY
def test_an_ffmpeg_that_does_not_start_is_told(tmp_path: Path, fake_ffmpeg: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(fake_ffmpeg))  # else the next one on it is tried
    (fake_ffmpeg / "ffmpeg").write_text("#!/no/such/interpreter\n")
    with pytest.raises(EncoderError, match="ffmpeg cannot be started: no such file or directory"):
        write(tmp_path / "a.m4a", tone(), encode.resolve_encoding("m4a"))


@UNIX_ONLY
@pytest.mark.parametrize("hanging", [False, True], ids=["while it reads", "while it works"])
@pytest.mark.usefixtures("fake_ffmpeg")
def test_ctrl_c_ends_ffmpeg_too(tmp_path: Path, monkeypatch, hanging: bool) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **more: started.append(popen(*args, **more)) or started[-1])
    if hanging:
        monkeypatch.setenv("FAKE_FFMPEG", "hangs")
        threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        blocks = audio.one_second_blocks

        def blocks_until_interrupted(sound: Audio):
            yield next(blocks(sound))
            if sys._getframe(1).f_code.co_name == "_feed":
                raise KeyboardInterrupt

        monkeypatch.setattr(encode, "one_second_blocks", blocks_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.m4a", tone(), encode.resolve_encoding("m4a"))
    assert started[0].poll() is not None
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_missing_ffmpeg_is_told_before(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OutputError, match=r"ffmpeg is missing: it encodes m4a") as caught:
        encode.require_encoder("m4a")
    assert caught.value.exit_code == 9
    assert "--format flac needs no other program" in str(caught.value)
    for format in FORMATS:
        encode.require_encoder(format)


# Files that appear whole or not at all


def pair(folder: Path, replace: bool = False) -> None:
    names = [folder / "a", folder / "a.yaml"]
    with disk.write_whole(*names, replace=names if replace else ()) as parts:
        for part, text in zip(parts, ("new", "new yaml"), strict=True):
            part.write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


@pytest.fixture(params=["links", "no links"])
def with_and_without_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", no_link)


@pytest.mark.usefixtures("with_and_without_links")
def test_files_appear_together(tmp_path: Path) -> None:
    pair(tmp_path)
    assert contents(tmp_path) == {"a": "new", "a.yaml": "new yaml"}


@pytest.mark.usefixtures("with_and_without_links")
@pytest.mark.parametrize("name", ["a", "a.yaml"])
def test_a_file_that_is_there_is_replaced_on_demand_only(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(ExistsError, match=f"{name} exists already") as caught:
        pair(tmp_path)
    assert caught.value.exit_code == 9
    assert contents(tmp_path) == {name: "old"}
    pair(tmp_path, replace=True)
    assert contents(tmp_path) == {"a": "new", "a.yaml": "new yaml"}


def test_of_two_files_none_appears_when_one_cannot(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="a cannot be written"):
        pair(tmp_path, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(OutputError, match="no such file or directory"):
        pair(tmp_path / "no")


def test_a_broken_link_is_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    assert disk.is_taken(tmp_path / "a")
    assert not disk.is_taken(tmp_path / "b")
    with pytest.raises(OutputError, match="name too long"):
        disk.is_taken(tmp_path / ("x" * 300))


def test_ogg_pages_carry_valid_checksums() -> None:
    """The checksum of RFC 3533, one bit at a time, against the one that goes through zlib."""
    page = bytes(range(256)) * 3
    slow = 0
    for byte in page:
        slow ^= byte << 24
        for _ in range(8):
            slow = (slow << 1) ^ (0x104C11DB7 if slow & 0x80000000 else 0)
    assert encode.ogg_checksum(page) == slow
