"""From keys and flags to the finished file: tags, covers, fades, sample rates, and the format that needs ffmpeg."""

from __future__ import annotations

import io
import json
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pyloudnorm
import pytest
import soundfile
import yaml
from scipy.signal import resample_poly
from typer.testing import CliRunner, Result

from acestep_cli.audio import loudness as levels
from acestep_cli.audio import sound
from acestep_cli.cli.app import app
from acestep_cli.song import spec
from support import band, ffmpeg, pictures, tiny
from support.command import Run, finish, flat
from support.places import BAND

pytestmark = pytest.mark.usefixtures("here")

SONG = ("generate", "-c", "a", "-d", "10", "--seed", "7")
UNIX_ONLY = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for ffmpeg is a script")


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`acestep …` where the pipeline cannot be imported: what is refused was refused before that."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", None)
    return lambda *arguments: CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture
def fake_ffmpeg(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("bin")
    ffmpeg.install(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


# Tags and covers


def test_what_the_song_says_of_itself_is_in_the_file(acestep: Run) -> None:
    Path("art.png").write_bytes(pictures.png())
    tags = ["--title", "Ebb", "--artist", "The Tide Tables", "--album", "Low Water", "--track-number", "3", "--year",
            "2026", "--genre", "Folk", "--comment", "demo", "--cover", "art.png"]  # fmt: skip
    song = ["--bpm", "90", "--key", "Am", "--lyrics", "[Verse]\nla", "--language", "Norwegian"]
    result = acestep(*SONG, *tags, *song, "-o", "a.flac")
    assert result.exit_code == 0, result.stderr
    file = mutagen.File("a.flac")
    recipe = yaml.safe_load(Path("a.flac.yaml").read_text())["render"]["recipe"]
    found = dict(file.tags)
    assert yaml.safe_load(found.pop("acestep_spec")[0])["caption"] == "a"
    assert found == {
        "title": ["Ebb"], "artist": ["The Tide Tables"], "album": ["Low Water"], "tracknumber": ["3"],
        "date": ["2026"], "genre": ["Folk"], "comment": ["demo"], "bpm": ["90"], "initialkey": ["Am"],
        "lyrics": ["[Verse]\nla"], "language": ["nor"], "ai_generated": ["true"], "acestep_recipe": [recipe],
    }  # fmt: skip
    assert file.pictures[0].data == pictures.png()
    again = acestep("render", "a.flac.yaml", "-o", "b.flac")
    assert again.exit_code == 0, again.stderr
    assert Path("b.flac").read_bytes() == Path("a.flac").read_bytes()


def test_a_bare_song_is_marked_as_made_by_a_machine(acestep: Run) -> None:
    acestep(*SONG, "-o", "a.mp3", "--no-sidecar")
    assert mutagen.File("a.mp3").tags["TXXX:AI_GENERATED"].text == ["true"]


def test_tags_are_no_part_of_the_recipe(acestep: Run) -> None:
    acestep(*SONG, "-o", "a.ogg")
    before = soundfile.read("a.ogg")[0]
    result = acestep(*SONG, "-o", "a.ogg", "--artist", "The Tide Tables")
    assert (result.exit_code, result.stdout) == (0, "a.ogg\n")
    assert "a.ogg: has new tags" in result.stderr
    assert (soundfile.read("a.ogg")[0] == before).all()
    assert mutagen.File("a.ogg")["artist"] == ["The Tide Tables"]


def test_a_cover_is_found_from_the_folder_of_the_spec(acestep: Run) -> None:
    Path("album/art").mkdir(parents=True)
    Path("album/art/front.jpg").write_bytes(pictures.jpeg())
    Path("album/song.yaml").write_text("caption: a\nduration: 10\ncover: art/front.jpg\n")
    result = acestep("generate", "album/song.yaml", "-o", "a.flac")
    assert result.exit_code == 0, result.stderr
    assert mutagen.File("a.flac").pictures[0].mime == "image/jpeg"
    assert spec.load(Path("a.flac.yaml")).cover == str(Path("album/art/front.jpg").absolute())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: no such file or directory"),
        (b"GIF89a", "is neither a JPEG nor a PNG picture"),
        (pictures.png()[:30], "is a picture that is cut off or damaged"),
        (pictures.png() + bytes(10_000_000), "is larger than 10 MB; a smaller picture will do"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_a_cover_that_is_none_is_refused_with_its_place(refusing: Run, content: bytes | None, sentence: str) -> None:
    if content is not None:
        Path("front.jpg").write_bytes(content)
    Path("song.yaml").write_text("caption: a\nduration: 10\nbpm: 20\ncover: front.jpg\n")
    for command in (("generate", "song.yaml"), ("spec", "check", "song.yaml")):
        result = refusing(*command)
        assert result.exit_code == 2
        assert "song.yaml:3: bpm: 20 is not" in flat(result)  # all problems at once
        assert f"song.yaml:4: cover: {Path('front.jpg').absolute()} {sentence}" in flat(result)
    result = refusing(*SONG, "--cover", "front.jpg")
    assert (result.exit_code, sentence in flat(result)) == (2, True)
    assert "--cover: " in result.stderr


def test_a_cover_that_goes_during_the_render_is_still_there(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("art.png").write_bytes(pictures.png())
    init = band.Pipeline.__init__
    monkeypatch.setattr(
        band.Pipeline, "__init__", lambda *args, **more: Path("art.png").unlink() or init(*args, **more)
    )
    assert acestep(*SONG, "--cover", "art.png", "-o", "a.flac").exit_code == 0
    assert mutagen.File("a.flac").pictures


# Fades and sample rates


def test_fades_and_the_rate_shape_the_file(acestep: Run) -> None:
    result = acestep(*SONG, "--fade-in", "2s", "--fade-out", "0:03", "--sample-rate", "44100", "-o", "a.wav", "--json")
    assert result.exit_code == 0, result.stderr
    samples, rate = soundfile.read("a.wav")
    assert (rate, len(samples)) == (44_100, 441_000)
    loudest = [np.abs(samples[int(at * rate) :][: rate // 10]).max() for at in (0, 1, 5, 8.5, 9.9)]
    assert loudest == pytest.approx([0.07, 0.67, 0.891, 0.63, 0.047], abs=0.05)
    [entry] = json.loads(result.stdout)["outputs"]
    assert (entry["sample_rate"], entry["seconds"]) == (44_100, 10)
    assert yaml.safe_load(Path("a.wav.yaml").read_text())["render"]["sample_rate"] == 44_100
    loaded = spec.load(Path("a.wav.yaml"))
    assert (loaded.fade_in, loaded.fade_out, loaded.sample_rate) == (2, 3, 44_100)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (
            "fade_in: 6\nfade_out: 5",
            "song.yaml:4: fade_out: 6 s and 5 s of fading are longer than the song, 10 s.",
        ),
        ("fade_in: 11", "song.yaml:3: fade_in: 11 s of fading are longer than the song, 10 s."),
        (
            "sample_rate: 44100\nformat: opus",
            "song.yaml:3: sample_rate: opus cannot have 44100 Hz; wav, flac, mp3, ogg and m4a can.",
        ),
        ("fade_out: 1:01", "song.yaml:3: fade_out: '1:01' is not between 0 and 60 seconds"),
        ("year: 1:30", "song.yaml:3: year: '1:30' is not a whole number from 1000 to 9999"),
        ("title: |\n  a\n  b", "song.yaml:3: title: 'a b' holds a line break or another control character"),
        (f"comment: {'x' * 500_000}", "song.yaml:3: comment: has 500,000 characters; the tags of a file take 5,000"),
    ],
    ids=lambda value: value[:20],
)
def test_what_cannot_be_is_refused_with_its_place(refusing: Run, keys: str, sentence: str) -> None:
    Path("song.yaml").write_text(f"caption: a\nduration: 10\n{keys}\n")
    for command in (("generate", "song.yaml"), ("spec", "check", "song.yaml")):
        result = refusing(*command)
        assert (result.exit_code, sentence in flat(result)) == (2, True), result.stderr


def test_fades_as_long_as_the_song_may_be(acestep: Run) -> None:
    assert acestep(*SONG, "--fade-in", "5", "--fade-out", "5", "-o", "a.flac").exit_code == 0


HUGE = 2 << 30


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["huge"], "huge: is longer than 1,000,000 bytes, which no song is"),
        (["--lyrics-file", "huge"], "huge is longer than 1,000,000 bytes"),
        (["--cover", "huge"], "huge is larger than 10 MB; a smaller picture will do"),
        (["song.yaml"], "cover: "),
        (["--comment", "la" * 5000], "--comment: has 10,000 characters; the tags of a file take 5,000"),
        (["--set", f"title={'la' * 5000}"], "has 10,000 characters; the tags of a file take 500"),
    ],
    ids=["spec", "lyrics", "cover", "cover of a spec", "comment", "title"],
)
def test_two_gigabytes_of_tags_are_refused_without_reading_them(
    refusing: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    with Path("huge").open("wb") as file:
        file.truncate(HUGE)  # a hole, which takes no room
    Path("song.yaml").write_text("caption: a\nduration: 10\ncover: huge\n")
    tracemalloc.start()
    result = refusing(*SONG, *words)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.exit_code == 2
    assert sentence in flat(result)
    assert most < 50_000_000


def test_a_record_of_two_gigabytes_is_none(acestep: Run) -> None:
    Path("a.flac").write_bytes(b"theirs")
    with Path("a.flac.yaml").open("wb") as file:
        file.truncate(HUGE)
    result = acestep(*SONG, "-o", "a.flac")
    assert result.exit_code == 9
    assert "a.flac exists already, and no sidecar says how it was made" in flat(result)


# M4A


@UNIX_ONLY
@pytest.mark.usefixtures("fake_ffmpeg")
def test_ffmpeg_makes_an_m4a(acestep: Run) -> None:
    result = acestep(*SONG, "-o", "a.m4a", "--title", "Ebb", "--bitrate", "256k", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["outputs"][0]["format"] == "m4a"
    assert mutagen.File("a.m4a").tags["\xa9nam"] == ["Ebb"]
    assert spec.load(Path("a.m4a.yaml")).bitrate == 256
    heard = np.frombuffer(ffmpeg.samples_of(Path("a.m4a").read_bytes()), np.float32)
    assert np.abs(heard).max() == pytest.approx(0.891, abs=1e-3)
    assert sorted(path.name for path in Path().iterdir()) == ["a.m4a", "a.m4a.yaml"]


@UNIX_ONLY
@pytest.mark.usefixtures("fake_ffmpeg")
def test_an_m4a_goes_to_stdout_too() -> None:
    command = [sys.executable, BAND, *SONG, "-o", "-", "--format", "m4a"]
    run = finish(command)
    assert run.returncode == 0, run.stderr
    assert mutagen.File(io.BytesIO(run.stdout)).tags["----:com.apple.iTunes:AI_GENERATED"] == [b"true"]


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("flags", [["-o", "a.m4a"], ["--format", "m4a"], ["-o", "a.m4a", "--dry-run"]], ids=" ".join)
def test_a_missing_ffmpeg_is_told_before_anything_is_made(refusing: Run, flags: list[str]) -> None:
    result = refusing(*SONG, *flags)
    assert result.exit_code == 9
    assert "ffmpeg is missing: it encodes m4a" in flat(result)
    assert "--format flac needs no other program" in flat(result)
    assert not list(Path().iterdir())


@UNIX_ONLY
def test_what_is_there_already_needs_no_ffmpeg(acestep: Run, monkeypatch, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("fake_ffmpeg")
    assert acestep(*SONG, "-o", "a.m4a").exit_code == 0
    monkeypatch.setenv("PATH", "")
    result = acestep(*SONG, "-o", "a.m4a")
    assert (result.exit_code, result.stdout) == (0, "a.m4a\n")


@UNIX_ONLY
@pytest.mark.usefixtures("fake_ffmpeg")
@pytest.mark.parametrize("words", ["too old", "dies"])
def test_a_failing_ffmpeg_keeps_the_finished_master(acestep: Run, monkeypatch, words: str) -> None:
    monkeypatch.setenv("FAKE_FFMPEG", words)
    finish: list[Any] = ["--fade-out", "4", "--sample-rate", "44100", "--artist", "The Tide Tables"]
    result = acestep(*SONG, *finish, "-o", "a.m4a")
    assert result.exit_code == 9
    assert "The m4a encoder, ffmpeg, failed" in flat(result)
    assert "The take is kept as a-1.flac. To convert it: ffmpeg -i a-1.flac a.m4a" in flat(result)
    assert [path.name for path in Path().iterdir()] == ["a-1.flac"]
    samples, rate = soundfile.read("a-1.flac")
    assert rate == 44_100
    assert np.abs(samples[-rate // 100 :]).max() < 0.01
    assert mutagen.File("a-1.flac")["artist"] == ["The Tide Tables"]


# Levels


def test_the_table_has_the_peaks_of_the_files(acestep: Run) -> None:
    result = acestep(*SONG, "-n", "2", "--loudness", "peak:-3", "-o", "out/")
    rows = [line.split() for line in result.stderr.splitlines() if line.startswith("written")]
    assert [row[3] for row in rows] == ["-3.0", "-3.0"]


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("seconds", [0.4, 0.47, 1.23, 3.07])
def test_loudness_is_that_of_pyloudnorm(rate: int, seconds: float) -> None:
    count = round(seconds * rate)
    swell = np.linspace(0.001, 0.3, count)
    samples = (np.random.default_rng(0).standard_normal((2, count)) * swell).astype(np.float32)
    theirs = pyloudnorm.Meter(rate).integrated_loudness(samples.T.astype(np.float64))
    assert levels.integrated_loudness(sound.Audio(samples, rate)) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("count", [1, 50, 48_000, 100_001])
def test_true_peaks_are_those_of_scipy_s_oversampling(count: int) -> None:
    samples = np.random.default_rng(count).uniform(-0.5, 0.5, (2, count)).astype(np.float32)
    theirs = np.abs(resample_poly(samples, 4, 1, axis=1)).max()
    assert levels.true_peak(sound.Audio(samples, 48_000)) == pytest.approx(theirs, rel=1e-6)


# Peaks over full scale


@pytest.fixture
def loud(base: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A recording in floating point with peaks at +6 dBFS, loud.wav, and its samples [N, 2]."""
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    samples = (0.3 * np.random.default_rng(0).standard_normal((4 * 48_000, 2))).clip(-0.9, 0.9).astype(np.float32)
    samples[::4800] = 1.98
    samples[2400::4800] = -1.98
    soundfile.write("loud.wav", samples, 48_000, subtype="FLOAT")
    return samples


def repainted(file: str, *more: str) -> tuple[np.ndarray, dict[str, Any], Result]:
    """What lies outside of the repainted second, [N, 2], what was measured, and the run."""
    words = ["repaint", "loud.wav", "-c", "x", "--start", "1", "--end", "2", "--seed", "1", "--set", "steps=2"]
    result = CliRunner().invoke(app, [*words, "--repaint-mode", "aggressive", "-o", file, *more, "--json"])
    assert result.exit_code == 0, result.stderr
    samples, _ = soundfile.read(file, dtype="float32")
    [entry] = json.loads(result.stdout)["outputs"]
    return np.concatenate((samples[:48_000], samples[2 * 48_000 :])), entry["checks"], result


def outside(samples: np.ndarray) -> np.ndarray:
    return np.concatenate((samples[:48_000], samples[2 * 48_000 :]))


def test_floating_point_keeps_what_is_over_full_scale(loud: np.ndarray) -> None:
    found, checks, result = repainted("a.wav", "--bit-depth", "32f")
    assert np.array_equal(found, outside(loud))
    assert checks["outside_difference"] == 0
    assert checks["peak_dbfs"] == pytest.approx(5.93, abs=0.01)
    assert "cannot hold" not in result.stderr


@pytest.mark.parametrize("format", ["flac", "wav"])
def test_other_formats_cut_it_off_and_say_so(loud: np.ndarray, format: str) -> None:
    found, checks, result = repainted(f"a.{format}")
    assert np.abs(found - outside(loud).clip(-1, 1)).max() < 1e-6  # nothing else is moved
    assert checks["outside_difference"] == pytest.approx(0.98, abs=1e-3)
    assert f"peaks at +5.9 dBFS, which {format} cannot hold" in flat(result)
    assert "the rest differs by 0.98" in flat(result)
    assert any("+5.9 dBFS" in warning for warning in json.loads(result.stdout)["warnings"])


@pytest.mark.parametrize("format", ["mp3", "ogg", "opus"])
def test_what_an_encoder_loses_is_measured(loud: np.ndarray, format: str) -> None:
    _, checks, _ = repainted(f"a.{format}")
    assert checks["outside_difference"] > 0.01


def test_a_level_that_was_asked_for_is_measured_outside_too(loud: np.ndarray) -> None:
    found, checks, result = repainted("a.wav", "--bit-depth", "32f", "--loudness", "peak:-6")
    assert "of full scale at the most (peak:-6 sets the level of all of it)" in flat(result)
    assert checks["outside_difference"] == pytest.approx(np.abs(found - outside(loud)).max(), abs=1e-5)


def test_a_song_that_peaks_over_full_scale_is_turned_down_and_that_is_said(
    acestep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone = band.Pipeline._tone
    monkeypatch.setattr(band.Pipeline, "_tone", lambda *given: 2 * tone(*given))
    said = flat(acestep(*SONG, "--loudness", "none", "-o", "a.flac"))
    assert "a.flac: peaks at +6.0 dBFS, which flac cannot hold, so all of it is turned down by 6.0 dB" in said
    kept = acestep(*SONG, "--loudness", "none", "--bit-depth", "32f", "-o", "a.wav")
    assert "cannot hold" not in kept.stderr
    assert np.abs(soundfile.read("a.wav", dtype="float32")[0]).max() == pytest.approx(2, abs=1e-3)
    assert "cannot hold" not in acestep(*SONG, "-o", "b.flac").stderr
