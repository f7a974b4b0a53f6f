"""The terminal: results on stdout, all else on stderr. The only user of Rich."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acestep_cli.audio.analysis import Analyser
from acestep_cli.cache import open_cache
from acestep_cli.cli import exit_codes, startup_line, wrapping
from acestep_cli.cli.progress_bar import STAGES, CommandBar
from acestep_cli.cli.startup_line import redraws
from acestep_cli.disk import format_size
from acestep_cli.errors import OutputError, reason_of
from acestep_cli.machine import notices
from acestep_cli.progress import ProgressCallback
from acestep_cli.render import events
from acestep_cli.render.events import Events
from acestep_cli.render.remaining import Remaining

if TYPE_CHECKING:
    import typer
    from rich.console import Console as Terminal
    from rich.progress import Progress

    from acestep_cli.render.result import RunReport
    from acestep_cli.render.settings import RenderSettings

COPY_BYTES = 1 << 20
#: Columns of a table that goes into a file.
WIDE = 120


def same_screen(descriptor: int) -> bool:
    """Return True if a descriptor and stderr are one terminal."""
    return os.path.samestat(os.fstat(descriptor), os.fstat(2))


def shares_screen() -> bool:
    """Return True where stdout and stderr are one terminal."""
    try:
        return sys.stdout.isatty() and same_screen(sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # a stream is closed, or in memory
        return False


@dataclass(frozen=True)
class Stdout:
    """The true stdout, while `sys.stdout` is stderr. `stream` is binary, text in tests, or None where it is closed."""

    console: Console
    stream: Any

    def path(self, path: Path | str) -> None:
        self.console.print_path(self.stream, path)

    def file(self, path: Path) -> None:
        """Write the bytes of a file. Raises `OutputError` where the reader is gone or the disk is full."""
        binary = getattr(self.stream, "buffer", self.stream)
        try:
            with path.open("rb") as file:
                while block := file.read(COPY_BYTES):
                    rest = memoryview(block)
                    while rest:
                        rest = rest[binary.write(rest) :]
            binary.flush()
        except OSError as error:
            reason = reason_of(error)
            raise OutputError(f"stdout cannot be written: {reason}.") from error


def print_result(text: str, *, styled: bool = False) -> None:
    """Print a result as UTF-8, whatever the locale is. A reader that closed the pipe is no error.

    A terminal gets nothing that it would obey, unless the text is `styled`: then that was seen to before.
    """
    startup_line.remove()
    if sys.stdout is None:  # closed by whoever started us
        return
    if sys.stdout.isatty() and not styled:
        text = exit_codes.printable(text)
    sys.stdout.flush()
    try:
        if hasattr(sys.stdout, "buffer"):
            sys.stdout.buffer.write(text.encode(errors="surrogateescape"))  # file names may be no UTF-8
        else:
            sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        exit_codes.discard_stdout()
    except OSError as error:
        exit_codes.discard_stdout()
        raise OutputError(f"stdout cannot be written: {reason_of(error)}.") from error


def print_card(title: str, picture: Sequence[str], rows: Sequence[tuple[str, str]], text: str | None) -> None:
    """Print a picture made of characters, with rows of names and values and a text below it."""
    from rich.console import Console as Terminal
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in rows:
        facts.add_row(Text(exit_codes.printable(name)), Text(exit_codes.printable(value)))
    parts: list[Any] = [Text("\n".join(picture), style="cyan", no_wrap=True, overflow="crop"), Text(), facts]
    if text:
        parts += [Text(), Text(exit_codes.printable(text))]
    terminal = Terminal(file=sys.stdout)
    with terminal.capture() as captured:
        terminal.print(Panel(Group(*parts), title=Text(exit_codes.printable(title)), title_align="left"))
    print_result(captured.get(), styled=True)


def screen_width() -> int:
    """Return the columns of stdout; 80 where it is no terminal."""
    from rich.console import Console as Terminal

    return Terminal(file=sys.stdout).width


def card_width() -> int:
    """Return the width of a picture for `print_card`, in characters."""
    return max(screen_width() - len("│  │"), 8)


class Console:
    """The messages of a running command. `quiet` leaves only errors, `verbose` adds details.

    `progress` is auto, plain or none. With `paths` false, no paths are printed to stdout.
    """

    def __init__(
        self, quiet: bool = False, *, verbose: bool = False, progress: str = "auto", paths: bool = True
    ) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._progress, self.shows_paths = progress, paths
        #: What is shown on the terminal, through which lines are printed meanwhile.
        self._screen: Terminal | None = None
        self._bar: CommandBar | None = None
        self.remaining = Remaining()
        self.shares_screen = shares_screen()
        self.warnings: list[str] = []
        self.events = Events()
        self._stdout_refused: str | None = None

    def say(self, line: str) -> None:
        startup_line.remove()
        if self.quiet:
            return
        line = wrapping.wrap_for(sys.stderr, exit_codes.printable(line))
        if self._screen is not None:
            self._screen.out(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    @property
    def is_read(self) -> bool:
        """True where somebody reads lines on a terminal, and asked for nothing else."""
        return not self.quiet and self.shows_paths and self._progress == "auto" and redraws(sys.stderr)

    @property
    def width(self) -> int:
        """The columns of the terminal that lines are read on; `WIDE` where it is none."""
        return wrapping.terminal_width(sys.stderr) if redraws(sys.stderr) else WIDE

    def advise(self, subject: str, sentence: str) -> bool:
        """Print a sentence of advice, on a terminal once a day; return True if it was printed."""
        if self.is_read and not notices.is_first_today(subject):
            return False
        self.say(sentence)
        return True

    def hint(self, line: str) -> None:
        """Print the next step to somebody at a terminal, and to nobody else."""
        if self.is_read:
            self.say(line)

    def detail(self, line: str) -> None:
        """Print a line that only `--verbose` shows."""
        if self.verbose:
            self.say(line)

    def note(self, text: str) -> None:
        """Show a text beside the current progress; nothing without a bar."""
        if self._bar is not None:
            self._bar.note(exit_codes.printable(text))

    def warn(self, text: str) -> None:
        """Print a warning, but only once: each take repeats those of its whole run."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.events.emit("warning", message=text)
            self.say(f"Warning: {text}")

    @contextmanager
    def results(self) -> Iterator[Stdout]:
        """Yield the only way to print a result; everything else printed to stdout goes to stderr.

        Libraries print while they load, some of them from C: so the descriptor itself is redirected, not only Python's
        stream. A stdout without a descriptor, as in tests, is redirected in Python alone.
        """
        with self._turned_over() as stdout:
            yield stdout
        if self._stdout_refused is not None:
            raise OutputError(f"stdout cannot be written: {self._stdout_refused}.", "What was made is there.")

    @contextmanager
    def _turned_over(self) -> Iterator[Stdout]:
        stdout = sys.stdout
        if stdout is None:  # closed by whoever started us
            yield Stdout(self, None)
            return
        stdout.flush()
        try:
            descriptor = stdout.fileno()
        except (OSError, ValueError):  # a stream in memory has none
            with redirect_stdout(sys.stderr):
                yield Stdout(self, stdout)
            return
        kept = os.dup(descriptor)
        os.dup2(sys.stderr.fileno(), descriptor)
        try:
            with redirect_stdout(sys.stderr), os.fdopen(os.dup(kept), "wb", buffering=0) as binary:
                yield Stdout(self, binary)
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)

    def print_path(self, stdout: Any, path: Path | str) -> None:
        """Print a path. The file exists already, so a full stdout stops nothing: `results` raises at the end."""
        startup_line.remove()
        if stdout is None or not self.shows_paths:
            return
        try:
            if self._screen is not None and stdout.isatty() and same_screen(stdout.fileno()):
                # One screen shows both: the bar must know of the line, or it wipes it with its next picture.
                self._screen.out(exit_codes.printable(str(path)), highlight=False)
            elif isinstance(stdout, io.TextIOBase):
                print(path, file=stdout, flush=True)
            elif os.isatty(stdout.fileno()) if hasattr(stdout, "fileno") else False:
                stdout.write(exit_codes.printable(str(path)).encode(errors="replace") + os.linesep.encode())
            else:
                stdout.write(os.fsencode(path) + os.linesep.encode())
        except BrokenPipeError:  # `| head -1` has read enough
            pass
        except OSError as error:
            self._stdout_refused = reason_of(error)

    @contextmanager
    def progress(
        self, memory: Callable[[], int] = lambda: 0, *, several: bool = False, in_lines: bool = True
    ) -> Iterator[ProgressCallback]:
        """Yield a function that takes reports: stage, steps done, total steps. `memory` returns the bytes in use.

        A terminal shows a bar with the time left; elsewhere a line is printed for each stage, and with `several`
        renders at once only the first time; none unless `in_lines`.
        """
        draws = self._progress != "plain" and redraws(sys.stderr)
        if self.quiet or self._progress == "none" or not (draws or in_lines):
            yield self.events.following(lambda stage, done, total: None)
        elif not draws:
            yield self.events.following(self._line_per_stage(several))
        else:
            with self._command_bar(memory) as report:
                yield self.events.following(report)

    def _line_per_stage(self, once: bool) -> ProgressCallback:
        said: list[str] = []

        def report(stage: str, done: int, total: int) -> None:
            # Weights may come and go with each take.
            if stage not in (said if once or stage == "load" else said[-1:]):
                said.append(stage)
                self.say(STAGES.get(stage, stage))

        return report

    @contextmanager
    def _command_bar(self, memory: Callable[[], int]) -> Iterator[ProgressCallback]:
        from rich.console import Console as Terminal

        startup_line.remove()
        self._bar, self._screen = CommandBar(memory, self.remaining), Terminal(stderr=True)
        try:
            with self._bar.shown(self._screen):
                yield self._bar.report
        finally:
            self._bar = self._screen = None

    @contextmanager
    def _shown(self, bars: Progress) -> Iterator[None]:
        """Show bars during the body; lines are printed above them."""
        self._screen = bars.console
        try:
            with bars:
                yield
        finally:
            self._screen = None

    @contextmanager
    def transfers(self, total: int) -> Iterator[ProgressCallback]:
        """Yield a function that takes reports: file, bytes done, bytes of the file; `total` is the bytes of all files.

        A terminal shows a bar for all files and one for the current file; elsewhere a line is printed at each tenth.
        """
        if self.quiet or self._progress == "none" or not total:
            yield lambda file, done, size: None
        elif self._progress == "plain" or not redraws(sys.stderr):
            yield self._line_per_tenth(total)
        else:
            with self._bars_of_bytes(total) as report:
                yield report

    def _line_per_tenth(self, total: int) -> ProgressCallback:
        files: dict[str, int] = {}
        told = 0

        def report(file: str, done: int, size: int) -> None:
            nonlocal told
            before, files[file] = files.get(file, 0), done
            percent = 100 * sum(files.values()) // total
            if percent // 10 > told or (done == size and before < size):
                told = percent // 10
                of = format_size(size) if done == size else f"{format_size(done)} of {format_size(size)}"
                self.say(f"{percent} % of {format_size(total)}: {file}, {of}")

        return report

    @contextmanager
    def _bars_of_bytes(self, total: int) -> Iterator[ProgressCallback]:
        startup_line.remove()
        from rich.console import Console as Terminal
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        name = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        kinds = (DownloadColumn, TransferSpeedColumn, TimeRemainingColumn)
        figures = [kind(table_column=Column(no_wrap=True, justify="right")) for kind in kinds]
        columns = (TextColumn("{task.description}", markup=False, table_column=name), BarColumn(bar_width=14), *figures)
        bars = Progress(*columns, console=Terminal(stderr=True), expand=True, transient=True)
        whole, current = bars.add_task("All", total=total), bars.add_task("", total=None)
        files: dict[str, int] = {}

        def report(file: str, done: int, size: int) -> None:
            if file not in files:
                shown = exit_codes.printable(file)
                bars.reset(current, total=size, completed=done, description=shown)  # what was there is no speed
            files[file] = done
            bars.update(current, completed=done)
            bars.update(whole, completed=sum(files.values()))

        with self._shown(bars):
            yield report


def begin(ctx: typer.Context, *, quiet: bool = False, wants_json: bool = False) -> tuple[Console, RunReport]:
    """Return the console of a command, and the report that `--json` prints when it ends, however it ends."""
    terminal = Console(quiet, paths=not wants_json)
    return terminal, exit_codes.keep_report(ctx, terminal.warnings)


def analyser(terminal: Console, report: ProgressCallback) -> Analyser:
    """Return the analyser of a command, whose import is reported as a stage of its own."""
    return Analyser(open_cache(terminal.warn), partial(report, "analyser", 0, 0))


def render_console(run: RenderSettings) -> Console:
    """Return the console of a command that renders."""
    from acestep_cli.render.paths import STDOUT

    shows_paths = not run.json and run.output != STDOUT
    return Console(run.quiet, verbose=run.verbose, progress=run.progress, paths=shows_paths)


@contextmanager
def begin_render(ctx: typer.Context, run: RenderSettings) -> Iterator[tuple[Console, RunReport]]:
    """Yield the console of a command that renders, whose events are written meanwhile, and its report."""
    terminal = render_console(run)
    run_report = exit_codes.keep_report(ctx, terminal.warnings)
    with events.open_events(run.events, terminal.warn) as terminal.events:
        yield terminal, run_report
