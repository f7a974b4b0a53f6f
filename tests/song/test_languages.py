"""Languages under the codes and names that people and programs write."""

from __future__ import annotations

import unicodedata

import jsonschema
import pytest
from typer.testing import CliRunner

from acestep_cli.audio import tags
from acestep_cli.cli.app import app
from acestep_cli.song import languages
from acestep_cli.song.languages import LANGUAGES, ROWS
from acestep_cli.song.request import KEYS, Request


def meant(text: str) -> str | None:
    return Request(language=text).language


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Deutsch", "de"),
        ("Mandarin", "zh"),
        ("jp", "ja"),
        ("nb", "no"),
        ("es-MX", "es"),
        ("pt_BR", "pt"),
        ("no", "no"),
        ("NORSK", "no"),
        ("Bokmål", "no"),
        ("nn-NO", "no"),
        ("español", "es"),
        ("Espanol", "es"),
        ("FRANÇAIS", "fr"),
        ("francais", "fr"),
        ("日本語", "ja"),
        ("한국어", "ko"),
        ("русский", "ru"),
        ("中文", "zh"),
        ("zh-Hans-CN", "zh"),
        ("zh_TW", "zh"),
        ("zh-yue", "yue"),
        ("yue-HK", "yue"),
        ("Chinese (Cantonese)", "yue"),
        ("Chinese (Simplified)", "zh"),
        ("Simplified Chinese", "zh"),
        ("Portuguese (Brazil)", "pt"),
        ("Brazilian Portuguese", "pt"),
        ("português do Brasil", "pt"),
        ("Português brasileiro", "pt"),
        ("español latino", "es"),
        ("繁體中文", "zh"),
        ("简体中文", "zh"),
        ("Schweizerdeutsch", "de"),
        ("American English", "en"),
        ("de_DE.UTF-8", "de"),
        ("sr-Latn-RS", "sr"),
        ("ca-valencia", "ca"),
        ("es-419", "es"),
        ("ger", "de"),
        ("fil", "tl"),
        ("Farsi", "fa"),
        ("iw", "he"),
        ("Haitian  creole", "ht"),
        (" Türkçe ", "tr"),
        ("Turkce", "tr"),
        ("unknown", "unknown"),
    ],
)
def test_a_language_is_understood(text: str, code: str) -> None:
    assert meant(text) == code
    assert meant(unicodedata.normalize("NFD", text)) == code


@pytest.mark.parametrize(
    "text", ["klingon", "xx", "de-", "english words", "eo", "ka-GE", "d", "-", "german-ish", "tlh"]
)
def test_what_is_no_language_of_the_models_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a language code such as en, ja or no") as caught:
        meant(text)
    assert "`acestep spec languages` lists them" in str(caught.value)


def test_every_code_and_name_means_its_own_language() -> None:
    for code, row in ROWS.items():
        for name in (code, row.name, row.own, *row.others, row.own.upper()):
            assert meant(name) == code
    for code, three_letters in tags.ISO_639_2.items():
        assert meant(three_letters) == code


def test_no_name_is_that_of_two_languages() -> None:
    names = [name.casefold() for code, row in ROWS.items() for name in {code, row.name.casefold(), row.own.casefold()}]
    assert len({*names}) == len(set(names))
    others = [name for row in ROWS.values() for name in row.others]
    assert len(others) == len(set(others))
    assert not set(others) & set(ROWS)


def test_the_schema_takes_what_the_program_offers() -> None:
    schema = KEYS["language"].kind.schema()
    for code, row in ROWS.items():
        for name in (code, row.name, row.own, *row.others):
            jsonschema.validate(name, schema)
    for name in ("es-MX", "pt_BR", "zh-Hans-CN"):
        jsonschema.validate(name, schema)


def test_the_command_lists_every_language() -> None:
    result = CliRunner().invoke(app, ["spec", "languages"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(LANGUAGES)
    [japanese] = [line for line in lines if line.startswith("ja ")]
    assert all(name in japanese for name in ("Japanese", "日本語", "jp"))
    assert languages.listing() == result.stdout
