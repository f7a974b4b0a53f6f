"""The Songwriter: its prompts word for word, its grammar under random weights, its codes against transformers."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import llguidance
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen3ForCausalLM
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from acestep_cli.engine import sampling
from acestep_cli.engine.attention import KeysValues, full_attention
from acestep_cli.engine.kv_cache import KVCache
from acestep_cli.engine.language_model import Qwen3Decoder
from acestep_cli.engine.songwriter import CONTEXT, SongwriterModel
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import CheckpointError, UsageError
from acestep_cli.machine.memory import SONGWRITER_PASS_TOKENS
from acestep_cli.models import checkpoint_files, checkpoints
from acestep_cli.models.sizes import qwen_of
from acestep_cli.models.songwriters import find_songwriters, needed_songwriters
from acestep_cli.song import idea_words, songwriter_prompts
from acestep_cli.song.idea_words import KeptWords
from acestep_cli.song.request import Request
from acestep_cli.song.songwriter_prompts import Sampling, WritingTask
from support import tiny
from support.rendering import FLOAT32

SONG = Request(caption="a song", lyrics="[Verse]\nla la", seed=1)
SECONDS = (10, 600)
#: `docs/specification.md` 9.2, line by line.
FRAME = "<|im_start|>system\n# Instruction\n{}\n\n<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def quiet(done: int, total: int) -> None:
    """Progress nobody watches."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("songwriter") / "acestep-5Hz-lm-0.6B"


@pytest.fixture(scope="session")
def oracle(folder: Path) -> Qwen3ForCausalLM:
    """transformers' model with the weights of the tiny Songwriter."""
    return tiny.build_songwriter(folder)


@pytest.fixture(scope="session")
def songwriter(two_b: tiny.Oracle, folder: Path, oracle: Qwen3ForCausalLM) -> Iterator[SongwriterModel]:
    found = checkpoint_files.Songwriter("0.6B", folder)
    store = WeightStore(checkpoints.find_checkpoint("turbo", two_b.root), FLOAT32, lambda *_: None, found)
    with store.songwriter() as borrowed:
        assert store.resident == {"songwriter"}
        yield borrowed
    store.close()
    assert not store.resident
    assert not store.warnings


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


# What it reads.


@pytest.mark.parametrize(
    ("made", "instruction", "content"),
    [
        (
            songwriter_prompts.song_prompt("lo-fi", "[Verse]\nhi"),
            "Generate audio semantic tokens based on the given conditions:",
            "# Caption\nlo-fi\n\n# Lyric\n[Verse]\nhi\n",
        ),
        (
            songwriter_prompts.song_prompt("lo-fi", None),
            "Generate audio semantic tokens based on the given conditions:",
            "# Caption\nlo-fi\n\n# Lyric\n[Instrumental]\n",
        ),
        (
            songwriter_prompts.idea_prompt("a love song", instrumental=False),
            "Expand the user's input into a more detailed and specific musical description:",
            "a love song\n\ninstrumental: false",
        ),
        (
            songwriter_prompts.idea_prompt(" ", instrumental=True),
            "Expand the user's input into a more detailed and specific musical description:",
            "NO USER INPUT\n\ninstrumental: true",
        ),
        (
            songwriter_prompts.rewrite_prompt("lo-fi", "hi"),
            "Format the user's input into a more detailed and specific musical description:",
            "# Caption\nlo-fi\n\n# Lyric\nhi",
        ),
        (
            songwriter_prompts.rewrite_prompt(None, None),
            "Format the user's input into a more detailed and specific musical description:",
            "# Caption\nNO USER INPUT\n\n# Lyric\n[Instrumental]",
        ),
        (
            songwriter_prompts.understanding_prompt([0, 63_999]),
            "Understand the given musical conditions and describe the audio semantics accordingly:",
            "<|audio_code_0|><|audio_code_63999|>",
        ),
        (
            songwriter_prompts.understanding_prompt([]),
            "Understand the given musical conditions and describe the audio semantics accordingly:",
            "NO USER INPUT",
        ),
    ],
    ids=["song", "instrumental", "idea", "no idea", "rewrite", "nothing to rewrite", "hearing", "silence"],
)
def test_prompts_are_the_published_ones(
    songwriter: SongwriterModel, folder: Path, made: str, instruction: str, content: str
) -> None:
    assert made == FRAME.format(instruction, content)
    published = Tokenizer.from_file(str(folder / "tokenizer.json"))  # with all its 64,005 marks of codes
    assert songwriter.encode(made) == published.encode(made).ids


def test_guidance_leads_away_from_no_wish_at_all() -> None:
    frame = FRAME.format("Generate audio semantic tokens based on the given conditions:", "{}")
    assert songwriter_prompts.unguided_prompt(None) == frame.format("NO USER INPUT") + "<think>\n\n</think>\n\n"
    assert songwriter_prompts.unguided_prompt("noise") == frame.format("noise") + "<think>\n\n</think>\n\n"


def test_a_thought_is_yaml_as_the_model_was_taught() -> None:
    request = Request(bpm=120, key="F# minor", time_signature="6/8", duration=90.5, language="no", caption="a\n b")
    assert songwriter_prompts.dump_thought(songwriter_prompts.known_metadata(request)) == (
        "bpm: 120\ncaption: a b\nduration: 90\nkeyscale: F# minor\nlanguage: 'no'\ntimesignature: 6\n"
    )
    assert songwriter_prompts.dump_thought({"caption": "Intro: it's " + 20 * "long "}).startswith(
        "caption: 'Intro: it''s long long"
    )
    assert "\n  long" in songwriter_prompts.dump_thought({"caption": "Intro: it's " + 20 * "long "})
    assert songwriter_prompts.dump_thought({"caption": "2024"}) == "caption: 2024\n"
    assert songwriter_prompts.format_thought("bpm: 120\n") == "<think>\nbpm: 120\n</think>\n\n"
    assert len(songwriter_prompts.KEY_SIGNATURES) == 70


# What it writes.


def document(
    songwriter: SongwriterModel, task: songwriter_prompts.WritingTask, seed: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Any]:
    """The text of a thought as it was written, and what was made of it."""
    texts: list[str] = []
    read = songwriter_prompts.parse_thought
    with monkeypatch.context() as patch:
        patch.setattr(songwriter_prompts, "parse_thought", lambda text: texts.append(text) or read(text))
        found = songwriter.answer(task, Sampling(), seeded(seed), quiet)
    return texts[0], found


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 320), marks=pytest.mark.slow)], ids=str)
def test_random_weights_write_a_valid_spec(
    songwriter: SongwriterModel, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(songwriter_prompts, "CAPTION_TOKENS", 60)
    monkeypatch.setattr(songwriter_prompts, "LYRIC_TOKENS", 60)
    task = songwriter_prompts.idea_task(Request(idea="x"), ["lyrics"], SECONDS)
    lengths = []
    for seed in seeds:
        text, found = document(songwriter, task, seed, monkeypatch)
        fields = yaml.safe_load(text)
        assert list(fields) == sorted(fields)
        assert set(fields) | {"genres"} == set(songwriter_prompts.FIELDS)
        assert "�" not in text + (found["lyrics"] or "")
        request = Request(**found)
        assert 10 <= (request.duration or 0) <= 600
        assert request.caption
        assert request.lyrics is None or request.lyrics.strip()
        lengths.append(len(songwriter.encode(request.caption)))
    assert 50 < max(lengths) < 80  # random weights find no end: the limit does


@pytest.mark.parametrize(
    "asked",
    [
        {"language": "no", "bpm": 71, "key": "Bb minor", "time_signature": "6/8", "duration": 77},
        {"caption": "It's: a test # of `quotes`\nand lines, " + "wide " * 30, "genre": "Norwegian: folk"},
    ],
    ids=["metadata", "words"],
)
def test_what_is_asked_for_stays(songwriter: SongwriterModel, asked: dict[str, Any]) -> None:
    request = Request(idea="x", **asked)
    found = songwriter.answer(songwriter_prompts.idea_task(request, ["lyrics"], SECONDS), Sampling(), seeded(3), quiet)
    for key, value in asked.items():
        want = " ".join(value.split()) if key == "caption" else getattr(request, key)
        assert found[key] == want


def test_a_spec_with_words_is_only_completed(songwriter: SongwriterModel) -> None:
    found = songwriter.answer(songwriter_prompts.metadata_task(SONG, ["bpm"], SECONDS), Sampling(), seeded(0), quiet)
    assert set(found) == {"bpm", "duration", "key", "language", "time_signature"}
    task = songwriter_prompts.metadata_task(SONG, ["bpm", "caption"], SECONDS)
    assert "caption" in songwriter.answer(task, Sampling(), seeded(0), quiet)
    instrumental = songwriter_prompts.metadata_task(Request(caption="x"), ["bpm"], SECONDS)
    assert songwriter.answer(instrumental, Sampling(), seeded(0), quiet)["language"] == "unknown"


def test_text_follows_its_seed_and_its_temperature(songwriter: SongwriterModel) -> None:
    task = songwriter_prompts.metadata_task(SONG, ["caption"], SECONDS)

    def written(seed: int, **how: Any) -> dict[str, Any]:
        torch.manual_seed(seed + 1)  # which nothing reads
        return songwriter.answer(task, Sampling(**how), seeded(seed), quiet)

    assert written(1) == written(1) != written(2)
    assert written(1, temperature=0) == written(2, temperature=0)


def test_text_is_the_likeliest_that_the_grammar_allows(
    songwriter: SongwriterModel, oracle: Qwen3ForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedily, each token against transformers' own forward pass over all before it, each token tried by itself."""
    reads: list[list[int]] = []
    read = KVCache.step
    monkeypatch.setattr(KVCache, "step", lambda cache, tokens: reads.append(tokens[0]) or read(cache, tokens))
    task = songwriter_prompts.metadata_task(SONG, ["caption"], SECONDS)
    monkeypatch.setattr(songwriter_prompts, "CAPTION_TOKENS", 20)
    songwriter.answer(task, Sampling(temperature=0), seeded(0), quiet)
    ids, *steps = reads
    assert ids == songwriter.encode(task.prompt + "<think>\n")
    matcher = llguidance.LLMatcher(songwriter._grammar_tokenizer, task.thought_grammar())
    sampled = 0
    for step in steps:
        forced = matcher.compute_ff_tokens()
        if not forced and sampled < 20:
            logits = oracle(torch.tensor([ids])).logits[0, -1]
            allowed = [token for token in range(songwriter.vocabulary.first_code)
                       if matcher.validate_tokens([token]) == 1]  # fmt: skip
            assert step == [max(allowed, key=lambda token: float(logits[token]))]
            sampled += 1
        if not matcher.consume_tokens(step):
            break  # the caption was cut back
        ids = [*ids, *step]
    assert sampled > 5


# Its codes.


def codes(
    songwriter: SongwriterModel, count: int, seeds: list[int], together: int = 1, **how: Any
) -> list[tuple[int, ...]]:
    generators = [seeded(seed) for seed in seeds]
    return list(
        songwriter.sample_codes(
            songwriter_prompts.song_prompt("a", "b"), "bpm: 90\n", count, Sampling(**how), generators, together, quiet
        )
    )


def test_codes_are_as_many_as_asked_and_all_valid(songwriter: SongwriterModel) -> None:
    for made in codes(songwriter, 57, [1, 2]):
        assert len(made) == 57
        assert all(0 <= code < tiny.SONGWRITER_CODES for code in made)
        assert len(set(made)) > 20


def test_takes_are_what_they_are_alone(songwriter: SongwriterModel) -> None:
    together = codes(songwriter, 30, [1, 2, 3])
    assert together == [codes(songwriter, 30, [seed])[0] for seed in (1, 2, 3)]
    assert len(set(together)) == 3


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_takes_in_one_batch_are_what_they_are_alone(songwriter: SongwriterModel, scale: float, penalty: float) -> None:
    """Each row has its own draws and its own past, also in a last batch that is smaller."""
    how = {"cfg_scale": scale, "repetition_penalty": penalty}
    alone = codes(songwriter, 30, [1, 2, 3, 4, 5], **how)
    assert codes(songwriter, 30, [1, 2, 3, 4, 5], together=2, **how) == alone
    assert codes(songwriter, 30, [1, 2, 3, 4, 5], together=8, **how) == alone


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("negative", [None, "a much longer wish that nobody has, repeated " * 3], ids=["short", "long"])
def test_greedy_codes_are_those_of_transformers(
    songwriter: SongwriterModel, oracle: Qwen3ForCausalLM, scale: float, negative: str | None
) -> None:
    [made] = codes(songwriter, 12, [1], temperature=0, cfg_scale=scale, negative_prompt=negative)
    conditional = songwriter.encode(songwriter_prompts.song_prompt("a", "b") + "<think>\nbpm: 90\n</think>\n\n")
    other = songwriter.encode(songwriter_prompts.unguided_prompt(negative))
    first = songwriter.vocabulary.first_code
    for code in made:
        with_wish, without = (oracle(torch.tensor([ids])).logits[0, -1] for ids in (conditional, other))
        logits = (without + scale * (with_wish - without))[first : first + tiny.SONGWRITER_CODES]
        assert int(logits.argmax()) == code
        conditional, other = ([*ids, first + code] for ids in (conditional, other))


def test_the_kv_cache_reads_as_the_model_does(songwriter: SongwriterModel, oracle: Qwen3ForCausalLM) -> None:
    """Prompts of several passes and of different lengths, and back again."""
    prompts = [[(7 * place + row) % 300 for place in range(length)]
               for row, length in enumerate((2 * SONGWRITER_PASS_TOKENS + 13, 40))]  # fmt: skip

    def expected(*more: int) -> Tensor:
        return torch.stack([oracle(torch.tensor([[*prompt, *more]])).logits[0, -1] for prompt in prompts])

    def logits(states: Tensor) -> Tensor:
        return torch.nn.functional.linear(states, songwriter.model.embed_tokens.weight)

    cache = KVCache.empty(songwriter.model, 2, len(prompts[0]) + 4)
    torch.testing.assert_close(logits(cache.prefill(prompts)), expected(), atol=1e-4, rtol=1e-4)
    begun = cache.length
    torch.testing.assert_close(logits(cache.step([[9, 8], [9, 8]])), expected(9, 8), atol=1e-4, rtol=1e-4)
    cache.truncate(begun)
    torch.testing.assert_close(logits(cache.step([[5], [5]])), expected(5), atol=1e-4, rtol=1e-4)


class Appending:
    """What transformers' layers take for a cache: new keys and values go where `KVCache` keeps them."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        return self.cache._append(layer, keys, values)


def folded(module: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, **_: Any) -> Any:
    return full_attention(queries, KeysValues(keys, values), mask), None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_states_have_the_bits_of_transformers_layers(
    oracle: Qwen3ForCausalLM, folder: Path, dtype: torch.dtype
) -> None:
    ALL_ATTENTION_FUNCTIONS.register("folded", folded)
    ours = Qwen3Decoder(qwen_of(folder)).eval()
    ours.load_state_dict(oracle.model.state_dict())
    theirs = copy.deepcopy(oracle.model).to(dtype)
    theirs.rotary_emb = Qwen3RotaryEmbedding(theirs.config)  # whose frequencies stay in float32
    theirs.set_attn_implementation("folded")
    caches = [KVCache.empty(ours.to(dtype), 1, 40) for _ in range(2)]
    for tokens in ([[7 * place % 300 for place in range(20)]], [[5]], [[9, 8, 7]]):
        places = torch.arange(caches[0].length, caches[0].length + len(tokens[0]))
        mask = caches[1]._mask(places, torch.zeros(1))
        expected = theirs(
            input_ids=torch.tensor(tokens), position_ids=places[None], past_key_values=Appending(caches[1]),
            attention_mask={"full_attention": mask},
        ).last_hidden_state  # fmt: skip
        caches[1].length += len(tokens[0])
        assert torch.equal(caches[0].states(tokens), expected)


# Sampling.


@pytest.mark.parametrize("size", [50, 3 * sampling.TOP_P_CANDIDATES])
@pytest.mark.parametrize(
    "how",
    [{}, {"top_p": 0.3}, {"top_p": 1, "top_k": 5}, {"top_p": 0.5, "top_k": 9}, {"temperature": 1.7, "top_p": 1},
     {"repetition_penalty": 1.5, "top_p": 0.8}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("sharp", [0.3, 6], ids=["flat", "sharp"])
def test_tokens_come_from_the_distribution_of_transformers(size: int, how: dict[str, Any], sharp: float) -> None:
    logits = torch.randn(size, generator=seeded(size)) * sharp
    seen = [0, 1, 1, 2]
    options = Sampling(**how)
    want = RepetitionPenaltyLogitsProcessor(options.repetition_penalty)(torch.tensor([seen]), logits[None].clone())
    want = TopKLogitsWarper(options.top_k)(None, want) if options.top_k else want
    want = TopPLogitsWarper(options.top_p)(None, want)
    probabilities = TemperatureLogitsWarper(options.temperature)(None, want)[0].softmax(0)
    generator = seeded(0)
    drawn = torch.tensor([sampling.sample_token(logits, seen, options, generator) for _ in range(3000)])
    found = drawn.bincount(minlength=size) / len(drawn)
    assert not found[probabilities == 0].any()
    top = probabilities.topk(10)
    torch.testing.assert_close(found[top.indices], top.values, atol=0.04, rtol=0)


# What is refused.


def test_a_prompt_beyond_the_context_is_refused(songwriter: SongwriterModel) -> None:
    with pytest.raises(UsageError, match="tokens long; with its answer"):
        songwriter.answer(
            songwriter_prompts.idea_task(Request(idea="x" * CONTEXT), ["lyrics"], SECONDS), Sampling(), seeded(0), quiet
        )
    with pytest.raises(UsageError, match="codes"):
        codes(songwriter, CONTEXT, [1])


def broken(folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], name: str) -> Path:
    """A copy of the Songwriter's folder with one of its JSON files changed."""
    changed = tmp_path / "songwriter"
    changed.mkdir()
    for file in folder.iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    content = json.loads((changed / name).read_text(encoding="utf-8"))
    change(content)
    (changed / name).write_text(json.dumps(content), encoding="utf-8")
    return changed


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("tokenizer.json", lambda content: content.pop("added_tokens"), "is not the tokenizer of a Songwriter"),
        ("tokenizer.json", lambda content: content["added_tokens"].pop(50), "not in a row"),
        ("tokenizer.json", lambda content: content["added_tokens"].__delitem__(slice(100, None)), "64000 audio codes"),
        ("tokenizer.json", lambda content: content.pop("model"), "is not a tokenizer that this"),
        ("config.json", lambda content: content.update(vocab_size=500), "does not describe a Songwriter"),
        ("config.json", lambda content: content.update(hidden_size="wide"), "hidden_size"),
        ("config.json", lambda content: content.update(use_sliding_window=True, sliding_window=8, max_window_layers=0,
                                                       layer_types=None), "use_sliding_window"),
    ],
)  # fmt: skip
def test_what_is_no_songwriter_is_refused(
    folder: Path, oracle: Qwen3ForCausalLM, tmp_path: Path, name: str, change: Any, sentence: str
) -> None:
    with pytest.raises(CheckpointError, match=sentence) as caught:
        SongwriterModel(broken(folder, tmp_path, change, name), tiny.SONGWRITER_CODES)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("start", ["model.", ""])
def test_either_spelling_has_the_same_numbers(
    two_b: tiny.Oracle, songwriter: SongwriterModel, folder: Path, tmp_path: Path, start: str
) -> None:
    other = tmp_path / "acestep-5Hz-lm-0.6B"
    shutil.copytree(folder, other)
    tensors = load_file(other / "model.safetensors")
    save_file({start + name: weight.clone() for name, weight in tensors.items()}, other / "model.safetensors")
    found = checkpoint_files.Songwriter("0.6B", other)
    store = WeightStore(checkpoints.find_checkpoint("turbo", two_b.root), FLOAT32, lambda *_: None, found)
    with store.songwriter() as other:
        assert all(
            torch.equal(weight, other.model.state_dict()[name])
            for name, weight in songwriter.model.state_dict().items()
        )
        assert codes(other, 4, [1]) == codes(songwriter, 4, [1])
    store.close()
    assert not store.warnings


def test_a_songwriter_is_found_by_name_and_by_folder(
    two_b: tiny.Oracle, folder: Path, oracle: Qwen3ForCausalLM, tmp_path: Path
) -> None:
    turbo, pocket = checkpoints.find_checkpoint("turbo", two_b.root), checkpoints.find_checkpoint("pocket")
    models = folder.parent
    assert find_songwriters(None, turbo, models) == [checkpoint_files.Songwriter("0.6B", folder), None]
    own = checkpoints.built_in_songwriter()
    for asked in (None, "auto"):  # pocket speaks another codebook than the published ones
        assert find_songwriters(asked, pocket, models) == [None]
        assert needed_songwriters(asked, pocket, models, "An idea") == [own]
    assert find_songwriters("pocket", pocket, models) == [own]
    assert find_songwriters("auto", turbo, tmp_path) == [None]
    assert find_songwriters("none", turbo, models) == [None]
    assert find_songwriters(str(folder), turbo, models) == [checkpoint_files.Songwriter(str(folder), folder)]
    for asked, checkpoint, sentence in (
        ("1.7B", turbo, "acestep models pull 1.7B"),
        ("0.6B", pocket, "do not use the same codes"),
        ("pocket", turbo, "do not use the same codes"),
        (str(tmp_path / "none"), turbo, "neither a Songwriter's name nor a folder"),
        (str(tmp_path), turbo, "config.json is missing"),
    ):
        with pytest.raises(CheckpointError) as caught:
            find_songwriters(asked, checkpoint, models)
        assert sentence in str(caught.value)
    with pytest.raises(CheckpointError, match=r"An idea needs a Songwriter, and .* has none that goes with turbo"):
        needed_songwriters("auto", turbo, tmp_path, "An idea")


def test_auto_takes_the_largest_whole_one(
    two_b: tiny.Oracle, folder: Path, oracle: Qwen3ForCausalLM, tmp_path: Path
) -> None:
    turbo = checkpoints.find_checkpoint("turbo", two_b.root)
    for name in ("0.6B", "1.7B", "4B"):
        broken(folder, tmp_path, lambda content: None, "config.json").rename(tmp_path / f"acestep-5Hz-lm-{name}")
    cut = tmp_path / "acestep-5Hz-lm-4B" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    assert [one and one.name for one in find_songwriters("auto", turbo, tmp_path)] == ["1.7B", "0.6B", None]
    with pytest.raises(CheckpointError, match="cut short"):
        find_songwriters("4B", turbo, tmp_path)


# What it keeps of an idea.

IDEA = "rainy-day bossa nova about a lost umbrella, with nylon guitar, upright bass, brushed drums and a big choir"


def writing(songwriter: SongwriterModel, task: WritingTask, seed: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The answer to a task, and every token that was read for it."""
    reads: list[list[int]] = []
    read = KVCache.step
    with monkeypatch.context() as patch:
        patch.setattr(KVCache, "step", lambda cache, tokens: reads.append(tokens[0]) or read(cache, tokens))
        return songwriter.answer(task, Sampling(), seeded(seed), quiet), reads


@pytest.fixture
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(songwriter_prompts, "CAPTION_TOKENS", 30)
    monkeypatch.setattr(songwriter_prompts, "LYRIC_TOKENS", 20)


@pytest.mark.usefixtures("_short_texts")
@pytest.mark.parametrize("seed", range(4))
def test_a_caption_that_keeps_the_words_is_left_as_it_is(
    songwriter: SongwriterModel, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = songwriter_prompts.idea_task(Request(idea="x"), ["lyrics"], SECONDS)
    assert task.kept is None
    found, reads = writing(songwriter, task, seed, monkeypatch)
    there = tuple(idea_words.stems(found["caption"]))
    assert there
    kept = KeptWords(("never said",), there)
    assert writing(songwriter, replace(task, kept=kept), seed, monkeypatch) == (found, reads)


@pytest.mark.usefixtures("_short_texts")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("idea", ["rainy-day bossa nova about a lost umbrella", IDEA], ids=["short", "long"])
def test_a_caption_without_the_words_is_written_once_more_from_them_on(
    songwriter: SongwriterModel, seed: int, idea: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(idea=idea, instrumental=True)
    task = songwriter_prompts.idea_task(request, ["lyrics"], SECONDS)
    assert task.kept is not None
    assert (len(task.kept.opening) > 80) == (idea == IDEA)
    first, reads = writing(songwriter, replace(task, kept=None), seed, monkeypatch)
    texts: list[str] = []
    read = songwriter_prompts.parse_thought
    monkeypatch.setattr(songwriter_prompts, "parse_thought", lambda text: texts.append(text) or read(text))
    found, more = writing(songwriter, task, seed, monkeypatch)
    assert len(texts) == 2  # and never a third
    assert found["caption"].startswith(f"{task.kept.opening}, ")
    assert found["caption"][len(task.kept.opening) + 2].isalpha()
    assert not task.kept.missing(found["caption"])
    assert found["bpm"] == first["bpm"]
    assert reads[:5] == more[:5]  # the first try is what it always was
    assert Request(**found).caption == found["caption"]
    assert songwriter_prompts.opening_of(request, found["caption"]) == task.kept.opening
    assert writing(songwriter, task, seed, monkeypatch)[0] == found


@pytest.mark.usefixtures("_short_texts")
def test_a_caption_that_was_given_is_not_written_again(songwriter: SongwriterModel) -> None:
    task = songwriter_prompts.idea_task(Request(idea=IDEA, caption="mine"), ["lyrics"], SECONDS)
    assert songwriter.answer(task, Sampling(), seeded(0), quiet)["caption"] == "mine"
