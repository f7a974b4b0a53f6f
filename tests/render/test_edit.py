"""The mode `edit`: what it makes, how it learns what its source is, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.engine.dit import DiT
from acestep_cli.models import checkpoint_files, checkpoints
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete, spec
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import tiny
from support.command import Run, said
from support.rendering import FLOAT32, quiet
from support.sounds import recording

SEED, SECONDS = 7, 6
WORDS = {"caption": "folk", "lyrics": "[Verse]\nnew", "from_caption": "techno", "from_lyrics": "[Verse]\nold"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    recording("take.wav", SECONDS)
    return tmp_path


def edit(oracle: tiny.Oracle, model: str = "turbo", plan: Any = FLOAT32, **asked: Any) -> list[Take]:
    found = checkpoints.find_checkpoint(model, oracle.root)
    keys = {"mode": "edit", "source": "take.wav", "seed": SEED, "steps": 4, **WORDS, **asked}
    return list(Pipeline(found, plan).run([complete.complete(Request(**keys), found)], quiet))


def latents(take: Take) -> np.ndarray:
    assert take.latents is not None
    return take.latents.frames


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


# What it makes


@pytest.mark.parametrize(("name", "model"), [("two_b", "turbo"), ("xl", "turbo"), ("base", "base")])
def test_an_edit_is_as_long_as_its_source_and_another_song(
    request: pytest.FixtureRequest, name: str, model: str
) -> None:
    (take,) = edit(request.getfixturevalue(name), model)
    assert take.audio.samples.shape == (2, SECONDS * 48_000)
    assert take.problem is None
    assert take.edit_change is not None
    assert take.edit_change > 0.05
    assert take.request.dcw == "off"


def test_without_a_window_it_is_text_to_music_of_the_same_seed(two_b: tiny.Oracle) -> None:
    (edited,) = edit(two_b, edit_start=0, edit_end=0)
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    keys = {"caption": WORDS["caption"], "lyrics": WORDS["lyrics"], "duration": 10, "seed": SEED, "steps": 4}
    asked = complete.complete(Request(**keys, dcw="off"), found).model_copy(update={"duration": float(SECONDS)})
    (made,) = Pipeline(found, FLOAT32).run([asked], quiet)
    assert apart(latents(edited), latents(made)) < 1e-4
    assert apart(edited.audio.samples, made.audio.samples) < 1e-3


def test_a_window_of_nothing_leaves_the_source_and_fails(two_b: tiny.Oracle) -> None:
    (take,) = edit(two_b, edit_start=1)
    assert take.edit_change == 0
    assert take.problem == "The edit changed nothing, so no file was written."


def test_a_later_start_keeps_more_and_an_earlier_end_less(base: tiny.Oracle) -> None:
    whole, late, early = (
        edit(base, "base", **window)[0].edit_change or 0 for window in ({}, {"edit_start": 0.5}, {"edit_end": 0.5})
    )
    assert late < whole < early


@pytest.mark.parametrize("average", [1, 3])
def test_takes_in_a_row_are_takes_alone_whatever_the_tiles(base: tiny.Oracle, average: int) -> None:
    first, second = edit(base, "base", takes=2, steps=2, edit_average=average)
    assert second.request.seed == SEED + 1
    (alone,) = edit(base, "base", seed=SEED + 1, steps=2, edit_average=average)
    assert np.array_equal(second.audio.samples, alone.audio.samples)
    tiles = FLOAT32.model_copy(update={"tile_frames": 32})
    (tiled,) = edit(base, "base", tiles, steps=2, edit_average=average)
    assert apart(latents(tiled), latents(first)) < 1e-4
    assert not np.array_equal(latents(first), latents(second))


@pytest.mark.parametrize(
    ("name", "model", "asked", "calls"),
    [
        ("two_b", "turbo", {}, 2 * 4),
        ("base", "base", {"guidance": 5}, 2 * 2 * 4),
        ("base", "base", {"guidance": 1}, 2 * 4),
        ("base", "base", {"guidance": 5, "guidance_method": "cfg", "edit_end": 0.5, "edit_average": 3}, 28),
    ],
)  # fmt: skip
def test_the_model_is_asked_for_both_sides_and_on_turbo_never_guided(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, name: str, model: str, asked: dict[str, Any],
    calls: int,
) -> None:  # fmt: skip
    seen, forward = [], DiT.forward
    monkeypatch.setattr(DiT, "forward", lambda self, *args: seen.append(args[0].shape) or forward(self, *args))
    edit(request.getfixturevalue(name), model, **asked)
    assert len(seen) == calls
    assert {shape[0] for shape in seen} == {1}


def test_each_side_has_its_own_words_and_the_target_s_metadata(
    two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, str]] = []
    prompts_of = complete.modes.prompts.prompts_of
    monkeypatch.setattr(
        complete.modes.prompts, "prompts_of", lambda *args: read.append(prompts_of(*args)) or prompts_of(*args)
    )
    edit(two_b, bpm=90, language="en")
    (source, source_lyrics), (target, target_lyrics) = read
    assert source.replace("techno", "folk") == target
    assert "- bpm: 90" in source
    assert "Fill the audio semantic mask" in source
    assert source_lyrics == "# Languages\nen\n\n# Lyric\n[Verse]\nold<|endoftext|>"
    assert target_lyrics == "# Languages\nen\n\n# Lyric\n[Verse]\nnew<|endoftext|>"


def test_lyrics_are_timed_by_the_words_that_are_sung_now(
    two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch, followed: None
) -> None:
    monkeypatch.setattr(checkpoint_files.Checkpoint, "alignment_heads", ((1, 0), (2, 1)))
    (take,) = edit(two_b, lrc=True, lyrics="[Verse]\nnew words\nof mine")
    assert [line.text for line in take.lines] == ["[Verse]", "new words", "of mine"]


# What its source is


@pytest.fixture
def ours(acestep: Run) -> str:
    """A take of this program, with sidecar and tags."""
    keys = ["--lyrics", "[Verse]\nold words", "--bpm", "96", "--key", "A minor", "--language", "en"]
    assert acestep("generate", "-c", "techno", *keys, "-d", "8", "--seed", "1", "-o", "ours.flac").exit_code == 0
    return "ours.flac"


def request_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    return said(result)["outputs"][0]["request"]


@pytest.mark.parametrize("where", ["sidecar", "tags"])
def test_a_take_of_ours_says_what_it_is(acestep: Run, ours: str, where: str) -> None:
    if where == "tags":
        Path(f"{ours}.yaml").unlink()
    found = request_of(acestep("edit", ours, "--lyrics", "[Verse]\nnew words", "--seed", "2", "-o", "a.flac", "--json"))
    assert (found["from_caption"], found["from_lyrics"]) == ("techno", "[Verse]\nold words")
    assert (found["caption"], found["lyrics"]) == ("techno", "[Verse]\nnew words")
    assert (found["bpm"], found["key"], found["language"]) == (96, "A minor", "en")
    text = acestep("spec", "show", "a.flac.yaml", "--origin").stdout
    assert "from_caption: techno" in text
    explained = acestep("edit", ours, "-c", "folk", "--dry-run", "--explain").stderr
    assert ("ours.flac.yaml:" if where == "sidecar" else "the tags of") in explained
    assert request_of(acestep("edit", ours, "-c", "folk", "-o", "b.flac", "--json"))["lyrics"] == "[Verse]\nold words"


def test_flags_go_before_what_the_take_says(acestep: Run, ours: str) -> None:
    Path("old.txt").write_text("[Chorus]\nother words\n")
    keys = ["--from-caption", "house", "--from-lyrics-file", "old.txt", "--bpm", "100"]
    found = request_of(acestep("edit", ours, "-c", "folk", *keys, "-o", "a.flac", "--json"))
    assert (found["from_caption"], found["from_lyrics"], found["bpm"]) == ("house", "[Chorus]\nother words\n", 100)
    assert found["lyrics"] == "[Chorus]\nother words\n"  # which nobody asked to change
    assert acestep("edit", ours, "-c", "x", "--from-lyrics", "a", "--from-lyrics-file", "old.txt").exit_code == 2


def test_a_caption_that_stays_is_not_missed(acestep: Run, ours: str) -> None:
    words = ["--lyrics", "[Verse]\nother words", "--json"]
    kept = acestep("edit", ours, *words, "-o", "a.flac")
    assert request_of(kept)["caption"]
    assert "caption: is missing" not in kept.stderr
    assert "caption: is missing" in acestep("generate", *words, "-o", "b.flac").stderr


def test_words_of_the_source_come_from_stdin(acestep: Run, ours: str) -> None:
    asked = ["edit", ours, "-c", "folk", "-o", "a.flac", "--json"]
    assert request_of(acestep(*asked, "--from-lyrics", "-", stdin="la la\n"))["from_lyrics"] == "la la\n"
    twice = acestep(*asked, "--from-lyrics", "-", "--lyrics", "-", stdin="la la\n")
    assert (twice.exit_code, "stdin can be read once" in twice.stderr) == (2, True)


def test_an_instrumental_is_told_from_words_that_nobody_knows(acestep: Run, ours: str) -> None:
    acestep("generate", "-c", "techno", "-d", "8", "--seed", "1", "-o", "mute.flac")
    found = request_of(acestep("edit", "mute.flac", "--lyrics", "[Verse]\nla", "-o", "a.flac", "--json"))
    assert (found["from_lyrics"], found["lyrics"]) == ("[Instrumental]", "[Verse]\nla")
    found = request_of(acestep("edit", ours, "--instrumental", "-o", "b.flac", "--json"))
    assert (found["from_lyrics"], found["instrumental"]) == ("[Verse]\nold words", True)
    assert "lyrics" not in found
    acestep("repaint", "take.wav", "-c", "techno", "--start", "2", "--end", "4", "--seed", "1", "-o", "r.flac")
    found = request_of(acestep("edit", "r.flac", "-c", "folk", "-o", "c.flac", "--json"))
    assert "from_lyrics" not in found  # its spec is of a part: it does not say who sings elsewhere
    unknown = acestep("edit", "r.flac", "--lyrics", "[Verse]\nla", "-o", "d.flac")
    assert (unknown.exit_code, "nothing tells what is sung in" in unknown.stderr) == (2, True)


def test_a_sidecar_plays_the_edit_again_and_knows_its_own_source_alone(acestep: Run, ours: str) -> None:
    acestep("edit", ours, "-c", "folk", "--seed", "2", "--edit-end", "70%", "-o", "a.flac")
    kept = acestep("render", "a.flac.yaml", "-o", "a.flac", "--json")
    assert said(kept)["outputs"][0]["status"] == "skipped"
    Path(f"{ours}.yaml").write_text("caption: something else\nrender: {}\n")
    kept = acestep("render", "a.flac.yaml", "-o", "a.flac", "--json")
    assert said(kept)["outputs"][0]["status"] == "skipped"
    acestep("generate", "-c", "polka", "-d", "8", "--seed", "1", "-o", "other.flac")
    found = request_of(acestep("edit", "a.flac.yaml", "--set", "source=other.flac", "-o", "b.flac", "--json"))
    assert (found["from_caption"], found["caption"], found["edit_end"]) == ("polka", "folk", 0.7)


def test_an_edit_of_an_edit_begins_from_what_the_first_became(acestep: Run, ours: str) -> None:
    acestep("edit", ours, "-c", "folk", "--seed", "2", "-o", "a.flac")
    found = request_of(acestep("edit", "a.flac", "-c", "jazz", "-o", "b.flac", "--json"))
    assert (found["from_caption"], found["caption"], found["lyrics"]) == ("folk", "jazz", "[Verse]\nold words")


def test_an_album_edits_its_tracks_and_those_of_others(acestep: Run) -> None:
    Path("album.yaml").write_text(
        "album: {title: A}\ndefaults: {model: pocket, steps: 2}\ntracks:\n"
        "  - {id: one, caption: techno, lyrics: la, duration: 8}\n"
        "  - {id: two, from: one, title: Two, edits: [{edit: {caption: folk, edit_end: 70%}}]}\n"
        "  - {id: three, caption: house, duration: 8, title: Three, instrumental: true,"
        " edits: [{edit: {caption: polka}}]}\n"
    )
    result = acestep("album", "render", "album.yaml", "-o", "out/", "--json")
    assert result.exit_code == 0, result.stderr
    two, three = (spec.load(next(Path("out").rglob(f"*{title}.flac.yaml"))) for title in ("Two", "Three"))
    assert (two.mode, two.from_caption, two.caption, two.lyrics, two.edit_end) == ("edit", "techno", "folk", "la", 0.7)
    assert (three.from_caption, three.caption, three.from_lyrics) == ("house", "polka", "[Instrumental]")
    again = acestep("album", "render", "album.yaml", "-o", "out/", "--json")
    assert {entry["status"] for entry in said(again)["outputs"]} == {"skipped"}


def test_a_damaged_sidecar_is_no_description(acestep: Run, ours: str) -> None:
    for text in ("caption: [", "caption: foreign\n", "render: {}\ncaption: 1\nsteps: many\nnonsense: 1\n", "\0"):
        Path(f"{ours}.yaml").write_text(text)
        found = request_of(acestep("edit", ours, "-c", "folk", "-o", "a.flac", "--json", "--force"))
        assert found["from_caption"] == "techno"  # by its tags


# What is refused

BEFORE = ["--from-caption", "techno"]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["take.wav"], 2, "caption: there is nothing to change; give the new caption (-c), the new lyrics (--lyrics),"),
        (["take.wav", "-c", "folk"], 2, "from_caption: nothing tells what"),
        (["take.wav", "-c", "folk"], 2, "describe it with --from-caption, and its words with --from-lyrics or"),
        (["take.wav", "-c", "techno", *BEFORE], 2, "--caption: caption and lyrics are those of the source already"),
        (["take.wav", "--instrumental", *BEFORE], 2, "--instrumental: nothing tells what is sung in"),
        (["take.wav", "--lyrics", "la", *BEFORE], 2, "give the words with --from-lyrics or --from-lyrics-file."),
        (["take.wav", "-c", "folk", "--from-lyrics", "la"], 2, "sounds like now; say it with --from-caption."),
        (["take.wav", "--instrumental", *BEFORE, "--from-lyrics", "[Instrumental]"], 2,
         "--instrumental: caption and lyrics are those of the source already, so nothing would change."),
        (["-c", "folk"], 2, "source: there is no recording to work on; name one: acestep edit SOURCE."),
        (["take.wav", "-c", "a", *BEFORE, "--edit-start", "60%", "--edit-end", "0.5"], 2,
         "--edit-start: the edit begins at 0.6 of the steps, after its end, 0.5."),
        (["take.wav", "-c", "a", *BEFORE, "--edit-start", "101%"], 2, "--edit-start: '101%' is not from 0% to 100%"),
        (["take.wav", "-c", "a", *BEFORE, "--edit-average", "0"], 2, "--edit-average: 0 is not a whole number from 1"),
        *((["take.wav", "-c", "a", *BEFORE, "--solver", name], 2, f"--solver: {name} cannot edit")
          for name in ("heun", "sde", "dpm3m")),
        (["take.wav", "-c", "a", *BEFORE, "--guidance-method", "adg"], 2, "adg cannot edit; apg and cfg can."),
        *((["take.wav", "-c", "a", *BEFORE, "--dcw", name], 2, f"--dcw: {name} cannot be applied")
          for name in ("low", "high", "double", "pix")),
        (["take.wav", "-c", "a", *BEFORE, "--dcw-scale", "0.1"], 2, "--dcw-scale: has nothing to act on, because dcw"),
        (["take.wav", "-c", "a", *BEFORE, "--variation", "0.1"], 2, "--variation has no meaning for edit; it is for"),
        (["take.wav", "-c", "a", *BEFORE, "--together", "2"], 2, "--together has no meaning for edit; it is for"),
        (["take.wav", "-c", "a", *BEFORE, "--set", "codes=1,2"], 2, "codes: has no meaning for edit; it is for gen"),
        (["take.wav", "-c", "a", *BEFORE, "--songwriter", "0.6B"], 2, "0.6B has nothing to decide in edit"),
        (["take.wav", "-c", "a", *BEFORE, "--set", "temperature=1"], 2, "temperature: has no meaning for edit"),
        (["take.wav", "-c", "a", *BEFORE, "--set", "duration=3"], 2, "is decided by the source, 6 s; leave it out"),
        (["blip.wav", "-c", "a", *BEFORE], 5, "blip.wav"),
        (["none.wav", "-c", "a", *BEFORE], 5, "none.wav cannot be read"),
        (["take.wav", "-c", "a", *BEFORE, "-o", "take.wav", "--force"], 2, "is the recording that this run works on"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_edited_is_refused_before_any_weight(
    base: tiny.Oracle, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, sentence: str
) -> None:
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    monkeypatch.setitem(__import__("sys").modules, "acestep_cli.pipeline", None)
    recording("blip.wav", 0.9)
    result = CliRunner().invoke(app, ["edit", *arguments], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in " ".join(result.stderr.replace("│", " ").split())
    assert len(list(Path().iterdir())) == 2


@pytest.mark.parametrize("harmless", [["--solver", "euler"], ["--dcw", "auto"], ["--dcw", "off"], ["--no-think"],
                                      ["--songwriter", "auto"]], ids=" ".join)  # fmt: skip
def test_what_an_edit_does_anyway_may_be_asked_for(acestep: Run, harmless: list[str]) -> None:
    asked = ["edit", "take.wav", "-c", "a", *BEFORE, "--seed", "1", "-o", "a.flac", "--json"]
    plain = request_of(acestep(*asked))
    again = acestep(*asked, *harmless)
    assert (said(again)["outputs"][0]["status"], request_of(again)) == ("skipped", plain)


def test_a_key_of_edit_is_refused_elsewhere(acestep: Run) -> None:
    for key in ("from_caption=a", "from_lyrics=a", "edit_start=0.1", "edit_end=0.9", "edit_average=2"):
        result = acestep("generate", "-c", "a", "--set", key)
        assert (result.exit_code, "has no meaning for generate; it is for edit." in result.stderr) == (2, True)
    assert "--from-lyrics-file" not in acestep("generate", "--help-all").stdout
    assert "--from-lyrics-file" in acestep("edit", "--help-all").stdout


# As a user runs it


def test_pocket_edits_a_take_and_replays_it(tmp_path: Path) -> None:
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words], catch_exceptions=False)

    base = ["-m", "pocket", "--songwriter", "none"]
    made = run("generate", "-c", "techno", "--instrumental", "-d", "4", *base, "--seed", "1", "-o", "a.wav", "-q")
    assert made.exit_code == 0, made.stderr
    edit = ["edit", "a.wav", "-c", "folk", "-m", "pocket", "--set", "steps=4", "--seed", "3"]
    result = run(*edit, "-o", "b.wav", "--json")
    assert result.exit_code == 0, result.stderr
    [entry] = json.loads(result.stdout)["outputs"]
    assert entry["seconds"] == 4
    assert entry["checks"]["edit_change"] > 0.05
    assert "the edit changed the latents by" in result.stderr
    assert run("replay", "b.wav").exit_code == 0
    shutil.copy("b.wav", "kept.wav")
    assert run("render", "b.wav.yaml", "-o", "c.wav").exit_code == 0
    assert np.array_equal(soundfile.read("b.wav")[0], soundfile.read("c.wav")[0])
    unchanged = run("edit", "a.wav", "-c", "folk", "-m", "pocket", "--edit-start", "100%", "-o", "d.wav", "--json")
    assert unchanged.exit_code == 6
    assert json.loads(unchanged.stdout)["outputs"][0]["status"] == "failed"
    assert not Path("d.wav").exists()


def test_a_dry_run_plans_two_evaluations_a_step_and_more_memory(acestep: Run, two_b: tiny.Oracle) -> None:
    from acestep_cli.machine import plan
    from acestep_cli.machine.memory import MemoryModel
    from acestep_cli.models.sizes import Sizes

    found = checkpoints.find_checkpoint("turbo", two_b.root)
    sizes = Sizes.of(found)

    def model_of(**keys: Any) -> tuple[complete.Completed, MemoryModel]:
        request = complete.complete(Request(**keys), found)
        return request, MemoryModel(sizes, plan._workload(request, sizes), FLOAT32.arrangement)

    edited, edit_memory = model_of(mode="edit", source="take.wav", **WORDS)
    covered, cover_memory = model_of(mode="cover", source="take.wav", caption="techno", lyrics=WORDS["lyrics"])
    one = plan.diffusion_operations(covered, cover_memory)
    assert plan.diffusion_operations(edited, edit_memory) == 2 * one
    averaged, averaged_memory = model_of(mode="edit", source="take.wav", edit_average=3, edit_end=0.5, **WORDS)
    assert plan.diffusion_operations(averaged, averaged_memory) == (6 + 1) / 2 * one
    assert edit_memory.cross_kv_bytes == 2 * cover_memory.cross_kv_bytes
    assert averaged_memory.step_bytes > edit_memory.step_bytes > cover_memory.step_bytes
