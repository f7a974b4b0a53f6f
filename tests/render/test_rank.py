"""Takes in order: how surely their words are heard, what the Songwriter thinks of them, and what is said of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM
from typer.testing import CliRunner, Result

from acestep_cli.cli.app import app
from acestep_cli.engine import alignment, code_likelihood
from acestep_cli.engine.alignment import LyricTokens
from acestep_cli.engine.songwriter import SongwriterModel
from acestep_cli.engine.weights import WeightStore
from acestep_cli.models import checkpoint_files, checkpoints
from acestep_cli.render import perform
from acestep_cli.render.result import OutputFile
from acestep_cli.song import complete, document, prompts, ranking, songwriter_prompts
from acestep_cli.song.request import Request
from support import tiny
from support.lyrics import HEADS, SONG, plain_path
from support.rendering import FLOAT32

Acestep = Callable[..., Result]


@pytest.fixture(scope="session")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint whose config names heads, and a Songwriter."""
    root = tmp_path_factory.mktemp("hall")
    tiny.build(root, {**tiny.TWO_B, "lyric_alignment_layers_config": HEADS})
    return root


@pytest.fixture(scope="session")
def oracle(hall: Path) -> Qwen3ForCausalLM:
    return tiny.build_songwriter(hall / "acestep-5Hz-lm-0.6B")


@pytest.fixture
def acestep(hall: Path, oracle: Qwen3ForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acestep:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACESTEP_MODELS_DIR", str(hall))
    song = {"caption": "x", "lyrics": SONG, "duration": 10, "steps": 2, "bpm": 90, "language": "en"}
    (tmp_path / "song.yaml").write_text(document.dump_yaml(song))
    return lambda *words: CliRunner().invoke(app, [*words])


# The lyric alignment score of `docs/specification.md` 10.3, a step at a time.


def plain_score(attention: np.ndarray, sung: list[bool]) -> float:
    mean = attention.astype(float).mean(axis=0)
    energy = (mean - mean.min()) / (mean.max() - mean.min())
    way = plain_path((-(energy**2)).astype(np.float32))
    rows = [row for row, is_sung in zip(energy, sung, strict=True) if is_sung]
    covered = sum(row.max() > 0.1 for row in rows) / len(rows)
    centres = []
    for row in rows:
        kept = [(time, weight) for time, weight in enumerate(row) if weight > 0.01]
        if kept:
            centres.append(sum(time * weight for time, weight in kept) / sum(weight for _, weight in kept))
    pairs = list(pairwise(centres))
    monotone = sum(after >= before - 9 for before, after in pairs) / len(pairs) if pairs else 1.0
    confidence = sum(energy[row, time] for row, time in way) / len(way)
    return round(min(max(covered**2 * monotone**2 * confidence, 0), 1), 4)


@pytest.mark.parametrize("seed", range(8))
def test_the_score_is_the_formula(seed: int) -> None:
    draws = np.random.default_rng(seed)
    attention = draws.random((3, 12, 60)).astype(np.float32) ** 12
    attention[:, 5] *= 1e-4  # a word that is heard nowhere
    sung = [bool(flag) for flag in draws.integers(0, 2, 12)]
    sung[3] = True
    sheet = LyricTokens(slice(0, 12), (), tuple(sung))
    assert alignment.alignment_score(sheet, attention) == pytest.approx(plain_score(attention, sung), abs=2e-4)


def test_words_in_order_score_higher_than_words_that_are_not() -> None:
    sheet = LyricTokens(slice(0, 6), (), (True,) * 6)
    ordered = np.zeros((1, 6, 120), np.float32)
    for token in range(6):
        ordered[0, token, 20 * token : 20 * token + 20] = 1
    backwards, noise = ordered[:, ::-1], np.random.default_rng(0).random(ordered.shape).astype(np.float32)
    assert alignment.alignment_score(sheet, ordered) == 0.96  # the path goes over five corners
    assert alignment.alignment_score(sheet, np.ascontiguousarray(backwards)) == 0
    assert alignment.alignment_score(sheet, noise) < 0.9
    assert alignment.alignment_score(sheet, np.ones_like(ordered)) == 0  # what looks at everything hears nothing


def test_words_are_what_stands_outside_of_brackets(hall: Path) -> None:
    tokenizer = Tokenizer.from_file(str(hall / "Qwen3-Embedding-0.6B" / "tokenizer.json"))
    ids = tokenizer.encode(prompts.lyric_prompt("[Verse - soft]\nla [x] lo\n[Outro", None)).ids
    sheet = LyricTokens.of(tokenizer, ids, None)
    words = ids[sheet.tokens]
    outside = [token for token, sung in zip(words, sheet.sung, strict=True) if sung]
    assert tokenizer.decode(outside) == "\nla  lo\n"


# The code likelihood of `docs/specification.md` 10.4, with transformers' own forward pass over each whole text.


def plain_logits(model: Qwen3ForCausalLM, prompt: list[int], answer: list[int]) -> torch.Tensor:
    found = model(torch.tensor([prompt + answer])).logits[0].double()
    return found[len(prompt) - 1 : -1]


def plain_judgement(model: Qwen3ForCausalLM, tokenizer: Tokenizer, song: Request) -> dict[str, float]:
    frame = (
        "<|im_start|>system\n# Instruction\nUnderstand the given musical conditions and describe the audio semantics "
        "accordingly:\n\n<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    )
    codes = "".join(f"<|audio_code_{code}|>" for code in song.codes or ())
    heard, unheard = (tokenizer.encode(frame.format(text)).ids for text in (codes, "NO USER INPUT"))

    def information(text: str) -> float:
        answer = tokenizer.encode(text).ids
        means = []
        for prompt in (heard, unheard):
            logs = plain_logits(model, prompt, answer).log_softmax(-1)
            means.append(sum(float(row[token]) for row, token in zip(logs, answer, strict=True)) / len(answer))
        return 1 / (1 + math.exp(-(means[0] - means[1]) / 0.1))

    def recall(field: str) -> float:
        answer = tokenizer.encode(f"<think>\n{field}\n</think>\n").ids
        counted = []
        for row, token in zip(plain_logits(model, heard, answer), answer, strict=True):
            likeliest = row.argsort(descending=True)[:10].tolist()
            counted.append(1 - likeliest.index(token) / 10 if token in likeliest else 0)
        return sum(counted) / len(counted)

    fields = ["bpm: 90", "duration: 10", "genres: Lo-fi", "keyscale: A minor", "language: 'no'", "timesignature: 4"]
    parts = {
        "caption": information("<think>\ncaption: soft keys\n</think>\n"),
        "lyrics": information(f"<think>\n</think>\n# Lyric\n{song.lyrics}\n"),
        "metadata": sum(recall(field) for field in fields) / len(fields),
    }
    return {"judgement": 0.5 * parts["caption"] + 0.3 * parts["lyrics"] + 0.2 * parts["metadata"]} | {
        f"judgement_{name}": part for name, part in parts.items()
    }


def judged(hall: Path, **asked: Any) -> tuple[complete.Completed, dict[str, float]]:
    found = checkpoints.find_checkpoint("turbo", hall)
    helper = checkpoint_files.Songwriter("0.6B", hall / "acestep-5Hz-lm-0.6B")
    song = complete.complete(Request(**{"seed": 1, "codes": tuple(range(0, 5000, 100)), **asked}), found, helper)
    store = WeightStore(found, FLOAT32, lambda *_: None, helper)
    with torch.inference_mode(), store.songwriter() as songwriter:
        scored = code_likelihood.score_codes(songwriter, song)
    store.close()
    return song, scored


def test_the_judgement_is_the_formula(hall: Path, oracle: Qwen3ForCausalLM) -> None:
    metadata = {"bpm": 90, "key": "A minor", "language": "no", "time_signature": "4/4", "genre": "Lo-fi"}
    song, found = judged(hall, caption="soft\nkeys", lyrics="[Verse]\nla la\n", **metadata)
    tokenizer = Tokenizer.from_file(str(hall / "acestep-5Hz-lm-0.6B" / "tokenizer.json"))
    with torch.inference_mode():
        expected = plain_judgement(oracle, tokenizer, song)
    assert found == pytest.approx(expected, abs=1e-4)


def test_what_was_not_asked_has_no_weight(hall: Path, oracle: Qwen3ForCausalLM) -> None:
    _, found = judged(hall, caption="keys")
    assert set(found) == {"judgement", "judgement_caption", "judgement_metadata"}  # a duration is always known
    assert found["judgement"] == pytest.approx(
        (0.5 * found["judgement_caption"] + 0.2 * found["judgement_metadata"]) / 0.7
    )


def test_a_long_text_is_read_in_pieces_with_the_same_result(
    hall: Path, oracle: Qwen3ForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = judged(hall, caption="keys " * 30, lyrics="la la\n" * 30)
    monkeypatch.setattr(code_likelihood, "SONGWRITER_PASS_TOKENS", 7)
    monkeypatch.setattr(code_likelihood, "LOGIT_TOKENS", 5)
    _, pieces = judged(hall, caption="keys " * 30, lyrics="la la\n" * 30)
    assert pieces == pytest.approx(whole, abs=1e-4)


# What is said of the takes.


def test_takes_are_reported_best_first(acestep: Acestep) -> None:
    result = acestep("generate", "song.yaml", "--seed", "1", "-n", "3", "--rank", "-o", "out/", "--json", "-v")
    assert result.exit_code == 0, result.stderr
    made = json.loads(result.stdout)["outputs"]
    assert sorted(output["take"] for output in made) == [1, 2, 3]
    assert [output["rank"] for output in made] == [1, 2, 3]
    means = [(output["scores"]["lyric_alignment"] + output["scores"]["judgement"]) / 2 for output in made]
    assert means == sorted(means, reverse=True)
    assert set(made[0]["scores"]) == {
        *("lyric_alignment", "lyric_alignment_in_noise", "judgement"),
        *("judgement_caption", "judgement_lyrics", "judgement_metadata"),
    }
    assert "Takes are ranked by lyric alignment and judgement\n" in result.stderr
    assert "lyric alignment  judgement  seed" in result.stderr
    for output in made:
        spec = yaml.safe_load(Path(output["sidecar"]).read_text())
        assert spec["render"]["scores"] == output["scores"]
        assert "rank" not in spec
    again = acestep("generate", "song.yaml", "--seed", "1", "-n", "3", "--rank", "-o", "out/", "--json")
    skipped = json.loads(again.stdout)["outputs"]
    assert [output["status"] for output in skipped] == ["skipped"] * 3
    assert [(one["path"], one["rank"], one["scores"]) for one in skipped] == [
        (one["path"], one["rank"], one["scores"]) for one in made
    ]


def test_scores_take_no_part_in_the_sound_or_the_recipe(acestep: Acestep) -> None:
    for name, more in (("a", ["--rank"]), ("b", [])):
        assert acestep("generate", "song.yaml", "--seed", "1", *more, "-o", f"{name}.flac").exit_code == 0
    assert np.array_equal(soundfile.read("a.flac")[0], soundfile.read("b.flac")[0])
    recipes = [yaml.safe_load(Path(f"{name}.flac.yaml").read_text())["render"]["recipe"] for name in "ab"]
    assert recipes[0] == recipes[1]
    assert (
        json.loads(acestep("generate", "song.yaml", "--seed", "1", "-o", "a.flac", "--json").stdout)["outputs"][0][
            "rank"
        ]
        is None
    )  # nobody asked this time


def test_given_codes_are_judged_where_a_songwriter_is_named(acestep: Acestep) -> None:
    song = ["-c", "x", "--set", f"codes={'7,' * 49}7", "-d", "10", "--instrumental", "--seed", "1", "--json", "--rank"]
    result = acestep("generate", *song, "--songwriter", "0.6B", "-o", "a.flac")
    assert result.exit_code == 0, result.stderr
    assert "Takes are ranked by judgement; lyric alignment does not apply, because there are no lyrics" in result.stderr
    assert "decides what is open" not in result.stderr
    (output,) = json.loads(result.stdout)["outputs"]
    assert set(output["scores"]) == {"judgement", "judgement_caption", "judgement_metadata"}
    assert "songwriter" not in yaml.safe_load(Path("a.flac.yaml").read_text())["render"]


def test_without_a_songwriter_the_words_alone_count(acestep: Acestep) -> None:
    result = acestep("generate", "song.yaml", "--no-think", "--rank", "-o", "a.flac", "--json")
    assert result.exit_code == 0, result.stderr
    assert "judgement does not apply, because songwriter is none" in result.stderr
    assert set(json.loads(result.stdout)["outputs"][0]["scores"]) == {"lyric_alignment", "lyric_alignment_in_noise"}


@pytest.mark.usefixtures("followed")
def test_what_is_kept_of_a_take_are_its_times_and_scores_too(acestep: Acestep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACESTEP_CACHE_DIR", str(Path("cache").absolute()))
    asked = ["generate", "song.yaml", "--seed", "1", "--cache", "--json"]
    assert acestep(*asked, "-o", "plain.flac").exit_code == 0
    (made,) = json.loads(acestep(*asked, "--lrc", "--rank", "-o", "a.flac").stdout)["outputs"]
    result = acestep(*asked, "--lrc", "--rank", "-o", "b.ogg")
    assert "b.ogg: made before; encoded again" in result.stderr
    (again,) = json.loads(result.stdout)["outputs"]
    assert made["scores"] == again["scores"] != {}
    assert Path("a.lrc").read_text() == Path("b.lrc").read_text()


def test_an_idea_that_becomes_an_instrumental_has_no_times(acestep: Acestep, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {"caption": "soft keys", "lyrics": None, "bpm": 90, "key": "A minor", "time_signature": "4/4"}
    monkeypatch.setattr(SongwriterModel, "answer", lambda *_: written)
    idea = ["generate", "--idea", "x", "-d", "10", "--seed", "1", "--lrc", "--rank", "-o", "a.flac", "--json"]
    result = acestep(*idea)
    assert result.exit_code == 0, result.stderr
    assert "a.flac: nobody sings in it, so there are no lyrics to time." in result.stderr
    (output,) = json.loads(result.stdout)["outputs"]
    assert output["lrc"] is None
    assert "lyric_alignment" not in output["scores"]
    assert not Path("a.lrc").exists()
    (again,) = json.loads(acestep(*idea).stdout)["outputs"]
    assert (again["status"], again["lrc"]) == ("skipped", None)
    assert acestep("generate", "a.flac.yaml", "-o", "b.flac").exit_code == 0  # a sidecar is a spec


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["generate", "-c", "x", "--no-think"],
            "--rank has nothing to go by: lyric alignment does not apply, because there are no lyrics; judgement does "
            "not apply, because songwriter is none.",
        ),
        (["generate", "song.yaml", "-m", "pocket"], "because pocket has no alignment heads"),
        (
            ["generate", "song.yaml", "-m", "pocket"],
            "because its Songwriter comes when it is named, with --songwriter pocket",
        ),
        (
            ["repaint", "tone.wav", "--start", "0", "--end", "1", "-c", "x"],
            "because repaint makes no whole song; judgement does not apply, because the Songwriter judges codes, and "
            "repaint follows none",
        ),
    ],
)
def test_refusals(acestep: Acestep, words: list[str], sentence: str) -> None:
    soundfile.write("tone.wav", np.sin(np.arange(48_000 * 2) / 20) * 0.3, 48_000)
    result = acestep(*words, "--rank", "-o", "out/")
    assert result.exit_code == 2, result.stderr
    assert sentence in result.stderr
    assert not Path("out").exists()


def test_the_order_is_by_what_all_takes_have() -> None:
    both, better, alone = {"lyric_alignment": 0.2, "judgement": 0.9}, {"lyric_alignment": 0.4, "judgement": 0.8}, {}
    assert ranking.mean_scores([both, alone, better]) == [pytest.approx(0.55), None, pytest.approx(0.6)]
    assert ranking.mean_scores([both, {"lyric_alignment": 0.3}]) == [0.2, 0.3]
    assert ranking.mean_scores([{"judgement": 0.1}, {"lyric_alignment": 0.3}]) == [None, None]


def test_a_take_that_failed_comes_last() -> None:
    request = complete.complete(Request(caption="x", seed=1), checkpoints.find_checkpoint("pocket"))

    def take(number: int, **more: Any) -> OutputFile:
        return OutputFile(Path(f"{number}.flac"), None, number, request, {}, **more)

    failed = take(1, scores={"judgement": 0.9}, error={"exit_code": 6})
    low, high, none = take(2, scores={"judgement": 0.1}), take(3, scores={"judgement": 0.2}), take(4)
    found = perform.rank_takes([failed, low, high, none])
    assert found == [high, low, failed, none]
    assert [output.rank for output in found] == [1, 2, None, None]


def test_targets_are_the_published_ones() -> None:
    assert songwriter_prompts.scored_field("language", "no") == "<think>\nlanguage: 'no'\n</think>\n"
    assert songwriter_prompts.scored_lyrics("la\nla") == "<think>\n</think>\n# Lyric\nla\nla\n"
