"""Judge the built-in checkpoint on songs it never saw, next to the truth.

    pip install -e '.[evaluate]'
    python pocket/evaluate.py --count 60

Every behaviour goes through the program's own pipeline, eight steps, one seed each; `ears.py` listens, to what the
checkpoint makes and to true renders of the same songs alike. Prints a table with the mean over the songs, its 95 %
interval (bootstrap), the truth's score where there is one, and what was aimed at.

Shapes: audio is [2, N] float32 at 48 kHz.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import band
import corpus
import ears
import fidelity
import ideas
import joblib
import numpy as np
import soundfile
import torch
from sounds import SAMPLE_RATE, TIMBRES

from acestep_cli.audio import splice
from acestep_cli.audio.sound import Audio, one_second_blocks
from acestep_cli.cli import songwriting
from acestep_cli.engine.weights import WeightStore
from acestep_cli.machine import hardware
from acestep_cli.machine import plan as planning
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.checkpoint_files import Songwriter
from acestep_cli.models.sizes import Sizes
from acestep_cli.models.songwriters import needed_songwriters
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete, songwriter_prompts
from acestep_cli.song.request import Request
from acestep_cli.take import Take

JUDGED = 240  # songs of the training corpus that the classifiers are fitted on, truth only
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
EXTRACTED = ("vocals", "drums", "bass")
ADDED = ("drums", "bass")
GRID_SHARE = 1.3  # onsets of added drums are that much stronger where the truth's are than anywhere
KEY_SHARE = 0.8  # of an added bass lies in the key
USUAL_STEPS = 95  # a seam clicks where its step is larger than at so many per cent of places in the song
IDEA_SECONDS = (3, 60)  # a song written from an idea is this long
BOOTSTRAPS = 2000

JUDGED_BY = ("sounds", "corpus", "band", "mixing", "fidelity", "ears")  # what the classifiers depend on


@dataclass(frozen=True)
class Score:
    """One observation: a line of the table, who was heard (`pocket` or `truth`), and how well it did, of how much.

    A line shows the sum of the values over the sum of the wholes.
    """

    line: str
    who: str
    value: float
    whole: float = 1.0


@dataclass(frozen=True)
class Line:
    """A line of the table: what is measured, and what is aimed at, at least or `at_most`; `relative` to the truth's."""

    title: str
    aim: float | None = None
    relative: bool = False
    at_most: bool = False

    def met(self, reached: float, aim: float) -> bool:
        return reached <= aim + 1e-9 if self.at_most else reached >= aim - 1e-9


LINES = {
    "tempo": Line("tempo as asked (4 %, octaves allowed)", 0.95, relative=True),
    "key": Line("key as asked, or its relative", 0.9, relative=True),
    "drums": Line("drums where they are asked", 0.95),
    "no drums": Line("no drums where none are asked", 0.9),
    "voice": Line("a voice where there are lyrics", 0.9),
    "no voice": Line("no voice where there are none", 0.9),
    "sections": Line("bars as loud and dense as their sections (rank correlation)", 0.5),
    "stereo": Line("stereo: side against mid, dB from the truth's", 4.0, at_most=True),
    "spectrum": Line("long-term spectrum, octaves from 63 Hz to 12 kHz: dB from the truth's", 3.0, at_most=True),
    "codes tempo": Line("tempo as asked, from the Songwriter's codes", 0.75),
    "codes key": Line("key as asked, or its relative, from the Songwriter's codes", 0.8),
    "vae mel": Line("autoencoder: log-mel distance, dB", 4.5, at_most=True),
    "vae stereo": Line("autoencoder: side against mid, dB from the truth's", 4.0, at_most=True),
    "vae spectrum": Line("autoencoder: long-term spectrum, dB from the truth's", 3.0, at_most=True),
    "vae tempo": Line("autoencoder: tempo kept where the truth's is heard", 0.95),
    "vae key": Line("autoencoder: key kept where the truth's is heard", 0.95),
    "vae drums": Line("autoencoder: drums heard where the truth has some"),
    "vae no drums": Line("autoencoder: no drums heard where the truth has none"),
    "vae voice": Line("autoencoder: a voice heard where the truth has one"),
    "vae no voice": Line("autoencoder: no voice heard where the truth has none"),
    **{f"cover {s:.0%}": Line(f"cover: likeness to the source at strength {s:.0%}") for s in STRENGTHS},
    "cover rises": Line("cover: 100 % is more like the source than 0 %", 0.9),
    "repaint follows": Line("repaint: the inside goes over to the new style", 0.8),
    "repaint control": Line("repaint: the same of the source through the autoencoder, for comparison"),
    "repaint outside": Line("repaint: outside equals the source", 1.0),
    "repaint clicks": Line("repaint: no seam steps more than 95 % of places in the song do", 0.95),
    "extract gain": Line("extract: gain in SI-SDR, as a share of the true stem's through the autoencoder", 0.5),
    "extract mel": Line("extract: nearer to the stem than the mixture is (log-mel)", 0.9),
    "lego": Line("lego: the track is there, in time or in key", 0.75),
    "complete": Line("complete: the track is there, in time or in key", 0.75),
    "reference": Line("reference: timbre and brightness nearer to it than without", 0.7),
    "edit follows": Line("edit: goes over to the new style"),
    "edit control": Line("edit: the same of the source through the autoencoder, for comparison"),
    "edit tempo": Line("edit: tempo kept where the source's is heard"),
    "edit key": Line("edit: key kept where the source's is heard"),
    "variation": Line("variation: one of 15 % is more like the take (log-mel) than another seed's take"),
    "write": Line("write: what the idea names (bpm, key, pace, style, instruments, voice) is in the song", 0.8),
    "idea": Line("write: words of ideas by hand (ideas.yaml, those in English) in the caption", 0.8),
    "describe tempo": Line("describe: tempo (4 %, octaves allowed)", 0.75),
    "describe key": Line("describe: key, or its relative", 0.8, relative=True),
    "seeds differ": Line("four takes differ", 1.0),
    "seeds repeat": Line("the same seed gives the same take", 1.0),
}


class Studio:
    """The checkpoint behind the program's own pipeline."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.checkpoint = checkpoints.find_checkpoint(checkpoint_table.BUILT_IN)
        self.machine = hardware.detect()

    def planned(self, helper: Songwriter | None = None, **asked: object) -> tuple[complete.Completed, planning.Plan]:
        completed = complete.complete(Request(**asked), self.checkpoint, helper)
        sizes = Sizes.of(self.checkpoint, helper)
        return completed, planning.plan_render(self.machine, completed, planning.MachineRequest(), sizes)

    def render(self, helper: Songwriter | None = None, **asked: object) -> list[Take]:
        completed, plan = self.planned(helper, **asked)
        return list(Pipeline(self.checkpoint, plan, helper).run([completed], quiet))

    def through(self, audio: np.ndarray) -> np.ndarray:
        """Audio through the autoencoder and back."""
        _, plan = self.planned(caption="any", duration=audio.shape[1] / SAMPLE_RATE, seed=0)
        store = WeightStore(self.checkpoint, plan, quiet)
        with torch.inference_mode(), store.vae() as vae:
            return vae.decode(vae.encode(torch.from_numpy(audio)[None].to(store.dtype)))[0].float().numpy()

    def songwriter(self) -> Songwriter:
        [helper] = needed_songwriters(checkpoint_table.BUILT_IN, self.checkpoint, None, "The evaluation")
        return helper

    def codes(self, audio: np.ndarray) -> tuple[int, ...]:
        completed, plan = self.planned(caption="any", duration=audio.shape[1] / SAMPLE_RATE, seed=0)
        [found] = Pipeline(self.checkpoint, plan).codes(completed, [Audio(audio, SAMPLE_RATE)], quiet, quiet)
        return found

    def answer(
        self, task: songwriter_prompts.WritingTask, how: songwriter_prompts.Sampling, seed: int
    ) -> dict[str, object]:
        """What the Songwriter makes of a task, as keys of a request."""
        helper = self.songwriter()
        completed, plan = self.planned(helper, caption="any", duration=10, seed=seed)
        return Pipeline(self.checkpoint, plan, helper).write(completed, task, how, seed, quiet, quiet)


def quiet(*_: object) -> None:
    """Hears reports and remarks, and keeps them to itself."""


@cache
def studio() -> Studio:
    return Studio()


@dataclass(frozen=True)
class Case:
    """A held-out song, its stems, and a folder for the files that modes read."""

    number: int
    piece: corpus.Song
    stems: dict[str, np.ndarray]
    judges: ears.Judges | None  # None for behaviours that are not judged by them
    folder: Path

    @property
    def mix(self) -> np.ndarray:
        return sum(self.stems.values())

    def prompt(self, piece: corpus.Song | None = None, **other: object) -> dict[str, object]:
        """The keys of a request for the song, or for `piece`."""
        piece = piece or self.piece
        words = {"lyrics": piece.lyrics, "language": piece.language} if piece.voiced else {"lyrics": piece.lyrics}
        return {"caption": piece.caption, **words, "bpm": piece.bpm, "key": piece.key, "seed": self.number,
                "time_signature": piece.time_signature, **other}  # fmt: skip

    def file(self, name: str, audio: np.ndarray) -> str:
        path = self.folder / f"{self.number:03d}-{name}.wav"
        soundfile.write(path, audio.T, SAMPLE_RATE, subtype="FLOAT")
        return str(path)

    def restyled(self) -> corpus.Song:
        """The song in another style."""
        return corpus.restyled(self.piece, np.random.default_rng([self.number, 3]))


def heard(take: Take) -> np.ndarray:
    return take.audio.samples


def follows_prompt(case: Case) -> Iterator[Score]:
    """Tempo, key, voice, sections and seeds of text to music."""
    piece, prompt = case.piece, case.prompt(duration=case.piece.duration)
    takes = [heard(take) for take in studio().render(**prompt, takes=4)]
    for who, audio in (("truth", case.mix), ("pocket", takes[0])):
        found = ears.listen(audio)
        yield Score("tempo", who, found.keeps_time(piece.bpm))
        yield Score("key", who, found.is_in(piece.tonic, piece.mode))
        yield asked_for("voice", who, case.judges.sings(audio), piece.voiced)
        if who == "pocket":
            yield Score("stereo", who, abs(fidelity.side_db(audio) - fidelity.side_db(case.mix)))
            yield Score("spectrum", who, fidelity.spectra_apart(audio, case.mix))
        if len(piece.parts) > 1:
            yield Score("sections", who, section_sense(piece, audio))
    apart = [np.abs(a - b).max() for k, a in enumerate(takes) for b in takes[:k]]
    yield Score("seeds differ", "pocket", min(apart) > 0.01)
    again = heard(studio().render(**{**prompt, "seed": case.number + 2})[0])
    yield Score("seeds repeat", "pocket", np.array_equal(again, takes[2]))


def plays_drums(case: Case) -> Iterator[Score]:
    """As the song is and the other way, so that every song is asked for with drums and without."""
    before = case.piece.left_out
    left_out = tuple(part for part in corpus.LEFT_OUT if (part in before) != (part == "drums"))
    other = corpus.describe(replace(case.piece, left_out=left_out), np.random.default_rng([case.number, 5]))
    for piece in (case.piece, other):
        truth, asked = band.render(piece), "drums" in piece.tracks
        yield asked_for("drums", "truth", case.judges.has_drums(truth), asked)
        yield asked_for("vae drums", "pocket", case.judges.has_drums(studio().through(truth)), asked)
        [take] = studio().render(**case.prompt(piece, duration=piece.duration))
        yield asked_for("drums", "pocket", case.judges.has_drums(heard(take)), asked)


def asked_for(line: str, who: str, found: bool, asked: bool) -> Score:
    """A score of `line` where something is asked for; of the line that says no where it is not."""
    *what, name = line.split()
    return Score(line if asked else " ".join([*what, "no", name]), who, found == asked)


def follows_codes(case: Case) -> Iterator[Score]:
    """Tempo and key of text to music as it is without `--no-think`: from codes of the Songwriter."""
    [take] = studio().render(studio().songwriter(), **case.prompt(duration=case.piece.duration))
    found = ears.listen(heard(take))
    yield Score("codes tempo", "pocket", found.keeps_time(case.piece.bpm))
    yield Score("codes key", "pocket", found.is_in(case.piece.tonic, case.piece.mode))


def section_sense(piece: corpus.Song, audio: np.ndarray) -> float:
    """The mean rank correlation of the bars' levels and densities with what the layout rule makes of them."""
    from scipy.stats import spearmanr

    forces = {"none": 0.0, "light": 0.5, "full": 1.0, "big": 1.2}
    asked = []
    for part in piece.parts:
        section = corpus.SECTIONS[part.tag]
        drums = 0.0 if "drums" in piece.left_out else forces[section.drums]
        bass = 0.0 if "bass" in piece.left_out else section.bass
        asked += [drums + bass + 0.5 * section.chords + 0.5 * section.lead] * part.bars
    found = [spearmanr(asked[: len(measured)], measured).statistic for measured in ears.bars(piece, audio)]
    return float(np.nan_to_num(found).mean())


def survives_autoencoder(case: Case) -> Iterator[Score]:
    back = studio().through(case.mix)
    yield Score("vae mel", "pocket", fidelity.apart(back, case.mix))
    yield Score("vae stereo", "pocket", abs(fidelity.side_db(back) - fidelity.side_db(case.mix)))
    yield Score("vae spectrum", "pocket", fidelity.spectra_apart(back, case.mix))
    yield asked_for("vae voice", "pocket", case.judges.sings(back), case.piece.voiced)
    before, after = ears.listen(case.mix), ears.listen(back)
    if before.keeps_time(case.piece.bpm):
        yield Score("vae tempo", "pocket", after.keeps_time(case.piece.bpm))
    if before.is_in(case.piece.tonic, case.piece.mode):
        yield Score("vae key", "pocket", after.is_in(case.piece.tonic, case.piece.mode))


def covers(case: Case) -> Iterator[Score]:
    source, other = case.file("mix", case.mix), case.restyled()
    alike = []
    for strength in STRENGTHS:
        [take] = studio().render(**case.prompt(other), mode="cover", source=source, strength=strength)
        alike.append(ears.likeness(heard(take), case.mix))
        yield Score(f"cover {strength:.0%}", "pocket", alike[-1])
    yield Score("cover rises", "pocket", alike[-1] > alike[0])


def repaints(case: Case) -> Iterator[Score]:
    """The middle half, in another style."""
    source, other = case.file("mix", case.mix), case.restyled()
    start, end = case.piece.duration / 4, case.piece.duration * 3 / 4
    [take] = studio().render(**case.prompt(other), mode="repaint", source=source, start=start, end=end)
    inside = slice(int(start * SAMPLE_RATE), int(end * SAMPLE_RATE))
    before, after, unchanged = (
        case.judges.leaning(audio[:, inside], other.style, case.piece.style)
        for audio in (case.mix, heard(take), studio().through(case.mix))
    )
    yield Score("repaint follows", "pocket", after > before and after > 0)
    yield Score("repaint control", "pocket", unchanged > before and unchanged > 0)
    yield Score("repaint outside", "pocket", outside_difference(take, case.mix) == 0)
    usual = np.percentile(steps_elsewhere_db(take, case.number), USUAL_STEPS)
    yield Score("repaint clicks", "pocket", all(step <= usual for step in seam_steps_db(take)))


def outside_difference(take: Take, source: np.ndarray) -> float:
    """Return the largest difference of a repainted take from its source, where it was not made anew."""
    assert take.splice is not None
    made, frames = heard(take), source.shape[1]
    return max(float(np.abs(made[:, start:min(end, frames)] - source[:, start:end]).max(initial=0))
               for start, end in take.splice.untouched)  # fmt: skip


def seam_steps_db(take: Take) -> list[float]:
    """Return the step at each seam of a repainted take, relative to what is around it."""
    assert take.splice is not None
    meter = splice.SpliceMeter(take.audio, take.splice, take.audio.sample_rate)
    for block in one_second_blocks(take.audio):
        meter.add(block)
    return [value for name, value in meter.checks().items() if name.startswith("seam")]


def steps_elsewhere_db(take: Take, seed: int) -> list[float]:
    """Return the same of 200 places drawn anywhere in the take: a cymbal steps too, and is no click."""
    assert take.splice is not None
    start, end = take.splice.crossfades[0]
    places = np.random.default_rng(seed).integers(0, heard(take).shape[1] - (end - start), 200)
    found = []
    for place in places:
        seam = splice.Seam(int(place), int(place) + end - start, take.audio.sample_rate)
        seam.add(heard(take), 0)
        found.append(seam.step_db())
    return found


def edits(case: Case) -> Iterator[Score]:
    """The whole song, described in another style; words, tempo and key stay."""
    source, piece, other = case.file("mix", case.mix), case.piece, case.restyled()
    asked = {**case.prompt(), "caption": other.caption, "from_caption": piece.caption}
    made = heard(studio().render(**asked, mode="edit", source=source)[0])
    before, after, unchanged = (
        case.judges.leaning(audio, other.style, piece.style) for audio in (case.mix, made, studio().through(case.mix))
    )
    yield Score("edit follows", "pocket", after > before and after > 0)
    yield Score("edit control", "pocket", unchanged > before and unchanged > 0)
    was, found = ears.listen(case.mix), ears.listen(made)
    if was.keeps_time(piece.bpm):
        yield Score("edit tempo", "pocket", found.keeps_time(piece.bpm))
    if was.is_in(piece.tonic, piece.mode):
        yield Score("edit key", "pocket", found.is_in(piece.tonic, piece.mode))


def varies(case: Case) -> Iterator[Score]:
    """A small variation of a take, which is nearer to it than the take of another seed."""
    prompt = case.prompt(duration=case.piece.duration)
    first, second = (heard(take) for take in studio().render(**prompt, takes=2))
    varied = heard(studio().render(**prompt, variation=0.15, variation_seed=case.number + 1000)[0])
    yield Score("variation", "pocket", 0 < fidelity.apart(varied, first) < fidelity.apart(second, first))


def extracts(case: Case) -> Iterator[Score]:
    tracks = [track for track in EXTRACTED if track in case.stems and ears.level_db(case.stems[track]) > ears.QUIET_DB]
    if not tracks or len(case.stems) < 2:
        return
    source = case.file("mix", case.mix)
    for track in tracks:
        truth = case.stems[track]
        [take] = [t for t in studio().render(mode="extract", source=source, track=[track], seed=case.number)
                  if t.track == track]  # fmt: skip
        mixture = ears.si_sdr(case.mix, truth)
        most = ears.si_sdr(studio().through(truth), truth) - mixture
        yield Score("extract gain", "pocket", ears.si_sdr(heard(take), truth) - mixture, most)
        yield Score("extract mel", "pocket", fidelity.apart(heard(take), truth) < fidelity.apart(case.mix, truth))


def adds(case: Case) -> Iterator[Score]:
    """A track that the rest of the band lacks: as a stem, and within the song."""
    for track in ADDED:
        if track not in case.stems or len(case.stems) < 2:
            continue
        rest = case.mix - case.stems[track]
        source = case.file(f"without-{track}", rest)
        asked = {**case.prompt(), "source": source, "track": [track]}
        stem = heard(studio().render(**asked, mode="lego")[0])
        whole = heard(studio().render(**asked, mode="complete")[0])
        yield Score("lego", "truth", fits(case, track, case.stems[track]))
        yield Score("lego", "pocket", fits(case, track, stem))
        n = min(whole.shape[1], rest.shape[1])
        if track == "drums":
            yield Score("complete", "pocket", case.judges.has_drums(whole) and in_time(case, whole))
        else:
            added = ears.level_db(bass_band(whole[:, :n])) - ears.level_db(bass_band(rest[:, :n])) > 6
            yield Score("complete", "pocket", added and ears.in_key(bass_band(whole), case.piece) > KEY_SHARE)


def fits(case: Case, track: str, stem: np.ndarray) -> bool:
    if ears.level_db(stem) < ears.QUIET_DB:
        return False
    return in_time(case, stem) if track == "drums" else ears.in_key(stem, case.piece) > KEY_SHARE


def in_time(case: Case, audio: np.ndarray) -> bool:
    """Whether there are stronger onsets where the true drums have theirs."""
    import librosa

    truth, made = (librosa.onset.onset_strength(y=ears.low(a), sr=ears.RATE) for a in (case.stems["drums"], audio))
    n = min(len(truth), len(made))
    struck = truth[:n] > np.quantile(truth[:n], 0.85)
    return bool(made[:n][struck].mean() > GRID_SHARE * made[:n].mean())


def bass_band(audio: np.ndarray) -> np.ndarray:
    from scipy.signal import butter, sosfiltfilt

    return sosfiltfilt(butter(4, 160, "low", fs=SAMPLE_RATE, output="sos"), audio, axis=1).astype(np.float32)


def takes_after(case: Case) -> Iterator[Score]:
    """A song without a caption, with and without another song as its reference."""
    other = band.render(corpus.song(corpus.HELD_OUT + case.number + 500))
    prompt = case.prompt(caption="music", duration=case.piece.duration)
    plain = heard(studio().render(**prompt)[0])
    led = heard(studio().render(**prompt, reference=[case.file("reference", other)])[0])
    nearer = [
        np.abs(measure(led) - measure(other)).mean() < np.abs(measure(plain) - measure(other)).mean()
        for measure in (ears.centroid, lambda audio: fidelity.log_mel(audio).mean(1))
    ]
    yield Score("reference", "pocket", float(np.mean(nearer)))


def writes(case: Case) -> Iterator[Score]:
    """An idea becomes a song: every fact that it names is looked for."""
    piece = case.piece
    idea = corpus.idea(piece, np.random.default_rng([case.number, 4]))
    request = Request(idea=idea, instrumental=not piece.voiced)
    task = songwriter_prompts.idea_task(request, ("caption", "lyrics"), IDEA_SECONDS)
    found = studio().answer(task, songwriter_prompts.Sampling.of(request), case.number)
    caption, bpm = str(found["caption"]), int(str(found["bpm"]))
    style = corpus.STYLES[piece.style]
    plain = re.sub("|".join(style.names), "", idea)  # "piano ballad" names no piano
    named = [name for name in (*TIMBRES, *style.drum_words, "no drums", "no bass") if name in plain]
    facts = [name in caption for name in named]
    facts += [any(name in caption for name in style.names)] * (plain != idea)
    facts += [abs(bpm / piece.bpm - 1) < ears.TEMPO_TOLERANCE] * (f"{piece.bpm} bpm" in idea)
    facts += [corpus.pace(bpm) == corpus.pace(piece.bpm)] * (corpus.pace(piece.bpm) in plain)
    facts += [ears.pitch_and_mode(str(found["key"])) == (piece.tonic, piece.mode)] * (piece.key in idea)
    facts += [(found["lyrics"] is not None) == piece.voiced]
    yield from (Score("write", "pocket", fact) for fact in facts)


def keeps_ideas(case: Case) -> Iterator[Score]:
    """An idea that somebody wrote, of which the caption should have each word."""
    known = [idea for idea in ideas.ideas() if idea.language == "en"]
    turn, place = divmod(case.number, len(known))
    caption = str(ideas.write(known[place].idea, turn)["caption"])
    yield from (Score("idea", "pocket", kept) for _, _, kept in known[place].kept(caption))


def describes(case: Case) -> Iterator[Score]:
    """Tempo and key of a recording, from its codes alone; the truth's score is the analysers'."""
    piece, seconds = case.piece, int(case.piece.duration)
    task = songwriter_prompts.understanding_task(studio().codes(case.mix), seconds)
    found = studio().answer(task, songwriter_prompts.Sampling(temperature=songwriting.LISTENING), case.number)
    told = ears.Heard(float(str(found["bpm"])), *ears.pitch_and_mode(str(found["key"])))
    for who, answer in (("truth", ears.listen(case.mix)), ("pocket", told)):
        yield Score("describe tempo", who, answer.keeps_time(piece.bpm))
        yield Score("describe key", who, answer.is_in(piece.tonic, piece.mode))


BEHAVIOURS: tuple[Callable[[Case], Iterator[Score]], ...] = (
    follows_prompt, plays_drums, follows_codes, survives_autoencoder, covers, repaints, edits, varies, extracts, adds,
    takes_after, writes, keeps_ideas, describes,
)  # fmt: skip
# Those that do without the classifiers, which take an hour to fit.
UNJUDGED = {
    behaviour.__name__
    for behaviour in (follows_codes, covers, varies, extracts, takes_after, writes, keeps_ideas, describes)
}


def take_weights(folder: Path | None) -> None:
    """Judge the weights in another folder than the built-in checkpoint's."""
    if folder:
        checkpoints.BUILT_IN_ROOT = folder.resolve()


def judge(number: int, judges: ears.Judges | None, only: list[str] | None, save: Path | None) -> list[Score]:
    """All that is to be heard of one held-out song."""
    piece = corpus.song(corpus.HELD_OUT + number)
    with tempfile.TemporaryDirectory() as folder:
        case = Case(number, piece, band.play(piece), judges, save or Path(folder))
        return [score for behaviour in BEHAVIOURS if not only or behaviour.__name__ in only
                for score in behaviour(case)]  # fmt: skip


def mean(scores: np.ndarray) -> np.ndarray:
    """Of values and wholes [..., N, 2]."""
    return scores[..., 0].sum(-1) / scores[..., 1].sum(-1)


def examples(seed: int) -> list[tuple[np.ndarray, str, bool, str]]:
    return ears.examples(seed, studio().through)


def judges(pool: Executor) -> ears.Judges:
    """The classifiers, fitted once for a corpus, its ears and an autoencoder, and kept in `pocket/work/`."""
    home = Path(__file__).parent
    sources = [(home / f"{name}.py").read_bytes() for name in JUDGED_BY]
    sources.append(checkpoints.find_checkpoint(checkpoint_table.BUILT_IN).vae_hash.encode())
    file = home / f"work/judges-{JUDGED}-{sha256(b''.join(sources)).hexdigest()[:12]}.joblib"
    if not file.exists():
        found = ears.fitted([one for own in pool.map(examples, range(JUDGED), chunksize=10) for one in own])
        file.parent.mkdir(exist_ok=True)
        joblib.dump(found, file)
    return joblib.load(file)


def interval(scores: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of `mean`."""
    rng = np.random.default_rng(0)
    means = mean(scores[rng.integers(len(scores), size=(BOOTSTRAPS, len(scores)))])
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def table(scores: list[Score]) -> Iterator[str]:
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for score in scores:
        found[score.line, score.who].append((float(score.value), score.whole))
    yield "| behaviour | pocket | 95 % | truth | aim | n |"
    yield "|---|---|---|---|---|---|"
    for name, line in LINES.items():
        values = np.array(found[name, "pocket"])
        if not len(values):
            continue
        low, high = interval(values)
        reached, truth = (mean(np.array(found[name, who])) if found[name, who] else None for who in ("pocket", "truth"))
        aim = line.aim if line.aim is None or not line.relative else line.aim * truth
        bound = "at most" if line.at_most else "at least"
        met = "" if aim is None else f"{bound} {aim:.2f} {'✓' if line.met(reached, aim) else '✗'}"
        shown = "" if truth is None else f"{truth:.2f}"
        yield f"| {line.title} | {reached:.2f} | {low:.2f} to {high:.2f} | {shown} | {met} | {len(values)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="held-out songs")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="another folder in the layout of src/acestep_cli/models/pocket")
    parser.add_argument("--only", nargs="*", choices=[b.__name__ for b in BEHAVIOURS], help="some behaviours")
    parser.add_argument("--save", type=Path, help="an existing folder for the audio that modes read")
    parser.add_argument("--scores", type=Path, help="JSON, kept after each song; lines judged now replace those in it")
    asked = parser.parse_args()
    earlier = []
    if asked.scores and asked.scores.exists():
        earlier = [Score(**one) for one in json.loads(asked.scores.read_text())]
    scores, shown = [], earlier
    take_weights(asked.weights)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.processes, context, take_weights, (asked.weights,)) as pool:
        needed = not asked.only or set(asked.only) - UNJUDGED
        work = partial(judge, judges=judges(pool) if needed else None, only=asked.only, save=asked.save)
        for number, own in enumerate(pool.map(work, range(asked.count)), start=1):
            scores += own
            judged = {score.line for score in scores}
            shown = scores + [score for score in earlier if score.line not in judged]
            if asked.scores:
                asked.scores.write_text(json.dumps([asdict(score) for score in shown], default=float))
            print(f"{number} of {asked.count}", flush=True)
    print("\n".join(table(shown)))


if __name__ == "__main__":
    main()
