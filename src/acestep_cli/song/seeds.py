"""Seeds of takes: the only place where one is computed or drawn."""

from __future__ import annotations

SEEDS = 2**32


def take_seed(seed: int, number: int) -> int:
    """Return the seed of take `number`, counted from 1, of a song whose first take has `seed`."""
    return (seed + number - 1) % SEEDS


def text_seed(seed: int, songwriter_seed: int | None) -> int:
    """Return the seed of the text that the Songwriter writes for a song with `seed`, unless it has its own."""
    return seed if songwriter_seed is None else songwriter_seed


def draw_seed() -> int:
    """Return a random seed."""
    import secrets

    return secrets.randbelow(SEEDS)


def draw_variation(seed: int, takes: int) -> int:
    """Return a random seed for a variation of so many takes, none of which equals `seed`."""
    return (seed + 1 + draw_seed() % (SEEDS - takes)) % SEEDS


def is_among(seed: int, first: int, takes: int) -> bool:
    """Tell whether `seed` is that of one of so many takes, the first of which has `first`."""
    return (seed - first) % SEEDS < takes
