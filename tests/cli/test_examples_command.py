"""`acestep examples`: every bundled song is listed, shown and found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.song import examples, spec

SONGS = examples.example_files()


def acestep(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["examples", *arguments], catch_exceptions=False)


def test_the_list_names_every_song() -> None:
    assert [line.split()[0] for line in acestep("list").stdout.splitlines()] == list(SONGS)
    content = json.loads(acestep("list", "--json").stdout)
    assert [song["name"] for song in content] == list(SONGS)
    assert all(song["caption"] for song in content)


def test_the_songs_are_of_many_kinds() -> None:
    songs = [spec.load(file) for file in SONGS.values()]
    assert len({song.language for song in songs} - {None}) >= 6
    assert {song.time_signature for song in songs} >= {"3/4", "4/4", "6/8"}
    assert any(song.instrumental for song in songs)
    assert {file.suffix for file in SONGS.values()} == {".yaml", ".md"}
    assert any("extends:" in file.read_text(encoding="utf-8") for file in SONGS.values())


@pytest.mark.parametrize("name", SONGS)
def test_a_song_is_shown_as_it_is_written(name: str) -> None:
    assert acestep("show", name).stdout == SONGS[name].read_text(encoding="utf-8")


def test_search_wants_all_words_in_any_case_with_or_without_accents() -> None:
    assert acestep("search", "NEON", "gated").stdout.split()[0] == "night-drive"
    assert "varanda" in acestep("search", "portuguese").stdout
    accented = next(song.lyrics for file in SONGS.values() if "é" in ((song := spec.load(file)).lyrics or ""))
    assert accented is not None
    word = next(word for word in accented.split() if "é" in word)
    assert acestep("search", word).stdout == acestep("search", word.replace("é", "e")).stdout
    nothing = acestep("search", "neon", "no such word")
    assert (nothing.exit_code, nothing.stdout) == (2, "")
    assert "No song has 'neon' and 'no such word' in it." in nothing.stderr


def test_an_unknown_song_names_the_nearest() -> None:
    result = acestep("show", "night-drvie")
    assert result.exit_code == 2
    assert "did you mean 'night-drive'?" in result.stderr


def test_an_installed_package_has_its_songs_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("caption: a\n")
    monkeypatch.setattr(examples, "FOLDERS", (tmp_path, *examples.FOLDERS))
    assert list(examples.example_files()) == ["a"]
