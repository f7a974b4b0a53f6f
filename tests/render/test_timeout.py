"""`--timeout`: a song that takes too long fails, and the others go on."""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.engine import time_limit
from acestep_cli.engine.time_limit import TimeLimit
from acestep_cli.errors import TimeLimitError
from support import tiny

QUICK, SLOW = "caption: quick piano\nduration: 10\nsteps: 2\n", "caption: slow strings\nduration: 10\nsteps: 20\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    Path("quick.yaml").write_text(QUICK)
    Path("slow.yaml").write_text(SLOW)


@pytest.fixture
def _a_second_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a second later than the one before: a step takes a second."""
    seconds = count()
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))


def render(*words: str) -> Result:
    return CliRunner().invoke(app, ["render", *words, "-o", "out/", "--seed", "1", "--json"], catch_exceptions=False)


def statuses(result: Result) -> list[tuple[str, Any]]:
    return [(output["status"], output.get("error", {}).get("exit_code"))
            for output in json.loads(result.stdout)["outputs"]]  # fmt: skip


@pytest.mark.usefixtures("_a_second_each")
@pytest.mark.parametrize("order", [("slow", "quick"), ("quick", "slow")])
def test_a_song_that_takes_too_long_fails_and_the_others_go_on(order: tuple[str, str]) -> None:
    result = render(*(f"{name}.yaml" for name in order), "--timeout", "16")
    assert result.exit_code == 7, result.output
    expected = {"quick": ("written", None), "slow": ("failed", 10)}
    assert statuses(result) == [expected[name] for name in order]
    [error] = [output["error"] for output in json.loads(result.stdout)["outputs"] if "error" in output]
    assert error["name"] == "time"
    # The steps are those of the song, and not of all songs.
    told = re.fullmatch(r"The time limit of 16 s ran out in the stage diffuse, (\d+) of 20 done\.", error["message"])
    assert told is not None, error["message"]
    assert 10 <= int(told[1]) < 20
    assert "--timeout" in error["hint"]


@pytest.mark.usefixtures("_a_second_each")
@pytest.mark.parametrize("words", ["slow.yaml", "slow.yaml -n 3", "slow.yaml quick.yaml --steps 19"])
def test_it_is_the_cause_where_nothing_was_finished(words: str) -> None:
    result = render(*words.split(), "--timeout", "16s")
    assert result.exit_code == 10, result.output
    assert json.loads(result.stdout)["error"]["name"] == "time"
    assert {code for _, code in statuses(result)} == {10}
    assert not list(Path("out").glob("*.flac"))


@pytest.mark.usefixtures("_a_second_each")
def test_takes_that_were_finished_are_kept() -> None:
    result = render("quick.yaml", "-n", "9", "--timeout", "0:16")
    assert result.exit_code == 7, result.output
    found = [status for status, _ in statuses(result)]
    assert 0 < found.count("written") < 9
    assert found == sorted(found, reverse=True)  # the first are written, the rest failed
    assert len(list(Path("out").glob("*.flac"))) == found.count("written")


@pytest.mark.usefixtures("_a_second_each")
def test_a_track_of_an_album_too() -> None:
    Path("album.yaml").write_text("album: {title: Two}\nseed: 1\ntracks: [slow.yaml, quick.yaml]\n")
    result = CliRunner().invoke(app, ["album", "render", "album.yaml", "--timeout", "16", "--json"])
    assert result.exit_code == 7, result.output
    assert statuses(result) == [("failed", 10), ("written", None)]


def test_the_loading_of_weights_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now, loading, heard = 100.0, 0.0, []
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(monotonic=lambda: now))
    limit = TimeLimit(10, lambda: loading)
    report = limit.following(lambda *step: heard.append(step))
    now = 500.0
    report("text", 1, 1)  # of no song
    limit.begin_song()
    now = 520.0
    report("load", 1, 2)
    loading = 20.0
    now = 529.0
    report("diffuse", 1, 8)
    now = 531.0
    with pytest.raises(TimeLimitError, match="10 s ran out in the stage diffuse, 2 of 8 done"):
        report("diffuse", 2, 8)
    limit.begin_song()
    report("diffuse", 3, 8)
    assert len(heard) == 5  # what was done is shown, the last step too


@pytest.mark.parametrize("text", ["0", "0.5", "-3", "nan", "inf", "soon", "1e3", "", "10x", "m", "1:75"])
def test_a_limit_that_is_no_time_is_refused(text: str) -> None:
    result = render("quick.yaml", "--timeout", text)
    assert result.exit_code == 2, result.output
    assert "90s, 10m, 2h or 1:30" in result.output or "less than a second" in result.output


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5m", 90), ("2h", 7200), ("1:30", 90), ("90s", 90)])
def test_a_limit_is_written_as_people_write_times(text: str, seconds: float) -> None:
    from acestep_cli.cli import options

    assert options.seconds(text) == seconds
