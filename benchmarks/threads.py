"""Outputs of each part of a render, on one thread and on several: equal bit for bit, or not, and by which kernels.

The parts have the published widths and two layers of a network, as all layers are alike. Each part is run whole with
every number of threads. Then every operation in it is run on the same inputs with every number, and those whose outputs
differ are named.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from published import FRAMES_PER_SECOND, TWO_B, VAE, fill
from random_checkpoint import TEXT
from side_by_side import parser, publish
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from acestep_cli.audio.loudness import integrated_loudness, true_peak
from acestep_cli.audio.sound import Audio, resample
from acestep_cli.engine import packed_linear, songwriter
from acestep_cli.engine.dit import AceStep, Condition
from acestep_cli.engine.kv_cache import KVCache
from acestep_cli.engine.text_encoder import Qwen3Encoder
from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.models.configs import DiTConfig, QwenConfig, VAEConfig

THREADS = (1, 2, 4)
LAYERS, VOCABULARY, CONDITION_TOKENS, WORDS = 2, 4096, 300, 60
RATE = 48_000
NOTES = """\
Random weights of the published widths, {layers} layers of each network. Music of {music:g} s for the transformers,
{sound:g} s for the autoencoder. A difference is that of the part's whole output to the one of a single thread, in
decibels under the output. The kernels are those operations of the part that give other bits for the same inputs, with
the shapes of their weights where they are convolutions. Resampling and loudness are computed by soxr and SciPy, which
use one thread.
"""
Part = Callable[[], Tensor]


class KernelWatch(TorchDispatchMode):
    """Runs every operation with each number of threads, and notes those whose outputs differ."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            return func(*args, **(kwargs or {}))
        results = []
        for count in THREADS:
            torch.set_num_threads(count)
            results.append(func(*args, **(kwargs or {})))
        if not all(same(results[0], other) for other in results[1:]):
            self.found.add(kernel_name(func, args))
        return results[0]


def same(one: Any, other: Any) -> bool:
    """Tell whether two outputs of an operation hold the same bits, as far as they are tensors of numbers."""
    if isinstance(one, (tuple, list)):
        return all(same(a, b) for a, b in zip(one, other, strict=True))
    if not isinstance(one, Tensor) or one.is_mkldnn or not one.is_floating_point():
        return True
    return bool(torch.equal(one.nan_to_num(), other.nan_to_num()))


def kernel_name(func: Any, args: Any) -> str:
    """Return an operation, a convolution with the shape of its weight."""
    name = str(func).split(".")[1].strip("_")
    return f"{name} {'x'.join(map(str, args[1].shape))}" if name.startswith("conv") else name


def build(module: Callable[[], torch.nn.Module], dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        made = module().to(dtype)
    return fill(made)


def text_encoder(dtype: torch.dtype) -> Part:
    config = QwenConfig(**{**TEXT, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY})
    encoder = build(lambda: Qwen3Encoder(config), dtype)
    ids = torch.randint(VOCABULARY, (1, WORDS))
    return lambda: encoder(ids)


def ace_step(dtype: torch.dtype) -> AceStep:
    layers = {name: LAYERS for name in TWO_B if name.startswith("num_") and name.endswith("_layers")}
    return build(lambda: AceStep(DiTConfig.from_dict({**TWO_B, **layers})), dtype)


def condition_encoder(dtype: torch.dtype) -> Part:
    encoder = ace_step(dtype).encoder
    text, lyrics = (torch.randn(1, count, TWO_B["text_hidden_dim"]).to(dtype) for count in (WORDS, 3 * WORDS))
    timbre = torch.randn(1, TWO_B["timbre_fix_frame"], TWO_B["timbre_hidden_dim"]).to(dtype)
    return lambda: encoder(text, lyrics, timbre).states


def step(seconds: float, dtype: torch.dtype) -> Part:
    model = ace_step(dtype).decoder
    frames, channels = int(seconds * FRAMES_PER_SECOND), TWO_B["audio_acoustic_hidden_dim"]
    x, context = (torch.randn(1, frames, width).to(dtype) for width in (channels, 2 * channels))
    states, t = torch.randn(1, CONDITION_TOKENS, TWO_B["hidden_size"]).to(dtype), torch.tensor([0.5])
    return lambda: model(x, t, context, model.project_condition(Condition(states, None)))


def vae_encode(seconds: float, dtype: torch.dtype) -> Part:
    vae = build(lambda: OobleckVAE(VAEConfig.from_dict(VAE)), dtype)
    waveform = (0.1 * torch.randn(1, 2, int(seconds * RATE))).to(dtype)
    return lambda: vae.encode(waveform)


def vae_decode(seconds: float, dtype: torch.dtype) -> Part:
    vae = build(lambda: OobleckVAE(VAEConfig.from_dict(VAE)), dtype)
    latents = torch.randn(1, VAE["decoder_input_channels"], int(seconds * FRAMES_PER_SECOND)).to(dtype)
    return lambda: vae.decode(latents)


def language_model(dtype: torch.dtype) -> Any:
    """The Songwriter's network, its matrices packed as the program packs them."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"
        settings = {**TEXT, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY, "tie_word_embeddings": True}
        config.write_text(json.dumps(settings))
        model = songwriter.build_qwen3(config, VOCABULARY)
    fill(model.to(dtype))
    if packed_linear.can_pack(torch.device("cpu"), dtype):
        packed_linear.pack_linears(model)
    return model


def writing(dtype: torch.dtype) -> Part:
    model = language_model(dtype)
    prompt = torch.randint(VOCABULARY, (2 * WORDS,)).tolist()

    def run() -> Tensor:
        cache = KVCache.empty(model, 2, 4 * WORDS)
        states = [cache.prefill([prompt, prompt[WORDS:]])]
        states += [cache.step([[token], [token]]) for token in range(8)]
        return torch.stack(states)

    return run


def resampling(_dtype: torch.dtype) -> Part:
    sound = Audio(torch.randn(2, 3 * RATE).numpy() / 10, RATE)
    return lambda: torch.from_numpy(resample(sound, 44_100).samples)


def measuring(_dtype: torch.dtype) -> Part:
    sound = Audio(torch.randn(2, 3 * RATE).numpy() / 10, RATE)
    return lambda: torch.tensor([integrated_loudness(sound), true_peak(sound)], dtype=torch.float64)


def differences(part: Part) -> list[str]:
    """Return for each further number of threads how far the output of a part is from that of one."""
    outputs = []
    for count in THREADS:
        torch.set_num_threads(count)
        outputs.append(part().double())
    first, *others = outputs
    return ["equal" if torch.equal(first, one) else decibels((one - first).norm() / first.norm()) for one in others]


def decibels(share: Tensor) -> str:
    return f"{20 * math.log10(float(share)):.0f} dB"


def kernels(part: Part) -> str:
    """Return the operations of a part that depend on the number of threads."""
    with KernelWatch() as watch:
        part()
    return "; ".join(sorted(watch.found)) or "none"


@torch.inference_mode()
def main() -> None:
    usual = torch.get_num_threads()
    options = parser(__doc__)
    options.add_argument("--music", type=float, default=10, help="seconds, for the transformers (default: %(default)s)")
    options.add_argument("--sound", type=float, default=1, help="seconds, for the autoencoder (default: %(default)s)")
    arguments = options.parse_args()
    parts: dict[str, Callable[[torch.dtype], Part]] = {
        "text encoder": text_encoder,
        "condition encoder": condition_encoder,
        "diffusion step": lambda dtype: step(arguments.music, dtype),
        "VAE, encoding": lambda dtype: vae_encode(arguments.sound, dtype),
        "VAE, decoding": lambda dtype: vae_decode(arguments.sound, dtype),
        "Songwriter, packed as in the program": writing,
        "resampling": resampling,
        "loudness and true peak": measuring,
    }
    table = [["part", "numbers", *(f"{count} threads" for count in THREADS[1:]), "kernels that differ"]]
    for name, make in parts.items():
        for dtype in (torch.float32, torch.bfloat16):
            if make in (resampling, measuring) and dtype is torch.bfloat16:
                continue
            torch.manual_seed(0)
            part = make(dtype)
            table.append([name, str(dtype).removeprefix("torch."), *differences(part), kernels(part)])
            print(*table[-1], sep=" | ", file=sys.stderr)  # the whole table takes minutes
    torch.set_num_threads(usual)
    publish(__file__, "Threads and samples", table,
            NOTES.format(layers=LAYERS, music=arguments.music, sound=arguments.sound), arguments.dry)  # fmt: skip


if __name__ == "__main__":
    main()
