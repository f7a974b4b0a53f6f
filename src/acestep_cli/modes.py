"""What the program can make: a row per mode, and the rules that complete a request for it.

A mode states only its differences: which source latents, which region, which instruction, which splice. Instruction
sentences live here and nowhere else. Source: `dit.md` 3, 4.5 and 5.4 to 5.6 of the specification, and the rulings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import Field

from acestep_cli import audio, latents, regions
from acestep_cli.audio import Recording
from acestep_cli.checkpoints import CHECKPOINTS, Checkpoint, Row, Songwriter
from acestep_cli.errors import AdapterError, CheckpointError, SourceError, UsageError
from acestep_cli.kinds import CODES_PER_SECOND, LORA_MODES, PULSES, REPAINT_MODES, TRACKS
from acestep_cli.latents import Kept
from acestep_cli.regions import Regions
from acestep_cli.request import GROUPS, KEYS, SONGWRITER_OPTIONS, Request

if TYPE_CHECKING:
    from torch import Tensor

    from acestep_cli.adapters import Adapter

FILL_MASK = "Fill the audio semantic mask based on the given conditions:"
FOLLOW_CODES = "Generate audio semantic tokens based on the given conditions:"
REPAINT = "Repaint the mask area based on the given conditions:"
LEGO = "Generate the {} track based on the audio context:"
EXTRACT = "Extract the {} track from the audio:"
COMPLETE = "Complete the input track{}:"

SEEDS = 2**32
DEFAULT_SECONDS = 60.0
DEFAULT_LOUDNESS = "peak:-1"
DEFAULT_REPAINT_STRENGTH = 0.5
#: The origin of what no checkpoint, machine or user decides.
DEFAULT = "default"

# The length of a song nobody gave a length: a sung line fills two bars, a section without lines four, and
# four more bars go to its beginning and end. At 100 bpm, two verses and two choruses of four lines make 1:26.
BARS_PER_LINE = 2
BARS_PER_BARE_SECTION = 4
BARS_AROUND = 4
ESTIMATE_BPM = 100
ESTIMATE_RANGE = (30.0, 300.0)

#: The latent and the audible crossfade around what is repainted while all is held on to, in seconds.
LONGEST_BLEND, LONGEST_FADE = 1.0, 0.05
#: The crossfade of a new track at the ends of its region, in seconds.
STEM_FADE = 0.01
LONGEST_REFERENCE = 3600.0


#: What is asked of the Songwriter.
SONGWRITER_KEYS = ("idea", "songwriter", "songwriter_seed", *GROUPS[SONGWRITER_OPTIONS])
#: What is asked about the words of a song that is made as a whole.
WORD_KEYS = ("lrc",)


class Studio(Protocol):
    """What a mode may ask for while it prepares; every latent is [1, frames, C]."""

    def silence(self) -> Tensor:
        """Silence of the song's length."""
        ...

    def follow(self, codes: tuple[int, ...]) -> Tensor:
        """Latents that audio codes stand for, with silence after their end."""
        ...

    def original(self) -> Tensor:
        """The source."""
        ...

    def coded(self) -> Tensor:
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
    source: Callable[[Studio], Tensor]
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


def generate(request: Request) -> Prepared:
    """Text to music: everything is to be made, out of silence or along given codes."""
    codes = request.codes
    if codes is None:
        return Prepared(FILL_MASK, lambda studio: studio.silence())
    return Prepared(FOLLOW_CODES, lambda studio: studio.follow(codes))


def cover(request: Request) -> Prepared:
    """The source's outline in another style: after `strength` of the steps, it is text to music."""
    strength = 1.0 if request.strength is None else request.strength
    plain = Prepared(FILL_MASK, lambda studio: studio.silence())
    return Prepared(
        FOLLOW_CODES,
        lambda studio: studio.original() if request.close else studio.coded(),
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
        regions=lambda seconds: regions.repainted(request, seconds),
        splice=Splice("source", held, held * LONGEST_BLEND, held * LONGEST_FADE),
    )


def lego(request: Request) -> Prepared:
    """One new track that fits the source, throughout or in a region; outside of it the track is silent."""
    part = request.start is not None or request.end is not None
    return Prepared(
        LEGO.format(upper(request)),
        lambda studio: studio.original(),
        regions=(lambda seconds: regions.whole(request, seconds)) if part else None,
        splice=Splice("silence", fade=STEM_FADE) if part else None,
    )


def extract(request: Request) -> Prepared:
    """One track of the source by itself."""
    return Prepared(EXTRACT.format(upper(request)), lambda studio: studio.original())


def complete_tracks(request: Request) -> Prepared:
    """The source with further tracks."""
    tracks = f" with {upper(request)}" if request.track else ""
    return Prepared(COMPLETE.format(tracks), lambda studio: studio.original())


def upper(request: Request) -> str:
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
        keys=("source", "strength", "noise_strength", "close", *WORD_KEYS),
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
        keys=("source", "start", "end", "repaint_mode", "repaint_strength"),
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
        keys=("source", "track", "start", "end", "mix"),
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
        keys=("source", "track"),
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
        keys=("source", "track", *WORD_KEYS),
        needs=("source",),
        task="complete",
        most_tracks=len(TRACKS),
    ),
}


def mode_of(request: Request) -> Mode:
    return MODES[request.mode or "generate"]


def foreign(mode: str) -> frozenset[str]:
    """The keys that other modes take and this one does not."""
    return frozenset(key for other in MODES.values() for key in other.keys) - set(MODES[mode].keys)


def misplaced(key: str, mode: str) -> str:
    """What is wrong with a key that `mode` does not take."""
    if key == "duration" and MODES[mode].has_source:
        return "is decided by the source; leave it out."
    able = [other for other, row in MODES.items() if key in row.keys]
    return f"has no meaning for {mode}; it is for {', '.join(able)}."


@dataclass(frozen=True)
class Piece:
    """One file of a take: its kind (take, stem, mix, residual), its track, and the request that makes it."""

    kind: str
    track: str | None
    request: Completed


def parts(request: Request) -> list[tuple[str, str | None]]:
    """Kind and track of each file of one take: a stem for each track, and what is written beside them."""
    mode = mode_of(request)
    if mode.makes == "take":
        return [("take", None)]
    beside = mode.beside(request)
    return [*(("stem", track) for track in request.track or ()), *([(beside, None)] if beside else [])]


def pieces(request: Completed) -> list[Piece]:
    """The files of one take of `request`, each with the request that makes it."""
    return [
        Piece(kind, track, request if track is None else request.model_copy(update={"track": (track,)}))
        for kind, track in parts(request)
    ]


class Completed(Request):
    """A request with nothing left open but what the Songwriter is to decide; without that, it alone makes the takes
    again.
    """

    mode: str
    model: str
    duration: float
    solver: str
    guidance: float
    seed: int
    takes: int
    loudness: str
    format: str
    #: Keys that the Songwriter decides when the song is made; a duration among them is a guess until then.
    open: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    #: The latents beside the source, where they belong to it: it is not encoded then.
    kept: Annotated[Kept | None, Field(exclude=True)] = None
    #: The scores that its takes are given, as `scores` names them.
    scored: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    #: How long its references are together, in seconds.
    reference_seconds: Annotated[float, Field(exclude=True)] = 0.0

    @property
    def encodes_source(self) -> bool:
        return super().encodes_source and self.kept is None

    @property
    def seconds_heard(self) -> float:
        return self.reference_seconds


@dataclass(frozen=True)
class Decided:
    """A completed request, what decided each value that was left open, the recordings and adapters that it names, and
    what to warn of.
    """

    request: Completed
    origins: Mapping[str, str]
    heard: Mapping[str, Recording]
    adapters: Mapping[str, Adapter]
    warnings: tuple[str, ...] = ()

    @property
    def contents(self) -> dict[str, str]:
        """What each file that the request names holds, as a fingerprint."""
        sounds = {name: recording.sound for name, recording in self.heard.items()}
        return {**sounds, **{name: adapter.fingerprint for name, adapter in self.adapters.items()}}


def complete(request: Request, checkpoint: Checkpoint, songwriter: Songwriter | None = None) -> Completed:
    """Decide everything that was left open, exactly once: the result is what a sidecar records."""
    return decide(request, checkpoint, songwriter).request


def decide(request: Request, checkpoint: Checkpoint, songwriter: Songwriter | None = None) -> Decided:
    """`complete`, with the origin of each value it decided. What is left to a Songwriter stays open.

    Raises `SourceError` for a recording that cannot be worked on, `CheckpointError` for a checkpoint that was not
    trained for the mode, `AdapterError` for an adapter that does not fit it, and `UsageError` with all the
    contradictions between request, recordings and checkpoint.
    """
    import secrets

    row, name = checkpoint.row, checkpoint.name
    require_task(request, name, row)
    require_heads(request, checkpoint)
    heard = survey(request)
    adapters, warnings = survey_adapters(request, checkpoint)
    if problems := contradictions(request, name, row, checkpoint.code_count, heard):
        raise UsageError("\n".join(problems))
    asked = request.model_dump()
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def settle(key: str, value: Any, origin: str) -> None:
        """`value` for `key`, unless it was asked for."""
        if asked[key] is None and value is not None:
            found[key], origins[key] = value, origin

    def settled(key: str) -> Any:
        return found.get(key, asked[key])

    settle("mode", "generate", DEFAULT)
    if request.model in (None, "auto"):
        found["model"], origins["model"] = name, "auto: the first installed that fits"
    left = open_keys(request) if songwriter is not None else ()
    if "songwriter" in mode_of(request).keys and request.songwriter in (None, "auto"):
        helper = songwriter.name if songwriter is not None and left else "none"
        found["songwriter"], origins["songwriter"] = helper, "auto: the largest installed that fits, if it is needed"
    whole, why = length(request, heard)
    settle("duration", whole, f"{why}, until the Songwriter decides" if "duration" in left else why)
    mode = mode_of(request)
    for key, value in mode.defaults(request).items():
        settle(key, value, f"mode {request.mode}")
    if mode.keeps_level:
        settle("loudness", "none", f"mode {request.mode}")
    settle("solver", "euler", DEFAULT)
    settle("guidance", row.guidance, f"checkpoint {name}")
    settle("seed", secrets.randbelow(SEEDS), "drawn")
    settle("takes", 1, DEFAULT)
    if settled("loudness") is None:
        settle("loudness", DEFAULT_LOUDNESS, DEFAULT)
    if request.timesteps is None:
        settle("steps", row.steps, f"checkpoint {name}")
        settle("shift", row.shift, f"checkpoint {name}")
    if request.loras is not None:
        settle("lora_mode", LORA_MODES[0], DEFAULT)
    if settled("guidance") > 1:
        settle("guidance_method", "apg", DEFAULT)
        settle("cfg_interval", (0.0, 1.0), DEFAULT)
    if not request.instrumental and request.lyrics is not None and "language" not in left:
        settle("language", "unknown", DEFAULT)
    settle("format", audio.DEFAULT_FORMAT, DEFAULT)
    encoding = audio.encoding(settled("format"), request.bit_depth, request.bitrate, request.sample_rate)
    settle("bit_depth", encoding.bit_depth, DEFAULT)
    settle("bitrate", encoding.bitrate, DEFAULT)
    kept, more = keepsake(request, checkpoint, heard)
    listening = sum(heard[file].seconds for file in request.reference or ())
    done = Completed(**{**asked, **found}, open=left, kept=kept, reference_seconds=listening)
    return Decided(done, origins, heard, adapters, (*warnings, *more))


def require_task(request: Request, name: str, row: Row) -> None:
    """Raise `CheckpointError` where the checkpoint `name` was not trained for the mode of the request."""
    task = mode_of(request).task
    if task not in row.tasks:
        able = [other for other, one in CHECKPOINTS.items() if task in one.tasks]
        raise CheckpointError(
            f"{name} was not trained to {task}; {', '.join(able[:-1])} and {able[-1]} were.",
            f"`acestep models pull {able[0]}` fetches one of them; then --model {able[0]}.",
        )


def require_heads(request: Request, checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` where lyrics are to be timed and no head of the checkpoint is known to follow them."""
    if request.lrc and not checkpoint.alignment_heads:
        able = [other for other, one in CHECKPOINTS.items() if one.alignment_heads]
        raise CheckpointError(
            f"{checkpoint.name} has no alignment heads, by which lyrics are timed; {', '.join(able)} have.",
            f"Leave lrc out; or `acestep models pull {able[0]}` fetches one that has, then --model {able[0]}.",
        )


def survey(request: Request) -> dict[str, Recording]:
    """The recordings that a request names, by their paths. `SourceError`, beginning with the key, for one that does not
    suit.
    """
    sources = () if request.source is None else (request.source,)
    heard = {}
    for key, files, longest in (
        ("source", sources, audio.LONGEST_READ),
        ("reference", request.reference or (), LONGEST_REFERENCE),
    ):
        for file in files:
            try:
                heard[file] = audio.survey(Path(file), longest)
            except SourceError as error:
                raise SourceError(f"{key}: {error.message}", error.hint) from error
    return heard


def keepsake(
    request: Request, checkpoint: Checkpoint, heard: Mapping[str, Recording]
) -> tuple[Kept | None, tuple[str, ...]]:
    """The latents beside the source, and a warning where there are some that are of no use."""
    source = heard.get(request.source or "")
    if source is None or not (path := latents.beside(source.path)).exists():
        return None, ()
    found = latents.of(source, checkpoint.vae_hash(), regions.before(request, source.seconds))
    return (None, (f"{path}: {found}; the source is encoded anew.",)) if isinstance(found, str) else (found, ())


def survey_adapters(request: Request, checkpoint: Checkpoint | None) -> tuple[dict[str, Adapter], list[str]]:
    """The adapters that a request names, by their paths, and warnings about them. `AdapterError`, beginning with the
    key, for one that is broken or does not fit the checkpoint, where that is here.
    """
    if request.loras is None:
        return {}, []
    from acestep_cli import adapters, memory

    found: dict[str, Adapter] = {}
    warnings: list[str] = []
    for lora in request.loras:
        try:
            adapter = found[lora.path] = adapters.read(Path(lora.path))
            warnings += adapter.warnings
            if checkpoint is not None:
                warnings += adapter.require_fit(memory.Sizes.of(checkpoint).dit, checkpoint.name)
            adapter.require_finite()
        except AdapterError as error:
            raise AdapterError(f"loras: {error.message}", error.hint) from error
        word = adapter.trigger_word
        if word is not None and request.caption is not None and word.casefold() not in request.caption.casefold():
            warnings.append(f"{lora.path} was trained with the trigger word {word!r}, which the caption does not have.")
    return found, warnings


def open_keys(request: Request) -> tuple[str, ...]:
    """What a request leaves to the Songwriter: nothing where codes are given, which are a song already, or where the
    mode follows none.
    """
    if request.codes is not None or "codes" not in mode_of(request).keys:
        return ()
    written = ("caption", "lyrics", "genre") if request.idea is not None else ("caption",)
    keys = (*written, "language", "bpm", "key", "time_signature", "duration", "codes")
    silent = () if may_be_sung(request) else ("lyrics", "language")
    return tuple(key for key in keys if getattr(request, key) is None and key not in silent)


def filled(request: Completed, written: Mapping[str, Any]) -> Completed:
    """`request` with what the Songwriter has `written`, and without a trace of it: nothing is open now but codes."""
    found = {key: written[key] for key in request.open if key in written}
    if "lyrics" in request.open:
        found = sung_or_not(found)
        found["lrc"] = request.lrc if found["lyrics"] is not None else None
    its_own = dict.fromkeys(SONGWRITER_KEYS)
    return request.model_copy(update={**found, **its_own, "songwriter": "none", "open": ()})


def changes(before: Completed, after: Completed) -> dict[str, Any]:
    """The keys that are others in `after`, as JSON carries them."""
    names = {name for name in KEYS if getattr(before, name) != getattr(after, name)}
    found: dict[str, Any] = json.loads(after.model_dump_json(include=names))
    return found


def changed(before: Completed, said: Mapping[str, Any]) -> Completed:
    """`before` with what `changes` has said of it; nothing is open then."""
    read = Request(**said)
    return before.model_copy(update={**{name: getattr(read, name) for name in said}, "open": ()})


def sung_or_not(song: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a song, which without lyrics is an instrumental and has no language."""
    if song.get("lyrics") is not None:
        return dict(song)
    return {**song, "lyrics": None, "language": None, "instrumental": True}


def take(request: Completed, number: int) -> Completed:
    """Take `number`, counted from 1, of a completed request, as a request of its own."""
    return takes(request, number, 1)


def takes(request: Completed, first: int, count: int) -> Completed:
    """Takes `first` and on of a completed request, as a request of their own. All of them are of one text."""
    seeds: dict[str, Any] = {"seed": (request.seed + first - 1) % SEEDS}
    if request.open and request.songwriter_seed is None:
        seeds["songwriter_seed"] = request.seed
    return request.model_copy(update={**seeds, "takes": count})


def recipe(request: Completed, weights: str, contents: Mapping[str, str]) -> str:
    """A fingerprint of what shapes the samples and their encoding, but for the seed; `weights` is a hash of theirs.

    Two takes with one recipe and one seed are the same audio. Recordings and adapters are in it by what they hold,
    which `contents` says of each file.
    """
    import hashlib

    shaping = {name for name, key in KEYS.items() if key.shapes}
    content = {"weights": weights, **request.model_dump(include=shaping, exclude_none=True)}
    if (source := contents.get(request.source or "")) is not None:
        content["source"] = source
    if request.kept is not None:
        content["latents"] = request.kept.fingerprint
    if request.reference is not None:
        content["reference"] = [contents[file] for file in request.reference]
    if request.loras is not None:
        content["loras"] = [(contents[lora.path], lora.scale) for lora in request.loras]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def contradictions(
    request: Request, name: str, row: Row, code_count: int | None, heard: Mapping[str, Recording] | None = None
) -> list[str]:
    """What cannot be, about the request alone, with its recordings, or with the checkpoint `name`; each begins with
    its key.
    """
    found = _mode_problems(request) + _songwriter_problems(request) + _word_problems(request)
    if heard and (source := heard.get(request.source or "")) is not None:
        found += regions.problems(request, source.seconds)
    whole = seconds(request, heard)
    found += _finish_problems(request, whole)
    if row.turbo:
        why = f"{name} is a turbo checkpoint: guidance is distilled into it. Leave it out, or use a base or sft model."
        if request.guidance is not None and request.guidance > 1:
            found.append(f"guidance: {request.guidance:g} cannot be applied; {why}")
        found += [f"{key}: cannot be applied; {why}" for key in ("guidance_method", "cfg_interval")
                  if getattr(request, key) is not None]  # fmt: skip
    elif request.guidance is not None and request.guidance <= 1:
        found += [f"{key}: has nothing to act on, because guidance {request.guidance:g} is off."
                  for key in ("guidance_method", "cfg_interval") if getattr(request, key) is not None]  # fmt: skip
    if request.timesteps is not None:
        found += [f"{key}: the timesteps are given one by one, so {key} has nothing to decide."
                  for key in ("steps", "shift") if getattr(request, key) is not None]  # fmt: skip
    steps = request.steps if request.timesteps is None else len([t for t in request.timesteps if t > 0])
    if steps is not None and steps > row.most_steps:
        found.append(f"steps: {name} takes at most {row.most_steps} steps, not {steps}.")
    if request.lora_mode is not None and request.loras is None:
        found.append("lora_mode: there are no adapters to put together; --lora names them.")
    elif request.lora_mode == "blend" and len(request.loras or ()) < 2:
        found.append("lora_mode: blend makes shares of the scales of several adapters, and there is one.")
    if request.codes is not None:
        found += _code_problems(request, name, code_count)
    if whole < row.shortest_seconds and not mode_of(request).has_source:
        least = f"{row.shortest_seconds:g}"
        found.append(
            f"duration: {whole:g} s is too short for {name}, which makes at least {least} s; ask for {least} or more."
        )
    return found


def _songwriter_problems(request: Request) -> list[str]:
    """What cannot be asked of the Songwriter, or not without it."""
    found = []
    if request.idea is not None:
        found += [f"idea: excludes {key}, which {why}; leave one of them out." for key, why in
                  (("lyrics", "the Songwriter writes"), ("codes", "are a song already"))
                  if getattr(request, key) is not None]  # fmt: skip
        if request.songwriter == "none":
            found.append("idea: needs a Songwriter, and songwriter is none.")
    if request.songwriter == "none":
        found += [f"{key}: has nothing to act on, because songwriter is none."
                  for key in ("songwriter_seed", *GROUPS[SONGWRITER_OPTIONS])
                  if getattr(request, key) is not None]  # fmt: skip
    return found


def _word_problems(request: Request) -> list[str]:
    """What cannot be asked about words that nobody sings."""
    if not request.lrc or may_be_sung(request):
        return []
    return ["lrc: there are no lyrics to time; give some (--lyrics), or leave it out."]


def _mode_problems(request: Request) -> list[str]:
    """What the mode of a request does not take, or lacks."""
    name, mode = request.mode or "generate", mode_of(request)
    found = []
    for key in sorted(foreign(name), key=list(KEYS).index):
        if getattr(request, key) is None or (key == "duration" and mode.has_source):  # compared with the source's
            continue
        found.append(f"{key}: {misplaced(key, name)}")
    found += lacking(request)
    if request.track and 0 < mode.most_tracks < len(request.track):
        most = "one track" if mode.most_tracks == 1 else f"{mode.most_tracks} tracks"
        found.append(f"track: {name} makes {most} at a time, not {len(request.track)}.")
    if request.repaint_strength is not None and REPAINT_MODES[request.repaint_mode or "balanced"] is not None:
        found.append(f"repaint_strength: has nothing to decide where repaint_mode is {request.repaint_mode}.")
    if request.source is not None and request.source in (request.reference or ()):
        found.append("reference: is the source too, whose sound is heard anyway; leave it out.")
    return found


def lacking(request: Request) -> list[str]:
    """What the mode of a request needs and it has not, each beginning with its key."""
    needed = [NEEDS[need] for need in mode_of(request).needs]
    return [
        f"{keys[0]}: {sentence.format(mode=request.mode or 'generate')}"
        for keys, sentence in needed
        if all(getattr(request, key) is None for key in keys)
    ]


def _finish_problems(request: Request, whole: float) -> list[str]:
    """What cannot be done to the samples of so many seconds on their way into a file."""
    found = []
    try:
        format = request.format or audio.DEFAULT_FORMAT
        audio.encoding(format, request.bit_depth, request.bitrate, request.sample_rate)
    except UsageError as error:
        found.append(error.message)
    fades = [(key, getattr(request, key)) for key in ("fade_in", "fade_out") if getattr(request, key)]
    if sum(length for _, length in fades) > whole:
        lengths = " and ".join(f"{length:g} s" for _, length in fades)
        found.append(f"{fades[-1][0]}: {lengths} of fading are longer than the song, {whole:g} s.")
    return found


def _code_problems(request: Request, name: str, code_count: int | None) -> list[str]:
    codes = request.codes or ()
    found = []
    highest = max(codes, default=0)
    if code_count is not None and highest >= code_count:
        place = codes.index(highest) + 1
        found.append(f"codes: code {place} is {highest}, but {name} knows codes 0 to {code_count - 1}.")
    if request.duration is not None and len(codes) != (wanted := int(CODES_PER_SECOND * request.duration)):
        found.append(
            f"codes: {len(codes)} codes are {len(codes) / CODES_PER_SECOND:g} s, but duration asks for "
            f"{request.duration:g} s, which takes {wanted}; leave duration out to follow the codes."
        )
    return found


def seconds(request: Request, heard: Mapping[str, Recording] | None = None) -> float:
    """How long the song is or will be."""
    return length(request, heard or {})[0]


def length(request: Request, heard: Mapping[str, Recording]) -> tuple[float, str]:
    """The length of the song, and what decided it."""
    if (source := heard.get(request.source or "")) is not None:
        return regions.extended(request, source.seconds), "the source"
    if request.duration is not None:
        return request.duration, "asked for"
    if request.codes is not None:
        return len(request.codes) / CODES_PER_SECOND, "the codes"
    if not is_sung(request.lyrics):
        return DEFAULT_SECONDS, DEFAULT
    return estimated_duration(request), "estimated from the lyrics"


def is_sung(lyrics: str | None) -> bool:
    """Whether there is a line that is no section tag."""
    return any(line.strip() and not is_tag(line) for line in (lyrics or "").splitlines())


def may_be_sung(request: Request) -> bool:
    """Whether there are words to sing, or an idea that may become some."""
    return not request.instrumental and (request.idea is not None or is_sung(request.lyrics))


def is_tag(line: str) -> bool:
    return line.strip().startswith("[") and line.strip().endswith("]")


def estimated_duration(request: Request) -> float:
    """Seconds that the lyrics take to sing at the request's tempo; 60 where nothing is sung."""
    if not is_sung(request.lyrics):
        return DEFAULT_SECONDS
    tags = [is_tag(line) for line in (request.lyrics or "").splitlines() if line.strip()]
    bare = sum(tag and following for tag, following in zip(tags, [*tags[1:], True], strict=True))
    bars = tags.count(False) * BARS_PER_LINE + bare * BARS_PER_BARE_SECTION + BARS_AROUND
    estimate = bars * PULSES[request.time_signature or "4/4"] * 60 / (request.bpm or ESTIMATE_BPM)
    low, high = ESTIMATE_RANGE
    return float(round(min(max(estimate, low), high)))
