"""Files by which a DAW takes over a song: tempo map, project and subtitles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from acestep_cli.audio.lrc import TimedLine
from acestep_cli.audio.wav_chunks import Grid, Marker

TICKS_PER_BEAT = 960
#: A line of lyrics without a next one close by is shown for so many seconds.
LONGEST_LINE = 6.0
REAPER_VERSION = ("0.1", "7.0", "0")


class DawTrack(NamedTuple):
    """A track of a project: its name, its file beside the project, and True where it is silent at first."""

    name: str
    file: str
    muted: bool


def write_tempo_map(path: Path, grid: Grid, markers: Sequence[Marker]) -> None:
    """Write a MIDI file of one track with tempo, time signature and markers."""
    import mido

    tempo = mido.bpm2tempo(grid.bpm)
    song = mido.MidiFile(ticks_per_beat=TICKS_PER_BEAT, charset="utf-8")
    track = mido.MidiTrack()
    song.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=tempo))
    track.append(mido.MetaMessage("time_signature", numerator=grid.beats, denominator=grid.unit))
    now = 0
    for marker in sorted(markers):
        tick = round(mido.second2tick(marker.seconds, TICKS_PER_BEAT, tempo))
        track.append(mido.MetaMessage("marker", text=marker.name, time=tick - now))
        now = tick
    song.save(path)


def reaper_project(
    tracks: Sequence[DawTrack], seconds: float, sample_rate: int, grid: Grid | None, markers: Sequence[Marker]
) -> str:
    """Return a REAPER project that plays the tracks from its start, with grid and markers."""
    import rpp

    lines: list[list[str] | rpp.Element] = [["SAMPLERATE", str(sample_rate), "0", "0"]]
    if grid is not None:
        lines.append(["TEMPO", f"{grid.bpm:.6g}", str(grid.beats), str(grid.unit)])
    lines += [["MARKER", str(number), f"{marker.seconds:.6f}", marker.name, "0"]
              for number, marker in enumerate(markers, start=1)]  # fmt: skip
    for track in tracks:
        source = rpp.Element("SOURCE", ["WAVE"], [["FILE", track.file]])
        item = [["POSITION", "0"], ["LENGTH", f"{seconds:.6f}"], ["NAME", track.name], source]
        muted = ["MUTESOLO", str(int(track.muted)), "0", "0"]
        lines.append(rpp.Element("TRACK", [], [["NAME", track.name], muted, rpp.Element("ITEM", [], item)]))
    text: str = rpp.dumps(rpp.Element("REAPER_PROJECT", list(REAPER_VERSION), lines))
    return text


def subtitles(lines: Sequence[TimedLine], seconds: float) -> str:
    """Return timed lyrics of a song of `seconds` as SRT; each line is shown until the next one begins."""
    import pysubs2

    found = pysubs2.SSAFile()
    ends = [*(line.seconds for line in lines[1:]), seconds]
    for line, end in zip(lines, ends, strict=True):
        shown = min(end - line.seconds, LONGEST_LINE)
        if line.text and shown > 0:
            start = round(1000 * line.seconds)
            found.append(pysubs2.SSAEvent(start=start, end=start + round(1000 * shown), text=line.text))
    text: str = found.to_string("srt")
    return text
