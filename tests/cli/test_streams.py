"""Full and closed stdouts, names a terminal cannot show, a folder that is gone, and refusals told together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from acestep_cli.cli import exit_codes
from support.command import finish

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="a full disk of Linux")


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """The program itself, in a process of its own."""
    return finish([sys.executable, "-m", "acestep_cli", *arguments], **options)


@pytest.mark.parametrize(
    "words",
    [
        ["examples", "show", "ballad"],
        ["examples", "list"],
        ["--help"],
        ["--version"],
        ["album", "--help"],
        ["spec", "new"],
        ["spec", "schema"],
        ["doctor", "--json"],
    ],
    ids=" ".join,
)
def test_a_full_stdout_is_a_sentence(words: list[str]) -> None:
    with FULL.open("wb") as full:
        run = program(*words, stdout=full)
    assert run.returncode == 9, run.stderr
    assert b"stdout cannot be written: no space left on device." in run.stderr
    assert b"Traceback" not in run.stderr


def test_a_closed_stdout_hides_no_failure() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    for words in (["spec", "check", "--json", "nosuch.yaml"], ["generate", "--json", "--bpm", "fast"]):
        assert program(*words, stdout=theirs).returncode == 2
    os.close(theirs)


@pytest.mark.parametrize("reader", ["is gone", "is a full disk"])
def test_a_stderr_that_takes_nothing_hides_no_exit_code(reader: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with FULL.open("wb") as full, os.fdopen(theirs, "wb") as pipe:
        stderr = pipe if reader == "is gone" else full
        for words, code in ((["check", "nosuch.wav"], 5), (["nosuch"], 2), (["lora"], 2), (["spec", "check", "-"], 2)):
            assert program(*words, stderr=stderr).returncode == code, words


@pytest.mark.parametrize("words", [["--help"], ["generate", "--help"], ["examples", "list"]], ids=str)
def test_a_closed_stdout_is_no_failure(words: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    run = program(*words, stdout=theirs)
    os.close(theirs)
    assert run.returncode == 0, run.stderr


def test_control_characters_reach_no_terminal() -> None:
    for words in (["spec", "check", "e\x1b[31mv.yaml"], ["check", "e\x1b[31mv.wav"], ["e\x1b[31mv"]):
        run = program(*words)
        assert run.returncode in (2, 5)
        assert b"\x1b[31m" not in run.stderr


def test_a_name_that_is_not_utf_8_is_checked_and_shown(tmp_path: Path) -> None:
    name = os.fsdecode(b"l\xe9.wav")
    soundfile.write(os.fsencode(tmp_path / name), np.sin(np.arange(48_000))[:, None] / 2, 48_000, format="WAV")
    for words in (["check", name], ["check", "--json", name], ["show", name]):
        run = program(*words, cwd=tmp_path)
        assert run.returncode == 0, run.stderr


def test_refusals_of_flags_and_output_are_told_together() -> None:
    run = program("generate", "-c", "x", "--bpm", "fast", "--key", "H minor", "-o", "x.aac")
    assert run.returncode == 2
    assert all(word in run.stderr for word in (b"--bpm", b"--key", b"--output"))


@pytest.fixture
def gone(tmp_path: Path) -> Iterator[Path]:
    """A current folder that is deleted; yields one that is there."""
    before, folder = Path.cwd(), tmp_path / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()
    yield tmp_path
    os.chdir(before)


@pytest.mark.parametrize(
    "words",
    [
        ["spec", "check", "x.yaml"],
        ["spec", "show", "x.yaml"],
        ["check", "x.wav"],
        ["check", "--json", "x.wav"],
        ["render", "x.yaml"],
        ["generate", "-c", "x", "--instrumental"],
        ["listen", "takes"],
        ["listen", "."],
        ["lora", "inspect", "x"],
        ["train-lora", "songs", "--scan-only"],
    ],
    ids=" ".join,
)
def test_a_deleted_folder_is_a_sentence(words: list[str], gone: Path) -> None:
    run = program(*words)
    assert run.returncode == 9, run.stderr
    assert b"The current folder was deleted.\ncd to a folder" in run.stderr


def test_help_and_absolute_paths_work_in_a_deleted_folder(gone: Path) -> None:
    song, take = gone / "song.yaml", gone / "take.wav"
    song.write_text("caption: slow piano\ninstrumental: true\nduration: 3\nmodel: pocket\n")
    for words in (["--help"], ["spec", "check", str(song)], ["render", str(song), "-o", str(take)]):
        run = program(*words)
        assert run.returncode == 0, run.stderr
    assert program("check", str(take)).returncode == 0
    song.write_text("caption: slow piano\nbpm: fast\n")
    assert program("spec", "check", str(song)).returncode == 2  # its own fault, not the folder's


def test_the_analyser_and_the_selftest_work_in_a_deleted_folder(gone: Path) -> None:
    songs, take = gone / "songs", gone / "songs" / "take.wav"
    songs.mkdir()
    soundfile.write(take, np.sin(np.arange(6 * 48_000) / 10)[:, None] / 2, 48_000)
    for words in (
        ["doctor", "--selftest", "pocket"],
        ["train-lora", str(songs), "--scan-only"],
        ["export", str(take), "--daw", "-o", str(gone / "daw")],
    ):
        run = program(*words)
        assert run.returncode == 0, run.stderr


def test_no_refusal_hides_another(tmp_path: Path) -> None:
    spec = tmp_path / "song.yaml"
    spec.write_text("caption: x\nbpm: fast\nkey: H minor\n")
    run = program("render", str(spec), "--shift", "none", "--format", "flac", "-o", "x.wav", cwd=tmp_path)
    assert run.returncode == 2
    assert all(word in run.stderr for word in (b"bpm", b"key", b"--shift", b"contradicts --output x.wav")), run.stderr
    other = tmp_path / "other.yaml"
    other.write_text("caption: x\nbpm: slow\n")
    run = program("render", str(spec), str(other), str(spec), "", "-o", "x.wav", cwd=tmp_path)
    assert run.returncode == 2
    told = (b"song.yaml:2", b"other.yaml:2", b"is one file", b"is given 2 times", b"name of a spec is empty")
    assert all(word in run.stderr for word in told), run.stderr


def test_names_show_what_a_terminal_would_obey_as_escapes() -> None:
    text = "a\x1b[31m\x9b\u202eb\u2066\u200b\nc\t" + os.fsdecode(b"\xe9")
    assert exit_codes.printable(text) == "a\\x1b[31m\\x9b\\u202eb\\u2066\\u200b\nc\t\N{REPLACEMENT CHARACTER}"
    assert exit_codes.printable("می\u200cخواهم 👩\u200d🎤") == "می\u200cخواهم 👩\u200d🎤"
    for words in (["spec", "check", "\u202ex.yaml"], ["check", "\x9bx.wav"], ["generate", "--\x1b[31mx"]):
        stderr = program(*words).stderr.decode()
        assert not set(stderr) & set("\x1b\x9b\u202e"), words


def test_a_traceback_shows_escapes(tmp_path: Path) -> None:
    run = program("check", "--debug", "e\x1b[31mv.wav", cwd=tmp_path)
    assert b"Traceback" in run.stderr
    assert b"\x1b" not in run.stderr
