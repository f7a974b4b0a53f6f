"""`python -m acestep_cli` is `acestep`."""

import gc
import os
import sys

from acestep_cli import COMPLETING

INTERRUPTED = 130


def main() -> None:
    """Run the program. Ctrl-C while it is still being imported ends it as Ctrl-C does later.

    No garbage is collected while the program is imported, nor at its end, where that would take 0.4 s of a render; and
    none at all by a process that completes a word, which ends before it would pay.
    """
    gc.disable()
    try:
        from acestep_cli.cli.app import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if not os.environ.get(COMPLETING):
        gc.enable()
    try:
        run()
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
