"""Remarks on section tags: misspelt, not closed, without words, or missing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from acestep_cli.song.lint import section_names
from acestep_cli.song.lint.linted_song import Line, LintedSong, Remark
from acestep_cli.song.lint.section_names import NAMED
from acestep_cli.song.values import quoted

#: Sections that need words, sections that are instrumental without words, and those that end the one before.
WORDED = ("Verse", "Pre-Chorus", "Chorus")
ENDING = (*WORDED, "Post-Chorus", "Bridge", "Outro")
#: Songs with fewer lines or seconds need no section tag.
TAGLESS_LINES, TAGLESS_SECONDS = 8, 60
#: `(x2)` and the like, at a line's end or for a line.
REPEAT = re.compile(
    r"[(（]\s*(?:[x×]\s?\d+|\d+\s?[x×]|\d+ times|repeat\w*[^()]{0,20})\s*[)）]$|^[x×]\s?\d+$|\s[x×]\d+$"
    r"|^repeat (?:the )?(?:verse|chorus|refrain|hook|bridge)\b[^a-z]*$",
    re.I,
)
#: The same in a tag.
TAG_REPEAT = re.compile(
    r"(?<![^\W\d])(?:[x×]\s?\d+|\d+\s?[x×]|\d+ times|twice|(?:repeat|wiederhol|répét|repetir)\w*)(?!\w)", re.I
)


def misspelt_tags(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        for tag in line.tags:
            if meant := section_names.correct_tag(tag):
                yield Remark("lyrics", line.number, f"{quoted(f'[{tag}]')} is not a section; did you mean [{meant}]?")


def open_brackets(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        opened, closed = line.text.count("["), line.text.count("]")
        if opened > closed:
            what, part, remedy = "is never closed", line.text.rpartition("[")[2], "close it, or leave it out"
        elif closed > opened:
            what, part, remedy = "was never opened", line.text.partition("]")[0], "open it, or leave it out"
        elif re.search(r"\[\s*\[[^\[\]]+\]\s*\]", line.text):
            what, part, remedy = "is there twice", line.text, "write one"
        elif re.fullmatch(r"\][^\[\]]+\[", line.text):
            what, part, remedy = "is turned round", line.text, "write [ in front and ] behind"
        elif re.search(r"\[[\s.-]*\]", line.text):
            yield Remark(
                "lyrics", line.number, "the brackets are empty; name a section, such as [Verse], or remove them"
            )
            continue
        else:
            continue
        whole = re.fullmatch(r"[\s\[\](){}<>]*([^\[\](){}<>]+?)[\s\[\](){}<>]*", line.text)
        meant = section_names.correct_name(whole[1] if whole else part.strip("(){}<> "))
        if not meant and whole and opened and closed:
            meant = whole[1]  # somebody's own tag
        advice = f"write [{meant}]" if meant else remedy
        yield Remark("lyrics", line.number, f"the bracket in {quoted(line.text)} {what}; {advice}")


def tags_among_words(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        for tag in re.finditer(r"\[([^\[\]]+)\]", line.text):
            before, after = line.text[: tag.start()], line.text[tag.end() :]
            is_inside = re.search(r"\w", re.sub(r"\[[^\[\]]*\]?", " ", before)) or re.match(r"\w", after)
            if is_inside and section_names.section_of(tag[1]):
                yield Remark(
                    "lyrics",
                    line.number,
                    f"{tag[0]} stands among the words in {quoted(line.text)}; give it a line of its own above them",
                )
                break


def unmarked_sections(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        if name := section_names.tag_for_line(line.text):
            yield Remark(
                "lyrics", line.number, f"{quoted(line.text)} may be sung as words; a section is marked as [{name}]"
            )


def untagged(song: LintedSong) -> Iterator[Remark]:
    marked = any(line.tags or section_names.tag_for_line(line.text) for line in song.lines)
    if not marked and len(song.sung) >= TAGLESS_LINES and song.seconds >= TAGLESS_SECONDS:
        yield Remark(
            "lyrics",
            None,
            f"{len(song.sung)} lines have no section tag, so a model has to guess where the chorus is; "
            "write [Verse], [Chorus] and such on lines of their own",
        )


def wordless_sections(song: LintedSong) -> Iterator[Remark]:
    for place, line in enumerate(song.lines):
        is_plain = (
            line.section in WORDED
            and not TAG_REPEAT.search(line.tags[0])
            and not re.search(r"\s[-–—]|[:：|,(]", line.tags[0])
        )
        if is_plain and song.sung and not line.words and is_silent(song.lines[place + 1 :]):
            yield Remark(
                "lyrics",
                line.number,
                f"{quoted(line.text)} has no words below it, and its name alone repeats no earlier words; "
                "write the words out again, or tag it [Instrumental]",
            )


def is_silent(lines: tuple[Line, ...]) -> bool:
    """Return True where the section that `lines` follow ends before any words."""
    for line in lines:
        if line.section in ENDING:
            return True
        if line.words:
            return False
    return True


def repeats(song: LintedSong) -> Iterator[Remark]:
    for line in song.lines:
        if any(TAG_REPEAT.search(tag) for tag in line.tags):
            yield Remark(
                "lyrics",
                line.number,
                f"{quoted(line.text)} is sung once, because a tag repeats nothing; write the words out as often as "
                "they are to be heard",
            )
        if not line.tags and REPEAT.search(line.text):
            yield Remark(
                "lyrics",
                line.number,
                f"{quoted(line.text)} does not repeat anything and may be sung; write the words out",
            )


def instrumental_tag(song: LintedSong) -> Iterator[Remark]:
    tags = [
        line for line in song.lines if line.tags and NAMED.get(section_names.tag_name(line.tags[0])) == "Instrumental"
    ]
    if not song.sung:
        if tags and song.request.instrumental is False:
            yield Remark(
                "instrumental",
                None,
                "is false, but the lyrics are [Instrumental] without words; write words, or `true`",
            )
        return
    for line in tags:
        after = next((later for later in song.lines if later.number > line.number), None)
        if line is song.lines[0]:
            yield Remark(
                "lyrics",
                line.number,
                "[Instrumental] in front says that nothing is sung, but words follow; write [Intro] for an opening "
                "without voice",
            )
        elif after and after.words and not after.tags:
            yield Remark(
                "lyrics",
                after.number,
                "words stand below [Instrumental], which says that nobody sings; give them a tag such as [Verse]",
            )
