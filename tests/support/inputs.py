"""What renders read: two recordings and an adapter."""

from __future__ import annotations

from pathlib import Path

from support import adapter_files, sounds, tiny


def write_inputs(folder: Path) -> None:
    """Write `a.wav`, `b.wav` and the adapter `my-sound` of the 2B shape into a folder."""
    for number, name in enumerate(("a.wav", "b.wav")):
        sounds.recording(str(folder / name), 3.3, seed=number)
    adapter_files.peft(folder / "my-sound", adapter_files.pairs(tiny.TWO_B))
