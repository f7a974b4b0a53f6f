"""The file of an adapter, as PEFT, diffusers, ComfyUI, kohya and LyCORIS write it, read from its headers.

Names of tensors and what they mean: docs/specification.md, 11 Adapters.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from acestep_cli import disk
from acestep_cli.errors import AdapterError, CheckpointError, reason_of
from acestep_cli.models import adapters, peft_settings, weight_files, weight_shards
from acestep_cli.models.adapters import Adapter, AdapterPiece
from acestep_cli.models.peft_settings import PEFT_CONFIG, PEFT_WEIGHTS, PeftSettings
from acestep_cli.models.weight_files import StoredTensor

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
SETTINGS_NOTES = ("acestep", "lora_adapter_metadata", "lokr_config")
SCALARS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i"}


def read_adapter(path: Path) -> Adapter:
    """Read the headers of the adapter at `path`, a folder or a file. Raises `AdapterError` where it cannot be read."""
    file = _file(path)
    stored, notes, config = _read_headers(path, file)
    groups, unknown = _group_by_matrix(stored, path)
    _require_known_kind(path, unknown, config)
    settings = PeftSettings.of(config, path)
    pieces = {target: _piece(path, file, target, tensors, stored, settings) for target, tensors in groups.items()}
    if not pieces:
        raise AdapterError(
            f"{path} is not an adapter of a kind that can be read (LoRA, DoRA, LoKr): it holds "
            f"{adapters.first_names(unknown)}.",
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
        config = weight_files.read_json(file.with_name(PEFT_CONFIG)) if peft_settings.has_peft_config(file) else {}
    except CheckpointError as error:
        raise AdapterError(error.message, error.hint) from error
    if not stored:
        raise AdapterError(f"{path} holds no tensors: the file is empty.", "Export it again.")
    for name in SETTINGS_NOTES:
        config = {**_json_note(notes, name), **config}
    return stored, dict(notes), config


def _group_by_matrix(stored: Iterable[str], path: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return for each adapted matrix the names of its tensors by their roles, and the names that are of no kind.

    Raises `AdapterError` where two tensors have one role, of which either could be meant.
    """
    groups: dict[str, dict[str, str]] = {}
    unknown = []
    for name in stored:
        found = ROLE.match(weight_shards.published_tensor_name(_dotted_name(name)))
        if found is None or found.lastgroup is None:
            unknown.append(name)
        else:
            tensors = groups.setdefault(BEFORE.sub("", found[1]), {})
            if (other := tensors.setdefault(found.lastgroup, name)) != name:
                raise AdapterError(
                    f"{path} holds one tensor twice, as {adapters.first_names([other, name])}.", "Export it again."
                )
    return groups, unknown


def _file(path: Path) -> Path:
    """Return the file of weights that `path` names."""
    if disk.is_folder(path):
        try:
            next(path.iterdir(), None)  # glob keeps to itself that it may not look
        except OSError as error:
            raise AdapterError(f"{path} cannot be read: {reason_of(error)}.") from error
        folders = [path / inside for inside in INSIDE]
        for folder in folders:
            if disk.is_file(folder / PEFT_WEIGHTS):
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
    except PermissionError as error:
        raise AdapterError(f"{path} cannot be read: {reason_of(error)}.") from error
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
