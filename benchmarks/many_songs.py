"""Memory that stays behind: what a process holds after its twentieth song, over what it held after its second."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from memory_peak import status_mb
from side_by_side import parser, publish

from acestep_cli.audio import encode
from acestep_cli.machine import hardware
from acestep_cli.machine import plan as planning
from acestep_cli.models import checkpoint_table, checkpoints
from acestep_cli.models.sizes import Sizes
from acestep_cli.pipeline import Pipeline
from acestep_cli.song import complete
from acestep_cli.song.request import Request

EARLY, LATE = 2, 20
SECONDS = (20.0, 30.0)
AIM = "at most 1.02 x"
NOTES = """\
`pocket`, songs of {seconds} s by turns through one pipeline, each levelled and encoded as flac. The resident set is
read when the song before is written and the next one's diffusion begins.
"""


def main() -> None:
    arguments = parser(__doc__).parse_args()
    checkpoint = checkpoints.find_checkpoint(checkpoint_table.BUILT_IN)
    lyrics = "[Verse]\n" + "the tide goes out and leaves the harbour dry\n" * 4
    songs = [
        complete.complete(
            Request(caption="a song", lyrics=lyrics, duration=SECONDS[number % len(SECONDS)], seed=number), checkpoint
        )
        for number in range(LATE + 1)
    ]
    plan = planning.plan_render(
        hardware.detect(), songs[0], planning.MachineRequest(device="cpu"), Sizes.of(checkpoint)
    )
    held: dict[int, float] = {}  # by songs written
    written = 0

    def report(stage: str, done: int, total: int) -> None:
        if stage == "diffuse" and written not in held:
            held[written] = status_mb("VmRSS")
            print(f"after {written} songs: {held[written]:.1f} MB", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        for take in Pipeline(checkpoint, plan).run(songs, report):
            finish = encode.Finish(encode.resolve_encoding("flac"), take.request.loudness)
            encode.write_audio(Path(folder) / f"{written}.flac", take.audio, finish)
            written += 1
            del take
    ratio = f"{held[LATE] / held[EARLY]:.3f} x"
    table = [
        ["what", f"after song {EARLY}", f"after song {LATE}", "ratio", "aim"],
        ["resident set", f"{held[EARLY]:.0f} MB", f"{held[LATE]:.0f} MB", ratio, AIM],
    ]
    notes = NOTES.format(seconds=" and ".join(f"{seconds:g}" for seconds in SECONDS))
    publish(__file__, "Memory over many songs", table, notes, arguments.dry)


if __name__ == "__main__":
    main()
