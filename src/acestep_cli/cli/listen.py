"""`acestep listen`: one HTML file to audition the takes in a folder, with no server and no network."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
import webbrowser
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from acestep_cli import __version__, disk
from acestep_cli.audio import decode, encode, lrc, plots
from acestep_cli.audio.regular_file import unreadable_error
from acestep_cli.audio.sound import Audio
from acestep_cli.cli import console, help_format, options
from acestep_cli.cli.console import Console
from acestep_cli.errors import ExistsError, SourceError, UsageError, shell_word
from acestep_cli.models import checkpoint_table, latents_file
from acestep_cli.render.sidecar import SidecarRecord
from acestep_cli.render.take_file import TakeFile
from acestep_cli.song import modes, spec, spec_layers
from acestep_cli.song.request import KEYS

app = help_format.App()

PAGE = "listen.html"
#: The file in which `--auto` notes kept takes, a name a line; a page shows them as picked.
KEPT = "kept.txt"
#: The endings of two hidden files beside a growing page: its news, read every other second, and all takes, read when
#: there are new ones. Both are scripts, the only files that a page may read from a folder.
NEWS, ALL = ".news.js", ".takes.js"
#: The mark of a page that this program wrote.
OURS = b'<meta name="generator" content="acestep listen">'
DATA = re.compile(rb'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)
#: Columns of the outline, and the size of the spectrogram in pixels.
COLUMNS = 700
WIDTH, HEIGHT = 900, 96
#: The keys of an entry that the program alone reads.
STAMP = "stamp"
EMBEDDED = "opus"

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", readable=False, help="A folder with takes, or with any audio files.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE.html", readable=False, help=f"The page to write. Unset: FOLDER/{PAGE}."
    ),
]
Embed = Annotated[
    bool, typer.Option("--embed", metavar="", help="Put the sound into the page, as Opus: one file to send to anybody.")
]
Open = Annotated[bool, typer.Option("--open", metavar="", help="Open the page in the browser.")]
Force = Annotated[bool, typer.Option("--force", metavar="", help="Replace a file that is not such a page.")]


@app.command(
    help="Make a page to audition takes: switch between them at the same second, at the same loudness; pick, and take "
    "the commands to go on with.\n\nacestep listen takes/\n\nacestep listen takes/ --embed -o for-the-band.html"
)
def listen(
    ctx: typer.Context,
    folder: Folder,
    output: Output = None,
    embed: Embed = False,
    open_page: Open = False,
    force: Force = False,
    json_wanted: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    terminal, run_report = console.begin(ctx, quiet=quiet, wants_json=json_wanted)
    page = output or folder / PAGE
    if folder.is_file():
        raise SourceError(
            f"{folder} is a file, and the page is of all takes in a folder: acestep listen {shell_word(folder.parent)}"
        )
    playable(folder)  # which says whether there is a folder, before whether its page can be written
    refuse_other(page, force=force)
    with terminal.results() as stdout:
        takes = make_page(folder, page, terminal, embed=embed)
        run_report.more["listen"] = {"path": str(page), "takes": [take["file"] for take in takes]}
        terminal.say(f"{len(takes)} {'take' if len(takes) == 1 else 'takes'} to listen to")
        stdout.path(page)
    if open_page and not webbrowser.open(page.absolute().as_uri()):
        terminal.warn("No browser could be started; open the page in one yourself.")


def refuse_other(page: Path, *, force: bool) -> None:
    """Refuse, before any work, a page that cannot be written. A page of takes is always replaced."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {page}: a page is an .html file.")
    disk.require_folder(page.parent)
    if disk.is_taken(page) and not (page.is_file() and (force or OURS in page.read_bytes())):
        raise ExistsError(page, why=" and is not a page of takes")


def make_page(
    folder: Path, page: Path, terminal: Console, *, embed: bool = False, growing: bool = False
) -> list[dict[str, Any]]:
    """Write the page of the takes in `folder`, and return its entries.

    Entries of the present page are reused where their files have not changed. A `growing` page that is open in a
    browser adds new takes by itself. Raises `SourceError` where there is nothing to listen to.
    """
    files = require_playable(folder)
    known = earlier_entries(page)
    takes = []
    for file in files:
        stamp = stamp_of(file, page, embed=embed)
        try:
            takes.append(
                known.get(stamp) or {STAMP: stamp, **page_entry(TakeFile.read(file, terminal.warn), page, embed=embed)}
            )
        except SourceError as error:
            terminal.warn(f"{error.message} It is left out.")
    if not takes:
        raise SourceError(f"Nothing in {folder} can be read.")
    kept = kept_of(folder, page)
    if growing:
        publish(beside(page, ALL), f"arrived({as_json(takes)});\n")
        write_growing(page, [take["file"] for take in takes], kept)
    publish(page, page_html(folder, page, takes, kept, growing=growing))
    if not growing:
        for ending in (NEWS, ALL):
            beside(page, ending).unlink(missing_ok=True)
    return takes


def write_growing(page: Path, files: Sequence[str], kept: Sequence[str]) -> None:
    """Write a script beside a growing page with the names of all takes and of the kept ones."""
    publish(beside(page, NEWS), f"news({as_json({'files': files, 'kept': kept})});\n")


def beside(page: Path, ending: str) -> Path:
    return page.with_name(f".{page.name}{ending}")


def publish(file: Path, text: str) -> None:
    with disk.write_whole(file, replace=[file]) as [part]:
        disk.write_text(part, text)


def kept_of(folder: Path, page: Path) -> list[str]:
    """Return the takes that the user kept, as the page names them."""
    try:
        kept = folder / KEPT
        names = kept.read_text(encoding="utf-8", errors="surrogateescape").split("\n") if kept.is_file() else []
    except OSError:
        return []
    return [address(folder / name, page) for name in dict.fromkeys(filter(None, names))]


def require_playable(folder: Path) -> list[Path]:
    """Return the audio files in a folder, 2 before 10. Raises `SourceError` where there are none."""
    files = playable(folder)
    if not files:
        if gone := disk.read_error(folder, FileNotFoundError()):
            raise gone
        raise SourceError(f"{folder} holds no audio files ({', '.join(encode.FORMATS)}).")
    return files


def expand_takes(files: Sequence[Path]) -> list[Path]:
    """Return the audio files among those given: a folder stands for its own. What lies beside takes that are given too,
    as with `takes/*`, is left out: sidecars, timed lyrics, latents, the page.
    """
    beside = {f(file) for file in files for f in (spec_layers.sidecar_path, lrc.lrc_path, latents_file.latents_path)}
    found = [file for file in files if file not in beside and (file.name != PAGE or len(files) == 1)]
    return [one for file in found for one in (require_playable(file) if disk.is_folder(file) else [file])]


def playable(folder: Path) -> list[Path]:
    """Return the audio files in a folder, 2 before 10."""
    try:
        there = [file for file in folder.iterdir() if file.suffix[1:].lower() in encode.FORMATS]
    except OSError as error:
        raise unreadable_error(folder, error) from error
    return sorted((file for file in there if not file.name.startswith(".")), key=by_number)


def by_number(file: Path) -> list[tuple[bool, int, str]]:
    """Return a sort key of a name: its text and numbers in turn."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", file.name)]


def stamp_of(file: Path, page: Path, *, embed: bool) -> str:
    """Return a stamp of an entry, which changes when the entry may change."""
    beside = (file, spec_layers.sidecar_path(file), lrc.lrc_path(file))
    states = [f"{state.st_mtime_ns}:{state.st_size}" if (state := stat(one)) else "" for one in beside]
    return " ".join([__version__, address(file, page), *states, EMBEDDED * embed])


def stat(file: Path) -> Any:
    try:
        return file.stat()
    except OSError:
        return None


def earlier_entries(page: Path) -> Mapping[str, dict[str, Any]]:
    """Return the entries of the present page by their stamps."""
    try:
        found = DATA.search(page.read_bytes())
        takes = json.loads(found[1])["takes"] if found else []
        return {take[STAMP]: take for take in takes if isinstance(take["file"], str)}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}


def address(file: Path, page: Path) -> str:
    """Return the path of a file relative to the page, so that both can move together; absolute on another drive."""
    where = file.parent.resolve() / file.name
    try:
        return Path(os.path.relpath(where, page.parent.resolve())).as_posix()
    except ValueError:
        return where.as_posix()


def page_entry(take: TakeFile, page: Path, *, embed: bool) -> dict[str, Any]:
    """Return the entry of a take on the page."""
    request, name = take.request, address(take.path, page)
    low, high = (100 * plots.outline(take.sound, COLUMNS)).round().astype(int).tolist()
    beside = spec_layers.sidecar_path(take.path)
    figures = take.facts()
    asked = dict(figures)
    facts = [
        f"{label}{asked[key]}" for key, label in (("seed", "seed "), ("model", ""), ("length", "")) if key in asked
    ]
    lufs = take.measures.lufs
    return {
        "file": name,
        "src": opus_address(take.sound) if embed and not take.measures.is_silent else quote(os.fsencode(name)),
        "stem": str(Path(name).with_suffix("")),
        "format": take.path.suffix[1:].lower(),
        "title": take.path.name,
        "group": swept_values(take),
        "facts": facts if lufs is None else [*facts, f"{lufs:.1f} LUFS"],
        "figures": [figure for figure in figures if figure[0] != "caption"],
        "seconds": take.sound.seconds,
        "lufs": lufs,
        "outline": [low, high],
        "spectrogram": as_address("image/png", plots.spectrogram(take.sound, WIDTH, HEIGHT)),
        "sections": [vars(section) for section in take.sections],
        "lyrics": request.lyrics,
        "spec": spec.dump_spec(request) if take.made else None,
        "caption": request.caption,
        "again": address(beside, page) if take.made and beside.is_file() else None,
        "steps": more_steps(take),
        "varies": varying_mode(take),
    }


def swept_values(take: TakeFile) -> str | None:
    """Return the values of `--matrix` that a take was made with; None without any."""
    if take.made is None or not isinstance(take.made.origin, SidecarRecord):
        return None
    values = {key: getattr(take.request, key) for key in take.made.origin.swept if key in KEYS}
    return " · ".join(f"{key.replace('_', ' ')} {spec.inline_value(value)}" for key, value in values.items()) or None


def varying_mode(take: TakeFile) -> str | None:
    """Return the mode whose command makes neighbours of a take; None for a variation, and for what has no noise."""
    mode = modes.mode_of(take.request)
    if take.made is None or take.request.seed is None or take.request.variation is not None or mode.describes_source:
        return None
    return take.request.mode or "generate"


def more_steps(take: TakeFile) -> int | None:
    """Return twice the steps, up to the most that the checkpoint takes; None where that is no more."""
    row, steps = checkpoint_table.CHECKPOINTS.get(take.request.model or ""), take.request.steps
    if row is None or steps is None or steps >= row.most_steps:
        return None
    return min(2 * steps, row.most_steps)


def opus_address(sound: Audio) -> str:
    """Return the sound as a data URL of an Opus file."""
    encoding = encode.resolve_encoding(EMBEDDED, sample_rate=decode.READ_RATE)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"take.{EMBEDDED}"
        encode.write_audio(file, sound, encode.Finish(encoding))
        return as_address("audio/ogg", file.read_bytes())


def as_address(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def page_html(
    folder: Path, page: Path, takes: Sequence[dict[str, Any]], kept: Sequence[str], *, growing: bool = False
) -> str:
    """Return the page. All data is JSON and set as text by its script, so that no name or lyric can be markup."""
    endings = {"news": NEWS, "all": ALL}
    scripts = {name: quote(os.fsencode(beside(page, ending).name)) for name, ending in endings.items()}
    data = {"folder": folder.absolute().name, "takes": takes, "kept": kept, "scripts": scripts if growing else None}
    made = template("page.html").replace("{scripts}", " 'self' file:" if growing else "")
    made = made.replace("/*{style}*/", template("page.css")).replace("/*{script}*/", template("page.js"))
    return made.replace("{data}", as_json(data))


def as_json(data: Any) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(data).replace("<", "\\u003c")


def template(name: str) -> str:
    return (resources.files("acestep_cli.cli") / "page" / name).read_text(encoding="utf-8")
