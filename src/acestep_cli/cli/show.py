"""`acestep show`: the waveform, the sections and the recipe of an audio file in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acestep_cli.audio import decode, loudness, plots
from acestep_cli.cli import console, help_format, options
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

File = Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="An audio file, up to an hour long.")]


@app.command(
    help="Show a take in the terminal: its waveform with the sections of the song, and how it was made.\n\n"
    "acestep show out/night-drive.flac"
)
def show(file: File, debug: options.Debug = False) -> None:
    take = TakeFile.read(file, console.Console().warn)
    width = console.card_width()
    picture = [*section_line(take.sections, take.sound.seconds, width), *draw_waveform(take.sound, width),
               time_line(take.sound.seconds, width)]  # fmt: skip
    console.print_card(take.title, picture, take.facts(), take.request.lyrics)


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
