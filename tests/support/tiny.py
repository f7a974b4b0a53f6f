"""Tiny random checkpoints in the published layout, and diffusers' classes holding the same weights.

The weights are drawn in diffusers' modules and written under the published names, so that the name table
below, and not our own modules, decides what a checkpoint contains.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AceStepPipeline, AceStepTransformer1DModel, AutoencoderOobleck, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ace_step import AceStepAudioTokenDetokenizer, AceStepAudioTokenizer, AceStepConditionEncoder
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

LATENT_CHANNELS = 8
END_OF_TEXT = "<|endoftext|>"

VAE = {
    "_class_name": "AutoencoderOobleck",
    "encoder_hidden_size": 2 * LATENT_CHANNELS,
    "downsampling_ratios": [2, 4, 4, 6, 10],
    "channel_multiples": [1, 2, 4, 8, 16],
    "decoder_channels": 4,
    "decoder_input_channels": LATENT_CHANNELS,
    "audio_channels": 2,
    "sampling_rate": 48_000,
}
TEXT_WIDTH = 32
TWO_B = {
    "architectures": ["AceStepConditionGenerationModel"],
    "model_type": "acestep",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "use_sliding_window": True,
    "sliding_window": 8,
    "in_channels": 3 * LATENT_CHANNELS,
    "audio_acoustic_hidden_dim": LATENT_CHANNELS,
    "patch_size": 2,
    "text_hidden_dim": TEXT_WIDTH,
    "timbre_hidden_dim": LATENT_CHANNELS,
    "timbre_fix_frame": 30,
    "num_lyric_encoder_hidden_layers": 3,
    "num_timbre_encoder_hidden_layers": 2,
    "num_attention_pooler_hidden_layers": 2,
    "num_audio_decoder_hidden_layers": 4,
    "pool_window_size": 5,
    "fsq_dim": 64,
    "fsq_input_levels": [8, 8, 8, 5, 5, 5],
    "fsq_input_num_quantizers": 1,
    "rope_theta": 1_000_000,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "is_turbo": True,
    "model_version": "turbo",
    "dtype": "float32",
}
XL = {
    **TWO_B,
    "hidden_size": 80,
    "intermediate_size": 112,
    "num_attention_heads": 8,
    "encoder_hidden_size": 64,
    "encoder_intermediate_size": 96,
    "encoder_num_attention_heads": 4,
    "encoder_num_key_value_heads": 2,
}
BASE = {**TWO_B, "is_turbo": False, "model_version": "base"}

ATTENTION_NAMES = {
    ".to_q.": ".q_proj.",
    ".to_k.": ".k_proj.",
    ".to_v.": ".v_proj.",
    ".to_out.0.": ".o_proj.",
    ".norm_q.": ".q_norm.",
    ".norm_k.": ".k_norm.",
    "proj_in_conv.": "proj_in.1.",
    "proj_out_conv.": "proj_out.1.",
}


@dataclass
class Oracle:
    """A checkpoint folder set and diffusers' modules with its weights, in float32."""

    root: Path
    config: dict[str, Any]
    decoder: AceStepTransformer1DModel
    encoder: AceStepConditionEncoder
    tokenizer: AceStepAudioTokenizer
    detokenizer: AceStepAudioTokenDetokenizer
    vae: AutoencoderOobleck
    silence: Tensor  # [1, C, F]


def published_name(name: str) -> str:
    for theirs, published in ATTENTION_NAMES.items():
        name = name.replace(theirs, published)
    return name


def scramble(module: nn.Module, generator: torch.Generator) -> None:
    """Random weights of a size that keeps activations near one, norms and tables away from their defaults."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() >= 2 and not name.endswith(("table", "token", "tokens", "alpha", "beta", "weight_g")):
                fan_in = weight[0].numel() if weight.dim() > 1 else 1
                weight.copy_(noise * fan_in**-0.5)
            elif name.endswith(("norm.weight", "norm_q.weight", "norm_k.weight", "weight_g")) or "norm" in name:
                weight.copy_(1 + 0.1 * noise)
            else:
                weight.copy_(0.1 * noise)
            if name.endswith("weight_g") and "res_unit" in name:
                weight.mul_(0.3)  # fifteen residual units in a row would else amplify even rounding errors


def build_dit(folder: Path, config: dict[str, Any], seed: int = 0, shards: int = 1, dtype=torch.float32) -> dict:
    """Write one DiT folder; returns diffusers' four modules and the silence latent."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    shared = {k: config[k] for k in ("head_dim", "rope_theta", "rms_norm_eps", "attention_bias", "sliding_window")}
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    main = {k: config[k] for k in sizes}
    narrow = {k: config.get(f"encoder_{k}", config[k]) for k in sizes}
    decoder = AceStepTransformer1DModel(
        **main,
        **shared,
        num_hidden_layers=config["num_hidden_layers"],
        in_channels=config["in_channels"],
        audio_acoustic_hidden_dim=config["audio_acoustic_hidden_dim"],
        patch_size=config["patch_size"],
        layer_types=config["layer_types"],
        encoder_hidden_size=config.get("encoder_hidden_size"),
        is_turbo=config["is_turbo"],
        model_version=config["model_version"],
    )
    encoder = AceStepConditionEncoder(
        **narrow,
        **shared,
        text_hidden_dim=config["text_hidden_dim"],
        timbre_hidden_dim=config["timbre_hidden_dim"],
        num_lyric_encoder_hidden_layers=config["num_lyric_encoder_hidden_layers"],
        num_timbre_encoder_hidden_layers=config["num_timbre_encoder_hidden_layers"],
    )
    pooled = {
        **narrow,
        **shared,
        "audio_acoustic_hidden_dim": config["audio_acoustic_hidden_dim"],
        "pool_window_size": config["pool_window_size"],
        "num_attention_pooler_hidden_layers": config["num_attention_pooler_hidden_layers"],
    }
    tokenizer = AceStepAudioTokenizer(
        **pooled, fsq_dim=config["fsq_dim"], fsq_input_levels=config["fsq_input_levels"], fsq_input_num_quantizers=1
    )
    detokenizer = AceStepAudioTokenDetokenizer(**pooled)
    modules = {"decoder": decoder, "encoder": encoder, "tokenizer": tokenizer, "detokenizer": detokenizer}
    tensors = {}
    for prefix, module in modules.items():
        module.eval()
        scramble(module, generator)
        for name, tensor in module.state_dict().items():
            if name == "silence_latent":
                continue
            root = "" if name == "null_condition_emb" else f"{prefix}."
            tensors[root + published_name(name)] = tensor.contiguous().to(dtype)
    silence = torch.randn(1, LATENT_CHANNELS, 400, generator=generator)
    torch.save(silence, folder / "silence_latent.pt")
    (folder / "config.json").write_text(json.dumps(config))
    save_sharded(folder, tensors, shards)
    return {**modules, "silence": silence}


def save_sharded(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    where = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
    for file in sorted(set(where.values())):
        save_file({n: tensors[n] for n in names if where[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def build_vae(folder: Path, seed: int = 0, config: dict[str, Any] = VAE) -> AutoencoderOobleck:
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # diffusers still spells weight norm the old way
        vae = AutoencoderOobleck(**{k: v for k, v in config.items() if not k.startswith("_")}).eval()
    scramble(vae, torch.Generator().manual_seed(seed))
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: v.contiguous() for k, v in vae.state_dict().items()}, folder / "diffusion_pytorch_model.safetensors")
    return vae


def build_text_encoder(folder: Path, width: int = TEXT_WIDTH) -> None:
    """A byte-level tokenizer that appends the end-of-text token, and a random Qwen3 of two layers."""
    folder.mkdir(parents=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[END_OF_TEXT], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(["# Instruction\n# Caption\n# Metas\n- bpm: 120"], trainer)
    end = bpe.token_to_id(END_OF_TEXT)
    bpe.post_processor = processors.TemplateProcessing(single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, end)])
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=bpe.get_vocab_size(),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    model = Qwen3Model(config)
    config.save_pretrained(folder)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")


def build(root: Path, config: dict[str, Any] = TWO_B, name: str = "acestep-v15-turbo", **options: Any) -> Oracle:
    """A whole models folder: one DiT, the VAE and the text encoder."""
    parts = build_dit(root / name, config, **options)
    vae = build_vae(root / "vae")
    build_text_encoder(root / "Qwen3-Embedding-0.6B")
    return Oracle(root=root, config=config, vae=vae, **parts)


def pipeline(oracle: Oracle) -> AceStepPipeline:
    """diffusers' pipeline of the whole checkpoint."""
    text = oracle.root / "Qwen3-Embedding-0.6B"
    oracle.encoder.silence_latent = oracle.silence.mT.contiguous()
    made = AceStepPipeline(
        vae=oracle.vae,
        text_encoder=Qwen3Model.from_pretrained(text).eval(),
        tokenizer=AutoTokenizer.from_pretrained(text),
        transformer=oracle.decoder,
        condition_encoder=oracle.encoder,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        audio_tokenizer=oracle.tokenizer,
        audio_token_detokenizer=oracle.detokenizer,
    )
    made.set_progress_bar_config(disable=True)
    return made


#: Levels of the tiny checkpoints, so that a tiny Songwriter goes with them.
SONGWRITER_CODES = 64_000


def build_songwriter(folder: Path, seed: int = 0, codes: int = SONGWRITER_CODES, **config: Any) -> Qwen3ForCausalLM:
    """A byte-level tokenizer with the marks of thoughts and of audio codes, and a random Qwen3 of two layers.

    The weights are written as they are published: without transformers' `model.` and without the head, which is the
    embedding table.
    """
    folder.mkdir(parents=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[END_OF_TEXT, "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(["# Instruction\n# Caption\n# Lyric\nbpm: 120\nkeyscale: G major\nlanguage: en\n"], trainer)
    bpe.add_tokens(["<think>", "</think>"])
    content = json.loads(bpe.to_str())
    first = bpe.get_vocab_size()
    mark = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"] += [
        {"id": first + code, "content": f"<|audio_code_{code}|>", **mark} for code in range(codes + 5)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    torch.manual_seed(seed)
    made = Qwen3Config(
        **{
            "vocab_size": first + codes + 5,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "tie_word_embeddings": True,
            **config,
        }
    )
    model = Qwen3ForCausalLM(made).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(std=0.1)  # so that some tokens are likelier than others
    made.save_pretrained(folder)
    tensors = {name.removeprefix("model."): weight.contiguous() for name, weight in model.model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    return model
