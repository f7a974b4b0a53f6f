"""Files and folders whose names are not UTF-8, in every command that opens or writes any."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import soundfile
from PIL import Image

from acestep_cli.cli import listen
from acestep_cli.errors import UsageError, shell_word
from acestep_cli.song import document, spec
from support import tiny
from support.command import finish, program
from support.places import ROOT

RATE = 48_000
SONG = ("-m", "pocket", "-c", "slow piano", "-d", "10", "--instrumental", "--seed", "7")
WORK = ("-m", "pocket", "-c", "slow piano", "--seed", "7")
#: The keys of `--json` that hold a path.
PATHS = ("path", "sidecar", "lrc", "latents", "source", "reference", "file")


def latin(name: str) -> str:
    """A name in Latin-1, as Python carries it."""
    return os.fsdecode(name.encode("latin-1"))


def here(name: str) -> str:
    """The path of a file in the folder."""
    return latin(f"düne/{name}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording, a take, a spec, lyrics, an album and a data set, all with names in Latin-1."""
    root = tmp_path_factory.mktemp("names")
    folder = root / latin("düne")
    try:
        for inner in (folder, folder / latin("sätze"), folder / "songs"):
            inner.mkdir()
    except OSError:
        pytest.skip("the names of this disk are UTF-8")
    t = np.arange(10 * RATE) / RATE
    sound = 0.4 * np.sin(2 * np.pi * 220 * t) * (1 + np.sin(2 * np.pi * t)) / 2
    for name, level in ((latin("löw.wav"), 1.0), (latin("sätze/a.wav"), 0.5), (latin("sätze/ü.wav"), 0.7)):
        soundfile.write(os.fsencode(folder / name), level * np.stack([sound, sound], 1), RATE, format="WAV")
    (folder / latin("sätze/ü.txt")).write_text("caption: a bell\nlyrics: la la\n")
    (folder / latin("wörds.txt")).write_text("[Verse]\nla la\n")
    (folder / latin("cöver.png")).write_bytes(picture())
    (folder / latin("spéc.yaml")).write_text("caption: slow piano\nduration: 10\ninstrumental: true\nmodel: pocket\n")
    (folder / latin("älbum.yaml")).write_text("defaults: {duration: 10, model: pocket}\ntracks: [songs/*.md]\n")
    for name in ("one.md", latin("twö.md")):
        (folder / "songs" / name).write_text("---\ncaption: slow piano\ninstrumental: true\n---\n")
    run = program("cover", here("löw.wav"), *WORK, "-o", here("cové.flac"), cwd=root)
    assert run.returncode == 0, run.stderr
    return root


def picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def names(made: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    shutil.copytree(made, tmp_path / "names")
    return tmp_path / "names"


SOURCE = here("löw.wav")
COMMANDS = {
    "generate": [here("spéc.yaml"), "-o", here("ö.flac")],
    "generate without -o": [here("spéc.yaml")],
    "generate to a folder": [here("spéc.yaml"), "-n", "2", "-o", here("öut/")],
    "generate a caption": [*SONG, "--reference", SOURCE, "--cover", here("cöver.png"), "-o", here("ö.mp3")],
    "generate lyrics": [*SONG[:6], "--lyrics-file", here("wörds.txt"), "-o", here("ö.ogg"), "--keep-latents"],
    "generate events": [*SONG, "--events", here("ö.events"), "--cache", "-o", here("ö.wav")],
    "cover": [SOURCE, *WORK, "-o", here("ö.opus")],
    "extract without -o": [SOURCE, "-m", "pocket", "--track", "drums"],
    "repaint": [SOURCE, *WORK, "--start", "2", "--end", "6", "-o", here("ö.wav")],
    "lego": [SOURCE, *WORK, "--track", "drums", "-o", here("ö.wav")],
    "extract": [SOURCE, *WORK, "--track", "drums", "-o", here("ö.wav")],
    "complete": [SOURCE, *WORK, "--track", "drums", "-o", here("ö.wav")],
    "render": [here("cové.flac.yaml"), "-o", here("öut/")],
    "describe": [SOURCE, "--codes", "-o", here("ö.yaml")],
    "write": ["a rainy day", "--seed", "1", "-o", here("ö.yaml")],
    "replay": [here("cové.flac"), "--tags"],
    "check": [SOURCE, here("cové.flac"), "--same-as", SOURCE, "--within", "20", "--junit", here("ö.xml")],
    "show": [here("cové.flac")],
    "listen": [latin("düne"), "-o", here("ö.html")],
    "train-lora": [here("sätze"), "--scan-only"],
    "spec check": [here("spéc.yaml"), here("cové.flac.yaml")],
    "spec show": [here("cové.flac.yaml"), "--origin", "--resolved"],
    "album plan": [here("älbum.yaml"), "-o", here("öut")],
    "album outputs": [here("älbum.yaml"), "-o", here("öut")],
    "album outputs for make": [here("älbum.yaml"), "-o", here("öut"), "--format", "make"],
    "album render": [here("älbum.yaml"), "-o", here("öut"), "--depfile", here("ö.d"), "--stamp", here("ö.stamp")],
}
WITH_JSON = ("generate", "cover", "repaint", "extract", "replay", "check", "listen", "train-lora", "album render")


def words(name: str) -> list[str]:
    command = next(name[: len(known)].split() for known in ("album plan", "album outputs", "album render", "spec check",
                   "spec show", name.split()[0]) if name.startswith(known))  # fmt: skip
    return [*command, *COMMANDS[name]]


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command, which succeeds and shows each name as text."""
    command = [sys.executable, "-m", "acestep_cli"] if arguments[0] in ("describe", "write") else None
    run = finish([*command, *arguments], cwd=folder) if command else program(*arguments, cwd=folder)
    assert run.returncode == 0, run.stderr
    shown = run.stderr.decode()
    assert "Traceback" not in shown
    assert "unexpected" not in shown
    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_names_that_are_not_utf_8(name: str, names: Path) -> None:
    run = run_in(names, *words(name))
    made = [names / os.fsdecode(line) for line in run.stdout.splitlines()]
    if name in ("show", "spec show"):
        run.stdout.decode()
    elif name == "album outputs for make":
        assert b"OUTPUTS := d\xfcne/\xf6ut/" in run.stdout
    elif name not in ("spec check", "check", "replay", "album plan", "album outputs"):
        assert made
        assert all(path.is_file() for path in made), run.stdout
    if "--depfile" in COMMANDS[name]:
        assert b"\nd\xfcne/\xe4lbum.yaml:\n" in (names / here("ö.d")).read_bytes()
    if "--junit" in COMMANDS[name]:
        (names / here("ö.xml")).read_text(encoding="utf-8")
    if "--events" in COMMANDS[name]:
        events = [json.loads(line) for line in (names / here("ö.events")).read_text(encoding="ascii").splitlines()]
        assert next(event["path"] for event in events if event["event"] == "take") == here("ö.wav")


def named_files(content: Any, key: str = "") -> Iterator[str]:
    """Yield the paths in a value of `--json`."""
    match content:
        case dict():
            for name, value in content.items():
                yield from named_files(value, name)
        case list():
            for value in content:
                yield from named_files(value, key)
        case str() if key in PATHS:
            yield content


@pytest.mark.parametrize("name", WITH_JSON)
def test_json_carries_names_so_that_they_can_be_opened(name: str, names: Path) -> None:
    run = run_in(names, *words(name), "--json")
    [line] = run.stdout.decode("ascii").splitlines()
    files = [file for file in named_files(json.loads(line)) if "/" in file]
    assert any("\udcfc" in file for file in files)
    for file in files:
        assert (names / file).is_file()


def test_a_sidecar_and_tags_find_the_source_again(names: Path) -> None:
    beside = names / here("cové.flac.yaml")
    assert "l\\uDCF6w.wav" in beside.read_text(encoding="ascii")
    assert (spec.load(beside).source or "").endswith(f"/{SOURCE}")
    for words in (["replay", here("cové.flac")], ["replay", here("cové.flac.yaml")]):
        assert b": identical" in run_in(names, *words).stdout
    beside.unlink()  # the tags say the same, with the source beside the take
    assert b": identical" in run_in(names, "replay", here("cové.flac")).stdout


def test_a_second_run_is_skipped_and_another_file_comes_from_the_cache(names: Path) -> None:
    first = ["cover", SOURCE, *WORK, "--cache", "-o", here("ö.wav")]
    run_in(names, *first)
    assert b"same recipe" in run_in(names, *first).stderr
    assert b"made before" in run_in(names, *first[:-1], here("ü.wav")).stderr


def test_the_page_of_takes_leads_to_its_files(names: Path) -> None:
    run_in(names, "listen", latin("düne"))
    content = json.loads(listen.DATA.search((names / here("listen.html")).read_bytes())[1])  # type: ignore[index]
    assert content["folder"] == latin("düne")
    for take in content["takes"]:
        assert (names / latin("düne") / os.fsdecode(unquote_to_bytes(take["src"]))).is_file()
    [cover] = [take for take in content["takes"] if take["again"]]
    assert (names / latin("düne") / cover["again"]).is_file()


@pytest.mark.skipif(shutil.which("node") is None or shutil.which("bash") is None, reason="needs node and bash")
@pytest.mark.parametrize("name", ["a b.wav", "it's.wav", latin("caf\xe9's.wav"), "tab\there\x1b.wav", "\x85\u2028.wav"])
def test_the_commands_of_the_page_name_files_as_the_program_does(name: str, tmp_path: Path) -> None:
    script = (ROOT / "src/acestep_cli/cli/page/page.js").read_text(encoding="utf-8")
    functions = script[script.index("// A word for a shell") : script.index("function command(")]
    asked = f"{functions}\nprocess.stdout.write(word(JSON.parse({json.dumps(json.dumps(name))})));"
    for quoted in (finish(["node", "-e", asked], text=True).stdout, shell_word(name)):
        assert quoted.isprintable()
        printed = finish(["bash", "-c", f"printf %s {quoted}"]).stdout
        assert os.fsdecode(printed) == name


@pytest.mark.parametrize("key", ["source", "reference", "cover", "loras", "model", "songwriter"])
def test_a_spec_carries_such_paths(key: str, tmp_path: Path) -> None:
    path = str(tmp_path / latin("café.png"))
    try:
        Path(path).write_bytes(picture())
    except OSError:
        pytest.skip("the names of this disk are UTF-8")
    written = [{"path": path, "scale": 0.5}] if key == "loras" else [path] if key == "reference" else path
    for text in (document.dump_yaml({"caption": "x", key: written}), json.dumps({"caption": "x 💚", key: written})):
        file = tmp_path / "song.yaml"
        file.write_text(text, encoding="ascii" if text.startswith("{") else "utf-8")
        request = spec.load(file)
        again = tmp_path / "again.yaml"
        again.write_text(spec.dump_spec(request), encoding="utf-8")
        assert spec.load(again) == request
        value = getattr(request, key)
        assert (value[0].path if key == "loras" else value[0] if key == "reference" else value) == path


@pytest.mark.parametrize("value", ["half \\ud83c", "half \\udc12 and \\udce9"])
def test_half_a_character_is_no_path(value: str, tmp_path: Path) -> None:
    file = tmp_path / "song.yaml"
    file.write_text(f'caption: x\nsource: "{value}"\n')
    with pytest.raises(UsageError, match="half of a character"):
        spec.load(file)


def test_bytes_that_are_no_text_are_no_caption(tmp_path: Path) -> None:
    file = tmp_path / "song.yaml"
    file.write_text('caption: "caf\\udce9"\n')
    with pytest.raises(UsageError, match=r"caption: .* is not UTF-8 text"):
        spec.load(file)


def test_checkpoints_and_adapters_are_loaded_from_such_folders(
    two_b: tiny.Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", latin("mödels"))
    try:
        shutil.copytree(two_b.root, latin("mödels"))
    except OSError:
        pytest.skip("the names of this disk are UTF-8")
    Path(latin("mödels/acestep-v15-turbo")).rename(latin("mödels/türbo"))
    song = ["generate", "-m", latin("mödels/türbo"), "-c", "folk", "--lyrics", "la", "-d", "10", "--seed", "7"]
    run = finish([sys.executable, "-m", "acestep_cli", *song, "--keep-latents", "-o", latin("ö.wav")])
    assert run.returncode == 0, run.stderr
    run = finish([sys.executable, "-m", "acestep_cli", "replay", latin("ö.wav")])
    assert b": identical" in run.stdout, run.stderr
    repaint = ["repaint", latin("ö.wav"), "-c", "folk", "--start", "2", "--end", "4", "-o", latin("ü.wav")]
    run = finish([sys.executable, "-m", "acestep_cli", *repaint, "-m", latin("mödels/türbo")])
    assert run.returncode == 0, run.stderr
