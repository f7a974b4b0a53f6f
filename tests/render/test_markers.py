"""`markers`: the sections of a song as markers in a WAV file, read back by another program's reader."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import wavinfo

from acestep_cli.audio.lrc import TimedLine
from acestep_cli.render import write
from acestep_cli.song import spec
from support import tiny
from support.command import Run, flat

SUNG = (
    "lyrics: |\n  [Verse 1]\n  City light slides over the glass\n  And the river keeps the sound\n"
    "  [Chorus]\n  We go on\n  We go on\n"
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_b: tiny.Oracle) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(two_b.root))
    Path("song.yaml").write_text("caption: a\nduration: 10\nseed: 1\nformat: wav\n" + SUNG)


def markers_in(file: str) -> dict[str, int]:
    """The names and sample positions of the markers in a WAV, as wavinfo reads them."""
    found = wavinfo.WavInfoReader(file)
    if found.cues is None:
        return {}
    names = {label.name: label.text for label in found.cues.labels}
    return {names[cue.name]: cue.position for cue in found.cues.cues}


@pytest.mark.parametrize("bit_depth", ["16", "24", "32f"])
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_sections_are_marked_where_they_begin(acestep: Run, bit_depth: str, rate: int) -> None:
    words = ("song.yaml", "--bit-depth", bit_depth, "--sample-rate", str(rate))
    assert acestep("generate", *words, "--markers", "-o", "a.wav").exit_code == 0
    assert markers_in("a.wav") == {"Verse 1": 0, "Chorus": 5 * rate}
    assert acestep("generate", *words, "-o", "b.wav").exit_code == 0
    assert markers_in("b.wav") == {}
    (marked, of_marked), (plain, of_plain) = soundfile.read("a.wav"), soundfile.read("b.wav")
    assert of_marked == of_plain == rate
    assert (marked == plain).all()


def test_timed_lyrics_place_the_markers() -> None:
    lines = (TimedLine(0.5, "City light slides over the glass"), TimedLine(2, "And the river keeps the sound"),
             TimedLine(7.25, "We go on"), TimedLine(9, "We go on"))  # fmt: skip
    found = write.section_markers("[Verse 1]" + SUNG.partition("[Verse 1]")[2].replace("\n  ", "\n"), 10, lines)
    assert found == ((0.5, "Verse 1"), (7.25, "Chorus"))


def test_other_tags_leave_the_markers(acestep: Run) -> None:
    words = ("generate", "song.yaml", "--markers", "-o", "a.wav")
    assert acestep(*words).exit_code == 0
    again = acestep(*words, "--title", "Glass")
    assert "a.wav: has new tags" in again.stderr
    assert markers_in("a.wav") == {"Verse 1": 0, "Chorus": 240_000}
    assert acestep("check", "a.wav").exit_code == 0


def test_they_are_part_of_the_recipe_and_of_the_sidecar(acestep: Run) -> None:
    assert acestep("generate", "song.yaml", "-o", "a.wav").exit_code == 0
    assert spec.load(Path("a.wav.yaml")).markers is None
    assert (
        "kept" in acestep("generate", "song.yaml", "--set", "markers=false", "-o", "a.wav").stderr
    )  # the same as unset
    assert acestep("generate", "song.yaml", "--markers", "-o", "a.wav").exit_code == 9
    assert acestep("generate", "song.yaml", "--markers", "-o", "a.wav", "--force").exit_code == 0
    assert spec.load(Path("a.wav.yaml")).markers is True
    assert acestep("generate", "a.wav.yaml", "-o", "c.wav").exit_code == 0
    assert markers_in("c.wav") == markers_in("a.wav") != {}


def test_the_track_of_an_album_has_them(acestep: Run) -> None:
    Path("album.yaml").write_text(
        "album: {title: One}\noutput: '{id}.{ext}'\ndefaults: {markers: true}\ntracks: [{id: one, spec: song.yaml}]\n"
    )
    assert acestep("album", "render", "album.yaml").exit_code == 0
    assert set(markers_in("one.wav")) == {"Verse 1", "Chorus"}


@pytest.mark.parametrize("format", ["flac", "mp3", "ogg", "opus"])
def test_formats_without_room_for_them_are_refused(acestep: Run, format: str) -> None:
    result = acestep("generate", "song.yaml", "--markers", "--format", format)
    assert result.exit_code == 2
    assert f"markers: {format} files have no place for them; ask for wav" in flat(result)


def test_a_song_without_sections_is_made_and_says_so(acestep: Run) -> None:
    Path("song.yaml").write_text("caption: a\nduration: 10\ninstrumental: true\n")
    result = acestep("generate", "song.yaml", "--markers", "-o", "a.wav")
    assert result.exit_code == 0
    assert "a.wav: it has no sections such as [Verse], so there are no markers." in flat(result)
    assert markers_in("a.wav") == {}
