"""What a caption keeps of an idea, and what is not looked for."""

from __future__ import annotations

import pytest

from acestep_cli.song import idea_words, songwriter_prompts
from acestep_cli.song.request import Request


def opening(idea: str, *, themes: bool = True) -> str | None:
    kept = idea_words.kept_words(idea, themes=themes)
    return kept and kept.opening


@pytest.mark.parametrize(
    ("idea", "whole", "music"),
    [
        ("rainy-day bossa nova about a lost umbrella", "rainy-day bossa nova, lost umbrella", "rainy-day bossa nova"),
        ("Make me a happy ukulele song for my mum please!", "happy ukulele, mum", "happy ukulele"),
        ("liquid drum and bass: a late train home", "liquid drum and bass, late train home", "liquid drum and bass"),
        ("90s R&B with hi-hats", "90s R&B, hi-hats", "90s R&B, hi-hats"),
        ("a song about a broken guitar", "broken guitar", None),
        ("jazz, without drums, not sad", "jazz, without drums", "jazz, without drums"),
        ("techno in F# minor at 128 bpm, 4/4, 2 minutes, 909 kicks", "techno, 909 kicks", "techno"),
        ("slow piano piece, no vocals, instrumental", "slow piano", "slow piano"),
        ("a lost umbrella", "lost umbrella", None),
        ("make me a song", None, None),
        ("no in-between, 'soft' jazz", "soft jazz", "soft jazz"),
        ("...", None, None),
        ("", None, None),
    ],
)
def test_phrases_stay_as_they_stand_without_what_only_asks(idea: str, whole: str | None, music: str | None) -> None:
    assert opening(idea) == whole
    assert opening(idea, themes=False) == music


@pytest.mark.parametrize(
    "idea",
    [
        "失くした傘についての雨の日のボサノバ",
        "一首忧伤的古筝曲",
        "우산을 잃어버린 날의 보사노바",
        "босанова о потерянном зонте",
        "bossa nova 傘",
        "una bossa nova triste sobre un paraguas perdido",
        "ein fröhliches Kinderlied über eine Schnecke",
        "une valse pour un dimanche de pluie",
        "um samba alegre com cavaquinho",
        "una canzone per la pioggia",
        "iloinen laulu sateenvarjosta, jäätävä",
    ],
)
def test_nothing_is_looked_for_in_other_languages(idea: str) -> None:
    assert opening(idea) is None


def test_an_opening_leaves_room_for_the_caption() -> None:
    kept = idea_words.kept_words(", ".join(f"dreamy synth number{n}" for n in range(100)), themes=True)
    assert kept is not None
    assert 100 < len(kept.opening) <= idea_words.OPENING_CHARACTERS
    assert all(word in kept.opening for word in kept.words)
    assert opening("endless" * 100) is None


@pytest.mark.parametrize(
    ("idea", "caption"),
    [
        ("lo-fi hip hop with guitars", "Lofi hip-hop, one mellow guitar"),
        ("a sad song with a singer", "a melancholic tune, airy vocals"),
        ("R&B", "smooth RnB"),
        ("jazz, no drums", "drumless? No: jazz without any drums"),
        ("drum and bass", "fast drum & bass"),
        ("soft jazz, my cat's tail", "'soft' jazz, the tail of a cat"),
        ("the 90s, dreams of dragons", "A 90s ballad, dreaming of a dragon"),
    ],
)
def test_words_are_found_in_other_forms(idea: str, caption: str) -> None:
    kept = idea_words.kept_words(idea, themes=True)
    assert kept is not None
    assert kept.missing(caption) == []


@pytest.mark.parametrize(
    ("idea", "caption", "missing"),
    [
        ("rap", "trap beat", ["rap"]),
        ("jazz with harp", "sharp jazz", ["harp"]),
        ("jazz, no drums", "jazz, no bass, soft drums", ["no drums"]),
        ("bossa nova about an umbrella", "dub reggae about roads", ["bossa nova", "umbrella"]),
    ],
)
def test_words_that_are_gone_are_missed(idea: str, caption: str, missing: list[str]) -> None:
    kept = idea_words.kept_words(idea, themes=True)
    assert kept is not None
    assert kept.missing(caption) == missing


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, ("bossa nova",)),
        ({"songwriter": "0.6B"}, ("bossa nova",)),
        ({"songwriter": "pocket"}, ("bossa nova", "umbrella")),
        ({"instrumental": True}, ("bossa nova", "umbrella")),
        ({"idea": "bossa nova about an umbrella, no vocals"}, ("bossa nova", "umbrella")),
        ({"caption": "mine"}, None),
        ({"idea": None, "caption": "bossa nova"}, None),
    ],
    ids=str,
)
def test_a_theme_is_the_captions_where_no_lyrics_carry_it(
    asked: dict[str, object], kept: tuple[str, ...] | None
) -> None:
    found = songwriter_prompts.kept_words(Request(**{"idea": "bossa nova about an umbrella", **asked}))
    assert (found and found.words) == kept


@pytest.mark.parametrize(
    ("idea", "songwriter", "sentence"),
    [
        (
            "ein trauriges Lied über den letzten Zug",
            "pocket",
            "Nothing of the idea is kept: this Songwriter",
        ),
        ("ein trauriges Lied über den letzten Zug", "0.6B", "The idea is not in English, so nobody checked"),
        ("surprise me", "0.6B", "The idea names no style, mood or instrument"),
        ("fast rock about a train", "0.6B", None),
        ("fast rock about a train", "pocket", None),
    ],
)
def test_an_idea_of_which_nothing_is_kept_is_told(idea: str, songwriter: str, sentence: str | None) -> None:
    asked = Request(idea=idea, songwriter=songwriter)
    said = list(songwriter_prompts.remarks(asked, {"caption": "lofi track, rhodes"}))
    assert len(said) == (sentence is not None)
    assert all(one.startswith(sentence or "") for one in said)
    with_caption = asked.model_copy(update={"caption": "polka"})
    assert list(songwriter_prompts.remarks(with_caption, {"bpm": 90})) == []
