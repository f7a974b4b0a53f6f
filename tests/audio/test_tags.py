"""Tags: what is written is read back, by mutagen and by libsndfile, and covers are looked at before they are used."""

from __future__ import annotations

import base64
import io
import os
import struct
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen import flac

from acestep_cli.audio import encode, tags
from acestep_cli.audio.sound import Audio
from acestep_cli.audio.tags import Tags
from acestep_cli.errors import EncoderError
from acestep_cli.song.languages import LANGUAGES
from acestep_cli.song.request import KEYS
from support import ffmpeg, pictures
from support.command import in_time

RATE = 48_000
LYRICS = "[Verse]\nStadtlicht gleitet übers Glas\n"
FORMATS = [name for name, row in encode.FORMATS.items() if row.program is None]
FULL = Tags(
    title="Nächte Ω",
    artist="The Tide Tables",
    album="Low Water",
    track_number=3,
    year=2026,
    genre="Synthwave",
    comment="first line\nsecond",
    bpm=105,
    key="F# minor",
    lyrics=LYRICS,
    language="de",
    recipe="0123456789abcdef",
)
#: What each tag reads as, by its name in Vorbis comments.
EXPECTED = {
    "TITLE": "Nächte Ω", "ARTIST": "The Tide Tables", "ALBUM": "Low Water", "TRACKNUMBER": "3", "DATE": "2026",
    "GENRE": "Synthwave", "COMMENT": "first line\nsecond", "BPM": "105", "INITIALKEY": "F#m", "LYRICS": LYRICS,
    "LANGUAGE": "deu", "AI_GENERATED": "true", "ACESTEP_RECIPE": "0123456789abcdef",
}  # fmt: skip


def picture(folder: Path, data: bytes) -> tags.Cover:
    (folder / "cover").write_bytes(data)
    return tags.read_picture(folder / "cover")


def write(path: Path, asked: Tags | None, seconds: float = 1.0) -> Path:
    wave = np.sin(2 * np.pi * 220 * np.arange(int(seconds * RATE)) / RATE)
    sound = Audio(np.stack([wave, 0.5 * wave]).astype(np.float32), RATE)
    path.unlink(missing_ok=True)
    encode.write_audio(path, sound, encode.Finish(encode.resolve_encoding(path.suffix[1:]), tags=asked))
    return path


def mp4(path: Path, asked: Tags, samples: bytes = bytes(80_000)) -> Path:
    path.write_bytes(ffmpeg.mp4(RATE, samples))
    tags.write_tags(path, "m4a", asked)
    return path


def of_id3(found: Any) -> dict[str, Any]:
    """The frames under the names of Vorbis comments."""
    texts = {names.vorbis: found[names.id3] for names in tags.NAMES.values() if names.id3 in found}
    free = {frame.desc: frame for frame in found.getall("TXXX")}
    [comment], [lyrics] = found.getall("COMM"), found.getall("USLT")
    assert (comment.lang, lyrics.lang) == ("XXX", "deu")
    return {name: str(frame) for name, frame in {**texts, **free, "COMMENT": comment, "LYRICS": lyrics}.items()}


def of_mp4(found: Any) -> dict[str, Any]:
    free = {name.rpartition(":")[2]: value[0].decode() for name, value in found.items() if name.startswith("----")}
    own = {
        names.vorbis: found[names.mp4][0] for names in tags.NAMES.values() if len(names.mp4) == 4 and names.mp4 in found
    }
    own["TRACKNUMBER"] = own["TRACKNUMBER"][0]
    return {name.upper(): str(value) for name, value in {**own, **free}.items()}


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read_back(tmp_path: Path, format: str) -> None:
    path = write(tmp_path / f"a.{format}", FULL)
    found = mutagen.File(path)
    if format in ("wav", "mp3"):
        assert of_id3(found.tags) == EXPECTED
    else:
        assert dict(found.tags) == {name.lower(): [value] for name, value in EXPECTED.items()}
    with soundfile.SoundFile(path) as file:
        assert file.frames == RATE
        assert file.copy_metadata() == {
            "title": "Nächte Ω", "artist": "The Tide Tables", "album": "Low Water", "tracknumber": "3", "date": "2026",
            "genre": "Synthwave", "comment": "first line\nsecond",
        }  # fmt: skip


def test_mp4_holds_the_same_and_still_finds_its_sound(tmp_path: Path) -> None:
    sound = bytes(range(256)) * 400
    path = mp4(tmp_path / "a.m4a", FULL, sound)
    assert of_mp4(mutagen.File(path).tags) == EXPECTED
    assert ffmpeg.samples_of(path.read_bytes()) == sound


def as_read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


@pytest.mark.parametrize("format", FORMATS)
def test_tags_leave_the_sound_alone(tmp_path: Path, format: str) -> None:
    cover = picture(tmp_path, pictures.png() + bytes(500_000))
    bare = write(tmp_path / f"bare.{format}", None)
    tagged = write(tmp_path / f"tagged.{format}", replace(FULL, cover=cover))
    assert np.array_equal(as_read(bare), as_read(tagged))
    assert tagged.stat().st_size > bare.stat().st_size + 500_000


@pytest.mark.parametrize("format", [*FORMATS, "m4a"])
@pytest.mark.parametrize("made", [pictures.png, pictures.jpeg])
def test_a_cover_is_read_back(tmp_path: Path, format: str, made: Any) -> None:
    cover = picture(tmp_path, made(30, 20))
    assert (cover.width, cover.height, cover.depth) == (30, 20, 24)
    path, asked = tmp_path / f"a.{format}", replace(FULL, cover=cover)
    found = mutagen.File(mp4(path, asked) if format == "m4a" else write(path, asked))
    if format == "m4a":
        [inside] = found.tags["covr"]
        assert bytes(inside) == cover.data
        assert inside.imageformat == (14 if made is pictures.png else 13)
        return
    if format in ("wav", "mp3"):
        [inside] = found.tags.getall("APIC")
    elif format == "flac":
        [inside] = found.pictures
    else:
        inside = flac.Picture(base64.b64decode(found.tags["METADATA_BLOCK_PICTURE"][0]))
    assert (inside.data, inside.mime, inside.type) == (cover.data, cover.mime, 3)
    if format not in ("wav", "mp3"):
        assert (inside.width, inside.height, inside.depth) == (30, 20, 24)


@pytest.mark.parametrize("format", [*FORMATS, "m4a"])
def test_the_same_tags_give_the_same_bytes(tmp_path: Path, format: str) -> None:
    asked = replace(FULL, cover=picture(tmp_path, pictures.png()))
    make = mp4 if format == "m4a" else write
    first = make(tmp_path / f"a.{format}", asked).read_bytes()
    assert make(tmp_path / f"a.{format}", asked).read_bytes() == first
    assert b"utagen" not in first  # no name of a program that comes and goes with its version


@pytest.mark.parametrize("format", [*FORMATS, "m4a"])
def test_what_is_not_known_is_left_out(tmp_path: Path, format: str) -> None:
    asked = Tags(recipe="0123", language="unknown", lyrics="la\0la")
    found = mutagen.File((mp4 if format == "m4a" else write)(tmp_path / f"a.{format}", asked)).tags
    assert len(found.keys()) == 3  # lyrics, the marker and the recipe
    assert "lala" in str(found)
    bare = mutagen.File(write(tmp_path / "bare.flac", None))
    assert not bare.tags


@pytest.mark.parametrize("length", range(1, 5))
def test_the_list_of_a_wav_is_whole_at_any_length(tmp_path: Path, length: int) -> None:
    """Its texts are padded to an even length, and so is what comes before it."""
    path = write(tmp_path / "a.wav", Tags(title="x" * length, artist="y"))
    data = path.read_bytes()
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    at, names = 12, []
    while at < len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        names.append(name)
        at += 8 + size + size % 2
    assert (at, names[-3:]) == (len(data), [b"data", b"LIST", b"id3 "])
    assert soundfile.SoundFile(path).title == "x" * length


def test_languages_are_named_as_players_know_them() -> None:
    assert set(tags.ISO_639_2) == set(LANGUAGES) - {"unknown"}
    assert len(set(tags.ISO_639_2.values())) == len(tags.ISO_639_2)
    assert all(len(code) == 3 for code in tags.ISO_639_2.values())


def test_keys_are_written_in_three_letters() -> None:
    assert tags.tag_texts(Tags(key="Bb major"))["key"] == "Bb"
    assert tags.tag_texts(Tags(key="Bb minor"))["key"] == "Bbm"


def test_every_tag_has_a_name_and_a_key_of_the_song() -> None:
    assert set(KEYS) >= tags.KEYS
    assert {field.name for field in fields(Tags)} == {*tags.NAMES, "cover", "lines"} - {"ai_generated"}
    assert set(tags.WRITERS) == set(encode.FORMATS)
    for name in ("title", *{key for key in tags.KEYS if KEYS[key].panel == "Tags"}, "cover"):
        assert not KEYS[name].shapes


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is neither a JPEG nor a PNG picture"),
        (b"GIF89a" + bytes(100), "is neither a JPEG nor a PNG picture"),
        (pictures.png()[:-12], "is a picture that is cut off or damaged"),
        (pictures.png()[:20], "is a picture that is cut off or damaged"),
        (pictures.png(0, 2), "is a picture that is cut off or damaged"),
        (pictures.jpeg()[:-2], "is a picture that is cut off or damaged"),
        (pictures.jpeg()[:12], "is a picture that is cut off or damaged"),
        (pictures.jpeg(3, 0), "is a picture that is cut off or damaged"),
        (b"\xff\xd8\xff" + bytes(5000), "is a picture that is cut off or damaged"),
        (pictures.png() + bytes(10_000_000), "is larger than 10 MB; a smaller picture will do"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_what_is_no_cover_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"cover {sentence}$"):
        picture(tmp_path, data)


def test_a_cover_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no cannot be read: no such file or directory$"):
        tags.read_picture(tmp_path / "no")
    with pytest.raises(ValueError, match=r" cannot be read: "):
        tags.read_picture(tmp_path)


@pytest.mark.parametrize("format", [*FORMATS, "m4a"])
def test_a_file_of_another_format_is_an_encoder_s_failure(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"nonsense" * 100)
    if format == "mp3":  # ID3 stands in front of anything
        tags.write_tags(path, format, FULL)
        assert path.read_bytes().endswith(b"nonsense")
        return
    with pytest.raises(EncoderError, match=f"The tags of the {format} file could not be written") as caught:
        tags.write_tags(path, format, FULL)
    assert caught.value.exit_code == 9


def test_the_largest_cover_fits_every_container(tmp_path: Path) -> None:
    data = pictures.png()
    cover = picture(tmp_path, data + bytes(tags.MOST_COVER_BYTES - len(data)))
    for format in FORMATS:
        path = write(tmp_path / f"a.{format}", replace(FULL, cover=cover), seconds=0.2)
        with soundfile.SoundFile(io.BytesIO(path.read_bytes())) as file:
            assert file.frames == RATE // 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_a_cover_that_is_a_pipe_is_read_to_its_end_or_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "cover"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"[Nn]obody writes to this pipe"):
        in_time(lambda: tags.read_picture(pipe), 30)
    writer = threading.Thread(target=pipe.write_bytes, args=(pictures.png(30, 20),), daemon=True)
    writer.start()
    assert in_time(lambda: tags.read_picture(pipe), 30).width == 30
    writer.join(timeout=30)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device without end")
def test_a_cover_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="is larger than 10 MB"):
        tags.read_picture(Path("/dev/zero"))
