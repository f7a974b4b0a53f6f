"""`acestep examples`: the songs that come with the program, to read, to search and to start from."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from acestep_cli.cli import help_format, options
from acestep_cli.cli.console import print_result
from acestep_cli.errors import UsageError
from acestep_cli.song import examples, languages
from acestep_cli.song.values import quoted

if TYPE_CHECKING:
    from acestep_cli.song.request import Request

app = help_format.App(no_args_is_help=True, help="Read and search the songs that come with the program.")

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print them as JSON, with everything they say.")]
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A song, as `acestep examples list` names it.",
        autocompletion=options.complete_songs,
    ),
]
Words = Annotated[list[str], typer.Argument(metavar="WORD", help="Words that all occur in the song.")]


@app.command(name="list", help="List the songs: name, language, tempo, caption.\n\nacestep examples list")
def list_songs(as_json: Json = False) -> None:
    from acestep_cli.song import spec

    print_result(listing({name: spec.load(file) for name, file in examples.example_files().items()}, as_json))


@app.command(help="Print a song as it is written.\n\nacestep examples show night-drive > mine.yaml")
def show(name: Name) -> None:
    print_result(examples.find_example(name).read_text(encoding="utf-8"))


@app.command(help='Find songs by words in their caption, lyrics or title.\n\nacestep examples search waltz "F# minor"')
def search(words: Words, as_json: Json = False) -> None:
    from acestep_cli.song import spec

    found = {name: song for name, file in examples.example_files().items() if has(file, song := spec.load(file), words)}
    if not found:
        raise UsageError(f"No song has {' and '.join(map(repr, words))} in it.", "acestep examples list")
    print_result(listing(found, as_json))


def has(file: Path, song: Request, words: list[str]) -> bool:
    """Return True if all words are in the song or in the spec that it extends; case and accents do not matter."""
    from acestep_cli.song import spec

    text = folded(
        file.read_text(encoding="utf-8") + spec.dump_spec(song) + languages.LANGUAGES[song.language or "unknown"]
    )
    return all(folded(word) in text for word in words)


def folded(text: str) -> str:
    """Return `text` in lower case without accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in apart if not unicodedata.combining(sign))


def listing(songs: dict[str, Request], as_json: bool) -> str:
    """Return a line for each song, or a JSON list."""
    if as_json:
        content = [{"name": name, **song.model_dump(exclude_none=True)} for name, song in songs.items()]
        return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    rows = [(name, language(song), f"{song.bpm or '–'} bpm", quoted(song.caption or "", 60)[1:-1])
            for name, song in songs.items()]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "".join("  ".join([*map(str.ljust, row, widths), row[3]]) + "\n" for row in rows)


def language(song: Request) -> str:
    return "instrumental" if song.instrumental else languages.LANGUAGES[song.language or "unknown"]
