"""What the program can make: a row per mode, and the rules that complete a request for it.

A mode states only its differences: which source latents, which mask, which instruction. Instruction sentences
live here and nowhere else. Source: `dit.md` 3 and 4.5 of the specification.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from acestep_cli import audio
from acestep_cli.checkpoints import Checkpoint, Row
from acestep_cli.errors import UsageError
from acestep_cli.kinds import CODES_PER_SECOND, PULSES
from acestep_cli.request import KEYS, Request

if TYPE_CHECKING:
    from torch import Tensor

FILL_MASK = "Fill the audio semantic mask based on the given conditions:"
FOLLOW_CODES = "Generate audio semantic tokens based on the given conditions:"

SEEDS = 2**32
DEFAULT_SECONDS = 60.0
DEFAULT_LOUDNESS = "peak:-1"
#: The origin of what no checkpoint, machine or user decides.
DEFAULT = "default"

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
    #: Command lines for its `--help`.
    examples: tuple[str, ...] = ()


def generate(request: Request) -> Prepared:
    """Text to music: everything is to be made, out of silence or along given codes."""
    codes = request.codes
    if codes is None:
        return Prepared(FILL_MASK, lambda studio: studio.silence())
    return Prepared(FOLLOW_CODES, lambda studio: studio.follow(codes))


MODES: dict[str, Mode] = {
    "generate": Mode(
        "Make a song from a caption and lyrics.",
        generate,
        (
            "acestep generate songs/night-drive.yaml -o night-drive.flac",
            'acestep generate -c "warm lo-fi hip hop, rhodes" --instrumental --bpm 84 -d 30 -n 4 -o takes/',
            "acestep generate songs/*.yaml -o out/ --format mp3 --json",
            "cat song.yaml | acestep generate - -o - > song.wav",
        ),
    ),
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
    format: str


@dataclass(frozen=True)
class Decided:
    """A completed request, and what decided each value that was left open."""

    request: Completed
    origins: Mapping[str, str]


def complete(request: Request, checkpoint: Checkpoint) -> Completed:
    """Decide everything that was left open, exactly once: the result is what a sidecar records."""
    return decide(request, checkpoint).request


def decide(request: Request, checkpoint: Checkpoint) -> Decided:
    """`complete`, with the origin of each value it decided.

    Raises `UsageError` with all the contradictions between the request and the checkpoint at once.
    """
    import secrets

    row, name = checkpoint.row, checkpoint.name
    if problems := contradictions(request, name, row, checkpoint.code_count):
        raise UsageError("\n".join(problems))
    asked = request.model_dump()
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def settle(key: str, value: Any, origin: str) -> None:
        """`value` for `key`, unless it was asked for."""
        if asked[key] is None and value is not None:
            found[key], origins[key] = value, origin

    def settled(key: str) -> Any:
        return found.get(key, asked[key])

    settle("mode", "generate", DEFAULT)
    if request.model in (None, "auto"):
        found["model"], origins["model"] = name, "auto: the first installed that fits"
    settle("duration", *_duration(request))
    settle("solver", "euler", DEFAULT)
    settle("guidance", row.guidance, f"checkpoint {name}")
    settle("seed", secrets.randbelow(SEEDS), "drawn")
    settle("takes", 1, DEFAULT)
    settle("loudness", DEFAULT_LOUDNESS, DEFAULT)
    if request.timesteps is None:
        settle("steps", row.steps, f"checkpoint {name}")
        settle("shift", row.shift, f"checkpoint {name}")
    if settled("guidance") > 1:
        settle("guidance_method", "apg", DEFAULT)
        settle("cfg_interval", (0.0, 1.0), DEFAULT)
    if not request.instrumental and request.lyrics is not None:
        settle("language", "unknown", DEFAULT)
    settle("format", audio.DEFAULT_FORMAT, DEFAULT)
    encoding = audio.encoding(settled("format"), request.bit_depth, request.bitrate, request.sample_rate)
    settle("bit_depth", encoding.bit_depth, DEFAULT)
    settle("bitrate", encoding.bitrate, DEFAULT)
    return Decided(Completed(**{**asked, **found}), origins)


def take(request: Completed, number: int) -> Completed:
    """Take `number`, counted from 1, of a completed request, as a request of its own."""
    return takes(request, number, 1)


def takes(request: Completed, first: int, count: int) -> Completed:
    """Takes `first` and on of a completed request, as a request of their own."""
    return request.model_copy(update={"seed": (request.seed + first - 1) % SEEDS, "takes": count})


def recipe(request: Completed, weights: str) -> str:
    """A fingerprint of what shapes the samples and their encoding, but for the seed; `weights` is a hash of theirs.

    Two takes with one recipe and one seed are the same audio.
    """
    import hashlib

    shaping = {name for name, key in KEYS.items() if key.shapes}
    content = {"weights": weights, **request.model_dump(include=shaping, exclude_none=True)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def contradictions(request: Request, name: str, row: Row, code_count: int | None) -> list[str]:
    """What cannot be, about the request alone or with the checkpoint `name`; each begins with its key."""
    found = []
    if request.caption is None and request.lyrics is None and request.codes is None:
        found.append("caption: there is nothing to make music from; give a caption (-c) or lyrics (--lyrics).")
    found += _finish_problems(request)
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
        found += _code_problems(request, name, code_count)
    if seconds(request) < row.shortest_seconds:
        least = f"{row.shortest_seconds:g}"
        found.append(
            f"duration: {seconds(request):g} s is too short for {name}, which makes at least {least} s; "
            f"ask for {least} or more."
        )
    return found


def _finish_problems(request: Request) -> list[str]:
    """What cannot be done to the samples on their way into a file."""
    found = []
    try:
        format = request.format or audio.DEFAULT_FORMAT
        audio.encoding(format, request.bit_depth, request.bitrate, request.sample_rate)
    except UsageError as error:
        found.append(error.message)
    fades = [(key, getattr(request, key)) for key in ("fade_in", "fade_out") if getattr(request, key)]
    if sum(length for _, length in fades) > seconds(request):
        lengths = " and ".join(f"{length:g} s" for _, length in fades)
        found.append(f"{fades[-1][0]}: {lengths} of fading are longer than the song, {seconds(request):g} s.")
    return found


def _code_problems(request: Request, name: str, code_count: int | None) -> list[str]:
    codes = request.codes or ()
    found = []
    highest = max(codes, default=0)
    if code_count is not None and highest >= code_count:
        place = codes.index(highest) + 1
        found.append(f"codes: code {place} is {highest}, but {name} knows codes 0 to {code_count - 1}.")
    if request.duration is not None and len(codes) != (wanted := int(CODES_PER_SECOND * request.duration)):
        found.append(
            f"codes: {len(codes)} codes are {len(codes) / CODES_PER_SECOND:g} s, but duration asks for "
            f"{request.duration:g} s, which takes {wanted}; leave duration out to follow the codes."
        )
    return found


def seconds(request: Request) -> float:
    """How long the song is or will be."""
    return _duration(request)[0]


def _duration(request: Request) -> tuple[float, str]:
    """The length of the song, and what decided it."""
    if request.duration is not None:
        return request.duration, "asked for"
    if request.codes is not None:
        return len(request.codes) / CODES_PER_SECOND, "the codes"
    if not is_sung(request.lyrics):
        return DEFAULT_SECONDS, DEFAULT
    return estimated_duration(request), "estimated from the lyrics"


def is_sung(lyrics: str | None) -> bool:
    """Whether there is a line that is no section tag."""
    return any(line.strip() and not is_tag(line) for line in (lyrics or "").splitlines())


def is_tag(line: str) -> bool:
    return line.strip().startswith("[") and line.strip().endswith("]")


def estimated_duration(request: Request) -> float:
    """Seconds that the lyrics take to sing at the request's tempo; 60 where nothing is sung."""
    if not is_sung(request.lyrics):
        return DEFAULT_SECONDS
    tags = [is_tag(line) for line in (request.lyrics or "").splitlines() if line.strip()]
    bare = sum(tag and following for tag, following in zip(tags, [*tags[1:], True], strict=True))
    bars = tags.count(False) * BARS_PER_LINE + bare * BARS_PER_BARE_SECTION + BARS_AROUND
    estimate = bars * PULSES[request.time_signature or "4/4"] * 60 / (request.bpm or ESTIMATE_BPM)
    low, high = ESTIMATE_RANGE
    return float(round(min(max(estimate, low), high)))
