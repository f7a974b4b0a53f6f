"""README.md and docs/: their commands run, their specs load, their tables, links, flags and names are true."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import soundfile
import typer
from typer.testing import CliRunner

from acestep_cli import errors
from acestep_cli.albums import album, track_items
from acestep_cli.cli import exit_codes
from acestep_cli.cli.app import app
from acestep_cli.render.result import INTERRUPTED, TERMINATED
from acestep_cli.song import examples, spec
from support import band, pages, tiny
from support.command import LONG_LIMIT, finish
from support.pages import Command
from support.places import BAND, RESULT_SCHEMA, ROOT

LARGEST_README = 9_000
NAMES = [str(page.relative_to(ROOT)) for page in pages.PAGES]
COMMANDS = {page: pages.commands(page) for page in pages.PAGES}
WITH_COMMANDS = [page for page, found in COMMANDS.items() if found]
#: What a command may say that it needs. Those of TURBO run on a tiny checkpoint, those of MINUTES in `make test-all`;
#: of the others only the flags are checked.
TURBO, MINUTES = "turbo", "minutes"
ELSEWHERE = {
    "a network",
    "a terminal",
    "a cluster",
    "two cards",
    "a run that was stopped",
    "jazz.safetensors",
    "a and b",
    "the real turbo",
}
#: Lines that only a shell can run.
SHELL = re.compile(r"[|><$]|&&")
#: What the stand-in for the pipeline cannot do: these run with the pipeline itself.
WRITTEN = re.compile(r"acestep (write|describe)|--idea|--songwriter|acestep doctor --selftest|--lrc|--rank")
#: Flags of other programs that the pages name.
OTHER_FLAGS = {"--head", "--address", "--num-cpus", "--num_processes"}

for_sh = pytest.mark.skipif(sys.platform == "win32", reason="the lines are written for sh")


def page_ids(page: Path) -> str:
    return page.name


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a fresh checkout has for songs, as the current one, and nothing installed."""
    home = tmp_path / "home"
    home.mkdir()
    here = tmp_path / "acestep"
    here.mkdir()
    for name in ("songs", "examples"):
        shutil.copytree(ROOT / name, here / name)
    for name in ("ACESTEP_MODELS_DIR", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in {"HOME": home, "HF_HOME": home / "hf"}.items():
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hf" / "hub"))
    monkeypatch.chdir(here)
    return here


@pytest.fixture(scope="module")
def tiny_turbo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints, with one whose config names heads that it has."""
    root = tmp_path_factory.mktemp("turbo") / "models"
    tiny.build(root, {**tiny.TWO_B, "lyric_alignment_layers_config": {"2": [1]}})
    return root


@pytest.fixture
def turbo(tiny_turbo: Path, checkout: Path) -> Path:
    """The same, where `~/ace/checkpoints` names it, too."""
    there = Path.home() / "ace" / "checkpoints"
    there.parent.mkdir()
    there.symlink_to(tiny_turbo)
    return there


def arguments(text: str) -> list[str]:
    """The words of a command line after `acestep`, with patterns for files and ~ filled in."""
    words: list[str] = []
    for word in shlex.split(text)[1:]:
        word = os.path.expanduser(word)  # noqa: PTH111 - only where it begins a word
        pattern = re.search(r"[*?]", word) and " " not in word
        words += sorted(str(path) for path in Path().glob(word)) if pattern else [word]
    return words


def write_files(page: Path, folder: Path) -> dict[str, str]:
    """Write the files that a page spells out into a folder, and return them."""
    files = pages.files(page)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return files


def run_here(command: Command) -> None:
    """Run a command in this process, or where it asks for a shell, in one."""
    if SHELL.search(command.text):
        program = f"acestep() {{ '{sys.executable}' '{BAND}' \"$@\"; }}"
        run = finish(["bash", "-c", f"set -eu\n{program}\n{command.text}"], text=True)
        assert run.returncode == 0, f"{command}\n{run.stderr}"
        return
    result = CliRunner().invoke(app, arguments(command.text), catch_exceptions=False)
    assert result.exit_code == 0, f"{command}\n{result.output}"


@for_sh
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=page_ids)
def test_every_command_runs(
    page: Path, checkout: Path, turbo: Path, monkeypatch: pytest.MonkeyPatch, followed: None
) -> None:
    """In the order of the page, with the stand-in for the pipeline wherever that can play."""
    write_files(page, checkout)
    for command in COMMANDS[page]:
        with monkeypatch.context() as patched:
            if command.needs == TURBO:
                patched.setenv("ACESTEP_MODELS_DIR", str(turbo))
            elif command.needs is not None:
                continue
            if not WRITTEN.search(command.text):
                patched.setitem(sys.modules, "acestep_cli.pipeline", band.module())
            run_here(command)


@for_sh
@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=page_ids)
def test_every_command_runs_for_real(page: Path, checkout: Path, tmp_path: Path) -> None:
    """With the built-in model, one process each, as it is typed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    acestep = programs / "acestep"
    acestep.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m acestep_cli \"$@\"\n")
    acestep.chmod(0o755)
    environment = {**os.environ, "PATH": os.pathsep.join([str(programs), os.environ["PATH"]])}
    write_files(page, checkout)
    for command in COMMANDS[page]:
        if command.needs in (None, MINUTES):
            words = ["bash", "-euo", "pipefail", "-c", command.text]
            run = finish(words, env=environment, text=True, timeout=LONG_LIMIT)
            assert run.returncode == 0, f"{command}\n{run.stderr}"
    for made in checkout.glob("*.flac"):
        assert soundfile.info(os.fsencode(made)).duration >= 3  # a name may hold bytes that are not UTF-8


@for_sh
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_the_album_of_the_readme_is_made_by_make(checkout: Path) -> None:
    write_files(pages.README, checkout)
    [block] = [block for block in pages.blocks(pages.README) if "make -C my-album" in block.text]
    program = checkout / "acestep"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{BAND}' \"$@\"\n")
    program.chmod(0o755)
    shell = ["bash", "-euc", f"{block.text}find my-album/out -name '*.mp3'\n"]
    environment = {**os.environ, "ACESTEP": str(program)}
    first = finish(shell, env=environment, text=True)
    assert first.returncode == 0, first.stderr
    made = sorted(first.stdout.splitlines()[-2:])
    assert made == ["my-album/out/01 Dawn.mp3", "my-album/out/02 Night Drive.mp3"]
    lengths = [round(soundfile.info(file).duration) for file in made]
    assert lengths == [20, 32]  # the default holds where a song has none
    again = finish(shell, env=environment, text=True)
    assert "Nothing to be done" in again.stdout


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no checkout of git")
def test_git_ignores_what_the_pages_make() -> None:
    """So that somebody who follows them in a clone keeps a clean status."""
    named = re.compile(r"(?:-o|--output|--junit|>) ([\w.][\w./-]*)(?= |$)")
    made = {name for found in COMMANDS.values() for command in found for name in named.findall(command.text)}
    made |= {name for page in pages.PAGES for name in pages.files(page)}
    assert len(made) > 50
    asked = "\n".join(name if "." in name else f"{name.rstrip('/')}/a" for name in sorted(made))  # else a folder
    run = finish(["git", "check-ignore", "--no-index", "--stdin"], cwd=ROOT, input=asked, text=True)
    assert set(asked.splitlines()) - set(run.stdout.splitlines()) == set()


def test_what_a_command_needs_is_known() -> None:
    needs = {command.needs for found in COMMANDS.values() for command in found}
    assert needs - {None, TURBO, MINUTES} <= ELSEWHERE


@pytest.mark.parametrize("page", pages.PAGES, ids=page_ids)
def test_commands_stand_where_they_are_run(page: Path) -> None:
    """In `sh` blocks, a line each; the exception are lines for other programs."""
    for block in pages.blocks(page):
        lines = [line for line in block.text.splitlines() if line.startswith("acestep ")]
        assert not lines or block.language == "sh", f"{page.name}:{block.line}: {lines[0]}"


def parameters(command: Any, context: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command below one, with its path as it is typed."""
    yield path, command
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        _, inner, _ = command.resolve_command(context, [name])
        inner_context = typer.Context(inner, parent=context, info_name=name)
        yield from parameters(inner, inner_context, f"{path} {name}".strip())


@pytest.fixture(scope="module")
def live() -> dict[str, set[str]]:
    """The flags of every command of the program, by its path."""
    root = typer.main.get_command(app)
    found = {}
    for path, command in parameters(root, typer.Context(root, info_name="acestep"), ""):
        opts = {opt for parameter in command.params for opt in (*parameter.opts, *parameter.secondary_opts)}
        found[path] = {opt for opt in opts if opt.startswith("-")} | {"--help", "--help-all", "-h"}
    return found


def command_path(words: list[str], live: dict[str, set[str]]) -> str:
    path = ""
    for word in words:
        if f"{path} {word}".strip() not in live:
            break
        path = f"{path} {word}".strip()
    return path


@pytest.mark.parametrize("page", pages.PAGES, ids=page_ids)
def test_every_flag_is_one_of_its_command(page: Path, live: dict[str, set[str]]) -> None:
    """Of commands that run, and of those that only somebody with a network, a cluster or time can run."""
    for command in COMMANDS[page]:
        for part in re.split(r"[|><]|&&", command.text):
            if "acestep " in part:
                words = shlex.split(part[part.index("acestep ") :].rstrip(" )"), posix=False)[1:]
                path = command_path(words, live)
                assert path or words[0].startswith("-"), command
                flags = {word.split("=")[0] for word in words if re.match(r"-[a-z-]", word)}
                assert flags <= live[path], f"{command}: {flags - live[path]}"


@pytest.mark.parametrize("page", pages.PAGES, ids=page_ids)
def test_every_flag_and_command_that_is_named_exists(page: Path, live: dict[str, set[str]]) -> None:
    flags = set().union(*live.values()) | OTHER_FLAGS
    for code in re.findall(r"`([^`]+)`", pages.prose(page)):
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", code))
        assert named <= flags, f"{page.name}: `{code}`"
        if found := re.match(r"acestep ([a-z][a-z-]*)", code):
            assert found[1] in live, f"{page.name}: `{code}`"


@pytest.mark.parametrize("page", pages.PAGES, ids=page_ids)
def test_every_file_that_is_named_exists(page: Path) -> None:
    """Files of this repository: below a folder of it, or of the package."""
    for code in re.findall(r"`([\w./-]+/[\w.-]*)`", pages.prose(page)):
        first = code.split("/")[0]
        homes = [home for home in (ROOT, ROOT / "src" / "acestep_cli") if first and (home / first).is_dir()]
        assert not homes or any((home / code).exists() for home in homes), f"{page.name}: `{code}`"


@pytest.mark.parametrize("page", pages.LINKING, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in pages.links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert there.is_relative_to(ROOT), f"{page.name}: {target}"
        assert not anchor or anchor in pages.anchors(there), f"{page.name}: {target}"


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {target.partition("#")[0] for target in pages.links(pages.README)}
    assert {f"docs/{page.name}" for page in pages.PAGES if page != pages.README} <= linked


def test_the_readme_is_two_screens_and_a_page_begins_with_a_command() -> None:
    assert len(pages.README.read_bytes()) <= LARGEST_README
    for page in set(pages.PAGES) - {pages.README, ROOT / "docs" / "specification.md"}:
        first = pages.text_of(page).splitlines()[:12]
        assert any(line in ("```sh", "```") for line in first), page.name
        assert COMMANDS[page], page.name


def test_the_picture_is_of_the_program() -> None:
    """An image that loads nothing from elsewhere, of commands that there are."""
    text = (ROOT / "docs" / "terminal.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert len(text) < 64_000
    assert "url(http" not in text
    assert "https://cdn" not in text
    assert "acestep&#160;show&#160;night-drive.flac" in text


def test_the_specs_load(checkout: Path) -> None:
    for page in pages.PAGES:
        for name, text in write_files(page, checkout).items():
            if "tracks:" not in text:
                assert spec.load(checkout / name).caption, name
    ids = [track.id for track in album.read_album(checkout / "harbour.yaml").tracks]
    sweeps = ["sweep-8-1", "sweep-8-2", "sweep-16-1"]
    assert ids == ["old-orchard", "low-water", "slack-water", "undertow", "low-water-b", *sweeps]


def test_every_song_loads_and_opens_with_the_command_that_plays_it() -> None:
    songs = examples.example_files().values()
    assert len(songs) >= 10
    for song in songs:
        assert spec.load(song).model is None  # so that it plays on any machine
        first = song.read_text(encoding="utf-8").removeprefix("---\n").splitlines()[0]
        assert first == f"# acestep generate songs/{song.name} -o {song.stem}.flac"


def test_the_tables_are_the_program_s() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    import docs

    used = [name for page in pages.PAGES for name in re.findall(r"^<!-- table: (\w+) -->$", pages.text_of(page), re.M)]
    assert set(used) == set(docs.TABLES)
    for page in pages.PAGES:
        assert docs.rewritten(pages.text_of(page)) == pages.text_of(page), f"{page.name}: python tools/docs.py"


def first_column(page: str, heading: str) -> list[str]:
    """The code in the first column of the table that begins with this heading."""
    [table] = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", pages.text_of(ROOT / "docs" / page), re.M)
    return [name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_edits_are_those_of_albums() -> None:
    assert first_column("albums.md", "edit") == list(track_items.EDITS)


def test_the_variables_are_those_of_the_sources() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    named = first_column("scripting.md", "variable")
    assert {name for name in named if name.startswith("ACESTEP_")} == {
        f"ACESTEP_{name}" for name in ("MODELS_DIR", "CACHE_DIR", "CACHE_LIMIT")
    }
    assert all(name in sources for name in named if name.startswith(("ACESTEP_", "OMP_")))


def test_the_fields_are_those_of_the_schema() -> None:
    output = RESULT_SCHEMA["definitions"]["output"]["properties"]
    assert sorted(first_column("scripting.md", "field")) == sorted(output)


def test_make_demo_names_commands_that_there_are(live: dict[str, set[str]]) -> None:
    """What it says in the end, besides the render itself."""
    said = re.findall(r"^\t  '(.*)'", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    lines = [line for text in said for line in re.findall(r"acestep [^,]*|docs/[^,]*", text)]
    assert len(lines) == 5
    for line in lines:
        words = line.split()
        path = command_path(words[1:], live)
        assert path or (ROOT / line).exists(), line
        assert {word for word in words if word.startswith("-")} <= live[path], line


def test_the_exit_codes_are_those_of_the_program() -> None:
    kinds = [errors.AceStepError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.exit_code for kind in kinds} | {0, INTERRUPTED, TERMINATED} == set(exit_codes.EXIT_CODES)
    spoken = re.findall(r"exit code (\d+)", "".join(map(pages.text_of, pages.PAGES)))
    assert set(map(int, spoken)) <= set(exit_codes.EXIT_CODES)


def test_the_tree_is_that_of_the_sources() -> None:
    found = pages.blocks(ROOT / "docs" / "architecture.md")
    [tree] = [block.text for block in found if block.text.startswith("src/acestep_cli/\n")]
    named = set(re.findall(r"^  (\S+)", tree, re.MULTILINE))
    there = {path.name + "/" * path.is_dir() for path in (ROOT / "src" / "acestep_cli").iterdir()}
    assert named == there - {"__init__.py", "__main__.py", "__pycache__/"}
    assert all((ROOT / name).is_dir() for name in re.findall(r"^(\w\S+)/ ", tree, re.MULTILINE))
