"""The text of a sidecar: the spec of a take with a record of its render, made and parsed. `render.write` writes it."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

from acestep_cli import __version__
from acestep_cli.audio import loudness, tags
from acestep_cli.audio.measure import Measures
from acestep_cli.machine import hardware
from acestep_cli.models.checkpoint_files import Songwriter
from acestep_cli.song import complete, document, songwriter_prompts, spec, spec_keys, spec_layers, spec_text
from acestep_cli.song.file_values import Lora, is_folder_name
from acestep_cli.song.key import SONGWRITER_OPTIONS
from acestep_cli.song.request import GROUPS, KEYS, Request

if TYPE_CHECKING:
    from acestep_cli.take import Take

#: Keys of the tags that shape no sample.
LABELS = tuple(name for name in (*tags.KEYS, "cover") if not KEYS[name].shapes)
LIBRARIES = ("llguidance", "mutagen", "numpy", "soundfile", "soxr", "torch")


R = TypeVar("R", bound="RenderOrigin")


class RecordedWeights(BaseModel):
    """The checkpoint of a render: its name, and the hash of its weights."""

    name: str
    weights: str


class RenderOrigin(BaseModel):
    """The record of a render in a sidecar, or in the tags of a file."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    recipe: str
    seed: int
    checkpoint: RecordedWeights
    acestep: str | None = None
    device: str | None = None
    dtype: str | None = None
    #: Threads of the processor that rendered it. Absent before they were recorded.
    threads: Annotated[int, Field(ge=1, le=hardware.MOST_THREADS)] | None = None
    int8: bool = False
    int8_arithmetic: bool = False
    #: The most takes that shared a forward pass with it, itself included.
    together: Annotated[int, Field(ge=1)] = 1
    source_latents: str | None = None
    versions: dict[str, str] = {}
    adapters: list[str] = []
    #: The recipe before a Songwriter decided what was open.
    asked: str | None = None

    def is_of(self, recipe: str) -> bool:
        """Tell whether `recipe` is that of the take, or that of the request before a Songwriter filled it in."""
        return recipe in (self.recipe, self.asked)


class SidecarRecord(RenderOrigin):
    """The record in a sidecar: the origin, and facts about the audio file beside it."""

    seconds: float
    sample_rate: int
    checks: dict[str, float]
    scores: dict[str, float] = {}
    timings: dict[str, float]
    #: Size of the audio file. Absent before it was recorded.
    bytes: int | None = None
    #: Hash of the tags that were asked for. Absent before it was recorded.
    tags: str | None = None
    #: From its request: nobody sings; timed lyrics are beside it.
    instrumental: bool = False
    lrc: bool = False
    #: From its request. Absent before the key existed.
    dcw: str | None = None
    #: From its request; None where it is no variation.
    variation_seed: int | None = None
    #: The lyrics were to be timed, and were not found in the song.
    untimed: bool = False
    #: The keys of `--matrix`, where it was made by one.
    swept: list[str] = []


def sidecar_text(
    take: Take,
    recipe: str,
    *,
    checkpoint: str,
    weights_hash: str,
    measured: dict[str, Any],
    size: int,
    asked: str,
    written: dict[str, Any],
) -> str:
    """Return the text of a sidecar: the completed request of `take`, and under `render` the record of its render.

    `recipe` is the result of `recipe_hash`, `checkpoint` a name, `measured` are the checks, `size` is the bytes of the
    file, `asked` the result of `tags_hash`, and `written` the fields of `songwriter_fields` and `adapter_fields`,
    `untimed`, `swept`, and `from_source`: the keys that were taken over from the source. There is no date in it: the
    same render differs in timings alone.
    """
    return spec.dump_spec(
        take.request,
        {
            **origin_fields(take, recipe, checkpoint, weights_hash, written),
            "seconds": round(take.audio.seconds, 6),
            "sample_rate": take.request.sample_rate or take.audio.sample_rate,
            "bytes": size,
            "tags": asked,
            "checks": measured,
            **({"scores": take.scores} if take.scores else {}),
            **({"applied": [one._asdict() for one in take.applied]} if take.applied else {}),
            "timings": take.timings,
            "warnings": list(take.warnings),
        },
    )


def tag_spec(request: Request, origin: RenderOrigin) -> str:
    """Return the spec for the tags of a file: a completed request and the origin of the render.

    Every file carries it in case its sidecar is lost. Paths in it are bare names, as if all files were beside it.
    """
    named = {key: bare_names(value) for key in KEYS if KEYS[key].kind.is_path
             if (value := getattr(request, key)) is not None}  # fmt: skip
    named |= {key: bare_names(value) for key in ("model", "songwriter")
              if (value := getattr(request, key)) is not None and is_folder_name(value)}  # fmt: skip
    fields = origin.model_dump(include=set(RenderOrigin.model_fields) - {"asked"}, exclude_defaults=True)
    return spec.dump_spec(request.model_copy(update=named), fields)


def bare_names(path: Any) -> Any:
    """Return a path, or each of several, without its folder."""
    if isinstance(path, Lora):
        return replace(path, path=bare_names(path.path))
    return f"./{Path(path).name}" if isinstance(path, str) else tuple(bare_names(one) for one in path)


def origin_fields(
    take: Take, recipe: str, checkpoint: str, weights_hash: str, written: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of a `RenderOrigin`: all that decides the samples besides the request."""
    return {
        "acestep": __version__,
        "recipe": recipe,
        **written,
        "seed": take.request.seed,
        "checkpoint": {"name": checkpoint, "weights": weights_hash},
        "device": take.plan.device,
        "dtype": take.plan.dtype,
        **({"threads": take.plan.threads} if take.plan.threads is not None else {}),
        **({"int8": True} if take.plan.int8 else {}),
        **({"int8_arithmetic": True} if take.plan.int8_arithmetic else {}),
        **({"together": take.plan.together} if take.plan.together > 1 else {}),
        **({"source_latents": take.request.source_latents.fingerprint} if take.request.source_latents else {}),
        "versions": versions(),
    }


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that may change the samples."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}


def songwriter_fields(
    asked: complete.Completed, recipe: str, songwriter: Songwriter, caption: str | None
) -> dict[str, Any]:
    """Return the Songwriter's fields for a request `asked` with the recipe `recipe`. A replay ignores them.

    `caption` is that of the take. Where it begins with what it keeps of the idea, that is a field.
    """
    fields = asked.model_dump(include={"idea", *GROUPS[SONGWRITER_OPTIONS]}, exclude_none=True)
    if opening := songwriter_prompts.opening_of(asked, caption):
        fields["caption_opening"] = opening
    identity = {"name": songwriter.name, "weights": songwriter.weights_hash, "seed": asked.text_seed}
    return {"asked": recipe, "songwriter": {**identity, **fields, "decided": list(asked.open)}}


def adapter_fields(decided: complete.Completion) -> dict[str, Any]:
    """Return the field with the hash of each adapter of a request, in order; empty without adapters."""
    hashes = [adapter.fingerprint for adapter in decided.adapters.values()]
    return {"adapters": hashes} if hashes else {}


def tags_hash(asked: complete.Completed, cover: tags.Cover | None) -> str:
    """Return a hash of the requested tags, without those that shape the song: they are in its recipe."""
    fields: dict[str, Any] = asked.model_dump(include=set(LABELS) - {"cover"}, exclude_none=True)
    if cover is not None:
        fields["cover"] = hashlib.sha256(cover.data).hexdigest()
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def retagged_request(file: Path, asked: complete.Completed) -> Request:
    """Return the request of the sidecar `file` with the tags of `asked`, but for those left to the Songwriter."""
    kept = {name: getattr(asked, name) for name in LABELS if name not in asked.open}
    over = spec_layers.Layer(
        Path(), {name: spec_layers.WrittenValue(raw, str(file), str(file)) for name, raw in kept.items()}
    )
    return spec.resolve(*spec_layers.read_layers(file), over).request


def retagged_text(file: Path, request: Request, size: int, asked: str) -> str:
    """Return the text of the sidecar `file` with another `request`, audio `size` and hash `asked` of the tags."""
    content = document.load_yaml(file.read_bytes())
    return spec.dump_spec(request, content[spec_keys.RENDER] | {"bytes": size, "tags": asked})


def level_fields(found: Measures, asked: str) -> dict[str, float]:
    """Return the measured levels of a written file, with `lufs_written` where a loudness in LUFS was asked for."""
    figures = {"peak_dbfs": found.peak_dbfs, "true_peak_db": found.true_peak_db, "lufs": found.lufs,
               "lufs_written": found.lufs if loudness.parse_loudness(asked).kind == "lufs" else None}  # fmt: skip
    return {name: round(value, 2) + 0.0 for name, value in figures.items() if value is not None}  # + 0.0: never -0.0


def read_sidecar(path: Path) -> SidecarRecord | None:
    """Return the record in the sidecar `path`; None where there is none that this program wrote."""
    try:
        if not path.is_file() or path.stat().st_size > spec_text.MOST_BYTES:  # a pipe or a device would never end
            return None
        return parse_record(path.read_bytes(), SidecarRecord)
    except OSError:
        return None


def parse_record(text: str | bytes, kind: type[R]) -> R | None:
    """Return the record of a render in the text of a spec; None where there is none that this program wrote."""
    try:
        content = document.load_yaml(text)
        asked = {key: content[key] for key in ("instrumental", "lrc", "dcw", "variation_seed") if key in content}
        return kind.model_validate(asked | content[spec_keys.RENDER])
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError, LookupError, TypeError, ValueError):
        return None
