"""What the memory model predicts for a render, beside what one takes.

A random checkpoint of middling size, rendered, levelled and encoded in a process of its own for each length; measured
is the peak of the resident set over what the imports had taken.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from memory_peak import resident_rise
from published import TWO_B, VAE
from random_checkpoint import TEXT, write
from side_by_side import parser, publish

LENGTHS = (10, 60, 240)
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
that of `acestep generate --dry-run` less the runtime's share. Aim: within {aim:.0%}.
"""


def render(root: Path, seconds: float) -> dict[str, float]:
    """Render once; predicted and measured bytes."""
    from acestep_cli import audio, checkpoints, hardware, memory, modes, planning
    from acestep_cli.cli import render as _imported  # noqa: F401 - what a render imports counts as imports
    from acestep_cli.pipeline import Pipeline
    from acestep_cli.request import Request

    for name in ("pyloudnorm", "scipy.signal", "soundfile", "soxr", "mutagen"):
        __import__(name)
    checkpoint = checkpoints.locate("turbo", root)
    lyrics = "[Verse]\n" + "the tide goes out and leaves the harbour dry\n" * 16
    request = modes.complete(
        Request(caption="a song", lyrics=lyrics, duration=seconds, steps=STEPS, seed=1), checkpoint
    )
    plan = planning.plan(
        hardware.detect(), request, planning.Asked(device="cpu", dtype="bf16"), memory.Sizes.of(checkpoint)
    )
    with tempfile.TemporaryDirectory() as folder, resident_rise() as rise:
        [take] = Pipeline(checkpoint, plan).run([request], lambda stage, done, total: None)
        finish = audio.Finish(audio.encoding("flac"), request.loudness)
        audio.write(Path(folder) / "take.flac", take.audio, finish)
    runtime = planning.RUNTIME_BYTES["cpu"]
    return {"predicted": (plan.peak_bytes - runtime) / 2**20, "measured": rise.mb}


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--render", nargs=2, metavar=("FOLDER", "SECONDS"), help="print one pair of figures, and no more"
    )
    arguments = options.parse_args()
    if arguments.render:
        print(json.dumps(render(Path(arguments.render[0]), float(arguments.render[1]))))
        return
    table = [["length", "predicted", "measured", "predicted / measured"]]
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), DIT, MID_VAE, MID_TEXT)
        from acestep_cli import checkpoints, memory

        sizes = memory.Sizes.of(checkpoints.locate("turbo", Path(name)))
        for seconds in LENGTHS:
            command = [sys.executable, __file__, "--render", name, str(seconds)]
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            ratio = told["predicted"] / told["measured"]
            table.append(
                [f"{seconds} s", f"{told['predicted']:.0f} MB", f"{told['measured']:.0f} MB", f"{ratio:.2f} x"]
            )
            print(table[-1], file=sys.stderr)
    parameters = (sizes.dit.parameters + sizes.vae.parameters + sizes.text.parameters) / 1e9
    publish(
        __file__, "The memory model", table, NOTES.format(parameters=parameters, steps=STEPS, aim=AIM), arguments.dry
    )


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
