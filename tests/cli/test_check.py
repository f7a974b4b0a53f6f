"""`acestep check`: what it measures, on sounds whose answer is known; what it says of what fails."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from acestep_cli import cache
from acestep_cli.audio import measure
from acestep_cli.audio.analysis import Analyser
from acestep_cli.audio.sound import Audio
from acestep_cli.cli.app import app
from support.command import LIMIT, read_to, started
from support.places import RESULT_SCHEMA

RATE = 48_000


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def check(*words: str) -> Result:
    return CliRunner().invoke(app, ["check", *words], catch_exceptions=False)


def sine(seconds: float = 5.0, level: float = 0.5, hertz: float = 997.0) -> Any:
    """Samples [N, 2]."""
    wave = level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)
    return np.stack([wave, wave], axis=1)


def written(name: str, samples: Any, rate: int = RATE) -> Path:
    soundfile.write(name, samples, rate, subtype="PCM_24")
    return Path(name)


def measured(samples: Any) -> measure.Measures:
    return measure.measure(Audio(np.ascontiguousarray(samples.T, np.float32), RATE))


# What is measured


def test_a_folder_and_all_that_lies_in_one_are_checked_as_its_takes() -> None:
    Path("takes").mkdir()
    for name in ("a", "b"):
        written(f"takes/{name}.wav", sine())
        for beside in (f"{name}.wav.yaml", f"{name}.lrc", "listen.html"):
            Path("takes", beside).write_text("x: 1\n")
    for words in (["takes"], sorted(map(str, Path("takes").iterdir()))):
        found = check(*words)
        assert found.exit_code == 0, found.output
        assert [line.split(":")[0] for line in found.stdout.splitlines()] == ["takes/a.wav", "takes/b.wav"]
    assert check("takes/a.wav", "takes/b.wav.yaml").exit_code == 5  # of a take that was not given: asked for by name


def test_levels_of_a_sine_are_those_of_the_standard() -> None:
    """ITU-R BS.1770: a 997 Hz sine at 0 dBFS in one channel reads -3.01 LUFS, so in both 0 LUFS."""
    found = measured(sine(level=0.1))
    assert found.lufs == pytest.approx(-20, abs=0.1)
    assert found.peak_dbfs == pytest.approx(-20, abs=0.01)
    assert found.true_peak_db == pytest.approx(-20, abs=0.1)
    assert (found.clipped, found.dead_channels, found.silence) == (0, (), 0.0)


def test_the_longest_silence_is_found_at_any_place() -> None:
    sound = sine(6)
    for start, end in ((0, 0.5), (2, 3.25), (5.5, 6)):
        sound[int(start * RATE) : int(end * RATE)] = 1e-4
    assert measured(sound).silence == pytest.approx(1.25, abs=0.01)
    sound[3 * RATE // 2 :] = 0
    assert measured(sound).silence == pytest.approx(4.5, abs=0.01)
    one_side = sine(6)
    one_side[RATE : 4 * RATE, 0] = 0
    assert measured(one_side).silence == 0.0  # the other side plays on


def test_a_clipped_crest_is_three_samples_at_full_scale() -> None:
    assert measured(np.clip(sine(1, level=2.0, hertz=100), -1, 1)).clipped == 2 * 2 * 100
    assert measured(sine(1, level=1.0, hertz=100)).clipped == 0  # crests that just fit
    two = sine(1)
    two[100:102] = 1.0
    assert measured(two).clipped == 0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_a_crest_is_counted_once_wherever_blocks_end(size: int) -> None:
    sound = np.zeros((2, 40), np.float32)
    for start, length in ((0, 3), (4, 2), (7, 9), (20, 1), (37, 3)):
        sound[0, start : start + length] = -1
    sound[1, 10:14] = 1.5
    crests = measure.ClipCounter()
    for start in range(0, 40, size):
        crests.add(sound[:, start : start + size])
    assert crests.count == 4


def test_a_mean_off_zero_is_measured_on_the_worse_side() -> None:
    sound = sine(1, hertz=1000)
    sound[:, 1] -= 0.03
    assert measured(sound).dc == pytest.approx(0.03, abs=1e-4)


def test_a_dead_channel_is_named_and_all_dead_is_silence() -> None:
    sound = sine()
    sound[:, 1] = 0
    assert measured(sound).dead_channels == ("right",)
    silent = measured(0 * sound)
    assert (silent.is_silent, silent.dead_channels, silent.lufs, silent.silence) == (True, (), None, 5.0)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.39])
def test_what_is_too_short_to_have_a_loudness_has_none(seconds: float) -> None:
    found = measured(sine(seconds))
    assert found.lufs is None
    assert found.seconds == pytest.approx(seconds, abs=1e-4)


def test_what_lies_under_the_gate_has_no_loudness() -> None:
    found = measured(sine(level=1e-4))
    assert found.lufs is None
    assert not found.is_silent


def test_difference_is_that_of_the_worst_sample_of_two_files() -> None:
    sound = sine().astype(np.float32)
    other = sound.copy()
    other[70_000, 1] += 0.01
    one = written("one.wav", sound)
    assert measure.file_difference(one, written("other.wav", other)) == pytest.approx(-40, abs=0.05)
    assert measure.file_difference(one, one) == -math.inf
    assert measure.file_difference(one, written("one.flac", soundfile.read(one)[0])) == -math.inf
    for shorter in (sound[1:], sound[: 2 * RATE], sound[: RATE // 2]):
        assert measure.file_difference(one, written("shorter.wav", shorter)) is None
        assert measure.file_difference(Path("shorter.wav"), one) is None
    assert measure.file_difference(one, written("slow.wav", sound, 44_100)) is None


@pytest.mark.parametrize("size", [1, 7, 64, 4799, 4801, 100_000])
def test_figures_do_not_depend_on_where_blocks_end(size: int) -> None:
    rng = np.random.default_rng(0)
    length = 6000 if size < 10 else 100_000
    sound = (0.5 * rng.standard_normal((2, length)) * np.linspace(0, 1, length)).clip(-1, 1).astype(np.float32)
    sound[:, length // 3 : length // 2] = 0
    rate = 4000 if size < 10 else 44_100
    whole, pieces = measure.Meter(rate), measure.Meter(rate)
    whole.add(sound)
    for start in range(0, length, size):
        pieces.add(sound[:, start : start + size])
    assert pieces.measures() == whole.measures()
    assert whole.measures().silence == pytest.approx((length // 2 - length // 3) / rate, rel=0.02)
    assert whole.measures().dc == pytest.approx(np.abs(sound.mean(axis=1, dtype=np.float64)).max(), abs=2e-6)


@pytest.mark.parametrize("rate", [1, 3, 100, 2000, 3999, 4000, 8000, 11_025, 192_000, 768_000])
def test_a_file_of_any_rate_is_measured(rate: int) -> None:
    """The filters of the loudness are for rates that hold what is heard."""
    file = written("odd.wav", np.resize(0.5 * np.sign(sine(1, hertz=1000)), (2 * rate, 2)), rate)
    found = measure.measure_file(file)
    assert (found.seconds, found.peak_dbfs) == (2, pytest.approx(-6.02, abs=0.01))
    assert (found.lufs is None) == (rate < 4000)
    assert check(str(file), "--skip", "dc").exit_code == 0


READERS: dict[str, Callable[[Path], object]] = {
    "measure": measure.measure_file,
    "read": measure.read_through,
    "compare": lambda file: measure.file_difference(file, file),
    "check": lambda file: check(str(file), "--same-as", str(file)),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_long_file_is_measured_in_the_memory_of_a_short_one(read: Callable[[Path], object]) -> None:
    peaks = []
    for file in (written("5.flac", sine(5)), written("60.flac", sine(60))):
        read(file)  # imports what it needs
        tracemalloc.start()
        read(file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000  # its samples are 23 MB


@pytest.mark.skipif(importlib.util.find_spec("librosa") is None, reason="librosa is not installed")
def test_tempo_and_key_of_a_tune_that_is_known() -> None:
    beat = np.zeros(12 * RATE, np.float32)
    click = np.exp(-np.arange(2000) / 200) * np.sin(np.arange(2000) / 5)
    for number in range(24):
        beat[number * RATE // 2 :][:2000] += click[: len(beat) - number * RATE // 2]
    assert measure.estimate_tempo(Audio(np.stack([beat, beat]), RATE)) == pytest.approx(120, abs=2.5)
    t = np.arange(RATE) / RATE
    chords = [(57, 60, 64), (62, 65, 69), (64, 68, 71), (57, 60, 64)]  # i iv V i of A minor
    song = np.concatenate([sum(np.sin(2 * np.pi * 440 * 2 ** ((n - 69) / 12) * t) for n in chord) for chord in chords])
    assert measure.estimate_key(Audio(np.stack([song, song]).astype(np.float32), RATE)) == "A minor"


@pytest.mark.skipif(importlib.util.find_spec("librosa") is None, reason="librosa is not installed")
@pytest.mark.parametrize(
    "sound",
    [0 * sine(), sine(0), sine(0.01), np.full((5 * RATE, 2), 0.1), sine() * [1, -1]],
    ids=["silent", "empty", "tiny", "constant", "cancelled"],
)
def test_what_has_neither_tempo_nor_key_is_given_none(sound: Any) -> None:
    heard = Audio(np.ascontiguousarray(sound.T, np.float32), RATE)
    assert (measure.estimate_tempo(heard), measure.estimate_key(heard)) == (None, None)
    written("a.wav", sound)
    result = check("a.wav", "--bpm", "0..300", "--key", "C major", "--skip", "silent", "--skip", "dc")
    assert result.exit_code == 6
    assert result.stderr.splitlines()[:2] == [
        "a.wav: tempo is nothing that could be measured, not 0 to 300 bpm.",
        "a.wav: key is nothing that could be measured, not C major.",
    ]


@pytest.mark.skipif(importlib.util.find_spec("librosa") is None, reason="librosa is not installed")
def test_sound_without_pitches_is_no_reason_for_warnings() -> None:
    written("a.wav", sine(hertz=20))
    assert check("a.wav", "--key", "C major").stderr.startswith("a.wav: key is ")


# What is asserted


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--min-duration", "30"], "a.wav: duration is 5 s, not at least 30 s."),
        (["--max-duration", "2"], "a.wav: duration is 5 s, not at most 2 s."),
        (["--true-peak", "-10"], "a.wav: true peak is -6 dB, not at most -10 dB."),
        (["--lufs", "-30..-20"], "a.wav: loudness is -6.06 LUFS, not -30 to -20 LUFS."),
        (["--same-as", "b.wav"], "a.wav: sound is up to -12.04 dBFS apart, not that of b.wav."),
        (["--same-as", "b.wav", "--within", "-20"], "not that of b.wav within -20 dBFS."),
        (["--same-as", "short.wav"], "a.wav: sound is 5 s at 48000 Hz, where the other has 2 s at 48000 Hz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_does_not_hold_is_said_with_code_6(flags: list[str], sentence: str) -> None:
    written("a.wav", sine())
    written("b.wav", sine(level=0.25))
    written("short.wav", sine(2))
    result = check("a.wav", *flags)
    assert result.exit_code == 6
    assert sentence in result.stderr
    assert result.stdout.startswith("a.wav: failed (5.00 s, -6.0 dBTP, -6.1 LUFS)")


def test_what_holds_is_said_with_code_0() -> None:
    written("a.wav", sine())
    written("b.wav", sine(level=0.499))
    flags = ["--min-duration", "5", "--max-duration", "5", "--max-silence", "0.1", "--true-peak", "-6"]
    result = check("a.wav", *flags, "--lufs", "-18..-6", "--lufs", "..-6", "--same-as", "b.wav", "--within", "-59")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "a.wav: passed (5.00 s, -6.0 dBTP, -6.1 LUFS)\n"
    assert check("a.wav", "--same-as", "a.wav").exit_code == 0


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("silent", "x.wav: level is silence, not sound."),
        ("dead-channel", "x.wav: dead channel is left, not none."),
        ("clipped", "x.wav: clipping is 3988 crests, not none."),
        ("dc", "x.wav: DC offset is 0.2 of full scale, not at most 0.01 of full scale."),
    ],
)
def test_faults_are_looked_for_unasked_and_may_be_skipped(fault: str, sentence: str) -> None:
    sound = {
        "silent": 0 * sine(1),
        "dead-channel": sine(1) * [0, 1],
        "clipped": np.clip(sine(1, level=2.0), -1, 1),
        "dc": sine(1, hertz=1000) + 0.2,
    }[fault]
    written("x.wav", sound)
    result = check("x.wav")
    assert result.exit_code == 6
    assert sentence in result.stderr
    assert check("x.wav", "--skip", fault).exit_code == 0


def test_silence_that_is_too_long_fails() -> None:
    sound = sine()
    sound[RATE : 3 * RATE + RATE // 2] = 0
    written("a.wav", sound)
    assert "silence is 2.5 s, not at most 2 s." in check("a.wav", "--max-silence", "2").stderr


@pytest.mark.skipif(importlib.util.find_spec("librosa") is None, reason="librosa is not installed")
def test_tempo_may_be_heard_at_half_or_double_and_keys_by_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    written("a.wav", sine())
    monkeypatch.setattr(measure, "estimate_tempo", lambda sound: 60.1)
    monkeypatch.setattr(measure, "estimate_key", lambda sound: "C# minor")
    assert check("a.wav", "--bpm", "118..122", "--key", "Db minor").exit_code == 0
    result = check("a.wav", "--bpm", "90..100", "--key", "A minor")
    assert "a.wav: tempo is 60.1 bpm, not 90 to 100 bpm." in result.stderr
    assert "a.wav: key is C# minor, not A minor." in result.stderr


def test_json_and_junit_say_it_all_about_every_file() -> None:
    written("a.wav", sine())
    written("b.wav", 0 * sine())
    Path("c\x01.wav").write_text("no sound")
    result = check("a.wav", "b.wav", "c\x01.wav", "--json", "--junit", "report.xml", "--lufs", "-18..-3")
    assert result.exit_code == 6
    content = json.loads(result.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    assert [entry["status"] for entry in content["checked"]] == ["passed", "failed", "error"]
    assert content["checked"][0]["measures"]["lufs"] == pytest.approx(-6.06)
    assert "c\x01.wav" in content["error"]["message"]
    suite = ElementTree.parse("report.xml").getroot()[0]
    assert suite.attrib == {"name": "acestep check", "tests": "11", "failures": "2", "errors": "1"}
    assert [case.get("name") for case in suite if case.get("classname") == "b.wav" and len(case)] == [
        "level",
        "loudness",
    ]
    assert suite[-1].get("classname") == "c?.wav"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["no.wav"], 5, "no.wav cannot be read: no such file or directory."),
        (["text.wav"], 5, "text.wav"),
        (["a.wav", "--lufs", "-14"], 2, "'-14' is not a range such as 118..122, ..-9 or 30..."),
        (["a.wav", "--lufs", "-9..-18"], 2, "'-9..-18' is not a range"),
        (["a.wav", "--lufs", ".."], 2, "'..' is not a range"),
        (["a.wav", "--lufs", "nan..1"], 2, "'nan..1' is not a range"),
        (["a.wav", "--key", "H minor"], 2, "'H minor' is not a key"),
        (["a.wav", "--skip", "noise"], 2, "--skip: 'noise' is not one of silent, dead-channel, clipped, dc."),
        (["a.wav", "--within", "-60"], 2, "--within says how far from --same-as, which is not given."),
        (["a.wav", "--same-as", "no.wav"], 5, "no.wav cannot be read"),
        (["a.wav", "--junit", "no/report.xml"], 9, "The folder no does not exist."),
        (["a.wav", "--junit", "text.wav"], 2, "--junit text.wav: the report must be an .xml file of its own."),
        (
            ["a.wav", "text.xml", "--junit", "./text.xml"],
            2,
            "--junit text.xml: the report must be an .xml file of its own.",
        ),
        (["a.wav", "--same-as", "text.xml", "--junit", "text.xml"], 2, "the report must be an .xml file of its own."),
        (["a.wav", "--min-duration", "nan"], 2, "nan is not a number to compare with."),
        (["a.wav", "--true-peak", "nan"], 2, "nan is not a number to compare with."),
        (["a.wav", "--max-silence", "inf"], 2, "inf is not a number to compare with."),
        ([], 2, "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals(words: list[str], code: int, sentence: str) -> None:
    written("a.wav", sine(1))
    for name in ("text.wav", "text.xml"):
        Path(name).write_text("no sound")
    result = check(*words)
    assert result.exit_code == code
    assert [Path(name).read_text() for name in ("text.wav", "text.xml")] == ["no sound"] * 2
    assert sentence in " ".join(result.stderr.replace("│", " ").split())


def test_without_its_analyser_tempo_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "librosa" else find(name))
    result = check("no.wav", "--bpm", "118..122")
    assert result.exit_code == 2
    assert "Tempo and key are estimated by librosa, which is not installed." in result.stderr
    assert "pip install 'acestep-cli[analysis]'" in result.stderr


@pytest.mark.skipif(importlib.util.find_spec("librosa") is None, reason="librosa is not installed")
def test_what_the_analyser_finds_is_kept_by_the_samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "kept"))
    calls: list[str] = []
    for name, found in (("tempo", 120.0), ("key", None)):

        def estimate(_sound: Audio, name: str = name, found: float | None = found) -> float | None:
            calls.append(name)
            return found

        monkeypatch.setattr(measure, f"estimate_{name}", estimate)
    monkeypatch.delitem(sys.modules, "librosa", raising=False)
    loads: list[str] = []

    def heard(sound: Audio) -> tuple[float | None, str | None]:
        analyser = Analyser(cache.open_cache(pytest.fail), lambda: loads.append("librosa"))
        return analyser.tempo(sound), analyser.key(sound)

    samples = np.ascontiguousarray(sine().T, np.float32)
    for _ in range(2):
        assert heard(Audio(samples, RATE)) == (120.0, None)
    assert (calls, loads) == (["tempo", "key"], ["librosa"] * 2)
    heard(Audio(samples * np.float32(0.5), RATE))
    heard(Audio(samples, RATE // 2))
    assert len(calls) == 6


def test_the_tempo_is_that_of_the_tracker_of_beats() -> None:
    beat = pytest.importorskip("librosa.beat")
    clicks = np.zeros((2, 12 * RATE), np.float32)
    for place in np.arange(0, 12, 60 / 96):
        clicks[:, int(place * RATE) :][:, :200] = 0.5
    bpm, _ = beat.beat_track(y=clicks.mean(axis=0) - clicks.mean(), sr=RATE)
    assert measure.estimate_tempo(Audio(clicks, RATE)) == round(float(np.atleast_1d(bpm)[0]), 1)


def test_two_processes_do_not_analyse_at_once() -> None:
    """They would keep a mixture of compiled code on the disk, which ends every later process that loads it."""
    words = (
        "from acestep_cli.audio.measure import *; print('ready', flush=True)\nwith compiling_alone(): print('alone')"
    )
    with started([sys.executable, "-c", words]) as other:
        with measure.compiling_alone():
            read_to(other.stdout, "ready\n")
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(timeout=1)
        assert other.communicate(timeout=LIMIT)[0] == "alone\n"
    assert other.returncode == 0
