"""Cached results of stages: lyrics, metadata and codes of a Songwriter, the latents of recordings and of takes.

The latents of a take survive a run that ended while they were decoded or written, and serve the same take with more
asked of it: its lyrics in time, or its scores.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from acestep_cli import __version__
from acestep_cli.cache import Cache
from acestep_cli.engine import tensor_file
from acestep_cli.machine.plan import Plan
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter
from acestep_cli.song import songwriter_prompts, take_parts
from acestep_cli.song.complete import Completed
from acestep_cli.song.key import SOUND
from acestep_cli.song.loras import ActiveAdapter
from acestep_cli.song.recipe import apply_changes, changed_keys
from acestep_cli.song.request import FINISH, KEYS

#: Keys of a request that a Songwriter neither reads nor decides.
IGNORED_KEYS = {name for name, key in KEYS.items() if key.panel == SOUND or name in FINISH} - {
    "seed",
    "takes",
    "genre",
    "lrc",
}


class StageCache:
    """Returns results from `cache`, or makes and stores them; without a cache it makes all of them."""

    def __init__(self, cache: Cache | None, checkpoint: Checkpoint, songwriter: Songwriter | None) -> None:
        self.cache, self.checkpoint, self.songwriter = cache, checkpoint, songwriter

    def encoded_latents(self, waveforms: Sequence[Tensor], plan: Plan, make: Callable[[], Tensor]) -> Tensor:
        """Return the latents of waveforms [A, N]; `make` encodes them."""
        if self.cache is None:
            return make()
        device = "cpu" if plan.vae_on_cpu else plan.device
        key = self._key(plan, device, self.checkpoint.vae_hash, *map(tensor_hash, waveforms))
        if (found := self.cache.read("sources", key, load_latents)) is not None:
            return found
        made = make()
        self.cache.write("sources", key, tensor_file.dumps({"latents": made}))
        return made

    def latents_key(
        self, adapters: Sequence[ActiveAdapter], settings: Sequence[Any], tensors: Iterable[Tensor | None], plan: Plan
    ) -> str | None:
        """Return the key of a take's latents; None without a cache. `settings`, `tensors` and `adapters` are all that
        they depend on, but for the checkpoint and the plan.
        """
        if self.cache is None:
            return None
        # Only a decoder that is not streamed may have adapters merged.
        applied = [(active.adapter.fingerprint, active.strength, plan.streamed) for active in adapters]
        hashes = [None if tensor is None else tensor_hash(tensor) for tensor in tensors]
        content = (self._weights, applied, settings, hashes)
        return self._key(plan, plan.device, plan.int8, plan.int8_arithmetic, *content, *shared_passes(plan))

    def read_latents(self, key: str | None) -> Tensor | None:
        """Return the latents [T, C] of a take; None where they are not in the cache."""
        return None if self.cache is None or key is None else self.cache.read("latents", key, load_latents)

    def write_latents(self, key: str | None, latents: Tensor) -> None:
        """Store the latents [T, C] of a take."""
        if self.cache is not None and key is not None:
            self.cache.write("latents", key, tensor_file.dumps({"latents": latents}))

    @cached_property
    def _weights(self) -> str:
        return self.checkpoint.weights_hash

    def written_takes(
        self, request: Completed, plan: Plan, make: Callable[[], Sequence[Completed]]
    ) -> Sequence[Completed]:
        """Return the takes of a request with nothing open; `make` has the Songwriter fill them in."""
        if self.cache is None or self.songwriter is None:
            return make()
        inputs = request.model_dump(mode="json", include=set(KEYS) - IGNORED_KEYS)
        models = [self.songwriter.weights_hash, self.checkpoint.code_count, self.checkpoint.row.shortest_seconds]
        kept = songwriter_prompts.kept_words(request)
        inputs |= {"kept": kept.words} if kept is not None else {}
        inputs |= {"longest": plan.longest_seconds} if "duration" in request.open else {}
        shared = shared_passes(plan) if "codes" in request.open else []
        key = self._key(plan, plan.device, models, inputs, request.text_seed, request.open, *shared)
        bases = take_parts.written_requests(request)

        def load_takes(data: bytes) -> list[Completed]:
            return [apply_changes(base, changed) for base, changed in zip(bases, json.loads(data), strict=True)]

        if (found := self.cache.read("songwriting", key, load_takes)) is not None:
            return found
        made = make()
        changes = [changed_keys(base, song) for base, song in zip(bases, made, strict=True)]
        self.cache.write("songwriting", key, json.dumps(changes).encode())
        return made

    def _key(self, plan: Plan, device: str, *content: Any) -> str:
        """Return the cache key of a result that this machine computes from `content`."""
        arithmetic = (device, plan.dtype, plan.threads, platform.machine(), __version__, torch.__version__)
        return hashlib.sha256(json.dumps([*arithmetic, *content]).encode()).hexdigest()


def load_latents(data: bytes) -> Tensor:
    """Return the latents in the content of a cache entry."""
    return load(data)["latents"]


def shared_passes(plan: Plan) -> list[int]:
    """Return the part of a cache key that says how many takes share a forward pass: nothing for one alone."""
    return [plan.together] if plan.together > 1 else []


def tensor_hash(tensor: Tensor) -> str:
    """Return a hash of the type, shape and elements of a tensor on any device."""
    plain = tensor.cpu().contiguous()
    header = f"{plain.dtype} {list(plain.shape)} ".encode()
    return hashlib.sha256(header + plain.view(torch.uint8).numpy().tobytes()).hexdigest()
