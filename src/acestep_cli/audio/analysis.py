"""Tempo and key of recordings, each estimated once: the figures are kept under a hash of the samples."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TypeVar

from acestep_cli.audio import measure
from acestep_cli.audio.sound import Audio
from acestep_cli.cache import Cache

Figure = TypeVar("Figure", float, str)
STAGE = "analyses"


@dataclass(frozen=True)
class Analyser:
    """Estimates tempo and key, and keeps them in `cache`.

    `loading` is called before the analyser's library is imported, which takes seconds, and at its first use on a
    machine, when it compiles itself, a minute or more.
    """

    cache: Cache
    loading: Callable[[], None] = lambda: None

    def tempo(self, sound: Audio) -> float | None:
        """Return the tempo in beats per minute, as `measure.estimate_tempo`."""
        return self._figure("tempo", sound, measure.estimate_tempo)

    def key(self, sound: Audio) -> str | None:
        """Return the key, as `measure.estimate_key`."""
        return self._figure("key", sound, measure.estimate_key)

    def _figure(self, name: str, sound: Audio, estimate: Callable[[Audio], Figure | None]) -> Figure | None:
        entry = self._entry_key(name, sound)
        kept: list[Figure | None] | None = self.cache.read(STAGE, entry, json.loads)
        if kept is None:
            if measure.ANALYSER not in sys.modules:
                self.loading()
            kept = [estimate(sound)]
            self.cache.write(STAGE, entry, json.dumps(kept).encode())
        return kept[0]

    @staticmethod
    def _entry_key(name: str, sound: Audio) -> str:
        """Return the name of an entry: of the figure, the version of what estimates it, and all samples."""
        version = metadata.version(measure.ANALYSER)
        digest = hashlib.sha256(f"{name} {measure.ANALYSER} {version} {sound.sample_rate}\0".encode())
        for channel in sound.samples:
            digest.update(memoryview(channel.copy()))
        return digest.hexdigest()
