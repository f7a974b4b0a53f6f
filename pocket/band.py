"""The band: it plays a song of the corpus and keeps the stems apart.

Shapes: N samples; a stem is stereo [2, N] float32 at 48 kHz. The stems of a song add up to its mix.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import corpus
import mixing
import numpy as np
import sounds
from corpus import SECTIONS, STYLES, Part, Song
from sounds import FRAME, SAMPLE_RATE, TIMBRES

GRID = FRAME // 2  # samples to which onsets are rounded: 20 ms, so that a drum has but two shapes in the latents
TARGET_RMS = 10 ** (-14 / 20)  # of a whole song
KNEE, CEILING = 0.6, 0.98  # of the limiter: straight below the one, bending towards the other above

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
# kit: (low drum, back-beat drum, ticking drum, low level, back level, tick level)
KITS = {
    "lofi": ("boom", "rim", "hat", 1.0, 0.55, 0.16),
    "house": ("kick", "clap", "open hat", 1.1, 0.55, 0.3),
    "rock": ("kick", "snare", "hat", 1.0, 0.85, 0.28),
    "synthwave": ("kick", "gated snare", "hat", 1.0, 0.85, 0.22),
    "folk": ("boom", "brush", "shaker", 0.8, 0.5, 0.25),
    "jazz": ("boom", "brush", "ride", 0.6, 0.45, 0.35),
    "hip-hop": ("808", "clap", "hat", 1.0, 0.7, 0.25),
    "reggae": ("boom", "rim", "hat", 1.0, 0.7, 0.2),
    "ballad": ("boom", "rim", "shaker", 0.8, 0.4, 0.12),
    "metal": ("tight kick", "snare", "crash", 0.9, 0.9, 0.14),
    "ambient": ("heart", "rim", "shaker", 0.8, 0.2, 0.12),
    "chip": ("chip kick", "noise snare", "noise hat", 0.7, 0.5, 0.2),
}
# Where a kit plays, in pulses of a bar of four (shorter bars keep what fits).
EIGHTHS = (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5)
PATTERNS = {
    "lofi": ((0, 2.5), (1, 3), EIGHTHS),
    "house": ((0, 1, 2, 3), (1, 3), (0.5, 1.5, 2.5, 3.5)),
    "rock": ((0, 2, 2.5), (1, 3), EIGHTHS),
    "synthwave": ((0, 2), (1, 3), EIGHTHS),
    "folk": ((0, 2), (1, 3), EIGHTHS),
    "jazz": ((0, 2), (1, 3), (0, 1, 1.5, 2, 3, 3.5)),
    "hip-hop": ((0, 1.5, 2.75), (1, 3), (*EIGHTHS, 3.25, 3.75)),
    "reggae": ((2,), (2,), EIGHTHS),
    "ballad": ((0, 2.5), (1, 3), (0, 1, 2, 3)),
    "metal": (EIGHTHS, (1, 3), (0, 1, 2, 3)),
    "ambient": ((0, 1, 2, 3), (2,), (0.5, 1.5, 2.5, 3.5)),
    "chip": ((0, 2), (1, 3), EIGHTHS),
}
SWING = {"lofi": 0.12, "jazz": 0.16}  # pulses by which an off-beat is late
MIX = {"drums": 0.42, "bass": 0.25, "chords": 0.105, "lead": 0.13, "voice": 0.22, "backing": 0.09}
PANS = (-0.25, 0.0, 0.25, 0.0)  # of the tones of a chord
BACKING_PAN = -0.25
WIDTH = 2.0  # by which places are further out in a mix than in a dry recording
THIRD = 1.35  # of a chord is louder: it alone tells the mode


class Event(NamedTuple):
    """Something that is played: by which part (a key of `MIX`; of the drums `low`, `back`, `tick`, `crash`), on which
    track, at which MIDI pitch (drums: 0), from which sample of the song and for how many.
    """

    part: str
    track: str
    pitch: int
    start: int
    length: int


class Desk:
    """The stems of a song while they are played, and a list of what was; a silent one only lists, a dry one leaves out
    the noise that belongs to tones and the mix.
    """

    def __init__(self, piece: Song, silent: bool = False, dry: bool = False) -> None:
        self.samples, self.silent, self.dry = piece.duration * SAMPLE_RATE, silent, dry
        self.stems: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((2, self.samples), np.float32))
        self.events: list[Event] = []

    def start(self, seconds: float) -> int:
        """The sample at which something that is due at `seconds` begins."""
        return round(seconds * SAMPLE_RATE / GRID) * GRID

    def add(self, track: str, sound: np.ndarray, start: int, level: float, pan: float = 0.0) -> None:
        """Add a sound [N] at a sample; pan runs from -1 (left) to 1 (right)."""
        length = min(len(sound), self.samples - start)
        pan *= 1.0 if self.dry else WIDTH
        if length > 0 and level:
            for side, gain in enumerate((1 - max(pan, 0), 1 + min(pan, 0))):
                self.stems[track][side, start : start + length] += np.float32(level * gain) * sound[:length]

    def due(self, part: str, track: str, pitch: int, seconds: float, length: float, level: float) -> int | None:
        """The sample at which a part begins, noted down; None for what is not to be heard, or was only to be noted."""
        start = self.start(seconds)
        if start >= self.samples or not level:
            return None
        self.events.append(Event(part, track, pitch, start, int(length * SAMPLE_RATE)))
        return None if self.silent else start

    def hit(self, part: str, drum: str, seconds: float, level: float, pan: float = 0.0) -> None:
        start = self.due(part, "drums", 0, seconds, 0.0, level)
        if start is not None:
            self.add("drums", sounds.drum(drum), start, level * MIX["drums"], pan)

    def note(
        self, part: str, timbre: str, pitch: int, seconds: float, length: float, level: float, pan: float = 0.0
    ) -> None:
        start = self.due(part, TIMBRES[timbre].track, pitch, seconds, length, level)
        if start is not None:
            sound = sounds.note(timbre, pitch, start, length, not self.dry)
            self.add(TIMBRES[timbre].track, sound, start, level * MIX[part], pan)

    def sing(self, part: str, sung: tuple[str, str], pitch: int, seconds: float, length: float, level: float) -> None:
        track = {"voice": "vocals", "backing": "backing_vocals"}[part]
        start = self.due(part, track, pitch, seconds, length, level)
        if start is not None:
            sound = sounds.syllable(*sung, pitch, start, length, not self.dry)
            self.add(track, sound, start, level * MIX[part], BACKING_PAN if part == "backing" else 0.0)


def _play_drums(desk: Desk, piece: Song, manner: str, start: float, last_of_four: bool, first: bool) -> None:
    """One bar of the kit. The last bar of four ends with a short fill."""
    kit = STYLES[piece.style].kit
    low, back, tick, low_level, back_level, tick_level = KITS[kit]
    lows, backs, ticks = PATTERNS[kit]
    if piece.pulses == 3:
        lows, backs, ticks = (0,), (1, 2), tuple(p for p in ticks if p < 3)
        back_level *= 0.7
    elif piece.pulses == 2:  # of three eighths each
        lows, backs, ticks = (0,), (1,), tuple(k / 3 for k in range(6))
    swing = SWING.get(kit, 0.0)

    def when(place: float) -> float:
        return start + (place + (swing if place % 1 == 0.5 else 0)) * piece.pulse

    for place in lows:
        desk.hit("low", low, when(place), low_level)
    if manner != "light":
        for place in backs:
            desk.hit("back", back, when(place), back_level, 0.05)
        if last_of_four and piece.pulses == 4:
            for place in (3.5, 3.75):
                desk.hit("back", back, when(place), back_level * 0.6, -0.1)
    for place in ticks:
        desk.hit("tick", tick, when(place), tick_level * (1.0 if place % 1 == 0 else 0.75), 0.3)
    if manner == "big" and first:
        desk.hit("crash", "crash", start, 0.55, -0.2)


def _play_bass(desk: Desk, piece: Song, root: int, start: float, level: float) -> None:
    """One bar of bass on the chord's root, between E1 and D#2."""
    pulse, pulses = piece.pulse, piece.pulses
    pitch = 28 + (root - 28) % 12
    step = 1 / 3 if pulses == 2 else 0.5
    steps = round(pulses / step)
    match STYLES[piece.style].bass_pattern:
        case "long":
            notes = [(0.0, pulses * 0.95, 0)]
        case "offbeat":
            notes = [(0.0, 0.4, 0), *((k + 0.5, 0.45, 0) for k in range(pulses))]
        case "octaves":
            notes = [(k * step, step * 0.9, 12 * (k % 2)) for k in range(steps)]
        case "eighths":
            notes = [(k * step, step * 0.9, 0) for k in range(steps)]
        case "root-fifth":
            notes = [(float(k), 0.9, 7 if k % 2 else 0) for k in range(pulses)]
        case "walking":
            notes = [(float(k), 0.92, climb) for k, climb in zip(range(pulses), (0, 7, 12, 7), strict=False)]
        case "syncopated":
            notes = [(0.0, 1.3, 0), (1.5, 1.0, 0), (2.75, 1.0, 12)] if pulses == 4 else [(0.0, pulses * 0.9, 0)]
    for place, length, climb in notes:
        desk.note("bass", piece.bass, pitch + climb, start + place * pulse, length * pulse, level)


def _triad(root: int, minor: bool) -> list[int]:
    """Voiced between G3 and F#4, so that voices move little."""
    return sorted(55 + (root + interval - 55) % 12 for interval in (0, 3 if minor else 4, 7))


def _play_chords(desk: Desk, piece: Song, root: int, minor: bool, start: float, level: float) -> None:
    """One bar of the triad."""
    pitches, pulse, pulses = _triad(root, minor), piece.pulse, piece.pulses
    places: list[tuple[float, float]]
    eighth = 1 / 3 if pulses == 2 else 0.5
    match STYLES[piece.style].chord_pattern:
        case "hold":
            places = [(0, pulses)]
        case "offbeat":
            places = [(k + 0.5, 0.45) for k in range(pulses)]
        case "eighths":
            pitches = [pitches[0] - 12, *pitches]
            places = [(k * eighth, eighth) for k in range(round(pulses / eighth))]
        case "gallop":
            pitches = [pitches[0] - 12, pitches[0], pitches[2]]
            places = [(k + p, 0.24) for k in range(pulses) for p in (0, 0.5, 0.75)]
        case "strum":
            places = [(k, 1) for k in range(pulses)]
        case "comp":
            places = [(0, 0.9), (1.5 + SWING["jazz"], 0.5), *([(3, 0.7)] if pulses == 4 else [])]
        case "stabs":
            places = [(0, 0.6), (1.5, 0.4), *([(2.5, 0.4)] if pulses == 4 else [])]
        case "arpeggio":
            chip = TIMBRES[piece.chords].track == "synth"
            step = 0.25 if chip else eighth
            for k in range(round(pulses / step)):
                pitch = [*pitches, pitches[0] + 12][k % 4] + (12 if chip else 0)
                desk.note("chords", piece.chords, pitch, start + k * step * pulse, pulse * step * (1 if chip else 2),
                          2 * level, -0.2)  # fmt: skip
            return
    if "drums" in piece.left_out and len(places) == 1:  # then the chords keep the time
        places = [(k, 1) for k in range(pulses)]
    third = (root + (3 if minor else 4)) % 12
    for place, hold in places:
        for pitch, pan in zip(pitches, PANS, strict=False):
            loud = level * (THIRD if pitch % 12 == third else 1)
            desk.note("chords", piece.chords, pitch, start + place * pulse, hold * pulse, loud, pan)


def _motif(rng: np.random.Generator, pulses: int) -> list[tuple[float, float, int]]:
    """Two bars of melody: (pulse, length in pulses, steps of the scale above the chord's nearest tone)."""
    grid = 1 / 3 if pulses == 2 else 0.5
    spots = [0.0]
    while spots[-1] < 2 * pulses - 1.5:
        spots.append(spots[-1] + grid * rng.choice([1, 2, 2, 3] if pulses != 2 else [1, 2, 3, 3]))
    ends = [*spots[1:], 2.0 * pulses - 0.5]
    walk = np.cumsum(rng.choice([-2, -1, -1, 0, 1, 1, 2], len(spots)))
    return [(a, min(b - a, 2.0), int(np.clip(w, -3, 4))) for a, b, w in zip(spots, ends, walk, strict=True)]


def _melody_pitch(piece: Song, chord: tuple[int, bool], steps: int, strong: bool, centre: int = 69) -> int:
    """A pitch around A4: chord tones on strong pulses, the scale between them."""
    root, minor = chord
    tones = (
        [(root + i) % 12 for i in (0, 3 if minor else 4, 7)]
        if strong
        else [(piece.tonic + i) % 12 for i in SCALES[piece.mode]]
    )
    wanted = centre + round(1.75 * steps)
    return min((p for p in range(52, 84) if p % 12 in tones), key=lambda p: (abs(p - wanted), p))


def _sing(
    desk: Desk, piece: Song, part: Part, motif: list, chords: list[tuple[int, bool]], start: float, first: int
) -> None:
    """The lines of a section, spread evenly over its bars; each fills seven eighths of its time with its syllables."""
    plan, eighth = SECTIONS[part.tag], 1 / 3 if piece.pulses == 2 else 0.5
    span = part.bars * piece.pulses / len(part.lines)  # pulses
    for number, line in enumerate(part.lines):
        spelled = " ".join(corpus.SINGING.get(word, word) for word in line.split())
        sung = sounds.syllables(spelled, piece.language in corpus.MUTE_E)
        slots = max(1, int(span * 7 / 8 / eighth))
        sung = sung[:slots]
        places = [round(k * slots / len(sung)) * eighth for k in range(len(sung) + 1)]
        for place, after, syllable in zip(places, places[1:], sung, strict=False):
            when = number * span + place
            bar = min(int(when / piece.pulses), part.bars - 1)
            turn = (when + first * piece.pulses) % (2 * piece.pulses)
            steps = next((s for p, _, s in reversed(motif) if p <= turn), 0)
            pitch = _melody_pitch(piece, chords[bar], steps + 2 * plan.octave, place % 1 == 0, 64)
            seconds, length = start + when * piece.pulse, (after - place) * piece.pulse * 0.97
            desk.sing("voice", syllable, pitch, seconds, length, plan.lead)
            if part.tag == "Chorus":
                below = _melody_pitch(piece, chords[bar], steps - 1, True, 64)
                desk.sing("backing", ("", "u"), below, seconds, length, 1.0)


def play(piece: Song, dry: bool = False) -> dict[str, np.ndarray]:
    """The stems of a song by track, [2, duration * 48000] each; their sum has -14 dBFS RMS and peaks below 0.98.

    Dry, it is the same music without air, brightness and room: as the corpus was before it had them.
    """
    desk = Desk(piece, dry=dry)
    _perform(desk, piece)
    return _mastered(desk.stems if dry else mixing.mixed(desk.stems), piece)


def score(piece: Song) -> list[Event]:
    """What is played in a song, without a sound of it."""
    desk = Desk(piece, silent=True)
    _perform(desk, piece)
    return desk.events


def _perform(desk: Desk, piece: Song) -> None:
    tune = list(STYLES).index(piece.tune)
    main = PROGRESSIONS[piece.mode][(tune + piece.variant) % len(PROGRESSIONS[piece.mode])]
    motifs = [_motif(np.random.default_rng([tune, piece.variant, raised]), piece.pulses) for raised in (0, 1)]
    bar_seconds, swing = piece.pulse * piece.pulses, SWING.get(STYLES[piece.style].kit, 0.0)
    bar = 0  # of the song
    for part in piece.parts:
        plan = SECTIONS[part.tag]
        motif = motifs[plan.octave]
        # A bridge is two bars ahead of the others, so that it does not begin on the tonic.
        turn = bar + (2 if part.tag == "Bridge" else 0)
        progression = [main[(turn + k) % len(main)] for k in range(part.bars)]
        chords = [(piece.tonic + root, minor) for root, minor in progression]
        if part.lines:
            _sing(desk, piece, part, motif, chords, bar * bar_seconds, bar)
        for number, chord in enumerate(chords):
            now = bar * bar_seconds
            if plan.drums != "none" and "drums" not in piece.left_out:
                _play_drums(desk, piece, plan.drums, now, bar % 4 == 3, number == 0)
            if "bass" not in piece.left_out:
                _play_bass(desk, piece, chord[0], now, plan.bass)
            _play_chords(desk, piece, *chord, now, plan.chords)
            led = plan.lead and not part.lines and "lead" not in piece.left_out
            for place, length, steps in motif if led else ():
                if place // piece.pulses == bar % 2:
                    place %= piece.pulses
                    late = swing if place % 1 == 0.5 else 0.0
                    pitch = _melody_pitch(piece, chord, steps + 3 * plan.octave, place % 1 == 0)
                    desk.note("lead", piece.lead, pitch, now + (place + late) * piece.pulse,
                              length * piece.pulse * 0.95, plan.lead)  # fmt: skip
            bar += 1
    if piece.duration - bar * bar_seconds > 0.05:
        _close(desk, piece, bar * bar_seconds)


def _close(desk: Desk, piece: Song, now: float) -> None:
    """The last, incomplete bar: the tonic chord, held, by those who were playing."""
    tail, plan = piece.duration - now, SECTIONS[piece.parts[-1].tag]
    for pitch in _triad(piece.tonic, piece.mode == "minor"):
        desk.note("chords", piece.chords, pitch, now, tail, 1.0)
    if "bass" not in piece.left_out and plan.bass:
        desk.note("bass", piece.bass, 28 + (piece.tonic - 28) % 12, now, tail, 1.0)
    if "drums" not in piece.left_out and plan.drums != "none":
        desk.hit("low", KITS[STYLES[piece.style].kit][0], now, 1.0)


def _mastered(stems: dict[str, np.ndarray], piece: Song) -> dict[str, np.ndarray]:
    """Fade, level and limit the mix, each stem by the gain that the mix gets."""
    mix = sum(stems.values())
    gain = np.full(mix.shape[1], TARGET_RMS / np.sqrt(np.mean(mix**2) + 1e-12), np.float32)
    fade = min(int(0.4 * SAMPLE_RATE), len(gain))
    gain[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    level = np.abs(mix * gain)
    over = np.maximum(level - KNEE, 0)
    bent = KNEE + (CEILING - KNEE) * np.tanh(over / (CEILING - KNEE))
    limited = gain * np.where(over > 0, bent / np.maximum(level, 1e-9), 1)
    return {track: stem * limited for track, stem in sorted(stems.items())}


def render(piece: Song, dry: bool = False) -> np.ndarray:
    """The mix alone."""
    return sum(play(piece, dry).values())
