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

from acestep_cli.audio import plots
from acestep_cli.audio.sound import Audio
from acestep_cli.cli import show
from acestep_cli.song import sections
from acestep_cli.song.sections import Section
from support import tiny
from support.command import Run

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
