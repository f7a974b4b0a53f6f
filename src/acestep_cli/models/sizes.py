"""The sizes of all networks of a render, of a checkpoint on disk or as published."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from acestep_cli.errors import CheckpointError
from acestep_cli.models import checkpoint_table, checkpoints, weight_files
from acestep_cli.models.adapters import Adapter
from acestep_cli.models.checkpoint_files import Checkpoint, Songwriter, Unpulled, UnpulledSongwriter
from acestep_cli.models.configs import DiTConfig, QwenConfig, VAEConfig

#: Source: docs/specification.md, 2.3 Published sizes.
PUBLISHED_2B = DiTConfig(
    hidden_size=2048,
    intermediate_size=6144,
    num_hidden_layers=24,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    layer_types=("sliding_attention", "full_attention") * 12,
    in_channels=192,
    audio_acoustic_hidden_dim=64,
    text_hidden_dim=1024,
    timbre_hidden_dim=64,
    fsq_dim=2048,
    fsq_input_levels=(8, 8, 8, 5, 5, 5),
    num_lyric_encoder_hidden_layers=8,
    num_timbre_encoder_hidden_layers=4,
    num_attention_pooler_hidden_layers=2,
    encoder_hidden_size=2048,
    encoder_intermediate_size=6144,
    encoder_num_attention_heads=16,
    encoder_num_key_value_heads=8,
)


PUBLISHED_XL = DiTConfig(
    **{
        **{name: getattr(PUBLISHED_2B, name) for name in PUBLISHED_2B.__dataclass_fields__},
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "layer_types": ("sliding_attention", "full_attention") * 16,
    }
)


PUBLISHED_TEXT = QwenConfig(1024, 3072, 28, 16, 8, 151_669)


#: Text tokens, audio codes and a few marks.
SONGWRITER_VOCABULARY = 217_204


#: Source: docs/specification.md, 2.5 Qwen3 configs.
PUBLISHED_SONGWRITERS = {
    "0.6B": QwenConfig(1024, 3072, 28, 16, 8, SONGWRITER_VOCABULARY),
    "1.7B": QwenConfig(2048, 6144, 28, 16, 8, SONGWRITER_VOCABULARY),
    "4B": QwenConfig(2560, 9728, 36, 32, 8, SONGWRITER_VOCABULARY),
}


#: Names of the networks that a render may use.
NETWORKS = frozenset({"text", "songwriter", "dit", "adapters", "vae"})


@dataclass(frozen=True)
class Sizes:
    """The configs of a checkpoint's networks, of a Songwriter and of adapters; `used` are those of this render."""

    dit: DiTConfig
    vae: VAEConfig
    text: QwenConfig
    songwriter: QwenConfig | None = None
    #: Number of weights of all adapters.
    adapter_parameters: int = 0
    used: frozenset[str] = NETWORKS

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, songwriter: Songwriter | None = None, adapters: Iterable[Adapter] = ()
    ) -> Sizes:
        """Read the sizes of a checkpoint, a Songwriter and adapters. Raises `CheckpointError` for an invalid config."""
        helper = None
        if isinstance(songwriter, UnpulledSongwriter):
            helper = PUBLISHED_SONGWRITERS[songwriter.name]
        elif songwriter is not None:
            helper = qwen_of(songwriter.folder)
        extra = sum(adapter.parameters for adapter in adapters)
        if isinstance(checkpoint, Unpulled):
            return replace(cls.published(checkpoint.name), songwriter=helper, adapter_parameters=extra)
        return cls(
            DiTConfig.from_dict(checkpoint.config, str(checkpoint.config_file)),
            VAEConfig.from_dict(checkpoint.vae_config, str(checkpoint.vae / "config.json")),
            qwen_of(checkpoint.text),
            helper,
            extra,
        )

    @classmethod
    def known(cls, name: str, models_dir: Path | None) -> Sizes:
        """Return the sizes of a checkpoint of the table, from its configs where it is installed, else as published."""
        try:
            return cls.of(checkpoints.find_checkpoint(name, None if name == checkpoint_table.BUILT_IN else models_dir))
        except CheckpointError:
            return cls.published(name)

    @classmethod
    def published(cls, name: str, songwriter: str | None = None) -> Sizes:
        """Return the sizes of a checkpoint as published, installed or not."""
        dit = PUBLISHED_XL if checkpoint_table.CHECKPOINTS[name].is_xl else PUBLISHED_2B
        helper = PUBLISHED_SONGWRITERS[songwriter] if songwriter else None
        return cls(dit, VAEConfig(), PUBLISHED_TEXT, helper)


def qwen_of(folder: Path) -> QwenConfig:
    """Read the config of an installed language model."""
    file = folder / "config.json"
    return QwenConfig.from_dict(weight_files.read_json(file), str(file))
