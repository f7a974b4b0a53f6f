"""`acestep extend`: a repaint beyond the ends of its source, under the name that people look for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.song import spec, spec_layers
from support.command import Run, said
from support.sounds import recording

SECONDS = 8


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    recording("song.wav", SECONDS)
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "start", "end", "seconds"),
    [
        (["--after", "0:30"], None, SECONDS + 30, SECONDS + 30),
        (["--before", "10"], -10, None, SECONDS + 10),
        (["--before", "10", "--after", "5s"], -10, SECONDS + 5, SECONDS + 15),
        (["--set", "after=5"], None, SECONDS + 5, SECONDS + 5),
    ],
)
def test_seconds_are_added_at_the_ends(
    acestep: Run, flags: list[str], start: float | None, end: float | None, seconds: float
) -> None:
    result = acestep("extend", "song.wav", *flags, "-c", "outro", "--json")
    assert result.exit_code == 0, result.stderr
    [made] = said(result)["outputs"]
    request = made["request"]
    assert made["path"] == "song-extend.flac"
    assert (request["mode"], request.get("start"), request.get("end")) == ("repaint", start, end)
    assert made["seconds"] == seconds
    again = acestep("render", "song-extend.flac.yaml", "-o", "song-extend.flac", "--json")
    assert said(again)["outputs"][0]["status"] == "skipped"
    assert not {"before", "after"} & set(request)


def test_it_is_the_repaint_that_says_the_same(acestep: Run) -> None:
    asked = ["song.wav", "-c", "outro", "--seed", "1", "-o", "a.flac", "--json"]
    extended = said(acestep("extend", *asked, "--after", "4"))["outputs"][0]
    repainted = said(acestep("repaint", *asked, "--end", str(SECONDS + 4)))["outputs"][0]
    assert repainted["status"] == "skipped"
    assert repainted["request"] == extended["request"]


def test_a_spec_may_say_before_and_after(acestep: Run) -> None:
    Path("x.yaml").write_text("mode: repaint\nsource: song.wav\ncaption: outro\nbefore: 2\nafter: 0:04\n")
    found = spec.load(Path("x.yaml"))
    assert (found.start, found.end) == (-2, SECONDS + 4)
    for command in ("extend", "render", "repaint"):
        assert acestep(command, "x.yaml", "--dry-run").exit_code == 0
    changed = spec.resolve(*spec_layers.read_layers(Path("x.yaml")), spec_layers.from_flags({"after": "9"})).request
    assert (changed.start, changed.end) == (-2, SECONDS + 9)
    replaced = spec.resolve(*spec_layers.read_layers(Path("x.yaml")), spec_layers.from_flags({"end": "9"})).request
    assert (replaced.start, replaced.end) == (-2, 9)
    longer = spec.resolve(
        spec_layers.Layer(Path(), spec_layers.read_layer(Path("x.yaml")).values, is_sidecar=True),
        spec_layers.from_flags({"after": "9"}),
    ).request
    assert longer.end == SECONDS + 9


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["extend", "song.wav", "-c", "a"], 2, "Neither --before nor --after says how much is added"),
        (["extend", "-c", "a"], 2, "Neither --before nor --after says how much is added"),
        (["extend", "-c", "a", "--after", "4"], 2, "source: there is no recording to work on"),
        (["extend", "song.wav", "--after", "4"], 2, "there is nothing to make music from"),
        (["extend", "song.wav", "-c", "a", "--after", "0"], 2, "--after: '0' is not between 1 and 600 seconds"),
        (["extend", "song.wav", "-c", "a", "--after", "soon"], 2, "--after: 'soon' is not a length"),
        (["extend", "song.wav", "-c", "a", "--after", "599"], 2, "the song would be 607 s long, and 600 s are"),
        (["extend", "none.wav", "-c", "a", "--after", "5"], 5, "none.wav cannot be read"),
        (["extend", "song.wav", "-c", "a", "--start", "4"], 2, "No such option: --start"),
        (["generate", "-c", "a", "--set", "after=5"], 2, "after: has no meaning for generate; it is for"),
        (["repaint", "song.wav", "-c", "a", "--after", "5", "--end", "9"], 2, "--after: excludes end (--end)"),
        (["cover", "song.wav", "-c", "a", "--after", "5"], 2, "--after"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_extended_is_refused(acestep: Run, arguments: list[str], code: int, sentence: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
    assert [file.name for file in Path().iterdir()] == ["song.wav"]


def test_other_commands_do_not_offer_it(acestep: Run) -> None:
    for command in ("generate", "cover", "edit", "extract"):
        assert "--before" not in acestep(command, "--help-all").stdout
    text = acestep("extend", "--help-all").stdout
    assert "--before" in text
    assert "--start" not in text
    assert "extend" in acestep("--help").stdout


def test_pocket_extends_and_leaves_the_rest_as_it_was() -> None:
    flags = ["-c", "outro", "-m", "pocket", "--set", "steps=2", "--seed", "1", "--bit-depth", "16"]
    result = CliRunner().invoke(app, ["extend", "song.wav", "--before", "2", "--after", "3", *flags, "-o", "x.wav"])
    assert result.exit_code == 0, result.stderr
    assert "x.wav: 5 s were added; the rest is as it was" in result.stderr
    source, made = soundfile.read("song.wav")[0], soundfile.read("x.wav")[0]
    assert len(made) == len(source) + 5 * 48_000
    kept, fade = made[2 * 48_000 : 2 * 48_000 + len(source)], round(0.05 * 48_000)
    assert np.array_equal(kept[fade:-fade], source[fade:-fade])
