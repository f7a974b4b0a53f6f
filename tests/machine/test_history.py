"""What renders teach is found again, where it holds, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.machine import history, plan
from acestep_cli.machine.hardware import GIB, Device
from acestep_cli.machine.plan import Overhead, Plan, Speed
from support import tiny

CARD = Device("cuda:0", "cuda", "a card", 8 * GIB, 6 * GIB, ("bfloat16",), "why")
LOWER = Plan(device="cuda:0", backend="cuda", dtype="bfloat16", tile_frames=64, one_network=True, int8=True, reasons={})
TASK = "turbo generate"


@pytest.fixture(autouse=True)
def _own_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def recall(seconds: float = 120, device: Device = CARD, task: str = TASK) -> plan.PastRenders:
    return history.recall_renders(history.read_history(), device, task, "bfloat16", seconds)


def test_a_fallback_is_remembered_for_songs_as_long_or_longer() -> None:
    history.record_render(CARD, TASK, LOWER, fallback_seconds=120.5, speed=None)
    assert recall(120).arrangement == recall(600).arrangement == LOWER.arrangement
    assert recall(119).arrangement is None
    assert recall(task="sft generate").arrangement is None
    assert recall(device=replace(CARD, title="another card")).arrangement is None


def test_a_fallback_counts_only_while_memory_is_as_short() -> None:
    history.record_render(CARD, TASK, LOWER, fallback_seconds=120, speed=None)
    assert recall(device=replace(CARD, free_bytes=5 * GIB)).arrangement is not None
    assert recall(device=replace(CARD, free_bytes=8 * GIB)).arrangement is None


def test_speeds_are_kept_apart_by_how_the_weights_are_kept() -> None:
    history.record_render(CARD, TASK, LOWER, fallback_seconds=None, speed=Speed(100, 10))
    history.record_render(CARD, TASK, LOWER, fallback_seconds=None, speed=Speed(200, 20))
    history.record_render(
        CARD, TASK, LOWER.model_copy(update={"int8": False}), fallback_seconds=None, speed=Speed(7, 7)
    )
    arithmetic = LOWER.model_copy(update={"int8_arithmetic": True})
    history.record_render(CARD, TASK, arithmetic, fallback_seconds=120, speed=Speed(9, 9))
    assert recall().speeds == {
        "bfloat16 int8": Speed(150, 15),
        "bfloat16": Speed(7, 7),
        "bfloat16 int8 arithmetic": Speed(9, 9),
    }
    assert recall().arrangement == arithmetic.arrangement


def test_overheads_are_smoothed_and_need_a_speed_beside_them() -> None:
    history.record_overhead(CARD, TASK, LOWER, Overhead(4, 1))
    assert recall().overheads == {}
    history.record_render(CARD, TASK, LOWER, fallback_seconds=None, speed=Speed(100, 10))
    history.record_overhead(CARD, TASK, LOWER, Overhead(4, 1))
    history.record_overhead(CARD, TASK, LOWER, Overhead(6, 2, writing_per_second=0.5))
    assert recall().overheads == {"bfloat16 int8": Overhead(5, 1.5, 0.5)}
    history.record_overhead(CARD, TASK, LOWER, Overhead(5, 1.5))
    assert recall().overheads == {"bfloat16 int8": Overhead(5, 1.5, 0.5)}


def test_a_fallback_under_a_cap_counts_under_such_caps_alone() -> None:
    capped = LOWER.model_copy(update={"max_vram": 4 * GIB})
    history.record_render(CARD, TASK, capped, fallback_seconds=120, speed=None)
    assert recall().arrangement is None
    under = history.recall_renders(history.read_history(), CARD, TASK, "bfloat16", 120, 4 * GIB)
    assert under.arrangement == LOWER.arrangement


@pytest.mark.parametrize("content", ["", "{", '{"schema": "acestep-logbook/2"}', '{"devices": 5}', "[]"])
def test_a_history_of_another_kind_is_an_empty_one(content: str) -> None:
    history.history_file().parent.mkdir(parents=True)
    history.history_file().write_text(content)
    assert recall().arrangement is None
    history.record_render(CARD, TASK, LOWER, fallback_seconds=10, speed=None)
    assert recall(10).arrangement == LOWER.arrangement
    assert list(history.history_file().parent.iterdir()) == [history.history_file()]


def test_a_render_teaches_the_next_plan(two_b: tiny.Oracle, tmp_path: Path) -> None:
    song = ["generate", "-c", "x", "-d", "10", "--models-dir", str(two_b.root), "-m", "turbo", "-o"]

    def seconds() -> float | None:
        told = CliRunner().invoke(app, [*song, str(tmp_path / "b.wav"), "--dry-run", "--json"])
        return json.loads(told.stdout)["outputs"][0]["plan"].get("seconds")

    assert seconds() is None
    made = CliRunner().invoke(app, [*song, str(tmp_path / "a.wav"), "-q"])
    assert made.exit_code == 0, made.stderr
    assert seconds() > 0
    [task] = history.read_history().devices.popitem()[1]
    assert task.startswith("turbo generate ")


def test_a_folder_in_the_place_of_the_history_is_a_warning(
    two_b: tiny.Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("a file, where a folder should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    out = str(tmp_path / "a.wav")
    song = ["generate", "-c", "x", "-d", "10", "--models-dir", str(two_b.root), "-m", "turbo", "-o", out]
    made = CliRunner().invoke(app, song)
    assert made.exit_code == 0, made.stderr
    assert "this render's time and memory are lost" in made.stderr


def test_only_the_song_that_ran_out_of_memory_is_remembered(
    two_b: tiny.Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is rendered as low as the first had to go, which says nothing of its own length."""
    from acestep_cli.engine import stages

    decode, tries = stages.decode, iter(range(9))

    def fail(*arguments: Any) -> Any:
        if next(tries) == 0:
            raise MemoryError
        return decode(*arguments)

    monkeypatch.setattr(stages, "decode", fail)
    specs = []
    for name, seconds in (("a", 12), ("b", 10)):
        specs.append(str(tmp_path / f"{name}.yaml"))
        Path(specs[-1]).write_text(f"caption: x\nduration: {seconds}\n")
    place = ["--models-dir", str(two_b.root), "-m", "turbo", "-o", f"{tmp_path / 'out'}/", "--json"]
    made = CliRunner().invoke(app, ["render", *specs, *place])
    assert made.exit_code == 0, made.stderr
    report = json.loads(made.stdout)
    assert [output["plan"]["tile_frames"] for output in report["outputs"]] == [128, 128]
    [task] = history.read_history().devices.popitem()[1].values()
    assert list(task.descents) == [12]


def test_the_most_takes_that_shared_a_pass_are_remembered() -> None:
    history.record_render(CARD, TASK, LOWER, fallback_seconds=120, speed=None, most_together=2)
    assert recall(120).most_together == 2
    assert recall(119).most_together is None
    assert recall(120).arrangement == LOWER.arrangement
    history.record_render(CARD, TASK, LOWER, fallback_seconds=120, speed=None)
    assert recall(120).most_together is None  # it was not that which memory ran out over
