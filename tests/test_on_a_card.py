"""Every mode on a card made of paper: the same samples as on the processor, at every memory fallback.

The networks are tiny, the lines of the program those that a real card runs (`support/paper_card.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoints
from acestep_cli.models.checkpoints import Checkpoint, Songwriter
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import adapter_files, paper_card, sounds, tiny
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
        monkeypatch.chdir(folder)
        for number, name in enumerate(("a.wav", "b.wav")):
            sounds.recording(name, 3.3, seed=number)
        adapter_files.peft(Path("my-sound"), adapter_files.pairs(tiny.TWO_B))
        pairs = adapter_files.pairs(tiny.TWO_B, seed=1)
        folder_of_dora = adapter_files.peft(Path("dora"), pairs, use_dora=True)
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
