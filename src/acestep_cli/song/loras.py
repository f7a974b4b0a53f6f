"""The adapters of a request and their strengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import CoreSchema, core_schema

from acestep_cli.song.file_values import Lora

if TYPE_CHECKING:
    from acestep_cli.models.adapters import Adapter


@dataclass(frozen=True)
class ActiveAdapter:
    """An adapter and the factor on its weight delta."""

    adapter: Adapter
    strength: float

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """Have models take it as it is: adapters are read by their own module, which loads when one is named."""
        return core_schema.is_instance_schema(cls)


def lora_strengths(loras: Sequence[Lora], mode: str | None) -> list[float]:
    """Return the strength of each adapter: its scale, or in `blend` mode its share of the sum of all scales."""
    scales = [lora.scale for lora in loras]
    whole = sum(map(abs, scales))
    return [scale / whole for scale in scales] if mode == "blend" and whole else scales


def active_adapters(
    loras: Sequence[Lora], mode: str | None, adapters: Mapping[str, Adapter]
) -> tuple[ActiveAdapter, ...]:
    """Return the adapters whose strength is not 0, in order; `adapters` has each by its path."""
    found = zip(loras, lora_strengths(loras, mode), strict=True)
    return tuple(ActiveAdapter(adapters[lora.path], strength) for lora, strength in found if strength)
