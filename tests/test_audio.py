"""Writing audio: whole or not at all, the same bytes for the same samples, never clipped, never silent."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from acestep_cli import audio, disk
from acestep_cli.audio import Audio
from acestep_cli.errors import CheckError, OutputError, UsageError

RATE = 48_000
ENCODINGS = [audio.encoding(name, depth) for name, row in audio.FORMATS.items() for depth in (row.bit_depths or [None])]


def tone(seconds: float = 2.5, peak: float = 0.5) -> Audio:
    """A chord with a little noise, different on each side."""
    t = np.arange(int(seconds * RATE)) / RATE
    left = np.sin(2 * np.pi * 220 * t) + 0.5 * np.sin(2 * np.pi * 277.2 * t)
    right = np.sin(2 * np.pi * 329.6 * t) + 0.1 * np.random.default_rng(0).standard_normal(len(t))
    both = np.stack([left, right])
    return Audio((peak * both / np.abs(both).max()).astype(np.float32), RATE)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_a_file_holds_what_was_written(tmp_path: Path, encoding: audio.Encoding) -> None:
    sound, path = tone(), tmp_path / f"a.{encoding.format}"
    audio.write(path, sound, encoding, title="Nächte Ω")
    with soundfile.SoundFile(path) as file:
        assert (file.samplerate, file.channels, file.frames) == (RATE, 2, sound.samples.shape[1])
        assert file.title == "Nächte Ω"
        samples = file.read(dtype="float32").T
        if encoding.bit_depth:
            assert file.subtype == audio.FORMATS[encoding.format].bit_depths[encoding.bit_depth]
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
            audio.write(path, sound, encoding, title="A")
        return [path.read_bytes() for path in paths]

    first = written()
    time.sleep(1.1)
    assert [a == b for a, b in zip(first, written(), strict=True)] == [True] * len(ENCODINGS)


@pytest.mark.parametrize("bitrate", audio.BITRATES)
def test_a_bitrate_is_honoured(tmp_path: Path, bitrate: int) -> None:
    path = tmp_path / "a.mp3"
    audio.write(path, tone(10), audio.encoding("mp3", bitrate=bitrate))
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
    assert audio.write(path, sound, audio.encoding("wav", depth), loudness) == pytest.approx(peak)
    samples = soundfile.read(path, dtype="float32")[0].T
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
        audio.write(tmp_path / "a.wav", sound, audio.encoding("wav"))
    assert caught.value.exit_code == 6
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("flac", "32f"), "bit_depth: flac cannot have 32f; wav can"),
        (("mp3", "16"), "bit_depth: mp3 cannot have 16; wav and flac can"),
        (("wav", None, 192), "bitrate: wav cannot have 192k; mp3 can"),
    ],
)
def test_contradicting_encodings_are_refused(settings, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        audio.encoding(*settings)


def test_encodings_are_completed() -> None:
    assert audio.encoding("flac") == audio.Encoding("flac", "24", None)
    assert audio.encoding("mp3") == audio.Encoding("mp3", None, 192)
    assert audio.encoding("ogg") == audio.Encoding("ogg", None, None)


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no/a\.wav cannot be written: no such file or directory") as caught:
        audio.write(tmp_path / "no" / "a.wav", tone(), audio.encoding("wav"))
    assert caught.value.exit_code == 9


WRITE_UNDER_A_LIMIT = """
    import resource, sys
    from pathlib import Path
    sys.path.insert(0, "tests")
    from test_audio import audio, tone
    from acestep_cli.errors import OutputError
    path, encoding, limit = Path(sys.argv[1]), audio.encoding(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        audio.write(path, tone(), encoding)
    except OutputError as error:
        print(error.message)
        sys.exit(error.exit_code)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit stands in for a full disk, and is Unix's")
@pytest.mark.parametrize("short_by", [1, 1500, 20_000], ids=lambda n: f"short by {n}")
@pytest.mark.parametrize("format", list(audio.FORMATS))
def test_a_full_disk_leaves_no_file(tmp_path: Path, format: str, short_by: int) -> None:
    """libsndfile reports nothing when the last bytes do not fit: it writes them while closing."""
    path = tmp_path / f"a.{format}"
    audio.write(path, tone(), audio.encoding(format))
    limit = path.stat().st_size - short_by
    path.unlink()
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WRITE_UNDER_A_LIMIT), str(path), format, str(limit)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert (run.returncode, run.stdout) == (9, f"{path} cannot be written: file too large.\n"), run.stderr
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(b"old")

    def blocks_until_interrupted(sound: Audio):
        yield sound.samples[:, :RATE]
        if sys._getframe(1).f_code.co_name == "write":
            raise KeyboardInterrupt
        yield sound.samples[:, RATE:]

    monkeypatch.setattr(audio, "blocks", blocks_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        audio.write(path, tone(), audio.encoding("flac"))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_ctrl_c_inside_the_encoder_is_not_lost(tmp_path: Path, monkeypatch) -> None:
    """libsndfile calls back into Python to write; an exception in there would vanish."""

    def interrupted(_data: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(audio, "memoryview", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        audio.write(tmp_path / "a.wav", tone(), audio.encoding("wav"))
    assert not list(tmp_path.iterdir())


def test_text_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    disk.write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    with pytest.raises(OutputError):
        disk.write_text(tmp_path / "no" / "a.yaml", "")
    assert list(tmp_path.iterdir()) == [path]


def test_ogg_pages_carry_valid_checksums() -> None:
    """The checksum of RFC 3533, one bit at a time, against the one that goes through zlib."""
    page = bytes(range(256)) * 3
    slow = 0
    for byte in page:
        slow ^= byte << 24
        for _ in range(8):
            slow = (slow << 1) ^ (0x104C11DB7 if slow & 0x80000000 else 0)
    assert audio.ogg_checksum(page) == slow
