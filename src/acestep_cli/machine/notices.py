"""Notices that this machine has shown today: those of an earlier day are shown in full again.

One small file in the user's state folder, which may be deleted at any time.
"""

from __future__ import annotations

import datetime
import json
from contextlib import suppress
from pathlib import Path

import platformdirs

from acestep_cli import disk

NAME = "notices.json"


def notices_file() -> Path:
    return platformdirs.user_state_path("acestep") / NAME


def is_first_today(subject: str) -> bool:
    """Tell whether a notice is shown for the first time today, and note that it is.

    Where the state folder cannot be read or written, each time counts as the first.
    """
    today = datetime.datetime.now().astimezone().date().isoformat()
    try:
        shown = json.loads(notices_file().read_bytes())
    except (OSError, ValueError):
        shown = {}
    if not isinstance(shown, dict):
        shown = {}
    if shown.get(subject) == today:
        return False
    with suppress(OSError):
        disk.replace_text(notices_file(), json.dumps({**shown, subject: today}) + "\n")
    return True
