"""Songs to learn from: found, described, looked through."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
from typer.testing import Result

from acestep_cli import disk
from acestep_cli.audio import encode, measure
from acestep_cli.errors import SourceError, UsageError
from acestep_cli.song import document, modes, prompts
from acestep_cli.song.request import Request
from acestep_cli.training import dataset, metadata
from support.command import said
from support.sounds import song

RATE = 16_000


def told(folder: Path, name: str = "a.wav") -> dict[str, object]:
    """What the scan finds out about the one recording in a folder, besides the sound."""
    song(folder / name)
    found = dataset.scan_folder(folder)
    assert not found.problems, found.problems
    return dataset.song_keys(found.songs[0].request)


def looked(found: dataset.Dataset, shortest: float = 5, longest: float = 240) -> dataset.Inspection:
    return dataset.inspect_songs(found, shortest, longest, lambda done, total: None).with_labels(found)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.lyrics.txt": "[Verse]\nla\n"}, {"lyrics": "[Verse]\nla\n"}),
        ({"a.txt": "[Verse]\nla\n"}, {"lyrics": "[Verse]\nla\n"}),
        ({"a.txt": "no", "a.lyrics.txt": "yes"}, {"lyrics": "yes\n"}),
        ({"a.caption.txt": "slow\nfolk"}, {"caption": "slow folk", "instrumental": True}),
        (
            {"a.txt": "Caption: slow: folk\nbpm: 97.6\nkey: 8A\nsignature: 3\nlyrics: [Verse]\nla\nli"},
            {"caption": "slow: folk", "bpm": 98, "key": "A minor", "time_signature": "3/4",
             "lyrics": "[Verse]\nla\nli\n"},
        ),
        ({"a.txt": "genre: folk\nlyrics: [Instrumental]"}, {"caption": "folk", "instrumental": True}),
        (
            {"a.json": {"caption": "jazz", "keyscale": "C#m", "timesignature": "4", "language": "en", "bpm": 90}},
            {"caption": "jazz", "key": "C# minor", "time_signature": "4/4", "language": "en", "bpm": 90,
             "instrumental": True},
        ),
        ({"t.csv": "File,BPM,Key,Caption\na.wav,128,Am,house\n"},
         {"bpm": 128, "key": "A minor", "caption": "house", "instrumental": True}),
        ({"t.csv": "File;Artist;Title;BPM;Key;Camelot\nx/a.wav;me;it;128;;5B\n"},
         {"bpm": 128, "key": "Eb major", "instrumental": True}),
        ({"t.csv": "File\tBPM\na.wav\t128\n", "a.json": {"bpm": 90}}, {"bpm": 128, "instrumental": True}),
        ({"a.lrc": "[ar: me]\n[00:01.20]hello <00:02.00>there\n[01:02]again\n"}, {"lyrics": "hello there\nagain\n"}),
        ({"a.lrc": "[00:01.00][00:09.50]la la\n[00:05:25][x] li\n\nlo\n"},
         {"lyrics": "la la\n[x] li\n\nlo\nla la\n"}),
        ({"all.json": [{"filename": "a.wav", "caption": "rock", "raw_lyrics": "hey"}]},
         {"caption": "rock", "lyrics": "hey\n"}),
        ({"all.json": {"samples": [{"audio_path": "/x/a.wav", "caption": "rock"}]}},
         {"caption": "rock", "instrumental": True}),
        ({"a.wav.yaml": "caption: ours\nbpm: 84\n", "a.caption.txt": "theirs"},
         {"caption": "ours", "bpm": 84, "instrumental": True}),
        ({"a.md": "---\ncaption: ours\n---\n[Verse]\nla\n", "a.txt": "no"},
         {"caption": "ours", "lyrics": "[Verse]\nla\n"}),
        ({"a.yaml": "instrumental: true\n", "a.txt": "words"}, {"instrumental": True}),
        ({}, {"instrumental": True}),
        ({"metadata.jsonl": '{"file_name": "a.wav", "text": "folk", "bpm": 90}\n{"file_name": "b.wav"}\n'},
         {"caption": "folk", "bpm": 90, "instrumental": True}),
        ({"metadata.csv": 'file_name,caption,lyrics\na.wav,folk,"[Verse]\nla, la\n\nli"\n'},
         {"caption": "folk", "lyrics": "[Verse]\nla, la\n\nli\n"}),
        ({"songs.tsv": "audio_path\tprompt\nx\\a.wav\tfolk\n"}, {"caption": "folk", "instrumental": True}),
        ({"a_prompt.txt": "folk,\nslow", "a_lyrics.txt": "[Verse]\nla\n"},
         {"caption": "folk, slow", "lyrics": "[Verse]\nla\n"}),
        ({"a_lyrics.txt": "old", "a.lyrics.txt": "new", "a_caption.txt": "c"}, {"caption": "c", "lyrics": "new\n"}),
        ({"a.txt": "<CAPTION>folk</CAPTION>\n<LYRICS>\n[Verse]\nla\n</LYRICS>\n<bpm>92</bpm><title>T</title>"},
         {"caption": "folk", "lyrics": "[Verse]\nla\n", "bpm": 92}),
        ({"a.txt": "<CAPTION>folk</CAPTION>\n\n[Verse]\nla\n"}, {"caption": "folk", "lyrics": "[Verse]\nla\n"}),
        ({"a.caption.txt": "<CAPTION>\nfolk\n</CAPTION>"}, {"caption": "folk", "instrumental": True}),
        ({"a.lyrics.txt": "<lyrics>la</lyrics>"}, {"lyrics": "la\n"}),
        ({"a.txt": "caption: folk # no\nlyrics: |\n  [Verse]\n  Key: la\n\n  li\nbpm: 92\n"},
         {"caption": "folk", "lyrics": "[Verse]\nKey: la\n\nli\n", "bpm": 92}),
        ({"a.txt": "caption: slow: folk\nlyrics: |-\n    [Verse]\n      la\n"},
         {"caption": "slow: folk", "lyrics": "[Verse]\n  la\n"}),
        ({"a.txt": "---\ncaption: folk\n---\n\n[Verse]\nla\n"}, {"caption": "folk", "lyrics": "[Verse]\nla\n"}),
        ({"a.txt": '{"caption": "folk", "bpm": "92 BPM"}'}, {"caption": "folk", "bpm": 92, "instrumental": True}),
        ({"a.txt": "Title: House\nbpm: 92 BPM\n\n[Verse]\nla\n"}, {"bpm": 92, "lyrics": "[Verse]\nla\n"}),
        ({"a.json": {"caption": ["folk", "slow"], "lyrics": ["[Verse]", "la"], "bpm": "~ 92,4 bpm",
                     "timesignature": 3.0, "keyscale": "F#_minor"}},
         {"caption": "folk, slow", "lyrics": "[Verse]\nla\n", "bpm": 92, "time_signature": "3/4", "key": "F# minor"}),
        ({"a.json": {"key": "a-Moll", "time signature": "4/4 time", "is_instrumental": 1}},
         {"key": "A minor", "time_signature": "4/4", "instrumental": True}),
        ({"a.json": {"bpm": 0, "caption": "mine", "prompt": "theirs"}}, {"caption": "mine", "instrumental": True}),
        ({"t.csv": "File,BPM\na.wav,90\n", "metadata.jsonl": '{"file_name": "a.wav", "bpm": 120}'},
         {"bpm": 90, "instrumental": True}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_every_convention_is_read(tmp_path: Path, files: dict[str, object], expected: dict[str, object]) -> None:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert told(tmp_path) == expected


def test_the_wheel_of_camelot_is_that_of_fifths() -> None:
    for number in range(1, 12):
        for letter, mode in (("A", "minor"), ("B", "major")):
            here, there = (metadata.respell_key(f"{n}{letter}") for n in (number, number + 1))
            assert here.endswith(mode)
            notes = [("C Db D Eb E F F# G Ab A Bb B".split()).index(key.split()[0]) for key in (here, there)]  # noqa: SIM905
            assert (notes[1] - notes[0]) % 12 == 7
    assert metadata.respell_key("8A") == "A minor"


def test_a_list_says_the_trigger_word(tmp_path: Path) -> None:
    song(tmp_path / "a.wav")
    content = {"metadata": {"custom_tag": "harbour", "tag_position": "append"}, "samples": []}
    (tmp_path / "d.json").write_text(json.dumps(content))
    found = dataset.scan_folder(tmp_path)
    assert (found.trigger, found.trigger_position) == ("harbour", "append")


@pytest.mark.parametrize(
    ("position", "caption", "expected"),
    [
        ("prepend", "folk", "harbour, folk"),
        ("append", "folk", "folk, harbour"),
        ("replace", "folk", "harbour"),
        ("prepend", None, "harbour"),
    ],
)
def test_prompts_are_those_of_a_render(position: str, caption: str | None, expected: str) -> None:
    request = Request(caption=caption, lyrics="[Verse]\nla\n", language="en", bpm=90, key="A minor")
    one = dataset.DatasetSong("a.wav", Path("a.wav"), request)
    found = dataset.Dataset(Path(), (one,), "harbour", position)
    rendered = request.model_copy(update={"caption": expected})
    assert found.prompts(one, 61.5) == prompts.prompts_of(rendered, modes.FILL_MASK, 61.5)


def test_what_is_written_reads_back_as_itself(tmp_path: Path) -> None:
    for name in ("a.wav", "sub/b: odd #1.wav"):
        song(tmp_path / name)
    (tmp_path / "a.txt").write_text("caption: no\nlyrics: [Verse]\n  la: la # x\n\nli\n")
    found = dataset.scan_folder(tmp_path)
    assert [one.name for one in found.songs] == ["a.wav", "sub/b: odd #1.wav"]
    again = dataset.parse_dataset(found.dump(), tmp_path)
    assert again.dump() == found.dump()
    assert [again.prompts(one, 7) for one in again.songs] == [found.prompts(one, 7) for one in found.songs]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("songs:\n  a.wav:\n    bpm: 20\n", "dataset.yaml:3: bpm: 20 is not a whole number from 30 to 300"),
        ("songs:\n  a.wav:\n    tempo: 90\n", "dataset.yaml:3: tempo: is not a key of a song to learn from"),
        ("songs:\n  a.wav:\n    bpm: 90\n    bpm: 91\n", "dataset.yaml:4: bpm: is here again"),
        ("songs:\n  a.wav: {bpm: 90}\n  a.wav: {bpm: 90}\n", "dataset.yaml:3: a.wav: is here again"),
        ("trigger_position: before\nsongs:\n  a.wav: {}\n", "dataset.yaml:1: trigger_position: 'before' is not one of"),
        ("trigers: x\nsongs:\n  a.wav: {}\n", "did you mean 'trigger'?"),
        ("songs: 3\n", "dataset.yaml:1: songs: is a map, with the names of recordings below it"),
        ("songs:\n  a.wav: loud\n", "dataset.yaml:2: a.wav: is a map, with caption"),
        ("songs:\n  a.wav: {instrumental: true, lyrics: la}\n", "excludes lyrics"),
    ],
)
def test_a_slip_in_a_data_set_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    song(tmp_path / "a.wav")
    (tmp_path / dataset.DATASET_FILE).write_text(text)
    with pytest.raises(UsageError) as error:
        dataset.load_dataset(tmp_path)
    assert said in str(error.value)


def test_the_file_is_obeyed(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        song(tmp_path / name)
    (tmp_path / dataset.DATASET_FILE).write_text("songs:\n  a.wav: {caption: x}\n  gone.wav: {}\n")
    found = looked(dataset.load_dataset(tmp_path))
    assert [one.song.name for one in found.usable] == ["a.wav"]
    assert any("b.wav is in" in remark and "left out" in remark for remark in found.remarks)
    assert [type(problem) for problem in found.problems] == [SourceError]
    assert "gone.wav is not there" in str(found.problems[0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: song(folder / "b.wav", seconds=2), "is 2.0 s long, and at least 5 s are needed."),
        (lambda folder: song(folder / "b.wav", level=0), "b.wav is silent."),
        (lambda folder: (folder / "b.wav").write_text("no"), "b.wav is not audio that can be read"),
        (lambda folder: song(folder / "b.flac", 330), "b.flac is the same recording as"),
        (lambda folder: song(folder / "c.wav") and (folder / "c.caption.txt").unlink(missing_ok=True), "no caption"),
    ],
    ids=["short", "silent", "broken", "twice", "nothing said"],
)
def test_what_cannot_be_trained_on_is_named(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    song(tmp_path / "a.flac", 330)
    make(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.caption.txt").write_text(f"song {name}")
    found = looked(dataset.scan_folder(tmp_path))
    assert [one.song.name for one in found.usable] == ["a.flac"]
    with pytest.raises((SourceError, UsageError)) as error:
        dataset.refuse_unusable(found, tmp_path, skip=False, warn=print)
    assert said in str(error.value)
    assert "--skip-bad" in str(error.value)
    warned: list[str] = []
    dataset.refuse_unusable(found, tmp_path, skip=True, warn=warned.append)
    assert any(said in line and line.endswith("It is left out.") for line in warned)


@pytest.mark.parametrize(
    ("name", "options", "text", "said"),
    [
        ("b.wav", {"rate": 22_050}, "caption: x", "several sample rates (1 at 48000 Hz, 1 at 22050 Hz)"),
        ("b.wav", {"level": 1.0}, "caption: x", None),
        ("b.wav", {"level": 2.0}, "caption: x", "b.wav is clipped, which is learnt too ("),
        ("b.wav", {"seconds": 12}, "caption: x", "b.wav is trained in parts of 0:10 (0:12 long)."),
        ("b.wav", {}, "caption: x\nlyrics: " + "many hurried words in a line\n" * 20, "longer than can be sung"),
    ],
    ids=["rates", "full scale", "clipped", "long", "wordy"],
)
def test_what_is_worth_a_word_is_said(
    tmp_path: Path, name: str, options: dict[str, float], text: str, said: str | None
) -> None:
    song(tmp_path / "a.wav")
    song(tmp_path / name, 330, **options)  # type: ignore[arg-type]
    for stem in ("a", "b"):
        (tmp_path / f"{stem}.txt").write_text(text)
    remarks = looked(dataset.scan_folder(tmp_path), longest=10).remarks
    assert any("From 8 songs on" in remark for remark in remarks)
    if said is None:
        assert len(remarks) == 1
    else:
        assert any(said in remark for remark in remarks), remarks


def test_the_same_of_many_songs_is_said_once_with_the_first_of_them(tmp_path: Path) -> None:
    for number in range(5):
        song(tmp_path / f"{number}.wav", 300 + 10 * number, seconds=12, level=2.0 if number < 2 else 0.5)
    remarks = looked(replace(dataset.scan_folder(tmp_path), trigger="tide"), longest=10).remarks
    long = [remark for remark in remarks if "parts of" in remark]
    assert long == [
        "Each of 5 songs is trained in parts of 0:10 (0.wav: 0:12 long, 1.wav: 0:12 long, 2.wav: 0:12 long, …)."
    ]
    [clipped] = [remark for remark in remarks if "clipped" in remark]
    assert clipped.startswith("Each of 2 songs is clipped, which is learnt too (0.wav: ")
    assert "…" not in clipped


def test_the_same_sound_under_other_tags_is_the_same(tmp_path: Path) -> None:
    one, other = song(tmp_path / "a.wav"), tmp_path / "b.flac"
    samples, rate = soundfile.read(one, dtype="int16")
    soundfile.write(other, samples, rate)
    assert dataset.read_recording(one).fingerprint == dataset.read_recording(other).fingerprint
    assert dataset.read_recording(one).fingerprint != dataset.read_recording(song(tmp_path / "c.wav", 221)).fingerprint


def test_clipping_is_what_check_calls_so(tmp_path: Path) -> None:
    file = song(tmp_path / "a.wav", level=2.0)
    assert dataset.read_recording(file).clipped == measure.measure(measure.read_for_measuring(file)).clipped > 0


def test_what_changed_in_a_data_set_is_said() -> None:
    assert dataset.describe_changes({"a": "1"}, {"a": "1"}) is None
    assert (
        dataset.describe_changes({"a": "2", "c": "3"}, {"a": "1", "b": "4"}) == "'b' left out; 'c' added; 'a' changed"
    )


def test_a_scan_writes_what_a_person_edits(tmp_path: Path, acestep: Callable[..., Result]) -> None:
    song(tmp_path / "a.wav")
    (tmp_path / "a.caption.txt").write_text("slow folk")
    run = acestep("train-lora", str(tmp_path), "--scan-only", "--name", "harbour")
    assert run.exit_code == 0, run.output
    assert run.stdout == f"{tmp_path / dataset.DATASET_FILE}\n"
    assert "From 8 songs on" in run.stderr
    text = (tmp_path / dataset.DATASET_FILE).read_text()
    assert "trigger: harbour\ntrigger_position: prepend\nsongs:\n  a.wav:\n    caption: slow folk\n" in text
    again = acestep("train-lora", str(tmp_path), "--scan-only")
    assert again.exit_code == 9
    assert "exists already" in again.stderr
    assert "--force scans again" in again.stderr
    assert "--output" not in again.stderr  # which a scan refuses
    assert acestep("train-lora", str(tmp_path), "--scan-only", "--force").exit_code == 0
    assert "trigger: harbour" in (tmp_path / dataset.DATASET_FILE).read_text()


def test_a_scan_by_force_finds_new_songs_and_keeps_labels(tmp_path: Path, acestep: Callable[..., Result]) -> None:
    for name in ("a.wav", "b.wav"):
        song(tmp_path / name)
    (tmp_path / "a.caption.txt").write_text("slow folk")
    file = tmp_path / dataset.DATASET_FILE
    file.write_text("trigger: harbour\ntrigger_position: append\nsongs:\n  a.wav: {bpm: 97}\n  gone.wav: {bpm: 90}\n")
    run = acestep("train-lora", str(tmp_path), "--scan-only", "--force")
    assert run.exit_code == 0, run.output
    found = dataset.load_dataset(tmp_path)
    assert [(one.name, one.request.caption, one.request.bpm) for one in found.songs] == [
        ("a.wav", "slow folk", 97), ("b.wav", None, None),
    ]  # fmt: skip
    assert (found.trigger, found.trigger_position) == ("harbour", "append")
    file.write_text("trigger: harbour\n")
    empty = acestep("train-lora", str(tmp_path), "-o", str(tmp_path / "out"))
    assert (empty.exit_code, "--scan-only --force finds them" in empty.stderr) == (5, True), empty.output
    assert acestep("train-lora", str(tmp_path), "--scan-only", "--force").exit_code == 0
    assert len(dataset.load_dataset(tmp_path).songs) == 2


def test_a_scan_refuses_what_is_for_training(tmp_path: Path, acestep: Callable[..., Result]) -> None:
    song(tmp_path / "a.wav")
    flags = ("--resume", "--export", "nonsense", "--preview", "nofile", "--rank", "0", "-o", "out")
    run = acestep("train-lora", str(tmp_path), "--scan-only", *flags)
    assert run.exit_code == 2
    assert "--scan-only trains nothing, so it has no use for --output, --resume, --export, --preview, --rank." in (
        " ".join(run.stderr.split())
    )
    run = acestep("train-lora", str(tmp_path), "--scan-only", "--save-every", "0", "--preview-every", "5")
    assert run.exit_code == 2
    assert "so it has no use for --save-every, --preview-every." in " ".join(run.stderr.split())
    assert not (tmp_path / dataset.DATASET_FILE).exists()


def test_a_scan_that_cannot_write_advises_no_flag_that_it_refuses(
    tmp_path: Path, acestep: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    song(tmp_path / "a.wav")

    def refused(path: Path, text: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(disk, "write_text", refused)
    run = acestep("train-lora", str(tmp_path), "--scan-only", "--songwriter", "none")
    assert run.exit_code == 9
    assert "read-only file system" in run.stderr
    assert "--output" not in run.stderr
    assert f"copy {tmp_path} to where you may write." in run.stderr


def test_a_scan_reports_itself(tmp_path: Path, acestep: Callable[..., Result]) -> None:
    song(tmp_path / "a.wav")
    content = said(acestep("train-lora", str(tmp_path), "--scan-only", "--json"))
    assert content["dataset"] == {"path": str(tmp_path / dataset.DATASET_FILE), "songs": 1, "left_out": []}
    assert content["warnings"]


@pytest.mark.parametrize(("name", "text"), [("other.json", "{"), ("b.json", "{"), ("table.csv", "File\nb.wav,\xe9")])
def test_a_list_that_cannot_be_read_costs_no_song(tmp_path: Path, name: str, text: str) -> None:
    for stem in ("a", "b"):
        song(tmp_path / f"{stem}.wav", 220 if stem == "a" else 330)
        (tmp_path / f"{stem}.caption.txt").write_text("folk")
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    scanned = dataset.scan_folder(tmp_path)
    assert [one.where for one in scanned.left_out] == [str(tmp_path / name)]
    found = looked(scanned)
    assert ([one.song.name for one in found.usable], found.problems) == (["a.wav", "b.wav"], ())


@pytest.mark.parametrize(
    ("files", "key", "reason", "kept"),
    [
        ({"a.json": {"caption": "folk", "language": "martian", "bpm": 92}}, "language", "'martian' is not a language",
         {"caption": "folk", "bpm": 92, "instrumental": True}),
        ({"a.json": {"caption": "folk", "bpm": "fast"}}, "bpm", "'fast' is not a whole number from 30 to 300",
         {"caption": "folk", "instrumental": True}),
        ({"a.txt": "caption: folk\nkey: H minor\nlyrics: la"}, "key", "'H minor' is not a key",
         {"caption": "folk", "lyrics": "la\n"}),
        ({"a.json": {"bpm": 9000}, "t.csv": "File,BPM\na.wav,90\n"}, "bpm", "9000 is not", {"bpm": 90,
         "instrumental": True}),
        ({"a.json": {"bpm": 90}, "metadata.jsonl": '{"file_name": "a.wav", "bpm": "x"}'}, "bpm", "'x' is not",
         {"bpm": 90, "instrumental": True}),
        ({"a.lyrics.txt": b"caf\xe9", "a.caption.txt": "folk"}, "lyrics", "is not UTF-8 text (byte 3)",
         {"caption": "folk", "instrumental": True}),
        ({"a.caption.txt": b"caf\xe9", "a.txt": "la"}, "caption", "is not UTF-8 text", {"lyrics": "la\n"}),
        ({"a.wav.yaml": "caption: folk\nbpm: 9000\nkey: Am\n"}, "bpm", ":2: bpm: 9000 is not a whole number",
         {"caption": "folk", "key": "A minor", "instrumental": True}),
        ({"a.wav.yaml": "caption: folk\nlyrics: [la\n"}, None, ":", {"caption": "folk", "instrumental": True}),
        ({"a.yaml": "caption: folk\nlyrics_file: gone.txt\ncover: gone.png\n"}, "lyrics", "gone.txt",
         {"caption": "folk", "instrumental": True}),
        ({"a.yaml": "caption: folk\ntempoo: 90\n"}, None, ":2: tempoo: is not a key of a song spec",
         {"caption": "folk", "instrumental": True}),
        ({"a.json": "7", "a.caption.txt": "folk"}, None, "is neither a map of keys nor a list of songs",
         {"caption": "folk", "instrumental": True}),
        ({"metadata.jsonl": '{"file_name": "a.wav", "text": "folk"}\n{"file_name"\n'}, None, "is not JSON",
         {"caption": "folk", "instrumental": True}),
        ({"l.json": {"metadata": {"custom_tag": "x", "tag_position": "before"}, "samples": []}}, None,
         "'before' is not one of prepend, append, replace", {"instrumental": True}),
        ({"metadata.csv": "file_name,text,bpm\na.wav,slow, warm piano,92\n", "a.caption.txt": "folk"}, None,
         "has more cells than the header", {"caption": "folk", "instrumental": True}),
        ({"metadata.jsonl": '[{"file_name": "a.wav", "text": "jazz"}]\n', "a.caption.txt": "folk"}, None,
         "is not a JSON object", {"caption": "folk", "instrumental": True}),
        ({"metadata.csv": "file_name,text\nb.wav,jazz\na.wav,folk\n"}, None, "'b.wav' names no recording that is here",
         {"caption": "folk", "instrumental": True}),
        ({"metadata.jsonl": '{"file_name": "b.wav", "text": "jazz"}\n{"file_name": "c.wav", "text": "jazz"}\n',
          "a.caption.txt": "folk"}, None, "'b.wav' names no recording that is here, nor does another row",
         {"caption": "folk", "instrumental": True}),
        ({"l.json": [{"filename": "/other/b.wav", "caption": "jazz"}], "a.caption.txt": "folk"}, None,
         "'b.wav' names no recording that is here", {"caption": "folk", "instrumental": True}),
        ({"metadata.jsonl": '{"text": "jazz"}\n{"text": "folk"}\n', "a.caption.txt": "folk"}, None,
         "has no file_name, the name of a recording, nor does another row",
         {"caption": "folk", "instrumental": True}),
        ({"t.csv": "title,BPM\n,\nx,90\n", "a.caption.txt": "folk"}, None, "has no file_name, the name of a recording",
         {"caption": "folk", "instrumental": True}),
        ({"a.json": [1, {"caption": "jazz"}, {"file": ""}], "a.caption.txt": "folk"}, None,
         "has no file_name, the name of a recording, nor do 2 other rows",
         {"caption": "folk", "instrumental": True}),
        ({"a.yaml": "caption: folk #1\n"}, None, ":1: caption: '#1' is a comment to YAML",
         {"caption": "folk", "instrumental": True}),
        ({"metadata.parquet": "PAR1", "a.caption.txt": "folk"}, None, "is a Parquet table",
         {"caption": "folk", "instrumental": True}),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_read_is_left_out_alone(
    tmp_path: Path,
    acestep: Callable[..., Result],
    files: dict[str, object],
    key: str | None,
    reason: str,
    kept: dict[str, object],
) -> None:
    for name, content in files.items():
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert told(tmp_path) == kept
    [one] = dataset.scan_folder(tmp_path).left_out
    assert (one.key, reason in one.reason) == (key, True), one
    run = acestep("train-lora", str(tmp_path), "--scan-only", "--songwriter", "none", "--json")
    assert run.exit_code == 0, run.output
    content = said(run)
    assert content["dataset"]["songs"] == 1
    assert content["dataset"]["left_out"] == [one.report()]
    assert str(one) in content["warnings"]
    written = (tmp_path / dataset.DATASET_FILE).read_text()
    assert f"#   {document.as_comment(str(one))}\n" in written
    again = dataset.song_keys(dataset.load_dataset(tmp_path).songs[0].request)
    assert again == kept
    assert ("instrumental: true" in written) == (kept.get("instrumental", False) and key != "lyrics")


def test_what_is_a_comment_in_a_data_set_is_told(tmp_path: Path, acestep: Callable[..., Result]) -> None:
    song(tmp_path / "a.wav")
    (tmp_path / dataset.DATASET_FILE).write_text("trigger: tide #1\nsongs:\n  a.wav: {bpm: 90, caption: folk #2\n  }\n")
    one, two = dataset.load_dataset(tmp_path).left_out
    assert str(one).startswith(f"a.wav: {tmp_path / dataset.DATASET_FILE}:3: caption: '#2' is a comment to YAML;")
    assert str(two).startswith(f"{tmp_path / dataset.DATASET_FILE}:1: trigger: '#1' is a comment to YAML;")


def test_empty_cells_behind_those_of_the_header_are_none(tmp_path: Path) -> None:
    """Spreadsheets export them."""
    song(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,folk,,\n")
    found = dataset.scan_folder(tmp_path)
    assert (found.songs[0].request.caption, found.left_out) == ("folk", ())


def test_the_line_of_a_sidecar_stands_beside_its_name(tmp_path: Path) -> None:
    song(tmp_path / "a.wav")
    (tmp_path / "a.wav.yaml").write_text("caption: folk\nbpm: 9000\n")
    [one] = dataset.scan_folder(tmp_path).left_out
    assert "a.wav.yaml:2: bpm: 9000 is not" in str(one)


def test_a_table_lists_songs_with_what_is_left_out(tmp_path: Path, acestep: Callable[..., Result]) -> None:
    for stem, pitch in (("a", 220), ("b", 330)):
        song(tmp_path / f"{stem}.wav", pitch)
    (tmp_path / "a.json").write_text('{"caption": "folk", "language": "martian", "bpm": "92 BPM"}')
    run = acestep("train-lora", str(tmp_path), "--scan-only", "--songwriter", "none")
    rows = [line.split() for line in run.stderr.splitlines()]
    assert ["a.wav", "-", "92", "-", "-", "-", "language", "folk"] in rows
    assert ["b.wav", *["-"] * 7] in rows


def test_what_is_mended_in_the_file_is_no_longer_left_out(tmp_path: Path, acestep: Callable[..., Result]) -> None:
    song(tmp_path / "a.wav")
    (tmp_path / "a.json").write_text('{"caption": "folk", "language": "martian", "bpm": "quick"}')
    (tmp_path / dataset.DATASET_FILE).write_text("songs:\n  a.wav: {language: ja}\n")
    run = acestep("train-lora", str(tmp_path), "--scan-only", "--force", "--songwriter", "none", "--json")
    assert [one["key"] for one in said(run)["dataset"]["left_out"]] == ["bpm"]
    assert dataset.load_dataset(tmp_path).songs[0].request.language == "ja"


def test_tables_name_songs_in_folders_below_them(tmp_path: Path) -> None:
    for name, pitch in (("a.wav", 220), ("x/a.wav", 330), ("y/a.wav", 440)):
        song(tmp_path / name, pitch)
    rows = [{"file_name": "x/a.wav", "text": "in x"}, {"file_name": "./y/a.wav", "text": "in y", "bpm": 90}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "y" / "metadata.csv").write_text("file_name,text\na.wav,nearer\n")
    (tmp_path / "._metadata.csv").write_bytes(b"\0\5\x16\7")  # as macOS leaves them
    found = dataset.scan_folder(tmp_path)
    assert {one.name: (one.request.caption, one.request.bpm) for one in found.songs} == {
        "a.wav": (None, None), "x/a.wav": ("in x", None), "y/a.wav": ("nearer", 90),
    }  # fmt: skip
    assert found.left_out == ()


@pytest.mark.parametrize(("name", "value"), [("RANK", "x"), ("LOCAL_RANK", "-1"), ("WORLD_SIZE", "0")])
def test_what_no_launcher_says_is_refused(
    tmp_path: Path, acestep: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    run = acestep("train-lora", str(tmp_path), "-o", str(tmp_path / "out"))
    assert run.exit_code == 2
    assert f"{name} in the environment is {value!r}, where a launcher puts a number." in run.stderr


@pytest.mark.parametrize(
    ("folder", "said"),
    [("empty", "holds no audio"), ("gone", "is not there"), ("file", "is not a folder")],
)
def test_a_folder_without_songs_is_refused(
    tmp_path: Path, acestep: Callable[..., Result], folder: str, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    run = acestep("train-lora", str(tmp_path / folder), "-o", str(tmp_path / "out"), "-m", "pocket")
    assert run.exit_code == 5
    assert said in run.stderr
    assert not (tmp_path / "out").exists()


def test_more_formats_than_wav_are_found(tmp_path: Path) -> None:
    for suffix in ("flac", "mp3", "ogg", "opus"):
        song(tmp_path / f"a.{suffix}", rate=48_000)
    (tmp_path / ".hidden").mkdir()
    song(tmp_path / ".hidden" / "no.wav")
    (tmp_path / "b.M4A").write_bytes(b"")
    assert set(dataset.audio_files(tmp_path)) == {"a.flac", "a.mp3", "a.ogg", "a.opus", "b.M4A"}
    assert set(encode.FORMATS) == {suffix.removeprefix(".") for suffix in dataset.SUFFIXES}
