"""The adapters of a request and their strengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acestep_cli.models import adapters
from acestep_cli.models.adapters import Adapter
from acestep_cli.song.file_values import Lora


@dataclass(frozen=True)
class ActiveAdapter:
    """An adapter and the factor on its weight delta."""

    adapter: Adapter
    strength: float


def lora_strengths(loras: Sequence[Lora], mode: str | None) -> list[float]:
    """Return the strength of each adapter: its scale, or in `blend` mode its share of the sum of all scales."""
    scales = [lora.scale for lora in loras]
    whole = sum(map(abs, scales))
    return [scale / whole for scale in scales] if mode == "blend" and whole else scales


def active_adapters(loras: Sequence[Lora], mode: str | None) -> tuple[ActiveAdapter, ...]:
    """Read the adapters whose strength is not 0. Raises `AdapterError` as `read_adapter` does."""
    found = zip(loras, lora_strengths(loras, mode), strict=True)
    return tuple(
        ActiveAdapter(adapters.read_adapter(Path(lora.path)), strength) for lora, strength in found if strength
    )
