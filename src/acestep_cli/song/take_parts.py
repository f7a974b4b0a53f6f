"""The takes of a completed request, each with its seed, and the files of each take."""

from __future__ import annotations

from dataclasses import dataclass

from acestep_cli.song import modes
from acestep_cli.song.complete import Completed
from acestep_cli.song.request import Request
from acestep_cli.song.seeds import take_seed, text_seed


def written_requests(request: Completed) -> list[Completed]:
    """Return the requests that `request` becomes once the Songwriter fills it in: one for each take where each has
    codes of its own, else one for all takes.
    """
    if "codes" not in request.open:
        return [request]
    return single_takes(request)


def take_request(request: Completed, number: int, count: int = 1) -> Completed:
    """Return the request for take `number`, counted from 1, alone or with those after it, `count` in all.

    Takes of a variation share the seed, and each has its own seed of the variation. The text that the Songwriter writes
    stays the same.
    """
    key, seed = ("seed", request.seed) if request.variation_seed is None else ("variation_seed", request.variation_seed)
    return request.model_copy(update={key: take_seed(seed, number), "takes": count})


def single_takes(request: Completed) -> list[Completed]:
    """Return the request for each of its takes alone."""
    return [take_request(request, number) for number in range(1, request.takes + 1)]


def with_take_seed(request: Completed, number: int, seed: int) -> Completed:
    """Return `request` with that seed which gives `seed` to take `number`."""
    first = take_seed(seed, 2 - number)
    return request.model_copy(update={"seed": first, "text_seed": text_seed(first, request.songwriter_seed)})


def with_take_variation(request: Completed, number: int, seed: int) -> Completed:
    """Return `request` with that seed of the variation which gives `seed` to take `number`."""
    return request.model_copy(update={"variation_seed": take_seed(seed, 2 - number)})


@dataclass(frozen=True)
class OutputPart:
    """One file of a take: its kind (take, stem, mix, residual), its track, and the request that renders it."""

    kind: str
    track: str | None
    request: Completed


def part_kinds(request: Request) -> list[tuple[str, str | None]]:
    """Return kind and track of each file of one take: the take, or a stem for each track and a mix or residual."""
    mode = modes.mode_of(request)
    if mode.makes == "take":
        return [("take", None)]
    beside = mode.beside(request)
    return [*(("stem", track) for track in request.track or ()), *([(beside, None)] if beside else [])]


def output_parts(request: Completed) -> list[OutputPart]:
    """Return the files of one take of `request`, each with the request that renders it."""
    return [
        OutputPart(kind, track, request if track is None else request.model_copy(update={"track": (track,)}))
        for kind, track in part_kinds(request)
    ]
