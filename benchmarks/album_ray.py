"""Albums on a Ray cluster: whether two workers on this machine make what one process makes, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import parser, publish

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support import ray_nodes

PROGRAM = [sys.executable, "-m", "acestep_cli", "album", "render"]
SECONDS, NODES = 3, 2
NOTES = """\
An album of {seconds} s songs with `pocket`, one of two takes and one with lyrics, and of edits of them (repaint,
extend, cover), rendered by one process, and with `--on ray` by {nodes} nodes on the same machine; with one thread each.
Compared are the FLAC files, tags included.
"""
ALBUM = """\
defaults: {{model: pocket, duration: {seconds}}}
tracks:
  - {{id: one, caption: "gentle folk, acoustic guitar"}}
  - {{id: two, caption: "dub techno, warm chords", takes: 2}}
  - {{id: three, caption: "soul ballad, female vocal", lyrics: "[Verse]\\nThe tide is out\\n[Chorus]\\nCome home"}}
  - {{id: four, caption: "chiptune", seed: 4, steps: 4}}
  - id: five
    from: one
    edits:
      - repaint: {{start: 1, end: 3, caption: a single bell}}
      - extend: {{after: 2, caption: it fades away}}
  - {{id: six, from: four, edits: [{{cover: {{caption: string quartet, strength: 50%}}}}]}}
"""


def rendered(album: Path, *flags: str) -> dict[str, bytes]:
    """The audio files that a render of an album makes, by name."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*PROGRAM, str(album), "--output", folder, "--no-cache", "--quiet", *flags]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {path.name: path.read_bytes() for path in Path(folder).rglob("*.flac")}


def main() -> None:
    arguments = parser(__doc__).parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder, ray_nodes.cluster(NODES) as (address, _):
        os.environ["RAY_ADDRESS"] = address
        album = Path(folder) / "album.yaml"
        album.write_text(ALBUM.format(seconds=SECONDS))
        alone, by_ray = rendered(album), rendered(album, "--on", "ray")
    differ = sum(alone.get(name) != by_ray.get(name) for name in alone.keys() | by_ray.keys())
    table = [
        ["files by one process", "files by two Ray workers", "that differ", "aim"],
        [str(len(alone)), str(len(by_ray)), str(differ), "0"],
    ]
    publish(__file__, "Albums on Ray", table, NOTES.format(seconds=SECONDS, nodes=NODES), arguments.dry)


if __name__ == "__main__":
    main()
