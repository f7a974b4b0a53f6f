"""Hand takes over to another program: files of equal length, with grid, markers and lyrics in its own formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from acestep_cli import disk
from acestep_cli.audio import daw, encode, lrc, measure, wav_chunks
from acestep_cli.audio.loudness import Level
from acestep_cli.audio.sound import Audio, join_blocks, one_second_blocks, resample
from acestep_cli.audio.wav_chunks import Grid, Marker
from acestep_cli.errors import ExistsError, OutputError, UsageError
from acestep_cli.progress import Say
from acestep_cli.render import export_record
from acestep_cli.render.take_file import TakeFile
from acestep_cli.song.musical_values import MusicalKey

#: The depths of the files, which a DAW computes with.
BIT_DEPTHS = ("24", "32f")
#: Names of the files beside the tracks.
TEMPO_MAP, PROJECT, LYRICS, SUBTITLES = "tempo.mid", "song.rpp", "lyrics.lrc", "lyrics.srt"
#: The name of the track with the whole song.
MIX = "mix"
#: The end of a file's name that tells its part, where no sidecar does.
PARTS = re.compile(r"-(mix|residual)(-\d+)?$")
#: A larger share between the tempo that was asked for and the measured one is worth a warning.
TEMPO_TOLERANCE = 0.02
DEFAULT_METER = (4, 4)


@dataclass(frozen=True)
class ExportTrack:
    """A track of an export: its take, its name, the name of its file, and True where it is the whole song."""

    take: TakeFile
    name: str
    file: str
    is_mix: bool


def name_tracks(takes: Sequence[TakeFile]) -> list[ExportTrack]:
    """Return the tracks of takes in their order, each with a name of its own: a stem's is that of its track."""
    has_stems = any(stem_of(take) is not None for take in takes)
    tracks: list[ExportTrack] = []
    for number, take in enumerate(takes, start=1):
        kind = part_of_song(take, alone=len(takes) == 1, has_stems=has_stems)
        name = kind or plain_name(take.path.stem)
        same = sum(each.name == name or each.name.startswith(f"{name} ") for each in tracks)
        unique = f"{name} {same + 1}" if same else name
        tracks.append(ExportTrack(take, unique, f"{number:02} {unique}.wav", is_mix=kind == MIX))
    return tracks


def plain_name(name: str) -> str:
    """Return a name as projects can hold it: in one line of text, without the one quote that they cannot write."""
    return "".join(sign if sign.isprintable() else "_" for sign in name.replace("`", "'"))


def part_of_song(take: TakeFile, *, alone: bool, has_stems: bool) -> str | None:
    """Return which part of a song a take is: mix, residual or the track of a stem; None where that is not known.

    A song that was made from words alone is the mix of the stems beside it.
    """
    part = PARTS.search(take.path.stem)
    if part is not None:
        return part[1]
    if (stem := stem_of(take)) is not None:
        return stem
    return MIX if alone or (has_stems and take.made is not None and take.request.source is None) else None


def stem_of(take: TakeFile) -> str | None:
    """Return the track of a stem; None for other takes."""
    track = take.request.track
    return track[0] if track is not None and len(track) == 1 and PARTS.search(take.path.stem) is None else None


def whole_song(tracks: Sequence[ExportTrack]) -> ExportTrack:
    """Return the track that is measured and whose lyrics and sections count: the mix, else the first with lyrics."""
    mixes = [track for track in tracks if track.is_mix]
    sung = [track for track in tracks if track.take.request.lyrics is not None]
    return [*mixes, *sung, *tracks][0]


def find_grid(song: TakeFile, warn: Say) -> Grid | None:
    """Return the grid of a song: the measured tempo and root note, and the time signature that was asked for.

    Without an analyser, or without a beat to be heard, tempo and key are those that were asked for; None where there
    is no tempo at all. `warn` receives what differs from what was asked.
    """
    asked, key = song.request.bpm, song.request.key
    measured = None
    if measure.has_analyser():
        measured = measure.measure_tempo(song.sound, near=asked)
        key = key or measure.estimate_key(song.sound)
        if measured is None:
            warn(f"{song.path.name}: no beat is heard in it{', so the tempo is that asked for' if asked else ''}.")
        elif asked is not None and abs(measured / asked - 1) > TEMPO_TOLERANCE:
            warn(f"{song.path.name} has {measured:.2f} bpm where {asked} was asked for; the grid is as measured.")
    else:
        warn(f"{measure.ANALYSER} is not installed, so the tempo is not measured: {measure.INSTALL}")
    bpm = measured or asked
    if bpm is None:
        warn("There is no tempo: the grid is left out.")
        return None
    beats, unit = DEFAULT_METER if song.request.time_signature is None else parse_meter(song.request.time_signature)
    root = None if key is None else MusicalKey.pitch(key)[0]
    return Grid(bpm=float(bpm), beats=beats, unit=unit, root=root)


def parse_meter(signature: str) -> tuple[int, int]:
    """Return the two numbers of a time signature such as 6/8."""
    beats, _, unit = signature.partition("/")
    return int(beats), int(unit)


def find_markers(song: TakeFile, warn: Say) -> list[Marker]:
    """Return the sections of a song as markers; `warn` receives why there are none, or that they are estimated."""
    if song.made is None:
        warn(f"{song.path.name} has no sidecar, so its sections are not known: markers are left out.")
        return []
    sections = song.sections
    if any(not section.sure for section in sections):
        warn(f"{song.path.name} has no timed lyrics, so the places of its sections are estimated.")
    return [Marker(section.seconds, section.name) for section in sections]


def timed_lyrics(song: TakeFile, warn: Say) -> tuple[lrc.TimedLine, ...]:
    """Return the timed lines of the LRC beside a take; none where there is no such file, or no words in it. Lines after
    the end of the song are left out, of which `warn` hears.
    """
    found = lrc.parse_lrc(lrc.read_beside(song.path) or "")
    lines = tuple(line for line in found if line.seconds < song.sound.seconds)
    if late := len(found) - len(lines):
        warn(f"{lrc.lrc_path(song.path)}: {late} of {len(found)} lines are after the end of the song, and left out.")
    return lines if any(line.text for line in lines) else ()


def export_for_daw(
    takes: Sequence[TakeFile], folder: Path, bit_depth: str, warn: Say, say: Say, *, force: bool
) -> list[Path]:
    """Write takes into `folder` for a DAW, all files or none, and return their paths, the tracks first.

    All tracks have the rate of the first and the length of the longest. What an earlier export wrote and this one does
    not is removed, which `say` hears. Raises `ExistsError` where a file of that name exists, unless `force`, and
    `OutputError` where the folder cannot be written.
    """
    tracks = name_tracks(takes)
    song = whole_song(tracks)
    rate = tracks[0].take.sound.sample_rate
    samples = max(round(track.take.sound.seconds * rate) for track in tracks)
    lines = timed_lyrics(song.take, warn)
    paths = [folder / track.file for track in tracks]
    extra = [folder / name for name in (PROJECT, TEMPO_MAP, *((LYRICS, SUBTITLES) if lines else ()))]
    refuse_twice(takes)
    refuse_inputs(takes, [*paths, *extra])
    require_new([*paths, *extra], force=force)
    warn_of_overs(tracks, bit_depth, warn)
    grid, markers = find_grid(song.take, warn), find_markers(song.take, warn)
    if grid is None:
        extra.remove(folder / TEMPO_MAP)
    chunks = wav_chunks.marker_chunks(markers, rate) if markers else b""
    if grid is not None:
        chunks += wav_chunks.grid_chunk(grid, samples / rate)
    files = [*paths, *extra]
    before, record = export_record.read_record(folder), export_record.record_file(folder)
    with disk.write_whole(*files, record, replace=[*(files if force else ()), record]) as [*parts, record_part]:
        part_of = dict(zip(files, parts, strict=True))
        for track, path in zip(tracks, paths, strict=True):
            write_track(part_of[path], equally_long(track.take.sound, rate, samples), bit_depth, chunks)
        several = len(tracks) > 1
        shown = [daw.DawTrack(track.name, track.file, muted=several and track.is_mix) for track in tracks]
        project = daw.reaper_project(shown, samples / rate, rate, grid, markers)
        part_of[folder / PROJECT].write_text(project, encoding="utf-8")
        if grid is not None:
            daw.write_tempo_map(part_of[folder / TEMPO_MAP], grid, markers)
        if lines:
            part_of[folder / LYRICS].write_text(lrc.dump_lrc(lines), encoding="utf-8")
            part_of[folder / SUBTITLES].write_text(daw.subtitles(lines, samples / rate), encoding="utf-8")
        disk.write_text(record_part, export_record.record_text([(file.name, part_of[file]) for file in files]))
    if force:
        kept = [*files, *(take.path for take in takes)]
        for file in export_record.remove_outdated(folder, before, kept, warn):
            say(f"{file}: removed, for it was of the earlier export")
    return files


def equally_long(sound: Audio, rate: int, samples: int) -> Audio:
    """Return a sound at `rate` with silence after it, `samples` long."""
    return join_blocks(one_second_blocks(resample(sound, rate)), samples, rate)


def write_track(path: Path, sound: Audio, bit_depth: str, chunks: bytes) -> None:
    """Write a WAV with chunks after its sound. Silence is a track too, and levels stay as they are."""
    level = Level(peak=0.0, gain=1.0, clips=bit_depth != encode.FLOATING)
    encode.encode_by_libsndfile(path, sound, encode.resolve_encoding("wav", bit_depth), level)
    wav_chunks.append_chunks(path, chunks)


def warn_of_overs(tracks: Sequence[ExportTrack], bit_depth: str, warn: Say) -> None:
    """Warn of tracks over full scale, which fixed-point samples clip."""
    for track in tracks:
        highest = track.take.measures.peak_dbfs
        if bit_depth != encode.FLOATING and highest is not None and highest > 0:
            warn(f"{track.take.path.name} peaks at {highest:+.1f} dBFS and is clipped; --bit-depth 32f keeps it.")


def refuse_twice(takes: Sequence[TakeFile]) -> None:
    """Raise `UsageError` where a take is given more than once."""
    files = [take.path.resolve() for take in takes]
    for take in takes:
        if (times := files.count(take.path.resolve())) > 1:
            raise UsageError(f"{take.path} is given {times} times.", "Name each take once.")


def refuse_inputs(takes: Sequence[TakeFile], files: Sequence[Path]) -> None:
    """Raise `UsageError` where a file of the export is one of the takes."""
    sources = {take.path.resolve() for take in takes}
    for file in files:
        if file.resolve() in sources:
            raise UsageError(f"{file} is one of the takes to export; it stays.", "Choose another folder: -o FOLDER/.")


def require_new(files: Sequence[Path], *, force: bool) -> None:
    """Make the folder of `files`. Raises `ExistsError` where one of them exists, unless `force`."""
    folder = files[0].parent
    if disk.is_taken(folder) and not folder.is_dir():
        raise OutputError(f"{folder} is a file, and an export needs a folder.", "Name another one: -o FOLDER/.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk.write_error(folder, error) from error
    taken = [file for file in files if disk.is_taken(file)]
    if taken and not force:
        raise ExistsError(taken[0], hint="--force exports into the same files again.")


@dataclass(frozen=True)
class Target:
    """A program to export to: its summary, and the function that writes for it."""

    summary: str
    write: Callable[..., list[Path]]


#: What takes can be exported for, a row each; each is a flag of `acestep export`.
TARGETS = {
    "daw": Target("WAV tracks of equal length with markers, a tempo map, lyrics and a REAPER project", export_for_daw)
}
