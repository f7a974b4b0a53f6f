"""Song specs: strict reading, layers, and specs that load as what was dumped."""

from __future__ import annotations

import io
import os
import random
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from acestep_cli.cli.app import app
from acestep_cli.errors import UsageError
from acestep_cli.song import spec, spec_keys, spec_layers
from acestep_cli.song.request import Request
from support import tiny


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes, name: str = "song.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(path: Path, **flags: object) -> str:
    with pytest.raises(UsageError) as caught:
        spec.resolve(*spec_layers.read_layers(path), spec_layers.from_flags(flags))
    assert caught.value.exit_code == 2
    return caught.value.message


@pytest.mark.parametrize(
    ("line", "key", "meant"),
    [
        ("language: no", "language", "no"),
        ("time_signature: 6/8", "time_signature", "6/8"),
        ("duration: 1:30", "duration", 90.0),
        ("seed: 0123", "seed", 123),
        ("bpm: '96'", "bpm", 96),
        ("title: 0123", "title", "0123"),
        ("title: 1e5", "title", "1e5"),
        ("title: yes", "title", "yes"),
        ("title: 2026-01-31", "title", "2026-01-31"),
        ("title: 'null'", "title", "null"),
        ("title: null", "title", None),
        ("title: ~", "title", None),
        ("title:", "title", None),
        ("key: F# minor", "key", "F# minor"),
        ("instrumental: true", "instrumental", True),
        ("timesteps: [1, 0.5, 1e-4]", "timesteps", (1.0, 0.5, 0.0001)),
        ("timesteps: 1, 0.5", "timesteps", (1.0, 0.5)),
        ("codes: [1, 2, 3]", "codes", (1, 2, 3)),
        ("lyrics: |\n  [Verse]\n  no: yes # all of it\n", "lyrics", "[Verse]\nno: yes # all of it\n"),
        ("caption: 夜のドライブ", "caption", "夜のドライブ"),
        ("render: {anything: [at, {all: 1}]}", "caption", None),
    ],
)
def test_the_key_decides_what_a_scalar_means(write, line: str, key: str, meant: object) -> None:
    assert getattr(spec.load(write(line)), key) == meant


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("bpm: 120.5", "song.yaml:1: bpm: '120.5' is not a whole number from 30 to 300"),
        ("# a song\n\nbpm: 20", "song.yaml:3: bpm: 20 is not a whole number"),
        ("lyrics: [Verse]", "song.yaml:1: lyrics: a list is not text; put it in quotes"),
        ("key: A #m", "in quotes if there is a space before `#`"),
        ("bpm: 90\nbpm: 91", "song.yaml:2: bpm: is here again, after line 1"),
        ("bmp: 90", "song.yaml:1: bmp: is not a key of a song spec; did you mean 'bpm'?"),
        ("prompt: x", "song.yaml:1: prompt: is not a key of a song spec; did you mean 'caption'?"),
        ("caption: {a: b}", "song.yaml:1: caption: is neither text, a number nor a list of them"),
        ("codes: [1, [2]]", "song.yaml:1: codes: is neither text, a number nor a list of them"),
        ("caption: !!python/name:os.system x", "begins with !, which YAML takes for the type"),
        ("caption: !mine x", "caption: '!mine x' begins with !"),
        ("timesteps: [1, ]\ncodes: [1, , 2]", "song.yaml:"),
        ("codes: [1, ~]", "song.yaml:1: codes: has an item without a value"),
        ("caption: *here", "caption: '*here' begins with *, which YAML takes for the name of an anchor"),
        ("<<: {bpm: 90}", "song.yaml:1: <<: is not a key of a song spec"),
        ("[a]: b", "song.yaml:1: […]: is not a key of a song spec"),
        (
            "mode: genrate",
            "song.yaml:1: mode: 'genrate' is not one of generate, cover, repaint, lego, extract, complete, edit; did "
            "you mean 'generate'?",
        ),
        ("mode: [generate]", "song.yaml:1: mode: \"['generate']\" is not one of generate"),
        ("caption: warm: soft", "song.yaml:1: 'warm: soft' has a colon in it; put the whole text in quotes"),
        ("caption: a\n  - b\n bpm: 3", "song.yaml:"),
        ("a: b\n---\nc: d", "song.yaml:2: '---' begins a second document"),
        ("", "song.yaml: is not a song spec"),
        ("- a\n- b", "song.yaml: is not a song spec"),
        ("just words", "song.yaml: is not a song spec"),
        (b"caption: \xff", "song.yaml: is not UTF-8 text (byte 9)"),
        ("caption: \x07", "song.yaml:1: holds a character that is not text"),
        ("lyrics_file: no.txt", "no.txt cannot be read: no such file or directory"),
        ("lyrics: la\nlyrics_file: words.txt", "song.yaml:2: lyrics_file: excludes lyrics (song.yaml:1: lyrics)"),
        ("lyrics: la\ninstrumental: true", "song.yaml:2: instrumental: excludes lyrics (song.yaml:1: lyrics)"),
    ],
)
def test_refusals_name_file_and_line(write, monkeypatch, tmp_path: Path, text: str, sentence: str) -> None:
    write(text)
    monkeypatch.chdir(tmp_path)
    message = refusal(Path("song.yaml"))
    assert sentence in message


def test_a_missing_spec_is_a_usage_error(tmp_path: Path) -> None:
    assert "nowhere.yaml: cannot be read: no such file" in refusal(tmp_path / "nowhere.yaml")


def test_all_problems_of_spec_and_flags_come_together(write) -> None:
    path = write("bpm: 20\nbmp: 1\nkey: H minor\nkey: A minor\n")
    lines = refusal(path, language="klingon", steps="0").splitlines()
    assert len(lines) == 6
    for part in ("song.yaml:1: bpm", "song.yaml:2: bmp", "song.yaml:4: key: is here", "song.yaml:3: key: 'H minor'"):
        assert any(part in line for line in lines)
    assert any(line.startswith("--language: 'klingon'") for line in lines)
    assert any(line.startswith("--steps: 0 is") for line in lines)


def test_flags_override_the_spec(write) -> None:
    path = write("caption: a\nbpm: 20\nkey: A minor")
    merged = spec.resolve(*spec_layers.read_layers(path), spec_layers.from_flags({"bpm": "90", "key": None})).request
    assert merged == Request(caption="a", bpm=90, key="A minor")


def test_a_flag_about_singing_sets_the_others_aside(write) -> None:
    sung, bare = write("lyrics: la", "a.yaml"), write("instrumental: true", "b.yaml")
    assert spec.resolve(
        *spec_layers.read_layers(sung), spec_layers.from_flags({"instrumental": True})
    ).request == Request(instrumental=True)
    assert spec.resolve(*spec_layers.read_layers(bare), spec_layers.from_flags({"lyrics": "la"})).request == Request(
        lyrics="la"
    )


def test_another_format_sets_the_bit_depth_of_the_spec_aside(write) -> None:
    path = write("format: flac\nbit_depth: 16")
    assert spec.resolve(*spec_layers.read_layers(path), spec_layers.from_flags({"format": "mp3"})).request == Request(
        format="mp3"
    )
    assert (
        spec.resolve(*spec_layers.read_layers(path), spec_layers.from_flags({"format": "flac"})).request.bit_depth
        == "16"
    )
    assert (
        spec.resolve(
            *spec_layers.read_layers(write("bit_depth: 16")), spec_layers.from_flags({"format": "wav"})
        ).request.bit_depth
        == "16"
    )


OFF = {"dcw": "off"}  # the takes below are older than that key
TURBO_TAKE = "model: turbo\nsteps: 8\nshift: 3\nguidance: 1\ncodes: [1]\nrender: {}"
BASE_TAKE = "model: base\nsteps: 50\nshift: 1\nguidance: 7\nguidance_method: adg\ncfg_interval: [0, 1]\nrender: {}"
TIMED_TAKE = "model: turbo\ntimesteps: [1, 0.5]\nguidance: 1\nrender: {}"


@pytest.mark.parametrize(
    ("below", "flags", "meant"),
    [
        (BASE_TAKE, {"guidance": "1"}, {"model": "base", "steps": 50, "shift": 1, "guidance": 1, "dcw": "off"}),
        (
            BASE_TAKE,
            {"guidance": "5"},
            {
                "model": "base",
                "steps": 50,
                "shift": 1,
                "guidance": 5,
                "guidance_method": "adg",
                "cfg_interval": (0, 1),
                "dcw": "off",
            },
        ),
        (BASE_TAKE, {"model": "turbo"}, {"model": "turbo"}),
        (BASE_TAKE, {"model": "./turbo", "steps": "4"}, {"model": str(Path("turbo").absolute()), "steps": 4}),
        (TURBO_TAKE, {"model": "base"}, {"model": "base", "codes": [1]}),
        (
            TURBO_TAKE,
            {"model": "turbo"},
            {"model": "turbo", "steps": 8, "shift": 3, "guidance": 1, "codes": [1], **OFF},
        ),
        (
            TURBO_TAKE,
            {"timesteps": "1,0.5"},
            {"model": "turbo", "timesteps": [1, 0.5], "guidance": 1, "codes": [1], **OFF},
        ),
        (TIMED_TAKE, {"steps": "4"}, {"model": "turbo", "steps": 4, "guidance": 1, "dcw": "off"}),
        (TIMED_TAKE, {"shift": "2"}, {"model": "turbo", "shift": 2, "guidance": 1, "dcw": "off"}),
        (TIMED_TAKE, {"model": "base"}, {"model": "base"}),
        ("model: turbo\nsteps: 12", {"model": "base"}, {"model": "base", "steps": 12}),
        ("steps: 12", {"model": "base"}, {"model": "base", "steps": 12}),
    ],
)
def test_flags_override_what_a_take_records(write, below: str, flags: dict[str, str], meant: dict) -> None:
    assert spec.resolve(*spec_layers.read_layers(write(below)), spec_layers.from_flags(flags)).request == Request(
        **meant
    )


def test_guidance_that_cannot_be_read_is_refused_over_a_take(write) -> None:
    assert refusal(write(BASE_TAKE), guidance="much").startswith("--guidance: 'much' is not a number")


def test_what_the_checkpoint_refuses_is_named_with_its_place(write) -> None:
    layers = *spec_layers.read_layers(write("caption: a\nguidance: 7\n")), spec_layers.from_flags({"steps": "50"})
    with pytest.raises(UsageError) as caught, spec.placing_problems(*layers):
        raise UsageError("guidance: no.\nsteps: no.\ncaption: no: really.\nOther: words.", "Do this.")
    guidance, *others = caught.value.message.splitlines()
    assert guidance.endswith("song.yaml:2: guidance: no.")
    assert others[0] == "--steps: no."
    assert others[1].endswith("song.yaml:1: caption: no: really.")
    assert others[2].endswith("song.yaml: Other: words.")
    assert caught.value.hint == "Do this."


def test_the_command_names_the_place_of_what_the_checkpoint_refuses(write, two_b: tiny.Oracle) -> None:
    words = [str(write("guidance: 7")), "--models-dir", str(two_b.root), "-m", "turbo", "--lyrics", "-"]
    result = CliRunner().invoke(app, ["generate", *words], input="là")
    assert result.exit_code == 2
    assert "song.yaml:1: guidance: 7 cannot be applied" in result.stderr


def test_paths_are_relative_to_the_spec(write, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "words").mkdir()
    write("[Verse]\nla\n", "words/la.txt")
    path = write("lyrics_file: words/la.txt\nmodel: ./mine")
    monkeypatch.chdir("/")
    loaded = spec.load(path)
    assert loaded.lyrics == "[Verse]\nla\n"
    assert loaded.model == str(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "words")
    assert spec.resolve(spec_layers.from_flags({"lyrics_file": "la.txt"})).request.lyrics == "[Verse]\nla\n"


def test_the_current_folder_is_a_model_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for written, meant in (
        (".", tmp_path),
        ("./", tmp_path),
        ("~", tmp_path / "home"),
        ("~/x", tmp_path / "home" / "x"),
    ):
        assert spec.resolve(spec_layers.from_flags({"model": written})).request.model == str(meant)


# parts of a text that YAML takes for comments


@pytest.mark.parametrize(
    ("line", "lost", "in_quotes"),
    [
        ("caption: jam #1", "#1", "caption: 'jam #1'"),
        ("caption: warm lofi #lofi #chill", "#lofi #chill", "caption: 'warm lofi #lofi #chill'"),
        ("title: It's jam #2 # really", "#2 # really", "title: 'It''s jam #2 # really'"),
        ("title: #1 hit", "#1 hit", "title: '#1 hit'"),
        ("Artist: Ünï #9\r", "#9", "Artist: 'Ünï #9'"),
        ("lyrics: la la #hey", "#hey", "lyrics: 'la la #hey'"),
        ("songwriter_options: {negative_prompt: noise #1\n  }", "#1", "negative_prompt: 'noise #1'"),
        ("caption: slow\n  jam #1", "#1", "caption: 'slow jam #1'"),
    ],
)
def test_a_text_that_loses_its_end_to_a_comment_is_remarked_on(write, line: str, lost: str, in_quotes: str) -> None:
    path = write(f"# é 🎸\ngenre: Folk\n{line}\n")
    [remark] = spec.resolve(*spec_layers.read_layers(path)).remarks
    key = in_quotes.partition(":")[0].lower()
    assert remark.startswith(f"{path}:3: {key}: '{lost}' is a comment to YAML; as text it needs quotes: ")
    assert remark.lower().endswith(in_quotes.lower())
    if "{" not in line and "\n" not in line:
        assert spec.resolve(*spec_layers.read_layers(write(f"{in_quotes}\n"))).remarks == ()
    over = spec.resolve(*spec_layers.read_layers(path), spec_layers.from_flags({key: "other"}))
    assert over.remarks == ()


@pytest.mark.parametrize(
    "line",
    [
        "bpm: 90 #slow",
        "caption: jam # slow",
        "caption: jam  #1",
        "caption: jam # 1 #2",
        "caption: jam ## loud",
        "caption: 'jam' #1",
        "caption: jam#1",
        "lyrics: | #1\n  la #2\n",
        "title: # later",
        "instrumental: true #1",
    ],
)
def test_a_comment_that_is_meant_is_not_remarked_on(write, line: str) -> None:
    assert spec.resolve(*spec_layers.read_layers(write(f"genre: Folk\n{line}\n"))).remarks == ()


def test_a_text_that_is_all_comment_is_named_as_the_cause(write) -> None:
    run = CliRunner().invoke(app, ["spec", "check", str(write("caption: #1 hit\n"))])
    assert run.exit_code == 2
    first, second = run.stderr.splitlines()
    assert "there is nothing to make music from" in first
    assert "'#1 hit' is a comment to YAML; as text it needs quotes: caption: '#1 hit'" in second


def test_a_long_text_is_not_repeated(write) -> None:
    [remark] = spec.resolve(*spec_layers.read_layers(write(f"caption: {'slow ' * 20}#1\n"))).remarks
    assert remark.endswith("'#1' is a comment to YAML; as text it needs quotes")


def test_an_empty_path_is_refused(write) -> None:
    assert "song.yaml:1: lyrics_file: is empty" in refusal(write("lyrics_file: ''"))
    assert "--lyrics-file: is empty" in refusal(write("caption: a"), lyrics_file="")
    assert "--model: is empty" in refusal(write("caption: a"), model="")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name of a file is text")
def test_a_folder_whose_name_is_no_text_may_hold_the_lyrics(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "la.txt").write_text("la\n")
    monkeypatch.chdir(folder)
    assert spec.resolve(spec_layers.from_flags({"lyrics_file": "la.txt"})).request.lyrics == "la\n"


@pytest.fixture
def stdin(monkeypatch):
    """What is piped into the program, whose locale is not that of the lyrics."""

    def stdin(data: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="latin-1"))

    return stdin


@pytest.mark.parametrize("flags", [{"lyrics_file": "-"}, {"lyrics": "-"}])
def test_a_dash_reads_lyrics_from_stdin(stdin, flags: dict[str, str]) -> None:
    stdin("\ufeff[Verse]\r\nlà\n".encode())
    assert spec.resolve(spec_layers.from_flags(flags)).request.lyrics == "[Verse]\nlà\n"


def test_lyrics_from_stdin_are_utf_8(write, stdin) -> None:
    stdin(b"l\xe0")
    assert "--lyrics: - is not UTF-8 text (byte 1)" in refusal(write("caption: a"), lyrics="-")


def test_an_empty_lyrics_file_is_refused(write) -> None:
    write(" \n", "la.txt")
    assert "la.txt is empty" in refusal(write("lyrics_file: la.txt"))


FULL = Request(
    caption="warm, no: yes # really", lyrics="[Verse]\n  la\n\n[Chorus]\n# na\n", language="no", bpm=90, key="F# minor",
    time_signature="6/8", duration=90.5, codes=tuple(range(450)), model="turbo", solver="heun",
    timesteps=(1.0, 0.5, 1e-4), cfg_interval=(0.1, 0.9), seed=123, takes=1, title="0123", format="flac",
    bit_depth="24", loudness="peak:-1", mode="generate", dcw="off",
)  # fmt: skip


def test_what_is_dumped_loads_as_itself(write) -> None:
    text = spec.dump_spec(FULL, {"timings": {"decode": 1.25}, "versions": {"torch": "2.13.0"}, "seconds": 90.48})
    assert spec.load(write(text)) == FULL
    assert yaml.safe_load(text)["render"] == {
        "timings": {"decode": 1.25},
        "versions": {"torch": "2.13.0"},
        "seconds": 90.48,
    }


def test_any_yaml_reader_sees_the_same_texts(write) -> None:
    plain = yaml.safe_load(spec.dump_spec(FULL))
    for name in ("caption", "lyrics", "language", "key", "time_signature", "title"):
        assert plain[name] == getattr(FULL, name)


def test_lyrics_are_dumped_as_lines() -> None:
    assert "lyrics: |\n  [Verse]\n  la\n" in spec.dump_spec(Request(lyrics="[Verse]\nla\n"))


def test_any_text_survives_a_round_trip(write) -> None:
    dice = random.Random(0)
    alphabet = " \t\n\r:#-[]{}'\"|>&*!%@`\\,?~=aé夜🎵\u2028\x85\ufeff0.1eyn"
    for _ in range(400):
        text = "".join(dice.choices(alphabet, k=dice.randint(1, 30)))
        if text.strip():
            assert spec.load(write(spec.dump_spec(Request(lyrics=text)))).lyrics == text


def test_aliases_do_not_multiply(write) -> None:
    """The billion-laughs document is refused without being unfolded."""
    rows = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    assert "a59: is not a key" in refusal(write("\n".join(rows)))
    assert "codes: is neither text" in refusal(write("codes: [&a [1], *a]"))


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "{a: " * 100_000, "- " * 100_000, "caption: " + "[" * 10_000 + "]" * 10_000]
)
def test_deep_nesting_is_refused(write, text: str) -> None:
    """Reading it by recursion would end the interpreter, not raise."""
    assert "song.yaml:" in refusal(write(text))


def test_every_key_of_a_request_is_a_key_of_a_spec() -> None:
    assert set(Request.model_fields) | {"lyrics_file", "from_lyrics_file", "before", "after", "extends"} == set(
        spec_keys.KEYS
    )
    assert set(spec_keys.OTHER_NAMES.values()) <= set(spec_keys.KEYS)
    assert not set(spec_keys.OTHER_NAMES) & set(spec_keys.KEYS)


# maps


def test_the_keys_of_a_map_are_layered_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "caption: x\nsongwriter_options:\n  temperature: 0.5\n  top_k: 40\n  negative_prompt: noise\n"
    )
    (tmp_path / "a.yaml").write_text(
        "extends: base.yaml\nsongwriter_options: {temperature: 0.7, negative_prompt: null}\n"
    )
    layers = [*spec_layers.read_layers(tmp_path / "a.yaml"), spec_layers.from_flags({"cfg_scale": "3"})]
    request = spec.resolve(*layers).request
    assert (request.temperature, request.top_k, request.cfg_scale, request.negative_prompt) == (0.7, 40, 3, None)
    assert (
        spec.dump_spec(request) == "caption: x\nsongwriter_options:\n  temperature: 0.7\n  top_k: 40\n  cfg_scale: 3\n"
    )
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nsongwriter_options: null\n")
    assert spec.load(tmp_path / "b.yaml").top_k is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("songwriter_options: {temperature: -1}", "a.yaml:1: temperature: -1 is not a number from 0 to 2"),
        ("songwriter_options:\n  top_q: 1", "a.yaml:2: top_q: is not a key of a song spec; did you mean 'top_p'?"),
        ("songwriter_options:\n  bpm: 90", "a.yaml:2: bpm: is not a key of songwriter_options"),
        ("songwriter_options: 3", "a.yaml:1: songwriter_options: is a map, with temperature, top_p"),
        ("songwriter_options: [a]", "a.yaml:1: songwriter_options: is a map"),
        ("temperature: 0.5", "a.yaml:1: temperature: belongs under songwriter_options"),
        ("songwriter_options: {top_k: 1}\nsongwriter_options: {top_p: 1}", "a.yaml:2: songwriter_options: is here"),
        ("songwriter_options:\n  top_k: 1\n  top_k: 2", "a.yaml:3: top_k: is here again, after line 2"),
        ("songwriter_options: {top_k: {a: 1}}", "a.yaml:1: top_k: is neither text, a number nor a list"),
        ("bpm: {a: 1}", "a.yaml:1: bpm: is neither text, a number nor a list"),
    ],
)
def test_maps_are_read_as_strictly(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{text}\n")
    with pytest.raises(UsageError) as caught:
        spec.load(file)
    assert sentence in str(caught.value)
