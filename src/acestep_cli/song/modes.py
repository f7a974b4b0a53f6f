"""The modes of the program, a row each.

A mode states only its differences: which source latents, which region, which instruction, which splice. Instruction
sentences live here and nowhere else. Source: docs/specification.md, 4.3 Instructions and 8 Modes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from acestep_cli.song import prompts
from acestep_cli.song.key import SONGWRITER_OPTIONS
from acestep_cli.song.musical_values import REPAINT_MODES, TRACKS
from acestep_cli.song.regions import Region, Spans
from acestep_cli.song.request import GROUPS, Request

if TYPE_CHECKING:
    from torch import Tensor

FILL_MASK = "Fill the audio semantic mask based on the given conditions:"
FOLLOW_CODES = "Generate audio semantic tokens based on the given conditions:"
REPAINT = "Repaint the mask area based on the given conditions:"
LEGO = "Generate the {} track based on the audio context:"
EXTRACT = "Extract the {} track from the audio:"
COMPLETE = "Complete the input track{}:"

DEFAULT_REPAINT_MODE, DEFAULT_REPAINT_STRENGTH = "balanced", 0.5

#: The crossfades of latents and of sound around a repainted region in `conservative` mode, in seconds.
LONGEST_BLEND, LONGEST_FADE = 1.0, 0.05
#: The crossfade of a new track at the ends of its region, in seconds.
STEM_FADE = 0.01

#: Keys about the Songwriter.
SONGWRITER_KEYS = ("idea", "songwriter", "songwriter_seed", *GROUPS[SONGWRITER_OPTIONS])
#: The one of them that every mode takes; `none` is always allowed.
WITHOUT_SONGWRITER = "songwriter"
#: Those of modes in which it fills open text and metadata: it is given a song, not an idea, and draws no codes.
FILLING_KEYS = tuple(key for key in SONGWRITER_KEYS if key not in ("idea", "cfg_scale", "negative_prompt"))
#: Keys about lyrics, for modes that render a whole song.
WORD_KEYS = ("lrc",)
#: Keys of a song that its tracks share, and all those of one that stays the same song where it is worked on.
METER = ("bpm", "key", "time_signature")
SAME_SONG = ("caption", "lyrics", "instrumental", "language", *METER)
#: Keys about the noise that a take starts from, and the takes that it is made with; an edit has neither.
NOISE_KEYS = ("variation", "variation_seed", "together")
#: Keys about the source of an edit as it is, and about the steps that change it.
SOURCE_DESCRIPTION = ("from_caption", "from_lyrics")
EDIT_WINDOW = ("edit_start", "edit_end", "edit_average")


R = TypeVar("R", bound=Request)


class LatentSources(Protocol):
    """The latents that a mode may start from, each [1, T, C]."""

    def silence(self) -> Tensor:
        """Return silence of the song's length."""
        ...

    def from_codes(self, codes: tuple[int, ...]) -> Tensor:
        """Return the latents of audio codes, followed by silence."""
        ...

    def original(self) -> Tensor:
        """Return the latents of the source."""
        ...

    def through_codes(self) -> Tensor:
        """Return the source encoded to audio codes and back, which keeps its outline and not its detail."""
        ...

    def with_silent_regions(self) -> Tensor:
        """Return the source with silence in the regions."""
        ...


@dataclass(frozen=True)
class Splice:
    """The treatment of the song outside of its regions.

    Args:
        onto: What the result has there: `source` or `silence`.
        held: For this share of the steps, the latents there are set to those of the source.
        blend: Crossfade of the final latents around each region, in seconds.
        fade: Crossfade of the sound around each region, in seconds.
    """

    onto: str
    held: float = 0.0
    blend: float = 0.0
    fade: float = 0.0


@dataclass(frozen=True)
class EditWindow:
    """The steps of a flow edit, as shares of all, and the draws of noise that each of them averages.

    Before `start` nothing happens; up to `end` the source is carried from its own description to the target's; then
    the target is followed alone. Source: docs/specification.md, 8.9 Edit.
    """

    start: float = 0.0
    end: float = 1.0
    average: int = 1

    def steps(self, steps: int) -> tuple[int, int]:
        """Return the first step of the window, and the first one after it."""
        return int(steps * self.start), int(steps * self.end)

    def evaluations(self, steps: int) -> int:
        """Return how often the model is asked for a velocity in so many steps."""
        first, last = self.steps(steps)
        return (last - first) * 2 * self.average + steps - last


@dataclass(frozen=True)
class Prepared:
    """The inputs that a mode gives to the diffusion.

    Args:
        instruction: The instruction in the text prompt.
        source: Returns the source latents [1, T, C]. Called once the networks that it needs are in memory.
        regions: The parts to render, on the song's clock. None renders everything.
        splice: The treatment of the song outside of its regions.
        second_phase: After the share `second_phase[0]` of the steps, the diffusion goes on with `second_phase[1]`.
        source_share: Share of the source in the latents that the diffusion starts from; 0 is pure noise.
        whole_frames: Cut the result to whole latent frames. Otherwise it has as many samples as the source.
        edit: The steps in which the source is carried from its own description to that of the request. None begins
            from noise.
    """

    instruction: str
    source: Callable[[LatentSources], Tensor]
    regions: Spans | None = None
    splice: Splice | None = None
    second_phase: tuple[float, Prepared] | None = None
    source_share: float = 0.0
    whole_frames: bool = False
    edit: EditWindow | None = None


def no_defaults(_request: Request) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Mode:
    """One mode: its summary, the function that prepares it, and the keys it takes."""

    summary: str
    #: Returns its inputs to the diffusion, given a completed request and the region of its source.
    prepare: Callable[[Request, Region | None], Prepared]
    #: Command lines for its `--help`.
    examples: tuple[str, ...] = ()
    #: The keys it takes, apart from those that every mode takes.
    keys: tuple[str, ...] = ("duration", "codes", *SONGWRITER_KEYS, *WORD_KEYS, *NOISE_KEYS)
    #: Names in `NEEDS` of the keys that have to be given.
    needs: tuple[str, ...] = ("caption",)
    #: Returns its own default values.
    defaults: Callable[[Request], Mapping[str, Any]] = no_defaults
    #: The task that a checkpoint must have been trained for, as in `CheckpointRow.tasks`.
    task: str = "generate"
    most_tracks: int = 0
    #: The result is part of the source or is played with it, so the level stays unless `loudness` is asked for.
    keeps_level: bool = False
    #: Keys of the take in its source that hold for what it makes, too, unless it has its own.
    shares: tuple[str, ...] = ()
    #: `take`, or `stem`: each track is rendered by itself.
    makes: str = "take"
    #: Returns the kind of the file beside its stems, a key of `BESIDE`, or None.
    beside: Callable[[Request], str | None] = lambda _request: None

    @property
    def has_source(self) -> bool:
        return "source" in self.keys

    @property
    def follows_codes(self) -> bool:
        """True where the song is rendered from audio codes, which a Songwriter may draw."""
        return "codes" in self.keys

    @property
    def describes_source(self) -> bool:
        """True for flow edit, which knows its source by a description."""
        return "from_caption" in self.keys

    @property
    def has_songwriter(self) -> bool:
        """True where a Songwriter may decide open keys. Otherwise `songwriter` is none."""
        return "songwriter_seed" in self.keys


def generate(request: Request, _region: Region | None) -> Prepared:
    """Prepare text to music: everything is rendered, from silence or from given codes."""
    codes = request.codes
    if codes is None:
        return Prepared(FILL_MASK, lambda context: context.silence())
    return Prepared(FOLLOW_CODES, lambda context: context.from_codes(codes))


def cover(request: Request, _region: Region | None) -> Prepared:
    """Prepare a cover: the source's outline in another style. After `strength` of the steps it is text to music."""
    plain = Prepared(FILL_MASK, lambda context: context.silence())
    return Prepared(
        FOLLOW_CODES,
        lambda context: context.original() if request.close else context.through_codes(),
        second_phase=(request.strength, plain) if request.strength is not None and request.strength < 1 else None,
        source_share=request.noise_strength or 0.0,
        whole_frames=True,  # so that at 0 it is text to music, sample for sample
    )


def repaint(request: Request, region: Region | None) -> Prepared:
    """Prepare a repaint: a region of the source is rendered anew, or added at its ends.

    The rest is the source, sample for sample.
    """
    assert request.repaint_mode is not None
    held = REPAINT_MODES[request.repaint_mode]
    if held is None:
        assert request.repaint_strength is not None
        held = 1 - request.repaint_strength
    return Prepared(
        REPAINT,
        lambda context: context.with_silent_regions(),
        regions=region.repainted if region is not None else None,
        splice=Splice("source", held, held * LONGEST_BLEND, held * LONGEST_FADE),
    )


def lego(request: Request, region: Region | None) -> Prepared:
    """Prepare one new track that fits the source. With a region, the track is silent outside of it."""
    part = request.start is not None or request.end is not None
    return Prepared(
        LEGO.format(track_names(request)),
        lambda context: context.original(),
        regions=region.whole if region is not None and part else None,
        splice=Splice("silence", fade=STEM_FADE) if part else None,
    )


def extract(request: Request, _region: Region | None) -> Prepared:
    """Prepare one track of the source by itself."""
    return Prepared(EXTRACT.format(track_names(request)), lambda context: context.original())


def complete_tracks(request: Request, _region: Region | None) -> Prepared:
    """Prepare the source with further tracks."""
    tracks = f" with {track_names(request)}" if request.track else ""
    return Prepared(COMPLETE.format(tracks), lambda context: context.original())


def edit(request: Request, _region: Region | None) -> Prepared:
    """Prepare an edit: the source under other words, with its melody and timing."""
    assert request.edit_start is not None
    assert request.edit_end is not None
    assert request.edit_average is not None
    window = EditWindow(request.edit_start, request.edit_end, request.edit_average)
    return Prepared(FILL_MASK, lambda context: context.silence(), edit=window)


def edit_defaults(request: Request) -> Mapping[str, Any]:
    """Return the default values of an edit: what one of both descriptions leaves open is as in the other."""
    return {
        "caption": request.from_caption,
        "lyrics": None if request.instrumental else request.from_lyrics,
        "from_caption": request.caption,
        "from_lyrics": prompts.INSTRUMENTAL if request.instrumental else request.lyrics,
        **{f"edit_{name}": value for name, value in asdict(EditWindow()).items()},
    }


def source_description(request: R) -> R:
    """Return the request of an edit with the caption and the lyrics of its source."""
    return request.model_copy(update={"caption": request.from_caption, "lyrics": request.from_lyrics})


def track_names(request: Request) -> str:
    """Return the tracks as the instructions name them: `VOCALS | BACKING_VOCALS`."""
    return " | ".join(request.track or ()).upper()


#: The needs of modes by name: the keys of which one has to be given, and the message where none is.
NEEDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "caption": (
        ("caption", "lyrics", "codes", "idea"),
        "there is nothing to make music from; give a caption (-c), lyrics (--lyrics) or an idea (--idea).",
    ),
    "words": (
        ("caption", "lyrics"),
        "there is nothing to make music from; give a caption (-c) or lyrics (--lyrics).",
    ),
    "change": (
        ("caption", "lyrics", "instrumental"),
        "there is nothing to change; give the new caption (-c), the new lyrics (--lyrics), or --instrumental.",
    ),
    "source": (("source",), "there is no recording to work on; name one: acestep {mode} SOURCE."),
    "start": (
        ("start", "end"),
        "neither start nor end is given, so no region is named; --start 0 --end 10 takes the first ten seconds.",
    ),
    "track": (("track",), f"no track is named; there are {', '.join(TRACKS)}, and all of them."),
}

#: The files beside stems: the sum of the source and the stems times this factor.
BESIDE: Mapping[str, int] = {"mix": 1, "residual": -1}

MODES: dict[str, Mode] = {
    "generate": Mode(
        "Make a song from a caption and lyrics.",
        generate,
        (
            "acestep generate songs/night-drive.yaml -o night-drive.flac",
            'acestep generate -c "warm lo-fi hip hop, rhodes" --instrumental --bpm 84 -d 30 -n 4 -o takes/',
            "acestep generate songs/*.yaml -o out/ --format mp3 --json",
            'acestep generate --idea "rainy-day bossa nova about a lost umbrella" -o umbrella.flac',
            "cat song.yaml | acestep generate - -o - > song.wav",
            "acestep generate song.yaml --reference jazz.mp3",
        ),
    ),
    "cover": Mode(
        "Play a recording again in another style.",
        cover,
        (
            'acestep cover country.mp3 -c "heavy metal, distorted guitars, screaming vocals" --strength 40% -o metal/',
            'acestep cover demo.wav -c "polished indie rock" --close',
        ),
        keys=("source", "strength", "noise_strength", "close", *FILLING_KEYS, *WORD_KEYS, *NOISE_KEYS),
        needs=("source", "words"),
        defaults=lambda _request: {"strength": 1.0},
        task="cover",
        shares=SAME_SONG,
    ),
    "repaint": Mode(
        "Make a part of a recording anew, or extend it.",
        repaint,
        (
            'acestep repaint take.flac --start 0 --end 10 -c "orchestral build-up" -o new.flac',
            'acestep repaint take.flac --start -8 --end 0 -c "slow piano intro"',
        ),
        keys=("source", "start", "end", "context", "repaint_mode", "repaint_strength", *FILLING_KEYS, *NOISE_KEYS),
        needs=("source", "start", "words"),
        defaults=lambda request: {
            "repaint_mode": DEFAULT_REPAINT_MODE,
            "repaint_strength": (
                DEFAULT_REPAINT_STRENGTH if request.repaint_mode in (None, DEFAULT_REPAINT_MODE) else None
            ),
        },
        task="repaint",
        shares=SAME_SONG,
        keeps_level=True,
    ),
    "lego": Mode(
        "Add one track to a recording, as a stem.",
        lego,
        ('acestep lego drums.wav --track bass -c "round fingered bass" --mix',),
        keys=("source", "track", "start", "end", "mix", *FILLING_KEYS, *NOISE_KEYS),
        needs=("source", "track"),
        task="lego",
        shares=METER,
        most_tracks=1,
        keeps_level=True,
        makes="stem",
        beside=lambda request: "mix" if request.mix else None,
    ),
    "extract": Mode(
        "Take tracks out of a recording, and what is left.",
        extract,
        (
            "acestep extract song.flac --track vocals --track drums -o stems/",
            "acestep extract song.flac --all -o stems/",
        ),
        keys=("source", "track", WITHOUT_SONGWRITER, *NOISE_KEYS),
        needs=("source", "track"),
        task="extract",
        most_tracks=len(TRACKS),
        keeps_level=True,
        makes="stem",
        beside=lambda _request: "residual",
    ),
    "complete": Mode(
        "Accompany a recording with the tracks it lacks.",
        complete_tracks,
        ("acestep complete vocals.wav --track drums --track bass --track guitar",),
        keys=("source", "track", *FILLING_KEYS, *WORD_KEYS, *NOISE_KEYS),
        needs=("source",),
        task="complete",
        shares=METER,
        most_tracks=len(TRACKS),
    ),
    "edit": Mode(
        "Change a recording's words or style, and keep its melody.",
        edit,
        (
            "acestep edit take.flac --lyrics-file new-words.txt",
            'acestep edit demo.mp3 -c "acoustic folk, banjo" --from-caption "synthwave, retro drums" -o folk.flac',
        ),
        keys=("source", *SOURCE_DESCRIPTION, *EDIT_WINDOW, WITHOUT_SONGWRITER, *WORD_KEYS),
        needs=("source", "change"),
        shares=("language", *METER),
        defaults=edit_defaults,
    ),
}


def mode_of(request: Request) -> Mode:
    return MODES[request.mode or "generate"]


def may_ask_songwriter(request: Request) -> bool:
    """Return True where a Songwriter may decide what a request leaves open: where the mode follows codes, any that is
    installed; in other modes that have one, only one that is named.
    """
    mode = mode_of(request)
    if request.songwriter in (None, "auto"):
        return mode.follows_codes
    return mode.has_songwriter and request.songwriter != "none"


def with_defaults(request: Request) -> Request:
    """Return a request with the default values of its mode for what it leaves out."""
    found = mode_of(request).defaults(request)
    return request.model_copy(update={key: value for key, value in found.items() if getattr(request, key) is None})


def keys_of_other_modes(mode: str) -> frozenset[str]:
    """Return the keys that other modes take and this one does not."""
    return frozenset(key for other in MODES.values() for key in other.keys) - set(MODES[mode].keys)


def misplaced_key(key: str, mode: str) -> str:
    """Return the message for a key that `mode` does not take."""
    if key == "duration" and MODES[mode].has_source:
        return "is decided by the source; leave it out."
    able = [other for other, row in MODES.items() if key in row.keys]
    return f"has no meaning for {mode}; it is for {', '.join(able)}."
