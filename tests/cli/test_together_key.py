"""`--together`: what is refused, what is said, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from acestep_cli.machine import hardware
from acestep_cli.song import document
from support.command import Run
from support.paper_card import GIB

SONG = ("generate", "-c", "a song", "-d", "4", "-m", "pocket", "--songwriter", "none", "--seed", "7")


@pytest.fixture
def a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card beside the processor, on which the band plays."""
    card = hardware.cuda_device(0, "Paper card", (8, 6), 8 * GIB, None)
    found = hardware.Hardware((card, hardware.cpu_device()), "cuda")
    monkeypatch.setattr(hardware, "detect", lambda: found)


def written(run: Any) -> list[dict[str, Any]]:
    assert run.exit_code == 0, run.stderr
    outputs: list[dict[str, Any]] = json.loads(run.stdout)["outputs"]
    return outputs


@pytest.mark.parametrize("number", ["0", "9", "x", "2.5", "-1"])
def test_a_number_out_of_range_is_refused(here: Path, acestep: Run, number: str) -> None:
    run = acestep(*SONG, f"--together={number}")
    assert run.exit_code == 2
    assert "--together" in run.stderr
    assert not list(here.glob("*.flac"))


def test_a_spec_with_a_number_out_of_range_names_its_line(here: Path, acestep: Run) -> None:
    (here / "a.yaml").write_text("caption: a song\ntogether: 9\n")
    run = acestep("render", "a.yaml")
    assert run.exit_code == 2
    assert "a.yaml:2" in run.stderr


def test_a_processor_makes_takes_one_by_one_unless_asked(here: Path, acestep: Run) -> None:
    outputs = written(acestep(*SONG, "-n", "3", "--json", "-o", "out/"))
    assert {output["plan"]["together"] for output in outputs} == {1}
    assert all("together" not in Path(output["sidecar"]).read_text() for output in outputs)


def test_a_number_that_was_asked_for_is_part_of_the_recipe(here: Path, acestep: Run) -> None:
    [first, *_] = written(acestep(*SONG, "-n", "3", "--together", "3", "--json", "-o", "out/"))
    content = document.load_yaml(Path(first["sidecar"]).read_bytes())
    assert content["together"] == 3
    assert content["render"]["together"] == 3
    assert first["plan"]["together"] == 3
    again = written(acestep(*SONG, "-n", "3", "--together", "3", "--json", "-o", "out/"))
    assert {output["status"] for output in again} == {"skipped"}
    other = acestep(*SONG, "-n", "3", "-o", "out/a-song-1.flac", "-n", "1")
    assert other.exit_code == 9


def test_one_together_is_the_recipe_of_a_take_alone(here: Path, acestep: Run) -> None:
    written(acestep(*SONG, "--json", "-o", "a.flac"))
    [again] = written(acestep(*SONG, "--together", "1", "--json", "-o", "a.flac"))
    assert again["status"] == "skipped"


def test_more_than_there_are_takes_are_so_many(here: Path, acestep: Run) -> None:
    run = acestep(*SONG, "-n", "3", "--together", "8", "--json", "-o", "out/")
    assert "--together 8: 3 at a time, there are no more takes" in run.stderr
    assert {output["plan"]["together"] for output in written(run)} == {3}
    sidecar = json.loads(run.stdout)["outputs"][0]["sidecar"]
    replayed = acestep("render", sidecar, "-o", "again/")
    assert replayed.exit_code == 0
    assert "at a time" not in replayed.stderr  # a take's own recipe is of one take


@pytest.mark.usefixtures("a_card")
def test_a_card_takes_as_many_as_there_are(here: Path, acestep: Run) -> None:
    outputs = written(acestep(*SONG, "-n", "5", "--json", "-o", "out/"))
    assert {output["plan"]["together"] for output in outputs} == {5}
    content = document.load_yaml(Path(outputs[0]["sidecar"]).read_bytes())
    assert "together" not in content  # nobody asked
    assert content["render"]["together"] == 5
    alone = written(acestep(*SONG, "-n", "12", "--together", "1", "--json", "-o", "more/"))
    assert {output["plan"]["together"] for output in alone} == {1}
    most = written(acestep(*SONG, "-n", "12", "--json", "-o", "most/"))
    assert {output["plan"]["together"] for output in most} == {8}


@pytest.mark.usefixtures("a_card")
def test_what_does_not_fit_is_the_next_smaller_number(here: Path, acestep: Run) -> None:
    run = acestep(
        "generate", "-c", "a song", "-d", "10:00", "-m", "xl-turbo", "-n", "8", "--together", "8", "--songwriter",
        "none", "--max-vram", "6G", "--dry-run", "--json",
    )  # fmt: skip
    outputs = written(run)
    number = outputs[0]["plan"]["together"]
    assert 1 < number < 8
    assert f"--together 8: {number} at a time, more do not fit into" in run.stderr


@pytest.mark.usefixtures("a_card")
def test_the_dry_run_and_the_origins_say_how_many(here: Path, acestep: Run) -> None:
    run = acestep(*SONG, "-n", "4", "--dry-run", "--explain")
    assert run.exit_code == 0
    assert "Takes that share a forward pass: 4" in run.stderr
    [line] = [line for line in run.stderr.splitlines() if line.startswith("together")]
    assert "machine" in line


def test_the_key_has_its_origin(here: Path, acestep: Run) -> None:
    (here / "a.yaml").write_text("caption: a song\ntogether: 2\ntakes: 4\n")
    run = acestep("spec", "show", "a.yaml", "--origin")
    assert run.exit_code == 0
    [line] = [line for line in run.stdout.splitlines() if line.startswith("together")]
    assert "a.yaml:2" in line
