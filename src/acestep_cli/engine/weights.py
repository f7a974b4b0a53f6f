"""Weights in memory: the components that are resident, and how they are loaded.

Rules:
1. A component that is returned stays until another one is borrowed that it may not be resident with. The diffusion
   transformer and the autoencoder may be resident together where the plan says so; no others may.
2. Weights are mapped from their file and assigned to modules that were never initialised. In the dtype on
   disk they stay file pages, which the system may drop; converted ones are copied tensor by tensor, and
   each shard's pages are released before the next shard is opened.
3. Names and shapes are checked for the whole component before the first weight is read.
4. The diffusion transformer has the adapters of the current song applied. Weights that they were merged into are read
   again when they are removed, so the base is restored bit for bit; the others are untouched.
5. The plan says how a component is kept (dtype, int8, layer by layer from main memory, on the processor), and may
   change between two loans when memory runs out.

Sources: docs/specification.md, 2.6 Tensor names of a DiT folder, 2.8 Silence latent and 2.9 Loading rules.
"""

from __future__ import annotations

import ctypes
import gc
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import acestep_cli.engine.load_libraries  # noqa: F401  # isort: skip - loads torch where the current folder is gone
import torch
from torch import Tensor, nn

from acestep_cli.engine import packed_linear
from acestep_cli.engine.dit import AceStep
from acestep_cli.engine.int8 import Int8Linear, replace_linears, require_integer_products
from acestep_cli.engine.layer_streaming import stream_layers
from acestep_cli.engine.lora import AdapterStack
from acestep_cli.engine.text_encoder import TextEncoder
from acestep_cli.engine.vae import OobleckVAE, fold_weight_norm, weight_sources
from acestep_cli.errors import CheckpointError, UsageError
from acestep_cli.machine.memory import RUNTIME_BYTES
from acestep_cli.machine.plan import Plan
from acestep_cli.models import checkpoint_files, weight_files, weight_shards
from acestep_cli.models.adapters import AppliedAdapter
from acestep_cli.models.checkpoint_files import Checkpoint
from acestep_cli.models.configs import DiTConfig, VAEConfig
from acestep_cli.models.tensor_file import open_tensors
from acestep_cli.models.weight_shards import Shard
from acestep_cli.progress import ProgressCallback
from acestep_cli.song.loras import ActiveAdapter

if TYPE_CHECKING:
    from acestep_cli.engine.songwriter import SongwriterModel

M = TypeVar("M", bound=nn.Module)
#: Far more than the 15,000 of the published silence latent; one of no memory of its own may have any number.
MOST_SILENCE_FRAMES = 1_000_000
#: The most tensor names in a message.
NAMES_SHOWN = 4
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
#: The module that int8 applies to, which has most of a DiT's weights.
INT8_BLOCKS = "decoder.layers"
#: Components that may be resident together.
COEXISTING = frozenset({"dit", "vae"})


class WeightStore:
    """Lends the components of one checkpoint to a pipeline."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        plan: Plan,
        report: ProgressCallback,
        songwriter: checkpoint_files.Songwriter | None = None,
        dit: AceStep | None = None,
    ) -> None:
        """Load nothing yet. A `dit` that is in memory already is lent as it is, and never evicted."""
        self.checkpoint = checkpoint
        self._songwriter = songwriter
        self.plan = plan
        self.report = report
        self.warnings: list[str] = []
        #: Seconds spent on loading components.
        self.loading_seconds = 0.0
        if plan.threads is not None:
            torch.set_num_threads(plan.threads)
        self.device = torch.device(plan.device)
        self.dtype: torch.dtype = getattr(torch, plan.dtype)
        self._is_open = False
        #: The adapters to be on the diffusion transformer from its next loan on.
        self.adapters: tuple[ActiveAdapter, ...] = ()
        self._adapter_stack = AdapterStack()
        self._residents: dict[str, nn.Module] = {}
        self._borrowers: Counter[str] = Counter()
        if dit is not None:
            self._residents["dit"], self._borrowers["dit"] = dit, 1
        self._builders: dict[str, Callable[[], nn.Module]] = {
            "dit": self._build_dit,
            "vae": self._build_vae,
            "text": self._build_text_encoder,
            "songwriter": self._build_songwriter,
        }

    @property
    def resident(self) -> frozenset[str]:
        """Names of the components in memory now."""
        return frozenset(self._residents)

    @property
    def applied(self) -> tuple[AppliedAdapter, ...]:
        """The adapters on the diffusion transformer, with the number of matrices each applies to."""
        return self._adapter_stack.applied

    @contextmanager
    def dit(self) -> Iterator[AceStep]:
        """Borrow the diffusion transformer with its encoders."""
        with self._borrow("dit") as module:
            if self._adapter_stack.adapters != self.adapters:
                self._apply_adapters(module)
            yield module

    @contextmanager
    def vae(self) -> Iterator[OobleckVAE]:
        """Borrow the autoencoder."""
        with self._borrow("vae") as module:
            yield module

    @contextmanager
    def text_encoder(self) -> Iterator[TextEncoder]:
        """Borrow the text encoder."""
        with self._borrow("text") as module:
            yield module

    @contextmanager
    def songwriter(self) -> Iterator[SongwriterModel]:
        """Borrow the Songwriter, where there is one."""
        with self._borrow("songwriter") as module:
            yield module

    @contextmanager
    def _borrow(self, name: str) -> Iterator[Any]:
        self._open_device()
        if name not in self._residents:
            self._evict(
                set(self._residents) - (COEXISTING if name in COEXISTING and not self.plan.one_network else set())
            )
            start = time.perf_counter()
            self._residents[name] = self._builders[name]()
            self.loading_seconds += time.perf_counter() - start
        self._borrowers[name] += 1
        try:
            yield self._residents[name]
        finally:
            self._borrowers[name] -= 1

    def _apply_adapters(self, model: AceStep) -> None:
        """Replace the adapters on `model` by `adapters`."""
        start = time.perf_counter()
        old, self._adapter_stack = self._adapter_stack, AdapterStack(self.adapters)
        old.remove()
        if names := {f"decoder.{target}.weight" for target in old.merged}:
            for shard in self.checkpoint.dit_shards:
                load_shard(shard, model, self.device, self.dtype, names=names)
        merging = not self.plan.int8 and not self.plan.streamed
        self._adapter_stack.apply(model.decoder, self.device, self.dtype, merging=merging)
        self.loading_seconds += time.perf_counter() - start

    def _open_device(self) -> None:
        """Set up the device, once; with the first loan, since that too may run out of memory."""
        if self._is_open:
            return
        if self.device.type == "cuda":
            require_kernels(self.device)
            torch.cuda.set_device(self.device)
            torch.backends.cudnn.deterministic = True  # the same seed is to give the same samples
            torch.backends.cudnn.allow_tf32 = False
        if self.plan.max_vram is not None and self.device.type in ("cuda", "xpu"):
            card = torch.get_device_module(self.device)
            # Not from `mem_get_info`, which some drivers of Intel's cards lack.
            total = card.get_device_properties(self.device).total_memory
            share = (self.plan.max_vram - RUNTIME_BYTES[self.plan.backend]) / total
            card.set_per_process_memory_fraction(min(max(share, 0.0), 1.0), self.device)
        self._is_open = True

    def synchronize(self) -> None:
        """Wait until the device has finished its work, so that a clock may be read."""
        if self._is_open and self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()

    def _evict(self, names: Iterable[str]) -> None:
        """Drop components that are not on loan."""
        for name in names:
            if not self._borrowers[name]:
                del self._residents[name]
        gc.collect(0)
        if self._is_open and self.device.type != "cpu":
            torch.get_device_module(self.device).empty_cache()

    def trim_memory(self) -> None:
        """Return unused memory to the system; glibc's heap would keep it after each song."""
        gc.collect(0)
        if (trim := getattr(LIBC, "malloc_trim", None)) is not None:  # not in every C library
            trim(0)

    def close(self) -> None:
        """Drop all components that are not on loan."""
        self._evict(list(self._residents))

    def replan(self, plan: Plan) -> None:
        """Continue under another plan for the same device; components are loaded again when they are next borrowed,
        unless only the number of takes that share a pass is another.
        """
        now, self.plan = self.plan.arrangement, plan
        if plan.arrangement != replace(now, together=plan.together):
            self.close()
        else:
            self._evict([])  # of what ran out of memory

    def _build_dit(self) -> AceStep:
        self._adapter_stack = AdapterStack()
        config = DiTConfig.from_dict(self.checkpoint.config, str(self.checkpoint.config_file))
        with torch.device("meta"):
            model = AceStep(config)
        if not self.plan.streamed:
            return self._load(model, self.checkpoint.dit, self.checkpoint.dit_shards, self.device, int8=self.plan.int8)
        model = self._load(
            model, self.checkpoint.dit, self.checkpoint.dit_shards, torch.device("cpu"), int8=self.plan.int8
        )
        stream_layers(model, self.device)
        return model

    def _build_vae(self) -> OobleckVAE:
        config = VAEConfig.from_dict(self.checkpoint.vae_config, str(self.checkpoint.vae / "config.json"))
        with torch.device("meta"):
            vae = OobleckVAE(config)
        folder = self.checkpoint.vae
        vae = self._load(vae, folder, weight_shards.weight_shards(folder), self.vae_device, weight_norm=True)
        vae.arrange_weights()
        return vae

    def _build_text_encoder(self) -> TextEncoder:
        folder = self.checkpoint.text
        encoder = TextEncoder(folder, self.checkpoint.tokenizer)
        self._load(encoder.model, folder, weight_shards.qwen3_shards(folder), self.device)
        return encoder.eval()

    def _build_songwriter(self) -> SongwriterModel:
        from acestep_cli.engine.songwriter import SongwriterModel  # imports llguidance

        assert self._songwriter is not None
        folder = self._songwriter.folder
        songwriter = SongwriterModel(folder, math.prod(self._songwriter.levels))
        self._load(songwriter.model, folder, weight_shards.qwen3_shards(folder), self.device)
        if packed_linear.can_pack(self.device, self.dtype):
            packed_linear.pack_linears(songwriter.model)
        return songwriter.eval()

    @property
    def vae_device(self) -> torch.device:
        return torch.device("cpu") if self.plan.vae_on_cpu else self.device

    @property
    def vae_dtype(self) -> torch.dtype:
        """Float32 on the processor, which may not compute in the dtype of the device."""
        return torch.float32 if self.plan.vae_on_cpu else self.dtype

    def _load(
        self,
        module: M,
        folder: Path,
        shards: Sequence[Shard],
        device: torch.device,
        *,
        weight_norm: bool = False,
        int8: bool = False,
    ) -> M:
        """Give `module` the weights of `folder`, on `device` in the plan's dtype; with `int8`, the matrices of its
        decoder's layers in eight bits.
        """
        on_disk: dict[str, tuple[int, ...]] = {}
        wanted = module.state_dict().keys()
        for shard in shards:
            for name, tensor in shard.stored().items():
                if shard.is_qwen3 and name in on_disk:
                    raise CheckpointError(f"{folder} holds {name} in two files.", "Download that folder again.")
                if (weight_norm or name in wanted) and not tensor.dtype.startswith(("F", "BF")):
                    raise CheckpointError(
                        f"{shard.file}: {name} is in {tensor.dtype}, and weights are floating-point numbers.",
                        "Take a checkpoint that is not quantized.",
                    )
                on_disk[name] = tensor.shape
        if weight_norm:
            on_disk = {name: on_disk[source] for name, (source, _) in weight_sources(on_disk).items()}
        self._check_tensors(module, on_disk, folder)
        if int8:
            if self.plan.int8_arithmetic:
                require_integer_products()
            replace_linears(module.get_submodule(INT8_BLOCKS), arithmetic=self.plan.int8_arithmetic)
        dtype = self.vae_dtype if weight_norm else self.dtype
        for number, shard in enumerate(shards):
            self.report("load", number, len(shards))
            load_shard(shard, module, device, dtype, weight_norm=weight_norm)
        self.report("load", len(shards), len(shards))
        return module.to(device).eval()  # the buffers are not in any file, and move here

    def _check_tensors(self, module: nn.Module, on_disk: Mapping[str, tuple[int, ...]], folder: Path) -> None:
        """Compare names and shapes with the module's. Unknown extra tensors are a warning, anything else is a
        `CheckpointError`.
        """
        wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        if missing := [name for name in wanted if name not in on_disk]:
            raise CheckpointError(
                f"{folder} lacks {list_tensors(missing)}.",
                "It is incomplete or made for another model; download that folder again.",
            )
        wrong = [f"{name} is {list(on_disk[name])}, not {list(shape)}" for name, shape in wanted.items()
                 if on_disk[name] != shape]  # fmt: skip
        if wrong:
            raise CheckpointError(
                f"{folder} holds tensors of another shape than its config.json says: {list_tensors(wrong)}.",
                "Config and weights are of different models; download that folder again.",
            )
        if extra := [name for name in on_disk if name not in wanted]:
            warning = f"{folder} holds tensors this engine does not know and ignores: {list_tensors(extra)}."
            if warning not in self.warnings:  # a component is read again for each take
                self.warnings.append(warning)


def load_shard(
    shard: Shard,
    module: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    *,
    weight_norm: bool = False,
    names: Set[str] | None = None,
) -> None:
    """Assign the weights of one shard, all or those of the published `names`. Afterwards only weights that were not
    converted map its pages.
    """
    known = set(module.state_dict())
    with open_tensors(shard.file) as opened:
        published = {shard.published(name): name for name in opened.keys()}  # noqa: SIM118 - it is no dict
        tensors = {name: opened.get_tensor(own) for name, own in published.items() if names is None or name in names}
    for name, tensor in fold_weight_norm(tensors) if weight_norm else tensors.items():
        if name not in known:
            continue
        owner = module.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, Int8Linear) and name.endswith(".weight"):
            owner.quantize(tensor, device, dtype)
        else:
            set_parameter(module, name, tensor.to(device, dtype))


def require_kernels(device: torch.device) -> None:
    """Raise `UsageError` where the installed torch was built for other cards than this one."""
    built = torch.cuda.get_arch_list()
    if torch.version.hip or not built:
        return
    major, minor = torch.cuda.get_device_capability(device)
    found = re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(built))
    targets = [(kind, (int(built_major), int(built_minor))) for kind, built_major, built_minor in found]
    has_binary = any(kind == "sm" and (major, 0) <= version <= (major, minor) for kind, version in targets)
    has_ptx = any(kind == "compute" and version <= (major, minor) for kind, version in targets)
    if not (has_binary or has_ptx):
        raise UsageError(
            f"The installed torch was built for {', '.join(built)}, and {torch.cuda.get_device_name(device)} has "
            f"compute capability {major}.{minor}.",
            "Install a torch built for it, or use --device cpu.",
        )


def list_tensors(names: list[str]) -> str:
    """Return `n tensors (a, b, …)`."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({shown})"


def set_parameter(module: nn.Module, name: str, weight: Tensor) -> None:
    """Make `weight` the parameter `name` of `module`, which may be on the meta device."""
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(weight, requires_grad=False))


def load_silence(file: Path, channels: int) -> Tensor:
    """Read the silence latent [1, F, C] of a checkpoint's `silence_file`, float32.

    A pickle is read with `weights_only`: one that carries code is refused, never run.
    """
    if file.suffix == weight_files.WEIGHTS_SUFFIX:
        with open_tensors(file) as shard:
            return _silence_from(shard.get_tensor(weight_shards.SILENCE).mT, file, channels)
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the file makes it, with advice not to be followed
        raise CheckpointError(
            f"{file} is not a plain tensor file ({type(error).__name__}), and was not run.",
            "Download that file again, from a source you trust.",
        ) from error
    return _silence_from(stored, file, channels)


def _silence_from(stored: Any, file: Path, channels: int) -> Tensor:
    """Return `stored` [1, C, F] from `file` as [1, F, C], float32. Raises `CheckpointError` for anything else."""
    shape = tuple(stored.shape) if isinstance(stored, Tensor) else ()
    is_plain = isinstance(stored, Tensor) and stored.layout == torch.strided and stored.device.type == "cpu"
    if (
        not is_plain
        or len(shape) != 3
        or shape[:2] != (1, channels)
        or not 0 < shape[2] <= MOST_SILENCE_FRAMES
        or not stored.is_floating_point()
    ):
        found = f"{list(shape)} of {stored.dtype}" if isinstance(stored, Tensor) else type(stored).__name__
        raise CheckpointError(f"{file} should hold a tensor [1, {channels}, frames] of real numbers, not {found}.")
    if not stored.isfinite().all():
        raise CheckpointError(f"{file} holds numbers that are not finite.")
    return stored.float().transpose(1, 2)
