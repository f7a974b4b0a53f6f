"""Files of weights, whose tensors have the published names or those of diffusers or of Qwen3."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from acestep_cli.errors import CheckpointError
from acestep_cli.models import weight_files
from acestep_cli.models.weight_files import StoredTensor

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


def published_tensor_name(name: str) -> str:
    """Return the published name of a tensor that has diffusers' name."""
    words = "|".join(map(re.escape, DIFFUSERS_WORDS))
    return re.sub(rf"(?<![^.])({words})(?=\.)", lambda found: DIFFUSERS_WORDS[found[1]], name)


def qwen3_shards(folder: Path) -> list[Shard]:
    """Return the shards of a Songwriter or a text encoder, whose published names may have a prefix or not."""
    return [Shard(file, is_qwen3=True) for file in weight_files.weight_files(folder)]


def weight_shards(folder: Path, prefix: str | None = None) -> list[Shard]:
    """Return the shards of a component."""
    return [Shard(file, prefix) for file in weight_files.weight_files(folder)]
