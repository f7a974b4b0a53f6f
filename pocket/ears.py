"""What the evaluation hears in a piece of audio: analysers that know nothing of the model.

Tempo and key come from essentia (RhythmExtractor2013, KeyExtractor; AGPL, used here only and no part of the program),
spectra and chroma from librosa, brightness and stereo from `fidelity.py`. Whether there are drums, whether somebody
sings and what style it is, classifiers of scikit-learn tell, fitted on true renders of songs that are not evaluated:
each song with and without the part in question, so that they listen for the part and not for what goes with it; in
hiss too, because the silence between hits, which only a synthesiser has, is no mark of drums; and through the
autoencoder, through which all is heard that the checkpoint makes.

Shapes: audio is [2, N] float32 at 48 kHz.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import band
import corpus
import essentia
import librosa
import numpy as np
from fidelity import RATE, low, mono
from scipy.signal import lfilter
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline as Classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sounds import FRAME, SAMPLE_RATE

essentia.log.infoActive = essentia.log.warningActive = False
import essentia.standard as essentia_standard  # noqa: E402 - it talks while it loads

TEMPO_TOLERANCE = 0.04
OCTAVES = (1.0, 0.5, 2.0)
PITCH_CLASS = {name: pitch for pitch, names in corpus.NOTE_NAMES.items() for name in names}
LONG = 2048  # samples at RATE, in which a low note has three periods and more
QUIET_DB = -50.0  # a part below this is absent
HISS_DB = (-45.0, -15.0)  # of the noise that parts are listened for in, against the music
EXCERPT = 12 * SAMPLE_RATE  # of each song that classifiers are fitted on


@dataclass(frozen=True)
class Heard:
    """Tempo and key."""

    bpm: float
    tonic: int
    mode: str

    def keeps_time(self, bpm: float) -> bool:
        """Whether it is at `bpm`, octaves allowed."""
        return any(abs(self.bpm / (bpm * factor) - 1) < TEMPO_TOLERANCE for factor in OCTAVES)

    def is_in(self, tonic: int, mode: str) -> bool:
        """Whether it is in that key or its relative."""
        relative = ((tonic + 9) % 12, "minor") if mode == "major" else ((tonic + 3) % 12, "major")
        return (self.tonic, self.mode) in ((tonic, mode), relative)


def pitch_and_mode(key: str) -> tuple[int, str]:
    """`Bb minor` as its tonic and mode."""
    note, mode = key.replace("♯", "#").replace("♭", "b").split()
    return (PITCH_CLASS[note[0]] + {"": 0, "#": 1, "b": -1}[note[1:]]) % 12, mode


def listen(audio: np.ndarray) -> Heard:
    at_44k = essentia_standard.Resample(inputSampleRate=SAMPLE_RATE, outputSampleRate=44_100)(mono(audio))
    bpm = essentia_standard.RhythmExtractor2013(method="multifeature")(at_44k)[0]
    key, mode, _ = essentia_standard.KeyExtractor(sampleRate=44_100, profileType="bgate")(at_44k)
    return Heard(bpm, PITCH_CLASS[key], mode)


def level_db(audio: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(audio, dtype=np.float64))) + 1e-9))


def timbre(audio: np.ndarray) -> np.ndarray:
    """What a clip sounds like, whatever is played: means and deviations of cepstrum, contrast, flux and percussion; of
    bands and of a finer cepstrum, and how fast that changes, where formants and vowels are.
    """
    wave = low(audio)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a band without any energy
        spectrum = np.abs(librosa.stft(wave, n_fft=1024, hop_length=512))
        cepstrum = librosa.feature.mfcc(S=librosa.power_to_db(librosa.feature.melspectrogram(S=spectrum**2, sr=RATE)))
        contrast = librosa.feature.spectral_contrast(S=spectrum, sr=RATE)
    tonal, struck = librosa.decompose.hpss(spectrum)
    share = (struck**2).sum(0) / ((tonal**2 + struck**2).sum(0) + 1e-9)
    flux = librosa.onset.onset_strength(S=librosa.power_to_db(spectrum**2), sr=RATE)
    rows = np.vstack([cepstrum, contrast, share, flux[: cepstrum.shape[1]]])
    bands = librosa.feature.melspectrogram(y=wave, sr=RATE, n_fft=LONG, hop_length=480, n_mels=64)
    bands = librosa.power_to_db(bands, top_db=80)
    finer = librosa.feature.mfcc(S=bands, n_mfcc=24)
    change, leap = librosa.feature.delta(finer), finer[:, 5:] - finer[:, :-5]
    return np.concatenate([
        rows.mean(1), rows.std(1), bands.mean(1), bands.std(1), finer.std(1), change.std(1), leap.std(1),
        np.abs(change).mean(1), np.quantile(finer, (0.1, 0.25, 0.5, 0.75, 0.9), axis=1).ravel(),
    ])  # fmt: skip


@dataclass(frozen=True)
class Judges:
    """Classifiers of clips: are there drums, does somebody sing, which style is it."""

    drums: Classifier
    voice: Classifier
    style: Classifier

    def has_drums(self, audio: np.ndarray) -> bool:
        return bool(self.drums.predict(timbre(audio)[None])[0])

    def sings(self, audio: np.ndarray) -> bool:
        return bool(self.voice.predict(timbre(audio)[None])[0])

    def leaning(self, audio: np.ndarray, style: str, other: str) -> float:
        """Log odds of the one style against the other."""
        names = list(self.style[-1].classes_)
        odds = self.style.predict_log_proba(timbre(audio)[None])[0]
        return float(odds[names.index(style)] - odds[names.index(other)])


def hissing(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip in noise of a random level and colour."""
    noise = rng.standard_normal(audio.shape).astype(np.float32)
    if rng.random() < 0.5:  # darker: 6 dB less for each octave above 1 kHz or so
        noise = lfilter([1.0], [1.0, -0.88], noise, axis=1).astype(np.float32)
    level = 10 ** (rng.uniform(*HISS_DB) / 20) * np.sqrt(np.mean(audio**2)) / np.sqrt(np.mean(noise**2))
    return audio + np.float32(level) * noise


def examples(seed: int, through: Callable[[np.ndarray], np.ndarray]) -> list[tuple[np.ndarray, str, bool, str]]:
    """(Timbre, the question it answers, the answer, style) of one song of the corpus; `through` an autoencoder too."""
    piece, rng = corpus.song(seed), np.random.default_rng([seed, 6])
    stems = {track: stem[:, :EXCERPT] for track, stem in band.play(piece).items()}

    def measured(clip: np.ndarray) -> list[np.ndarray]:
        """A clip and what comes back of it, and both in hiss."""
        clean = [clip, through(clip)]
        return [timbre(one) for one in (*clean, *(hissing(one, rng) for one in clean))]

    whole = measured(sum(stems.values()))
    found = [(x, "style", True, piece.style) for x in whole[:2]]
    for question, tracks in (("drums", {"drums"}), ("voice", {"vocals", "backing_vocals"})):
        heard = any(level_db(stems[track]) > QUIET_DB for track in tracks & set(stems))
        found += [(x, question, heard, piece.style) for x in whole]
        if heard and set(stems) - tracks:
            rest = measured(sum(stem for track, stem in stems.items() if track not in tracks))
            found += [(x, question, False, piece.style) for x in rest]
    return found


def fitted(found: list[tuple[np.ndarray, str, bool, str]]) -> Judges:
    def fit(question: str, judge: ClassifierMixin) -> Classifier:
        rows = [(x, style if question == "style" else answer) for x, asked, answer, style in found if asked == question]
        clips, answers = (np.array(column) for column in zip(*rows, strict=True))
        return make_pipeline(StandardScaler(), judge).fit(clips, answers)

    return Judges(
        drums=fit("drums", LogisticRegression(C=0.1, max_iter=2000)),
        voice=fit("voice", SVC(C=10.0)),
        style=fit("style", LogisticRegression(C=0.3, max_iter=2000)),
    )


def likeness(audio: np.ndarray, source: np.ndarray) -> float:
    """How much two recordings of one length share harmony and rhythm: the mean of the correlations of their chroma and
    of their onsets, -1 to 1.
    """
    found = []
    for wave in (low(audio), low(source)):
        chroma = librosa.feature.chroma_stft(y=wave, sr=RATE, n_fft=4096, hop_length=1024, tuning=0.0)
        found.append((chroma, librosa.onset.onset_strength(y=wave, sr=RATE, hop_length=512)))
    return float(np.mean([correlation(a, b) for a, b in zip(*found, strict=True)]))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    n = min(a.shape[-1], b.shape[-1])
    a, b = (x[..., :n].ravel() - x[..., :n].mean() for x in (a, b))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))


def si_sdr(guess: np.ndarray, truth: np.ndarray) -> float:
    """Scale-invariant signal to distortion ratio in dB (Le Roux et al., 2019)."""
    n = min(guess.shape[1], truth.shape[1])
    guess, truth = (x[:, :n].astype(np.float64).ravel() for x in (guess, truth))
    target = truth * (guess @ truth) / (truth @ truth + 1e-12)
    return float(10 * np.log10((target @ target + 1e-12) / (np.sum((guess - target) ** 2) + 1e-12)))


def centroid(audio: np.ndarray) -> float:
    """The spectral centroid, in octaves."""
    return float(np.log2(np.median(librosa.feature.spectral_centroid(y=low(audio), sr=RATE)) + 1))


def bars(piece: corpus.Song, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level in dB and the density of onsets of each whole bar."""
    wave = mono(audio)
    strength = librosa.onset.onset_strength(y=wave, sr=SAMPLE_RATE, hop_length=480)
    length = corpus.bar_frames(piece.bpm, piece.pulses) * FRAME
    count = sum(part.bars for part in piece.parts)
    spans = [(int(k * length), int((k + 1) * length)) for k in range(count) if (k + 1) * length <= len(wave)]
    levels = [level_db(wave[start:end]) for start, end in spans]
    return np.array(levels), np.array([strength[start // 480 : end // 480].mean() for start, end in spans])


def in_key(audio: np.ndarray, piece: corpus.Song) -> float:
    """The share of a bass line, by its power, that lies in the key of a song."""
    wave = low(audio)
    pitch = librosa.yin(wave, fmin=35, fmax=300, sr=RATE, frame_length=LONG, hop_length=LONG // 4)
    power = librosa.feature.rms(y=wave, frame_length=LONG, hop_length=LONG // 4)[0, : len(pitch)] ** 2
    scale = [(piece.tonic + step) % 12 for step in band.SCALES[piece.mode]]
    # The dominant of a minor key has a major third, which its scale lacks.
    scale += [(piece.tonic + 11) % 12] if piece.mode == "minor" else []
    within = np.isin(np.round(librosa.hz_to_midi(pitch)).astype(int) % 12, scale)
    return float(power[within].sum() / (power.sum() + 1e-12))
