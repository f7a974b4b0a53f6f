"""The house rules: imports go one way, and nothing cold waits for torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny

import acestep_cli

SOURCE = Path(acestep_cli.__file__).parent
#: Each room may import those after it.
ROOMS = [
    {"__main__"},
    {"cli"},
    {"selftest", "training"},
    {"pipeline"},
    {"engine"},
    {"workbench"},
    {"dataset"},
    {"companions"},
    {"album", "schema", "songbook", "spectra"},
    {"tracks"},
    {"scores", "sections", "spec", "writing"},
    {"completing"},
    {"contradictions"},
    {"lengths"},
    {"modes"},
    {"logbook"},
    {"workload"},
    {"course", "planning"},
    {"memory"},
    {"adapters"},
    {"prompts"},
    {"remarks"},
    {"captions"},
    {"lyrics"},
    {"regions", "template"},
    {"request"},
    {"kinds"},
    {"hub"},
    {"shelf"},
    {"sizes", "latents"},
    {"meters", "pictures", "tensorfile"},
    {"recordings"},
    {"formats"},
    {"levels"},
    {"audio", "cache", "solvers", "checkpoints", "curve", "document", "syllables", "hardware"},
    {"disk", "tags", "team", "weightfiles"},
    {"lrc", "progress"},
    {"errors"},
    {"__init__"},
]
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "acestep_cli":
            found |= {name.name if name.name in RANK else "__init__" for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("acestep_cli."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.add("relative")  # there are none: every import is spelt out
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("acestep_cli.")}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    here = room(path)
    assert here in RANK, f"say in test_cold.py where the room {here} stands"
    for there in imported_rooms(path) - {here}:
        assert RANK[there] > RANK[here], f"{here} imports {there}"


LOADED_AFTER = """
import sys
from acestep_cli.cli.app import main
try:
    main()
finally:
    print("loaded:", *(name for name in WATCHED if name in sys.modules), file=sys.stderr)
"""
HOT = ("torch", "transformers", "diffusers", "peft")


def loaded(*arguments: str, watched: tuple[str, ...] = HOT) -> tuple[int, list[str]]:
    """The exit code of `acestep …`, and which of the watched modules it had imported by its end."""
    program = f"WATCHED = {watched!r}\n{LOADED_AFTER}"
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    return run.returncode, run.stderr.splitlines()[-1].split()[1:]


def test_help_and_version_load_next_to_nothing() -> None:
    for words in (["--help"], ["--version"]):
        assert loaded(*words, watched=(*HOT, "numpy", "soundfile", "yaml", "pydantic", "acestep_cli.song.request")) == (
            0,
            [],
        )


def test_a_command_s_help_loads_no_torch() -> None:
    assert loaded("generate", "--help", watched=(*HOT, "mutagen", "numpy", "soundfile")) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--bpm", "20"], 2),
        (["nowhere.yaml"], 2),
        ([], 2),
        (["--guidance", "7"], 2),
        (["--device", "tpu"], 2),
        (["-d", "4"], 2),
        (["-c", "x", "-m", "sft"], 3),
        (["-c", "x", "--lora", "nowhere"], 3),
        (["-c", "x", "--lora", "sound@loud@"], 3),
        (["-c", "x", "--lora-mode", "blend"], 2),
        (["-c", "x", "-o", "no/x.wav"], 9),
    ],
    ids=str,
)
def test_refusals_load_no_torch(two_b: tiny.Oracle, arguments: list[str], code: int) -> None:
    caption = ["-c", "x"] if arguments else []
    flags = ["--models-dir", str(two_b.root), "-m", "turbo", *caption, *arguments]
    assert loaded("generate", *flags) == (code, [])


@pytest.mark.parametrize("words", [["check", "a.wav"], ["show", "a.wav"], ["listen", "."]], ids=str)
def test_what_looks_at_finished_takes_loads_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.sin(np.arange(48_000))[:, None] / 2, 48_000)
    assert loaded(*words, watched=(*HOT, "librosa")) == (0, [])


def test_a_replay_that_cannot_be_is_refused_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.sin(np.arange(48_000))[:, None] / 2, 48_000)
    assert loaded("replay", "a.wav") == (5, [])
