"""`acestep export`: what it writes, read back by independent readers."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pysubs2
import pytest
import rpp
import soundfile
from wavinfo import WavInfoReader

from acestep_cli.audio import encode, measure, wav_chunks
from acestep_cli.audio.regular_file import file_hash
from acestep_cli.audio.sound import Audio
from acestep_cli.audio.wav_chunks import Grid, Marker
from acestep_cli.render import export_record
from support.command import Run, flat

RATE = 48_000
SIDECAR = """\
caption: x
lyrics: |
  [Verse]
  One line

  [Chorus "high"]
  Another line
bpm: {bpm}
key: A minor
time_signature: 6/8
duration: 10
track: [{track}]
model: base
mode: extract
source: source.wav
render:
  recipe: r
  seed: 1
  checkpoint: {{name: base, weights: w}}
  seconds: 10.0
  sample_rate: 48000
  checks: {{}}
  timings: {{}}
"""
LRC = "[00:01.00]One line\n[00:05.50]Another line\n"


def click(seconds: float, bpm: float, peak: float = 0.5) -> np.ndarray:
    """A decaying click at each beat, [N, 2]."""
    samples = np.zeros(int(seconds * RATE))
    pulse = peak * np.sin(np.arange(2000) / 3) * np.exp(-np.arange(2000) / 300)
    for beat in range(int(seconds * bpm / 60)):
        at = round(beat * 60 / bpm * RATE)
        samples[at : at + 2000] += pulse[: len(samples) - at]
    return np.stack([samples, samples / 2], axis=1)


@pytest.fixture
def takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two stems of 10 and 8 s with sidecars, and their mix with timed lyrics."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("song-vocals.wav", click(10, 100), RATE, "FLOAT")
    soundfile.write("song-drums.flac", click(8, 100), RATE)
    soundfile.write("song-mix.wav", click(10, 100), RATE, "PCM_24")
    for name, track in (("song-vocals.wav", "vocals"), ("song-drums.flac", "drums"), ("song-mix.wav", "vocals, drums")):
        Path(f"{name}.yaml").write_text(SIDECAR.format(bpm=100, track=track), encoding="utf-8")
    Path("song-mix.lrc").write_text(LRC, encoding="utf-8")
    return tmp_path


ALL = ("song-vocals.wav", "song-drums.flac", "song-mix.wav")
WRITTEN = ["01 vocals.wav", "02 drums.wav", "03 mix.wav", "song.rpp", "tempo.mid", "lyrics.lrc", "lyrics.srt"]


@pytest.fixture
def exported(takes: Path, acestep: Run) -> Path:
    result = acestep("export", *ALL, "--daw", "-o", "out/")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [f"out/{name}" for name in WRITTEN]
    return takes / "out"


def test_tracks_are_equally_long_and_hold_their_samples(exported: Path) -> None:
    for name, source in zip(WRITTEN[:3], ALL, strict=True):
        found, rate = soundfile.read(exported / name, always_2d=True)
        given, _ = soundfile.read(exported.parent / source, always_2d=True)
        assert (rate, len(found)) == (RATE, 10 * RATE)
        assert soundfile.info(exported / name).subtype == "PCM_24"
        np.testing.assert_allclose(found[: len(given)], given, atol=2**-23)
        assert not found[len(given) :].any()


def test_markers_and_grid_are_in_each_track(exported: Path) -> None:
    for name in WRITTEN[:3]:
        cues = WavInfoReader(str(exported / name)).cues
        points = {cue.name: cue.sample_offset for cue in cues.cues}
        labels = {label.name: label.text for label in cues.labels}
        assert {labels[number]: frame for number, frame in points.items()} == {
            "Verse": RATE, 'Chorus "high"': 5.5 * RATE,
        }  # fmt: skip
        acid = acid_of(exported / name)
        assert acid["type"] == 1 | 2  # one shot, with a root note
        assert acid["root"] == 60 + 9  # A
        assert (acid["beats"], acid["meter"]) == (17, "6/8")
        assert acid["tempo"] == pytest.approx(100, rel=0.003)


def acid_of(file: Path) -> dict[str, Any]:
    """The `acid` chunk, as libsndfile's log of the file has it."""
    log = soundfile.info(file, verbose=True).extra_info.partition("acid :")[2]
    lines = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in log.splitlines())}
    return {
        "type": int(lines["Flags"].split()[0], 16),
        "root": int(lines["Root note"], 16),
        "beats": int(lines["Beats"]),
        "meter": lines["Meter"],
        "tempo": float(lines["Tempo"]),
    }


def test_the_tempo_map_has_tempo_meter_and_sections(exported: Path) -> None:
    song = mido.MidiFile(exported / "tempo.mid", charset="utf-8")
    [track] = song.tracks
    kinds = {message.type: message for message in track}
    bpm = mido.tempo2bpm(kinds["set_tempo"].tempo)
    assert bpm == pytest.approx(100, rel=0.003)
    assert (kinds["time_signature"].numerator, kinds["time_signature"].denominator) == (6, 8)
    now, found = 0.0, {}
    for message in track:
        now += mido.tick2second(message.time, song.ticks_per_beat, kinds["set_tempo"].tempo)
        if message.type == "marker":
            found[message.text] = now
    assert found == pytest.approx({"Verse": 1.0, 'Chorus "high"': 5.5}, abs=0.001)


def test_the_project_opens_every_track_and_mutes_the_mix(exported: Path) -> None:
    project = rpp.loads((exported / "song.rpp").read_text(encoding="utf-8"))
    tracks = project.findall("TRACK")
    files = [track.find("ITEM").find("SOURCE").find("FILE")[1] for track in tracks]
    assert files == WRITTEN[:3]
    assert all((exported / file).is_file() for file in files)
    assert [track.find("MUTESOLO")[1] for track in tracks] == ["0", "0", "1"]
    assert [float(marker[2]) for marker in project.findall("MARKER")] == [1.0, 5.5]
    assert project.find("TEMPO")[2:] == ["6", "8"]
    assert {float(track.find("ITEM").find("LENGTH")[1]) for track in tracks} == {10.0}


def test_timed_lyrics_become_subtitles(exported: Path) -> None:
    lines = pysubs2.load(str(exported / "lyrics.srt"))
    assert [(line.start, line.end, line.text) for line in lines] == [
        (1000, 5500, "One line"), (5500, 10_000, "Another line"),
    ]  # fmt: skip
    assert (exported / "lyrics.lrc").read_text(encoding="utf-8") == LRC


def test_a_second_export_is_refused_without_force(exported: Path, acestep: Run) -> None:
    before = {file.name: file.read_bytes() for file in exported.iterdir()}
    again = acestep("export", *ALL, "--daw", "-o", "out")
    assert (again.exit_code, "--force" in again.stderr) == (9, True)
    assert {file.name: file.read_bytes() for file in exported.iterdir()} == before
    assert acestep("export", *ALL, "--daw", "-o", "out", "--force").exit_code == 0
    assert {file.name: file.read_bytes() for file in exported.iterdir()} == before  # and it is the same again


@pytest.mark.parametrize("changed", [b"played again, into the file of the export", b""], ids=["another", "empty"])
def test_a_forced_export_removes_what_the_earlier_one_wrote_and_nothing_else(
    exported: Path, acestep: Run, changed: bytes
) -> None:
    (exported / "04 bass.wav").write_bytes(b"recorded by hand")
    (exported / "02 drums.wav").write_bytes(changed)
    again = acestep("export", "song-mix.wav", "--daw", "-o", "out", "--force")
    assert again.exit_code == 0, again.stderr
    assert again.stdout.splitlines() == [f"out/{name}" for name in ("01 mix.wav", *WRITTEN[3:])]
    assert sorted(file.name for file in exported.glob("*.wav")) == ["01 mix.wav", "02 drums.wav", "04 bass.wav"]
    assert "out/02 drums.wav is of the earlier export and has changed since; it stays." in flat(again)
    assert "out/01 vocals.wav: removed" in flat(again)
    assert "03 mix.wav: removed" in flat(again)
    Path("song-mix.lrc").unlink()
    assert acestep("export", "song-mix.wav", "--daw", "-o", "out", "--force").exit_code == 0
    assert not (exported / "lyrics.lrc").exists()
    assert (exported / "02 drums.wav").exists()  # known no more


def test_lines_after_the_end_of_the_song_are_left_out(exported: Path, acestep: Run) -> None:
    Path("song-mix.lrc").write_text("[00:00.50]la\n[59:00.00]of another song\n")
    again = acestep("export", "song-mix.wav", "--daw", "-o", "out", "--force")
    assert again.exit_code == 0, again.stderr
    assert "song-mix.lrc: 1 of 2 lines are after the end of the song, and left out." in flat(again)
    assert "another" not in (exported / "lyrics.lrc").read_text()


def test_a_file_of_an_export_that_is_a_take_of_the_next_one_stays(exported: Path, acestep: Run) -> None:
    again = acestep("export", "out/02 drums.wav", "--daw", "-o", "out", "--force")
    assert again.exit_code == 0, again.stderr
    assert (exported / "02 drums.wav").exists()
    assert not (exported / "03 mix.wav").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.wav", "caf_"),
        (b"two\nlines.wav", "two_lines"),
        (b"a \"b` c's.wav", "a \"b' c's"),
        (b"esc\x1b]0;x\x07.wav", "esc_]0;x_"),
    ],
)
def test_a_take_of_any_name_is_exported_under_one_that_a_project_can_hold(
    takes: Path, acestep: Run, name: bytes, shown: str
) -> None:
    take = Path(os.fsdecode(name))
    soundfile.write(os.fsencode(take), click(6, 90), RATE, format="WAV")
    result = acestep("export", str(take), "song-mix.wav", "--daw", "-o", "out/")
    assert result.exit_code == 0, result.stderr
    project = rpp.loads((takes / "out" / "song.rpp").read_text(encoding="utf-8"))
    track = project.find("TRACK")
    assert track.find("NAME")[1] == shown
    file = track.find(".//SOURCE").find("FILE")[1]
    assert file == f"01 {shown}.wav"
    assert soundfile.info(takes / "out" / file).frames == 10 * RATE


@pytest.mark.parametrize("name", ["../song-mix.wav", "link.wav", "folder"])
def test_a_record_leads_to_no_file_elsewhere(exported: Path, acestep: Run, name: str) -> None:
    (exported / "link.wav").symlink_to(exported.parent / "song-mix.wav")
    (exported / "folder").mkdir()
    content = file_hash(Path("song-mix.wav"))
    text = export_record.ExportRecord(files={name: content}).model_dump_json(by_alias=True)
    export_record.record_file(exported).write_text(text)
    assert export_record.read_record(exported) == ({} if "/" in name else {name: content})
    assert acestep("export", "song-mix.wav", "--daw", "-o", "out", "--force").exit_code == 0
    assert Path("song-mix.wav").exists()
    assert (exported / "link.wav").is_symlink()
    assert (exported / "folder").is_dir()


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', '{"schema": "other/2", "files": {}}'])
def test_a_broken_record_removes_nothing(exported: Path, acestep: Run, text: str) -> None:
    export_record.record_file(exported).write_text(text)
    assert acestep("export", "song-mix.wav", "--daw", "-o", "out", "--force").exit_code == 0
    assert {file.name for file in exported.glob("*.wav")} == {"01 mix.wav", *WRITTEN[:3]}


def test_a_take_alone_without_a_sidecar_is_a_mix_without_markers(takes: Path, acestep: Run) -> None:
    soundfile.write("plain.wav", click(6, 90), RATE)
    result = acestep("export", "plain.wav", "--daw", "-o", "out/", "--bit-depth", "32f")
    assert result.exit_code == 0, result.stderr
    assert "markers are left out" in " ".join(result.stderr.split())
    assert sorted(file.name for file in Path("out").glob("[!.]*")) == ["01 mix.wav", "song.rpp", "tempo.mid"]
    assert soundfile.info("out/01 mix.wav").subtype == "FLOAT"
    assert not WavInfoReader("out/01 mix.wav").cues.cues


def test_a_tempo_far_from_the_asked_one_is_warned_of(takes: Path, acestep: Run) -> None:
    Path("song-mix.wav.yaml").write_text(SIDECAR.format(bpm=105, track="vocals, drums"), encoding="utf-8")
    result = acestep("export", "song-mix.wav", "--daw", "-o", "out/")
    assert "105 was asked for" in " ".join(result.stderr.split())
    assert mido.tempo2bpm(
        next(message.tempo for message in mido.MidiFile("out/tempo.mid").tracks[0] if message.type == "set_tempo")
    ) == pytest.approx(100, rel=0.003)


def test_overs_are_kept_in_float_and_warned_of_where_they_are_clipped(takes: Path, acestep: Run) -> None:
    soundfile.write("loud.wav", click(5, 120, peak=3.0), RATE, "FLOAT")
    fixed = acestep("export", "loud.wav", "--daw", "-o", "fixed/")
    assert "--bit-depth 32f keeps it" in " ".join(fixed.stderr.split())
    assert np.abs(soundfile.read("fixed/01 mix.wav")[0]).max() <= 1
    assert acestep("export", "loud.wav", "--daw", "-o", "float/", "--bit-depth", "32f").exit_code == 0
    given, found = (
        soundfile.read("loud.wav", dtype="float32")[0],
        soundfile.read("float/01 mix.wav", dtype="float32")[0],
    )
    assert np.array_equal(given, found)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["song-mix.wav", "-o", "out/"], 2, "--daw"),
        (["song-mix.wav", "--daw", "-o", "out/", "--bit-depth", "16"], 2, "16"),
        (["nowhere.wav", "--daw", "-o", "out/"], 5, "nowhere.wav"),
        (["song-mix.wav.yaml", "--daw", "-o", "out/"], 5, "song-mix.wav.yaml"),
        (["song-mix.wav", "--daw", "-o", "song-mix.wav"], 9, "song-mix.wav is a file, and an export needs a folder"),
        (["song-mix.wav", "./song-mix.wav", "--daw", "-o", "out/"], 2, "song-mix.wav is given 2 times"),
        (["song-mix.wav", "--daw"], 2, "output"),
    ],
    ids=str,
)
def test_refusals(takes: Path, acestep: Run, words: list[str], code: int, said: str) -> None:
    result = acestep("export", *words)
    assert result.exit_code == code, result.stderr
    assert said in " ".join(result.stderr.split())
    assert not Path("out").exists() or not any(Path("out").iterdir())


def test_a_folder_that_is_read_only_is_said(takes: Path, acestep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is mounted read-only, where removing fails too, even of a file that is not there."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    Path("out").mkdir()
    monkeypatch.setattr(Path, "unlink", fail)
    monkeypatch.setattr(encode, "encode_by_libsndfile", fail)
    result = acestep("export", "song-mix.wav", "--daw", "-o", "out/")
    assert result.exit_code == 9, result.stderr
    assert "out/01 mix.wav cannot be written: read-only file system." in " ".join(result.stderr.split())
    assert not list(Path("out").iterdir())


def test_an_export_does_not_replace_its_takes(takes: Path, acestep: Run) -> None:
    Path("01 mix.wav").write_bytes(Path("song-mix.wav").read_bytes())
    before = Path("01 mix.wav").read_bytes()
    result = acestep("export", "01 mix.wav", "--daw", "-o", ".", "--force")
    assert result.exit_code == 2, result.stderr
    assert Path("01 mix.wav").read_bytes() == before


def test_json_names_the_files(takes: Path, acestep: Run) -> None:
    result = acestep("export", *ALL, "--daw", "-o", "out/", "--json")
    [line] = result.stdout.splitlines()
    assert json.loads(line)["exported"] == [f"out/{name}" for name in WRITTEN]


@pytest.mark.parametrize("bpm", [87.3, 120.0, 141.5])
def test_the_measured_tempo_is_exact_to_a_third_of_a_per_cent(bpm: float) -> None:
    sound = Audio(click(20, bpm).T.astype(np.float32), RATE)
    assert measure.measure_tempo(sound, near=bpm * 1.04) == pytest.approx(bpm, rel=0.003)
    assert measure.measure_tempo(sound, near=bpm / 2) == pytest.approx(bpm / 2, rel=0.003)


def test_chunks_keep_even_lengths_and_the_sound(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, click(1, 100)[:, 0], RATE, "PCM_16")
    before = soundfile.read(file)[0]
    chunks = wav_chunks.marker_chunks([Marker(0.5, "Élan"), Marker(0.25, "odd")], RATE)
    wav_chunks.append_chunks(file, chunks + wav_chunks.grid_chunk(Grid(90), 1.0))
    assert np.array_equal(soundfile.read(file)[0], before)
    found = WavInfoReader(str(file), info_encoding="utf-8").cues
    assert [label.text for label in found.labels] == ["Élan", "odd"]
    with pytest.raises(ValueError, match="no WAV"):
        wav_chunks.append_chunks(Path(__file__), b"")


def test_the_song_and_the_numbered_mix_beside_stems_are_silent_at_first(takes: Path, acestep: Run) -> None:
    for number in (1, 2):
        for name in ("vocals.wav", "mix.wav"):
            for suffix in ("", ".yaml"):
                source = Path(f"song-{name}{suffix}")
                source.with_name(source.name.replace(".wav", f"-{number}.wav")).write_bytes(source.read_bytes())
    soundfile.write("song.wav", click(10, 100), RATE)
    whole = SIDECAR.replace("track: [{track}]\n", "").replace("mode: extract\nsource: source.wav", "mode: generate")
    Path("song.wav.yaml").write_text(whole.format(bpm=100), encoding="utf-8")
    names = ("song.wav", "song-vocals-1.wav", "song-mix-1.wav", "song-vocals-2.wav", "song-mix-2.wav")
    result = acestep("export", *names, "--daw", "-o", "out/", "--json")
    assert result.exit_code == 0, result.stderr
    tracks = rpp.loads(Path("out/song.rpp").read_text(encoding="utf-8")).findall("TRACK")
    found = [(track.find("NAME")[1], track.find("MUTESOLO")[1]) for track in tracks]
    assert found == [("mix", "1"), ("vocals", "0"), ("mix 2", "1"), ("vocals 2", "0"), ("mix 3", "1")]
    assert acestep("export", "song.wav", "--daw", "-o", "alone/").exit_code == 0
    assert "MUTESOLO 0" in Path("alone/song.rpp").read_text(encoding="utf-8")
