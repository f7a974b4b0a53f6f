"""What nobody has said of songs to learn from is found out, and never what is sung."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from acestep_cli.audio import measure
from acestep_cli.cli import auto_label as labels_of
from acestep_cli.cli.app import app
from acestep_cli.training import dataset
from support import tiny
from support.sounds import song

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
    found = dataset.load_dataset(tmp_path / "songs")
    return {one.name: dataset.song_keys(one.request) for one in found.songs}


SAID = {"caption": "said", "lyrics": "la\n", "bpm": 90, "key": "A minor", "time_signature": "3/4"}


def test_analysis_fills_what_is_open(
    scan: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    monkeypatch.setattr(measure, "has_analyser", lambda: True)
    monkeypatch.setattr(measure, "estimate_tempo", lambda sound: heard.append(sound.seconds) or 76.9)
    monkeypatch.setattr(measure, "estimate_key", lambda sound: "E minor")
    run = scan()
    assert run.exit_code == 0, run.output
    assert "librosa estimates tempo and key of 1 song; review them" in run.stderr
    assert labels(tmp_path) == {"said.wav": SAID, "mute.wav": {"bpm": 77, "key": "E minor", "instrumental": True}}
    assert heard == [11.0]


def test_without_analysis_it_is_said_and_stays_open(
    scan: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "has_analyser", lambda: False)
    run = scan()
    assert run.exit_code == 0, run.output
    assert "Tempo or key of 1 song stay unset, because nothing installed estimates them" in run.stderr
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
    assert "fills in what is unset of 1 song; review it" in run.stderr
    found = labels(tmp_path)
    assert found["said.wav"] == SAID
    assert {"caption", "bpm", "key", "time_signature"} <= set(found["mute.wav"])
    assert found["mute.wav"]["instrumental"] is True  # words are never made up


def test_a_songwriter_that_is_not_there_is_refused(scan: Callable[..., Result]) -> None:
    run = scan("--songwriter", "4B")
    assert run.exit_code == 3
    assert "4B" in run.stderr


def test_a_tempo_out_of_range_is_heard_an_octave_off() -> None:
    assert [labels_of.tempo_in_range(tempo) for tempo in (120.4, 17.6, 480, 0, None)] == [120, 35, 240, None, None]
