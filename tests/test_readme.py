"""The README: its commands run, its spec loads, its tables and its tree are true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from acestep_cli import errors
from acestep_cli.albums import album
from acestep_cli.audio import encode
from acestep_cli.cli import exit_codes
from acestep_cli.models import checkpoints
from acestep_cli.render.result import INTERRUPTED, TERMINATED
from acestep_cli.song import examples, spec
from support import tiny
from support.places import BAND, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if "acestep " in line]


@pytest.mark.skipif(sys.platform == "win32", reason="the lines are written for sh")
def test_every_command_runs(two_b: tiny.Oracle, tmp_path: Path) -> None:
    """With the stand-in of band.py for a pipeline, and tiny checkpoints where the real ones would lie."""
    assert len(COMMANDS) > 4
    (tmp_path / "songs").symlink_to(ROOT / "songs")
    (tmp_path / "ace").mkdir()
    (tmp_path / "ace" / "checkpoints").symlink_to(two_b.root)
    (tmp_path / "words.txt").write_text("[Verse]\nla\n")
    script = ["set -eu", f"acestep() {{ '{sys.executable}' '{BAND}' \"$@\"; }}", *COMMANDS]
    run = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "ACESTEP_MODELS_DIR": str(two_b.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    paths = [line for line in run.stdout.splitlines() if line.rpartition(".")[2] in encode.FORMATS]
    assert len(paths) >= len(examples.example_files()) + 8
    planned = [path for path in paths if not (tmp_path / path).is_file()]
    assert sorted(planned) == ["ballad.mp3", "night-drive-1.flac"]  # of the dry runs
    for made in ("song.yaml", "ballad.yaml"):
        assert spec.load(tmp_path / made).caption
    assert json.loads((tmp_path / "song.schema.json").read_text())
    assert soundfile.info(tmp_path / "ballad.wav").frames == 10 * 48_000


def test_the_spec_loads(tmp_path: Path) -> None:
    text, whole = [text for kind, text in BLOCKS if kind == "yaml"]
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    assert spec.load(tmp_path / "a.yaml").language == "en"
    (tmp_path / "harbour.yaml").write_text(whole, encoding="utf-8")
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "low-water.md").write_text("[Verse]\nla\n", encoding="utf-8")
    ids = [track.id for track in album.read_album(tmp_path / "harbour.yaml").tracks]
    assert ids == ["low-water", "slack-water", "undertow", "sweep-8-1", "sweep-8-2", "sweep-16-1"]


def test_every_song_loads_and_opens_with_the_command_that_plays_it() -> None:
    songs = examples.example_files().values()
    assert len(songs) >= 10
    for song in songs:
        assert spec.load(song).model is None  # so that it plays on any machine
        first = song.read_text(encoding="utf-8").removeprefix("---\n").splitlines()[0]
        assert first == f"# acestep generate songs/{song.name} -o {song.stem}.flac"


def test_the_tables_are_the_program_s() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    import readme

    assert set(re.findall(r"^<!-- table: (\w+) -->$", README, re.MULTILINE)) == set(readme.TABLES)
    assert readme.rewritten(README) == README, "python tools/readme.py"


def test_the_exit_codes_are_those_of_the_program() -> None:
    kinds = [errors.AceStepError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.exit_code for kind in kinds} | {0, INTERRUPTED, TERMINATED} == set(exit_codes.EXIT_CODES)


def test_the_models_are_those_of_the_table() -> None:
    [table] = re.findall(r"^\| `--model` .*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`([\w-]+)`", table.replace("`--model`", "").replace("`--guidance`", "")) == list(
        checkpoints.CHECKPOINTS
    )


def test_the_tree_is_that_of_the_sources() -> None:
    [tree] = [text for _, text in BLOCKS if text.startswith("src/acestep_cli/\n")]
    named = set(re.findall(r"^  (\S+)", tree, re.MULTILINE))
    there = {path.name + "/" * path.is_dir() for path in (ROOT / "src" / "acestep_cli").iterdir()}
    assert named == there - {"__init__.py", "__main__.py", "__pycache__/"}
    assert all((ROOT / name).is_dir() for name in re.findall(r"^(\w\S+)/ ", tree, re.MULTILINE))
