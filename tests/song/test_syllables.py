"""Counting syllables: words and metres whose counts are known."""

from __future__ import annotations

import pytest

from acestep_cli.song.lint import syllables


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "alone:2 every:3 loved:1 wanted:2 table:2 rhythm:2 fame:1 changes:2 quiet:2 we'll:1 twenty-one:3"),
        ("de", "Feuer:2 Liebe:2 Träume:2 neue:2 Eis:1 Vergangenheit:4 gehen:2"),
        ("es", "corazón:3 cielo:2 día:2 María:3 agua:2 quiero:2 aeropuerto:5 hoy:1 y:1"),
        ("fr", "étoile:2 lumière:2 océan:3 j'aime:1 l'amour:2 musique:2"),
        ("it", "cuore:2 mio:2 notte:2 felicità:4 gioia:2"),
        ("pt", "coração:3 lua:2 dia:2 não:1 saudade:3"),
        ("ro", "inimă:3 poezie:4 ploaie:2"),
        ("pl", "miłość:2 siebie:2 dziewczyna:3 w:0"),
        ("cs", "vlna:2 vítr:2 krk:1 ulice:3"),
        ("hr", "prst:1 zvijezda:3"),
        ("fi", "hiljaisuus:3 yö:1 aurinko:3"),
        ("tr", "saat:2 gökyüzü:3"),
        ("ru", "любовь:2 воспоминание:6 её:2 в:0"),
        ("bg", "слънце:2 път:1"),
        ("sr", "прст:1 zvezda:2"),
        ("uk", "Україна:4 її:2"),
        ("el", "καρδιά:2 ουρανός:3 παιδί:2"),
        ("ja", "さくら:3 きょう:2 ずっと:3 ハイウェイ:4 夜空:4"),
        ("zh", "月亮代表:4"),
        ("ko", "사랑해:3 Run:1"),
        ("hi", "रात:1 दुनिया:3 प्यार:1"),
        ("ta", "காதல்:2 இதயம்:3"),
        ("vi", "người:1 yêu:1"),
        (None, "na-na-na:3 42:2 ♪:0"),
    ],
)
def test_words(language: str | None, words: str) -> None:
    for word, number in (pair.rsplit(":", 1) for pair in words.split()):
        assert syllables.count_syllables(word, language) == int(number), word


@pytest.mark.parametrize(
    ("language", "lines"),
    [  # hymns and classics, whose metre gives the count
        (
            "en",
            {"Amazing grace, how sweet the sound": 8, "That saved a wretch like me": 6, "Was blind but now I see": 6},
        ),
        ("de", {"Freude, schöner Götterfunken": 8, "Tochter aus Elysium": 7, "Wo dein sanfter Flügel weilt": 7}),
        ("ru", {"Мой дядя самых честных правил": 9, "Когда не в шутку занемог": 8}),
        ("fi", {"Mieleni minun tekevi": 8, "lähteäni laulamahan": 8}),
        ("hu", {"Isten, áldd meg a magyart": 7, "Jó kedvvel, bőséggel": 6}),
        ("pl", {"Litwo, Ojczyzno moja! ty jesteś jak zdrowie": 13}),
        ("zh", {"床前明月光": 5}),
        ("ko", {"나 보기가 역겨워": 7}),
    ],
)
def test_lines(language: str, lines: dict[str, int]) -> None:
    for line, number in lines.items():
        assert syllables.count_syllables(line, language) == number, line


@pytest.mark.parametrize(
    ("language", "line", "number"),
    [
        ("ar", "يا حبيبي أنا معك في الليل", 11),
        ("he", "אני שיר של אהבה בלילה", 10),
        ("th", "ท้องฟ้าคืนนี้ไม่มีดาว", 7),
        ("ja", "涙が溢れて止まらない", 13),
    ],
)
def test_scripts_that_hide_vowels_are_estimated(language: str, line: str, number: int) -> None:
    assert syllables.count_syllables(line, language) == pytest.approx(number, rel=0.2)


def test_a_dictionary_is_read_where_it_may_matter() -> None:
    syllables.hyphenation.cache_clear()
    assert syllables.count_syllables("a lion in the violet hour", "en", bound=20) == 7
    assert syllables.hyphenation.cache_info().currsize == 0
    assert syllables.count_syllables("a lion in the violet hour", "en", bound=8) == 9
    assert syllables.hyphenation.cache_info().currsize == 1
