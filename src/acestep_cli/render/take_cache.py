"""Takes in the cache, so that another format, other tags or another loudness need no new render."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from acestep_cli import __version__
from acestep_cli.audio.lrc import TimedLine
from acestep_cli.audio.sound import Audio
from acestep_cli.audio.splice import SplicedParts
from acestep_cli.cache import Cache
from acestep_cli.models import tensor_file
from acestep_cli.models.adapters import AppliedAdapter
from acestep_cli.models.latents_file import Latents
from acestep_cli.render.job import Job
from acestep_cli.render.result import OutputFile
from acestep_cli.song.recipe import apply_changes, changed_keys

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from acestep_cli.take import Take

STAGE = "takes"
SAMPLES, LATENTS, REPLACED = "samples", "latents", "replaced"
#: Version of what is stored of a take. Before 2, it had measurements of its samples instead of what they need.
FORMAT = 2


def cache_key(job: Job, output: OutputFile) -> str:
    """Return the key of a take: a hash of its unfinished recipe, the arithmetic, and the requested extras."""
    plan = job.plan
    arithmetic = (
        plan.device,
        plan.dtype,
        plan.int8,
        plan.int8_arithmetic,
        plan.vae_on_cpu,
        plan.threads,
        platform.machine(),
    )
    versions = (__version__, metadata.version("torch"))
    shared = (plan.together,) if plan.together > 1 else ()
    asked = (output.completed.lrc, output.completed.scored, output.completed.text_seed if job.request.open else None)
    take = (job.samples_hash(output), output.seed, output.kind, output.track)
    content = [FORMAT, *take, *asked, *arithmetic, *shared, *versions]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def store_take(cache: Cache, job: Job, output: OutputFile, take: Take) -> None:
    """Store a take, unless a memory fallback changed its plan."""
    if take.plan.arrangement != job.plan.arrangement:
        return
    blocks = {SAMPLES: tensor_file.block(take.audio.samples)}
    fields: dict[str, Any] = {
        "decided": changed_keys(output.completed, take.request),
        "rate": take.audio.sample_rate,
        "warnings": take.warnings,
        "lines": take.lines,
        "scores": take.scores,
        "applied": take.applied,
        "residual_of": take.residual_of,
        "edit_change": take.edit_change,
    }
    if (splice := take.splice) is not None:
        blocks |= {f"{REPLACED} {start}": tensor_file.block(source) for start, source in splice.replaced}
        fields["splice"] = {"untouched": splice.untouched, "crossfades": splice.crossfades}
    if take.latents is not None:
        blocks[LATENTS] = tensor_file.block(take.latents.frames)
        fields |= {"hop": take.latents.hop, "gain": take.latents.gain}
    cache.write(STAGE, cache_key(job, output), tensor_file.dumps(blocks, {"take": json.dumps(fields)}))


def load_take(cache: Cache, job: Job, output: OutputFile) -> Take | None:
    """Return a stored take as the pipeline made it; None where there is none."""
    return cache.read(STAGE, cache_key(job, output), partial(parse_take, job, output))


def parse_take(job: Job, output: OutputFile, data: bytes) -> Take:
    """Return the take in the content of a cache entry."""
    from safetensors.numpy import load

    from acestep_cli.take import Take

    tensors, fields = load(data), read_header(data)
    return Take(
        number=output.take,
        audio=Audio(tensors[SAMPLES], fields["rate"]),
        request=apply_changes(output.completed, fields["decided"]),
        plan=job.plan,
        timings={},
        warnings=tuple(fields["warnings"]),
        kind=output.kind,
        track=output.track,
        latents=Latents(tensors[LATENTS], fields["hop"], fields["gain"]) if LATENTS in tensors else None,
        lines=tuple(TimedLine(*line) for line in fields["lines"]),
        scores=fields["scores"],
        applied=tuple(AppliedAdapter(*one) for one in fields["applied"]),
        splice=stored_splice(fields["splice"], tensors) if "splice" in fields else None,
        residual_of=fields["residual_of"],
        edit_change=fields.get("edit_change"),
    )


def stored_splice(fields: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]) -> SplicedParts:
    """Return the spliced parts of a stored take."""
    untouched, crossfades = (tuple((start, end) for start, end in fields[name]) for name in ("untouched", "crossfades"))
    starts = sorted(int(name.split()[1]) for name in tensors if name.startswith(REPLACED))
    return SplicedParts(untouched, crossfades, tuple((start, tensors[f"{REPLACED} {start}"]) for start in starts))


def read_header(data: bytes) -> dict[str, Any]:
    """Return the fields of a stored take."""
    size = int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["take"])
    return found
