"""Albums: how they are read, what is stale and why, and what comes of rendering them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import mutagen
import pytest
import soundfile
import yaml
from typer.testing import Result

from acestep_cli.albums import album, gpu_lock, makefile, processes, template
from acestep_cli.albums.tracks import Track
from acestep_cli.cli.console import Console
from acestep_cli.errors import UsageError
from acestep_cli.machine import hardware, history
from acestep_cli.models import latents_file
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import spec, spec_layers
from support import band, pictures, tiny
from support.albums import CHAIN, HARBOUR, harbour, machine, write
from support.command import LIMIT, LONG_LIMIT, finish, flat, loaded, said, started
from support.places import BAND, ROOT


@pytest.fixture(autouse=True)
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder and an empty cache."""
    monkeypatch.setenv("ACESTEP_CACHE_DIR", str(here / "cache"))
    return here


Acestep = Callable[..., Result]


SONG = "---\ncaption: x\n---\n\n[Verse]\nla\n"


def test_an_id_is_made_of_the_name_of_a_song(here: Path) -> None:
    names = {
        "Old Orchard": "old-orchard", "What's up?": "what-s-up", "12. Ebb & Flow (live)": "12.-ebb-flow-live",
        "Slack-water_2": "Slack-water_2", "Cafe\u0301": "Caf\u00e9", "\u84dd\u6708\u4eae": "\u84dd\u6708\u4eae",
        "\u0939\u093f\u0928\u094d\u0926\u0940 \u0917\u0940\u0924":
        "\u0939\u093f\u0928\u094d\u0926\u0940-\u0917\u0940\u0924",
    }  # fmt: skip
    for name in names:
        write(SONG, f"songs/{name}.md")
    found = album.read_album(write("tracks:\n  - songs/*.md\n"))
    assert {Path(str(track.spec_file)).stem: track.id for track in found.tracks} == names
    named = album.read_album(write("tracks:\n  - spec: songs/Old Orchard.md\n"))
    assert [track.id for track in named.tracks] == ["old-orchard"]
    assert [track.id for track in named.chosen(["old-orchard"])] == ["old-orchard"]


def test_hidden_files_are_no_songs_unless_they_are_asked_for(here: Path) -> None:
    for name in ("a.md", ".hidden.md", "._a.md", ".drafts/b.md", "sub/.c.md", "sub/c.md"):
        write(SONG, f"songs/{name}")
    (here / "songs" / "._a.md").write_bytes(b"\0\5\x16\7")  # as macOS writes them

    def ids(pattern: str) -> list[str]:
        return [track.id for track in album.read_album(write(f"tracks:\n  - {pattern}\n")).tracks]

    assert ids("songs/*.md") == ["a"]
    assert ids("songs/**/*.md") == ["a", "c"]
    assert ids("songs/.drafts/*.md") == ["b"]
    assert ids("songs/.h*.md") == ["hidden"]
    assert ids("songs/.hidden.md") == ["hidden"]
    assert ids(f"{here}/songs/*.md") == ["a"]


def test_a_name_that_makes_no_id_is_refused_with_an_item_that_works(here: Path) -> None:
    write(SONG, "songs/?!.md")
    with pytest.raises(UsageError) as caught:
        album.read_album(write("tracks:\n  - songs/*.md\n"))
    assert "a.yaml:1: tracks: no id can be made of '?!'" in caught.value.message
    item = caught.value.message.split("`")[1].replace("\u2026", "mine")
    assert [track.id for track in album.read_album(write(f"tracks:\n  {item}\n")).tracks] == ["mine"]


def test_two_songs_of_one_id_are_named_with_their_files(here: Path) -> None:
    for name in ("Old Orchard", "old-orchard"):
        write(SONG, f"songs/{name}.md")
    with pytest.raises(UsageError) as caught:
        album.read_album(write("tracks:\n  - songs/*.md\n"))
    for part in ("the id old-orchard", "songs/Old Orchard.md", "songs/old-orchard.md", "rename one of them"):
        assert part in caught.value.message


def refusal(text: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        album.read_album(harbour(text))
    return caught.value.message.splitlines()


# Reading


def test_an_album_is_songs_with_something_in_common() -> None:
    read = album.read_album(harbour())
    assert [track.id for track in read.tracks] == ["slack-water", "spring-tide", "low-water"]
    request = read.tracks[0].request
    assert (request.album, request.artist, request.year, request.genre) == ("Harbour", "The Tide Tables", 2026, "Folk")
    assert (request.track_number, request.lyrics, request.duration) == (1, "[Verse]\nla\n", 10)
    assert [str(read.path(track)) for track in read.tracks] == [
        str(Path("Harbour", name)) for name in ("01 slack-water.flac", "02 spring-tide.flac", "03 Low Water.flac")
    ]


def test_a_seed_is_that_of_the_id_and_of_nothing_else() -> None:
    seeds = {track.id: track.request.seed for track in album.read_album(harbour()).tracks}
    assert len(set(seeds.values())) == 3
    turned = HARBOUR.replace("  - songs/*.md\n", "") + "  - songs/spring-tide.md\n"
    assert {track.id: track.request.seed for track in album.read_album(harbour(turned)).tracks} == {
        "low-water": seeds["low-water"],
        "spring-tide": seeds["spring-tide"],
    }
    other = album.read_album(harbour(HARBOUR.replace("seed: 7", "seed: 8"))).tracks[0]
    assert other.request.seed != seeds["slack-water"]
    own = album.read_album(harbour(HARBOUR.replace("caption: low", "caption: low, seed: 3"))).tracks[2]
    assert own.request.seed == 3


def test_a_variation_is_the_song_of_another_track_with_another_seed_of_its_own() -> None:
    text = HARBOUR.replace("caption: low", "caption: low, takes: 2")
    near = "  - {id: near, from: low-water, variation: 15%, loudness: none}\n"
    matrix = "  - {id: far, from: slack-water, matrix: {variation: [0.4, 0.8]}, edits: [{extend: {after: 5}}]}\n"
    read = {track.id: track for track in album.read_album(harbour(text + near + matrix)).tracks}
    song, varied = read["low-water"].request, read["near"].request
    assert (varied.caption, varied.seed, varied.genre) == ("low", song.seed, "Folk")
    assert (varied.variation, varied.loudness, varied.title, varied.track_number) == (0.15, "none", None, 4)
    assert varied.takes is None  # of which it varies the first
    assert varied.variation_seed not in (None, song.seed)
    assert read["near"].base is None  # it needs no file of that track
    first = spec.resolve(*read["far-0.8"].step(0)).request
    assert (first.variation, first.caption, first.seed) == (0.8, "slack-water", read["slack-water"].request.seed)
    edit = spec.resolve(*read["far-0.8"].step(1, Path("a.wav"))).request
    assert (edit.variation, edit.variation_seed) == (None, None)
    assert first.variation_seed != spec.resolve(*read["far-0.4"].step(0)).request.variation_seed
    own = album.read_album(harbour(text + near.replace("15%", "15%, variation_seed: 9"))).tracks[-1].request
    assert own.variation_seed == 9


def test_flags_hold_over_tracks_and_tracks_over_defaults() -> None:
    text = HARBOUR.replace("caption: low", "caption: low, genre: Dub, bpm: 90")
    read = album.read_album(harbour(text), spec_layers.from_flags({"bpm": "100"}))
    assert [(track.request.genre, track.request.bpm) for track in read.tracks[1:]] == [("Folk", 100), ("Dub", 100)]


def test_a_default_that_acts_on_nothing_is_remarked_on_once(acestep: Acestep) -> None:
    text = """\
defaults: {duration: 20, genre: Folk, bpm: 90}
tracks:
  - {id: a, caption: x, duration: 10, bpm: 80}
  - {id: b, caption: x, duration: 12, genre: Dub, edits: [{extend: {after: 4}}]}
  - {id: c, from: a, edits: [{cover: {caption: y}}]}
"""
    read = album.read_album(harbour(text))
    assert read.remarks == ("harbour.yaml:1: duration: acts on nothing, for each track has its own or takes none.",)
    assert album.read_album(harbour(text.replace("duration: 12", "steps: 8"))).remarks == ()
    assert album.read_album(
        harbour(text.replace("edits: [{cover", "variation: 5%, duration: 9, edits: [{cover"))
    ).remarks
    varied = text.replace("edits: [{cover: {caption: y}}]", "variation: 5%")
    assert album.read_album(harbour(varied)).remarks == read.remarks  # it has the length of its song
    harbour(text)
    plan = acestep("album", "plan", "harbour.yaml", "-o", "out")
    assert plan.stderr.count("acts on nothing") == 1


def test_an_album_extends_another_whose_lists_it_replaces() -> None:
    harbour()
    write("extends: harbour.yaml\nalbum: {title: Live}\ntracks:\n  - {id: one, caption: x}\n", "live.yaml")
    [track] = album.read_album(Path("live.yaml")).tracks
    assert (track.request.album, track.request.artist, track.request.genre) == ("Live", "The Tide Tables", "Folk")


def test_a_matrix_is_a_track_for_each_combination() -> None:
    matrix = """\
tracks:
  - id: sweep
    caption: x
    matrix:
      steps: [4, 8]
      seed: [1, 2]
      exclude:
        - {steps: 8, seed: 2}
      include:
        - {steps: 16, bpm: 90}
output: "{id}.{ext}"
"""
    read = album.read_album(harbour(matrix))
    assert [track.id for track in read.tracks] == ["sweep-4-1", "sweep-4-2", "sweep-8-1", "sweep-16-90"]
    assert [track.request.steps for track in read.tracks] == [4, 4, 8, 16]
    assert read.tracks[3].request.bpm == 90


def test_a_matrix_of_the_album_is_for_every_track() -> None:
    text = 'matrix: {bpm: [80, 90]}\noutput: "{id}.{ext}"\ntracks: [songs/slack-water.md, songs/spring-tide.md]\n'
    ids = [track.id for track in album.read_album(harbour(text)).tracks]
    assert ids == ["slack-water-80", "slack-water-90", "spring-tide-80", "spring-tide-90"]


TRACKS = "tracks:\n  - {id: a, caption: x}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tracks:\n  - {id: a, caption: x}\n  - {id: A, caption: y}\n", "harbour.yaml:3: tracks: the id A is used by"),
        ("output: '{title}.{ext}'\ntracks:\n  - {id: a, title: T, caption: x}\n  - {id: b, title: t, caption: x}\n",
         "b and a would both be"),
        ("output: ../{id}.{ext}\n" + TRACKS, "harbour.yaml:1: output: '../{id}.{ext}' leads out"),
        ("output: /tmp/{id}.{ext}\n" + TRACKS, "leads out"),
        ("output: 'C:{id}.{ext}'\n" + TRACKS, "leads out"),
        ("output: '{titel}.{ext}'\n" + TRACKS, "names {titel}; did you mean 'title'?"),
        ("output: '{title.__class__}.{ext}'\n" + TRACKS, "names {title.__class__}"),
        ("output: '{title!r}.{ext}'\n" + TRACKS, "not a width"),
        ("output: '{title:>99}.{ext}'\n" + TRACKS, "not a width"),
        ("output: '{title.{ext}'\n" + TRACKS, "is not a template"),
        ("output: '{title}.flac'\n" + TRACKS, "does not end in .{ext}"),
        ("tracks:\n  - songs/nowhere.md\n", "harbour.yaml:1: tracks: songs/nowhere.md: cannot be read"),
        ("tracks:\n  - id: a\n    spec: songs/nowhere.md\n", "harbour.yaml:3: spec: songs/nowhere.md: cannot be read"),
        ("tracks:\n  - songs/*.txt\n", "no song fits 'songs/*.txt'"),
        ("tracks: []\n", "is a list of songs"),
        ("seed: 7\n", "has no tracks"),
        ("albums: {}\n" + TRACKS, "is not a key of an album; did you mean 'album'?"),
        ("album: {titel: x}\n" + TRACKS, "has no 'titel'; did you mean 'title'?"),
        ("album: Harbour\n" + TRACKS, "is a map, with keys below it"),
        ("seed: seven\n" + TRACKS, "harbour.yaml:1: seed:"),
        ("seed: {a: 1}\n" + TRACKS, "harbour.yaml:1: seed: is neither text, a number nor a list of them"),
        ("seed: [1, 2]\n" + TRACKS, "harbour.yaml:1: seed: is a list, and takes one value"),
        ("output: [a, b]\n" + TRACKS, "harbour.yaml:1: output: is a list, and takes one value"),
        ("seed: 1\nseed: 2\n" + TRACKS, "harbour.yaml:2: seed: is here again, after line 1"),
        ("tracks:\n  - {id: a, id: b, caption: x}\n", "harbour.yaml:2: id: is here again, after line 2"),
        ("tracks:\n  - {id: a, caption: x, edits: [{extend: {after: 5, after: 6}}]}\n", "after: is here again"),
        ("matrix: {steps: [1], steps: [2]}\n" + TRACKS, "harbour.yaml:1: steps: is here again, after line 1"),
        ("tracks:\n  - {id: a, captoin: x}\n", "captoin: is not a key of a song spec; did you mean 'caption'?"),
        ("tracks:\n  - {id: a b, caption: x}\n", "'a b' is not an id"),
        ("tracks:\n  - {caption: x}\n", "has no id"),
        ("tracks:\n  - {id: a, caption: x, bpm: 3}\n", "harbour.yaml:2: bpm:"),
        ("defaults: {bpm: 3}\ntracks:\n  - {id: a, caption: x}\n  - {id: b, caption: x}\n", "harbour.yaml:1: bpm:"),
        ("defaults: {extends: b.yaml}\n" + TRACKS, "extends: stands in a song"),
        ("extends: harbour.yaml\n" + TRACKS, "goes round in a circle: harbour.yaml -> harbour.yaml"),
        ("tracks:\n  - {id: a, from: b, edits: [{cover: {caption: x}}]}\n"
         "  - {id: b, from: a, edits: [{cover: {caption: x}}]}\n", "goes round in a circle: a -> b -> a"),
        ("tracks:\n  - {id: a, from: b, edits: [{cover: {caption: x}}]}\n", "begins from 'b', which is not a track"),
        ("tracks:\n  - {id: b, caption: x}\n  - {id: a, from: b}\n", "has neither a variation nor edits"),
        ("tracks:\n  - {id: a, from: q}\n", "begins from 'q', which is not a track"),
        ("tracks:\n  - {id: a, from: a, variation: 15%}\n", "varies a, which itself begins from a"),
        ("tracks:\n  - {id: b, caption: x, edits: [{extend: {after: 5}}]}\n  - {id: a, from: b, variation: 15%}\n",
         "varies b, which is edited after it is generated"),
        ("tracks:\n  - {id: c, caption: x}\n  - {id: b, from: c, variation: 5%}\n  - {id: a, from: b, variation: 5%}\n",
         "varies b, which itself begins from c"),
        ("tracks:\n  - {id: b, caption: x}\n  - {id: a, from: b, variation: 150%}\n", "'150%' is not from 0% to 100%"),
        ("tracks:\n  - {id: a, caption: x, edits: [{blur: {}}]}\n", "each item is one of repaint, extend"),
        ("tracks:\n  - {id: a, caption: x, edits: [{repaint: {source: b.wav, start: 1}}]}\n",
         "source: has no meaning for an edit by repaint"),
        ("tracks:\n  - {id: a, caption: x, edits: [{repaint: {bpm: 90}}]}\n", "neither start nor end is given"),
        ("tracks:\n  - {id: a, caption: x, edits: [{extend: {}}]}\n", "neither how many seconds before nor after"),
        ("tracks:\n  - {id: a, caption: x, edits: [{lego: {caption: y}}]}\n", "no track is named"),
        ("tracks:\n  - {id: a, caption: x, takes: 2, edits: [{extend: {after: 5}}]}\n", "makes several files"),
        ("tracks:\n  - {id: a, caption: x, matrix: {stepz: [1]}}\n", "stepz: is not a key of a song spec"),
        ("tracks:\n  - {id: a, caption: x, matrix: {steps: [1], exclude: [{bpm: 90}]}}\n", "excludes by bpm"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_place(acestep: Acestep, text: str, problem: str) -> None:
    assert any(problem in line for line in refusal(text)), refusal(text)
    result = acestep("album", "render", "harbour.yaml")
    assert result.exit_code == 2
    assert problem in result.stderr


def test_all_problems_are_named_at_once_and_each_once() -> None:
    lines = refusal("defaults: {bpm: 3}\noutput: x\ntracks:\n  - {id: a, caption: x}\n  - {id: b, key: Z}\n")
    assert [line.split(": ")[0] for line in lines] == ["harbour.yaml:2", "harbour.yaml:1", "harbour.yaml:5"]
    lines = refusal("matrix: {nope: [1]}\ntracks:\n  - {id: a, caption: x, bpm: 3}\n  - {id: b, caption: x, key: Z}\n")
    assert [line.split(": ")[:2] for line in lines] == [
        ["harbour.yaml:1", "nope"], ["harbour.yaml:3", "bpm"], ["harbour.yaml:4", "key"],
    ]  # fmt: skip


@pytest.mark.parametrize("edit", ["{extend: {after: 700}}", "{extend: {before: x, after: 5}}", "{extend: {}}"])
def test_nothing_false_follows_from_a_wrong_extension(edit: str) -> None:
    assert len(refusal(f"tracks:\n  - {{id: a, caption: x, edits: [{edit}]}}\n")) == 1


def test_a_section_without_a_value_says_nothing() -> None:
    found = album.read_album(harbour("seed:\noutput:\n" + TRACKS))
    assert (found.output, found.tracks[0].album_seed) == (album.DEFAULT_OUTPUT, 0)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("AC/DC: live?", "AC-DC- live-.flac"),
        ("..", "...flac"),
        ("con", "_con.flac"),
        ("Café", "Café.flac"),
        ("x" * 300, f"{'x' * 195}.flac"),
        ("é" * 300, f"{'é' * 97}.flac"),
        ("tab\there", "tab-here.flac"),
    ],
)
def test_names_of_files_suit_every_disk(title: str, name: str) -> None:
    assert str(template.template_path("{title}.{ext}", {"title": title, "ext": "flac"})) == name


def test_what_is_in_a_title_makes_no_folder() -> None:
    assert template.template_path("{title}/{n:02}.{ext}", {"title": "../..", "n": 3, "ext": "mp3"}) == Path(
        "..-", "03.mp3"
    )


# Rendering


def is_kept(result: Result) -> bool:
    """Tell whether a render printed files, and made none of them."""
    files = result.stdout.splitlines()
    return result.exit_code == 0 and files != [] and all(f"{file}: kept, for" in result.stderr for file in files)


def test_a_second_render_makes_nothing_and_touches_all(acestep: Acestep, rendered: list[str]) -> None:
    harbour()
    first = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert first.exit_code == 0, first.stderr
    assert rendered == ["slack-water", "spring-tide", "low"]
    paths = [Path(line) for line in first.stdout.splitlines()]
    assert paths[0] == Path("out/Harbour/01 slack-water.flac")
    assert dict(mutagen.File(paths[2]).tags)["title"] == ["Low Water"]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        os.utime(path, (1, 1))
    second = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert (second.exit_code, second.stdout, len(rendered)) == (0, first.stdout, 3)
    assert is_kept(second)
    assert [path.read_bytes() for path in paths] == before
    assert all(path.stat().st_mtime > 1e9 for path in paths)


def test_only_what_changed_is_rendered_and_said_why(acestep: Acestep, rendered: list[str]) -> None:
    harbour()
    acestep("album", "render", "harbour.yaml", "-o", "out")
    song = Path("songs/slack-water.md")
    song.write_text(song.read_text().replace("la\n", "la la\n"))
    plan = acestep("album", "plan", "harbour.yaml", "-o", "out")
    assert "slack-water: stale: lyrics: line 2: la -> la la\n" in plan.stderr
    head, *rest = plan.stderr.splitlines()
    assert re.fullmatch(r"\d of \d tracks would be made", head)
    states = [line.split(": ")[1] for line in rest if re.match(r"[\w-]+: (stale|tags|current)", line)]
    assert states == sorted(states, key=["stale", "tags", "current"].index)
    assert rest[-1].startswith(("Time", "Warning"))
    assert "spring-tide: current\n" in plan.stderr
    assert plan.stdout.splitlines() == [str(Path("out/Harbour/01 slack-water.flac"))]
    del rendered[:]
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--explain")
    assert result.exit_code == 0, result.stderr
    assert rendered == ["slack-water"]
    assert "slack-water: lyrics: line 2: la -> la la\n" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("caption: low", "caption: low, bpm: 90", "bpm: nothing -> 90"),
        ("seed: 7", "seed: 8", "seed: "),
        ("duration: 10", "duration: 11", "duration: 10 -> 11"),
        ("genre: Folk", "steps: 5", "steps: 8 -> 5"),
        ("genre: Folk", "loudness: lufs:-14", "loudness: peak:-1 -> lufs:-14"),
    ],
)
def test_differences_are_said_in_words(acestep: Acestep, old: str, new: str, why: str) -> None:
    harbour()
    acestep("album", "render", "harbour.yaml", "-o", "out", "--only", "low-water")
    harbour(HARBOUR.replace(old, new))
    plan = acestep("album", "plan", "harbour.yaml", "-o", "out", "--only", "low-water")
    assert f"low-water: stale: {why}" in plan.stderr


def test_other_weights_are_a_difference(acestep: Acestep, monkeypatch: pytest.MonkeyPatch, xl: tiny.Oracle) -> None:
    harbour()
    acestep("album", "render", "harbour.yaml", "-o", "out", "--only", "low-water")
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(xl.root))
    plan = acestep("album", "plan", "harbour.yaml", "-o", "out", "--only", "low-water")
    assert "low-water: stale: the weights of turbo have changed" in plan.stderr


def test_a_plan_touches_nothing_and_reports_itself(acestep: Acestep) -> None:
    harbour()
    result = acestep("album", "plan", "harbour.yaml", "-o", "out", "--json")
    assert not Path("out").exists()
    report = said(result)
    assert [(one["id"], one["status"]) for one in report["tracks"]] == [
        ("slack-water", "stale"), ("spring-tide", "stale"), ("low-water", "stale"),
    ]  # fmt: skip
    assert report["tracks"][2]["why"] == ["it is not there yet"]
    assert report["tracks"][2]["path"] == str(Path("out/Harbour/03 Low Water.flac"))
    assert [output["status"] for output in report["outputs"]] == ["planned"] * 3


def test_a_plan_tells_memory_and_time(acestep: Acestep) -> None:
    harbour()
    plan = acestep("album", "plan", "harbour.yaml")
    assert "Memory of " in plan.stderr
    assert "Time: " in plan.stderr


@pytest.mark.parametrize("format", ["flac", "wav", "mp3", "ogg", "opus"])
def test_other_tags_are_written_without_a_render_as_a_render_would(
    acestep: Acestep, rendered: list[str], format: str
) -> None:
    Path("art.png").write_bytes(pictures.png())
    sung = HARBOUR.replace("duration: 10", f"duration: 10, format: {format}")
    harbour(sung)
    acestep("album", "render", "harbour.yaml", "-o", "out")
    del rendered[:]
    changed = sung.replace("year: 2026", "year: 2027, cover: art.png").replace("Folk", "Shanty, comment: demo")
    harbour(changed)
    plan = acestep("album", "plan", "harbour.yaml", "-o", "out", "--only", "low-water")
    reasons = plan.stderr.partition("low-water: tags: ")[2].partition("\n")[0].split("; ")
    assert {"year: 2026 -> 2027", "genre: Folk -> Shanty", "comment: nothing -> demo"} < set(reasons)
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert rendered == []
    assert len(result.stdout.splitlines()) == 3
    shutil.move("out", "before")
    acestep("album", "render", "harbour.yaml", "-o", "out", "--no-cache")
    name = Path("Harbour", f"03 Low Water.{format}")
    assert ("before" / name).read_bytes() == ("out" / name).read_bytes()
    records = [yaml.safe_load(Path(folder, f"{name}.yaml").read_text()) for folder in ("before", "out")]
    assert records[0] == records[1]
    assert is_kept(acestep("album", "render", "harbour.yaml", "-o", "out"))


def test_what_somebody_else_made_is_not_replaced(acestep: Acestep) -> None:
    harbour()
    write("mine", "out/Harbour/03 Low Water.flac")
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert result.exit_code == 9
    assert "no sidecar says how it was made" in flat(result)
    assert Path("out/Harbour/03 Low Water.flac").read_text() == "mine"
    assert acestep("album", "render", "harbour.yaml", "-o", "out", "--force").exit_code == 0


def test_audio_that_changed_since_its_sidecar_is_not_replaced(acestep: Acestep) -> None:
    harbour()
    acestep("album", "render", "harbour.yaml", "-o", "out")
    with Path("out/Harbour/03 Low Water.flac").open("ab") as file:
        file.write(b"mine")
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert result.exit_code == 9
    assert "is not the file that its sidecar describes" in flat(result)


def test_a_sidecar_edited_by_hand_changes_no_recipe(acestep: Acestep, rendered: list[str]) -> None:
    harbour()
    acestep("album", "render", "harbour.yaml", "-o", "out")
    beside = Path("out/Harbour/03 Low Water.flac.yaml")
    beside.write_text(beside.read_text().replace("caption: low", "caption: high"))
    assert acestep("album", "render", "harbour.yaml", "-o", "out").exit_code == 0
    assert len(rendered) == 3
    beside.write_text(beside.read_text().replace("recipe:", "recipe: x"))
    plan = acestep("album", "plan", "harbour.yaml", "-o", "out")
    assert "low-water: stale: caption: high -> low" in plan.stderr


def test_failures_do_not_stop_the_rest_and_are_named(acestep: Acestep) -> None:
    harbour(HARBOUR.replace("caption: low", "caption: breaks") + "  - {id: last, caption: last}\n")
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--json")
    assert result.exit_code == 7
    report = said(result)
    assert [output["status"] for output in report["outputs"]] == ["written", "written", "failed", "written"]
    assert "03 Low Water.flac" in report["error"]["message"]


SMOKED = """\
seed: 7
defaults: {duration: 1:00, takes: 1, steps: 8}
tracks:
  - id: low-water
    caption: low
    edits:
      - repaint: {start: 0:30, end: 0:40, caption: bridge}
      - repaint: {start: 4, end: 6, caption: early}
      - extend: {after: 5, caption: ends}
  - {id: again, from: low-water, edits: [{cover: {caption: metal}}]}
"""


def test_a_smoke_render_is_short_in_every_step_and_flags_win(acestep: Acestep, rendered: list[str]) -> None:
    harbour(SMOKED)
    result = acestep("album", "render", "harbour.yaml", "-o", "smoke", "--smoke", "--explain")
    assert result.exit_code == 0, result.stderr
    assert rendered == ["low", "bridge", "early", "ends", "metal"]
    first, second, third = (
        spec.load(Path(f"smoke/.acestep/harbour.low-water.{number}.wav.yaml")) for number in (1, 2, 3)
    )
    assert (first.duration, first.steps) == (10, 2)
    assert (second.start, second.end, second.steps) == (3.33, 6.67, 2)  # which lay past the end
    assert (third.start, third.end) == (4, 6)
    last = spec.load(Path("smoke/harbour/01 low-water.flac.yaml"))
    assert (last.end, last.steps) == (15, 2)
    assert spec.load(Path("smoke/harbour/02 again.flac.yaml")).steps == 2
    assert is_kept(acestep("album", "render", "harbour.yaml", "-o", "smoke", "--smoke"))
    flags = ["--only", "low-water", "-d", "0:20", "--steps", "3"]
    assert acestep("album", "render", "harbour.yaml", "-o", "other", "--smoke", *flags).exit_code == 0
    first = spec.load(Path("other/.acestep/harbour.low-water.1.wav.yaml"))
    assert (first.duration, first.steps) == (20, 3)


def test_a_smoke_render_takes_the_place_of_no_album(acestep: Acestep, rendered: list[str]) -> None:
    harbour()
    acestep("album", "render", "harbour.yaml", "-o", "out")
    before = {file: file.read_bytes() for file in Path("out").rglob("*.*") if file.is_file()}
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--smoke")
    assert result.exit_code == 9
    assert flat(result).count("exists already with another recipe.") == 3
    assert "another --output keeps it." in flat(result)
    assert {file: file.read_bytes() for file in Path("out").rglob("*.*") if file.is_file()} == before
    acestep("album", "render", "harbour.yaml", "-o", "smoke", "--smoke")
    del rendered[:]
    assert acestep("album", "render", "harbour.yaml", "-o", "smoke", "--no-cache").exit_code == 0  # but the other way
    assert len(rendered) == 3


def test_a_smoke_render_looks_for_faults(acestep: Acestep, monkeypatch: pytest.MonkeyPatch) -> None:
    tone = band.Pipeline._tone

    def off_centre(self: band.Pipeline, *song: Any) -> Any:
        return tone(self, *song) + 0.5

    monkeypatch.setattr(band.Pipeline, "_tone", off_centre)
    harbour()
    result = acestep("album", "render", "harbour.yaml", "-o", "smoke", "--smoke")
    assert result.exit_code == 6
    assert "--smoke: DC offset is" in flat(result)
    assert not list(Path("smoke").rglob("*.flac"))


def test_latents_are_kept_of_every_step_and_edits_go_along_them(acestep: Acestep, rendered: list[str]) -> None:
    harbour(CHAIN)
    acestep("album", "render", "harbour.yaml", "-o", "out")
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--keep-latents", "--explain")
    assert result.exit_code == 0, result.stderr
    assert "low-water: step 1: its latents are not there" in result.stderr
    assert result.stderr.count("is not encoded") == 3
    files = sorted([*Path("out").rglob("*.flac"), *Path("out").rglob("*.wav")])
    assert len(files) == 4
    assert all(latents_file.latents_belong(latents_file.latents_path(file), file) for file in files)
    assert rendered == [*["low", "bridge", "ends", "metal"], *["bridge", "ends", "metal"]]  # the song itself is kept
    assert is_kept(acestep("album", "render", "harbour.yaml", "-o", "out", "--keep-latents"))
    assert is_kept(acestep("album", "render", "harbour.yaml", "-o", "out"))


def test_latents_stay_those_of_a_file_with_other_tags(acestep: Acestep, rendered: list[str]) -> None:
    harbour(CHAIN)
    acestep("album", "render", "harbour.yaml", "-o", "out", "--keep-latents")
    song = Path("out/harbour/01 low-water.flac")
    before = latents_file.read_latents(latents_file.latents_path(song))
    del rendered[:]
    harbour(CHAIN.replace("genre: Folk", "genre: Dub"))
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert [line for line in result.stderr.splitlines() if "has new tags" in line] == [f"{song}: has new tags"]
    assert latents_file.latents_belong(latents_file.latents_path(song), song)
    assert (latents_file.read_latents(latents_file.latents_path(song)) == before).all()
    assert rendered == []  # nor what begins from it
    assert is_kept(acestep("album", "render", "harbour.yaml", "-o", "out", "--keep-latents"))


def test_where_latents_cannot_be_kept_of_a_track_is_refused(acestep: Acestep) -> None:
    harbour(HARBOUR.replace("caption: low", "caption: low, fade_out: 2"))
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--keep-latents")
    assert result.exit_code == 2
    assert "low-water: --keep-latents: the latents of a faded song would not match it." in flat(result)
    harbour()
    acestep("album", "render", "harbour.yaml", "-o", "out")
    mine = write("mine", "out/Harbour/03 Low Water.flac.latents.safetensors")
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--keep-latents")
    assert result.exit_code == 9
    assert f"{mine} exists already." in flat(result)
    assert mine.read_text() == "mine"


def test_one_track_is_rendered_with_those_it_begins_from(acestep: Acestep, rendered: list[str]) -> None:
    text = HARBOUR + "  - {id: again, from: low-water, edits: [{cover: {caption: metal}}]}\n"
    harbour(text)
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--only", "again")
    assert result.exit_code == 0, result.stderr
    assert rendered == ["low", "metal"]
    unknown = acestep("album", "render", "harbour.yaml", "--only", "agin")
    assert unknown.exit_code == 2
    assert "has no track 'agin'; did you mean 'again'?" in unknown.stderr


def test_a_variation_is_built_where_its_song_changes(acestep: Acestep, rendered: list[str]) -> None:
    text = HARBOUR + "  - {id: near, title: Near, from: low-water, variation: 15%}\n"
    harbour(text)
    only = acestep("album", "render", "harbour.yaml", "-o", "out", "--only", "near")
    assert only.exit_code == 0, only.stderr
    assert rendered == ["low"]
    file = Path("out/Harbour/04 Near.flac.yaml")
    made = spec.load(file)
    assert (made.variation, made.title, made.track_number) == (0.15, "Near", 4)
    assert acestep("album", "render", "harbour.yaml", "-o", "out").exit_code == 0
    assert spec.load(Path("out/Harbour/03 Low Water.flac.yaml")).seed == made.seed
    del rendered[:]
    assert is_kept(acestep("album", "render", "harbour.yaml", "-o", "out"))
    harbour(text.replace("caption: low", "caption: lower"))
    plan = acestep("album", "plan", "harbour.yaml", "-o", "out")
    assert plan.stderr.count(": stale: caption: low -> lower\n") == 2, plan.stderr
    acestep("album", "render", "harbour.yaml", "-o", "out")
    assert rendered == ["lower", "lower"]
    again = acestep("generate", str(file), "-o", "again.flac")  # a sidecar is a spec
    assert again.exit_code == 0, again.stderr
    assert spec.load(Path("again.flac.yaml")).variation_seed == made.variation_seed


# Edits


def test_a_chain_of_edits_is_made_step_by_step(acestep: Acestep, rendered: list[str]) -> None:
    harbour(CHAIN)
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        str(Path("out/harbour", name)) for name in ("01 low-water.flac", "02 again.flac")
    ]
    assert rendered == ["low", "bridge", "ends", "metal"]
    steps = sorted(path.name for path in Path("out/.acestep").glob("*.wav"))
    assert steps == ["harbour.low-water.1.wav", "harbour.low-water.2.wav"]
    assert soundfile.info("out/.acestep/harbour.low-water.1.wav").subtype == "FLOAT"
    last = spec.load(Path("out/harbour/01 low-water.flac.yaml"))
    assert (last.mode, last.start, last.end, last.loudness, last.genre) == ("repaint", -2, 15, "peak:-1", "Folk")
    assert spec.load(Path("out/harbour/02 again.flac.yaml")).strength == 0.4


@pytest.mark.parametrize(
    ("old", "new", "made"),
    [
        ("strength: 40%", "strength: 50%", ["metal"]),
        ("caption: bridge", "caption: bridges", ["bridges"]),
        ("genre: Folk", "genre: Dub", []),
        ("after: 5", "after: 4", ["ends", "metal"]),
    ],
)
def test_a_step_is_made_again_where_it_or_what_it_works_on_changed(
    acestep: Acestep, rendered: list[str], old: str, new: str, made: list[str]
) -> None:
    """The band plays every caption alike: what is made of the same sound again need not be."""
    harbour(CHAIN)
    acestep("album", "render", "harbour.yaml", "-o", "out")
    assert acestep("album", "render", "harbour.yaml", "-o", "out").exit_code == 0
    assert len(rendered) == 4
    del rendered[:]
    harbour(CHAIN.replace(old, new))
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert rendered == made


def test_a_step_that_fails_ends_its_track_and_what_begins_from_it(acestep: Acestep) -> None:
    harbour(CHAIN.replace("caption: bridge", "caption: unchanged") + "  - {id: last, caption: last}\n")
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--json")
    assert result.exit_code == 7
    report = said(result)
    assert [Path(one["path"]).name for one in report["outputs"]] == ["03 last.flac", "harbour.low-water.2.wav"]
    assert "again: begins from low-water, which could not be made." in report["error"]["message"]


def test_an_edit_that_does_not_suit_its_source_fails_alone(acestep: Acestep) -> None:
    harbour(CHAIN.replace("start: 4, end: 6", "start: 40, end: 60"))
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert result.exit_code == 7
    assert "start: 40 s lies past the end" in flat(result)


def test_a_stem_goes_into_the_mix_and_lies_beside_it(
    acestep: Acestep, base: tiny.Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    harbour(CHAIN.replace("      - repaint: {start: 4, end: 6, caption: bridge}\n", "").replace(
        "extend: {before: 2, after: 5, caption: ends}", "lego: {track: bass}"))  # fmt: skip
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert result.exit_code == 0, result.stderr
    names = sorted(path.name for path in Path("out/harbour").glob("*.flac"))
    assert names == ["01 low-water-bass.flac", "01 low-water.flac", "02 again.flac"]
    assert spec.load(Path("out/harbour/02 again.flac.yaml")).source == str(
        Path("out/harbour/01 low-water.flac").absolute()
    )
    listed = acestep("album", "outputs", "harbour.yaml", "-o", "out").stdout.splitlines()
    assert sorted(Path(line).name for line in listed) == names


def test_a_plan_says_what_waits_for_what(acestep: Acestep) -> None:
    harbour(CHAIN)
    acestep("album", "render", "harbour.yaml", "-o", "out")
    harbour(CHAIN.replace("caption: bridge", "caption: bridges"))
    plan = acestep("album", "plan", "harbour.yaml", "-o", "out")
    assert "low-water: stale: step 2: caption: bridge -> bridges\n" in plan.stderr
    assert "again: stale: low-water, which it begins from, is stale\n" in plan.stderr


# Two at once


def test_a_second_render_waits_for_the_first(acestep: Acestep, rendered: list[str]) -> None:
    harbour()
    Path("out/.acestep").mkdir(parents=True)
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with filelock.FileLock("out/.acestep/harbour.low-water.lock"):
            is_held.set()
            may_go.wait(timeout=LIMIT)

    other = threading.Thread(target=hold)
    other.start()
    assert is_held.wait(timeout=LIMIT)
    threading.Timer(1, may_go.set).start()
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    other.join(timeout=LIMIT)
    assert result.exit_code == 0, result.stderr
    assert "Another render of harbour.yaml is at work on low-water; waiting for it." in result.stderr
    assert len(rendered) == 3


def test_two_renders_at_once_make_each_track_once() -> None:
    harbour()
    command = [sys.executable, BAND, "album", "render", "harbour.yaml", "-o", "out"]
    with started(command) as one, started(command) as other:
        said = [run.communicate(timeout=LIMIT) for run in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], said
    assert [len(stdout.splitlines()) for stdout, _ in said] == [3, 3]
    assert sorted(stderr.count(": kept, for") for _, stderr in said) == [0, 3]


def test_a_folder_that_cannot_be_written_to_is_refused(acestep: Acestep) -> None:
    harbour()
    write("", "out")
    result = acestep("album", "render", "harbour.yaml", "-o", "out")
    assert result.exit_code == 9
    assert "cannot be written" in result.stderr


# Cards


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the locks of two cards lie."""
    monkeypatch.setattr(hardware, "detect", lambda: machine("cuda:0", "cuda:1", "cpu"))
    monkeypatch.setattr(history, "history_file", lambda: tmp_path / "state" / "logbook.json")
    return tmp_path / "state" / "cards"


def test_each_render_has_a_card_to_itself(two_cards: Path) -> None:
    terminal = Console(quiet=True)
    with (
        gpu_lock.lock_card(RenderSettings(), terminal) as first,
        gpu_lock.lock_card(RenderSettings(), terminal) as second,
    ):
        assert (first.device, second.device) == ("cuda:0", "cuda:1")
        assert sorted(file.name for file in two_cards.iterdir()) == ["cuda-0.lock", "cuda-1.lock"]
    with gpu_lock.lock_card(RenderSettings(device="cuda:1"), terminal) as asked:
        assert asked.device == "cuda:1"


@pytest.mark.usefixtures("two_cards")
def test_a_render_waits_for_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with gpu_lock.lock_card(RenderSettings(device="cuda:1"), Console(quiet=True)):
            is_held.set()
            may_go.wait(timeout=LIMIT)

    other = threading.Thread(target=hold)
    other.start()
    assert is_held.wait(timeout=LIMIT)
    threading.Timer(0.5, may_go.set).start()
    with gpu_lock.lock_card(RenderSettings(device="cuda:1"), Console()):
        assert may_go.is_set()
    other.join(timeout=LIMIT)
    assert "Another render is at work on cuda:1; waiting for it." in capsys.readouterr().err


def test_a_card_has_one_name_whoever_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    card = machine("cuda:0").devices[0]
    assert gpu_lock.card_id(card) == "cuda-0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert gpu_lock.card_id(card) == "cuda-3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f/2a")
    assert gpu_lock.card_id(card) == "cuda-GPU-8f-2a"


def test_the_processor_is_nobody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "detect", lambda: machine("cpu"))
    with gpu_lock.lock_card(RenderSettings(), Console(quiet=True)) as run:
        assert run.device is None


def test_a_state_folder_that_cannot_be_written_stops_nothing(
    two_cards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_cards.parent.write_text("")
    with gpu_lock.lock_card(RenderSettings(), Console()) as run:
        assert run == RenderSettings()
    assert "nothing keeps other renders from the same card" in capsys.readouterr().err


def test_shares_keep_together_what_begins_from_each_other() -> None:
    ids = {"a": None, "b": "a", "c": None, "d": "b", "e": None, "f": None}
    tracks = [Track(id, "", (), base=base) for id, base in ids.items()]
    assert processes.share_tracks(tracks, 2) == [["a", "b", "d"], ["c", "e", "f"]]
    assert processes.share_tracks(tracks, 1) == [["a", "b", "d", "c", "e", "f"]]
    assert processes.share_tracks(tracks[:2], 4) == [["a", "b"]]
    assert processes.share_tracks(tracks, 0) == []


def test_with_one_card_one_process_makes_the_album(acestep: Acestep, rendered: list[str]) -> None:
    harbour()
    result = acestep("album", "render", "harbour.yaml", "-j", "4")
    assert result.exit_code == 0, result.stderr
    assert "There is no second card or track, so one process makes the album." in result.stderr
    assert len(rendered) == 3


SPLIT = "defaults: {model: pocket, duration: 3}\ntracks:\n  - {id: a, caption: x}\n  - {id: b, caption: y}\n"


def test_several_processes_make_what_one_makes(
    acestep: Acestep, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the processor for both cards, and the built-in model."""
    monkeypatch.delenv("ACESTEP_MODELS_DIR")
    harbour(SPLIT)
    monkeypatch.setattr(gpu_lock, "usable_cards", lambda run: machine("cpu", "cpu").devices)
    result = acestep("album", "render", "harbour.yaml", "-o", "two", "-j", "2", "--json", "--depfile", "d")
    assert result.exit_code == 0, result.stderr
    assert [output["status"] for output in said(result)["outputs"]] == ["written"] * 2
    assert capfd.readouterr().out == ""
    assert "harbour.yaml" in Path("d").read_text()
    alone = [sys.executable, "-m", "acestep_cli", "album", "render", "harbour.yaml", "-o", "one", "--no-cache"]
    finish(alone, check=True)
    for name in ("01 a.flac", "02 b.flac"):
        assert Path("one/harbour", name).read_bytes() == Path("two/harbour", name).read_bytes()


def dies() -> processes.WorkerOutcome:
    os._exit(9)


def refuses() -> processes.WorkerOutcome:
    raise UsageError("It cannot be.", "Try another.")


def test_a_process_that_dies_or_refuses_is_a_problem_of_the_album() -> None:
    died, refused = processes.run_workers(dies, [()]), processes.run_workers(refuses, [()])
    assert "ended with code 9; run the command again to go on." in died[0].problems[0]["message"]
    assert refused[0].problems == [
        {"exit_code": 2, "name": "usage", "message": "It cannot be.", "hint": "Try another."}
    ]


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (["-o", "a.flac"], 2, "an album goes into a folder"),
        (["--depfile", "no/a.d"], 9, "The folder no does not exist."),
        (["--depfile", "harbour.yaml"], 9, "harbour.yaml exists already and is not a depfile."),
        (
            ["--depfile", "Harbour/03 Low Water.flac"],
            2,
            "--depfile Harbour/03 Low Water.flac: is a file of this album.",
        ),
        (["--depfile", "s", "--stamp", "s"], 2, "--depfile s: is a file of this album."),
        (["--events", "Harbour/03 Low Water.flac"], 2, "--events Harbour/03 Low Water.flac: is a file that this run"),
        (["--bpm", "3"], 2, "--bpm"),
    ],
)
def test_flags_are_refused(acestep: Acestep, flags: list[str], code: int, sentence: str) -> None:
    harbour()
    Path("Harbour").mkdir()
    result = acestep("album", "render", "harbour.yaml", *flags)
    assert result.exit_code == code
    assert sentence in flat(result)


# make


def test_a_depfile_names_all_that_a_track_is_made_from(acestep: Acestep) -> None:
    write("la\n", "my words.txt")
    Path("art.png").write_bytes(pictures.png())
    write("caption: base\n", "base.yaml")
    write("extends: ../base.yaml\nlyrics_file: ../my words.txt\ncover: ../art.png\n", "songs/x.yaml")
    write("tracks:\n  - songs/x.yaml\n", "harbour.yaml")
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--stamp", "s", "--depfile", "d")
    assert result.exit_code == 0, result.stderr
    text = Path("d").read_text()
    assert text.startswith("s: \\\n  harbour.yaml \\\n")
    named = {line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and line}
    assert {Path(name.replace("\\ ", " ")).name for name in named} == {
        "harbour.yaml", "base.yaml", "x.yaml", "my words.txt", "art.png",
    }  # fmt: skip
    assert Path("s").exists()
    again = acestep("album", "render", "harbour.yaml", "-o", "out", "--stamp", "s", "--depfile", "d")
    assert (again.exit_code, Path("d").read_text()) == (0, text)


@pytest.mark.parametrize("more", [[], ["-j", "2"]], ids=["one process", "two"])
def test_a_depfile_without_a_stamp_is_for_the_files_of_all_tracks(
    acestep: Acestep, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    """The workers of several processes run in this one."""
    harbour(SPLIT)
    monkeypatch.setattr(gpu_lock, "usable_cards", lambda run: machine("cpu", "cpu").devices)
    monkeypatch.setattr(processes, "run_workers", lambda work, tasks: [work(*task) for task in tasks])
    result = acestep("album", "render", "harbour.yaml", "-o", "out", "--depfile", "d", *more)
    assert result.exit_code == 0, result.stderr
    assert Path("d").read_text().startswith("out/harbour/01\\ a.flac out/harbour/02\\ b.flac: \\\n  harbour.yaml\n")


def test_there_is_no_stamp_where_a_track_failed(acestep: Acestep) -> None:
    harbour(HARBOUR.replace("caption: low", "caption: breaks"))
    assert acestep("album", "render", "harbour.yaml", "--stamp", "s", "--depfile", "d").exit_code == 7
    assert not Path("s").exists()
    assert not Path("d").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("name", ["a b", "a#b", "a$b", "a\\ b", "a%b", "a\\b", "ü", "a'b", "a[b]"])
def test_paths_are_escaped_as_make_reads_them(name: str) -> None:
    Path(name).write_text("x")
    Path("makefile").write_text("all: t\n\ninclude d\nt:\n\t@touch t; echo made\n")
    Path("d").write_text(makefile.depfile_text(["t"], [name]))
    runs = [finish(["make", "-s"], text=True, check=True).stdout for _ in range(2)]
    assert runs == ["made\n", ""]
    os.utime(name, (2e9, 2e9))
    assert finish(["make", "-s"], text=True, check=True).stdout == "made\n"
    Path(name).unlink()
    assert finish(["make", "-s"]).returncode == 2 * ("%" in name)


def test_a_path_that_make_cannot_name_is_refused() -> None:
    with pytest.raises(UsageError, match="line break"):
        makefile.escape_path("a\nb")


def test_outputs_are_printed_for_other_programs(acestep: Acestep) -> None:
    harbour(HARBOUR.replace("caption: low", "caption: low, takes: 2"))
    lines = acestep("album", "outputs", "harbour.yaml", "-o", "out").stdout.splitlines()
    assert lines[2:] == [str(Path("out/Harbour", f"03 Low Water-{take}.flac")) for take in (1, 2)]
    made = acestep("album", "outputs", "harbour.yaml", "-o", "out", "--format", "make").stdout
    assert made.startswith("TRACKS := slack-water spring-tide low-water\nOUTPUTS := out/Harbour/01\\ slack-water.flac ")
    content = json.loads(acestep("album", "outputs", "harbour.yaml", "--format", "json").stdout)
    assert content["tracks"][0]["id"] == "slack-water"
    assert [Path(file).name for file in content["tracks"][0]["inputs"]] == ["harbour.yaml", "slack-water.md"]
    result = acestep("album", "outputs", "harbour.yaml", "--format", "xml")
    assert result.exit_code == 2
    assert "'xml' is not one of paths, make, json" in result.stderr


def test_a_current_album_and_every_refusal_load_no_torch(acestep: Acestep) -> None:
    harbour(CHAIN)
    assert acestep("album", "render", "harbour.yaml", "-o", "out").exit_code == 0
    assert loaded("album", "render", "harbour.yaml", "-o", "out") == (0, [])
    assert loaded("album", "plan", "harbour.yaml", "-o", "elsewhere") == (0, [])
    assert loaded("album", "render", "nowhere.yaml") == (2, [])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_example_is_built_by_make_with_the_built_in_model(here: Path) -> None:
    shutil.copytree(ROOT / "examples" / "album", "album", ignore=shutil.ignore_patterns("out"))
    command = ["make", "-C", "album", f"ACESTEP={sys.executable} -m acestep_cli"]

    def build(*flags: str) -> str:
        run = finish([*command, *flags], text=True, timeout=LONG_LIMIT)
        assert run.returncode == 0, run.stderr
        return run.stderr

    assert build().count("of audio, seed") == 5  # four tracks, one of which is made in two steps
    assert "Nothing to be done" in finish(command, text=True, check=True).stdout
    song = Path("album/songs/low-water.md")
    song.write_text(song.read_text().replace("boats", "ships"))
    assert build().count("of audio, seed") == 1
    text = Path("album/harbour.yaml")
    text.write_text(text.read_text().replace("genre: Folk", "genre: Shanty"))
    again = build()
    assert "of audio, seed" not in again
    assert again.count("has new tags") == 4
    assert dict(mutagen.File(Path("album/out/Harbour/01 Low Water.flac")).tags)["genre"] == ["Shanty"]
