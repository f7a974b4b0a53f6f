"""Tags of audio files in ID3, Vorbis comments and MP4, and cover pictures.

They are written in a fixed order, without padding, a date or the name of an encoder: the same render must give the
same file.
"""

from __future__ import annotations

import base64
import contextlib
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from acestep_cli import disk
from acestep_cli.audio import lrc
from acestep_cli.audio.lrc import TimedLine
from acestep_cli.errors import EncoderError, reason_of

#: Limit for a cover: a block of FLAC holds 16 MB.
MOST_COVER_BYTES = 10_000_000


@dataclass(frozen=True)
class Cover:
    """A cover: the bytes of a JPEG or PNG file, its size in pixels, and its bits per pixel."""

    data: bytes
    mime: str
    width: int
    height: int
    depth: int


@dataclass(frozen=True)
class Tags:
    """Tags of a song, by the keys of a spec. A tag that is None is not written."""

    title: str | None = None
    artist: str | None = None
    album: str | None = None
    track_number: int | None = None
    year: int | None = None
    genre: str | None = None
    comment: str | None = None
    bpm: int | None = None
    key: str | None = None
    lyrics: str | None = None
    language: str | None = None
    recipe: str | None = None
    #: The completed spec, which renders the song again.
    spec: str | None = None
    cover: Cover | None = None
    #: The timed lyrics.
    lines: tuple[TimedLine, ...] = ()


#: The keys of a song that its tags repeat.
KEYS = frozenset(field.name for field in fields(Tags)) - {"recipe", "spec", "cover", "lines"}


@dataclass(frozen=True)
class TagNames:
    """Names of one tag in each container. MP4 names of more than four letters are iTunes' free ones."""

    id3: str
    vorbis: str
    mp4: str
    #: In the INFO list of a WAV, which most programs read.
    info: str | None = None


NAMES: Mapping[str, TagNames] = {
    "title": TagNames("TIT2", "TITLE", "©nam", "INAM"),
    "artist": TagNames("TPE1", "ARTIST", "©ART", "IART"),
    "album": TagNames("TALB", "ALBUM", "©alb", "IPRD"),
    "track_number": TagNames("TRCK", "TRACKNUMBER", "trkn", "ITRK"),
    "year": TagNames("TDRC", "DATE", "©day", "ICRD"),
    "genre": TagNames("TCON", "GENRE", "©gen", "IGNR"),
    "comment": TagNames("COMM", "COMMENT", "©cmt", "ICMT"),
    "bpm": TagNames("TBPM", "BPM", "tmpo"),
    "key": TagNames("TKEY", "INITIALKEY", "initialkey"),
    "lyrics": TagNames("USLT", "LYRICS", "©lyr"),
    "language": TagNames("TLAN", "LANGUAGE", "LANGUAGE"),
    "ai_generated": TagNames("TXXX", "AI_GENERATED", "AI_GENERATED"),
    "recipe": TagNames("TXXX", "ACESTEP_RECIPE", "ACESTEP_RECIPE"),
    "spec": TagNames("TXXX", "ACESTEP_SPEC", "ACESTEP_SPEC"),
}

#: ISO 639-2, in which tags name languages, for the codes of a spec; Cantonese has its own in ISO 639-3 only.
ISO_639_2: Mapping[str, str] = {
    "ar": "ara", "az": "aze", "bg": "bul", "bn": "ben", "ca": "cat", "cs": "ces", "da": "dan", "de": "deu",
    "el": "ell", "en": "eng", "es": "spa", "fa": "fas", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin",
    "hr": "hrv", "ht": "hat", "hu": "hun", "id": "ind", "is": "isl", "it": "ita", "ja": "jpn", "ko": "kor",
    "la": "lat", "lt": "lit", "ms": "msa", "ne": "nep", "nl": "nld", "no": "nor", "pa": "pan", "pl": "pol",
    "pt": "por", "ro": "ron", "ru": "rus", "sa": "san", "sk": "slk", "sr": "srp", "sv": "swe", "sw": "swa",
    "ta": "tam", "te": "tel", "th": "tha", "tl": "tgl", "tr": "tur", "uk": "ukr", "ur": "urd", "vi": "vie",
    "yue": "yue", "zh": "zho",
}  # fmt: skip
#: Prefix of a free tag of MP4.
FREE = "----:com.apple.iTunes:"
UNKNOWN_LANGUAGE = "XXX"  # as ID3 says it


def tag_texts(tags: Tags) -> dict[str, str]:
    """Return each tag as text, in the order of `NAMES`. Languages and keys are spelt for players: deu, F#m."""
    found = {name: getattr(tags, name, None) for name in NAMES}
    found["ai_generated"] = "true"
    found["language"] = ISO_639_2.get(tags.language or "")
    if tags.key is not None:
        note, _, scale = tags.key.partition(" ")
        found["key"] = note + ("m" if scale == "minor" else "")
    # A zero byte would end a text of ID3; lyrics may hold one.
    return {name: str(value).replace("\0", "") for name, value in found.items() if value is not None}


def write_tags(path: Path, format: str, tags: Tags) -> None:
    """Replace the tags of the audio file `path` by `tags`. Raises `EncoderError` if the file is not of `format`."""
    from mutagen import MutagenError

    try:
        WRITERS[format](path, tags)
    except MutagenError as error:
        cause = error.args[0] if error.args else None
        if isinstance(cause, OSError):  # such as a full disk
            raise cause from error
        raise EncoderError(f"The tags of the {format} file could not be written: {error}") from error


def read_spec(path: Path) -> str | None:
    """Return the spec in the tags of the audio file `path`; None where there is none, or the tags cannot be read."""
    import mutagen

    names = NAMES["spec"]
    try:
        found: Any = getattr(mutagen.File(path), "tags", None)
    except (mutagen.MutagenError, OSError):
        return None
    for place in (names.vorbis, f"{names.id3}:{names.vorbis}", f"{FREE}{names.mp4}"):
        with contextlib.suppress(KeyError, TypeError, ValueError, IndexError):  # each container has its own keys
            value = found[place][0]
            return value.decode() if isinstance(value, bytes) else str(value)
    return None


def _no_padding(_info: Any) -> int:
    return 0


def _id3(path: Path, tags: Tags) -> None:
    from mutagen import id3

    made = id3.ID3()
    _fill_id3(made, tags)
    made.save(path, v1=0, padding=_no_padding)


def _wav(path: Path, tags: Tags) -> None:
    from mutagen.wave import WAVE

    _drop_tags(path)
    _append_info(path, tags)
    file = WAVE(path)
    file.add_tags()
    _fill_id3(file.tags, tags)
    file.save(padding=_no_padding)


def _fill_id3(made: Any, tags: Tags) -> None:
    from mutagen import id3

    values = tag_texts(tags)
    for name, value in values.items():
        names = NAMES[name]
        frame = getattr(id3, names.id3)
        more = {
            "TXXX": {"desc": names.vorbis},
            "COMM": {"lang": UNKNOWN_LANGUAGE, "desc": ""},
            "USLT": {"lang": values.get("language", UNKNOWN_LANGUAGE), "desc": ""},
        }
        made.add(frame(encoding=id3.Encoding.UTF8, text=value, **more.get(names.id3, {})))
    if tags.lines:
        made.add(
            id3.SYLT(
                encoding=id3.Encoding.UTF8,
                lang=values.get("language", UNKNOWN_LANGUAGE),
                format=2,  # milliseconds
                type=1,  # lyrics
                desc="",
                text=[(line.text, round(1000 * line.seconds)) for line in tags.lines],
            )
        )
    if tags.cover is not None:
        made.add(
            id3.APIC(
                encoding=id3.Encoding.UTF8,
                mime=tags.cover.mime,
                type=id3.PictureType.COVER_FRONT,
                desc="",
                data=tags.cover.data,
            )
        )


def _drop_tags(path: Path) -> None:
    """Remove the tags behind the samples of a WAV; other chunks there stay, such as markers."""
    with path.open("r+b") as file:
        file.seek(12)  # past RIFF, its size and WAVE
        while (head := file.read(8)) and head[:4] != b"data":
            file.seek(int.from_bytes(head[4:], "little") + 1 & ~1, os.SEEK_CUR)
        if not head:
            return
        samples = int.from_bytes(head[4:], "little")
        end = file.tell() + samples
        kept = bytes(samples % 2)
        file.seek(end + samples % 2)
        while len(head := file.read(8)) == 8:
            content = file.read(int.from_bytes(head[4:], "little") + 1 & ~1)
            if head[:4].lower() != b"id3 " and not (head[:4] == b"LIST" and content[:4] == b"INFO"):
                kept += head + content
        file.truncate(end)
        file.seek(end)
        file.write(kept)


def _append_info(path: Path, tags: Tags) -> None:
    """Append an INFO list to a WAV: text that ends in a zero byte, each padded to an even length."""
    content = b"INFO"
    for name, value in tag_texts(tags).items():
        if code := NAMES[name].info:
            data = value.encode() + b"\0"
            content += struct.pack("<4sI", code.encode(), len(data)) + data + bytes(len(data) % 2)
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.write(bytes(end % 2) + struct.pack("<4sI", b"LIST", len(content)) + content)
        size = file.tell() - 8
        file.seek(4)
        file.write(struct.pack("<I", size))


def _flac(path: Path, tags: Tags) -> None:
    from mutagen.flac import FLAC

    file = FLAC(path)
    _fill_comments(file, tags)
    file.clear_pictures()
    if tags.cover is not None:
        file.add_picture(_flac_picture(tags.cover))
    file.save(padding=_no_padding)


def _ogg(path: Path, tags: Tags) -> None:
    from mutagen.oggvorbis import OggVorbis

    _save_ogg(OggVorbis(path), tags)


def _opus(path: Path, tags: Tags) -> None:
    from mutagen.oggopus import OggOpus

    _save_ogg(OggOpus(path), tags)


def _save_ogg(file: Any, tags: Tags) -> None:
    _fill_comments(file, tags)
    if tags.cover is not None:
        block = base64.b64encode(_flac_picture(tags.cover).write())
        file["METADATA_BLOCK_PICTURE"] = block.decode("ascii")
    file.save(padding=_no_padding)


def _fill_comments(file: Any, tags: Tags) -> None:
    if file.tags is None:
        file.add_tags()
    file.tags.clear()
    for name, value in tag_texts(tags).items():
        file[NAMES[name].vorbis] = value
    if tags.lines:  # there is no field of their own for them, and players look for times in this one
        file[NAMES["lyrics"].vorbis] = lrc.dump_lrc(tags.lines)


def _flac_picture(cover: Cover) -> Any:
    from mutagen import flac, id3

    made = flac.Picture()
    made.type, made.mime, made.data = id3.PictureType.COVER_FRONT, cover.mime, cover.data
    made.width, made.height, made.depth = cover.width, cover.height, cover.depth
    return made


def _m4a(path: Path, tags: Tags) -> None:
    from mutagen import mp4

    file = mp4.MP4(path)
    if file.tags is None:
        file.add_tags()
    file.tags.clear()
    for name, value in tag_texts(tags).items():
        atom = NAMES[name].mp4
        if atom == "trkn":
            file[atom] = [(int(value), 0)]
        elif atom == "tmpo":
            file[atom] = [int(value)]
        elif len(atom) == 4:
            file[atom] = [value]
        else:
            file[f"{FREE}{atom}"] = [mp4.MP4FreeForm(value.encode(), mp4.AtomDataType.UTF8)]
    if tags.cover is not None:
        kind = mp4.AtomDataType.PNG if tags.cover.mime == "image/png" else mp4.AtomDataType.JPEG
        file["covr"] = [mp4.MP4Cover(tags.cover.data, kind)]
    file.save(padding=_no_padding)


WRITERS: Mapping[str, Callable[[Path, Tags], None]] = {
    "wav": _wav,
    "flac": _flac,
    "mp3": _id3,
    "ogg": _ogg,
    "opus": _opus,
    "m4a": _m4a,
}


def read_picture(path: Path) -> Cover:
    """Return the cover in the file `path`. Raises `ValueError`, with a sentence, where players could not show it."""
    try:
        data = disk.read_beginning(path, MOST_COVER_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason_of(error)}{disk.suggest_path(path, error)}") from error
    if len(data) > MOST_COVER_BYTES:
        raise ValueError(f"{path} is larger than {MOST_COVER_BYTES // 1_000_000} MB; a smaller picture will do")
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
    except (struct.error, IndexError, KeyError, ValueError):
        raise ValueError(f"{path} is a picture that is cut off or damaged") from None
    raise ValueError(f"{path} is neither a JPEG nor a PNG picture")


#: Samples per pixel of each colour type of a PNG: grey, RGB, palette, and the first two with transparency.
PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _png(data: bytes) -> Cover:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    at = 8
    while data[at + 4 : at + 8] != b"IEND":  # past the end, there is no length to unpack
        at += 12 + int(struct.unpack_from(">I", data, at)[0])
    return _sized(data, "image/png", width, height, depth * PNG_SAMPLES[colour])


def _jpeg(data: bytes) -> Cover:
    at = 2
    while not 0xC0 <= data[at + 1] <= 0xCF or data[at + 1] in (0xC4, 0xC8, 0xCC):  # these three begin no frame
        # A marker may be led by any number of bytes 255.
        at += 1 if data[at + 1] == 0xFF else 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    depth, height, width, samples = struct.unpack_from(">BHHB", data, at + 4)
    data.index(b"\xff\xd9", at)  # the end of the picture
    return _sized(data, "image/jpeg", width, height, depth * samples)


def _sized(data: bytes, mime: str, width: int, height: int, depth: int) -> Cover:
    if not width or not height:
        raise ValueError("no pixels")
    return Cover(data, mime, width, height, depth)
