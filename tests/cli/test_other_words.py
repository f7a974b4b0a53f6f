"""Words of other programs: each leads to a command and a flag that are there, and to nothing that does harm."""

from __future__ import annotations

import re

import pytest
import typer
from typer.testing import CliRunner

from acestep_cli.cli import other_words
from acestep_cli.cli.app import COMMANDS, app, loaded

#: `acestep album render`, and what stands behind it up to the next one.
COMMAND = re.compile(r"acestep ((?:(?!acestep)[^;,])+)")


def said(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, words
    assert result.stdout == ""
    return " ".join(result.stderr.replace("│", " ").split())


def flags_of(words: list[str]) -> set[str]:
    """Return the flags of the command that is named by the first of some words."""
    command = typer.main.get_command(loaded(words[0]))
    if hasattr(command, "commands"):
        command = command.commands[words[1]]
    return {flag for param in command.params for flag in param.opts}


@pytest.mark.parametrize("hint", sorted({*other_words.COMMANDS.values()}))
def test_every_hint_names_commands_and_flags_that_are_there(hint: str) -> None:
    named = [match.split() for match in COMMAND.findall(hint)]
    assert named or "Nothing is ever" in hint
    for words in named:
        if words[0] == "--version":
            continue
        assert words[0] in COMMANDS
        assert {word for word in words if word.startswith("-")} <= flags_of(words)


@pytest.mark.parametrize("word", other_words.COMMANDS)
def test_a_word_of_another_program_leads_to_what_does_the_same(word: str) -> None:
    assert word not in COMMANDS
    assert other_words.COMMANDS[word] in said(*word.split())


@pytest.mark.parametrize("name", [*other_words.FLAGS, *other_words.SENTENCES])
def test_no_other_name_is_a_flag_of_a_render(name: str) -> None:
    assert f"--{name}" not in flags_of(["generate"])


def test_every_flag_that_a_name_leads_to_is_there() -> None:
    there = {flag for name in COMMANDS if not hasattr(typer.main.get_command(loaded(name)), "commands")
             for flag in flags_of([name])}  # fmt: skip
    assert {*other_words.FLAGS.values()} <= there


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--prompt", "--caption"),
        ("--length", "--duration"),
        ("--output-dir", "--output"),
        ("--num-steps", "--steps"),
        ("--num_inference_steps", "--steps"),
        ("--cfg", "--guidance"),
        ("--guidance-scale", "--guidance"),
        ("--batch-size", "--takes"),
        ("--gpu", "--device"),
        ("--overwrite", "--force"),
        ("--durration", "--duration"),
        ("--bmp", "--bpm"),
        ("--instrumentl", "--instrumental"),
    ],
)
def test_a_flag_of_another_program_leads_to_that_of_this_one(typed: str, meant: str) -> None:
    assert f"No such option: {typed} (Possible options: {meant})" in said("generate", typed, "1")


@pytest.mark.parametrize("typed", ["--from", "--forc", "--forces", "--pul", "--to", "--length-penalty", "--duration"])
def test_what_means_nothing_here_suggests_nothing(typed: str) -> None:
    command = "show" if typed == "--duration" else "generate"
    assert said(command, typed, "1").endswith(f"No such option: {typed} ╰{'─' * 78}╯")


def test_a_name_without_a_flag_is_told_the_other_way() -> None:
    assert "the voice is said in the caption" in said("generate", "--voice", "female")
    assert "--lora my-sound/@80%" in said("generate", "--lora-scale", "0.8")


def test_play_is_not_replay() -> None:
    sentence = said("play", "song.flac")
    assert "acestep listen takes/" in sentence
    assert "replay" not in sentence
