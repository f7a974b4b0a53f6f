"""The ladder of memory fallbacks: ways to need less memory, each taken only where those before it are not enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from acestep_cli.machine.hardware import OWN_MEMORY, Backend, Device, DType
from acestep_cli.machine.memory import Arrangement

TILE_FRAMES = 256
SMALLEST_TILE_FRAMES = 32


@dataclass(frozen=True)
class MemoryFallback:
    """One way to need less memory: a sentence about it, the stages that it helps, and its change of an arrangement.

    `apply` returns None where there is nothing left to change. A fallback without it is part of every plan.
    """

    sentence: str
    helps: frozenset[str] = frozenset()
    apply: Callable[[Arrangement, Backend], Arrangement | None] | None = None


def _fewer_together(now: Arrangement, backend: Backend) -> Arrangement | None:
    return replace(now, together=now.together // 2) if now.together > 1 else None


def _smaller_tiles(now: Arrangement, backend: Backend) -> Arrangement | None:
    smaller = now.tile_frames // 2
    return replace(now, tile_frames=smaller) if smaller >= SMALLEST_TILE_FRAMES else None


def _one_network(now: Arrangement, backend: Backend) -> Arrangement | None:
    return None if now.one_network else replace(now, one_network=True)


def _int8(now: Arrangement, backend: Backend) -> Arrangement | None:
    return None if now.int8 else replace(now, int8=True)


def _streamed(now: Arrangement, backend: Backend) -> Arrangement | None:
    return None if now.streamed or backend not in OWN_MEMORY else replace(now, streamed=True)


def _vae_on_cpu(now: Arrangement, backend: Backend) -> Arrangement | None:
    return None if now.vae_on_cpu or backend not in OWN_MEMORY else replace(now, vae_on_cpu=True)


WITH_DIT = frozenset({"condition", "diffuse", "align"})
SOUND = frozenset({"listen", "decode"})
LADDER = (
    MemoryFallback("fewer takes share a forward pass, down to one", frozenset({"write", "diffuse"}), _fewer_together),
    MemoryFallback(
        "the text encoder and the Songwriter are unloaded before the diffusion transformer is loaded, always"
    ),
    MemoryFallback("sound is decoded in smaller tiles", SOUND, _smaller_tiles),
    MemoryFallback(
        "the diffusion transformer is unloaded before the autoencoder is loaded",
        frozenset({"diffuse", "align", *SOUND, "finish"}),
        _one_network,
    ),
    MemoryFallback("the diffusion transformer's weights are int8, which changes the sound a little", WITH_DIT, _int8),
    MemoryFallback(
        "the diffusion transformer's layers come from main memory one by one, which is slower", WITH_DIT, _streamed
    ),
    MemoryFallback("the autoencoder runs on the processor", SOUND, _vae_on_cpu),
)


def fastest_arrangement(device: Device, dtype: DType, *, int8_arithmetic: bool = False) -> Arrangement:
    """Return the fastest arrangement, without any fallback. Int8 arithmetic needs int8 weights."""
    return Arrangement(
        on_cpu=device.backend == "cpu",
        dtype=dtype,
        tile_frames=TILE_FRAMES,
        int8=int8_arithmetic,
        int8_arithmetic=int8_arithmetic,
    )


def smallest_arrangement(arrangement: Arrangement, backend: Backend) -> Arrangement:
    """Return the arrangement after every fallback."""
    for fallback in LADDER:
        while fallback.apply is not None and (lower := fallback.apply(arrangement, backend)) is not None:
            arrangement = lower
    return arrangement


def is_reachable(top: Arrangement, other: Arrangement, backend: Backend) -> bool:
    """Tell whether fallbacks lead from `top` to `other`. A history that says otherwise is not of this machine."""
    tiles = [top.tile_frames]
    while tiles[-1] // 2 >= SMALLEST_TILE_FRAMES:
        tiles.append(tiles[-1] // 2)
    elsewhere = other.streamed or other.vae_on_cpu
    alike = other.int8_arithmetic == top.int8_arithmetic
    return alike and other.tile_frames in tiles and (backend in OWN_MEMORY or not elsewhere)


def next_fallback(now: Arrangement, backend: Backend, stage: str) -> tuple[Arrangement, MemoryFallback] | None:
    """Return `now` after the next fallback that helps `stage`, and that fallback; None where none is left."""
    for fallback in LADDER:
        if fallback.apply is None or stage not in fallback.helps:
            continue
        if (lower := fallback.apply(now, backend)) is not None:
            return lower, fallback
    return None
