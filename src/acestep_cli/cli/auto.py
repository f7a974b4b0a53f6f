"""`--auto`: batch after batch of takes of one song, the next one made while the last is listened to.

Each batch is a render in a process of its own, without a terminal: what is typed here never waits for it, and whatever
ends it, the takes that it has finished are there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from acestep_cli import disk
from acestep_cli.audio import encode
from acestep_cli.cli import listen
from acestep_cli.cli.console import Console, Stdout
from acestep_cli.errors import AceStepError, UsageError
from acestep_cli.render import announce, paths, plan, provenance
from acestep_cli.render.job import Job
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import spec, spec_keys, spec_layers, spec_text, take_parts

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "acestep_cli")
#: Settings that make no sense for a run that never ends.
REFUSED = ("json", "events", "dry_run", "explain", "smoke", "force", "again", "matrix")
#: Settings that are passed on to the processes.
PASSED = ("models_dir", "device", "dtype", "max_vram", "timeout", "pull", "no_sidecar", "keep_latents", "cache", "rank")
LETTERS = "bcdefghijklmnopqrstuvwxyz"
SECONDS_TO_END = 20
PROMPT = "Enter: next takes · N: keep take N · r N 0:10-0:20: repaint that part of it · v N: vary it · q: stop > "
#: The name of a take: the number in its file name, and a letter where it was repainted.
TAKE = re.compile(r"\d+[b-z]?")
#: `r 2 0:10-0:20`; a part may reach over either end.
REPAINT = re.compile(r"r(?:epaint)?\s+(\d+[b-z]?)\s+(-?[\d:.]+)\s*-\s*([\d:.]+)")

#: `v 2`
VARY = re.compile(r"v(?:ary)?\s+(\d+[b-z]?)")
#: How far from its take a neighbour is.
VARIATION = "15%"
#: The words for each of these while it is done, and after it.
DOING = {"Repaint": ("Repainting", "Repainted"), "Vary": ("Varying", "Varied")}


@dataclass
class RenderProcess:
    """A render in a process of its own, and the files it has finished so far."""

    folder: Path
    process: subprocess.Popen[str]
    stderr: IO[str]
    files: list[Path] = field(default_factory=list)
    #: The number of printed files.
    printed: int = 0
    reader: threading.Thread | None = None

    @classmethod
    def begin(cls, folder: Path, words: Sequence[str]) -> RenderProcess:
        """Start `acestep …` in `folder`, in a session of its own, which a Ctrl-C in the terminal does not reach."""
        stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - until collected
        process = subprocess.Popen(
            [*PROGRAM, *words, "--quiet", "--no-input"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="surrogateescape",  # names of files may be no UTF-8
            start_new_session=True,
        )
        batch = cls(folder, process, stderr)
        batch.reader = threading.Thread(target=batch._read, daemon=True)
        batch.reader.start()
        return batch

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.files.append(self.folder / line.rstrip("\n"))

    def wait(self, stdout: Stdout) -> int:
        """Print each file once it is there, until the process ends; return its exit code."""
        assert self.reader is not None
        while True:
            is_running = self.reader.is_alive()
            while self.printed < len(self.files):
                stdout.path(self.files[self.printed])
                self.printed += 1
            if not is_running:
                return self.process.wait()
            self.reader.join(0.2)

    def stop(self) -> None:
        """End the process; a file that it is writing is finished or removed."""
        self.process.terminate()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def problem(self) -> str:
        """Return the stderr of the process."""
        self.stderr.seek(0)
        return self.stderr.read().strip()


@dataclass
class AutoSession:
    """One song, rendered again and again into a folder, and the processes that are running."""

    job: Job
    folder: Path
    run: RenderSettings
    terminal: Console
    stdout: Stdout
    scratch: Path
    begun: int = 0
    at_work: list[RenderProcess] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    #: The files on the page.
    shown: list[str] = field(default_factory=list)

    @property
    def page(self) -> Path:
        return self.folder / listen.PAGE

    @property
    def name(self) -> str:
        """The stem of the files without their numbers."""
        return paths.default_stem(self.job.request, self.job.song.spec_file, self.job.request.region)

    def begin(self) -> RenderProcess:
        """Start the next takes, whose seeds follow those of the last batch."""
        asked, song = self.job.song.resolved.request, self.job.request
        later = take_parts.take_request(song, self.begun * song.takes + 1, song.takes)
        seeds = {"seed": later.seed, "variation_seed": later.variation_seed}
        text = spec.dump_spec(asked.model_copy(update={**seeds, "takes": song.takes}))
        file = self.scratch / f"{self.name}.yaml"
        file.write_text(text, encoding="utf-8")
        self.begun += 1
        return self.start("render", str(file), *self.machine())

    def start(self, *words: str) -> RenderProcess:
        batch = RenderProcess.begin(self.folder, words)
        self.at_work.append(batch)
        return batch

    def machine(self) -> list[str]:
        words = []
        for name in PASSED:
            value = getattr(self.run, name)
            if value is True:
                words.append(spec_keys.flag_of(name))
            elif value:
                words += [spec_keys.flag_of(name), str(value.absolute() if isinstance(value, Path) else value)]
        return words

    def finish(self, batch: RenderProcess) -> None:
        """Wait for a batch, print its files, and refresh the page. Raises its failure where it made nothing."""
        code = batch.wait(self.stdout)
        problem = batch.problem() or f"A render ended with code {code}."
        self.collect(batch)
        if code and not batch.files:
            error = AceStepError(problem)
            error.exit_code = max(code, error.exit_code)  # a signal from outside is a negative one
            raise error
        if code:
            self.terminal.warn(problem)
        self.refresh()

    def collect(self, batch: RenderProcess) -> None:
        self.at_work.remove(batch)
        self.files += batch.files
        batch.stderr.close()

    def refresh(self, *, growing: bool = True) -> None:
        try:
            listen.refuse_other(self.page, force=False)
            takes = listen.make_page(self.folder, self.page, self.terminal, growing=growing)
            self.shown = [take["file"] for take in takes]
        except AceStepError as error:
            self.terminal.warn(str(error))

    def end(self) -> None:
        """Stop the running processes, and keep their finished files."""
        for batch in [*self.at_work]:
            batch.stop()
            batch.wait(self.stdout)
            self.collect(batch)
        if self.files:
            self.refresh(growing=False)

    def called(self, take: str) -> list[Path]:
        """Return the files of a take."""
        return [file for file in self.files if file.stem.endswith(f"-{take}")]

    def keep(self, take: str) -> str:
        """Note a take as kept, and return a sentence about it."""
        found = self.called(take)
        if not found:
            return f"There is no take {take}."
        with (self.folder / listen.KEPT).open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{one.name}\n" for one in found)
        if self.shown:
            try:
                listen.write_growing(self.page, self.shown, listen.kept_of(self.folder, self.page))
            except AceStepError as error:
                self.terminal.warn(str(error))
        return f"Kept: {', '.join(one.name for one in found)} ({self.folder / listen.KEPT})"

    def repaint(self, take: str, start: str, end: str) -> str:
        """Repaint a part of a take into a file of its own; return a sentence about it."""

        def command(file: Path) -> list[str]:
            song = provenance.find_provenance(file)
            asked = None if song is None else spec.resolve(*song.layers).request
            words = ["repaint", file.name, "--start", start, "--end", end]
            for key in ("caption", "lyrics", "model"):
                if asked is not None and (value := getattr(asked, key)) is not None:
                    words += [spec_keys.flag_of(key), value]
            return words

        return self.make_beside(take, "Repaint", command)

    def vary(self, take: str) -> str:
        """Make a neighbour of a take in a file of its own; return a sentence about it."""

        def command(file: Path) -> list[str]:
            beside = spec_layers.sidecar_path(file)
            if beside.is_file():
                return ["render", beside.name, "--variation", VARIATION, "--takes", "1"]
            raise UsageError(f"{file.name} has no sidecar, so it cannot be varied.")

        return self.make_beside(take, "Vary", command)

    def make_beside(self, take: str, verb: str, command: Callable[[Path], list[str]]) -> str:
        """Run the `command` for a take with a free name beside it, once nothing else is running."""
        found = self.called(take)
        if not found:
            return f"There is no take {take}."
        bare = found[0].stem.rstrip(LETTERS)
        free = (found[0].with_stem(f"{bare}{letter}") for letter in LETTERS)
        place = next((file for file in free if not disk.is_taken(file)), None)
        if place is None:
            return f"There are {len(LETTERS)} others of take {take}; rename some of its files."
        for batch in self.at_work:
            self.terminal.say("The takes already begun come first …")
            assert batch.reader is not None
            batch.reader.join()
        doing, done = DOING[verb]
        self.terminal.say(f"{doing} {found[0].name} …")
        try:
            batch = self.start(*command(found[0]), "--output", place.name, *self.machine())
            self.finish(batch)
        except AceStepError as error:
            return str(error)
        return f"{done}: {', '.join(one.name for one in batch.files)}"


def run_auto(mode: str | None, specs: list[str], song: dict[str, Any], run: RenderSettings) -> None:
    """Make takes of one song until it is stopped. Whatever can be refused is refused before anything is made."""
    for name in REFUSED:
        if getattr(run, name):
            raise UsageError(f"--auto goes on until it is stopped, so {spec_keys.flag_of(name)} has no meaning.")
    if len(specs) > 1:
        raise UsageError(f"--auto renders one song, and there are {len(specs)} specs.")
    output = run.output or "./"
    if output == paths.STDOUT or Path(output).suffix.removeprefix(".").lower() in encode.FORMATS:
        raise UsageError("--auto makes one file after another; --output names their folder.", "--output takes/")
    folder = Path(output)
    terminal = Console(run.quiet, verbose=run.verbose)
    with spec_text.reading_stdin(typing=not run.no_input):
        # Existing files are no obstacle to takes with other numbers.
        [job] = plan.plan_jobs(mode, specs, song, replace(run, output=os.path.join(folder, ""), force=True))  # noqa: PTH118
    for warning in [*job.warnings, *announce.remarks_on(job)]:
        terminal.warn(warning)
    asks = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty() and not run.no_input
    with terminal.results() as stdout, tempfile.TemporaryDirectory() as scratch:
        session = AutoSession(job, folder, run, terminal, stdout, Path(scratch))
        try:
            run_interactive(session) if asks else run_endless(session)
        finally:
            session.end()


def run_endless(session: AutoSession) -> None:
    """Make batch after batch, until a signal or a failure ends it."""
    while True:
        session.finish(session.begin())


def run_interactive(session: AutoSession) -> None:
    """Make batch after batch, each on request; the next one is rendered while the user listens to the last."""
    say = session.terminal.say
    batch = session.begin()
    while True:
        say(f"Making {session.job.request.takes} takes of {session.name} …")
        session.finish(batch)
        say(f"To listen: {session.page}")
        batch = session.begin()
        while answer := ask():
            if answer in ("q", "quit"):
                return
            if TAKE.fullmatch(answer):
                say(session.keep(answer))
            elif wanted := REPAINT.fullmatch(answer):
                say(session.repaint(*wanted.groups()))
            elif wanted := VARY.fullmatch(answer):
                say(session.vary(wanted[1]))
            else:
                say(f"{answer!r} is not one of these.")


def ask() -> str:
    """Return the typed answer; the end of input counts as q."""
    print(PROMPT, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.strip().lower() if line else "q"
