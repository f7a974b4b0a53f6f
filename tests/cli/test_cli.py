"""The command line: what it prints where, what it writes, and what it ends with."""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from typer.testing import CliRunner, Result

from acestep_cli import __version__
from acestep_cli.cli import app as cli
from acestep_cli.cli import startup_line
from acestep_cli.cli.app import COMMANDS, app
from acestep_cli.cli.console import Console
from acestep_cli.machine import notices
from acestep_cli.render import paths
from acestep_cli.song import modes, spec, spec_keys
from acestep_cli.song.request import KEYS, Request
from support import band, tiny
from support.command import LIMIT, Run, finish, read_to, started
from support.places import BAND, ROOT
from support.terminal import at_terminal


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test starts in an empty folder, and no models folder of the user's own is seen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACESTEP_MODELS_DIR", raising=False)
    return tmp_path


@pytest.fixture
def acestep(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`acestep generate …` in this process with the band for a pipeline: 10 s of "a song" unless told."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", band.module())

    def run(*arguments: str, caption: str | None = "a song") -> Result:
        words = ["--models-dir", str(two_b.root), "-m", "turbo", "--device", "cpu"]
        if caption is not None:
            words += ["-c", caption, "-d", "10"]
        return CliRunner().invoke(app, ["generate", *words, *arguments], catch_exceptions=False)

    return run


@pytest.fixture
def no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing the pipeline fails, so what is refused was refused before that."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", None)


def names() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


# What it says


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"acestep {__version__}\n"


def test_help_names_every_command_with_the_line_of_its_mode() -> None:
    text = CliRunner().invoke(app, ["--help"]).stdout
    for name, line in COMMANDS.items():
        assert name in text
        assert line in text


def test_the_lines_of_the_modes_are_those_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("commands")
    text = Path(cli.__file__).read_text(encoding="utf-8")
    assert tool.rewritten(text) == text, "python tools/commands.py"
    monkeypatch.setitem(modes.MODES, "reverse", modes.Mode("Play it backwards.", modes.generate))
    assert '    "reverse": "Play it backwards.",\n    # end\n' in tool.rewritten(text)


def test_every_key_has_its_flag_in_the_help() -> None:
    for mode in modes.MODES:
        text = CliRunner().invoke(app, [mode, "--help-all"]).stdout
        for name, key in KEYS.items():
            assert (f" {spec_keys.flag_of(name)} " in text) == (
                key.flag and name not in modes.keys_of_other_modes(mode)
            ), (
                mode,
                name,
            )
    text = CliRunner().invoke(app, ["render", "--help-all"]).stdout
    assert all(f" {spec_keys.flag_of(name)} " in text for name, key in KEYS.items() if key.flag)
    assert "[Verse]" in text
    assert " --lyrics-file " in text


def test_python_m_is_the_same_program() -> None:
    runs = [
        finish([*command, "--help"], text=True, check=True).stdout
        for command in ([sys.executable, "-m", "acestep_cli"], [str(Path(sys.executable).parent / "acestep")])
    ]
    assert runs[0] == runs[1]


def test_stdout_carries_the_paths_and_nothing_else(acestep: Run) -> None:
    result = acestep("-n", "2", "-o", "takes/")
    assert result.exit_code == 0
    assert result.stdout == f"takes{os.sep}a-song-1.flac\ntakes{os.sep}a-song-2.flac\n"
    assert "a library says hello" in result.stderr
    for line in ("turbo on cpu (asked for)", "Reading the text", "Making music", "Decoding sound", "10.00 s of audio"):
        assert line in result.stderr


def test_what_libraries_print_from_c_goes_to_stderr_too(two_b: tiny.Oracle) -> None:
    run = finish(
        [
            sys.executable,
            BAND,
            "generate",
            "-c",
            "a",
            "-d",
            "10",
            "--models-dir",
            two_b.root,
            "-m",
            "turbo",
        ],
        text=True,
        check=True,
    )
    assert run.stdout == "a-1.flac\n"
    assert "from C as well\n" in run.stderr


def test_quiet_says_nothing_and_prints_the_path(acestep: Run) -> None:
    result = acestep("-q", caption="long and all silent")
    assert result.exit_code == 6
    said_by_us = [line for line in result.stderr.splitlines() if line != "a library says hello"]
    assert said_by_us == ["The rendered audio is silent, so no file was written."]
    result = acestep("-q")
    assert result.stdout == "a-song-1.flac\n"
    assert result.stderr == "a library says hello\n"


def test_a_warning_is_told_once(acestep: Run) -> None:
    assert acestep("-n", "2", caption="a long song").stderr.count("Warning: The lyrics were cut.") == 1


def on_a_terminal(models: Path, *arguments: str, stdout: int | None = None, **environment: str) -> tuple[bytes, str]:
    """What `acestep generate …` prints to `stdout`, and what to the terminal that is its stderr; unless told both."""
    command = [sys.executable, BAND, "generate", "-d", "10", "--models-dir", models, "-m", "turbo", *arguments]
    size = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    streams = {} if stdout is None else {"stdout": stdout}
    with at_terminal(command, env={**os.environ, **size, **environment}, **streams) as terminal:
        shown = terminal.read_rest()
        printed, _ = terminal.run.communicate(timeout=LIMIT)
    return printed, shown


def screen(shown: str) -> list[str]:
    """The lines a terminal shows in the end, as far as Rich's bars need: they go up and erase lines."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", shown):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A") and part[0] == "\x1b":
            row = max(0, row - int(part[2:-1] or 1))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part[0] != "\x1b":
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return lines


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs pty")
@pytest.mark.parametrize("colour", [True, False])
def test_a_terminal_shows_bars_with_the_time_left(two_b: tiny.Oracle, colour: bool) -> None:
    no_colour = {} if colour else {"NO_COLOR": "1"}
    printed, text = on_a_terminal(two_b.root, "-c", "a", stdout=subprocess.PIPE, **no_colour)
    assert printed == b"a-1.flac\n"
    for line in ("Starting", "Making music", "Decoding sound 4/4", "0:00 left"):
        assert line in text
    assert ("\x1b[3" in text or "\x1b[38" in text) == colour


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs pty")
def test_bars_do_not_wipe_the_paths_off_the_terminal(two_b: tiny.Oracle) -> None:
    _, shown = on_a_terminal(two_b.root, "-c", "a", "-n", "3", "-o", "a:smile:.wav")
    lines = [line.rstrip() for line in screen(shown)]
    assert [line for line in lines if line.endswith(".wav") and not line.startswith("written")] == [
        f"a:smile:-{n}.wav" for n in (1, 2, 3)
    ], shown
    assert not any("Making music" in line or "left" in line for line in lines), lines  # the bar is gone


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs pty")
def test_a_terminal_is_told_the_next_step_and_a_file_s_name_at_most_twice(two_b: tiny.Oracle) -> None:
    _, shown = on_a_terminal(two_b.root, "-c", "a", "-o", "one.wav", "--seed", "5")
    assert re.search(r"(Hear|See) it: .*one\.wav(; any player plays it)?\. The same again: --seed 5\r\n", shown)
    _, shown = on_a_terminal(two_b.root, "-c", "a", "-n", "2", "-o", "takes/")
    lines = [line.rstrip() for line in screen(shown)]
    assert lines[-2] == "Compare them: acestep show takes/a-*.flac; acestep listen takes --open"
    assert sum("a-1.flac" in line for line in lines) == 2  # its path, and the table
    _, shown = on_a_terminal(two_b.root, "-c", "a", "-o", "quiet.wav", "-q")
    assert "The same again" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs pty")
@pytest.mark.parametrize("ends", ["with a take", "in a refusal", "in another refusal"])
def test_the_first_sign_of_life_comes_before_the_imports_and_is_wiped(two_b: tiny.Oracle, ends: str) -> None:
    asked = {"with a take": ["-c", "a"], "in a refusal": ["no.yaml"], "in another refusal": ["--no-such-flag"]}[ends]
    _, shown = on_a_terminal(two_b.root, *asked)
    assert shown.startswith(f"{startup_line.LINE}\r\x1b[2K\r")
    assert not any(startup_line.LINE in line for line in screen(shown))


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs pty")
@pytest.mark.parametrize(
    "asked", [["-c", "a", "-q"], ["--help"], ["-c", "a", "--progress=plain"], ["-c", "a", "-o", "-"]]
)
def test_where_nobody_waits_there_is_no_first_sign(two_b: tiny.Oracle, asked: list[str]) -> None:
    _, shown = on_a_terminal(two_b.root, *asked, stdout=subprocess.DEVNULL)
    assert startup_line.LINE not in shown


def test_scripts_are_told_no_next_step(acestep: Run) -> None:
    said = acestep("-o", "one.wav").stderr
    assert "The same again" not in said
    assert "one.wav: 10.00 s of audio, seed " in said


def test_advice_is_whole_once_a_day_on_a_terminal_and_always_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert [Console().advise("x", "A sentence.") for _ in range(2)] == [True, True]
    monkeypatch.setattr("acestep_cli.cli.console.redraws", lambda stream: True)
    assert Console(paths=False).advise("x", "A sentence.")  # as with --json
    assert capsys.readouterr().err.splitlines() == ["A sentence."] * 3
    assert [Console().advise("x", "A sentence.") for _ in range(2)] == [True, False]
    notices.notices_file().write_text('{"x": "2020-02-02"}')
    assert Console().advise("x", "A sentence.")
    notices.notices_file().write_text("no JSON")
    assert Console().advise("x", "A sentence.")
    assert capsys.readouterr().err.splitlines() == ["A sentence."] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs pty")
def test_on_a_terminal_the_sketch_is_advised_about_once_and_then_one_word(tmp_path: Path) -> None:
    nothing = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "HF_HOME": str(tmp_path)}
    first, again = (screen(on_a_terminal(tmp_path, "-c", "a", "-m", "auto", **nothing)[1]) for _ in range(2))
    assert any("acestep models pull turbo" in line for line in first)
    assert any(line.startswith("pocket on cpu (") for line in first)
    assert not any("acestep models pull" in line for line in again)
    assert any(line.startswith("A sketch: pocket on cpu (") for line in again)


def test_weights_that_come_and_go_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(progress="plain").progress(lambda: 0) as report:
        for stage in ("load", "text", "load", "diffuse", "load", "decode", "load", "diffuse"):
            report(stage, 0, 1)
    assert capsys.readouterr().err.splitlines() == [
        "Loading weights",
        "Reading the text",
        "Making music",
        "Decoding sound",
        "Making music",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs pty")
def test_a_terminal_that_redraws_nothing_gets_lines(two_b: tiny.Oracle) -> None:
    _, shown = on_a_terminal(two_b.root, "-c", "a", TERM="dumb")
    assert "\x1b" not in shown
    assert "\r\nMaking music\r\n" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of its own needs pty")
def test_no_line_of_the_bar_is_wider_than_a_narrow_terminal(two_b: tiny.Oracle) -> None:
    """Made narrower down to 60 columns, a terminal breaks no line of it, and nothing is left behind."""
    _, shown = on_a_terminal(two_b.root, "-c", "a", "-n", "3", COLUMNS="120")
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    lines = re.split(r"(?:\x1b\[[\d;?]*[A-Za-z]|\r|\n)+", plain)
    bars = [line for line in lines if line.endswith(" left") or " MB" in line]
    assert bars
    assert max(map(len, bars)) < 60


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of Unix")
@pytest.mark.parametrize("reader", ["has read enough", "is not there", "is a full disk"])
def test_a_stdout_that_takes_no_paths_stops_no_take(two_b: tiny.Oracle, reader: str) -> None:
    command = [sys.executable, BAND, "generate", "-c", "a", "-d", "10", "-n", "2", "-o", "a.wav",
               "--models-dir", two_b.root, "-m", "turbo"]  # fmt: skip
    ours, theirs = os.pipe()
    os.close(ours)
    stdout = os.open("/dev/full", os.O_WRONLY) if reader == "is a full disk" else theirs
    run = finish(
        command,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.close(1)) if reader == "is not there" else None,
    )
    assert run.returncode == (9 if reader == "is a full disk" else 0), run.stderr
    assert names() == [f"a-{n}.wav{end}" for n in (1, 2) for end in ("", ".yaml")]
    assert "Exception" not in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.count("stdout cannot be written: no space left") == (reader == "is a full disk")


# What it writes


def test_takes_have_their_own_seeds_and_sidecars_that_make_them_again(acestep: Run) -> None:
    assert acestep("-n", "3", "--seed", "4294967294", "-o", "a.wav", "--title", "A", "--bpm", "90").exit_code == 0
    assert names() == sorted(f"a-{n}.wav{end}" for n in (1, 2, 3) for end in ("", ".yaml"))
    seeds = [spec.load(Path(f"a-{n}.wav.yaml")).seed for n in (1, 2, 3)]
    assert seeds == [2**32 - 2, 2**32 - 1, 0]
    again = acestep("a-2.wav.yaml", "-o", "again.wav", caption=None)
    assert again.exit_code == 0, again.stderr
    assert Path("again.wav").read_bytes() == Path("a-2.wav").read_bytes()
    assert spec.load(Path("again.wav.yaml")) == spec.load(Path("a-2.wav.yaml"))


def test_a_sidecar_records_what_made_the_take(acestep: Run) -> None:
    acestep("-o", "a.mp3", "--key", "a minor")
    written = yaml.safe_load(Path("a.mp3.yaml").read_text())
    render = written.pop("render")
    assert written["key"] == "A minor"
    assert written["format"] == "mp3"
    assert written["bitrate"] == 192
    assert written["model"] == "turbo"
    assert {"seed", "steps", "shift", "solver", "duration", "loudness"} <= set(written)
    assert render["checkpoint"]["name"] == "turbo"
    assert render["device"] == "cpu"
    assert render["seconds"] == 10
    assert set(render["checks"]) == {"peak_dbfs", "true_peak_db", "lufs"}
    assert render["checks"]["peak_dbfs"] == pytest.approx(-1, abs=0.5)  # of the MP3
    libraries = {"llguidance", "mutagen", "numpy", "soundfile", "soxr", "torch"}
    assert set(render["versions"]) == {"python", *libraries}


def test_identical_runs_write_identical_files(acestep: Run) -> None:
    for name in ("a", "b"):
        acestep("-o", f"{name}.ogg", "--seed", "7")
    assert Path("a.ogg").read_bytes() == Path("b.ogg").read_bytes()
    assert Path("a.ogg.yaml").read_text() == Path("b.ogg.yaml").read_text()


def test_the_audio_is_set_to_minus_one_dbfs_with_its_title_inside(acestep: Run) -> None:
    acestep("-o", "a.flac", "--title", "Nächte")
    with soundfile.SoundFile("a.flac") as file:
        assert file.title == "Nächte"
        assert np.abs(file.read()).max() == pytest.approx(10 ** (-1 / 20), abs=1e-4)


def test_no_sidecar(acestep: Run) -> None:
    acestep("-o", "a.wav", "--no-sidecar")
    assert names() == ["a.wav"]


def test_rolling_again_never_collides(acestep: Run) -> None:
    for _ in range(2):
        acestep("--no-sidecar")
    acestep("--no-sidecar", "-n", "2", "--format", "wav")
    assert names() == ["a-song-1.flac", "a-song-2.flac", "a-song-3.wav", "a-song-4.wav"]


@pytest.mark.parametrize(
    ("request_", "spec_file", "expected"),
    [
        (Request(title="Night Drive!", caption="x"), None, "night-drive"),
        (Request(caption="Warm lo-fi, 90 bpm"), None, "warm-lo-fi-90-bpm"),
        (Request(caption="夜の ドライブ"), None, "夜の-ドライブ"),
        (Request(caption="!!!"), None, "song"),
        (Request(lyrics="la"), None, "song"),
        (Request(caption="a" * 100), None, "a" * paths.SLUG_LENGTH),
        (Request(title="../../etc/passwd"), None, "etc-passwd"),
        (Request(title="T"), "songs/night-drive.yaml", "night-drive"),
        (Request(title="T"), "night-drive.flac.yaml", "night-drive"),
        (Request(title="T"), "v1.2.yaml", "v1.2"),
    ],
)
def test_names(request_: Request, spec_file: str | None, expected: str) -> None:
    assert paths.default_stem(request_, Path(spec_file) if spec_file else None) == expected


def test_a_folder_takes_the_spec_s_name(acestep: Run, here: Path) -> None:
    Path("tune.yaml").write_text("caption: x\nduration: 10\n")
    (here / "there").mkdir()
    assert acestep("tune.yaml", "-o", "there", caption=None).stdout == f"there{os.sep}tune.flac\n"
    assert acestep("tune.yaml", "-o", "new/deep/", caption=None).stdout == f"{Path('new/deep/tune.flac')}\n"


def test_flags_override_a_spec_and_output_decides_the_format(acestep: Run) -> None:
    Path("tune.yaml").write_text("caption: x\nduration: 30\nformat: flac\nbit_depth: 16\nbpm: 80\n")
    assert acestep("tune.yaml", "-o", "t.mp3", "-d", "10", caption=None).exit_code == 0
    made = spec.load(Path("t.mp3.yaml"))
    assert (made.duration, made.bpm, made.format, made.bit_depth, made.bitrate) == (10, 80, "mp3", None, 192)


# What it refuses, all of it before the pipeline is imported


@pytest.mark.usefixtures("no_pipeline")
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--bpm", "120.5"], 2, "--bpm: '120.5' is not a whole number from 30 to 300"),
        (["--key", "H minor"], 2, "--key: 'H minor' is not a key"),
        (["--format", "xyz"], 2, "--format: 'xyz' is not one of wav, flac, mp3, ogg, opus"),
        (["-o", "x.xyz"], 2, "'x.xyz' does not end in the suffix of a format"),
        (["-o", "x"], 2, "a / to name a folder"),
        (["-o", "x.mp3", "--format", "flac"], 2, "--format flac contradicts --output x.mp3"),
        (["-n", "9999999999"], 2, "--takes: 9999999999 is not a whole number from 1 to 9999"),
        (["-o", "x.mp3", "--bit-depth", "16"], 2, "--bit-depth: mp3 cannot have 16"),
        (["--bit-depth", "32f"], 2, "--bit-depth: flac cannot have 32f; wav can"),
        (["--bitrate", "128k"], 2, "--bitrate: flac cannot have 128k; mp3 and m4a can"),
        (["--instrumental", "--lyrics", "la"], 2, "--instrumental: excludes lyrics (--lyrics)"),
        (["--lyrics-file", "no.txt"], 2, "no.txt cannot be read"),
        (["--timesteps", "0.5,0.9"], 2, "--timesteps: rises from 0.5 to 0.9"),
        (["--dtype", "int4"], 2, "--dtype int4: is not one of bf16"),
        (["--device", "tpu"], 2, "--device tpu: this machine has no such device"),
        (["-m", "base"], 3, "The checkpoint base is not installed"),
        (["-m", "./nowhere"], 3, "nowhere is neither a checkpoint's name nor a folder"),
        (["--models-dir", "nowhere"], 3, "The models folder nowhere does not exist"),
        (["-o", "no/x.wav"], 9, "The folder no does not exist."),
        (["-o", "/proc/x.wav"], 9, "/proc cannot be written"),
        (["-o", "file.txt/x.wav"], 9, "The folder file.txt does not exist"),
        (["-o", "file.txt/"], 9, "file.txt cannot be written: not a directory"),
        (["-o", "x" * 300 + ".wav"], 9, "x.wav cannot be written: file name too long. Choose a shorter name"),
        (["-o", "x" * 300 + "/"], 9, "x cannot be written: file name too long"),
        (["-o", "x" * 248 + ".wav"], 9, "x.wav.yaml cannot be written: file name too long"),
        (["x" * 248 + ".yaml"], 9, "x-1.flac.yaml cannot be written: file name too long"),
        (["-o", "there.wav"], 9, "there.wav exists already"),
        (["-o", "there.wav", "--no-sidecar"], 9, "there.wav exists already"),
        (["-o", "beside.wav"], 9, "beside.wav.yaml exists already"),
        (["tune.yaml", "-o", "folder/", "--force"], 9, "tune.flac exists already."),
    ],
)
def test_refusals(acestep: Run, here: Path, arguments: list[str], code: int, sentence: str) -> None:
    for name in ("file.txt", "there.wav", "beside.wav.yaml"):
        (here / name).touch()
    (here / ("x" * 248 + ".yaml")).write_text("bpm: 90")
    (here / "tune.yaml").write_text("bpm: 90")
    (here / "folder" / "tune.flac").mkdir(parents=True)
    before = names()
    result = acestep(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert names() == before


@pytest.mark.usefixtures("no_pipeline")
def test_nothing_to_make_music_from(acestep: Run) -> None:
    result = acestep(caption=None)
    assert result.exit_code == 2
    assert "give a caption (-c), lyrics (--lyrics) or an idea (--idea)" in result.stderr


@pytest.mark.usefixtures("no_pipeline")
def test_problems_of_spec_and_flags_come_together(acestep: Run) -> None:
    Path("a.yaml").write_text("caption: x\nbmp: 90\n")
    result = acestep("a.yaml", "--bpm", "20")
    assert result.exit_code == 2
    assert "a.yaml:2: bmp: is not a key of a song spec; did you mean 'bpm'?" in result.stderr
    assert "--bpm: 20 is not a whole number" in result.stderr


def test_unknown_flags_and_commands_name_the_nearest() -> None:
    for words, near in ((["generate", "--bmp", "90"], "--bpm"), (["generat"], "generate")):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 2
        assert near in result.stderr


def test_a_format_is_the_same_in_any_case(acestep: Run) -> None:
    assert acestep("--format", "FLAC", "-o", "a.flac").exit_code == 0


def test_a_file_that_appears_during_the_render_is_kept(acestep: Run) -> None:
    result = acestep("-n", "2", "-o", "a.wav", caption="a song overtaken")
    assert result.exit_code == 7
    assert "a-2.wav exists already." in result.stderr
    assert Path("a-2.wav").read_text() == "theirs"
    assert "a-2.wav.yaml" not in names()
    assert not list(Path().glob(".*"))
    assert acestep("-n", "2", "-o", "a.wav", "--force", caption="a song overtaken").exit_code == 0
    assert soundfile.info("a-2.wav").frames == 10 * band.RATE


def test_a_number_that_another_run_took_is_passed_over(acestep: Run) -> None:
    result = acestep(caption="a song overtaken")
    assert (result.exit_code, result.stdout) == (0, "a-song-overtaken-2.flac\n")
    assert Path("a-song-overtaken-1.flac").read_text() == "theirs"
    assert {"a-song-overtaken-2.flac", "a-song-overtaken-2.flac.yaml"} <= set(names())


def test_a_take_and_its_sidecar_appear_together(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("acestep_cli.render.sidecar.sidecar_text", full)
    result = acestep("-o", "a.wav")
    assert result.exit_code == 9
    assert "a.wav cannot be written: no space left on device." in result.stderr
    assert names() == []


def test_force_replaces(acestep: Run) -> None:
    Path("a.wav").touch()
    assert acestep("-o", "a.wav", "--force").exit_code == 0
    assert soundfile.info("a.wav").frames == 10 * band.RATE


# How it fails


def test_one_silent_take_does_not_stop_the_others(acestep: Run) -> None:
    result = acestep("-n", "3", "-o", "a.wav", caption="silent")
    assert result.exit_code == 7
    assert result.stdout == "a-1.wav\na-3.wav\n"
    assert "2 of 3 takes are there" in result.stderr
    assert "a-2.wav: The rendered audio is silent" in result.stderr
    assert names() == ["a-1.wav", "a-1.wav.yaml", "a-3.wav", "a-3.wav.yaml"]


def test_what_outgrows_memory_ends_the_run_and_keeps_the_takes_before(acestep: Run) -> None:
    result = acestep("-n", "3", "-o", "a.wav", "--no-sidecar", caption="too big")
    assert "a-2.wav: It does not fit." in result.stderr
    assert (result.exit_code, names()) == (7, ["a-1.wav"])


def test_takes_that_all_fail_give_their_own_code(acestep: Run) -> None:
    result = acestep("-n", "2", "-o", "a.wav", caption="all silent")
    assert (result.exit_code, result.stdout, names()) == (6, "", [])


@pytest.mark.parametrize("debug", [True, False])
def test_a_traceback_is_shown_on_demand_only(acestep: Run, debug: bool) -> None:
    result = acestep(*(["--debug"] if debug else []), caption="breaks")
    assert result.exit_code == 1
    assert "Something unexpected failed: RuntimeError: a string broke" in result.stderr
    assert ("Traceback" in result.stderr) == debug
    assert names() == []


def generating(models: Path, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A render that runs."""
    words = ["generate", "-d", "10", "--models-dir", models, "-m", "turbo", *arguments]
    return started([sys.executable, BAND, *words])


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize(
    ("stage", "shown"),
    [("load", "Loading weights"), ("text", "Reading"), ("diffuse", "Making music"), ("decode", "Decoding")],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_any_stage_without_a_file(two_b: tiny.Oracle, stage: str, shown: str, number, code: int) -> None:
    with generating(two_b.root, "-c", f"slow {stage}", "-o", "a.flac") as process:
        before = read_to(process.stderr, shown)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=LIMIT)
    assert (process.returncode, stdout) == (code, "")
    *repeated, last = stderr.splitlines()
    assert last in ("Interrupted.", "Terminated.")
    assert set(repeated) <= set(before.splitlines())  # a buffer whose writing a signal interrupts is written again
    assert names() == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_finished_takes_stay_when_interrupted(two_b: tiny.Oracle) -> None:
    with generating(two_b.root, "-c", "stops", "-n", "3", "-o", "a.flac") as process:
        assert read_to(process.stdout, "a-2.flac\n") == "a-1.flac\na-2.flac\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert stderr.endswith("Interrupted: 2 of 3 takes are kept.\n")
    assert names() == ["a-1.flac", "a-1.flac.yaml", "a-2.flac", "a-2.flac.yaml"]
    assert spec.load(Path("a-2.flac.yaml")).caption == "stops"


@pytest.mark.skipif(sys.platform == "win32", reason="the limit stands in for a full disk, and is Unix's")
def test_a_disk_that_fills_up(two_b: tiny.Oracle) -> None:
    import resource

    process = finish(
        [sys.executable, BAND, "generate", "-c", "a", "-d", "10", "-o", "a.wav", "-n", "2",
         "--models-dir", two_b.root, "-m", "turbo"],
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )  # fmt: skip
    assert process.returncode == 9
    assert "a-1.wav cannot be written: file too large." in process.stderr
    assert names() == []


# With the true pipeline


def test_a_caption_becomes_a_song(two_b: tiny.Oracle) -> None:
    run = finish(
        [sys.executable, "-m", "acestep_cli", "generate", "-c", "warm", "--lyrics", "[Verse]\nla", "-d", "10",
         "--dtype", "float32", "--models-dir", two_b.root, "-m", "turbo", "-o", "a.flac", "--steps", "2"],
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (0, "a.flac\n"), run.stderr
    assert soundfile.info("a.flac").duration == pytest.approx(10, abs=0.04)
    sidecar = yaml.safe_load(Path("a.flac.yaml").read_text())
    assert sidecar["render"]["seconds"] == soundfile.info("a.flac").duration
    assert sidecar["language"] == "unknown"
