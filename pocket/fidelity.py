"""Measure brightness and stereo: of the autoencoder, or of what the checkpoint makes, beside the truth.

    python pocket/fidelity.py --count 12
    python pocket/fidelity.py --count 12 --decoder pocket/work/decoder.pt
    python pocket/fidelity.py --count 12 --made

Held-out songs, of which every figure is a mean:

* side against mid in dB, and how far that is from the truth's;
* the long-term spectrum: the mean distance from the truth's over the octave bands of `OCTAVES`, each against the whole;
* the distance of log-mel spectrograms of the mid, as `evaluate.py` takes it.

The autoencoder in `pocket/work/` is given the mix, and the dry recording of the same song, whose latents are those that
the DiT was trained on. With `--made`, renders of the checkpoint are measured, eight steps each, and whether their tempo
and key are as asked; this alone needs what `evaluate.py` does, the rest nothing beyond the program and librosa.
`--each` prints every song too, with what its prompt asks for.

Shapes: audio is [2, N] float32 at 48 kHz.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import band
import corpus
import librosa
import numpy as np
import torch
from sounds import SAMPLE_RATE

RATE = 24_000  # Hz: what log-mel spectrograms hear
OCTAVES = tuple(62.5 * 2**k for k in range(8))  # Hz: middles of the bands, the last of which ends at 11.3 kHz
QUIETEST = -60.0  # dB against the whole: a band below it is as good as empty
Row = tuple[str, dict[str, float]]  # who, and the figures


def mono(audio: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(audio.mean(0), np.float32)


def low(audio: np.ndarray) -> np.ndarray:
    """[N / 2] at `RATE`."""
    return librosa.resample(mono(audio), orig_sr=SAMPLE_RATE, target_sr=RATE, res_type="soxr_mq")


def log_mel(audio: np.ndarray) -> np.ndarray:
    """Mel spectrogram in dB, 80 bands, floored 70 dB below the loudest."""
    power = librosa.feature.melspectrogram(y=low(audio), sr=RATE, n_fft=1024, hop_length=512, n_mels=80)
    return librosa.power_to_db(power, ref=1.0, amin=1e-7, top_db=70)


def apart(audio: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of two mel spectrograms, in dB."""
    a, b = log_mel(audio), log_mel(other)
    n = min(a.shape[1], b.shape[1])
    return float(np.abs(a[:, :n] - b[:, :n]).mean())


def side_db(audio: np.ndarray) -> float:
    """The level of the side against the mid, in dB."""
    mid, side = (np.mean(np.square(audio[0] + sign * audio[1], dtype=np.float64)) for sign in (1, -1))
    return float(10 * np.log10((side + 1e-12) / (mid + 1e-12)))


def spectrum(audio: np.ndarray) -> np.ndarray:
    """The level of each octave band against the whole, in dB, no less than `QUIETEST`."""
    power = np.square(np.abs(np.fft.rfft(audio.astype(np.float64), axis=1))).sum(0)
    hertz = np.fft.rfftfreq(audio.shape[1], 1 / SAMPLE_RATE)
    bands = [power[(hertz >= middle / 2**0.5) & (hertz < middle * 2**0.5)].sum() for middle in OCTAVES]
    return np.maximum(10 * np.log10(np.array(bands) / (power.sum() + 1e-12) + 1e-12), QUIETEST)


def spectra_apart(audio: np.ndarray, other: np.ndarray) -> float:
    """The mean distance of two long-term spectra over the octave bands, in dB."""
    return float(np.abs(spectrum(audio) - spectrum(other)).mean())


def figures(made: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        "side_db": side_db(made), "side_off_db": abs(side_db(made) - side_db(truth)),
        "spectrum_off_db": spectra_apart(made, truth), "log_mel_db": apart(made, truth),
    }  # fmt: skip


def survived(piece: corpus.Song, truth: np.ndarray, file: Path, decoder: Path | None) -> Iterator[Row]:
    """The mix and the dry recording through an autoencoder."""
    import train_vae

    vae, hop = train_vae.OobleckVAE(train_vae.CONFIG).eval(), train_vae.CONFIG.hop
    vae.load_state_dict(torch.load(file, weights_only=True)["vae"])
    if decoder:
        vae.decoder.load_state_dict(torch.load(decoder, weights_only=True)["average"])

    def through(audio: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            latents = vae.encode(torch.from_numpy(audio)[None, :, : audio.shape[1] // hop * hop])
            return vae.decode(latents.float())[0].float().numpy()

    yield "truth", {"side_db": side_db(truth)}
    yield "autoencoder", figures(through(truth), truth)
    yield "dry latents", figures(through(band.render(piece, dry=True)), truth)


def made(number: int, piece: corpus.Song, truth: np.ndarray) -> Iterator[Row]:
    """What the checkpoint makes of the prompt, as the program renders it, and whether tempo and key are the asked."""
    import ears
    import evaluate

    prompt = evaluate.Case(number, piece, {}, None, Path()).prompt(duration=piece.duration)
    for who, audio in (("truth", truth), ("made", evaluate.studio().render(**prompt)[0].audio.samples)):
        found = ears.listen(audio)
        told = {"tempo": found.keeps_time(piece.bpm), "key": found.is_in(piece.tonic, piece.mode), "bpm": found.bpm}
        yield who, {**figures(audio, truth), **told}


def rounded(row: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), 2) for name, value in row.items()}


def described(number: int, piece: corpus.Song) -> dict[str, object]:
    """What the prompt of a song asks for, as far as a pulse and a key depend on it."""
    return {"song": number, "style": piece.style, "asked_bpm": piece.bpm, "meter": piece.time_signature,
            "asked_key": piece.key, "left_out": piece.left_out, "voiced": piece.voiced,
            "seconds": piece.duration}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12, help="held-out songs")
    parser.add_argument("--first", type=int, default=0, help="of them")
    parser.add_argument("--vae", type=Path, default=Path(__file__).parent / "work/vae.pt")
    parser.add_argument("--decoder", type=Path, help="a training of polish.py, whose average is taken")
    parser.add_argument("--made", action="store_true", help="renders of the checkpoint instead")
    parser.add_argument("--weights", type=Path, help="of another folder in the layout of src/acestep_cli/models/pocket")
    parser.add_argument("--each", action="store_true", help="every song by itself as well")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.made:
        import evaluate

        evaluate.take_weights(asked.weights)
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(asked.first, asked.first + asked.count):
        piece = corpus.song(corpus.HELD_OUT + number)
        truth = band.render(piece)
        rows = made(number, piece, truth) if asked.made else survived(piece, truth, asked.vae, asked.decoder)
        for who, own in rows:
            found.setdefault(who, []).append(own)
            if asked.each:
                print(json.dumps({**described(number, piece), "who": who, **rounded(own)}), flush=True)
    for who, own in found.items():
        print(who, json.dumps(rounded({name: np.mean([row[name] for row in own]) for name in own[0]})))


if __name__ == "__main__":
    main()
