"""The commands of the program, words with which each of them succeeds, and many runs out of one process.

`python -m support.live FOLDER < cases.json` runs the cases, each in a process that is forked off one which has imported
what they need: a start of its own for each would take minutes.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

import acestep_cli
from acestep_cli.audio import measure
from acestep_cli.cli.app import COMMANDS, app, loaded, main
from acestep_cli.song import document
from support import band
from support.command import LIMIT, LONG_LIMIT, finish
from support.places import TESTS
from support.sounds import tone

#: What a stream may be: a file that keeps all; a pipe that nobody reads, or only one line of; a full disk; a terminal,
#: which keeps all, too.
KEPT, GONE, ONE_LINE, FULL, TERMINAL = "kept", "gone", "one line", "full", "terminal"
SONG = ("-m", "turbo", "-c", "%slow piano", "--seed", "7")
STEMS = ("-m", "base", "--track", "drums", "--seed", "7")
ALONE = ("--seed", "1", "--songwriter", "pocket", "-m", "pocket")
#: Words for each command, in the folder of `prepare`, with which it succeeds. `%` stands for what names in the folder
#: begin with, and `#` for a name of the run's own.
WORDS = {
    "generate": ["%song.yaml", "--lora", "%my-sound", "-o", "#.wav"],
    "cover": ["%take.wav", *SONG, "-o", "#.wav"],
    "repaint": ["%take.wav", *SONG, "--start", "2", "--end", "6", "-o", "#.wav"],
    "lego": ["%take.wav", *STEMS, "-c", "%slow piano", "-o", "#.wav"],
    "extract": ["%take.wav", *STEMS, "-o", "#.wav"],
    "complete": ["%take.wav", *STEMS, "-c", "%slow piano", "-o", "#.wav"],
    "extend": ["%take.wav", *SONG, "--after", "2", "-o", "#.wav"],
    "edit": ["%take.wav", "-m", "turbo", "-c", "%fast drums", "--seed", "7", "-o", "#.wav"],
    "render": ["%song.yaml", "%piano.md", "-o", "#/"],
    "write": ["%a rainy day", *ALONE],
    "describe": ["%take.wav", *ALONE],
    "album plan": ["%album.yaml", "-o", "#"],
    "album render": ["%album.yaml", "-o", "#"],
    "album outputs": ["%album.yaml", "-o", "#"],
    "train-lora": ["%songs", "--scan-only", "--force"],
    "cache du": [],
    "cache prune": [],
    "spec new": [],
    "spec check": ["%song.yaml", "%piano.md"],
    "spec show": ["%song.yaml", "--origin", "--resolved"],
    "spec schema": [],
    "spec languages": [],
    "lora inspect": ["%my-sound"],
    "lora compare": ["%my-sound", *SONG, "-d", "10", "-o", "#/", "--dry-run"],
    "models pull": ["pocket"],
    "models list": [],
    "models path": ["turbo"],
    "models verify": ["pocket"],
    "models prune": [],
    "replay": ["%take.wav", "--tags"],
    "show": ["%take.wav"],
    "listen": ["%takes", "-o", "#.html"],
    "export": ["%take.wav", "--daw", "-o", "#/"],
    "check": ["%take.wav"],
    "doctor": [],
    "examples list": [],
    "examples show": ["ballad"],
    "examples search": ["piano"],
    "help": ["specs"],
}
#: What loads torch or Ray, or runs the program, once imported.
LOADING_TORCH = tuple(f"acestep_cli.{name}" for name in ("engine", "pipeline", "training", "albums.ray", "__main__"))
IMPORTED_BY_RUNS = ("mutagen.flac", "mutagen.mp3", "mutagen.mp4", "mutagen.oggopus", "mutagen.wave", "numpy.fft",
                    "PIL.Image", "psutil", "rich.markdown", "soundfile", "typer.rich_utils")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A run: what is typed, and where its streams lead."""

    words: list[str]
    stdout: str = KEPT
    stderr: str = KEPT


@dataclass(frozen=True)
class Done:
    """A run that has ended: its exit code, and what was kept of its streams."""

    words: list[str]
    code: int
    stdout: str
    stderr: str


def commands() -> dict[str, Any]:
    """Return every command of the program, groups too, by its path as it is typed."""

    def below(command: Any, context: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
            _, inner, _ = command.resolve_command(context, [name])
            yield from below(inner, typer.Context(inner, parent=context, info_name=name), f"{path} {name}".strip())

    root = typer.main.get_command(app)
    return dict(below(root, typer.Context(root, info_name="acestep"), ""))


def options_of(command: Any) -> set[str]:
    return {opt for parameter in command.params for opt in (*parameter.opts, *parameter.secondary_opts)}


def lines() -> list[list[str]]:
    """Return words for every command."""
    return [[*path.split(), *words] for path, words in WORDS.items()]


def help_lines() -> list[list[str]]:
    """Return words for the help of every command and group."""
    return [[*path.split(), "--help"] for path in commands()]


def json_lines() -> list[list[str]]:
    """Return words for every command with `--json`, where it has that."""
    known = commands()
    return [[*path.split(), *words, "--json"] for path, words in WORDS.items() if "--json" in options_of(known[path])]


def prepare(folder: Path, models: Sequence[Path], odd: str = "") -> None:
    """Write what the words name into a folder, and the checkpoints of `models` into `models/`.

    All names and texts begin with `odd`.
    """
    import soundfile

    from support import adapter_files, tiny  # which load torch

    song = {"caption": f"{odd}slow piano", "duration": 10, "model": "turbo", "seed": 7}
    (folder / "models").mkdir()
    for checkpoint in (one for root in models for one in root.iterdir()):
        if not (folder / "models" / checkpoint.name).exists():
            (folder / "models" / checkpoint.name).symlink_to(checkpoint)
    for name in ("takes", "songs"):
        (folder / f"{odd}{name}").mkdir()
        with (folder / f"{odd}{name}" / f"{odd}a.wav").open("wb") as file:
            soundfile.write(file, tone(12).samples.T, 48_000, format="WAV")
    (folder / f"{odd}songs" / f"{odd}a.txt").write_text("caption: a bell\nlyrics: la la\n")
    (folder / f"{odd}song.yaml").write_text(document.dump_yaml({**song, "lyrics": "[Verse]\nla\n"}))
    (folder / f"{odd}piano.md").write_text(f"---\n{document.dump_yaml({**song, 'instrumental': True})}---\n")
    album = {"defaults": {"model": "turbo"}, "tracks": [f"{odd}piano.md"]}
    (folder / f"{odd}album.yaml").write_text(json.dumps(album))
    adapter_files.peft(folder / f"{odd}my-sound", adapter_files.pairs(tiny.TWO_B), notes={"trigger_word": f"{odd}word"})
    [made] = run_all(folder, [Case(["generate", "%song.yaml", "-o", "%take.wav"])], odd)
    assert made.code == 0, made


def run_all(folder: Path, cases: Sequence[Case], odd: str = "") -> list[Done]:
    """Run cases one after another in a folder whose names begin with `odd`, with the band for a pipeline."""
    environment = os.environ | {"ACESTEP_MODELS_DIR": "models", "COLUMNS": "100", "PYTHONPATH": str(TESTS)}
    typed = [
        [word.replace("#", f"%made-{random.randrange(10**9)}").replace("%", odd) for word in case.words]
        for case in cases
    ]
    given = json.dumps([{**asdict(case), "words": words} for case, words in zip(cases, typed, strict=True)])
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "support.live", scratch]
        run = finish(command, input=given, text=True, cwd=folder, env=environment, timeout=LONG_LIMIT)
    assert run.returncode == 0, run.stderr
    return [Done(case.words, *found) for case, found in zip(cases, json.loads(run.stdout), strict=True)]


def open_stream(kind: str, kept: Path) -> tuple[int, int | None]:
    """Return a descriptor to write to, and the other end where somebody reads of it."""
    if kind == KEPT:
        return os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), None
    if kind == FULL:
        return os.open("/dev/full", os.O_WRONLY), None
    if kind == TERMINAL:
        import pty

        ours, theirs = pty.openpty()
        return theirs, ours
    ours, theirs = os.pipe()
    if kind == ONE_LINE:
        return theirs, ours
    os.close(ours)
    return theirs, None


def read_stream(kind: str, ours: int, kept: Path) -> None:
    """Read the other end: one line, or all that a terminal shows, which is kept."""
    with os.fdopen(ours, "rb") as stream:
        if kind == ONE_LINE:
            stream.readline()
            return
        with suppress(OSError), kept.open("wb", buffering=0) as file:  # how Linux says that a terminal is closed
            while more := stream.raw.read(65536):
                file.write(more)


def import_ahead() -> None:
    """Import what the commands import when they run, but for torch."""
    CliRunner().invoke(app, ["--version"])
    for name in COMMANDS:
        loaded(name)
    for name in IMPORTED_BY_RUNS:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(acestep_cli.__path__, "acestep_cli."):
        if not module.name.startswith(LOADING_TORCH):
            importlib.import_module(module.name)


def run_cases(folder: Path) -> list[tuple[int, str, str]] | None:
    """Run the cases on stdin, with files in `folder` for what is kept; return what came of them: code, stdout, stderr.

    Returns None in the process of a case, with its streams and `sys.argv` set.
    """
    found = []
    for case in json.load(sys.stdin):
        files = [folder / name for name in ("stdout", "stderr")]
        for file in files:
            file.unlink(missing_ok=True)
        streams = [open_stream(case["stdout"], files[0])]
        is_shared = case["stdout"] == case["stderr"] == TERMINAL
        streams.append((os.dup(streams[0][0]), None) if is_shared else open_stream(case["stderr"], files[1]))
        child = os.fork()
        if not child:
            signal.alarm(LIMIT)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor, (theirs, ours) in enumerate(streams, start=1):
                os.dup2(theirs, descriptor)
                os.close(theirs)
                if ours is not None:
                    os.close(ours)
            sys.argv = ["acestep", *case["words"]]
            return None
        for theirs, _ in streams:
            os.close(theirs)
        for (_, ours), file in zip(streams, files, strict=True):
            if ours is not None:
                read_stream(case[file.name], ours, file)
        status = os.waitpid(child, 0)[1]
        kept = [os.fsdecode(file.read_bytes()) if file.exists() else "" for file in files]
        found.append((os.waitstatus_to_exitcode(status), kept[0], kept[1]))
    return found


if __name__ == "__main__":
    import_ahead()
    sys.modules["acestep_cli.pipeline"] = band.module()
    measure.has_analyser = lambda: False  # librosa takes longer than all that is looked at here
    gc.freeze()  # what the processes share is looked through, and so copied, by none of them
    results = run_cases(Path(sys.argv[1]))
    if results is None:
        main()
    else:
        print(json.dumps(results))
