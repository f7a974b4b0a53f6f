"""Benchmarks run, shrunk: their figures mean nothing here. And what one of them shows of adapters holds."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

import pytest

from support.command import LONG_LIMIT, finish
from support.places import ROOT

BENCHMARKS = ROOT / "benchmarks"
GPU = BENCHMARKS / "gpu.py"


@pytest.mark.parametrize(
    ("script", "arguments", "rows"),
    [
        ("help", ["1"], 3),
        ("completion", ["1"], 10),
        ("spec_check", ["1"], 2),
        pytest.param("generate", ["--rounds", "1", "--seconds", "3", "--dry"], 2, marks=pytest.mark.slow),
    ],
)
def test_what_measures_processes_prints_its_table(tmp_path: Path, script: str, arguments: list[str], rows: int) -> None:
    command = [sys.executable, BENCHMARKS / f"{script}.py", *arguments]
    environment = {**os.environ, "ACESTEP_MODELS_DIR": str(tmp_path)}
    run = finish(command, text=True, env=environment, timeout=LONG_LIMIT)
    assert not run.stderr
    figures = [line for line in run.stdout.splitlines() if line.startswith("| ") and re.search(r"\d", line)]
    assert len(figures) == rows


@pytest.mark.parametrize(
    ("script", "arguments", "rows"),
    [
        ("dit_step", ["--case", "1", "--scale", "0.02", "--rounds", "1"], 1),
        ("int8_step", ["--case", "1", "--scale", "0.05", "--rounds", "1"], 1),
        ("adapters", ["--layers", "1", "--seconds", "1", "--rounds", "1"], 8),
        pytest.param("train_step", ["--scale", "0.02", "--rounds", "1"], 2, marks=pytest.mark.slow),
        pytest.param(
            "vae_decode",
            ["--seconds", "0.5", "--song", "1", "--fits", "0.5", "--rounds", "1"],
            4,
            marks=pytest.mark.slow,
        ),
        pytest.param("threads", ["--music", "0.2", "--sound", "0.1"], 14, marks=pytest.mark.slow),
        pytest.param("memory", ["--layers", "1"], 4, marks=pytest.mark.slow),
    ],
)
def test_what_measures_networks_prints_its_table(script: str, arguments: list[str], rows: int) -> None:
    """With one layer or two of the published sizes, and a moment of music."""
    run = finish([sys.executable, BENCHMARKS / f"{script}.py", *arguments, "--dry"], text=True, timeout=LONG_LIMIT)
    assert run.returncode == 0, run.stderr
    table = [line for line in run.stdout.splitlines() if line.startswith("| ")]
    assert len(table[2:]) == rows


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
