"""What a graphics card makes of the published sizes: each tier under its cap, and the seconds of whole songs.

Tiers: a random 2B turbo checkpoint rendered at the length that the tier promises, in a process of its own whose
allocator may take no more than the tier's memory. Songs: from noise to a WAV file, beside diffusers' transformer and
autoencoder with the same weights, by turns. With `--tiny` all sizes shrink and any device does: that shows that the
script runs, and nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AceStepTransformer1DModel, AutoencoderOobleck
from published import FRAMES_PER_SECOND, TWO_B, VAE, diffusers_name
from random_checkpoint import TEXT, write
from side_by_side import medians, parser, publish

from acestep_cli import solvers
from acestep_cli.audio import encode, sound
from acestep_cli.engine import codec, denoise
from acestep_cli.engine.dit import Condition, DiT
from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.engine.weights import WeightStore
from acestep_cli.errors import AceStepError
from acestep_cli.machine import hardware, memory
from acestep_cli.machine import plan as planning
from acestep_cli.machine.hardware import GIB
from acestep_cli.machine.tiers import TIERS
from acestep_cli.models import checkpoint_files, checkpoints
from acestep_cli.models.configs import DiTConfig
from acestep_cli.models.sizes import Sizes
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.request import Request

SONG_SECONDS = (30, 120, 300)
CONDITION_TOKENS = 300
SCHEDULE = solvers.timestep_schedule(8, 3.0)
NOTES = """\
Random bfloat16 weights of the published 2B sizes, 8 steps. A tier's card is invented to report half a gigabyte less
than its name, and the allocator of the process is capped to that less the runtime's share; `peak` is that share and
what the allocator reserved. Songs are medians of {rounds} runs by turns in one process, weights already loaded, from
noise to a file; diffusers decodes in one piece. {tiny}
"""
TINY = {
    "dit": TWO_B | {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"num_key_value_heads": 1, "head_dim": 64, "text_hidden_dim": 64, "fsq_dim": 128, "in_channels": 24}
    | {"audio_acoustic_hidden_dim": 8, "timbre_hidden_dim": 8, "num_lyric_encoder_hidden_layers": 1}
    | {"num_timbre_encoder_hidden_layers": 1, "timbre_fix_frame": 50},
    "vae": VAE | {"encoder_hidden_size": 16, "decoder_channels": 8, "decoder_input_channels": 8},
    "text": TEXT | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 300},
}  # fmt: skip
FULL: dict[str, Any] = {"dit": TWO_B, "vae": VAE, "text": TEXT}


def device() -> torch.device:
    """The card that plans prefer too: a second one is hidden from the program with CUDA_VISIBLE_DEVICES."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def quiet(stage: str, done: int, total: int) -> None:
    """A report nobody reads."""


def unheard(done: int, total: int) -> None:
    """A progress nobody reads."""


def song(seconds: float, root: Path) -> tuple[checkpoint_files.Checkpoint, complete.Completed]:
    checkpoint = checkpoints.find_checkpoint("turbo", root)
    lyrics = "[Verse]\n" + "the tide goes out and leaves the harbour dry\n" * 40
    return checkpoint, complete.complete(Request(caption="a song", lyrics=lyrics, duration=seconds, seed=1), checkpoint)


def invented(total: int) -> hardware.Hardware:
    """This machine's first device, with another amount of memory."""
    real = hardware.detect().devices[0]
    card = hardware.Device(real.name, real.backend, real.title, total, total, real.dtypes, real.dtype_reason)
    return hardware.Hardware((card,), hardware.torch_backend())


def tier(root: Path, memory_gb: float, seconds: float) -> dict[str, Any]:
    """One song on a card of that size: peak bytes, seconds, and how the memory was kept."""
    total = int((memory_gb - 0.5) * GIB)
    checkpoint, request = song(seconds, root)
    try:
        plan = planning.plan_render(invented(total), request, planning.MachineRequest(), Sizes.of(checkpoint))
        if device().type == "cuda":
            allowed = total - memory.RUNTIME_BYTES["cuda"]  # a real card holds the runtime too
            torch.cuda.set_per_process_memory_fraction(min(allowed / torch.cuda.mem_get_info()[1], 1.0))
        start = time.perf_counter()
        [take] = Pipeline(checkpoint, plan).run([request], quiet)
    except AceStepError as error:
        return {"failed": str(error)}
    spent = time.perf_counter() - start
    peak = torch.cuda.max_memory_reserved() + memory.RUNTIME_BYTES["cuda"] if device().type == "cuda" else 0
    steps = [name for name in ("one_network", "vae_on_cpu") if getattr(take.plan, name)]
    how = ", ".join([take.plan.arrangement.weight_storage, f"tiles of {take.plan.tile_frames}", *steps])
    return {"peak": peak, "seconds": spent, "how": how, "predicted": plan.peak_bytes}


def tiers(root: Path, shorten: float) -> list[list[str]]:
    table = [["card", "song", "weights", "predicted", "peak", "seconds"]]
    for one in TIERS:
        seconds = max(60 * one.minutes * shorten, 10)
        command = [sys.executable, __file__, "--tier", str(root), str(one.memory_gb), str(seconds)]
        found = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
        )
        if "failed" in found:
            table.append(
                [f"{one.memory_gb} GB", f"{seconds:g} s", "failed", found["failed"].replace("\n", " "), "", ""]
            )
            continue
        figures = [f"{found[name] / 1e9:.2f} GB" for name in ("predicted", "peak")]
        table.append([f"{one.memory_gb} GB", f"{seconds:g} s", found["how"], *figures, f"{found['seconds']:.2f}"])
    return table


def songs(root: Path, shorten: float, rounds: int) -> list[list[str]]:
    """Noise to WAV: ours through the pipeline's own stages, diffusers' through its modules with the same weights."""
    checkpoint, request = song(30, root)
    sizes = Sizes.of(checkpoint)
    plan = planning.plan_render(hardware.detect(), request, planning.MachineRequest(dtype="bf16"), sizes)
    store = WeightStore(checkpoint, plan, quiet)
    table = [["song", "ours", "diffusers", "speed"]]
    with store.dit() as model, store.vae() as vae, torch.inference_mode():
        theirs = their_transformer(model.decoder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers still spells weight norm the old way
            their_vae = AutoencoderOobleck(**checkpoint.vae_config).to(device(), torch.bfloat16).eval()
        for length in SONG_SECONDS:
            seconds = max(length * shorten, 10)
            inputs = Inputs.drawn(int(seconds * FRAMES_PER_SECOND), sizes.dit)
            ours = partial(our_song, model.decoder, vae, plan.tile_frames, inputs)
            diffusers = partial(their_song, theirs, their_vae, inputs)
            for warm in (ours, diffusers):
                warm()
            mine, other = medians(rounds, ours, diffusers)
            table.append([f"{seconds:g} s", f"{mine:.2f} s", f"{other:.2f} s", f"{other / mine:.2f} x"])
    store.close()
    return table


class Inputs(NamedTuple):
    """What both sides start from."""

    noise: torch.Tensor  # [1, T, C], float32
    context: torch.Tensor  # [1, T, 2 C]
    states: torch.Tensor  # [1, L, E]

    @classmethod
    def drawn(cls, frames: int, config: DiTConfig) -> Inputs:
        noise = torch.randn(1, frames, config.latent_channels)
        context = torch.randn(1, frames, 2 * config.latent_channels, device=device(), dtype=torch.bfloat16)
        states = torch.randn(1, CONDITION_TOKENS, config.encoder_hidden_size, device=device(), dtype=torch.bfloat16)
        return cls(noise, context, states)


def their_transformer(ours: DiT) -> AceStepTransformer1DModel:
    config = ours.config
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    same += ("head_dim", "in_channels", "audio_acoustic_hidden_dim")
    sizes = {name: getattr(config, name) for name in same}
    made = AceStepTransformer1DModel(**sizes, layer_types=list(config.layer_types), is_turbo=True)
    made.to(device(), torch.bfloat16).eval()
    made.load_state_dict({diffusers_name(name): weight for name, weight in ours.state_dict().items()})
    return made


def our_song(dit: DiT, vae: OobleckVAE, tile_frames: int, inputs: Inputs) -> None:
    remembered = dit.project_condition(Condition(inputs.states, None))
    latents = denoise.denoise(
        dit,
        inputs.noise,
        denoise.DiffusionCondition(inputs.context, remembered),
        denoise.SamplerSettings(SCHEDULE),
        seeds=[1],
        progress=unheard,
    )
    save(codec.decode_latents(vae, latents[0], tile_frames, unheard))


def their_song(dit: AceStepTransformer1DModel, vae: AutoencoderOobleck, inputs: Inputs) -> None:
    x = inputs.noise.to(device())
    for t, following in pairwise(SCHEDULE):
        now = torch.full((1,), t, device=device(), dtype=torch.bfloat16)
        velocity = dit(
            hidden_states=x.bfloat16(),
            timestep=now,
            timestep_r=now,
            encoder_hidden_states=inputs.states,
            context_latents=inputs.context,
            return_dict=False,
        )[0]
        x = x - velocity.float() * (t - following)
    save(vae.decode(x.transpose(1, 2).bfloat16()).sample[0].float().cpu())


def save(wave: torch.Tensor) -> None:
    finish = encode.Finish(encode.resolve_encoding("wav"), "none")
    with tempfile.TemporaryDirectory() as folder:
        encode.write_audio(Path(folder) / "song.wav", sound.Audio(wave.clamp(-1, 1).numpy(), 48_000), finish)


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--tiny", action="store_true", help="shrink everything, for any device")
    options.add_argument("--tier", nargs=3, metavar=("FOLDER", "GB", "SECONDS"), help="print one tier's figures")
    arguments = options.parse_args()
    if arguments.tier:
        folder, gigabytes, seconds = arguments.tier
        print(json.dumps(tier(Path(folder), float(gigabytes), float(seconds))))
        return
    if device().type != "cuda" and not arguments.tiny:
        raise SystemExit("There is no CUDA device here; --tiny shows that the script runs.")
    shorten = 0.02 if arguments.tiny else 1.0
    sizes = TINY if arguments.tiny else FULL
    with tempfile.TemporaryDirectory() as name:
        root = write(Path(name), sizes["dit"], sizes["vae"], sizes["text"])
        first, second = tiers(root, shorten), songs(root, shorten, arguments.rounds)
    width = len(first[0])
    table = [*first, [""] * width, *[row + [""] * (width - len(row)) for row in second]]
    notes = NOTES.format(
        rounds=arguments.rounds, tiny="Everything shrunk: no figure here means anything." * arguments.tiny
    )
    publish(__file__, "The published sizes on a card", table, notes, arguments.dry or arguments.tiny)


if __name__ == "__main__":
    main()
