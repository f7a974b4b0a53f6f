"""What the program can make: a row per mode, and the rules that complete a request for it.

A mode states only its differences: which source latents, which mask, which instruction. Instruction sentences
live here and nowhere else. Source: `dit.md` 3 and 4.5 of the specification.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from acestep_cli.checkpoints import Checkpoint
from acestep_cli.errors import UsageError
from acestep_cli.kinds import CODES_PER_SECOND
from acestep_cli.request import Request

if TYPE_CHECKING:
    from torch import Tensor

FILL_MASK = "Fill the audio semantic mask based on the given conditions:"
FOLLOW_CODES = "Generate audio semantic tokens based on the given conditions:"

SEEDS = 2**32
DEFAULT_SECONDS = 60.0
DEFAULT_LOUDNESS = "peak:-1"

# The length of a song nobody gave a length: a sung line fills two bars, a section without lines four, and
# four more bars go to its beginning and end. At 100 bpm, two verses and two choruses of four lines make 1:26.
BARS_PER_LINE = 2
BARS_PER_BARE_SECTION = 4
BARS_AROUND = 4
ESTIMATE_BPM = 100
ESTIMATE_RANGE = (30.0, 300.0)


class Studio(Protocol):
    """What a mode may ask for while it prepares; every latent is [1, frames, C]."""

    def silence(self) -> Tensor:
        """Silence of the song's length."""
        ...

    def follow(self, codes: tuple[int, ...]) -> Tensor:
        """Latents that audio codes stand for, with silence after their end."""
        ...


@dataclass(frozen=True)
class Prepared:
    """What one mode gives the diffusion.

    `source` makes the source latents [1, T, C] when the networks for it are in memory; before that, the
    instruction alone is read. `mask` is 1 where everything is to be made.
    """

    instruction: str
    source: Callable[[Studio], Tensor]
    mask: float = 1.0


@dataclass(frozen=True)
class Mode:
    """One row: what it is for, and how it prepares."""

    summary: str
    prepare: Callable[[Request], Prepared]


def generate(request: Request) -> Prepared:
    """Text to music: everything is to be made, out of silence or along given codes."""
    codes = request.codes
    if codes is None:
        return Prepared(FILL_MASK, lambda studio: studio.silence())
    return Prepared(FOLLOW_CODES, lambda studio: studio.follow(codes))


MODES: dict[str, Mode] = {
    "generate": Mode("Make a song from a caption and lyrics.", generate),
}


class Completed(Request):
    """A request with nothing left open: it alone makes the takes again."""

    mode: str
    model: str
    duration: float
    solver: str
    guidance: float
    seed: int
    takes: int
    loudness: str


def complete(request: Request, checkpoint: Checkpoint) -> Completed:
    """Decide everything that was left open, exactly once: the result is what a sidecar records.

    Raises `UsageError` with all the contradictions between the request and the checkpoint at once.
    """
    row = checkpoint.row
    if problems := list(_contradictions(request, checkpoint)):
        raise UsageError("\n".join(problems))
    guidance = request.guidance if request.guidance is not None else row.guidance
    seconds = _duration(request)
    if seconds < row.shortest_seconds:
        raise UsageError(
            f"duration: {seconds:g} s is too short for {checkpoint.name}, which makes at least "
            f"{row.shortest_seconds:g} s.",
            f"Ask for -d {row.shortest_seconds:g} or more.",
        )
    found: dict[str, Any] = {
        "mode": request.mode or "generate",
        "model": request.model if request.model not in (None, "auto") else checkpoint.name,
        "duration": seconds,
        "solver": request.solver or "euler",
        "guidance": guidance,
        "seed": request.seed if request.seed is not None else secrets.randbelow(SEEDS),
        "takes": request.takes or 1,
        "loudness": request.loudness or DEFAULT_LOUDNESS,
    }
    if request.timesteps is None:
        found["steps"] = request.steps or row.steps
        found["shift"] = request.shift if request.shift is not None else row.shift
    if guidance > 1:
        found["guidance_method"] = request.guidance_method or "apg"
        found["cfg_interval"] = request.cfg_interval or (0.0, 1.0)
    if not request.instrumental and request.lyrics is not None:
        found["language"] = request.language or "unknown"
    return Completed(**{**request.model_dump(), **found})


def take(request: Completed, number: int) -> Completed:
    """Take `number`, counted from 1, of a completed request, as a request of its own."""
    return request.model_copy(update={"seed": (request.seed + number - 1) % SEEDS, "takes": 1})


def _contradictions(request: Request, checkpoint: Checkpoint) -> list[str]:
    row, name = checkpoint.row, checkpoint.name
    found = []
    if request.caption is None and request.lyrics is None and request.codes is None:
        found.append("caption: there is nothing to make music from; give a caption (-c) or lyrics (--lyrics).")
    if row.turbo:
        why = f"{name} is a turbo checkpoint: guidance is distilled into it. Leave it out, or use a base or sft model."
        if request.guidance is not None and request.guidance > 1:
            found.append(f"guidance: {request.guidance:g} cannot be applied; {why}")
        found += [f"{key}: cannot be applied; {why}" for key in ("guidance_method", "cfg_interval")
                  if getattr(request, key) is not None]  # fmt: skip
    elif request.guidance is not None and request.guidance <= 1:
        found += [f"{key}: has nothing to act on, because guidance {request.guidance:g} is off."
                  for key in ("guidance_method", "cfg_interval") if getattr(request, key) is not None]  # fmt: skip
    if request.timesteps is not None:
        found += [f"{key}: the timesteps are given one by one, so {key} has nothing to decide."
                  for key in ("steps", "shift") if getattr(request, key) is not None]  # fmt: skip
    steps = request.steps if request.timesteps is None else len([t for t in request.timesteps if t > 0])
    if steps is not None and steps > row.most_steps:
        found.append(f"steps: {name} takes at most {row.most_steps} steps, not {steps}.")
    if request.codes is not None:
        found += _code_problems(request, checkpoint)
    return found


def _code_problems(request: Request, checkpoint: Checkpoint) -> list[str]:
    codes = request.codes or ()
    found = []
    highest = max(codes, default=0)
    if checkpoint.code_count is not None and highest >= checkpoint.code_count:
        place = codes.index(highest) + 1
        found.append(
            f"codes: code {place} is {highest}, but {checkpoint.name} knows codes 0 to {checkpoint.code_count - 1}."
        )
    if request.duration is not None and len(codes) != (wanted := int(CODES_PER_SECOND * request.duration)):
        found.append(
            f"codes: {len(codes)} codes are {len(codes) / CODES_PER_SECOND:g} s, but duration asks for "
            f"{request.duration:g} s, which takes {wanted}; leave duration out to follow the codes."
        )
    return found


def _duration(request: Request) -> float:
    if request.duration is not None:
        return request.duration
    if request.codes is not None:
        return len(request.codes) / CODES_PER_SECOND
    return estimated_duration(request)


def estimated_duration(request: Request) -> float:
    """Seconds that the lyrics take to sing at the request's tempo; 60 where nothing is sung."""
    lines = [line.strip() for line in (request.lyrics or "").splitlines() if line.strip()]
    is_tag = [line.startswith("[") and line.endswith("]") for line in lines]
    if all(is_tag):
        return DEFAULT_SECONDS
    bare = sum(tag and following for tag, following in zip(is_tag, [*is_tag[1:], True], strict=True))
    bars = is_tag.count(False) * BARS_PER_LINE + bare * BARS_PER_BARE_SECTION + BARS_AROUND
    beats = int((request.time_signature or "4/4").split("/")[0])
    seconds = bars * beats * 60 / (request.bpm or ESTIMATE_BPM)
    low, high = ESTIMATE_RANGE
    return float(round(min(max(seconds, low), high)))
