"""Refusals of a run: all of its problems are told at once."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from support import tiny
from support.command import Run

SONG = ["generate", "-c", "slow piano", "--instrumental", "-d", "10"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(acestep: Run, code: int, *arguments: str) -> str:
    result = acestep(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    return " ".join(result.stderr.split())


def test_flags_and_the_suffix_of_the_output_are_refused_together(acestep: Run) -> None:
    said = refused(acestep, 2, "generate", "-c", "x", "--bpm", "fast", "--key", "H minor", "-o", "x.aac")
    assert all(word in said for word in ("fast", "H minor", "x.aac"))


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["render", "dry"])
def test_flags_and_a_missing_folder_are_refused_together(acestep: Run, dry: list[str]) -> None:
    said = refused(acestep, 2, *SONG, "--bpm", "fast", "-o", "nowhere/x.flac", *dry)
    assert "fast" in said
    assert "The folder nowhere does not exist." in said


def test_a_missing_folder_alone_keeps_its_code(acestep: Run) -> None:
    assert "The folder nowhere does not exist." in refused(acestep, 9, *SONG, "-o", "nowhere/x.flac")


def test_all_that_stdout_cannot_carry_is_told_with_a_broken_flag(acestep: Run) -> None:
    said = refused(acestep, 2, *SONG, "--bpm", "fast", "-o", "-", "--keep-latents", "--lrc")
    assert "fast" in said
    assert "--output - leaves no file beside which --keep-latents could keep them." in said
    said = refused(acestep, 2, *SONG, "-n", "2", "-o", "-", "--keep-latents", "--fade-out", "2")
    assert "--output - carries one take" in said
    assert "--output - leaves no file" in said
    assert "the latents of a faded song" in said


def test_files_in_the_way_of_several_specs_are_refused_with_a_broken_one(acestep: Run) -> None:
    for name, caption in (("a", "slow piano"), ("b", "fast piano"), ("c", "loud drums")):
        Path(f"{name}.yaml").write_text(f"caption: {caption}\ninstrumental: true\nduration: 10\n")
    Path("out").mkdir()
    for name in ("a", "b"):
        Path(f"out/{name}.flac").write_bytes(b"mine")
    said = refused(acestep, 9, "render", "a.yaml", "b.yaml", "c.yaml", "-o", "out/")
    reason = "exists already, and no sidecar says how it was made."
    hint = "--force replaces it; another --output keeps it. --again makes a new take beside it."
    assert f"out/a.flac {reason} out/b.flac {reason} {hint}" in said
    assert said.count("--force") == 1
    Path("c.yaml").write_text("caption: loud drums\nbpm: fast\n")
    said = refused(acestep, 2, "render", "a.yaml", "b.yaml", "c.yaml", "-o", "out/")
    assert f"out/a.flac {reason}" in said
    assert f"out/b.flac {reason}" in said
    assert "c.yaml:2" in said
    assert sorted(file.name for file in Path("out").iterdir()) == ["a.flac", "b.flac"]


def test_a_refused_run_makes_no_folder(acestep: Run) -> None:
    refused(acestep, 2, *SONG, "--bpm", "fast", "-o", "new/")
    assert not Path("new").exists()


def test_two_songs_for_one_file_do_not_hide_another_file_in_the_way(acestep: Run) -> None:
    for name in ("x/a", "y/a", "x/b"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(f"{name}.yaml").write_text("caption: slow piano\ninstrumental: true\nduration: 10\n")
    Path("out").mkdir()
    Path("out/b.flac").write_bytes(b"mine")
    said = refused(acestep, 2, "render", "x/a.yaml", "y/a.yaml", "x/b.yaml", "-o", "out/")
    assert "would both write out/a.flac." in said
    assert "out/b.flac exists already" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.wav", ["check", "x.wav"]),
        ("x.wav", ["repaint", "x.wav", "--start", "1", "--end", "2", "-o", "y.wav"]),
        ("config.json", [*SONG, "-m", "turbo", "-o", "y.wav"]),
        ("song.yaml", ["spec", "check", "song.yaml"]),
    ],
    ids=str,
)
def test_want_of_memory_is_no_fault_of_a_file(
    acestep: Run, two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str]
) -> None:
    """Where the system has no memory to open a file or to read it, another file would not help."""
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    soundfile.write("x.wav", np.sin(np.arange(4 * 48_000) / 10)[:, None] / 2, 48_000)
    Path("song.yaml").write_text("caption: slow piano\n")
    real = Path.open

    def open_without_memory(path: Path, *mode: Any, **options: Any) -> Any:
        if path.name == name:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(path))
        return real(path, *mode, **options)

    monkeypatch.setattr(Path, "open", open_without_memory)
    said = acestep(*words, "--json")
    assert said.exit_code == 4, said.stderr
    assert "Memory ran out: " in said.stderr
    assert f"{name}" in said.stderr
    assert json.loads(said.stdout)["error"]["name"] == "memory"
