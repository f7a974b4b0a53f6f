"""The scripts that make a shell complete `acestep`, as the program prints them for each.

    python tools/completions.py

Rewrites completions/; a test compares the two.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "completions"
#: Each shell with the name it looks for.
FILES = {"bash": "acestep.bash", "zsh": "_acestep", "fish": "acestep.fish", "powershell": "acestep.ps1"}


def script(shell: str) -> str:
    """What `acestep --show-completion` prints when it is asked from `shell`."""
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # Typer's way to name it rather than to ask from it
    command = [sys.executable, "-m", "acestep_cli", "--show-completion", shell]
    run = subprocess.run(command, env=os.environ | named, capture_output=True, text=True, check=True)
    return run.stdout.strip() + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for shell, name in FILES.items():
        (FOLDER / name).write_text(script(shell), encoding="utf-8", newline="\n")
