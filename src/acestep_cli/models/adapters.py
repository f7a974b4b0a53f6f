"""Adapters: the content of a file of LoRA, DoRA or LoKr weights, read from its headers, and its fit to a model.

Names of tensors and what they mean: docs/specification.md, 11 Adapters.
The weights themselves are `engine.adapters`' affair.

Shapes: out and in of the matrix that is adapted, r the rank.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import SchemaError, SchemaValidator, core_schema

from acestep_cli import disk
from acestep_cli.errors import AdapterError, CheckpointError, reason_of
from acestep_cli.models import checkpoints, weight_files
from acestep_cli.models.configs import DiTConfig
from acestep_cli.models.weight_files import StoredTensor

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: Places of an adapter within the folders that trainers write.
INSIDE = ("", "adapter", "final", "final/adapter")
#: Prefixes of tensor names, with the program or format that writes them.
FORMATS = {
    "base_model.model.": "PEFT",
    "diffusion_model.": "ComfyUI",
    "transformer.": "diffusers",
    "lora_unet_": "kohya",
    "lora_transformer_": "kohya",
    "lycoris_": "LyCORIS",
}
#: Prefixes in front of the name of a matrix within the decoder.
BEFORE = re.compile(r"^(?:base_model\.model\.|diffusion_model\.|transformer\.|model\.|decoder\.)+")
#: The same where dots are written as underscores.
BEFORE_FLAT = re.compile(r"^(?:lycoris|lora_unet|lora_transformer)_(?:(?:diffusion_model|decoder)_)*")
FLAT = (
    (re.compile(r"^layers_(\d+)_(self_attn|cross_attn|mlp)_"), r"layers.\1.\2."),
    (re.compile(r"^(time_embed(?:_r)?)_(?=linear|time_proj)"), r"\1."),
    (re.compile(r"to_out_0$"), "to_out.0"),
)
#: Roles of tensors by the ends of their names, which in PEFT may contain the name of the adapter.
ROLES = {
    "down": r"(?:lora_A(?:\.\w+)?|lora_down|lora\.down)\.weight",
    "up": r"(?:lora_B(?:\.\w+)?|lora_up|lora\.up)\.weight",
    "magnitude": r"(?:lora_magnitude_vector(?:\.\w+)?|dora_scale)",
    "alpha": r"alpha",
    **{part: rf"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")},
}
ROLE = re.compile(r"^(.+?)\.(?:" + "|".join(f"(?P<{role}>{end})" for role, end in ROLES.items()) + ")$")

#: Kinds that are not supported, by a part of their tensors' names.
OTHER_KINDS = {"hada_": "LoHa", "oft_": "OFT", "boft_": "BOFT", "ia3_": "IA3", "lokr_t2": "LoKr with a Tucker core"}
READ_BYTES = 1 << 20
#: Metadata entries of a header, or of JSON within one, in which writers name the base model and the trigger word.
BASE_NOTES = ("base", "base_model", "base_model_name_or_path", "ss_base_model_version", "modelspec.architecture")
TRIGGER_NOTES = ("trigger_word", "trigger", "custom_tag", "modelspec.trigger_phrase")
SETTINGS_NOTES = ("acestep", "lora_adapter_metadata", "lokr_config")
#: Integer type and exponent bits by dtype; all of these bits are set where a number is not finite.
EXPONENTS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
SCALARS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i"}
NAMES_SHOWN = 3
#: Of alpha_pattern: names in all and letters of each, and how many of them may be more than a name. Each such one is
#: compiled, which takes up to some milliseconds.
MOST_PATTERNS, PATTERN_LETTERS, MOST_EXPRESSIONS = 1024, 256, 64
PLAIN_PATTERN = re.compile(r"[\w.]+")
LOOK_AROUND = ("(?=", "(?!", "(?<=", "(?<!")
#: The rank of a LoKr at most, as PEFT's config has it.
MOST_RANK = 65_536


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
        return [self.file, *([self.file.with_name(PEFT_CONFIG)] if _has_config(self.file) else [])]

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
                f"{self.path} fits no matrix of {model}: its tensors are for {_first_names(fit.unknown)}.",
                "`acestep lora inspect` says what it holds; it may be for another kind of model altogether.",
            )
        if fit.whole:
            return []
        rest = [*fit.unknown, *self.unknown_tensors]
        return [f"{self.path}: {math.floor(100 * fit.share)} % of its tensors fit {model}, the rest is left out: "
                f"{_first_names(rest)}."]  # fmt: skip

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


def read_adapter(path: Path) -> Adapter:
    """Read the headers of the adapter at `path`, a folder or a file. Raises `AdapterError` where it cannot be read."""
    file = _file(path)
    stored, notes, config = _read_headers(path, file)
    groups, unknown = _group_by_matrix(stored)
    _require_known_kind(path, unknown, config)
    settings = PeftSettings.of(config, path)
    pieces = {target: _piece(path, file, target, tensors, stored, settings) for target, tensors in groups.items()}
    if not pieces:
        raise AdapterError(
            f"{path} is not an adapter of a kind that can be read (LoRA, DoRA, LoKr): it holds "
            f"{_first_names(unknown)}.",
            "A checkpoint is named with --model.",
        )
    is_bare = any(piece.alpha is None and piece.rank is not None for piece in pieces.values())
    bare = f"{path} has no alpha, neither as tensors nor in {PEFT_CONFIG}: it is taken to be the rank."
    return Adapter(
        path=path,
        file=file,
        format=next((name for start, name in FORMATS.items() if next(iter(stored)).startswith(start)), "plain"),
        pieces=pieces,
        unknown_tensors=tuple(unknown),
        stored=stored,
        notes={**config, **notes},
        warnings=(bare,) if is_bare else (),
    )


def _read_headers(path: Path, file: Path) -> tuple[Mapping[str, StoredTensor], dict[str, Any], dict[str, Any]]:
    """Return the tensors and the metadata of a file of weights, and the settings in it and in PEFT's config beside it.

    Raises `AdapterError` where they cannot be read, or there are no tensors.
    """
    try:
        stored, notes = weight_files.read_contents(file)
        config = weight_files.read_json(file.with_name(PEFT_CONFIG)) if _has_config(file) else {}
    except CheckpointError as error:
        raise AdapterError(error.message, error.hint) from error
    if not stored:
        raise AdapterError(f"{path} holds no tensors: the file is empty.", "Export it again.")
    for name in SETTINGS_NOTES:
        config = {**_json_note(notes, name), **config}
    return stored, dict(notes), config


def _group_by_matrix(stored: Iterable[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return for each adapted matrix the names of its tensors by their roles, and the names that are of no kind."""
    groups: dict[str, dict[str, str]] = {}
    unknown = []
    for name in stored:
        found = ROLE.match(checkpoints.published_tensor_name(_dotted_name(name)))
        if found is None or found.lastgroup is None:
            unknown.append(name)
        else:
            groups.setdefault(BEFORE.sub("", found[1]), {})[found.lastgroup] = name
    return groups, unknown


def _file(path: Path) -> Path:
    """Return the file of weights that `path` names."""
    if checkpoints.is_folder(path):
        try:
            next(path.iterdir(), None)  # glob keeps to itself that it may not look
        except OSError as error:
            raise AdapterError(f"{path} cannot be read: {reason_of(error)}.") from error
        folders = [path / inside for inside in INSIDE]
        for folder in folders:
            if (folder / PEFT_WEIGHTS).is_file():
                return folder / PEFT_WEIGHTS
        files = sorted(file for folder in folders for file in folder.glob(f"*{weight_files.WEIGHTS_SUFFIX}"))
        if len(files) == 1:
            return files[0]
        if not files:
            pickles = any(folder.glob("adapter_model.bin") for folder in folders)
            why = "adapter_model.bin is a pickle, which can carry code and is not read" if pickles else "it has none"
            raise AdapterError(
                f"{path} holds no adapter: it should have {PEFT_WEIGHTS} or another .safetensors file; {why}.",
                "Save it again as safetensors." if pickles else "Name the folder or the file of an adapter.",
            )
        raise AdapterError(f"{path} holds {len(files)} .safetensors files.", f"Name one: {files[0]}.")
    try:
        there = path.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        if gone := disk.read_error(path, FileNotFoundError()):
            raise gone
        raise AdapterError(
            f"The adapter {path} does not exist{disk.suggest_path(path) or '.'}",
            "Name a folder that PEFT wrote, or a .safetensors file.",
        )
    if path.suffix != weight_files.WEIGHTS_SUFFIX:
        raise AdapterError(
            f"{path} is not an adapter, which is a folder or a {weight_files.WEIGHTS_SUFFIX} file.",
            "Pickles (.bin, .pt) can carry code and are not read; save it again as safetensors.",
        )
    return path


def _has_config(file: Path) -> bool:
    """Return True where PEFT's config lies beside a file of weights that PEFT wrote."""
    return file.name == PEFT_WEIGHTS and file.with_name(PEFT_CONFIG).is_file()


def _require_known_kind(path: Path, unknown: Iterable[str], config: Mapping[str, Any]) -> None:
    """Raise `AdapterError` for an adapter of a known kind that is not supported."""
    said = str(config.get("peft_type") or "LORA").upper()
    kind = next((kind for part, kind in OTHER_KINDS.items() if any(part in name for name in unknown)), None)
    if kind is None and said not in ("LORA", "LOKR"):
        kind = {"LOHA": "LoHa"}.get(said, ascii(said[:20]))
    if kind is not None:
        raise AdapterError(
            f"{path}: {kind} is not supported.", "LoRA, DoRA and LoKr are; train it again as one of them."
        )


def _json_note(notes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings in a JSON entry of the metadata, without the `transformer.` that diffusers puts first."""
    try:
        found = json.loads(notes.get(name, "{}"))
    except (RecursionError, TypeError, ValueError):
        return {}
    return {key.removeprefix("transformer."): value for key, value in found.items()} if isinstance(found, dict) else {}


def _dotted_name(name: str) -> str:
    """Return the name of a tensor with dots where kohya and LyCORIS write underscores."""
    flat, dot, role = name.partition(".")
    if not (found := BEFORE_FLAT.match(flat)) or not dot:
        return name
    flat = flat[found.end() :]
    for pattern, dotted in FLAT:
        flat = pattern.sub(dotted, flat)
    return f"{flat}.{role}"


@dataclass(frozen=True)
class PeftSettings:
    """The alphas and the rank in an `adapter_config.json`."""

    alpha: float | None = None
    #: The rank of a LoKr by PEFT, which divides alpha even where no factor is low-rank.
    lokr_rank: int | None = None
    alphas: Mapping[str, Any] = field(default_factory=dict)
    rooted: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], path: Path) -> PeftSettings:
        is_lokr = str(config.get("peft_type", "")).upper() == "LOKR"
        rank = config.get("r") if is_lokr else None
        if is_lokr and (isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= MOST_RANK):
            raise AdapterError(
                f"{path}: {PEFT_CONFIG} has {rank!r:.40} where a rank should be.", "Train it again with a rank."
            )
        patterns = config.get("alpha_pattern")
        if isinstance(patterns, dict):
            _require_few_patterns(patterns, path)
        alpha = config.get("lora_alpha", config.get("alpha"))
        return cls(
            None if alpha is None else _number(alpha, path),
            rank,
            patterns if isinstance(patterns, dict) else {},
            bool(config.get("use_rslora")),
        )

    def alpha_of(self, target: str, path: Path) -> float | None:
        """Return the alpha of one matrix, from PEFT's patterns of names, else the common one."""
        own = next((alpha for end, alpha in self.alphas.items() if _matches(end, target, path)), None)
        return self.alpha if own is None else _number(own, path)


def _require_few_patterns(patterns: Mapping[str, Any], path: Path) -> None:
    """`AdapterError` for patterns that would take long to compile and to compare with every name."""
    expressions = [pattern for pattern in patterns if not PLAIN_PATTERN.fullmatch(pattern)]
    longest = max(map(len, patterns), default=0)
    repeated = next((pattern for pattern in expressions if "{" in pattern), None)
    if len(patterns) > MOST_PATTERNS or len(expressions) > MOST_EXPRESSIONS or longest > PATTERN_LETTERS:
        raise AdapterError(
            f"{path}: alpha_pattern of {PEFT_CONFIG} has {len(patterns):,} patterns, {len(expressions):,} of them more "
            f"than a name, the longest of {longest:,} letters.",
            f"Write at most {MOST_PATTERNS:,} names and {MOST_EXPRESSIONS} others, of {PATTERN_LETTERS} letters each.",
        )
    if repeated is not None:
        raise AdapterError(
            f"{path}: {repeated!r:.60} in alpha_pattern of {PEFT_CONFIG} has a counted repetition, which can take "
            "seconds to compile.",
            "Write + or * instead.",
        )


def _matches(pattern: str, target: str, path: Path) -> bool:
    """Match `pattern` against a whole name or its end after a dot, as PEFT does. Raises `AdapterError` for a bad one.

    `re` would take years on some patterns; pydantic's regular expressions take linear time.
    """
    try:
        return bool(_expression(pattern)(target))
    except SchemaError as error:
        looks = any(mark in pattern for mark in LOOK_AROUND)
        why = "looks around, which is not" if looks else "is not a pattern that can be"
        raise AdapterError(
            f"{path}: {pattern!r:.60} in alpha_pattern of {PEFT_CONFIG} {why} matched here.",
            "Write names or ends of names, without look-around or references back.",
        ) from error


@lru_cache(maxsize=1024)
def _expression(pattern: str) -> Callable[[str], bool]:
    """Compile a test of names. Raises `SchemaError` for a pattern that cannot be compiled."""
    schema = core_schema.str_schema(pattern=rf"^(?:.*\.)?(?:{pattern})$", regex_engine="rust-regex")
    return SchemaValidator(schema).isinstance_python


def _number(alpha: Any, path: Path) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= sys.float_info.max:
        raise AdapterError(
            f"{path}: alpha is {alpha!r:.40} in {PEFT_CONFIG}, which is not a number.",
            "Write the number it was trained with.",
        )
    return float(alpha)


def _piece(
    path: Path,
    file: Path,
    target: str,
    tensors: Mapping[str, str],
    stored: Mapping[str, StoredTensor],
    settings: PeftSettings,
) -> AdapterPiece:
    """Return the piece for one matrix. Raises `AdapterError` where tensors are missing or their shapes disagree."""
    shapes = {role: stored[name].shape for role, name in tensors.items()}
    shape: tuple[int, int] | None
    rank: int | None
    if "down" in shapes or "up" in shapes:
        _need(path, target, shapes, "down", "up")
        shape, rank = _product(path, target, shapes["up"], shapes["down"])
    else:
        first, rank_1 = _factor(path, target, shapes, "w1")
        second, rank_2 = _factor(path, target, shapes, "w2")
        rank = rank_2 or rank_1
        shape = (first[0] * second[0], first[1] * second[1]) if first and second else None
    if len(shapes.get("magnitude", ())) > 2:
        shape = None  # of a convolution, whose low-rank parts are matrices too
    own = _scalar(path, file, tensors["alpha"], stored) if "alpha" in tensors else None
    alpha = own if own is not None else settings.alpha_of(target, path)
    if "magnitude" in shapes and shape is not None and shapes["magnitude"] not in ((shape[0],), (shape[0], 1)):
        raise AdapterError(
            f"{path}: the magnitudes of {target} are {list(shapes['magnitude'])}, and only those of rows, "
            f"[{shape[0]}, 1], can be applied.",
            "LyCORIS writes those of rows with wd_on_out.",
        )
    if settings.lokr_rank is not None and "down" not in shapes and own is None:
        scale = (settings.lokr_rank if alpha is None else alpha) / settings.lokr_rank
    elif rank is None or alpha is None:
        scale = 1.0
    else:
        scale = alpha / (math.sqrt(rank) if settings.rooted else rank)
    return AdapterPiece(target, tensors, shape, rank, alpha, scale)


def _need(path: Path, target: str, shapes: Mapping[str, Any], *roles: str) -> None:
    if lacking := [role for role in roles if role not in shapes]:
        names = {"down": "lora_A (lora_down)", "up": "lora_B (lora_up)"}
        raise AdapterError(
            f"{path} is broken: {target} lacks {names.get(lacking[0], f'lokr_{lacking[0]}')}.", "Export it again."
        )


def _product(
    path: Path, target: str, left: tuple[int, ...], right: tuple[int, ...]
) -> tuple[tuple[int, int] | None, int]:
    """Return the shape of a product [out, r] [r, in] (None for a convolution), and r."""
    rank = right[0] if right else 0
    if rank < 1:
        raise AdapterError(f"{path}: {target} has rank 0, so it does nothing.", "Train it again with a rank.")
    if len(left) != 2 or len(right) != 2:
        return None, rank
    if left[1] != rank:
        raise AdapterError(
            f"{path} is broken: the two tensors of {target}, {list(left)} and {list(right)}, do not go together.",
            "Export it again.",
        )
    return (left[0], right[1]), rank


def _factor(
    path: Path, target: str, shapes: Mapping[str, tuple[int, ...]], name: str
) -> tuple[tuple[int, int] | None, int | None]:
    """Return the shape of one factor of a Kronecker product, and its rank where it is a product itself."""
    if name in shapes:
        whole = shapes[name]
        return (whole if len(whole) == 2 else None), None
    if f"{name}_a" not in shapes and f"{name}_b" not in shapes:
        _need(path, target, shapes, name)
    _need(path, target, shapes, f"{name}_a", f"{name}_b")
    return _product(path, target, shapes[f"{name}_a"], shapes[f"{name}_b"])


def _scalar(path: Path, file: Path, name: str, stored: Mapping[str, StoredTensor]) -> float:
    """Return the number in a tensor of one element."""
    tensor = stored[name]
    with file.open("rb") as stream:
        stream.seek(tensor.start)
        data = stream.read(tensor.end - tensor.start)
    kind = tensor.dtype
    if kind == "BF16":  # the upper half of a float32
        kind, data = "F32", bytes(2) + data
    if math.prod(tensor.shape) != 1 or kind not in SCALARS:
        raise AdapterError(f"{path}: {name} is {list(tensor.shape)} in {tensor.dtype}, and no number.")
    value = float(struct.unpack(SCALARS[kind], data)[0])
    if not math.isfinite(value):
        raise AdapterError(f"{path}: {name} is {value}, which is not a number to multiply with.")
    return value


def _first_names(names: Sequence[str]) -> str:
    """Return the first few of the names, and the number of the others."""
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
