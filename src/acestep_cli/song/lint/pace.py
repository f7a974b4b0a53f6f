"""Remarks on words against time: too many, too few, and lines that are too long."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from acestep_cli.song.lint import linted_song, syllables
from acestep_cli.song.lint.linted_song import EASY_RAPPED, EASY_SUNG, PLAYED, LintedSong, Remark
from acestep_cli.song.musical_values import LONGEST_SECONDS

#: Syllables a second over the whole song; with fewer, it is mostly instrumental.
SPARSEST = 0.1
#: A line fills two bars: sixteen eighths, and four more for an upbeat and for counting wrong; rap goes in sixteenths.
LONGEST_SUNG, LONGEST_RAPPED = 20, 32


def hurried(song: LintedSong) -> Iterator[Remark]:
    if song.sung_syllables <= song.most_syllables:
        return
    rate, fastest = (number / song.singing_seconds for number in (song.sung_syllables, song.most_syllables))
    ease = song.paced(EASY_RAPPED if song.is_rapped else EASY_SUNG)
    suits = 5 * math.ceil((song.sung_syllables / ease + song.played_seconds) / 5)
    advice = f"write duration: {suits // 60}:{suits % 60:02}, or fewer lines"
    if suits > LONGEST_SECONDS:
        advice = f"even {LONGEST_SECONDS} s are too short for them, so make two songs of it"
    yield Remark(
        "lyrics",
        None,
        f"{song.sung_syllables} {song.unit} in {song.seconds:g} s are {rate:.1f} a second where it is sung, and over "
        f"{fastest:g} can hardly be sung; {advice}",
    )


def sparse(song: LintedSong) -> Iterator[Remark]:
    plays = sum(line.section in PLAYED for line in song.lines)
    if song.sung and not plays and song.seconds >= 90 and song.sung_syllables < SPARSEST * song.seconds:
        yield Remark(
            "lyrics",
            None,
            f"{song.sung_syllables} {song.unit} are little for {song.seconds:g} s, and what fills the rest is left to "
            "chance; write more lines, sections to play such as [Interlude], or a shorter duration",
        )


def long_lines(song: LintedSong) -> Iterator[Remark]:
    most = round(song.paced(LONGEST_RAPPED if song.is_rapped else LONGEST_SUNG))
    counted = [
        (line, syllables.count_syllables(without_echoes(line.words), song.language, bound=most)) for line in song.sung
    ]
    long = [(line, number) for line, number in counted if number > most]
    if long:
        yield linted_song.at_first(
            [line for line, _ in long],
            f"{long[0][1]} {song.unit} are more than two bars hold with ease (about {most}); break the line in two",
        )


def without_echoes(words: str) -> str:
    """Return `words` without (echoes), which another voice sings over them."""
    return re.sub(r"[(（][^()（）]*[)）]", " ", words)
