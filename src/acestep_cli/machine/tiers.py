"""The longest songs that fit a machine, and the songs that cards of each size are promised to make."""

from __future__ import annotations

from dataclasses import dataclass

from acestep_cli.errors import MemoryLimitError
from acestep_cli.machine import plan
from acestep_cli.machine.hardware import BYTES, GIB, OWN_MEMORY, Device, Hardware
from acestep_cli.machine.plan import ROUND_LENGTHS, MachineRequest, Plan
from acestep_cli.models.sizes import Sizes
from acestep_cli.song import prompts
from acestep_cli.song.complete import Completed

LONGEST_LYRICS = "la " * prompts.LYRIC_TOKENS


def reported_bytes(memory_gb: int) -> int:
    """Return the memory that a card sold with `memory_gb` reports at the least: somewhat less."""
    return int((memory_gb - 0.5) * GIB)


@dataclass(frozen=True)
class Tier:
    """The song that the guide promises for cards of at least `memory_gb`: a minimum for plans, never a limit."""

    memory_gb: int
    minutes: int
    takes: int
    songwriter: str | None

    @property
    def least_bytes(self) -> int:
        """Least reported memory."""
        return reported_bytes(self.memory_gb)


TIERS = (
    Tier(4, 6, 1, None),
    Tier(6, 10, 2, "0.6B"),
    Tier(8, 10, 4, "0.6B"),
    Tier(12, 10, 4, "1.7B"),
    Tier(16, 10, 4, "1.7B"),
    Tier(20, 8, 8, "4B"),
    Tier(24, 10, 8, "4B"),
)


def tier_of(device: Device) -> Tier | None:
    """Return the highest tier of a card.

    None for a card below the first tier, for weights of four bytes, and where memory is shared with the processor.
    """
    if device.backend not in OWN_MEMORY or BYTES[device.dtypes[0]] > 2:
        return None
    reached = [tier for tier in TIERS if device.total_bytes >= tier.least_bytes]
    return reached[-1] if reached else None


def bare_song(model: str, seconds: float, lyrics: str | None = None, takes: int = 1) -> Completed:
    """Return a song of nothing but a length and lyrics, whose memory is planned and which is never rendered."""
    return Completed(
        mode="generate",
        model=model,
        duration=float(seconds),
        lyrics=lyrics,
        solver="euler",
        guidance=1.0,
        seed=0,
        takes=takes,
        loudness="none",
        format="wav",
    )


def longest_song(machine: Hardware, model: str, sizes: Sizes, asked: MachineRequest) -> tuple[int, Plan] | None:
    """Return the longest round length that this machine renders with lyrics of full length, and its plan.

    None where not even the shortest fits.
    """
    for seconds in ROUND_LENGTHS:
        request = bare_song(model, seconds, LONGEST_LYRICS)
        try:
            return seconds, plan.plan_render(machine, request, asked, sizes)
        except MemoryLimitError:
            continue
    return None
