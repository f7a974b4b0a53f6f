"""Takes whose sidecars and neighbours were changed by somebody who means harm: a sentence, and nothing else happens."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acestep_cli.audio import measure
from acestep_cli.cli.exit_codes import EXIT_CODES
from acestep_cli.song import sections
from support import tiny
from support.command import LIMIT, Run, in_time

EVIL = r'"\e]0;evil\a\x9b31m\u202e"'
LAUGHS = "{a: &a [x, x, x, x, x, x, x, x, x, x], " + ", ".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
) + "}"  # fmt: skip

#: Lines of a sidecar, and what stands there instead; a line that is none is added to `render`.
TAMPERED: dict[str, tuple[str, str]] = {
    "an escape code in the recipe": (r"  recipe: .*", f"  recipe: {EVIL}"),
    "an escape code in a name": (r"    name: .*", f"    name: {EVIL}"),
    "an escape code in the weights": (r"    weights: .*", f"    weights: {EVIL}"),
    "an escape code in the device": (r"  device: .*", f"  device: {EVIL}"),
    "an escape code in the versions": (r"    torch: .*", f"    {EVIL}: {EVIL}"),
    "an escape code in a check": (r"    lufs: .*", f"    {EVIL}: 1"),
    "an escape code in a score": ("", f"scores: {{{EVIL}: 1e308}}"),
    "an escape code among the swept keys": ("", f"swept: [{EVIL}, caption, __class__, model_fields]"),
    "an escape code in the caption": (r"caption: .*", f"caption: {EVIL}"),
    "an escape code in the title": (r"title: .*", f"title: {EVIL}"),
    "an escape code in a key": (r"title: .*", f"{EVIL}: 1"),
    "an escape code in the model": (r"model: .*", f"model: {EVIL}"),
    "a model outside": (r"model: .*", "model: ../../../../../../etc"),
    "a recipe of another kind": (r"  recipe: .*", "  recipe: [1]"),
    "a negative seed": (r"  seed: .*", "  seed: -5"),
    "a seed of many digits": (r"  seed: .*", f"  seed: {'9' * 5000}"),
    "a request's seed of many digits": (r"seed: .*", f"seed: {'9' * 5000}"),
    "no number of seconds": (r"  seconds: .*", "  seconds: .nan"),
    "endless seconds": (r"  seconds: .*", "  seconds: .inf"),
    "seconds before the beginning": (r"  seconds: .*", "  seconds: -1e300"),
    "a check of many digits": (r"    lufs: .*", f"    lufs: {'9' * 400}"),
    "no checks": (r"  checks:", "  checks: []\n  others:"),
    "bytes of many digits": (r"  bytes: .*", f"  bytes: {'9' * 4000}"),
    "a million threads": ("", "threads: 1000000"),
    "many at a time": ("", "together: 100000000"),
    "a long title": (r"title: .*", f"title: {'x' * 600_000}"),
    "a long caption": (r"caption: .*", f"caption: {'slow ' * 150_000}"),
    "a format that is a path": (r"format: .*", "format: ../x"),
    "a source outside": (r"mode: .*", "mode: cover\nsource: ../../../../../../etc/passwd"),
    "an endless source": (r"mode: .*", "mode: cover\nsource: /dev/zero"),
    "an endless reference": (r"mode: .*", "mode: generate\nreference: [/dev/zero]"),
    "an endless adapter": (r"mode: .*", "mode: generate\nloras: [{path: /dev/zero, scale: 1}]"),
    "endless lyrics": (r"title: .*", "lyrics_file: /dev/zero"),
    "an endless cover": (r"title: .*", "cover: /dev/zero"),
    "itself below it": (r"mode: .*", "extends: take.flac.yaml"),
    "an endless spec below it": (r"mode: .*", "extends: /dev/zero"),
    "deep lists": ("", f"others: {'[' * 20_000}{']' * 20_000}"),
    "deep maps": ("", f"others: {'{a: ' * 3000}1{'}' * 3000}"),
    "aliases that multiply": ("", f"others: {LAUGHS}"),
    "aliases that multiply in the record": (r"  versions:", f"  versions: {LAUGHS}\n  others:"),
    "a list in itself": ("", "others: &a [*a]"),
    "a map in itself": ("", "others: &a {<<: *a}"),
    "a call": ("", 'others: !!python/object/apply:os.system ["touch called"]'),
    "a date that is none": ("", "others: 9999-99-99"),
    "keys that are lists": ("", "? [a, b]\n  : 1"),
    "a byte that is no text": (r"title: .*", "title: a\0b"),
    "a second document": (r"\Z", "---\nmode: generate\n"),
    "no record": (r"render:[\s\S]*", "render: 5\n"),
    "nothing": (r"[\s\S]+", ""),
    "a list": (r"[\s\S]+", "- 1\n"),
}

#: What reads the text of a sidecar, and what measures its sound as well.
READERS = (
    ("show", "take.flac"),
    ("spec", "check", "take.flac.yaml"),
    ("spec", "show", "take.flac.yaml", "--resolved", "--origin"),
    ("generate", "take.flac.yaml", "--dry-run", "--explain", "-o", "new.flac"),
    ("generate", "-c", "a", "--title", "Night", "-d", "10", "--seed", "7", "-o", "take.flac", "--dry-run"),
)
MEASURERS = (
    ("show", "take.flac", "other.flac"),
    ("check", "take.flac"),
    ("listen", "."),
    ("export", "take.flac", "--daw", "--force", "-o", "daw/"),
    ("replay", "take.flac"),
    ("replay", "take.flac.yaml"),
)
#: Tampers that the second kind of commands reads by itself.
MEASURED = (
    "an escape code among the swept keys",
    "an escape code in a score",
    "an escape code in the device",
    "an escape code in the versions",
    "an escape code in the caption",
    "a million threads",
    "aliases that multiply",
    "an endless source",
)


@pytest.fixture(scope="module", name="sounds")
def _sounds() -> dict[str, bytes]:
    """The files of two takes, made once."""
    return {}


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle, acestep: Run, sounds: dict[str, bytes]
) -> Iterator[Path]:
    """A folder with two takes in another one, in which nothing may appear."""
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    here = tmp_path / "outer" / "takes"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    if not sounds:
        for name, title in (("take.flac", "Night"), ("other.flac", "Day")):
            run = acestep("generate", "-c", "a", "--title", title, "-d", "10", "--seed", "7", "-o", name)
            assert run.exit_code == 0, run.stderr
        sounds |= {file.name: file.read_bytes() for file in here.iterdir()}
    for name, data in sounds.items():
        (here / name).write_bytes(data)
    yield here
    assert [file.name for file in here.parent.iterdir()] == ["takes"]
    assert not (here / "called").exists()


def assert_a_sentence(acestep: Run, *command: str, code: int | None = None) -> None:
    """Run a command; its end is one that scripts know, and it shows nothing that a terminal would obey."""
    result = in_time(lambda: acestep(*command), LIMIT)
    assert result.exit_code in EXIT_CODES, command
    assert result.exit_code not in (1, 130, 143), (command, result.stderr)
    assert code is None or result.exit_code == code, (command, result.stderr)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", result.stderr), (command, result.stderr)
    assert len(result.stderr) < 20_000, command
    assert result.exit_code == 0 or result.stderr.strip(), command


def tamper(folder: Path, how: str) -> None:
    line, by = TAMPERED[how]
    beside = folder / "take.flac.yaml"
    text = beside.read_text(encoding="utf-8")
    if line:
        assert re.search(line, text, re.MULTILINE), text
        text = re.sub(line if line[0] in "[\\" else f"^{line}", lambda _: by, text, count=1, flags=re.MULTILINE)
    else:
        text = text.replace("render:\n", f"render:\n  {by}\n", 1)
    beside.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("how", TAMPERED)
def test_a_sidecar_with_any_content_is_answered_by_a_sentence(folder: Path, acestep: Run, how: str) -> None:
    tamper(folder, how)
    for command in READERS:
        assert_a_sentence(acestep, *command)


@pytest.mark.parametrize("how", [*MEASURED, *(pytest.param(how, marks=pytest.mark.slow) for how in TAMPERED
                                             if how not in MEASURED)])  # fmt: skip
def test_so_it_is_by_what_measures_the_take_too(
    folder: Path, acestep: Run, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "has_analyser", lambda: False)  # it takes most of the time, and reads no sidecar
    tamper(folder, how)
    for command in MEASURERS:
        assert_a_sentence(acestep, *command)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    "make",
    [os.mkfifo, link_to("/dev/zero"), link_to("nowhere"), link_to("."), Path.mkdir],
    ids=["pipe", "zero", "broken", "folder of a link", "folder"],
)
@pytest.mark.parametrize("name", ["take.flac.yaml", "take.lrc", "take.flac.latents.safetensors", "kept.txt"])
def test_what_is_no_file_beside_a_take_is_passed_by(
    folder: Path, acestep: Run, make: Callable[[Path], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "has_analyser", lambda: False)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    assert_a_sentence(acestep, "show", "take.flac", code=0)
    assert_a_sentence(acestep, "check", "take.flac", code=0)
    assert_a_sentence(acestep, "listen", ".", code=0)
    assert_a_sentence(acestep, "export", "take.flac", "--daw", "-o", "daw/", code=0)
    assert_a_sentence(acestep, "replay", "take.flac", code=0)  # by its tags
    asked = ("-c", "a", "--title", "Night", "-d", "10", "--seed", "7", "-o", "take.flac")
    assert_a_sentence(acestep, "generate", *asked, code=9 if name.endswith(".yaml") else 0)
    assert_a_sentence(acestep, "extend", "take.flac", "--after", "5", "--dry-run", "-o", "longer.flac")


def test_a_file_is_written_in_place_of_a_link_and_not_through_it(folder: Path, acestep: Run) -> None:
    outside = folder.parent.parent / "outside.yaml"
    outside.write_text("mine\n")
    beside = folder / "take.flac.yaml"
    beside.unlink()
    beside.symlink_to(outside)
    asked = ("-c", "a", "--title", "Night", "-d", "10", "--seed", "7", "-o", "take.flac")
    assert_a_sentence(acestep, "generate", *asked, code=9)
    assert_a_sentence(acestep, "generate", *asked, "--force", code=0)
    assert outside.read_text() == "mine\n"
    assert not beside.is_symlink()


@pytest.mark.parametrize(
    "text",
    [
        f"[{'9' * 5000}:00.00]la\n",
        f"[{'9' * 400}:00.00]la\n",
        "[9999:59.99]la\n",
        "[01:00.00]la\n",
        "[00:01.00]" * 50_000 + "la\n",
        f"[00:01.00]{'la ' * 1_000_000}\n",
        "[00:01.00]l\x1b]0;evil\x07a\n",
        "\udcff",
    ],
    ids=[
        "5000 digits",
        "400 digits",
        "a week",
        "after the end",
        "many times",
        "a long one",
        "an escape code",
        "latin-1",
    ],
)
def test_times_that_are_none_of_the_song_s_are_not_gone_by(
    folder: Path, acestep: Run, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "has_analyser", lambda: False)
    sung = ("-c", "a", "--lyrics", "[Verse]\nla", "-d", "10", "--seed", "7", "-o", "sung.flac")
    assert_a_sentence(acestep, "generate", *sung, code=0)
    (folder / "sung.lrc").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert_a_sentence(acestep, "show", "sung.flac", code=0)
    assert_a_sentence(acestep, "listen", ".", code=0)
    assert_a_sentence(acestep, "export", "sung.flac", "--daw", "-o", "daw/", code=0)
    assert (folder / "daw" / "song.rpp").stat().st_size < 100_000


def test_a_section_after_the_end_of_a_song_is_of_another_song() -> None:
    timed = "[00:02.00]la\n[00:09.00]lo\n"
    lyrics = "[Verse]\nla\n[Chorus]\nlo\n"
    assert [one.sure for one in sections.song_sections(lyrics, 9.1, timed)] == [True, True]
    assert [one.sure for one in sections.song_sections(lyrics, 9.0, timed)] == [False, False]


@pytest.mark.parametrize(
    "data",
    [
        "[" * 100_000,
        '{"takes": [{"stamp": [], "file": "a"}]}',
        '{"takes": [{"stamp": "a"}]}',
        '{"takes": 5}',
        "[]",
        "\udcff",
    ],
    ids=["deep", "a stamp that is a list", "no file", "no list", "no map", "no text"],
)
def test_the_data_of_a_page_that_somebody_changed_are_read_anew(
    folder: Path, acestep: Run, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_a_sentence(acestep, "listen", ".", code=0)
    page = folder / "listen.html"
    text = page.read_text(encoding="utf-8")
    begun, ended = text.index('id="data">') + 10, text.index("</script>", text.index('id="data">'))
    page.write_text(text[:begun] + data + text[ended:], encoding="utf-8", errors="surrogateescape")
    assert_a_sentence(acestep, "listen", ".", code=0)
    assert page.read_text(encoding="utf-8") == text


def test_a_take_that_a_page_knows_keeps_its_name(folder: Path, acestep: Run) -> None:
    """An entry without the name of its file, with the right stamp, is made anew."""
    assert_a_sentence(acestep, "listen", ".", code=0)
    page = folder / "listen.html"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace('"file": "take.flac"', '"file": 5'), encoding="utf-8")
    assert_a_sentence(acestep, "listen", ".", code=0)
    assert page.read_text(encoding="utf-8") == text
