"""The songs that the guide promises for cards, counted tensor by tensor on a card made of paper."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from support.places import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("memory_gb", [4, 6, 8, 12, 16, 20, 24])
def test_a_promised_song_takes_what_is_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_gb: int
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    card_memory = importlib.import_module("card_memory")
    [(_, _, row)] = card_memory.rows(tmp_path, ["turbo"], [memory_gb])
    assert row.counted.peak <= row.predicted <= 1.1 * row.counted.peak
    assert row.predicted <= row.room
    assert row.counted.plan.arrangement == row.plan.arrangement  # memory did not run out
