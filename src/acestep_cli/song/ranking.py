"""The scores by which takes are ranked, and the reasons why one does not apply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from acestep_cli.errors import UsageError
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.models.checkpoint_table import BUILT_IN
from acestep_cli.song import duration, modes
from acestep_cli.song.request import Request

#: `lyric_alignment`: how clearly the words can be followed in the song, in their order. `judgement`: how well the
#: Songwriter predicts the request from the codes. Both are from 0 to 1; takes are ranked by their mean.
LYRIC_ALIGNMENT, JUDGEMENT = "lyric_alignment", "judgement"
ALL = (LYRIC_ALIGNMENT, JUDGEMENT)
#: Scores of one take by name.
Scores = dict[str, float]


def inapplicable_scores(request: Request, checkpoint: Checkpoint, songwriter: Songwriter | None) -> dict[str, str]:
    """Return the scores that takes of `request` cannot have, each with the reason."""
    mode = modes.mode_of(request)
    found = {}
    if "lrc" not in mode.keys:
        found[LYRIC_ALIGNMENT] = f"{request.mode} makes no whole song"
    elif not checkpoint.alignment_heads:
        found[LYRIC_ALIGNMENT] = f"{checkpoint.name} has no alignment heads"
    elif not duration.may_be_sung(modes.with_defaults(request)):
        found[LYRIC_ALIGNMENT] = "there are no lyrics"
    if not mode.follows_codes:
        found[JUDGEMENT] = f"the Songwriter judges codes, and {request.mode} follows none"
    elif songwriter is None:
        absent = f"no Songwriter that goes with {checkpoint.name} is installed and fits"
        if checkpoint.name == BUILT_IN:
            absent = f"its Songwriter comes when it is named, with --songwriter {BUILT_IN}"
        found[JUDGEMENT] = "songwriter is none" if request.songwriter == "none" else absent
    return found


def require_scores(request: Request, checkpoint: Checkpoint, songwriter: Songwriter | None) -> tuple[str, ...]:
    """Return the scores that takes of `request` can have. Raises `UsageError` where there are none."""
    lacking = inapplicable_scores(request, checkpoint, songwriter)
    if len(lacking) == len(ALL):
        raise UsageError(
            f"--rank has nothing to go by: {inapplicable_sentence(lacking)}.",
            "It takes lyrics and a checkpoint with alignment heads, or a Songwriter; see `acestep models list`.",
        )
    return tuple(name for name in ALL if name not in lacking)


def inapplicable_sentence(lacking: Mapping[str, str]) -> str:
    """Return a sentence with the reason why each score does not apply."""
    return "; ".join(f"{name.replace('_', ' ')} does not apply, because {why}" for name, why in lacking.items())


def mean_scores(takes: Sequence[Mapping[str, float]]) -> list[float | None]:
    """Return for each take the mean of the scores that all scored takes share; None where a take has no scores."""
    scored = [take for take in takes if take]
    common = [name for name in ALL if scored and all(name in take for take in scored)]
    return [mean(take[name] for name in common) if take and common else None for take in takes]
