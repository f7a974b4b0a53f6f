"""The recipe of the built-in checkpoint: its songs are what their prompts say, and a seed is always one song."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import util
from typing import Any

import numpy as np
import pytest

from support.places import ROOT

RECIPE = ROOT / "pocket"
SEEDS = range(12)


@pytest.fixture(scope="module")
def corpus() -> Any:
    sys.path.insert(0, str(RECIPE))
    try:
        import corpus
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
        if song.left_out:
            assert f"no {song.left_out}" in song.caption
            assert song.left_out not in song.tracks


def test_stems_add_up_to_the_mix(played: dict[Any, dict[str, np.ndarray]], band: Any) -> None:
    for song, stems in played.items():
        mix = sum(stems.values())
        assert mix.shape == (2, song.duration * 48_000)
        np.testing.assert_array_equal(mix, band.render(song))
        assert np.abs(mix).max() < 0.981
        assert 20 * np.log10(np.sqrt(np.mean(mix**2))) == pytest.approx(-14, abs=1)


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


def test_the_songwriter_is_told_what_is_played_at_each_code() -> None:
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(NOTES)], cwd=RECIPE, capture_output=True, text=True,
                         check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr
