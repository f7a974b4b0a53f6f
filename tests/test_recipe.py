"""The recipe of the built-in checkpoint: its songs are what their prompts say, and a seed is always one song."""

from __future__ import annotations

import sys
import textwrap
from importlib import util
from typing import Any

import numpy as np
import pytest

from support.command import finish
from support.places import ROOT

RECIPE = ROOT / "pocket"
SEEDS = range(12)


@pytest.fixture(scope="module")
def corpus() -> Any:
    sys.path.insert(0, str(RECIPE))
    try:
        import corpus
        import mixing  # noqa: F401 - what the band imports is at hand from here on
    finally:
        sys.path.remove(str(RECIPE))
    return corpus


@pytest.fixture(scope="module")
def band(corpus: Any) -> Any:
    """The recipe's band, under a name of its own: the tests have another."""
    spec = util.spec_from_file_location("recipe_band", RECIPE / "band.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def played(corpus: Any, band: Any) -> dict[Any, dict[str, np.ndarray]]:
    """Short songs and their stems."""
    songs = [song for song in map(corpus.song, range(40)) if song.duration <= 12]
    return {song: band.play(song) for song in songs[:8]}


def test_a_seed_is_a_song(corpus: Any) -> None:
    songs = [corpus.song(seed) for seed in SEEDS]
    assert songs == [corpus.song(seed) for seed in SEEDS]
    assert len({song.caption for song in songs}) == len(songs)


def test_a_prompt_names_what_there_is(corpus: Any) -> None:
    for song in map(corpus.song, range(200)):
        assert any(name in song.caption for name in corpus.STYLES[song.style].names)
        assert song.key.endswith(song.mode)
        assert not song.voiced or song.language in corpus.WORDS
        for part in corpus.LEFT_OUT:
            assert (f"no {part}" in song.caption) == (part in song.left_out)
        assert not {"drums", "bass"} & set(song.left_out) & set(song.tracks)
        assert not (song.leads and "lead" in song.left_out)


def test_songs_do_without_as_often_as_with(corpus: Any) -> None:
    songs = [corpus.song(seed) for seed in range(480)]
    for part in corpus.LEFT_OUT:
        assert 0.4 < np.mean([part in song.left_out for song in songs]) < 0.6


def test_every_key_comes_equally_often(corpus: Any) -> None:
    for first in (0, 24 * 50, corpus.HELD_OUT // 24 * 24):
        keys = [(song.tonic, song.mode) for song in map(corpus.song, range(first, first + 24))]
        assert len(set(keys)) == 24
    assert [corpus.drawn_key(seed) for seed in range(24)] != [corpus.drawn_key(seed) for seed in range(24, 48)]


def test_stems_add_up_to_the_mix(played: dict[Any, dict[str, np.ndarray]], band: Any) -> None:
    for song, stems in played.items():
        mix = sum(stems.values())
        assert mix.shape == (2, song.duration * 48_000)
        np.testing.assert_array_equal(mix, band.render(song))
        assert np.abs(mix).max() < 0.981
        assert 20 * np.log10(np.sqrt(np.mean(mix**2))) == pytest.approx(-14, abs=1)


def above(audio: np.ndarray, hertz: float) -> float:
    """The share of the power over a frequency, in dB."""
    power = np.square(np.abs(np.fft.rfft(audio.astype(np.float64)))).sum(0)
    return 10 * np.log10(power[int(hertz * audio.shape[1] / 48_000) :].sum() / power.sum())


def side(audio: np.ndarray) -> float:
    """The side against the mid, in dB."""
    return 10 * np.log10(np.mean((audio[0] - audio[1]) ** 2) / np.mean((audio[0] + audio[1]) ** 2))


def test_songs_are_wide_and_bright(played: dict[Any, dict[str, np.ndarray]], band: Any) -> None:
    for song in played:
        mix, dry = band.render(song), band.render(song, dry=True)
        assert -16 < side(mix) < -5
        assert side(mix) > side(dry) + 6
        assert above(mix, 4000) > -30
        assert above(mix, 4000) > above(dry, 4000) + 2
    assert np.mean([above(band.render(song), 4000) for song in played]) > -18


def test_the_low_end_stays_in_the_middle(played: dict[Any, dict[str, np.ndarray]]) -> None:
    basses = [stems["bass"] for stems in played.values() if "bass" in stems]
    assert basses
    for bass in basses:
        assert side(bass) < -25


def test_a_dry_song_is_the_same_music(played: dict[Any, dict[str, np.ndarray]], band: Any) -> None:
    for song, stems in played.items():
        dry = band.play(song, dry=True)
        assert set(dry) == set(stems)
        for track, stem in stems.items():  # each track is loud where it is loud: the room moves nothing
            seconds = [np.sqrt(np.mean(x.reshape(2, -1, 4800) ** 2, axis=(0, 2))) for x in (stem, dry[track])]
            assert np.corrcoef(*seconds)[0, 1] > 0.85, (song.seed, track)


def test_a_held_tone_comes_back_with_every_period(corpus: Any) -> None:
    import mixing
    import sounds

    for timbre in ("strings", "organ", "flute"):
        tone = np.zeros((2, 4 * sounds.PERIOD), np.float32)
        tone[:] = sounds.note(timbre, 64, 0, 4 * sounds.PERIOD / 48_000)
        [made] = mixing.mixed({"strings": tone}).values()
        # The attack, the room's answer to it and the release are over in the second and third of four periods.
        second, third = made[:, sounds.PERIOD : 2 * sounds.PERIOD], made[:, 2 * sounds.PERIOD : 3 * sounds.PERIOD]
        np.testing.assert_allclose(second[:, 4800:], third[:, 4800:], atol=0.02 * np.abs(made).max())


def test_the_score_lists_what_sounds(played: dict[Any, dict[str, np.ndarray]], band: Any) -> None:
    for song, stems in played.items():
        score = band.score(song)
        assert {event.track for event in score} == set(stems) == set(song.tracks)
        for event in score:  # a note is heard where it begins
            assert 0 <= event.start < song.duration * 48_000
            assert np.abs(stems[event.track][:, event.start : event.start + 4800]).max() > 1e-4


def test_the_first_chord_is_the_tonic(corpus: Any, band: Any) -> None:
    for song in map(corpus.song, SEEDS):
        first = {event.pitch % 12 for event in band.score(song) if event.part == "chords" and event.start == 0}
        third = 3 if song.mode == "minor" else 4
        assert first <= {(song.tonic + step) % 12 for step in (0, third, 7)}


def test_a_cover_keeps_the_tune(corpus: Any, band: Any) -> None:
    for song in map(corpus.song, SEEDS):
        cover = corpus.restyled(song, np.random.default_rng(song.seed))
        assert cover.style != song.style
        assert (cover.bpm, cover.key.split()[1], cover.tonic, cover.lyrics) == (
            song.bpm, song.mode, song.tonic, song.lyrics)  # fmt: skip
        assert (cover.tune, cover.variant) == (song.tune, song.variant)
        if song.voiced:
            sung = [[(e.pitch, e.start) for e in band.score(one) if e.part == "voice"] for one in (song, cover)]
            assert sung[0] == sung[1]


def test_sections_fill_the_song(corpus: Any) -> None:
    for form in corpus.FORMS:
        lyrics = "\n".join(f"[{tag}]" for tag in form)
        for bars in range(1, 40):
            parts = corpus.layout(lyrics, bars)
            assert sum(part.bars for part in parts) == bars
            assert [part.tag for part in parts] == list(form[: len(parts)])
            assert all(part.bars > 0 for part in parts)


NOTES = """
    import band, corpus
    import train_songwriter as songwriter
    from sounds import FRAME
    from train_dit import VOICES
    for piece in map(corpus.song, range(12)):
        first, count = 3, 7
        notes = songwriter.notes(piece, first, count)
        assert (notes.tempo == notes.tempo[0]).all() and (notes.key == notes.key[0]).all()
        assert notes.key[0] % 12 == piece.tonic
        for place in range(count):
            begin = (first + songwriter.WINDOW * place) * FRAME
            end = begin + songwriter.WINDOW * FRAME
            row = lambda e: VOICES[e.part] + (e.pitch % 12 if e.pitch else 0)
            score = band.score(piece)
            begun = {row(e) for e in score if begin <= e.start < end}
            # The score is kept by tokens of two frames, so that an edge may be a frame away.
            sounding = {row(e) for e in score
                        if e.start < end + FRAME and e.start + max(e.length, 1) > begin - 2 * FRAME}
            assert begun <= set(notes.score[place].nonzero().flatten().tolist()) <= sounding, (piece.seed, place)
        slower = songwriter.played(piece)
        assert abs(slower.bpm * piece.pulse / 60 - 1) < 0.01
        assert abs(slower.bpm / piece.bpm - 1) < 0.04
"""


LOSSES = """
    import numpy as np, torch
    import band, corpus, fidelity, train_vae
    [piece, *_] = [p for p in map(corpus.song, range(40)) if p.duration <= 12 and "drums" in p.tracks]
    truth = torch.from_numpy(band.render(piece)[:, :96_000])[None]

    def lost(guess):
        return [loss.item() for loss in train_vae.spectral_losses(guess, truth)]

    assert max(lost(truth)) < 1e-3
    narrow = truth.mean(1, keepdim=True).repeat(1, 2, 1)
    spectrum = torch.fft.rfft(truth)
    spectrum[..., int(4000 * 2):] = 0
    dull = torch.fft.irfft(spectrum)
    for worse in (narrow, dull):
        assert min(lost(worse)) > 0.1, lost(worse)
    # A dull one loses mel bands in every view; its share is that of the bands above 4 kHz, about a third.
    assert lost(dull)[1] > 0.5
    hiss = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    other = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    _, moments, crop = train_vae.spectral_losses(hiss, other)
    assert crop < 0.3 * moments  # which noise it is, is no matter to the mean over a crop
    assert train_vae.spectral_losses(hiss, truth)[2] > 5 * crop
    before = lost(narrow)
    train_vae.VIEWS["side"] *= 2
    assert lost(narrow)[1] > 1.2 * before[1]

    for size in train_vae.MELS:
        bands = train_vae.mel_bands(size)
        assert torch.allclose(bands.sum(1), torch.ones(len(bands)), atol=1e-5)
        heights = bands.argmax(1)
        assert (heights.diff() >= 0).all() and heights[-1] * 48_000 / size > 12_000

    t = np.arange(48_000) / 48_000
    tone = lambda hertz: np.sin(2 * np.pi * hertz * t).astype(np.float32)
    left = np.stack([tone(440), 0 * t]).astype(np.float32)
    assert abs(fidelity.side_db(left)) < 0.01
    assert fidelity.side_db(np.stack([tone(440)] * 2)) < -90
    assert abs(fidelity.side_db(np.stack([1.1 * tone(440), 0.9 * tone(440)])) + 20) < 0.1
    two = np.stack([tone(500) + tone(4000)] * 2)
    quieter = np.stack([tone(500) + 0.1 * tone(4000)] * 2)
    # One band is 3 dB louder against the whole, one 17 dB quieter; six are empty in both.
    assert abs(fidelity.spectra_apart(two, quieter) - 20 / 8) < 0.1
"""

SITTING = """
    import json, tempfile
    from pathlib import Path
    import torch
    import sitting
    from torch import nn

    assert [sitting.rate(step, 0.9, 4) for step in (0, 1, 3, 500)] == [0.25, 0.5, 1, 1]
    falls = [sitting.rate(500, spent, 4, release=True) for spent in (0, 0.5, 1, 1.1)]
    assert falls == [1, 0.5, 0, 0]

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "it.pt"

        def train(value, steps, release=False):
            model = nn.Linear(1, 1)
            training = sitting.Training(model, file, 1.0, release)
            for _ in range(steps):
                nn.init.constant_(model.weight, value)
                training.stepped({"loss": value})
            training.keep()
            return training

        assert train(2.0, sitting.SHOWN_EVERY).step == sitting.SHOWN_EVERY
        state = torch.load(file, weights_only=True)
        assert state["model"]["weight"].item() == 2 and state["step"] == sitting.SHOWN_EVERY
        assert sitting.finished(file)["weight"].item() == state["average"]["weight"].item()
        [line] = file.with_suffix(".jsonl").read_text().splitlines()
        assert json.loads(line)["loss"] == 2 and json.loads(line)["step"] == sitting.SHOWN_EVERY

        train(5.0, 1000, release=True)
        again = torch.load(file, weights_only=True)
        assert again["model"]["weight"].item() == 2 and again["step"] == sitting.SHOWN_EVERY
        assert abs(sitting.finished(file)["weight"].item() - 5) < 0.5
        assert train(2.0, 1).step == sitting.SHOWN_EVERY + 1
        assert again["minutes"] < torch.load(file, weights_only=True)["minutes"] < 1
"""

CODES = """
    import math
    import torch
    import recode, train_codes

    torch.manual_seed(0)
    engine = train_codes.AceStep(train_codes.DiTConfig.from_dict(train_codes.CONFIG))
    every = torch.arange(math.prod(train_codes.LEVELS))
    quantizer = engine.tokenizer.quantizer
    expected = quantizer.from_codes(every)
    assert torch.allclose(quantizer.expand_digits(train_codes.digits(every)), expected, atol=1e-6)

    # Neighbours are a level apart: a bell over one entry falls off by the same along every digit.
    table = torch.zeros(len(every), 1)
    middle = 3 + 8 * (3 + 8 * (3 + 8 * 2))
    table[middle] = 1
    spread = train_codes.shared(table, 1.0)[:, 0]
    for place in (1, 8, 64, 512):
        for step in (-1, 1):
            assert abs(spread[middle + step * place].item() - math.exp(-0.5)) < 1e-5

    # Groups on a curved sheet of four dimensions: entries come nearer than as many in a plane, and keep to its order.
    inner = 2 * torch.rand(30_000, 4) - 1
    sheet = torch.cat([inner, torch.sin(3 * inner), torch.cos(3 * inner[:, :2])], 1) @ torch.randn(10, 80)
    entries = train_codes.mapped(sheet)
    found = train_codes.nearest(entries, sheet)
    kept = 1 - (entries[found] - sheet).square().mean() / sheet.var()
    assert kept > 0.9, kept
    steps = (entries.view(5, 8, 8, 8, 80).diff(dim=3)).norm(dim=-1).mean()
    assert steps < 0.3 * (entries - entries[torch.randperm(len(entries))]).norm(dim=-1).mean()

    # Embeddings that are a map of meanings follow them to other codes.
    meanings = torch.cat([torch.randn(2560, 80), torch.ones(2560, 1)], 1)
    others = torch.cat([torch.randn(2560, 80), torch.ones(2560, 1)], 1)
    meant = torch.randn(81, 192)
    carried = recode.carried(meanings, others, meanings @ meant)
    assert (carried - others @ meant).square().mean() < 0.01 * (others @ meant).var()
"""

LESSONS = """
    from types import SimpleNamespace
    import numpy as np, torch
    import corpus, train_dit
    from encode import Heard
    from acestep_cli.song import modes

    frames = 100
    room = lambda latents: None if latents is None else latents + 0.5  # what the wet recordings have on top
    latents = lambda seed: torch.randn(frames, train_dit.CHANNELS, generator=torch.Generator().manual_seed(seed))
    stems = {"bass": latents(1), "drums": latents(2)}
    dry = Heard(stems["bass"] + stems["drums"], stems, {"drums": latents(4)}, latents(3))
    wet = Heard(room(dry.mix), {t: room(s) for t, s in stems.items()}, {"drums": room(dry.without["drums"])},
                room(dry.cover))
    silence = torch.zeros(1, frames, train_dit.CHANNELS)
    model = SimpleNamespace(silence=silence, quiet=silence, codes_and_back=lambda latents: latents)
    piece, rng = corpus.song(0), np.random.default_rng(0)
    made = [dry.mix, dry.cover, *stems.values()]
    given = [wet.mix, wet.cover, *wet.stems.values(), wet.without["drums"]]
    among = lambda one, known: any(torch.equal(one, other) for other in known)
    for task in ("cover", "extract", "lego", "complete"):
        for _ in range(20):
            taught = train_dit.lesson(model, piece, dry, wet, rng, task)
            assert among(taught.target, made), task
            assert among(taught.source, given), task
    taught = train_dit.lesson(model, piece, dry, wet, rng, "repaint")
    assert torch.equal(taught.target, dry.mix)
    assert torch.equal(taught.source, torch.where(taught.mask > 0, silence[0], wet.mix))
    covered = Heard(dry.mix, {}, {}, dry.cover), Heard(wet.mix, {}, {}, wet.cover)
    tasks = [train_dit.lesson(model, piece, *covered, rng).task for _ in range(400)]
    assert 0.4 < np.mean([task == "cover" for task in tasks]) < 0.6
"""


@pytest.mark.parametrize(
    "script", [NOTES, LOSSES, SITTING, CODES, LESSONS], ids=["notes", "losses", "sitting", "codes", "lessons"]
)
def test_the_trainings_are_given_what_they_need(script: str) -> None:
    run = finish([sys.executable, "-c", textwrap.dedent(script)], cwd=RECIPE, text=True, timeout=600)  # fmt: skip
    assert run.returncode == 0, run.stderr
