"""Finished takes in the cache: what another format, other tags or another loudness need not make again."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from acestep_cli import __version__
from acestep_cli.audio import sound as audio
from acestep_cli.audio.lrc import TimedLine
from acestep_cli.cache import Cache
from acestep_cli.models import tensor_file
from acestep_cli.models.adapters import AppliedAdapter
from acestep_cli.models.latents_file import Latents
from acestep_cli.render.job import Job
from acestep_cli.render.result import OutputFile
from acestep_cli.song import complete

if TYPE_CHECKING:
    from acestep_cli.take import Take

STAGE = "takes"
SAMPLES, LATENTS = "samples", "latents"


def cache_key(job: Job, output: OutputFile) -> str:
    """The name of a take: what shapes its samples before they are finished and what computes them, and what is asked of
    its words.
    """
    plan = job.plan
    arithmetic = (plan.device, plan.dtype, plan.int8, plan.vae_on_cpu, plan.threads, platform.machine())
    versions = (__version__, metadata.version("torch"))
    asked = (output.completed.lrc, output.completed.scored)
    content = [job.sound(output), output.seed, output.kind, output.track, *asked, *arithmetic, *versions]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def store_take(cache: Cache, job: Job, output: OutputFile, take: Take) -> None:
    """Keep a take; none that was made in another way than planned, as memory ran out."""
    if take.plan.arrangement != job.plan.arrangement:
        return
    blocks = {SAMPLES: tensor_file.block(take.audio.samples)}
    said: dict[str, Any] = {
        "decided": complete.changed_keys(output.completed, take.request),
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
        said |= {"hop": take.latents.hop, "gain": take.latents.gain}
    cache.write(STAGE, cache_key(job, output), tensor_file.dumps(blocks, {"take": json.dumps(said)}))


def load_take(cache: Cache, job: Job, output: OutputFile) -> Take | None:
    """A take as the pipeline would make it, to be finished as it is asked for now; None where none is kept."""
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
    said = read_header(data)
    request = complete.apply_changes(output.completed, said["decided"])
    sound = audio.Audio(tensors[SAMPLES], said["rate"])
    latents = Latents(tensors[LATENTS], said["hop"], said["gain"]) if LATENTS in tensors else None
    return Take(
        *(output.take, sound, request, job.plan, {}, tuple(said["warnings"]), output.kind, output.track),
        checks=said["checks"],
        remarks=tuple(said["remarks"]),
        latents=latents,
        lines=tuple(TimedLine(*line) for line in said["lines"]),
        scores=said["scores"],
        applied=tuple(AppliedAdapter(*one) for one in said.get("applied", ())),
        untouched=tuple((start, end) for start, end in said.get("untouched", ())),
    )


def read_header(data: bytes) -> dict[str, Any]:
    """What was said of a take."""
    size = int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["take"])
    return found
