"""The training loop: from a data set and a configuration to an adapter, with saves, stops and resumption.

Everything random in step n follows from the seed and n. So a save holds the adapter, the optimiser's state and the
number of steps; the learning rate, the order of the songs and every draw of a resumed run follow from them.

Loss and times: docs/specification.md, 12 Training of adapters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import acestep_cli.engine.load_libraries  # noqa: F401  # isort: skip - loads torch where the current folder is gone
import torch
from torch import Tensor, nn

from acestep_cli import disk
from acestep_cli.engine import tensor_file
from acestep_cli.engine.denoise import stage_generator
from acestep_cli.engine.dit import AceStep, DiT
from acestep_cli.engine.weights import WeightStore, load_silence
from acestep_cli.errors import CheckError, MemoryLimitError, ran_out_of_memory
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.models.sizes import Sizes
from acestep_cli.models.tensor_file import open_tensors
from acestep_cli.progress import ProgressCallback, Say
from acestep_cli.training import examples, loss_plot, run_folder
from acestep_cli.training.adapter import EXPORTS, TrainableAdapter, enable_gradient_checkpointing
from acestep_cli.training.config import MAX_GRADIENT_NORM, MAX_NAN_STEPS, WEIGHT_DECAY, TrainingConfig
from acestep_cli.training.dataset import DATASET_FILE, Dataset, UsableSong
from acestep_cli.training.distributed import Distributed
from acestep_cli.training.examples import Batch, TrainingSet
from acestep_cli.training.plan import TrainingPlan
from acestep_cli.training.run_folder import ADAPTER, CONFIG, CURVE, LOSSES, STATE, RunRecord

#: Receives the number of a step that is done and the running mean of the loss, None before the first finite loss.
StepCallback = Callable[[int, float | None], None]
#: The most messages about the loss in one run.
REPORTS_PER_RUN = 20
#: Names in a save: the adapter's weights, the optimiser's state of each of them, the loss of each step.
WEIGHTS, OPTIMISER, HISTORY = "adapter:", "optimiser:", "losses"
#: Parts of the model that are dropped once the songs are encoded, unless previews are rendered.
ENCODERS = ("encoder", "tokenizer", "detokenizer")


@dataclass(frozen=True)
class TrainingJob:
    """One training run: its songs, its configuration and its folder."""

    dataset: Dataset
    songs: tuple[UsableSong, ...]
    record: RunRecord
    checkpoint: Checkpoint
    plan: TrainingPlan
    folder: Path
    #: Formats besides peft's, each with its file.
    exports: tuple[tuple[str, Path], ...] = ()
    #: Seconds between saves.
    save_every: float = 600.0
    #: Called every `preview_every` steps with the model as it is and the number of steps.
    preview: Callable[[AceStep, int], None] | None = None
    preview_every: int = 500
    distributed: Distributed = field(default_factory=Distributed)

    @property
    def config(self) -> TrainingConfig:
        return self.record.config


@dataclass
class TrainingProgress:
    """The state of a run: steps done, the loss of each, and how many of the losses were NaN."""

    step: int = 0
    broken: int = 0
    losses: list[float] = field(default_factory=list)


def train(
    job: TrainingJob,
    report: ProgressCallback,
    say: Say,
    warn: Say,
    on_step: StepCallback = lambda step, loss: None,
) -> Path:
    """Train or resume until all steps are done, and return the folder of the adapter. `say` receives a message about
    the loss now and then.

    On Ctrl-C or SIGTERM the step at hand is finished and everything saved before they act. Raises `CheckError` after
    three NaN losses in a row, `OutputError` where a save cannot be written (the one before stays), `MemoryLimitError`
    when memory runs out.
    """
    with closing(WeightStore(job.checkpoint, job.plan, report)) as weights:
        try:
            if not job.distributed.is_main:
                job.distributed.barrier()  # the main process prepares the songs for all
            training_set = prepare_training_set(job, weights, warn)
            if job.distributed.is_main:
                job.distributed.barrier()
            with weights.dit() as model:
                TrainingLoop(job, training_set, model, weights, say, on_step).train()
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            raise MemoryLimitError(
                f"Training ran out of memory on {job.plan.device}; what was saved is there.",
                "--crop 60 and --batch 1 need less; so does --max-vram with less than is free.",
            ) from None
        for warning in weights.warnings:
            warn(warning)
    return job.folder


def prepare_training_set(job: TrainingJob, weights: WeightStore, warn: Say) -> TrainingSet:
    """Encode the songs of a job to latents and conditions, or find them encoded."""
    sizes = Sizes.of(job.checkpoint)
    silence = load_silence(job.checkpoint.silence_file, sizes.dit.latent_channels)
    return examples.prepare_examples(
        weights, sizes, silence, dataset=job.dataset, songs=job.songs, config=job.config, warn=warn
    )


class TrainingLoop:
    """The loop over steps, with its adapter and its optimiser."""

    def __init__(
        self,
        job: TrainingJob,
        training_set: TrainingSet,
        model: AceStep,
        weights: WeightStore,
        say: Say,
        on_step: StepCallback = lambda step, loss: None,
    ) -> None:
        self.job, self.training_set, self.model, self.weights = job, training_set, model, weights
        self.say, self.on_step = say, on_step
        if job.preview is None:
            for name in ENCODERS:
                delattr(model, name)
            weights.trim_memory()
        self.adapter = TrainableAdapter(model.decoder, job.config, job.checkpoint.name)
        if job.plan.checkpointed:
            enable_gradient_checkpointing(model.decoder)
        self.optimiser = build_optimizer(self.adapter.parameters, job.config)
        self.progress = TrainingProgress()
        #: The last steps in a row whose loss was NaN.
        self.nan_steps = 0
        if job.record.step:
            self._restore()

    @property
    def config(self) -> TrainingConfig:
        return self.job.config

    def train(self) -> None:
        """Take every step that is left, saving on the way and at the end."""
        steps, progress = self.config.steps, self.progress
        last_save = time.monotonic()
        self.model.decoder.train()
        with disk.holding_signals() as deliver_signals:
            while progress.step < steps:
                self._record(self._step(progress.step))
                self._report()
                if progress.step < steps and time.monotonic() - last_save >= self.job.save_every:
                    self.save()
                    last_save = time.monotonic()
                self._preview()
                if signal := self._check_signals(deliver_signals):
                    self.save()
                    self.say(f"Stopped after step {progress.step} of {steps}; all is saved, and --resume goes on.")
                    raise signal
            self.save()

    def _record(self, loss: float) -> None:
        """Count a step that is done. Raises `CheckError` for the third NaN loss in a row."""
        progress = self.progress
        self.nan_steps = 0 if math.isfinite(loss) else self.nan_steps + 1
        if self.nan_steps == MAX_NAN_STEPS:
            raise self._nan_error()
        progress.losses.append(loss)
        progress.step += 1
        progress.broken += not math.isfinite(loss)

    def _check_signals(self, deliver_signals: Callable[[], None]) -> BaseException | None:
        """Return the exception of a signal that came to any of the processes, so that all stop; None without one."""
        found: BaseException | None = None
        try:
            deliver_signals()
        except KeyboardInterrupt as signal:
            found = signal
        [count] = self.job.distributed.all_reduce(float(found is not None))
        return found or (KeyboardInterrupt() if count else None)

    def _step(self, number: int) -> float:
        """Take one step of the optimiser and return its loss; NaN for a step that was skipped."""
        config, device = self.config, self.weights.device
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate_at(number)
        total = 0.0
        for part in self.job.distributed.passes_of(config.accumulation):
            number_of_pass = number * config.accumulation + part
            batch = self.training_set.batch(number_of_pass, device, self.weights.dtype)
            with torch.random.fork_rng([device] if device.type == "cuda" else []):  # for the dropout of the adapter
                torch.manual_seed(stage_generator(config.seed, f"dropout {number_of_pass}").initial_seed())
                loss = flow_loss(self.model.decoder, batch) / config.accumulation
                torch.autograd.backward(loss)
            total += loss.item()
        self.job.distributed.all_reduce_gradients(self.adapter.parameters)
        [total] = self.job.distributed.all_reduce(total)
        size = nn.utils.clip_grad_norm_(self.adapter.parameters, MAX_GRADIENT_NORM)
        if math.isfinite(total) and bool(torch.isfinite(size)):
            self.optimiser.step()
        else:
            total = math.nan
        self.optimiser.zero_grad(set_to_none=True)
        return total

    def _report(self) -> None:
        """Report the step, and now and then the loss."""
        progress, steps = self.progress, self.config.steps
        mean = loss_plot.running_mean(progress.losses[-200:])[-1]
        self.weights.report("train", progress.step, steps)
        self.on_step(progress.step, mean if math.isfinite(mean) else None)
        every = max(steps // REPORTS_PER_RUN, 1)
        if progress.step % every == 0 or progress.step == steps:
            broken = f", {progress.broken} steps skipped" if progress.broken else ""
            self.say(f"Step {progress.step} of {steps}: loss {mean:.4f}{broken}")

    def _preview(self) -> None:
        job, step = self.job, self.progress.step
        if job.preview is not None and job.distributed.is_main and step % job.preview_every == 0:
            self.model.decoder.eval()
            job.preview(self.model, step)
            self.model.decoder.train()

    def _nan_error(self) -> CheckError:
        """Save the state as it was before the NaN losses, and return the error that stops the run."""
        progress, counted = self.progress, MAX_NAN_STEPS - 1
        self.progress = TrainingProgress(
            step=progress.step - counted,
            broken=progress.broken - counted,
            losses=progress.losses[:-counted],
        )
        self.save()
        return CheckError(
            f"{MAX_NAN_STEPS} steps in a row had a NaN loss, the last of them step {progress.step + 1}, so "
            f"training stopped; the adapter in {self.job.folder} is as it was before them.",
            "Train again into another --output with a lower --learning-rate.",
        )

    def save(self) -> None:
        """Write the adapter and all that a resumed run needs, whole or not at all; after the last step the exports too.

        They come last: where one of them fails, a resumed run has nothing left to do but write it.
        """
        if not self.job.distributed.is_main:
            return
        progress = self.progress
        record = self.job.record.model_copy(update={"step": progress.step, "broken": progress.broken})
        tensors = self.adapter.tensors()
        self._write_folder(tensors, record.header())
        exports = dict(self.job.exports) if record.is_finished else {}
        run_folder.require_own(record, list(exports.values()))
        for name, path in exports.items():
            with disk.write_whole(path, replace=[path]) as [part]:
                exported = EXPORTS[name](tensors, self.config)
                tensor_file.save_tensors(part, exported, record.header(), checksum=False)

    def _write_folder(self, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
        """Write the files of the folder, all or none, from the adapter's `tensors`."""
        folder, losses = self.job.folder, self.progress.losses
        files = [folder / name for name in (STATE, ADAPTER, CONFIG, DATASET_FILE, CURVE, LOSSES)]
        with disk.write_whole(*files, replace=files) as [state, adapter, config, songs, curve, table]:
            tensor_file.save_tensors(adapter, tensors, header, checksum=False)  # other programs may rewrite it
            disk.write_text(config, self.adapter.json())
            disk.write_text(songs, self.job.dataset.dump())
            loss_plot.draw_losses(losses, curve)
            disk.write_text(table, losses_csv(losses, self.config))
            tensor_file.save_tensors(state, self._state(tensors), header)

    def _state(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a save: the adapter's, the optimiser's and the losses."""
        state = {WEIGHTS + name: weight for name, weight in tensors.items()}
        state[HISTORY] = torch.tensor(self.progress.losses, dtype=torch.float64)
        for number, parameter in enumerate(self.adapter.parameters):
            for name, value in self.optimiser.state[parameter].items():
                state[f"{OPTIMISER}{number}:{name}"] = torch.as_tensor(value)
        return state

    def _restore(self) -> None:
        """Load the save in the folder."""
        run_folder.require_undamaged(self.job.folder)
        with open_tensors(self.job.folder / STATE) as saved:
            state = {name: saved.get_tensor(name) for name in saved.keys()}  # noqa: SIM118 - it is no dict
        self.adapter.load({name.removeprefix(WEIGHTS): weight for name, weight in state.items()
                         if name.startswith(WEIGHTS)})  # fmt: skip
        moments: dict[int, dict[str, Any]] = {}
        for name, value in state.items():
            if name.startswith(OPTIMISER):
                number, _, key = name.removeprefix(OPTIMISER).partition(":")
                moments.setdefault(int(number), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        record = self.job.record
        self.progress = TrainingProgress(record.step, record.broken, state[HISTORY].tolist())


def flow_loss(decoder: DiT, batch: Batch) -> Tensor:
    """Return the mean squared error of the velocities of a batch, over real frames alone."""
    cross_kv = decoder.project_condition(batch.condition)
    predicted = decoder(batch.noisy, batch.times, batch.context, cross_kv, batch.keep)
    squared = (predicted.float() - batch.velocity).square()
    if batch.keep is None:
        return squared.mean()
    return squared[batch.keep].mean()


def build_optimizer(parameters: Sequence[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """Return AdamW, with its state in float32 or in eight bits."""
    if config.optimiser == "adamw":
        return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=WEIGHT_DECAY)
    from bitsandbytes.optim import AdamW8bit  # few have it, and it is large

    found: torch.optim.Optimizer = AdamW8bit(parameters, config.learning_rate, weight_decay=WEIGHT_DECAY)
    return found


def losses_csv(losses: Sequence[float], config: TrainingConfig) -> str:
    """Return the losses as CSV: step, loss, its running mean, learning rate."""
    rows = zip(losses, loss_plot.running_mean(losses), strict=True)
    lines = [
        f"{step + 1},{loss:.6f},{mean:.6f},{config.learning_rate_at(step):.3e}"
        for step, (loss, mean) in enumerate(rows)
    ]
    return "\n".join(["step,loss,running_mean,learning_rate", *lines, ""])
