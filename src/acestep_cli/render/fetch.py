"""Checkpoints brought here for a command: what is to come, the pull itself, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli import disk
from acestep_cli.models import local
from acestep_cli.models.checkpoints import ModelPart
from acestep_cli.render.reporter import Reporter

if TYPE_CHECKING:
    from acestep_cli.models.download import PulledPart

GB = 1e9


def announce_pull(lacking: Mapping[str, Sequence[ModelPart]], reporter: Reporter, *, dry_run: bool) -> None:
    """Say what is missing of each checkpoint, and about how much that is; sizes are the table's.

    `NetworkError` where it will not be fetched, as the environment forbids it.
    """
    from acestep_cli.models import download

    download.require_online()
    for name, parts in lacking.items():
        folders = ", ".join(f"{part.folder} ({disk.format_size(part.size_gb * GB)})" for part in parts)
        total = disk.format_size(sum(part.size_gb for part in parts) * GB)
        reporter.say(f"{name}: {'would be fetched' if dry_run else 'fetching'}, about {total}: {folders}")


def pull_parts(
    parts: Sequence[ModelPart],
    models_dir: Path | None,
    reporter: Reporter,
    revision: str | None = None,
    *,
    again: bool = False,
) -> list[PulledPart]:
    """Fetch parts, as `hub.pull` does, and say what came of each."""
    from acestep_cli.models import download

    pulled = download.pull(parts, local.model_store(models_dir), revision, reporter, again=again)
    for one in pulled:
        what = f"{disk.format_size(one.fetched)} fetched" if one.fetched else "there already"
        reporter.say(f"{one.part.folder}: {what}, commit {one.lock.commit[:12]}")
    return pulled
