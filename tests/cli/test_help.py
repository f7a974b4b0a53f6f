"""The layout of `--help`, and the pages of `acestep help`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from acestep_cli.cli import app as cli
from acestep_cli.cli import help as pages
from acestep_cli.cli import help_format
from acestep_cli.song import modes, spec_keys
from support.command import HOT, LIMIT, finish, loaded
from support.terminal import at_terminal

WIDTH = 80


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and group, as the words that call it."""

    def below(words: tuple[str, ...], command: Any) -> Iterator[tuple[str, ...]]:
        yield words
        if isinstance(command, TyperGroup):
            for name, one in command.commands.items():
                yield from below((*words, name), one)

    yield ()
    for name in cli.COMMANDS:
        yield from below((name,), typer.main.get_command(cli.loaded(name)))


def help_of(*words: str, flag: str = "--help") -> str:
    run = CliRunner().invoke(cli.app, [*words, flag], prog_name="acestep", env={"COLUMNS": str(WIDTH)})
    assert run.exit_code == 0, run.output
    return run.stdout


def rows(text: str) -> int:
    """The rows of a terminal of `WIDTH` columns that a text takes."""
    return sum(max(-(-len(line) // WIDTH), 1) for line in text.splitlines())


@pytest.mark.parametrize("mode", modes.MODES)
def test_a_mode_s_help_has_sixty_lines_and_the_common_flags_first(mode: str) -> None:
    text = help_of(mode)
    assert rows(text) <= 60
    common = text.split("Common flags:\n")[1].split("\n\n")[0]
    strange = {spec_keys.flag_of(name) for name in modes.keys_of_other_modes(mode)}
    places = [common.index(f"{flag} ") for flag in help_format.COMMON if flag not in strange]
    assert places == sorted(places)


def test_no_help_is_longer_than_sixty_lines() -> None:
    assert {words: lines for words in commands() if (lines := rows(help_of(*words))) > 60} == {}


def command_of(words: tuple[str, ...]) -> Any:
    command: Any = typer.main.get_command(cli.loaded(words[0]) if words else cli.app)
    for word in words[1:]:
        command = command.commands[word]
    return command


def flags_of(words: tuple[str, ...]) -> list[str]:
    command = command_of(words)
    return [param.opts[-1] for param in command.get_params(typer.Context(command)) if param.opts[-1].startswith("-")]


def has_help_all(words: tuple[str, ...]) -> bool:
    return isinstance(command_of(words), help_format.Command)


def test_a_flag_is_explained_or_named_by_its_group_and_explained_by_help_all() -> None:
    for words in commands():
        short = help_of(*words)
        every = help_of(*words, flag="--help-all") if has_help_all(words) else short
        for flag in flags_of(words):
            if flag in (help_format.HELP_ALL, "--help", "-h"):
                continue  # the one is named where something is left out, the other where nothing is
            assert flag in short.split(), (words, flag)
            assert re.search(rf"^ +(-\w, )?{flag}\b", every, re.MULTILINE), (words, flag)


def test_help_shows_neither_types_nor_doubled_brackets_nor_ranges_twice() -> None:
    for words in commands():
        for flag in ("--help", "--help-all") if has_help_all(words) else ("--help",):
            text = help_of(*words, flag=flag)
            for sign in ("<", "[[", "{", "=x="):
                assert sign not in text, (words, sign)
            assert "Usage: " + " ".join(("acestep", *words)) in text
            assert "...." not in text, words
            assert not any(line.endswith(" ") for line in text.splitlines())


def test_a_flag_s_sections_in_brackets_are_no_markup() -> None:
    assert "[Verse], [Chorus]" in help_of("generate")


def test_every_command_stands_in_one_group() -> None:
    groups = cli.command_groups(cli.COMMANDS)
    assert list(groups) == ["Make", "Recordings", "Write", "Albums", "Models", "Your sound", "Look"]
    assert sorted(name for names in groups.values() for name in names) == sorted(cli.COMMANDS)
    assert set(groups[cli.RECORDINGS]) == {"extend", *(name for name, mode in modes.MODES.items() if mode.has_source)}
    text = help_of()
    places = [text.index(f"\n{group}:\n") for group in groups]
    assert places == sorted(places)


# Pages


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "specs.md").write_text(
        "# Song specs\n\nOne file is one song.\n\n## Lyrics\n\nWords.\n\n```sh\n# Lyrics are no heading here\n```\n\n"
        "### Long `lyrics` too\n\nMore.\n\n## Models to name\n\n| model | size |\n|---|---|\n| turbo | 4 GB |\n"
    )
    (folder / "architecture.md").write_text("# Architecture\n\n## Models\n\nTwo.\n\n## Languages of the code\n\n.\n")
    (folder / "exit-codes.md").write_text("# Exit codes\n<!-- table: codes -->\n\nZero.\n")
    monkeypatch.setattr(pages, "FOLDERS", (tmp_path / "not here", folder))
    return folder


def page(*words: str) -> tuple[int, str, str]:
    run = CliRunner().invoke(cli.app, ["help", *words], prog_name="acestep", env={"COLUMNS": str(WIDTH)})
    return run.exit_code, run.stdout, run.stderr


@pytest.mark.usefixtures("docs")
def test_a_topic_is_a_page_a_heading_or_words_of_one() -> None:
    assert page("specs")[1].startswith("# Song specs\n")
    assert page("exit", "codes")[1] == "# Exit codes\n\nZero.\n"
    assert page("Exit-Codes")[1] == page("exit codes")[1]
    code, text, _ = page("lyrics")
    assert code == 0
    assert text.startswith("## Lyrics\n")
    assert text.endswith("### Long `lyrics` too\n\nMore.\n")  # up to the next heading of its level
    assert page("to", "name")[1].startswith("## Models to name\n")
    assert page("of", "the", "code")[1].startswith("## Languages of the code\n")


@pytest.mark.usefixtures("docs")
def test_without_a_topic_the_pages_are_listed() -> None:
    assert page()[1].splitlines() == [
        "exit-codes    Exit codes",
        "specs         Song specs",
        "architecture  Architecture",
    ]


@pytest.mark.usefixtures("docs")
def test_a_command_s_name_shows_its_help() -> None:
    assert page("repaint")[1] == help_of("repaint")


@pytest.mark.parametrize(
    ("topic", "first", "more"),
    [
        ("seed", "      --seed 0-4294967295  The same seed,", "spec: seed\nAll flags: acestep render --help-all"),
        ("--seed", "      --seed 0-4294967295  The same seed,", "As a key of a spec: seed"),
        ("bpm", "      --bpm 30-300", "As a key of a spec: bpm"),
        ("tempo", "      --bpm 30-300", "As a key of a spec: bpm"),
        ("-n", "  -n, --takes 1-9999", "As a key of a spec: takes"),
        ("time signature", "      --time-signature ", "As a key of a spec: time_signature"),
        ("--again", "      --again  New takes beside", "All flags: acestep render --help-all"),
        ("save-every", "      --save-every MINUTES", "All flags: acestep train-lora --help-all"),
        ("tags", "      --title", "--artist"),
        ("codes", "codes: ", "--set codes=…"),
        ("vram", "#", "memory"),
        ("mp3", "#", "mp3"),
        ("Makefile", "#", "make"),
    ],
)  # fmt: skip
def test_flags_keys_and_any_word_are_topics_too(topic: str, first: str, more: str) -> None:
    code, text, said = page(*topic.split())
    assert code == 0, said
    assert text.startswith(first), text
    assert more in text


@pytest.mark.usefixtures("docs")
def test_an_unknown_topic_is_refused_with_the_nearest() -> None:
    code, text, said = page("spec s")
    assert (code, text) == (2, "")
    assert "'spec s'; did you mean 'specs'?" in said
    assert "Pages: exit-codes, specs, architecture." in said


def test_on_a_terminal_a_page_is_laid_out(docs: Path) -> None:
    code = (
        "import sys, pathlib; from acestep_cli.cli import help, app\n"
        f"help.FOLDERS = (pathlib.Path({str(docs)!r}),)\nsys.argv[1:] = ['help', 'specs']\napp.main()"
    )
    environment = os.environ | {"COLUMNS": "40", "TERM": "xterm"}
    with at_terminal([sys.executable, "-c", code], env=environment) as terminal:
        text = terminal.read_rest()
        assert terminal.run.wait(LIMIT) == 0
    assert "\x1b[" in text
    assert "Song specs" in text
    assert "# Song specs" not in text
    assert "|---|" not in text


@pytest.mark.parametrize("topic", ["specs", "lyrics", "languages", "models", "exit codes", *pages.pages()])
def test_the_topics_of_the_program_are_there(topic: str) -> None:
    code, text, _ = page(*topic.split())
    assert code == 0
    assert topic.replace("-", " ") in text.splitlines()[0].lower() or topic in pages.pages()


def test_help_is_cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert loaded("help", watched=(*HOT, "numpy", "soundfile", "yaml")) == (0, [])
    assert loaded("help", "specification", watched=(*HOT, "numpy", "soundfile", "yaml")) == (0, [])


@pytest.mark.parametrize("words", [[], ["album"], ["models"], ["spec"], ["examples"], ["cache"], ["lora"]], ids=str)
def test_a_group_alone_shows_its_help(words: list[str]) -> None:
    run = finish(
        [sys.executable, "-m", "acestep_cli", *words], text=True, timeout=60, env={**os.environ, "COLUMNS": str(WIDTH)},
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.rstrip("\n") == help_of(*words).rstrip("\n")
