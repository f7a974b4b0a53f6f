"""Files that say nothing true of their length, several in one, pipes, and what may not be read."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.models import ParameterInfo
from typer.testing import CliRunner, Result
from typer.utils import get_params_from_function

from acestep_cli.audio import decode, measure
from acestep_cli.audio.regular_file import file_hash
from acestep_cli.cli import app as cli
from acestep_cli.cli.app import app
from acestep_cli.errors import SourceError
from acestep_cli.training import dataset
from support.command import finish
from support.places import DATA

RATE = 48_000
#: Variable bitrate, 501 frames of 1152 samples, and no Xing header: the first frame is a large one.
VBR, VBR_SAMPLES = DATA / "vbr_noxing.mp3", 501 * 1152

CONTAINERS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "aiff": ("AIFF", "PCM_16"),
    "rf64": ("RF64", "PCM_24"),
    "w64": ("W64", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "au": ("AU", "PCM_16"),
}
#: Those whose lengths libsndfile does not compare with what is there, and channels that they can have.
UNCOMPARED = {
    "AVR": ("PCM_16", "PCM_U8"),
    "CAF": ("ALAW", "ULAW"),
    "MAT4": ("PCM_16", "FLOAT"),
    "MAT5": ("PCM_U8", "FLOAT"),
    "MPC2K": ("PCM_16",),
    "NIST": ("PCM_24", "ULAW"),
    "VOC": ("PCM_16", "ALAW"),
}
UNCOMPARED_MONO = {"SDS": ("PCM_S8", "PCM_16", "PCM_24"), "SVX": ("PCM_S8", "PCM_16"), "WVE": ("ALAW",)}
CODECS = {
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def sound(seconds: float, hertz: float = 440, rate: int = RATE, channels: int = 2) -> np.ndarray:
    """A tone with some noise [n, channels]."""
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    noise = np.random.default_rng(round(hertz)).uniform(-0.05, 0.05, (len(wave), channels))
    return (wave[:, None] + noise).astype(np.float32)


def encoded(name: str, samples: np.ndarray, rate: int = RATE, **more: Any) -> bytes:
    """The bytes of a file of one of the kinds above."""
    format, subtype = (CONTAINERS | CODECS)[name]
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype, **more)
    return file.getvalue()


def saved(name: str, data: bytes) -> Path:
    Path(name).write_bytes(data)
    return Path(name)


def heard(file: Path, warnings: list[str] | None = None) -> np.ndarray:
    """All samples of a file [2, n] at its own rate."""
    return measure.read_for_measuring(file, (warnings if warnings is not None else []).append).samples


# Lengths that are guessed


def test_an_mp3_without_a_word_of_its_length_is_read_to_its_end() -> None:
    found = heard(VBR)
    assert found.shape == (2, VBR_SAMPLES)
    guessed, _ = soundfile.read(VBR, dtype="float32")
    assert len(guessed) < VBR_SAMPLES / 2  # libsndfile stops here: without this, the file proves nothing
    assert np.array_equal(found[:, : len(guessed)], guessed.T)
    seconds = found[:, : 12 * RATE].reshape(2, 12, RATE)
    assert np.abs(seconds).max(axis=(0, 2)).min() > 0.01


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_reads_the_same_out_of_it() -> None:
    command = ["ffmpeg", "-v", "error", "-i", str(VBR), "-f", "f32le", "-"]
    raw = finish(command, check=True).stdout
    assert np.abs(np.frombuffer(raw, "<f4").reshape(-1, 2).T - heard(VBR)).max() < 1e-4


def test_every_command_takes_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (os.environ["PATH"], "/nowhere"):  # with ffmpeg and without
        monkeypatch.setenv("PATH", path)
        result = run("check", str(VBR), "--json", "--skip", "clipped")
        assert json.loads(result.stdout)["checked"][0]["measures"]["seconds"] == pytest.approx(12.024)
        found = decode.survey_file(VBR)
        assert found.samples == decode.read_audio(VBR).samples.shape[1] == VBR_SAMPLES
        assert dataset.read_recording(VBR).seconds == pytest.approx(12.024)
    for words in (
        ["repaint", str(VBR), "--start", "6", "--end", "8"],
        ["cover", str(VBR)],
        ["generate", "-d", "20", "--reference", str(VBR)],
    ):
        result = run(*words, "-c", "slow piano", "--instrumental", "-m", "pocket", "--dry-run", "--json")
        assert result.exit_code == 0, result.stderr
        if words[0] != "generate":
            [output] = json.loads(result.stdout)["outputs"]
            assert output["request"]["duration"] == pytest.approx(12.024)


def without_xing(mp3: bytes) -> tuple[bytes, int]:
    """An MP3 whose header about its length is made a silent frame, and how many frames it has then."""
    at = mp3.index(b"Xing")
    assert mp3[at + 7] & 1
    return mp3[:at] + bytes(120) + mp3[at + 120 :], int.from_bytes(mp3[at + 8 : at + 12], "big") + 1


@pytest.mark.parametrize(
    ("rate", "channels", "frame"), [(RATE, 2, 1152), (44_100, 1, 1152), (22_050, 2, 576), (16_000, 1, 576)]
)
def test_of_variable_bitrate_at_any_rate_no_frame_is_lost(rate: int, channels: int, frame: int) -> None:
    silence = np.zeros((4 * rate, channels), np.float32)
    samples = np.concatenate([sound(2, 440, rate, channels), silence])
    mp3, frames = without_xing(encoded("mp3", samples, rate, bitrate_mode="VARIABLE", compression_level=0.3))
    assert heard(saved("a.mp3", mp3)).shape[1] == frames * frame


def id3(size: int) -> bytes:
    """An ID3v2 tag with a picture that looks like frames of an MP3."""
    return b"ID3\3\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + (b"\xff\xfb\x94\x64" * size)[:size]


def test_tags_before_and_after_are_no_sound() -> None:
    data = VBR.read_bytes()
    tagged = saved("a.mp3", id3(20_000) + data + b"TAG" + b"x" * 125)
    assert np.array_equal(heard(tagged), heard(VBR))


# Several in a row


@pytest.mark.parametrize("name", [*CONTAINERS, *CODECS])
def test_files_in_a_row_are_read_one_after_the_other(name: str) -> None:
    parts = [encoded(name, sound(seconds, hertz)) for seconds, hertz in ((2, 440), (1.3, 880), (1, 660))]
    wanted = np.concatenate([heard(saved("one", part)) for part in parts], axis=1)
    file = saved(f"joined.{name}", b"".join(parts))
    warnings: list[str] = []
    found = heard(file, warnings)
    assert found.shape[1] == pytest.approx(4.3 * RATE, abs=0.1 * RATE)
    assert np.array_equal(found, wanted)
    assert not warnings
    assert decode.survey_file(file).samples == found.shape[1]


def test_files_in_a_row_may_have_tags_headers_or_neither() -> None:
    mp3 = encoded("mp3", sound(2))
    one = heard(saved("one.mp3", mp3))
    bare, vbr = heard(saved("bare.mp3", without_xing(mp3)[0])), heard(VBR)
    for parts, wanted in (
        ([id3(3000) + mp3, id3(5000) + mp3], [one, one]),
        ([mp3 + b"TAG" + bytes(125), mp3], [one, one]),
        ([mp3, VBR.read_bytes()], [one, vbr]),
        ([VBR.read_bytes(), mp3], [vbr, one]),
        ([without_xing(mp3)[0], VBR.read_bytes()], [bare, vbr]),
    ):
        found = heard(saved("joined.mp3", b"".join(parts)))
        assert found.shape[1] == sum(part.shape[1] for part in wanted)
        assert np.abs(found - np.concatenate(wanted, axis=1)).max() < 1  # a frame may lean on the one before it


def test_a_mono_file_after_one_in_stereo_is_read_too() -> None:
    for name in ("flac", "mp3", "ogg", "wav"):
        parts = [encoded(name, sound(2)), encoded(name, sound(1, channels=1))]
        wanted = np.concatenate([heard(saved("one", part)) for part in parts], axis=1)
        assert np.array_equal(heard(saved(f"a.{name}", b"".join(parts))), wanted)


KINDS_IN_A_ROW = [(first, then) for first in CODECS for then in ("wav", "aiff", "caf", *CODECS) if first != then] + [
    (first, then) for first in ("wav", "aiff", "caf", "w64") for then in ("flac", "mp3")
]


@pytest.mark.parametrize(("first", "then"), KINDS_IN_A_ROW)
def test_files_of_several_kinds_in_a_row_are_read_too(first: str, then: str) -> None:
    parts = [encoded(first, sound(2)), encoded(then, sound(1, 880))]
    wanted = np.concatenate([heard(saved("one", part)) for part in parts], axis=1)
    assert np.array_equal(heard(saved("joined", b"".join(parts))), wanted)


def test_compressed_samples_that_take_an_odd_number_of_bytes_are_followed() -> None:
    """libsndfile writes a byte of padding behind them, though the format has none."""
    parts = []
    for seconds in np.arange(1, 2, 0.01):
        file = io.BytesIO()
        soundfile.write(file, sound(seconds), RATE, format="CAF", subtype="ALAC_16")
        data = file.getvalue()
        [size] = struct.unpack_from(">Q", data, data.index(b"data") + 4)
        if size % 2:
            parts.append((data, round(seconds * RATE)))
        if len(parts) == 2:
            break
    (one, samples), (two, more) = parts
    assert heard(saved("joined.caf", one + two)).shape[1] == samples + more


def test_marks_of_streams_within_a_stream_begin_none() -> None:
    for mark in (b"ID3\4\0\0\0\0\0\0", b"Xing", b"Info", b"RIFFWAVE"):
        flac, mp3 = encoded("flac", sound(2)), encoded("mp3", sound(2))
        for name, data in (("a.flac", flac), ("a.mp3", mp3)):
            wanted = heard(saved("one", data))
            assert np.array_equal(heard(saved(name, data + mark + bytes(100))), wanted)


@pytest.mark.parametrize("data", [b"OggS\0\2", b"fLaC\0\0\0\x22", b"RIFF0000WAVE", b"caff\0\1\0\0desc", b"ID3\4"])
def test_beginnings_alone_are_refused(data: bytes) -> None:
    for times in (1, 40):
        with pytest.raises(SourceError):
            heard(saved("a", data * times))


@pytest.mark.parametrize("name", ["flac", "mp3", "ogg", "wav", "aiff"])
def test_files_of_several_rates_in_a_row_are_refused(name: str) -> None:
    saved(f"a.{name}", encoded(name, sound(2)) + encoded(name, sound(2, rate=44_100), 44_100))
    result = run("check", f"a.{name}")
    assert result.exit_code == 5
    assert f"a.{name} holds 2 recordings in a row, at 44100 Hz and 48000 Hz." in result.stderr


def test_what_follows_and_is_no_recording_is_left() -> None:
    for name in CONTAINERS:
        wanted = heard(saved("one", encoded(name, sound(2))))
        if name != "w64":  # libsndfile reads that to the end of the file, whatever its header says
            assert np.array_equal(heard(saved(f"a.{name}", encoded(name, sound(2)) + b"LIST\x04\0\0\0abcd")), wanted)


def flac_of_length(data: bytes, samples: int) -> bytes:
    """A stream of FLAC with another length in its header, 0 for an unknown one."""
    [packed] = struct.unpack_from(">Q", data, 18)
    return at(data, (18, ">Q", packed >> 36 << 36 | samples))


@pytest.mark.parametrize("promised", [1, RATE, 3 * RATE - 1])
@pytest.mark.parametrize("follows", [b"", b"TAG".ljust(128), bytes(1000), b"\xff\xf8\xc9\x18" + bytes(range(256))])
def test_a_flac_longer_than_its_header_says_is_read_to_its_end(promised: int, follows: bytes) -> None:
    whole = encoded("flac", sound(3))
    warnings: list[str] = []
    found = heard(saved("a.flac", flac_of_length(whole, promised) + follows), warnings)
    assert np.array_equal(found, heard(saved("b.flac", whole)))
    assert warnings == [f"a.flac is 3.00 s long, where its header says {promised / RATE:.2f} s."]
    assert heard(saved("c.flac", whole + follows), warnings).shape == (2, 3 * RATE)
    assert len(warnings) == 1


def test_streams_of_flac_in_a_row_are_each_read_to_their_ends() -> None:
    one, two = encoded("flac", sound(2)), encoded("flac", sound(3, 330))
    expected = np.concatenate([heard(saved("1.flac", one)), heard(saved("2.flac", two))], axis=1)
    joined = saved("a.flac", flac_of_length(one, RATE) + b"TAG".ljust(128) + flac_of_length(two, 5))
    assert np.array_equal(heard(joined), expected)
    with pytest.raises(SourceError, match=r"cut short: 5\.00 of 6\.00 s"):
        heard(saved("b.flac", one + flac_of_length(two, 4 * RATE)))


@pytest.mark.parametrize("name", ["mp3", "flac", "wav", "ogg"])
@pytest.mark.parametrize("tag", [b"", b"ID3\3\0\0\0\0\1\0" + bytes(128)], ids=["bare", "ID3"])
def test_zeros_in_front_are_no_sound(name: str, tag: bytes) -> None:
    whole = encoded(name, sound(2))
    expected = heard(saved(f"a.{name}", whole))
    assert np.array_equal(heard(saved(f"b.{name}", tag + bytes(5000) + whole)), expected)


# Cut short


@pytest.mark.parametrize("name", [*CONTAINERS, "flac", "mp3"])
def test_what_holds_less_than_its_header_says_is_refused_with_both_lengths(name: str) -> None:
    whole = encoded(name, sound(4))
    saved(f"a.{name}", whole[: len(whole) // 2])
    for words in (["check"], ["repaint", "--start", "1", "-c", "a", "--dry-run"]):
        result = run(words[0], f"a.{name}", *words[1:])
        assert result.exit_code == 5
        assert "cut short" in result.stderr
        assert "of 4.00 s can be read" in result.stderr
        if name in CONTAINERS:
            assert "1.99 of" in result.stderr or "2.00 of" in result.stderr


@pytest.mark.parametrize(
    ("format", "subtype", "channels"),
    [
        *(
            (format, subtype, channels)
            for format in UNCOMPARED
            for subtype in UNCOMPARED[format]
            for channels in (1, 2)
        ),
        *((format, subtype, 1) for format in UNCOMPARED_MONO for subtype in UNCOMPARED_MONO[format]),
    ],
)
def test_half_a_file_of_any_format_with_a_length_is_refused(format: str, subtype: str, channels: int) -> None:
    rate = 8000 if format == "WVE" else RATE
    soundfile.write("whole", sound(4, rate=rate, channels=channels), rate, format=format, subtype=subtype)
    assert decode.survey_file(Path("whole")).seconds == pytest.approx(4, abs=1e-3)
    whole = Path("whole").read_bytes()
    result = run("check", str(saved("half", whole[: len(whole) // 2])))
    assert result.exit_code == 5
    assert "half is cut short: " in result.stderr
    assert " of 4.00 s can be read" in result.stderr
    result = run("check", str(saved("head", whole[:100])))
    assert result.exit_code == 5


@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
def test_a_length_is_read_in_either_byte_order(order: str) -> None:
    for format in ("MAT4", "MAT5"):
        soundfile.write("whole", sound(4), RATE, format=format, subtype="FLOAT", endian=order)
        assert decode.survey_file(Path("whole")).seconds == 4
        half = saved("half", Path("whole").read_bytes()[: RATE * 16])
        with pytest.raises(SourceError, match=r"cut short: 2\.00 of 4\.00 s"):
            decode.survey_file(half)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_little_that_is_missing_is_missing(name: str) -> None:
    whole = encoded(name, sound(4))
    with pytest.raises(SourceError, match=r"cut short: 3\.\d\d of 4\.00 s"):
        heard(saved(f"a.{name}", whole[: round(0.99 * len(whole))]))


def test_a_compressed_file_is_cut_short_of_the_length_in_its_header() -> None:
    """Its bytes are in no proportion to its samples."""
    soundfile.write("a.caf", sound(4), RATE, format="CAF", subtype="ALAC_16")
    whole = Path("a.caf").read_bytes()
    assert heard(Path("a.caf")).shape == (2, 4 * RATE)
    with pytest.raises(SourceError, match=r"cut short: [12]\.\d\d of (3\.9\d|4\.00) s"):
        heard(saved("a.caf", whole[: len(whole) // 2]))


def test_a_header_alone_is_cut_short() -> None:
    whole = encoded("wav", sound(4))
    with pytest.raises(SourceError, match="cut short: it ends before its first sample"):
        heard(saved("a.wav", whole[: whole.index(b"data") + 8]))


def test_one_that_is_cut_in_a_row_is_refused() -> None:
    one = encoded("aiff", sound(2))
    with pytest.raises(SourceError, match=r"cut short: 3\.\d\d of 4\.00 s"):
        heard(saved("a.aiff", one + one[: len(one) // 2]))


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_an_ogg_without_its_last_page_is_read_to_its_end_with_a_warning(name: str) -> None:
    whole = encoded(name, sound(4))
    pages = [at for at in range(len(whole)) if whole.startswith(b"OggS", at)]
    for end in (len(whole) * 2 // 3, pages[-1]):
        file = saved(f"a.{name}", whole[:end])
        result = run("check", str(file), "--json")
        assert result.exit_code == 0, result.stderr
        content = json.loads(result.stdout)
        assert 0.5 < content["checked"][0]["measures"]["seconds"] < 4
        [warning] = content["warnings"]
        assert warning.startswith(f"a.{name} has no last page, so that its length is not known")
        assert decode.survey_file(file).warnings == (warning,)
        repaint = run("repaint", str(file), "--end", "0.4", "-c", "a", "-m", "pocket", "--dry-run")
        assert "has no last page" in repaint.stderr


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("name", ["a.m4a", "a.mkv", "a.webm"])
def test_what_ffmpeg_is_content_with_is_refused(name: str) -> None:
    saved("a.wav", encoded("wav", sound(4)))
    codec = "libopus" if name == "a.webm" else "aac"
    finish(["ffmpeg", "-v", "error", "-i", "a.wav", "-c:a", codec, name], check=True)
    whole = Path(name).read_bytes()
    assert heard(Path(name)).shape[1] == pytest.approx(4 * RATE, abs=0.1 * RATE)
    with pytest.raises(SourceError, match=r"cut short|not audio"):
        heard(saved(f"cut-{name}", whole[: len(whole) // 2]))
    joined = saved(f"joined-{name}", whole + whole)
    if name == "a.m4a":
        with pytest.raises(SourceError, match="several recordings in a row"):
            heard(joined)
    else:
        assert heard(joined).shape[1] == pytest.approx(8 * RATE, abs=0.1 * RATE)


# Written to a pipe, whose header could not know


def at(data: bytes, *numbers: tuple[int, str, int]) -> bytes:
    """The data with numbers written at their places."""
    made = bytearray(data)
    for place, format, value in numbers:
        struct.pack_into(format, made, place, value)
    return bytes(made)


def unclosed() -> Iterator[Any]:
    wav, rf64, w64, caf, aiff, au, flac = (
        encoded(name, sound(2)) for name in ("wav", "rf64", "w64", "caf", "aiff", "au", "flac")
    )
    data = wav.index(b"data") + 4
    for outer, inner in ((0, 0), (36, 0), (8, 0), (2**32 - 1, 2**32 - 1), (0x7FFFF024, 0x7FFFF000), (2**31, 2**31)):
        yield pytest.param(wav, at(wav, (4, "<I", outer), (data, "<I", inner)), id=f"wav {outer} {inner}")
    for size in (0, 2**64 - 1, 2**63 - 1):
        yield pytest.param(rf64, at(rf64, *((place, "<Q", size) for place in (20, 28, 36))), id=f"rf64 {size}")
        place = w64.index(b"data") + 16
        yield pytest.param(w64, at(w64, (16, "<Q", size), (place, "<Q", size)), id=f"w64 {size}")
    for size in (0, 2**64 - 1):
        yield pytest.param(caf, at(caf, (caf.index(b"data") + 4, ">Q", size)), id=f"caf {size}")
    for size in (0, 2**32 - 1):
        yield pytest.param(au, at(au, (8, ">I", size)), id=f"au {size}")
        ssnd, comm = aiff.index(b"SSND") + 4, aiff.index(b"COMM") + 10
        unknown = at(aiff, (4, ">I", size), (ssnd, ">I", size), (comm, ">I", size))
        yield pytest.param(aiff, unknown, id=f"aiff {size}")
    [bits] = struct.unpack_from(">Q", flac, 18)
    yield pytest.param(flac, at(flac, (18, ">Q", bits >> 36 << 36)), id="flac")


@pytest.mark.parametrize(("closed", "piped"), list(unclosed()))
def test_without_a_length_all_of_it_is_read(closed: bytes, piped: bytes) -> None:
    assert closed != piped
    wanted = heard(saved("closed", closed))
    assert wanted.shape[1] == 2 * RATE
    assert np.array_equal(heard(saved("piped", piped)), wanted)
    assert decode.survey_file(Path("piped")).samples == 2 * RATE


def test_two_without_a_length_are_two() -> None:
    one = encoded("wav", sound(2))
    piped = at(one, (4, "<I", 2**32 - 1), (one.index(b"data") + 4, "<I", 2**32 - 1))
    wanted = heard(saved("one.wav", one))
    assert np.array_equal(heard(saved("two.wav", piped + piped)), np.concatenate([wanted, wanted], axis=1))


def test_two_long_ones_without_a_length_are_two() -> None:
    one = encoded("rf64", sound(2))
    sizes = one.index(b"ds64") + 8
    piped = at(one, *((sizes + 8 * field, "<Q", 2**64 - 1) for field in range(3)))
    wanted = heard(saved("one.wav", one))
    assert np.array_equal(heard(saved("two.wav", piped + piped)), np.concatenate([wanted, wanted], axis=1))


@pytest.mark.parametrize("name", ["wav", "aiff"])
def test_a_length_of_nothing_is_not_believed_where_samples_follow(name: str) -> None:
    """Also where the length of the whole file is right, as where a writer mends one and not the other."""
    whole = encoded(name, sound(2))
    mark, order, nothing = (b"data", "<I", 0) if name == "wav" else (b"SSND", ">I", 8)
    wanted = heard(saved("whole", whole))
    assert np.array_equal(heard(saved("a", at(whole, (whole.index(mark) + 4, order, nothing)))), wanted)


def test_an_empty_one_that_was_closed_stays_empty() -> None:
    empty = encoded("wav", sound(0)) + b"LIST\x04\0\0\0abcd"
    assert heard(saved("a.wav", at(empty, (4, "<I", len(empty) - 8)))).shape[1] == 0


# Pipes

pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")


def fed(path: str, data: bytes) -> threading.Thread:
    """A pipe that somebody is about to write to."""
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: Path(path).write_bytes(data), daemon=True)
    writer.start()
    return writer


@pipes
@pytest.mark.parametrize("name", ["wav", "flac", "mp3"])
def test_a_pipe_is_read_to_its_end(name: str) -> None:
    data = encoded(name, sound(2))
    writer = fed("pipe", data)
    assert np.array_equal(heard(Path("pipe")), heard(saved("file", data)))
    writer.join(10)
    # What came out is kept: a survey, a fingerprint and the samples are three readings.
    assert decode.survey_file(Path("pipe")).sound == decode.survey_file(Path("file")).sound
    assert file_hash(Path("pipe")) == file_hash(Path("file"))


@pipes
@pytest.mark.parametrize(
    "command",
    [
        lambda pipe: ["check", pipe],
        lambda pipe: ["check", "a.wav", "--same-as", pipe],
        lambda pipe: ["show", pipe],
        lambda pipe: ["cover", pipe, "-c", "a", "-m", "pocket", "--dry-run"],
        lambda pipe: ["generate", "-d", "20", "-c", "a", "--reference", pipe, "-m", "pocket", "--dry-run"],
    ],
    ids=["check", "same-as", "show", "cover", "reference"],
)
def test_every_command_reads_pipes(command: Callable[[str], list[str]]) -> None:
    data = encoded("wav", sound(2))
    saved("a.wav", data)
    fed("pipe", data)
    result = run(*command("pipe"))
    assert result.exit_code == 0, result.stderr
    os.mkfifo("dry")
    result = run(*command("dry"))
    assert result.exit_code == 5
    assert "dry cannot be read: nobody writes to this pipe." in result.stderr


@pipes
def test_a_pipe_of_the_shell_is_read() -> None:
    reading, writing = os.pipe()
    data = encoded("flac", sound(2))

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)

    threading.Thread(target=write, daemon=True).start()
    result = run("check", f"/dev/fd/{reading}")
    os.close(reading)
    assert result.exit_code == 0, result.stderr


@pipes
def test_a_spec_that_nobody_writes_is_refused_too() -> None:
    os.mkfifo("dry")
    for words in (["generate", "dry"], ["spec", "check", "dry"], ["generate", "-c", "a", "--lyrics-file", "dry"]):
        result = run(*words)
        assert result.exit_code == 2
        assert "dry cannot be read: nobody writes to this pipe" in result.stderr.replace("dry: ", "dry ")
    fed("song", b"caption: slow piano\nduration: 10\n")
    result = run("generate", "song", "-m", "pocket", "--dry-run")
    assert result.exit_code == 0, result.stderr


def test_a_device_is_no_file() -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("there are no such devices here")
    result = run("check", "/dev/zero")
    assert result.exit_code == 5
    assert "/dev/zero is a device, not an audio file." in result.stderr


# What may not be read


def test_no_path_is_looked_at_by_typer() -> None:
    """It would refuse with 2 and a box what each command has a code and a sentence for."""
    paths = []
    for name in cli.COMMANDS:
        typer = cli.loaded(name)
        inner = [command for group in typer.registered_groups for command in group.typer_instance.registered_commands]
        for command in (*typer.registered_commands, *inner):
            for flag in get_params_from_function(command.callback).values():
                if isinstance(flag.default, ParameterInfo) and "Path" in str(flag.annotation):
                    paths.append(f"{name} {flag.name}")
                    looks = (flag.default.readable, flag.default.exists, flag.default.writable)
                    assert looks == (False, False, False), paths[-1]
    assert {"check files", "check same_as", "listen folder", "train-lora folder"} <= set(paths)


UNREADABLE = [
    (["check", "a.wav"], 5),
    (["check", "there.wav", "--same-as", "a.wav"], 5),
    (["show", "a.wav"], 5),
    (["replay", "a.wav"], 5),
    (["listen", "folder"], 5),
    (["train-lora", "folder", "--scan-only"], 5),
    (["cover", "a.wav", "-c", "a"], 5),
    (["album", "plan", "a.wav"], 2),
    (["models", "list", "--models-dir", "folder"], 3),
    (["generate", "-c", "a", "--models-dir", "folder", "-m", "turbo"], 3),
    (["lora", "inspect", "folder"], 3),
]


permissions = pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")


def run_without_rights(words: list[str]) -> CompletedProcess[str]:
    """Run the program without the right to read everything, which root has."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything")
        rights = "-dac_override,-dac_read_search"
        prefix = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    result = finish([*prefix, sys.executable, "-m", "acestep_cli", *words], text=True)
    if result.returncode == 127 or "setpriv:" in result.stderr:
        pytest.skip("that right cannot be given up here")
    return result


@permissions
@pytest.mark.parametrize(("words", "code"), UNREADABLE, ids=str)
def test_what_may_not_be_read_has_the_code_of_what_is_missing(words: list[str], code: int) -> None:
    saved("there.wav", encoded("wav", sound(1)))
    saved("a.wav", encoded("wav", sound(1))).chmod(0)
    Path("folder").mkdir(mode=0)
    result = run_without_rights(words)
    Path("folder").chmod(0o700)
    assert result.returncode == code, result.stderr
    assert "cannot be read: permission denied." in f"{result.stderr.rstrip()}.", result.stderr
    assert len(result.stderr.splitlines()) <= 2


#: What is in a folder that may not be looked into.
INSIDE = [
    (["check", "folder/a.wav"], 5),
    (["show", "folder/a.wav"], 5),
    (["replay", "folder/a.wav"], 5),
    (["repaint", "folder/a.wav", "--start", "1", "--end", "2"], 5),
    (["train-lora", "songs", "--scan-only"], 5),
    (["generate", "folder/song.yaml"], 2),
    (["render", "folder/song.md"], 2),
    (["spec", "check", "folder/song.yaml"], 2),
    (["album", "plan", "folder/album.yaml"], 2),
    (["generate", "-c", "a", "-m", "folder/"], 3),
    (["generate", "-c", "a", "-m", "turbo", "--models-dir", "models"], 3),
    (["models", "path", "turbo", "--models-dir", "models"], 3),
    (["lora", "inspect", "folder/x"], 3),
    (["train-lora", "songs", "-o", "folder", "--resume"], 3),
    (["cache", "du"], 9),
]


@permissions
@pytest.mark.parametrize(("words", "code"), INSIDE, ids=str)
def test_what_is_in_a_closed_folder_has_the_code_of_what_is_missing(
    words: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = ("models/vae", "models/Qwen3-Embedding-0.6B")
    for name in ("folder", "songs/closed", "models/acestep-v15-turbo", *beside):
        Path(name).mkdir(parents=True)
    saved("songs/a.wav", encoded("wav", sound(6)))
    monkeypatch.setenv("ACESTEP_CACHE_DIR", "folder/cache")
    closed = [Path("folder"), Path("songs/closed"), Path("models/acestep-v15-turbo")]
    for folder in closed:
        folder.chmod(0)
    result = run_without_rights(words)
    for folder in closed:
        folder.chmod(0o700)
    assert result.returncode == code, result.stderr
    assert "cannot be read: permission denied" in result.stderr


@permissions
@pytest.mark.parametrize("name", ["acestep-v15-turbo", "vae", "Qwen3-Embedding-0.6B", "hub"])
def test_models_are_listed_though_one_may_not_be_looked_into(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("models", name)
    folder.mkdir(parents=True)
    Path("models/acestep-v15-turbo").mkdir(exist_ok=True)
    folder.chmod(0)
    monkeypatch.setenv("HF_HUB_CACHE", "models/hub/inside")
    result = run_without_rights(["models", "list", *([] if name == "hub" else ["--models-dir", "models"])])
    folder.chmod(0o700)
    assert result.returncode == 0, result.stderr
    assert "turbo " in result.stdout


@pytest.mark.parametrize("command", ["check", "show", "replay", "listen", "train-lora"])
def test_a_circle_of_links_cannot_be_read(command: str) -> None:
    try:
        Path("one").symlink_to("two")
        Path("two").symlink_to("one")
    except OSError:
        pytest.skip("there are no links here")
    result = run(command, "one", *(["--scan-only"] if command == "train-lora" else []))
    assert result.exit_code == 5
    assert "one cannot be read: " in result.stderr or "one is not a folder" in result.stderr


def test_a_folder_is_no_recording_and_a_file_no_folder() -> None:
    Path("folder.wav").mkdir()
    saved("a.wav", encoded("wav", sound(1)))
    for words in (["check", "folder.wav"], ["show", "folder.wav"], ["listen", "a.wav"], ["train-lora", "a.wav"]):
        result = run(*words, *(["--scan-only"] if words[0] == "train-lora" else []))
        assert result.exit_code == 5, result.stderr
