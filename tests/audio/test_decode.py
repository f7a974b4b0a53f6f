"""Reading audio: what comes out of any file, and what is refused."""

from __future__ import annotations

import io
import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from acestep_cli.audio import decode, encode, sound
from acestep_cli.errors import SourceError
from support import ffmpeg
from support.command import finish

RATE = decode.READ_RATE


def tone(seconds: float = 2.0, rate: int = RATE, channels: int = 2, loud: float = 0.5) -> np.ndarray:
    """A tone of 440 Hz [n, channels], softer from channel to channel."""
    t = np.arange(round(seconds * rate)) / rate
    wave = loud * np.sin(2 * np.pi * 440 * t)
    return np.stack([wave / (1 + channel) for channel in range(channels)], axis=1).astype(np.float32)


def saved(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "FLOAT", **rest: Any) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype, **rest)
    return path


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_stereo_at_48_khz_comes_as_it_is(tmp_path: Path, subtype: str) -> None:
    file = saved(tmp_path / "a.wav", tone(), subtype=subtype)
    found = decode.read_audio(file)
    stored, _ = soundfile.read(file, dtype="float32")
    assert (found.sample_rate, found.samples.dtype) == (RATE, np.float32)
    assert np.array_equal(found.samples, stored.T)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000, 192_000])
def test_other_rates_are_resampled_to_the_same_seconds(tmp_path: Path, rate: int) -> None:
    file = saved(tmp_path / "a.wav", tone(2, rate), rate)
    found = decode.read_audio(file)
    assert found.samples.shape == (2, 96_000)
    middle = slice(12_000, -12_000)
    assert np.abs(found.samples - tone(2).T)[:, middle].max() < 1e-3
    assert decode.survey_file(file).samples == 96_000


def test_mono_is_doubled(tmp_path: Path) -> None:
    found = decode.read_audio(saved(tmp_path / "a.wav", tone(channels=1)))
    assert np.array_equal(found.samples[0], found.samples[1])
    assert np.array_equal(found.samples[0], tone(channels=1)[:, 0])


def test_overs_are_clipped(tmp_path: Path) -> None:
    found = decode.read_audio(saved(tmp_path / "a.wav", tone(loud=1.5)))
    assert np.abs(found.samples).max() == 1


@pytest.mark.parametrize("format", ["flac", "mp3", "ogg", "opus", "wav"])
def test_every_format_that_is_written_can_be_read(tmp_path: Path, format: str) -> None:
    file = tmp_path / f"a.{format}"
    made = sound.Audio(tone().T.copy(), RATE)
    encode.write_audio(file, made, encode.Finish(encode.resolve_encoding(format)))
    found = decode.read_audio(file)
    assert found.seconds == pytest.approx(2, abs=0.06)
    assert decode.survey_file(file).samples == found.samples.shape[1]
    assert float(np.sqrt((found.samples[0] ** 2).mean())) == pytest.approx(0.5 / 2**0.5, rel=0.1)


def test_a_survey_tells_content_apart_and_not_names(tmp_path: Path) -> None:
    one, same = saved(tmp_path / "a.wav", tone()), saved(tmp_path / "b.wav", tone())
    other = saved(tmp_path / "c.wav", tone(loud=0.4))
    found = [decode.survey_file(file) for file in (one, same, other)]
    assert found[0].fingerprint == found[1].fingerprint != found[2].fingerprint
    assert found[0].seconds == 2


def nan(samples: np.ndarray) -> np.ndarray:
    samples[60_000, 1] = np.nan
    return samples


@pytest.mark.parametrize(
    ("samples", "rate", "sentence"),
    [
        (tone(0.1), RATE, "is 0.10 s long, and at least 1 s are needed"),
        (tone(2) * 0, RATE, "is silent"),
        (tone(2) * 1e-8, RATE, "is silent"),
        (nan(tone(2)), RATE, "samples that are not finite numbers, near second 2"),
        (tone(2, channels=6), RATE, "has 6 channels"),
        (np.zeros((0, 2), np.float32), RATE, "is 0.00 s long"),
        (tone(7300, rate=1000, channels=1), 1000, "is 2:01:40 long, and 10 minutes are the most"),
    ],
    ids=["short", "zeros", "faint", "nan", "six", "none", "two hours"],
)
def test_what_does_not_suit_is_refused(tmp_path: Path, samples: np.ndarray, rate: int, sentence: str) -> None:
    file = saved(tmp_path / "a.wav", samples, rate)
    for refuse in (decode.survey_file, decode.read_audio):
        with pytest.raises(SourceError, match=sentence) as refusal:
            refuse(file)
        assert str(file) in refusal.value.message
        assert refusal.value.exit_code == 5


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("la la la\n" * 99)
    (tmp_path / "words.mp3").write_text("la la la\n" * 99)
    (tmp_path / "empty.wav").touch()
    for name, sentence in {
        "none.wav": "cannot be read: no such file",
        ".": "is a folder",
        "empty.wav": "is empty",
        "words.txt": "is not audio that can be read|holds no sound",  # ffmpeg takes it for a picture
        "words.mp3": "is not audio that can be read|holds no sound",
    }.items():
        with pytest.raises(SourceError, match=sentence):
            decode.survey_file(tmp_path / name)


@pytest.mark.parametrize("format", ["mp3", "flac"])
def test_what_was_cut_short_is_refused(tmp_path: Path, format: str) -> None:
    whole = io.BytesIO()
    rng = np.random.default_rng(0)
    soundfile.write(whole, rng.uniform(-0.1, 0.1, (4 * RATE, 2)), RATE, format=format)
    file = tmp_path / f"a.{format}"
    file.write_bytes(whole.getvalue())
    decode.survey_file(file)
    file.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(SourceError, match=r"is cut short|is broken"):
        decode.survey_file(file)


def test_what_a_library_says_of_a_broken_file_is_not_passed_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    whole = io.BytesIO()
    soundfile.write(whole, tone(4), RATE, format="mp3")
    (tmp_path / "cut.mp3").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (tmp_path / "words.mp3").write_text("la la la\n" * 99)
    for name in ("cut.mp3", "words.mp3"):
        with pytest.raises(SourceError):
            decode.survey_file(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_more_than_the_header_promises_ends_at_the_limit(tmp_path: Path) -> None:
    """A WAV written to a pipe says nothing true of its length."""
    file = tmp_path / "a.wav"
    with wave.open(str(file), "wb") as stream:
        stream.setparams((1, 2, 100, 0, "NONE", ""))
        stream.writeframes(b"\1\0" * 100 * 700)
    with pytest.raises(SourceError, match="10 minutes"):
        decode.survey_file(file)
    assert decode.survey_file(file, longest=701).seconds == 700


MP4 = "mov,mp4,m4a,3gp,3g2,mj2"


def probed(streams: list[dict[str, str]], container: dict[str, str]) -> str:
    """What ffprobe prints of a file with a picture and these audio streams."""
    sounds = [{"codec_type": "audio", "index": place, **stream} for place, stream in enumerate(streams, start=1)]
    return json.dumps({"streams": [{"codec_type": "video", "index": 0}, *sounds], "format": container})


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something that libsndfile does not know, with a stand-in for ffmpeg that does."""
    (tmp_path / "bin").mkdir()
    ffmpeg.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    file = tmp_path / "a.mp4"
    file.write_bytes(ffmpeg.mp4(RATE, tone().tobytes()))
    return file


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a script")
class TestByProgram:
    def test_a_video_is_heard(self, video: Path) -> None:
        assert np.array_equal(decode.read_audio(video).samples, tone().T)
        assert decode.survey_file(video).samples == 2 * RATE

    def test_without_the_program_it_is_refused(self, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(SourceError, match="is not audio that can be read here") as refusal:
            decode.survey_file(video)
        assert "with ffmpeg installed" in (refusal.value.hint or "")

    def test_the_program_s_reason_is_given(self, video: Path) -> None:
        video.write_text("a text, not a video")
        with pytest.raises(SourceError, match="Invalid data found when processing input"):
            decode.survey_file(video)

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            ("surround", "has 6 channels, and only mono and stereo are read"),
            ("partial", "is broken or cut short: .*corrupt input packet"),
            ("no sound", "a.mp4 holds no sound."),
            ("cut", r"a.mp4 is cut short: it ends after 2\.00 s\."),
            ("promises 4.00", r"a.mp4 is cut short: 2\.00 of 4\.00 s can be read"),
            ("promises 4.00 cover", r"a.mp4 is cut short: 2\.00 of 4\.00 s can be read"),
            ("promises 59.00", r"a.mp4 is cut short: 2\.00 of 59\.00 s can be read"),
            ("promises 4.00 partial", "is broken or cut short: .*corrupt input packet"),
            ("joined", "a.mp4 holds several recordings in a row, of which the first alone can be read"),
            ("joined partial", "a.mp4 holds several recordings in a row"),
        ],
    )
    def test_what_does_not_suit_is_refused(
        self, video: Path, monkeypatch: pytest.MonkeyPatch, words: str, sentence: str
    ) -> None:
        monkeypatch.setenv("FAKE_FFMPEG", words)
        for refuse in (decode.survey_file, decode.read_audio):
            with pytest.raises(SourceError, match=sentence):
                refuse(video)

    @pytest.mark.parametrize(
        "words", ["promises 2.00", "promises 2.40", "promises 1.00", "promises 4.00 video", "promises 4.00 guessed"]
    )
    def test_a_length_that_may_be_another_is_no_promise(
        self, video: Path, monkeypatch: pytest.MonkeyPatch, words: str
    ) -> None:
        """A guess, that of pictures, or one that an encoder has filled up."""
        monkeypatch.setenv("FAKE_FFMPEG", words)
        assert decode.survey_file(video).samples == 2 * RATE

    def test_another_rate_is_resampled_here(self, video: Path) -> None:
        video.write_bytes(ffmpeg.mp4(44_100, tone(2, 44_100).tobytes()))
        found = decode.read_audio(video)
        assert found.samples.shape == (2, 2 * RATE)
        assert np.abs(found.samples - tone().T)[:, 12_000:-12_000].max() < 1e-3

    @pytest.mark.parametrize(
        ("streams", "container", "sentence"),
        [
            ([{"duration": "7200.0"}], {"format_name": MP4}, "is 2:00:00 long, and 10 minutes are the most"),
            ([{"duration": "0.5"}], {"format_name": MP4}, r"is 0\.50 s long, and at least 1 s are needed"),
            ([{"duration": "4.0"}], {"format_name": "asf"}, r"is cut short: 2\.00 of 4\.00 s can be read"),
        ],
    )
    def test_a_header_that_does_not_suit_is_refused(
        self, video: Path, monkeypatch: pytest.MonkeyPatch, streams: list[Any], container: Any, sentence: str
    ) -> None:
        monkeypatch.setenv("FAKE_FFPROBE", probed(streams, container))
        monkeypatch.setenv("FAKE_FFMPEG", "" if "cut" in sentence else "endless hangs")
        with pytest.raises(SourceError, match=sentence):
            decode.survey_file(video)
        left = finish(["ps", "-eo", "args"], text=True).stdout
        assert str(video) not in left

    @pytest.mark.parametrize(
        ("streams", "container", "warning"),
        [
            ([{}], {"format_name": "flv", "duration": "4.0"}, "has 2.00 s of sound and says it is 4.00 s long"),
            ([{"duration": "2.0"}, {}], {"format_name": MP4}, "has 2 audio streams, of which the first is read"),
            ([{"duration": "2.0"}], {"format_name": MP4, "duration": "4.0"}, None),  # a picture that outlasts its sound
            ([{"duration": "7200.0"}], {"format_name": "mpegts", "duration": "7200.0"}, None),  # an estimate
            ([], {"format_name": MP4}, None),
        ],
    )
    def test_a_header_warns_of_what_is_not_read(
        self, video: Path, monkeypatch: pytest.MonkeyPatch, streams: list[Any], container: Any, warning: str | None
    ) -> None:
        monkeypatch.setenv("FAKE_FFPROBE", probed(streams, container))
        found = decode.survey_file(video)
        assert found.samples == 2 * RATE
        assert len(found.warnings) == (warning is not None)
        assert (warning or "") in "".join(found.warnings)

    @pytest.mark.parametrize("printed", ["", "[]", "{}", '{"streams": 3}', '{"streams": [{}]}', '{"streams": [[]]}'])
    def test_nonsense_in_a_header_says_nothing(
        self, video: Path, monkeypatch: pytest.MonkeyPatch, printed: str
    ) -> None:
        monkeypatch.setenv("FAKE_FFPROBE", printed or "no JSON")
        found = decode.survey_file(video)
        assert (found.samples, found.warnings) == (2 * RATE, ())

    def test_it_is_not_listened_to_for_longer_than_the_limit(
        self, video: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_FFMPEG", "endless hangs")
        with pytest.raises(SourceError, match="is longer than 10 minutes"):
            decode.survey_file(video)
        left = finish(["ps", "-eo", "args"], text=True).stdout
        assert str(video) not in left
