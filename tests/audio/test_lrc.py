"""Lyrics in time: the heads that follow them, the way through what they look at, the lines, and where they are kept."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import mutagen
import numpy as np
import pytest
import torch
import yaml
from mutagen.flac import FLAC
from mutagen.id3 import ID3
from tokenizers import Tokenizer
from torch import Tensor
from typer.testing import CliRunner, Result

from acestep_cli.audio import lrc
from acestep_cli.audio.lrc import TimedLine
from acestep_cli.cli.app import app
from acestep_cli.engine import alignment, denoise
from acestep_cli.engine.alignment import LyricTokens
from acestep_cli.engine.attention import full_attention
from acestep_cli.engine.dit import AceStep
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import CheckpointError
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete, document, prompts
from acestep_cli.song.request import Request
from acestep_cli.take import Take
from support import tiny
from support.command import finish
from support.lyrics import HEADS, SONG, plain_path
from support.places import RESULT_SCHEMA
from support.rendering import FLOAT32

SUNG = ["[Verse]", "City light slides", "over the glass", "[Chorus]", "WE RIDE ALONE"]
Acestep = Callable[..., Result]


@pytest.fixture(scope="session")
def singer(tmp_path_factory: pytest.TempPathFactory) -> tiny.Oracle:
    """A tiny checkpoint whose config names heads."""
    config = {**tiny.TWO_B, "lyric_alignment_layers_config": HEADS}
    return tiny.build(tmp_path_factory.mktemp("singer"), config)


@pytest.fixture
def acestep(singer: tiny.Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acestep:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(singer.root))
    (tmp_path / "song.yaml").write_text(
        document.dump_yaml({"caption": "x", "lyrics": SONG, "duration": 10, "steps": 2})
    )
    return lambda *words: CliRunner().invoke(app, [*words])


def take(singer: tiny.Oracle, plan: Plan = FLOAT32, **asked: Any) -> Take:
    found = checkpoints.find_checkpoint("turbo", singer.root)
    keys = {"caption": "a song", "lyrics": SONG, "duration": 10, "steps": 2, "seed": 3, "lrc": True}
    request = complete.complete(Request(**keys | asked), found)
    (made,) = Pipeline(found, plan).run([request], lambda *_: None)
    return made


# What the heads look at.


def test_attention_is_what_the_layers_attend_with(singer: tiny.Oracle) -> None:
    store = WeightStore(checkpoints.find_checkpoint("turbo", singer.root), FLOAT32, lambda *_: None)
    draws = torch.Generator().manual_seed(0)
    with torch.inference_mode(), store.dit() as model:
        assert isinstance(model, AceStep)
        frames, config = 40, model.config
        x = torch.randn(1, frames, config.latent_channels, generator=draws)
        context = torch.randn(1, frames, config.in_channels - config.latent_channels, generator=draws)
        length = config.head_dim  # so that the identity below has the shape of values
        heard = torch.randn(1, length, config.encoder_hidden_size, generator=draws)
        memory = model.decoder.project_condition(model.null_condition()._replace(states=heard))
        t = torch.tensor([0.5])
        heads = ((3, 1), (1, 0), (1, 3))
        found = model.decoder.attention_to_words(x, t, context, memory, heads, slice(4, 12))
        assert found.shape == (3, 8, frames // 2)
        states: dict[int, Tensor] = {}
        for number, layer in enumerate(model.decoder.layers):
            layer.cross_attn_norm.register_forward_hook(lambda *given, number=number: states.update({number: given[2]}))
        model.decoder(x, t, context, memory)
        for weights, (number, head) in zip(found, heads, strict=True):
            crossing, kept = model.decoder.layers[number].cross_attn, memory.layers[number]
            # What an attention gives is its values, weighted: of values that are the identity, the weights.
            identity = torch.eye(length).expand(1, kept.keys.shape[1], -1, -1)
            attended = full_attention(crossing.queries(states[number]), kept._replace(values=identity))
            expected = attended.view(frames // 2, -1, length)[:, head, 4:12].T
            torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-4)
    store.close()


def test_layers_above_the_heads_are_not_run(singer: tiny.Oracle) -> None:
    store = WeightStore(checkpoints.find_checkpoint("turbo", singer.root), FLOAT32, lambda *_: None)
    run: list[int] = []
    with torch.inference_mode(), store.dit() as model:
        for number, layer in enumerate(model.decoder.layers):
            layer.register_forward_hook(lambda *_, number=number: run.append(number))
        x, context = torch.zeros(1, 8, 8), torch.zeros(1, 8, 16)
        memory = model.decoder.project_condition(model.null_condition())
        model.decoder.attention_to_words(x, torch.ones(1), context, memory, ((1, 0), (0, 2)), slice(0, 1))
    store.close()
    assert run == [0, 1]


# The way through it.


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (4, 30), (30, 4), (12, 12)])
@pytest.mark.parametrize("ties", [False, True])
def test_the_path_is_that_of_a_cell_at_a_time(shape: tuple[int, int], ties: bool) -> None:
    costs = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    costs = np.round(costs) if ties else costs
    assert list(zip(*alignment.cheapest_path(costs), strict=True)) == plain_path(costs)


def test_sharpening_is_the_formula() -> None:
    attention = np.random.default_rng(1).random((3, 6, 11)).astype(np.float32) * 4
    powers = []
    for head in attention.astype(float):
        rows = np.exp(head) / np.exp(head).sum(axis=1, keepdims=True)
        columns = np.exp(head) / np.exp(head).sum(axis=0, keepdims=True)
        weights = rows * columns
        weights = np.maximum(weights - 2 * np.median(weights, axis=1)[:, None], 0)
        weights = np.maximum(weights - 2 * np.median(weights, axis=0)[None], 0)
        powers.append(weights**2)
    stack = np.stack(powers)
    expected = ((stack - stack.mean()) / (np.sqrt(((stack - stack.mean()) ** 2).mean()) + 1e-9)).mean(axis=0)
    np.testing.assert_allclose(alignment.exclusive_attention(attention), expected, rtol=1e-3, atol=1e-4)


def test_lines_begin_where_their_words_are_heard() -> None:
    sheet = LyricTokens(slice(0, 6), ((0, "one"), (2, "two"), (5, "three")), (True,) * 6)
    attention = np.zeros((2, 6, 60), np.float32)
    for token in range(6):
        attention[:, token, 10 * token : 10 * token + 10] = 1
    found = alignment.line_times(sheet, attention, 30.0)
    assert [line.text for line in found] == ["one", "two", "three"]
    assert [line.seconds for line in found] == pytest.approx([0, 10, 25], abs=0.51)


@pytest.mark.parametrize("lines", [((0, "one"),), ((0, "one"), (2, "two"), (5, "three"))], ids=len)
@pytest.mark.parametrize("value", [0.0, 0.25, np.nan], ids=str)
def test_words_that_nothing_looks_at_have_no_times(lines: tuple[tuple[int, str], ...], value: float) -> None:
    sheet = LyricTokens(slice(0, 6), lines, (True,) * 6)
    assert alignment.line_times(sheet, np.full((2, 6, 60), value, np.float32), 30.0) == ()


@pytest.mark.parametrize("moment", [0, 30, 59])
def test_lines_that_would_all_begin_at_one_time_have_none(moment: int) -> None:
    sheet = LyricTokens(slice(0, 6), ((0, "one"), (2, "two"), (5, "three")), (True,) * 6)
    attention = np.zeros((2, 6, 60), np.float32)
    attention[:, 5, moment] = 1
    attention[:, 0, 0] = 1
    found = alignment.line_times(sheet, attention, 30.0)
    assert found == () or len({line.seconds for line in found}) > 1


# The lines.


def test_a_sheet_holds_the_words_and_no_heading(singer: tiny.Oracle) -> None:
    tokenizer = Tokenizer.from_file(str(singer.root / "Qwen3-Embedding-0.6B" / "tokenizer.json"))
    ids = tokenizer.encode(prompts.lyric_prompt(SONG, "en")).ids
    sheet = LyricTokens.of(tokenizer, ids, "en")
    assert tokenizer.decode(ids[: sheet.tokens.start]) == "# Languages\nen\n\n# Lyric\n"
    assert tokenizer.decode(ids[sheet.tokens]) == SONG
    assert [text for _, text in sheet.lines] == SUNG
    words = ids[sheet.tokens]
    assert all(tokenizer.decode(words[first:]).startswith(text) for first, text in sheet.lines)


def test_times_are_of_hundredths() -> None:
    lines = [TimedLine(0, "[Verse]"), TimedLine(59.996, "über"), TimedLine(61.2349, "x"), TimedLine(600, "y")]
    assert lrc.dump_lrc(lines) == "[00:00.00][Verse]\n[01:00.00]über\n[01:01.23]x\n[10:00.00]y\n"


def test_lines_are_read_as_they_are_written() -> None:
    lines = (TimedLine(0.0, "[Verse]"), TimedLine(61.25, "über"))
    assert lrc.parse_lrc("[ti:Song]\n" + lrc.dump_lrc(lines)) == lines
    assert lrc.lrc_path(Path("a/song.flac")) == Path("a/song.lrc")


def test_lines_of_other_programs_are_read() -> None:
    """Several times of one line, hundredths behind a colon, times of words, lines without a time."""
    text = "[ar: me]\n[00:01.00] [01:09.5]la <00:02.00>la\n[00:05:25]li [00:06.00]li\nlo\n[offset:+5]\n[02:00]\n"
    assert [tuple(line) for line in lrc.parse_lrc(text)] == [
        (1, "la la"), (5.25, "li li"), (5.25, "lo"), (69.5, "la la"), (120, ""),
    ]  # fmt: skip


@pytest.mark.usefixtures("followed")
def test_lines_are_in_order_and_inside_the_song(singer: tiny.Oracle) -> None:
    made = take(singer)
    assert [line.text for line in made.lines] == SUNG
    seconds = [line.seconds for line in made.lines]
    assert all(one <= other for one, other in pairwise(seconds))
    assert seconds[0] >= 0
    assert seconds[-1] < 10
    assert take(singer).lines == made.lines
    assert take(singer, lrc=None).lines == ()


def test_lines_take_no_part_in_the_sound(singer: tiny.Oracle) -> None:
    assert np.array_equal(take(singer).audio.samples, take(singer, lrc=None).audio.samples)


@pytest.mark.usefixtures("followed")
@pytest.mark.parametrize("change", [{"int8": True}, {"streamed": True}, {"one_network": True}])
def test_lines_come_whatever_the_weights_are_kept_as(singer: tiny.Oracle, change: dict[str, Any]) -> None:
    assert [line.text for line in take(singer, FLOAT32.model_copy(update=change)).lines] == SUNG


def test_the_look_is_at_the_latents_with_a_last_trace_of_noise(
    singer: tiny.Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from acestep_cli.engine.dit import DiT

    seen: list[tuple[Tensor, Tensor]] = []
    ended: list[Tensor] = []
    attention, rendered = DiT.attention_to_words, denoise.denoise

    def look(self: DiT, x: Tensor, t: Tensor, *rest: Any) -> Tensor:
        seen.append((x.clone(), t.clone()))
        return attention(self, x, t, *rest)

    def made(*given: Any, **named: Any) -> Tensor:
        ended.append(rendered(*given, **named))
        return ended[-1]

    monkeypatch.setattr(DiT, "attention_to_words", look)
    monkeypatch.setattr(denoise, "denoise", made)
    take(singer, steps=4)
    ((x, t),) = seen
    noise = torch.randn(ended[0].shape, generator=denoise.stage_generator(3, "align"))
    assert t.tolist() == [0.25]
    torch.testing.assert_close(x, 0.25 * noise + 0.75 * ended[0])


# Where they are kept.


@pytest.mark.usefixtures("followed")
def test_the_file_lies_beside_the_take(acestep: Acestep) -> None:
    result = acestep("generate", "song.yaml", "--seed", "1", "-n", "2", "--lrc", "-o", "out/", "--json")
    assert result.exit_code == 0, result.stderr
    outputs = json.loads(result.stdout)["outputs"]
    assert [output["lrc"] for output in outputs] == ["out/song-1.lrc", "out/song-2.lrc"]
    text = Path("out/song-1.lrc").read_text(encoding="utf-8")
    assert [re.sub(r"^\[\d\d:\d\d\.\d\d\]", "", line) for line in text.splitlines()] == SUNG
    assert FLAC("out/song-1.flac")["lyrics"] == [text]
    again = acestep("generate", "song.yaml", "--seed", "1", "-n", "2", "--lrc", "-o", "out/", "--json")
    assert [output["status"] for output in json.loads(again.stdout)["outputs"]] == ["skipped"] * 2
    plain = acestep("generate", "song.yaml", "--seed", "1", "-o", "b.flac", "--json")
    assert json.loads(plain.stdout)["outputs"][0]["lrc"] is None
    assert FLAC("b.flac")["lyrics"] == [SONG]
    assert not Path("b.lrc").exists()


@pytest.mark.usefixtures("followed")
def test_tags_hold_times_where_there_is_a_field_for_them(acestep: Acestep) -> None:
    result = acestep("generate", "song.yaml", "--lrc", "--language", "German", "-o", "a.mp3")
    assert result.exit_code == 0, result.stderr
    (frame,) = ID3("a.mp3").getall("SYLT")
    assert (frame.lang, frame.format, frame.type) == ("deu", 2, 1)
    assert [text for text, _ in frame.text] == SUNG
    stamps = [lrc.format_stamp(milliseconds / 1000) for _, milliseconds in frame.text]
    lines = Path("a.lrc").read_text().splitlines()
    assert stamps == [line[1 : line.index("]")] for line in lines]
    assert ID3("a.mp3").getall("USLT")[0].text == SONG
    acestep("generate", "song.yaml", "--lrc", "-o", "b.opus")
    assert mutagen.File("b.opus")["lyrics"] == [Path("b.lrc").read_text()]


@pytest.mark.usefixtures("followed")
def test_a_replay_gives_the_same_times(acestep: Acestep) -> None:
    acestep("generate", "song.yaml", "--seed", "1", "--lrc", "-o", "a.flac")
    assert yaml.safe_load(Path("a.flac.yaml").read_text())["lrc"] is True
    assert acestep("generate", "a.flac.yaml", "-o", "b.flac").exit_code == 0
    assert Path("a.lrc").read_text() == Path("b.lrc").read_text()
    assert Path("a.flac").read_bytes() == Path("b.flac").read_bytes()


@pytest.mark.usefixtures("followed")
def test_a_take_without_its_file_is_no_such_take(acestep: Acestep) -> None:
    acestep("generate", "song.yaml", "--seed", "1", "-o", "a.flac")
    result = acestep("generate", "song.yaml", "--lrc", "-o", "a.flac")
    assert result.exit_code == 9
    assert "a.flac exists already without its timed lyrics" in result.stderr
    assert "--seed 1 --force makes both again" in result.stderr
    assert acestep("generate", "song.yaml", "--lrc", "--seed", "1", "--force", "-o", "a.flac").exit_code == 0
    Path("a.flac").unlink()
    assert acestep("generate", "song.yaml", "--lrc", "-o", "a.flac").exit_code == 0
    assert acestep("generate", "song.yaml", "--seed", "2", "--force", "-o", "a.flac").exit_code == 0
    assert not Path("a.lrc").exists()  # it would be of another take
    Path("b.lrc").write_text("mine")
    taken = acestep("generate", "song.yaml", "--lrc", "-o", "b.flac")
    assert taken.exit_code == 9
    assert "b.lrc exists already" in taken.stderr


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nothing looks at the words, but in takes of the seeds in this list."""
    from acestep_cli.engine.alignment import align_lyrics

    heard: list[int] = []

    def flat(look: Any, take: Any, *rest: Any, **more: Any) -> Any:
        if take.seed in heard:
            return align_lyrics(look, take, *rest, **more)
        return align_lyrics(look._replace(dit=Blind()), take, *rest, **more)

    class Blind:
        def attention_to_words(
            self, x: Tensor, t: Tensor, context: Tensor, memory: Any, heads: Any, tokens: slice
        ) -> Tensor:
            return torch.zeros(len(heads), tokens.stop - tokens.start, x.shape[1] // 2)

    monkeypatch.setattr(alignment, "align_lyrics", flat)
    return heard


@pytest.mark.usefixtures("unheard")
@pytest.mark.parametrize("format", ["flac", "mp3"])
def test_lyrics_that_are_not_found_leave_the_song_without_a_file_and_end_in_6(acestep: Acestep, format: str) -> None:
    words = ("generate", "song.yaml", "--seed", "1", "--lrc", "-o", f"a.{format}")
    result = acestep(*words, "--json")
    assert result.exit_code == 6
    assert f"a.{format}: its lyrics were not found in it" in result.stderr
    said = json.loads(result.stdout)
    jsonschema.validate(said, RESULT_SCHEMA)
    [entry] = said["outputs"]
    assert (entry["status"], entry["lrc"], entry["error"]["exit_code"]) == ("written", None, 6)
    assert any("not found" in warning for warning in said["warnings"])
    assert sorted(file.name for file in Path().iterdir()) == [f"a.{format}", f"a.{format}.yaml", "song.yaml"]
    if format == "mp3":
        assert not ID3("a.mp3").getall("SYLT")
        assert ID3("a.mp3").getall("USLT")[0].text == SONG
    before = Path(f"a.{format}").stat().st_ino
    again = acestep(*words, "--json")  # it would be the same song, so none is made
    assert again.exit_code == 6
    assert json.loads(again.stdout)["outputs"][0]["status"] == "skipped"
    assert Path(f"a.{format}").stat().st_ino == before
    assert acestep(*words[:4], "-o", f"a.{format}").exit_code == 0  # nobody asks for times


@pytest.mark.usefixtures("followed")
def test_takes_whose_lyrics_are_found_are_told_from_the_others(acestep: Acestep, unheard: list[int]) -> None:
    words = ("generate", "song.yaml", "--seed", "1", "-n", "2", "--lrc")
    none = acestep(*words, "-o", "none/")
    assert none.exit_code == 6
    assert "All 2 takes lack their timed lyrics." in none.stderr
    assert none.stdout.splitlines() == ["none/song-1.flac", "none/song-2.flac"]
    unheard.append(2)
    one = acestep(*words, "-o", "one/")
    assert one.exit_code == 7
    assert "2 of 2 takes are there; not all of them as asked." in one.stderr
    assert sorted(file.name for file in Path("one").glob("*.lrc")) == ["song-2.lrc"]


@pytest.mark.usefixtures("unheard")
def test_a_take_without_times_is_replayed(acestep: Acestep) -> None:
    acestep("generate", "song.yaml", "--seed", "1", "--lrc", "-o", "a.flac")
    assert yaml.safe_load(Path("a.flac.yaml").read_text())["render"]["untimed"] is True
    result = acestep("replay", "a.flac")
    assert result.exit_code == 0, result.stderr
    assert "identical" in result.stdout


# What is refused, and that torch need not be there for it.


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["-m", "pocket", "song.yaml"], 3, "pocket has no alignment heads, by which lyrics are timed; turbo, "),
        (["-m", "pocket", "song.yaml"], 3, "acestep models pull turbo"),
        (["-c", "x", "-d", "10"], 2, "--lrc: there are no lyrics to time"),
        (["-c", "x", "-d", "10", "--instrumental"], 2, "--lrc: there are no lyrics to time"),
        (["-c", "x", "-d", "10", "--lyrics", "[Intro]"], 2, "--lrc: there are no lyrics to time"),
        (["song.yaml", "-o", "-"], 2, "lrc asks for a file beside it"),
    ],
)
def test_refusals(acestep: Acestep, words: list[str], code: int, sentence: str) -> None:
    result = acestep("generate", "--lrc", *words)
    assert result.exit_code == code, result.stderr
    assert sentence in result.stderr
    assert list(Path().iterdir()) == [Path("song.yaml")]


def test_a_repaint_has_no_times(acestep: Acestep) -> None:
    result = acestep("render", "song.yaml", "--set", "mode=repaint", "--lrc")
    assert result.exit_code == 2
    assert "--lrc: has no meaning for repaint; it is for generate, cover, complete, edit." in result.stderr


def test_refusals_are_cold(singer: tiny.Oracle, tmp_path: Path) -> None:
    code = (
        "import sys; from acestep_cli.cli.app import main\n"
        "sys.argv = ['acestep', 'generate', '-c', 'x', '--lyrics', 'la', '-m', 'pocket', '--lrc']\n"
        "try: main()\nexcept SystemExit as end: assert end.code == 3, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    finish([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"9": [0]}, "has no alignment head 0 in layer 9: it has 4 layers of 4 heads"),
        ({"1": [7]}, "has no alignment head 7 in layer 1"),
        ({"one": [0]}, "names no heads in lyric_alignment_layers_config"),
        ([3], "names no heads in lyric_alignment_layers_config"),
        (None, "has no alignment head 6 in layer 2|has no alignment head 10 in layer 3"),
    ],
)
def test_heads_that_are_not_there_are_named(tmp_path: Path, named: Any, sentence: str) -> None:
    config = {**tiny.TWO_B, "lyric_alignment_layers_config": named}
    tiny.build(tmp_path, config)
    with pytest.raises(CheckpointError, match=sentence):
        _ = checkpoints.find_checkpoint("turbo", tmp_path).alignment_heads


def test_published_heads() -> None:
    """The heads of `docs/specification.md` 10.1."""
    two_b = {2: [6], 3: [10, 11], 4: [3], 5: [8, 9], 6: [8]}
    xl = {3: [18, 27], 4: [22], 5: [5, 6, 7], 6: [2, 12, 13], 7: [20, 21]}
    for name, row in checkpoint_table.CHECKPOINTS.items():
        expected = {} if name == "pocket" else xl if name.startswith("xl-") else two_b
        assert row.alignment_heads == tuple((layer, head) for layer, own in expected.items() for head in own)
