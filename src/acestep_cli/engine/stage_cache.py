"""What earlier runs have left of a stage: the words and codes of a Songwriter, the latents of recordings and of takes.

Latents of a take outlive a run that ended while they were decoded or written, and serve a take of which more is asked
than was then: its lyrics in time, or its scores.
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
from acestep_cli.models.checkpoints import Checkpoint, Songwriter
from acestep_cli.song import complete
from acestep_cli.song.complete import Completed
from acestep_cli.song.loras import ActiveAdapter
from acestep_cli.song.request import FINISH, KEYS, SOUND

#: What a Songwriter neither reads nor decides; an instrumental has no lyrics to time.
IGNORED_KEYS = {name for name, key in KEYS.items() if key.panel == SOUND or name in FINISH} - {
    "seed",
    "takes",
    "genre",
    "lrc",
}


class StageCache:
    """Makes what is not in `cache`, and keeps it there; without a cache it makes everything."""

    def __init__(self, cache: Cache | None, checkpoint: Checkpoint, songwriter: Songwriter | None) -> None:
        self.cache, self.checkpoint, self.songwriter = cache, checkpoint, songwriter

    def encoded_latents(self, waveforms: Sequence[Tensor], plan: Plan, make: Callable[[], Tensor]) -> Tensor:
        """The latents of waveforms [A, N]; `make` hears them."""
        if self.cache is None:
            return make()
        device = "cpu" if plan.vae_on_cpu else plan.device
        key = self._key(plan, device, self.checkpoint.vae_hash(), *map(tensor_hash, waveforms))
        if (data := self.cache.read("sources", key)) is not None:
            return load(data)["latents"]
        made = make()
        self.cache.write("sources", key, tensor_file.dumps({"latents": made}))
        return made

    def take_latents(
        self,
        adapters: Sequence[ActiveAdapter],
        settings: Sequence[Any],
        tensors: Iterable[Tensor | None],
        plan: Plan,
        make: Callable[[], Tensor],
    ) -> tuple[Tensor, bool]:
        """The latents of a take, and whether `make` made them just now: from `tensors` by `settings`, all there are,
        with the adapters of `stack`.
        """
        if self.cache is None:
            return make(), True
        worn = [(one.adapter.fingerprint, one.strength, plan.streamed) for one in adapters]  # or else it may be merged
        found = [None if tensor is None else tensor_hash(tensor) for tensor in tensors]
        key = self._key(plan, plan.device, plan.int8, self._weights, worn, settings, found)
        if (data := self.cache.read("latents", key)) is not None:
            return load(data)["latents"], False
        made = make()
        self.cache.write("latents", key, tensor_file.dumps({"latents": made}))
        return made, True

    @cached_property
    def _weights(self) -> str:
        return self.checkpoint.weights_hash()

    def completed_takes(
        self, request: Completed, plan: Plan, make: Callable[[], Sequence[Completed]]
    ) -> Sequence[Completed]:
        """The takes of a request with nothing open; `make` has the Songwriter write them."""
        if self.cache is None or self.songwriter is None:
            return make()
        read = json.loads(request.model_dump_json(include=set(KEYS) - IGNORED_KEYS))
        whose = [self.songwriter.weights, self.checkpoint.code_count, self.checkpoint.row.shortest_seconds]
        key = self._key(plan, plan.device, whose, read, request.open)
        bases = [complete.take_request(request, number) for number in range(1, request.takes + 1)]
        if (data := self.cache.read("songwriting", key)) is not None:
            return [complete.apply_changes(base, said) for base, said in zip(bases, json.loads(data), strict=True)]
        made = make()
        said = [complete.changed_keys(base, song) for base, song in zip(bases, made, strict=True)]
        self.cache.write("songwriting", key, json.dumps(said).encode())
        return made

    def _key(self, plan: Plan, device: str, *content: Any) -> str:
        """The name of what is computed from `content` as this machine does it."""
        arithmetic = (device, plan.dtype, plan.threads, platform.machine(), __version__, torch.__version__)
        return hashlib.sha256(json.dumps([*arithmetic, *content]).encode()).hexdigest()


def tensor_hash(tensor: Tensor) -> str:
    """A hash of what a tensor holds, on whatever device it is."""
    plain = tensor.cpu().contiguous()
    said = f"{plain.dtype} {list(plain.shape)} ".encode()
    return hashlib.sha256(said + plain.view(torch.uint8).numpy().tobytes()).hexdigest()
