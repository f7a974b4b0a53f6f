"""`acestep show`: pictures of sound, sections in time, and what is said of a take."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from acestep_cli.audio import distance, measure, plots
from acestep_cli.audio.sound import Audio
from acestep_cli.cli import show, take_table
from acestep_cli.song import sections
from acestep_cli.song.sections import Section
from support import tiny
from support.command import Run, said

RATE = 48_000
LYRICS = "[Intro]\n\n[Verse - low]\nla\nlo\nlu\nli\n\n[Chorus]\nhey\nho"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))


def sound(*pitches: float, seconds: float = 2.0) -> Audio:
    t = np.arange(int(seconds * RATE)) / RATE
    wave = np.concatenate([0.5 * np.sin(2 * np.pi * pitch * t) for pitch in pitches]).astype(np.float32)
    return Audio(np.stack([wave, wave]), RATE)


# Sections


def test_sections_are_as_long_as_their_lines_take() -> None:
    """Four bars of intro, eight of verse, four of chorus."""
    assert sections.song_sections(LYRICS, 32.0) == [
        Section("Intro", 0.0),
        Section("Verse - low", 8.0),
        Section("Chorus", 24.0),
    ]


def test_lines_before_the_first_tag_take_their_time_and_have_no_name() -> None:
    assert sections.song_sections("la\nla\n[Chorus]\nla\nla", 8.0) == [Section("Chorus", 4.0)]
    assert sections.song_sections(None, 8.0) == sections.song_sections("", 8.0) == []


def test_lyrics_in_time_say_where_sections_begin() -> None:
    timed = "[00:02.10]la\n[00:04.00]lo\n[00:06.00]lu\n[00:08.00]li\n[01:00.50]hey\n[01:02.00]ho\n"
    heard = [Section("Verse - low", 2.1, sure=True), Section("Chorus", 60.5, sure=True)]
    assert sections.song_sections(LYRICS, 90.0, timed) == heard
    assert sections.song_sections(LYRICS, 90.0, "[ti:x]\n" + timed) == heard
    other_words = sections.song_sections(LYRICS, 32.0, timed + "[01:10.00]more\n")
    assert other_words == sections.song_sections(LYRICS, 32.0)


# Pictures


def test_an_outline_is_the_lowest_and_highest_of_each_stretch() -> None:
    made = np.zeros((2, 1000), np.float32)
    made[0, 250], made[1, 990] = 0.5, -0.75
    found = plots.outline(Audio(made, RATE), 10)
    assert found[1].tolist() == [0, 0, 0.5, 0, 0, 0, 0, 0, 0, 0]
    assert found[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, -0.75]
    assert plots.outline(Audio(np.zeros((2, 3), np.float32), RATE), 10).shape == (2, 10)


def test_a_spectrogram_has_high_pitches_above_low_ones() -> None:
    picture = np.asarray(Image.open(io.BytesIO(plots.spectrogram(sound(200, 4000), 80, 64))))
    assert picture.shape == (64, 80)
    low, high = picture[:, 20].argmax(), picture[:, 60].argmax()
    assert low > 45  # row 0 is the top
    assert high < 30
    assert picture[:, 20].max() > 200


def test_silence_is_black() -> None:
    for seconds in (0, 0.01, 1):
        silent = sound(0, seconds=seconds)
        assert not np.asarray(Image.open(io.BytesIO(plots.spectrogram(silent, 20, 10)))).any()
        blank = chr(show.BLANK) * 20
        assert [line == blank for line in show.draw_waveform(silent, 20)] == [True, True, True, False, True, True]


# What it says


def test_a_loud_half_is_taller_than_a_quiet_one() -> None:
    made = sound(200)
    made.samples[:, : RATE // 1] *= 0.1
    lines = show.draw_waveform(made, 40)
    assert len(lines) == show.LINES
    assert all(len(line) == 40 for line in lines)
    assert set(lines[0][:20]) == {chr(show.BLANK)}
    assert chr(show.BLANK) not in lines[0][20:]


def test_names_stand_above_their_beginnings_and_are_cut() -> None:
    [line] = show.section_line([Section("Intro", 0), Section("Verse", 5, sure=True), Section("Chorus", 6)], 10, 20)
    assert line == "▏~Intro   ▏V▏~Chorus"
    assert list(show.section_line([], 10, 20)) == []


def test_a_take_is_shown_with_its_recipe_from_sidecar_or_tags(acestep: Run) -> None:
    words = ["-c", "folk", "--lyrics", LYRICS, "-d", "10", "--seed", "7", "--bpm", "90", "--title", "Ebb"]
    assert acestep("generate", *words, "-o", "a.flac").exit_code == 0
    for gone in (False, True):
        if gone:
            Path("a.flac.yaml").unlink()
        result = acestep("show", "a.flac")
        assert result.exit_code == 0, result.stderr
        said = [line.strip("│ \n") for line in result.stdout.splitlines()]
        assert "Ebb" in said[0]
        assert said[1].startswith("▏~Intro")
        facts = dict(line.split(maxsplit=1) for line in said if line.count(" ") > 1)
        assert (facts["bpm"], facts["caption"], facts["seed"], facts["length"]) == ("90", "folk", "7", "10.00 s")
        assert "[Verse - low]" in said


def test_corrections_that_do_nothing_are_not_shown(acestep: Run) -> None:
    acestep("generate", "-c", "a", "-d", "10", "-o", "a.wav", "--dcw", "off", "--velocity-clamp", "0")
    acestep("generate", "-c", "a", "-d", "10", "-o", "b.wav", "--dcw", "off", "--velocity-clamp", "2")
    assert not {"dcw", "velocity", "latent"} & set(acestep("show", "a.wav").stdout.split())
    said = acestep("show", "b.wav").stdout
    assert re.search(r"velocity clamp +2\b", said)
    assert "dcw" not in said


# Several takes


def test_several_takes_are_compared_with_the_first(acestep: Run) -> None:
    asked = ("-d", "10", "--lyrics", "[Verse]\nla la\nlo lo")
    assert acestep("generate", "-c", "folk", *asked, "-n", "2", "--seed", "4", "-o", "takes/").exit_code == 0
    result = acestep("show", "takes")
    assert result.exit_code == 0, result.stderr
    folder, head, first, second, remark = result.stdout.splitlines()
    assert folder == "takes/"
    assert head.split("  ")[-1] == "take"
    assert [first.split()[0], first.split()[-1]] == ["4", "folk-1.flac"]
    assert [second.split()[0], second.split()[-1]] == ["5", "folk-2.flac"]
    assert remark == "One caption, the same words and settings: only their seeds differ."
    assert acestep("show", *sorted(str(file) for file in Path("takes").glob("*.flac"))).stdout == result.stdout


def test_what_specs_differ_in_is_named(acestep: Run) -> None:
    asked = ("-d", "10", "--seed", "4")
    acestep("generate", "-c", "folk", *asked, "--lyrics", "[Verse]\nla la\nlo lo", "-o", "a.wav")
    acestep("generate", "-c", "jazz", *asked, "--lyrics", "[Verse]\nla la\nlu lu", "--bpm", "90", "-o", "b.wav")
    soundfile.write("c.wav", np.full((RATE, 2), 0.0), RATE)
    said = acestep("show", "a.wav", "b.wav", "c.wav").stdout.splitlines()
    assert [line.split()[-1] for line in said[:4]] == ["take", "a.wav", "b.wav", "c.wav"]
    assert [re.search(r"\d:\d\d", line)[0] for line in said[1:4]] == ["0:10", "0:10", "0:01"]  # type: ignore[index]
    rest = said[4:]
    assert {"caption: a.wav folk, b.wav jazz", "bpm: a.wav unset, b.wav 90"} <= {*rest}
    for key, values in {
        "lyrics:": ["line 3: lo lo", "line 3: lu lu"],
    }.items():
        at = rest.index(key)
        assert [line.split("  ")[-1] for line in rest[at + 1 : at + 3]] == values
    assert not any("c.wav" in line for line in rest)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_what_specs_differ_in_fits_the_screen(width: int) -> None:
    texts = {"takes/night-drive-2.flac": "neon synthwave, " * 20, "b.flac": None}
    lines = list(take_table.difference("caption", texts, width))
    assert lines[0] == "caption:"
    assert [len(line) <= max(width, 48) for line in lines] == [True] * 3
    assert lines[1].endswith("…")
    short = {"takes/night-drive-2.flac": None, "b.flac": 8}
    assert len(list(take_table.difference("start", short, width))) == (1 if width >= 60 else 3)


def test_the_distance_grows_with_the_difference(tmp_path: Path) -> None:
    """The same sound is not apart at all, whatever its level and what lies above 12 kHz."""
    one = sound(440, 660)
    rich = Audio(one.samples + 0.1 * sound(15_000, 15_000).samples, RATE)
    near = Audio(one.samples + 0.001 * sound(3000, 3000).samples, RATE)
    found = [distance.take_distance(one, other) for other in (one, Audio(one.samples / 2, RATE), rich, near)]
    far = distance.take_distance(one, sound(700, 200))
    assert found[0] == 0
    assert found[1] == pytest.approx(0, abs=0.01)
    assert found[2] is not None
    assert found[3] is not None
    assert far is not None
    assert found[2] < 0.5 < found[3] < far
    shorter = Audio(one.samples[:, : RATE // 2], RATE)
    assert distance.take_distance(one, shorter) == pytest.approx(0, abs=0.5)
    assert distance.take_distance(one, Audio(np.zeros((2, RATE), np.float32), RATE)) is None


def test_brightness_is_the_mean_frequency() -> None:
    assert measure.brightness(sound(1000, 1000)) == pytest.approx(1000, rel=0.05)
    assert measure.brightness(sound(1000, 3000)) == pytest.approx(2000, rel=0.05)
    assert measure.brightness(Audio(np.zeros((2, RATE), np.float32), RATE)) is None


def test_the_comparison_as_json(acestep: Run) -> None:
    acestep("generate", "-c", "folk", "-d", "10", "-n", "2", "--seed", "4", "-o", "takes/")
    acestep("generate", "-c", "jazz", "-d", "10", "--seed", "9", "-o", "takes/")
    shown = said(acestep("show", "takes", "--json"))["shown"]
    assert [take["seed"] for take in shown["takes"]] == [4, 5, 9]
    assert [take["distance_db"] is None for take in shown["takes"]] == [True, False, False]
    assert all(take["brightness_hz"] > 0 and take["measures"]["lufs"] is not None for take in shown["takes"])
    assert shown["differ"] == {"caption": ["folk", "folk", "jazz"]}
    assert len(said(acestep("show", "takes/jazz-1.flac", "--json"))["shown"]["takes"]) == 1


def test_an_empty_folder_has_nothing_to_show(acestep: Run) -> None:
    Path("none").mkdir()
    result = acestep("show", "none")
    assert (result.exit_code, "none holds no audio files" in result.stderr) == (5, True)


def test_scores_of_a_render_are_shown(acestep: Run) -> None:
    acestep("generate", "-c", "a", "-d", "10", "-o", "a.wav")
    file = Path("a.wav.yaml")
    file.write_text(file.read_text().replace("  checks:", "  scores: {lyric_alignment: 0.81}\n  checks:"))
    assert re.search(r"lyric alignment +0\.81", acestep("show", "a.wav").stdout)


def test_a_strange_file_is_shown_without_a_recipe(acestep: Run) -> None:
    soundfile.write("a.wav", np.full((RATE, 2), 0.0), RATE)
    result = acestep("show", "a.wav")
    assert result.exit_code == 0
    assert "silent" in result.stdout
    assert "seed" not in result.stdout


def test_lyrics_are_text_and_no_markup(acestep: Run) -> None:
    assert (
        acestep("generate", "-c", "[red]a[/red]", "--lyrics", "[Verse]\n[/]\nla", "-d", "10", "-o", "a.wav").exit_code
        == 0
    )
    said = acestep("show", "a.wav").stdout
    assert "[red]a[/red]" in said
    assert "[/]" in said


def test_an_edited_recipe_leaves_the_sound(acestep: Run) -> None:
    acestep("generate", "-c", "a", "-d", "10", "-o", "a.wav")
    file = Path("a.wav.yaml")
    file.write_text(file.read_text().replace("caption: a", "caption: a\nbpm: fast"))
    result = acestep("show", "a.wav")
    assert result.exit_code == 0, result.stderr
    assert "10.00 s" in result.stdout


def test_what_is_no_sound_is_refused(acestep: Run) -> None:
    Path("a.wav").write_text("no")
    for name, why in (("a.wav", "a.wav"), ("no.wav", "no.wav cannot be read: no such file or directory.")):
        result: Any = acestep("show", name)
        assert result.exit_code == 5
        assert why in result.stderr
