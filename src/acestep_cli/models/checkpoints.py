"""The table of checkpoints and Songwriters; finding them on disk, and checking their files.

Names, folders and sizes: docs/specification.md, 2 Checkpoints and files and 10.1 Alignment heads. Everything
here reads headers only and imports no torch; `engine.weights` loads the weights.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from acestep_cli import solvers
from acestep_cli.errors import CheckpointError, reason_of
from acestep_cli.models import weight_files
from acestep_cli.models.weight_files import StoredTensor

PUBLISHER = "ACE-Step"
PREFIX = "acestep-v15-"
MAIN_REPO = f"{PUBLISHER}/Ace-Step1.5"
PUBLISHED_TASKS = ("generate", "cover", "repaint")
BASE_TASKS = (*PUBLISHED_TASKS, "lego", "extract", "complete")
#: Heads of the DiT's cross-attention that follow the lyrics, as (layer, head). A config may name others.
ALIGNMENT_HEADS_2B = ((2, 6), (3, 10), (3, 11), (4, 3), (5, 8), (5, 9), (6, 8))
ALIGNMENT_HEADS_XL = ((3, 18), (3, 27), (4, 22), (5, 5), (5, 6), (5, 7), (6, 2), (6, 12), (6, 13), (7, 20), (7, 21))
#: A pull writes `refs/acestep/FOLDER` into the cache when the folder is whole: it names the commit to use.
OWN_REF = "acestep/"
#: What a pull takes of a published folder, and never its `*.py`.
FETCHED = ("*.json", "*.safetensors", "silence_latent.pt", "merges.txt", "chat_template.jinja")

#: In diffusers' layout this lies where a published folder has its config, and names the class of the whole.
PIPELINE_INDEX = "model_index.json"
PIPELINE_CLASS = "AceStepPipeline"
#: A repository or folder in diffusers' layout has the published name with this behind it.
DIFFUSERS_SUFFIX = "-diffusers"
#: Where diffusers keeps the parts of the DiT: the class in each folder, and how its published names begin.
DIFFUSERS_DIT = {
    "transformer": ("AceStepTransformer1DModel", "decoder."),
    "condition_encoder": ("AceStepConditionEncoder", "encoder."),
    "audio_tokenizer": ("AceStepAudioTokenizer", "tokenizer."),
    "audio_token_detokenizer": ("AceStepAudioTokenDetokenizer", "detokenizer."),
}
DIFFUSERS_VAE = {"vae": ("AutoencoderOobleck", "")}
#: diffusers' words within the names of tensors, and the published ones.
DIFFUSERS_WORDS = {
    "to_q": "q_proj",
    "to_k": "k_proj",
    "to_v": "v_proj",
    "to_out.0": "o_proj",
    "norm_q": "q_norm",
    "norm_k": "k_norm",
    "proj_in_conv": "proj_in.1",
    "proj_out_conv": "proj_out.1",
}
#: Tensors of diffusers' condition encoder that are published outside of all its parts; the second one as a file.
UNCONDITIONAL, SILENCE = "null_condition_emb", "silence_latent"
#: How the names of a Qwen3 model's tensors begin where it was saved with its head.
QWEN3_PREFIX = "model."
#: Keys that each of diffusers' parts has for itself, and a published config twice: for the decoder and the encoders.
TWO_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")


@dataclass(frozen=True)
class ModelPart:
    """A published folder, downloaded and checked as one; `needs` are its files besides the weights."""

    folder: str
    repo: str
    needs: tuple[str, ...]
    size_gb: float

    @property
    def inside(self) -> str:
        """Its path within its repository: a folder in the main one, empty in the others."""
        return f"{self.folder}/" if self.repo == MAIN_REPO else ""


@dataclass(frozen=True)
class CheckpointRow:
    """One diffusion checkpoint: where it is published, and its defaults for sampling."""

    folder: str
    repo: str | None
    turbo: bool
    shift: float
    tasks: tuple[str, ...] = PUBLISHED_TASKS
    vae_folder: str = "vae"
    text_folder: str = "Qwen3-Embedding-0.6B"
    shortest_seconds: float = 10.0
    size_gb: float = 4.8
    alignment_heads: tuple[tuple[int, int], ...] = ()
    #: The wavelet correction that it is published with, from `solvers.WAVELET_CORRECTIONS`.
    dcw: str = solvers.NO_CORRECTION

    @property
    def is_xl(self) -> bool:
        return self.folder.startswith(f"{PREFIX}xl-")

    @property
    def steps(self) -> int:
        return 8 if self.turbo else 50

    @property
    def most_steps(self) -> int:
        """Turbo checkpoints were distilled for short schedules; more steps only drift."""
        return 20 if self.turbo else 200

    @property
    def guidance(self) -> float:
        """Turbo checkpoints have guidance distilled into them."""
        return 1.0 if self.turbo else 7.0


def _published(name: str, *, turbo: bool, shift: float, **rest: Any) -> CheckpointRow:
    folder = PREFIX + name
    heads = ALIGNMENT_HEADS_XL if name.startswith("xl-") else ALIGNMENT_HEADS_2B
    repo = rest.pop("repo", f"{PUBLISHER}/{folder}")
    dcw = "double" if turbo else solvers.NO_CORRECTION
    return CheckpointRow(folder, repo, turbo, shift, **{"alignment_heads": heads, "dcw": dcw, **rest})


CHECKPOINTS: dict[str, CheckpointRow] = {
    "turbo": _published("turbo", repo=MAIN_REPO, turbo=True, shift=3.0),
    "turbo-shift1": _published("turbo-shift1", turbo=True, shift=1.0),
    "turbo-shift3": _published("turbo-shift3", turbo=True, shift=3.0),
    "turbo-continuous": _published("turbo-continuous", turbo=True, shift=3.0),
    "sft": _published("sft", turbo=False, shift=1.0),
    "base": _published("base", turbo=False, shift=1.0, tasks=BASE_TASKS),
    "xl-turbo": _published("xl-turbo", turbo=True, shift=3.0, size_gb=20),
    "xl-sft": _published("xl-sft", turbo=False, shift=1.0, size_gb=20),
    "xl-base": _published("xl-base", turbo=False, shift=1.0, tasks=BASE_TASKS, size_gb=20),
    "pocket": _published(
        "pocket",
        repo=None,
        turbo=True,
        shift=3.0,
        tasks=BASE_TASKS,
        text_folder="Qwen3-Embedding-pocket",
        shortest_seconds=3.0,
        size_gb=0.03,
        alignment_heads=(),
        dcw=solvers.NO_CORRECTION,
    ),
}
VAE = ModelPart("vae", MAIN_REPO, ("config.json",), 0.34)
TEXT = ModelPart("Qwen3-Embedding-0.6B", MAIN_REPO, ("config.json", "tokenizer.json"), 1.2)
SONGWRITERS: dict[str, ModelPart] = {
    name: ModelPart(f"acestep-5Hz-lm-{name}", repo, ("config.json", "tokenizer.json"), size_gb)
    for name, repo, size_gb in (
        ("0.6B", "ACE-Step/acestep-5Hz-lm-0.6B", 1.3),
        ("1.7B", MAIN_REPO, 3.7),
        ("4B", "ACE-Step/acestep-5Hz-lm-4B", 8.4),
    )
}
#: The codebook of the published Songwriters. Their tokenizers have more tokens for codes than it has codes. One made
#: for another codebook names it in its config, as `fsq_input_levels`.
PUBLISHED_LEVELS = (8, 8, 8, 5, 5, 5)
#: Bounds of a quantizer that is read, far above the published one.
MOST_LEVELS, LARGEST_LEVEL = 32, 65_536
AUTO_ORDER = ("turbo", "turbo-shift3", "xl-turbo", "sft", "base")
#: For tasks that only the base models were trained for.
AUTO_ORDER_BASE = ("base", "xl-base")
BUILT_IN = "pocket"
BUILT_IN_ROOT = Path(str(resources.files("acestep_cli.models") / "pocket"))
MODEL_CHOICES = ("auto", *CHECKPOINTS)
#: The built-in checkpoint comes with a Songwriter, which goes by the same name.
SONGWRITER_CHOICES = ("auto", "none", BUILT_IN, *SONGWRITERS)


@dataclass(frozen=True)
class Shard:
    """A file of weights. With a `prefix` its tensors have diffusers' names, and their published ones begin with it;
    the names of a Qwen3 model may begin with `model.`, which is left off.
    """

    file: Path
    prefix: str | None = None
    is_qwen3: bool = False

    def published(self, name: str) -> str:
        """Return the published name of the tensor that is called `name` in the file."""
        if self.is_qwen3:
            return name.removeprefix(QWEN3_PREFIX)
        if self.prefix is None or name in (UNCONDITIONAL, SILENCE):
            return name
        return self.prefix + published_tensor_name(name)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight by its published name. `CheckpointError` as `stored`."""
        return {name: tensor.shape for name, tensor in self.stored().items()}

    def stored(self) -> dict[str, StoredTensor]:
        """Each weight by its published name. `CheckpointError` as `weight_files.read_contents`, and where the file
        has a tensor in two spellings, of which either could be meant.
        """
        found: dict[str, StoredTensor] = {}
        for name, tensor in weight_files.read_contents(self.file)[0].items():
            if name == SILENCE:
                continue
            published = self.published(name)
            if published in found:
                raise CheckpointError(
                    f"{self.file} holds {published} twice, in two spellings.", "Download that folder again."
                )
            found[published] = tensor
        return found


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint found on this machine, its files checked as far as headers tell."""

    name: str
    row: CheckpointRow
    dit: Path
    vae: Path
    text: Path

    @property
    def config_file(self) -> Path:
        return self.dit / "config.json"

    @property
    def silence_file(self) -> Path:
        """The file of the silence latent: a pickled tensor [1, C, frames], or in diffusers' layout a shard."""
        return self.dit / "silence_latent.pt"

    @property
    def tokenizer(self) -> Path:
        return self.text / "tokenizer.json"

    @property
    def dit_shards(self) -> list[Shard]:
        return weight_shards(self.dit)

    @property
    def files(self) -> list[Path]:
        """All files that shape the samples. Raises `CheckpointError` where an index of shards names nothing."""
        small = {self.dit: [self.config_file, self.silence_file], self.vae: [self.vae / "config.json"],
                 self.text: [self.text / "config.json", self.tokenizer]}  # fmt: skip
        return [file for folder, needed in small.items() for file in (*needed, *weight_files.weight_files(folder))]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The sizes of the DiT under their published keys."""
        return weight_files.read_json(self.config_file)

    @cached_property
    def vae_config(self) -> dict[str, Any]:
        return weight_files.read_json(self.vae / "config.json")

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """The levels of the quantizer, which define the codebook; empty where the config does not say."""
        return _levels(self.config.get("fsq_input_levels") or (), self.config_file)

    @property
    def code_count(self) -> int | None:
        """The number of audio codes; None where the config does not say."""
        return math.prod(self.levels) if self.levels else None

    @property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        """Heads of the DiT's cross-attention that follow the lyrics, as (layer, head): those its config names, else
        those of its row. `CheckpointError` where the DiT has no such heads.
        """
        named = self.config.get("lyric_alignment_layers_config")
        if named is None:
            heads = self.row.alignment_heads
        else:
            try:
                heads = tuple((int(layer), int(head)) for layer, own in named.items() for head in own)
            except (AttributeError, OverflowError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"{self.config_file} names no heads in lyric_alignment_layers_config ({error}).",
                    "Download that file again.",
                ) from error
        sizes = [self.config.get(key) or 0 for key in ("num_hidden_layers", "num_attention_heads")]
        if any(type(size) is not int for size in sizes):
            raise CheckpointError(
                f"{self.config_file}: num_hidden_layers or num_attention_heads is not a whole number.",
                "Download that file again.",
            )
        for layer, head in heads:
            if not (0 <= layer < sizes[0] and 0 <= head < sizes[1]):
                raise CheckpointError(
                    f"{self.dit} has no alignment head {head} in layer {layer}: it has {sizes[0]} layers of {sizes[1]} "
                    "heads.",
                    f"Name those it has in {self.config_file}, as lyric_alignment_layers_config.",
                )
        return heads

    def weights_hash(self) -> str:
        """Hash all files that shape the samples.

        Reading 10 GB to name a model would take longer than some renders; training moves every tensor,
        so blocks across the file tell two checkpoints apart.
        """
        return weight_files.weights_hash(self.files)

    def vae_hash(self) -> str:
        """Hash the weights of the VAE, because latents belong to one VAE."""
        return weight_files.weights_hash(weight_files.weight_files(self.vae))


@dataclass(frozen=True)
class DiffusersCheckpoint(Checkpoint):
    """A checkpoint in diffusers' layout: the same tensors under other names. `dit` is the folder of the pipeline."""

    @property
    def config_file(self) -> Path:
        return self.dit / "transformer" / "config.json"

    @property
    def silence_file(self) -> Path:
        folder = self.dit / "condition_encoder"
        found = next(
            (file for file in weight_files.weight_files(folder) if SILENCE in weight_files.read_header(file)), None
        )
        if found is None:
            raise CheckpointError(
                f"{folder} lacks the tensor {SILENCE}, so the checkpoint is incomplete.", "Download that folder again."
            )
        return found

    @property
    def tokenizer(self) -> Path:
        return self.dit / "tokenizer" / "tokenizer.json"

    @property
    def dit_shards(self) -> list[Shard]:
        return [
            shard for folder, (_, prefix) in DIFFUSERS_DIT.items() for shard in weight_shards(self.dit / folder, prefix)
        ]

    @property
    def files(self) -> list[Path]:
        folders = [*(self.dit / name for name in DIFFUSERS_DIT), self.vae, self.text]
        return [
            *(file for folder in folders for file in (folder / "config.json", *weight_files.weight_files(folder))),
            self.tokenizer,
        ]

    @cached_property
    def config(self) -> dict[str, Any]:
        decoder, encoder, tokenizer = (
            weight_files.read_json(self.dit / folder / "config.json")
            for folder in ("transformer", "condition_encoder", "audio_tokenizer")
        )
        encoder_sizes = {f"encoder_{key}": encoder.get(key) for key in TWO_SIZES}
        return {**tokenizer, **encoder, **decoder, **encoder_sizes}


@dataclass(frozen=True)
class Unpulled(Checkpoint):
    """A checkpoint of the table whose `lacking` parts are not downloaded. Its folders are where they will be."""

    lacking: tuple[ModelPart, ...] = ()

    @cached_property
    def levels(self) -> tuple[int, ...]:
        return PUBLISHED_LEVELS

    @property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        return self.row.alignment_heads

    def weights_hash(self) -> str:
        """Return an empty string, because there are no weights to hash."""
        return ""

    def vae_hash(self) -> str:
        """Return an empty string, because there are no weights to hash."""
        return ""


@dataclass(frozen=True)
class Songwriter:
    """A Songwriter found on this machine, its files checked as far as headers tell."""

    name: str
    folder: Path

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """The quantizer levels of the codebook that its codes are from."""
        file = self.folder / "config.json"
        return _levels(weight_files.read_json(file).get("fsq_input_levels", PUBLISHED_LEVELS), file)

    @cached_property
    def weights(self) -> str:
        """The hash of all files that shape its output."""
        small = [self.folder / name for name in ("config.json", "tokenizer.json")]
        return weight_files.weights_hash([*small, *weight_files.weight_files(self.folder)])

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Return True where its codes are of the same codebook as those of `checkpoint`."""
        return self.levels == checkpoint.levels


class UnpulledSongwriter(Songwriter):
    """A Songwriter of the table that is not downloaded. Its folder is where it will be."""

    @cached_property
    def levels(self) -> tuple[int, ...]:
        return PUBLISHED_LEVELS

    @cached_property
    def weights(self) -> str:
        """An empty string, because there are no weights to hash."""
        return ""


def _levels(found: Any, file: Path) -> tuple[int, ...]:
    """Check the quantizer levels of a config. Raises `CheckpointError` unless they are a few integers from 2 on."""
    usable = isinstance(found, list | tuple) and len(found) <= MOST_LEVELS
    if not usable or any(type(level) is not int or not 2 <= level <= LARGEST_LEVEL for level in found):
        raise CheckpointError(
            f"{file}: fsq_input_levels is {found!r:.60}, which is not a list of levels.", "Download it again."
        )
    return tuple(found)


def built_in_songwriter() -> Songwriter:
    return Songwriter(BUILT_IN, BUILT_IN_ROOT / "acestep-5Hz-lm-pocket")


def published_tensor_name(name: str) -> str:
    """Return the published name of a tensor that has diffusers' name."""
    words = "|".join(map(re.escape, DIFFUSERS_WORDS))
    return re.sub(rf"(?<![^.])({words})(?=\.)", lambda found: DIFFUSERS_WORDS[found[1]], name)


def model_parts(name: str) -> tuple[ModelPart, ...]:
    """Return the published folders of a checkpoint, its own first, or of a Songwriter; none for the built-in model."""
    if name in SONGWRITERS:
        return (SONGWRITERS[name],)
    row = CHECKPOINTS[name]
    if row.repo is None:
        return ()
    return ModelPart(row.folder, row.repo, ("config.json", "silence_latent.pt"), row.size_gb), VAE, TEXT


def part_folder(part: ModelPart, models_dir: Path | None) -> Path | None:
    """Return the folder of a part; None where it is not on this machine."""
    return _folder_of(part.folder, part.repo, models_dir)


def check_part(part: ModelPart, folder: Path) -> None:
    """Raise `CheckpointError` unless all files of a part are in `folder` and, as far as headers tell, uncut."""
    for name in part.needs:
        weight_files.require_file(folder / name)
    for file in weight_files.weight_files(folder):
        weight_files.read_header(file)


def auto_order(task: str) -> tuple[str, ...]:
    """Return the checkpoints that `auto` looks for, in this order, for a task of their rows."""
    return AUTO_ORDER if task in CHECKPOINTS[AUTO_ORDER[0]].tasks else AUTO_ORDER_BASE


def find_checkpoint(model: str = "auto", models_dir: Path | None = None, task: str = PUBLISHED_TASKS[0]) -> Checkpoint:
    """Find a checkpoint by name or folder.

    `models_dir` is a folder in the published layout; without one the Hugging Face cache is looked through.
    `auto` takes the first installed of `auto_order(task)`, else the built-in one. Raises `CheckpointError` when it is
    not installed, or a file of it is missing, cut short or something else than it should be.
    """
    if models_dir is not None and not is_folder(models_dir):
        raise CheckpointError(
            f"The models folder {models_dir} does not exist.",
            "Name the folder that holds acestep-v15-turbo/, vae/ and Qwen3-Embedding-0.6B/ with --models-dir.",
        )
    require_readable(models_dir)
    if model == "auto":
        return find_checkpoint(installed_names(models_dir, task)[0], models_dir)
    if model == BUILT_IN:
        return _assemble_checkpoint(
            BUILT_IN, CHECKPOINTS[BUILT_IN], BUILT_IN_ROOT / CHECKPOINTS[BUILT_IN].folder, BUILT_IN_ROOT
        )
    row = CHECKPOINTS.get(model)
    if row is None:
        return _from_folder(Path(model), models_dir)
    dit = dit_folder(model, models_dir)
    if dit is None:
        where = f"the models folder {models_dir}" if models_dir else "the Hugging Face cache"
        raise CheckpointError(
            f"The checkpoint {model} is not installed: {where} has no {row.folder}/ (about {row.size_gb:g} GB, "
            f"published as {row.repo}).",
            f"`acestep models pull {model}` fetches it; --models-dir names another folder that holds it; --model "
            f"{BUILT_IN} sketches the song.",
        )
    return _assemble_checkpoint(model, row, dit, models_dir)


def require_readable(models_dir: Path | None) -> None:
    """Raise `CheckpointError` where the models folder cannot be listed, so that its models do not seem missing."""
    if models_dir is None or not is_folder(models_dir):
        return
    try:
        next(models_dir.iterdir(), None)
    except OSError as error:
        reason = reason_of(error)
        raise CheckpointError(f"The models folder {models_dir} cannot be read: {reason}.") from error


def installed_names(models_dir: Path | None, task: str = PUBLISHED_TASKS[0]) -> tuple[str, ...]:
    """Return the installed checkpoints of `auto_order(task)`, in that order, else the built-in one."""
    return tuple(name for name in auto_order(task) if dit_folder(name, models_dir)) or (BUILT_IN,)


def find_or_plan(name: str, models_dir: Path | None = None, task: str = PUBLISHED_TASKS[0]) -> Checkpoint:
    """Find a checkpoint as `find_checkpoint` does, but return `Unpulled` for one of the table that lacks files."""
    try:
        return find_checkpoint(name, models_dir, task)
    except CheckpointError:
        wanted = model_parts(name) if name in CHECKPOINTS else ()
        lacking = tuple(part for part in wanted if not _is_whole(part, models_dir))
        if not lacking:
            raise
        dit, vae, text = (
            cache_folder(part.repo) / part.inside if models_dir is None else models_dir / part.folder for part in wanted
        )
        return Unpulled(name, CHECKPOINTS[name], dit, vae, text, lacking)


def dit_folder(name: str, models_dir: Path | None) -> Path | None:
    """Return the folder of a checkpoint of the table, in the published layout or diffusers', or None."""
    row = CHECKPOINTS[name]
    theirs = f"{row.folder}{DIFFUSERS_SUFFIX}"
    return _folder_of(row.folder, row.repo, models_dir) or _folder_of(
        theirs, f"{PUBLISHER}/{theirs}", models_dir, PIPELINE_INDEX
    )


def _is_whole(part: ModelPart, models_dir: Path | None) -> bool:
    folder = part_folder(part, models_dir)
    try:
        if folder is not None:
            check_part(part, folder)
    except CheckpointError:
        return False
    return folder is not None


def is_folder(path: Path) -> bool:
    """Return True where `path` is a folder; False also for a name that no file can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _from_folder(dit: Path, models_dir: Path | None) -> Checkpoint:
    """Find the checkpoint of a DiT folder that a user names; VAE and text encoder are beside it or in `models_dir`."""
    if not is_folder(dit):
        raise CheckpointError(
            f"{dit} is neither a checkpoint's name nor a folder.",
            f"Names: {', '.join(MODEL_CHOICES)}; a folder holds config.json and model.safetensors, or diffusers' "
            f"{PIPELINE_INDEX}.",
        )
    for name, row in CHECKPOINTS.items():
        if dit.name.removesuffix(DIFFUSERS_SUFFIX) == row.folder:
            return _assemble_checkpoint(name, row, dit, models_dir or dit.parent)
    if is_diffusers(dit):
        _require_class(dit / PIPELINE_INDEX, PIPELINE_CLASS)
    config = weight_files.read_json((dit / "transformer" if is_diffusers(dit) else dit) / "config.json")
    version = str(config.get("model_version", ""))
    turbo = bool(config.get("is_turbo")) or "turbo" in version or "turbo" in dit.name
    tasks = BASE_TASKS if version == "base" else PUBLISHED_TASKS
    row = CheckpointRow(dit.name, None, turbo, shift=3.0 if turbo else 1.0, tasks=tasks)
    return _assemble_checkpoint(dit.name, row, dit, models_dir or dit.parent)


def _folder_of(folder: str, repo: str | None, models_dir: Path | None, marker: str = "config.json") -> Path | None:
    """Return the folder of a component that contains `marker`, from the models folder or the Hugging Face cache."""
    if models_dir is not None:
        return models_dir / folder if is_folder(models_dir / folder) else None
    if repo is None:
        return None
    storage = cache_folder(repo)
    for ref in (OWN_REF + folder, "main"):
        try:
            commit = (storage / "refs" / ref).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        found = storage / "snapshots" / commit / (folder if repo == MAIN_REPO else "")
        if (found / marker).is_file():
            return found
    return None


def cache_folder(repo: str) -> Path:
    """Return the folder of a repository in the Hugging Face cache. The constants alone import no web client."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


def is_diffusers(dit: Path) -> bool:
    """Return True where a folder is in diffusers' layout rather than the published one."""
    return (dit / PIPELINE_INDEX).is_file() and not (dit / "config.json").is_file()


def _assemble_checkpoint(name: str, row: CheckpointRow, dit: Path, models_dir: Path | None) -> Checkpoint:
    """Put the folders together, and check that each file is there and not cut short."""
    checkpoint = (
        _diffusers_layout(name, row, dit) if is_diffusers(dit) else _published_layout(name, row, dit, models_dir)
    )
    for file in checkpoint.files:
        weight_files.read_header(file) if file.suffix == weight_files.WEIGHTS_SUFFIX else weight_files.require_file(
            file
        )
    weight_files.require_file(checkpoint.silence_file)
    for key, beside, other_key in (
        ("audio_acoustic_hidden_dim", checkpoint.vae, "decoder_input_channels"),
        ("text_hidden_dim", checkpoint.text, "hidden_size"),
    ):
        ours, theirs = checkpoint.config.get(key), weight_files.read_json(beside / "config.json").get(other_key)
        if ours != theirs:
            raise CheckpointError(
                f"{beside} does not belong to {dit}: its {other_key} is {theirs}, and {key} there is {ours}.",
                "Put folders that were published together side by side.",
            )
    return checkpoint


def _published_layout(name: str, row: CheckpointRow, dit: Path, models_dir: Path | None) -> Checkpoint:
    """Return a checkpoint in the published layout, with VAE and text encoder beside the DiT or in the cache."""
    parts = {}
    for what, folder in (("VAE", row.vae_folder), ("text encoder", row.text_folder)):
        found = _folder_of(folder, MAIN_REPO, models_dir)
        if found is None:
            where = models_dir if models_dir else "the Hugging Face cache"
            raise CheckpointError(
                f"The {what} of {name} is missing: {where} has no {folder}/.",
                f"`acestep models pull {name if name in CHECKPOINTS else 'turbo'}` fetches it; or put {folder}/ of "
                f"{MAIN_REPO} beside {row.folder}/.",
            )
        parts[what] = found
    return Checkpoint(name, row, dit, parts["VAE"], parts["text encoder"])


def _diffusers_layout(name: str, row: CheckpointRow, root: Path) -> Checkpoint:
    """Return a checkpoint in diffusers' layout, with all parts in one folder, named by their roles."""
    _require_class(root / PIPELINE_INDEX, PIPELINE_CLASS)
    for folder, (kind, _) in (DIFFUSERS_DIT | DIFFUSERS_VAE).items():
        _require_class(root / folder / "config.json", kind)
    return DiffusersCheckpoint(name, row, root, root / "vae", root / "text_encoder")


def _require_class(file: Path, kind: str) -> None:
    """Raise `CheckpointError` unless the JSON `file` names `kind` as diffusers' class for its folder."""
    found = weight_files.read_json(file).get("_class_name")
    if found != kind:
        raise CheckpointError(
            f"{file} describes a folder of {found or 'no class'}, and this program reads {kind} there.",
            "Name the folder of an ACE-Step 1.5 checkpoint.",
        )


def qwen3_shards(folder: Path) -> list[Shard]:
    """Return the shards of a Songwriter or a text encoder, whose published names may have a prefix or not."""
    return [Shard(file, is_qwen3=True) for file in weight_files.weight_files(folder)]


def weight_shards(folder: Path, prefix: str | None = None) -> list[Shard]:
    """Return the shards of a component."""
    return [Shard(file, prefix) for file in weight_files.weight_files(folder)]
