"""Every figure of a take is one of its file: in all modes and formats, with and without a loudness.

The files are decoded here by other means than the program's, and measured by other formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
import pytest
import soundfile
import soxr
import yaml
from scipy.signal import resample_poly
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.song import modes
from support import ffmpeg, tiny
from support.command import flat, said

RATE = 48_000
#: What each mode is asked, beside its source.
ASKED: dict[str, list[str]] = {
    "generate": ["-c", "x", "-d", "10"],
    "cover": ["-c", "x"],
    "repaint": ["-c", "x", "--start", "1.5", "--end", "3.01"],
    "lego": ["--track", "bass", "--mix"],
    "extract": ["--track", "vocals", "--track", "drums"],
    "complete": ["--track", "bass"],
    "edit": ["-c", "x", "--from-caption", "y"],
}
FORMATS = {
    "32f": ("wav", "--bit-depth", "32f"),
    "wav": ("wav",),
    "wav 16": ("wav", "--bit-depth", "16"),
    "flac": ("flac",),
    "flac 16 at 44.1 kHz": ("flac", "--bit-depth", "16", "--sample-rate", "44100"),
    "mp3": ("mp3",),
    "ogg faded": ("ogg", "--fade-out", "1"),
    "opus": ("opus",),
    "m4a": ("m4a",),
}
#: The formats with each loudness; without one, a mode has its own.
LOUDNESS = [
    *((format, loudness) for format in FORMATS for loudness in ("none", "peak:-3")),
    *((format, loudness) for format in ("32f", "mp3") for loudness in ("lufs:-20", None)),
]


@pytest.fixture(scope="module")
def recordings(base: tiny.Oracle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a source in floating point that peaks at +6 dBFS, and a cache that all files are encoded from."""
    folder = tmp_path_factory.mktemp("recordings")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ACESTEP_MODELS_DIR", str(base.root))
        patched.setenv("ACESTEP_CACHE_DIR", str(folder / "cache"))
        ffmpeg.install(folder)
        patched.setenv("PATH", str(folder), prepend=":")
        samples = (0.3 * np.random.default_rng(0).standard_normal((4 * RATE, 2))).clip(-0.9, 0.9).astype(np.float32)
        samples[::4800] = 1.98
        samples[2400::4800] = -1.98
        soundfile.write(folder / "loud.wav", samples, RATE, subtype="FLOAT")
        yield folder


def decoded(file: Path) -> tuple[np.ndarray, int]:
    """The samples of a file [N, 2] and its rate. The stand-in for ffmpeg keeps them as they are."""
    if file.suffix == ".m4a":
        return np.frombuffer(ffmpeg.samples_of(file.read_bytes()), "<f4").reshape(-1, 2), RATE
    return soundfile.read(file, dtype="float32")


def decibels(value: float) -> float:
    return 20 * math.log10(value)


def levels(samples: np.ndarray, rate: int) -> dict[str, float]:
    """Sample peak, true peak and loudness, of all samples at once."""
    return {
        "peak_dbfs": decibels(np.abs(samples).max()),
        "true_peak_db": decibels(np.abs(resample_poly(samples, 4, 1, axis=0)).max()),
        "lufs": pyloudnorm.Meter(rate).integrated_loudness(samples.astype(np.float64)),
    }


def splice_figures(samples: np.ndarray, rate: int, source: np.ndarray) -> dict[str, float]:
    """The figures of the repaint, whose crossfades of 25 ms lie outside of its region."""
    source = soxr.resample(source, RATE, rate, quality="VHQ")
    start, end, fade = round(1.5 * rate), round(3.01 * rate), round(0.025 * rate)
    apart = np.abs(samples - source)
    smeared = 0 if rate == RATE else math.ceil(0.001 * rate)
    outside = np.concatenate((apart[: start - fade - smeared], apart[end + fade + smeared :]))
    found = {
        "outside_difference": outside.max(),
        "inside_change_db": decibels(np.sqrt((apart[start:end].astype(np.float64) ** 2).mean())),
    }
    for number, (first, last) in enumerate(((start - fade, start), (end, end + fade)), start=1):
        reach, around = round(0.001 * rate), round(0.05 * rate)
        step = np.abs(np.diff(samples[first - reach : last + reach], axis=0)).max()
        rms = np.sqrt((samples[first - around : last + around].astype(np.float64) ** 2).mean())
        found[f"seam_{number}_db"] = decibels(step) - decibels(rms)
    return found


def render(recordings: Path, mode: str, format: str, loudness: str | None) -> tuple[dict[str, Any], Any]:
    """Make the files of a mode, and return the object of `--json` and the run."""
    suffix, *settings = FORMATS[format]
    name = f"{mode} {format} {loudness}".replace(":", "")
    source = [] if mode == "generate" else [str(recordings / "loud.wav")]
    words = [mode, *source, *ASKED[mode], "--seed", "1", "--set", "steps=2", "--cache", *settings]
    words += [] if loudness is None else ["--loudness", loudness]
    result = CliRunner().invoke(app, [*words, "-o", str(recordings / f"{name}.{suffix}"), "--json", "--force"])
    assert result.exit_code == 0, result.stderr
    return said(result), result


@pytest.mark.parametrize(("format", "loudness"), LOUDNESS)
@pytest.mark.parametrize("mode", modes.MODES)
def test_every_figure_is_of_the_file(recordings: Path, mode: str, format: str, loudness: str | None) -> None:
    content, result = render(recordings, mode, format, loudness)
    source = soundfile.read(recordings / "loud.wav", dtype="float32")[0]
    table = [line.split("  ") for line in result.stderr.splitlines() if line.startswith("written")]
    for entry in content["outputs"]:
        file = Path(entry["path"])
        samples, rate = decoded(file)
        checks = entry["checks"]
        assert checks == yaml.safe_load(Path(entry["sidecar"]).read_text())["render"]["checks"]
        assert entry["seconds"] == pytest.approx(len(samples) / rate, abs=1e-4)
        found = levels(samples, rate)
        assert checks["peak_dbfs"] == pytest.approx(found["peak_dbfs"], abs=0.006)
        assert checks["true_peak_db"] == pytest.approx(found["true_peak_db"], abs=0.06)
        assert checks["lufs"] == pytest.approx(found["lufs"], abs=0.02)
        if mode == "repaint":
            figures = splice_figures(samples, rate, source)
            assert {name: checks[name] for name in figures} == pytest.approx(figures, abs=0.006)
        if entry["kind"] == "residual":
            left = decibels(np.sqrt((samples.astype(np.float64) ** 2).mean() / (source.astype(np.float64) ** 2).mean()))
            assert checks["residual_db"] == pytest.approx(left, abs=0.02)
        if len(content["outputs"]) > 1:
            [row] = [cells for cells in table if cells[-1].strip() == str(file)]
            assert float(row[-2]) == pytest.approx(checks["peak_dbfs"], abs=0.051)


@pytest.mark.parametrize("mode", modes.MODES)
def test_peaks_over_full_scale_are_kept_in_floating_point_and_told_elsewhere(recordings: Path, mode: str) -> None:
    kept, result = render(recordings, mode, "32f", "none")
    assert "cannot hold" not in flat(result)
    peaks = {entry["kind"]: entry["checks"]["peak_dbfs"] for entry in kept["outputs"]}
    assert mode not in ("repaint", "lego", "extract") or max(peaks.values()) > 5
    for format in ("flac", "wav 16", "mp3"):
        content, _ = render(recordings, mode, format, "none")
        for entry in content["outputs"]:
            told = [one for one in content["warnings"] if one.startswith(f"{Path(entry['path']).name}: peaks at")]
            peak = max(one["checks"]["peak_dbfs"] for one in kept["outputs"]
                       if (one["kind"], one["track"]) == (entry["kind"], entry["track"]))  # fmt: skip
            assert len(told) == (peak > 0)
            assert not told or f"peaks at {peak:+.1f} dBFS" in told[0]
            if format != "mp3":
                assert entry["checks"]["peak_dbfs"] <= 0
