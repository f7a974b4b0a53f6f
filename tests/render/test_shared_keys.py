"""Keys that a take shares with what is made of it: taken over, said, recorded, and left out on request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command import Run, said
from support.sounds import recording

OWN = {"caption": "slow folk", "lyrics": "[Verse]\nold road", "language": "en", "bpm": 84, "key": "A minor",
       "time_signature": "3/4"}  # fmt: skip
METER = {"bpm", "key", "time_signature"}
MODES = {
    "cover": ["cover", "take.flac"],
    "repaint": ["repaint", "take.flac", "--start", "2", "--end", "5"],
    "extend": ["extend", "take.flac", "--after", "4"],
    "edit": ["edit", "take.flac"],
    "lego": ["lego", "take.flac", "--track", "bass"],
    "complete": ["complete", "take.flac", "--track", "drums"],
    "extract": ["extract", "take.flac", "--track", "drums"],
}


@pytest.fixture(autouse=True)
def own_take(acestep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A take of this program in the current folder."""
    monkeypatch.chdir(tmp_path)
    flags = [word for key, value in OWN.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    assert acestep("generate", *flags, "-d", "8", "-o", "take.flac").exit_code == 0


def made(acestep: Run, *command: str) -> dict[str, Any]:
    """Return the keys of `OWN` in the request of what a command makes, and of them those that have a value."""
    result = acestep(*command, "-o", "new.flac", "--force", "--json")
    assert result.exit_code == 0, result.stderr
    request = said(result)["outputs"][0]["request"]
    return {key: request[key] for key in (*OWN, "instrumental") if request.get(key) is not None}


@pytest.mark.parametrize("where", ["sidecar", "tags"])
@pytest.mark.parametrize("mode", ["cover", "repaint", "extend", "edit"])
def test_a_song_stays_the_same_song_under_a_new_caption(acestep: Run, mode: str, where: str) -> None:
    if where == "tags":
        Path("take.flac.yaml").unlink()
    assert made(acestep, *MODES[mode], "-c", "strings") == OWN | {"caption": "strings"}


@pytest.mark.parametrize("mode", ["cover", "repaint", "extend"])
def test_without_a_caption_it_has_that_of_the_take(acestep: Run, mode: str) -> None:
    assert made(acestep, *MODES[mode]) == OWN


@pytest.mark.parametrize(("mode", "shared"), [("lego", METER), ("complete", METER), ("extract", set())])
def test_tracks_share_tempo_and_key(acestep: Run, mode: str, shared: set[str]) -> None:
    assert made(acestep, *MODES[mode]).keys() == shared


@pytest.mark.parametrize(
    ("flags", "changed", "absent"),
    [
        (["--bpm", "120", "--key", "C major"], {"bpm": 120, "key": "C major"}, set()),
        (["--lyrics", "[Verse]\nnew road"], {"lyrics": "[Verse]\nnew road"}, set()),
        (["--instrumental"], {"instrumental": True}, {"lyrics", "language"}),
        (["--set", "lyrics=null"], {}, {"lyrics", "language"}),
        (["--set", "bpm=null", "--set", "key=null"], {}, {"bpm", "key"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_win_and_null_leaves_a_key_open(
    acestep: Run, flags: list[str], changed: dict[str, Any], absent: set[str]
) -> None:
    expected = {key: value for key, value in OWN.items() if key not in absent}
    assert made(acestep, *MODES["repaint"], *flags) == expected | changed


def test_an_instrumental_take_stays_one_unless_there_are_words(acestep: Run) -> None:
    acestep("generate", "-c", "techno", "--instrumental", "-d", "8", "-o", "take.flac", "--force")
    assert made(acestep, *MODES["repaint"], "-c", "house") == {"caption": "house", "instrumental": True}
    sung = made(acestep, *MODES["repaint"], "--lyrics", "la", "--language", "en")
    assert sung == {"caption": "techno", "lyrics": "la", "language": "en"}


def test_it_is_said_in_one_line_and_recorded(acestep: Run) -> None:
    asked = [*MODES["repaint"], "-c", "strings", "-o", "new.flac"]
    line = "Taken over from the source: lyrics, language, bpm 84, key A minor, time signature 3/4"
    assert line in acestep(*asked).stderr.splitlines()
    record = yaml.safe_load(Path("new.flac.yaml").read_text())["render"]
    assert record["from_source"] == ["lyrics", "language", "bpm", "key", "time_signature"]
    assert "Taken over" not in acestep(*asked).stderr  # which is kept
    edit = acestep(*MODES["edit"], "-c", "strings", "--dry-run").stderr
    assert "Taken over from the source: lyrics, language, bpm 84" in edit
    explained = acestep(*asked, "--explain", "--dry-run").stderr
    assert "take.flac.yaml:" in next(line for line in explained.splitlines() if line.startswith("bpm "))


def test_words_of_the_source_are_not_remarked_on_again(acestep: Run) -> None:
    asked = ["--lyrics", "[Verse]\n[00:12.00] la la", "-d", "8"]
    first = acestep("generate", "-c", "techno, drums, deep", *asked, "-o", "odd.flac").stderr
    assert "--lyrics, line 2" in first
    second = acestep("repaint", "odd.flac", "--start", "2", "--end", "5", "-c", "house, drums, deep", "--dry-run")
    assert "lyrics" in second.stderr
    assert "Warning" not in second.stderr


def test_a_sidecar_is_all_that_its_take_has_of_the_source(acestep: Run) -> None:
    """What was made before keys were taken over, or with less of them, is the same take when it is made again."""
    bare = ["--set", "lyrics=null", "--set", "bpm=null"]
    acestep(*MODES["repaint"], "-c", "strings", *bare, "--seed", "3", "-o", "bare.flac")
    again = said(acestep("render", "bare.flac.yaml", "-o", "bare.flac", "--json"))["outputs"][0]
    assert again["status"] == "skipped"
    acestep("generate", "-c", "techno", "--bpm", "120", "-d", "8", "-o", "other.flac")
    moved = acestep("render", "bare.flac.yaml", "--set", "source=other.flac", "-o", "moved.flac", "--json")
    assert said(moved)["outputs"][0]["request"]["bpm"] == 120


def test_a_songwriter_that_is_named_writes_the_caption_alone(acestep: Run) -> None:
    result = acestep(*MODES["repaint"], "--songwriter", "pocket", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "The Songwriter pocket decides what is open: caption" in result.stderr


def test_a_recording_that_is_no_take_shares_nothing(acestep: Run) -> None:
    recording("song.wav", 8)
    result = acestep("repaint", "song.wav", "--start", "2", "--end", "5")
    assert (result.exit_code, "there is nothing to make music from" in result.stderr) == (2, True)
    assert made(acestep, "repaint", "song.wav", "--start", "2", "--end", "5", "-c", "a") == {"caption": "a"}
