"""The request: the value that flows from flags and specs to the engine.

Every key of a song is one field here. Its `Key` has the help text and the kind of value, and the kind has the range.
Flags, `--help`, completion and messages derive from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from acestep_cli import solvers
from acestep_cli.audio import encode
from acestep_cli.song.file_values import (
    LORA_MODES,
    Bitrate,
    Lora,
    Loras,
    LoudnessTarget,
    ModelName,
    Picture,
    SampleRate,
    SongwriterName,
    Sound,
    Sounds,
)
from acestep_cli.song.key import (
    CORRECTIONS,
    OUTPUT,
    SONG,
    SONGWRITER,
    SONGWRITER_OPTIONS,
    SOUND,
    SOURCE,
    TAGS,
    Key,
)
from acestep_cli.song.musical_values import (
    EVERY_TRACK,
    LATEST_TIME,
    LONGEST_SECONDS,
    REPAINT_MODES,
    Codes,
    Duration,
    Interval,
    Language,
    MusicalKey,
    Time,
    TimeSignature,
    Timesteps,
    Tracks,
)
from acestep_cli.song.values import Choice, Number, Share, Switch, Tag, Text, Whole

LONGEST_FADE = 60
MOST_TOGETHER = 8
MOST_EDIT_DRAWS = 16


class Request(BaseModel):
    """The song that was asked for. `None` means "not asked": `complete.complete` decides it, once.

    Output paths, the terminal and the machine are not part of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    mode: Annotated[
        str | None,
        Key(
            Text("MODE"), "What kind of render this is: generate unless set.", SONG, flag=False, examples=("generate",)
        ),
    ] = None
    caption: Annotated[
        str | None,
        Key(
            Text(),
            "What it sounds like: style, instruments, mood, voice.",
            SONG,
            short="-c",
            examples=("warm lo-fi hip hop, dusty drums, rhodes",),
        ),
    ] = None
    lyrics: Annotated[
        str | None,
        Key(
            Text(),
            "Words to sing, with [Verse], [Chorus] and such above the sections.",
            SONG,
            examples=("[Verse]\nCity light slides over the glass\n",),
        ),
    ] = None
    instrumental: Annotated[
        bool | None,
        Key(Switch(), "No singing.", SONG, shapes=False, examples=(True,)),  # the model reads lyrics, or none
    ] = None
    idea: Annotated[
        str | None,
        Key(
            Text(),
            "What the song is about: the Songwriter writes caption, lyrics and metadata.",
            SONG,
            examples=("rainy-day bossa nova about a lost umbrella",),
        ),
    ] = None
    language: Annotated[
        str | None,
        Key(
            Language(),
            "Language of the lyrics: its code or name, as spec languages lists them.",
            SONG,
            examples=("en",),
        ),
    ] = None
    bpm: Annotated[
        int | None,
        Key(Whole(30, 300), "Tempo in beats per minute.", SONG, examples=(96,)),
    ] = None
    key: Annotated[
        str | None,
        Key(MusicalKey(), "Key, such as A minor or F# major.", SONG),
    ] = None
    time_signature: Annotated[
        str | None,
        Key(TimeSignature(), "Time signature; 2, 3, 4 and 6 do as well.", SONG, examples=("4/4",)),
    ] = None
    duration: Annotated[
        float | None,
        Key(
            Duration(1, LONGEST_SECONDS),
            "Length, 10 s to 10 minutes (pocket: from 3 s). Unset: the Songwriter's, else by the lyrics, else 60 s.",
            SONG,
            short="-d",
            examples=("1:30", 90, "90s"),
        ),
    ] = None
    codes: Annotated[
        tuple[int, ...] | None,
        Key(Codes(), "Audio codes to follow, 5 per second.", SONG, flag=False),
    ] = None
    reference: Annotated[
        tuple[str, ...] | None,
        Key(
            Sounds(),
            "A recording to imitate in sound, up to an hour long; repeatable.",
            SONG,
            shapes=False,  # what it holds does
        ),
    ] = None
    source: Annotated[
        str | None,
        Key(
            Sound(),
            "The recording to work on, 1 s to 10 minutes long; with `context` up to an hour.",
            SOURCE,
            flag=False,
            shapes=False,  # what it holds does
        ),
    ] = None
    strength: Annotated[
        float | None,
        Key(
            Share(),
            "For how many of its steps a cover follows the source, all unless set: 30-50% for another genre, 50-70% "
            "for a moderate change, 70-90% for a subtle one.",
            SOURCE,
        ),
    ] = None
    noise_strength: Annotated[
        float | None,
        Key(Share(), "How much of the source's own sound a cover starts from; 0 unless set.", SOURCE),
    ] = None
    close: Annotated[
        bool | None,
        Key(Switch(), "Cover the source in all its detail, not by way of audio codes.", SOURCE),
    ] = None
    start: Annotated[
        float | None,
        Key(
            Time(-LONGEST_SECONDS, LATEST_TIME),
            "Where the new part begins; a negative time extends the song to the front.",
            SOURCE,
            examples=(10, -8),
        ),
    ] = None
    end: Annotated[
        float | None,
        Key(
            Time(0, LATEST_TIME),
            "Where it ends; past the source it extends the song.",
            SOURCE,
            examples=(20, "1:30"),
        ),
    ] = None
    context: Annotated[
        float | None,
        Key(
            Duration(2, LONGEST_SECONDS, "60|60s|1:00"),
            "Seconds in view on each side of the new part; the rest is copied. Unset: all.",
            SOURCE,
            examples=(60,),
        ),
    ] = None
    repaint_mode: Annotated[
        str | None,
        Key(
            Choice(tuple(REPAINT_MODES)),
            "How the new part is joined: conservative keeps what is around it, aggressive cuts hard; balanced "
            "unless set.",
            SOURCE,
        ),
    ] = None
    repaint_strength: Annotated[
        float | None,
        Key(Share(), "How aggressive balanced is; 0.5 unless set.", SOURCE),
    ] = None
    from_caption: Annotated[
        str | None,
        Key(
            Text(),
            "What the source sounds like now. Unset: what its sidecar or tags say.",
            SOURCE,
            examples=("warm lo-fi hip hop, dusty drums, rhodes",),
        ),
    ] = None
    from_lyrics: Annotated[
        str | None,
        Key(
            Text(),
            "The words that are sung in it now, [Instrumental] for none. Unset: likewise.",
            SOURCE,
            examples=("[Verse]\nCity light slides over the glass\n",),
        ),
    ] = None
    edit_start: Annotated[
        float | None,
        Key(
            Share(),
            "The share of the steps (no time) that an edit leaves out at first, 0 unless set: more stays as it was.",
            SOURCE,
            examples=("20%",),
        ),
    ] = None
    edit_end: Annotated[
        float | None,
        Key(
            Share(),
            "The share of the steps (no time) after which it follows the new words alone, 1 unless set: less stays.",
            SOURCE,
            examples=("70%",),
        ),
    ] = None
    edit_average: Annotated[
        int | None,
        Key(
            Whole(1, MOST_EDIT_DRAWS),
            "Draws of noise that each of its steps averages, 1 unless set: steadier, and as many times slower.",
            SOURCE,
            examples=(2,),
        ),
    ] = None
    track: Annotated[
        tuple[str, ...] | None,
        Key(
            Tracks(),
            "A track to make; repeatable, where several can be. A spec may say tracks, too.",
            SOURCE,
            switch=("--all", EVERY_TRACK),
        ),
    ] = None
    mix: Annotated[
        bool | None,
        Key(Switch(), "Write source and new track together, too.", SOURCE, shapes=False),  # a file of its own
    ] = None
    songwriter: Annotated[
        str | None,
        Key(
            SongwriterName(),
            "Language model that fills in unset keys and writes the codes. Unset: the largest installed, else none; "
            "none where there is a source.",
            SONGWRITER,
            shapes=False,  # its weights do
            examples=("1.7B", "none"),
        ),
    ] = None
    songwriter_seed: Annotated[
        int | None,
        Key(Whole(0, 2**32 - 1), "Seed of what the Songwriter writes. Unset: --seed.", SONGWRITER, examples=(7,)),
    ] = None
    temperature: Annotated[
        float | None,
        Key(
            Number(0, 2),
            "Sampling temperature of the Songwriter, 0.85 unless set; 0 takes the likeliest token.",
            SONGWRITER,
            examples=(0.85,),
            group=SONGWRITER_OPTIONS,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        Key(
            Number(0.01, 1),
            "It samples from the likeliest tokens that together have this probability, 0.9 unless set.",
            SONGWRITER,
            examples=(0.9,),
            group=SONGWRITER_OPTIONS,
        ),
    ] = None
    top_k: Annotated[
        int | None,
        Key(
            Whole(0, 100_000),
            "It samples from this many of the likeliest tokens; 0 (unless set) is no limit.",
            SONGWRITER,
            examples=(50,),
            group=SONGWRITER_OPTIONS,
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        Key(
            Number(0.5, 2),
            "Above 1 it repeats itself less.",
            SONGWRITER,
            examples=(1.1,),
            group=SONGWRITER_OPTIONS,
        ),
    ] = None
    cfg_scale: Annotated[
        float | None,
        Key(
            Number(1, 20),
            "Guidance of the codes by caption and lyrics, 2 unless set; 1 is off.",
            SONGWRITER,
            examples=(2,),
            group=SONGWRITER_OPTIONS,
        ),
    ] = None
    negative_prompt: Annotated[
        str | None,
        Key(
            Text(),
            "Text that the codes are guided away from.",
            SONGWRITER,
            examples=("harsh noise",),
            group=SONGWRITER_OPTIONS,
        ),
    ] = None
    model: Annotated[
        str | None,
        Key(
            ModelName(),
            "Checkpoint by name, or its folder. Unset: the first installed, else pocket.",
            SOUND,
            short="-m",
            shapes=False,  # its weights are
        ),
    ] = None
    loras: Annotated[
        tuple[Lora, ...] | None,
        Key(
            Loras(),
            "An adapter (LoRA, DoRA or LoKr; a folder or a .safetensors file), and how strongly it acts, 1 unless set; "
            "repeatable.",
            SOUND,
            singular="lora",
            shapes=False,  # what it holds does
        ),
    ] = None
    lora_mode: Annotated[
        str | None,
        Key(
            Choice(LORA_MODES),
            "How several adapters go together: each at its own scale (sum, unless set), or their scales as shares of "
            "one whole (blend).",
            SOUND,
        ),
    ] = None
    steps: Annotated[
        int | None,
        Key(Whole(1, 200), "Diffusion steps. Unset: the checkpoint's own number.", SOUND, examples=(8,)),
    ] = None
    guidance: Annotated[
        float | None,
        Key(
            Number(1, 30),
            "How strongly the caption and lyrics pull; 1 is off. base and sft models only.",
            SOUND,
            examples=(7,),
        ),
    ] = None
    guidance_method: Annotated[
        str | None,
        Key(Choice(tuple(solvers.GUIDANCE_METHODS)), "How guidance is applied.", SOUND),
    ] = None
    shift: Annotated[
        float | None,
        Key(
            Number(0.1, 10),
            "Above 1: more of the steps go to the song's outline, fewer to detail.",
            SOUND,
            examples=(3,),
        ),
    ] = None
    solver: Annotated[
        str | None,
        Key(Choice(tuple(solvers.SOLVERS)), "Method of the diffusion steps.", SOUND),
    ] = None
    timesteps: Annotated[
        tuple[float, ...] | None,
        Key(Timesteps(), "The noise level of each step, instead of --steps and --shift.", SOUND),
    ] = None
    cfg_interval: Annotated[
        tuple[float, float] | None,
        Key(Interval(), "Noise levels between which guidance acts.", SOUND),
    ] = None
    dcw: Annotated[
        str | None,
        Key(
            Choice((solvers.AUTO_CORRECTION, solvers.NO_CORRECTION, *solvers.WAVELET_CORRECTIONS)),
            "Correct each step by wavelet band: the outline (low), the detail (high), both (double), or all alike "
            "(pix). auto, unless set: double for published turbo checkpoints, else off.",
            CORRECTIONS,
            neutral=solvers.NO_CORRECTION,
        ),
    ] = None
    dcw_scale: Annotated[
        float | None,
        Key(Number(0, 1), "How strongly it corrects, 0.05 unless set; with double, the outline.", CORRECTIONS,
            examples=(0.05,)),
    ] = None  # fmt: skip
    dcw_high_scale: Annotated[
        float | None,
        Key(Number(0, 1), "How strongly double corrects the detail, 0.02 unless set.", CORRECTIONS, examples=(0.02,)),
    ] = None
    velocity_clamp: Annotated[
        float | None,
        Key(
            Number(0, 100),
            "Largest norm of a step's velocity, as a multiple of the latents' norm; 2 is usual, 0 (unless set) is off.",
            CORRECTIONS,
            examples=(2,),
            neutral=0.0,
        ),
    ] = None
    velocity_ema: Annotated[
        float | None,
        Key(
            Number(0, 0.99),
            "Share of the step before in the velocity of each step; 0.1 is usual, 0 (unless set) is off.",
            CORRECTIONS,
            examples=(0.1,),
            neutral=0.0,
        ),
    ] = None
    latent_shift: Annotated[
        float | None,
        Key(Number(-10, 10), "Added to the finished latents before they are decoded; 0 unless set.", CORRECTIONS,
            examples=(0.1,), neutral=0.0),
    ] = None  # fmt: skip
    latent_rescale: Annotated[
        float | None,
        Key(Number(0.01, 10), "The finished latents are multiplied by it before that; 1 unless set.", CORRECTIONS,
            examples=(0.9,), neutral=1.0),
    ] = None  # fmt: skip
    seed: Annotated[
        int | None,
        Key(
            Whole(0, 2**32 - 1),
            "The same seed, request and machine give the same samples. Unset: drawn.",
            SOUND,
            shapes=False,
            examples=(7,),
        ),
    ] = None
    variation: Annotated[
        float | None,
        Key(
            Share(),
            "Share of the way from this seed's noise to another seed's: 15% makes a slightly different take.",
            SOUND,
            examples=("15%",),
        ),
    ] = None
    variation_seed: Annotated[
        int | None,
        Key(
            Whole(0, 2**32 - 1),
            "The other seed. Takes of one run share --seed, and each has the next other seed. Unset: drawn.",
            SOUND,
            examples=(8,),
        ),
    ] = None
    takes: Annotated[
        int | None,
        Key(Whole(1, 9999), "How many takes, each with the next seed.", SOUND, short="-n", shapes=False, examples=(4,)),
    ] = None
    together: Annotated[
        int | None,
        Key(
            Whole(1, MOST_TOGETHER),
            "How many takes share each forward pass, 1 to 8: the same takes within rounding. Unset: as many as a card "
            "holds, 1 on a processor.",
            SOUND,
            examples=(4,),
            neutral=1,
        ),
    ] = None
    title: Annotated[
        str | None,
        Key(
            Tag(),
            "Title, written into the file; without a spec it also names the file.",
            TAGS,
            shapes=False,
            examples=("Night Drive",),
        ),
    ] = None
    artist: Annotated[
        str | None,
        Key(Tag(), "Artist, written into the file.", TAGS, shapes=False, examples=("The Tide Tables",)),
    ] = None
    album: Annotated[
        str | None,
        Key(Tag(), "Album, written into the file.", TAGS, shapes=False, examples=("Low Water",)),
    ] = None
    track_number: Annotated[
        int | None,
        Key(Whole(1, 999), "Place on the album, written into the file.", TAGS, shapes=False),
    ] = None
    year: Annotated[
        int | None,
        Key(Whole(1000, 9999), "Year of release, written into the file.", TAGS, shapes=False, examples=(2026,)),
    ] = None
    genre: Annotated[
        str | None,
        Key(Tag(), "Genre, written into the file.", TAGS, shapes=False, examples=("Synthwave",)),
    ] = None
    comment: Annotated[
        str | None,
        Key(
            Tag(most=5000, lines=True),
            "Comment, written into the file.",
            TAGS,
            shapes=False,
            examples=("Demo, not for release",),
        ),
    ] = None
    cover: Annotated[
        str | None,
        Key(Picture(), "Picture for the file, up to 10 MB.", TAGS, shapes=False),
    ] = None
    format: Annotated[
        str | None,
        Key(Choice(tuple(encode.FORMATS)), "File format. Unset: the suffix of --output, else flac.", OUTPUT),
    ] = None
    bit_depth: Annotated[
        str | None,
        Key(
            Choice(encode.BIT_DEPTHS),
            "Bits per sample of wav and flac, 24 unless set; 32f (float) is for wav.",
            OUTPUT,
            examples=("24",),
        ),
    ] = None
    bitrate: Annotated[
        int | None,
        Key(Bitrate(), "Bitrate of mp3 (constant) and m4a, 192k unless set.", OUTPUT, examples=("192k",)),
    ] = None
    sample_rate: Annotated[
        int | None,
        Key(SampleRate(), "Samples per second of the file. Unset: as rendered, 48000.", OUTPUT),
    ] = None
    fade_in: Annotated[
        float | None,
        Key(
            Duration(0, LONGEST_FADE, "2|2s|0:02"),
            "Fade in from silence, 0 to 60 seconds; the loudness is that of the faded song.",
            OUTPUT,
            examples=(2, "2s"),
        ),
    ] = None
    fade_out: Annotated[
        float | None,
        Key(
            Duration(0, LONGEST_FADE, "4|4s|0:04"),
            "Fade out to silence, 0 to 60 seconds.",
            OUTPUT,
            examples=(4, "4s"),
        ),
    ] = None
    lrc: Annotated[
        bool | None,
        Key(
            Switch(),
            "Time the lyrics by the diffusion's own attention: NAME.lrc beside the take.",
            OUTPUT,
            shapes=False,
        ),
    ] = None
    markers: Annotated[
        bool | None,
        Key(Switch(), "Mark the sections of the lyrics in the file, for a DAW; wav alone has room for that.", OUTPUT),
    ] = None
    loudness: Annotated[
        str | None,
        Key(
            LoudnessTarget(),
            "Highest peak in dBFS (peak:-1 unless set) or integrated loudness in LUFS, true peaks under -1 dB.",
            OUTPUT,
            examples=("peak:-1", "lufs:-14"),
        ),
    ] = None

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        if value is None or info.field_name not in KEYS:  # a completed request has more to it than keys
            return value
        return KEYS[info.field_name].kind.read(value)

    @model_validator(mode="after")
    def _agree(self) -> Request:
        if self.instrumental and self.lyrics is not None:
            raise ValueError("instrumental and lyrics exclude each other")
        return self


KEYS: Mapping[str, Key] = {
    name: next(part for part in field.metadata if isinstance(part, Key)) for name, field in Request.model_fields.items()
}
#: The keys that stand in a map of a spec, by the name of the map.
GROUPS: Mapping[str, tuple[str, ...]] = {
    SONGWRITER_OPTIONS: tuple(name for name, key in KEYS.items() if key.group == SONGWRITER_OPTIONS)
}
#: The values that change nothing, by their keys.
NEUTRAL: Mapping[str, Any] = {name: key.neutral for name, key in KEYS.items() if key.neutral is not None}
#: The keys about the file and not the song: encoding, loudness and tags.
FINISH = frozenset(name for name, key in KEYS.items() if key.panel in (OUTPUT, TAGS))
