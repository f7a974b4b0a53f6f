"""The benchmark that needs a graphics card runs, shrunk, without one; and what a benchmark shows of adapters holds."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from support.command import finish
from support.places import ROOT

BENCHMARKS = ROOT / "benchmarks"
GPU = BENCHMARKS / "gpu.py"


@pytest.mark.slow
def test_the_card_s_benchmark_runs_anywhere() -> None:
    run = finish([sys.executable, GPU, "--tiny", "--rounds", "1"], text=True, timeout=900)
    assert run.returncode == 0, run.stderr
    rows = [line for line in run.stdout.splitlines() if " GB | " in line]
    assert len(rows) == 7
    assert not any("failed" in row for row in rows)
    assert "no figure here means anything" in run.stdout


@pytest.mark.slow
def test_an_adapter_moves_renders_towards_its_songs_and_at_scale_0_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    adapter_style = importlib.import_module("adapter_style")
    away, equal = adapter_style.distances(tmp_path, steps=200)
    assert equal
    assert away[1.0] < away[0.5] < away[0.0] == away[None]
    assert away[1.0] < 0.95 * away[None]
