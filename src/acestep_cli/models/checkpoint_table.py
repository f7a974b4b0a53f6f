"""The table of published checkpoints and Songwriters: where each is published, and its defaults for sampling.

Names, folders and sizes: docs/specification.md, 2 Checkpoints and files and 10.1 Alignment heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from acestep_cli import solvers

PUBLISHER = "ACE-Step"
PREFIX = "acestep-v15-"
MAIN_REPO = f"{PUBLISHER}/Ace-Step1.5"
PUBLISHED_TASKS = ("generate", "cover", "repaint")
BASE_TASKS = (*PUBLISHED_TASKS, "lego", "extract", "complete")
#: Heads of the DiT's cross-attention that follow the lyrics, as (layer, head). A config may name others.
ALIGNMENT_HEADS_2B = ((2, 6), (3, 10), (3, 11), (4, 3), (5, 8), (5, 9), (6, 8))
ALIGNMENT_HEADS_XL = ((3, 18), (3, 27), (4, 22), (5, 5), (5, 6), (5, 7), (6, 2), (6, 12), (6, 13), (7, 20), (7, 21))
#: What a pull takes of a published folder, and never its `*.py`.
FETCHED = ("*.json", "*.safetensors", "silence_latent.pt", "merges.txt", "chat_template.jinja")


@dataclass(frozen=True)
class ModelPart:
    """A published folder, downloaded and checked as one; `needs` are its files besides the weights."""

    folder: str
    repo: str
    needs: tuple[str, ...]
    size_gb: float

    @property
    def inside(self) -> str:
        """Its path within its repository: a folder in the main one, empty in the others."""
        return f"{self.folder}/" if self.repo == MAIN_REPO else ""


@dataclass(frozen=True)
class CheckpointRow:
    """One diffusion checkpoint: where it is published, and its defaults for sampling."""

    folder: str
    repo: str | None
    turbo: bool
    shift: float
    tasks: tuple[str, ...] = PUBLISHED_TASKS
    vae_folder: str = "vae"
    text_folder: str = "Qwen3-Embedding-0.6B"
    shortest_seconds: float = 10.0
    size_gb: float = 4.8
    alignment_heads: tuple[tuple[int, int], ...] = ()
    #: The wavelet correction that it is published with, from `solvers.WAVELET_CORRECTIONS`.
    dcw: str = solvers.NO_CORRECTION

    @property
    def is_xl(self) -> bool:
        return self.folder.startswith(f"{PREFIX}xl-")

    @property
    def steps(self) -> int:
        return 8 if self.turbo else 50

    @property
    def most_steps(self) -> int:
        """Turbo checkpoints were distilled for short schedules; more steps only drift."""
        return 20 if self.turbo else 200

    @property
    def guidance(self) -> float:
        """Turbo checkpoints have guidance distilled into them."""
        return 1.0 if self.turbo else 7.0


def _published(name: str, *, turbo: bool, shift: float, **rest: Any) -> CheckpointRow:
    folder = PREFIX + name
    heads = ALIGNMENT_HEADS_XL if name.startswith("xl-") else ALIGNMENT_HEADS_2B
    repo = rest.pop("repo", f"{PUBLISHER}/{folder}")
    dcw = "double" if turbo else solvers.NO_CORRECTION
    return CheckpointRow(folder, repo, turbo, shift, **{"alignment_heads": heads, "dcw": dcw, **rest})


CHECKPOINTS: dict[str, CheckpointRow] = {
    "turbo": _published("turbo", repo=MAIN_REPO, turbo=True, shift=3.0),
    "turbo-shift1": _published("turbo-shift1", turbo=True, shift=1.0),
    "turbo-shift3": _published("turbo-shift3", turbo=True, shift=3.0),
    "turbo-continuous": _published("turbo-continuous", turbo=True, shift=3.0),
    "sft": _published("sft", turbo=False, shift=1.0),
    "base": _published("base", turbo=False, shift=1.0, tasks=BASE_TASKS),
    "xl-turbo": _published("xl-turbo", turbo=True, shift=3.0, size_gb=20),
    "xl-sft": _published("xl-sft", turbo=False, shift=1.0, size_gb=20),
    "xl-base": _published("xl-base", turbo=False, shift=1.0, tasks=BASE_TASKS, size_gb=20),
    "pocket": _published(
        "pocket",
        repo=None,
        turbo=True,
        shift=3.0,
        tasks=BASE_TASKS,
        text_folder="Qwen3-Embedding-pocket",
        shortest_seconds=3.0,
        size_gb=0.03,
        alignment_heads=(),
        dcw=solvers.NO_CORRECTION,
    ),
}
VAE = ModelPart("vae", MAIN_REPO, ("config.json",), 0.34)
TEXT = ModelPart("Qwen3-Embedding-0.6B", MAIN_REPO, ("config.json", "tokenizer.json"), 1.2)
SONGWRITERS: dict[str, ModelPart] = {
    name: ModelPart(f"acestep-5Hz-lm-{name}", repo, ("config.json", "tokenizer.json"), size_gb)
    for name, repo, size_gb in (
        ("0.6B", "ACE-Step/acestep-5Hz-lm-0.6B", 1.3),
        ("1.7B", MAIN_REPO, 3.7),
        ("4B", "ACE-Step/acestep-5Hz-lm-4B", 8.4),
    )
}
#: The codebook of the published Songwriters. Their tokenizers have more tokens for codes than it has codes. One made
#: for another codebook names it in its config, as `fsq_input_levels`.
PUBLISHED_LEVELS = (8, 8, 8, 5, 5, 5)
AUTO_ORDER = ("turbo", "turbo-shift3", "xl-turbo", "sft", "base")
#: For tasks that only the base models were trained for.
AUTO_ORDER_BASE = ("base", "xl-base")
BUILT_IN = "pocket"
MODEL_CHOICES = ("auto", *CHECKPOINTS)
#: The built-in checkpoint comes with a Songwriter, which goes by the same name.
SONGWRITER_CHOICES = ("auto", "none", BUILT_IN, *SONGWRITERS)


def model_parts(name: str) -> tuple[ModelPart, ...]:
    """Return the published folders of a checkpoint, its own first, or of a Songwriter; none for the built-in model."""
    if name in SONGWRITERS:
        return (SONGWRITERS[name],)
    row = CHECKPOINTS[name]
    if row.repo is None:
        return ()
    return ModelPart(row.folder, row.repo, ("config.json", "silence_latent.pt"), row.size_gb), VAE, TEXT


def auto_order(task: str) -> tuple[str, ...]:
    """Return the checkpoints that `auto` looks for, in this order, for a task of their rows."""
    return AUTO_ORDER if task in CHECKPOINTS[AUTO_ORDER[0]].tasks else AUTO_ORDER_BASE
