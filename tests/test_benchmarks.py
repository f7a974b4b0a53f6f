"""The benchmark that needs a graphics card runs, shrunk, without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_the_card_s_benchmark_runs_anywhere() -> None:
    run = subprocess.run(
        [sys.executable, GPU, "--tiny", "--rounds", "1"], capture_output=True, text=True, check=False, timeout=900
    )
    assert run.returncode == 0, run.stderr
    rows = [line for line in run.stdout.splitlines() if " GB | " in line]
    assert len(rows) == 7
    assert not any("failed" in row for row in rows)
    assert "no figure here means anything" in run.stdout
