"""`python -m acestep_cli` is `acestep`."""

from acestep_cli.cli import main

main()
