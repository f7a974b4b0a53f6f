"""The request: what is read, what is refused, and in which words."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from acestep_cli.song import key as panels
from acestep_cli.song.languages import LANGUAGES
from acestep_cli.song.request import KEYS, Request


def refusal(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Request(**values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "written", "meant"),
    [
        ("bpm", "120", 120),
        ("bpm", 120, 120),
        ("bpm", 120.0, 120),
        ("seed", "0123", 123),
        ("seed", 2**32 - 1, 2**32 - 1),
        ("duration", "90", 90.0),
        ("duration", "90s", 90.0),
        ("duration", "90.5 s", 90.5),
        ("duration", "1:30", 90.0),
        ("duration", "2m", 120.0),
        ("duration", "1.5 min", 90.0),
        ("duration", "0:45.5", 45.5),
        ("duration", 600, 600.0),
        ("key", "A minor", "A minor"),
        ("key", "f# MAJOR", "F# major"),
        ("key", "B♭ major", "Bb major"),
        ("key", "Am", "A minor"),
        ("key", "c#m", "C# minor"),
        ("key", "Bb min", "Bb minor"),
        ("key", "A-minor", "A minor"),
        ("key", "f_sharp_minor", "F# minor"),
        ("key", "E-flat Major", "Eb major"),
        ("key", "B Flat minor", "Bb minor"),
        ("key", "F #m", "F# minor"),
        ("key", "a-moll", "A minor"),
        ("key", "F#-dur", "F# major"),
        ("key", "fis-Moll", "F# minor"),
        ("key", "Es-Dur", "Eb major"),
        ("key", "As dur", "Ab major"),
        ("key", "h-moll", "B minor"),
        ("key", "Bb-dur", "Bb major"),
        ("key", "la mineur", "A minor"),
        ("key", "Fa dièse majeur", "F# major"),
        ("key", "Re\u0301 mineur", "D minor"),
        ("key", "si♭ majeur", "Bb major"),
        ("key", "do diesis minore", "C# minor"),
        ("key", "Sol mayor", "G major"),
        ("key", "mi bemol menor", "Eb minor"),
        ("key", "lá menor", "A minor"),
        ("time_signature", "6/8", "6/8"),
        ("time_signature", "6", "6/8"),
        ("time_signature", 4, "4/4"),
        ("time_signature", "3 / 4", "3/4"),
        ("language", "no", "no"),
        ("language", "Norwegian", "no"),
        ("language", "JA", "ja"),
        ("language", "haitian creole", "ht"),
        ("language", "unknown", "unknown"),
        ("instrumental", "true", True),
        ("instrumental", "no", False),
        ("codes", "<|audio_code_1|><|audio_code_63999|>", (1, 63999)),
        ("codes", [1, "2", 3], (1, 2, 3)),
        ("timesteps", "1,0.9,0.5", (1.0, 0.9, 0.5)),
        ("timesteps", [1, 0.5, 0], (1.0, 0.5, 0.0)),
        ("cfg_interval", "0.1,0.9", (0.1, 0.9)),
        ("model", "turbo", "turbo"),
        ("model", "./mine", "./mine"),
        ("bit_depth", "32f", "32f"),
        ("bit_depth", 16, "16"),
        ("bitrate", "192k", 192),
        ("loudness", "Peak:-3", "peak:-3"),
        ("loudness", "none", "none"),
        ("title", "0123", "0123"),
        ("title", " Night Drive\n", "Night Drive"),
        ("comment", "one\ntwo\n", "one\ntwo"),
        ("track_number", "07", 7),
        ("year", "2026", 2026),
        ("sample_rate", "44100", 44_100),
        ("fade_in", 0, 0.0),
        ("fade_out", "0:04", 4.0),
    ],
)
def test_values_are_read_as_a_musician_means_them(key: str, written: object, meant: object) -> None:
    assert getattr(Request(**{key: written}), key) == meant


@pytest.mark.parametrize(
    ("key", "written", "sentence"),
    [
        ("bpm", 20, "20 is not a whole number from 30 to 300"),
        ("bpm", "120.5", "'120.5' is not a whole number from 30 to 300"),
        ("bpm", 120.5, "'120.5' is not a whole number from 30 to 300"),
        ("bpm", True, "'True' is not a whole number"),
        ("bpm", [120], "'[120]' is not a whole number"),
        ("guidance", True, "'True' is not a number"),
        ("guidance", "nan", "nan is not a number from 1 to 30"),
        ("bpm", "9" * 5000, "is not a whole number"),
        ("key", "H minor", "'H minor' is not a key such as A minor or F# major"),
        ("key", "A", "in quotes if there is a space before `#`"),
        ("key", "AM", "'AM' is not a key"),
        ("key", "B-dur", "'B-dur' is B flat to some and B to others; write Bb major or B major"),
        ("key", "b moll", "'b moll' is B flat to some and B to others; write Bb minor or B minor"),
        ("key", "Es# dur", "'Es# dur' is not a key"),
        ("key", "Hb moll", "'Hb moll' is not a key"),
        ("key", "la la minor", "'la la minor' is not a key"),
        ("time_signature", "5", "'5' is not one of 2/4, 3/4, 4/4, 6/8"),
        ("duration", "9h", "'9h' is not a length such as 90, 90s or 1:30"),
        ("duration", "1:75", "'1:75' is not a length"),
        ("duration", "1:5", "'1:5' is not a length"),
        ("duration", "1:300", "'1:300' is not a length"),
        ("duration", 601, "'601' is not between 1 and 600 seconds"),
        ("duration", "0.9", "'0.9' is not between 1 and 600 seconds"),
        ("duration", "nan", "'nan' is not a length"),
        ("language", "klingon", "'klingon' is not a language code such as en"),
        ("language", "Germn", "did you mean 'german'?"),
        ("seed", -1, "-1 is not a whole number from 0 to 4294967295"),
        ("seed", 2**32, "4294967296 is not a whole number from 0 to 4294967295"),
        ("takes", 0, "0 is not a whole number from 1 to 9999"),
        ("steps", 0, "0 is not a whole number from 1 to 200"),
        ("guidance", "inf", "inf is not a number from 1 to 30"),
        ("guidance", "40%", "'40%' is not a number from 1 to 30"),
        ("solver", "uler", "did you mean 'euler'?"),
        ("guidance_method", "agp", "'agp' is not one of apg, cfg, adg; did you mean 'apg'?"),
        ("timesteps", "0.5,0.9", "rises from 0.5 to 0.9"),
        ("timesteps", [1, 1], "rises from 1 to 1"),
        ("timesteps", [0], "leaves no step to make"),
        ("timesteps", [], "is an empty list"),
        ("cfg_interval", "0.9,0.1", "is not two numbers, low then high"),
        ("cfg_interval", "0.9", "is not two numbers"),
        ("codes", "<|audio_code_1|> and", "holds more than <|audio_code_N|> marks"),
        ("codes", [1, -1], "-1 is not a whole number of at least 0"),
        ("codes", [0] * 3001, "are 3001; a song of 600 s, the longest there is, takes 3000"),
        ("model", "trubo", "did you mean 'turbo'?"),
        ("lyrics", ["Verse"], "a list is not text; put it in quotes"),
        ("lyrics", "  \n", "is empty; leave the key out instead"),
        ("caption", 3, "'3' is not text"),
        ("caption", "\udcff", "is not UTF-8 text"),
        ("format", "flc", "did you mean 'flac'?"),
        ("bit_depth", "12", "'12' is not one of 16, 24, 32f"),
        ("bitrate", "100k", "'100k' is not one of 64k, 96k"),
        ("loudness", "peak:3", "'peak:3' is neither none, nor peak:DB"),
        ("loudness", "peak:nan", "'peak:nan' is neither none, nor peak:DB"),
        ("instrumental", "maybe", "'maybe' is neither true nor false"),
        ("title", "a\nb", "'a b' holds a line break or another control character"),
        ("artist", "a\0b", "holds a line break or another control character"),
        ("comment", "a\0b", "holds a control character"),
        ("album", "x" * 2_000_000, "has 2,000,000 characters; the tags of a file take 500"),
        ("comment", "x" * 5001, "has 5,001 characters; the tags of a file take 5,000"),
        ("genre", " ", "is empty; leave the key out instead"),
        ("track_number", "3/12", "'3/12' is not a whole number from 1 to 999"),
        ("year", "26", "26 is not a whole number from 1000 to 9999"),
        ("cover", "\ud83c.jpg", "has half of a character"),
        ("sample_rate", "44.1k", "'44.1k' is not one of 44100, 48000, 96000 (Hz)"),
        ("fade_in", "-1", "'-1' is not a length"),
        ("fade_out", "1:01", "'1:01' is not between 0 and 60 seconds"),
        ("strength", "140%", "'140%' is not from 0% to 100%"),
        ("strength", 1.4, "1.4 is not a number from 0 to 1"),
        ("noise_strength", "half", "'half' is not a number from 0 to 1"),
        ("start", "-601", "'-601' is not between -600 and 7200 seconds"),
        ("start", "soon", "'soon' is not a length such as 90, 90s or 1:30"),
        ("end", -1, "'-1' is not between 0 and 7200 seconds"),
        ("repaint_mode", "agressive", "did you mean 'aggressive'?"),
        ("track", "banjo", "'banjo' is not one of woodwinds, brass"),
        ("track", "vocal", "did you mean 'vocals'?"),
        ("track", ["bass", "bass"], "'bass' is given twice"),
        ("track", "all, bass", "'all' is not one of woodwinds"),
        ("reference", ["a.wav", "a.wav"], "'a.wav' is given twice"),
        ("reference", [], "is an empty list"),
        ("source", 3, "'3' is not text"),
        ("source", "\ud83c.wav", "has half of a character"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(key: str, written: object, sentence: str) -> None:
    assert sentence in refusal(**{key: written})


def test_long_values_are_cut_in_messages() -> None:
    assert max(len(line) for line in refusal(solver="x" * 10_000).splitlines()) < 300


def test_none_is_not_asked() -> None:
    assert Request() == Request(**dict.fromkeys(KEYS))


def test_a_request_is_frozen_and_knows_its_keys() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Request().bpm = 100  # type: ignore[misc]
    assert "Extra inputs are not permitted" in refusal(bmp=100)


def test_instrumental_excludes_lyrics() -> None:
    assert "instrumental and lyrics exclude each other" in refusal(instrumental=True, lyrics="la")
    assert Request(instrumental=False, lyrics="la").lyrics == "la"


def test_canonical_values_read_as_themselves() -> None:
    """A completed request is read again from its sidecar, so reading must be idempotent."""
    full = Request(
        caption="c", lyrics="l", language="German", bpm="90", key="am", time_signature=6, duration="1:30",
        codes="<|audio_code_7|>", model="turbo", steps=8, guidance="7.5", guidance_method="apg", shift=3,
        solver="euler", timesteps="1,0.5", cfg_interval="0,1", seed=0, takes=2, title="t", format="mp3",
        bit_depth="16", bitrate="192k", loudness="peak:-1", mode="generate", instrumental="false",
        artist="a", album="b", track_number="3", year="2026", genre="g", comment="c\nd", cover="/c.jpg",
        sample_rate="44100", fade_in="2s", fade_out="0:04", reference="/r.wav", source="/s.wav", strength="40%",
        noise_strength=0, close="yes", start="-0:08", end="1:30", repaint_mode="Balanced", repaint_strength="50%",
        context="60s", from_caption="d", from_lyrics="m", edit_start="20%", edit_end=1, edit_average="2",
        track="all", mix="true", idea="i", songwriter="1.7B", songwriter_seed="3",
        dcw="double", dcw_scale=0.1, dcw_high_scale="0.05", velocity_clamp=2, velocity_ema=0.1, latent_shift="-0.1",
        latent_rescale=0.9, variation="15%", variation_seed=8,
        loras=["a@60%"], lora_mode="Blend", lrc="yes", markers="yes", together=2,
        temperature="0.5", top_p="0.8", top_k="40", repetition_penalty="1.1", cfg_scale="3", negative_prompt="n",
    )  # fmt: skip
    assert all(value is not None for _, value in full)
    assert Request(**full.model_dump()) == full


PANELS = (panels.SONG, panels.SONGWRITER, panels.SOURCE, panels.SOUND, panels.CORRECTIONS, panels.TAGS, panels.OUTPUT)


def test_every_key_has_help_and_a_range_to_show() -> None:
    for name, key in KEYS.items():
        assert key.help.endswith("."), name
        assert key.kind.metavar, name
        assert key.panel in (
            panels.SONG,
            panels.SONGWRITER,
            panels.SOURCE,
            panels.SOUND,
            panels.CORRECTIONS,
            panels.TAGS,
            panels.OUTPUT,
        )


def test_there_are_51_languages_with_distinct_names() -> None:
    assert len(LANGUAGES) == len(set(LANGUAGES.values())) == 51
    assert all(re.fullmatch(r"[a-z]{2,3}|unknown", code) for code in LANGUAGES)
