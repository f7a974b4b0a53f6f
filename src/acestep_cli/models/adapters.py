"""An adapter of LoRA, DoRA or LoKr weights, its fit to a model, and the result of applying it.

`adapter_file` reads it from the headers of its file; `engine.lora` applies its weights.

Shapes: out and in of the matrix that is adapted, r the rank.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from acestep_cli.errors import AdapterError, CheckpointError
from acestep_cli.models import peft_settings, weight_files
from acestep_cli.models.configs import DiTConfig
from acestep_cli.models.peft_settings import PEFT_CONFIG
from acestep_cli.models.weight_files import StoredTensor

READ_BYTES = 1 << 20
#: Metadata entries of a header, or of JSON within one, in which writers name the base model and the trigger word.
BASE_NOTES = ("base", "base_model", "base_model_name_or_path", "ss_base_model_version", "modelspec.architecture")
TRIGGER_NOTES = ("trigger_word", "trigger", "custom_tag", "modelspec.trigger_phrase")
#: Integer type and exponent bits by dtype; all of these bits are set where a number is not finite.
EXPONENTS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
NAMES_SHOWN = 3


@dataclass(frozen=True)
class AdapterPiece:
    """The part of an adapter for one matrix: the name of each tensor by its role, and the factor on their product."""

    target: str
    tensors: Mapping[str, str]
    #: [out, in]; None where it does not adapt a matrix, but a convolution, for instance.
    shape: tuple[int, int] | None
    #: None for a LoKr without a low-rank part.
    rank: int | None
    alpha: float | None
    scale: float

    @property
    def kind(self) -> str:
        family = "LoRA" if "down" in self.tensors else "LoKr"
        if "magnitude" not in self.tensors:
            return family
        return "DoRA" if family == "LoRA" else "LoKr with magnitudes"


@dataclass(frozen=True)
class AdapterFit:
    """The match between the pieces of an adapter and the matrices of a decoder; `share` is the part of its tensors."""

    matched: tuple[str, ...]
    unknown: tuple[str, ...]
    #: Matrices of another shape than the decoder's.
    misshapen: tuple[str, ...]
    share: float

    @property
    def whole(self) -> bool:
        return self.share == 1


@dataclass(frozen=True)
class Adapter:
    """An adapter found on this machine, its file checked as far as headers tell."""

    path: Path
    file: Path
    format: str
    pieces: Mapping[str, AdapterPiece]
    #: Names of tensors that are not part of any known kind of adapter.
    unknown_tensors: tuple[str, ...]
    stored: Mapping[str, StoredTensor]
    notes: Mapping[str, Any]
    warnings: tuple[str, ...]

    @property
    def kind(self) -> str:
        return " and ".join(dict.fromkeys(piece.kind for piece in self.pieces.values()))

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted({piece.rank for piece in self.pieces.values() if piece.rank is not None}))

    @property
    def alphas(self) -> tuple[float, ...]:
        return tuple(sorted({piece.alpha for piece in self.pieces.values() if piece.alpha is not None}))

    @property
    def factors(self) -> tuple[float, ...]:
        """Factors on its products, before any scale."""
        return tuple(sorted({piece.scale for piece in self.pieces.values()}))

    @property
    def targets(self) -> dict[str, int]:
        """The number of adapted matrices of each name, over all layers."""
        return dict(Counter(re.sub(r"^layers\.\d+\.", "", target) for target in self.pieces))

    @property
    def parameters(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self.stored.values())

    @property
    def base(self) -> str | None:
        return self._note(BASE_NOTES)

    @property
    def trigger_word(self) -> str | None:
        return self._note(TRIGGER_NOTES)

    def _note(self, names: Iterable[str]) -> str | None:
        found = (self.notes.get(name) for name in names)
        return next((str(note) for note in found if note), None)

    @property
    def files(self) -> list[Path]:
        """The file of its weights, and PEFT's config beside it where there is one."""
        return [self.file, *([self.file.with_name(PEFT_CONFIG)] if peft_settings.has_peft_config(self.file) else [])]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every byte of its tensors and of their factors.

        Metadata and the order within the file do not change it. Raises `AdapterError` where it cannot be read.
        """
        meant = {target: (dict(piece.tensors), piece.scale) for target, piece in self.pieces.items()}
        digest = hashlib.sha256(json.dumps(meant, sort_keys=True).encode())
        try:
            with self.file.open("rb") as file:
                for name, tensor in sorted(self.stored.items()):
                    digest.update(json.dumps([name, tensor.dtype, tensor.shape]).encode())
                    file.seek(tensor.start)
                    left = tensor.end - tensor.start
                    while left and (data := file.read(min(left, READ_BYTES))):
                        digest.update(data)
                        left -= len(data)
        except OSError as error:
            unreadable = weight_files.unreadable_error(self.file, error)
            raise AdapterError(unreadable.message, unreadable.hint) from error
        return digest.hexdigest()[:16]

    def fit(self, config: DiTConfig) -> AdapterFit:
        """Compare its pieces with the matrices of a decoder."""
        matrices = config.decoder_matrices
        unknown = [name for name, piece in self.pieces.items() if name not in matrices or piece.shape is None]
        known = [name for name in self.pieces if name not in unknown]
        misshapen = [name for name in known if self.pieces[name].shape != matrices[name]]
        matched = [name for name in known if name not in misshapen]
        tensors = sum(len(self.pieces[name].tensors) for name in matched)
        return AdapterFit(tuple(matched), tuple(unknown), tuple(misshapen), tensors / len(self.stored))

    def require_fit(self, config: DiTConfig, model: str) -> list[str]:
        """Return warnings where it fits `model` in part. Raises `AdapterError` where it does not fit."""
        fit, matrices = self.fit(config), config.decoder_matrices
        if fit.misshapen:
            name = fit.misshapen[0]
            ours, theirs = matrices[name], self.pieces[name].shape
            raise AdapterError(
                f"{self.path} was made for another model than {model}: it adapts {len(fit.misshapen)} of the matrices "
                f"in other sizes ({name} is {list(theirs or ())} there, and {list(ours)} in {model}).",
                "`acestep lora inspect` says which it fits; name that one with --model.",
            )
        if not fit.matched:
            raise AdapterError(
                f"{self.path} fits no matrix of {model}: its tensors are for {first_names(fit.unknown)}.",
                "`acestep lora inspect` says what it holds; it may be for another kind of model altogether.",
            )
        if fit.whole:
            return []
        rest = [*fit.unknown, *self.unknown_tensors]
        return [f"{self.path}: {math.floor(100 * fit.share)} % of its tensors fit {model}, the rest is left out: "
                f"{first_names(rest)}."]  # fmt: skip

    def require_unchanged(self) -> None:
        """Raise `AdapterError` where the headers of its file are gone, or others than were read."""
        try:
            stored, _ = weight_files.read_contents(self.file)
        except CheckpointError as error:
            raise AdapterError(error.message, error.hint) from error
        if stored != self.stored:
            raise AdapterError(f"{self.path} has changed since this run began.", "Start it again.")

    def require_finite(self) -> None:
        """Raise `AdapterError` where a weight is not finite. Needs no torch, so that this is checked early."""
        import numpy as np

        for name, tensor in self.stored.items():
            if tensor.dtype not in EXPONENTS or tensor.start == tensor.end:
                continue
            word, mask = EXPONENTS[tensor.dtype]
            count = math.prod(tensor.shape)
            bits = np.memmap(self.file, dtype=word, mode="r", offset=tensor.start, shape=(count,))
            if broken := int(np.count_nonzero((bits & bits.dtype.type(mask)) == mask)):
                raise AdapterError(
                    f"{self.path} is broken: {name} holds {broken:,} weights that are not finite numbers.",
                    "Its training diverged, or the file is damaged; take an earlier state of it.",
                )


class AppliedAdapter(NamedTuple):
    """The result of applying an adapter: the number of matrices it adapts, and how many of them it was merged into.

    The others keep it as a side branch.
    """

    name: str
    strength: float
    matrices: int
    merged: int

    @property
    def sentence(self) -> str:
        beside = self.matrices - self.merged
        how = "merged into the weights" if self.merged else "beside the weights"
        if self.merged and beside:
            how = f"{self.merged} {how}, {beside} beside them"
        matrices = "matrix" if self.matrices == 1 else "matrices"
        return f"{self.name} at {self.strength:g}: {self.matrices} {matrices}, {how}"


def first_names(names: Sequence[str]) -> str:
    """Return the first few of the names, and the number of the others."""
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
