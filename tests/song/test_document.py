"""Specs as other programs and people write them: encodings, styles of YAML, and what is wrong in plain words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from acestep_cli.errors import UsageError
from acestep_cli.song import document, spec

LYRICS = "[Verse]\nLine one\nLine two, and it's late\n\n[Chorus]\nHold on: the fire 🎸\n"
LONG = (
    "[Verse]\nLine one\n"
    "Far beyond the harbour lights and all the sleeping boats we rode the long way home again, my love, my love\n\n"
    "[Chorus]\nHold on\n"
)


def refusal(text: str, name: str = "song.yaml", tmp_path: Path = Path()) -> str:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        spec.load(file)
    return caught.value.message


# encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_spec_and_its_lyrics_are_read_in_any_encoding_that_says_what_it_is(
    tmp_path: Path, encoding: str, ends: str
) -> None:
    words = tmp_path / "words.txt"
    words.write_bytes(LYRICS.replace("\n", ends).encode(encoding))
    song = tmp_path / "song.yaml"
    song.write_bytes(f"caption: café noir{ends}lyrics_file: words.txt{ends}".encode(encoding))
    read = spec.load(song)
    assert (read.caption, read.lyrics) == ("café noir", LYRICS)


def test_utf_16_of_the_other_byte_order_is_read() -> None:
    assert document.decoded(b"\xfe\xff" + "夜のドライブ".encode("utf-16-be")) == "夜のドライブ"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("Glück".encode("latin-1"), "is not UTF-8 text (byte 2); save it as UTF-8"),
        (b"\xff\xfea\x00b", "is not UTF-16 text (byte 4); it is cut short or damaged"),
        (b"\xff\xfe\x00\x00abc", "is not UTF-32 text"),
    ],
)
def test_what_cannot_be_read_says_which_encoding_was_tried(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match="is not UTF") as caught:
        document.decoded(data)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("text", ["🎸 loud 🎵", 'a \\ud83c "quoted" 🎸', "\\🎸"])
@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_with_characters_in_two_halves_is_read(tmp_path: Path, text: str, indent: int | str | None) -> None:
    file = tmp_path / "song.json"
    file.write_text(json.dumps({"caption": text, "bpm": 92, "lyrics": LYRICS}, indent=indent))
    read = spec.load(file)
    assert (read.caption, read.bpm, read.lyrics) == (text, 92, LYRICS)


def test_half_a_character_is_refused_in_plain_words(tmp_path: Path) -> None:
    assert "song.yaml:1: has half of a character" in refusal('{"caption": "a \\ud83c"}', tmp_path=tmp_path)


# styles of text on several lines

RUAMEL = """\
caption: x
lyrics: "[Verse]\\nLine one\\nFar beyond the harbour lights and all the sleeping boats\\
  \\ we rode the long way home again, my love, my love\\n\\n[Chorus]\\nHold on\\n"
"""
JS_YAML = """\
caption: x
lyrics: >
  [Verse]

  Line one

  Far beyond the harbour lights and all the sleeping boats we rode the long way
  home again, my love, my love


  [Chorus]

  Hold on
"""
JS_QUOTED = """\
caption: x
lyrics: "[Verse]

  Line one

  Far beyond the harbour lights and all the sleeping boats we rode the long way
  home again, my love, my love


  [Chorus]

  Hold on

  "
"""
GO = """\
caption: x
lyrics: |
    [Verse]
    Line one
    Far beyond the harbour lights and all the sleeping boats we rode the long way home again, my love, my love

    [Chorus]
    Hold on
"""
ESCAPED_AND_BROKEN = """\
caption: x
lyrics: "[Verse]\\n
  Line one\\n
  Line two\\n"
"""


@pytest.mark.parametrize("text", [RUAMEL, JS_YAML, JS_QUOTED, GO], ids=["ruamel", "js-yaml", "js quoted", "go"])
def test_the_styles_of_other_programs_keep_every_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "song.yaml"
    file.write_text(text)
    assert spec.load(file).lyrics == LONG


@pytest.mark.parametrize("words", [LYRICS, LONG, LYRICS.strip(), "la\nla", " la \n\n\nlo"])
@pytest.mark.parametrize("style", [None, "'", '"', "|", ">"])
@pytest.mark.parametrize("width", [80, 1000])
def test_whatever_pyyaml_dumps_is_read(tmp_path: Path, words: str, style: str | None, width: int) -> None:
    file = tmp_path / "song.yaml"
    for unicode in (False, True):
        text = yaml.safe_dump(
            {"caption": "x", "lyrics": words}, default_style=style, width=width, allow_unicode=unicode
        )
        file.write_text(text, encoding="utf-8")
        assert spec.load(file).lyrics == words, text


@pytest.mark.parametrize("width", [20, 33, 40, 60])
@pytest.mark.parametrize(
    "words", [LYRICS, LONG, "a b  c\n\n" * 20, "\u4e2d \u6587 la la\n" * 9], ids=["a", "b", "c", "d"]
)
def test_lines_that_pyyaml_wraps_early_are_read(tmp_path: Path, words: str, width: int) -> None:
    file = tmp_path / "song.yaml"
    file.write_text(yaml.safe_dump({"caption": "x", "lyrics": words}, default_style='"', width=width), encoding="utf-8")
    assert spec.load(file).lyrics == words


def test_breaks_that_are_escaped_and_written_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "song.yaml"
    file.write_text(ESCAPED_AND_BROKEN)
    assert (spec.load(file).lyrics or "").split() == ["[Verse]", "Line", "one", "Line", "two"]
    assert (spec.load(file).lyrics or "").count("\n") == 3


@pytest.mark.parametrize(
    "value",
    [
        "'[Verse]\n  Line one\n  Line two'",
        '"[Verse]\n  Line one\n\n  [Chorus]\n  Line two"',
        '"[Verse]\\\n  Line one"',
        ">\n  [Verse]\n  Line one\n\n  [Chorus]\n  Line two\n",
        ">-\n  [Verse]\n\n  Line one\n  Line two",
        "\n  Line one\n  Line two\n\n  Line three",
        "la\n  la",
        '"\n  [Verse]\n  la\n  "',
        f"'{'long words ' * 9}\n  [Chorus]\n  la'",
    ],
)
def test_lyrics_that_lost_line_breaks_are_refused(tmp_path: Path, value: str) -> None:
    message = refusal(f"caption: x\nlyrics: {value}\nbpm: 90\n", tmp_path=tmp_path)
    assert "song.yaml:2: lyrics: YAML makes one line of these; write `lyrics: |`" in message


def test_one_line_in_quotes_below_its_key_is_no_loss(tmp_path: Path) -> None:
    for value in ("\n  la la", "\n  'la la'", ">\n  la la\n", '"\n  la la\n  "'):
        file = tmp_path / "song.yaml"
        file.write_text(f"caption: x\nlyrics: {value}\nbpm: 90\n")
        assert (spec.load(file).lyrics or "").strip() == "la la"


# what is wrong, in plain words


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("caption: a\nlyrics: |\n\tla\n", ":3: is indented with a tab; write spaces"),
        ("songwriter_options:\n\ttop_k: 3\n", ":2: is indented with a tab; write spaces"),
        ("Here it is:\n```yaml\ncaption: a\n```\n", ":2: ``` marks a code block"),
        ("caption: @x\n", ":1: '@x' begins with @, which YAML keeps for itself; put the whole text in quotes"),
        ("bpm: 90\ncaption: `x`\n", ":2: '`x`' begins with `"),
        ("caption: %x\n", ":1: '%x' begins with %"),
        ('reference: "C:\\Users\\me.wav"\n', ":1: has a backslash, which means something else in double quotes"),
        ('reference: "C:\\music\\me.wav"\n', ":1: has a backslash, which means something else in double quotes"),
        ("caption: *soft* piano\n", ":1: '*soft* piano' begins with *"),
        ("caption: *soft\n", ":1: caption: '*soft' begins with *"),
        ("caption: &B roll\n", ":1: caption: '&B roll' begins with &"),
        ("caption: & roll\n", ":1: '& roll' begins with &"),
        ("caption: !loud guitars\n", ":1: caption: '!loud guitars' begins with !"),
        ("caption: > text\n", ":1: '> text' stands behind its sign for text on several lines"),
        ("lyrics: | text\n", ":1: '| text' stands behind its sign for text on several lines"),
        ("title: 'don't stop'\n", "has a quotation mark inside that ends the text"),
        ("bpm: 90\ntitle: 'dont stop\nkey: A minor\n", ":2: the text ends inside quotes or brackets"),
        ("caption: [lofi] piano\n", ":1: '[lofi] piano' begins with ["),
        ("caption: a\nbpm 92\nkey: A minor\n", ":2: 'bpm 92' has no `key:` in front"),
        ("lyrics: |\n  [Verse]\nLine one\nbpm: 3\n", ":3: 'Line one' has no `key:` in front; lyrics stand below"),
        ("caption: a\n  bpm: 3\n", ":2: 'bpm: 3' is indented differently"),
        ("  caption: a\nbpm: 3\n", ":2: 'bpm: 3' is indented differently"),
        ("caption: - x\n", "begins with a dash, which YAML takes for a list"),
        ("caption: a\ntitle: a\x00b\n", ":2: holds a character that is not text, U+0000; remove it"),
    ],
)
def test_slips_are_answered_in_plain_words(tmp_path: Path, text: str, sentence: str) -> None:
    message = refusal(text, tmp_path=tmp_path)
    assert f"song.yaml{sentence}" in message or (sentence[0] != ":" and sentence in message)
    for word in ("token", "node", "mapping", "scalar", "simple key", "block end"):
        assert word not in message


@pytest.mark.parametrize("mark", ["```", "```yaml", "~~~", "````yml"])
def test_a_code_block_around_a_whole_spec_is_read(tmp_path: Path, mark: str) -> None:
    end = mark.rstrip("yaml")
    file = tmp_path / "song.yaml"
    file.write_text(f"\n{mark}\ncaption: a\nbpm: 90\n{end}\n\n")
    assert spec.load(file).bpm == 90
    assert "song.yaml:4: bpm: 9 is" in refusal(f"\n{mark}\ncaption: a\nbpm: 9\n{end}\n", tmp_path=tmp_path)
    song = tmp_path / "song.md"
    song.write_text(f"{mark}\n---\nbpm: 90\n---\n\n[Verse]\nla\n{end}\n")
    assert (spec.load(song).bpm, spec.load(song).lyrics) == (90, "[Verse]\nla\n")


@pytest.mark.parametrize(
    ("line", "key", "meant"),
    [
        ("Key: Am", "key", "A minor"),
        ("BPM: 92", "bpm", 92),
        ("Time Signature: 3/4", "time_signature", "3/4"),
        ("time-signature: 3/4", "time_signature", "3/4"),
        ('"Title": Night', "title", "Night"),
    ],
)
def test_a_key_may_be_written_as_a_heading(tmp_path: Path, line: str, key: str, meant: object) -> None:
    file = tmp_path / "song.yaml"
    file.write_text(f"Caption: a\n{line}\n")
    read = spec.load(file)
    assert (read.caption, getattr(read, key)) == ("a", meant)
    assert f"song.yaml:3: {key}: is here again, after line 2" in refusal(
        f"caption: a\n{line}\n{key}: x\n", tmp_path=tmp_path
    )


@pytest.mark.parametrize("sign", ["\x85", "\u2028", "\u2029"])
def test_breaks_that_only_yaml_knows_are_counted_as_it_counts_them(tmp_path: Path, sign: str) -> None:
    file = tmp_path / "song.yaml"
    file.write_text(f"caption: a\nlyrics: 'la{sign}{sign}  la'", encoding="utf-8")
    assert (spec.load(file).lyrics or "").split() == ["la", "la"]
    assert "lyrics: YAML makes one line of these" in refusal(f"lyrics: 'la{sign}  la'", tmp_path=tmp_path)
