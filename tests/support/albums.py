"""Albums to render, and machines to render them on."""

from __future__ import annotations

from pathlib import Path

from acestep_cli.machine import hardware

HARBOUR = """\
album: {title: Harbour, artist: The Tide Tables, year: 2026}
seed: 7
defaults: {duration: 10, genre: Folk}
tracks:
  - songs/*.md
  - {id: low-water, title: Low Water, caption: low}
"""
CHAIN = """\
seed: 7
defaults: {duration: 10}
tracks:
  - id: low-water
    caption: low
    genre: Folk
    edits:
      - repaint: {start: 4, end: 6, caption: bridge}
      - extend: {before: 2, after: 5, caption: ends}
  - id: again
    from: low-water
    edits:
      - cover: {caption: metal, strength: 40%}
"""


def write(text: str, name: str = "a.yaml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def harbour(text: str = HARBOUR) -> Path:
    for name in ("slack-water", "spring-tide"):
        write(f"---\ncaption: {name}\n---\n\n[Verse]\nla\n", f"songs/{name}.md")
    return write(text, "harbour.yaml")


def machine(*names: str) -> hardware.Hardware:
    """A machine with cards of these names; those called cpu are its processor, again and again."""
    kinds = {name: "cpu" if name == "cpu" else "cuda" for name in names}
    return hardware.Hardware(
        tuple(
            hardware.Device(name, kinds[name], name, 2**34, 2**34, ("float32",), "a test")  # type: ignore[arg-type]
            for name in names
        )
    )
