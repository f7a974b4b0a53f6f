"""Memory of training: while songs are prepared, over two hundred steps, and beside what the forecast says of it.

Each row in a process of its own. For the forecast a random checkpoint of middling size is trained on one song; what
the imports had taken is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from memory_peak import resident_rise, status_mb
from side_by_side import parser, publish

SONGS, SONG_SECONDS, SETTLED = 20, 180, 2
STEPS, EARLY = 200, 20
FORECAST_SECONDS = 60
NOTES = """\
`pocket` prepares and trains; one of its {songs} songs of {seconds} s is {song:.0f} MB of sound in memory. The forecast
is that of a rank-64 LoRA on a checkpoint of {layers} layers of width {width} in bfloat16, one song of {forecast} s.
"""


def job(root: Path, checkpoint: Any, config: Any, songs: int, seconds: float) -> Any:
    """A training run on songs of noise."""
    import numpy as np
    import soundfile

    from acestep_cli.machine import hardware
    from acestep_cli.machine import plan as planning
    from acestep_cli.models.sizes import Sizes
    from acestep_cli.training import dataset, loop, run_folder
    from acestep_cli.training import plan as workload

    folder = root / "songs"
    folder.mkdir(exist_ok=True)
    for number in range(songs):
        noise = np.random.default_rng(number).normal(size=(int(48_000 * seconds), 2), scale=0.1)
        soundfile.write(folder / f"{number}.wav", noise, 48_000)
        (folder / f"{number}.caption.txt").write_text("noise")
    found = dataset.scan_folder(folder)
    looked = dataset.inspect_songs(found, 5, config.crop, lambda done, total: None)
    sizes = Sizes.of(checkpoint)
    longest = workload.longest_example(sizes, min(seconds, config.crop), [("noise", "")])
    asked = planning.MachineRequest(device="cpu", dtype="bf16")
    plan = workload.plan_training(hardware.detect(), config, asked, sizes, longest, lambda *_: workload.PastRuns())
    record = run_folder.RunRecord(
        base=checkpoint.name, base_weights="", config=config, trigger=None, trigger_position="prepend", dataset="",
        songs={}, dtype="bfloat16",
    )  # fmt: skip
    out = root / "out"
    out.mkdir()
    return loop.TrainingJob(found, looked.usable, record, checkpoint, plan, out), sizes, longest


def prepared(root: Path) -> dict[str, float]:
    """The resident set after the second song and after the last."""
    from acestep_cli.engine.weights import WeightStore
    from acestep_cli.models import checkpoints
    from acestep_cli.training import loop
    from acestep_cli.training.config import TrainingConfig

    one, _, _ = job(root, checkpoints.find_checkpoint("pocket"), TrainingConfig(), SONGS, SONG_SECONDS)
    held: list[float] = []

    def report(stage: str, done: int, total: int) -> None:
        if stage == "encode":
            held.append(status_mb("VmHWM"))

    loop.prepare_training_set(one, WeightStore(one.checkpoint, one.plan, report), print)
    return {"early": held[SETTLED], "late": held[-1]}


def trained(root: Path) -> dict[str, float]:
    """The resident set after the early step and after the last."""
    from acestep_cli.models import checkpoints
    from acestep_cli.training import loop
    from acestep_cli.training.config import TrainingConfig

    one, _, _ = job(
        root, checkpoints.find_checkpoint("pocket"), TrainingConfig(steps=STEPS, accumulation=1, crop=10), 2, 20
    )
    held: dict[int, float] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage == "train":
            held[done] = status_mb("VmRSS")

    loop.train(one, report, lambda line: None, print)
    return {"early": held[EARLY], "late": held[STEPS]}


def foreseen(root: Path, checkpointed: bool) -> dict[str, float]:
    """What a run was to take, and what it took."""
    from memory_model import DIT, MID_TEXT, MID_VAE
    from random_checkpoint import write

    from acestep_cli.models import checkpoints
    from acestep_cli.training import loop
    from acestep_cli.training import plan as workload
    from acestep_cli.training.config import TrainingConfig

    write(root / "models", DIT, MID_VAE, MID_TEXT)
    checkpoint = checkpoints.find_checkpoint("turbo", root / "models")
    config = TrainingConfig(steps=2, accumulation=1)
    one, sizes, longest = job(root, checkpoint, config, 1, FORECAST_SECONDS)
    one = replace(one, plan=one.plan.model_copy(update={"checkpointed": checkpointed}))
    need = workload.TrainingMemory(sizes, config, longest, one.plan.arrangement, checkpointed)
    loop.prepare_training_set(one, loop.WeightStore(checkpoint, one.plan, lambda *_: None), print)
    with resident_rise() as rise:
        loop.train(one, lambda *_: None, lambda line: None, print)
    train = next(stage for stage in need.stages if stage.name == "train")
    return {"early": train.total / 2**20, "late": rise.mb}


ROWS = {
    "prepared": prepared,
    "trained": trained,
    "kept": lambda root: foreseen(root, False),
    "again": lambda root: foreseen(root, True),
}


def measured(row: str) -> dict[str, float]:
    """A row, in a process and with a cache of its own."""
    with tempfile.TemporaryDirectory() as name:
        environment = {**os.environ, "XDG_CACHE_HOME": name}
        command = [sys.executable, __file__, "--row", row, "--folder", name]
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    print(row, run.stdout.splitlines()[-1], file=sys.stderr)
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--row", choices=ROWS, help="print the figures of one row, and no more")
    options.add_argument("--folder", type=Path)
    arguments = options.parse_args()
    if arguments.row:
        print(json.dumps(ROWS[arguments.row](arguments.folder)))
        return
    from memory_model import DIT

    told = {row: measured(row) for row in ROWS}
    song = SONG_SECONDS * 48_000 * 2 * 4 / 2**20

    def line(what: str, row: str, aim: str) -> list[str]:
        early, late = told[row]["early"], told[row]["late"]
        return [what, f"{early:.0f} MB", f"{late:.0f} MB", aim]

    table = [
        ["what", "before", "after", "aim"],
        line(f"peak while preparing: song {SETTLED}, song {SONGS}", "prepared", "the same within one song's sound"),
        line(f"resident set while training: step {EARLY}, step {STEPS}", "trained", "the same"),
        line("forecast and peak of a step, everything kept", "kept", "forecast within 25 %"),
        line("forecast and peak of a step, layers computed again", "again", "forecast within 25 %"),
    ]
    notes = NOTES.format(
        songs=SONGS, seconds=SONG_SECONDS, song=song, forecast=FORECAST_SECONDS, layers=DIT["num_hidden_layers"],
        width=DIT["hidden_size"],
    )  # fmt: skip
    publish(__file__, "Memory of training", table, notes, arguments.dry)


if __name__ == "__main__":
    main()
