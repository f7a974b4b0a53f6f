"""Every sound of the corpus: pitched timbres, a voice and drums, as sums of sines and shaped noise.

Nothing is sampled or borrowed. What makes the sounds learnable by six narrow layers is their tuning:

* every partial lies on a multiple of `QUANTUM` (1.25 Hz), at most 26 cents off at the lowest bass note and 4 cents in
  the middle of the piano, so that it turns a whole number of times in twenty latent frames (four audio codes);
* its phase depends on the time of the song and not on when the note began, as with an organ whose wheels never stop.

A held tone then comes back to the same latents every twenty frames, and which frame of the twenty it is, the clock
in the silence latent tells (`encode.clock`). An autoencoder at 25 Hz can hold a tone only by its phase; with phases
that began anew at each note, two hours of training left two thirds of the keys wrong.

Shapes: N samples; a sound is mono float64 [N] at 48 kHz.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np

SAMPLE_RATE = 48_000
FRAME = 1920  # samples in a latent frame
PERIOD = 20 * FRAME  # samples after which every tone begins again
QUANTUM = SAMPLE_RATE / PERIOD  # Hz
VIBRATO = 4 * QUANTUM  # Hz: 5, once in five frames
RELEASE = 0.03  # seconds over which a note that is cut short fades
LONGEST = 8.2  # seconds of a note: two bars at 60 bpm
HIGHEST = 11_000  # Hz; above this the little autoencoder keeps only noise


@dataclass(frozen=True)
class Timbre:
    """How a note sounds: partials as (multiple of the fundamental, level, decay in 1/s), and its family's track."""

    track: str
    partials: tuple[tuple[float, float, float], ...]
    attack: float = 0.004  # seconds
    vibrato: float = 0.0  # share of the frequency
    drive: float = 0.0  # of a saturation after the sum
    air: tuple[float, float, float, float] | None = None  # noise beside the tone: lowest and highest Hz, RMS, decay


def _series(count: int, fall: float, decay: float, rise: float = 0.0, odd: bool = False) -> tuple:
    """`count` partials whose levels fall as k ** -fall and which decay at `decay + rise * k`."""
    return tuple((k, k**-fall, decay + rise * k) for k in range(1, count + 1) if k % 2 or not odd)


# Noise that belongs to a tone: of a hammer, a pick, a finger on a string; of a bow; of breath.
STRUCK, PLUCKED, FINGERED = (2500, 11000, 0.25, 35), (3000, 12000, 0.3, 25), (1200, 6000, 0.15, 30)
BOWED, BLOWN, BREATHED = (3000, 11000, 0.07, 0), (3000, 11000, 0.04, 0), (3000, 12000, 0.1, 0)

TIMBRES = {
    "piano": Timbre("keyboard", _series(8, 1.3, 1.2, 0.9), 0.003, air=STRUCK),
    "rhodes": Timbre("keyboard", ((1, 1, 1.5), (2, 0.35, 3), (3, 0.12, 5), (7, 0.06, 14)), air=STRUCK),
    "organ": Timbre("keyboard", ((1, 1, 0), (2, 0.7, 0), (3, 0.4, 0), (4, 0.3, 0), (8, 0.15, 0)), 0.008, air=BLOWN),
    "vibraphone": Timbre("percussion", ((1, 1, 2), (4, 0.25, 5), (10, 0.05, 16)), 0.002, air=STRUCK),
    "bells": Timbre("percussion", ((1, 1, 1.6), (2.76, 0.4, 3), (5.4, 0.2, 6)), 0.002, air=STRUCK),
    "acoustic guitar": Timbre("guitar", _series(9, 1.1, 2, 0.8), 0.002, air=PLUCKED),
    "clean guitar": Timbre("guitar", _series(7, 1.5, 3, 1.2), 0.003, air=PLUCKED),
    "distorted guitar": Timbre("guitar", _series(12, 0.8, 0.6, 0.15), drive=1.5, air=BOWED),
    "lead guitar": Timbre("guitar", _series(9, 0.9, 0.5), 0.01, 0.003, 1.5, air=BOWED),
    "strings": Timbre("strings", _series(9, 1.1, 0), 0.09, 0.003, air=BOWED),
    "fiddle": Timbre("strings", _series(8, 1.0, 0), 0.05, 0.003, air=BOWED),
    "brass section": Timbre("brass", ((1, 0.7, 0.5), (2, 1, 0.5), (3, 0.9, 1), (4, 0.7, 1.5), (5, 0.5, 2)), 0.02,
        air=BLOWN),
    "trumpet": Timbre("brass", ((1, 0.6, 0), (2, 0.9, 0), (3, 1, 0), (4, 0.7, 0), (5, 0.4, 0)), 0.02, 0.003, air=BLOWN),
    "flute": Timbre("woodwinds", ((1, 1, 0), (2, 0.25, 0), (3, 0.08, 0)), 0.04, 0.003, air=BREATHED),
    "saxophone": Timbre("woodwinds", ((1, 0.8, 0), (2, 1, 0), (3, 0.7, 0), (4, 0.5, 0), (5, 0.25, 0)), 0.03, 0.003,
        air=BREATHED),
    "synth pad": Timbre("synth", _series(7, 1.4, 0), 0.1, air=BLOWN),
    "warm pad": Timbre("synth", _series(4, 2.0, 0), 0.2, air=BLOWN),
    "synth stabs": Timbre("synth", _series(8, 1, 5, 0.5), 0.003, air=PLUCKED),
    "square arpeggio": Timbre("synth", _series(9, 1, 4, odd=True), 0.002, air=PLUCKED),
    "square lead": Timbre("synth", _series(11, 1, 0.8, odd=True), 0.003, 0.003, air=BLOWN),
    "saw lead": Timbre("synth", _series(10, 1, 0.5), 0.008, 0.003, air=BOWED),
    "pluck synth": Timbre("synth", _series(8, 1, 4, 1.5), 0.002, air=PLUCKED),
    "sub bass": Timbre("bass", ((1, 1, 0.6), (2, 0.35, 1.5), (3, 0.12, 3)), 0.008),
    "808 bass": Timbre("bass", ((1, 1, 1.2), (2, 0.5, 2), (3, 0.25, 4)), 0.004, drive=1.2),
    "synth bass": Timbre("bass", _series(10, 1, 2, 0.8), air=FINGERED),
    "electric bass": Timbre("bass", _series(7, 1.2, 1.5, 0.7), air=FINGERED),
    "upright bass": Timbre("bass", _series(5, 1.4, 2.5, 1.0), 0.008, air=FINGERED),
    "triangle bass": Timbre("bass", _series(7, 2, 0.8, odd=True), 0.003),
}  # fmt: skip

# Of each vowel: formants as (Hz, width in Hz, level). Peterson and Barney's averages, rounded.
VOWELS = {
    "a": ((750, 130, 1.0), (1200, 160, 0.55), (2600, 250, 0.2)),
    "e": ((530, 110, 1.0), (1850, 200, 0.45), (2550, 250, 0.25)),
    "i": ((330, 100, 1.0), (2350, 220, 0.4), (3050, 260, 0.3)),
    "o": ((540, 110, 1.0), (900, 140, 0.6), (2500, 250, 0.08)),
    "u": ((360, 100, 1.0), (820, 130, 0.35), (2400, 250, 0.05)),
}
VOICE = Timbre("vocals", tuple((k, 1.0, 0.0) for k in range(1, 15)), 0.03, 0.003, air=BREATHED)
#: What is heard of a consonant: the letters, and (low Hz, high Hz, seconds, level) of a burst of noise.
CONSONANTS = (
    ("sšzžcçx", (5000, 12000, 0.08, 0.7)),
    ("jʃ", (2500, 8000, 0.07, 0.6)),
    ("fvhθ", (2000, 12000, 0.06, 0.35)),
    ("tkqp", (2500, 10000, 0.02, 1.0)),
    ("dgb", (300, 2500, 0.02, 0.6)),
)


def tuned(hertz: float) -> float:
    """The nearest frequency, in Hz, that turns a whole number of times in `PERIOD`."""
    return max(1, round(hertz / QUANTUM)) * QUANTUM


def hertz_of(pitch: int) -> float:
    """A MIDI pitch in equal temperament, A4 = 440 Hz, as near as the tuning comes."""
    return tuned(440 * 2 ** ((pitch - 69) / 12))


@cache
def _wheel(multiple: float, vibrato: float, pitch: int) -> np.ndarray:
    """The sine of a pitch's partial over one `PERIOD`, twice over so that any stretch of one is a slice."""
    t = np.arange(PERIOD) / SAMPLE_RATE
    hertz = hertz_of(pitch)
    if hertz * multiple >= HIGHEST:
        return np.zeros(2 * PERIOD, np.float32)
    sway = vibrato * hertz / VIBRATO * np.sin(2 * np.pi * VIBRATO * t)
    return np.tile(np.sin(2 * np.pi * tuned(hertz * multiple) * t + multiple * sway).astype(np.float32), 2)


@cache
def _breath(low: float, high: float) -> np.ndarray:
    """Noise of unit RMS between two frequencies, likewise: it too comes back with every `PERIOD`."""
    noise = _band(np.random.default_rng([int(low), int(high), 7]).standard_normal(PERIOD), low, high)
    return np.tile((noise / np.sqrt(np.mean(noise**2))).astype(np.float32), 2)


@cache
def _fall(decay: float, attack: float) -> np.ndarray:
    t = np.arange(int(LONGEST * SAMPLE_RATE)) / SAMPLE_RATE
    return (np.exp(-decay * t) * np.minimum(t / attack, 1)).astype(np.float32)


def _turn(timbre: Timbre, levels: np.ndarray, pitch: int, start: int, length: int) -> np.ndarray:
    """`length` samples of a note that begins at sample `start` of the song."""
    sound = np.zeros(length, np.float32)
    for (multiple, _, decay), level in zip(timbre.partials, levels, strict=True):
        if level:
            levels_now = np.float32(level) * _fall(decay, timbre.attack)[:length]
            _add(sound, _wheel(multiple, timbre.vibrato, pitch), levels_now, start)
    return sound


def _add(sound: np.ndarray, wheel: np.ndarray, levels: np.ndarray, start: int) -> None:
    """Add a wheel, at its place at sample `start` of the song, to a sound."""
    offset = start % PERIOD
    for begin in range(0, len(sound), PERIOD):
        end = min(begin + PERIOD, len(sound))
        sound[begin:end] += levels[begin:end] * wheel[offset : offset + end - begin]


def _aired(timbre: Timbre, sound: np.ndarray, start: int) -> np.ndarray:
    """A note with the noise that belongs to it."""
    if timbre.air:
        low, high, level, decay = timbre.air
        _add(sound, _breath(low, high), np.float32(level) * _fall(decay, timbre.attack)[: len(sound)], start)
    return sound


@cache
def _levels(timbre: Timbre, pitch: int) -> np.ndarray:
    """The levels of a timbre's partials, for unit RMS over its first quarter second."""
    levels = np.array([level for _, level, _ in timbre.partials])
    return levels / np.sqrt(np.mean(_turn(timbre, levels, pitch, 0, SAMPLE_RATE // 4) ** 2))


@cache
def _sung(vowel: str, pitch: int) -> np.ndarray:
    """The levels of the voice's partials on a vowel, likewise."""
    hertz = hertz_of(pitch)
    place = hertz * np.arange(1, len(VOICE.partials) + 1)
    levels = 0.03 * hertz / place + sum(a * np.exp(-(((place - f) / w) ** 2)) for f, w, a in VOWELS[vowel])
    return levels / np.sqrt(np.mean(_turn(VOICE, levels, pitch, 0, SAMPLE_RATE // 4) ** 2))


def _released(sound: np.ndarray) -> np.ndarray:
    fade = min(int(RELEASE * SAMPLE_RATE), len(sound))
    sound[len(sound) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return sound


def _length(seconds: float) -> int:
    return min(int(seconds * SAMPLE_RATE), int(LONGEST * SAMPLE_RATE))


def note(name: str, pitch: int, start: int, seconds: float, air: bool = True) -> np.ndarray:
    """A note of a timbre, of about unit RMS, from sample `start` of the song on; without `air` its tone alone."""
    timbre = TIMBRES[name]
    sound = _turn(timbre, _levels(timbre, pitch), pitch, start, _length(seconds))
    if timbre.drive:
        sound = np.tanh(timbre.drive * sound) / np.float32(np.tanh(timbre.drive))
    return _released(_aired(timbre, sound, start) if air else sound)


def syllable(consonant: str, vowel: str, pitch: int, start: int, seconds: float, air: bool = True) -> np.ndarray:
    """A sung syllable, likewise: the hint of a consonant, then the vowel."""
    sound = _turn(VOICE, _sung(vowel, pitch), pitch, start, _length(seconds))
    burst = _burst(consonant)[: len(sound)]
    sound[: len(burst)] += burst
    return _released(_aired(VOICE, sound, start) if air else sound)


def syllables(text: str, mute_e: bool) -> list[tuple[str, str]]:
    """(Consonant, vowel) of each syllable of a text in Latin letters, as far as a hint goes: `rain` is `r`, `a`.

    A closing e after a vowel and a consonant is silent where `mute_e` says so.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    found = []
    for word in re.findall(r"[^\W\d_]+", plain):
        word = re.sub(r"(?<=[aeiouy])([^aeiouy])e(s?)$", r"\1\2", word) if mute_e else word
        found += [(c[-1:], v[0].replace("y", "i")) for c, v in re.findall(r"([^aeiouy]*)([aeiouy]+)", word)]
    return found


@cache
def _burst(consonant: str) -> np.ndarray:
    for letters, (low, high, seconds, level) in CONSONANTS:
        if consonant and consonant in letters:
            noise = np.random.default_rng([ord(letters[0]), 7]).standard_normal(int(seconds * SAMPLE_RATE))
            shape = np.hanning(2 * len(noise))[len(noise) :]
            return (level * 3 * _band(noise, low, high) * shape).astype(np.float32)
    return np.zeros(0, np.float32)


def _band(noise: np.ndarray, low: float, high: float) -> np.ndarray:
    """Keep the frequencies between low and high, in Hz, with soft edges."""
    f = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    gain = 1 / (1 + (low / np.maximum(f, 1)) ** 8) / (1 + (f / high) ** 8)
    return np.fft.irfft(np.fft.rfft(noise) * gain, len(noise))


DRUM_SECONDS = {"crash": 1.4, "ride": 0.5, "open hat": 0.3, "kick": 0.32, "boom": 0.4, "808": 0.6}


@cache
def drum(name: str) -> np.ndarray:
    """One drum hit, peak 1. The noise of a drum is always the same noise."""
    seconds = DRUM_SECONDS.get(name, 0.25)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng([sum(map(ord, name)), 7]).standard_normal(len(t))

    def sweep(start: float, end: float, rate: float) -> np.ndarray:
        """A sine that falls from start to end Hz."""
        return np.sin(2 * np.pi * (end * t + (start - end) / rate * (1 - np.exp(-rate * t))))

    match name:
        case "kick":
            hit = sweep(180, 52, 35) * np.exp(-11 * t) + 0.25 * _band(noise, 1500, 5000) * np.exp(-200 * t)
        case "tight kick":
            hit = sweep(240, 60, 50) * np.exp(-22 * t) + 0.5 * _band(noise, 2000, 7000) * np.exp(-200 * t)
        case "boom":
            hit = sweep(110, 48, 25) * np.exp(-8 * t)
        case "808":
            hit = np.tanh(1.5 * sweep(160, 46, 30) * np.exp(-5 * t))
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
