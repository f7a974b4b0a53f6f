"""Every command of the live table, with streams that take nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from support import live, tiny
from support.live import FULL, GONE, KEPT, ONE_LINE, TERMINAL, Case, Done

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked, and a disk is full")
#: Commands that print nothing on stdout where they succeed; the last, where nothing is left over.
SILENT = ("spec check", "models prune")
#: What a terminal would obey, by another title for its window; names of files, captions and a trigger begin with it.
OBEYED = "\x1b]0;e\x07 "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, two_b: tiny.Oracle, base: tiny.Oracle) -> Path:
    """A folder with what the words of all commands name."""
    made = tmp_path_factory.mktemp("every")
    live.prepare(made, [two_b.root, base.root])
    return made


def test_each_command_has_words() -> None:
    leaves = {path for path, command in live.commands().items() if not hasattr(command, "list_commands")}
    assert leaves == set(live.WORDS)


def faults(runs: list[Done], code: int = 0, said: str = "") -> list[str]:
    """Return the runs that ended otherwise, and those that showed an exception."""
    shown = ("Traceback", "Exception ignored", "unexpected", "BrokenPipe")
    return [
        f"{' '.join(run.words)}: {run.code}, {run.stderr[-300:]}"
        for run in runs
        if run.code != code or said not in run.stderr or any(word in run.stderr for word in shown)
    ]


def is_silent(run: Done) -> bool:
    return " ".join(run.words).startswith(SILENT) and not run.words[-1].startswith("--")


@pytest.mark.parametrize(
    ("stdout", "stderr"), [(GONE, KEPT), (KEPT, GONE), pytest.param(KEPT, FULL, marks=pytest.mark.slow)]
)
def test_a_reader_who_is_gone_is_no_failure(folder: Path, stdout: str, stderr: str) -> None:
    """As `| true`; and stderr may be full, too: what is said there is not what was asked for."""
    lines = [*live.lines(), *(live.help_lines() if stdout == GONE else [])]
    runs = live.run_all(folder, [Case(words, stdout, stderr) for words in lines])
    assert not faults(runs)
    if stdout == KEPT:
        assert [run.words for run in runs if not run.stdout] == [run.words for run in runs if is_silent(run)]


@pytest.mark.parametrize("stdout", [ONE_LINE, pytest.param(GONE, marks=pytest.mark.slow)])
def test_a_reader_who_has_read_enough_is_no_failure(folder: Path, stdout: str) -> None:
    """As `| head -1`, while the rest is on its way."""
    long = [["models", "list"], ["spec", "schema"], ["examples", "show", "ballad"], ["help", "specs"], ["doctor"],
            ["spec", "languages"], ["generate", "--help-all"], ["examples", "list", "--json"]]  # fmt: skip
    lines = long if stdout == ONE_LINE else live.json_lines()
    assert not faults(live.run_all(folder, [Case(words, stdout) for words in lines]))


@pytest.mark.parametrize("as_json", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_full_stdout_is_a_sentence(folder: Path, as_json: bool) -> None:
    lines = live.json_lines() if as_json else [*live.lines(), *live.help_lines()]
    runs = live.run_all(folder, [Case(words, FULL) for words in lines])
    assert not faults([run for run in runs if is_silent(run)])
    refused = [run for run in runs if not is_silent(run)]
    assert not faults(refused, 9, "stdout cannot be written: no space left on device.")


def test_a_terminal_obeys_no_text_of_others(tmp_path: Path, two_b: tiny.Oracle, base: tiny.Oracle) -> None:
    """In names of files, captions, what an adapter listens to, and bars and lines on a true terminal."""
    live.prepare(tmp_path, [two_b.root, base.root], OBEYED)
    lines = [words for words in live.lines() if any(sign in word for word in words for sign in "%#")]
    *runs, checked = live.run_all(
        tmp_path,
        [*(Case(words, TERMINAL, TERMINAL) for words in lines), Case(["check", "%take.wav", "--json"])],
        OBEYED,
    )
    assert [
        run.words for run in runs if run.code or any(sign in run.stdout for sign in ("\x07", "\x1b]", "Traceback"))
    ] == []
    assert any("\\x1b]0;e\\x07" in run.stdout for run in runs)
    assert json.loads(checked.stdout)["checked"][0]["path"] == f"{OBEYED}take.wav"
