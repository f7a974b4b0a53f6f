"""The tables of README.md and docs/ that the program itself decides.

    python tools/docs.py

Rewrites the pages between their `<!-- table: NAME -->` and `<!-- end -->` lines; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from acestep_cli.audio import encode
from acestep_cli.cli import exit_codes
from acestep_cli.cli.app import COMMANDS
from acestep_cli.machine import plan
from acestep_cli.models import checkpoints
from acestep_cli.song import spec

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
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


def models() -> str:
    def row(name: str, row: checkpoints.CheckpointRow) -> tuple[str, ...]:
        pulled = sum(part.size_gb for part in checkpoints.model_parts(name))
        size = f"{pulled:.1f} GB" if pulled else "built in"
        guidance = f"guidance {row.guidance:g}" if row.guidance > 1 else "no guidance"
        tasks = "all modes" if row.tasks == checkpoints.BASE_TASKS else ", ".join(row.tasks)
        return f"`{name}`", size, f"{row.steps} steps, {guidance}", tasks, GOOD_FOR[name]

    head = ("`--model`", "to fetch", "unless set", "makes", "good for")
    return table(head, [row(*entry) for entry in checkpoints.CHECKPOINTS.items()])


GOOD_FOR = {
    "turbo": "the default",
    "turbo-shift1": "as turbo, trained on another schedule",
    "turbo-shift3": "as turbo, trained on another schedule",
    "turbo-continuous": "as turbo, trained on other schedules",
    "sft": "follows the caption more closely, slower",
    "base": "tracks (lego, extract, complete), slower",
    "xl-turbo": "as turbo, twice the size",
    "xl-sft": "as sft, twice the size",
    "xl-base": "as base, twice the size",
    "pocket": "sketches, before anything is fetched",
}


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "keys": keys,
    "formats": format_table,
    "codes": codes,
    "ladder": ladder,
    "tiers": tiers,
    "models": models,
}


def rewritten(text: str) -> str:
    """A page with its tables as the program has them."""
    return BLOCK.sub(lambda found: f"{found[1]}{found[2]}\n{TABLES[found[1]]()}\n", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
