"""`python -m acestep_cli` is `acestep`."""

import gc
import os
import sys

from acestep_cli import COMPLETING

INTERRUPTED = 130


def main() -> None:
    """Run the program. Ctrl-C while it is still being imported ends it as Ctrl-C does later.

    A process that completes a word collects no garbage: it ends before that would pay, and looking through everything
    at its end took a fifth of a TAB.
    """
    if os.environ.get(COMPLETING):
        gc.disable()
    try:
        from acestep_cli.cli.app import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    try:
        run()
    finally:
        if os.environ.get(COMPLETING):
            gc.freeze()


if __name__ == "__main__":
    main()
