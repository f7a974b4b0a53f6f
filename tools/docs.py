"""The tables of README.md and docs/ that the program or a benchmark decides, and the code that they show.

    python tools/docs.py

Rewrites the pages between their `<!-- table: NAME -->` and `<!-- end -->` lines; a test compares the two.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

from acestep_cli.audio import encode
from acestep_cli.cli import exit_codes
from acestep_cli.cli.app import COMMANDS, command_groups
from acestep_cli.machine.fallbacks import LADDER
from acestep_cli.machine.tiers import TIERS
from acestep_cli.models import checkpoint_table
from acestep_cli.models.checkpoint_table import CheckpointRow
from acestep_cli.song import modes, spec_keys

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(?<=^<!-- table: )(\w+)( -->\n).*?(?=^<!-- end -->)", re.MULTILINE | re.DOTALL)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("| --- ", "|---").replace("|--- |", "|---|")


def commands() -> str:
    rows = []
    for group, names in command_groups(COMMANDS).items():
        heads = [f"**{group}**"] + [""] * (len(names) - 1)
        rows += [(head, f"`acestep {name}`", COMMANDS[name]) for head, name in zip(heads, names, strict=True)]
    return table(("", "command", "does"), rows)


def keys() -> str:
    def flags(name: str) -> str:
        key = spec_keys.KEYS[name]
        if not key.flag:
            return "–" if name in ("extends", "mode") else f"`--set {name}=…`"
        return f"`{f'{key.short}/' if key.short else ''}{spec_keys.flag_of(name)}`"

    rows = []
    for name, key in spec_keys.KEYS.items():
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
    return "".join(f"{number}. {fallback.sentence}\n" for number, fallback in enumerate(LADDER, start=1))


def tiers() -> str:
    head = ("card", "longest song", "takes", "Songwriter")
    rows = [(f"{tier.memory_gb} GB", f"{tier.minutes} min", str(tier.takes), tier.songwriter or "none")
            for tier in TIERS]  # fmt: skip
    return table(head, rows)


def counted() -> str:
    """Of the counts of `benchmarks/source_memory.py`, those with turbo in bfloat16."""
    lines = (ROOT / "benchmarks" / "results" / "source_memory.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if " | turbo | " in line and " | bfloat16 | " in line]
    head = ("what", "source", "a pass, in latent frames", "passes a step", "diffusion, beside the weights")
    return table(head, [(*row[:2], *row[5:8]) for row in rows])


def modes_without(row: CheckpointRow) -> list[str]:
    """Return the modes that a checkpoint was not trained for."""
    return [name for name, mode in modes.MODES.items() if mode.task not in row.tasks]


def models() -> str:
    """Checkpoints that differ in nothing but their weights share a row."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, row in checkpoint_table.CHECKPOINTS.items():
        fetched = sum(part.size_gb for part in checkpoint_table.model_parts(name))
        size = f"{fetched:.1f} GB" if fetched else "built in"
        steps = f"{row.steps}, guidance {row.guidance:g}" if row.guidance > 1 else str(row.steps)
        tasks = "every mode" if row.tasks == checkpoint_table.BASE_TASKS else f"all but {', '.join(modes_without(row))}"
        alike.setdefault((size, steps, tasks, GOOD_FOR[name]), []).append(f"`{name}`")
    rows = [(" ".join(names), *row) for row, names in alike.items()]
    return table(("`--model`", "to fetch", "steps", "makes", "good for"), rows)


FAST, CLOSE, TRACKS = "fast", "follows the caption more closely", "the same, and hears tracks apart"
GOOD_FOR = {
    "turbo": f"{FAST}; the default",
    "turbo-shift1": f"{FAST}; trained on other schedules",
    "turbo-shift3": f"{FAST}; trained on other schedules",
    "turbo-continuous": f"{FAST}; trained on other schedules",
    "sft": CLOSE,
    "base": TRACKS,
    "xl-turbo": f"twice the size; {FAST}",
    "xl-sft": f"twice the size; {CLOSE}",
    "xl-base": f"twice the size; {TRACKS}",
    "pocket": "sketches",
}


def a_mode() -> str:
    return f"```python\n{inspect.getsource(modes.lego)}```\n"


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands,
    "keys": keys,
    "formats": format_table,
    "codes": codes,
    "ladder": ladder,
    "tiers": tiers,
    "counted": counted,
    "models": models,
    "a_mode": a_mode,
}


def rewritten(text: str) -> str:
    """A page with its tables as the program has them."""
    return BLOCK.sub(lambda found: f"{found[1]}{found[2]}\n{TABLES[found[1]]()}\n", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
