"""Decoding with the autoencoder at its published size, random weights: ours and diffusers'; and in bfloat16, ours with
channels last and in chunks, as processors decode, beside channels first and whole.

Time is wall time of one decode. Memory is how far the resident set rises above what it was before the decode, each
measured in a process of its own. Ours is decoded in tiles, as every song is; diffusers' in one piece, as its pipeline
does.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from diffusers import AutoencoderOobleck
from memory_peak import resident_rise
from published import FRAMES_PER_SECOND, VAE, fill
from side_by_side import medians, parser, publish
from torch import Tensor

from acestep_cli.engine import codec
from acestep_cli.engine import vae as vae_module
from acestep_cli.engine.vae import OobleckVAE
from acestep_cli.machine import plan, tiers
from acestep_cli.machine.hardware import Hardware, cpu_device
from acestep_cli.machine.plan import MachineRequest
from acestep_cli.models.configs import VAEConfig
from acestep_cli.models.sizes import Sizes

TIME_AIM, MEMORY_AIM = "at least 1.15 x", "at most 0.1"
NOTES = """\
Random weights of the published sizes, float32 where nothing else is said, the same function in both; the waveforms
differ by {difference:.1e}. Times are medians of {rounds} runs each, taken in turns in one process. Tiles are of
{tile} frames, the program's choice on a processor. Memory is how far one decode raises the resident set, each in a
process of its own. diffusers decodes a song in one piece, and {song:g} s of it would need more memory than many
machines have: it was measured at {half:g} s ({half_mb:.0f} MB) and at {fits:g} s ({fitting_mb:.0f} MB), and the line
through both is followed to {song:g} s.
"""


def build_ours(dtype: torch.dtype = torch.float32) -> OobleckVAE:
    with torch.device("meta"):
        vae = OobleckVAE(VAEConfig.from_dict(VAE))
    torch.manual_seed(0)
    vae = fill(vae).to(dtype)
    vae.arrange_weights()
    return vae


@contextmanager
def channels_first() -> Iterator[None]:
    """Let networks decode as on other devices: channels first, each block in one piece."""
    plain = mock.patch.multiple(vae_module, has_kernels=lambda device, dtype: False, CHUNK_SAMPLES=sys.maxsize)
    with plain:
        yield


def build_theirs(ours: OobleckVAE) -> AutoencoderOobleck:
    """Diffusers' autoencoder of the same function: it keeps each weight as a direction and a gain."""
    weights: dict[str, Tensor] = {}
    for name, weight in ours.state_dict().items():
        if name.endswith(".weight"):
            weights[f"{name}_v"] = weight
            weights[f"{name}_g"] = weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))
        else:
            weights[name] = weight
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore", FutureWarning)  # diffusers still spells weight norm the old way
        theirs = AutoencoderOobleck(**VAE)
    theirs.load_state_dict(weights, assign=True)
    return theirs.eval()


def tile_frames() -> int:
    """What the program itself would choose on this processor."""
    song = tiers.bare_song("turbo", 20.0)
    return plan.plan_render(Hardware((cpu_device(),)), song, MachineRequest(), Sizes.published("turbo")).tile_frames


def our_tiled(vae: OobleckVAE, latents: Tensor) -> Tensor:
    return codec.decode_latents(vae, latents[0].T, tile_frames(), lambda _done, _total: None)


def latents_of(seconds: float) -> Tensor:
    return torch.randn(1, VAE["decoder_input_channels"], int(seconds * FRAMES_PER_SECOND))


def rise_mb(side: str, seconds: float) -> float:
    """Of one decode, in a fresh process: what an earlier one left to the allocator would hide part of it."""
    command = [sys.executable, __file__, "--rise-of", side, "--seconds", str(seconds)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def print_rise(side: str, seconds: float) -> None:
    ours, latents = build_ours(), latents_of(seconds)
    theirs = build_theirs(ours)
    with resident_rise() as rise:
        if side == "ours":
            our_tiled(ours, latents)
        else:
            theirs.decode(latents)
    print(rise.mb)


def compare_times(seconds: float, rounds: int) -> tuple[list[float], float]:
    """Medians of ours in one piece, ours in tiles, diffusers'; and how far apart the waveforms are."""
    ours, latents = build_ours(), latents_of(seconds)
    theirs = build_theirs(ours)
    reference = theirs.decode(latents).sample
    difference = (our_tiled(ours, latents) - reference[0]).norm() / reference.norm()
    times = medians(
        rounds, lambda: ours.decode(latents), lambda: our_tiled(ours, latents), lambda: theirs.decode(latents)
    )
    return times, difference.item()


def compare_layouts(seconds: float, rounds: int) -> list[float]:
    """Medians of ours in bfloat16: channels last and in chunks, and channels first in one piece; both in tiles."""
    latents, arranged = latents_of(seconds), build_ours(torch.bfloat16)
    with channels_first():
        plain = build_ours(torch.bfloat16)

    def decode_plain() -> None:
        with channels_first():
            our_tiled(plain, latents)

    return medians(rounds, lambda: our_tiled(arranged, latents), decode_plain)


@torch.inference_mode()
def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--seconds", type=float, default=20, help="of music, timed (default: %(default)s)")
    options.add_argument("--song", type=float, default=120, help="of music, for memory (default: %(default)s)")
    options.add_argument("--fits", type=float, default=10, help="of music in one piece (default: %(default)s)")
    options.add_argument("--rise-of", choices=["ours", "theirs"], help="print one rise of memory only")
    arguments = options.parse_args()
    if arguments.rise_of:
        print_rise(arguments.rise_of, arguments.seconds)
        return
    (whole, tiled, theirs), difference = compare_times(arguments.seconds, arguments.rounds)
    bfloat16, first = compare_layouts(arguments.seconds, arguments.rounds)
    ours_mb = rise_mb("ours", arguments.song)
    half_mb, fitting_mb = (rise_mb("theirs", seconds) for seconds in (arguments.fits / 2, arguments.fits))
    theirs_mb = fitting_mb + (fitting_mb - half_mb) / (arguments.fits / 2) * (arguments.song - arguments.fits)
    times = f"time of {arguments.seconds:g} s"
    table = [
        ["what", "ours", "diffusers", "ratio", "aim"],
        [f"{times}, in one piece", f"{whole:.2f} s", f"{theirs:.2f} s", f"{theirs / whole:.2f} x as fast", TIME_AIM],
        [f"{times}, ours in tiles", f"{tiled:.2f} s", f"{theirs:.2f} s", f"{theirs / tiled:.2f} x as fast", "none"],
        [
            f"{times} in bfloat16, ours in tiles",
            f"{bfloat16:.2f} s",
            f"{first:.2f} s: ours, channels first",
            f"{first / bfloat16:.2f} x as fast",
            "at least 1.5 x",
        ],
        [
            f"peak memory of {arguments.song:g} s, ours in tiles",
            f"{ours_mb:.0f} MB",
            f"{theirs_mb:.0f} MB, extrapolated",
            f"{ours_mb / theirs_mb:.3f} of it",
            MEMORY_AIM,
        ],
    ]
    notes = NOTES.format(
        difference=difference,
        rounds=arguments.rounds,
        tile=tile_frames(),
        song=arguments.song,
        fits=arguments.fits,
        half=arguments.fits / 2,
        fitting_mb=fitting_mb,
        half_mb=half_mb,
    )
    publish(__file__, "Decoding with the autoencoder", table, notes, arguments.dry)


if __name__ == "__main__":
    main()
