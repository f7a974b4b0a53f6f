"""The Songwriter that comes with the program: at hand on a fresh machine, and only where it is asked for or needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.models import checkpoints
from acestep_cli.song import spec
from support.sounds import recording

Acestep = Callable[..., Result]


@pytest.fixture
def acestep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acestep:
    """`acestep …` where nothing was ever pulled."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", "models")
    return lambda *words: CliRunner().invoke(app, list(words), catch_exceptions=False)


def test_an_idea_becomes_a_spec_a_song_and_a_description(acestep: Acestep) -> None:
    written = acestep("write", "fast rock in A minor, 150 bpm", "--seed", "1", "-o", "song.yaml")
    assert written.exit_code == 0, written.stderr
    assert "GB): acestep models pull 0.6B" in written.stderr
    assert "The Songwriter pocket on cpu" in written.stderr
    song = spec.load(Path("song.yaml"))
    assert song.caption
    assert None not in (song.bpm, song.key, song.time_signature, song.duration)
    assert acestep("write", "fast rock in A minor, 150 bpm", "--seed", "1").stdout == Path("song.yaml").read_text()

    render = acestep("generate", "song.yaml", "-d", "6", "--seed", "2", "--songwriter", "pocket", "-o", "song.wav")
    assert render.exit_code == 0, render.stderr
    assert "The Songwriter pocket decides what is open in song.yaml: codes" in render.stderr
    assert len(spec.load(Path("song.wav.yaml")).codes or ()) == 30

    heard = acestep("describe", "song.wav", "--seed", "3")
    assert heard.exit_code == 0, heard.stderr
    assert {"bpm", "key", "time_signature", "caption"} <= set(yaml.safe_load(heard.stdout))


IDEA, OPENING = "rainy-day bossa nova about a lost umbrella", "rainy-day bossa nova, lost umbrella"
BEGINS = f"The caption begins with what it keeps of the idea: {OPENING}"


def test_a_caption_keeps_the_idea_and_lyrics_are_left_to_the_person(acestep: Acestep) -> None:
    written = acestep("write", IDEA, "--seed", "1", "-o", "song.yaml")
    assert written.exit_code == 0, written.stderr
    assert BEGINS in " ".join(written.stderr.split())
    song = spec.load(Path("song.yaml"))
    assert (song.caption or "").startswith(f"{OPENING}, ")
    assert ("for you to write over" in written.stderr) == (song.lyrics is not None)
    assert acestep("write", IDEA, "--seed", "1").stdout == Path("song.yaml").read_text()
    assert acestep("spec", "check", "song.yaml").exit_code == 0

    other = acestep("write", "失くした傘についての雨の日のボサノバ", "--seed", "1")
    assert other.exit_code == 0
    assert "The caption begins" not in other.stderr
    assert "Nothing of the idea is kept: this Songwriter reads English alone." in other.stderr
    german = acestep("generate", "--idea", "ein trauriges Lied über den letzten Zug", "-d", "4", "-o", "a.wav")
    assert "Nothing of the idea is kept" in german.stderr


def test_a_sidecar_says_what_was_put_into_a_caption(acestep: Acestep) -> None:
    idea = ("generate", "--idea", IDEA, "-d", "4", "--seed", "1")
    first = acestep(*idea, "-o", "a.wav")
    assert first.exit_code == 0, first.stderr
    assert BEGINS in " ".join(first.stderr.split())
    beside = yaml.safe_load(Path("a.wav.yaml").read_text())
    assert beside["caption"].startswith(f"{OPENING}, ")
    assert beside["render"]["songwriter"]["caption_opening"] == OPENING
    again = acestep("render", "a.wav.yaml", "-o", "b.wav")
    assert again.exit_code == 0, again.stderr
    assert np.array_equal(soundfile.read("a.wav")[0], soundfile.read("b.wav")[0])
    assert acestep(*idea, "-o", "c.wav").exit_code == 0  # its text is in the cache
    kept = yaml.safe_load(Path("c.wav.yaml").read_text())
    assert (kept["caption"], kept["render"]["songwriter"]) == (beside["caption"], beside["render"]["songwriter"])


def test_an_idea_is_rendered_without_naming_it(acestep: Acestep) -> None:
    result = acestep("generate", "--idea", "slow jazz, instrumental", "-d", "4", "--seed", "1", "-o", "a.wav")
    assert result.exit_code == 0, result.stderr
    assert "The Songwriter pocket decides" in result.stderr


def test_a_song_that_needs_none_is_left_alone(acestep: Acestep) -> None:
    result = acestep("generate", "-c", "slow jazz", "-d", "4", "--seed", "1", "-o", "a.wav")
    assert result.exit_code == 0, result.stderr
    assert "The Songwriter" not in result.stderr
    assert "codes" not in yaml.safe_load(Path("a.wav.yaml").read_text())


def test_whoever_names_it_is_told_of_no_other(acestep: Acestep) -> None:
    for named in ("-m", "--songwriter"):
        result = acestep("write", "slow jazz", named, "pocket", "--seed", "1")
        assert result.exit_code == 0, result.stderr
        assert "No Songwriter is installed" not in result.stderr


FILLED = {
    "cover": ["-c", "slow jazz", "-n", "2"],
    "repaint": ["--start", "1", "--lyrics", "[Verse]\nrain on the roof"],
    "lego": ["--track", "bass", "--mix"],
    "complete": ["--track", "backing_vocals", "--track", "drums"],
}


@pytest.mark.parametrize("mode", FILLED)
def test_it_fills_words_and_metadata_but_never_the_source(
    acestep: Acestep, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = recording("take.wav", 2)
    before = source.read_bytes()
    given = {"key": "F# minor"} if mode == "repaint" else {}
    command = [mode, "take.wav", *FILLED[mode], "--seed", "1", "--songwriter", "pocket"]
    command += [word for key, value in given.items() for word in (f"--{key}", value)]
    result = acestep(*command, "-o", "out/")
    assert result.exit_code == 0, result.stderr
    assert "The Songwriter decided: " in result.stderr
    assert source.read_bytes() == before

    made = sorted(Path("out").glob("*.flac"))
    assert len(made) == (2 if mode in ("cover", "lego") else 1)
    first = yaml.safe_load(Path(f"{made[0]}.yaml").read_text())
    decided = {"bpm", "key", "time_signature"} - set(given)
    decided |= {"caption"} if "-c" not in FILLED[mode] else set()
    decided |= {"language"} if "--lyrics" in FILLED[mode] else set()
    assert set(first["render"]["songwriter"]["decided"]) == decided
    assert decided <= set(first)
    assert given.items() <= first.items()
    assert first["duration"] == 2
    assert not {"codes", "songwriter"} & set(first)
    assert ("lyrics" in first) == ("--lyrics" in FILLED[mode])
    for file in made:  # the text is written once for all takes
        beside = yaml.safe_load(Path(f"{file}.yaml").read_text())
        assert {key: beside[key] for key in decided} == {key: first[key] for key in decided}
        assert abs(soundfile.info(file).duration - 2) <= 0.04
    again = acestep(*command, "-o", "out/", "--json")
    assert {entry["status"] for entry in yaml.safe_load(again.stdout)["outputs"]} == {"skipped"}
    anew = acestep(*command, "-o", "anew/", "--json")  # the Songwriter's text comes from the cache
    assert {entry["status"] for entry in yaml.safe_load(anew.stdout)["outputs"]} == {"written"}

    monkeypatch.setattr(checkpoints, "built_in_songwriter", None)
    replay = acestep("render", f"{made[0]}.yaml", "-o", "replay/")
    assert replay.exit_code == 0, replay.stderr
    assert "The Songwriter" not in replay.stderr
    for name in {made[0].name} if mode != "lego" else {file.name for file in made}:
        [twin] = [file for file in Path("replay").glob("*.flac") if file.name.endswith(name[-8:])]
        assert np.array_equal(soundfile.read(twin)[0], soundfile.read(f"out/{name}")[0])
        assert np.array_equal(soundfile.read(f"anew/{name}")[0], soundfile.read(f"out/{name}")[0])
