"""One render on one card at a time: a later one waits for its turn, in this process or another."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from acestep_cli.errors import reason_of
from acestep_cli.machine import device_choice, hardware, history
from acestep_cli.machine.hardware import Device
from acestep_cli.render.reporter import Messages
from acestep_cli.render.settings import RenderSettings

if TYPE_CHECKING:
    import filelock

#: Seconds between two checks whether a card is free.
POLL_SECONDS = 0.2
#: Variables that hide cards from a process, and number the others anew.
VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


def usable_cards(run: RenderSettings) -> list[Device]:
    """Return the cards that a run may use."""
    return [
        device
        for device in hardware.detect().devices
        if device.backend != "cpu" and (run.device is None or run.device.lower() in device_choice.device_names(device))
    ]


@contextmanager
def lock_card(run: RenderSettings, terminal: Messages) -> Iterator[RenderSettings]:
    """Hold the first free card during the body; yield the run, limited to that card where there are several.

    The processor is never locked: renders on it slow each other down, and no more.
    """
    cards = usable_cards(run)
    if not cards:
        yield run
        return
    try:
        card, lock = acquire_card(cards, terminal)
    except OSError as error:
        reason = reason_of(error)
        terminal.warn(f"{lock_folder()} cannot be written: {reason}; nothing keeps other renders from the same card.")
        yield run
        return
    with lock:
        yield replace(run, device=card.name) if len(cards) > 1 else run


def acquire_card(cards: Sequence[Device], terminal: Messages) -> tuple[Device, filelock.BaseFileLock]:
    """Return a free card and its acquired lock; wait where other renders hold all of them."""
    import filelock

    lock_folder().mkdir(parents=True, exist_ok=True)
    locks = [(card, filelock.FileLock(lock_folder() / f"{card_id(card)}.lock")) for card in cards]
    is_said = False
    while True:
        for card, lock in locks:
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                return card, lock
        if not is_said:
            names = ", ".join(card.name for card in cards)
            terminal.say(f"Another render is at work on {names}; waiting for it.")
            is_said = True
        time.sleep(POLL_SECONDS)


def lock_folder() -> Path:
    return history.history_file().parent / "cards"


def card_id(card: Device) -> str:
    """Return a name for a card that is the same in every process on this machine.

    `CUDA_VISIBLE_DEVICES` and its like number the cards of a process anew.
    """
    kind, _, number = card.name.partition(":")
    for variable in VISIBLE:
        shown = [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
        if number.isdigit() and int(number) < len(shown):
            number = shown[int(number)]
            break
    return re.sub(r"[^\w-]+", "-", f"{kind}-{number or 0}")
