"""`python -m acestep_cli` is `acestep`."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the program. Ctrl-C while it is still being imported ends it as Ctrl-C does later."""
    try:
        from acestep_cli.cli import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
