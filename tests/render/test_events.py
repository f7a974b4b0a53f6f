"""`--events` and `--smoke`: what machines read of a render, and what CI asks of one."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.errors import OutputError
from acestep_cli.render import events
from acestep_cli.song import spec
from support import tiny
from support.command import LIMIT, Run, finish, read_to, started
from support.places import BAND, EVENT_SCHEMA


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))


def said(text: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        jsonschema.validate(line, EVENT_SCHEMA)
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    return lines


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines]


# Events


def test_events_tell_what_is_done_and_what_came_of_it(acestep: Run) -> None:
    assert acestep("generate", "--bpm", "20", "--events", "e.ndjson").exit_code == 2  # an earlier run
    words = [
        "-c",
        "long slow piano ballad",
        "-d",
        "10",
        "-n",
        "2",
        "--seed",
        "7",
        "-o",
        "out/",
        "-q",
        "--events",
        "e.ndjson",
    ]
    assert acestep("generate", *words).exit_code == 0
    lines = said(Path("e.ndjson").read_text())
    assert (kinds(lines)[0], kinds(lines)[-1]) == ("start", "end")
    assert lines[-1]["exit_code"] == 0
    made = [line for line in lines if line["event"] == "take"]
    assert [(line["path"], line["seed"], line["status"]) for line in made] == [
        (str(Path("out", f"long-slow-piano-ballad-{n}.flac")), 6 + n, "written") for n in (1, 2)
    ]
    stages = list(dict.fromkeys(line["stage"] for line in lines if line["event"] == "progress"))
    assert stages == ["load", "text", "diffuse", "decode"]
    assert kinds(lines).count("warning") == 1
    first = next(number for number, line in enumerate(lines) if line["event"] == "take")
    assert "progress" in kinds(lines[first:])  # a take is told of when it is there, not at the end
    acestep("generate", *words)
    assert [line.get("status") for line in said(Path("e.ndjson").read_text()) if line["event"] == "take"] == [
        "skipped"
    ] * 2


@pytest.mark.parametrize(
    ("words", "code", "statuses"),
    [
        (["-c", "silent", "-d", "10", "-n", "3"], 7, ["written", "failed", "written"]),
        (["-c", "too big", "-d", "10", "-n", "3"], 7, ["written", "failed", "failed"]),
        (["--bpm", "90"], 2, []),
    ],
)
def test_events_tell_of_failures(acestep: Run, words: list[str], code: int, statuses: list[str]) -> None:
    result = acestep("generate", *words, "-o", "out/", "--events", "e.ndjson")
    assert result.exit_code == code
    lines = said(Path("e.ndjson").read_text())
    assert [line["status"] for line in lines if line["event"] == "take"] == statuses
    assert lines[-1]["exit_code"] == lines[-1]["error"]["exit_code"] == code


def test_heartbeats_come_while_nothing_else_does(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.2)
    monkeypatch.setattr("support.band.rest", lambda: time.sleep(0.5))
    assert acestep("generate", "-c", "slow decode", "-d", "10", "--events", "e.ndjson").exit_code == 0
    lines = said(Path("e.ndjson").read_text())
    # Beats of a slow start come before any stage is named.
    decoding = next(number for number, line in enumerate(lines) if line.get("stage") == "decode")
    beats = [line for line in lines[decoding:] if line["event"] == "heartbeat"]
    assert len(beats) >= 5
    assert {line["stage"] for line in beats} == {"decode"}
    # A step has gone on since the last line that is no heartbeat, however long a busy machine takes over it.
    for number, line in enumerate(lines):
        if line in beats:
            since = next(one["time"] for one in reversed(lines[:number]) if one["event"] != "heartbeat")
            assert 0.15 < line["step_seconds"] < line["time"] - since + 0.3
    steps = [line for line in beats if line["done"] > 0]
    assert steps
    assert all(0.4 < line["usual_step_seconds"] < 5 for line in steps)
    assert all("usual_step_seconds" not in line for line in beats if line["done"] == 0)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of Unix")
def test_events_go_to_a_descriptor_while_stdout_carries_paths() -> None:
    ours, theirs = os.pipe()
    words = ["generate", "-c", "a", "-d", "10", "-o", "a.wav", "--events", f"fd:{theirs}"]
    run = finish([sys.executable, BAND, *words], pass_fds=[theirs], check=True)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        assert kinds(said(pipe.read()))[-2:] == ["take", "end"]
    assert run.stdout == b"a.wav\n"


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of Unix")
def test_a_reader_of_events_who_left_is_no_reason_to_stop() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    words = ["generate", "-c", "a", "-d", "10", "-o", "a.wav", "--events", f"fd:{theirs}"]
    run = finish([sys.executable, BAND, *words], pass_fds=[theirs])
    os.close(theirs)
    assert (run.returncode, run.stdout) == (0, b"a.wav\n"), run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_the_last_event_tells_of_the_signal_that_ended_it() -> None:
    words = ["generate", "-c", "slow diffuse", "-d", "10", "-o", "a.wav", "--events", "e.ndjson"]
    with started([sys.executable, BAND, *words]) as run:
        read_to(run.stderr, "Making music")
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=LIMIT)
    lines = said(Path("e.ndjson").read_text())
    assert (lines[-1]["event"], lines[-1]["exit_code"], lines[-2]["status"]) == ("end", 143, "failed")


def tell(place: str, warn: Callable[[str], None], steps: int) -> None:
    with events.open_events(place, warn) as out:
        for step in range(steps):
            out.emit("progress", stage="load", done=step, total=steps)


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


@needs_full
@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_a_disk_that_takes_no_events_is_an_error_at_the_end(acestep: Run, quiet: list[str]) -> None:
    result = acestep("generate", "-c", "a", "-d", "10", "-o", "a.wav", "--json", "--events", "/dev/full", *quiet)
    assert result.exit_code == 9, result.output
    sentence = "/dev/full cannot be written: no space left on device; the events end early."
    assert ("Warning: " + sentence in result.stderr) == (not quiet)
    closing = f"{sentence}\nFree some space, or name a file on another disk with --events."
    assert result.stderr.endswith(closing + "\n")
    content = json.loads(result.stdout)
    assert [output["status"] for output in content["outputs"]] == ["written"]  # nothing else is lost
    assert (content["status"], content["error"]["exit_code"]) == ("error", 9)
    assert Path("a.wav").exists()


@needs_full
def test_another_failure_keeps_its_code_where_events_are_lost_too(acestep: Run) -> None:
    result = acestep("generate", "-c", "silent", "-d", "10", "-n", "3", "-o", "out/", "--events", "/dev/full")
    assert result.exit_code == 7, result.output
    assert "the events end early" in result.stderr


@pytest.mark.parametrize("takes", [0, 20, 400])
def test_a_file_of_events_that_ends_early_ends_with_a_whole_line(monkeypatch: pytest.MonkeyPatch, takes: int) -> None:
    room, write = takes, os.write
    written: list[str] = []

    def full(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = write(descriptor, bytes(data[:room]))
        room -= taken
        return taken

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OutputError) as caught:
            tell("e.ndjson", written.append, 9)
    text = Path("e.ndjson").read_text()
    assert text == "" or text.endswith("\n")
    assert len(said(text)) == text.count("\n") == (3 if takes == 400 else 0)
    assert len(written) == 1
    assert caught.value.exit_code == 9


def test_a_slow_reader_of_a_pipe_without_waiting_gets_every_event() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    read: list[bytes] = []

    def reader() -> None:
        with os.fdopen(ours, "rb") as stream:
            time.sleep(0.2)
            read.append(stream.read())

    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    tell(f"fd:{theirs}", print, 2000)  # more than a pipe holds
    os.close(theirs)
    thread.join(60)
    assert len(read) == 1
    assert kinds(said(read[0].decode())).count("progress") == 2000


def test_no_file_but_one_of_events_is_written_over(acestep: Run) -> None:
    song = "caption: a\nduration: 10\n"
    Path("song.yaml").write_text(song)
    result = acestep("generate", "song.yaml", "-o", "a.wav", "--events", "song.yaml")
    assert (result.exit_code, Path("song.yaml").read_text()) == (9, song)
    assert "song.yaml exists already and does not hold events.\nName another file for --events." in result.stderr
    assert not Path("a.wav").exists()


@pytest.mark.parametrize("place", ["a.wav", "./a.wav.yaml"])
def test_events_do_not_go_into_a_file_of_the_run(acestep: Run, place: str) -> None:
    result = acestep("generate", "-c", "a", "-d", "10", "-o", "a.wav", "--force", "--events", place)
    assert result.exit_code == 2
    assert f"--events {place}: is a file that this run writes." in result.stderr
    assert kinds(said(Path(place).read_text()))[-1] == "end"


def test_events_go_to_what_is_no_file(acestep: Run) -> None:
    assert acestep("generate", "-c", "a", "-d", "10", "-o", "a.wav", "--events", os.devnull).exit_code == 0


@pytest.mark.parametrize(
    ("place", "code", "sentence"),
    [
        ("no/e.ndjson", 9, "no/e.ndjson cannot be written: no such file or directory."),
        ("fd:1", 2, "--events fd:1: stdout carries results alone."),
        ("fd:x", 2, "--events fd:x: is not a descriptor such as fd:3."),
        ("fd:99", 2, "--events fd:99: is not open."),
        ("fd:-1", 2, "--events fd:-1: is not open."),
        ("fd:99999999999999999999", 2, "--events fd:99999999999999999999: is not a descriptor"),
    ],
)
def test_events_that_go_nowhere_are_refused(acestep: Run, place: str, code: int, sentence: str) -> None:
    result = acestep("generate", "-c", "a", "-d", "10", "--events", place)
    assert result.exit_code == code
    assert sentence in result.stderr
    assert list(Path().iterdir()) == []


def test_an_album_tells_of_each_file_too(acestep: Run) -> None:
    Path("a.yaml").write_text("album: {title: A}\ntracks:\n  - {id: one, caption: a, duration: 10}\n"
                              "  - {id: two, caption: all silent, duration: 10}\n")  # fmt: skip
    assert acestep("album", "render", "a.yaml", "-o", "out", "--events", "e.ndjson").exit_code == 7
    lines = said(Path("e.ndjson").read_text())
    assert [line["status"] for line in lines if line["event"] == "take"] == ["written", "failed"]
    assert lines[-1]["exit_code"] == 7


def test_a_replay_tells_how_it_goes_and_of_no_file_that_is_gone(acestep: Run) -> None:
    acestep("generate", "-c", "a", "-d", "10", "-o", "a.wav")
    assert acestep("replay", "a.wav", "--events", "e.ndjson").exit_code == 0
    lines = said(Path("e.ndjson").read_text())
    assert (kinds(lines)[0], kinds(lines)[-1], lines[-1]["exit_code"]) == ("start", "end", 0)
    assert {"load", "diffuse"} < {line["stage"] for line in lines if line["event"] == "progress"}
    assert "take" not in kinds(lines)
    soundfile.write("a.wav", np.full((480_000, 2), 0.25), 48_000)
    assert acestep("replay", "a.wav", "--events", "e.ndjson").exit_code == 6
    assert said(Path("e.ndjson").read_text())[-1]["error"]["message"].startswith("a.wav: drifted")


# Smoke


def test_smoke_is_one_short_take_of_few_steps_and_flags_win(acestep: Run) -> None:
    Path("a.yaml").write_text("caption: a\nduration: 3:00\nsteps: 8\ntakes: 4\nfade_in: 20\nbpm: 90\n")
    assert acestep("generate", "a.yaml", "--smoke", "-o", "a.wav").exit_code == 0
    made = spec.load(Path("a.wav.yaml"))
    assert (made.duration, made.steps, made.takes, made.fade_in, made.bpm) == (10, 2, 1, None, 90)
    assert acestep("generate", "a.yaml", "--smoke", "-o", "b.wav", "-d", "12", "--steps", "3").exit_code == 0
    assert (spec.load(Path("b.wav.yaml")).duration, spec.load(Path("b.wav.yaml")).steps) == (12, 3)
    result = acestep("generate", "a.yaml", "--smoke", "--dry-run", "--explain", "-o", "c.wav")
    assert "--smoke" in next(line for line in result.stderr.splitlines() if line.startswith("duration"))


def test_smoke_of_codes_timesteps_and_recordings(acestep: Run) -> None:
    codes = ", ".join(["3"] * 150)
    Path("a.yaml").write_text(f"caption: a\ncodes: [{codes}]\ntimesteps: [1, 0.5]\n")
    assert acestep("generate", "a.yaml", "--smoke", "-o", "a.wav").exit_code == 0
    assert spec.load(Path("a.wav.yaml")).codes is None
    soundfile.write("s.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (3 * 48_000, 2)), 48_000)
    assert acestep("repaint", "s.wav", "--start", "1", "--end", "2", "-c", "a", "--smoke", "-o", "r.wav").exit_code == 0
    made = spec.load(Path("r.wav.yaml"))
    assert (made.duration, made.steps) == (3, 2)


@pytest.mark.parametrize("to", ["a.wav", "-"])
def test_smoke_refuses_what_has_a_fault(acestep: Run, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    monkeypatch.setattr("support.band.Pipeline._tone", lambda self, seed, seconds: np.stack(
        [np.ones(int(48_000 * seconds), np.float32), np.zeros(int(48_000 * seconds), np.float32)]
    ))  # fmt: skip
    words = ["generate", "-c", "a", "-d", "10", "-o", to, "--loudness", "none"]
    result = acestep(*words, "--smoke")
    assert result.exit_code == 6
    assert "--smoke: dead channel is right, not none; clipping is 1 crest, not none; DC offset" in result.stderr
    assert not list(Path().iterdir())
    assert acestep(*words).exit_code == 0


def test_a_smoke_render_of_the_built_in_model_passes() -> None:
    result = CliRunner().invoke(app, ["generate", "-c", "techno", "--smoke", "-m", "pocket", "-o", "a.mp3"])
    assert result.exit_code == 0, result.stderr
    assert soundfile.info("a.mp3").frames >= 10 * 48_000
