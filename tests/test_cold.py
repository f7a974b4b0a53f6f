"""Commands that need no weights answer without importing torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from support import tiny
from support.command import HOT, loaded


def test_help_and_version_load_next_to_nothing() -> None:
    for words in (["--help"], ["--version"]):
        assert loaded(*words, watched=(*HOT, "numpy", "soundfile", "yaml", "pydantic", "acestep_cli.song.request")) == (
            0,
            [],
        )


def test_a_command_s_help_loads_no_torch() -> None:
    assert loaded("generate", "--help", watched=(*HOT, "mutagen", "numpy", "soundfile")) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--bpm", "20"], 2),
        (["nowhere.yaml"], 2),
        ([], 2),
        (["--guidance", "7"], 2),
        (["--device", "tpu"], 2),
        (["-d", "4"], 2),
        (["-c", "x", "-m", "sft"], 3),
        (["-c", "x", "--lora", "nowhere"], 3),
        (["-c", "x", "--lora", "sound@loud@"], 3),
        (["-c", "x", "--lora-mode", "blend"], 2),
        (["-c", "x", "-o", "no/x.wav"], 9),
    ],
    ids=str,
)
def test_refusals_load_no_torch(two_b: tiny.Oracle, arguments: list[str], code: int) -> None:
    caption = ["-c", "x"] if arguments else []
    flags = ["--models-dir", str(two_b.root), "-m", "turbo", *caption, *arguments]
    assert loaded("generate", *flags) == (code, [])


@pytest.mark.parametrize("words", [["check", "a.wav"], ["show", "a.wav"], ["listen", "."]], ids=str)
def test_what_looks_at_finished_takes_loads_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.sin(np.arange(48_000))[:, None] / 2, 48_000)
    assert loaded(*words, watched=(*HOT, "librosa")) == (0, [])


def test_a_replay_that_cannot_be_is_refused_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.sin(np.arange(48_000))[:, None] / 2, 48_000)
    assert loaded("replay", "a.wav") == (5, [])
