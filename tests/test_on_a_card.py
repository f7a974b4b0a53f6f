"""Every mode on a card made of paper: the same samples as on the processor, at every memory fallback.

The networks are tiny, the lines of the program those that a real card runs (`support/paper_card.py`).
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.engine import diffusion, stages, vae
from acestep_cli.errors import MemoryLimitError
from acestep_cli.machine import fallbacks, hardware
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoints
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import adapter_files, inputs, paper_card, tiny
from support.paper_card import PaperCard
from support.rendering import FLOAT32, quiet

LYRICS = "[Verse]\nla la la\nlo lo\n\n[Chorus]\nli li\n"
#: Layers and heads of the tiny checkpoint; the last layer is not among them, so its weights are never waited for.
HEADS = ((1, 0), (2, 1))

#: What each case asks for, and of which checkpoint.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("turbo", {"duration": 10, "steps": 2, "lyrics": LYRICS}),
    "codes": ("turbo", {"duration": 10, "steps": 2, "codes": tuple(range(0, 5000, 100))}),
    "references": ("turbo", {"duration": 10, "steps": 2, "reference": ["a.wav", "b.wav"], "takes": 2}),
    "lora": ("turbo", {"duration": 10, "steps": 2, "loras": ["my-sound", "dora@0.5"]}),
    "lrc and rank": ("turbo", {"duration": 10, "steps": 2, "lyrics": LYRICS, "lrc": True}),
    "guided": ("base", {"duration": 10, "steps": 2, "guidance": 5, "solver": "heun"}),
    "cover": ("base", {"mode": "cover", "source": "a.wav", "strength": 0.5, "steps": 4, "noise_strength": 0.25}),
    "close cover": ("base", {"mode": "cover", "source": "a.wav", "close": True, "steps": 2}),
    "repaint": ("base", {"mode": "repaint", "source": "a.wav", "start": 1, "end": 2, "steps": 4}),
    "extend": ("turbo", {"mode": "repaint", "source": "a.wav", "start": -1, "end": 0, "steps": 2}),
    "lego": ("base", {"mode": "lego", "source": "a.wav", "track": ["bass"], "mix": True, "steps": 2}),
    "extract": ("base", {"mode": "extract", "source": "a.wav", "track": ["vocals", "drums"], "steps": 2}),
    "complete": ("base", {"mode": "complete", "source": "a.wav", "track": ["drums"], "steps": 2}),
    "edit": ("base", {"mode": "edit", "source": "a.wav", "from_caption": "a march", "steps": 2, "edit_average": 2}),
    "edit of words": ("turbo", {"mode": "edit", "source": "a.wav", "lyrics": LYRICS, "from_lyrics": "la", "steps": 2}),
}  # fmt: skip
FALLBACKS: dict[str, dict[str, Any]] = {
    "none": {},
    "tiles": {"tile_frames": 32},
    "one network": {"one_network": True},
    "int8": {"one_network": True, "int8": True},
    "streamed": {"one_network": True, "streamed": True},
    "int8 streamed": {"one_network": True, "int8": True, "streamed": True},
    "all": {"tile_frames": 32, "one_network": True, "int8": True, "streamed": True, "vae_on_cpu": True},
}
BACKENDS = {"cuda": "cuda:0", "rocm": "cuda:0", "xpu": "xpu:0", "mps": "mps:0"}


@pytest.fixture(scope="module")
def checkpoint_of(two_b: tiny.Oracle, base: tiny.Oracle) -> dict[str, Checkpoint]:
    return {
        "turbo": checkpoints.find_checkpoint("turbo", two_b.root),
        "base": checkpoints.find_checkpoint("base", base.root),
    }


@pytest.fixture(scope="module")
def songwriter(tmp_path_factory: pytest.TempPathFactory) -> Songwriter:
    folder = tmp_path_factory.mktemp("songwriter") / "acestep-5Hz-lm-0.6B"
    tiny.build_songwriter(folder)
    return Songwriter("0.6B", folder)


@pytest.fixture(autouse=True)
def _inputs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recordings and two adapters in the current folder, and heads that follow the lyrics."""
    folder = tmp_path_factory.getbasetemp() / "inputs"
    if not folder.exists():
        folder.mkdir()
        inputs.write_inputs(folder)
        pairs = adapter_files.pairs(tiny.TWO_B, seed=1)
        folder_of_dora = adapter_files.peft(folder / "dora", pairs, use_dora=True)
        add_magnitudes(folder_of_dora / "adapter_model.safetensors")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Checkpoint, "alignment_heads", HEADS)


def add_magnitudes(file: Path) -> None:
    """Make a DoRA of a LoRA in peft's naming."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(file)
    for name in [name for name in tensors if ".lora_B." in name]:
        rows = tensors[name].shape[0]
        magnitude = torch.linspace(0.9, 1.1, rows)
        tensors[name.replace("lora_B.weight", "lora_magnitude_vector")] = magnitude
    adapter_files.save(file, tensors)


def request_of(case: str, checkpoint: Checkpoint) -> complete.Completed:
    asked = {"caption": "a song", "seed": 7, **CASES[case][1]}
    found = complete.complete(Request(**asked), checkpoint)
    return found.model_copy(update={"scored": ("lyric_alignment",)}) if "rank" in case else found


def on_card(backend: str = "cuda", dtype: str = "float32", **change: Any) -> Plan:
    update = {"device": BACKENDS[backend], "backend": backend, "dtype": dtype, **change}
    return FLOAT32.model_copy(update=update)


def render(checkpoint: Checkpoint, request: complete.Completed, plan: Plan) -> list[Take]:
    return list(Pipeline(checkpoint, plan).run([request], quiet))


def assert_same(takes: list[Take], expected: list[Take], within: float = 1e-5) -> None:
    assert len(takes) == len(expected)
    for one, other in zip(takes, expected, strict=True):
        found, wanted = one.audio.samples, other.audio.samples
        assert found.shape == wanted.shape
        assert np.linalg.norm(found - wanted) <= within * np.linalg.norm(wanted)
        assert one.scores == pytest.approx(other.scores, abs=1e-3)
        assert [line.text for line in one.lines] == [line.text for line in other.lines]


@pytest.fixture(scope="module")
def on_processor(checkpoint_of: dict[str, Checkpoint]) -> Callable[..., list[Take]]:
    """Takes of a case on the processor, each made once."""
    made: dict[tuple[str, bool], list[Take]] = {}

    def find(case: str, *, int8: bool) -> list[Take]:
        if (case, int8) not in made:
            checkpoint = checkpoint_of[CASES[case][0]]
            plan = FLOAT32.model_copy(update={"int8": int8})
            made[case, int8] = render(checkpoint, request_of(case, checkpoint), plan)
        return made[case, int8]

    return find


def pairs() -> Iterator[Any]:
    """Yield every mode with every fallback; the quick ones are every mode without any and with all, and one with each.

    "lrc and rank" goes through most stages, and is the one that stops in the middle of the layers.
    """
    for case in CASES:
        for fallback in FALLBACKS:
            quick = fallback in ("none", "all") or case == "lrc and rank"
            yield pytest.param(case, fallback, marks=() if quick else pytest.mark.slow, id=f"{case}, {fallback}")


@pytest.mark.parametrize(("case", "fallback"), list(pairs()))
def test_every_mode_at_every_fallback(
    checkpoint_of: dict[str, Checkpoint], on_processor: Callable[..., list[Take]], case: str, fallback: str
) -> None:
    change = FALLBACKS[fallback]
    checkpoint = checkpoint_of[CASES[case][0]]
    expected = on_processor(case, int8=change.get("int8", False))
    card = PaperCard()
    with paper_card.installed(card):
        takes = render(checkpoint, request_of(case, checkpoint), on_card(**change))
        assert_same(takes, expected)
    assert card.live_bytes == 0
    assert card.pinned_bytes == 0


def cases_elsewhere() -> Iterator[Any]:
    """Yield every other backend with every mode, plain and with all fallbacks; the quick cases go through most
    stages, and are guided.
    """
    for backend in BACKENDS:
        for case in CASES if backend != "cuda" else ():
            for fallback in ("none", "all"):
                quick = case in ("lrc and rank", "guided") and fallback == "all"
                marks = () if quick else pytest.mark.slow
                yield pytest.param(backend, case, fallback, marks=marks, id=f"{backend}, {case}, {fallback}")


@pytest.mark.parametrize(("backend", "case", "fallback"), list(cases_elsewhere()))
def test_every_mode_on_every_kind_of_card(
    checkpoint_of: dict[str, Checkpoint], on_processor: Callable[..., list[Take]], backend: str, case: str,
    fallback: str,
) -> None:  # fmt: skip
    change = FALLBACKS[fallback]
    checkpoint = checkpoint_of[CASES[case][0]]
    expected = on_processor(case, int8=change.get("int8", False))
    card = PaperCard(BACKENDS[backend], backend=backend)
    with paper_card.installed(card):
        takes = render(checkpoint, request_of(case, checkpoint), on_card(backend, **change))
        assert_same(takes, expected)
        del takes
    assert card.live_bytes == 0


#: Relative errors of the samples against float32 that rounding may cost, plain and with all fallbacks, which round
#: weights to int8 too. A cover, which begins near its source, errs most: 0.083 in bfloat16.
ROUNDING = {"float16": (0.01, 0.05), "bfloat16": (0.12, 0.12)}


def cases_of_dtypes() -> Iterator[Any]:
    """Yield every mode in both short formats; the quick case goes through most stages."""
    for dtype in ROUNDING:
        for case in CASES:
            marks = () if case == "lrc and rank" else pytest.mark.slow
            yield pytest.param(dtype, case, marks=marks, id=f"{dtype}, {case}")


@pytest.mark.parametrize(("dtype", "case"), list(cases_of_dtypes()))
def test_short_numbers_round_on_a_card_as_on_the_processor(
    checkpoint_of: dict[str, Checkpoint],
    on_processor: Callable[..., list[Take]],
    dtype: str,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The processor's autoencoder is arranged as a card's for this: channels last, it adds in another order."""
    checkpoint = checkpoint_of[CASES[case][0]]
    request, exact = request_of(case, checkpoint), on_processor(case, int8=False)
    with monkeypatch.context() as arranged:
        arranged.setattr(vae, "has_kernels", lambda device, dtype: False)
        arranged.setattr(vae, "CHUNK_SAMPLES", sys.maxsize)
        same = render(checkpoint, request, FLOAT32.model_copy(update={"dtype": dtype}))
    with paper_card.installed(PaperCard()):
        plain = render(checkpoint, request, on_card(dtype=dtype))
        frugal = render(checkpoint, request, on_card(dtype=dtype, **FALLBACKS["all"]))
    assert_same(plain, same)
    for takes, within in zip((plain, frugal), ROUNDING[dtype], strict=True):
        for one, other in zip(takes, exact, strict=True):
            found, wanted = one.audio.samples, other.audio.samples
            error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
            assert 0 < error < within


@pytest.mark.parametrize("takes", [1, 3])
@pytest.mark.parametrize("fallback", ["none", "all"])
def test_a_songwriter_on_a_card_writes_what_it_writes_on_the_processor(
    checkpoint_of: dict[str, Checkpoint], songwriter: Songwriter, takes: int, fallback: str
) -> None:
    checkpoint, change = checkpoint_of["turbo"], FALLBACKS[fallback]
    asked = Request(caption="a song", lyrics=LYRICS, duration=10, steps=2, seed=7, takes=takes)
    request = complete.complete(asked, checkpoint, songwriter)

    def written(plan: Plan) -> list[Take]:
        found = list(Pipeline(checkpoint, plan, songwriter).run([request], quiet))
        assert all(take.request.codes for take in found)
        return found

    expected = written(FLOAT32.model_copy(update={"int8": change.get("int8", False), "together": takes}))
    card = PaperCard()
    with paper_card.installed(card):
        made = written(on_card(together=takes, **change))
        assert [take.request.codes for take in made] == [take.request.codes for take in expected]
        assert_same(made, expected)
        assert card.peak_bytes
        del made
    assert card.live_bytes == 0


def cases_together() -> Iterator[Any]:
    """Yield cases of three takes; the quick ones have references, words in time, and guidance."""
    for case in CASES:
        quick = case in ("references", "lrc and rank", "guided")
        yield pytest.param(case, marks=() if quick else pytest.mark.slow, id=case)


@pytest.mark.parametrize("case", list(cases_together()))
def test_takes_together_on_a_card_are_those_alone(checkpoint_of: dict[str, Checkpoint], case: str) -> None:
    checkpoint = checkpoint_of[CASES[case][0]]
    request = request_of(case, checkpoint).model_copy(update={"takes": 3})
    expected = render(checkpoint, request, FLOAT32)
    card = PaperCard()
    with paper_card.installed(card):
        takes = render(checkpoint, request, on_card(streamed=True, one_network=True, together=3))
        assert_same(takes, expected)
        del takes
    assert card.live_bytes == 0


# Memory that runs out


def exhausted(stage: str, fails: int) -> Any:
    """Let memory run out half-way through the first `fails` tries of a stage that allocate on the card."""
    run, left = getattr(*STAGES[stage]), fails

    def tried(*args: Any, **kwargs: Any) -> Any:
        card = paper_card.current_machine().card
        begun = card.allocations

        def fail(number: int, size: int) -> bool:
            nonlocal left
            fails_now = left > 0 and number > begun + FAILS_AFTER
            left -= fails_now
            return fails_now

        card.fail_at = fail
        try:
            return run(*args, **kwargs)
        finally:
            card.fail_at = lambda number, size: False

    return tried


STAGES = {
    "text": (stages, "encode_prompts"),
    "listen": (stages, "encode_references"),
    "condition": (stages, "encode_conditions"),
    "diffuse": (diffusion, "denoise_takes"),
    "align": (stages, "align_take"),
    "decode": (stages, "decode"),
}
FAILS_AFTER = 20


def fallbacks_of(stage: str) -> int:
    """The number of fallbacks that a plan on a card has for a stage."""
    found, plan = 0, on_card(tile_frames=256)
    arrangement = plan.arrangement
    while (following := fallbacks.next_fallback(arrangement, "cuda", stage)) is not None:
        arrangement, found = following[0], found + 1
    return found


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "text"])
@pytest.mark.parametrize("tries", ["once", pytest.param("to the last fallback", marks=pytest.mark.slow)])
def test_memory_runs_out_and_the_samples_stay(
    checkpoint_of: dict[str, Checkpoint], on_processor: Callable[..., list[Take]], monkeypatch: pytest.MonkeyPatch,
    stage: str, tries: str,
) -> None:  # fmt: skip
    case = "references" if stage == "listen" else "lrc and rank"
    checkpoint, fails = checkpoint_of["turbo"], 1 if tries == "once" else fallbacks_of(stage)
    assert fails
    card, warnings = PaperCard(), list[str]()
    with paper_card.installed(card):
        monkeypatch.setattr(*STAGES[stage], exhausted(stage, fails))
        made = Pipeline(checkpoint, on_card(tile_frames=256))
        takes = list(made.run([request_of(case, checkpoint)], quiet, warnings.append))
        assert len(warnings) == fails
        int8 = takes[-1].plan.int8 and stage != "align"  # which comes when the latents are made
        assert_same(takes, on_processor(case, int8=int8))
        del takes
    assert card.live_bytes == 0


def test_memory_that_runs_out_over_several_takes_is_enough_for_fewer(
    checkpoint_of: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, card, warnings = checkpoint_of["turbo"], PaperCard(), list[str]()
    request = request_of("lrc and rank", checkpoint).model_copy(update={"takes": 4})
    expected = render(checkpoint, request, FLOAT32)
    with paper_card.installed(card):
        monkeypatch.setattr(diffusion, "denoise_takes", exhausted("diffuse", 2))
        made = Pipeline(checkpoint, on_card(together=4))
        takes = list(made.run([request], quiet, warnings.append))
        assert len(warnings) == 2
        assert all("fewer takes share a forward pass" in warning for warning in warnings)
        plan = takes[-1].plan
        assert (plan.together, plan.int8, plan.streamed, plan.one_network) == (1, False, False, False)
        assert_same(takes, expected)
        del takes
    assert card.live_bytes == 0


@pytest.mark.parametrize("stage", ["text", "condition", "diffuse", "align"])  # sound goes to the processor in the end
def test_memory_that_never_suffices_is_said(
    checkpoint_of: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    case = "lrc and rank"
    checkpoint, card = checkpoint_of["turbo"], PaperCard()
    with paper_card.installed(card):
        monkeypatch.setattr(*STAGES[stage], exhausted(stage, 99))
        with pytest.raises(MemoryLimitError, match=rf"ran out of memory on cuda:0 .*\({stage}\)") as raised:
            render(checkpoint, request_of(case, checkpoint), on_card(tile_frames=256))
        assert raised.value.exit_code == 4
        del raised
        gc.collect()
        assert card.live_bytes == 0


# A card that is lost, and one that is not there


@pytest.fixture
def two_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> None:
    monkeypatch.setenv("ACESTEP_CACHE_DIR", str(tmp_path / "cache"))
    cards = [hardware.cuda_device(number, "Paper card", (7, 5), 24 * paper_card.GIB, None) for number in range(2)]
    found = hardware.Hardware((*cards, hardware.cpu_device()), "cuda")
    monkeypatch.setattr(hardware, "detect", lambda: found)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))


ASKED = [
    "generate",
    "-c",
    "a song",
    "-d",
    "10",
    "--steps",
    "2",
    "--seed",
    "1",
    "--dtype",
    "fp32",
    "--songwriter",
    "none",
]


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize(("finished", "exit_code"), [(0, 1), (1, 7), (2, 7)])
@pytest.mark.parametrize("together", [1, 2, 3])
def test_a_lost_card_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: int, exit_code: int, together: int
) -> None:
    card, decode = PaperCard(), stages.decode
    calls = 0

    def decoded(*args: Any) -> Any:
        nonlocal calls
        card.lost, calls = calls == finished, calls + 1
        return decode(*args)

    monkeypatch.setattr(stages, "decode", decoded)
    with paper_card.installed(card, PaperCard("cuda:1")):
        run = CliRunner().invoke(app, [*ASKED, "-n", "3", f"--together={together}", "-o", f"{tmp_path}/", "--json"])
    assert run.exit_code == exit_code, run.stderr
    assert "The graphics card stopped working: RuntimeError: CUDA error: device lost." in run.stderr
    assert "Traceback" not in run.stderr
    report = json.loads(run.stdout)
    assert [output["status"] for output in report["outputs"]] == ["written"] * finished + ["failed"] * (3 - finished)
    assert len(list(tmp_path.glob("*.flac"))) == finished
    assert calls == finished + 1  # no other take was tried on it


@pytest.mark.usefixtures("two_cards")
def test_a_lost_card_shows_where_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = PaperCard(lost=True)
    with paper_card.installed(card, PaperCard("cuda:1")):
        run = CliRunner().invoke(app, [*ASKED, "--debug", "-o", str(tmp_path / "a.flac")])
    assert run.exit_code == 1
    assert "Traceback" in run.stderr


@pytest.mark.usefixtures("two_cards")
def test_a_card_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, [*ASKED, "--device", "cuda:7", "-o", str(tmp_path / "a.flac")])
    assert run.exit_code == 2
    said = " ".join(run.stderr.split())
    assert "--device cuda:7: this machine has no such device; it has cuda:0, cuda:1, cpu." in said
    assert "use --device cuda:0" in said
