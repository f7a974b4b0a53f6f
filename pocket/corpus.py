"""The training songs: drawn from a seed, with the prompt that describes each, and the rule that lays out sections.

`song(seed)` draws a song: style, tempo, key, time signature, length, sections, instruments, caption, lyrics and the
idea a user might have had. It is a pure function of the seed; `band.play` makes it sound. What a prompt can rely on:

* beat one is at t = 0, the tempo is constant, and a bar is as long as the nearest turn of a hand of the clock
  (`CYCLES`, at most 2.9 % from the tempo that is asked for);
* the chord changes at each bar line with its root in the bass, and a progression is four bars long, counted from the
  start of the song; progression and melody belong to the style in two variants, of which the mood is one or the other,
  so that a prompt says most of a song;
* progressions start on the tonic, and minor keys use the major dominant, so a key is not its relative;
* `layout` alone decides from lyrics and bars where sections lie, and `SECTIONS` how each sounds;
* lyric lines are sung, syllable by syllable; without lines an instrument leads;
* what a caption says is left out (`no drums`) is silent; the last, incomplete bar is a held tonic chord that fades.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from sounds import FRAME, SAMPLE_RATE, TIMBRES

HELD_OUT = 1_000_000  # seeds from here on are never trained on
FRAMES_PER_SECOND = SAMPLE_RATE / FRAME
# Latent frames in which a hand of the clock turns once: twelve over an octave. A bar is the nearest of them, or its
# half or quarter, so that any tempo is within a twenty-fourth of an octave of one.
CYCLES = tuple(100 * 2 ** (-k / 12) for k in range(12))

NOTE_NAMES = {0: ["C"], 1: ["C#", "Db"], 2: ["D"], 3: ["D#", "Eb"], 4: ["E"], 5: ["F"], 6: ["F#", "Gb"], 7: ["G"],
              8: ["G#", "Ab"], 9: ["A"], 10: ["A#", "Bb"], 11: ["B"]}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """What a section tag does to the arrangement; gains are linear, 0 is silent."""

    weight: int  # its share of the song, against the other sections
    drums: str  # none, light (pulse and ticks), full, or big (full, with a crash on the first beat)
    bass: float
    chords: float
    lead: float
    octave: int = 0  # of the lead
    sung: bool = False  # has lines, where a song has words


SECTIONS = {
    "Intro": Section(1, "light", 0.0, 0.7, 0.0),
    "Verse": Section(2, "full", 0.9, 0.7, 0.8, sung=True),
    "Pre-Chorus": Section(1, "light", 1.0, 0.9, 0.8, sung=True),
    "Chorus": Section(2, "big", 1.2, 1.2, 1.1, 1, sung=True),
    "Bridge": Section(2, "light", 0.8, 1.1, 0.7, sung=True),
    "Solo": Section(2, "full", 1.0, 0.7, 1.1, 1),
    "Instrumental": Section(2, "full", 1.0, 0.9, 0.9),
    "Drop": Section(2, "big", 1.3, 1.1, 0.9, 1),
    "Break": Section(1, "full", 0.0, 0.0, 0.0),
    "Outro": Section(1, "none", 0.6, 0.6, 0.0),
}
FORMS = (
    ("Verse", "Chorus"),
    ("Intro", "Verse", "Chorus"),
    ("Intro", "Verse", "Chorus", "Outro"),
    ("Intro", "Verse", "Chorus", "Verse", "Chorus"),
    ("Intro", "Verse", "Pre-Chorus", "Chorus", "Outro"),
    ("Intro", "Verse", "Chorus", "Bridge", "Chorus", "Outro"),
    ("Verse", "Chorus", "Solo", "Chorus"),
    ("Verse", "Bridge", "Chorus"),
    ("Intro", "Verse", "Chorus", "Instrumental", "Chorus", "Outro"),
    ("Intro", "Drop", "Break", "Drop"),
    ("Chorus", "Verse", "Chorus"),
)


@dataclass(frozen=True)
class Part:
    """A section as it lies in a song."""

    tag: str
    bars: int
    lines: tuple[str, ...] = ()


def layout(lyrics: str, bars: int) -> tuple[Part, ...]:
    """Where the sections of `lyrics` lie in a song of so many bars: the rule, for whoever draws, plays or judges.

    Each section gets bars by its weight, in pairs where there are two for each; what does not go up falls to the last.
    Sections for which no bar is left are not played.
    """
    blocks = re.findall(r"^\[([^\]\n]+)\]\n?((?:(?!\[).*(?:\n|$))*)", lyrics, re.MULTILINE) or [("Verse", lyrics)]
    named = [(tag if tag in SECTIONS else "Verse", tuple(text.split("\n"))) for tag, text in blocks][: max(1, bars)]
    unit = 2 if bars >= 2 * len(named) else 1
    units = bars // unit
    weights = np.array([SECTIONS[tag].weight for tag, _ in named], float)
    shares = weights / weights.sum() * (units - len(named))
    lengths = 1 + np.floor(shares).astype(int)
    for place in np.argsort(np.floor(shares) - shares, kind="stable")[: units - lengths.sum()]:
        lengths[place] += 1
    lengths *= unit
    lengths[-1] += bars - lengths.sum()
    return tuple(
        Part(tag, int(n), tuple(line for line in lines if line.strip()))
        for (tag, lines), n in zip(named, lengths, strict=True)
    )


def bar_frames(bpm: int, pulses: int) -> float:
    """Latent frames in a bar as played: the nearest turn of the clock to `pulses` at `bpm`."""
    asked = pulses * 60 / bpm * FRAMES_PER_SECOND
    turns = [cycle / 2**halvings for cycle in CYCLES for halvings in range(-1, 4)]
    return min(turns, key=lambda turn: abs(math.log(turn / asked)))


@dataclass(frozen=True)
class Style:
    """One genre: its tempo range, meters, parts, and the words captions use for it."""

    names: tuple[str, ...]
    tempo: tuple[int, int]
    meters: tuple[str, ...]
    kit: str
    bass: str
    bass_pattern: str
    chords: str
    chord_pattern: str
    lead: str
    moods: tuple[str, ...]
    drum_words: tuple[str, ...]


STYLES = {
    "lofi": Style(("lo-fi hip hop", "lofi", "lo-fi beats", "chillhop"), (68, 96), ("4",), "lofi", "sub bass", "long",
        "rhodes", "hold", "vibraphone", ("warm", "dusty", "mellow", "relaxed", "sleepy"),
        ("dusty drums", "a lazy swung beat", "boom bap drums")),
    "house": Style(("house", "deep house", "dance music", "club track"), (116, 130), ("4",), "house", "synth bass",
        "offbeat", "synth stabs", "offbeat", "pluck synth", ("driving", "uplifting", "groovy", "euphoric",
        "late night"), ("a four on the floor kick", "claps and open hats", "a four-to-the-floor beat")),
    "rock": Style(("rock", "indie rock", "alternative rock", "garage rock"), (100, 160), ("4",), "rock",
        "electric bass", "eighths", "distorted guitar", "eighths", "lead guitar",
        ("energetic", "raw", "loud", "anthemic", "driving"), ("live drums", "a hard backbeat", "pounding drums")),
    "folk": Style(("folk", "acoustic folk", "singer-songwriter", "country folk"), (76, 132), ("4", "3", "6"), "folk",
        "upright bass", "root-fifth", "acoustic guitar", "strum", "fiddle",
        ("gentle", "heartfelt", "rustic", "sunny", "wistful"),
        ("soft percussion", "a foot stomp and shaker", "brushed drums")),
    "jazz": Style(("jazz", "swing jazz", "cool jazz", "jazz combo"), (96, 180), ("4", "3"), "jazz", "upright bass",
        "walking", "piano", "comp", "saxophone", ("smoky", "smooth", "swinging", "late night", "sophisticated"),
        ("a ride cymbal", "a swinging ride", "brushes and ride")),
    "synthwave": Style(("synthwave", "retrowave", "80s synth pop", "outrun"), (80, 122), ("4",), "synthwave",
        "synth bass", "octaves", "synth pad", "hold", "saw lead",
        ("nostalgic", "neon", "dreamy", "cinematic", "nocturnal"),
        ("gated drums", "a retro drum machine", "a big gated snare")),
    "hip-hop": Style(("hip-hop", "trap", "rap beat", "boom bap hip hop"), (70, 100), ("4",), "hip-hop", "808 bass",
        "syncopated", "brass section", "stabs", "pluck synth", ("hard", "confident", "street", "bold", "heavy"),
        ("808 drums", "rolling hats and claps", "a trap beat")),
    "reggae": Style(("reggae", "roots reggae", "dub reggae", "island reggae"), (66, 96), ("4",), "reggae",
        "electric bass", "root-fifth", "clean guitar", "offbeat", "organ",
        ("sunny", "laid-back", "breezy", "easy", "soulful"), ("a one drop beat", "one drop drums", "rimshot drums")),
    "ballad": Style(("ballad", "piano ballad", "slow ballad", "power ballad"), (60, 84), ("4", "3", "6"), "ballad",
        "electric bass", "long", "piano", "arpeggio", "strings",
        ("tender", "emotional", "romantic", "sad", "intimate"), ("soft drums", "a slow quiet beat", "gentle drums")),
    "metal": Style(("metal", "heavy metal", "thrash metal", "hard rock"), (120, 180), ("4",), "metal",
        "electric bass", "eighths", "distorted guitar", "gallop", "lead guitar",
        ("aggressive", "brutal", "dark", "furious", "heavy"), ("double kick drums", "blast drums", "thundering drums")),
    "ambient": Style(("ambient", "ambient electronica", "downtempo", "meditative ambient"), (60, 92), ("4", "3"),
        "ambient", "sub bass", "long", "warm pad", "hold", "bells", ("calm", "floating", "spacious", "serene",
        "peaceful"), ("a soft pulse", "a quiet heartbeat kick", "minimal percussion")),
    "chiptune": Style(("chiptune", "8-bit game music", "retro game soundtrack", "bitpop"), (110, 180), ("4", "3"),
        "chip", "triangle bass", "eighths", "square arpeggio", "arpeggio", "square lead",
        ("playful", "bouncy", "heroic", "cheerful", "fast"),
        ("noise drums", "8-bit drums", "crunchy noise percussion")),
}  # fmt: skip
# What a song may do without, each in half of all songs; its caption then says so.
LEFT_OUT = ("drums", "bass", "lead")
# Instruments a song may have instead of its style's own; its caption then names them.
OTHER_CHORDS = ("piano", "rhodes", "organ", "acoustic guitar", "clean guitar", "strings", "brass section", "synth pad")
OTHER_LEADS = ("flute", "saxophone", "trumpet", "fiddle", "strings", "vibraphone", "bells", "saw lead", "lead guitar")

CAPTIONS = (
    "{mood} {style}, {drums}, {bass}, {chords}, {lead}",
    "{style} with {drums}, {chords}, {bass} and {lead}",
    "A {mood} {style} song with {chords} and {lead}, {drums}",
    "{mood} {style} built on {drums} and {bass}, with {chords} and {lead}",
    "{style}, {mood}, {mood2}, {chords}, {lead}, {drums}",
    "{style} track: {chords}, {bass}, {drums}, {lead}",
    "{chords} and {bass} in a {mood}, {mood2} {style} piece, {lead}, {drums}",
    "make a {mood} {style} tune with {drums}, {chords} and {lead}",
    "{mood} {mood2} {style} featuring {chords}, {lead} and {drums}",
    "{lead} over {chords}, {drums}: {mood} {style}",
    "a {mood2} and {mood} piece of {style}; {drums}; {chords}; {lead}",
    "we hear {chords}, {bass} and {drums}, then {lead}, in {mood} {style}",
)
SHORT_CAPTIONS = (
    "{mood} {style}",
    "{style}",
    "{mood}, {mood2} {style}",
    "a {mood} {style} song",
    "some {style}, {mood}",
)
IDEAS = (
    "a {mood} {style} song",
    "{style} about {theme}",
    "a {mood} {style} track about {theme}",
    "{mood} {style} with {lead} and {chords}",
    "{style} with {chords}, {drums}",
    "{theme}, as {mood} {style}",
    "something {mood}, {style}, {drums}",
)
IDEA_FACTS = (", at {bpm} bpm", ", {bpm} bpm", ", in {key}", ", {bpm} bpm, {key}", ", {pace}", "", "", "")
THEMES = ("the night road", "rain on the city", "a lost umbrella", "the sea", "summer", "coming home", "a far star",
          "morning light", "the last train", "an old friend", "my heart", "dancing alone")  # fmt: skip
VOICES = ("airy vocals", "vocals", "a clear voice", "a singer")

# Lyric lines are drawn from these words; where a script does not show its vowels, after the stroke stands how a word
# is sung.
WORDS = {
    "en": "night road light we ride alone tonight the city hold me near summer rain falling slow run away dream again "
    "river home heart fire sky over water silver morning stay with you never let go shine on stars",
    "es": "la noche luz de mi vida corazón camino lejos tu voz en el mar vuelvo a casa sol y lluvia siempre",
    "de": "die Nacht ist still wir fahren weit durch Regen und Licht mein Herz bleibt hier bei dir nach Hause",
    "fr": "la nuit est douce je marche seul sous la pluie ton coeur mon amour reste avec moi jusqu'au matin",
    "pt": "a noite cai devagar meu amor na estrada luz do mar vem comigo até o sol nascer saudade",
    "it": "la notte è chiara vola via il mio cuore sulla strada resta con me sotto le stelle amore",
    "ja": "夜/yoru の/no 道/michi を/o 走る/hashiru 君/kimi と/to 光/hikari 雨/ame 街/machi 夢/yume 見る/miru 朝/asa",
    "zh": "夜晚/yewan 的/de 路上/lushang 我们/women 一起/yiqi 走/zou 星光/xingguang 下雨/xiayu 城市/chengshi 心/xin",
    "ko": "밤/bam 의/ui 길/gil 을/eul 달려/dallyeo 너/neo 와/wa 함께/hamkke 빛/bit 비/bi 도시/dosi 꿈/kkum 아침/achim",
    "ru": "ночь/noch дорога/daroga свет/svet мы/my едем/yedem домой/damoy сердце/sertse дождь/dozhd огни/agni",
}  # fmt: skip
SINGING = dict(word.split("/") for words in WORDS.values() for word in words.split() if "/" in word)
MUTE_E = ("en", "fr")


@dataclass(frozen=True)
class Song:
    """One piece and everything its prompt says; `duration` in whole seconds."""

    seed: int
    style: str
    bpm: int
    tonic: int  # pitch class, 0 is C
    mode: str  # major or minor
    key: str  # as spelled in the prompt, for example "Bb minor"
    time_signature: str  # "4", "3" or "6"
    duration: int
    bass: str
    chords: str
    lead: str
    left_out: tuple[str, ...]  # of LEFT_OUT
    mood: str  # the first of its caption
    tune: str  # the style whose progressions and melodies it plays
    variant: int  # of the tune
    caption: str
    lyrics: str
    language: str

    @property
    def pulses(self) -> int:
        """In a bar. A bar of 6/8 has two, each of three eighths; `bpm` counts pulses."""
        return 2 if self.time_signature == "6" else int(self.time_signature)

    @property
    def pulse(self) -> float:
        """Seconds between pulses as played."""
        return bar_frames(self.bpm, self.pulses) / FRAMES_PER_SECOND / self.pulses

    @property
    def parts(self) -> tuple[Part, ...]:
        return layout(self.lyrics, max(1, int(self.duration / (self.pulses * self.pulse))))

    @property
    def voiced(self) -> bool:
        return any(part.lines for part in self.parts)

    @property
    def leads(self) -> bool:
        """Whether an instrument has the lead somewhere."""
        return "lead" not in self.left_out and any(SECTIONS[part.tag].lead and not part.lines for part in self.parts)

    @property
    def tracks(self) -> tuple[str, ...]:
        """The tracks that sound in it, by the names of the track list."""
        found = {TIMBRES[self.chords].track} if any(SECTIONS[part.tag].chords for part in self.parts) else set()
        if "drums" not in self.left_out and any(SECTIONS[part.tag].drums != "none" for part in self.parts):
            found.add("drums")
        if "bass" not in self.left_out and any(SECTIONS[part.tag].bass for part in self.parts):
            found.add("bass")
        if self.leads:
            found.add(TIMBRES[self.lead].track)
        if self.voiced:
            found.add("vocals")
        if any(part.lines and part.tag == "Chorus" for part in self.parts):
            found.add("backing_vocals")
        return tuple(sorted(found))


def picker(rng: np.random.Generator) -> Callable:
    return lambda options: options[rng.integers(len(options))]


def drawn_key(seed: int) -> tuple[int, str]:
    """Tonic and mode of a song: all 24 keys in every 24 songs, in another order each time."""
    turn, place = divmod(seed, 24)
    key = int(np.random.default_rng([turn, 8]).permutation(24)[place])
    return key % 12, "minor" if key >= 12 else "major"


def song(seed: int) -> Song:
    """Draw the song of this seed."""
    rng = np.random.default_rng([seed, 1])
    pick = picker(rng)
    name = pick(list(STYLES))
    style = STYLES[name]
    meter = "4" if rng.random() < 0.8 else pick(style.meters)
    # Half of all tempi ignore the style, so that the number in the prompt, not the style, sets the tempo.
    low, high = style.tempo if rng.random() < 0.5 else (60, 180)
    bpm = min(int(rng.integers(low, high + 1)), {"4": 180, "3": 160, "6": 110}[meter])
    tonic, mode = drawn_key(seed)
    # Most are short: what the model learns about tempo and key, it learns per song, not per second.
    duration = int(rng.integers(8, 17)) if rng.random() < 0.7 else int(rng.integers(16, 41))
    chords = pick(OTHER_CHORDS) if rng.random() < 0.3 else style.chords
    lead = pick(OTHER_LEADS) if rng.random() < 0.3 else style.lead
    left_out = tuple(part for part in LEFT_OUT if rng.random() < 0.5)

    bars = max(1, int(duration * FRAMES_PER_SECOND / bar_frames(bpm, 2 if meter == "6" else int(meter))))
    language, lyrics, kind = "unknown", "[Instrumental]", rng.random()
    if kind > 0.35:
        sung = kind > 0.5
        language = ("en" if rng.random() < 0.6 else pick(list(WORDS))) if sung else "unknown"
        form = pick(FORMS)[: max(1, bars // 2)]
        form = ("Verse",) if form == ("Intro",) else form
        blocks = []
        for part in layout("\n".join(f"[{tag}]" for tag in form), bars):
            count = max(1, part.bars // 2) if sung and SECTIONS[part.tag].sung else 0
            words = [w.partition("/")[0] for w in WORDS[language].split()] if count else []
            lines = [" ".join(rng.choice(words, rng.integers(3, 6))) for _ in range(count)]
            blocks.append("\n".join([f"[{part.tag}]", *lines]))
        lyrics = "\n\n".join(blocks)
    mood = pick(style.moods)
    piece = Song(seed, name, bpm, tonic, mode, "", meter, duration, style.bass, chords, lead, left_out, mood, name,
                 style.moods.index(mood) % 2, "", lyrics, language)  # fmt: skip
    return describe(piece, rng)


def restyled(piece: Song, rng: np.random.Generator) -> Song:
    """The same tune in another style: what a cover of it is. Tempo, key, form, chords and melody stay."""
    pick = picker(rng)
    name = pick([name for name in STYLES if name != piece.style])
    style = STYLES[name]
    other = replace(piece, style=name, bass=style.bass, chords=style.chords, lead=style.lead, left_out=(),
                    mood=pick(style.moods))  # fmt: skip
    return describe(other, rng)


def _words(piece: Song, rng: np.random.Generator) -> dict[str, str]:
    """What stands for each place in a caption or an idea."""
    pick, style = picker(rng), STYLES[piece.style]
    mood, mood2 = piece.mood, pick([mood for mood in style.moods if mood != piece.mood])
    lead = pick(VOICES) if piece.voiced else "no lead" if "lead" in piece.left_out else piece.lead
    drums = "no drums" if "drums" in piece.left_out else pick(style.drum_words)
    bass = "no bass" if "bass" in piece.left_out else piece.bass
    return {"mood": mood, "mood2": mood2, "style": pick(style.names), "drums": drums, "bass": bass,
            "chords": piece.chords, "lead": lead}  # fmt: skip


def describe(piece: Song, rng: np.random.Generator) -> Song:
    """The same music in other words: a fresh caption, and the key in either of its spellings."""
    pick, style = picker(rng), STYLES[piece.style]
    plain = piece.chords == style.chords and piece.lead == style.lead and not piece.left_out
    caption = pick(SHORT_CAPTIONS if plain and rng.random() < 0.25 else CAPTIONS).format(**_words(piece, rng))
    for part in piece.left_out:
        caption = caption if f"no {part}" in caption else f"{caption}, no {part}"
    return replace(piece, caption=caption, key=f"{pick(NOTE_NAMES[piece.tonic])} {piece.mode}")


def pace(bpm: int) -> str:
    """A tempo in words."""
    return "slow" if bpm < 85 else "fast" if bpm > 130 else "at a walking pace"


def idea(piece: Song, rng: np.random.Generator) -> str:
    """What somebody might have asked the Songwriter for, whose answer this song is."""
    pick = picker(rng)
    facts = {"bpm": piece.bpm, "key": piece.key, "pace": pace(piece.bpm), "theme": pick(THEMES)}
    text = (pick(IDEAS) + pick(IDEA_FACTS)).format(**facts, **_words(piece, rng))
    return text if piece.voiced else f"{text}, instrumental"
