"""Takes that share forward passes: the same as each of them alone, in every mode, and what becomes of them when memory
runs out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from acestep_cli import solvers
from acestep_cli.cache import Cache
from acestep_cli.cli.app import app
from acestep_cli.engine import codec, denoise
from acestep_cli.engine.dit import DiT
from acestep_cli.errors import MemoryLimitError
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoints
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete, take_parts
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import inputs, tiny
from support.rendering import FLOAT32, quiet

LYRICS = "[Verse]\nla la la\nlo lo\n\n[Chorus]\nli li\n"
SONG: dict[str, Any] = {"duration": 10, "steps": 3}
SOURCE: dict[str, Any] = {"source": "a.wav", "steps": 3}
EVERY_CORRECTION = {"dcw": "double", "velocity_clamp": 0.8, "velocity_ema": 0.1, "latent_shift": 0.1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("turbo", {**SONG, "lyrics": LYRICS}),
    **{solver: ("turbo", {**SONG, "solver": solver}) for solver in solvers.SOLVERS if solver != "euler"},
    "timesteps": ("turbo", {"duration": 10, "timesteps": [1, 0.7, 0.2]}),
    "odd length": ("turbo", {**SONG, "duration": 10.05}),
    "codes": ("turbo", {**SONG, "codes": tuple(range(0, 5000, 100))}),
    "references": ("turbo", {**SONG, "reference": ["a.wav", "b.wav"]}),
    "adapters": ("turbo", {**SONG, "loras": ["my-sound"]}),
    "lrc": ("turbo", {**SONG, "lyrics": LYRICS, "lrc": True}),
    "variation": ("turbo", {**SONG, "variation": 0.2, "variation_seed": 50}),
    "corrections": ("turbo", {**SONG, **EVERY_CORRECTION}),
    **{method: ("base", {**SONG, "guidance": 5, "guidance_method": method}) for method in solvers.GUIDANCE_METHODS},
    "guided heun": ("base", {**SONG, "guidance": 5, "solver": "heun", "cfg_interval": (0.2, 0.9)}),
    "cover": ("base", {**SOURCE, "mode": "cover", "strength": 0.5, "noise_strength": 0.25, "steps": 4}),
    "close cover": ("base", {**SOURCE, "mode": "cover", "close": True}),
    "repaint": ("base", {**SOURCE, "mode": "repaint", "start": 1, "end": 2}),
    "extend": ("turbo", {**SOURCE, "mode": "repaint", "start": -1, "end": 0}),
    "lego": ("base", {**SOURCE, "mode": "lego", "track": ["bass"], "mix": True}),
    "extract": ("base", {**SOURCE, "mode": "extract", "track": ["vocals", "drums"]}),
    "complete": ("base", {**SOURCE, "mode": "complete", "track": ["drums"]}),
}
#: Of how many takes each pass of the diffusion was.
Passes = list[int]


@pytest.fixture(scope="module")
def checkpoint_of(two_b: tiny.Oracle, base: tiny.Oracle) -> dict[str, Checkpoint]:
    return {
        "turbo": checkpoints.find_checkpoint("turbo", two_b.root),
        "base": checkpoints.find_checkpoint("base", base.root),
    }


@pytest.fixture(autouse=True)
def _inputs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recordings and an adapter in the current folder."""
    folder = tmp_path_factory.getbasetemp() / "together"
    if not folder.exists():
        folder.mkdir()
        inputs.write_inputs(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Checkpoint, "alignment_heads", ((1, 0), (2, 1)))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Record of how many takes each run of the sampling loop is."""
    seen: Passes = []
    whole = denoise.denoise

    def noted(*given: Any, **settings: Any) -> Any:
        seen.append(len(settings["seeds"]))
        return whole(*given, **settings)

    monkeypatch.setattr(denoise, "denoise", noted)
    return seen


def completed(case: str, checkpoint: Checkpoint, **asked: Any) -> complete.Completed:
    return complete.complete(
        Request(**{"caption": "a song", "seed": 7, "takes": 3, **CASES[case][1], **asked}), checkpoint
    )


def render(
    checkpoint: Checkpoint, request: complete.Completed, together: int, plan: Plan = FLOAT32, **machine: Any
) -> list[Take]:
    made = Pipeline(checkpoint, plan.model_copy(update={"together": together}), **machine)
    return list(made.run([request], quiet))


def apart(one: Take, other: Take) -> float:
    """The relative difference of the samples of two takes, whose other contents are the same."""
    assert (one.number, one.kind, one.track, one.request) == (other.number, other.kind, other.track, other.request)
    assert [line.text for line in one.lines] == [line.text for line in other.lines]
    assert one.scores == pytest.approx(other.scores, abs=1e-3)
    assert one.audio.samples.shape == other.audio.samples.shape
    difference = np.linalg.norm(one.audio.samples - other.audio.samples)
    return float(difference / np.linalg.norm(other.audio.samples))


@pytest.mark.parametrize("case", CASES)
def test_three_takes_together_are_those_alone(checkpoint_of: dict[str, Checkpoint], passes: Passes, case: str) -> None:
    checkpoint = checkpoint_of[CASES[case][0]]
    request = completed(case, checkpoint)
    stems = len([part for part in take_parts.output_parts(request) if part.kind in ("take", "stem")])
    together = render(checkpoint, request, 3)
    assert passes == [3] * stems
    alone = render(checkpoint, request, 1)
    assert passes == [3] * stems + [1] * 3 * stems
    assert len(together) == len(alone)
    assert max(apart(one, other) for one, other in zip(together, alone, strict=True)) <= 1e-5
    assert apart_takes(together)


def apart_takes(takes: list[Take]) -> bool:
    """Tell whether the first two takes of one kind differ."""
    first, second = [take for take in takes if (take.kind, take.track) == (takes[0].kind, takes[0].track)][:2]
    return not np.allclose(first.audio.samples, second.audio.samples, atol=1e-3)


def test_the_last_pass_has_the_rest(checkpoint_of: dict[str, Checkpoint], passes: Passes) -> None:
    request = completed("generate", checkpoint_of["turbo"], takes=5)
    takes = render(checkpoint_of["turbo"], request, 2)
    assert passes == [2, 2, 1]
    assert [take.number for take in takes] == [1, 2, 3, 4, 5]
    assert [take.request.seed for take in takes] == [7, 8, 9, 10, 11]
    assert {take.plan.together for take in takes} == {2}


def test_each_request_of_a_run_has_its_own_number(checkpoint_of: dict[str, Checkpoint], passes: Passes) -> None:
    checkpoint = checkpoint_of["turbo"]
    songs = [completed("generate", checkpoint, takes=takes) for takes in (3, 2, 4)]
    takes = list(Pipeline(checkpoint, FLOAT32).run(songs, quiet, together=[3, 1, 2]))
    assert passes == [3, 1, 1, 2, 2]
    assert [take.plan.together for take in takes] == [3] * 3 + [1] * 2 + [2] * 4


def test_one_take_is_decoded_while_others_wait(
    checkpoint_of: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is stopped in the middle of a group has given out what was decoded."""
    decoded: list[int] = []
    decode = codec.decode_latents
    monkeypatch.setattr(codec, "decode_latents", lambda *given: decoded.append(1) or decode(*given))
    checkpoint = checkpoint_of["turbo"]
    plan = FLOAT32.model_copy(update={"together": 3})
    takes = Pipeline(checkpoint, plan).run([completed("generate", checkpoint)], quiet)
    assert next(takes).number == 1
    assert len(decoded) == 1
    takes.close()
    assert len(decoded) == 1


def test_takes_of_a_pass_share_its_seconds(checkpoint_of: dict[str, Checkpoint]) -> None:
    takes = render(checkpoint_of["turbo"], completed("generate", checkpoint_of["turbo"]), 3)
    assert len({take.timings["diffuse"] for take in takes}) == 1
    assert "condition" in takes[0].timings
    assert "condition" not in takes[1].timings


def test_progress_counts_the_steps_of_all_takes(checkpoint_of: dict[str, Checkpoint]) -> None:
    seen: list[tuple[int, int]] = []

    def report(stage: str, done: int, total: int) -> None:
        if stage == "diffuse":
            seen.append((done, total))

    checkpoint = checkpoint_of["turbo"]
    plan = FLOAT32.model_copy(update={"together": 2})
    list(Pipeline(checkpoint, plan).run([completed("generate", checkpoint)], report))
    assert seen == [(done, 9) for done in (0, 2, 4, 6, 6, 7, 8, 9)]


# Files


def test_every_file_of_takes_together_is_that_of_its_take(
    base: tiny.Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Passes
) -> None:
    """Takes of several files come part by part."""
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(base.root))
    asked = ["extract", "a.wav", "--track", "vocals", "--track", "drums", "-n", "3", "--seed", "1", "--steps", "2"]
    for together in (2, 1):
        place = [f"--together={together}", "-o", f"{tmp_path / str(together)}/"]
        run = CliRunner().invoke(app, [*asked, "--dtype", "fp32", *place])
        assert run.exit_code == 0, run.stderr
    assert passes == [2, 2, 1, 1, *[1] * 6]
    alone = sorted((tmp_path / "1").glob("*.flac"))
    assert [file.name for file in sorted((tmp_path / "2").glob("*.flac"))] == [file.name for file in alone]
    assert len(alone) == 9
    for file in alone:
        expected, _ = soundfile.read(file)
        found, _ = soundfile.read(tmp_path / "2" / file.name)
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


# Memory that runs out


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let memory run out in every forward pass of more takes than this."""

    def set_most(most: int) -> None:
        forward = DiT.forward

        def limited(self: DiT, x: torch.Tensor, *rest: Any) -> torch.Tensor:
            if len(x) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(self, x, *rest)

        monkeypatch.setattr(DiT, "forward", limited)

    return set_most


def test_memory_that_runs_out_halves_the_takes_of_a_pass(
    checkpoint_of: dict[str, Checkpoint], narrow: Callable[[int], None], passes: Passes
) -> None:
    checkpoint = checkpoint_of["turbo"]
    request = completed("generate", checkpoint, takes=8)
    alone = render(checkpoint, request, 1)
    passes.clear()
    narrow(2)
    said: list[str] = []
    plan = FLOAT32.model_copy(update={"together": 8})
    takes = list(Pipeline(checkpoint, plan).run([request], quiet, said.append))
    assert passes == [8, 4, 2, 2, 2, 2]
    assert len(said) == 2
    assert "fewer takes share a forward pass" in said[0]
    assert max(apart(one, other) for one, other in zip(takes, alone, strict=True)) <= 1e-5
    assert {take.plan.together for take in takes} == {2}
    assert [take.fell_back for take in takes] == [True] + [False] * 7


def test_the_next_song_asks_for_no_more_than_there_was_memory_for(
    checkpoint_of: dict[str, Checkpoint], narrow: Callable[[int], None], passes: Passes
) -> None:
    checkpoint = checkpoint_of["turbo"]
    narrow(1)
    songs = [completed("generate", checkpoint, takes=2) for _ in range(2)]
    takes = list(Pipeline(checkpoint, FLOAT32).run(songs, quiet, together=[2, 2]))
    assert passes == [2, 1, 1, 1, 1]
    assert [take.fell_back for take in takes] == [True, False, False, False]


def test_memory_that_suffices_for_no_take_is_said(
    checkpoint_of: dict[str, Checkpoint], narrow: Callable[[int], None]
) -> None:
    narrow(0)
    with pytest.raises(MemoryLimitError, match=r"ran out of memory on cpu .*\(diffuse\)"):
        render(checkpoint_of["turbo"], completed("generate", checkpoint_of["turbo"]), 3)


# The cache


def test_takes_in_the_cache_are_left_out_of_the_pass(
    checkpoint_of: dict[str, Checkpoint], tmp_path: Path, passes: Passes
) -> None:
    checkpoint, cache = checkpoint_of["turbo"], Cache(tmp_path / "cache", 2**30, str)
    [second] = render(checkpoint, completed("generate", checkpoint, takes=1, seed=8), 3, cache=cache)
    takes = render(checkpoint, completed("generate", checkpoint), 3, cache=cache)
    assert passes == [1, 2]
    assert np.array_equal(takes[1].audio.samples, second.audio.samples)
    assert ["diffuse" in take.timings for take in takes] == [True, False, True]


def test_a_take_alone_is_never_one_of_several_from_the_cache(
    checkpoint_of: dict[str, Checkpoint], tmp_path: Path, passes: Passes
) -> None:
    checkpoint, cache = checkpoint_of["turbo"], Cache(tmp_path / "cache", 2**30, str)
    render(checkpoint, completed("generate", checkpoint), 3, cache=cache)
    again = render(checkpoint, completed("generate", checkpoint), 1, cache=cache)
    assert passes == [3, 1, 1, 1]
    alone = render(checkpoint, completed("generate", checkpoint), 1)
    for one, other in zip(again, alone, strict=True):
        assert np.array_equal(one.audio.samples, other.audio.samples)


# The Songwriter


@pytest.fixture(scope="module")
def songwriter(tmp_path_factory: pytest.TempPathFactory) -> Songwriter:
    folder = tmp_path_factory.mktemp("songwriter") / "acestep-5Hz-lm-0.6B"
    tiny.build_songwriter(folder)
    return Songwriter("0.6B", folder)


@pytest.mark.parametrize("cfg_scale", [1, 2])
def test_codes_of_takes_together_are_those_of_each(
    checkpoint_of: dict[str, Checkpoint], songwriter: Songwriter, passes: Passes, cfg_scale: int
) -> None:
    checkpoint = checkpoint_of["turbo"]
    asked = {"caption": "a song", "seed": 7, "takes": 5, "cfg_scale": cfg_scale, "lyrics": LYRICS, **SONG}
    request = complete.complete(Request(**asked), checkpoint, songwriter)
    assert "codes" in request.open
    together = render(checkpoint, request, 2, songwriter=songwriter)
    assert passes == [2, 2, 1]
    alone = render(checkpoint, request, 1, songwriter=songwriter)
    assert len({take.request.codes for take in together}) == 5
    assert max(apart(one, other) for one, other in zip(together, alone, strict=True)) <= 1e-5
    [third] = render(checkpoint, take_parts.take_request(request, 3), 2, songwriter=songwriter)
    assert third.request.codes == together[2].request.codes
