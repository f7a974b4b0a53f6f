"""The arguments and flags of a rendering command, and the songs that they ask for."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acestep_cli import disk
from acestep_cli.errors import AceStepError, UsageError
from acestep_cli.render import argument_kinds, matrix, outputs, paths, smoke
from acestep_cli.render.argument_kinds import GENERATE
from acestep_cli.render.job import AGAIN, SongInput
from acestep_cli.render.paths import Destination
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import modes, seeds, spec, spec_layers, spec_text
from acestep_cli.song.request import Request
from acestep_cli.song.values import quoted

#: The origin of a caption that stands in the place of a spec.
CAPTION = "TEXT"


def caption_layers(mode: str | None, specs: Sequence[str], flags: spec_layers.Layer) -> list[spec_layers.Layer]:
    """Return the caption that stands in the place of a spec as a layer; nothing where there is none.

    Raises `UsageError` where the caption is given by a flag as well, or other arguments beside it.
    """
    texts = [name for name in specs if argument_kinds.is_caption(name)] if mode == GENERATE else []
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
    unquoted = argument_kinds.unquoted_caption(mode, specs)
    by_flags_alone, specs = not specs, [] if unquoted else specs
    place, errors = find_destination(specs, settings)
    if unquoted:
        errors.append(unquoted)
    if stray := stray_words(mode, specs):
        errors.append(
            UsageError(
                f"{quoted(stray[0])} is no file.",
                f"A caption is given by -c, times by flags: acestep {mode} --help. Quote what holds a space.",
            )
        )
        specs = [name for name in specs if name not in stray]
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
        specs = [name for name in specs if not argument_kinds.is_caption(name)]
    # A spec that is given twice is refused above, and stdin where it is read again.
    once = [name for at, name in enumerate(specs) if name and (name == spec_text.STDIN or name not in specs[:at])]
    names: list[str | None] = [*once] or [None] * by_flags_alone
    return Arguments(mode, names, [*implied, flags], place, swept, errors, is_place_sound)


def stray_words(mode: str | None, specs: Sequence[str]) -> list[str]:
    """Return the arguments behind a recording that name no file, as a caption or a time would stand there."""
    behind = [name for name in specs[1:] if is_recording(mode, name) and not Path(name).suffix]
    return [name for name in behind if name and not disk.is_taken(Path(name))]


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
        argument_kinds.refuse_other(asked.mode, name)
    elif asked.mode is not None and name is not None:
        argument_kinds.refuse_text(asked.mode, name)
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
