"""The recipe of a take: the hash of all that shapes it, and the keys in which two requests differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from acestep_cli.song.complete import Completed
from acestep_cli.song.request import KEYS, NEUTRAL, Request


def changed_keys(before: Completed, after: Completed) -> dict[str, Any]:
    """Return the keys whose values differ in `after`, with those values as JSON types."""
    names = {name for name in KEYS if getattr(before, name) != getattr(after, name)}
    found: dict[str, Any] = after.model_dump(mode="json", include=names)
    return found


def apply_changes(before: Completed, changes: Mapping[str, Any]) -> Completed:
    """Return `before` with the values from `changed_keys`; no key is open."""
    read = Request(**changes)
    return before.model_copy(update={**{name: getattr(read, name) for name in changes}, "open": ()})


def recipe_hash(request: Completed, weights: str, contents: Mapping[str, str]) -> str:
    """Hash everything that shapes the samples and their encoding, except the seed.

    Two takes with the same recipe and the same seed are the same audio. `weights` is the hash of the weights;
    `contents` has the fingerprint of each recording and adapter by path.
    """
    shaping = {name for name, key in KEYS.items() if key.shapes}
    values = request.model_dump(include=shaping, exclude_none=True)
    content = {"weights": weights, **{key: value for key, value in values.items() if NEUTRAL.get(key) != value}}
    if (source := contents.get(request.source or "")) is not None:
        content["source"] = source
    if request.source_latents is not None:
        content["latents"] = request.source_latents.fingerprint
    if request.reference is not None:
        content["reference"] = [contents[file] for file in request.reference]
    if request.loras is not None:
        content["loras"] = [(contents[lora.path], lora.scale) for lora in request.loras]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
