"""Rolling again: which takes are new, which are kept, their names, and what stdout says of them."""

from __future__ import annotations

import sys
from pathlib import Path

import mutagen
import pytest
from typer.testing import Result

from acestep_cli.audio import decode
from acestep_cli.song import spec
from support import tiny
from support.command import Run, flat, said
from support.sounds import recording

SONG = ("generate", "-c", "warm blues", "-d", "10")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: tiny.Oracle) -> None:
    """Each test starts in a folder with a recording of ten seconds, and a tiny base checkpoint is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    recording("drums.wav")
    Path("song.yaml").write_text("caption: a\nduration: 10\n")


def printed(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    assert result.stdout, "nothing on stdout at exit code 0"
    return result.stdout.splitlines()


def seed(file: str) -> int:
    found = spec.load(Path(f"{file}.yaml")).seed
    assert found is not None
    return found


def statuses(result: Result) -> dict[str, str]:
    return {entry["path"]: entry["status"] for entry in said(result)["outputs"]}


# Without a spec


def test_a_folder_rolls_as_the_current_one_does(acestep: Run) -> None:
    assert printed(acestep(*SONG)) == ["warm-blues-1.flac"]
    assert printed(acestep(*SONG, "-o", "out/")) == ["out/warm-blues-1.flac"]
    assert printed(acestep(*SONG, "-o", "out")) == ["out/warm-blues-2.flac"]
    assert printed(acestep(*SONG, "-o", "out/", "-n", "2")) == [f"out/warm-blues-{n}.flac" for n in (3, 4)]
    assert len({seed(f"out/warm-blues-{n}.flac") for n in (1, 2, 3)}) == 3


def test_a_dry_run_names_what_there_would_be_and_makes_no_folder(acestep: Run) -> None:
    assert printed(acestep(*SONG, "-o", "out/", "--dry-run")) == ["out/warm-blues-1.flac"]
    assert not Path("out").exists()


@pytest.mark.parametrize("where", [(), ("-o", "out/")], ids=["here", "folder"])
def test_the_same_take_of_a_seed_is_kept_and_named(acestep: Run, where: tuple[str, ...]) -> None:
    roll = (*SONG, "--seed", "7", *where)
    first = printed(acestep(*roll))
    before = Path(first[0]).stat().st_mtime_ns
    again = acestep(*roll)
    assert printed(again) == first
    assert f"{first[0]}: kept, for it has the same recipe and seed, 7" in again.stderr
    assert "New takes: another --seed." in again.stderr
    assert Path(first[0]).stat().st_mtime_ns > before  # for make
    assert statuses(acestep(*roll, "--json")) == {first[0]: "skipped"}


def test_takes_of_a_seed_go_on_where_earlier_ones_ended(acestep: Run) -> None:
    printed(acestep(*SONG, "--seed", "8"))
    result = acestep(*SONG, "--seed", "7", "-n", "3", "--json")
    assert statuses(result) == {
        "warm-blues-2.flac": "written",
        "warm-blues-1.flac": "skipped",
        "warm-blues-3.flac": "written",
    }
    assert [seed(f"warm-blues-{n}.flac") for n in (2, 1, 3)] == [7, 8, 9]


def test_another_recipe_of_the_same_seed_is_another_take(acestep: Run) -> None:
    printed(acestep(*SONG, "--seed", "7"))
    assert printed(acestep(*SONG, "--seed", "7", "--bpm", "90")) == ["warm-blues-2.flac"]


def test_force_makes_the_take_of_a_seed_again_in_its_place(acestep: Run) -> None:
    printed(acestep(*SONG, "--seed", "6"))
    printed(acestep(*SONG, "--seed", "7"))
    result = acestep(*SONG, "--seed", "7", "--force", "--json")
    assert statuses(result) == {"warm-blues-2.flac": "written"}
    assert seed("warm-blues-2.flac") == 7
    assert not Path("warm-blues-3.flac").exists()


def test_takes_without_a_sidecar_are_never_taken_for_the_same(acestep: Run) -> None:
    for number in (1, 2):
        assert printed(acestep(*SONG, "--seed", "7", "--no-sidecar")) == [f"warm-blues-{number}.flac"]


def test_a_file_is_a_build_without_a_spec_too(acestep: Run) -> None:
    assert printed(acestep(*SONG, "-o", "a.flac")) == ["a.flac"]
    assert statuses(acestep(*SONG, "-o", "a.flac", "--json")) == {"a.flac": "skipped"}
    refused = acestep(*SONG, "-o", "a.flac", "--bpm", "90")
    assert refused.exit_code == 9
    assert "--force" in refused.stderr
    assert "--again" in refused.stderr


# With specs


@pytest.mark.parametrize("where", ["out/", "song.flac"])
def test_a_spec_is_a_build_and_its_refusal_names_both_ways_on(acestep: Run, where: str) -> None:
    [file] = printed(acestep("generate", "song.yaml", "-o", where))
    kept = acestep("generate", "song.yaml", "-o", where)
    assert printed(kept) == [file]
    assert "New takes beside it: --again; in its place: --force." in flat(kept)
    refused = acestep("generate", "song.yaml", "-o", where, "--bpm", "90")
    assert (refused.exit_code, refused.stdout) == (9, "")
    assert "exists already with another recipe. --force replaces it" in flat(refused)
    assert "--again makes a new take beside it" in flat(refused)


def test_another_seed_in_the_same_file_is_named_and_not_told_to_contradict_itself(acestep: Run) -> None:
    assert acestep(*SONG, "--seed", "5", "-o", "b.wav").exit_code == 0
    result = acestep(*SONG, "--seed", "6", "-o", "b.wav")
    assert (result.exit_code, result.stdout) == (9, "")
    assert "b.wav exists already with the seed 5. --force replaces it" in flat(result)
    assert "--again" not in result.stderr  # which draws a seed, and refuses one


def test_again_makes_new_takes_beside(acestep: Run) -> None:
    """The first is the file of the build; then numbers go on from 2."""
    again = ("generate", "song.yaml", "-o", "out/", "--again")
    assert printed(acestep(*again)) == ["out/song.flac"]
    assert printed(acestep(*again)) == ["out/song-2.flac"]
    assert printed(acestep(*again, "--bpm", "90")) == ["out/song-3.flac"]
    assert printed(acestep(*again, "-n", "2")) == ["out/song-4.flac", "out/song-5.flac"]
    assert len({seed(f"out/song{end}.flac") for end in ("", "-2", "-3", "-4")}) == 4
    assert printed(acestep("generate", "song.yaml", "-o", "out/")) == ["out/song.flac"]


def test_again_goes_on_from_takes_with_numbers_and_in_another_format(acestep: Run) -> None:
    printed(acestep("generate", "song.yaml", "-n", "2", "-o", "out/"))
    assert printed(acestep("generate", "song.yaml", "-o", "out/", "--again", "--format", "wav")) == ["out/song-3.wav"]


def test_again_leaves_the_seed_of_a_spec_aside(acestep: Run) -> None:
    Path("song.yaml").write_text("caption: a\nduration: 10\nseed: 7\n")
    printed(acestep("generate", "song.yaml", "-o", "song.flac"))
    result = acestep("generate", "song.yaml", "-o", "song.flac", "--again", "--json", "--explain")
    [entry] = said(result)["outputs"]
    assert (entry["path"], entry["status"], entry["origins"]["seed"]) == ("song-2.flac", "written", "--again")
    assert (seed("song.flac"), seed("song-2.flac")) == (7, entry["seed"])
    assert entry["seed"] != 7


def test_again_rolls_a_sidecar(acestep: Run) -> None:
    printed(acestep("generate", "song.yaml", "-o", "song.flac"))
    assert printed(acestep("render", "song.flac.yaml", "-o", "./", "--again")) == ["song-2.flac"]
    assert seed("song.flac") != seed("song-2.flac")


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--seed", "7"), "--seed"),
        (("--set", "seed=7"), "--set seed"),
        (("--force",), "--force"),
        (("-o", "-"), "--output -"),
    ],
)
def test_again_excludes(acestep: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], flag: str) -> None:
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", None)
    where = () if "-o" in words else ("-o", "out/")
    result = acestep("generate", "song.yaml", *where, "--again", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"--again contradicts {flag}, because" in result.stderr


def test_a_seed_in_a_spec_without_output_keeps_the_same_take(acestep: Run) -> None:
    Path("song.yaml").write_text("caption: a\nduration: 10\nseed: 7\n")
    printed(acestep("generate", "song.yaml"))
    kept = acestep("generate", "song.yaml")
    assert printed(kept) == ["song-1.flac"]
    assert "for the spec has a seed. New takes: --again." in kept.stderr
    assert printed(acestep("generate", "song.yaml", "--again")) == ["song-2.flac"]


def test_every_file_is_named_also_where_only_some_are_new(acestep: Run) -> None:
    printed(acestep("generate", "song.yaml", "-n", "3", "-o", "out/"))
    for name in ("song-2.flac", "song-2.flac.yaml"):
        Path("out", name).unlink()
    found = printed(acestep("generate", "song.yaml", "-n", "3", "-o", "out/"))
    assert sorted(found) == [f"out/song-{n}.flac" for n in (1, 2, 3)]


# From a source


def test_names_begin_with_the_source(acestep: Run) -> None:
    lego = ("lego", "drums.wav", "--track", "bass", "-c", "round fingered bass")
    assert printed(acestep(*lego)) == ["drums-bass.flac"]
    assert printed(acestep(*lego)) == ["drums-bass-2.flac"]
    assert printed(acestep(*lego, "--mix")) == ["drums-bass-3.flac", "drums-mix-3.flac"]
    assert printed(acestep(*lego, "-o", "out/", "-n", "2")) == [f"out/drums-bass-{n}.flac" for n in (1, 2)]
    complete = ("complete", "drums.wav", "--track", "bass", "--title", "A Title")
    assert printed(acestep(*complete)) == ["drums-complete.flac"]
    extract = ("extract", "drums.wav", "--track", "vocals")
    assert printed(acestep(*extract, "-o", "out/")) == ["out/drums-vocals.flac", "out/drums-residual.flac"]
    assert printed(acestep(*extract, "-o", "out/")) == ["out/drums-vocals-2.flac", "out/drums-residual-2.flac"]


def test_a_spec_of_a_source_mode_keeps_its_own_name(acestep: Run) -> None:
    Path("round.yaml").write_text("mode: lego\nsource: drums.wav\ntrack: bass\n")
    assert printed(acestep("lego", "round.yaml")) == ["round-1.flac"]
    assert printed(acestep("lego", "round.yaml", "-o", "out/")) == ["out/round.flac"]


def test_all_stems_of_a_kept_take_are_named(acestep: Run) -> None:
    extract = ("extract", "drums.wav", "--track", "vocals,bass", "--seed", "7", "-o", "out/")
    made = printed(acestep(*extract))
    assert printed(acestep(*extract)) == made
    Path("out/drums-bass.flac").unlink()
    assert sorted(printed(acestep(*extract))) == sorted(made)
    assert Path("out/drums-bass.flac").is_file()


def test_a_replay_speaks_of_its_file(acestep: Run) -> None:
    printed(acestep(*SONG, "--title", "Another Name", "-o", "mine.flac"))
    Path("mine.flac").rename("moved.flac")
    result = acestep("replay", "moved.flac")
    assert printed(result) == ["moved.flac: identical"]
    assert "moved.flac: 10.00 s of audio" in result.stderr
    assert "another-name" not in result.stderr


# Tags


@pytest.mark.parametrize(
    "where",
    [("-o", "take.flac"), ("-o", "take.mp3"), ("-o", "out/"), (), ("song.yaml", "-o", "out/")],
    ids=["flac", "mp3", "folder", "here", "spec"],
)
def test_tags_that_are_asked_for_reach_a_take_that_is_kept(acestep: Run, where: tuple[str, ...]) -> None:
    words = ("generate", *(where if where[:1] == ("song.yaml",) else ("-c", "a", "-d", "10", *where)), "--seed", "7")
    [file] = printed(acestep(*words, "--artist", "Ann"))
    before = decode.read_audio(Path(file)).samples
    again = acestep(*words, "--artist", "Ben")
    assert printed(again) == [file]
    assert f"{file}: has new tags" in again.stderr
    assert "is there already" not in again.stderr
    assert mutagen.File(file, easy=True)["artist"] == ["Ben"]
    assert spec.load(Path(f"{file}.yaml")).artist == "Ben"
    assert (decode.read_audio(Path(file)).samples == before).all()
    once_more = acestep(*words, "--artist", "Ben")
    assert f"{file}: kept" in once_more.stderr


def test_a_roll_without_tags_leaves_those_of_the_takes_that_it_finds(acestep: Run) -> None:
    [file] = printed(acestep(*SONG, "--seed", "7", "--artist", "Ann"))
    assert printed(acestep(*SONG, "--seed", "7")) == [file]
    assert spec.load(Path(f"{file}.yaml")).artist == "Ann"
    [file] = printed(acestep(*SONG, "--seed", "7", "-o", "build.flac", "--artist", "Ann"))
    assert printed(acestep(*SONG, "--seed", "7", "-o", "build.flac")) == [file]
    assert spec.load(Path(f"{file}.yaml")).artist is None  # a build is what was asked for last
