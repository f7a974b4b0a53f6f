"""The Songwriter that comes with the program: at hand on a fresh machine, and only where it is asked for or needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.song import spec

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
    assert "acestep models pull 0.6B fetches a real one" in written.stderr
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
