"""Remarks of a render on the words and the caption of its songs: on stderr and in --json, once and short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.song import regions

pytestmark = pytest.mark.usefixtures("here")

WORDS = "[Verse]\n" + "We ride alone beneath the silver light\n" * 20


def acestep(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--dry-run"], catch_exceptions=False)


def warnings(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [line.removeprefix("Warning: ") for line in result.stderr.splitlines() if line.startswith("Warning: ")]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["-c", "music", "-d", "10"], "--caption: 'music' leaves nearly all to chance"),
        (["-c", "a sad song", "-d", "10"], "--caption: 'a sad song' leaves nearly all to chance"),
        (["-c", "dusty slow blues", "--lyrics", WORDS, "-d", "10"], "--lyrics: 200 syllables in 10 s are"),
        (["-c", "dusty slow blues", "--lyrics", "[Hook]\nRide with me", "-d", "240"], "--lyrics: 3 syllables are"),
        (["-c", "dusty slow blues", "--lyrics", r"[Verse]\nRide with me", "-d", "10"], r"--lyrics, line 1: \n is two"),
        (["-c", "dusty slow blues", "--lyrics", "[Verz]\nRide with me", "-d", "10"], "did you mean [Verse]?"),
    ],
)  # fmt: skip
def test_a_render_remarks_on_flags(flags: list[str], sentence: str) -> None:
    [warning] = warnings(acestep("generate", *flags, "-n", "3", "-o", "out/"))
    assert sentence in warning
    assert len(warning) < 200
    content = json.loads(acestep("generate", *flags, "-o", "b.wav", "--json").stdout)
    assert (content["status"], content["warnings"]) == ("ok", [warning])


def test_a_good_song_is_not_remarked_on() -> None:
    assert not warnings(acestep("generate", "-c", "dusty slow blues", "-d", "10", "-o", "a.wav"))
    assert not warnings(acestep("generate", "-c", "slow blues, male vocal", "--lyrics", WORDS, "-o", "a.wav"))


def test_a_render_remarks_with_the_line_of_a_spec_and_leaves_the_rest_to_check() -> None:
    tags = "".join(f"  [{tag}]\n  Ride with me\n" for tag in ("Vrese", "Chrous", "Brigde", "Outtro", "Verz"))
    Path("a song.yaml").write_text(f"caption: dusty slow blues\nduration: 30\nlyrics: |\n{tags}")
    found = warnings(acestep("render", "a song.yaml", "-o", "a.wav"))
    assert found[0].startswith("a song.yaml:4: lyrics: '[Vrese]' is not a section")
    assert len(found) == 4
    assert found[-1] == "a song.yaml: 2 more remarks; acestep spec check 'a song.yaml' lists them"
    checked = CliRunner().invoke(app, ["spec", "check", "a song.yaml"])
    assert checked.stderr.count("Warning: ") == 5


def test_a_render_and_a_check_remark_on_what_yaml_takes_for_a_comment() -> None:
    Path("song.yaml").write_text("caption: dusty slow blues jam #1\nduration: 10\n")
    sentence = "song.yaml:1: caption: '#1' is a comment to YAML; as text it needs quotes"
    assert warnings(acestep("render", "song.yaml", "-o", "a.wav"))[0].startswith(sentence)
    assert sentence in CliRunner().invoke(app, ["spec", "check", "song.yaml"]).stderr
    Path("album.yaml").write_text(
        "album: {title: Low Water}\ntracks:\n  - id: one\n    caption: dusty slow blues #1\n    duration: 10\n"
    )
    [warning] = warnings(acestep("album", "render", "album.yaml"))
    assert "album.yaml:4: caption: '#1' is a comment to YAML" in warning


def test_quiet_says_no_remark_and_json_still_has_it() -> None:
    result = acestep("generate", "-c", "music", "-d", "10", "-o", "a.wav", "-q", "--json")
    assert "Warning" not in result.stderr
    assert len(json.loads(result.stdout)["warnings"]) == 1


def test_an_album_remarks_on_its_songs() -> None:
    Path("album.yaml").write_text(
        "album: {title: Low Water}\ntracks:\n  - id: one\n    caption: music\n    duration: 10\n"
        "  - id: two\n    caption: dusty slow blues\n    duration: 10\n"
    )
    [warning] = warnings(acestep("album", "render", "album.yaml"))
    assert "album.yaml:4: caption: 'music' leaves nearly all to chance" in warning


def test_a_repaint_is_told_in_words_with_its_figures() -> None:
    def said(change: float, outside: float) -> str:
        return regions.remark({"inside_change_db": change, "outside_difference": outside}, None)

    assert said(-18.24, 0.0) == "the new part differs clearly from the old (-18.2 dBFS); the rest is as it was"
    assert said(-40, 0.0001).startswith(
        "the new part differs a little from the old (-40.0 dBFS); the rest differs by 0.0001"
    )
    assert "hardly differs from" in said(-60, 0.0)
