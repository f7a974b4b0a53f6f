"""Takes in the cache, so that another format, other tags or another loudness need no new render."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from acestep_cli import __version__
from acestep_cli.audio.lrc import TimedLine
from acestep_cli.audio.sound import Audio
from acestep_cli.cache import Cache
from acestep_cli.models import tensor_file
from acestep_cli.models.adapters import AppliedAdapter
from acestep_cli.models.latents_file import Latents
from acestep_cli.render.job import Job
from acestep_cli.render.result import OutputFile
from acestep_cli.song.recipe import apply_changes, changed_keys

if TYPE_CHECKING:
    from acestep_cli.take import Take

STAGE = "takes"
SAMPLES, LATENTS = "samples", "latents"


def cache_key(job: Job, output: OutputFile) -> str:
    """Return the key of a take: a hash of its unfinished recipe, the arithmetic, and the requested extras."""
    plan = job.plan
    arithmetic = (plan.device, plan.dtype, plan.int8, plan.vae_on_cpu, plan.threads, platform.machine())
    versions = (__version__, metadata.version("torch"))
    asked = (output.completed.lrc, output.completed.scored, output.completed.text_seed if job.request.open else None)
    content = [job.sound(output), output.seed, output.kind, output.track, *asked, *arithmetic, *versions]
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
        "checks": take.checks,
        "remarks": take.remarks,
        "lines": take.lines,
        "scores": take.scores,
        "applied": take.applied,
        "untouched": take.untouched,
    }
    if take.latents is not None:
        blocks[LATENTS] = tensor_file.block(take.latents.frames)
        fields |= {"hop": take.latents.hop, "gain": take.latents.gain}
    cache.write(STAGE, cache_key(job, output), tensor_file.dumps(blocks, {"take": json.dumps(fields)}))


def load_take(cache: Cache, job: Job, output: OutputFile) -> Take | None:
    """Return a stored take as the pipeline made it; None where there is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = cache.read(STAGE, cache_key(job, output))
    if data is None:
        return None
    from acestep_cli.take import Take

    try:
        tensors = load(data)
    except SafetensorError:  # of another version
        return None
    fields = read_header(data)
    request = apply_changes(output.completed, fields["decided"])
    sound = Audio(tensors[SAMPLES], fields["rate"])
    latents = Latents(tensors[LATENTS], fields["hop"], fields["gain"]) if LATENTS in tensors else None
    return Take(
        number=output.take,
        audio=sound,
        request=request,
        plan=job.plan,
        timings={},
        warnings=tuple(fields["warnings"]),
        kind=output.kind,
        track=output.track,
        checks=fields["checks"],
        remarks=tuple(fields["remarks"]),
        latents=latents,
        lines=tuple(TimedLine(*line) for line in fields["lines"]),
        scores=fields["scores"],
        applied=tuple(AppliedAdapter(*one) for one in fields.get("applied", ())),
        untouched=tuple((start, end) for start, end in fields.get("untouched", ())),
    )


def read_header(data: bytes) -> dict[str, Any]:
    """Return the fields of a stored take."""
    size = int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["take"])
    return found
