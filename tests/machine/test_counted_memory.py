"""Songs of real size, counted tensor by tensor on a card made of paper: those that the guide promises for cards, longer
songs and edits.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from support.places import ROOT


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def assert_predicted(row: Any) -> None:
    """Check the memory of each stage and of all."""
    counted = row.counted
    assert counted.peak <= row.predicted <= 1.1 * counted.peak
    assert row.predicted <= row.room
    assert counted.plan.arrangement == row.plan.arrangement  # memory did not run out
    for stage in row.plan.stages:
        assert counted.stages[stage.name] <= stage.total, stage.name


@pytest.mark.slow
@pytest.mark.parametrize("memory_gb", [4, 6, 8, 12, 16, 20, 24])
def test_a_promised_song_takes_what_is_predicted(tmp_path: Path, memory_gb: int) -> None:
    card_memory = importlib.import_module("card_memory")
    [(_, _, row)] = card_memory.rows(tmp_path, ["turbo"], [memory_gb])
    assert_predicted(row)


@pytest.mark.slow
def test_longer_songs_and_edits_take_what_is_predicted(tmp_path: Path) -> None:
    source_memory = importlib.import_module("source_memory")
    for song, row in source_memory.rows(tmp_path):
        assert_predicted(row)
        in_view = source_memory.ADDED + source_memory.CONTEXT if song.keys.get("context") else 600
        assert set(row.counted.passes) == {25 * in_view}, song.name
