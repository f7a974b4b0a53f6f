"""The picture in the README: a terminal in which a song is rendered and shown.

    python tools/terminal.py

Renders songs/night-drive.yaml with the built-in model in an empty folder, and writes what the commands print, with
their colours, to docs/terminal.svg.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "terminal.svg"
COLUMNS = 96
COMMANDS = (
    "acestep generate songs/night-drive.yaml --model pocket -o night-drive.flac",
    "acestep show night-drive.flac | head -n 18",
)
#: Rich names fonts on other servers, which a picture in a page may not load.
FONT_FACE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def output(command: str, folder: Path) -> str:
    """What a command prints, stderr first."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "PWD": str(folder)}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    run = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    return run.stderr + run.stdout


def picture() -> str:
    """The terminal as SVG."""
    console = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "songs").symlink_to(ROOT / "songs")
        for command in COMMANDS:
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            console.print(Text.from_ansi(output(command, folder)))
    drawn = FONT_FACE.sub("", console.export_svg(title="acestep", unique_id="acestep"))
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
