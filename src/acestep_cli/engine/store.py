"""Weights in memory: who is resident, for how long, and how they get there.

The doctrine:
1. A component is resident only while it is borrowed; when its last borrower returns it, it is gone.
2. Weights are mapped from their file and assigned to modules that were never initialised. In the dtype on
   disk they stay file pages, which the system may drop; converted ones are copied tensor by tensor, and
   each shard's pages are released before the next shard is opened.
3. Names and shapes are checked for the whole component before the first weight is read.

Sources: `dit.md` 1 and 2 of the specification, and the rulings on strict loading.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn

from acestep_cli import checkpoints
from acestep_cli.checkpoints import Checkpoint
from acestep_cli.engine.dit import AceStep
from acestep_cli.engine.text import TextEncoder
from acestep_cli.engine.vae import OobleckVAE, fold_weight_norm, folded_names
from acestep_cli.errors import CheckpointError
from acestep_cli.hardware import Plan
from acestep_cli.sizes import DiTConfig, VAEConfig

M = TypeVar("M", bound=nn.Module)
Report = Callable[[str, int, int], None]
"""(stage, done, total) of whatever is under way."""
NAMES_SHOWN = 4


class Store:
    """Lends the components of one checkpoint to a pipeline."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan, report: Report) -> None:
        self.checkpoint = checkpoint
        self.plan = plan
        self.report = report
        self.warnings: list[str] = []
        self.device = torch.device(plan.device)
        self.dtype: torch.dtype = getattr(torch, plan.dtype)
        if self.device.type == "cuda":  # the same seed is to give the same samples
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.allow_tf32 = False
        self._residents: dict[str, nn.Module] = {}
        self._borrowers: Counter[str] = Counter()
        self._makers: dict[str, Callable[[], nn.Module]] = {
            "dit": self._make_dit,
            "vae": self._make_vae,
            "text": self._make_text,
        }

    @property
    def residents(self) -> frozenset[str]:
        """Names of the components in memory now."""
        return frozenset(self._residents)

    @contextmanager
    def dit(self) -> Iterator[AceStep]:
        """Borrow the diffusion transformer with its encoders."""
        with self._borrow("dit") as module:
            yield module

    @contextmanager
    def vae(self) -> Iterator[OobleckVAE]:
        """Borrow the autoencoder."""
        with self._borrow("vae") as module:
            yield module

    @contextmanager
    def text(self) -> Iterator[TextEncoder]:
        """Borrow the text encoder."""
        with self._borrow("text") as module:
            yield module

    @contextmanager
    def _borrow(self, name: str) -> Iterator[Any]:
        if name not in self._residents:
            self._residents[name] = self._makers[name]()
        self._borrowers[name] += 1
        try:
            yield self._residents[name]
        finally:
            self._borrowers[name] -= 1
            if not self._borrowers[name]:
                del self._residents[name]
                gc.collect(0)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _make_dit(self) -> AceStep:
        config = DiTConfig.from_dict(self.checkpoint.config, str(self.checkpoint.dit / "config.json"))
        with torch.device("meta"):
            model = AceStep(config)
        return self._filled(model, self.checkpoint.dit)

    def _make_vae(self) -> OobleckVAE:
        config = VAEConfig.from_dict(self.checkpoint.vae_config, str(self.checkpoint.vae / "config.json"))
        with torch.device("meta"):
            vae = OobleckVAE(config)
        return self._filled(vae, self.checkpoint.vae, folded=True)

    def _make_text(self) -> TextEncoder:
        encoder = TextEncoder(self.checkpoint.text)
        self._filled(encoder.model, self.checkpoint.text)
        return encoder.eval()

    def _filled(self, module: M, folder: Path, folded: bool = False) -> M:
        """Give `module` the weights of `folder`, on the plan's device in the plan's dtype."""
        files = checkpoints.weight_files(folder)
        on_disk: dict[str, tuple[int, ...]] = {}
        for file in files:
            on_disk |= checkpoints.read_header(file)
        if folded:
            on_disk = {name: on_disk[source] for name, (source, _) in folded_names(on_disk).items()}
        self._check(module, on_disk, folder)
        for number, file in enumerate(files):
            self.report("load", number, len(files))
            self._pour(file, module, folded)
        self.report("load", len(files), len(files))
        return module.to(self.device).eval()  # what is left to move are buffers that no file holds

    def _pour(self, file: Path, module: nn.Module, folded: bool) -> None:
        """Assign the weights of one shard; once this returns, only weights kept as they were map its pages."""
        known = set(module.state_dict())
        with safe_open(file, framework="pt") as shard:
            tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118 - not a dict
        for name, tensor in fold_weight_norm(tensors) if folded else tensors.items():
            if name in known:
                assign(module, name, tensor.to(self.device, self.dtype))

    def _check(self, module: nn.Module, on_disk: Mapping[str, tuple[int, ...]], folder: Path) -> None:
        """Compare names and shapes; unknown extra tensors are worth one warning, anything else an error."""
        wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        if missing := [name for name in wanted if name not in on_disk]:
            raise CheckpointError(
                f"{folder} lacks {counted(missing)}.",
                "It is incomplete or made for another model; download that folder again.",
            )
        wrong = [f"{name} is {list(on_disk[name])}, not {list(shape)}" for name, shape in wanted.items()
                 if on_disk[name] != shape]  # fmt: skip
        if wrong:
            raise CheckpointError(
                f"{folder} holds tensors of another shape than its config.json says: {counted(wrong)}.",
                "Config and weights are of different models; download that folder again.",
            )
        if extra := [name for name in on_disk if name not in wanted]:
            warning = f"{folder} holds tensors this engine does not know and ignores: {counted(extra)}."
            if warning not in self.warnings:  # a component is read again for each take
                self.warnings.append(warning)


def counted(names: list[str]) -> str:
    """`n tensors (a, b, …)`."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({shown})"


def assign(module: nn.Module, name: str, weight: Tensor) -> None:
    """Make `weight` the parameter `name` of `module`, which need not have had memory before."""
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(weight, requires_grad=False))


def silence(file: Path, channels: int) -> Tensor:
    """The silence latent [1, frames, C] of a DiT folder, float32.

    Read with `weights_only`: a pickle that carries code is refused, never run.
    """
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the file makes it, with advice not to be followed
        raise CheckpointError(
            f"{file} is not a plain tensor file ({type(error).__name__}), and was not run.",
            "Download that file again, from a source you trust.",
        ) from error
    if not isinstance(stored, Tensor) or stored.dim() != 3 or stored.shape[0] != 1 or stored.shape[1] != channels:
        found = list(stored.shape) if isinstance(stored, Tensor) else type(stored).__name__
        raise CheckpointError(f"{file} should hold a tensor [1, {channels}, frames], not {found}.")
    return stored.float().transpose(1, 2)
