"""A stand-in for the pipeline that plays at once, so that the command line is tested without waiting for weights.

Words of the caption tell it how to misbehave.
`python tests/support/band.py generate …` is `acestep generate …` with it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from acestep_cli.audio.sound import Audio
from acestep_cli.audio.splice import SplicedParts
from acestep_cli.errors import MemoryLimitError
from acestep_cli.models.latents_file import Latents
from acestep_cli.song import complete, modes, take_parts
from acestep_cli.take import Take

RATE, HOP = 48_000, 1920


def rest() -> None:
    """A minute in short sleeps: a signal that comes just before a sleep waits for its end."""
    for _ in range(600):
        time.sleep(0.1)


class Pipeline:
    def __init__(self, checkpoint: Any, plan: Any, songwriter: Any = None, dit: Any = None, cache: Any = None) -> None:
        self.plan = plan
        print("a library says hello")
        with contextlib.suppress(OSError):  # as C does, where stdout is closed
            os.write(1, b"from C as well\n")

    def run(
        self,
        requests: Sequence[complete.Completed],
        report: Any,
        warn: Any = None,
        say: Any = None,
        timeout: float | None = None,
        together: Sequence[int] | None = None,
        on_lengths: Any = None,
    ) -> Iterator[Take]:
        for request in requests:
            yield from self.play(request, report)

    def play(self, request: complete.Completed, report: Any) -> Iterator[Take]:
        caption = request.caption or ""
        if "breaks" in caption:
            raise RuntimeError("a string broke")
        for stage in ("load", "text"):
            self._play(stage, caption, report)
        for number in range(1, request.takes + 1):
            if "stops" in caption and number == 3:
                rest()
            if "too big" in caption and number == 2:
                raise MemoryLimitError("It does not fit.")
            if "overtaken" in caption:  # by another run, which writes the file that this one is about to
                Path("a-song-overtaken-1.flac" if number == 1 else "a-2.wav").write_text("theirs")
            for stage in ("diffuse", "decode"):
                self._play(stage, caption, report)
            for piece in take_parts.output_parts(request):
                take = take_parts.take_request(piece.request, number)
                samples = self._tone(take.seed, request.duration)
                if "silent" in caption and (number == 2 or "all" in caption):
                    samples *= 0
                warnings = ("The lyrics were cut.",) if "long" in caption else ()
                problem = "The repaint changed nothing." if "unchanged" in caption else None
                frames = np.ones((samples.shape[1] // HOP + 1, 4), np.float32)
                yield Take(
                    *(number, Audio(samples, RATE), take, self.plan, {"diffuse": 0.125}, warnings),
                    *(piece.kind, piece.track, problem),
                    None if piece.kind in modes.BESIDE else Latents(frames, HOP),
                    splice=self._splice(samples) if request.mode == "repaint" else None,
                    residual_of=0.1 if piece.kind == "residual" else None,
                )

    def codes(self, request: complete.Completed, sounds: Sequence[Audio], report: Any, warn: Any) -> list[list[int]]:
        """As heard in recordings: all the same, five a second."""
        return [[7] * int(5 * sound.seconds) for sound in sounds]

    def write(self, request: complete.Completed, task: Any, *_: Any) -> dict[str, Any]:
        """As a Songwriter writes it: the same song, whatever it is asked for."""
        return {"caption": "slow piano", "lyrics": "[Verse]\nla\n", "bpm": 90, "duration": 30}

    def _play(self, stage: str, caption: str, report: Any) -> None:
        for step in range(5):
            report(stage, step, 4)
            if f"slow {stage}" in caption:
                rest()

    def _splice(self, samples: Any) -> SplicedParts:
        """A second of silence, replaced after a crossfade of a hundredth."""
        return SplicedParts(((0, RATE),), ((RATE, RATE + RATE // 100),), ((RATE + RATE // 100, 0 * samples[:, :RATE]),))

    def _tone(self, seed: int, seconds: float) -> Any:
        t = np.arange(int(seconds * RATE)) / RATE
        wave = np.sin(2 * np.pi * (200 + seed % 400) * t)
        return np.stack([wave, wave]).astype(np.float32)


def module() -> ModuleType:
    """What stands in for `acestep_cli.pipeline`."""
    stand_in = ModuleType("acestep_cli.pipeline")
    stand_in.Pipeline, stand_in.Take = Pipeline, Take  # type: ignore[attr-defined]
    return stand_in


if __name__ == "__main__":
    from acestep_cli.cli.app import main

    sys.modules["acestep_cli.pipeline"] = module()
    if "--auto" in sys.argv:  # which starts the program again
        from acestep_cli.cli import auto

        auto.PROGRAM = (sys.executable, __file__)
    main()
