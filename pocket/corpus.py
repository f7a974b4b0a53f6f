"""The training music: songs drawn and synthesised from a seed, with the prompt that describes each.

`song(seed)` draws a song (style, tempo, key, time signature, length, sections, instruments, caption,
lyrics); `render(song)` plays it. Both are pure functions of the seed, so the corpus needs no storage
and the same seeds give the same bytes. Nothing is sampled or borrowed: every sound is a sum of sines
or shaped noise made here.

What a listener (and a model) can rely on:

* beat one is at t = 0, the tempo is constant, the chord changes at each bar line with its root in the bass;
* it is played at the nearest of sixteen tempi (`CYCLES`), at most 4.3 % from the one the prompt asks for;
* every note starts on the 40 ms grid of the latent frames, so the same note always has the same latents. This is what
  lets a small model learn in minutes: with free onsets each note came in endless phases, and after half an hour of
  training neither tempo nor key followed the prompt. The price is a timing error of up to 20 ms, heard as a loose beat;
* progression and melody belong to the style and the section, in two variants, so that a prompt says most of a song;
* progressions start on the tonic, and minor keys use the major dominant, so a key is not its relative;
* the section tags of the lyrics act as `SECTIONS` says;
* lyric lines are sung by a vowel voice, one note per syllable group; without lines an instrument leads;
* the last, incomplete bar is a held tonic chord that fades out.

Shapes: N samples, stereo audio is [2, N] float32 at 48 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

SAMPLE_RATE = 48_000
FRAME = 1920  # samples in a latent frame; onsets are rounded to it
TARGET_RMS = 10 ** (-14 / 20)  # of a whole song
RELEASE = 0.03  # seconds over which a note that is cut short fades
HELD_OUT = 1_000_000  # seeds from here on are never trained on
# Latent frames in a cycle: a bar of three or four beats, or two bars of 6/8. The clock in the silence latent has a
# hand for each (`encode.clock`), so that a model can know where every beat of a song lies.
CYCLES = (97, 90, 84, 78, 72, 67, 62, 58, 54, 50, 46, 43, 40, 37, 34, 32)

NOTE_NAMES = {0: ["C"], 1: ["C#", "Db"], 2: ["D"], 3: ["D#", "Eb"], 4: ["E"], 5: ["F"], 6: ["F#", "Gb"], 7: ["G"],
              8: ["G#", "Ab"], 9: ["A"], 10: ["A#", "Bb"], 11: ["B"]}  # fmt: skip
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# Chords as (semitones of the root above the tonic, is the triad minor).
PROGRESSIONS = {
    "major": [
        [(0, False), (5, False), (7, False), (0, False)],
        [(0, False), (7, False), (9, True), (5, False)],
        [(0, False), (9, True), (5, False), (7, False)],
        [(0, False), (5, False), (0, False), (7, False)],
    ],
    "minor": [
        [(0, True), (5, True), (7, False), (0, True)],
        [(0, True), (8, False), (5, True), (7, False)],
        [(0, True), (5, True), (0, True), (7, False)],
        [(0, True), (10, False), (8, False), (7, False)],
    ],
}


@dataclass(frozen=True)
class Section:
    """What a section tag does to the arrangement; gains are linear, 0 is silent."""

    drums: str  # none, light (pulse and hats), full, or big (full, with a crash on the first beat)
    bass: float
    chords: float
    lead: float
    octave: int = 0  # of the lead


SECTIONS = {
    "Intro": Section("light", 0.0, 1.0, 0.0),
    "Verse": Section("full", 1.0, 0.7, 0.8),
    "Pre-Chorus": Section("light", 1.0, 1.0, 0.8),
    "Chorus": Section("big", 1.1, 1.1, 1.0, 1),
    "Bridge": Section("light", 0.8, 1.2, 0.7),
    "Solo": Section("full", 1.0, 0.7, 1.1, 1),
    "Instrumental": Section("full", 1.0, 0.9, 0.9),
    "Drop": Section("big", 1.2, 1.0, 0.0),
    "Break": Section("full", 0.0, 0.0, 0.0),
    "Outro": Section("light", 0.9, 0.9, 0.0),
}
FORMS = [
    ["Verse", "Chorus"],
    ["Intro", "Verse", "Chorus"],
    ["Intro", "Verse", "Chorus", "Verse", "Chorus"],
    ["Intro", "Verse", "Pre-Chorus", "Chorus", "Outro"],
    ["Intro", "Verse", "Chorus", "Bridge", "Chorus", "Outro"],
    ["Verse", "Chorus", "Solo", "Chorus"],
    ["Verse", "Bridge", "Chorus"],
    ["Intro", "Verse", "Chorus", "Instrumental", "Chorus", "Outro"],
    ["Intro", "Drop", "Break", "Drop"],
    ["Chorus", "Verse", "Chorus"],
]


@dataclass(frozen=True)
class Style:
    """One genre: its tempo range, meters, parts, and the words captions use for it."""

    names: tuple[str, ...]
    tempo: tuple[int, int]
    meters: tuple[str, ...]
    drums: str
    bass: tuple[str, ...]
    bass_pattern: str
    chords: tuple[str, ...]
    chord_pattern: str
    leads: tuple[str, ...]
    moods: tuple[str, ...]
    drum_words: tuple[str, ...]


STYLES = {
    "lofi": Style(("lo-fi hip hop", "lofi", "lo-fi beats", "chillhop"), (68, 96), ("4",), "lofi", ("sub bass",),
        "long", ("rhodes", "piano"), "hold", ("vibraphone", "flute", "rhodes"),
        ("warm", "dusty", "mellow", "relaxed", "sleepy"), ("dusty drums", "a lazy swung beat", "boom bap drums")),
    "house": Style(("house", "deep house", "dance music", "club track"), (116, 130), ("4",), "house",
        ("synth bass", "sub bass"), "offbeat", ("synth stabs", "piano"), "offbeat", ("pluck synth", "saw lead"),
        ("driving", "uplifting", "groovy", "euphoric", "late night"), ("four on the floor kick", "claps and open hats",
        "a four-to-the-floor beat")),
    "rock": Style(("rock", "indie rock", "alternative rock", "garage rock"), (100, 160), ("4",), "rock",
        ("electric bass",), "eighths", ("distorted guitar",), "eighths", ("lead guitar",),
        ("energetic", "raw", "loud", "anthemic", "driving"), ("live drums", "a hard backbeat", "pounding drums")),
    "synthwave": Style(("synthwave", "retrowave", "80s synth pop", "outrun"), (80, 122), ("4",), "synthwave",
        ("synth bass",), "octaves", ("synth pad",), "hold", ("saw lead", "pluck synth"),
        ("nostalgic", "neon", "dreamy", "cinematic", "nocturnal"), ("gated drums", "retro drum machine",
        "big gated snare")),
    "folk": Style(("folk", "acoustic folk", "singer-songwriter", "country folk"), (76, 132), ("4", "3", "6"), "folk",
        ("upright bass",), "root-fifth", ("acoustic guitar",), "strum", ("flute", "fiddle"),
        ("gentle", "heartfelt", "rustic", "sunny", "wistful"), ("soft percussion", "a foot stomp and shaker",
        "brushed drums")),
    "ambient": Style(("ambient", "ambient electronica", "downtempo", "meditative ambient"), (60, 92), ("4", "3"),
        "ambient", ("sub bass",), "long", ("synth pad", "warm pad"), "hold", ("bells", "flute"),
        ("calm", "floating", "spacious", "serene", "peaceful"), ("a soft pulse", "a quiet heartbeat kick",
        "minimal percussion")),
    "chiptune": Style(("chiptune", "8-bit game music", "retro game soundtrack", "bitpop"), (110, 180), ("4", "3"),
        "chip", ("triangle bass",), "eighths", ("square arpeggio",), "arpeggio", ("square lead",),
        ("playful", "bouncy", "heroic", "cheerful", "fast"),
        ("noise drums", "8-bit drums", "crunchy noise percussion")),
    "jazz": Style(("jazz", "swing jazz", "cool jazz", "jazz combo"), (96, 180), ("4", "3"), "jazz", ("upright bass",),
        "walking", ("piano",), "comp", ("saxophone", "vibraphone"), ("smoky", "smooth", "swinging", "late night",
        "sophisticated"), ("ride cymbal", "a swinging ride", "brushes and ride")),
}  # fmt: skip

CAPTIONS = (
    "{mood} {style}, {drums}, {bass}, {chords}{lead}",
    "{style} with {drums}, {chords} and {bass}{lead}",
    "A {mood} {style} song with {chords}{lead}",
    "{mood} {style} built on {drums} and {bass}",
    "{style}, {mood}, {mood2}, {chords}",
    "an instrumental-minded {style} track: {chords}, {bass}, {drums}",
    "{mood} {style}",
    "{style}",
    "Upbeat or slow, always {mood}: {style} carried by {chords}{lead}, over {drums}",
    "{chords} and {bass} in a {mood}, {mood2} {style} piece",
    "make a {mood} {style} tune with {drums}",
    "{mood} {mood2} {style} featuring {chords}{lead}",
)

# Lyric lines are drawn from these words; their count sets how many notes a line is sung on.
WORDS = {
    "en": "night road light we ride alone tonight the city hold me near summer rain falling slow run away dream again "
    "river home heart fire sky over water silver morning stay with you never let go shine on stars",
    "es": "la noche luz de mi vida corazón camino lejos tu voz en el mar vuelvo a casa sol y lluvia siempre",
    "de": "die Nacht ist still wir fahren weit durch Regen und Licht mein Herz bleibt hier bei dir nach Hause",
    "fr": "la nuit est douce je marche seul sous la pluie ton coeur mon amour reste avec moi jusqu'au matin",
    "pt": "a noite cai devagar meu amor na estrada luz do mar vem comigo até o sol nascer saudade",
    "it": "la notte è chiara vola via il mio cuore sulla strada resta con me sotto le stelle amore",
    "ja": "夜 の 道 を 走る 君 と 光 雨 の 街 遠く 夢 を 見る 朝 まで 歌おう",
    "zh": "夜晚 的 路上 我们 一起 走 星光 下雨 城市 回家 梦想 直到 天亮 你 的 心",
    "ko": "밤 의 길 을 달려 너 와 함께 빛 비 내리는 도시 꿈 을 꾸자 아침 까지",
    "ru": "ночь дорога свет мы едем домой сердце дождь огни города до утра вместе звезда",
}


@dataclass(frozen=True)
class Song:
    """One piece and everything its prompt says; `duration` in whole seconds, `parts` as (tag, bars, lines)."""

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
    caption: str
    lyrics: str
    language: str
    parts: tuple[tuple[str, int, int], ...]

    @property
    def beats(self) -> int:
        """Pulses in a bar. A 6/8 bar has two, each of three eighths; `bpm` counts pulses."""
        return 2 if self.time_signature == "6" else int(self.time_signature)

    @property
    def beat(self) -> float:
        return beat(self.bpm, self.beats)


def beat(bpm: int, beats: int) -> float:
    """Seconds between pulses as played, for a tempo as asked and the pulses of a bar."""
    pulses = 3 if beats == 3 else 4  # of a cycle
    asked = pulses * 60 / bpm * SAMPLE_RATE / FRAME
    return min(CYCLES, key=lambda cycle: abs(np.log(cycle / asked))) * FRAME / SAMPLE_RATE / pulses


def _divide(bars: int, form: list[str]) -> list[tuple[str, int]]:
    """Spread bars over as much of the form as fits at two bars or more each, longer sections in fours."""
    form = form[: max(1, bars // 2)]
    unit = 4 if bars >= 4 * len(form) else 2
    lengths = [unit] * len(form)
    spare = bars - sum(lengths)
    turn = 0
    while spare > 0:
        step = min(unit, spare)
        lengths[turn % len(form)] += step
        spare -= step
        turn += 1
    if spare < 0:
        lengths[-1] += spare
    return [(tag, n) for tag, n in zip(form, lengths, strict=True) if n > 0]


def song(seed: int) -> Song:
    """Draw the song of this seed."""
    rng = np.random.default_rng([seed, 1])
    pick = lambda options: options[rng.integers(len(options))]  # noqa: E731
    name = pick(list(STYLES))
    style = STYLES[name]
    # Half of all tempi ignore the style, so that the number in the prompt, not the style, sets the tempo.
    low, high = style.tempo if rng.random() < 0.5 else (60, 180)
    bpm = int(rng.integers(low, high + 1))
    meter = "4" if rng.random() < 0.8 else pick(style.meters)
    bpm = min(bpm, 140) if meter == "3" else bpm  # a bar of 3/4 at 140 is the shortest cycle
    tonic, mode = int(rng.integers(12)), pick(["major", "minor"])
    # Three in four are short: what the model learns about tempo and key, it learns per song, not per second.
    duration = int(rng.integers(8, 17)) if rng.random() < 0.75 else int(rng.integers(16, 49))
    beats = 2 if meter == "6" else int(meter)
    bars = max(1, int(duration / (beats * beat(bpm, beats))))

    bass, chords, lead = style.bass[0], style.chords[0], style.leads[0]
    language, kind = "unknown", rng.random()
    if kind < 0.4:
        parts, lyrics = [("Instrumental", bars, 0)], "[Instrumental]"
    else:
        sung = kind > 0.6
        language = ("en" if rng.random() < 0.6 else pick(list(WORDS))) if sung else "unknown"
        parts, blocks = [], []
        for tag, length in _divide(bars, pick(FORMS)):
            lines = max(1, length // 2) if sung and tag in ("Verse", "Pre-Chorus", "Chorus", "Bridge") else 0
            parts.append((tag, length, lines))
            text = [" ".join(rng.choice(WORDS[language].split(), rng.integers(3, 7))) for _ in range(lines)]
            blocks.append("\n".join([f"[{tag}]", *text]))
        lyrics = "\n\n".join(blocks)
    piece = Song(
        seed, name, bpm, tonic, mode, "", meter, duration, bass, chords, lead, "", lyrics, language, tuple(parts)
    )
    return describe(piece, rng)


def describe(piece: Song, rng: np.random.Generator) -> Song:
    """The same music in other words: a fresh caption, and the key in either of its spellings."""
    pick = lambda options: options[rng.integers(len(options))]  # noqa: E731
    style = STYLES[piece.style]
    mood, mood2 = rng.permutation(style.moods)[:2]
    voiced = any(lines for *_, lines in piece.parts)
    lead = pick(["airy vocals", "vocals", "a wordless voice"]) if voiced else piece.lead
    caption = pick(CAPTIONS).format(
        mood=mood, mood2=mood2, style=pick(style.names), drums=pick(style.drum_words), bass=piece.bass,
        chords=piece.chords, lead=f", {lead}",
    )  # fmt: skip
    return replace(piece, caption=caption, key=f"{pick(NOTE_NAMES[piece.tonic])} {piece.mode}")


# ---------------------------------------------------------------------------------------------- sounds

# name: (partials as (multiple of the fundamental, level, decay in 1/s), attack in s, vibrato depth, stereo detune)
TIMBRES = {
    "rhodes": ([(1, 1, 1.5), (2, 0.35, 3), (3, 0.12, 5), (7, 0.06, 14)], 0.004, 0, 0.0),
    "piano": ([(k, k**-1.3, 1.2 + 0.9 * k) for k in range(1, 8)], 0.003, 0, 0.0),
    "synth stabs": ([(k, 1 / k, 5 + 0.5 * k) for k in range(1, 9)], 0.003, 0, 0.0),
    "distorted guitar": ([(k, k**-0.8, 0.6 + 0.15 * k) for k in range(1, 13)], 0.004, 0, 0.0),
    "synth pad": ([(k, k**-1.4, 0) for k in range(1, 8)], 0.12, 0, 0.0),
    "warm pad": ([(k, k**-2.0, 0) for k in range(1, 5)], 0.25, 0, 0.0),
    "acoustic guitar": ([(k, k**-1.1, 2 + 0.8 * k) for k in range(1, 10)], 0.002, 0, 0.0),
    "square arpeggio": ([(k, 0.7 / k, 4) for k in range(1, 10, 2)], 0.002, 0, 0.0),
    "square lead": ([(k, 1 / k, 0.8) for k in range(1, 12, 2)], 0.003, 0.004, 0.0),
    "vibraphone": ([(1, 1, 2), (4, 0.25, 5), (10, 0.05, 16)], 0.002, 0, 0.0),
    "bells": ([(1, 1, 1.6), (2.76, 0.4, 3), (5.4, 0.2, 6)], 0.002, 0, 0.0),
    "flute": ([(1, 1, 0), (2, 0.25, 0), (3, 0.08, 0)], 0.05, 0.005, 0.0),
    "fiddle": ([(k, k**-1.0, 0) for k in range(1, 9)], 0.06, 0.006, 0.0),
    "saxophone": ([(1, 0.8, 0), (2, 1, 0), (3, 0.7, 0), (4, 0.5, 0), (5, 0.25, 0), (6, 0.12, 0)], 0.03, 0.005, 0.0),
    "pluck synth": ([(k, 1 / k, 4 + 1.5 * k) for k in range(1, 9)], 0.002, 0, 0.0),
    "saw lead": ([(k, 1 / k, 0.5) for k in range(1, 11)], 0.008, 0.004, 0.0),
    "lead guitar": ([(k, k**-0.9, 0.5) for k in range(1, 10)], 0.01, 0.006, 0.0),
    "sub bass": ([(1, 1, 0.6), (2, 0.35, 1.5), (3, 0.12, 3)], 0.008, 0, 0.0),
    "synth bass": ([(k, 1 / k, 2 + 0.8 * k) for k in range(1, 11)], 0.004, 0, 0.0),
    "electric bass": ([(k, k**-1.2, 1.5 + 0.7 * k) for k in range(1, 8)], 0.004, 0, 0.0),
    "upright bass": ([(k, k**-1.4, 2.5 + 1.0 * k) for k in range(1, 6)], 0.008, 0, 0.0),
    "triangle bass": ([(k, 1 / k**2, 0.8) for k in range(1, 8, 2)], 0.003, 0, 0.0),
    "voice": ([(k, 1.0, 0) for k in range(1, 17)], 0.05, 0.007, 0.0),  # levels from FORMANTS
}
FORMANTS = ((700, 130, 1.0), (1150, 160, 0.5), (2600, 250, 0.2))  # of an open "ah": Hz, width, level
LONGEST = 4.2  # seconds of a cached note: one bar at 60 bpm, and a little


@cache
def _tone(timbre: str, pitch: int) -> np.ndarray:
    """A note of `LONGEST` seconds, [2, N], of unit RMS over its first quarter second."""
    partials, attack, vibrato, detune = TIMBRES[timbre]
    t = np.arange(int(LONGEST * SAMPLE_RATE), dtype=np.float64) / SAMPLE_RATE
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    sides = []
    for spread in (1 - detune, 1 + detune) if detune else (1.0,):
        # Vibrato comes in over the first half second, as players do.
        bend = vibrato * np.minimum(t / 0.5, 1) * np.sin(2 * np.pi * 5.2 * t) / (2 * np.pi * 5.2) if vibrato else 0
        phase = 2 * np.pi * hertz * spread * (t + bend)
        wave = np.zeros_like(t)
        for multiple, level, decay in partials:
            if hertz * multiple > 11_000:  # above this the little autoencoder keeps only noise
                continue
            if timbre == "voice":
                place = hertz * multiple
                level = 0.03 / multiple + sum(a * np.exp(-(((place - f) / w) ** 2)) for f, w, a in FORMANTS)
            wave += level * np.sin(phase * multiple) * (np.exp(-decay * t) if decay else 1)
        if timbre in ("distorted guitar", "lead guitar"):
            wave = np.tanh(1.5 * wave)
        sides.append(wave * np.minimum(t / attack, 1))
    tone = np.stack(sides if len(sides) == 2 else sides * 2)
    level = np.sqrt(np.mean(tone[:, : SAMPLE_RATE // 4] ** 2))
    return (tone / level).astype(np.float32)


def _band(noise: np.ndarray, low: float, high: float) -> np.ndarray:
    """Keep the frequencies between low and high, in Hz, with soft edges."""
    f = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    gain = 1 / (1 + (low / np.maximum(f, 1)) ** 8) / (1 + (f / high) ** 8)
    return np.fft.irfft(np.fft.rfft(noise) * gain, len(noise))


@cache
def _drum(name: str) -> np.ndarray:
    """One drum hit, mono [N], peak 1. The noise of a drum is always the same noise."""
    seconds = {"crash": 1.4, "ride": 0.5, "open hat": 0.3, "kick": 0.32, "boom": 0.4}.get(name, 0.25)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng([sum(map(ord, name)), 7]).standard_normal(len(t))

    def sweep(start: float, end: float, rate: float) -> np.ndarray:
        """A sine that falls from start to end Hz."""
        return np.sin(2 * np.pi * (end * t + (start - end) / rate * (1 - np.exp(-rate * t))))

    match name:
        case "kick":
            hit = sweep(180, 52, 35) * np.exp(-11 * t) + 0.25 * _band(noise, 1500, 5000) * np.exp(-200 * t)
        case "boom":
            hit = sweep(110, 48, 25) * np.exp(-8 * t)
        case "heart":
            hit = sweep(90, 55, 20) * np.exp(-14 * t)
        case "snare":
            hit = 0.7 * sweep(260, 190, 40) * np.exp(-22 * t) + 0.5 * _band(noise, 1200, 8000) * np.exp(-20 * t)
        case "gated snare":
            gate = np.exp(-5 * t) * (t < 0.18)
            hit = 0.7 * sweep(240, 180, 40) * np.exp(-18 * t) + 0.5 * _band(noise, 800, 7000) * gate
        case "clap":
            bursts = sum(np.exp(-90 * np.maximum(t - d, 0)) * (t >= d) for d in (0, 0.011, 0.022))
            hit = _band(noise, 900, 5000) * (bursts + np.exp(-25 * t))
        case "rim":
            hit = sweep(900, 800, 50) * np.exp(-70 * t) + 0.4 * _band(noise, 1500, 6000) * np.exp(-60 * t)
        case "brush":
            hit = _band(noise, 1000, 6000) * np.exp(-18 * t) * np.minimum(t / 0.01, 1)
        case "hat":
            hit = _band(noise, 6000, 12000) * np.exp(-60 * t)
        case "open hat":
            hit = _band(noise, 5500, 12000) * np.exp(-14 * t)
        case "shaker":
            hit = _band(noise, 4500, 10000) * np.exp(-35 * t) * np.minimum(t / 0.015, 1)
        case "ride":
            metal = sum(np.sin(2 * np.pi * f * t) for f in (3140, 4230, 5310, 6780))
            hit = (0.4 * metal + _band(noise, 5000, 11000)) * np.exp(-9 * t)
        case "crash":
            hit = _band(noise, 3500, 12000) * np.exp(-3.5 * t)
        case "noise snare":
            hit = np.repeat(noise[::6], 6)[: len(t)] * np.exp(-18 * t)
        case "noise hat":
            hit = np.repeat(noise[::3], 3)[: len(t)] * np.exp(-70 * t)
        case "chip kick":
            hit = np.sign(sweep(220, 50, 30)) * np.exp(-16 * t) * 0.7
    fade = np.minimum((seconds - t) / 0.02, 1)
    return (hit / np.abs(hit).max() * fade).astype(np.float32)


# kit: (low drum, back-beat drum, ticking drum, low level, back level, tick level)
KITS = {
    "lofi": ("boom", "rim", "hat", 1.0, 0.55, 0.16),
    "house": ("kick", "clap", "open hat", 1.1, 0.55, 0.3),
    "rock": ("kick", "snare", "hat", 1.0, 0.85, 0.28),
    "synthwave": ("kick", "gated snare", "hat", 1.0, 0.85, 0.22),
    "folk": ("boom", "brush", "shaker", 0.8, 0.5, 0.25),
    "ambient": ("heart", "rim", "shaker", 0.8, 0.2, 0.12),
    "chip": ("chip kick", "noise snare", "noise hat", 0.7, 0.5, 0.2),
    "jazz": ("boom", "brush", "ride", 0.6, 0.45, 0.35),
}
# Where a kit plays, in beats of a bar of four (shorter bars keep what fits); full sections, then light ones.
PATTERNS = {
    "lofi": ((0, 2.5), (1, 3), (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)),
    "house": ((0, 1, 2, 3), (1, 3), (0.5, 1.5, 2.5, 3.5)),
    "rock": ((0, 2, 2.5), (1, 3), (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)),
    "synthwave": ((0, 2), (1, 3), (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)),
    "folk": ((0, 2), (1, 3), (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)),
    "ambient": ((0, 1, 2, 3), (2,), (0.5, 1.5, 2.5, 3.5)),
    "chip": ((0, 2), (1, 3), (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)),
    "jazz": ((0, 2), (1, 3), (0, 1, 1.5, 2, 3, 3.5)),
}
SWING = {"lofi": 0.12, "jazz": 0.16}  # beats by which an off-beat is late
MIX = {"drums": 0.42, "bass": 0.26, "chords": 0.075, "lead": 0.13}  # levels of the parts before mastering


class _Desk:
    """A stereo mix being added to."""

    def __init__(self, samples: int) -> None:
        self.audio = np.zeros((2, samples), np.float32)

    def add(self, sound: np.ndarray, seconds: float, level: float, pan: float = 0.0) -> None:
        """Add mono [N] or stereo [2, N] at a time; pan runs from -1 (left) to 1 (right)."""
        start = round(seconds * SAMPLE_RATE / FRAME) * FRAME
        length = min(sound.shape[-1], self.audio.shape[1] - start)
        if length > 0:
            for side, gain in enumerate((1 - max(pan, 0), 1 + min(pan, 0))):
                self.audio[side, start : start + length] += (
                    level * gain * sound.reshape(-1, sound.shape[-1])[min(side, sound.ndim - 1), :length]
                )

    def note(self, timbre: str, pitch: int, seconds: float, length: float, level: float, pan: float = 0.0) -> None:
        n = min(int(length * SAMPLE_RATE), int(LONGEST * SAMPLE_RATE))
        tone = _tone(timbre, pitch)[:, :n].copy()
        fade = min(int(RELEASE * SAMPLE_RATE), n)
        tone[:, n - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        self.add(tone, seconds, level, pan)


def _play_drums(desk: _Desk, piece: Song, manner: str, start: float, last_of_four: bool, first: bool) -> None:
    """One bar of the kit. The last bar of four ends with a short fill."""
    kit = STYLES[piece.style].drums
    low, back, tick, low_level, back_level, tick_level = KITS[kit]
    lows, backs, ticks = PATTERNS[kit]
    beats = piece.beats
    if beats == 3:
        lows, backs, ticks = (0,), (1, 2), tuple(p for p in ticks if p < 3)
        back_level *= 0.7
    elif beats == 2:  # two pulses of three
        lows, backs, ticks = (0,), (1,), tuple(k / 3 for k in range(6))
    swing = SWING.get(kit, 0.0)
    when = lambda p: start + (p + (swing if p % 1 == 0.5 else 0)) * piece.beat  # noqa: E731
    gain = MIX["drums"]
    for place in lows:
        desk.add(_drum(low), when(place), gain * low_level)
    if manner != "light":
        for place in backs:
            desk.add(_drum(back), when(place), gain * back_level, 0.05)
        if last_of_four and beats == 4:
            for place in (3.5, 3.75):
                desk.add(_drum(back), when(place), gain * back_level * 0.6, -0.1)
    for place in ticks:
        accent = 1.0 if place % 1 == 0 else 0.75
        desk.add(_drum(tick), when(place), gain * tick_level * accent, 0.3)
    if manner == "big" and first:
        desk.add(_drum("crash"), start, gain * 0.55, -0.2)


def _play_bass(desk: _Desk, piece: Song, root: int, start: float, level: float) -> None:
    """One bar of bass on the chord's root, between E1 and D#2."""
    pattern, beat, beats = STYLES[piece.style].bass_pattern, piece.beat, piece.beats
    pitch = 28 + (root - 28) % 12
    step = beat / 3 if beats == 2 else beat / 2
    steps = round(beats * beat / step)
    gain = MIX["bass"] * level
    match pattern:
        case "long":
            desk.note(piece.bass, pitch, start, beat * beats * 0.95, gain)
        case "offbeat":
            for k in range(beats):
                desk.note(piece.bass, pitch, start + (k + 0.5) * beat, beat * 0.45, gain)
            desk.note(piece.bass, pitch, start, beat * 0.4, gain)
        case "octaves":
            for k in range(steps):
                desk.note(piece.bass, pitch + 12 * (k % 2), start + k * step, step * 0.9, gain)
        case "eighths":
            for k in range(steps):
                desk.note(piece.bass, pitch, start + k * step, step * 0.9, gain)
        case "root-fifth":
            for k in range(beats):
                desk.note(piece.bass, pitch + (7 if k % 2 else 0), start + k * beat, beat * 0.9, gain)
        case "walking":
            for k, climb in zip(range(beats), (0, 7, 12, 7), strict=False):
                desk.note(piece.bass, pitch + climb, start + k * beat, beat * 0.92, gain)


def _play_chords(desk: _Desk, piece: Song, root: int, minor: bool, start: float, level: float) -> None:
    """One bar of the triad, voiced between G3 and F#4 so that voices move little."""
    third = 3 if minor else 4
    pitches = sorted(55 + (root + interval - 55) % 12 for interval in (0, third, 7))
    beat, beats = piece.beat, piece.beats
    length, gain = beat * beats, MIX["chords"] * level
    places: list[tuple[float, float]]
    match STYLES[piece.style].chord_pattern:
        case "hold":
            places = [(0, length)]
        case "offbeat":
            places = [(k + 0.5, beat * 0.45) for k in range(beats)]
        case "eighths":
            pitches = [pitches[0] - 12, *pitches]
            step = 1 / 3 if beats == 2 else 0.5
            places = [(k * step, beat * step) for k in range(round(beats / step))]
        case "strum":
            places = [(k, beat) for k in range(beats)]
        case "comp":
            places = [(0, beat * 0.9), (1.5 + SWING["jazz"], beat * 0.5)] + ([(3, beat * 0.7)] if beats == 4 else [])
        case "arpeggio":
            step = 0.25
            for k in range(round(beats / step)):
                pitch = [*pitches, pitches[0] + 12][k % 4] + 12
                desk.note(piece.chords, pitch, start + k * step * beat, beat * step, 2 * gain, -0.2)
            return
    for place, hold in places:
        for k, pitch in enumerate(pitches):
            desk.note(piece.chords, pitch, start + place * beat, hold, gain, (-0.25, 0.0, 0.25, 0.0)[k])


def _motif(rng: np.random.Generator, beats: int) -> list[tuple[float, float, int]]:
    """Two bars of melody: (beat, length in beats, steps of the scale above the chord's nearest tone)."""
    grid = 1 / 3 if beats == 2 else 0.5
    spots = [0.0]
    while spots[-1] < 2 * beats - 1.5:
        spots.append(spots[-1] + grid * rng.choice([1, 2, 2, 3] if beats != 2 else [1, 2, 3, 3]))
    ends = [*spots[1:], 2.0 * beats - 0.5]
    walk = np.cumsum(rng.choice([-2, -1, -1, 0, 1, 1, 2], len(spots)))
    return [(a, min(b - a, 2.0), int(np.clip(w, -3, 4))) for a, b, w in zip(spots, ends, walk, strict=True)]


def _melody_pitch(piece: Song, root: int, minor: bool, steps: int, strong: bool) -> int:
    """A pitch from D4 up: chord tones on strong beats, the scale between them."""
    tones = (
        [(root + i) % 12 for i in (0, 3 if minor else 4, 7)]
        if strong
        else [(piece.tonic + i) % 12 for i in SCALES[piece.mode]]
    )
    wanted = 69 + round(1.75 * steps)
    return min((p for p in range(60, 84) if p % 12 in tones), key=lambda p: (abs(p - wanted), p))


def render(piece: Song) -> np.ndarray:
    """Play the song: float32 [2, duration * 48000], -14 dBFS RMS, peaks below 0.98."""
    rng = np.random.default_rng([piece.seed, 2])
    desk = _Desk(piece.duration * SAMPLE_RATE)
    style, variant = list(STYLES).index(piece.style), int(rng.integers(2))
    main = PROGRESSIONS[piece.mode][(style + variant) % len(PROGRESSIONS[piece.mode])]
    motifs = {
        tag: _motif(np.random.default_rng([style, variant, number]), piece.beats)
        for number, tag in enumerate(sorted(SECTIONS))
    }
    bar_seconds = piece.beat * piece.beats
    now, swing = 0.0, SWING.get(STYLES[piece.style].drums, 0.0)
    for tag, bars, lines in piece.parts:
        plan = SECTIONS[tag]
        progression = [main[2], main[3], main[0], main[1]] if tag == "Bridge" else main
        for bar in range(bars):
            root, minor = progression[bar % len(progression)]
            root = piece.tonic + root
            if plan.drums != "none":
                _play_drums(desk, piece, plan.drums, now, bar % 4 == 3, bar == 0)
            if plan.bass:
                _play_bass(desk, piece, root, now, plan.bass)
            if plan.chords:
                _play_chords(desk, piece, root, minor, now, plan.chords)
            if plan.lead:
                lead = "voice" if lines else piece.lead
                for place, length, steps in motifs[tag]:
                    if place // piece.beats != bar % 2:
                        continue
                    place -= piece.beats * (bar % 2)
                    late = swing if place % 1 == 0.5 else 0.0
                    pitch = _melody_pitch(piece, root, minor, steps + 3 * plan.octave, place % 1 == 0)
                    desk.note(lead, pitch, now + (place + late) * piece.beat, length * piece.beat * 0.95,
                              MIX["lead"] * plan.lead)  # fmt: skip
            now += bar_seconds
    tail = piece.duration - now
    if tail > 0.05:
        minor = piece.mode == "minor"
        pitches = sorted(55 + (piece.tonic + i - 55) % 12 for i in (0, 3 if minor else 4, 7))
        for pitch in pitches:
            desk.note(piece.chords, pitch, now, tail, MIX["chords"] * 1.2)
        desk.note(piece.bass, 28 + (piece.tonic - 28) % 12, now, tail, MIX["bass"])
        desk.add(_drum(KITS[STYLES[piece.style].drums][0]), now, MIX["drums"])
    audio = desk.audio
    fade = min(int(0.4 * SAMPLE_RATE), audio.shape[1])
    audio[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    audio *= TARGET_RMS / np.sqrt(np.mean(audio**2) + 1e-12)
    # A soft limiter: straight below 0.6, bending towards 0.98 above.
    knee, top = np.float32(0.6), np.float32(0.98)
    over = np.abs(audio) - knee
    bent = knee + (top - knee) * np.tanh(np.maximum(over, 0) / (top - knee))
    return np.where(over > 0, np.sign(audio) * bent, audio)
