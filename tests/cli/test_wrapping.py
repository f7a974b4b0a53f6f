"""Lines on a terminal break between words, and commands to be pasted do not break."""

from __future__ import annotations

import io

import pytest

from acestep_cli.cli import progress_bar, wrapping
from acestep_cli.render.remaining import Remaining

SENTENCE = "Taken over from the source: lyrics, language, bpm 105, key A minor, time signature 4/4"


class Terminal(io.StringIO):
    """A stream that is a terminal, without a size."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [20, 40, 60, 80])
@pytest.mark.parametrize("indent", ["", "    "])
def test_lines_break_between_words(width: int, indent: str) -> None:
    lines = wrapping.wrap_line(indent + SENTENCE, width).split("\n")
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith(indent) and line == line.rstrip() for line in lines)
    assert " ".join(line.strip() for line in lines) == SENTENCE


def test_what_fits_stays_as_it_is() -> None:
    for line in ("", "  text   text encoder    540 MB", SENTENCE):
        assert wrapping.wrap_line(line, 100) == line


def test_a_word_that_is_too_long_has_a_line_of_its_own() -> None:
    path = "/tmp/" + "x" * 90
    assert wrapping.wrap_line(f"It is {path} that was meant", 40) == f"It is\n{path}\nthat was meant"


def test_a_number_stays_with_its_unit() -> None:
    assert wrapping.wrap_line("A real one takes (6.3 GB): and more", 21) == "A real one takes\n(6.3 GB): and more"


def test_signs_of_two_columns_count_as_two() -> None:
    assert wrapping.wrap_line("雨の日 ボサノバ ボサノバ", 20) == "雨の日 ボサノバ\nボサノバ"


def test_a_command_stays_whole_on_a_line_of_its_own() -> None:
    hint = "Hear them side by side: acestep listen a-folder-with-a-name/takes --open"
    label, command = wrapping.wrap_line(hint, 60).split("\n")
    assert (label, command) == ("Hear them side by side:", "  acestep listen a-folder-with-a-name/takes --open")


def test_only_a_terminal_gets_other_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert wrapping.wrap_for(io.StringIO(), SENTENCE) == SENTENCE
    assert wrapping.wrap_for(None, SENTENCE) == SENTENCE
    monkeypatch.setenv("TERM", "xterm")
    assert max(map(len, wrapping.wrap_for(Terminal(), f"{SENTENCE}\n\n{SENTENCE}").split("\n"))) <= 40
    monkeypatch.setenv("TERM", "dumb")
    assert wrapping.wrap_for(Terminal(), SENTENCE) == SENTENCE


def test_a_bar_drops_its_counts_before_it_cuts_words() -> None:
    bar = progress_bar.CommandBar(lambda: 0, Remaining())
    bar.report("text", 0, 1)
    bar.report("listen", 256, 800)
    assert bar.headlines == ("Listening to the recording 256/800", "Listening to the recording")
    assert progress_bar.longest_that_fits(bar.headlines, 40) == bar.headlines[0]
    assert progress_bar.longest_that_fits(bar.headlines, 30) == bar.headlines[1]
    assert progress_bar.longest_that_fits(bar.headlines, 12) == "Listening t…"
    both, last = bar.stage_lines
    assert both.startswith("Reading the text 0:00 · Listening to the recording 0:0")
    assert last.startswith("Listening to the recording 0:0")
