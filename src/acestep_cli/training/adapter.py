"""A new adapter on the decoder of a diffusion transformer, made by peft; and its tensors as other programs name them.

The base stays frozen in its own dtype. The adapter is float32: in bfloat16 most of what a step changes would be rounded
away. Formats: docs/specification.md, 11.3 Names of tensors and 12.8 Exports.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial

import acestep_cli.engine.load_libraries  # noqa: F401  # isort: skip - loads torch where the current folder is gone
import torch
from peft import (
    LoKrConfig,
    LoraConfig,
    PeftConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from acestep_cli.engine.denoise import stage_generator
from acestep_cli.engine.dit import DiT
from acestep_cli.engine.int8 import Int8Linear
from acestep_cli.errors import UsageError
from acestep_cli.models.weight_shards import DIFFUSERS_WORDS
from acestep_cli.training.config import TrainingConfig

#: The prefix of every name in a file of peft's.
PEFT = "base_model.model."


def peft_config(config: TrainingConfig, base: str) -> PeftConfig:
    """Return the configuration as peft's; `base` is the checkpoint that the adapter is made for."""
    # The pattern matches layers only, so that no other part of a decoder can ever be adapted.
    targets = rf"layers\.\d+\.(?:self_attn|cross_attn|mlp)\.(?:{'|'.join(config.modules)})"
    shared = {"base_model_name_or_path": base, "target_modules": targets, "r": config.rank}
    if config.type == "lokr":
        return LoKrConfig(**shared, alpha=config.alpha, rank_dropout=config.dropout)
    lora = LoraConfig(
        **shared, lora_alpha=config.alpha, lora_dropout=config.dropout, use_dora=config.type == "dora", bias="none"
    )
    lora._register_custom_module({Int8Linear: LoraLinear})
    return lora


class TrainableAdapter:
    """The adapter on a decoder, while it is trained."""

    def __init__(self, decoder: DiT, config: TrainingConfig, base: str) -> None:
        """Inject the adapter, which changes no output yet. Its first weights follow from the configuration's seed."""
        self.decoder = decoder
        self.config = config
        self.peft_config = peft_config(config, base)
        decoder.requires_grad_(False)
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Unsupported layer type")  # Int8Linear, which is registered above
            torch.manual_seed(stage_generator(config.seed, "adapter").initial_seed())
            inject_adapter_in_model(self.peft_config, decoder)
        for parameter in self.parameters:
            parameter.data = parameter.data.float()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained, always in the same order."""
        return [parameter for parameter in self.decoder.parameters() if parameter.requires_grad]

    def tensors(self) -> dict[str, Tensor]:
        """Return its weights by peft's names, on the CPU."""
        found = get_peft_model_state_dict(self.decoder, save_embedding_layers=False)  # else it asks the hub
        return {PEFT + name: weight.detach().cpu().contiguous().clone() for name, weight in found.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the weights of `tensors`. Raises `UsageError` unless they are exactly those of this adapter: peft itself
        ignores a tensor whose name it does not know.
        """
        device = self.parameters[0].device
        if set(tensors) != set(self.tensors()):
            raise UsageError("The weights that were saved are of another adapter.", "Train into another --output.")
        plain = {name.removeprefix(PEFT): weight.to(device) for name, weight in tensors.items()}
        set_peft_model_state_dict(self.decoder, plain)

    def json(self) -> str:
        """Return the text of `adapter_config.json`."""
        plain = {name: sorted(value) if isinstance(value, set) else value
                 for name, value in self.peft_config.to_dict().items()}  # fmt: skip
        return json.dumps(plain | {"inference_mode": True}, indent=2, sort_keys=True) + "\n"


def enable_gradient_checkpointing(decoder: DiT) -> None:
    """Keep only the input of each layer for the backward pass, and compute the rest again: less memory, more time."""
    for layer in decoder.layers:
        setattr(layer, "forward", partial(checkpoint, layer.forward, use_reentrant=False))  # noqa: B010 - mypy


def to_comfyui(tensors: Mapping[str, Tensor], config: TrainingConfig) -> dict[str, Tensor]:
    """Name the tensors of an adapter as ComfyUI does, each matrix with its alpha; those of LoKr as LyCORIS does."""
    if config.type == "lokr":
        return to_lycoris(tensors, config)
    found = {}
    for name, weight in tensors.items():
        module, leaf = re.split(r"\.(?=lora_)", f"diffusion_model.decoder.{name.removeprefix(PEFT)}")
        if leaf == "lora_magnitude_vector":
            found[f"{module}.dora_scale"] = weight[:, None]  # a column, which it divides by the norms of the rows
        else:
            found[f"{module}.{leaf}"] = weight
            found[f"{module}.alpha"] = torch.tensor(config.alpha)
    return found


def to_lycoris(tensors: Mapping[str, Tensor], config: TrainingConfig) -> dict[str, Tensor]:
    """Name the tensors of a LoKr adapter as LyCORIS does.

    LyCORIS ignores alpha where both factors are whole matrices, so the strength is multiplied into the first, and alpha
    is set to the rank: a strength of 1.
    """
    found = {}
    for name, weight in tensors.items():
        module, _, leaf = name.removeprefix(PEFT).rpartition(".")
        stem = f"lycoris_{module.replace('.', '_')}"
        found[f"{stem}.{leaf}"] = weight * (config.alpha / config.rank) if leaf in ("lokr_w1", "lokr_w1_a") else weight
        found[f"{stem}.alpha"] = torch.tensor(float(config.rank))
    return found


def to_diffusers(tensors: Mapping[str, Tensor], config: TrainingConfig) -> dict[str, Tensor]:
    """Name the tensors of a LoRA as diffusers does. It ignores alpha, so the strength is multiplied into lora_B."""
    words = {ours: theirs for theirs, ours in DIFFUSERS_WORDS.items()}
    pattern = re.compile(rf"(?<=\.)({'|'.join(map(re.escape, words))})(?=\.)")
    strength = config.alpha / config.rank
    return {
        "transformer." + pattern.sub(lambda match: words[match[1]], name.removeprefix(PEFT)): (
            weight * strength if ".lora_B." in name else weight
        )
        for name, weight in tensors.items()
    }


EXPORTS: Mapping[str, Callable[[Mapping[str, Tensor], TrainingConfig], dict[str, Tensor]]] = {
    "comfyui": to_comfyui,
    "diffusers": to_diffusers,
}
