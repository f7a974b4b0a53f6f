"""What the program can make: a row per mode.

A mode states only its differences: which source latents, which region, which instruction, which splice. Instruction
sentences live here and nowhere else. Source: `dit.md` 3, 4.5 and 5.4 to 5.6 of the specification, and the rulings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from acestep_cli.song import regions
from acestep_cli.song.regions import Regions
from acestep_cli.song.request import GROUPS, SONGWRITER_OPTIONS, Request
from acestep_cli.song.values import REPAINT_MODES, TRACKS

if TYPE_CHECKING:
    from torch import Tensor

FILL_MASK = "Fill the audio semantic mask based on the given conditions:"
FOLLOW_CODES = "Generate audio semantic tokens based on the given conditions:"
REPAINT = "Repaint the mask area based on the given conditions:"
LEGO = "Generate the {} track based on the audio context:"
EXTRACT = "Extract the {} track from the audio:"
COMPLETE = "Complete the input track{}:"

DEFAULT_REPAINT_STRENGTH = 0.5

#: The latent and the audible crossfade around what is repainted while all is held on to, in seconds.
LONGEST_BLEND, LONGEST_FADE = 1.0, 0.05
#: The crossfade of a new track at the ends of its region, in seconds.
STEM_FADE = 0.01

#: What is asked of the Songwriter.
SONGWRITER_KEYS = ("idea", "songwriter", "songwriter_seed", *GROUPS[SONGWRITER_OPTIONS])
#: Of these, the one that every mode takes, be it to say that there is none.
WITHOUT_SONGWRITER = "songwriter"
#: What is asked about the words of a song that is made as a whole.
WORD_KEYS = ("lrc",)


class LatentSources(Protocol):
    """What a mode may ask for while it prepares; every latent is [1, frames, C]."""

    def silence(self) -> Tensor:
        """Silence of the song's length."""
        ...

    def from_codes(self, codes: tuple[int, ...]) -> Tensor:
        """Latents that audio codes stand for, with silence after their end."""
        ...

    def original(self) -> Tensor:
        """The source."""
        ...

    def through_codes(self) -> Tensor:
        """The source by way of audio codes, which keep its outline and not its detail."""
        ...

    def erased(self) -> Tensor:
        """The source with silence in the regions."""
        ...


@dataclass(frozen=True)
class Splice:
    """What becomes of the song outside of its regions.

    `onto` lies there in the end: the source or silence. For the first `held` of the steps the latents there are those
    of the source; in the end the latents are blended over `blend` seconds around each region, and the sound over
    `fade`.
    """

    onto: str
    held: float = 0.0
    blend: float = 0.0
    fade: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """What one mode gives the diffusion.

    `source` makes the source latents [1, T, C] when the networks for it are in memory; before that, the instruction
    alone is read. `regions` are what is to be made of a source of so many seconds: everything, where it is None.
    After `then[0]` of the steps the diffusion goes over to `then[1]`. It starts from noise, or from as much of the
    source as `kept` says. What comes out is as long as the source to the sample, or with `whole_frames` as long as
    what is made of nothing: without the last part of a latent frame.
    """

    instruction: str
    source: Callable[[LatentSources], Tensor]
    regions: Callable[[float], Regions] | None = None
    splice: Splice | None = None
    then: tuple[float, Prepared] | None = None
    kept: float = 0.0
    whole_frames: bool = False


def no_defaults(_request: Request) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Mode:
    """One row: what it is for, how it prepares, and what it takes."""

    summary: str
    prepare: Callable[[Request], Prepared]
    #: Command lines for its `--help`.
    examples: tuple[str, ...] = ()
    #: The keys it takes, of those that not every mode does.
    keys: tuple[str, ...] = ("duration", "codes", *SONGWRITER_KEYS, *WORD_KEYS)
    #: What has to be given, by its names in `NEEDS`.
    needs: tuple[str, ...] = ("caption",)
    #: What it decides where nothing was asked.
    defaults: Callable[[Request], Mapping[str, Any]] = no_defaults
    #: The mode that a checkpoint must have been trained for, as its row says it.
    task: str = "generate"
    most_tracks: int = 0
    #: What it makes lies beside the source or in it: as loud as that, and no level is set unless asked for.
    keeps_level: bool = False
    #: `take`, or `stem`: each track is rendered by itself.
    makes: str = "take"
    #: What is written beside its stems: a kind of `BESIDE`, or nothing.
    beside: Callable[[Request], str | None] = lambda _request: None

    @property
    def has_source(self) -> bool:
        return "source" in self.keys

    @property
    def has_songwriter(self) -> bool:
        """Whether a Songwriter may decide what is left open. Where not, `songwriter` is none."""
        return "songwriter_seed" in self.keys


def generate(request: Request) -> Prepared:
    """Text to music: everything is to be made, out of silence or along given codes."""
    codes = request.codes
    if codes is None:
        return Prepared(FILL_MASK, lambda studio: studio.silence())
    return Prepared(FOLLOW_CODES, lambda studio: studio.from_codes(codes))


def cover(request: Request) -> Prepared:
    """The source's outline in another style: after `strength` of the steps, it is text to music."""
    strength = 1.0 if request.strength is None else request.strength
    plain = Prepared(FILL_MASK, lambda studio: studio.silence())
    return Prepared(
        FOLLOW_CODES,
        lambda studio: studio.original() if request.close else studio.through_codes(),
        then=(strength, plain) if strength < 1 else None,
        kept=request.noise_strength or 0.0,
        whole_frames=True,  # so that at 0 it is text to music, sample for sample
    )


def repaint(request: Request) -> Prepared:
    """A part of the source anew, or more at its ends; the rest is the source, sample for sample."""
    held = REPAINT_MODES[request.repaint_mode or "balanced"]
    if held is None:
        strength = request.repaint_strength
        held = 1 - (DEFAULT_REPAINT_STRENGTH if strength is None else strength)
    return Prepared(
        REPAINT,
        lambda studio: studio.erased(),
        regions=lambda seconds: regions.repaint_regions(request, seconds),
        splice=Splice("source", held, held * LONGEST_BLEND, held * LONGEST_FADE),
    )


def lego(request: Request) -> Prepared:
    """One new track that fits the source, throughout or in a region; outside of it the track is silent."""
    part = request.start is not None or request.end is not None
    return Prepared(
        LEGO.format(track_names(request)),
        lambda studio: studio.original(),
        regions=(lambda seconds: regions.whole_region(request, seconds)) if part else None,
        splice=Splice("silence", fade=STEM_FADE) if part else None,
    )


def extract(request: Request) -> Prepared:
    """One track of the source by itself."""
    return Prepared(EXTRACT.format(track_names(request)), lambda studio: studio.original())


def complete_tracks(request: Request) -> Prepared:
    """The source with further tracks."""
    tracks = f" with {track_names(request)}" if request.track else ""
    return Prepared(COMPLETE.format(tracks), lambda studio: studio.original())


def track_names(request: Request) -> str:
    """The tracks as the instructions name them: `VOCALS | BACKING_VOCALS`."""
    return " | ".join(request.track or ()).upper()


#: What a mode may need: the keys of which one has to be given, and what is said where none is.
NEEDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "caption": (
        ("caption", "lyrics", "codes", "idea"),
        "there is nothing to make music from; give a caption (-c), lyrics (--lyrics) or an idea (--idea).",
    ),
    "words": (
        ("caption", "lyrics"),
        "there is nothing to make music from; give a caption (-c) or lyrics (--lyrics).",
    ),
    "source": (("source",), "there is no recording to work on; name one: acestep {mode} SOURCE."),
    "start": (
        ("start", "end"),
        "neither start nor end says what is to be made anew; --start 0 --end 10 takes the first ten seconds.",
    ),
    "track": (("track",), f"no track is named; there are {', '.join(TRACKS)}, and all of them."),
}

#: What is written beside stems, and how: the source, and so many times the stems.
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
        keys=("source", "strength", "noise_strength", "close", WITHOUT_SONGWRITER, *WORD_KEYS),
        needs=("source", "words"),
        defaults=lambda _request: {"strength": 1.0},
        task="cover",
    ),
    "repaint": Mode(
        "Make a part of a recording anew, or extend it.",
        repaint,
        (
            'acestep repaint take.flac --start 0 --end 10 -c "dramatic orchestral build-up" -o fixed.flac',
            'acestep repaint take.flac --start -8 --end 0 -c "slow piano intro"',
        ),
        keys=("source", "start", "end", "repaint_mode", "repaint_strength", WITHOUT_SONGWRITER),
        needs=("source", "start", "words"),
        defaults=lambda request: {
            "repaint_mode": "balanced",
            "repaint_strength": DEFAULT_REPAINT_STRENGTH if request.repaint_mode in (None, "balanced") else None,
        },
        task="repaint",
        keeps_level=True,
    ),
    "lego": Mode(
        "Add one track to a recording, as a stem.",
        lego,
        ('acestep lego drums.wav --track bass -c "round fingered bass" --mix',),
        keys=("source", "track", "start", "end", "mix", WITHOUT_SONGWRITER),
        needs=("source", "track"),
        task="lego",
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
        keys=("source", "track", WITHOUT_SONGWRITER),
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
        keys=("source", "track", WITHOUT_SONGWRITER, *WORD_KEYS),
        needs=("source",),
        task="complete",
        most_tracks=len(TRACKS),
    ),
}


def mode_of(request: Request) -> Mode:
    return MODES[request.mode or "generate"]


def foreign_keys(mode: str) -> frozenset[str]:
    """The keys that other modes take and this one does not."""
    return frozenset(key for other in MODES.values() for key in other.keys) - set(MODES[mode].keys)


def misplaced_key(key: str, mode: str) -> str:
    """What is wrong with a key that `mode` does not take."""
    if key == "duration" and MODES[mode].has_source:
        return "is decided by the source; leave it out."
    able = [other for other, row in MODES.items() if key in row.keys]
    return f"has no meaning for {mode}; it is for {', '.join(able)}."
