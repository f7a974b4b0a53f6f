"""Remarks on lyrics and captions: what each check finds, and what it lets be."""

from __future__ import annotations

import random
from typing import Any

import pytest

from acestep_cli.song import spec
from acestep_cli.song.lint import remarks as checks
from acestep_cli.song.lint.linted_song import Remark
from acestep_cli.song.request import KEYS, Request
from support.places import ROOT

CAPTION = "slow piano ballad, brushed drums, female vocal"
VERSE = """\
[Verse 1]
City light slides over the glass
Summer rain on the river road
Hold the wheel and let it pass
"""
LINE = "We ride alone beneath the silver light\n"
RUSSIAN = "[Куплет]\nНочь укрывает город тишиной\nИ снова ты идёшь за мной\nМы были вместе под луной\n"
GERMAN = "[Strophe 1]\nDer Regen fällt auf graue Dächer\nUnd niemand fragt mich, wie es geht\n"
SPANISH = "[Verso]\nLa luna duerme sobre el río\nY tu recuerdo es mi canción\n"
JAPANESE = "[Aメロ]\n夜の街に雨が降る\n君の声がまだ聞こえる\nもう一度だけ会いたくて\n"
ROMAJI = "[Verse]\nyoru no machi ni ame ga furu\nkimi no koe ga mada kikoeru\n"
CHINESE = "[主歌]\n窗外的雨还没有停\n我在等你回家的声音\n路灯照着旧的风景\n"
KOREAN = "[Verse]\n밤하늘에 별이 지고\n나는 너를 기다려\nStay with me tonight\n"
ARABIC = "[Verse]\nيا ليل طال غياب الحبيب\nوالقلب يسأل عن القريب\n"


def remarks(text: str | None, seconds: float = 60, **keys: Any) -> list[Remark]:
    return checks.song_remarks(Request(**{"caption": CAPTION, "lyrics": text, **keys}), seconds)


@pytest.mark.parametrize(
    ("text", "seconds", "part"),
    [
        ("[Verse]\n" + LINE * 30, 60, "300 syllables in 60 s are 5.4 a second"),
        ("[Verse]\n" + LINE * 30, 60, "write duration: 1:45, or fewer lines"),
        ("[Verse]\n" + LINE * 400, 600, "even 600 s are too short"),
        ("[Chorus]\nRide with me\n", 240, "3 syllables are little for 240 s"),
        (LINE * 10, 90, "10 lines have no section tag"),
    ],
)
def test_words_are_held_against_time(text: str, seconds: float, part: str) -> None:
    found = [remark for remark in remarks(text, seconds) if part in remark.text]
    assert [(remark.key, remark.line) for remark in found] == [("lyrics", None)]


def test_time_is_counted_in_the_song_s_own_measure() -> None:
    dense = "[Verse]\n" + LINE * 30
    assert remarks(dense, 60)
    assert not remarks(dense, 70)
    assert not remarks(dense, 60, caption="fast rap over a trap beat")  # which has more syllables a second
    assert remarks("[Intro]\n\n" + dense, 62, bpm=60)  # two bars are eight seconds there
    assert not remarks("[Intro]\n\n" + dense, 70, bpm=180)
    assert not remarks("[Chorus]\nRide with me\n\n[Interlude]\n", 240)  # played, and said so


@pytest.mark.parametrize(
    ("text", "keys", "part"),
    [
        (LINE * 2 + "la " * 24, {}, "24 syllables are more than two bars hold with ease (about 20)"),
        (LINE * 2 + "la " * 30 + "\n" + "la " * 24, {}, "(1 more such line)"),
        ("[Verse]\n夜\n" + "さくら" * 10, {"language": "ja"}, "30 morae"),
    ],
)
def test_long_lines(text: str, keys: dict[str, str], part: str) -> None:
    [remark] = remarks(text, **keys)
    assert (remark.key, remark.line) == ("lyrics", 3)
    assert part in remark.text


def test_echoes_and_rap_make_no_long_line() -> None:
    assert not remarks("[Chorus]\n" + "la " * 16 + "(" + "la " * 16 + ")")
    assert not remarks("[Rap]\n" + "la " * 24)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("[Chrous]", "[Chorus]"),
        ("[vrese 2]", "[verse 2]"),
        ("[Pre-Chrous]", "[Pre-Chorus]"),
        ("[Final Corhus - loud]", "[Final Chorus - loud]"),
        ("[Brigde]", "[Bridge]"),
        ("[Outtro]", "[Outro]"),
        ("[Instrumetal Break]", "[Instrumental Break]"),
    ],
)
def test_misspelt_tags(written: str, meant: str) -> None:
    [remark] = remarks(f"{VERSE}\n{written}\n{LINE}")
    assert (remark.key, remark.line) == ("lyrics", 6)
    assert remark.text.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    "tag",
    [
        "Verse II",
        "verse1",
        "Chorus: whispered",
        "Chorus | choir",
        "Hook",
        "Saxophone Solo",
        "Build-Up",
        "Beat Drop",
        "Fade Out",
        "Middle 8",
        "Spoken Word",
        "Female Vocal",
        "Low Energy",
        "Piano chords",
        "Into the light",
        "Reverse cymbal",
        "Refrén",
        "Refräng",
        "Estribillo",
        "Ponte",
        "Припев",
        "副歌",
        "サビ",
        "후렴",
        "Anna",
        "Bridget",
        "Crescendo",
        "laughs",
        "Universe",
    ],
)
def test_other_tags_are_fine(tag: str) -> None:
    assert not remarks(f"{VERSE}\n[{tag}]\n{LINE}")


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("[chorus2", "is never closed; write [Chorus 2]"),
        ("Take my hand [whispered", "is never closed; close it"),
        ("Chorus]", "was never opened; write [Chorus]"),
        ("[]", "the brackets are empty"),
        ("(Chorus)", "'(Chorus)' may be sung as words; a section is marked as [Chorus]"),
        ("Chorus:", "marked as [Chorus]"),
        ("## Chorus", "marked as [Chorus]"),
        ("**Chorus**", "marked as [Chorus]"),
        ("Verse 2", "marked as [Verse 2]"),
        ("Pre-Chorus: run away", "marked as [Pre-Chorus]"),
        ("Припев:", "marked as [Припев]"),
        ("（副歌）", "marked as [副歌]"),
        ("Run away (x2)", "'Run away (x2)' does not repeat anything"),
        ("Repeat chorus", "does not repeat anything"),
        ("Sure, here are your lyrics!", "is not a line of the song"),
        ("Here's a verse about the rain:", "is not a line of the song"),
        ("Title: Night Drive", "is not a line of the song"),
        ("Let me know if you'd like another verse", "is not a line of the song"),
        ("\\[Verse\\]", "Markdown"),
        ("We ride **alone** tonight", "Markdown"),
        ("---", "Markdown"),
        ("```", "Markdown"),
        ("Run away<br>", "HTML"),
        ("Am  F  C  G", "the chords in 'Am F C G' may be sung as letters"),
        ("[Am]Run a[F]way", "the chords"),
        ("C | G/B | Bbmaj7", "the chords"),
        ("[00:12.50] Run away", "the time in '[00:12.50] Run away' places nothing"),
    ],
)
def test_lines_that_are_not_sung(written: str, part: str) -> None:
    [remark] = remarks(f"{VERSE}{written}\n{LINE}")
    assert (remark.key, remark.line) == ("lyrics", 5)
    assert part in remark.text


@pytest.mark.parametrize(
    "line",
    [
        "BURN IT BRIGHT!",
        "Run away (run away)",
        "(break)",
        "Bridge over the water",
        "Hook, line and sinker",
        "Chorus of the birds",
        "Here's a little song for you",
        "Let me know, let me know",
        "Sure, I'm fine, and here I stay",
        "What the f**k, oh f**k",
        "A B C D E F G",
        "A",
        "I am a man",
        "Two times two is four",
        "Oh - oh - oh",
        "♪ ♪ ♪",
    ],
)
def test_lines_that_are_sung(line: str) -> None:
    assert not remarks(f"{VERSE}{line}\n{LINE}")


def test_a_section_s_name_does_not_repeat_its_words() -> None:
    [remark] = remarks(f"[Chorus]\n{LINE}\n[Verse]\n{LINE}\n[Chorus]\n")
    assert (remark.key, remark.line) == ("lyrics", 7)
    assert "'[Chorus]' has no words below it" in remark.text
    assert not remarks(f"[Chorus]\n[Female Vocal]\n{LINE}\n[Chorus - instrumental]\n\n[Outro]\n")
    assert not remarks("[Verse]\n\n[Chorus]\n\n[Outro]\n", caption="soft piano")  # a form without any words


def test_instrumental_beside_words() -> None:
    [remark] = remarks(f"[Instrumental]\n\n{VERSE}")
    assert (remark.key, remark.line) == ("lyrics", 1)
    assert "write [Intro]" in remark.text
    [remark] = remarks(f"{VERSE}\n[Instrumental]\n{LINE}")
    assert (remark.key, remark.line) == ("lyrics", 7)
    assert "words stand below [Instrumental]" in remark.text
    [remark] = remarks("[Instrumental]", caption="solo piano", instrumental="false")
    assert (remark.key, remark.line) == ("instrumental", None)
    assert not remarks("[Instrumental]", caption="solo piano")
    assert not remarks(f"{VERSE}\n[Instrumental]\n\n{VERSE}")


@pytest.mark.parametrize(
    ("text", "language", "part"),
    [
        (ROMAJI, "ja", "is ja (Japanese), but the words are in Latin letters; if that is romaji"),
        (RUSSIAN, "en", "is en (English), but the words are in Cyrillic letters; write language: ru"),
        (VERSE, "ru", "write them in Cyrillic, or name the language"),
        (VERSE, "ar", "write them in Arabic"),
        (KOREAN.replace("Stay with me tonight", ""), "zh", "write language: ko"),
        (CHINESE * 2, "ja", "if the words are Chinese, write zh"),
        (RUSSIAN, None, "is not known, and the words are in Cyrillic letters; write language: ru"),
        (JAPANESE, None, "write language: ja"),
        (CHINESE, "unknown", "write language: zh (or yue)"),
        (KOREAN, None, "write language: ko"),
        (ARABIC, None, "write language: ar"),
        ("[Verse]\nНіч яка місячна, зоряна, ясная\n", None, "write language: uk"),
        ("[Instrumental]", "en", "has nothing to act on"),
    ],
)
def test_script_against_language(text: str, language: str | None, part: str) -> None:
    [remark] = remarks(text, language=language, caption="slow piano ballad")
    assert (remark.key, remark.line) == ("language", None)
    assert part in remark.text


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (VERSE, "en"),
        (VERSE, None),
        (VERSE + KOREAN, "en"),
        (VERSE + KOREAN, "ko"),
        (RUSSIAN + LINE * 3, "ru"),
        (ROMAJI + JAPANESE, "ja"),
        (JAPANESE, "ja"),
        (CHINESE, "zh"),
        (CHINESE, "yue"),
        (ARABIC, "ar"),
        (GERMAN, "de"),
        (SPANISH, "es"),
        ("[Verse]\nНоћ је пала на град\nИ ја чекам те сад\n", "sr"),
        ("[Verse]\nNoć je pala na grad\nI ja čekam te sad\n", "sr"),
        ("[Chorus]\nLa la la", "ja"),  # too little to tell
    ],
)
def test_scripts_that_agree(text: str, language: str | None) -> None:
    assert not remarks(text, language=language)


@pytest.mark.parametrize(
    ("caption", "keys", "part"),
    [
        ("rock", {}, "'rock' leaves nearly all to chance"),
        (None, {}, "is missing"),
        ("warm strings, " * 40, {}, "is 560 characters long"),
        ("温暖的弦乐，" * 60, {}, "is 360 characters long"),
        ("house at 120 bpm", {"bpm": 96}, "says 120 bpm, but bpm is 96"),
        ("house, 120-124 BPM", {"bpm": 96}, "says 120 bpm"),
        ("ballad in D major", {"key": "A minor"}, "says D major, but key is A minor"),
        ("ballad, F sharp minor", {"key": "F minor"}, "says F# minor"),
        ("sad ballad in a minor key", {"key": "C major"}, "says 'minor key'"),
        ("old viennese waltz", {"time_signature": "4/4"}, "a waltz is in 3/4"),
        ("march in 2/4", {"time_signature": "6/8"}, "says 2/4, but time_signature is 6/8"),
        ("instrumental, soft piano", {}, "says 'instrumental', but there are words to sing"),
        ("soft piano, no vocals", {}, "says 'no vocals'"),
        ("purely instrumental folk", {}, "says 'purely instrumental'"),
        ("pop\n".join("abcdefg"), {}, "looks like lyrics"),
    ],
)
def test_captions_that_contradict(caption: str | None, keys: dict[str, Any], part: str) -> None:
    [remark] = remarks(VERSE, caption=caption, **keys)
    assert (remark.key, remark.line) == ("caption", None)
    assert part in remark.text


@pytest.mark.parametrize(
    ("caption", "keys"),
    [
        ("house at 120 bpm", {"bpm": 120}),
        ("half-time house, 120 bpm", {"bpm": 60}),
        ("house, 120-124 bpm", {"bpm": 122}),
        ("house at 120 bpm", {}),
        ("ballad in Db major", {"key": "C# major"}),
        ("A major hit with A minor twist", {"key": "E minor"}),
        ("from A minor, to C major", {"key": "C major"}),
        ("old waltz", {"time_signature": "3/4"}),
        ("a waltz gone 4/4", {"time_signature": "4/4"}),
        ("warm folk with a long instrumental break", {}),
        ("lush instrumental backing, no drums", {}),
        ("no vocals in the intro, then female vocal", {}),
        ("pop, [bright] and clean", {}),
    ],
)
def test_captions_that_agree(caption: str, keys: dict[str, Any]) -> None:
    assert not remarks(VERSE, caption=caption, **keys)


def test_a_caption_with_section_tags() -> None:
    [remark] = remarks(VERSE, caption="slow ballad\n[Chorus]\nrun away")
    assert (remark.key, remark.line) == ("caption", 2)


def test_a_voice_needs_words() -> None:
    [remark] = remarks(None)
    assert (remark.key, remark.line) == ("caption", None)
    assert "says 'vocal', but nothing is sung" in remark.text
    assert not remarks(None, caption="house with vocal chops")
    assert not remarks(None, caption="soft piano")


def test_the_songs_we_ship_need_no_remark() -> None:
    songs = sorted((ROOT / "songs").glob("*.yaml"))
    assert songs
    for song in songs:
        request = spec.load(song)
        assert checks.song_remarks(request, request.duration or 60) == [], song.name


def test_remarks_come_in_the_order_of_the_keys_and_lines() -> None:
    found = remarks(f"[Chrous]\n{LINE}[Brigde]\n{LINE}", caption="rock", language="ru")
    assert [(remark.key, remark.line) for remark in found] == [
        ("caption", None),
        ("lyrics", 1),
        ("lyrics", 3),
        ("language", None),
    ]


def test_no_text_is_too_strange() -> None:
    draw = random.Random(1)
    marks = ["[", "]", "(", ")", "\n", " ", "*", "#", ":", "x2", "Am", "Chorus", "instrumental", "120 bpm", "A minor"]
    for _ in range(500):
        letters = [chr(draw.choice((draw.randrange(1, 0xD800), draw.randrange(0xE000, 0x110000)))) for _ in range(40)]
        text = "a" + "".join(draw.choice((draw.choice(letters), draw.choice(marks))) for _ in range(80))
        language = draw.choice([None, "en", "ja", "hi", "fr", "th", "unknown"])
        for remark in remarks(text, 30, caption=text, language=language, bpm=90, key="C major", time_signature="4/4"):
            assert remark.key in KEYS
            assert remark.line is None or 1 <= remark.line <= text.count("\n") + 1
            assert "\n" not in remark.text


# What people and language models really write


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("[Chorus x2]", "'[Chorus x2]' is sung once, because a tag repeats nothing; write the words out"),
        ("[Chorus ×3]", "'[Chorus ×3]' is sung once"),
        ("[Chorus (2x)]", "'[Chorus (2x)]' is sung once"),
        ("[Repeat Chorus]", "'[Repeat Chorus]' is sung once"),
        ("[Chorus]]", "the bracket in '[Chorus]]' was never opened; write [Chorus]"),
        ("[[Chorus]", "the bracket in '[[Chorus]' is never closed; write [Chorus]"),
        ("[[Chorus]]", "the bracket in '[[Chorus]]' is there twice; write [Chorus]"),
        ("[Anna]]", "write [Anna]"),
        ("[Chorus)", "write [Chorus]"),
        ("(Chorus]", "write [Chorus]"),
        ("]Chorus[", "is turned round; write [Chorus]"),
        ("[Verse 2[", "write [Verse 2]"),
        ("[Verz]", "'[Verz]' is not a section; did you mean [Verse]?"),
        ("[Korus]", "did you mean [Chorus]?"),
        ("[Bridj]", "did you mean [Bridge]?"),
        ("[Estribilo]", "did you mean [Estribillo]?"),
        ("【副歌】", "a section is marked as [副歌]"),
        ("【Verse 2】", "a section is marked as [Verse 2]"),
        ("［サビ］", "a section is marked as [サビ]"),
        ("『間奏』", "a section is marked as [間奏]"),
        ("【副歌】我在等你回家", "a section is marked as [副歌]"),
        ("Summer sound[Verse 2]", "[Verse 2] stands among the words in 'Summer sound[Verse 2]'"),
        ("Summer sound [Verse 2] on the road", "[Verse 2] stands among the words"),
        ("[Verse 2]Summer sound", "[Verse 2] stands among the words"),
        ("[Cho\u200brus]", "a character that nobody sees stands in a tag, which is another tag with it (U+200B)"),
        ("[\ufeffChorus]", "stands in a tag, which is another tag with it (U+FEFF)"),
        ("[Chor\u200dus]", "stands in a tag, which is another tag with it (U+200D)"),
        ("Sum\u00admer sound", "a character that nobody sees stands among the words"),
        ("Summer\x00 sound", "a control character stands here, which is not text (U+0000); remove it"),
        ("Summer\x1b sound", "a control character stands here, which is not text (U+001B); remove it"),
        ("Key: Am", "'Key: Am' is not a line of the song"),
        ("Capo: 2", "'Capo: 2' is not a line of the song"),
        ("00:00:12,000 --> 00:00:15,500", "the time in '00:00:12,000 --> 00:00:15,500' places nothing; remove it"),
        ("WEBVTT", "places nothing"),
        ("[ar: The Tide Tables]", "places nothing"),
        ("<00:12.50> Run away", "places nothing"),
        ("la cafe\u0301", "letters and their accents are apart here, é as U+0065 U+0301"),
        ("la Ti\u1ebf\u0302ng u\u0308ber", "letters and their accents are apart here, ü as U+0075 U+0308"),
    ],
)
def test_slips_of_people_and_language_models(written: str, part: str) -> None:
    [remark] = remarks(f"{VERSE}{written}\n{LINE}")
    assert (remark.key, remark.line) == ("lyrics", 5)
    assert part in remark.text


@pytest.mark.parametrize(
    ("sign", "name"), [("\x1b[31m", "001B"), ("\x00", "0000"), ("\x07", "0007"), ("\x9b1m", "009B")]
)
def test_a_control_character_in_a_caption_is_remarked_on(sign: str, name: str) -> None:
    """Escapes in double quotes, as JSON and YAML have them, get past the reader of the file."""
    [remark] = remarks(f"{VERSE}{LINE}", caption=f"slow piano{sign} ballad with strings")
    assert (remark.key, remark.text) == (
        "caption", f"holds a control character (U+{name}), which is not text; remove it"
    )  # fmt: skip


def test_a_break_of_two_characters_is_one_remark_and_the_lines_are_looked_at_as_they_are_meant() -> None:
    for sign in ("\\n", "\\r\\n"):
        [remark] = remarks(VERSE.replace("\n", sign))
        assert (remark.key, remark.line) == ("lyrics", 1)
        assert "\\n is two characters here and breaks no line" in remark.text
    found = remarks("[Vrese]\\n" + LINE)
    assert ["did you mean [Verse]?" in remark.text for remark in found] == [True, False]


def test_joiners_are_part_of_the_words_of_their_scripts() -> None:
    assert not remarks("[Verse]\n" + "می\u200cخواهم تو را\n" * 2, language="fa")


def test_subtitles_are_no_words_and_one_remark() -> None:
    cue = "{0}\n00:00:{0}0,000 --> 00:00:{0}5,500\nCity light slides over the glass\n\n"
    [remark] = remarks("[Verse]\n" + "".join(cue.format(number) for number in range(1, 5)), 30)
    assert (remark.line, remark.text) == (
        3,
        "the time in '00:00:10,000 --> 00:00:15,500' places nothing; remove it (3 more such lines)",
    )


@pytest.mark.parametrize("mark", ["+++", "---"])
def test_keys_above_the_words_are_named(mark: str) -> None:
    found = remarks(f'{mark}\ntitle = "Night"\n{mark}\n{VERSE}')
    assert any(remark.line == 1 and f"{mark} begins the keys of a file" in remark.text for remark in found)


def test_accents_apart_make_no_other_tag() -> None:
    found = remarks("[Introduccio\u0301n]\n[Estribillo]\nLa luna duerme sobre el mar\n", language="es")
    assert ["letters and their accents are apart" in remark.text for remark in found] == [True]


@pytest.mark.parametrize(
    ("caption", "is_vague"),
    [
        ("music", True),
        ("a sad song", True),
        ("nice pop music", True),
        ("make me a hit", True),
        ("a song", True),
        ("epic rock song", False),
        ("dusty slow blues", False),
        ("happy ukulele", False),
        ("轻快的流行钢琴曲，女声", False),
    ],
)
def test_a_caption_that_says_little_is_vague(caption: str, is_vague: bool) -> None:
    found = checks.song_remarks(Request(caption=caption), 60)
    assert [remark.key for remark in found] == ["caption"] * is_vague
    assert all("leaves nearly all to chance" in remark.text for remark in found)


def test_what_the_songwriter_writes_is_sung_in_the_language() -> None:
    asked = {"idea": "a lost umbrella", "language": "pt", "caption": "bossa nova, soft female vocals"}
    assert not checks.song_remarks(Request(**asked), 60)
    found = checks.song_remarks(Request(**asked, instrumental=True), 60)
    assert [remark.key for remark in found] == ["caption", "language"]
    assert not checks.song_remarks(
        Request(source="a.wav", mode="cover", caption="jazz trio, male vocal", language="en"), 60
    )
