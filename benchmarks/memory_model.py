"""What the memory model predicts for a render, beside what one takes.

A random checkpoint of middling size, rendered, levelled and encoded in a process of its own for each row; measured is
the peak of the resident set over what the imports had taken. The last row encodes a recording and does nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory_peak import resident_rise
from published import TWO_B, VAE
from random_checkpoint import TEXT, write
from side_by_side import parser, publish

from acestep_cli.machine import memory

#: Each a mode and seconds; `references` hears two recordings of so many seconds too, `listen` is that stage alone.
ROWS = (
    *(("generate", seconds) for seconds in (10, 60, 240)),
    *((mode, 60) for mode in ("cover", "repaint", "references", "listen")),
)
RATE = 48_000
AIM = 0.15
DIT = TWO_B | {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "in_channels": 96,
    "audio_acoustic_hidden_dim": 32,
    "timbre_hidden_dim": 32,
    "text_hidden_dim": 512,
    "num_lyric_encoder_hidden_layers": 4,
    "num_timbre_encoder_hidden_layers": 2,
    "fsq_dim": 1024,
}
MID_VAE = VAE | {"encoder_hidden_size": 64, "decoder_channels": 64, "decoder_input_channels": 32}
MID_TEXT = TEXT | {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "vocab_size": 50_000}
STEPS = 2  # all of them take the same memory
NOTES = """\
A turbo checkpoint of {parameters:.2f} billion random bfloat16 weights, {steps} steps, peak:-1, flac. The prediction is
that of a `--dry-run` less the runtime's share. `references` is a song after two recordings of its own length; `listen`
encodes a source and does nothing else, so the diffusion transformer is not counted. Aim: within {aim:.0%}.
"""


def recording(folder: Path, name: str, seconds: float) -> str:
    """A file of noise."""
    import soundfile

    noise = 0.1 * np.random.default_rng(len(name)).standard_normal((int(seconds * RATE), 2))
    file = folder / name
    soundfile.write(file, noise, RATE)
    return str(file)


def asked(mode: str, seconds: float, folder: Path) -> dict[str, Any]:
    """What a row asks for, besides words."""
    if mode == "generate":
        return {"duration": seconds}
    if mode == "references":
        return {"duration": seconds, "reference": [recording(folder, name, seconds) for name in ("a.wav", "bb.wav")]}
    region = {"start": seconds / 2} if mode == "repaint" else {}
    return {"mode": "cover" if mode == "listen" else mode, "source": recording(folder, "s.wav", seconds), **region}


def render(root: Path, mode: str, seconds: float) -> dict[str, float]:
    """Render once; predicted and measured bytes."""
    from acestep_cli.audio import decode, encode
    from acestep_cli.engine import stages
    from acestep_cli.engine.stage_cache import StageCache
    from acestep_cli.engine.weights import WeightStore
    from acestep_cli.machine import hardware
    from acestep_cli.machine import plan as planning
    from acestep_cli.models import checkpoints
    from acestep_cli.models.sizes import Sizes
    from acestep_cli.pipeline import Pipeline
    from acestep_cli.render import perform as _imported  # noqa: F401 - what a render imports counts as imports
    from acestep_cli.song import complete
    from acestep_cli.song.request import Request

    for name in ("soundfile", "soxr", "mutagen"):
        __import__(name)
    checkpoint = checkpoints.find_checkpoint("turbo", root)
    lyrics = "[Verse]\n" + "the tide goes out and leaves the harbour dry\n" * 16
    with tempfile.TemporaryDirectory() as folder:
        words = {"caption": "a song", "lyrics": lyrics, "steps": STEPS, "seed": 1}
        request = complete.complete(Request(**words, **asked(mode, seconds, Path(folder))), checkpoint)
        plan = planning.plan_render(
            hardware.detect(), request, planning.MachineRequest(device="cpu", dtype="bf16"), Sizes.of(checkpoint)
        )
        predicted = plan.peak_bytes - memory.RUNTIME_BYTES["cpu"]
        with resident_rise() as rise, torch.inference_mode():
            if mode == "listen":
                # Weights that the stage finds in memory are not brought there by it.
                [stage] = [one for one in plan.stages if one.name == "listen"]
                predicted = stage.total - stage.resident["dit"]
                sound = decode.read_audio(Path(str(request.source)))
                with closing(WeightStore(checkpoint, plan, lambda stage, done, total: None)) as weights:
                    stages.encode_references(
                        weights, StageCache(None, checkpoint, None), [torch.from_numpy(sound.samples)]
                    )
            else:
                [take] = Pipeline(checkpoint, plan).run([request], lambda stage, done, total: None)
                finish = encode.Finish(encode.resolve_encoding("flac"), request.loudness)
                encode.write_audio(Path(folder) / "take.flac", take.audio, finish)
    return {"predicted": predicted / 2**20, "measured": rise.mb}


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--render", nargs=3, metavar=("FOLDER", "MODE", "SECONDS"), help="print one pair of figures, and no more"
    )
    arguments = options.parse_args()
    if arguments.render:
        folder, mode, seconds = arguments.render
        print(json.dumps(render(Path(folder), mode, float(seconds))))
        return
    table = [["render", "length", "predicted", "measured", "predicted / measured"]]
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), DIT, MID_VAE, MID_TEXT)
        from acestep_cli.models import checkpoints
        from acestep_cli.models.sizes import Sizes

        sizes = Sizes.of(checkpoints.find_checkpoint("turbo", Path(name)))
        for mode, seconds in ROWS:
            command = [sys.executable, __file__, "--render", name, mode, str(seconds)]
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            ratio = told["predicted"] / told["measured"]
            sizes_mb = [f"{told[which]:.0f} MB" for which in ("predicted", "measured")]
            table.append([mode, f"{seconds} s", *sizes_mb, f"{ratio:.2f} x"])
            print(table[-1], file=sys.stderr)
    parameters = (sizes.dit.parameters + sizes.vae.parameters + sizes.text.parameters) / 1e9
    publish(
        __file__, "The memory model", table, NOTES.format(parameters=parameters, steps=STEPS, aim=AIM), arguments.dry
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
