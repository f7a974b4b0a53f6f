"""`acestep replay`: the same take again, and what is said where it is another."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import Result

from acestep_cli.audio import encode, tags
from acestep_cli.machine import hardware
from acestep_cli.song import spec, spec_layers
from support import band, ffmpeg, tiny
from support.command import Run
from support.places import RESULT_SCHEMA

LIBRARIES_FORMATS = [name for name, row in encode.FORMATS.items() if row.program is None]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))


def made(acestep: Run, name: str, *words: str) -> Path:
    result = acestep("generate", "-c", "a", "-d", "10", "--seed", "7", "-o", name, *words)
    assert result.exit_code == 0, result.stderr
    return Path(name)


def edit(path: Path, pattern: str, by: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(pattern, text)
    path.write_text(re.sub(pattern, by, text, count=1), encoding="utf-8")


def plays_differently(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> None:
    tone = band.Pipeline._tone
    monkeypatch.setattr(band.Pipeline, "_tone", lambda self, *song: change(tone(self, *song)))


def verdict(result: Result) -> dict[str, Any]:
    content = json.loads(result.stdout)
    jsonschema.validate(content, RESULT_SCHEMA)
    found: dict[str, Any] = content["replay"]
    return found


@pytest.mark.parametrize("format", LIBRARIES_FORMATS)
@pytest.mark.parametrize("by", ["sidecar", "tags", "tags alone"])
def test_a_take_is_identical_by_its_sidecar_and_by_its_tags(acestep: Run, format: str, by: str) -> None:
    take = made(acestep, f"a.{format}", *(["--no-sidecar"] if by == "tags alone" else []))
    before = sorted(Path().iterdir())
    result = acestep("replay", str(take), *(["--tags"] if by == "tags" else []))
    assert (result.exit_code, result.stdout) == (0, f"a.{format}: identical\n"), result.stderr
    assert sorted(Path().iterdir()) == before


def test_int8_arithmetic_is_recorded_and_taken_again(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx512_vnni"}))
    made(acestep, "a.flac", "--dtype", "int8")
    recorded = yaml.safe_load(Path("a.flac.yaml").read_text(encoding="utf-8"))["render"]
    assert (recorded["dtype"], recorded["int8"], recorded["int8_arithmetic"]) == ("float32", True, True)
    plays_differently(monkeypatch, lambda samples: samples * 0.9)
    assert verdict(acestep("replay", "a.flac", "--json"))["because"] == []
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset())
    because = verdict(acestep("replay", "a.flac", "--json"))["because"]
    assert "int8 arithmetic True -> False" in because


def test_one_take_is_made_whatever_number_its_sidecar_says(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made(acestep, "a.wav")
    edit(Path("a.wav.yaml"), r"takes: 1", "takes: 9")
    played: list[int] = []
    plays_differently(monkeypatch, lambda samples: played.append(1) or samples)
    assert acestep("replay", "a.wav").stdout == "a.wav: identical\n"
    assert len(played) == 1


def test_a_sidecar_stands_for_its_file(acestep: Run) -> None:
    made(acestep, "a.flac")
    found = verdict(acestep("replay", "a.flac.yaml", "--json"))
    assert found == {"path": "a.flac", "recipe": "a.flac.yaml", "verdict": "identical", "difference_db": None,
                     "because": []}  # fmt: skip


def test_mp4_has_the_spec_in_its_tags_too(tmp_path: Path) -> None:
    file = tmp_path / "a.m4a"
    file.write_bytes(ffmpeg.mp4(48_000, bytes(80_000)))
    tags.write_tags(file, "m4a", tags.Tags(spec="caption: Ω\n"))
    assert tags.read_spec(file) == "caption: Ω\n"


def test_what_nobody_hears_is_close(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made(acestep, "a.wav", "--loudness", "none", "--bit-depth", "32f")
    plays_differently(monkeypatch, lambda samples: samples * (1 - 1e-4))
    result = acestep("replay", "a.wav")
    assert (result.exit_code, result.stdout) == (0, "a.wav: within -80 dBFS\n")
    assert acestep("replay", "a.wav", "--within", "-90").exit_code == 6
    assert verdict(acestep("replay", "a.wav", "--json"))["verdict"] == "close"


def test_what_drifted_says_by_how_much_and_what_is_different(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made(acestep, "a.wav", "--loudness", "none")
    edit(Path("a.wav.yaml"), r"torch: .*", "torch: 2.1.0")
    plays_differently(monkeypatch, lambda samples: samples * 0.9)
    result = acestep("replay", "a.wav")
    assert result.exit_code == 6
    assert re.search(r"a.wav: drifted, by up to -20 dBFS, because torch 2\.1\.0 -> \d.*\.", result.stderr)
    plays_differently(monkeypatch, lambda samples: samples[:, :-1])
    found = verdict(acestep("replay", "a.wav", "--json"))
    assert (found["verdict"], found["difference_db"]) == ("drifted", None)
    assert [why.split()[0] for why in found["because"]] == ["torch"]


def test_what_drifted_for_no_reason_that_is_recorded_says_so(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made(acestep, "a.wav")
    plays_differently(monkeypatch, lambda samples: np.roll(samples, 9, axis=1))
    assert "because nothing that its recipe records" in acestep("replay", "a.wav").stderr


def test_other_weights_are_a_reason(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made(acestep, "a.wav", "--loudness", "none")
    edit(Path("a.wav.yaml"), r"weights: \w+", "weights: 0123456789abcdef")
    plays_differently(monkeypatch, lambda samples: samples * 0.5)
    assert "because weights of turbo 0123456789abcdef -> " in acestep("replay", "a.wav").stderr


def test_a_sidecar_edited_by_hand_is_no_recipe_and_the_tags_still_are(
    acestep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(acestep, "a.flac", "--bpm", "90", "--steps", "8")
    edit(Path("a.flac.yaml"), "bpm: 90", "bpm: 91")
    edit(Path("a.flac.yaml"), "steps: 8", "steps: 4")
    with monkeypatch.context() as cold:
        cold.setitem(sys.modules, "acestep_cli.pipeline", None)
        result = acestep("replay", "a.flac")
    assert result.exit_code == 2
    assert "a.flac.yaml is not how a.flac was made: somebody changed bpm and steps in it." in result.stderr
    assert "acestep replay a.flac --tags goes by the tags." in result.stderr
    assert acestep("replay", "a.flac", "--tags").stdout == "a.flac: identical\n"
    edit(Path("a.flac.yaml"), "bpm: 91", "title: T\nbpm: 90")  # a title shapes nothing
    edit(Path("a.flac.yaml"), "steps: 4", "steps: 8")
    assert acestep("replay", "a.flac").exit_code == 0


def test_audio_changed_since_its_sidecar_is_said(acestep: Run) -> None:
    take = made(acestep, "a.wav")
    samples, rate = soundfile.read(take)
    soundfile.write(take, samples[: 5 * rate], rate)
    result = acestep("replay", "a.wav")
    assert result.exit_code == 6
    assert re.search(r"Warning: a.wav has [\d,]+ bytes; its sidecar was written for [\d,]+\.", result.stderr)
    assert "it has another length now, because the file has changed since its sidecar was written." in result.stderr


def test_one_stem_is_made_again_among_its_sisters(acestep: Run, base: tiny.Oracle, monkeypatch: Any) -> None:
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    made_of = np.random.default_rng(0).uniform(-0.5, 0.5, (48_000 * 3, 2))
    soundfile.write("song.wav", made_of, 48_000)
    result = acestep("extract", "song.wav", "--track", "vocals", "--track", "drums", "-o", "x.wav", "--seed", "3")
    assert result.exit_code == 0, result.stderr
    for name in ("x-vocals.wav", "x-drums.wav", "x-residual.wav"):
        assert acestep("replay", name).stdout == f"{name}: identical\n"
        assert acestep("replay", name, "--tags").stdout == f"{name}: identical\n"


def test_tags_name_no_folder_of_whoever_made_the_song(acestep: Run) -> None:
    soundfile.write("mine.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (48_000 * 3, 2)), 48_000)
    result = acestep("cover", "mine.wav", "-c", "a", "-o", "b.flac", "--seed", "3", "--reference", "mine.wav")
    assert result.exit_code == 2  # the source is heard anyway
    assert acestep("cover", "mine.wav", "-c", "a", "-o", "b.flac", "--seed", "3").exit_code == 0
    text = tags.read_spec(Path("b.flac"))
    assert text is not None
    assert "source: ./mine.wav\n" in text
    assert str(Path.cwd()) not in text
    assert spec.resolve(spec_layers.parse_layer(text, "tags", Path.cwd())).request.source == str(
        Path("mine.wav").absolute()
    )
    assert acestep("replay", "b.flac", "--tags").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["no.wav"], 5, "no.wav cannot be read: no such file or directory."),
        (["plain.wav"], 5, "plain.wav: its tags do not say how it was made, nor is there a sidecar plain.wav.yaml."),
        (["plain.wav", "--tags"], 5, "plain.wav: its tags do not say how it was made, which only this program writes."),
        (["a.wav", "--within", "3"], 2, "Input should be less than or equal to 0"),
        (["a.wav", "-m", "pocket"], 2, "No such option"),
    ],
)
def test_refusals(acestep: Run, words: list[str], code: int, sentence: str) -> None:
    made(acestep, "a.wav")
    soundfile.write("plain.wav", np.full((48_000, 2), 0.5), 48_000)
    result = acestep("replay", *words)
    assert result.exit_code == code
    assert sentence in " ".join(result.stderr.replace("│", " ").split())


def test_a_checkpoint_that_is_gone_is_named(acestep: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made(acestep, "a.wav")
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(tmp_path))
    result = acestep("replay", "a.wav")
    assert result.exit_code == 3
    assert "turbo" in result.stderr


# Threads


@pytest.mark.parametrize("format", ["wav", "flac"])
@pytest.mark.parametrize("by", [[], ["--tags"]], ids=["sidecar", "tags"])
def test_a_replay_computes_with_as_many_threads(
    acestep: Run, monkeypatch: pytest.MonkeyPatch, format: str, by: list[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    made(acestep, f"a.{format}")
    assert yaml.safe_load(Path(f"a.{format}.yaml").read_text())["render"]["threads"] == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = acestep("replay", f"a.{format}", *by, "--json", "-v")
    assert result.exit_code == 0, result.stderr
    assert "Threads of the processor: 2, the take was made with as many." in result.stderr
    assert json.loads(result.stdout)["replay"]["because"] == []


def test_a_number_of_threads_that_is_not_taken_again_is_named(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "192")
    made(acestep, "a.wav")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = acestep("replay", "a.wav", "--json")
    assert json.loads(result.stdout)["replay"]["because"] == ["threads 192 -> 1"]


@pytest.mark.parametrize("asked", ["", "0", "many", "-2", "99999"])
def test_the_program_chooses_the_threads(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    count, why = hardware.threads()
    assert 1 <= count <= (os.cpu_count() or 1)
    assert why == "one for each core that this process may use"
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    assert hardware.threads()[0] == 1


@pytest.mark.parametrize(("limit", "count"), [("1", 1), ("3", 3), ("9", 4), ("4294967295", 4), ("0", 4), ("many", 4)])
def test_a_limit_of_threads_is_kept(monkeypatch: pytest.MonkeyPatch, limit: str, count: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("OMP_THREAD_LIMIT", limit)
    assert hardware.threads()[0] == count
    assert ("OMP_THREAD_LIMIT" in hardware.threads()[1]) == (count < 4)
