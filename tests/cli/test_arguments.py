"""What stands in the place of a spec: a caption, a recording, an album, or a name of nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from acestep_cli.song import spec
from support.command import Run, flat, loaded
from support.sounds import recording

pytestmark = pytest.mark.usefixtures("here")
BEAT = "warm lo-fi beat"


@pytest.fixture
def refused(acestep: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`acestep …`, for what is refused: the pipeline cannot even be imported."""
    monkeypatch.setitem(sys.modules, "acestep_cli.pipeline", None)
    return acestep


def test_text_that_is_no_file_is_a_caption_and_says_so(acestep: Run) -> None:
    result = acestep("generate", BEAT, "-d", "10")
    assert (result.exit_code, result.stdout) == (0, "warm-lo-fi-beat-1.flac\n"), result.stderr
    assert f"There is no file '{BEAT}', so that is the caption (-c)" in result.stderr
    assert spec.load(Path("warm-lo-fi-beat-1.flac.yaml")).caption == BEAT
    assert acestep("generate", BEAT, "-d", "10", "-o", "out/").stdout == "out/warm-lo-fi-beat-1.flac\n"


def test_a_caption_may_end_in_a_number_with_a_point(acestep: Run) -> None:
    assert acestep("generate", "beat at 84.5", "-d", "10").exit_code == 0


def test_a_file_of_that_name_is_a_spec(acestep: Run) -> None:
    Path(BEAT).write_text("caption: b\nduration: 10\n")
    assert acestep("generate", BEAT, "-o", "a.flac").exit_code == 0
    assert spec.load(Path("a.flac.yaml")).caption == "b"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([BEAT, "-c", "other"], f"'{BEAT}' is no file, so it is the caption, and --caption gives another; leave"),
        ([BEAT, "--set", "caption=other"], "so it is the caption, and --set caption gives another"),
        ([BEAT, "song.yaml"], "as a caption it stands alone, not beside 1 more"),
        (["warm beat", "cold beat"], "as a caption it stands alone"),
        (["warm", "lo-fi", "beat"], "is one argument, in quotes. acestep generate 'warm lo-fi beat' makes music"),
        (["lo-fi", "beat", "-o", "x.flac"], "is one argument, in quotes. acestep generate 'lo-fi beat' makes music"),
        (["lo-fi"], "acestep generate -c lo-fi makes music"),
        (["songs"], "songs is a folder, and generate takes specs. acestep generate songs/*.md songs/*.yaml renders"),
        (["sonng.yaml"], "sonng.yaml: cannot be read: no such file or directory; did you mean song.yaml?"),
        (["song"], "song: there is no such file; did you mean song.yaml? acestep generate -c song makes"),
        (["lofi"], "lofi: there is no such file. acestep generate -c lofi makes music"),
        (["warm lo-fi.yaml"], "warm lo-fi.yaml: cannot be read: no such file"),
        (["songs/warm beat"], "songs/warm beat: there is no such file."),
        (["bare.flac"], "bare.flac is a recording, and generate takes specs. acestep cover bare.flac -c …"),
        (["my song.flac"], "my song.flac is a recording, and generate takes specs."),
        (["album.yaml"], "album.yaml is an album, not a song. acestep album render album.yaml"),
        (["short.yaml"], "short.yaml is an album, not a song."),
    ],
)  # fmt: skip
def test_what_is_refused_names_what_takes_it(refused: Run, arguments: list[str], sentence: str) -> None:
    Path("song.yaml").write_text("caption: a\nduration: 10\n")
    Path("album.yaml").write_text("album: Harbour\ntracks:\n  - low: songs/low.md\n")
    Path("short.yaml").write_text("tracks:\n  low: {caption: a}\n")
    Path("songs").mkdir()
    for name in ("high.yaml", "low.md"):
        (Path("songs") / name).write_text("")
    recording("bare.flac")
    result = refused("generate", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in flat(result)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["render", BEAT], 2, f"'{BEAT}' is no file, and render takes specs. acestep generate '{BEAT}' makes music"),
        (["cover", BEAT], 5, f"Name it first: acestep cover song.flac -c '{BEAT}'. acestep generate '{BEAT}' makes"),
        (["describe", BEAT], 5, f"'{BEAT}' is no file, and describe works on a recording. acestep write '{BEAT}'"),
        ([BEAT], 2, f"'{BEAT}' is no command. acestep generate '{BEAT}' makes music from these words."),
        (["song.yaml"], 2, "'song.yaml' is no command. acestep render song.yaml renders it."),
        (["album.yaml"], 2, "'album.yaml' is no command. acestep album render album.yaml renders its tracks."),
        (["take.wav"], 2, "'take.wav' is no command. acestep show take.wav shows it;"),
        (["album", "plan", "song.yaml"], 2, "song.yaml: is a song, not an album; acestep render song.yaml renders it"),
        (["cover", "tako.wav", "-c", "a"], 5, "cannot be read: no such file or directory; did you mean take.wav?"),
        (["show", "takse/song-2.flac"], 5, "did you mean takes/song-2.flac?"),
        (["listen", "takse"], 5, "takse cannot be read: no such file or directory; did you mean takes?"),
        (["train-lora", "takse", "-o", "sound"], 5, "takse is not there; did you mean takes?"),
        (["lora", "inspect", "takse"], 3, "The adapter takse does not exist; did you mean takes?"),
    ],
)  # fmt: skip
def test_other_commands_name_what_takes_it_too(refused: Run, arguments: list[str], code: int, sentence: str) -> None:
    Path("song.yaml").write_text("caption: a\nduration: 10\n")
    Path("album.yaml").write_text("album: {title: Harbour}\ntracks:\n  - songs/low.md\n")
    Path("takes").mkdir()
    recording("take.wav")
    recording("takes/song-2.flac")
    result = refused(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert sentence in flat(result)


def test_a_take_offers_its_sidecar_and_a_replay(acestep: Run) -> None:
    assert acestep("generate", BEAT, "-d", "10", "-o", "a.flac").exit_code == 0
    result = acestep("generate", "a.flac")
    assert result.exit_code == 2
    assert "acestep replay a.flac makes the take again and compares" in flat(result)
    assert "acestep render a.flac.yaml" in flat(result)
    Path("a.flac.yaml").unlink()
    bare = flat(acestep("render", "a.flac"))
    assert (
        "a.flac is a recording, and render takes specs. acestep replay a.flac makes the take again by its tags" in bare
    )


def test_an_album_is_named_by_render_too(refused: Run) -> None:
    Path("album.yaml").write_text("album: Harbour\ntracks:\n  - low: songs/low.md\n")
    assert "acestep album render album.yaml" in flat(refused("render", "album.yaml"))


def test_a_list_of_instruments_is_no_album(acestep: Run) -> None:
    recording("drums.wav")
    Path("all.yaml").write_text("mode: complete\nsource: drums.wav\ntracks: [bass, guitar]\n")
    assert "is an album" not in acestep("render", "all.yaml", "--dry-run").stderr


def test_a_caption_is_refused_cold() -> None:
    code, modules = loaded("generate", BEAT, "-c", "other")
    assert (code, modules) == (2, [])
