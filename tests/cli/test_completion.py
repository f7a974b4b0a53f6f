"""What a TAB offers, and the scripts that make a shell ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from acestep_cli.audio import encode
from acestep_cli.cli import options
from acestep_cli.cli.app import COMMANDS, app
from acestep_cli.machine import hardware
from acestep_cli.models import checkpoint_table
from acestep_cli.song import examples, musical_values, spec_keys, values
from support.command import finish, loaded
from support.places import ROOT
from support.terminal import at_terminal

sys.path.insert(0, str(ROOT / "tools"))
import completions


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tab(line: str) -> list[str]:
    """What is offered for the last word of a line, as a bash asks for it."""
    asked = {"_ACESTEP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    run = CliRunner().invoke(app, env=asked, prog_name="acestep", catch_exceptions=False)
    assert run.exit_code == 0, run.stderr
    assert run.stderr == ""
    return run.stdout.split()


def test_the_scripts_are_those_of_the_program() -> None:
    assert {path.name for path in completions.FOLDER.iterdir()} == set(completions.FILES.values())
    for shell, name in completions.FILES.items():
        text = (completions.FOLDER / name).read_text(encoding="utf-8")
        assert text == completions.script(shell), "python tools/completions.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str) -> None:
    assert name in tab(f"acestep {name[:2]}")


def test_flags() -> None:
    assert tab("acestep generate --sol") == ["--solver"]
    assert "--pull" in tab("acestep render --")
    assert "--solver" not in tab("acestep generate --solver euler --")  # once is enough
    assert tab("acestep models pull --song") == ["--songwriter"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("acestep generate --model ", checkpoint_table.MODEL_CHOICES),
        ("acestep generate -m xl", ("xl-turbo", "xl-sft", "xl-base")),
        ("acestep models pull turbo-", ("turbo-shift1", "turbo-shift3", "turbo-continuous")),
        ("acestep models verify s", ("sft",)),
        ("acestep doctor --selftest b", ("base",)),
        ("acestep models path ", (*checkpoint_table.CHECKPOINTS, *checkpoint_table.SONGWRITERS)),
        ("acestep models pull turbo --songwriter ", tuple(checkpoint_table.SONGWRITERS)),
        ("acestep render --format ", tuple(encode.FORMATS)),
        ("acestep generate --key F#", ("F#minor", "F#major")),
        ("acestep generate --language n", ("ne", "nl", "no")),
        ("acestep generate --language Nor", ("Norwegian",)),
        ("acestep generate --time-signature 3", ("3/4",)),
        ("acestep generate --device c", ("cuda", "cpu")),
        ("acestep generate --set ti", ("time_signature=", "timesteps=", "title=")),
        ("acestep examples show night", ("night-drive-acoustic", "night-drive")),
        ("acestep spec new ba", ("ballad",)),
        ("acestep examples show ", tuple(examples.example_files())),
        ("acestep generate --bpm ", ()),
    ],
)
def test_words(line: str, offered: tuple[str, ...]) -> None:
    assert tab(line) == list(offered)


def test_what_is_offered_is_taken() -> None:
    for name, key in spec_keys.KEYS.items():
        for word in key.kind.words:
            key.kind.read(word)
            if key.flag and not isinstance(key.kind, values.Switch):  # whose words a flag does without
                assert word in tab(f"acestep render {spec_keys.flag_of(name)} {word[0]}")


def test_every_key_has_words_that_need_no_quotes() -> None:
    assert len(musical_values.MusicalKey().words) == 42
    assert musical_values.MusicalKey().read("F#minor") == "F# minor"
    assert not any(" " in word for key in spec_keys.KEYS.values() for word in key.kind.words)


@pytest.mark.parametrize("command", ["generate", "render", "spec check", "spec show"])
def test_specs(command: str) -> None:
    for name in ("song.yaml", "song.md", "song.flac.yaml", "song.flac", "other.yml", ".hidden.yaml"):
        Path(name).touch()
    assert tab(f"acestep {command} so") == ["song.flac.yaml", "song.md", "song.yaml"]
    assert tab(f"acestep {command} ") == ["other.yml", "song.flac.yaml", "song.md", "song.yaml"]
    assert tab(f"acestep {command} nowhere/") == []
    Path("songs").mkdir()
    Path("songs/a.yaml").touch()
    assert tab(f"acestep {command} so") == []  # the shell itself shows folders, and goes down into them
    assert tab(f"acestep {command} songs/") == ["songs/a.yaml"]
    assert tab(f"acestep {command} song.y") == ["song.yaml"]
    if command in ("generate", "render"):
        assert tab(f"acestep {command} song.yaml songs/a") == ["songs/a.yaml"]


def test_keys_behind_set_and_matrix_are_those_of_the_mode() -> None:
    of_all = {"solver=", "songwriter=", "songwriter_seed="}
    for flag in ("--set", "--matrix"):
        assert {*tab(f"acestep generate {flag} so")} == of_all
        assert {*tab(f"acestep cover song.flac {flag} so")} == of_all | {"source="}
        assert tab(f"acestep generate {flag} repaint") == []
        assert "repaint_mode=" in tab(f"acestep render {flag} repaint")


def test_zsh_fish_and_powershell_ask_in_their_own_ways() -> None:
    def asked(shell: str, **more: str) -> str:
        environment = {
            "_ACESTEP_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": "acestep generate -m sf",
            **more,
        }
        return CliRunner().invoke(app, env=environment, prog_name="acestep", catch_exceptions=False).stdout.strip()

    assert asked("zsh") == """_arguments '*: :(("sft"))'"""
    assert asked("fish", _TYPER_COMPLETE_FISH_ACTION="get-args") == "sft"
    assert asked("powershell", _TYPER_COMPLETE_WORD_TO_COMPLETE="sf") == "sft:::"


def shell_environment() -> dict[str, str]:
    """An environment in which `acestep` is this program."""
    Path("acestep").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m acestep_cli "$@"\n')
    Path("acestep").chmod(0o755)
    return os.environ | {"PATH": f"{Path.cwd()}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb", "COLUMNS": "80"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_in_a_true_bash() -> None:
    """The script as it lies in completions/, in a shell that knows `acestep`."""
    lines = [
        f'source "{completions.FOLDER / "acestep.bash"}"',
        "COMP_WORDS=(acestep generate --key B); COMP_CWORD=3",
        '_acestep_completion acestep; printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    environment = shell_environment()
    run = finish(["bash", "-c", "\n".join(lines)], env=environment, text=True, check=True)
    assert run.stdout.splitlines() == [f"B{sign}{mode}" for sign in ("", "#", "b") for mode in ("minor", "major")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("acestep gen", [f"generate\t{COMMANDS['generate']}"]),
        ("acestep generate -m sf", ["sft"]),
        ("acestep generate --key B", [f"B{sign}{mode}" for sign in ("", "#", "b") for mode in ("minor", "major")]),
        ("acestep generate so", ["song.yaml"]),
        ("acestep cover ta", ["take.flac"]),  # any file: the shell's own
    ],
)
def test_in_a_true_fish(line: str, offered: list[str]) -> None:
    for name in ("take.flac", "song.yaml", "song.flac"):
        Path(name).touch()
    run = finish(
        ["fish", "--no-config", "-c", f"source '{completions.FOLDER / 'acestep.fish'}'; complete -C '{line}'"],
        env=shell_environment() | {"HOME": str(Path.cwd())},
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=True,
    )
    assert sorted(run.stdout.splitlines()) == sorted(offered)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
def test_in_a_true_zsh() -> None:
    """With the script on `fpath`, as a package puts it there: the first TAB of a shell already completes."""
    Path("take.flac").touch()
    Path("song.yaml").touch()
    start = f"fpath=('{completions.FOLDER}' $fpath); autoload -Uz compinit; compinit -D -u"
    with at_terminal(["zsh", "-f", "-i"], env=shell_environment() | {"PS1": "> "}) as terminal:
        for keys, answer in (
            (f"{start}; print -r re''ady\n", "ready"),
            ("acestep generate --solver h\t", "heun"),
            ("\x15acestep gen\t", "generate"),
            ("\x15acestep generate so\t", "song.yaml"),
            ("\x15acestep cover ta\t", "take.flac"),
        ):
            terminal.shown = b""
            terminal.type(keys)
            terminal.expect(answer)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
@pytest.mark.parametrize("way", ["install", "eval"])
def test_in_a_zsh_that_was_taught_by_the_program(way: str) -> None:
    """By `--install-completion`, or an `eval` of `--show-completion` before anything else: the first TAB completes."""
    home = Path("home")
    home.mkdir()
    environment = shell_environment() | {"HOME": str(home.absolute()), "PS1": "> ", "SHELL": "/bin/zsh"}
    named = environment | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    if way == "install":
        finish(["acestep", "--install-completion", "zsh"], env=named, text=True, check=True)
    else:
        script = finish(["acestep", "--show-completion", "zsh"], env=named, text=True, check=True).stdout
        Path("script.zsh").write_text(script)
        (home / ".zshrc").write_text('eval "$(cat script.zsh)"\n')
    with at_terminal(["zsh", "-i"], env=environment | {"ZDOTDIR": str(home.absolute())}) as terminal:
        for keys, answer in (
            ("print -r re''ady\n", "ready"),
            ("acestep generate --solver h\t", "heun"),
            ("\x15acestep gen\t", "generate"),
        ):
            terminal.shown = b""
            terminal.type(keys)
            terminal.expect(answer)
        assert "command not found" not in terminal.shown.decode()


def test_an_empty_question_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PowerShell leaves the variable empty behind it, and then runs the command."""
    monkeypatch.setenv("_ACESTEP_COMPLETE", "")
    code, _ = loaded("generate", "-c", "x", "--device", "tpu", "-m", "pocket")
    assert code == 2


def test_completing_changes_nothing_for_commands_after_it() -> None:
    tab("acestep generate --model t")
    run = CliRunner().invoke(app, ["generate", "--progress", "loud"], prog_name="acestep")
    assert run.exit_code == 2
    assert "is not one of auto, plain, none" in run.stderr


def test_a_tab_loads_little(monkeypatch: pytest.MonkeyPatch) -> None:
    dear = ("torch", "transformers", "huggingface_hub", "numpy", "soundfile", "yaml", "rich", "pydantic")
    asked = {"_ACESTEP_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    for line, allowed in {
        "acestep generate --model t": ["pydantic"],
        "acestep render . so": ["pydantic"],
        "acestep models pull t": [],
        "acestep examples show n": [],
    }.items():
        for name, value in (asked | {"COMP_WORDS": line}).items():
            monkeypatch.setenv(name, value)
        assert loaded(watched=dear) == (0, allowed)


def test_what_is_repeated_for_that_is_the_same() -> None:
    dtypes = [short for short, full in hardware.DTYPES.items() if short != full]
    assert (*dtypes, hardware.INT8) == options.DTYPES
