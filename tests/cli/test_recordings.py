"""The commands that work on recordings, as scripts see them: names, reports, recipes, and what is refused."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from acestep_cli.audio import decode, encode
from acestep_cli.cli.app import app
from acestep_cli.song import modes, musical_values, spec
from support import band, tiny
from support.command import Run, loaded, said
from support.places import ROOT
from support.sounds import recording

RATE = 48_000


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: tiny.Oracle) -> Path:
    """Each test starts in a folder with a recording of ten seconds, and a tiny base checkpoint is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    recording("take.wav")
    return tmp_path


@pytest.fixture
def acestep(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`acestep …` in this process, with the band for a pipeline."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", band.module())
    return run


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`acestep …`, for what is refused: the pipeline cannot even be imported."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", None)
    return run


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def outputs(*arguments: str) -> list[tuple[str, str, str | None]]:
    """Path, kind and track of each file of a run."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return [(entry["path"], entry["kind"], entry["track"]) for entry in said(result)["outputs"]]


# What comes out


@pytest.mark.usefixtures("acestep")
def test_files_are_named_after_their_tracks() -> None:
    extract = ["extract", "take.wav", "--track", "vocals", "--track", "drums"]
    assert outputs(*extract, "-o", "stems/") == [
        ("stems/take-vocals.flac", "stem", "vocals"),
        ("stems/take-drums.flac", "stem", "drums"),
        ("stems/take-residual.flac", "residual", None),
    ]
    assert [path for path, _, _ in outputs(*extract, "-n", "2", "-o", "a.wav")] == [
        f"a-{part}-{number}.wav" for number in (1, 2) for part in ("vocals", "drums", "residual")
    ]
    lego = ["lego", "take.wav", "--track", "bass"]
    assert outputs(*lego, "-o", "bass.mp3") == [("bass.mp3", "stem", "bass")]
    assert outputs(*lego, "--mix", "-o", "b.wav") == [("b-bass.wav", "stem", "bass"), ("b-mix.wav", "mix", None)]
    assert outputs("complete", "take.wav", "--track", "bass,drums", "-o", "c.wav") == [("c.wav", "take", None)]
    for end in ("", "-2"):  # the next free number, the same for all files of a take
        assert [path for path, _, _ in outputs(*lego, "--mix")] == [
            f"take-{part}{end}.flac" for part in ("bass", "mix")
        ]


@pytest.mark.usefixtures("acestep")
def test_all_are_twelve_stems_and_what_is_left() -> None:
    made = outputs("extract", "take.wav", "--all", "-o", "stems/")
    assert [track for _, _, track in made] == [*musical_values.TRACKS, None]
    spec_file = Path("s.yaml")
    spec_file.write_text("mode: extract\nsource: take.wav\ntracks: all\n")
    assert len(outputs("extract", "s.yaml", "-o", "more/")) == 13


@pytest.mark.usefixtures("acestep")
def test_a_stem_s_sidecar_makes_that_stem_again() -> None:
    run("extract", "take.wav", "--all", "-o", "stems/", "--seed", "3")
    request = spec.load(Path("stems/take-vocals.flac.yaml"))
    assert (request.mode, request.track, request.seed) == ("extract", ("vocals",), 3)
    assert Path(request.source or "").samefile("take.wav")
    result = run("render", "stems/take-vocals.flac.yaml", "-o", "again/", "--json")
    assert [entry["track"] for entry in said(result)["outputs"]] == ["vocals", None]


@pytest.mark.usefixtures("acestep")
def test_what_was_measured_is_reported_and_recorded() -> None:
    result = run("repaint", "take.wav", "--start", "2", "--end", "4", "-c", "a", "-o", "a.flac", "--json")
    [entry] = said(result)["outputs"]
    assert entry["checks"]["outside_difference"] == 0
    seam = entry["checks"]["seam_1_db"]
    assert entry["request"]["loudness"] == "none"
    assert "a.flac: the new part differs clearly from the old" in result.stderr
    assert f"seam_1_db: {seam}" in Path("a.flac.yaml").read_text()


@pytest.mark.usefixtures("acestep")
def test_a_repaint_that_changed_nothing_fails_its_check() -> None:
    result = run("repaint", "take.wav", "--start", "2", "--end", "4", "-c", "unchanged", "-o", "a.flac")
    assert (result.exit_code, result.stdout) == (6, "")
    assert "The repaint changed nothing." in result.stderr
    assert not Path("a.flac").exists()


@pytest.mark.usefixtures("acestep")
def test_a_spec_does_as_well_as_a_source() -> None:
    Path("songs").mkdir()
    Path("songs/c.yaml").write_text("mode: cover\nsource: ../take.wav\ncaption: metal\nstrength: 40%\nseed: 1\n")
    assert outputs("cover", "songs/c.yaml", "-o", "out/") == [("out/c.flac", "take", None)]
    assert outputs("render", "songs/c.yaml", "--set", "source=take.wav", "-o", "more/") == [
        ("more/c.flac", "take", None)
    ]
    recipes = {Path(folder, "c.flac.yaml").read_text().partition("recipe: ")[2][:16] for folder in ("out", "more")}
    assert len(recipes) == 1
    by_flags = outputs("cover", "take.wav", "-c", "metal", "--strength", "0.4", "--seed", "1", "-o", "out/c.flac")
    assert by_flags == [("out/c.flac", "take", None)]  # the same recipe, so it was kept
    for command in ("repaint", "generate"):
        result = run(command, "songs/c.yaml")
        assert result.exit_code == 2
        assert f"is a spec of the mode cover, not {command}." in result.stderr
        assert "acestep cover songs/c.yaml" in result.stderr


@pytest.mark.usefixtures("acestep")
def test_a_spec_without_a_mode_takes_that_of_the_command() -> None:
    Path("c.yaml").write_text("source: take.wav\ncaption: metal\n")
    assert outputs("cover", "c.yaml", "-o", "c.wav") == [("c.wav", "take", None)]


@pytest.mark.usefixtures("acestep")
def test_a_recipe_holds_what_recordings_hold_and_not_where_they_lie() -> None:
    cover = ["-c", "a", "--reference", "other.wav", "-o", "a.flac", "--seed", "1", "--json"]
    recording("other.wav", 2, seed=1)
    assert said(run("cover", "take.wav", *cover))["outputs"][0]["status"] == "written"
    Path("moved.wav").write_bytes(Path("take.wav").read_bytes())
    Path("other.wav").replace("elsewhere.wav")
    cover[3] = "elsewhere.wav"
    assert said(run("cover", "moved.wav", *cover))["outputs"][0]["status"] == "skipped"
    recording("elsewhere.wav", 2, seed=2)
    assert run("cover", "moved.wav", *cover).exit_code == 9
    cover[3] = "moved.wav"
    recording("take.wav", seed=5)
    assert run("cover", "take.wav", *cover).exit_code == 9


@pytest.mark.usefixtures("acestep")
def test_a_lost_stem_is_made_again_and_the_others_are_kept() -> None:
    extract = ["extract", "take.wav", "--track", "vocals,drums", "--seed", "7", "-o", "stems/", "--json"]
    first = said(run(*extract))["outputs"]
    Path("stems/take-drums.flac").unlink()
    again = said(run(*extract))["outputs"]
    assert [entry["status"] for entry in again] == ["skipped", "written", "skipped"]
    assert {entry["seed"] for entry in first + again} == {first[0]["seed"]}
    assert [entry["status"] for entry in said(run(*extract))["outputs"]] == ["skipped"] * 3


@pytest.mark.usefixtures("acestep")
def test_a_sidecar_with_another_region_or_source_has_another_length() -> None:
    run("repaint", "take.wav", "--start", "8", "--end", "12", "-c", "a", "-o", "a.flac")
    assert spec.load(Path("a.flac.yaml")).duration == 12
    assert outputs("render", "a.flac.yaml", "-o", "b.flac")
    assert said(run("repaint", "a.flac.yaml", "--end", "14", "-o", "c.flac", "--json"))["outputs"][0]["seconds"] == 14
    recording("short.wav", 9)
    more = ["--set", "source=short.wav", "-o", "d.flac", "--json"]
    assert said(run("repaint", "a.flac.yaml", *more))["outputs"][0]["seconds"] == 12


@pytest.mark.usefixtures("acestep")
def test_lengths_are_those_of_the_source() -> None:
    recording("short.wav", 1.5, rate=8000, channels=1)
    [entry] = said(run("complete", "short.wav", "-o", "a.flac", "--json"))["outputs"]
    assert (entry["seconds"], entry["request"]["duration"]) == (1.5, 1.5)


SPECS = sorted((ROOT / "songs" / "recordings").iterdir())


@pytest.mark.usefixtures("acestep")
@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.stem)
def test_a_spec_for_a_recording_opens_with_the_command_that_plays_it(file: Path) -> None:
    recording("night-drive.flac", 12)
    recording("vocals.flac", 12)
    Path("songs").symlink_to(file.parents[1])
    first = file.read_text(encoding="utf-8").splitlines()[0]
    program, *arguments = shlex.split(first.removeprefix("# "))
    assert program == "acestep"
    assert file.name in first
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert all(Path(path).is_file() for path in result.stdout.split())


def test_there_is_a_spec_for_each_mode() -> None:
    assert {spec.load(file).mode or "generate" for file in SPECS} == set(modes.MODES)


# A row


def test_a_seventh_mode_is_a_row(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command, flags, help, checks, schema and completion follow from the row."""
    row = modes.Mode(
        "Play a recording backwards.",
        lambda request, region: modes.Prepared("Turn it round:", lambda context: context.original().flip(1)),
        ("acestep reverse take.wav",),
        keys=("source", "close"),
        needs=("source",),
        defaults=lambda request: {"close": True},
        task="cover",
    )
    monkeypatch.setitem(modes.MODES, "reverse", row)
    monkeypatch.setattr(
        "acestep_cli.cli.app.COMMANDS", {**__import__("acestep_cli.cli.app").cli.app.COMMANDS, "reverse": row.summary}
    )
    text = acestep("reverse", "--help-all").stdout
    assert row.summary in text
    assert " --close " in text
    assert " --strength " not in text
    assert "SOURCE|SPEC" in text
    assert row.summary in acestep("--help").stdout
    assert acestep("reverse", "take.wav", "-o", "a.flac").stdout == "a.flac\n"
    written = spec.load(Path("a.flac.yaml"))
    assert (written.mode, written.close, written.duration) == ("reverse", True, 10)
    assert acestep("render", "a.flac.yaml", "-o", "b.flac").exit_code == 0
    assert "reverse" in json.loads(acestep("spec", "schema").stdout)["properties"]["mode"]["enum"]
    assert acestep("reverse").exit_code == 2
    refusal = acestep("reverse", "take.wav", "--set", "strength=1", "-o", "c.flac").stderr
    assert "--set strength: has no meaning for reverse; it is for cover." in refusal


# What is refused

NEEDED = {
    "cover": ["-c", "a"],
    "repaint": ["-c", "a", "--start", "2"],
    "lego": ["--track", "bass"],
    "extract": ["--track", "bass"],
    "complete": [],
    "edit": ["-c", "a", "--from-caption", "b"],
}


@pytest.mark.usefixtures("acestep")
@pytest.mark.parametrize("mode", NEEDED)
@pytest.mark.parametrize("how", [["--songwriter", "none"], ["--no-think"], ["--set", "songwriter=none"]], ids=" ".join)
def test_every_mode_takes_that_there_is_no_songwriter(mode: str, how: list[str]) -> None:
    command = [mode, "take.wav", *NEEDED[mode], "--seed", "1", "-o", "out/", "--json"]
    plain = said(run(*command))
    again = said(run(*command, *how))
    # It changes nothing: the recipe neither, so that what is there is kept.
    assert [entry["status"] for entry in again["outputs"]] == ["skipped"] * len(plain["outputs"])
    assert [entry["request"] for entry in again["outputs"]] == [entry["request"] for entry in plain["outputs"]]
    keys = {"--start": "start: 2", "--track": "track: bass", "--from-caption": "from_caption: b"}
    lines = [f"mode: {mode}", "source: take.wav", "caption: a", "songwriter: none",
             *(keys[flag] for flag in NEEDED[mode] if flag in keys)]  # fmt: skip
    Path("of.yaml").write_text("\n".join(lines))
    assert run("render", "of.yaml", "-o", "more/").exit_code == 0
    assert run("render", "of.yaml", "--no-think", "-o", "yet-more/").exit_code == 0


@pytest.mark.parametrize("mode", NEEDED)
def test_a_songwriter_s_options_are_refused_where_none_is_named(refused: Run, mode: str) -> None:
    command = [mode, "take.wav", "-m", "pocket", *NEEDED[mode]]
    assert refused(*command, "--no-think", "--songwriter", "0.6B").exit_code == 2
    for none in ([], ["--songwriter", "auto"], ["--no-think"]):
        result = refused(*command, "--set", "temperature=1", *none)
        assert result.exit_code == 2
        assert result.stderr.count("temperature") == 1, result.stderr
    for of_codes in ("cfg_scale=3", "negative_prompt=noise", "idea=a lost umbrella"):
        result = refused(*command, "--songwriter", "pocket", "--set", of_codes)
        assert result.exit_code == 2
        assert f"has no meaning for {mode}; it is for generate." in result.stderr


def test_extract_refuses_a_songwriter(refused: Run) -> None:
    result = refused("extract", "take.wav", *NEEDED["extract"], "--songwriter", "0.6B")
    assert result.exit_code == 2
    assert "songwriter: 0.6B has nothing to decide in extract" in result.stderr


@pytest.mark.parametrize("words", [[], ["--instrumental"], ["--bpm", "90"]], ids=" ".join)
def test_a_songwriter_asks_for_something_to_go_by(refused: Run, words: list[str]) -> None:
    result = refused("complete", "take.wav", "-m", "pocket", *words, "--songwriter", "pocket")
    assert result.exit_code == 2
    assert "caption: the Songwriter has nothing to go by; give a caption (-c), lyrics (--lyrics)" in result.stderr


def test_what_is_missing_is_said_once_with_a_songwriter_too(refused: Run) -> None:
    for command, lacking in ((["cover", "take.wav"], "make music from"), (["lego", "take.wav"], "no track is named")):
        result = refused(*command, "-m", "pocket", "--songwriter", "pocket")
        assert result.exit_code == 2
        assert lacking in result.stderr
        assert "nothing to go by" not in result.stderr


@pytest.mark.usefixtures("acestep")
@pytest.mark.parametrize("mode", [mode for mode in NEEDED if modes.MODES[mode].has_songwriter])
def test_only_a_named_songwriter_decides_what_is_open(mode: str) -> None:
    command = [mode, "take.wav", *NEEDED[mode], "-m", "pocket", "--track", "bass"]
    command = command if mode == "complete" else command[:-2]
    for none in ([], ["--songwriter", "auto"]):
        assert "The Songwriter" not in run(*command, *none, "--dry-run").stderr
    named = run(*command, "--songwriter", "pocket", "--lyrics", "la la", "-n", "2", "-o", "filled/")
    assert named.exit_code == 0, named.stderr
    written = "" if "-c" in NEEDED[mode] else "caption, "
    assert f"decides what is open: {written}language, bpm, key, time signature\n" in named.stderr
    assert len(list(Path("filled").glob("*.flac"))) == 2
    everything = ["-c", "a", "--bpm", "90", "--key", "Am", "--time-signature", "3/4"]
    full = said(run(*command, *everything, "--seed", "1", "-o", "full/", "--json"))
    result = run(*command, *everything, "--seed", "1", "-o", "full/", "--json", "--songwriter", "pocket")
    assert "decides" not in result.stderr
    assert [entry["status"] for entry in said(result)["outputs"]] == ["skipped"] * len(full["outputs"])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["cover", "-c", "a"], 2, "source: there is no recording to work on; name one: acestep cover SOURCE."),
        (["cover", "take.wav"], 2, "make music from; give a caption (-c) or lyrics (--lyrics)."),
        (["cover", "take.wav", "-c", "a", "--strength", "140%"], 2, "--strength: '140%' is not from 0% to 100%"),
        (["cover", "take.wav", "-c", "a", "--set", "duration=10.5"], 2, "is decided by the source, 10 s; leave it out"),
        (["cover", "take.wav", "-c", "a", "-d", "20"], 2, "-d is decided by the source; leave it out."),
        (["lego", "take.wav", "--duration", "20"], 2, "--duration is decided by the source; leave it out."),
        (["extract", "take.wav", "--track", "bass", "--mix"], 2, "--mix has no meaning for extract; it is for lego."),
        (["generate", "-c", "a", "--all"], 2, "--all has no meaning for generate; it is for lego, extract, complete."),
        (["cover", "take.wav", "-c", "a", "--start", "2"], 2, "--start has no meaning for cover; it is for repaint,"),
        (["cover", "take.wav", "-c", "a", "--set", "codes=1,2"], 2, "codes: has no meaning for cover"),
        (
            ["generate", "-c", "a", "--set", "source=take.wav"],
            2,
            "source: has no meaning for generate; it is for cover,",
        ),
        (["repaint", "take.wav", "-c", "a"], 2, "neither start nor end is given, so no region is named"),
        (["repaint", "take.wav", "-c", "a", "--start", "5", "--end", "3"], 2, "start: 5 s is not before the end, 3 s"),
        (["repaint", "take.wav", "-c", "a", "--start", "12", "--end", "14"], 2, "start: 12 s lies past the end"),
        (["repaint", "take.wav", "-c", "a", "--start", "10"], 2, "start: 10 s lies past the end"),
        (
            ["repaint", "take.wav", "-c", "a", "--start", "-9", "--end", "-3"],
            2,
            "'-3' is not between 0 and 7200 seconds",
        ),
        (["repaint", "take.wav", "-c", "a", "--start", "5", "--end", "5.00002"], 2, "there is too little to make"),
        (
            ["repaint", "take.wav", "-c", "a", "--start", "-595"],
            2,
            "the song would be 605 s long, and 600 s are the most",
        ),
        (
            [
                "repaint",
                "take.wav",
                "-c",
                "a",
                "--start",
                "2",
                "--repaint-mode",
                "aggressive",
                "--repaint-strength",
                "1",
            ],
            2,
            "--repaint-strength: has nothing to decide where repaint_mode is aggressive.",
        ),
        (["lego", "take.wav"], 2, "track: no track is named; there are woodwinds, brass"),
        (
            ["lego", "take.wav", "--track", "bass", "--track", "drums"],
            2,
            "track: lego makes one track at a time, not 2",
        ),
        (["lego", "take.wav", "--track", "bass", "--start", "11", "--end", "12"], 2, "start: 11 s lies past the end"),
        (["extract", "take.wav"], 2, "track: no track is named"),
        (["extract", "take.wav", "--track", "banjo"], 2, "--track: 'banjo' is not one of woodwinds"),
        (["extract", "take.wav", "--track", "bass", "--track", "bass"], 2, "--track: 'bass' is given twice"),
        (["extract", "take.wav", "--track", "bass", "--all"], 2, "--all: excludes --track"),
        (["extract", "take.wav", "--track", "bass", "-o", "-"], 2, "carries one take; several need files"),
        (["extract", "take.wav", "--track", "bass", "--set", "mix=true"], 2, "mix: has no meaning for extract"),
        (["cover", "take.wav", "-c", "a", "--reference", "take.wav"], 2, "reference: is the source too"),
        (["cover", "take.wav", "-c", "a", "-o", "take.wav", "--force"], 2, "is the recording that this run works on"),
        (["cover", "no.wav", "-c", "a"], 5, "SOURCE: "),
        (["cover", "take.wav", "-c", "a", "--reference", "no.wav"], 5, "no.wav cannot be read: no such file"),
        (["generate", "-c", "a", "-d", "10", "--reference", "quiet.wav"], 5, "--reference: "),
        (["generate", "-c", "a", "-d", "10", "--reference", "quiet.wav"], 5, "quiet.wav is silent"),
        (["lego", "take.wav", "--track", "bass", "-m", "xl-base"], 3, "The checkpoint xl-base is not installed"),
        (["complete", "take.wav", "take.wav", "-o", "out/"], 2, "take.wav is given 2 times"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_any_weight(
    refused: Run, arguments: list[str], code: int, sentence: str
) -> None:
    soundfile.write("quiet.wav", np.zeros((2 * RATE, 2)), RATE)
    before = Path("take.wav").read_bytes()
    result = refused(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
    assert Path("take.wav").read_bytes() == before


@pytest.mark.parametrize("mode", NEEDED)
def test_a_source_that_does_not_suit_is_refused_by_every_mode(refused: Run, mode: str) -> None:
    Path("words.txt").write_text("la la\n")
    Path("empty.wav").touch()
    Path("folder.wav").mkdir()
    recording("blip.wav", 0.1)
    recording("six.wav", 2, channels=6)
    recording("long.wav", 7201, rate=1000, channels=1)
    for name in ("none.wav", "words.txt", "empty.wav", "folder.wav", "blip.wav", "six.wav", "long.wav"):
        result = refused(mode, name, *NEEDED[mode])
        assert (result.exit_code, result.stdout) == (5, ""), name
        assert str(Path(name).absolute()) in result.stderr
        assert len(result.stderr.splitlines()) <= 2


def test_a_source_that_does_not_suit_is_told_with_its_place(refused: Run) -> None:
    Path("songs").mkdir()
    Path("songs/c.yaml").write_text("mode: cover\ncaption: a\nsource: none.wav\n")
    for words in (["cover"], ["render"], ["spec", "check"]):
        result = refused(*words, "songs/c.yaml")
        assert result.exit_code == (2 if words[0] == "spec" else 5)
        assert result.stderr.startswith(f"songs/c.yaml:3: source: {Path('songs/none.wav').absolute()} cannot be read")


@pytest.mark.parametrize("words", [["cover", "take.wav", "house"], ["repaint", "take.wav", "8-16", "-c", "x"]])
def test_a_word_behind_a_recording_leads_to_the_flags(refused: Run, words: list[str]) -> None:
    result = refused(*words, "-o", "out/")
    assert result.exit_code == 2
    assert f"'{words[2]}' is no file" in result.stderr
    assert "cannot be read" not in result.stderr
    assert "-c" in result.stderr


def test_all_problems_of_a_spec_are_told_with_their_places(refused: Run) -> None:
    Path("r.yaml").write_text(
        "mode: repaint\nsource: take.wav\nstart: 5\nend: 3\ntrack: bass\nguidance: 1\ncfg_interval: 0,1\n"
    )
    result = refused("render", "r.yaml", "-o", "a.flac")
    assert result.exit_code == 2
    for sentence in (
        "r.yaml:3: start: 5 s is not before the end",
        "r.yaml:5: track: has no meaning for repaint; it is for lego, extract, complete.",
        "r.yaml: caption: there is nothing to make music from",
        "r.yaml:7: cfg_interval: has nothing to act on",
    ):
        assert sentence in result.stderr
    check = refused("spec", "check", "r.yaml")
    assert check.exit_code == 2
    assert check.stderr == result.stderr


def test_what_turbo_was_not_taught_is_refused_with_the_command_that_helps(
    refused: Run, two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    named = refused("extract", "take.wav", "--track", "bass", "-m", "turbo")
    assert named.exit_code == 3
    assert "turbo was not trained to extract; base, xl-base and pocket were." in named.stderr
    assert "`acestep models pull base` fetches one of them; then --model base." in named.stderr
    absent = refused("complete", "take.wav", "-m", "xl-turbo")
    assert absent.exit_code == 3
    assert "xl-turbo was not trained to complete; base, xl-base and pocket were." in absent.stderr


def test_without_a_base_checkpoint_the_built_in_one_takes_on_its_tasks_and_says_so(
    refused: Run, two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    auto = refused("complete", "take.wav", "--dry-run")
    assert auto.exit_code == 0
    lacking = "No model trained for complete is installed, so pocket plays: a sketch."
    assert f"{lacking} A real one (6.3 GB): acestep models pull base" in auto.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["cover", "none.wav", "-c", "a"], 5),
        (["repaint", "take.wav", "-c", "a", "--start", "12"], 2),
        (["extract", "take.wav", "--all", "-m", "turbo"], 3),
        (["extract", "take.wav", "--all", "--dry-run"], 0),
        (["repaint", "--help"], 0),
    ],
    ids=str,
)
def test_nothing_cold_loads_torch(arguments: list[str], code: int) -> None:
    assert loaded(*arguments) == (code, [])


# The files themselves


@pytest.mark.parametrize(
    ("source", "format", "bit_depth"),
    [("a.wav", "flac", "24"), ("a.flac", "wav", "16"), ("a.wav", "wav", "32f"), ("a.mp3", "flac", "24"),
     ("mono.wav", "flac", "16")],
)  # fmt: skip
def test_what_is_written_outside_of_a_repaint_is_the_source(
    two_b: tiny.Oracle, source: str, format: str, bit_depth: str
) -> None:
    """At the bit depth of the file: as if the source itself had been written."""
    recording(source, 5, rate=44_100 if source == "mono.wav" else RATE, channels=1 if source == "mono.wav" else 2)
    flags = ["-c", "a", "--models-dir", str(two_b.root), "-m", "turbo", "--steps", "2", "--bit-depth", bit_depth]
    result = run("repaint", source, "--start", "2", "--end", "3", *flags, "-o", f"made.{format}", "--json")
    assert result.exit_code == 0, result.stderr
    encode.write_audio(
        Path(f"plain.{format}"),
        decode.read_audio(Path(source)),
        encode.Finish(encode.resolve_encoding(format, bit_depth)),
    )
    made, plain = (soundfile.read(f"{name}.{format}", dtype="float64")[0] for name in ("made", "plain"))
    assert made.shape == plain.shape
    assert made.shape[0] == said(result)["outputs"][0]["seconds"] * RATE
    fade = round(0.025 * RATE)
    assert np.array_equal(made[: 2 * RATE - fade], plain[: 2 * RATE - fade])
    assert np.array_equal(made[3 * RATE + fade :], plain[3 * RATE + fade :])
    assert np.abs(made - plain).max() > 0.01
