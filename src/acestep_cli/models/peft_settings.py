"""PEFT's `adapter_config.json`: the alphas and the rank of an adapter."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic_core import SchemaError, SchemaValidator, core_schema

from acestep_cli.errors import AdapterError

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: Of alpha_pattern: names in all and letters of each, and how many of them may be more than a name. Each such one is
#: compiled, which takes up to some milliseconds.
MOST_PATTERNS, PATTERN_LETTERS, MOST_EXPRESSIONS = 1024, 256, 64
PLAIN_PATTERN = re.compile(r"[\w.]+")
LOOK_AROUND = ("(?=", "(?!", "(?<=", "(?<!")
#: The rank of a LoKr at most, as PEFT's config has it.
MOST_RANK = 65_536


def has_peft_config(file: Path) -> bool:
    """Return True where PEFT's config lies beside a file of weights that PEFT wrote."""
    return file.name == PEFT_WEIGHTS and file.with_name(PEFT_CONFIG).is_file()


@dataclass(frozen=True)
class PeftSettings:
    """The alphas and the rank in an `adapter_config.json`."""

    alpha: float | None = None
    #: The rank of a LoKr by PEFT, which divides alpha even where no factor is low-rank.
    lokr_rank: int | None = None
    alphas: Mapping[str, Any] = field(default_factory=dict)
    rooted: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], path: Path) -> PeftSettings:
        is_lokr = str(config.get("peft_type", "")).upper() == "LOKR"
        rank = config.get("r") if is_lokr else None
        if is_lokr and (isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= MOST_RANK):
            raise AdapterError(
                f"{path}: {PEFT_CONFIG} has {rank!r:.40} where a rank should be.", "Train it again with a rank."
            )
        patterns = config.get("alpha_pattern")
        if isinstance(patterns, dict):
            _require_few_patterns(patterns, path)
        alpha = config.get("lora_alpha", config.get("alpha"))
        return cls(
            None if alpha is None else _number(alpha, path),
            rank,
            patterns if isinstance(patterns, dict) else {},
            bool(config.get("use_rslora")),
        )

    def alpha_of(self, target: str, path: Path) -> float | None:
        """Return the alpha of one matrix, from PEFT's patterns of names, else the common one."""
        own = next((alpha for end, alpha in self.alphas.items() if _matches(end, target, path)), None)
        return self.alpha if own is None else _number(own, path)


def _require_few_patterns(patterns: Mapping[str, Any], path: Path) -> None:
    """`AdapterError` for patterns that would take long to compile and to compare with every name."""
    expressions = [pattern for pattern in patterns if not PLAIN_PATTERN.fullmatch(pattern)]
    longest = max(map(len, patterns), default=0)
    repeated = next((pattern for pattern in expressions if "{" in pattern), None)
    if len(patterns) > MOST_PATTERNS or len(expressions) > MOST_EXPRESSIONS or longest > PATTERN_LETTERS:
        raise AdapterError(
            f"{path}: alpha_pattern of {PEFT_CONFIG} has {len(patterns):,} patterns, {len(expressions):,} of them more "
            f"than a name, the longest of {longest:,} letters.",
            f"Write at most {MOST_PATTERNS:,} names and {MOST_EXPRESSIONS} others, of {PATTERN_LETTERS} letters each.",
        )
    if repeated is not None:
        raise AdapterError(
            f"{path}: {repeated!r:.60} in alpha_pattern of {PEFT_CONFIG} has a counted repetition, which can take "
            "seconds to compile.",
            "Write + or * instead.",
        )


def _matches(pattern: str, target: str, path: Path) -> bool:
    """Match `pattern` against a whole name or its end after a dot, as PEFT does. Raises `AdapterError` for a bad one.

    `re` would take years on some patterns; pydantic's regular expressions take linear time.
    """
    try:
        return bool(_expression(pattern)(target))
    except SchemaError as error:
        looks = any(mark in pattern for mark in LOOK_AROUND)
        why = "looks around, which is not" if looks else "is not a pattern that can be"
        raise AdapterError(
            f"{path}: {pattern!r:.60} in alpha_pattern of {PEFT_CONFIG} {why} matched here.",
            "Write names or ends of names, without look-around or references back.",
        ) from error


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> Callable[[str], bool]:
    """Compile a test of names. Raises `SchemaError` for a pattern that cannot be compiled."""
    schema = core_schema.str_schema(pattern=rf"^(?:.*\.)?(?:{pattern})$", regex_engine="rust-regex")
    return SchemaValidator(schema).isinstance_python


def _number(alpha: Any, path: Path) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= sys.float_info.max:
        raise AdapterError(
            f"{path}: alpha is {alpha!r:.40} in {PEFT_CONFIG}, which is not a number.",
            "Write the number it was trained with.",
        )
    return float(alpha)
