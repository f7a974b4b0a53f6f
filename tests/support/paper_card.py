"""A graphics card made of paper: tensors that say they are on `cuda:0`, `xpu:0` or `mps:0`, computed on the CPU.

    with paper_card.installed(PaperCard("cuda:0", 8 * GIB)) as card:
        ...  # render
    assert card.peak_bytes < ...

The program runs the lines that it runs on a real card: `device.type == "cuda"` holds, and `torch.cuda.Stream`,
`torch.cuda.mem_get_info` and their like are answered by the card. It has the strictness of a real one:

* Operands on two devices are refused, but for what CUDA lets pass: one number on the CPU, and indices there.
* Numbers that the backend lacks are refused (`REFUSED_DTYPES`), and functions that it lacks (`LACKING`).
* Every storage is counted while a tensor holds it, rounded up as CUDA's allocator does, and beyond the cap
  `torch.OutOfMemoryError` is raised. `fail_at` makes one chosen allocation fail.
* A convolution takes, besides its output, the workspace of a channels-last copy of its input and output, as cuDNN's
  kernels for matrix units do.
* Streams, events and copies from page-locked memory are followed: `RaceError` for a tensor that is read or written
  while a copy of another stream may still be under way, and for memory that is freed under such a copy.
* Without `data` nothing is held or computed but shapes, so that real sizes can be counted. What is copied to the CPU
  from there is zeros.

A stream, in the order of the vector clocks of torch's own sanitizer (`torch.cuda._sanitizer`), is a number; the host is
one too. Only one kind of card can be installed at a time; `installed` restores all that it replaces.

Why not torch's backend `privateuseone` in pure Python: a device of another name would leave out every line of the
program that asks for the type `cuda`, and cannot be taken back.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.cuda._sanitizer import StreamSynchronizations
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

aten = torch.ops.aten

HOST = -1
#: CUDA's allocator rounds every tensor up to this, in bytes.
ALLOCATION_BYTES = 512
GIB = 2**30

#: Numbers that a backend cannot hold at all. Sources: PyTorch's MPS notes; oneAPI's aspect fp64, which Arc cards lack.
REFUSED_DTYPES: dict[str, tuple[torch.dtype, ...]] = {
    "cuda": (),
    "rocm": (),
    "xpu": (torch.float64, torch.complex128),
    "mps": (torch.float64, torch.complex128),
}
#: Functions of `torch.cuda`, `torch.xpu` and `torch.mps` that raise on some machines of the kind.
LACKING: dict[str, tuple[str, ...]] = {
    "cuda": (),
    "rocm": (),
    "xpu": ("mem_get_info",),  # drivers without ext_intel_free_memory
    "mps": ("mem_get_info", "Stream", "stream", "current_stream", "memory_reserved"),
}
#: Backends that have page-locked memory.
PINS = ("cuda", "rocm", "xpu")

#: Operations that are one kernel on a card, with no memory but that of its output.
WHOLE = (aten.linear.default, aten.rms_norm.default, aten.is_pinned.default, aten.pin_memory.default)
VIEWS_OF_HOST = (aten._to_copy.default, aten.copy_.default)
TAKES_CPU_INDICES = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
#: Operations besides the elementwise ones in which CUDA takes one number from the CPU.
TAKES_CPU_NUMBER = (
    aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.fill_.Tensor, aten.index_put_.default,
)  # fmt: skip


class RaceError(AssertionError):
    """Two streams use the same memory without an event or a synchronisation between them."""


@dataclass(eq=False)
class PaperCard:
    """One card. `runtime_bytes` of its `total_bytes` are never the program's."""

    name: str = "cuda:0"
    total_bytes: int = 24 * GIB
    backend: str = "cuda"
    runtime_bytes: int = GIB // 2
    capability: tuple[int, int] = (8, 6)
    #: False: no numbers, only shapes.
    data: bool = True
    #: Numbers that this card cannot compute with, besides those that its backend lacks.
    refused: tuple[torch.dtype, ...] = ()
    live_bytes: int = 0
    peak_bytes: int = 0
    #: Bytes of page-locked memory.
    pinned_bytes: int = 0
    allocations: int = 0
    #: Every call of a card that is lost fails, as those after an error of CUDA do.
    lost: bool = False
    #: Makes an allocation fail, by its number from 1 and its bytes.
    fail_at: Callable[[int, int], bool] = lambda number, size: False
    #: The share of the memory that the program may take.
    fraction: float = 1.0
    calls: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return torch.device(self.name)

    @property
    def allowed_bytes(self) -> int:
        return min(self.total_bytes - self.runtime_bytes, int(self.total_bytes * self.fraction))

    def require(self) -> None:
        """Raise `RuntimeError` where the card is lost."""
        if self.lost:
            raise RuntimeError(f"{self.device.type.upper()} error: device lost")

    def allocate(self, size: int) -> None:
        """Count an allocation. Raises `torch.OutOfMemoryError` beyond what is allowed."""
        self.allocations += 1
        if self.live_bytes + size > self.allowed_bytes or self.fail_at(self.allocations, size):
            raise torch.OutOfMemoryError(
                f"{self.device.type.upper()} out of memory. Tried to allocate {size / 2**20:.2f} MiB. "
                f"{self.live_bytes / 2**20:.2f} MiB of {self.allowed_bytes / 2**20:.2f} MiB are in use."
            )
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def reset_peak(self) -> None:
        self.peak_bytes = self.live_bytes


class Block:
    """The memory of one storage, freed with its last tensor."""

    __slots__ = ("__weakref__", "card", "machine", "pinned", "reads", "recorded", "size", "stream", "write")

    def __init__(self, machine: Machine, card: PaperCard | None, size: int, *, pinned: bool = False) -> None:
        """Allocate `size` bytes on a card, or on the host without one."""
        self.machine, self.card, self.pinned = machine, None, False  # nothing to free where this fails
        self.size = -(-size // ALLOCATION_BYTES) * ALLOCATION_BYTES if card else size
        self.stream = machine.current(card).number if card else HOST
        self.write: tuple[int, int, str] | None = None  # stream, number, operation
        self.reads: dict[int, tuple[int, str]] = {}
        self.recorded: set[int] = set()
        if card is not None:
            card.allocate(self.size)
            self.card = card
        elif pinned:
            self.pinned = True
            # CUDA's host allocator rounds up to a power of two.
            self.size = 1 << (size - 1).bit_length() if size else 0
            machine.card.pinned_bytes += self.size

    def __del__(self) -> None:
        if self.card is not None:
            self.card.live_bytes -= self.size
            self.machine.check_freed(self)
        elif self.pinned:
            self.machine.card.pinned_bytes -= self.size


class PaperTensor(torch.Tensor):
    """A tensor on a card, or on the host in page-locked memory or without data; `raw` has its numbers or shape."""

    raw: Tensor
    block: Block

    @staticmethod
    def __new__(cls, raw: Tensor, device: torch.device, block: Block) -> PaperTensor:
        assert not isinstance(raw, PaperTensor)
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            layout=raw.layout, device=device,
        )  # fmt: skip
        made.raw, made.block = raw, block
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called on a paper tensor outside of `installed`")

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return torch._C.TensorBase.data.__get__(self)

    @data.setter
    def data(self, value: PaperTensor) -> None:
        torch._C.TensorBase.data.__set__(self, value)
        self.raw, self.block = value.raw, value.block

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __repr__(self) -> str:
        return f"PaperTensor({tuple(self.shape)}, {self.dtype}, {self.device})"

    # torch's own indexing, `~`, `copy_`, `contiguous` and `new_tensor` ask the driver for a device guard.
    def new_tensor(self, data: Any) -> Tensor:
        return torch.tensor(data, dtype=self.dtype, device=self.device)

    def copy_(self, source: Tensor, non_blocking: bool = False) -> Tensor:
        return aten.copy_.default(self, source, non_blocking)

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        whole = self.is_contiguous(memory_format=memory_format)
        return self if whole else aten.clone.default(self, memory_format=memory_format)

    def __invert__(self) -> Tensor:
        return torch.bitwise_not(self)

    def __getitem__(self, index: Any) -> Tensor:
        return indexed(self, index)[0]

    def __setitem__(self, index: Any, value: Any) -> None:
        view, indices = indexed(self, index, indexing=False)
        if not isinstance(value, Tensor):
            value = torch.tensor(value, dtype=self.dtype, device=self.device)
        if indices:
            view.index_put_(indices, value.to(self.dtype))
        else:
            view.copy_(value)


def indexed(tensor: Tensor, index: Any, *, indexing: bool = True) -> tuple[Tensor, list[Tensor | None]]:
    """Return `tensor[index]`; without `indexing`, the view before index tensors apply, and these."""
    parts = list(index) if isinstance(index, tuple) else [index]
    consumed = sum(1 for part in parts if part is not None and part is not Ellipsis)
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
    dim, indices = 0, list[Tensor | None]()
    for part in parts:
        if part is None:
            tensor = tensor.unsqueeze(dim)
            dim += 1
        elif part is Ellipsis:
            skipped = tensor.dim() - dim - (consumed - sum(1 for p in parts[: parts.index(Ellipsis)] if p is not None))
            dim += skipped
        elif isinstance(part, slice):
            start, stop, step = part.indices(tensor.shape[dim])
            tensor = aten.slice.Tensor(tensor, dim, start, max(start, stop), step)
            dim += 1
        elif isinstance(part, int) and not isinstance(part, bool):
            tensor = aten.select.int(tensor, dim, part)
        else:
            found = part if isinstance(part, Tensor) else torch.tensor(part)
            indices += [None] * (dim - len(indices)) + [found]
            dim += 1
    if indices and indexing:
        return aten.index.Tensor(tensor, indices), indices
    return tensor, indices


class PaperStream:
    """A stream of a card: `torch.cuda.Stream`."""

    def __init__(self, machine: Machine, card: PaperCard, number: int) -> None:
        self.machine, self.card, self.number = machine, card, number
        self.device, self.stream_id, self.cuda_stream = card.device, number, number

    def wait_stream(self, other: PaperStream) -> None:
        self.wait_event(other.record_event())

    def wait_event(self, event: PaperEvent) -> None:
        self.machine.clocks.stream_wait_for_event(self.number, event.number)

    def record_event(self, event: PaperEvent | None = None) -> PaperEvent:
        event = event or PaperEvent(self.machine)
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.machine.host_waits_for(self.number)

    def query(self) -> bool:
        return False


class PaperEvent:
    """An event: `torch.cuda.Event`."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.number = machine, next(machine.numbers)
        machine.clocks.create_event(self.number)

    def record(self, stream: PaperStream | None = None) -> None:
        stream = stream or self.machine.current(self.machine.card)
        # An event is recorded by the host, which has done all before it in the program.
        self.machine.launch(stream.number)
        self.machine.clocks.record_state(self.number, stream.number)

    def wait(self, stream: PaperStream | None = None) -> None:
        (stream or self.machine.current(self.machine.card)).wait_event(self)

    def synchronize(self) -> None:
        self.machine.clocks.stream_wait_for_event(HOST, self.number)

    def query(self) -> bool:
        return False


class Machine(TorchDispatchMode):
    """The cards that are installed, and the dispatcher of every operation."""

    def __init__(self, cards: Sequence[PaperCard]) -> None:
        super().__init__()
        self.cards = {card.device: card for card in cards}
        self.card = cards[0]
        self.clocks = StreamSynchronizations()
        self.clocks.create_stream(HOST)
        self.numbers = itertools.count(1)
        self.default = {card.device: self.new_stream(card) for card in cards}
        self.streams = dict(self.default)
        self.blocks: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()
        self.races: list[str] = []
        self.operations = 0

    # Streams and clocks

    def new_stream(self, card: PaperCard) -> PaperStream:
        stream = PaperStream(self, card, next(self.numbers))
        self.clocks.create_stream(stream.number)
        return stream

    def current(self, card: PaperCard | None) -> PaperStream:
        return self.streams[(card or self.card).device]

    def launch(self, stream: int) -> None:
        """Order what `stream` does from now on after all that the host has done."""
        self.clocks._state_wait_for_other(
            self.clocks.current_sync_states[stream], self.clocks.current_sync_states[HOST]
        )

    def host_waits_for(self, stream: int) -> None:
        self.clocks._state_wait_for_other(
            self.clocks.current_sync_states[HOST], self.clocks.current_sync_states[stream]
        )

    def host_waits_for_all(self) -> None:
        for stream in list(self.clocks.current_sync_states):
            self.host_waits_for(stream)

    def access(self, stream: int, reads: set[Block], writes: set[Block], operation: str) -> None:
        """Record the accesses of one kernel. Raises `RaceError` where one is not ordered after an earlier one."""
        self.operations += 1
        number = self.operations
        self.clocks.update_seq_num(stream, number)
        for block in reads | writes:
            before = [block.write] if block.write else []
            if block in writes:
                before += [(other, place, name) for other, (place, name) in block.reads.items()]
            for other, place, name in before:
                if not self.clocks.is_ordered_after(stream, place, other):
                    raise self._race(f"{operation} on stream {stream} does not wait for {name} on stream {other}")
            if block in writes:
                block.write, block.reads = (stream, number, operation), {}
            else:
                block.reads[stream] = (number, operation)

    def _race(self, sentence: str) -> RaceError:
        self.races.append(sentence)
        return RaceError(sentence)

    def check_freed(self, block: Block) -> None:
        """Record a race where memory is freed that another stream than its own may still use."""
        uses = [(stream, number, name) for stream, (number, name) in block.reads.items()]
        uses += [block.write] if block.write else []
        for stream, number, name in uses:
            if stream in (block.stream, HOST, *block.recorded):
                continue
            if not self.clocks.is_ordered_after(block.stream, number, stream):
                self.races.append(f"memory of {block.size} bytes is freed while {name} on stream {stream} may use it")

    # Dispatch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.races:
            raise RaceError(self.races[-1])
        kwargs = dict(kwargs or {})
        if func not in WHOLE and func._can_decompose():  # inference mode hands over what other modes have taken apart
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        if func is aten.record_stream.default:
            args[0].block.recorded.add(args[1].number)
            return None
        if func is aten.is_pinned.default:
            return isinstance(args[0], PaperTensor) and args[0].block.pinned
        if func in (aten.pin_memory.default, aten._pin_memory.default):
            return self._pinned(args[0])
        flat, layout = tree_flatten((args, kwargs))
        papers = [one for one in flat if isinstance(one, PaperTensor)]
        asked = kwargs.get("device")
        target = None if asked is None else torch.device(asked)
        if target is not None and target.type not in ("cpu", "meta") and target not in self.cards:
            raise RuntimeError(f"{target.type.upper()} error: invalid device ordinal ({target})")
        if not papers and target not in self.cards:
            return func(*args, **kwargs)
        return self._compute(func, flat, layout, papers, target)

    def _compute(self, func: Any, flat: list[Any], layout: Any, papers: list[PaperTensor], target: Any) -> Any:
        tensors = [one for one in flat if isinstance(one, Tensor)]
        inputs = self._device_of_operands(func, tensors)
        # `copy_` writes where its first operand is, and what is made anew is made where it was asked for.
        device = target or (tensors[0].device if func is aten.copy_.default else inputs)
        for found in {device, inputs} & self.cards.keys():
            self.cards[found].require()
        self._refuse(func, device, flat, tensors)
        written = [flat[i] for i in self._written_places(func, flat, layout)]
        if func is aten._local_scalar_dense.default:
            return self._number(papers[0])
        crosses = bool(tensors) and func in VIEWS_OF_HOST and tensors[-1].device != device
        if crosses and device.type == "cpu" and tensors[-1].device in self.cards and not tensors[-1].is_contiguous():
            Block(self, self.cards[tensors[-1].device], tensors[-1].nbytes)  # a contiguous copy, for the moment
        out = self._raw(func, flat, layout, device)
        made = tree_map(lambda one: self._wrapped(one, device, func) if isinstance(one, Tensor) else one, out)
        if written and func._schema.returns and not isinstance(out, tuple | list):
            made = written[0] if func._schema.returns[0].alias_info is not None else made
        if func is aten.convolution.default and device in self.cards:
            Block(self, self.cards[device], tensors[0].nbytes + made.nbytes)
        self._account(func, device, tensors, written, made, crosses=crosses, flat=flat, layout=layout)
        return made

    def _device_of_operands(self, func: Any, tensors: list[Tensor]) -> torch.device:
        """Return the one device of the operands. Raises `RuntimeError` for two, as CUDA does."""
        if func in VIEWS_OF_HOST:
            return tensors[-1].device
        cards = {one.device for one in tensors if one.device in self.cards}
        rest = [one for one in tensors if one.device not in self.cards]
        if not cards:
            return torch.device("cpu")
        pointwise = torch.Tag.pointwise in func.tags or func in TAKES_CPU_NUMBER
        if func in TAKES_CPU_INDICES and tensors[0].device in self.cards:
            rest = [one for one in rest if one.is_floating_point() and one.dim()]
        elif pointwise and (not tensors or tensors[0].device in self.cards or tensors[0].dim() == 0):
            rest = [one for one in rest if one.dim()]
        if len(cards) > 1 or (rest and not is_factory(func)):
            found = ", ".join(sorted({str(one.device) for one in tensors}))
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {found} in {func}")
        return cards.pop()

    def _refuse(self, func: Any, device: torch.device, flat: list[Any], tensors: list[Tensor]) -> None:
        """Raise `TypeError` for numbers that the card lacks."""
        card = self.cards.get(device)
        if card is None:
            return
        lacking = (*REFUSED_DTYPES[card.backend], *card.refused)
        dtypes = {one for one in flat if isinstance(one, torch.dtype)}
        if func not in VIEWS_OF_HOST:
            dtypes |= {one.dtype for one in tensors if one.device == device}
        for dtype in dtypes:
            if dtype in lacking:
                raise TypeError(f"Cannot hold {dtype} on {device}: {card.backend} does not support it ({func})")
        if func is aten._to_copy.default and not dtypes and tensors[0].dtype in lacking:
            raise TypeError(f"Cannot convert a tensor of {tensors[0].dtype} to {device}")

    @staticmethod
    def _written_places(func: Any, flat: list[Any], layout: Any) -> list[int]:
        """Return the places in `flat` of the tensors that an operation writes into."""
        args, kwargs = tree_unflatten([(place, one) for place, one in enumerate(flat)], layout)
        found = []
        for number, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[number] if number < len(args) else kwargs.get(argument.name)
            pairs = value if isinstance(value, list) else [value]
            found += [place for place, one in filter(None, pairs) if isinstance(one, Tensor)]
        return found

    def _raw(self, func: Any, flat: list[Any], layout: Any, device: torch.device) -> Any:
        """Compute with the raw tensors: on the CPU, or shapes alone."""
        place = "cpu" if self.card.data else "meta"

        def raw(one: Any) -> Any:
            if isinstance(one, PaperTensor):
                return one.raw
            if isinstance(one, Tensor) and not self.card.data:
                return torch.empty_like(one, device="meta")
            return torch.device(place) if isinstance(one, torch.device) else one

        args, kwargs = tree_unflatten([raw(one) for one in flat], layout)
        if not self.card.data and device.type == "cpu":
            if func is aten.copy_.default and not isinstance(flat[0], PaperTensor):
                return flat[0].zero_()
            if func is aten._to_copy.default and not isinstance(flat[0], PaperTensor):
                return flat[0]
        kwargs.pop("pin_memory", None)
        if "non_blocking" in kwargs:
            kwargs["non_blocking"] = False
        return func(*args, **kwargs)

    def _wrapped(self, raw: Tensor, device: torch.device, func: Any = None) -> Tensor:
        """Return the result of an operation as a tensor on `device`."""
        card = self.cards.get(device)
        if card is None:
            return self._on_host(raw, func)
        storage = raw.untyped_storage()
        block = self.blocks.get(storage._cdata)
        if block is None or block.card is not card:
            block = Block(self, card, storage.nbytes())
            self.blocks[storage._cdata] = block
        return PaperTensor(raw, device, block)

    def _on_host(self, raw: Tensor, func: Any) -> Tensor:
        """Return a result on the host: with its numbers, unless it is a view of page-locked memory or has none."""
        storage = raw.untyped_storage()
        block = self.blocks.get(storage._cdata)
        if block is None and self.card.data:
            return raw
        if block is None and func in VIEWS_OF_HOST:  # from the card, for the host to read
            return torch.zeros(raw.shape, dtype=raw.dtype)
        if block is None:
            block = self.blocks[storage._cdata] = Block(self, None, storage.nbytes())
        return PaperTensor(raw, torch.device("cpu"), block)

    def _account(
        self, func: Any, device: torch.device, tensors: list[Tensor], written: list[Tensor], made: Any,
        *, crosses: bool, flat: list[Any], layout: Any,
    ) -> None:  # fmt: skip
        """Record what an operation reads and writes, and when the host waits for it."""
        if is_view(func) or is_factory(func):
            return
        outputs = [one for one in tree_flatten(made)[0] if isinstance(one, PaperTensor)]
        writes = {one.block for one in (*outputs, *written) if isinstance(one, PaperTensor)}
        reads = {one.block for one in tensors if isinstance(one, PaperTensor)} - writes
        on_card = device if device in self.cards else next((o.device for o in tensors if o.device in self.cards), None)
        if on_card is None:
            self.access(HOST, reads, writes, str(func))
            return
        stream = self.streams[on_card]
        self.launch(stream.number)
        self.access(stream.number, reads, writes, str(func))
        args, kwargs = tree_unflatten(flat, layout)
        if crosses:
            asynchronous = kwargs.get("non_blocking", False) or (func is aten.copy_.default and args[2:] == (True,))
            host = made if device.type == "cpu" else tensors[-1]
            pinned = isinstance(host, PaperTensor) and host.block.pinned
            if not (asynchronous and pinned):
                stream.synchronize()

    def _number(self, paper: PaperTensor) -> Any:
        """Return the one number of a tensor, for which the host waits."""
        if paper.device in self.cards:
            stream = self.streams[paper.device]
            self.launch(stream.number)
            self.access(stream.number, {paper.block}, set(), "item")
            stream.synchronize()
        else:
            self.access(HOST, {paper.block}, set(), "item")
        return paper.raw.item() if self.card.data else torch.zeros((), dtype=paper.dtype).item()

    def launched(self, operation: str, operands: Sequence[Tensor], raws: Sequence[Tensor]) -> list[Tensor]:
        """Return the results `raws` of one kernel on the card of its operands, as tensors there."""
        device = operands[0].device
        made = [self._wrapped(one, device) for one in raws]
        stream = self.streams[device].number
        self.launch(stream)
        self.access(stream, {one.block for one in operands}, {one.block for one in made}, operation)
        return made

    def hollow(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor on the host without data."""
        with without_modes():
            raw = torch.empty(shape, dtype=dtype, device="meta")
            return self._on_host(raw, None)

    def _pinned(self, tensor: Tensor) -> Tensor:
        if self.card.backend not in PINS:
            raise RuntimeError(f"Cannot access accelerator device when none is available ({self.card.backend})")
        if tensor.device.type != "cpu":
            raise RuntimeError(f"cannot pin '{tensor.dtype}' of {tensor.device}: only dense CPU tensors can be pinned")
        raw = tensor.raw if isinstance(tensor, PaperTensor) else tensor
        raw = torch.empty_like(raw, device="meta") if not self.card.data else raw.clone()
        block = Block(self, None, raw.untyped_storage().nbytes(), pinned=True)
        self.blocks[raw.untyped_storage()._cdata] = block
        return PaperTensor(raw, torch.device("cpu"), block)


def is_factory(func: Any) -> bool:
    """Tell whether an operation makes a tensor from nothing but a shape."""
    name = func._schema.name.removeprefix("aten::")
    return name.startswith(
        ("empty", "zeros", "ones", "full", "rand", "arange", "new_", "scalar_tensor")
    ) or name.endswith("_like")


def is_view(func: Any) -> bool:
    """Tell whether an operation returns a view and computes nothing."""
    returns = func._schema.returns
    return any(one.alias_info is not None and not one.alias_info.is_write for one in returns) and not any(
        one.alias_info is not None and one.alias_info.is_write for one in func._schema.arguments
    )


def fused_attention(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None, **options: Any
) -> Tensor:
    """Attend in one kernel, which allocates its output and, as flash attention does, a number for each query."""
    machine = current_machine()
    operands = [one for one in (queries, keys, values, bias) if one is not None]
    device = machine._device_of_operands(aten.mm.default, operands)
    with without_modes():
        mask = None if bias is None else bias.raw
        out = F.scaled_dot_product_attention(queries.raw, keys.raw, values.raw, attn_mask=mask, **options)
    [made] = machine.launched("attention", operands, [out])
    Block(machine, machine.cards[device], 4 * queries.numel() // queries.shape[-1])
    return made


@contextmanager
def without_modes() -> Iterator[None]:
    with torch.utils._python_dispatch._disable_current_modes(), torch._C.DisableTorchFunction():
        yield


class AttentionMode(TorchFunctionMode):
    """Calls `fused_attention` for tensors on a card: a CPU build of torch would take it apart."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention and args[0].device in current_machine().cards:
            bias = kwargs.pop("attn_mask", None)
            return fused_attention(*args, bias, **kwargs)
        return func(*args, **kwargs)


_installed: list[Machine] = []


def current_machine() -> Machine:
    return _installed[-1]


def module_functions(machine: Machine) -> dict[str, Any]:
    """Return what `torch.cuda`, `torch.xpu` and `torch.mps` have, answered by the cards of `machine`."""

    def card_of(device: Any = None) -> PaperCard:
        return machine.card if device is None else machine.cards[torch.device(device)]

    @contextmanager
    def stream_context(stream: PaperStream | None) -> Iterator[None]:
        if stream is None:
            yield
            return
        before = machine.streams[stream.device]
        machine.streams[stream.device] = stream
        try:
            yield
        finally:
            machine.streams[stream.device] = before

    def limit(fraction: float, device: Any = None) -> None:
        if not 0 <= fraction <= 1:
            raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
        card_of(device).fraction = fraction

    def set_device(device: Any) -> None:
        machine.card = card_of(device)

    def synchronize(device: Any = None) -> None:
        machine.card.require()
        machine.card.calls.append("synchronize")
        machine.host_waits_for_all()

    def empty_cache() -> None:
        machine.card.require()
        machine.card.calls.append("empty_cache")

    def new_stream(device: Any = None, priority: int = 0) -> PaperStream:
        return machine.new_stream(card_of(device))

    return {
        "Event": lambda *args, **kwargs: PaperEvent(machine),
        "Stream": new_stream,
        "stream": stream_context,
        "current_stream": lambda device=None: machine.current(card_of(device)),
        "default_stream": lambda device=None: machine.default[card_of(device).device],
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: len(machine.cards),
        "current_device": lambda: machine.card.device.index,
        "set_device": set_device,
        "synchronize": synchronize,
        "empty_cache": empty_cache,
        "mem_get_info": lambda device=None: (
            card_of(device).total_bytes - card_of(device).runtime_bytes - card_of(device).live_bytes,
            card_of(device).total_bytes,
        ),
        "memory_allocated": lambda device=None: card_of(device).live_bytes,
        "memory_reserved": lambda device=None: card_of(device).live_bytes,
        "max_memory_allocated": lambda device=None: card_of(device).peak_bytes,
        "max_memory_reserved": lambda device=None: card_of(device).peak_bytes,
        "driver_allocated_memory": lambda: machine.card.live_bytes,
        "current_allocated_memory": lambda: machine.card.live_bytes,
        "recommended_max_memory": lambda: machine.card.total_bytes,
        "set_per_process_memory_fraction": limit,
        "get_arch_list": lambda: ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "compute_90"],
        "get_device_capability": lambda device=None: card_of(device).capability,
        "get_device_name": lambda device=None: "Paper card",
        "get_device_properties": lambda device=None: mock.Mock(total_memory=card_of(device).total_bytes),
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
    }


@contextmanager
def installed(*cards: PaperCard) -> Iterator[Machine]:
    """Put cards of one kind into this process."""
    machine = Machine(cards)
    kind = cards[0].device.type
    module = getattr(torch, kind)
    with ExitStack() as stack:
        for name, function in module_functions(machine).items():
            if name in LACKING[cards[0].backend] and hasattr(module, name):
                stack.enter_context(mock.patch.object(module, name, side_effect=RuntimeError(f"{kind} has no {name}")))
            elif hasattr(module, name):
                stack.enter_context(mock.patch.object(module, name, function))
        stack.enter_context(
            mock.patch.object(torch.Tensor, "pin_memory", lambda self, device=None: machine._pinned(self))
        )
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # `module.to` must not empty our class
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifted)
        stack.enter_context(AttentionMode())
        stack.enter_context(machine)
        _installed.append(machine)
        try:
            yield machine
        finally:
            _installed.remove(machine)
    if machine.races:
        raise RaceError(machine.races[0])
