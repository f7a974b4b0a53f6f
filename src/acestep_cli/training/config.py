"""The configuration of a training run: every setting with its range, its default and its help text.

A resumed run has to keep all of it; the device, the folder and the time between saves are not in it.

Defaults: docs/specification.md, 12.3 Condition dropout and 12.5 Defaults.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from acestep_cli.errors import UsageError
from acestep_cli.song.key import Key
from acestep_cli.song.musical_values import LONGEST_SECONDS, Duration
from acestep_cli.song.values import Choice, Number, Whole

ADAPTER, LEARNING = "Adapter", "Learning"

#: The matrices of the decoder that each word stands for, by the last part of their names.
TARGETS: Mapping[str, tuple[str, ...]] = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
TARGETS = {**TARGETS, "all": TARGETS["attention"] + TARGETS["mlp"]}
TYPES = ("lora", "dora", "lokr")
TIMBRES = ("silence", "own")
#: The times of the training passes: drawn as the model's authors draw them, or from the eight steps of turbo models.
TIMES = ("continuous", "turbo")
OPTIMISERS = ("adamw", "adamw8bit")
EIGHT_BITS = "bitsandbytes"

#: No published checkpoint renders less.
SHORTEST_CROP = 10
DEFAULT_SEED = 42
#: Alpha, where it is not given, as a multiple of the rank.
ALPHA_PER_RANK = 2
#: The learning rate rises from a tenth over at most 100 steps, or a tenth of all; it falls to a hundredth.
WARM_UP_STEPS, WARM_UP_SHARE, WARM_UP_FROM, FALLS_TO = 100, 0.1, 0.1, 0.01
WEIGHT_DECAY = 0.01
#: Gradients are scaled down to this norm.
MAX_GRADIENT_NORM = 1.0
#: The share of examples that are trained with the null condition, which guidance needs.
CONDITION_DROPOUT = 0.15
#: The number of NaN losses in a row that ends a run.
MAX_NAN_STEPS = 3


class TrainingConfig(BaseModel):
    """All that decides the weights of an adapter, but the songs: the same configuration trains the same adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Annotated[
        str,
        Key(
            Choice(TYPES),
            "Kind of adapter: lora unless set; dora also trains the size of each row, lokr takes less room.",
            ADAPTER,
        ),
    ] = "lora"
    targets: Annotated[
        str,
        Key(
            Choice(tuple(TARGETS)),
            "The matrices that it adapts in each layer of the decoder: attention unless set.",
            ADAPTER,
        ),
    ] = "attention"
    rank: Annotated[
        int, Key(Whole(1, 1024), "Rank of the adapter's matrices, 64 unless set.", ADAPTER, examples=(16,))
    ] = 64
    alpha: Annotated[
        float, Key(Number(0.01, 4096), "Its strength is alpha / rank; twice the rank unless set.", ADAPTER)
    ] = 128.0
    dropout: Annotated[
        float, Key(Number(0, 0.9), "Share of its inputs left out at each step, 0.1 unless set.", ADAPTER)
    ] = 0.1
    steps: Annotated[int, Key(Whole(1, 1_000_000), "Steps in all, 2000 unless set.", LEARNING, examples=(500,))] = 2000
    learning_rate: Annotated[
        float, Key(Number(1e-7, 1), "Learning rate at its highest, 1e-4 unless set.", LEARNING, examples=(5e-5,))
    ] = 1e-4
    batch: Annotated[int, Key(Whole(1, 64), "Songs that share a pass through the model, 1 unless set.", LEARNING)] = 1
    accumulation: Annotated[int, Key(Whole(1, 256), "Passes to a step, 4 unless set.", LEARNING)] = 4
    crop: Annotated[
        float,
        Key(
            Duration(SHORTEST_CROP, LONGEST_SECONDS),
            "Longer songs are trained in parts of this length, 4:00 unless set; shorter parts need less memory.",
            LEARNING,
        ),
    ] = 240.0
    timbre: Annotated[
        str,
        Key(Choice(TIMBRES), "The reference of each song: silence unless set, or parts of the song itself.",
            LEARNING),
    ] = "silence"  # fmt: skip
    times: Annotated[
        str,
        Key(Choice(TIMES), "Noise levels: any (continuous) unless set, or the eight of the turbo models.", LEARNING),
    ] = "continuous"
    optimiser: Annotated[
        str,
        Key(
            Choice(OPTIMISERS),
            "adamw unless set; on a CUDA card with bitsandbytes the smaller adamw8bit.",
            LEARNING,
        ),
    ] = "adamw"
    seed: Annotated[
        int, Key(Whole(0, 2**32 - 1), "The same seed trains the same adapter; 42 unless set.", LEARNING, examples=(7,))
    ] = DEFAULT_SEED

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        return KEYS[info.field_name].kind.read(value)

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the adapted matrices within a layer, without their path."""
        return TARGETS[self.targets]

    @property
    def warmup_steps(self) -> int:
        """The number of steps over which the learning rate rises."""
        return min(WARM_UP_STEPS, int(self.steps * WARM_UP_SHARE))

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0: it rises linearly, then falls along half a cosine."""
        if step < self.warmup_steps:
            return self.learning_rate * (WARM_UP_FROM + (1 - WARM_UP_FROM) * step / self.warmup_steps)
        progress = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.learning_rate * (FALLS_TO + (1 - FALLS_TO) * (1 + math.cos(math.pi * progress)) / 2)


KEYS: Mapping[str, Key] = {
    name: next(part for part in field.metadata if isinstance(part, Key))
    for name, field in TrainingConfig.model_fields.items()
}


def config_from_flags(given: Mapping[str, Any], recorded: TrainingConfig | None = None) -> TrainingConfig:
    """Return the configuration of flags as they were typed; None is a flag not given.

    With `recorded`, the configuration of a run that is resumed, every flag given has to agree with it. Raises
    `UsageError` with every problem.
    """
    asked = {name: raw for name, raw in given.items() if raw is not None}
    if "rank" in asked and "alpha" not in asked and recorded is None:
        asked["alpha"] = _default_alpha(asked["rank"])
    try:
        wanted = TrainingConfig(**(asked if recorded is None else recorded.model_dump() | asked))
    except ValidationError as error:
        found = dict.fromkeys(f"--{flag_of(detail)}: {detail['ctx']['error']}" for detail in error.errors())
        raise UsageError("\n".join(found)) from error
    if recorded is None or wanted == recorded:
        return wanted
    changed = [f"--{name.replace('_', '-')} is {format_value(wanted, name)} and was {format_value(recorded, name)}"
              for name in KEYS if getattr(wanted, name) != getattr(recorded, name)]  # fmt: skip
    raise UsageError(
        f"--resume: goes on with the settings that the run began with: {'; '.join(changed)}.",
        "Leave them out to go on, or train into another --output.",
    )


def require_libraries(config: TrainingConfig) -> None:
    """Raise `UsageError` where a configuration needs a library that is not installed."""
    if config.optimiser == "adamw8bit" and not has_eight_bits():
        raise UsageError(
            f"--optimiser {config.optimiser} needs {EIGHT_BITS}, which is not installed.",
            f"pip install {EIGHT_BITS}; or leave --optimiser out.",
        )


def has_eight_bits() -> bool:
    """Tell whether the optimiser that keeps its state in eight bits is installed."""
    return importlib.util.find_spec(EIGHT_BITS) is not None


def _default_alpha(rank: Any) -> Any:
    try:
        return ALPHA_PER_RANK * KEYS["rank"].kind.read(rank)
    except ValueError:
        return None  # refused with the rank


def flag_of(detail: Mapping[str, Any]) -> str:
    return str(detail["loc"][0]).replace("_", "-")


def format_value(config: TrainingConfig, name: str) -> str:
    value = getattr(config, name)
    return f"{value:g}" if isinstance(value, float) else str(value)
