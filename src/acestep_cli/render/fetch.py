"""Download of the checkpoints that a command lacks, with messages before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli import disk
from acestep_cli.models import checkpoint_table, hugging_face_client, model_store
from acestep_cli.models.checkpoint_table import ModelPart
from acestep_cli.render.reporter import Reporter

if TYPE_CHECKING:
    from acestep_cli.models.download import PulledPart
    from acestep_cli.models.hub import Hub

GB = 1e9


def announce_pull(lacking: Mapping[str, Sequence[ModelPart]], reporter: Reporter, *, pull: bool, dry_run: bool) -> None:
    """Announce the missing parts of each checkpoint, with their approximate sizes from the table.

    Without `pull` nothing is to be fetched, and the command that would is named. Raises `NetworkError` where the
    environment forbids downloads.
    """

    if pull:
        hugging_face_client.require_online()
    for name, parts in lacking.items():
        folders = ", ".join(f"{part.folder} ({disk.format_size(part.size_gb * GB)})" for part in parts)
        total = disk.format_size(sum(part.size_gb for part in parts) * GB)
        if pull and name not in checkpoint_table.SONGWRITERS:  # which --pull leaves out
            reporter.say(f"{name}: {'would be fetched' if dry_run else 'fetching'}, about {total}: {folders}")
        else:
            reporter.say(
                f"{name}: is not installed; acestep models pull {name} fetches about {total}: {folders}. The plan "
                "goes by the published sizes"
            )


def pull_parts(
    parts: Sequence[ModelPart],
    models_dir: Path | None,
    reporter: Reporter,
    revision: str | None = None,
    *,
    again: bool = False,
    hub: Hub | None = None,
) -> list[PulledPart]:
    """Download parts from `hub`, the Hugging Face hub unless it is another, and report each of them."""
    from acestep_cli.models import download, hugging_face

    hub = hub or hugging_face.HuggingFace()
    pulled = download.pull(parts, model_store.find_store(models_dir), revision, reporter, hub=hub, again=again)
    for part in pulled:
        what = f"{disk.format_size(part.fetched)} fetched" if part.fetched else "there already"
        reporter.say(f"{part.part.folder}: {what}, commit {part.manifest.commit[:12]}")
    return pulled
