"""The pages of the documentation, taken apart: blocks, commands, headings, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.places import ROOT

README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
#: Whose links are checked, too.
LINKING = (*PAGES, ROOT / "pocket" / "README.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: The comment that says what a command cannot do without, or that it takes minutes; the words go on to the next comma,
#: semicolon or end.
NEEDS = re.compile(r"\s# (?:needs|takes) ([^,;]+)")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of its first character."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A line of an `sh` block, without its comment."""

    page: Path
    line: int
    text: str
    needs: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    text = text_of(page)
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 2) for found in FENCE.finditer(text)]


def commands(page: Path) -> list[Command]:
    """The lines of the page's `sh` blocks that call this program."""
    found = []
    for block in blocks(page):
        for number, line in enumerate(block.text.splitlines(), block.line):
            if block.language == "sh" and "acestep " in line:
                needs = NEEDS.search(line)
                text = re.sub(r"\s+# .*", "", line)
                found.append(Command(page, number, text, needs[1].strip() if needs else None))
    return found


def files(page: Path) -> dict[str, str]:
    """The files that a page spells out: blocks whose first line is `# NAME.yaml`, maybe below a folder."""
    named = ((re.match(r"# ([\w/-]+\.yaml)\n", block.text), block.text) for block in blocks(page))
    return {found[1]: text for found, text in named if found}


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", text_of(page))


def anchors(page: Path) -> set[str]:
    """What a link into the page may name: its headings as GitHub names them, and its own anchors."""
    names: set[str] = set(re.findall(r'<a id="([^"]+)">', text_of(page)))
    for heading in re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE):
        words = re.sub(r"<[^>]+>|[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        names.add(words if words not in names else f"{words}-1")
    return names


def links(page: Path) -> Iterator[str]:
    """The targets of the page's links within the repository."""
    for target in LINK.findall(prose(page)):
        if not re.match(r"\w+://|mailto:", target):
            yield target
