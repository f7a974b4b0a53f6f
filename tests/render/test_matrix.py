"""`--matrix`: one song with several values of some keys, named after them, of one seed, by one load of the weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from acestep_cli.render import matrix
from acestep_cli.song import spec
from support import tiny
from support.command import Run, flat, said

SONG = ("generate", "-c", "warm blues", "-d", "10")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: tiny.Oracle) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    Path("song.yaml").write_text("caption: slow piano\nduration: 10\n")


def test_each_combination_is_a_song_named_after_its_values(acestep: Run) -> None:
    result = acestep(*SONG, "--matrix", "steps=8,12", "--matrix", "shift=2,3")
    assert result.exit_code == 0, result.stderr
    names = [f"warm-blues-steps-{steps}-shift-{shift}.flac" for steps in (8, 12) for shift in (2, 3)]
    assert result.stdout.splitlines() == names
    made = [spec.load(Path(f"{name}.yaml")) for name in names]
    assert [(one.steps, one.shift) for one in made] == [(8, 2), (8, 3), (12, 2), (12, 3)]
    assert len({one.seed for one in made}) == 1  # they differ in nothing else
    assert result.stderr.count("Loading weights") == 1


@pytest.mark.parametrize("more", [(), ("--again",), ("-n", "2")])
def test_the_next_roll_has_another_seed_and_the_next_numbers(acestep: Run, more: tuple[str, ...]) -> None:
    words = (*SONG, "--matrix", "steps=8,12", *more)
    first, second = acestep(*words), acestep(*words)
    assert (first.exit_code, second.exit_code) == (0, 0), second.stderr
    files = [result.stdout.splitlines() for result in (first, second)]
    assert not set(files[0]) & set(files[1])
    seeds = [[spec.load(Path(f"{file}.yaml")).seed for file in each] for each in files]
    for each in seeds:
        assert each[: len(each) // 2] == each[len(each) // 2 :]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize("output", ["out/", "out/take.wav"])
def test_a_build_keeps_what_is_there_and_makes_what_is_new(acestep: Run, output: str) -> None:
    Path("out").mkdir()
    words = ("generate", "song.yaml", "--seed", "3", "-o", output, "--matrix")
    assert acestep(*words, "guidance=4,7").exit_code == 0
    result = acestep(*words, "guidance=4,7,9", "--json")
    assert result.exit_code == 0, result.stderr
    assert [entry["status"] for entry in said(result)["outputs"]] == ["skipped", "skipped", "written"]
    stem, suffix = ("song", "flac") if output == "out/" else ("take", "wav")
    assert [entry["path"] for entry in said(result)["outputs"]] == [
        f"out/{stem}-guidance-{n}.{suffix}" for n in (4, 7, 9)
    ]


def test_variations_share_the_other_seed_too(acestep: Run) -> None:
    assert acestep(*SONG, "--seed", "3", "--matrix", "variation=10%,30%").exit_code == 0
    made = [spec.load(file) for file in Path().glob("*.yaml") if file.name != "song.yaml"]
    assert {one.variation for one in made} == {0.1, 0.3}
    assert len({one.variation_seed for one in made}) == 1


def test_several_specs_are_swept_each(acestep: Run) -> None:
    Path("other.yaml").write_text("caption: fast drums\nduration: 10\n")
    result = acestep("generate", "song.yaml", "other.yaml", "--matrix", "bpm=90,120", "-o", "out/")
    assert result.stdout.split() == [f"out/{name}-bpm-{bpm}.flac" for name in ("song", "other") for bpm in (90, 120)]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("8,12", ["8", "12"]),
        (" 8 , 12 ", ["8", "12"]),
        ("A minor,F# major", ["A minor", "F# major"]),
        ("40%,60%", ["40%", "60%"]),
        ("1:30,90s", ["1:30", "90s"]),
        ("no,yes", ["no", "yes"]),
        ("[0,1],[0.1,0.9]", [["0", "1"], ["0.1", "0.9"]]),
        ("'slow, sad',\"fast: mad\"", ["slow, sad", "fast: mad"]),
        ("null,120", [None, "120"]),
    ],
)
def test_values_are_split_as_in_the_list_of_a_spec(text: str, values: list[Any]) -> None:
    assert list(matrix.split_values(text)) == values


def test_a_key_with_a_list_for_a_value(acestep: Run) -> None:
    result = acestep(*SONG, "--matrix", "cfg_interval=[0,1],[0.1,0.9]", "--seed", "1")
    assert result.exit_code == 0, result.stderr
    names = ["warm-blues-cfg-interval-0-1.flac", "warm-blues-cfg-interval-0.1-0.9.flac"]
    assert result.stdout.splitlines() == names
    assert [spec.load(Path(f"{name}.yaml")).cfg_interval for name in names] == [(0, 1), (0.1, 0.9)]


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        (["steps"], ["'steps': is not key=value,value"]),
        (["stepz=8,12"], ["--matrix stepz: is not a key of a song spec", "steps"]),
        (["mode=cover,repaint", "format=wav,mp3"], ["--matrix mode: is the same", "--matrix format: is the same"]),
        (["steps=8", "steps=12"], ["--matrix steps: is given twice"]),
        (["duration=10,20"], ["--matrix duration: is given twice, here and by --duration"]),
        (["steps=8,8"], ["--matrix steps: has a value twice"]),
        (["steps=8,,12"], ["is no list of values"]),
        (["steps="], ["--matrix steps: has no values"]),
        (["steps=8]: [12"], ["is no list of values"]),
        (["negative_prompt={a: b}"], ["holds a map"]),
        (["bpm=90,x", "steps=0"], ["--matrix bpm: 'x' is not a whole number", "--matrix steps: "]),
        (["seed=" + ",".join(map(str, range(40))), "steps=" + ",".join(map(str, range(1, 31)))], ["makes 1200 songs"]),
    ],
)
def test_what_makes_no_songs_is_refused_with_everything_else(
    acestep: Run, settings: list[str], sentences: list[str]
) -> None:
    words = [word for setting in settings for word in ("--matrix", setting)]
    result = acestep(*SONG, *words, "--key", "H major")
    assert result.exit_code == 2, result.output
    for sentence in [*sentences, "--key: 'H major'"]:
        assert sentence in flat(result)
    assert not list(Path().glob("*.flac"))


@pytest.mark.parametrize("more", [["-o", "-"], ["--auto"]])
def test_several_songs_need_files_of_their_own(acestep: Run, more: list[str]) -> None:
    assert acestep(*SONG, "--matrix", "steps=8,12", *more).exit_code == 2


def test_a_remark_on_all_of_them_is_made_once(acestep: Run) -> None:
    result = acestep("generate", "warm lo-fi beat", "-d", "10", "--matrix", "steps=8,12")
    assert result.stderr.count("so that is the caption") == 1
    assert result.stderr.count("nobody") <= 1


def test_a_page_of_takes_groups_them_by_their_values(acestep: Run) -> None:
    assert acestep(*SONG, "--matrix", "steps=8,12", "--matrix", "shift=2", "-o", "out/").exit_code == 0
    assert acestep(*SONG, "-o", "out/").exit_code == 0
    assert acestep("listen", "out/").exit_code == 0
    page = Path("out/listen.html").read_text()
    found = re.search(r'<script [^>]*id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert found is not None
    assert {take["varies"] for take in json.loads(found[1])["takes"]} == {"generate"}
    assert {take["group"] for take in json.loads(found[1])["takes"]} == {
        "steps 8 · shift 2",
        "steps 12 · shift 2",
        None,
    }
