"""Judge the built-in checkpoint on prompts it never saw, next to what no model could beat.

    pip install essentia librosa
    python pocket/evaluate.py --count 40

Three rows: the true renders of the held-out songs, the same through the autoencoder and back, and what the
checkpoint makes of their prompts through the program's own pipeline, eight steps, one seed each. Tempo and key are
measured by essentia (RhythmExtractor2013, KeyExtractor; AGPL, used here only and not shipped), spectral flatness by
librosa. "Shuffled" scores the same audio against the other prompts; p is the share of 10,000 shuffles that do as
well as the true pairing.
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import corpus
import essentia
import librosa
import numpy as np
import soundfile
import torch

from acestep_cli import checkpoints, hardware, memory, modes, planning
from acestep_cli.engine.store import Store
from acestep_cli.pipeline import Pipeline
from acestep_cli.request import Request

essentia.log.infoActive = essentia.log.warningActive = False
import essentia.standard as essentia_standard  # noqa: E402 - it talks while it loads

SHUFFLES = 10_000
TEMPO_TOLERANCE = 0.04
OCTAVES = (1.0, 0.5, 2.0)
PITCH_CLASS = {name: pitch for pitch, names in corpus.NOTE_NAMES.items() for name in names}


@dataclass(frozen=True)
class Heard:
    """What the analysers say about one piece of audio."""

    bpm: float
    tonic: int
    mode: str
    flatness: float
    peak: float
    rms_db: float


def listen(audio: np.ndarray) -> Heard:
    """Analyse [2, N] at 48 kHz."""
    mono = audio.mean(0).astype(np.float32)
    at_44k = essentia_standard.Resample(inputSampleRate=corpus.SAMPLE_RATE, outputSampleRate=44_100)(mono)
    bpm = essentia_standard.RhythmExtractor2013(method="multifeature")(at_44k)[0]
    key, mode, _ = essentia_standard.KeyExtractor(sampleRate=44_100, profileType="bgate")(at_44k)
    flatness = float(np.median(librosa.feature.spectral_flatness(y=mono)))
    rms = float(np.sqrt(np.mean(audio**2)))
    return Heard(bpm, PITCH_CLASS[key], mode, flatness, float(np.abs(audio).max()), 20 * np.log10(rms + 1e-9))


def agreement(heard: list[Heard], songs: list[corpus.Song], agree) -> tuple[np.ndarray, float, float]:
    """Which pieces agree with their own prompt, the share that agrees with shuffled prompts, and p."""
    table = np.array([[agree(h, s) for s in songs] for h in heard], float)
    rng, everyone = np.random.default_rng(0), np.arange(len(songs))
    shuffled = np.array([table[everyone, rng.permutation(everyone)].mean() for _ in range(SHUFFLES)])
    own = table.diagonal()
    return own, float(shuffled.mean()), float((1 + (shuffled >= own.mean() - 1e-9).sum()) / (1 + SHUFFLES))


def tempo(heard: Heard, song: corpus.Song, factors=OCTAVES) -> bool:
    return any(abs(heard.bpm / (song.bpm * factor) - 1) < TEMPO_TOLERANCE for factor in factors)


def key(heard: Heard, song: corpus.Song) -> bool:
    return (heard.tonic, heard.mode) == (song.tonic, song.mode)


def row(name: str, heard: list[Heard], songs: list[corpus.Song]) -> str:
    """One line of the table."""
    exact, _, _ = agreement(heard, songs, lambda h, s: tempo(h, s, (1.0,)))
    octave, octave_shuffled, octave_p = agreement(heard, songs, tempo)
    keys, keys_shuffled, keys_p = agreement(heard, songs, key)
    flatness, peak, rms = (np.array([getattr(h, field) for h in heard]) for field in ("flatness", "peak", "rms_db"))
    return (
        f"| {name} | {octave.mean():.0%} ({exact.mean():.0%}) | {octave_shuffled:.0%} | {octave_p:.4f} "
        f"| {keys.mean():.0%} | {keys_shuffled:.0%} | {keys_p:.4f} "
        f"| {np.median(flatness):.1e} ({flatness.max():.1e}) | {peak.max():.2f} | {rms.mean():.1f} |"
    )


def judge(number: int, weights: Path | None, save: Path | None) -> dict[str, Heard]:
    """Hear one held-out song three ways: as rendered, through the autoencoder, as the checkpoint makes its prompt."""
    torch.set_num_threads(1)
    if weights:
        checkpoints.BUILT_IN_ROOT = weights.resolve()
    checkpoint = checkpoints.locate(checkpoints.BUILT_IN)
    song = corpus.song(corpus.HELD_OUT + number)
    request = Request(
        caption=song.caption, lyrics=song.lyrics, language=song.language, bpm=song.bpm, key=song.key,
        time_signature=song.time_signature, duration=song.duration, seed=number,
    )  # fmt: skip
    completed = modes.complete(request, checkpoint)
    plan = planning.plan(hardware.detect(), completed, planning.Asked(), memory.Sizes.of(checkpoint))
    [take] = Pipeline(checkpoint, plan).run([completed], lambda *_: None)
    truth = corpus.render(song)
    store = Store(checkpoint, plan, lambda *_: None)
    with torch.inference_mode(), store.vae() as vae:
        trip = vae.decode(vae.encode(torch.from_numpy(truth)[None].to(store.dtype)))[0].float().numpy()
    made = {"true": truth, "trip": trip, "pocket": take.audio.samples}
    if save:
        save.mkdir(parents=True, exist_ok=True)
        for name, audio in made.items():
            guarded = audio / max(1, np.abs(audio).max())  # as the program writes it
            soundfile.write(save / f"{number:02d}-{name}.flac", guarded.T, corpus.SAMPLE_RATE)
    return {name: listen(audio) for name, audio in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="held-out prompts")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="another folder in the layout of src/acestep_cli/pocket")
    parser.add_argument("--save", type=Path, help="a folder for the audio that is judged")
    asked = parser.parse_args()
    songs = [corpus.song(corpus.HELD_OUT + number) for number in range(asked.count)]
    heard = []
    with ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn")) as pool:
        work = partial(judge, weights=asked.weights, save=asked.save)
        for song, three in zip(songs, pool.map(work, range(asked.count)), strict=True):
            heard.append(three)
            made = three["pocket"]
            print(f"{song.style:9s} {song.duration:2d} s  asked {song.bpm:3d} {song.key:9s}  "
                  f"heard {made.bpm:5.1f} {corpus.NOTE_NAMES[made.tonic][-1]} {made.mode}", flush=True)  # fmt: skip

    print("\n| audio | tempo within 4 %, octaves allowed (exact) | shuffled | p | key | shuffled | p "
          "| spectral flatness, median (highest) | highest peak as decoded | RMS, dBFS |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, title in (("true", "true renders"), ("trip", "through the autoencoder"), ("pocket", "pocket, 8 steps")):
        print(row(title, [three[name] for three in heard], songs))


if __name__ == "__main__":
    main()
