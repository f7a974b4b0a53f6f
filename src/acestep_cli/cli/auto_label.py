"""Labels that training songs lack, found by a Songwriter where one is installed, else by analysis."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from acestep_cli.audio import decode, measure
from acestep_cli.audio.analysis import Analyser
from acestep_cli.cli import console, songwriting
from acestep_cli.cli.console import Console
from acestep_cli.models.checkpoint_table import CheckpointRow
from acestep_cli.progress import Progress, ProgressCallback, Say
from acestep_cli.render.job import Job
from acestep_cli.render.settings import RenderSettings
from acestep_cli.song import complete, songwriter_prompts, spec, spec_layers
from acestep_cli.song.request import KEYS
from acestep_cli.song.songwriter_prompts import Sampling
from acestep_cli.training.dataset import Dataset, DatasetSong, Inspection, UsableSong

#: What a Songwriter may say of a song; words that are sung are never made up.
HEARD = ("caption", "bpm", "key", "time_signature")
ANALYSED = ("bpm", "key")


def is_missing(song: DatasetSong, keys: tuple[str, ...]) -> bool:
    return any(getattr(song.request, key) is None for key in keys)


def label_songs(
    songs: Dataset, found: Inspection, seed: int, asked: dict[str, Any], run: RenderSettings, terminal: Console
) -> Dataset:
    """Return the data set with tempo, key and, by a Songwriter, caption added to the songs that lack them.

    `asked` are the flags for the model and the Songwriter; `--songwriter none` adds nothing.
    """
    if asked["songwriter"] == "none":
        return songs
    wanting = [usable for usable in found.usable if is_missing(usable.song, ANALYSED)]
    if not wanting:
        return songs
    count = f"{len(wanting)} song{'s' * (len(wanting) > 1)}"
    longest = max(CheckpointRow.shortest_seconds, *(usable.facts.seconds for usable in found.usable))
    # Planned as a render of the same length, which needs more.
    layers = [spec_layers.from_flags({**asked, "caption": "a recording", "duration": str(longest)})]
    job = songwriting.plan_writing(spec.resolve(*layers), layers, run)
    if job.songwriter is not None:
        terminal.say(f"The Songwriter {job.songwriter.name} fills in what is unset of {count}; review it")
        with songwriting.songwriter_progress(job, terminal) as report:
            told = label_by_songwriter(wanting, job, seed, report, terminal.warn)
    elif measure.has_analyser():
        terminal.say(f"{measure.ANALYSER} estimates tempo and key of {count}; review them")
        with terminal.progress() as report:
            told = label_by_analysis(wanting, console.analyser(terminal, report), partial(report, "analyse"))
    else:
        terminal.warn(
            f"Tempo or key of {count} stay unset, because nothing installed estimates them; `acestep models pull 0.6B` "
            f"or `{measure.INSTALL}` adds what does."
        )
        return songs
    return replace(songs, songs=tuple(song.with_labels(told.get(song.name, {})) for song in songs.songs))


def label_by_songwriter(
    usable_songs: list[UsableSong], job: Job, seed: int, report: ProgressCallback, say: Say
) -> dict[str, dict[str, Any]]:
    """Return the labels that a Songwriter finds for each song, by name; `say` takes warnings about memory."""
    from acestep_cli.pipeline import Pipeline  # loads torch

    pipeline = Pipeline(job.checkpoint, job.plan, job.songwriter)
    codes = list(
        pipeline.codes(job.request, (decode.read_audio(usable.song.path) for usable in usable_songs), report, say)
    )
    how = Sampling(temperature=songwriting.LISTENING)
    found = {}
    for usable, heard in zip(usable_songs, codes, strict=True):
        task = songwriter_prompts.understanding_task(heard, int(usable.facts.seconds))
        told = complete.mark_instrumental(pipeline.write(job.request, task, how, seed, report, say))
        found[usable.song.name] = {key: told[key] for key in HEARD if told.get(key) is not None}
    return found


def label_by_analysis(
    usable_songs: list[UsableSong], analyser: Analyser, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Return the tempo and key that analysis finds for each song, by name."""
    found = {}
    for number, usable in enumerate(usable_songs):
        progress(number, len(usable_songs))
        sound = decode.read_audio(usable.song.path)
        found[usable.song.name] = {
            "bpm": tempo_in_range(analyser.tempo(sound)),
            "key": analyser.key(sound),
        }
    progress(len(usable_songs), len(usable_songs))
    return found


def tempo_in_range(tempo: float | None) -> int | None:
    """Return a tempo that a spec allows, halved or doubled where that brings it into the range; else None."""
    if tempo is None:
        return None
    tempo_range = KEYS["bpm"].kind
    for beats in (round(tempo), round(2 * tempo), round(tempo / 2)):
        if tempo_range.low <= beats <= tempo_range.high:  # type: ignore[attr-defined]
            return beats
    return None
