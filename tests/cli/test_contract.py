"""What scripts rely on: several specs, skipping by recipe, stdout, `--json`, `--dry-run`, and what is refused."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile

from acestep_cli.audio import encode, loudness
from acestep_cli.audio import sound as audio
from acestep_cli.cli import exit_codes
from acestep_cli.errors import EncoderError
from acestep_cli.render import result as results
from acestep_cli.render.result import INTERRUPTED, TERMINATED
from acestep_cli.song import modes, spec
from support import band
from support.command import LIMIT, Run, in_time, program, read_to, said, started
from support.places import BAND, RESULT_SCHEMA

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing the pipeline fails, so what is refused was refused before that."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", None)


def song(name: str, **keys: Any) -> Path:
    """A spec of ten seconds."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key}: {value}\n" for key, value in {"caption": "a", "duration": 10, **keys}.items()))
    return path


def names() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


# Several specs


def test_several_specs_are_rendered_into_a_folder_by_one_pipeline(
    acestep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    song("a.yaml")
    song("b.yml", takes=2)
    Path("c.md").write_text("---\ncaption: c\nduration: 10\n---\n[Verse]\nla\n")
    opened = []
    init = band.Pipeline.__init__
    monkeypatch.setattr(band.Pipeline, "__init__", lambda *args, **more: opened.append(1) or init(*args, **more))
    result = acestep("generate", "a.yaml", "b.yml", "c.md", "-o", "out/", "--format", "mp3")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [str(Path("out", f"{name}.mp3")) for name in ("a", "b-1", "b-2", "c")]
    assert opened == [1]
    assert spec.load(Path("out/c.mp3.yaml")).lyrics == "[Verse]\nla\n"


def test_a_spec_comes_from_stdin_and_a_song_goes_to_stdout() -> None:
    run = program("generate", "-", "-o", "-", input=b"caption: a\nduration: 10\nseed: 7\n")
    assert run.returncode == 0, run.stderr
    samples, rate = soundfile.read(io.BytesIO(run.stdout))
    assert (samples.shape, rate) == ((480_000, 2), 48_000)
    assert b"a library says hello" in run.stderr
    assert names() == []
    flac = program("generate", "-", "-o", "-", "--format", "flac", input=b"caption: a\nduration: 10\nseed: 7\n")
    assert flac.stdout[:4] == b"fLaC"


def test_markdown_comes_from_stdin_too(acestep: Run) -> None:
    text = "---\ncaption: a\nduration: 10\n---\n\n[Verse]\nla\n"
    assert acestep("generate", "-", "-o", "a.wav", stdin=text).exit_code == 0
    assert spec.load(Path("a.wav.yaml")).lyrics == "[Verse]\nla\n"


def test_a_song_for_a_reader_who_left_is_an_error_and_no_traceback() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    run = program("generate", "-c", "a", "-d", "10", "-o", "-", stdout=theirs)
    os.close(theirs)
    assert run.returncode == 9
    assert b"stdout cannot be written: broken pipe." in run.stderr
    assert b"Traceback" not in run.stderr


def test_render_takes_specs_of_any_mode_and_needs_one(acestep: Run) -> None:
    song("a.yaml", mode="generate")
    song("b.yaml")
    assert acestep("render", "a.yaml", "b.yaml", "-o", "out/").exit_code == 0
    result = acestep("render")
    assert result.exit_code == 2
    assert "There is no spec to render." in result.stderr


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second mode, that is nothing but a row."""
    row = modes.Mode("Make it again.", modes.generate, ("acestep echo song.yaml",))
    monkeypatch.setitem(modes.MODES, "echo", row)
    monkeypatch.setattr(
        "acestep_cli.cli.app.COMMANDS", {**__import__("acestep_cli.cli.app").cli.app.COMMANDS, "echo": row.summary}
    )


@pytest.mark.usefixtures("echo")
def test_a_spec_of_another_mode_is_refused_by_name(acestep: Run) -> None:
    song("a.yaml", mode="echo")
    result = acestep("generate", "a.yaml")
    assert result.exit_code == 2
    assert "a.yaml: is a spec of the mode echo, not generate." in result.stderr
    assert "acestep echo a.yaml" in result.stderr
    assert acestep("render", "a.yaml", "-o", "out/").exit_code == 0


def test_takes_of_songs_in_the_current_folder_never_collide(acestep: Run) -> None:
    song("x/a.yaml")
    song("y/a.yaml", takes=2)
    assert acestep("generate", "x/a.yaml", "y/a.yaml", "--no-sidecar").stdout.split() == [
        f"a-{n}.flac" for n in (1, 2, 3)
    ]
    assert acestep("generate", "x/a.yaml", "--no-sidecar").stdout.split() == ["a-4.flac"]


# What is there already


def test_a_rerun_skips_what_has_the_same_recipe_and_touches_it(acestep: Run) -> None:
    song("a.yaml")
    acestep("generate", "a.yaml", "-o", "out/")
    before = {name: Path(name).read_bytes() for name in ("out/a.flac", "out/a.flac.yaml")}
    for name in before:
        os.utime(name, (1, 1))
    result = acestep("generate", "a.yaml", "-o", "out/")
    assert (result.exit_code, result.stdout) == (0, "out/a.flac\n")
    assert "kept, for it has the same recipe" in result.stderr
    assert {name: Path(name).read_bytes() for name in before} == before
    assert all(Path(name).stat().st_mtime > 1 for name in before)


@pytest.mark.usefixtures("no_pipeline")
def test_a_rerun_loads_nothing(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    song("a.yaml")
    program("generate", "a.yaml", "-o", "out/")
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", None)
    result = acestep("generate", "a.yaml", "-o", "out/", "--json")
    [entry] = said(result)["outputs"]
    assert entry["status"] == "skipped"
    assert entry["seconds"] == 10
    assert entry["seed"] == spec.load(Path("out/a.flac.yaml")).seed


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("title: T", True),
        ("artist: A", True),
        ("year: 2026", True),
        ("fade_out: 2", False),
        ("sample_rate: 44100", False),
        ("takes: 1", True),
        ("seed: 7", True),
        ("seed: 8", False),
        ("bpm: 90", False),
        ("loudness: none", False),
        ("bit_depth: 16", False),
        ("steps: 4", False),
    ],
)
def test_a_recipe_is_what_shapes_the_file(acestep: Run, change: str, same: bool) -> None:
    song("a.yaml", seed=7)
    assert acestep("generate", "a.yaml", "-o", "a.flac").exit_code == 0
    key, _, value = change.partition(": ")
    result = acestep("generate", "a.yaml", "-o", "a.flac", "--set", f"{key}={value}")
    assert result.exit_code == (0 if same else 9), result.stderr
    if not same:
        found = "with the seed 7" if "seed" in change else "with another recipe"
        assert f"a.flac exists already {found}." in result.stderr
        assert "--force replaces it" in result.stderr


def test_other_weights_are_another_recipe(acestep: Run) -> None:
    song("a.yaml", seed=7)
    acestep("generate", "a.yaml", "-o", "a.flac")
    assert acestep("generate", "a.yaml", "-o", "a.flac", "-m", "pocket").exit_code == 9


def test_an_unset_seed_is_no_part_of_the_recipe_and_force_draws_a_new_one(acestep: Run) -> None:
    song("a.yaml")
    acestep("generate", "a.yaml", "-o", "a.flac")
    first = spec.load(Path("a.flac.yaml")).seed
    assert acestep("generate", "a.yaml", "-o", "a.flac").stdout == "a.flac\n"
    assert spec.load(Path("a.flac.yaml")).seed == first
    assert acestep("generate", "a.yaml", "-o", "a.flac", "--force").stdout == "a.flac\n"
    assert spec.load(Path("a.flac.yaml")).seed != first


def test_missing_takes_are_made_with_the_seeds_that_follow_on(acestep: Run) -> None:
    song("a.yaml")
    acestep("generate", "a.yaml", "-n", "4", "-o", "a.wav")
    seeds = [spec.load(Path(f"a-{n}.wav.yaml")).seed for n in range(1, 5)]
    before = Path("a-3.wav").read_bytes()
    for name in ("a-1.wav", "a-1.wav.yaml", "a-3.wav"):  # of the third, its recipe stays
        Path(name).unlink()
    result = acestep("generate", "a.yaml", "-n", "4", "-o", "a.wav")
    assert (result.exit_code, result.stdout) == (0, "a-2.wav\na-4.wav\na-1.wav\na-3.wav\n"), result.stderr
    assert [spec.load(Path(f"a-{n}.wav.yaml")).seed for n in range(1, 5)] == seeds
    assert Path("a-3.wav").read_bytes() == before


def test_a_file_without_a_record_is_never_taken_for_the_same(acestep: Run) -> None:
    song("a.yaml")
    acestep("generate", "a.yaml", "-o", "a.flac", "--no-sidecar")
    broken = b"bpm: 90", b"render: {recipe: x}", b"render: [1]", b"{", b"\xff", b"render: {recipe: x, seed: a}"
    for content in (None, *broken):
        if content is not None:
            Path("a.flac.yaml").write_bytes(content)
        result = acestep("generate", "a.yaml", "-o", "a.flac")
        assert result.exit_code == 9
        assert "no sidecar says how it was made" in result.stderr


def test_two_runs_for_one_file_end_with_one_and_both_are_content(here: Path) -> None:
    """The one that comes second finds the same recipe, or is refused where it has another."""
    song("a.yaml", seed=7)
    runs: list[subprocess.CompletedProcess[Any]] = []
    threads = [
        threading.Thread(target=lambda: runs.append(program("generate", "a.yaml", "-o", "a.flac"))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    assert [run.stdout for run in runs] == [b"a.flac\n"] * 2
    assert names() == ["a.flac", "a.flac.yaml", "a.yaml"]
    seeds = [program("generate", "a.yaml", "-o", "b.flac", "--seed", seed).returncode for seed in ("1", "2")]
    assert seeds == [0, 9]


def test_a_take_overtaken_by_the_same_one_is_content(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    song("a.yaml", seed=7)
    play = band.Pipeline.play

    def overtaken(self: Any, request: Any, report: Any) -> Any:
        program("generate", "a.yaml", "-o", "a.flac")
        yield from play(self, request, report)

    monkeypatch.setattr(band.Pipeline, "play", overtaken)
    result = acestep("generate", "a.yaml", "-o", "a.flac", "--json")
    assert result.exit_code == 0, result.stderr
    assert said(result)["outputs"][0]["status"] == "skipped"


# What is refused, before the pipeline is imported


@pytest.mark.usefixtures("no_pipeline")
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["a.yaml", "b.yaml", "-o", "x.flac"], 2, "--output x.flac is one file, and there are 2 specs."),
        (["a.yaml", "a.yaml", "-o", "out/"], 2, "a.yaml is given 2 times; --takes 2 makes 2 takes of it."),
        (["a.yaml", "a.md", "-o", "out/"], 2, f"a.yaml and a.md would both write {Path('out/a.flac')}."),
        (["two.yaml", "two-1.yaml", "-o", "out/"], 2, "two.yaml and two-1.yaml would both write"),
        (["-", "-", "-o", "out/"], 2, "stdin can be read once"),
        (["-", "--lyrics", "-"], 2, "stdin can be read once"),
        (["a.yaml", "b.yaml", "-o", "-"], 2, "--output - carries one take"),
        (["two.yaml", "-o", "-"], 2, "--output - carries one take"),
        (["a.yaml", "-o", "-", "--json"], 2, "--output - and --json both want stdout"),
        (["a.yaml", "--set", "bpm"], 2, "--set 'bpm': is not key=value"),
        (["a.yaml", "--set", "bmp=90"], 2, "--set bmp: is not a key of a song spec; did you mean 'bpm'?"),
        (["a.yaml", "--set", "bpm=20"], 2, "--set bpm: 20 is not a whole number from 30 to 300"),
        (["a.yaml", "--set", "bpm=90", "--bpm", "91"], 2, "--set bpm: is given twice, here and by --bpm"),
        (["a.yaml", "--set", "bpm=90", "--set", "bpm=91"], 2, "--set bpm: is given twice, here and by --set bpm"),
        (["a.yaml", "--set", "extends=b.yaml"], 2, "--set extends: only a spec can extend another"),
        (["a.yaml", "--progress", "loud"], 2, "'loud' is not one of auto, plain, none."),
        (["round.yaml"], 2, "round.yaml -> back.yaml -> round.yaml"),
        (["self.yaml"], 2, "self.yaml:1: extends: goes round in a circle"),
        (["far.yaml"], 2, "far.yaml:1: extends: "),
        (["bare.md"], 2, "bare.md: is not a song: it has neither front matter"),
        (["twice.md"], 2, "twice.md:6: lyrics: is here again, after line 2"),
        (["bad.md"], 2, "bad.md:3: 'A: minor' has a colon in it"),
        (["long.yaml"], 2, "long.yaml: is longer than 1,000,000 bytes, which no song is"),
        (["a.yaml", "--lyrics-file", "long.yaml"], 2, "long.yaml is longer than 1,000,000 bytes"),
        (["loud.yaml"], 2, "loud.yaml:3: loudness: 'lufs:3' is neither none"),
        (["a.yaml", "b.yaml", "bad.yaml", "worse.yaml", "-o", "out/"], 2, "bad.yaml:3: bpm: 20"),
        (["a.yaml", "--dry-run", "-o", "no/x.wav"], 9, "The folder no does not exist."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals(acestep: Run, arguments: list[str], code: int, sentence: str) -> None:
    song("a.yaml")
    song("b.yaml")
    song("two.yaml", takes=2)
    song("two-1.yaml")
    song("bad.yaml", bpm=20)
    song("worse.yaml", key="H minor")
    song("loud.yaml", loudness="lufs:3")
    Path("round.yaml").write_text("extends: back.yaml\n")
    Path("back.yaml").write_text("extends: ./round.yaml\n")
    Path("self.yaml").write_text("extends: self.yaml\n")
    Path("far.yaml").write_text("extends: no/where.yaml\n")
    Path("a.md").write_text("---\ncaption: a\nduration: 10\n---\nla\n")
    Path("bare.md").write_text("\n")
    Path("twice.md").write_text("---\nlyrics: la\n---\n\n\n[Verse]\nla\n")
    Path("bad.md").write_text("---\ncaption: a\nkey: A: minor\n---\nla\n")
    Path("long.yaml").write_text("lyrics: |\n" + "  la la la\n" * 1_000_000)
    before = names()
    result = acestep("generate", *arguments, stdin="caption: a\nduration: 10\n")
    assert result.exit_code == code, result.stderr
    assert sentence in " ".join(result.stderr.split())
    assert result.stdout == "" or said(result)["error"]["exit_code"] == code
    assert "Traceback" not in result.stderr
    assert names() == before
    if "worse.yaml" in arguments:
        assert "worse.yaml:3: key: 'H minor' is not a key" in result.stderr


@pytest.mark.usefixtures("no_pipeline")
@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["-c", "a", "-o", "what?.wav"], "what?.wav"),
        (["what?.yaml"], "what?-1.flac"),
        (["a.yaml", "what?.yaml", "-o", "out/"], "out/what?.flac"),
    ],
)
def test_signs_that_a_disk_refuses_are_found_before_the_render(
    acestep: Run, monkeypatch: pytest.MonkeyPatch, no_pipeline: None, words: list[str], file: str
) -> None:
    """As a memory stick does: it looks for any name, and makes a file of few."""
    touch = Path.touch

    def refuse(self: Path, *more: Any, **named: Any) -> None:
        if "?" in self.name:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(self))
        touch(self, *more, **named)

    song("what?.yaml")
    song("a.yaml")
    monkeypatch.setattr(Path, "touch", refuse)
    result = acestep("generate", "-d", "10", *words)
    assert result.exit_code == 9
    assert f"{file} cannot be written: invalid argument." in " ".join(result.stderr.split())
    assert "choose a plainer one" in result.stderr
    assert names() == ["a.yaml", "what?.yaml"]


def test_a_render_never_replaces_what_it_reads(acestep: Run) -> None:
    program("generate", "-c", "a", "-d", "10", "-o", "a.flac")
    before = Path("a.flac.yaml").read_bytes()
    result = acestep("generate", "a.flac.yaml", "--bpm", "90", "-o", "a.flac", "--force")
    assert result.exit_code == 2
    assert "a.flac.yaml is read by this run, so it cannot be written too." in result.stderr
    assert Path("a.flac.yaml").read_bytes() == before


@pytest.mark.usefixtures("no_pipeline")
def test_the_lyrics_of_a_sidecar_s_name_are_safe_too(acestep: Run) -> None:
    Path("a.flac.yaml").write_text("la\n")
    result = acestep("generate", "-c", "a", "-d", "10", "--lyrics-file", "a.flac.yaml", "-o", "a.flac", "--force")
    assert result.exit_code == 2
    assert "is read by this run" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs pty")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-c", "a", "-o", "-"], "--output - would write sound to the terminal."),
        (["-", "--no-input"], "stdin: stdin is a terminal, and --no-input refuses to wait for typing"),
        (["--set", "lyrics=-", "--no-input"], "stdin is a terminal, and --no-input refuses"),
        (["/dev/stdin", "--no-input"], "/dev/stdin: is a terminal, and --no-input refuses"),
        (["-c", "a", "--lyrics", "-", "--no-input"], "--lyrics: - stdin is a terminal, and --no-input refuses"),
    ],
)
def test_what_a_terminal_is_not_for(arguments: list[str], sentence: str) -> None:
    import pty

    ours, theirs = pty.openpty()
    run = program("generate", *arguments, stdin=theirs, stdout=theirs)
    os.close(theirs)
    os.close(ours)
    assert run.returncode == 2
    assert sentence in run.stderr.decode()


# What it says


def test_json_says_it_all_in_one_object(acestep: Run) -> None:
    song("a.yaml", caption="dusty slow blues", seed=7)
    result = acestep("generate", "a.yaml", "-n", "2", "-o", "out/", "--json", "-q")
    content = said(result)
    assert (content["schema"], content["status"], content["warnings"]) == (results.SCHEMA, "ok", [])
    assert content["peak_memory_bytes"] > 10_000_000
    assert [entry["path"] for entry in content["outputs"]] == [str(Path("out", f"a-{n}.flac")) for n in (1, 2)]
    first = content["outputs"][0]
    assert first["sidecar"] == first["path"] + ".yaml"
    assert (first["status"], first["kind"], first["seconds"], first["sample_rate"]) == ("written", "take", 10, 48_000)
    assert first["request"]["seed"] == first["seed"] == 7
    assert first["plan"]["device"] == "cpu"
    assert first["timings"] == {"diffuse": 0.125}
    assert set(first["checks"]) == {"peak_dbfs", "true_peak_db", "lufs"}
    assert first["checks"]["peak_dbfs"] == -1


@pytest.mark.parametrize(
    ("arguments", "code", "status", "name"),
    [
        (["-c", "all silent", "-d", "10"], 6, "error", "check"),
        (["-c", "silent", "-d", "10", "-n", "3"], 7, "partial", "several"),
        (["-c", "too big", "-d", "10", "-n", "3"], 7, "partial", "several"),
        (["-c", "breaks", "-d", "10"], 1, "error", "unexpected"),
        (["--bpm", "20"], 2, "error", "usage"),
        (["--bpmm", "20"], 2, "error", "usage"),
        (["-c", "a", "-m", "base"], 3, "error", "checkpoint"),
        (["-c", "a", "-o", "no/a.wav"], 9, "error", "output"),
    ],
)
def test_json_says_failures_too(acestep: Run, arguments: list[str], code: int, status: str, name: str) -> None:
    result = acestep("generate", *arguments, "--json")
    content = said(result)
    assert result.exit_code == content["error"]["exit_code"] == code
    assert (content["status"], content["error"]["name"]) == (status, name)
    assert content["error"]["message"].splitlines()[0] in " ".join(result.stderr.split()).replace("│ ", "") or code == 2
    if code == 7:
        failed = [entry for entry in content["outputs"] if entry["status"] == "failed"]
        assert all(entry["error"]["message"] for entry in failed)
        assert 0 < len(failed) < 3


def test_one_song_that_does_not_fit_leaves_the_others(acestep: Run) -> None:
    song("a.yaml")
    song("b.yaml", caption="too big", takes=3)
    song("c.yaml")
    result = acestep("generate", "a.yaml", "b.yaml", "c.yaml", "-o", "out/", "--no-sidecar")
    assert result.exit_code == 7
    assert names()[3:] == [str(Path("out", f"{name}.flac")) for name in ("a", "b-1", "c")]
    assert "3 of 5 takes are there" in result.stderr


def test_a_full_disk_ends_the_run(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    song("a.yaml")
    song("b.yaml")
    written = []

    def full(*arguments: Any) -> Any:
        written.append(arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode, "write_audio", full)
    result = acestep("generate", "a.yaml", "b.yaml", "-o", "out/", "--json")
    assert result.exit_code == 9
    assert [entry["status"] for entry in said(result)["outputs"]] == ["failed", "failed"]
    assert len(written) == 1


def test_a_failed_encoder_keeps_the_lossless_master(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write = encode.write_audio

    def mp3_fails(path: Path, sound: audio.Audio, finish: encode.Finish) -> Any:
        if finish.encoding.format == "mp3":
            raise EncoderError("The mp3 encoder failed: no idea.")
        return write(path, sound, finish)

    monkeypatch.setattr(encode, "write_audio", mp3_fails)
    result = acestep("generate", "-c", "a", "-d", "10", "-o", "a.mp3")
    assert result.exit_code == 9
    assert "The take is kept as a-1.flac. To convert it: ffmpeg -i a-1.flac a.mp3" in result.stderr
    assert names() == ["a-1.flac"]
    assert soundfile.info("a-1.flac").frames == 480_000


@pytest.mark.usefixtures("no_pipeline")
def test_a_dry_run_says_what_would_be_and_makes_nothing(acestep: Run) -> None:
    song("a.yaml", takes=2)
    result = acestep("generate", "a.yaml", "-o", "out/", "--dry-run", "--explain", "--bpm", "90", "--set", "key=Am")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split() == [str(Path("out", f"a-{n}.flac")) for n in (1, 2)]
    lines = {line.split()[0]: line.split() for line in result.stderr.splitlines() if line.strip()}
    assert lines["bpm"] == ["bpm", "90", "--bpm"]
    assert lines["key"][-2:] == ["--set", "key"]
    assert lines["caption"] == ["caption", "a", "a.yaml:1"]
    assert lines["steps"] == ["steps", "8", "checkpoint", "turbo"]
    assert lines["loudness"] == ["loudness", "peak:-1", "default"]
    assert lines["seed"][-1] == "drawn"
    assert lines["dtype"][2].startswith("machine")
    assert not Path("out").exists()
    content = said(acestep("generate", "a.yaml", "-o", "out/", "--dry-run", "--explain", "--json"))
    assert [entry["status"] for entry in content["outputs"]] == ["planned", "planned"]
    assert content["outputs"][0]["origins"]["takes"] == "a.yaml:3"


def test_a_dry_run_says_what_would_be_skipped(acestep: Run) -> None:
    song("a.yaml")
    acestep("generate", "a.yaml", "-o", "a.flac")
    os.utime("a.flac", (1, 1))
    result = acestep("generate", "a.yaml", "-o", "a.flac", "--dry-run")
    assert "a.flac: is there already" in result.stderr
    assert Path("a.flac").stat().st_mtime == 1


def test_progress_may_be_none_and_verbose_says_more(acestep: Run) -> None:
    plain = acestep("generate", "-c", "a", "-d", "10", "--progress", "none", "-v")
    assert "Making music" not in plain.stderr.splitlines()
    assert "diffuse 0.12 s" in plain.stderr or "diffuse 0.13 s" in plain.stderr
    assert "frames at a time" in plain.stderr


def test_a_reader_of_json_who_left_is_no_traceback() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    run = program("generate", "-c", "a", "-d", "10", "--json", stdout=theirs)
    os.close(theirs)
    assert run.returncode == 0
    assert b"Traceback" not in run.stderr
    assert b"Exception" not in run.stderr


WHOLE = "music is made in whole frames of 40 ms"


def test_a_song_that_is_no_whole_frames_long_is_said_to_be_shorter(acestep: Run) -> None:
    dry = acestep("generate", "-c", "a", "-d", "10.5", "-n", "3", "--dry-run", "-o", "out/")
    assert dry.stderr.count(f"The song will be 10.48 s long instead of 10.5 s: {WHOLE}") == 1
    assert acestep("generate", "-c", "a", "-d", "10.5", "-n", "3", "-o", "out/").stderr.count(WHOLE) == 1
    song("a.yaml", duration="10.5")
    song("b.yaml", duration="0:12.03")
    song("c.yaml", duration="12.04")
    several = acestep("generate", "a.yaml", "b.yaml", "c.yaml", "-o", "out/").stderr
    assert f"a.yaml will be 10.48 s long instead of 10.5 s: {WHOLE}" in several
    assert f"b.yaml will be 12 s long instead of 12.03 s: {WHOLE}" in several
    assert several.count(WHOLE) == 2
    again = acestep("generate", "a.yaml", "b.yaml", "c.yaml", "-o", "out/").stderr
    assert WHOLE not in again  # nothing is made


@pytest.mark.parametrize("asked", [["-d", "10.28"], ["-d", "10"], ["--set", "codes=" + ",".join("1" * 52)]], ids=str)
def test_nothing_is_said_of_whole_frames(acestep: Run, asked: list[str]) -> None:
    assert WHOLE not in acestep("generate", "-c", "a", *asked, "--dry-run").stderr


def test_a_cover_is_of_whole_frames_and_a_repaint_as_long_as_its_source(acestep: Run) -> None:
    soundfile.write("take.wav", 0.1 * np.random.default_rng(0).standard_normal((504_000, 2)), 48_000)
    said = acestep("cover", "take.wav", "-c", "a", "--dry-run").stderr
    assert f"The song will be 10.48 s long instead of 10.5 s: {WHOLE}" in said
    assert WHOLE not in acestep("repaint", "take.wav", "-c", "a", "--start", "2.01", "--end", "4", "--dry-run").stderr
    album = Path("album.yaml")
    album.write_text("album: {title: A}\ntracks:\n  - a.yaml\n  - b.yaml\n")
    song("a.yaml", duration="10.5")
    song("b.yaml")
    built = acestep("album", "render", "album.yaml", "--dry-run").stderr
    assert built.count(WHOLE) == 1
    assert "a will be 10.48 s long" in built


def test_loudness_is_what_was_asked_and_true_peaks_stay_under_minus_one(acestep: Run) -> None:
    import pyloudnorm

    result = acestep("generate", "-c", "a", "-d", "10", "-o", "a.wav", "--set", "loudness=lufs:-20", "--json")
    [entry] = said(result)["outputs"]
    assert entry["checks"]["lufs_written"] == pytest.approx(-20, abs=0.01)
    samples, rate = soundfile.read("a.wav")
    assert pyloudnorm.Meter(rate).integrated_loudness(samples) == pytest.approx(-20, abs=0.05)


def test_peaks_keep_the_loudness_under_what_was_asked(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def clicks(self: Any, seed: int, seconds: float) -> Any:
        quiet = 0.001 * np.random.default_rng(0).standard_normal((2, int(seconds * band.RATE)))
        quiet[:, ::9600] = 0.9
        return quiet.astype(np.float32)

    monkeypatch.setattr(band.Pipeline, "_tone", clicks)
    result = acestep("generate", "-c", "a", "-d", "10", "-o", "a.wav", "--loudness", "lufs:-10")
    assert result.exit_code == 0
    assert "lufs:-10 would push peaks over -1 dB; the loudness is" in result.stderr
    samples, rate = soundfile.read("a.wav", dtype="float32")
    assert loudness.true_peak(audio.Audio(samples.T, rate)) == pytest.approx(10 ** (-1 / 20), abs=0.01)


def test_true_peaks_lie_between_samples() -> None:
    """A sine at a quarter of the rate, sampled 45 degrees off its crests, is 3 dB higher than its samples."""
    wave = np.sin(np.pi / 2 * np.arange(48_000) + np.pi / 4).astype(np.float32)
    sound = audio.Audio(np.stack([wave, wave]), 48_000)
    assert np.abs(wave).max() == pytest.approx(np.sqrt(0.5))
    assert loudness.true_peak(sound) == pytest.approx(1.0, abs=0.03)


def test_true_peaks_are_those_of_the_sound_and_not_of_where_it_is_cut_to_measure() -> None:
    """It is measured second by second, with 64 samples around each: they begin on a crest here."""
    wave = 0.5 * np.cos(2 * np.pi * 50 * (np.arange(3 * 48_000) + 64) / 48_000).astype(np.float32)
    wave *= np.minimum(1, 4 * np.sin(np.pi * np.linspace(0, 1, len(wave), dtype=np.float32)))  # no step at either end
    assert loudness.true_peak(audio.Audio(np.stack([wave, wave]), 48_000)) == pytest.approx(0.5, abs=0.002)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of Unix")
@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_descriptors_are_no_reason_to_fail(closed: int) -> None:
    """A file that were opened under the number of stdout would get what libraries print."""
    options: dict[str, Any] = {"preexec_fn": lambda: os.close(closed)}
    run = program("generate", "-c", "a", "-d", "10", "--seed", "7", "-o", f"{closed}.wav", **options)
    assert run.returncode == 0, run.stderr
    program("generate", "-c", "a", "-d", "10", "--seed", "7", "-o", "open.wav")
    assert Path(f"{closed}.wav").read_bytes() == Path("open.wav").read_bytes()
    if closed == 1:
        run = program("generate", "-c", "a", "-d", "10", "-o", "-", **options)
        assert run.returncode == 9
        assert b"stdout is closed" in run.stderr
        assert program("spec", "new", **options).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize(("number", "code", "name"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_json_says_what_a_signal_left(number: int, code: int, name: str) -> None:
    command = [
        sys.executable,
        BAND,
        "generate",
        "-c",
        "stops",
        "-d",
        "10",
        "-n",
        "3",
        "-o",
        "out/",
        "--json",
    ]
    with started(command) as run:
        read_to(run.stderr, "stops-2.flac: ")
        run.send_signal(number)
        stdout, _ = run.communicate(timeout=LIMIT)
    content = json.loads(stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    assert (run.returncode, content["error"]["name"]) == (code, name)
    assert [entry["status"] for entry in content["outputs"]] == ["written", "written", "failed"]


@pytest.mark.usefixtures("no_pipeline")
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("time_signature: 5", "a.yaml:3: time_signature: '5' is not one of 2/4, 3/4, 4/4, 6/8"),
        ("seed: -1", "a.yaml:3: seed: -1 is not a whole number from 0 to 4294967295"),
        ("seed: 4294967296", "a.yaml:3: seed: 4294967296 is not a whole number"),
        ("takes: 0", "a.yaml:3: takes: 0 is not a whole number from 1"),
        ("language: klingon", "a.yaml:3: language: 'klingon' is not a language code"),
        ("key: H minor", "a.yaml:3: key: 'H minor' is not a key such as A minor"),
        ("lyrics: [Verse]", "a.yaml:3: lyrics: a list is not text; put it in quotes"),
        ("lyrics: la\ninstrumental: yes", "a.yaml:4: instrumental: excludes lyrics (a.yaml:3: lyrics)"),
        ("bpm: 120.5", "a.yaml:3: bpm: '120.5' is not a whole number"),
        ("bpm: 90\nbpm: 91", "a.yaml:4: bpm: is here again, after line 3"),
        ("tempo: 90", "a.yaml:3: tempo: is not a key of a song spec; did you mean 'bpm'?"),
    ],
)
def test_what_a_spec_may_not_say(acestep: Run, line: str, sentence: str) -> None:
    Path("a.yaml").write_text(f"caption: a\nmodel: turbo\n{line}\n")
    result = acestep("generate", "a.yaml", "-d", "10")
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in " ".join(result.stderr.split())
    for length in ("9h", "601", "2"):
        assert "--duration: " in acestep("generate", "-c", "a", "-d", length).stderr


def test_each_command_s_help_has_examples_and_the_groups_of_a_musician(acestep: Run) -> None:
    for name, mode in modes.MODES.items():
        text = acestep(name, "--help").stdout
        for example in mode.examples:
            assert f"\n  {example}\n" in text
        for group in ("Song", "Sound", "Output", "Machine"):
            assert f"\n{group}:\n" in acestep(name, "--help-all").stdout
    for words in (["render"], ["spec", "check"], ["spec", "show"], ["spec", "new"], ["spec", "schema"]):
        assert f"acestep {' '.join(words)} " in acestep(*words, "--help").stdout.split("\nExamples:\n")[1]


def test_a_refused_run_leaves_no_folder_behind(acestep: Run) -> None:
    song("a.yaml")
    song("a.yml")
    assert acestep("generate", "a.yaml", "a.yml", "-o", "new/").exit_code == 2
    assert not Path("new").exists()


def test_what_a_killed_run_left_unfinished_is_removed(acestep: Run) -> None:
    names = [f".{'0a' * 16}.part", f".{'1b' * 16}.part", ".mine.part"]
    for name, age in zip(names, (7200, 60, 7200), strict=True):
        Path(name).write_text("la")
        os.utime(name, (time.time() - age,) * 2)
    song("a.yaml")
    assert acestep("generate", "a.yaml", "--dry-run").exit_code == 0
    assert all(Path(name).exists() for name in names)
    assert acestep("generate", "a.yaml").exit_code == 0
    assert [Path(name).exists() for name in names] == [False, True, True]


def test_takes_of_different_runs_with_an_unset_seed_are_kept(acestep: Run) -> None:
    """`--force` that was interrupted after the first take leaves takes of two draws."""
    song("a.yaml", takes=2)
    acestep("generate", "a.yaml", "-o", "a.wav")
    acestep("generate", "a.yaml", "-o", "b.wav")
    for end in ("", ".yaml"):
        Path(f"b-1.wav{end}").replace(f"a-1.wav{end}")
    seeds = [spec.load(Path(f"a-{n}.wav.yaml")).seed for n in (1, 2)]
    content = said(acestep("generate", "a.yaml", "-o", "a.wav", "--json"))
    assert [(entry["status"], entry["seed"]) for entry in content["outputs"]] == [("skipped", seed) for seed in seeds]


def test_songs_that_all_fail_are_named(acestep: Run) -> None:
    song("a.yaml", caption="all silent")
    song("b.yaml", caption="all silent")
    result = acestep("generate", "a.yaml", "b.yaml", "-o", "out/")
    assert result.exit_code == 6
    for name in ("a", "b"):
        assert f"{Path('out', name)}.flac: The rendered audio is silent" in result.stderr


def test_a_batch_ends_with_a_line_for_each_take(acestep: Run) -> None:
    song("a.yaml", seed=7)
    song("b.yaml", caption="all silent", seed=8)
    acestep("generate", "a.yaml", "-o", "out/")
    song("c.yaml", seed=9)
    lines = acestep("generate", "a.yaml", "b.yaml", "c.yaml", "-o", "out/").stderr.splitlines()
    table = [line.split() for line in lines if line.startswith(("skipped", "failed", "written"))]
    assert table == [
        ["skipped", "7", "10.00", "-1.0", str(Path("out/a.flac"))],
        ["failed", "8", "10.00", str(Path("out/b.flac"))],
        ["written", "9", "10.00", "-1.0", str(Path("out/c.flac"))],
    ]


# What a review found


def test_forcing_without_a_sidecar_leaves_none_that_lies(acestep: Run) -> None:
    song("a.yaml", seed=7)
    acestep("generate", "a.yaml", "-o", "a.flac")
    acestep("generate", "a.yaml", "-o", "a.flac", "--bpm", "99", "--seed", "8", "--no-sidecar", "--force")
    assert names() == ["a.flac", "a.yaml"]
    assert acestep("generate", "a.yaml", "-o", "a.flac").exit_code == 9


def test_a_take_rolled_again_stays_in_its_batch(acestep: Run) -> None:
    song("a.yaml")
    acestep("generate", "a.yaml", "-n", "3", "-o", "a.wav")
    acestep("generate", "a.yaml", "-o", "a-2.wav", "--force")
    result = acestep("generate", "a.yaml", "-n", "3", "-o", "a.wav")
    assert (result.exit_code, result.stdout) == (0, "a-1.wav\na-2.wav\na-3.wav\n"), result.stderr
    assert result.stderr.count("kept, for it has the same recipe") == 3


def test_instrumental_false_sets_no_lyrics_aside(acestep: Run) -> None:
    song("a.yaml", lyrics="la")
    song("b.yaml", extends="a.yaml", instrumental="false")
    acestep("generate", "a.yaml", "--set", "instrumental=false", "-o", "a.wav")
    acestep("generate", "b.yaml", "-o", "b.wav")
    assert spec.load(Path("a.wav.yaml")).lyrics == spec.load(Path("b.wav.yaml")).lyrics == "la"


def test_a_key_is_unset_by_null(acestep: Run) -> None:
    song("a.yaml", seed=7, bpm=90)
    song("b.yaml", extends="a.yaml", bpm="null")
    content = said(acestep("generate", "b.yaml", "--set", "seed=null", "-o", "b.wav", "--json", "--explain"))
    assert "bpm" not in content["outputs"][0]["request"]
    assert content["outputs"][0]["origins"]["seed"] == "drawn"


def test_what_the_output_decides_says_so(acestep: Run) -> None:
    song("a.yaml", format="mp3", bitrate="128k")
    content = said(acestep("generate", "a.yaml", "-o", "x.ogg", "--json", "--explain"))
    assert content["outputs"][0]["origins"]["format"] == "--output"
    assert acestep("generate", "a.yaml", "-o", "y.flac", "--set", "format=flac").exit_code == 0
    assert acestep("generate", "a.yaml", "-o", "z.flac", "--set", "format=ogg").exit_code == 2
    same = said(acestep("generate", "a.yaml", "--format", "MP3", "--json", "--dry-run"))
    assert same["outputs"][0]["request"]["bitrate"] == 128


def test_a_suffix_is_kept_as_it_is_typed(acestep: Run) -> None:
    assert acestep("generate", "-c", "a", "-d", "10", "-o", "x.FLAC").stdout == "x.FLAC\n"
    assert Path("x.FLAC.yaml").is_file()


@pytest.mark.usefixtures("no_pipeline")
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["-c", "a", "-o", ""], 2, "--output: is empty."),
        ([""], 2, "The name of a spec is empty."),
        (["a.yaml", "./a.yaml", "-o", "out/"], 2, "a.yaml is given 2 times"),
        (["bare.yaml", "a.yaml", "-o", "out/"], 2, "bare.yaml: caption: there is nothing to make music from"),
        (["nowhere.yaml", "a.yaml", "-o", "out/"], 3, "nowhere.yaml: The checkpoint base is not installed"),
        (
            ["a.yaml", "clash.yaml", "-o", "out/"],
            2,
            "clash.yaml:1: instrumental: excludes lyrics (clash.yaml:2: lyrics)",
        ),
        (["clash.yaml"], 2, "clash.yaml:3: seed: -1 is not a whole number"),
        (["folded.yaml"], 2, "folded.yaml:2: lyrics: YAML makes one line of these; write `lyrics: |`"),
        (["plain.yaml"], 2, "plain.yaml:1: lyrics: YAML makes one line of these"),
        (["open.md"], 2, "open.md: has no line of --- that closes its front matter"),
        (["nul.yaml"], 2, "nul.yaml:1: extends: holds the character NUL"),
        (["home.yaml"], 2, "home.yaml:1: extends: "),
        (["loop.yaml"], 2, "loop.yaml: cannot be read: too many levels of symbolic links"),
        (["-", "--set", "lyrics_file=-"], 2, "--set lyrics_file: - stdin can be read once"),
        (["a.yaml", "-m", "./" + "x" * 5000], 3, "is neither a checkpoint's name nor a folder"),
        (["a.yaml", "--dry-run", "-o", "a.yaml/"], 9, "a.yaml cannot be written: not a directory"),
        (["deep-0.yaml"], 2, "is the end of a chain of more than 20 specs"),
        (["a.yaml", "--set", "timesteps=[1, 0.5, 2]"], 2, "--set timesteps: 2 is not a number from 0 to 1"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_more_refusals(acestep: Run, arguments: list[str], code: int, sentence: str) -> None:
    song("a.yaml")
    Path("bare.yaml").write_text("bpm: 90\n")
    song("nowhere.yaml", model="base")
    Path("clash.yaml").write_text("instrumental: yes\nlyrics: la\nseed: -1\n")
    Path("folded.yaml").write_text("caption: a\nlyrics: >\n  [Verse]\n  la\n")
    Path("plain.yaml").write_text("lyrics: [Verse\n  la]\n".replace("[", "").replace("]", ""))
    Path("open.md").write_text("\n---\ncaption: a\n\n[Verse]\nla\n")
    Path("nul.yaml").write_text('extends: "a\\0b"\n')
    Path("home.yaml").write_text("extends: ~nosuchuser/b.yaml\n")
    Path("loop.yaml").symlink_to("loop.yaml")
    for number in range(30):
        Path(f"deep-{number}.yaml").write_text(f"extends: deep-{number + 1}.yaml\n")
    result = acestep("generate", *arguments, stdin="caption: a\nduration: 10\n")
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert sentence.casefold() in " ".join(result.stderr.split()).casefold()
    assert "Traceback" not in result.stderr


def test_an_unexpected_failure_ends_its_own_song_alone(acestep: Run) -> None:
    song("a.yaml", seed=1)
    song("b.yaml", caption="breaks")
    song("c.yaml", seed=2)
    result = acestep("generate", "a.yaml", "b.yaml", "c.yaml", "-o", "out/", "--no-sidecar")
    assert result.exit_code == 7
    assert result.stdout.split() == [str(Path("out", f"{name}.flac")) for name in "ac"]
    assert "Something unexpected failed: RuntimeError: a string broke" in result.stderr


def test_a_take_whose_audio_is_gone_is_made_again_from_its_own_sidecar(acestep: Run) -> None:
    song("a.yaml")
    acestep("generate", "a.yaml", "-o", "a.wav")
    before = Path("a.wav").read_bytes()
    Path("a.wav").unlink()
    result = acestep("generate", "a.wav.yaml", "-o", "a.wav")
    assert result.exit_code == 0, result.stderr
    assert Path("a.wav").read_bytes() == before


def test_an_emptied_file_is_not_taken_for_the_song(acestep: Run) -> None:
    song("a.yaml")
    acestep("generate", "a.yaml", "-o", "a.wav")
    Path("a.wav").write_bytes(b"")
    result = acestep("generate", "a.yaml", "-o", "a.wav")
    assert result.exit_code == 9
    assert "a.wav exists already and is not the file that its sidecar describes." in result.stderr


def test_equal_sound_has_an_equal_recipe(acestep: Run) -> None:
    song("a.yaml", seed=7)
    acestep("generate", "a.yaml", "-o", "a.wav")
    for change in ("loudness=peak:-1.0", "instrumental=true"):
        assert acestep("generate", "a.yaml", "-o", "a.wav", "--set", change).exit_code == 0


def test_a_sidecar_of_other_weights_is_played_with_a_warning(acestep: Run) -> None:
    song("a.yaml", seed=7)
    acestep("generate", "a.yaml", "-o", "a.wav")
    text = Path("a.wav.yaml").read_text()
    Path("b.yaml").write_text(re.sub(r"weights: \w+", "weights: 0123456789abcdef", text))
    result = acestep("generate", "b.yaml", "-o", "b.wav")
    assert result.exit_code == 0
    assert "Warning: b.yaml: was rendered with other weights of turbo" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk of Linux")
def test_json_for_a_full_disk_is_a_sentence() -> None:
    for arguments in (
        ["generate", "-c", "a", "-d", "10", "-o", "a.wav", "--json"],
        ["spec", "check", "no.yaml", "--json"],
    ):
        with Path("/dev/full").open("w") as full:
            run = program(*arguments, stdout=full)
        assert b"stdout cannot be written: no space left on device." in run.stderr
        assert b"Traceback" not in run.stderr
        assert run.returncode in (9, 2)


def test_a_sidecar_with_odd_values_is_no_record(acestep: Run) -> None:
    song("a.yaml")
    acestep("generate", "a.yaml", "-o", "a.wav")
    text = Path("a.wav.yaml").read_text()
    for pattern, value in ((r"  seconds: .*", "  seconds: .nan"), (r"  checks:\n.*", "  checks: 2024-01-01")):
        Path("a.wav.yaml").write_text(re.sub(pattern, value, text))
        content = said(acestep("generate", "a.yaml", "-o", "a.wav", "--json"))
        assert content["error"]["exit_code"] == 9


def test_front_matter_may_stand_alone_and_end_with_dots(acestep: Run) -> None:
    for text in ("---\ncaption: a\nduration: 10\n---\n", "\n---\ncaption: a\nduration: 10\n...\nla\n"):
        Path("a.markdown").write_text(text)
        assert acestep("generate", "a.markdown", "--dry-run").exit_code == 0
        assert acestep("generate", "-", "--dry-run", stdin=text).exit_code == 0


@pytest.mark.parametrize(
    ("flag", "near"),
    [("--tempo", "--bpm"), ("--prompt", "--caption"), ("--codes", "--set codes=…"), ("--bmp", "--bpm"),
     ("--guidance-scale", "--guidance"), ("--instrumentl", "--instrumental")],
)  # fmt: skip
def test_an_unknown_flag_names_what_may_be_meant(acestep: Run, flag: str, near: str) -> None:
    result = acestep("generate", flag, "x", "--json")
    assert result.exit_code == 2
    message = said(result)["error"]["message"]
    assert near in message
    assert "--help" not in message


CODES = {
    0: ["generate", "-c", "a", "-d", "10"],
    1: ["generate", "-c", "breaks", "-d", "10"],
    2: ["generate", "--bpm", "20"],
    3: ["generate", "-c", "a", "-m", "base"],
    4: ["generate", "-c", "a", "-d", "10", "--max-vram", "1M"],
    5: ["cover", "no.wav", "-c", "a"],
    6: ["generate", "-c", "all silent", "-d", "10"],
    7: ["generate", "-c", "silent", "-d", "10", "-n", "3"],
    9: ["generate", "-c", "a", "-o", "no/a.wav"],
}


def test_every_exit_code_is_that_of_a_command() -> None:
    elsewhere = {8: "test_pull.py", 10: "test_timeout.py", INTERRUPTED: "above", TERMINATED: "above"}
    assert CODES.keys() | elsewhere.keys() == exit_codes.EXIT_CODES.keys()


@pytest.mark.parametrize(("code", "words"), CODES.items(), ids=str)
def test_a_failure_is_a_sentence_a_code_and_a_clean_stdout(code: int, words: list[str]) -> None:
    """In a process of its own, with a library that prints to stdout from Python and from C."""
    run = program(*words, "--progress", "none", text=True)
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    assert all(Path(line).is_file() for line in run.stdout.splitlines())
    assert bool(run.stdout) == (code in (0, 7))
    if code:
        assert len(" ".join(run.stderr.splitlines()[-2:]).split()) > 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("point", range(20))
def test_a_kill_at_any_point_leaves_whole_files_and_the_rest_to_do(point: int) -> None:
    """At an event of the run, and a moment later: writing, encoding and naming lie between two of them."""
    words = ["generate", "-c", "a", "-d", "10", "--seed", "7", "-n", "4", "-o", "out/"]
    ours, theirs = os.pipe()
    command = [sys.executable, BAND, *words, "--events", f"fd:{theirs}"]
    with started(command, pass_fds=[theirs], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        os.close(theirs)
        with os.fdopen(ours) as events:
            for _ in range(1 + 3 * point):
                if not in_time(events.readline):
                    break
            time.sleep(0.03 * (point % 4))
            run.kill()
    for file in Path("out").glob("*.flac"):
        assert soundfile.info(file).frames == 480_000
        assert Path(f"{file}.yaml").is_file()
    left = sorted(path.name for path in Path("out").glob("*") if not path.name.startswith("."))
    assert all(re.fullmatch(r"a-[1-4]\.flac(\.yaml)?", name) for name in left)
    again = program(*words)
    assert again.returncode == 0, again.stderr
    assert program(*words[:-1], "undisturbed/").returncode == 0
    for number in range(1, 5):
        assert Path(f"out/a-{number}.flac").read_bytes() == Path(f"undisturbed/a-{number}.flac").read_bytes()


@pytest.mark.parametrize("lines", [1, 90])
def test_help_that_is_read_no_further_ends_in_silence(lines: int) -> None:
    """As by `head`: some lines are read, and the pipe is closed while the rest is on its way."""
    words = [sys.executable, "-m", "acestep_cli", "train-lora", "--help-all"]
    environment = os.environ | {"COLUMNS": "80"}
    with started(words, env=environment) as run:
        for _ in range(lines):
            assert in_time(run.stdout.readline)
        run.stdout.close()
        assert in_time(run.stderr.read) == ""
