"""What users copy: the songs, the batch script and the workflow. Run with the stand-in of band.py for a pipeline."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from acestep_cli.song import spec
from support import tiny
from support.command import LIMIT, LONG_LIMIT, finish, started, until
from support.places import BAND, ROOT

BATCH = ROOT / "examples" / "batch.sh"
SMOKE = ROOT / "examples" / "smoke.yml"

ONE = "caption: a song\ninstrumental: true\nduration: 10\nseed: 1\n"
TWO = "---\ncaption: another\nduration: 10\nseed: 2\n---\n\n[Verse]\nla la la\n"

for_sh = pytest.mark.skipif(sys.platform == "win32", reason="the examples are written for sh")


@pytest.fixture
def machine(two_b: tiny.Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, `acestep` on the PATH with the band for its pipeline, and tiny models installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    acestep = programs / "acestep"
    acestep.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{BAND}' \"$@\"\n")
    acestep.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ACESTEP", raising=False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def folder(machine: Path) -> Path:
    """Two songs, and what lies beside songs without being one."""
    folder = machine / "my songs"
    folder.mkdir()
    (folder / "one.yaml").write_text(ONE)
    (folder / "two.md").write_text(TWO)
    (folder / "README.md").write_text("# My songs\n")
    return folder


@for_sh
@pytest.mark.slow
def test_the_musician_s_script_goes_from_a_spec_to_a_project(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pocket, and again: what is there is kept."""
    program = machine.parent / "pocket"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m acestep_cli \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("ACESTEP", str(program))
    Path("a.yaml").write_text("caption: techno, drum machine\nlyrics: |\n  [Verse]\n  la la\nduration: 6\nbpm: 120\n")
    Path("words.txt").write_text("[Verse]\nlo lo\n")
    script = [str(ROOT / "examples" / "musician.sh"), "a.yaml", "words.txt", "out", "-m", "pocket", "--set", "steps=2"]
    made = finish(script, text=True, timeout=LONG_LIMIT)
    assert made.returncode == 0, made.stderr
    assert len(audio_in(Path("out/rolls"))) == 4
    assert len(audio_in(Path("out/neighbours"))) == 2
    edited, longer = (spec.load(Path(f"out/{name}.flac.yaml")) for name in ("new-words", "longer"))
    assert (edited.mode, edited.lyrics, edited.from_lyrics) == ("edit", "[Verse]\nlo lo\n", "[Verse]\nla la\n")
    assert (longer.mode, longer.end, longer.context) == ("repaint", 14, 20)
    assert all(Path(path).is_file() for path in made.stdout.split("\n") if path)
    before = audio_in(Path("out"))
    assert finish(script, text=True, timeout=LONG_LIMIT).returncode == 0
    assert audio_in(Path("out")) == before


def batch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return finish([str(BATCH), *arguments], text=True)


def audio_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.flac")}


# The songs


def songs() -> list[Path]:
    return sorted(path for path in (ROOT / "songs").iterdir() if path.suffix in (".yaml", ".md"))


@pytest.mark.parametrize("song", songs(), ids=lambda song: song.name)
def test_a_song_opens_with_the_command_that_plays_it(song: Path) -> None:
    text = song.read_text(encoding="utf-8").removeprefix("---\n" if song.suffix == ".md" else "")
    assert text.splitlines()[0] == f"# acestep generate songs/{song.name} -o {song.stem}.flac"


@pytest.mark.parametrize("song", songs(), ids=lambda song: song.name)
def test_a_song_plays_on_any_machine_in_a_moment(song: Path) -> None:
    request = spec.load(song)
    asked = set(request.model_dump(exclude_none=True))
    keys = {"caption", "lyrics", "instrumental", "language", "bpm", "key", "time_signature", "duration", "title"}
    assert asked <= keys | {"seed"}
    assert request.title
    assert 60 <= request.bpm <= 180  # what the built-in model knows
    assert 20 <= request.duration <= 90


def test_the_songs_show_what_a_spec_can_say() -> None:
    requests = {song.name: spec.load(song) for song in songs()}
    assert len({request.language for request in requests.values()} - {None}) >= 6
    assert {request.time_signature for request in requests.values()} >= {"3/4", "4/4", "6/8"}
    assert any(request.instrumental for request in requests.values())
    assert any("extends: " in song.read_text(encoding="utf-8") for song in songs())
    assert "ballad.yaml" in requests
    assert any(song.endswith(".md") for song in requests)


# The script


@for_sh
def test_the_batch_renders_a_folder_and_then_has_nothing_to_do(folder: Path) -> None:
    first = batch("my songs", "my takes")
    assert first.returncode == 0, first.stderr
    assert first.stdout == "my takes/one.flac\nmy takes/two.flac\n"
    assert first.stderr.count("a library says hello") == 1  # one process, one pipeline
    assert "written  my takes/one.flac\nwritten  my takes/two.flac\n" in first.stderr
    assert "2 songs, no failures" in first.stderr
    made = audio_in(folder.parent / "my takes")
    assert len(made) == 2

    again = batch("my songs", "my takes")
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert "skipped  my takes/one.flac\nskipped  my takes/two.flac\n" in again.stderr
    assert audio_in(folder.parent / "my takes") == made


@for_sh
def test_the_batch_gives_further_flags_on_and_overlooks_sidecars(folder: Path) -> None:
    for _ in range(2):  # the second time, the sidecars of the first lie among the specs
        run = batch("my songs", "my songs", "--format", "wav")
        assert run.returncode == 0, run.stderr
        assert run.stdout == "my songs/one.wav\nmy songs/two.wav\n"


@for_sh
def test_the_batch_renders_nothing_while_a_spec_is_broken(folder: Path) -> None:
    (folder / "broken.yaml").write_text("caption: a song\nbpm: 20\n")
    run = batch("my songs", "takes")
    assert run.returncode == 2, run.stderr
    assert "broken.yaml:2: bpm" in run.stderr
    assert "nothing was rendered" in run.stderr
    assert run.stdout == ""
    assert not audio_in(folder.parent / "takes")


@for_sh
def test_the_batch_keeps_what_it_can_and_names_the_rest(folder: Path) -> None:
    (folder / "quiet.yaml").write_text(ONE.replace("a song", "all silent"))
    run = batch("my songs", "takes")
    assert run.returncode == 7, run.stderr
    assert "written  takes/one.flac\nfailed   takes/quiet.flac: " in run.stderr
    assert "some songs failed" in run.stderr
    assert run.stdout == "takes/one.flac\ntakes/two.flac\n"
    assert set(audio_in(folder.parent / "takes")) == {"one.flac", "two.flac"}

    (folder / "quiet.yaml").write_text(ONE)
    mended = batch("my songs", "takes")
    assert mended.returncode == 0, mended.stderr
    assert "skipped  takes/one.flac\nwritten  takes/quiet.flac\nskipped  takes/two.flac\n" in mended.stderr


@for_sh
def test_a_dry_run_of_the_batch_names_no_song_that_is_not_there(folder: Path) -> None:
    run = batch("my songs", "takes", "--dry-run")
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    assert "planned  takes/one.flac\n" in run.stderr
    assert not audio_in(folder.parent / "takes")


@for_sh
def test_the_batch_replaces_a_song_that_changed_only_when_told(folder: Path) -> None:
    (folder / "two.md").unlink()
    assert batch("my songs", "takes").returncode == 0
    made = audio_in(folder.parent / "takes")
    (folder / "one.yaml").write_text(ONE.replace("seed: 1", "seed: 5"))
    refused = batch("my songs", "takes")
    assert refused.returncode == 9, refused.stderr
    assert "--force" in refused.stderr
    assert audio_in(folder.parent / "takes") == made
    assert batch("my songs", "takes", "--force").returncode == 0
    assert audio_in(folder.parent / "takes") != made


@for_sh
def test_the_batch_says_that_it_was_interrupted_and_goes_on_later(folder: Path) -> None:
    slow = TWO.replace("another", "slow diffuse")
    (folder / "two.md").write_text(slow)
    # A group of its own, which gets the signal as from a terminal.
    with started([str(BATCH), "my songs", "takes"], start_new_session=True) as run:
        one = folder.parent / "takes" / "one.flac"
        until(lambda: one.exists() or run.poll() is not None)
        time.sleep(0.5)  # two.md has begun
        os.killpg(run.pid, signal.SIGINT)
        _, said = run.communicate(timeout=LIMIT)
    assert run.returncode == 130, said
    assert "interrupted" in said
    assert set(audio_in(folder.parent / "takes")) == {"one.flac"}

    (folder / "two.md").write_text(TWO)
    later = batch("my songs", "takes")
    assert later.returncode == 0, later.stderr
    assert "skipped  takes/one.flac\nwritten  takes/two.flac\n" in later.stderr


@for_sh
def test_the_batch_of_a_folder_without_songs(machine: Path) -> None:
    run = batch()  # songs/ and takes/ are the defaults
    assert (run.returncode, run.stdout, run.stderr) == (2, "", "batch.sh: no song specs in songs\n")
    assert not list(machine.iterdir())


@for_sh
def test_the_batch_runs_the_program_it_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder.parent / "other"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("ACESTEP", str(program))
    run = batch("my songs")
    assert (run.returncode, run.stdout) == (3, "")
    assert run.stderr.endswith("acestep ended with code 3\n")


# The workflow


@for_sh
def test_the_workflow_runs(machine: Path) -> None:
    """Each step in a shell of its own with -e, as the runner does it; what the runner brings is left to it."""
    (machine / "songs").symlink_to(ROOT / "songs")
    workflow = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))
    [job] = workflow["jobs"].values()
    install, *steps = [step for step in job["steps"] if "run" in step]
    assert install["name"] == "Install"
    for step in steps:
        run = finish(["bash", "-e", "-c", step["run"]], text=True)
        assert run.returncode == 0, f"{step['name']}: {run.stdout}{run.stderr}"
    [upload] = [step["with"] for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert all((machine / path).stat().st_size for path in upload["path"].split())
    report = json.loads((machine / "smoke.json").read_text(encoding="utf-8"))
    assert [output["path"] for output in report["outputs"]] == ["smoke.flac"]


@for_sh
def test_the_workflow_notices_a_report_that_is_not_ok(machine: Path) -> None:
    [job] = yaml.safe_load(SMOKE.read_text(encoding="utf-8"))["jobs"].values()
    [step] = [step["run"] for step in job["steps"] if "test -s" in step.get("run", "")]
    (machine / "smoke.flac").write_bytes(b"fLaC")
    for status, code in {"ok": 0, "partial": 1}.items():
        (machine / "smoke.json").write_text(json.dumps({"status": status}))
        assert finish(["bash", "-e", "-c", step]).returncode == code
