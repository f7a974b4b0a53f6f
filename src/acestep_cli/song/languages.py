"""Languages that the models know, and the names and codes people give them.

A table of 51 rows: libraries that know all languages of the world bring megabytes of data for them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Row:
    """A language: its English name, its own name, and other names and codes that mean it, all in small letters."""

    name: str
    own: str
    others: tuple[str, ...] = ()


def _row(name: str, own: str, others: str = "") -> Row:
    return Row(name, own, tuple(other.strip() for other in others.split(",") if other.strip()))


#: By the code that a prompt has. The others are codes of ISO 639 (two and three letters), and what is often taken for
#: one; varieties that are written as the language is.
ROWS: Mapping[str, Row] = {
    "ar": _row("Arabic", "العربية", "ara, arb, arabi, عربي, egyptian arabic"),
    "az": _row("Azerbaijani", "Azərbaycanca", "aze, azj, azeri, azərbaycan, azərbaycan dili"),
    "bg": _row("Bulgarian", "Български", "bul, български език"),
    "bn": _row("Bengali", "বাংলা", "ben, bangla"),
    "ca": _row("Catalan", "Català", "cat, valencian, valencià"),
    "cs": _row("Czech", "Čeština", "ces, cze, cz, český, česky"),
    "da": _row("Danish", "Dansk", "dan, dk"),
    "de": _row("German", "Deutsch", "deu, ger, allemand, swiss german, schweizerdeutsch"),
    "el": _row("Greek", "Ελληνικά", "ell, gre, gr, modern greek"),
    "en": _row("English", "English", "eng, anglais, inglés, englisch"),
    "es": _row("Spanish", "Español", "spa, castilian, castellano, espanol"),
    "fa": _row("Persian", "فارسی", "fas, per, pes, prs, farsi, dari"),
    "fi": _row("Finnish", "Suomi", "fin, suomen kieli"),
    "fr": _row("French", "Français", "fra, fre, québécois"),
    "he": _row("Hebrew", "עברית", "heb, iw, ivrit"),
    "hi": _row("Hindi", "हिन्दी", "hin, हिंदी"),
    "hr": _row("Croatian", "Hrvatski", "hrv"),
    "ht": _row("Haitian Creole", "Kreyòl ayisyen", "hat, haitian, kreyol, kreyòl"),
    "hu": _row("Hungarian", "Magyar", "hun"),
    "id": _row("Indonesian", "Bahasa Indonesia", "ind, in, indonesia"),
    "is": _row("Icelandic", "Íslenska", "isl, ice"),
    "it": _row("Italian", "Italiano", "ita"),
    "ja": _row("Japanese", "日本語", "jpn, jp, nihongo"),
    "ko": _row("Korean", "한국어", "kor, kr, hangugeo, 조선말"),
    "la": _row("Latin", "Latina", "lat, lingua latina"),
    "lt": _row("Lithuanian", "Lietuvių", "lit, lietuvių kalba"),
    "ms": _row("Malay", "Bahasa Melayu", "msa, may, zsm, melayu, malaysian, bahasa malaysia"),
    "ne": _row("Nepali", "नेपाली", "nep, npi"),
    "nl": _row("Dutch", "Nederlands", "nld, dut, flemish, vlaams"),
    "no": _row(
        "Norwegian", "Norsk", "nor, nb, nob, nn, nno, bokmål, nynorsk, norsk bokmål, norsk nynorsk, norwegian bokmål, "
        "norwegian nynorsk"
    ),
    "pa": _row("Punjabi", "ਪੰਜਾਬੀ", "pan, panjabi, pnb, پنجابی"),
    "pl": _row("Polish", "Polski", "pol, język polski"),
    "pt": _row("Portuguese", "Português", "por, brazilian, brasileiro, portugues"),
    "ro": _row("Romanian", "Română", "ron, rum, mo, moldovan, moldavian"),
    "ru": _row("Russian", "Русский", "rus, русский язык"),
    "sa": _row("Sanskrit", "संस्कृतम्", "san, संस्कृत"),
    "sk": _row("Slovak", "Slovenčina", "slk, slo, slovensky"),
    "sr": _row("Serbian", "Српски", "srp, srpski"),
    "sv": _row("Swedish", "Svenska", "swe"),
    "sw": _row("Swahili", "Kiswahili", "swa, swh"),
    "ta": _row("Tamil", "தமிழ்", "tam"),
    "te": _row("Telugu", "తెలుగు", "tel"),
    "th": _row("Thai", "ไทย", "tha, ภาษาไทย"),
    "tl": _row("Tagalog", "Tagalog", "tgl, fil, filipino, wikang tagalog, pilipino"),
    "tr": _row("Turkish", "Türkçe", "tur"),
    "uk": _row("Ukrainian", "Українська", "ukr, ua, українська мова"),
    "ur": _row("Urdu", "اردو", "urd"),
    "vi": _row("Vietnamese", "Tiếng Việt", "vie, vn"),
    "yue": _row("Cantonese", "粵語", "粤语, 廣東話, 广东话, zh-yue"),
    "zh": _row(
        "Chinese", "中文", "zho, chi, cmn, cn, mandarin, mandarin chinese, putonghua, 汉语, 漢語, 普通话, 普通話, "
        "国语, 國語, 华语, 華語, 简体中文, 簡體中文, 繁體中文, 繁体中文, 正體中文"
    ),
    "unknown": _row("unknown", "unknown", "und"),
}  # fmt: skip

#: English names by code.
LANGUAGES: Mapping[str, str] = {code: row.name for code, row in ROWS.items()}

#: Behind a code: a script, a region, variants and, in a locale, an encoding: `es-MX`, `zh_Hans_CN`, `de_DE.UTF-8`.
TAG = re.compile(
    r"([a-z]{2,3})(?:[-_](yue|cmn))?(?:[-_][a-z]{4})?(?:[-_](?:[a-z]{2}|\d{3}))?(?:[-_](?:[a-z\d]{5,8}|\d[a-z\d]{3}))*"
    r"(?:\.[\w-]+)?(?:@\w+)?",
    re.ASCII,
)
#: Before or behind a name: which kind of the language, where that is written as the language is.
VARIETY = (
    r"american|british|australian|canadian|irish|scottish|mexican|argentin(?:ian|e)|colombian|chilean|cuban|european|"
    r"latin american|latino|iberian|brazilian|brasil|brasileiro|do brasil|austrian|swiss|belgian|québécois|quebec|"
    r"simplified|traditional|modern|modern standard|standard|ancient|classical|cyrillic|bokmål|nynorsk"
)
BEFORE, BEHIND = re.compile(rf"\b(?:{VARIETY})\s+(?=\w)"), re.compile(rf"\s+(?:{VARIETY})\b")


def find(text: str) -> str | None:
    """Return the code of the language that `text` names: a code, with a region or not, or a name; None for no such.

    Capitals and accents may be missing.
    """
    word = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    names = [word]
    if found := re.fullmatch(r"([^()]+?)\s*[(（]([^()]+)[)）]", word):  # Portuguese (Brazil); Chinese (Cantonese)
        names += [found[2], found[1]]
    names += [BEFORE.sub("", name) for name in names] + [BEHIND.sub("", name) for name in names]
    for name in names:
        if code := _codes().get(name) or _codes().get(unaccented(name)):
            return code
    tag = TAG.fullmatch(word)
    return (_codes().get(tag[2] or "") or _codes().get(tag[1])) if tag else None


@cache
def _codes() -> Mapping[str, str]:
    """Return the codes by all names; a name of two languages means the first."""
    found: dict[str, str] = {}
    for code, row in ROWS.items():
        found[code] = code
        for name in (row.name, row.own, *row.others):
            found.setdefault(unicodedata.normalize("NFC", name).casefold(), code)
    for name, code in list(found.items()):
        found.setdefault(unaccented(name), code)
    return found


def known() -> tuple[str, ...]:
    """Return all codes and names, in the form that `find` compares."""
    return tuple(_codes())


def unaccented(text: str) -> str:
    """Return `text` without the accents of Latin letters. Other scripts keep theirs, which belong to the letter."""
    parts = unicodedata.normalize("NFD", text)
    kept = re.sub(r"(?<=[a-zA-Z])[\u0300-\u036f]+", "", parts)
    return unicodedata.normalize("NFC", kept).replace("ı", "i").replace("ø", "o")


def listing() -> str:
    """Return a table of the languages: code, English name, own name, and other names."""
    rows = [
        (code, row.name, row.own if row.own != row.name else "", ", ".join(row.others)) for code, row in ROWS.items()
    ]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"
        for row in rows
    )


def _width(text: str) -> int:
    """Return the width of `text` in terminal columns."""
    return sum(
        0 if unicodedata.category(sign) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )
