"""What nobody has said of songs to learn from is found out, and never what is sung."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from test_dataset import song
from typer.testing import CliRunner, Result

from acestep_cli import analysis, dataset
from acestep_cli.audio import Audio
from acestep_cli.cli import app

RATE = 48_000


@pytest.fixture
def scan(base: tiny.Oracle, tmp_path: Path) -> Callable[..., Result]:
    """`acestep train-lora SONGS --scan-only …`, of one song that says its tempo and one that says nothing."""
    folder = tmp_path / "songs"
    for name, pitch in (("said", 220), ("mute", 330)):
        song(folder / f"{name}.wav", pitch, 11, RATE)
    (folder / "said.txt").write_text("caption: said\nbpm: 90\nkey: Am\nsignature: 3\nlyrics: la")

    def run(*flags: str) -> Result:
        where = ["--models-dir", str(base.root), "-m", "base"]
        return CliRunner().invoke(app, ["train-lora", str(folder), "--scan-only", *where, *flags])

    return run


def labels(tmp_path: Path) -> dict[str, dict[str, object]]:
    found = dataset.read(tmp_path / "songs")
    return {one.name: dataset.described(one.request) for one in found.songs}


SAID = {"caption": "said", "lyrics": "la\n", "bpm": 90, "key": "A minor", "time_signature": "3/4"}


def test_analysis_fills_what_is_open(
    scan: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    monkeypatch.setattr(analysis, "is_installed", lambda: True)
    monkeypatch.setattr(
        analysis, "tempo_and_key", lambda sound: heard.append(sound.seconds) or {"bpm": 77, "key": "E minor"}
    )
    run = scan()
    assert run.exit_code == 0, run.output
    assert "librosa estimates tempo and key of 1 song; look it through" in run.stderr
    assert labels(tmp_path) == {"said.wav": SAID, "mute.wav": {"bpm": 77, "key": "E minor", "instrumental": True}}
    assert heard == [11.0]


def test_without_analysis_it_is_said_and_stays_open(
    scan: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "is_installed", lambda: False)
    run = scan()
    assert run.exit_code == 0, run.output
    assert "Tempo or key of 1 song stay open, for nothing here finds them out" in run.stderr
    assert labels(tmp_path)["mute.wav"] == {"instrumental": True}
    again = scan("--force", "--songwriter", "none")
    assert "nothing here finds them out" not in again.stderr


def test_a_songwriter_describes_what_is_open(
    scan: Callable[..., Result], base: tiny.Oracle, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    helper = tmp_path_factory.mktemp("helper") / "songwriter"
    tiny.build_songwriter(helper)
    run = scan("--songwriter", str(helper))
    assert run.exit_code == 0, run.output
    assert "describes what is open of 1 song; look it through" in run.stderr
    found = labels(tmp_path)
    assert found["said.wav"] == SAID
    assert {"caption", "bpm", "key", "time_signature"} <= set(found["mute.wav"])
    assert found["mute.wav"]["instrumental"] is True  # words are never made up


def test_a_songwriter_that_is_not_there_is_refused(scan: Callable[..., Result]) -> None:
    run = scan("--songwriter", "4B")
    assert run.exit_code == 3
    assert "4B" in run.stderr


@pytest.mark.skipif(importlib.util.find_spec("librosa") is None, reason="librosa is an extra")
def test_librosa_hears_beats_and_a_chord() -> None:
    t = np.arange(RATE * 16) / RATE
    beats = (t * 2 % 1 < 0.05)[None]  # 120 a minute
    noise = np.random.default_rng(0).normal(size=t.shape) * beats
    chord = sum(np.sin(2 * np.pi * pitch * t) for pitch in (220, 261.63, 329.63, 440))
    wave = (0.2 * noise + 0.05 * chord).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries it brings
        found = analysis.tempo_and_key(Audio(np.concatenate([wave, wave]), RATE))
    assert found["key"] == "A minor"
    assert found["bpm"] in (*range(58, 63), *range(117, 124))
