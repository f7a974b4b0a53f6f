"""The layout of `--help`: usage, examples, common flags, and the names of the other flags by group.

`--help-all` explains every flag. Typer's own layout folds no groups, and shows Python's types and ranges.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from acestep_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

#: Flags that every song needs, in the order in which they are shown.
COMMON = ("--caption", "--lyrics", "--duration", "--takes", "--output", "--seed", "--model")
#: Groups that commands share. `--help` shows the names of their flags, unless a command has few.
SHARED = ("Song", "Songwriter", "Sound", "Corrections", "Tags", "Output", "Machine")
#: A command with no more flags than this explains all of them.
FEW = 16
#: Of a command with more flags, a group of its own with more flags than this shows only their names, too.
MOST_OF_OWN = 9
#: Widest column of flags, in characters; a longer flag has a line of its own above its help.
NAME_WIDTH = 28
HELP_ALL = "--help-all"

F = TypeVar("F", bound=Callable[..., Any])


class App(typer.Typer):
    """A Typer app whose commands are laid out as this file has it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, add_completion=False, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[F], F]:
        """Return Typer's decorator for a command."""
        return super().command(name, cls=Command, **settings)


class Command(TyperCommand):
    """A command with `--help` and `--help-all`."""

    #: The option `--help-all`, once it was asked for: Click compares options by identity.
    _help_all: TyperOption | None = None

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, `--help-all` before `--help`."""
        params: list[Any] = super().get_params(ctx)
        *own, help_option = params
        if self._help_all is None:
            self._help_all = TyperOption(
                param_decls=[HELP_ALL],
                type_descriptor=help_option.type_descriptor,
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=show_every_flag,
                help="Explain every flag.",
            )
        return [*own, self._help_all, help_option]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the command's name in its usage."""
        return ["[FLAGS]", *usage_pieces(self.params)]

    def get_help(self, ctx: Any) -> str:
        """Return the help."""
        return command_help(self, ctx, every=False)


class Group(TyperGroup):
    """A group of commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; without any, show the help on stderr and exit with 2, where Typer would show nothing."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            typer.echo(self.get_help(ctx), err=True)
            ctx.exit(2)
        found: list[str] = super().parse_args(ctx, args)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the first argument names; for a word of another program, raise `UsageError`."""
        if args[0] not in self.commands:
            from acestep_cli.cli import other_words

            if hint := other_words.command_hint(ctx.info_name or "", args[0]):
                raise UsageError(f"{args[0]!r} is no command of {ctx.command_path}.", hint)
        found: tuple[str | None, Any, list[str]] = super().resolve_command(ctx, args)
        return found

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the group's name in its usage."""
        return ["COMMAND …"]

    def get_help(self, ctx: Any) -> str:
        """Return the help."""
        return group_help(self, ctx, {"Commands": list(self.commands)})


def show_every_flag(ctx: Any, _option: Any, wanted: bool) -> None:
    """Print the help with every flag explained, and end: the callback of `--help-all`."""
    if wanted and not ctx.resilient_parsing:
        typer.echo(command_help(ctx.command, ctx, every=True), color=ctx.color)
        ctx.exit()


def usage_pieces(params: Iterable[Any]) -> list[str]:
    """Return the arguments as they stand in a usage: `AUDIO...`, or `[SPEC]...` where it may be left out."""
    pieces = []
    for param in params:
        if isinstance(param, TyperArgument):
            name = param.display_name_raw
            pieces.append((name if param.required else f"[{name}]") + ("..." if param.nargs != 1 else ""))
    return pieces


def command_help(command: Command, ctx: Any, *, every: bool) -> str:
    """Return the help of a command: with `every`, every flag is explained."""
    params = [param for param in command.get_params(ctx) if not getattr(param, "hidden", False)]
    arguments = [param for param in params if isinstance(param, TyperArgument)]
    groups = grouped(param for param in params if isinstance(param, TyperOption))
    folded = not every and sum(map(len, groups.values())) > FEW
    long = [name for name, options in groups.items() if len(options) > MOST_OF_OWN]
    names = {name: groups.pop(name) for name in dict.fromkeys((*SHARED, *long)) if name in groups} if folded else {}
    if names:
        del groups["Help"]  # the last line says what to type
    else:
        groups["Help"] = [option for option in groups["Help"] if HELP_ALL not in option.opts]
    console = open_console()
    with console.capture() as captured:
        print_head(console, command, ctx, briefly=bool(names))
        print_rows(console, "", [(argument_name(one), explained(one)) for one in arguments])
        for name, options in groups.items():
            print_rows(console, name, [(flag_name(option), explained(option)) for option in options])
        if names:
            print_names(console, f"More flags ({ctx.command_path} {HELP_ALL} explains them)", names)
    return captured.get().rstrip("\n")


def group_help(group: TyperGroup, ctx: Any, sections: dict[str, list[str]]) -> str:
    """Return the help of a group with its commands in `sections`."""
    options = [param for param in group.get_params(ctx) if isinstance(param, TyperOption)]
    width = max(len(name) for names in sections.values() for name in names)
    console = open_console()
    with console.capture() as captured:
        print_head(console, group, ctx)
        for title, names in sections.items():
            lines = {name: (group.commands[name].help or "").split("\n\n")[0] for name in names}
            print_rows(console, title, list(lines.items()), width=width)
        print_rows(console, "Flags", [(flag_name(option), explained(option)) for option in options])
    return captured.get().rstrip("\n")


def grouped(options: Iterable[TyperOption]) -> dict[str, list[TyperOption]]:
    """Return options by group: the common ones first, in their own order, then those without a group, and help last."""
    groups: dict[str, list[TyperOption]] = {"Common flags": [], "Flags": []}
    last: list[TyperOption] = []
    for option in options:
        if {HELP_ALL, "--help"} & set(option.opts):  # Typer takes the names of --help from a set, in any order
            last.append(option)
        elif option.opts[-1] in COMMON and option.rich_help_panel in SHARED:
            groups["Common flags"].append(option)
        else:
            groups.setdefault(option.rich_help_panel or "Flags", []).append(option)
    groups["Common flags"].sort(key=lambda option: COMMON.index(option.opts[-1]))
    return groups | {"Help": last}


def open_console() -> Console:
    """Return a console as wide and as colourful as stdout."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False)


def print_head(console: Console, command: Any, ctx: Any, *, briefly: bool = False) -> None:
    """Print summary, usage and examples, and unless `briefly`, what else there is to say.

    Examples are not broken into lines, so that they can be copied.
    """
    from rich.text import Text

    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    sentences = [part for part in paragraphs if not part[:1].islower()]
    examples = [part for part in paragraphs if part[:1].islower()]
    usage = " ".join((ctx.command_path, *command.collect_usage_pieces(ctx)))
    for sentence in sentences[:1]:
        print_wrapped(console, sentence)
    console.print()
    console.print(Text.assemble(("Usage: ", "bold"), usage))
    if examples:
        console.print(Text("\nExamples:", "bold"))
        for example in examples:
            console.print(Text(f"  {example}", "cyan"), soft_wrap=True)
    for sentence in [] if briefly else sentences[1:]:
        console.print()
        print_wrapped(console, sentence)


def print_wrapped(console: Console, sentence: str) -> None:
    """Print a sentence as wide as the console, without spaces at the ends of lines."""
    from rich.text import Text

    for line in Text(sentence).wrap(console, console.width):
        line.rstrip()
        console.print(line)


def print_rows(console: Console, title: str, rows: Sequence[tuple[str, str]], width: int | None = None) -> None:
    """Print names, each beside its help, under a title."""
    from rich.text import Text

    if not rows:
        return
    widest = width or max((len(name) for name, _ in rows if len(name) <= NAME_WIDTH), default=NAME_WIDTH)
    console.print(Text(f"\n{title}:" if title else "", "bold"))
    for name, markup in rows:
        lines = Text.from_markup(markup).wrap(console, max(console.width - widest - 4, 20))
        for line in lines:
            line.rstrip()
        if len(name) > widest:
            console.print(Text(f"  {name}", "cyan"), soft_wrap=True)
        elif lines:
            console.print(Text.assemble((f"  {name.ljust(widest)}  ", "cyan"), lines.pop(0)), soft_wrap=True)
        for line in lines:
            console.print(Text.assemble(" " * (widest + 4), line), soft_wrap=True)


def print_names(console: Console, title: str, groups: dict[str, list[TyperOption]]) -> None:
    """Print the names of the flags of each group."""
    rows = [(name, " ".join(option.opts[-1] for option in options)) for name, options in groups.items()]
    print_rows(console, title, rows)


def argument_name(argument: TyperArgument) -> str:
    """Return the name of an argument."""
    return argument.display_name_raw


def flag_name(option: TyperOption) -> str:
    """Return the names of an option and the word for its value, aligned with those that have no short name."""
    names = sorted(option.opts, key=len)
    text = ", ".join(names) if len(names) > 1 else f"    {names[0]}"
    word = "" if option.is_flag else option.metavar or (option.name or "").upper()
    return f"{text} {word}".rstrip()


def explained(param: Any) -> str:
    """Return the help of a parameter, with its default and its environment variable, as Rich's markup."""
    notes = []
    if param.envvar and param.show_envvar:
        notes.append(f"env: {param.envvar}")
    if param.show_default and param.default not in (None, False, "") and not callable(param.default):
        notes.append(f"default: {param.default}")
    note = f" \\[{'; '.join(notes)}]" if notes else ""
    return f"{param.help or ''}{note}"
