"""Refusals of a run: all of its problems are told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

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
