"""Refusals before anything is decided: contradictions of a request with itself, its recordings and a checkpoint."""

from __future__ import annotations

from acestep_cli import solvers
from acestep_cli.audio import encode, wav_chunks
from acestep_cli.errors import CheckpointError, UsageError
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.models.checkpoint_table import CHECKPOINTS, CheckpointRow
from acestep_cli.song import duration, modes, prompts, regions, seeds, songwriter_prompts
from acestep_cli.song.inputs import Inputs
from acestep_cli.song.key import SONGWRITER_OPTIONS
from acestep_cli.song.musical_values import CODES_PER_SECOND, REPAINT_MODES
from acestep_cli.song.request import GROUPS, KEYS, Request


def require_task(request: Request, name: str, row: CheckpointRow) -> None:
    """Raise `CheckpointError` where the checkpoint `name` was not trained for the mode of the request."""
    task = modes.mode_of(request).task
    if task not in row.tasks:
        able = [other for other, one in CHECKPOINTS.items() if task in one.tasks]
        raise CheckpointError(
            f"{name} was not trained to {task}; {', '.join(able[:-1])} and {able[-1]} were.",
            f"`acestep models pull {able[0]}` fetches one of them; then --model {able[0]}.",
        )


def require_heads(request: Request, checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` where lyrics are to be timed and the checkpoint has no known alignment heads."""
    if request.lrc and not checkpoint.alignment_heads:
        able = [other for other, one in CHECKPOINTS.items() if one.alignment_heads]
        raise CheckpointError(
            f"{checkpoint.name} has no alignment heads, by which lyrics are timed; {', '.join(able)} have.",
            f"Leave lrc out; or `acestep models pull {able[0]}` fetches one that has, then --model {able[0]}.",
        )


def contradictions(
    request: Request, inputs: Inputs, name: str, row: CheckpointRow, code_count: int | None
) -> list[str]:
    """Return all problems of the request alone, with what it reads, and with the checkpoint `name`.

    Each problem is a sentence that begins with its key.
    """
    song = modes.with_defaults(request)
    region, whole = inputs.region, inputs.length.seconds
    return [
        *_mode_problems(request),
        *_songwriter_problems(request),
        *_word_problems(song),
        *(regions.region_problems(request, region) if region is not None else ()),
        *_finish_problems(request, whole if region is None else region.song_seconds),
        *_guidance_problems(request, name, row),
        *_correction_problems(request, name, row),
        *_variation_problems(request),
        *(_edit_problems(request, song) if modes.mode_of(request).describes_source else ()),
        *_schedule_problems(request, name, row),
        *_adapter_problems(request),
        *_code_problems(request, name, code_count),
        *_length_problems(request, name, row, whole),
    ]


def _guidance_problems(request: Request, name: str, row: CheckpointRow) -> list[str]:
    """Return the problems of the keys about guidance."""
    given = [key for key in ("guidance_method", "cfg_interval") if getattr(request, key) is not None]
    if row.turbo:
        why = f"{name} is a turbo checkpoint: guidance is distilled into it. Leave it out, or use a base or sft model."
        is_asked = request.guidance is not None and request.guidance > 1
        found = [f"guidance: {request.guidance:g} cannot be applied; {why}"] if is_asked else []
        return found + [f"{key}: cannot be applied; {why}" for key in given]
    if request.guidance is None or request.guidance > 1:
        return []
    return [f"{key}: has nothing to act on, because guidance {request.guidance:g} is off." for key in given]


def _variation_problems(request: Request) -> list[str]:
    """Return the problems of the keys about variations."""
    if request.variation_seed is None:
        return []
    if request.variation is None:
        return ["variation_seed: has nothing to act on without variation; --variation 15% makes a neighbour of a take."]
    if request.seed is not None and seeds.is_among(request.seed, request.variation_seed, request.takes or 1):
        return [
            f"variation_seed: {request.variation_seed} and the takes after it come to the seed, {request.seed}, where "
            "nothing would vary; choose another."
        ]
    return []


def _edit_problems(request: Request, song: Request) -> list[str]:
    """Return the problems of a flow edit: of its two descriptions, its window, and keys that its steps cannot heed.

    `song` is the request with the defaults of the mode.
    """
    found = _description_problems(request, song)
    if (song.edit_start or 0) > (song.edit_end or 0):
        key = "edit_start" if request.edit_start is not None else "edit_end"
        found.append(f"{key}: the edit begins at {song.edit_start:g} of the steps, after its end, {song.edit_end:g}.")
    if request.solver is not None and not solvers.SOLVERS[request.solver].edits:
        found.append(f"solver: {request.solver} cannot edit, whose steps are those of euler; leave it out.")
    if request.guidance_method is not None:
        able = [name for name, row in solvers.GUIDANCE_METHODS.items() if row.start_averaging is not None]
        if request.guidance_method not in able:
            found.append(f"guidance_method: {request.guidance_method} cannot edit; {' and '.join(able)} can.")
    if request.dcw not in (None, solvers.AUTO_CORRECTION, solvers.NO_CORRECTION):
        found.append(
            f"dcw: {request.dcw} cannot be applied, because the steps of an edit are not corrected; leave it out."
        )
    return found


def _description_problems(request: Request, song: Request) -> list[str]:
    """Return the problem of an edit that does not know its source, or would change nothing of it."""
    if request.source is None:  # which is told already
        return []
    if request.from_caption is None and request.from_lyrics is None:
        return [
            f"from_caption: nothing tells what {request.source} is like now, neither a sidecar nor its tags; describe "
            "it with --from-caption, and its words with --from-lyrics or --from-lyrics-file."
        ]
    before = modes.source_description(song)
    words = [(one.caption, one.lyrics or prompts.INSTRUMENTAL) for one in (song, before)]
    if missing_keys(request) or words[0] != words[1]:
        return []
    key = next((name for name in ("lyrics", "caption") if getattr(request, name) is not None), "instrumental")
    if key == "caption" and request.from_caption is None:
        return [f"caption: nothing tells what {request.source} sounds like now; say it with --from-caption."]
    if key != "caption" and request.from_lyrics is None:
        unknown = f"nothing tells what is sung in {request.source} now"
        return [f"{key}: {unknown}; give the words with --from-lyrics or --from-lyrics-file."]
    return [f"{key}: caption and lyrics are those of the source already, so nothing would change."]


def _schedule_problems(request: Request, name: str, row: CheckpointRow) -> list[str]:
    """Return the problems of the keys about diffusion steps."""
    found = []
    if request.timesteps is not None:
        found += [f"{key}: the timesteps are given one by one, so {key} has nothing to decide."
                  for key in ("steps", "shift") if getattr(request, key) is not None]  # fmt: skip
    steps = request.steps if request.timesteps is None else len(solvers.explicit_schedule(request.timesteps)) - 1
    if steps is not None and steps > row.most_steps:
        found.append(f"steps: {name} takes at most {row.most_steps} steps, not {steps}.")
    return found


def _adapter_problems(request: Request) -> list[str]:
    """Return the problem of `lora_mode`, if there is one."""
    if request.lora_mode is not None and request.loras is None:
        return ["lora_mode: there are no adapters to put together; name them in loras (--lora)."]
    if request.lora_mode == "blend" and len(request.loras or ()) < 2:
        return ["lora_mode: blend makes shares of the scales of several adapters, and there is one."]
    return []


def _length_problems(request: Request, name: str, row: CheckpointRow, whole: float) -> list[str]:
    """Return the problem of a song of `whole` seconds that is too short for the checkpoint."""
    if whole >= row.shortest_seconds or modes.mode_of(request).has_source:
        return []
    least = f"{row.shortest_seconds:g}"
    return [f"duration: {whole:g} s is too short for {name}, which makes at least {least} s; ask for {least} or more."]


def _songwriter_problems(request: Request) -> list[str]:
    """Return the problems of the keys about the Songwriter."""
    found = []
    mode = request.mode or "generate"
    named = request.songwriter not in (None, "auto", "none")
    if not modes.mode_of(request).has_songwriter and named:
        found.append(
            f"songwriter: {request.songwriter} has nothing to decide in {mode}, which takes no more than none; leave "
            "it out."
        )
    if modes.mode_of(request).has_songwriter and not modes.mode_of(request).follows_codes:
        found += _filling_problems(request, named=named)
    if request.idea is not None:
        found += [f"idea: excludes {key}, which {why}; leave one of them out." for key, why in
                  (("lyrics", "the Songwriter writes"), ("codes", "are a song already"))
                  if getattr(request, key) is not None]  # fmt: skip
        if request.songwriter == "none":
            found.append("idea: needs a Songwriter, and songwriter is none.")
    if request.songwriter == "none":
        found += [f"{key}: has nothing to act on, because songwriter is none."
                  for key in ("songwriter_seed", *GROUPS[SONGWRITER_OPTIONS])
                  if key in modes.mode_of(request).keys and getattr(request, key) is not None]  # fmt: skip
    return found


def _filling_problems(request: Request, *, named: bool) -> list[str]:
    """Return the problems of a mode in which only a Songwriter that is named fills open text and metadata."""
    if not named:
        given = [key for key in modes.FILLING_KEYS if key != "songwriter" and getattr(request, key) is not None]
        why = f"in {request.mode} a Songwriter acts only where one is named (--songwriter)"
        return (
            [] if request.songwriter == "none" else [f"{key}: has nothing to act on, because {why}." for key in given]
        )
    words = (songwriter_prompts.song_caption(request), request.lyrics)
    if words != (None, None) or missing_keys(request):
        return []
    why = "the Songwriter has nothing to go by; give a caption (-c), lyrics (--lyrics) or tracks (--track)."
    return [f"caption: {why}"]


def _word_problems(song: Request) -> list[str]:
    """Return the problems of the keys about lyrics, in a request with the defaults of its mode."""
    if not song.lrc or duration.may_be_sung(song):
        return []
    return ["lrc: there are no lyrics to time; give some (--lyrics), or leave it out."]


def _mode_problems(request: Request) -> list[str]:
    """Return the problems of keys that the mode does not take, or needs."""
    name, mode = request.mode or "generate", modes.mode_of(request)
    found = []
    for key in sorted(modes.keys_of_other_modes(name), key=list(KEYS).index):
        if getattr(request, key) is None or (key == "duration" and mode.has_source):  # compared with the source's
            continue
        found.append(f"{key}: {modes.misplaced_key(key, name)}")
    found += missing_keys(request)
    if request.track and 0 < mode.most_tracks < len(request.track):
        most = "one track" if mode.most_tracks == 1 else f"{mode.most_tracks} tracks"
        found.append(f"track: {name} makes {most} at a time, not {len(request.track)}.")
    repaint_mode = request.repaint_mode or modes.DEFAULT_REPAINT_MODE
    if request.repaint_strength is not None and REPAINT_MODES[repaint_mode] is not None:
        found.append(f"repaint_strength: has nothing to decide where repaint_mode is {request.repaint_mode}.")
    if request.source is not None and request.source in (request.reference or ()):
        found.append("reference: is the source too, whose sound is heard anyway; leave it out.")
    return found


def missing_keys(request: Request) -> list[str]:
    """Return a sentence for each key that the mode needs and the request lacks, beginning with the key."""
    needed = [modes.NEEDS[need] for need in modes.mode_of(request).needs]
    return [
        f"{keys[0]}: {sentence.format(mode=request.mode or 'generate')}"
        for keys, sentence in needed
        if all(getattr(request, key) is None for key in keys)
    ]


def _correction_problems(request: Request, name: str, row: CheckpointRow) -> list[str]:
    """Return the problems of the scales of a correction that is off, or has no such part."""
    auto = request.dcw in (None, solvers.AUTO_CORRECTION)
    edits = modes.mode_of(request).describes_source
    dcw = (solvers.NO_CORRECTION if edits else row.dcw) if auto else request.dcw
    if dcw == solvers.NO_CORRECTION:
        why = f"dcw is off for {name}; dcw: double (--dcw double) turns it on" if auto and not edits else "dcw is off"
        keys: tuple[str, ...] = ("dcw_scale", "dcw_high_scale")
    else:
        why = f"dcw {dcw} has one scale, dcw_scale"
        keys = () if dcw == "double" else ("dcw_high_scale",)
    return [f"{key}: has nothing to act on, because {why}." for key in keys if getattr(request, key) is not None]


def _finish_problems(request: Request, whole: float) -> list[str]:
    """Return the problems of encoding and fades, for a song of `whole` seconds."""
    found = []
    format = request.format or encode.DEFAULT_FORMAT
    try:
        encode.resolve_encoding(format, request.bit_depth, request.bitrate, request.sample_rate)
    except UsageError as error:
        found.append(error.message)
    if request.markers and format != wav_chunks.FORMAT:
        found.append(f"markers: {format} files have no place for them; ask for wav (--format wav, or -o NAME.wav).")
    if problem := fade_problem(request, whole):
        found.append(problem)
    return found


def fade_problem(request: Request, whole: float) -> str | None:
    """Return the problem of fades that are longer than a song of `whole` seconds; None where they are not."""
    fades = [(key, getattr(request, key)) for key in ("fade_in", "fade_out") if getattr(request, key)]
    if sum(seconds for _, seconds in fades) <= whole:
        return None
    added = " and ".join(f"{seconds:g} s" for _, seconds in fades)
    return f"{fades[-1][0]}: {added} of fading are longer than the song, {whole:g} s."


def _code_problems(request: Request, name: str, code_count: int | None) -> list[str]:
    if request.codes is None:
        return []
    codes = request.codes
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
