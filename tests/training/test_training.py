"""Adapters are trained: they learn, they are saved whole, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from acestep_cli.audio import decode
from acestep_cli.cli import train_lora, train_progress
from acestep_cli.cli.app import app
from acestep_cli.cli.console import Console
from acestep_cli.engine import tensor_file
from acestep_cli.engine.dit import Condition
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import CheckError, OutputError
from acestep_cli.machine import hardware
from acestep_cli.machine.plan import MachineRequest
from acestep_cli.models import checkpoints
from acestep_cli.models import tensor_file as tensor_files
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.models.sizes import Sizes
from acestep_cli.song import prompts
from acestep_cli.training import adapter, dataset, example_files, examples, loop, loss_plot, run_folder
from acestep_cli.training import config as training_config
from acestep_cli.training import plan as workload
from acestep_cli.training.config import TrainingConfig
from acestep_cli.training.examples import TrainingSet
from acestep_cli.training.run_folder import RunRecord
from support import tiny
from support.command import LIMIT, LONG_LIMIT, finish, flat, read_to, said, started
from support.places import EVENT_SCHEMA
from support.sounds import song

RATE = 48_000
CONFIG = TrainingConfig(rank=8, alpha=16, learning_rate=1e-2, steps=6, accumulation=2, crop=10)


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic clips of different lengths, described."""
    folder = tmp_path_factory.mktemp("songs")
    for name, pitch, seconds in (("one", 220, 10.5), ("two", 330, 11.5)):
        song(folder / f"{name}.wav", pitch, seconds, RATE)
        (folder / f"{name}.txt").write_text(f"caption: a {name} tone\nbpm: 120\nlyrics: [Verse]\nla {name} la\n")
    return folder


@pytest.fixture(scope="session")
def checkpoint(base: tiny.Oracle) -> Checkpoint:
    return checkpoints.find_checkpoint("base", base.root)


def quiet(*_words: object) -> None:
    """Whoever listens to no progress."""


def job(songs: Path, checkpoint: Checkpoint, folder: Path, config: TrainingConfig = CONFIG) -> loop.TrainingJob:
    """A training run into `folder`, as the command line plans it."""
    found = dataset.scan_folder(songs)
    looked = dataset.inspect_songs(found, 5, config.crop, quiet)
    sizes = Sizes.of(checkpoint)
    longest = workload.longest_example(
        sizes, config.crop, [found.prompts(one.song, config.crop) for one in looked.usable]
    )
    plan = workload.plan_training(
        hardware.detect(), config, MachineRequest(dtype="fp32"), sizes, longest, lambda *_: workload.PastRuns()
    )
    prints = dataset.fingerprints(found, looked.usable)
    record = RunRecord(
        base="base",
        base_weights=checkpoint.weights_hash,
        config=config,
        trigger="harbour",
        trigger_position="prepend",
        dataset=dataset.dataset_fingerprint(prints),
        songs=prints,
        dtype=plan.arrangement.weight_storage,
    )
    folder.mkdir(exist_ok=True)
    return loop.TrainingJob(found, looked.usable, record, checkpoint, plan, folder)


def losses(folder: Path) -> list[float]:
    found: list[float] = load_file(folder / run_folder.STATE)[loop.HISTORY].tolist()
    return found


def gone_on(one: loop.TrainingJob) -> loop.TrainingJob:
    """The same run, as its last save has it."""
    record = run_folder.read_record(one.folder)
    assert record is not None
    return replace(one, record=record)


@pytest.fixture
def opened(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path
) -> Iterator[Callable[[TrainingConfig], tuple[WeightStore, TrainingSet]]]:
    """The store and the training set of a run."""
    stores: list[WeightStore] = []

    def open_(config: TrainingConfig) -> tuple[WeightStore, TrainingSet]:
        planned = job(songs, checkpoint, tmp_path / "out", config)
        stores.append(WeightStore(checkpoint, planned.plan, quiet))
        return stores[-1], loop.prepare_training_set(planned, stores[-1], quiet)

    yield open_
    for one in stores:
        one.close()


# Learning


def held_out(run_model: object, training_set: TrainingSet, count: int = 12) -> float:
    """The loss over passes that no run of thirty steps reaches."""
    with torch.no_grad():
        passes = [training_set.batch(100_000 + number, torch.device("cpu"), torch.float32) for number in range(count)]
        return sum(float(loop.flow_loss(run_model, one)) for one in passes) / count  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"type": "dora"}, {"type": "lokr"}, {"targets": "all", "batch": 2}], ids=str)
def test_thirty_steps_lower_the_loss_on_noise_not_seen(
    songs: Path,
    checkpoint: Checkpoint,
    tmp_path: Path,
    opened: Callable[..., tuple[WeightStore, TrainingSet]],
    options: dict,
) -> None:
    config = CONFIG.model_copy(update={"steps": 30, "accumulation": 1, **options})
    weights, training_set = opened(config)
    with weights.dit() as model:
        before = held_out(model.decoder, training_set)
        loop.train(job(songs, checkpoint, tmp_path / "out", config), quiet, quiet, quiet)
        own = adapter.TrainableAdapter(model.decoder, config, "base")
        assert held_out(model.decoder.eval(), training_set) == pytest.approx(
            before, rel=1e-4
        )  # it changes nothing at first
        own.load(load_file(tmp_path / "out" / run_folder.ADAPTER))
        after = held_out(model.decoder, training_set)
    assert after < 0.9 * before


def test_what_is_saved_is_what_was_trained(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, opened: Callable[..., tuple[WeightStore, TrainingSet]]
) -> None:
    weights, training_set = opened(CONFIG)
    with weights.dit() as model:
        run = loop.TrainingLoop(job(songs, checkpoint, tmp_path / "out"), training_set, model, weights, quiet)
        run.train()
        model.decoder.eval()
        unsaved = held_out(model.decoder, training_set, 3)
    weights.close()
    with weights.dit() as model:
        plain = held_out(model.decoder, training_set, 3)
        # peft's own way in, and its own idea of strength
        reloaded = PeftModel.from_pretrained(torch.nn.ModuleDict({"x": model.decoder})["x"], tmp_path / "out")
        saved = held_out(reloaded.base_model.model, training_set, 3)
    assert saved == unsaved
    assert abs(plain - saved) > 1e-3


def test_only_the_adapter_moves_and_it_is_float32(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, opened: Callable[..., tuple[WeightStore, TrainingSet]]
) -> None:
    weights, training_set = opened(CONFIG)
    with weights.dit() as model:
        model.to(torch.bfloat16)
        run = loop.TrainingLoop(job(songs, checkpoint, tmp_path / "out"), training_set, model, weights, quiet)
        frozen = {name: weight.clone() for name, weight in model.decoder.named_parameters() if not weight.requires_grad}
        run.weights.dtype = torch.bfloat16
        run.train()
        after = dict(model.decoder.named_parameters())
        assert all(torch.equal(weight, after[name]) for name, weight in frozen.items())
        assert {weight.dtype for weight in frozen.values()} == {torch.bfloat16}
        assert {weight.dtype for weight in run.adapter.parameters} == {torch.float32}
    assert all(np.isfinite(losses(tmp_path / "out")))


def test_frozen_weights_in_eight_bits_are_trained_beside(songs: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    one = job(songs, checkpoint, tmp_path / "out", CONFIG.model_copy(update={"steps": 20, "accumulation": 1}))
    loop.train(replace(one, plan=one.plan.model_copy(update={"int8": True})), quiet, quiet, quiet)
    found = losses(tmp_path / "out")
    assert np.mean(found[-5:]) < 0.9 * np.mean(found[:5])


def test_layers_computed_again_change_no_number(songs: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    for name, again in (("kept", False), ("again", True)):
        one = job(songs, checkpoint, tmp_path / name)
        loop.train(replace(one, plan=one.plan.model_copy(update={"checkpointed": again})), quiet, quiet, quiet)
    assert losses(tmp_path / "kept") == losses(tmp_path / "again")


# What is trained on


def test_a_pass_is_what_a_render_would_be_fed(
    songs: Path, checkpoint: Checkpoint, opened: Callable[..., tuple[WeightStore, TrainingSet]]
) -> None:
    weights, training_set = opened(CONFIG.model_copy(update={"crop": 240.0}))
    example = next(example for example in training_set.examples if example.name == "two.wav")
    found = dataset.scan_folder(songs)
    two = next(one for one in found.songs if one.name == "two.wav")
    text, words = prompts.prompts_of(two.request, "Fill the audio semantic mask based on the given conditions:", 11.5)
    with torch.no_grad(), weights.text_encoder() as encoder:
        states, embeddings = encoder.hidden_states(text, quiet), encoder.embeddings(words, quiet)
    with torch.no_grad(), weights.dit() as model:
        silence = training_set.silence.repeat(1, 2, 1)[:, : model.config.timbre_fix_frame]
        expected = model.encoder(states, embeddings, silence).states[0]
    assert torch.allclose(example.condition, expected, atol=1e-6)
    assert example.frames == 11.5 * RATE // 1920
    with torch.no_grad(), weights.vae() as vae:
        waveform = torch.from_numpy(decode.read_audio(songs / "two.wav").samples)
        assert torch.allclose(example.latents(0, example.frames), vae.encode(waveform[None])[0].T, atol=1e-5)


def test_a_pass_is_a_point_between_song_and_noise(opened: Callable[..., tuple[WeightStore, TrainingSet]]) -> None:
    _, training_set = opened(CONFIG)
    for number in range(6):
        one = training_set.batch(number, torch.device("cpu"), torch.float32)
        clean = one.noisy - one.times[:, None, None] * one.velocity
        example = training_set.examples_of(number)[0]
        whole = example.latents(0, example.frames)
        places = [start for start in range(example.frames - clean.shape[1] + 1)
                  if torch.allclose(whole[start : start + clean.shape[1]], clean[0], atol=1e-4)]  # fmt: skip
        assert len(places) == 1
        assert clean.shape[1] == 10 * RATE // 1920
        assert torch.equal(one.context[..., clean.shape[2] :], torch.ones_like(one.context[..., clean.shape[2] :]))


def test_words_are_left_out_at_the_rate_of_the_model(opened: Callable[..., tuple[WeightStore, TrainingSet]]) -> None:
    _, training_set = opened(CONFIG)
    lengths = [
        training_set.batch(number, torch.device("cpu"), torch.float32).condition.states.shape[1]
        for number in range(300)
    ]
    assert 0.10 < lengths.count(1) / 300 < 0.20


def test_times_are_the_larger_of_two(opened: Callable[..., tuple[WeightStore, TrainingSet]]) -> None:
    _, training_set = opened(CONFIG)
    times = torch.cat([training_set.batch(number, torch.device("cpu"), torch.float32).times for number in range(400)])
    draws = (torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0)) - 0.4).sigmoid().amax(dim=1)
    for share in (0.1, 0.5, 0.9):
        assert float(times.quantile(share)) == pytest.approx(float(draws.quantile(share)), abs=0.05)
    _, turbo = opened(CONFIG.model_copy(update={"times": "turbo"}))
    steps = {round(float(turbo.batch(n, torch.device("cpu"), torch.float32).times), 4) for n in range(100)}
    assert steps == {1.0, 0.9545, 0.9, 0.8333, 0.75, 0.6429, 0.5, 0.3}


def test_every_song_has_its_turn_and_neighbours_of_its_length() -> None:
    given = tuple(examples.Example(str(n), Path(), 100 + n, torch.zeros(1, 1)) for n in range(10))
    training_set = TrainingSet(
        given, torch.zeros(1, 1, 1), torch.zeros(1, 1), CONFIG.model_copy(update={"batch": 2}), 1000
    )
    rounds = [
        [example.name for number in range(5) for example in training_set.examples_of(5 * turn + number)]
        for turn in range(3)
    ]
    assert all(sorted(names, key=int) == [str(n) for n in range(10)] for names in rounds)
    assert rounds[0] != rounds[1]
    assert all(
        abs(one.frames - other.frames) == 1 for one, other in (training_set.examples_of(number) for number in range(15))
    )


def test_padding_is_no_part_of_the_loss(opened: Callable[..., tuple[WeightStore, TrainingSet]]) -> None:
    """Two songs of different lengths in one batch are worth what they are one by one."""
    weights, training_set = opened(CONFIG.model_copy(update={"crop": 240.0, "batch": 2}))
    one = training_set.batch(0, torch.device("cpu"), torch.float32)
    assert one.keep is not None
    with torch.no_grad(), weights.dit() as model:
        together = loop.flow_loss(model.decoder, one)
        alone = []
        for item, frames in enumerate(one.keep.sum(dim=1).tolist()):
            states = one.condition.states[item : item + 1]
            if one.condition.keep is not None:
                states = states[:, one.condition.keep[item]]
            song = one._replace(
                noisy=one.noisy[item : item + 1, :frames],
                times=one.times[item : item + 1],
                velocity=one.velocity[item : item + 1, :frames],
                context=one.context[:, :frames],
                condition=Condition(states, None),
                keep=None,
            )
            alone.append((frames, loop.flow_loss(model.decoder, song)))
    total = sum(frames for frames, _ in alone)
    assert float(together) == pytest.approx(float(sum(frames * loss for frames, loss in alone)) / total, rel=1e-4)


def test_its_own_timbre_is_heard(opened: Callable[..., tuple[WeightStore, TrainingSet]]) -> None:
    _, plain = opened(CONFIG)
    _, own = opened(CONFIG.model_copy(update={"timbre": "own"}))
    assert not torch.allclose(plain.examples[0].condition, own.examples[0].condition)


def test_songs_are_prepared_once(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_files, "examples_folder", lambda: tmp_path / "cache")
    reported: list[str] = []

    def prepare() -> TrainingSet:
        reported.clear()
        planned = job(songs, checkpoint, tmp_path / "out")
        weights = WeightStore(checkpoint, planned.plan, lambda stage, *_: reported.append(stage))
        return loop.prepare_training_set(planned, weights, quiet)

    first = prepare()
    assert {"encode", "text", "condition"} <= set(reported)
    second = prepare()
    assert not {"encode", "text"} & set(reported)
    assert all(
        torch.equal(one.condition, other.condition) for one, other in zip(first.examples, second.examples, strict=True)
    )
    broken = next(example.file for example in second.examples)
    broken.write_bytes(broken.read_bytes()[:-7])
    prepare()
    assert reported.count("encode") == 2  # that one alone
    (songs / "one.caption.txt").write_text("another")
    try:
        prepare()
        assert (reported.count("encode"), reported.count("text")) == (0, 2)
    finally:
        (songs / "one.caption.txt").unlink()


def test_one_song_s_sound_is_in_memory_at_a_time(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    monkeypatch.setattr(example_files, "examples_folder", lambda: tmp_path / "cache")
    heard: list[weakref.ref[Tensor]] = []
    read = examples.conditioning.load_waveform

    def recording(file: str, rate: int) -> Tensor:
        assert [ref for ref in heard if ref() is not None] == []
        waveform = read(file, rate)
        heard.append(weakref.ref(waveform))
        return waveform

    monkeypatch.setattr(examples.conditioning, "load_waveform", recording)
    planned = job(songs, checkpoint, tmp_path / "out")
    loop.prepare_training_set(planned, WeightStore(checkpoint, planned.plan, quiet), quiet)
    assert len(heard) == 2


# Stopping and going on


@pytest.mark.parametrize("options", [{}, {"type": "dora", "batch": 2}], ids=["lora", "dora"])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, options: dict
) -> None:
    config = CONFIG.model_copy(update=options)
    loop.train(job(songs, checkpoint, tmp_path / "whole", config), quiet, quiet, quiet)

    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("train", 2):
            os.kill(os.getpid(), signal.SIGINT)

    stopped = job(songs, checkpoint, tmp_path / "stopped", config)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        loop.train(stopped, interrupt, said.append, quiet)
    assert said[-1] == "Stopped after step 2 of 6; all is saved, and --resume goes on."
    assert gone_on(stopped).record.step == 2
    torch.manual_seed(time.time_ns() % 2**32)  # whatever else has drawn meanwhile
    loop.train(gone_on(stopped), quiet, quiet, quiet)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    for name in (run_folder.ADAPTER, run_folder.STATE):
        one, other = (load_file(tmp_path / folder / name) for folder in ("stopped", "whole"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert (tmp_path / "stopped" / run_folder.LOSSES).read_text() == (
        tmp_path / "whole" / run_folder.LOSSES
    ).read_text()


def zeros(data: bytes) -> bytes:
    """4 KiB of zeros in the middle, as a broken disk leaves them."""
    middle = len(data) // 2
    return data[:middle] + bytes(4096) + data[middle + 4096 :]


def one_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def another_step(data: bytes) -> bytes:
    """The record in the header tells of another step."""
    return re.sub(rb"(step\W+)2", rb"\g<1>3", data, count=1)


@pytest.mark.parametrize("damage", [zeros, one_bit, another_step])
def test_a_save_that_is_damaged_is_not_gone_on_from(
    train: Callable[..., Result], half_way: Path, damage: Callable[[bytes], bytes]
) -> None:
    state = half_way / run_folder.STATE
    whole = state.read_bytes()
    state.write_bytes(damage(whole))
    assert state.read_bytes() != whole
    before = {path: path.read_bytes() for path in half_way.iterdir() if path.is_file()}
    refused = train("--resume", few=False)
    assert refused.exit_code == 3, refused.output
    assert "training.safetensors is damaged, as its checksum tells, so the run cannot go on." in flat(refused)
    assert {path: path.read_bytes() for path in half_way.iterdir() if path.is_file()} == before
    state.write_bytes(whole)
    assert train("--resume", few=False).exit_code == 0


def test_a_save_of_an_earlier_version_is_gone_on_from_with_a_remark(
    train: Callable[..., Result], half_way: Path
) -> None:
    state = half_way / run_folder.STATE
    with safe_open(state, framework="pt") as opened:
        notes = {name: note for name, note in opened.metadata().items() if name != tensor_files.CHECKSUM}
    save_file(load_file(state), state, notes)
    run = train("--resume", few=False)
    assert run.exit_code == 0, run.output
    assert flat(run).count("has no checksum, as an earlier version wrote it") == 1


def test_songs_that_were_prepared_and_are_damaged_are_prepared_again(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_files, "examples_folder", lambda: tmp_path / "cache")
    loop.train(job(songs, checkpoint, tmp_path / "one"), quiet, quiet, quiet)
    prepared = {path: path.read_bytes() for path in example_files.examples_folder().glob("*.safetensors")}
    assert len(prepared) == 4
    for path, content in prepared.items():
        path.write_bytes(one_bit(content))
    loop.train(job(songs, checkpoint, tmp_path / "two"), quiet, quiet, quiet)
    assert {path: path.read_bytes() for path in prepared} == prepared
    assert losses(tmp_path / "one") == losses(tmp_path / "two")


@pytest.mark.parametrize("kind", ["lora", "dora", "lokr"])
def test_the_same_training_gives_the_same_bytes(train: Callable[..., Result], tmp_path: Path, kind: str) -> None:
    """Alike in their metadata too, which the library writes in another order each time."""
    exports = ["--export", "comfyui", *(["--export", "diffusers"] if kind == "lora" else [])]
    for output in ("one/out", "two/out"):
        (tmp_path / output).parent.mkdir()
        run = train("--type", kind, "--name", "harbour", *exports, output=output)
        assert run.exit_code == 0, run.output
    files = sorted((tmp_path / "one" / "out").glob("*.safetensors"))
    assert len(files) == 2 + len(exports) // 2
    for file in [*files, tmp_path / "one" / "out" / run_folder.CONFIG]:
        assert file.read_bytes() == (tmp_path / "two" / "out" / file.name).read_bytes(), file.name


def test_what_other_programs_may_rewrite_carries_no_checksum(train: Callable[..., Result], tmp_path: Path) -> None:
    assert train("--export", "comfyui").exit_code == 0
    out = tmp_path / "out"
    for file in (out / run_folder.ADAPTER, out / "out-comfyui.safetensors"):
        with safe_open(file, framework="pt") as opened:
            assert tensor_files.CHECKSUM not in opened.metadata()
    with safe_open(out / run_folder.STATE, framework="pt") as opened:
        assert tensor_files.CHECKSUM in opened.metadata()


def test_it_saves_every_so_often(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = loop.TrainingLoop.save
    monkeypatch.setattr(loop.TrainingLoop, "save", lambda run: (saved.append(run.progress.step), save(run))[1])
    loop.train(replace(job(songs, checkpoint, tmp_path / "out"), save_every=0.0), quiet, quiet, quiet)
    assert saved == [1, 2, 3, 4, 5, 6]
    saved.clear()
    loop.train(job(songs, checkpoint, tmp_path / "other"), quiet, quiet, quiet)
    assert saved == [6]


def test_a_full_disk_keeps_the_save_before(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(songs, checkpoint, tmp_path / "out")
    true_write, calls = tensor_file.save_tensors, []

    def write(path: Path, tensors: dict[str, Tensor], *more: object, **flags: bool) -> None:
        if one.folder in path.parents:  # and not where songs are kept prepared
            calls.append(path)
        if len(calls) > 3:  # the second save's adapter is written, its state is not
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        true_write(path, tensors, *more, **flags)

    monkeypatch.setattr(tensor_file, "save_tensors", write)
    with pytest.raises(OutputError, match=r"cannot be written: no space left on device") as error:
        loop.train(replace(one, save_every=0.0), quiet, quiet, quiet)
    assert error.value.exit_code == 9
    assert gone_on(one).record.step == 1
    assert len(losses(one.folder)) == 1
    assert not list(one.folder.glob(".*.part"))
    monkeypatch.setattr(tensor_file, "save_tensors", true_write)
    loop.train(gone_on(one), quiet, quiet, quiet)
    assert gone_on(one).record.is_finished


def test_steps_that_come_to_no_number_are_skipped_and_counted(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {2, 3}
    monkeypatch.setattr(loop, "flow_loss", broken_at(bad))
    one, said = job(songs, checkpoint, tmp_path / "out"), list[str]()
    loop.train(one, quiet, said.append, quiet)
    assert gone_on(one).record.broken == 2
    assert [np.isnan(loss) for loss in losses(one.folder)] == [False, True, True, False, False, False]
    assert all(bool(weight.isfinite().all()) for weight in load_file(one.folder / run_folder.ADAPTER).values())
    assert "2 steps skipped" in said[-1]


def test_three_in_a_row_stop_the_run_and_are_not_saved(
    songs: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "flow_loss", broken_at({2, 3, 4}))
    one = job(songs, checkpoint, tmp_path / "out")
    with pytest.raises(CheckError, match=r"^3 steps in a row had a NaN loss, the last of them step 4") as error:
        loop.train(one, quiet, quiet, quiet)
    assert error.value.exit_code == 6
    assert gone_on(one).record.step == 1
    assert len(losses(one.folder)) == 1
    assert all(bool(weight.isfinite().all()) for weight in load_file(one.folder / run_folder.ADAPTER).values())


def broken_at(steps: set[int]) -> Callable[..., Tensor]:
    """A loss that is no number in these steps, counted from 1."""
    passes, loss_of = 0, loop.flow_loss

    def loss(*arguments: object) -> Tensor:
        nonlocal passes
        passes += 1
        found = loss_of(*arguments)  # type: ignore[arg-type]
        return found * torch.nan if (passes + 1) // CONFIG.accumulation in steps else found

    return loss


# What comes of it


def test_the_header_tells_how_it_came_about(songs: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    one = job(songs, checkpoint, tmp_path / "out")
    exports = tuple((name, one.folder / f"{name}.safetensors") for name in adapter.EXPORTS)
    loop.train(replace(one, exports=exports), quiet, quiet, quiet)
    for path in (one.folder / run_folder.ADAPTER, *(path for _, path in exports)):
        with safe_open(path, framework="pt") as opened:
            header = opened.metadata()
        record = RunRecord.model_validate_json(header[run_folder.ENTRY])
        assert (record.base, record.trigger, record.config, record.step) == ("base", "harbour", CONFIG, 6)
        assert (header["base"], header["trigger"], header["dataset"]) == ("base", "harbour", one.record.dataset)
        assert path.stat().st_mode & 0o044 == (one.folder / run_folder.CONFIG).stat().st_mode & 0o044
    config = json.loads((one.folder / run_folder.CONFIG).read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 8, 16.0)
    picture = (one.folder / run_folder.CURVE).read_bytes()
    assert picture.startswith(b"\x89PNG")
    table = (one.folder / run_folder.LOSSES).read_text().splitlines()
    assert len(table) == 7
    assert table[0] == "step,loss,running_mean,learning_rate"


def delta(tensors: dict[str, Tensor], module: str, alpha: float, rank: int) -> Tensor:
    return alpha / rank * tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]


def test_exports_are_as_strong_as_the_adapter(base: tiny.Oracle) -> None:
    config = CONFIG.model_copy(update={"alpha": 24.0})
    draw = torch.Generator().manual_seed(3)
    module = "layers.1.cross_attn.o_proj"
    tensors = {f"{adapter.PEFT}{module}.lora_A.weight": torch.randn(8, 64, generator=draw),
               f"{adapter.PEFT}{module}.lora_B.weight": torch.randn(64, 8, generator=draw)}  # fmt: skip
    wanted = delta(tensors, adapter.PEFT + module, 24, 8)
    comfy = adapter.to_comfyui(tensors, config)
    name = f"diffusion_model.decoder.{module}"
    assert torch.allclose(delta(comfy, name, float(comfy[f"{name}.alpha"]), 8), wanted)
    theirs = adapter.to_diffusers(tensors, config)
    linear = base.decoder.get_submodule("layers.1.cross_attn.to_out.0")
    before = linear.weight.detach().clone()
    base.decoder.load_lora_adapter(theirs, prefix="transformer")  # takes alpha for rank
    try:
        base.decoder.fuse_lora()
        fused = base.decoder.get_submodule("layers.1.cross_attn.to_out.0").get_base_layer().weight
        assert torch.allclose(fused - before, wanted, atol=1e-5)
    finally:
        base.decoder.unfuse_lora()
        base.decoder.unload_lora()


def test_the_sizes_of_a_dora_s_rows_are_exported_as_a_column() -> None:
    """ComfyUI divides them by the norms of the rows, which are one."""
    config = CONFIG.model_copy(update={"type": "dora"})
    stem = "layers.0.self_attn.q_proj"
    parts = {"lora_A.weight": (8, 64), "lora_B.weight": (64, 8), "lora_magnitude_vector": (64,)}
    tensors = {f"{adapter.PEFT}{stem}.{part}": torch.ones(shape) for part, shape in parts.items()}
    found = adapter.to_comfyui(tensors, config)
    name = f"diffusion_model.decoder.{stem}"
    assert set(found) == {f"{name}.{end}" for end in ("lora_A.weight", "lora_B.weight", "dora_scale", "alpha")}
    assert found[f"{name}.dora_scale"].shape == (64, 1)


def test_lokr_is_exported_at_its_strength() -> None:
    """LyCORIS takes alpha for nothing where both factors are whole, and else for alpha over the inner width."""
    draw = torch.Generator().manual_seed(3)
    config = CONFIG.model_copy(update={"type": "lokr", "rank": 2, "alpha": 6.0})
    w1, a, b = (torch.randn(shape, generator=draw) for shape in ((8, 8), (8, 2), (2, 8)))
    stem = f"{adapter.PEFT}layers.0.self_attn.q_proj"
    found = adapter.to_comfyui({f"{stem}.lokr_w1": w1, f"{stem}.lokr_w2_a": a, f"{stem}.lokr_w2_b": b}, config)
    name = "lycoris_layers_0_self_attn_q_proj"
    strength = float(found[f"{name}.alpha"]) / len(found[f"{name}.lokr_w2_b"])
    theirs = strength * torch.kron(found[f"{name}.lokr_w1"], found[f"{name}.lokr_w2_a"] @ found[f"{name}.lokr_w2_b"])
    assert torch.allclose(theirs, 3 * torch.kron(w1, a @ b), atol=1e-5)


def test_the_rate_rises_and_falls() -> None:
    config = TrainingConfig(steps=2000, learning_rate=1e-4)
    rates = [config.learning_rate_at(step) for step in range(2000)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[100] == pytest.approx(1e-4) == max(rates)
    assert rates[-1] == pytest.approx(1e-6, rel=0.01)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert TrainingConfig(steps=1).learning_rate_at(0) == 1e-4


# The command


@pytest.fixture
def train(base: tiny.Oracle, songs: Path, tmp_path: Path) -> Callable[..., Result]:
    """`acestep train-lora SONGS -o OUT …`, which teaches in a few tiny steps."""

    def run(*flags: str, folder: Path = songs, output: str = "out", few: bool = True) -> Result:
        small = ["--steps", "4", "--rank", "4", "--accumulation", "1", "--crop", "10"] if few else []
        where = ["--models-dir", str(base.root), "--dtype", "fp32"]
        return CliRunner().invoke(
            app, ["train-lora", str(folder), "-o", str(tmp_path / output), *where, *small, *flags]
        )

    return run


def test_the_command_trains_and_prints_the_folder(train: Callable[..., Result], tmp_path: Path) -> None:
    run = train("--name", "harbour", "--export", "comfyui", "--export", "diffusers")
    assert run.exit_code == 0, run.output
    out = tmp_path / "out"
    assert run.stdout.splitlines() == [f"{out}/", f"{out}/out-comfyui.safetensors", f"{out}/out-diffusers.safetensors"]
    assert "Training a lora of rank 4 on base with 2 songs: 4 steps" in run.stderr
    assert "Step 4 of 4: loss" in run.stderr
    assert "trigger: harbour" in (out / dataset.DATASET_FILE).read_text()
    assert {path.name for path in out.iterdir()} == {
        *(
            run_folder.ADAPTER,
            run_folder.CONFIG,
            run_folder.CURVE,
            run_folder.LOSSES,
            run_folder.STATE,
            run_folder.LOCK,
        ),
        *(dataset.DATASET_FILE, "out-comfyui.safetensors", "out-diffusers.safetensors"),
    }


def test_a_run_reports_itself_and_tells_of_each_step(train: Callable[..., Result], tmp_path: Path) -> None:
    events = tmp_path / "e.ndjson"
    run = train("--json", "--events", str(events), "--export", "comfyui", "--steps", "6")
    assert run.exit_code == 0, run.output
    found = said(run)["training"]
    assert found["path"] == str(tmp_path / "out")
    assert (found["base"], found["songs"], found["steps"]) == ("base", 2, 6)
    assert found["exports"] == [{"format": "comfyui", "path": str(tmp_path / "out" / "out-comfyui.safetensors")}]
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    for line in lines:
        jsonschema.validate(line, EVENT_SCHEMA)
    steps = [line for line in lines if line["event"] == "step"]
    assert [(line["step"], line["of"]) for line in steps] == [(number, 6) for number in range(1, 7)]
    assert steps[-1]["loss"] == found["loss"] == pytest.approx(loss_plot.running_mean(losses(tmp_path / "out"))[-1])
    assert steps[0]["eta_seconds"] is None
    assert steps[1]["eta_seconds"] > 0
    assert steps[-1]["eta_seconds"] == 0
    assert {"scan", "train"} <= {line["stage"] for line in lines if line["event"] == "progress"}
    assert lines[-1]["exit_code"] == 0
    assert run.stderr.count("by the first steps.") == 1
    again = train("--json", few=False)
    assert (again.exit_code, said(again)["error"]["name"]) == (2, "usage")


def test_songs_with_a_value_that_cannot_be_read_are_trained_on_without_it(
    train: Callable[..., Result], songs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "described"
    shutil.copytree(songs, folder)
    for file in folder.glob("*.txt"):
        file.write_text(f"caption: {file.stem}\nlanguage: martian\nbpm: 92 BPM\nlyrics: la")
    run = train("--json", "--steps", "1", folder=folder)
    assert run.exit_code == 0, run.output
    content = said(run)
    assert content["training"]["songs"] == len(content["training"]["left_out"]) == 2
    assert {one["key"] for one in content["training"]["left_out"]} == {"language"}
    assert sum("language is left out." in line for line in content["warnings"]) == 2
    used = (tmp_path / "out" / dataset.DATASET_FILE).read_text()
    assert (used.count("#   "), used.count("bpm: 92")) == (2, 2)


def test_the_first_steps_tell_how_long_a_run_will_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = train_progress.TrainingRate(50, Console())
    times = iter([100.0, 102.0, 104.0, 130.0, 132.0])  # a save comes in between
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    for step in range(1, 6):
        heard(step, None if step == 1 else 0.5)
    assert heard.loss == 0.5
    assert capsys.readouterr().err == "Time: about 1:32 min more, by the first steps.\n"


def test_how_often_to_preview_says_nothing_without_a_preview(train: Callable[..., Result], tmp_path: Path) -> None:
    run = train("--preview-every", "2")
    assert run.exit_code == 2
    assert "--preview-every says how often --preview renders, which is not given." in run.stderr
    assert not (tmp_path / "out").exists()


def test_the_optimiser_of_the_plan_is_recorded(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card of eight bits is told of and recorded; here a plan stands in for one."""
    plan, asked = workload.plan_training, []

    def planned(*arguments: Any, eight_bits: bool, **more: Any) -> workload.TrainingPlan:
        asked.append(eight_bits)
        return plan(*arguments, **more).model_copy(update={"optimiser": "adamw8bit"} if eight_bits else {})

    monkeypatch.setattr(train_lora, "plan_training", planned)
    monkeypatch.setattr(training_config, "has_eight_bits", lambda: True)
    monkeypatch.setattr(loop, "build_optimizer", lambda parameters, _: torch.optim.AdamW(parameters))
    open_, given = train(), train("--optimiser", "adamw", output="given")
    assert (open_.exit_code, given.exit_code, asked) == (0, 0, [True, False]), open_.output
    records = run_folder.read_record(tmp_path / "out"), run_folder.read_record(tmp_path / "given")
    assert [one and one.config.optimiser for one in records] == ["adamw8bit", "adamw"]
    assert "The optimiser keeps its state in eight bits, with bitsandbytes" in open_.stderr


def test_a_finished_or_foreign_folder_is_left_alone(train: Callable[..., Result], tmp_path: Path) -> None:
    assert train().exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    again = train()
    assert again.exit_code == 2
    assert f"{tmp_path / 'out'} holds a training run already, at step 4 of 4." in again.stderr
    resumed = train("--resume", few=False)
    assert resumed.exit_code == 2
    assert "is finished: all 4 steps are done" in resumed.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / run_folder.CONFIG).write_text("mine")
    taken = train(output="mine")
    assert taken.exit_code == 9
    assert "adapter_config.json exists already" in taken.stderr
    assert "Nothing that is there is replaced" in taken.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [run_folder.CONFIG]


@pytest.fixture
def half_way(train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after two of four steps."""
    tell = loop.TrainingLoop._report

    def stop(run: loop.TrainingLoop) -> None:
        tell(run)
        if run.progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(loop.TrainingLoop, "_report", stop)
        stopped = train()
    assert stopped.exit_code == 143, stopped.output
    assert "Stopped after step 2 of 4; all is saved, and --resume goes on." in stopped.stderr
    return tmp_path / "out"


def test_a_run_is_resumed_without_saying_its_settings_again(train: Callable[..., Result], half_way: Path) -> None:
    run = train("--resume", few=False)
    assert run.exit_code == 0, run.output
    assert "going on after step 2" in run.stderr
    assert train(output="whole").exit_code == 0
    assert losses(half_way) == losses(half_way.parent / "whole")


def test_what_an_export_would_replace_is_found_before_a_run_goes_on(
    train: Callable[..., Result], half_way: Path
) -> None:
    export = half_way / "out-comfyui.safetensors"
    export.touch()
    run = train("--resume", "--export", "comfyui", few=False)
    assert run.exit_code == 9, run.output
    assert f"{export} exists already" in run.stderr
    assert "Nothing that is there is replaced; move it away, or leave --export out." in run.stderr
    assert "Training a lora" not in run.stderr
    assert export.read_bytes() == b""
    assert len(losses(half_way)) == 2


def test_an_export_of_the_same_run_is_replaced(train: Callable[..., Result], half_way: Path) -> None:
    before = (half_way / run_folder.STATE).read_bytes()
    assert train("--resume", "--export", "comfyui", few=False).exit_code == 0
    export = load_file(half_way / "out-comfyui.safetensors")
    (half_way / run_folder.STATE).write_bytes(before)
    again = train("--resume", "--export", "comfyui", few=False)
    assert again.exit_code == 0, again.output
    assert all(torch.equal(weight, export[name])
               for name, weight in load_file(half_way / "out-comfyui.safetensors").items())  # fmt: skip


def test_an_export_that_cannot_be_written_costs_no_step(
    train: Callable[..., Result], half_way: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> dict[str, Tensor]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setitem(adapter.EXPORTS, "comfyui", full)
        failed = train("--resume", "--export", "comfyui", few=False)
    assert failed.exit_code == 9, failed.output
    assert "out-comfyui.safetensors cannot be written: no space left on device." in failed.stderr
    assert len(losses(half_way)) == 4
    assert train("--resume", "--export", "comfyui", few=False).exit_code == 0
    assert (half_way / "out-comfyui.safetensors").is_file()
    assert len(losses(half_way)) == 4
    done = train("--resume", "--export", "comfyui", few=False)
    assert done.exit_code == 2
    assert "is finished: all 4 steps are done" in done.stderr


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--rank", "8"), 2, "--rank is 8 and was 4"),
        (
            ("--learning-rate", "1e-3", "--seed", "1"),
            2,
            "--learning-rate is 0.001 and was 0.0001; --seed is 1 and was 42",
        ),
        (("-m", "pocket"), 2, "--resume: the run was begun on base, not pocket."),
        (("--name", "other"), 2, "'one.wav', 'two.wav' changed"),
        (("--dtype", "bf16"), 2, "the run began with float32 weights"),
    ],
)
def test_a_run_goes_on_as_it_began_or_says_what_differs(
    train: Callable[..., Result], half_way: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    if "bf16" in flags and "bfloat16" not in hardware.cpu_device().dtypes:
        pytest.skip("this processor does not compute in bfloat16")
    run = train("--resume", *flags, few=False)
    assert (run.exit_code, said in run.stderr) == (code, True), run.stderr
    record = run_folder.read_record(half_way)
    assert record is not None
    assert record.step == 2


def test_a_song_that_changed_is_named(train: Callable[..., Result], songs: Path, half_way: Path) -> None:
    (songs / dataset.DATASET_FILE).write_text("songs:\n  one.wav: {caption: other}\n  two.wav: {caption: a two tone}\n")
    try:
        run = train("--resume", few=False)
    finally:
        (songs / dataset.DATASET_FILE).unlink()
    assert run.exit_code == 2
    assert "--resume: the songs are not those that the run began with: 'one.wav' changed." in run.stderr


def test_nothing_to_resume_is_said(train: Callable[..., Result], tmp_path: Path) -> None:
    run = train("--resume")
    assert run.exit_code == 2
    assert f"{tmp_path / 'out'} holds no training run" in run.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / run_folder.STATE).write_text("no")
    broken = train("--resume")
    assert broken.exit_code == 3
    assert "is not the save of a training run" in broken.stderr


def test_two_runs_into_one_folder_are_one_too_many(train: Callable[..., Result], tmp_path: Path) -> None:
    with run_folder.lock_folder(tmp_path / "out"):
        run = train()
    assert run.exit_code == 9
    assert f"Another run is training into {tmp_path / 'out'}." in run.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--rank", "0"), "--rank: 0 is not a whole number from 1 to 1024"),
        (("--alpha", "loud"), "--alpha: 'loud' is not a number from 0.01 to 4096"),
        (("--type", "loha", "--steps", "x"), "--type: 'loha' is not one of lora, dora, lokr"),
        (("--export", "kohya"), "--export kohya: is not one of comfyui, diffusers."),
        (("--type", "dora", "--export", "diffusers"), "diffusers does not read a dora"),
        (("--dtype", "fp16"), "no device here computes in it"),
        (("--optimiser", "adamw8bit"), "needs bitsandbytes, which is not installed"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(train: Callable[..., Result], flags: tuple[str, ...], said: str) -> None:
    run = train(*flags)
    assert run.exit_code == 2, run.output
    assert said in run.stderr


def test_a_run_that_was_stopped_before_its_first_step_begins_anew(
    train: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "prepare_training_set", interrupted)
        assert train().exit_code == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == [run_folder.LOCK]
    assert train().exit_code == 0


def test_a_preview_that_cannot_be_is_refused_at_once(train: Callable[..., Result], tmp_path: Path) -> None:
    run = train("--preview", str(tmp_path / "gone.yaml"))
    assert run.exit_code == 2
    assert "gone.yaml: cannot be read" in run.stderr
    assert "Going through" not in run.stderr
    (tmp_path / "dressed.yaml").write_text("caption: x\nduration: 10\nloras: other.safetensors\n")
    dressed = train("--preview", str(tmp_path / "dressed.yaml"))
    assert dressed.exit_code == 2
    assert "dressed.yaml: names adapters, and only the one in training is applied." in dressed.stderr


def test_no_output_is_no_training(songs: Path) -> None:
    run = CliRunner().invoke(app, ["train-lora", str(songs)])
    assert run.exit_code == 2
    assert "There is no folder to train into." in run.stderr


def test_what_does_not_fit_says_what_would(train: Callable[..., Result]) -> None:
    run = train("--max-vram", "690M", "--batch", "64", "--crop", "11")
    assert run.exit_code == 4, run.output
    assert "Training takes" in run.stderr
    assert "--batch 1 would fit" in run.stderr


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written_is_said(train: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    run = train(output="shut/out")
    assert run.exit_code == 9
    assert "permission denied" in run.stderr


def test_a_file_in_the_place_of_the_folder_is_said(train: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    run = train()
    assert run.exit_code == 9
    assert "exists already" in run.stderr


def test_unreadable_songs_are_named_and_skipped_only_when_asked(
    train: Callable[..., Result], songs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for file in songs.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "bad.wav").write_text("no")
    (folder / "worse.txt").write_text("bpm: 4000\n")
    song(folder / "worse.wav", 440, 11, RATE)
    run = train(folder=folder)
    assert run.exit_code == 5
    assert "bad.wav is not audio that can be read" in run.stderr
    assert "worse.txt: bpm: 4000 is not a whole number from 30 to 300; bpm is left out." in run.stderr
    assert "--skip-bad trains on the others." in run.stderr
    assert not (tmp_path / "out").exists()
    skipped = train("--skip-bad", folder=folder)
    assert skipped.exit_code == 0, skipped.output
    assert "with 2 songs" in skipped.stderr


def test_a_refusal_loads_no_torch(base: tiny.Oracle, songs: Path, tmp_path: Path) -> None:
    from support.command import loaded

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / run_folder.CONFIG).write_text("")
    flags = ["--models-dir", str(base.root)]
    for output, more, code in (("taken", [], 9), ("out", ["--rank", "0"], 2), ("out", ["--max-vram", "1M"], 4)):
        assert loaded("train-lora", str(songs), "-o", str(tmp_path / output), *flags, *more) == (code, [])
    assert loaded("train-lora", "--help") == (0, [])


def test_a_preview_is_rendered_between_steps(train: Callable[..., Result], tmp_path: Path) -> None:
    spec = tmp_path / "preview.yaml"
    spec.write_text("caption: harbour\nduration: 10\nsteps: 2\n")
    run = train("--preview", str(spec), "--preview-every", "2")
    assert run.exit_code == 0, run.output
    made = sorted(path.name for path in (tmp_path / "out" / run_folder.PREVIEWS).iterdir())
    assert made == ["step-2.flac", "step-4.flac"]
    first, last = (soundfile.read(tmp_path / "out" / run_folder.PREVIEWS / name)[0] for name in made)
    assert first.shape == last.shape
    assert not np.array_equal(first, last)
    assert train(output="whole").exit_code == 0
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")  # looking does not change what is looked at


@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
def test_ctrl_c_in_a_real_terminal_saves(base: tiny.Oracle, songs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "acestep_cli", "train-lora", str(songs), "-o", str(tmp_path / "out")]
    command += ["--models-dir", str(base.root), "--rank", "4", "--crop", "10", "--dtype", "fp32", "--steps", "100000"]
    with started(command) as process:
        read_to(process.stderr, "Training\n")
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == 130, rest
    assert "all is saved, and --resume goes on." in rest
    record = run_folder.read_record(tmp_path / "out")
    assert record is not None
    assert record.step >= 1


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(base: tiny.Oracle, songs: Path, tmp_path: Path) -> None:
    """On processors; cards differ in what carries the sums."""
    flags = ["--models-dir", str(base.root), "--rank", "4", "--crop", "10", "--dtype", "fp32", "--steps", "4"]
    flags += ["--accumulation", "4", "--device", "cpu"]
    alone = [sys.executable, "-m", "acestep_cli", "train-lora"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    for name, command in (("one", alone), ("two", [*launch, "-m", "acestep_cli", "train-lora"])):
        run = finish(
            [*command, str(songs), "-o", str(tmp_path / name), *flags],
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=LONG_LIMIT,
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout == f"{tmp_path / name}/\n"  # one of them speaks
        assert run.stderr.count("Step 4 of 4") == 1
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_more_processes_than_passes_are_refused(train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = train("--device", "cpu")
    assert run.exit_code == 2
    assert "--accumulation 1: 2 processes share the passes of a step, so there are too few." in run.stderr
    named = train("--device", "cuda:1", "--accumulation", "2")
    assert named.exit_code == 2
    assert "--device cuda:1: is one card, and 2 processes train." in named.stderr
