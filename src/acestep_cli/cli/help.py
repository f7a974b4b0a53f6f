"""`acestep help`: a page of the docs in the terminal, or the section of one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from acestep_cli.cli import help_flags, help_format, options
from acestep_cli.cli.console import print_result
from acestep_cli.errors import UsageError

PACKAGE = Path(str(resources.files("acestep_cli")))
# In a wheel the pages lie in the package; in a checkout, beside `src/`.
FOLDERS = (PACKAGE / "docs", PACKAGE.parent.parent / "docs")
#: Pages for those who build the program; their headings are looked through after those of all others.
LATER = ("architecture", "contributing", "specification")
HEADING = re.compile(r"^(#+) +(.+?) *#*$")
FENCE = re.compile(r"^ *(```|~~~)")
#: HTML that is for the web page alone: comments, and anchors of headings.
HTML = re.compile(r"^<!--.*?-->\n?|</?a\b[^>]*>", re.MULTILINE | re.DOTALL)

app = help_format.App()


def _order(file: Path) -> tuple[bool, str]:
    return file.stem in LATER, file.stem


def pages() -> dict[str, str]:
    """Return the pages of the docs by name."""
    folder = next(folder for folder in FOLDERS if folder.is_dir())
    return {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.md"), key=_order)}


def sections(page: str) -> Iterator[tuple[str, str]]:
    """Yield each heading of a page with its section, which ends at the next heading of its level or above."""
    lines = page.splitlines()
    found: list[tuple[int, int, str]] = []
    in_code = False
    for number, line in enumerate(lines):
        in_code ^= bool(FENCE.match(line))
        if not in_code and (heading := HEADING.match(line)):
            found.append((number, len(heading[1]), HTML.sub("", heading[2]).replace("`", "")))
    for place, (first, level, title) in enumerate(found):
        end = next((number for number, other, _ in found[place + 1 :] if other <= level), len(lines))
        yield title, "\n".join(lines[first:end])


def find_page(topic: str) -> str | None:
    """Return the page of that name, else the section with that heading."""
    docs = pages()
    if page := {plain(name): page for name, page in docs.items()}.get(plain(topic)):
        return page
    return next((text for title, text in chain(*map(sections, docs.values())) if plain(title) == plain(topic)), None)


def find_section(topic: str) -> str | None:
    """Return the first section with the words of `topic` in its heading."""
    words = re.compile(rf"\b{re.escape(plain(topic))}\b")
    return next((text for title, text in chain(*map(sections, pages().values())) if words.search(plain(title))), None)


def find_mention(topic: str) -> str | None:
    """Return the section that has the words of `topic` most often; pages for those who build come after all others."""
    words = re.compile(rf"\b{re.escape(plain(topic).removesuffix('s'))}s?\b")
    best: tuple[bool, int, str] = (False, 0, "")
    for name, page in pages().items():
        for _, text in sections(page):
            own = re.split(r"\n(?=#{1,6} )", text, maxsplit=1)[0]
            found = len(words.findall(plain(own)))
            best = max(best, (name not in LATER and found > 0, found, text), key=lambda one: one[:2])
    return best[2] or None


def plain(words: str) -> str:
    """Return words as they are compared: in small letters, with single spaces, a hyphen the same as a space."""
    return " ".join(words.lower().replace("-", " ").split())


def topics() -> dict[str, str]:
    """Return the names of the pages with their titles."""
    return {name: next((title for title, _ in sections(page)), name) for name, page in pages().items()}


def refuse_topic(topic: str) -> UsageError:
    """Return the error for a topic that no page has."""
    from acestep_cli.song.values import suggestion

    known = topics()
    return UsageError(
        f"No page or heading of the docs is about {topic!r}{suggestion(topic, known) or '.'}",
        f"Pages: {', '.join(known)}.",
    )


def print_page(text: str) -> None:
    """Print Markdown: laid out on a terminal, and as it is written elsewhere."""
    text = HTML.sub("", text)
    if sys.stdout is None or not sys.stdout.isatty():
        print_result(text.strip() + "\n")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(file=sys.stdout)
    with console.capture() as captured:
        console.print(Markdown(text, hyperlinks=False))
    print_result(captured.get(), styled=True)


Topic = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TOPIC",
        help="A page, words of a heading, a command, a flag or key, or any word: specs, lyrics, languages, exit codes, "
        "--seed, bpm … Unset: the list of pages.",
        show_default=False,
        autocompletion=lambda incomplete: options.complete_from(pages())(incomplete),
    ),
]


@app.command(
    help="Show a page of the docs in the terminal, or a section of one.\n\n"
    "acestep help specs\n\nacestep help exit codes\n\nacestep help --seed",
    context_settings={"ignore_unknown_options": True},  # a topic may be a flag
)
def show_help(ctx: typer.Context, topic: Topic = None) -> None:
    if not topic:
        known = topics()
        width = max(map(len, known))
        print_result("".join(f"{name.ljust(width)}  {title}\n" for name, title in known.items()))
        return
    asked = " ".join(topic)
    if text := find_page(asked):
        print_page(text)
    elif text := command_page(ctx, asked) or help_flags.flag_page(asked):
        print_result(text + "\n", styled=True)
    elif text := find_section(asked) or find_mention(asked):
        print_page(text)
    else:
        raise refuse_topic(asked)


def command_page(ctx: typer.Context, name: str) -> str | None:
    """Return the help of a command, if `name` is one."""
    from acestep_cli.cli.app import COMMANDS, loaded

    if name not in COMMANDS:
        return None
    command = typer.main.get_command(loaded(name))
    return command.get_help(type(ctx)(command, info_name=name, parent=ctx.parent))
