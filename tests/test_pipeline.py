"""From request to take on tiny random checkpoints: seeds, lengths, codes, guidance, memory."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from acestep_cli import solvers
from acestep_cli.engine import codec, denoise, text_encoder
from acestep_cli.engine.dit import DiT
from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import CheckpointError, MemoryLimitError, ran_out_of_memory
from acestep_cli.models import checkpoints
from acestep_cli.models.configs import VAEConfig, decoder_reach
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete, prompts
from acestep_cli.song.request import Request
from support import tiny
from support.command import finish
from support.rendering import FLOAT32, quiet, render, samples


def test_take_k_alone_equals_take_k_of_a_run(two_b: tiny.Oracle) -> None:
    run = render(two_b, takes=3)
    assert [take.request.seed for take in run] == [7, 8, 9]
    for take in run:
        assert np.array_equal(take.audio.samples, samples(two_b, seed=take.request.seed))
        assert np.array_equal(take.audio.samples, samples(two_b, **take.request.model_dump()))
    assert not np.array_equal(run[0].audio.samples, run[1].audio.samples)


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_seeds_reproduce_whatever_the_global_generator_does(two_b: tiny.Oracle, solver: str) -> None:
    torch.manual_seed(1)
    first = samples(two_b, solver=solver)
    torch.manual_seed(2)
    assert np.array_equal(first, samples(two_b, solver=solver))


def test_the_processor_computes_with_the_threads_of_the_plan(two_b: tiny.Oracle) -> None:
    """Samples depend on their number."""
    before = torch.get_num_threads()
    try:
        render(two_b, plan=FLOAT32.model_copy(update={"threads": before + 1}))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["OMP_DYNAMIC", "OMP_THREAD_LIMIT", "OMP_MAX_ACTIVE_LEVELS"])
def test_samples_are_those_of_the_threads_asked_for(tmp_path: Path, name: str) -> None:
    """Where OpenMP starts fewer threads than oneDNN asks for, parts of its products are not computed."""
    value = {"OMP_DYNAMIC": "TRUE", "OMP_THREAD_LIMIT": "1", "OMP_MAX_ACTIVE_LEVELS": "0"}[name]
    others = {key: told for key, told in os.environ.items() if not key.startswith("OMP_")}
    count = "1" if name == "OMP_THREAD_LIMIT" else "2"
    song = ("-c", "slow piano", "--instrumental", "-d", "4", "--seed", "1", "-m", "pocket", "--no-sidecar")
    for file, extra in (("a.wav", {"OMP_NUM_THREADS": count}), ("b.wav", {"OMP_NUM_THREADS": "2", name: value})):
        command = [sys.executable, "-m", "acestep_cli", "generate", *song, "-o", file]
        run = finish(command, cwd=tmp_path, env={**others, **extra}, text=True)
        assert run.returncode == 0, run.stderr
    assert np.array_equal(soundfile.read(tmp_path / "a.wav")[0], soundfile.read(tmp_path / "b.wav")[0])


def test_solvers_and_timesteps_matter(two_b: tiny.Oracle) -> None:
    renders = [samples(two_b, solver=solver) for solver in solvers.SOLVERS]
    renders += [samples(two_b, timesteps=[1, 0.6, 0.2]), samples(two_b, shift=1), samples(two_b, steps=4)]
    for i, one in enumerate(renders):
        assert not any(np.allclose(one, other, rtol=1e-3) for other in renders[:i])


def test_explicit_timesteps_equal_the_schedule_they_spell(two_b: tiny.Oracle) -> None:
    times = solvers.timestep_schedule(8, 3.0)
    assert np.array_equal(samples(two_b), samples(two_b, timesteps=list(times)))
    assert np.array_equal(samples(two_b), samples(two_b, timesteps=list(times[:-1])))


@pytest.mark.parametrize(("seconds", "expected"), [(10, 480_000), (10.05, 251 * 1920), (11.999, 299 * 1920)])
def test_length_is_whole_frames_of_what_was_asked(two_b: tiny.Oracle, seconds: float, expected: int) -> None:
    assert samples(two_b, duration=seconds).shape == (2, expected)


def test_a_short_song_is_rendered_longer_and_cut(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    request = complete.complete(Request(caption="x", duration=10, seed=7), found).model_copy(update={"duration": 3.0})
    drawn = []
    starting_noise = denoise.starting_noise
    monkeypatch.setattr(denoise, "starting_noise", lambda *args: drawn.append(args) or starting_noise(*args))
    (take,) = Pipeline(found, FLOAT32).run([request], quiet)
    assert take.audio.samples.shape == (2, 144_000)
    assert drawn == [(7, 128, tiny.LATENT_CHANNELS)]


def test_caption_lyrics_and_metadata_reach_the_song(two_b: tiny.Oracle) -> None:
    plain = samples(two_b)
    for other in ({"caption": "another"}, {"lyrics": "la la"}, {"bpm": 90}, {"key": "A minor"},
                  {"time_signature": "3/4"}, {"lyrics": "[Instrumental]", "language": "de"}):  # fmt: skip
        assert not np.array_equal(plain, samples(two_b, **other))
    assert np.array_equal(plain, samples(two_b, instrumental=True))  # no lyrics are an instrumental


def test_the_prompt_is_the_published_one() -> None:
    metas = prompts.metadata_lines(84, "6/8", "A minor", 30.9)
    assert prompts.text_prompt("Do it:", "lo-fi", metas) == (
        "# Instruction\nDo it:\n\n# Caption\nlo-fi\n\n# Metas\n- bpm: 84\n- timesignature: 6\n"
        "- keyscale: A minor\n- duration: 30 seconds\n<|endoftext|>\n"
    )
    assert "- bpm: N/A\n- timesignature: N/A\n- keyscale: N/A\n" in prompts.metadata_lines(None, None, None, 60)
    assert prompts.lyric_prompt(None, None) == "# Languages\nunknown\n\n# Lyric\n[Instrumental]<|endoftext|>"
    assert prompts.lyric_prompt("[Verse]\nhi", "en") == "# Languages\nen\n\n# Lyric\n[Verse]\nhi<|endoftext|>"


def test_what_is_cut_off_is_said(two_b: tiny.Oracle) -> None:
    (take,) = render(two_b, lyrics="[Verse]\n" + "word " * 1500 + "the last words")
    (warning,) = take.warnings
    assert "2048" in warning
    (take,) = render(two_b, caption="short")
    assert take.warnings == ()


@pytest.fixture
def encoder(two_b: tiny.Oracle) -> Iterator[text_encoder.TextEncoder]:
    with WeightStore(checkpoints.find_checkpoint("turbo", two_b.root), FLOAT32, quiet).text_encoder() as found:
        yield found


def test_a_cut_prompt_keeps_its_closing_token(encoder: text_encoder.TextEncoder) -> None:
    heard: list[str] = []
    ids = encoder.tokens("abc " * 300, 256, heard.append)
    assert ids.shape == (1, 256)
    assert ids[0, -1] == encoder.tokenizer.token_to_id("<|endoftext|>")
    assert len(heard) == 1


def test_codes_shape_the_song_and_silence_follows_them(two_b: tiny.Oracle) -> None:
    plain, along = samples(two_b), samples(two_b, codes=[100] * 50)
    assert along.shape == plain.shape
    assert not np.allclose(plain, along)
    assert not np.array_equal(along, samples(two_b, codes=[101] * 50))
    assert samples(two_b, codes=[5] * 60, duration=None).shape == (2, 12 * 48_000)


def test_codes_become_the_context_through_the_detokenizer(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = []
    forward = DiT.forward
    monkeypatch.setattr(
        DiT,
        "forward",
        lambda self, x, t, context, memory: contexts.append(context) or forward(self, x, t, context, memory),
    )
    codes = list(range(0, 64_000, 64_000 // 50))[:50]
    samples(two_b, codes=codes)
    context = contexts[0]
    channels = tiny.LATENT_CHANNELS
    quantised = two_b.tokenizer.quantizer.get_output_from_indices(torch.tensor(codes)[None, :, None])
    with torch.no_grad():
        expected = two_b.detokenizer(quantised)
    torch.testing.assert_close(context[..., :channels], expected, atol=1e-5, rtol=1e-4)
    assert (context[..., channels:] == 1).all()


def test_guidance_calls_the_model_twice_within_its_interval(base: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    forward = DiT.forward

    def counted(self: DiT, x: torch.Tensor, t: torch.Tensor, *rest: Any) -> torch.Tensor:
        times.append(round(t.item(), 3))
        return forward(self, x, t, *rest)

    monkeypatch.setattr(DiT, "forward", counted)
    samples(base, "base", steps=4, cfg_interval="0.5,0.75")
    assert times == [1.0, 0.75, 0.75, 0.5, 0.5, 0.25]  # tested on t, where 1 is noise
    times.clear()
    samples(base, "base", steps=4, guidance=1)
    assert times == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("method", solvers.GUIDANCE_METHODS)
def test_guidance_methods_differ(base: tiny.Oracle, method: str) -> None:
    guided = samples(base, "base", steps=3, guidance_method=method)
    assert not np.allclose(guided, samples(base, "base", steps=3, guidance=1))


@pytest.mark.parametrize("one_network", [False, True])
def test_who_is_in_memory_when(two_b: tiny.Oracle, one_network: bool) -> None:
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    seen: dict[str, set[frozenset[str]]] = {}
    made: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
    fill = WeightStore._load

    def watch(self: WeightStore, module: torch.nn.Module, *args: Any, **options: Any) -> torch.nn.Module:
        made.add(module)
        return fill(self, module, *args, **options)

    def report(stage: str, done: int, total: int) -> None:
        seen.setdefault(stage, set()).add(frozenset(type(module).__name__ for module in made))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeightStore, "_load", watch)
        request = complete.complete(Request(caption="x", duration=10, takes=2), found)
        plan = FLOAT32.model_copy(update={"one_network": one_network})
        list(Pipeline(found, plan).run([request], report))
    text, dit, vae = frozenset({"Qwen3Encoder"}), frozenset({"AceStep"}), frozenset({"OobleckVAE"})
    assert seen["text"] == {text}
    assert seen["diffuse"] == ({dit} if one_network else {dit, dit | vae})
    assert seen["decode"] == ({vae} if one_network else {dit | vae})
    assert not made


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"),
     RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
     RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), RuntimeError("CUDA error: out of memory"),
     RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
     RuntimeError("level_zero backend failed with error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"),
     RuntimeError("unable to mmap 9 bytes from file: Cannot allocate memory (12)"),
     RuntimeError("could not create a primitive"), RuntimeError("could not create a memory object"),
     RuntimeError("could not execute a primitive"), RuntimeError("std::bad_alloc"),
     RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
     RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
     RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
     RuntimeError("Error: command buffer exited with error status. Insufficient Memory "
                  "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"),
     OSError(12, "Cannot allocate memory"), ImportError("libtorch.so: failed to map segment from shared object")],
)  # fmt: skip
def test_running_out_of_memory_is_said(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(denoise, "denoise", fail)
    with pytest.raises(MemoryLimitError, match="ran out of memory on cpu over 10 s") as caught:
        render(two_b)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "said",
    ["shapes do not match", "could not create a primitive descriptor for a convolution forward propagation primitive"],
)
def test_other_failures_keep_their_names(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(denoise, "denoise", fail)
    with pytest.raises(RuntimeError, match=said):
        render(two_b)


def test_a_refusal_is_not_taken_for_a_lack_of_memory() -> None:
    assert not ran_out_of_memory(CheckpointError("weights.safetensors: Cannot allocate memory"))


def test_onednn_without_memory_takes_the_next_fallback(two_b: tiny.Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, tiles = codec.decode_latents, []

    def short_of_memory(vae: Any, latents: torch.Tensor, tile_frames: int, progress: Any) -> torch.Tensor:
        tiles.append(tile_frames)
        if tile_frames > 32:
            raise RuntimeError("could not create a primitive")
        return decode(vae, latents, tile_frames, progress)

    monkeypatch.setattr(codec, "decode_latents", short_of_memory)
    plan = FLOAT32.model_copy(update={"tile_frames": 128})
    assert np.isfinite(samples(two_b, plan=plan)).all()
    assert tiles == [128, 64, 32]


def test_bfloat16_stays_close_to_float32(two_b: tiny.Oracle) -> None:
    exact = samples(two_b)
    rounded = samples(two_b, plan=FLOAT32.model_copy(update={"dtype": "bfloat16"}))
    assert np.linalg.norm(exact - rounded) / np.linalg.norm(exact) < 0.1


def test_closing_early_releases_everything(two_b: tiny.Oracle) -> None:
    found = checkpoints.find_checkpoint("turbo", two_b.root)
    run = Pipeline(found, FLOAT32).run([complete.complete(Request(caption="x", takes=3, duration=10), found)], quiet)
    assert next(run).number == 1
    run.close()
    with pytest.raises(StopIteration):
        next(run)


@pytest.fixture(scope="module")
def vae() -> OobleckVAE:
    torch.manual_seed(0)
    model = OobleckVAE(VAEConfig.from_dict(tiny.VAE)).eval()
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.02)
    return model


@pytest.mark.parametrize("tile", [1, 7, 16, 64])
@pytest.mark.parametrize("frames", [1, 5, 40])
@torch.inference_mode()
def test_tiled_decode_equals_the_whole(vae: OobleckVAE, tile: int, frames: int) -> None:
    latents = torch.randn(frames, tiny.LATENT_CHANNELS)
    whole = vae.decode(latents.T[None])[0]
    tiled = codec.decode_latents(vae, latents, tile, lambda done, total: None)
    assert (tiled - whole).norm() / whole.norm() < 1e-5


@pytest.mark.parametrize("tile", [1, 7, 64])
@pytest.mark.parametrize("samples", [1920, 1920 * 40, 1920 * 23 + 777])
@torch.inference_mode()
def test_tiled_encode_equals_the_whole(vae: OobleckVAE, tile: int, samples: int) -> None:
    waveform = torch.randn(2, samples) * 0.3
    whole = vae.encode(waveform[None])[0].T
    tiled = codec.encode_waveform(vae, waveform, tile, lambda done, total: None)
    assert tiled.shape == whole.shape == (samples // 1920, tiny.LATENT_CHANNELS)
    assert (tiled - whole).norm() / whole.norm() < 1e-5


@torch.inference_mode()
def test_a_decode_tile_is_bounded_however_long_the_song(vae: OobleckVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    monkeypatch.setattr(
        vae, "decode", lambda tile: widths.append(tile.shape[-1]) or torch.zeros(1, 2, tile.shape[-1] * 1920)
    )
    codec.decode_latents(vae, torch.zeros(500, tiny.LATENT_CHANNELS), 16, lambda done, total: None)
    assert max(widths) == 16 + 2 * decoder_reach(vae.config)


def test_silence_repeats_beyond_its_end() -> None:
    stored = torch.arange(6.0).view(1, 3, 2)
    longer = codec.repeat_silence(stored, 7)
    assert torch.equal(longer[0], torch.cat((stored[0], stored[0], stored[0, :1])))


def test_noise_is_per_take_and_float32() -> None:
    noise = denoise.starting_noise(5, 10, 3)
    again = torch.randn(1, 10, 3, generator=torch.Generator("cpu").manual_seed(5))
    assert noise.dtype == torch.float32
    assert torch.equal(noise, again)


def test_a_stage_draws_from_its_own_generator() -> None:
    draws = {denoise.stage_generator(seed, stage).initial_seed() for seed in (0, 1) for stage in ("sde", "window")}
    assert len(draws) == 4


def test_folders_are_left_as_they_were(two_b: tiny.Oracle) -> None:
    def listing() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in two_b.root.rglob("*")}

    before = listing()
    samples(two_b)
    assert listing() == before
