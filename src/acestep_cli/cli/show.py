"""`acestep show`: the waveform, the sections and the recipe of an audio file in the terminal; of several, a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acestep_cli.audio import decode, loudness, measure, plots
from acestep_cli.cli import console, help_format, listen, options, take_table
from acestep_cli.cli.console import Console
from acestep_cli.errors import shell_word
from acestep_cli.render import compare
from acestep_cli.render.compare import ComparedTake
from acestep_cli.render.take_file import TakeFile

if TYPE_CHECKING:
    from acestep_cli.audio.sound import Audio
    from acestep_cli.song.sections import Section

app = help_format.App()

#: Lines of the waveform. A sign of Braille has two by four dots: these are those of its columns, from the top.
LINES = 6
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BLANK = 0x2800
#: Signs between two times on the scale.
EVERY = 16

Files = Annotated[
    list[Path],
    typer.Argument(metavar="AUDIO", readable=False, help="Audio files, up to an hour long each, or a folder of them."),
]


@app.command(
    help="Show a take in the terminal: its waveform with the sections of the song, and how it was made. Several takes "
    "are compared: level, brightness, tempo and key, how far each is from the first, and what their specs differ in."
    "\n\nacestep show out/night-drive.flac\n\nacestep show takes/*.flac"
)
def show(ctx: typer.Context, files: Files, json_wanted: options.Json = False, debug: options.Debug = False) -> None:
    terminal, run_report = console.begin(ctx, wants_json=json_wanted)
    found = listen.expand_takes(files)
    if len(found) > 1 or json_wanted:
        with terminal.results() as stdout, terminal.progress() as report:
            analyser = console.analyser(terminal, report) if measure.has_analyser() else None
            takes = compare.compare_takes(found, terminal.warn, partial(report, "compare"), analyser)
            run_report.more["shown"] = {
                "takes": [take.report() for take in takes],
                "differ": compare.differing_keys(takes),
            }
            for line in take_table.comparison(takes, console.screen_width()):
                stdout.path(line)
        give_hints(takes, terminal)
        return
    take = TakeFile.read(found[0], terminal.warn)
    width = console.card_width()
    picture = [*section_line(take.sections, take.sound.seconds, width), *draw_waveform(take.sound, width),
               time_line(take.sound.seconds, width)]  # fmt: skip
    console.print_card(take.title, picture, take.facts(), take.request.lyrics)


def give_hints(takes: Sequence[ComparedTake], terminal: Console) -> None:
    """Say how tempo and key are had, and how to hear the takes."""
    if not measure.has_analyser():
        terminal.hint(f"For tempo and key: {measure.INSTALL}")
    folders = {take.path.parent for take in takes}
    if len(folders) == 1 and len(takes) > 1:
        terminal.hint(f"Hear them side by side: acestep listen {shell_word(folders.pop())} --open")


def draw_waveform(sound: Audio, width: int) -> list[str]:
    """Return the waveform in Braille, `width` characters wide; its highest peak fills the height."""
    outline = plots.outline(sound, 2 * width)
    half = 2 * LINES
    extent = max(float(abs(outline).max()), loudness.SILENCE)
    low, high = (outline / extent * half).round().astype(int)
    signs = [[BLANK] * width for _ in range(LINES)]
    for column in range(2 * width):
        # Row 0 is the top; silence is the line below the middle.
        for row in range(half - int(high[column]), half - min(int(low[column]), -1)):
            signs[row // 4][column // 2] |= DOTS[column % 2][row % 4]
    return ["".join(map(chr, line)) for line in signs]


def section_line(sections: list[Section], seconds: float, width: int) -> Iterator[str]:
    """Yield a line with the names of sections, each above its start; a name without room is cut."""
    if not sections:
        return
    starts = [round(section.seconds / seconds * width) for section in sections]
    line = " " * starts[0]
    for section, start, end in zip(sections, starts, [*starts[1:], width], strict=True):
        name = f"▏{section.name if section.sure else f'~{section.name}'}"
        line += name[: end - start].ljust(end - start)
    yield line


def time_line(seconds: float, width: int) -> str:
    """Return a line with times."""
    marks = (decode.format_time(seconds * at / width) for at in range(0, width - EVERY // 2, EVERY))
    return "".join(mark.ljust(EVERY) for mark in marks)
