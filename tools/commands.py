"""The lines of `acestep --help` for the modes, as their rows have them.

    python tools/commands.py

Rewrites the table in src/acestep_cli/cli/app.py between its `# modes` and `# end` lines, so that `--help` and
completion answer without loading a row; a test compares the two.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from acestep_cli.cli import app
from acestep_cli.song import modes

FILE = Path(app.__file__)
BLOCK = re.compile(r"(?<=^    # modes\n).*?(?=^    # end\n)", re.MULTILINE | re.DOTALL)


def rewritten(text: str) -> str:
    """The module with a line for each row of `modes.MODES`."""
    lines = "".join(f"    {json.dumps(name)}: {json.dumps(row.summary)},\n" for name, row in modes.MODES.items())
    return BLOCK.sub(lambda _found: lines, text)


if __name__ == "__main__":
    FILE.write_text(rewritten(FILE.read_text(encoding="utf-8")), encoding="utf-8")
