"""The tables of the README that the program itself decides.

    python tools/readme.py

Rewrites README.md between its `<!-- table: NAME -->` and `<!-- end -->` lines; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from acestep_cli.audio import encode
from acestep_cli.cli import exit_codes
from acestep_cli.cli.app import COMMANDS
from acestep_cli.machine import plan
from acestep_cli.song import spec

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(?<=^<!-- table: )(\w+)( -->\n).*?(?=^<!-- end -->)", re.MULTILINE | re.DOTALL)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("| --- ", "|---").replace("|--- |", "|---|")


def commands() -> str:
    return table(("command", "does"), [(f"`acestep {name}`", line) for name, line in COMMANDS.items()])


def keys() -> str:
    def flags(name: str) -> str:
        key = spec.KEYS[name]
        if not key.flag:
            return "–" if name in ("extends", "mode") else f"`--set {name}=…`"
        return f"`{f'{key.short}/' if key.short else ''}{spec.flag_of(name)}`"

    rows = []
    for name, key in spec.KEYS.items():
        metavar = key.kind.metavar.replace("|", " \\| ")
        place = f"`{key.group}:` `{name}`" if key.group else f"`{name}`"
        rows.append((place, flags(name), metavar, key.help.replace("|", "\\|")))
    return table(("key", "flag", "takes", ""), rows)


def format_table() -> str:
    def row(name: str, row: encode.Format) -> tuple[str, ...]:
        settings = f"`bit_depth` {', '.join(row.bit_depths)}" if row.bit_depths else ""
        if row.bitrates:
            settings = f"`bitrate` {', '.join(f'{rate}k' for rate in row.bitrates)}"
        return f"`{name}`", settings, ", ".join(map(str, row.sample_rates)), row.program or ""

    head = ("format", "settings", "`sample_rate`", "needs")
    return table(head, [row(*entry) for entry in encode.FORMATS.items()])


def codes() -> str:
    return table(("exit code", "meaning"), [(str(code), meaning) for code, meaning in exit_codes.EXIT_CODES.items()])


def ladder() -> str:
    return "".join(f"{number}. {rung.sentence}\n" for number, rung in enumerate(plan.LADDER, start=1))


def tiers() -> str:
    head = ("card", "longest song", "takes", "Songwriter")
    rows = [(f"{tier.memory_gb} GB", f"{tier.minutes} min", str(tier.takes), tier.songwriter or "none")
            for tier in plan.TIERS]  # fmt: skip
    return table(head, rows)


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "keys": keys,
    "formats": format_table,
    "codes": codes,
    "ladder": ladder,
    "tiers": tiers,
}


def rewritten(text: str) -> str:
    """The README with its tables as the program has them."""
    return BLOCK.sub(lambda found: f"{found[1]}{found[2]}\n{TABLES[found[1]]()}\n", text)


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(encoding="utf-8")), encoding="utf-8")
