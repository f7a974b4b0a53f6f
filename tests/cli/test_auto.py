"""`--auto`: takes without end, at a prompt and without a terminal, in true processes with the band for a pipeline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from acestep_cli.cli import listen
from acestep_cli.song import spec
from support import tiny
from support.command import LIMIT, Run, started, until
from support.places import BAND
from support.terminal import Terminal, at_terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and terminals of Unix")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    Path("song.yaml").write_text("caption: a song\nlyrics: |\n  [Verse]\n  la\nduration: 10\ntakes: 2\nseed: 7\n")


def takes() -> list[str]:
    return sorted(file.name for file in Path("out").glob("*.flac"))


def whole(folder: Path = Path("out")) -> None:
    """Nothing is half there."""
    for file in folder.glob("*.flac"):
        assert soundfile.info(file).frames == 480_000
        assert Path(f"{file}.yaml").is_file()
    assert not list(folder.glob(".*.part"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_without_a_terminal_it_goes_on_until_a_signal_and_loses_nothing(number: int, code: int) -> None:
    command = [sys.executable, BAND, "generate", "song.yaml", "--auto", "-o", "out/"]
    with started(command) as run:
        until(lambda: len(takes()) > 3)
        run.send_signal(number)
        stdout, stderr = run.communicate(timeout=LIMIT)
    assert run.returncode == code, stderr
    assert sorted(Path(line).name for line in stdout.splitlines()) == takes()
    assert [spec.load(Path("out", f"song-{n}.flac.yaml")).seed for n in (1, 2, 3, 4)] == [7, 8, 9, 10]
    whole()
    page = listen.DATA.search(Path("out/listen.html").read_bytes())
    assert page is not None
    assert b"song-4.flac" in page[1]


def test_names_that_are_not_utf_8_are_printed_and_kept() -> None:
    name = os.fsdecode(b"s\xe9ng.yaml")
    try:
        Path("song.yaml").rename(name)
    except OSError:
        pytest.skip("the names of this disk are UTF-8")
    command = [sys.executable, BAND, "generate", name, "--auto", "-o", "out/"]
    with started(command, encoding="utf-8", errors="surrogateescape") as run:
        until(lambda: Path("out/listen.html").exists() or run.poll() is not None)
        run.send_signal(signal.SIGTERM)
        stdout, stderr = run.communicate(timeout=LIMIT)
    assert run.returncode == 143, stderr
    assert len(takes()) > 1
    assert sorted(Path(line).name for line in stdout.splitlines()) == takes()


def test_what_makes_nothing_ends_it_with_its_own_code(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acestep_cli.cli.auto.PROGRAM", (sys.executable, str(BAND)))
    result = acestep("generate", "-c", "all silent", "-d", "10", "-n", "2", "--auto", "-o", "out/")
    assert result.exit_code == 6
    assert "The rendered audio is silent, so no file was written." in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--json"], 2, "--auto goes on until it is stopped, so --json has no meaning."),
        (["--events", "e"], 2, "so --events has no meaning."),
        (["--dry-run"], 2, "so --dry-run has no meaning."),
        (["other.yaml"], 2, "--auto renders one song, and there are 2 specs."),
        (["-o", "a.flac"], 2, "--auto makes one file after another; --output names their folder."),
        (["-o", "-"], 2, "--auto makes one file after another"),
        (["--bpm", "20"], 2, "--bpm: 20 is not a whole number from 30 to 300"),
        (["-m", "base"], 3, "base"),
        (["-o", "song.yaml/"], 9, "song.yaml cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals_come_before_the_first_take(
    acestep: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, sentence: str
) -> None:
    monkeypatch.setattr("acestep_cli.cli.auto.PROGRAM", ("false",))
    result = acestep("generate", "song.yaml", "--auto", *words)
    assert result.exit_code == code
    assert sentence in " ".join(result.stderr.split())
    assert not list(Path().glob("*.flac"))


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    command = [sys.executable, BAND, "generate", "song.yaml", "--auto", "-o", "out/"]
    with at_terminal(command, stdout=subprocess.PIPE, text=True) as made:
        yield made


def test_at_a_prompt_takes_are_kept_repainted_and_followed_by_the_next(terminal: Terminal) -> None:
    assert "Making 2 takes of song …" in terminal.expect("q: stop > ")
    assert takes() == ["song-1.flac", "song-2.flac"]
    until(lambda: len(takes()) == 4)  # which nobody has asked for yet
    news = Path("out/.listen.html.news.js")
    assert news.read_text() == 'news({"files": ["song-1.flac", "song-2.flac"], "kept": []});\n'
    for typed, said in (
        ("2", "Kept: song-2.flac (out/kept.txt)"),
        ("9", "There is no take 9."),
        ("r 9 0-1", "There is no take 9."),
        ("loud", "'loud' is not one of these."),
        ("r 2 0:02-0:04", "Repainted: song-2b.flac"),
        ("r 1 20-30", "20 s lies past the end"),
        ("2b", "Kept: song-2b.flac"),
        ("v 9", "There is no take 9."),
        ("v 1", "Varied: song-1b.flac"),
    ):
        terminal.type(f"{typed}\n")
        terminal.expect(said)
        terminal.expect("q: stop > ")
    made = spec.load(Path("out/song-2b.flac.yaml"))
    assert (made.mode, made.start, made.end, made.caption) == ("repaint", 2, 4, "a song")
    made, of = (spec.load(Path(f"out/song-{name}.flac.yaml")) for name in ("1b", "1"))
    assert (made.variation, made.seed, made.takes) == (0.15, of.seed, 1)
    terminal.type("\n")
    assert "Making 2 takes" in terminal.expect("q: stop > ")
    terminal.type("4\n")
    terminal.expect("Kept: song-4.flac")
    assert '"kept": ["song-2.flac", "song-2b.flac", "song-4.flac"]' in news.read_text()
    assert Path("out/kept.txt").read_text() == "song-2.flac\nsong-2b.flac\nsong-4.flac\n"
    terminal.type("q\n")
    assert terminal.run.wait(LIMIT) == 0
    printed = [Path(line).name for line in terminal.run.communicate(timeout=LIMIT)[0].splitlines()]
    assert sorted(printed) == takes()
    page = listen.DATA.search(Path("out/listen.html").read_bytes())
    assert page is not None
    content = json.loads(page[1])
    assert content["kept"] == ["song-2.flac", "song-2b.flac", "song-4.flac"]
    assert "song-2b.flac" in [take["file"] for take in content["takes"]]
    assert content["scripts"] is None  # which nobody adds to any more
    assert not list(Path("out").glob("*.js"))
    whole()


def test_the_end_of_typing_is_the_end(terminal: Terminal) -> None:
    terminal.expect("q: stop > ")
    terminal.type("\x04")
    assert terminal.run.wait(LIMIT) == 0
    whole()
