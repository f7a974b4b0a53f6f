"""Distances between renders by what makes them differ, from which `acestep show a.flac b.flac` has its words."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import parser, publish

from acestep_cli.audio import distance, measure

SONGS = Path(__file__).parent.parent / "songs"
NAMES = ("night-drive", "ballad", "rain-on-the-desk-lamp")
OTHER_CAPTION = "solo violin, slow, baroque"
#: What is rendered beside the first take, from its sidecar: a name, the flags and the suffix.
VARIANTS: dict[str, tuple[tuple[str, ...], str]] = {
    "an MP3 of it": ((), "mp3"),
    "variation 5 %": (("--variation", "5%", "--variation-seed", "9"), "flac"),
    "variation 15 %": (("--variation", "15%", "--variation-seed", "9"), "flac"),
    "variation 40 %": (("--variation", "40%", "--variation-seed", "9"), "flac"),
    "another caption, the same seed": (("-c", OTHER_CAPTION), "flac"),
    "another seed": (("--seed", "2"), "flac"),
    "a third seed": (("--seed", "3"), "flac"),
}
NOTES = f"""\
`pocket`, {len(NAMES)} songs, 12 s each: the log-spectral distance below 12 kHz of a take from the first one, as
`acestep show a.flac b.flac` prints it. Least and most over the songs; other songs: of the first from the others.
"""


def render(*arguments: str | Path) -> None:
    """Run `acestep generate …`."""
    subprocess.run([sys.executable, "-m", "acestep_cli", "generate", "-q", *arguments], check=True, capture_output=True)


def apart(one: Path, other: Path) -> float:
    """Return the distance of two files in decibels."""
    found = distance.take_distance(*map(measure.read_for_measuring, (one, other)))
    assert found is not None
    return found


def main() -> None:
    arguments = parser(__doc__).parse_args()
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        firsts = [Path(folder) / f"{name}.flac" for name in NAMES]
        for name, first in zip(NAMES, firsts, strict=True):
            render(SONGS / f"{name}.yaml", "-m", "pocket", "-d", "12", "--seed", "1", "-o", first)
            for number, (variant, (flags, suffix)) in enumerate(VARIANTS.items()):
                file = first.with_name(f"{name}-{number}.{suffix}")
                render(f"{first}.yaml", *flags, "-o", file)
                found[variant].append(apart(first, file))
                print(f"{name}, {variant}: {found[variant][-1]:.1f} dB", file=sys.stderr)
        found["another song"] = [apart(firsts[0], other) for other in firsts[1:]]
    rows = [[name, f"{min(values):.1f} to {max(values):.1f} dB"] for name, values in found.items()]
    publish(__file__, "How far takes are apart", [["beside a take", "distance"], *rows], NOTES, arguments.dry)


if __name__ == "__main__":
    main()
