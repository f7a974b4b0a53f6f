"""The arguments and flags of a rendering command, and the songs that they ask for.

An argument is a spec, or a caption, or a recording to work on; an album or a name of nothing is refused with a hint.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acestep_cli import disk
from acestep_cli.audio import encode
from acestep_cli.errors import AceStepError, OutputError, SourceError, UsageError, shell_word
from acestep_cli.render import matrix, outputs, paths, provenance, smoke
from acestep_cli.render.job import AGAIN, SongInput
from acestep_cli.render.paths import Destination
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import document, modes, seeds, spec, spec_layers, spec_text
from acestep_cli.song.request import Request
from acestep_cli.song.values import quoted

#: The mode that takes text in the place of a spec.
GENERATE = "generate"
#: The origin of a caption that stands in the place of a spec.
CAPTION = "TEXT"
SEPARATORS = tuple({"/", os.sep, os.altsep or os.sep})
#: Sections that an album has, and a song has not.
ALBUM_SECTIONS = ("album", "matrix")


def is_caption(name: str) -> bool:
    """Tell whether an argument is text to make music from: no file, with a space in it, without a path or a suffix."""
    if not any(character.isspace() for character in name.strip()) or any(sign in name for sign in SEPARATORS):
        return False
    return not has_suffix_of(name, spec_layers.SUFFIXES) and not is_audio_name(name) and not is_there(name)


def caption_layers(mode: str | None, specs: Sequence[str], flags: spec_layers.Layer) -> list[spec_layers.Layer]:
    """Return the caption that stands in the place of a spec as a layer; nothing where there is none.

    Raises `UsageError` where the caption is given by a flag as well, or other arguments beside it.
    """
    texts = [name for name in specs if is_caption(name)] if mode == GENERATE else []
    if not texts:
        return []
    shown = quoted(texts[0])
    if "caption" in flags.values:
        raise UsageError(
            f"{shown} is no file, so it is the caption, and {flags.values['caption'].where} gives another; leave one "
            "of them out."
        )
    if len(specs) > 1:
        raise UsageError(
            f"{shown} is no file, and as a caption it stands alone, not beside {len(specs) - 1} more.",
            "Quote all of a caption as one argument; -c gives one to specs.",
        )
    return [spec_layers.implied_layer({"caption": texts[0]}, CAPTION)]


def unquoted_caption(mode: str | None, specs: Sequence[str]) -> UsageError | None:
    """Return the error for several words none of which is a file: a caption that lacks its quotes, most likely."""
    suffixes = (*spec_layers.SUFFIXES, *(f".{format}" for format in encode.FORMATS))
    if (
        mode != GENERATE
        or len(specs) < 2
        or any(
            name in ("", spec_text.STDIN)
            or any(character.isspace() for character in name)
            or any(sign in name for sign in SEPARATORS)
            or has_suffix_of(name, suffixes)
            or is_there(name)
            for name in specs
        )
    ):
        return None
    return UsageError(
        f"None of {', '.join(specs)} is a file; a caption is one argument, in quotes.",
        f"acestep generate {shell_word(' '.join(specs))} makes music from these words.",
    )


def refuse_other(mode: str | None, name: str) -> None:
    """Raise `UsageError` where the argument `name` is a recording, an album or nothing, and say what takes it."""
    if name == spec_text.STDIN:
        return
    if is_caption(name):
        raise UsageError(f"{quoted(name)} is no file, and {mode or 'render'} takes specs.", caption_hint(name))
    if Path(name).is_dir():
        raise UsageError(f"{name} is a folder, and {mode or 'render'} takes specs.", folder_hint(mode, Path(name)))
    if is_audio_name(name):
        raise UsageError(f"{name} is a recording, and {mode or 'render'} takes specs.", recording_hint(name))
    if mode == GENERATE and not has_suffix_of(name, spec_layers.SUFFIXES) and not is_there(name):
        raise UsageError(
            f"{name}: there is no such file{disk.suggest_path(Path(name)) or '.'}",
            f"acestep generate -c {shell_word(name)} makes music from these words.",
        )
    if is_album(Path(name)):
        quoted_name = shell_word(name)
        raise UsageError(f"{name} is an album, not a song.", f"acestep album render {quoted_name} renders its tracks.")


def refuse_text(mode: str, name: str) -> None:
    """Raise `SourceError` where text stands in the place of the recording that `mode` works on."""
    if not is_caption(name):
        return
    raise SourceError(
        f"{quoted(name)} is no file, and {mode} works on a recording.",
        f"Name it first: acestep {mode} song.flac -c {shell_word(name)}. {caption_hint(name)}",
    )


def caption_hint(text: str) -> str:
    return f"acestep generate {shell_word(text)} makes music from these words."


def folder_hint(mode: str | None, folder: Path) -> str | None:
    """Return the command that renders the specs in a folder; None where it holds none."""
    try:
        found = {file.suffix for file in folder.iterdir() if file.suffix in spec_layers.SUFFIXES}
    except OSError:
        return None
    if not found:
        return None
    patterns = " ".join(f"{shell_word(folder)}/*{suffix}" for suffix in sorted(found))
    return f"acestep {mode or 'render'} {patterns} renders all in it."


def command_hint(name: str) -> str | None:
    """Return the command that takes text or the file `name`, which stands in the place of a command."""
    if is_caption(name):
        return caption_hint(name)
    if not is_there(name):
        return None
    shown = shell_word(name)
    if is_audio_name(name):
        return f"acestep show {shown} shows it; acestep --help lists what else takes a recording."
    if is_album(Path(name)):
        return f"acestep album render {shown} renders its tracks."
    return f"acestep render {shown} renders it." if has_suffix_of(name, spec_layers.SUFFIXES) else None


def recording_hint(name: str) -> str:
    """Return the commands that take the recording `name`: by its recipe, where it has one, or by its sound."""
    file, shown = Path(name), shell_word(name)
    beside = spec_layers.sidecar_path(file)
    if beside.is_file():
        again = f"acestep replay {shown} makes the take again and compares; " if file.is_file() else ""
        return f"{again}acestep render {shell_word(beside)} -o … renders by its sidecar, and flags change that."
    try:
        if file.is_file() and provenance.tags_provenance(file) is not None:
            return f"acestep replay {shown} makes the take again by its tags, and compares."
    except (AceStepError, OSError):  # a recording that cannot be read has no recipe
        pass
    return f"acestep cover {shown} -c … plays it in another style; acestep describe {shown} makes a spec of it."


def is_album(file: Path) -> bool:
    """Tell whether a file has the sections of an album."""
    if file.suffix.lower() not in (".yaml", ".yml"):
        return False
    try:
        found = document.parse_document(spec_text.read_text(str(file)), markdown=False)
    except ValueError:  # which the spec says where it is read
        return False
    return any(
        entry.name in (*ALBUM_SECTIONS, "tracks") and (entry.items is not None or entry.entries is not None)
        for entry in found.entries  # a song may have an album too: its title
    )


def is_audio_name(name: str) -> bool:
    """Tell whether a name has the suffix of a format."""
    return has_suffix_of(name, [f".{format}" for format in encode.FORMATS])


def has_suffix_of(name: str, suffixes: Sequence[str]) -> bool:
    return Path(name).suffix.lower() in suffixes


def is_there(name: str) -> bool:
    """Tell whether a name is that of a file; a name that no file can have is not."""
    try:
        return disk.is_taken(Path(name))
    except OutputError:
        return False


@dataclass(frozen=True)
class Arguments:
    """The arguments of a rendering command of `mode`, or of any mode where that is None, and their problems."""

    mode: str | None
    #: The specs and recordings, each a song; None stands for a song of flags alone.
    names: Sequence[str | None]
    #: The layers above each spec.
    flags: Sequence[spec_layers.Layer]
    place: Destination
    #: The layers of `--matrix` above all others, each for a song; one without values where there is none.
    swept: Sequence[spec_layers.Layer] = (spec_layers.Layer(Path()),)
    errors: Sequence[AceStepError] = ()
    #: False where `place` stands in for a refused one.
    is_place_sound: bool = True

    @property
    def songs(self) -> list[tuple[str | None, spec_layers.Layer]]:
        """Each name with each combination of `--matrix`."""
        return list(itertools.product(self.names, self.swept))


def read_arguments(mode: str | None, specs: list[str], song: Mapping[str, Any], settings: RenderSettings) -> Arguments:
    """Read the arguments `specs` and the flags `song` of a command, but no spec yet."""
    unquoted = unquoted_caption(mode, specs)
    by_flags_alone, specs = not specs, [] if unquoted else specs
    place, errors = find_destination(specs, settings)
    if unquoted:
        errors.append(unquoted)
    errors += name_problems(specs)
    flags = spec_layers.from_flags(song, tuple(settings.overrides or ()))
    errors += again_problems(flags, settings)
    swept, problems = matrix.read_matrix(settings.matrix or (), flags)
    errors += problems
    implied: list[spec_layers.Layer] = []
    try:
        implied = implied_format(place, flags, settings)
    except UsageError as error:
        errors.append(error)
    is_place_sound = not errors
    try:
        if caption := caption_layers(mode, specs, flags):
            implied, specs, by_flags_alone = [*caption, *implied], [], True
    except UsageError as error:
        errors.append(error)
        specs = [name for name in specs if not is_caption(name)]
    # A spec that is given twice is refused above, and stdin where it is read again.
    once = [name for at, name in enumerate(specs) if name and (name == spec_text.STDIN or name not in specs[:at])]
    names: list[str | None] = [*once] or [None] * by_flags_alone
    return Arguments(mode, names, [*implied, flags], place, swept, errors, is_place_sound)


def name_problems(specs: Sequence[str]) -> list[UsageError]:
    """Return an error for an empty name, and one for each file that is given more than once."""
    found = [UsageError("The name of a spec is empty.")] if "" in specs else []
    for twice, times in Counter(os.path.realpath(name) for name in specs if name not in ("", spec_text.STDIN)).items():
        if times > 1:
            first = next(name for name in specs if os.path.realpath(name) == twice)
            found.append(UsageError(f"{first} is given {times} times; --takes {times} makes {times} takes of it."))
    return found


def find_destination(specs: list[str], settings: RenderSettings) -> tuple[Destination, list[AceStepError]]:
    """Return the destination of `--output`, and its problems; where it is refused, the one without `--output`."""
    try:
        place = paths.parse_destination(settings.output)
    except UsageError as error:
        return paths.parse_destination(None), [error]
    if len(specs) > 1 and place.stem is not None:
        problem = UsageError(
            f"--output {settings.output} is one file, and there are {len(specs)} specs.",
            f"Name a folder: --output {Path(settings.output or '').parent / 'out'}/",
        )
        return place, [problem, *outputs.folder_problem(place.folder, place.made)]
    return place, []


def again_problems(flags: spec_layers.Layer, settings: RenderSettings) -> list[UsageError]:
    """Return an error for each flag that contradicts `--again`."""
    if not settings.again:
        return []
    reasons = []
    drawn = ["variation_seed", *(() if "variation" in flags.values else ("seed",))]
    reasons += [(flags.values[key].where, "it draws new seeds") for key in drawn if key in flags.values]
    if settings.force:
        reasons.append(("--force", "it replaces nothing"))
    if settings.output == paths.STDOUT:
        reasons.append(("--output -", "it makes files beside others"))
    return [UsageError(f"--again contradicts {flag}, because {why}; leave one of them out.") for flag, why in reasons]


def again_layer(request: Request) -> spec_layers.Layer:
    """Return the new seed of `--again`, as a layer above all others: of a variation of a given seed, the other one."""
    if request.variation is not None and request.seed is not None:
        new = {"variation_seed": str(seeds.draw_variation(request.seed, request.takes or 1))}
    else:
        new = {"seed": str(seeds.draw_seed())}
    return spec_layers.implied_layer(new, AGAIN)


def implied_format(place: Destination, flags: spec_layers.Layer, settings: RenderSettings) -> list[spec_layers.Layer]:
    """Return the format that `--output` implies, as a layer between specs and flags; nothing where it implies none."""
    format = "wav" if place.stdout else place.format
    if format is None:
        return []
    asked = flags.values.get("format")
    if asked is not None and not place.stdout and str(asked.raw).strip().casefold() != format:
        raise UsageError(f"{asked.where} {asked.raw} contradicts --output {settings.output}; leave one of them out.")
    return [spec_layers.implied_layer({"format": format}, "--output")]


def read_song(name: str | None, swept: spec_layers.Layer, asked: Arguments, settings: RenderSettings) -> SongInput:
    """Read one spec or source under the flags and `swept`, or these alone where `name` is None.

    Raises `UsageError` for a spec of another mode than the command's.
    """
    given = is_recording(asked.mode, name)
    if name is not None and not given:
        refuse_other(asked.mode, name)
    elif asked.mode is not None and name is not None:
        refuse_text(asked.mode, name)
    below = [*command_layers(asked.mode), *argument_layers(name, given)]
    smoke_layers = [smoke.smoke_layer([*below, *asked.flags])] if settings.smoke else []
    layers = [*below, *smoke_layers, *asked.flags, *([swept] if swept.values else [])]
    resolved = spec.resolve(*layers)
    if settings.again:
        layers.append(again_layer(resolved.request))
        resolved = spec.resolve(*layers)
    wanted = resolved.request.mode or GENERATE
    if asked.mode is not None and wanted != asked.mode:
        raise UsageError(
            f"{name or '--set'}: is a spec of the mode {wanted}, not {asked.mode}.",
            f"acestep {wanted} {name}" if name else None,
        )
    place = paths.destination_of_song(
        asked.place,
        of_spec=name is not None and not given,
        from_source=resolved.request.source is not None,
        again=settings.again,
    )
    if swept.values:  # which names it already
        place = replace(place, bare_first=True)
    file = Path(name) if name not in (None, spec_text.STDIN) and not given else None
    return SongInput(layers, resolved, place, file, swept)


def is_recording(mode: str | None, name: str | None) -> bool:
    """Tell whether an argument of the command of `mode` is a recording, not a spec."""
    if mode is None or name is None or not modes.MODES[mode].has_source:
        return False
    return name != spec_text.STDIN and Path(name).suffix.lower() not in spec_layers.SUFFIXES


def command_layers(mode: str | None) -> list[spec_layers.Layer]:
    """Return the mode of the command as the lowest layer."""
    return [] if mode is None else [spec_layers.implied_layer({"mode": mode}, f"acestep {mode}")]


def argument_layers(name: str | None, given: bool) -> list[spec_layers.Layer]:
    """Return the layers of an argument: those of a spec, or the source where it is a recording."""
    if name is None:
        return []
    return [spec_layers.implied_layer({"source": name}, "SOURCE")] if given else spec_layers.read_layers(Path(name))
