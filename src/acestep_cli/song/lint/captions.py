"""Remarks on a caption: missing parts, contradictions to other keys, and text that is not a caption."""

from __future__ import annotations

import re
from collections.abc import Iterator

from acestep_cli.song.lint import scripts, section_names, syllables
from acestep_cli.song.lint.linted_song import CONTROL, LintedSong, Remark
from acestep_cli.song.musical_values import TIME_SIGNATURES, MusicalKey
from acestep_cli.song.values import quoted

#: The documented limit of the published models.
CAPTION_CHARACTERS = 512
CAPTION_LINES = 6
#: Words that say nothing about the style of a song.
SAYING_LITTLE = (
    "a an and the some something any my me make for with very really so please of it is to in this that song songs "
    "music track tune piece sound sounds good nice great cool best beautiful amazing awesome catchy original new hit "
    "professional quality high one lied musik chanson musique canción música"
)
VAGUE = frozenset(SAYING_LITTLE.split())
BPM = re.compile(r"\b(\d{2,3})(?:\s*(?:-|–|to)\s*(\d{2,3}))?[\s-]*(?:bpm\b|beats per minute)", re.I)
KEY = re.compile(r"(?<![\w#])([A-G])(#|♯|♭|b|[ -](?i:sharp|flat))?[ -]((?i:major|minor|maj|min))\b(?![ -]key)")
VOICELESS = re.compile(
    r"^\s*instrumental\b(?!\s+(?:break|solo|intro|outro|interlude|bridge|section|hook|passage|part|build))"
    r"|[,.;]\s*instrumental\s*(?=[,.;]|$)|\b(?:purely|fully|entirely|completely)[ -]instrumental\b"
    r"|\binstrumental (?:music|track|piece|only|version)\b"
    r"|\b(?:no|without(?: any)?) (?:vocals?|voices?|lyrics)\b(?! (?:in|until|till|at|on|for|during|before)\b)"
    r"|纯音乐|純音樂",
    re.I,
)
VOICED = re.compile(r"\b(?:vocals?|vocalists?|singers?|rappers?)\b", re.I)
WORDLESS = re.compile(
    r"\b(?:no|without|wordless|choir|choral|chop\w*|sampl\w*|humm\w*|scat\w*|chant\w*|oohs?|a+hs?|instrumental|textures?|"
    r"pads?|cuts?)\b",
    re.I,
)


def check_length(song: LintedSong) -> Iterator[Remark]:
    caption = song.caption
    if not caption:
        if song.sung and song.request.from_caption is None:  # an edit keeps that of its source
            yield Remark(
                "caption", None, "is missing, so the style is left to chance; say genre, instruments and voice"
            )
    elif len(telling := telling_words(caption)) <= 1 and syllables.count_syllables(" ".join(telling), "en") <= 4:
        yield Remark("caption", None, f"{quoted(caption)} leaves nearly all to chance; add instruments, mood and voice")
    elif is_over(caption, CAPTION_CHARACTERS):
        yield Remark(
            "caption",
            None,
            f"is {len(song.request.caption or '')} characters long, and the published models are made for "
            f"{CAPTION_CHARACTERS} (half as many Chinese ones) and read 256 tokens, so its end may be cut; shorten it",
        )


def check_controls(song: LintedSong) -> Iterator[Remark]:
    if found := CONTROL.search(song.caption):
        yield Remark(
            "caption", None, f"holds a control character (U+{ord(found[0]):04X}), which is not text; remove it"
        )


def telling_words(caption: str) -> list[str]:
    """Return the words of a caption that describe the music."""
    return [word for word in re.findall(r"\w+", caption.casefold()) if word not in VAGUE]


def is_over(text: str, characters: int) -> bool:
    """Return True where `text` is longer than `characters`, or than half of that in three-byte characters."""
    return len(text) > characters or len(text.encode()) > 2 * characters


def check_bpm(song: LintedSong) -> Iterator[Remark]:
    bpm = song.request.bpm
    said = [(int(low), int(high or low)) for low, high in BPM.findall(song.caption)]
    if bpm is None or not said:
        return
    if not any(low - 2 <= tempo <= high + 2 for low, high in said for tempo in (bpm, 2 * bpm, bpm / 2)):
        yield Remark("caption", None, f"says {said[0][0]} bpm, but bpm is {bpm}; leave the tempo to bpm")


def check_key(song: LintedSong) -> Iterator[Remark]:
    key = song.request.key
    said = keys_in_caption(song.caption)
    if key and said and MusicalKey.pitch(key) not in map(MusicalKey.pitch, said):
        yield Remark("caption", None, f"says {said[0]}, but key is {key}; leave it to key")
        return
    mode = re.search(r"\b(major|minor)[ -]key\b", song.caption, re.IGNORECASE)
    if key and mode and not said and mode[1].casefold() not in key:
        yield Remark("caption", None, f"says {mode[0]!r}, but key is {key}; leave it to key")


def keys_in_caption(caption: str) -> list[str]:
    """Return the musical keys in a caption, such as `in D major` or `F# minor`, but not `a major hit`."""
    found = []
    for said in KEY.finditer(caption):
        before, after = caption[max(0, said.start() - 9) : said.start()], caption[said.end() : said.end() + 9]
        is_article = said[1] == "A" and not said[2] and not re.search(r"(?:\bin|\bof|key:?)\s+$", before, re.IGNORECASE)
        if not is_article or re.match(r"\s*(?:$|[,.;)])", after):
            sign = {"": "", "#": "#", "♯": "#", "s": "#"}.get((said[2] or "").strip(" -")[:1].casefold(), "b")
            found.append(f"{said[1]}{sign} {'minor' if said[3].casefold().startswith('min') else 'major'}")
    return found


def check_meter(song: LintedSong) -> Iterator[Remark]:
    meter = song.request.time_signature
    said = [name for name in re.findall(r"(?<![\d/])\d/\d(?![\d/])", song.caption) if name in TIME_SIGNATURES]
    waltz = re.search(r"\b(?:waltz|walzer|valse|vals|valzer)\b", song.caption, re.IGNORECASE)
    if meter is None or meter in said:
        return
    if said:
        yield Remark("caption", None, f"says {said[0]}, but time_signature is {meter}; leave it to time_signature")
    elif waltz and meter not in ("3/4", "6/8"):
        yield Remark("caption", None, f"says {waltz[0]!r}, but time_signature is {meter}; a waltz is in 3/4")


def check_voice(song: LintedSong) -> Iterator[Remark]:
    if song.sung and (found := VOICELESS.search(song.caption)):
        yield Remark(
            "caption", None, f"says {found[0].strip(' ,.;')!r}, but there are words to sing; leave out one or the other"
        )
    elif scripts.sings_nothing(song) and (found := VOICED.search(song.caption)) and not WORDLESS.search(song.caption):
        yield Remark(
            "caption",
            None,
            f"says {found[0]!r}, but nothing is sung; write lyrics, or leave the voice out of the caption",
        )


def check_lyrics(song: LintedSong) -> Iterator[Remark]:
    lines = song.caption.strip().splitlines()
    tagged = [
        place
        for place, line in enumerate(lines, 1)
        if any(map(section_names.section_of, re.findall(r"\[([^\[\]]+)\]", line)))
    ]
    if tagged or len(lines) >= CAPTION_LINES:
        yield Remark(
            "caption",
            tagged[0] if tagged else None,
            "looks like lyrics, which are not sung from here; words and section tags go to lyrics",
        )
