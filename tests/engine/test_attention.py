"""Banded attention equals dense attention under a band mask, whatever the sizes, and stays linear in length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from acestep_cli.engine.attention import KeysValues, band_bias, banded_attention, full_attention, key_bias
from acestep_cli.engine.dit import AceStep, Condition
from acestep_cli.models.configs import DiTConfig
from support import tiny

REACH = 8
KV_HEADS, HEAD_DIM = 2, 6
# Around nothing, one block, two blocks; multiples of the reach and their neighbours; a last block of one token.
LENGTHS = [1, 2, 7, 8, 9, 10, 15, 16, 17, 23, 24, 25, 40, 61]


def dense(queries: Tensor, memory: KeysValues, allowed: Tensor) -> Tensor:
    """The definition: softmax over every allowed key, [B, H, S, D] -> [B, S, H * D]; allowed [B, 1, S, S]."""
    group = queries.shape[1] // memory.keys.shape[1]
    keys, values = (t.repeat_interleave(group, dim=1) for t in memory)
    scores = (queries @ keys.transpose(-1, -2)) * queries.shape[-1] ** -0.5
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1).nan_to_num()  # a query may see nothing
    return (weights @ values).transpose(1, 2).flatten(2)


def draw(tokens: int, group: int, batch: int = 2) -> tuple[Tensor, KeysValues]:
    """Random queries and memory in float64, so that a difference can only be one of meaning."""
    generator = torch.Generator().manual_seed(tokens)

    def randn(heads: int) -> Tensor:
        shape = (batch, heads, tokens, HEAD_DIM)
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return randn(KV_HEADS * group), KeysValues(randn(KV_HEADS), randn(KV_HEADS))


def banded(queries: Tensor, memory: KeysValues, keep: Tensor | None) -> Tensor:
    """What a sliding layer does."""
    band = band_bias(queries.shape[2], REACH, queries.shape[1] // memory.keys.shape[1], keep, queries)
    if band is None:
        return full_attention(queries, memory, key_bias(keep, queries.dtype))
    return banded_attention(queries, memory, band)


def padding(tokens: int) -> Tensor:
    """Two items, the second of two thirds of the length and with a hole: real tokens need not be a prefix."""
    keep = torch.ones(2, tokens, dtype=torch.bool)
    keep[1, 2 * tokens // 3 + 1 :] = False
    keep[1, 3:5] = False
    return keep


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_band_is_dense_attention_with_a_band_mask(tokens: int, padded: bool, group: int) -> None:
    queries, memory = draw(tokens, group)
    keep = padding(tokens) if padded else None
    place = torch.arange(tokens)
    allowed = ((place[:, None] - place).abs() <= REACH).expand(2, 1, -1, -1)
    if keep is not None:
        allowed = allowed & keep[:, None, None]

    ours, theirs = banded(queries, memory, keep), dense(queries, memory, allowed)
    assert ours.isfinite().all()
    real = torch.ones(2, tokens, dtype=torch.bool) if keep is None else keep
    torch.testing.assert_close(ours[real], theirs[real], rtol=1e-10, atol=1e-12)

    probe = torch.randn(ours[real].shape, generator=torch.Generator().manual_seed(1), dtype=ours.dtype)
    leaves = (queries, *memory)
    ours_gradient = torch.autograd.grad((ours[real] * probe).sum(), leaves)
    theirs_gradient = torch.autograd.grad((theirs[real] * probe).sum(), leaves)
    torch.testing.assert_close(ours_gradient, theirs_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tokens", [REACH, REACH + 1, REACH + 2])
def test_the_band_steps_aside_exactly_where_it_covers_everything(tokens: int) -> None:
    queries, _ = draw(tokens, group=1)
    covers_all = tokens - 1 <= REACH
    assert (band_bias(tokens, REACH, 1, None, queries) is None) == covers_all


@pytest.fixture(scope="module", params=["2B", "XL"])
def model(request: pytest.FixtureRequest) -> AceStep:
    """Random weights of our own; these tests compare the engine with itself."""
    config = DiTConfig.from_dict({"2B": tiny.TWO_B, "XL": tiny.XL}[request.param])
    model = AceStep(config).eval().requires_grad_(False)
    tiny.scramble(model, torch.Generator().manual_seed(0))
    return model


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def condition(model: AceStep, seed: int, text_length: int, lyric_length: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    width = model.config.text_hidden_dim

    def randn(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator)

    return randn(text_length, width), randn(lyric_length, width), randn(30, model.config.timbre_hidden_dim)


def padded_batch(items: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Items [1, L, C] of several lengths in one batch, filled with noise rather than zeros, and their mask."""
    longest = max(item.shape[1] for item in items)
    batch = torch.randn(len(items), longest, items[0].shape[2], generator=torch.Generator().manual_seed(9))
    keep = torch.zeros(len(items), longest, dtype=torch.bool)
    for row, item in enumerate(items):
        batch[row, : item.shape[1]], keep[row, : item.shape[1]] = item[0], True
    return batch, keep


# Shorter than the band of 8 tokens, about it, several blocks; one of them an odd number of frames.
FRAMES, TEXT, LYRICS = (13, 20, 61), (5, 11, 7), (40, 3, 21)


def test_an_item_does_not_feel_its_neighbours_padding(model: AceStep) -> None:
    items = [condition(model, seed, t, ly) for seed, (t, ly) in enumerate(zip(TEXT, LYRICS, strict=True))]
    (text, text_keep), (lyrics, lyric_keep), (timbre, _) = (
        padded_batch(list(part)) for part in zip(*items, strict=True)
    )
    together = model.encoder(text, lyrics, timbre, text_keep, lyric_keep)
    assert together.keep is not None

    latents = model.config.latent_channels
    generator = torch.Generator().manual_seed(3)
    noisy = [torch.randn(1, frames, latents, generator=generator) for frames in FRAMES]
    context = [torch.randn(1, frames, 2 * latents, generator=generator) for frames in FRAMES]
    (x, keep), (source, _) = padded_batch(noisy), padded_batch(context)
    times = torch.tensor([0.9, 0.5, 0.1])
    velocity = model.decoder(x, times, source, model.decoder.project_condition(together), keep)

    for row, item in enumerate(items):
        alone = model.encoder(*item)
        assert alone.keep is None
        assert relative(together.states[row][together.keep[row]], alone.states[0]) < 1e-5
        expected = model.decoder(noisy[row], times[row : row + 1], context[row], model.decoder.project_condition(alone))
        assert relative(velocity[row, : FRAMES[row]], expected[0]) < 1e-5


def test_one_null_token_stands_for_a_whole_null_sequence(model: AceStep) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = model.config.latent_channels
    x, source = (torch.randn(1, 33, width, generator=generator) for width in (latents, 2 * latents))
    null = model.null_condition()
    repeated = Condition(null.states.expand(-1, 57, -1), None)
    one, many = (
        model.decoder(x, torch.tensor([0.7]), source, model.decoder.project_condition(c)) for c in (null, repeated)
    )
    assert relative(one, many) < 1e-5


class LargestTensor(TorchDispatchMode):
    """Watches every operator below autograd, the parts of a decomposed attention included."""

    elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        result = function(*arguments, **(keywords or {}))
        sizes = (leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        self.elements = max(self.elements, *sizes, 0)
        return result


@contextmanager
def largest_tensor() -> Iterator[Callable[[], int]]:
    with LargestTensor() as watch:
        yield lambda: watch.elements


@pytest.mark.parametrize("training", [False, True], ids=["sampling", "training"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_no_tensor_grows_faster_than_the_song(model: AceStep, padded: bool, training: bool) -> None:
    """Full and sliding layers alike: a mask or a score matrix of S x S elements would quadruple."""
    latents = model.config.latent_channels
    frames = 4096

    def largest(frames: int) -> int:
        x, source = torch.randn(1, frames, latents), torch.randn(1, frames, 2 * latents)
        keep = torch.arange(frames)[None] < frames - 100 if padded else None
        memory = model.decoder.project_condition(Condition(torch.randn(1, 16, model.config.encoder_hidden_size), None))
        with torch.set_grad_enabled(training), largest_tensor() as elements:
            velocity = model.decoder(x.requires_grad_(training), torch.tensor([0.5]), source, memory, keep)
            if training:
                velocity.sum().backward()
        return elements()

    assert largest(2 * frames) <= 2.05 * largest(frames)
