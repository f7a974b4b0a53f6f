"""The command line. Commands are loaded when they are run, so `acestep --help` answers at once."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from typer._completion_shared import _completion_scripts
from typer.core import TyperArgument, TyperCommand, TyperOption

from acestep_cli import COMPLETING, __version__
from acestep_cli.cli import exit_codes, startup_line
from acestep_cli.cli.help_format import Group, group_help
from acestep_cli.errors import UsageError, reason_of

#: Each command with its line of help. A mode's own comes from its row (`commands.command`), and its line is copied from
#: there by `python tools/commands.py`; any other's comes from the file of its name in this folder.
COMMANDS = {
    # modes
    "generate": "Make a song from a caption and lyrics.",
    "cover": "Play a recording again in another style.",
    "repaint": "Make a part of a recording anew, or extend it.",
    "lego": "Add one track to a recording, as a stem.",
    "extract": "Take tracks out of a recording, and what is left.",
    "complete": "Accompany a recording with the tracks it lacks.",
    "edit": "Change a recording's words or style, and keep its melody.",
    # end
    "extend": "Make a recording longer at the front or the end; the rest stays.",
    "render": "Render specs, each by its own mode.",
    "write": "Turn an idea into a song spec, or rewrite one.",
    "describe": "Turn a recording into a song spec.",
    "album": "Render albums: what is stale, and nothing else.",
    "train-lora": "Teach a model your own sound, from a folder of songs.",
    "cache": "See and clear what renders keep for each other.",
    "spec": "Write, check and show song specs, without rendering.",
    "lora": "Say what an adapter is and what it fits; hear what it does.",
    "models": "Fetch checkpoints, and see which are there.",
    "replay": "Make a take again by its own recipe, and compare.",
    "show": "Show a take in the terminal: waveform, sections, recipe.",
    "listen": "Make a page to audition takes: compare, pick, go on.",
    "export": "Hand takes over to a DAW: tracks, markers, tempo map, project.",
    "check": "Assert properties of audio files: levels, faults, tempo, key.",
    "doctor": "Say what this machine has, and what fits it; prove a checkpoint.",
    "examples": "Read and search the songs that come with the program.",
    "help": "Show a page of the docs in the terminal.",
}

#: The groups of `acestep --help`, and their commands besides the modes: those of recordings stand in `RECORDINGS`.
RECORDINGS = "Recordings"
GROUPS = {
    "Make": ("generate", "render", "replay"),
    RECORDINGS: (),
    "Write": ("write", "describe", "spec", "examples"),
    "Albums": ("album",),
    "Models": ("models", "doctor", "cache"),
    "Your sound": ("train-lora", "lora"),
    "Look": ("show", "listen", "check", "export", "help"),
}


#: The script for zsh. `--install-completion` puts it on `fpath`, where zsh runs it at the first TAB and expects an
#: answer. Typer's own gives none then, and in an `eval` before `compinit` it is an error.
ZSH_COMPLETION = """\
#compdef %(prog_name)s

%(complete_func)s() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" %(autocomplete_var)s=complete_zsh %(prog_name)s)
}

if (( ! $+functions[compdef] )); then
  autoload -Uz compinit && compinit
fi
compdef %(complete_func)s %(prog_name)s

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  %(complete_func)s "$@"
fi
"""


class Root(Group):
    """The group of all commands: imports them on use, and turns failures into a sentence and an exit code."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=line) for name, line in COMMANDS.items()}

    def get_help(self, ctx: Any) -> str:
        """Return the help, with the commands in groups."""
        return group_help(self, ctx, command_groups(self.commands))

    def main(self, *arguments: Any, **more: Any) -> Any:
        with values_unread() if os.environ.get(COMPLETING) else nullcontext():
            return super().main(*arguments, **more)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args[0] not in COMMANDS:
            refuse_command(args[0])
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None:
            if not ctx.resilient_parsing:  # as for a TAB
                startup_line.show(name, rest)
            command = typer.main.get_command(loaded(name))
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        with exit_codes.as_exit_codes(ctx), startup_line.removed_at_end():
            return super().invoke(ctx)


def refuse_command(word: str) -> None:
    """Raise `UsageError` for text, a file, or a word of another program, that stands in the place of a command."""
    from acestep_cli.cli import other_words
    from acestep_cli.render import argument_kinds

    if hint := argument_kinds.command_hint(word) or other_words.command_hint(word):
        raise UsageError(f"{word!r} is no command.", hint)


def command_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """Return commands by the group of the help that they stand in."""
    groups: dict[str, list[str]] = {group: list(listed) for group, listed in GROUPS.items()}
    listed = set(chain(*GROUPS.values()))
    groups[RECORDINGS] += [name for name in names if name not in listed]
    return groups


@contextmanager
def values_unread() -> Iterator[None]:
    """Take the values of flags as they were typed.

    Completion asks whether a flag was given and not for what, and Typer builds a validator for each flag whose value
    it reads: that took longer than all the rest.
    """
    kinds: tuple[Any, ...] = (TyperArgument, TyperOption)
    for kind in kinds:
        kind.process_value = lambda _param, _ctx, value: value
    try:
        yield
    finally:
        for kind in kinds:
            del kind.process_value


def loaded(name: str) -> typer.Typer:
    """Return the Typer app of a command, imported with all that it needs."""
    module = f"acestep_cli.cli.{name.replace('-', '_')}"
    if importlib.util.find_spec(module):
        app: typer.Typer = importlib.import_module(module).app
        return app
    from acestep_cli.cli import commands

    return commands.command(name)


_completion_scripts["zsh"] = ZSH_COMPLETION
app = typer.Typer(
    name="acestep",
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"acestep {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make music with ACE-Step 1.5.

    acestep generate -c "warm lo-fi hip hop, dusty drums" --instrumental -d 30
    """


def main() -> None:
    """Run a command; exit with its code, or with 9 where stdout did not take what it printed."""
    occupy_closed_descriptors()
    stdout, _ = sink_stream("stdout", errors="surrogateescape"), sink_stream("stderr")
    try:
        app(prog_name="acestep")
    except SystemExit as ended:
        code = exit_codes.flush_stdout()
        if stdout is not None and stdout.refused is not None:
            print(f"stdout cannot be written: {stdout.refused}.", file=sys.stderr)
            code = exit_codes.UNWRITABLE
        if code and not ended.code:
            ended.code = code
        raise


class Sink(io.RawIOBase):
    """A stream of bytes that raises nothing: what cannot be written is let go, and the reason kept in `refused`.

    A reader that has stopped reading wants no more, and is no reason.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        """Take the stream of text whose bytes are to go through here. It is kept: a stream that goes is closed."""
        super().__init__()
        self._text = text
        self._stream: Any = getattr(text.buffer, "raw", text.buffer)
        self._lost = False
        self.refused: str | None = None

    def fileno(self) -> int:
        """Return the descriptor below."""
        return int(self._stream.fileno())

    def isatty(self) -> bool:
        """Return true for a terminal."""
        return bool(self._stream.isatty())

    def writable(self) -> bool:
        """Return true."""
        return True

    def write(self, data: Any) -> int | None:
        """Write bytes; return how many were taken: all, once a write has failed."""
        size = memoryview(data).nbytes
        if self._lost:
            return size
        try:
            return int(self._stream.write(data) or 0) or None
        except BrokenPipeError:
            self._lost = True
        except OSError as error:
            self._lost, self.refused = True, reason_of(error)
        return size


def sink_stream(name: str, *, errors: str | None = None) -> Sink | None:
    """Replace stdout or stderr by a stream that raises nothing; return its sink.

    Typer, Rich and Python's own end print as well, and each answers a failed write by another exit code; and what is
    said on a stderr that nobody reads stops nothing. `errors="surrogateescape"` carries file names that are not UTF-8.
    """
    text = getattr(sys, name)
    if not isinstance(text, io.TextIOWrapper):
        return None
    text.flush()
    sink = Sink(text)
    replaced = io.TextIOWrapper(
        io.BufferedWriter(sink),
        encoding=text.encoding,
        errors=errors or text.errors,
        line_buffering=text.line_buffering,
        write_through=text.write_through,
    )
    setattr(sys, name, replaced)
    return sink


def occupy_closed_descriptors() -> None:
    """Open the null device for each standard descriptor that is closed.

    Otherwise the next opened file would get its number, and the output of libraries would be written into a song.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest free number: this one
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the program runs
